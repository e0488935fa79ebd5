/* pool.c: MaxPool, AveragePool, LpPool, their global forms, MaxUnpool and MaxRoiPool.
 *
 * A pooling takes its taps one after the other over a whole output plane, as runs (window.h), in lanes: so
 * there is one loop for all types and any number of dims. Maxima are compared in the input's own kind (double
 * or 64-bit integer), sums are doubles.
 */
#include <math.h>
#include <string.h>

#include "compute.h"
#include "contents.h"
#include "lanes.h"
#include "window.h"

typedef enum kind { MAXIMUM, AVERAGE, NORM } kind;

static kind kind_of(const sdx_node *node)
{
    const char *name = node->op_type;
    if (!strncmp(name, "Global", 6)) name += 6;
    return name[0] == 'M' ? MAXIMUM : name[0] == 'A' ? AVERAGE : NORM;
}

static bool is_global(const sdx_node *node)
{
    return !strncmp(node->op_type, "Global", 6);
}

/* ---- infer ----------------------------------------------------------------------------------- */

/* A global pooling is one window as large as the input. */
static sdx_status read_window(sdx_window *w, const sdx_node *node, const sdx_shape *x, sdx_error *err)
{
    int rank = x->rank - 2;
    if (!is_global(node)) return sdx_window_read(w, node, rank, x->dim + 2, NULL, err);
    *w = (sdx_window){.rank = rank};
    for (int i = 0; i < rank; i++) {
        w->in[i] = w->kernel[i] = x->dim[i + 2];
        w->out[i] = w->stride[i] = w->dilation[i] = 1;
    }
    return SDX_OK;
}

static sdx_status infer_pool(sdx_infer *infer)
{
    const sdx_type *x = &infer->in[0];
    unsigned set = SDX_SET_FLOAT;
    if (kind_of(infer->node) == MAXIMUM) set |= SDX_SET_BYTE;
    TRY(sdx_want_dtype(infer, 0, "the input", set));
    TRY(sdx_want_rank(infer, 0, "the input", 3, SDX_MAX_RANK));
    if (sdx_node_int(infer->node, "p", 2) < 1)
        return sdx_fail(infer->err, SDX_ERR_FILE, "p is %lld", (long long)sdx_node_int(infer->node, "p", 2));
    infer->out[0].dtype = x->dtype;
    if (infer->n_out > 1) infer->out[1].dtype = SDX_I64;
    if (x->shape.rank < 0) return SDX_OK;
    sdx_window w;
    TRY(read_window(&w, infer->node, &x->shape, infer->err));
    if (!is_global(infer->node)) sdx_window_name_out(&w, infer->node, infer->model);
    sdx_shape y = {.rank = x->shape.rank, .dim = {x->shape.dim[0], x->shape.dim[1]}};
    memcpy(y.dim + 2, w.out, (size_t)w.rank * sizeof *y.dim);
    sdx_infer_set(infer, 0, x->dtype, &y);
    sdx_infer_set(infer, 1, SDX_I64, &y);
    return SDX_OK;
}

/* Workspace per worker: the output plane in lanes, and indices. */
static sdx_status plan_pool(sdx_plan_step *step)
{
    sdx_window w;
    TRY(read_window(&w, step->node, &step->in[0].shape, step->err));
    size_t plane = (size_t)sdx_window_out_count(&w);
    bool ok =
        sdx_workspace_add(&step->workspace, 2 * (size_t)step->threads, sdx_align_up(plane * sizeof(sdx_lane)));
    return ok ? SDX_OK : sdx_workspace_fail(step->err);
}

/* ---- run ------------------------------------------------------------------------------------- */

typedef struct pooling {
    const sdx_run *run;
    sdx_window w, seen; /* `seen`: of w, the taps that can meet the input */
    kind kind;
    sdx_dtype dtype;
    int64_t in_plane, out_plane, p;
    bool count_pad, column_major;
} pooling;

typedef struct plane {
    const pooling *pool;
    int64_t x;      /* first element of the input plane */
    sdx_lane *lane; /* [out_plane] */
    int64_t *index; /* [out_plane]: input element of the maximum so far, -1: none yet */
} plane;

