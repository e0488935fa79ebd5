/* gemm_f16.c: products with both operands rounded to float16 and multiplied as such (AVX512-FP16: twice the
 * multiply-adds of fp32 on Intel's cores since Sapphire Rapids, where bfloat16 has half). It stands in for gemm_f32
 * where a program asks for it, same arguments.
 *
 * A half has 11 bits and ends at 65504. So that neither shows:
 * - Sums stay halves for CHAIN products only, then they are added to sums in float32.
 * - Each row of A and each column of B is multiplied by a power of two that brings its largest element to [8, 16),
 *   undone in float32 at the end. CHAIN such products come to 2^14 at most: nothing overflows, whatever the model.
 *
 * packed: panels of [TILE_COLS] floats, what undoes the columns' factors, and [ceil(k/2)][TILE_COLS][2] halves, as
 * gemm_bf16.c has them: a lane of 32 bits holds two neighbours of k, and even and odd k are two chains, joined at the
 * end. If lanes were columns alone, A would need each element twice, since no load repeats 16 bits for free. Tiling as
 * in tile_f32.h, a pair of k at a time, in order, so that a row's bits depend neither on its neighbours nor on VLEN. */
#include "tile.h"
#include "vec/half.h"

#if VLEN == 16
#define TILE_ROWS 14
#define TILE_COLS 32
#else
#define TILE_ROWS 4
#define TILE_COLS 4
#endif

#include "tile_finish.h"

enum { TILE_VECS = TILE_COLS / VLEN, PAIR = 2, STEP_BYTES = TILE_COLS * PAIR * 2, CHAIN = 64 };
/* The block of A in halves, on the stack: 140 rows of 768, 42 of 3072. Longer rows go piece by piece. */
enum { BLOCK_ROWS = 10 * 14, BLOCK_SIZE = 1 << 17, PIECE = 64 * PAIR * CHAIN };

static int64_t panel_bytes(int64_t k) { return ((k + 1) / PAIR + 1) * STEP_BYTES; } /* the factors are one step */

static size_t packed_bytes(int64_t k, int64_t n)
{
    return (size_t)((n + TILE_COLS - 1) / TILE_COLS * panel_bytes(k));
}

/* ---- factors ----------------------------------------------------------------------------------------- */
enum { EXPONENT_BIAS = 127, EXPONENT_MOST = 254, TOP = 3, FRACTION_BITS = 23 };

/* The exponent of the largest element, as its bits have it, held to where both factors below are normal floats. */
V_INLINE uint32_t exponent_of(float largest)
{
    uint32_t bits;
    memcpy(&bits, &largest, sizeof bits);
    const uint32_t e = bits >> FRACTION_BITS;
    return e <= TOP ? TOP + 1 : e > EXPONENT_MOST ? EXPONENT_MOST : e;
}

