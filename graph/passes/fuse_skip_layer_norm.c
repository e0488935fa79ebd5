/* fuse_skip_layer_norm.c: the residual connection around each half of a transformer layer, with the bias of the
 * dense layer before it, goes into the normalization (as ONNX Runtime's FusionSkipLayerNormalization and
 * FusionBiasSkipLayerNormalization do):
 *
 *     MatMul -- Add bias[n] -+
 *                           Add -- LayerNormalization   ->   SkipLayerNormalization(., skip, gamma, beta, bias)
 *     skip ------------------+
 *
 * and the same of SimplifiedLayerNormalization, which has no beta, as SkipSimplifiedLayerNormalization.
 * Both operands must have the same shape; epsilon is always written, since the two operators' defaults differ.
 * Who else reads the sum (networks that normalize first) reads output 3.
 *
 * A LayerNormalization that is left may lack its beta (ModernBERT). ONNX Runtime 1.17's AttentionFusion looks at it
 * where several nodes read the norm, and ends the process: in files such a norm gets zeros. */
#include <stdio.h>
#include <string.h>

#include "passes.h"

typedef struct skip {
    bool simplified;
    sdx_id input, skip, gamma, beta, bias, sum;
    float epsilon;
} skip;

static bool is_plain_norm(const sdx_graph *g, const sdx_node *n)
{
    for (int i = 1; i < n->n_out; i++)
        if (n->out[i] != SDX_NONE && g->value[n->out[i]].uses > 0)
            return false; /* mean and deviation differ in shape */
    bool norm = sdx_match_is(n, "LayerNormalization") || sdx_match_is(n, "SimplifiedLayerNormalization");
    return norm && sdx_match_axis_is_last(g, n, -1, n->in[0]);
}

/* A dense layer's bias on either operand; on both, the first is taken. */
static void match_bias(const sdx_graph *g, skip *m)
{
    sdx_id *operand[2] = {&m->input, &m->skip};
    m->bias = SDX_NONE;
    for (int i = 0; i < 2; i++) {
        const sdx_node *add = sdx_match_op(g, *operand[i], "Add");
        sdx_id x, bias;
        if (!add || g->value[add->out[0]].uses != 1 || !sdx_match_bias(g, add, &x, &bias)) continue;
        if (!sdx_shape_same(&sdx_match_type(g, x)->shape, &sdx_match_type(g, add->out[0])->shape)) continue;
        sdx_id other = *operand[1 - i];
        m->input = x;
        m->skip = other;
        m->bias = bias;
        return;
    }
}

static const char *match(const sdx_graph *g, const sdx_node *norm, skip *m)
{
    if (!is_plain_norm(g, norm)) return "not a LayerNormalization over the last axis alone";
    const sdx_node *add = sdx_match_op(g, norm->in[0], "Add");
    if (!add) return "no Add before it";
    *m = (skip){.simplified = sdx_match_is(norm, "SimplifiedLayerNormalization"),
                .input = add->in[0],
                .skip = add->in[1],
                .gamma = norm->in[1],
                .beta = sdx_node_in(norm, 2)};
    const sdx_type *a = sdx_match_type(g, m->input), *b = sdx_match_type(g, m->skip);
    sdx_dim width = sdx_match_last_dim(g, m->input);
    if (a->constant || b->constant) return "one operand is a constant";
    if (a->dtype != SDX_F32 || a->shape.rank != 3) return "the operands are not float32 of rank 3";
    if (!sdx_shape_same(&a->shape, &b->shape)) return "the operands may differ in shape";
    if (!sdx_match_vector(g, m->gamma, width)) return "gamma is not a constant of the last axis";
    if (m->beta != SDX_NONE && !sdx_match_vector(g, m->beta, width))
        return "beta is not a constant of the last axis";
    m->epsilon = sdx_node_float(norm, "epsilon", 1e-5f);
    m->sum = g->value[add->out[0]].uses > 1 ? add->out[0] : SDX_NONE;
    match_bias(g, m);
    return NULL;
}

static int trim(const sdx_id *list, int count)
{
    while (count > 0 && list[count - 1] == SDX_NONE) count--;
    return count;
}

static sdx_status fuse(sdx_pass_context *context, sdx_graph *g, sdx_id norm, const skip *m)
{
    sdx_id in[5] = {m->input, m->skip, m->gamma, m->beta, m->bias}, node;
    sdx_id out[4] = {g->node[norm].out[0], SDX_NONE, SDX_NONE, m->sum};
    if (m->simplified) in[3] = m->bias; /* there is no beta */
    const char *op_type = m->simplified ? "SkipSimplifiedLayerNormalization" : "SkipLayerNormalization";
    TRY(sdx_pass_replace(context, g, norm, SDX_MS, op_type, trim(in, m->simplified ? 4 : 5), in, trim(out, 4),
                         out, &node));
    return sdx_node_set_float(g, node, "epsilon", m->epsilon, context->err);
}

/* Zeros [n], made once. */
static sdx_status zeros(sdx_pass_context *context, sdx_graph *g, int64_t n, sdx_id *out)
{
    sdx_tensor t = {.dtype = SDX_F32, .rank = 1, .dim = {n}};
    size_t bytes = sdx_tensor_bytes(&t);
    char name[40];
    snprintf(name, sizeof name, "zeros_%lld", (long long)n);
    *out = sdx_graph_find_value(g, name);
    if (*out != SDX_NONE && sdx_match_vector(g, *out, n)) return SDX_OK;
    if (!(t.data = sdx_arena_alloc(&g->model->arena, bytes))) return sdx_fail_memory(context->err, bytes);
    memset(t.data, 0, bytes);
    return sdx_graph_add_constant(g, name, &t, out, context->err);
}

static sdx_status add_beta(sdx_pass_context *context, sdx_graph *g, sdx_id norm)
{
    const sdx_node *n = &g->node[norm];
    if (!is_plain_norm(g, n) || n->n_in != 2 || !sdx_match_is(n, "LayerNormalization")) return SDX_OK;
    sdx_dim width = sdx_match_last_dim(g, n->in[0]);
    if (g->value[n->out[0]].uses < 2 || !sdx_match_vector(g, n->in[1], width)) return SDX_OK;
    sdx_id in[3] = {n->in[0], n->in[1], SDX_NONE}, out = n->out[0], node;
    float epsilon = sdx_node_float(n, "epsilon", 1e-5f);
    TRY(zeros(context, g, width, &in[2]));
    TRY(sdx_pass_replace(context, g, norm, "", "LayerNormalization", 3, in, 1, &out, &node));
    TRY(sdx_node_set_int(g, node, "axis", -1, context->err));
    return sdx_node_set_float(g, node, "epsilon", epsilon, context->err);
}

sdx_status sdx_pass_fuse_skip_layer_norm(sdx_pass_context *context, sdx_graph *graph)
{
    if (context->standard) return SDX_OK;
    skip m;
    sdx_id count = graph->n_node;
    for (sdx_id i = 0; i < count; i++)
        if (!match(graph, &graph->node[i], &m)) TRY(fuse(context, graph, i, &m));
    for (sdx_id i = 0; i < count && !context->for_run; i++) TRY(add_beta(context, graph, i));
    return sdx_pass_finish(context, graph);
}
