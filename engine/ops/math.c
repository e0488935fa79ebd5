/* math.c: operators of one operand, element by element. As in elementwise.c an operator is a description: a
 * float32 kernel where there is one, else a scalar function per kind of lane, called on blocks of fixed size.
 * Blocks, not threads, decide where a kernel starts and ends, so that results do not depend on the number of
 * threads. */
#include "contents.h"
#include "lanes.h"

#include <math.h>

enum { NO_KERNEL = -1, BLOCK = 4096, BLOCK_GRAIN = 2 };

typedef struct unary_op {
    int kernel;              /* sdx_unary for float32 */
    double (*f)(double);     /* NULL: does not take these types */
    int64_t (*i)(int64_t);
    uint64_t (*u)(uint64_t);
    bool bools;              /* takes bool, and nothing else */
    bool predicate;          /* the result is bool: not zero */
} unary_op;

/* ---- infer ----------------------------------------------------------------------------------------------- */

static bool takes(const unary_op *op, sdx_dtype t)
{
    if (op->bools || t == SDX_BOOL) return op->bools && t == SDX_BOOL;
    switch (sdx_dtype_lane(t)) {
    case SDX_LANE_F: return op->f;
    case SDX_LANE_I: return op->i;
    case SDX_LANE_U: return op->u;
    default: return false;
    }
}

static int64_t negative_int(int64_t x);

static void unary_contents(sdx_infer *x, const unary_op *op)
{
    int n;
    sdx_dtype t = x->in[0].dtype;
    const sdx_element *from = sdx_infer_contents(x, 0, &n);
    if (!from || !op->i || (t != SDX_I64 && t != SDX_I32 && t != SDX_BOOL)) return;
    sdx_element *e = sdx_infer_new_contents(x, n);
    for (int k = 0; e && k < n; k++)
        e[k] = sdx_element_is_number(from[k]) ? sdx_element_number(op->i(from[k].number))
               : op->i == negative_int ? sdx_model_arith(x->model, '-', sdx_element_number(0), from[k])
                                       : SDX_ELEMENT_NONE;
    sdx_infer_set_contents(x, 0, e, n);
}

static sdx_status infer_unary(sdx_infer *x, const unary_op *op)
{
    sdx_dtype t = x->in[0].dtype;
    if (t && !takes(op, t))
        return sdx_fail(x->err, SDX_ERR_UNSUPPORTED, "it does not take %s", sdx_dtype_name(t));
    sdx_infer_set(x, 0, op->predicate ? SDX_BOOL : t, &x->in[0].shape);
    unary_contents(x, op);
    return SDX_OK;
}

/* ---- run ------------------------------------------------------------------------------------------------- */

typedef struct unary_call {
    const sdx_run *run;
    const unary_op *op;
    int64_t count;
} unary_call;

static void apply(const unary_op *op, sdx_lane_kind kind, int64_t n, sdx_lane *x)
{
    if (kind == SDX_LANE_F)
        for (int64_t k = 0; k < n; k++) x[k].f = op->f(x[k].f);
    else if (kind == SDX_LANE_U)
        for (int64_t k = 0; k < n; k++) x[k].u = op->u(x[k].u);
    else
        for (int64_t k = 0; k < n; k++) x[k].i = op->i(x[k].i);
    if (op->predicate) sdx_lanes_convert(kind, SDX_BOOL, n, x);
}

static void unary_block(const unary_call *c, int64_t begin, int64_t end)
{
    const sdx_tensor *x = &c->run->in[0], *y = &c->run->out[0];
    if (x->dtype == SDX_F32 && c->op->kernel != NO_KERNEL) {
        c->run->kernels->element.unary_f32[c->op->kernel](end - begin, (const float *)x->data + begin,
                                                          (float *)y->data + begin);
        return;
    }
    sdx_lane lane[SDX_LANES];
    for (int64_t at = begin; at < end; at += SDX_LANES) {
        int64_t n = end - at < SDX_LANES ? end - at : SDX_LANES;
        sdx_lanes_load(x->dtype, x->data, at, 1, n, lane);
        apply(c->op, sdx_dtype_lane(x->dtype), n, lane);
        sdx_lanes_store(y->dtype, lane, n, y->data, at);
    }
}

static void unary_blocks(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const unary_call *c = context;
    for (int64_t b = begin; b < end; b++) {
        int64_t last = (b + 1) * BLOCK;
        unary_block(c, b * BLOCK, last < c->count ? last : c->count);
    }
}

static sdx_status run_unary(sdx_run *r, const unary_op *op)
{
    unary_call c = {r, op, sdx_tensor_count(&r->in[0])};
    sdx_parallel_for(r->threads, (c.count + BLOCK - 1) / BLOCK, BLOCK_GRAIN, unary_blocks, &c);
    return SDX_OK;
}

/* ---- the scalar functions that C's library lacks --------------------------------------------------------- */

