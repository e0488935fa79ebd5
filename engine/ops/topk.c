/* topk.c: TopK by sorting a line along the axis. Every numeric type is mapped to a uint64 whose order is the
 * wanted one, so that one comparison serves all types and both directions. */
#include "contents.h"
#include "lanes.h"

#include <stdlib.h>
#include <string.h>

/* A value as a number whose order is the wanted one (smallest first), then its index: equal values keep theirs.
 */
typedef struct ranked {
    uint64_t key;
    int64_t index;
} ranked;

#define SIGN_BIT (UINT64_C(1) << 63)

static uint64_t rank_key(sdx_lane x, sdx_lane_kind kind, bool largest)
{
    uint64_t key = x.u;
    /* Negative doubles order backwards as integers; positive ones only lack the sign bit. */
    if (kind == SDX_LANE_F) key = key & SIGN_BIT ? ~key : key | SIGN_BIT;
    else if (kind == SDX_LANE_I) key ^= SIGN_BIT;
    return largest ? ~key : key;
}

static int compare_ranked(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    if (x->key != y->key) return x->key < y->key ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

static sdx_status top_axis(const sdx_node *node, int rank, int *axis, sdx_error *err)
{
    return sdx_axis_normalize(sdx_node_int(node, "axis", -1), rank, axis, err);
}

static sdx_status infer_top_k(sdx_infer *x)
{
    sdx_shape out = x->in[0].shape;
    sdx_ints k = {.known = true, .count = 1, .v = {sdx_node_int(x->node, "k", 0)}};
    sdx_dtype t = x->in[0].dtype;
    if (t && sdx_dtype_lane(t) == SDX_LANE_NONE)
        return sdx_fail(x->err, SDX_ERR_UNSUPPORTED, "it does not take %s", sdx_dtype_name(t));
    if (x->n_in > 1) TRY(sdx_infer_ints(x, NULL, 1, &k));
    if (out.rank >= 0) {
        int axis;
        TRY(top_axis(x->node, out.rank, &axis, x->err));
        if (k.known && (k.count != 1 || k.v[0] < 0 || (out.dim[axis] >= 0 && k.v[0] > out.dim[axis])))
            return sdx_fail(x->err, SDX_ERR_USAGE, "k is %lld, the axis has %lld elements", (long long)k.v[0],
                            (long long)out.dim[axis]);
        out.dim[axis] = k.known ? k.v[0] : SDX_DIM_UNKNOWN;
    }
    sdx_infer_set(x, 0, x->in[0].dtype, &out);
    sdx_infer_set(x, 1, SDX_I64, &out);
    return SDX_OK;
}

static sdx_status plan_top_k(sdx_plan_step *p)
{
    int axis;
    TRY(top_axis(p->node, p->in[0].shape.rank, &axis, p->err));
    if (sdx_mul_size((size_t)p->in[0].shape.dim[axis], sizeof(ranked), &p->workspace)) return SDX_OK;
    return sdx_fail_memory(p->err, SIZE_MAX);
}

/* The k first of one line along the axis, `inner` apart, into line `to` of the outputs. */
static void top_line(sdx_run *r, int64_t n, int64_t k, int64_t inner, int64_t from, int64_t to, bool largest)
{
    const sdx_tensor *x = &r->in[0];
    sdx_lane_kind kind = sdx_dtype_lane(x->dtype);
    size_t size = sdx_dtype_size(x->dtype);
    ranked *line = r->workspace;
    for (int64_t i = 0; i < n; i++) {
        sdx_lane v;
        sdx_lanes_load(x->dtype, x->data, from + i * inner, 1, 1, &v);
        line[i] = (ranked){rank_key(v, kind, largest), i};
    }
    qsort(line, (size_t)n, sizeof *line, compare_ranked);
    for (int64_t i = 0; i < k; i++) {
        int64_t source = from + line[i].index * inner, target = to + i * inner;
        if (sdx_run_has_out(r, 0))
            memcpy((char *)r->out[0].data + (size_t)target * size,
                   (const char *)x->data + (size_t)source * size, size);
        if (sdx_run_has_out(r, 1)) ((int64_t *)r->out[1].data)[target] = line[i].index;
    }
}

static sdx_status run_top_k(sdx_run *r)
{
    sdx_shape in = sdx_run_shape(r, 0);
    int axis;
    TRY(top_axis(r->node, in.rank, &axis, r->err));
    const sdx_tensor *any = sdx_run_has_out(r, 0) ? &r->out[0] : &r->out[1];
    int64_t n = in.dim[axis], k = any->dim[axis], inner = sdx_shape_span(&in, axis + 1, in.rank);
    bool largest = sdx_node_int(r->node, "largest", 1) != 0;
    for (int64_t line = 0, lines = sdx_shape_span(&in, 0, axis) * inner; line < lines; line++) {
        int64_t outer = line / inner, column = line % inner;
        top_line(r, n, k, inner, outer * n * inner + column, outer * k * inner + column, largest);
    }
    return SDX_OK;
}

static const sdx_op_def rows[] = {
    {"", "TopK", 1, 9, 1, 1, 2, 2, 0, infer_top_k, NULL, plan_top_k, run_top_k},
    {"", "TopK", 10, 0, 2, 2, 2, 2, 0, infer_top_k, NULL, plan_top_k, run_top_k},
};

SDX_OP_TABLE(topk);
