/* frame.c: where bodies run. A frame keeps the plans of the input shapes seen last and one buffer that fits them
 * all; a context has the frames of every body of a program. The main graph and the graphs that nodes carry run in
 * the same way: only who feeds them differs. */
#include <stdlib.h>
#include <string.h>

#include "../base/memory.h"
#include "engine.h"

/* Runs that need less than a quarter of the buffer before it is given back. */
enum { PATIENCE = 16 };

/* ---- plans and buffer ------------------------------------------------------------------------------------ */

static bool same_header(const sdx_tensor *a, const sdx_tensor *b)
{
    if (a->dtype != b->dtype) return false;
    if (a->dtype == SDX_UNDEFINED || !sdx_dtype_is_tensor(a->dtype)) return true;
    return a->rank == b->rank && !memcmp(a->dim, b->dim, (size_t)a->rank * sizeof *a->dim);
}

static bool has_key(const sdx_plan *p, const sdx_tensor *feed)
{
    for (int i = 0; i < p->body->n_feed; i++)
        if (!same_header(&p->key[i], &feed[i])) return false;
    return true;
}

static void move_to_front(sdx_frame *f, int at)
{
    sdx_plan *p = f->plan[at];
    memmove(&f->plan[1], &f->plan[0], (size_t)at * sizeof *f->plan);
    f->plan[0] = p;
}

/* The plan for these inputs becomes plan[0]; the least recently used one makes room. */
static sdx_status find_plan(sdx_context *context, sdx_frame *f, const sdx_body *body, const sdx_tensor *feed,
                            sdx_error *err)
{
    for (int i = 0; i < f->n_plan; i++) {
        if (!has_key(f->plan[i], feed)) continue;
        move_to_front(f, i);
        return SDX_OK;
    }
    sdx_plan *p;
    const sdx_keeper *keeper = body == sdx_program_main(context->program) ? &context->keeper : NULL;
    TRY(sdx_plan_create(body, feed, keeper, &p, err));
    if (f->n_plan == SDX_PLANS) sdx_plan_free(f->plan[--f->n_plan]);
    f->plan[f->n_plan++] = p;
    move_to_front(f, f->n_plan - 1);
    return SDX_OK;
}

/* Too much memory is mostly one value's fault: names it. */
static sdx_status fail_buffer(const sdx_plan *p, sdx_error *err)
{
    const sdx_graph *g = p->body->graph;
    sdx_id largest = SDX_NONE;
    size_t most = 0, bytes;
    char text[SDX_TENSOR_TEXT];
    for (sdx_id v = 0; v < g->n_value; v++) {
        if (p->root[v] != v || p->home[v] != SDX_HOME_BUFFER) continue;
        if (!sdx_tensor_size(p->type[v].dtype, &p->type[v].shape, &bytes) || bytes <= most) continue;
        most = bytes;
        largest = v;
    }
    if (largest == SDX_NONE) return sdx_fail_memory(err, p->bytes);
    return sdx_fail(err, SDX_ERR_MEMORY,
                    "%s: a run at these sizes takes %zu bytes, more than there are; the largest value is \"%.120s\", %s",
                    p->body->program->model->path, p->bytes, g->value[largest].name,
                    sdx_tensor_format(p->type[largest].dtype, &p->type[largest].shape, text, sizeof text));
}

static sdx_status fit_buffer(sdx_frame *f, size_t bytes, sdx_error *err)
{
    f->oversized = bytes < f->capacity / 4 ? f->oversized + 1 : 0;
    if (f->buffer && bytes <= f->capacity && f->oversized < PATIENCE) return SDX_OK;
    if (f->buffer && bytes > f->capacity) bytes += bytes / 4; /* inputs that grow by a token each run */
    free(f->buffer);
    f->buffer = sdx_malloc_aligned(bytes);
    f->capacity = f->buffer ? bytes : 0;
    f->oversized = 0;
    return f->buffer ? SDX_OK : fail_buffer(f->plan[0], err);
}

/* ---- frames ---------------------------------------------------------------------------------------------- */

void sdx_frame_release(sdx_frame *f)
{
    if (f->n_plan) sdx_plan_release(f->plan[0]);
}

sdx_status sdx_frame_plan(sdx_context *context, const sdx_body *body, int slot, const sdx_tensor *feed, sdx_error *err)
{
    sdx_frame *f = &context->frame[body->graph->index][slot];
    sdx_frame_release(f); /* the outputs of the last run end here */
    TRY(find_plan(context, f, body, feed, err));
    return fit_buffer(f, f->plan[0]->bytes, err);
}

sdx_status sdx_frame_run(sdx_context *context, const sdx_body *body, int slot, const sdx_tensor *feed, sdx_error *err)
{
    sdx_frame *f = &context->frame[body->graph->index][slot];
    TRY(sdx_frame_plan(context, body, slot, feed, err));
    return sdx_plan_run(f->plan[0], context, feed, f->buffer, err);
}

sdx_tensor sdx_frame_output(const sdx_frame *f, int i)
{
    return sdx_plan_output(f->plan[0], i, f->buffer);
}

