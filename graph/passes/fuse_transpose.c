/* fuse_transpose.c: a product that reads its operands the other way round.
 *
 *     MatMul(x, Transpose(W[n,k]))               ->    FusedMatMul(x, W, transB = 1)
 *     MatMul(Transpose(A[..,k,m]), B[..,k,n])    ->    FusedMatMul(A, B, transA = 1)
 *
 * A constant W, as a head tied to the embeddings has it, is packed once, straight from where it lies; a folded
 * transpose would be a second copy of the largest matrix there is, and one left in the graph runs every time. Only
 * inside the engine: a file keeps the standard form, which quantizers know. What is computed is fused in files, too. */
#include "passes.h"

static bool wanted(const sdx_pass_context *context, const sdx_graph *g, sdx_id v)
{
    if (v == SDX_NONE || sdx_match_type(g, v)->dtype != SDX_F32) return false;
    return context->for_run == (sdx_graph_constant(g, v) != NULL);
}

static sdx_status fuse(sdx_pass_context *context, sdx_graph *g, sdx_id matmul)
{
    static const char *const attribute[2] = {"transA", "transB"};
    const sdx_node *n = &g->node[matmul];
    sdx_id in[2] = {n->in[0], n->in[1]}, out = n->out[0], node;
    bool swap[2];
    for (int i = 0; i < 2; i++) {
        sdx_id matrix = sdx_match_transposed(g, in[i]);
        swap[i] = wanted(context, g, matrix);
        if (swap[i]) in[i] = matrix;
    }
    if (!swap[0] && !swap[1]) return SDX_OK;
    TRY(sdx_pass_replace(context, g, matmul, SDX_MS, "FusedMatMul", 2, in, 1, &out, &node));
    for (int i = 0; i < 2; i++)
        if (swap[i]) TRY(sdx_node_set_int(g, node, attribute[i], 1, context->err));
    return SDX_OK;
}

sdx_status sdx_pass_fuse_transpose(sdx_pass_context *context, sdx_graph *graph)
{
    if (context->standard) return SDX_OK;
    for (sdx_id i = 0, count = graph->n_node; i < count; i++)
        if (sdx_match_is(&graph->node[i], "MatMul")) TRY(fuse(context, graph, i));
    return sdx_pass_finish(context, graph);
}
