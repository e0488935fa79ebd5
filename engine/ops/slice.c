/* slice.c: Slice is a strided copy. Pad is a copy through one table per axis that says which input row, if any,
 * a row of the result shows: the modes differ in the table alone. */
#include "contents.h"
#include "copy.h"

#include <string.h>

/* ---- Slice ----------------------------------------------------------------------------------------------- */

typedef struct slice_args {
    sdx_ints starts, ends, axes, steps;
} slice_args;

enum { STARTS, ENDS, AXES, STEPS, N_LISTS };
static const char *const list_name[] = {"starts", "ends", "axes",
                                        "steps"}; /* attributes in Slice-1, inputs 1.. since 10 */

static sdx_status check_lists(const slice_args *a, sdx_error *err)
{
    int n = a->starts.count;
    bool same = (a->ends.count < 0 || n < 0 || a->ends.count == n) &&
                (!a->axes.present || a->axes.count < 0 || n < 0 || a->axes.count == n) &&
                (!a->steps.present || a->steps.count < 0 || n < 0 || a->steps.count == n);
    if (same) return SDX_OK;
    return sdx_fail(err, SDX_ERR_USAGE, "starts, ends, axes and steps have %d, %d, %d and %d numbers", n,
                    a->ends.count, a->axes.count, a->steps.count);
}

/* First index, step and count of the result for axis entry i over a dim of known size. */
typedef struct span {
    int64_t start, step, count;
} span;

static sdx_status clamp_span(int64_t start, int64_t end, int64_t step, int64_t dim, span *out, sdx_error *err)
{
    if (step == 0) return sdx_fail(err, SDX_ERR_USAGE, "a step is 0");
    if (start < 0) start += dim;
    if (end < 0 && end >= -dim) end += dim; /* beyond that: before the first element */
    int64_t low = step < 0 ? -1 : 0, high = step < 0 ? dim - 1 : dim;
    start = start < 0 ? 0 : start;
    start = start > high ? high : start;
    end = end < low ? low : end > dim ? dim : end;
    out->start = start;
    out->step = step;
    /* Distances are at most dim, so that even a step of INT64_MIN cannot overflow the division. */
    if (step > 0) out->count = end > start ? (end - start - 1) / step + 1 : 0;
    else out->count = start > end ? (step == INT64_MIN ? 0 : (start - end - 1) / -step) + 1 : 0;
    if (out->count == 1) out->step = 0; /* never taken */
    return SDX_OK;
}

static sdx_status entry_axis(const slice_args *a, int i, int rank, unsigned *seen, int *axis, sdx_error *err)
{
    TRY(sdx_axis_normalize(a->axes.present ? a->axes.v[i] : i, rank, axis, err));
    if (*seen & 1u << *axis) return sdx_fail(err, SDX_ERR_USAGE, "axis %d is sliced twice", *axis);
    *seen |= 1u << *axis;
    return SDX_OK;
}

static sdx_status infer_lists(sdx_infer *x, slice_args *a)
{
    sdx_ints *list[] = {&a->starts, &a->ends, &a->axes, &a->steps};
    for (int i = 0; i < N_LISTS; i++) TRY(sdx_infer_ints(x, list_name[i], 1 + i, list[i]));
    return check_lists(a, x->err);
}

/* Element i of input 1 + list, or of the attribute. */
static sdx_element list_element(sdx_infer *x, int list, const sdx_ints *ints, int i)
{
    int n;
    const sdx_element *e = sdx_infer_contents(x, 1 + list, &n);
    if (e && i < n) return e[i];
    return ints->known && i < ints->count ? sdx_element_number(ints->v[i]) : SDX_ELEMENT_NONE;
}

/* An index counted from the end is the dim plus it. Unknown when its sign is. */
static sdx_element from_front(sdx_model *model, sdx_element at, sdx_element dim)
{
    if (sdx_element_nonnegative(model, at)) return at;
    sdx_element distance = sdx_model_arith(model, '-', sdx_element_number(0), at);
    if (!sdx_element_nonnegative(model, distance)) return SDX_ELEMENT_NONE;
    sdx_element index = sdx_model_arith(model, '+', dim, at);
    return sdx_element_nonnegative(model, index) ? index : SDX_ELEMENT_NONE;
}

/* The sliced size where start, end or the dim itself is not a number. Of a table with as many rows as the model has
 * positions, the first `sequence`: it fits, or the run fails. Elsewhere an end may lie beyond the dim. */
