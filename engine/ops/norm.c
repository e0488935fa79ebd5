/* norm.c: normalization of rows: LayerNormalization, RMSNormalization and SimplifiedLayerNormalization (the
 * same under the name ONNX Runtime gives it), and com.microsoft's forms that add a skip tensor and a bias
 * before.
 *
 * One row kernel does the addition and the normalization in one visit. Half-precision rows are widened into a
 * buffer of the worker's own; so is float64, whose statistics are float32 by the operator's definition
 * (stash_type 1).
 */
#include "compute.h"

typedef struct norm {
    bool rms, skip; /* skip: inputs x, skip, gamma, [beta,] bias; else x, gamma, [beta] */
    float epsilon;
    int64_t axis;
    int gamma, beta, bias; /* input numbers; -1: the operator has none */
} norm;

/* ---- infer ----------------------------------------------------------------------------------------------- */

static sdx_status check_row(const sdx_infer *infer, int i, const char *name)
{
    TRY(sdx_want_same_dtype(infer, i, name, 0, "the input"));
    if (sdx_infer_in(infer, i)->shape.rank < 0) return SDX_OK;
    TRY(sdx_want_rank(infer, i, name, 1, 1));
    return sdx_want_dim(infer, i, name, 0, sdx_type_dim(&infer->in[0], -1));
}

/* Shape of Mean and InvStdDev: 1 from the axis on. */
static sdx_shape stat_shape(sdx_shape s, int axis)
{
    for (int i = axis; i < s.rank; i++) s.dim[i] = 1;
    return s;
}

static sdx_status infer_norm(sdx_infer *infer)
{
    int axis = 0, rank = infer->in[0].shape.rank;
    TRY(sdx_want_dtype(infer, 0, "the input", SDX_SET_FLOAT));
    TRY(sdx_want_dtype(infer, 1, "the scale", SDX_SET_FLOAT));
    if (rank >= 0) TRY(sdx_axis_normalize(sdx_node_int(infer->node, "axis", -1), rank, &axis, infer->err));
    for (int i = 1; i < infer->n_in && i < 3 && rank >= 0; i++) {
        const sdx_shape *s = &infer->in[i].shape, rows = infer->in[0].shape;
        sdx_shape row = sdx_shape_make(rank - axis, rows.dim + axis), joint;
        TRY(sdx_shape_broadcast(s, &row, &joint, infer->err));
        if (joint.rank > row.rank)
            return sdx_fail(infer->err, SDX_ERR_UNSUPPORTED,
                            "the scale or bias has more dimensions than the %d that "
                            "are normalized",
                            row.rank);
        for (int d = 0; d < joint.rank; d++)
            if (joint.dim[d] > 1 && row.dim[d] == 1)
                return sdx_fail(infer->err, SDX_ERR_USAGE, "the scale or bias does not broadcast to the input");
    }
    sdx_infer_set(infer, 0, infer->in[0].dtype, &infer->in[0].shape);
    sdx_shape stat = stat_shape(infer->in[0].shape, axis);
    for (int i = 1; i < infer->n_out; i++) sdx_infer_set(infer, i, SDX_F32, &stat);
    return SDX_OK;
}

/* skip has the input's shape, or repeats over the batch as (1, S, H) or (S, H). */
static sdx_status check_skip(const sdx_infer *infer)
{
    const sdx_shape *skip = &sdx_infer_in(infer, 1)->shape, *x = &infer->in[0].shape;
    TRY(sdx_want_same_dtype(infer, 1, "skip", 0, "the input"));
    if (skip->rank < 0 || x->rank < 0) return SDX_OK;
    bool ok = skip->rank <= x->rank && skip->rank >= 1;
    bool repeats = false;
    for (int i = 1; ok && i <= x->rank; i++) {
        sdx_dim a = i <= skip->rank ? skip->dim[skip->rank - i] : 1, b = x->dim[x->rank - i];
        bool same = a < 0 || b < 0 || a == b;
        repeats |= !same;
        ok = repeats ? a == 1 : same;
    }
    if (ok) return SDX_OK;
    char tx[SDX_SHAPE_TEXT], ts[SDX_SHAPE_TEXT];
    return sdx_fail(infer->err, SDX_ERR_USAGE, "skip %s does not fit the input %s",
                    sdx_shape_format(skip, ts, sizeof ts), sdx_shape_format(x, tx, sizeof tx));
}

