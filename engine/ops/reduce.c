/* reduce.c: reductions over any set of axes, ArgMax and ArgMin.
 *
 * Neighbouring axes of one kind, kept or reduced, are joined first. What models are hot in is then one reduced
 * dim: the last (a kernel per row), or [outer, R, inner], summed row on row into the result. All else folds
 * lanes, in double or 64-bit integers, in row-major order of the reduced axes. */
#include "contents.h"
#include "copy.h"
#include "lanes.h"

#include <math.h>
#include <string.h>

typedef enum reduce_kind { SUM, MEAN, MAX, MIN, PROD, L1, L2, SUM_SQUARE, LOG_SUM, LOG_SUM_EXP } reduce_kind;

/* ---- axes and shapes ------------------------------------------------------------------------------------- */

/* Without axes all are reduced, or none when noop_with_empty_axes says so. */
static sdx_status reduced_set(const sdx_node *node, const sdx_ints *axes, int rank, unsigned *set,
                              sdx_error *err)
{
    TRY(sdx_axes_to_set(axes, rank, set, err));
    if (axes->count == 0 && !sdx_node_int(node, "noop_with_empty_axes", 0)) *set = (1u << rank) - 1;
    return SDX_OK;
}

static sdx_shape reduced_shape(const sdx_shape *in, unsigned set, bool keep)
{
    sdx_shape out = {.rank = 0};
    for (int i = 0; i < in->rank; i++) {
        bool reduced = set & 1u << i;
        if (!reduced) out.dim[out.rank++] = in->dim[i];
        else if (keep) out.dim[out.rank++] = 1;
    }
    return out;
}

static void reduce_contents(sdx_infer *x, reduce_kind kind, unsigned set)
{
    int n;
    const sdx_element *from = sdx_infer_contents(x, 0, &n);
    bool simple = kind == SUM || kind == PROD || kind == MAX || kind == MIN;
    if (!from || n == 0 || x->in[0].shape.rank != 1 || set != 1 || !simple) return;
    sdx_element *e = sdx_infer_new_contents(x, 1);
    if (!e) return;
    *e = from[0];
    for (int i = 1; i < n; i++) {
        bool numbers = sdx_element_is_number(*e) && sdx_element_is_number(from[i]);
        if (kind == SUM || kind == PROD) *e = sdx_model_arith(x->model, kind == SUM ? '+' : '*', *e, from[i]);
        else if (!numbers) *e = sdx_element_same(*e, from[i]) ? *e : SDX_ELEMENT_NONE;
        else if ((kind == MAX) == (from[i].number > e->number)) *e = from[i];
    }
    sdx_infer_set_contents(x, 0, e, 1);
}

static sdx_status infer_reduce(sdx_infer *x, reduce_kind kind)
{
    const sdx_type *in = &x->in[0];
    sdx_ints axes;
    TRY(sdx_infer_ints(x, "axes", 1, &axes));
    x->out[0].dtype = in->dtype;
    if (in->dtype &&
        (sdx_dtype_lane(in->dtype) == SDX_LANE_NONE || (in->dtype == SDX_BOOL && kind != MAX && kind != MIN)))
        return sdx_fail(x->err, SDX_ERR_UNSUPPORTED, "it does not take %s", sdx_dtype_name(in->dtype));
    if (in->shape.rank < 0) return SDX_OK;
    bool keep = sdx_node_int(x->node, "keepdims", 1) != 0;
    sdx_shape out = in->shape;
    if (axes.known) {
        unsigned set;
        TRY(reduced_set(x->node, &axes, in->shape.rank, &set, x->err));
        out = reduced_shape(&in->shape, set, keep);
        reduce_contents(x, kind, set);
    } else if (keep) {
        for (int i = 0; i < out.rank; i++) out.dim[i] = SDX_DIM_UNKNOWN;
    } else {
        out = SDX_SHAPE_UNKNOWN;
    }
    sdx_infer_set(x, 0, in->dtype, &out);
    return SDX_OK;
}

/* ---- layout: kept and reduced dims, joined where they lie together --------------------------------------- */

