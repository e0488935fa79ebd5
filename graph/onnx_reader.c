/* onnx_reader.c: ONNX's messages into the IR. Names become ids here: a graph first declares its inputs,
 * initializers and all node outputs, then its nodes look up what they read, so that nodes may stand in any
 * order; what is not found is looked for in the graphs outside and becomes a value that stands for the outer
 * one. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "../base/memory.h"
#include "onnx_io.h"

enum {
    MAX_OPSETS = 256,
    IR_DEFAULTS = 4, /* initializers need not be inputs */
    IR_NEWEST = 14,  /* what is known: ONNX 1.23 */
    OPSET_NEWEST = 28
};

typedef struct reader {
    sdx_model *model;
    sdx_arena *arena; /* the model's */
    sdx_onnx_source source;
    bool in_function; /* whose opsets are its own */
    sdx_error *err;
} reader;

static const char *text(const char *s)
{
    return s ? s : "";
}

/* The default domain has two spellings. */
static const char *domain_name(const char *s)
{
    return !s || !strcmp(s, "ai.onnx") ? "" : s;
}

static sdx_status copy_text(reader *r, const char *s, const char **out)
{
    if (!(*out = sdx_arena_strdup(r->arena, text(s)))) return sdx_fail_memory(r->err, strlen(text(s)));
    return SDX_OK;
}

static sdx_status copy_texts(reader *r, size_t count, char *const *from, const char *const **out, int *n)
{
    const char **list;
    ARENA_NEW(r->arena, list, count, r->err);
    for (size_t i = 0; i < count; i++) TRY(copy_text(r, from[i], &list[i]));
    *out = list;
    *n = (int)count;
    return SDX_OK;
}

/* ---- types ----------------------------------------------------------------------------------------------- */

static sdx_status read_dim(reader *r, const Onnx__TensorShapeProto__Dimension *d, sdx_dim *out)
{
    *out = SDX_DIM_UNKNOWN;
    if (d->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE && d->dim_value >= 0) {
        *out = d->dim_value;
    } else if (d->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM && *text(d->dim_param)) {
        int symbol = sdx_model_symbol(r->model, d->dim_param);
        if (symbol == SDX_NONE) return sdx_fail_memory(r->err, strlen(d->dim_param));
        *out = SDX_DIM_SYMBOL(symbol);
    }
    return SDX_OK;
}

static sdx_status read_tensor_type(reader *r, const Onnx__TypeProto__Tensor *t, sdx_dtype *dtype, sdx_shape *shape)
{
    *dtype = t && sdx_dtype_is_known(t->elem_type) ? (sdx_dtype)t->elem_type : SDX_UNDEFINED;
    *shape = SDX_SHAPE_UNKNOWN;
    if (!t || !t->shape || t->shape->n_dim > SDX_MAX_RANK) return SDX_OK;
    shape->rank = (int)t->shape->n_dim;
    for (int i = 0; i < shape->rank; i++) TRY(read_dim(r, t->shape->dim[i], &shape->dim[i]));
    return SDX_OK;
}

static sdx_status read_type(reader *r, const Onnx__TypeProto *t, const sdx_declared **out)
{
    sdx_declared *d;
    ARENA_NEW(r->arena, d, 1, r->err);
    if (t && t->optional_type) {
        d->optional = true;
        t = t->optional_type->elem_type;
    }
    if (t && t->sequence_type) {
        d->sequence = true;
        t = t->sequence_type->elem_type;
    }
    *out = d;
    return read_tensor_type(r, t ? t->tensor_type : NULL, &d->dtype, &d->shape);
}

/* What a graph input or output is said to be. The types of sequences and optionals are for the run to see: what
 * the value itself has is the type of a plain tensor, or none. */
