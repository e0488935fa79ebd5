/* plan.c: a body at one set of input shapes. Inference with exact sizes knows not only every shape but also
 * the contents of small integer tensors, so the Shape-Gather-Concat chains that exporters leave behind become
 * constants of the plan and cost nothing per run. What remains are steps, and one buffer in which all of them
 * find their values. */
#include <stdlib.h>
#include <string.h>

#include "../base/memory.h"
#include "engine.h"
#include "memory_plan.h"

typedef struct planner {
    sdx_plan *plan;
    const sdx_body *body;
    const sdx_program *program;
    const sdx_graph *graph;
    bool *needed; /* [n_value]: read by a live node or by the caller */
    bool *live;   /* [n_node] */
    const sdx_keeper *keeper; /* or NULL */
    sdx_error *err;
} planner;

/* ---- exact types ----------------------------------------------------------------------------------------- */

/* What is fed: a tensor is exact, an input left out is its default, anything else is for the run to see. */
static sdx_status set_feed(planner *b, sdx_id v, const sdx_tensor *given)
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

static sdx_status infer_types(planner *b, const sdx_tensor *feed)
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
static sdx_status materialise(planner *b, sdx_type *type)
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

static sdx_status materialise_outputs(planner *b)
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
static bool mark_live(planner *b, const sdx_node *n)
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

static int mark_all(planner *b)
{
    int count = 0;
    for (int i = 0; i < b->graph->n_output; i++) b->needed[b->graph->output[i]] = true;
    for (sdx_id i = b->graph->n_node - 1; i >= 0; i--) {
        b->live[i] = !b->graph->node[i].dead && mark_live(b, &b->graph->node[i]);
        count += b->live[i];
    }
    return count;
}

static bool is_exact(const sdx_type *t)
{
    return t->dtype != SDX_UNDEFINED && sdx_shape_is_known(&t->shape);
}

static bool is_dynamic(const planner *b, const sdx_node *n, const sdx_step *s)
{
    const sdx_type *type = b->plan->type;
    if (n->def->flags & SDX_OP_DYNAMIC) return true;
    for (int i = 0; i < n->n_in; i++)
        if (n->in[i] != SDX_NONE && !is_exact(&type[n->in[i]])) return true;
    for (int o = 0; o < n->n_out; o++)
        if (s->wanted[o] && (n->out[o] == SDX_NONE || !is_exact(&type[n->out[o]]))) return true;
    return false;
}

/* How much workspace a step of known shapes wants. */
static sdx_status ask_workspace(planner *b, const sdx_node *n, sdx_step *s)
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

static sdx_status add_step(planner *b, sdx_id id)
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

static sdx_status add_steps(planner *b, int count)
{
    ARENA_NEW(&b->plan->arena, b->plan->step, (size_t)count, b->err);
    for (sdx_id i = 0; i < b->graph->n_node; i++)
        if (b->live[i]) TRY(add_step(b, i));
    return SDX_OK;
}

/* ---- homes and lifetimes --------------------------------------------------------------------------------- */

static void settle_sources(planner *b)
{
    sdx_plan *p = b->plan;
    for (sdx_id v = 0; v < b->graph->n_value; v++) {
        p->root[v] = v;
        p->begin[v] = p->end[v] = -1;
        p->next_release[v] = SDX_NONE;
        if (!p->type[v].constant) continue;
        p->home[v] = SDX_HOME_CONSTANT;
        p->tensor[v] = *p->type[v].constant;
    }
    for (int i = 0; i < b->body->n_feed; i++)
        if (p->home[b->body->feed[i]] == SDX_HOME_NONE) p->home[b->body->feed[i]] = SDX_HOME_INPUT;
}

static void settle_output(planner *b, const sdx_step *s, int at, int o, sdx_id v)
{
    sdx_plan *p = b->plan;
    if (o == 0 && s->shares) {
        p->root[v] = p->root[b->graph->node[s->node].in[0]];
    } else {
        p->home[v] = s->dynamic ? SDX_HOME_HEAP : SDX_HOME_BUFFER;
        p->begin[v] = p->end[v] = at;
    }
    if (is_exact(&p->type[v])) p->tensor[v] = sdx_tensor_make(p->type[v].dtype, &p->type[v].shape, NULL);
}

typedef struct reader {
    sdx_plan *plan;
    int at;
} reader;

static void mark_read(void *context, sdx_id v)
{
    const reader *r = context;
    r->plan->end[r->plan->root[v]] = r->at;
}

/* Roots through views, and when each root is last read; sharing by operators in place comes after. */
static void settle_lifetimes(planner *b)
{
    sdx_plan *p = b->plan;
    for (int at = 0; at < p->n_step; at++) {
        const sdx_step *s = &p->step[at];
        const sdx_node *n = &b->graph->node[s->node];
        sdx_node_each_read(n, mark_read, &(reader){p, at});
        for (int o = 0; o < n->n_out; o++)
            if (s->wanted[o] && n->out[o] != SDX_NONE) settle_output(b, s, at, o, n->out[o]);
    }
    for (int i = 0; i < b->graph->n_output; i++) p->end[p->root[b->graph->output[i]]] = p->n_step;
}

