/* graph.c: building the IR; see graph.h. A node's attributes are in node.c, the order of nodes in order.c. Arrays
 * double inside the arena (the old copy is left behind: at most as much again as the last one); only the name maps and
 * use lists are malloc'ed. */
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

/* ---- values ---------------------------------------------------------------------------------------------- */

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

/* ---- nodes ----------------------------------------------------------------------------------------------- */

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

/* ---- looking --------------------------------------------------------------------------------------------- */

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

size_t sdx_graph_initializer_count(const sdx_graph *g)
{
    size_t n = 0;
    for (sdx_id v = 0; v < g->n_value; v++) n += g->value[v].type.constant && g->value[v].uses > 0;
    return n;
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
