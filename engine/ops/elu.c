/* elu.c: the activations that are one formula of x and up to two attributes, and the two that take a second
 * operand, PRelu and SwiGLU. A unit is its formula and the names and defaults of its attributes; one loop over
 * lanes serves all types, in double, so that float32 results are rounded once. The GELU family, which includes
 * Swish, has kernels and stands in activation.c.
 */
#include <math.h>
#include <string.h>

#include "compute.h"
#include "contents.h"
#include "lanes.h"

typedef struct unit {
    const char *op;
    double (*f)(double x, double a, double b);
    const char *name[2]; /* attributes a and b */
    double missing[2];
    bool integers; /* takes them too */
} unit;

static double leaky(double x, double a, double b)
{
    return (void)b, x < 0 ? a * x : x;
}
static double elu(double x, double a, double b)
{
    return (void)b, x < 0 ? a * expm1(x) : x;
}
static double selu(double x, double a, double gamma)
{
    return gamma * (x <= 0 ? a * expm1(x) : x);
}
static double celu(double x, double a, double b)
{
    return (void)b, x < 0 ? a * expm1(x / a) : x;
}
static double thresholded(double x, double a, double b)
{
    return (void)b, x > a ? x : x != x ? x : 0;
}
static double hard_sigmoid(double x, double a, double b)
{
    double y = a * x + b;
    return y < 0 ? 0 : y > 1 ? 1 : y;
}
static double hard_swish(double x, double a, double b)
{
    return x * hard_sigmoid(x, a, b);
}
/* log(1 + e^x) without overflow. */
static double softplus(double x, double a, double b)
{
    return (void)a, (void)b, fmax(x, 0) + log1p(exp(-fabs(x)));
}
static double softsign(double x, double a, double b)
{
    return (void)a, (void)b, x / (1 + fabs(x));
}
static double mish(double x, double a, double b)
{
    return x * tanh(softplus(x, a, b));
}
static double shrink(double x, double lambd, double bias)
{
    return x < -lambd ? x + bias : x > lambd ? x - bias : 0;
}

static const unit units[] = {
    {"LeakyRelu", leaky, {"alpha"}, {0.01f}, false},
    {"Elu", elu, {"alpha"}, {1}, false},
    {"Selu", selu, {"alpha", "gamma"}, {1.67326319217681884765625, 1.05070102214813232421875}, false},
    {"Celu", celu, {"alpha"}, {1}, false},
    {"ThresholdedRelu", thresholded, {"alpha"}, {1}, false},
    {"HardSigmoid", hard_sigmoid, {"alpha", "beta"}, {0.2f, 0.5}, false},
    {"HardSwish", hard_swish, {NULL}, {1.0 / 6, 0.5}, false},
    {"Softplus", softplus, {NULL}, {0}, false},
    {"Softsign", softsign, {NULL}, {0}, false},
    {"Mish", mish, {NULL}, {0}, false},
    {"Shrink", shrink, {"lambd", "bias"}, {0.5, 0}, true},
};

static const unit *find_unit(const sdx_node *node)
{
    const unit *u = units;
    while (strcmp(u->op, node->op_type)) u++; /* the rows below name no other */
    return u;
}

static sdx_status infer_unit(sdx_infer *infer)
{
    sdx_dtype t = infer->in[0].dtype;
    if (!find_unit(infer->node)->integers || !sdx_dtype_is_integer(t))
        TRY(sdx_want_dtype(infer, 0, "the input", SDX_SET_FLOAT));
    return sdx_infer_same(infer);
}

typedef struct unit_call {
    const unit *unit;
    double parameter[2];
    const sdx_tensor *x, *y;
} unit_call;

