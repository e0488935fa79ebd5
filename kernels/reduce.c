/* reduce.c: sum and extremes of a row, and the running maximum over rows. */
#include "vec/vec.h"

static float sum_f32(int64_t n, const float *x)
{
    vf s[4] = {v_zero(), v_zero(), v_zero(), v_zero()};
    int64_t i = 0;
    for (; i + 4 * VLEN <= n; i += 4 * VLEN)
        for (int j = 0; j < 4; j++) s[j] = v_add(s[j], v_load(x + i + j * VLEN));
    for (; i < n; i += VLEN) s[0] = v_add(s[0], v_load_n(x + i, v_lanes(i, n)));
    return v_reduce_add(v_add(v_add(s[0], s[1]), v_add(s[2], s[3])));
}

static float max_f32(int64_t n, const float *x)
{
    vf max = v_set1(-INFINITY);
    vm nan = v_none();
    for (int64_t i = 0; i < n; i += VLEN) {
        const int lanes = v_lanes(i, n);
        vf v = v_select(v_first(lanes), v_load_n(x + i, lanes), max);
        nan = v_or(nan, v_isnan(v));
        max = v_max(v, max);
    }
    return v_any(nan) ? NAN : v_reduce_max(max);
}

static void min_max_f32(int64_t n, const float *x, float *min, float *max)
{
    vf low = v_set1(INFINITY), high = v_set1(-INFINITY);
    for (int64_t i = 0; i < n; i += VLEN) {
        const int lanes = v_lanes(i, n);
        const vm in = v_first(lanes);
        vf v = v_load_n(x + i, lanes);
        low = v_min(v_select(in, v, low), low);
        high = v_max(v_select(in, v, high), high);
    }
    *min = v_reduce_min(low);
    *max = v_reduce_max(high);
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
