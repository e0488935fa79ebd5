/* shape_infer.c: finding each node's operator, and types and shapes along the graph; see op.h. The rules are
 * the operators' own (infer); this is the driver that walks, merges and says where it went wrong. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/buffer.h"
#include "../base/memory.h"
#include "op.h"

const sdx_op_def *sdx_op_find(const sdx_op_registry *registry, const char *domain, const char *name,
                              int64_t version)
{
    if (version <= 0) version = 1;
    for (size_t t = 0; t < registry->count; t++) {
        const sdx_op_table *table = registry->table[t];
        for (size_t i = 0; i < table->count; i++) {
            const sdx_op_def *d = &table->row[i];
            if (d->since <= version && (!d->until || version <= d->until) && !strcmp(d->name, name) &&
                !strcmp(d->domain, domain))
                return d;
        }
    }
    return NULL;
}

/* Distinct unsupported operators, for one message. */
typedef struct missing {
    sdx_map seen; /* "domain::Op" -> times */
    sdx_arena arena;
} missing;

static sdx_status note_missing(missing *m, const sdx_node *n, int64_t version, sdx_error *err)
{
    const char *dot = *n->domain ? "::" : "";
    char *key =
        sdx_arena_printf(&m->arena, "%.80s%s%.80s-%lld", n->domain, dot, n->op_type, (long long)version);
    if (!key) return sdx_fail_memory(err, 160);
    int64_t times = sdx_map_get(&m->seen, key, strlen(key), 0);
    return sdx_map_put(&m->seen, key, strlen(key), times + 1) ? SDX_OK : sdx_fail_memory(err, 160);
}

static sdx_status check_counts(const sdx_model *model, const sdx_node *n, sdx_error *err)
{
    const sdx_op_def *d = n->def;
    bool in_ok = n->n_in >= d->min_in && (d->max_in < 0 || n->n_in <= d->max_in);
    bool out_ok = n->n_out >= d->min_out && (d->max_out < 0 || n->n_out <= d->max_out);
    for (int i = 0; i < d->min_in && in_ok; i++) in_ok = n->in[i] != SDX_NONE;
    if (in_ok && out_ok) return SDX_OK;
    char text[SDX_NODE_TEXT];
    return sdx_fail(err, SDX_ERR_FILE, "%s: %s has %d %s, the operator takes %d to %d", model->path,
                    sdx_node_format(n, text, sizeof text), in_ok ? n->n_out : n->n_in,
                    in_ok ? "outputs" : "inputs, or lacks a required one", in_ok ? d->min_out : d->min_in,
                    in_ok ? d->max_out : d->max_in);
}

/* The graph and those that its nodes carry. Bodies of functions wait until they are inlined. */
static sdx_status resolve_graph(sdx_model *model, sdx_graph *g, const sdx_op_registry *registry, missing *m,
                                sdx_error *err)
{
    for (sdx_id i = 0; i < g->n_node; i++) {
        sdx_node *n = &g->node[i];
        sdx_graph *sub;
        if (n->dead) continue;
        int64_t version = n->version ? n->version : sdx_model_opset(model, n->domain);
        n->def = sdx_op_find(registry, n->domain, n->op_type, version);
        if (n->def)
            TRY(check_counts(model, n, err));
        else
            TRY(note_missing(m, n, version, err));
        for (int k = 0; (sub = sdx_node_graph(n, k)); k++) TRY(resolve_graph(model, sub, registry, m, err));
    }
    return SDX_OK;
}

static sdx_status fail_missing(const sdx_model *model, const missing *m, sdx_error *err)
{
    sdx_buffer text = {0};
    for (size_t i = 0, listed = 0; i < m->seen.capacity; i++) {
        const sdx_map_slot *s = &m->seen.slot[i];
        if (!s->key) continue;
        sdx_buffer_printf(&text, "%s%s (%lld node%s)", listed++ ? ", " : "", s->key, (long long)s->value,
                          s->value == 1 ? "" : "s");
    }
    sdx_status status =
        sdx_fail(err, SDX_ERR_UNSUPPORTED, "%s: %zu operator%s not supported here: %s", model->path,
                 m->seen.count, m->seen.count == 1 ? " is" : "s are", text.data ? text.data : "");
    sdx_buffer_fini(&text);
    return status;
}

