/* attention_onnx.c: Attention of ONNX (opsets 23 to 25).
 *
 *     Y = softmax(cap(scale * Q K^T) + mask) V
 * Q, K and V are [B,S,N*H] with head counts as attributes, or [B,N,S,H]; query heads share key heads in groups.
 * What hides keys (a bool or float mask, the causal diagonal, a window, the padding of a cache) becomes one
 * addend of the scores, [1 or B, 1 or N, S, T], unless it is nothing but the diagonal that the kernel knows.
 * Query i stands at position p = offset + i, where offset is how many keys came before: the past's length, or
 * nonpad_kv_seqlen - S, or 0.
 *
 * float16 and bfloat16 are widened, and rounded once at the end.
 *
 * Workspace: [Q] [K] [V] [present K] [present V] [addend] [Y] [scores] as far as they are needed, and the
 * heads' own.
 */
#include <math.h>

#include "attention.h"
#include "contents.h"

enum { Q, K, V, MASK, PAST_KEY, PAST_VALUE, VALID };
enum { Y, PRESENT_KEY, PRESENT_VALUE, SCORES };

typedef struct attention {
    int64_t heads, key_heads; /* attributes; 0 when absent */
    int64_t left, right;      /* window; -1: open */
    bool causal, pads_mask;   /* a mask may end early: opset 24 */
    float scale, softcap;
    sdx_attention_stage stage;
} attention;

typedef struct sizes {
    int64_t batch, heads, key_heads, queries, fresh, past, keys, head_dim, value_dim;
    bool split; /* [B,N,S,H] */
} sizes;

/* ---- infer ----------------------------------------------------------------------------------------------- */

typedef struct dims { /* of Q, K or V */
    sdx_dim heads, length, size;
} dims;

static sdx_status read_dims(const sdx_infer *infer, int i, const char *name, int64_t heads, dims *out)
{
    const sdx_type *t = &infer->in[i];
    *out = (dims){SDX_DIM_UNKNOWN, SDX_DIM_UNKNOWN, SDX_DIM_UNKNOWN};
    TRY(sdx_want_rank(infer, i, name, 3, 4));
    if (infer->in[Q].shape.rank >= 0 && t->shape.rank >= 0)
        TRY(sdx_want_rank(infer, i, name, infer->in[Q].shape.rank, infer->in[Q].shape.rank));
    TRY(sdx_want_dim(infer, i, name, 0, sdx_type_dim(&infer->in[Q], 0)));
    if (t->shape.rank < 0) return SDX_OK;
    if (t->shape.rank == 4) {
        *out = (dims){t->shape.dim[1], t->shape.dim[2], t->shape.dim[3]};
        return SDX_OK;
    }
    if (!sdx_heads_fit(heads))
        return sdx_fail(infer->err, SDX_ERR_FILE,
                        "q_num_heads and kv_num_heads are needed for inputs of three dimensions");
    sdx_dim hidden = t->shape.dim[2];
    if (hidden >= 0 && hidden % heads)
        return sdx_fail(infer->err, SDX_ERR_USAGE, "%lld heads do not divide the %lld columns of %s",
                        (long long)heads, (long long)hidden, name);
    *out = (dims){heads, t->shape.dim[1], hidden >= 0 ? hidden / heads : SDX_DIM_UNKNOWN};
    return SDX_OK;
}

static sdx_status check_attributes(const sdx_infer *infer)
{
    const sdx_node *n = infer->node;
    int64_t mode = sdx_node_int(n, "qk_matmul_output_mode", 0);
    if (mode < 0 || mode > 3)
        return sdx_fail(infer->err, SDX_ERR_FILE, "qk_matmul_output_mode is %lld", (long long)mode);
    if (sdx_node_int(n, "left_window_size", -1) < -1 || sdx_node_int(n, "right_window_size", -1) < -1)
        return sdx_fail(infer->err, SDX_ERR_FILE, "a window size is below -1");
    if (sdx_infer_has(infer, PAST_KEY) != sdx_infer_has(infer, PAST_VALUE))
        return sdx_fail(infer->err, SDX_ERR_FILE, "past_key and past_value must come together");
    if (sdx_infer_has(infer, PAST_KEY) && sdx_infer_has(infer, VALID))
        return sdx_fail(infer->err, SDX_ERR_FILE, "nonpad_kv_seqlen does not go with past_key");
    return SDX_OK;
}

