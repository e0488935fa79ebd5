/* causal_conv.c: CausalConvWithState of ONNX 27 and of com.microsoft: a depthwise convolution over time that looks back
 * only, for decoding step by step.
 *
 *     e = (past state, or zeros) followed by x           [back + T] per channel, back = (k - 1) * dilation
 *     y[t] = activation(bias + sum_j weight[j] * e[t + j * dilation])      state = the last `back` of e
 *
 * x is [B, C, T]; in com.microsoft's with channels_last [B, T, ...], its channels being all that follows, and so is the
 * state.
 */
#include <math.h>
#include <string.h>

#include "compute.h"

typedef struct causal {
    bool silu, last; /* last: channels_last */
    int64_t dilation;
} causal;

static sdx_status read_attributes(const sdx_node *node, causal *c, sdx_error *err)
{
    const char *name = sdx_node_string(node, "activation", "none");
    *c = (causal){.silu = !strcmp(name, "silu") || !strcmp(name, "swish"),
                  .last = sdx_node_int(node, "channels_last", 0) != 0,
                  .dilation = sdx_node_int(node, "dilation", 1)};
    if (!c->silu && strcmp(name, "none"))
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "the activation \"%s\" is not known", name);
    if (sdx_node_int(node, "ndim", 1) != 1 || sdx_node_int(node, "state_window", 0))
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "an ndim other than 1, and a state_window, are not supported");
    if (c->dilation < 1 || c->dilation > INT32_MAX)
        return sdx_fail(err, SDX_ERR_FILE, "dilation %lld makes no sense", (long long)c->dilation);
    return SDX_OK;
}

static sdx_dim count_channels(const sdx_shape *x, bool last)
{
    if (x->rank < 3 || !last) return x->rank < 3 ? SDX_DIM_UNKNOWN : x->dim[1];
    int64_t count = 1;
    for (int d = 2; d < x->rank; d++)
        if (x->dim[d] < 0 || __builtin_mul_overflow(count, x->dim[d], &count)) return SDX_DIM_UNKNOWN;
    return count;
}

static sdx_status infer_causal(sdx_infer *infer)
{
    const sdx_type *x = &infer->in[0];
    causal c;
    TRY(read_attributes(infer->node, &c, infer->err));
    TRY(sdx_want_dtype(infer, 0, "the input", SDX_SET_FLOAT));
    for (int i = 1; i < infer->n_in; i++) TRY(sdx_want_same_dtype(infer, i, "an input", 0, "the first"));
    TRY(sdx_want_rank(infer, 0, "the input", 3, c.last ? SDX_MAX_RANK : 3));
    TRY(sdx_want_rank(infer, 1, "the weights", 3, 3));
    sdx_dim channels = count_channels(&x->shape, c.last), taps = sdx_type_dim(&infer->in[1], 2);
    TRY(sdx_want_dim(infer, 1, "the weights", 0, channels));
    TRY(sdx_want_dim(infer, 1, "the weights", 1, 1));
    TRY(sdx_want_rank(infer, 2, "the bias", 1, 1));
    TRY(sdx_want_dim(infer, 2, "the bias", 0, channels));
    if (taps == 0) return sdx_fail(infer->err, SDX_ERR_USAGE, "the weights have no taps");
    sdx_shape state = x->shape;
    sdx_dim back = SDX_DIM_UNKNOWN;
    if (taps > 0 && __builtin_mul_overflow(taps - 1, c.dilation, &back))
        return sdx_fail(infer->err, SDX_ERR_FILE, "dilation %lld makes no sense", (long long)c.dilation);
    if (state.rank >= 0) {
        state.dim[c.last ? 1 : 2] = back;
        TRY(sdx_want_rank(infer, 3, "the past state", state.rank, state.rank));
    }
    for (int d = 0; d < state.rank; d++) TRY(sdx_want_dim(infer, 3, "the past state", d, state.dim[d]));
    sdx_infer_set(infer, 0, x->dtype, &x->shape);
    sdx_infer_set(infer, 1, x->dtype, &state);
    return SDX_OK;
}

static sdx_status prepare_causal(sdx_prepare *p)
{
    causal *state;
    PREPARE_STATE(p, state);
    return read_attributes(p->node, state, p->err);
}

typedef struct sizes {
    int64_t channels, length, taps, back;
} sizes;

static sizes make_sizes(const causal *c, const sdx_shape *x, const sdx_shape *w)
{
    return (sizes){count_channels(x, c->last), x->dim[c->last ? 1 : 2], w->dim[2], (w->dim[2] - 1) * c->dilation};
}

