/* multi_head.c: com.microsoft MultiHeadAttention: attention over Q, K and V that were projected elsewhere.
 *
 * query [B,S,N*H]. Key and value are [B,L,N*H] and [B,L,N*Hv], or already split into heads as [B,N,L,H] (cross
 * attention: their bias has been added, and there is no past). With a past, keys and values are appended to it
 * in the present outputs and read from there. The packed 5-D forms are refused, as ONNX Runtime's CPU provider
 * does.
 *
 * Workspace: [Q + bias] [K + bias] [V + bias] [mask addend] [present K and V, when not outputs] and the heads'
 * own.
 */
#include <math.h>

#include "attention.h"

enum { QUERY, KEY, VALUE, BIAS, MASK, ATTENTION_BIAS, PAST_KEY, PAST_VALUE, PAST_LENGTH, CACHE };

typedef struct multi_head {
    bool causal;
    int64_t heads;
    float scale, filter;
} multi_head;

typedef struct sizes {
    int64_t batch, queries, fresh, past, keys, head_dim, value_dim;
    bool split; /* keys and values come as [B,N,L,H] */
} sizes;

/* ---- infer ----------------------------------------------------------------------------------------------- */

static sdx_status check_supported(const sdx_infer *infer)
{
    TRY(sdx_want_present(infer, KEY, "key"));
    TRY(sdx_want_present(infer, VALUE, "value"));
    if (sdx_infer_has(infer, PAST_LENGTH) || sdx_infer_has(infer, CACHE))
        return sdx_fail(infer->err, SDX_ERR_UNSUPPORTED,
                        "past_sequence_length and cache_indirection are not supported");
    if (infer->n_out > 3)
        return sdx_fail(infer->err, SDX_ERR_UNSUPPORTED, "the output with the scores is not supported");
    if (sdx_infer_has(infer, PAST_KEY) != sdx_infer_has(infer, PAST_VALUE))
        return sdx_fail(infer->err, SDX_ERR_FILE, "past_key and past_value must come together");
    if (sdx_node_int(infer->node, "num_heads", 0) <= 0)
        return sdx_fail(infer->err, SDX_ERR_FILE, "num_heads is missing or not positive");
    for (int i = QUERY; i < CACHE; i++)
        if (i != MASK) TRY(sdx_want_dtype(infer, i, "an input", SDX_SET(SDX_F32)));
    return sdx_want_dtype(infer, MASK, "key_padding_mask", SDX_SET(SDX_I32));
}

static sdx_dim over_heads(sdx_dim hidden, int64_t heads)
{
    return hidden >= 0 ? hidden / heads : SDX_DIM_UNKNOWN;
}

/* Key or value: [B,L,N*H] or [B,N,L,H]. Its length and head size. */
static sdx_status check_split(const sdx_infer *infer, int i, const char *name, int64_t heads, sdx_dim *length,
                              sdx_dim *dim)
{
    const sdx_type *t = &infer->in[i];
    TRY(sdx_want_rank(infer, i, name, 3, 4));
    TRY(sdx_want_dim(infer, i, name, 0, sdx_type_dim(&infer->in[QUERY], 0)));
    if (t->shape.rank == 4) {
        TRY(sdx_want_dim(infer, i, name, 1, heads));
        *length = t->shape.dim[2];
        *dim = t->shape.dim[3];
        return SDX_OK;
    }
    *length = sdx_type_dim(t, 1);
    *dim = over_heads(sdx_type_dim(t, 2), heads);
    if (*dim >= 0 && t->shape.dim[2] % heads)
        return sdx_fail(infer->err, SDX_ERR_FILE, "%lld heads do not divide the %lld columns of %s",
                        (long long)heads, (long long)t->shape.dim[2], name);
    return SDX_OK;
}

static sdx_status check_past(const sdx_infer *infer, int i, const char *name, int64_t heads, sdx_dim dim)
{
    if (!sdx_infer_has(infer, i)) return SDX_OK;
    TRY(sdx_want_rank(infer, i, name, 4, 4));
    TRY(sdx_want_dim(infer, i, name, 0, sdx_type_dim(&infer->in[QUERY], 0)));
    TRY(sdx_want_dim(infer, i, name, 1, heads));
    TRY(sdx_want_dim(infer, i, name, 2, sdx_type_dim(&infer->in[PAST_KEY], 2)));
    return sdx_want_dim(infer, i, name, 3, dim);
}

