/* indexing.c: tensors made from indices, counts and positions. */
#include "contents.h"
#include "copy.h"
#include "lanes.h"

#include <math.h>
#include <string.h>

/* One value of any numeric type, from a constant at any alignment; false when it is not known. */
static bool constant_lane(const sdx_type *type, sdx_lane *out)
{
    sdx_dtype t = type->dtype;
    if (!type->constant || sdx_dtype_lane(t) == SDX_LANE_NONE || sdx_tensor_count(type->constant) != 1)
        return false;
    uint64_t word = 0;
    memcpy(&word, type->constant->data, sdx_dtype_size(t));
    sdx_lanes_load(t, &word, 0, 1, 1, out);
    return true;
}

static sdx_status want_numeric(const sdx_infer *x, int i)
{
    sdx_dtype t = x->in[i].dtype;
    if (t == SDX_UNDEFINED || sdx_dtype_lane(t) != SDX_LANE_NONE) return SDX_OK;
    return sdx_fail(x->err, SDX_ERR_UNSUPPORTED, "input %d is %s, a type it does not take", i,
                    sdx_dtype_name(t));
}

/* Repeats one element over a whole tensor. */
static void fill(sdx_run *r, sdx_tensor *y, const void *element)
{
    sdx_copy c = {.rank = 1, .dim = {sdx_tensor_count(y)}, .src_stride = {0}, .dst_stride = {1}, .src = element,
                  .dst = y->data, .size = sdx_element_size(y->dtype)};
    sdx_copy_strided(&c, r->threads);
}

/* ---- Constant -------------------------------------------------------------------------------------------- */

static sdx_status list_tensor(sdx_infer *x, sdx_dtype dtype, size_t count, const void *data, sdx_tensor **out)
{
    ARENA_NEW(x->arena, *out, 1, x->err);
    **out = (sdx_tensor){.dtype = dtype, .rank = 1, .dim = {(int64_t)count}, .data = (void *)data};
    return SDX_OK;
}

/* Whichever of the value attributes is there, as a tensor in the model's or infer's memory. */
static sdx_status constant_value(sdx_infer *x, sdx_tensor **out)
{
    *out = NULL;
    for (int i = 0; i < x->node->n_attr; i++) {
        const sdx_attr *a = &x->node->attr[i];
        if ((!strcmp(a->name, "value") || !strcmp(a->name, "sparse_value")) && a->tensor) {
            *out = (sdx_tensor *)a->tensor;
            return SDX_OK;
        }
        if (!strcmp(a->name, "value_floats")) return list_tensor(x, SDX_F32, a->count, a->floats, out);
        if (!strcmp(a->name, "value_ints")) return list_tensor(x, SDX_I64, a->count, a->ints, out);
        if (!strcmp(a->name, "value_strings")) return list_tensor(x, SDX_STRING, a->count, a->strings, out);
        bool scalar = true;
        if (!strcmp(a->name, "value_float")) TRY(list_tensor(x, SDX_F32, 1, &a->f, out));
        else if (!strcmp(a->name, "value_int")) TRY(list_tensor(x, SDX_I64, 1, &a->i, out));
        else if (!strcmp(a->name, "value_string")) TRY(list_tensor(x, SDX_STRING, 1, &a->s, out));
        else scalar = false;
        if (scalar) (*out)->rank = 0;
    }
    if (*out) return SDX_OK;
    return sdx_fail(x->err, SDX_ERR_UNSUPPORTED, "it has no value that is supported");
}

static sdx_status infer_constant(sdx_infer *x)
{
    sdx_tensor *value;
    TRY(constant_value(x, &value));
    sdx_shape shape = sdx_tensor_shape(value);
    sdx_infer_set(x, 0, value->dtype, &shape);
    x->out[0].constant = value;
    sdx_lane_kind kind = sdx_dtype_lane(value->dtype);
    int64_t n = sdx_tensor_count(value);
    bool ints = kind == SDX_LANE_I || kind == SDX_LANE_U;
    sdx_element *e = ints ? sdx_infer_new_contents(x, n) : NULL;
    for (int64_t i = 0; e && i < n; i++) e[i] = sdx_element_number(sdx_tensor_index(value, i));
    sdx_infer_set_contents(x, 0, e, n);
    return SDX_OK;
}