/* Workspace per worker, as doubles: e, the weights, y. */
static size_t worker_count(const sizes *s)
{
    return (size_t)(s->back + 2 * s->length + s->taps);
}

static sdx_status plan_causal(sdx_plan_step *step)
{
    sizes s = make_sizes(step->state, &step->in[0].shape, &step->in[1].shape);
    bool ok =
        (size_t)s.back < SIZE_MAX / 64 && (size_t)s.length < SIZE_MAX / 64 &&
        sdx_workspace_add(&step->workspace, (size_t)step->threads, sdx_align_up(worker_count(&s) * sizeof(double)));
    return ok ? SDX_OK : sdx_workspace_fail(step->err);
}

typedef struct task {
    const sdx_run *run;
    const causal *c;
    sizes s;
    size_t own;
} task;

/* Channel i of [batch * channel] in a tensor that is n long in time: where it begins, the way to its next number. */
static int64_t place(const task *t, int64_t i, int64_t n, int64_t *step)
{
    int64_t channels = t->s.channels;
    *step = t->c->last ? channels : 1;
    return t->c->last ? i / channels * n * channels + i % channels : i * n;
}

static void load(const task *t, const sdx_tensor *from, int64_t i, int64_t n, double *to)
{
    int64_t step, at = place(t, i, n, &step);
    if (step == 1) sdx_doubles_load(from->dtype, from->data, at, n, to);
    for (int64_t k = 0; k < n && step != 1; k++) sdx_doubles_load(from->dtype, from->data, at + k * step, 1, to + k);
}

static void store(const task *t, const sdx_tensor *to, int64_t i, int64_t n, const double *from)
{
    int64_t step, at = place(t, i, n, &step);
    if (step == 1) sdx_doubles_store(to->dtype, from, n, to->data, at);
    for (int64_t k = 0; k < n && step != 1; k++) sdx_doubles_store(to->dtype, from + k, 1, to->data, at + k * step);
}

/* Rows [begin, end) of [batch, channel]. */
static void causal_rows(void *context, int64_t begin, int64_t end, int worker)
{
    const task *t = context;
    const sdx_run *r = t->run;
    const sizes *s = &t->s;
    sdx_dtype dtype = r->in[0].dtype;
    double *e = (double *)(void *)((char *)r->workspace + (size_t)worker * t->own);
    double *w = e + s->back + s->length, *y = w + s->taps;
    for (int64_t i = begin; i < end; i++) {
        double bias = 0;
        memset(e, 0, (size_t)s->back * sizeof *e);
        if (sdx_run_has_in(r, 3)) load(t, &r->in[3], i, s->back, e);
        load(t, &r->in[0], i, s->length, e + s->back);
        sdx_doubles_load(dtype, r->in[1].data, i % s->channels * s->taps, s->taps, w);
        if (sdx_run_has_in(r, 2)) sdx_doubles_load(dtype, r->in[2].data, i % s->channels, 1, &bias);
        for (int64_t o = 0; o < s->length; o++) {
            y[o] = bias;
            for (int64_t k = 0; k < s->taps; k++) y[o] += w[k] * e[o + k * t->c->dilation];
            if (t->c->silu) y[o] /= 1 + exp(-y[o]);
        }
        store(t, &r->out[0], i, s->length, y);
        if (sdx_run_has_out(r, 1)) store(t, &r->out[1], i, s->back, e + s->length);
    }
}

static sdx_status run_causal(sdx_run *run)
{
    sdx_shape x = sdx_tensor_shape(&run->in[0]), w = sdx_tensor_shape(&run->in[1]);
    task t = {.run = run, .c = run->state, .s = make_sizes(run->state, &x, &w)};
    t.own = sdx_align_up(worker_count(&t.s) * sizeof(double));
    sdx_parallel_for(run->threads, x.dim[0] * t.s.channels, sdx_row_grain(t.s.length * t.s.taps), causal_rows, &t);
    return SDX_OK;
}

static const sdx_op_def rows[] = {
    {"", "CausalConvWithState", 27, 0, 2, 4, 2, 2, 0, infer_causal, prepare_causal, plan_causal, run_causal},
    {"com.microsoft", "CausalConvWithState", 1, 0, 2, 4, 2, 2, 0, infer_causal, prepare_causal, plan_causal, run_causal},
};

SDX_OP_TABLE(causal_conv);
