/* test_tokenizer_files.c: the kinds of files that hold a tokenizer, good and bad ones. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../base/buffer.h"
#include "../../base/file.h"
#include "tokenizer_tests.h"

START_TEST(vocab_txt)
{
    static const char vocab[] = "[PAD]\n[UNK]\r\n[CLS]\n[SEP]\n[MASK]\na\n##b\nA\n\xc3\xa9\n\xe4\xb8\xad\n";
    static const char cased[] = "{\"do_lower_case\":false,\"model_max_length\":1000000000000000019884624838656,"
                                "\"mask_token\":{\"content\":\"<m>\"},\"truncation_side\":\"left\"}";
    sdx_tokenizer *t = NULL;
    sdx_error err = {0};
    write_file("vocab.txt", vocab, sizeof vocab - 1);
    ck_assert_msg(sdx_tokenizer_open(tokenizer_folder, &t, &err) == SDX_OK, "%s", err.message);
    check_ids(t, "A\xc3\xa1 [MASK]\xe4\xb8\xad", "2 1 4 9 3");
    check_ids(t, "Ab \xc3\x81", "2 5 6 5 3");
    ck_assert(sdx_tokenizer_is_special(t, 0) && !sdx_tokenizer_is_special(t, 5));
    ck_assert_uint_eq(t->model_max_length, 0);
    sdx_tokenizer_free(t);
    write_file("tokenizer_config.json", cased, sizeof cased - 1);
    ck_assert_msg(sdx_tokenizer_open(tokenizer_folder, &t, &err) == SDX_OK, "%s", err.message);
    check_ids(t, "A a \xc3\xa9<m>", "2 7 5 8 10 3"); /* <m> is new: behind the vocabulary */
    ck_assert_uint_eq(t->model_max_length, 0);
    ck_assert_int_eq(t->mask_id, 10);
    ck_assert(t->truncate_left);
    sdx_tokenizer_free(t);
    write_file("vocab.txt", "a\n\xff\n", 4);
    ck_assert_int_eq(sdx_tokenizer_open(tokenizer_folder, &t, &err), SDX_ERR_FILE);
    ck_assert_ptr_nonnull(strstr(err.message, "line 2"));
}
END_TEST

/* ---- what must be refused
 * -------------------------------------------------------------------------------------- */

