/* copy.h: moving elements about. Transpose, Slice, Split, Concat, Expand and Tile differ only in strides. */
#ifndef SDX_OPS_COPY_H
#define SDX_OPS_COPY_H

#include "ops.h"

#define SDX_COPY_RANK (2 * SDX_MAX_RANK)

/* dst[sum i_k*dst_stride_k] = src[sum i_k*src_stride_k] for all i_k in [0, dim_k). Strides are in elements;
 * those of src may be 0 or negative, elements of dst are distinct. Any alignment. */
typedef struct sdx_copy {
    int rank;
    int64_t dim[SDX_COPY_RANK], src_stride[SDX_COPY_RANK], dst_stride[SDX_COPY_RANK];
    const char *src;
    char *dst;
    size_t size; /* bytes of an element: 1, 2, 4, 8 or 16 */
} sdx_copy;

void sdx_copy_strided(const sdx_copy *copy, int threads);
/* Bytes of one element as it lies in memory: sdx_dtype_size, and a pointer for strings. */
size_t sdx_element_size(sdx_dtype dtype);
/* A run function: output 0 is the bytes of input 0, under whatever shape. */
sdx_status sdx_run_copy(sdx_run *run);

#endif
