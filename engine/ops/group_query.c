/* group_query.c: com.microsoft GroupQueryAttention: causal attention of decoders, with a key-value cache.
 *
 * query [B,S,N*H], key and value [B,S,Nkv*H] (or all three side by side in query). seqlens_k holds each
 * sequence's total length minus one, total_sequence_length the longest T. When T is S this is the first prompt,
 * otherwise S new tokens follow total - S valid rows of the past. Rotary positions count from there unless
 * position_ids says otherwise. present has max(T, rows of past) rows, zeros behind the valid ones.
 *
 * Sequences of different lengths, windows and a bias become one addend of the scores, [B, 1 or N, S, T]; a
 * plain causal step needs none.
 *
 * Workspace: inputs and outputs as float32 where they are half precision, [Q turned] [K turned], the caches,
 * the addend, and the heads' own.
 */
#include <math.h>

#include "attention.h"
#include "contents.h"

enum {
    QUERY,
    KEY,
    VALUE,
    PAST_KEY,
    PAST_VALUE,
    LENGTHS,
    TOTAL,
    COS,
    SIN,
    POSITIONS,
    BIAS,
    SINK,
    FIRST_REFUSED
};
enum { OUT, PRESENT_KEY, PRESENT_VALUE, SCORES };

typedef struct group_query {
    int64_t heads, key_heads, window;
    float scale, softcap;
    bool rotary, interleaved, smooth, causal;
    int64_t scores; /* 0 none, 1 before and 2 after softmax */
} group_query;

typedef struct sizes {
    int64_t batch, queries, dim, past_room, total, room;
    bool packed; /* query holds keys and values too */
} sizes;

/* ---- infer ----------------------------------------------------------------------------------------------- */

static sdx_status refuse(const sdx_infer *infer)
{
    const sdx_node *n = infer->node;
    for (int i = FIRST_REFUSED; i < infer->n_in; i++)
        if (sdx_infer_has(infer, i))
            return sdx_fail(infer->err, SDX_ERR_UNSUPPORTED,
                            "quantized caches and norms of Q and K (input %d) are not supported", i);
    if (sdx_node_int(n, "sliding_window_cache", 0))
        return sdx_fail(infer->err, SDX_ERR_UNSUPPORTED, "sliding_window_cache is not supported");
    if (sdx_infer_has(infer, KEY) != sdx_infer_has(infer, VALUE))
        return sdx_fail(infer->err, SDX_ERR_FILE, "key and value must come together");
    if (sdx_infer_has(infer, PAST_KEY) != sdx_infer_has(infer, PAST_VALUE))
        return sdx_fail(infer->err, SDX_ERR_FILE, "past_key and past_value must come together");
    if (sdx_node_int(n, "do_rotary", 0) && (!sdx_infer_has(infer, COS) || !sdx_infer_has(infer, SIN)))
        return sdx_fail(infer->err, SDX_ERR_FILE, "do_rotary needs cos_cache and sin_cache");
    int64_t heads = sdx_node_int(n, "num_heads", 0), key_heads = sdx_node_int(n, "kv_num_heads", 0);
    if (!sdx_heads_fit(heads) || !sdx_heads_fit(key_heads) || heads % key_heads)
        return sdx_fail(infer->err, SDX_ERR_FILE, "num_heads %lld is not a multiple of kv_num_heads %lld",
                        (long long)heads, (long long)key_heads);
    int64_t scores = sdx_node_int(n, "qk_output", 0);
    if (scores < 0 || scores > 2)
        return sdx_fail(infer->err, SDX_ERR_FILE, "qk_output is %lld", (long long)scores);
    return SDX_OK;
}

