/* tile_f32.h: the fp32 register tile, shared by gemm_f32.c and attention.c.
 *
 * C[rows, COLS] = A[rows, k] * panel[k, COLS], with the whole C in registers over all of k: one product of a
 * broadcast element of A with TILE_VECS vectors of B per row and step. There is one instantiation per row
 * count, so that any m is split into nearly equal tiles (32 = 11+11+10) and no tail is slow. k is never
 * split: each output is one chain of multiply-adds from p = 0 to k-1, which is the invariance rule of
 * kernels.h, and which is why zero weights appended in attention change nothing.
 *
 * What feeds the tile counts more than its shape: each step prefetches the panel 64 steps ahead into L1, and
 * a slice of the next panel into L2, so that with T row tiles per panel each of them brings 1/T of what
 * comes next. */
#ifndef SDX_TILE_F32_H
#define SDX_TILE_F32_H

#include "tile.h"

#if VLEN == 16 /* 28 accumulators, 2 of B, 1 broadcast */
#define TILE_ROWS 14
#define TILE_VECS 2
#define TILE_COLS 32
#elif VLEN == 8 /* 12 + 2 + 1 */
#define TILE_ROWS 6
#define TILE_VECS 2
#define TILE_COLS 16
#elif VLEN == 4 /* 24 + 3 + 1 of NEON's 32 */
#define TILE_ROWS 8
#define TILE_VECS 3
#define TILE_COLS 12
#else
#define TILE_ROWS 4
#define TILE_VECS 4
#define TILE_COLS 4
#endif

V_INLINE float tile_load(const char *p)
{
    float x;
    memcpy(&x, p, sizeof x);
    return x;
}

/* out[rows, TILE_COLS], row stride ldo. next: where the coming panel's slice starts, `stride` bytes per
 * step. */
V_INLINE void tile_rows(const int rows, int64_t k, const float *a, int64_t lda, const float *panel,
                        const char *next, int64_t stride, float *out, int64_t ldo)
{
    const int64_t row = lda * (int64_t)sizeof(float);
    const int groups = (rows + 2) / 3;
    const char *base[(TILE_ROWS + 2) / 3];
    vf acc[TILE_ROWS][TILE_VECS];

    V_UNROLL
    for (int g = 0; g < groups; g++) base[g] = (const char *)a + 3 * g * row;
    V_UNROLL
    for (int i = 0; i < rows; i++) {
        V_UNROLL
        for (int j = 0; j < TILE_VECS; j++) acc[i][j] = v_zero();
    }

    for (int64_t p = 0; p < k; p++) {
        vf b[TILE_VECS];
        V_UNROLL
        for (int j = 0; j < TILE_VECS; j++) b[j] = v_load(panel + j * VLEN);
        tile_prefetch((const char *)panel, TILE_COLS * (int)sizeof(float), next);
        next += stride;
        panel += TILE_COLS;
        V_UNROLL
        for (int i = 0; i < rows; i++) {
            vf x = v_set1(tile_load(base[i / 3] + i % 3 * row));
            V_UNROLL
            for (int j = 0; j < TILE_VECS; j++) acc[i][j] = v_fma(x, b[j], acc[i][j]);
        }
        V_UNROLL
        for (int g = 0; g < groups; g++) {
            base[g] += sizeof(float);
            OPAQUE(base[g]);
        }
    }
    V_UNROLL
    for (int i = 0; i < rows; i++) {
        V_UNROLL
        for (int j = 0; j < TILE_VECS; j++) v_store(out + i * ldo + j * VLEN, acc[i][j]);
    }
}

typedef void (*tile_fn)(int64_t k, const float *a, int64_t lda, const float *panel, const char *next,
                        int64_t stride, float *out, int64_t ldo);

#define TILE(rows)                                                                                             \
    static void tile_##rows(int64_t k, const float *a, int64_t lda, const float *panel, const char *next,      \
                            int64_t stride, float *out, int64_t ldo)                                           \
    {                                                                                                          \
        tile_rows(rows, k, a, lda, panel, next, stride, out, ldo);                                             \
    }
TILE_LIST(TILE_ROWS, TILE)
#undef TILE

#define TILE(rows) tile_##rows,
static const tile_fn tile_table[TILE_ROWS + 1] = {NULL, TILE_LIST(TILE_ROWS, TILE)};
#undef TILE

/* One panel [k][TILE_COLS] from rows of B that lie together: B(p, j) = b[p*row_stride + j] for j < cols. */
V_INLINE void tile_pack_rows(int64_t k, int64_t cols, const char *b, int64_t row_stride, float *panel)
{
    for (int64_t p = 0; p < k; p++, panel += TILE_COLS)
        for (int j = 0; j < TILE_VECS; j++) {
            int64_t left = cols - j * VLEN;
            const char *from = b + (p * row_stride + j * VLEN) * (int64_t)sizeof(float);
            v_store(panel + j * VLEN, left >= VLEN ? v_load(from) : v_load_n(from, left > 0 ? (int)left : 0));
        }
}

/* One panel from columns of B that lie together: B(p, j) = b[j*col_stride + p]; VLEN x VLEN blocks are
 * transposed. */
V_INLINE void tile_pack_columns(int64_t k, int64_t cols, const char *b, int64_t col_stride, float *panel)
{
    for (int64_t p = 0; p < k; p += VLEN) {
        const int depth = v_lanes(p, k);
        for (int64_t j = 0; j < TILE_COLS; j += VLEN) {
            vf block[VLEN];
            for (int i = 0; i < VLEN; i++) {
                const char *from = b + ((j + i) * col_stride + p) * (int64_t)sizeof(float);
                block[i] = j + i < cols ? v_load_n(from, depth) : v_zero();
            }
            v_transpose(block);
            for (int i = 0; i < depth; i++) v_store(panel + (p + i) * TILE_COLS + j, block[i]);
        }
    }
}

#endif