sdx_status sdx_model_resolve(sdx_model *model, const sdx_op_registry *registry, sdx_error *err)
{
    missing m = {0};
    sdx_status status = SDX_OK;
    TRY_GOTO(resolve_graph(model, model->graph, registry, &m, err));
    if (m.seen.count) status = fail_missing(model, &m, err);
done:
    sdx_map_fini(&m.seen);
    sdx_arena_fini(&m.arena);
    return status;
}

/* ---- contents
 * ------------------------------------------------------------------------------------------------ */

const sdx_element *sdx_type_contents(const sdx_type *type, int *count)
{
    *count = type->n_contents;
    return type->contents;
}

bool sdx_type_ints(const sdx_type *type, int capacity, int64_t *ints, int *count)
{
    if (!type->contents || type->n_contents > capacity) return false;
    for (int i = 0; i < type->n_contents; i++) {
        if (type->contents[i].symbol != SDX_ELEMENT_NUMBER) return false;
        ints[i] = type->contents[i].number;
    }
    *count = type->n_contents;
    return true;
}

/* ---- the driver
 * ---------------------------------------------------------------------------------------------- */

void sdx_node_error(const sdx_model *model, const sdx_node *n, const sdx_type *in, int n_in, sdx_error *err)
{
    if (!err) return;
    char shapes[400] = "";
    size_t at = 0;
    for (int i = 0; i < n_in && at + 1 < sizeof shapes; i++) {
        char text[SDX_TENSOR_TEXT] = "-";
        if (in[i].dtype != SDX_UNDEFINED) sdx_tensor_format(in[i].dtype, &in[i].shape, text, sizeof text);
        at += (size_t)snprintf(shapes + at, sizeof shapes - at, "%s%s", i ? ", " : "", text);
    }
    char sentence[SDX_ERROR_MAX];
    memcpy(sentence, err->message, sizeof sentence);
    sdx_fail(err, err->status, "%.300s: node \"%.120s\" (%s%s%s-%d): %.400s; inputs are %s", model->path,
             n->name, n->domain, *n->domain ? "::" : "", n->op_type, n->def ? n->def->since : 0, sentence,
             n_in ? shapes : "none");
}

/* The one half-precision type among the inputs, SDX_UNDEFINED without any. */
static sdx_status find_half(const sdx_infer *x, sdx_dtype *half)
{
    *half = SDX_UNDEFINED;
    bool has_float = false;
    for (int i = 0; i < x->n_in; i++) {
        sdx_dtype t = x->in[i].dtype;
        has_float |= t == SDX_F32;
        if (!sdx_dtype_is_half(t)) continue;
        if (*half == SDX_UNDEFINED) *half = t;
        if (t != *half) return sdx_fail(x->err, SDX_ERR_USAGE, "its inputs mix float16 and bfloat16");
    }
    if (*half == SDX_UNDEFINED || !has_float) return SDX_OK;
    return sdx_fail(x->err, SDX_ERR_USAGE, "its inputs mix float32 and %s", sdx_dtype_name(*half));
}

sdx_status sdx_op_infer(sdx_infer *x)
{
    const sdx_op_def *def = x->node->def;
    if (!(def->flags & SDX_OP_WIDE)) return def->infer(x);
    sdx_dtype half;
    TRY(find_half(x, &half));
    if (half == SDX_UNDEFINED) return def->infer(x);
    const sdx_type *given = x->in;
    sdx_type *in;
    ARENA_NEW(x->arena, in, (size_t)x->n_in, x->err);
    for (int i = 0; i < x->n_in; i++) {
        in[i] = given[i];
        if (!sdx_dtype_is_half(in[i].dtype)) continue;
        in[i].dtype = SDX_F32;
        in[i].constant = NULL;
    }
    x->in = in;
    sdx_status status = def->infer(x);
    x->in = given;
    for (int i = 0; i < x->n_out; i++)
        if (x->out[i].dtype == SDX_F32) x->out[i].dtype = half;
    return status;
}

enum { FEW = 16 }; /* most nodes have fewer inputs and outputs; Concat may have thousands */

typedef sdx_status (*body_fn)(sdx_infer *infer, sdx_graph *graph, const sdx_type *in, sdx_type *out);

