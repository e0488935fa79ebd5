/* checkpoint.c: see checkpoint.h. Looks in the order Hugging Face does: safetensors before PyTorch's pickles,
 * one file before shards. An index file may only name files of its own folder. */
#define _DEFAULT_SOURCE /* madvise */
#include "checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../base/json.h"
#include "../base/memory.h"

typedef sdx_status (*read_fn)(sdx_checkpoint *checkpoint, const unsigned char *data, size_t size,
                              sdx_error *err);

typedef struct source {
    const char *file;
    read_fn read;
    bool is_index;
} source;

static const source sources[] = {
    {"model.safetensors", sdx_safetensors_read, false},
    {"model.safetensors.index.json", sdx_safetensors_read, true},
    {"pytorch_model.bin", sdx_torch_zip_read, false},
    {"pytorch_model.bin.index.json", sdx_torch_zip_read, true},
};

enum { MAX_NAME = 512 };

sdx_status sdx_checkpoint_create(const char *folder, sdx_checkpoint **out, sdx_error *err)
{
    sdx_checkpoint *c = sdx_calloc(1, sizeof *c);
    if (!c) return sdx_fail_memory(err, sizeof *c);
    sdx_arena_init(&c->arena);
    c->folder = sdx_arena_strdup(&c->arena, folder);
    if (!c->folder) {
        sdx_checkpoint_close(c);
        return sdx_fail_memory(err, strlen(folder));
    }
    *out = c;
    return SDX_OK;
}

void sdx_checkpoint_close(sdx_checkpoint *c)
{
    if (!c) return;
    for (size_t i = 0; i < c->n_file; i++) sdx_file_map_close(&c->file[i]);
    free(c->file);
    free(c->name);
    free(c->tensor);
    sdx_map_fini(&c->index);
    sdx_arena_fini(&c->arena);
    free(c);
}

static bool grow(sdx_checkpoint *c)
{
    if (c->n_tensor < c->capacity) return true;
    size_t capacity = c->capacity ? c->capacity * 2 : 256;
    const char **name = sdx_realloc(c->name, capacity * sizeof *name);
    if (name) c->name = name;
    sdx_tensor *tensor = sdx_realloc(c->tensor, capacity * sizeof *tensor);
    if (tensor) c->tensor = tensor;
    if (name && tensor) c->capacity = capacity;
    return name && tensor;
}

sdx_status sdx_checkpoint_add(sdx_checkpoint *c, const char *name, size_t length, const sdx_tensor *tensor,
                              sdx_error *err)
{
    if (!length || length > MAX_NAME || memchr(name, 0, length))
        return sdx_fail(err, SDX_ERR_FILE, "a tensor's name is empty, longer than %d bytes or holds a NUL",
                        MAX_NAME);
    if (sdx_map_get(&c->index, name, length, -1) >= 0)
        return sdx_fail(err, SDX_ERR_FILE, "two tensors are called \"%.*s\"", (int)length, name);
    char *copy = sdx_arena_strndup(&c->arena, name, length);
    if (!copy || !grow(c) || !sdx_map_put(&c->index, copy, length, (int64_t)c->n_tensor))
        return sdx_fail_memory(err, length);
    c->name[c->n_tensor] = copy;
    c->tensor[c->n_tensor++] = *tensor;
    return SDX_OK;
}

/* ---- opening --------------------------------------------------------------------------------------------- */

static sdx_status read_file(sdx_checkpoint *c, const char *name, read_fn read, sdx_error *err)
{
    sdx_file_map *file = sdx_realloc(c->file, (c->n_file + 1) * sizeof *file);
    if (!file) return sdx_fail_memory(err, sizeof *file);
    c->file = file;
    char *path = sdx_path_join(c->folder, name);
    if (!path) return sdx_fail_memory(err, strlen(name));
    sdx_file_map map;
    sdx_status status = sdx_file_map_open(path, &map, err);
    if (status == SDX_OK) {
        c->file[c->n_file++] = map;
        status = read(c, map.data, map.size, err);
        if (status != SDX_OK) sdx_error_context(err, "%s", path);
    }
    free(path);
    return status;
}

