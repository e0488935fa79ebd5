/* safetensors.c: the format of https://github.com/huggingface/safetensors:
 *
 *   u64 little-endian N | N bytes of JSON: name -> {dtype, shape, data_offsets: [begin, end]} | data
 *
 * Checked as its authors' reader does: the tensors, in order of their offsets, cover the data without gap or
 * overlap, so that no byte means two things; names are unique; shape and dtype give exactly the length. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "../base/memory.h"
#include "checkpoint.h"

/* safetensors itself allows headers of 100 MB, of which a JSON reader would make gigabytes; this is room for 30000
 * tensors, and fifteen times itself in memory at worst. */
enum { HEADER_LENGTH = 8, MAX_HEADER = 4 << 20 };

static const struct {
    const char *name;
    sdx_dtype dtype;
} dtype_names[] = {
    {"F32", SDX_F32}, {"F16", SDX_F16}, {"BF16", SDX_BF16}, {"F64", SDX_F64}, {"I64", SDX_I64},
    {"I32", SDX_I32}, {"I16", SDX_I16}, {"I8", SDX_I8},     {"U8", SDX_U8},   {"U16", SDX_U16},
    {"U32", SDX_U32}, {"U64", SDX_U64}, {"BOOL", SDX_BOOL},
};

typedef struct span {
    uint64_t begin, end; /* bytes from the start of the data */
    const char *name;
} span;

static sdx_dtype find_dtype(const char *name)
{
    for (size_t i = 0; name && i < sizeof dtype_names / sizeof *dtype_names; i++)
        if (!strcmp(dtype_names[i].name, name)) return dtype_names[i].dtype;
    return SDX_UNDEFINED;
}

static sdx_status read_shape(json_t *json, sdx_shape *shape, const char *name, sdx_error *err)
{
    size_t rank = json_array_size(json);
    if (!json_is_array(json) || rank > SDX_MAX_RANK)
        return sdx_fail(err, SDX_ERR_FILE, "tensor \"%.200s\": the shape is no list of at most %d sizes", name,
                        SDX_MAX_RANK);
    shape->rank = (int)rank;
    for (size_t i = 0; i < rank; i++) {
        json_t *dim = json_array_get(json, i);
        if (!json_is_integer(dim) || json_integer_value(dim) < 0)
            return sdx_fail(err, SDX_ERR_FILE, "tensor \"%.200s\": a size of the shape is no natural number",
                            name);
        shape->dim[i] = json_integer_value(dim);
    }
    return SDX_OK;
}

static sdx_status read_offsets(json_t *json, size_t size, span *s, sdx_error *err)
{
    json_t *begin = json_array_get(json, 0), *end = json_array_get(json, 1);
    if (json_array_size(json) != 2 || !json_is_integer(begin) || !json_is_integer(end))
        return sdx_fail(err, SDX_ERR_FILE, "tensor \"%.200s\": data_offsets is no pair of numbers", s->name);
    json_int_t b = json_integer_value(begin), e = json_integer_value(end);
    if (b < 0 || e < b || (uint64_t)e > size)
        return sdx_fail(err, SDX_ERR_FILE,
                        "tensor \"%.200s\": data_offsets [%lld, %lld] lie outside the %zu bytes of data",
                        s->name, (long long)b, (long long)e, size);
    s->begin = (uint64_t)b;
    s->end = (uint64_t)e;
    return SDX_OK;
}

static sdx_status read_tensor(sdx_checkpoint *c, json_t *entry, const unsigned char *data, size_t size, span *s,
                              sdx_error *err)
{
    sdx_shape shape;
    const char *type = json_string_value(json_object_get(entry, "dtype"));
    sdx_dtype dtype = find_dtype(type);
    if (dtype == SDX_UNDEFINED)
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "tensor \"%.200s\": unknown dtype \"%.40s\"", s->name,
                        type ? type : "");
    TRY(read_shape(json_object_get(entry, "shape"), &shape, s->name, err));
    TRY(read_offsets(json_object_get(entry, "data_offsets"), size, s, err));
    size_t bytes;
    char text[SDX_TENSOR_TEXT];
    if (!sdx_tensor_size(dtype, &shape, &bytes) || bytes != s->end - s->begin)
        return sdx_fail(err, SDX_ERR_FILE,
                        "tensor \"%.200s\": %s does not take the %llu bytes its data_offsets give it", s->name,
                        sdx_tensor_format(dtype, &shape, text, sizeof text),
                        (unsigned long long)(s->end - s->begin));
    sdx_tensor tensor = sdx_tensor_make(dtype, &shape, data + s->begin);
    return sdx_checkpoint_add(c, s->name, strlen(s->name), &tensor, err);
}

static int by_begin(const void *a, const void *b)
{
    const span *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return (x->end > y->end) - (x->end < y->end); /* empty tensors first */
}

static sdx_status check_cover(span *s, size_t n, size_t size, sdx_error *err)
{
    qsort(s, n, sizeof *s, by_begin);
    uint64_t at = 0;
    for (size_t i = 0; i < n; at = s[i++].end)
        if (s[i].begin != at)
            return sdx_fail(
                err, SDX_ERR_FILE, "tensor \"%.200s\" begins at byte %llu of the data, %s the one before it",
                s[i].name, (unsigned long long)s[i].begin, s[i].begin < at ? "inside" : "with a gap after");
    if (at == size) return SDX_OK;
    return sdx_fail(err, SDX_ERR_FILE, "the tensors take %llu bytes, but %zu follow the header",
                    (unsigned long long)at, size);
}

static sdx_status read_header(sdx_checkpoint *c, json_t *root, const unsigned char *data, size_t size,
                              sdx_error *err)
{
    if (!json_is_object(root)) return sdx_fail(err, SDX_ERR_FILE, "the header is no JSON object");
    span *spans = sdx_calloc(json_object_size(root), sizeof *spans);
    if (!spans) return sdx_fail_memory(err, json_object_size(root) * sizeof *spans);
    sdx_status status = SDX_OK;
    size_t n = 0;
    const char *name;
    json_t *entry;
    json_object_foreach(root, name, entry)
    {
        if (!strcmp(name, "__metadata__")) continue;
        spans[n].name = name;
        TRY_GOTO(read_tensor(c, entry, data, size, &spans[n++], err));
    }
    status = check_cover(spans, n, size, err);
done:
    free(spans);
    return status;
}

sdx_status sdx_safetensors_read(sdx_checkpoint *c, const unsigned char *file, size_t size, sdx_error *err)
{
    uint64_t length = 0;
    if (size < HEADER_LENGTH)
        return sdx_fail(err, SDX_ERR_FILE, "%zu bytes are too few for a safetensors file", size);
    for (int i = 0; i < HEADER_LENGTH; i++) length |= (uint64_t)file[i] << 8 * i;
    if (length > size - HEADER_LENGTH || length > MAX_HEADER)
        return sdx_fail(err, SDX_ERR_FILE,
                        "the header claims %llu bytes; the file has %zu (and %d is the limit)",
                        (unsigned long long)length, size, MAX_HEADER);
    const char *text = (const char *)file + HEADER_LENGTH;
    json_error_t why;
    json_t *root = json_loadb(text, length, JSON_REJECT_DUPLICATES, &why);
    if (!root) return sdx_fail(err, SDX_ERR_FILE, "header, byte %d: %s", why.position, why.text);
    size_t data = HEADER_LENGTH + length;
    sdx_status status = read_header(c, root, file + data, size - data, err);
    json_decref(root);
    return status;
}