START_TEST(hostile_files)
{
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

/* vocab.json of characters: greedy on nothing, repeated ids are one, the blank between them counts. */
START_TEST(ctc)
{
    static const char vocab[] =
        "{\"<pad>\":0,\"<s>\":1,\"</s>\":2,\"<unk>\":3,\"|\":4,\"A\":5,\"B\":6,\"\\u00e4\":7}";
    const int64_t ids[] = {0, 5, 5, 0, 5, 4, 4, 0, 6, 6, 7, 0};
    sdx_tokenizer *t = NULL;
    sdx_error err = {0};
    write_file("vocab.json", vocab, sizeof vocab - 1);
    ck_assert_msg(sdx_tokenizer_open(tokenizer_folder, &t, &err) == SDX_OK, "%s", err.message);
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
    ck_assert_msg(sdx_tokenizer_open(tokenizer_folder, &t, &err) == SDX_OK, "%s", err.message);
    check_encoding(t, "ab ab", 5, "b", 0, "0 4 6 1 1 3 1 / 0 0 0 0 0 0 0");
    sdx_tokenizer_free(t);
    write_file("merges.txt", bad, sizeof bad - 1);
    ck_assert_int_eq(sdx_tokenizer_open(tokenizer_folder, &t, &err), SDX_ERR_FILE);
    ck_assert_ptr_nonnull(strstr(err.message, "a b c"));
    write_file("merges.txt", merges, sizeof merges - 1);
    write_file("tokenizer_config.json", "{\"tokenizer_class\":\"GPT2Tokenizer\"}", 35);
    write_file("vocab.json", vocab, 30);
    ck_assert_int_eq(sdx_tokenizer_open(tokenizer_folder, &t, &err), SDX_ERR_FILE);
    write_file("vocab.json", vocab, sizeof vocab - 1);
    ck_assert_msg(sdx_tokenizer_open(tokenizer_folder, &t, &err) == SDX_OK, "%s", err.message);
    check_ids(t, "ab ab", "4 6");
    sdx_tokenizer_free(t);
    write_file("spiece.model", "\n\x03\n\x01", 4);
    ck_assert_int_eq(sdx_tokenizer_open(tokenizer_folder, &t, &err), SDX_ERR_FILE);
    ck_assert_ptr_nonnull(strstr(err.message, "spiece.model"));
}
END_TEST

/* Opens the folder with each configuration and compares one pair. */
static void check_classes(const char *const (*rows)[2], size_t count, const char *text, const char *pair)
{
    for (size_t i = 0; i < count; i++) {
        sdx_tokenizer *t = NULL;
        sdx_error err = {0};
        write_file("tokenizer_config.json", rows[i][0], strlen(rows[i][0]));
        ck_assert_msg(sdx_tokenizer_open(tokenizer_folder, &t, &err) == SDX_OK, "%s: %s", rows[i][0],
                      err.message);
        check_encoding(t, text, strlen(text), pair, 0, rows[i][1]);
        sdx_tokenizer_free(t);
    }
}

/* A copy of a file of tests/data/zoo. */
static void copy_file(const char *from, const char *to)
{
    char path[512], *data;
    size_t size;
    sdx_error err = {0};
    ck_assert_msg(sdx_file_read(data_path("zoo/%s", from, path), 1 << 26, &data, &size, &err) == SDX_OK, "%s",
                  err.message);
    write_file(to, data, size);
    free(data);
}

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
        {"{\"tokenizer_class\":\"BarthezTokenizer\"}",
         "1500 465 113 156 925 327 4 42 239 37 1 1 53 1501 5 357 1 / 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0"},
        {"{\"tokenizer_class\":\"XGLMTokenizer\"}",
         "2 466 114 157 926 328 5 43 240 38 2 2 54 697 130 114 8 209 292 358 / 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 "
         "0 0 0 0 0"},
        {"{\"tokenizer_class\":\"UdopTokenizer\",\"add_prefix_space\":false}",
         "326 113 156 925 327 4 42 239 37 1 669 696 129 113 7 208 291 357 1 / 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 "
         "0 0 0"},
        {"{\"tokenizer_class\":\"ReformerTokenizer\"}",
         "465 113 156 925 327 4 42 239 37 53 696 129 113 7 208 291 357 / 0 0 0 0 0 0 0 0 0 1 1 1 1 1 1 1 1"},
        {"{\"tokenizer_class\":\"SeamlessM4TTokenizer\",\"src_lang\":\"deu\","
         "\"additional_special_tokens\":[\"__eng__\",\"__deu__\"]}",
         "1502 466 114 157 926 328 5 43 240 38 54 697 130 114 8 209 292 358 3 / 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 "
         "0 0 0 0"},
        {"{\"tokenizer_class\":\"LayoutXLMTokenizer\"}",
         "0 466 114 157 926 328 5 43 240 38 2 2 54 1501 6 358 2 / 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0"},
        {"{\"tokenizer_class\":\"GemmaTokenizer\"}",
         "2 326 113 156 925 327 4 42 239 37 2 669 696 129 113 7 208 291 357 / 0 0 0 0 0 0 0 0 0 0 1 1 1 1 1 1 "
         "1 1 1"},
        {"{\"tokenizer_class\":\"CodeLlamaTokenizer\"}",
         "1500 465 113 156 925 327 4 42 239 37 1500 53 696 129 113 7 208 291 357 / 0 0 0 0 0 0 0 0 0 0 1 1 1 1 1 1 "
         "1 1 1"},
        {"{\"tokenizer_class\":\"CodeLlamaTokenizer\",\"suffix_token\":\"(A\",\"eot_token\":null,"
         "\"add_bos_token\":false}",
         "465 113 156 925 327 4 5 1503 5 37 53 696 129 113 7 208 291 357 / 0 0 0 0 0 0 0 0 0 0 1 1 1 1 1 1 1 1"},
    };
    copy_file("t5/checkpoint/spiece.model", "spiece.model");
    check_classes(rows, sizeof rows / sizeof *rows, "Caf\u00e9 1, (A)", "not <mask>?");
}
END_TEST

