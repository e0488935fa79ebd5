/* tokenizer_config.c: what transformers keeps beside a tokenizer: tokenizer_config.json and, from older
 * versions, special_tokens_map.json. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../base/file.h"
#include "class.h"

/* model_max_length may be 10^30, which is an integer to Python and not to jansson. */
static sdx_status load_beside(const char *folder, const char *name, json_t **out, sdx_error *err)
{
    return sdx_json_read_in(folder, name, JSON_OBJECT, JSON_DECODE_INT_AS_REAL | JSON_ALLOW_NUL, out, err);
}

sdx_status sdx_tokenizer_config_open(const char *tokenizer_path, sdx_tokenizer_config *out, sdx_error *err)
{
    *out = (sdx_tokenizer_config){0};
    char *folder = sdx_path_dirname(tokenizer_path);
    if (!folder) return sdx_fail_memory(err, strlen(tokenizer_path));
    sdx_status status = load_beside(folder, "tokenizer_config.json", &out->config, err);
    if (status == SDX_OK) status = load_beside(folder, "special_tokens_map.json", &out->special, err);
    if (status == SDX_OK) status = load_beside(folder, "added_tokens.json", &out->added, err);
    if (status == SDX_OK) status = load_beside(folder, "config.json", &out->model, err);
    free(folder);
    if (status != SDX_OK) sdx_tokenizer_config_close(out);
    return status;
}

void sdx_tokenizer_config_close(sdx_tokenizer_config *c)
{
    json_decref(c->config);
    json_decref(c->special);
    json_decref(c->added);
    json_decref(c->model);
    *c = (sdx_tokenizer_config){0};
}

/* A special token: a string, or an object with the string as its content. */
static const char *token_text(const json_t *value)
{
    return json_string_value(json_is_object(value) ? json_object_get(value, "content") : value);
}

const char *sdx_tokenizer_config_token(const sdx_tokenizer_config *c, const char *name)
{
    const char *text = token_text(json_object_get(c->config, name));
    return text ? text : token_text(json_object_get(c->special, name));
}

/* Each special token: its name in the files, its usual texts, and where its id goes. */
static const struct {
    const char *name, *usual[2];
    size_t offset;
} specials[] = {
    {"unk_token", {"[UNK]", "<unk>"}, offsetof(sdx_tokenizer, unk_id)},
    {"sep_token", {"[SEP]", "</s>"}, offsetof(sdx_tokenizer, sep_id)},
    {"pad_token", {"[PAD]", "<pad>"}, offsetof(sdx_tokenizer, pad_id)},
    {"cls_token", {"[CLS]", "<s>"}, offsetof(sdx_tokenizer, cls_id)},
    {"mask_token", {"[MASK]", "<mask>"}, offsetof(sdx_tokenizer, mask_id)},
    {"bos_token", {"<s>", NULL}, offsetof(sdx_tokenizer, bos_id)},
    {"eos_token", {"</s>", NULL}, offsetof(sdx_tokenizer, eos_id)},
};
_Static_assert(sizeof specials / sizeof *specials == SDX_SPECIALS, "the order of sdx_class.special");

/* "added_tokens_decoder": {"103": {"content": ...}, ...} */
static sdx_status add_listed(const sdx_tokenizer_config *c, sdx_tokenizer *t, sdx_error *err)
{
    const char *key;
    json_t *value, *list = json_object_get(c->config, "added_tokens_decoder");
    json_object_foreach(list, key, value)
    {
        char *end;
        errno = 0;
        long long id = strtoll(key, &end, 10);
        if (errno || end == key || *end || id < 0) {
            return sdx_fail(err, SDX_ERR_FILE, "added_tokens_decoder: \"%.40s\" is not an id", key);
        }
        sdx_added_token token;
        TRY(sdx_json_added_token(value, id, &token, err));
        TRY(sdx_tokenizer_add(t, token, err));
    }
    return SDX_OK;
}

sdx_status sdx_tokenizer_add_special(sdx_tokenizer *t, const char *text, sdx_error *err)
{
    if (sdx_tokenizer_added_id(t, text, strlen(text)) >= 0) return SDX_OK;
    return sdx_tokenizer_add(t, (sdx_added_token){.text = {text, strlen(text)}, .id = -1, .special = true},
                             err);
}

/* A token that a file gives as a string, or as an object with its flags. */
static sdx_status add_given(const json_t *value, sdx_tokenizer *t, sdx_error *err)
{
    sdx_added_token token;
    const char *text = token_text(value);
    if (!text || sdx_tokenizer_added_id(t, text, strlen(text)) >= 0) return SDX_OK;
    if (!json_is_object(value)) return sdx_tokenizer_add_special(t, text, err);
    TRY(sdx_json_added_token(value, -1, &token, err));
    token.special = true;
    return sdx_tokenizer_add(t, token, err);
}