static sdx_status infer_skip(sdx_infer *infer)
{
    TRY(sdx_want_dtype(infer, 0, "the input", SDX_SET_FLOAT));
    TRY(sdx_want_rank(infer, 0, "the input", 2, 3));
    TRY(check_skip(infer));
    TRY(check_row(infer, 2, "gamma"));
    TRY(check_row(infer, 3, "the fourth input (beta or bias)"));
    TRY(check_row(infer, 4, "bias"));
    sdx_shape stat = stat_shape(infer->in[0].shape, infer->in[0].shape.rank - 1);
    sdx_infer_set(infer, 0, infer->in[0].dtype, &infer->in[0].shape);
    sdx_infer_set(infer, 1, SDX_F32, &stat);
    sdx_infer_set(infer, 2, SDX_F32, &stat);
    sdx_infer_set(infer, 3, infer->in[0].dtype, &infer->in[0].shape);
    return SDX_OK;
}

/* ---- prepare and plan ------------------------------------------------------------------------------------ */

static sdx_status prepare(sdx_prepare *p, norm form)
{
    norm *state;
    PREPARE_STATE(p, state);
    *state = form;
    state->epsilon = sdx_node_float(p->node, "epsilon", form.epsilon);
    state->axis = sdx_node_int(p->node, "axis", -1);
    return SDX_OK;
}

static sdx_status prepare_layer(sdx_prepare *p)
{
    return prepare(p, (norm){false, false, 1e-5f, -1, 1, 2, -1});
}
static sdx_status prepare_rms(sdx_prepare *p)
{
    return prepare(p, (norm){true, false, 1e-5f, -1, 1, -1, -1});
}
static sdx_status prepare_skip(sdx_prepare *p)
{
    return prepare(p, (norm){false, true, 1e-12f, -1, 2, 3, 4});
}
static sdx_status prepare_skip_rms(sdx_prepare *p)
{
    return prepare(p, (norm){true, true, 1e-12f, -1, 2, -1, 3});
}

/* The dims that are normalized together. */
static sdx_shape row_shape(const norm *state, const sdx_shape *x)
{
    int axis = (int)(state->axis < 0 ? state->axis + x->rank : state->axis);
    return sdx_shape_make(x->rank - axis, x->dim + axis);
}

/* Workspace: gamma, beta and bias as full float32 rows where they are not, then per worker x, skip, y and sum.
 */
static sdx_status plan_norm(sdx_plan_step *step)
{
    sdx_shape shape = row_shape(step->state, &step->in[0].shape);
    size_t row = sdx_align_up((size_t)sdx_shape_count(&shape) * sizeof(float));
    size_t rows = step->in[0].dtype == SDX_F32 ? 0 : 4 * (size_t)step->threads;
    return sdx_workspace_add(&step->workspace, rows + 3, row) ? SDX_OK : sdx_workspace_fail(step->err);
}

/* ---- run ------------------------------------------------------------------------------------------------- */

typedef struct task {
    const sdx_kernels *kernels;
    const norm *state;
    int64_t n, skip_rows;
    sdx_dtype dtype;
    const void *x, *skip;
    const float *gamma, *beta, *bias;
    void *y, *sum;
    float *mean, *inv_std;
    char *rows; /* per worker 4 rows, for types other than float32 */
} task;

static void norm_row(const task *t, int64_t i, const float *x, const float *skip, float *y, float *sum)
{
    float *mean = t->mean ? t->mean + i : NULL, *inv_std = t->inv_std ? t->inv_std + i : NULL;
    const sdx_row_kernels *k = &t->kernels->row;
    if (t->state->rms) {
        k->rms_norm_f32(t->n, x, skip, t->bias, t->gamma, t->state->epsilon, y, sum, inv_std);
        if (mean) *mean = 0;
    } else {
        k->layer_norm_f32(t->n, x, skip, t->bias, t->gamma, t->beta, t->state->epsilon, y, sum, mean, inv_std);
    }
}

static void wide_row(const task *t, int64_t i, float *x, float *skip, float *y, float *sum)
{
    int64_t n = t->n;
    sdx_floats_load(t->kernels, t->dtype, t->x, i * n, n, x);
    if (t->skip) sdx_floats_load(t->kernels, t->dtype, t->skip, i % t->skip_rows * n, n, skip);
    norm_row(t, i, x, t->skip ? skip : NULL, y, t->sum ? sum : NULL);
    sdx_floats_store(t->dtype, y, n, t->y, i * n);
    if (t->sum) sdx_floats_store(t->dtype, sum, n, t->sum, i * n);
}

