/* attention.c: softmax(scale * q k^T + mask + bias) v for one head, built on the fp32 tile.
 *
 * K^T and V are packed into panels; then a tile of queries at a time gets its whole score rows, their
 * softmax, and the product with V, divided by the sum at the end. Up to some 512 keys (14 x 512 x 4 = 28 KB)
 * the scores never leave L1 and beyond that L2, so that rescaling as in online softmax would only add work.
 * Weight j goes to lane j % 16 of the sum and the product runs over keys in order: appended keys of weight 0
 * change no bit.
 *
 * A few queries, as in decoding, do not pay for panels: there K and V are read once, where they lie, K in square
 * blocks transposed in registers. Each score and output is the same chain of multiply-adds: the same bits.
 *
 * workspace: K panels | V panels | scores [TILE_ROWS][keys rounded up to TILE_COLS]; for a few queries the
 * scores alone */
#include "tile_f32.h"

enum { FEW = 4 }; /* queries; no tile has fewer rows, so that their workspace is a part of the other one */

static size_t workspace_bytes(int64_t queries, int64_t keys, int64_t head_dim, int64_t value_dim)
{
    const int64_t padded = round_up(keys, TILE_COLS);
    const int64_t panels = padded * head_dim + round_up(value_dim, TILE_COLS) * keys;
    const int64_t count = queries <= FEW ? FEW * padded : panels + TILE_ROWS * padded;
    return (size_t)round_up(count * (int64_t)sizeof(float), CACHE_LINE);
}

static void pack_keys(const sdx_attention_args *g, float *panels)
{
    for (int64_t j = 0; j < g->keys; j += TILE_COLS) {
        const int64_t cols = g->keys - j < TILE_COLS ? g->keys - j : TILE_COLS;
        tile_pack_columns(g->head_dim, cols, (const char *)(g->k + j * g->ldk), g->ldk,
                          panels + j * g->head_dim);
    }
}

static void pack_values(const sdx_attention_args *g, float *panels)
{
    for (int64_t j = 0; j < g->value_dim; j += TILE_COLS) {
        const int64_t cols = g->value_dim - j < TILE_COLS ? g->value_dim - j : TILE_COLS;
        tile_pack_rows(g->keys, cols, (const char *)(g->v + j), g->ldv, panels + j * g->keys);
    }
}

/* s = s * scale + mask + bias over one vector. */
V_INLINE vf score_part(const float *s, float scale, const float *mask, const float *bias, int64_t j, int lanes)
{
    vf x = v_load_n(s + j, lanes);
    x = mask ? v_fma(x, v_set1(scale), v_load_n(mask + j, lanes)) : v_mul(x, v_set1(scale));
    return bias ? v_add(x, v_load_n(bias + j, lanes)) : x;
}

/* Finishes n scores in place; returns their maximum, NaN aside. */
static float score_row(int64_t n, float scale, const float *mask, const float *bias, float *s)
{
    vf max = v_set1(-INFINITY);
    int64_t j = 0;
    for (; j + VLEN <= n; j += VLEN) {
        vf x = score_part(s, scale, mask, bias, j, VLEN);
        v_store(s + j, x);
        max = v_max(x, max);
    }
    if (j < n) {
        const int lanes = (int)(n - j);
        vf x = score_part(s, scale, mask, bias, j, lanes);
        v_store_n(s + j, x, lanes);
        max = v_max(v_select(v_first(lanes), x, max), max);
    }
    return v_reduce_max(max);
}

/* s = e^(s - max) for the n visible scores, 0 for the rest of the row up to keys; returns the sum. */
static float weight_row(int64_t n, int64_t keys, float max, float *s)
{
    enum { PARTS = V_PARTS(16) };
    const vf mv = v_set1(max);
    vf sum[PARTS];
    int64_t j = 0;
    v_fill(PARTS, v_zero(), sum);
    for (; j + PARTS * VLEN <= n; j += PARTS * VLEN) {
        V_UNROLL
        for (int u = 0; u < PARTS; u++) {
            vf e = v_exp(v_sub(v_load(s + j + u * VLEN), mv));
            v_store(s + j + u * VLEN, e);
            sum[u] = v_add(sum[u], e);
        }
    }
    for (int u = 0; j < n; u++, j += VLEN) {
        const int lanes = v_lanes(j, n);
        vf e = v_select(v_first(lanes), v_exp(v_sub(v_load_n(s + j, lanes), mv)), v_zero());
        v_store_n(s + j, e, lanes);
        sum[u] = v_add(sum[u], e);
    }
    for (j = n; j < keys; j++) s[j] = 0.0f;
    return v_fold_add(PARTS, sum);
}

