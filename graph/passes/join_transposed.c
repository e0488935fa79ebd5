/* join_transposed.c: keys that are cached the way the product reads them, as exporters wrote GPT-2 in 2020.
 *
 *     Concat(Transpose(past [.., p, h]), fresh [.., h, t])    ->    Transpose(Concat(past, Transpose(fresh)))
 *
 * Joined [.., p + t, h] first, all that is cached has one layout. fresh is a Transpose, as a rule, which swaps with the
 * new one, and who wants the joined keys as they were finds them without a Transpose (eliminate.c, next). */
#include "passes.h"

static void swap_last(int rank, int64_t perm[SDX_MAX_RANK])
{
    for (int i = 0; i < rank; i++) perm[i] = i;
    perm[rank - 1] = rank - 2;
    perm[rank - 2] = rank - 1;
}

static sdx_status join(sdx_pass_context *context, sdx_graph *g, sdx_id concat, sdx_id past)
{
    int64_t perm[SDX_MAX_RANK];
    int rank = sdx_match_type(g, past)->shape.rank;
    sdx_id in[2] = {past, SDX_NONE}, joined, fresh = g->node[concat].in[1], out = g->node[concat].out[0], node;
    sdx_error *err = context->err;
    swap_last(rank, perm);
    TRY(sdx_graph_emit(g, "", "Transpose", NULL, 1, &fresh, &in[1], err));
    TRY(sdx_node_set_ints(g, g->value[in[1]].producer, "perm", (size_t)rank, perm, err));
    TRY(sdx_graph_emit(g, "", "Concat", NULL, 2, in, &joined, err));
    TRY(sdx_node_set_int(g, g->value[joined].producer, "axis", rank - 2, err));
    TRY(sdx_pass_replace(context, g, concat, "", "Transpose", 1, &joined, 1, &out, &node));
    return sdx_node_set_ints(g, node, "perm", (size_t)rank, perm, err);
}

sdx_status sdx_pass_join_transposed(sdx_pass_context *context, sdx_graph *graph)
{
    for (sdx_id i = 0, count = graph->n_node; i < count; i++) {
        const sdx_node *n = &graph->node[i];
        if (!sdx_match_is(n, "Concat") || n->n_in != 2 || !sdx_match_axis_is_last(graph, n, 0, n->in[0])) continue;
        sdx_id past = sdx_match_transposed(graph, n->in[0]);
        if (past != SDX_NONE && !sdx_graph_constant(graph, n->in[1])) TRY(join(context, graph, i, past));
    }
    return sdx_pass_finish(context, graph);
}
