/* graph.c: building, indexing, sorting and cleaning the IR; see graph.h. Arrays double inside the arena (the old
 * copy is left behind: at most as much again as the last one); only the name maps and use lists are malloc'ed. */
#include "graph.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/memory.h"

/* ---- models ---------------------------------------------------------------------------------------------- */

sdx_status sdx_graph_create(sdx_model *model, sdx_graph *parent, sdx_graph **out, sdx_error *err)
{
    sdx_graph *g;
    ARENA_NEW(&model->arena, g, 1, err);
    g->name = "";
    g->model = model;
    g->parent = parent;
    g->next = model->graphs;
    g->index = model->graphs ? model->graphs->index + 1 : 0;
    model->graphs = g;
    *out = g;
    return SDX_OK;
}

sdx_status sdx_model_create(sdx_model **out, sdx_error *err)
{
    sdx_model *m = sdx_calloc(1, sizeof *m);
    if (!m) return sdx_fail_memory(err, sizeof *m);
    sdx_arena_init(&m->arena);
    m->path = m->producer_name = m->producer_version = m->domain = m->doc = "";
    m->ir_version = 8;
    sdx_status status = sdx_graph_create(m, NULL, &m->graph, err);
    if (status != SDX_OK) sdx_model_close(m);
    else *out = m;
    return status;
}

void sdx_model_close(sdx_model *m)
{
    if (!m) return;
    for (sdx_graph *g = m->graphs; g; g = g->next) {
        sdx_map_fini(&g->names);
        free(g->use_begin);
        free(g->use_node);
    }
    sdx_file_map_close(&m->file);
    for (int i = 0; i < m->n_external; i++) sdx_file_map_close(&m->external[i]);
    sdx_arena_fini(&m->arena);
    free(m);
}

bool sdx_model_is_mapped(const sdx_model *m, const void *data)
{
    bool mapped = sdx_file_map_holds(&m->file, data);
    for (int i = 0; i < m->n_external && !mapped; i++) mapped = sdx_file_map_holds(&m->external[i], data);
    return mapped;
}

void sdx_model_release_pages(const sdx_model *m)
{
    if (m->file.size) sdx_pages_release(m->file.data, m->file.size);
    for (int i = 0; i < m->n_external; i++)
        if (m->external[i].size) sdx_pages_release(m->external[i].data, m->external[i].size);
}

int64_t sdx_model_opset(const sdx_model *m, const char *domain)
{
    for (int i = 0; i < m->n_opset; i++)
        if (!strcmp(m->opset[i].domain, domain)) return m->opset[i].version;
    return 0;
}

sdx_status sdx_model_set_opset(sdx_model *m, const char *domain, int64_t version, sdx_error *err)
{
    for (int i = 0; i < m->n_opset; i++) {
        if (strcmp(m->opset[i].domain, domain)) continue;
        m->opset[i].version = version;
        return SDX_OK;
    }
    sdx_opset *grown;
    ARENA_NEW(&m->arena, grown, (size_t)m->n_opset + 1, err);
    if (m->n_opset) memcpy(grown, m->opset, (size_t)m->n_opset * sizeof *grown);
    grown[m->n_opset].version = version;
    if (!(grown[m->n_opset].domain = sdx_arena_strdup(&m->arena, domain))) return sdx_fail_memory(err, strlen(domain));
    m->opset = grown;
    m->n_opset++;
    return SDX_OK;
}

sdx_status sdx_model_set_metadata(sdx_model *m, const char *key, const char *value, sdx_error *err)
{
    int at = 0;
    while (at < m->n_metadata && strcmp(m->metadata[at].key, key)) at++;
    if (at == m->n_metadata) {
        sdx_metadata *grown;
        ARENA_NEW(&m->arena, grown, (size_t)at + 1, err);
        if (at) memcpy(grown, m->metadata, (size_t)at * sizeof *grown);
        grown[at].key = sdx_arena_strdup(&m->arena, key);
        if (!grown[at].key) return sdx_fail_memory(err, strlen(key));
        m->metadata = grown;
    }
    char *copy = sdx_arena_strdup(&m->arena, value);
    if (!copy) return sdx_fail_memory(err, strlen(value));
    m->metadata[at].value = copy;
    if (at == m->n_metadata) m->n_metadata++;
    return SDX_OK;
}

/* ---- values -------------------------------------------------------------------------------------------------- */

