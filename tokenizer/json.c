/* json.c: see json.h */
#include "json.h"

#include <string.h>

sdx_status sdx_json_string(sdx_tokenizer *t, const json_t *object, const char *name, const char *fallback,
                           sdx_string *out, sdx_error *err)
{
    const json_t *value = sdx_json_member(object, name);
    if (value ? !json_is_string(value) : !fallback) return sdx_json_fail_type(name, "a string", err);
    *out = value ? (sdx_string){json_string_value(value), json_string_length(value)}
                 : (sdx_string){fallback, strlen(fallback)};
    out->data = sdx_tokenizer_keep(t, out->data, out->size);
    return out->data ? SDX_OK : sdx_fail_memory(err, out->size);
}

const char *sdx_json_type(const json_t *object)
{
    const char *type = json_string_value(json_object_get(object, "type"));
    return type ? type : "";
}

sdx_status sdx_json_added_token(const json_t *object, int64_t id, sdx_added_token *out, sdx_error *err)
{
    const json_t *content = json_object_get(object, "content");
    if (!json_is_string(content)) return sdx_json_fail_type("content", "a string in every added token", err);
    if (id < -1 || id > INT32_MAX) {
        return sdx_fail(err, SDX_ERR_FILE, "added token \"%.60s\" has id %lld", json_string_value(content),
                        (long long)id);
    }
    *out =
        (sdx_added_token){.text = {json_string_value(content), json_string_length(content)}, .id = (int32_t)id};
    TRY(sdx_json_bool(object, "special", false, &out->special, err));
    TRY(sdx_json_bool(object, "single_word", false, &out->single_word, err));
    TRY(sdx_json_bool(object, "lstrip", false, &out->lstrip, err));
    TRY(sdx_json_bool(object, "rstrip", false, &out->rstrip, err));
    return sdx_json_bool(object, "normalized", !out->special, &out->normalized, err);
}