static sdx_status check_types(const sdx_infer *infer)
{
    static const struct {
        int i;
        const char *name;
        int rank;
    } in[] = {{QUERY, "query", 3},           {KEY, "key", 3},
              {VALUE, "value", 3},           {PAST_KEY, "past_key", 4},
              {PAST_VALUE, "past_value", 4}, {COS, "cos_cache", 2},
              {SIN, "sin_cache", 2},         {BIAS, "attention_bias", 4},
              {SINK, "head_sink", 1}};
    TRY(sdx_want_dtype(infer, QUERY, "query", SDX_SET(SDX_F32) | SDX_SET(SDX_F16) | SDX_SET(SDX_BF16)));
    for (size_t k = 0; k < sizeof in / sizeof *in; k++) {
        TRY(sdx_want_same_dtype(infer, in[k].i, in[k].name, QUERY, "query"));
        TRY(sdx_want_rank(infer, in[k].i, in[k].name, in[k].rank, in[k].rank));
    }
    TRY(sdx_want_dtype(infer, LENGTHS, "seqlens_k", SDX_SET(SDX_I32)));
    TRY(sdx_want_dtype(infer, TOTAL, "total_sequence_length", SDX_SET(SDX_I32)));
    return sdx_want_dtype(infer, POSITIONS, "position_ids", SDX_SET(SDX_I64));
}

/* The size of a head, from the columns of query. */
static sdx_status read_head(const sdx_infer *infer, int64_t heads, int64_t key_heads, sdx_dim *dim)
{
    sdx_dim columns = sdx_type_dim(&infer->in[QUERY], 2);
    int64_t parts = sdx_infer_has(infer, KEY) ? heads : heads + 2 * key_heads;
    *dim = columns >= 0 ? columns / parts : SDX_DIM_UNKNOWN;
    if (columns >= 0 && columns % parts)
        return sdx_fail(infer->err, SDX_ERR_USAGE, "%lld heads do not divide the %lld columns of query",
                        (long long)parts, (long long)columns);
    return SDX_OK;
}

static sdx_status check_rotary(const sdx_infer *infer, sdx_dim batch, sdx_dim queries, sdx_dim dim)
{
    if (!sdx_node_int(infer->node, "do_rotary", 0)) return SDX_OK;
    sdx_dim half = sdx_type_dim(&infer->in[COS], 1);
    if (half >= 0 && dim >= 0 && 2 * half > dim)
        return sdx_fail(infer->err, SDX_ERR_USAGE, "tables of %lld columns do not fit heads of %lld",
                        (long long)half, (long long)dim);
    TRY(sdx_want_dim(infer, SIN, "sin_cache", 0, sdx_type_dim(&infer->in[COS], 0)));
    TRY(sdx_want_dim(infer, SIN, "sin_cache", 1, half));
    TRY(sdx_want_rank(infer, POSITIONS, "position_ids", 2, 2));
    TRY(sdx_want_dim(infer, POSITIONS, "position_ids", 0, batch));
    return sdx_want_dim(infer, POSITIONS, "position_ids", 1, queries);
}

static sdx_status check_past(const sdx_infer *infer, int i, const char *name, sdx_dim batch, int64_t heads,
                             sdx_dim dim)
{
    TRY(sdx_want_dim(infer, i, name, 0, batch));
    TRY(sdx_want_dim(infer, i, name, 1, heads));
    TRY(sdx_want_dim(infer, i, name, 2, sdx_type_dim(sdx_infer_in(infer, PAST_KEY), 2)));
    return sdx_want_dim(infer, i, name, 3, dim);
}

static sdx_status read_total(sdx_infer *infer, sdx_dim *total)
{
    int count;
    const sdx_element *e = sdx_infer_contents(infer, TOTAL, &count);
    *total = SDX_DIM_UNKNOWN;
    return e && count == 1 ? sdx_infer_dim(infer, *e, total) : SDX_OK;
}

