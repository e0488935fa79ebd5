/* onnx_writer.c: the IR as an ONNX file. In protobuf's wire format a message is preceded by its length, so each
 * message here is a function that runs twice: over a sink that only counts, then over the file. Nothing is
 * built in memory, and weights go from where they are (often the mapping of the file being replaced, which the
 * final rename leaves intact) straight to the new file. Fields come in ascending order and all order is the
 * graph's: the same graph gives the same bytes. */
#include <stdio.h>
#include <string.h>

#include "../base/memory.h"
#include "onnx_plan.h"

enum {
    PIECE_BYTES = 4 << 20, /* written between two reports of progress */
    LARGE = 1 << 20        /* bytes of a piece whose pages are let go */
};
#define LARGEST_MESSAGE ((uint64_t)INT32_MAX) /* what protobuf readers accept */

/* ---- the wire format ------------------------------------------------------------------------------------- */

typedef struct sink {
    const sdx_onnx_plan *plan;
    sdx_writer *file; /* NULL: only count */
    uint64_t bytes;
    uint64_t before; /* bytes of the files written earlier */
} sink;

typedef void (*message_fn)(sink *s, const void *item);

static void report(const sink *s)
{
    const sdx_onnx_write_options *o = s->plan->options;
    if (o->progress) o->progress(o->context, s->before + s->file->written, s->plan->total);
}

/* Mapped weights need not stay in memory once they are written. */
static void put(sink *s, const void *bytes, size_t n)
{
    s->bytes += n;
    if (!s->file) return;
    const unsigned char *at = bytes;
    for (size_t part; n; n -= part, at += part) {
        part = n < PIECE_BYTES ? n : PIECE_BYTES;
        sdx_writer_put(s->file, at, part);
        if (part >= LARGE && sdx_model_is_mapped(s->plan->model, at)) sdx_pages_release(at, part);
        if (part < n) report(s);
    }
}

static void put_varint(sink *s, uint64_t v)
{
    unsigned char bytes[10];
    size_t n = 0;
    do {
        bytes[n++] = (unsigned char)((v & 127) | (v > 127 ? 128 : 0));
        v >>= 7;
    } while (v);
    put(s, bytes, n);
}

static void put_tag(sink *s, unsigned field, unsigned wire)
{
    put_varint(s, field << 3 | wire);
}

static void put_int(sink *s, unsigned field, int64_t v)
{
    put_tag(s, field, 0);
    put_varint(s, (uint64_t)v);
}

static void put_float(sink *s, unsigned field, float v)
{
    put_tag(s, field, 5);
    put(s, &v, sizeof v);
}

static void put_bytes(sink *s, unsigned field, const void *bytes, size_t n)
{
    put_tag(s, field, 2);
    put_varint(s, n);
    put(s, bytes, n);
}

static void put_string(sink *s, unsigned field, const char *text)
{
    put_bytes(s, field, text, strlen(text));
}

static void put_text(sink *s, unsigned field, const char *text) /* left out when empty */
{
    if (text && *text) put_string(s, field, text);
}

static void put_message(sink *s, unsigned field, message_fn fn, const void *item)
{
    sink count = {.plan = s->plan};
    fn(&count, item);
    put_tag(s, field, 2);
    put_varint(s, count.bytes);
    if (s->file)
        fn(s, item);
    else
        s->bytes += count.bytes;
}

/* ---- tensors --------------------------------------------------------------------------------------------- */

typedef struct tensor_item {
    const sdx_tensor *tensor;
    const char *name;
    uint64_t offset; /* in the data file, or SDX_ONNX_EMBEDDED */
} tensor_item;

static void put_pair(sink *s, const void *item) /* StringStringEntryProto */
{
    const sdx_metadata *pair = item;
    put_string(s, 1, pair->key);
    put_string(s, 2, pair->value);
}

static void put_external(sink *s, const tensor_item *t)
{
    char offset[24], length[24];
    snprintf(offset, sizeof offset, "%llu", (unsigned long long)t->offset);
    snprintf(length, sizeof length, "%zu", sdx_tensor_file_bytes(t->tensor));
    const sdx_metadata pairs[] = {{"location", s->plan->location}, {"offset", offset}, {"length", length}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) put_message(s, 13, put_pair, &pairs[i]);
    put_int(s, 14, 1);
}

/* The elements as a file keeps them: those below 8 bits packed, a few at a time. */
static void put_elements(sink *s, const sdx_tensor *t)
{
    enum { CHUNK = 1024 }; /* elements; a multiple of 8, so that each chunk ends at the end of a byte */
    const uint8_t *data = t->data;
    size_t n = sdx_tensor_bytes(t), bits = (size_t)sdx_dtype_bits(t->dtype), part;
    if (!s->file || !sdx_dtype_is_small(t->dtype)) {
        put(s, data, sdx_tensor_file_bytes(t));
        return;
    }
    for (size_t at = 0; at < n; at += part) {
        uint8_t packed[CHUNK];
        part = n - at < CHUNK ? n - at : CHUNK;
        sdx_small_pack(t->dtype, data + at, part, packed);
        put(s, packed, (part * bits + 7) / 8);
    }
}