static sdx_status check_bias(const sdx_infer *infer, int64_t heads, sdx_dim dim, sdx_dim value_dim)
{
    if (!sdx_infer_has(infer, BIAS)) return SDX_OK;
    TRY(sdx_want_rank(infer, BIAS, "the bias", 1, 1));
    return dim < 0 || value_dim < 0 ? SDX_OK
                                    : sdx_want_dim(infer, BIAS, "the bias", 0, heads * (2 * dim + value_dim));
}

static sdx_status infer_multi_head(sdx_infer *infer)
{
    TRY(check_supported(infer));
    int64_t heads = sdx_node_int(infer->node, "num_heads", 1);
    sdx_dim length, dim, value_length, value_dim, queries = sdx_type_dim(&infer->in[QUERY], 1);
    TRY(sdx_want_rank(infer, QUERY, "query", 3, 3));
    TRY(check_split(infer, KEY, "key", heads, &length, &dim));
    TRY(check_split(infer, VALUE, "value", heads, &value_length, &value_dim));
    TRY(sdx_want_dim(infer, QUERY, "query", 2, dim >= 0 ? dim * heads : SDX_DIM_UNKNOWN));
    int key_rank = infer->in[KEY].shape.rank, value_rank = infer->in[VALUE].shape.rank;
    if (key_rank >= 0 && value_rank >= 0 && key_rank != value_rank)
        return sdx_fail(infer->err, SDX_ERR_USAGE, "key and value must both have 3 or both 4 dimensions");
    if (length >= 0 && value_length >= 0 && length != value_length)
        return sdx_fail(infer->err, SDX_ERR_USAGE, "there are %lld keys but %lld values", (long long)length,
                        (long long)value_length);
    if (key_rank == 4 && sdx_infer_has(infer, PAST_KEY))
        return sdx_fail(infer->err, SDX_ERR_UNSUPPORTED, "keys of shape [B,N,L,H] do not go with a past");
    TRY(check_past(infer, PAST_KEY, "past_key", heads, dim));
    TRY(check_past(infer, PAST_VALUE, "past_value", heads, value_dim));
    TRY(check_bias(infer, heads, dim, value_dim));
    sdx_dim batch = sdx_type_dim(&infer->in[QUERY], 0), keys = length;
    if (sdx_infer_has(infer, PAST_KEY)) {
        sdx_element past = sdx_element_from_dim(sdx_type_dim(&infer->in[PAST_KEY], 2));
        keys = sdx_element_to_dim(sdx_model_arith(infer->model, '+', past, sdx_element_from_dim(length)));
    }
    if (sdx_infer_has(infer, MASK))
        TRY(sdx_mask_check(&infer->in[MASK].shape, batch, queries, keys, infer->err));
    TRY(sdx_attention_check_bias(infer, ATTENTION_BIAS, batch, heads, queries, keys));
    sdx_shape out = {.rank = 3, .dim = {batch, queries, value_dim >= 0 ? value_dim * heads : SDX_DIM_UNKNOWN}};
    if (key_rank == 3 && value_dim < 0) out.dim[2] = sdx_type_dim(&infer->in[VALUE], 2);
    sdx_shape key = {.rank = 4, .dim = {batch, heads, keys, dim}},
              value = {.rank = 4, .dim = {batch, heads, keys, value_dim}};
    sdx_infer_set(infer, 0, SDX_F32, &out);
    sdx_infer_set(infer, 1, SDX_F32, &key);
    sdx_infer_set(infer, 2, SDX_F32, &value);
    return SDX_OK;
}

/* ---- prepare and plan ------------------------------------------------------------------------------------ */

