/* plan.c: a body at one set of input shapes. Inference with exact sizes knows not only every shape but also
 * the contents of small integer tensors, so the Shape-Gather-Concat chains that exporters leave behind become
 * constants of the plan and cost nothing per run. What remains are steps, and one buffer in which all of them
 * find their values (plan_homes.c). */
#include <stdlib.h>
#include <string.h>

#include "../base/memory.h"
#include "planner.h"

/* ---- exact types ----------------------------------------------------------------------------------------- */

/* What is fed: a tensor is exact, an input left out is its default, anything else is for the run to see. */
static sdx_status set_feed(sdx_planner *b, sdx_id v, const sdx_tensor *given)
{
    sdx_type *type = &b->plan->type[v];
    const sdx_tensor *preset = b->graph->value[v].preset;
    if (given->dtype == SDX_UNDEFINED && preset) {
        *type = (sdx_type){.dtype = preset->dtype, .shape = sdx_tensor_shape(preset), .constant = preset};
        return sdx_type_set_contents(&b->plan->arena, type, b->err);
    }
    if (given->dtype == SDX_UNDEFINED || !sdx_dtype_is_tensor(given->dtype)) return SDX_OK;
    type->dtype = given->dtype;
    type->shape = sdx_tensor_shape(given);
    return SDX_OK;
}

static sdx_status infer_types(sdx_planner *b, const sdx_tensor *feed)
{
    sdx_plan *p = b->plan;
    const sdx_graph *g = b->graph;
    for (sdx_id v = 0; v < g->n_value; v++)
        p->type[v] = g->value[v].type.constant ? g->value[v].type : sdx_unknown_type;
    for (int i = 0; i < b->body->n_feed; i++) {
        sdx_id v = b->body->feed[i];
        p->key[i] = feed[i];
        p->key[i].data = NULL;
        if (!g->value[v].type.constant) TRY(set_feed(b, v, &feed[i]));
    }
    pthread_mutex_t *lock = &((sdx_program *)b->program)->lock;
    pthread_mutex_lock(lock);
    sdx_status status = sdx_infer_graph(b->program->model, g, p->type, &p->arena, b->err);
    pthread_mutex_unlock(lock);
    return status;
}

/* Element i of a little-endian integer array. */
static void store_integer(sdx_tensor *t, int i, int64_t number)
{
    size_t size = sdx_dtype_size(t->dtype);
    memcpy((unsigned char *)t->data + (size_t)i * size, &number, size);
}

/* A value whose every element is known becomes a constant of the plan. */
static sdx_status materialise(sdx_planner *b, sdx_type *type)
{
    int64_t number[SDX_MAX_ELEMENTS];
    int count;
    if (type->constant || !sdx_type_ints(type, SDX_MAX_ELEMENTS, number, &count)) return SDX_OK;
    bool integer = sdx_dtype_is_integer(type->dtype) || type->dtype == SDX_BOOL;
    if (!integer || sdx_shape_count(&type->shape) != count) return SDX_OK;
    sdx_tensor *t;
    ARENA_NEW(&b->plan->arena, t, 1, b->err);
    *t = sdx_tensor_make(type->dtype, &type->shape, NULL);
    t->data = sdx_arena_alloc(&b->plan->arena, sdx_tensor_bytes(t));
    if (!t->data) return sdx_fail_memory(b->err, sdx_tensor_bytes(t));
    for (int i = 0; i < count; i++) store_integer(t, i, number[i]);
    type->constant = t;
    return SDX_OK;
}

static sdx_status materialise_outputs(sdx_planner *b)
{
    for (sdx_id i = 0; i < b->graph->n_node; i++) {
        const sdx_node *n = &b->graph->node[i];
        for (int o = 0; o < n->n_out && !n->dead; o++)
            if (n->out[o] != SDX_NONE) TRY(materialise(b, &b->plan->type[n->out[o]]));
    }
    return SDX_OK;
}

/* ---- steps ----------------------------------------------------------------------------------------------- */

static void mark_needed(void *needed, sdx_id v)
{
    ((bool *)needed)[v] = true;
}

