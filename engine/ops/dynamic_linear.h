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
/* Quantizes x [m, k] as DynamicQuantizeLinear does: once for all rows, or per_row each by its own range. */
void sdx_dynamic_rows_fill(const sdx_kernels *kernels, int threads, bool per_row, const float *x,
                           const sdx_dynamic_rows *rows);

#endif
