/* linear_attention.c: LinearAttention of ONNX 27 and of com.microsoft: attention whose memory is one matrix per head.
 *
 *     S = exp(g_t) S;   v = beta_t (v_t - S^T k_t);   S += k_t v^T;   o_t = scale * S^T q_t
 * with S [d_k, d_v]. "linear" leaves out the first two steps, "gated" the second, "delta" the first. Query
 * heads share key heads in groups; in com.microsoft's, key heads may share query heads instead, each with an output of
 * its own, and a decay or beta that the rule does not ask for is not looked at. The recurrence runs token by token,
 * each head by itself, in float32.
 *
 * Workspace: inputs and outputs as float32 where they are half precision, the state, and a row per worker.
 */
#include <math.h>
#include <string.h>

#include "attention.h"
#include "contents.h"

enum { QUERY, KEY, VALUE, PAST, DECAY, BETA };

typedef struct rule {
    const char *name;
    bool gated, delta;
} rule;

static const rule rules[] = {
    {"linear", false, false}, {"gated", true, false}, {"delta", false, true}, {"gated_delta", true, true}};

static const rule *find_rule(const sdx_node *node)
{
    const char *name = sdx_node_string(node, "update_rule", "gated_delta");
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (!strcmp(rules[i].name, name)) return &rules[i];
    return NULL;
}

typedef struct linear_attention {
    const rule *rule;
    int64_t heads, key_heads;
    float scale;
} linear_attention;

/* ---- infer ----------------------------------------------------------------------------------------------- */

static bool is_ms(const sdx_node *node)
{
    return *node->domain != 0;
}

static sdx_status check_rule(const sdx_infer *infer)
{
    const rule *r = find_rule(infer->node);
    if (!r)
        return sdx_fail(infer->err, SDX_ERR_FILE,
                        "update_rule \"%s\" is not known; known are linear, gated, delta and gated_delta",
                        sdx_node_string(infer->node, "update_rule", ""));
    bool strict = !is_ms(infer->node);
    if (r->gated > sdx_infer_has(infer, DECAY) || (strict && r->gated < sdx_infer_has(infer, DECAY)))
        return sdx_fail(infer->err, SDX_ERR_FILE, "update_rule %s %s a decay", r->name,
                        r->gated ? "needs" : "does not take");
    if (r->delta > sdx_infer_has(infer, BETA) || (strict && r->delta < sdx_infer_has(infer, BETA)))
        return sdx_fail(infer->err, SDX_ERR_FILE, "update_rule %s %s a beta", r->name,
                        r->delta ? "needs" : "does not take");
    return SDX_OK;
}

static sdx_status check_types(const sdx_infer *infer)
{
    static const char *const name[] = {"query", "key", "value", "past_state", "decay", "beta"};
    const unsigned floats = SDX_SET(SDX_F32) | SDX_SET(SDX_F16) | SDX_SET(SDX_BF16);
    for (int i = QUERY; i <= BETA; i++) {
        int rank = i == PAST ? 4 : 3;
        TRY(sdx_want_dtype(infer, i, name[i], floats));
        TRY(sdx_want_rank(infer, i, name[i], rank, rank));
        if (i != PAST) TRY(sdx_want_same_dtype(infer, i, name[i], QUERY, "query"));
        TRY(sdx_want_dim(infer, i, name[i], 0, sdx_type_dim(&infer->in[QUERY], 0)));
        if (i != PAST) TRY(sdx_want_dim(infer, i, name[i], 1, sdx_type_dim(&infer->in[QUERY], 1)));
    }
    return SDX_OK;
}

/* Columns over heads; -1 when not known. */
static sdx_status split(const sdx_infer *infer, int i, int64_t heads, sdx_dim *size)
{
    sdx_dim columns = sdx_type_dim(&infer->in[i], 2);
    *size = columns >= 0 ? columns / heads : SDX_DIM_UNKNOWN;
    if (columns >= 0 && columns % heads)
        return sdx_fail(infer->err, SDX_ERR_USAGE, "%lld heads do not divide %lld columns", (long long)heads,
                        (long long)columns);
    return SDX_OK;
}

static sdx_status check_last(const sdx_infer *infer, int i, const char *name, sdx_dim a, sdx_dim b)
{
    sdx_dim have = sdx_type_dim(sdx_infer_in(infer, i), 2);
    if (have < 0 || a < 0 || b < 0 || have == a || have == b) return SDX_OK;
    return sdx_fail(infer->err, SDX_ERR_USAGE, "%s has %lld columns, but must have %lld or %lld", name,
                    (long long)have, (long long)a, (long long)b);
}

