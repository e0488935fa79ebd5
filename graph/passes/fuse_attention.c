/* fuse_attention.c: self-attention (Vaswani et al.: "Attention Is All You Need", 2017) with its three
 * projections.
 *
 *          +-- x Wq + bq -- [b,n,t,h] ----+
 *     x ---+-- x Wk + bk -- [b,n,h,t] -- MatMul -- (+ mask) (+ bias) -- Softmax --+
 *          +-- x Wv + bv -- [b,n,t,h] ---------------------------------------- MatMul -- [b,t,nh]
 *
 * becomes com.microsoft Attention(x, [Wq|Wk|Wv], [bq|bk|bv], mask, -, bias). The match goes by meaning, not by
 * exporter: from the last Reshape upwards, layout changes are replayed (layout.h), every multiplication or
 * division by a number anywhere on the way counts into one scale, and a mask is what acts like one (mask.h).
 * The 2-D mask is handed over as it is, so that padding may be on either side, and its fill value with it. A
 * mask that was set rather than added differs only in rows that look at nothing at all. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "layout.h"
#include "mask.h"
#include "passes.h"

enum { Q, K, V };
#define LEAST_FILL (-1e3) /* a fill value above this does not hide a key */

typedef struct projection {
    sdx_id x, weight, bias; /* weight [in, out], or [out, in] when transposed; bias SDX_NONE: zero */
    bool transposed;
    const char *layout; /* of what comes out */
    int64_t in, out;
} projection;

typedef struct term { /* something that happens to the scores between MatMul and Softmax */
    sdx_id value;
    bool where; /* value is a condition, under which a score becomes fill (or, inverted, keeps) */
    bool inverted;
    double fill;
} term;

typedef struct scores {
    const sdx_node *product;
    double scale;
    term term[2];
    int n_term;
} scores;

typedef struct attention {
    projection p[3];
    int64_t heads, head_size;
    double scale;
    sdx_id mask, bias; /* SDX_NONE: none */
    double fill;
} attention;

/* ---- projections ---------------------------------------------------------------------------------------- */

static bool match_weight(const sdx_graph *g, sdx_id v, bool transposed, projection *p)
{
    const sdx_tensor *w = sdx_graph_constant(g, v);
    if (!w || w->dtype != SDX_F32 || w->rank != 2) return false;
    p->weight = v;
    p->transposed = transposed;
    p->in = w->dim[transposed];
    p->out = w->dim[!transposed];
    return true;
}

/* Gemm works on [b*t, in], so a Reshape comes before it. */
static const char *match_gemm(const sdx_graph *g, const sdx_node *gemm, projection *p)
{
    bool plain = sdx_node_float(gemm, "alpha", 1) == 1 && sdx_node_float(gemm, "beta", 1) == 1 &&
                 sdx_node_int(gemm, "transA", 0) == 0;
    const sdx_node *flat = sdx_match_op(g, gemm->in[0], "Reshape");
    if (!plain || !flat) return "a Gemm that is not x W + b of a flattened x";
    if (!match_weight(g, gemm->in[1], sdx_node_int(gemm, "transB", 0) != 0, p))
        return "a weight is not constant";
    p->x = sdx_match_through(g, flat->in[0]);
    p->bias = sdx_node_in(gemm, 2);
    p->layout = "bt|nh";
    if (sdx_match_last_dim(g, gemm->in[0]) != p->in) return "the flattened x is not [tokens, in]";
    return p->bias == SDX_NONE || sdx_match_vector(g, p->bias, p->out) ? NULL
                                                                       : "a bias is not a constant vector";
}

static const char *match_projection(const sdx_graph *g, sdx_id top, projection *p)
{
    const sdx_node *gemm = sdx_match_op(g, top, "Gemm");
    if (gemm) return match_gemm(g, gemm, p);
    sdx_id product = top;
    p->bias = SDX_NONE;
    p->layout = "b|t|nh";
    const sdx_node *add = sdx_match_op(g, top, "Add");
    if (add && !sdx_match_bias(g, add, &product, &p->bias)) return "a bias is not a constant vector";
    const sdx_node *matmul = sdx_match_op(g, product, "MatMul");
    if (!matmul) return "a projection is not MatMul and Add";
    if (!match_weight(g, matmul->in[1], false, p)) return "a projection's weight is not a constant matrix";
    p->x = sdx_match_through(g, matmul->in[0]);
    return NULL;
}

/* ---- heads ---------------------------------------------------------------------------------------------- */

/* The first Reshape after a projection splits its last dim. */
static bool read_heads(const sdx_graph *g, const sdx_path *path, int64_t *heads, int64_t *head_size)
{
    if (path->count == 0) return false;
    const sdx_node *split = &g->node[path->node[path->count - 1]];
    const sdx_shape *s = &sdx_match_type(g, split->out[0])->shape;
    if (!sdx_match_is(split, "Reshape") || s->rank < 3) return false;
    *heads = s->dim[s->rank - 2];
    *head_size = s->dim[s->rank - 1];
    return *heads > 0 && *head_size > 0;
}

