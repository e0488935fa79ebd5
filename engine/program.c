/* program.c: compiles a model for this machine. Passes rewrite the graph, inference types it, then every node
 * is prepared: attributes read, constant weights packed. Weights are packed one node at a time and the file's
 * pages are let go right after, so that a model never lies in memory twice. */
#include <stdlib.h>
#include <string.h>

#include "../base/memory.h"
#include "engine.h"
#include "ops/ops.h"
#include "ops/weight.h"

enum { LARGE = 64 * 1024 };

/* ---- the file's pages ------------------------------------------------------------------------------------ */

/* No other constant shares bytes with this one, as a folded Reshape does. */
static bool is_alone(const sdx_graph *g, sdx_id v)
{
    const sdx_tensor *t = g->value[v].type.constant;
    const unsigned char *begin = t->data, *end = begin + sdx_tensor_bytes(t);
    for (sdx_id i = 0; i < g->n_value; i++) {
        const sdx_tensor *o = g->value[i].type.constant;
        if (!o || i == v) continue;
        const unsigned char *other = o->data;
        if (other < end && begin < other + sdx_tensor_bytes(o)) return false;
    }
    return true;
}

/* A weight was packed. Mapped pages come back from the file if somebody reads them after all; what passes
 * computed (joined weights of an attention) goes when its last reader has packed it. */
static void drop_packed(const sdx_program *p, const sdx_graph *g, sdx_id v, int *readers)
{
    const sdx_tensor *t = g->value[v].type.constant;
    bool captured = g->value[v].outer != SDX_NONE; /* others may read it */
    readers[v]--;
    if (sdx_model_is_mapped(p->model, t->data))
        sdx_pages_release(t->data, sdx_tensor_bytes(t));
    else if (!readers[v] && !captured && sdx_tensor_bytes(t) >= LARGE && is_alone(g, v))
        sdx_pages_release(t->data, sdx_tensor_bytes(t));
}

/* A copy of a constant that lies askew in the file becomes the constant. */
static sdx_status align_constant(sdx_program *p, const sdx_tensor **constant, sdx_error *err)
{
    const sdx_tensor *old = *constant;
    size_t bytes = sdx_tensor_bytes(old);
    sdx_tensor *copy;
    ARENA_NEW(&p->arena, copy, 1, err);
    *copy = *old;
    copy->data = sdx_arena_alloc(&p->arena, bytes);
    if (!copy->data) return sdx_fail_memory(err, bytes);
    memcpy(copy->data, old->data, bytes);
    if (sdx_model_is_mapped(p->model, old->data)) sdx_pages_release(old->data, bytes);
    *constant = copy;
    return SDX_OK;
}

/* ---- weights read twice ---------------------------------------------------------------------------------- */

/* Both branches of a merged decoder read the same weights, and so do the layers of an ALBERT: a node that is like one
 * prepared before, with the same constants, gets its state. What prepare reads of other inputs is their type. */
typedef struct sdx_prepared {
    const sdx_node *node;
    void *state;
    unsigned packed;
    struct sdx_prepared *next;
    sdx_type in[]; /* [node->n_in], as they were before anything was copied */
} sdx_prepared;

static bool same_operand(const sdx_type *a, const sdx_type *b)
{
    const sdx_tensor *x = a->constant, *y = b->constant;
    if (a->dtype != b->dtype || !x != !y) return false;
    return !x ||
           (x->data == y->data && x->rank == y->rank && !memcmp(x->dim, y->dim, (size_t)x->rank * sizeof *x->dim));
}

static const sdx_prepared *find_prepared(const sdx_program *p, const sdx_node *n, const sdx_type *in)
{
    for (const sdx_prepared *old = p->prepared; old; old = old->next) {
        bool same = old->node->def == n->def && sdx_node_is_like(old->node, n);
        for (int i = 0; i < n->n_in && same; i++)
            same = (n->in[i] == SDX_NONE) == (old->node->in[i] == SDX_NONE) && same_operand(&in[i], &old->in[i]);
        if (same) return old;
    }
    return NULL;
}

