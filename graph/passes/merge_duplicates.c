/* merge_duplicates.c: common subexpressions and equal constants, each computed and stored once.
 *
 *     a = Shape(x)   b = Shape(x)   ->   a, with b's readers reading a
 *
 * One sweep in topological order with a hash table: by the time a node is looked up its inputs are the merged
 * ones. Constants are compared up to CONSTANT_BYTES; exporters do not write large weights twice, and hashing
 * them would read the whole file. */
#include <stdlib.h>
#include <string.h>

#include "../../base/memory.h"
#include "passes.h"

enum { CONSTANT_BYTES = 4096 };

/* ---- equality ------------------------------------------------------------------------------------------- */

static bool same_tensor(const sdx_tensor *a, const sdx_tensor *b)
{
    if (a->dtype != b->dtype || a->rank != b->rank || a->dtype == SDX_STRING) return false;
    for (int i = 0; i < a->rank; i++)
        if (a->dim[i] != b->dim[i]) return false;
    size_t bytes = sdx_tensor_bytes(a);
    return bytes == 0 || a->data == b->data || memcmp(a->data, b->data, bytes) == 0;
}

/* Attributes with subgraphs, and lists of strings or tensors, are never found equal. */
static bool same_attr(const sdx_attr *a, const sdx_attr *b)
{
    if (a->type != b->type) return false;
    switch (a->type) {
    case SDX_ATTR_FLOAT: return memcmp(&a->f, &b->f, sizeof a->f) == 0;
    case SDX_ATTR_INT: return a->i == b->i;
    case SDX_ATTR_STRING:
        return a->s_length == b->s_length && (!a->s_length || !memcmp(a->s, b->s, a->s_length));
    case SDX_ATTR_TENSOR: return same_tensor(a->tensor, b->tensor);
    case SDX_ATTR_FLOATS:
        return a->count == b->count &&
               (a->count == 0 || !memcmp(a->floats, b->floats, a->count * sizeof *a->floats));
    case SDX_ATTR_INTS:
        return a->count == b->count && (a->count == 0 || !memcmp(a->ints, b->ints, a->count * sizeof *a->ints));
    default: return false;
    }
}

bool sdx_node_is_like(const sdx_node *a, const sdx_node *b)
{
    if (a->n_in != b->n_in || a->n_out != b->n_out || a->n_attr != b->n_attr) return false;
    if (strcmp(a->op_type, b->op_type) != 0 || strcmp(a->domain, b->domain) != 0) return false;
    for (int i = 0; i < a->n_attr; i++) {
        const sdx_attr *other = sdx_node_attr(b, a->attr[i].name);
        if (!other || !same_attr(&a->attr[i], other)) return false;
    }
    return true;
}

static bool same_node(const sdx_node *a, const sdx_node *b)
{
    return sdx_node_is_like(a, b) && !memcmp(a->in, b->in, (size_t)a->n_in * sizeof *a->in);
}

/* FNV-1a */
static uint32_t hash_bytes(uint32_t h, const void *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) h = (h ^ ((const unsigned char *)bytes)[i]) * 16777619u;
    return h;
}

static uint32_t hash_node(const sdx_node *n)
{
    uint32_t h = hash_bytes(2166136261u, n->op_type, strlen(n->op_type));
    return hash_bytes(h, n->in, (size_t)n->n_in * sizeof *n->in);
}

/* ---- a table of ids ------------------------------------------------------------------------------------- */

typedef struct table {
    sdx_id *slot; /* [mask + 1], SDX_NONE: free; owned */
    uint32_t mask;
} table;

static sdx_status table_init(table *t, sdx_id count, sdx_error *err)
{
    size_t size = 16;
    while (size < (size_t)count * 2) size *= 2;
    t->slot = sdx_malloc(size * sizeof *t->slot);
    if (!t->slot) return sdx_fail_memory(err, size * sizeof *t->slot);
    for (size_t i = 0; i < size; i++) t->slot[i] = SDX_NONE;
    t->mask = (uint32_t)size - 1;
    return SDX_OK;
}

static sdx_id *find_node(const table *t, const sdx_graph *g, const sdx_node *n)
{
    uint32_t i = hash_node(n) & t->mask;
    while (t->slot[i] != SDX_NONE && !same_node(&g->node[t->slot[i]], n)) i = (i + 1) & t->mask;
    return &t->slot[i];
}

static sdx_id *find_constant(const table *t, const sdx_graph *g, const sdx_tensor *c)
{
    uint32_t i = hash_bytes(2166136261u ^ (uint32_t)c->dtype, c->data, sdx_tensor_bytes(c)) & t->mask;
    while (t->slot[i] != SDX_NONE && !same_tensor(g->value[t->slot[i]].type.constant, c)) i = (i + 1) & t->mask;
    return &t->slot[i];
}

/* ---- merging -------------------------------------------------------------------------------------------- */

static bool can_merge(const sdx_graph *g, const sdx_node *n)
{
    if (n->dead || !n->def || n->def->flags & SDX_OP_NONDETERMINISTIC || n->n_in == 0) return false;
    for (int i = 0; i < n->n_out; i++)
        if (n->out[i] != SDX_NONE && g->value[n->out[i]].is_output) return false;
    return true;
}

static bool covers(const sdx_node *first, const sdx_node *copy)
{
    for (int i = 0; i < copy->n_out; i++)
        if (copy->out[i] != SDX_NONE && first->out[i] == SDX_NONE) return false;
    return true;
}

static sdx_status merge_nodes(sdx_pass_context *context, sdx_graph *g)
{
    table t;
    TRY(table_init(&t, g->n_node, context->err));
    for (sdx_id i = 0; i < g->n_node; i++) {
        sdx_node *n = &g->node[i];
        if (!can_merge(g, n)) continue;
        sdx_id *slot = find_node(&t, g, n);
        const sdx_node *first = *slot == SDX_NONE ? NULL : &g->node[*slot];
        if (!first) {
            *slot = i;
        } else if (covers(first, n)) {
            n->dead = true;
            context->changes++;
            for (int k = 0; k < n->n_out; k++)
                if (n->out[k] != SDX_NONE) sdx_graph_replace_uses(g, n->out[k], first->out[k]);
        }
    }
    free(t.slot);
    return SDX_OK;
}

static sdx_status merge_constants(sdx_pass_context *context, sdx_graph *g)
{
    table t;
    TRY(table_init(&t, g->n_value, context->err));
    for (sdx_id v = 0; v < g->n_value; v++) {
        const sdx_value *value = &g->value[v];
        const sdx_tensor *c = value->type.constant;
        if (!c || value->producer != SDX_NONE || value->outer != SDX_NONE || value->uses == 0 ||
            value->is_input)
            continue;
        if (value->is_output || c->dtype == SDX_STRING || sdx_tensor_bytes(c) > CONSTANT_BYTES) continue;
        sdx_id *slot = find_constant(&t, g, c);
        if (*slot == SDX_NONE) {
            *slot = v;
        } else {
            sdx_graph_replace_uses(g, v, *slot);
            context->changes++;
        }
    }
    free(t.slot);
    return SDX_OK;
}

sdx_status sdx_pass_merge_duplicates(sdx_pass_context *context, sdx_graph *graph)
{
    TRY(merge_constants(context, graph));
    TRY(merge_nodes(context, graph));
    return sdx_pass_finish(context, graph);
}
