/* token_region.c: what may be in the region that pack_tokens.c takes out: operators that make row i from rows i, and
 * attention among a text's own tokens. */
#include "token_region.h"

#include <string.h>

/* ---- what may be in a region ----------------------------------------------------------------------------- */

/* Operators that make row i of output 0 from row i of their inputs. Constants have no token dims, except weights:
 * inputs from `weight` on, matrices that meet every row alike. */
typedef struct row_wise {
    const char *domain, *name;
    int weight;
    bool (*fits)(const sdx_graph *g, const sdx_node *n);
} row_wise;

static bool is_last_axis(const sdx_graph *g, const sdx_node *n)
{
    return sdx_match_axis_is_last(g, n, -1, n->in[0]);
}
static bool is_per_row(const sdx_graph *g, const sdx_node *n)
{
    (void)g;
    return sdx_node_int(n, "per_row", 0) != 0;
}

static bool is_linear(const sdx_graph *g, const sdx_node *n)
{
    (void)g;
    return !sdx_node_int(n, "transA", 0) && !sdx_node_int(n, "transBatchA", 0) && !sdx_node_int(n, "transBatchB", 0);
}

enum { NO_WEIGHT = 99 };
static const row_wise row_wise_ops[] = {
    {"", "MatMul", 1, NULL},
    {SDX_MS, "FusedMatMul", 1, is_linear},
    {SDX_OWN, "FusedLinear", 1, NULL},
    {SDX_OWN, "DynamicLinear", 1, is_per_row},
    {"", "LayerNormalization", NO_WEIGHT, is_last_axis},
    {"", "RMSNormalization", NO_WEIGHT, is_last_axis},
    {"", "SimplifiedLayerNormalization", NO_WEIGHT, is_last_axis},
    {SDX_MS, "SkipLayerNormalization", NO_WEIGHT, NULL},
    {SDX_MS, "SkipSimplifiedLayerNormalization", NO_WEIGHT, NULL},
    {SDX_MS, "BiasGelu", NO_WEIGHT, NULL},
    {SDX_MS, "FastGelu", NO_WEIGHT, NULL},
    {SDX_MS, "Gelu", NO_WEIGHT, NULL},
    {SDX_MS, "QuickGelu", NO_WEIGHT, NULL},
    {"", "Add", NO_WEIGHT, NULL},
    {"", "Sub", NO_WEIGHT, NULL},
    {"", "Mul", NO_WEIGHT, NULL},
    {"", "Div", NO_WEIGHT, NULL},
    {"", "Gelu", NO_WEIGHT, NULL},
    {"", "Relu", NO_WEIGHT, NULL},
    {"", "Log", NO_WEIGHT, NULL},
    {"", "Tanh", NO_WEIGHT, NULL},
    {"", "Erf", NO_WEIGHT, NULL},
    {"", "Sigmoid", NO_WEIGHT, NULL},
};

static const row_wise *find_row_wise(const sdx_graph *g, const sdx_node *n)
{
    for (size_t i = 0; i < sizeof row_wise_ops / sizeof *row_wise_ops; i++) {
        const row_wise *r = &row_wise_ops[i];
        if (sdx_match_is_in(n, r->domain, r->name) && (!r->fits || r->fits(g, n))) return r;
    }
    return NULL;
}

/* The constant meets every row alike: all dims but the last are 1. */
static bool is_row(const sdx_tensor *c)
{
    for (int d = 0; d + 1 < c->rank; d++)
        if (c->dim[d] != 1) return false;
    return c->rank <= 3;
}

static bool is_token_type(const sdx_graph *g, sdx_id v)
{
    const sdx_type *t = sdx_match_type(g, v);
    return t->dtype == SDX_F32 && t->shape.rank == 3;
}

/* Output 0 is all that anybody reads, and is of token rows. */
static bool has_one_result(const sdx_graph *g, const sdx_node *n)
{
    for (int o = 1; o < n->n_out; o++)
        if (n->out[o] != SDX_NONE && (g->value[n->out[o]].uses || g->value[n->out[o]].is_output)) return false;
    return is_token_type(g, n->out[0]);
}

static bool fits_row_wise(const sdx_token_region *r, const sdx_node *n)
{
    const row_wise *rule = find_row_wise(r->g, n);
    bool reads = false;
    if (!rule || !has_one_result(r->g, n)) return false;
    for (int i = 0; i < n->n_in; i++) {
        if (n->in[i] == SDX_NONE) continue;
        const sdx_tensor *c = sdx_graph_constant(r->g, n->in[i]);
        bool token = r->inside[n->in[i]];
        if (!token && (!c || (i >= rule->weight ? c->rank > 2 : !is_row(c)))) return false;
        reads |= token;
    }
    return reads && (rule->weight == NO_WEIGHT || r->inside[n->in[0]]);
}