static sdx_status remember(sdx_program *p, const sdx_node *n, const sdx_type *in, const sdx_prepare *prepare,
                           sdx_error *err)
{
    bool large = false;
    for (int i = 0; i < n->n_in && i < 32; i++)
        large |= prepare->packed >> i & 1 && in[i].constant && sdx_tensor_bytes(in[i].constant) >= LARGE;
    if (!large) return SDX_OK;
    size_t types = (size_t)n->n_in * sizeof *in;
    sdx_prepared *one = sdx_arena_alloc(&p->arena, sizeof *one + types);
    if (!one) return sdx_fail_memory(err, sizeof *one + types);
    *one = (sdx_prepared){.node = n, .state = prepare->state, .packed = prepare->packed, .next = p->prepared};
    memcpy(one->in, in, types);
    p->prepared = one;
    return SDX_OK;
}

/* ---- nodes ----------------------------------------------------------------------------------------------- */

/* A view hands its bytes on to operators that may want them aligned. */
static bool takes_any_alignment(const sdx_op_def *def)
{
    return def->flags & SDX_OP_ANY_ALIGNMENT && !(def->flags & SDX_OP_VIEW);
}

static void gather_types(const sdx_graph *g, const sdx_node *n, sdx_type *in)
{
    for (int i = 0; i < n->n_in; i++) in[i] = n->in[i] == SDX_NONE ? sdx_unknown_type : g->value[n->in[i]].type;
}

static sdx_status align_types(sdx_program *p, const sdx_graph *g, const sdx_node *n, sdx_type *in, sdx_error *err)
{
    for (int i = 0; i < n->n_in; i++) {
        if (n->in[i] == SDX_NONE) continue;
        sdx_value *value = &g->value[n->in[i]];
        const sdx_tensor *constant = value->type.constant;
        if (constant && !sdx_is_aligned(constant) && !takes_any_alignment(n->def))
            TRY(align_constant(p, &value->type.constant, err));
        in[i] = value->type;
    }
    return SDX_OK;
}

static sdx_status prepare_alone(sdx_program *p, const sdx_node *n, const sdx_type *in, sdx_prepare *out, sdx_error *err)
{
    sdx_prepare prepare = {.model = p->model,
                           .node = n,
                           .n_in = n->n_in,
                           .in = in,
                           .kernels = p->kernels,
                           .threads = p->threads,
                           .brief = p->brief,
                           .arena = &p->arena,
                           .late = p->late,
                           .err = err};
    sdx_status status = sdx_op_prepare(&prepare);
    if (status != SDX_OK) sdx_node_error(p->model, n, in, n->n_in, err);
    *out = prepare;
    return status;
}

/* readers: [n_value], uses of each value that still read its bytes. */
static sdx_status prepare_node(sdx_program *p, sdx_body *body, sdx_id id, int *readers, sdx_arena *scratch,
                               sdx_error *err)
{
    const sdx_graph *g = body->graph;
    const sdx_node *n = &g->node[id];
    sdx_type *in, *aligned;
    ARENA_NEW(scratch, in, (size_t)n->n_in, err);
    ARENA_NEW(scratch, aligned, (size_t)n->n_in, err);
    gather_types(g, n, in);
    const sdx_prepared *old = n->def->prepare ? find_prepared(p, n, in) : NULL;
    sdx_prepare prepare = {.state = old ? old->state : NULL, .packed = old ? old->packed : 0};
    if (!old) {
        memcpy(aligned, in, (size_t)n->n_in * sizeof *in);
        TRY(align_types(p, g, n, aligned, err));
        if (!n->def->prepare) return SDX_OK;
        TRY(prepare_alone(p, n, aligned, &prepare, err));
        TRY(remember(p, n, in, &prepare, err));
    }
    body->state[id] = prepare.state;
    for (int i = 0; i < n->n_in && i < 32; i++)
        if (prepare.packed >> i & 1 && in[i].constant) drop_packed(p, g, n->in[i], readers);
    return SDX_OK;
}

