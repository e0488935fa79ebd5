/* embed.c: EmbedLayerNormalization of com.microsoft and its 8-bit form.
 *
 *     sum[b,s] = word[id] + position[s] (+ segment[segment id]);   output = LayerNorm(sum) * gamma + beta
 * The tables are the largest constants of a small model, so they are read where the mapped file has them, at
 * whatever alignment: a row that is not aligned, or 8-bit, passes through a buffer. Ids come from the user:
 * each is checked.
 */
#include <string.h>

#include "compute.h"

/* Inputs. The 8-bit form has five scales and five zero points behind the mask, for WORD to BETA in order. */
enum { IDS, SEGMENT_IDS, WORD, POSITION, SEGMENT, GAMMA, BETA, MASK, POSITION_IDS, SCALE = 8, ZERO = 13 };

typedef struct embed {
    float epsilon;
    bool is_8bit;
} embed;

/* ---- infer, prepare, plan -------------------------------------------------------------------------------- */

static sdx_status check_table(const sdx_infer *infer, int i, const char *name, unsigned dtypes, sdx_dim hidden)
{
    TRY(sdx_want_dtype(infer, i, name, dtypes));
    if (i == SEGMENT && !sdx_infer_has(infer, i)) return SDX_OK;
    TRY(sdx_want_rank(infer, i, name, i >= GAMMA ? 1 : 2, i >= GAMMA ? 1 : 2));
    return sdx_want_dim(infer, i, name, -1, hidden);
}

static sdx_status check_ids(const sdx_infer *infer, int i, const char *name)
{
    TRY(sdx_want_dtype(infer, i, name, SDX_SET(SDX_I32) | SDX_SET(SDX_I64)));
    if (!sdx_infer_has(infer, i)) return SDX_OK;
    TRY(sdx_want_rank(infer, i, name, 2, 2));
    TRY(sdx_want_dim(infer, i, name, 1, sdx_type_dim(&infer->in[IDS], 1)));
    if (i == POSITION_IDS && sdx_type_dim(&infer->in[i], 0) == 1) return SDX_OK;
    return sdx_want_dim(infer, i, name, 0, sdx_type_dim(&infer->in[IDS], 0));
}

static sdx_status infer_tables(sdx_infer *infer, unsigned dtypes)
{
    static const char *const names[] = {
        "input_ids",         "segment_ids", "word_embedding", "position_embedding",
        "segment_embedding", "gamma",       "beta",           "mask"};
    for (int i = WORD; i <= BETA; i++)
        if (i != SEGMENT) TRY(sdx_want_present(infer, i, names[i]));
    sdx_dim hidden = sdx_type_dim(&infer->in[WORD], 1);
    TRY(check_ids(infer, IDS, names[IDS]));
    TRY(check_ids(infer, SEGMENT_IDS, names[SEGMENT_IDS]));
    TRY(check_ids(infer, MASK, names[MASK]));
    for (int i = WORD; i <= BETA; i++) TRY(check_table(infer, i, names[i], dtypes, hidden));
    if (sdx_infer_has(infer, SEGMENT_IDS) != sdx_infer_has(infer, SEGMENT))
        return sdx_fail(infer->err, SDX_ERR_FILE, "segment_ids and segment_embedding must come together");
    const sdx_type *ids = &infer->in[IDS];
    if (ids->shape.rank < 0) return SDX_OK;
    sdx_shape full = {.rank = 3, .dim = {ids->shape.dim[0], ids->shape.dim[1], hidden}};
    sdx_shape batch = {.rank = 1, .dim = {ids->shape.dim[0]}};
    sdx_infer_set(infer, 0, SDX_F32, &full);
    sdx_infer_set(infer, 1, SDX_I32, &batch);
    sdx_infer_set(infer, 2, SDX_F32, &full);
    return SDX_OK;
}

static sdx_status infer_embed(sdx_infer *infer)
{
    TRY(check_ids(infer, POSITION_IDS, "position_ids"));
    return infer_tables(infer, SDX_SET(SDX_F32));
}

