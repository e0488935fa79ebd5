/* rotary.c: RotaryEmbedding of ONNX and of com.microsoft (Su et al., "RoFormer", arXiv:2104.09864), and its form for
 * images and video, MRotaryEmbedding (Wang et al., "Qwen2-VL", arXiv:2409.12191).
 *
 *     (a, b) -> (cos a - sin b, sin a + cos b)        for every pair of a head's first rotary_embedding_dim
 * numbers The rest of the head is copied. The two operators order their inputs differently, and com.microsoft
 * takes one position as the offset of all rows. Positions come from the caller, so each is checked against the
 * tables.
 *
 * MRotaryEmbedding has three positions for each token, of time, height and width, and mrope_section says how many
 * columns of the tables go by each: one section after the other, or (mrope_layout 1) in turn. The row that a token gets
 * that way stands in the workspace, times `scale`; then all is as above.
 *
 * Workspace: input, tables and output as float32, where they are half precision.
 */
#include <string.h>

#include "attention.h"
#include "contents.h"

typedef struct places { /* input numbers */
    int cos, sin, positions;
} places;

static const places places_onnx = {1, 2, 3}, places_ms = {2, 3, 1};

typedef struct rotary {
    const places *at;
    int64_t heads, dim; /* attributes; 0 when absent */
    bool interleaved;
} rotary;

/* ---- infer ----------------------------------------------------------------------------------------------- */

/* [B,S,N*H] needs the number of heads, or, in com.microsoft, tables as wide as half a head. 0: not known. */
static int64_t head_size(const sdx_shape *x, int64_t heads, sdx_dim half, bool is_ms)
{
    if (x->rank == 4) return x->dim[3];
    if (heads) return x->dim[2] / heads;
    return is_ms ? 2 * half : 0;
}

static sdx_status check_sizes(const sdx_infer *infer, const places *at)
{
    const sdx_shape *x = &infer->in[0].shape;
    int64_t heads = sdx_node_int(infer->node, "num_heads", 0), dim;
    sdx_dim half = sdx_type_dim(&infer->in[at->cos], -1);
    dim = sdx_node_int(infer->node, "rotary_embedding_dim", 0);
    bool is_ms = at == &places_ms;
    if ((heads && !sdx_heads_fit(heads)) || dim < 0 || dim % 2)
        return sdx_fail(infer->err, SDX_ERR_FILE, "num_heads %lld and rotary_embedding_dim %lld make no sense",
                        (long long)heads, (long long)dim);
    if (x->rank == 3 && !heads && (!is_ms || dim))
        return sdx_fail(infer->err, SDX_ERR_FILE, "num_heads is needed for an input of three dimensions");
    if (x->rank < 0 || x->dim[x->rank - 1] < 0 || half < 0) return SDX_OK;
    int64_t size = head_size(x, heads, half, is_ms);
    if (x->rank == 3 && (size <= 0 || x->dim[2] % size))
        return sdx_fail(infer->err, SDX_ERR_USAGE, "%lld columns are not whole heads of %lld",
                        (long long)x->dim[2], (long long)size);
    if (2 * half != (dim ? dim : size) || 2 * half > size)
        return sdx_fail(infer->err, SDX_ERR_USAGE,
                        "tables of %lld columns do not turn %lld numbers of a head of %lld", (long long)half,
                        (long long)(dim ? dim : size), (long long)size);
    return SDX_OK;
}

