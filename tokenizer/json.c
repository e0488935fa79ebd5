/* json.c: see json.h */
#include "json.h"

#include <stdlib.h>
#include <string.h>

#include "../base/file.h"

enum { FILE_LIMIT = 128 << 20 };

sdx_status sdx_json_load(const char *path, size_t flags, json_t **out, sdx_error *err)
{
    char *data;
    size_t size;
    TRY(sdx_file_read(path, FILE_LIMIT, &data, &size, err));
    json_error_t where;
    json_t *root = json_loadb(data, size, flags | JSON_ALLOW_NUL, &where);
    free(data);
    if (!root) return sdx_fail(err, SDX_ERR_FILE, "%s: line %d: %s", path, where.line, where.text);
    if (!json_is_object(root)) {
        json_decref(root);
        return sdx_fail(err, SDX_ERR_FILE, "%s: is not a JSON object", path);
    }
    *out = root;
    return SDX_OK;
}

/* The member, or NULL for absent and null. */
static const json_t *member(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    return json_is_null(value) ? NULL : value;
}

static sdx_status fail_type(sdx_error *err, const char *name, const char *type)
{
    return sdx_fail(err, SDX_ERR_FILE, "\"%s\" is not %s", name, type);
}

sdx_status sdx_json_bool(const json_t *object, const char *name, bool fallback, bool *out, sdx_error *err)
{
    const json_t *value = member(object, name);
    if (value && !json_is_boolean(value)) return fail_type(err, name, "true or false");
    *out = value ? json_is_true(value) : fallback;
    return SDX_OK;
}

sdx_status sdx_json_integer(const json_t *object, const char *name, int64_t fallback, int64_t *out,
                            sdx_error *err)
{
    const double exact = 9007199254740992.0;
    const json_t *value = member(object, name);
    double real = json_is_real(value) ? json_real_value(value) : 0.5; /* configurations are read as reals */
    bool integral = real > -exact && real < exact && real == (double)(int64_t)real;
    if (value && !json_is_integer(value) && !integral) return fail_type(err, name, "an integer");
    *out = !value ? fallback : integral ? (int64_t)real : json_integer_value(value);
    return SDX_OK;
}

sdx_status sdx_json_string(sdx_tokenizer *t, const json_t *object, const char *name, const char *fallback,
                           sdx_string *out, sdx_error *err)
{
    const json_t *value = member(object, name);
    if (value ? !json_is_string(value) : !fallback) return fail_type(err, name, "a string");
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
    if (!json_is_string(content)) return fail_type(err, "content", "a string in every added token");
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
