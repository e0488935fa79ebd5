/* grid_sample.c: GridSample and AffineGrid (spatial transformers, Jaderberg et al., 2015), in two or three
 * spatial dims, and DeformConv (J. Dai et al., Deformable Convolutional Networks, 2017), whose taps are sampled
 * in the same way.
 *
 * A sample is a product over the dims of short filters: one tap for the nearest pixel, two for linear, four for
 * cubic. Pixels off the image are zero, the nearest border pixel, or mirrored.
 */
#include <math.h>
#include <string.h>

#include "compute.h"
#include "contents.h"
#include "convolve.h"
#include "lanes.h"

enum mode { NEAREST, LINEAR, CUBIC };
enum padding { ZEROS, BORDER, REFLECTION };

/* ---- samples --------------------------------------------------------------------------------- */

typedef struct sampler {
    int rank;
    int64_t dim[SDX_MAX_SPATIAL];
    enum mode mode;
    enum padding padding;
    bool align_corners;
} sampler;

/* The pixels of one sample: up to 4 along each dim. Pixels that count as zero have weight 0. */
typedef struct sample {
    int taps;
    int64_t index[SDX_MAX_SPATIAL][4];
    double weight[SDX_MAX_SPATIAL][4];
} sample;

/* Mirrors x into [low, high]. */
static double reflect(double x, double low, double high)
{
    double span = high - low;
    if (!(span > 0)) return low;
    double distance = fmod(fabs(x - low), 2 * span);
    return low + (distance > span ? 2 * span - distance : distance);
}

/* A position off the image is first brought back, as padding says. */
static double settle(const sampler *s, int d, double x)
{
    double size = (double)s->dim[d], low = s->align_corners ? 0 : -0.5,
           high = s->align_corners ? size - 1 : size - 0.5;
    if ((x >= low && x <= high) || s->mode == CUBIC) return x; /* cubic: each pixel on its own */
    if (s->padding == BORDER) return fmin(fmax(x, 0), size - 1);
    return s->padding == REFLECTION ? reflect(x, low, high) : x;
}

/* One pixel along one dim, wherever it lies. */
static void set_tap(const sampler *s, int d, int tap, double at, double weight, sample *out)
{
    double last = (double)(s->dim[d] - 1);
    bool inside = at >= 0 && at <= last;
    if (!inside && s->padding == BORDER) at = fmin(fmax(at, 0), last);
    if (!inside && s->padding == REFLECTION)
        at =
            fmin(fmax(round(s->align_corners ? reflect(at, 0, last) : reflect(at, -0.5, last + 0.5)), 0), last);
    bool lost = !inside && s->padding == ZEROS;
    out->index[d][tap] = lost || !(at == at) ? 0 : (int64_t)at;
    out->weight[d][tap] = lost ? 0 : weight;
}

/* Keys' cubic with a = -0.75, at distances 1 + t, t, 1 - t and 2 - t. */
static void cubic_weights(double t, double w[4])
{
    const double a = -0.75;
    const double x[4] = {1 + t, t, 1 - t, 2 - t};
    for (int i = 0; i < 4; i++)
        w[i] = x[i] <= 1 ? ((a + 2) * x[i] - (a + 3)) * x[i] * x[i] + 1
                         : ((a * x[i] - 5 * a) * x[i] + 8 * a) * x[i] - 4 * a;
}

/* The taps of a position in pixels. */
static void locate(const sampler *s, const double *position, sample *out)
{
    out->taps = s->mode == NEAREST ? 1 : s->mode == LINEAR ? 2 : 4;
    for (int d = 0; d < s->rank; d++) {
        double x = isfinite(position[d]) ? position[d] : -1, w[4] = {1};
        x = settle(s, d, s->mode == NEAREST ? nearbyint(x) : x);
        double first = s->mode == NEAREST ? nearbyint(x) : floor(x), t = x - first;
        if (s->mode == LINEAR) w[0] = 1 - t, w[1] = t;
        if (s->mode == CUBIC) cubic_weights(t, w), first -= 1;
        for (int k = 0; k < out->taps; k++) set_tap(s, d, k, first + k, w[k], out);
    }
}

