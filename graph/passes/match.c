/* match.c: walking up a graph; see match.h. */
#include "match.h"

#include <math.h>

static bool is_inference_dropout(const sdx_graph *g, const sdx_node *n)
{
    sdx_id mask = sdx_node_out(n, 1), training = sdx_node_in(n, 2);
    double on = 0;
    if (mask != SDX_NONE && (g->value[mask].uses > 0 || g->value[mask].is_output)) return false;
    return training == SDX_NONE || (sdx_graph_scalar(g, training, &on) && on == 0);
}

sdx_id sdx_match_copied(const sdx_graph *g, const sdx_node *n)
{
    sdx_id x = sdx_node_in(n, 0);
    if (x == SDX_NONE) return SDX_NONE;
    if (sdx_match_is(n, "Identity")) return x;
    if (sdx_match_is(n, "Dropout")) return is_inference_dropout(g, n) ? x : SDX_NONE;
    if (sdx_match_is(n, "Cast")) {
        sdx_dtype from = sdx_match_type(g, x)->dtype;
        return from != SDX_UNDEFINED && sdx_node_int(n, "to", 0) == (int64_t)from ? x : SDX_NONE;
    }
    return SDX_NONE;
}

sdx_id sdx_match_through(const sdx_graph *g, sdx_id v)
{
    for (const sdx_node *n; v != SDX_NONE && (n = sdx_graph_producer(g, v));) {
        sdx_id x = n->out[0] == v ? sdx_match_copied(g, n) : SDX_NONE;
        if (x == SDX_NONE) break;
        v = x;
    }
    return v;
}

const sdx_node *sdx_match_op_in(const sdx_graph *g, sdx_id v, const char *domain, const char *op_type)
{
    v = sdx_match_through(g, v);
    const sdx_node *n = v == SDX_NONE ? NULL : sdx_graph_producer(g, v);
    return n && n->out[0] == v && sdx_match_is_in(n, domain, op_type) ? n : NULL;
}

const sdx_node *sdx_match_op(const sdx_graph *g, sdx_id v, const char *op_type)
{
    return sdx_match_op_in(g, v, "", op_type);
}

bool sdx_match_scalar_operand(const sdx_graph *g, const sdx_node *n, sdx_id *other, double *number)
{
    if (n->n_in != 2) return false;
    for (int i = 0; i < 2; i++) {
        if (sdx_graph_scalar(g, n->in[i], number)) {
            *other = n->in[1 - i];
            return true;
        }
    }
    return false;
}

bool sdx_match_factor(const sdx_graph *g, const sdx_node *n, sdx_id *other, double *factor)
{
    if (sdx_match_is(n, "Mul")) return sdx_match_scalar_operand(g, n, other, factor);
    double divisor;
    if (!sdx_match_is(n, "Div") || !sdx_graph_scalar(g, n->in[1], &divisor) || divisor == 0) return false;
    *other = n->in[0];
    *factor = 1 / divisor;
    return true;
}

bool sdx_match_product(const sdx_node *n, double *alpha, bool *transposed)
{
    *alpha = 1;
    *transposed = false;
    if (sdx_match_is(n, "MatMul")) return true;
    if (!sdx_match_is_in(n, "com.microsoft", "FusedMatMul")) return false;
    *alpha = sdx_node_float(n, "alpha", 1);
    *transposed = sdx_node_int(n, "transB", 0) != 0;
    return !sdx_node_int(n, "transA", 0) && !sdx_node_int(n, "transBatchA", 0) && !sdx_node_int(n, "transBatchB", 0);
}

bool sdx_match_vector(const sdx_graph *g, sdx_id v, sdx_dim length)
{
    const sdx_tensor *t = v == SDX_NONE ? NULL : sdx_graph_constant(g, v);
    return t && t->dtype == SDX_F32 && t->rank == 1 && sdx_dim_is_known(length) && t->dim[0] == length;
}

