/* gates.c: com.microsoft's fusions around gates and norms of models with linear attention (Qwen3-Next),
 * hyper-connections (Zhu et al., arXiv:2409.19606) and Engram memories. X is rows [.., C] or branches [.., B, H]:
 *
 *     GatedAdd            y = x + z * gate, a gate per row
 *     GatedRMSNorm        y = rms(x) * scale * silu(gate) or sigmoid(gate), over groups as long as scale
 *     BranchwiseRMSNorm   y = rms(x) * scale for each branch
 *     ScaledSiLU          y = z * sigmoid(z), z = scale * x
 *     LinearAttentionGate decay = factor * softplus(a + bias), beta = sigmoid(b)
 *     HyperConnectionPreMix   y[h] = r * sum_b x[b,h] * pre[b,h]
 *     HyperConnectionPostMix  y[k,h] = sum_b mix[b,k] * x[b,h] + post[k,h] * z[h]
 *     EngramGate          y = g * v, g = sigmoid(sign(d) sqrt(max(|d|, 1e-6))), d = rms(key) . rms(query) / sqrt(H)
 *
 * All compute in float32, whatever the types of their inputs, which need not be one; where the definition rounds in
 * between (GatedAdd, ScaledSiLU) so do we.
 *
 * Workspace: inputs and outputs as float32 where they are half precision, and a row of ones (BranchwiseRMSNorm).
 */
#include <math.h>
#include <string.h>

#include "compute.h"
#include "contents.h"

enum { MOST_IN = 6, MOST_OUT = 2, CHUNK = 256 };
#define FLOATS (SDX_SET(SDX_F32) | SDX_SET(SDX_F16) | SDX_SET(SDX_BF16))

/* ---- shared ---------------------------------------------------------------------------------------------- */

static sdx_status want_floats(const sdx_infer *infer, const char *const *name)
{
    for (int i = 0; i < infer->n_in; i++) TRY(sdx_want_dtype(infer, i, name[i], FLOATS));
    return SDX_OK;
}

/* Input i has the shape of input 0, but for the last size, which is `last`. */
static sdx_status want_shape(const sdx_infer *infer, int i, const char *name, sdx_dim last)
{
    const sdx_shape *x = &infer->in[0].shape;
    if (x->rank < 0) return SDX_OK;
    TRY(sdx_want_rank(infer, i, name, x->rank, x->rank));
    for (int d = 0; d + 1 < x->rank; d++) TRY(sdx_want_dim(infer, i, name, d, x->dim[d]));
    return x->rank ? sdx_want_dim(infer, i, name, -1, last) : SDX_OK;
}

static sdx_status fail_shape(const sdx_infer *infer, int i, const char *name, const char *wanted)
{
    char text[SDX_SHAPE_TEXT];
    return sdx_fail(infer->err, SDX_ERR_USAGE, "%s has shape %s, but must be %s", name,
                    sdx_shape_format(&infer->in[i].shape, text, sizeof text), wanted);
}

typedef struct branches {
    int64_t count, size; /* -1: not known */
    int lead;            /* dims before them */
} branches;

/* X is [.., B, H], or [.., B * H] when num_branches says so. */
static sdx_status read_branches(const sdx_node *node, const sdx_shape *x, branches *b, sdx_error *err)
{
    int64_t count = sdx_node_int(node, "num_branches", 0);
    int rank = x->rank;
    *b = (branches){-1, -1, -1};
    if (rank < 0) return SDX_OK;
    if (count < 0 || rank < (count ? 1 : 2) || (count && x->dim[rank - 1] >= 0 && x->dim[rank - 1] % count))
        return sdx_fail(err, SDX_ERR_USAGE, "the input is not %s branches", count ? "num_branches" : "rows of");
    sdx_dim last = x->dim[rank - 1];
    b->lead = count ? rank - 1 : rank - 2;
    b->count = count ? count : x->dim[rank - 2];
    b->size = count && last >= 0 ? last / count : count ? -1 : last;
    return SDX_OK;
}

