/* blas.c: OpenBLAS as one more row of the fp32 GEMM, for CPUs none of our vector tiles fit, and to compare
 * with. A panel is [k][PANEL], row-major, and one call of cblas_sgemm. Bias, activation and residual follow as
 * passes over C. OpenBLAS picks its kernel by shape, so the invariance rule of kernels.h holds
 * only between calls of one shape. It must not start threads of its own: ours are already running. Compiled
 * only where OpenBLAS is (SDX_WITH_OPENBLAS).
 *
 * The library is loaded when it is first wanted: as it is loaded it starts a thread for each CPU, and these spin for a
 * tenth of a second, on the CPUs that a short command needs. A static binary holds it (SDX_BLAS_LINKED). */
#define _GNU_SOURCE
#include "kernels.h"

#include <cblas.h>
#include <dlfcn.h>
#include <string.h>

typedef struct blas {
    void (*sgemm)(enum CBLAS_ORDER, enum CBLAS_TRANSPOSE, enum CBLAS_TRANSPOSE, blasint m, blasint n, blasint k,
                  float alpha, const float *a, blasint lda, const float *b, blasint ldb, float beta, float *c,
                  blasint ldc);
    void (*set_num_threads)(int count);
} blas;

/* Set with the table of kernels, once. */
static blas library;

#ifdef SDX_BLAS_LINKED
static bool load(blas *out)
{
    *out = (blas){cblas_sgemm, openblas_set_num_threads};
    return true;
}
#else
static bool load(blas *out)
{
    void *so = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
    if (!so) return false;
    void *sgemm = dlsym(so, "cblas_sgemm"), *set_num_threads = dlsym(so, "openblas_set_num_threads");
    memcpy(&out->sgemm, &sgemm, sizeof sgemm); /* C has no cast from data to function */
    memcpy(&out->set_num_threads, &set_num_threads, sizeof set_num_threads);
    return sgemm && set_num_threads;
}
#endif

enum { PANEL = 128, ROWS = 16 };

static size_t packed_bytes(int64_t k, int64_t n)
{
    return (size_t)((n + PANEL - 1) / PANEL * PANEL * k) * sizeof(float);
}

static void pack_b(int64_t k, int64_t n, const void *b, int64_t row_stride, int64_t col_stride,
                   int64_t panel_begin, int64_t panel_end, float *packed)
{
    for (int64_t q = panel_begin; q < panel_end; q++)
        for (int64_t p = 0; p < k; p++) {
            const char *row = (const char *)b + p * row_stride * (int64_t)sizeof(float);
            for (int64_t j = q * PANEL; j < n && j < (q + 1) * PANEL; j++)
                memcpy(packed + (q * k + p) * PANEL + j % PANEL, row + j * col_stride * (int64_t)sizeof(float),
                       sizeof(float));
        }
}

/* C = A * panel over the panel's first cols columns. */
static void multiply(int64_t m, int64_t cols, int64_t k, const float *a, int64_t lda, const float *panel, float *c,
                     int64_t ldc)
{
    if (m > 0 && cols > 0)
        library.sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (blasint)m, (blasint)cols, (blasint)k, 1.0f, a,
                      (blasint)lda, panel, PANEL, 0.0f, c, (blasint)ldc);
}

/* y [cols] = activation(x + bias) + residual; residual may be y. */
static void finish_row(const sdx_kernels *table, int64_t cols, const float *x, const float *bias,
                       sdx_activation activation, const float *residual, float *y)
{
    float part[PANEL];
    table->element.bias_act_f32(cols, x, bias, activation, part);
    if (residual)
        table->element.binary_f32[SDX_BINARY_ADD](cols, part, 1, residual, 1, y);
    else
        memcpy(y, part, (size_t)cols * sizeof *y);
}

/* C may hold the residual, so a block of the product waits on the stack until the residual is added. */
static void run_residual(const sdx_kernels *table, int64_t m, int64_t cols, int64_t k, const float *a, int64_t lda,
                         const float *panel, const float *bias, sdx_activation activation, const float *residual,
                         int64_t ldr, float *c, int64_t ldc)
{
    float product[ROWS * PANEL];
    for (int64_t i = 0; i < m; i += ROWS) {
        const int64_t rows = m - i < ROWS ? m - i : ROWS;
        multiply(rows, cols, k, a + i * lda, lda, panel, product, PANEL);
        for (int64_t r = 0; r < rows; r++)
            finish_row(table, cols, product + r * PANEL, bias, activation, residual + (i + r) * ldr, c + (i + r) * ldc);
    }
}

static void run(int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, const float *packed,
                int64_t panel_begin, int64_t panel_end, const float *bias, sdx_activation activation,
                const float *residual, int64_t ldr, float *c, int64_t ldc)
{
    const sdx_kernels *table = sdx_kernels_get(sdx_isa_detect());
    for (int64_t q = panel_begin; q < panel_end; q++, c += PANEL) {
        const int64_t first = q * PANEL, cols = n - first < PANEL ? n - first : PANEL;
        const float *panel = packed + first * k, *own = bias ? bias + first : NULL;
        if (residual) {
            run_residual(table, m, cols, k, a, lda, panel, own, activation, residual + first, ldr, c, ldc);
            continue;
        }
        multiply(m, cols, k, a, lda, panel, c, ldc);
        for (int64_t i = 0; i < m && (bias || activation != SDX_ACT_NONE); i++)
            finish_row(table, cols, c + i * ldc, own, activation, NULL, c + i * ldc);
    }
}

void sdx_gemm_f32_init_openblas(sdx_kernels *table);

void sdx_gemm_f32_init_openblas(sdx_kernels *table)
{
    if (!library.sgemm && !load(&library)) return;
    library.set_num_threads(1);
    table->gemm_f32 = (sdx_gemm_f32_kernels){.name = "openblas",
                                             .mr = ROWS,
                                             .nr = PANEL,
                                             .packed_bytes = packed_bytes,
                                             .pack_b = pack_b,
                                             .run = run};
}