static sdx_status add_additional(const json_t *object, sdx_tokenizer *t, sdx_error *err)
{
    const json_t *value, *list = json_object_get(object, "additional_special_tokens");
    for (size_t i = 0; (value = json_array_get(list, i)); i++) TRY(add_given(value, t, err));
    return SDX_OK;
}

/* The i-th of the special tokens, by the files or by the class. */
static sdx_status add_usual(const sdx_tokenizer_config *c, const sdx_class *class, size_t i, sdx_tokenizer *t,
                            sdx_error *err)
{
    const json_t *given = json_object_get(c->config, specials[i].name);
    if (!token_text(given)) given = json_object_get(c->special, specials[i].name);
    if (json_is_object(given)) return add_given(given, t, err);
    const char *text = token_text(given);
    if (!text && !json_is_null(given)) text = class->special[i];
    if (!text) return SDX_OK;
    sdx_added_token token = {.text = {text, strlen(text)}, .id = -1, .special = true};
    token.lstrip = class->mask_lstrip && 1u << i == SDX_SPECIAL_MASK;
    token.normalized = class->normalized >> i & 1;
    return sdx_tokenizer_add(t, token, err);
}

/* added_tokens.json, of older versions: {"[MASK]": 128000, ...} */
static sdx_status add_old(const sdx_tokenizer_config *c, const sdx_class *class, sdx_tokenizer *t,
                          sdx_error *err)
{
    const char *text;
    json_t *value;
    if (json_object_get(c->config, "added_tokens_decoder")) return SDX_OK;
    json_object_foreach(c->added, text, value)
    {
        double id = json_number_value(value);
        if (!(id >= 0 && id <= INT32_MAX))
            return sdx_fail(err, SDX_ERR_FILE, "added_tokens.json: \"%.60s\" has no id", text);
        sdx_added_token token = {.text = {text, strlen(text)}, .id = (int32_t)id};
        for (size_t i = 0; i < SDX_SPECIALS && !token.special; i++) {
            const char *name = sdx_tokenizer_config_token(c, specials[i].name);
            if (!name) name = class->special[i];
            token.special = name && !strcmp(name, text);
        }
        token.normalized = !token.special;
        TRY(sdx_tokenizer_add(t, token, err));
    }
    return SDX_OK;
}

sdx_status sdx_tokenizer_config_add_tokens(const sdx_tokenizer_config *c, const sdx_class *class,
                                           sdx_tokenizer *t, sdx_error *err)
{
    TRY(add_listed(c, t, err));
    TRY(add_old(c, class, t, err));
    static const unsigned char order[SDX_SPECIALS] = {5, 6, 0, 1,
                                                      2, 3, 4}; /* transformers': bos and eos first */
    for (size_t i = 0; i < SDX_SPECIALS; i++) TRY(add_usual(c, class, order[i], t, err));
    TRY(add_additional(c->config, t, err));
    return add_additional(c->special, t, err);
}

static int32_t special_id(const sdx_tokenizer_config *c, const char *const *usual, const sdx_tokenizer *t,
                          size_t i)
{
    const char *text = sdx_tokenizer_config_token(c, specials[i].name);
    if (!text && usual) text = usual[i];
    if (text || usual) return text ? sdx_tokenizer_find(t, text, strlen(text)) : -1;
    int32_t id = -1;
    for (size_t k = 0; id < 0 && k < 2 && specials[i].usual[k]; k++) {
        id = sdx_tokenizer_find(t, specials[i].usual[k], strlen(specials[i].usual[k]));
    }
    return id;
}

sdx_status sdx_tokenizer_config_apply(const sdx_tokenizer_config *c, const char *const *usual, sdx_tokenizer *t,
                                      sdx_error *err)
{
    enum { ABSURD = 1000000000 }; /* transformers writes 10^30 for "no limit" */
    for (size_t i = 0; i < SDX_SPECIALS; i++)
        *(int32_t *)((char *)t + specials[i].offset) = special_id(c, usual, t, i);
    const json_t *length = json_object_get(c->config, "model_max_length");
    double limit = json_number_value(length);
    if (limit >= 1 && limit < ABSURD)
        t->model_max_length = (size_t)limit;
    else if (length)
        t->model_max_length = 0;
    const char *side = json_string_value(json_object_get(c->config, "truncation_side"));
    if (side) t->truncate_left = !strcmp(side, "left");
    /* false where no file says, as with tokenizer.json; transformers 4 tidied up behind BERT's own code */
    return sdx_json_bool(c->config, "clean_up_tokenization_spaces", false, &t->clean_up_spaces, err);
}