static double take(const sampler *s, const sample *p, sdx_dtype dtype, const void *x, int64_t plane)
{
    int64_t combinations = 1;
    double sum = 0, value;
    for (int d = 0; d < s->rank; d++) combinations *= p->taps;
    for (int64_t c = 0; c < combinations; c++) {
        int64_t rest = c, at = 0, stride = 1;
        double weight = 1;
        for (int d = s->rank - 1; d >= 0; rest /= p->taps, stride *= s->dim[d--]) {
            at += p->index[d][rest % p->taps] * stride;
            weight *= p->weight[d][rest % p->taps];
        }
        if (weight == 0) continue;
        sdx_doubles_load(dtype, x, plane + at, 1, &value);
        sum += weight * value;
    }
    return sum;
}

/* ---- GridSample ------------------------------------------------------------------------------ */

static sdx_status read_sampler(const sdx_node *node, sampler *s, sdx_error *err)
{
    static const struct {
        const char *name;
        enum mode mode;
    } modes[] = {
        {"bilinear", LINEAR}, {"linear", LINEAR}, {"nearest", NEAREST}, {"bicubic", CUBIC}, {"cubic", CUBIC}};
    static const char *const paddings[] = {"zeros", "border", "reflection"};
    const char *mode = sdx_node_string(node, "mode", "linear"),
               *padding = sdx_node_string(node, "padding_mode", "zeros");
    bool known_mode = false, known_padding = false;
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
        if (!strcmp(mode, modes[i].name)) s->mode = modes[i].mode, known_mode = true;
    for (int i = 0; i < 3; i++)
        if (!strcmp(padding, paddings[i])) s->padding = (enum padding)i, known_padding = true;
    s->align_corners = sdx_node_int(node, "align_corners", 0) != 0;
    if (known_mode && known_padding) return SDX_OK;
    return sdx_fail(err, SDX_ERR_UNSUPPORTED, "mode \"%s\" with padding \"%s\" is not known", mode, padding);
}

static sdx_status infer_grid_sample(sdx_infer *infer)
{
    const sdx_type *x = &infer->in[0], *grid = &infer->in[1];
    sampler s;
    TRY(read_sampler(infer->node, &s, infer->err));
    TRY(sdx_want_rank(infer, 0, "the input", 3, SDX_MAX_RANK));
    TRY(sdx_want_dtype(infer, 1, "the grid", SDX_SET_FLOAT));
    if (x->dtype && (sdx_dtype_lane(x->dtype) == SDX_LANE_NONE))
        return sdx_fail(infer->err, SDX_ERR_UNSUPPORTED, "it does not take %s", sdx_dtype_name(x->dtype));
    infer->out[0].dtype = x->dtype;
    if (x->shape.rank < 0) return SDX_OK;
    TRY(sdx_want_rank(infer, 1, "the grid", x->shape.rank, x->shape.rank));
    TRY(sdx_want_dim(infer, 1, "the grid", 0, x->shape.dim[0]));
    TRY(sdx_want_dim(infer, 1, "the grid", -1, x->shape.rank - 2));
    sdx_shape y = {.rank = x->shape.rank, .dim = {x->shape.dim[0], x->shape.dim[1]}};
    for (int i = 2; i < y.rank; i++) y.dim[i] = grid->shape.rank < 0 ? SDX_DIM_UNKNOWN : grid->shape.dim[i - 1];
    sdx_infer_set(infer, 0, x->dtype, &y);
    return SDX_OK;
}

typedef struct grid_task {
    const sdx_run *run;
    sampler s;
    int64_t channels, in_plane, out_plane;
} grid_task;

/* Points [begin, end) of [batch, out_plane]; the grid lists coordinates from the last dim to the first, in [-1,
 * 1]. */
