/* call.c: one node, here and now. Infer sees the input tensors themselves, so whatever depends on values (the
 * target of a Reshape, the end of a Range) is known; then memory, then run. Constant folding is this, and so
 * are the steps whose shapes a plan could not tell. */
#include "../base/memory.h"
#include "engine.h"
#include "ops/compute.h"

static sdx_status types_of(const sdx_tensor *tensor, int count, sdx_arena *arena, sdx_type **out,
                           sdx_error *err)
{
    ARENA_NEW(arena, *out, (size_t)count, err);
    for (int i = 0; i < count; i++) {
        sdx_type *t = &(*out)[i];
        *t = sdx_unknown_type;
        if (tensor[i].dtype == SDX_UNDEFINED) continue;
        *t =
            (sdx_type){.dtype = tensor[i].dtype, .shape = sdx_tensor_shape(&tensor[i]), .constant = &tensor[i]};
        TRY(sdx_type_set_contents(arena, t, err));
    }
    return SDX_OK;
}

sdx_status sdx_call_error(const sdx_model *model, const sdx_node *node, const sdx_tensor *in, sdx_error *err)
{
    sdx_status status = err ? err->status : SDX_ERR_INTERNAL;
    sdx_arena arena;
    sdx_arena_init(&arena);
    sdx_type *types = NULL;
    if (types_of(in, node->n_in, &arena, &types, NULL) == SDX_OK)
        sdx_node_error(model, node, types, node->n_in, err);
    sdx_arena_fini(&arena);
    return status;
}

/* ---- memory ---------------------------------------------------------------------------------------------- */

/* Output i gets its header and memory. */
static sdx_status place(sdx_call *call, int i, sdx_dtype dtype, const sdx_shape *shape)
{
    size_t bytes;
    char text[SDX_TENSOR_TEXT];
    if (!sdx_tensor_size(dtype, shape, &bytes))
        return sdx_fail(call->err, SDX_ERR_UNSUPPORTED, "output %d would be %s, which has no size", i,
                        sdx_tensor_format(dtype, shape, text, sizeof text));
    void *data = call->memory(call->owner, i, bytes);
    if (!data) return sdx_fail_memory(call->err, bytes);
    call->out[i] = sdx_tensor_make(dtype, shape, data);
    return SDX_OK;
}

static sdx_status check_wanted(const sdx_run *run, int i)
{
    const sdx_call *call = run->owner;
    if (i >= 0 && i < run->n_out && !call->out[i].data) return SDX_OK;
    return sdx_fail(run->err, SDX_ERR_INTERNAL, "output %d is allocated twice or does not exist", i);
}

static sdx_status allocate(sdx_run *run, int i, sdx_dtype dtype, const sdx_shape *shape)
{
    sdx_call *call = run->owner;
    TRY(check_wanted(run, i));
    return call->wanted[i] ? place(call, i, dtype, shape) : SDX_OK;
}

static sdx_status give(sdx_run *run, int i, const sdx_tensor *value)
{
    sdx_call *call = run->owner;
    size_t bytes;
    TRY(check_wanted(run, i));
    if (!call->wanted[i]) return SDX_OK;
    if (!sdx_value_size(value, &bytes)) return sdx_fail_memory(call->err, SIZE_MAX);
    TRY(sdx_run_spend(run, (double)bytes)); /* a list that grows in a loop is copied every time */
    void *block = call->memory(call->owner, i, bytes);
    if (!block) return sdx_fail_memory(call->err, bytes);
    call->out[i] = sdx_value_copy(value, block);
    return SDX_OK;
}

/* ---- subgraphs ------------------------------------------------------------------------------------------- */

static sdx_status feed_and_run(sdx_call *call, const sdx_body *body, int slot, const sdx_tensor *in)
{
    const sdx_graph *g = body->graph;
    sdx_tensor *feed;
    ARENA_NEW(call->scratch, feed, (size_t)body->n_feed, call->err);
    for (int i = 0; i < body->n_feed; i++) {
        feed[i] = i < g->n_input ? in[i] : call->plan->tensor[g->value[body->feed[i]].outer];
        if (body->model_input[i] >= 0) TRY(sdx_context_bind(call->context, body->model_input[i], &feed[i], call->err));
    }
    return sdx_frame_run(call->context, body, slot, feed, call->err);
}