static const char *match_operand(const sdx_graph *g, sdx_id v, int which, attention *m, sdx_layout *layout)
{
    projection *p = &m->p[which];
    sdx_path path;
    int64_t heads, head_size;
    sdx_path_read(g, v, &path);
    const char *reason = match_projection(g, path.top, p);
    if (reason) return reason;
    if (!read_heads(g, &path, &heads, &head_size)) return "no Reshape splits the heads";
    if (which == Q) {
        m->heads = heads;
        m->head_size = head_size;
    }
    if (heads != m->heads || head_size != m->head_size || p->out != heads * head_size)
        return "heads differ in size";
    if (which == V && path.scale != 1) return "the values are scaled";
    if (which != V) m->scale *= path.scale;
    const sdx_shape *x = &sdx_match_type(g, p->x)->shape;
    if (x->rank != 3 || x->dim[2] != p->in || sdx_match_type(g, p->x)->dtype != SDX_F32)
        return "x is not float32[b,t,in]";
    sdx_element size[SDX_LAYOUT_ATOMS] = {sdx_element_from_dim(x->dim[0]), sdx_element_from_dim(x->dim[1]),
                                          sdx_element_number(heads), sdx_element_number(head_size)};
    *layout = sdx_layout_make(p->layout, size);
    return sdx_path_follow(&path, g, layout) ? NULL : "the way of a projection to its heads is unclear";
}

static const char *match_operands(const sdx_graph *g, const sdx_node *product, const sdx_node *context,
                                  attention *m, sdx_layout *result)
{
    sdx_layout q, k;
    const char *reason = match_operand(g, product->in[0], Q, m, &q);
    if (!reason) reason = match_operand(g, product->in[1], K, m, &k);
    if (!reason) reason = match_operand(g, context->in[1], V, m, result);
    if (reason) return reason;
    bool four =
        sdx_layout_is(&q, "b|n|t|h") && sdx_layout_is(&k, "b|n|h|t") && sdx_layout_is(result, "b|n|t|h");
    bool three = sdx_layout_is(&q, "bn|t|h") && sdx_layout_is(&k, "bn|h|t") && sdx_layout_is(result, "bn|t|h");
    if (!four && !three) return "queries, keys and values do not meet head by head";
    if (m->p[Q].x != m->p[K].x || m->p[Q].x != m->p[V].x)
        return "queries, keys and values have different inputs";
    return m->p[Q].in == m->p[K].in && m->p[Q].in == m->p[V].in ? NULL : "projections differ in size";
}

/* ---- scores --------------------------------------------------------------------------------------------- */

static bool read_scores(const sdx_graph *g, sdx_id v, int depth, scores *s);

static bool add_term(scores *s, term t)
{
    if (s->n_term == (int)(sizeof s->term / sizeof *s->term)) return false;
    s->term[s->n_term++] = t;
    return true;
}

static bool read_where(const sdx_graph *g, const sdx_node *n, int depth, scores *s)
{
    double fill;
    for (int i = 1; i <= 2; i++) /* Where(c, fill, scores) or Where(c, scores, fill) */
        if (sdx_graph_scalar(g, n->in[i], &fill))
            return read_scores(g, n->in[3 - i], depth, s) && add_term(s, (term){n->in[0], true, i == 2, fill});
    return false;
}

static bool read_scores(const sdx_graph *g, sdx_id v, int depth, scores *s)
{
    const sdx_node *n = sdx_graph_producer(g, sdx_match_through(g, v));
    double factor;
    if (!n || depth == 0) return false;
    if (sdx_match_is(n, "MatMul")) {
        *s = (scores){.product = n, .scale = 1};
        return !sdx_graph_constant(g, n->in[0]) && !sdx_graph_constant(g, n->in[1]);
    }
    if (sdx_match_factor(g, n, &v, &factor)) {
        if (!read_scores(g, v, depth - 1, s) || s->n_term > 0) return false; /* the terms would be scaled too */
        s->scale *= factor;
        return true;
    }
    if (sdx_match_is(n, "Where")) return read_where(g, n, depth - 1, s);
    if (!sdx_match_is(n, "Add")) return false;
    for (int i = 0; i < 2; i++)
        if (read_scores(g, n->in[i], depth - 1, s)) return add_term(s, (term){.value = n->in[1 - i]});
    return false;
}