static sdx_status prepare_nodes(sdx_program *p, sdx_body *body, sdx_error *err)
{
    const sdx_graph *g = body->graph;
    int *readers;
    ARENA_NEW(&p->arena, body->state, (size_t)g->n_node, err);
    ARENA_NEW(&p->arena, readers, (size_t)g->n_value, err);
    for (sdx_id v = 0; v < g->n_value; v++) readers[v] = g->value[v].uses;
    sdx_arena scratch;
    sdx_arena_init(&scratch);
    sdx_arena_mark start = sdx_arena_get_mark(&scratch);
    sdx_status status = SDX_OK;
    for (sdx_id i = 0; i < g->n_node && status == SDX_OK; i++) {
        if (!g->node[i].dead) status = prepare_node(p, body, i, readers, &scratch, err);
        sdx_arena_reset(&scratch, start);
    }
    sdx_arena_fini(&scratch);
    return status;
}

/* ---- weights that wait ----------------------------------------------------------------------------------- */

void sdx_program_begin_run(const sdx_program *program)
{
    sdx_late_weights *late = program->late;
    if (!late->first || program->brief || atomic_load(&late->packed) || !atomic_exchange(&late->ran, true)) return;
    pthread_mutex_t *lock = &((sdx_program *)program)->lock;
    pthread_mutex_lock(lock);
    if (!atomic_load(&late->packed)) sdx_late_weights_pack(late, program->threads);
    pthread_mutex_unlock(lock);
}

/* ---- bodies ---------------------------------------------------------------------------------------------- */

static bool is_captured(const sdx_value *v)
{
    return v->outer != SDX_NONE && v->uses && !v->type.constant;
}

/* The input of the model that a captured value is, however many graphs it passes through; or -1. */
static int model_input(const sdx_graph *g, sdx_id v)
{
    const sdx_graph *top = g->model->graph;
    while (g->value[v].outer != SDX_NONE) {
        v = g->value[v].outer;
        g = g->parent;
    }
    for (int i = 0; g == top && i < top->n_input; i++)
        if (top->input[i] == v) return i;
    return -1;
}

/* Inputs that nodes read themselves, or that are outputs, are not late. */
static sdx_status find_late(sdx_program *p, sdx_body *body, sdx_error *err)
{
    const sdx_graph *g = body->graph;
    bool *read;
    ARENA_NEW(&p->arena, read, (size_t)g->n_value, err);
    ARENA_NEW(&p->arena, body->late, (size_t)g->n_input, err);
    for (sdx_id i = 0; i < g->n_node; i++)
        for (int k = 0; k < g->node[i].n_in && !g->node[i].dead; k++)
            if (g->node[i].in[k] != SDX_NONE) read[g->node[i].in[k]] = true;
    for (int i = 0; i < g->n_input; i++) {
        const sdx_value *v = &g->value[g->input[i]];
        body->late[i] = !read[g->input[i]] && v->uses && !v->is_output;
    }
    return SDX_OK;
}

static sdx_status list_feed(sdx_program *p, sdx_body *body, sdx_error *err)
{
    const sdx_graph *g = body->graph;
    ARENA_NEW(&p->arena, body->feed, (size_t)g->n_input + (size_t)g->n_value, err);
    for (int i = 0; i < g->n_input; i++) {
        sdx_value *v = &g->value[g->input[i]];
        body->feed[body->n_feed++] = g->input[i];
        if (v->preset && !sdx_is_aligned(v->preset)) TRY(align_constant(p, &v->preset, err));
    }
    for (sdx_id v = 0; v < g->n_value; v++)
        if (is_captured(&g->value[v])) body->feed[body->n_feed++] = v;
    ARENA_NEW(&p->arena, body->model_input, (size_t)body->n_feed, err);
    for (int i = 0; i < body->n_feed; i++) body->model_input[i] = i < g->n_input ? -1 : model_input(g, body->feed[i]);
    return find_late(p, body, err);
}

/* The graph, then those that its nodes carry. */
static sdx_status make_body(sdx_program *p, sdx_graph *g, sdx_error *err)
{
    sdx_body *body = &p->body[g->index];
    *body = (sdx_body){.program = p, .graph = g};
    TRY(list_feed(p, body, err));
    TRY(prepare_nodes(p, body, err));
    for (sdx_id i = 0; i < g->n_node; i++) {
        sdx_graph *sub;
        for (int k = 0; !g->node[i].dead && (sub = sdx_node_graph(&g->node[i], k)); k++)
            TRY(make_body(p, sub, err));
    }
    return SDX_OK;
}