static void sample_points(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const grid_task *t = context;
    const sdx_tensor *x = &t->run->in[0], *grid = &t->run->in[1], *y = &t->run->out[0];
    int rank = t->s.rank;
    for (int64_t i = begin; i < end; i++) {
        double point[SDX_MAX_SPATIAL], position[SDX_MAX_SPATIAL];
        sample p;
        int64_t image = i / t->out_plane, o = i % t->out_plane;
        sdx_doubles_load(grid->dtype, grid->data, i * rank, rank, point);
        for (int d = 0; d < rank; d++) {
            double size = (double)t->s.dim[d], g = point[rank - 1 - d];
            position[d] = t->s.align_corners ? (g + 1) / 2 * (size - 1) : ((g + 1) * size - 1) / 2;
        }
        locate(&t->s, position, &p);
        for (int64_t c = 0; c < t->channels; c++) {
            int64_t plane = image * t->channels + c;
            sdx_lane value = {.f = take(&t->s, &p, x->dtype, x->data, plane * t->in_plane)};
            sdx_lanes_convert(SDX_LANE_F, y->dtype, 1, &value);
            sdx_lanes_store(y->dtype, &value, 1, y->data, plane * t->out_plane + o);
        }
    }
}

static sdx_status run_grid_sample(sdx_run *run)
{
    sdx_shape x = sdx_tensor_shape(&run->in[0]), y = sdx_tensor_shape(&run->out[0]);
    grid_task t = {.run = run,
                   .s = {.rank = x.rank - 2},
                   .channels = x.dim[1],
                   .in_plane = sdx_shape_span(&x, 2, x.rank),
                   .out_plane = sdx_shape_span(&y, 2, y.rank)};
    TRY(read_sampler(run->node, &t.s, run->err));
    memcpy(t.s.dim, x.dim + 2, (size_t)t.s.rank * sizeof *x.dim);
    if (sdx_shape_count(&y) == 0) return SDX_OK;
    if (t.in_plane == 0) return sdx_fail(run->err, SDX_ERR_USAGE, "the images are empty");
    sdx_parallel_for(run->threads, x.dim[0] * t.out_plane, sdx_row_grain(t.channels * 16), sample_points, &t);
    return SDX_OK;
}

/* ---- AffineGrid ------------------------------------------------------------------------------ */

static sdx_status infer_affine(sdx_infer *infer)
{
    sdx_shape size, y = SDX_SHAPE_UNKNOWN;
    TRY(sdx_want_dtype(infer, 0, "theta", SDX_SET_FLOAT));
    TRY(sdx_want_rank(infer, 0, "theta", 3, 3));
    TRY(sdx_infer_shape_input(infer, 1, &size));
    if (size.rank >= 0) {
        int rank = size.rank - 2;
        if (rank != 2 && rank != 3)
            return sdx_fail(infer->err, SDX_ERR_USAGE, "size has %d numbers, but must have 4 or 5", size.rank);
        TRY(sdx_want_dim(infer, 0, "theta", 0, size.dim[0]));
        TRY(sdx_want_dim(infer, 0, "theta", 1, rank));
        TRY(sdx_want_dim(infer, 0, "theta", 2, rank + 1));
        y = (sdx_shape){.rank = rank + 2, .dim = {sdx_dim_merge(size.dim[0], sdx_type_dim(&infer->in[0], 0))}};
        memcpy(y.dim + 1, size.dim + 2, (size_t)rank * sizeof *y.dim);
        y.dim[rank + 1] = rank;
    }
    sdx_infer_set(infer, 0, infer->in[0].dtype, &y);
    return SDX_OK;
}

/* Points [begin, end) of [batch, spatial...]: theta times (x, y, [z,] 1), each from -1 to 1. */
static void affine_points(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const sdx_run *r = context;
    const sdx_tensor *theta = &r->in[0], *y = &r->out[0];
    int rank = y->rank - 2;
    bool corners = sdx_node_int(r->node, "align_corners", 0) != 0;
    for (int64_t i = begin; i < end; i++) {
        double point[4], m[12], out[3];
        int64_t rest = i;
        point[rank] = 1;
        for (int d = 0; d < rank; d++) { /* x is the last dim */
            int64_t size = y->dim[rank - d], at = rest % size;
            rest /= size;
            double last = (double)(size - 1);
            if (corners)
                point[d] = size > 1 ? 2 * (double)at / last - 1 : -1;
            else
                point[d] = (2 * (double)at + 1) / (double)size - 1;
        }
        sdx_doubles_load(theta->dtype, theta->data, rest * rank * (rank + 1), rank * (rank + 1), m);
        for (int d = 0; d < rank; d++) {
            out[d] = 0;
            for (int k = 0; k <= rank; k++) out[d] += m[d * (rank + 1) + k] * point[k];
        }
        sdx_doubles_store(y->dtype, out, rank, y->data, i * rank);
    }
}

