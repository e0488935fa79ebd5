/* eval.c: computes a node whose inputs are constants, for the folding passes: the whole life of an operator in
 * one call, in a scratch arena. Only the outputs go into the caller's. */
#include <string.h>

#include "../base/memory.h"
#include "engine.h"

/* Which graph of the model a node belongs to: ids mean values of that one. */
static const sdx_graph *graph_of(const sdx_model *model, const sdx_node *node)
{
    for (const sdx_graph *g = model->graphs; g; g = g->next)
        if (node >= g->node && node < g->node + g->n_node) return g;
    return NULL;
}

/* The constants, copied where they lie askew in the file and the operator cannot take that. */
static sdx_status gather_inputs(const sdx_graph *g, const sdx_node *n, sdx_arena *scratch, sdx_type *type,
                                sdx_tensor *in, sdx_error *err)
{
    for (int i = 0; i < n->n_in; i++) {
        type[i] = sdx_unknown_type;
        in[i] = sdx_absent;
        if (n->in[i] == SDX_NONE) continue;
        type[i] = g->value[n->in[i]].type;
        if (!type[i].constant)
            return sdx_fail(err, SDX_ERR_INTERNAL, "input %d is not a constant, so the node cannot be folded",
                            i);
        in[i] = *type[i].constant;
        bool as_it_lies = n->def->flags & SDX_OP_ANY_ALIGNMENT || (i == 0 && n->def->flags & SDX_OP_VIEW);
        if (as_it_lies || sdx_is_aligned(&in[i])) continue;
        size_t bytes = sdx_tensor_bytes(&in[i]);
        void *copy = sdx_arena_alloc(scratch, bytes);
        if (!copy) return sdx_fail_memory(err, bytes);
        in[i].data = memcpy(copy, in[i].data, bytes);
        type[i].constant = &in[i];
    }
    return SDX_OK;
}

typedef struct results {
    sdx_arena *arena;
    void *view; /* input 0's bytes when output 0 is a view of them: a reshaped weight stays in the file */
} results;

static void *result_memory(void *owner, int i, size_t bytes)
{
    results *r = owner;
    if (i == 0 && r->view) return r->view;
    return sdx_arena_alloc(r->arena, bytes < SDX_ALIGN ? SDX_ALIGN : bytes);
}

static sdx_status prepare(const sdx_eval_context *context, const sdx_model *model, const sdx_node *n,
                          const sdx_type *type, sdx_arena *scratch, void **state, sdx_error *err)
{
    if (!n->def->prepare) return SDX_OK;
    sdx_prepare p = {.model = model,
                     .node = n,
                     .n_in = n->n_in,
                     .in = type,
                     .kernels = context->kernels,
                     .threads = context->threads,
                     .brief = true,
                     .arena = scratch,
                     .err = err};
    sdx_status status = sdx_op_prepare(&p);
    if (status != SDX_OK) {
        sdx_node_error(model, n, type, n->n_in, err);
        return status;
    }
    *state = p.state;
    return SDX_OK;
}

static sdx_status evaluate(sdx_eval_context *context, const sdx_model *model, const sdx_node *n,
                           sdx_arena *arena, sdx_arena *scratch, sdx_tensor *outputs, sdx_error *err)
{
    sdx_type *type;
    sdx_tensor *in;
    bool *wanted;
    ARENA_NEW(scratch, type, (size_t)n->n_in, err);
    ARENA_NEW(scratch, in, (size_t)n->n_in, err);
    ARENA_NEW(scratch, wanted, (size_t)n->n_out, err);
    const sdx_graph *g = graph_of(model, n);
    if (!g) return sdx_fail(err, SDX_ERR_INTERNAL, "a node outside the model's graphs cannot be folded");
    TRY(gather_inputs(g, n, scratch, type, in, err));
    for (int i = 0; i < n->n_out; i++) wanted[i] = i < n->def->min_out || n->out[i] != SDX_NONE;
    void *state = NULL;
    TRY(prepare(context, model, n, type, scratch, &state, err));

    results r = {arena, n->def->flags & SDX_OP_VIEW ? in[0].data : NULL};
    sdx_call call = {.model = (sdx_model *)model,
                     .node = n,
                     .state = state,
                     .kernels = context->kernels,
                     .threads = context->threads,
                     .in = in,
                     .wanted = wanted,
                     .out = outputs,
                     .scratch = scratch,
                     .strings = arena,
                     .steps_left = &context->steps_left,
                     .memory = result_memory,
                     .owner = &r,
                     .err = err};
    return sdx_call_run(&call);
}

sdx_status sdx_eval_node(void *context, const sdx_model *model, const sdx_node *node, sdx_arena *arena,
                         sdx_tensor *outputs, sdx_error *err)
{
    sdx_arena scratch;
    sdx_arena_init(&scratch);
    sdx_status status = evaluate(context, model, node, arena, &scratch, outputs, err);
    sdx_arena_fini(&scratch);
    return status;
}
