/* elementwise.c: operators on two or more broadcast operands. Each is a description (binary_op): a float32
 * kernel where there is one, and loops over lanes for everything else; one infer and one run serve all. The
 * same lane loops compute contents, so shape arithmetic in the graph is known at plan time. */
#include "contents.h"
#include "copy.h"
#include "lanes.h"

#include <math.h>
#include <string.h>

typedef void (*lane_fn)(int64_t n, const sdx_lane *a, const sdx_lane *b, sdx_lane *y);

enum { FLOATS = 1, INTS = 2, BOOLS = 4, STRINGS = 8, NUMBERS = FLOATS | INTS };
enum { NO_KERNEL = -1 };

typedef struct binary_op {
    unsigned takes; /* operand types */
    int kernel;     /* sdx_binary for float32 */
    lane_fn f, i, u;
    char arith;     /* + - * / for sdx_model_arith, = for Equal, < for Min, > for Max; 0: numbers only */
    bool predicate; /* the result is bool, in field i */
    bool divides;   /* an integer divisor must not be 0 */
} binary_op;

/* A lane function: y[k].to = expression of x and z, the operands' fields. */
#define LANE_FN(name, type, from, to, expression)                                                          \
    static void name(int64_t n, const sdx_lane *a, const sdx_lane *b, sdx_lane *y)                         \
    {                                                                                                      \
        for (int64_t k = 0; k < n; k++) {                                                                  \
            type x = a[k].from, z = b[k].from;                                                             \
            y[k].to = expression;                                                                          \
        }                                                                                                  \
    }