static sdx_status run_affine(sdx_run *run)
{
    int64_t count = sdx_tensor_count(&run->out[0]), rank = run->out[0].rank - 2;
    if (count) sdx_parallel_for(run->threads, count / rank, SDX_GRAIN / 8, affine_points, run);
    return SDX_OK;
}

/* ---- DeformConv ------------------------------------------------------------------------------ */

static sdx_status infer_deform(sdx_infer *infer)
{
    sdx_shape y;
    const sdx_type *x = &infer->in[0];
    int64_t groups = sdx_node_int(infer->node, "offset_group", 1);
    TRY(sdx_want_dtype(infer, 0, "the input", SDX_SET_FLOAT));
    for (int i = 1; i < infer->n_in; i++) TRY(sdx_want_same_dtype(infer, i, "an input", 0, "the first"));
    TRY(sdx_convolution_infer(infer, 0, 1, &y));
    TRY(sdx_convolution_want_bias(infer, 3, 1, SDX_SET_FLOAT));
    sdx_infer_set(infer, 0, x->dtype, &y);
    sdx_dim c = sdx_type_dim(x, 1);
    if (groups < 1 || groups > INT32_MAX || (sdx_dim_is_known(c) && c % groups))
        return sdx_fail(infer->err, SDX_ERR_USAGE, "%lld channels cannot be cut into %lld offset groups",
                        (long long)c, (long long)groups);
    if (y.rank < 0 || !sdx_shape_is_known(&infer->in[1].shape)) return SDX_OK;
    int64_t taps = sdx_shape_span(&infer->in[1].shape, 2, y.rank), rows;
    if (__builtin_mul_overflow(groups * (y.rank - 2), taps, &rows)) return sdx_workspace_fail(infer->err);
    for (int i = 2; i < 5; i++) {
        if (i == 3 || !sdx_infer_has(infer, i)) continue;
        TRY(sdx_want_rank(infer, i, i == 2 ? "the offsets" : "the mask", y.rank, y.rank));
        TRY(sdx_want_dim(infer, i, "offsets or mask", 0, y.dim[0]));
        TRY(sdx_want_dim(infer, i, "offsets or mask", 1, i == 2 ? rows : groups * taps));
        for (int d = 2; d < y.rank; d++) TRY(sdx_want_dim(infer, i, "offsets or mask", d, y.dim[d]));
    }
    return SDX_OK;
}

/* Workspace per worker: one column [all channels, taps]. */
static sdx_status plan_deform(sdx_plan_step *step)
{
    sdx_convolution c;
    size_t column = 0;
    TRY(sdx_convolution_make(&c, step->node, &step->in[0].shape, &step->in[1].shape, step->err));
    bool ok = sdx_workspace_add(&column, (size_t)c.groups * sizeof(double), (size_t)c.depth) &&
              sdx_workspace_add(&step->workspace, (size_t)step->threads, column);
    return ok ? SDX_OK : sdx_workspace_fail(step->err);
}

typedef struct deform_task {
    const sdx_run *run;
    sdx_convolution c;
    sampler s;
    int64_t offset_groups;
} deform_task;

