/* json.c: see json.h */
#include "json.h"

#include <stdlib.h>
#include <string.h>

#include "file.h"
#include "memory.h"

enum { FILE_LIMIT = 64 << 20 }; /* the index of a checkpoint in shards is the longest of them */

sdx_status sdx_json_parse(const char *text, size_t size, json_type root, size_t flags, json_t **out,
                          sdx_error *err)
{
    json_error_t where;
    json_t *json = json_loadb(text, size, flags, &where);
    if (!json) return sdx_fail(err, SDX_ERR_FILE, "line %d: %s", where.line, where.text);
    if (json_typeof(json) != root) {
        json_decref(json);
        return sdx_fail(err, SDX_ERR_FILE, "is not a JSON %s", root == JSON_OBJECT ? "object" : "list");
    }
    *out = json;
    return SDX_OK;
}

sdx_status sdx_json_read(const char *path, json_type root, size_t flags, json_t **out, sdx_error *err)
{
    char *text;
    size_t size;
    TRY(sdx_file_read(path, FILE_LIMIT, &text, &size, err));
    sdx_status status = sdx_json_parse(text, size, root, flags, out, err);
    free(text);
    if (status != SDX_OK) sdx_error_context(err, "%s", path);
    return status;
}

sdx_status sdx_json_read_in(const char *folder, const char *name, json_type root, size_t flags, json_t **out,
                            sdx_error *err)
{
    char *path = sdx_path_join(folder, name);
    *out = NULL;
    if (!path) return sdx_fail_memory(err, strlen(folder));
    sdx_status status = sdx_file_exists(path) ? sdx_json_read(path, root, flags, out, err) : SDX_OK;
    free(path);
    return status;
}

const json_t *sdx_json_member(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    return json_is_null(value) ? NULL : value;
}

sdx_status sdx_json_fail_type(const char *name, const char *type, sdx_error *err)
{
    return sdx_fail(err, SDX_ERR_FILE, "\"%s\" is not %s", name, type);
}

sdx_status sdx_json_bool(const json_t *object, const char *name, bool fallback, bool *out, sdx_error *err)
{
    const json_t *value = sdx_json_member(object, name);
    if (value && !json_is_boolean(value)) return sdx_json_fail_type(name, "true or false", err);
    *out = value ? json_is_true(value) : fallback;
    return SDX_OK;
}

sdx_status sdx_json_integer(const json_t *object, const char *name, int64_t fallback, int64_t *out,
                            sdx_error *err)
{
    const double exact = 9007199254740992.0;
    const json_t *value = sdx_json_member(object, name);
    double real = json_is_real(value) ? json_real_value(value) : 0.5; /* configurations may be read as reals */
    bool integral = real > -exact && real < exact && real == (double)(int64_t)real;
    if (value && !json_is_integer(value) && !integral) return sdx_json_fail_type(name, "an integer", err);
    *out = !value ? fallback : integral ? (int64_t)real : json_integer_value(value);
    return SDX_OK;
}

sdx_status sdx_json_choice(const json_t *object, const char *name, const char *const *names, unsigned fallback,
                           unsigned *out, sdx_error *err)
{
    const json_t *value = sdx_json_member(object, name);
    const char *text = json_string_value(value);
    *out = fallback;
    if (!value) return SDX_OK;
    for (unsigned i = 0; text && names[i]; i++) {
        *out = i;
        if (!strcmp(text, names[i])) return SDX_OK;
    }
    return sdx_fail(err, SDX_ERR_FILE, "\"%s\" is none of the known choices", name);
}

sdx_status sdx_json_size(const json_t *object, const char *name, int64_t fallback, size_t *out, sdx_error *err)
{
    int64_t value = 0;
    TRY(sdx_json_integer(object, name, fallback, &value, err));
    if (value < 0) return sdx_fail(err, SDX_ERR_FILE, "\"%s\" is negative", name);
    *out = (size_t)value;
    return SDX_OK;
}

json_t *sdx_json_text(const char *s)
{
    json_t *string = json_string(s);
    if (string) return string;
    char *ascii = sdx_strdup(s);
    if (!ascii) return NULL;
    for (char *c = ascii; *c; c++)
        if ((unsigned char)*c > 126) *c = '?';
    string = json_string(ascii);
    free(ascii);
    return string;
}
