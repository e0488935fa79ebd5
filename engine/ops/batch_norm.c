/* batch_norm.c: normalization over channels and images: BatchNormalization, InstanceNormalization,
 * GroupNormalization, MeanVarianceNormalization, LpNormalization and LRN.
 *
 * All but LRN are y = (x - shift) * factor * scale[channel] + bias[channel], where shift and factor come from a
 * set of elements: the set is a list of dims with strides, walked along its last dim in lanes, so one loop
 * serves any axes and any float type. Batch normalization with known statistics, and sets that lie together in
 * float32, go through kernels.
 */
#include <math.h>
#include <string.h>

#include "compute.h"
#include "contents.h"
#include "lanes.h"

typedef enum kind { STANDARD, MEAN_VARIANCE, L1, L2 } kind;

/* ---- sets of elements ------------------------------------------------------------------------ */

typedef struct dims {
    int rank;
    int64_t dim[SDX_MAX_RANK], stride[SDX_MAX_RANK], count;
} dims;

static void add_dim(dims *d, int64_t dim, int64_t stride)
{
    d->dim[d->rank] = dim;
    d->stride[d->rank++] = stride;
    d->count *= dim;
}

/* Offset of element i in row-major order. */
static int64_t dims_offset(const dims *d, int64_t i)
{
    int64_t offset = 0;
    for (int k = d->rank - 1; k >= 0; i /= d->dim[k--]) offset += i % d->dim[k] * d->stride[k];
    return offset;
}

typedef struct normal {
    const sdx_run *run;
    kind kind;
    double epsilon;
    sdx_dtype dtype;
    const void *x;
    void *y;
    dims sets, each;            /* the sets, and the elements of one; never of rank 0 */
    int64_t inner, channels;    /* element e is of channel e / inner % channels */
    const double *scale, *bias; /* [channels], or NULL */
    double *mean, *variance;    /* [sets.count], or NULL: the statistics, for whoever wants them */
} normal;

typedef void (*chunk_fn)(const normal *s, int64_t offset, int64_t stride, int64_t n, sdx_lane *x,
                         double acc[2]);

static void visit(const normal *s, int64_t base, chunk_fn fn, double acc[2])
{
    sdx_lane lane[SDX_LANES];
    int last = s->each.rank - 1;
    int64_t row = s->each.dim[last], stride = s->each.stride[last];
    for (int64_t at = 0; at < s->each.count; at += row) {
        int64_t offset = base + dims_offset(&s->each, at);
        for (int64_t i = 0; i < row; i += SDX_LANES) {
            int64_t n = row - i < SDX_LANES ? row - i : SDX_LANES;
            sdx_lanes_load(s->dtype, s->x, offset + i * stride, stride, n, lane);
            fn(s, offset + i * stride, stride, n, lane, acc);
        }
    }
}

#define CHUNK(name, body)                                                                                      \
    static void name(const normal *s, int64_t offset, int64_t stride, int64_t n, sdx_lane *x, double acc[2])   \
    {                                                                                                          \
        (void)s, (void)offset, (void)stride;                                                                   \
        for (int64_t i = 0; i < n; i++) body;                                                                  \
    }
CHUNK(add_values, acc[0] += x[i].f)
CHUNK(add_absolute, acc[1] += fabs(x[i].f))
CHUNK(add_squares, acc[1] += (x[i].f - acc[0]) * (x[i].f - acc[0]))

/* acc: shift and factor. Elements of a set lie apart, so they are stored one by one. */
static void apply(const normal *s, int64_t offset, int64_t stride, int64_t n, sdx_lane *x, double acc[2])
{
    for (int64_t i = 0; i < n; i++) {
        int64_t at = offset + i * stride, channel = s->channels ? at / s->inner % s->channels : 0;
        double y = (x[i].f - acc[0]) * acc[1];
        if (s->scale) y *= s->scale[channel];
        if (s->bias) y += s->bias[channel];
        x[i].f = y;
        if (stride != 1) sdx_lanes_store(s->dtype, &x[i], 1, s->y, at);
    }
    if (stride == 1) sdx_lanes_store(s->dtype, x, n, s->y, offset);
}