static sdx_status plan_floats(sdx_plan_step *step)
{
    bool ok = true;
    for (int i = 0; i < step->n_in && ok; i++) ok = sdx_floats_plan(&step->in[i], &step->workspace);
    for (int o = 0; o < step->n_out && ok; o++) ok = sdx_floats_plan(&step->out[o], &step->workspace);
    return ok ? SDX_OK : sdx_workspace_fail(step->err);
}

typedef struct task {
    const sdx_run *run;
    const sdx_kernels *k;
    const float *in[MOST_IN];
    float *out[MOST_OUT];
    int64_t rows, n; /* of what is done one after the other, and how long each is */
    int64_t branches, width; /* width: numbers of a gate for each branch, 1 or n */
    float number;            /* epsilon or a factor */
    bool silu;
    char *rest; /* of the workspace */
} task;

static task open_task(const sdx_run *run)
{
    char *workspace = run->workspace;
    task t = {.run = run, .k = run->kernels};
    for (int i = 0; i < run->n_in; i++)
        if (sdx_run_has_in(run, i)) t.in[i] = sdx_floats_of(run->kernels, &run->in[i], &workspace);
    for (int o = 0; o < run->n_out; o++)
        if (sdx_run_has_out(run, o)) t.out[o] = sdx_floats_for(&run->out[o], &workspace);
    t.rest = workspace;
    return t;
}

static sdx_status run_task(task *t, sdx_parallel_fn fn)
{
    const sdx_run *run = t->run;
    int64_t work = t->branches > 1 ? t->n * t->branches : t->n;
    if (t->rows && t->n) sdx_parallel_for(run->threads, t->rows, sdx_row_grain(work), fn, t);
    for (int o = 0; o < run->n_out; o++)
        if (sdx_run_has_out(run, o) && run->out[o].dtype != SDX_F32)
            sdx_floats_store(run->out[o].dtype, t->out[o], sdx_tensor_count(&run->out[o]), run->out[o].data, 0);
    return SDX_OK;
}

static float rounded(sdx_dtype dtype, float x)
{
    if (dtype == SDX_F16) return sdx_f16_to_f32(sdx_f32_to_f16(x));
    return dtype == SDX_BF16 ? sdx_bf16_to_f32(sdx_f32_to_bf16(x)) : x;
}

static int64_t last_of(const sdx_tensor *t)
{
    return t->rank ? t->dim[t->rank - 1] : 1;
}

static int64_t rows_of(const sdx_tensor *t, int64_t n)
{
    return n ? sdx_tensor_count(t) / n : 0;
}

/* ---- GatedAdd -------------------------------------------------------------------------------------------- */

static sdx_status infer_gated_add(sdx_infer *infer)
{
    static const char *const name[] = {"X", "Y", "gate"};
    TRY(want_floats(infer, name));
    TRY(sdx_want_rank(infer, 0, name[0], 1, SDX_MAX_RANK));
    TRY(want_shape(infer, 1, name[1], sdx_type_dim(&infer->in[0], -1)));
    TRY(want_shape(infer, 2, name[2], 1));
    return sdx_infer_same(infer);
}

static void gated_add_rows(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const task *t = context;
    sdx_dtype dtype = t->run->out[0].dtype;
    for (int64_t r = begin; r < end; r++)
        for (int64_t i = r * t->n; i < (r + 1) * t->n; i++)
            t->out[0][i] = t->in[0][i] + rounded(dtype, t->in[1][i] * t->in[2][r]);
}

static sdx_status run_gated_add(sdx_run *run)
{
    task t = open_task(run);
    t.n = last_of(&run->in[0]);
    t.rows = rows_of(&run->in[0], t.n);
    return run_task(&t, gated_add_rows);
}

/* ---- norms ----------------------------------------------------------------------------------------------- */

