/* test_tokenizer_batch.c: what happens to ids behind the model: pairs, truncation, windows, padding, templates. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../base/buffer.h"
#include "tokenizer_tests.h"

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

Suite *tokenizer_batch_suite(void);
Suite *tokenizer_batch_suite(void)
{
    const TTest *const tests[] = {
        pairs_and_truncation, batches, templates};
    return tokenizer_tests("tokenizer_batch", tests, sizeof tests / sizeof *tests);
}