/* The same for vocab.json and merges.txt: of bytes, ... */
START_TEST(byte_classes)
{
    static const char added[] =
        "{\"<|startoftranscript|>\":2000,\"<|en|>\":2001,\"<|de|>\":2002,\"<|translate|>\":2003,"
        "\"<|transcribe|>\":2004,\"<|notimestamps|>\":2005,\"<|endoftext|>\":2006}";
    static const char *const rows[][2] = {
        {"{\"tokenizer_class\":\"MvpTokenizer\"}",
         "0 39 69 74 1990 876 22 1077 11 55 2 2 1111 2 / 0 0 0 0 0 0 0 0 0 0 0 0 0 0"},
        {"{\"tokenizer_class\":\"LayoutLMv3Tokenizer\"}",
         "0 562 69 74 1990 876 22 1077 11 55 2 2 359 2 / 0 0 0 0 0 0 0 0 0 0 0 0 0 0"},
        {"{\"tokenizer_class\":\"MarkupLMTokenizer\",\"tags_dict\":{}}",
         "0 39 69 74 1990 876 22 1077 11 55 2 1111 2 / 0 0 0 0 0 0 0 0 0 0 0 0 0"},
        {"{\"tokenizer_class\":\"BlenderbotTokenizer\"}",
         "39 69 74 1990 876 22 1077 11 55 1111 / 0 0 0 0 0 0 0 0 0 1"},
        {"{\"tokenizer_class\":\"Qwen2Tokenizer\"}",
         "39 69 74 1990 225 21 22 1077 11 55 1111 / 0 0 0 0 0 0 0 0 0 0 1"},
        {"{\"tokenizer_class\":\"WhisperTokenizer\"}",
         "2000 2005 39 69 74 1990 876 22 1077 11 55 1111 2006 / 0 0 0 0 0 0 0 0 0 0 0 1 1"},
        {"{\"tokenizer_class\":\"WhisperTokenizer\",\"language\":\"en\",\"task\":\"translate\","
         "\"predict_timestamps\":true}",
         "2000 2001 2003 39 69 74 1990 876 22 1077 11 55 1111 2006 / 0 0 0 0 0 0 0 0 0 0 0 0 1 1"},
    };
    static const char german[] = "{\"tokenizer_class\":\"WhisperTokenizer\",\"language\":\"German\"}";
    sdx_tokenizer *t = NULL;
    sdx_error err = {0};
    copy_file("roberta-classify/checkpoint/vocab.json", "vocab.json");
    copy_file("roberta-classify/checkpoint/merges.txt", "merges.txt");
    write_file("added_tokens.json", added, sizeof added - 1);
    check_classes(rows, sizeof rows / sizeof *rows, "Caf\u00e9 12 It'S", "no");
    write_file("tokenizer_config.json", german, sizeof german - 1);
    ck_assert_int_eq(sdx_tokenizer_open(tokenizer_folder, &t, &err), SDX_ERR_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(err.message, "<|German|>"));
}
END_TEST

/* ... and of words that end with </w>. */
START_TEST(word_classes)
{
    static const char vocab[] =
        "{\"<unk>\":0,\"<s>\":1,\"</s>\":2,\"<pad>\":3,\"<mask>\":4,\"<|startoftext|>\":5,\"<|endoftext|>\":6,"
        "\"a\":7,\"b\":8,\"c\":9,\"A\":10,\"a</w>\":11,\"b</w>\":12,\"c</w>\":13,\"ab\":14,\"ab</w>\":15,"
        "\"abc</w>\":16,\"1\":17,\"1</w>\":18,\"'\":19,\"s</w>\":20,\"'s</w>\":21,\",</w>\":22,\",\":23,"
        "\"\\u00c3\":24,\"\\u00a9</w>\":25,\"\\u00e9</w>\":26}";
    static const char merges[] = "#version: 0.2\na b\na b</w>\nab c</w>\n' s</w>\n";
    static const char *const rows[][2] = {
        {"{\"tokenizer_class\":\"CLIPTokenizer\"}",
         "5 16 11 21 22 24 25 6 6 6 6 6 6 6 18 18 6 / 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0"},
        {"{\"tokenizer_class\":\"HerbertTokenizer\"}",
         "1 10 0 0 11 0 0 22 26 2 0 17 18 2 / 0 0 0 0 0 0 0 0 0 0 1 1 1 1"},
        {"{\"tokenizer_class\":\"OpenAIGPTTokenizer\"}",
         "16 11 0 20 22 0 0 17 18 / 0 0 0 0 0 0 1 1 1"},
    };
    static const char clip[] = "{\"tokenizer_class\":\"CLIPTokenizer\"}";
    const int64_t ids[] = {5, 16, 11, 21, 22, 24, 25, 6};
    sdx_tokenizer *t = NULL;
    sdx_error err = {0};
    write_file("vocab.json", vocab, sizeof vocab - 1);
    write_file("merges.txt", merges, sizeof merges - 1);
    check_classes(rows, sizeof rows / sizeof *rows, "ABC a'S,  \u00e9", "<unk>11");
    write_file("tokenizer_config.json", clip, sizeof clip - 1);
    ck_assert_msg(sdx_tokenizer_open(tokenizer_folder, &t, &err) == SDX_OK, "%s", err.message);
    check_decode(t, ids, 8, true, "abc a 's , \u00e9");
    sdx_tokenizer_free(t);
}
END_TEST

