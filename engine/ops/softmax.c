/* softmax.c: Softmax and LogSoftmax. Before opset 13 the tensor is seen as a matrix cut at `axis`, so that a
 * row is everything behind it; since 13 a row is one axis. Rows that lie apart in memory, and half-precision
 * ones, are gathered into a float32 buffer of the worker's own; float64 stays float64.
 */
#include <math.h>

#include "compute.h"

typedef struct softmax {
    int64_t axis;
    bool matrix; /* the rule before opset 13 */
    bool log;
} softmax;

typedef struct geometry {
    int64_t outer, n, inner; /* element (o, i, r) at (o*n + i)*inner + r */
} geometry;

static sdx_status infer_softmax(sdx_infer *infer)
{
    TRY(sdx_want_dtype(infer, 0, "the input", SDX_SET_FLOAT));
    int rank = infer->in[0].shape.rank, axis;
    int64_t asked = sdx_node_int(infer->node, "axis", rank == 1 ? 0 : -1);
    if (rank > 0 && asked != rank) TRY(sdx_axis_normalize(asked, rank, &axis, infer->err));
    return sdx_infer_same(infer);
}

static sdx_status prepare(sdx_prepare *p, bool matrix)
{
    softmax *state;
    PREPARE_STATE(p, state);
    state->axis = sdx_node_int(p->node, "axis", matrix ? 1 : -1);
    state->matrix = matrix;
    state->log = p->node->op_type[0] == 'L';
    return SDX_OK;
}

static sdx_status prepare_matrix(sdx_prepare *p)
{
    return prepare(p, true);
}
static sdx_status prepare_axis(sdx_prepare *p)
{
    return prepare(p, false);
}

static geometry find_rows(const softmax *state, const sdx_shape *s)
{
    int axis = (int)(state->axis < 0 ? state->axis + s->rank : state->axis);
    if (axis > s->rank) axis = s->rank;
    if (state->matrix) return (geometry){sdx_shape_span(s, 0, axis), sdx_shape_span(s, axis, s->rank), 1};
    if (s->rank == 0) return (geometry){1, 1, 1};
    return (geometry){sdx_shape_span(s, 0, axis), s->dim[axis], sdx_shape_span(s, axis + 1, s->rank)};
}

/* One row in and one row out per worker, or n doubles. */
static sdx_status plan_softmax(sdx_plan_step *step)
{
    geometry g = find_rows(step->state, &step->in[0].shape);
    size_t row = sdx_align_up((size_t)g.n * 2 * sizeof(float));
    return sdx_workspace_add(&step->workspace, (size_t)step->threads, row) ? SDX_OK
                                                                           : sdx_workspace_fail(step->err);
}

typedef struct task {
    const sdx_kernels *kernels;
    geometry g;
    bool log;
    sdx_dtype dtype;
    const void *x;
    void *y;
    char *workspace;
} task;

/* log(softmax(x)) = (x - max) - log(sum exp(x - max)); y may be x, scratch is another row. */
static void log_softmax(const sdx_kernels *k, int64_t n, const float *x, float *y, float *scratch)
{
    float max = k->reduce.max_f32(n, x);
    k->element.binary_f32[SDX_BINARY_SUB](n, x, 1, &max, 0, y);
    k->element.unary_f32[SDX_UNARY_EXP](n, y, scratch);
    float log_sum = logf(k->reduce.sum_f32(n, scratch));
    k->element.binary_f32[SDX_BINARY_SUB](n, y, 1, &log_sum, 0, y);
}

static void row_f64(int64_t n, const double *x, int64_t step, bool log_form, double *y, double *e)
{
    double max = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++) max = fmax(max, x[i * step]);
    for (int64_t i = 0; i < n; i++) sum += e[i] = exp(x[i * step] - max);
    for (int64_t i = 0; i < n; i++) y[i * step] = log_form ? x[i * step] - max - log(sum) : e[i] / sum;
}

static void row_buffered(const task *t, int64_t first, float *row, float *scratch)
{
    for (int64_t i = 0; i < t->g.n; i++)
        sdx_floats_load(t->kernels, t->dtype, t->x, first + i * t->g.inner, 1, row + i);
    if (t->log)
        log_softmax(t->kernels, t->g.n, row, row, scratch);
    else
        t->kernels->row.softmax_f32(t->g.n, row, row);
    for (int64_t i = 0; i < t->g.n; i++) sdx_floats_store(t->dtype, row + i, 1, t->y, first + i * t->g.inner);
}

static void rows_softmax(void *context, int64_t begin, int64_t end, int worker)
{
    const task *t = context;
    int64_t n = t->g.n;
    char *own = t->workspace + (size_t)worker * sdx_align_up((size_t)n * 2 * sizeof(float));
    float *row = (float *)(void *)own;
    for (int64_t i = begin; i < end; i++) {
        int64_t first = i / t->g.inner * n * t->g.inner + i % t->g.inner;
        const float *x = (const float *)t->x + first;
        float *y = (float *)t->y + first;
        if (t->dtype == SDX_F64)
            row_f64(n, (const double *)t->x + first, t->g.inner, t->log, (double *)t->y + first,
                    (double *)(void *)own);
        else if (t->dtype != SDX_F32 || t->g.inner != 1)
            row_buffered(t, first, row, row + n);
        else if (t->log)
            log_softmax(t->kernels, n, x, y, row);
        else
            t->kernels->row.softmax_f32(n, x, y);
    }
}

static sdx_status run_softmax(sdx_run *run)
{
    const softmax *state = run->state;
    sdx_shape shape = sdx_tensor_shape(&run->in[0]);
    task t = {run->kernels,    find_rows(state, &shape), state->log,    run->in[0].dtype,
              run->in[0].data, run->out[0].data,         run->workspace};
    sdx_parallel_for(run->threads, t.g.outer * t.g.inner, sdx_row_grain(t.g.n), rows_softmax, &t);
    return SDX_OK;
}

#define IN SDX_OP_INPLACE
static const sdx_op_def rows[] = {
    {"", "Softmax", 1, 12, 1, 1, 1, 1, IN, infer_softmax, prepare_matrix, plan_softmax, run_softmax},
    {"", "Softmax", 13, 0, 1, 1, 1, 1, IN, infer_softmax, prepare_axis, plan_softmax, run_softmax},
    {"", "LogSoftmax", 1, 12, 1, 1, 1, 1, IN, infer_softmax, prepare_matrix, plan_softmax, run_softmax},
    {"", "LogSoftmax", 13, 0, 1, 1, 1, 1, IN, infer_softmax, prepare_axis, plan_softmax, run_softmax},
};

SDX_OP_TABLE(softmax);
