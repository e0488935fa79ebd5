/* test_tokenizer.c: each component of the WordPiece pipeline on a vocabulary of a few tokens, hostile files,
 * and a file of rows whose ids and decoded texts come from Hugging Face's tokenizers. */
#define _GNU_SOURCE
#include <check.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../base/buffer.h"
#include "../../base/file.h"
#include "../../base/memory.h"
#include "../../base/parallel.h"
#include "../../tokenizer/json_bulk.h"

/* ---- files for one test ---------------------------------------------------------------------------------- */

static char folder[] = "/tmp/sdx-tokenizer-XXXXXX";
static const char *const file_names[] = {"tokenizer.json", "vocab.txt",  "tokenizer_config.json",
                                         "vocab.json",     "merges.txt", "spiece.model",
                                         "added_tokens.json", "source.spm", "target.spm",
                                         "target_vocab.json"};

static void make_folder(void)
{
    memcpy(strrchr(folder, '-') + 1, "XXXXXX", 6);
    ck_assert_ptr_nonnull(mkdtemp(folder));
}

static void remove_folder(void)
{
    char path[128];
    for (size_t i = 0; i < sizeof file_names / sizeof *file_names; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, file_names[i]);
        unlink(path);
    }
    rmdir(folder);
}

static void write_file(const char *name, const char *bytes, size_t size)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(bytes, 1, size, f), size);
    fclose(f);
}

#define VOCAB                                                                                                  \
    "{\"[PAD]\":0,\"[UNK]\":1,\"[CLS]\":2,\"[SEP]\":3,\"[MASK]\":4,\"un\":5,\"##aff\":6,\"##able\":7,\"a\":8," \
    "\"##b\":9,\".\":10,\"'\":11,\"s\":12,\"\xe4\xb8\xad\":13,\"b\":14,\"A\":15,\"\xc3\xa9\":16,\"c\":17,"     \
    "\"##a\":18,\"i\\u0307\":19,\"fi\":20,\",\":21,\"don\":22,\"_\":23}"
#define MODEL                                                                                                  \
    "\"model\":{\"type\":\"WordPiece\",\"unk_token\":\"[UNK]\",\"max_input_chars_per_word\":8,"                \
    "\"vocab\":" VOCAB "}"
#define BERT_STEPS                                                                                             \
    "\"normalizer\":{\"type\":\"BertNormalizer\",\"lowercase\":true,\"strip_accents\":null},"                  \
    "\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},"
#define BERT_END                                                                                               \
    "\"post_processor\":{\"type\":\"BertProcessing\",\"cls\":[\"[CLS]\",2],\"sep\":[\"[SEP]\",3]},"            \
    "\"decoder\":{\"type\":\"WordPiece\",\"prefix\":\"##\",\"cleanup\":true},"

static sdx_status open_text(const char *json, sdx_tokenizer **t, sdx_error *err)
{
    write_file("tokenizer.json", json, strlen(json));
    return sdx_tokenizer_open(folder, t, err);
}

static sdx_tokenizer *open_json(const char *json)
{
    sdx_tokenizer *t = NULL;
    sdx_error err = {0};
    ck_assert_msg(open_text(json, &t, &err) == SDX_OK, "%s", err.message);
    return t;
}