static void take_maximum(const plane *p, int64_t out, int64_t in, int64_t step, int64_t n, const sdx_lane *x)
{
    bool floats = sdx_dtype_is_float(p->pool->dtype);
    for (int64_t i = 0; i < n; i++) {
        sdx_lane *best = &p->lane[out + i];
        bool more = floats ? x[i].f > best->f : x[i].i > best->i;
        if (!more && p->index[out + i] >= 0) continue;
        *best = x[i];
        p->index[out + i] = in + i * step;
    }
}

static void pool_run(void *context, int64_t out, int64_t in, int64_t n)
{
    const plane *p = context;
    const pooling *pool = p->pool;
    int64_t step = pool->w.stride[pool->w.rank - 1];
    sdx_lane lane[SDX_LANES];
    for (int64_t i = 0; i < n; i += SDX_LANES) {
        int64_t some = n - i < SDX_LANES ? n - i : SDX_LANES;
        sdx_lane *sum = p->lane + out + i;
        sdx_lanes_load(pool->dtype, pool->run->in[0].data, p->x + in + i * step, step, some, lane);
        if (pool->kind == MAXIMUM) take_maximum(p, out + i, in + i * step, step, some, lane);
        for (int64_t j = 0; j < some && pool->kind != MAXIMUM; j++) {
            if (pool->kind == AVERAGE)
                sum[j].f += lane[j].f;
            else if (pool->p == 2)
                sum[j].f += lane[j].f * lane[j].f;
            else
                sum[j].f += pow(fabs(lane[j].f), (double)pool->p);
        }
    }
}

/* Taps of output o along dim d that lie on the input, or on the input and its padding. */
static int64_t count_taps(const sdx_window *w, int d, int64_t o, bool with_pad)
{
    int64_t low = with_pad ? -w->pad[d] : 0, high = w->in[d] + (with_pad ? w->pad_end[d] : 0);
    int64_t first = o * w->stride[d] - w->pad[d], step = w->dilation[d];
    int64_t from = first >= low ? 0 : (low - first + step - 1) / step;
    int64_t to = high > first ? (high - 1 - first) / step + 1 : 0;
    if (to > w->kernel[d]) to = w->kernel[d];
    return to > from ? to - from : 0;
}

static void divide_by_counts(const pooling *pool, sdx_lane *lane)
{
    const sdx_window *w = &pool->w;
    for (int64_t o = 0; o < pool->out_plane; o++) {
        int64_t count = 1, rest = o;
        for (int d = w->rank - 1; d >= 0; rest /= w->out[d--])
            count *= count_taps(w, d, rest % w->out[d], pool->count_pad);
        lane[o].f = count ? lane[o].f / (double)count : 0;
    }
}

/* The place of an element of a plane when the first dim runs fastest. */
static int64_t column_major(const sdx_window *w, int64_t at)
{
    int64_t place = 0, scale = sdx_window_in_count(w);
    for (int d = w->rank - 1; d >= 0; at /= w->in[d--]) place += at % w->in[d] * (scale /= w->in[d]);
    return place;
}

static void store_indices(const pooling *pool, const plane *p, int64_t *out)
{
    for (int64_t o = 0; o < pool->out_plane; o++) {
        int64_t at = p->index[o] < 0 ? 0 : p->index[o];
        out[o] = p->x + (pool->column_major ? column_major(&pool->w, at) : at);
    }
}

/* The window less the taps that meet nothing but padding: a kernel may be far larger than its input. */
static sdx_window cut_window(sdx_window w)
{
    for (int d = 0; d < w.rank; d++) {
        int64_t step = w.dilation[d], before = w.pad[d] - (w.out[d] - 1) * w.stride[d];
        int64_t from = before > 0 ? (before + step - 1) / step : 0, to = (w.pad[d] + w.in[d] + step - 1) / step;
        if (to > w.kernel[d]) to = w.kernel[d];
        w.kernel[d] = to > from ? to - from : 0;
        w.pad[d] -= from * step;
    }
    return w;
}

