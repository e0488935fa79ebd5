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
#include <string.h>

#include "passes.h"

#define OWN "sardonyx"

enum { MOST_EXITS = 8 };

typedef enum exit_kind { EXIT_TOKENS, EXIT_FIRST, EXIT_MAX } exit_kind;

/* A dense layer whose outputs only rise with the maximum: Y = X W + bias, or a DynamicLinear. */
typedef struct head {
    sdx_id layer, bias; /* node; of a product, the value that is added to it */
    sdx_id after[4];    /* the operators behind it, last one first: each reads the one after it, the last one Y */
    int n_after;
} head;

typedef struct way_out {
    exit_kind kind;
    sdx_id token; /* a value of the region */
    sdx_id out;   /* what the graph around reads: the same, or what the reader made of it */
    head head;    /* of EXIT_MAX */
} way_out;

typedef struct region {
    const sdx_graph *g;
    sdx_id entry, mask; /* [B,S,H]; int32 [B,S] or lengths [B] */
    bool *inside;       /* [n_value]: one row per token */
    bool *member;       /* [n_node] */
    way_out exit[MOST_EXITS];
    int n_exit;
    bool keep_first, binary;
} region;

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
    {OWN, "FusedLinear", 1, NULL},
    {OWN, "DynamicLinear", 1, is_per_row},
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

static bool fits_row_wise(const region *r, const sdx_node *n)
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

typedef struct attention_op {
    const char *domain, *name, *packed;
    int tokens;     /* inputs that have a row per token, from the first on */
    int mask, n_in; /* the place of the mask; inputs of the packed form, spans last */
} attention_op;

static const attention_op attention_ops[] = {
    {SDX_MS, "Attention", "PackedAttention", 1, 3, 8},
    {OWN, "DynamicAttention", "PackedDynamicAttention", 1, 5, 10},
    {SDX_MS, "MultiHeadAttention", "PackedMultiHeadAttention", 3, 4, 11},
};

static const attention_op *find_attention(const sdx_node *n)
{
    for (size_t i = 0; i < sizeof attention_ops / sizeof *attention_ops; i++)
        if (sdx_match_is_in(n, attention_ops[i].domain, attention_ops[i].name)) return &attention_ops[i];
    return NULL;
}

static bool reads_constants_but(const sdx_graph *g, const sdx_node *n, const attention_op *a)
{
    for (int i = a->tokens; i < n->n_in; i++)
        if (i != a->mask && n->in[i] != SDX_NONE && !sdx_graph_constant(g, n->in[i])) return false;
    return true;
}

/* Of a text's own tokens under one mask: no past, no bias, no present. */
static bool fits_attention(const sdx_graph *g, const sdx_node *n)
{
    const attention_op *a = find_attention(n);
    sdx_id mask = a ? sdx_node_in(n, a->mask) : SDX_NONE;
    if (mask == SDX_NONE || !has_one_result(g, n) || sdx_node_int(n, "unidirectional", 0)) return false;
    for (int i = 0; i < a->tokens; i++)
        if (sdx_node_in(n, i) == SDX_NONE || !is_token_type(g, n->in[i])) return false;
    const sdx_type *m = sdx_match_type(g, mask), *x = sdx_match_type(g, n->in[0]);
    bool lengths = m->shape.rank == 1 && m->shape.dim[0] == x->shape.dim[0];
    return m->dtype == SDX_I32 && (lengths || m->shape.rank == 2) && reads_constants_but(g, n, a);
}