static void normalize_sets(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const normal *s = context;
    double count = (double)s->each.count;
    for (int64_t i = begin; i < end; i++) {
        int64_t base = dims_offset(&s->sets, i);
        bool centred = s->kind == STANDARD || s->kind == MEAN_VARIANCE;
        double acc[2] = {0, 0};
        if (centred) visit(s, base, add_values, acc);
        acc[0] /= count;
        visit(s, base, s->kind == L1 ? add_absolute : add_squares, acc);
        if (centred) acc[1] /= count;
        if (s->mean) s->mean[i] = acc[0], s->variance[i] = acc[1];
        if (s->kind == STANDARD)
            acc[1] = 1 / sqrt(acc[1] + s->epsilon);
        else if (s->kind == MEAN_VARIANCE)
            acc[1] = 1 / (sqrt(acc[1]) + 1e-9);
        else if (acc[1] != 0)
            acc[1] = s->kind == L2 ? 1 / sqrt(acc[1]) : 1 / acc[1]; /* zeros stay zeros */
        visit(s, base, apply, acc);
    }
}

static void normalize(const normal *s)
{
    if (s->sets.count == 0 || s->each.count == 0) return;
    sdx_parallel_for(s->run->threads, s->sets.count, sdx_row_grain(s->each.count * 4), normalize_sets,
                     (void *)s);
}

/* ---- images [N, C, ...] ---------------------------------------------------------------------- */

typedef struct image {
    int64_t batch, channels, inner; /* a single dim is a batch of one channel */
} image;

static image image_of(const sdx_shape *x)
{
    if (x->rank < 2) return (image){x->rank ? x->dim[0] : 1, 1, 1};
    return (image){x->dim[0], x->dim[1], sdx_shape_span(x, 2, x->rank)};
}

/* Inputs first .. first+count-1 are one number per channel (or what `size` says). */
static sdx_status want_per_channel(sdx_infer *infer, int first, int count, sdx_dim size)
{
    static const char *const name[] = {"", "the scale", "the bias", "the mean", "the variance"};
    for (int i = first; i < first + count; i++) {
        TRY(sdx_want_dtype(infer, i, name[i], SDX_SET_FLOAT));
        TRY(sdx_want_rank(infer, i, name[i], 1, 1));
        TRY(sdx_want_dim(infer, i, name[i], 0, size));
    }
    return SDX_OK;
}

static sdx_dim channels_of(const sdx_type *x)
{
    return x->shape.rank == 1 || x->shape.rank == 0 ? 1 : sdx_type_dim(x, 1);
}

/* The doubles of input i at the workspace, which moves on. */
static double *take_doubles(const sdx_run *run, int i, double **workspace)
{
    int64_t n = sdx_tensor_count(&run->in[i]);
    double *out = *workspace;
    sdx_doubles_load(run->in[i].dtype, run->in[i].data, 0, n, out);
    *workspace += n;
    return out;
}

/* ---- BatchNormalization ---------------------------------------------------------------------- */

static bool is_training(const sdx_node *node)
{
    return sdx_node_int(node, "training_mode", 0) != 0;
}

static sdx_status infer_batch(sdx_infer *infer)
{
    TRY(sdx_want_dtype(infer, 0, "the input", SDX_SET_FLOAT));
    if (sdx_node_int(infer->node, "spatial", 1) != 1)
        return sdx_fail(infer->err, SDX_ERR_UNSUPPORTED, "statistics per pixel (spatial 0) are not supported");
    if (infer->in[0].shape.rank == 0) return sdx_want_rank(infer, 0, "the input", 1, SDX_MAX_RANK);
    sdx_dim channels = channels_of(&infer->in[0]);
    TRY(want_per_channel(infer, 1, 4, channels));
    sdx_shape stat = {.rank = 1, .dim = {channels}};
    for (int i = 1; i < infer->n_out; i++) sdx_infer_set(infer, i, infer->in[3].dtype, &stat);
    return sdx_infer_same(infer);
}

/* Workspace: six doubles per channel: the four inputs, and factor and shift or mean and variance. */
static sdx_status plan_batch(sdx_plan_step *step)
{
    image m = image_of(&step->in[0].shape);
    bool ok = sdx_workspace_add(&step->workspace, (size_t)m.channels, 6 * sizeof(double));
    return ok ? SDX_OK : sdx_workspace_fail(step->err);
}