static sdx_status infer_rotary(sdx_infer *infer, const places *at)
{
    static const char *const table_name[2] = {"cos_cache", "sin_cache"};
    const sdx_type *x = &infer->in[0];
    bool is_ms = at == &places_ms, has_positions = sdx_infer_has(infer, at->positions);
    TRY(sdx_want_dtype(infer, 0, "the input", SDX_SET(SDX_F32) | SDX_SET(SDX_F16) | SDX_SET(SDX_BF16)));
    TRY(sdx_want_rank(infer, 0, "the input", 3, 4));
    TRY(sdx_want_dtype(infer, at->positions, "position_ids", SDX_SET(SDX_I64)));
    sdx_dim batch = sdx_type_dim(x, 0), length = sdx_type_dim(x, x->shape.rank == 4 ? 2 : 1);
    for (int i = 0; i < 2; i++) {
        int table = i ? at->sin : at->cos;
        TRY(sdx_want_same_dtype(infer, table, table_name[i], 0, "the input"));
        TRY(sdx_want_rank(infer, table, table_name[i], has_positions ? 2 : 3, has_positions ? 2 : 3));
        for (int d = 0; d < 3 && i; d++)
            TRY(sdx_want_dim(infer, table, "sin_cache", d, sdx_type_dim(&infer->in[at->cos], d)));
        if (has_positions || x->shape.rank < 0) continue;
        TRY(sdx_want_dim(infer, table, table_name[i], 0, batch));
        TRY(sdx_want_dim(infer, table, table_name[i], 1, length));
    }
    if (has_positions) TRY(sdx_want_rank(infer, at->positions, "position_ids", is_ms ? 1 : 2, 2));
    if (has_positions && infer->in[at->positions].shape.rank == 1)
        TRY(sdx_want_dim(infer, at->positions, "position_ids", 0, 1));
    if (has_positions && infer->in[at->positions].shape.rank == 2 && x->shape.rank > 0) {
        TRY(sdx_want_dim(infer, at->positions, "position_ids", 0, batch));
        TRY(sdx_want_dim(infer, at->positions, "position_ids", 1, length));
    }
    TRY(check_sizes(infer, at));
    return sdx_infer_same(infer);
}

static sdx_status infer_onnx(sdx_infer *infer)
{
    return infer_rotary(infer, &places_onnx);
}
static sdx_status infer_ms(sdx_infer *infer)
{
    return infer_rotary(infer, &places_ms);
}

enum { STREAMS = 3 };

static sdx_status check_sections(const sdx_infer *infer)
{
    size_t count;
    const int64_t *section = sdx_node_ints(infer->node, "mrope_section", &count);
    sdx_dim half = sdx_type_dim(&infer->in[places_ms.cos], 1);
    int64_t sum = 0, layout = sdx_node_int(infer->node, "mrope_layout", 0);
    for (size_t i = 0; section && i < count && sum >= 0; i++)
        if (section[i] < 0 || __builtin_add_overflow(sum, section[i], &sum)) sum = -1;
    if (!section || count != STREAMS || sum < 0 || layout < 0 || layout > 1)
        return sdx_fail(infer->err, SDX_ERR_FILE, "mrope_section must be three sizes, and mrope_layout 0 or 1");
    if (half < 0 || sum == half) return SDX_OK;
    return sdx_fail(infer->err, SDX_ERR_USAGE, "mrope_section has %lld columns, the tables have %lld", (long long)sum,
                    (long long)half);
}

static sdx_status infer_streams(sdx_infer *infer)
{
    static const char *const name[] = {"the input", "position_ids", "cos_cache", "sin_cache"};
    const sdx_type *x = &infer->in[0];
    TRY(sdx_want_dtype(infer, 0, name[0], SDX_SET(SDX_F32) | SDX_SET(SDX_F16) | SDX_SET(SDX_BF16)));
    TRY(sdx_want_rank(infer, 0, name[0], 3, 4));
    TRY(sdx_want_dtype(infer, 1, name[1], SDX_SET(SDX_I64)));
    TRY(sdx_want_rank(infer, 1, name[1], 3, 3));
    TRY(sdx_want_dim(infer, 1, name[1], 0, STREAMS));
    for (int i = places_ms.cos; i <= places_ms.sin; i++) {
        TRY(sdx_want_same_dtype(infer, i, name[i], 0, name[0]));
        TRY(sdx_want_rank(infer, i, name[i], 2, 2));
        for (int d = 0; d < 2; d++)
            TRY(sdx_want_dim(infer, i, name[i], d, sdx_type_dim(&infer->in[places_ms.cos], d)));
    }
    if (x->shape.rank > 0) {
        TRY(sdx_want_dim(infer, 1, name[1], 1, x->shape.dim[0]));
        TRY(sdx_want_dim(infer, 1, name[1], 2, x->shape.dim[x->shape.rank == 4 ? 2 : 1]));
    }
    TRY(check_sections(infer));
    TRY(check_sizes(infer, &places_ms));
    return sdx_infer_same(infer);
}

