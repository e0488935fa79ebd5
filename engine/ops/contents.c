/* contents.c: see contents.h */
#include "contents.h"

#include <string.h>

#include "lanes.h"

sdx_status sdx_infer_identity(sdx_infer *infer)
{
    TRY(sdx_infer_same(infer));
    int n;
    const sdx_element *e = sdx_infer_contents(infer, 0, &n);
    sdx_infer_set_contents(infer, 0, e, n);
    return SDX_OK;
}

int64_t sdx_tensor_index(const sdx_tensor *t, int64_t i)
{
    size_t size = sdx_dtype_size(t->dtype);
    int64_t word;
    memcpy(&word, (const char *)t->data + (size_t)i * size, size);
    sdx_tensor one = {.dtype = t->dtype, .data = &word};
    return sdx_tensor_get_i64(&one, 0);
}

const sdx_element *sdx_infer_contents(sdx_infer *infer, int i, int *count)
{
    *count = 0;
    if (i >= infer->n_in) return NULL;
    const sdx_type *type = &infer->in[i];
    const sdx_element *known = sdx_type_contents(type, count);
    if (known) return known;
    if (!type->constant || sdx_dtype_lane(type->dtype) == SDX_LANE_F ||
        sdx_dtype_lane(type->dtype) == SDX_LANE_NONE)
        return NULL;
    int64_t n = sdx_tensor_count(type->constant);
    sdx_element *e = sdx_infer_new_contents(infer, n);
    for (int k = 0; e && k < n; k++) e[k] = sdx_element_number(sdx_tensor_index(type->constant, k));
    *count = e ? (int)n : 0;
    return e;
}

sdx_element *sdx_infer_new_contents(sdx_infer *infer, int64_t count)
{
    if (count < 0 || count > SDX_MAX_ELEMENTS) return NULL;
    return sdx_arena_array(infer->arena, (size_t)count, sizeof(sdx_element));
}

void sdx_infer_set_contents(sdx_infer *infer, int i, const sdx_element *contents, int64_t count)
{
    if (i >= infer->n_out || !contents) return;
    infer->out[i].contents = contents;
    infer->out[i].n_contents = (int)count;
}

static bool nonnegative(const sdx_model *model, sdx_element e, int depth)
{
    if (e.symbol == SDX_ELEMENT_NUMBER) return e.number >= 0;
    if (e.symbol < 0 || e.symbol >= model->n_symbol || depth == 0) return false;
    const sdx_symbol *s = &model->symbol[e.symbol];
    if (s->op == 0 || s->is_size) return true;
    return s->op != '-' && nonnegative(model, s->left, depth - 1) && nonnegative(model, s->right, depth - 1);
}

bool sdx_element_nonnegative(const sdx_model *model, sdx_element e) { return nonnegative(model, e, 8); }

sdx_status sdx_infer_dim(sdx_infer *infer, sdx_element e, sdx_dim *out)
{
    if (e.symbol == SDX_ELEMENT_NUMBER && e.number < 0)
        return sdx_fail(infer->err, SDX_ERR_USAGE, "the shape it is given has the negative size %lld",
                        (long long)e.number);
    *out = sdx_element_to_dim(e);
    return SDX_OK;
}

sdx_element sdx_infer_size(sdx_infer *infer, const sdx_shape *shape)
{
    sdx_element size = shape->rank < 0 ? SDX_ELEMENT_NONE : sdx_element_number(1);
    for (int i = 0; i < shape->rank; i++)
        size = sdx_model_arith(infer->model, '*', size, sdx_element_from_dim(shape->dim[i]));
    return size;
}

sdx_status sdx_infer_want_sizes(const sdx_infer *infer, int i)
{
    sdx_dtype dtype = infer->in[i].dtype;
    if (dtype == SDX_UNDEFINED || dtype == SDX_I64 || dtype == SDX_I32) return SDX_OK;
    return sdx_fail(infer->err, SDX_ERR_USAGE, "input %d holds sizes and must be int64, not %s", i,
                    sdx_dtype_name(dtype));
}