static sdx_dim symbolic_size(sdx_model *model, sdx_element start, sdx_element end, int64_t step, sdx_dim dim)
{
    sdx_element size = sdx_element_from_dim(dim);
    start = from_front(model, start, size);
    if (step != 1 || start.symbol == SDX_ELEMENT_UNKNOWN) return SDX_DIM_UNKNOWN;
    if (sdx_element_is_number(end) && end.number >= INT32_MAX) end = size; /* exporters write either limit */
    bool fits = dim >= 0 || !sdx_element_nonnegative(model, end);
    end = from_front(model, end, size);
    if (end.symbol == SDX_ELEMENT_UNKNOWN) return SDX_DIM_UNKNOWN;
    fits |= sdx_element_nonnegative(model, sdx_model_arith(model, '-', size, end));
    sdx_element left = sdx_model_arith(model, '-', end, start);
    return fits && sdx_element_nonnegative(model, left) ? sdx_element_to_dim(left) : SDX_DIM_UNKNOWN;
}

static sdx_status slice_dim(sdx_infer *x, const slice_args *a, int i, sdx_dim *dim, span *s)
{
    sdx_element start = list_element(x, STARTS, &a->starts, i), end = list_element(x, ENDS, &a->ends, i);
    int64_t step = a->steps.present && a->steps.known ? a->steps.v[i] : 1;
    s->count = -1;
    if (a->steps.present && !a->steps.known) {
        *dim = SDX_DIM_UNKNOWN;
    } else if (*dim >= 0 && sdx_element_is_number(start) && sdx_element_is_number(end)) {
        TRY(clamp_span(start.number, end.number, step, *dim, s, x->err));
        *dim = s->count;
    } else {
        *dim = symbolic_size(x->model, start, end, step, *dim);
    }
    return SDX_OK;
}

static void slice_contents(sdx_infer *x, const span *s)
{
    int n;
    const sdx_element *from = sdx_infer_contents(x, 0, &n);
    sdx_element *e = from && s->count >= 0 ? sdx_infer_new_contents(x, s->count) : NULL;
    for (int64_t i = 0; e && i < s->count; i++) e[i] = from[s->start + i * s->step];
    sdx_infer_set_contents(x, 0, e, s->count);
}

static sdx_status infer_slice(sdx_infer *x)
{
    slice_args a;
    TRY(infer_lists(x, &a));
    sdx_shape out = x->in[0].shape;
    x->out[0].dtype = x->in[0].dtype;
    if (out.rank < 0) return SDX_OK;
    bool which = a.axes.known && a.starts.count >= 0; /* are the sliced axes known? */
    span s = {.count = -1};
    unsigned seen = 0;
    for (int i = 0; which && i < a.starts.count; i++) {
        int axis;
        TRY(entry_axis(&a, i, out.rank, &seen, &axis, x->err));
        TRY(slice_dim(x, &a, i, &out.dim[axis], &s));
    }
    for (int i = 0; !which && i < out.rank; i++) out.dim[i] = SDX_DIM_UNKNOWN;
    sdx_infer_set(x, 0, x->in[0].dtype, &out);
    if (out.rank == 1 && a.starts.count == 1) slice_contents(x, &s);
    return SDX_OK;
}

static sdx_status run_slice(sdx_run *r)
{
    slice_args a;
    sdx_ints *list[] = {&a.starts, &a.ends, &a.axes, &a.steps};
    for (int i = 0; i < N_LISTS; i++) TRY(sdx_run_ints(r, list_name[i], 1 + i, list[i]));
    TRY(check_lists(&a, r->err));
    sdx_shape in = sdx_run_shape(r, 0), out = sdx_tensor_shape(&r->out[0]);
    sdx_copy c = {.rank = in.rank, .dst = r->out[0].data, .size = sdx_element_size(r->in[0].dtype)};
    sdx_shape_strides(&in, c.src_stride);
    sdx_shape_strides(&out, c.dst_stride);
    int64_t first = 0;
    unsigned seen = 0;
    for (int i = 0; i < a.starts.count; i++) {
        int axis;
        span s;
        TRY(entry_axis(&a, i, in.rank, &seen, &axis, r->err));
        TRY(clamp_span(a.starts.v[i], a.ends.v[i], a.steps.present ? a.steps.v[i] : 1, in.dim[axis], &s,
                       r->err));
        if (s.count == 0) return SDX_OK;
        first += s.start * c.src_stride[axis];
        c.src_stride[axis] *= s.step;
    }
    memcpy(c.dim, out.dim, sizeof out.dim);
    c.src = (const char *)r->in[0].data + first * (int64_t)c.size;
    sdx_copy_strided(&c, r->threads);
    return SDX_OK;
}

/* ---- Pad ------------------------------------------------------------------------------------------------- */

typedef enum pad_mode { PAD_CONSTANT, PAD_EDGE, PAD_REFLECT, PAD_WRAP, N_PAD_MODE } pad_mode;