typedef struct axis_list {
    int rank;
    int64_t dim[SDX_MAX_RANK], stride[SDX_MAX_RANK], count;
} axis_list;

static int64_t list_offset(const axis_list *a, int64_t i)
{
    int64_t offset = 0;
    for (int k = a->rank - 1; k >= 0; i /= a->dim[k--]) offset += i % a->dim[k] * a->stride[k];
    return offset;
}

static void split_axes(const sdx_shape *in, unsigned set, axis_list list[2])
{
    int64_t stride[SDX_MAX_RANK];
    int last = -1; /* list of the previous dim */
    sdx_shape_strides(in, stride);
    list[0] = list[1] = (axis_list){.count = 1};
    for (int i = 0; i < in->rank; i++) {
        if (in->dim[i] == 1) continue;
        int which = (set >> i) & 1;
        axis_list *a = &list[which];
        a->count *= in->dim[i];
        if (last == which) a->dim[a->rank - 1] *= in->dim[i];
        else a->dim[a->rank++] = in->dim[i];
        a->stride[a->rank - 1] = stride[i];
        last = which;
    }
}

typedef struct reduce_call {
    const sdx_run *run;
    reduce_kind kind;
    axis_list kept, reduced;
} reduce_call;

/* ---- lanes ----------------------------------------------------------------------------------------------- */

static bool in_double(const reduce_call *c)
{
    return c->kind == L2 || c->kind == LOG_SUM || c->kind == LOG_SUM_EXP;
}

static sdx_lane start_value(reduce_kind kind, sdx_dtype dtype)
{
    sdx_lane x = {.f = 0};
    if (kind == PROD) x.f = 1;
    if (kind == MAX) x.f = dtype == SDX_BOOL ? 0 : -INFINITY;
    if (kind == MIN) x.f = dtype == SDX_BOOL ? 1 : INFINITY;
    sdx_lanes_convert(SDX_LANE_F, dtype, 1, &x);
    return x;
}

/* What is summed: |x|, x^2 or exp(x - shift). */
#define EACH(field, expression)                                                                            \
    for (int64_t i = 0; i < n; i++) x[i].field = (expression)

static void map_lanes(reduce_kind kind, bool floats, int64_t n, sdx_lane *x, double shift)
{
    if (kind == LOG_SUM_EXP) EACH(f, exp(x[i].f - shift));
    else if (kind == L1 && floats) EACH(f, fabs(x[i].f));
    else if ((kind == L2 || kind == SUM_SQUARE) && floats) EACH(f, x[i].f * x[i].f);
    else if (kind == SUM_SQUARE) EACH(u, x[i].u * x[i].u);
}

static void absolute(int64_t n, sdx_lane *x)
{
    for (int64_t i = 0; i < n; i++)
        if (x[i].i < 0) x[i].u = 0 - x[i].u;
}

#define FOLD(expression)                                                                                   \
    for (int64_t i = 0; i < n; i++) acc = (expression);                                                    \
    return acc
/* NaN is contagious: acc != acc keeps it, and it is not <= anything. Signed sums wrap, spelled in an unsigned
 * type. */
#define FOLD_FN(name, type, sum_type, field)                                                               \
    static type name(reduce_kind kind, type acc, int64_t n, const sdx_lane *x)                             \
    {                                                                                                      \
        switch (kind) {                                                                                    \
        case MAX: FOLD(acc != acc || x[i].field <= acc ? acc : x[i].field);                                \
        case MIN: FOLD(acc != acc || x[i].field >= acc ? acc : x[i].field);                                \
        case PROD: FOLD((type)((sum_type)acc * (sum_type)x[i].field));                                     \
        default: FOLD((type)((sum_type)acc + (sum_type)x[i].field));                                       \
        }                                                                                                  \
    }
FOLD_FN(fold_f, double, double, f)
FOLD_FN(fold_i, int64_t, uint64_t, i)
FOLD_FN(fold_u, uint64_t, uint64_t, u)

