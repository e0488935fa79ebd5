/* conv_transpose.c: ConvTranspose and Col2Im: convolution backwards. The window slides over the *result*; every
 * input element is an output of that window and is spread over its taps:
 *
 *     Y[m, position of tap k at o] += W[c, m, k] * X[c, o]         ConvTranspose
 *     Y[c, position of tap k at o] += columns[c, k, o]             Col2Im
 *
 * float32 forms W^T X with the GEMM kernels, a block of inputs at a time, and spreads the product (K. Dumoulin
 * and F. Visin, A guide to convolution arithmetic, 2016, ch. 4). Other types add up one output plane in lanes.
 */
#include <string.h>

#include "contents.h"
#include "convolve.h"
#include "lanes.h"

/* ---- the window over the result -------------------------------------------------------------- */

/* Sizes of the result, from output_shape or from pads and auto_pad; sets the pads that go with them. */
static sdx_status transposed_sizes(sdx_window *w, const sdx_node *node, sdx_error *err)
{
    size_t n_extra, n_shape;
    const int64_t *extra = sdx_node_ints(node, "output_padding", &n_extra);
    const int64_t *shape = sdx_node_ints(node, "output_shape", &n_shape);
    const char *auto_pad = sdx_node_string(node, "auto_pad", "NOTSET");
    bool upper = !strcmp(auto_pad, "SAME_UPPER"), same = upper || !strcmp(auto_pad, "SAME_LOWER");
    if (shape && n_shape == (size_t)w->rank + 2)
        shape += 2; /* some exporters list the batch and channels too */
    else if (shape && n_shape && n_shape != (size_t)w->rank)
        return sdx_fail(err, SDX_ERR_FILE, "output_shape lists %zu numbers for %d spatial dimensions", n_shape,
                        w->rank);
    if (extra && n_extra && n_extra != (size_t)w->rank)
        return sdx_fail(err, SDX_ERR_FILE, "output_padding lists %zu numbers for %d spatial dimensions",
                        n_extra, w->rank);
    for (int i = 0; i < w->rank; i++) {
        w->in[i] = SDX_DIM_UNKNOWN;
        if (!sdx_dim_is_known(w->out[i]) || !sdx_dim_is_known(w->kernel[i])) continue;
        int64_t more = extra && n_extra ? extra[i] : 0, full;
        if (more < 0 || more > w->stride[i] * w->dilation[i])
            return sdx_fail(err, SDX_ERR_FILE, "output_padding contains %lld", (long long)more);
        if (w->out[i] >= INT64_C(1) << 32) return sdx_fail(err, SDX_ERR_USAGE, "an input of this size");
        full = w->stride[i] * (w->out[i] - 1) + more + (w->kernel[i] - 1) * w->dilation[i] + 1;
        if ((shape && n_shape) || same) {
            int64_t size = shape && n_shape ? shape[i] : w->out[i] * w->stride[i];
            if (size < 0) return sdx_fail(err, SDX_ERR_FILE, "output_shape contains %lld", (long long)size);
            int64_t total = size < full ? full - size : 0;
            w->pad[i] = upper ? total / 2 : total - total / 2;
            w->in[i] = size;
        } else {
            if (!strcmp(auto_pad, "VALID")) w->pad[i] = w->pad_end[i] = 0;
            w->in[i] = full - w->pad[i] - w->pad_end[i];
        }
        if (w->in[i] < 0)
            return sdx_fail(err, SDX_ERR_USAGE, "spatial dimension %d of the result would be negative", i);
    }
    return SDX_OK;
}

/* X [N, C, ...], W [C, M/group, ...]; c: as for the convolution from Y to X, so that c.channels are Y's. */
static sdx_status transposed_make(sdx_convolution *c, const sdx_node *node, const sdx_shape *x,
                                  const sdx_shape *w, sdx_error *err)
{
    sdx_window *window = &c->window;
    int rank = x->rank - 2;
    c->groups = sdx_node_int(node, "group", 1);
    if (c->groups < 1) return sdx_fail(err, SDX_ERR_FILE, "group is %lld", (long long)c->groups);
    TRY(sdx_window_attributes(window, node, rank, w->dim + 2, err));
    memcpy(window->out, x->dim + 2, (size_t)rank * sizeof *x->dim);
    TRY(transposed_sizes(window, node, err));
    c->batch = x->dim[0];
    c->channels = w->dim[1];
    c->filters = w->dim[0] / c->groups;
    return SDX_OK;
}

