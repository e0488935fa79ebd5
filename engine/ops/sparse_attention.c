/* sparse_attention.c: com.microsoft SparseAttention: causal attention in which a head sees only some blocks of keys
 * (Phi-3-small, arXiv:2404.14219), with keys and values in a buffer of a fixed number of rows.
 *
 * query [B,S,N*H], key and value [B,S,Nkv*H] (or all three side by side in query). block_row_indices [L, blocks+1] and
 * block_col_indices [L, nonzeros] list the blocks of keys that each block of queries sees, in one layout or in L, of
 * which head h has number h % L. key_total_sequence_lengths says where each sequence ends; when the longest, total, is
 * S this is the first prompt, otherwise the S new tokens stand behind length - S rows of the past.
 *
 * The blocks become an addend of the scores, [B, 1 or N, S, total].
 *
 * Workspace: lengths of the past, [Q turned] [K turned], the caches, the addend, and the heads' own.
 */
#include <math.h>

#include "attention.h"
#include "contents.h"

enum { QUERY, KEY, VALUE, PAST_KEY, PAST_VALUE, ROWS, COLUMNS, TOTAL, LENGTHS, COS, SIN };
enum { OUT, PRESENT_KEY, PRESENT_VALUE };

typedef struct sparse {
    int64_t heads, key_heads, block;
    float scale;
    bool rotary, interleaved;
} sparse;

typedef struct sizes {
    int64_t batch, queries, dim, room, total, layouts;
    bool packed;
} sizes;

/* ---- infer ----------------------------------------------------------------------------------------------- */

static sdx_status read_attributes(const sdx_node *n, sparse *s, sdx_error *err)
{
    *s = (sparse){.heads = sdx_node_int(n, "num_heads", 0),
                  .key_heads = sdx_node_int(n, "kv_num_heads", 0),
                  .block = sdx_node_int(n, "sparse_block_size", 0),
                  .scale = sdx_node_float(n, "scale", 0.0f),
                  .rotary = sdx_node_int(n, "do_rotary", 0) != 0,
                  .interleaved = sdx_node_int(n, "rotary_interleaved", 0) != 0};
    if (sdx_heads_fit(s->heads) && sdx_heads_fit(s->key_heads) && s->heads % s->key_heads == 0 && s->block > 0 &&
        s->block <= INT32_MAX)
        return SDX_OK;
    return sdx_fail(err, SDX_ERR_FILE, "num_heads %lld, kv_num_heads %lld and sparse_block_size %lld make no sense",
                    (long long)s->heads, (long long)s->key_heads, (long long)s->block);
}

static sdx_status check_types(const sdx_infer *infer)
{
    static const struct {
        int i, rank;
        const char *name;
    } in[] = {{QUERY, 3, "query"}, {KEY, 3, "key"}, {VALUE, 3, "value"}, {PAST_KEY, 4, "past_key"},
              {PAST_VALUE, 4, "past_value"}, {ROWS, 2, "block_row_indices"}, {COLUMNS, 2, "block_col_indices"},
              {TOTAL, -1, "total_sequence_length"}, {LENGTHS, 1, "key_total_sequence_lengths"}, {COS, 2, "cos_cache"},
              {SIN, 2, "sin_cache"}};
    for (size_t k = 0; k < sizeof in / sizeof *in; k++) {
        bool index = in[k].i >= ROWS && in[k].i <= LENGTHS;
        TRY(sdx_want_dtype(infer, in[k].i, in[k].name, SDX_SET(index ? SDX_I32 : SDX_F32)));
        if (in[k].rank > 0) TRY(sdx_want_rank(infer, in[k].i, in[k].name, in[k].rank, in[k].rank));
        if (in[k].i != KEY && in[k].i != VALUE && in[k].i < COS) TRY(sdx_want_present(infer, in[k].i, in[k].name));
    }
    if (sdx_infer_has(infer, KEY) != sdx_infer_has(infer, VALUE))
        return sdx_fail(infer->err, SDX_ERR_FILE, "key and value must come together");
    return SDX_OK;
}

static sdx_status read_head(const sdx_infer *infer, const sparse *s, sdx_dim *dim)
{
    sdx_dim columns = sdx_type_dim(&infer->in[QUERY], 2);
    int64_t parts = sdx_infer_has(infer, KEY) ? s->heads : s->heads + 2 * s->key_heads;
    *dim = columns >= 0 ? columns / parts : SDX_DIM_UNKNOWN;
    if (columns < 0 || columns % parts == 0) return SDX_OK;
    return sdx_fail(infer->err, SDX_ERR_USAGE, "%lld heads do not divide the %lld columns of query", (long long)parts,
                    (long long)columns);
}