/* The same expression for all three kinds: <name>_f, _i and _u. */
#define LANE_FNS(name, expression)                                                                         \
    LANE_FN(name##_f, double, f, f, expression)                                                            \
    LANE_FN(name##_i, int64_t, i, i, expression)                                                           \
    LANE_FN(name##_u, uint64_t, u, u, expression)
#define PREDICATE_FNS(name, expression)                                                                    \
    LANE_FN(name##_f, double, f, i, expression)                                                            \
    LANE_FN(name##_i, int64_t, i, i, expression)                                                           \
    LANE_FN(name##_u, uint64_t, u, i, expression)

/* Signed sums wrap, which C spells with unsigned types. */
LANE_FN(add_f, double, f, f, x + z)
LANE_FN(add_u, uint64_t, u, u, x + z)
LANE_FN(sub_f, double, f, f, x - z)
LANE_FN(sub_u, uint64_t, u, u, x - z)
LANE_FN(mul_f, double, f, f, x *z)
LANE_FN(mul_u, uint64_t, u, u, x *z)
LANE_FN(div_f, double, f, f, x / z)
LANE_FN(div_i, int64_t, i, i, z == -1 ? (int64_t)(0 - (uint64_t)x) : x / z)
LANE_FN(div_u, uint64_t, u, u, x / z)
/* A NaN on either side is the result. */
LANE_FNS(max, x > z || x != x ? x : z)
LANE_FNS(min, x < z || x != x ? x : z)

static double floor_mod(double x, double z)
{
    double r = fmod(x, z);
    if (r == 0) return copysign(0, z); /* the sign of the divisor, as in Python */
    return (r < 0) != (z < 0) ? r + z : r;
}

static int64_t floor_mod_int(int64_t x, int64_t z)
{
    if (z == -1) return 0;
    int64_t r = x % z;
    return r != 0 && (r < 0) != (z < 0) ? r + z : r;
}

LANE_FN(mod_f, double, f, f, floor_mod(x, z))
LANE_FN(mod_i, int64_t, i, i, floor_mod_int(x, z))
LANE_FN(fmod_f, double, f, f, fmod(x, z))
LANE_FN(fmod_i, int64_t, i, i, z == -1 ? 0 : x % z)
LANE_FN(mod_u, uint64_t, u, u, x % z)

PREDICATE_FNS(equal, x == z)
PREDICATE_FNS(greater, x > z)
PREDICATE_FNS(less, x < z)
PREDICATE_FNS(greater_equal, x >= z)
PREDICATE_FNS(less_equal, x <= z)

LANE_FN(and_u, uint64_t, u, u, x &z)
LANE_FN(or_u, uint64_t, u, u, x | z)
LANE_FN(xor_u, uint64_t, u, u, x ^ z)
/* Shifting out every bit leaves 0, or the sign. */
LANE_FN(shift_left_u, uint64_t, u, u, z > 63 ? 0 : x << z)
LANE_FN(shift_right_u, uint64_t, u, u, z > 63 ? 0 : x >> z)
LANE_FN(shift_right_i, int64_t, i, i, x >> (z < 0 || z > 63 ? 63 : z))

/* ---- infer ----------------------------------------------------------------------------------------------- */

static unsigned dtype_class(sdx_dtype t)
{
    if (sdx_dtype_is_float(t)) return FLOATS;
    if (sdx_dtype_is_integer(t)) return INTS;
    return t == SDX_BOOL ? BOOLS : t == SDX_STRING ? STRINGS : 0;
}

static sdx_status check_types(const sdx_infer *x, unsigned takes, bool same)
{
    for (int i = 0; i < x->n_in; i++) {
        sdx_dtype t = x->in[i].dtype, first = x->in[0].dtype;
        if (t && !(dtype_class(t) & takes))
            return sdx_fail(x->err, SDX_ERR_UNSUPPORTED, "input %d is %s, a type it does not take", i,
                            sdx_dtype_name(t));
        if (same && t && first && t != first)
            return sdx_fail(x->err, SDX_ERR_USAGE, "input %d is %s, input 0 is %s", i, sdx_dtype_name(t),
                            sdx_dtype_name(first));
    }
    return SDX_OK;
}

/* Two elements where not both are numbers. */
static sdx_element symbolic(sdx_infer *x, const binary_op *op, sdx_element a, sdx_element b)
{
    switch (op->arith) {
    case '+': case '-': case '*': case '/': case '<': return sdx_model_arith(x->model, op->arith, a, b);
    case '>': return sdx_element_same(a, b) ? a : SDX_ELEMENT_NONE;
    case '=':
        if (sdx_element_same(a, b)) return sdx_element_number(1);
        /* A size is never -1: the usual test for "keep this dim". */
        if (sdx_element_is_number(a) && a.number < 0 && sdx_element_nonnegative(x->model, b))
            return sdx_element_number(0);
        if (sdx_element_is_number(b) && b.number < 0 && sdx_element_nonnegative(x->model, a))
            return sdx_element_number(0);
        return SDX_ELEMENT_NONE;
    default: return SDX_ELEMENT_NONE;
    }
}

static sdx_element combine(sdx_infer *x, const binary_op *op, sdx_element a, sdx_element b)
{
    if (!sdx_element_is_number(a) || !sdx_element_is_number(b)) return symbolic(x, op, a, b);
    sdx_dtype t = x->in[0].dtype;
    if ((t != SDX_I64 && t != SDX_I32 && t != SDX_BOOL) || (op->divides && b.number == 0))
        return SDX_ELEMENT_NONE;
    sdx_lane la = {.i = a.number}, lb = {.i = b.number}, y;
    op->i(1, &la, &lb, &y);
    return t == SDX_I32 && y.i != (int32_t)y.i ? SDX_ELEMENT_NONE : sdx_element_number(y.i);
}

/* Contents of an operand whose elements stand in the result's order or repeat one. */
static const sdx_element *operand_contents(sdx_infer *x, int i, int64_t count, int *step)
{
    int n;
    const sdx_element *e = sdx_infer_contents(x, i, &n);
    *step = n != 1;
    return e && (n == 1 || n == count) ? e : NULL;
}

static void binary_contents(sdx_infer *x, const binary_op *op)
{
    int64_t count = sdx_shape_count(&x->out[0].shape);
    int step_a, step_b;
    const sdx_element *a = operand_contents(x, 0, count, &step_a), *b = operand_contents(x, 1, count, &step_b);
    sdx_element *e = a && b ? sdx_infer_new_contents(x, count) : NULL;
    for (int64_t i = 0; e && i < count; i++) e[i] = combine(x, op, a[i * step_a], b[i * step_b]);
    sdx_infer_set_contents(x, 0, e, count);
}

static sdx_status infer_binary(sdx_infer *x, const binary_op *op)
{
    TRY(check_types(x, op->takes, true));
    sdx_shape out;
    TRY(sdx_shape_broadcast(&x->in[0].shape, &x->in[1].shape, &out, x->err));
    sdx_infer_set(x, 0, op->predicate ? SDX_BOOL : x->in[0].dtype ? x->in[0].dtype : x->in[1].dtype, &out);
    binary_contents(x, op);
    return SDX_OK;
}

/* ---- run ------------------------------------------------------------------------------------------------- */

typedef struct binary_call {
    sdx_walk walk;
    sdx_dtype dtype, to;
    lane_fn fn;
    void (*kernel)(int64_t n, const float *a, int a_step, const float *b, int b_step, float *y);
    const void *a, *b;
    void *y;
} binary_call;

static void kernel_row(void *context, int64_t at, int64_t n, const int64_t *offset)
{
    const binary_call *c = context;
    c->kernel(n, (const float *)c->a + offset[0], c->walk.step[0], (const float *)c->b + offset[1],
              c->walk.step[1], (float *)c->y + at);
}

static void lane_row(void *context, int64_t at, int64_t n, const int64_t *offset)
{
    const binary_call *c = context;
    sdx_lane a[SDX_LANES], b[SDX_LANES];
    for (int64_t i = 0; i < n; i += SDX_LANES) {
        int64_t part = n - i < SDX_LANES ? n - i : SDX_LANES;
        sdx_lanes_load(c->dtype, c->a, offset[0] + i * c->walk.step[0], c->walk.step[0], part, a);
        sdx_lanes_load(c->dtype, c->b, offset[1] + i * c->walk.step[1], c->walk.step[1], part, b);
        c->fn(part, a, b, a);
        sdx_lanes_store(c->to, a, part, c->y, at + i);
    }
}

static void equal_string_row(void *context, int64_t at, int64_t n, const int64_t *offset)
{
    const binary_call *c = context;
    const char *const *a = (const char *const *)c->a + offset[0];
    const char *const *b = (const char *const *)c->b + offset[1];
    for (int64_t i = 0; i < n; i++) {
        const char *s = a[i * c->walk.step[0]], *t = b[i * c->walk.step[1]];
        ((uint8_t *)c->y)[at + i] = !strcmp(s ? s : "", t ? t : "");
    }
}

static lane_fn pick_lane_fn(const binary_op *op, sdx_dtype dtype)
{
    sdx_lane_kind kind = sdx_dtype_lane(dtype);
    return kind == SDX_LANE_F ? op->f : kind == SDX_LANE_U ? op->u : op->i;
}

/* y = a op b; y may be a. */
static void compute(sdx_run *r, const binary_op *op, const sdx_tensor *a, const sdx_shape *sa,
                    const sdx_tensor *b, const sdx_shape *sb, sdx_tensor *y)
{
    sdx_shape out = sdx_tensor_shape(y), operand[2] = {*sa, *sb};
    binary_call c = {.dtype = a->dtype, .to = y->dtype, .a = a->data, .b = b->data, .y = y->data};
    sdx_walk_init(&c.walk, &out, 2, operand);
    c.fn = pick_lane_fn(op, a->dtype);
    bool fast = op->kernel != NO_KERNEL && a->dtype == SDX_F32;
    if (fast) c.kernel = r->kernels->element.binary_f32[op->kernel];
    sdx_walk_fn row = a->dtype == SDX_STRING ? equal_string_row : fast ? kernel_row : lane_row;
    sdx_walk_run(&c.walk, r->threads, row, &c);
}

static sdx_status check_divisor(const sdx_tensor *t, sdx_error *err)
{
    if (!sdx_dtype_is_integer(t->dtype)) return SDX_OK;
    int64_t n = sdx_tensor_count(t);
    for (int64_t i = 0; i < n; i++)
        if (sdx_tensor_get_i64(t, i) == 0)
            return sdx_fail(err, SDX_ERR_USAGE, "element %lld of the integer divisor is 0", (long long)i);
    return SDX_OK;
}

static sdx_status run_binary(sdx_run *r, const binary_op *op)
{
    if (op->divides) TRY(check_divisor(&r->in[1], r->err));
    sdx_shape a = sdx_run_shape(r, 0), b = sdx_run_shape(r, 1);
    compute(r, op, &r->in[0], &a, &r->in[1], &b, &r->out[0]);
    return SDX_OK;
}

/* An operator's two functions around its description. */
#define BINARY(name, ...)                                                                                  \
    static const binary_op name##_op = {__VA_ARGS__};                                                      \
    static sdx_status infer_##name(sdx_infer *x) { return infer_binary(x, &name##_op); }                   \
    static sdx_status run_##name(sdx_run *r) { return run_binary(r, &name##_op); }

BINARY(Add, NUMBERS, SDX_BINARY_ADD, add_f, add_u, add_u, .arith = '+')
BINARY(Sub, NUMBERS, SDX_BINARY_SUB, sub_f, sub_u, sub_u, .arith = '-')
BINARY(Mul, NUMBERS, SDX_BINARY_MUL, mul_f, mul_u, mul_u, .arith = '*')
BINARY(Div, NUMBERS, SDX_BINARY_DIV, div_f, div_i, div_u, .arith = '/', .divides = true)
BINARY(Equal, NUMBERS | BOOLS | STRINGS, NO_KERNEL, equal_f, equal_i, equal_u, .arith = '=', .predicate = true)
BINARY(Greater, NUMBERS, NO_KERNEL, greater_f, greater_i, greater_u, .predicate = true)
BINARY(Less, NUMBERS, NO_KERNEL, less_f, less_i, less_u, .predicate = true)
BINARY(GreaterOrEqual, NUMBERS, NO_KERNEL, greater_equal_f, greater_equal_i, greater_equal_u, .predicate = true)
BINARY(LessOrEqual, NUMBERS, NO_KERNEL, less_equal_f, less_equal_i, less_equal_u, .predicate = true)
BINARY(And, BOOLS, NO_KERNEL, NULL, and_u, and_u, .predicate = true)
BINARY(Or, BOOLS, NO_KERNEL, NULL, or_u, or_u, .predicate = true)
BINARY(Xor, BOOLS, NO_KERNEL, NULL, xor_u, xor_u, .predicate = true)
BINARY(BitwiseAnd, INTS, NO_KERNEL, NULL, and_u, and_u, .arith = 0)
BINARY(BitwiseOr, INTS, NO_KERNEL, NULL, or_u, or_u, .arith = 0)
BINARY(BitwiseXor, INTS, NO_KERNEL, NULL, xor_u, xor_u, .arith = 0)

/* ---- operators that an attribute splits in two ----------------------------------------------------------- */

static const binary_op floor_mod_op = {NUMBERS, NO_KERNEL, mod_f, mod_i, mod_u, .divides = true};
static const binary_op c_mod_op = {NUMBERS, NO_KERNEL, fmod_f, fmod_i, mod_u, .divides = true};
static const binary_op shift_left_op = {INTS, NO_KERNEL, NULL, shift_left_u, shift_left_u, .arith = 0};
static const binary_op shift_right_op = {INTS, NO_KERNEL, NULL, shift_right_i, shift_right_u, .arith = 0};

static const binary_op *mod_op(const sdx_node *n)
{
    return sdx_node_int(n, "fmod", 0) ? &c_mod_op : &floor_mod_op;
}
static sdx_status infer_Mod(sdx_infer *x) { return infer_binary(x, mod_op(x->node)); }
static sdx_status run_Mod(sdx_run *r) { return run_binary(r, mod_op(r->node)); }

static const binary_op *shift_op(const sdx_node *n)
{
    return strcmp(sdx_node_string(n, "direction", ""), "LEFT") ? &shift_right_op : &shift_left_op;
}
static sdx_status infer_BitShift(sdx_infer *x)
{
    const char *d = sdx_node_string(x->node, "direction", "");
    if (strcmp(d, "LEFT") && strcmp(d, "RIGHT"))
        return sdx_fail(x->err, SDX_ERR_FILE, "direction is \"%.40s\", neither LEFT nor RIGHT", d);
    return infer_binary(x, shift_op(x->node));
}
static sdx_status run_BitShift(sdx_run *r) { return run_binary(r, shift_op(r->node)); }

/* ---- Pow: base and exponent may differ in type; the result has the base's -------------------------------- */

static int64_t pow_int(int64_t x, int64_t z)
{
    if (z < 0) return x == 1 ? 1 : x != -1 ? 0 : z & 1 ? -1 : 1;
    uint64_t r = 1, square = (uint64_t)x;
    for (; z; z >>= 1, square *= square)
        if (z & 1) r *= square;
    return (int64_t)r;
}

static sdx_status infer_pow(sdx_infer *x)
{
    TRY(check_types(x, NUMBERS, false));
    sdx_shape out;
    TRY(sdx_shape_broadcast(&x->in[0].shape, &x->in[1].shape, &out, x->err));
    sdx_infer_set(x, 0, x->in[0].dtype, &out);
    return SDX_OK;
}

typedef struct pow_call {
    sdx_walk walk;
    const sdx_tensor *a, *b;
    sdx_tensor *y;
} pow_call;

static void pow_row(void *context, int64_t at, int64_t n, const int64_t *offset)
{
    const pow_call *c = context;
    sdx_dtype ta = c->a->dtype, tb = c->b->dtype;
    bool ints = !sdx_dtype_is_float(ta) && !sdx_dtype_is_float(tb);
    sdx_lane a[SDX_LANES], b[SDX_LANES];
    for (int64_t i = 0; i < n; i += SDX_LANES) {
        int64_t part = n - i < SDX_LANES ? n - i : SDX_LANES;
        sdx_lanes_load(ta, c->a->data, offset[0] + i * c->walk.step[0], c->walk.step[0], part, a);
        sdx_lanes_load(tb, c->b->data, offset[1] + i * c->walk.step[1], c->walk.step[1], part, b);
        if (ints) {
            for (int64_t k = 0; k < part; k++) a[k].i = pow_int(a[k].i, b[k].i);
        } else {
            sdx_lanes_convert(sdx_dtype_lane(ta), SDX_F64, part, a);
            sdx_lanes_convert(sdx_dtype_lane(tb), SDX_F64, part, b);
            for (int64_t k = 0; k < part; k++) a[k].f = pow(a[k].f, b[k].f);
            sdx_lanes_convert(SDX_LANE_F, ta, part, a);
        }
        sdx_lanes_store(ta, a, part, c->y->data, at + i);
    }
}

/* x^2, x^3 and x^0.5 of layer norms and GELUs, [begin, end) of a float32 base. */
typedef struct power_call {
    const sdx_run *run;
    const float *x;
    float *y;
    double exponent;
} power_call;

static void power_range(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const power_call *c = context;
    const float *x = c->x + begin;
    float *y = c->y + begin;
    int64_t n = end - begin;
    if (c->exponent == 2)
        for (int64_t i = 0; i < n; i++) y[i] = x[i] * x[i];
    else if (c->exponent == 3)
        for (int64_t i = 0; i < n; i++) y[i] = x[i] * x[i] * x[i];
    else for (int64_t i = 0; i < n; i++) y[i] = sqrtf(x[i]);
}

static sdx_status run_pow(sdx_run *r)
{
    const sdx_tensor *a = &r->in[0], *b = &r->in[1];
    int64_t count = sdx_tensor_count(&r->out[0]);
    if (a->dtype == SDX_F32 && sdx_tensor_count(b) == 1 && sdx_tensor_count(a) == count) {
        power_call c = {r, a->data, r->out[0].data, sdx_tensor_get_f64(b, 0)};
        if (c.exponent == 2 || c.exponent == 3 || c.exponent == 0.5) {
            sdx_parallel_for(r->threads, count, SDX_WALK_GRAIN, power_range, &c);
            return SDX_OK;
        }
    }
    sdx_shape out = sdx_tensor_shape(&r->out[0]), operand[2] = {sdx_run_shape(r, 0), sdx_run_shape(r, 1)};
    pow_call c = {.a = a, .b = b, .y = &r->out[0]};
    sdx_walk_init(&c.walk, &out, 2, operand);
    sdx_walk_run(&c.walk, r->threads, pow_row, &c);
    return SDX_OK;
}

/* ---- any number of operands: folded from the left -------------------------------------------------------- */

static const binary_op Max_op = {NUMBERS, SDX_BINARY_MAX, max_f, max_i, max_u, .arith = '>'};
static const binary_op Min_op = {NUMBERS, SDX_BINARY_MIN, min_f, min_i, min_u, .arith = '<'};

static sdx_status infer_variadic(sdx_infer *x, const binary_op *op)
{
    TRY(check_types(x, op->takes, true));
    sdx_shape out = x->in[0].shape;
    for (int i = 1; i < x->n_in; i++) TRY(sdx_shape_broadcast(&out, &x->in[i].shape, &out, x->err));
    sdx_infer_set(x, 0, x->in[0].dtype, &out);
    if (x->n_in == 1) return sdx_infer_identity(x);
    if (x->n_in == 2) binary_contents(x, op);
    return SDX_OK;
}

static sdx_status run_variadic(sdx_run *r, const binary_op *op)
{
    if (r->n_in == 1) return sdx_run_copy(r);
    sdx_tensor *y = &r->out[0];
    sdx_shape out = sdx_tensor_shape(y);
    for (int i = 1; i < r->n_in; i++) {
        const sdx_tensor *a = i == 1 ? &r->in[0] : y;
        sdx_shape sa = i == 1 ? sdx_run_shape(r, 0) : out, sb = sdx_run_shape(r, i);
        compute(r, op, a, &sa, &r->in[i], &sb, y);
    }
    return SDX_OK;
}

static sdx_status infer_Max(sdx_infer *x) { return infer_variadic(x, &Max_op); }
static sdx_status infer_Min(sdx_infer *x) { return infer_variadic(x, &Min_op); }
static sdx_status infer_Sum(sdx_infer *x) { return infer_variadic(x, &Add_op); }
static sdx_status run_Max(sdx_run *r) { return run_variadic(r, &Max_op); }
static sdx_status run_Min(sdx_run *r) { return run_variadic(r, &Min_op); }
static sdx_status run_Sum(sdx_run *r) { return run_variadic(r, &Add_op); }

static sdx_status infer_mean(sdx_infer *x)
{
    TRY(infer_variadic(x, &Add_op));
    x->out[0].contents = NULL;
    x->out[0].n_contents = 0;
    return check_types(x, FLOATS, true);
}

static sdx_status run_mean(sdx_run *r)
{
    TRY(run_variadic(r, &Add_op));
    sdx_lane operands = {.f = r->n_in};
    uint64_t word = 0; /* the divisor in the operands' own type */
    sdx_tensor n = {.dtype = r->out[0].dtype, .data = &word};
    sdx_lanes_store(n.dtype, &operands, 1, &word, 0);
    sdx_shape out = sdx_tensor_shape(&r->out[0]), scalar = {.rank = 0};
    compute(r, &Div_op, &r->out[0], &out, &n, &scalar, &r->out[0]);
    return SDX_OK;
}

/* ---- Where ----------------------------------------------------------------------------------------------- */

static void where_contents(sdx_infer *x)
{
    int64_t count = sdx_shape_count(&x->out[0].shape);
    int step[3];
    const sdx_element *in[3];
    for (int i = 0; i < 3; i++) in[i] = operand_contents(x, i, count, &step[i]);
    sdx_element *e = in[0] && in[1] && in[2] ? sdx_infer_new_contents(x, count) : NULL;
    for (int64_t i = 0; e && i < count; i++) {
        sdx_element c = in[0][i * step[0]], a = in[1][i * step[1]], b = in[2][i * step[2]];
        if (sdx_element_is_number(c)) e[i] = c.number ? a : b;
        else e[i] = sdx_element_same(a, b) ? a : SDX_ELEMENT_NONE;
    }
    sdx_infer_set_contents(x, 0, e, count);
}

static sdx_status infer_where(sdx_infer *x)
{
    sdx_dtype c = x->in[0].dtype, a = x->in[1].dtype, b = x->in[2].dtype;
    if (c && c != SDX_BOOL)
        return sdx_fail(x->err, SDX_ERR_USAGE, "the condition is %s, not bool", sdx_dtype_name(c));
    if (a && b && a != b)
        return sdx_fail(x->err, SDX_ERR_USAGE, "it chooses between %s and %s", sdx_dtype_name(a),
                        sdx_dtype_name(b));
    sdx_shape out;
    TRY(sdx_shape_broadcast(&x->in[1].shape, &x->in[2].shape, &out, x->err));
    TRY(sdx_shape_broadcast(&x->in[0].shape, &out, &out, x->err));
    sdx_infer_set(x, 0, a ? a : b, &out);
    where_contents(x);
    return SDX_OK;
}

typedef struct where_call {
    sdx_walk walk;
    const uint8_t *condition;
    const char *a, *b;
    char *y;
    int64_t size; /* bytes of an element */
} where_call;

/* Elements of one size; steps are in bytes. */
#define WHERE_LOOP(bytes)                                                                                  \
    case bytes:                                                                                            \
        for (int64_t i = 0; i < n; i++, condition += step, a += a_step, b += b_step, y += (bytes))         \
            memcpy(y, *condition ? a : b, bytes);                                                          \
        return;

static void where_row(void *context, int64_t at, int64_t n, const int64_t *offset)
{
    const where_call *c = context;
    const uint8_t *condition = c->condition + offset[0];
    const char *a = c->a + offset[1] * c->size, *b = c->b + offset[2] * c->size;
    char *y = c->y + at * c->size;
    int64_t step = c->walk.step[0], a_step = c->walk.step[1] * c->size, b_step = c->walk.step[2] * c->size;
    switch (c->size) {
        WHERE_LOOP(1)
        WHERE_LOOP(2)
        WHERE_LOOP(4)
        WHERE_LOOP(8)
        WHERE_LOOP(16)
    }
}

static sdx_status run_where(sdx_run *r)
{
    sdx_shape out = sdx_tensor_shape(&r->out[0]);
    sdx_shape operand[3] = {sdx_run_shape(r, 0), sdx_run_shape(r, 1), sdx_run_shape(r, 2)};
    where_call c = {.condition = r->in[0].data, .a = r->in[1].data, .b = r->in[2].data, .y = r->out[0].data,
                    .size = (int64_t)sdx_element_size(r->out[0].dtype)};
    sdx_walk_init(&c.walk, &out, 3, operand);
    sdx_walk_run(&c.walk, r->threads, where_row, &c);
    return SDX_OK;
}

#define ROW(name, since, until, flags)                                                                     \
    {"", #name, since, until, 2, 2, 1, 1, flags, infer_##name, NULL, NULL, run_##name}
#define VARIADIC(name, infer, run) {"", #name, 6, 0, 1, -1, 1, 1, 0, infer, NULL, NULL, run}

/* Before opset 7 broadcasting was asked for by attributes; such models are refused at load. */
static const sdx_op_def rows[] = {
    ROW(Add, 7, 0, SDX_OP_INPLACE),
    ROW(Sub, 7, 0, SDX_OP_INPLACE),
    ROW(Mul, 7, 0, SDX_OP_INPLACE),
    ROW(Div, 7, 0, SDX_OP_INPLACE),
    {"", "Pow", 7, 0, 2, 2, 1, 1, SDX_OP_INPLACE, infer_pow, NULL, NULL, run_pow},
    ROW(Mod, 10, 0, SDX_OP_INPLACE),
    ROW(BitShift, 11, 0, SDX_OP_INPLACE),
    ROW(BitwiseAnd, 18, 0, SDX_OP_INPLACE),
    ROW(BitwiseOr, 18, 0, SDX_OP_INPLACE),
    ROW(BitwiseXor, 18, 0, SDX_OP_INPLACE),
    ROW(And, 7, 0, SDX_OP_INPLACE),
    ROW(Or, 7, 0, SDX_OP_INPLACE),
    ROW(Xor, 7, 0, SDX_OP_INPLACE),
    ROW(Equal, 7, 0, 0),
    ROW(Greater, 7, 0, 0),
    ROW(Less, 7, 0, 0),
    ROW(GreaterOrEqual, 12, 0, 0),
    ROW(LessOrEqual, 12, 0, 0),
    VARIADIC(Max, infer_Max, run_Max),
    VARIADIC(Min, infer_Min, run_Min),
    VARIADIC(Sum, infer_Sum, run_Sum),
    VARIADIC(Mean, infer_mean, run_mean),
    {"", "Where", 9, 0, 3, 3, 1, 1, 0, infer_where, NULL, NULL, run_where},
};

SDX_OP_TABLE(elementwise);
