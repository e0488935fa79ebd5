/* shape.c: operators that look at shapes or change them without touching the data. Nearly all of their work is
 * done by infer; a view then shares its input's memory. */
#include "contents.h"
#include "copy.h"

#include <string.h>

/* ---- Shape, Size ----------------------------------------------------------------------------------------- */

static int clamp_axis(int64_t axis, int rank)
{
    if (axis < 0) axis += rank;
    return (int)(axis < 0 ? 0 : axis > rank ? rank : axis);
}

/* start and end (Shape-15) clamp into [0, rank]. */
static void shape_range(const sdx_node *node, int rank, int *begin, int *end)
{
    *begin = clamp_axis(sdx_node_int(node, "start", 0), rank);
    *end = clamp_axis(sdx_node_int(node, "end", rank), rank);
    if (*end < *begin) *end = *begin;
}

static sdx_status infer_shape(sdx_infer *x)
{
    const sdx_shape *s = &x->in[0].shape;
    sdx_shape out = {.rank = 1, .dim = {SDX_DIM_UNKNOWN}};
    if (s->rank >= 0) {
        int begin, end;
        shape_range(x->node, s->rank, &begin, &end);
        out.dim[0] = end - begin;
        sdx_element *e = sdx_infer_new_contents(x, end - begin);
        for (int i = begin; e && i < end; i++) e[i - begin] = sdx_element_from_dim(s->dim[i]);
        sdx_infer_set_contents(x, 0, e, end - begin);
    }
    sdx_infer_set(x, 0, SDX_I64, &out);
    return SDX_OK;
}

static sdx_status run_shape(sdx_run *r)
{
    int begin, end;
    shape_range(r->node, r->in[0].rank, &begin, &end);
    for (int i = begin; i < end; i++) ((int64_t *)r->out[0].data)[i - begin] = r->in[0].dim[i];
    return SDX_OK;
}

static sdx_status infer_size(sdx_infer *x)
{
    const sdx_shape scalar = {.rank = 0};
    sdx_infer_set(x, 0, SDX_I64, &scalar);
    sdx_element *e = sdx_infer_new_contents(x, 1);
    if (e) *e = sdx_infer_size(x, &x->in[0].shape);
    sdx_infer_set_contents(x, 0, e, 1);
    return SDX_OK;
}

static sdx_status run_size(sdx_run *r)
{
    *(int64_t *)r->out[0].data = sdx_tensor_count(&r->in[0]);
    return SDX_OK;
}

/* ---- Reshape --------------------------------------------------------------------------------------------- */

/* A product of sizes: a number and symbols that are not products themselves. */
typedef struct product {
    int64_t number;
    int symbol[64];
    int n_symbol;
    bool known;
} product;

static void multiply(const sdx_model *model, product *p, sdx_element e, int depth)
{
    if (sdx_element_is_number(e)) {
        if (__builtin_mul_overflow(p->number, e.number, &p->number)) p->known = false;
    } else if (e.symbol < 0 || depth == 0 || p->n_symbol == 64) {
        p->known = false;
    } else if (e.symbol < model->n_symbol && model->symbol[e.symbol].op == '*') {
        multiply(model, p, model->symbol[e.symbol].left, depth - 1);
        multiply(model, p, model->symbol[e.symbol].right, depth - 1);
    } else {
        p->symbol[p->n_symbol++] = e.symbol;
    }
}

/* Removes the symbols that stand in both. */
static void cancel(product *a, product *b)
{
    for (int i = 0; i < a->n_symbol; i++)
        for (int k = 0; k < b->n_symbol; k++)
            if (a->symbol[i] == b->symbol[k]) {
                a->symbol[i--] = a->symbol[--a->n_symbol];
                b->symbol[k] = b->symbol[--b->n_symbol];
                break;
            }
}

static sdx_element product_element(sdx_model *model, const product *p)
{
    sdx_element e = sdx_element_number(1);
    for (int i = 0; i < p->n_symbol; i++) e = sdx_model_arith(model, '*', e, (sdx_element){0, p->symbol[i]});
    return sdx_model_arith(model, '*', e, sdx_element_number(p->number));
}

