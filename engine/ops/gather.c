/* gather.c: reading and writing at indices that are data. Indices are checked before anything is moved: a
 * negative one counts from the end, one outside the dim is the user's error, named with its bound. Embedding
 * tables come straight from the mapped file, so data and indices are read at any alignment. */
#include "compute.h"
#include "contents.h"
#include "copy.h"
#include "lanes.h"

#include <string.h>

/* Index i of an int32 or int64 tensor. */
static int64_t index_at(const sdx_tensor *t, int64_t i)
{
    int32_t narrow;
    int64_t wide;
    if (t->dtype == SDX_I64) {
        memcpy(&wide, (const char *)t->data + (size_t)i * sizeof wide, sizeof wide);
        return wide;
    }
    memcpy(&narrow, (const char *)t->data + (size_t)i * sizeof narrow, sizeof narrow);
    return narrow;
}

static int64_t wrap(int64_t index, int64_t dim) { return index < 0 ? index + dim : index; }

static sdx_status check_index(int64_t index, int64_t dim, int64_t at, sdx_error *err)
{
    if (index >= -dim && index < dim) return SDX_OK;
    return sdx_fail(err, SDX_ERR_USAGE, "index %lld (element %lld of the indices) is outside [%lld, %lld)",
                    (long long)index, (long long)at, (long long)-dim, (long long)dim);
}

static sdx_status check_indices(const sdx_tensor *indices, int64_t dim, sdx_error *err)
{
    int64_t n = sdx_tensor_count(indices);
    for (int64_t i = 0; i < n; i++) TRY(check_index(index_at(indices, i), dim, i, err));
    return SDX_OK;
}

static sdx_status want_index_type(const sdx_infer *x)
{
    sdx_dtype t = x->in[1].dtype;
    if (t == SDX_UNDEFINED || t == SDX_I64 || t == SDX_I32) return SDX_OK;
    return sdx_fail(x->err, SDX_ERR_USAGE, "indices are %s; they must be int32 or int64", sdx_dtype_name(t));
}

static sdx_status read_axis(const sdx_node *node, int rank, int *axis, sdx_error *err)
{
    return sdx_axis_normalize(sdx_node_int(node, "axis", 0), rank, axis, err);
}

static sdx_status fail_rank(sdx_error *err, int rank)
{
    return sdx_fail(err, SDX_ERR_UNSUPPORTED, "the result has rank %d; at most %d is supported", rank,
                    SDX_MAX_RANK);
}

/* ---- Gather ---------------------------------------------------------------------------------------------- */

static sdx_status gather_contents(sdx_infer *x)
{
    int n, m;
    const sdx_element *data = sdx_infer_contents(x, 0, &n), *index = sdx_infer_contents(x, 1, &m);
    sdx_element *e = data && index && x->in[0].shape.rank == 1 ? sdx_infer_new_contents(x, m) : NULL;
    for (int i = 0; e && i < m; i++) {
        e[i] = SDX_ELEMENT_NONE;
        if (!sdx_element_is_number(index[i])) continue;
        TRY(check_index(index[i].number, n, i, x->err));
        e[i] = data[wrap(index[i].number, n)];
    }
    sdx_infer_set_contents(x, 0, e, m);
    return SDX_OK;
}

static sdx_status infer_gather(sdx_infer *x)
{
    TRY(want_index_type(x));
    const sdx_shape *data = &x->in[0].shape, *index = &x->in[1].shape;
    x->out[0].dtype = x->in[0].dtype;
    if (data->rank < 0 || index->rank < 0) return SDX_OK;
    int axis;
    TRY(read_axis(x->node, data->rank, &axis, x->err));
    sdx_shape out = {.rank = data->rank - 1 + index->rank};
    if (out.rank > SDX_MAX_RANK) return fail_rank(x->err, out.rank);
    for (int i = 0, k = 0; i < data->rank; i++) {
        if (i != axis) out.dim[k++] = data->dim[i];
        for (int j = 0; i == axis && j < index->rank; j++) out.dim[k++] = index->dim[j];
    }
    sdx_infer_set(x, 0, x->in[0].dtype, &out);
    return gather_contents(x);
}

