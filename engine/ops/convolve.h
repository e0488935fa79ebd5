/* convolve.h: a convolution as matrix products: for each image and group
 *
 *     Y[filters, outputs] = W[filters, depth] * columns[depth, outputs]      depth = channels of a group * taps
 *
 * where row (c, tap) of `columns` is what that tap sees of channel c from each output (im2col). The weights are
 * the left operand, which the GEMM kernels take as it lies in the file; columns are made a block of outputs at
 * a time, straight into the kernels' panels, so that they never exist as a whole and the result needs no
 * transposition.
 */
#ifndef SDX_OPS_CONVOLVE_H
#define SDX_OPS_CONVOLVE_H

#include "linear.h"
#include "window.h"

typedef struct sdx_convolution {
    sdx_window window;
    int64_t batch, groups;
    int64_t channels, filters; /* of one group */
    int64_t taps, depth;       /* depth = channels * taps */
    int64_t in_plane, out_plane;
} sdx_convolution;

/* Checks X [N, C, ...] against W [M, C/group, ...] and the attributes; y: [N, M, ...]. */
sdx_status sdx_convolution_infer(sdx_infer *infer, int x, int w, sdx_shape *y);
/* Bias [M] at input i. */
sdx_status sdx_convolution_want_bias(const sdx_infer *infer, int i, int w, unsigned dtypes);
/* Of known shapes that sdx_convolution_infer has accepted. */
sdx_status sdx_convolution_make(sdx_convolution *c, const sdx_node *node, const sdx_shape *x,
                                const sdx_shape *w, sdx_error *err);

/* Outputs of one block, a multiple of `panel`: their columns of `size` bytes stay in the second-level cache,
 * and all threads get some. */
int64_t sdx_convolution_block(const sdx_convolution *c, size_t size, int64_t panel, int threads);
/* Columns of outputs [begin, end) from x, the first channel of a group. They are cut into panels
 * [depth][panel]; the last panel is filled up with zeros. size: 1 or 4 bytes. Padding is bytes of `pad`. */
void sdx_convolution_columns(const sdx_convolution *c, const void *x, size_t size, int pad, int64_t begin,
                             int64_t end, int64_t panel, void *columns);

/* A block of the work: outputs [begin, end) of group `group` of image `image`. */
typedef struct sdx_convolution_part {
    int64_t image, group, begin, end;
} sdx_convolution_part;
static inline int64_t sdx_convolution_parts(const sdx_convolution *c, int64_t block)
{
    return c->batch * c->groups * ((c->out_plane + block - 1) / block);
}
sdx_convolution_part sdx_convolution_part_at(const sdx_convolution *c, int64_t block, int64_t i);
/* First element of a group's input and of its first filter's output plane. */
static inline int64_t sdx_convolution_x(const sdx_convolution *c, const sdx_convolution_part *p)
{
    return (p->image * c->groups + p->group) * c->channels * c->in_plane;
}
static inline int64_t sdx_convolution_y(const sdx_convolution *c, const sdx_convolution_part *p)
{
    return (p->image * c->groups + p->group) * c->filters * c->out_plane;
}

#endif