static sdx_status read_declaration(reader *r, sdx_value *v, const Onnx__ValueInfoProto *info, sdx_type *type)
{
    TRY(read_type(r, info->type, &v->declared));
    const sdx_declared *d = v->declared;
    *type = (sdx_type){.shape = SDX_SHAPE_UNKNOWN};
    if (!d->optional && !d->sequence) *type = (sdx_type){.dtype = d->dtype, .shape = d->shape};
    return SDX_OK;
}
/* ---- values ---------------------------------------------------------------------------------------------- */

static sdx_status declare(reader *r, sdx_graph *g, const char *name, const char *what, sdx_id *out)
{
    if (!*text(name)) return sdx_fail(r->err, SDX_ERR_FILE, "%s has no name", what);
    if (sdx_graph_find_value(g, name) != SDX_NONE)
        return sdx_fail(r->err, SDX_ERR_FILE, "\"%s\" is defined twice, the second time as %s", name, what);
    return sdx_graph_add_value(g, name, out, r->err);
}

static sdx_status read_input(reader *r, sdx_graph *g, const Onnx__ValueInfoProto *info)
{
    sdx_id id;
    sdx_type type = {0};
    TRY(declare(r, g, info->name, "a graph input", &id));
    TRY(read_declaration(r, &g->value[id], info, &type));
    g->value[id].type = type;
    g->value[id].is_input = true;
    g->input[g->n_input++] = id;
    return SDX_OK;
}

/* An initializer with the name of an input is its default, which a run may replace. Before IR 4 every initializer
 * had to be listed so: there it is a constant. */
static sdx_status add_initializer(reader *r, sdx_graph *g, const char *name, const sdx_tensor *t)
{
    sdx_id id = sdx_graph_find_value(g, text(name));
    bool is_default = id != SDX_NONE && g->value[id].is_input && !g->value[id].type.constant && !g->value[id].preset;
    if (!is_default) TRY(declare(r, g, name, "an initializer", &id));
    sdx_dtype declared = g->value[id].type.dtype;
    if (declared != SDX_UNDEFINED && declared != t->dtype)
        return sdx_fail(r->err, SDX_ERR_FILE,
                        "initializer \"%s\" is %s, but the graph input of that name is %s", name,
                        sdx_dtype_name(t->dtype), sdx_dtype_name(declared));
    if (!is_default || r->model->ir_version < IR_DEFAULTS || g->parent)
        return sdx_graph_set_constant(g, id, t, r->err);
    sdx_tensor *preset;
    ARENA_NEW(r->arena, preset, 1, r->err);
    *preset = *t;
    g->value[id].preset = preset;
    return SDX_OK;
}

static sdx_status read_initializers(reader *r, sdx_graph *g, const Onnx__GraphProto *p)
{
    sdx_tensor t;
    for (size_t i = 0; i < p->n_initializer; i++) {
        TRY(sdx_onnx_read_tensor(&r->source, p->initializer[i], r->arena, &t, r->err));
        TRY(add_initializer(r, g, p->initializer[i]->name, &t));
    }
    for (size_t i = 0; i < p->n_sparse_initializer; i++) {
        TRY(sdx_onnx_read_sparse(&r->source, p->sparse_initializer[i], r->arena, &t, r->err));
        TRY(add_initializer(r, g, p->sparse_initializer[i]->values->name, &t));
    }
    return SDX_OK;
}

/* The id of a name, which may stand in a graph outside; SDX_NONE for "" and for what is nowhere. */
static sdx_status look_up(reader *r, sdx_graph *g, const char *name, sdx_id *out)
{
    *out = *name ? sdx_graph_find_value(g, name) : SDX_NONE;
    if (*out != SDX_NONE || !*name || !g->parent) return SDX_OK;
    sdx_id outer, id;
    TRY(look_up(r, g->parent, name, &outer));
    if (outer == SDX_NONE) return SDX_OK;
    TRY(sdx_graph_add_value(g, name, &id, r->err));
    g->value[id].outer = outer;
    *out = id;
    return SDX_OK;
}