static sdx_status prepare_multi_head(sdx_prepare *p)
{
    multi_head *state;
    PREPARE_STATE(p, state);
    state->causal = sdx_node_int(p->node, "unidirectional", 0) != 0;
    state->heads = sdx_node_int(p->node, "num_heads", 1);
    state->scale = sdx_node_float(p->node, "scale", 0.0f);
    state->filter = sdx_node_float(p->node, "mask_filter_value", -10000.0f);
    return SDX_OK;
}

static sizes make_sizes(int64_t heads, const sdx_shape *q, const sdx_shape *k, const sdx_shape *v,
                        const sdx_shape *past)
{
    sizes s = {.batch = q->dim[0], .queries = q->dim[1], .head_dim = q->dim[2] / heads, .split = k->rank == 4};
    s.fresh = s.split ? k->dim[2] : k->dim[1];
    s.value_dim = s.split ? v->dim[3] : v->dim[2] / heads;
    s.past = past ? past->dim[2] : 0;
    s.keys = s.past + s.fresh;
    return s;
}

static bool has_in(const sdx_plan_step *step, int i)
{
    return i < step->n_in && step->in[i].dtype != SDX_UNDEFINED;
}

static sdx_status plan_multi_head(sdx_plan_step *step)
{
    const multi_head *state = step->state;
    sizes s = make_sizes(state->heads, &step->in[QUERY].shape, &step->in[KEY].shape, &step->in[VALUE].shape,
                         has_in(step, PAST_KEY) ? &step->in[PAST_KEY].shape : NULL);
    size_t *total = &step->workspace, all = (size_t)(s.batch * state->heads), mask = 0;
    if (has_in(step, MASK))
        mask = (size_t)(s.batch * (step->in[MASK].shape.rank == 3 ? s.queries : 1) * s.keys);
    size_t bias = has_in(step, BIAS) ? all : 0, past = has_in(step, PAST_KEY) ? all : 0;
    bool ok = sdx_workspace_add(total, bias * (size_t)(s.queries * s.head_dim), sizeof(float)) &&
              sdx_workspace_add(total, bias * (size_t)(s.fresh * s.head_dim), sizeof(float)) &&
              sdx_workspace_add(total, bias * (size_t)(s.fresh * s.value_dim), sizeof(float)) &&
              sdx_workspace_add(total, mask, sizeof(float)) &&
              sdx_workspace_add(total, past * (size_t)(s.keys * s.head_dim), sizeof(float)) &&
              sdx_workspace_add(total, past * (size_t)(s.keys * s.value_dim), sizeof(float)) &&
              sdx_workspace_add(total, 1,
                                sdx_attention_workspace(step->kernels, step->threads, s.queries, s.keys,
                                                        s.head_dim, s.value_dim));
    return ok ? SDX_OK : sdx_workspace_fail(step->err);
}

/* ---- run ------------------------------------------------------------------------------------------------- */

typedef struct bias_task {
    const sdx_kernels *kernels;
    int64_t n;
    const float *x, *bias;
    float *y;
} bias_task;

static void add_bias_rows(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const bias_task *t = context;
    for (int64_t i = begin; i < end; i++)
        t->kernels->element.binary_f32[SDX_BINARY_ADD](t->n, t->x + i * t->n, 1, t->bias, 1, t->y + i * t->n);
}

/* Rows [rows, n] of an input plus n numbers of the bias, in the workspace; the input itself without a bias. */
static const float *with_bias(const sdx_run *run, int input, int64_t rows, int64_t n, int64_t bias_begin,
                              char **workspace)
{
    if (!sdx_run_has_in(run, BIAS)) return run->in[input].data;
    float *y = sdx_workspace_take(workspace, (size_t)(rows * n) * sizeof *y);
    bias_task t = {run->kernels, n, run->in[input].data, (const float *)run->in[BIAS].data + bias_begin, y};
    sdx_parallel_for(run->threads, rows, sdx_row_grain(n), add_bias_rows, &t);
    return y;
}

static sdx_heads rows_as_heads(const float *data, int64_t heads, int64_t length, int64_t dim)
{
    return (sdx_heads){data, length * heads * dim, dim, heads * dim};
}