static sdx_status fail_reshape(sdx_infer *x, const sdx_shape *to)
{
    char a[SDX_SHAPE_TEXT], b[SDX_SHAPE_TEXT];
    return sdx_fail(x->err, SDX_ERR_USAGE, "%s cannot be reshaped to %s: the number of elements differs",
                    sdx_shape_format(&x->in[0].shape, a, sizeof a), sdx_shape_format(to, b, sizeof b));
}

/* Dim `hole` of out is whatever the other dims leave. */
static sdx_status fill_hole(sdx_infer *x, sdx_shape *out, int hole)
{
    const sdx_shape *in = &x->in[0].shape;
    product total = {.number = 1, .known = in->rank >= 0}, rest = {.number = 1, .known = true};
    for (int i = 0; i < in->rank; i++) multiply(x->model, &total, sdx_element_from_dim(in->dim[i]), 16);
    for (int i = 0; i < out->rank; i++)
        if (i != hole) multiply(x->model, &rest, sdx_element_from_dim(out->dim[i]), 16);
    out->dim[hole] = SDX_DIM_UNKNOWN;
    if (!total.known || !rest.known) return SDX_OK;
    cancel(&total, &rest);
    if (total.n_symbol == 0 && rest.n_symbol == 0) {
        if (rest.number == 0 || total.number % rest.number) return fail_reshape(x, out);
        out->dim[hole] = total.number / rest.number;
    } else if (rest.number > 0) {
        out->dim[hole] = sdx_element_to_dim(sdx_model_arith(x->model, '/', product_element(x->model, &total),
                                                            product_element(x->model, &rest)));
    }
    return SDX_OK;
}

/* One element of the wanted shape: 0 copies a dim, -1 is the hole. */
static sdx_status reshape_dim(sdx_infer *x, int i, sdx_element e, bool allow_zero, sdx_dim *dim, int *hole)
{
    const sdx_shape *in = &x->in[0].shape;
    *dim = sdx_element_to_dim(e);
    if (!sdx_element_is_number(e)) return SDX_OK;
    if (e.number == 0 && !allow_zero) {
        if (in->rank >= 0 && i >= in->rank)
            return sdx_fail(x->err, SDX_ERR_USAGE, "its shape copies dim %d of an input of rank %d", i,
                            in->rank);
        *dim = in->rank >= 0 ? in->dim[i] : SDX_DIM_UNKNOWN;
    }
    if (e.number >= 0) return SDX_OK;
    if (e.number < -1 || *hole >= 0)
        return sdx_fail(x->err, SDX_ERR_USAGE,
                        e.number < -1 ? "its shape has the negative size %lld"
                                      : "its shape has more than one %lld",
                        (long long)e.number);
    *hole = i;
    return SDX_OK;
}

static sdx_status reshape_to(sdx_infer *x, int rank, const sdx_element *e)
{
    if (rank > SDX_MAX_RANK)
        return sdx_fail(x->err, SDX_ERR_UNSUPPORTED, "its shape has rank %d; at most %d is supported", rank,
                        SDX_MAX_RANK);
    const sdx_shape *in = &x->in[0].shape;
    bool allow_zero = sdx_node_int(x->node, "allowzero", 0) != 0;
    sdx_shape out = {.rank = rank};
    int hole = -1, unknown = 0, last_unknown = -1;
    for (int i = 0; i < rank; i++) {
        TRY(reshape_dim(x, i, e ? e[i] : SDX_ELEMENT_NONE, allow_zero, &out.dim[i], &hole));
        if (out.dim[i] == SDX_DIM_UNKNOWN) unknown++, last_unknown = i;
    }
    /* A single size that is not known is settled by the others, whether it will be spelled out or is the -1. */
    if (hole >= 0 || unknown == 1) TRY(fill_hole(x, &out, hole >= 0 ? hole : last_unknown));
    int64_t before = sdx_shape_count(in), after = sdx_shape_count(&out);
    if (sdx_shape_is_known(in) && sdx_shape_is_known(&out) && (before != after || after < 0))
        return fail_reshape(x, &out);
    sdx_infer_set(x, 0, x->in[0].dtype, &out);
    return SDX_OK;
}