/* The value of every hidden score, when the term is a mask [b,1,*,t] and nothing else. */
static const char *match_mask_term(const sdx_graph *g, const term *t, attention *m)
{
    sdx_mask mask;
    const char *reason = sdx_match_mask(g, t->value, &mask);
    if (reason) return reason;
    if (mask.key != 0 || mask.batch != 3) return "the mask's axes are not [batch, 1, *, keys]";
    const sdx_shape *x = &sdx_match_type(g, m->p[Q].x)->shape;
    if (!sdx_dim_same(mask.batch_size, x->dim[0]) || !sdx_dim_same(mask.key_size, x->dim[1]))
        return "the mask may have other sizes than x";
    if (t->where) {
        bool hides[2] = {(mask.at[0] != 0) != t->inverted, (mask.at[1] != 0) != t->inverted};
        if (!hides[0] || hides[1]) return "the mask does not hide where it is 0";
        mask.at[0] = t->fill;
    } else if (mask.at[1] != 0) {
        return "the mask adds something where it is 1";
    }
    if (!(mask.at[0] <= LEAST_FILL)) return "the mask's fill value hides nothing";
    m->mask = mask.source;
    m->fill = mask.at[0] < -FLT_MAX ? -FLT_MAX : mask.at[0];
    return NULL;
}

/* Attention wants [b|1, n|1, t, t] spelled out. */
static bool is_full_bias(const sdx_graph *g, sdx_id v, const attention *m)
{
    const sdx_type *type = sdx_match_type(g, v);
    const sdx_shape *s = &type->shape, *x = &sdx_match_type(g, m->p[Q].x)->shape;
    return type->dtype == SDX_F32 && s->rank == 4 && (s->dim[0] == 1 || sdx_dim_same(s->dim[0], x->dim[0])) &&
           (s->dim[1] == 1 || s->dim[1] == m->heads) && sdx_dim_same(s->dim[2], x->dim[1]) &&
           sdx_dim_same(s->dim[3], x->dim[1]);
}

static const char *match_terms(const sdx_graph *g, const scores *s, attention *m)
{
    for (int i = 0; i < s->n_term; i++) {
        const char *reason = m->mask == SDX_NONE ? match_mask_term(g, &s->term[i], m) : "two masks";
        if (!reason) continue;
        if (s->term[i].where || m->bias != SDX_NONE || !is_full_bias(g, s->term[i].value, m)) return reason;
        m->bias = s->term[i].value;
    }
    return NULL;
}

/* ---- the whole ------------------------------------------------------------------------------------------ */

/* Softmax over keys, behind the guard Where(IsNaN(p), 0, p) of newer exporters. */
static const sdx_node *match_softmax(const sdx_graph *g, sdx_id v)
{
    const sdx_node *guard = sdx_match_op(g, v, "Where");
    const sdx_node *is_nan = guard ? sdx_match_op(g, guard->in[0], "IsNaN") : NULL;
    double zero;
    if (is_nan && is_nan->in[0] == guard->in[2] && sdx_graph_scalar(g, guard->in[1], &zero) && zero == 0)
        v = guard->in[2];
    const sdx_node *softmax = sdx_match_op(g, v, "Softmax");
    int64_t missing = sdx_model_opset(g->model, "") >= 13 ? -1 : 1;
    return softmax && sdx_match_axis_is_last(g, softmax, missing, softmax->in[0]) ? softmax : NULL;
}

static const char *match_attention(const sdx_graph *g, const sdx_node *last, attention *m)
{
    sdx_path path;
    sdx_layout layout;
    scores s;
    sdx_path_read(g, last->out[0], &path);
    const sdx_node *context = path.scale == 1 ? sdx_match_op(g, path.top, "MatMul") : NULL;
    const sdx_node *softmax = context ? match_softmax(g, context->in[0]) : NULL;
    if (!softmax) return "no product with a Softmax";
    if (g->value[softmax->out[0]].is_output) return "the attention weights are an output of the graph";
    if (!read_scores(g, softmax->in[0], 6, &s)) return "no product of queries and keys before the Softmax";
    *m = (attention){.scale = s.scale, .mask = SDX_NONE, .bias = SDX_NONE};
    const char *reason = match_operands(g, s.product, context, m, &layout);
    if (reason) return reason;
    if (!sdx_path_follow(&path, g, &layout) || !sdx_layout_is(&layout, "b|t|nh"))
        return "the heads are not joined again";
    return match_terms(g, &s, m);
}

/* ---- packing -------------------------------------------------------------------------------------------- */

/* Rows of [Wq|Wk|Wv], each [in, out]. The weights may lie unaligned in the file. */
static void pack_weight(const sdx_graph *g, const attention *m, char *packed)
{
    for (int which = Q; which <= V; which++) {
        const projection *p = &m->p[which];
        const char *w = sdx_graph_constant(g, p->weight)->data;
        size_t row = (size_t)p->out * sizeof(float), offset = (size_t)which * row;
        for (int64_t i = 0; i < p->in; i++) {
            char *to = packed + (size_t)i * 3 * row + offset;
            if (!p->transposed)
                memcpy(to, w + (size_t)i * row, row);
            else
                for (int64_t k = 0; k < p->out; k++)
                    memcpy(to + (size_t)k * sizeof(float), w + (size_t)(k * p->in + i) * sizeof(float),
                           sizeof(float));
        }
    }
}

