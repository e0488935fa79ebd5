/* fold_shapes.c: shapes that exporters compute node by node, said as constants.
 *
 *     x[B,S,768] -+- Shape -- Gather(0) -- Unsqueeze -+
 *                 +- Shape -- Gather(1) -- Unsqueeze -- Concat(., ., 12, 64) -+
 *                 +------------------------------------------------------ Reshape   ->   Reshape(x,
 * [0,0,12,64])
 *
 * Symbolic inference already knows that the result is [B,S,12,64]. In a Reshape's target 0 copies x's own dim
 * and one -1 takes what is left, so any shape whose dims are numbers or x's dims in place, but for one, is a
 * constant. A computed shape that equals a graph input's is that input's Shape, and a single size is read off
 * an input. The arithmetic that led there is then dead. */
#include <stdio.h>
#include <string.h>

#include "../../base/memory.h"
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

static sdx_status fold_reshape(sdx_pass_context *context, sdx_graph *g, sdx_id id)
{
    const sdx_node *n = &g->node[id];
    int64_t target[SDX_MAX_RANK];
    sdx_id value;
    const sdx_shape *from = &sdx_match_type(g, n->in[0])->shape, *to = &sdx_match_type(g, n->out[0])->shape;
    if (is_constant_already(g, n) || !constant_target(from, to, target)) return SDX_OK;
    TRY(sdx_pass_ints(context, g, to->rank, target, &value));
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

/* ---- sizes from the inputs ------------------------------------------------------------------------------ */

/* The graph input and axis that a plain symbol names. */
static bool find_size(const sdx_graph *g, sdx_element e, sdx_id *input, int64_t *axis)
{
    for (int i = 0; i < g->n_input; i++) {
        const sdx_type *type = sdx_match_type(g, g->input[i]);
        if (type->constant) continue;
        for (*axis = 0; *axis < type->shape.rank; ++*axis) {
            *input = g->input[i];
            if (sdx_dim_same(type->shape.dim[*axis], sdx_element_to_dim(e))) return true;
        }
    }
    return false;
}

/* Sums of at most a few sizes: past + sequence. */
static bool is_from_inputs(const sdx_graph *g, sdx_element e, int depth)
{
    sdx_id input;
    int64_t axis;
    if (e.symbol == SDX_ELEMENT_NUMBER) return true;
    if (e.symbol < 0 || depth == 0) return false;
    if (find_size(g, e, &input, &axis)) return true;
    const sdx_symbol *s = &g->model->symbol[e.symbol];
    return s->op == '+' && is_from_inputs(g, s->left, depth - 1) && is_from_inputs(g, s->right, depth - 1);
}

static sdx_status write_scalar(sdx_pass_context *context, sdx_graph *g, int64_t number, sdx_id *out)
{
    int64_t *own;
    ARENA_NEW(&g->model->arena, own, 1, context->err);
    *own = number;
    sdx_tensor t = {.dtype = SDX_I64, .data = own};
    return sdx_graph_add_constant(g, NULL, &t, out, context->err);
}

static sdx_status write_size(sdx_pass_context *context, sdx_graph *g, sdx_element e, sdx_id *out)
{
    sdx_id in[2], input;
    int64_t axis;
    if (e.symbol == SDX_ELEMENT_NUMBER) return write_scalar(context, g, e.number, out);
    if (find_size(g, e, &input, &axis)) {
        TRY(sdx_pass_emit(context, g, "Shape", NULL, 1, &input, &in[0]));
        TRY(write_scalar(context, g, axis, &in[1]));
        return sdx_pass_emit(context, g, "Gather", NULL, 2, in, out);
    }
    const sdx_symbol s = g->model->symbol[e.symbol];
    TRY(write_size(context, g, s.left, &in[0]));
    TRY(write_size(context, g, s.right, &in[1]));
    return sdx_pass_emit(context, g, "Add", NULL, 2, in, out);
}

/* A size read off some tensor that the graph computes, or a sum of sizes: off the inputs instead, so that the
 * tensor need not exist, nor exist yet (a position bias may ask how long the cached keys are). */
static sdx_status fold_size(sdx_pass_context *context, sdx_graph *g, sdx_id id)
{
    const sdx_node *n = &g->node[id];
    int count;
    sdx_id fresh, out = n->out[0];
    bool done;
    const sdx_type *type = sdx_match_type(g, out);
    const sdx_element *e = sdx_type_contents(type, &count);
    const sdx_node *shape = sdx_match_op(g, n->in[0], "Shape");
    if (!shape || g->value[shape->in[0]].is_input || g->value[out].is_output) return SDX_OK;
    if (!e || count != 1 || type->shape.rank != 0 || type->dtype != SDX_I64 || e->symbol < 0) return SDX_OK;
    if (!is_from_inputs(g, *e, 4)) return SDX_OK;
    TRY(write_size(context, g, *e, &fresh));
    return sdx_pass_alias(context, g, fresh, out, &done);
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
        else if (sdx_match_is(n, "Gather"))
            TRY(fold_size(context, graph, i));
    }
    return sdx_pass_finish(context, graph);
}
