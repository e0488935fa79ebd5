/* onnx_tensor.c: TensorProto to tensor. A tensor's data stands in one of four places: raw_data left in the
 * mapped file, small raw_data copied by protobuf-c, a typed list, or another file; each must hold exactly as
 * many bytes as the shape asks for, so that nothing is allocated that the file does not pay for: a byte of the
 * file never becomes more than the four of 2-bit elements, which get a byte each in memory. */
#include <string.h>

#include "../base/memory.h"
#include "onnx_io.h"

static const char *name_of(const Onnx__TensorProto *p)
{
    return p->name && *p->name ? p->name : "(unnamed)";
}

static sdx_status read_shape(int64_t n_dims, const int64_t *dims, const char *name, sdx_shape *out,
                             sdx_error *err)
{
    if (n_dims > SDX_MAX_RANK)
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "tensor \"%s\" has %lld dimensions, more than %d", name,
                        (long long)n_dims, SDX_MAX_RANK);
    *out = (sdx_shape){.rank = (int)n_dims};
    for (int64_t i = 0; i < n_dims; i++) {
        if (dims[i] < 0)
            return sdx_fail(err, SDX_ERR_FILE, "tensor \"%s\" has a negative size %lld", name,
                            (long long)dims[i]);
        out->dim[i] = dims[i];
    }
    return SDX_OK;
}

/* bytes: of the data as the file keeps it. */
static sdx_status read_header(const Onnx__TensorProto *p, sdx_tensor *out, size_t *bytes, sdx_error *err)
{
    sdx_shape shape;
    TRY(read_shape((int64_t)p->n_dims, p->dims, name_of(p), &shape, err));
    sdx_dtype dtype = (sdx_dtype)p->data_type;
    if (p->data_type == SDX_UNDEFINED)
        return sdx_fail(err, SDX_ERR_FILE, "tensor \"%s\" has no element type", name_of(p));
    if (!sdx_dtype_is_known(p->data_type))
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "tensor \"%s\" has ONNX element type %d, which is not known",
                        name_of(p), p->data_type);
    if (p->segment)
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "tensor \"%s\" is one segment of a larger tensor",
                        name_of(p));
    if (!sdx_tensor_file_size(dtype, &shape, bytes))
        return sdx_fail(err, SDX_ERR_FILE, "tensor \"%s\" has a size that overflows", name_of(p));
    *out = sdx_tensor_make(dtype, &shape, NULL);
    return SDX_OK;
}

static sdx_status wrong_size(const Onnx__TensorProto *p, const sdx_tensor *t, size_t have, size_t want,
                             sdx_error *err)
{
    char text[SDX_TENSOR_TEXT];
    sdx_shape shape = sdx_tensor_shape(t);
    return sdx_fail(err, SDX_ERR_FILE, "tensor \"%s\" is %s, %zu bytes, but its data has %zu", name_of(p),
                    sdx_tensor_format(t->dtype, &shape, text, sizeof text), want, have);
}

/* The elements in memory that a file keeps in these bytes. */
static sdx_status copy_bytes(const unsigned char *from, size_t bytes, sdx_arena *arena, sdx_tensor *t,
                             sdx_error *err)
{
    bool small = sdx_dtype_is_small(t->dtype);
    size_t room = small ? sdx_tensor_bytes(t) : bytes;
    t->data = sdx_arena_alloc(arena, room);
    if (!t->data) return sdx_fail_memory(err, room);
    if (small)
        sdx_small_unpack(t->dtype, from, room, t->data);
    else if (bytes)
        memcpy(t->data, from, bytes);
    return SDX_OK;
}

/* ---- typed lists ----------------------------------------------------------------------------------------- */

typedef struct typed_list {
    const void *items;
    size_t count;     /* of items */
    size_t item_size; /* bytes; an element of the tensor takes the low part of an item, or complex ones two
                         items */
} typed_list;

static typed_list find_list(const Onnx__TensorProto *p, sdx_dtype dtype)
{
    switch (dtype) {
    case SDX_F32:
    case SDX_C64: return (typed_list){p->float_data, p->n_float_data, sizeof(float)};
    case SDX_F64:
    case SDX_C128: return (typed_list){p->double_data, p->n_double_data, sizeof(double)};
    case SDX_I64: return (typed_list){p->int64_data, p->n_int64_data, sizeof(int64_t)};
    case SDX_U32:
    case SDX_U64: return (typed_list){p->uint64_data, p->n_uint64_data, sizeof(uint64_t)};
    default: return (typed_list){p->int32_data, p->n_int32_data, sizeof(int32_t)};
    }
}

