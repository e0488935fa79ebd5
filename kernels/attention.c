/* attention.c: softmax(scale * q k^T + mask + bias) v for one head, built on the fp32 tile.
 *
 * K^T and V are packed into panels; then a tile of queries at a time gets its whole score rows, their
 * softmax, and the product with V, divided by the sum at the end. Up to some 512 keys (14 x 512 x 4 = 28 KB)
 * the scores never leave L1 and beyond that L2, so that rescaling as in online softmax would only add work.
 * Weight j goes to lane j % 16 of the sum and the product runs over keys in order: appended keys of weight 0
 * change no bit.
 *
 * workspace: K panels | V panels | scores [TILE_ROWS][keys rounded up to TILE_COLS] */
#include "tile_f32.h"

static size_t workspace_bytes(int64_t queries, int64_t keys, int64_t head_dim, int64_t value_dim)
{
    (void)queries;
    const int64_t padded = round_up(keys, TILE_COLS);
    const int64_t count = padded * head_dim + round_up(value_dim, TILE_COLS) * keys + TILE_ROWS * padded;
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

/* Weights of queries [i, i + rows): scores[rows, ld], and 1/sum of each. */
static void weigh(const sdx_attention_args *g, int64_t i, int rows, const float *panels, float *scores,
                  int64_t ld, float *inverse)
{
    const int64_t size = g->head_dim * TILE_COLS;
    for (int64_t j = 0; j < g->keys; j += TILE_COLS) {
        const float *panel = panels + j * g->head_dim;
        tile_table[rows](g->head_dim, g->q + i * g->ldq, g->ldq, panel, (const char *)(panel + size), 0,
                         scores + j, ld);
    }
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

static void run_f32(const sdx_attention_args *g)
{
    const int64_t padded = round_up(g->keys, TILE_COLS), tiles = (g->queries + TILE_ROWS - 1) / TILE_ROWS;
    float *key_panels = g->workspace, *value_panels = key_panels + padded * g->head_dim;
    float *scores = value_panels + round_up(g->value_dim, TILE_COLS) * g->keys, inverse[TILE_ROWS];

    pack_keys(g, key_panels);
    pack_values(g, value_panels);
    for (int64_t t = 0, i = 0; t < tiles; t++) {
        const int rows = tile_height(g->queries, tiles, t);
        weigh(g, i, rows, key_panels, scores, padded, inverse);
        mix(g, i, rows, scores, padded, value_panels, inverse);
        i += rows;
    }
}

KERNEL_INIT(attention)
{
    table->attention = (sdx_attention_kernels){.workspace_bytes = workspace_bytes, .run_f32 = run_f32};
}
