/* gemm_bf16.c: products with both operands rounded to bfloat16 and float32 sums (vdpbf16ps: AVX512-BF16, twice the
 * multiply-adds of fp32 on AMD Zen 4). It stands in for gemm_f32 where a program asks for it, same arguments: A is
 * rounded block by block on its way in, B when it is packed.
 *
 * packed: panels [ceil(k/2)][TILE_COLS][2] of bfloat16. Tiling as in tile_f32.h: a pair of k at a time, in order, so
 * that a row's bits do not depend on its neighbours. */
#include "tile.h"

#define TILE_ROWS 14
#define TILE_COLS 32

#include "tile_finish.h"

enum { TILE_VECS = TILE_COLS / VLEN, PAIR = 2, STEP_BYTES = TILE_COLS * PAIR * 2 };
/* The block of A in bfloat16, on the stack: 140 rows of 768, 42 of 3072. Longer rows go piece by piece. */
enum { BLOCK_ROWS = 10 * TILE_ROWS, BLOCK_SIZE = 1 << 17, PIECE = 8192 };

static int64_t panel_size(int64_t k) { return (k + 1) / PAIR * PAIR * TILE_COLS; } /* elements */

static size_t packed_bytes(int64_t k, int64_t n)
{
    return (size_t)((n + TILE_COLS - 1) / TILE_COLS * panel_size(k)) * sizeof(uint16_t);
}

/* ---- rounding, to nearest even ---------------------------------------------------------------------- */
V_INLINE __m512i widened(vf x) { return _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(x)); }

V_INLINE vf load_strided(const char *b, int64_t stride, int count)
{
    _Alignas(64) float x[VLEN] = {0};
    for (int j = 0; j < count; j++) memcpy(&x[j], b + j * stride, sizeof *x);
    return v_load(x);
}

/* Elements [0, count) of a row of B. */
V_INLINE vf load_row(const char *b, int64_t stride, int count)
{
    return stride == (int64_t)sizeof(float) ? v_load_n(b, count) : load_strided(b, stride, count);
}

static void pack_b(int64_t k, int64_t n, const void *b, int64_t row_stride, int64_t col_stride, int64_t panel_begin,
                   int64_t panel_end, float *packed)
{
    const int64_t row = row_stride * (int64_t)sizeof(float), col = col_stride * (int64_t)sizeof(float);
    for (int64_t q = panel_begin; q < panel_end; q++) {
        uint16_t *panel = (uint16_t *)(void *)packed + q * panel_size(k);
        for (int64_t p = 0; p < k; p += PAIR, panel += TILE_COLS * PAIR)
            for (int v = 0; v < TILE_VECS; v++) {
                const int64_t j = q * TILE_COLS + v * VLEN, left = n - j;
                const int count = left < 0 ? 0 : left < VLEN ? (int)left : VLEN;
                const char *from = (const char *)b + p * row + j * col;
                const __m512i low = widened(load_row(from, col, count));
                const __m512i high = widened(load_row(from + row, col, p + 1 < k ? count : 0));
                vi_store(panel + v * VLEN * PAIR, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
            }
    }
}

/* rows x k of A, with a zero behind an odd k; a cache line between rows. */
static int64_t block_stride(int64_t k) { return round_up(k, 2 * VLEN) + 2 * VLEN; }

static void round_block(int64_t rows, int64_t k, const float *a, int64_t lda, uint16_t *block)
{
    for (int64_t i = 0; i < rows; i++)
        for (int64_t p = 0; p < k; p += 2 * VLEN) {
            const int64_t left = k - p;
            const vf low = v_load_n(a + i * lda + p, v_lanes(p, k));
            const vf high = left > VLEN ? v_load_n(a + i * lda + p + VLEN, v_lanes(p + VLEN, k)) : v_zero();
            vi_store(block + i * block_stride(k) + p, (__m512i)_mm512_cvtne2ps_pbh(high, low));
        }
}

/* ---- the tile ---------------------------------------------------------------------------------------- */
V_INLINE int32_t load_pair(const char *p)
{
    int32_t x;
    memcpy(&x, p, sizeof x);
    return x;
}

/* out[rows, TILE_COLS] += over `steps` pairs of k; row: bytes between rows of A. */
V_INLINE void tile_rows(const int rows, int64_t steps, const char *a, int64_t row, const char *panel,
                        const char *next, int64_t stride, float *out)
{
    const int groups = (rows + 2) / 3;
    const char *base[(TILE_ROWS + 2) / 3];
    vf acc[TILE_ROWS][TILE_VECS];

    V_UNROLL
    for (int g = 0; g < groups; g++) base[g] = a + 3 * g * row;
    V_UNROLL
    for (int i = 0; i < rows; i++) {
        V_UNROLL
        for (int j = 0; j < TILE_VECS; j++) acc[i][j] = v_load(out + i * TILE_COLS + j * VLEN);
    }
    for (int64_t p = 0; p < steps; p++) {
        __m512i b[TILE_VECS];
        V_UNROLL
        for (int j = 0; j < TILE_VECS; j++) b[j] = vi_load(panel + j * VLEN * PAIR * 2);
        tile_prefetch(panel, STEP_BYTES, next);
        next += stride;
        panel += STEP_BYTES;
        V_UNROLL
        for (int i = 0; i < rows; i++) {
            const __m512i x = vi_set1(load_pair(base[i / 3] + i % 3 * row));
            V_UNROLL
            for (int j = 0; j < TILE_VECS; j++)
                acc[i][j] = _mm512_dpbf16_ps(acc[i][j], (__m512bh)x, (__m512bh)b[j]);
        }
        V_UNROLL
        for (int g = 0; g < groups; g++) {
            base[g] += PAIR * sizeof(uint16_t);
            OPAQUE(base[g]);
        }
    }
    V_UNROLL
    for (int i = 0; i < rows; i++) {
        V_UNROLL
        for (int j = 0; j < TILE_VECS; j++) v_store(out + i * TILE_COLS + j * VLEN, acc[i][j]);
    }
}

typedef void (*tile_fn)(int64_t steps, const char *a, int64_t row, const char *panel, const char *next,
                        int64_t stride, float *out);

#define TILE(rows)                                                                                             \
    static void tile_##rows(int64_t steps, const char *a, int64_t row, const char *panel, const char *next,    \
                            int64_t stride, float *out)                                                        \
    {                                                                                                          \
        tile_rows(rows, steps, a, row, panel, next, stride, out);                                              \
    }
