/* mask.c: evaluating a mask's subgraph for both values of a mask; see mask.h. */
#include "mask.h"

#include <math.h>

enum { DEPTH = 12 };

static const char *read_mask(const sdx_graph *g, sdx_id v, int depth, sdx_mask *m);

/* ---- element-wise operators ----------------------------------------------------------------------------- */

static double op_add(double a, double b)
{
    return a + b;
}
static double op_sub(double a, double b)
{
    return a - b;
}
static double op_mul(double a, double b)
{
    return a * b;
}
static double op_div(double a, double b)
{
    return a / b;
}
static double op_equal(double a, double b)
{
    return a == b;
}
static double op_greater(double a, double b)
{
    return a > b;
}
static double op_less(double a, double b)
{
    return a < b;
}
static double op_greater_equal(double a, double b)
{
    return a >= b;
}
static double op_less_equal(double a, double b)
{
    return a <= b;
}
static double op_and(double a, double b)
{
    return a != 0 && b != 0;
}
static double op_or(double a, double b)
{
    return a != 0 || b != 0;
}

static const struct binary {
    const char *op_type;
    double (*of)(double a, double b);
} binaries[] = {
    {"Add", op_add},
    {"Sub", op_sub},
    {"Mul", op_mul},
    {"Div", op_div},
    {"Equal", op_equal},
    {"Greater", op_greater},
    {"Less", op_less},
    {"GreaterOrEqual", op_greater_equal},
    {"LessOrEqual", op_less_equal},
    {"And", op_and},
    {"Or", op_or},
};

/* m and other are seen side by side: they must come from the same input along the same axes, or be numbers. */
static bool join(sdx_mask *m, const sdx_mask *other)
{
    if (other->source == SDX_NONE) return true;
    if (m->source != SDX_NONE &&
        (m->source != other->source || m->batch != other->batch || m->key != other->key))
        return false;
    m->source = other->source;
    m->batch = other->batch;
    m->key = other->key;
    m->batch_size = other->batch_size;
    m->key_size = other->key_size;
    return true;
}

static const char *read_binary(const sdx_graph *g, const sdx_node *n, const struct binary *op, int depth,
                               sdx_mask *m)
{
    sdx_mask b;
    const char *reason = read_mask(g, n->in[0], depth, m);
    if (!reason) reason = read_mask(g, n->in[1], depth, &b);
    if (reason) return reason;
    for (int i = 0; i < 2; i++) m->at[i] = op->of(m->at[i], b.at[i]);
    return join(m, &b) ? NULL : "the mask mixes two inputs";
}

static const char *read_where(const sdx_graph *g, const sdx_node *n, int depth, sdx_mask *m)
{
    sdx_mask yes, no;
    const char *reason = read_mask(g, n->in[0], depth, m);
    if (!reason) reason = read_mask(g, n->in[1], depth, &yes);
    if (!reason) reason = read_mask(g, n->in[2], depth, &no);
    if (reason) return reason;
    for (int i = 0; i < 2; i++) m->at[i] = m->at[i] != 0 ? yes.at[i] : no.at[i];
    return join(m, &yes) && join(m, &no) ? NULL : "the mask mixes two inputs";
}

static const char *read_cast(const sdx_graph *g, const sdx_node *n, int depth, sdx_mask *m)
{
    const char *reason = read_mask(g, n->in[0], depth, m);
    sdx_dtype to = (sdx_dtype)sdx_node_int(n, "to", 0);
    for (int i = 0; i < 2 && !reason; i++) {
        if (to == SDX_BOOL)
            m->at[i] = m->at[i] != 0;
        else if (sdx_dtype_is_integer(to))
            m->at[i] = trunc(m->at[i]);
    }
    return reason;
}

/* ---- axes ----------------------------------------------------------------------------------------------- */

/* An axis at distance d from the end moves by one for every new axis at or behind its place. */
static int shifted(int distance, unsigned inserted)
{
    for (int at = 0; at <= distance; at++) distance += inserted >> at & 1;
    return distance;
}

