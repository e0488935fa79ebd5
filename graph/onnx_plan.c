/* onnx_plan.c: only what a live node reads or the graph gives out is written, and only the domains that live nodes are
 * of; a subgraph's readers count outside, where what it captures was made. Large weights get pages of their own in a
 * file beside the model when they are wanted there or do not fit into one message. */
#include <string.h>

#include "../base/memory.h"
#include "onnx_plan.h"

enum {
    EXTERNAL_BYTES = 1024,    /* smaller initializers stay in the model */
    IR_FREE_INITIALIZERS = 4, /* before it, initializers had to be graph inputs */
    IR_FUNCTIONS = 8
};
enum { USED = 1, PRODUCED = 2 }; /* read by a live node or an output; written by a live node */

static sdx_status mark_domain(sdx_onnx_plan *p, const char *domain, sdx_error *err)
{
    for (int i = 0; i < p->n_domain; i++)
        if (!strcmp(p->domain[i], domain)) return SDX_OK;
    const char **grown;
    ARENA_NEW(&p->arena, grown, (size_t)p->n_domain + 1, err);
    if (p->n_domain) memcpy(grown, p->domain, (size_t)p->n_domain * sizeof *grown);
    grown[p->n_domain++] = domain;
    p->domain = grown;
    return SDX_OK;
}

static sdx_status mark_graph(sdx_onnx_plan *p, const sdx_graph *g, sdx_onnx_marks **out, sdx_error *err);

/* What a subgraph takes from outside is used outside. */
static sdx_status mark_subgraph(sdx_onnx_plan *p, const sdx_graph *sub, unsigned char *outer_flags, sdx_error *err)
{
    sdx_onnx_marks *marks;
    TRY(mark_graph(p, sub, &marks, err));
    for (sdx_id v = 0; v < sub->n_value; v++)
        if (sub->value[v].outer != SDX_NONE && (marks->flags[v] & USED))
            outer_flags[sub->value[v].outer] |= USED;
    return SDX_OK;
}

static sdx_status mark_node(sdx_onnx_plan *p, const sdx_node *n, unsigned char *flags, sdx_error *err)
{
    TRY(mark_domain(p, n->domain, err));
    for (int i = 0; i < n->n_in; i++)
        if (n->in[i] != SDX_NONE) flags[n->in[i]] |= USED;
    for (int i = 0; i < n->n_out; i++)
        if (n->out[i] != SDX_NONE) flags[n->out[i]] |= PRODUCED;
    for (int i = 0; i < n->n_attr; i++) {
        const sdx_attr *a = &n->attr[i];
        if (a->reference) continue;
        if (a->type == SDX_ATTR_GRAPH) TRY(mark_subgraph(p, a->graph, flags, err));
        for (size_t k = 0; a->type == SDX_ATTR_GRAPHS && k < a->count; k++)
            TRY(mark_subgraph(p, a->graphs[k], flags, err));
    }
    return SDX_OK;
}

const sdx_tensor *sdx_onnx_initializer(const sdx_value *value)
{
    return value->preset ? value->preset : value->type.constant;
}

bool sdx_onnx_is_initializer(const sdx_onnx_marks *m, sdx_id v)
{
    const sdx_value *value = &m->graph->value[v];
    if (value->preset) return true;
    bool held = value->type.constant && value->outer == SDX_NONE && !(m->flags[v] & PRODUCED);
    return held && (value->is_input || (m->flags[v] & USED));
}

static sdx_status mark_graph(sdx_onnx_plan *p, const sdx_graph *g, sdx_onnx_marks **out, sdx_error *err)
{
    sdx_onnx_marks *m;
    ARENA_NEW(&p->arena, m, 1, err);
    ARENA_NEW(&p->arena, m->flags, (size_t)g->n_value, err);
    m->graph = g;
    m->next = p->marks;
    p->marks = m;
    for (sdx_id i = 0; i < g->n_node; i++)
        if (!g->node[i].dead) TRY(mark_node(p, &g->node[i], m->flags, err));
    for (int i = 0; i < g->n_output; i++) m->flags[g->output[i]] |= USED;
    for (sdx_id v = 0; v < g->n_value; v++)
        if (sdx_onnx_is_initializer(m, v) && !g->value[v].is_input && p->ir_version < IR_FREE_INITIALIZERS)
            p->ir_version = IR_FREE_INITIALIZERS;
    if (out) *out = m;
    return SDX_OK;
}

sdx_status sdx_onnx_plan_make(sdx_onnx_plan *p, sdx_error *err)
{
    const sdx_model *m = p->model;
    p->ir_version = m->ir_version;
    for (int i = 0; i < m->graph->n_input; i++) {
        const sdx_value *v = &m->graph->value[m->graph->input[i]];
        if (v->type.dtype == SDX_UNDEFINED && !(v->declared && v->declared->dtype != SDX_UNDEFINED))
            return sdx_fail(err, SDX_ERR_UNSUPPORTED, "%s: input \"%s\" is of a type that cannot be written",
                            m->path, v->name);
    }
    TRY(mark_graph(p, m->graph, NULL, err));
    for (int i = 0; i < m->n_function; i++) {
        const sdx_function *f = &m->function[i];
        sdx_onnx_marks *marks;
        TRY(mark_graph(p, f->body, &marks, err));
        for (sdx_id v = 0; v < f->body->n_value; v++)
            if (sdx_onnx_is_initializer(marks, v))
                return sdx_fail(err, SDX_ERR_INTERNAL,
                                "function \"%s\" holds constants, which ONNX has no place for", f->name);
    }
    if (m->n_function && p->ir_version < IR_FUNCTIONS) p->ir_version = IR_FUNCTIONS;
    return SDX_OK;
}

const sdx_onnx_marks *sdx_onnx_plan_marks(const sdx_onnx_plan *p, const sdx_graph *g)
{
    const sdx_onnx_marks *m = p->marks;
    while (m->graph != g) m = m->next;
    return m;
}

sdx_status sdx_onnx_plan_external(sdx_onnx_plan *p, const char *path, sdx_error *err)
{
    const sdx_graph *g = p->model->graph;
    const sdx_onnx_marks *marks = sdx_onnx_plan_marks(p, g);
    p->location = sdx_arena_printf(&p->arena, "%s.data", sdx_path_basename(path));
    if (!p->location) return sdx_fail_memory(err, strlen(path));
    ARENA_NEW(&p->arena, p->offset, (size_t)g->n_value, err);
    for (sdx_id v = 0; v < g->n_value; v++) {
        const sdx_tensor *t = sdx_onnx_initializer(&g->value[v]);
        p->offset[v] = SDX_ONNX_EMBEDDED;
        if (!sdx_onnx_is_initializer(marks, v) || t->dtype == SDX_STRING || sdx_tensor_file_bytes(t) < EXTERNAL_BYTES)
            continue;
        p->offset[v] = (p->data_bytes + SDX_ONNX_ALIGN - 1) / SDX_ONNX_ALIGN * SDX_ONNX_ALIGN;
        p->data_bytes = p->offset[v] + sdx_tensor_file_bytes(t);
    }
    return SDX_OK;
}