static sdx_status infer_reshape(sdx_infer *x)
{
    TRY(sdx_infer_identity(x));
    TRY(sdx_infer_want_sizes(x, 1));
    x->out[0].shape = SDX_SHAPE_UNKNOWN;
    const sdx_shape *s = &x->in[1].shape;
    int n;
    const sdx_element *e = sdx_infer_contents(x, 1, &n);
    if (e) return reshape_to(x, n, e);
    if (s->rank == 1 && s->dim[0] >= 0)
        return reshape_to(x, s->dim[0] > SDX_MAX_RANK ? SDX_MAX_RANK + 1 : (int)s->dim[0], NULL);
    return SDX_OK;
}

static sdx_status infer_flatten(sdx_infer *x)
{
    const sdx_shape *in = &x->in[0].shape;
    sdx_shape out = {.rank = 2, .dim = {SDX_DIM_UNKNOWN, SDX_DIM_UNKNOWN}};
    if (in->rank >= 0) {
        int64_t axis = sdx_node_int(x->node, "axis", 1);
        if (axis < -in->rank || axis > in->rank)
            return sdx_fail(x->err, SDX_ERR_USAGE, "axis %lld is outside [%d, %d]", (long long)axis, -in->rank,
                            in->rank);
        if (axis < 0) axis += in->rank;
        sdx_shape head = sdx_shape_make((int)axis, in->dim),
                  tail = sdx_shape_make(in->rank - (int)axis, in->dim + axis);
        out.dim[0] = sdx_element_to_dim(sdx_infer_size(x, &head));
        out.dim[1] = sdx_element_to_dim(sdx_infer_size(x, &tail));
    }
    sdx_infer_set(x, 0, x->in[0].dtype, &out);
    return SDX_OK;
}

/* ---- Squeeze, Unsqueeze ---------------------------------------------------------------------------------- */

static sdx_status squeeze_set(sdx_infer *x, const sdx_ints *axes, const sdx_shape *in, unsigned *set)
{
    TRY(sdx_axes_to_set(axes, in->rank, set, x->err));
    for (int i = 0; i < in->rank; i++) {
        if (!axes->present && in->dim[i] == 1) *set |= 1u << i;
        if ((*set & 1u << i) && in->dim[i] >= 0 && in->dim[i] != 1)
            return sdx_fail(x->err, SDX_ERR_USAGE, "axis %d has size %lld and cannot be squeezed", i,
                            (long long)in->dim[i]);
    }
    return SDX_OK;
}

static sdx_status infer_squeeze(sdx_infer *x)
{
    TRY(sdx_infer_identity(x));
    x->out[0].shape = SDX_SHAPE_UNKNOWN;
    const sdx_shape *in = &x->in[0].shape;
    sdx_ints axes;
    TRY(sdx_infer_ints(x, "axes", 1, &axes));
    /* Without axes every 1 goes, so no dim may be in doubt. */
    if (in->rank < 0 || !axes.known || (!axes.present && !sdx_shape_is_known(in))) return SDX_OK;
    unsigned set;
    TRY(squeeze_set(x, &axes, in, &set));
    sdx_shape out = {.rank = 0};
    for (int i = 0; i < in->rank; i++)
        if (!(set & 1u << i)) out.dim[out.rank++] = in->dim[i];
    x->out[0].shape = out;
    return SDX_OK;
}

static sdx_status infer_unsqueeze(sdx_infer *x)
{
    TRY(sdx_infer_identity(x));
    x->out[0].shape = SDX_SHAPE_UNKNOWN;
    const sdx_shape *in = &x->in[0].shape;
    sdx_ints axes;
    TRY(sdx_infer_ints(x, "axes", 1, &axes));
    if (in->rank < 0 || axes.count < 0) return SDX_OK;
    if (in->rank + axes.count > SDX_MAX_RANK)
        return sdx_fail(x->err, SDX_ERR_UNSUPPORTED, "the result has rank %d; at most %d is supported",
                        in->rank + axes.count, SDX_MAX_RANK);
    sdx_shape out = {.rank = in->rank + axes.count};
    unsigned set = 0;
    if (axes.known) TRY(sdx_axes_to_set(&axes, out.rank, &set, x->err));
    for (int i = 0, k = 0; i < out.rank; i++) {
        bool inserted = set & 1u << i;
        out.dim[i] = !axes.known ? SDX_DIM_UNKNOWN : inserted ? 1 : in->dim[k++];
    }
    x->out[0].shape = out;
    return SDX_OK;
}