/* "2 5 3 / 0 0 0": ids and type ids. */
static void check_encoding(const sdx_tokenizer *t, const char *text, size_t size, const char *pair,
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

static void check_ids(const sdx_tokenizer *t, const char *text, const char *expected)
{
    check_encoding(t, text, strlen(text), NULL, 0, expected);
}

static void check_decode(const sdx_tokenizer *t, const int64_t *ids, size_t count, bool skip,
                         const char *expected)
{
    char *text;
    sdx_error err = {0};
    ck_assert_int_eq(sdx_tokenizer_decode(t, ids, count, skip, &text, NULL, &err), SDX_OK);
    ck_assert_str_eq(text, expected);
    free(text);
}

/* ---- the pipeline ---------------------------------------------------------------------------------------- */

START_TEST(bert_pipeline)
{
    sdx_tokenizer *t = open_json("{" BERT_STEPS BERT_END MODEL "}");
    check_ids(t, "Unable.", "2 5 7 10 3");
    check_ids(t, "", "2 3");
    check_ids(t, " \t\r\n", "2 3");
    check_ids(t,
              "\xc3\x81"
              "b",
              "2 8 9 3"); /* A acute: accent stripped, lower case */
    check_ids(t,
              "a\xe4\xb8\xad"
              "a",
              "2 8 13 8 3"); /* Han stands alone */
    check_ids(t,
              "a\xc2\xad\xe2\x80\x8d"
              "b",
              "2 8 9 3"); /* soft hyphen and joiner are dropped */
    check_ids(t,
              "a\xc2\xa0"
              "b",
              "2 8 14 3"); /* no-break space is a space */
    check_ids(t,
              "a\xe2\x80\x9d"
              "b",
              "2 8 1 14 3");                          /* a quotation mark is punctuation, and unknown */
    check_ids(t, "unx", "2 1 3");                     /* one unknown for the whole word */
    check_ids(t, "ababbbbb", "2 8 9 18 9 9 9 9 9 3"); /* 8 characters */
    check_ids(t, "ababbbbbb", "2 1 3");               /* 9: too long */
    check_ids(t, "##b", "2 1 1 14 3");
    ck_assert_uint_eq(sdx_tokenizer_vocab_size(t), 24);
    ck_assert_str_eq(sdx_tokenizer_token(t, 6), "##aff");
    ck_assert_ptr_null(sdx_tokenizer_token(t, 24));
    ck_assert_ptr_null(sdx_tokenizer_token(t, -1));
    ck_assert(!sdx_tokenizer_is_special(t, 2)); /* not among added_tokens */
    ck_assert_int_eq(t->mask_id, 4);
    ck_assert_int_eq(t->eos_id, -1);
    sdx_tokenizer_free(t);
}
END_TEST

START_TEST(any_bytes)
{
    sdx_tokenizer *t = open_json("{\"pre_tokenizer\":{\"type\":\"WhitespaceSplit\"}," MODEL "}");
    sdx_tokenizer *bert = open_json("{" BERT_STEPS MODEL "}");
    check_ids(bert,
              "a\xff"
              "b",
              "8 9"); /* U+FFFD is cleaned away */
    check_encoding(bert, "a\0b", 3, NULL, 0, "8 9");
    check_encoding(t, "a\0b", 3, NULL, 0, "1");
    check_ids(t, "a \xf0\x9f\x98 b", "8 1 14"); /* cut short: one U+FFFD */
    check_ids(t, "a \xed\xa0\x80", "8 1");
    sdx_tokenizer_free(t);
    sdx_tokenizer_free(bert);
}
END_TEST

/* How many U+FFFD Python's bytes.decode("utf-8", "replace") makes of each. */
START_TEST(maximal_subparts)
{
    static const struct {
        const char *bytes;
        size_t parts;
    } rows[] = {{"\x80", 1},         {"\xc0\x80", 2},         {"\xe4\xb8", 1},         {"\xed\xa0\x80", 3},
                {"\xf0\x9f\x98", 1}, {"\xf4\x90\x80\x80", 4}, {"\xe0\x80\x80", 3},     {"\xf8\x88\x80\x80", 4},
                {"\xe4\xe4\xb8", 2}, {"\xf0\x80\x80", 3},     {"\xf1\x80\x80\xf1", 2}, {"\xff\xfe", 2}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        size_t size = strlen(rows[i].bytes), at = 0, parts = 0;
        ck_assert_uint_eq(sdx_utf8_valid(rows[i].bytes, size), 0);
        for (; at < size; parts++) at += sdx_utf8_bad(rows[i].bytes + at, size - at);
        ck_assert_uint_eq(at, size);
        ck_assert_msg(parts == rows[i].parts, "row %zu: %zu parts", i, parts);
    }
    ck_assert_uint_eq(sdx_utf8_valid("abcdefghij\xf4\x8f\xbf\xbfk\xed", 16), 15);
}
END_TEST

static void check_steps(const char *normalizer, const char *pre_tokenizer, const char *text,
                        const char *expected)
{
    char json[2048];
    snprintf(json, sizeof json, "{\"normalizer\":%s,\"pre_tokenizer\":%s," MODEL "}", normalizer,
             pre_tokenizer);
    sdx_tokenizer *t = open_json(json);
    check_ids(t, text, expected);
    sdx_tokenizer_free(t);
}

START_TEST(normalizers)
{
    static const char spaces[] = "{\"type\":\"WhitespaceSplit\"}";
    check_steps("{\"type\":\"Lowercase\"}", spaces, "UN B \xc4\xb0", "5 14 19"); /* dotted I: two code points */
    check_steps("{\"type\":\"NFC\"}", spaces, "e\xcc\x81", "16");
    check_steps("{\"type\":\"NFD\"}", spaces, "\xc3\xa9", "1");
    check_steps("{\"type\":\"NFKC\"}", spaces, "\xef\xac\x81 \xc3\xa9", "20 16");
    check_steps("{\"type\":\"NFKD\"}", spaces, "\xef\xac\x81 \xc3\xa9", "20 1");
    check_steps("{\"type\":\"StripAccents\"}", spaces, "a\xcc\x81 \xc3\xa9",
                "8 16"); /* only what is decomposed */
    check_steps("{\"type\":\"Strip\",\"strip_right\":false}", "null",
                " \xe3\x80\x80"
                "a",
                "8");
    check_steps("{\"type\":\"Strip\"}", "null",
                " \xe3\x80\x80"
                "a\xc2\xa0 ",
                "8");
    check_steps("{\"type\":\"Replace\",\"pattern\":{\"String\":\"x\"},\"content\":\"un\"}", spaces, "x x",
                "5 5");
    check_steps("{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFD\"},{\"type\":\"StripAccents\"},"
                "{\"type\":\"Lowercase\"}]}",
                spaces, "\xc3\x81 A", "8 8");
    check_steps("{\"type\":\"BertNormalizer\",\"lowercase\":false}", spaces, "\xc3\xa9 A", "16 15");
    check_steps("{\"type\":\"BertNormalizer\",\"lowercase\":false,\"strip_accents\":true}", spaces, "\xc3\x81",
                "15");
    check_steps("{\"type\":\"BertNormalizer\",\"handle_chinese_chars\":false}", spaces,
                "\xe4\xb8\xad"
                "a",
                "13 18");
}
END_TEST

/* Oniguruma's, where PCRE2's differ: what is left when they are taken out. */
START_TEST(sets_in_patterns)
{
    static const char *const rows[][3] = {
        {"[[:punct:]]", "a\u2581 b$", "8 14"},
        {"[^[:punct:]a]", "ab\u2581 a", "1"},
        {"\\\\p{Han}", "\u4e2da a\u3001", "8 1"},
        {"[[:^alpha:]]", "a1b\u0903", "1"},
        {"[\\\\W]", "a\u00b2 .b", "8 9"},
        {"\\\\u0062", "ab", "8"},
        {"(?m)a.b", "a\nb c", "17"},
        {"[b\\\\p{^L}]", "a1b,", "8"},
    };
    char step[128];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        snprintf(step, sizeof step, "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"%s\"},\"content\":\"\"}",
                 rows[i][0]);
        check_steps(step, "{\"type\":\"WhitespaceSplit\"}", rows[i][1], rows[i][2]);
    }
}
END_TEST

START_TEST(pre_tokenizers)
{
    check_steps("null", "{\"type\":\"BertPreTokenizer\"}", "a.,_b", "8 10 21 23 14");
    check_steps("null", "{\"type\":\"Whitespace\"}", "a_ b., c", "1 14 1 17"); /* \w+ and [^\w\s]+ */
    check_steps("null", "{\"type\":\"WhitespaceSplit\"}", "a. b", "1 14");
    check_steps("null",
                "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"WhitespaceSplit\"},{\"type\":"
                "\"BertPreTokenizer\"}]}",
                "a. b", "8 10 14");
    check_steps("null", "null", "ab", "8 9");
}
END_TEST

/* Marks in any order and any number give one canonical form; 100 take the other sort than 2. */
START_TEST(canonical_order)
{
    enum { PAIRS = 50 };
    uint32_t c[2 * PAIRS + 1] = {'a'}, spare[2 * PAIRS + 1];
    for (size_t i = 0; i < PAIRS; i++) {
        c[1 + 2 * i] = 0x301; /* class 230 */
        c[2 + 2 * i] = 0x323; /* class 220 */
    }
    sdx_reorder(c, 3, spare);
    ck_assert(c[1] == 0x323 && c[2] == 0x301);
    sdx_reorder(c, 2 * PAIRS + 1, spare);
    for (size_t i = 0; i < 2 * PAIRS; i++) ck_assert_uint_eq(c[1 + i], i < PAIRS ? 0x323 : 0x301);
}
END_TEST

START_TEST(added_tokens)
{
    sdx_tokenizer *t =
        open_json("{\"added_tokens\":[{\"id\":4,\"content\":\"[MASK]\",\"special\":true,\"lstrip\":true,"
                  "\"normalized\":false},"
                  "{\"id\":24,\"content\":\"AB\",\"single_word\":true,\"normalized\":true},"
                  "{\"id\":25,\"content\":\"<x>\",\"normalized\":false},{\"id\":26,\"content\":\"<x>y\","
                  "\"normalized\":false},"
                  "{\"content\":\"un\",\"rstrip\":true,\"normalized\":false}]," BERT_STEPS BERT_END MODEL "}");
    check_ids(t, "a [MASK].", "2 8 4 10 3");
    check_ids(t, "a [mask]", "2 8 1 1 1 3");              /* not normalized: must be exact */
    check_ids(t, "<x>y<x>a", "2 26 25 8 3");              /* the longest */
    check_ids(t, "a Ab ab. abb", "2 8 24 24 10 8 9 9 3"); /* normalized, and a word of its own */
    check_ids(t, "un  a", "2 5 8 3");
    check_ids(t, "Una", "2 5 18 3");
    ck_assert(sdx_tokenizer_is_special(t, 4) && !sdx_tokenizer_is_special(t, 25));
    ck_assert_str_eq(sdx_tokenizer_token(t, 26), "<x>y");
    ck_assert_uint_eq(sdx_tokenizer_vocab_size(t), 27);
    sdx_tokenizer_free(t);
}
END_TEST

