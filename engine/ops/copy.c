/* copy.c: see copy.h */
#include "copy.h"

#include <string.h>

#include "../../base/parallel.h"

#define ROW_GRAIN 16384 /* elements worth a thread */

size_t sdx_element_size(sdx_dtype dtype)
{
    return dtype == SDX_STRING ? sizeof(char *) : sdx_dtype_size(dtype);
}

/* Drops dims of size 1 and joins those that lie together on both sides. Strides become bytes. */
static sdx_copy simplify(const sdx_copy *copy)
{
    sdx_copy c = {.src = copy->src, .dst = copy->dst, .size = copy->size};
    int64_t size = (int64_t)copy->size;
    for (int i = 0; i < copy->rank; i++) {
        int64_t dim = copy->dim[i], src = copy->src_stride[i] * size, dst = copy->dst_stride[i] * size;
        if (dim == 1) continue;
        int last = c.rank - 1;
        if (last >= 0 && c.src_stride[last] == src * dim && c.dst_stride[last] == dst * dim) c.dim[last] *= dim;
        else c.dim[last = c.rank++] = dim;
        c.src_stride[last] = src;
        c.dst_stride[last] = dst;
    }
    return c;
}

#define COPY_LOOP(bytes)                                                                                   \
    case bytes:                                                                                            \
        for (int64_t i = 0; i < n; i++, src += src_stride, dst += dst_stride) memcpy(dst, src, bytes);     \
        return;

static void copy_row(size_t size, int64_t n, const char *src, int64_t src_stride, char *dst, int64_t dst_stride)
{
    if (src_stride == (int64_t)size && dst_stride == (int64_t)size) {
        memcpy(dst, src, (size_t)n * size);
        return;
    }
    switch (size) {
        COPY_LOOP(1)
        COPY_LOOP(2)
        COPY_LOOP(4)
        COPY_LOOP(8)
        COPY_LOOP(16)
    }
}

enum { TILE = 16, FEW = 4 }; /* elements: a cache line of float32 */

/* A plane whose columns lie together in src: read and written by tiles, so that each cache line is fetched
 * once. A few long columns (coordinates that NonZero found) go one after the other. */
static void copy_plane(const sdx_copy *c, int64_t rows, int64_t src_row, int64_t dst_row, const char *src,
                       char *dst)
{
    int last = c->rank - 1;
    int64_t columns = c->dim[last], src_column = c->src_stride[last], dst_column = c->dst_stride[last];
    if (columns <= FEW) {
        for (int64_t j = 0; j < columns; j++)
            copy_row(c->size, rows, src + j * src_column, src_row, dst + j * dst_column, dst_row);
        return;
    }
    for (int64_t j = 0; j < columns; j += TILE) {
        int64_t n = columns - j < TILE ? columns - j : TILE;
        const char *s = src + j * src_column;
        char *d = dst + j * dst_column;
        for (int64_t i = 0; i < rows; i++)
            copy_row(c->size, n, s + i * src_row, src_column, d + i * dst_row, dst_column);
    }
}

/* Rows [begin, end) of the copy: dims before the last, flattened. */
static void copy_rows(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const sdx_copy *c = context;
    int last = c->rank - 1;
    bool tiled =
        last > 0 && c->src_stride[last - 1] == (int64_t)c->size && c->src_stride[last] != (int64_t)c->size;
    while (begin < end) {
        const char *src = c->src;
        char *dst = c->dst;
        int64_t row = begin;
        for (int i = last - 1; i >= 0; i--, row /= c->dim[i + 1]) {
            src += row % c->dim[i] * c->src_stride[i];
            dst += row % c->dim[i] * c->dst_stride[i];
        }
        int64_t rows = 1;
        if (tiled) {
            int64_t left = c->dim[last - 1] - begin % c->dim[last - 1];
            rows = left < end - begin ? left : end - begin;
            copy_plane(c, rows, c->src_stride[last - 1], c->dst_stride[last - 1], src, dst);
        } else {
            copy_row(c->size, c->dim[last], src, c->src_stride[last], dst, c->dst_stride[last]);
        }
        begin += rows;
    }
}

void sdx_copy_strided(const sdx_copy *copy, int threads)
{
    for (int i = 0; i < copy->rank; i++)
        if (copy->dim[i] == 0) return;
    sdx_copy c = simplify(copy);
    if (c.rank == 0) {
        memcpy(c.dst, c.src, c.size);
        return;
    }
    int64_t rows = 1, row = c.dim[c.rank - 1];
    for (int i = 0; i < c.rank - 1; i++) rows *= c.dim[i];
    sdx_parallel_for(threads, rows, row < ROW_GRAIN ? ROW_GRAIN / row : 1, copy_rows, &c);
}

sdx_status sdx_run_copy(sdx_run *run)
{
    size_t bytes = (size_t)sdx_tensor_count(&run->in[0]) * sdx_element_size(run->in[0].dtype);
    if (bytes && run->out[0].data != run->in[0].data) memcpy(run->out[0].data, run->in[0].data, bytes);
    return SDX_OK;
}