static sdx_status check_types(const sdx_infer *infer)
{
    const unsigned floats = SDX_SET(SDX_F32) | SDX_SET(SDX_F16) | SDX_SET(SDX_BF16);
    TRY(sdx_want_dtype(infer, Q, "Q", floats));
    TRY(sdx_want_dtype(infer, V, "V", floats));
    TRY(sdx_want_same_dtype(infer, K, "K", Q, "Q"));
    TRY(sdx_want_dtype(infer, MASK, "attn_mask", SDX_SET_FLOAT | SDX_SET(SDX_BOOL)));
    TRY(sdx_want_same_dtype(infer, PAST_KEY, "past_key", K, "K"));
    TRY(sdx_want_same_dtype(infer, PAST_VALUE, "past_value", V, "V"));
    return sdx_want_dtype(infer, VALID, "nonpad_kv_seqlen", SDX_SET(SDX_I64));
}

static sdx_status check_past(const sdx_infer *infer, int i, const char *name, const dims *d)
{
    if (!sdx_infer_has(infer, i)) return SDX_OK;
    TRY(sdx_want_rank(infer, i, name, 4, 4));
    TRY(sdx_want_dim(infer, i, name, 0, sdx_type_dim(&infer->in[Q], 0)));
    TRY(sdx_want_dim(infer, i, name, 1, d->heads));
    TRY(sdx_want_dim(infer, i, name, 2, sdx_type_dim(&infer->in[PAST_KEY], 2)));
    return sdx_want_dim(infer, i, name, 3, d->size);
}

/* The mask broadcasts to [B,N,S,T]; in opset 24 its last dim may be shorter. */
static sdx_status check_mask(const sdx_infer *infer, sdx_dim heads, sdx_dim queries, sdx_dim keys)
{
    const sdx_shape *m = &sdx_infer_in(infer, MASK)->shape;
    const sdx_dim full[4] = {sdx_type_dim(&infer->in[Q], 0), heads, queries, keys};
    if (!sdx_infer_has(infer, MASK)) return SDX_OK;
    TRY(sdx_want_rank(infer, MASK, "attn_mask", 1, 4));
    for (int i = 0; i < m->rank; i++) {
        sdx_dim have = m->dim[i], want = full[4 - m->rank + i];
        bool last = i == m->rank - 1 && infer->node->def->since >= 24;
        if (have < 0 || want < 0 || have == want || (last ? have < want : have == 1)) continue;
        return sdx_want_dim(infer, MASK, "attn_mask", i, want);
    }
    return SDX_OK;
}

static sdx_status check_agreement(const sdx_infer *infer, const dims *q, const dims *k, const dims *v)
{
    if (q->size >= 0 && k->size >= 0 && q->size != k->size)
        return sdx_fail(infer->err, SDX_ERR_USAGE, "heads of Q have %lld numbers, those of K %lld",
                        (long long)q->size, (long long)k->size);
    if (k->length >= 0 && v->length >= 0 && k->length != v->length)
        return sdx_fail(infer->err, SDX_ERR_USAGE, "there are %lld keys but %lld values", (long long)k->length,
                        (long long)v->length);
    if (k->heads >= 0 && v->heads >= 0 && k->heads != v->heads)
        return sdx_fail(infer->err, SDX_ERR_USAGE, "K has %lld heads, V %lld", (long long)k->heads,
                        (long long)v->heads);
    if (q->heads >= 0 && k->heads >= 0 && (k->heads == 0 ? q->heads != 0 : q->heads % k->heads != 0))
        return sdx_fail(infer->err, SDX_ERR_USAGE, "%lld query heads cannot share %lld key heads",
                        (long long)q->heads, (long long)k->heads);
    return SDX_OK;
}