static sdx_status check_layouts(const sdx_infer *infer, const sparse *s)
{
    sdx_dim layouts = sdx_type_dim(&infer->in[ROWS], 0);
    TRY(sdx_want_dim(infer, COLUMNS, "block_col_indices", 0, layouts));
    if (layouts < 0 || (layouts > 0 && s->heads % layouts == 0)) return SDX_OK;
    return sdx_fail(infer->err, SDX_ERR_USAGE, "%lld heads do not share %lld layouts evenly", (long long)s->heads,
                    (long long)layouts);
}

static sdx_status check_rotary(const sdx_infer *infer, const sparse *s, sdx_dim dim)
{
    if (!s->rotary) return SDX_OK;
    TRY(sdx_want_present(infer, COS, "cos_cache"));
    TRY(sdx_want_present(infer, SIN, "sin_cache"));
    sdx_dim half = sdx_type_dim(&infer->in[COS], 1);
    TRY(sdx_want_dim(infer, SIN, "sin_cache", 0, sdx_type_dim(&infer->in[COS], 0)));
    TRY(sdx_want_dim(infer, SIN, "sin_cache", 1, half));
    if (half < 0 || dim < 0 || 2 * half <= dim) return SDX_OK;
    return sdx_fail(infer->err, SDX_ERR_USAGE, "tables of %lld columns do not fit heads of %lld", (long long)half,
                    (long long)dim);
}

static sdx_status infer_sparse(sdx_infer *infer)
{
    sparse s;
    sdx_dim dim, batch = sdx_type_dim(&infer->in[QUERY], 0), queries = sdx_type_dim(&infer->in[QUERY], 1);
    TRY(read_attributes(infer->node, &s, infer->err));
    TRY(check_types(infer));
    TRY(read_head(infer, &s, &dim));
    TRY(check_rotary(infer, &s, dim));
    TRY(check_layouts(infer, &s));
    for (int i = KEY; i <= VALUE; i++) {
        const char *name = i == KEY ? "key" : "value", *past = i == KEY ? "past_key" : "past_value";
        TRY(sdx_want_dim(infer, i, name, 0, batch));
        TRY(sdx_want_dim(infer, i, name, 1, queries));
        if (dim >= 0) TRY(sdx_want_dim(infer, i, name, 2, s.key_heads * dim));
        TRY(sdx_want_dim(infer, i + 2, past, 0, batch));
        TRY(sdx_want_dim(infer, i + 2, past, 1, s.key_heads));
        TRY(sdx_want_dim(infer, i + 2, past, 2, sdx_type_dim(&infer->in[PAST_KEY], 2)));
        TRY(sdx_want_dim(infer, i + 2, past, 3, dim));
    }
    TRY(sdx_want_dim(infer, LENGTHS, "key_total_sequence_lengths", 0, batch));
    sdx_shape out = {.rank = 3, .dim = {batch, queries, dim >= 0 ? dim * s.heads : SDX_DIM_UNKNOWN}},
              present = {.rank = 4, .dim = {batch, s.key_heads, sdx_type_dim(&infer->in[PAST_KEY], 2), dim}};
    sdx_infer_set(infer, OUT, infer->in[QUERY].dtype, &out);
    sdx_infer_set(infer, PRESENT_KEY, infer->in[QUERY].dtype, &present);
    sdx_infer_set(infer, PRESENT_VALUE, infer->in[QUERY].dtype, &present);
    return SDX_OK;
}

/* ---- prepare and plan ------------------------------------------------------------------------------------ */

static sdx_status prepare_sparse(sdx_prepare *p)
{
    sparse *state;
    PREPARE_STATE(p, state);
    return read_attributes(p->node, state, p->err);
}

static sizes make_sizes(const sparse *s, const sdx_shape *q, const sdx_shape *past, const sdx_shape *rows, bool packed)
{
    return (sizes){.batch = q->dim[0],
                   .queries = q->dim[1],
                   .dim = past->dim[3],
                   .room = past->dim[2],
                   .layouts = rows->dim[0] == 1 ? 1 : s->heads, /* of the addend */
                   .packed = packed};
}

static sdx_cache make_cache(const sparse *state, const sizes *s, const int64_t *past)
{
    return (sdx_cache){.batch = s->batch,
                       .heads = state->key_heads,
                       .dim = s->dim,
                       .past_room = s->room,
                       .past_of = past,
                       .fresh = s->queries,
                       .room = s->room,
                       .is_buffer = true};
}