static sdx_status read_output(reader *r, sdx_graph *g, const Onnx__ValueInfoProto *info)
{
    sdx_id id;
    sdx_type type = {0};
    TRY(look_up(r, g, text(info->name), &id));
    if (id == SDX_NONE)
        return sdx_fail(r->err, SDX_ERR_FILE, "graph output \"%s\" is computed by no node", text(info->name));
    sdx_value *v = &g->value[id];
    if (v->declared) { /* it is an input too */
        v->is_output = true;
        g->output[g->n_output++] = id;
        return SDX_OK;
    }
    TRY(read_declaration(r, v, info, &type));
    if (!v->is_input && !v->type.constant) v->type = type;
    v->is_output = true;
    g->output[g->n_output++] = id;
    return SDX_OK;
}

/* ---- attributes ------------------------------------------------------------------------------------------ */

static sdx_status read_graph(reader *r, sdx_graph *g, const Onnx__GraphProto *p);

static sdx_status read_subgraph(reader *r, sdx_graph *parent, const Onnx__GraphProto *p, sdx_graph **out)
{
    TRY(sdx_graph_create(r->model, parent, out, r->err));
    return read_graph(r, *out, p);
}

static sdx_status copy_string(reader *r, const ProtobufCBinaryData *from, const char **out)
{
    *out = sdx_arena_strndup(r->arena, from->len ? (const char *)from->data : "", from->len);
    return *out ? SDX_OK : sdx_fail_memory(r->err, from->len);
}

static sdx_status copy_list(reader *r, const void *from, size_t count, size_t size, const void **out)
{
    void *list = sdx_arena_array(r->arena, count, size);
    if (!list) return sdx_fail_memory(r->err, count * size);
    if (count) memcpy(list, from, count * size);
    *out = list;
    return SDX_OK;
}

static sdx_status read_strings(reader *r, const Onnx__AttributeProto *p, sdx_attr *a)
{
    const char **list;
    ARENA_NEW(r->arena, list, p->n_strings, r->err);
    for (size_t i = 0; i < p->n_strings; i++) TRY(copy_string(r, &p->strings[i], &list[i]));
    a->strings = list;
    a->count = p->n_strings;
    return SDX_OK;
}

static sdx_status read_tensors(reader *r, size_t count, Onnx__TensorProto *const *from, const sdx_tensor **out)
{
    sdx_tensor *list;
    ARENA_NEW(r->arena, list, count, r->err);
    for (size_t i = 0; i < count; i++)
        TRY(sdx_onnx_read_tensor(&r->source, from[i], r->arena, &list[i], r->err));
    *out = list;
    return SDX_OK;
}

static sdx_status read_graphs(reader *r, sdx_graph *g, const Onnx__AttributeProto *p, sdx_attr *a)
{
    sdx_graph **list;
    ARENA_NEW(r->arena, list, p->n_graphs, r->err);
    for (size_t i = 0; i < p->n_graphs; i++) TRY(read_subgraph(r, g, p->graphs[i], &list[i]));
    a->graphs = list;
    a->count = p->n_graphs;
    return SDX_OK;
}

/* Files from before the type field say it by the field that is there. */
static int attribute_type(const Onnx__AttributeProto *p)
{
    if (p->type) return p->type;
    if (p->has_f) return SDX_ATTR_FLOAT;
    if (p->has_i) return SDX_ATTR_INT;
    if (p->has_s) return SDX_ATTR_STRING;
    if (p->t) return SDX_ATTR_TENSOR;
    if (p->g) return SDX_ATTR_GRAPH;
    if (p->n_floats) return SDX_ATTR_FLOATS;
    if (p->n_strings) return SDX_ATTR_STRINGS;
    if (p->n_tensors) return SDX_ATTR_TENSORS;
    if (p->n_graphs) return SDX_ATTR_GRAPHS;
    return SDX_ATTR_INTS;
}

enum { SPARSE_TENSOR = 11 }; /* ONNX's attribute type: only Constant has one, and here it is a tensor */

