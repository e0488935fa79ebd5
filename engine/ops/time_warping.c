/* time_warping.c: com.microsoft's operators that find when Whisper heard a word, from the attention of its decoder.
 *
 * UnfoldTensor: all slices of `size` along a dim, `step` apart, one more dim at the end; the windows of a median
 * filter.
 *
 * DynamicTimeWarping: the path of least cost from the first to the last element of a matrix [M, N], by steps right,
 * down or both (Sakoe and Chiba, 1978), as rows and columns [2, length]. Where steps cost the same, ONNX Runtime goes
 * right rather than down, and down rather than both.
 *
 * Workspace of the latter: the least costs of two columns, and the step that led to each element.
 */
#include <math.h>
#include <string.h>

#include "compute.h"
#include "contents.h"
#include "copy.h"

/* ---- UnfoldTensor ---------------------------------------------------------------------------------------- */

typedef struct unfold {
    int axis;
    int64_t size, step;
} unfold;

static sdx_status read_unfold(const sdx_node *n, int rank, unfold *u, sdx_error *err)
{
    *u = (unfold){.size = sdx_node_int(n, "size", 0), .step = sdx_node_int(n, "step", 1)};
    if (u->size < 1 || u->step < 1)
        return sdx_fail(err, SDX_ERR_FILE, "size %lld and step %lld make no sense", (long long)u->size,
                        (long long)u->step);
    return sdx_axis_normalize(sdx_node_int(n, "dim", -1), rank, &u->axis, err);
}

static sdx_status infer_unfold(sdx_infer *infer)
{
    const sdx_type *x = &infer->in[0];
    sdx_shape out = x->shape;
    unfold u;
    infer->out[0].dtype = x->dtype;
    if (out.rank < 0) return SDX_OK;
    TRY(sdx_want_rank(infer, 0, "the input", 1, SDX_MAX_RANK - 1));
    TRY(read_unfold(infer->node, out.rank, &u, infer->err));
    if (out.dim[u.axis] >= 0 && out.dim[u.axis] < u.size)
        return sdx_fail(infer->err, SDX_ERR_USAGE, "dim %d is %lld, shorter than a slice of %lld", u.axis,
                        (long long)out.dim[u.axis], (long long)u.size);
    out.dim[u.axis] = out.dim[u.axis] >= 0 ? (out.dim[u.axis] - u.size) / u.step + 1 : SDX_DIM_UNKNOWN;
    out.dim[out.rank++] = u.size;
    sdx_infer_set(infer, 0, x->dtype, &out);
    return SDX_OK;
}

static sdx_status run_unfold(sdx_run *run)
{
    sdx_shape x = sdx_run_shape(run, 0), y = sdx_tensor_shape(&run->out[0]);
    unfold u;
    TRY(read_unfold(run->node, x.rank, &u, run->err));
    sdx_copy c = {
        .rank = y.rank, .src = run->in[0].data, .dst = run->out[0].data, .size = sdx_element_size(run->in[0].dtype)};
    sdx_shape_strides(&x, c.src_stride);
    sdx_shape_strides(&y, c.dst_stride);
    c.src_stride[x.rank] = c.src_stride[u.axis];
    c.src_stride[u.axis] *= u.step;
    memcpy(c.dim, y.dim, (size_t)y.rank * sizeof *c.dim);
    if (sdx_shape_count(&y)) sdx_copy_strided(&c, run->threads);
    return SDX_OK;
}

/* ---- DynamicTimeWarping ---------------------------------------------------------------------------------- */

typedef enum move { BOTH, DOWN, RIGHT } move;

