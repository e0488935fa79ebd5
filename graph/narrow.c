/* narrow.c: a float32 graph with its large weights, and what is computed from them, in 16 bits.
 *
 * An operator on the list below works on halves when it reads a float32 weight or something that is half already;
 * norms, softmaxes, reductions and masks are not on it and stay float32, with Casts in between. Masks reach an
 * attention as integers; one that adds a float mask stays float32, too, as halves end at 65504. Whatever was float32
 * outside (inputs, outputs, what subgraphs read) still is. */
#include <math.h>
#include <string.h>

#include "narrow.h"

/* ---- which operators ------------------------------------------------------------------------------------- */

static const struct safe {
    const char *op_type;
    bool starts;  /* a weight suffices; else an input must be half already */
    int forbidden; /* an input that must be absent, or 0 */
} safe[] = {
    {"Add", false, 0},       {"Attention", true, 5},  {"BiasGelu", false, 0},
    {"Concat", false, 0},    {"Conv", true, 0},       {"Div", false, 0},
    {"EmbedLayerNormalization", true, 0},
    {"FastGelu", false, 0},  {"Gather", true, 0},     {"Gelu", false, 0},
    {"Gemm", true, 0},       {"Identity", false, 0},  {"MatMul", true, 0},
    {"Mul", false, 0},       {"MultiHeadAttention", false, 5},
    {"QuickGelu", false, 0}, {"Relu", false, 0},      {"Reshape", false, 0},
    {"Slice", false, 0},     {"Split", false, 0},     {"Squeeze", false, 0},
    {"Sub", false, 0},       {"Tanh", false, 0},      {"Transpose", false, 0},
    {"Unsqueeze", false, 0},
};

typedef struct narrower {
    sdx_graph *g;
    sdx_dtype to;
    sdx_id *half; /* [n] the same in 16 bits, or SDX_NONE */
    sdx_id n;     /* values that the graph had */
    sdx_error *err;
} narrower;

static bool is_f32(const sdx_graph *g, sdx_id v)
{
    return v != SDX_NONE && g->value[v].type.dtype == SDX_F32;
}

static bool is_safe(const narrower *t, const sdx_node *n)
{
    const struct safe *row = NULL;
    for (size_t i = 0; i < sizeof safe / sizeof *safe; i++)
        if (!strcmp(n->op_type, safe[i].op_type)) row = &safe[i];
    if (!row || n->dead || (row->forbidden && sdx_node_in(n, row->forbidden) != SDX_NONE)) return false;
    for (int i = 0; i < n->n_in; i++) {
        if (!is_f32(t->g, n->in[i])) continue;
        const sdx_tensor *weight = sdx_graph_constant(t->g, n->in[i]);
        if (row->starts && weight && weight->rank > 1) return true;
        if (!weight && t->half[n->in[i]] != SDX_NONE) return true;
    }
    return false;
}

/* ---- values ---------------------------------------------------------------------------------------------- */

/* Finite numbers stay finite. */
static uint16_t narrow(sdx_dtype to, float x)
{
    const float most = 65504;
    if (to == SDX_BF16) return sdx_f32_to_bf16(x);
    return sdx_f32_to_f16(isfinite(x) ? fminf(fmaxf(x, -most), most) : x);
}

static sdx_status narrow_constant(narrower *t, sdx_id v, sdx_id *out)
{
    const sdx_tensor *old = sdx_graph_constant(t->g, v);
    sdx_tensor fresh = *old;
    int64_t count = sdx_tensor_count(old);
    uint16_t *data = sdx_arena_array(&t->g->model->arena, (size_t)count, sizeof *data);
    if (!data) return sdx_fail_memory(t->err, (size_t)count * sizeof *data);
    for (int64_t i = 0; i < count; i++) {
        float x;
        memcpy(&x, (const char *)old->data + (size_t)i * sizeof x, sizeof x);
        data[i] = narrow(t->to, x);
    }
    fresh.dtype = t->to;
    fresh.data = data;
    return sdx_graph_add_constant(t->g, t->g->value[v].name, &fresh, out, t->err);
}

/* to: a new value of this type, cast from v. */
static sdx_status cast(narrower *t, sdx_id v, sdx_dtype to, sdx_id *out)
{
    TRY(sdx_graph_emit(t->g, "", "Cast", t->g->value[v].name, 1, &v, out, t->err));
    t->g->value[*out].type = t->g->value[v].type;
    t->g->value[*out].type.dtype = to;
    return sdx_node_set_int(t->g, t->g->value[*out].producer, "to", to, t->err);
}

static sdx_status half_of(narrower *t, sdx_id v, sdx_id *out)
{
    if (t->half[v] == SDX_NONE)
        TRY(sdx_graph_constant(t->g, v) ? narrow_constant(t, v, &t->half[v]) : cast(t, v, t->to, &t->half[v]));
    *out = t->half[v];
    return SDX_OK;
}

/* The node writes a half; a Cast of it writes what it used to. */
static sdx_status write_half(narrower *t, sdx_id node, int k)
{
    sdx_id v = t->g->node[node].out[k], half, made;
    TRY(sdx_graph_add_value(t->g, t->g->value[v].name, &half, t->err));
    t->g->value[half].type = t->g->value[v].type;
    t->g->value[half].type.dtype = t->to;
    t->g->node[node].out[k] = half;
    t->g->value[half].producer = node;
    t->half[v] = half;
    TRY(sdx_graph_add_node(t->g, "", "Cast", NULL, 1, &half, 1, &v, &made, t->err));
    return sdx_node_set_int(t->g, made, "to", SDX_F32, t->err);
}

static sdx_status narrow_node(narrower *t, sdx_id node)
{
    for (int i = 0; i < t->g->node[node].n_in; i++) {
        sdx_id half, v = t->g->node[node].in[i];
        if (!is_f32(t->g, v)) continue;
        TRY(half_of(t, v, &half));
        t->g->node[node].in[i] = half;
    }
    for (int k = 0; k < t->g->node[node].n_out; k++)
        if (is_f32(t->g, t->g->node[node].out[k])) TRY(write_half(t, node, k));
    return SDX_OK;
}

sdx_status sdx_model_narrow(sdx_model *model, sdx_dtype to, sdx_error *err)
{
    sdx_graph *g = model->graph;
    narrower t = {.g = g, .to = to, .n = g->n_value, .err = err};
    ARENA_NEW(&model->arena, t.half, (size_t)t.n + 1, err);
    for (sdx_id v = 0; v < t.n; v++) t.half[v] = SDX_NONE;
    sdx_id count = g->n_node;
    for (sdx_id i = 0; i < count; i++)
        if (is_safe(&t, &g->node[i])) TRY(narrow_node(&t, i));
    TRY(sdx_graph_sort(g, err));
    return sdx_graph_clean(g, err);
}