static sdx_status read_spread_out(reader *r, const Onnx__SparseTensorProto *p, sdx_attr *a)
{
    sdx_tensor *t;
    ARENA_NEW(r->arena, t, 1, r->err);
    a->type = SDX_ATTR_TENSOR;
    a->tensor = t;
    return sdx_onnx_read_sparse(&r->source, p, r->arena, t, r->err);
}

static sdx_status read_content(reader *r, sdx_graph *g, const Onnx__AttributeProto *p, sdx_attr *a)
{
    switch (a->type) {
    case SDX_ATTR_FLOAT: a->f = p->f; return SDX_OK;
    case SDX_ATTR_INT: a->i = p->i; return SDX_OK;
    case SDX_ATTR_STRING: a->s_length = p->s.len; return copy_string(r, &p->s, &a->s);
    case SDX_ATTR_FLOATS:
        a->count = p->n_floats;
        return copy_list(r, p->floats, p->n_floats, sizeof(float), (const void **)&a->floats);
    case SDX_ATTR_INTS:
        a->count = p->n_ints;
        return copy_list(r, p->ints, p->n_ints, sizeof(int64_t), (const void **)&a->ints);
    case SDX_ATTR_STRINGS: return read_strings(r, p, a);
    case SDX_ATTR_TENSORS:
        a->count = p->n_tensors;
        return read_tensors(r, p->n_tensors, p->tensors, &a->tensors);
    case SDX_ATTR_GRAPHS: return read_graphs(r, g, p, a);
    case SDX_ATTR_TENSOR:
        if (p->t) return read_tensors(r, 1, &p->t, &a->tensor);
        return sdx_fail(r->err, SDX_ERR_FILE, "attribute \"%s\" lacks its tensor", a->name);
    case SDX_ATTR_GRAPH:
        if (p->g) return read_subgraph(r, g, p->g, &a->graph);
        return sdx_fail(r->err, SDX_ERR_FILE, "attribute \"%s\" lacks its graph", a->name);
    case SDX_ATTR_VALUE_TYPE: return read_type(r, p->tp, &a->value_type);
    }
    if ((int)a->type == SPARSE_TENSOR && p->sparse_tensor) return read_spread_out(r, p->sparse_tensor, a);
    return sdx_fail(r->err, SDX_ERR_UNSUPPORTED,
                    "attribute \"%s\" is of ONNX attribute type %d; lists of sparse tensors and of types are not supported",
                    a->name, (int)a->type);
}

static sdx_status read_attributes(reader *r, sdx_graph *g, size_t count, Onnx__AttributeProto *const *from,
                                  sdx_attr **out, int *n)
{
    sdx_attr *list;
    ARENA_NEW(r->arena, list, count, r->err);
    for (size_t i = 0; i < count; i++) {
        const Onnx__AttributeProto *p = from[i];
        sdx_attr *a = &list[i];
        TRY(copy_text(r, p->name, &a->name));
        a->type = (sdx_attr_type)attribute_type(p);
        if (*text(p->ref_attr_name))
            TRY(copy_text(r, p->ref_attr_name, &a->reference));
        else
            TRY(read_content(r, g, p, a));
    }
    *out = list;
    *n = (int)count;
    return SDX_OK;
}

/* ---- nodes ----------------------------------------------------------------------------------------------- */

/* Two Constant nodes may give one value: old exporters wrote such files, and ONNX Runtime takes the last. */
static bool is_given_again(const sdx_graph *g, const Onnx__NodeProto *p, sdx_id v)
{
    if (strcmp(text(p->op_type), "Constant") || *domain_name(p->domain) || v == SDX_NONE) return false;
    return !g->value[v].is_input && !g->value[v].type.constant;
}

static sdx_status declare_outputs(reader *r, sdx_graph *g, const Onnx__NodeProto *p)
{
    sdx_id id;
    for (size_t i = 0; i < p->n_output; i++) {
        if (!*text(p->output[i]) || is_given_again(g, p, sdx_graph_find_value(g, p->output[i]))) continue;
        TRY(declare(r, g, p->output[i], "a node's output", &id));
    }
    return SDX_OK;
}

