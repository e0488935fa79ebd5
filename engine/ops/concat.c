/* concat.c: Concat and Split, each other's inverse: seen from the axis, a tensor is [outer, inner], and a part
 * is a range of columns of the whole. */
#include "contents.h"
#include "copy.h"

/* Columns [at, at + part inner) of `whole`, to or from `part`. */
static void move_part(const sdx_tensor *whole, const sdx_tensor *part, int axis, int64_t at, bool into,
                      int threads)
{
    sdx_shape w = sdx_tensor_shape(whole), p = sdx_tensor_shape(part);
    int64_t outer = sdx_shape_span(&w, 0, axis), wide = sdx_shape_span(&w, axis, w.rank);
    int64_t narrow = sdx_shape_span(&p, axis, p.rank);
    size_t size = sdx_element_size(whole->dtype);
    char *place = (char *)whole->data + (size_t)at * size;
    sdx_copy c = {.rank = 2, .dim = {outer, narrow}, .size = size};
    c.src_stride[0] = into ? narrow : wide;
    c.dst_stride[0] = into ? wide : narrow;
    c.src_stride[1] = c.dst_stride[1] = 1;
    c.src = into ? part->data : place;
    c.dst = into ? place : part->data;
    sdx_copy_strided(&c, threads);
}

/* ---- Concat ---------------------------------------------------------------------------------------------- */

static sdx_status join_shapes(sdx_infer *x, int axis, sdx_shape *out)
{
    *out = x->in[0].shape;
    sdx_element sum = sdx_element_from_dim(out->dim[axis]);
    for (int i = 1; i < x->n_in; i++) {
        const sdx_shape *s = &x->in[i].shape;
        if (s->rank < 0) sum = SDX_ELEMENT_NONE;
        if (s->rank < 0) continue;
        for (int k = 0; k < out->rank && s->rank == out->rank; k++) {
            if (k == axis) sum = sdx_model_arith(x->model, '+', sum, sdx_element_from_dim(s->dim[k]));
            else if (out->dim[k] >= 0 && s->dim[k] >= 0 && out->dim[k] != s->dim[k])
                return sdx_fail(x->err, SDX_ERR_USAGE, "dim %d is %lld in input 0 and %lld in input %d", k,
                                (long long)out->dim[k], (long long)s->dim[k], i);
            else if (out->dim[k] < 0 && s->dim[k] != SDX_DIM_UNKNOWN) out->dim[k] = s->dim[k];
        }
        if (s->rank != out->rank)
            return sdx_fail(x->err, SDX_ERR_USAGE, "input %d has rank %d, input 0 has %d", i, s->rank,
                            out->rank);
    }
    out->dim[axis] = sdx_element_to_dim(sum);
    return SDX_OK;
}

/* Elements of joined vectors; those of a part that is not known but has a length are unknown. */
static void join_contents(sdx_infer *x, int64_t total)
{
    sdx_element *e = sdx_dtype_is_integer(x->in[0].dtype) ? sdx_infer_new_contents(x, total) : NULL;
    int64_t at = 0;
    for (int i = 0; e && i < x->n_in; i++) {
        int n;
        const sdx_element *part = sdx_infer_contents(x, i, &n);
        for (int64_t k = 0; k < x->in[i].shape.dim[0]; k++)
            e[at++] = part && k < n ? part[k] : SDX_ELEMENT_NONE;
    }
    sdx_infer_set_contents(x, 0, e, total);
}

static sdx_status concat_axis(const sdx_node *node, int rank, int *axis, sdx_error *err)
{
    if (!sdx_node_attr(node, "axis")) return sdx_fail(err, SDX_ERR_FILE, "it lacks the attribute \"axis\"");
    return sdx_axis_normalize(sdx_node_int(node, "axis", 0), rank, axis, err);
}

static sdx_status infer_concat(sdx_infer *x)
{
    x->out[0].dtype = x->in[0].dtype;
    for (int i = 1; i < x->n_in; i++) {
        sdx_dtype t = x->in[i].dtype;
        if (t && x->in[0].dtype && t != x->in[0].dtype)
            return sdx_fail(x->err, SDX_ERR_USAGE, "input %d is %s, input 0 is %s", i, sdx_dtype_name(t),
                            sdx_dtype_name(x->in[0].dtype));
    }
    if (x->in[0].shape.rank < 0) return SDX_OK;
    int axis;
    TRY(concat_axis(x->node, x->in[0].shape.rank, &axis, x->err));
    sdx_shape out;
    TRY(join_shapes(x, axis, &out));
    sdx_infer_set(x, 0, x->in[0].dtype, &out);
    if (out.rank == 1) join_contents(x, out.dim[0]);
    return SDX_OK;
}

static sdx_status run_concat(sdx_run *r)
{
    int axis;
    TRY(concat_axis(r->node, r->out[0].rank, &axis, r->err));
    int64_t at = 0;
    for (int i = 0; i < r->n_in; i++) {
        sdx_shape s = sdx_run_shape(r, i);
        move_part(&r->out[0], &r->in[i], axis, at, true, r->threads);
        at += sdx_shape_span(&s, axis, s.rank);
    }
    return SDX_OK;
}

