/* pack_tokens.c: a batch of texts of different lengths without its padding (Zeng et al. 2022, "Boosting distributed
 * training performance of the unpadded BERT model"; ByteTransformer, Zhai et al. 2023).
 *
 * A value of an encoder is [B,S,H]: a row for every token, padding included. Between the first attention's input and
 * whatever leaves the encoder, operators work row by row, and attention looks at its own text through one mask. That
 * region becomes the body of a PackTokens (engine/ops/pack_tokens.c), which runs it on the rows of real tokens only.
 *
 * Padding rows are then never computed, so what leaves the region must not tell:
 *
 *     Gather(x, 0, axis 1)             the first token: computed also where it is hidden
 *     Mul(x, mask)                     factors of 0: x may as well be 0 there
 *     ReduceMax(Mul(x, mask), axis 1)  where x = Log(1 + Relu(Linear)), in any order that has the Relu somewhere: a row
 *                                      of 0 more or less does not count, and all of it but the layer may be done
 *                                      after the maximum: LinearMax, which never stores the layer's output
 *     a graph output                   when the caller does not mind (sdx_run_options.skip_padding): 0 there
 *
 * Anything else that reads a token row from outside, and the graph stays as it is. */
#include "token_region.h"

/* ---- ways out -------------------------------------------------------------------------------------------- */

static sdx_id mask_root(const sdx_graph *g, sdx_id v)
{
    for (const sdx_node *cast; (cast = sdx_match_op(g, v, "Cast"));) v = cast->in[0];
    return v;
}

/* v is the mask as [B,S,1], or spread over [B,S,H]. */
static bool is_mask_factor(const sdx_graph *g, sdx_id v, sdx_id root)
{
    for (int steps = 0; steps < 8; steps++) {
        if (v == root) return true;
        const sdx_node *n = sdx_graph_producer(g, v);
        bool spreads = sdx_match_is(n, "Cast") || sdx_match_is(n, "Expand");
        if (sdx_match_is(n, "Unsqueeze")) {
            const sdx_type *t = sdx_match_type(g, v);
            spreads = t->shape.rank == 3 && t->shape.dim[2] == 1;
        }
        if (!spreads) return false;
        v = n->in[0];
    }
    return false;
}

static bool is_masked(const sdx_token_region *r, const sdx_node *n, sdx_id token)
{
    if (!sdx_match_is(n, "Mul") || sdx_match_type(r->g, r->mask)->shape.rank != 2) return false;
    sdx_id other = n->in[0] == token ? n->in[1] : n->in[0];
    return other != token && is_mask_factor(r->g, other, mask_root(r->g, r->mask));
}

static bool takes_first(const sdx_token_region *r, const sdx_node *n)
{
    int64_t index;
    int count = 0;
    bool scalar = sdx_match_is(n, "Gather") && sdx_node_int(n, "axis", 0) == 1 &&
                  sdx_match_type(r->g, n->in[1])->shape.rank == 0;
    return scalar && sdx_type_ints(sdx_match_type(r->g, n->in[1]), 1, &index, &count) && count == 1 && index == 0;
}

static bool add_exit(sdx_token_region *r, sdx_token_exit exit)
{
    for (int i = 0; i < r->n_exit; i++)
        if (r->exit[i].out == exit.out) return true;
    if (r->n_exit == SDX_TOKEN_EXITS) return false;
    r->exit[r->n_exit++] = exit;
    return true;
}

/* The only reader of v, or NULL. */
static const sdx_node *sole_reader(const sdx_graph *g, sdx_id v)
{
    bool one = g->value[v].uses == 1 && !g->value[v].is_output;
    return one ? &g->node[g->use_node[g->use_begin[v]]] : NULL;
}

/* A product with a constant matrix, or a DynamicLinear that bends its sums no more than a Relu. */
static bool is_layer(const sdx_node *n)
{
    if (sdx_match_is_in(n, SDX_OWN, "DynamicLinear"))
        return sdx_token_ends_in_relu(n) || *sdx_node_string(n, "activation", "") == '\0';
    if (sdx_match_is_in(n, SDX_MS, "FusedMatMul"))
        return sdx_node_int(n, "transB", 0) && sdx_node_float(n, "alpha", 1.0f) == 1.0f;
    return sdx_match_is(n, "MatMul");
}

/* v as a dense layer of the region, and what comes after it; a Relu must be there, or behind the maximum. */
static bool match_head(const sdx_token_region *r, sdx_id v, bool relu, sdx_token_head *h)
{
    const sdx_graph *g = r->g;
    sdx_id before;
    *h = (sdx_token_head){.bias = SDX_NONE};
    const sdx_node *n = sdx_graph_producer(g, v);
    for (; n && sdx_token_is_monotone(g, n, &before); n = sdx_graph_producer(g, before)) {
        if (h->n_after == 4 || !sole_reader(g, n->out[0])) return false;
        relu |= sdx_match_is(n, "Relu");
        h->after[h->n_after++] = sdx_match_id(g, n);
    }
    if (n && sdx_match_bias(g, n, &before, &h->bias)) {
        if (!sole_reader(g, n->out[0])) return false;
        n = sdx_graph_producer(g, before);
        if (sdx_match_is_in(n, SDX_OWN, "DynamicLinear")) return false; /* it has its own */
    }
    h->layer = sdx_match_id(g, n);
    return (relu || sdx_token_ends_in_relu(n)) && n && is_layer(n) && r->member[h->layer] && sole_reader(g, n->out[0]);
}