/* An int32 item has one byte of the packed elements, but for 6 bits: there it has one element. */
static sdx_status read_small_list(const Onnx__TensorProto *p, sdx_arena *arena, sdx_tensor *t, size_t bytes,
                                  sdx_error *err)
{
    bool single = sdx_dtype_bits(t->dtype) == 6;
    size_t count = single ? sdx_tensor_bytes(t) : bytes;
    if (p->n_int32_data != count) return wrong_size(p, t, p->n_int32_data, count, err);
    uint8_t *items = sdx_arena_alloc(arena, count);
    if (!items) return sdx_fail_memory(err, count);
    for (size_t i = 0; i < count; i++)
        items[i] = single ? sdx_small_byte(t->dtype, (uint64_t)p->int32_data[i]) : (uint8_t)p->int32_data[i];
    t->data = items;
    return single ? SDX_OK : copy_bytes(items, bytes, arena, t, err);
}

static sdx_status read_list(const Onnx__TensorProto *p, sdx_arena *arena, sdx_tensor *t, size_t bytes,
                            sdx_error *err)
{
    if (sdx_dtype_is_small(t->dtype)) return read_small_list(p, arena, t, bytes, err);
    typed_list list = find_list(p, t->dtype);
    size_t each = sdx_dtype_size(t->dtype) < list.item_size ? sdx_dtype_size(t->dtype) : list.item_size;
    if (list.count > SIZE_MAX / each || list.count * each != bytes)
        return wrong_size(p, t, list.count > SIZE_MAX / each ? SIZE_MAX : list.count * each, bytes, err);
    unsigned char *data = sdx_arena_alloc(arena, bytes);
    if (!data) return sdx_fail_memory(err, bytes);
    t->data = data;
    const unsigned char *item = list.items;
    if (each == list.item_size) {
        if (bytes) memcpy(data, item, bytes);
        return SDX_OK;
    }
    for (size_t i = 0; i < list.count; i++) memcpy(data + i * each, item + i * list.item_size, each);
    return SDX_OK;
}

static sdx_status read_strings(const Onnx__TensorProto *p, sdx_arena *arena, sdx_tensor *t, sdx_error *err)
{
    size_t count = (size_t)sdx_tensor_count(t);
    if (p->n_string_data != count)
        return sdx_fail(err, SDX_ERR_FILE, "tensor \"%s\" has room for %zu strings but holds %zu", name_of(p),
                        count, p->n_string_data);
    const char **strings;
    ARENA_NEW(arena, strings, count, err);
    for (size_t i = 0; i < count; i++) {
        const ProtobufCBinaryData *s = &p->string_data[i];
        strings[i] = sdx_arena_strndup(arena, s->len ? (const char *)s->data : "", s->len);
        if (!strings[i]) return sdx_fail_memory(err, s->len);
    }
    t->data = strings;
    return SDX_OK;
}

/* ---- bytes ----------------------------------------------------------------------------------------------- */

static sdx_status read_raw(sdx_onnx_source *source, const Onnx__TensorProto *p, sdx_arena *arena, sdx_tensor *t,
                           size_t bytes, sdx_error *err)
{
    size_t have = p->has_mapped_length ? p->mapped_length : p->raw_data.len;
    if (have != bytes) return wrong_size(p, t, have, bytes, err);
    if (!p->has_mapped_length) return copy_bytes(p->raw_data.data, bytes, arena, t, err);
    const unsigned char *mapped = source->file.data + p->mapped_offset;
    if (sdx_dtype_is_small(t->dtype)) return copy_bytes(mapped, bytes, arena, t, err);
    t->data = (void *)mapped;
    return SDX_OK;
}

static sdx_status read_external(sdx_onnx_source *source, const Onnx__TensorProto *p, sdx_arena *arena,
                                sdx_tensor *t, size_t bytes, sdx_error *err)
{
    const unsigned char *data;
    TRY(sdx_onnx_find_external(source, p, bytes, &data, err));
    if (bytes < SDX_ONNX_MAPPED_BYTES || sdx_dtype_is_small(t->dtype))
        return copy_bytes(data, bytes, arena, t, err);
    t->data = (void *)data;
    return SDX_OK;
}

