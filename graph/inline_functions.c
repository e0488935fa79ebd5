/* inline_functions.c: operators that the model defines itself. A call is replaced by a copy of the function's
 * body, so that nothing after this knows of functions: inputs and outputs of the body become the call's values,
 * attributes that the body takes by reference become those of the call (or the function's defaults), and nodes
 * remember the opset that their function imports.
 *
 * Functions may call each other, not themselves: that is checked on the functions, before anything is copied.
 * What doubles at every level is stopped by counting nodes. */
#include <stdlib.h>
#include <string.h>

#include "../base/memory.h"
#include "op.h"

enum { MOST_NODES = 1 << 17, DEEPEST = 64 };

typedef struct inliner {
    sdx_model *model;
    size_t nodes; /* copied so far */
    sdx_error *err;
} inliner;

/* One call: whose attributes and opsets count while the body is copied. */
typedef struct call {
    const sdx_function *function;
    const sdx_node *node;
} call;

static const sdx_function *find_function(const sdx_model *m, const sdx_node *n)
{
    for (int i = 0; i < m->n_function; i++)
        if (!strcmp(m->function[i].name, n->op_type) && !strcmp(m->function[i].domain, n->domain))
            return &m->function[i];
    return NULL;
}

/* ---- recursion ------------------------------------------------------------------------------------------- */

enum { UNSEEN, OPEN, DONE };

static sdx_status check_calls(inliner *in, const sdx_graph *g, unsigned char *state, int depth);

static sdx_status check_function(inliner *in, const sdx_function *f, unsigned char *state, int depth)
{
    unsigned char *own = &state[f - in->model->function];
    if (*own == DONE) return SDX_OK;
    if (*own == OPEN)
        return sdx_fail(in->err, SDX_ERR_FILE, "%s: function \"%s\" calls itself", in->model->path, f->name);
    if (depth == DEEPEST)
        return sdx_fail(in->err, SDX_ERR_UNSUPPORTED, "%s: functions call each other more than %d deep",
                        in->model->path, DEEPEST);
    *own = OPEN;
    TRY(check_calls(in, f->body, state, depth + 1));
    *own = DONE;
    return SDX_OK;
}

static sdx_status check_calls(inliner *in, const sdx_graph *g, unsigned char *state, int depth)
{
    for (sdx_id i = 0; i < g->n_node; i++) {
        const sdx_function *f = find_function(in->model, &g->node[i]);
        const sdx_graph *sub;
        if (f) TRY(check_function(in, f, state, depth));
        for (int k = 0; (sub = sdx_node_graph(&g->node[i], k)); k++) TRY(check_calls(in, sub, state, depth));
    }
    return SDX_OK;
}

static sdx_status check_recursion(inliner *in)
{
    unsigned char *state = sdx_calloc((size_t)in->model->n_function, 1);
    if (!state) return sdx_fail_memory(in->err, (size_t)in->model->n_function);
    sdx_status status = SDX_OK;
    for (int i = 0; i < in->model->n_function && status == SDX_OK; i++)
        status = check_function(in, &in->model->function[i], state, 0);
    free(state);
    return status;
}

/* ---- attributes ------------------------------------------------------------------------------------------ */

static sdx_status copy_graph(inliner *in, const call *c, const sdx_graph *from, sdx_graph *parent,
                             const sdx_id *outer, sdx_graph **out);

static const sdx_attr *find_attr(const sdx_attr *list, int count, const char *name)
{
    for (int i = 0; i < count; i++)
        if (!strcmp(list[i].name, name)) return &list[i];
    return NULL;
}

/* What the call gives for a reference, else the function's default; NULL: nothing. */
static const sdx_attr *refer(const call *c, const char *name)
{
    const sdx_attr *given = find_attr(c->node->attr, c->node->n_attr, name);
    return given ? given : find_attr(c->function->preset, c->function->n_preset, name);
}

static sdx_status copy_attr_graphs(inliner *in, const call *c, sdx_graph *g, const sdx_id *map, sdx_attr *a)
{
    if (a->type == SDX_ATTR_GRAPH) return copy_graph(in, c, a->graph, g, map, &a->graph);
    if (a->type != SDX_ATTR_GRAPHS) return SDX_OK;
    sdx_graph **list;
    ARENA_NEW(&in->model->arena, list, a->count, in->err);
    for (size_t i = 0; i < a->count; i++) TRY(copy_graph(in, c, a->graphs[i], g, map, &list[i]));
    a->graphs = list;
    return SDX_OK;
}