static sdx_status run_constant(sdx_run *r)
{
    sdx_arena arena;
    sdx_arena_init(&arena);
    sdx_type out = {.dtype = SDX_UNDEFINED};
    sdx_infer x = {.node = r->node, .n_out = 1, .out = &out, .arena = &arena, .err = r->err};
    sdx_tensor *value;
    sdx_status status = constant_value(&x, &value);
    if (status == SDX_OK) {
        size_t bytes = (size_t)sdx_tensor_count(value) * sdx_element_size(value->dtype);
        if (bytes) memcpy(r->out[0].data, value->data, bytes);
    }
    sdx_arena_fini(&arena);
    return status;
}

/* ---- ConstantOfShape ------------------------------------------------------------------------------------- */

static sdx_status fill_value(const sdx_node *node, sdx_dtype *dtype, const void **element, sdx_error *err)
{
    static const float zero = 0;
    const sdx_attr *a = sdx_node_attr(node, "value");
    *dtype = a && a->tensor ? a->tensor->dtype : SDX_F32;
    *element = a && a->tensor ? a->tensor->data : &zero;
    if (a && a->tensor && (sdx_tensor_count(a->tensor) != 1 || sdx_dtype_lane(*dtype) == SDX_LANE_NONE))
        return sdx_fail(err, SDX_ERR_USAGE, "its value must be one number");
    return SDX_OK;
}

static sdx_status infer_constant_of_shape(sdx_infer *x)
{
    sdx_dtype dtype;
    const void *element;
    sdx_shape shape;
    TRY(fill_value(x->node, &dtype, &element, x->err));
    TRY(sdx_infer_shape_input(x, 0, &shape));
    sdx_infer_set(x, 0, dtype, &shape);
    int64_t n = sdx_shape_count(&shape);
    sdx_lane_kind kind = sdx_dtype_lane(dtype);
    sdx_element *e = kind == SDX_LANE_F ? NULL : sdx_infer_new_contents(x, n);
    sdx_tensor one = {.dtype = dtype, .data = (void *)element};
    for (int64_t i = 0; e && i < n; i++) e[i] = sdx_element_number(sdx_tensor_index(&one, 0));
    sdx_infer_set_contents(x, 0, e, n);
    return SDX_OK;
}

static sdx_status run_constant_of_shape(sdx_run *r)
{
    sdx_dtype dtype;
    const void *element;
    TRY(fill_value(r->node, &dtype, &element, r->err));
    fill(r, &r->out[0], element);
    return SDX_OK;
}

/* ---- Range ----------------------------------------------------------------------------------------------- */

/* max(ceil((limit - start) / delta), 0). Integers in unsigned differences, which cannot overflow. */
static sdx_status range_count(sdx_dtype dtype, const sdx_lane v[3], int64_t *count, sdx_error *err)
{
    bool floats = sdx_dtype_lane(dtype) == SDX_LANE_F;
    if (floats ? v[2].f == 0 : v[2].i == 0) return sdx_fail(err, SDX_ERR_USAGE, "delta is 0");
    if (floats) {
        double n = ceil((v[1].f - v[0].f) / v[2].f);
        if (!(n < 0x1p62)) return sdx_fail(err, SDX_ERR_USAGE, "a range of %g elements", n);
        *count = n > 0 ? (int64_t)n : 0;
        return SDX_OK;
    }
    bool up = v[2].i > 0;
    uint64_t distance = up ? v[1].u - v[0].u : v[0].u - v[1].u, step = up ? v[2].u : 0 - v[2].u;
    bool empty = up ? v[1].i <= v[0].i : v[1].i >= v[0].i;
    uint64_t n = empty ? 0 : (distance - 1) / step + 1;
    if (n > INT64_MAX) return sdx_fail(err, SDX_ERR_USAGE, "a range of %llu elements", (unsigned long long)n);
    *count = (int64_t)n;
    return SDX_OK;
}