/* ---- prepare and plan ------------------------------------------------------------------------------------ */

static sdx_status prepare(sdx_prepare *p, const places *at)
{
    rotary *state;
    PREPARE_STATE(p, state);
    state->at = at;
    state->heads = sdx_node_int(p->node, "num_heads", 0);
    state->dim = sdx_node_int(p->node, "rotary_embedding_dim", 0);
    state->interleaved = sdx_node_int(p->node, "interleaved", 0) != 0;
    return SDX_OK;
}

static sdx_status prepare_onnx(sdx_prepare *p)
{
    return prepare(p, &places_onnx);
}
static sdx_status prepare_ms(sdx_prepare *p)
{
    return prepare(p, &places_ms);
}

static sdx_status plan_rotary(sdx_plan_step *step)
{
    const rotary *state = step->state;
    size_t *total = &step->workspace;
    bool ok = sdx_floats_plan(&step->in[0], total) && sdx_floats_plan(&step->in[state->at->cos], total) &&
              sdx_floats_plan(&step->in[state->at->sin], total) && sdx_floats_plan(&step->out[0], total);
    return ok ? SDX_OK : sdx_workspace_fail(step->err);
}

/* ---- run ------------------------------------------------------------------------------------------------- */

void sdx_rotary_turn(const sdx_rotary *r, int64_t position, int64_t n, const float *x, float *y)
{
    const float *cos = r->cos + position * r->half, *sin = r->sin + position * r->half;
    int64_t step = r->interleaved ? 2 : 1, other = r->interleaved ? 1 : r->half;
    for (int64_t i = 0; i < r->half; i++) {
        float a = x[i * step], b = x[i * step + other];
        y[i * step] = cos[i] * a - sin[i] * b;
        y[i * step + other] = sin[i] * a + cos[i] * b;
    }
    size_t rest = (size_t)(n - 2 * r->half) * sizeof *x;
    if (rest && x != y) memcpy(y + 2 * r->half, x + 2 * r->half, rest);
}

static int64_t position_of(const sdx_turn *t, int64_t row)
{
    return t->positions ? t->positions[row] : t->past[row / t->queries] + row % t->queries;
}

sdx_status sdx_turn_check(const sdx_turn *t, sdx_error *err)
{
    for (int64_t r = 0; r < t->batch * t->queries; r++) {
        int64_t position = position_of(t, r);
        if (position < 0 || position >= t->rotary.positions)
            return sdx_fail(err, SDX_ERR_USAGE, "position %lld is outside tables of %lld rows", (long long)position,
                            (long long)t->rotary.positions);
    }
    return SDX_OK;
}

typedef struct turn_task {
    const sdx_turn *turn;
    int64_t heads;
    sdx_heads from;
    float *to; /* [batch, queries, heads, dim] */
} turn_task;

static void turn_rows(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const turn_task *x = context;
    const sdx_turn *t = x->turn;
    for (int64_t r = begin; r < end; r++) {
        int64_t b = r / t->queries, s = r % t->queries;
        for (int64_t h = 0; h < x->heads; h++)
            sdx_rotary_turn(&t->rotary, position_of(t, r), t->dim,
                            x->from.data + b * x->from.batch + h * x->from.head + s * x->from.row,
                            x->to + (r * x->heads + h) * t->dim);
    }
}

