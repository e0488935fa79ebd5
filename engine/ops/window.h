/* window.h: what convolutions and poolings share: a window of taps that slides over the spatial dims.
 *
 *     position of tap k of output o, along each dim:   o * stride + k * dilation - pad
 *
 * Everything that slides is told as runs: for one tap, stretches of outputs along the last dim whose inputs are
 * not padding. A convolution adds w * x over them, a pooling takes the maximum, im2col copies, and the
 * transposed convolution goes the other way.
 */
#ifndef SDX_OPS_WINDOW_H
#define SDX_OPS_WINDOW_H

#include "ops.h"

#define SDX_MAX_SPATIAL (SDX_MAX_RANK - 2)

typedef struct sdx_window {
    int rank;                                          /* >= 1 */
    sdx_dim in[SDX_MAX_SPATIAL], out[SDX_MAX_SPATIAL]; /* not negative once they are known */
    int64_t kernel[SDX_MAX_SPATIAL], stride[SDX_MAX_SPATIAL], dilation[SDX_MAX_SPATIAL];
    int64_t pad[SDX_MAX_SPATIAL], pad_end[SDX_MAX_SPATIAL];
} sdx_window;

/* The attributes auto_pad, dilations, kernel_shape, pads and strides. in[rank]; kernel[rank]: from the weights
 * (or negative while unknown), NULL when kernel_shape must be given. A dim of `in` that is not known makes one
 * of `out` that is not. ceil_mode of poolings is read too. */
sdx_status sdx_window_read(sdx_window *w, const sdx_node *node, int rank, const sdx_dim *in,
                           const sdx_dim *kernel, sdx_error *err);
/* The attributes alone: `in`, `out` and the pads of auto_pad stay unset. */
sdx_status sdx_window_attributes(sdx_window *w, const sdx_node *node, int rank, const sdx_dim *kernel,
                                 sdx_error *err);
/* After sdx_window_read: puts names into those dims of `out` that follow from named dims of `in`. */
void sdx_window_name_out(sdx_window *w, const sdx_node *node, sdx_model *model);

int64_t sdx_window_taps(const sdx_window *w);
int64_t sdx_window_in_count(const sdx_window *w);
int64_t sdx_window_out_count(const sdx_window *w);
/* Index of tap `i` along each dim. */
void sdx_window_tap(const sdx_window *w, int64_t i, int64_t tap[SDX_MAX_SPATIAL]);

/* Outputs out .. out+n-1 meet inputs in, in + step, in + 2*step, ...; step is the stride of the last dim. */
typedef void (*sdx_window_fn)(void *context, int64_t out, int64_t in, int64_t n);
/* All runs of tap number i among outputs [begin, end) of one plane. */
void sdx_window_runs(const sdx_window *w, int64_t i, int64_t begin, int64_t end, sdx_window_fn fn,
                     void *context);

#endif