/* All three as numbers: constants, or contents. */
static sdx_lane one_of(sdx_dtype dtype)
{
    return sdx_dtype_lane(dtype) == SDX_LANE_F ? (sdx_lane){.f = 1} : (sdx_lane){.i = 1};
}

static bool range_numbers(sdx_infer *x, sdx_lane v[3], sdx_element e[3])
{
    bool known = true;
    for (int i = 0; i < 3; i++) {
        int n;
        if (i == 2 && !sdx_infer_has(x, i)) { /* as com.microsoft allows */
            e[i] = sdx_element_number(1);
            v[i] = one_of(x->in[0].dtype);
            continue;
        }
        const sdx_element *c = sdx_infer_contents(x, i, &n);
        e[i] = c && n == 1 ? c[0] : SDX_ELEMENT_NONE;
        if (sdx_element_is_number(e[i])) v[i].i = e[i].number;
        else known &= constant_lane(&x->in[i], &v[i]);
    }
    return known;
}

static sdx_status infer_range(sdx_infer *x)
{
    sdx_dtype dtype = x->in[0].dtype;
    for (int i = 0; i < x->n_in; i++) TRY(want_numeric(x, i));
    sdx_lane v[3];
    sdx_element e[3];
    sdx_shape out = {.rank = 1, .dim = {SDX_DIM_UNKNOWN}};
    if (range_numbers(x, v, e)) {
        TRY(range_count(dtype, v, &out.dim[0], x->err));
        sdx_element *to = sdx_dtype_is_integer(dtype) ? sdx_infer_new_contents(x, out.dim[0]) : NULL;
        for (int64_t i = 0; to && i < out.dim[0]; i++) to[i] = sdx_element_number(v[0].i + i * v[2].i);
        sdx_infer_set_contents(x, 0, to, out.dim[0]);
    } else if (sdx_element_is_number(e[2]) && e[2].number == 1) { /* arange(length) */
        sdx_element n = sdx_model_arith(x->model, '-', e[1], e[0]);
        if (sdx_element_nonnegative(x->model, n)) out.dim[0] = sdx_element_to_dim(n);
    }
    sdx_infer_set(x, 0, dtype, &out);
    return SDX_OK;
}

static sdx_status run_range(sdx_run *r)
{
    sdx_lane v[3], y[SDX_LANES];
    sdx_tensor *out = &r->out[0];
    int64_t count;
    v[2] = one_of(out->dtype);
    for (int i = 0; i < (sdx_run_has_in(r, 2) ? 3 : 2); i++) {
        if (r->in[i].dtype != out->dtype || sdx_tensor_count(&r->in[i]) != 1)
            return sdx_fail(r->err, SDX_ERR_USAGE, "start, limit and delta must be scalars of one type");
        sdx_lanes_load(r->in[i].dtype, r->in[i].data, 0, 1, 1, &v[i]);
    }
    TRY(range_count(out->dtype, v, &count, r->err));
    bool floats = sdx_dtype_lane(out->dtype) == SDX_LANE_F;
    for (int64_t at = 0; at < count; at += SDX_LANES) {
        int64_t n = count - at < SDX_LANES ? count - at : SDX_LANES;
        for (int64_t i = 0; i < n; i++) {
            if (floats) y[i].f = v[0].f + (double)(at + i) * v[2].f;
            else y[i].u = v[0].u + (uint64_t)(at + i) * v[2].u;
        }
        sdx_lanes_store(out->dtype, y, n, out->data, at);
    }
    return SDX_OK;
}

/* ---- NonZero: its size is known only by looking ---------------------------------------------------------- */

static sdx_status infer_nonzero(sdx_infer *x)
{
    TRY(want_numeric(x, 0));
    int rank = x->in[0].shape.rank;
    sdx_shape out = {.rank = 2, .dim = {rank < 0 ? SDX_DIM_UNKNOWN : rank, SDX_DIM_UNKNOWN}};
    sdx_infer_set(x, 0, SDX_I64, &out);
    return SDX_OK;
}

