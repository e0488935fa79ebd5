/* conv.c: Conv in one to six spatial dims. float32 goes through the GEMM kernels (convolve.h), but for
 * depthwise convolution, where a group is a row or two of weights and panels would cost more than they serve:
 * it has a kernel of its own over a padded copy of the plane. The other float types add up tap by tap in
 * double, one output plane at a time.
 */
#include <math.h>
#include <string.h>

#include "convolve.h"
#include "lanes.h"

static sdx_status infer_conv(sdx_infer *infer)
{
    sdx_shape y;
    TRY(sdx_want_dtype(infer, 0, "the input", SDX_SET_FLOAT));
    TRY(sdx_want_same_dtype(infer, 1, "the weights", 0, "the input"));
    TRY(sdx_want_same_dtype(infer, 2, "the bias", 0, "the input"));
    TRY(sdx_convolution_infer(infer, 0, 1, &y));
    TRY(sdx_convolution_want_bias(infer, 2, 1, SDX_SET_FLOAT));
    sdx_infer_set(infer, 0, infer->in[0].dtype, &y);
    return SDX_OK;
}

/* ---- float32, depthwise ---------------------------------------------------------------------- */

enum {
    MOST_DEPTHWISE_FILTERS = 3
}; /* of one channel; with more, the columns of the GEMM are used often enough */

/* The input plane with its padding. */
static sdx_shape padded_shape(const sdx_window *w)
{
    sdx_shape s = {.rank = w->rank};
    for (int i = 0; i < w->rank; i++) s.dim[i] = w->in[i] + w->pad[i] + w->pad_end[i];
    return s;
}

static bool is_depthwise(const sdx_convolution *c)
{
    const sdx_window *w = &c->window;
    sdx_shape plane = padded_shape(w);
    if (c->channels != 1 || c->filters > MOST_DEPTHWISE_FILTERS || w->stride[w->rank - 1] != 1) return false;
    for (int i = 0; i < w->rank; i++) /* no window hangs over the end */
        if ((w->out[i] - 1) * w->stride[i] + (w->kernel[i] - 1) * w->dilation[i] >= plane.dim[i]) return false;
    return sdx_shape_count(&plane) >= 0;
}

/* Workspace: offsets of the taps, then per worker a padded plane. */
static bool depthwise_workspace(const sdx_convolution *c, int threads, size_t *total)
{
    sdx_shape plane = padded_shape(&c->window);
    size_t each = 0;
    return sdx_workspace_add(&each, (size_t)sdx_shape_count(&plane), sizeof(float)) &&
           sdx_workspace_add(total, (size_t)c->taps, sizeof(int64_t)) &&
           sdx_workspace_add(total, (size_t)threads, each);
}

/* ---- plan ------------------------------------------------------------------------------------ */

static sdx_status plan_conv(sdx_plan_step *step)
{
    sdx_convolution c;
    TRY(sdx_convolution_make(&c, step->node, &step->in[0].shape, &step->in[1].shape, step->err));
    size_t each, *total = &step->workspace;
    if (step->in[0].dtype == SDX_F32 && is_depthwise(&c))
        return depthwise_workspace(&c, step->threads, total) ? SDX_OK : sdx_workspace_fail(step->err);
    if (step->in[0].dtype == SDX_F32) {
        int64_t nr = step->kernels->gemm_f32.nr,
                block = sdx_convolution_block(&c, sizeof(float), nr, step->threads);
        if (!sdx_mul_size((size_t)block, (size_t)c.depth * sizeof(float), &each))
            return sdx_workspace_fail(step->err);
    } else {
        each = (size_t)c.out_plane * sizeof(double);
    }
    bool ok = sdx_workspace_add(total, (size_t)step->threads, sdx_align_up(each));
    return ok ? SDX_OK : sdx_workspace_fail(step->err);
}

typedef struct task {
    const sdx_run *run;
    sdx_convolution c;
    sdx_dtype dtype;
    const void *x, *w, *bias; /* bias may be NULL */
    void *y;
    int64_t block; /* float32: outputs of a part */
    size_t own;    /* bytes of a worker */
} task;

