/* softmax.c: e^(x - max) / sum over a row. Element i adds into lane i % 16, whatever n is, so that appended
 * -inf change no bit. The order in which the maximum is found shows only in the sign of a zero and in whether
 * a NaN survives; neither changes a weight, for one NaN makes the whole row NaN by its sum. */
#include "vec/vec.h"

static float row_max(int64_t n, const float *x)
{
    vf m0 = v_set1(-INFINITY), m1 = m0;
    int64_t i = 0;
    for (; i + 2 * VLEN <= n; i += 2 * VLEN) {
        m0 = v_max(m0, v_load(x + i));
        m1 = v_max(m1, v_load(x + i + VLEN));
    }
    for (; i < n; i += VLEN) {
        const int lanes = v_lanes(i, n);
        m0 = v_max(m0, v_select(v_first(lanes), v_load_n(x + i, lanes), m0));
    }
    return v_reduce_max(v_max(m0, m1));
}

static float exp_sum(int64_t n, const float *x, float max, float *y)
{
    enum { PARTS = V_PARTS(16) };
    const vf mv = v_set1(max);
    vf s[PARTS];
    int64_t i = 0;
    v_fill(PARTS, v_zero(), s);
    for (; i + PARTS * VLEN <= n; i += PARTS * VLEN) {
        V_UNROLL
        for (int j = 0; j < PARTS; j++) {
            vf e = v_exp(v_sub(v_load(x + i + j * VLEN), mv));
            v_store(y + i + j * VLEN, e);
            s[j] = v_add(s[j], e);
        }
    }
    for (int j = 0; i < n; j++, i += VLEN) {
        const int lanes = v_lanes(i, n);
        vf e = v_select(v_first(lanes), v_exp(v_sub(v_load_n(x + i, lanes), mv)), v_zero());
        v_store_n(y + i, e, lanes);
        s[j] = v_add(s[j], e);
    }
    return v_fold_add(PARTS, s);
}

static void scale(int64_t n, float factor, float *y)
{
    const vf f = v_set1(factor);
    int64_t i = 0;
    for (; i + VLEN <= n; i += VLEN) v_store(y + i, v_mul(v_load(y + i), f));
    if (i < n) v_store_n(y + i, v_mul(v_load_n(y + i, (int)(n - i)), f), (int)(n - i));
}

static void softmax_f32(int64_t n, const float *x, float *y)
{
    const float max = row_max(n, x);
    scale(n, 1.0f / exp_sum(n, x, max, y), y);
}

KERNEL_INIT(softmax) { table->row.softmax_f32 = softmax_f32; }