/* The keys query i may see: all, or those up to the diagonal that ends in the last corner. */
static int64_t visible_keys(const sdx_attention_args *g, int64_t i)
{
    if (!g->causal) return g->keys;
    const int64_t n = i + g->keys - g->queries + 1;
    return n < 0 ? 0 : n > g->keys ? g->keys : n;
}

/* scores[rows, ld] = q k^T for queries [i, i + rows). */
static void score(const sdx_attention_args *g, int64_t i, int rows, const float *panels, float *scores,
                  int64_t ld)
{
    const int64_t size = g->head_dim * TILE_COLS;
    for (int64_t j = 0; j < g->keys; j += TILE_COLS) {
        const float *panel = panels + j * g->head_dim;
        tile_table[rows](g->head_dim, g->q + i * g->ldq, g->ldq, panel, (const char *)(panel + size), 0,
                         scores + j, ld);
    }
}

/* Scores to weights for queries [i, i + rows), in place, and 1/sum of each. */
static void weigh(const sdx_attention_args *g, int64_t i, int rows, float *scores, int64_t ld, float *inverse)
{
    for (int r = 0; r < rows; r++) {
        const int64_t n = visible_keys(g, i + r);
        const float *mask = g->mask ? g->mask + (i + r) * g->ldmask : NULL;
        const float *bias = g->bias ? g->bias + (i + r) * g->ldbias : NULL;
        float *s = scores + r * ld;
        const float max = score_row(n, g->scale, mask, bias, s);
        const bool blind = max == -INFINITY; /* no key to see: weights and sum are 0, and so is the output */
        const float sum = weight_row(n, g->keys, blind ? 0.0f : max, s);
        inverse[r] = sum == 0.0f ? 0.0f : 1.0f / sum;
    }
}

/* out[rows, value_dim] = scores * V / sum */
static void mix(const sdx_attention_args *g, int64_t i, int rows, const float *scores, int64_t ld,
                const float *panels, const float *inverse)
{
    _Alignas(64) float tile[TILE_ROWS * TILE_COLS];
    for (int64_t j = 0; j < g->value_dim; j += TILE_COLS) {
        const float *panel = panels + j * g->keys;
        const int64_t cols = g->value_dim - j < TILE_COLS ? g->value_dim - j : TILE_COLS;
        tile_table[rows](g->keys, scores, ld, panel, (const char *)(panel + g->keys * TILE_COLS), 0, tile,
                         TILE_COLS);
        for (int r = 0; r < rows; r++)
            for (int64_t c = 0; c < cols; c += VLEN) {
                vf x = v_mul(v_load(tile + r * TILE_COLS + c), v_set1(inverse[r]));
                v_store_n(g->out + (i + r) * g->ldout + j + c, x, v_lanes(c, cols));
            }
    }
}

static void run_panels(const sdx_attention_args *g)
{
    const int64_t padded = round_up(g->keys, TILE_COLS), tiles = (g->queries + TILE_ROWS - 1) / TILE_ROWS;
    float *key_panels = g->workspace, *value_panels = key_panels + padded * g->head_dim;
    float *scores = value_panels + round_up(g->value_dim, TILE_COLS) * g->keys, inverse[TILE_ROWS];

    pack_keys(g, key_panels);
    pack_values(g, value_panels);
    for (int64_t t = 0, i = 0; t < tiles; t++) {
        const int rows = tile_height(g->queries, tiles, t);
        score(g, i, rows, key_panels, scores, padded);
        weigh(g, i, rows, scores, padded, inverse);
        mix(g, i, rows, scores, padded, value_panels, inverse);
        i += rows;
    }
}