/* ---- what the session keeps ------------------------------------------------------------------------------ */

/* How many steps read the value, or one of its views. */
static int count_readers(const planner *b, sdx_id root)
{
    const sdx_plan *p = b->plan;
    int count = 0;
    for (int at = 0; at < p->n_step; at++) {
        const sdx_node *n = sdx_step_node(p, &p->step[at]);
        for (int i = 0; i < n->n_in; i++) count += n->in[i] != SDX_NONE && p->root[n->in[i]] == root;
        if (sdx_node_graph(n, 0)) count += 2; /* it may capture anything */
    }
    return count;
}

static int count_outputs(const planner *b, sdx_id root)
{
    int count = 0;
    for (int i = 0; i < b->graph->n_output; i++) count += b->plan->root[b->graph->output[i]] == root;
    return count;
}

/* What is kept as input i and output o of the step, and nobody else sees; -1: nothing. */
static int find_kept(const planner *b, const sdx_node *n, int i, int o)
{
    for (int k = 0; i < n->n_in && o < n->n_out && k < b->keeper->count; k++) {
        sdx_id from = b->graph->input[b->keeper->kept[k].input], to = b->graph->output[b->keeper->kept[k].output];
        if (n->in[i] != from || n->out[o] != to) continue;
        bool alone = count_readers(b, from) == 1 && !count_outputs(b, from) && !count_readers(b, to) &&
                     count_outputs(b, to) == 1;
        return alone && b->plan->home[from] == SDX_HOME_INPUT ? k : -1;
    }
    return -1;
}

/* A step that appends to what is kept does so in place, if that holds of all that it appends to. */
static void settle_kept(planner *b)
{
    sdx_plan *p = b->plan;
    for (int k = 0; b->keeper && k < b->keeper->count; k++) p->append[k] = -1;
    for (int at = 0; at < p->n_step; at++) {
        sdx_step *s = &p->step[at];
        const sdx_node *n = sdx_step_node(p, s);
        int kept[SDX_PASTS] = {0};
        bool all = b->keeper != NULL;
        for (int o = 1; o < SDX_PASTS && all; o++)
            if (s->past[o]) all = (kept[o] = find_kept(b, n, s->past[o], o)) >= 0;
        if (!all) memset(s->past, 0, sizeof s->past);
        for (int o = 1; o < SDX_PASTS; o++) {
            if (!s->past[o]) continue;
            p->append[kept[o]] = at;
            p->home[n->in[s->past[o]]] = SDX_HOME_KEPT;
            p->root[n->out[o]] = n->in[s->past[o]];
        }
    }
}

/* ---- in place -------------------------------------------------------------------------------------------- */

/* Output 0 may replace input 0: nobody reads its bytes later, nor under another name in this very step. */
static bool can_work_in_place(const planner *b, const sdx_step *s, int at)
{
    const sdx_plan *p = b->plan;
    const sdx_node *n = &b->graph->node[s->node];
    if (!(n->def->flags & SDX_OP_INPLACE) || s->dynamic || s->shares || n->in[0] == SDX_NONE) return false;
    sdx_id from = n->in[0], root = p->root[from], to = n->out[0];
    if (to == SDX_NONE || p->home[root] != SDX_HOME_BUFFER || p->end[root] != at) return false;
    for (int i = 1; i < n->n_in; i++)
        if (n->in[i] != SDX_NONE && n->in[i] != from && p->root[n->in[i]] == root) return false;
    return p->type[from].dtype == p->type[to].dtype &&
           sdx_shape_count(&p->type[from].shape) == sdx_shape_count(&p->type[to].shape);
}

static void share_in_place(planner *b)
{
    sdx_plan *p = b->plan;
    for (int at = 0; at < p->n_step; at++) {
        const sdx_step *s = &p->step[at];
        const sdx_node *n = &b->graph->node[s->node];
        for (int o = 0; o < n->n_out; o++) /* a view's root may itself have moved in the meantime */
            if (n->out[o] != SDX_NONE) p->root[n->out[o]] = p->root[p->root[n->out[o]]];
        if (!can_work_in_place(b, s, at)) continue;
        sdx_id root = p->root[n->in[0]];
        p->end[root] = p->end[n->out[0]];
        p->root[n->out[0]] = root;
    }
}

/* Links each heap root to the step after which nobody reads it; the caller's stay until the next run. */
static void settle_releases(planner *b)
{
    sdx_plan *p = b->plan;
    for (sdx_id v = 0; v < b->graph->n_value; v++) {
        if (p->home[v] != SDX_HOME_HEAP || p->root[v] != v || p->end[v] >= p->n_step) continue;
        sdx_step *s = &p->step[p->end[v]];
        p->next_release[v] = s->release;
        s->release = v;
    }
}