/* Up to SDX_LANES truth values from `at` on. float32, the weights of a vocabulary, takes no detour over double. */
static int64_t load_truth(const sdx_tensor *t, int64_t at, int64_t count, sdx_lane *x)
{
    int64_t n = count - at < SDX_LANES ? count - at : SDX_LANES;
    if (t->dtype == SDX_F32) {
        const float *value = (const float *)t->data + at;
        for (int64_t i = 0; i < n; i++) x[i].i = value[i] != 0;
        return n;
    }
    sdx_lanes_load(t->dtype, t->data, at, 1, n, x);
    sdx_lanes_convert(sdx_dtype_lane(t->dtype), SDX_BOOL, n, x);
    return n;
}

/* Coordinates of the next element. */
static void step(const sdx_shape *s, int64_t *coordinate)
{
    for (int k = s->rank - 1; k >= 0 && ++coordinate[k] == s->dim[k]; k--) coordinate[k] = 0;
}

static sdx_status run_nonzero(sdx_run *r)
{
    const sdx_tensor *t = &r->in[0];
    int64_t count = sdx_tensor_count(t), found = 0, coordinate[SDX_MAX_RANK] = {0};
    sdx_shape in = sdx_run_shape(r, 0);
    sdx_lane x[SDX_LANES];
    for (int64_t at = 0, n; at < count; at += n) {
        n = load_truth(t, at, count, x);
        for (int64_t i = 0; i < n; i++) found += x[i].i != 0;
    }
    sdx_shape out = {.rank = 2, .dim = {in.rank, found}};
    TRY(r->allocate(r, 0, SDX_I64, &out));
    int64_t *y = r->out[0].data;
    for (int64_t at = 0, n, column = 0; at < count; at += n) {
        n = load_truth(t, at, count, x);
        for (int64_t i = 0; i < n; i++, step(&in, coordinate)) {
            if (!x[i].i) continue;
            for (int k = 0; k < in.rank; k++) y[k * found + column] = coordinate[k];
            column++;
        }
    }
    return SDX_OK;
}

/* ---- CumSum and CumProd ---------------------------------------------------------------------------------- */

static sdx_status infer_cumulate(sdx_infer *x)
{
    TRY(want_numeric(x, 0));
    return sdx_infer_same(x);
}

typedef struct cumulate_call {
    const sdx_run *run;
    int64_t n, inner, blocks; /* length of the axis; elements behind it, in blocks of SDX_LANES */
    bool exclusive, reverse, product;
} cumulate_call;

static void cumulate_row(const cumulate_call *c, bool floats, int64_t n, const sdx_lane *x, sdx_lane *total)
{
    for (int64_t i = 0; i < n; i++) {
        if (floats) total[i].f = c->product ? total[i].f * x[i].f : total[i].f + x[i].f;
        else total[i].u = c->product ? total[i].u * x[i].u : total[i].u + x[i].u;
    }
}

static void cumulate_range(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const cumulate_call *c = context;
    const sdx_tensor *in = &c->run->in[0], *out = &c->run->out[0];
    bool floats = sdx_dtype_lane(in->dtype) == SDX_LANE_F;
    for (int64_t b = begin; b < end; b++) {
        int64_t column = b % c->blocks * SDX_LANES, base = b / c->blocks * c->n * c->inner + column;
        int64_t width = c->inner - column < SDX_LANES ? c->inner - column : SDX_LANES;
        sdx_lane total[SDX_LANES], x[SDX_LANES];
        for (int64_t i = 0; i < width; i++) {
            if (floats) total[i].f = c->product;
            else total[i].u = c->product;
        }
        for (int64_t k = 0; k < c->n; k++) {
            int64_t at = base + (c->reverse ? c->n - 1 - k : k) * c->inner;
            sdx_lanes_load(in->dtype, in->data, at, 1, width, x);
            if (c->exclusive) sdx_lanes_store(out->dtype, total, width, out->data, at);
            cumulate_row(c, floats, width, x, total);
            if (!c->exclusive) sdx_lanes_store(out->dtype, total, width, out->data, at);
        }
    }
}