static void place_heads(const sdx_run *run, const sizes *s, sdx_attention_job *job, char **workspace)
{
    int64_t n = job->heads, qk = n * s->head_dim, v = n * s->value_dim;
    job->q = rows_as_heads(with_bias(run, QUERY, s->batch * s->queries, qk, 0, workspace), n, s->queries,
                           s->head_dim);
    if (s->split) {
        job->k = sdx_heads_of(run->in[KEY].data, n, s->fresh, s->head_dim);
        job->v = sdx_heads_of(run->in[VALUE].data, n, s->fresh, s->value_dim);
        return;
    }
    int64_t rows = s->batch * s->fresh;
    job->k = rows_as_heads(with_bias(run, KEY, rows, qk, qk, workspace), n, s->fresh, s->head_dim);
    job->v = rows_as_heads(with_bias(run, VALUE, rows, v, 2 * qk, workspace), n, s->fresh, s->value_dim);
}

/* Appends fresh heads to past input `past` in output `present`, or in the workspace when nobody wants that. */
static void join_past(const sdx_run *run, const sizes *s, int past, int present, int64_t dim, sdx_heads *heads,
                      int64_t n, char **workspace)
{
    bool has_past = sdx_run_has_in(run, past), has_out = sdx_run_has_out(run, present);
    if (!has_past && !has_out) return;
    float *to = has_out ? run->out[present].data : NULL;
    if (has_past) {
        float *own = sdx_workspace_take(workspace, (size_t)(s->batch * n * s->keys * dim) * sizeof *own);
        if (!to) to = own;
    }
    sdx_attention_append(run->threads, s->batch, n, s->past, s->fresh, dim,
                         has_past ? run->in[past].data : NULL, *heads, to);
    *heads = sdx_heads_of(to, n, s->keys, dim);
}

static sdx_status run_multi_head(sdx_run *run)
{
    const multi_head *state = run->state;
    sdx_shape q = sdx_tensor_shape(&run->in[QUERY]), k = sdx_tensor_shape(&run->in[KEY]);
    sdx_shape v = sdx_tensor_shape(&run->in[VALUE]), past = {.rank = 0};
    if (sdx_run_has_in(run, PAST_KEY)) past = sdx_tensor_shape(&run->in[PAST_KEY]);
    sizes s = make_sizes(state->heads, &q, &k, &v, past.rank ? &past : NULL);
    sdx_attention_job job = {.kernels = run->kernels,
                             .threads = run->threads,
                             .batch = s.batch,
                             .heads = state->heads,
                             .queries = s.queries,
                             .keys = s.keys,
                             .head_dim = s.head_dim,
                             .value_dim = s.value_dim,
                             .causal = state->causal,
                             .out = run->out[0].data};
    job.scale = state->scale != 0 ? state->scale : 1.0f / sqrtf((float)s.head_dim);
    char *workspace = run->workspace;
    place_heads(run, &s, &job, &workspace);
    if (sdx_run_has_in(run, MASK)) {
        const sdx_tensor *mask = &run->in[MASK];
        int64_t rows = mask->rank == 3 ? s.queries : 1;
        float *addend = sdx_workspace_take(&workspace, (size_t)(s.batch * rows * s.keys) * sizeof *addend);
        job.mask_rows = sdx_mask_rows(mask, s.batch, s.queries, s.keys);
        sdx_mask_fill(mask, s.batch, job.mask_rows, s.keys, state->filter, addend);
        job.mask = job.mask_rows ? addend : NULL;
    }
    join_past(run, &s, PAST_KEY, 1, s.head_dim, &job.k, job.heads, &workspace);
    join_past(run, &s, PAST_VALUE, 2, s.value_dim, &job.v, job.heads, &workspace);
    if (sdx_run_has_in(run, ATTENTION_BIAS)) sdx_attention_set_bias(&job, &run->in[ATTENTION_BIAS]);
    job.workspace = workspace;
    sdx_attention_run(&job);
    return SDX_OK;
}

#define MS "com.microsoft"
static const sdx_op_def rows[] = {
    {MS, "MultiHeadAttention", 1, 0, 1, 10, 1, 4, 0, infer_multi_head, prepare_multi_head, plan_multi_head,
     run_multi_head},
};

SDX_OP_TABLE(multi_head);
