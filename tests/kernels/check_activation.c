/* check_activation.c: elementary functions and activations against libm in double, over their whole range.
 * Bounds are ulps of the result plus an absolute term where the formula subtracts. */
#include "kcheck.h"

static double d_neg(double x) { return -x; }
static double d_relu(double x) { return isnan(x) ? x : x > 0.0 ? x : 0.0; }
static double d_gelu(double x) { return 0.5 * x * erfc(-x * 0.70710678118654752440); }
static double d_sigmoid(double x) { return 1.0 / (1.0 + exp(-x)); }
static double d_reciprocal(double x) { return 1.0 / x; }

static double d_gelu_tanh(double x)
{
    return x / (1.0 + exp(-2.0 * 0.79788456080286535588 * (x + 0.044715 * x * x * x)));
}

typedef struct function {
    const char *name;
    double (*exact)(double);
    float low, high;
    double ulps, absolute;
} function;

static const function functions[SDX_UNARY_COUNT] = {
    [SDX_UNARY_EXP] = {"exp", exp, -110.0f, 95.0f, 1.5, 0},
    [SDX_UNARY_LOG] = {"log", log, 0.0f, 5.0f, 2.0, 0},
    [SDX_UNARY_LOG1P] = {"log1p", log1p, -1.0f, 8.0f, 3.0, 0},
    [SDX_UNARY_SQRT] = {"sqrt", sqrt, 0.0f, 100.0f, 0.51, 0},
    [SDX_UNARY_ERF] = {"erf", erf, -5.0f, 5.0f, 2.5, 0},
    [SDX_UNARY_TANH] = {"tanh", tanh, -10.0f, 10.0f, 2.5, 0},
    [SDX_UNARY_SIGMOID] = {"sigmoid", d_sigmoid, -90.0f, 90.0f, 3.0, 0},
    [SDX_UNARY_RELU] = {"relu", d_relu, -3.0f, 3.0f, 0, 0},
    [SDX_UNARY_GELU] = {"gelu", d_gelu, -8.0f, 8.0f, 1.5, 6e-8},
    [SDX_UNARY_GELU_TANH] = {"gelu_tanh", d_gelu_tanh, -8.0f, 8.0f, 3.0, 1e-7},
    [SDX_UNARY_NEG] = {"neg", d_neg, -3.0f, 3.0f, 0, 0},
    [SDX_UNARY_ABS] = {"abs", fabs, -3.0f, 3.0f, 0, 0},
    [SDX_UNARY_RECIPROCAL] = {"reciprocal", d_reciprocal, -9.0f, 9.0f, 0.51, 0},
};

static double ulp(double x)
{
    int e;
    frexp(x, &e);
    return ldexp(1.0, (e < -125 ? -125 : e) - 24);
}

/* Half of the points even over the range, the others even in magnitude down to the denormals. */
static float sample(const function *f)
{
    const float x = random_float(f->low, f->high);
    return random_int(0, 1) ? x : x * ldexpf(1.0f, (int)random_int(-130, 0));
}

static void unary_check(const context *c, int which)
{
    enum { COUNT = 20001 };
    const function *f = &functions[which];
    float *x = GUARDED(float, COUNT), *y = GUARDED(float, COUNT);
    double worst = 0.0, worst_absolute = 0.0;
    for (int i = 0; i < COUNT; i++) x[i] = sample(f);
    c->kernels->element.unary_f32[which](COUNT, x, y);
    for (int i = 0; i < COUNT; i++) {
        const double want = f->exact((double)x[i]), unit = ulp(want);
        /* reciprocals of large numbers, as in sigmoid(-90), may flush: 1/inf */
        const double flush = which == SDX_UNARY_SIGMOID ? FLT_MIN : 0.0;
        if (!expect_near(y[i], want, f->ulps * unit + f->absolute + flush, f->name, i)) {
            printf("  x = %.9g\n", (double)x[i]);
            break;
        }
        if (isfinite(y[i]) && fabs(want) < FLT_MAX) {
            const double error = fabs((double)y[i] - want);
            worst_absolute = fmax(worst_absolute, error);
            if (fabs(want) > FLT_MIN) worst = fmax(worst, error / unit);
        }
    }
    char text[64];
    snprintf(text, sizeof text, "%s ulp", f->name);
    note_error(text, worst);
    snprintf(text, sizeof text, "%s abs", f->name);
    note_error(text, worst_absolute);
}

