/* inspect.c: what is in a model, for people and for programs: one summary is gathered, then printed as text or
 * as JSON. Nodes, operators and initializers of subgraphs count too. */
#include <stdlib.h>
#include <string.h>

#include "../base/buffer.h"
#include "../base/json.h"
#include "../base/memory.h"
#include "graph.h"

enum { N_LARGEST = 10 };

typedef struct op_count {
    const char *name; /* "MatMul", "com.microsoft::Attention" */
    size_t count;
} op_count;

typedef struct summary {
    const sdx_model *model;
    sdx_arena arena;
    size_t nodes, initializers;
    uint64_t initializer_bytes;
    op_count *op; /* most frequent first */
    int n_op;
    const sdx_value *largest[N_LARGEST];
    int n_largest;
} summary;

/* ---- gathering ------------------------------------------------------------------------------------------- */

static sdx_status count_op(summary *s, const sdx_node *n, sdx_map *known, sdx_error *err)
{
    const char *name = n->op_type;
    if (*n->domain) name = sdx_arena_printf(&s->arena, "%s::%s", n->domain, n->op_type);
    if (!name) return sdx_fail_memory(err, 64);
    int64_t at = sdx_map_get(known, name, strlen(name), s->n_op);
    if (at == s->n_op) {
        op_count *grown = s->op;
        if ((s->n_op & (s->n_op - 1)) == 0) { /* full at every power of two */
            ARENA_NEW(&s->arena, grown, (size_t)(s->n_op ? 2 * s->n_op : 1), err);
            if (s->n_op) memcpy(grown, s->op, (size_t)s->n_op * sizeof *grown);
        }
        s->op = grown;
        s->op[s->n_op++] = (op_count){name, 0};
        if (!sdx_map_put(known, name, strlen(name), at)) return sdx_fail_memory(err, 64);
    }
    s->op[at].count++;
    s->nodes++;
    return SDX_OK;
}

static void note_initializer(summary *s, const sdx_value *v)
{
    size_t bytes = sdx_tensor_bytes(sdx_value_stored(v));
    s->initializers++;
    s->initializer_bytes += bytes;
    int at = s->n_largest < N_LARGEST ? s->n_largest++ : N_LARGEST;
    for (; at > 0 && sdx_tensor_bytes(sdx_value_stored(s->largest[at - 1])) < bytes; at--)
        if (at < N_LARGEST) s->largest[at] = s->largest[at - 1];
    if (at < N_LARGEST) s->largest[at] = v;
}

static sdx_status gather_graph(summary *s, const sdx_graph *g, sdx_map *known, sdx_error *err)
{
    for (sdx_id v = 0; v < g->n_value; v++)
        if (sdx_value_stored(&g->value[v])) note_initializer(s, &g->value[v]);
    for (sdx_id i = 0; i < g->n_node; i++) {
        const sdx_node *n = &g->node[i];
        if (n->dead) continue;
        TRY(count_op(s, n, known, err));
        for (int k = 0; k < n->n_attr; k++) {
            const sdx_attr *a = &n->attr[k];
            if (a->reference) continue;
            if (a->type == SDX_ATTR_GRAPH) TRY(gather_graph(s, a->graph, known, err));
            for (size_t j = 0; a->type == SDX_ATTR_GRAPHS && j < a->count; j++)
                TRY(gather_graph(s, a->graphs[j], known, err));
        }
    }
    return SDX_OK;
}

static int by_count(const void *a, const void *b)
{
    const op_count *x = a, *y = b;
    if (x->count != y->count) return x->count < y->count ? 1 : -1;
    return strcmp(x->name, y->name);
}

static sdx_status gather(summary *s, sdx_error *err)
{
    sdx_map known = {0};
    sdx_status status = gather_graph(s, s->model->graph, &known, err);
    sdx_map_fini(&known);
    if (s->n_op) qsort(s->op, (size_t)s->n_op, sizeof *s->op, by_count);
    return status;
}

static const char *domain_text(const char *domain)
{
    return *domain ? domain : "ai.onnx";
}

/* ---- text ------------------------------------------------------------------------------------------------ */

