/* fuse_dynamic_linear.c: a dense layer that quantizes its input at run time becomes one operator of the engine's own:
 *
 *     x -- DynamicQuantizeLinear -- MatMulInteger(., W) -- Cast -- Mul(x_scale * w_scale)
 *         [-- Add bias[n]] [-- Relu | Tanh | Gelu | BiasGelu bias[n]]   ->   DynamicLinear(x, W, w_scale, w_zero, bias)
 *     Mul(x, factor[k]) before it    ->    its last input, when rows are quantized by themselves
 *
 * No bit changes, unless the file's metadata says that scales per row are as good (`sardonyx.activation_scale` =
 * `row`, which our quantizer writes) and the run is not strict. Then rows are quantized each by its own range, also
 * those that enter a QAttention, a MatMulIntegerToFloat or a DynamicQuantizeMatMul, which is what ONNX Runtime's
 * optimizer makes of such a file. Only for a run: no file holds these operators. Nodes are visited from the last one,
 * so that the longest chain wins. */
#include <string.h>

#include "passes.h"

typedef struct layer {
    sdx_id x, weight, w_scale, w_zero, bias, factor;
    const char *activation; /* operator, or NULL */
} layer;

/* A constant that is one number, or one per column. */
static bool is_per_column(const sdx_graph *g, sdx_id v, int64_t n)
{
    const sdx_tensor *t = sdx_graph_constant(g, v);
    return t && (sdx_tensor_count(t) == 1 || (sdx_tensor_count(t) == n && t->rank > 0 && t->dim[t->rank - 1] == n));
}

/* The float behind (q, scale, zero), when one DynamicQuantizeLinear makes all three. */
static sdx_id quantized_from(const sdx_graph *g, sdx_id q, sdx_id scale, sdx_id zero)
{
    const sdx_node *n = sdx_graph_producer(g, q);
    bool same = sdx_match_is(n, "DynamicQuantizeLinear") && n->out[0] == q && n->out[1] == scale && n->out[2] == zero;
    return same ? n->in[0] : SDX_NONE;
}

/* x by the weight in the three others. */
static bool set_product(const sdx_graph *g, sdx_id x, sdx_id weight, sdx_id w_scale, sdx_id w_zero, layer *l)
{
    const sdx_tensor *w = sdx_graph_constant(g, weight);
    if (!w || w->rank != 2 || sdx_tensor_count(w) == 0) return false;
    l->x = x;
    l->weight = weight;
    l->w_scale = w_scale;
    l->w_zero = w_zero;
    return x != SDX_NONE && sdx_match_type(g, x)->shape.rank > 0 && is_per_column(g, w_scale, w->dim[1]) &&
           (w_zero == SDX_NONE || is_per_column(g, w_zero, w->dim[1]));
}

static bool match_product(const sdx_graph *g, const sdx_node *product, sdx_id x_scale, sdx_id w_scale, layer *l)
{
    if (!product) return false;
    sdx_id x = quantized_from(g, product->in[0], x_scale, sdx_node_in(product, 2));
    return set_product(g, x, product->in[1], w_scale, sdx_node_in(product, 3), l);
}

/* Mul(Cast(MatMulInteger), Mul(x_scale, w_scale)), operands in any order. */
static bool match_chain(const sdx_graph *g, const sdx_node *mul, layer *l)
{
    if (!sdx_match_is(mul, "Mul")) return false;
    for (int i = 0; i < 4; i++) {
        const sdx_node *cast = sdx_match_op(g, mul->in[i & 1], "Cast");
        const sdx_node *scales = sdx_match_op(g, mul->in[~i & 1], "Mul");
        if (!cast || !scales || sdx_node_int(cast, "to", 0) != SDX_F32) continue;
        const sdx_node *product = sdx_match_op(g, cast->in[0], "MatMulInteger");
        if (match_product(g, product, scales->in[i >> 1], scales->in[!(i >> 1)], l)) return true;
    }
    return false;
}

/* One operator that is the chain, with its bias when it has one. */
static bool match_operator(const sdx_graph *g, const sdx_node *n, layer *l)
{
    enum { A, B, A_SCALE, B_SCALE, A_ZERO, B_ZERO, BIAS };      /* MatMulIntegerToFloat */
    enum { DYNAMIC_SCALE = 2, DYNAMIC_ZERO = 3, DYNAMIC_BIAS = 4 }; /* DynamicQuantizeMatMul */
    bool dynamic = sdx_match_is_in(n, SDX_MS, "DynamicQuantizeMatMul");
    if (!dynamic && !sdx_match_is_in(n, SDX_MS, "MatMulIntegerToFloat")) return false;
    sdx_id x = dynamic ? n->in[A] : quantized_from(g, n->in[A], n->in[A_SCALE], sdx_node_in(n, A_ZERO));
    sdx_id bias = sdx_node_in(n, dynamic ? DYNAMIC_BIAS : BIAS);
    if (!set_product(g, x, n->in[B], n->in[dynamic ? DYNAMIC_SCALE : B_SCALE],
                     sdx_node_in(n, dynamic ? DYNAMIC_ZERO : B_ZERO), l))
        return false;
    if (bias == SDX_NONE) return true;
    bool alone = l->bias == SDX_NONE && sdx_match_vector(g, bias, sdx_graph_constant(g, l->weight)->dim[1]);
    l->bias = bias;
    return alone;
}