static void unit_range(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const unit_call *c = context;
    sdx_lane x[SDX_LANES];
    sdx_dtype dtype = c->x->dtype;
    for (int64_t at = begin; at < end; at += SDX_LANES) {
        int64_t n = end - at < SDX_LANES ? end - at : SDX_LANES;
        sdx_lanes_load(dtype, c->x->data, at, 1, n, x);
        sdx_lanes_convert(sdx_dtype_lane(dtype), SDX_F64, n, x);
        for (int64_t i = 0; i < n; i++) x[i].f = c->unit->f(x[i].f, c->parameter[0], c->parameter[1]);
        sdx_lanes_convert(SDX_LANE_F, dtype, n, x);
        sdx_lanes_store(dtype, x, n, c->y->data, at);
    }
}

static sdx_status run_unit(sdx_run *run)
{
    unit_call c = {.unit = find_unit(run->node), .x = &run->in[0], .y = &run->out[0]};
    for (int i = 0; i < 2; i++) {
        const sdx_attr *a = c.unit->name[i] ? sdx_node_attr(run->node, c.unit->name[i]) : NULL;
        c.parameter[i] = a ? (double)a->f : c.unit->missing[i];
    }
    sdx_parallel_for(run->threads, sdx_tensor_count(c.x), SDX_GRAIN, unit_range, &c);
    return SDX_OK;
}

/* ---- PRelu: a slope per element, broadcast to x ------------------------------------------------------ */

static sdx_status infer_prelu(sdx_infer *infer)
{
    sdx_dtype t = infer->in[0].dtype;
    if (!sdx_dtype_is_integer(t)) TRY(sdx_want_dtype(infer, 0, "the input", SDX_SET_FLOAT));
    TRY(sdx_want_same_dtype(infer, 1, "the slope", 0, "the input"));
    sdx_shape both;
    const sdx_shape *x = &infer->in[0].shape;
    TRY(sdx_shape_broadcast(x, &infer->in[1].shape, &both, infer->err));
    if (sdx_shape_is_known(x) && sdx_shape_is_known(&both) && !sdx_shape_same(x, &both))
        return sdx_fail(infer->err, SDX_ERR_USAGE, "the slope must broadcast to the input's shape");
    return sdx_infer_same(infer);
}

typedef struct prelu_call {
    sdx_walk walk;
    const sdx_tensor *x, *slope, *y;
} prelu_call;

static void prelu_row(void *context, int64_t at, int64_t n, const int64_t *offset)
{
    const prelu_call *c = context;
    sdx_lane x[SDX_LANES], slope[SDX_LANES];
    sdx_lane_kind kind = sdx_dtype_lane(c->x->dtype);
    for (int64_t i = 0; i < n; i += SDX_LANES) {
        int64_t part = n - i < SDX_LANES ? n - i : SDX_LANES;
        sdx_lanes_load(c->x->dtype, c->x->data, at + i, 1, part, x);
        sdx_lanes_load(c->x->dtype, c->slope->data, offset[1] + i * c->walk.step[1], c->walk.step[1], part,
                       slope);
        for (int64_t k = 0; k < part; k++) {
            if (kind == SDX_LANE_F)
                x[k].f = x[k].f < 0 ? x[k].f * slope[k].f : x[k].f;
            else if (kind == SDX_LANE_I && x[k].i < 0)
                x[k].u *= slope[k].u; /* wraps; uint64 is never below 0 */
        }
        sdx_lanes_store(c->y->dtype, x, part, c->y->data, at + i);
    }
}

static sdx_status run_prelu(sdx_run *run)
{
    prelu_call c = {.x = &run->in[0], .slope = &run->in[1], .y = &run->out[0]};
    sdx_shape operand[2] = {sdx_run_shape(run, 0), sdx_run_shape(run, 1)};
    sdx_walk_init(&c.walk, &operand[0], 2, operand);
    sdx_walk_run(&c.walk, run->threads, prelu_row, &c);
    return SDX_OK;
}

/* ---- SwiGLU: a * sigmoid(alpha a) * b ---------------------------------------------------------------- */