static void put_tensor(sink *s, const void *item)
{
    const tensor_item *it = item;
    const sdx_tensor *t = it->tensor;
    int64_t count = sdx_tensor_count(t);
    for (int i = 0; i < t->rank; i++) put_int(s, 1, t->dim[i]);
    put_int(s, 2, t->dtype);
    if (t->dtype == SDX_STRING)
        for (int64_t i = 0; i < count; i++) put_string(s, 6, ((const char *const *)t->data)[i]);
    put_text(s, 8, it->name);
    if (it->offset != SDX_ONNX_EMBEDDED)
        put_external(s, it);
    else if (t->dtype != SDX_STRING) {
        put_tag(s, 9, 2);
        put_varint(s, sdx_tensor_file_bytes(t));
        put_elements(s, t);
        if (s->file) report(s);
    }
}

/* ---- types ----------------------------------------------------------------------------------------------- */

typedef struct value_item {
    const sdx_graph *graph;
    sdx_id id;
} value_item;

/* A captured value goes by the name it has in the graph that made it. */
static const char *value_name(const sdx_graph *g, sdx_id id)
{
    if (id == SDX_NONE) return "";
    while (g->value[id].outer != SDX_NONE) {
        id = g->value[id].outer;
        g = g->parent;
    }
    return g->value[id].name;
}

static void put_dim(sink *s, const void *item)
{
    sdx_dim d = *(const sdx_dim *)item;
    if (sdx_dim_is_known(d))
        put_int(s, 1, d);
    else if (sdx_dim_is_symbol(d))
        put_string(s, 2, s->plan->model->symbol[SDX_DIM_SYMBOL_ID(d)].name);
}

static void put_shape(sink *s, const void *item)
{
    const sdx_shape *shape = item;
    for (int i = 0; i < shape->rank; i++) put_message(s, 1, put_dim, &shape->dim[i]);
}

static void put_tensor_type(sink *s, const void *item)
{
    const sdx_type *type = item;
    put_int(s, 1, type->dtype);
    if (type->shape.rank >= 0) put_message(s, 2, put_shape, &type->shape);
}

static void put_type(sink *s, const void *item)
{
    put_message(s, 1, put_tensor_type, item);
}

static void put_sequence_element(sink *s, const void *item)
{
    put_message(s, 1, put_type, item);
}

static void put_sequence_type(sink *s, const void *item)
{
    put_message(s, 4, put_sequence_element, item);
}

static void put_optional_element(sink *s, const void *item)
{
    const sdx_declared *d = item;
    sdx_type type = {.dtype = d->dtype, .shape = d->shape};
    put_message(s, 1, d->sequence ? put_sequence_type : put_type, &type);
}

/* A tensor, a sequence, an optional, or an optional sequence. */
static void put_declared(sink *s, const void *item)
{
    const sdx_declared *d = item;
    sdx_type type = {.dtype = d->dtype, .shape = d->shape};
    if (d->optional)
        put_message(s, 9, put_optional_element, d);
    else if (d->sequence)
        put_sequence_type(s, &type);
    else
        put_type(s, &type);
}

static void put_value_info(sink *s, const void *item)
{
    const value_item *it = item;
    const sdx_type *type = &it->graph->value[it->id].type;
    put_string(s, 1, value_name(it->graph, it->id));
    const sdx_declared *d = it->graph->value[it->id].declared;
    if (d && d->dtype != SDX_UNDEFINED && (d->sequence || d->optional))
        put_message(s, 2, put_declared, d);
    else if (type->dtype != SDX_UNDEFINED)
        put_message(s, 2, put_type, type);
}

/* ---- nodes and graphs ------------------------------------------------------------------------------------ */

typedef struct node_item {
    const sdx_graph *graph;
    const sdx_node *node;
} node_item;

static void put_graph(sink *s, const void *item);

