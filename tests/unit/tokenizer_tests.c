/* tokenizer_tests.c: see tokenizer_tests.h. */
#define _GNU_SOURCE
#include "tokenizer_tests.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../base/buffer.h"
#include "folder_tests.h"

char tokenizer_folder[FOLDER];

void make_tokenizer_folder(void)
{
    make_folder(tokenizer_folder);
}

void remove_tokenizer_folder(void)
{
    remove_folder(tokenizer_folder);
}

void write_file(const char *name, const char *bytes, size_t size)
{
    put_file(tokenizer_folder, name, bytes, size);
}

sdx_status open_text(const char *json, sdx_tokenizer **t, sdx_error *err)
{
    write_file("tokenizer.json", json, strlen(json));
    return sdx_tokenizer_open(tokenizer_folder, t, err);
}

sdx_tokenizer *open_json(const char *json)
{
    sdx_tokenizer *t = NULL;
    sdx_error err = {0};
    ck_assert_msg(open_text(json, &t, &err) == SDX_OK, "%s", err.message);
    return t;
}

/* "2 5 3 / 0 0 0": ids and type ids. */
void check_encoding(const sdx_tokenizer *t, const char *text, size_t size, const char *pair,
                           size_t max_length, const char *expected)
{
    sdx_encoding e;
    sdx_error err = {0};
    sdx_buffer b = {0};
    char *got;
    ck_assert_msg(sdx_tokenizer_encode(t, text, size, pair, pair ? strlen(pair) : 0, max_length, &e, &err) ==
                      SDX_OK,
                  "%s", err.message);
    for (size_t i = 0; i < e.count; i++) sdx_buffer_printf(&b, "%s%d", i ? " " : "", (int)e.ids[i]);
    if (pair) sdx_buffer_puts(&b, " /");
    for (size_t i = 0; pair && i < e.count; i++) sdx_buffer_printf(&b, " %d", (int)e.type_ids[i]);
    ck_assert_int_eq(sdx_buffer_take(&b, &got, &err), SDX_OK);
    ck_assert_msg(!strcmp(got, expected), "\"%s\": got %s, expected %s", text, got, expected);
    free(got);
    sdx_encoding_free(&e);
}

void check_ids(const sdx_tokenizer *t, const char *text, const char *expected)
{
    check_encoding(t, text, strlen(text), NULL, 0, expected);
}

void check_decode(const sdx_tokenizer *t, const int64_t *ids, size_t count, bool skip,
                         const char *expected)
{
    char *text;
    sdx_error err = {0};
    ck_assert_int_eq(sdx_tokenizer_decode(t, ids, count, skip, &text, NULL, &err), SDX_OK);
    ck_assert_str_eq(text, expected);
    free(text);
}

const char *data_path(const char *format, const char *name, char path[512])
{
    char rest[256];
    const char *data = getenv("SDX_TEST_DATA");
    snprintf(rest, sizeof rest, format, name);
    snprintf(path, 512, "%s/%s", data ? data : "tests/data", rest);
    return path;
}

Suite *tokenizer_tests(const char *name, const TTest *const *tests, size_t count)
{
    Suite *suite = suite_create(name);
    TCase *tcase = tcase_create(name);
    tcase_add_checked_fixture(tcase, make_tokenizer_folder, remove_tokenizer_folder);
    tcase_set_timeout(tcase, 60);
    for (size_t i = 0; i < count; i++) tcase_add_test(tcase, tests[i]);
    suite_add_tcase(suite, tcase);
    return suite;
}
