/* tensor.c: see tensor.h */
#include "tensor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "memory.h"

sdx_tensor sdx_tensor_make(sdx_dtype dtype, const sdx_shape *shape, const void *data)
{
    sdx_tensor t = {.dtype = dtype, .rank = shape->rank, .data = (void *)data};
    for (int i = 0; i < shape->rank; i++) t.dim[i] = shape->dim[i];
    return t;
}

int64_t sdx_tensor_count(const sdx_tensor *t)
{
    sdx_shape s = sdx_tensor_shape(t);
    return sdx_shape_count(&s);
}

bool sdx_tensor_size(sdx_dtype dtype, const sdx_shape *shape, size_t *bytes)
{
    int64_t n = sdx_shape_count(shape);
    /* A string element is one pointer. */
    size_t each = dtype == SDX_STRING ? sizeof(char *) : sdx_dtype_size(dtype);
    return n >= 0 && each && sdx_mul_size((size_t)n, each, bytes);
}

size_t sdx_tensor_bytes(const sdx_tensor *t)
{
    sdx_shape s = sdx_tensor_shape(t);
    size_t bytes;
    return sdx_tensor_size(t->dtype, &s, &bytes) ? bytes : 0;
}

bool sdx_tensor_file_size(sdx_dtype dtype, const sdx_shape *shape, size_t *bytes)
{
    int64_t n = sdx_shape_count(shape);
    if (!sdx_tensor_size(dtype, shape, bytes)) return false;
    return dtype == SDX_STRING || sdx_dtype_file_bytes(dtype, (size_t)n, bytes);
}

size_t sdx_tensor_file_bytes(const sdx_tensor *t)
{
    sdx_shape s = sdx_tensor_shape(t);
    size_t bytes;
    return sdx_tensor_file_size(t->dtype, &s, &bytes) ? bytes : 0;
}

void sdx_tensor_free(sdx_tensor *t)
{
    if (!t) return;
    free(t->data);
    t->data = NULL;
}

static bool is_real(sdx_dtype t) { return sdx_dtype_is_float(t) || sdx_dtype_is_coded(t); }

/* Element i of an array that need not be aligned: in a mapped file it lies where the file has it. */
#define LOADER(type)                                                                                             \
    static inline type load_##type(const void *data, int64_t i)                                                  \
    {                                                                                                            \
        type element;                                                                                            \
        memcpy(&element, (const char *)data + (size_t)i * sizeof element, sizeof element);                       \
        return element;                                                                                          \
    }
LOADER(uint8_t)
LOADER(int8_t)
LOADER(uint16_t)
LOADER(int16_t)
LOADER(uint32_t)
LOADER(int32_t)
LOADER(uint64_t)
LOADER(int64_t)
LOADER(float)
LOADER(double)
#define AS(type) load_##type(t->data, i)

int64_t sdx_tensor_get_i64(const sdx_tensor *t, int64_t i)
{
    switch (t->dtype) {
    case SDX_U8: case SDX_BOOL: case SDX_U4: case SDX_U2: return AS(uint8_t);
    case SDX_I8: case SDX_I4: case SDX_I2: return AS(int8_t);
    case SDX_U16: return AS(uint16_t);
    case SDX_I16: return AS(int16_t);
    case SDX_I32: return AS(int32_t);
    case SDX_U32: return AS(uint32_t);
    case SDX_I64: case SDX_U64: return AS(int64_t);
    default: return is_real(t->dtype) ? (int64_t)sdx_tensor_get_f64(t, i) : 0;
    }
}

double sdx_tensor_get_f64(const sdx_tensor *t, int64_t i)
{
    switch (t->dtype) {
    case SDX_F32: return AS(float);
    case SDX_F64: return AS(double);
    case SDX_F16: return sdx_f16_to_f32(AS(uint16_t));
    case SDX_BF16: return sdx_bf16_to_f32(AS(uint16_t));
    case SDX_U64: return (double)AS(uint64_t);
    default: break;
    }
    if (sdx_dtype_is_coded(t->dtype)) return sdx_code_to_f32(t->dtype, AS(uint8_t));
    return (double)sdx_tensor_get_i64(t, i);
}

char *sdx_tensor_format(sdx_dtype dtype, const sdx_shape *shape, char *buf, size_t size)
{
    char dims[SDX_SHAPE_TEXT];
    snprintf(buf, size, "%s%s", sdx_dtype_name(dtype), sdx_shape_format(shape, dims, sizeof dims));
    return buf;
}