static sdx_status read_activation(const sdx_node *node, bool *silu, sdx_error *err)
{
    const char *name = sdx_node_string(node, "activation", "silu");
    *silu = !strcmp(name, "silu") || !strcmp(name, "swish");
    if (*silu || !strcmp(name, "sigmoid")) return SDX_OK;
    return sdx_fail(err, SDX_ERR_UNSUPPORTED, "the activation \"%.40s\" is not known", name);
}

static sdx_status infer_gated_norm(sdx_infer *infer)
{
    static const char *const name[] = {"X", "scale", "gate"};
    bool silu;
    TRY(read_activation(infer->node, &silu, infer->err));
    TRY(want_floats(infer, name));
    TRY(sdx_want_rank(infer, 0, name[0], 1, SDX_MAX_RANK));
    TRY(sdx_want_rank(infer, 1, name[1], 1, 1));
    sdx_dim columns = sdx_type_dim(&infer->in[0], -1), n = sdx_type_dim(&infer->in[1], 0);
    if (columns >= 0 && n >= 0 && (n == 0 || columns % n))
        return fail_shape(infer, 1, name[1], "as long as the last dim of X or a part of it");
    TRY(want_shape(infer, 2, name[2], columns));
    return sdx_infer_same(infer);
}

static void gated_norm_rows(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const task *t = context;
    float gate[CHUNK];
    for (int64_t r = begin; r < end; r++) {
        const float *z = t->in[2] + r * t->n;
        float *y = t->out[0] + r * t->n;
        t->k->row.rms_norm_f32(t->n, t->in[0] + r * t->n, NULL, NULL, t->in[1], t->number, y, NULL, NULL);
        for (int64_t at = 0; at < t->n; at += CHUNK) {
            int64_t n = t->n - at < CHUNK ? t->n - at : CHUNK;
            t->k->element.unary_f32[SDX_UNARY_SIGMOID](n, z + at, gate);
            for (int64_t i = 0; i < n; i++) y[at + i] *= t->silu ? gate[i] * z[at + i] : gate[i];
        }
    }
}

static sdx_status run_gated_norm(sdx_run *run)
{
    task t = open_task(run);
    t.n = run->in[1].dim[0];
    t.rows = rows_of(&run->in[0], t.n);
    t.number = sdx_node_float(run->node, "epsilon", 1e-5f);
    TRY(read_activation(run->node, &t.silu, run->err));
    return run_task(&t, gated_norm_rows);
}

static sdx_status infer_branch_norm(sdx_infer *infer)
{
    static const char *const name[] = {"X", "scale"};
    branches b;
    TRY(want_floats(infer, name));
    TRY(read_branches(infer->node, &infer->in[0].shape, &b, infer->err));
    TRY(sdx_want_rank(infer, 1, name[1], 1, 2));
    if (sdx_infer_has(infer, 1) && b.count >= 0 && b.size >= 0 && sdx_shape_is_known(&infer->in[1].shape)) {
        int64_t have = sdx_shape_count(&infer->in[1].shape);
        bool one = infer->in[1].shape.rank == 1;
        if (have != b.count * b.size && !(one && have == b.size))
            return fail_shape(infer, 1, name[1], "a number per branch and column, or per column");
    }
    return sdx_infer_same(infer);
}

static sdx_status plan_branch_norm(sdx_plan_step *step)
{
    TRY(plan_floats(step));
    bool ok = sdx_workspace_add(&step->workspace, (size_t)sdx_type_dim(&step->in[0], -1), sizeof(float));
    return ok ? SDX_OK : sdx_workspace_fail(step->err);
}

static void branch_norm_rows(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const task *t = context;
    for (int64_t r = begin; r < end; r++)
        t->k->row.rms_norm_f32(t->n, t->in[0] + r * t->n, NULL, NULL, t->in[1] + r % t->branches * t->width, t->number,
                               t->out[0] + r * t->n, NULL, NULL);
}