static sdx_status infer_group_query(sdx_infer *infer)
{
    TRY(sdx_want_present(infer, LENGTHS, "seqlens_k"));
    TRY(sdx_want_present(infer, TOTAL, "total_sequence_length"));
    TRY(refuse(infer));
    TRY(check_types(infer));
    int64_t heads = sdx_node_int(infer->node, "num_heads", 1),
            key_heads = sdx_node_int(infer->node, "kv_num_heads", 1);
    sdx_dim batch = sdx_type_dim(&infer->in[QUERY], 0), queries = sdx_type_dim(&infer->in[QUERY], 1), dim,
            total;
    TRY(read_head(infer, heads, key_heads, &dim));
    TRY(check_rotary(infer, batch, queries, dim));
    for (int i = KEY; i <= VALUE; i++) {
        TRY(sdx_want_dim(infer, i, i == KEY ? "key" : "value", 0, batch));
        TRY(sdx_want_dim(infer, i, i == KEY ? "key" : "value", 1, queries));
        if (dim >= 0) TRY(sdx_want_dim(infer, i, i == KEY ? "key" : "value", 2, key_heads * dim));
    }
    TRY(check_past(infer, PAST_KEY, "past_key", batch, key_heads, dim));
    TRY(check_past(infer, PAST_VALUE, "past_value", batch, key_heads, dim));
    if (sdx_shape_count(&infer->in[LENGTHS].shape) >= 0 && batch >= 0 &&
        sdx_shape_count(&infer->in[LENGTHS].shape) != batch)
        return sdx_fail(infer->err, SDX_ERR_USAGE, "seqlens_k must have one number per sequence");
    TRY(sdx_want_dim(infer, SINK, "head_sink", 0, heads));
    TRY(read_total(infer, &total));
    TRY(sdx_attention_check_bias(infer, BIAS, batch, heads, queries, total));
    sdx_dim past = sdx_infer_has(infer, PAST_KEY) ? sdx_type_dim(&infer->in[PAST_KEY], 2) : 0,
            room = SDX_DIM_UNKNOWN;
    if (past == 0 || sdx_dim_same(past, total)) room = total;
    if (past >= 0 && total >= 0) room = past > total ? past : total;
    sdx_dtype type = infer->in[QUERY].dtype;
    sdx_shape out = {.rank = 3, .dim = {batch, queries, dim >= 0 ? dim * heads : SDX_DIM_UNKNOWN}},
              present = {.rank = 4, .dim = {batch, key_heads, room, dim}},
              scores = {.rank = 4, .dim = {batch, heads, queries, total}};
    sdx_infer_set(infer, OUT, type, &out);
    sdx_infer_set(infer, PRESENT_KEY, type, &present);
    sdx_infer_set(infer, PRESENT_VALUE, type, &present);
    sdx_infer_set(infer, SCORES, type, &scores);
    return SDX_OK;
}

/* ---- prepare and plan ------------------------------------------------------------------------------------ */

static sdx_status prepare_group_query(sdx_prepare *p)
{
    group_query *state;
    PREPARE_STATE(p, state);
    const sdx_node *n = p->node;
    *state = (group_query){.heads = sdx_node_int(n, "num_heads", 1),
                           .key_heads = sdx_node_int(n, "kv_num_heads", 1),
                           .window = sdx_node_int(n, "local_window_size", -1),
                           .scale = sdx_node_float(n, "scale", 0.0f),
                           .softcap = sdx_node_float(n, "softcap", 0.0f),
                           .rotary = sdx_node_int(n, "do_rotary", 0) != 0,
                           .interleaved = sdx_node_int(n, "rotary_interleaved", 0) != 0,
                           .smooth = sdx_node_int(n, "smooth_softmax", 0) == 1,
                           .causal = sdx_node_int(n, "causal", 1) != 0,
                           .scores = sdx_node_int(n, "qk_output", 0)};
    return SDX_OK;
}

static sizes make_sizes(const group_query *state, const sdx_shape *q, bool packed, const sdx_shape *past,
                        int64_t total)
{
    sizes s = {.batch = q->dim[0], .queries = q->dim[1], .packed = packed, .total = total};
    s.dim = q->dim[2] / (packed ? state->heads + 2 * state->key_heads : state->heads);
    s.past_room = past ? past->dim[2] : 0;
    s.room = s.past_room > total ? s.past_room : total;
    return s;
}