static void fini_frame(sdx_frame *f)
{
    for (int i = 0; i < f->n_plan; i++) sdx_plan_free(f->plan[i]);
    free(f->buffer);
}

/* ---- contexts -------------------------------------------------------------------------------------------- */

static sdx_status make_profile(sdx_context *c, sdx_error *err)
{
    const sdx_program *p = c->program;
    if (!p->profile) return SDX_OK;
    c->profile = sdx_calloc((size_t)p->n_body, sizeof *c->profile);
    if (!c->profile) return sdx_fail_memory(err, (size_t)p->n_body * sizeof *c->profile);
    for (int i = 0; i < p->n_body; i++) {
        size_t nodes = p->body[i].graph ? (size_t)p->body[i].graph->n_node : 0;
        c->profile[i] = sdx_calloc(nodes, sizeof **c->profile);
        if (!c->profile[i]) return sdx_fail_memory(err, nodes * sizeof **c->profile);
    }
    return SDX_OK;
}

sdx_status sdx_context_init(sdx_context *c, const sdx_program *program, sdx_error *err)
{
    *c = (sdx_context){.program = program};
    sdx_arena_init(&c->scratch);
    size_t dims = (size_t)program->model->graph->n_input * SDX_MAX_RANK;
    c->frame = sdx_calloc((size_t)program->n_body, sizeof *c->frame);
    c->bound = sdx_calloc(dims, sizeof *c->bound);
    if (c->frame && c->bound) return make_profile(c, err);
    return sdx_fail_memory(err, (size_t)program->n_body * sizeof *c->frame + dims * sizeof *c->bound);
}

void sdx_context_fini(sdx_context *c)
{
    for (int i = 0; c->frame && i < c->program->n_body; i++)
        for (int slot = 0; slot < SDX_SLOTS; slot++) fini_frame(&c->frame[i][slot]);
    for (int i = 0; c->profile && i < c->program->n_body; i++) free(c->profile[i]);
    free(c->profile);
    free(c->frame);
    free(c->bound);
    sdx_keeper_fini(&c->keeper);
    sdx_arena_fini(&c->scratch);
}

/* ---- one symbol, one size -------------------------------------------------------------------------------- */

static sdx_status bind_dim(sdx_context *c, int input, int d, const sdx_tensor *given, sdx_error *err)
{
    const sdx_model *model = c->program->model;
    const sdx_graph *g = model->graph;
    const sdx_value *value = &g->value[g->input[input]];
    sdx_dim symbol = value->type.shape.dim[d];
    int at = 0;
    while (at < c->n_bound && c->bound[at].symbol != symbol) at++;
    if (at == c->n_bound) c->bound[c->n_bound++] = (sdx_bound){symbol, given->dim[d], input};
    if (c->bound[at].size == given->dim[d]) return SDX_OK;
    c->apart = model->n_assumed && (c->bound[at].size == 1 || given->dim[d] == 1);
    return sdx_fail(err, SDX_ERR_USAGE,
                    "%s: input \"%.120s\": dimension %d (\"%.60s\") is %lld, but it is %lld in input \"%.120s\"",
                    model->path, value->name, d, model->symbol[SDX_DIM_SYMBOL_ID(symbol)].name,
                    (long long)given->dim[d], (long long)c->bound[at].size,
                    g->value[g->input[c->bound[at].input]].name);
}

static bool bound_size(const sdx_context *c, sdx_element e, int64_t *size)
{
    *size = e.number;
    if (e.symbol == SDX_ELEMENT_NUMBER) return true;
    int at = 0;
    while (at < c->n_bound && c->bound[at].symbol != SDX_DIM_SYMBOL(e.symbol)) at++;
    if (at < c->n_bound) *size = c->bound[at].size;
    return at < c->n_bound;
}

/* What was taken as the sum of two sizes is their sum, as far as they are bound. */
static sdx_status check_sums(sdx_context *c, sdx_error *err)
{
    const sdx_model *model = c->program->model;
    for (int i = 0; i < model->n_assumed; i++) {
        const sdx_assumption *a = &model->assumed[i];
        int64_t size, left, right;
        if (!bound_size(c, a->size, &size) || !bound_size(c, a->left, &left) || !bound_size(c, a->right, &right) ||
            size - left == right)
            continue;
        c->apart = size == 1 || left == 1 - right;
        return sdx_fail(err, SDX_ERR_USAGE, "%s: the size \"%.60s\" of an input is %lld, but %lld + %lld is expected",
                        model->path, model->symbol[a->size.symbol].name, (long long)size, (long long)left,
                        (long long)right);
    }
    return SDX_OK;
}

sdx_status sdx_context_bind(sdx_context *c, int input, const sdx_tensor *given, sdx_error *err)
{
    const sdx_graph *g = c->program->model->graph;
    const sdx_shape *declared = &g->value[g->input[input]].type.shape;
    if (given->dtype == SDX_UNDEFINED || !sdx_dtype_is_tensor(given->dtype)) return SDX_OK;
    for (int d = 0; d < declared->rank; d++)
        if (sdx_dim_is_symbol(declared->dim[d])) TRY(bind_dim(c, input, d, given, err));
    return check_sums(c, err);
}
