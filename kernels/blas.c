/* blas.c: OpenBLAS as one more row of the fp32 GEMM, for CPUs none of our vector tiles fit, and to compare
 * with. "packed" is a row-major copy of B; a panel is a block of columns. Bias, activation and residual
 * follow as passes over C. OpenBLAS picks its kernel by shape, so the invariance rule of kernels.h holds
 * only between calls of one shape. It must not start threads of its own: ours are already running. Compiled
 * only where OpenBLAS is (SDX_WITH_OPENBLAS). */
#include "kernels.h"

#include <cblas.h>
#include <string.h>

enum { PANEL = 64, ROWS = 16 };

static size_t packed_bytes(int64_t k, int64_t n) { return (size_t)k * (size_t)n * sizeof(float); }

static void pack_b(int64_t k, int64_t n, const void *b, int64_t row_stride, int64_t col_stride,
                   int64_t panel_begin, int64_t panel_end, float *packed)
{
    const int64_t end = panel_end * PANEL < n ? panel_end * PANEL : n;
    for (int64_t p = 0; p < k; p++)
        for (int64_t j = panel_begin * PANEL; j < end; j++)
            memcpy(packed + p * n + j,
                   (const char *)b + (p * row_stride + j * col_stride) * (int64_t)sizeof(float), sizeof(float));
}

/* C = A * B + beta * C over cols columns. */
static void multiply(int64_t m, int64_t cols, int64_t k, const float *a, int64_t lda, const float *b,
                     int64_t ldb, float beta, float *c, int64_t ldc)
{
    if (m > 0 && cols > 0)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)m, (int)cols, (int)k, 1.0f, a, (int)lda, b,
                    (int)ldb, beta, c, (int)ldc);
}

/* y = activation(x + bias) + residual for one row; residual may be y. */
static void finish_row(const sdx_kernels *table, int64_t n, const float *x, const float *bias,
                       sdx_activation activation, const float *residual, float *y)
{
    float part[PANEL];
    for (int64_t j = 0; j < n; j += PANEL) {
        const int64_t cols = n - j < PANEL ? n - j : PANEL;
        table->element.bias_act_f32(cols, x + j, bias ? bias + j : NULL, activation, part);
        if (residual)
            table->element.binary_f32[SDX_BINARY_ADD](cols, part, 1, residual + j, 1, y + j);
        else
            memcpy(y + j, part, (size_t)cols * sizeof *y);
    }
}

/* C may hold the residual, so a block of the product waits on the stack until the residual is added. */
static void run_residual(int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, const float *packed,
                         int64_t begin, int64_t end, const float *bias, sdx_activation activation,
                         const float *residual, int64_t ldr, float *c, int64_t ldc)
{
    const sdx_kernels *table = sdx_kernels_get(sdx_isa_detect());
    float product[ROWS * PANEL];
    for (int64_t i = 0; i < m; i += ROWS)
        for (int64_t j = begin; j < end; j += PANEL) {
            const int64_t rows = m - i < ROWS ? m - i : ROWS, cols = end - j < PANEL ? end - j : PANEL;
            multiply(rows, cols, k, a + i * lda, lda, packed + j, n, 0.0f, product, PANEL);
            for (int64_t r = 0; r < rows; r++)
                finish_row(table, cols, product + r * PANEL, bias ? bias + j : NULL, activation,
                           residual + (i + r) * ldr + j, c + (i + r) * ldc + j - begin);
        }
}

static void run(int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, const float *packed,
                int64_t panel_begin, int64_t panel_end, const float *bias, sdx_activation activation,
                const float *residual, int64_t ldr, float *c, int64_t ldc)
{
    const int64_t begin = panel_begin * PANEL, end = panel_end * PANEL < n ? panel_end * PANEL : n;
    if (residual) {
        run_residual(m, n, k, a, lda, packed, begin, end, bias, activation, residual, ldr, c, ldc);
        return;
    }
    multiply(m, end - begin, k, a, lda, packed + begin, n, 0.0f, c, ldc);
    if (!bias && activation == SDX_ACT_NONE) return;
    const sdx_kernels *table = sdx_kernels_get(sdx_isa_detect());
    for (int64_t i = 0; i < m; i++)
        finish_row(table, end - begin, c + i * ldc, bias ? bias + begin : NULL, activation, NULL, c + i * ldc);
}

void sdx_gemm_f32_init_openblas(sdx_kernels *table);

void sdx_gemm_f32_init_openblas(sdx_kernels *table)
{
    openblas_set_num_threads(1);
    table->gemm_f32 = (sdx_gemm_f32_kernels){.name = "openblas",
                                             .mr = ROWS,
                                             .nr = PANEL,
                                             .packed_bytes = packed_bytes,
                                             .pack_b = pack_b,
                                             .run = run};
}