static bool reduces_tokens(const sdx_graph *g, const sdx_node *n)
{
    size_t count = 0;
    const int64_t *axes = sdx_node_ints(n, "axes", &count);
    int64_t axis = axes && count == 1 ? axes[0] : -1;
    int known = (int)count;
    if (n->n_in > 1 && n->in[1] != SDX_NONE && !sdx_type_ints(sdx_match_type(g, n->in[1]), 1, &axis, &known))
        return false;
    return known == 1 && (axis == 1 || axis == -2) && !sdx_node_int(n, "keepdims", 1);
}

/* mul = token * mask, whose maximum over the tokens is all that anybody reads. */
static bool leave_by_max(sdx_token_region *r, const sdx_node *mul, sdx_id token)
{
    const sdx_graph *g = r->g;
    const sdx_node *max = sole_reader(g, mul->out[0]);
    if (!sdx_match_is(max, "ReduceMax") || !reduces_tokens(g, max)) return false;
    const sdx_node *next = sole_reader(g, max->out[0]);
    sdx_token_exit exit = {SDX_EXIT_MAX, token, max->out[0], {0}};
    if (!sole_reader(g, token) || !match_head(r, token, sdx_match_is(next, "Relu"), &exit.head)) return false;
    r->binary = true;
    return add_exit(r, exit);
}

/* The node outside reads a token value: whether that works, and as what. */
static bool leave_by(sdx_token_region *r, const sdx_node *n, sdx_id token)
{
    if (takes_first(r, n)) {
        r->keep_first = true;
        return add_exit(r, (sdx_token_exit){SDX_EXIT_FIRST, token, n->out[0], {0}});
    }
    return is_masked(r, n, token) &&
           (leave_by_max(r, n, token) || add_exit(r, (sdx_token_exit){SDX_EXIT_TOKENS, token, token, {0}}));
}

static bool find_exits(sdx_token_region *r, bool skip_padding)
{
    const sdx_graph *g = r->g;
    for (sdx_id v = 0; v < g->n_value; v++) {
        if (!r->inside[v] || v == r->entry) continue;
        sdx_token_exit whole = {SDX_EXIT_TOKENS, v, v, {0}};
        if (g->value[v].is_output && !(skip_padding && add_exit(r, whole))) return false;
        for (sdx_id u = g->use_begin[v]; u < g->use_begin[v + 1]; u++) {
            sdx_id reader = g->use_node[u];
            if (!r->member[reader] && !leave_by(r, &g->node[reader], v)) return false;
        }
    }
    return r->n_exit > 0;
}

/* ---- the pass -------------------------------------------------------------------------------------------- */

static sdx_status replace(sdx_pass_context *context, const sdx_token_region *r, sdx_id anchor)
{
    sdx_graph *body;
    sdx_id in[] = {r->entry, r->mask}, out[SDX_TOKEN_EXITS], node;
    int64_t per_token[SDX_TOKEN_EXITS];
    TRY(sdx_token_body_make(context, r, &body));
    for (int i = 0; i < r->n_exit; i++) {
        out[i] = r->exit[i].out;
        per_token[i] = r->exit[i].kind == SDX_EXIT_TOKENS;
    }
    TRY(sdx_pass_replace(context, r->g, anchor, SDX_OWN, "PackTokens", 2, in, r->n_exit, out, &node));
    TRY(sdx_node_set_graph(r->g, node, "body", body, context->err));
    TRY(sdx_node_set_ints(r->g, node, "token_outputs", (size_t)r->n_exit, per_token, context->err));
    TRY(sdx_node_set_int(r->g, node, "keep_first", r->keep_first, context->err));
    TRY(sdx_node_set_int(r->g, node, "binary", r->binary, context->err));
    return sdx_pass_finish(context, r->g);
}

sdx_status sdx_pass_pack_tokens(sdx_pass_context *context, sdx_graph *graph)
{
    sdx_id seed = 0;
    while (seed < graph->n_node && !sdx_token_attention_fits(graph, &graph->node[seed])) seed++;
    if (!context->for_run || seed == graph->n_node) return SDX_OK;
    sdx_token_region r;
    TRY(sdx_token_region_grow(graph, seed, &r, context->err));
    if (!r.member[seed] || !find_exits(&r, context->skip_padding)) return SDX_OK;
    return replace(context, &r, seed);
}
