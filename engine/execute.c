/* execute.c: walks the steps of a plan. A step of known shapes is a few header copies and the operator's run; a
 * step whose shapes only the run knows goes through sdx_call_run with memory from the heap. A warm run without
 * such steps allocates nothing, and one with such steps takes blocks of up to 1 MB from the run before. */
#include <stdlib.h>
#include <string.h>

#include "../base/clock.h"
#include "../base/memory.h"
#include "engine.h"

/* Where the values of this run lie, as far as the plan knows. */
static void bind(sdx_plan *p, const sdx_tensor *feed, unsigned char *buffer)
{
    const sdx_graph *g = p->body->graph;
    for (sdx_id v = 0; v < g->n_value; v++) {
        sdx_id root = p->root[v];
        if (p->home[root] == SDX_HOME_BUFFER) p->tensor[v].data = buffer + p->offset[root];
    }
    for (int i = 0; i < p->body->n_feed; i++) {
        sdx_home home = p->home[p->body->feed[i]];
        if (home == SDX_HOME_INPUT || home == SDX_HOME_KEPT) p->tensor[p->body->feed[i]] = feed[i];
    }
}

static uint64_t *limited_steps(sdx_context *context)
{
    return context->program->max_steps == UINT64_MAX ? NULL : &context->steps_left;
}

static void load_inputs(const sdx_plan *p, const sdx_step *s, const sdx_node *n)
{
    for (int i = 0; i < n->n_in; i++) s->in[i] = n->in[i] == SDX_NONE ? sdx_absent : p->tensor[n->in[i]];
}

/* ---- shapes known to the plan ---------------------------------------------------------------------------- */

static sdx_status run_static(sdx_plan *p, sdx_context *context, sdx_step *s, const sdx_node *n, unsigned char *buffer,
                             sdx_error *err)
{
    load_inputs(p, s, n);
    sdx_row_ran(n->def);
    if (s->shares) {
        p->tensor[n->out[0]].data = s->in[0].data;
        return SDX_OK;
    }
    for (int o = 1; o < SDX_PASTS; o++)
        if (s->past[o]) p->tensor[n->out[o]].data = s->in[s->past[o]].data;
    for (int o = 0; o < n->n_out; o++) s->out[o] = s->wanted[o] ? p->tensor[n->out[o]] : sdx_absent;
    const sdx_program *program = p->body->program;
    sdx_run run = {.node = n,
                   .state = p->body->state[s->node],
                   .kernels = program->kernels,
                   .threads = program->threads,
                   .n_in = n->n_in,
                   .n_out = n->n_out,
                   .in = s->in,
                   .out = s->out,
                   .workspace = buffer + s->workspace_offset,
                   .room = s->room,
                   .strings = &p->strings,
                   .steps_left = limited_steps(context),
                   .err = err};
    if (sdx_op_run(&run) == SDX_OK) return SDX_OK;
    return sdx_call_error(program->model, n, s->in, err);
}

/* ---- shapes known to the run ----------------------------------------------------------------------------- */

typedef struct placing {
    sdx_plan *plan;
    const sdx_step *step;
    const sdx_node *node;
    sdx_arena *scratch;
} placing;

static void *place_output(void *owner, int o, size_t bytes)
{
    placing *at = owner;
    sdx_id v = at->node->out[o];
    if (o == 0 && at->step->shares) return at->step->in[0].data;
    if (v == SDX_NONE) return sdx_arena_alloc(at->scratch, bytes < SDX_ALIGN ? SDX_ALIGN : bytes);
    return sdx_plan_take_block(at->plan, v, bytes);
}

/* A shape that the plan relied on must be the one that came out, and so must a type that it knew. */
static sdx_status keep_output(sdx_plan *p, sdx_id v, const sdx_tensor *t, sdx_error *err)
{
    const sdx_type *planned = &p->type[v];
    sdx_shape shape = sdx_tensor_shape(t);
    p->tensor[v] = *t;
    bool relied = sdx_shape_is_known(&planned->shape);
    bool same_type = planned->dtype == SDX_UNDEFINED || planned->dtype == t->dtype;
    if (!relied || (same_type && sdx_shape_same(&planned->shape, &shape))) return SDX_OK;
    char was[SDX_TENSOR_TEXT], is[SDX_TENSOR_TEXT];
    return sdx_fail(err, SDX_ERR_INTERNAL, "output was expected to be %s and is %s",
                    sdx_tensor_format(planned->dtype, &planned->shape, was, sizeof was),
                    sdx_tensor_format(t->dtype, &shape, is, sizeof is));
}