typedef struct affine {
    const sdx_run *run;
    image m;
    double *factor, *shift; /* [channels]; as floats in place for float32 */
} affine;

/* y = x * factor + shift for rows of equal channel; with one pixel per channel, rows are all the channels. */
static void affine_rows(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const affine *a = context;
    const sdx_element_kernels *k = &a->run->kernels->element;
    const float *factor = (const float *)(const void *)a->factor,
                *shift = (const float *)(const void *)a->shift;
    bool flat = a->m.inner == 1;
    int64_t n = flat ? a->m.channels : a->m.inner;
    for (int64_t i = begin; i < end; i++) {
        int64_t channel = flat ? 0 : i % a->m.channels;
        const float *x = (const float *)a->run->in[0].data + i * n;
        float *y = (float *)a->run->out[0].data + i * n;
        k->binary_f32[SDX_BINARY_MUL](n, x, 1, factor + channel, flat, y);
        k->binary_f32[SDX_BINARY_ADD](n, y, 1, shift + channel, flat, y);
    }
}

static void affine_lanes(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const affine *a = context;
    sdx_dtype dtype = a->run->in[0].dtype;
    sdx_lane lane[SDX_LANES];
    for (int64_t i = begin; i < end; i += SDX_LANES) {
        int64_t n = end - i < SDX_LANES ? end - i : SDX_LANES;
        sdx_lanes_load(dtype, a->run->in[0].data, i, 1, n, lane);
        for (int64_t j = 0; j < n; j++) {
            int64_t channel = (i + j) / a->m.inner % a->m.channels;
            lane[j].f = lane[j].f * a->factor[channel] + a->shift[channel];
        }
        sdx_lanes_store(dtype, lane, n, a->run->out[0].data, i);
    }
}

static void run_affine(affine *a)
{
    const image *m = &a->m;
    if (a->run->in[0].dtype != SDX_F32) {
        sdx_parallel_for(a->run->threads, m->batch * m->channels * m->inner, SDX_GRAIN, affine_lanes, a);
        return;
    }
    float *factor = (float *)(void *)a->factor, *shift = (float *)(void *)a->shift;
    for (int64_t c = 0; c < m->channels; c++) {
        float f = (float)a->factor[c], s = (float)a->shift[c]; /* reading stays ahead of writing */
        memcpy(factor + c, &f, sizeof f);
        memcpy(shift + c, &s, sizeof s);
    }
    bool flat = m->inner == 1;
    int64_t rows = flat ? m->batch : m->batch * m->channels;
    sdx_parallel_for(a->run->threads, rows, sdx_row_grain(flat ? m->channels : m->inner), affine_rows, a);
}

/* running = running * momentum + current * (1 - momentum) */
static void store_running(const sdx_run *run, int out, const double *running, double *current, int64_t n)
{
    double momentum = (double)sdx_node_float(run->node, "momentum", 0.9f);
    if (!sdx_run_has_out(run, out)) return;
    for (int64_t c = 0; c < n; c++) current[c] = running[c] * momentum + current[c] * (1 - momentum);
    sdx_doubles_store(run->out[out].dtype, current, n, run->out[out].data, 0);
}

static sdx_status run_batch(sdx_run *run)
{
    sdx_shape x = sdx_tensor_shape(&run->in[0]);
    image m = image_of(&x);
    if (sdx_shape_count(&x) == 0) return SDX_OK;
    double *workspace = run->workspace;
    double *scale = take_doubles(run, 1, &workspace), *bias = take_doubles(run, 2, &workspace);
    double *mean = take_doubles(run, 3, &workspace), *variance = take_doubles(run, 4, &workspace);
    double epsilon = (double)sdx_node_float(run->node, "epsilon", 1e-5f), *second = workspace + m.channels;
    if (!is_training(run->node)) {
        for (int64_t c = 0; c < m.channels; c++) {
            workspace[c] = scale[c] / sqrt(variance[c] + epsilon);
            second[c] = bias[c] - mean[c] * workspace[c];
        }
        affine a = {run, m, workspace, second};
        run_affine(&a);
        return SDX_OK;
    }
    normal s = {.run = run,
                .kind = STANDARD,
                .epsilon = epsilon,
                .dtype = run->in[0].dtype,
                .x = run->in[0].data,
                .y = run->out[0].data,
                .sets = {.count = 1},
                .each = {.count = 1},
                .inner = m.inner,
                .channels = m.channels,
                .scale = scale,
                .bias = bias,
                .mean = workspace,
                .variance = second};
    add_dim(&s.sets, m.channels, m.inner);
    add_dim(&s.each, m.batch, m.channels * m.inner);
    add_dim(&s.each, m.inner, 1);
    normalize(&s);
    store_running(run, 1, mean, workspace, m.channels);
    store_running(run, 2, variance, second, m.channels);
    return SDX_OK;
}