static sdx_cache make_cache(const group_query *state, const sizes *s, const int64_t *valid)
{
    return (sdx_cache){.batch = s->batch,
                       .heads = state->key_heads,
                       .dim = s->dim,
                       .past_room = s->past_room,
                       .past_of = valid,
                       .fresh = s->queries,
                       .room = s->room};
}

static bool has_in(const sdx_plan_step *step, int i)
{
    return i < step->n_in && step->in[i].dtype != SDX_UNDEFINED;
}

/* As if there were as many keys as present has room for. */
static sdx_status plan_group_query(sdx_plan_step *step)
{
    const group_query *state = step->state;
    sizes s = make_sizes(state, &step->in[QUERY].shape, !has_in(step, KEY),
                         has_in(step, PAST_KEY) ? &step->in[PAST_KEY].shape : NULL, 0);
    s.total = s.room = step->out[PRESENT_KEY].shape.dim[2];
    size_t *total = &step->workspace, rows = (size_t)(s.batch * s.queries);
    size_t heads =
        (step->n_out > SCORES || state->softcap != 0 || state->smooth || has_in(step, SINK)
             ? sdx_attention_stages_workspace
             : sdx_attention_workspace)(step->kernels, step->threads, s.queries, s.room, s.dim, s.dim);
    sdx_cache cache = make_cache(state, &s, NULL);
    cache.is_buffer = true; /* its rows may end at different places */
    bool ok = sdx_workspace_add(total, (size_t)s.batch, sizeof(int64_t)) &&
              (!state->rotary ||
               (sdx_workspace_add(total, rows, (size_t)(state->heads * s.dim) * sizeof(float)) &&
                sdx_workspace_add(total, rows, (size_t)(state->key_heads * s.dim) * sizeof(float)))) &&
              sdx_cache_plan(step, &cache, PAST_KEY, PRESENT_KEY, total) &&
              sdx_cache_plan(step, &cache, PAST_VALUE, PRESENT_VALUE, total) &&
              sdx_workspace_add(total, rows * (size_t)(has_in(step, BIAS) ? state->heads : 1),
                                (size_t)s.room * sizeof(float)) &&
              sdx_floats_plan(&step->out[OUT], total) &&
              (step->n_out <= SCORES || sdx_floats_plan(&step->out[SCORES], total)) &&
              sdx_workspace_add(total, 1, heads);
    const int wide[] = {QUERY, KEY, VALUE, COS, SIN, BIAS, SINK};
    for (size_t i = 0; i < sizeof wide / sizeof *wide && ok; i++)
        if (wide[i] < step->n_in) ok = sdx_floats_plan(&step->in[wide[i]], total);
    return ok ? SDX_OK : sdx_workspace_fail(step->err);
}

/* ---- run ------------------------------------------------------------------------------------------------- */

static const float *floats(const sdx_run *run, int i, char **workspace)
{
    return sdx_run_has_in(run, i) ? sdx_floats_of(run->kernels, &run->in[i], workspace) : NULL;
}

/* Valid rows of the past, per sequence. */
static sdx_status read_lengths(const sdx_run *run, const sizes *s, int64_t *past)
{
    bool first = s->total == s->queries;
    if (s->total < s->queries)
        return sdx_fail(run->err, SDX_ERR_USAGE, "total_sequence_length %lld is below the %lld tokens of query",
                        (long long)s->total, (long long)s->queries);
    for (int64_t b = 0; b < s->batch; b++) {
        int64_t length = sdx_tensor_get_i64(&run->in[LENGTHS], b) + 1;
        past[b] = first ? 0 : length - s->queries;
        if (length < 1 || length > s->total || past[b] < 0 || past[b] > s->past_room)
            return sdx_fail(
                run->err, SDX_ERR_USAGE,
                "sequence %lld: a length of %lld does not fit %lld tokens in all, %lld new and %lld past",
                (long long)b, (long long)length, (long long)s->total, (long long)s->queries,
                (long long)s->past_room);
    }
    return SDX_OK;
}

