/* test_tokenizer_rows.c: whole tokenizers: rows whose ids and decoded texts come from Hugging Face's tokenizers, many
 * threads, allocations. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../base/buffer.h"
#include "../../base/file.h"
#include "../../base/memory.h"
#include "../../base/parallel.h"
#include "tokenizer_tests.h"

static void check_row_ids(const json_t *list, const int64_t *got, size_t count, const char *what, size_t row)
{
    ck_assert_msg(json_array_size(list) == count, "row %zu: %zu %s, expected %zu", row, count, what,
                  json_array_size(list));
    for (size_t i = 0; i < count; i++) {
        ck_assert_msg(json_integer_value(json_array_get(list, i)) == got[i], "row %zu: %s differ at %zu", row,
                      what, i);
    }
}

static void check_row(const sdx_tokenizer *t, const json_t *row, size_t number)
{
    const json_t *text = json_object_get(row, "text"), *pair = json_object_get(row, "pair");
    size_t max_length = (size_t)json_integer_value(json_object_get(row, "max_length"));
    sdx_encoding e;
    sdx_error err = {0};
    char *decoded;
    size_t length;
    ck_assert_msg(sdx_tokenizer_encode(t, json_string_value(text), json_string_length(text),
                                       json_string_value(pair), json_string_length(pair), max_length, &e,
                                       &err) == SDX_OK,
                  "row %zu: %s", number, err.message);
    check_row_ids(json_object_get(row, "ids"), e.ids, e.count, "ids", number);
    if (json_object_get(row, "token_type_ids"))
        check_row_ids(json_object_get(row, "token_type_ids"), e.type_ids, e.count, "type ids", number);
    ck_assert_int_eq(sdx_tokenizer_decode(t, e.ids, e.count, true, &decoded, &length, &err), SDX_OK);
    const json_t *expected = json_object_get(row, "decoded");
    ck_assert_uint_eq(length, json_string_length(expected));
    ck_assert_mem_eq(decoded, json_string_value(expected), length);
    free(decoded);
    sdx_encoding_free(&e);
}

static void check_rows(const char *tokenizer, const char *rows_path)
{
    sdx_tokenizer *t = NULL;
    sdx_error err = {0};
    char *rows;
    size_t size, number = 0;
    ck_assert_msg(sdx_tokenizer_open(tokenizer, &t, &err) == SDX_OK, "%s", err.message);
    ck_assert_msg(sdx_file_read(rows_path, 1 << 26, &rows, &size, &err) == SDX_OK, "%s", err.message);
    for (char *line = rows, *end; (end = strchr(line, '\n')); line = end + 1) {
        json_t *row = json_loadb(line, (size_t)(end - line), JSON_ALLOW_NUL, NULL);
        ck_assert_ptr_nonnull(row);
        check_row(t, row, ++number);
        json_decref(row);
    }
    ck_assert_uint_gt(number, 0);
    free(rows);
    sdx_tokenizer_free(t);
}

static const struct {
    const char *rows, *tokenizer; /* of tests/data/tokens, of tests/data/zoo */
} row_files[] = {{"bert-model", "bert-model/checkpoint/tokenizer.json"},
                 {"bert-model", "bert-model/checkpoint/vocab.txt"},
                 {"roberta-classify", "roberta-classify/checkpoint/tokenizer.json"},
                 {"roberta-classify", "roberta-classify/checkpoint/vocab.json"},
                 {"t5", "t5/checkpoint/tokenizer.json"},
                 {"t5", "t5/checkpoint/spiece.model"}};

START_TEST(huggingface_rows)
{
    char tokenizer[512], rows[512];
    check_rows(data_path("zoo/%s", row_files[_i].tokenizer, tokenizer),
               data_path("tokens/%s.jsonl", row_files[_i].rows, rows));
}
END_TEST

#define SENTENCE                                                                                               \
    "What is <mask> AI? na\u00efve caf\u00e9s \u4e2d\u6587 don't 1,234 \U0001f600 unaffable\n "

static sdx_tokenizer *open_row_file(int index)
{
    char path[512];
    sdx_tokenizer *t = NULL;
    sdx_error err = {0};
    sdx_status status = sdx_tokenizer_open(data_path("zoo/%s", row_files[index].tokenizer, path), &t, &err);
    ck_assert_msg(status == SDX_OK, "%s", err.message);
    return t;
}

typedef struct shared {
    const sdx_tokenizer *t;
    sdx_encoding expected;
    char *decoded;
    int wrong; /* atomic */
} shared;

static void use_shared(void *context, int64_t begin, int64_t end, int worker)
{
    shared *s = context;
    (void)worker;
    for (int64_t i = begin; i < end; i++) {
        sdx_encoding e = {0};
        char *text = NULL;
        bool same = sdx_tokenizer_encode(s->t, SENTENCE, sizeof SENTENCE - 1, NULL, 0, 0, &e, NULL) == SDX_OK &&
                    e.count == s->expected.count &&
                    !memcmp(e.ids, s->expected.ids, e.count * sizeof *e.ids) &&
                    sdx_tokenizer_decode(s->t, e.ids, e.count, true, &text, NULL, NULL) == SDX_OK &&
                    !strcmp(text, s->decoded);
        if (!same) __atomic_add_fetch(&s->wrong, 1, __ATOMIC_RELAXED);
        free(text);
        sdx_encoding_free(&e);
    }
}