void sdx_turn_heads(int threads, const sdx_turn *t, int64_t heads, sdx_heads *of, char **workspace)
{
    int64_t rows = t->batch * t->queries;
    turn_task x = {.turn = t, .heads = heads, .from = *of};
    x.to = sdx_workspace_take(workspace, (size_t)(rows * heads * t->dim) * sizeof(float));
    sdx_parallel_for(threads, rows, sdx_row_grain(heads * t->dim), turn_rows, &x);
    *of = sdx_heads_of_rows(x.to, heads, t->queries, t->dim);
}

typedef struct task {
    sdx_rotary rotary;
    const int64_t *positions; /* [batch, length], or one; NULL: a row of the tables for each */
    bool one;
    bool split; /* [B,N,S,H], else [B,S,N*H] */
    int64_t length, heads, size;
    const float *x;
    float *y;
} task;

static void turn_heads(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const task *t = context;
    for (int64_t i = begin; i < end; i++) {
        int64_t b = i / (t->heads * t->length), s = t->split ? i % t->length : i / t->heads % t->length;
        int64_t position = b * t->length + s;
        if (t->positions) position = t->one ? t->positions[0] + s : t->positions[position];
        sdx_rotary_turn(&t->rotary, position, t->size, t->x + i * t->size, t->y + i * t->size);
    }
}

static sdx_status check_positions(const task *t, int64_t count, sdx_error *err)
{
    int64_t rows = t->rotary.positions;
    for (int64_t i = 0; i < count && t->positions; i++) {
        int64_t last = t->one && t->length ? t->length - 1 : 0, p = t->positions[i];
        if (p < 0 || p >= rows || last >= rows - p)
            return sdx_fail(err, SDX_ERR_USAGE, "position %lld is outside tables of %lld rows", (long long)p,
                            (long long)rows);
    }
    return SDX_OK;
}

static sdx_status run_rotary(sdx_run *run)
{
    const rotary *state = run->state;
    const places *at = state->at;
    sdx_shape x = sdx_run_shape(run, 0), table = sdx_run_shape(run, at->cos);
    int64_t half = table.dim[table.rank - 1], count = sdx_shape_count(&x);
    if (count == 0) return SDX_OK;
    char *workspace = run->workspace;
    task t = {.split = x.rank == 4, .size = head_size(&x, state->heads, half, at == &places_ms)};
    t.length = x.dim[t.split ? 2 : 1];
    t.heads = t.split ? x.dim[1] : x.dim[2] / t.size;
    t.x = sdx_floats_of(run->kernels, &run->in[0], &workspace);
    t.rotary = (sdx_rotary){.positions = half ? sdx_shape_count(&table) / half : 0,
                            .half = half,
                            .interleaved = state->interleaved};
    t.rotary.cos = sdx_floats_of(run->kernels, &run->in[at->cos], &workspace);
    t.rotary.sin = sdx_floats_of(run->kernels, &run->in[at->sin], &workspace);
    t.y = sdx_floats_for(&run->out[0], &workspace);
    if (sdx_run_has_in(run, at->positions)) {
        t.positions = run->in[at->positions].data;
        t.one = run->in[at->positions].rank == 1;
        TRY(check_positions(&t, sdx_tensor_count(&run->in[at->positions]), run->err));
    }
    sdx_parallel_for(run->threads, count / t.size, sdx_row_grain(t.size), turn_heads, &t);
    if (run->out[0].dtype != SDX_F32) sdx_floats_store(run->out[0].dtype, t.y, count, run->out[0].data, 0);
    return SDX_OK;
}

/* Which of a token's positions column i goes by. */
static int stream_of(const int64_t *section, bool in_turn, int64_t i)
{
    if (in_turn) return i % STREAMS && i / STREAMS < section[i % STREAMS] ? (int)(i % STREAMS) : 0;
    return i < section[0] ? 0 : i < section[0] + section[1] ? 1 : 2;
}