static void print_port(sdx_buffer *b, const sdx_port *p)
{
    sdx_buffer_printf(b, "  %s: %s", p->name, p->dtype ? sdx_dtype_name(p->dtype) : "unknown");
    if (p->rank < 0) {
        sdx_buffer_puts(b, "[...]\n");
        return;
    }
    sdx_buffer_putc(b, '[');
    for (int i = 0; i < p->rank; i++) {
        if (i) sdx_buffer_putc(b, ',');
        if (p->dim[i] >= 0)
            sdx_buffer_printf(b, "%lld", (long long)p->dim[i]);
        else
            sdx_buffer_puts(b, p->symbol[i] ? p->symbol[i] : "?");
    }
    sdx_buffer_puts(b, "]\n");
}

static void print_ports(sdx_buffer *b, const sdx_model *m)
{
    sdx_buffer_puts(b, "inputs:\n");
    for (size_t i = 0; i < sdx_model_input_count(m); i++) {
        sdx_port p = sdx_model_input(m, i);
        print_port(b, &p);
    }
    sdx_buffer_puts(b, "outputs:\n");
    for (size_t i = 0; i < sdx_model_output_count(m); i++) {
        sdx_port p = sdx_model_output(m, i);
        print_port(b, &p);
    }
}

static void print_header(sdx_buffer *b, const sdx_model *m)
{
    sdx_buffer_printf(b, "path: %s\nIR version: %lld\nproducer: %s", m->path, (long long)m->ir_version,
                      *m->producer_name ? m->producer_name : "(not said)");
    sdx_buffer_printf(b, "%s%s\nopsets:", *m->producer_version ? " " : "", m->producer_version);
    for (int i = 0; i < m->n_opset; i++)
        sdx_buffer_printf(b, "%s %s %lld", i ? "," : "", domain_text(m->opset[i].domain),
                          (long long)m->opset[i].version);
    sdx_buffer_putc(b, '\n');
    if (m->n_metadata) sdx_buffer_puts(b, "metadata:\n");
    for (int i = 0; i < m->n_metadata; i++)
        sdx_buffer_printf(b, "  %s: %s\n", m->metadata[i].key, m->metadata[i].value);
}

static void print_text(sdx_buffer *b, const summary *s)
{
    print_header(b, s->model);
    print_ports(b, s->model);
    sdx_buffer_printf(b, "nodes: %zu\ninitializers: %zu (%llu bytes)\n", s->nodes, s->initializers,
                      (unsigned long long)s->initializer_bytes);
    sdx_buffer_puts(b, "operators:\n");
    for (int i = 0; i < s->n_op; i++) sdx_buffer_printf(b, "%7zu  %s\n", s->op[i].count, s->op[i].name);
    if (s->n_largest) sdx_buffer_puts(b, "largest initializers:\n");
    for (int i = 0; i < s->n_largest; i++) {
        const sdx_type *t = &s->largest[i]->type;
        char type[SDX_TENSOR_TEXT];
        sdx_buffer_printf(b, "%12zu  %s %s\n", sdx_tensor_bytes(t->constant), s->largest[i]->name,
                          sdx_tensor_format(t->dtype, &t->shape, type, sizeof type));
    }
}

/* ---- JSON ------------------------------------------------------------------------------------------------
 * jansson's *_new functions release what they cannot add; `lost` counts that, so that it is checked once. */

typedef struct json_out {
    int lost;
} json_out;

static void set(json_out *o, json_t *object, const char *key, json_t *value)
{
    o->lost += json_object_set_new(object, key, value) != 0;
}

static void append(json_out *o, json_t *array, json_t *value)
{
    o->lost += json_array_append_new(array, value) != 0;
}

static json_t *json_port(json_out *o, const sdx_port *p)
{
    json_t *port = json_object(), *shape = p->rank < 0 ? json_null() : json_array();
    for (int i = 0; i < p->rank; i++) {
        if (p->dim[i] >= 0)
            append(o, shape, json_integer(p->dim[i]));
        else
            append(o, shape, p->symbol[i] ? sdx_json_text(p->symbol[i]) : json_null());
    }
    set(o, port, "name", sdx_json_text(p->name));
    set(o, port, "dtype", json_string(sdx_dtype_name(p->dtype)));
    set(o, port, "shape", shape);
    return port;
}