sdx_status sdx_infer_shape_input(sdx_infer *infer, int i, sdx_shape *out)
{
    const sdx_shape *own = &infer->in[i].shape;
    int n;
    TRY(sdx_infer_want_sizes(infer, i));
    const sdx_element *e = sdx_infer_contents(infer, i, &n);
    int64_t rank = e ? n : own->rank == 1 ? own->dim[0] : -1;
    *out = SDX_SHAPE_UNKNOWN;
    if (rank > SDX_MAX_RANK)
        return sdx_fail(infer->err, SDX_ERR_UNSUPPORTED,
                        "a shape of rank %lld is asked for; at most %d is supported", (long long)rank,
                        SDX_MAX_RANK);
    if (rank < 0) return SDX_OK;
    out->rank = (int)rank;
    for (int k = 0; k < out->rank; k++) {
        out->dim[k] = SDX_DIM_UNKNOWN;
        if (e) TRY(sdx_infer_dim(infer, e[k], &out->dim[k]));
    }
    return SDX_OK;
}

/* ---- short lists of integers ----------------------------------------------------------------------------- */

static sdx_status check_list(int64_t count, const char *what, sdx_error *err)
{
    if (count <= SDX_MAX_ELEMENTS) return SDX_OK;
    return sdx_fail(err, SDX_ERR_UNSUPPORTED, "%s lists %lld numbers; at most %d are supported", what,
                    (long long)count, SDX_MAX_ELEMENTS);
}

static sdx_status attribute_ints(const sdx_node *node, const char *attribute, sdx_ints *out, sdx_error *err)
{
    const sdx_attr *a = attribute ? sdx_node_attr(node, attribute) : NULL;
    if (!a) return SDX_OK;
    size_t count = 0;
    const int64_t *v = sdx_node_ints(node, attribute, &count);
    TRY(check_list((int64_t)count, attribute, err));
    for (size_t i = 0; i < count; i++) out->v[i] = v[i];
    out->present = out->known = true;
    out->count = (int)count;
    return SDX_OK;
}

sdx_status sdx_infer_ints(sdx_infer *infer, const char *attribute, int input, sdx_ints *out)
{
    *out = (sdx_ints){.known = true};
    if (input < 0 || sdx_node_in(infer->node, input) == SDX_NONE)
        return attribute_ints(infer->node, attribute, out, infer->err);
    const sdx_type *type = &infer->in[input];
    out->present = true;
    if (type->dtype != SDX_UNDEFINED && !sdx_dtype_is_integer(type->dtype))
        return sdx_fail(infer->err, SDX_ERR_USAGE, "input %d must be integers, not %s", input,
                        sdx_dtype_name(type->dtype));
    out->count = (int)(type->shape.rank == 0 ? 1 : -1);
    if (type->shape.rank == 1 && type->shape.dim[0] >= 0) {
        TRY(check_list(type->shape.dim[0], "an input", infer->err));
        out->count = (int)type->shape.dim[0];
    }
    int n;
    const sdx_element *e = sdx_infer_contents(infer, input, &n);
    out->known = e != NULL;
    for (int i = 0; e && i < n; i++) {
        out->known &= e[i].symbol == SDX_ELEMENT_NUMBER;
        out->v[i] = e[i].number;
    }
    if (e) out->count = n;
    return SDX_OK;
}

sdx_status sdx_run_ints(sdx_run *run, const char *attribute, int input, sdx_ints *out)
{
    *out = (sdx_ints){.known = true};
    if (input < 0 || !sdx_run_has_in(run, input)) return attribute_ints(run->node, attribute, out, run->err);
    const sdx_tensor *t = &run->in[input];
    if (!sdx_dtype_is_integer(t->dtype))
        return sdx_fail(run->err, SDX_ERR_USAGE, "input %d must be integers, not %s", input,
                        sdx_dtype_name(t->dtype));
    int64_t n = sdx_tensor_count(t);
    TRY(check_list(n, "an input", run->err));
    for (int64_t i = 0; i < n; i++) out->v[i] = sdx_tensor_index(t, i);
    out->present = true;
    out->count = (int)n;
    return SDX_OK;
}

sdx_status sdx_axes_to_set(const sdx_ints *axes, int rank, unsigned *set, sdx_error *err)
{
    *set = 0;
    for (int i = 0; i < axes->count; i++) {
        int axis;
        TRY(sdx_axis_normalize(axes->v[i], rank, &axis, err));
        if (*set & 1u << axis) return sdx_fail(err, SDX_ERR_USAGE, "axis %d is given twice", axis);
        *set |= 1u << axis;
    }
    return SDX_OK;
}
