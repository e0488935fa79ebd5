/* reduce.c: sum and extremes of a row, and the running maximum over rows. */
#include "vec/vec.h"

static float sum_f32(int64_t n, const float *x)
{
    enum { PARTS = V_PARTS(64) };
    vf s[PARTS];
    int64_t i = 0;
    v_fill(PARTS, v_zero(), s);
    for (; i + PARTS * VLEN <= n; i += PARTS * VLEN) {
        V_UNROLL
        for (int j = 0; j < PARTS; j++) s[j] = v_add(s[j], v_load(x + i + j * VLEN));
    }
    V_UNROLL
    for (int j = 0; j < PARTS; j++, i += VLEN)
        if (i < n) s[j] = v_add(s[j], v_load_n(x + i, v_lanes(i, n)));
    return v_fold_add(PARTS, s);
}

/* Extremes need lanes too: of two zeros the first of its lane wins. */
enum { PARTS = V_PARTS(16) };

static float max_f32(int64_t n, const float *x)
{
    vf max[PARTS];
    vm nan = v_none();
    v_fill(PARTS, v_set1(-INFINITY), max);
    for (int64_t i = 0; i < n;) {
        V_UNROLL
        for (int j = 0; j < PARTS; j++, i += VLEN) {
            if (i >= n) continue;
            const int lanes = v_lanes(i, n);
            vf v = v_select(v_first(lanes), v_load_n(x + i, lanes), max[j]);
            nan = v_or(nan, v_isnan(v));
            max[j] = v_max(v, max[j]);
        }
    }
    const float m = v_fold_max(PARTS, max);
    return v_any(nan) ? NAN : m;
}

static void min_max_f32(int64_t n, const float *x, float *min, float *max)
{
    vf low[PARTS], high[PARTS];
    v_fill(PARTS, v_set1(INFINITY), low);
    v_fill(PARTS, v_set1(-INFINITY), high);
    for (int64_t i = 0; i < n;) {
        V_UNROLL
        for (int j = 0; j < PARTS; j++, i += VLEN) {
            if (i >= n) continue;
            const int lanes = v_lanes(i, n);
            const vm in = v_first(lanes);
            vf v = v_load_n(x + i, lanes);
            low[j] = v_min(v_select(in, v, low[j]), low[j]);
            high[j] = v_max(v_select(in, v, high[j]), high[j]);
        }
    }
    *min = v_fold_min(PARTS, low);
    *max = v_fold_max(PARTS, high);
}

static void max_rows_f32(int64_t n, const float *x, float *acc)
{
    for (int64_t i = 0; i < n; i += VLEN) {
        const int lanes = v_lanes(i, n);
        vf a = v_load_n(acc + i, lanes), v = v_load_n(x + i, lanes);
        v_store_n(acc + i, v_select(v_isnan(a), a, v_max(a, v)), lanes);
    }
}

KERNEL_INIT(reduce)
{
    table->reduce.sum_f32 = sum_f32;
    table->reduce.max_f32 = max_f32;
    table->reduce.min_max_f32 = min_max_f32;
    table->reduce.max_rows_f32 = max_rows_f32;
}