static sdx_status apply_rotary(const sdx_run *run, const sizes *s, const int64_t *past, sdx_attention_job *job,
                               char **workspace)
{
    const group_query *state = run->state;
    if (!state->rotary) return SDX_OK;
    sdx_turn t = {.past = past, .batch = s->batch, .queries = s->queries, .dim = s->dim};
    t.rotary = (sdx_rotary){
        .positions = run->in[COS].dim[0], .half = run->in[COS].dim[1], .interleaved = state->interleaved};
    t.rotary.cos = floats(run, COS, workspace);
    t.rotary.sin = floats(run, SIN, workspace);
    if (sdx_run_has_in(run, POSITIONS)) t.positions = run->in[POSITIONS].data;
    TRY(sdx_turn_check(&t, run->err));
    sdx_turn_heads(run->threads, &t, state->heads, &job->q, workspace);
    sdx_turn_heads(run->threads, &t, state->key_heads, &job->k, workspace);
    return SDX_OK;
}

static void place_heads(const sdx_run *run, const sizes *s, sdx_attention_job *job, char **workspace)
{
    const group_query *state = run->state;
    const float *q = floats(run, QUERY, workspace);
    if (!s->packed) {
        job->q = sdx_heads_of_rows(q, state->heads, s->queries, s->dim);
        job->k = sdx_heads_of_rows(floats(run, KEY, workspace), state->key_heads, s->queries, s->dim);
        job->v = sdx_heads_of_rows(floats(run, VALUE, workspace), state->key_heads, s->queries, s->dim);
        return;
    }
    int64_t row = (state->heads + 2 * state->key_heads) * s->dim;
    job->q = (sdx_heads){q, s->queries * row, s->dim, row};
    job->k = job->v = job->q;
    job->k.data += state->heads * s->dim;
    job->v.data += (state->heads + state->key_heads) * s->dim;
}

typedef struct addend_task {
    const sdx_run *run;
    const sizes *s;
    const int64_t *past;
    const float *bias; /* or NULL */
    int64_t bias_batch, bias_head, heads;
    float *to; /* [batch, heads, queries, total] */
} addend_task;

static void addend_rows(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const addend_task *t = context;
    const group_query *state = t->run->state;
    int64_t queries = t->s->queries, total = t->s->total;
    for (int64_t r = begin; r < end; r++) {
        int64_t i = r % queries, h = r / queries % t->heads, b = r / queries / t->heads;
        int64_t length = sdx_tensor_get_i64(&t->run->in[LENGTHS], b) + 1, position = t->past[b] + i;
        int64_t past_end = state->causal ? position + 1 : length;
        int64_t first = state->window > 0 && past_end > state->window ? past_end - state->window : 0;
        const float *bias = t->bias ? t->bias + b * t->bias_batch + h * t->bias_head + i * total : NULL;
        float *row = t->to + r * total;
        for (int64_t j = 0; j < total; j++)
            row[j] = j < first || j >= past_end ? -INFINITY : bias ? bias[j] : 0.0f;
    }
}

/* One length for all, and nothing else to add: the kernel's own diagonal will do. */
static bool is_plain(const sdx_run *run, const sizes *s, const int64_t *past)
{
    const group_query *state = run->state;
    bool plain = state->causal && state->window <= 0 && !sdx_run_has_in(run, BIAS);
    for (int64_t b = 0; b < s->batch; b++) plain &= past[b] + s->queries == s->total;
    return plain;
}

static void fill_addend(const sdx_run *run, const sizes *s, const int64_t *past, sdx_attention_job *job,
                        char **workspace)
{
    job->causal = is_plain(run, s, past);
    if (job->causal) return;
    addend_task t = {.run = run, .s = s, .past = past, .heads = 1};
    if (sdx_run_has_in(run, BIAS)) {
        const sdx_tensor *bias = &run->in[BIAS];
        int64_t one = s->queries * s->total;
        t.bias = floats(run, BIAS, workspace);
        t.heads = bias->dim[1];
        t.bias_head = bias->dim[1] == 1 ? 0 : one;
        t.bias_batch = bias->dim[0] == 1 ? 0 : bias->dim[1] * one;
    }
    int64_t rows = s->batch * t.heads * s->queries;
    t.to = sdx_workspace_take(workspace, (size_t)(rows * s->total) * sizeof(float));
    sdx_parallel_for(run->threads, rows, sdx_row_grain(s->total), addend_rows, &t);
    job->bias = t.to;
    job->bias_head = t.heads == 1 ? 0 : s->queries * s->total;
    job->bias_batch = t.heads * s->queries * s->total;
}

