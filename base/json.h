/* json.h: JSON files that cannot be trusted, read by jansson, which refuses nesting beyond 2,048 levels. Limits
 * on size are here; a message names the file and the line. */
#ifndef SDX_BASE_JSON_H
#define SDX_BASE_JSON_H

#include <jansson.h>
#include <stdint.h>

#include "status.h"

/* json_decref what is read. root: what it has to be, JSON_OBJECT or JSON_ARRAY. flags: jansson's. */
sdx_status sdx_json_parse(const char *text, size_t size, json_type root, size_t flags, json_t **out,
                          sdx_error *err); /* the caller says which file it is */
sdx_status sdx_json_read(const char *path, json_type root, size_t flags, json_t **out, sdx_error *err);
/* folder/name; *out NULL when there is no such file. */
sdx_status sdx_json_read_in(const char *folder, const char *name, json_type root, size_t flags, json_t **out,
                            sdx_error *err);

/* Members of `object`, which may be NULL: absent or null gives the fallback, another type is an error. */
sdx_status sdx_json_bool(const json_t *object, const char *name, bool fallback, bool *out, sdx_error *err);
sdx_status sdx_json_integer(const json_t *object, const char *name, int64_t fallback, int64_t *out,
                            sdx_error *err);
/* One of the names (NULL behind the last), as its index. */
sdx_status sdx_json_choice(const json_t *object, const char *name, const char *const *names, unsigned fallback,
                           unsigned *out, sdx_error *err);
sdx_status sdx_json_size(const json_t *object, const char *name, int64_t fallback, size_t *out, sdx_error *err);
/* A new string; bytes of one that is not UTF-8, as a file's names may be, become '?'. NULL when out of
 * memory. */
json_t *sdx_json_text(const char *s);
/* NULL: absent or null. */
const json_t *sdx_json_member(const json_t *object, const char *name);
/* "name" is not `type`. */
sdx_status sdx_json_fail_type(const char *name, const char *type, sdx_error *err);

#endif
