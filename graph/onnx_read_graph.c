/* onnx_read_graph.c: ONNX's graphs and nodes into the IR. Names become ids here: a graph first declares its inputs,
 * initializers and all node outputs, then its nodes look up what they read, so that nodes may stand in any
 * order; what is not found is looked for in the graphs outside and becomes a value that stands for the outer
 * one. */
#include "onnx_reader.h"

enum { IR_DEFAULTS = 4 }; /* from this version of the IR on, initializers need not be inputs */

/* ---- values ---------------------------------------------------------------------------------------------- */

static sdx_status declare(sdx_onnx_reader *r, sdx_graph *g, const char *name, const char *what, sdx_id *out)
{
    if (!*sdx_onnx_text(name)) return sdx_fail(r->err, SDX_ERR_FILE, "%s has no name", what);
    if (sdx_graph_find_value(g, name) != SDX_NONE)
        return sdx_fail(r->err, SDX_ERR_FILE, "\"%s\" is defined twice, the second time as %s", name, what);
    return sdx_graph_add_value(g, name, out, r->err);
}

/* What a graph input or output is said to be. The types of sequences and optionals are for the run to see: what
 * the value itself has is the type of a plain tensor, or none. */
static sdx_status read_declaration(sdx_onnx_reader *r, sdx_value *v, const Onnx__ValueInfoProto *info, sdx_type *type)
{
    TRY(sdx_onnx_read_type(r, info->type, &v->declared));
    const sdx_declared *d = v->declared;
    *type = (sdx_type){.shape = SDX_SHAPE_UNKNOWN};
    if (!d->optional && !d->sequence) *type = (sdx_type){.dtype = d->dtype, .shape = d->shape};
    return SDX_OK;
}

