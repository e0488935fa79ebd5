/* norm.c: layer norm and RMS norm of a row, with the sum x + skip + bias that transformers put in front of
 * them. Three passes over a row that stays in L1: the sum (kept in y), the variance about the true mean, the
 * result. */
#include "vec/vec.h"

/* y = x + skip + bias, and the same to `sum` when asked for; returns sum(y). */
V_INLINE vf add_part(const float *x, const float *skip, const float *bias, float *y, float *sum, int64_t i,
                     int lanes)
{
    vf s = v_load_n(x + i, lanes);
    if (skip) s = v_add(s, v_load_n(skip + i, lanes));
    if (bias) s = v_add(s, v_load_n(bias + i, lanes));
    v_store_n(y + i, s, lanes);
    if (sum) v_store_n(sum + i, s, lanes);
    return s;
}

static void add_rows(int64_t n, const float *x, const float *skip, const float *bias, float *y, float *sum)
{
    for (int64_t i = 0; i < n; i += VLEN) add_part(x, skip, bias, y, sum, i, v_lanes(i, n));
}

/* 64 sums side by side hide the latency of the adder and shorten the chains of roundings. */
enum { PARTS = V_PARTS(64) };

static float row_sum(int64_t n, const float *y)
{
    vf s[PARTS];
    int64_t i = 0;
    v_fill(PARTS, v_zero(), s);
    for (; i + PARTS * VLEN <= n; i += PARTS * VLEN) {
        V_UNROLL
        for (int j = 0; j < PARTS; j++) s[j] = v_add(s[j], v_load(y + i + j * VLEN));
    }
    V_UNROLL
    for (int j = 0; j < PARTS; j++, i += VLEN)
        if (i < n) s[j] = v_add(s[j], v_load_n(y + i, v_lanes(i, n)));
    return v_fold_add(PARTS, s);
}

/* sum((y - mean)^2) */
static float row_squares(int64_t n, const float *y, float mean)
{
    const vf mv = v_set1(mean);
    vf s[PARTS];
    int64_t i = 0;
    v_fill(PARTS, v_zero(), s);
    for (; i + PARTS * VLEN <= n; i += PARTS * VLEN) {
        V_UNROLL
        for (int j = 0; j < PARTS; j++) {
            vf d = v_sub(v_load(y + i + j * VLEN), mv);
            s[j] = v_fma(d, d, s[j]);
        }
    }
    V_UNROLL
    for (int j = 0; j < PARTS; j++, i += VLEN) {
        if (i >= n) continue;
        const int lanes = v_lanes(i, n);
        vf d = v_select(v_first(lanes), v_sub(v_load_n(y + i, lanes), mv), v_zero());
        s[j] = v_fma(d, d, s[j]);
    }
    return v_fold_add(PARTS, s);
}

/* y = (y - mean) * inv_std * gamma + beta */
static void finish(int64_t n, float mean, float inv_std, const float *gamma, const float *beta, float *y)
{
    const vf mv = v_set1(mean), rv = v_set1(inv_std);
    for (int64_t i = 0; i < n; i += VLEN) {
        const int lanes = v_lanes(i, n);
        vf z = v_mul(v_sub(v_load_n(y + i, lanes), mv), rv);
        vf b = beta ? v_load_n(beta + i, lanes) : v_zero();
        v_store_n(y + i, v_fma(z, v_load_n(gamma + i, lanes), b), lanes);
    }
}

static void layer_norm_f32(int64_t n, const float *x, const float *skip, const float *bias, const float *gamma,
                           const float *beta, float eps, float *y, float *sum, float *mean, float *inv_std)
{
    add_rows(n, x, skip, bias, y, sum);
    const float mu = row_sum(n, y) / (float)n;
    const float r = 1.0f / sqrtf(row_squares(n, y, mu) / (float)n + eps);
    finish(n, mu, r, gamma, beta, y);
    if (mean) *mean = mu;
    if (inv_std) *inv_std = r;
}

static void rms_norm_f32(int64_t n, const float *x, const float *skip, const float *bias, const float *gamma,
                         float eps, float *y, float *sum, float *inv_std)
{
    add_rows(n, x, skip, bias, y, sum);
    const float r = 1.0f / sqrtf(row_squares(n, y, 0.0f) / (float)n + eps);
    finish(n, 0.0f, r, gamma, NULL, y);
    if (inv_std) *inv_std = r;
}

KERNEL_INIT(norm)
{
    table->row.layer_norm_f32 = layer_norm_f32;
    table->row.rms_norm_f32 = rms_norm_f32;
}