static sdx_status infer_node(sdx_model *model, const sdx_node *n, body_fn body, sdx_type *types,
                             sdx_arena *arena, sdx_error *err)
{
    sdx_type few_in[FEW], few_out[FEW], *in = few_in, *out = few_out;
    if (n->n_in > FEW) ARENA_NEW(arena, in, (size_t)n->n_in, err);
    if (n->n_out > FEW) ARENA_NEW(arena, out, (size_t)n->n_out, err);
    static const sdx_type absent = {.shape = {.rank = -1}};
    for (int i = 0; i < n->n_in; i++) in[i] = n->in[i] == SDX_NONE ? absent : types[n->in[i]];
    for (int i = 0; i < n->n_out; i++) out[i] = absent;
    sdx_infer infer = {.model = model,
                       .node = n,
                       .n_in = n->n_in,
                       .n_out = n->n_out,
                       .in = in,
                       .out = out,
                       .arena = arena,
                       .err = err,
                       .body = body,
                       .outer = types};
    sdx_status status = sdx_op_infer(&infer);
    if (status != SDX_OK) {
        sdx_node_error(model, n, in, n->n_in, err);
        return status;
    }
    for (int i = 0; i < n->n_out; i++)
        if (n->out[i] != SDX_NONE) types[n->out[i]] = out[i];
    return SDX_OK;
}

sdx_status sdx_infer_node(sdx_model *model, const sdx_node *n, sdx_type *types, sdx_arena *arena,
                          sdx_error *err)
{
    return infer_node(model, n, NULL, types, arena, err);
}

sdx_status sdx_infer_graph(sdx_model *model, const sdx_graph *g, sdx_type *types, sdx_arena *arena,
                           sdx_error *err)
{
    for (sdx_id i = 0; i < g->n_node; i++) {
        const sdx_node *n = &g->node[i];
        if (!n->dead && n->def) TRY(infer_node(model, n, NULL, types, arena, err));
    }
    return SDX_OK;
}

/* ---- sizes get names
 * ----------------------------------------------------------------------------------------- */

/* A size that no rule tells is still one size in any run: it gets a name of its own, after the value, so that
 * what is computed from it can be compared. */
static sdx_status name_dims(sdx_model *model, const sdx_graph *g, sdx_id v, sdx_type *type, sdx_error *err)
{
    for (int i = 0; i < type->shape.rank; i++) {
        char name[200];
        if (sdx_dim_is_symbol(type->shape.dim[i]))
            model->symbol[SDX_DIM_SYMBOL_ID(type->shape.dim[i])].is_size = true;
        if (type->shape.dim[i] != SDX_DIM_UNKNOWN) continue;
        snprintf(name, sizeof name, "?%.160s.%d.%d", g->value[v].name, (int)v, i);
        int symbol = sdx_model_symbol(model, name);
        if (symbol == SDX_NONE) return sdx_fail_memory(err, sizeof name);
        type->shape.dim[i] = SDX_DIM_SYMBOL(symbol);
    }
    return SDX_OK;
}

/* ---- sizes that turn out to be equal
 * ------------------------------------------------------------------------- */

static sdx_element size_of(sdx_model *model, const sdx_shape *s, int but)
{
    sdx_element size = sdx_element_number(1);
    for (int i = 0; i < s->rank; i++)
        if (i != but) size = sdx_model_arith(model, '*', size, sdx_element_from_dim(s->dim[i]));
    return size;
}

/* Reshape keeps the number of elements: x[b*s,64] to [b, min(256, s), 64] works only where min(256, s) is s. */
static bool learn_from_reshape(sdx_model *model, const sdx_node *n, const sdx_type *types)
{
    const sdx_shape *from = &types[n->in[0]].shape, *to = &types[n->out[0]].shape;
    for (int i = 0; from->rank >= 0 && i < to->rank; i++) {
        sdx_element e = sdx_element_from_dim(to->dim[i]);
        if (e.symbol < 0 || model->symbol[e.symbol].op != '<') continue;
        sdx_element left = sdx_model_arith(model, '/', size_of(model, from, -1), size_of(model, to, i));
        if (left.symbol < 0 || left.symbol == e.symbol || model->symbol[left.symbol].op == '/') continue;
        sdx_model_equate(model, e.symbol, left.symbol);
        return true;
    }
    return false;
}