/* Metaspace's "first" asks for the first character of the text; one that the normalizer dropped was it. */
START_TEST(lost_start)
{
    static const char bert[] = "{\"type\":\"BertNormalizer\",\"strip_accents\":true,\"lowercase\":false}";
    static const char first[] = "{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"first\"}";
    check_steps(bert, first, "b", "23 9");
    check_steps(bert, first,
                "\x01"
                "b",
                "14");
    check_steps(bert, first,
                "\u0325"
                "b",
                "14");
    check_steps(bert, first,
                "\ufffd"
                "b",
                "14");
}
END_TEST

/* Of tokens that normalization makes equal, special ones are found, then the first; what stands right of a
 * token that strips there is gone. */
START_TEST(added_tokens_that_meet)
{
    static const char text[] =
        "{\"added_tokens\":[{\"id\":24,\"content\":\"The\",\"normalized\":true},"
        "{\"id\":25,\"content\":\"the\",\"normalized\":true,\"special\":%s},{\"id\":26,\"content\":\" \","
        "\"lstrip\":true,\"rstrip\":true,\"normalized\":false},{\"id\":27,\"content\":\"<0xFF>\"}],"
        "\"normalizer\":{\"type\":\"Lowercase\"},\"decoder\":{\"type\":\"Sequence\",\"decoders\":["
        "{\"type\":\"ByteFallback\"},{\"type\":\"CTC\",\"pad_token\":\"x\",\"word_delimiter_token\":\"y\","
        "\"cleanup\":false}]}," MODEL "}";
    const int64_t ids[] = {8, 27, 27, 8};
    char json[2048];
    for (int special = 0; special < 2; special++) {
        snprintf(json, sizeof json, text, special ? "true" : "false");
        sdx_tokenizer *t = open_json(json);
        check_ids(t, "athe", special ? "8 25" : "8 24");
        check_ids(t, "a   b", "8 26 14");
        check_decode(t, ids, 4, true, "a\ufffda"); /* each byte that is no text is a piece of its own */
        sdx_tokenizer_free(t);
    }
}
END_TEST

START_TEST(pairs_and_truncation)
{
    sdx_tokenizer *t = open_json("{" BERT_STEPS BERT_END MODEL "}");
    check_encoding(t, "a b", 3, "c", 0, "2 8 14 3 17 3 / 0 0 0 0 1 1");
    check_encoding(t, "a b", 3, "", 0, "2 8 14 3 3 / 0 0 0 0 1");
    check_encoding(t, "a b c s", 7, NULL, 4, "2 8 14 3");
    check_encoding(t, "a b c s", 7, NULL, 2, "2 3");
    check_encoding(t, "a b c s", 7, "c", 7, "2 8 14 17 3 17 3 / 0 0 0 0 0 1 1"); /* only the longer is cut */
    check_encoding(t, "a", 1, "a b c s", 6, "2 8 3 8 14 3 / 0 0 0 1 1 1");
    check_encoding(t, "a b c s", 7, "a b c", 6,
                   "2 8 14 3 8 3 / 0 0 0 0 1 1"); /* both: the longer gets the odd one */
    check_encoding(t, "a b c", 5, "a b c s", 6, "2 8 3 8 14 3 / 0 0 0 1 1 1");
    check_encoding(t, "a b c", 5, "a b c", 6, "2 8 3 8 14 3 / 0 0 0 1 1 1");
    sdx_encoding e = {.count = 7};
    sdx_error err;
    ck_assert_int_eq(sdx_tokenizer_encode(t, "a", 1, NULL, 0, 1, &e, &err), SDX_ERR_USAGE);
    ck_assert_uint_eq(e.count, 7);
    sdx_tokenizer_free(t);
    t = open_json("{\"truncation\":{\"max_length\":64,\"direction\":\"Left\"}," BERT_STEPS BERT_END MODEL "}");
    check_encoding(t, "a b c s", 7, NULL, 4, "2 17 12 3");
    ck_assert_uint_eq(t->model_max_length, 64);
    sdx_tokenizer_free(t);
}
END_TEST

/* "ids / types - padding + overflow", as tokenizers 0.22 prints them for the pairs (a b c, a b c d e) and (a, b c). */
static void print_windows(sdx_buffer *b, const sdx_encoding *e)
{
    for (size_t i = 0; i < e->count; i++) sdx_buffer_printf(b, "%s%d", i ? " " : "", (int)e->ids[i]);
    sdx_buffer_puts(b, " /");
    for (size_t i = 0; i < e->count; i++) sdx_buffer_printf(b, " %d", (int)e->type_ids[i]);
    if (e->padding) sdx_buffer_printf(b, " - %d", (int)e->padding);
    for (size_t i = 0; i < e->overflow_count; i++) {
        sdx_buffer_puts(b, " + ");
        print_windows(b, &e->overflow[i]);
    }
}