typedef struct gather_call {
    const sdx_tensor *data, *indices;
    char *y;
    int64_t dim, n_indices;
    size_t bytes; /* of one slice */
} gather_call;

/* Slices [begin, end) of the result [outer, n_indices, bytes]. */
static void gather_range(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const gather_call *c = context;
    for (int64_t i = begin; i < end; i++) {
        int64_t outer = i / c->n_indices, index = wrap(index_at(c->indices, i % c->n_indices), c->dim);
        memcpy(c->y + (size_t)i * c->bytes,
               (const char *)c->data->data + (size_t)(outer * c->dim + index) * c->bytes, c->bytes);
    }
}

static sdx_status run_gather(sdx_run *r)
{
    sdx_shape data = sdx_run_shape(r, 0);
    int axis;
    TRY(read_axis(r->node, data.rank, &axis, r->err));
    TRY(check_indices(&r->in[1], data.dim[axis], r->err));
    gather_call c = {.data = &r->in[0], .indices = &r->in[1], .y = r->out[0].data, .dim = data.dim[axis],
                     .n_indices = sdx_tensor_count(&r->in[1])};
    int64_t outer = sdx_shape_span(&data, 0, axis), inner = sdx_shape_span(&data, axis + 1, data.rank);
    c.bytes = (size_t)inner * sdx_element_size(r->in[0].dtype);
    int64_t grain = 1 + (int64_t)(65536 / (c.bytes + 1));
    if (c.bytes) sdx_parallel_for(r->threads, outer * c.n_indices, grain, gather_range, &c);
    return SDX_OK;
}

/* ---- ScaledRows ------------------------------------------------------------------------------------------ */

/* sardonyx ScaledRows(Q [n,k] int8|uint8, scale [n,1] float32, indices? [...]): y[i] = Q[i] * scale[i], of the rows at
 * `indices` or of all. Made by the pass fuse_scaled_rows only. */
static sdx_status infer_scaled_rows(sdx_infer *x)
{
    TRY(sdx_want_dtype(x, 0, "Q", SDX_SET_BYTE));
    TRY(sdx_want_dtype(x, 1, "the scale", SDX_SET(SDX_F32)));
    TRY(sdx_want_dtype(x, 2, "the indices", SDX_SET(SDX_I32) | SDX_SET(SDX_I64)));
    TRY(sdx_want_rank(x, 0, "Q", 2, 2));
    TRY(sdx_want_rank(x, 1, "the scale", 2, 2));
    TRY(sdx_want_dim(x, 1, "the scale", 0, sdx_type_dim(&x->in[0], 0)));
    TRY(sdx_want_dim(x, 1, "the scale", 1, 1));
    sdx_shape out = x->in[0].shape;
    if (sdx_infer_has(x, 2)) {
        out = x->in[2].shape;
        if (out.rank < 0) return SDX_OK;
        if (out.rank == SDX_MAX_RANK) return fail_rank(x->err, out.rank + 1);
        out.dim[out.rank++] = sdx_type_dim(&x->in[0], 1);
    }
    sdx_infer_set(x, 0, SDX_F32, &out);
    return SDX_OK;
}

typedef struct scaled_rows {
    const sdx_quantize_kernels *kernels;
    const sdx_tensor *q, *scale, *indices; /* indices NULL: all rows */
    float *y;
} scaled_rows;