/* The counts that follow when all sizes are known. */
static sdx_status transposed_count(sdx_convolution *c, sdx_error *err)
{
    c->taps = sdx_window_taps(&c->window);
    c->in_plane = sdx_window_in_count(&c->window);
    c->out_plane = sdx_window_out_count(&c->window);
    if (__builtin_mul_overflow(c->channels, c->taps, &c->depth)) return sdx_workspace_fail(err);
    return SDX_OK;
}

static sdx_status infer_transpose(sdx_infer *infer)
{
    const sdx_shape *x = &infer->in[0].shape, *w = &infer->in[1].shape;
    TRY(sdx_want_dtype(infer, 0, "the input", SDX_SET_FLOAT));
    TRY(sdx_want_same_dtype(infer, 1, "the weights", 0, "the input"));
    TRY(sdx_want_same_dtype(infer, 2, "the bias", 0, "the input"));
    TRY(sdx_want_rank(infer, 0, "the input", 3, SDX_MAX_RANK));
    infer->out[0].dtype = infer->in[0].dtype;
    if (x->rank < 0 || w->rank < 0) return SDX_OK;
    TRY(sdx_want_rank(infer, 1, "the weights", x->rank, x->rank));
    TRY(sdx_want_dim(infer, 1, "the weights", 0, x->dim[1]));
    sdx_convolution c;
    TRY(transposed_make(&c, infer->node, x, w, infer->err));
    if (sdx_dim_is_known(w->dim[0]) && w->dim[0] % c.groups)
        return sdx_fail(infer->err, SDX_ERR_USAGE, "%lld channels cannot be cut into %lld groups",
                        (long long)w->dim[0], (long long)c.groups);
    sdx_shape y = {.rank = x->rank, .dim = {x->dim[0], SDX_DIM_UNKNOWN}};
    if (sdx_dim_is_known(w->dim[1]) && __builtin_mul_overflow(w->dim[1], c.groups, &y.dim[1]))
        return sdx_workspace_fail(infer->err);
    memcpy(y.dim + 2, c.window.in, (size_t)c.window.rank * sizeof *y.dim);
    if (sdx_infer_has(infer, 2)) {
        TRY(sdx_want_rank(infer, 2, "the bias", 1, 1));
        TRY(sdx_want_dim(infer, 2, "the bias", 0, y.dim[1]));
    }
    if (sdx_shape_is_known(&y) && sdx_shape_count(&y) < 0) return sdx_workspace_fail(infer->err);
    sdx_infer_set(infer, 0, infer->in[0].dtype, &y);
    return SDX_OK;
}

/* ---- spreading ------------------------------------------------------------------------------- */

typedef struct spread {
    int64_t step;  /* of the window's last dim */
    double weight; /* lanes: y += weight * x */
    sdx_dtype dtype;
    const void *x;
    int64_t from;  /* element of x for output 0 of the window */
    double *lanes; /* [in_plane]; or */
    float *floats;
} spread;

static void spread_floats(void *context, int64_t out, int64_t in, int64_t n)
{
    const spread *s = context;
    const float *x = (const float *)s->x + s->from + out;
    float *y = s->floats + in;
    for (int64_t i = 0; i < n; i++) y[i * s->step] += x[i];
}

static void spread_lanes(void *context, int64_t out, int64_t in, int64_t n)
{
    const spread *s = context;
    sdx_lane lane[SDX_LANES];
    for (int64_t i = 0; i < n; i += SDX_LANES) {
        int64_t some = n - i < SDX_LANES ? n - i : SDX_LANES;
        sdx_lanes_load(s->dtype, s->x, s->from + out + i, 1, some, lane);
        sdx_lanes_convert(sdx_dtype_lane(s->dtype), SDX_F64, some, lane);
        for (int64_t j = 0; j < some; j++) s->lanes[in + (i + j) * s->step] += s->weight * lane[j].f;
    }
}

static double element(sdx_dtype dtype, const void *x, int64_t at)
{
    sdx_lane lane;
    sdx_lanes_load(dtype, x, at, 1, 1, &lane);
    return lane.f;
}