static sdx_status read_input(sdx_onnx_reader *r, sdx_graph *g, const Onnx__ValueInfoProto *info)
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
static sdx_status add_initializer(sdx_onnx_reader *r, sdx_graph *g, const char *name, const sdx_tensor *t)
{
    sdx_id id = sdx_graph_find_value(g, sdx_onnx_text(name));
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

static sdx_status read_initializers(sdx_onnx_reader *r, sdx_graph *g, const Onnx__GraphProto *p)
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
static sdx_status look_up(sdx_onnx_reader *r, sdx_graph *g, const char *name, sdx_id *out)
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

static sdx_status read_output(sdx_onnx_reader *r, sdx_graph *g, const Onnx__ValueInfoProto *info)
{
    sdx_id id;
    sdx_type type = {0};
    TRY(look_up(r, g, sdx_onnx_text(info->name), &id));
    if (id == SDX_NONE)
        return sdx_fail(r->err, SDX_ERR_FILE, "graph output \"%s\" is computed by no node", sdx_onnx_text(info->name));
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

/* ---- nodes ----------------------------------------------------------------------------------------------- */

/* Two Constant nodes may give one value: old exporters wrote such files, and ONNX Runtime takes the last. */
static bool is_given_again(const sdx_graph *g, const Onnx__NodeProto *p, sdx_id v)
{
    if (strcmp(sdx_onnx_text(p->op_type), "Constant") || *sdx_onnx_domain(p->domain) || v == SDX_NONE) return false;
    return !g->value[v].is_input && !g->value[v].type.constant;
}

static sdx_status declare_outputs(sdx_onnx_reader *r, sdx_graph *g, const Onnx__NodeProto *p)
{
    sdx_id id;
    for (size_t i = 0; i < p->n_output; i++) {
        if (!*sdx_onnx_text(p->output[i]) || is_given_again(g, p, sdx_graph_find_value(g, p->output[i]))) continue;
        TRY(declare(r, g, p->output[i], "a node's output", &id));
    }
    return SDX_OK;
}

/* The values of a node's outputs; a Constant takes its own from the one before it. */
static sdx_status node_outputs(sdx_onnx_reader *r, sdx_graph *g, const Onnx__NodeProto *p, sdx_id *out)
{
    for (size_t i = 0; i < p->n_output; i++) {
        out[i] = *sdx_onnx_text(p->output[i]) ? sdx_graph_find_value(g, p->output[i]) : SDX_NONE;
        sdx_id before = out[i] == SDX_NONE ? SDX_NONE : g->value[out[i]].producer;
        if (before == SDX_NONE) continue;
        if (!sdx_node_is(&g->node[before], "Constant"))
            return sdx_fail(r->err, SDX_ERR_FILE, "\"%s\" is defined twice", p->output[i]);
        g->node[before].dead = true;
        g->value[out[i]].producer = SDX_NONE;
    }
    return SDX_OK;
}

static sdx_status node_inputs(sdx_onnx_reader *r, sdx_graph *g, const Onnx__NodeProto *p, sdx_id **out)
{
    sdx_id *in;
    ARENA_NEW(r->arena, in, p->n_input, r->err);
    for (size_t i = 0; i < p->n_input; i++) {
        const char *name = sdx_onnx_text(p->input[i]);
        TRY(look_up(r, g, name, &in[i]));
        if (*name && in[i] == SDX_NONE)
            return sdx_fail(r->err, SDX_ERR_FILE,
                            "input \"%s\" is neither a graph input, an initializer nor a node's output", name);
    }
    *out = in;
    return SDX_OK;
}

static sdx_status check_node(sdx_onnx_reader *r, const Onnx__NodeProto *p, const char *domain)
{
    if (!*sdx_onnx_text(p->op_type)) return sdx_fail(r->err, SDX_ERR_FILE, "it names no operator");
    if (*sdx_onnx_text(p->overload))
        return sdx_fail(r->err, SDX_ERR_UNSUPPORTED, "it calls an overloaded function (\"%s\")", p->overload);
    if (!*domain && !r->in_function && !sdx_model_opset(r->model, ""))
        return sdx_fail(r->err, SDX_ERR_FILE,
                        "the model does not say which version of ONNX's operators it uses");
    return SDX_OK;
}

static sdx_status read_node_body(sdx_onnx_reader *r, sdx_graph *g, const Onnx__NodeProto *p)
{
    const char *domain = sdx_onnx_domain(p->domain);
    sdx_id *in = NULL, *out, id;
    sdx_attr *attr;
    int n_attr;
    TRY(check_node(r, p, domain));
    TRY(node_inputs(r, g, p, &in));
    ARENA_NEW(r->arena, out, p->n_output, r->err);
    TRY(node_outputs(r, g, p, out));
    TRY(sdx_onnx_read_attributes(r, g, p->n_attribute, p->attribute, &attr, &n_attr));
    TRY(sdx_graph_add_node(g, domain, p->op_type, sdx_onnx_text(p->name), (int)p->n_input, in, (int)p->n_output, out,
                           &id, r->err));
    g->node[id].attr = attr;
    g->node[id].n_attr = n_attr;
    return SDX_OK;
}

static sdx_status read_node(sdx_onnx_reader *r, sdx_graph *g, const Onnx__NodeProto *p)
{
    sdx_status status = read_node_body(r, g, p);
    if (status == SDX_OK || !r->err) return status;
    char line[SDX_NODE_TEXT];
    sdx_node n = {.domain = sdx_onnx_domain(p->domain),
                  .op_type = sdx_onnx_text(p->op_type),
                  .name = sdx_onnx_text(p->name)};
    sdx_error_context(r->err, "%s", sdx_node_format(&n, line, sizeof line));
    return status;
}

static sdx_status read_nodes(sdx_onnx_reader *r, sdx_graph *g, size_t count, Onnx__NodeProto *const *node)
{
    for (size_t i = 0; i < count; i++) TRY(declare_outputs(r, g, node[i]));
    for (size_t i = 0; i < count; i++) TRY(read_node(r, g, node[i]));
    return SDX_OK;
}

/* ---- graphs --------------------------------------------------------------------------------------------- */

sdx_status sdx_onnx_read_graph(sdx_onnx_reader *r, sdx_graph *g, const Onnx__GraphProto *p)
{
    TRY(sdx_onnx_copy_text(r, p->name, &g->name));
    ARENA_NEW(r->arena, g->input, p->n_input, r->err);
    ARENA_NEW(r->arena, g->output, p->n_output, r->err);
    for (size_t i = 0; i < p->n_input; i++) TRY(read_input(r, g, p->input[i]));
    TRY(read_initializers(r, g, p));
    TRY(read_nodes(r, g, p->n_node, p->node));
    for (size_t i = 0; i < p->n_output; i++) TRY(read_output(r, g, p->output[i]));
    return sdx_graph_sort(g, r->err);
}

sdx_status sdx_onnx_read_function_body(sdx_onnx_reader *r, sdx_graph *g, const Onnx__FunctionProto *p)
{
    ARENA_NEW(r->arena, g->input, p->n_input, r->err);
    ARENA_NEW(r->arena, g->output, p->n_output, r->err);
    for (size_t i = 0; i < p->n_input; i++) TRY(read_input(r, g, &(Onnx__ValueInfoProto){.name = p->input[i]}));
    TRY(read_nodes(r, g, p->n_node, p->node));
    for (size_t i = 0; i < p->n_output; i++)
        TRY(read_output(r, g, &(Onnx__ValueInfoProto){.name = p->output[i]}));
    return sdx_graph_sort(g, r->err);
}