/* The values of a node's outputs; a Constant takes its own from the one before it. */
static sdx_status node_outputs(reader *r, sdx_graph *g, const Onnx__NodeProto *p, sdx_id *out)
{
    for (size_t i = 0; i < p->n_output; i++) {
        out[i] = *text(p->output[i]) ? sdx_graph_find_value(g, p->output[i]) : SDX_NONE;
        sdx_id before = out[i] == SDX_NONE ? SDX_NONE : g->value[out[i]].producer;
        if (before == SDX_NONE) continue;
        if (!sdx_node_is(&g->node[before], "Constant"))
            return sdx_fail(r->err, SDX_ERR_FILE, "\"%s\" is defined twice", p->output[i]);
        g->node[before].dead = true;
        g->value[out[i]].producer = SDX_NONE;
    }
    return SDX_OK;
}

static sdx_status node_inputs(reader *r, sdx_graph *g, const Onnx__NodeProto *p, sdx_id **out)
{
    sdx_id *in;
    ARENA_NEW(r->arena, in, p->n_input, r->err);
    for (size_t i = 0; i < p->n_input; i++) {
        const char *name = text(p->input[i]);
        TRY(look_up(r, g, name, &in[i]));
        if (*name && in[i] == SDX_NONE)
            return sdx_fail(r->err, SDX_ERR_FILE,
                            "input \"%s\" is neither a graph input, an initializer nor a node's output", name);
    }
    *out = in;
    return SDX_OK;
}

static sdx_status check_node(reader *r, const Onnx__NodeProto *p, const char *domain)
{
    if (!*text(p->op_type)) return sdx_fail(r->err, SDX_ERR_FILE, "it names no operator");
    if (*text(p->overload))
        return sdx_fail(r->err, SDX_ERR_UNSUPPORTED, "it calls an overloaded function (\"%s\")", p->overload);
    if (!*domain && !r->in_function && !sdx_model_opset(r->model, ""))
        return sdx_fail(r->err, SDX_ERR_FILE,
                        "the model does not say which version of ONNX's operators it uses");
    return SDX_OK;
}

static sdx_status read_node_body(reader *r, sdx_graph *g, const Onnx__NodeProto *p)
{
    const char *domain = domain_name(p->domain);
    sdx_id *in = NULL, *out, id;
    sdx_attr *attr;
    int n_attr;
    TRY(check_node(r, p, domain));
    TRY(node_inputs(r, g, p, &in));
    ARENA_NEW(r->arena, out, p->n_output, r->err);
    TRY(node_outputs(r, g, p, out));
    TRY(read_attributes(r, g, p->n_attribute, p->attribute, &attr, &n_attr));
    TRY(sdx_graph_add_node(g, domain, p->op_type, text(p->name), (int)p->n_input, in, (int)p->n_output, out,
                           &id, r->err));
    g->node[id].attr = attr;
    g->node[id].n_attr = n_attr;
    return SDX_OK;
}

static sdx_status read_node(reader *r, sdx_graph *g, const Onnx__NodeProto *p)
{
    sdx_status status = read_node_body(r, g, p);
    if (status == SDX_OK || !r->err) return status;
    char line[SDX_NODE_TEXT];
    sdx_node n = {.domain = domain_name(p->domain), .op_type = text(p->op_type), .name = text(p->name)};
    sdx_error_context(r->err, "%s", sdx_node_format(&n, line, sizeof line));
    return status;
}

static sdx_status read_nodes(reader *r, sdx_graph *g, size_t count, Onnx__NodeProto *const *node)
{
    for (size_t i = 0; i < count; i++) TRY(declare_outputs(r, g, node[i]));
    for (size_t i = 0; i < count; i++) TRY(read_node(r, g, node[i]));
    return SDX_OK;
}

/* ---- graphs and functions -------------------------------------------------------------------------------- */