static sdx_dim times(sdx_dim a, sdx_dim b)
{
    return a >= 0 && b >= 0 ? a * b : SDX_DIM_UNKNOWN;
}

static sdx_status infer_attention(sdx_infer *infer)
{
    int64_t heads = sdx_node_int(infer->node, "q_num_heads", 0),
            key_heads = sdx_node_int(infer->node, "kv_num_heads", 0);
    dims q, k, v;
    TRY(check_attributes(infer));
    TRY(check_types(infer));
    TRY(read_dims(infer, Q, "Q", heads, &q));
    TRY(read_dims(infer, K, "K", key_heads, &k));
    TRY(read_dims(infer, V, "V", key_heads, &v));
    TRY(check_agreement(infer, &q, &k, &v));
    TRY(check_past(infer, PAST_KEY, "past_key", &k));
    TRY(check_past(infer, PAST_VALUE, "past_value", &v));
    sdx_dim batch = sdx_type_dim(&infer->in[Q], 0), keys = k.length;
    if (sdx_infer_has(infer, PAST_KEY)) {
        sdx_element past = sdx_element_from_dim(sdx_type_dim(&infer->in[PAST_KEY], 2));
        keys = sdx_element_to_dim(sdx_model_arith(infer->model, '+', past, sdx_element_from_dim(keys)));
    }
    TRY(check_mask(infer, q.heads, q.length, keys));
    if (sdx_infer_has(infer, VALID)) {
        TRY(sdx_want_rank(infer, VALID, "nonpad_kv_seqlen", 1, 1));
        TRY(sdx_want_dim(infer, VALID, "nonpad_kv_seqlen", 0, batch));
    }
    sdx_shape y = {.rank = 4, .dim = {batch, q.heads, q.length, v.size}};
    if (infer->in[Q].shape.rank == 3)
        y = (sdx_shape){.rank = 3, .dim = {batch, q.length, times(q.heads, v.size)}};
    if (infer->in[Q].shape.rank < 0) y = SDX_SHAPE_UNKNOWN;
    sdx_shape key = {.rank = 4, .dim = {batch, k.heads, keys, k.size}},
              value = {.rank = 4, .dim = {batch, v.heads, keys, v.size}},
              scores = {.rank = 4, .dim = {batch, q.heads, q.length, keys}};
    sdx_infer_set(infer, Y, infer->in[Q].dtype, &y);
    sdx_infer_set(infer, PRESENT_KEY, infer->in[K].dtype, &key);
    sdx_infer_set(infer, PRESENT_VALUE, infer->in[V].dtype, &value);
    sdx_infer_set(infer, SCORES, infer->in[Q].dtype, &scores);
    return SDX_OK;
}

/* ---- prepare and plan ------------------------------------------------------------------------------------ */

static sdx_status prepare_attention(sdx_prepare *p)
{
    attention *state;
    PREPARE_STATE(p, state);
    const sdx_node *n = p->node;
    *state = (attention){.heads = sdx_node_int(n, "q_num_heads", 0),
                         .key_heads = sdx_node_int(n, "kv_num_heads", 0),
                         .left = sdx_node_int(n, "left_window_size", -1),
                         .right = sdx_node_int(n, "right_window_size", -1),
                         .causal = sdx_node_int(n, "is_causal", 0) != 0,
                         .pads_mask = n->def->since >= 24,
                         .scale = sdx_node_float(n, "scale", NAN),
                         .softcap = sdx_node_float(n, "softcap", 0.0f)};
    state->stage = SDX_STAGE_SCORES + (sdx_attention_stage)sdx_node_int(n, "qk_matmul_output_mode", 0);
    return SDX_OK;
}