static bool is_input_size(const sdx_model *model, const sdx_graph *g, sdx_dim d)
{
    if (!sdx_dim_is_symbol(d) || model->symbol[SDX_DIM_SYMBOL_ID(d)].op) return false;
    for (int i = 0; i < g->n_input; i++) {
        const sdx_shape *s = &g->value[g->input[i]].type.shape;
        for (int k = 0; k < s->rank; k++) {
            sdx_element e = sdx_model_resolve_element(model, sdx_element_from_dim(s->dim[k]));
            if (sdx_dim_same(sdx_element_to_dim(e), d)) return true;
        }
    }
    return false;
}

/* Another input's size and one more size, as "past" tokens and the fresh ones are; d is neither. */
static bool is_sum_of_input_sizes(const sdx_model *model, const sdx_graph *g, sdx_dim sum, sdx_dim d)
{
    const sdx_symbol *s = sdx_dim_is_symbol(sum) ? &model->symbol[SDX_DIM_SYMBOL_ID(sum)] : NULL;
    if (!s || s->op != '+') return false;
    sdx_dim left = sdx_element_to_dim(s->left), right = sdx_element_to_dim(s->right);
    return is_input_size(model, g, left) && (is_input_size(model, g, right) || sdx_dim_is_known(right)) &&
           !sdx_dim_same(left, d) && !sdx_dim_same(right, d);
}

/* x is y, from now on and until a run proves it wrong. */
static sdx_status assume(sdx_model *model, sdx_dim x, sdx_dim y, sdx_error *err)
{
    const sdx_symbol *s = &model->symbol[SDX_DIM_SYMBOL_ID(y)];
    sdx_assumption one = {sdx_element_from_dim(x), sdx_element_from_dim(y), sdx_element_number(0)};
    if (s->op == '+') one = (sdx_assumption){one.size, s->left, s->right};
    sdx_assumption *grown;
    ARENA_NEW(&model->arena, grown, (size_t)model->n_assumed + 1, err);
    if (model->n_assumed) memcpy(grown, model->assumed, (size_t)model->n_assumed * sizeof *grown);
    grown[model->n_assumed++] = one;
    model->assumed = grown;
    sdx_model_equate(model, SDX_DIM_SYMBOL_ID(x), SDX_DIM_SYMBOL_ID(y));
    return SDX_OK;
}

/* Where the sizes of two graph inputs meet element by element ("batch" and "mask_batch", or two without names), or one
 * ("total") and the sum of two others, one of them could be 1; but no exporter means that, and ONNX Runtime's fusions
 * take them as equal too. The engine keeps a way out for a run that means it: engine/apart.c. */
static sdx_status learn_from_broadcast(sdx_model *model, const sdx_graph *g, const sdx_node *n, const sdx_type *types,
                                       bool *learned, sdx_error *err)
{
    static const char *const elementwise[] = {
        "Add",   "Sub",   "Mul",     "Div",  "And",   "Or",
        "Where", "Equal", "Greater", "Less", "MatMul"}; /* its leading dims */
    bool meets = false;
    if (model->assume_nothing || g != model->graph) return SDX_OK; /* a body's inputs are not for the caller to give */
    for (size_t i = 0; i < sizeof elementwise / sizeof *elementwise; i++)
        meets |= sdx_node_is(n, elementwise[i]);
    for (int k = 1; meets && k < n->n_in; k++) {
        const sdx_shape *a = &types[n->in[k - 1]].shape, *b = &types[n->in[k]].shape;
        for (int i = sdx_node_is(n, "MatMul") ? 3 : 1; i <= a->rank && i <= b->rank; i++) {
            sdx_dim x = a->dim[a->rank - i], y = b->dim[b->rank - i];
            if (is_sum_of_input_sizes(model, g, x, y)) {
                sdx_dim sum = x;
                x = y;
                y = sum;
            }
            bool right = is_input_size(model, g, y) || is_sum_of_input_sizes(model, g, y, x);
            if (sdx_dim_same(x, y) || !right || !is_input_size(model, g, x)) continue;
            *learned = true;
            return assume(model, x, y, err);
        }
    }
    return SDX_OK;
}

