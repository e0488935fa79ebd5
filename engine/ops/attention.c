/* attention.c: com.microsoft Attention, QAttention whose projection is 8-bit, and sardonyx DynamicAttention: a
 * QAttention that quantizes its float32 input itself, row by row (see dynamic_linear.c; X_ZERO is absent, and what may
 * stand in the place of X_SCALE is the input's factor [k]). sardonyx PackedAttention and PackedDynamicAttention have
 * one more input, int64 spans [texts, 2]: the rows of a batch of 1 are then many texts, one after the other, and each
 * attends to itself only (pack_tokens.c).
 *
 *     [Q K V] = input * weights + bias           one product, heads side by side in the columns
 *     output  = softmax(scale * Q K^T + attention_bias + mask) V, head by head
 * Masked keys get mask_filter_value added, so a row with every key masked still has a meaning (ONNX Runtime's
 * rule). With a past, keys and values are first appended to it in `present` and read from there; with
 * past_sequence_length the past is a buffer of which so many rows are valid, and present has its size.
 *
 * Workspace: [QKV] [weights packed, when not constant] [mask addend] [present, when not an output] then, for
 * QAttention, [zero points and scales] [copy of A] [rows of a float32 input], and the heads' own.
 */
#include <math.h>

#include "attention.h"
#include "dynamic_linear.h"

typedef struct inputs { /* numbers of the inputs that the two operators have in different places */
    int mask, past, bias, past_length, spans;
} inputs;

enum { X, WEIGHT, BIAS };
/* Of QAttention; FACTOR is DynamicAttention's. */
enum { X_SCALE = 3, FACTOR = 3, WEIGHT_SCALE = 4, X_ZERO = 6, WEIGHT_ZERO = 7 };
static const inputs places_f32 = {3, 4, 5, 6, 7}, places_int8 = {5, 8, -1, -1, 9};

typedef struct attention {
    bool is_8bit, causal;
    int64_t heads, qk_dim, v_dim; /* hidden sizes of Q (and K) and V; 0: a third of the weight's columns */
    float scale, filter;
    const void *packed;  /* constant weights of bytes */
    sdx_weight *weight;  /* of float32 */
    const void *kept[10]; /* the other constants */
} attention;

typedef struct sizes {
    int64_t batch, queries, past, past_room, room, keys, input, columns, head_dim, value_dim;
} sizes;

/* ---- infer ----------------------------------------------------------------------------------------------- */

/* Columns of Q (= K) and V, unknown when the weight is. */
static sdx_status split_columns(const sdx_infer *infer, sdx_dim columns, sdx_dim *qk, sdx_dim *v)
{
    size_t count = 0;
    const int64_t *asked = sdx_node_ints(infer->node, "qkv_hidden_sizes", &count);
    *qk = *v = SDX_DIM_UNKNOWN;
    if (asked) {
        if (count != 3 || asked[0] != asked[1] || asked[0] <= 0 || asked[2] <= 0)
            return sdx_fail(infer->err, SDX_ERR_FILE,
                            "qkv_hidden_sizes must be three sizes, the first two equal");
        *qk = asked[0];
        *v = asked[2];
    } else if (columns >= 0) {
        *qk = *v = columns / 3;
    }
    if (columns >= 0 && 2 * *qk + *v != columns)
        return sdx_fail(infer->err, SDX_ERR_USAGE,
                        "the weight has %lld columns, which are not those of Q, K and V", (long long)columns);
    return SDX_OK;
}

static sdx_status check_heads(const sdx_infer *infer, sdx_dim qk, sdx_dim v)
{
    int64_t heads = sdx_node_int(infer->node, "num_heads", 0);
    if (!sdx_heads_fit(heads))
        return sdx_fail(infer->err, SDX_ERR_FILE, "num_heads is missing or makes no sense");
    if ((qk >= 0 && qk % heads) || (v >= 0 && v % heads))
        return sdx_fail(infer->err, SDX_ERR_FILE, "%lld heads do not divide the hidden sizes %lld and %lld",
                        (long long)heads, (long long)qk, (long long)v);
    return SDX_OK;
}