/* A copy of an array with room for one more element; capacity doubles. */
static void *grow(sdx_arena *arena, const void *old, sdx_id count, sdx_id *capacity, size_t size)
{
    sdx_id larger = *capacity ? *capacity * 2 : 16;
    if (larger < 0) return NULL;
    void *fresh = sdx_arena_array(arena, (size_t)larger, size);
    if (!fresh) return NULL;
    if (count) memcpy(fresh, old, (size_t)count * size);
    *capacity = larger;
    return fresh;
}

sdx_id sdx_graph_find_value(const sdx_graph *g, const char *name)
{
    return (sdx_id)sdx_map_get(&g->names, name, strlen(name), SDX_NONE);
}

/* name itself, or name_1, name_2, ... when it is taken; after a few, numbers that nobody is likely to have had. */
static char *unique_name(sdx_graph *g, const char *name)
{
    enum { FEW_TRIES = 32 };
    sdx_arena *arena = &g->model->arena;
    const char *base = name && *name ? name : "value";
    if (sdx_graph_find_value(g, base) == SDX_NONE) return sdx_arena_strdup(arena, base);
    for (int i = 1;; i++) {
        char candidate[512];
        snprintf(candidate, sizeof candidate, "%.480s_%d", base, i < FEW_TRIES ? i : g->n_value + i);
        if (sdx_graph_find_value(g, candidate) == SDX_NONE) return sdx_arena_strdup(arena, candidate);
    }
}

sdx_status sdx_graph_add_value(sdx_graph *g, const char *name, sdx_id *out, sdx_error *err)
{
    if (g->n_value == g->cap_value) {
        sdx_value *grown = grow(&g->model->arena, g->value, g->n_value, &g->cap_value, sizeof *grown);
        if (!grown) return sdx_fail_memory(err, (size_t)g->n_value * sizeof *grown);
        g->value = grown;
    }
    char *own = unique_name(g, name);
    if (!own || !sdx_map_put(&g->names, own, strlen(own), g->n_value)) return sdx_fail_memory(err, 64);
    g->value[g->n_value] = (sdx_value){
        .name = own, .type = {.shape = SDX_SHAPE_UNKNOWN}, .producer = SDX_NONE, .outer = SDX_NONE};
    *out = g->n_value++;
    return SDX_OK;
}

static sdx_status append_id(sdx_graph *g, sdx_id **list, int *count, sdx_id id, sdx_error *err)
{
    sdx_id *grown;
    ARENA_NEW(&g->model->arena, grown, (size_t)*count + 1, err);
    if (*count) memcpy(grown, *list, (size_t)*count * sizeof *grown);
    grown[(*count)++] = id;
    *list = grown;
    return SDX_OK;
}

sdx_status sdx_graph_add_input(sdx_graph *g, const char *name, sdx_dtype dtype, const sdx_shape *shape, sdx_id *out,
                               sdx_error *err)
{
    sdx_id id;
    TRY(sdx_graph_add_value(g, name, &id, err));
    g->value[id].type.dtype = dtype;
    g->value[id].type.shape = *shape;
    g->value[id].is_input = true;
    TRY(append_id(g, &g->input, &g->n_input, id, err));
    *out = id;
    return SDX_OK;
}

sdx_status sdx_graph_add_output(sdx_graph *g, sdx_id value, sdx_error *err)
{
    g->value[value].is_output = true;
    return append_id(g, &g->output, &g->n_output, value, err);
}

/* Contents of a small integer tensor, so that inference need not look at bytes. */
sdx_status sdx_type_set_contents(sdx_arena *arena, sdx_type *type, sdx_error *err)
{
    const sdx_tensor *t = type->constant;
    int64_t n = sdx_tensor_count(t);
    type->contents = NULL;
    type->n_contents = 0;
    bool integer = sdx_dtype_is_integer(t->dtype) || t->dtype == SDX_BOOL;
    if (!integer || t->rank > 1 || n < 0 || n > SDX_MAX_ELEMENTS) return SDX_OK;
    sdx_tensor aligned = *t;
    uint64_t scratch[SDX_MAX_ELEMENTS];
    aligned.data = scratch;
    if (n) memcpy(scratch, t->data, sdx_tensor_bytes(t));
    sdx_element *e;
    ARENA_NEW(arena, e, (size_t)n, err);
    for (int64_t i = 0; i < n; i++) e[i] = sdx_element_number(sdx_tensor_get_i64(&aligned, i));
    type->contents = e;
    type->n_contents = (int)n;
    return SDX_OK;
}