static sdx_status run_cumulate(sdx_run *r)
{
    sdx_shape in = sdx_run_shape(r, 0);
    sdx_ints given;
    int axis;
    TRY(sdx_run_ints(r, NULL, 1, &given));
    if (given.count != 1) return sdx_fail(r->err, SDX_ERR_USAGE, "the axis must be one integer");
    TRY(sdx_axis_normalize(given.v[0], in.rank, &axis, r->err));
    cumulate_call c = {.run = r, .n = in.dim[axis], .inner = sdx_shape_span(&in, axis + 1, in.rank),
                     .exclusive = sdx_node_int(r->node, "exclusive", 0) != 0,
                     .reverse = sdx_node_int(r->node, "reverse", 0) != 0,
                     .product = !strcmp(r->node->op_type, "CumProd")};
    c.blocks = (c.inner + SDX_LANES - 1) / SDX_LANES;
    int64_t outer = sdx_shape_span(&in, 0, axis);
    sdx_parallel_for(r->threads, outer * c.blocks, 1 + SDX_WALK_GRAIN / (c.n + 1), cumulate_range, &c);
    return SDX_OK;
}

/* ---- Trilu ----------------------------------------------------------------------------------------------- */

static sdx_status infer_trilu(sdx_infer *x)
{
    int rank = x->in[0].shape.rank;
    if (rank >= 0 && rank < 2) return sdx_fail(x->err, SDX_ERR_USAGE, "it needs a matrix, not rank %d", rank);
    if (x->in[0].dtype == SDX_STRING) /* which has no zero */
        return sdx_fail(x->err, SDX_ERR_UNSUPPORTED, "it does not take strings");
    return sdx_infer_same(x);
}

static int64_t clamp(int64_t v, int64_t low, int64_t high) { return v < low ? low : v > high ? high : v; }

static sdx_status run_trilu(sdx_run *r)
{
    sdx_shape in = sdx_run_shape(r, 0);
    sdx_ints diagonal;
    TRY(sdx_run_ints(r, NULL, 1, &diagonal));
    if (diagonal.present && diagonal.count != 1)
        return sdx_fail(r->err, SDX_ERR_USAGE, "k must be one integer");
    int64_t rows = in.dim[in.rank - 2], columns = in.dim[in.rank - 1];
    /* Beyond these limits nothing changes any more. */
    int64_t k = diagonal.present ? clamp(diagonal.v[0], -rows, columns) : 0;
    bool upper = sdx_node_int(r->node, "upper", 1) != 0;
    size_t size = sdx_element_size(r->in[0].dtype);
    TRY(sdx_run_copy(r));
    for (int64_t i = 0, n = sdx_shape_span(&in, 0, in.rank - 1); i < n; i++) {
        int64_t edge = clamp(i % rows + k + !upper, 0, columns); /* first column of the upper part */
        char *row = (char *)r->out[0].data + (size_t)(i * columns) * size;
        if (upper) memset(row, 0, (size_t)edge * size);
        else memset(row + (size_t)edge * size, 0, (size_t)(columns - edge) * size);
    }
    return SDX_OK;
}

/* ---- EyeLike --------------------------------------------------------------------------------------------- */

static sdx_status infer_eye(sdx_infer *x)
{
    int64_t dtype = sdx_node_int(x->node, "dtype", (int64_t)x->in[0].dtype);
    if (dtype && (dtype < 0 || dtype > SDX_BF16 || sdx_dtype_lane((sdx_dtype)dtype) == SDX_LANE_NONE))
        return sdx_fail(x->err, SDX_ERR_UNSUPPORTED, "type %lld is not supported", (long long)dtype);
    if (x->in[0].shape.rank >= 0 && x->in[0].shape.rank != 2)
        return sdx_fail(x->err, SDX_ERR_USAGE, "it needs a matrix, not rank %d", x->in[0].shape.rank);
    sdx_infer_set(x, 0, (sdx_dtype)dtype, &x->in[0].shape);
    return SDX_OK;
}