static sdx_dim add_dims(const sdx_infer *infer, sdx_dim a, sdx_dim b)
{
    return sdx_element_to_dim(
        sdx_model_arith(infer->model, '+', sdx_element_from_dim(a), sdx_element_from_dim(b)));
}

static sdx_status check_past(const sdx_infer *infer, int past, sdx_dim batch, sdx_dim heads, sdx_dim head_dim)
{
    TRY(sdx_want_dtype(infer, past, "past", SDX_SET(SDX_F32)));
    TRY(sdx_want_rank(infer, past, "past", 5, 5));
    TRY(sdx_want_dim(infer, past, "past", 0, 2));
    TRY(sdx_want_dim(infer, past, "past", 1, batch));
    TRY(sdx_want_dim(infer, past, "past", 2, heads));
    return sdx_want_dim(infer, past, "past", 4, head_dim);
}

static sdx_status refuse_extras(const sdx_infer *infer)
{
    if (sdx_node_int(infer->node, "do_rotary", 0))
        return sdx_fail(infer->err, SDX_ERR_UNSUPPORTED, "do_rotary is not supported");
    return SDX_OK;
}

static sdx_status infer_common(sdx_infer *infer, const inputs *in)
{
    TRY(refuse_extras(infer));
    bool has_bias = in->bias >= 0 && sdx_infer_has(infer, in->bias);
    TRY(sdx_attention_check_spans(infer, in->spans, !sdx_infer_has(infer, in->past) && !has_bias && infer->n_out == 1));
    TRY(sdx_want_rank(infer, X, "the input", 3, 3));
    TRY(sdx_want_rank(infer, WEIGHT, "the weight", 2, 2));
    TRY(sdx_want_dim(infer, WEIGHT, "the weight", 0, sdx_type_dim(&infer->in[X], 2)));
    sdx_dim batch = sdx_type_dim(&infer->in[X], 0), queries = sdx_type_dim(&infer->in[X], 1), qk, v;
    sdx_dim columns = sdx_type_dim(&infer->in[WEIGHT], 1), keys = queries;
    TRY(split_columns(infer, columns, &qk, &v));
    TRY(check_heads(infer, qk, v));
    int64_t heads = sdx_node_int(infer->node, "num_heads", 0);
    sdx_dim head_dim = qk >= 0 ? qk / heads : SDX_DIM_UNKNOWN;
    TRY(sdx_want_dtype(infer, BIAS, "the bias", SDX_SET(SDX_F32)));
    if (sdx_infer_has(infer, BIAS)) {
        TRY(sdx_want_rank(infer, BIAS, "the bias", 1, 1));
        TRY(sdx_want_dim(infer, BIAS, "the bias", 0, columns));
    }
    bool has_past = sdx_infer_has(infer, in->past);
    if ((has_past || infer->n_out > 1) && qk != v)
        return sdx_fail(infer->err, SDX_ERR_UNSUPPORTED, "past and present need Q and V of one size");
    sdx_dim room = keys;
    bool is_buffer = in->past_length >= 0 && sdx_infer_has(infer, in->past_length);
    if (is_buffer && !has_past)
        return sdx_fail(infer->err, SDX_ERR_FILE, "past_sequence_length comes without past");
    if (has_past) {
        sdx_dim past = sdx_type_dim(&infer->in[in->past], 3);
        TRY(check_past(infer, in->past, batch, heads, head_dim));
        room = is_buffer ? past : add_dims(infer, past, queries);
        keys = is_buffer ? SDX_DIM_UNKNOWN : room; /* a buffer's is checked by run */
    }
    TRY(sdx_want_dtype(infer, in->mask, "the mask", SDX_SET(SDX_I32)));
    if (sdx_infer_has(infer, in->mask) && !is_buffer)
        TRY(sdx_mask_check(&infer->in[in->mask].shape, batch, queries, keys, infer->err));
    if (in->bias >= 0) TRY(sdx_attention_check_bias(infer, in->bias, batch, heads, queries, keys));
    sdx_shape out = {.rank = 3, .dim = {batch, queries, v}};
    sdx_shape present = {.rank = 5, .dim = {2, batch, heads, room, head_dim}};
    sdx_infer_set(infer, 0, SDX_F32, &out);
    sdx_infer_set(infer, 1, SDX_F32, &present);
    return SDX_OK;
}