static void pack_bias(const sdx_graph *g, const attention *m, char *packed)
{
    for (int which = Q; which <= V; which++) {
        const projection *p = &m->p[which];
        size_t bytes = (size_t)p->out * sizeof(float);
        if (p->bias != SDX_NONE)
            memcpy(packed + (size_t)which * bytes, sdx_graph_constant(g, p->bias)->data, bytes);
    }
}

static sdx_status add_packed(sdx_pass_context *context, sdx_graph *g, const attention *m, bool bias,
                             sdx_id *out)
{
    const projection *p = &m->p[Q];
    sdx_tensor t = {.dtype = SDX_F32, .rank = bias ? 1 : 2, .dim = {p->in, 3 * p->out}};
    if (bias) t.dim[0] = 3 * p->out;
    size_t bytes = sdx_tensor_bytes(&t);
    t.data = sdx_arena_alloc(&g->model->arena, bytes);
    if (!t.data) return sdx_fail_memory(context->err, bytes);
    if (bias)
        pack_bias(g, m, t.data);
    else
        pack_weight(g, m, t.data);
    sdx_id named = bias && p->bias != SDX_NONE ? p->bias : p->weight;
    const char *name =
        sdx_arena_printf(&g->model->arena, "%s_qkv%s", g->value[named].name, bias ? "_bias" : "");
    if (!name) return sdx_fail_memory(context->err, 64);
    return sdx_graph_add_constant(g, name, &t, out, context->err);
}

/* Layers may share their weights (ALBERT): each triple is packed once. */
typedef struct packing {
    projection p[3];
    sdx_id weight, bias;
    struct packing *next;
} packing;

static bool same_projections(const packing *a, const attention *m)
{
    for (int i = Q; i <= V; i++)
        if (a->p[i].weight != m->p[i].weight || a->p[i].bias != m->p[i].bias) return false;
    return true;
}

static sdx_status pack(sdx_pass_context *context, sdx_graph *g, const attention *m, packing **done,
                       packing **out)
{
    for (packing *p = *done; p; p = p->next)
        if (same_projections(p, m)) return *out = p, SDX_OK;
    packing *fresh;
    ARENA_NEW(&g->model->arena, fresh, 1, context->err);
    memcpy(fresh->p, m->p, sizeof fresh->p);
    TRY(add_packed(context, g, m, false, &fresh->weight));
    TRY(add_packed(context, g, m, true, &fresh->bias));
    fresh->next = *done;
    *out = *done = fresh;
    return SDX_OK;
}

/* ---- rewriting ------------------------------------------------------------------------------------------ */

static sdx_status set_attributes(sdx_pass_context *context, sdx_graph *g, sdx_id node, const attention *m)
{
    double usual = 1 / sqrt((double)m->head_size);
    TRY(sdx_node_set_int(g, node, "num_heads", m->heads, context->err));
    if (m->mask != SDX_NONE)
        TRY(sdx_node_set_float(g, node, "mask_filter_value", (float)m->fill, context->err));
    if (fabs(m->scale - usual) > 1e-6 * usual)
        TRY(sdx_node_set_float(g, node, "scale", (float)m->scale, context->err));
    return SDX_OK;
}

static sdx_status fuse(sdx_pass_context *context, sdx_graph *g, sdx_id last, const attention *m, packing **done)
{
    packing *packed = NULL;
    TRY(pack(context, g, m, done, &packed));
    sdx_id in[6] = {m->p[Q].x, packed->weight, packed->bias, SDX_NONE, SDX_NONE, m->bias};
    sdx_id out = g->node[last].out[0], node;
    if (m->mask != SDX_NONE) TRY(sdx_pass_int32(context, g, m->mask, &in[3]));
    int n_in = m->bias != SDX_NONE ? 6 : m->mask != SDX_NONE ? 4 : 3;
    TRY(sdx_pass_replace(context, g, last, SDX_MS, "Attention", n_in, in, 1, &out, &node));
    return set_attributes(context, g, node, m);
}

sdx_status sdx_pass_fuse_attention(sdx_pass_context *context, sdx_graph *graph)
{
    attention m;
    packing *done = NULL;
    sdx_id count = graph->n_node;
    for (sdx_id i = 0; i < count; i++) {
        const sdx_node *n = &graph->node[i];
        if (sdx_match_is(n, "Reshape") && !match_attention(graph, n, &m))
            TRY(fuse(context, graph, i, &m, &done));
    }
    return sdx_pass_finish(context, graph);
}
