/* flex_attention.c: FlexAttention of ai.onnx.preview: attention whose scores and weights pass through
 * subgraphs.
 *
 *     S = score_mod(scale * Q K^T);   P = prob_mod(softmax(S));   Y = P V
 * Q [B,N,S,H], K [B,Nkv,T,H], V [B,Nkv,T,Hv]; query heads share key heads in groups. The subgraphs see all
 * scores at once, [B,N,S,T] of the softmax's type. A subgraph costs more than the products here, so that these
 * are plain loops in double, rounded where the operator names a type.
 */
#include <math.h>

#include "../../base/arena.h"
#include "compute.h"
#include "contents.h"
#include "control_flow.h"

enum { Q, K, V };

typedef struct flex {
    sdx_graph *score_mod, *prob_mod; /* or NULL */
    sdx_dtype precision;             /* of the softmax; SDX_UNDEFINED: follows Q */
    float scale;                     /* NaN: 1 / sqrt(H) */
} flex;

static const char *const mod_name[] = {"score_mod", "prob_mod"};

static sdx_dtype softmax_type(sdx_dtype asked, sdx_dtype q)
{
    return asked != SDX_UNDEFINED ? asked : q == SDX_F64 ? SDX_F64 : SDX_F32;
}

/* ---- infer and prepare ----------------------------------------------------------------------------------- */

static sdx_status check_inputs(const sdx_infer *infer)
{
    static const char *const name[] = {"Q", "K", "V"};
    const sdx_type *in = infer->in;
    for (int i = Q; i <= V; i++) {
        TRY(sdx_want_dtype(infer, i, name[i], SDX_SET_FLOAT));
        TRY(sdx_want_same_dtype(infer, i, name[i], Q, "Q"));
        TRY(sdx_want_rank(infer, i, name[i], 4, 4));
        TRY(sdx_want_dim(infer, i, name[i], 0, sdx_type_dim(&in[Q], 0)));
    }
    TRY(sdx_want_dim(infer, K, "K", 3, sdx_type_dim(&in[Q], 3)));
    TRY(sdx_want_dim(infer, V, "V", 1, sdx_type_dim(&in[K], 1)));
    TRY(sdx_want_dim(infer, V, "V", 2, sdx_type_dim(&in[K], 2)));
    sdx_dim heads = sdx_type_dim(&in[Q], 1), key_heads = sdx_type_dim(&in[K], 1);
    if (heads >= 0 && key_heads >= 0 && (key_heads == 0 ? heads != 0 : heads % key_heads != 0))
        return sdx_fail(infer->err, SDX_ERR_USAGE, "%lld query heads cannot share %lld key heads",
                        (long long)heads, (long long)key_heads);
    return SDX_OK;
}

static sdx_status infer_flex(sdx_infer *infer)
{
    int64_t asked = sdx_node_int(infer->node, "softmax_precision", 0);
    const sdx_type *in = infer->in;
    TRY(check_inputs(infer));
    if (asked && !(asked > 0 && asked < 32 && SDX_SET_FLOAT & SDX_SET(asked)))
        return sdx_fail(infer->err, SDX_ERR_FILE, "softmax_precision %lld is not a float type",
                        (long long)asked);
    sdx_type scores = {.dtype = softmax_type((sdx_dtype)asked, in[Q].dtype), .shape = {.rank = 4}}, changed;
    for (int d = 0; d < 4; d++) scores.shape.dim[d] = sdx_type_dim(&in[d < 3 ? Q : K], d < 3 ? d : 2);
    for (int b = 0; b < 2 && infer->body; b++) {
        sdx_graph *body = sdx_node_body(infer->node, mod_name[b]);
        if (body && body->n_input == 1 && body->n_output == 1) TRY(infer->body(infer, body, &scores, &changed));
    }
    sdx_shape y = {
        .rank = 4,
        .dim = {scores.shape.dim[0], scores.shape.dim[1], scores.shape.dim[2], sdx_type_dim(&in[V], 3)}};
    sdx_infer_set(infer, 0, in[Q].dtype, &y);
    return SDX_OK;
}