static sdx_status infer_attention(sdx_infer *infer)
{
    TRY(sdx_want_dtype(infer, X, "the input", SDX_SET(SDX_F32)));
    TRY(sdx_want_dtype(infer, WEIGHT, "the weight", SDX_SET(SDX_F32)));
    TRY(sdx_want_dtype(infer, places_f32.past_length, "past_sequence_length", SDX_SET(SDX_I32)));
    return infer_common(infer, &places_f32);
}

static sdx_status infer_attention_8bit(sdx_infer *infer)
{
    TRY(sdx_want_present(infer, X_SCALE, "the input's scale"));
    TRY(sdx_want_present(infer, WEIGHT_SCALE, "the weight's scale"));
    if (sdx_node_int(infer->node, "past_present_share_buffer", 0))
        return sdx_fail(infer->err, SDX_ERR_UNSUPPORTED, "past_present_share_buffer is not supported");
    TRY(sdx_want_dtype(infer, X, "the input", SDX_SET_BYTE));
    TRY(sdx_want_dtype(infer, WEIGHT, "the weight", SDX_SET_BYTE));
    TRY(sdx_int8_check(infer, X, "the input", X_SCALE, X_ZERO, 1));
    TRY(sdx_int8_check(infer, WEIGHT, "the weight", WEIGHT_SCALE, WEIGHT_ZERO,
                       sdx_type_dim(&infer->in[WEIGHT], 1)));
    return infer_common(infer, &places_int8);
}

static sdx_status infer_dynamic_attention(sdx_infer *infer)
{
    TRY(sdx_want_present(infer, WEIGHT_SCALE, "the weight's scale"));
    TRY(sdx_want_dtype(infer, X, "the input", SDX_SET(SDX_F32)));
    TRY(sdx_dynamic_factor_check(infer, FACTOR));
    TRY(sdx_want_dtype(infer, WEIGHT, "the weight", SDX_SET_BYTE));
    TRY(sdx_int8_check(infer, WEIGHT, "the weight", WEIGHT_SCALE, WEIGHT_ZERO,
                       sdx_type_dim(&infer->in[WEIGHT], 1)));
    return infer_common(infer, &places_int8);
}

/* ---- prepare --------------------------------------------------------------------------------------------- */

static sdx_status pack_weight(sdx_prepare *p, attention *state)
{
    const sdx_tensor *w = p->in[WEIGHT].constant;
    if (!w || p->brief) return SDX_OK;
    if (!state->is_8bit) return sdx_weight_prepare(p, WEIGHT, false, &state->weight);
    TRY(sdx_int8_pack(p, w, w->dim[0], w->dim[1], &state->packed));
    p->packed |= 1u << WEIGHT;
    return SDX_OK;
}

static sdx_status prepare(sdx_prepare *p, bool is_8bit)
{
    attention *state;
    PREPARE_STATE(p, state);
    size_t count = 0;
    const int64_t *hidden = sdx_node_ints(p->node, "qkv_hidden_sizes", &count);
    state->is_8bit = is_8bit;
    state->causal = sdx_node_int(p->node, "unidirectional", 0) != 0;
    state->heads = sdx_node_int(p->node, "num_heads", 1);
    state->qk_dim = hidden && count == 3 ? hidden[0] : 0;
    state->v_dim = hidden && count == 3 ? hidden[2] : 0;
    state->scale = sdx_node_float(p->node, "scale", 0.0f);
    state->filter = sdx_node_float(p->node, "mask_filter_value", -10000.0f);
    TRY(pack_weight(p, state));
    return sdx_prepare_keep_all(p, state->kept);
}

