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

bool sdx_match_reduces_last(const sdx_graph *g, const sdx_node *n)
{
    int64_t axis;
    int count = 0;
    size_t n_axes = 0;
    const int64_t *axes = sdx_node_ints(n, "axes", &n_axes);
    if (axes) return n_axes == 1 && is_last(g, axes[0], n->in[0]);
    sdx_id input = sdx_node_in(n, 1);
    return input != SDX_NONE && sdx_type_ints(sdx_match_type(g, input), 1, &axis, &count) && count == 1 &&
           is_last(g, axis, n->in[0]);
}

bool sdx_match_near(double a, double b)
{
    return fabs(a - b) <= 1e-3 * fabs(b);
}