/* ---- Expand ---------------------------------------------------------------------------------------------- */

static sdx_status infer_expand(sdx_infer *x)
{
    const sdx_type *in = &x->in[0];
    sdx_shape wanted, out;
    TRY(sdx_infer_shape_input(x, 1, &wanted));
    TRY(sdx_shape_broadcast(&in->shape, &wanted, &out, x->err));
    sdx_infer_set(x, 0, in->dtype, &out);
    int n;
    const sdx_element *from = sdx_infer_contents(x, 0, &n);
    int64_t count = sdx_shape_count(&out);
    if (!from || (n != 1 && n != count)) return SDX_OK;
    sdx_element *to = sdx_infer_new_contents(x, count);
    for (int64_t i = 0; to && i < count; i++) to[i] = from[n == 1 ? 0 : i];
    sdx_infer_set_contents(x, 0, to, count);
    return SDX_OK;
}

static sdx_status run_expand(sdx_run *r)
{
    sdx_shape from = sdx_run_shape(r, 0), to = sdx_tensor_shape(&r->out[0]);
    sdx_copy c = {.rank = to.rank, .src = r->in[0].data, .dst = r->out[0].data,
                  .size = sdx_element_size(r->in[0].dtype)};
    memcpy(c.dim, to.dim, sizeof to.dim);
    sdx_shape_broadcast_strides(&from, &to, c.src_stride);
    sdx_shape_strides(&to, c.dst_stride);
    sdx_copy_strided(&c, r->threads);
    return SDX_OK;
}

static const sdx_op_def rows[] = {
    {"", "Shape", 1, 0, 1, 1, 1, 1, SDX_OP_ANY_ALIGNMENT, infer_shape, NULL, NULL, run_shape},
    {"", "Size", 1, 0, 1, 1, 1, 1, SDX_OP_ANY_ALIGNMENT, infer_size, NULL, NULL, run_size},
    {"", "Reshape", 5, 0, 2, 2, 1, 1, SDX_OP_VIEW, infer_reshape, NULL, NULL, sdx_run_copy},
    {"", "Flatten", 1, 0, 1, 1, 1, 1, SDX_OP_VIEW, infer_flatten, NULL, NULL, sdx_run_copy},
    {"", "Squeeze", 1, 12, 1, 1, 1, 1, SDX_OP_VIEW, infer_squeeze, NULL, NULL, sdx_run_copy},
    {"", "Squeeze", 13, 0, 1, 2, 1, 1, SDX_OP_VIEW, infer_squeeze, NULL, NULL, sdx_run_copy},
    {"", "Unsqueeze", 1, 12, 1, 1, 1, 1, SDX_OP_VIEW, infer_unsqueeze, NULL, NULL, sdx_run_copy},
    {"", "Unsqueeze", 13, 0, 2, 2, 1, 1, SDX_OP_VIEW, infer_unsqueeze, NULL, NULL, sdx_run_copy},
    {"com.microsoft", "ExpandDims", 1, 0, 2, 2, 1, 1, SDX_OP_VIEW, infer_unsqueeze, NULL, NULL, sdx_run_copy},
    {"", "Identity", 1, 0, 1, 1, 1, 1, SDX_OP_VIEW | SDX_OP_ANY_VALUE, sdx_infer_identity, NULL, NULL, sdx_run_copy},
    {"", "Expand", 8, 0, 2, 2, 1, 1, SDX_OP_ANY_ALIGNMENT, infer_expand, NULL, NULL, run_expand},
};

SDX_OP_TABLE(shape);