static sdx_status prepare_flex(sdx_prepare *p)
{
    flex *state;
    PREPARE_STATE(p, state);
    state->precision = (sdx_dtype)sdx_node_int(p->node, "softmax_precision", SDX_UNDEFINED);
    state->scale = sdx_node_float(p->node, "scale", NAN);
    if (sdx_node_attr(p->node, mod_name[0])) TRY(sdx_prepare_body(p, mod_name[0], 1, 1, &state->score_mod));
    if (sdx_node_attr(p->node, mod_name[1])) TRY(sdx_prepare_body(p, mod_name[1], 1, 1, &state->prob_mod));
    return SDX_OK;
}

/* ---- run ------------------------------------------------------------------------------------------------- */

typedef struct task {
    int64_t heads, key_heads, queries, keys, dim, value_dim;
    double scale;
    const double *q, *k, *v;
    const sdx_tensor *from; /* scores or weights of any float type */
    sdx_tensor *to;         /* scores, weights or the result */
    double *rows;           /* two rows of the longest of keys and value_dim per worker */
    int64_t row;
} task;

static int64_t key_head(const task *t, int64_t r)
{
    int64_t head = r / t->queries, b = head / t->heads;
    return b * t->key_heads + head % t->heads / (t->heads / t->key_heads);
}

static void score_rows(void *context, int64_t begin, int64_t end, int worker)
{
    const task *t = context;
    double *row = t->rows + worker * 2 * t->row;
    for (int64_t r = begin; r < end; r++) {
        const double *q = t->q + r * t->dim, *k = t->k + key_head(t, r) * t->keys * t->dim;
        for (int64_t j = 0; j < t->keys; j++) {
            double dot = 0;
            for (int64_t d = 0; d < t->dim; d++) dot += q[d] * k[j * t->dim + d];
            row[j] = dot * t->scale;
        }
        sdx_doubles_store(t->to->dtype, row, t->keys, t->to->data, r * t->keys);
    }
}

static void softmax_rows(void *context, int64_t begin, int64_t end, int worker)
{
    const task *t = context;
    double *row = t->rows + worker * 2 * t->row;
    for (int64_t r = begin; r < end; r++) {
        double max = -INFINITY, sum = 0;
        sdx_doubles_load(t->from->dtype, t->from->data, r * t->keys, t->keys, row);
        for (int64_t j = 0; j < t->keys; j++) max = fmax(max, row[j]);
        for (int64_t j = 0; j < t->keys; j++) sum += row[j] = exp(row[j] - max);
        for (int64_t j = 0; j < t->keys; j++) row[j] /= sum;
        sdx_doubles_store(t->to->dtype, row, t->keys, t->to->data, r * t->keys);
    }
}

static void mix_rows(void *context, int64_t begin, int64_t end, int worker)
{
    const task *t = context;
    double *weight = t->rows + worker * 2 * t->row, *sum = weight + t->row;
    for (int64_t r = begin; r < end; r++) {
        const double *v = t->v + key_head(t, r) * t->keys * t->value_dim;
        sdx_doubles_load(t->from->dtype, t->from->data, r * t->keys, t->keys, weight);
        for (int64_t d = 0; d < t->value_dim; d++) sum[d] = 0;
        for (int64_t j = 0; j < t->keys; j++)
            for (int64_t d = 0; d < t->value_dim; d++) sum[d] += weight[j] * v[j * t->value_dim + d];
        sdx_doubles_store(t->to->dtype, sum, t->value_dim, t->to->data, r * t->value_dim);
    }
}

static sdx_status take_doubles(sdx_run *run, int i, const double **out)
{
    const sdx_tensor *t = &run->in[i];
    double *x;
    int64_t count = sdx_tensor_count(t);
    ARENA_NEW(run->scratch, x, (size_t)count, run->err);
    sdx_doubles_load(t->dtype, t->data, 0, count, x);
    *out = x;
    return SDX_OK;
}

