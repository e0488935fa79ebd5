/* hardmax.c: 1 at the first largest element of each row, 0 elsewhere. What a row is follows Softmax: before
 * opset 13 everything behind `axis`, since then one axis. */
#include "compute.h"
#include "contents.h"
#include "lanes.h"

static sdx_status find_axis(const sdx_node *node, int rank, bool matrix, int *axis, sdx_error *err)
{
    int64_t asked = sdx_node_int(node, "axis", matrix ? 1 : -1);
    *axis = 0;
    if (rank == 0) return SDX_OK;
    if (matrix && asked == rank) {
        *axis = rank;
        return SDX_OK;
    }
    return sdx_axis_normalize(asked, rank, axis, err);
}

static sdx_status infer(sdx_infer *x, bool matrix)
{
    int axis;
    TRY(sdx_want_dtype(x, 0, "the input", SDX_SET_FLOAT));
    if (x->in[0].shape.rank >= 0) TRY(find_axis(x->node, x->in[0].shape.rank, matrix, &axis, x->err));
    return sdx_infer_same(x);
}

/* n elements from `at` on, `step` apart; x and y may be one tensor. */
static void hardmax_row(const sdx_tensor *x, const sdx_tensor *y, int64_t at, int64_t n, int64_t step)
{
    sdx_lane v, best = {.f = 0}, zero = {.f = 0}, one = {.f = 1};
    int64_t first = 0;
    for (int64_t i = 0; i < n; i++) {
        sdx_lanes_load(x->dtype, x->data, at + i * step, 1, 1, &v);
        if (i > 0 && !(v.f > best.f)) continue;
        best = v;
        first = i;
    }
    for (int64_t i = 0; i < n; i++)
        sdx_lanes_store(y->dtype, i == first ? &one : &zero, 1, y->data, at + i * step);
}

typedef struct hardmax_call {
    const sdx_tensor *x, *y;
    int64_t n, inner; /* element (o, i, r) at (o*n + i)*inner + r */
} hardmax_call;

static void hardmax_rows(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const hardmax_call *c = context;
    for (int64_t i = begin; i < end; i++)
        hardmax_row(c->x, c->y, i / c->inner * c->n * c->inner + i % c->inner, c->n, c->inner);
}

static sdx_status run(sdx_run *r, bool matrix)
{
    sdx_shape s = sdx_run_shape(r, 0);
    int axis;
    TRY(find_axis(r->node, s.rank, matrix, &axis, r->err));
    int last = matrix || s.rank == 0 ? s.rank : axis + 1;
    hardmax_call c = {&r->in[0], &r->out[0], sdx_shape_span(&s, axis, last), sdx_shape_span(&s, last, s.rank)};
    int64_t rows = sdx_shape_span(&s, 0, axis) * c.inner;
    if (c.n > 0) sdx_parallel_for(r->threads, rows, sdx_row_grain(c.n), hardmax_rows, &c);
    return SDX_OK;
}

static sdx_status infer_matrix(sdx_infer *x)
{
    return infer(x, true);
}
static sdx_status infer_axis(sdx_infer *x)
{
    return infer(x, false);
}
static sdx_status run_matrix(sdx_run *r)
{
    return run(r, true);
}
static sdx_status run_axis(sdx_run *r)
{
    return run(r, false);
}

static const sdx_op_def rows[] = {
    {"", "Hardmax", 1, 12, 1, 1, 1, 1, SDX_OP_INPLACE, infer_matrix, NULL, NULL, run_matrix},
    {"", "Hardmax", 13, 0, 1, 1, 1, 1, SDX_OP_INPLACE, infer_axis, NULL, NULL, run_axis},
};

SDX_OP_TABLE(hardmax);
