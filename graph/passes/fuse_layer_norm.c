/* fuse_layer_norm.c: layer normalization (Ba, Kiros, Hinton: "Layer Normalization", 2016) from its arithmetic,
 * as exporters below opset 17 spell it:
 *
 *     x -+- ReduceMean -+
 *        +------------ Sub = d -+- Pow 2 | Mul(d,d) -- ReduceMean -- Add eps -- Sqrt -+
 *                               +--------------------------------------------------- Div -- Mul gamma -- Add
 *
 * becomes LayerNormalization(x, gamma, beta) over the last axis, or the last few, as the means are. Models in float16
 * cast to float32 and back somewhere on the way; the operator computes in float32 from the beginning. ONNX has it since
 * opset 17; below, ONNX Runtime registers the same operator from version 1 on and writes it into older files, and so do
 * we. */
#include "passes.h"

typedef struct layer_norm {
    sdx_id x, gamma, beta; /* beta: SDX_NONE when there is none */
    sdx_dtype dtype;       /* of all of them and of the result */
    int axes;              /* the last so many are normalized */
    double epsilon;
} layer_norm;

static bool is_float(sdx_dtype t)
{
    return t == SDX_F32 || t == SDX_F16;
}

/* v, or what it was before float casts: they may go where the result has 16 bits anyway. */
static sdx_id through_casts(const sdx_graph *g, sdx_id v, sdx_dtype dtype)
{
    v = sdx_match_through(g, v);
    const sdx_node *cast = dtype == SDX_F16 ? sdx_match_op(g, v, "Cast") : NULL;
    return cast && is_float(sdx_match_type(g, cast->in[0])->dtype) ? sdx_match_through(g, cast->in[0]) : v;
}

static const sdx_node *op_behind_casts(const sdx_graph *g, sdx_id v, const char *op_type, sdx_dtype dtype)
{
    return sdx_match_op(g, through_casts(g, v, dtype), op_type);
}

static int reduced_axes(const sdx_graph *g, const sdx_node *mean)
{
    return sdx_node_int(mean, "keepdims", 1) == 1 ? sdx_match_reduced_axes(g, mean) : 0;
}

/* d = x - mean(x), the mean over the last axes. */
static bool match_centred(const sdx_graph *g, sdx_id d, sdx_dtype dtype, sdx_id *x, int *axes)
{
    const sdx_node *sub = op_behind_casts(g, d, "Sub", dtype);
    const sdx_node *mean = sub ? op_behind_casts(g, sub->in[1], "ReduceMean", dtype) : NULL;
    if (!mean || through_casts(g, mean->in[0], dtype) != through_casts(g, sub->in[0], dtype)) return false;
    *x = dtype == SDX_F16 ? through_casts(g, sub->in[0], dtype) : sub->in[0];
    return (*axes = reduced_axes(g, mean)) > 0;
}

static bool match_square(const sdx_graph *g, sdx_id v, sdx_id *d)
{
    const sdx_node *pow = sdx_match_op(g, v, "Pow"), *mul = sdx_match_op(g, v, "Mul");
    double exponent;
    *d = pow ? pow->in[0] : mul ? mul->in[0] : SDX_NONE;
    if (pow) return sdx_graph_scalar(g, pow->in[1], &exponent) && exponent == 2;
    return mul && mul->in[0] == mul->in[1];
}

/* The deviation sqrt(mean(d^2) + eps). Two equal Subs may stand where one would do: d need only mean the same
 * x. */
static bool match_deviation(const sdx_graph *g, sdx_id v, layer_norm *m)
{
    const sdx_node *sqrt = op_behind_casts(g, v, "Sqrt", m->dtype);
    const sdx_node *add = sqrt ? op_behind_casts(g, sqrt->in[0], "Add", m->dtype) : NULL;
    sdx_id variance = sqrt ? sqrt->in[0] : SDX_NONE, d, same_x;
    m->epsilon = 0; /* an Add of nothing has been dropped */
    if (!sqrt || (add && !sdx_match_scalar_operand(g, add, &variance, &m->epsilon))) return false;
    const sdx_node *mean = op_behind_casts(g, variance, "ReduceMean", m->dtype);
    int axes;
    return mean && reduced_axes(g, mean) == m->axes && match_square(g, mean->in[0], &d) &&
           match_centred(g, d, m->dtype, &same_x, &axes) && same_x == m->x && axes == m->axes;
}

