/* node.c: what a node carries: its attributes, set and read by name and type, and the graphs among them. */
#include <stdio.h>
#include <string.h>

#include "graph.h"

/* ---- setting --------------------------------------------------------------------------------------------- */

/* The attribute of that name, made when new, with its old content cleared. */
static sdx_status set_attr(sdx_graph *g, sdx_id node, const char *name, sdx_attr_type type, sdx_attr **out,
                           sdx_error *err)
{
    sdx_node *n = &g->node[node];
    sdx_attr *a = (sdx_attr *)sdx_node_attr(n, name);
    if (!a) {
        sdx_attr *grown;
        ARENA_NEW(&g->model->arena, grown, (size_t)n->n_attr + 1, err);
        if (n->n_attr) memcpy(grown, n->attr, (size_t)n->n_attr * sizeof *grown);
        a = &grown[n->n_attr];
        if (!(a->name = sdx_arena_strdup(&g->model->arena, name))) return sdx_fail_memory(err, strlen(name));
        n->attr = grown;
        n->n_attr++;
    }
    *a = (sdx_attr){.name = a->name, .type = type};
    *out = a;
    return SDX_OK;
}

sdx_status sdx_node_set_int(sdx_graph *g, sdx_id node, const char *name, int64_t i, sdx_error *err)
{
    sdx_attr *a;
    TRY(set_attr(g, node, name, SDX_ATTR_INT, &a, err));
    a->i = i;
    return SDX_OK;
}

sdx_status sdx_node_set_float(sdx_graph *g, sdx_id node, const char *name, float f, sdx_error *err)
{
    sdx_attr *a;
    TRY(set_attr(g, node, name, SDX_ATTR_FLOAT, &a, err));
    a->f = f;
    return SDX_OK;
}

sdx_status sdx_node_set_string(sdx_graph *g, sdx_id node, const char *name, const char *s, sdx_error *err)
{
    char *copy = sdx_arena_strdup(&g->model->arena, s);
    if (!copy) return sdx_fail_memory(err, strlen(s));
    sdx_attr *a;
    TRY(set_attr(g, node, name, SDX_ATTR_STRING, &a, err));
    a->s = copy;
    a->s_length = strlen(copy);
    return SDX_OK;
}

sdx_status sdx_node_set_ints(sdx_graph *g, sdx_id node, const char *name, size_t count, const int64_t *ints,
                             sdx_error *err)
{
    int64_t *copy;
    ARENA_NEW(&g->model->arena, copy, count, err);
    if (count) memcpy(copy, ints, count * sizeof *ints);
    sdx_attr *a;
    TRY(set_attr(g, node, name, SDX_ATTR_INTS, &a, err));
    a->ints = copy;
    a->count = count;
    return SDX_OK;
}

sdx_status sdx_node_set_graph(sdx_graph *g, sdx_id node, const char *name, sdx_graph *body, sdx_error *err)
{
    sdx_attr *a;
    TRY(set_attr(g, node, name, SDX_ATTR_GRAPH, &a, err));
    a->graph = body;
    return SDX_OK;
}

sdx_status sdx_node_set_tensor(sdx_graph *g, sdx_id node, const char *name, const sdx_tensor *tensor, sdx_error *err)
{
    sdx_tensor *copy;
    ARENA_NEW(&g->model->arena, copy, 1, err);
    *copy = *tensor;
    sdx_attr *a;
    TRY(set_attr(g, node, name, SDX_ATTR_TENSOR, &a, err));
    a->tensor = copy;
    return SDX_OK;
}

/* ---- reading --------------------------------------------------------------------------------------------- */

const sdx_attr *sdx_node_attr(const sdx_node *n, const char *name)
{
    for (int i = 0; i < n->n_attr; i++)
        if (!strcmp(n->attr[i].name, name)) return &n->attr[i];
    return NULL;
}

static const sdx_attr *typed_attr(const sdx_node *n, const char *name, sdx_attr_type type)
{
    const sdx_attr *a = sdx_node_attr(n, name);
    return a && a->type == type ? a : NULL;
}

int64_t sdx_node_int(const sdx_node *n, const char *name, int64_t missing)
{
    const sdx_attr *a = typed_attr(n, name, SDX_ATTR_INT);
    return a ? a->i : missing;
}

float sdx_node_float(const sdx_node *n, const char *name, float missing)
{
    const sdx_attr *a = typed_attr(n, name, SDX_ATTR_FLOAT);
    return a ? a->f : missing;
}

const char *sdx_node_string(const sdx_node *n, const char *name, const char *missing)
{
    const sdx_attr *a = typed_attr(n, name, SDX_ATTR_STRING);
    return a ? a->s : missing;
}

const int64_t *sdx_node_ints(const sdx_node *n, const char *name, size_t *count)
{
    const sdx_attr *a = typed_attr(n, name, SDX_ATTR_INTS);
    *count = a ? a->count : 0;
    return a ? a->ints : NULL;
}

bool sdx_node_is_in(const sdx_node *n, const char *domain, const char *op_type)
{
    return n && !n->dead && !strcmp(n->op_type, op_type) && !strcmp(n->domain, domain);
}

bool sdx_node_is(const sdx_node *n, const char *op_type) { return sdx_node_is_in(n, "", op_type); }

char *sdx_node_format(const sdx_node *n, char *buf, size_t size)
{
    const char *dot = *n->domain ? "::" : "";
    if (*n->name) snprintf(buf, size, "node \"%.120s\" (%s%s%s)", n->name, n->domain, dot, n->op_type);
    else snprintf(buf, size, "an unnamed %s%s%s node", n->domain, dot, n->op_type);
    return buf;
}

/* ---- graphs inside --------------------------------------------------------------------------------------- */

sdx_graph *sdx_node_graph(const sdx_node *n, int k)
{
    for (int i = 0; i < n->n_attr; i++) {
        const sdx_attr *a = &n->attr[i];
        int count = a->reference ? 0 : a->type == SDX_ATTR_GRAPH ? 1 : a->type == SDX_ATTR_GRAPHS ? (int)a->count : 0;
        if (k < count) return a->type == SDX_ATTR_GRAPH ? a->graph : a->graphs[k];
        k -= count;
    }
    return NULL;
}

sdx_graph *sdx_node_body(const sdx_node *n, const char *name)
{
    const sdx_attr *a = typed_attr(n, name, SDX_ATTR_GRAPH);
    return a ? a->graph : NULL;
}

void sdx_node_each_read(const sdx_node *n, sdx_read_fn fn, void *context)
{
    for (int i = 0; i < n->n_in; i++)
        if (n->in[i] != SDX_NONE) fn(context, n->in[i]);
    const sdx_graph *sub;
    for (int k = 0; (sub = sdx_node_graph(n, k)); k++)
        for (sdx_id v = 0; v < sub->n_value; v++)
            if (sub->value[v].outer != SDX_NONE) fn(context, sub->value[v].outer);
}
