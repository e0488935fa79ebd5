/* attention_core.c: see attention.h */
#include "attention.h"

#include <float.h>
#include <string.h>

/* ---- one call per (batch, head, part of the queries) ----------------------------------------------------- */

float *sdx_attention_out(const sdx_attention_job *j, int64_t b, int64_t h)
{
    int64_t head = j->out_split ? j->queries * j->value_dim : j->value_dim;
    return j->out + b * j->heads * j->queries * j->value_dim + h * head;
}

size_t sdx_attention_workspace(const sdx_kernels *kernels, int threads, int64_t queries, int64_t keys,
                               int64_t head_dim, int64_t value_dim)
{
    return sdx_align_up(kernels->attention.workspace_bytes(queries, keys, head_dim, value_dim)) *
           (size_t)threads;
}

typedef struct task {
    const sdx_attention_job *job;
    int64_t parts; /* that the queries of a head are cut into: more than 1 only when there are too few heads */
    size_t slice;
} task;

/* The rows of text b, and of its keys. */
static int64_t first_row(const sdx_attention_job *j, int64_t b)
{
    return j->span ? j->span[2 * b] : 0;
}
static int64_t query_count(const sdx_attention_job *j, int64_t b)
{
    return j->span ? j->span[2 * b + 1] - j->span[2 * b] : j->queries;
}

static const float *head_of(const sdx_attention_job *j, const sdx_heads *x, int64_t b, int64_t h, int64_t row)
{
    return x->data + (j->span ? 0 : b * x->batch) + h * x->head + row * x->row;
}

/* Queries [begin, end) of a head. */
static void run_part(const task *t, int64_t b, int64_t h, int64_t begin, int64_t end, void *workspace)
{
    const sdx_attention_job *j = t->job;
    int64_t key_head = h / (j->heads / j->key_heads), first = first_row(j, b), queries = query_count(j, b);
    sdx_attention_args args = {.queries = end - begin,
                               .keys = j->span ? queries : j->keys,
                               .head_dim = j->head_dim,
                               .value_dim = j->value_dim,
                               .q = head_of(j, &j->q, b, h, first + begin),
                               .ldq = j->q.row,
                               .k = head_of(j, &j->k, b, key_head, first),
                               .ldk = j->k.row,
                               .v = head_of(j, &j->v, b, key_head, first),
                               .ldv = j->v.row,
                               .scale = j->scale,
                               .causal = j->causal,
                               .workspace = workspace};
    if (j->mask) {
        args.ldmask = j->mask_rows == 1 ? 0 : j->keys;
        args.mask = j->span ? j->mask + first : j->mask + b * j->mask_rows * j->keys + begin * args.ldmask;
    }
    if (j->bias) {
        args.ldbias = j->keys;
        args.bias = j->bias + b * j->bias_batch + h * j->bias_head + begin * j->keys;
    }
    /* Query i sees keys up to i + keys - queries: a part that ends early leaves the keys behind its last query
     * out. */
    if (j->causal) args.keys = args.keys > queries - end ? args.keys - (queries - end) : 0;
    args.ldout = j->out_split ? j->value_dim : j->heads * j->value_dim;
    args.out = sdx_attention_out(j, j->span ? 0 : b, h) + (first + begin) * args.ldout;
    j->kernels->attention.run_f32(&args);
}

static void run_items(void *context, int64_t begin, int64_t end, int worker)
{
    const task *t = context;
    const sdx_attention_job *j = t->job;
    void *workspace = (char *)j->workspace + (size_t)worker * t->slice;
    for (int64_t i = begin; i < end; i++) {
        int64_t part = i % t->parts, head = i / t->parts, b = head / j->heads, n = query_count(j, b);
        run_part(t, b, head % j->heads, n * part / t->parts, n * (part + 1) / t->parts, workspace);
    }
}