/* Hidden keys are 0 in the scores that are handed out, as in ONNX Runtime. */
static void show_zeros(const sdx_attention_job *job)
{
    int64_t n = job->batch * job->heads * job->queries * job->keys;
    for (int64_t i = 0; i < n; i++)
        if (job->stages.scores[i] == -INFINITY) job->stages.scores[i] = 0;
}

static sdx_status run_group_query(sdx_run *run)
{
    const group_query *state = run->state;
    sdx_shape q = sdx_run_shape(run, QUERY), past_shape = {.rank = 0};
    bool has_past = sdx_run_has_in(run, PAST_KEY), has_scores = sdx_run_has_out(run, SCORES) && state->scores;
    if (has_past) past_shape = sdx_run_shape(run, PAST_KEY);
    if (sdx_tensor_count(&run->in[TOTAL]) != 1)
        return sdx_fail(run->err, SDX_ERR_USAGE, "total_sequence_length must be one number");
    sizes s = make_sizes(state, &q, !sdx_run_has_in(run, KEY), has_past ? &past_shape : NULL,
                         sdx_tensor_get_i64(&run->in[TOTAL], 0));
    char *workspace = run->workspace;
    int64_t *past = sdx_workspace_take(&workspace, (size_t)s.batch * sizeof *past);
    TRY(read_lengths(run, &s, past));
    sdx_attention_job job = {.kernels = run->kernels,
                             .threads = run->threads,
                             .batch = s.batch,
                             .heads = state->heads,
                             .key_heads = state->key_heads,
                             .queries = s.queries,
                             .keys = s.total,
                             .head_dim = s.dim,
                             .value_dim = s.dim};
    job.scale = state->scale != 0 ? state->scale : 1.0f / sqrtf((float)s.dim);
    place_heads(run, &s, &job, &workspace);
    TRY(apply_rotary(run, &s, past, &job, &workspace));
    sdx_cache cache = make_cache(state, &s, past);
    sdx_cache_join(run, &cache, PAST_KEY, PRESENT_KEY, &job.k, &workspace);
    sdx_cache_join(run, &cache, PAST_VALUE, PRESENT_VALUE, &job.v, &workspace);
    fill_addend(run, &s, past, &job, &workspace);
    job.stages = (sdx_attention_stages){.softcap = state->softcap, .sink = floats(run, SINK, &workspace)};
    job.stages.smooth = state->smooth || job.stages.sink;
    job.out = sdx_floats_for(&run->out[OUT], &workspace);
    if (has_scores) {
        job.stages.out = state->scores == 1 ? SDX_STAGE_MASKED : SDX_STAGE_WEIGHTS;
        job.stages.scores = sdx_floats_for(&run->out[SCORES], &workspace);
    }
    job.workspace = workspace;
    sdx_attention_run(&job);
    if (has_scores && state->scores == 1) show_zeros(&job);
    if (run->out[OUT].dtype != SDX_F32)
        sdx_floats_store(run->out[OUT].dtype, job.out, sdx_tensor_count(&run->out[OUT]), run->out[OUT].data, 0);
    if (has_scores && run->out[SCORES].dtype != SDX_F32)
        sdx_floats_store(run->out[SCORES].dtype, job.stages.scores, sdx_tensor_count(&run->out[SCORES]),
                         run->out[SCORES].data, 0);
    return SDX_OK;
}

#define MS "com.microsoft"
static const sdx_op_def rows[] = {
    {MS, "GroupQueryAttention", 1, 0, 1, 16, 3, 4, 0, infer_group_query, prepare_group_query, plan_group_query,
     run_group_query},
};

SDX_OP_TABLE(group_query);