static sdx_status new_scores(sdx_run *run, sdx_dtype dtype, const sdx_shape *shape, sdx_tensor *out)
{
    size_t bytes;
    if (!sdx_tensor_size(dtype, shape, &bytes)) return sdx_workspace_fail(run->err);
    void *data = sdx_arena_alloc(run->scratch, bytes);
    if (!data) return sdx_fail_memory(run->err, bytes);
    *out = sdx_tensor_make(dtype, shape, data);
    return SDX_OK;
}

/* What the subgraph makes of a tensor must be like it. */
static sdx_status change(sdx_run *run, const sdx_graph *body, int slot, sdx_tensor *t)
{
    sdx_tensor out;
    if (!body) return SDX_OK;
    TRY(run->run_body(run, body, slot, t, &out));
    sdx_shape before = sdx_tensor_shape(t), after = sdx_tensor_shape(&out);
    if (out.dtype != t->dtype || !sdx_shape_same(&before, &after)) {
        char tb[SDX_TENSOR_TEXT], ta[SDX_TENSOR_TEXT];
        return sdx_fail(run->err, SDX_ERR_USAGE, "%s turned %s into %s", mod_name[slot],
                        sdx_tensor_format(t->dtype, &before, tb, sizeof tb),
                        sdx_tensor_format(out.dtype, &after, ta, sizeof ta));
    }
    *t = out;
    return SDX_OK;
}

static sdx_status run_flex(sdx_run *run)
{
    const flex *state = run->state;
    sdx_shape q = sdx_run_shape(run, Q), k = sdx_run_shape(run, K), v = sdx_run_shape(run, V);
    sdx_shape y = {.rank = 4, .dim = {q.dim[0], q.dim[1], q.dim[2], v.dim[3]}},
              shape = {.rank = 4, .dim = {q.dim[0], q.dim[1], q.dim[2], k.dim[2]}};
    task t = {.heads = q.dim[1],
              .key_heads = k.dim[1],
              .queries = q.dim[2],
              .keys = k.dim[2],
              .dim = q.dim[3],
              .value_dim = v.dim[3]};
    t.scale = isnan(state->scale) ? 1.0 / sqrt((double)t.dim) : (double)state->scale;
    t.row = t.keys > t.value_dim ? t.keys : t.value_dim;
    sdx_tensor scores, weights;
    sdx_dtype type = softmax_type(state->precision, run->in[Q].dtype);
    TRY(run->allocate(run, 0, run->in[Q].dtype, &y));
    TRY(take_doubles(run, Q, &t.q));
    TRY(take_doubles(run, K, &t.k));
    TRY(take_doubles(run, V, &t.v));
    TRY(new_scores(run, type, &shape, &scores));
    TRY(new_scores(run, type, &shape, &weights));
    ARENA_NEW(run->scratch, t.rows, (size_t)run->threads * 2 * (size_t)t.row, run->err);
    int64_t rows = q.dim[0] * q.dim[1] * q.dim[2], grain = sdx_row_grain(t.keys * (t.dim + t.value_dim));
    t.to = &scores;
    sdx_parallel_for(run->threads, rows, grain, score_rows, &t);
    TRY(change(run, state->score_mod, 0, &scores));
    t.from = &scores;
    t.to = &weights;
    sdx_parallel_for(run->threads, rows, grain, softmax_rows, &t);
    TRY(change(run, state->prob_mod, 1, &weights));
    t.from = &weights;
    t.to = &run->out[0];
    if (sdx_run_has_out(run, 0)) sdx_parallel_for(run->threads, rows, grain, mix_rows, &t);
    return SDX_OK;
}

static const sdx_op_def rows[] = {
    {"ai.onnx.preview", "FlexAttention", 1, 0, 3, 3, 1, 1, SDX_OP_DYNAMIC, infer_flex, prepare_flex, NULL,
     run_flex},
};

SDX_OP_TABLE(flex_attention);