static sdx_status run_branch_norm(sdx_run *run)
{
    task t = open_task(run);
    sdx_shape x = sdx_run_shape(run, 0);
    branches b;
    TRY(read_branches(run->node, &x, &b, run->err));
    t.n = b.size;
    t.rows = rows_of(&run->in[0], t.n);
    t.number = sdx_node_float(run->node, "epsilon", 1e-5f);
    t.branches = b.count;
    if (t.in[1]) {
        t.width = sdx_tensor_count(&run->in[1]) == b.size ? 0 : b.size;
    } else {
        float *ones = (float *)(void *)t.rest;
        for (int64_t i = 0; i < t.n; i++) ones[i] = 1;
        t.in[1] = ones;
    }
    return run_task(&t, branch_norm_rows);
}

/* ---- ScaledSiLU and LinearAttentionGate ------------------------------------------------------------------ */

static sdx_status infer_scaled(sdx_infer *infer)
{
    static const char *const name[] = {"X", "scale"};
    TRY(want_floats(infer, name));
    TRY(sdx_want_rank(infer, 1, name[1], 0, 0));
    return sdx_infer_same(infer);
}

static void scaled_rows(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const task *t = context;
    sdx_dtype dtype = t->run->out[0].dtype;
    int64_t count = sdx_tensor_count(&t->run->out[0]);
    float z[CHUNK], s[CHUNK];
    for (int64_t r = begin; r < end; r++) {
        int64_t at = r * CHUNK, n = count - at < CHUNK ? count - at : CHUNK;
        for (int64_t i = 0; i < n; i++) z[i] = rounded(dtype, t->number * t->in[0][at + i]);
        t->k->element.unary_f32[SDX_UNARY_SIGMOID](n, z, s);
        for (int64_t i = 0; i < n; i++) t->out[0][at + i] = z[i] * rounded(dtype, s[i]);
    }
}

static sdx_status run_scaled(sdx_run *run)
{
    task t = open_task(run);
    t.n = CHUNK;
    t.rows = (sdx_tensor_count(&run->in[0]) + CHUNK - 1) / CHUNK;
    t.number = t.in[1] ? t.in[1][0] : sdx_node_float(run->node, "alpha", 1.0f);
    return run_task(&t, scaled_rows);
}

enum { A, DT_BIAS, DECAY_SCALE, B };

static sdx_status infer_attention_gate(sdx_infer *infer)
{
    static const char *const name[] = {"a", "dt_bias", "decay_scale", "b"};
    sdx_dim heads = sdx_type_dim(&infer->in[A], -1);
    TRY(want_floats(infer, name));
    TRY(sdx_want_rank(infer, A, name[A], 3, 3));
    for (int i = DT_BIAS; i <= DECAY_SCALE; i++) {
        TRY(sdx_want_rank(infer, i, name[i], 1, 1));
        TRY(sdx_want_dim(infer, i, name[i], 0, heads));
    }
    TRY(want_shape(infer, B, name[B], heads));
    if (sdx_node_out(infer->node, 1) != SDX_NONE) TRY(sdx_want_present(infer, B, name[B]));
    sdx_infer_set(infer, 1, infer->in[A].dtype, &infer->in[A].shape);
    return sdx_infer_same(infer);
}

/* log(1 + exp(x)) in place, without overflow. */
static void softplus(const sdx_element_kernels *k, int64_t n, float *x)
{
    float e[CHUNK] = {0};
    for (int64_t i = 0; i < n; i++) e[i] = -fabsf(x[i]);
    k->unary_f32[SDX_UNARY_EXP](n, e, e);
    k->unary_f32[SDX_UNARY_LOG1P](n, e, e);
    for (int64_t i = 0; i < n; i++) x[i] = fmaxf(x[i], 0) + e[i];
}