/* The rows of tokens in the workspace, [tokens, half] twice, become the tables of *r. */
static sdx_status gather_streams(const sdx_run *run, sdx_rotary *r, float *cos, float *sin)
{
    size_t count;
    const int64_t *section = sdx_node_ints(run->node, "mrope_section", &count);
    bool in_turn = sdx_node_int(run->node, "mrope_layout", 0) != 0;
    float scale = sdx_node_float(run->node, "scale", 1.0f);
    int64_t tokens = run->in[1].dim[1] * run->in[1].dim[2];
    for (int64_t at = 0; at < tokens * r->half; at++) {
        int64_t i = at % r->half, stream = stream_of(section, in_turn, i);
        int64_t position = ((const int64_t *)run->in[1].data)[stream * tokens + at / r->half];
        if (position < 0 || position >= r->positions)
            return sdx_fail(run->err, SDX_ERR_USAGE, "position %lld is outside tables of %lld rows", (long long)position,
                            (long long)r->positions);
        cos[at] = scale * r->cos[position * r->half + i];
        sin[at] = scale * r->sin[position * r->half + i];
    }
    r->cos = cos;
    r->sin = sin;
    return SDX_OK;
}

static sdx_status plan_streams(sdx_plan_step *step)
{
    TRY(plan_rotary(step));
    sdx_shape row = step->in[1].shape;
    row.dim[0] = step->in[2].shape.dim[1];
    bool ok = sdx_workspace_add(&step->workspace, 2 * (size_t)sdx_shape_count(&row), sizeof(float));
    return ok ? SDX_OK : sdx_workspace_fail(step->err);
}

static sdx_status run_streams(sdx_run *run)
{
    const rotary *state = run->state;
    sdx_shape x = sdx_run_shape(run, 0), table = sdx_run_shape(run, 2);
    int64_t half = table.dim[1], count = sdx_shape_count(&x), rows = run->in[1].dim[1] * run->in[1].dim[2];
    if (count == 0) return SDX_OK;
    char *workspace = run->workspace;
    task t = {.split = x.rank == 4, .size = head_size(&x, state->heads, half, true)};
    t.length = run->in[1].dim[2];
    t.heads = t.split ? x.dim[1] : x.dim[2] / t.size;
    t.rotary = (sdx_rotary){.positions = table.dim[0], .half = half, .interleaved = state->interleaved};
    t.x = sdx_floats_of(run->kernels, &run->in[0], &workspace);
    t.rotary.cos = sdx_floats_of(run->kernels, &run->in[2], &workspace);
    t.rotary.sin = sdx_floats_of(run->kernels, &run->in[3], &workspace);
    t.y = sdx_floats_for(&run->out[0], &workspace);
    float *rows_of_tokens = (float *)(void *)workspace;
    TRY(gather_streams(run, &t.rotary, rows_of_tokens, rows_of_tokens + rows * half));
    sdx_parallel_for(run->threads, count / t.size, sdx_row_grain(t.size), turn_heads, &t);
    if (run->out[0].dtype != SDX_F32) sdx_floats_store(run->out[0].dtype, t.y, count, run->out[0].data, 0);
    return SDX_OK;
}

#define MS "com.microsoft"
static const sdx_op_def rows[] = {
    {"", "RotaryEmbedding", 23, 0, 3, 4, 1, 1, SDX_OP_INPLACE, infer_onnx, prepare_onnx, plan_rotary,
     run_rotary},
    {MS, "RotaryEmbedding", 1, 0, 4, 4, 1, 1, SDX_OP_INPLACE, infer_ms, prepare_ms, plan_rotary, run_rotary},
    {MS, "MRotaryEmbedding", 1, 0, 4, 4, 1, 1, 0, infer_streams, prepare_ms, plan_streams, run_streams},
};

SDX_OP_TABLE(rotary);