/* The activation that a node is, or NULL. */
static const char *activation_of(const sdx_node *n)
{
    if (sdx_match_is(n, "Relu") || sdx_match_is(n, "Tanh") || sdx_match_is_in(n, SDX_MS, "Gelu")) return n->op_type;
    return sdx_match_is(n, "Gelu") && !strcmp(sdx_node_string(n, "approximate", "none"), "none") ? "Gelu" : NULL;
}

/* The node that makes v, which nobody else reads; else NULL. */
static sdx_node *sole_producer(const sdx_graph *g, sdx_id v)
{
    return g->value[v].uses == 1 && !g->value[v].is_output ? sdx_graph_producer(g, v) : NULL;
}

/* Bias in input 1 of a BiasGelu, or an operand of an Add. */
static bool match_bias(const sdx_graph *g, const sdx_node *n, sdx_id *other, sdx_id *bias)
{
    if (!sdx_match_is_in(n, SDX_MS, "BiasGelu")) return sdx_match_bias(g, n, other, bias);
    *other = n->in[0];
    *bias = n->in[1];
    return sdx_match_vector(g, *bias, sdx_match_last_dim(g, *other));
}

/* The layer that ends at node `last`. absorbed[]: the nodes of it before `last` from the scaling on. */
static bool match_layer(const sdx_graph *g, sdx_node *last, bool per_row, layer *l, sdx_node *absorbed[2])
{
    *l = (layer){.bias = SDX_NONE, .factor = SDX_NONE, .activation = activation_of(last)};
    int n = 0;
    sdx_id before;
    sdx_node *at = last;
    if (l->activation) {
        if (!(at = sole_producer(g, at->in[0]))) return false;
        absorbed[n++] = at;
    }
    if (match_bias(g, at, &before, &l->bias)) {
        if (sdx_match_is_in(at, SDX_MS, "BiasGelu")) {
            if (l->activation) return false;
            l->activation = "Gelu";
        }
        if (!(at = sole_producer(g, before))) return false;
        absorbed[n++] = at;
    }
    return match_chain(g, at, l) || (per_row && match_operator(g, at, l));
}

/* x, or what is multiplied by a constant factor[k] to make it. */
static sdx_id without_factor(const sdx_graph *g, sdx_id x, sdx_id *factor)
{
    const sdx_node *mul = sdx_match_op(g, x, "Mul");
    *factor = SDX_NONE;
    for (int i = 0; mul && i < 2; i++) {
        sdx_id other = mul->in[1 - i];
        bool same = sdx_match_type(g, other)->shape.rank == sdx_match_type(g, x)->shape.rank;
        if (!same || !sdx_match_vector(g, mul->in[i], sdx_match_last_dim(g, other))) continue;
        *factor = mul->in[i];
        return other;
    }
    return x;
}

static sdx_status fuse_layer(sdx_pass_context *context, sdx_graph *g, sdx_id last, bool per_row)
{
    layer l;
    sdx_node *absorbed[2] = {NULL, NULL};
    if (!match_layer(g, &g->node[last], per_row, &l, absorbed)) return SDX_OK;
    for (int i = 0; i < 2; i++)
        if (absorbed[i]) absorbed[i]->dead = true;
    if (per_row) l.x = without_factor(g, l.x, &l.factor);
    sdx_id in[] = {l.x, l.weight, l.w_scale, l.w_zero, l.bias, l.factor}, out = g->node[last].out[0], node;
    int n_in = 6;
    while (in[n_in - 1] == SDX_NONE) n_in--;
    TRY(sdx_pass_replace(context, g, last, "sardonyx", "DynamicLinear", n_in, in, 1, &out, &node));
    if (l.activation) TRY(sdx_node_set_string(g, node, "activation", l.activation, context->err));
    return sdx_node_set_int(g, node, "per_row", per_row, context->err);
}

static sdx_status fuse_attention(sdx_pass_context *context, sdx_graph *g, sdx_id id)
{
    enum { MOST = 9, X = 0, X_SCALE = 3, FACTOR = 3, X_ZERO = 6 };
    sdx_node old = g->node[id];
    sdx_id in[MOST], node;
    sdx_id x = quantized_from(g, old.in[X], sdx_node_in(&old, X_SCALE), sdx_node_in(&old, X_ZERO));
    if (x == SDX_NONE || old.n_in > MOST) return SDX_OK;
    memcpy(in, old.in, (size_t)old.n_in * sizeof *in);
    in[X] = without_factor(g, x, &in[FACTOR]);
    in[X_ZERO] = SDX_NONE;
    TRY(sdx_pass_replace(context, g, id, "sardonyx", "DynamicAttention", old.n_in, in, old.n_out, old.out, &node));
    g->node[node].attr = old.attr;
    g->node[node].n_attr = old.n_attr;
    return SDX_OK;
}

static bool allows_rows(const sdx_pass_context *context)
{
    const char *scale = sdx_model_metadata(context->model, "sardonyx.activation_scale");
    return scale && !strcmp(scale, "row") && !context->strict;
}

sdx_status sdx_pass_fuse_dynamic_linear(sdx_pass_context *context, sdx_graph *graph)
{
    if (!context->for_run) return SDX_OK;
    bool per_row = allows_rows(context);
    for (sdx_id i = graph->n_node; i-- > 0;) {
        if (graph->node[i].dead) continue;
        if (per_row && sdx_match_is_in(&graph->node[i], SDX_MS, "QAttention"))
            TRY(fuse_attention(context, graph, i));
        else
            TRY(fuse_layer(context, graph, i, per_row));
    }
    return sdx_pass_finish(context, graph);
}
