/* sequence.c: see sequence.h. Sizes and copies walk a value the same way, so that they cannot disagree. */
#include "sequence.h"

#include "memory.h"

/* block NULL: only count. */
typedef struct packer {
    unsigned char *block;
    size_t used;
    bool overflow;
} packer;

static void *take(packer *p, size_t bytes)
{
    void *at = p->block ? p->block + p->used : NULL;
    size_t rounded;
    p->overflow |= !sdx_add_size(bytes, SDX_ALIGN - 1, &rounded) ||
                   !sdx_add_size(p->used, rounded / SDX_ALIGN * SDX_ALIGN, &p->used);
    return at;
}

static void pack_strings(packer *p, const sdx_tensor *t, char **to)
{
    const char *const *from = t->data;
    for (int64_t i = 0, n = sdx_tensor_count(t); i < n; i++) {
        size_t bytes = strlen(from[i]) + 1;
        char *at = p->block ? (char *)p->block + p->used : NULL;
        p->overflow |= !sdx_add_size(p->used, bytes, &p->used);
        if (at) to[i] = memcpy(at, from[i], bytes);
    }
}

static sdx_tensor pack_tensor(packer *p, const sdx_tensor *t)
{
    sdx_shape shape = sdx_tensor_shape(t);
    sdx_tensor copy = *t;
    size_t bytes = 0;
    if (t->dtype != SDX_UNDEFINED) p->overflow |= !sdx_tensor_size(t->dtype, &shape, &bytes);
    copy.data = take(p, bytes);
    if (t->dtype == SDX_STRING) pack_strings(p, t, copy.data);
    else if (bytes && copy.data) memcpy(copy.data, t->data, bytes);
    return copy;
}

static sdx_tensor pack_sequence(packer *p, const sdx_tensor_list *from)
{
    size_t list;
    p->overflow |= !sdx_mul_size(from->count, sizeof *from->item, &list);
    sdx_tensor_list *to = take(p, sizeof *to);
    sdx_tensor *item = take(p, list);
    for (size_t i = 0; i < from->count; i++) {
        p->used = (p->used + SDX_ALIGN - 1) / SDX_ALIGN * SDX_ALIGN; /* after the characters of the last one */
        sdx_tensor copy = pack_tensor(p, &from->item[i]);
        if (item) item[i] = copy;
    }
    if (to) *to = (sdx_tensor_list){from->dtype, from->count, item};
    return (sdx_tensor){.dtype = SDX_TENSOR_LIST, .data = to};
}

static sdx_tensor pack(packer *p, const sdx_tensor *value)
{
    if (value->dtype == SDX_TENSOR_LIST) return pack_sequence(p, value->data);
    if (value->dtype == SDX_NOTHING) return (sdx_tensor){.dtype = SDX_NOTHING, .data = take(p, 1)};
    return pack_tensor(p, value);
}

bool sdx_value_size(const sdx_tensor *value, size_t *bytes)
{
    packer p = {0};
    pack(&p, value);
    *bytes = p.used;
    return !p.overflow;
}

sdx_tensor sdx_value_copy(const sdx_tensor *value, void *block)
{
    packer p = {.block = block};
    return pack(&p, value);
}
