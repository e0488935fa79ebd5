/* linear.h: matrix products between the operators and the GEMM kernels: which matrices meet (batches and
 * broadcasting), how a product is cut for threads, where weights are packed.
 *
 * A product is cut into blocks of rows times panels of columns, numbered block by block, and every thread takes
 * a run of these numbers: with few rows threads share out the panels (each keeps its part of the weights in its
 * own cache), with many rows they share out the rows. The cut never shows in the result: see kernels.h. */
#ifndef SDX_OPS_LINEAR_H
#define SDX_OPS_LINEAR_H

#include "weight.h"

/* ---- float32 --------------------------------------------------------------------------------------------- */

typedef struct sdx_gemm_f32_job { /* the arguments of sdx_gemm_f32_kernels.run */
    const sdx_gemm_f32_kernels *gemm;
    int threads;
    int64_t m, n, k;
    const float *a;
    int64_t lda;
    const float *packed; /* B, or NULL: */
    const sdx_weight *weight;
    const float *bias;
    sdx_activation activation;
    const float *residual;
    int64_t ldr;
    float *c;
    int64_t ldc;
    void *workspace; /* sdx_gemm_f32_workspace bytes; may be NULL when B is packed */
} sdx_gemm_f32_job;

/* Rows of A that are a multiple of 4 KB apart share one set of the first-level cache, which holds fewer lines than a
 * tall register tile has rows: then each thread copies its block of A to rows of another distance. And a weight that is
 * not packed yet comes through some memory of each thread's. weight: NULL when the job has none. */
size_t sdx_gemm_f32_workspace(const sdx_gemm_f32_kernels *gemm, int threads, int64_t m, int64_t n, int64_t k,
                              int64_t lda, const sdx_weight *weight);
void sdx_gemm_f32_run(const sdx_gemm_f32_job *job);
/* B(i,j) = b[i*row_stride + j*col_stride], all panels, times alpha, which is 1 for a gemm other than gemm_f32. */
void sdx_gemm_f32_pack(const sdx_gemm_f32_kernels *gemm, int threads, int64_t k, int64_t n, const void *b,
                       int64_t row_stride, int64_t col_stride, float alpha, float *packed);

/* ---- int8 ------------------------------------------------------------------------------------------------ */

typedef struct sdx_gemm_int8_job {
    const sdx_kernels *kernels;
    int threads;
    int64_t m, n, k;
    const void *a;
    int64_t lda;
    bool a_signed;
    const void *packed;
    const int32_t *a_zero, *b_zero; /* [m], [n], or NULL for zeros */
    void *c; /* int32, or float when there is an epilogue */
    int64_t ldc;
    const sdx_int8_epilogue *epilogue; /* or NULL */
    void *workspace; /* sdx_gemm_int8_workspace bytes */
} sdx_gemm_int8_job;

size_t sdx_gemm_int8_workspace(const sdx_kernels *kernels, int threads, int64_t m, int64_t k);
void sdx_gemm_int8_run(const sdx_gemm_int8_job *job);

/* DynamicQuantizeLinear's scale and zero point: the range of x, widened to hold 0, over 0..255; scale 1 when x
 * is all zeros. */
void sdx_dynamic_range(const sdx_kernels *kernels, int threads, int64_t n, const float *x, float *scale,
                       uint8_t *zero);
void sdx_quantize_u8(const sdx_kernels *kernels, int threads, int64_t n, const float *x, float scale,
                     uint8_t zero, uint8_t *y);

/* The zero points of [count] rows or columns from a tensor of one or count bytes; NULL when all are zero. */
const int32_t *sdx_int8_zeros(const sdx_tensor *zero, int64_t count, int32_t *out);
/* a_scale * b_scale[j], formed first as ONNX Runtime does, for n columns: returns the step, 0 for one scale. */
int sdx_int8_scales(const sdx_tensor *a_scale, const sdx_tensor *b_scale, int64_t n, float *out);
/* All panels of B, as sdx_gemm_int8_kernels.pack_b. */
void sdx_gemm_int8_pack(const sdx_kernels *kernels, int threads, int64_t k, int64_t n, const void *b,
                        int64_t row_stride, int64_t col_stride, bool b_signed, void *packed);
/* A constant k x n matrix of int8 or uint8 into the program's arena. */
sdx_status sdx_int8_pack(sdx_prepare *p, const sdx_tensor *b, int64_t k, int64_t n, const void **out);
/* Inputs `scale` (a float type) and `zero` (like the input `value`) are one number, or one per column. Either
 * may be -1. */
sdx_status sdx_int8_check(const sdx_infer *infer, int value, const char *name, int scale, int zero,
                          sdx_dim columns);

/* ---- which matrices meet: numpy.matmul, with the transpositions of FusedMatMul --------------------------- */

typedef struct sdx_transpose {
    bool last;  /* the last two dims are exchanged */
    bool batch; /* dim 0 moves behind the batch dims 1 .. rank-2, before `last` */
} sdx_transpose;

typedef struct sdx_operand {
    int64_t row_stride, col_stride; /* elements */
    int64_t count;                  /* matrices */
    int64_t step[SDX_MAX_RANK];     /* elements per batch dim; 0 where it repeats */
    int64_t index[SDX_MAX_RANK];    /* matrices per batch dim */
    bool dense;                     /* count * rows x cols without gaps */
} sdx_operand;

typedef struct sdx_product {
    int64_t m, n, k, batch;
    int rank; /* of the batch dims */
    int64_t dim[SDX_MAX_RANK];
    sdx_operand a, b;
} sdx_product;

/* Shape of C, also of symbolic shapes. */
sdx_status sdx_product_shape(const sdx_type *a, sdx_transpose ta, const sdx_type *b, sdx_transpose tb,
                             sdx_shape *c, sdx_error *err);
/* Of known shapes that sdx_product_shape has accepted. */
void sdx_product_make(const sdx_shape *a, sdx_transpose ta, const sdx_shape *b, sdx_transpose tb,
                      sdx_product *out);
/* A product that meets every matrix of B once, in B's own order: for packing constants. */
void sdx_product_make_right(const sdx_shape *b, sdx_transpose tb, sdx_product *out);
/* Offset in elements of the matrix that an operand gives to batch i, and its number in the operand's own order.
 */
int64_t sdx_operand_offset(const sdx_product *p, const sdx_operand *o, int64_t i, int64_t *number);

#endif