void sdx_attention_run(const sdx_attention_job *job)
{
    const sdx_attention_stages *stages = &job->stages;
    if (stages->softcap != 0 || stages->smooth || stages->out != SDX_STAGE_NONE) {
        sdx_attention_run_stages(job);
        return;
    }
    int64_t items = job->batch * job->heads, parts = 1;
    if (items && items < job->threads) parts = (job->threads + items - 1) / items;
    if (parts > (job->queries + 15) / 16) parts = (job->queries + 15) / 16;
    if (parts < 1) parts = 1;
    task t = {job, parts,
              sdx_attention_workspace(job->kernels, 1, job->queries, job->keys, job->head_dim, job->value_dim)};
    int64_t work = job->queries / parts * job->keys * (job->head_dim + job->value_dim) / 32;
    sdx_parallel_for(job->threads, items * parts, sdx_row_grain(work), run_items, &t);
}

/* How many keys from the first one on the mask [keys] gives the least float. */
static int64_t least_keys(const float *mask, int64_t keys)
{
    int64_t n = 0;
    while (n < keys && mask[n] <= -FLT_MAX) n++;
    return n;
}

static void mean_value(const sdx_attention_job *j, int64_t b, int64_t h, float *mean)
{
    const float *v = j->v.data + b * j->v.batch + h / (j->heads / j->key_heads) * j->v.head;
    for (int64_t c = 0; c < j->value_dim; c++) {
        double sum = 0;
        for (int64_t k = 0; k < j->keys; k++) sum += v[k * j->v.row + c];
        mean[c] = (float)(sum / (double)j->keys);
    }
}

void sdx_attention_fill_blind(const sdx_attention_job *j)
{
    int64_t row = j->out_split ? j->value_dim : j->heads * j->value_dim;
    if (!j->causal || !j->mask || j->mask_rows != 1) return;
    for (int64_t b = 0; b < j->batch; b++) {
        int64_t blind = least_keys(j->mask + b * j->keys, j->keys) - (j->keys - j->queries);
        if (blind > j->queries) blind = j->queries;
        for (int64_t h = 0; h < j->heads && blind > 0; h++) {
            float *out = sdx_attention_out(j, b, h);
            mean_value(j, b, h, out);
            for (int64_t i = 1; i < blind; i++) memcpy(out + i * row, out, (size_t)j->value_dim * sizeof *out);
        }
    }
}

/* ---- masks ----------------------------------------------------------------------------------------------- */

static bool agree(sdx_dim a, sdx_dim b)
{
    return a < 0 || b < 0 || a == b;
}

static bool mask_fits(const sdx_shape *m, sdx_dim batch, sdx_dim queries, sdx_dim keys)
{
    if (m->rank == 1)
        return batch < 0 || agree(m->dim[0], batch) || m->dim[0] == 2 * batch || m->dim[0] == 3 * batch + 2;
    if (m->rank == 2)
        return (agree(m->dim[0], batch) && agree(m->dim[1], keys)) ||
               ((agree(m->dim[0], batch) || m->dim[0] == 1) && m->dim[1] == 1);
    return m->rank == 3 && agree(m->dim[0], batch) && agree(m->dim[1], queries) && agree(m->dim[2], keys);
}

sdx_status sdx_mask_check(const sdx_shape *mask, sdx_dim batch, sdx_dim queries, sdx_dim keys, sdx_error *err)
{
    if (mask->rank < 0 || mask_fits(mask, batch, queries, keys)) return SDX_OK;
    sdx_shape want = {.rank = 3, .dim = {batch, queries, keys}};
    char tm[SDX_SHAPE_TEXT], tw[SDX_SHAPE_TEXT];
    return sdx_fail(err, SDX_ERR_USAGE,
                    "the mask's shape %s fits no form for [batch,queries,keys] = %s: [B], [2B], "
                    "[3B+2], [B,T] or [B,S,T]",
                    sdx_shape_format(mask, tm, sizeof tm), sdx_shape_format(&want, tw, sizeof tw));
}