static void scale_rows(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const scaled_rows *c = context;
    int64_t k = c->q->dim[1];
    for (int64_t i = begin; i < end; i++) {
        int64_t row = c->indices ? wrap(index_at(c->indices, i), c->q->dim[0]) : i;
        const char *from = (const char *)c->q->data + row * k;
        float scale;
        memcpy(&scale, (const char *)c->scale->data + row * (int64_t)sizeof scale, sizeof scale);
        if (c->q->dtype == SDX_U8)
            c->kernels->u8_f32(k, (const uint8_t *)from, scale, 0, c->y + i * k);
        else
            c->kernels->s8_f32(k, (const int8_t *)from, scale, 0, c->y + i * k);
    }
}

static sdx_status run_scaled_rows(sdx_run *r)
{
    const sdx_tensor *indices = sdx_run_has_in(r, 2) ? &r->in[2] : NULL;
    if (indices) TRY(check_indices(indices, r->in[0].dim[0], r->err));
    scaled_rows c = {&r->kernels->quantize, &r->in[0], &r->in[1], indices, r->out[0].data};
    int64_t rows = indices ? sdx_tensor_count(indices) : r->in[0].dim[0];
    sdx_parallel_for(r->threads, rows, sdx_row_grain(r->in[0].dim[1]), scale_rows, &c);
    return SDX_OK;
}

/* ---- GatherElements, ScatterElements: indices as long as the result, along one axis ---------------------- */

/* Steps through a shape in row-major order, keeping the offset that given strides give. */
typedef struct odometer {
    sdx_shape shape;
    int64_t at[SDX_MAX_RANK], stride[SDX_MAX_RANK], offset;
} odometer;

static void advance(odometer *o)
{
    for (int i = o->shape.rank - 1; i >= 0; i--) {
        o->offset += o->stride[i];
        if (++o->at[i] < o->shape.dim[i]) return;
        o->offset -= o->stride[i] * o->shape.dim[i];
        o->at[i] = 0;
    }
}

/* Walks indices over data; the axis itself stands still, as the index says where to go. */
static sdx_status start_elements(sdx_run *r, int *axis, int64_t *axis_stride, odometer *o)
{
    sdx_shape data = sdx_run_shape(r, 0);
    *o = (odometer){.shape = sdx_run_shape(r, 1)};
    TRY(read_axis(r->node, data.rank, axis, r->err));
    TRY(check_indices(&r->in[1], data.dim[*axis], r->err));
    sdx_shape_strides(&data, o->stride);
    *axis_stride = o->stride[*axis];
    o->stride[*axis] = 0;
    return SDX_OK;
}

static sdx_status infer_elements(sdx_infer *x, int *axis)
{
    TRY(want_index_type(x));
    const sdx_shape *data = &x->in[0].shape, *index = &x->in[1].shape;
    if (data->rank < 0) return SDX_OK;
    TRY(read_axis(x->node, data->rank, axis, x->err));
    if (index->rank < 0) return SDX_OK;
    if (index->rank != data->rank)
        return sdx_fail(x->err, SDX_ERR_USAGE, "indices have rank %d, the data %d", index->rank, data->rank);
    for (int i = 0; i < data->rank; i++)
        if (i != *axis && data->dim[i] >= 0 && index->dim[i] > data->dim[i])
            return sdx_fail(x->err, SDX_ERR_USAGE, "dim %d of the indices is %lld, of the data %lld", i,
                            (long long)index->dim[i], (long long)data->dim[i]);
    return SDX_OK;
}

static sdx_status infer_gather_elements(sdx_infer *x)
{
    int axis;
    TRY(infer_elements(x, &axis));
    sdx_infer_set(x, 0, x->in[0].dtype, &x->in[1].shape);
    return SDX_OK;
}

static sdx_status run_gather_elements(sdx_run *r)
{
    odometer o;
    int axis;
    int64_t axis_stride, n = sdx_tensor_count(&r->in[1]);
    TRY(start_elements(r, &axis, &axis_stride, &o));
    size_t size = sdx_element_size(r->in[0].dtype);
    for (int64_t i = 0; i < n; i++, advance(&o)) {
        int64_t from = o.offset + wrap(index_at(&r->in[1], i), r->in[0].dim[axis]) * axis_stride;
        memcpy((char *)r->out[0].data + (size_t)i * size, (const char *)r->in[0].data + (size_t)from * size,
               size);
    }
    return SDX_OK;
}

