/* random.c: operators that draw random numbers, and Dropout, which does in training. One generator, splitmix64
 * (G. L. Steele et al., "Fast splittable pseudorandom number generators", 2014), fills a tensor in order. It
 * starts from the attribute seed, so that every run draws the same numbers, or without one from the clock.
 */
#include <math.h>
#include <string.h>
#include <time.h>

#include "compute.h"
#include "contents.h"
#include "copy.h"
#include "lanes.h"

typedef struct generator {
    uint64_t state;
} generator;

static uint64_t next_word(generator *g)
{
    uint64_t z = g->state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static double next_unit(generator *g)
{
    return (double)(next_word(g) >> 11) * 0x1p-53;
} /* [0, 1) */

/* Two operators of one moment differ in the address of what they fill. */
static generator start(const sdx_run *r)
{
    const sdx_attr *seed = sdx_node_attr(r->node, "seed");
    generator g = {0};
    if (seed && seed->type == SDX_ATTR_INT) {
        g.state = (uint64_t)seed->i;
    } else if (seed) {
        memcpy(&g.state, &seed->f, sizeof seed->f);
    } else {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        g.state = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec + (uintptr_t)r->out[0].data;
    }
    next_word(&g);
    return g;
}

typedef double (*draw_fn)(generator *g, double a, double b);

static double draw_uniform(generator *g, double low, double high)
{
    return low + (high - low) * next_unit(g);
}

static double draw_normal(generator *g, double mean, double scale) /* Box and Muller */
{
    double radius = sqrt(-2 * log(1 - next_unit(g)));
    return mean + scale * radius * cos(2 * 3.14159265358979323846 * next_unit(g));
}

static void store(const sdx_tensor *t, int64_t i, double x)
{
    sdx_lane lane = {.f = x};
    sdx_lanes_convert(SDX_LANE_F, t->dtype, 1, &lane);
    sdx_lanes_store(t->dtype, &lane, 1, t->data, i);
}

/* ---- RandomUniform, RandomNormal and their Like forms ------------------------------------------------ */

static sdx_status find_type(const sdx_infer *x, sdx_dtype missing, unsigned set, sdx_dtype *out)
{
    int64_t code = sdx_node_int(x->node, "dtype", missing);
    *out = (sdx_dtype)code;
    if (code == SDX_UNDEFINED && missing == SDX_UNDEFINED) return SDX_OK; /* the input's, not known yet */
    if (code > 0 && code < 32 && set & SDX_SET(code)) return SDX_OK;
    return sdx_fail(x->err, SDX_ERR_UNSUPPORTED, "it does not make type %lld", (long long)code);
}

static sdx_status infer_random(sdx_infer *x)
{
    sdx_dtype dtype;
    size_t rank = 0;
    const int64_t *dim = sdx_node_ints(x->node, "shape", &rank);
    sdx_shape shape = {.rank = (int)rank};
    if (x->n_in > 0) shape = x->in[0].shape;
    TRY(find_type(x, x->n_in > 0 ? x->in[0].dtype : SDX_F32, SDX_SET_FLOAT, &dtype));
    if (x->n_in == 0 && rank > SDX_MAX_RANK)
        return sdx_fail(x->err, SDX_ERR_UNSUPPORTED, "a shape of rank %zu; at most %d is supported", rank,
                        SDX_MAX_RANK);
    for (int i = 0; x->n_in == 0 && i < shape.rank; i++)
        TRY(sdx_infer_dim(x, sdx_element_number(dim[i]), &shape.dim[i]));
    sdx_infer_set(x, 0, dtype, &shape);
    return SDX_OK;
}

static sdx_status fill(sdx_run *r, draw_fn draw, double a, double b)
{
    generator g = start(r);
    for (int64_t i = 0, n = sdx_tensor_count(&r->out[0]); i < n; i++) store(&r->out[0], i, draw(&g, a, b));
    return SDX_OK;
}

static sdx_status run_uniform(sdx_run *r)
{
    return fill(r, draw_uniform, (double)sdx_node_float(r->node, "low", 0),
                (double)sdx_node_float(r->node, "high", 1));
}

static sdx_status run_normal(sdx_run *r)
{
    return fill(r, draw_normal, (double)sdx_node_float(r->node, "mean", 0),
                (double)sdx_node_float(r->node, "scale", 1));
}

/* ---- Bernoulli --------------------------------------------------------------------------------------- */

static sdx_status infer_bernoulli(sdx_infer *x)
{
    sdx_dtype dtype;
    TRY(sdx_want_dtype(x, 0, "the input", SDX_SET_FLOAT));
    unsigned integers = SDX_SET_BYTE | SDX_SET(SDX_U16) | SDX_SET(SDX_I16) | SDX_SET(SDX_U32) |
                        SDX_SET(SDX_I32) | SDX_SET(SDX_U64) | SDX_SET(SDX_I64) | SDX_SET(SDX_BOOL);
    TRY(find_type(x, x->in[0].dtype, SDX_SET_FLOAT | integers, &dtype));
    sdx_infer_set(x, 0, dtype, &x->in[0].shape);
    return SDX_OK;
}

static sdx_status run_bernoulli(sdx_run *r)
{
    generator g = start(r);
    for (int64_t i = 0, n = sdx_tensor_count(&r->in[0]); i < n; i++)
        store(&r->out[0], i, next_unit(&g) < sdx_tensor_get_f64(&r->in[0], i));
    return SDX_OK;
}

/* ---- Multinomial: log probabilities [B, C], not normalized -> classes [B, S] ------------------------- */

static sdx_status infer_multinomial(sdx_infer *x)
{
    sdx_dtype dtype;
    int64_t samples = sdx_node_int(x->node, "sample_size", 1);
    TRY(sdx_want_dtype(x, 0, "the input", SDX_SET_FLOAT));
    TRY(sdx_want_rank(x, 0, "the input", 2, 2));
    TRY(find_type(x, SDX_I32, SDX_SET(SDX_I32) | SDX_SET(SDX_I64), &dtype));
    if (sdx_type_dim(&x->in[0], 1) == 0)
        return sdx_fail(x->err, SDX_ERR_USAGE, "there are no classes to draw from");
    sdx_shape out = {.rank = 2, .dim = {sdx_type_dim(&x->in[0], 0), SDX_DIM_UNKNOWN}};
    TRY(sdx_infer_dim(x, sdx_element_number(samples), &out.dim[1]));
    sdx_infer_set(x, 0, dtype, &out);
    return SDX_OK;
}

/* The first class whose cumulative probability passes a uniform number. */
static int64_t draw_class(generator *g, const sdx_tensor *x, int64_t row, double max, double sum)
{
    double left = next_unit(g) * sum;
    int64_t last = x->dim[1] - 1;
    for (int64_t c = 0; c < last; c++) {
        left -= exp(sdx_tensor_get_f64(x, row * x->dim[1] + c) - max);
        if (left < 0) return c;
    }
    return last;
}

static sdx_status run_multinomial(sdx_run *r)
{
    const sdx_tensor *x = &r->in[0], *y = &r->out[0];
    generator g = start(r);
    for (int64_t b = 0; b < x->dim[0]; b++) {
        double max = -INFINITY, sum = 0;
        for (int64_t c = 0; c < x->dim[1]; c++) max = fmax(max, sdx_tensor_get_f64(x, b * x->dim[1] + c));
        for (int64_t c = 0; c < x->dim[1]; c++) sum += exp(sdx_tensor_get_f64(x, b * x->dim[1] + c) - max);
        for (int64_t s = 0; s < y->dim[1]; s++)
            store(y, b * y->dim[1] + s, (double)draw_class(&g, x, b, max, sum));
    }
    return SDX_OK;
}

/* ---- Dropout: the identity outside training ---------------------------------------------------------- */

static sdx_status infer_dropout(sdx_infer *x)
{
    TRY(sdx_want_dtype(x, 2, "training_mode", SDX_SET(SDX_BOOL)));
    if (x->in[0].dtype == SDX_STRING) /* which has no zero */
        return sdx_fail(x->err, SDX_ERR_UNSUPPORTED, "it does not take strings");
    sdx_infer_same(x);
    sdx_infer_set(x, 1, x->node->def && x->node->def->since < 10 ? x->in[0].dtype : SDX_BOOL, &x->in[0].shape);
    return SDX_OK;
}

/* The mask of a run in which nothing is dropped. Before opset 12 the specification is silent, and ONNX Runtime
 * gives false. */
static bool mask_of_kept(const sdx_run *r) { return r->node->def->since >= 12; }

/* The share that is dropped: 0 outside training. Inputs since opset 12; before, there is no training. */
static sdx_status find_ratio(const sdx_run *r, double *ratio)
{
    *ratio = 0.5;
    for (int i = 1; i < r->n_in; i++)
        if (sdx_run_has_in(r, i) && sdx_tensor_count(&r->in[i]) != 1)
            return sdx_fail(r->err, SDX_ERR_USAGE, "%s must be a scalar", i == 1 ? "ratio" : "training_mode");
    if (sdx_run_has_in(r, 1)) *ratio = sdx_tensor_get_f64(&r->in[1], 0);
    if (!sdx_run_has_in(r, 2) || !sdx_tensor_get_i64(&r->in[2], 0)) *ratio = 0;
    if (*ratio >= 0 && *ratio < 1) return SDX_OK;
    return sdx_fail(r->err, SDX_ERR_USAGE, "ratio is %g, but must be in [0, 1)", *ratio);
}

static sdx_status run_dropout(sdx_run *r)
{
    double ratio;
    TRY(find_ratio(r, &ratio));
    generator g = start(r);
    for (int64_t i = 0, n = sdx_tensor_count(&r->in[0]); i < n; i++) {
        bool kept = ratio == 0 || next_unit(&g) >= ratio;
        if (ratio != 0) store(&r->out[0], i, kept ? sdx_tensor_get_f64(&r->in[0], i) / (1 - ratio) : 0);
        if (sdx_run_has_out(r, 1))
            store(&r->out[1], i, kept && mask_of_kept(r));
        else if (ratio == 0)
            break;
    }
    return ratio == 0 ? sdx_run_copy(r) : SDX_OK;
}

#define RANDOM SDX_OP_NONDETERMINISTIC
static const sdx_op_def rows[] = {
    {"", "RandomUniform", 1, 0, 0, 0, 1, 1, RANDOM, infer_random, NULL, NULL, run_uniform},
    {"", "RandomNormal", 1, 0, 0, 0, 1, 1, RANDOM, infer_random, NULL, NULL, run_normal},
    {"", "RandomUniformLike", 1, 0, 1, 1, 1, 1, RANDOM, infer_random, NULL, NULL, run_uniform},
    {"", "RandomNormalLike", 1, 0, 1, 1, 1, 1, RANDOM, infer_random, NULL, NULL, run_normal},
    {"", "Bernoulli", 15, 0, 1, 1, 1, 1, RANDOM, infer_bernoulli, NULL, NULL, run_bernoulli},
    {"", "Multinomial", 7, 0, 1, 1, 1, 1, RANDOM, infer_multinomial, NULL, NULL, run_multinomial},
    {"", "Dropout", 7, 9, 1, 1, 1, 2, SDX_OP_INPLACE, infer_dropout, NULL, NULL, run_dropout},
    {"", "Dropout", 10, 11, 1, 1, 1, 2, SDX_OP_INPLACE, infer_dropout, NULL, NULL, run_dropout},
    {"", "Dropout", 12, 0, 1, 3, 1, 2, SDX_OP_INPLACE | RANDOM, infer_dropout, NULL, NULL, run_dropout},
};

SDX_OP_TABLE(random);
