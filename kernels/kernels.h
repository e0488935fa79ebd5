/* kernels.h: the table of tables. One struct per family holds its functions and their block sizes together;
 * dispatch.c fills it with the scalar versions and lets every instruction set the CPU has overwrite what it improves.
 *
 * Kernels are pure: raw pointers and sizes in, numbers out; no tensor, malloc, thread, errno or failure. Sizes may
 * be 0. Pointers to float, integer and packed data need only their element's alignment, except where said
 * ("any alignment": weights in a mapped file). Matrices are row-major, ld* in elements. In-place (y == x) is
 * allowed for row and element kernels unless said otherwise.
 *
 * Invariance, on which batching rests: row i of a result depends on row i of the left operand only, by the same
 * sequence of roundings whatever m, the row's place, the panel range and the thread. So every GEMM sums over k in
 * one fixed order per output element, also in remainder rows and columns. And on every instruction set: see
 * vec/vec.h.
 */
#ifndef SDX_KERNELS_H
#define SDX_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum sdx_isa {
    SDX_ISA_SCALAR,
    SDX_ISA_AVX2,       /* AVX2 + FMA + F16C */
    SDX_ISA_AVXVNNI,    /* AVX2 + AVX-VNNI */
    SDX_ISA_AVX512,     /* F, BW, DQ, VL, CD */
    SDX_ISA_AVX512VNNI, /* AVX512 + VNNI */
    SDX_ISA_AVX512FP16, /* AVX512 + VNNI + FP16 */
    SDX_ISA_NEON,
    SDX_ISA_NEON_DOT,   /* Armv8.2 DotProd */
    SDX_ISA_NEON_I8MM,  /* Armv8.6 I8MM */
    SDX_ISA_COUNT
} sdx_isa;

/* What is done to C while it is still in registers: C = activation(A*B + bias) + residual. */
typedef enum sdx_activation { SDX_ACT_NONE, SDX_ACT_RELU, SDX_ACT_GELU, SDX_ACT_TANH } sdx_activation;

/* ---- gemm_f32: C[m,n] = A[m,k] * B[k,n] + bias[n] ------------------------------------------------- */
typedef struct sdx_gemm_f32_kernels {
    const char *name;  /* "avx512 14x32", for the operator table and benches */
    int64_t mr, nr;    /* register tile; panels are nr columns wide, the last one zero-padded */
    /* Bytes of packed B: ceil(n/nr) panels one after the other; panel p starts packed_bytes(k, p*nr) bytes in. */
    size_t (*packed_bytes)(int64_t k, int64_t n);
    /* Packs panels [panel_begin, panel_end) of B. B(i,j) = b[i*row_stride + j*col_stride]; any alignment. */
    void (*pack_b)(int64_t k, int64_t n, const void *b, int64_t row_stride, int64_t col_stride, int64_t panel_begin,
                   int64_t panel_end, float *packed);
    /* Columns of panels [panel_begin, panel_end) of C; c is where the first of them goes, so that a block of C can
     * lie by itself. bias: [n] or NULL. residual: [m, ldr] or NULL, added after the activation; may be C itself. */
    void (*run)(int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, const float *packed,
                int64_t panel_begin, int64_t panel_end, const float *bias, sdx_activation activation,
                const float *residual, int64_t ldr, float *c, int64_t ldc);
} sdx_gemm_f32_kernels;

/* ---- gemm_int8: acc[m,n] = sum_k A[m,k] * B[k,n], A u8 or s8, B s8 or u8, exact in int32 ------------ */
/* What the sums become while they are near: without row_scale, acc * scale[j * scale_step] + bias[j] in one rounding,
 * as QLinear operators have it; with it, activation(acc * (row_scale[i] * scale[j * scale_step]) + bias[j]), each
 * step rounded, as the chain Cast - Mul - Add has it. */