/* Whether a node makes something that is needed and not known already; then what it reads is needed too. */
static bool mark_live(sdx_planner *b, const sdx_node *n)
{
    bool live = false;
    for (int o = 0; o < n->n_out; o++)
        live |= n->out[o] != SDX_NONE && b->needed[n->out[o]] && !b->plan->type[n->out[o]].constant;
    if (!live) return false;
    for (int o = 0; o < n->n_out; o++) /* it will be computed after all */
        if (n->out[o] != SDX_NONE) b->plan->type[n->out[o]].constant = NULL;
    sdx_node_each_read(n, mark_needed, b->needed);
    return true;
}

static int mark_all(sdx_planner *b)
{
    int count = 0;
    for (int i = 0; i < b->graph->n_output; i++) b->needed[b->graph->output[i]] = true;
    for (sdx_id i = b->graph->n_node - 1; i >= 0; i--) {
        b->live[i] = !b->graph->node[i].dead && mark_live(b, &b->graph->node[i]);
        count += b->live[i];
    }
    return count;
}

static bool is_dynamic(const sdx_planner *b, const sdx_node *n, const sdx_step *s)
{
    const sdx_type *type = b->plan->type;
    if (n->def->flags & SDX_OP_DYNAMIC) return true;
    for (int i = 0; i < n->n_in; i++)
        if (n->in[i] != SDX_NONE && !sdx_type_is_exact(&type[n->in[i]])) return true;
    for (int o = 0; o < n->n_out; o++)
        if (s->wanted[o] && (n->out[o] == SDX_NONE || !sdx_type_is_exact(&type[n->out[o]]))) return true;
    return false;
}

/* How much workspace a step of known shapes wants. */
static sdx_status ask_workspace(sdx_planner *b, const sdx_node *n, sdx_step *s)
{
    if (!n->def->plan && !(n->def->flags & SDX_OP_WIDE)) return SDX_OK;
    sdx_plan *p = b->plan;
    sdx_type *in, *out;
    ARENA_NEW(&p->arena, in, (size_t)n->n_in, b->err);
    ARENA_NEW(&p->arena, out, (size_t)n->n_out, b->err);
    for (int i = 0; i < n->n_in; i++) in[i] = n->in[i] == SDX_NONE ? sdx_unknown_type : p->type[n->in[i]];
    for (int o = 0; o < n->n_out; o++) out[o] = n->out[o] == SDX_NONE ? sdx_unknown_type : p->type[n->out[o]];
    sdx_plan_step step = {.node = n,
                          .state = b->body->state[s->node],
                          .n_in = n->n_in,
                          .n_out = n->n_out,
                          .in = in,
                          .out = out,
                          .kernels = b->program->kernels,
                          .threads = b->program->threads,
                          .err = b->err};
    sdx_status status = sdx_op_plan(&step);
    if (status != SDX_OK) {
        sdx_node_error(b->program->model, n, in, n->n_in, b->err);
        return status;
    }
    s->workspace = step.workspace;
    memcpy(s->past, step.past, sizeof s->past);
    return SDX_OK;
}

static sdx_status add_step(sdx_planner *b, sdx_id id)
{
    const sdx_node *n = &b->graph->node[id];
    sdx_plan *p = b->plan;
    sdx_step *s = &p->step[p->n_step++];
    *s = (sdx_step){.node = id, .release = SDX_NONE, .work = sdx_work_find(n)};
    ARENA_NEW(&p->arena, s->in, (size_t)n->n_in, b->err);
    ARENA_NEW(&p->arena, s->out, (size_t)n->n_out, b->err);
    ARENA_NEW(&p->arena, s->wanted, (size_t)n->n_out, b->err);
    for (int o = 0; o < n->n_out; o++)
        s->wanted[o] = o < n->def->min_out || (n->out[o] != SDX_NONE && b->needed[n->out[o]]);
    s->dynamic = is_dynamic(b, n, s);
    s->shares = n->def->flags & SDX_OP_VIEW && n->n_in && n->in[0] != SDX_NONE && n->out[0] != SDX_NONE;
    return s->dynamic ? SDX_OK : ask_workspace(b, n, s);
}

static sdx_status add_steps(sdx_planner *b, int count)
{
    ARENA_NEW(&b->plan->arena, b->plan->step, (size_t)count, b->err);
    for (sdx_id i = 0; i < b->graph->n_node; i++)
        if (b->live[i]) TRY(add_step(b, i));
    return SDX_OK;
}

/* ---- plans ----------------------------------------------------------------------------------------------- */