/* Splinter asks a question between two texts. */
START_TEST(splinter)
{
    static const char vocab[] = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n.\n'\n[QUESTION]\n";
    static const char *const rows[][2] = {
        {"{\"tokenizer_class\":\"SplinterTokenizer\"}", "2 5 8 6 3 5 3 / 0 0 0 0 0 1 1"}};
    write_file("vocab.txt", vocab, sizeof vocab - 1);
    check_classes(rows, 1, "a", "a");
}
END_TEST

/* One vocabulary a language in vocab.json: target_lang says which. */
START_TEST(languages_of_ctc)
{
    static const char vocab[] =
        "{\"eng\":{\"<pad>\":0,\"<unk>\":1,\"|\":2,\"a\":3,\"b\":4},\"fra\":{\"<pad>\":0,\"<unk>\":1,\"|\":2,\"b\":3}}";
    static const char *const configs[] = {"{\"target_lang\":\"fra\"}", "{\"target_lang\":\"deu\"}", "{}"};
    static const char *const errors[] = {NULL, "no vocabulary of target_lang \"deu\"", "none by target_lang"};
    write_file("vocab.json", vocab, sizeof vocab - 1);
    for (size_t i = 0; i < 3; i++) {
        sdx_tokenizer *t = NULL;
        sdx_error err = {0};
        write_file("tokenizer_config.json", configs[i], strlen(configs[i]));
        sdx_status status = sdx_tokenizer_open(tokenizer_folder, &t, &err);
        if (status == SDX_OK) check_ids(t, "ab b", "1 3 2 3");
        ck_assert_int_eq(status, errors[i] ? SDX_ERR_FILE : SDX_OK);
        if (errors[i]) ck_assert_ptr_nonnull(strstr(err.message, errors[i]));
        sdx_tokenizer_free(t);
    }
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
    ck_assert_msg(sdx_tokenizer_open(tokenizer_folder, &t, &err) == SDX_OK, "%s", err.message);
    check_ids(t, ">>fr<< Caf\u00e9  1, (A) \ufb01n\u00bd z\u017d ", "2 1 1 4 5 6 7 8 9 10 11 12 14 1 15 1 1 1 0");
    check_ids(t, ">>de<<A", "1 1 0");
    check_decode(t, ids, 19, true, ">>fr<<f\u00e9 1, (A) fin12");
    check_decode(t, ids, 19, false,
                 ">>fr<<<unk> <unk> f\u00e9 1, (A) fin1<unk> 2<unk> <unk> <unk> </s>");
    sdx_tokenizer_free(t);
    write_file("target.spm", "\n\x00", 2);
    ck_assert_int_eq(sdx_tokenizer_open(tokenizer_folder, &t, &err), SDX_ERR_FILE);
    ck_assert_ptr_nonnull(strstr(err.message, "target.spm has no pieces"));
    write_file("target.spm", model, size);
    write_file("target_vocab.json", "{\"<unk>\":0,\"</s>\":1,\"<pad>\":2}", 31);
    write_file("tokenizer_config.json", separate, sizeof separate - 1);
    ck_assert_int_eq(sdx_tokenizer_open(tokenizer_folder, &t, &err), SDX_ERR_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(err.message, "other ids"));
    free(model);
}
END_TEST

/* added_tokens.json: ids beyond the vocabulary, as older versions of transformers kept them. */
START_TEST(old_added_tokens)
{
    static const char vocab[] = "[PAD]\n[UNK]\n[CLS]\n[SEP]\na\nb\n", added[] = "{\"[MASK]\":9,\"ab\":8}",
                      bad[] = "{\"x\":-1}";
    sdx_tokenizer *t = NULL;
    sdx_error err = {0};
    write_file("vocab.txt", vocab, sizeof vocab - 1);
    write_file("added_tokens.json", added, sizeof added - 1);
    ck_assert_msg(sdx_tokenizer_open(tokenizer_folder, &t, &err) == SDX_OK, "%s", err.message);
    check_ids(t, "a ab[MASK] b", "2 4 8 9 5 3");
    ck_assert(sdx_tokenizer_is_special(t, 9) && !sdx_tokenizer_is_special(t, 8));
    sdx_tokenizer_free(t);
    write_file("added_tokens.json", bad, sizeof bad - 1);
    ck_assert_int_eq(sdx_tokenizer_open(tokenizer_folder, &t, &err), SDX_ERR_FILE);
}
END_TEST

Suite *tokenizer_files_suite(void);
Suite *tokenizer_files_suite(void)
{
    const TTest *const tests[] = {
        vocab_txt, hostile_files, odd_vocabularies, ctc,
        older_files, classes, byte_classes, word_classes, splinter,
        languages_of_ctc, marian, old_added_tokens};
    return tokenizer_tests("tokenizer_files", tests, sizeof tests / sizeof *tests);
}