/* Folds everything that belongs to the output whose first element is at `base`. */
static sdx_lane fold_all(const reduce_call *c, reduce_kind kind, int64_t base, sdx_lane acc, double shift)
{
    const sdx_tensor *x = &c->run->in[0];
    const axis_list *r = &c->reduced;
    sdx_lane_kind own = sdx_dtype_lane(x->dtype);
    sdx_lane lane[SDX_LANES];
    int64_t row = r->rank ? r->dim[r->rank - 1] : 1, stride = r->rank ? r->stride[r->rank - 1] : 1;
    for (int64_t at = 0; at < r->count; at += row) {
        int64_t offset = base + list_offset(r, at);
        for (int64_t i = 0; i < row; i += SDX_LANES) {
            int64_t n = row - i < SDX_LANES ? row - i : SDX_LANES;
            sdx_lanes_load(x->dtype, x->data, offset + i * stride, stride, n, lane);
            if (in_double(c)) sdx_lanes_convert(own, SDX_F64, n, lane);
            if (kind == L1 && own == SDX_LANE_I) absolute(n, lane);
            map_lanes(kind, own == SDX_LANE_F || in_double(c), n, lane, shift);
            if (own == SDX_LANE_F || in_double(c)) acc.f = fold_f(kind, acc.f, n, lane);
            else if (own == SDX_LANE_U) acc.u = fold_u(kind, acc.u, n, lane);
            else acc.i = fold_i(kind, acc.i, n, lane);
        }
    }
    return acc;
}

static sdx_lane mean_lane(sdx_lane sum, sdx_lane_kind kind, int64_t n)
{
    if (kind == SDX_LANE_F) sum.f /= (double)n;
    else if (n == 0) sum.i = 0;
    else if (kind == SDX_LANE_U) sum.u /= (uint64_t)n;
    else sum.i /= n;
    return sum;
}

static sdx_lane reduce_one(const reduce_call *c, int64_t base)
{
    sdx_dtype dtype = c->run->in[0].dtype;
    sdx_lane zero = {.f = 0};
    sdx_lane acc = in_double(c) ? zero : start_value(c->kind, dtype);
    if (c->kind == LOG_SUM_EXP) { /* shifted by the maximum, so that exp cannot overflow */
        double shift = fold_all(c, MAX, base, (sdx_lane){.f = -INFINITY}, 0).f;
        if (!isfinite(shift)) shift = 0;
        acc = fold_all(c, LOG_SUM_EXP, base, acc, shift);
        acc.f = log(acc.f) + shift;
    } else {
        acc = fold_all(c, c->kind, base, acc, 0);
    }
    if (c->kind == L2) acc.f = sqrt(acc.f);
    if (c->kind == LOG_SUM) acc.f = log(acc.f);
    if (c->kind == MEAN) return mean_lane(acc, sdx_dtype_lane(dtype), c->reduced.count);
    if (in_double(c)) sdx_lanes_convert(SDX_LANE_F, dtype, 1, &acc);
    return acc;
}

static void reduce_lanes(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const reduce_call *c = context;
    for (int64_t i = begin; i < end; i++) {
        sdx_lane y = reduce_one(c, list_offset(&c->kept, i));
        sdx_lanes_store(c->run->out[0].dtype, &y, 1, c->run->out[0].data, i);
    }
}

/* ---- float32: the last dim ------------------------------------------------------------------------------- */

static void reduce_rows(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const reduce_call *c = context;
    const sdx_kernels *k = c->run->kernels;
    const float *x = c->run->in[0].data;
    float *y = c->run->out[0].data;
    int64_t n = c->reduced.count;
    for (int64_t i = begin; i < end; i++) {
        if (c->kind == MAX) y[i] = k->reduce.max_f32(n, x + i * n);
        else y[i] = k->reduce.sum_f32(n, x + i * n);
        if (c->kind == MEAN) y[i] /= (float)n;
    }
}

/* ---- float32: [outer, R, inner] -------------------------------------------------------------------------- */

enum { COLUMNS = 2048 }; /* of a result row at a time: they stay in the first-level cache while R rows pass */

static void fold_row(const reduce_call *c, int64_t n, const float *x, float *acc)
{
    const sdx_kernels *k = c->run->kernels;
    if (c->kind == MAX) k->reduce.max_rows_f32(n, x, acc);
    else if (c->kind == MIN) k->element.binary_f32[SDX_BINARY_MIN](n, acc, 1, x, 1, acc);
    else k->element.binary_f32[SDX_BINARY_ADD](n, acc, 1, x, 1, acc);
}