/* x into the middle of a plane of zeros, by rows. */
static void pad_plane(const sdx_window *w, const float *x, const sdx_shape *shape, float *plane)
{
    int64_t stride[SDX_MAX_RANK], width = w->in[w->rank - 1], rows = width ? sdx_window_in_count(w) / width : 0;
    sdx_shape_strides(shape, stride);
    memset(plane, 0, (size_t)sdx_shape_count(shape) * sizeof *plane);
    for (int64_t row = 0; row < rows; row++, x += width) {
        int64_t rest = row, at = w->pad[w->rank - 1];
        for (int d = w->rank - 2; d >= 0; rest /= w->in[d--]) at += (rest % w->in[d] + w->pad[d]) * stride[d];
        memcpy(plane + at, x, (size_t)width * sizeof *x);
    }
}

typedef struct depthwise {
    const task *t;
    sdx_shape shape; /* of the padded plane */
    int64_t stride[SDX_MAX_RANK];
    int64_t *offset; /* [taps] */
    char *planes;
} depthwise;

/* All rows of one output plane. */
static void depthwise_plane(const depthwise *d, const float *plane, const float *w, float bias, float *y)
{
    const sdx_convolution *c = &d->t->c;
    const sdx_window *v = &c->window;
    int64_t width = v->out[v->rank - 1];
    for (int64_t row = 0; row * width < c->out_plane; row++, y += width) {
        int64_t rest = row, at = 0;
        for (int i = v->rank - 2; i >= 0; rest /= v->out[i--])
            at += rest % v->out[i] * v->stride[i] * d->stride[i];
        d->t->run->kernels->conv.depthwise_row_f32(width, c->taps, plane + at, d->offset, w, bias, y);
    }
}

/* Images and channels [begin, end). */
static void depthwise_channels(void *context, int64_t begin, int64_t end, int worker)
{
    const depthwise *d = context;
    const task *t = d->t;
    const sdx_convolution *c = &t->c;
    float *plane = (float *)(void *)(d->planes + (size_t)worker * t->own);
    for (int64_t i = begin; i < end; i++) {
        pad_plane(&c->window, (const float *)t->x + i * c->in_plane, &d->shape, plane);
        for (int64_t m = 0; m < c->filters; m++) {
            int64_t filter = i % c->groups * c->filters + m;
            depthwise_plane(d, plane, (const float *)t->w + filter * c->taps,
                            t->bias ? ((const float *)t->bias)[filter] : 0,
                            (float *)t->y + (i * c->filters + m) * c->out_plane);
        }
    }
}

static void run_depthwise(task *t)
{
    const sdx_convolution *c = &t->c;
    const sdx_window *w = &c->window;
    char *workspace = t->run->workspace;
    depthwise d = {.t = t, .shape = padded_shape(w)};
    d.offset = sdx_workspace_take(&workspace, (size_t)c->taps * sizeof *d.offset);
    d.planes = workspace;
    t->own = sdx_align_up((size_t)sdx_shape_count(&d.shape) * sizeof(float));
    sdx_shape_strides(&d.shape, d.stride);
    for (int64_t k = 0; k < c->taps; k++) {
        int64_t tap[SDX_MAX_SPATIAL];
        sdx_window_tap(w, k, tap);
        d.offset[k] = 0;
        for (int i = 0; i < w->rank; i++) d.offset[k] += tap[i] * w->dilation[i] * d.stride[i];
    }
    int64_t grain = sdx_row_grain(c->in_plane + c->out_plane * c->taps * c->filters / 8);
    sdx_parallel_for(t->run->threads, c->batch * c->groups, grain, depthwise_channels, &d);
}

/* ---- float32, products ----------------------------------------------------------------------- */

static void add_bias(const task *t, const sdx_convolution_part *p, float *y)
{
    const sdx_convolution *c = &t->c;
    const float *bias = (const float *)t->bias + p->group * c->filters;
    for (int64_t m = 0; m < c->filters; m++, y += c->out_plane)
        t->run->kernels->element.binary_f32[SDX_BINARY_ADD](p->end - p->begin, y, 1, bias + m, 0, y);
}

/* Filters of one product. Shallow products write more than they read: then few rows at a time, since every row
 * of the result is a page of its own. */
static int64_t product_rows(const sdx_convolution *c, const sdx_gemm_f32_kernels *gemm)
{
    return c->depth < 64 ? 2 * gemm->mr : c->filters;
}

