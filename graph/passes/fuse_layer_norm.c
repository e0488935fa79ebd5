/* fuse_layer_norm.c: layer normalization (Ba, Kiros, Hinton: "Layer Normalization", 2016) from its arithmetic,
 * as exporters below opset 17 spell it:
 *
 *     x -+- ReduceMean -+
 *        +------------ Sub = d -+- Pow 2 | Mul(d,d) -- ReduceMean -- Add eps -- Sqrt -+
 *                               +--------------------------------------------------- Div -- Mul gamma -- Add
 *
 * becomes LayerNormalization(x, gamma, beta) over the last axis. ONNX has it since opset 17; below, ONNX
 * Runtime registers the same operator from version 1 on and writes it into older files, and so do we. */
#include "passes.h"

typedef struct layer_norm {
    sdx_id x, gamma, beta; /* beta: SDX_NONE when there is none */
    double epsilon;
} layer_norm;

/* d = x - mean(x), the mean over the last axis. */
static bool match_centred(const sdx_graph *g, sdx_id d, sdx_id *x)
{
    const sdx_node *sub = sdx_match_op(g, d, "Sub");
    const sdx_node *mean = sub ? sdx_match_op(g, sub->in[1], "ReduceMean") : NULL;
    if (!mean || sdx_match_through(g, mean->in[0]) != sdx_match_through(g, sub->in[0])) return false;
    *x = sub->in[0];
    return sdx_match_reduces_last(g, mean) && sdx_node_int(mean, "keepdims", 1) == 1;
}

static bool match_square(const sdx_graph *g, sdx_id v, sdx_id *d)
{
    const sdx_node *pow = sdx_match_op(g, v, "Pow"), *mul = sdx_match_op(g, v, "Mul");
    double exponent;
    *d = pow ? pow->in[0] : mul ? mul->in[0] : SDX_NONE;
    if (pow) return sdx_graph_scalar(g, pow->in[1], &exponent) && exponent == 2;
    return mul && mul->in[0] == mul->in[1];
}

/* The deviation sqrt(mean(d^2) + eps). Two equal Subs may stand where one would do: d need only mean the same
 * x. */
static bool match_deviation(const sdx_graph *g, sdx_id v, sdx_id x, double *epsilon)
{
    const sdx_node *sqrt = sdx_match_op(g, v, "Sqrt");
    const sdx_node *add = sqrt ? sdx_match_op(g, sqrt->in[0], "Add") : NULL;
    sdx_id variance, d, same_x;
    if (!add || !sdx_match_scalar_operand(g, add, &variance, epsilon)) return false;
    const sdx_node *mean = sdx_match_op(g, variance, "ReduceMean");
    if (!mean || !sdx_match_reduces_last(g, mean) || sdx_node_int(mean, "keepdims", 1) != 1) return false;
    return match_square(g, mean->in[0], &d) && match_centred(g, d, &same_x) && same_x == x;
}

static const char *match_scaled(const sdx_graph *g, const sdx_node *mul, layer_norm *m)
{
    for (int i = 0; i < 2; i++) {
        const sdx_node *div = sdx_match_op(g, mul->in[1 - i], "Div");
        m->gamma = mul->in[i];
        if (!div || !sdx_graph_constant(g, m->gamma)) continue;
        if (!match_centred(g, div->in[0], &m->x))
            return "what is divided is not x - mean(x) over the last axis";
        if (!match_deviation(g, div->in[1], m->x, &m->epsilon))
            return "the divisor is not sqrt(mean(d*d) + constant)";
        if (sdx_match_type(g, m->x)->dtype != SDX_F32) return "not float32";
        if (!sdx_match_vector(g, m->gamma, sdx_match_last_dim(g, m->x)))
            return "gamma does not span the last axis";
        return NULL;
    }
    return "no constant gamma times a quotient";
}

static const char *match_layer_norm(const sdx_graph *g, const sdx_node *last, layer_norm *m)
{
    sdx_id scaled;
    m->beta = SDX_NONE;
    if (sdx_match_is(last, "Mul")) return match_scaled(g, last, m);
    if (!sdx_match_bias(g, last, &scaled, &m->beta)) return "no bias at the end";
    const sdx_node *mul = sdx_match_op(g, scaled, "Mul");
    return mul ? match_scaled(g, mul, m) : "no gamma before beta";
}

static sdx_status fuse(sdx_pass_context *context, sdx_graph *g, sdx_id last, const layer_norm *m)
{
    sdx_id in[3] = {m->x, m->gamma, m->beta}, out = g->node[last].out[0], node;
    TRY(sdx_pass_replace(context, g, last, "", "LayerNormalization", m->beta == SDX_NONE ? 2 : 3, in, 1, &out,
                         &node));
    TRY(sdx_node_set_int(g, node, "axis", -1, context->err));
    return sdx_node_set_float(g, node, "epsilon", (float)m->epsilon, context->err);
}

/* A Mul that feeds the Add of beta is not the end of its pattern. */
static bool is_read_by_fused(const sdx_graph *g, const sdx_node *mul)
{
    const sdx_value *v = &g->value[mul->out[0]];
    return !v->is_output && v->uses == 1 && g->node[g->use_node[g->use_begin[mul->out[0]]]].dead;
}

sdx_status sdx_pass_fuse_layer_norm(sdx_pass_context *context, sdx_graph *graph)
{
    layer_norm m;
    for (sdx_id i = graph->n_node; i-- > 0;) { /* from the end: the Add of a pattern before its Mul */
        const sdx_node *n = &graph->node[i];
        if (!sdx_match_is(n, "Add") && !sdx_match_is(n, "Mul")) continue;
        if (sdx_match_is(n, "Mul") && is_read_by_fused(graph, n)) continue;
        if (!match_layer_norm(graph, n, &m)) TRY(fuse(context, graph, i, &m));
    }
    return sdx_pass_finish(context, graph);
}