bool sdx_match_bias(const sdx_graph *g, const sdx_node *n, sdx_id *other, sdx_id *bias)
{
    if (!n || !sdx_match_is(n, "Add")) return false;
    for (int i = 0; i < 2; i++) {
        sdx_id x = n->in[1 - i];
        if (!sdx_graph_constant(g, x) && sdx_match_vector(g, n->in[i], sdx_match_last_dim(g, x))) {
            *other = x;
            *bias = n->in[i];
            return true;
        }
    }
    return false;
}

bool sdx_match_addend(const sdx_graph *g, const sdx_node *n, sdx_id *other, sdx_id *vector)
{
    if (sdx_match_bias(g, n, other, vector)) return true;
    for (int i = 0; i < 2 && sdx_match_is(n, "Add"); i++) {
        *vector = n->in[i];
        *other = n->in[1 - i];
        const sdx_type *x = sdx_match_type(g, *other), *v = sdx_match_type(g, *vector);
        bool row = v->dtype == x->dtype && v->shape.rank == 1 && x->shape.rank > 1;
        if (row && sdx_dim_same(v->shape.dim[0], sdx_match_last_dim(g, *other))) return true;
    }
    return false;
}

sdx_dim sdx_match_last_dim(const sdx_graph *g, sdx_id v)
{
    const sdx_shape *s = &sdx_match_type(g, v)->shape;
    return s->rank > 0 ? s->dim[s->rank - 1] : SDX_DIM_UNKNOWN;
}

static bool is_last(const sdx_graph *g, int64_t axis, sdx_id v)
{
    int rank = sdx_match_type(g, v)->shape.rank;
    return axis == -1 || (rank > 0 && axis == rank - 1);
}

bool sdx_match_axis_is_last(const sdx_graph *g, const sdx_node *n, int64_t missing, sdx_id v)
{
    return is_last(g, sdx_node_int(n, "axis", missing), v);
}

int sdx_match_reduced_axes(const sdx_graph *g, const sdx_node *n)
{
    int64_t listed[SDX_MAX_RANK];
    int count = 0, rank = sdx_match_type(g, n->in[0])->shape.rank;
    size_t n_axes = 0;
    const int64_t *axes = sdx_node_ints(n, "axes", &n_axes);
    sdx_id input = sdx_node_in(n, 1);
    if (axes)
        count = (int)n_axes;
    else if (input != SDX_NONE && sdx_type_ints(sdx_match_type(g, input), SDX_MAX_RANK, listed, &count))
        axes = listed;
    unsigned seen = 0; /* bit d: the axis at distance d from the end */
    for (int i = 0; i < count; i++) {
        int64_t d = axes[i] < 0 ? -1 - axes[i] : rank - 1 - axes[i];
        if (d < 0 || d >= count || (rank >= 0 && d >= rank) || seen >> d & 1) return 0;
        seen |= 1u << d;
    }
    return count;
}

bool sdx_match_reduces_last(const sdx_graph *g, const sdx_node *n)
{
    return sdx_match_reduced_axes(g, n) == 1;
}

sdx_id sdx_match_transposed(const sdx_graph *g, sdx_id v)
{
    const sdx_node *n = sdx_match_op(g, v, "Transpose");
    int rank = n ? sdx_match_type(g, n->in[0])->shape.rank : 0;
    size_t count = 0;
    const int64_t *perm = n ? sdx_node_ints(n, "perm", &count) : NULL;
    if (rank < 2) return SDX_NONE;
    if (!perm) return rank == 2 ? n->in[0] : SDX_NONE;
    for (int i = 0; i < rank - 2; i++)
        if (perm[i] != i) return SDX_NONE;
    return perm[rank - 1] == rank - 2 ? n->in[0] : SDX_NONE;
}

bool sdx_match_near(double a, double b)
{
    return fabs(a - b) <= 1e-3 * fabs(b);
}