static void conv_parts(void *context, int64_t begin, int64_t end, int worker)
{
    const task *t = context;
    const sdx_convolution *c = &t->c;
    const sdx_gemm_f32_kernels *gemm = &t->run->kernels->gemm_f32;
    float *columns = (float *)(void *)((char *)t->run->workspace + (size_t)worker * t->own);
    int64_t rows = product_rows(c, gemm);
    for (int64_t i = begin; i < end; i++) {
        sdx_convolution_part p = sdx_convolution_part_at(c, t->block, i);
        float *y = (float *)t->y + sdx_convolution_y(c, &p) + p.begin;
        sdx_convolution_columns(c, (const float *)t->x + sdx_convolution_x(c, &p), sizeof(float), 0, p.begin,
                                p.end, gemm->nr, columns);
        for (int64_t m = 0; m < c->filters; m += rows) {
            sdx_gemm_f32_job job = {.gemm = gemm,
                                    .threads = 1,
                                    .m = c->filters - m < rows ? c->filters - m : rows,
                                    .n = p.end - p.begin,
                                    .k = c->depth,
                                    .a = (const float *)t->w + (p.group * c->filters + m) * c->depth,
                                    .lda = c->depth,
                                    .packed = columns,
                                    .c = y + m * c->out_plane,
                                    .ldc = c->out_plane};
            sdx_gemm_f32_run(&job);
        }
        if (t->bias) add_bias(t, &p, y);
    }
}

/* ---- other types ----------------------------------------------------------------------------- */

typedef struct plane {
    const task *t;
    int64_t x; /* first element of the input plane */
    double w, *sum;
} plane;

static double element(sdx_dtype dtype, const void *x, int64_t at)
{
    sdx_lane lane;
    sdx_lanes_load(dtype, x, at, 1, 1, &lane);
    return lane.f;
}

static void add_run(void *context, int64_t out, int64_t in, int64_t n)
{
    const plane *p = context;
    const sdx_window *w = &p->t->c.window;
    int64_t step = w->stride[w->rank - 1];
    sdx_lane lane[SDX_LANES];
    for (int64_t i = 0; i < n; i += SDX_LANES) {
        int64_t some = n - i < SDX_LANES ? n - i : SDX_LANES;
        sdx_lanes_load(p->t->dtype, p->t->x, p->x + in + i * step, step, some, lane);
        for (int64_t j = 0; j < some; j++) p->sum[out + i + j] += p->w * lane[j].f;
    }
}

static void store_plane(sdx_dtype dtype, int64_t n, const double *sum, void *y, int64_t at)
{
    sdx_lane lane[SDX_LANES];
    for (int64_t i = 0; i < n; i += SDX_LANES) {
        int64_t some = n - i < SDX_LANES ? n - i : SDX_LANES;
        for (int64_t j = 0; j < some; j++) lane[j].f = sum[i + j];
        sdx_lanes_store(dtype, lane, some, y, at + i);
    }
}

/* Output planes [begin, end) of [batch, group, filter]. */
static void conv_planes(void *context, int64_t begin, int64_t end, int worker)
{
    const task *t = context;
    const sdx_convolution *c = &t->c;
    plane p = {.t = t, .sum = (double *)(void *)((char *)t->run->workspace + (size_t)worker * t->own)};
    for (int64_t i = begin; i < end; i++) {
        int64_t filter = i % (c->groups * c->filters), work = i / c->filters; /* work: image and group */
        double bias = t->bias ? element(t->dtype, t->bias, filter) : 0;
        for (int64_t o = 0; o < c->out_plane; o++) p.sum[o] = bias;
        for (int64_t k = 0; k < c->depth; k++) {
            p.x = (work * c->channels + k / c->taps) * c->in_plane;
            p.w = element(t->dtype, t->w, filter * c->depth + k);
            sdx_window_runs(&c->window, k % c->taps, 0, c->out_plane, add_run, &p);
        }
        store_plane(t->dtype, c->out_plane, p.sum, t->y, i * c->out_plane);
    }
}

static sdx_status run_conv(sdx_run *run)
{
    task t = {.run = run,
              .dtype = run->in[0].dtype,
              .x = run->in[0].data,
              .w = run->in[1].data,
              .y = run->out[0].data};
    sdx_shape x = sdx_tensor_shape(&run->in[0]), w = sdx_tensor_shape(&run->in[1]);
    TRY(sdx_convolution_make(&t.c, run->node, &x, &w, run->err));
    if (sdx_tensor_count(&run->out[0]) == 0) return SDX_OK;
    if (sdx_run_has_in(run, 2)) t.bias = run->in[2].data;
    if (t.dtype == SDX_F32 && is_depthwise(&t.c)) {
        run_depthwise(&t);
    } else if (t.dtype == SDX_F32) {
        int64_t nr = run->kernels->gemm_f32.nr;
        t.block = sdx_convolution_block(&t.c, sizeof(float), nr, run->threads);
        t.own = sdx_align_up((size_t)(t.block * t.c.depth) * sizeof(float));
        int64_t work = t.block * t.c.depth * (t.c.filters + 8) / 32; /* about a nanosecond each */
        sdx_parallel_for(run->threads, sdx_convolution_parts(&t.c, t.block), sdx_row_grain(work), conv_parts,
                         &t);
    } else {
        t.own = sdx_align_up((size_t)t.c.out_plane * sizeof(double));
        sdx_parallel_for(run->threads, t.c.batch * t.c.groups * t.c.filters, 1, conv_planes, &t);
    }
    return SDX_OK;
}