TILE_LIST(TILE_ROWS, TILE)
#undef TILE

#define TILE(rows) tile_##rows,
static const tile_fn tile_table[TILE_ROWS + 1] = {NULL, TILE_LIST(TILE_ROWS, TILE)};
#undef TILE

/* ---- the product ------------------------------------------------------------------------------------- */
static void run(int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, const float *packed,
                int64_t panel_begin, int64_t panel_end, const float *bias, sdx_activation activation,
                const float *residual, int64_t ldr, float *c, int64_t ldc)
{
    _Alignas(64) uint16_t block[BLOCK_SIZE];
    _Alignas(64) float tile[TILE_ROWS * TILE_COLS];
    const int64_t depth = k < PIECE ? k : PIECE, fit = BLOCK_SIZE / block_stride(depth);
    const int64_t most = fit < BLOCK_ROWS ? fit : BLOCK_ROWS, size = panel_size(k);

    for (int64_t row0 = 0; row0 < m; row0 += most) {
        const int64_t height = m - row0 < most ? m - row0 : most, tiles = (height + TILE_ROWS - 1) / TILE_ROWS;
        if (k <= PIECE) round_block(height, k, a + row0 * lda, lda, block);
        for (int64_t q = panel_begin; q < panel_end; q++) {
            const uint16_t *panel = (const uint16_t *)(const void *)packed + q * size;
            const char *next = (const char *)(panel + (m > 1 ? size : 0));
            const int64_t stride = m > 1 ? STEP_BYTES / tiles / 2 : 0;
            const int64_t first = q * TILE_COLS, cols = n - first < TILE_COLS ? n - first : TILE_COLS;
            int64_t row = 0;
            for (int64_t t = 0; t < tiles; t++) {
                const int rows = tile_height(height, tiles, t);
                memset(tile, 0, sizeof tile);
                for (int64_t p = 0; p < k; p += PIECE) {
                    const int64_t part = k - p < PIECE ? k - p : PIECE, steps = (part + 1) / PAIR;
                    const int64_t width = block_stride(part);
                    const uint16_t *from = block + row * width;
                    if (k > PIECE) {
                        round_block(rows, part, a + (row0 + row) * lda + p, lda, block);
                        from = block;
                    }
                    tile_table[rows](steps, (const char *)from, width * (int64_t)sizeof *from,
                                     (const char *)(panel + p * TILE_COLS), next + t * steps * stride, stride, tile);
                }
                const int64_t at = row0 + row;
                const epilogue e = {.bias = bias ? bias + first : NULL,
                                    .residual = residual ? residual + at * ldr + first : NULL,
                                    .ldr = ldr};
                finish_tile(activation, &e, tile, rows, cols, c + at * ldc + (q - panel_begin) * TILE_COLS, ldc);
                row += rows;
            }
        }
    }
}

KERNEL_INIT(gemm_bf16)
{
    if (!__builtin_cpu_supports("avx512bf16")) return;
    table->gemm_bf16 = (sdx_gemm_f32_kernels){.name = "avx512bf16 14x32",
                                              .mr = TILE_ROWS,
                                              .nr = TILE_COLS,
                                              .packed_bytes = packed_bytes,
                                              .pack_b = pack_b,
                                              .run = run};
}