static sdx_status read_mode(const sdx_node *node, pad_mode *mode, sdx_error *err)
{
    static const char *const name[] = {"constant", "edge", "reflect", "wrap"};
    const char *wanted = sdx_node_string(node, "mode", "constant");
    for (*mode = PAD_CONSTANT; *mode < N_PAD_MODE && strcmp(wanted, name[*mode]);) ++*mode;
    if (*mode < N_PAD_MODE) return SDX_OK;
    return sdx_fail(err, SDX_ERR_UNSUPPORTED, "mode \"%.40s\" is not known", wanted);
}

/* pads is [begins..., ends...] over the axes given (Pad-18), or over all: to before[rank] and after[rank]. */
static sdx_status spread_pads(const sdx_ints *pads, const sdx_ints *axes, int rank, int64_t *before,
                              int64_t *after, sdx_error *err)
{
    int n = axes->present ? axes->count : rank;
    if (pads->count != 2 * n)
        return sdx_fail(err, SDX_ERR_USAGE, "pads has %d numbers for %d axes", pads->count, n);
    unsigned seen;
    if (axes->present) TRY(sdx_axes_to_set(axes, rank, &seen, err));
    for (int i = 0; i < rank; i++) before[i] = after[i] = 0;
    for (int i = 0; i < n; i++) {
        int axis = i;
        if (axes->present) TRY(sdx_axis_normalize(axes->v[i], rank, &axis, err));
        before[axis] = pads->v[i];
        after[axis] = pads->v[n + i];
    }
    return SDX_OK;
}

static sdx_status padded_size(sdx_infer *x, pad_mode mode, sdx_dim dim, int64_t before, int64_t after,
                              sdx_dim *out)
{
    sdx_element e = sdx_model_arith(x->model, '+', sdx_element_from_dim(dim), sdx_element_number(before));
    e = sdx_model_arith(x->model, '+', e, sdx_element_number(after));
    if (sdx_element_is_number(e) && e.number < 0)
        return sdx_fail(x->err, SDX_ERR_USAGE, "pads %lld and %lld take more than the %lld there are",
                        (long long)before, (long long)after, (long long)dim);
    if (mode != PAD_CONSTANT && dim == 0 && sdx_element_is_number(e) && e.number > 0)
        return sdx_fail(x->err, SDX_ERR_USAGE, "an empty dim can only be padded with a constant");
    *out = sdx_element_to_dim(e);
    return SDX_OK;
}

static sdx_status infer_pad(sdx_infer *x)
{
    sdx_ints pads, axes;
    pad_mode mode;
    TRY(read_mode(x->node, &mode, x->err));
    TRY(sdx_infer_ints(x, "pads", 1, &pads));
    TRY(sdx_infer_ints(x, NULL, 3, &axes));
    sdx_shape out = x->in[0].shape;
    bool known = pads.known && axes.known;
    int64_t before[SDX_MAX_RANK], after[SDX_MAX_RANK];
    if (out.rank >= 0 && known) TRY(spread_pads(&pads, &axes, out.rank, before, after, x->err));
    for (int i = 0; i < out.rank; i++) {
        if (!known) out.dim[i] = SDX_DIM_UNKNOWN;
        else TRY(padded_size(x, mode, out.dim[i], before[i], after[i], &out.dim[i]));
    }
    sdx_infer_set(x, 0, x->in[0].dtype, &out);
    return SDX_OK;
}

/* One table entry per index of every axis of the result. */
static sdx_status plan_pad(sdx_plan_step *p)
{
    size_t n = 0;
    for (int i = 0; i < p->out[0].shape.rank; i++)
        if (!sdx_add_size(n, (size_t)p->out[0].shape.dim[i], &n)) return sdx_fail_memory(p->err, n);
    if (!sdx_mul_size(n, sizeof(int64_t), &p->workspace)) return sdx_fail_memory(p->err, n);
    return SDX_OK;
}

/* Input index shown at position i (which may be negative) of a dim, or -1 for the constant. */
static int64_t pad_source(pad_mode mode, int64_t i, int64_t dim)
{
    if (i >= 0 && i < dim) return i;
    if (mode == PAD_CONSTANT) return -1;
    if (mode == PAD_EDGE || dim == 1) return i < 0 ? 0 : dim - 1;
    int64_t period = mode == PAD_WRAP ? dim : 2 * (dim - 1), k = i % period;
    if (k < 0) k += period;
    return k < dim ? k : period - k;
}

typedef struct pad_call {
    sdx_shape out;
    const int64_t *map[SDX_MAX_RANK];
    int64_t stride[SDX_MAX_RANK]; /* of the input, elements */
    const char *src, *value;
    char *dst;
    size_t size;
} pad_call;

static void fill(char *dst, const char *value, size_t size, int64_t n)
{
    for (int64_t i = 0; i < n; i++) memcpy(dst + (size_t)i * size, value, size);
}

