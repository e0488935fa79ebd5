/* fold_constants.c: computes once what every run would compute again.
 *
 *     Constant                          -> an initializer, without copying its data
 *     f(c1, c2, ...)                    -> the operator is run here, by the engine's callback
 *     Shape(x)[-1], x of size [B,S,64]  -> 64: inference knew the contents, though x is not constant
 *     Cast(integers) * 0                -> 0: the way exporters keep an input that a model ignores
 *     Equal(size, size)                 -> true or false: the same symbol, or two numbers
 *
 * One sweep in topological order suffices: what was just folded is a constant to the nodes after it. Results
 * that would make the file grow stay as they are: a constant is worth at most FREE_BYTES, or the bytes of an
 * input that nobody else reads. A run writes no file: there RUN_BYTES of memory are a fair price for the float16
 * scales of a vocabulary, which every run would widen again, and which a fused layer wants constant.
 * QuantizeLinear and DequantizeLinear of weights are how a quantized file is spelled: kept. */
#include <string.h>

#include "../../base/memory.h"
#include "passes.h"

enum { FREE_BYTES = 64 << 10, RUN_BYTES = 4 << 20, MOST_OUTPUTS = 16 };

static sdx_status become_constant(sdx_pass_context *context, sdx_graph *g, sdx_id node, sdx_id value,
                                  const sdx_tensor *tensor)
{
    g->node[node].dead = true;
    context->changes++;
    return sdx_graph_set_constant(g, value, tensor, context->err);
}

/* An initializer cannot be a graph output for every reader of files: such a node stays. */
static bool has_output(const sdx_graph *g, const sdx_node *n)
{
    for (int i = 0; i < n->n_out; i++)
        if (n->out[i] != SDX_NONE && g->value[n->out[i]].is_output) return true;
    return false;
}

/* ---- Constant ------------------------------------------------------------------------------------------- */

static sdx_status fold_constant_node(sdx_pass_context *context, sdx_graph *g, sdx_id id)
{
    const sdx_node *n = &g->node[id];
    if (n->n_attr != 1 || n->n_out != 1) return SDX_OK;
    const sdx_attr *a = &n->attr[0];
    sdx_tensor t = {0};
    switch (a->type) { /* attributes live in the model's arena or in the mapped file, as long as the constant */
    case SDX_ATTR_TENSOR: t = *a->tensor; break;
    case SDX_ATTR_INT: t = (sdx_tensor){.dtype = SDX_I64, .data = (void *)&a->i}; break;
    case SDX_ATTR_FLOAT: t = (sdx_tensor){.dtype = SDX_F32, .data = (void *)&a->f}; break;
    case SDX_ATTR_INTS:
        t = (sdx_tensor){.dtype = SDX_I64, .rank = 1, .dim = {(int64_t)a->count}, .data = (void *)a->ints};
        break;
    case SDX_ATTR_FLOATS:
        t = (sdx_tensor){.dtype = SDX_F32, .rank = 1, .dim = {(int64_t)a->count}, .data = (void *)a->floats};
        break;
    default: return SDX_OK;
    }
    return t.dtype == SDX_STRING ? SDX_OK : become_constant(context, g, id, n->out[0], &t);
}

/* ---- contents that inference knows ---------------------------------------------------------------------- */

static bool known_integers(const sdx_type *type, int64_t ints[SDX_MAX_ELEMENTS])
{
    int count = 0;
    return (type->dtype == SDX_I64 || type->dtype == SDX_I32) && sdx_shape_is_known(&type->shape) &&
           sdx_type_ints(type, SDX_MAX_ELEMENTS, ints, &count) && count == sdx_shape_count(&type->shape);
}

static sdx_status fold_contents(sdx_pass_context *context, sdx_graph *g, sdx_id node, sdx_id value,
                                const int64_t *ints)
{
    const sdx_type *type = &g->value[value].type;
    int64_t count = sdx_shape_count(&type->shape);
    size_t each = sdx_dtype_size(type->dtype);
    char *data = sdx_arena_array(&g->model->arena, (size_t)count, each);
    if (!data) return sdx_fail_memory(context->err, (size_t)count * each);
    for (int64_t i = 0; i < count; i++) {
        int32_t narrow = (int32_t)ints[i];
        memcpy(data + (size_t)i * each, each == 4 ? (const void *)&narrow : (const void *)&ints[i], each);
    }
    sdx_tensor t = sdx_tensor_make(type->dtype, &type->shape, data);
    return become_constant(context, g, node, value, &t);
}

/* ---- nodes of constants --------------------------------------------------------------------------------- */

static bool is_kept(const sdx_node *n)
{
    if (!n->def || n->def->flags & SDX_OP_NONDETERMINISTIC || n->n_out > MOST_OUTPUTS || n->n_in == 0)
        return true;
    for (int i = 0; i < n->n_attr; i++)
        if (n->attr[i].graph || n->attr[i].graphs) return true;
    return strcmp(n->op_type, "DequantizeLinear") == 0 || strcmp(n->op_type, "QuantizeLinear") == 0;
}

/* All inputs constant; *replaced: bytes of the largest one that only this node reads. */
static bool reads_constants(const sdx_graph *g, const sdx_node *n, size_t *replaced)
{
    *replaced = 0;
    for (int i = 0; i < n->n_in; i++) {
        const sdx_tensor *t = sdx_graph_constant(g, n->in[i]);
        if (n->in[i] != SDX_NONE && !t) return false;
        if (t && t->dtype == SDX_STRING) return false;
        if (t && g->value[n->in[i]].uses == 1 && sdx_tensor_bytes(t) > *replaced)
            *replaced = sdx_tensor_bytes(t);
    }
    return true;
}