static sdx_status index_graphs(sdx_graph *g, sdx_error *err)
{
    TRY(sdx_graph_index(g, err));
    for (sdx_id i = 0; i < g->n_node; i++) {
        sdx_graph *sub;
        for (int k = 0; (sub = sdx_node_graph(&g->node[i], k)); k++) TRY(index_graphs(sub, err));
    }
    return SDX_OK;
}

static sdx_status make_bodies(sdx_program *p, sdx_error *err)
{
    ARENA_NEW(&p->arena, p->late, 1, err);
    sdx_arena_init(&p->late->arena);
    p->n_body = p->model->graphs->index + 1;
    ARENA_NEW(&p->arena, p->body, (size_t)p->n_body, err);
    return make_body(p, p->model->graph, err);
}

/* ---- programs -------------------------------------------------------------------------------------------- */

static sdx_status check_threads(int threads, sdx_error *err)
{
    if (threads >= 0 && threads <= SDX_MAX_THREADS) return SDX_OK;
    return sdx_fail(err, SDX_ERR_USAGE, "%d threads: expected 1 to %d, or 0 for the default", threads,
                    SDX_MAX_THREADS);
}

static sdx_status compile(sdx_program *p, const sdx_run_options *options, sdx_error *err)
{
    TRY(check_threads(options->threads, err));
    p->threads = options->threads ? options->threads : sdx_default_threads();
    p->profile = options->profile;
    p->brief = options->brief;
    p->max_steps = options->max_steps ? options->max_steps : SDX_MAX_STEPS;
    TRY(sdx_kernels_choose(options->isa, &p->kernels, err));
    TRY(sdx_model_inline_functions(p->model, err));
    TRY(sdx_model_resolve(p->model, &sdx_operators, err));
    sdx_eval_context eval = {p->kernels, p->threads, SDX_FOLD_STEPS}; /* constants fold in full precision */
    TRY(sdx_kernels_set_precision(options->precision, &p->arena, &p->kernels, err));
    sdx_pass_context passes = {.model = p->model,
                               .registry = &sdx_operators,
                               .eval = sdx_eval_node,
                               .eval_context = &eval,
                               .threads = p->threads,
                               .for_run = true,
                               .strict = options->strict,
                               .skip_padding = options->skip_padding,
                               .err = err};
    /* What does not depend on inputs is computed once either way: that is not a rewrite of the graph. */
    TRY(sdx_passes_run(&passes, options->no_optimize ? "fold_constants,eliminate" : NULL));
    TRY(index_graphs(p->model->graph, err));
    TRY(sdx_model_infer(p->model, err));
    sdx_model_release_pages(p->model); /* all that passes have read */
    return make_bodies(p, err);
}

sdx_status sdx_program_create(sdx_model *model, const sdx_run_options *options, sdx_program **out,
                              sdx_error *err)
{
    static const sdx_run_options defaults = {0};
    sdx_error local;
    if (!err) err = &local;
    sdx_program *p = sdx_calloc(1, sizeof *p);
    if (!p) {
        sdx_model_close(model);
        return sdx_fail_memory(err, sizeof *p);
    }
    p->model = model;
    sdx_arena_init(&p->arena);
    pthread_mutex_init(&p->lock, NULL);
    sdx_status status = compile(p, options ? options : &defaults, err);
    if (status != SDX_OK)
        sdx_program_free(p);
    else
        *out = p;
    return status;
}

sdx_status sdx_program_open(const char *path, const sdx_run_options *options, sdx_program **out, sdx_error *err)
{
    sdx_model *model;
    sdx_program *p;
    TRY(sdx_model_open(path, &model, err));
    TRY(sdx_program_create(model, options, &p, err));
    sdx_status status = sdx_program_keep_options(p, options, err);
    if (status == SDX_OK)
        *out = p;
    else
        sdx_program_free(p);
    return status;
}

void sdx_program_free(sdx_program *p)
{
    if (!p) return;
    sdx_program_free(p->apart);
    sdx_model_close(p->model);
    if (p->late) sdx_arena_fini(&p->late->arena);
    sdx_arena_fini(&p->arena);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

const sdx_model *sdx_program_model(const sdx_program *p)
{
    return p->model;
}

const char *sdx_program_precision(const sdx_program *p)
{
    return sdx_kernels_precision(p->kernels);
}