int64_t sdx_mask_rows(const sdx_tensor *mask, int64_t batch, int64_t queries, int64_t keys)
{
    if (mask->rank == 3) return queries;
    if (mask->rank == 2 && (mask->dim[0] != batch || mask->dim[1] != keys)) return 0; /* [B,1] and [1,1] */
    return 1;
}

void sdx_mask_fill(const sdx_tensor *mask, int64_t batch, int64_t rows, int64_t keys, float filter,
                   float *addend)
{
    const int32_t *m = mask->data;
    if (mask->rank > 1) {
        for (int64_t i = 0; i < batch * rows * keys; i++) addend[i] = m[i] > 0 ? 0.0f : filter;
        return;
    }
    bool has_starts = mask->dim[0] == 2 * batch;
    for (int64_t b = 0; b < batch; b++)
        for (int64_t j = 0; j < keys; j++)
            addend[b * keys + j] = j < m[b] && (!has_starts || j >= m[batch + b]) ? 0.0f : filter;
}

sdx_status sdx_attention_check_spans(const sdx_infer *infer, int spans, bool plain)
{
    if (!sdx_infer_has(infer, spans)) return SDX_OK;
    if (!plain)
        return sdx_fail(infer->err, SDX_ERR_UNSUPPORTED, "spans go with neither past, present nor attention_bias");
    TRY(sdx_want_dtype(infer, spans, "spans", SDX_SET(SDX_I64)));
    TRY(sdx_want_rank(infer, spans, "spans", 2, 2));
    TRY(sdx_want_dim(infer, spans, "spans", 1, 2));
    return sdx_want_dim(infer, 0, "the input", 0, 1);
}

sdx_status sdx_attention_set_spans(const sdx_run *run, const sdx_tensor *spans, sdx_attention_job *job)
{
    const int64_t *s = spans->data;
    job->batch = spans->dim[0];
    job->span = s;
    for (int64_t b = 0; b < job->batch; b++)
        if (s[2 * b] < 0 || s[2 * b] > s[2 * b + 1] || s[2 * b + 1] > job->queries || job->queries != job->keys)
            return sdx_fail(run->err, SDX_ERR_USAGE, "text %lld has rows %lld to %lld of %lld queries and %lld keys",
                            (long long)b, (long long)s[2 * b], (long long)s[2 * b + 1], (long long)job->queries,
                            (long long)job->keys);
    return SDX_OK;
}

sdx_status sdx_attention_check_bias(const sdx_infer *infer, int input, sdx_dim batch, sdx_dim heads,
                                    sdx_dim queries, sdx_dim keys)
{
    const char *name = "attention_bias";
    const sdx_type *t = sdx_infer_in(infer, input);
    if (!sdx_infer_has(infer, input)) return SDX_OK;
    TRY(sdx_want_dtype(infer, input, name, SDX_SET(SDX_F32)));
    TRY(sdx_want_rank(infer, input, name, 4, 4));
    if (sdx_type_dim(t, 0) != 1) TRY(sdx_want_dim(infer, input, name, 0, batch));
    if (sdx_type_dim(t, 1) != 1) TRY(sdx_want_dim(infer, input, name, 1, heads));
    TRY(sdx_want_dim(infer, input, name, 2, queries));
    return sdx_want_dim(infer, input, name, 3, keys);
}

void sdx_attention_set_bias(sdx_attention_job *job, const sdx_tensor *bias)
{
    int64_t one = job->queries * job->keys;
    job->bias = bias->data;
    job->bias_head = bias->dim[1] == 1 ? 0 : one;
    job->bias_batch = bias->dim[0] == 1 ? 0 : one * bias->dim[1];
}

/* ---- keys and values of earlier tokens ------------------------------------------------------------------- */

sdx_heads sdx_heads_of(const float *data, int64_t heads, int64_t length, int64_t dim)
{
    return (sdx_heads){data, heads * length * dim, length * dim, dim};
}