/* Planes [begin, end) of [N, C]. */
static void pool_planes(void *context, int64_t begin, int64_t end, int worker)
{
    const pooling *pool = context;
    const sdx_run *run = pool->run;
    size_t part = sdx_align_up((size_t)pool->out_plane * sizeof(sdx_lane));
    char *own = (char *)run->workspace + (size_t)worker * 2 * part;
    plane p = {.pool = pool, .lane = sdx_workspace_take(&own, part), .index = sdx_workspace_take(&own, part)};
    int64_t taps = sdx_window_taps(&pool->seen), n = pool->out_plane;
    sdx_lane start = {.f = pool->kind == MAXIMUM ? -INFINITY : 0};
    sdx_lanes_convert(SDX_LANE_F, pool->dtype, 1, &start);
    for (int64_t i = begin; i < end; i++) {
        p.x = i * pool->in_plane;
        for (int64_t o = 0; o < n; o++) p.lane[o] = start, p.index[o] = -1;
        for (int64_t tap = 0; tap < taps; tap++) sdx_window_runs(&pool->seen, tap, 0, n, pool_run, &p);
        if (pool->kind == AVERAGE) divide_by_counts(pool, p.lane);
        for (int64_t o = 0; o < n && pool->kind == NORM; o++)
            p.lane[o].f = pow(p.lane[o].f, 1.0 / (double)pool->p);
        sdx_lanes_store(pool->dtype, p.lane, n, run->out[0].data, i * n);
        if (sdx_run_has_out(run, 1)) store_indices(pool, &p, (int64_t *)run->out[1].data + i * n);
    }
}

static sdx_status run_pool(sdx_run *run)
{
    const sdx_node *node = run->node;
    sdx_shape x = sdx_tensor_shape(&run->in[0]);
    pooling p = {.run = run,
                 .kind = kind_of(node),
                 .dtype = run->in[0].dtype,
                 .p = sdx_node_int(node, "p", 2),
                 .count_pad = sdx_node_int(node, "count_include_pad", 0) != 0,
                 .column_major = sdx_node_int(node, "storage_order", 0) != 0};
    TRY(read_window(&p.w, node, &x, run->err));
    if (sdx_tensor_count(&run->out[0]) == 0) return SDX_OK;
    p.seen = cut_window(p.w);
    p.in_plane = sdx_window_in_count(&p.w);
    p.out_plane = sdx_window_out_count(&p.w);
    int64_t grain = sdx_row_grain(p.out_plane * (sdx_window_taps(&p.seen) + 1));
    sdx_parallel_for(run->threads, x.dim[0] * x.dim[1], grain, pool_planes, &p);
    return SDX_OK;
}

/* ---- MaxUnpool ------------------------------------------------------------------------------- */

/* What the pooling came from: its spatial dims when they are known, else unknown ones. */
static sdx_status unpooled_shape(const sdx_node *node, const sdx_shape *x, sdx_shape *y, sdx_error *err)
{
    sdx_window w;
    TRY(sdx_window_attributes(&w, node, x->rank - 2, NULL, err));
    *y = *x;
    for (int i = 0; i < w.rank; i++) {
        sdx_dim in = x->dim[i + 2], out = SDX_DIM_UNKNOWN;
        if (sdx_dim_is_known(in) && in < INT64_C(1) << 32) {
            out = (in - 1) * w.stride[i] - w.pad[i] - w.pad_end[i] + w.kernel[i];
            if (out < 0)
                return sdx_fail(err, SDX_ERR_USAGE, "spatial dimension %d of the result would be negative", i);
        }
        y->dim[i + 2] = out;
    }
    return SDX_OK;
}