static sdx_status copy_attrs(inliner *in, const call *c, const sdx_node *from, sdx_graph *g, const sdx_id *map,
                             sdx_node *to)
{
    ARENA_NEW(&in->model->arena, to->attr, (size_t)from->n_attr, in->err);
    to->n_attr = 0;
    for (int i = 0; i < from->n_attr; i++) {
        const sdx_attr *a = &from->attr[i];
        const sdx_attr *source = a->reference ? refer(c, a->reference) : a;
        if (!source) continue;
        sdx_attr *copy = &to->attr[to->n_attr++];
        *copy = *source;
        copy->name = a->name;
        if (!a->reference) TRY(copy_attr_graphs(in, c, g, map, copy));
    }
    return SDX_OK;
}

/* ---- nodes and graphs ------------------------------------------------------------------------------------ */

static int64_t imported(const sdx_function *f, const char *domain)
{
    for (int i = 0; i < f->n_opset; i++)
        if (!strcmp(f->opset[i].domain, domain)) return f->opset[i].version;
    return 0;
}

static sdx_status map_ids(inliner *in, const sdx_id *map, int count, const sdx_id *from, sdx_id **out)
{
    ARENA_NEW(&in->model->arena, *out, (size_t)count, in->err);
    for (int i = 0; i < count; i++) (*out)[i] = from[i] == SDX_NONE ? SDX_NONE : map[from[i]];
    return SDX_OK;
}

/* map: values of the graph that `from` stands in to those of g, or SDX_NONE. */
static sdx_status copy_node(inliner *in, const call *c, const sdx_node *from, sdx_graph *g, const sdx_id *map)
{
    sdx_id *input, *output, id;
    if (++in->nodes > MOST_NODES)
        return sdx_fail(in->err, SDX_ERR_UNSUPPORTED, "%s: its functions amount to more than %d nodes",
                        in->model->path, MOST_NODES);
    TRY(map_ids(in, map, from->n_in, from->in, &input));
    TRY(map_ids(in, map, from->n_out, from->out, &output));
    sdx_node copy = *from;
    copy.version = imported(c->function, from->domain);
    TRY(copy_attrs(in, c, from, g, map, &copy));
    TRY(sdx_graph_add_node(g, from->domain, from->op_type, from->name, from->n_in, input, from->n_out, output, &id,
                           in->err));
    g->node[id].attr = copy.attr;
    g->node[id].n_attr = copy.n_attr;
    g->node[id].version = copy.version;
    return SDX_OK;
}

/* A value that stands for an input that the call leaves out is left out too. */
static sdx_status copy_values(inliner *in, const sdx_graph *from, sdx_graph *g, const sdx_id *outer, sdx_id *map)
{
    for (sdx_id v = 0; v < from->n_value; v++) {
        const sdx_value *old = &from->value[v];
        TRY(sdx_graph_add_value(g, old->name, &map[v], in->err));
        sdx_value *fresh = &g->value[map[v]];
        fresh->type = old->type;
        fresh->is_input = old->is_input;
        fresh->is_output = old->is_output;
        fresh->declared = old->declared;
        fresh->preset = old->preset;
        if (old->outer == SDX_NONE) continue;
        fresh->outer = outer[old->outer];
        if (fresh->outer == SDX_NONE) map[v] = SDX_NONE;
    }
    return SDX_OK;
}

/* A subgraph of a function's node. outer: what the values of the graph around it have become. */
static sdx_status copy_graph(inliner *in, const call *c, const sdx_graph *from, sdx_graph *parent,
                             const sdx_id *outer, sdx_graph **out)
{
    sdx_graph *g;
    sdx_id *map;
    TRY(sdx_graph_create(in->model, parent, &g, in->err));
    g->name = from->name;
    ARENA_NEW(&in->model->arena, map, (size_t)from->n_value, in->err);
    TRY(copy_values(in, from, g, outer, map));
    TRY(map_ids(in, map, from->n_input, from->input, &g->input));
    TRY(map_ids(in, map, from->n_output, from->output, &g->output));
    g->n_input = from->n_input;
    g->n_output = from->n_output;
    for (int i = 0; i < g->n_output; i++)
        if (g->output[i] == SDX_NONE)
            return sdx_fail(in->err, SDX_ERR_FILE,
                            "%s: a subgraph of function \"%s\" gives back an input that is absent", in->model->path,
                            c->function->name);
    for (sdx_id i = 0; i < from->n_node; i++) TRY(copy_node(in, c, &from->node[i], g, map));
    *out = g;
    return SDX_OK;
}