static sdx_status run_dynamic(sdx_plan *p, sdx_context *context, sdx_step *s, const sdx_node *n, sdx_error *err)
{
    load_inputs(p, s, n);
    placing at = {p, s, n, &context->scratch};
    sdx_program *program =
        (sdx_program *)p->body->program; /* const but for its lock and symbols, which the lock guards */
    sdx_call call = {.model = program->model,
                     .node = n,
                     .state = p->body->state[s->node],
                     .kernels = program->kernels,
                     .threads = program->threads,
                     .lock = &program->lock,
                     .in = s->in,
                     .wanted = s->wanted,
                     .out = s->out,
                     .scratch = &context->scratch,
                     .strings = &p->strings,
                     .memory = place_output,
                     .owner = &at,
                     .context = context,
                     .plan = p,
                     .steps_left = limited_steps(context),
                     .err = err};
    TRY(sdx_call_run(&call));
    for (int o = 0; o < n->n_out; o++) {
        if (!s->wanted[o] || n->out[o] == SDX_NONE) continue;
        if (keep_output(p, n->out[o], &s->out[o], err) != SDX_OK)
            return sdx_call_error(program->model, n, s->in, err);
    }
    return SDX_OK;
}

static void release_after(sdx_plan *p, const sdx_step *s)
{
    for (sdx_id v = s->release; v != SDX_NONE; v = p->next_release[v]) sdx_plan_give_block(p, v);
}

/* ---- the walk -------------------------------------------------------------------------------------------- */

static sdx_status run_step(sdx_plan *p, sdx_context *context, sdx_step *s, unsigned char *buffer, sdx_error *err)
{
    const sdx_node *n = sdx_step_node(p, s);
    sdx_status status;
    if (s->dynamic) {
        sdx_arena_mark mark = sdx_arena_get_mark(&context->scratch);
        status = run_dynamic(p, context, s, n, err);
        sdx_arena_reset(&context->scratch, mark);
    } else {
        status = run_static(p, context, s, n, buffer, err);
    }
    if (s->work && status == SDX_OK)
        sdx_work_add(s->work, p->body->program, p->body->graph, n, s->in, s->out, &context->work);
    if (s->release != SDX_NONE) release_after(p, s);
    return status;
}

/* A copy whose size only the run knows. */
static sdx_status copy_to_heap(sdx_plan *p, int i, sdx_error *err)
{
    const sdx_tensor *value = &p->tensor[p->body->graph->output[i]];
    size_t bytes;
    if (!sdx_value_size(value, &bytes)) return sdx_fail_memory(err, SIZE_MAX);
    void *block = sdx_malloc_aligned(bytes);
    if (!block) return sdx_fail_memory(err, bytes);
    p->output_value[i] = sdx_value_copy(value, block);
    return SDX_OK;
}

static sdx_status copy_outputs(sdx_plan *p, unsigned char *buffer, sdx_error *err)
{
    const sdx_graph *g = p->body->graph;
    for (int i = 0; i < g->n_output; i++) {
        if (p->output_copy[i] == SDX_NO_COPY) continue;
        const sdx_tensor *t = &p->tensor[g->output[i]];
        if (p->output_copy[i] == SDX_HEAP_COPY)
            TRY(copy_to_heap(p, i, err));
        else if (sdx_tensor_bytes(t))
            memcpy(buffer + p->output_copy[i], t->data, sdx_tensor_bytes(t));
    }
    return SDX_OK;
}

/* A body counts as a step itself, so that a loop over an empty one ends too. */
static sdx_status count_steps(const sdx_plan *p, sdx_context *context, sdx_error *err)
{
    uint64_t steps = (uint64_t)p->n_step + 1;
    if (steps > context->steps_left)
        return sdx_fail(err, SDX_ERR_USAGE, "%s: the run takes more than the %llu steps that it was given",
                        context->program->model->path, (unsigned long long)context->program->max_steps);
    context->steps_left -= steps;
    return SDX_OK;
}

/* Its own time: without that of the steps in its subgraphs. */
static sdx_status run_timed(sdx_plan *p, sdx_context *context, sdx_step *s, unsigned char *buffer, sdx_error *err)
{
    sdx_profile *profile = &context->profile[p->body->graph->index][s->node];
    double told = context->told, start = sdx_now();
    TRY(run_step(p, context, s, buffer, err));
    double elapsed = sdx_now() - start;
    profile->seconds += elapsed - (context->told - told);
    profile->runs++;
    context->told = told + elapsed;
    return SDX_OK;
}

sdx_status sdx_plan_run(sdx_plan *p, sdx_context *context, const sdx_tensor *feed, unsigned char *buffer,
                        sdx_error *err)
{
    if (context->program->max_steps != UINT64_MAX) TRY(count_steps(p, context, err));
    bind(p, feed, buffer);
    sdx_status (*run)(sdx_plan *, sdx_context *, sdx_step *, unsigned char *, sdx_error *) =
        context->profile ? run_timed : run_step;
    for (int i = 0; i < p->n_step; i++) TRY(run(p, context, &p->step[i], buffer, err));
    return copy_outputs(p, buffer, err);
}

sdx_tensor sdx_plan_output(const sdx_plan *p, int i, unsigned char *buffer)
{
    if (p->output_copy[i] == SDX_HEAP_COPY) return p->output_value[i];
    sdx_tensor t = p->tensor[p->body->graph->output[i]];
    if (p->output_copy[i] != SDX_NO_COPY) t.data = buffer + p->output_copy[i];
    return t;
}