static sdx_status read_graph(reader *r, sdx_graph *g, const Onnx__GraphProto *p)
{
    TRY(copy_text(r, p->name, &g->name));
    ARENA_NEW(r->arena, g->input, p->n_input, r->err);
    ARENA_NEW(r->arena, g->output, p->n_output, r->err);
    for (size_t i = 0; i < p->n_input; i++) TRY(read_input(r, g, p->input[i]));
    TRY(read_initializers(r, g, p));
    TRY(read_nodes(r, g, p->n_node, p->node));
    for (size_t i = 0; i < p->n_output; i++) TRY(read_output(r, g, p->output[i]));
    return sdx_graph_sort(g, r->err);
}

static sdx_status read_function_body(reader *r, sdx_graph *g, const Onnx__FunctionProto *p)
{
    ARENA_NEW(r->arena, g->input, p->n_input, r->err);
    ARENA_NEW(r->arena, g->output, p->n_output, r->err);
    for (size_t i = 0; i < p->n_input; i++) TRY(read_input(r, g, &(Onnx__ValueInfoProto){.name = p->input[i]}));
    TRY(read_nodes(r, g, p->n_node, p->node));
    for (size_t i = 0; i < p->n_output; i++)
        TRY(read_output(r, g, &(Onnx__ValueInfoProto){.name = p->output[i]}));
    return sdx_graph_sort(g, r->err);
}

/* A domain that stands twice counts with its higher version. */
static sdx_status read_opsets(reader *r, size_t count, Onnx__OperatorSetIdProto *const *from, sdx_opset **out,
                              int *n)
{
    sdx_opset *list;
    ARENA_NEW(r->arena, list, count, r->err);
    *n = 0;
    for (size_t i = 0; i < count && *n < MAX_OPSETS; i++) {
        const char *domain = domain_name(from[i]->domain);
        int at = 0;
        while (at < *n && strcmp(list[at].domain, domain)) at++;
        if (at == *n) {
            TRY(copy_text(r, domain, &list[at].domain));
            ++*n;
        }
        if (from[i]->version > list[at].version) list[at].version = from[i]->version;
    }
    *out = list;
    return SDX_OK;
}

static sdx_status read_function(reader *r, const Onnx__FunctionProto *p, sdx_function *f)
{
    if (*text(p->overload))
        return sdx_fail(r->err, SDX_ERR_UNSUPPORTED, "it is overloaded (\"%s\")", p->overload);
    TRY(copy_text(r, domain_name(p->domain), &f->domain));
    TRY(copy_text(r, p->name, &f->name));
    TRY(copy_texts(r, p->n_input, p->input, &f->input, &f->n_input));
    TRY(copy_texts(r, p->n_output, p->output, &f->output, &f->n_output));
    TRY(copy_texts(r, p->n_attribute, p->attribute, &f->attribute, &f->n_attribute));
    TRY(read_opsets(r, p->n_opset_import, p->opset_import, &f->opset, &f->n_opset));
    TRY(sdx_graph_create(r->model, NULL, &f->body, r->err));
    TRY(read_attributes(r, f->body, p->n_attribute_proto, p->attribute_proto, &f->preset, &f->n_preset));
    TRY(copy_text(r, p->name, &f->body->name));
    return read_function_body(r, f->body, p);
}

static sdx_status read_functions(reader *r, const Onnx__ModelProto *p)
{
    sdx_model *m = r->model;
    ARENA_NEW(r->arena, m->function, p->n_functions, r->err);
    r->in_function = true;
    for (size_t i = 0; i < p->n_functions; i++) {
        sdx_status status = read_function(r, p->functions[i], &m->function[i]);
        if (status != SDX_OK && r->err)
            sdx_error_context(r->err, "function \"%.100s\"", text(p->functions[i]->name));
        TRY(status);
        m->n_function++;
    }
    r->in_function = false;
    return SDX_OK;
}

/* ---- models ---------------------------------------------------------------------------------------------- */