/* ---- InstanceNormalization, GroupNormalization ----------------------------------------------- */

static int64_t groups_of(const sdx_node *node, int64_t channels)
{
    return node->op_type[0] == 'I' ? channels : sdx_node_int(node, "num_groups", 0);
}

static sdx_status infer_grouped(sdx_infer *infer, bool scale_per_group)
{
    TRY(sdx_want_dtype(infer, 0, "the input", SDX_SET_FLOAT));
    TRY(sdx_want_rank(infer, 0, "the input", 2, SDX_MAX_RANK));
    sdx_dim channels = channels_of(&infer->in[0]);
    int64_t groups = groups_of(infer->node, channels);
    if (infer->node->op_type[0] == 'G' && (groups < 1 || (channels >= 0 && channels % groups)))
        return sdx_fail(infer->err, SDX_ERR_USAGE, "%lld channels cannot be cut into %lld groups",
                        (long long)channels, (long long)groups);
    TRY(want_per_channel(infer, 1, 2, scale_per_group ? groups : channels));
    return sdx_infer_same(infer);
}

static sdx_status infer_instance(sdx_infer *infer)
{
    return infer_grouped(infer, false);
}
static sdx_status infer_group_18(sdx_infer *infer)
{
    return infer_grouped(infer, true);
}

/* Workspace: scale and bias as doubles [C], and a row of ones for the kernels. */
static sdx_status plan_grouped(sdx_plan_step *step)
{
    image m = image_of(&step->in[0].shape);
    int64_t groups = groups_of(step->node, m.channels);
    size_t row = step->in[0].dtype == SDX_F32 && groups ? (size_t)(m.channels / groups * m.inner) : 0;
    bool ok = sdx_workspace_add(&step->workspace, (size_t)m.channels, 2 * sizeof(double)) &&
              sdx_workspace_add(&step->workspace, row, sizeof(float));
    return ok ? SDX_OK : sdx_workspace_fail(step->err);
}

typedef struct grouped {
    const normal *s;
    image m;
    float *ones; /* [elements of a set] */
} grouped;

static void grouped_rows(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const grouped *g = context;
    const normal *s = g->s;
    const sdx_kernels *k = s->run->kernels;
    int64_t n = s->each.count, channels = n / g->m.inner;
    for (int64_t i = begin; i < end; i++) {
        float *y = (float *)s->y + i * n;
        k->row.layer_norm_f32(n, (const float *)s->x + i * n, NULL, NULL, g->ones, NULL, (float)s->epsilon, y,
                              NULL, NULL, NULL);
        for (int64_t c = 0; c < channels; c++, y += g->m.inner) {
            int64_t channel = (i * channels + c) % g->m.channels;
            float scale = (float)s->scale[channel], bias = (float)s->bias[channel];
            k->element.binary_f32[SDX_BINARY_MUL](g->m.inner, y, 1, &scale, 0, y);
            k->element.binary_f32[SDX_BINARY_ADD](g->m.inner, y, 1, &bias, 0, y);
        }
    }
}

/* Numbers per group become numbers per channel, from the last one backwards in place. */
static void spread_groups(double *x, int64_t groups, int64_t channels)
{
    for (int64_t c = channels - 1; c >= 0; c--) x[c] = x[c / (channels / groups)];
}

