/* json_bulk.h: the long lists of a tokenizer.json. A general JSON library makes objects of every one of 250,000
 * tokens; so the model's "vocab" and "merges" are cut out of the file, read here in one pass, and only the rest
 * goes to the library. */
#ifndef SDX_TOKENIZER_JSON_BULK_H
#define SDX_TOKENIZER_JSON_BULK_H

#include <jansson.h>

#include "tokenizer.h"

/* A value of the file: bytes [at, end), to be read from left to right; at NULL: not in the file. */
typedef struct sdx_json_cursor {
    char *at, *end;
} sdx_json_cursor;

typedef struct sdx_json_file {
    json_t *root; /* the file without the lists, which are null; owned */
    char *text;   /* the file; the cursors point into it; owned */
    sdx_json_cursor vocab, merges;
} sdx_json_file;

sdx_status sdx_json_file_open(const char *path, sdx_json_file *out, sdx_error *err);
void sdx_json_file_close(sdx_json_file *file);

/* Reading. Strings are unescaped in place, NUL-terminated, and live as long as the file. */
bool sdx_json_at(sdx_json_cursor *c, char punctuation); /* is it next? Not taken. */
bool sdx_json_take(sdx_json_cursor *c, char punctuation);
sdx_status sdx_json_take_string(sdx_json_cursor *c, sdx_string *out, sdx_error *err);
sdx_status sdx_json_take_integer(sdx_json_cursor *c, int64_t *out, sdx_error *err); /* SDX_ERR_FILE: is none */
sdx_status sdx_json_take_double(sdx_json_cursor *c, double *out, sdx_error *err);
/* The number at text: the nearest double, and its end; text itself if there is none. */
const char *sdx_read_number(const char *text, const char *end, double *out);
sdx_status sdx_json_malformed(const sdx_json_cursor *c, sdx_error *err);

/* {"token": id, ...}: puts and finishes the vocabulary; or moves behind it. */
sdx_status sdx_json_take_vocab(sdx_tokenizer *t, sdx_json_cursor *c, sdx_error *err);
sdx_status sdx_json_pass_vocab(sdx_json_cursor *c, sdx_error *err);

#endif