/* ---- what scattering does with the value that is there --------------------------------------------------- */

typedef enum reduction { REPLACE, ADD, MUL, MAX, MIN, N_REDUCTION } reduction;

static sdx_status read_reduction(const sdx_node *node, sdx_dtype dtype, reduction *out, sdx_error *err)
{
    static const char *const name[] = {"none", "add", "mul", "max", "min"};
    const char *wanted = sdx_node_string(node, "reduction", "none");
    for (*out = REPLACE; *out < N_REDUCTION && strcmp(name[*out], wanted);) ++*out;
    if (*out == N_REDUCTION)
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "reduction \"%.40s\" is not known", wanted);
    if (*out != REPLACE && sdx_dtype_lane(dtype) == SDX_LANE_NONE)
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "reduction \"%s\" of %s", wanted, sdx_dtype_name(dtype));
    return SDX_OK;
}

#define REDUCE(field, sum)                                                                                 \
    (how == ADD ? (sum)a.field + (sum)b.field : how == MUL ? (sum)a.field * (sum)b.field                   \
     : (how == MAX) == (a.field > b.field)                 ? (sum)a.field                                  \
                                                           : (sum)b.field)

/* y[to + i] = y[to + i] <how> x[from + i] for n elements. */
static void reduce_into(reduction how, const sdx_tensor *x, int64_t from, int64_t n, sdx_tensor *y, int64_t to)
{
    size_t size = sdx_element_size(y->dtype);
    if (how == REPLACE) {
        memcpy((char *)y->data + (size_t)to * size, (const char *)x->data + (size_t)from * size,
               (size_t)n * size);
        return;
    }
    sdx_lane_kind kind = sdx_dtype_lane(y->dtype);
    for (int64_t i = 0; i < n; i++) {
        sdx_lane a, b;
        sdx_lanes_load(y->dtype, y->data, to + i, 1, 1, &a);
        sdx_lanes_load(x->dtype, x->data, from + i, 1, 1, &b);
        if (kind == SDX_LANE_F) a.f = REDUCE(f, double);
        else if (kind == SDX_LANE_U) a.u = REDUCE(u, uint64_t);
        else a.u = REDUCE(i, uint64_t);
        sdx_lanes_store(y->dtype, &a, 1, y->data, to + i);
    }
}

static sdx_status infer_scatter_elements(sdx_infer *x)
{
    int axis;
    reduction how;
    TRY(infer_elements(x, &axis));
    if (x->in[0].dtype) TRY(read_reduction(x->node, x->in[0].dtype, &how, x->err));
    const sdx_shape *index = &x->in[1].shape, *updates = &x->in[2].shape;
    if (sdx_shape_is_known(index) && sdx_shape_is_known(updates) && !sdx_shape_same(index, updates))
        return sdx_fail(x->err, SDX_ERR_USAGE, "indices and updates differ in shape");
    return sdx_infer_same(x);
}

static sdx_status run_scatter_elements(sdx_run *r)
{
    odometer o;
    reduction how;
    int axis;
    int64_t axis_stride, n = sdx_tensor_count(&r->in[1]);
    TRY(read_reduction(r->node, r->in[0].dtype, &how, r->err));
    TRY(start_elements(r, &axis, &axis_stride, &o));
    TRY(sdx_run_copy(r));
    for (int64_t i = 0; i < n; i++, advance(&o)) {
        int64_t to = o.offset + wrap(index_at(&r->in[1], i), r->in[0].dim[axis]) * axis_stride;
        reduce_into(how, &r->in[2], i, 1, &r->out[0], to);
    }
    return SDX_OK;
}

/* ---- GatherND, ScatterND: each row of the indices is a coordinate ---------------------------------------- */

