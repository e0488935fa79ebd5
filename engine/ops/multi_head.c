/* multi_head.c: com.microsoft MultiHeadAttention: attention over Q, K and V that were projected elsewhere.
 *
 * query [B,S,N*H]. Key and value are [B,L,N*H] and [B,L,N*Hv], or already split into heads as [B,N,L,H] (cross
 * attention: their bias has been added, and there is no past). With a past, keys and values are appended to it
 * in the present outputs and read from there; with past_sequence_length the past is a buffer of which so many
 * rows are valid, and present has its size. The packed 5-D forms are refused, as ONNX Runtime's CPU provider
 * does.
 *
 * sardonyx PackedMultiHeadAttention has one more input, spans: see attention.c.
 *
 * DecoderMaskedMultiHeadAttention is the same operator for one token at a time, with other input numbers. With
 * cache_indirection the past of a row is spread over the rows of its beams, and is gathered first.
 *
 * Workspace: [Q + bias] [K + bias] [V + bias] [mask addend] [present K and V, when not outputs] [K and V of the
 * beams] and the heads' own.
 */
#include <math.h>
#include <string.h>

#include "attention.h"

typedef struct places { /* input numbers where the two operators differ */
    int bias, mask, attention_bias, past_key, past_value, past_length, cache, spans;
} places;

enum { QUERY, KEY, VALUE };
static const places places_multi_head = {3, 4, 5, 6, 7, 8, 9, 10}, places_decoder = {10, 3, 4, 5, 6, 7, 9, 11};

typedef struct multi_head {
    const places *at;
    bool causal;
    int64_t heads;
    float scale, filter;
} multi_head;

typedef struct sizes {
    int64_t batch, heads, queries, fresh, past, room, keys, head_dim, value_dim;
    bool split; /* keys and values come as [B,N,L,H] */
} sizes;

/* ---- infer ----------------------------------------------------------------------------------------------- */