/* ---- the buffer ------------------------------------------------------------------------------------------ */

/* Outputs that the caller would otherwise see in its own input, or in a constant, are copied at the end. */
static bool needs_copy(const sdx_plan *p, sdx_id v)
{
    sdx_home home = p->home[p->root[v]];
    return home == SDX_HOME_INPUT || home == SDX_HOME_CONSTANT;
}

/* What a copy in the buffer would be: strings have characters elsewhere. */
static bool fits_buffer(const sdx_type *t)
{
    return is_exact(t) && t->dtype != SDX_STRING;
}

static bool in_buffer(const sdx_plan *p, sdx_id v)
{
    return p->home[v] == SDX_HOME_BUFFER && p->root[v] == v;
}

static sdx_status value_bytes(planner *b, sdx_id v, size_t *bytes)
{
    const sdx_type *t = &b->plan->type[v];
    char text[SDX_TENSOR_TEXT];
    if (sdx_tensor_size(t->dtype, &t->shape, bytes)) return SDX_OK;
    return sdx_fail(b->err, SDX_ERR_UNSUPPORTED, "%s: value \"%s\" would be %s, which is too large",
                    b->program->model->path, b->graph->value[v].name,
                    sdx_tensor_format(t->dtype, &t->shape, text, sizeof text));
}

/* Walked twice: first lifetimes go into interval[], then, placed, offsets come back in the same order. */
typedef struct walk {
    sdx_interval *interval;
    size_t count;
    bool placed;
} walk;

static void visit(walk *w, int32_t begin, int32_t end, size_t bytes, size_t *offset)
{
    if (w->placed)
        *offset = w->interval[w->count].offset;
    else
        w->interval[w->count] = (sdx_interval){begin, end, bytes, 0};
    w->count++;
}

static sdx_status walk_buffer(planner *b, walk *w)
{
    sdx_plan *p = b->plan;
    size_t bytes = 0;
    w->count = 0;
    for (sdx_id v = 0; v < b->graph->n_value; v++) {
        if (!in_buffer(p, v)) continue;
        TRY(value_bytes(b, v, &bytes));
        visit(w, p->begin[v], p->end[v], bytes, &p->offset[v]);
    }
    for (int i = 0; i < p->n_step; i++)
        if (p->step[i].workspace) visit(w, i, i, p->step[i].workspace, &p->step[i].workspace_offset);
    for (int i = 0; i < b->graph->n_output; i++) {
        p->output_copy[i] = SDX_NO_COPY;
        if (!needs_copy(p, b->graph->output[i])) continue;
        p->output_copy[i] = SDX_HEAP_COPY;
        if (!fits_buffer(&p->type[b->graph->output[i]])) continue;
        TRY(value_bytes(b, b->graph->output[i], &bytes));
        visit(w, p->n_step, p->n_step, bytes, &p->output_copy[i]);
    }
    return SDX_OK;
}

static sdx_status place_buffer(planner *b)
{
    size_t most = (size_t)b->graph->n_value + (size_t)b->plan->n_step + (size_t)b->graph->n_output;
    walk w = {.interval = sdx_calloc(most, sizeof *w.interval)};
    if (!w.interval) return sdx_fail_memory(b->err, most * sizeof *w.interval);
    sdx_status status;
    TRY_GOTO(walk_buffer(b, &w));
    TRY_GOTO(sdx_memory_plan(w.interval, w.count, &b->plan->bytes, b->err));
    w.placed = true;
    TRY_GOTO(walk_buffer(b, &w));
done:
    free(w.interval);
    return status;
}

/* ---- plans ----------------------------------------------------------------------------------------------- */

static sdx_status allocate_arrays(planner *b)
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

static sdx_status check_outputs(planner *b)
{
    for (int i = 0; i < b->graph->n_output; i++) {
        sdx_id v = b->graph->output[i];
        if (b->plan->home[b->plan->root[v]] == SDX_HOME_NONE)
            return sdx_fail(b->err, SDX_ERR_FILE, "%s: output \"%s\" is not computed by any node",
                            b->program->model->path, b->graph->value[v].name);
    }
    return SDX_OK;
}

static sdx_status build(planner *b, const sdx_tensor *feed)
{
    TRY(allocate_arrays(b));
    TRY(infer_types(b, feed));
    TRY(materialise_outputs(b));
    TRY(add_steps(b, mark_all(b)));
    settle_sources(b);
    settle_lifetimes(b);
    TRY(check_outputs(b));
    settle_kept(b);
    share_in_place(b);
    settle_releases(b);
    return place_buffer(b);
}

sdx_status sdx_plan_create(const sdx_body *body, const sdx_tensor *feed, const sdx_keeper *keeper, sdx_plan **out,
                           sdx_error *err)
{
    sdx_plan *p = sdx_calloc(1, sizeof *p);
    if (!p) return sdx_fail_memory(err, sizeof *p);
    sdx_arena_init(&p->arena);
    sdx_arena_init(&p->strings);
    p->body = body;
    planner b = {
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