/* Rows [begin, end) of the result, a row being its last dim. */
static void pad_rows(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const pad_call *c = context;
    int last = c->out.rank - 1;
    int64_t n = c->out.dim[last];
    for (int64_t row = begin; row < end; row++) {
        char *dst = c->dst + (size_t)(row * n) * c->size;
        int64_t offset = 0, rest = row;
        bool inside = true;
        for (int i = last - 1; i >= 0; rest /= c->out.dim[i--]) {
            int64_t k = c->map[i][rest % c->out.dim[i]];
            inside &= k >= 0;
            offset += k * c->stride[i];
        }
        if (!inside) fill(dst, c->value, c->size, n);
        for (int64_t i = 0; inside && i < n; i++) {
            int64_t k = c->map[last][i];
            memcpy(dst + (size_t)i * c->size, k < 0 ? c->value : c->src + (size_t)(offset + k) * c->size,
                   c->size);
        }
    }
}

/* The constant: input 2, the attribute of Pad-2 (float32), or zero bytes. */
static sdx_status read_value(sdx_run *r, const char **value, float *own)
{
    static const char zero[16];
    static const char *const empty = "";
    *value = r->in[0].dtype == SDX_STRING ? (const char *)&empty : zero;
    if (sdx_run_has_in(r, 2)) {
        if (r->in[2].dtype != r->in[0].dtype || sdx_tensor_count(&r->in[2]) != 1)
            return sdx_fail(r->err, SDX_ERR_USAGE, "the constant value must be one %s",
                            sdx_dtype_name(r->in[0].dtype));
        *value = r->in[2].data;
    } else if (sdx_node_attr(r->node, "value")) {
        *own = sdx_node_float(r->node, "value", 0);
        if (r->in[0].dtype != SDX_F32 && *own != 0)
            return sdx_fail(r->err, SDX_ERR_UNSUPPORTED, "an attribute \"value\" for %s",
                            sdx_dtype_name(r->in[0].dtype));
        if (r->in[0].dtype == SDX_F32) *value = (const char *)own;
    }
    return SDX_OK;
}

static sdx_status run_pad(sdx_run *r)
{
    sdx_shape in = sdx_run_shape(r, 0);
    pad_call c = {.out = sdx_tensor_shape(&r->out[0]), .src = r->in[0].data, .dst = r->out[0].data,
                  .size = sdx_element_size(r->in[0].dtype)};
    sdx_ints pads, axes;
    pad_mode mode;
    float own;
    int64_t before[SDX_MAX_RANK], after[SDX_MAX_RANK];
    TRY(read_mode(r->node, &mode, r->err));
    TRY(sdx_run_ints(r, "pads", 1, &pads));
    TRY(sdx_run_ints(r, NULL, 3, &axes));
    TRY(spread_pads(&pads, &axes, in.rank, before, after, r->err));
    TRY(read_value(r, &c.value, &own));
    if (in.rank == 0) return sdx_run_copy(r);
    sdx_shape_strides(&in, c.stride);
    int64_t *map = r->workspace;
    for (int i = 0; i < in.rank; i++) {
        c.map[i] = map;
        for (int64_t k = 0; k < c.out.dim[i]; k++) *map++ = pad_source(mode, k - before[i], in.dim[i]);
    }
    int64_t n = c.out.dim[in.rank - 1], rows = sdx_shape_span(&c.out, 0, in.rank - 1);
    sdx_parallel_for(r->threads, rows, 1 + 16384 / (n + 1), pad_rows, &c);
    return SDX_OK;
}

static const sdx_op_def rows[] = {
    {"", "Slice", 1, 9, 1, 1, 1, 1, SDX_OP_ANY_ALIGNMENT, infer_slice, NULL, NULL, run_slice},
    {"", "Slice", 10, 0, 3, 5, 1, 1, SDX_OP_ANY_ALIGNMENT, infer_slice, NULL, NULL, run_slice},
    {"", "Pad", 2, 10, 1, 1, 1, 1, SDX_OP_ANY_ALIGNMENT, infer_pad, NULL, plan_pad, run_pad},
    {"", "Pad", 11, 17, 2, 3, 1, 1, SDX_OP_ANY_ALIGNMENT, infer_pad, NULL, plan_pad, run_pad},
    {"", "Pad", 18, 0, 2, 4, 1, 1, SDX_OP_ANY_ALIGNMENT, infer_pad, NULL, plan_pad, run_pad},
    {"com.microsoft", "Pad", 1, 0, 2, 3, 1, 1, SDX_OP_ANY_ALIGNMENT, infer_pad, NULL, plan_pad, run_pad},
};

SDX_OP_TABLE(slice);
