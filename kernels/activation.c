/* activation.c: functions of one element, and bias + activation over a row. */
#include "vec/vec.h"

#define UNARY(name, expression)                                                                                \
    V_INLINE vf value_##name(vf x) { return expression; }                                                      \
    static void unary_##name(int64_t n, const float *x, float *y)                                              \
    {                                                                                                          \
        int64_t i = 0;                                                                                         \
        for (; i + VLEN <= n; i += VLEN) v_store(y + i, value_##name(v_load(x + i)));                          \
        if (i < n) v_store_n(y + i, value_##name(v_load_n(x + i, (int)(n - i))), (int)(n - i));                \
    }

UNARY(exp, v_exp(x))
UNARY(log, v_log(x))
UNARY(log1p, v_log1p(x))
UNARY(sqrt, v_sqrt(x))
UNARY(erf, v_erf(x))
UNARY(tanh, v_tanh(x))
UNARY(sigmoid, v_sigmoid(x))
UNARY(relu, v_relu(x))
UNARY(gelu, v_gelu(x))
UNARY(gelu_tanh, v_gelu_tanh(x))
UNARY(neg, v_neg(x))
UNARY(abs, v_abs(x))
UNARY(reciprocal, v_div(v_set1(1.0f), x))

#define BIAS_ACT(name, function)                                                                               \
    static void bias_##name(int64_t n, const float *x, const float *bias, float *y)                            \
    {                                                                                                          \
        for (int64_t i = 0; i < n; i += VLEN) {                                                                \
            const int lanes = v_lanes(i, n);                                                                   \
            vf b = bias ? v_load_n(bias + i, lanes) : v_zero();                                                \
            v_store_n(y + i, function(v_add(v_load_n(x + i, lanes), b)), lanes);                               \
        }                                                                                                      \
    }

V_INLINE vf same(vf x) { return x; }
BIAS_ACT(none, same)
BIAS_ACT(relu, v_relu)
BIAS_ACT(gelu, v_gelu)
BIAS_ACT(tanh, v_tanh)

static void bias_act_f32(int64_t n, const float *x, const float *bias, sdx_activation activation, float *y)
{
    switch (activation) {
    case SDX_ACT_NONE: bias_none(n, x, bias, y); break;
    case SDX_ACT_RELU: bias_relu(n, x, bias, y); break;
    case SDX_ACT_GELU: bias_gelu(n, x, bias, y); break;
    case SDX_ACT_TANH: bias_tanh(n, x, bias, y); break;
    }
}

KERNEL_INIT(activation)
{
    void (**f)(int64_t, const float *, float *) = table->element.unary_f32;
    f[SDX_UNARY_EXP] = unary_exp;
    f[SDX_UNARY_LOG] = unary_log;
    f[SDX_UNARY_LOG1P] = unary_log1p;
    f[SDX_UNARY_SQRT] = unary_sqrt;
    f[SDX_UNARY_ERF] = unary_erf;
    f[SDX_UNARY_TANH] = unary_tanh;
    f[SDX_UNARY_SIGMOID] = unary_sigmoid;
    f[SDX_UNARY_RELU] = unary_relu;
    f[SDX_UNARY_GELU] = unary_gelu;
    f[SDX_UNARY_GELU_TANH] = unary_gelu_tanh;
    f[SDX_UNARY_NEG] = unary_neg;
    f[SDX_UNARY_ABS] = unary_abs;
    f[SDX_UNARY_RECIPROCAL] = unary_reciprocal;
    table->element.bias_act_f32 = bias_act_f32;
}