/* ---- a few queries ------------------------------------------------------------------------------- */
/* acc[r] += q[r, 0..depth) k[0..keys, 0..depth)^T, lane j for key j. */
V_INLINE void score_block(const int rows, const int keys, const int depth, const float *q, int64_t ldq,
                          const float *k, int64_t ldk, vf *acc)
{
    vf block[VLEN];
    V_UNROLL
    for (int i = 0; i < VLEN; i++)
        block[i] = i >= keys ? v_zero() : depth == VLEN ? v_load(k + i * ldk) : v_load_n(k + i * ldk, depth);
    v_transpose(block);
    V_UNROLL
    for (int p = 0; p < depth; p++) {
        V_UNROLL
        for (int r = 0; r < rows; r++) acc[r] = v_fma(v_set1(q[r * ldq + p]), block[p], acc[r]);
    }
}

V_INLINE void score_few(const int rows, const sdx_attention_args *g, float *scores, int64_t ld)
{
    for (int64_t j = 0; j < g->keys; j += VLEN) {
        const int keys = v_lanes(j, g->keys);
        const float *k = g->k + j * g->ldk;
        int64_t p = 0;
        vf acc[FEW];
        v_fill(rows, v_zero(), acc);
        for (; keys == VLEN && p + VLEN <= g->head_dim; p += VLEN)
            score_block(rows, VLEN, VLEN, g->q + p, g->ldq, k + p, g->ldk, acc);
        for (; p < g->head_dim; p += VLEN)
            score_block(rows, keys, v_lanes(p, g->head_dim), g->q + p, g->ldq, k + p, g->ldk, acc);
        V_UNROLL
        for (int r = 0; r < rows; r++) v_store(scores + r * ld + j, acc[r]);
    }
}

/* Columns [c, c + vecs * VLEN) of out, the last vector having `lanes` of them. */
V_INLINE void mix_columns(const int rows, const int vecs, int lanes, const sdx_attention_args *g, int64_t c,
                          const float *scores, int64_t ld, const float *inverse)
{
    vf acc[FEW][4];
    V_UNROLL
    for (int r = 0; r < rows; r++) v_fill(vecs, v_zero(), acc[r]);
    for (int64_t j = 0; j < g->keys; j++) {
        const float *v = g->v + j * g->ldv + c;
        V_UNROLL
        for (int u = 0; u < vecs; u++) {
            const vf x = vecs > 1 ? v_load(v + u * VLEN) : v_load_n(v, lanes);
            V_UNROLL
            for (int r = 0; r < rows; r++) acc[r][u] = v_fma(v_set1(scores[r * ld + j]), x, acc[r][u]);
        }
    }
    V_UNROLL
    for (int r = 0; r < rows; r++) {
        float *out = g->out + r * g->ldout + c;
        V_UNROLL
        for (int u = 0; u < vecs; u++)
            v_store_n(out + u * VLEN, v_mul(acc[r][u], v_set1(inverse[r])), vecs > 1 ? VLEN : lanes);
    }
}

/* Inlined per count of queries, so that sums and weights stay in registers. */
V_INLINE void run_few(const int rows, const sdx_attention_args *g)
{
    const int vecs = rows > 2 ? 2 : 4; /* at most 8 accumulators, of AVX2's 16 registers */
    const int64_t ld = round_up(g->keys, TILE_COLS);
    float *scores = g->workspace, inverse[FEW];
    int64_t c = 0;

    score_few(rows, g, scores, ld);
    weigh(g, 0, rows, scores, ld, inverse);
    for (; c + vecs * VLEN <= g->value_dim; c += vecs * VLEN)
        mix_columns(rows, vecs, VLEN, g, c, scores, ld, inverse);
    for (; c < g->value_dim; c += VLEN)
        mix_columns(rows, 1, v_lanes(c, g->value_dim), g, c, scores, ld, inverse);
}

static void run_f32(const sdx_attention_args *g)
{
    switch (g->queries) {
    case 0: break;
    case 1: run_few(1, g); break;
    case 2: run_few(2, g); break;
    case 3: run_few(3, g); break;
    case FEW: run_few(FEW, g); break;
    default: run_panels(g);
    }
}

KERNEL_INIT(attention)
{
    table->attention = (sdx_attention_kernels){.workspace_bytes = workspace_bytes, .run_f32 = run_f32};
}
