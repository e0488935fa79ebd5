/* matmul.h: products of two tensors of any element type, between MatMul (matmul.c) and Gemm (gemm.c). */
#ifndef SDX_OPS_MATMUL_H
#define SDX_OPS_MATMUL_H

#include "linear.h"

typedef struct sdx_matmul {
    sdx_transpose ta, tb;
    float alpha;
    sdx_weight *weight;  /* constant B of one float32 matrix */
    const float *packed; /* other constant B: its matrices one after the other, each packed_stride floats */
    const void *a, *b;   /* constants that are read as they are, aligned */
} sdx_matmul;

typedef struct sdx_operands {
    const float *a, *b; /* as floats; b NULL when it is one of: */
    const sdx_weight *weight;
    const float *packed;
} sdx_operands;

/* transA, transB and FusedMatMul's transBatchA, transBatchB. */
void sdx_matmul_transposes(const sdx_node *node, sdx_transpose *ta, sdx_transpose *tb);
sdx_status sdx_matmul_infer(sdx_infer *infer, sdx_transpose ta, sdx_transpose tb);
/* Constant A and B into the state, whose transposes and alpha are set. */
sdx_status sdx_matmul_keep(sdx_prepare *p, sdx_matmul *state);
/* step->state: a sdx_matmul. */
sdx_status sdx_matmul_plan(sdx_plan_step *step);

/* Products of this type run over packed panels; others by sdx_matmul_run_plain. */
bool sdx_matmul_is_f32(sdx_dtype t);
/* Of one B: all batches of A are rows of one product; bias, activation and residual as in the kernel. */
void sdx_matmul_run_tall(const sdx_kernels *kernels, int threads, const sdx_product *p, sdx_operands in, float alpha,
                         const float *bias, sdx_activation activation, bool add_to_c, float *c, char *workspace);
/* float64 by doubles, integers by uint64, which wraps as every narrower type does. workspace: 2 n doubles. */
void sdx_matmul_run_plain(const sdx_product *p, const sdx_tensor *a, const sdx_tensor *b, double alpha, sdx_tensor *c,
                          void *workspace);

#endif