static sdx_status prepare_attention(sdx_prepare *p)
{
    return prepare(p, false);
}
static sdx_status prepare_attention_8bit(sdx_prepare *p)
{
    return prepare(p, true);
}

/* ---- plan ------------------------------------------------------------------------------------------------ */

/* past NULL: none. A past that is a buffer counts as wholly valid until run reads how much of it is. */
static sizes make_sizes(const attention *state, const sdx_shape *x, const sdx_shape *w, const sdx_shape *past,
                        bool is_buffer)
{
    sizes s = {.batch = x->dim[0], .queries = x->dim[1], .input = x->dim[2], .columns = w->dim[1]};
    s.past = s.past_room = past ? past->dim[3] : 0;
    s.room = s.keys = is_buffer ? s.past : s.past + s.queries;
    s.head_dim = (state->qk_dim ? state->qk_dim : s.columns / 3) / state->heads;
    s.value_dim = (state->v_dim ? state->v_dim : s.columns / 3) / state->heads;
    return s;
}

static bool plan_8bit(const sdx_plan_step *step, const sizes *s, size_t *total)
{
    size_t rows = (size_t)(s->batch * s->queries), columns = (size_t)s->columns;
    bool is_float = step->in[X].dtype == SDX_F32;
    return (!is_float || sdx_dynamic_rows_plan(total, s->batch * s->queries, s->input)) &&
           sdx_workspace_add(total, rows, sizeof(int32_t)) &&
           sdx_workspace_add(total, columns, sizeof(int32_t)) &&
           sdx_workspace_add(total, columns, sizeof(float)) &&
           sdx_workspace_add(
               total, 1,
               sdx_gemm_int8_workspace(step->kernels, step->threads, s->batch * s->queries, s->input));
}

static sdx_status plan_common(sdx_plan_step *step, const inputs *in)
{
    const attention *state = step->state;
    bool has_past = in->past < step->n_in && step->in[in->past].dtype != SDX_UNDEFINED;
    bool is_buffer = in->past_length >= 0 && in->past_length < step->n_in &&
                     step->in[in->past_length].dtype != SDX_UNDEFINED;
    sizes s = make_sizes(state, &step->in[X].shape, &step->in[WEIGHT].shape,
                         has_past ? &step->in[in->past].shape : NULL, is_buffer);
    size_t *total = &step->workspace, packed = 0;
    if (!state->packed && state->is_8bit) packed = step->kernels->gemm_int8.packed_bytes(s.input, s.columns);
    if (!state->weight && !state->is_8bit) packed = step->kernels->gemm_f32.packed_bytes(s.input, s.columns);
    size_t mask = 0, present = 0;
    if (in->mask < step->n_in && step->in[in->mask].dtype != SDX_UNDEFINED)
        mask = (size_t)(s.batch * (step->in[in->mask].shape.rank == 3 ? s.queries : 1) * s.keys);
    if (has_past) present = (size_t)(2 * s.batch * state->heads * s.room * s.head_dim);
    size_t heads =
        sdx_attention_workspace(step->kernels, step->threads, s.queries, s.keys, s.head_dim, s.value_dim);
    const sdx_gemm_f32_kernels *gemm = state->weight ? state->weight->gemm : &step->kernels->gemm_f32;
    size_t projection = 0;
    if (!state->is_8bit)
        projection = sdx_gemm_f32_workspace(gemm, step->threads, s.batch * s.queries, s.columns, s.input, s.input,
                                            state->weight);
    if (heads < projection) heads = projection; /* one after the other */
    bool ok = sdx_workspace_add(total, (size_t)(s.batch * s.queries * s.columns), sizeof(float)) &&
              sdx_workspace_add(total, 1, packed) && sdx_workspace_add(total, mask, sizeof(float)) &&
              sdx_workspace_add(total, present, sizeof(float)) &&
              (!state->is_8bit || plan_8bit(step, &s, total)) && sdx_workspace_add(total, 1, heads);
    return ok ? SDX_OK : sdx_workspace_fail(step->err);
}

