/* widen_f16.c: float16 between operators becomes float32, inside the engine only. CPUs here compute in float32 anyway,
 * so a chain of float16 nodes pays a rounding and a conversion at every step for nothing; ONNX Runtime's CPU provider
 * drops them too.
 *
 *     x16 -- A -- y16 -- B -- z16   ->   x16 -- Cast -- A -- y32 -- B -- z32 -- Cast -- z16
 *
 * A Cast back to float16 stays only where something else reads the value: an output, or an operator not in the list.
 * Look-ups are not in the list: a table of float16 stays half as large. Operators that compute in float32 only
 * (SDX_OP_WIDE) are always widened. */
#include "passes.h"

static const char *const widened_ops[] = {
    "Abs",       "Add",       "Ceil",       "Clip",    "Concat",    "Cos",       "Div",       "Erf",
    "Exp",       "Expand",    "Flatten",    "Floor",   "Gelu",      "Gemm",      "Identity",  "LayerNormalization",
    "Log",       "LogSoftmax", "MatMul",    "Max",     "Min",       "Mul",       "Neg",       "Pow",
    "Reciprocal", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Relu",   "Reshape",   "Sigmoid",
    "Sin",       "Slice",     "Softmax",    "Split",   "Sqrt",      "Squeeze",   "Sub",       "Tanh",
    "Transpose", "Unsqueeze", "Where",
    /* com.microsoft */
    "BiasGelu",  "FastGelu",  "FusedMatMul", "QuickGelu", "SimplifiedLayerNormalization", "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization",
};

static bool is_widened(const sdx_node *n)
{
    if (n->dead || !n->def) return false;
    if (n->def->flags & SDX_OP_WIDE) return true;
    if (*n->domain && strcmp(n->domain, "com.microsoft")) return false;
    for (size_t i = 0; i < sizeof widened_ops / sizeof *widened_ops; i++)
        if (!strcmp(n->op_type, widened_ops[i])) return true;
    return false;
}

static bool is_f16(const sdx_graph *g, sdx_id v) { return v != SDX_NONE && g->value[v].type.dtype == SDX_F16; }

/* A new value like v, in float32. */
static sdx_status add_wide_value(sdx_pass_context *c, sdx_graph *g, sdx_id v, sdx_id *out)
{
    const char *name = sdx_arena_printf(&c->model->arena, "%s_f32", g->value[v].name);
    if (!name) return sdx_fail_memory(c->err, 64);
    TRY(sdx_graph_add_value(g, name, out, c->err));
    g->value[*out].type.dtype = SDX_F32;
    g->value[*out].type.shape = g->value[v].type.shape;
    return SDX_OK;
}

static sdx_status add_cast(sdx_pass_context *c, sdx_graph *g, sdx_id from, sdx_id to, sdx_dtype dtype)
{
    sdx_id node;
    TRY(sdx_graph_add_node(g, "", "Cast", g->value[to].name, 1, &from, 1, &to, &node, c->err));
    c->changes++;
    return sdx_node_set_int(g, node, "to", dtype, c->err);
}

static sdx_status widen_constant(sdx_pass_context *c, sdx_graph *g, sdx_id v, sdx_id wide)
{
    const sdx_tensor *t = g->value[v].type.constant;
    int64_t n = sdx_tensor_count(t);
    float *data;
    ARENA_NEW(&c->model->arena, data, (size_t)n, c->err);
    for (int64_t i = 0; i < n; i++) {
        uint16_t half; /* the bytes may be unaligned */
        memcpy(&half, (const char *)t->data + (size_t)i * sizeof half, sizeof half);
        data[i] = sdx_f16_to_f32(half);
    }
    sdx_tensor tensor = *t;
    tensor.dtype = SDX_F32;
    tensor.data = data;
    c->changes++;
    return sdx_graph_set_constant(g, wide, &tensor, c->err);
}

/* wide[v]: the float32 twin of v, or SDX_NONE; [n_wide], values that the pass adds need none. */
typedef struct twins {
    sdx_id *wide;
    sdx_id n_wide;
} twins;

static sdx_status widen_input(sdx_pass_context *c, sdx_graph *g, twins *t, sdx_id *in)
{
    sdx_id v = *in;
    if (t->wide[v] == SDX_NONE) {
        TRY(add_wide_value(c, g, v, &t->wide[v]));
        if (g->value[v].type.constant) TRY(widen_constant(c, g, v, t->wide[v]));
        else TRY(add_cast(c, g, v, t->wide[v], SDX_F32));
    }
    *in = t->wide[v];
    return SDX_OK;
}

static sdx_status widen_node(sdx_pass_context *c, sdx_graph *g, twins *t, sdx_id node)
{
    for (int i = 0; i < g->node[node].n_in; i++)
        if (is_f16(g, g->node[node].in[i])) TRY(widen_input(c, g, t, &g->node[node].in[i]));
    for (int i = 0; i < g->node[node].n_out; i++) {
        sdx_id v = g->node[node].out[i];
        if (!is_f16(g, v)) continue;
        TRY(add_wide_value(c, g, v, &t->wide[v]));
        g->node[node].out[i] = t->wide[v];
        TRY(add_cast(c, g, t->wide[v], v, SDX_F16));
    }
    return SDX_OK;
}

sdx_status sdx_pass_widen_f16(sdx_pass_context *c, sdx_graph *g)
{
    if (!c->for_run) return SDX_OK;
    if (!sdx_op_find(c->registry, "", "Cast", sdx_model_opset(c->model, ""))) return SDX_OK; /* only com.microsoft's */
    twins t = {NULL, g->n_value};
    ARENA_NEW(&c->model->arena, t.wide, (size_t)t.n_wide, c->err);
    for (sdx_id v = 0; v < t.n_wide; v++) t.wide[v] = SDX_NONE;
    sdx_id n = g->n_node;
    for (sdx_id i = 0; i < n; i++)
        if (is_widened(&g->node[i])) TRY(widen_node(c, g, &t, i));
    return c->changes ? sdx_pass_finish(c, g) : SDX_OK;
}