static void attention_gate_rows(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const task *t = context;
    const float *bias = t->in[DT_BIAS], *scale = t->in[DECAY_SCALE];
    for (int64_t r = begin; r < end; r++) {
        const float *a = t->in[A] + r * t->n;
        float *decay = t->out[0] + r * t->n;
        for (int64_t i = 0; i < t->n; i++) decay[i] = a[i] + bias[i];
        for (int64_t i = 0; i < t->n; i += CHUNK)
            softplus(&t->k->element, t->n - i < CHUNK ? t->n - i : CHUNK, decay + i);
        for (int64_t i = 0; i < t->n; i++) decay[i] *= scale[i];
        if (t->out[1]) t->k->element.unary_f32[SDX_UNARY_SIGMOID](t->n, t->in[B] + r * t->n, t->out[1] + r * t->n);
    }
}

static sdx_status run_attention_gate(sdx_run *run)
{
    task t = open_task(run);
    t.n = last_of(&run->in[A]);
    t.rows = rows_of(&run->in[A], t.n);
    return run_task(&t, attention_gate_rows);
}

/* ---- hyper-connections ----------------------------------------------------------------------------------- */

/* Input i is a gate per branch, [.., B], [.., B, 1] or [.., B, H], and of flat branches also [.., B * H]. */
static sdx_status want_gate(const sdx_infer *infer, int i, const char *name, const branches *b, bool may_be_flat)
{
    const sdx_shape *x = &infer->in[0].shape, *gate = &infer->in[i].shape;
    if (b->lead < 0 || b->count < 0 || b->size < 0 || !sdx_shape_is_known(gate)) return SDX_OK;
    int rank = gate->rank, lead = b->lead;
    bool fits = rank > lead && rank <= lead + 2;
    for (int d = 0; d < lead && fits; d++) fits = x->dim[d] < 0 || x->dim[d] == gate->dim[d];
    sdx_dim last = fits ? gate->dim[rank - 1] : 0;
    if (fits && rank == lead + 1)
        fits = last == b->count || (may_be_flat && x->rank == rank && last == b->count * b->size);
    if (fits && rank == lead + 2) fits = gate->dim[lead] == b->count && (last == 1 || last == b->size);
    return fits ? SDX_OK : fail_shape(infer, i, name, "a number per branch, or per branch and column");
}

static sdx_status infer_pre_mix(sdx_infer *infer)
{
    static const char *const name[] = {"streams", "pre_mix"};
    branches b;
    TRY(want_floats(infer, name));
    TRY(read_branches(infer->node, &infer->in[0].shape, &b, infer->err));
    TRY(want_gate(infer, 1, name[1], &b, true));
    sdx_shape out = infer->in[0].shape;
    if (out.rank >= 0) {
        out.rank = b.lead + 1;
        out.dim[b.lead] = b.size >= 0 ? b.size : SDX_DIM_UNKNOWN;
    }
    sdx_infer_set(infer, 0, infer->in[0].dtype, &out);
    return SDX_OK;
}

static void pre_mix_rows(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const task *t = context;
    for (int64_t r = begin; r < end; r++) {
        float *y = t->out[0] + r * t->n;
        memset(y, 0, (size_t)t->n * sizeof *y);
        for (int64_t b = r * t->branches; b < (r + 1) * t->branches; b++)
            for (int64_t i = 0; i < t->n; i++)
                y[i] += t->in[0][b * t->n + i] * t->in[1][b * t->width + (t->width > 1 ? i : 0)];
        for (int64_t i = 0; i < t->n; i++) y[i] *= t->number;
    }
}

/* Branches of input 0, with input `gate` beside them. */
static sdx_status open_branches(const sdx_run *run, int gate, task *t)
{
    sdx_shape x = sdx_run_shape(run, 0);
    branches b;
    TRY(read_branches(run->node, &x, &b, run->err));
    *t = open_task(run);
    t->n = b.size;
    t->branches = b.count;
    t->rows = b.count ? rows_of(&run->in[0], b.size) / b.count : 0;
    t->width = sdx_tensor_count(&run->in[gate]) == t->rows * b.count ? 1 : b.size;
    return SDX_OK;
}