START_TEST(batches)
{
    static const char *const rows[][2] = {
        {"\"truncation\":{\"max_length\":7,\"strategy\":\"LongestFirst\",\"stride\":1,\"dir"
         "ection\":\"Right\"},\"padding\":{\"strategy\":\"BatchLongest\",\"direction\":\"Rig"
         "ht\",\"pad_to_multiple_of\":4,\"pad_id\":9,\"pad_type_id\":1,\"pad_token\":\"[PA"
         "D]\"},\"post_processor\":{\"type\":\"BertProcessing\",\"cls\":[\"[CLS]\",1],\"sep\""
         ":[\"[SEP]\",2]}",
         "1 3 4 2 3 4 2 9 / 0 0 0 0 1 1 1 1 - 1 + 1 4 5 2 3 4 2 9 / 0 0 0 0 1 1 "
         "1 1 - 1 + 1 4 5 2 4 5 2 9 / 0 0 0 0 1 1 1 1 - 1 + 1 4 5 2 5 6 2 9 / 0 "
         "0 0 0 1 1 1 1 - 1 + 1 4 5 2 6 7 2 9 / 0 0 0 0 1 1 1 1 - 1 + 1 3 4 2 4 "
         "5 2 9 / 0 0 0 0 1 1 1 1 - 1 + 1 3 4 2 5 6 2 9 / 0 0 0 0 1 1 1 1 - 1 + "
         "1 3 4 2 6 7 2 9 / 0 0 0 0 1 1 1 1 - 1 | 1 3 2 4 5 2 9 9 / 0 0 0 1 1 1 "
         "1 1 - 2"},
        {"\"truncation\":{\"max_length\":9,\"strategy\":\"OnlySecond\",\"stride\":0,\"direc"
         "tion\":\"Left\"},\"padding\":{\"strategy\":{\"Fixed\":8},\"direction\":\"Left\",\"pa"
         "d_to_multiple_of\":null,\"pad_id\":0,\"pad_type_id\":0,\"pad_token\":\"x\"},\"po"
         "st_processor\":{\"type\":\"RobertaProcessing\",\"cls\":[\"[CLS]\",1],\"sep\":[\"[S"
         "EP]\",2],\"trim_offsets\":true,\"add_prefix_space\":true}",
         "1 3 4 5 2 2 6 7 2 / 0 0 0 0 0 0 0 0 0 + 1 3 4 5 2 2 4 5 2 / 0 0 0 0 0 "
         "0 0 0 0 + 1 3 4 5 2 2 3 2 / 0 0 0 0 0 0 0 0 | 0 1 3 2 2 4 5 2 / 0 0 0 "
         "0 0 0 0 0 - 1"},
        {"\"truncation\":{\"max_length\":13,\"strategy\":\"OnlyFirst\",\"stride\":0,\"direc"
         "tion\":\"Right\"},\"padding\":null,\"post_processor\":{\"type\":\"Sequence\",\"pro"
         "cessors\":[{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\""
         ":\"[CLS]\",\"type_id\":0}},{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},{\"SpecialTo"
         "ken\":{\"id\":\"[SEP]\",\"type_id\":0}}],\"pair\":[{\"SpecialToken\":{\"id\":\"[CLS]"
         "\",\"type_id\":0}},{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},{\"SpecialToken\":{\""
         "id\":\"[SEP]\",\"type_id\":0}},{\"Sequence\":{\"id\":\"B\",\"type_id\":0}},{\"Specia"
         "lToken\":{\"id\":\"[SEP]\",\"type_id\":2}}],\"special_tokens\":{\"[CLS]\":{\"id\":\""
         "[CLS]\",\"ids\":[1],\"tokens\":[\"[CLS]\"]},\"[SEP]\":{\"id\":\"[SEP]\",\"ids\":[2],\""
         "tokens\":[\"[SEP]\"]}}},{\"type\":\"RobertaProcessing\",\"cls\":[\"[CLS]\",1],\"se"
         "p\":[\"[SEP]\",2],\"trim_offsets\":true,\"add_prefix_space\":true}]}",
         "1 1 2 2 3 2 2 2 2 2 3 4 5 6 7 2 2 2 2 / 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 "
         "0 0 0 0 + 1 1 2 2 4 2 2 2 2 2 3 4 5 6 7 2 2 2 2 / 0 0 0 0 0 0 0 0 0 0 "
         "0 0 0 0 0 0 0 0 0 + 1 1 2 2 5 2 2 2 2 2 3 4 5 6 7 2 2 2 2 / 0 0 0 0 0 "
         "0 0 0 0 0 0 0 0 0 0 0 0 0 0 | 1 1 2 2 3 2 2 2 2 2 4 5 2 2 2 2 / 0 0 0 "
         "0 0 0 0 0 0 0 0 0 0 0 0 0"},
        {"\"truncation\":{\"max_length\":9,\"strategy\":\"LongestFirst\",\"stride\":0,\"dir"
         "ection\":\"Right\"},\"padding\":null,\"post_processor\":{\"type\":\"Sequence\",\"p"
         "rocessors\":[{\"type\":\"BertProcessing\",\"cls\":[\"[CLS]\",1],\"sep\":[\"[SEP]\","
         "2]},{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"[CLS"
         "]\",\"type_id\":3}},{\"Sequence\":{\"id\":\"A\",\"type_id\":4}}],\"pair\":[{\"Sequen"
         "ce\":{\"id\":\"A\",\"type_id\":5}},{\"Sequence\":{\"id\":\"B\",\"type_id\":6}}],\"spec"
         "ial_tokens\":{\"[CLS]\":{\"id\":\"[CLS]\",\"ids\":[1],\"tokens\":[\"[CLS]\"]},\"[SEP"
         "]\":{\"id\":\"[SEP]\",\"ids\":[2],\"tokens\":[\"[SEP]\"]}}}]}",
         "1 3 4 5 2 3 4 5 2 / 5 5 5 5 5 6 6 6 6 + 1 3 4 5 2 6 7 2 / 5 5 5 5 5 1 "
         "1 1 | 1 3 2 4 5 2 / 5 5 5 6 6 6"},
    };
    const sdx_text texts[] = {{"a b c", 5}, {"a", 1}}, pairs[] = {{"a b c d e", 9}, {"b c", 3}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char json[4096], *got;
        snprintf(json, sizeof json,
                 "{%s,\"pre_tokenizer\":{\"type\":\"Whitespace\"},\"model\":{\"type\":\"WordLevel\",\"unk_token\":\"[UNK]\","
                 "\"vocab\":{\"[UNK]\":0,\"[CLS]\":1,\"[SEP]\":2,\"a\":3,\"b\":4,\"c\":5,\"d\":6,\"e\":7}}}",
                 rows[i][0]);
        sdx_tokenizer *t = open_json(json);
        sdx_encoding e[2];
        sdx_error err = {0};
        sdx_buffer b = {0};
        sdx_status status = sdx_tokenizer_encode_batch(t, texts, pairs, 2, sdx_tokenizer_truncation(t),
                                                       sdx_tokenizer_padding(t), e, &err);
        ck_assert_msg(status == SDX_OK, "%s", err.message);
        print_windows(&b, &e[0]);
        sdx_buffer_puts(&b, " | ");
        print_windows(&b, &e[1]);
        ck_assert_int_eq(sdx_buffer_take(&b, &got, &err), SDX_OK);
        ck_assert_str_eq(got, rows[i][1]);
        free(got);
        for (size_t k = 0; k < 2; k++) sdx_encoding_free(&e[k]);
        sdx_tokenizer_free(t);
    }
}
END_TEST

START_TEST(templates)
{
    sdx_tokenizer *t = open_json(
        "{" BERT_STEPS
        "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"x\","
        "\"type_id\":0}},{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],\"pair\":[{\"Sequence\":{\"id\":\"B\","
        "\"type_id\":2}},"
        "{\"SpecialToken\":{\"id\":\"x\",\"type_id\":1}},{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],"
        "\"special_tokens\":{\"x\":{\"id\":\"x\",\"ids\":[2,3],\"tokens\":[\"[CLS]\",\"[SEP]\"]}}}," MODEL "}");
    check_ids(t, "a", "2 3 8");
    check_encoding(t, "a", 1, "b", 0, "14 2 3 8 / 2 1 1 0");
    sdx_tokenizer_free(t);
    t = open_json("{" BERT_STEPS MODEL "}");
    check_encoding(t, "a", 1, "b", 0, "8 14 / 0 1");
    sdx_tokenizer_free(t);
}
END_TEST

START_TEST(decoding)
{
    const int64_t ids[] = {2, 5, 6, 7, 22, 11, 12, 10, 999, -1, 3};
    static const char special[] = "\"added_tokens\":[{\"id\":2,\"content\":\"[CLS]\",\"special\":true},"
                                  "{\"id\":3,\"content\":\"[SEP]\",\"special\":true}],";
    char json[4096];
    snprintf(json, sizeof json, "{%s" BERT_STEPS BERT_END MODEL "}", special);
    sdx_tokenizer *t = open_json(json);
    check_decode(t, ids, 11, true, "unaffable don ' s.");
    check_decode(t, ids, 11, false, "[CLS] unaffable don ' s. [SEP]");
    check_decode(t, ids, 0, false, "");
    sdx_tokenizer_free(t);
    write_file("tokenizer_config.json", "{\"clean_up_tokenization_spaces\":true}", 37);
    t = open_json(json);
    check_decode(t, ids, 11, true, "unaffable don's.");
    sdx_tokenizer_free(t);
    snprintf(json, sizeof json, "{%s" BERT_STEPS MODEL "}", special);
    write_file("tokenizer_config.json", "{}", 2);
    t = open_json(json);
    check_decode(t, ids, 11, true, "un ##aff ##able don ' s ."); /* no decoder: tokens and spaces */
    sdx_tokenizer_free(t);
}
END_TEST

START_TEST(vocab_txt)
{
    static const char vocab[] = "[PAD]\n[UNK]\r\n[CLS]\n[SEP]\n[MASK]\na\n##b\nA\n\xc3\xa9\n\xe4\xb8\xad\n";
    static const char cased[] = "{\"do_lower_case\":false,\"model_max_length\":1000000000000000019884624838656,"
                                "\"mask_token\":{\"content\":\"<m>\"},\"truncation_side\":\"left\"}";
    sdx_tokenizer *t = NULL;
    sdx_error err = {0};
    write_file("vocab.txt", vocab, sizeof vocab - 1);
    ck_assert_msg(sdx_tokenizer_open(folder, &t, &err) == SDX_OK, "%s", err.message);
    check_ids(t, "A\xc3\xa1 [MASK]\xe4\xb8\xad", "2 1 4 9 3");
    check_ids(t, "Ab \xc3\x81", "2 5 6 5 3");
    ck_assert(sdx_tokenizer_is_special(t, 0) && !sdx_tokenizer_is_special(t, 5));
    ck_assert_uint_eq(t->model_max_length, 0);
    sdx_tokenizer_free(t);
    write_file("tokenizer_config.json", cased, sizeof cased - 1);
    ck_assert_msg(sdx_tokenizer_open(folder, &t, &err) == SDX_OK, "%s", err.message);
    check_ids(t, "A a \xc3\xa9<m>", "2 7 5 8 10 3"); /* <m> is new: behind the vocabulary */
    ck_assert_uint_eq(t->model_max_length, 0);
    ck_assert_int_eq(t->mask_id, 10);
    ck_assert(t->truncate_left);
    sdx_tokenizer_free(t);
    write_file("vocab.txt", "a\n\xff\n", 4);
    ck_assert_int_eq(sdx_tokenizer_open(folder, &t, &err), SDX_ERR_FILE);
    ck_assert_ptr_nonnull(strstr(err.message, "line 2"));
}
END_TEST

/* ---- what must be refused
 * -------------------------------------------------------------------------------------- */

START_TEST(hostile_files)
{
#define WORDPIECE "\"model\":{\"type\":\"WordPiece\",\"vocab\":"
    static const struct {
        const char *json;
        sdx_status status;
        const char *says;
    } rows[] = {
        {"{" WORDPIECE, SDX_ERR_FILE, "line 1"},
        {"[]", SDX_ERR_FILE, "not a JSON object"},
        {"{}", SDX_ERR_UNSUPPORTED, "model"},
        {"{\"model\":[]}", SDX_ERR_UNSUPPORTED, "model"},
        {"{\"model\":{\"type\":\"Markov\"}}", SDX_ERR_UNSUPPORTED, "Markov"},
        {"{" WORDPIECE "[]}}", SDX_ERR_FILE, "vocab"},
        {"{" WORDPIECE "{}}}", SDX_ERR_FILE, "empty"},
        {"{" WORDPIECE "{\"a\":-1}}}", SDX_ERR_FILE, "id -1"},
        {"{" WORDPIECE "{\"a\":9007199254740993}}}", SDX_ERR_FILE, "9007199254740993"},
        {"{" WORDPIECE "{\"a\":16000000}}}", SDX_ERR_FILE, "too large"},
        {"{" WORDPIECE "{\"a\":\"0\"}}}", SDX_ERR_FILE, "not an integer"},
        {"{" WORDPIECE "{\"a\":0},\"unk_token\":3}}", SDX_ERR_FILE, "unk_token"},
        {"{" WORDPIECE "{\"a\":0},\"max_input_chars_per_word\":-3}}", SDX_ERR_FILE, "negative"},
        {"{\"normalizer\":{\"type\":\"Rot13\"}," MODEL "}", SDX_ERR_UNSUPPORTED, "Rot13"},
        {"{\"normalizer\":[]," MODEL "}", SDX_ERR_FILE, "normalizer"},
        {"{\"normalizer\":{\"type\":\"Sequence\"}," MODEL "}", SDX_ERR_FILE, "normalizers"},
        {"{\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"(a\"},\"content\":\"\"}," MODEL "}",
         SDX_ERR_UNSUPPORTED, "regular expression"},
        {"{\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\"\"},\"content\":\"\"}," MODEL "}",
         SDX_ERR_FILE, "empty"},
        {"{\"normalizer\":{\"type\":\"BertNormalizer\",\"lowercase\":1}," MODEL "}", SDX_ERR_FILE, "lowercase"},
        {"{\"pre_tokenizer\":{\"type\":\"Chop\"}," MODEL "}", SDX_ERR_UNSUPPORTED, "Chop"},
        {"{\"decoder\":{\"type\":\"Glue\"}," MODEL "}", SDX_ERR_UNSUPPORTED, "Glue"},
        {"{\"post_processor\":{\"type\":\"Frame\"}," MODEL "}", SDX_ERR_UNSUPPORTED, "Frame"},
        {"{\"post_processor\":{\"type\":\"BertProcessing\",\"cls\":[\"x\",99],\"sep\":[]}," MODEL "}",
         SDX_ERR_FILE, "post_processor"},
        {"{\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"Sequence\":{\"id\":\"C\"}}]}"
         "," MODEL "}",
         SDX_ERR_FILE, "names a sequence"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[[\"a\",\"b\"]]}}", SDX_ERR_FILE,
         "merge \"a b\""},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a\"]}}", SDX_ERR_FILE,
         "not two tokens"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0}}}", SDX_ERR_FILE, "merges"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[],\"unk_token\":\"u\"}}", SDX_ERR_FILE,
         "unknown"},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",0]],\"unk_id\":1}}", SDX_ERR_FILE, "unk_id 1"},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",true]]}}", SDX_ERR_FILE, "malformed"},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}", SDX_ERR_FILE, "empty"},
        {"{" WORDPIECE "{\"\\ud800\":0}}}", SDX_ERR_FILE, "malformed"},
        {"{\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"AAAA\"}," MODEL "}",
         SDX_ERR_FILE, "cut short"},
        {"{\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"?\"}," MODEL "}", SDX_ERR_FILE,
         "base64"},
        {"{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[a&&[b\"},\"behavior\":\"Isolated\"}"
         "," MODEL "}",
         SDX_ERR_UNSUPPORTED, "a set does not end"},
        {"{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},\"behavior\":\"Glued\"}," MODEL
         "}",
         SDX_ERR_FILE, "behavior"},
        {"{\"added_tokens\":[{\"id\":3}]," MODEL "}", SDX_ERR_FILE, "content"},
        {"{\"added_tokens\":[{\"id\":99999999,\"content\":\"x\"}]," MODEL "}", SDX_ERR_FILE, "99999999"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        sdx_tokenizer *t = NULL;
        sdx_error err = {0};
        sdx_status status = open_text(rows[i].json, &t, &err);
        ck_assert_msg(status == rows[i].status && strstr(err.message, rows[i].says), "row %zu: %d %s", i,
                      status, err.message);
        ck_assert_ptr_nonnull(strstr(err.message, "tokenizer.json"));
        ck_assert_ptr_null(t);
    }
    sdx_error err;
    sdx_tokenizer *t;
    ck_assert_int_eq(sdx_tokenizer_open("/nonexistent", &t, &err), SDX_ERR_FILE);
}
END_TEST

