/* fuse_scaled_rows.c: rows of a table in bytes, each with its scale, as our quantizer spells look-ups:
 *
 *     Mul(Cast(Gather(Q [n,k], i)), Gather(scale [n,1], i))         ->   ScaledRows(Q, scale, i)
 *     Mul(Cast(Slice(Q [n,k], rows)), Slice(scale [n,1], rows))     ->   ScaledRows(Slice(Q, rows), Slice(scale, rows))
 *
 * One pass over the result instead of four; no bit changes. Only for a run: no file holds the operator. */
#include "passes.h"

typedef struct rows {
    sdx_id in[3]; /* of ScaledRows */
    int n_in;
} rows;

/* Table q [n,k] in bytes, and scale [n,1] of as many rows. */
static bool is_table(const sdx_graph *g, sdx_id q, sdx_id scale)
{
    const sdx_type *a = sdx_match_type(g, q), *b = sdx_match_type(g, scale);
    return (a->dtype == SDX_I8 || a->dtype == SDX_U8) && b->dtype == SDX_F32 && a->shape.rank == 2 &&
           b->shape.rank == 2 && a->shape.dim[0] >= 0 && a->shape.dim[0] == b->shape.dim[0] && b->shape.dim[1] == 1;
}

/* Nodes that take the same rows of a table and of its scales. */
static bool match_rows(const sdx_graph *g, sdx_id q, sdx_id scale, const char *op_type, rows *r)
{
    const sdx_node *a = sdx_match_op(g, q, op_type), *b = sdx_match_op(g, scale, op_type);
    if (!a || !b || a->n_in != b->n_in || !is_table(g, a->in[0], b->in[0])) return false;
    if (sdx_node_int(a, "axis", 0) != 0 || sdx_node_int(b, "axis", 0) != 0) return false;
    for (int i = 1; i < a->n_in; i++)
        if (a->in[i] != b->in[i]) return false;
    *r = (rows){{a->in[0], b->in[0], a->in[1]}, 3};
    return true;
}

/* A Slice by inputs that leaves the columns alone. */
static bool match_slice(const sdx_graph *g, sdx_id q, sdx_id scale, rows *r)
{
    const sdx_node *n = sdx_match_op(g, q, "Slice");
    int64_t axis;
    int count = 0;
    bool of_rows =
        n && n->n_in == 4 && sdx_type_ints(sdx_match_type(g, n->in[3]), 1, &axis, &count) && count == 1 && axis == 0;
    if (!of_rows || !match_rows(g, q, scale, "Slice", r)) return false;
    *r = (rows){{q, scale}, 2};
    return true;
}

static bool match_scaled(const sdx_graph *g, const sdx_node *mul, rows *r)
{
    if (!sdx_match_is(mul, "Mul")) return false;
    for (int i = 0; i < 2; i++) {
        const sdx_node *cast = sdx_match_op(g, mul->in[i], "Cast");
        if (!cast || sdx_node_int(cast, "to", 0) != SDX_F32) continue;
        sdx_id q = cast->in[0], scale = mul->in[1 - i];
        if (match_rows(g, q, scale, "Gather", r) || match_slice(g, q, scale, r)) return true;
    }
    return false;
}

sdx_status sdx_pass_fuse_scaled_rows(sdx_pass_context *context, sdx_graph *graph)
{
    rows r;
    sdx_id node;
    if (!context->for_run) return SDX_OK;
    for (sdx_id i = 0; i < graph->n_node; i++) {
        if (graph->node[i].dead || !match_scaled(graph, &graph->node[i], &r)) continue;
        sdx_id out = graph->node[i].out[0];
        TRY(sdx_pass_replace(context, graph, i, "sardonyx", "ScaledRows", r.n_in, r.in, 1, &out, &node));
    }
    return sdx_pass_finish(context, graph);
}
