/* torch_zip.c: pytorch_model.bin as torch.save has written it since 1.6: a zip archive with <root>/data.pkl, a
 * pickle of the dictionary, and <root>/data/<key>, one raw storage each (torch/csrc/jit/serialization, "torch
 * zip"). */
#include <stdio.h>
#include <string.h>

#include "../base/memory.h"
#include "checkpoint.h"
#include "pickle.h"
#include "zip.h"

/* Tied tensors share a storage, four at most in BART. What claims more would grow without end: a million names for
 * the same bytes. */
enum { MAX_PATH = 600, MAX_PICKLE = 2 << 20, MAX_SHARING = 4 };
static const char pickle_name[] = "/data.pkl";

typedef struct archive {
    sdx_zip zip;
    const char *root; /* the folder all entries are in: root_length bytes */
    int root_length;
    size_t size;    /* of the file */
    size_t claimed; /* bytes of the tensors so far */
} archive;

static const sdx_zip_entry *find(const archive *a, const char *name, size_t length)
{
    char path[MAX_PATH];
    int n = snprintf(path, sizeof path, "%.*s%.*s", a->root_length, a->root, (int)(length & 0xffff), name);
    return n > 0 && (size_t)n < sizeof path ? sdx_zip_find(&a->zip, path) : NULL;
}

static const sdx_zip_entry *find_pickle(archive *a)
{
    size_t tail = sizeof pickle_name - 1;
    for (size_t i = 0; i < a->zip.count; i++) {
        const sdx_zip_entry *e = &a->zip.entry[i];
        size_t n = strlen(e->name);
        if (n <= tail || n >= MAX_PATH || strcmp(e->name + n - tail, pickle_name)) continue;
        a->root = e->name;
        a->root_length = (int)(n - tail);
        return e;
    }
    return NULL;
}

/* Elements from the first to one behind the last that the view touches; false on overflow. */
static bool view_extent(const sdx_pickle_tensor *t, int64_t *extent)
{
    *extent = 1;
    for (int i = 0; i < t->rank; i++) {
        int64_t last;
        if (!t->dim[i]) return !(*extent = 0);
        if (__builtin_mul_overflow(t->dim[i] - 1, t->stride[i], &last) ||
            __builtin_add_overflow(*extent, last, extent))
            return false;
    }
    return true;
}

static bool is_contiguous(const sdx_pickle_tensor *t)
{
    int64_t expected = 1;
    for (int i = t->rank - 1; i >= 0; i--) {
        if (t->dim[i] != 1 && t->stride[i] != expected) return false;
        expected *= t->dim[i];
    }
    return true;
}

/* A row-major copy in the arena; both count and every index are known to be in range. */
static sdx_status gather(sdx_checkpoint *c, const sdx_pickle_tensor *t, const unsigned char *from,
                         int64_t count, const void **out, sdx_error *err)
{
    size_t size = sdx_dtype_size(t->dtype);
    unsigned char *copy = sdx_arena_array(&c->arena, (size_t)count, size);
    if (!copy) return sdx_fail_memory(err, (size_t)count * size);
    *out = copy;
    int64_t index[SDX_MAX_RANK] = {0}, at = 0;
    for (int64_t i = 0; i < count; i++, copy += size) {
        memcpy(copy, from + (size_t)at * size, size);
        for (int d = t->rank - 1; d >= 0; d--) {
            at += t->stride[d];
            if (++index[d] < t->dim[d]) break;
            at -= t->stride[d] * t->dim[d];
            index[d] = 0;
        }
    }
    return SDX_OK;
}

static sdx_status add_tensor(sdx_checkpoint *c, archive *a, const sdx_pickle_tensor *t, sdx_error *err)
{
    char key[64];
    int length = (int)(t->name.length < 200 ? t->name.length : 200);
    int n = snprintf(key, sizeof key, "/data/%.*s", (int)(t->storage.length & 0xff), t->storage.data);
    const sdx_zip_entry *e = n < (int)sizeof key ? find(a, key, (size_t)n) : NULL;
    if (!e) return sdx_fail(err, SDX_ERR_FILE, "tensor \"%.*s\": its storage is missing", length, t->name.data);
    size_t size = sdx_dtype_size(t->dtype);
    int64_t held = (int64_t)(e->size / size), extent;
    sdx_shape shape = sdx_shape_make(t->rank, t->dim);
    int64_t count = sdx_shape_count(&shape);
    /* A view that repeats elements (stride 0) could ask for more memory than the file has bytes: refused. */
    if (count < 0 || !view_extent(t, &extent) || extent > held || t->offset > held - extent || count > held)
        return sdx_fail(err, SDX_ERR_FILE, "tensor \"%.*s\": reaches beyond its storage of %zu bytes", length,
                        t->name.data, e->size);
    a->claimed += (size_t)count * size; /* each at most the file's size */
    if (a->claimed / MAX_SHARING > a->size)
        return sdx_fail(err, SDX_ERR_FILE,
                        "tensor \"%.*s\": the tensors so far share more than %d times the %zu bytes of the file",
                        length, t->name.data, MAX_SHARING, a->size);
    const unsigned char *from = e->data + (size_t)t->offset * size;
    const void *data = from;
    if (count && !is_contiguous(t)) TRY(gather(c, t, from, count, &data, err));
    sdx_tensor tensor = sdx_tensor_make(t->dtype, &shape, data);
    return sdx_checkpoint_add(c, t->name.data, t->name.length, &tensor, err);
}

static sdx_status read_archive(sdx_checkpoint *c, archive *a, sdx_arena *scratch, sdx_error *err)
{
    const sdx_zip_entry *pickle = find_pickle(a);
    if (!pickle) return sdx_fail(err, SDX_ERR_FILE, "the archive has no data.pkl: it is not PyTorch's");
    const sdx_zip_entry *order = find(a, "/byteorder", strlen("/byteorder"));
    if (order && (order->size != 6 || memcmp(order->data, "little", 6)))
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "was saved on a big-endian machine");
    if (pickle->size > MAX_PICKLE)
        return sdx_fail(err, SDX_ERR_FILE, "data.pkl has %zu bytes; %d is the limit", pickle->size, MAX_PICKLE);
    sdx_pickle_tensor *tensors;
    size_t count;
    TRY(sdx_pickle_read(scratch, pickle->data, pickle->size, &tensors, &count, err));
    for (size_t i = 0; i < count; i++) TRY(add_tensor(c, a, &tensors[i], err));
    return SDX_OK;
}

sdx_status sdx_torch_zip_read(sdx_checkpoint *c, const unsigned char *data, size_t size, sdx_error *err)
{
    if (size < 4 || memcmp(data, "PK", 2))
        return sdx_fail(err, SDX_ERR_UNSUPPORTED,
                        "is not a zip archive; files from before PyTorch 1.6 (or pickles of "
                        "whole models) must be loaded and saved again with a newer PyTorch");
    archive a = {.size = size};
    sdx_arena scratch;
    sdx_arena_init(&scratch);
    sdx_status status = sdx_zip_open(&a.zip, &scratch, data, size, err);
    if (status == SDX_OK) {
        status = read_archive(c, &a, &scratch, err);
        sdx_zip_close(&a.zip);
    }
    sdx_arena_fini(&scratch);
    return status;
}
