/* fuse_bias_gelu.c: the bias of a dense layer goes into the Gelu after it.
 *
 *     MatMul -- Add bias[n] -- Gelu                ->   BiasGelu(., bias)
 *     MatMul -- Add bias[n] -- FastGelu            ->   FastGelu(., bias)
 *
 * The same for ai.onnx Gelu (opset 20), by its attribute `approximate`. Only when nobody else wants the sum. */
#include <string.h>

#include "passes.h"

/* The contrib operator that does bias and activation, or NULL. */
static const char *with_bias(const sdx_node *n)
{
    if (n->n_in != 1) return NULL;
    if (sdx_match_is_in(n, SDX_MS, "Gelu")) return "BiasGelu";
    if (sdx_match_is_in(n, SDX_MS, "FastGelu")) return "FastGelu";
    if (!sdx_match_is(n, "Gelu")) return NULL;
    return strcmp(sdx_node_string(n, "approximate", "none"), "tanh") == 0 ? "FastGelu" : "BiasGelu";
}

static const char *match(const sdx_graph *g, const sdx_node *gelu, sdx_id in[2])
{
    const sdx_node *add = sdx_match_op(g, gelu->in[0], "Add");
    if (!add || !sdx_match_addend(g, add, &in[0], &in[1])) return "no bias before it";
    if (g->value[add->out[0]].uses != 1) return "the sum before it has other readers";
    if (sdx_match_type(g, in[0])->shape.rank < 2) return "the operand is not a matrix";
    if (sdx_match_type(g, in[0])->dtype != SDX_F32) return "not float32";
    return NULL;
}

sdx_status sdx_pass_fuse_bias_gelu(sdx_pass_context *context, sdx_graph *graph)
{
    if (context->standard) return SDX_OK;
    sdx_id count = graph->n_node, in[2], node;
    for (sdx_id i = 0; i < count; i++) {
        const char *op_type = with_bias(&graph->node[i]);
        if (!op_type || match(graph, &graph->node[i], in)) continue;
        sdx_id out = graph->node[i].out[0];
        TRY(sdx_pass_replace(context, graph, i, SDX_MS, op_type, 2, in, 1, &out, &node));
    }
    return sdx_pass_finish(context, graph);
}