/* past NULL: none. */
static sizes make_sizes(const attention *state, const sdx_shape *q, const sdx_shape *k, const sdx_shape *v,
                        const sdx_shape *past)
{
    sizes s = {.batch = q->dim[0], .split = q->rank == 4};
    s.heads = s.split ? q->dim[1] : state->heads;
    s.key_heads = s.split ? k->dim[1] : state->key_heads;
    s.queries = q->dim[s.split ? 2 : 1];
    s.fresh = k->dim[s.split ? 2 : 1];
    s.head_dim = s.split ? q->dim[3] : q->dim[2] / s.heads;
    s.value_dim = s.split ? v->dim[3] : v->dim[2] / s.key_heads;
    s.past = past ? past->dim[2] : 0;
    s.keys = s.past + s.fresh;
    return s;
}

static sdx_cache make_cache(const sizes *s, int64_t dim)
{
    return (sdx_cache){.batch = s->batch,
                       .heads = s->key_heads,
                       .dim = dim,
                       .past = s->past,
                       .past_room = s->past,
                       .fresh = s->fresh,
                       .room = s->keys};
}

typedef struct addend { /* the shape of what is added to the scores: [batch, heads, queries, keys] */
    bool needed;
    int64_t batch, heads;
} addend;

static addend plan_addend(const attention *state, const sizes *s, const sdx_shape *mask, bool has_valid)
{
    bool window = state->left >= 0 || state->right >= 0;
    bool diagonal = state->causal && s->past != s->keys - s->queries; /* not the kernel's */
    addend a = {mask || has_valid || window || diagonal, has_valid ? s->batch : 1, 1};
    if (mask && mask->rank == 4 && mask->dim[0] != 1) a.batch = s->batch;
    if (mask && mask->rank >= 3 && mask->dim[mask->rank - 3] != 1) a.heads = s->heads;
    return a;
}

static bool has_in(const sdx_plan_step *step, int i)
{
    return i < step->n_in && step->in[i].dtype != SDX_UNDEFINED;
}

static sdx_status plan_attention(sdx_plan_step *step)
{
    const attention *state = step->state;
    sizes s = make_sizes(state, &step->in[Q].shape, &step->in[K].shape, &step->in[V].shape,
                         has_in(step, PAST_KEY) ? &step->in[PAST_KEY].shape : NULL);
    addend a = plan_addend(state, &s, has_in(step, MASK) ? &step->in[MASK].shape : NULL, has_in(step, VALID));
    sdx_cache keys = make_cache(&s, s.head_dim), values = make_cache(&s, s.value_dim);
    size_t *total = &step->workspace;
    bool has_scores = step->n_out > SCORES;
    size_t heads =
        (has_scores || state->softcap != 0 ? sdx_attention_stages_workspace : sdx_attention_workspace)(
            step->kernels, step->threads, s.queries, s.keys, s.head_dim, s.value_dim);
    bool ok = sdx_floats_plan(&step->in[Q], total) && sdx_floats_plan(&step->in[K], total) &&
              sdx_floats_plan(&step->in[V], total) &&
              sdx_cache_plan(step, &keys, PAST_KEY, PRESENT_KEY, total) &&
              sdx_cache_plan(step, &values, PAST_VALUE, PRESENT_VALUE, total) &&
              (!a.needed || sdx_workspace_add(total, (size_t)(a.batch * a.heads),
                                              (size_t)(s.queries * (s.keys + 1)) * sizeof(float))) &&
              sdx_floats_plan(&step->out[Y], total) &&
              (!has_scores || sdx_floats_plan(&step->out[SCORES], total)) && sdx_workspace_add(total, 1, heads);
    return ok ? SDX_OK : sdx_workspace_fail(step->err);
}

/* ---- the addend ------------------------------------------------------------------------------------------ */

