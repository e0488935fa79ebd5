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

/* How long texts get is for the caller to say; the file's own limit only stands in for a missing configuration.
 */
static sdx_status read_truncation(sdx_tokenizer *t, const json_t *root, sdx_error *err)
{
    const json_t *json = json_object_get(root, "truncation");
    const char *direction = json_string_value(json_object_get(json, "direction"));
    int64_t length;
    TRY(sdx_json_integer(json, "max_length", 0, &length, err));
    t->model_max_length = length > 0 ? (size_t)length : 0;
    t->truncate_left = direction && !strcmp(direction, "Left");
    return SDX_OK;
}

/* Who pads is the caller; the file only says with what, where the configuration does not. */
static sdx_status read_padding(sdx_tokenizer *t, const json_t *root, sdx_error *err)
{
    int64_t id;
    TRY(sdx_json_integer(json_object_get(root, "padding"), "pad_id", -1, &id, err));
    if (t->pad_id < 0 && id >= 0 && (uint64_t)id < t->vocab.size && t->vocab.token[id].text.data)
        t->pad_id = (int32_t)id;
    return SDX_OK;
}

static sdx_status build(sdx_tokenizer *t, sdx_json_file *file, const sdx_tokenizer_config *config,
                        sdx_error *err)
{
    TRY(sdx_json_read_model(t, file, err));
    TRY(read_added_tokens(t, file->root, err));
    TRY(sdx_json_read_steps(t, file->root, err));
    TRY(sdx_json_read_post_processor(t, file->root, err));
    TRY(read_truncation(t, file->root, err));
    TRY(sdx_tokenizer_config_apply(config, NULL, t, err));
    return read_padding(t, file->root, err);
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