/* Coordinates of `depth` numbers into dims [batch, batch + depth) of the data, a slice of `slice` elements
 * behind. */
typedef struct coordinates {
    const sdx_tensor *indices;
    int64_t dim[SDX_MAX_RANK], stride[SDX_MAX_RANK];
    int depth;
    int64_t count, per_batch, batch_stride, slice;
} coordinates;

static sdx_status read_coordinates(sdx_run *r, int batch, coordinates *c)
{
    sdx_shape data = sdx_run_shape(r, 0), index = sdx_run_shape(r, 1);
    int64_t stride[SDX_MAX_RANK];
    sdx_shape_strides(&data, stride);
    *c = (coordinates){.indices = &r->in[1], .depth = (int)index.dim[index.rank - 1]};
    for (int i = 0; i < c->depth; i++) {
        c->dim[i] = data.dim[batch + i];
        c->stride[i] = stride[batch + i];
    }
    c->slice = sdx_shape_span(&data, batch + c->depth, data.rank);
    c->count = sdx_shape_span(&index, 0, index.rank - 1);
    c->per_batch = sdx_shape_span(&index, batch, index.rank - 1);
    c->batch_stride = sdx_shape_span(&data, batch, data.rank);
    for (int64_t i = 0; i < c->count; i++)
        for (int k = 0; k < c->depth; k++)
            TRY(check_index(index_at(c->indices, i * c->depth + k), c->dim[k], i * c->depth + k, r->err));
    return SDX_OK;
}

/* First element of the slice that coordinate i names. */
static int64_t coordinate_offset(const coordinates *c, int64_t i)
{
    int64_t offset = i < c->per_batch ? 0 : i / c->per_batch * c->batch_stride;
    for (int k = 0; k < c->depth; k++)
        offset += wrap(index_at(c->indices, i * c->depth + k), c->dim[k]) * c->stride[k];
    return offset;
}

/* indices.shape[:-1] + data.shape[batch + depth:]; unknown when the depth is. */
static sdx_status coordinate_shape(sdx_infer *x, int64_t batch, sdx_shape *out)
{
    const sdx_shape *data = &x->in[0].shape, *index = &x->in[1].shape;
    *out = SDX_SHAPE_UNKNOWN;
    TRY(want_index_type(x));
    if (data->rank < 0 || index->rank < 0) return SDX_OK;
    if (index->rank < 1 || data->rank < 1)
        return sdx_fail(x->err, SDX_ERR_USAGE, "data and indices must have rank 1 at least");
    if (batch < 0 || batch >= index->rank || batch >= data->rank)
        return sdx_fail(x->err, SDX_ERR_USAGE, "batch_dims is %lld, beyond the ranks %d and %d",
                        (long long)batch, data->rank, index->rank);
    sdx_dim depth = index->dim[index->rank - 1];
    if (depth < 0) return SDX_OK;
    if (depth < 1 || depth > data->rank - batch)
        return sdx_fail(x->err, SDX_ERR_USAGE, "coordinates of %lld numbers for data of rank %d",
                        (long long)depth, data->rank);
    for (int i = 0; i < batch; i++)
        if (data->dim[i] >= 0 && index->dim[i] >= 0 && data->dim[i] != index->dim[i])
            return sdx_fail(x->err, SDX_ERR_USAGE, "batch dim %d is %lld in the data, %lld in the indices", i,
                            (long long)data->dim[i], (long long)index->dim[i]);
    int tail = data->rank - (int)batch - (int)depth;
    if (index->rank - 1 + tail > SDX_MAX_RANK) return fail_rank(x->err, index->rank - 1 + tail);
    *out = sdx_shape_make(index->rank - 1, index->dim);
    for (int i = 0; i < tail; i++) out->dim[out->rank++] = data->dim[batch + depth + i];
    return SDX_OK;
}