/* ---- calls ----------------------------------------------------------------------------------------------- */

static sdx_status check_counts(const inliner *in, const call *c)
{
    if (c->node->n_in <= c->function->n_input && c->node->n_out <= c->function->n_output) return SDX_OK;
    return sdx_fail(in->err, SDX_ERR_FILE,
                    "%s: function \"%s\" takes %d inputs and gives %d outputs; a node has %d and %d", in->model->path,
                    c->function->name, c->function->n_input, c->function->n_output, c->node->n_in, c->node->n_out);
}

/* Values of the body in the graph of the call: its inputs and outputs, and fresh ones. */
static sdx_status map_values(inliner *in, const call *c, sdx_graph *g, sdx_id *map)
{
    const sdx_graph *body = c->function->body;
    for (sdx_id v = 0; v < body->n_value; v++) map[v] = SDX_NONE;
    for (int i = 0; i < body->n_input; i++) map[body->input[i]] = sdx_node_in(c->node, i);
    for (int i = 0; i < body->n_output; i++) {
        sdx_id v = body->output[i];
        if (!body->value[v].is_input && map[v] == SDX_NONE) map[v] = sdx_node_out(c->node, i);
    }
    for (sdx_id v = 0; v < body->n_value; v++)
        if (map[v] == SDX_NONE && !body->value[v].is_input)
            TRY(sdx_graph_add_value(g, body->value[v].name, &map[v], in->err));
    return SDX_OK;
}

/* An output of the call that is another name for a value: an input of the function, or an output given twice. */
static sdx_status connect_outputs(inliner *in, const call *c, sdx_graph *g, const sdx_id *map)
{
    const sdx_graph *body = c->function->body;
    for (int i = 0; i < c->node->n_out; i++) {
        sdx_id out = c->node->out[i], from = map[body->output[i]];
        if (out == SDX_NONE || from == out || from == SDX_NONE) continue;
        TRY(sdx_graph_add_node(g, "", "Identity", c->node->name, 1, &from, 1, &out, NULL, in->err));
    }
    return SDX_OK;
}

static sdx_status inline_call(inliner *in, sdx_graph *g, sdx_id id, const sdx_function *f)
{
    g->node[id].dead = true;
    sdx_node node = g->node[id]; /* the array moves when it grows */
    call c = {f, &node};
    sdx_id *map;
    TRY(check_counts(in, &c));
    ARENA_NEW(&in->model->arena, map, (size_t)f->body->n_value, in->err);
    TRY(map_values(in, &c, g, map));
    for (sdx_id i = 0; i < f->body->n_node; i++) TRY(copy_node(in, &c, &f->body->node[i], g, map));
    return connect_outputs(in, &c, g, map);
}

/* What a call brings in stands behind it, and is looked at in its turn. */
static sdx_status inline_graph(inliner *in, sdx_graph *g, int depth)
{
    if (depth == DEEPEST)
        return sdx_fail(in->err, SDX_ERR_UNSUPPORTED, "%s: graphs stand in each other more than %d deep",
                        in->model->path, DEEPEST);
    bool changed = false;
    for (sdx_id i = 0; i < g->n_node; i++) {
        if (g->node[i].dead) continue;
        const sdx_function *f = find_function(in->model, &g->node[i]);
        sdx_graph *sub;
        if (f) TRY(inline_call(in, g, i, f));
        changed |= f != NULL;
        for (int k = 0; !f && (sub = sdx_node_graph(&g->node[i], k)); k++) TRY(inline_graph(in, sub, depth + 1));
    }
    return changed ? sdx_graph_sort(g, in->err) : SDX_OK;
}

/* Passes write operators of the default domain, which a model of nothing but calls need not import. */
static sdx_status import_default(inliner *in)
{
    sdx_model *m = in->model;
    int64_t version = sdx_model_opset(m, "");
    for (int i = 0; i < m->n_function && !version; i++) version = imported(&m->function[i], "");
    return version ? sdx_model_set_opset(m, "", version, in->err) : SDX_OK;
}

sdx_status sdx_model_inline_functions(sdx_model *model, sdx_error *err)
{
    inliner in = {.model = model, .err = err};
    if (!model->n_function) return SDX_OK;
    TRY(check_recursion(&in));
    TRY(import_default(&in));
    return inline_graph(&in, model->graph, 0);
}
