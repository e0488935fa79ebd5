/* weight.h: constant right operands of float32 products.
 *
 * Panels (see kernels.h) are as many bytes as the file has, in memory that the system clears before it hands it out:
 * for BERT-base 434 MB, which takes longer than a run. So a weight that the mapped file holds as it is stays there at
 * first: each worker packs the few panels that it needs next into its own cache. Only when a program runs for the
 * second time, and so is going to run often, are they packed for good. Either way the same panels meet the same
 * kernels, and the results have the same bits. */
#ifndef SDX_OPS_WEIGHT_H
#define SDX_OPS_WEIGHT_H

#include <stdatomic.h>

#include "compute.h"

typedef struct sdx_weight {
    const sdx_gemm_f32_kernels *gemm;
    int64_t k, n;
    const void *data; /* B(i,j) = data[i*row_stride + j*col_stride], float32 at any alignment */
    int64_t row_stride, col_stride;
    _Atomic(float *) packed; /* all panels, or NULL */
    struct sdx_weight *next; /* of those that wait */
} sdx_weight;

/* Of a program: those that wait. */
typedef struct sdx_late_weights {
    sdx_weight *first;
    sdx_arena arena;    /* of their panels */
    atomic_bool ran;    /* a run has begun */
    atomic_bool packed; /* nothing waits any more */
} sdx_late_weights;

/* The matrix that the constant input i is, transposed or not, for the kernels' `linear`: packed here, or put off. */
sdx_status sdx_weight_prepare(sdx_prepare *p, int i, bool transposed, sdx_weight **out);
/* All of them, as far as there is memory. */
void sdx_late_weights_pack(sdx_late_weights *late, int threads);

/* All panels, or NULL as long as they wait. */
const float *sdx_weight_packed(const sdx_weight *w);
/* Where panel `begin` lies, with the others up to `end` behind it: among all, or else packed into scratch of
 * sdx_weight_scratch(w, end - begin) bytes. */
const float *sdx_weight_panels(const sdx_weight *w, int64_t begin, int64_t end, float *scratch);
size_t sdx_weight_scratch(const sdx_weight *w, int64_t panels); /* 0 once all are packed */

#endif
