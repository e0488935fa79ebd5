/* token_body.c: a region of token rows as a graph of its own: the same nodes between the inputs tokens [1,T,H], spans
 * [N,2] and visible [1,T], and what leaves it as outputs. Weights that nobody else reads move along, so that they are
 * packed and dropped there; others are captured. */
#include "token_region.h"

typedef struct moving {
    sdx_pass_context *context;
    const sdx_token_region *r;
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
    const sdx_token_attention *a = sdx_token_attention_of(n);
    int n_in = a ? a->n_in : n->n_in;
    if (n->n_in > MOST) return sdx_fail(err, SDX_ERR_INTERNAL, "a node of %d inputs cannot be packed", n->n_in);
    for (int i = 0; i < n_in; i++) TRY(bring(m, a && i == a->mask ? SDX_NONE : sdx_node_in(n, i), &in[i]));
    if (a) in[a->mask] = m->visible, in[n_in - 1] = m->spans;
    TRY(sdx_graph_add_value(m->body, m->outer->value[n->out[0]].name, &out, err));
    m->map[n->out[0]] = out;
    TRY(sdx_graph_add_node(m->body, a ? SDX_OWN : n->domain, a ? a->packed : n->op_type, n->name, n_in, in, 1, &out,
                           &id, err));
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

static sdx_status add_linear_max(moving *m, const sdx_token_head *h, sdx_id *y)
{
    enum { MOST = 7 };
    const sdx_node *n = &m->outer->node[h->layer];
    bool dynamic = sdx_node_is_in(n, SDX_OWN, "DynamicLinear");
    int n_in = dynamic ? MOST : 4;
    sdx_id in[MOST];
    for (int i = 0; i < n_in - 1; i++)
        TRY(bring(m, !dynamic && i == 2 ? h->bias : sdx_node_in(n, i), &in[i]));
    in[n_in - 1] = m->spans;
    sdx_error *err = m->context->err;
    TRY(sdx_graph_emit(m->body, SDX_OWN, dynamic ? "DynamicLinearMax" : "LinearMax", n->name, n_in, in, y, err));
    bool transposed = sdx_node_int(n, "transB", 0) != 0;
    return sdx_node_set_int(m->body, m->body->value[*y].producer, "transposed", transposed, err);
}

/* The maxima, then what comes after the layer, on [texts, columns]. */
static sdx_status add_head(moving *m, const sdx_token_head *h, sdx_id *y)
{
    TRY(add_linear_max(m, h, y));
    if (sdx_token_ends_in_relu(&m->outer->node[h->layer]))
        TRY(sdx_graph_emit(m->body, "", "Relu", "", 1, y, y, m->context->err));
    for (int i = h->n_after; i-- > 0;) {
        const sdx_node *n = &m->outer->node[h->after[i]];
        sdx_id operand[2] = {*y, SDX_NONE}, other;
        sdx_token_is_monotone(m->outer, n, &other);
        if (n->n_in == 2) TRY(bring(m, n->in[n->in[0] == other], &operand[1]));
        TRY(sdx_graph_emit(m->body, "", n->op_type, n->name, n->n_in, operand, y, m->context->err));
    }
    return SDX_OK;
}

static sdx_status add_exit_node(moving *m, const sdx_token_exit *exit)
{
    sdx_id v = m->map[exit->token];
    if (exit->kind == SDX_EXIT_FIRST)
        TRY(sdx_graph_emit(m->body, SDX_OWN, "FirstTokens", m->outer->value[exit->out].name, 2,
                           (sdx_id[]){m->map[exit->token], m->spans}, &v, m->context->err));
    if (exit->kind == SDX_EXIT_MAX) TRY(add_head(m, &exit->head, &v));
    return sdx_graph_add_output(m->body, v, m->context->err);
}

sdx_status sdx_token_body_make(sdx_pass_context *context, const sdx_token_region *r, sdx_graph **body)
{
    moving m = {.context = context, .r = r, .outer = r->g};
    sdx_error *err = context->err;
    TRY(sdx_graph_create(context->model, m.outer, &m.body, err));
    m.body->name = "tokens";
    ARENA_NEW(&context->model->arena, m.map, (size_t)m.outer->n_value, err);
    for (sdx_id v = 0; v < m.outer->n_value; v++) m.map[v] = SDX_NONE;
    TRY(add_inputs(&m));
    for (sdx_id i = 0; i < m.outer->n_node; i++)
        if (r->member[i]) TRY(move_node(&m, &m.outer->node[i]));
    for (int i = 0; i < r->n_exit; i++) TRY(add_exit_node(&m, &r->exit[i]));
    *body = m.body;
    return sdx_graph_clean(m.body, err); /* a layer that became a LinearMax */
}