static sdx_status plan_sparse(sdx_plan_step *step)
{
    const sparse *state = step->state;
    sizes s = make_sizes(state, &step->in[QUERY].shape, &step->in[PAST_KEY].shape, &step->in[ROWS].shape,
                         step->in[KEY].dtype == SDX_UNDEFINED);
    size_t *total = &step->workspace, rows = (size_t)(s.batch * s.queries);
    sdx_cache cache = make_cache(state, &s, NULL);
    bool ok =
        sdx_workspace_add(total, (size_t)s.batch, sizeof(int64_t)) &&
        (!state->rotary || (sdx_workspace_add(total, rows, (size_t)(state->heads * s.dim) * sizeof(float)) &&
                            sdx_workspace_add(total, rows, (size_t)(state->key_heads * s.dim) * sizeof(float)))) &&
        sdx_cache_plan(step, &cache, PAST_KEY, PRESENT_KEY, total) &&
        sdx_cache_plan(step, &cache, PAST_VALUE, PRESENT_VALUE, total) &&
        sdx_workspace_add(total, rows * (size_t)s.layouts, (size_t)s.room * sizeof(float)) &&
        sdx_workspace_add(total, 1,
                          sdx_attention_workspace(step->kernels, step->threads, s.queries, s.room, s.dim, s.dim));
    return ok ? SDX_OK : sdx_workspace_fail(step->err);
}

/* ---- run ------------------------------------------------------------------------------------------------- */

/* Valid rows of the past, per sequence, and the longest sequence. */
static sdx_status read_lengths(const sdx_run *run, sizes *s, int64_t *past)
{
    if (sdx_tensor_count(&run->in[TOTAL]) != 1)
        return sdx_fail(run->err, SDX_ERR_USAGE, "total_sequence_length must be one number");
    s->total = sdx_tensor_get_i64(&run->in[TOTAL], 0);
    if (s->total < s->queries || s->total > s->room)
        return sdx_fail(run->err, SDX_ERR_USAGE, "total_sequence_length %lld does not fit %lld tokens and %lld rows",
                        (long long)s->total, (long long)s->queries, (long long)s->room);
    for (int64_t b = 0; b < s->batch; b++) {
        int64_t length = sdx_tensor_get_i64(&run->in[LENGTHS], b);
        past[b] = s->total == s->queries ? 0 : length - s->queries;
        if (length < 1 || length > s->total || past[b] < 0)
            return sdx_fail(run->err, SDX_ERR_USAGE, "sequence %lld: a length of %lld does not fit %lld tokens in all, "
                            "%lld of them new", (long long)b, (long long)length, (long long)s->total,
                            (long long)s->queries);
    }
    return SDX_OK;
}

/* Every row of blocks that a query may be in lists its columns inside the table. */
static sdx_status check_blocks(const sdx_run *run, const sizes *s)
{
    const sparse *state = run->state;
    const sdx_tensor *rows = &run->in[ROWS];
    const int32_t *begin = rows->data;
    int64_t most = run->in[COLUMNS].dim[1], used = (s->total - 1) / state->block + 1;
    if (s->total > 0 && used > rows->dim[1] - 1)
        return sdx_fail(run->err, SDX_ERR_USAGE, "block_row_indices has %lld rows of blocks, %lld tokens need %lld",
                        (long long)rows->dim[1] - 1, (long long)s->total, (long long)used);
    for (int64_t l = 0; l < rows->dim[0]; l++, begin += rows->dim[1])
        for (int64_t r = 0; r < used; r++)
            if (begin[r] < 0 || begin[r] > begin[r + 1] || begin[r + 1] > most)
                return sdx_fail(run->err, SDX_ERR_USAGE, "block_row_indices: row %lld goes from %d to %d, of %lld columns",
                                (long long)r, begin[r], begin[r + 1], (long long)most);
    return SDX_OK;
}

static sdx_status apply_rotary(const sdx_run *run, const sizes *s, const int64_t *past, sdx_attention_job *job,
                               char **workspace)
{
    const sparse *state = run->state;
    if (!state->rotary) return SDX_OK;
    sdx_turn t = {.past = past, .batch = s->batch, .queries = s->queries, .dim = s->dim};
    t.rotary = (sdx_rotary){.cos = run->in[COS].data,
                            .sin = run->in[SIN].data,
                            .positions = run->in[COS].dim[0],
                            .half = run->in[COS].dim[1],
                            .interleaved = state->interleaved};
    TRY(sdx_turn_check(&t, run->err));
    sdx_turn_heads(run->threads, &t, state->heads, &job->q, workspace);
    sdx_turn_heads(run->threads, &t, state->key_heads, &job->k, workspace);
    return SDX_OK;
}