static sdx_status allocate_arrays(sdx_planner *b)
{
    sdx_plan *p = b->plan;
    size_t n = (size_t)b->graph->n_value;
    ARENA_NEW(&p->arena, p->key, (size_t)b->body->n_feed, b->err);
    ARENA_NEW(&p->arena, p->append, b->keeper ? (size_t)b->keeper->count : 0, b->err);
    ARENA_NEW(&p->arena, p->output_copy, (size_t)b->graph->n_output, b->err);
    ARENA_NEW(&p->arena, p->output_value, (size_t)b->graph->n_output, b->err);
    ARENA_NEW(&p->arena, p->type, n, b->err);
    ARENA_NEW(&p->arena, p->tensor, n, b->err);
    ARENA_NEW(&p->arena, p->root, n, b->err);
    ARENA_NEW(&p->arena, p->home, n, b->err);
    ARENA_NEW(&p->arena, p->begin, n, b->err);
    ARENA_NEW(&p->arena, p->end, n, b->err);
    ARENA_NEW(&p->arena, p->offset, n, b->err);
    ARENA_NEW(&p->arena, p->heap, n, b->err);
    ARENA_NEW(&p->arena, p->next_release, n, b->err);
    ARENA_NEW(&p->arena, b->needed, n, b->err);
    ARENA_NEW(&p->arena, b->live, (size_t)b->graph->n_node, b->err);
    return SDX_OK;
}

static sdx_status build(sdx_planner *b, const sdx_tensor *feed)
{
    TRY(allocate_arrays(b));
    TRY(infer_types(b, feed));
    TRY(materialise_outputs(b));
    TRY(add_steps(b, mark_all(b)));
    return sdx_planner_place(b);
}

sdx_status sdx_plan_create(const sdx_body *body, const sdx_tensor *feed, const sdx_keeper *keeper, sdx_plan **out,
                           sdx_error *err)
{
    sdx_plan *p = sdx_calloc(1, sizeof *p);
    if (!p) return sdx_fail_memory(err, sizeof *p);
    sdx_arena_init(&p->arena);
    sdx_arena_init(&p->strings);
    p->body = body;
    sdx_planner b = {
        .plan = p, .body = body, .program = body->program, .graph = body->graph, .keeper = keeper, .err = err};
    sdx_status status = build(&b, feed);
    if (status != SDX_OK)
        sdx_plan_free(p);
    else
        *out = p;
    return status;
}

/* ---- blocks of values whose size only the run knows ------------------------------------------------------ */

enum { LARGEST_SPARE = 1 << 20 };

void sdx_plan_give_block(sdx_plan *p, sdx_id v)
{
    sdx_block given = p->heap[v];
    p->heap[v] = (sdx_block){0};
    if (given.data && given.bytes <= LARGEST_SPARE) {
        sdx_block *oldest = &p->spare[p->next_spare++ % SDX_SPARES], dropped = *oldest;
        *oldest = given;
        given = dropped;
    }
    free(given.data);
}

/* A spare one of up to twice the size will do. */
void *sdx_plan_take_block(sdx_plan *p, sdx_id v, size_t bytes)
{
    sdx_plan_give_block(p, v); /* left by a run that failed */
    sdx_block *found = NULL;
    for (int i = 0; i < SDX_SPARES && !found; i++)
        if (p->spare[i].data && p->spare[i].bytes >= bytes && p->spare[i].bytes / 2 <= bytes) found = &p->spare[i];
    if (found) {
        p->heap[v] = *found;
        *found = (sdx_block){0};
    } else {
        p->heap[v] = (sdx_block){sdx_malloc_aligned(bytes), bytes};
    }
    return p->heap[v].data;
}

void sdx_plan_release(sdx_plan *p)
{
    for (sdx_id v = 0; p->heap && v < p->body->graph->n_value; v++) sdx_plan_give_block(p, v);
    for (int i = 0; p->output_value && i < p->body->graph->n_output; i++) sdx_tensor_free(&p->output_value[i]);
    sdx_arena_fini(&p->strings);
}

void sdx_plan_free(sdx_plan *p)
{
    if (!p) return;
    sdx_plan_release(p);
    for (int i = 0; i < SDX_SPARES; i++) free(p->spare[i].data);
    sdx_arena_fini(&p->arena);
    free(p);
}