static sdx_status plan_attention(sdx_plan_step *step)
{
    return plan_common(step, &places_f32);
}
static sdx_status plan_attention_8bit(sdx_plan_step *step)
{
    return plan_common(step, &places_int8);
}

/* ---- run ------------------------------------------------------------------------------------------------- */

static sdx_tensor get(const sdx_run *run, int i)
{
    return sdx_kept_in(run, ((const attention *)run->state)->kept, i);
}

static void project_f32(const sdx_run *run, const sizes *s, const float *bias, float *qkv, void *packing,
                        void *workspace)
{
    const attention *state = run->state;
    const sdx_gemm_f32_kernels *gemm = &run->kernels->gemm_f32;
    if (!state->weight)
        sdx_gemm_f32_pack(gemm, run->threads, s->input, s->columns, run->in[WEIGHT].data, s->columns, 1, 1.0f, packing);
    sdx_gemm_f32_run(&(sdx_gemm_f32_job){.gemm = state->weight ? state->weight->gemm : gemm,
                                         .threads = run->threads,
                                         .m = s->batch * s->queries,
                                         .n = s->columns,
                                         .k = s->input,
                                         .a = get(run, X).data,
                                         .lda = s->input,
                                         .packed = state->weight ? NULL : packing,
                                         .weight = state->weight,
                                         .bias = bias,
                                         .c = qkv,
                                         .ldc = s->columns,
                                         .workspace = workspace});
}

/* The job's left operand: bytes that another operator made, or rows quantized here. */
static void place_input(const sdx_run *run, sdx_gemm_int8_job *job, sdx_int8_epilogue *epilogue, int32_t *zeros,
                        float *column_scale, char **workspace)
{
    sdx_tensor x = get(run, X), weight_scale = get(run, WEIGHT_SCALE);
    if (x.dtype == SDX_F32) {
        sdx_dynamic_rows rows = sdx_dynamic_rows_take(workspace, job->m, job->k);
        const float *factor = sdx_run_has_in(run, FACTOR) ? get(run, FACTOR).data : NULL;
        sdx_dynamic_rows_fill(run->kernels, run->threads, x.data, factor, &rows);
        job->a = rows.q;
        job->a_zero = rows.zero;
        epilogue->row_scale = rows.scale;
        epilogue->scale = weight_scale.data;
        epilogue->scale_step = sdx_tensor_count(&weight_scale) != 1;
        return;
    }
    sdx_tensor x_scale = get(run, X_SCALE);
    epilogue->scale = column_scale;
    job->a = x.data;
    job->a_signed = x.dtype == SDX_I8;
    epilogue->scale_step = sdx_int8_scales(&x_scale, &weight_scale, job->n, column_scale);
    if (!sdx_run_has_in(run, X_ZERO)) return;
    sdx_tensor zero = get(run, X_ZERO);
    job->a_zero = sdx_int8_zeros(&zero, job->m, zeros);
}

static void project_int8(const sdx_run *run, const sizes *s, const float *bias, float *qkv, void *packing,
                         char **workspace)
{
    const attention *state = run->state;
    const void *packed = state->packed;
    int64_t rows = s->batch * s->queries;
    bool weight_signed = run->in[WEIGHT].dtype == SDX_I8;
    if (!packed) {
        sdx_gemm_int8_pack(run->kernels, run->threads, s->input, s->columns, run->in[WEIGHT].data, s->columns, 1,
                           weight_signed, packing);
        packed = packing;
    }
    int32_t *x_zero = sdx_workspace_take(workspace, (size_t)rows * sizeof *x_zero);
    int32_t *weight_zero = sdx_workspace_take(workspace, (size_t)s->columns * sizeof *weight_zero);
    float *scale = sdx_workspace_take(workspace, (size_t)s->columns * sizeof *scale);
    sdx_int8_epilogue epilogue = {.bias = bias};
    sdx_gemm_int8_job job = {.kernels = run->kernels,
                             .threads = run->threads,
                             .m = rows,
                             .n = s->columns,
                             .k = s->input,
                             .lda = s->input,
                             .packed = packed,
                             .c = qkv,
                             .ldc = s->columns,
                             .epilogue = &epilogue};
    place_input(run, &job, &epilogue, x_zero, scale, workspace);
    if (sdx_run_has_in(run, WEIGHT_ZERO)) {
        sdx_tensor zero = get(run, WEIGHT_ZERO);
        job.b_zero = sdx_int8_zeros(&zero, s->columns, weight_zero);
    }
    job.workspace =
        sdx_workspace_take(workspace, sdx_gemm_int8_workspace(run->kernels, run->threads, rows, s->input));
    sdx_gemm_int8_run(&job);
}