/* An index maps tensor names to file names; files are read in the order they first appear. */
static sdx_status read_shards(sdx_checkpoint *c, json_t *map, read_fn read, sdx_error *err)
{
    sdx_map seen = {0};
    sdx_status status = SDX_OK;
    const char *name;
    json_t *value;
    json_object_foreach(map, name, value)
    {
        const char *file = json_string_value(value);
        size_t length = json_string_length(value);
        if (!file || !length || strchr(file, '/') || !strcmp(file, ".") || !strcmp(file, "..")) {
            status = sdx_fail(err, SDX_ERR_FILE, "the shard of tensor \"%.200s\" must be a file of this folder",
                              name);
            goto done;
        }
        if (sdx_map_get(&seen, file, length, 0)) continue;
        TRY_GOTO(sdx_map_put(&seen, file, length, 1) ? SDX_OK : sdx_fail_memory(err, length));
        TRY_GOTO(read_file(c, file, read, err));
    }
    json_object_foreach(map, name, value)
    {
        if (sdx_map_get(&c->index, name, strlen(name), -1) >= 0) continue;
        status =
            sdx_fail(err, SDX_ERR_FILE, "tensor \"%.200s\" is not in %.200s", name, json_string_value(value));
        goto done;
    }
done:
    sdx_map_fini(&seen);
    return status;
}

static sdx_status read_index(sdx_checkpoint *c, const char *path, read_fn read, sdx_error *err)
{
    json_t *root;
    TRY(sdx_json_read(path, JSON_OBJECT, JSON_REJECT_DUPLICATES, &root, err));
    json_t *map = json_object_get(root, "weight_map");
    sdx_status status = json_is_object(map) ? read_shards(c, map, read, err)
                                               : sdx_fail(err, SDX_ERR_FILE, "has no \"weight_map\" object");
    json_decref(root);
    if (status != SDX_OK) sdx_error_context(err, "%s", path);
    return status;
}

static sdx_status read_folder(sdx_checkpoint *c, sdx_error *err)
{
    for (size_t i = 0; i < sizeof sources / sizeof *sources; i++) {
        const source *s = &sources[i];
        char *path = sdx_path_join(c->folder, s->file);
        if (!path) return sdx_fail_memory(err, strlen(c->folder));
        bool exists = sdx_file_exists(path);
        sdx_status status = SDX_OK;
        if (exists)
            status = s->is_index ? read_index(c, path, s->read, err) : read_file(c, s->file, s->read, err);
        free(path);
        if (exists) return status;
    }
    return sdx_fail(err, SDX_ERR_FILE,
                    "%s: holds no model.safetensors or pytorch_model.bin (or an index of shards)", c->folder);
}

sdx_status sdx_checkpoint_open(const char *folder, sdx_checkpoint **out, sdx_error *err)
{
    sdx_checkpoint *c;
    TRY(sdx_checkpoint_create(folder, &c, err));
    sdx_status status = read_folder(c, err);
    if (status != SDX_OK) {
        sdx_checkpoint_close(c);
        return status;
    }
    *out = c;
    return SDX_OK;
}

/* ---- finding --------------------------------------------------------------------------------------------- */

static const sdx_tensor *find_exact(const sdx_checkpoint *c, const char *prefix, const char *name,
                                    const char *old)
{
    char key[MAX_NAME];
    size_t length = strlen(name);
    if (old) length = (size_t)(strrchr(name, '.') - name) + 1;
    int n = snprintf(key, sizeof key, "%s%.*s%s", prefix, (int)length, name, old ? old : "");
    if (n < 0 || (size_t)n >= sizeof key) return NULL;
    int64_t i = sdx_map_get(&c->index, key, (size_t)n, -1);
    return i < 0 ? NULL : &c->tensor[i];
}