static sdx_status run_pre_mix(sdx_run *run)
{
    task t;
    TRY(open_branches(run, 1, &t));
    t.rows = rows_of(&run->out[0], t.n); /* also of no branches */
    t.number = sdx_node_float(run->node, "reduction_scale", 1.0f);
    return run_task(&t, pre_mix_rows);
}

enum { STREAMS, BLOCK_OUTPUT, POST_MIX, STREAM_MIX };

static sdx_status infer_post_mix(sdx_infer *infer)
{
    static const char *const name[] = {"streams", "block_output", "post_mix", "stream_mix"};
    const sdx_shape *x = &infer->in[STREAMS].shape;
    branches b;
    TRY(want_floats(infer, name));
    TRY(read_branches(infer->node, x, &b, infer->err));
    TRY(want_gate(infer, POST_MIX, name[POST_MIX], &b, false));
    if (b.lead >= 0) TRY(sdx_want_rank(infer, BLOCK_OUTPUT, name[BLOCK_OUTPUT], b.lead + 1, b.lead + 1));
    if (b.lead >= 0) TRY(sdx_want_rank(infer, STREAM_MIX, name[STREAM_MIX], b.lead + 2, b.lead + 2));
    for (int i = BLOCK_OUTPUT; i <= STREAM_MIX; i += 2)
        for (int d = 0; d < b.lead; d++) TRY(sdx_want_dim(infer, i, name[i], d, x->dim[d]));
    if (b.lead >= 0 && b.size >= 0) TRY(sdx_want_dim(infer, BLOCK_OUTPUT, name[BLOCK_OUTPUT], -1, b.size));
    for (int d = 1; d <= 2 && b.lead >= 0 && b.count >= 0; d++)
        TRY(sdx_want_dim(infer, STREAM_MIX, name[STREAM_MIX], -d, b.count));
    return sdx_infer_same(infer);
}

static void post_mix_rows(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const task *t = context;
    int64_t n = t->n, count = t->branches;
    for (int64_t at = begin * count; at < end * count; at++) {
        int64_t r = at / count, k = at % count;
        const float *x = t->in[STREAMS] + r * count * n, *z = t->in[BLOCK_OUTPUT] + r * n;
        const float *mix = t->in[STREAM_MIX] ? t->in[STREAM_MIX] + r * count * count + k : NULL;
        const float *post = t->in[POST_MIX] + at * t->width;
        float *y = t->out[0] + at * n;
        if (mix)
            memset(y, 0, (size_t)n * sizeof *y);
        else
            memcpy(y, x + k * n, (size_t)n * sizeof *y);
        for (int64_t b = 0; b < count && mix; b++)
            for (int64_t i = 0; i < n; i++) y[i] += mix[b * count] * x[b * n + i];
        for (int64_t i = 0; i < n; i++) y[i] += post[t->width > 1 ? i : 0] * z[i];
    }
}

static sdx_status run_post_mix(sdx_run *run)
{
    task t;
    TRY(open_branches(run, POST_MIX, &t));
    return run_task(&t, post_mix_rows);
}

/* ---- EngramGate ------------------------------------------------------------------------------------------ */

enum { KEY, QUERY, VALUE, KEY_SCALE, QUERY_SCALE, NORM_SCALE };

static sdx_status infer_engram(sdx_infer *infer)
{
    static const char *const name[] = {"key", "query", "value", "key_norm_scale", "query_norm_scale", "conv_norm_scale"};
    const sdx_type *key = &infer->in[KEY];
    TRY(want_floats(infer, name));
    TRY(sdx_want_rank(infer, KEY, name[KEY], 4, 4));
    TRY(want_shape(infer, QUERY, name[QUERY], sdx_type_dim(key, 3)));
    TRY(sdx_want_rank(infer, VALUE, name[VALUE], 3, 3));
    for (int d = 0; d < 3; d++) TRY(sdx_want_dim(infer, VALUE, name[VALUE], d, sdx_type_dim(key, d == 2 ? 3 : d)));
    for (int i = KEY_SCALE; i <= NORM_SCALE; i++) {
        TRY(sdx_want_rank(infer, i, name[i], 2, 2));
        for (int d = 0; d < 2; d++) TRY(sdx_want_dim(infer, i, name[i], d, sdx_type_dim(key, d + 2)));
    }
    if (sdx_node_out(infer->node, 1) != SDX_NONE) TRY(sdx_want_present(infer, NORM_SCALE, name[NORM_SCALE]));
    sdx_infer_set(infer, 1, key->dtype, &key->shape);
    return sdx_infer_same(infer);
}