typedef struct sdx_int8_epilogue {
    const float *scale; /* [n], or one number when scale_step is 0 */
    int scale_step;
    const float *bias;      /* [n] or NULL */
    const float *row_scale; /* [m] or NULL */
    sdx_activation activation; /* only with row_scale */
} sdx_int8_epilogue;
typedef struct sdx_gemm_int8_kernels {
    const char *name;
    int64_t mr, nr;
    size_t (*packed_bytes)(int64_t k, int64_t n);
    /* Bytes of the copy of A that run() wants for m rows of k (row stride rounded up, padded with zero); 0: A as is. */
    size_t (*packed_a_bytes)(int64_t m, int64_t k);
    /* Panels [panel_begin, panel_end). b_signed: B is int8, else uint8 (stored minus 128, undone in run). Any
     * alignment. */
    void (*pack_b)(int64_t k, int64_t n, const void *b, int64_t row_stride, int64_t col_stride, bool b_signed,
                   int64_t panel_begin, int64_t panel_end, void *packed);
    /* a_signed: A is int8, else uint8. a_zero[m] or NULL, b_zero[n] or NULL: zero points, so that
     * acc = sum_k (A - a_zero) * (B - b_zero). workspace: packed_a_bytes(m, k) bytes, or NULL when that is 0.
     * C is int32, or float when there is an epilogue; c is where the first of the panels' columns goes. */
    void (*run)(int64_t m, int64_t n, int64_t k, const void *a, int64_t lda, bool a_signed, const void *packed,
                int64_t panel_begin, int64_t panel_end, const int32_t *a_zero, const int32_t *b_zero,
                const sdx_int8_epilogue *epilogue, void *workspace, void *c, int64_t ldc);
} sdx_gemm_int8_kernels;

/* ---- rows -------------------------------------------------------------------------------------- */
typedef struct sdx_row_kernels {
    /* y = softmax(x) over n; -inf gives 0; a row of only -inf gives NaN as the formula does. */
    void (*softmax_f32)(int64_t n, const float *x, float *y);
    /* s = x + skip + bias (each may be NULL); y = (s - mean) / sqrt(var + eps) * gamma + beta; two-pass variance.
     * sum: where to write s, or NULL. beta may be NULL. mean and inv_std: where to write them, or NULL. */
    void (*layer_norm_f32)(int64_t n, const float *x, const float *skip, const float *bias, const float *gamma,
                           const float *beta, float eps, float *y, float *sum, float *mean, float *inv_std);
    /* RMS form: y = s / sqrt(mean(s*s) + eps) * gamma. */
    void (*rms_norm_f32)(int64_t n, const float *x, const float *skip, const float *bias, const float *gamma,
                         float eps, float *y, float *sum, float *inv_std);
} sdx_row_kernels;

/* ---- elements ---------------------------------------------------------------------------------- */
typedef enum sdx_unary {
    SDX_UNARY_EXP, SDX_UNARY_LOG, SDX_UNARY_LOG1P, SDX_UNARY_SQRT, SDX_UNARY_ERF, SDX_UNARY_TANH, SDX_UNARY_SIGMOID,
    SDX_UNARY_RELU, SDX_UNARY_GELU, SDX_UNARY_GELU_TANH, SDX_UNARY_NEG, SDX_UNARY_ABS, SDX_UNARY_RECIPROCAL,
    SDX_UNARY_COUNT
} sdx_unary;
typedef enum sdx_binary {
    SDX_BINARY_ADD, SDX_BINARY_SUB, SDX_BINARY_MUL, SDX_BINARY_DIV, SDX_BINARY_MAX, SDX_BINARY_MIN, SDX_BINARY_COUNT
} sdx_binary;
typedef struct sdx_element_kernels {
    void (*unary_f32[SDX_UNARY_COUNT])(int64_t n, const float *x, float *y);
    /* y[i] = a[i*a_step] op b[i*b_step]; steps are 0 or 1. */
    void (*binary_f32[SDX_BINARY_COUNT])(int64_t n, const float *a, int a_step, const float *b, int b_step, float *y);
    /* y[i] = activation(x[i] + bias[i]); bias may be NULL. */
    void (*bias_act_f32)(int64_t n, const float *x, const float *bias, sdx_activation activation, float *y);
    void (*f16_to_f32)(int64_t n, const uint16_t *x, float *y);
} sdx_element_kernels;

/* ---- reductions -------------------------------------------------------------------------------- */
typedef struct sdx_reduce_kernels {
    float (*sum_f32)(int64_t n, const float *x);
    float (*max_f32)(int64_t n, const float *x);               /* -inf for n = 0; NaN is contagious */
    void (*min_max_f32)(int64_t n, const float *x, float *min, float *max); /* NaN ignored; +inf, -inf for n = 0 */
    void (*max_rows_f32)(int64_t n, const float *x, float *acc);            /* acc[i] = max(acc[i], x[i]) */
} sdx_reduce_kernels;

