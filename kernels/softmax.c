/* softmax.c: e^(x - max) / sum over a row. Vector i adds into accumulator i % 2, whatever n is, so that
 * appended -inf change no bit. */
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

/* y = e^(x - max) in the first `lanes` lanes, 0 in the others. */
V_INLINE vf exp_part(const float *x, vf max, int lanes, float *y)
{
    vf e = v_select(v_first(lanes), v_exp(v_sub(v_load_n(x, lanes), max)), v_zero());
    v_store_n(y, e, lanes);
    return e;
}

static float exp_sum(int64_t n, const float *x, float max, float *y)
{
    const vf mv = v_set1(max);
    vf s0 = v_zero(), s1 = v_zero();
    int64_t i = 0;
    for (; i + 2 * VLEN <= n; i += 2 * VLEN) {
        vf a = v_exp(v_sub(v_load(x + i), mv)), b = v_exp(v_sub(v_load(x + i + VLEN), mv));
        v_store(y + i, a);
        v_store(y + i + VLEN, b);
        s0 = v_add(s0, a);
        s1 = v_add(s1, b);
    }
    if (i < n) s0 = v_add(s0, exp_part(x + i, mv, v_lanes(i, n), y + i));
    i += VLEN;
    if (i < n) s1 = v_add(s1, exp_part(x + i, mv, v_lanes(i, n), y + i));
    return v_reduce_add(v_add(s0, s1));
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