static sdx_status infer_warping(sdx_infer *infer)
{
    TRY(sdx_want_dtype(infer, 0, "the input", SDX_SET(SDX_F32)));
    TRY(sdx_want_rank(infer, 0, "the input", 2, 3));
    if (infer->in[0].shape.rank == 3) TRY(sdx_want_dim(infer, 0, "the input", 0, 1));
    for (int d = -2; d < 0; d++)
        if (sdx_type_dim(&infer->in[0], d) == 0) return sdx_fail(infer->err, SDX_ERR_USAGE, "the matrix is empty");
    sdx_infer_set(infer, 0, SDX_I32, &(sdx_shape){2, {2, SDX_DIM_UNKNOWN}});
    return SDX_OK;
}

static sdx_status plan_warping(sdx_plan_step *step)
{
    size_t rows = (size_t)sdx_type_dim(&step->in[0], -2), columns = (size_t)sdx_type_dim(&step->in[0], -1);
    bool ok = sdx_workspace_add(&step->workspace, rows, sizeof(float)) &&
              sdx_workspace_add(&step->workspace, rows, sizeof(float)) &&
              sdx_workspace_add(&step->workspace, rows, columns);
    return ok ? SDX_OK : sdx_workspace_fail(step->err);
}

static move cheapest(float both, float down, float right, float *cost)
{
    move m = both < down && both < right ? BOTH : down < both && down < right ? DOWN : RIGHT;
    *cost = m == BOTH ? both : m == DOWN ? down : right;
    return m;
}

/* came: [columns, rows], how each element was reached. */
static void find_moves(int64_t rows, int64_t columns, const float *cost, float *last, float *now, uint8_t *came)
{
    for (int64_t j = 0; j < columns; j++) {
        for (int64_t i = 0; i < rows; i++) {
            float best, corner = i || j ? INFINITY : 0;
            float both = i && j ? last[i - 1] : corner, down = i ? now[i - 1] : INFINITY,
                  right = j ? last[i] : INFINITY;
            came[j * rows + i] = (uint8_t)cheapest(both, down, right, &best);
            now[i] = best + cost[i * columns + j];
        }
        float *swap = last;
        last = now;
        now = swap;
    }
}

/* Backwards along the moves: how many elements the path has; written from the back of out [2, length] when given. */
static int64_t follow(int64_t rows, int64_t columns, const uint8_t *came, int32_t *out, int64_t length)
{
    int64_t count = 0, i = rows - 1, j = columns - 1;
    while (i >= 0 && j >= 0) {
        move m = i == 0 && j == 0 ? BOTH : i == 0 ? RIGHT : j == 0 ? DOWN : (move)came[j * rows + i];
        count++;
        if (out) out[length - count] = (int32_t)i;
        if (out) out[2 * length - count] = (int32_t)j;
        i -= m != RIGHT;
        j -= m != DOWN;
    }
    return count;
}

static sdx_status run_warping(sdx_run *run)
{
    const sdx_tensor *x = &run->in[0];
    int64_t rows = x->dim[x->rank - 2], columns = x->dim[x->rank - 1];
    char *workspace = run->workspace;
    if (rows > INT32_MAX || columns > INT32_MAX)
        return sdx_fail(run->err, SDX_ERR_USAGE, "the matrix is too large for indices of 32 bits");
    float *last = sdx_workspace_take(&workspace, (size_t)rows * sizeof *last);
    float *now = sdx_workspace_take(&workspace, (size_t)rows * sizeof *now);
    uint8_t *came = (uint8_t *)workspace;
    find_moves(rows, columns, x->data, last, now, came);
    sdx_shape out = {2, {2, follow(rows, columns, came, NULL, 0)}};
    TRY(run->allocate(run, 0, SDX_I32, &out));
    follow(rows, columns, came, run->out[0].data, out.dim[1]);
    return SDX_OK;
}

#define MS "com.microsoft"
static const sdx_op_def rows[] = {
    {MS, "UnfoldTensor", 1, 0, 1, 1, 1, 1, 0, infer_unfold, NULL, NULL, run_unfold},
    {MS, "DynamicTimeWarping", 1, 0, 1, 1, 1, 1, SDX_OP_DYNAMIC, infer_warping, NULL, plan_warping, run_warping},
};

SDX_OP_TABLE(time_warping);