static void store_lanes(sdx_dtype dtype, int64_t n, const double *sum, void *y, int64_t at)
{
    sdx_lane lane[SDX_LANES];
    for (int64_t i = 0; i < n; i += SDX_LANES) {
        int64_t some = n - i < SDX_LANES ? n - i : SDX_LANES;
        for (int64_t j = 0; j < some; j++) lane[j].f = sum[i + j];
        sdx_lanes_convert(SDX_LANE_F, dtype, some, lane);
        sdx_lanes_store(dtype, lane, some, y, at + i);
    }
}

/* ---- ConvTranspose --------------------------------------------------------------------------- */

typedef struct task {
    const sdx_run *run;
    sdx_convolution c;
    sdx_dtype dtype;
    const void *x, *w, *bias;
    void *y;
    const sdx_window *window;
    int64_t block;
    size_t own, transposed; /* bytes of a worker, of which of W^T */
} task;

/* Inputs of one product: about 512 KiB of it and of the packed X. */
static int64_t block_of(const sdx_convolution *c, int64_t nr)
{
    int64_t each = c->depth + c->filters, block = each > 0 ? 128 * 1024 / each / nr * nr : nr;
    int64_t most = (c->out_plane + nr - 1) / nr * nr;
    if (block > most) block = most;
    return block > nr ? block : nr;
}

/* A worker's memory: W^T of a group, packed X, the product. */
static bool worker_bytes(const sdx_convolution *c, const sdx_kernels *k, int64_t block, size_t *transposed,
                         size_t *all)
{
    *transposed = *all = 0;
    bool ok = sdx_workspace_add(transposed, (size_t)c->depth * sizeof(float), (size_t)c->filters);
    return ok && sdx_workspace_add(all, 1, *transposed) &&
           sdx_workspace_add(all, 1, k->gemm_f32.packed_bytes(c->filters, block)) &&
           sdx_workspace_add(all, (size_t)c->depth * sizeof(float), (size_t)block);
}

static sdx_status plan_transpose(sdx_plan_step *step)
{
    sdx_convolution c;
    size_t transposed, each = 0;
    TRY(transposed_make(&c, step->node, &step->in[0].shape, &step->in[1].shape, step->err));
    TRY(transposed_count(&c, step->err));
    bool ok =
        step->in[0].dtype == SDX_F32
            ? worker_bytes(&c, step->kernels, block_of(&c, step->kernels->gemm_f32.nr), &transposed, &each)
            : sdx_workspace_add(&each, (size_t)c.in_plane, sizeof(double));
    ok = ok && sdx_workspace_add(&step->workspace, (size_t)step->threads, each);
    return ok ? SDX_OK : sdx_workspace_fail(step->err);
}

/* [filters, depth] to [depth, filters] */
static void transpose_weights(const sdx_convolution *c, const float *w, float *out)
{
    for (int64_t i = 0; i < c->filters; i++)
        for (int64_t j = 0; j < c->depth; j++) out[j * c->filters + i] = w[i * c->depth + j];
}

static void fill_bias(const task *t, int64_t group, float *y)
{
    for (int64_t m = 0; m < t->c.channels; m++) {
        float b = t->bias ? ((const float *)t->bias)[group * t->c.channels + m] : 0;
        for (int64_t i = 0; i < t->c.in_plane; i++) *y++ = b;
    }
}

/* Images and groups [begin, end). */
static void transpose_groups(void *context, int64_t begin, int64_t end, int worker)
{
    const task *t = context;
    const sdx_convolution *c = &t->c;
    const sdx_kernels *k = t->run->kernels;
    char *own = (char *)t->run->workspace + (size_t)worker * t->own;
    float *w = sdx_workspace_take(&own, t->transposed);
    float *packed = sdx_workspace_take(&own, k->gemm_f32.packed_bytes(c->filters, t->block));
    float *product = (float *)(void *)own;
    for (int64_t i = begin; i < end; i++) {
        int64_t group = i % c->groups;
        const float *x = (const float *)t->x + i * c->filters * c->out_plane;
        float *y = (float *)t->y + i * c->channels * c->in_plane;
        transpose_weights(c, (const float *)t->w + group * c->filters * c->depth, w);
        fill_bias(t, group, y);
        for (int64_t from = 0; from < c->out_plane; from += t->block) {
            int64_t n = c->out_plane - from < t->block ? c->out_plane - from : t->block;
            sdx_gemm_f32_pack(&k->gemm_f32, 1, c->filters, n, x + from, c->out_plane, 1, 1, packed);
            sdx_gemm_f32_job job = {.gemm = &k->gemm_f32,
                                    .threads = 1,
                                    .m = c->depth,
                                    .n = n,
                                    .k = c->filters,
                                    .a = w,
                                    .lda = c->filters,
                                    .packed = packed,
                                    .c = product,
                                    .ldc = n};
            sdx_gemm_f32_run(&job);
            spread s = {.step = t->window->stride[t->window->rank - 1], .x = product};
            for (int64_t row = 0; row < c->depth; row++) {
                s.from = row * n - from;
                s.floats = y + row / c->taps * c->in_plane;
                sdx_window_runs(t->window, row % c->taps, from, from + n, spread_floats, &s);
            }
        }
    }
}