sdx_heads sdx_heads_of_rows(const float *data, int64_t heads, int64_t length, int64_t dim)
{
    return (sdx_heads){data, length * heads * dim, dim, heads * dim};
}

typedef struct append_task {
    const sdx_cache *cache;
    const float *past;
    sdx_heads fresh;
    float *present;
} append_task;

static void append_heads(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const append_task *t = context;
    const sdx_cache *c = t->cache;
    for (int64_t i = begin; i < end && c->dim; i++) {
        int64_t b = i / c->heads, h = i % c->heads, old = c->past_of ? c->past_of[b] : c->past;
        float *to = t->present + i * c->room * c->dim;
        const float *from = t->fresh.data + b * t->fresh.batch + h * t->fresh.head;
        size_t row = (size_t)c->dim * sizeof *to;
        if (old && !c->in_place) memcpy(to, t->past + i * c->past_room * c->dim, (size_t)old * row);
        for (int64_t r = 0; r < c->fresh; r++) memcpy(to + (old + r) * c->dim, from + r * t->fresh.row, row);
        int64_t used = old + c->fresh, rest = c->in_place ? 0 : c->room - used;
        if (rest && c->is_buffer)
            memcpy(to + used * c->dim, t->past + (i * c->room + used) * c->dim, (size_t)rest * row);
        else
            memset(to + used * c->dim, 0, (size_t)rest * row);
    }
}

void sdx_cache_append(int threads, const sdx_cache *cache, const float *past, sdx_heads fresh, float *present)
{
    append_task t = {cache, past, fresh, present};
    int64_t rows = cache->in_place ? cache->fresh : cache->room;
    sdx_parallel_for(threads, cache->batch * cache->heads, sdx_row_grain(rows * cache->dim / 4), append_heads, &t);
}

static size_t cache_count(const sdx_cache *c)
{
    return (size_t)(c->batch * c->heads * c->room * c->dim);
}

bool sdx_cache_plan(sdx_plan_step *step, const sdx_cache *cache, int past, int present, size_t *total)
{
    bool has_past = past < step->n_in && step->in[past].dtype != SDX_UNDEFINED;
    bool has_out = present < step->n_out && step->out[present].dtype == SDX_F32;
    if (has_past && has_out && step->in[past].dtype == SDX_F32 && !cache->is_buffer) step->past[present] = past;
    if (has_past && !sdx_floats_plan(&step->in[past], total)) return false;
    return (!has_past && present >= step->n_out) || sdx_workspace_add(total, cache_count(cache), sizeof(float));
}

void sdx_cache_join(const sdx_run *run, const sdx_cache *cache, int past, int present, sdx_heads *heads,
                    char **workspace)
{
    bool has_past = sdx_run_has_in(run, past), has_out = sdx_run_has_out(run, present);
    if (run->room) {
        sdx_cache grown = *cache;
        grown.room = run->room;
        grown.in_place = true;
        float *rows = run->out[present].data;
        sdx_cache_append(run->threads, &grown, rows, *heads, rows);
        *heads = sdx_heads_of(rows, cache->heads, run->room, cache->dim);
        return;
    }
    const float *old = has_past ? sdx_floats_of(run->kernels, &run->in[past], workspace) : NULL;
    if (!has_past && present >= run->n_out) return;
    float *to = sdx_workspace_take(workspace, cache_count(cache) * sizeof *to);
    if (!has_past && !has_out) return;
    if (has_out && run->out[present].dtype == SDX_F32) to = run->out[present].data;
    sdx_cache_append(run->threads, cache, old, *heads, to);
    if (has_out && run->out[present].dtype != SDX_F32)
        sdx_floats_store(run->out[present].dtype, to, (int64_t)cache_count(cache), run->out[present].data, 0);
    *heads = sdx_heads_of(to, cache->heads, cache->room, cache->dim);
}