/* Blocks [begin, end) of [outer, blocks of columns]. */
static void reduce_columns(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const reduce_call *c = context;
    int64_t rows = c->reduced.count, inner = c->reduced.stride[0], blocks = (inner + COLUMNS - 1) / COLUMNS;
    for (int64_t b = begin; b < end; b++) {
        int64_t outer = b / blocks, column = b % blocks * COLUMNS;
        int64_t n = inner - column < COLUMNS ? inner - column : COLUMNS;
        const float *x = (const float *)c->run->in[0].data + outer * rows * inner + column;
        float *y = (float *)c->run->out[0].data + outer * inner + column;
        memcpy(y, x, (size_t)n * sizeof *y);
        for (int64_t r = 1; r < rows; r++) fold_row(c, n, x + r * inner, y);
        float count = (float)rows;
        if (c->kind == MEAN) c->run->kernels->element.binary_f32[SDX_BINARY_DIV](n, y, 1, &count, 0, y);
    }
}

static sdx_status run_reduce(sdx_run *r, reduce_kind kind)
{
    sdx_shape in = sdx_run_shape(r, 0);
    sdx_ints axes;
    unsigned set;
    TRY(sdx_run_ints(r, "axes", 1, &axes));
    TRY(reduced_set(r->node, &axes, in.rank, &set, r->err));
    reduce_call c = {.run = r, .kind = kind};
    axis_list list[2];
    split_axes(&in, set, list);
    c.kept = list[0];
    c.reduced = list[1];
    int64_t outputs = sdx_tensor_count(&r->out[0]), each = c.reduced.count;
    bool fast = r->in[0].dtype == SDX_F32 && c.reduced.rank == 1 && each > 0;
    bool row = fast && c.reduced.stride[0] == 1 && (kind == SUM || kind == MEAN || kind == MAX);
    bool column =
        fast && c.reduced.stride[0] > 1 && (kind == SUM || kind == MEAN || kind == MAX || kind == MIN);
    if (column) {
        int64_t inner = c.reduced.stride[0], blocks = (inner + COLUMNS - 1) / COLUMNS;
        int64_t work = each * (inner < COLUMNS ? inner : COLUMNS);
        sdx_parallel_for(r->threads, outputs / inner * blocks, 1 + SDX_WALK_GRAIN / work, reduce_columns, &c);
    } else {
        sdx_parallel_for(r->threads, outputs, 1 + SDX_WALK_GRAIN / (each + 1), row ? reduce_rows : reduce_lanes,
                         &c);
    }
    return SDX_OK;
}

/* name, kind: two functions each. */
#define REDUCE_OPS(X)                                                                                      \
    X(ReduceSum, SUM) X(ReduceMean, MEAN) X(ReduceMax, MAX) X(ReduceMin, MIN) X(ReduceProd, PROD)          \
    X(ReduceL1, L1) X(ReduceL2, L2) X(ReduceSumSquare, SUM_SQUARE) X(ReduceLogSum, LOG_SUM)                \
    X(ReduceLogSumExp, LOG_SUM_EXP)
#define FUNCTIONS(name, kind)                                                                              \
    static sdx_status infer_##name(sdx_infer *x) { return infer_reduce(x, kind); }                         \
    static sdx_status run_##name(sdx_run *r) { return run_reduce(r, kind); }
REDUCE_OPS(FUNCTIONS)

/* ---- ArgMax, ArgMin -------------------------------------------------------------------------------------- */

static sdx_status arg_axis(const sdx_node *node, int rank, int *axis, sdx_error *err)
{
    return sdx_axis_normalize(sdx_node_int(node, "axis", 0), rank, axis, err);
}