static const char *read_unsqueeze(const sdx_graph *g, const sdx_node *n, int depth, sdx_mask *m)
{
    int64_t listed[SDX_MAX_RANK];
    int count = 0, rank = sdx_match_type(g, n->out[0])->shape.rank;
    size_t n_axes = 0;
    const int64_t *axes = sdx_node_ints(n, "axes", &n_axes);
    unsigned inserted = 0; /* bit d: the axis at distance d from the end is new */
    const char *reason = read_mask(g, n->in[0], depth, m);
    if (reason) return reason;
    if (axes)
        count = (int)n_axes;
    else if (sdx_node_in(n, 1) == SDX_NONE ||
             !sdx_type_ints(sdx_match_type(g, n->in[1]), SDX_MAX_RANK, listed, &count))
        return "unknown axes";
    for (int i = 0; i < count && rank > 0; i++) {
        int64_t axis = axes ? axes[i] : listed[i];
        axis = axis < 0 ? -1 - axis : rank - 1 - axis;
        if (axis < 0 || axis >= rank) return "bad axes";
        inserted |= 1u << axis;
    }
    if (rank <= 0) return "unknown rank";
    m->key = shifted(m->key, inserted);
    m->batch = shifted(m->batch, inserted);
    return NULL;
}

/* [batch, keys] to [batch, 1, 1, keys]: where the graph names the sizes anew, the new names are right. */
static const char *read_reshape(const sdx_graph *g, const sdx_node *n, int depth, sdx_mask *m)
{
    const sdx_shape *from = &sdx_match_type(g, n->in[0])->shape, *to = &sdx_match_type(g, n->out[0])->shape;
    const char *reason = read_mask(g, n->in[0], depth, m);
    if (reason) return reason;
    if (from->rank != 2 || to->rank != 4 || to->dim[1] != 1 || to->dim[2] != 1)
        return "a Reshape that is no Unsqueeze";
    m->batch = 3;
    m->batch_size = to->dim[0];
    m->key_size = to->dim[3];
    return m->key == 0 ? NULL : "keys are not the last axis";
}

/* ---- the walk ------------------------------------------------------------------------------------------- */

static const char *read_input(const sdx_graph *g, sdx_id v, sdx_mask *m)
{
    const sdx_type *type = sdx_match_type(g, v);
    bool number =
        sdx_dtype_is_integer(type->dtype) || sdx_dtype_is_float(type->dtype) || type->dtype == SDX_BOOL;
    if (!g->value[v].is_input || type->shape.rank != 2 || !number)
        return "the mask is not a graph input [batch, keys]";
    *m = (sdx_mask){{0, 1}, v, 1, 0, type->shape.dim[0], type->shape.dim[1]};
    return NULL;
}

static const char *read_mask(const sdx_graph *g, sdx_id v, int depth, sdx_mask *m)
{
    double number;
    if (v == SDX_NONE || depth == 0) return "the mask's subgraph is too deep";
    if (sdx_graph_scalar(g, v, &number)) {
        *m = (sdx_mask){.at = {number, number}, .source = SDX_NONE};
        return NULL;
    }
    const sdx_node *n = sdx_graph_producer(g, v);
    if (!n) return read_input(g, v, m);
    if (sdx_match_is(n, "Unsqueeze")) return read_unsqueeze(g, n, depth - 1, m);
    if (sdx_match_is(n, "Reshape")) return read_reshape(g, n, depth - 1, m);
    if (sdx_match_is(n, "Cast")) return read_cast(g, n, depth - 1, m);
    if (sdx_match_is(n, "Where")) return read_where(g, n, depth - 1, m);
    if (sdx_match_is(n, "Expand") || sdx_match_is(n, "Identity")) return read_mask(g, n->in[0], depth - 1, m);
    if (sdx_match_is(n, "Not")) {
        const char *reason = read_mask(g, n->in[0], depth - 1, m);
        for (int i = 0; i < 2 && !reason; i++) m->at[i] = m->at[i] == 0;
        return reason;
    }
    for (size_t i = 0; i < sizeof binaries / sizeof *binaries; i++)
        if (sdx_match_is(n, binaries[i].op_type)) return read_binary(g, n, &binaries[i], depth - 1, m);
    return "an operator that is not mask arithmetic";
}

const char *sdx_match_mask(const sdx_graph *g, sdx_id v, sdx_mask *mask)
{
    const char *reason = read_mask(g, v, DEPTH, mask);
    return !reason && mask->source == SDX_NONE ? "a number, not a mask" : reason;
}