typedef struct addend_task {
    const sdx_kernels *kernels;
    const attention *state;
    const sizes *s;
    addend shape;
    const sdx_tensor *mask; /* or NULL */
    int64_t stride[4];      /* of the mask, elements: 0 where it repeats */
    int64_t width;          /* keys that the mask speaks of */
    const int64_t *valid;   /* [batch] or NULL */
    float *to;
} addend_task;

/* Row of the mask for (b, h, i) as an addend; keys beyond its end are hidden. */
static void mask_row(const addend_task *t, int64_t at, float *row)
{
    int64_t step = t->stride[3], n = t->width;
    const uint8_t *allowed = (const uint8_t *)t->mask->data + at;
    if (t->mask->dtype == SDX_BOOL)
        for (int64_t j = 0; j < n; j++) row[j] = allowed[j * step] ? 0.0f : -INFINITY;
    else if (step)
        sdx_floats_load(t->kernels, t->mask->dtype, t->mask->data, at, n, row);
    else
        for (int64_t j = 0; j < n; j++)
            sdx_floats_load(t->kernels, t->mask->dtype, t->mask->data, at, 1, row + j);
    for (int64_t j = n; j < t->s->keys; j++) row[j] = -INFINITY;
}

static void addend_rows(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const addend_task *t = context;
    const sizes *s = t->s;
    for (int64_t r = begin; r < end; r++) {
        int64_t i = r % s->queries, h = r / s->queries % t->shape.heads, b = r / s->queries / t->shape.heads;
        float *row = t->to + r * s->keys;
        if (t->mask)
            mask_row(t, b * t->stride[0] + h * t->stride[1] + i * t->stride[2], row);
        else
            for (int64_t j = 0; j < s->keys; j++) row[j] = 0;
        int64_t position = i + (t->valid ? t->valid[b] - s->queries : s->past), first = 0, last = s->keys - 1;
        if (t->state->left >= 0 && position > t->state->left) first = position - t->state->left;
        if (t->state->right >= 0 && position < last - t->state->right) last = position + t->state->right;
        if (t->state->causal && last > position) last = position;
        if (t->valid && last >= t->valid[b]) last = t->valid[b] - 1;
        for (int64_t j = 0; j < first && j < s->keys; j++) row[j] = -INFINITY;
        for (int64_t j = last < -1 ? 0 : last + 1; j < s->keys; j++) row[j] = -INFINITY;
    }
}

static sdx_status check_valid(const sdx_run *run, const sizes *s, const int64_t **valid)
{
    *valid = NULL;
    if (!sdx_run_has_in(run, VALID)) return SDX_OK;
    *valid = run->in[VALID].data;
    for (int64_t b = 0; b < s->batch; b++)
        if ((*valid)[b] < 0 || (*valid)[b] > s->keys)
            return sdx_fail(run->err, SDX_ERR_USAGE, "nonpad_kv_seqlen says %lld of %lld keys",
                            (long long)(*valid)[b], (long long)s->keys);
    return SDX_OK;
}

static sdx_status fill_addend(const sdx_run *run, const sizes *s, sdx_attention_job *job, char **workspace)
{
    const attention *state = run->state;
    bool has_mask = sdx_run_has_in(run, MASK);
    sdx_shape mask = has_mask ? sdx_run_shape(run, MASK) : (sdx_shape){.rank = 0};
    addend_task t = {.kernels = run->kernels, .state = state, .s = s};
    t.shape = plan_addend(state, s, has_mask ? &mask : NULL, sdx_run_has_in(run, VALID));
    TRY(check_valid(run, s, &t.valid));
    job->causal = state->causal && !t.shape.needed;
    if (!t.shape.needed) return SDX_OK;
    int64_t rows = t.shape.batch * t.shape.heads * s->queries;
    t.to = sdx_workspace_take(workspace, (size_t)(t.shape.batch * t.shape.heads) *
                                             (size_t)(s->queries * (s->keys + 1)) * sizeof(float));
    if (has_mask) {
        t.mask = &run->in[MASK];
        t.width = state->pads_mask ? mask.dim[mask.rank - 1] : s->keys;
        int64_t stride = 1;
        for (int i = mask.rank - 1; i >= 0; i--) {
            bool last = i == mask.rank - 1, repeats = mask.dim[i] == 1 && !(last && state->pads_mask);
            t.stride[4 - mask.rank + i] = repeats ? 0 : stride;
            stride *= mask.dim[i];
        }
    }
    sdx_parallel_for(run->threads, rows, sdx_row_grain(s->keys), addend_rows, &t);
    job->bias = t.to;
    job->bias_head = t.shape.heads == 1 ? 0 : s->queries * s->keys;
    job->bias_batch = t.shape.batch == 1 ? 0 : t.shape.heads * s->queries * s->keys;
    return SDX_OK;
}