/* What output o of an image sees: column[channel, tap]. The offsets move each tap along each dim. */
static void deform_column(const deform_task *t, int64_t image, int64_t o, double *column)
{
    const sdx_convolution *c = &t->c;
    const sdx_window *w = &c->window;
    const sdx_tensor *x = &t->run->in[0], *offset = &t->run->in[2], *mask = &t->run->in[4];
    int64_t channels = c->groups * c->channels, each = channels / t->offset_groups;
    for (int64_t k = 0; k < t->offset_groups * c->taps; k++) {
        int64_t tap[SDX_MAX_SPATIAL], rest = o, row = image * t->offset_groups * c->taps + k;
        double position[SDX_MAX_SPATIAL], weight = 1;
        sample p;
        sdx_window_tap(w, k % c->taps, tap);
        for (int d = w->rank - 1; d >= 0; rest /= w->out[d--]) {
            int64_t start = rest % w->out[d] * w->stride[d] + tap[d] * w->dilation[d] - w->pad[d];
            sdx_doubles_load(offset->dtype, offset->data, (row * w->rank + d) * c->out_plane + o, 1,
                             &position[d]);
            position[d] += (double)start;
        }
        if (sdx_run_has_in(t->run, 4))
            sdx_doubles_load(mask->dtype, mask->data, row * c->out_plane + o, 1, &weight);
        locate(&t->s, position, &p);
        for (int64_t i = 0; i < each; i++) {
            int64_t channel = k / c->taps * each + i;
            column[channel * c->taps + k % c->taps] =
                weight * take(&t->s, &p, x->dtype, x->data, (image * channels + channel) * c->in_plane);
        }
    }
}

/* Outputs [begin, end) of [batch, out_plane]. */
static void deform_outputs(void *context, int64_t begin, int64_t end, int worker)
{
    const deform_task *t = context;
    const sdx_convolution *c = &t->c;
    const sdx_tensor *w = &t->run->in[1], *y = &t->run->out[0];
    size_t bytes = sdx_align_up((size_t)(c->groups * c->depth) * sizeof(double));
    double *column = (double *)(void *)((char *)t->run->workspace + (size_t)worker * bytes), factor;
    for (int64_t i = begin; i < end; i++) {
        int64_t image = i / c->out_plane, o = i % c->out_plane, filters = c->groups * c->filters;
        deform_column(t, image, o, column);
        for (int64_t m = 0; m < filters; m++) {
            double sum = 0;
            if (sdx_run_has_in(t->run, 3)) sdx_doubles_load(w->dtype, t->run->in[3].data, m, 1, &sum);
            for (int64_t k = 0; k < c->depth; k++) {
                sdx_doubles_load(w->dtype, w->data, m * c->depth + k, 1, &factor);
                sum += factor * column[m / c->filters * c->depth + k];
            }
            sdx_doubles_store(y->dtype, &sum, 1, y->data, (image * filters + m) * c->out_plane + o);
        }
    }
}

static sdx_status run_deform(sdx_run *run)
{
    deform_task t = {.run = run,
                     .s = {.mode = LINEAR, .padding = ZEROS},
                     .offset_groups = sdx_node_int(run->node, "offset_group", 1)};
    sdx_shape x = sdx_tensor_shape(&run->in[0]), w = sdx_tensor_shape(&run->in[1]);
    TRY(sdx_convolution_make(&t.c, run->node, &x, &w, run->err));
    t.s.rank = t.c.window.rank;
    memcpy(t.s.dim, t.c.window.in, sizeof t.c.window.in);
    if (sdx_tensor_count(&run->out[0]))
        sdx_parallel_for(run->threads, t.c.batch * t.c.out_plane, 1, deform_outputs, &t);
    return SDX_OK;
}

static const sdx_op_def rows[] = {
    {"", "GridSample", 16, 0, 2, 2, 1, 1, 0, infer_grid_sample, NULL, NULL, run_grid_sample},
    {"com.microsoft", "GridSample", 1, 0, 2, 2, 1, 1, 0, infer_grid_sample, NULL, NULL, run_grid_sample},
    {"", "AffineGrid", 20, 0, 2, 2, 1, 1, 0, infer_affine, NULL, NULL, run_affine},
    {"", "DeformConv", 19, 0, 3, 5, 1, 1, 0, infer_deform, NULL, plan_deform, run_deform},
};

SDX_OP_TABLE(grid_sample);