/* Several threads, one tokenizer; the tsan build sees any write to it. */
START_TEST(shared_by_threads)
{
    sdx_tokenizer *t = open_row_file(_i);
    shared s = {.t = t};
    ck_assert_int_eq(sdx_tokenizer_encode(t, SENTENCE, sizeof SENTENCE - 1, NULL, 0, 0, &s.expected, NULL), SDX_OK);
    ck_assert_int_eq(sdx_tokenizer_decode(t, s.expected.ids, s.expected.count, true, &s.decoded, NULL, NULL), SDX_OK);
    sdx_parallel_for(4, 200, 1, use_shared, &s);
    ck_assert_int_eq(s.wrong, 0);
    free(s.decoded);
    sdx_encoding_free(&s.expected);
    sdx_tokenizer_free(t);
}
END_TEST

#ifdef SDX_ALLOC_FAILURE
/* Allocations that encoding so many sentences at once takes. */
static long encode_cost(const sdx_tokenizer *t, size_t sentences)
{
    sdx_buffer b = {0};
    sdx_encoding e;
    sdx_error err = {0};
    char *text;
    for (size_t i = 0; i < sentences; i++) sdx_buffer_puts(&b, SENTENCE);
    size_t size = b.size;
    ck_assert_int_eq(sdx_buffer_take(&b, &text, &err), SDX_OK);
    long before = sdx_alloc_count();
    ck_assert_int_eq(sdx_tokenizer_encode(t, text, size, NULL, 0, 0, &e, &err), SDX_OK);
    long cost = sdx_alloc_count() - before;
    ck_assert_uint_gt(e.count, sentences);
    sdx_encoding_free(&e);
    free(text);
    return cost;
}

/* Arrays double, nothing is allocated for a token: a hundred times the text costs a few allocations more. */
START_TEST(no_allocation_per_token)
{
    sdx_tokenizer *t = open_row_file(_i);
    long few = encode_cost(t, 10), many = encode_cost(t, 1000);
    ck_assert_msg(many <= few + 60, "%ld allocations for 10 sentences, %ld for 1,000", few, many);
    sdx_tokenizer_free(t);
}
END_TEST
#endif

/* tools/tokenizer_cases.py: {"tokenizer": a tokenizer.json, "rows": [...]} a line. */
START_TEST(random_pipelines)
{
    char path[512], *lines;
    size_t size, number = 0;
    sdx_error err = {0};
    data_path("tokens/%s", "pipelines.jsonl", path);
    ck_assert_msg(sdx_file_read(path, 1 << 26, &lines, &size, &err) == SDX_OK, "%s", err.message);
    for (char *line = lines, *end; (end = strchr(line, '\n')); line = end + 1) {
        json_t *all = json_loadb(line, (size_t)(end - line), JSON_ALLOW_NUL, NULL), *row;
        char *json = json_dumps(json_object_get(all, "tokenizer"), JSON_ENSURE_ASCII * (++number % 2));
        ck_assert_ptr_nonnull(json);
        sdx_tokenizer *t = open_json(json);
        size_t i;
        json_array_foreach(json_object_get(all, "rows"), i, row) check_row(t, row, 1000 * number + i);
        sdx_tokenizer_free(t);
        free(json);
        json_decref(all);
    }
    ck_assert_uint_ge(number, 50);
    free(lines);
}
END_TEST

#ifdef SDX_ALLOC_FAILURE
static sdx_status use_all(sdx_error *err)
{
    sdx_tokenizer *t;
    sdx_encoding e;
    char *text;
    TRY(sdx_tokenizer_open(tokenizer_folder, &t, err));
    sdx_status status = sdx_tokenizer_encode(t, "un\xff \xc3\xa9 [MASK]", 12, "a", 1, 6, &e, err);
    if (status == SDX_OK) {
        status = sdx_tokenizer_decode(t, e.ids, e.count, false, &text, NULL, err);
        if (status == SDX_OK) free(text);
        sdx_encoding_free(&e);
    }
    sdx_tokenizer_free(t);
    return status;
}

/* Whichever allocation fails, the call says so and nothing leaks. */
START_TEST(allocation_failures)
{
    static const char json[] =
        "{\"added_tokens\":[{\"content\":\"[MASK]\",\"normalized\":true}]," BERT_STEPS BERT_END MODEL "}";
    write_file("tokenizer.json", json, sizeof json - 1);
    sdx_status status = SDX_ERR_MEMORY;
    for (long n = 1; status != SDX_OK && n < 1000; n++) {
        sdx_error err = {0};
        sdx_alloc_fail_after(n);
        status = use_all(&err);
        sdx_alloc_fail_after(0);
        ck_assert_msg(status == SDX_OK || err.status == SDX_ERR_MEMORY, "%ld: %s", n, err.message);
    }
    ck_assert_int_eq(status, SDX_OK);
}
END_TEST
#endif

Suite *tokenizer_rows_suite(void);
Suite *tokenizer_rows_suite(void)
{
    enum { FILES = sizeof row_files / sizeof *row_files };
    const TTest *const tests[] = {
        random_pipelines,
#ifdef SDX_ALLOC_FAILURE
        allocation_failures,
#endif
    };
    Suite *suite = tokenizer_tests("tokenizer_rows", tests, sizeof tests / sizeof *tests);
    TCase *rows = tcase_create("rows");
    tcase_set_timeout(rows, 60);
    tcase_add_loop_test(rows, huggingface_rows, 0, FILES);
    tcase_add_loop_test(rows, shared_by_threads, 0, FILES);
#ifdef SDX_ALLOC_FAILURE
    tcase_add_loop_test(rows, no_allocation_per_token, 0, FILES);
#endif
    suite_add_tcase(suite, rows);
    return suite;
}