static sdx_status infer_linear(sdx_infer *infer)
{
    int64_t heads = sdx_node_int(infer->node, "q_num_heads", 0),
            key_heads = sdx_node_int(infer->node, "kv_num_heads", 0);
    bool fit = sdx_heads_fit(heads) && sdx_heads_fit(key_heads);
    if (!fit || (heads % key_heads && !(is_ms(infer->node) && key_heads % heads == 0)))
        return sdx_fail(infer->err, SDX_ERR_FILE, "q_num_heads %lld is not a multiple of kv_num_heads %lld",
                        (long long)heads, (long long)key_heads);
    sdx_dim dk, key_dk, dv;
    if (sdx_node_int(infer->node, "state_window", 0))
        return sdx_fail(infer->err, SDX_ERR_UNSUPPORTED, "a state_window is not supported");
    TRY(check_rule(infer));
    TRY(check_types(infer));
    TRY(split(infer, QUERY, heads, &dk));
    TRY(split(infer, KEY, key_heads, &key_dk));
    TRY(split(infer, VALUE, key_heads, &dv));
    if (dk >= 0) TRY(sdx_want_dim(infer, KEY, "key", 2, dk * key_heads));
    TRY(check_last(infer, DECAY, "decay", key_heads, dk >= 0 ? dk * key_heads : SDX_DIM_UNKNOWN));
    TRY(check_last(infer, BETA, "beta", key_heads, 1));
    const sdx_type *q = &infer->in[QUERY];
    int64_t out_heads = heads > key_heads ? heads : key_heads;
    sdx_shape state = {.rank = 4, .dim = {sdx_type_dim(q, 0), key_heads, sdx_dim_merge(dk, key_dk), dv}};
    for (int d = 0; d < 4; d++) TRY(sdx_want_dim(infer, PAST, "past_state", d, state.dim[d]));
    sdx_shape out = {.rank = 3,
                     .dim = {sdx_type_dim(q, 0), sdx_type_dim(q, 1), dv >= 0 ? dv * out_heads : SDX_DIM_UNKNOWN}};
    sdx_infer_set(infer, 0, q->dtype, &out);
    sdx_infer_set(infer, 1, sdx_infer_has(infer, PAST) ? infer->in[PAST].dtype : q->dtype, &state);
    return SDX_OK;
}

static sdx_status prepare_linear(sdx_prepare *p)
{
    linear_attention *state;
    PREPARE_STATE(p, state);
    state->rule = find_rule(p->node);
    state->heads = sdx_node_int(p->node, "q_num_heads", 1);
    state->key_heads = sdx_node_int(p->node, "kv_num_heads", 1);
    state->scale = sdx_node_float(p->node, "scale", 0.0f);
    return SDX_OK;
}

static sdx_status plan_linear(sdx_plan_step *step)
{
    const linear_attention *state = step->state;
    size_t *total = &step->workspace;
    const sdx_shape *q = &step->in[QUERY].shape, *v = &step->in[VALUE].shape;
    int64_t dk = q->dim[2] / state->heads, dv = v->dim[2] / state->key_heads;
    bool ok =
        sdx_floats_plan(&step->out[0], total) &&
        sdx_workspace_add(total, (size_t)(q->dim[0] * state->key_heads), (size_t)(dk * dv) * sizeof(float)) &&
        sdx_workspace_add(total, (size_t)step->threads, sdx_align_up((size_t)dv * sizeof(float)));
    for (int i = QUERY; i < step->n_in && ok; i++) ok = sdx_floats_plan(&step->in[i], total);
    return ok ? SDX_OK : sdx_workspace_fail(step->err);
}

/* ---- run ------------------------------------------------------------------------------------------------- */

typedef struct task {
    const linear_attention *state;
    int64_t length, dk, dv, decay_columns, beta_columns;
    const float *q, *k, *v, *decay, *beta; /* [B,T,...] */
    float scale;
    float *memory; /* [B,Hkv,dk,dv] */
    float *out;    /* [B,T,H*dv] */
    char *rows;    /* a row [dv] per worker */
} task;