static void place_heads(const sdx_run *run, const sizes *s, sdx_attention_job *job)
{
    const sparse *state = run->state;
    const float *q = run->in[QUERY].data;
    if (s->packed) {
        int64_t row = (state->heads + 2 * state->key_heads) * s->dim;
        job->q = job->k = job->v = (sdx_heads){q, s->queries * row, s->dim, row};
        job->k.data += state->heads * s->dim;
        job->v.data += (state->heads + state->key_heads) * s->dim;
        return;
    }
    job->q = sdx_heads_of_rows(q, state->heads, s->queries, s->dim);
    job->k = sdx_heads_of_rows(run->in[KEY].data, state->key_heads, s->queries, s->dim);
    job->v = sdx_heads_of_rows(run->in[VALUE].data, state->key_heads, s->queries, s->dim);
}

typedef struct addend_task {
    const sdx_run *run;
    const sizes *s;
    const int64_t *past;
    float *to; /* [batch, layouts, queries, total] */
} addend_task;

static void addend_rows(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const addend_task *t = context;
    const sdx_tensor *rows = &t->run->in[ROWS], *columns = &t->run->in[COLUMNS];
    int64_t queries = t->s->queries, total = t->s->total, size = ((const sparse *)t->run->state)->block;
    for (int64_t r = begin; r < end; r++) {
        int64_t h = r / queries % t->s->layouts, b = r / queries / t->s->layouts, layout = h % rows->dim[0];
        int64_t position = t->past[b] + r % queries;
        const int32_t *at = (const int32_t *)rows->data + layout * rows->dim[1] + position / size;
        float *row = t->to + r * total;
        for (int64_t j = 0; j < total; j++) row[j] = -INFINITY;
        for (int64_t i = at[0]; i < at[1]; i++) {
            int64_t block = ((const int32_t *)columns->data)[layout * columns->dim[1] + i];
            for (int64_t j = block * size; block >= 0 && j < (block + 1) * size && j <= position; j++) row[j] = 0;
        }
    }
}

static sdx_status run_sparse(sdx_run *run)
{
    const sparse *state = run->state;
    sdx_shape q = sdx_run_shape(run, QUERY), past_shape = sdx_run_shape(run, PAST_KEY), rows = sdx_run_shape(run, ROWS);
    sizes s = make_sizes(state, &q, &past_shape, &rows, !sdx_run_has_in(run, KEY));
    char *workspace = run->workspace;
    int64_t *past = sdx_workspace_take(&workspace, (size_t)s.batch * sizeof *past);
    TRY(read_lengths(run, &s, past));
    TRY(check_blocks(run, &s));
    sdx_attention_job job = {.kernels = run->kernels,
                             .threads = run->threads,
                             .batch = s.batch,
                             .heads = state->heads,
                             .key_heads = state->key_heads,
                             .queries = s.queries,
                             .keys = s.total,
                             .head_dim = s.dim,
                             .value_dim = s.dim,
                             .scale = state->scale != 0 ? state->scale : 1.0f / sqrtf((float)s.dim),
                             .out = run->out[OUT].data};
    place_heads(run, &s, &job);
    TRY(apply_rotary(run, &s, past, &job, &workspace));
    sdx_cache cache = make_cache(state, &s, past);
    sdx_cache_join(run, &cache, PAST_KEY, PRESENT_KEY, &job.k, &workspace);
    sdx_cache_join(run, &cache, PAST_VALUE, PRESENT_VALUE, &job.v, &workspace);
    int64_t count = s.batch * s.layouts * s.queries;
    addend_task t = {.run = run, .s = &s, .past = past};
    t.to = sdx_workspace_take(&workspace, (size_t)(count * s.total) * sizeof(float));
    sdx_parallel_for(run->threads, count, sdx_row_grain(s.total), addend_rows, &t);
    job.bias = t.to;
    job.bias_head = s.layouts == 1 ? 0 : s.queries * s.total;
    job.bias_batch = s.layouts * s.queries * s.total;
    job.workspace = workspace;
    sdx_attention_run(&job);
    return SDX_OK;
}

static const sdx_op_def rows[] = {
    {"com.microsoft", "SparseAttention", 1, 0, 1, 11, 3, 3, SDX_OP_WIDE, infer_sparse, prepare_sparse, plan_sparse,
     run_sparse},
};

SDX_OP_TABLE(sparse_attention);