static sdx_status run_grouped(sdx_run *run)
{
    sdx_shape shape = sdx_tensor_shape(&run->in[0]);
    image m = image_of(&shape);
    if (sdx_shape_count(&shape) == 0) return SDX_OK;
    int64_t groups = groups_of(run->node, m.channels), each = m.channels / groups * m.inner;
    double *scale = run->workspace, *bias = scale + m.channels;
    for (int i = 1; i <= 2; i++) {
        double *workspace = i == 1 ? scale : bias;
        bool per_group = sdx_tensor_count(&run->in[i]) != m.channels;
        take_doubles(run, i, &workspace);
        if (per_group) spread_groups(i == 1 ? scale : bias, groups, m.channels);
    }
    normal s = {.run = run,
                .kind = STANDARD,
                .epsilon = (double)sdx_node_float(run->node, "epsilon", 1e-5f),
                .dtype = run->in[0].dtype,
                .x = run->in[0].data,
                .y = run->out[0].data,
                .sets = {.count = 1},
                .each = {.count = 1},
                .inner = m.inner,
                .channels = m.channels,
                .scale = scale,
                .bias = bias};
    add_dim(&s.sets, m.batch * groups, each);
    add_dim(&s.each, each, 1);
    if (s.dtype != SDX_F32) {
        normalize(&s);
        return SDX_OK;
    }
    char *workspace = run->workspace;
    sdx_workspace_take(&workspace, (size_t)m.channels * 2 * sizeof(double));
    grouped g = {&s, m, (float *)(void *)workspace};
    for (int64_t i = 0; i < each; i++) g.ones[i] = 1;
    sdx_parallel_for(run->threads, s.sets.count, sdx_row_grain(each), grouped_rows, &g);
    return SDX_OK;
}

/* ---- MeanVarianceNormalization, LpNormalization ---------------------------------------------- */

static sdx_status mvn_axes(const sdx_node *node, int rank, unsigned *set, sdx_error *err)
{
    size_t count;
    const int64_t *given = sdx_node_ints(node, "axes", &count);
    sdx_ints axes = {.count = 3, .v = {0, 2, 3}};
    if (given && count > SDX_MAX_RANK) return sdx_fail(err, SDX_ERR_FILE, "axes lists %zu axes", count);
    if (given) {
        axes.count = (int)count;
        memcpy(axes.v, given, count * sizeof *given);
    }
    return sdx_axes_to_set(&axes, rank, set, err);
}

static sdx_status infer_mvn(sdx_infer *infer)
{
    unsigned set;
    TRY(sdx_want_dtype(infer, 0, "the input", SDX_SET_FLOAT));
    if (infer->in[0].shape.rank >= 0) TRY(mvn_axes(infer->node, infer->in[0].shape.rank, &set, infer->err));
    return sdx_infer_same(infer);
}

static sdx_status infer_lp(sdx_infer *infer)
{
    int axis, rank = infer->in[0].shape.rank;
    int64_t p = sdx_node_int(infer->node, "p", 2);
    TRY(sdx_want_dtype(infer, 0, "the input", SDX_SET_FLOAT));
    if (p != 1 && p != 2)
        return sdx_fail(infer->err, SDX_ERR_UNSUPPORTED, "p is %lld, but must be 1 or 2", (long long)p);
    if (rank >= 0) TRY(sdx_axis_normalize(sdx_node_int(infer->node, "axis", -1), rank, &axis, infer->err));
    return sdx_infer_same(infer);
}

/* Sets along the axes in `set`. */
static sdx_status run_over(sdx_run *run, unsigned set, kind what)
{
    sdx_shape x = sdx_tensor_shape(&run->in[0]);
    int64_t stride[SDX_MAX_RANK];
    normal s = {.run = run,
                .kind = what,
                .dtype = run->in[0].dtype,
                .x = run->in[0].data,
                .y = run->out[0].data,
                .sets = {.count = 1},
                .each = {.count = 1}};
    sdx_shape_strides(&x, stride);
    for (int i = 0; i < x.rank; i++) add_dim(set & 1u << i ? &s.each : &s.sets, x.dim[i], stride[i]);
    if (s.each.rank == 0) add_dim(&s.each, 1, 1);
    normalize(&s);
    return SDX_OK;
}

static sdx_status run_mvn(sdx_run *run)
{
    unsigned set;
    TRY(mvn_axes(run->node, run->in[0].rank, &set, run->err));
    return run_over(run, set, MEAN_VARIANCE);
}

static sdx_status run_lp(sdx_run *run)
{
    int axis;
    TRY(sdx_axis_normalize(sdx_node_int(run->node, "axis", -1), run->in[0].rank, &axis, run->err));
    return run_over(run, 1u << axis, sdx_node_int(run->node, "p", 2) == 1 ? L1 : L2);
}