/* v has the shape of the axes that are normalized. */
static bool spans(const sdx_graph *g, sdx_id v, const layer_norm *m)
{
    const sdx_type *x = sdx_match_type(g, m->x), *t = sdx_match_type(g, v);
    if (t->dtype != m->dtype || t->shape.rank != m->axes || x->shape.rank < m->axes) return false;
    for (int i = 1; i <= m->axes; i++)
        if (!sdx_dim_same(t->shape.dim[m->axes - i], x->shape.dim[x->shape.rank - i])) return false;
    return true;
}

static const char *match_scaled(const sdx_graph *g, const sdx_node *mul, layer_norm *m)
{
    m->dtype = sdx_match_type(g, mul->out[0])->dtype;
    for (int i = 0; i < 2; i++) {
        const sdx_node *div = op_behind_casts(g, mul->in[1 - i], "Div", m->dtype);
        m->gamma = mul->in[i];
        if (!div || !match_centred(g, div->in[0], m->dtype, &m->x, &m->axes)) continue;
        if (!match_deviation(g, div->in[1], m)) return "the divisor is not sqrt(mean(d*d) + constant)";
        if (!is_float(m->dtype) || sdx_match_type(g, m->x)->dtype != m->dtype) return "not float32 or float16";
        return spans(g, m->gamma, m) ? NULL : "gamma does not span the axes of the mean";
    }
    return "no gamma times a quotient of x - mean(x) over the last axes";
}

static const char *match_layer_norm(const sdx_graph *g, const sdx_node *last, layer_norm *m)
{
    const char *reason = "no gamma before beta";
    m->beta = SDX_NONE;
    if (sdx_match_is(last, "Mul")) return match_scaled(g, last, m);
    for (int i = 0; i < 2; i++) {
        const sdx_node *mul = sdx_match_op(g, last->in[i], "Mul");
        if (!mul || (reason = match_scaled(g, mul, m))) continue;
        m->beta = last->in[1 - i];
        return spans(g, m->beta, m) ? NULL : "beta does not span the axes of the mean";
    }
    return reason;
}

static sdx_status fuse(sdx_pass_context *context, sdx_graph *g, sdx_id last, const layer_norm *m)
{
    sdx_id in[3] = {m->x, m->gamma, m->beta}, out = g->node[last].out[0], node;
    TRY(sdx_pass_replace(context, g, last, "", "LayerNormalization", m->beta == SDX_NONE ? 2 : 3, in, 1, &out,
                         &node));
    TRY(sdx_node_set_int(g, node, "axis", -m->axes, context->err));
    return sdx_node_set_float(g, node, "epsilon", (float)m->epsilon, context->err);
}

/* A Mul that feeds the Add of beta is not the end of its pattern. */
static bool is_read_by_fused(const sdx_graph *g, const sdx_node *mul)
{
    const sdx_value *v = &g->value[mul->out[0]];
    return !v->is_output && v->uses == 1 && g->node[g->use_node[g->use_begin[mul->out[0]]]].dead;
}

sdx_status sdx_pass_fuse_layer_norm(sdx_pass_context *context, sdx_graph *graph)
{
    layer_norm m;
    for (sdx_id i = graph->n_node; i-- > 0;) { /* from the end: the Add of a pattern before its Mul */
        const sdx_node *n = &graph->node[i];
        if (!sdx_match_is(n, "Add") && !sdx_match_is(n, "Mul")) continue;
        if (sdx_match_is(n, "Mul") && is_read_by_fused(graph, n)) continue;
        if (!match_layer_norm(graph, n, &m)) TRY(fuse(context, graph, i, &m));
    }
    return sdx_pass_finish(context, graph);
}