static sdx_status check_supported(const sdx_infer *infer, const places *at)
{
    TRY(sdx_want_present(infer, KEY, "key"));
    TRY(sdx_want_present(infer, VALUE, "value"));
    TRY(sdx_want_dtype(infer, at->cache, "cache_indirection", SDX_SET(SDX_I32)));
    TRY(sdx_want_rank(infer, at->cache, "cache_indirection", 3, 3));
    if (sdx_infer_has(infer, at->past_key) != sdx_infer_has(infer, at->past_value))
        return sdx_fail(infer->err, SDX_ERR_FILE, "past_key and past_value must come together");
    if (sdx_infer_has(infer, at->past_length) && !sdx_infer_has(infer, at->past_key) &&
        infer->in[KEY].shape.rank == 3) /* keys of another text: decoders pass the length all the same */
        return sdx_fail(infer->err, SDX_ERR_FILE, "past_sequence_length comes without past_key");
    if (!sdx_heads_fit(sdx_node_int(infer->node, "num_heads", 0)))
        return sdx_fail(infer->err, SDX_ERR_FILE, "num_heads is missing or makes no sense");
    const int floats[] = {QUERY, KEY, VALUE, at->bias, at->past_key, at->past_value};
    for (size_t i = 0; i < sizeof floats / sizeof *floats; i++)
        TRY(sdx_want_dtype(infer, floats[i], "an input", SDX_SET(SDX_F32)));
    TRY(sdx_want_dtype(infer, at->past_length, "past_sequence_length", SDX_SET(SDX_I32)));
    return sdx_want_dtype(infer, at->mask, "the mask", SDX_SET(SDX_I32));
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

static sdx_status check_past(const sdx_infer *infer, int i, int past_key, const char *name, int64_t heads,
                             sdx_dim dim)
{
    if (!sdx_infer_has(infer, i)) return SDX_OK;
    TRY(sdx_want_rank(infer, i, name, 4, 4));
    TRY(sdx_want_dim(infer, i, name, 0, sdx_type_dim(&infer->in[QUERY], 0)));
    TRY(sdx_want_dim(infer, i, name, 1, heads));
    TRY(sdx_want_dim(infer, i, name, 2, sdx_type_dim(&infer->in[past_key], 2)));
    return sdx_want_dim(infer, i, name, 3, dim);
}

static sdx_status check_bias(const sdx_infer *infer, int bias, int64_t heads, sdx_dim dim, sdx_dim value_dim)
{
    if (!sdx_infer_has(infer, bias)) return SDX_OK;
    TRY(sdx_want_rank(infer, bias, "the bias", 1, 1));
    return dim < 0 || value_dim < 0 ? SDX_OK
                                    : sdx_want_dim(infer, bias, "the bias", 0, heads * (2 * dim + value_dim));
}

/* All keys that there will be, and the rows of present: the same but in a buffer. */
static sdx_status count_keys(const sdx_infer *infer, const places *at, sdx_dim fresh, sdx_dim *keys,
                             sdx_dim *room)
{
    *keys = *room = fresh;
    if (!sdx_infer_has(infer, at->past_key)) return SDX_OK;
    sdx_dim past = sdx_type_dim(&infer->in[at->past_key], 2);
    if (!sdx_infer_has(infer, at->past_length)) {
        *keys = *room = sdx_element_to_dim(
            sdx_model_arith(infer->model, '+', sdx_element_from_dim(past), sdx_element_from_dim(fresh)));
        return SDX_OK;
    }
    *room = past;
    int count;
    const sdx_element *valid = sdx_type_contents(&infer->in[at->past_length], &count);
    *keys = SDX_DIM_UNKNOWN;
    if (valid && count == 1)
        *keys = sdx_element_to_dim(sdx_model_arith(infer->model, '+', *valid, sdx_element_from_dim(fresh)));
    return SDX_OK;
}

static sdx_status infer_places(sdx_infer *infer, const places *at)
{
    TRY(check_supported(infer, at));
    bool plain = !sdx_infer_has(infer, at->past_key) && !sdx_infer_has(infer, at->attention_bias) && infer->n_out == 1;
    TRY(sdx_attention_check_spans(infer, at->spans, plain));
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
    if (key_rank == 4 && sdx_infer_has(infer, at->past_key))
        return sdx_fail(infer->err, SDX_ERR_UNSUPPORTED, "keys of shape [B,N,L,H] do not go with a past");
    TRY(check_past(infer, at->past_key, at->past_key, "past_key", heads, dim));
    TRY(check_past(infer, at->past_value, at->past_key, "past_value", heads, value_dim));
    TRY(check_bias(infer, at->bias, heads, dim, value_dim));
    sdx_dim batch = sdx_type_dim(&infer->in[QUERY], 0), keys, room;
    TRY(count_keys(infer, at, length, &keys, &room));
    if (sdx_infer_has(infer, at->mask) && keys != SDX_DIM_UNKNOWN)
        TRY(sdx_mask_check(&infer->in[at->mask].shape, batch, queries, keys, infer->err));
    TRY(sdx_attention_check_bias(infer, at->attention_bias, batch, heads, queries, keys));
    sdx_shape out = {.rank = 3, .dim = {batch, queries, value_dim >= 0 ? value_dim * heads : SDX_DIM_UNKNOWN}};
    if (key_rank == 3 && value_dim < 0) out.dim[2] = sdx_type_dim(&infer->in[VALUE], 2);
    sdx_shape key = {.rank = 4, .dim = {batch, heads, room, dim}},
              value = {.rank = 4, .dim = {batch, heads, room, value_dim}},
              scores = {.rank = 4, .dim = {batch, heads, queries, keys}};
    sdx_infer_set(infer, 0, SDX_F32, &out);
    sdx_infer_set(infer, 1, SDX_F32, &key);
    sdx_infer_set(infer, 2, SDX_F32, &value);
    sdx_infer_set(infer, 3, SDX_F32, &scores);
    return SDX_OK;
}

static sdx_status infer_multi_head(sdx_infer *infer)
{
    return infer_places(infer, &places_multi_head);
}
static sdx_status infer_decoder(sdx_infer *infer)
{
    return infer_places(infer, &places_decoder);
}

/* ---- prepare and plan ------------------------------------------------------------------------------------ */

static sdx_status prepare(sdx_prepare *p, const places *at)
{
    multi_head *state;
    PREPARE_STATE(p, state);
    state->at = at;
    state->causal = sdx_node_int(p->node, "unidirectional", 0) != 0;
    state->heads = sdx_node_int(p->node, "num_heads", 1);
    state->scale = sdx_node_float(p->node, "scale", 0.0f);
    state->filter = sdx_node_float(p->node, "mask_filter_value", -10000.0f);
    return SDX_OK;
}

static sdx_status prepare_multi_head(sdx_prepare *p)
{
    return prepare(p, &places_multi_head);
}
static sdx_status prepare_decoder(sdx_prepare *p)
{
    return prepare(p, &places_decoder);
}

/* past NULL: none. A past that is a buffer counts as wholly valid until run reads how much of it is. */
static sizes make_sizes(int64_t heads, const sdx_shape *q, const sdx_shape *k, const sdx_shape *v,
                        const sdx_shape *past, bool is_buffer)
{
    sizes s = {.batch = q->dim[0],
               .heads = heads,
               .queries = q->dim[1],
               .head_dim = q->dim[2] / heads,
               .split = k->rank == 4};
    s.fresh = s.split ? k->dim[2] : k->dim[1];
    s.value_dim = s.split ? v->dim[3] : v->dim[2] / heads;
    s.past = past ? past->dim[2] : 0;
    s.room = s.keys = is_buffer ? s.past : s.past + s.fresh;
    return s;
}

static sdx_cache make_cache(const sizes *s, int64_t past_room, int64_t dim)
{
    return (sdx_cache){.batch = s->batch,
                       .heads = s->heads,
                       .dim = dim,
                       .past = s->past,
                       .past_room = past_room,
                       .fresh = s->fresh,
                       .room = s->room};
}

static bool has_in(const sdx_plan_step *step, int i)
{
    return i < step->n_in && step->in[i].dtype != SDX_UNDEFINED;
}

/* Whether cache_indirection says in whose rows the past lies: keys of another text have no beams. */
static bool has_beams(const multi_head *state, bool has_cache, const sizes *s)
{
    return state->at->cache >= 0 && has_cache && !s->split;
}

static sdx_status plan_multi_head(sdx_plan_step *step)
{
    const multi_head *state = step->state;
    const places *at = state->at;
    sizes s = make_sizes(state->heads, &step->in[QUERY].shape, &step->in[KEY].shape, &step->in[VALUE].shape,
                         has_in(step, at->past_key) ? &step->in[at->past_key].shape : NULL,
                         has_in(step, at->past_key) && has_in(step, at->past_length));
    size_t *total = &step->workspace, mask = 0;
    if (has_in(step, at->mask))
        mask = (size_t)(s.batch * (step->in[at->mask].shape.rank == 3 ? s.queries : 1) * s.keys);
    size_t bias = has_in(step, at->bias) ? (size_t)(s.batch * s.heads) : 0;
    sdx_cache keys = make_cache(&s, s.past, s.head_dim), values = make_cache(&s, s.past, s.value_dim);
    keys.is_buffer = values.is_buffer = has_in(step, at->past_length);
    size_t gathered = has_beams(state, has_in(step, at->cache), &s) ? (size_t)(s.batch * s.heads * s.keys) : 0;
    size_t heads = sdx_attention_workspace(step->kernels, step->threads, s.queries, s.keys, s.head_dim,
                                           s.value_dim),
           stages = sdx_attention_stages_workspace(step->kernels, step->threads, s.queries, s.keys, s.head_dim,
                                                   s.value_dim);
    bool ok = sdx_workspace_add(total, bias * (size_t)(s.queries * s.head_dim), sizeof(float)) &&
              sdx_workspace_add(total, bias * (size_t)(s.fresh * s.head_dim), sizeof(float)) &&
              sdx_workspace_add(total, bias * (size_t)(s.fresh * s.value_dim), sizeof(float)) &&
              sdx_workspace_add(total, mask, sizeof(float)) &&
              sdx_cache_plan(step, &keys, at->past_key, 1, total) &&
              sdx_cache_plan(step, &values, at->past_value, 2, total) &&
              sdx_workspace_add(total, gathered * (size_t)s.head_dim, sizeof(float)) &&
              sdx_workspace_add(total, gathered * (size_t)s.value_dim, sizeof(float)) &&
              sdx_workspace_add(total, 1, step->n_out > 3 && stages > heads ? stages : heads);
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
    int bias = ((const multi_head *)run->state)->at->bias;
    if (!sdx_run_has_in(run, bias)) return run->in[input].data;
    float *y = sdx_workspace_take(workspace, (size_t)(rows * n) * sizeof *y);
    bias_task t = {run->kernels, n, run->in[input].data, (const float *)run->in[bias].data + bias_begin, y};
    sdx_parallel_for(run->threads, rows, sdx_row_grain(n), add_bias_rows, &t);
    return y;
}

static void place_heads(const sdx_run *run, const sizes *s, sdx_attention_job *job, char **workspace)
{
    int64_t n = job->heads, qk = n * s->head_dim, v = n * s->value_dim;
    job->q = sdx_heads_of_rows(with_bias(run, QUERY, s->batch * s->queries, qk, 0, workspace), n, s->queries,
                               s->head_dim);
    if (s->split) {
        job->k = sdx_heads_of(run->in[KEY].data, n, s->fresh, s->head_dim);
        job->v = sdx_heads_of(run->in[VALUE].data, n, s->fresh, s->value_dim);
        return;
    }
    int64_t rows = s->batch * s->fresh;
    job->k = sdx_heads_of_rows(with_bias(run, KEY, rows, qk, qk, workspace), n, s->fresh, s->head_dim);
    job->v = sdx_heads_of_rows(with_bias(run, VALUE, rows, v, 2 * qk, workspace), n, s->fresh, s->value_dim);
}

/* How much of a buffer is valid, and that mask and bias agree. */
static sdx_status read_past(const sdx_run *run, const places *at, sizes *s)
{
    if (!sdx_run_has_in(run, at->past_length) || !sdx_run_has_in(run, at->past_key)) return SDX_OK;
    int64_t past = sdx_tensor_count(&run->in[at->past_length]) == 1
                       ? sdx_tensor_get_i64(&run->in[at->past_length], 0)
                       : -1;
    if (past < 0 || past > s->room - s->fresh)
        return sdx_fail(run->err, SDX_ERR_USAGE,
                        "past_sequence_length %lld and %lld new tokens do not fit a buffer of %lld",
                        (long long)past, (long long)s->fresh, (long long)s->room);
    s->past = past;
    s->keys = past + s->fresh;
    if (sdx_run_has_in(run, at->attention_bias) && run->in[at->attention_bias].dim[3] != s->keys)
        return sdx_fail(run->err, SDX_ERR_USAGE, "attention_bias is for %lld keys, but there are %lld",
                        (long long)run->in[at->attention_bias].dim[3], (long long)s->keys);
    if (!sdx_run_has_in(run, at->mask)) return SDX_OK;
    sdx_shape mask = sdx_tensor_shape(&run->in[at->mask]);
    return sdx_mask_check(&mask, s->batch, s->queries, s->keys, run->err);
}

static void place_mask(const sdx_run *run, const places *at, const sizes *s, sdx_attention_job *job,
                       float filter, char **workspace)
{
    if (!sdx_run_has_in(run, at->mask)) return;
    const sdx_tensor *mask = &run->in[at->mask];
    int64_t rows = mask->rank == 3 ? s->queries : 1;
    float *addend = sdx_workspace_take(workspace, (size_t)(s->batch * rows * s->keys) * sizeof *addend);
    job->mask_rows = sdx_mask_rows(mask, s->batch, s->queries, s->keys);
    sdx_mask_fill(mask, s->batch, job->mask_rows, s->keys, filter, addend);
    job->mask = job->mask_rows ? addend : NULL;
}

/* cache_indirection [texts, beams, room] has the beam of the text in whose rows a past token of a row lies. */
static sdx_status check_cache(const sdx_run *run, const sizes *s)
{
    const sdx_tensor *cache = &run->in[((const multi_head *)run->state)->at->cache];
    int64_t beams = cache->dim[1];
    if (beams < 1 || cache->dim[0] * beams != s->batch || cache->dim[2] < s->past)
        return sdx_fail(run->err, SDX_ERR_USAGE,
                        "cache_indirection [%lld,%lld,%lld] does not fit %lld rows and %lld past tokens",
                        (long long)cache->dim[0], (long long)beams, (long long)cache->dim[2], (long long)s->batch,
                        (long long)s->past);
    const int32_t *beam = cache->data;
    for (int64_t i = 0; i < s->batch * s->past; i++) {
        int64_t of = beam[i / s->past * cache->dim[2] + i % s->past];
        if (of < 0 || of >= beams)
            return sdx_fail(run->err, SDX_ERR_USAGE, "cache_indirection names beam %lld of %lld", (long long)of,
                            (long long)beams);
    }
    return SDX_OK;
}

/* The keys or values that every row sees, gathered from the rows where they lie. */
static void gather_beams(const sdx_run *run, const sizes *s, int64_t dim, sdx_heads *heads, char **workspace)
{
    const sdx_tensor *cache = &run->in[((const multi_head *)run->state)->at->cache];
    const int32_t *beam = cache->data;
    int64_t beams = cache->dim[1];
    float *to = sdx_workspace_take(workspace, (size_t)(s->batch * s->heads * s->keys * dim) * sizeof *to);
    for (int64_t b = 0, at = 0; b < s->batch; b++)
        for (int64_t h = 0; h < s->heads; h++)
            for (int64_t t = 0; t < s->keys; t++, at += dim) {
                int64_t row = t < s->past ? b / beams * beams + beam[b * cache->dim[2] + t] : b;
                const float *from = heads->data + row * heads->batch + h * heads->head + t * heads->row;
                memcpy(to + at, from, (size_t)dim * sizeof *to);
            }
    *heads = sdx_heads_of(to, s->heads, s->keys, dim);
}

static sdx_status run_multi_head(sdx_run *run)
{
    const multi_head *state = run->state;
    const places *at = state->at;
    sdx_shape q = sdx_tensor_shape(&run->in[QUERY]), k = sdx_tensor_shape(&run->in[KEY]);
    sdx_shape v = sdx_tensor_shape(&run->in[VALUE]), past = {.rank = 0};
    bool has_past = sdx_run_has_in(run, at->past_key);
    if (has_past) past = sdx_tensor_shape(&run->in[at->past_key]);
    sizes s =
        make_sizes(state->heads, &q, &k, &v, has_past ? &past : NULL, has_past && sdx_run_has_in(run, at->past_length));
    TRY(read_past(run, at, &s));
    sdx_attention_job job = {.kernels = run->kernels,
                             .threads = run->threads,
                             .batch = s.batch,
                             .heads = state->heads,
                             .key_heads = state->heads,
                             .queries = s.queries,
                             .keys = s.keys,
                             .head_dim = s.head_dim,
                             .value_dim = s.value_dim,
                             .causal = state->causal,
                             .out = run->out[0].data};
    job.scale = state->scale != 0 ? state->scale : 1.0f / sqrtf((float)s.head_dim);
    char *workspace = run->workspace;
    place_heads(run, &s, &job, &workspace);
    place_mask(run, at, &s, &job, state->filter, &workspace);
    int64_t past_room = has_past ? past.dim[2] : 0;
    sdx_cache keys = make_cache(&s, past_room, s.head_dim), values = make_cache(&s, past_room, s.value_dim);
    keys.is_buffer = values.is_buffer = sdx_run_has_in(run, at->past_length);
    sdx_cache_join(run, &keys, at->past_key, 1, &job.k, &workspace);
    sdx_cache_join(run, &values, at->past_value, 2, &job.v, &workspace);
    if (has_beams(state, sdx_run_has_in(run, at->cache), &s)) {
        TRY(check_cache(run, &s));
        gather_beams(run, &s, s.head_dim, &job.k, &workspace);
        gather_beams(run, &s, s.value_dim, &job.v, &workspace);
    }
    if (sdx_run_has_in(run, at->attention_bias)) sdx_attention_set_bias(&job, &run->in[at->attention_bias]);
    if (sdx_run_has_out(run, 3))
        job.stages = (sdx_attention_stages){.out = SDX_STAGE_MASKED, .scores = run->out[3].data};
    if (sdx_run_has_in(run, at->spans)) TRY(sdx_attention_set_spans(run, &run->in[at->spans], &job));
    job.workspace = workspace;
    sdx_attention_run(&job);
    sdx_attention_fill_blind(&job);
    return SDX_OK;
}

#define MS "com.microsoft"
static const sdx_op_def rows[] = {
    {MS, "MultiHeadAttention", 1, 0, 1, 10, 1, 4, SDX_OP_WIDE, infer_multi_head, prepare_multi_head, plan_multi_head,
     run_multi_head},
    {MS, "DecoderMaskedMultiHeadAttention", 1, 0, 1, 11, 1, 4, SDX_OP_WIDE, infer_decoder, prepare_decoder,
     plan_multi_head, run_multi_head},
    {"sardonyx", "PackedMultiHeadAttention", 1, 0, 3, 11, 1, 1, 0, infer_multi_head, prepare_multi_head,
     plan_multi_head, run_multi_head},
};

SDX_OP_TABLE(multi_head);