static sdx_status run_eye(sdx_run *r)
{
    int64_t rows = r->out[0].dim[0], columns = r->out[0].dim[1];
    int64_t k = clamp(sdx_node_int(r->node, "k", 0), -rows, columns);
    sdx_lane one = {.f = 1};
    sdx_lanes_convert(SDX_LANE_F, r->out[0].dtype, 1, &one);
    memset(r->out[0].data, 0, sdx_tensor_bytes(&r->out[0]));
    for (int64_t i = 0; i < rows; i++)
        if (i + k >= 0 && i + k < columns)
            sdx_lanes_store(r->out[0].dtype, &one, 1, r->out[0].data, i * columns + i + k);
    return SDX_OK;
}

/* ---- OneHot ---------------------------------------------------------------------------------------------- */

static sdx_status one_hot_axis(const sdx_node *node, int rank, int *axis, sdx_error *err)
{
    return sdx_axis_normalize(sdx_node_int(node, "axis", -1), rank + 1, axis, err);
}

static sdx_status infer_one_hot(sdx_infer *x)
{
    const sdx_shape *in = &x->in[0].shape;
    TRY(want_numeric(x, 0));
    x->out[0].dtype = x->in[2].dtype;
    if (in->rank < 0) return SDX_OK;
    if (in->rank == SDX_MAX_RANK)
        return sdx_fail(x->err, SDX_ERR_UNSUPPORTED, "the result has rank %d", in->rank + 1);
    int64_t depths = sdx_shape_count(&x->in[1].shape);
    if (depths >= 0 && depths != 1)
        return sdx_fail(x->err, SDX_ERR_USAGE, "the depth must be one number, not %lld", (long long)depths);
    int axis, n;
    TRY(one_hot_axis(x->node, in->rank, &axis, x->err));
    sdx_lane depth;
    const sdx_element *e = sdx_infer_contents(x, 1, &n);
    sdx_element d = e && n == 1 ? e[0] : SDX_ELEMENT_NONE;
    if (!e && constant_lane(&x->in[1], &depth) && depth.f >= 0 && depth.f < 0x1p62)
        d = sdx_element_number((int64_t)depth.f); /* a float depth */
    sdx_shape out = {.rank = in->rank + 1};
    for (int i = 0, k = 0; i < out.rank; i++)
        if (i != axis) out.dim[i] = in->dim[k++];
    TRY(sdx_infer_dim(x, d, &out.dim[axis]));
    sdx_infer_set(x, 0, x->in[2].dtype, &out);
    return SDX_OK;
}

static sdx_status run_one_hot(sdx_run *r)
{
    sdx_shape in = sdx_run_shape(r, 0);
    int axis;
    TRY(one_hot_axis(r->node, in.rank, &axis, r->err));
    if (r->in[2].rank != 1 || r->in[2].dim[0] != 2)
        return sdx_fail(r->err, SDX_ERR_USAGE, "values must be [off, on]");
    int64_t depth = r->out[0].dim[axis], inner = sdx_shape_span(&in, axis, in.rank),
            n = sdx_tensor_count(&r->in[0]);
    size_t size = sdx_element_size(r->in[2].dtype);
    fill(r, &r->out[0], r->in[2].data);
    for (int64_t i = 0; i < n; i++) {
        sdx_lane index;
        sdx_lanes_load(r->in[0].dtype, r->in[0].data, i, 1, 1, &index);
        sdx_lanes_convert(sdx_dtype_lane(r->in[0].dtype), SDX_F64, 1, &index);
        double k = floor(index.f < 0 ? index.f + (double)depth : index.f);
        if (!(k >= 0 && k < (double)depth)) continue; /* outside: every value is off */
        int64_t to = (i / inner * depth + (int64_t)k) * inner + i % inner;
        memcpy((char *)r->out[0].data + (size_t)to * size, (const char *)r->in[2].data + size, size);
    }
    return SDX_OK;
}