/* Odd but usable: two tokens with one id, ids with gaps, and no unknown token until a word needs it. */
START_TEST(odd_vocabularies)
{
    sdx_tokenizer *t = open_json("{" BERT_STEPS WORDPIECE "{\"a\":0,\"b\":0,\"\":5,\"##\":900,\"##c\":7}}}");
    check_ids(t, "a b ac", "0 0 0 7");
    ck_assert_ptr_null(sdx_tokenizer_token(t, 3));
    ck_assert_uint_eq(sdx_tokenizer_vocab_size(t), 901);
    sdx_encoding e;
    sdx_error err;
    ck_assert_int_eq(sdx_tokenizer_encode(t, "x", 1, NULL, 0, 0, &e, &err), SDX_ERR_FILE);
    ck_assert_ptr_nonnull(strstr(err.message, "[UNK]"));
    sdx_tokenizer_free(t);
}
END_TEST

#define BPE_VOCAB                                                                                              \
    "\"vocab\":{\"a\":0,\"b\":1,\"c\":2,\"ab\":3,\"bc\":4,\"abc\":5,\"aa\":6,\"aaaa\":7,\"<u>\":8},"
#define BPE_MERGES "\"merges\":[[\"a\",\"b\"],[\"b\",\"c\"],\"ab c\",[\"a\",\"a\"],\"aa aa\"]"