static sdx_status infer_gather_nd(sdx_infer *x)
{
    sdx_shape out;
    TRY(coordinate_shape(x, sdx_node_int(x->node, "batch_dims", 0), &out));
    sdx_infer_set(x, 0, x->in[0].dtype, &out);
    return SDX_OK;
}

static sdx_status run_gather_nd(sdx_run *r)
{
    coordinates c;
    TRY(read_coordinates(r, (int)sdx_node_int(r->node, "batch_dims", 0), &c));
    size_t size = sdx_element_size(r->in[0].dtype), bytes = (size_t)c.slice * size;
    const char *from = r->in[0].data;
    char *to = r->out[0].data;
    for (int64_t i = 0; bytes && i < c.count; i++, to += bytes) {
        const char *slice = from + (size_t)coordinate_offset(&c, i) * size;
        if (bytes == 4) memcpy(to, slice, 4); /* one move */
        else memcpy(to, slice, bytes);
    }
    return SDX_OK;
}

static sdx_status infer_scatter_nd(sdx_infer *x)
{
    sdx_shape wanted;
    reduction how;
    TRY(coordinate_shape(x, 0, &wanted));
    if (x->in[0].dtype) TRY(read_reduction(x->node, x->in[0].dtype, &how, x->err));
    const sdx_shape *updates = &x->in[2].shape;
    if (sdx_shape_is_known(&wanted) && sdx_shape_is_known(updates) && !sdx_shape_same(&wanted, updates)) {
        char a[SDX_SHAPE_TEXT], b[SDX_SHAPE_TEXT];
        return sdx_fail(x->err, SDX_ERR_USAGE, "updates have shape %s; the indices ask for %s",
                        sdx_shape_format(updates, a, sizeof a), sdx_shape_format(&wanted, b, sizeof b));
    }
    return sdx_infer_same(x);
}

static sdx_status run_scatter_nd(sdx_run *r)
{
    coordinates c;
    reduction how;
    TRY(read_reduction(r->node, r->in[0].dtype, &how, r->err));
    TRY(read_coordinates(r, 0, &c));
    TRY(sdx_run_copy(r));
    for (int64_t i = 0; c.slice && i < c.count; i++)
        reduce_into(how, &r->in[2], i * c.slice, c.slice, &r->out[0], coordinate_offset(&c, i));
    return SDX_OK;
}

static const sdx_op_def rows[] = {
    {"", "Gather", 1, 0, 2, 2, 1, 1, SDX_OP_ANY_ALIGNMENT, infer_gather, NULL, NULL, run_gather},
    {"sardonyx", "ScaledRows", 1, 0, 2, 3, 1, 1, SDX_OP_ANY_ALIGNMENT, infer_scaled_rows, NULL, NULL, run_scaled_rows},
    {"", "GatherElements", 11, 0, 2, 2, 1, 1, SDX_OP_ANY_ALIGNMENT, infer_gather_elements, NULL, NULL,
     run_gather_elements},
    {"", "GatherND", 11, 0, 2, 2, 1, 1, SDX_OP_ANY_ALIGNMENT, infer_gather_nd, NULL, NULL, run_gather_nd},
    {"com.microsoft", "GatherND", 1, 0, 2, 2, 1, 1, SDX_OP_ANY_ALIGNMENT, infer_gather_nd, NULL, NULL, run_gather_nd},
    {"", "Scatter", 9, 10, 3, 3, 1, 1, SDX_OP_INPLACE, infer_scatter_elements, NULL, NULL,
     run_scatter_elements},
    {"", "ScatterElements", 11, 0, 3, 3, 1, 1, SDX_OP_INPLACE, infer_scatter_elements, NULL, NULL,
     run_scatter_elements},
    {"", "ScatterND", 11, 0, 3, 3, 1, 1, SDX_OP_INPLACE, infer_scatter_nd, NULL, NULL, run_scatter_nd},
};

SDX_OP_TABLE(gather);