/* ---- attention ------------------------------------------------------------------------------------------- */

static const sdx_token_attention attention_ops[] = {
    {SDX_MS, "Attention", "PackedAttention", 1, 3, 8},
    {SDX_OWN, "DynamicAttention", "PackedDynamicAttention", 1, 5, 10},
    {SDX_MS, "MultiHeadAttention", "PackedMultiHeadAttention", 3, 4, 11},
};

const sdx_token_attention *sdx_token_attention_of(const sdx_node *n)
{
    for (size_t i = 0; i < sizeof attention_ops / sizeof *attention_ops; i++)
        if (sdx_match_is_in(n, attention_ops[i].domain, attention_ops[i].name)) return &attention_ops[i];
    return NULL;
}

static bool reads_constants_but(const sdx_graph *g, const sdx_node *n, const sdx_token_attention *a)
{
    for (int i = a->tokens; i < n->n_in; i++)
        if (i != a->mask && n->in[i] != SDX_NONE && !sdx_graph_constant(g, n->in[i])) return false;
    return true;
}

/* Of a text's own tokens under one mask: no past, no bias, no present. */
bool sdx_token_attention_fits(const sdx_graph *g, const sdx_node *n)
{
    const sdx_token_attention *a = sdx_token_attention_of(n);
    sdx_id mask = a ? sdx_node_in(n, a->mask) : SDX_NONE;
    if (mask == SDX_NONE || !has_one_result(g, n) || sdx_node_int(n, "unidirectional", 0)) return false;
    for (int i = 0; i < a->tokens; i++)
        if (sdx_node_in(n, i) == SDX_NONE || !is_token_type(g, n->in[i])) return false;
    const sdx_type *m = sdx_match_type(g, mask), *x = sdx_match_type(g, n->in[0]);
    bool lengths = m->shape.rank == 1 && m->shape.dim[0] == x->shape.dim[0];
    return m->dtype == SDX_I32 && (lengths || m->shape.rank == 2) && reads_constants_but(g, n, a);
}

static bool attends_inside(const sdx_token_region *r, const sdx_node *n)
{
    const sdx_token_attention *a = sdx_token_attention_of(n);
    if (!a || !sdx_token_attention_fits(r->g, n) || n->in[a->mask] != r->mask) return false;
    for (int i = 0; i < a->tokens; i++)
        if (!r->inside[n->in[i]]) return false;
    return true;
}

/* ---- where it begins ------------------------------------------------------------------------------------- */

/* The value that v is made of row by row, as far up as only one is. */
static sdx_id find_entry(const sdx_graph *g, sdx_id v)
{
    for (const sdx_node *n; (n = sdx_graph_producer(g, v)) && find_row_wise(g, n);) {
        sdx_id from = SDX_NONE;
        for (int i = 0; i < n->n_in; i++) {
            if (n->in[i] == SDX_NONE || n->in[i] == from || sdx_graph_constant(g, n->in[i])) continue;
            if (from != SDX_NONE || !is_token_type(g, n->in[i])) return v;
            from = n->in[i];
        }
        if (from == SDX_NONE) return v;
        v = from;
    }
    return v;
}

/* ---- what may follow a maximum -------------------------------------------------------------------------- */

bool sdx_token_is_monotone(const sdx_graph *g, const sdx_node *n, sdx_id *other)
{
    double number;
    *other = n->in[0];
    return sdx_match_is(n, "Relu") || sdx_match_is(n, "Log") ||
           (sdx_match_is(n, "Add") && sdx_match_scalar_operand(g, n, other, &number));
}

bool sdx_token_ends_in_relu(const sdx_node *n)
{
    return sdx_match_is_in(n, SDX_OWN, "DynamicLinear") && !strcmp(sdx_node_string(n, "activation", ""), "Relu");
}

/* ---- growing a region ------------------------------------------------------------------------------------ */

sdx_status sdx_token_region_grow(sdx_graph *g, sdx_id seed, sdx_token_region *r, sdx_error *err)
{
    const sdx_node *attention = &g->node[seed];
    *r = (sdx_token_region){.g = g, .entry = find_entry(g, attention->in[0])};
    r->mask = attention->in[sdx_token_attention_of(attention)->mask];
    ARENA_NEW(&g->model->arena, r->inside, (size_t)g->n_value, err);
    ARENA_NEW(&g->model->arena, r->member, (size_t)g->n_node, err);
    r->inside[r->entry] = true;
    for (sdx_id i = 0; i < g->n_node; i++) {
        const sdx_node *n = &g->node[i];
        if (!attends_inside(r, n) && !fits_row_wise(r, n)) continue;
        r->member[i] = true;
        r->inside[n->out[0]] = true;
    }
    return SDX_OK;
}