/* The job's Q, K and V inside the projection's rows. */
static void place_heads(sdx_attention_job *job, const sizes *s, const float *qkv)
{
    int64_t batch = s->queries * s->columns, qk = job->heads * s->head_dim;
    job->q = (sdx_heads){qkv, batch, s->head_dim, s->columns};
    job->k = (sdx_heads){qkv + qk, batch, s->head_dim, s->columns};
    job->v = (sdx_heads){qkv + 2 * qk, batch, s->value_dim, s->columns};
}

/* Appends to the past, writes `present`, and lets the heads read from there when there is a past. */
static void join_past(const sdx_run *run, const inputs *in, const sizes *s, sdx_attention_job *job,
                      float *scratch)
{
    bool has_past = sdx_run_has_in(run, in->past);
    float *present = sdx_run_has_out(run, 1) ? run->out[1].data : scratch;
    if (!has_past && !sdx_run_has_out(run, 1)) return;
    const float *past = has_past ? get(run, in->past).data : NULL;
    sdx_cache cache = {.batch = s->batch,
                       .heads = job->heads,
                       .dim = s->head_dim,
                       .past = s->past,
                       .past_room = s->past_room,
                       .fresh = s->queries,
                       .room = s->room,
                       .is_buffer = in->past_length >= 0 && sdx_run_has_in(run, in->past_length)};
    int64_t half = s->batch * job->heads * s->head_dim;
    sdx_cache_append(run->threads, &cache, past, job->k, present);
    sdx_cache_append(run->threads, &cache, past ? past + half * s->past_room : NULL, job->v,
                     present + half * s->room);
    job->k = sdx_heads_of(present, job->heads, s->room, s->head_dim);
    job->v = sdx_heads_of(present + half * s->room, job->heads, s->room, s->head_dim);
}

/* How much of a buffer is valid, and that mask and bias agree. */
static sdx_status read_past(const sdx_run *run, const inputs *in, sizes *s)
{
    sdx_tensor length = get(run, in->past_length);
    int64_t past = sdx_tensor_count(&length) == 1 ? sdx_tensor_get_i64(&length, 0) : -1;
    if (past < 0 || past > s->room - s->queries)
        return sdx_fail(run->err, SDX_ERR_USAGE,
                        "past_sequence_length %lld and %lld new tokens do not fit a buffer of %lld",
                        (long long)past, (long long)s->queries, (long long)s->room);
    s->past = past;
    s->keys = past + s->queries;
    if (in->bias >= 0 && sdx_run_has_in(run, in->bias) && run->in[in->bias].dim[3] != s->keys)
        return sdx_fail(run->err, SDX_ERR_USAGE, "attention_bias is for %lld keys, but there are %lld",
                        (long long)run->in[in->bias].dim[3], (long long)s->keys);
    if (!sdx_run_has_in(run, in->mask)) return SDX_OK;
    sdx_shape mask = sdx_tensor_shape(&run->in[in->mask]);
    return sdx_mask_check(&mask, s->batch, s->queries, s->keys, run->err);
}

