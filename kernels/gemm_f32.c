/* gemm_f32.c: C = activation(A * B + bias) + residual in fp32 with prepacked B.
 *
 * The loops are: blocks of rows that fit in L2 together with a panel, panels of B, row tiles of a block. A
 * is read in place. A finished tile passes through a small buffer in L1 on its way to C, where bias,
 * activation and residual are applied: at 2*k multiply-adds per element that costs about 1 %, and edges need
 * no code of their own. */
#include "tile_f32.h"
#include "tile_finish.h"

enum { BLOCK_TILES = 144 / TILE_ROWS }; /* 140 rows x 768 x 4 bytes = 430 KB */

static size_t packed_bytes(int64_t k, int64_t n)
{
    return (size_t)((n + TILE_COLS - 1) / TILE_COLS) * TILE_COLS * (size_t)k * sizeof(float);
}

/* Any strides. */
static void pack_panel(int64_t k, int64_t cols, const char *b, int64_t row_stride, int64_t col_stride,
                       float *panel)
{
    for (int64_t p = 0; p < k; p++)
        for (int64_t j = 0; j < TILE_COLS; j++)
            panel[p * TILE_COLS + j] =
                j < cols ? tile_load(b + (p * row_stride + j * col_stride) * (int64_t)sizeof(float)) : 0.0f;
}

/* Rows of B come a few at a time over all panels: memory streams then, where one panel after the other would read a
 * line of every page. */
static void pack_rows(int64_t k, int64_t n, const char *b, int64_t row_stride, int64_t panel_begin, int64_t panel_end,
                      float *packed)
{
    enum { ROWS = 16 };
    for (int64_t p = 0; p < k; p += ROWS)
        for (int64_t q = panel_begin; q < panel_end; q++) {
            const int64_t first = q * TILE_COLS, cols = n - first < TILE_COLS ? n - first : TILE_COLS;
            tile_pack_rows(k - p < ROWS ? k - p : ROWS, cols, b + (p * row_stride + first) * (int64_t)sizeof(float),
                           row_stride, packed + (q * k + p) * TILE_COLS);
        }
}

static void pack_b(int64_t k, int64_t n, const void *b, int64_t row_stride, int64_t col_stride,
                   int64_t panel_begin, int64_t panel_end, float *packed)
{
    if (col_stride == 1) {
        pack_rows(k, n, b, row_stride, panel_begin, panel_end, packed);
        return;
    }
    for (int64_t q = panel_begin; q < panel_end; q++) {
        const int64_t first = q * TILE_COLS, cols = n - first < TILE_COLS ? n - first : TILE_COLS;
        const char *from = (const char *)b + first * col_stride * (int64_t)sizeof(float);
        float *panel = packed + q * k * TILE_COLS;
        if (row_stride == 1)
            tile_pack_columns(k, cols, from, col_stride, panel);
        else
            pack_panel(k, cols, from, row_stride, col_stride, panel);
    }
}

static void run(int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, const float *packed,
                int64_t panel_begin, int64_t panel_end, const float *bias, sdx_activation activation,
                const float *residual, int64_t ldr, float *c, int64_t ldc)
{
    _Alignas(64) float tile[TILE_ROWS * TILE_COLS];
    const int64_t tiles = (m + TILE_ROWS - 1) / TILE_ROWS, panel_size = k * TILE_COLS;

    for (int64_t t0 = 0, row0 = 0; t0 < tiles; t0 += BLOCK_TILES) {
        const int64_t t1 = t0 + BLOCK_TILES < tiles ? t0 + BLOCK_TILES : tiles;
        int64_t row = row0;
        for (int64_t q = panel_begin; q < panel_end; q++) {
            const float *panel = packed + q * panel_size;
            /* one row: the hardware follows the stream, and a second one in its way costs 15 % */
            const char *next = (const char *)(panel + (m > 1 ? panel_size : 0));
            const int64_t stride = m > 1 ? TILE_COLS * (int64_t)sizeof(float) / (t1 - t0) : 0;
            const int64_t first = q * TILE_COLS, cols = n - first < TILE_COLS ? n - first : TILE_COLS;
            row = row0;
            for (int64_t t = t0; t < t1; t++) {
                const int rows = tile_height(m, tiles, t);
                const epilogue e = {.bias = bias ? bias + first : NULL,
                                    .residual = residual ? residual + row * ldr + first : NULL,
                                    .ldr = ldr};
                tile_table[rows](k, a + row * lda, lda, panel, next + (t - t0) * k * stride, stride, tile,
                                 TILE_COLS);
                finish_tile(activation, &e, tile, rows, cols, c + row * ldc + (q - panel_begin) * TILE_COLS,
                            ldc);
                row += rows;
            }
        }
        row0 = row;
    }
}

KERNEL_INIT(gemm_f32)
{
    table->gemm_f32 = (sdx_gemm_f32_kernels){.name = TILE_NAME(TILE_ROWS, TILE_COLS),
                                             .mr = TILE_ROWS,
                                             .nr = TILE_COLS,
                                             .packed_bytes = packed_bytes,
                                             .pack_b = pack_b,
                                             .run = run};
}
