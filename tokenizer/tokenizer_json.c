/* tokenizer_json.c: tokenizer.json, the one file format of Hugging Face's tokenizers library. Its parts are
 * read in json_model.c, json_steps.c and json_post.c. */
#include <string.h>

#include "json.h"

static sdx_status read_added_tokens(sdx_tokenizer *t, const json_t *root, sdx_error *err)
{
    const json_t *item, *list = json_object_get(root, "added_tokens");
    for (size_t i = 0; (item = json_array_get(list, i)); i++) {
        sdx_added_token token;
        int64_t id;
        TRY(sdx_json_integer(item, "id", -1, &id, err));
        TRY(sdx_json_added_token(item, id, &token, err));
        TRY(sdx_tokenizer_add(t, token, err));
    }
    return SDX_OK;
}

/* How long texts get is for the caller to say, as in transformers: the file's own limit stands in for a missing
 * configuration, and holds for those who ask for it. */
static sdx_status read_truncation(sdx_tokenizer *t, const json_t *root, sdx_error *err)
{
    static const char *const strategies[] = {"LongestFirst", "OnlyFirst", "OnlySecond", NULL};
    static const char *const directions[] = {"Right", "Left", NULL};
    const json_t *json = sdx_json_member(root, "truncation");
    sdx_truncation *own;
    unsigned strategy, left;
    if (!json) return SDX_OK;
    ARENA_NEW(&t->arena, own, 1, err);
    TRY(sdx_json_size(json, "max_length", 0, &own->max_length, err));
    TRY(sdx_json_size(json, "stride", 0, &own->stride, err));
    TRY(sdx_json_choice(json, "strategy", strategies, 0, &strategy, err));
    TRY(sdx_json_choice(json, "direction", directions, 0, &left, err));
    own->strategy = (sdx_truncation_strategy)strategy;
    own->left = t->truncate_left = left;
    t->model_max_length = own->max_length;
    t->truncation = own;
    return SDX_OK;
}

static sdx_status read_pad_id(const json_t *json, const char *name, int64_t *out, sdx_error *err)
{
    TRY(sdx_json_integer(json, name, 0, out, err));
    bool fits = *out >= 0 && *out <= UINT32_MAX;
    return fits ? SDX_OK : sdx_fail(err, SDX_ERR_FILE, "padding: %s is %lld", name, (long long)*out);
}

/* "strategy": "BatchLongest", or {"Fixed": 128} */
static sdx_status read_padding(sdx_tokenizer *t, const json_t *root, sdx_error *err)
{
    static const char *const strategies[] = {"BatchLongest", NULL}, *const directions[] = {"Right", "Left",
                                                                                           NULL};
    const json_t *json = sdx_json_member(root, "padding"), *fixed;
    sdx_padding *own;
    unsigned left, longest;
    if (!json) return SDX_OK;
    ARENA_NEW(&t->arena, own, 1, err);
    fixed = json_object_get(json, "strategy");
    own->fixed = json_is_object(fixed);
    if (own->fixed)
        TRY(sdx_json_size(fixed, "Fixed", 0, &own->length, err));
    else
        TRY(sdx_json_choice(json, "strategy", strategies, 0, &longest, err));
    TRY(sdx_json_choice(json, "direction", directions, 0, &left, err));
    TRY(sdx_json_size(json, "pad_to_multiple_of", 0, &own->multiple, err));
    TRY(read_pad_id(json, "pad_id", &own->id, err));
    TRY(read_pad_id(json, "pad_type_id", &own->type_id, err));
    own->left = left;
    t->padding = own;
    return SDX_OK;
}

/* Who pads is the caller; the file says with what, where the configuration does not. */
static void use_pad_id(sdx_tokenizer *t)
{
    int64_t id = t->padding ? t->padding->id : -1;
    if (t->pad_id < 0 && id >= 0 && (uint64_t)id < t->vocab.size && t->vocab.token[id].text.data)
        t->pad_id = (int32_t)id;
}

static sdx_status build(sdx_tokenizer *t, sdx_json_file *file, const sdx_tokenizer_config *config,
                        sdx_error *err)
{
    TRY(sdx_json_read_model(t, file, err));
    TRY(read_added_tokens(t, file->root, err));
    TRY(sdx_json_read_steps(t, file->root, err));
    TRY(sdx_json_read_post_processor(t, file->root, err));
    TRY(read_truncation(t, file->root, err));
    TRY(read_padding(t, file->root, err));
    TRY(sdx_tokenizer_config_apply(config, NULL, t, err));
    use_pad_id(t);
    return SDX_OK;
}

sdx_status sdx_tokenizer_read_json(sdx_tokenizer *t, const char *path, sdx_error *err)
{
    sdx_tokenizer_config config;
    sdx_json_file file;
    TRY(sdx_json_file_open(path, &file, err));
    sdx_status status = sdx_tokenizer_config_open(path, &config, err);
    if (status == SDX_OK) {
        status = build(t, &file, &config, err);
        sdx_tokenizer_config_close(&config);
        if (status != SDX_OK) sdx_error_context(err, "%s", path);
    }
    sdx_json_file_close(&file);
    return status;
}