/* Row r of the key's and the query's, normed, one times the other over sqrt(H). */
static double engram_score(const task *t, int64_t r)
{
    const float *k = t->in[KEY] + r * t->n, *q = t->in[QUERY] + r * t->n;
    const float *ks = t->in[KEY_SCALE] + r % t->branches * t->n, *qs = t->in[QUERY_SCALE] + r % t->branches * t->n;
    double kk = 0, qq = 0, kq = 0;
    for (int64_t i = 0; i < t->n; i++) {
        kk += (double)k[i] * k[i];
        qq += (double)q[i] * q[i];
        kq += (double)k[i] * ks[i] * q[i] * qs[i];
    }
    double n = (double)t->n, epsilon = t->number;
    return kq / (sqrt(kk / n + epsilon) * sqrt(qq / n + epsilon) * sqrt(n));
}

static void engram_rows(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const task *t = context;
    for (int64_t r = begin; r < end; r++) {
        const float *v = t->in[VALUE] + r / t->branches * t->n;
        float *y = t->out[0] + r * t->n;
        double score = engram_score(t, r), sign = (score > 0) - (score < 0);
        float gate = (float)(sign * sqrt(fmax(fabs(score), 1e-6)));
        t->k->element.unary_f32[SDX_UNARY_SIGMOID](1, &gate, &gate);
        for (int64_t i = 0; i < t->n; i++) y[i] = gate * v[i];
        if (t->out[1])
            t->k->row.rms_norm_f32(t->n, y, NULL, NULL, t->in[NORM_SCALE] + r % t->branches * t->n, t->number,
                                   t->out[1] + r * t->n, NULL, NULL);
    }
}

static sdx_status run_engram(sdx_run *run)
{
    task t = open_task(run);
    t.n = run->in[KEY].dim[3];
    t.branches = run->in[KEY].dim[2];
    t.rows = rows_of(&run->in[KEY], t.n);
    t.number = sdx_node_float(run->node, "epsilon", 1e-5f);
    return run_task(&t, engram_rows);
}

#define MS "com.microsoft"
static const sdx_op_def rows[] = {
    {MS, "GatedAdd", 1, 0, 3, 3, 1, 1, 0, infer_gated_add, NULL, plan_floats, run_gated_add},
    {MS, "GatedRMSNorm", 1, 0, 3, 3, 1, 1, 0, infer_gated_norm, NULL, plan_floats, run_gated_norm},
    {MS, "BranchwiseRMSNorm", 1, 0, 1, 2, 1, 1, 0, infer_branch_norm, NULL, plan_branch_norm, run_branch_norm},
    {MS, "ScaledSiLU", 1, 0, 1, 2, 1, 1, 0, infer_scaled, NULL, plan_floats, run_scaled},
    {MS, "LinearAttentionGate", 1, 0, 3, 4, 1, 2, 0, infer_attention_gate, NULL, plan_floats, run_attention_gate},
    {MS, "HyperConnectionPreMix", 1, 0, 2, 2, 1, 1, 0, infer_pre_mix, NULL, plan_floats, run_pre_mix},
    {MS, "HyperConnectionPostMix", 1, 0, 3, 4, 1, 1, 0, infer_post_mix, NULL, plan_floats, run_post_mix},
    {MS, "EngramGate", 1, 0, 5, 6, 1, 2, 0, infer_engram, NULL, plan_floats, run_engram},
};

SDX_OP_TABLE(gates);