/* Words of all lengths, short and long way, against merging said as simply as can be. */
START_TEST(long_words)
{
    static const int merges[][3] = {{0, 1, 3}, {1, 2, 4}, {3, 2, 5}, {0, 0, 6}, {6, 6, 7}};
    enum { LONGEST = 150 };
    sdx_tokenizer *t = open_json("{\"model\":{\"type\":\"BPE\"," BPE_VOCAB BPE_MERGES "}}");
    uint32_t seed = 3;
    for (int n = 1; n <= LONGEST; n++) {
        char word[LONGEST + 1] = {0};
        int64_t ids[LONGEST];
        size_t count = (size_t)n;
        for (int i = 0; i < n; i++) {
            seed = seed * 1664525u + 1013904223u;
            word[i] = (char)('a' + (seed >> 24) % 3);
            ids[i] = word[i] - 'a';
        }
        for (size_t m = 0; m < sizeof merges / sizeof *merges; m++) {
            for (size_t i = 0; i + 1 < count; i++) {
                if (ids[i] != merges[m][0] || ids[i + 1] != merges[m][1]) continue;
                ids[i] = merges[m][2];
                memmove(ids + i + 1, ids + i + 2, (--count - i - 1) * sizeof *ids);
                m = (size_t)-1; /* from the first merge again */
                break;
            }
        }
        sdx_encoding e;
        sdx_error err;
        ck_assert_int_eq(sdx_tokenizer_encode(t, word, (size_t)n, NULL, 0, 0, &e, &err), SDX_OK);
        ck_assert_msg(e.count == count && !memcmp(e.ids, ids, count * sizeof *ids), "%s", word);
        sdx_encoding_free(&e);
    }
    sdx_tokenizer_free(t);
}
END_TEST

/* The nearest double, as strtod finds it. */
START_TEST(numbers)
{
    char text[64];
    double got;
    uint32_t seed = 11;
    for (int i = 0; i < 200000; i++) {
        seed = seed * 1664525u + 1013904223u;
        uint32_t high = seed;
        seed = seed * 1664525u + 1013904223u;
        double value = -(double)high / (double)(1u << (seed % 32)) - (double)(seed >> 7) / 33554432.0 / 7.0;
        int digits = 1 + (int)(seed >> 9) % 18;
        snprintf(text, sizeof text, i % 3 ? "%.*g" : "%.*f", digits, value);
        size_t n = strlen(text);
        const char *end = sdx_read_number(text, text + n, &got);
        ck_assert_msg(end == text + n && got == strtod(text, NULL), "%s: %.17g", text, got);
    }
    static const char tail[] = "12.5,";
    ck_assert_ptr_eq(sdx_read_number(tail, tail + 5, &got), tail + 4);
    ck_assert_ptr_eq(sdx_read_number(tail + 4, tail + 5, &got), tail + 4);
}
END_TEST

/* vocab.json of characters: greedy on nothing, repeated ids are one, the blank between them counts. */
START_TEST(ctc)
{
    static const char vocab[] =
        "{\"<pad>\":0,\"<s>\":1,\"</s>\":2,\"<unk>\":3,\"|\":4,\"A\":5,\"B\":6,\"\\u00e4\":7}";
    const int64_t ids[] = {0, 5, 5, 0, 5, 4, 4, 0, 6, 6, 7, 0};
    sdx_tokenizer *t = NULL;
    sdx_error err = {0};
    write_file("vocab.json", vocab, sizeof vocab - 1);
    ck_assert_msg(sdx_tokenizer_open(folder, &t, &err) == SDX_OK, "%s", err.message);
    check_ids(t, "AB \xc3\xa4x", "5 6 4 7 3");
    check_ids(t, "A <pad> B", "5 0 6");
    check_decode(t, ids, 12, false, "AA B\xc3\xa4");
    sdx_tokenizer_free(t);
}
END_TEST