sdx_status sdx_onnx_read_tensor(sdx_onnx_source *source, const Onnx__TensorProto *p, sdx_arena *arena,
                                sdx_tensor *out, sdx_error *err)
{
    sdx_tensor t;
    size_t bytes;
    TRY(read_header(p, &t, &bytes, err));
    bool raw = p->has_mapped_length || (p->has_raw_data && p->raw_data.len);
    bool external = p->data_location == 1;
    if (t.dtype == SDX_STRING) {
        if (raw || external)
            return sdx_fail(err, SDX_ERR_FILE, "tensor \"%s\" holds strings, which have no raw data",
                            name_of(p));
        TRY(read_strings(p, arena, &t, err));
    } else if (external) {
        TRY(read_external(source, p, arena, &t, bytes, err));
    } else if (raw) {
        TRY(read_raw(source, p, arena, &t, bytes, err));
    } else {
        TRY(read_list(p, arena, &t, bytes, err));
    }
    *out = t;
    return SDX_OK;
}

/* ---- sparse tensors -------------------------------------------------------------------------------------- */

enum {
    MAX_SPREAD = 64 << 20
}; /* bytes for all of a file: sparse tensors may claim any shape, this is believed */

/* Where entry i goes. indices: [count] into the flat tensor, or [count, rank]. */
static int64_t flat_index(const sdx_tensor *indices, int64_t i, const sdx_shape *shape)
{
    const unsigned char *data = indices->data; /* may be unaligned */
    int64_t at = 0, part;
    if (indices->rank == 1) {
        memcpy(&at, data + (size_t)i * sizeof at, sizeof at);
        return at;
    }
    for (int k = 0; k < shape->rank; k++) {
        memcpy(&part, data + ((size_t)i * (size_t)shape->rank + (size_t)k) * sizeof part, sizeof part);
        if (part < 0 || part >= shape->dim[k]) return -1;
        at = at * shape->dim[k] + part;
    }
    return at;
}

sdx_status sdx_onnx_read_sparse(sdx_onnx_source *source, const Onnx__SparseTensorProto *p, sdx_arena *arena,
                                sdx_tensor *out, sdx_error *err)
{
    if (!p->values || !p->indices)
        return sdx_fail(err, SDX_ERR_FILE, "a sparse tensor lacks its values or indices");
    const char *name = name_of(p->values);
    sdx_tensor values, indices;
    sdx_shape shape;
    size_t bytes, each;
    TRY(sdx_onnx_read_tensor(source, p->values, arena, &values, err));
    TRY(sdx_onnx_read_tensor(source, p->indices, arena, &indices, err));
    TRY(read_shape((int64_t)p->n_dims, p->dims, name, &shape, err));
    int64_t count = sdx_tensor_count(&values);
    bool flat = indices.rank == 1, pairs = indices.rank == 2 && indices.dim[1] == shape.rank;
    if (values.rank != 1 || indices.dtype != SDX_I64 || (!flat && !pairs) || indices.dim[0] != count)
        return sdx_fail(err, SDX_ERR_FILE, "sparse tensor \"%s\": indices do not fit the values", name);
    if (values.dtype == SDX_STRING || !sdx_tensor_size(values.dtype, &shape, &bytes) ||
        bytes > MAX_SPREAD - source->spread)
        return sdx_fail(err, SDX_ERR_UNSUPPORTED,
                        "sparse tensor \"%s\" holds strings or is too large when spread out", name);
    unsigned char *data = sdx_arena_alloc(arena, bytes);
    if (!data) return sdx_fail_memory(err, bytes);
    source->spread += bytes;
    each = sdx_dtype_size(values.dtype);
    for (int64_t i = 0; i < count; i++) {
        int64_t at = flat_index(&indices, i, &shape);
        if (at < 0 || at >= sdx_shape_count(&shape))
            return sdx_fail(err, SDX_ERR_FILE, "sparse tensor \"%s\": index %lld is outside", name,
                            (long long)at);
        memcpy(data + (size_t)at * each, (const unsigned char *)values.data + (size_t)i * each, each);
    }
    *out = sdx_tensor_make(values.dtype, &shape, data);
    return SDX_OK;
}