static void put_content(sink *s, const sdx_attr *a)
{
    switch (a->type) {
    case SDX_ATTR_FLOAT: put_float(s, 2, a->f); break;
    case SDX_ATTR_INT: put_int(s, 3, a->i); break;
    case SDX_ATTR_STRING: put_bytes(s, 4, a->s, a->s_length); break;
    case SDX_ATTR_TENSOR: put_message(s, 5, put_tensor, &(tensor_item){a->tensor, NULL, SDX_ONNX_EMBEDDED}); break;
    case SDX_ATTR_GRAPH: put_message(s, 6, put_graph, a->graph); break;
    case SDX_ATTR_FLOATS:
        for (size_t i = 0; i < a->count; i++) put_float(s, 7, a->floats[i]);
        break;
    case SDX_ATTR_INTS:
        for (size_t i = 0; i < a->count; i++) put_int(s, 8, a->ints[i]);
        break;
    case SDX_ATTR_STRINGS:
        for (size_t i = 0; i < a->count; i++) put_string(s, 9, a->strings[i]);
        break;
    case SDX_ATTR_TENSORS:
        for (size_t i = 0; i < a->count; i++)
            put_message(s, 10, put_tensor, &(tensor_item){&a->tensors[i], NULL, SDX_ONNX_EMBEDDED});
        break;
    case SDX_ATTR_GRAPHS:
        for (size_t i = 0; i < a->count; i++) put_message(s, 11, put_graph, a->graphs[i]);
        break;
    case SDX_ATTR_VALUE_TYPE: put_message(s, 14, put_declared, a->value_type); break;
    }
}

static void put_attribute(sink *s, const void *item)
{
    const sdx_attr *a = item;
    put_string(s, 1, a->name);
    if (!a->reference) put_content(s, a);
    put_int(s, 20, a->type);
    put_text(s, 21, a->reference);
}

static void put_node(sink *s, const void *item)
{
    const node_item *it = item;
    const sdx_node *n = it->node;
    for (int i = 0; i < n->n_in; i++) put_string(s, 1, value_name(it->graph, n->in[i]));
    for (int i = 0; i < n->n_out; i++) put_string(s, 2, value_name(it->graph, n->out[i]));
    put_text(s, 3, n->name);
    put_string(s, 4, n->op_type);
    for (int i = 0; i < n->n_attr; i++) put_message(s, 5, put_attribute, &n->attr[i]);
    put_text(s, 7, n->domain);
}

static void put_nodes(sink *s, unsigned field, const sdx_graph *g)
{
    for (sdx_id i = 0; i < g->n_node; i++)
        if (!g->node[i].dead) put_message(s, field, put_node, &(node_item){g, &g->node[i]});
}

static void put_graph(sink *s, const void *item)
{
    const sdx_graph *g = item;
    const sdx_onnx_marks *marks = sdx_onnx_plan_marks(s->plan, g);
    const uint64_t *offset = g == s->plan->model->graph ? s->plan->offset : NULL;
    put_nodes(s, 1, g);
    put_string(s, 2, g->name && *g->name ? g->name : "graph"); /* a graph must have a name */
    for (sdx_id v = 0; v < g->n_value; v++) {
        const sdx_value *value = &g->value[v];
        if (!sdx_onnx_is_initializer(marks, v)) continue;
        put_message(s, 5, put_tensor,
                    &(tensor_item){sdx_onnx_initializer(value), value->name, offset ? offset[v] : SDX_ONNX_EMBEDDED});
    }
    for (int i = 0; i < g->n_input; i++) put_message(s, 11, put_value_info, &(value_item){g, g->input[i]});
    for (int i = 0; i < g->n_output; i++) put_message(s, 12, put_value_info, &(value_item){g, g->output[i]});
}

/* ---- functions and the model ----------------------------------------------------------------------------- */

static void put_opset(sink *s, const void *item)
{
    const sdx_opset *o = item;
    put_string(s, 1, o->domain);
    put_int(s, 2, o->version);
}

static void put_function(sink *s, const void *item)
{
    const sdx_function *f = item;
    const sdx_graph *g = f->body;
    put_string(s, 1, f->name);
    for (int i = 0; i < g->n_input; i++) put_string(s, 4, value_name(g, g->input[i]));
    for (int i = 0; i < g->n_output; i++) put_string(s, 5, value_name(g, g->output[i]));
    for (int i = 0; i < f->n_attribute; i++) put_string(s, 6, f->attribute[i]);
    put_nodes(s, 7, g);
    for (int i = 0; i < f->n_opset; i++) put_message(s, 9, put_opset, &f->opset[i]);
    put_string(s, 10, f->domain);
    for (int i = 0; i < f->n_preset; i++) put_message(s, 11, put_attribute, &f->preset[i]);
}

static bool is_used_domain(const sdx_onnx_plan *p, const char *domain)
{
    if (!*domain || p->model->n_function)
        return true; /* a function's operators need their opsets imported too */
    for (int i = 0; i < p->n_domain; i++)
        if (!strcmp(p->domain[i], domain)) return true;
    return false;
}