static bool is_affordable(const sdx_pass_context *context, const sdx_graph *g, const sdx_node *n, size_t replaced)
{
    size_t total = 0, bytes;
    for (int i = 0; i < n->n_out; i++) {
        if (n->out[i] == SDX_NONE) continue;
        const sdx_type *type = sdx_match_type(g, n->out[i]);
        if (!sdx_tensor_size(type->dtype, &type->shape, &bytes) || !sdx_add_size(total, bytes, &total))
            return false;
    }
    return total <= (context->for_run ? RUN_BYTES : FREE_BYTES) || total <= replaced;
}

/* A node that fails here keeps its failure for the run, where it can be told with its inputs. */
static sdx_status fold_by_running(sdx_pass_context *context, sdx_graph *g, sdx_id id)
{
    sdx_tensor out[MOST_OUTPUTS] = {{0}};
    sdx_error ignored = {0};
    const sdx_node *n = &g->node[id];
    sdx_status status =
        context->eval(context->eval_context, context->model, n, &g->model->arena, out, &ignored);
    if (status == SDX_ERR_MEMORY) return sdx_fail(context->err, status, "%s", ignored.message);
    if (status != SDX_OK) return SDX_OK;
    for (int i = 0; i < n->n_out; i++)
        if (n->out[i] != SDX_NONE && out[i].dtype == SDX_UNDEFINED) return SDX_OK;
    for (int i = 0; i < n->n_out; i++)
        if (n->out[i] != SDX_NONE) TRY(become_constant(context, g, id, n->out[i], &out[i]));
    return SDX_OK;
}

/* ---- zero ----------------------------------------------------------------------------------------------- */

/* A cast integer is finite, so that times 0 it is 0. Of one element: constants stay small. */
static bool is_zero_product(const sdx_graph *g, const sdx_node *n)
{
    sdx_id x;
    double number;
    if (!sdx_match_is(n, "Mul") || !sdx_match_scalar_operand(g, n, &x, &number) || number != 0) return false;
    const sdx_node *cast = sdx_match_op(g, x, "Cast");
    const sdx_type *type = sdx_match_type(g, n->out[0]);
    return cast && sdx_dtype_is_integer(sdx_match_type(g, cast->in[0])->dtype) && type->dtype == SDX_F32 &&
           sdx_shape_count(&type->shape) == 1;
}

static sdx_status fold_zero(sdx_pass_context *context, sdx_graph *g, sdx_id node)
{
    static const float zero;
    sdx_id value = g->node[node].out[0];
    sdx_tensor t = sdx_tensor_make(SDX_F32, &g->value[value].type.shape, &zero);
    return become_constant(context, g, node, value, &t);
}

/* ---- sizes compared ------------------------------------------------------------------------------------- */

/* One size against another: the same symbol is equal in every run; two symbols may be. */
static bool is_decided(const sdx_graph *g, const sdx_node *n, bool *equal)
{
    sdx_element e[2];
    if (!sdx_match_is(n, "Equal") || sdx_match_type(g, n->out[0])->shape.rank != 0) return false;
    for (int i = 0; i < 2; i++) {
        int count = 0;
        const sdx_element *known = sdx_type_contents(sdx_match_type(g, n->in[i]), &count);
        if (!known || count != 1 || known->symbol == SDX_ELEMENT_UNKNOWN) return false;
        e[i] = sdx_model_resolve_element(g->model, *known);
    }
    *equal = e[0].symbol == e[1].symbol && (e[0].symbol != SDX_ELEMENT_NUMBER || e[0].number == e[1].number);
    return *equal || (e[0].symbol == SDX_ELEMENT_NUMBER && e[1].symbol == SDX_ELEMENT_NUMBER);
}

static sdx_status fold_equal(sdx_pass_context *context, sdx_graph *g, sdx_id node, bool equal)
{
    static const bool answer[2] = {false, true};
    sdx_tensor t = {.dtype = SDX_BOOL, .data = (void *)&answer[equal]};
    return become_constant(context, g, node, g->node[node].out[0], &t);
}

static sdx_status fold_node(sdx_pass_context *context, sdx_graph *g, sdx_id id)
{
    const sdx_node *n = &g->node[id];
    int64_t ints[SDX_MAX_ELEMENTS];
    size_t replaced;
    bool equal;
    if (n->dead || has_output(g, n) || sdx_node_out(n, 0) == SDX_NONE) return SDX_OK;
    if (sdx_node_is(n, "Constant")) return fold_constant_node(context, g, id);
    if (is_kept(n)) return SDX_OK;
    if (n->n_out == 1 && known_integers(sdx_match_type(g, n->out[0]), ints))
        return fold_contents(context, g, id, n->out[0], ints);
    if (is_zero_product(g, n)) return fold_zero(context, g, id);
    if (is_decided(g, n, &equal)) return fold_equal(context, g, id, equal);
    if (!context->eval || !reads_constants(g, n, &replaced) || !is_affordable(context, g, n, replaced)) return SDX_OK;
    return fold_by_running(context, g, id);
}

sdx_status sdx_pass_fold_constants(sdx_pass_context *context, sdx_graph *graph)
{
    for (sdx_id i = 0; i < graph->n_node; i++) TRY(fold_node(context, graph, i));
    return sdx_pass_finish(context, graph);
}
