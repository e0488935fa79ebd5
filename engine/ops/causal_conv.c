/* causal_conv.c: CausalConvWithState: a depthwise convolution over time that looks back only, for decoding step
 * by step.
 *
 *     e = (past state, or zeros) followed by x           [k-1 + T] per channel
 *     y[t] = activation(bias + sum_j weight[j] * e[t + j])      state = the last k-1 of e
 */
#include <math.h>
#include <string.h>

#include "compute.h"

static sdx_status read_activation(const sdx_node *node, bool *silu, sdx_error *err)
{
    const char *name = sdx_node_string(node, "activation", "none");
    *silu = !strcmp(name, "silu") || !strcmp(name, "swish");
    if (*silu || !strcmp(name, "none")) return SDX_OK;
    return sdx_fail(err, SDX_ERR_UNSUPPORTED, "the activation \"%s\" is not known", name);
}

static sdx_status infer_causal(sdx_infer *infer)
{
    const sdx_type *x = &infer->in[0];
    sdx_dim channels = sdx_type_dim(x, 1), taps = sdx_type_dim(&infer->in[1], 2);
    bool silu;
    TRY(read_activation(infer->node, &silu, infer->err));
    TRY(sdx_want_dtype(infer, 0, "the input", SDX_SET_FLOAT));
    for (int i = 1; i < infer->n_in; i++) TRY(sdx_want_same_dtype(infer, i, "an input", 0, "the first"));
    TRY(sdx_want_rank(infer, 0, "the input", 3, 3));
    TRY(sdx_want_rank(infer, 1, "the weights", 3, 3));
    TRY(sdx_want_dim(infer, 1, "the weights", 0, channels));
    TRY(sdx_want_dim(infer, 1, "the weights", 1, 1));
    TRY(sdx_want_rank(infer, 2, "the bias", 1, 1));
    TRY(sdx_want_dim(infer, 2, "the bias", 0, channels));
    if (taps == 0) return sdx_fail(infer->err, SDX_ERR_USAGE, "the weights have no taps");
    sdx_shape state = {3, {sdx_type_dim(x, 0), channels, taps > 0 ? taps - 1 : SDX_DIM_UNKNOWN}};
    TRY(sdx_want_rank(infer, 3, "the past state", 3, 3));
    for (int d = 0; d < 3; d++) TRY(sdx_want_dim(infer, 3, "the past state", d, state.dim[d]));
    sdx_infer_set(infer, 0, x->dtype, &x->shape);
    sdx_infer_set(infer, 1, x->dtype, &state);
    return SDX_OK;
}

/* Workspace per worker, as doubles: e, the weights, y. */
static size_t worker_count(const sdx_shape *x, const sdx_shape *w)
{
    return (size_t)(2 * x->dim[2] + 2 * w->dim[2]);
}

static sdx_status plan_causal(sdx_plan_step *step)
{
    size_t bytes = sdx_align_up(worker_count(&step->in[0].shape, &step->in[1].shape) * sizeof(double));
    bool ok = sdx_workspace_add(&step->workspace, (size_t)step->threads, bytes);
    return ok ? SDX_OK : sdx_workspace_fail(step->err);
}

typedef struct task {
    const sdx_run *run;
    int64_t channels, length, taps;
    size_t own;
    bool silu;
} task;

/* Rows [begin, end) of [batch, channel]. */
static void causal_rows(void *context, int64_t begin, int64_t end, int worker)
{
    const task *t = context;
    const sdx_run *r = t->run;
    sdx_dtype dtype = r->in[0].dtype;
    int64_t back = t->taps - 1;
    double *e = (double *)(void *)((char *)r->workspace + (size_t)worker * t->own);
    double *w = e + back + t->length, *y = w + t->taps;
    for (int64_t i = begin; i < end; i++) {
        double bias = 0;
        memset(e, 0, (size_t)back * sizeof *e);
        if (sdx_run_has_in(r, 3)) sdx_doubles_load(dtype, r->in[3].data, i * back, back, e);
        sdx_doubles_load(dtype, r->in[0].data, i * t->length, t->length, e + back);
        sdx_doubles_load(dtype, r->in[1].data, i % t->channels * t->taps, t->taps, w);
        if (sdx_run_has_in(r, 2)) sdx_doubles_load(dtype, r->in[2].data, i % t->channels, 1, &bias);
        for (int64_t o = 0; o < t->length; o++) {
            y[o] = bias;
            for (int64_t k = 0; k < t->taps; k++) y[o] += w[k] * e[o + k];
            if (t->silu) y[o] /= 1 + exp(-y[o]);
        }
        sdx_doubles_store(dtype, y, t->length, r->out[0].data, i * t->length);
        if (sdx_run_has_out(r, 1)) sdx_doubles_store(dtype, e + t->length, back, r->out[1].data, i * back);
    }
}

static sdx_status run_causal(sdx_run *run)
{
    sdx_shape x = sdx_tensor_shape(&run->in[0]), w = sdx_tensor_shape(&run->in[1]);
    task t = {.run = run,
              .channels = x.dim[1],
              .length = x.dim[2],
              .taps = w.dim[2],
              .own = sdx_align_up(worker_count(&x, &w) * sizeof(double))};
    TRY(read_activation(run->node, &t.silu, run->err));
    sdx_parallel_for(run->threads, x.dim[0] * x.dim[1], sdx_row_grain(t.length * t.taps), causal_rows, &t);
    return SDX_OK;
}

static const sdx_op_def rows[] = {
    {"", "CausalConvWithState", 27, 0, 2, 4, 2, 2, 0, infer_causal, NULL, plan_causal, run_causal},
};

SDX_OP_TABLE(causal_conv);