static sdx_status infer_embed_8bit(sdx_infer *infer)
{
    for (int i = SCALE; i < ZERO + 5; i++) {
        const sdx_type *t = sdx_infer_in(infer, i);
        bool needed = i < ZERO && (i != SCALE + SEGMENT - WORD || sdx_infer_has(infer, SEGMENT));
        if (needed) TRY(sdx_want_present(infer, i, "a scale"));
        TRY(sdx_want_dtype(infer, i, i < ZERO ? "a scale" : "a zero point",
                           i < ZERO ? SDX_SET(SDX_F32) : SDX_SET_BYTE));
        if (t->shape.rank > 0 && sdx_shape_count(&t->shape) >= 0 && sdx_shape_count(&t->shape) != 1)
            return sdx_fail(infer->err, SDX_ERR_UNSUPPORTED,
                            "input %d (a scale or zero point) must be one number", i);
    }
    return infer_tables(infer, SDX_SET_BYTE);
}

static sdx_status prepare(sdx_prepare *p, bool is_8bit)
{
    embed *state;
    PREPARE_STATE(p, state);
    state->epsilon = sdx_node_float(p->node, "epsilon", 1e-12f);
    state->is_8bit = is_8bit;
    return SDX_OK;
}

static sdx_status prepare_embed(sdx_prepare *p)
{
    return prepare(p, false);
}
static sdx_status prepare_embed_8bit(sdx_prepare *p)
{
    return prepare(p, true);
}

/* Workspace: gamma, beta, then three rows per worker. */
static sdx_status plan_embed(sdx_plan_step *step)
{
    size_t row = sdx_align_up((size_t)step->in[WORD].shape.dim[1] * sizeof(float));
    if (sdx_workspace_add(&step->workspace, 2 + 3 * (size_t)step->threads, row)) return SDX_OK;
    return sdx_workspace_fail(step->err);
}

/* ---- run ------------------------------------------------------------------------------------------------- */

static int64_t get_id(const sdx_tensor *t, int64_t i)
{
    int32_t narrow;
    int64_t wide;
    if (t->dtype == SDX_I64) {
        memcpy(&wide, (const char *)t->data + i * 8, sizeof wide);
        return wide;
    }
    memcpy(&narrow, (const char *)t->data + i * 4, sizeof narrow);
    return narrow;
}

/* Row `index` of table `which` as floats: where it lies, or in the buffer [n]. */
static const float *get_row(const sdx_run *run, int which, int64_t index, int64_t n, float *buffer)
{
    const sdx_tensor *t = &run->in[which];
    const char *from = (const char *)t->data + index * n * (int64_t)sdx_dtype_size(t->dtype);
    if (t->dtype == SDX_F32) {
        if ((uintptr_t)from % sizeof(float) == 0) return (const float *)(const void *)from;
        memcpy(buffer, from, (size_t)n * sizeof(float));
        return buffer;
    }
    const sdx_quantize_kernels *k = &run->kernels->quantize;
    float scale;
    memcpy(&scale, run->in[SCALE + which - WORD].data, sizeof scale);
    int32_t zero = 0;
    if (sdx_run_has_in(run, ZERO + which - WORD))
        zero = (int32_t)sdx_tensor_get_i64(&run->in[ZERO + which - WORD], 0);
    if (t->dtype == SDX_U8)
        k->u8_f32(n, (const uint8_t *)from, scale, zero, buffer);
    else
        k->s8_f32(n, (const int8_t *)from, scale, zero, buffer);
    return buffer;
}

static sdx_status check_range(const sdx_run *run, int ids, int table, const char *what)
{
    if (!sdx_run_has_in(run, ids)) return SDX_OK;
    int64_t rows = run->in[table].dim[0], count = sdx_tensor_count(&run->in[ids]);
    for (int64_t i = 0; i < count; i++) {
        int64_t id = get_id(&run->in[ids], i);
        if (id < 0 || id >= rows)
            return sdx_fail(run->err, SDX_ERR_USAGE, "%s id %lld is outside the table of %lld rows", what,
                            (long long)id, (long long)rows);
    }
    return SDX_OK;
}

typedef struct task {
    const sdx_run *run;
    int64_t sequence, hidden;
    bool has_positions; /* position_ids is given */
    const float *gamma, *beta;
    char *rows; /* three per worker */
} task;

