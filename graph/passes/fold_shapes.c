/* fold_shapes.c: shapes that exporters compute node by node, said as constants.
 *
 *     x[B,S,768] -+- Shape -- Gather(0) -- Unsqueeze -+
 *                 +- Shape -- Gather(1) -- Unsqueeze -- Concat(., ., 12, 64) -+
 *                 +------------------------------------------------------ Reshape   ->   Reshape(x,
 * [0,0,12,64])
 *
 * Symbolic inference already knows that the result is [B,S,12,64]. In a Reshape's target 0 copies x's own dim
 * and one -1 takes what is left, so any shape whose dims are numbers or x's dims in place, but for one, is a
 * constant. A computed shape that equals a graph input's is that input's Shape. The arithmetic that led there
 * is then dead. */
#include <stdio.h>
#include <string.h>

#include "passes.h"

/* The target for x reshaped to `to`; false when it takes more than one dim on trust. */
static bool constant_target(const sdx_shape *from, const sdx_shape *to, int64_t target[SDX_MAX_RANK])
{
    int left_over = 0;
    if (to->rank < 0 || from->rank < 0) return false;
    for (int i = 0; i < to->rank; i++) {
        if (to->dim[i] == 0) return false; /* 0 would copy */
        bool copies = i < from->rank && sdx_dim_same(from->dim[i], to->dim[i]);
        if (sdx_dim_is_known(to->dim[i]))
            target[i] = to->dim[i];
        else
            target[i] = copies ? 0 : -1;
        left_over += target[i] == -1;
    }
    return left_over <= 1;
}

static bool is_constant_already(const sdx_graph *g, const sdx_node *n)
{
    return sdx_graph_constant(g, n->in[1]) != NULL;
}

/* Targets repeat from layer to layer: one initializer serves all. */
static sdx_status target_value(sdx_pass_context *context, sdx_graph *g, int rank, const int64_t *target,
                               sdx_id *out)
{
    char name[160] = "shape";
    for (int i = 0, at = 5; i < rank; i++)
        at += snprintf(name + at, sizeof name - (size_t)at, "_%lld", (long long)target[i]);
    int64_t ints[SDX_MAX_RANK];
    int count = 0;
    *out = sdx_graph_find_value(g, name);
    bool usable = *out != SDX_NONE && sdx_graph_constant(g, *out) &&
                  sdx_type_ints(sdx_match_type(g, *out), SDX_MAX_RANK, ints, &count) && count == rank &&
                  memcmp(ints, target, (size_t)rank * sizeof *ints) == 0;
    return usable ? SDX_OK : sdx_graph_add_ints(g, name, rank, target, out, context->err);
}

static sdx_status fold_reshape(sdx_pass_context *context, sdx_graph *g, sdx_id id)
{
    const sdx_node *n = &g->node[id];
    int64_t target[SDX_MAX_RANK];
    sdx_id value;
    const sdx_shape *from = &sdx_match_type(g, n->in[0])->shape, *to = &sdx_match_type(g, n->out[0])->shape;
    if (is_constant_already(g, n) || !constant_target(from, to, target)) return SDX_OK;
    TRY(target_value(context, g, to->rank, target, &value));
    n = &g->node[id];
    n->in[1] = value;
    context->changes++;
    return sdx_node_attr(n, "allowzero") ? sdx_node_set_int(g, id, "allowzero", 0, context->err) : SDX_OK;
}

/* ---- Shape of an input ---------------------------------------------------------------------------------- */

static bool is_shape_of(const sdx_type *shape, const sdx_type *input)
{
    int count = 0;
    const sdx_element *e = sdx_type_contents(shape, &count);
    if (!e || count < 1 || shape->dtype != SDX_I64 || shape->shape.rank != 1 || input->shape.rank != count)
        return false;
    for (int i = 0; i < count; i++)
        if (!sdx_dim_same(sdx_element_to_dim(e[i]), input->shape.dim[i])) return false;
    return true;
}

static sdx_status fold_to_shape(sdx_pass_context *context, sdx_graph *g, sdx_id id)
{
    const sdx_node *n = &g->node[id];
    for (int i = 0; i < g->n_input; i++) {
        sdx_id input = g->input[i], out = n->out[0], fresh;
        if (sdx_graph_constant(g, input) || !is_shape_of(sdx_match_type(g, out), sdx_match_type(g, input)))
            continue;
        return sdx_pass_replace(context, g, id, "", "Shape", 1, &input, 1, &out, &fresh);
    }
    return SDX_OK;
}

sdx_status sdx_pass_fold_shapes(sdx_pass_context *context, sdx_graph *graph)
{
    sdx_id count = graph->n_node;
    for (sdx_id i = 0; i < count; i++) {
        const sdx_node *n = &graph->node[i];
        if (n->dead) continue;
        if (sdx_match_is(n, "Reshape") && sdx_node_in(n, 1) != SDX_NONE)
            TRY(fold_reshape(context, graph, i));
        else if (sdx_match_is(n, "Concat") || sdx_match_is(n, "Where"))
            TRY(fold_to_shape(context, graph, i));
    }
    return sdx_pass_finish(context, graph);
}
