/* eliminate.c: nodes that change nothing, and pairs that undo each other.
 *
 *     Identity(x), Dropout(x), Cast(x to its own type), Concat(x)          -> x
 *     Reshape | Squeeze | Unsqueeze | Flatten | Expand(x) to x's own shape -> x
 *     Slice(x) with steps 1 and all of x left                              -> x
 *     Transpose(x, 0 1 2 ...), Transpose(Transpose(x, p), p^-1)            -> x
 *     x * 1, x / 1, x + 0, x - 0                                           -> x
 *     If(constant) whose branch gives x of the graph around                -> x
 *
 * Shapes are compared symbolically: [batch, sequence, 64] is the same shape wherever it was computed. */
#include "passes.h"

static sdx_id same_shape(const sdx_graph *g, const sdx_node *n)
{
    bool same = sdx_shape_same(&sdx_match_type(g, n->in[0])->shape, &sdx_match_type(g, n->out[0])->shape);
    return same ? n->in[0] : SDX_NONE;
}

/* Reshape keeps the number of elements: when all dims but one are the same, so is the last. */
static sdx_id reshape(const sdx_graph *g, const sdx_node *n)
{
    const sdx_shape *from = &sdx_match_type(g, n->in[0])->shape, *to = &sdx_match_type(g, n->out[0])->shape;
    int different = 0;
    if (from->rank < 0 || from->rank != to->rank) return SDX_NONE;
    for (int i = 0; i < from->rank; i++) different += !sdx_dim_same(from->dim[i], to->dim[i]);
    return different <= 1 ? n->in[0] : SDX_NONE;
}

static sdx_id slice(const sdx_graph *g, const sdx_node *n)
{
    int64_t step[SDX_MAX_RANK];
    int count = 0;
    sdx_id steps = sdx_node_in(n, 4);
    if (steps != SDX_NONE && !sdx_type_ints(sdx_match_type(g, steps), SDX_MAX_RANK, step, &count))
        return SDX_NONE;
    for (int i = 0; i < count; i++)
        if (step[i] != 1) return SDX_NONE;
    return same_shape(g, n);
}

/* Of known rank only; a missing perm reverses. */
static bool permutation(const sdx_graph *g, const sdx_node *n, int64_t perm[SDX_MAX_RANK], int *rank)
{
    size_t count = 0;
    const int64_t *given = sdx_node_ints(n, "perm", &count);
    *rank = given ? (int)count : sdx_match_type(g, n->in[0])->shape.rank;
    if (*rank < 0 || *rank > SDX_MAX_RANK) return false;
    for (int i = 0; i < *rank; i++) perm[i] = given ? given[i] : *rank - 1 - i;
    return true;
}

static bool is_in_order(const int64_t *perm, int rank)
{
    for (int i = 0; i < rank; i++)
        if (perm[i] != i) return false;
    return true;
}

static sdx_id transpose(const sdx_graph *g, const sdx_node *n)
{
    int64_t outer[SDX_MAX_RANK], inner[SDX_MAX_RANK], both[SDX_MAX_RANK];
    int rank, inner_rank;
    if (!permutation(g, n, outer, &rank)) return SDX_NONE;
    if (is_in_order(outer, rank)) return n->in[0];
    const sdx_node *before = sdx_match_op(g, n->in[0], "Transpose");
    if (!before || !permutation(g, before, inner, &inner_rank) || inner_rank != rank) return SDX_NONE;
    for (int i = 0; i < rank; i++) {
        if (outer[i] < 0 || outer[i] >= rank) return SDX_NONE;
        both[i] = inner[outer[i]];
    }
    return is_in_order(both, rank) ? before->in[0] : SDX_NONE;
}

static sdx_id concat(const sdx_graph *g, const sdx_node *n)
{
    (void)g;
    return n->n_in == 1 ? n->in[0] : SDX_NONE;
}

/* The operand that is not the neutral constant, unless broadcasting makes it larger. */
static sdx_id neutral(const sdx_graph *g, const sdx_node *n, double value, bool commutes)
{
    const sdx_shape *to = &sdx_match_type(g, n->out[0])->shape;
    double number;
    for (int i = 1; i >= 0; i--) {
        if (!sdx_graph_scalar(g, n->in[i], &number) || number != value) continue;
        const sdx_shape *from = &sdx_match_type(g, n->in[1 - i])->shape;
        if (i == 1 || commutes) return from->rank >= 0 && sdx_shape_same(from, to) ? n->in[1 - i] : SDX_NONE;
    }
    return SDX_NONE;
}

static sdx_id mul(const sdx_graph *g, const sdx_node *n)
{
    return neutral(g, n, 1, true);
}
static sdx_id divide(const sdx_graph *g, const sdx_node *n)
{
    return neutral(g, n, 1, false);
}
static sdx_id add(const sdx_graph *g, const sdx_node *n)
{
    return neutral(g, n, 0, true);
}
static sdx_id sub(const sdx_graph *g, const sdx_node *n)
{
    return neutral(g, n, 0, false);
}

/* The branch that a known condition takes, when it only hands out a value of this graph. */
static sdx_id branch(const sdx_graph *g, const sdx_node *n)
{
    double condition;
    if (n->n_out != 1 || !sdx_graph_scalar(g, n->in[0], &condition)) return SDX_NONE;
    const sdx_graph *taken = sdx_node_body(n, condition != 0 ? "then_branch" : "else_branch");
    if (!taken || taken->n_output != 1) return SDX_NONE;
    return taken->value[sdx_match_through(taken, taken->output[0])].outer;
}

static const struct rule {
    const char *op_type;
    sdx_id (*same_as)(const sdx_graph *g, const sdx_node *n); /* what the output equals, or SDX_NONE */
} rules[] = {
    {"Identity", sdx_match_copied},
    {"Dropout", sdx_match_copied},
    {"Cast", sdx_match_copied},
    {"Concat", concat},
    {"Reshape", reshape},
    {"Squeeze", same_shape},
    {"Unsqueeze", same_shape},
    {"Flatten", same_shape},
    {"Expand", same_shape},
    {"Slice", slice},
    {"Transpose", transpose},
    {"Mul", mul},
    {"Div", divide},
    {"Add", add},
    {"Sub", sub},
    {"If", branch},
};

static sdx_id same_as(const sdx_graph *g, const sdx_node *n)
{
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (sdx_match_is(n, rules[i].op_type) && n->n_in > 0 && n->in[0] != SDX_NONE)
            return rules[i].same_as(g, n);
    return SDX_NONE;
}

sdx_status sdx_pass_eliminate(sdx_pass_context *context, sdx_graph *graph)
{
    for (sdx_id i = 0; i < graph->n_node; i++) {
        bool done;
        sdx_id x = same_as(graph, &graph->node[i]);
        if (x != SDX_NONE) TRY(sdx_pass_alias(context, graph, x, graph->node[i].out[0], &done));
    }
    return sdx_pass_finish(context, graph);
}