sdx_status sdx_graph_set_constant(sdx_graph *g, sdx_id value, const sdx_tensor *tensor, sdx_error *err)
{
    sdx_tensor *own;
    ARENA_NEW(&g->model->arena, own, 1, err);
    *own = *tensor;
    sdx_type *type = &g->value[value].type;
    type->dtype = tensor->dtype;
    type->shape = sdx_tensor_shape(tensor);
    type->constant = own;
    g->value[value].producer = SDX_NONE;
    return sdx_type_set_contents(&g->model->arena, type, err);
}

sdx_status sdx_model_fix_input(sdx_model *model, const char *input, const sdx_tensor *value, sdx_error *err)
{
    sdx_graph *g = model->graph;
    int i = 0;
    while (i < g->n_input && strcmp(g->value[g->input[i]].name, input)) i++;
    if (i == g->n_input || !sdx_dtype_size(value->dtype))
        return sdx_fail(err, SDX_ERR_USAGE, "%s: there is no input \"%.200s\" that could have this value", model->path,
                        input);
    sdx_id id = g->input[i];
    sdx_tensor copy = *value;
    size_t bytes = sdx_tensor_bytes(value);
    copy.data = sdx_arena_alloc(&model->arena, bytes);
    if (!copy.data) return sdx_fail_memory(err, bytes);
    if (bytes) memcpy(copy.data, value->data, bytes);
    TRY(sdx_graph_set_constant(g, id, &copy, err));
    g->value[id].is_input = false;
    memmove(&g->input[i], &g->input[i + 1], (size_t)(g->n_input - i - 1) * sizeof *g->input);
    g->n_input--;
    return SDX_OK;
}

sdx_status sdx_graph_add_constant(sdx_graph *g, const char *name, const sdx_tensor *tensor, sdx_id *out, sdx_error *err)
{
    sdx_id id;
    TRY(sdx_graph_add_value(g, name, &id, err));
    TRY(sdx_graph_set_constant(g, id, tensor, err));
    *out = id;
    return SDX_OK;
}

static sdx_status add_copied(sdx_graph *g, const char *name, sdx_tensor tensor, const void *data, sdx_id *out,
                             sdx_error *err)
{
    size_t bytes = sdx_tensor_bytes(&tensor);
    tensor.data = sdx_arena_alloc(&g->model->arena, bytes);
    if (!tensor.data) return sdx_fail_memory(err, bytes);
    if (bytes) memcpy(tensor.data, data, bytes);
    return sdx_graph_add_constant(g, name, &tensor, out, err);
}

sdx_status sdx_graph_add_ints(sdx_graph *g, const char *name, int count, const int64_t *ints, sdx_id *out,
                              sdx_error *err)
{
    return add_copied(g, name, (sdx_tensor){.dtype = SDX_I64, .rank = 1, .dim = {count}}, ints, out, err);
}

sdx_status sdx_graph_add_scalar_f32(sdx_graph *g, const char *name, float value, sdx_id *out, sdx_error *err)
{
    return add_copied(g, name, (sdx_tensor){.dtype = SDX_F32}, &value, out, err);
}

/* ---- nodes ----------------------------------------------------------------------------------------------------- */

static sdx_status copy_ids(sdx_graph *g, int count, const sdx_id *ids, sdx_id **out, sdx_error *err)
{
    ARENA_NEW(&g->model->arena, *out, (size_t)count, err);
    if (count) memcpy(*out, ids, (size_t)count * sizeof *ids);
    return SDX_OK;
}

sdx_status sdx_graph_add_node(sdx_graph *g, const char *domain, const char *op_type, const char *name, int n_in,
                              const sdx_id *in, int n_out, const sdx_id *out, sdx_id *node, sdx_error *err)
{
    if (g->n_node == g->cap_node) {
        sdx_node *grown = grow(&g->model->arena, g->node, g->n_node, &g->cap_node, sizeof *grown);
        if (!grown) return sdx_fail_memory(err, (size_t)g->n_node * sizeof *grown);
        g->node = grown;
    }
    sdx_arena *arena = &g->model->arena;
    sdx_node n = {.n_in = n_in, .n_out = n_out};
    n.domain = sdx_arena_strdup(arena, domain);
    n.op_type = sdx_arena_strdup(arena, op_type);
    n.name = sdx_arena_strdup(arena, name ? name : "");
    if (!n.domain || !n.op_type || !n.name) return sdx_fail_memory(err, strlen(op_type));
    TRY(copy_ids(g, n_in, in, &n.in, err));
    TRY(copy_ids(g, n_out, out, &n.out, err));
    sdx_id id = g->n_node++;
    for (int i = 0; i < n_out; i++)
        if (out[i] != SDX_NONE) g->value[out[i]].producer = id;
    g->node[id] = n;
    if (node) *node = id;
    return SDX_OK;
}

