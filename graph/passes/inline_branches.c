/* inline_branches.c: an If whose condition is known is the graph that it would run.
 *
 *     If(true, then_branch, else_branch)  ->  the nodes of then_branch
 *
 * Its nodes and values move into the graph around: captured values become what they stand for, outputs those of the If.
 * A merged decoder told which of its branches it is becomes a plain one, in which every later pass finds its way. */
#include <string.h>

#include "passes.h"

/* The branch that a node runs, or NULL. */
static sdx_graph *known_branch(const sdx_graph *g, const sdx_node *n)
{
    if (n->dead || !sdx_match_is(n, "If")) return NULL;
    const sdx_tensor *condition = g->value[n->in[0]].type.constant;
    if (!condition || condition->dtype != SDX_BOOL || sdx_tensor_count(condition) != 1) return NULL;
    return sdx_node_body(n, *(const unsigned char *)condition->data ? "then_branch" : "else_branch");
}

/* map: values of the branch to values here. */
static sdx_status move_values(sdx_graph *g, const sdx_node *n, const sdx_graph *branch, sdx_id *map, sdx_error *err)
{
    for (sdx_id v = 0; v < branch->n_value; v++) map[v] = branch->value[v].outer;
    for (int o = 0; o < n->n_out; o++) {
        sdx_id v = branch->output[o];
        if (map[v] == SDX_NONE && branch->value[v].producer != SDX_NONE) map[v] = n->out[o];
    }
    for (sdx_id v = 0; v < branch->n_value; v++) {
        if (map[v] != SDX_NONE) continue;
        TRY(sdx_graph_add_value(g, branch->value[v].name, &map[v], err));
        g->value[map[v]].type = branch->value[v].type;
    }
    return SDX_OK;
}

static sdx_status map_ids(sdx_graph *g, const sdx_id *map, int count, const sdx_id *from, sdx_id **out, sdx_error *err)
{
    ARENA_NEW(&g->model->arena, *out, (size_t)count, err);
    for (int i = 0; i < count; i++) (*out)[i] = from[i] == SDX_NONE ? SDX_NONE : map[from[i]];
    return SDX_OK;
}

static sdx_status move_node(sdx_graph *g, const sdx_node *from, const sdx_id *map, sdx_error *err)
{
    sdx_id *in, *out, id;
    sdx_graph *sub;
    TRY(map_ids(g, map, from->n_in, from->in, &in, err));
    TRY(map_ids(g, map, from->n_out, from->out, &out, err));
    TRY(sdx_graph_add_node(g, from->domain, from->op_type, from->name, from->n_in, in, from->n_out, out, &id, err));
    sdx_node *to = &g->node[id];
    to->attr = from->attr;
    to->n_attr = from->n_attr;
    to->def = from->def;
    to->version = from->version;
    for (int k = 0; (sub = sdx_node_graph(to, k)); k++) {
        sub->parent = g;
        for (sdx_id v = 0; v < sub->n_value; v++)
            if (sub->value[v].outer != SDX_NONE) sub->value[v].outer = map[sub->value[v].outer];
    }
    return SDX_OK;
}

/* An output that is another name for a value: a constant, one from around, or an output given twice. */
static sdx_status connect_outputs(sdx_pass_context *context, sdx_graph *g, const sdx_node *n, const sdx_graph *branch,
                                  const sdx_id *map)
{
    for (int o = 0; o < n->n_out; o++) {
        sdx_id out = n->out[o], from = map[branch->output[o]], id;
        if (out == SDX_NONE || out == from) continue;
        TRY(sdx_graph_add_node(g, "", "Identity", n->name, 1, &from, 1, &out, &id, context->err));
        int64_t version = sdx_model_opset(context->model, "");
        g->node[id].def = sdx_op_find(context->registry, "", "Identity", version);
    }
    return SDX_OK;
}

static sdx_status inline_branch(sdx_pass_context *context, sdx_graph *g, sdx_id id, const sdx_graph *branch)
{
    g->node[id].dead = true;
    sdx_node n = g->node[id]; /* the array moves when it grows */
    sdx_id *map;
    ARENA_NEW(&context->model->arena, map, (size_t)branch->n_value, context->err);
    TRY(move_values(g, &n, branch, map, context->err));
    for (sdx_id i = 0; i < branch->n_node; i++)
        if (!branch->node[i].dead) TRY(move_node(g, &branch->node[i], map, context->err));
    context->changes++;
    return connect_outputs(context, g, &n, branch, map);
}

sdx_status sdx_pass_inline_branches(sdx_pass_context *context, sdx_graph *graph)
{
    bool changed = false;
    for (sdx_id i = 0; i < graph->n_node; i++) { /* what comes in stands behind, and is looked at in its turn */
        const sdx_graph *branch = known_branch(graph, &graph->node[i]);
        if (!branch || branch->n_output < graph->node[i].n_out) continue;
        TRY(inline_branch(context, graph, i, branch));
        changed = true;
    }
    if (changed) TRY(sdx_graph_sort(graph, context->err));
    return sdx_pass_finish(context, graph);
}