/* Result planes [begin, end) of [batch, group, channel]. */
static void transpose_planes(void *context, int64_t begin, int64_t end, int worker)
{
    const task *t = context;
    const sdx_convolution *c = &t->c;
    spread s = {.step = t->window->stride[t->window->rank - 1],
                .dtype = t->dtype,
                .x = t->x,
                .lanes = (double *)(void *)((char *)t->run->workspace + (size_t)worker * t->own)};
    for (int64_t i = begin; i < end; i++) {
        int64_t channel = i % c->channels, work = i / c->channels, group = work % c->groups;
        double bias = t->bias ? element(t->dtype, t->bias, group * c->channels + channel) : 0;
        for (int64_t o = 0; o < c->in_plane; o++) s.lanes[o] = bias;
        for (int64_t k = 0; k < c->filters * c->taps; k++) {
            int64_t filter = k / c->taps, tap = k % c->taps;
            s.from = (work * c->filters + filter) * c->out_plane;
            s.weight = element(t->dtype, t->w,
                               ((group * c->filters + filter) * c->channels + channel) * c->taps + tap);
            sdx_window_runs(t->window, tap, 0, c->out_plane, spread_lanes, &s);
        }
        store_lanes(t->dtype, c->in_plane, s.lanes, t->y, i * c->in_plane);
    }
}

static sdx_status run_transpose(sdx_run *run)
{
    task t = {.run = run,
              .dtype = run->in[0].dtype,
              .x = run->in[0].data,
              .w = run->in[1].data,
              .y = run->out[0].data};
    sdx_shape x = sdx_tensor_shape(&run->in[0]), w = sdx_tensor_shape(&run->in[1]);
    TRY(transposed_make(&t.c, run->node, &x, &w, run->err));
    if (sdx_tensor_count(&run->out[0]) == 0) return SDX_OK;
    TRY(transposed_count(&t.c, run->err));
    t.window = &t.c.window;
    if (sdx_run_has_in(run, 2)) t.bias = run->in[2].data;
    int64_t works = t.c.batch * t.c.groups;
    if (t.dtype == SDX_F32) {
        t.block = block_of(&t.c, run->kernels->gemm_f32.nr);
        if (!worker_bytes(&t.c, run->kernels, t.block, &t.transposed, &t.own))
            return sdx_workspace_fail(run->err);
        sdx_parallel_for(run->threads, works, 1, transpose_groups, &t);
    } else {
        t.own = sdx_align_up((size_t)t.c.in_plane * sizeof(double));
        sdx_parallel_for(run->threads, works * t.c.channels, 1, transpose_planes, &t);
    }
    return SDX_OK;
}

/* ---- Col2Im ---------------------------------------------------------------------------------- */

/* The window over the image; image_shape and block_shape must be known. taps: of the block. */
static sdx_status image_window(sdx_window *w, const sdx_node *node, const sdx_ints *image,
                               const sdx_ints *block, sdx_error *err)
{
    if (image->count < 1 || image->count > SDX_MAX_SPATIAL || image->count != block->count)
        return sdx_fail(err, SDX_ERR_USAGE, "image_shape has %d numbers and block_shape %d", image->count,
                        block->count);
    for (int i = 0; i < image->count; i++)
        if (image->v[i] < 0 || block->v[i] < 1)
            return sdx_fail(err, SDX_ERR_USAGE,
                            "image_shape or block_shape contains a number that is not positive");
    return sdx_window_read(w, node, image->count, image->v, block->v, err);
}