static double negative(double x) { return -x; }
static int64_t negative_int(int64_t x) { return (int64_t)(0 - (uint64_t)x); }
static int64_t absolute_int(int64_t x) { return x < 0 ? negative_int(x) : x; }
static uint64_t same_word(uint64_t x) { return x; }
static double reciprocal(double x) { return 1 / x; }
static double sign(double x) { return x > 0 ? 1 : x < 0 ? -1 : x; }
static int64_t sign_int(int64_t x) { return (x > 0) - (x < 0); }
static uint64_t sign_word(uint64_t x) { return x != 0; }
static double sigmoid(double x) { return 1 / (1 + exp(-x)); }
static double relu(double x) { return x < 0 ? 0 : x; }
static int64_t relu_int(int64_t x) { return x < 0 ? 0 : x; }
static double is_nan(double x) { return x != x; }
static double is_inf(double x) { return isinf(x) != 0; }
static double is_positive_inf(double x) { return x == INFINITY; }
static double is_negative_inf(double x) { return x == -INFINITY; }
static double never(double x) { return 0 * (x == x); }
static int64_t not_bool(int64_t x) { return !x; }
static int64_t invert(int64_t x) { return ~x; }
static uint64_t invert_word(uint64_t x) { return ~x; }

/* ---- the operators: name, first opset, kernel, functions for float, int and uint64 lanes ----------------- */
#define FLOAT_OPS(X)                                                                                       \
    X(Exp, 1, SDX_UNARY_EXP, exp)                                                                          \
    X(Log, 1, SDX_UNARY_LOG, log)                                                                          \
    X(Sqrt, 1, SDX_UNARY_SQRT, sqrt)                                                                       \
    X(Reciprocal, 1, SDX_UNARY_RECIPROCAL, reciprocal)                                                     \
    X(Erf, 9, SDX_UNARY_ERF, erf)                                                                          \
    X(Tanh, 1, SDX_UNARY_TANH, tanh)                                                                       \
    X(Sigmoid, 1, SDX_UNARY_SIGMOID, sigmoid)                                                              \
    X(Floor, 1, NO_KERNEL, floor)                                                                          \
    X(Ceil, 1, NO_KERNEL, ceil)                                                                            \
    X(Round, 11, NO_KERNEL, rint) /* ties to even */                                                       \
    X(Sin, 7, NO_KERNEL, sin)                                                                              \
    X(Cos, 7, NO_KERNEL, cos)                                                                              \
    X(Tan, 7, NO_KERNEL, tan)                                                                              \
    X(Asin, 7, NO_KERNEL, asin)                                                                            \
    X(Acos, 7, NO_KERNEL, acos)                                                                            \
    X(Atan, 7, NO_KERNEL, atan)                                                                            \
    X(Sinh, 9, NO_KERNEL, sinh)                                                                            \
    X(Cosh, 9, NO_KERNEL, cosh)                                                                            \
    X(Asinh, 9, NO_KERNEL, asinh)                                                                          \
    X(Acosh, 9, NO_KERNEL, acosh)                                                                          \
    X(Atanh, 9, NO_KERNEL, atanh)
#define NUMBER_OPS(X)                                                                                      \
    X(Abs, 1, SDX_UNARY_ABS, fabs, absolute_int, same_word)                                                \
    X(Neg, 1, SDX_UNARY_NEG, negative, negative_int, NULL)                                                 \
    X(Relu, 1, SDX_UNARY_RELU, relu, relu_int, same_word)                                                  \
    X(Sign, 9, NO_KERNEL, sign, sign_int, sign_word)                                                       \
    X(BitwiseNot, 18, NO_KERNEL, NULL, invert, invert_word)

#define FUNCTIONS(name)                                                                                    \
    static sdx_status infer_##name(sdx_infer *x) { return infer_unary(x, &name##_op); }                    \
    static sdx_status run_##name(sdx_run *r) { return run_unary(r, &name##_op); }
#define FLOAT_OP(name, since, kernel_, f_)                                                                 \
    static const unary_op name##_op = {.kernel = kernel_, .f = f_};                                        \
    FUNCTIONS(name)
#define NUMBER_OP(name, since, kernel_, f_, i_, u_)                                                        \
    static const unary_op name##_op = {.kernel = kernel_, .f = f_, .i = i_, .u = u_};                      \
    FUNCTIONS(name)
FLOAT_OPS(FLOAT_OP)
NUMBER_OPS(NUMBER_OP)

static const unary_op Not_op = {.kernel = NO_KERNEL, .i = not_bool, .bools = true, .predicate = true};
static const unary_op IsNaN_op = {.kernel = NO_KERNEL, .f = is_nan, .predicate = true};
FUNCTIONS(Not)
FUNCTIONS(IsNaN)