static void put_opsets(sink *s)
{
    const sdx_onnx_plan *p = s->plan;
    for (int i = 0; i < p->model->n_opset; i++)
        if (is_used_domain(p, p->model->opset[i].domain)) put_message(s, 8, put_opset, &p->model->opset[i]);
    for (int i = 0; i < p->n_domain; i++) /* domains that an edit brought in without importing them */
        if (*p->domain[i] && !sdx_model_opset(p->model, p->domain[i]))
            put_message(s, 8, put_opset, &(sdx_opset){p->domain[i], 1});
}

static void put_model(sink *s)
{
    const sdx_model *m = s->plan->model;
    put_int(s, 1, s->plan->ir_version);
    put_string(s, 2, "sardonyx");
    put_string(s, 3, SDX_VERSION);
    put_text(s, 4, m->domain);
    if (m->model_version) put_int(s, 5, m->model_version);
    put_text(s, 6, m->doc);
    put_message(s, 7, put_graph, m->graph);
    put_opsets(s);
    for (int i = 0; i < m->n_metadata; i++) put_message(s, 14, put_pair, &m->metadata[i]);
    for (int i = 0; i < m->n_function; i++) put_message(s, 25, put_function, &m->function[i]);
}

/* ---- files ----------------------------------------------------------------------------------------------- */

static void put_padding(sdx_writer *w, uint64_t until)
{
    static const char zeros[SDX_ONNX_ALIGN];
    sdx_writer_put(w, zeros, (size_t)(until - w->written));
}

static sdx_status write_data(sdx_onnx_plan *p, const char *path, sdx_writer *w, sdx_error *err)
{
    const sdx_graph *g = p->model->graph;
    const char *data_path = sdx_arena_printf(&p->arena, "%s.data", path);
    if (!data_path) return sdx_fail_memory(err, strlen(path));
    TRY(sdx_writer_open(w, data_path, err));
    sink file = {.plan = p, .file = w};
    for (sdx_id v = 0; v < g->n_value; v++) {
        if (p->offset[v] == SDX_ONNX_EMBEDDED) continue;
        put_padding(w, p->offset[v]);
        put_elements(&file, sdx_onnx_initializer(&g->value[v]));
        report(&file);
    }
    sdx_writer_flush(w);
    return SDX_OK;
}

static uint64_t count_model(const sdx_onnx_plan *p)
{
    sink count = {.plan = p};
    put_model(&count);
    return count.bytes;
}

static sdx_status stage(sdx_onnx_plan *p, const char *path, sdx_onnx_staged *out, sdx_error *err)
{
    TRY(sdx_onnx_plan_make(p, err));
    p->total = count_model(p);
    if (p->options->external_data || p->total > LARGEST_MESSAGE) {
        TRY(sdx_onnx_plan_external(p, path, err));
        uint64_t message = count_model(p);
        if (message > LARGEST_MESSAGE)
            return sdx_fail(err, SDX_ERR_UNSUPPORTED, "%s: more than 2 GB without its weights", path);
        p->total = p->data_bytes + message;
        if (p->data_bytes) TRY(write_data(p, path, &out->data, err));
    }
    TRY(sdx_writer_open(&out->model, path, err));
    sink file = {.plan = p, .file = &out->model, .before = p->data_bytes};
    put_model(&file);
    report(&file);
    sdx_writer_flush(&out->model);
    return SDX_OK;
}

sdx_status sdx_onnx_stage(const sdx_model *model, const char *path, const sdx_onnx_write_options *options,
                          sdx_onnx_staged *out, sdx_error *err)
{
    static const sdx_onnx_write_options plain;
    sdx_onnx_plan p = {.model = model, .options = options ? options : &plain};
    *out = (sdx_onnx_staged){{.fd = -1}, {.fd = -1}};
    if (!path || !*path) return sdx_fail(err, SDX_ERR_USAGE, "no file to write the model to was given");
    sdx_arena_init(&p.arena);
    sdx_status status = stage(&p, path, out, err);
    sdx_arena_fini(&p.arena);
    if (status != SDX_OK) sdx_onnx_abort(out);
    return status;
}

sdx_status sdx_onnx_commit(sdx_onnx_staged *staged, sdx_error *err)
{
    sdx_status status = staged->data.path ? sdx_writer_commit(&staged->data, err) : SDX_OK;
    if (status == SDX_OK) status = sdx_writer_commit(&staged->model, err);
    sdx_onnx_abort(staged);
    return status;
}

void sdx_onnx_abort(sdx_onnx_staged *staged)
{
    sdx_writer_abort(&staged->data);
    sdx_writer_abort(&staged->model);
}

sdx_status sdx_onnx_write(const sdx_model *model, const char *path, const sdx_onnx_write_options *options,
                          sdx_error *err)
{
    sdx_onnx_staged staged;
    TRY(sdx_onnx_stage(model, path, options, &staged, err));
    return sdx_onnx_commit(&staged, err);
}