/* One token of key head h: the memory forgets, is corrected and written; row is scratch. */
static void write_token(const task *t, int64_t at, int64_t h, float *memory, float *row)
{
    const linear_attention *state = t->state;
    const float *k = t->k + (at * state->key_heads + h) * t->dk,
                *v = t->v + (at * state->key_heads + h) * t->dv;
    memcpy(row, v, (size_t)t->dv * sizeof *row);
    for (int64_t d = 0; d < t->dk; d++) {
        float *m = memory + d * t->dv;
        if (state->rule->gated) {
            bool per_head = t->decay_columns == state->key_heads;
            float keep = expf(t->decay[at * t->decay_columns + (per_head ? h : h * t->dk + d)]);
            for (int64_t c = 0; c < t->dv; c++) m[c] *= keep;
        }
        if (state->rule->delta)
            for (int64_t c = 0; c < t->dv; c++) row[c] -= m[c] * k[d];
    }
    if (state->rule->delta) {
        float rate = t->beta[at * t->beta_columns + (t->beta_columns == 1 ? 0 : h)];
        for (int64_t c = 0; c < t->dv; c++) row[c] *= rate;
    }
    for (int64_t d = 0; d < t->dk; d++)
        for (int64_t c = 0; c < t->dv; c++) memory[d * t->dv + c] += k[d] * row[c];
}

/* Output head h of out_heads. */
static void read_token(const task *t, int64_t at, int64_t h, int64_t out_heads, const float *memory)
{
    const float *q = t->q + (at * t->state->heads + h * t->state->heads / out_heads) * t->dk;
    float *out = t->out + (at * out_heads + h) * t->dv;
    memset(out, 0, (size_t)t->dv * sizeof *out);
    for (int64_t d = 0; d < t->dk; d++)
        for (int64_t c = 0; c < t->dv; c++) out[c] += q[d] * memory[d * t->dv + c];
    for (int64_t c = 0; c < t->dv; c++) out[c] *= t->scale;
}

static void run_heads(void *context, int64_t begin, int64_t end, int worker)
{
    const task *t = context;
    int64_t key_heads = t->state->key_heads, heads = t->state->heads;
    int64_t group = heads > key_heads ? heads / key_heads : 1;
    float *row = (float *)(void *)(t->rows + (size_t)worker * sdx_align_up((size_t)t->dv * sizeof(float)));
    for (int64_t i = begin; i < end && t->dv; i++) {
        int64_t b = i / key_heads, h = i % key_heads;
        float *memory = t->memory + i * t->dk * t->dv;
        for (int64_t s = 0; s < t->length; s++) {
            write_token(t, b * t->length + s, h, memory, row);
            for (int64_t g = 0; g < group; g++)
                read_token(t, b * t->length + s, h * group + g, key_heads * group, memory);
        }
    }
}

static sdx_status run_linear(sdx_run *run)
{
    const linear_attention *state = run->state;
    sdx_shape q = sdx_run_shape(run, QUERY), v = sdx_run_shape(run, VALUE);
    char *workspace = run->workspace;
    task t = {
        .state = state, .length = q.dim[1], .dk = q.dim[2] / state->heads, .dv = v.dim[2] / state->key_heads};
    const float *in[BETA + 1] = {0};
    for (int i = QUERY; i <= BETA; i++)
        if (sdx_run_has_in(run, i)) in[i] = sdx_floats_of(run->kernels, &run->in[i], &workspace);
    t.q = in[QUERY], t.k = in[KEY], t.v = in[VALUE], t.decay = in[DECAY], t.beta = in[BETA];
    if (t.decay) t.decay_columns = run->in[DECAY].dim[2];
    if (t.beta) t.beta_columns = run->in[BETA].dim[2];
    t.scale = state->scale != 0 ? state->scale : 1.0f / sqrtf((float)t.dk);
    t.out = sdx_floats_for(&run->out[0], &workspace);
    int64_t heads = q.dim[0] * state->key_heads;
    size_t bytes = (size_t)(heads * t.dk * t.dv) * sizeof(float);
    t.memory = sdx_workspace_take(&workspace, bytes);
    t.rows = workspace;
    if (bytes && in[PAST]) memcpy(t.memory, in[PAST], bytes);
    if (bytes && !in[PAST]) memset(t.memory, 0, bytes);
    sdx_parallel_for(run->threads, heads, sdx_row_grain(t.length * t.dk * t.dv / 4), run_heads, &t);
    if (run->out[0].dtype != SDX_F32)
        sdx_floats_store(run->out[0].dtype, t.out, sdx_tensor_count(&run->out[0]), run->out[0].data, 0);
    if (sdx_run_has_out(run, 1))
        sdx_floats_store(run->out[1].dtype, t.memory, heads * t.dk * t.dv, run->out[1].data, 0);
    return SDX_OK;
}

static const sdx_op_def rows[] = {
    {"", "LinearAttention", 27, 0, 3, 6, 1, 2, 0, infer_linear, prepare_linear, plan_linear, run_linear},
    {"com.microsoft", "LinearAttention", 1, 0, 3, 6, 1, 2, 0, infer_linear, prepare_linear, plan_linear, run_linear},
};

SDX_OP_TABLE(linear_attention);