static const unary_op *is_inf_op(const sdx_node *node)
{
    static const unary_op op[2][2] = {
        {{.kernel = NO_KERNEL, .f = never, .predicate = true},
         {.kernel = NO_KERNEL, .f = is_positive_inf, .predicate = true}},
        {{.kernel = NO_KERNEL, .f = is_negative_inf, .predicate = true},
         {.kernel = NO_KERNEL, .f = is_inf, .predicate = true}},
    };
    return &op[sdx_node_int(node, "detect_negative", 1) != 0][sdx_node_int(node, "detect_positive", 1) != 0];
}
static sdx_status infer_is_inf(sdx_infer *x) { return infer_unary(x, is_inf_op(x->node)); }
static sdx_status run_is_inf(sdx_run *r) { return run_unary(r, is_inf_op(r->node)); }

/* ---- Clip ------------------------------------------------------------------------------------------------ */

static sdx_status infer_clip(sdx_infer *x)
{
    for (int i = 1; i < x->n_in; i++) {
        if (!sdx_infer_has(x, i) || x->in[i].shape.rank < 0 || sdx_shape_count(&x->in[i].shape) == 1) continue;
        if (sdx_shape_is_known(&x->in[i].shape))
            return sdx_fail(x->err, SDX_ERR_USAGE, "the limit %s must be a scalar", i == 1 ? "min" : "max");
    }
    for (int i = 1; i < x->n_in; i++)
        if (x->in[i].dtype && x->in[0].dtype && x->in[i].dtype != x->in[0].dtype)
            return sdx_fail(x->err, SDX_ERR_USAGE, "the limit %s is %s, the input %s", i == 1 ? "min" : "max",
                            sdx_dtype_name(x->in[i].dtype), sdx_dtype_name(x->in[0].dtype));
    return sdx_infer_same(x);
}

typedef struct clip_call {
    const sdx_tensor *x, *y;
    sdx_lane low, high;
    bool has_low, has_high;
} clip_call;

/* A limit: input i since Clip-11, an attribute before. */
static bool read_limit(const sdx_run *r, int i, const char *attribute, sdx_lane *limit)
{
    if (sdx_run_has_in(r, i)) {
        sdx_lanes_load(r->in[i].dtype, r->in[i].data, 0, 1, 1, limit);
        return true;
    }
    const sdx_attr *a = sdx_node_attr(r->node, attribute);
    if (a) limit->f = a->f;
    return a;
}

/* The standard's min(max(x, low), high): when low > high, high wins. */
#define CLIP(field)                                                                                        \
    for (int64_t k = 0; k < n; k++) {                                                                      \
        if (c->has_low && x[k].field < c->low.field) x[k] = c->low;                                        \
        if (c->has_high && x[k].field > c->high.field) x[k] = c->high;                                     \
    }

static void clip_range(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const clip_call *c = context;
    sdx_lane x[SDX_LANES];
    sdx_lane_kind kind = sdx_dtype_lane(c->x->dtype);
    for (int64_t at = begin; at < end; at += SDX_LANES) {
        int64_t n = end - at < SDX_LANES ? end - at : SDX_LANES;
        sdx_lanes_load(c->x->dtype, c->x->data, at, 1, n, x);
        if (kind == SDX_LANE_F) CLIP(f)
        else if (kind == SDX_LANE_U) CLIP(u)
        else CLIP(i)
        sdx_lanes_store(c->y->dtype, x, n, c->y->data, at);
    }
}

static sdx_status run_clip(sdx_run *r)
{
    clip_call c = {.x = &r->in[0], .y = &r->out[0]};
    if (sdx_dtype_lane(c.x->dtype) == SDX_LANE_NONE)
        return sdx_fail(r->err, SDX_ERR_UNSUPPORTED, "it does not take %s", sdx_dtype_name(c.x->dtype));
    c.has_low = read_limit(r, 1, "min", &c.low);
    c.has_high = read_limit(r, 2, "max", &c.high);
    sdx_parallel_for(r->threads, sdx_tensor_count(c.x), SDX_WALK_GRAIN, clip_range, &c);
    return SDX_OK;
}

#define ROW(name, since, ...)                                                                              \
    {"", #name, since, 0, 1, 1, 1, 1, SDX_OP_INPLACE, infer_##name, NULL, NULL, run_##name},

static const sdx_op_def rows[] = {
    FLOAT_OPS(ROW)
    NUMBER_OPS(ROW)
    ROW(Not, 1)
    {"", "IsNaN", 9, 0, 1, 1, 1, 1, 0, infer_IsNaN, NULL, NULL, run_IsNaN},
    {"", "IsInf", 10, 0, 1, 1, 1, 1, 0, infer_is_inf, NULL, NULL, run_is_inf},
    {"", "Clip", 1, 10, 1, 1, 1, 1, SDX_OP_INPLACE, infer_clip, NULL, NULL, run_clip},
    {"", "Clip", 11, 0, 1, 3, 1, 1, SDX_OP_INPLACE, infer_clip, NULL, NULL, run_clip},
};

SDX_OP_TABLE(math);