/* ---- LRN: y = x / (bias + alpha / size * sum of squares over `size` neighbouring channels)^beta  */

static sdx_status infer_lrn(sdx_infer *infer)
{
    int64_t size = sdx_node_int(infer->node, "size", 0);
    TRY(sdx_want_dtype(infer, 0, "the input", SDX_SET_FLOAT));
    TRY(sdx_want_rank(infer, 0, "the input", 2, SDX_MAX_RANK));
    if (size < 1) return sdx_fail(infer->err, SDX_ERR_FILE, "size is %lld", (long long)size);
    return sdx_infer_same(infer);
}

typedef struct lrn {
    const sdx_run *run;
    image m;
    int64_t before, after; /* neighbours */
    double factor, beta, bias;
} lrn;

/* Planes [begin, end) of [batch, channel]. */
static void lrn_planes(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const lrn *l = context;
    sdx_dtype dtype = l->run->in[0].dtype;
    const void *x = l->run->in[0].data;
    sdx_lane lane[SDX_LANES];
    double sum[SDX_LANES];
    for (int64_t p = begin; p < end; p++) {
        int64_t c = p % l->m.channels, left = l->m.channels - 1 - c;
        int64_t first = p - (c < l->before ? c : l->before), last = p + (left < l->after ? left : l->after);
        for (int64_t i = 0; i < l->m.inner; i += SDX_LANES) {
            int64_t n = l->m.inner - i < SDX_LANES ? l->m.inner - i : SDX_LANES;
            memset(sum, 0, sizeof sum);
            for (int64_t q = first; q <= last; q++) {
                sdx_lanes_load(dtype, x, q * l->m.inner + i, 1, n, lane);
                for (int64_t j = 0; j < n; j++) sum[j] += lane[j].f * lane[j].f;
            }
            sdx_lanes_load(dtype, x, p * l->m.inner + i, 1, n, lane);
            for (int64_t j = 0; j < n; j++) lane[j].f /= pow(l->bias + l->factor * sum[j], l->beta);
            sdx_lanes_store(dtype, lane, n, l->run->out[0].data, p * l->m.inner + i);
        }
    }
}

static sdx_status run_lrn(sdx_run *run)
{
    sdx_shape x = sdx_tensor_shape(&run->in[0]);
    const sdx_node *node = run->node;
    int64_t size = sdx_node_int(node, "size", 1);
    lrn l = {.run = run,
             .m = image_of(&x),
             .before = (size - 1) / 2,
             .after = size / 2,
             .factor = (double)sdx_node_float(node, "alpha", 1e-4f) / (double)size,
             .beta = (double)sdx_node_float(node, "beta", 0.75f),
             .bias = (double)sdx_node_float(node, "bias", 1)};
    if (sdx_shape_count(&x) == 0) return SDX_OK;
    sdx_parallel_for(run->threads, l.m.batch * l.m.channels, sdx_row_grain(l.m.inner * 16), lrn_planes, &l);
    return SDX_OK;
}

#define IN SDX_OP_INPLACE
static const sdx_op_def rows[] = {
    {"", "BatchNormalization", 7, 13, 5, 5, 1, 1, 0, infer_batch, NULL, plan_batch, run_batch},
    {"", "BatchNormalization", 14, 0, 5, 5, 1, 3, 0, infer_batch, NULL, plan_batch, run_batch},
    {"", "InstanceNormalization", 6, 0, 3, 3, 1, 1, IN, infer_instance, NULL, plan_grouped, run_grouped},
    {"", "GroupNormalization", 18, 20, 3, 3, 1, 1, IN, infer_group_18, NULL, plan_grouped, run_grouped},
    {"", "GroupNormalization", 21, 0, 3, 3, 1, 1, IN, infer_instance, NULL, plan_grouped, run_grouped},
    {"", "MeanVarianceNormalization", 9, 0, 1, 1, 1, 1, IN, infer_mvn, NULL, NULL, run_mvn},
    {"", "LpNormalization", 1, 0, 1, 1, 1, 1, IN, infer_lp, NULL, NULL, run_lp},
    {"", "LRN", 1, 0, 1, 1, 1, 1, 0, infer_lrn, NULL, NULL, run_lrn},
};

SDX_OP_TABLE(batch_norm);