static sdx_status infer_col2im(sdx_infer *infer)
{
    sdx_ints image, block;
    const sdx_type *x = &infer->in[0];
    TRY(sdx_infer_ints(infer, NULL, 1, &image));
    TRY(sdx_infer_ints(infer, NULL, 2, &block));
    TRY(sdx_want_rank(infer, 0, "the input", 3, 3));
    infer->out[0].dtype = x->dtype;
    if (x->dtype && (sdx_dtype_lane(x->dtype) == SDX_LANE_NONE || x->dtype == SDX_BOOL))
        return sdx_fail(infer->err, SDX_ERR_UNSUPPORTED, "it does not take %s", sdx_dtype_name(x->dtype));
    if (!image.known || !block.known || x->shape.rank < 0) return SDX_OK;
    sdx_window w;
    TRY(image_window(&w, infer->node, &image, &block, infer->err));
    int64_t taps = sdx_window_taps(&w);
    sdx_dim rows = x->shape.dim[1];
    TRY(sdx_want_dim(infer, 0, "the input", 2, sdx_window_out_count(&w)));
    if (sdx_dim_is_known(rows) && rows % taps)
        return sdx_fail(infer->err, SDX_ERR_USAGE, "%lld rows are not a multiple of the block's %lld elements",
                        (long long)rows, (long long)taps);
    sdx_shape y = {.rank = w.rank + 2,
                   .dim = {x->shape.dim[0], sdx_dim_is_known(rows) ? rows / taps : SDX_DIM_UNKNOWN}};
    memcpy(y.dim + 2, w.in, (size_t)w.rank * sizeof *y.dim);
    if (sdx_shape_is_known(&y) && sdx_shape_count(&y) < 0) return sdx_workspace_fail(infer->err);
    sdx_infer_set(infer, 0, x->dtype, &y);
    return SDX_OK;
}

static sdx_status plan_col2im(sdx_plan_step *step)
{
    const sdx_shape *y = &step->out[0].shape;
    size_t plane = (size_t)sdx_shape_span(y, 2, y->rank);
    bool ok = sdx_workspace_add(&step->workspace, (size_t)step->threads, sdx_align_up(plane * sizeof(double)));
    return ok ? SDX_OK : sdx_workspace_fail(step->err);
}

static void image_planes(void *context, int64_t begin, int64_t end, int worker)
{
    const task *t = context;
    const sdx_convolution *c = &t->c;
    spread s = {.step = t->window->stride[t->window->rank - 1],
                .weight = 1,
                .dtype = t->dtype,
                .x = t->x,
                .lanes = (double *)(void *)((char *)t->run->workspace + (size_t)worker * t->own)};
    for (int64_t i = begin; i < end; i++) {
        memset(s.lanes, 0, (size_t)c->in_plane * sizeof *s.lanes);
        for (int64_t tap = 0; tap < c->taps; tap++) {
            s.from = (i * c->taps + tap) * c->out_plane;
            sdx_window_runs(t->window, tap, 0, c->out_plane, spread_lanes, &s);
        }
        store_lanes(t->dtype, c->in_plane, s.lanes, t->y, i * c->in_plane);
    }
}

static sdx_status run_col2im(sdx_run *run)
{
    task t = {.run = run, .dtype = run->in[0].dtype, .x = run->in[0].data, .y = run->out[0].data};
    sdx_ints image, block;
    TRY(sdx_run_ints(run, NULL, 1, &image));
    TRY(sdx_run_ints(run, NULL, 2, &block));
    TRY(image_window(&t.c.window, run->node, &image, &block, run->err));
    if (sdx_tensor_count(&run->out[0]) == 0) return SDX_OK;
    TRY(transposed_count(&t.c, run->err));
    t.window = &t.c.window;
    t.own = sdx_align_up((size_t)t.c.in_plane * sizeof(double));
    sdx_parallel_for(run->threads, run->out[0].dim[0] * run->out[0].dim[1], 1, image_planes, &t);
    return SDX_OK;
}

static const sdx_op_def rows[] = {
    {"", "ConvTranspose", 1, 0, 2, 3, 1, 1, 0, infer_transpose, NULL, plan_transpose, run_transpose},
    {"", "Col2Im", 18, 0, 3, 3, 1, 1, 0, infer_col2im, NULL, plan_col2im, run_col2im},
};

SDX_OP_TABLE(conv_transpose);
