/* tensor.h: the internal side of sdx_tensor (a view: dtype, rank, dims, data), and tensor files. */
#ifndef SDX_BASE_TENSOR_H
#define SDX_BASE_TENSOR_H

#include "dtype.h"
#include "shape.h"

static inline sdx_shape sdx_tensor_shape(const sdx_tensor *t) { return sdx_shape_make(t->rank, t->dim); }
sdx_tensor sdx_tensor_make(sdx_dtype dtype, const sdx_shape *shape, const void *data);

/* Bytes of a dense tensor of this type and known shape; false when unknown, absurd or overflowing. */
bool sdx_tensor_size(sdx_dtype dtype, const sdx_shape *shape, size_t *bytes);

/* What the elements take in a file: sdx_tensor_bytes, but for types below 8 bits. */
bool sdx_tensor_file_size(sdx_dtype dtype, const sdx_shape *shape, size_t *bytes);
size_t sdx_tensor_file_bytes(const sdx_tensor *t);

/* Element i as int64 (sdx_tensor_get_f64: as double), from any integer, bool or float type; strings give 0. */
int64_t sdx_tensor_get_i64(const sdx_tensor *t, int64_t i);

/* "float32[1,?,64]" into buf; returns buf. */
char *sdx_tensor_format(sdx_dtype dtype, const sdx_shape *shape, char *buf, size_t size);

#define SDX_TENSOR_TEXT (SDX_SHAPE_TEXT + 16)

#endif