/* ---- Tile: [r0, d0, r1, d1, ...], the input not moving along r ------------------------------------------- */

static sdx_status infer_tile(sdx_infer *x)
{
    const sdx_shape *in = &x->in[0].shape;
    sdx_shape repeats, out = *in;
    TRY(sdx_infer_shape_input(x, 1, &repeats));
    if (in->rank >= 0 && repeats.rank >= 0 && in->rank != repeats.rank)
        return sdx_fail(x->err, SDX_ERR_USAGE, "%d repeats for an input of rank %d", repeats.rank, in->rank);
    for (int i = 0; i < out.rank; i++) {
        sdx_element e = repeats.rank < 0 ? SDX_ELEMENT_NONE : sdx_element_from_dim(repeats.dim[i]);
        out.dim[i] = sdx_element_to_dim(sdx_model_arith(x->model, '*', sdx_element_from_dim(in->dim[i]), e));
    }
    sdx_infer_set(x, 0, x->in[0].dtype, &out);
    return SDX_OK;
}

static sdx_status run_tile(sdx_run *r)
{
    sdx_shape in = sdx_run_shape(r, 0), out = sdx_tensor_shape(&r->out[0]);
    int64_t from[SDX_MAX_RANK], to[SDX_MAX_RANK];
    sdx_shape_strides(&in, from);
    sdx_shape_strides(&out, to);
    sdx_copy c = {.rank = 2 * in.rank, .src = r->in[0].data, .dst = r->out[0].data,
                  .size = sdx_element_size(r->in[0].dtype)};
    for (int i = 0; i < in.rank; i++) {
        c.dim[2 * i] = in.dim[i] ? out.dim[i] / in.dim[i] : 0;
        c.dst_stride[2 * i] = to[i] * in.dim[i];
        c.dim[2 * i + 1] = in.dim[i];
        c.src_stride[2 * i + 1] = from[i];
        c.dst_stride[2 * i + 1] = to[i];
    }
    sdx_copy_strided(&c, r->threads);
    return SDX_OK;
}

static const sdx_op_def rows[] = {
    {"", "Constant", 1, 0, 0, 0, 1, 1, SDX_OP_ANY_ALIGNMENT, infer_constant, NULL, NULL, run_constant},
    {"", "ConstantOfShape", 9, 0, 1, 1, 1, 1, 0, infer_constant_of_shape, NULL, NULL, run_constant_of_shape},
    {"", "Range", 11, 0, 3, 3, 1, 1, 0, infer_range, NULL, NULL, run_range},
    {"com.microsoft", "Range", 1, 0, 2, 3, 1, 1, 0, infer_range, NULL, NULL, run_range},
    {"", "NonZero", 9, 0, 1, 1, 1, 1, SDX_OP_DYNAMIC, infer_nonzero, NULL, NULL, run_nonzero},
    {"", "CumSum", 11, 0, 2, 2, 1, 1, SDX_OP_INPLACE, infer_cumulate, NULL, NULL, run_cumulate},
    {"", "CumProd", 26, 0, 2, 2, 1, 1, SDX_OP_INPLACE, infer_cumulate, NULL, NULL, run_cumulate},
    {"", "Trilu", 14, 0, 1, 2, 1, 1, SDX_OP_INPLACE, infer_trilu, NULL, NULL, run_trilu},
    {"com.microsoft", "Trilu", 1, 0, 1, 2, 1, 1, SDX_OP_INPLACE, infer_trilu, NULL, NULL, run_trilu},
    {"", "EyeLike", 9, 0, 1, 1, 1, 1, 0, infer_eye, NULL, NULL, run_eye},
    {"", "OneHot", 9, 0, 3, 3, 1, 1, 0, infer_one_hot, NULL, NULL, run_one_hot},
    {"", "Tile", 6, 0, 2, 2, 1, 1, SDX_OP_ANY_ALIGNMENT, infer_tile, NULL, NULL, run_tile},
};

SDX_OP_TABLE(indexing);