/* ---- FusedConv: activation(conv + Z), Z another tensor of the output's shape ----------------------------- */

/* params: of the activation, from the attribute activation_params. */
static float leaky_relu(float x, const float *params) { return x < 0 ? params[0] * x : x; }
static float clip(float x, const float *params) { return fminf(fmaxf(x, params[0]), params[1]); }
static float hard_sigmoid(float x, const float *params) { return fminf(fmaxf(params[0] * x + params[1], 0), 1); }

static const struct conv_activation {
    const char *name;
    sdx_unary kernel; /* SDX_UNARY_COUNT: f */
    float (*f)(float x, const float *params);
    size_t params;
} activations[] = {
    {"Relu", SDX_UNARY_RELU, NULL, 0},
    {"Tanh", SDX_UNARY_TANH, NULL, 0},
    {"Sigmoid", SDX_UNARY_SIGMOID, NULL, 0},
    {"LeakyRelu", SDX_UNARY_COUNT, leaky_relu, 1},
    {"Clip", SDX_UNARY_COUNT, clip, 2},
    {"HardSigmoid", SDX_UNARY_COUNT, hard_sigmoid, 2},
};

static const struct conv_activation *find_activation(const sdx_node *node)
{
    const char *name = sdx_node_string(node, "activation", "");
    const sdx_attr *params = sdx_node_attr(node, "activation_params");
    size_t count = params && params->floats ? params->count : 0;
    for (size_t i = 0; i < sizeof activations / sizeof *activations; i++)
        if (!strcmp(name, activations[i].name) && count >= activations[i].params) return &activations[i];
    return NULL;
}

static sdx_status infer_fused_conv(sdx_infer *infer)
{
    enum { Z = 3 };
    TRY(sdx_want_dtype(infer, 0, "the input", SDX_SET(SDX_F32)));
    TRY(infer_conv(infer));
    if (*sdx_node_string(infer->node, "activation", "") && !find_activation(infer->node))
        return sdx_fail(infer->err, SDX_ERR_UNSUPPORTED, "activation \"%s\" is not known, or lacks its parameters",
                        sdx_node_string(infer->node, "activation", ""));
    TRY(sdx_want_same_dtype(infer, Z, "Z", 0, "the input"));
    const sdx_shape *y = &infer->out[0].shape;
    if (!sdx_infer_has(infer, Z) || y->rank < 0) return SDX_OK;
    TRY(sdx_want_rank(infer, Z, "Z", y->rank, y->rank));
    for (int d = 0; d < y->rank; d++) TRY(sdx_want_dim(infer, Z, "Z", d, y->dim[d]));
    return SDX_OK;
}

static sdx_status run_fused_conv(sdx_run *run)
{
    TRY(run_conv(run));
    int64_t n = sdx_tensor_count(&run->out[0]);
    float *y = run->out[0].data;
    const sdx_attr *params = sdx_node_attr(run->node, "activation_params");
    const struct conv_activation *activation = find_activation(run->node);
    if (sdx_run_has_in(run, 3)) run->kernels->element.binary_f32[SDX_BINARY_ADD](n, y, 1, run->in[3].data, 1, y);
    if (activation && activation->kernel != SDX_UNARY_COUNT)
        run->kernels->element.unary_f32[activation->kernel](n, y, y);
    else if (activation)
        for (int64_t i = 0; i < n; i++) y[i] = activation->f(y[i], params->floats);
    return SDX_OK;
}

static const sdx_op_def rows[] = {
    {"", "Conv", 1, 0, 2, 3, 1, 1, 0, infer_conv, NULL, plan_conv, run_conv},
    {"com.microsoft", "FusedConv", 1, 0, 2, 4, 1, 1, SDX_OP_WIDE, infer_fused_conv, NULL, plan_conv, run_fused_conv},
};

SDX_OP_TABLE(conv);