/* What TensorFlow's checkpoints call "LayerNorm.weight" and ".bias"; NULL for other names. */
static const char *old_name(const char *name)
{
    if (!strstr(name, "LayerNorm.")) return NULL;
    const char *last = strrchr(name, '.') + 1;
    return !strcmp(last, "weight") ? "gamma" : !strcmp(last, "bias") ? "beta" : NULL;
}

const sdx_tensor *sdx_checkpoint_find(const sdx_checkpoint *c, const char *name)
{
    const char *old = old_name(name);
    const sdx_tensor *t = find_exact(c, "", name, NULL);
    if (!t && c->prefix) t = find_exact(c, c->prefix, name, NULL);
    if (!t && old) t = find_exact(c, "", name, old);
    if (!t && old && c->prefix) t = find_exact(c, c->prefix, name, old);
    return t;
}

sdx_status sdx_checkpoint_get(const sdx_checkpoint *c, const char *name, int rank, const int64_t *dim,
                              const sdx_tensor **out, sdx_error *err)
{
    const sdx_tensor *t = sdx_checkpoint_find(c, name);
    if (!t) return sdx_fail(err, SDX_ERR_FILE, "%s: the checkpoint has no tensor \"%s\"", c->folder, name);
    if (!sdx_dtype_is_float(t->dtype))
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "%s: tensor \"%s\" holds %s, not floating point numbers",
                        c->folder, name, sdx_dtype_name(t->dtype));
    sdx_shape expected = sdx_shape_make(rank, dim), found = sdx_tensor_shape(t);
    if (!sdx_shape_same(&expected, &found)) {
        char a[SDX_SHAPE_TEXT], b[SDX_SHAPE_TEXT];
        return sdx_fail(err, SDX_ERR_FILE, "%s: tensor \"%s\" has shape %s where config.json makes it %s",
                        c->folder, name, sdx_shape_format(&found, a, sizeof a),
                        sdx_shape_format(&expected, b, sizeof b));
    }
    *out = t;
    return SDX_OK;
}

/* One page that is touched brings in what the system holds together with it, up to a huge page. So its neighbours are
 * let go too. */
void sdx_checkpoint_release(const sdx_checkpoint *c, const sdx_tensor *t)
{
    const uintptr_t together = 2 << 20;
    for (size_t i = 0; i < c->n_file; i++) {
        uintptr_t file = (uintptr_t)c->file[i].data, end = file + c->file[i].size;
        uintptr_t from = (uintptr_t)t->data, to = from + sdx_tensor_bytes(t);
        if (from < file || from >= end) continue;
        from = from / together * together;
        to = (to + together - 1) / together * together;
        if (from < file) from = file; /* where a page begins */
        if (to > end) to = end;
        /* Of a read-only mapping: nothing is lost, and a refusal does no harm. */
        madvise((void *)from, to - from, MADV_DONTNEED);
    }
}

/* ---- converting ------------------------------------------------------------------------------------------ */

void sdx_weight_load(const sdx_tensor *t, int64_t from, int64_t n, float *out)
{
    size_t size = sdx_dtype_size(t->dtype);
    const unsigned char *p = (const unsigned char *)t->data + (size_t)from * size;
    if (t->dtype == SDX_F32) {
        if (n) memcpy(out, p, (size_t)n * sizeof *out);
        return;
    }
    for (int64_t i = 0; i < n; i++, p += size) {
        uint16_t half;
        double wide;
        if (t->dtype == SDX_F64) {
            memcpy(&wide, p, sizeof wide);
            out[i] = (float)wide;
        } else {
            memcpy(&half, p, sizeof half);
            out[i] = t->dtype == SDX_F16 ? sdx_f16_to_f32(half) : sdx_bf16_to_f32(half);
        }
    }
}
