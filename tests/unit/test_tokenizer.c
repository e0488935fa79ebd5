/* test_tokenizer.c: each component of the pipeline on a vocabulary of a few tokens. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../base/buffer.h"
#include "../../tokenizer/json_bulk.h"
#include "tokenizer_tests.h"

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
        {"\\\\p{Lo}", "a\U00031350 b", "8 14"}, /* of Unicode 15 */
        {"\\\\p{C}", "a\u0378 \U00031350", "8 1"},
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

Suite *tokenizer_suite(void);
Suite *tokenizer_suite(void)
{
    const TTest *const tests[] = {
        bert_pipeline, any_bytes, maximal_subparts, normalizers,
        sets_in_patterns, pre_tokenizers, canonical_order, added_tokens,
        lost_start, added_tokens_that_meet, decoding, long_words,
        numbers, trie_holds_all};
    return tokenizer_tests("tokenizer", tests, sizeof tests / sizeof *tests);
}