START_TEST(older_files)
{
    static const char vocab[] = "{\"<s>\":0,\"</s>\":1,\"a\":2,\"b\":3,\"ab\":4,\"\\u0120\":5,\"\\u0120ab\":6}";
    static const char merges[] = "#version: 0.2\na b\n\xc4\xa0 ab\n", bad[] = "#version: 0.2\na b c\n";
    sdx_tokenizer *t = NULL;
    sdx_error err = {0};
    write_file("vocab.json", vocab, sizeof vocab - 1);
    write_file("merges.txt", merges, sizeof merges - 1);
    ck_assert_msg(sdx_tokenizer_open(folder, &t, &err) == SDX_OK, "%s", err.message);
    check_encoding(t, "ab ab", 5, "b", 0, "0 4 6 1 1 3 1 / 0 0 0 0 0 0 0");
    sdx_tokenizer_free(t);
    write_file("merges.txt", bad, sizeof bad - 1);
    ck_assert_int_eq(sdx_tokenizer_open(folder, &t, &err), SDX_ERR_FILE);
    ck_assert_ptr_nonnull(strstr(err.message, "a b c"));
    write_file("merges.txt", merges, sizeof merges - 1);
    write_file("tokenizer_config.json", "{\"tokenizer_class\":\"GPT2Tokenizer\"}", 35);
    write_file("vocab.json", vocab, 30);
    ck_assert_int_eq(sdx_tokenizer_open(folder, &t, &err), SDX_ERR_FILE);
    write_file("vocab.json", vocab, sizeof vocab - 1);
    ck_assert_msg(sdx_tokenizer_open(folder, &t, &err) == SDX_OK, "%s", err.message);
    check_ids(t, "ab ab", "4 6");
    sdx_tokenizer_free(t);
    write_file("spiece.model", "\n\x03\n\x01", 4);
    ck_assert_int_eq(sdx_tokenizer_open(folder, &t, &err), SDX_ERR_FILE);
    ck_assert_ptr_nonnull(strstr(err.message, "spiece.model"));
}
END_TEST

/* Every key is found again, nothing else is, and all prefixes lie on the way. */
START_TEST(trie_holds_all)
{
    enum { KEYS = 20000 };
    static char text[KEYS][8];
    static sdx_string key[KEYS];
    static int32_t value[KEYS];
    uint32_t seed = 7;
    for (int i = 0; i < KEYS; i++) {
        value[i] = i;
        for (size_t k = 0; k < sizeof text[i]; k++) {
            seed = seed * 1664525u + 1013904223u;
            text[i][k] = (char)(seed >> 24 & (k < 2 ? 0xff : 0x83));
        }
        key[i] = (sdx_string){text[i], 2 + (seed >> 8) % 7};
    }
    sdx_trie trie;
    sdx_error err;
    ck_assert_int_eq(sdx_trie_init(&trie, key, value, KEYS, &err), SDX_OK);
    for (int i = 0; i < KEYS; i++) {
        int32_t found = sdx_trie_get(&trie, key[i].data, key[i].size);
        ck_assert_int_ge(found, i); /* a later equal key wins */
        ck_assert(key[found].size == key[i].size && !memcmp(key[found].data, key[i].data, key[i].size));
    }
    ck_assert_int_eq(sdx_trie_get(&trie, "", 0), -1);
    ck_assert_int_eq(sdx_trie_get(&trie, "no such key", 11), -1);
    sdx_trie_fini(&trie);
}
END_TEST

#ifdef SDX_ALLOC_FAILURE
static sdx_status use_all(sdx_error *err)
{
    sdx_tokenizer *t;
    sdx_encoding e;
    char *text;
    TRY(sdx_tokenizer_open(folder, &t, err));
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

/* ---- rows from Hugging Face
 * ------------------------------------------------------------------------------------ */

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

static const char *data_path(const char *format, const char *name, char path[512])
{
    char rest[256];
    const char *data = getenv("SDX_TEST_DATA");
    snprintf(rest, sizeof rest, format, name);
    snprintf(path, 512, "%s/%s", data ? data : "tests/data", rest);
    return path;
}

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

/* What transformers 4.57 makes of one SentencePiece file for each class that reads such, and of one sentence. */
START_TEST(classes)
{
    static const char *const rows[][2] = {
        {"{\"tokenizer_class\":\"MT5Tokenizer\"}",
         "465 113 156 925 327 4 42 239 37 1 53 696 129 113 7 208 291 357 1 / 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0"
         " 0 0 0 0"},
        {"{\"tokenizer_class\":\"XLMRobertaTokenizer\"}",
         "0 466 114 157 926 328 5 43 240 38 2 2 54 1501 6 358 2 / 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0"},
        {"{\"tokenizer_class\":\"MBartTokenizer\",\"src_lang\":\"ro_RO\"}",
         "466 114 157 926 328 5 43 240 38 54 1526 6 358 2 1520 / 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0"},
        {"{\"tokenizer_class\":\"MBart50Tokenizer\",\"src_lang\":\"ro_RO\"}",
         "1520 466 114 157 926 328 5 43 240 38 54 1553 6 358 2 / 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0"},
        {"{\"tokenizer_class\":\"NllbTokenizer\",\"src_lang\":\"fra_Latn\"}",
         "1558 466 114 157 926 328 5 43 240 38 54 1501 6 358 2 / 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0"},
        {"{\"tokenizer_class\":\"NllbTokenizer\",\"src_lang\":\"fra_Latn\",\"legacy_behaviour\":true}",
         "466 114 157 926 328 5 43 240 38 54 1501 6 358 2 1558 / 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0"},
        {"{\"tokenizer_class\":\"PegasusTokenizer\"}",
         "568 216 259 1028 430 107 145 342 140 156 799 232 216 110 311 394 460 1 / 0 0 0 0 0 0 0 0 0 0 0 0"
         " 0 0 0 0 0 0"},
        {"{\"tokenizer_class\":\"AlbertTokenizer\"}",
         "1500 995 156 49 327 4 42 113 37 1501 53 696 129 113 7 208 291 357 1501 / 0 0 0 0 0 0 0 0 0 0 1 1"
         " 1 1 1 1 1 1 1"},
        {"{\"tokenizer_class\":\"AlbertTokenizer\",\"do_lower_case\":false,\"keep_accents\":true}",
         "1500 465 113 156 925 327 4 42 239 37 1501 53 696 129 113 7 208 291 357 1501 / 0 0 0 0 0 0 0 0 0 "
         "0 0 1 1 1 1 1 1 1 1 1"},
        {"{\"tokenizer_class\":\"DebertaV2Tokenizer\",\"do_lower_case\":true}",
         "1500 995 156 925 327 4 42 113 37 1501 53 696 129 113 7 208 291 357 1501 / 0 0 0 0 0 0 0 0 0 0 1 "
         "1 1 1 1 1 1 1 1"},
        {"{\"tokenizer_class\":\"DebertaV2Tokenizer\",\"split_by_punct\":true}",
         "1500 465 113 156 925 327 5 4 5 42 133 5 37 1501 53 5 696 261 113 7 208 55 5 357 1501 / 0 0 0 0 0"
         " 0 0 0 0 0 0 0 0 0 1 1 1 1 1 1 1 1 1 1 1"},
        {"{\"tokenizer_class\":\"XLNetTokenizer\"}",
         "465 113 156 49 327 4 42 239 37 1501 53 1503 5 357 1501 1502 / 0 0 0 0 0 0 0 0 0 0 1 1 1 1 1 2"},
        {"{\"tokenizer_class\":\"BigBirdTokenizer\"}",
         "1502 465 113 156 925 327 4 42 239 37 1501 53 696 129 113 7 208 291 357 1501 / 0 0 0 0 0 0 0 0 0 "
         "0 0 1 1 1 1 1 1 1 1 1"},
        {"{\"tokenizer_class\":\"RemBertTokenizer\"}",
         "1500 465 113 156 925 327 4 42 239 37 1501 53 696 129 113 7 208 291 357 1501 / 0 0 0 0 0 0 0 0 0 "
         "0 0 1 1 1 1 1 1 1 1 1"},
    };
    const char *text = "Caf\u00e9 1, (A)";
    char path[512], *model;
    size_t size;
    sdx_error err = {0};
    data_path("zoo/%s", "t5/checkpoint/spiece.model", path);
    ck_assert_int_eq(sdx_file_read(path, 1 << 26, &model, &size, &err), SDX_OK);
    write_file("spiece.model", model, size);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        sdx_tokenizer *t = NULL;
        write_file("tokenizer_config.json", rows[i][0], strlen(rows[i][0]));
        ck_assert_msg(sdx_tokenizer_open(folder, &t, &err) == SDX_OK, "%s", err.message);
        check_encoding(t, text, strlen(text), "not <mask>?", 0, rows[i][1]);
        sdx_tokenizer_free(t);
    }
    free(model);
}
END_TEST

