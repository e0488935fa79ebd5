/* dynamic_linear.h: float32 rows turned into bytes for one product, for a whole tensor or row by row. */
#ifndef SDX_OPS_DYNAMIC_LINEAR_H
#define SDX_OPS_DYNAMIC_LINEAR_H

#include "linear.h"

/* x[i] = (q[i] - zero[row]) * scale[row] */
typedef struct sdx_dynamic_rows {
    int64_t m, k;
    uint8_t *q;    /* [m, k] */
    float *scale;  /* [m] */
    int32_t *zero; /* [m] */
} sdx_dynamic_rows;

/* The workspace of m rows of k: how much, and its place. */
bool sdx_dynamic_rows_plan(size_t *total, int64_t m, int64_t k);
sdx_dynamic_rows sdx_dynamic_rows_take(char **workspace, int64_t m, int64_t k);
/* Quantizes x [m, k] as DynamicQuantizeLinear does, once for all rows. */
void sdx_dynamic_rows_fill_alike(const sdx_kernels *kernels, int threads, const float *x, const sdx_dynamic_rows *rows);
/* Each row by its own range; of x * factor [k] when factor is not NULL. */
void sdx_dynamic_rows_fill(const sdx_kernels *kernels, int threads, const float *x, const float *factor,
                           const sdx_dynamic_rows *rows);

/* The layer's constants, inputs 1 to 3 of the node: W [k, n], its scales and zero points. */
typedef struct sdx_dynamic_layer {
    int64_t k, n;
    const void *packed;
    const int32_t *w_zero;      /* [n] or NULL */
    sdx_int8_epilogue epilogue; /* but for row_scale, bias and activation */
} sdx_dynamic_layer;

/* Input i, when it is there, is a float32 factor for each of X's columns, and rows have their own scale. */
sdx_status sdx_dynamic_factor_check(const sdx_infer *infer, int i);
sdx_status sdx_dynamic_layer_check(const sdx_infer *infer);
sdx_status sdx_dynamic_layer_prepare(sdx_prepare *prepare, sdx_dynamic_layer *layer);

#endif
