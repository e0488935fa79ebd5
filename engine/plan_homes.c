/* plan_homes.c: where each value of a plan lies and how long: in a constant, an input, the heap, with what the session
 * keeps, or in the plan's one buffer, where views and results in place share the memory of what they come from. */
#include <stdlib.h>
#include <string.h>

#include "../base/memory.h"
#include "memory_plan.h"
#include "planner.h"

/* ---- homes and lifetimes --------------------------------------------------------------------------------- */

static void settle_sources(sdx_planner *b)
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

static void settle_output(sdx_planner *b, const sdx_step *s, int at, int o, sdx_id v)
{
    sdx_plan *p = b->plan;
    if (o == 0 && s->shares) {
        p->root[v] = p->root[b->graph->node[s->node].in[0]];
    } else {
        p->home[v] = s->dynamic ? SDX_HOME_HEAP : SDX_HOME_BUFFER;
        p->begin[v] = p->end[v] = at;
    }
    if (sdx_type_is_exact(&p->type[v])) p->tensor[v] = sdx_tensor_make(p->type[v].dtype, &p->type[v].shape, NULL);
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
static void settle_lifetimes(sdx_planner *b)
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
static int count_readers(const sdx_planner *b, sdx_id root)
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

static int count_outputs(const sdx_planner *b, sdx_id root)
{
    int count = 0;
    for (int i = 0; i < b->graph->n_output; i++) count += b->plan->root[b->graph->output[i]] == root;
    return count;
}

/* What is kept as input i and output o of the step, and nobody else sees; -1: nothing. */
static int find_kept(const sdx_planner *b, const sdx_node *n, int i, int o)
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
static void settle_kept(sdx_planner *b)
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
static bool can_work_in_place(const sdx_planner *b, const sdx_step *s, int at)
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

static void share_in_place(sdx_planner *b)
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
static void settle_releases(sdx_planner *b)
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
    return sdx_type_is_exact(t) && t->dtype != SDX_STRING;
}

static bool in_buffer(const sdx_plan *p, sdx_id v)
{
    return p->home[v] == SDX_HOME_BUFFER && p->root[v] == v;
}

static sdx_status value_bytes(sdx_planner *b, sdx_id v, size_t *bytes)
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

static sdx_status walk_buffer(sdx_planner *b, walk *w)
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

static sdx_status place_buffer(sdx_planner *b)
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

/* ---- the whole ------------------------------------------------------------------------------------------- */

static sdx_status check_outputs(sdx_planner *b)
{
    for (int i = 0; i < b->graph->n_output; i++) {
        sdx_id v = b->graph->output[i];
        if (b->plan->home[b->plan->root[v]] == SDX_HOME_NONE)
            return sdx_fail(b->err, SDX_ERR_FILE, "%s: output \"%s\" is not computed by any node",
                            b->program->model->path, b->graph->value[v].name);
    }
    return SDX_OK;
}

sdx_status sdx_planner_place(sdx_planner *b)
{
    settle_sources(b);
    settle_lifetimes(b);
    TRY(check_outputs(b));
    settle_kept(b);
    share_in_place(b);
    settle_releases(b);
    return place_buffer(b);
}