/* ---- run ------------------------------------------------------------------------------------------------- */

static sdx_heads heads_in(const sdx_run *run, int i, const sizes *s, int64_t heads, int64_t length, int64_t dim,
                          char **workspace)
{
    const float *data = sdx_floats_of(run->kernels, &run->in[i], workspace);
    return s->split ? sdx_heads_of(data, heads, length, dim) : sdx_heads_of_rows(data, heads, length, dim);
}

static void store(const sdx_tensor *to, const float *x)
{
    if (to->dtype != SDX_F32) sdx_floats_store(to->dtype, x, sdx_tensor_count(to), to->data, 0);
}

static sdx_status run_attention(sdx_run *run)
{
    const attention *state = run->state;
    sdx_shape q = sdx_run_shape(run, Q), k = sdx_run_shape(run, K), v = sdx_run_shape(run, V), past;
    bool has_past = sdx_run_has_in(run, PAST_KEY), has_scores = sdx_run_has_out(run, SCORES);
    if (has_past) past = sdx_run_shape(run, PAST_KEY);
    sizes s = make_sizes(state, &q, &k, &v, has_past ? &past : NULL);
    sdx_attention_job job = {.kernels = run->kernels,
                             .threads = run->threads,
                             .batch = s.batch,
                             .heads = s.heads,
                             .key_heads = s.key_heads,
                             .queries = s.queries,
                             .keys = s.keys,
                             .head_dim = s.head_dim,
                             .value_dim = s.value_dim,
                             .out_split = s.split,
                             .stages = {.softcap = state->softcap}};
    char *workspace = run->workspace;
    job.scale = isnan(state->scale) ? 1.0f / sqrtf((float)s.head_dim) : state->scale;
    job.q = heads_in(run, Q, &s, s.heads, s.queries, s.head_dim, &workspace);
    job.k = heads_in(run, K, &s, s.key_heads, s.fresh, s.head_dim, &workspace);
    job.v = heads_in(run, V, &s, s.key_heads, s.fresh, s.value_dim, &workspace);
    sdx_cache keys = make_cache(&s, s.head_dim), values = make_cache(&s, s.value_dim);
    sdx_cache_join(run, &keys, PAST_KEY, PRESENT_KEY, &job.k, &workspace);
    sdx_cache_join(run, &values, PAST_VALUE, PRESENT_VALUE, &job.v, &workspace);
    TRY(fill_addend(run, &s, &job, &workspace));
    job.out = sdx_floats_for(&run->out[Y], &workspace);
    if (has_scores) {
        job.stages.out = state->stage;
        job.stages.scores = sdx_floats_for(&run->out[SCORES], &workspace);
    }
    job.workspace = workspace;
    sdx_attention_run(&job);
    store(&run->out[Y], job.out);
    if (has_scores) store(&run->out[SCORES], job.stages.scores);
    return SDX_OK;
}

static const sdx_op_def rows[] = {
    {"", "Attention", 23, 23, 3, 6, 1, 4, 0, infer_attention, prepare_attention, plan_attention, run_attention},
    {"", "Attention", 24, 0, 3, 7, 1, 4, 0, infer_attention, prepare_attention, plan_attention, run_attention},
};

SDX_OP_TABLE(attention_onnx);