static sdx_status infer_swiglu(sdx_infer *infer)
{
    TRY(sdx_want_dtype(infer, 0, "the gate", SDX_SET_FLOAT));
    TRY(sdx_want_same_dtype(infer, 1, "the value", 0, "the gate"));
    const sdx_shape *a = &infer->in[0].shape, *b = &infer->in[1].shape;
    if (sdx_shape_is_known(a) && sdx_shape_is_known(b) && !sdx_shape_same(a, b))
        return sdx_fail(infer->err, SDX_ERR_USAGE, "gate and value must have one shape");
    return sdx_infer_same(infer);
}

typedef struct swiglu_call {
    const sdx_run *run;
    float alpha;
} swiglu_call;

enum { CHUNK = 512 };

static void swiglu_f32(const swiglu_call *c, int64_t n, const float *a, const float *b, float *y)
{
    const sdx_element_kernels *k = &c->run->kernels->element;
    float gate[CHUNK];
    k->binary_f32[SDX_BINARY_MUL](n, a, 1, &c->alpha, 0, gate);
    k->unary_f32[SDX_UNARY_SIGMOID](n, gate, gate);
    k->binary_f32[SDX_BINARY_MUL](n, a, 1, gate, 1, gate);
    k->binary_f32[SDX_BINARY_MUL](n, gate, 1, b, 1, y);
}

static void swiglu_f64(const swiglu_call *c, int64_t n, const double *a, const double *b, double *y)
{
    for (int64_t i = 0; i < n; i++) y[i] = a[i] / (1 + exp(-(double)c->alpha * a[i])) * b[i];
}

/* Chunks [begin, end). */
static void swiglu_range(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const swiglu_call *c = context;
    const sdx_tensor *a = &c->run->in[0], *b = &c->run->in[1];
    void *y = c->run->out[0].data;
    int64_t count = sdx_tensor_count(a);
    float wide[2][CHUNK];
    for (int64_t at = begin * CHUNK; at < count && at < end * CHUNK; at += CHUNK) {
        int64_t n = count - at < CHUNK ? count - at : CHUNK;
        if (a->dtype == SDX_F32) {
            swiglu_f32(c, n, (const float *)a->data + at, (const float *)b->data + at, (float *)y + at);
        } else if (a->dtype == SDX_F64) {
            swiglu_f64(c, n, (const double *)a->data + at, (const double *)b->data + at, (double *)y + at);
        } else {
            sdx_floats_load(c->run->kernels, a->dtype, a->data, at, n, wide[0]);
            sdx_floats_load(c->run->kernels, a->dtype, b->data, at, n, wide[1]);
            swiglu_f32(c, n, wide[0], wide[1], wide[0]);
            sdx_floats_store(a->dtype, wide[0], n, y, at);
        }
    }
}

static sdx_status run_swiglu(sdx_run *run)
{
    swiglu_call c = {run, sdx_node_float(run->node, "alpha", 1)};
    int64_t chunks = (sdx_tensor_count(&run->in[0]) + CHUNK - 1) / CHUNK;
    sdx_parallel_for(run->threads, chunks, SDX_GRAIN / CHUNK, swiglu_range, &c);
    return SDX_OK;
}

#define UNIT(name, since)                                                                                      \
    {                                                                                                          \
        "", name, since, 0, 1, 1, 1, 1, SDX_OP_INPLACE, infer_unit, NULL, NULL, run_unit                       \
    }
static const sdx_op_def rows[] = {
    UNIT("LeakyRelu", 1),
    UNIT("Elu", 1),
    UNIT("Selu", 1),
    UNIT("Celu", 12),
    UNIT("ThresholdedRelu", 10),
    UNIT("HardSigmoid", 1),
    UNIT("HardSwish", 14),
    UNIT("Softplus", 1),
    UNIT("Softsign", 1),
    UNIT("Mish", 18),
    UNIT("Shrink", 9),
    {"", "PRelu", 7, 0, 2, 2, 1, 1, SDX_OP_INPLACE, infer_prelu, NULL, NULL, run_prelu},
    {"", "SwiGLU", 28, 0, 2, 2, 1, 1, SDX_OP_INPLACE, infer_swiglu, NULL, NULL, run_swiglu},
};

SDX_OP_TABLE(elu);