/* Marian's two SentencePiece files, here the same one, and a vocabulary that lacks most of its pieces, as transformers
 * reads them: the language's code, what the vocabulary lacks, each end of the text; and back. */
START_TEST(marian)
{
    static const char vocab[] =
        "{\"</s>\":0,\"<unk>\":1,\">>fr<<\":2,\"\\u2581Ca\":3,\"f\":4,\"\\u00e9\":5,\"\\u25811\":6,\",\":7,\"\\u2581(\":8,"
        "\"A\":9,\")\":10,\"\\u2581f\":11,\"in\":12,\"\\u2581and\":13,\"1\":14,\"2\":15,\"<pad>\":16}";
    static const char config[] = "{\"tokenizer_class\":\"MarianTokenizer\"}", separate[] = "{\"separate_vocabs\":true}";
    const int64_t ids[] = {2, 1, 1, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 1, 15, 1, 1, 1, 0};
    char path[512], *model;
    size_t size;
    sdx_error err = {0};
    sdx_tokenizer *t = NULL;
    data_path("zoo/%s", "t5/checkpoint/spiece.model", path);
    ck_assert_int_eq(sdx_file_read(path, 1 << 26, &model, &size, &err), SDX_OK);
    write_file("source.spm", model, size);
    write_file("target.spm", model, size);
    write_file("vocab.json", vocab, sizeof vocab - 1);
    write_file("tokenizer_config.json", config, sizeof config - 1);
    ck_assert_msg(sdx_tokenizer_open(folder, &t, &err) == SDX_OK, "%s", err.message);
    check_ids(t, ">>fr<< Caf\u00e9  1, (A) \ufb01n\u00bd z\u017d ", "2 1 1 4 5 6 7 8 9 10 11 12 14 1 15 1 1 1 0");
    check_ids(t, ">>de<<A", "1 1 0");
    check_decode(t, ids, 19, true, ">>fr<<f\u00e9 1, (A) fin12");
    check_decode(t, ids, 19, false,
                 ">>fr<<<unk> <unk> f\u00e9 1, (A) fin1<unk> 2<unk> <unk> <unk> </s>");
    sdx_tokenizer_free(t);
    write_file("target.spm", "\n\x00", 2);
    ck_assert_int_eq(sdx_tokenizer_open(folder, &t, &err), SDX_ERR_FILE);
    ck_assert_ptr_nonnull(strstr(err.message, "target.spm has no pieces"));
    write_file("target.spm", model, size);
    write_file("target_vocab.json", "{\"<unk>\":0,\"</s>\":1,\"<pad>\":2}", 31);
    write_file("tokenizer_config.json", separate, sizeof separate - 1);
    ck_assert_int_eq(sdx_tokenizer_open(folder, &t, &err), SDX_ERR_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(err.message, "other ids"));
    free(model);
}
END_TEST

/* added_tokens.json: ids beyond the vocabulary, as older versions of transformers kept them. */
START_TEST(old_added_tokens)
{
    static const char vocab[] = "[PAD]\n[UNK]\n[CLS]\n[SEP]\na\nb\n", added[] = "{\"[MASK]\":9,\"ab\":8}", bad[] = "{\"x\":-1}";
    sdx_tokenizer *t = NULL;
    sdx_error err = {0};
    write_file("vocab.txt", vocab, sizeof vocab - 1);
    write_file("added_tokens.json", added, sizeof added - 1);
    ck_assert_msg(sdx_tokenizer_open(folder, &t, &err) == SDX_OK, "%s", err.message);
    check_ids(t, "a ab[MASK] b", "2 4 8 9 5 3");
    ck_assert(sdx_tokenizer_is_special(t, 9) && !sdx_tokenizer_is_special(t, 8));
    sdx_tokenizer_free(t);
    write_file("added_tokens.json", bad, sizeof bad - 1);
    ck_assert_int_eq(sdx_tokenizer_open(folder, &t, &err), SDX_ERR_FILE);
}
END_TEST

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

Suite *tokenizer_suite(void);
Suite *tokenizer_suite(void)
{
    const TTest *const tests[] = {bert_pipeline,    any_bytes,
                                  maximal_subparts, normalizers,
                                  pre_tokenizers,   canonical_order,
                                  added_tokens,     pairs_and_truncation,
                                  batches,          templates,
                                  decoding,
                                  vocab_txt,        hostile_files,
                                  odd_vocabularies, trie_holds_all,
                                  random_pipelines, long_words,
                                  numbers,          ctc,
                                  older_files,      classes,
                                  old_added_tokens, marian,
                                  sets_in_patterns, added_tokens_that_meet,
                                  lost_start};
    Suite *suite = suite_create("tokenizer");
    TCase *components = tcase_create("components"), *rows = tcase_create("rows");
    tcase_add_checked_fixture(components, make_folder, remove_folder);
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) tcase_add_test(components, tests[i]);
#ifdef SDX_ALLOC_FAILURE
    tcase_add_test(components, allocation_failures);
#endif
    tcase_set_timeout(rows, 60);
    tcase_set_timeout(components, 60);
    tcase_add_loop_test(rows, huggingface_rows, 0, sizeof row_files / sizeof *row_files);
    tcase_add_loop_test(rows, shared_by_threads, 0, sizeof row_files / sizeof *row_files);
#ifdef SDX_ALLOC_FAILURE
    tcase_add_loop_test(rows, no_allocation_per_token, 0, sizeof row_files / sizeof *row_files);
#endif
    suite_add_tcase(suite, components);
    suite_add_tcase(suite, rows);
    return suite;
}