sdx_status sdx_graph_emit(sdx_graph *g, const char *domain, const char *op_type, const char *result_name, int n_in,
                          const sdx_id *in, sdx_id *result, sdx_error *err)
{
    sdx_id out;
    TRY(sdx_graph_add_value(g, result_name, &out, err));
    TRY(sdx_graph_add_node(g, domain, op_type, g->value[out].name, n_in, in, 1, &out, NULL, err));
    *result = out;
    return SDX_OK;
}

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

/* ---- reading ----------------------------------------------------------------------------------------------------- */

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

sdx_node *sdx_graph_producer(const sdx_graph *g, sdx_id value)
{
    if (value == SDX_NONE) return NULL;
    sdx_id p = g->value[value].producer;
    return p == SDX_NONE || g->node[p].dead ? NULL : &g->node[p];
}

const sdx_tensor *sdx_graph_constant(const sdx_graph *g, sdx_id value)
{
    return value == SDX_NONE ? NULL : g->value[value].type.constant;
}

bool sdx_graph_scalar(const sdx_graph *g, sdx_id value, double *out)
{
    const sdx_tensor *t = sdx_graph_constant(g, value);
    size_t each = t ? sdx_dtype_size(t->dtype) : 0;
    if (!each || each > 8 || sdx_tensor_count(t) != 1) return false;
    uint64_t bits = 0; /* the bytes may be unaligned */
    memcpy(&bits, t->data, each);
    sdx_tensor one = {.dtype = t->dtype, .data = &bits};
    *out = sdx_tensor_get_f64(&one, 0);
    return true;
}

char *sdx_node_format(const sdx_node *n, char *buf, size_t size)
{
    const char *dot = *n->domain ? "::" : "";
    if (*n->name) snprintf(buf, size, "node \"%.120s\" (%s%s%s)", n->name, n->domain, dot, n->op_type);
    else snprintf(buf, size, "an unnamed %s%s%s node", n->domain, dot, n->op_type);
    return buf;
}

/* ---- uses and order ----------------------------------------------------------------------------------------------- */

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

void sdx_graph_replace_uses(sdx_graph *g, sdx_id old, sdx_id new_value)
{
    for (sdx_id i = 0; i < g->n_node; i++) {
        sdx_node *n = &g->node[i];
        for (int k = 0; k < n->n_in; k++)
            if (n->in[k] == old) n->in[k] = new_value;
        sdx_graph *sub;
        for (int k = 0; (sub = sdx_node_graph(n, k)); k++)
            for (sdx_id v = 0; v < sub->n_value; v++)
                if (sub->value[v].outer == old) sub->value[v].outer = new_value;
    }
}

static void count_use(void *context, sdx_id v) { ((sdx_value *)context)[v].uses++; }

typedef struct use_cursor {
    sdx_id *next, *list, node;
} use_cursor;

static void list_use(void *context, sdx_id v)
{
    use_cursor *c = context;
    c->list[c->next[v]++] = c->node;
}

sdx_status sdx_graph_index(sdx_graph *g, sdx_error *err)
{
    for (sdx_id v = 0; v < g->n_value; v++) {
        g->value[v].uses = 0;
        g->value[v].producer = SDX_NONE;
    }
    for (sdx_id i = 0; i < g->n_node; i++) {
        const sdx_node *n = &g->node[i];
        if (n->dead) continue;
        sdx_node_each_read(n, count_use, g->value);
        for (int k = 0; k < n->n_out; k++)
            if (n->out[k] != SDX_NONE) g->value[n->out[k]].producer = i;
    }
    size_t n_begin = (size_t)g->n_value + 1, total = 0;
    sdx_id *begin = sdx_realloc(g->use_begin, n_begin * sizeof *begin);
    if (!begin) return sdx_fail_memory(err, n_begin * sizeof *begin);
    g->use_begin = begin;
    for (sdx_id v = 0; v < g->n_value; v++) {
        begin[v] = (sdx_id)total;
        total += (size_t)g->value[v].uses;
    }
    begin[g->n_value] = (sdx_id)total;
    sdx_id *list = sdx_realloc(g->use_node, total * sizeof *list);
    if (!list) return sdx_fail_memory(err, total * sizeof *list);
    g->use_node = list;
    /* Fill with begin[] as cursors, which shifts them by one value; then shift back. */
    use_cursor cursor = {begin, list, 0};
    for (sdx_id i = 0; i < g->n_node; i++) {
        if (g->node[i].dead) continue;
        cursor.node = i;
        sdx_node_each_read(&g->node[i], list_use, &cursor);
    }
    for (sdx_id v = g->n_value; v > 0; v--) begin[v] = begin[v - 1];
    begin[0] = 0;
    for (int i = 0; i < g->n_output; i++) g->value[g->output[i]].uses++;
    return SDX_OK;
}

