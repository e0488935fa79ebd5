/* eltwise.c: functions of two elements, either of which may be one value repeated, and half precision in. */
#include "../base/dtype.h"
#include "vec/vec.h"

V_INLINE vf operand(const float *p, int step, vf repeated, int64_t i, int lanes)
{
    return step ? v_load_n(p + i, lanes) : repeated;
}

V_INLINE vf load_first(int64_t n, const float *p) { return n > 0 ? v_set1(*p) : v_zero(); }

#define BINARY(name, expression)                                                                               \
    static void binary_##name(int64_t n, const float *a, int a_step, const float *b, int b_step, float *y)     \
    {                                                                                                          \
        const vf a0 = load_first(n, a), b0 = load_first(n, b);                                                 \
        for (int64_t i = 0; i < n; i += VLEN) {                                                                \
            const int lanes = v_lanes(i, n);                                                                   \
            const vf p = operand(a, a_step, a0, i, lanes), q = operand(b, b_step, b0, i, lanes);               \
            v_store_n(y + i, expression, lanes);                                                               \
        }                                                                                                      \
    }

/* v_max(p, q) keeps a NaN of q; ONNX and NumPy want that of p too. */
BINARY(add, v_add(p, q))
BINARY(sub, v_sub(p, q))
BINARY(mul, v_mul(p, q))
BINARY(div, v_div(p, q))
BINARY(max, v_select(v_isnan(p), p, v_max(p, q)))
BINARY(min, v_select(v_isnan(p), p, v_min(p, q)))

static void f16_to_f32(int64_t n, const uint16_t *x, float *y)
{
    int64_t i = 0;
#ifdef V_F16
    for (; i + VLEN <= n; i += VLEN) v_store(y + i, v_load_f16(x + i));
#endif
    for (; i < n; i++) y[i] = sdx_f16_to_f32(x[i]);
}

KERNEL_INIT(eltwise)
{
    table->element.binary_f32[SDX_BINARY_ADD] = binary_add;
    table->element.binary_f32[SDX_BINARY_SUB] = binary_sub;
    table->element.binary_f32[SDX_BINARY_MUL] = binary_mul;
    table->element.binary_f32[SDX_BINARY_DIV] = binary_div;
    table->element.binary_f32[SDX_BINARY_MAX] = binary_max;
    table->element.binary_f32[SDX_BINARY_MIN] = binary_min;
    table->element.f16_to_f32 = f16_to_f32;
}