static sdx_status infer_arg(sdx_infer *x)
{
    const sdx_shape *in = &x->in[0].shape;
    x->out[0].dtype = SDX_I64;
    if (x->in[0].dtype && sdx_dtype_lane(x->in[0].dtype) == SDX_LANE_NONE)
        return sdx_fail(x->err, SDX_ERR_UNSUPPORTED, "it does not take %s", sdx_dtype_name(x->in[0].dtype));
    if (in->rank < 0) return SDX_OK;
    int axis;
    TRY(arg_axis(x->node, in->rank, &axis, x->err));
    if (in->dim[axis] == 0) return sdx_fail(x->err, SDX_ERR_USAGE, "axis %d is empty", axis);
    sdx_shape out = reduced_shape(in, 1u << axis, sdx_node_int(x->node, "keepdims", 1) != 0);
    sdx_infer_set(x, 0, SDX_I64, &out);
    return SDX_OK;
}

typedef struct arg_call {
    const sdx_run *run;
    int64_t n, inner; /* elements along the axis and their stride */
    bool max, last;   /* of equals, the last */
} arg_call;

static bool better(const arg_call *c, sdx_lane_kind kind, sdx_lane x, sdx_lane best)
{
    int order; /* of x against best */
    if (kind == SDX_LANE_F) order = (x.f > best.f) - (x.f < best.f);
    else if (kind == SDX_LANE_U) order = (x.u > best.u) - (x.u < best.u);
    else order = (x.i > best.i) - (x.i < best.i);
    if (order == 0) return c->last && (kind != SDX_LANE_F || x.f == best.f);
    return (order > 0) == c->max;
}

static int64_t find_best(const arg_call *c, int64_t base)
{
    const sdx_tensor *t = &c->run->in[0];
    sdx_lane_kind kind = sdx_dtype_lane(t->dtype);
    sdx_lane x[SDX_LANES], best = {.u = 0};
    int64_t at = -1;
    for (int64_t i = 0; i < c->n; i += SDX_LANES) {
        int64_t n = c->n - i < SDX_LANES ? c->n - i : SDX_LANES;
        sdx_lanes_load(t->dtype, t->data, base + i * c->inner, c->inner, n, x);
        for (int64_t k = 0; k < n; k++) {
            if (at >= 0 && !better(c, kind, x[k], best)) continue;
            best = x[k];
            at = i + k;
        }
    }
    return at;
}

static void arg_range(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const arg_call *c = context;
    for (int64_t i = begin; i < end; i++)
        ((int64_t *)c->run->out[0].data)[i] = find_best(c, i / c->inner * c->inner * c->n + i % c->inner);
}

static sdx_status run_arg(sdx_run *r)
{
    sdx_shape in = sdx_run_shape(r, 0);
    int axis;
    TRY(arg_axis(r->node, in.rank, &axis, r->err));
    arg_call c = {.run = r, .n = in.dim[axis], .inner = sdx_shape_span(&in, axis + 1, in.rank),
                  .max = !strcmp(r->node->op_type, "ArgMax"),
                  .last = sdx_node_int(r->node, "select_last_index", 0) != 0};
    sdx_parallel_for(r->threads, sdx_tensor_count(&r->out[0]), 1 + SDX_WALK_GRAIN / (c.n + 1), arg_range, &c);
    return SDX_OK;
}

/* Axes became an input at 13 for ReduceSum, at 18 for the others. */
#define ROW(name, since, until, max_in)                                                                    \
    {"", #name, since, until, 1, max_in, 1, 1, 0, infer_##name, NULL, NULL, run_##name}
#define ROWS(name) ROW(name, 1, 17, 1), ROW(name, 18, 0, 2)

static const sdx_op_def rows[] = {
    ROW(ReduceSum, 1, 12, 1),
    ROW(ReduceSum, 13, 0, 2),
    ROWS(ReduceMean),
    ROWS(ReduceMax),
    ROWS(ReduceMin),
    ROWS(ReduceProd),
    ROWS(ReduceL1),
    ROWS(ReduceL2),
    ROWS(ReduceSumSquare),
    ROWS(ReduceLogSum),
    ROWS(ReduceLogSumExp),
    {"", "ArgMax", 1, 0, 1, 1, 1, 1, 0, infer_arg, NULL, NULL, run_arg},
    {"", "ArgMin", 1, 0, 1, 1, 1, 1, 0, infer_arg, NULL, NULL, run_arg},
};

SDX_OP_TABLE(reduce);