static int64_t position_of(const task *t, int64_t i)
{
    if (!t->has_positions) return i % t->sequence;
    const sdx_tensor *ids = &t->run->in[POSITION_IDS];
    return get_id(ids, ids->dim[0] == 1 ? i % t->sequence : i);
}

static void embed_rows(void *context, int64_t begin, int64_t end, int worker)
{
    const task *t = context;
    const sdx_run *run = t->run;
    int64_t n = t->hidden;
    size_t row = sdx_align_up((size_t)n * sizeof(float));
    char *own = t->rows + (size_t)worker * 3 * row;
    float *buffer[3];
    for (int r = 0; r < 3; r++) buffer[r] = sdx_workspace_take(&own, row);
    for (int64_t i = begin; i < end; i++) {
        const float *word = get_row(run, WORD, get_id(&run->in[IDS], i), n, buffer[0]);
        const float *position = get_row(run, POSITION, position_of(t, i), n, buffer[1]), *segment = NULL;
        if (sdx_run_has_in(run, SEGMENT_IDS))
            segment = get_row(run, SEGMENT, get_id(&run->in[SEGMENT_IDS], i), n, buffer[2]);
        float *sum = sdx_run_has_out(run, 2) ? (float *)run->out[2].data + i * n : NULL;
        run->kernels->row.layer_norm_f32(n, word, position, segment, t->gamma, t->beta,
                                         ((const embed *)run->state)->epsilon,
                                         (float *)run->out[0].data + i * n, sum, NULL, NULL);
    }
}

/* The number of ones in each row of the mask; zeros without a mask. */
static void count_mask(const sdx_run *run, int32_t *counts)
{
    int64_t batch = run->in[IDS].dim[0], sequence = run->in[IDS].dim[1];
    for (int64_t b = 0; b < batch; b++) {
        counts[b] = 0;
        for (int64_t s = 0; s < sequence && sdx_run_has_in(run, MASK); s++)
            counts[b] += get_id(&run->in[MASK], b * sequence + s) == 1;
    }
}

static sdx_status run_embed(sdx_run *run)
{
    const embed *state = run->state;
    task t = {.run = run, .sequence = run->in[IDS].dim[1], .hidden = run->in[WORD].dim[1]};
    t.has_positions = !state->is_8bit && sdx_run_has_in(run, POSITION_IDS);
    TRY(check_range(run, IDS, WORD, "token"));
    TRY(check_range(run, SEGMENT_IDS, SEGMENT, "segment"));
    if (t.has_positions)
        TRY(check_range(run, POSITION_IDS, POSITION, "position"));
    else if (t.sequence > run->in[POSITION].dim[0])
        return sdx_fail(run->err, SDX_ERR_USAGE,
                        "the sequence of %lld tokens is longer than the %lld positions of the "
                        "model",
                        (long long)t.sequence, (long long)run->in[POSITION].dim[0]);
    char *workspace = run->workspace;
    float *gamma = sdx_workspace_take(&workspace, (size_t)t.hidden * sizeof *gamma);
    float *beta = sdx_workspace_take(&workspace, (size_t)t.hidden * sizeof *beta);
    t.gamma = get_row(run, GAMMA, 0, t.hidden, gamma);
    t.beta = get_row(run, BETA, 0, t.hidden, beta);
    t.rows = workspace;
    sdx_parallel_for(run->threads, sdx_tensor_count(&run->in[IDS]), sdx_row_grain(t.hidden), embed_rows, &t);
    if (sdx_run_has_out(run, 1)) count_mask(run, run->out[1].data);
    return SDX_OK;
}

#define MS  "com.microsoft"
#define ANY SDX_OP_ANY_ALIGNMENT
static const sdx_op_def rows[] = {
    {MS, "EmbedLayerNormalization", 1, 0, 1, 9, 1, 3, ANY | SDX_OP_WIDE, infer_embed, prepare_embed, plan_embed,
     run_embed},
    {MS, "QEmbedLayerNormalization", 1, 0, 1, 18, 1, 3, ANY | SDX_OP_WIDE, infer_embed_8bit, prepare_embed_8bit,
     plan_embed, run_embed},
};

SDX_OP_TABLE(embed);