static sdx_status run_body(sdx_run *run, const sdx_graph *g, int slot, const sdx_tensor *in, sdx_tensor *out)
{
    sdx_call *call = run->owner;
    if (!call->context) return sdx_fail(call->err, SDX_ERR_INTERNAL, "a subgraph cannot run here");
    sdx_arena_mark mark = sdx_arena_get_mark(call->scratch);
    sdx_status status = feed_and_run(call, &call->context->program->body[g->index], slot, in);
    sdx_arena_reset(call->scratch, mark);
    if (status != SDX_OK) {
        call->told = true;
        return status;
    }
    for (int i = 0; i < g->n_output; i++) out[i] = sdx_frame_output(&call->context->frame[g->index][slot], i);
    return SDX_OK;
}

/* ---- the call -------------------------------------------------------------------------------------------- */

static sdx_status infer_outputs(sdx_call *call, sdx_type *in, sdx_type *out)
{
    const sdx_node *n = call->node;
    for (int i = 0; i < n->n_out; i++) out[i] = sdx_unknown_type;
    sdx_infer infer = {.model = call->model,
                       .node = n,
                       .n_in = n->n_in,
                       .n_out = n->n_out,
                       .in = in,
                       .out = out,
                       .arena = call->scratch,
                       .err = call->err};
    if (call->lock) pthread_mutex_lock(call->lock);
    sdx_status status = sdx_op_infer(&infer);
    if (call->lock) pthread_mutex_unlock(call->lock);
    return status;
}

static sdx_status run_in_memory(sdx_call *call, const sdx_type *in, const sdx_type *out)
{
    const sdx_node *n = call->node;
    bool dynamic = n->def->flags & SDX_OP_DYNAMIC;
    for (int i = 0; i < n->n_out && !dynamic; i++)
        if (call->wanted[i]) TRY(place(call, i, out[i].dtype, &out[i].shape));
    if (n->def->flags & SDX_OP_VIEW && call->out[0].data == call->in[0].data) return SDX_OK;

    sdx_plan_step step = {.node = n,
                          .state = call->state,
                          .n_in = n->n_in,
                          .n_out = n->n_out,
                          .in = in,
                          .out = out,
                          .kernels = call->kernels,
                          .threads = call->threads,
                          .err = call->err};
    TRY(sdx_op_plan(&step));
    void *workspace = sdx_arena_alloc(call->scratch, step.workspace < SDX_ALIGN ? SDX_ALIGN : step.workspace);
    if (!workspace) return sdx_fail_memory(call->err, step.workspace);
    sdx_run run = {.node = n,
                   .state = call->state,
                   .kernels = call->kernels,
                   .threads = call->threads,
                   .n_in = n->n_in,
                   .n_out = n->n_out,
                   .in = call->in,
                   .out = call->out,
                   .workspace = workspace,
                   .allocate = allocate,
                   .give = give,
                   .run_body = run_body,
                   .scratch = call->scratch,
                   .strings = call->strings,
                   .steps_left = call->steps_left,
                   .owner = call,
                   .err = call->err};
    return sdx_op_run(&run);
}

/* Operators that know only tensors never see anything else. */
static sdx_status check_kinds(const sdx_call *call)
{
    for (int i = 0; i < call->node->n_in; i++)
        if (!sdx_dtype_is_tensor(call->in[i].dtype) && !(call->node->def->flags & SDX_OP_ANY_VALUE))
            return sdx_fail(call->err, SDX_ERR_USAGE, "input %d is a sequence or an empty optional, not a tensor", i);
    return SDX_OK;
}

/* What is not a tensor passes a view as it is. */
static bool passes_on(const sdx_call *call)
{
    return call->node->def->flags & SDX_OP_VIEW && !sdx_dtype_is_tensor(call->in[0].dtype);
}

static sdx_status infer_and_run(sdx_call *call)
{
    TRY(check_kinds(call));
    if (passes_on(call)) {
        call->out[0] = call->in[0];
        return SDX_OK;
    }
    sdx_type *in, *out;
    TRY(types_of(call->in, call->node->n_in, call->scratch, &in, call->err));
    ARENA_NEW(call->scratch, out, (size_t)call->node->n_out, call->err);
    TRY(infer_outputs(call, in, out));
    TRY(run_in_memory(call, in, out));
    for (int i = 0; i < call->node->n_out; i++)
        if (call->wanted[i] && !call->out[i].data)
            return sdx_fail(call->err, SDX_ERR_INTERNAL, "output %d was not produced", i);
    return SDX_OK;
}

sdx_status sdx_call_run(sdx_call *call)
{
    sdx_row_ran(call->node->def);
    sdx_error local, *given = call->err;
    if (!given) call->err = &local;
    for (int i = 0; i < call->node->n_out; i++) call->out[i] = sdx_absent;
    sdx_status status = infer_and_run(call);
    if (status != SDX_OK && !call->told) status = sdx_call_error(call->model, call->node, call->in, call->err);
    call->err = given;
    return status;
}