static void unary_tails(const context *c, int which)
{
    for (int64_t n = 0; n < 70; n++) {
        float *x = GUARDED(float, n), *y = GUARDED(float, n), *one = GUARDED(float, 1);
        random_fill(n, fmaxf(functions[which].low, -4.0f), 4.0f, x);
        c->kernels->element.unary_f32[which](n, x, y);
        for (int64_t i = 0; i < n; i++) { /* the same bits at any place */
            c->kernels->element.unary_f32[which](1, x + i, one);
            expect_bytes(one, y + i, sizeof(float), functions[which].name);
        }
        c->kernels->element.unary_f32[which](n, x, x);
        expect_bytes(x, y, (size_t)n * sizeof(float), "in place");
        guarded_reset();
    }
}

static void unary(const context *c)
{
    for (int which = 0; which < SDX_UNARY_COUNT; which++) {
        unary_check(c, which);
        unary_tails(c, which);
    }
}

static void specials(const context *c)
{
    const float x[8] = {INFINITY, -INFINITY, NAN, 0.0f, -0.0f, 1e-42f, FLT_MAX, -FLT_MAX};
    for (int which = 0; which < SDX_UNARY_COUNT; which++) {
        const function *f = &functions[which];
        float y[8];
        c->kernels->element.unary_f32[which](8, x, y);
        for (int i = 0; i < 8; i++) {
            double want = f->exact((double)x[i]);
            expect_scalar(y[i], f->name, i);
            /* the limit, or the NaN of -inf * 0: both are fine */
            if ((which == SDX_UNARY_GELU || which == SDX_UNARY_GELU_TANH) && x[i] == -INFINITY) continue;
            if (which == SDX_UNARY_GELU_TANH && fabsf(x[i]) == FLT_MAX) want = x[i] > 0 ? (double)x[i] : 0.0;
            expect_near(y[i], want, 2 * ulp(want) + FLT_MIN * 1e-6, f->name, i);
        }
    }
}

double activation_value(sdx_activation activation, double x)
{
    switch (activation) {
    case SDX_ACT_RELU: return d_relu(x);
    case SDX_ACT_GELU: return d_gelu(x);
    case SDX_ACT_TANH: return tanh(x);
    case SDX_ACT_NONE: break;
    }
    return x;
}

/* No activation is steeper than GELU's 1.13. */
double activation_bound(double y, double in) { return 1.13 * in + 4 * ulp(y) + 6e-8; }

static void bias_act(const context *c)
{
    for (int round = 0; round < 80; round++) {
        const int64_t n = random_size(200);
        const sdx_activation act = (sdx_activation)(round % 4);
        float *x = GUARDED(float, n), *b = GUARDED(float, n), *y = GUARDED(float, n);
        random_fill(n, -5.0f, 5.0f, x);
        random_fill(n, -1.0f, 1.0f, b);
        const float *bias = round & 4 ? b : NULL;
        c->kernels->element.bias_act_f32(n, x, bias, act, y);
        for (int64_t i = 0; i < n; i++) {
            const double in = (double)x[i] + (bias ? (double)b[i] : 0.0), want = activation_value(act, in);
            expect_near(y[i], want, activation_bound(want, UNIT * fabs(in)), "bias_act", i);
        }
        guarded_reset();
    }
}

const check activation_checks[] = {
    {"activation unary", unary}, {"activation specials", specials}, {"activation bias_act", bias_act}, {0}};