V_INLINE float power(uint32_t exponent)
{
    const uint32_t bits = exponent << FRACTION_BITS;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Brings a number of that exponent to [2^TOP, 2^(TOP+1)); and back. */
V_INLINE float factor(uint32_t exponent) { return power(2 * EXPONENT_BIAS + TOP - exponent); }
V_INLINE float undone(uint32_t exponent) { return power(exponent - TOP); }

/* ---- B ----------------------------------------------------------------------------------------------- */
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

/* One panel of `cols` columns from b, strides in bytes: what undoes the factors, then the pairs. */
static void pack_panel(int64_t k, int64_t cols, const char *b, int64_t row, int64_t col, char *panel)
{
    float largest[TILE_COLS], factors[TILE_COLS], undo[TILE_COLS];
    vf most[TILE_VECS];
    int lanes[TILE_VECS];
    for (int v = 0; v < TILE_VECS; v++) {
        most[v] = v_zero();
        lanes[v] = cols > v * VLEN ? v_lanes(v * VLEN, cols) : 0;
    }
    for (int64_t p = 0; p < k; p++)
        for (int v = 0; v < TILE_VECS; v++)
            most[v] = v_max(v_abs(load_row(b + p * row + v * VLEN * col, col, lanes[v])), most[v]);
    for (int v = 0; v < TILE_VECS; v++) v_store(largest + v * VLEN, most[v]);
    for (int j = 0; j < TILE_COLS; j++) {
        factors[j] = factor(exponent_of(largest[j]));
        undo[j] = undone(exponent_of(largest[j]));
    }
    memcpy(panel, undo, sizeof undo);
    for (int64_t p = 0; p < k; p += PAIR)
        for (int v = 0; v < TILE_VECS; v++) {
            const char *from = b + p * row + v * VLEN * col;
            const vf f = v_load(factors + v * VLEN), low = v_mul(load_row(from, col, lanes[v]), f);
            const vf high = p + 1 < k ? v_mul(load_row(from + row, col, lanes[v]), f) : v_zero();
            vi_store(panel + (p / PAIR + 1) * STEP_BYTES + v * VLEN * PAIR * 2, vi_pair_f16(low, high));
        }
}

static void pack_b(int64_t k, int64_t n, const void *b, int64_t row_stride, int64_t col_stride, int64_t panel_begin,
                   int64_t panel_end, float *packed)
{
    const int64_t row = row_stride * (int64_t)sizeof(float), col = col_stride * (int64_t)sizeof(float);
    for (int64_t q = panel_begin; q < panel_end; q++) {
        const int64_t first = q * TILE_COLS, cols = n - first < TILE_COLS ? n - first : TILE_COLS;
        pack_panel(k, cols, (const char *)b + first * col, row, col, (char *)packed + q * panel_bytes(k));
    }
}

/* ---- A ----------------------------------------------------------------------------------------------- */
/* Halves between rows of `depth` elements, with zeros behind an odd one; a cache line more. */
static int64_t block_stride(int64_t depth) { return round_up(depth, 2 * VLEN) + 2 * VLEN; }

static uint32_t row_exponent(int64_t k, const float *a)
{
    vf most = v_zero();
    for (int64_t p = 0; p < k; p += VLEN) most = v_max(v_abs(v_load_n(a + p, v_lanes(p, k))), most);
    return exponent_of(v_reduce_max(most));
}

static void round_block(int64_t rows, int64_t depth, const float *a, int64_t lda, const uint32_t *exponents,
                        uint16_t *block)
{
    for (int64_t i = 0; i < rows; i++) {
        const vf f = v_set1(factor(exponents[i]));
        for (int64_t p = 0; p < round_up(depth, PAIR); p += VLEN)
            v_store_f16(block + i * block_stride(depth) + p, v_mul(v_load_n(a + i * lda + p, v_lanes(p, depth)), f));
    }
}

/* ---- the tile ---------------------------------------------------------------------------------------- */
V_INLINE int32_t load_pair(const char *p)
{
    int32_t x;
    memcpy(&x, p, sizeof x);
    return x;
}

/* sums[rows][TILE_COLS][2] += over `steps` pairs of k, CHAIN at a time; row: bytes between rows of A. */
V_INLINE void tile_rows(const int rows, int64_t steps, const char *a, int64_t row, const char *panel,
                        const char *next, int64_t stride, float *sums)
{
    const int groups = (rows + 2) / 3;
    const char *base[(TILE_ROWS + 2) / 3];
    _Alignas(64) uint16_t chains[TILE_ROWS * TILE_COLS * PAIR];

    V_UNROLL
    for (int g = 0; g < groups; g++) base[g] = a + 3 * g * row;
    for (; steps > 0; steps -= CHAIN) {
        vi acc[TILE_ROWS][TILE_VECS];
        V_UNROLL
        for (int i = 0; i < rows; i++) {
            V_UNROLL
            for (int j = 0; j < TILE_VECS; j++) acc[i][j] = vi_set1(0);
        }
        for (int64_t p = steps < CHAIN ? steps : CHAIN; p > 0; p--) {
            vi b[TILE_VECS];
            V_UNROLL
            for (int j = 0; j < TILE_VECS; j++) b[j] = vi_load(panel + j * VLEN * PAIR * 2);
            tile_prefetch(panel, STEP_BYTES, next);
            next += stride;
            panel += STEP_BYTES;
            V_UNROLL
            for (int i = 0; i < rows; i++) {
                const vi x = vi_set1(load_pair(base[i / 3] + i % 3 * row));
                V_UNROLL
                for (int j = 0; j < TILE_VECS; j++) acc[i][j] = vi_fma_f16(x, b[j], acc[i][j]);
            }
            V_UNROLL
            for (int g = 0; g < groups; g++) {
                base[g] += PAIR * sizeof(uint16_t);
                OPAQUE(base[g]);
            }
        }
        /* through L1: widening loads need no shuffles */
        V_UNROLL
        for (int i = 0; i < rows; i++) {
            V_UNROLL
            for (int j = 0; j < TILE_VECS; j++) vi_store(chains + (i * TILE_COLS + j * VLEN) * PAIR, acc[i][j]);
        }
        for (int i = 0; i < rows * TILE_COLS * PAIR; i += VLEN)
            v_store(sums + i, v_add(v_load(sums + i), v_load_f16(chains + i)));
    }
}

typedef void (*tile_fn)(int64_t steps, const char *a, int64_t row, const char *panel, const char *next,
                        int64_t stride, float *sums);

#define TILE(rows)                                                                                             \
    static void tile_##rows(int64_t steps, const char *a, int64_t row, const char *panel, const char *next,    \
                            int64_t stride, float *sums)                                                       \
    {                                                                                                          \
        tile_rows(rows, steps, a, row, panel, next, stride, sums);                                             \
    }