/* ---- Split ----------------------------------------------------------------------------------------------- */

/* Size of output i along the axis when no sizes are given: equal parts, since 18 with a smaller last one. */
static sdx_status equal_part(const sdx_node *node, int n_out, int64_t whole, int i, int64_t *out,
                             sdx_error *err)
{
    int64_t parts = sdx_node_int(node, "num_outputs", n_out), each;
    if (parts != n_out)
        return sdx_fail(err, SDX_ERR_USAGE, "num_outputs is %lld, but it has %d outputs", (long long)parts,
                        n_out);
    each = whole / parts + (whole % parts != 0);
    if (whole % parts && (!node->def || node->def->since < 18))
        return sdx_fail(err, SDX_ERR_USAGE, "size %lld does not split into %d equal parts", (long long)whole,
                        n_out);
    int64_t left = whole - each * i;
    *out = left < 0 ? 0 : left < each ? left : each;
    return SDX_OK;
}

static sdx_status check_sizes(const sdx_ints *sizes, int n_out, sdx_dim whole, sdx_error *err)
{
    if (!sizes->known || !sizes->present) return SDX_OK;
    if (sizes->count != n_out)
        return sdx_fail(err, SDX_ERR_USAGE, "split gives %d sizes for %d outputs", sizes->count, n_out);
    int64_t sum = 0;
    for (int i = 0; i < n_out; i++)
        if (sizes->v[i] < 0 || __builtin_add_overflow(sum, sizes->v[i], &sum))
            return sdx_fail(err, SDX_ERR_USAGE, "split gives the size %lld", (long long)sizes->v[i]);
    if (whole >= 0 && sum != whole)
        return sdx_fail(err, SDX_ERR_USAGE, "the split sizes sum to %lld, the axis has size %lld",
                        (long long)sum, (long long)whole);
    return SDX_OK;
}

static sdx_status split_size(sdx_infer *x, const sdx_ints *sizes, sdx_dim whole, int i, sdx_dim *out)
{
    *out = SDX_DIM_UNKNOWN;
    if (sizes->present) {
        if (sizes->known) *out = sizes->v[i];
        return SDX_OK;
    }
    if (whole >= 0) return equal_part(x->node, x->n_out, whole, i, out, x->err);
    if (x->n_out == 1) *out = whole;
    return SDX_OK;
}

static sdx_status infer_split(sdx_infer *x)
{
    const sdx_type *in = &x->in[0];
    sdx_ints sizes;
    int axis, n;
    TRY(sdx_infer_ints(x, "split", 1, &sizes));
    for (int i = 0; i < x->n_out; i++) x->out[i].dtype = in->dtype;
    if (in->shape.rank < 0) return SDX_OK;
    TRY(sdx_axis_normalize(sdx_node_int(x->node, "axis", 0), in->shape.rank, &axis, x->err));
    TRY(check_sizes(&sizes, x->n_out, in->shape.dim[axis], x->err));
    const sdx_element *e = sdx_infer_contents(x, 0, &n);
    int64_t at = 0;
    for (int i = 0; i < x->n_out; i++) {
        sdx_shape out = in->shape;
        TRY(split_size(x, &sizes, in->shape.dim[axis], i, &out.dim[axis]));
        sdx_infer_set(x, i, in->dtype, &out);
        if (!e || out.rank != 1 || out.dim[0] < 0) continue;
        sdx_infer_set_contents(x, i, e + at, out.dim[0]);
        at += out.dim[0];
    }
    return SDX_OK;
}

static sdx_status run_split(sdx_run *r)
{
    sdx_shape in = sdx_run_shape(r, 0);
    sdx_ints sizes;
    int axis;
    TRY(sdx_run_ints(r, "split", 1, &sizes));
    TRY(sdx_axis_normalize(sdx_node_int(r->node, "axis", 0), in.rank, &axis, r->err));
    TRY(check_sizes(&sizes, r->n_out, in.dim[axis], r->err));
    int64_t inner = sdx_shape_span(&in, axis + 1, in.rank), at = 0;
    for (int i = 0; i < r->n_out; i++) {
        int64_t size;
        if (sizes.present) size = sizes.v[i];
        else TRY(equal_part(r->node, r->n_out, in.dim[axis], i, &size, r->err));
        if (sdx_run_has_out(r, i)) move_part(&r->in[0], &r->out[i], axis, at * inner, false, r->threads);
        at += size;
    }
    return SDX_OK;
}

static const sdx_op_def rows[] = {
    {"", "Concat", 4, 0, 1, -1, 1, 1, SDX_OP_ANY_ALIGNMENT, infer_concat, NULL, NULL, run_concat},
    {"", "Split", 2, 12, 1, 1, 1, -1, SDX_OP_ANY_ALIGNMENT, infer_split, NULL, NULL, run_split},
    {"", "Split", 13, 17, 1, 2, 1, -1, SDX_OP_ANY_ALIGNMENT, infer_split, NULL, NULL, run_split},
    {"", "Split", 18, 0, 1, 2, 1, -1, SDX_OP_ANY_ALIGNMENT, infer_split, NULL, NULL, run_split},
};

SDX_OP_TABLE(concat);