static void resolve_dims(const sdx_model *model, sdx_shape *s)
{
    for (int i = 0; i < s->rank; i++)
        if (sdx_dim_is_symbol(s->dim[i]))
            s->dim[i] = sdx_element_to_dim(sdx_model_resolve_element(model, sdx_element_from_dim(s->dim[i])));
}

/* ---- a model and its subgraphs
 * ------------------------------------------------------------------------------- */

static sdx_status infer_body(sdx_infer *infer, sdx_graph *g, const sdx_type *in, sdx_type *out);

static sdx_status infer_round(sdx_model *model, const sdx_graph *g, sdx_type *types, bool *learned,
                              sdx_error *err)
{
    *learned = false;
    for (int i = 0; i < g->n_input; i++) {
        resolve_dims(model, &types[g->input[i]].shape);
        TRY(name_dims(model, g, g->input[i], &types[g->input[i]], err));
    }
    for (sdx_id i = 0; i < g->n_node; i++) {
        const sdx_node *n = &g->node[i];
        if (n->dead || !n->def) continue;
        TRY(infer_node(model, n, infer_body, types, &model->arena, err));
        for (int k = 0; k < n->n_out; k++)
            if (n->out[k] != SDX_NONE) TRY(name_dims(model, g, n->out[k], &types[n->out[k]], err));
        *learned |= sdx_node_is(n, "Reshape") && learn_from_reshape(model, n, types);
        TRY(learn_from_broadcast(model, g, n, types, learned, err));
    }
    return SDX_OK;
}

/* Types of a whole graph into its own values, which hold what is fixed: inputs and constants. */
static sdx_status infer_own(sdx_model *model, sdx_graph *g, sdx_error *err)
{
    enum { ROUNDS = 16 };
    size_t n = (size_t)g->n_value;
    sdx_type *types = sdx_malloc(n * sizeof *types);
    if (!types) return sdx_fail_memory(err, n * sizeof *types);
    for (size_t v = 0; v < n; v++) types[v] = g->value[v].type;
    bool learned = true;
    sdx_status status = SDX_OK;
    for (int i = 0; i < ROUNDS && learned && status == SDX_OK; i++)
        status = infer_round(model, g, types, &learned, err);
    for (size_t v = 0; v < n && status == SDX_OK; v++) g->value[v].type = types[v];
    free(types);
    return status;
}

static void forget_types(sdx_graph *g)
{
    for (sdx_id i = 0; i < g->n_node; i++) {
        const sdx_node *n = &g->node[i];
        sdx_graph *sub;
        for (int o = 0; o < n->n_out; o++)
            if (n->out[o] != SDX_NONE) g->value[n->out[o]].type = (sdx_type){.shape = SDX_SHAPE_UNKNOWN};
        for (int k = 0; (sub = sdx_node_graph(n, k)); k++) forget_types(sub);
    }
}

static sdx_status infer_body(sdx_infer *infer, sdx_graph *g, const sdx_type *in, sdx_type *out)
{
    for (sdx_id v = 0; v < g->n_value; v++)
        if (g->value[v].outer != SDX_NONE) g->value[v].type = infer->outer[g->value[v].outer];
    for (int i = 0; i < g->n_input; i++) g->value[g->input[i]].type = in[i];
    sdx_error failure = {0};
    sdx_status status = infer_own(infer->model, g, &failure);
    if (status == SDX_ERR_MEMORY) return sdx_fail(infer->err, status, "%s", failure.message);
    if (status != SDX_OK) forget_types(g);
    for (int i = 0; i < g->n_output; i++)
        out[i] = status == SDX_OK ? g->value[g->output[i]].type : (sdx_type){.shape = SDX_SHAPE_UNKNOWN};
    return SDX_OK;
}

sdx_status sdx_model_infer(sdx_model *model, sdx_error *err)
{
    TRY(infer_own(model, model->graph, err));
    for (int i = 0; i < model->n_assumed; i++) {
        sdx_assumption *a = &model->assumed[i];
        a->size = sdx_model_resolve_element(model, a->size);
        a->left = sdx_model_resolve_element(model, a->left);
        a->right = sdx_model_resolve_element(model, a->right);
    }
    return SDX_OK;
}