static sdx_status read_header(reader *r, const Onnx__ModelProto *p)
{
    sdx_model *m = r->model;
    m->ir_version = p->ir_version;
    m->model_version = p->model_version;
    TRY(copy_text(r, p->producer_name, &m->producer_name));
    TRY(copy_text(r, p->producer_version, &m->producer_version));
    TRY(copy_text(r, p->domain, &m->domain));
    TRY(copy_text(r, p->doc_string, &m->doc));
    TRY(read_opsets(r, p->n_opset_import, p->opset_import, &m->opset, &m->n_opset));
    ARENA_NEW(r->arena, m->metadata, p->n_metadata_props, r->err);
    for (size_t i = 0; i < p->n_metadata_props; i++) {
        TRY(copy_text(r, p->metadata_props[i]->key, &m->metadata[i].key));
        TRY(copy_text(r, p->metadata_props[i]->value, &m->metadata[i].value));
        m->n_metadata++;
    }
    return SDX_OK;
}

/* A file from the future is read as far as it is understood: operators as of the newest version known. */
static sdx_status warn_of_newer(reader *r)
{
    sdx_model *m = r->model;
    long long opset = (long long)sdx_model_opset(m, "");
    if (m->ir_version <= IR_NEWEST && opset <= OPSET_NEWEST) return SDX_OK;
    m->warning = sdx_arena_printf(r->arena,
                                  "%s: it is of ONNX IR version %lld and opset %lld, newer than the %d and %d known here; "
                                  "operators are taken as of opset %d",
                                  m->path, (long long)m->ir_version, opset, IR_NEWEST, OPSET_NEWEST, OPSET_NEWEST);
    return m->warning ? SDX_OK : sdx_fail_memory(r->err, 256);
}

static sdx_status read_model(reader *r, const Onnx__ModelProto *p)
{
    if (!p->graph) return sdx_fail(r->err, SDX_ERR_FILE, "not a valid ONNX model: it holds no graph");
    if (p->ir_version < 3)
        return sdx_fail(r->err, SDX_ERR_UNSUPPORTED,
                        "it has ONNX IR version %lld; versions before 3 are not supported",
                        (long long)p->ir_version);
    if (!p->n_opset_import)
        return sdx_fail(r->err, SDX_ERR_FILE,
                        "the model does not say which version of ONNX's operators it uses");
    TRY(read_header(r, p));
    TRY(warn_of_newer(r));
    TRY(read_functions(r, p));
    return read_graph(r, r->model->graph, p->graph);
}

static sdx_status unpack_and_read(reader *r)
{
    sdx_arena memory;
    ProtobufCMessage *message;
    sdx_arena_init(&memory);
    sdx_status status =
        sdx_onnx_unpack(&onnx__model_proto__descriptor, &r->model->file, &memory, &message, r->err);
    if (status == SDX_OK) status = read_model(r, (const Onnx__ModelProto *)message);
    sdx_map_fini(&r->source.locations);
    sdx_arena_fini(&memory);
    return status;
}

sdx_status sdx_onnx_read_mapped(const char *path, sdx_file_map file, sdx_model **out, sdx_error *err)
{
    sdx_model *m;
    sdx_error own = {0}; /* so that there is a sentence to put the path in front of, and a status to return */
    sdx_status status = sdx_model_create(&m, &own);
    if (status != SDX_OK) {
        sdx_file_map_close(&file);
        if (err) *err = own;
        return status;
    }
    m->file = file;
    reader r = {.model = m, .arena = &m->arena, .source = {.file = file, .model = m}, .err = &own};
    status = copy_text(&r, path, &m->path);
    if (status == SDX_OK) status = unpack_and_read(&r);
    if (status == SDX_OK) {
        *out = m;
        return SDX_OK;
    }
    sdx_model_close(m);
    size_t n = strlen(path);
    if (strncmp(own.message, path, n)) sdx_error_context(&own, "%s", path);
    if (err) *err = own;
    return status;
}

sdx_status sdx_onnx_read(const char *path, sdx_model **out, sdx_error *err)
{
    sdx_file_map file;
    TRY(sdx_file_map_open(path, &file, err));
    return sdx_onnx_read_mapped(path, file, out, err);
}
