/* json.h: the JSON files of a tokenizer, whose types cannot be trusted. Messages name the member, not the file:
 * the caller puts the file's name in front once. */
#ifndef SDX_TOKENIZER_JSON_H
#define SDX_TOKENIZER_JSON_H

#include "../base/json.h"
#include "json_bulk.h"
#include "tokenizer.h"

/* A copy in the tokenizer's arena; fallback NULL: the member is required. */
sdx_status sdx_json_string(sdx_tokenizer *t, const json_t *object, const char *name, const char *fallback,
                           sdx_string *out, sdx_error *err);
/* The member "type"; "" if it is absent. Points into the JSON. */
const char *sdx_json_type(const json_t *object);
/* An added token's text and flags; text points into the JSON. */
sdx_status sdx_json_added_token(const json_t *object, int64_t id, sdx_added_token *out, sdx_error *err);

/* The parts of a tokenizer.json. The model comes first: others look tokens up. */
sdx_status sdx_json_read_model(sdx_tokenizer *t, sdx_json_file *file, sdx_error *err);
sdx_status sdx_json_read_steps(sdx_tokenizer *t, const json_t *root, sdx_error *err);
sdx_status sdx_json_read_post_processor(sdx_tokenizer *t, const json_t *root, sdx_error *err);
/* The vocabulary alone, from a vocab.json; language: that one of several, or NULL. */
sdx_status sdx_tokenizer_take_vocab_json(sdx_tokenizer *t, const char *path, const char *language,
                                         sdx_error *err);

/* tokenizer_config.json, special_tokens_map.json, added_tokens.json, config.json beside a tokenizer; or NULL.
 */
typedef struct sdx_tokenizer_config {
    json_t *config, *special, *added, *model; /* the last is the model's config.json; owned */
} sdx_tokenizer_config;

sdx_status sdx_tokenizer_config_open(const char *tokenizer_path, sdx_tokenizer_config *out, sdx_error *err);
void sdx_tokenizer_config_close(sdx_tokenizer_config *c);
/* The text of "cls_token" and the like, or NULL. Points into the JSON. */
const char *sdx_tokenizer_config_token(const sdx_tokenizer_config *c, const char *name);
/* Special tokens, additional ones and those listed in the configuration; what is registered already is left
 * alone. */
struct sdx_class;
sdx_status sdx_tokenizer_config_add_tokens(const sdx_tokenizer_config *c, const struct sdx_class *class,
                                           sdx_tokenizer *t, sdx_error *err);
/* One more, unless it is registered. */
sdx_status sdx_tokenizer_add_special(sdx_tokenizer *t, const char *text, sdx_error *err);
/* Everything that is not a pipeline step: special ids, maximum length, clean-up, side of truncation. usual: the
 * texts of the special tokens that the configuration does not name (unk, sep, pad, cls, mask, bos, eos); NULL:
 * any that are common. */
sdx_status sdx_tokenizer_config_apply(const sdx_tokenizer_config *c, const char *const *usual, sdx_tokenizer *t,
                                      sdx_error *err);

#endif
