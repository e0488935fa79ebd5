/* fuse_transpose.c: a weight that is stored the other way round, as a head tied to the embeddings is:
 *
 *     MatMul(x, Transpose(W[n,k]))    ->    FusedMatMul(x, W, transB = 1)
 *
 * The product packs W once, straight from where it lies; a folded transpose would be a second copy of the largest
 * matrix there is, and one left in the graph runs every time. Only inside the engine: a file keeps the standard form. */
#include "passes.h"

/* The matrix whose two axes v has exchanged, when it is a constant. */
static sdx_id transposed_constant(const sdx_graph *g, sdx_id v)
{
    const sdx_node *n = sdx_match_op(g, v, "Transpose");
    const sdx_tensor *w = n ? sdx_graph_constant(g, n->in[0]) : NULL;
    size_t count = 0;
    const int64_t *perm = n ? sdx_node_ints(n, "perm", &count) : NULL;
    return w && w->rank == 2 && w->dtype == SDX_F32 && (!perm || perm[0] == 1) ? n->in[0] : SDX_NONE;
}

sdx_status sdx_pass_fuse_transpose(sdx_pass_context *context, sdx_graph *graph)
{
    for (sdx_id i = 0, count = graph->n_node; context->for_run && i < count; i++) {
        const sdx_node *n = &graph->node[i];
        sdx_id weight = sdx_match_is(n, "MatMul") ? transposed_constant(graph, n->in[1]) : SDX_NONE;
        if (weight == SDX_NONE) continue;
        sdx_id in[] = {n->in[0], weight}, out = n->out[0], node;
        TRY(sdx_pass_replace(context, graph, i, SDX_MS, "FusedMatMul", 2, in, 1, &out, &node));
        TRY(sdx_node_set_int(graph, node, "transB", 1, context->err));
    }
    return sdx_pass_finish(context, graph);
}
