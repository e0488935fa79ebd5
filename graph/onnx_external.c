/* onnx_external.c: weights kept in files beside the model. A model says which file, so the name is hostile: it
 * must be relative, without "..", and must not lead out of the model's folder through a symbolic link. A model
 * that is itself a link (download caches are made that way) may also use the folder where its bytes really are.
 */
#define _GNU_SOURCE
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "../base/memory.h"
#include "onnx_io.h"

typedef struct reference {
    const char *location;
    uint64_t offset, length;
    bool has_length;
} reference;

static bool parse_number(const char *s, uint64_t *out)
{
    uint64_t v = 0;
    if (!*s) return false;
    for (; *s; s++) {
        if (*s < '0' || *s > '9') return false;
        if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, (uint64_t)(*s - '0'), &v))
            return false;
    }
    *out = v;
    return true;
}

static sdx_status read_reference(const Onnx__TensorProto *p, const char *name, reference *out, sdx_error *err)
{
    *out = (reference){0};
    for (size_t i = 0; i < p->n_external_data; i++) {
        const char *key = p->external_data[i]->key, *value = p->external_data[i]->value;
        bool ok = true;
        if (!key || !value) continue;
        if (!strcmp(key, "location"))
            out->location = value;
        else if (!strcmp(key, "offset"))
            ok = parse_number(value, &out->offset);
        else if (!strcmp(key, "length"))
            ok = out->has_length = parse_number(value, &out->length);
        if (!ok)
            return sdx_fail(err, SDX_ERR_FILE, "tensor \"%s\": external data has %s \"%.40s\", not a number",
                            name, key, value);
    }
    if (!out->location || !*out->location)
        return sdx_fail(err, SDX_ERR_FILE, "tensor \"%s\": external data names no file", name);
    return SDX_OK;
}

static bool stays_below(const char *location)
{
    if (*location == '/' || strchr(location, '\\')) return false;
    for (const char *part = location; *part;) {
        size_t n = strcspn(part, "/");
        if (n == 2 && !memcmp(part, "..", 2)) return false;
        part += n + (part[n] == '/');
    }
    return true;
}

static bool is_below(const char *folder, const char *path)
{
    size_t n = folder ? strlen(folder) : 0;
    return n && !strncmp(path, folder, n) && (path[n] == '/' || folder[n - 1] == '/');
}

/* The file's real path in new memory; NULL when absent (*outside false) or when it leads out of the folder. */
static char *resolve(const char *model_path, const char *location, bool *outside)
{
    char *folder = sdx_path_dirname(model_path), *joined = folder ? sdx_path_join(folder, location) : NULL;
    char *real = joined ? realpath(joined, NULL) : NULL;
    char *real_folder = folder ? realpath(folder, NULL) : NULL, *real_model = realpath(model_path, NULL);
    char *blob_folder = real_model ? sdx_path_dirname(real_model) : NULL;
    *outside = real && !is_below(real_folder, real) && !is_below(blob_folder, real);
    if (*outside) {
        free(real);
        real = NULL;
    }
    free(folder);
    free(joined);
    free(real_folder);
    free(real_model);
    free(blob_folder);
    return real;
}

static sdx_status map_location(sdx_onnx_source *source, const char *location, const char *name,
                               sdx_file_map *out, sdx_error *err)
{
    bool outside = !stays_below(location);
    char *path = outside ? NULL : resolve(source->model->path, location, &outside);
    if (outside)
        return sdx_fail(err, SDX_ERR_FILE,
                        "tensor \"%s\": external data \"%.200s\" is outside the model's folder", name,
                        location);
    if (!path)
        return sdx_fail(err, SDX_ERR_FILE,
                        "tensor \"%s\": external data file \"%.200s\" is missing beside the model", name,
                        location);
    sdx_status status = sdx_file_map_open(path, out, err);
    free(path);
    return status;
}

static sdx_status add_location(sdx_onnx_source *source, const char *location, const sdx_file_map *map,
                               sdx_error *err)
{
    sdx_model *m = source->model;
    sdx_file_map *grown = sdx_arena_array(&m->arena, (size_t)m->n_external + 1, sizeof *grown);
    if (!grown || !sdx_map_put(&source->locations, location, strlen(location), m->n_external))
        return sdx_fail_memory(err, sizeof *grown);
    if (m->n_external) memcpy(grown, m->external, (size_t)m->n_external * sizeof *grown);
    grown[m->n_external++] = *map;
    m->external = grown;
    return SDX_OK;
}

static sdx_status find_file(sdx_onnx_source *source, const char *location, const char *name, sdx_file_map *out,
                            sdx_error *err)
{
    int64_t known = sdx_map_get(&source->locations, location, strlen(location), -1);
    if (known >= 0) {
        *out = source->model->external[known];
        return SDX_OK;
    }
    sdx_file_map map;
    TRY(map_location(source, location, name, &map, err));
    sdx_status status = add_location(source, location, &map, err);
    if (status != SDX_OK)
        sdx_file_map_close(&map);
    else
        *out = map;
    return status;
}

sdx_status sdx_onnx_find_external(sdx_onnx_source *source, const Onnx__TensorProto *p, size_t bytes,
                                  const unsigned char **data, sdx_error *err)
{
    const char *name = p->name ? p->name : "(unnamed)";
    reference r;
    sdx_file_map file;
    if (!source->model)
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "tensor \"%s\" keeps its data in another file", name);
    TRY(read_reference(p, name, &r, err));
    TRY(find_file(source, r.location, name, &file, err));
    if (r.has_length && r.length != bytes)
        return sdx_fail(err, SDX_ERR_FILE, "tensor \"%s\" needs %zu bytes, but its external data has %llu",
                        name, bytes, (unsigned long long)r.length);
    if (r.offset > file.size || bytes > file.size - r.offset)
        return sdx_fail(err, SDX_ERR_FILE,
                        "tensor \"%s\" needs %zu bytes at offset %llu of \"%.200s\", which has %zu", name,
                        bytes, (unsigned long long)r.offset, r.location, file.size);
    *data = file.data + r.offset;
    return SDX_OK;
}
