/* fuse_rms_norm.c: root mean square normalization (Zhang, Sennrich: "Root Mean Square Layer Normalization",
 * 2019), the LayerNormalization without mean and shift of T5 and Llama, from its arithmetic:
 *
 *     x -+- Pow 2 | Mul(x,x) -- ReduceMean -- Add eps -- Sqrt -+- 1/. | Reciprocal -- Mul x -+
 *        |                                                     +- x/. ----------------------+-- Mul gamma
 *        +--------------------------------------------------------------------------------->
 *
 * becomes SimplifiedLayerNormalization(x, gamma) over the last axis: not in ONNX before opset 23
 * (RMSNormalization), but ONNX Runtime registers it in the default domain from version 1 on. */
#include "passes.h"

typedef struct rms_norm {
    sdx_id x, gamma;
    double epsilon;
} rms_norm;

/* v = sqrt(mean(x^2) + eps) */
static const char *match_root(const sdx_graph *g, sdx_id v, rms_norm *m)
{
    const sdx_node *sqrt = sdx_match_op(g, v, "Sqrt");
    const sdx_node *add = sqrt ? sdx_match_op(g, sqrt->in[0], "Add") : NULL;
    sdx_id variance;
    double exponent;
    if (!add || !sdx_match_scalar_operand(g, add, &variance, &m->epsilon))
        return "the divisor is not sqrt(. + constant)";
    const sdx_node *mean = sdx_match_op(g, variance, "ReduceMean");
    if (!mean || !sdx_match_reduces_last(g, mean) || sdx_node_int(mean, "keepdims", 1) != 1)
        return "no mean over the last axis";
    const sdx_node *pow = sdx_match_op(g, mean->in[0], "Pow"), *mul = sdx_match_op(g, mean->in[0], "Mul");
    bool square =
        pow ? sdx_graph_scalar(g, pow->in[1], &exponent) && exponent == 2 : mul && mul->in[0] == mul->in[1];
    if (!square) return "the mean is not of squares";
    m->x = sdx_match_through(g, (pow ? pow : mul)->in[0]);
    return NULL;
}

/* v = x / root, or x * (1 / root). */
static const char *match_normal(const sdx_graph *g, sdx_id v, rms_norm *m)
{
    const sdx_node *div = sdx_match_op(g, v, "Div"), *mul = sdx_match_op(g, v, "Mul");
    const char *reason = "no quotient by a root";
    double one;
    if (div && !(reason = match_root(g, div->in[1], m)))
        return sdx_match_through(g, div->in[0]) == m->x ? NULL : "what is divided is not x";
    for (int i = 0; mul && i < 2; i++) {
        const sdx_node *inverse = sdx_match_op(g, mul->in[i], "Reciprocal");
        const sdx_node *over = sdx_match_op(g, mul->in[i], "Div");
        if (over && !(sdx_graph_scalar(g, over->in[0], &one) && one == 1)) over = NULL;
        if (!inverse && !over) continue;
        if ((reason = match_root(g, inverse ? inverse->in[0] : over->in[1], m))) continue;
        return sdx_match_through(g, mul->in[1 - i]) == m->x ? NULL : "what is scaled is not x";
    }
    return reason;
}

static const char *match_rms_norm(const sdx_graph *g, const sdx_node *mul, rms_norm *m)
{
    for (int i = 0; i < 2; i++) {
        if (!sdx_graph_constant(g, mul->in[i])) continue;
        m->gamma = mul->in[i];
        const char *reason = match_normal(g, mul->in[1 - i], m);
        if (reason) return reason;
        if (sdx_match_type(g, m->x)->dtype != SDX_F32) return "not float32";
        bool spans = sdx_match_vector(g, m->gamma, sdx_match_last_dim(g, m->x));
        return spans ? NULL : "gamma does not span the last axis";
    }
    return "no constant gamma";
}

sdx_status sdx_pass_fuse_rms_norm(sdx_pass_context *context, sdx_graph *graph)
{
    rms_norm m;
    sdx_id count = graph->n_node;
    for (sdx_id i = 0; i < count; i++) {
        if (!sdx_match_is(&graph->node[i], "Mul") || match_rms_norm(graph, &graph->node[i], &m)) continue;
        sdx_id in[2] = {m.x, m.gamma}, out = graph->node[i].out[0], node;
        const char *op_type = context->standard ? "RMSNormalization" : "SimplifiedLayerNormalization";
        TRY(sdx_pass_replace(context, graph, i, "", op_type, 2, in, 1, &out, &node));
        TRY(sdx_node_set_int(graph, node, "axis", -1, context->err));
        TRY(sdx_node_set_float(graph, node, "epsilon", (float)m.epsilon, context->err));
    }
    return sdx_pass_finish(context, graph);
}
