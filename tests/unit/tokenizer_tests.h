/* tokenizer_tests.h: what the tests of tokenizers share: a folder of files for each test, and checks that print ids
 * as "2 5 3 / 0 0 0", the second half being the type ids of a pair. */
#ifndef SDX_TESTS_TOKENIZER_TESTS_H
#define SDX_TESTS_TOKENIZER_TESTS_H

#include <check.h>

#include "../../tokenizer/tokenizer.h"

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
#define WORDPIECE "\"model\":{\"type\":\"WordPiece\",\"vocab\":"

/* The folder, made before each test and removed after it; files are written into it. */
extern char tokenizer_folder[];
void make_tokenizer_folder(void);
void remove_tokenizer_folder(void);
void write_file(const char *name, const char *bytes, size_t size);
/* A file of tests/data. format: of the path, with one %s for name. */
const char *data_path(const char *format, const char *name, char path[512]);

/* Written as tokenizer.json and opened. */
sdx_status open_text(const char *json, sdx_tokenizer **t, sdx_error *err);
sdx_tokenizer *open_json(const char *json);
void check_encoding(const sdx_tokenizer *t, const char *text, size_t size, const char *pair, size_t max_length,
                    const char *expected);
void check_ids(const sdx_tokenizer *t, const char *text, const char *expected);
void check_decode(const sdx_tokenizer *t, const int64_t *ids, size_t count, bool skip, const char *expected);

/* A suite of tests in that folder. */
Suite *tokenizer_tests(const char *name, const TTest *const *tests, size_t count);

#endif