/* Depth-first walk towards the producers, without recursion. A node is expanded once: what it still needs goes on the
 * stack above it, and when it is on top again all that is done. So open nodes are the ancestors of the top. */
enum { UNSEEN, OPEN, DONE };

typedef struct walk {
    const sdx_graph *graph;
    unsigned char *state; /* [n_node] */
    sdx_id *stack;        /* room for every read and one start */
    size_t depth;
    sdx_id cycle; /* a node on one, or SDX_NONE */
} walk;

static void push_producer(void *context, sdx_id v)
{
    walk *w = context;
    sdx_id p = w->graph->value[v].producer;
    if (p == SDX_NONE || w->graph->node[p].dead) return;
    if (w->state[p] == UNSEEN) w->stack[w->depth++] = p;
    else if (w->state[p] == OPEN) w->cycle = p;
}

/* Appends start and all it depends on to order[], producers first. */
static sdx_status visit(walk *w, sdx_id start, sdx_id *order, sdx_id *n_order, sdx_error *err)
{
    w->stack[0] = start;
    w->depth = 1;
    while (w->depth) {
        sdx_id top = w->stack[w->depth - 1];
        if (w->state[top] == UNSEEN) {
            w->state[top] = OPEN;
            sdx_node_each_read(&w->graph->node[top], push_producer, w);
        } else {
            if (w->state[top] == OPEN) order[(*n_order)++] = top;
            w->state[top] = DONE;
            w->depth--;
        }
        if (w->cycle == SDX_NONE) continue;
        char text[SDX_NODE_TEXT];
        return sdx_fail(err, SDX_ERR_FILE, "%s: the graph has a cycle through %s", w->graph->model->path,
                        sdx_node_format(&w->graph->node[w->cycle], text, sizeof text));
    }
    return SDX_OK;
}

/* Orders nodes producers first. all: every live node; else only what graph outputs need. Nodes that write graph
 * outputs are reached in file order, so the result is stable. */
static sdx_status order_nodes(sdx_graph *g, bool all, sdx_error *err)
{
    size_t n = (size_t)g->n_node;
    sdx_status status = SDX_OK;
    size_t reads = (size_t)g->use_begin[g->n_value];
    walk w = {.graph = g, .state = sdx_calloc(n, 1), .stack = sdx_malloc((reads + 1) * sizeof(sdx_id)), .cycle = SDX_NONE};
    sdx_id *order = sdx_malloc(n * sizeof *order), n_order = 0;
    unsigned char *needed = sdx_calloc(n, 1);
    sdx_node *sorted = sdx_malloc(n * sizeof *sorted);
    if (!w.state || !w.stack || !order || !needed || !sorted) {
        status = sdx_fail_memory(err, n * sizeof *sorted);
        goto done;
    }
    for (int i = 0; i < g->n_output && !all; i++) {
        sdx_id p = g->value[g->output[i]].producer;
        if (p != SDX_NONE && !g->node[p].dead) TRY_GOTO(visit(&w, p, order, &n_order, err));
    }
    for (sdx_id i = 0; i < n_order; i++) needed[order[i]] = 1;
    memset(w.state, UNSEEN, n);
    n_order = 0;
    for (sdx_id i = 0; i < g->n_node; i++)
        if (!g->node[i].dead && (all || needed[i])) TRY_GOTO(visit(&w, i, order, &n_order, err));
    for (sdx_id i = 0; i < n_order; i++) sorted[i] = g->node[order[i]];
    if (n_order) memcpy(g->node, sorted, (size_t)n_order * sizeof *sorted);
    g->n_node = n_order;
    status = sdx_graph_index(g, err);
done:
    free(w.state);
    free(w.stack);
    free(order);
    free(needed);
    free(sorted);
    return status;
}

sdx_status sdx_graph_sort(sdx_graph *g, sdx_error *err)
{
    TRY(sdx_graph_index(g, err));
    return order_nodes(g, true, err);
}

sdx_status sdx_graph_clean(sdx_graph *g, sdx_error *err)
{
    TRY(sdx_graph_index(g, err));
    return order_nodes(g, false, err);
}

size_t sdx_graph_initializer_count(const sdx_graph *g)
{
    size_t n = 0;
    for (sdx_id v = 0; v < g->n_value; v++) n += g->value[v].type.constant && g->value[v].uses > 0;
    return n;
}