static sdx_status infer_unpool(sdx_infer *infer)
{
    const sdx_shape *x = &infer->in[0].shape;
    TRY(sdx_want_dtype(infer, 0, "the input", SDX_SET_FLOAT | SDX_SET_BYTE));
    TRY(sdx_want_dtype(infer, 1, "the indices", SDX_SET(SDX_I64)));
    TRY(sdx_want_rank(infer, 0, "the input", 3, SDX_MAX_RANK));
    infer->out[0].dtype = infer->in[0].dtype;
    if (x->rank < 0) return SDX_OK;
    TRY(sdx_want_rank(infer, 1, "the indices", x->rank, x->rank));
    for (int i = 0; i < x->rank; i++) TRY(sdx_want_dim(infer, 1, "the indices", i, x->dim[i]));
    sdx_shape y, given;
    TRY(unpooled_shape(infer->node, x, &y, infer->err));
    if (sdx_infer_has(infer, 2)) {
        TRY(sdx_infer_shape_input(infer, 2, &given));
        if (given.rank >= 0 && given.rank != x->rank)
            return sdx_fail(infer->err, SDX_ERR_USAGE, "output_shape has %d numbers for an input of rank %d",
                            given.rank, x->rank);
        for (int i = 0; i < given.rank; i++)
            if (sdx_dim_is_known(given.dim[i]) && sdx_dim_is_known(y.dim[i]) && given.dim[i] < y.dim[i])
                return sdx_fail(infer->err, SDX_ERR_USAGE,
                                "output_shape is %lld along axis %d, but at least %lld are "
                                "unpooled",
                                (long long)given.dim[i], i, (long long)y.dim[i]);
        y = given;
    }
    sdx_infer_set(infer, 0, infer->in[0].dtype, &y);
    return SDX_OK;
}

/* Indices count elements of the unpooled shape, which sits at the front of an output_shape that is larger. */
static sdx_status run_unpool(sdx_run *run)
{
    const sdx_tensor *x = &run->in[0], *index = &run->in[1], *y = &run->out[0];
    sdx_shape in = sdx_tensor_shape(x), out = sdx_tensor_shape(y), inner;
    int64_t stride[SDX_MAX_RANK], n = sdx_tensor_count(x);
    size_t size = sdx_dtype_size(x->dtype);
    memset(y->data, 0, sdx_tensor_bytes(y));
    TRY(unpooled_shape(run->node, &in, &inner, run->err));
    int64_t count = sdx_shape_count(&inner);
    sdx_shape_strides(&out, stride);
    for (int64_t i = 0; i < n; i++) {
        int64_t rest = ((const int64_t *)index->data)[i], at = 0;
        if (rest < 0 || rest >= count)
            return sdx_fail(run->err, SDX_ERR_USAGE, "index %lld is outside the unpooled %lld elements",
                            (long long)rest, (long long)count);
        for (int d = inner.rank - 1; d >= 0; rest /= inner.dim[d--]) at += rest % inner.dim[d] * stride[d];
        memcpy((char *)y->data + (size_t)at * size, (const char *)x->data + (size_t)i * size, size);
    }
    return SDX_OK;
}

/* ---- MaxRoiPool ------------------------------------------------------------------------------ */

static sdx_status infer_roi(sdx_infer *infer)
{
    size_t count;
    const int64_t *pooled = sdx_node_ints(infer->node, "pooled_shape", &count);
    TRY(sdx_want_dtype(infer, 0, "the input", SDX_SET_FLOAT));
    TRY(sdx_want_same_dtype(infer, 1, "the regions", 0, "the input"));
    TRY(sdx_want_rank(infer, 0, "the input", 4, 4));
    TRY(sdx_want_rank(infer, 1, "the regions", 2, 2));
    TRY(sdx_want_dim(infer, 1, "the regions", 1, 5));
    if (!pooled || count != 2 || pooled[0] < 1 || pooled[1] < 1)
        return sdx_fail(infer->err, SDX_ERR_FILE, "pooled_shape must be two positive numbers");
    sdx_shape y = {4, {sdx_type_dim(&infer->in[1], 0), sdx_type_dim(&infer->in[0], 1), pooled[0], pooled[1]}};
    sdx_infer_set(infer, 0, infer->in[0].dtype, &y);
    return SDX_OK;
}

typedef struct roi_pool {
    const sdx_run *run;
    int64_t channels, in[2], out[2];
} roi_pool;

/* Rows or columns of bin `i` of `n` over a region from `first` to `last`: at least one wide, cut to [0, size).
 */