static bool attends_inside(const region *r, const sdx_node *n)
{
    const attention_op *a = find_attention(n);
    if (!a || !fits_attention(r->g, n) || n->in[a->mask] != r->mask) return false;
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

/* ---- growing a region ------------------------------------------------------------------------------------ */

static void grow(region *r)
{
    r->inside[r->entry] = true;
    for (sdx_id i = 0; i < r->g->n_node; i++) {
        const sdx_node *n = &r->g->node[i];
        if (!attends_inside(r, n) && !fits_row_wise(r, n)) continue;
        r->member[i] = true;
        r->inside[n->out[0]] = true;
    }
}

/* ---- ways out -------------------------------------------------------------------------------------------- */

static sdx_id mask_root(const sdx_graph *g, sdx_id v)
{
    const sdx_node *cast = sdx_match_op(g, v, "Cast");
    return cast ? mask_root(g, cast->in[0]) : v;
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

static bool is_masked(const region *r, const sdx_node *n, sdx_id token)
{
    if (!sdx_match_is(n, "Mul") || sdx_match_type(r->g, r->mask)->shape.rank != 2) return false;
    sdx_id other = n->in[0] == token ? n->in[1] : n->in[0];
    return other != token && is_mask_factor(r->g, other, mask_root(r->g, r->mask));
}

static bool takes_first(const region *r, const sdx_node *n)
{
    int64_t index;
    int count = 0;
    bool scalar = sdx_match_is(n, "Gather") && sdx_node_int(n, "axis", 0) == 1 &&
                  sdx_match_type(r->g, n->in[1])->shape.rank == 0;
    return scalar && sdx_type_ints(sdx_match_type(r->g, n->in[1]), 1, &index, &count) && count == 1 && index == 0;
}

static bool add_exit(region *r, way_out exit)
{
    for (int i = 0; i < r->n_exit; i++)
        if (r->exit[i].out == exit.out) return true;
    if (r->n_exit == MOST_EXITS) return false;
    r->exit[r->n_exit++] = exit;
    return true;
}

/* The only reader of v, or NULL. */
static const sdx_node *sole_reader(const sdx_graph *g, sdx_id v)
{
    bool one = g->value[v].uses == 1 && !g->value[v].is_output;
    return one ? &g->node[g->use_node[g->use_begin[v]]] : NULL;
}

/* Never falls when its one input rises; *other: that input. */
static bool is_monotone(const sdx_graph *g, const sdx_node *n, sdx_id *other)
{
    double number;
    *other = n->in[0];
    return sdx_match_is(n, "Relu") || sdx_match_is(n, "Log") ||
           (sdx_match_is(n, "Add") && sdx_match_scalar_operand(g, n, other, &number));
}

static bool ends_in_relu(const sdx_node *n)
{
    return sdx_match_is_in(n, OWN, "DynamicLinear") && !strcmp(sdx_node_string(n, "activation", ""), "Relu");
}

/* A product with a constant matrix, or a DynamicLinear that bends its sums no more than a Relu. */
static bool is_layer(const sdx_node *n)
{
    if (sdx_match_is_in(n, OWN, "DynamicLinear"))
        return ends_in_relu(n) || *sdx_node_string(n, "activation", "") == '\0';
    if (sdx_match_is_in(n, SDX_MS, "FusedMatMul"))
        return sdx_node_int(n, "transB", 0) && sdx_node_float(n, "alpha", 1.0f) == 1.0f;
    return sdx_match_is(n, "MatMul");
}

/* v as a dense layer of the region, and what comes after it; a Relu must be there, or behind the maximum. */
static bool match_head(const region *r, sdx_id v, bool relu, head *h)
{
    const sdx_graph *g = r->g;
    sdx_id before;
    *h = (head){.bias = SDX_NONE};
    const sdx_node *n = sdx_graph_producer(g, v);
    for (; n && is_monotone(g, n, &before); n = sdx_graph_producer(g, before)) {
        if (h->n_after == 4 || !sole_reader(g, n->out[0])) return false;
        relu |= sdx_match_is(n, "Relu");
        h->after[h->n_after++] = sdx_match_id(g, n);
    }
    if (n && sdx_match_bias(g, n, &before, &h->bias)) {
        if (!sole_reader(g, n->out[0])) return false;
        n = sdx_graph_producer(g, before);
        if (sdx_match_is_in(n, OWN, "DynamicLinear")) return false; /* it has its own */
    }
    h->layer = sdx_match_id(g, n);
    return (relu || ends_in_relu(n)) && n && is_layer(n) && r->member[h->layer] && sole_reader(g, n->out[0]);
}

static bool reduces_tokens(const sdx_graph *g, const sdx_node *n)
{
    size_t count = 0;
    const int64_t *axes = sdx_node_ints(n, "axes", &count);
    int64_t axis = axes && count == 1 ? axes[0] : -1;
    int known = (int)count;
    if (n->n_in > 1 && n->in[1] != SDX_NONE && !sdx_type_ints(sdx_match_type(g, n->in[1]), 1, &axis, &known)) return false;
    return known == 1 && (axis == 1 || axis == -2) && !sdx_node_int(n, "keepdims", 1);
}

/* mul = token * mask, whose maximum over the tokens is all that anybody reads. */
static bool leave_by_max(region *r, const sdx_node *mul, sdx_id token)
{
    const sdx_graph *g = r->g;
    const sdx_node *max = sole_reader(g, mul->out[0]);
    if (!sdx_match_is(max, "ReduceMax") || !reduces_tokens(g, max)) return false;
    const sdx_node *next = sole_reader(g, max->out[0]);
    way_out exit = {EXIT_MAX, token, max->out[0], {0}};
    if (!sole_reader(g, token) || !match_head(r, token, sdx_match_is(next, "Relu"), &exit.head)) return false;
    r->binary = true;
    return add_exit(r, exit);
}

/* The node outside reads a token value: whether that works, and as what. */
static bool leave_by(region *r, const sdx_node *n, sdx_id token)
{
    if (takes_first(r, n)) {
        r->keep_first = true;
        return add_exit(r, (way_out){EXIT_FIRST, token, n->out[0], {0}});
    }
    return is_masked(r, n, token) &&
           (leave_by_max(r, n, token) || add_exit(r, (way_out){EXIT_TOKENS, token, token, {0}}));
}

static bool find_exits(region *r, bool skip_padding)
{
    const sdx_graph *g = r->g;
    for (sdx_id v = 0; v < g->n_value; v++) {
        if (!r->inside[v] || v == r->entry) continue;
        if (g->value[v].is_output && !(skip_padding && add_exit(r, (way_out){EXIT_TOKENS, v, v, {0}}))) return false;
        for (sdx_id u = g->use_begin[v]; u < g->use_begin[v + 1]; u++) {
            sdx_id reader = g->use_node[u];
            if (!r->member[reader] && !leave_by(r, &g->node[reader], v)) return false;
        }
    }
    return r->n_exit > 0;
}

/* ---- the body -------------------------------------------------------------------------------------------- */

typedef struct moving {
    sdx_pass_context *context;
    const region *r;
    sdx_graph *outer, *body;
    sdx_id *map; /* [outer->n_value]: a value's id in the body */
    sdx_id spans, visible;
} moving;

/* Whether members are all that read a constant: then it moves with them. */
static bool is_theirs(const moving *m, sdx_id v)
{
    const sdx_graph *g = m->outer;
    for (sdx_id u = g->use_begin[v]; u < g->use_begin[v + 1]; u++)
        if (!m->r->member[g->use_node[u]]) return false;
    return !g->value[v].is_output;
}

static sdx_status bring(moving *m, sdx_id v, sdx_id *id)
{
    *id = v == SDX_NONE ? SDX_NONE : m->map[v];
    if (v == SDX_NONE || *id != SDX_NONE) return SDX_OK;
    sdx_error *err = m->context->err;
    const sdx_value *from = &m->outer->value[v];
    if (sdx_graph_constant(m->outer, v) && is_theirs(m, v)) {
        TRY(sdx_graph_add_constant(m->body, from->name, from->type.constant, id, err));
    } else {
        TRY(sdx_graph_add_value(m->body, from->name, id, err));
        m->body->value[*id].outer = v;
        m->body->value[*id].type = from->type;
    }
    m->map[v] = *id;
    return SDX_OK;
}

/* The same node in the body; attention reads `visible` and `spans` instead of the mask. */
static sdx_status move_node(moving *m, const sdx_node *n)
{
    enum { MOST = 16 };
    sdx_id in[MOST], out, id;
    sdx_error *err = m->context->err;
    const attention_op *a = find_attention(n);
    int n_in = a ? a->n_in : n->n_in;
    if (n->n_in > MOST) return sdx_fail(err, SDX_ERR_INTERNAL, "a node of %d inputs cannot be packed", n->n_in);
    for (int i = 0; i < n_in; i++) TRY(bring(m, a && i == a->mask ? SDX_NONE : sdx_node_in(n, i), &in[i]));
    if (a) in[a->mask] = m->visible, in[n_in - 1] = m->spans;
    TRY(sdx_graph_add_value(m->body, m->outer->value[n->out[0]].name, &out, err));
    m->map[n->out[0]] = out;
    TRY(sdx_graph_add_node(m->body, a ? OWN : n->domain, a ? a->packed : n->op_type, n->name, n_in, in, 1, &out, &id, err));
    sdx_node *copy = &m->body->node[id];
    copy->attr = n->attr;
    copy->n_attr = n->n_attr;
    copy->version = a ? 0 : n->version;
    return SDX_OK;
}

static sdx_status add_inputs(moving *m)
{
    sdx_shape hidden = sdx_match_type(m->outer, m->r->entry)->shape;
    sdx_shape tokens = {.rank = 3, .dim = {1, SDX_DIM_UNKNOWN, hidden.dim[2]}};
    sdx_shape spans = {.rank = 2, .dim = {SDX_DIM_UNKNOWN, 2}}, visible = {.rank = 2, .dim = {1, SDX_DIM_UNKNOWN}};
    sdx_error *err = m->context->err;
    TRY(sdx_graph_add_input(m->body, "tokens", SDX_F32, &tokens, &m->map[m->r->entry], err));
    TRY(sdx_graph_add_input(m->body, "spans", SDX_I64, &spans, &m->spans, err));
    return sdx_graph_add_input(m->body, "visible", SDX_I32, &visible, &m->visible, err);
}

static sdx_status add_linear_max(moving *m, const head *h, sdx_id *y)
{
    enum { MOST = 6 };
    const sdx_node *n = &m->outer->node[h->layer];
    bool dynamic = sdx_node_is_in(n, OWN, "DynamicLinear");
    int n_in = dynamic ? MOST : 4;
    sdx_id in[MOST];
    for (int i = 0; i < n_in - 1; i++)
        TRY(bring(m, !dynamic && i == 2 ? h->bias : sdx_node_in(n, i), &in[i]));
    in[n_in - 1] = m->spans;
    sdx_error *err = m->context->err;
    TRY(sdx_graph_emit(m->body, OWN, dynamic ? "DynamicLinearMax" : "LinearMax", n->name, n_in, in, y, err));
    bool transposed = sdx_node_int(n, "transB", 0) != 0;
    return sdx_node_set_int(m->body, m->body->value[*y].producer, "transposed", transposed, err);
}

/* The maxima, then what comes after the layer, on [texts, columns]. */
static sdx_status add_head(moving *m, const head *h, sdx_id *y)
{
    TRY(add_linear_max(m, h, y));
    if (ends_in_relu(&m->outer->node[h->layer])) TRY(sdx_graph_emit(m->body, "", "Relu", "", 1, y, y, m->context->err));
    for (int i = h->n_after; i-- > 0;) {
        const sdx_node *n = &m->outer->node[h->after[i]];
        sdx_id operand[2] = {*y, SDX_NONE}, other;
        is_monotone(m->outer, n, &other);
        if (n->n_in == 2) TRY(bring(m, n->in[n->in[0] == other], &operand[1]));
        TRY(sdx_graph_emit(m->body, "", n->op_type, n->name, n->n_in, operand, y, m->context->err));
    }
    return SDX_OK;
}

static sdx_status add_exit_node(moving *m, const way_out *exit)
{
    sdx_id v = m->map[exit->token];
    if (exit->kind == EXIT_FIRST)
        TRY(sdx_graph_emit(m->body, OWN, "FirstTokens", m->outer->value[exit->out].name, 2,
                           (sdx_id[]){m->map[exit->token], m->spans}, &v, m->context->err));
    if (exit->kind == EXIT_MAX) TRY(add_head(m, &exit->head, &v));
    return sdx_graph_add_output(m->body, v, m->context->err);
}

static sdx_status make_body(moving *m)
{
    sdx_error *err = m->context->err;
    sdx_arena *arena = &m->context->model->arena;
    TRY(sdx_graph_create(m->context->model, m->outer, &m->body, err));
    m->body->name = "tokens";
    ARENA_NEW(arena, m->map, (size_t)m->outer->n_value, err);
    for (sdx_id v = 0; v < m->outer->n_value; v++) m->map[v] = SDX_NONE;
    TRY(add_inputs(m));
    for (sdx_id i = 0; i < m->outer->n_node; i++)
        if (m->r->member[i]) TRY(move_node(m, &m->outer->node[i]));
    for (int i = 0; i < m->r->n_exit; i++) TRY(add_exit_node(m, &m->r->exit[i]));
    return sdx_graph_clean(m->body, err); /* a layer that became a LinearMax */
}

/* ---- the pass -------------------------------------------------------------------------------------------- */

static sdx_status pack(sdx_pass_context *context, sdx_graph *g, const region *r, sdx_id anchor)
{
    moving m = {.context = context, .r = r, .outer = g};
    sdx_id in[] = {r->entry, r->mask}, out[MOST_EXITS], node;
    int64_t per_token[MOST_EXITS];
    TRY(make_body(&m));
    for (int i = 0; i < r->n_exit; i++) {
        out[i] = r->exit[i].out;
        per_token[i] = r->exit[i].kind == EXIT_TOKENS;
    }
    TRY(sdx_pass_replace(context, g, anchor, OWN, "PackTokens", 2, in, r->n_exit, out, &node));
    TRY(sdx_node_set_graph(g, node, "body", m.body, context->err));
    TRY(sdx_node_set_ints(g, node, "token_outputs", (size_t)r->n_exit, per_token, context->err));
    TRY(sdx_node_set_int(g, node, "keep_first", r->keep_first, context->err));
    return sdx_node_set_int(g, node, "binary", r->binary, context->err);
}

static sdx_status pack_from(sdx_pass_context *context, sdx_graph *g, sdx_id attention)
{
    const sdx_node *n = &g->node[attention];
    region r = {.g = g, .entry = find_entry(g, n->in[0]), .mask = n->in[find_attention(n)->mask]};
    sdx_arena *arena = &context->model->arena;
    ARENA_NEW(arena, r.inside, (size_t)g->n_value, context->err);
    ARENA_NEW(arena, r.member, (size_t)g->n_node, context->err);
    grow(&r);
    if (!r.member[attention] || !find_exits(&r, context->skip_padding)) return SDX_OK;
    TRY(pack(context, g, &r, attention));
    return sdx_pass_finish(context, g);
}

sdx_status sdx_pass_pack_tokens(sdx_pass_context *context, sdx_graph *graph)
{
    if (!context->for_run) return SDX_OK;
    for (sdx_id i = 0; i < graph->n_node; i++)
        if (!graph->node[i].dead && find_attention(&graph->node[i]) && fits_attention(graph, &graph->node[i]))
            return pack_from(context, graph, i);
    return SDX_OK;
}