static json_t *json_ports(json_out *o, const sdx_model *m, size_t count,
                          sdx_port (*get)(const sdx_model *, size_t))
{
    json_t *ports = json_array();
    for (size_t i = 0; i < count; i++) {
        sdx_port p = get(m, i);
        append(o, ports, json_port(o, &p));
    }
    return ports;
}

static json_t *json_largest(json_out *o, const summary *s)
{
    json_t *list = json_array();
    for (int i = 0; i < s->n_largest; i++) {
        const sdx_tensor *t = sdx_value_stored(s->largest[i]);
        json_t *entry = json_object(), *shape = json_array();
        for (int k = 0; k < t->rank; k++) append(o, shape, json_integer(t->dim[k]));
        set(o, entry, "name", sdx_json_text(s->largest[i]->name));
        set(o, entry, "dtype", json_string(sdx_dtype_name(t->dtype)));
        set(o, entry, "shape", shape);
        set(o, entry, "bytes", json_integer((json_int_t)sdx_tensor_bytes(t)));
        append(o, list, entry);
    }
    return list;
}

/* set, under a key that comes from the file. */
static void set_text(json_out *o, json_t *object, const char *key, json_t *value)
{
    json_t *name = sdx_json_text(key);
    if (name)
        set(o, object, json_string_value(name), value);
    else
        json_decref(value);
    o->lost += !name;
    json_decref(name);
}

static json_t *json_summary(json_out *o, const summary *s)
{
    const sdx_model *m = s->model;
    json_t *root = json_object(), *opsets = json_object(), *metadata = json_object(),
           *operators = json_object();
    json_t *initializers = json_object();
    for (int i = 0; i < m->n_opset; i++)
        set_text(o, opsets, domain_text(m->opset[i].domain), json_integer(m->opset[i].version));
    for (int i = 0; i < m->n_metadata; i++)
        set_text(o, metadata, m->metadata[i].key, sdx_json_text(m->metadata[i].value));
    for (int i = 0; i < s->n_op; i++)
        set_text(o, operators, s->op[i].name, json_integer((json_int_t)s->op[i].count));
    set(o, initializers, "count", json_integer((json_int_t)s->initializers));
    set(o, initializers, "bytes", json_integer((json_int_t)s->initializer_bytes));
    set(o, root, "path", sdx_json_text(m->path));
    set(o, root, "ir_version", json_integer(m->ir_version));
    set(o, root, "producer", sdx_json_text(m->producer_name));
    set(o, root, "producer_version", sdx_json_text(m->producer_version));
    set(o, root, "opsets", opsets);
    set(o, root, "metadata", metadata);
    set(o, root, "inputs", json_ports(o, m, sdx_model_input_count(m), sdx_model_input));
    set(o, root, "outputs", json_ports(o, m, sdx_model_output_count(m), sdx_model_output));
    set(o, root, "nodes", json_integer((json_int_t)s->nodes));
    set(o, root, "initializers", initializers);
    set(o, root, "operators", operators);
    set(o, root, "largest", json_largest(o, s));
    return root;
}

static sdx_status print_json(const summary *s, char **text, sdx_error *err)
{
    json_out o = {0};
    json_t *root = json_summary(&o, s);
    char *dump = o.lost ? NULL : json_dumps(root, JSON_INDENT(2));
    json_decref(root);
    if (!dump) return sdx_fail_memory(err, 4096);
    *text = dump;
    return SDX_OK;
}

sdx_status sdx_model_inspect(const sdx_model *model, bool json, char **text, sdx_error *err)
{
    summary s = {.model = model};
    sdx_buffer b = {0};
    sdx_arena_init(&s.arena);
    sdx_status status = gather(&s, err);
    if (status == SDX_OK && json) status = print_json(&s, text, err);
    if (status == SDX_OK && !json) {
        print_text(&b, &s);
        status = sdx_buffer_take(&b, text, err);
    }
    sdx_arena_fini(&s.arena);
    return status;
}