static void roi_bin(double first, double last, int64_t i, int64_t n, int64_t size, int64_t *from, int64_t *to)
{
    double extent = fmax(last - first + 1, 1) / (double)n;
    *from = (int64_t)fmin(fmax(floor((double)i * extent) + first, 0), (double)size);
    *to = (int64_t)fmin(fmax(ceil((double)(i + 1) * extent) + first, 0), (double)size);
}

/* Regions [begin, end): (image, x1, y1, x2, y2), rounded to pixels; an empty bin gives 0 (R. Girshick, Fast
 * R-CNN). */
static void roi_regions(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const roi_pool *p = context;
    const sdx_tensor *x = &p->run->in[0], *y = &p->run->out[0];
    double scale = (double)sdx_node_float(p->run->node, "spatial_scale", 1), region[5];
    int64_t pixels = p->in[0] * p->in[1], each = p->channels * p->out[0] * p->out[1];
    for (int64_t i = begin * each; i < end * each; i++) {
        int64_t column = i % p->out[1], row = i / p->out[1] % p->out[0],
                channel = i / (p->out[0] * p->out[1]) % p->channels;
        int64_t y0, y1, x0, x1;
        sdx_doubles_load(x->dtype, p->run->in[1].data, i / each * 5, 5, region);
        for (int k = 1; k < 5; k++) region[k] = round(region[k] * scale);
        roi_bin(region[2], region[4], row, p->out[0], p->in[0], &y0, &y1);
        roi_bin(region[1], region[3], column, p->out[1], p->in[1], &x0, &x1);
        int64_t from = ((int64_t)region[0] * p->channels + channel) * pixels;
        double best = y0 < y1 && x0 < x1 ? -INFINITY : 0, value;
        for (int64_t r = y0; r < y1; r++)
            for (int64_t c = x0; c < x1; c++) {
                sdx_doubles_load(x->dtype, x->data, from + r * p->in[1] + c, 1, &value);
                if (value > best) best = value;
            }
        sdx_doubles_store(y->dtype, &best, 1, y->data, i);
    }
}

static sdx_status run_roi(sdx_run *run)
{
    const sdx_tensor *x = &run->in[0], *regions = &run->in[1], *y = &run->out[0];
    roi_pool p = {run, x->dim[1], {x->dim[2], x->dim[3]}, {y->dim[2], y->dim[3]}};
    for (int64_t i = 0; i < regions->dim[0]; i++) {
        double image = sdx_tensor_get_f64(regions, i * 5);
        if (!(image >= 0 && image < (double)x->dim[0]))
            return sdx_fail(run->err, SDX_ERR_USAGE, "region %lld is of image %g of %lld", (long long)i, image,
                            (long long)x->dim[0]);
        for (int64_t k = 1; k < 5; k++)
            if (!isfinite(sdx_tensor_get_f64(regions, i * 5 + k)))
                return sdx_fail(run->err, SDX_ERR_USAGE, "region %lld is not finite", (long long)i);
    }
    if (sdx_tensor_count(y) > 0) sdx_parallel_for(run->threads, regions->dim[0], 1, roi_regions, &p);
    return SDX_OK;
}

#define POOL(name, since, until, outputs)                                                                      \
    {                                                                                                          \
        "", name, since, until, 1, 1, 1, outputs, 0, infer_pool, NULL, plan_pool, run_pool                     \
    }
static const sdx_op_def rows[] = {
    POOL("MaxPool", 1, 7, 1),
    POOL("MaxPool", 8, 0, 2),
    POOL("AveragePool", 1, 0, 1),
    POOL("LpPool", 2, 0, 1),
    POOL("GlobalMaxPool", 1, 0, 1),
    POOL("GlobalAveragePool", 1, 0, 1),
    POOL("GlobalLpPool", 2, 0, 1),
    {"", "MaxUnpool", 9, 0, 2, 3, 1, 1, 0, infer_unpool, NULL, NULL, run_unpool},
    {"", "MaxRoiPool", 1, 0, 2, 2, 1, 1, 0, infer_roi, NULL, NULL, run_roi},
};

SDX_OP_TABLE(pool);