static void norm_rows(void *context, int64_t begin, int64_t end, int worker)
{
    const task *t = context;
    int64_t n = t->n;
    if (t->dtype == SDX_F32) {
        for (int64_t i = begin; i < end; i++)
            norm_row(t, i, (const float *)t->x + i * n,
                     t->skip ? (const float *)t->skip + i % t->skip_rows * n : NULL, (float *)t->y + i * n,
                     t->sum ? (float *)t->sum + i * n : NULL);
        return;
    }
    size_t row = sdx_align_up((size_t)n * sizeof(float));
    char *own = t->rows + (size_t)worker * 4 * row;
    float *part[4];
    for (int r = 0; r < 4; r++) part[r] = sdx_workspace_take(&own, row);
    for (int64_t i = begin; i < end; i++) wide_row(t, i, part[0], part[1], part[2], part[3]);
}

/* Input `which` as a float32 row [n]: itself, or spread over the normalized dims into the workspace. */
static const float *find_row(const sdx_run *run, int which, int64_t n, const sdx_shape *full, char **workspace)
{
    float *row = sdx_workspace_take(workspace, (size_t)n * sizeof *row);
    if (which < 0 || !sdx_run_has_in(run, which)) return NULL;
    const sdx_tensor *t = &run->in[which];
    if (t->dtype == SDX_F32 && sdx_tensor_count(t) == n) return t->data;
    sdx_shape own = sdx_tensor_shape(t);
    int64_t stride[SDX_MAX_RANK];
    sdx_shape_broadcast_strides(&own, full, stride);
    for (int64_t i = 0; i < n; i++) {
        int64_t rest = i, at = 0;
        for (int d = full->rank - 1; d >= 0; d--) {
            at += rest % full->dim[d] * stride[d];
            rest /= full->dim[d];
        }
        sdx_floats_load(run->kernels, t->dtype, t->data, at, 1, row + i);
    }
    return row;
}

static sdx_status run_norm(sdx_run *run)
{
    const norm *state = run->state;
    sdx_shape x = sdx_tensor_shape(&run->in[0]), row = row_shape(state, &x);
    int64_t n = sdx_shape_count(&row), count = sdx_shape_count(&x);
    if (count == 0) return SDX_OK;
    char *workspace = run->workspace;
    task t = {.kernels = run->kernels,
              .state = state,
              .n = n,
              .skip_rows = 1,
              .dtype = run->in[0].dtype,
              .x = run->in[0].data,
              .y = run->out[0].data};
    t.gamma = find_row(run, state->gamma, n, &row, &workspace);
    t.beta = find_row(run, state->beta, n, &row, &workspace);
    t.bias = find_row(run, state->bias, n, &row, &workspace);
    t.rows = workspace;
    if (state->skip) {
        t.skip = run->in[1].data;
        t.skip_rows = sdx_tensor_count(&run->in[1]) / n;
    }
    int inv_std = state->rms && !state->skip ? 1 : 2;
    if (inv_std == 2 && sdx_run_has_out(run, 1)) t.mean = run->out[1].data;
    if (sdx_run_has_out(run, inv_std)) t.inv_std = run->out[inv_std].data;
    if (state->skip && sdx_run_has_out(run, 3)) t.sum = run->out[3].data;
    sdx_parallel_for(run->threads, count / n, sdx_row_grain(n), norm_rows, &t);
    return SDX_OK;
}

#define MS "com.microsoft"
static const sdx_op_def rows[] = {
    {"", "LayerNormalization", 1, 0, 2, 3, 1, 3, SDX_OP_INPLACE, infer_norm, prepare_layer, plan_norm,
     run_norm},
    {"", "RMSNormalization", 23, 0, 2, 2, 1, 1, SDX_OP_INPLACE, infer_norm, prepare_rms, plan_norm, run_norm},
    {"", "SimplifiedLayerNormalization", 1, 0, 2, 2, 1, 2, SDX_OP_INPLACE, infer_norm, prepare_rms, plan_norm,
     run_norm},
    {MS, "SkipLayerNormalization", 1, 0, 3, 5, 1, 4, 0, infer_skip, prepare_skip, plan_norm, run_norm},
    {MS, "SkipSimplifiedLayerNormalization", 1, 0, 3, 4, 1, 4, 0, infer_skip, prepare_skip_rms, plan_norm,
     run_norm},
};

SDX_OP_TABLE(norm);