static sdx_status run_common(sdx_run *run, const inputs *in)
{
    const attention *state = run->state;
    bool has_past = sdx_run_has_in(run, in->past), has_mask = sdx_run_has_in(run, in->mask);
    sdx_shape x = sdx_tensor_shape(&run->in[X]), w = sdx_tensor_shape(&run->in[WEIGHT]), past = {.rank = 0};
    if (has_past) past = sdx_tensor_shape(&run->in[in->past]);
    bool is_buffer = in->past_length >= 0 && sdx_run_has_in(run, in->past_length);
    sizes s = make_sizes(state, &x, &w, has_past ? &past : NULL, is_buffer);
    if (is_buffer) TRY(read_past(run, in, &s));
    char *workspace = run->workspace;
    float *qkv = sdx_workspace_take(&workspace, (size_t)(s.batch * s.queries * s.columns) * sizeof *qkv);
    size_t packed = 0;
    if (!state->packed && state->is_8bit) packed = run->kernels->gemm_int8.packed_bytes(s.input, s.columns);
    if (!state->weight && !state->is_8bit) packed = run->kernels->gemm_f32.packed_bytes(s.input, s.columns);
    void *packing = sdx_workspace_take(&workspace, packed);
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
    float *addend = NULL, *present = NULL;
    if (has_mask) {
        int64_t rows = run->in[in->mask].rank == 3 ? s.queries : 1;
        addend = sdx_workspace_take(&workspace, (size_t)(s.batch * rows * s.keys) * sizeof *addend);
        sdx_tensor mask = get(run, in->mask);
        job.mask_rows = sdx_mask_rows(&mask, s.batch, s.queries, s.keys);
        sdx_mask_fill(&mask, s.batch, job.mask_rows, s.keys, state->filter, addend);
        job.mask = job.mask_rows ? addend : NULL;
    }
    if (has_past)
        present = sdx_workspace_take(&workspace, (size_t)(2 * s.batch * state->heads * s.room * s.head_dim) *
                                                     sizeof *present);
    const float *bias = sdx_run_has_in(run, BIAS) ? get(run, BIAS).data : NULL;
    if (state->is_8bit)
        project_int8(run, &s, bias, qkv, packing, &workspace);
    else
        project_f32(run, &s, bias, qkv, packing, workspace);
    place_heads(&job, &s, qkv);
    join_past(run, in, &s, &job, present);
    sdx_tensor added = {0};
    if (in->bias >= 0 && sdx_run_has_in(run, in->bias)) {
        added = get(run, in->bias);
        sdx_attention_set_bias(&job, &added);
    }
    if (sdx_run_has_in(run, in->spans)) {
        sdx_tensor spans = get(run, in->spans);
        TRY(sdx_attention_set_spans(run, &spans, &job));
    }
    job.workspace = workspace;
    sdx_attention_run(&job);
    sdx_attention_fill_blind(&job);
    return SDX_OK;
}

static sdx_status run_attention(sdx_run *run)
{
    return run_common(run, &places_f32);
}
static sdx_status run_attention_8bit(sdx_run *run)
{
    return run_common(run, &places_int8);
}

#define MS  "com.microsoft"
#define OWN "sardonyx"
#define ANY SDX_OP_ANY_ALIGNMENT
static const sdx_op_def rows[] = {
    {MS, "Attention", 1, 0, 2, 7, 1, 2, ANY | SDX_OP_WIDE, infer_attention, prepare_attention, plan_attention,
     run_attention},
    {MS, "QAttention", 1, 0, 2, 9, 1, 2, ANY | SDX_OP_WIDE, infer_attention_8bit, prepare_attention_8bit,
     plan_attention_8bit, run_attention_8bit},
    {OWN, "DynamicAttention", 1, 0, 2, 9, 1, 2, ANY, infer_dynamic_attention, prepare_attention_8bit,
     plan_attention_8bit, run_attention_8bit},
    {OWN, "PackedAttention", 1, 0, 2, 8, 1, 1, ANY, infer_attention, prepare_attention, plan_attention, run_attention},
    {OWN, "PackedDynamicAttention", 1, 0, 2, 10, 1, 1, ANY, infer_dynamic_attention, prepare_attention_8bit,
     plan_attention_8bit, run_attention_8bit},
};

SDX_OP_TABLE(attention);