TILE_LIST(TILE_ROWS, TILE)
#undef TILE

#define TILE(rows) tile_##rows,
static const tile_fn tile_table[TILE_ROWS + 1] = {NULL, TILE_LIST(TILE_ROWS, TILE)};
#undef TILE

/* Even and odd k joined, factors undone. */
static void join(int rows, const float *sums, const uint32_t *exponents, const float *undo, float *tile)
{
    for (int i = 0; i < rows; i++) {
        const float own = undone(exponents[i]);
        for (int j = 0; j < TILE_COLS; j++, sums += PAIR)
            tile[i * TILE_COLS + j] = (sums[0] + sums[1]) * (own * undo[j]);
    }
}

/* ---- the product ------------------------------------------------------------------------------------- */
static void run(int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, const float *packed,
                int64_t panel_begin, int64_t panel_end, const float *bias, sdx_activation activation,
                const float *residual, int64_t ldr, float *c, int64_t ldc)
{
    _Alignas(64) uint16_t block[BLOCK_SIZE];
    _Alignas(64) float sums[TILE_ROWS * TILE_COLS * PAIR], tile[TILE_ROWS * TILE_COLS];
    uint32_t exponents[BLOCK_ROWS];
    const int64_t depth = k < PIECE ? k : PIECE, fit = BLOCK_SIZE / block_stride(depth);
    const int64_t most = fit < BLOCK_ROWS ? fit : BLOCK_ROWS;

    for (int64_t row0 = 0; row0 < m; row0 += most) {
        const int64_t height = m - row0 < most ? m - row0 : most, tiles = (height + TILE_ROWS - 1) / TILE_ROWS;
        for (int64_t i = 0; i < height; i++) exponents[i] = row_exponent(k, a + (row0 + i) * lda);
        if (k <= PIECE) round_block(height, k, a + row0 * lda, lda, exponents, block);
        for (int64_t q = panel_begin; q < panel_end; q++) {
            const char *panel = (const char *)packed + q * panel_bytes(k), *pairs = panel + STEP_BYTES;
            const char *next = pairs + (m > 1 ? panel_bytes(k) : 0);
            const int64_t stride = m > 1 ? STEP_BYTES / tiles / 2 : 0;
            const int64_t first = q * TILE_COLS, cols = n - first < TILE_COLS ? n - first : TILE_COLS;
            int64_t row = 0;
            for (int64_t t = 0; t < tiles; t++) {
                const int rows = tile_height(height, tiles, t);
                memset(sums, 0, sizeof sums);
                for (int64_t p = 0; p < k; p += PIECE) {
                    const int64_t part = k - p < PIECE ? k - p : PIECE, steps = (part + 1) / PAIR;
                    const int64_t width = block_stride(part);
                    const uint16_t *from = block + row * width;
                    if (k > PIECE) {
                        round_block(rows, part, a + (row0 + row) * lda + p, lda, exponents + row, block);
                        from = block;
                    }
                    tile_table[rows](steps, (const char *)from, width * (int64_t)sizeof *from,
                                     pairs + p / PAIR * STEP_BYTES, next + t * steps * stride, stride, sums);
                }
                const int64_t at = row0 + row;
                const epilogue e = {.bias = bias ? bias + first : NULL,
                                    .residual = residual ? residual + at * ldr + first : NULL,
                                    .ldr = ldr};
                join(rows, sums, exponents + row, (const float *)(const void *)panel, tile);
                finish_tile(activation, &e, tile, rows, cols, c + at * ldc + (q - panel_begin) * TILE_COLS, ldc);
                row += rows;
            }
        }
    }
}

KERNEL_INIT(gemm_f16)
{
    table->gemm_f16 = (sdx_gemm_f32_kernels){.name = TILE_NAME(TILE_ROWS, TILE_COLS),
                                             .mr = TILE_ROWS,
                                             .nr = TILE_COLS,
                                             .packed_bytes = packed_bytes,
                                             .pack_b = pack_b,
                                             .run = run};
}