/* ---- convolution ------------------------------------------------------------------------------- */
typedef struct sdx_conv_kernels {
    /* y[i] = start + sum_t w[t] * x[offset[t] + i] for i < n, t < taps, in the order of the taps. y is not x. */
    void (*depthwise_row_f32)(int64_t n, int64_t taps, const float *x, const int64_t *offset, const float *w,
                              float start, float *y);
} sdx_conv_kernels;

/* ---- quantization ------------------------------------------------------------------------------ */
typedef struct sdx_quantize_kernels {
    /* y = saturate(round_half_even(x / scale) + zero_point), as ONNX QuantizeLinear. */
    void (*f32_u8)(int64_t n, const float *x, float scale, int32_t zero_point, uint8_t *y);
    void (*f32_s8)(int64_t n, const float *x, float scale, int32_t zero_point, int8_t *y);
    /* What DynamicQuantizeLinear makes of x * factor (factor NULL: of x) alone; a range under 255 * 2^-126 is 0. */
    void (*row_u8)(int64_t n, const float *x, const float *factor, uint8_t *y, float *scale, int32_t *zero_point);
    /* y = (x - zero_point) * scale */
    void (*u8_f32)(int64_t n, const uint8_t *x, float scale, int32_t zero_point, float *y);
    void (*s8_f32)(int64_t n, const int8_t *x, float scale, int32_t zero_point, float *y);
} sdx_quantize_kernels;

/* ---- attention, one head ------------------------------------------------------------------------ */
typedef struct sdx_attention_args {
    int64_t queries, keys, head_dim, value_dim;
    const float *q; int64_t ldq;       /* [queries, head_dim] */
    const float *k; int64_t ldk;       /* [keys, head_dim] */
    const float *v; int64_t ldv;       /* [keys, value_dim] */
    const float *mask; int64_t ldmask; /* added to the scaled scores; ldmask 0: one row [keys] for all; NULL: none */
    const float *bias; int64_t ldbias; /* a second addend [queries, keys], or NULL */
    float scale;
    bool causal;                       /* query i sees keys j <= i + keys - queries */
    float *out; int64_t ldout;         /* [queries, value_dim] */
    void *workspace;                   /* workspace_bytes(...) bytes, SDX_ALIGN-aligned */
} sdx_attention_args;
typedef struct sdx_attention_kernels {
    size_t (*workspace_bytes)(int64_t queries, int64_t keys, int64_t head_dim, int64_t value_dim);
    /* out = softmax(scale * q k^T + mask + bias) v. Appending keys whose weight underflows to 0 changes no bit. A
     * query whose every score is -inf, or that sees no key, gives zeros. */
    void (*run_f32)(const sdx_attention_args *args);
} sdx_attention_kernels;

/* ---- the table --------------------------------------------------------------------------------- */
typedef struct sdx_kernels {
    sdx_isa isa; /* the best one that filled something */
    sdx_gemm_f32_kernels gemm_f32;
    sdx_gemm_f32_kernels gemm_bf16; /* the same with A and B rounded to bfloat16; all NULL where the CPU cannot */
    sdx_gemm_f32_kernels gemm_f16;  /* the same in float16, sums too: gemm_f16.c. In software below AVX512FP16, slow */
    sdx_gemm_f32_kernels linear;    /* what multiplies by constant weights: one of the three, gemm_f32 in the table */
    sdx_gemm_int8_kernels gemm_int8;
    sdx_row_kernels row;
    sdx_element_kernels element;
    sdx_reduce_kernels reduce;
    sdx_conv_kernels conv;
    sdx_quantize_kernels quantize;
    sdx_attention_kernels attention;
} sdx_kernels;

const char *sdx_isa_name(sdx_isa isa);           /* "avx512vnni" */
bool sdx_isa_parse(const char *name, sdx_isa *out);
sdx_isa sdx_isa_detect(void);                    /* the best tier of this CPU that was compiled in */
bool sdx_isa_available(sdx_isa isa);
/* Operations a second that one core does at best (two a multiply-add), measured now, in a millisecond or two: of
 * float32, bfloat16, 8-bit and float16 products with these kernels' instructions. 0: none, or unmeasured. */
double sdx_peak_f32(const sdx_kernels *kernels);
double sdx_peak_bf16(const sdx_kernels *kernels);
double sdx_peak_int8(const sdx_kernels *kernels);
double sdx_peak_f16(const sdx_kernels *kernels);
/* The table for the detected ISA under a cap (a tier above the CPU's is lowered to it). Filled once, thread-safe. */
const sdx_kernels *sdx_kernels_get(sdx_isa cap);

#endif
