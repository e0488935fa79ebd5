/* attention_match.c: finding an attention (Vaswani et al.: "Attention Is All You Need", 2017) by its meaning.
 *
 *     q -- [b,n,t,h] --+
 *                     MatMul -- (* scale) (+ mask) (+ bias) -- Softmax --+
 *     k -- [b,n,h,T] --+                                                MatMul -- [b,t,n,h] -- Reshape
 *     v -- [b,n,T,h] ----------------------------------------------------+
 *
 * No exporter's pattern is listed. From the last Reshape upwards, layout changes are replayed (layout.h), every
 * multiplication or division by a number anywhere on the way counts into one scale, and what is done to the scores
 * is read term by term (attention_scores.c). Queries, keys and values are taken where
 * they have the shape [b,t,nh], or as [b,n,T,h] when they come so from a cache; whether they are projections of
 * one x, which packs best, is noted, too. */
#include "attention.h"

const char *const sdx_attention_step[SDX_ATTENTION_STEPS] = {
    "a product with a Softmax over keys",
    "queries times keys before the Softmax",
    "queries, head by head",
    "keys, head by head",
    "values, head by head",
    "the heads joined again",
};

const char *sdx_attention_stop(sdx_attention *m, sdx_id node, const char *reason)
{
    m->stopped = node;
    return reason;
}

/* ---- projections ---------------------------------------------------------------------------------------- */

static bool match_weight(const sdx_graph *g, sdx_id v, bool transposed, sdx_projection *p)
{
    const sdx_tensor *w = sdx_graph_constant(g, v);
    if (!w || w->dtype != SDX_F32 || w->rank != 2) return false;
    p->weight = v;
    p->transposed = transposed;
    p->in = w->dim[transposed];
    p->all = w->dim[!transposed];
    return true;
}

/* Gemm works on [b*t, in], so a Reshape comes before it. */
static const char *match_gemm(const sdx_graph *g, const sdx_node *gemm, sdx_projection *p)
{
    bool plain = sdx_node_float(gemm, "alpha", 1) == 1 && sdx_node_float(gemm, "beta", 1) == 1 &&
                 sdx_node_int(gemm, "transA", 0) == 0;
    const sdx_node *flat = sdx_match_op(g, gemm->in[0], "Reshape");
    if (!plain || !flat) return "a Gemm that is not x W + b of a flattened x";
    if (!match_weight(g, gemm->in[1], sdx_node_int(gemm, "transB", 0) != 0, p))
        return "a weight is not constant";
    p->x = sdx_match_through(g, flat->in[0]);
    p->bias = sdx_node_in(gemm, 2);
    if (sdx_match_last_dim(g, gemm->in[0]) != p->in) return "the flattened x is not [tokens, in]";
    return p->bias == SDX_NONE || sdx_match_vector(g, p->bias, p->all) ? NULL
                                                                       : "a bias is not a constant vector";
}

static const char *match_product(const sdx_graph *g, sdx_id v, sdx_projection *p)
{
    const sdx_node *reshape = sdx_match_op(g, v, "Reshape");
    const sdx_node *gemm = sdx_match_op(g, reshape ? reshape->in[0] : v, "Gemm");
    if (gemm) return match_gemm(g, gemm, p);
    sdx_id product = v;
    p->bias = SDX_NONE;
    const sdx_node *add = sdx_match_op(g, v, "Add");
    if (add && !sdx_match_bias(g, add, &product, &p->bias)) return "a bias is not a constant vector";
    const sdx_node *matmul = sdx_match_op(g, product, "MatMul");
    if (!matmul) return "a projection is not MatMul and Add";
    if (!match_weight(g, matmul->in[1], false, p)) return "a projection's weight is not a constant matrix";
    p->x = sdx_match_through(g, matmul->in[0]);
    return NULL;
}

/* The output of a Split along the last axis: its columns and what was split. */
static bool match_split(const sdx_graph *g, sdx_id v, sdx_id *whole, int64_t *first)
{
    v = sdx_match_through(g, v);
    const sdx_node *n = sdx_graph_producer(g, v);
    if (!n || !sdx_match_is(n, "Split") || !sdx_match_axis_is_last(g, n, 0, n->in[0])) return false;
    *first = 0;
    for (int i = 0; i < n->n_out; i++) {
        if (n->out[i] == v) return *whole = n->in[0], true;
        sdx_dim width = n->out[i] == SDX_NONE ? SDX_DIM_UNKNOWN : sdx_match_last_dim(g, n->out[i]);
        if (!sdx_dim_is_known(width)) return false;
        *first += width;
    }
    return false;
}

static const char *match_projection(const sdx_graph *g, sdx_id v, sdx_heads *h)
{
    sdx_projection *p = &h->p;
    sdx_id whole = v;
    p->first = 0;
    bool part = match_split(g, v, &whole, &p->first);
    const char *reason = match_product(g, whole, p);
    if (reason) return reason;
    int64_t out = h->heads.number * h->head_size.number;
    p->out = out;
    if (part ? p->first + out > p->all : out != p->all) return "the weight's columns are not the heads";
    const sdx_type *x = sdx_match_type(g, p->x);
    if (x->dtype != SDX_F32 || x->shape.rank != 3 || x->shape.dim[2] != p->in)
        return "x is not float32[b,t,in]";
    bool same = sdx_dim_same(x->shape.dim[0], sdx_element_to_dim(h->batch)) &&
                sdx_dim_same(x->shape.dim[1], sdx_element_to_dim(h->tokens));
    return same ? NULL : "x has other sizes than its projection";
}

/* ---- heads ---------------------------------------------------------------------------------------------- */

static sdx_layout layout_of(const sdx_heads *h, const char *text)
{
    sdx_element size[SDX_LAYOUT_ATOMS] = {h->batch, h->tokens, h->heads, h->head_size};
    return sdx_layout_make(text, size);
}

/* The heads' number in a shape that splits them: [b,n,t,h], [b,t,n,h], or [b,g,r,t,h] for g heads that r queries each
 * share. */
static sdx_element heads_of(const sdx_graph *g, const sdx_shape *s, bool tokens_first)
{
    sdx_element n = sdx_element_from_dim(s->dim[tokens_first ? 2 : 1]);
    return s->rank == 5 ? sdx_model_arith(g->model, '*', n, sdx_element_from_dim(s->dim[2])) : n;
}

/* Number of heads and their size: from such a shape itself, or where the last dim is split. */
static bool read_heads(const sdx_graph *g, const sdx_path *path, sdx_heads *h)
{
    const sdx_shape *s = &sdx_match_type(g, path->top)->shape;
    if (s->rank == 4 || s->rank == 5) {
        h->heads = heads_of(g, s, h->tokens_first);
    } else {
        if (path->count == 0) return false;
        const sdx_node *split = &g->node[path->node[path->count - 1]];
        if (!sdx_match_is(split, "Reshape")) return false;
        s = &sdx_match_type(g, split->out[0])->shape;
        if (s->rank < 3) return false;
        h->heads = sdx_element_from_dim(s->dim[s->rank - 2]);
    }
    h->head_size = sdx_element_from_dim(s->dim[s->rank - 1]);
    return h->heads.symbol == SDX_ELEMENT_NUMBER && h->head_size.symbol == SDX_ELEMENT_NUMBER &&
           h->heads.number > 0 && h->head_size.number > 0;
}

/* The path begins at x[b,t,nh], at Gemm's [b*t,nh] (followed by the sizes of the other tensors), at [b,n,t,h], or, as
 * Reshape asks for the order only, at [b,g,r,t,h]. */
static const char *start_layout(const sdx_graph *g, const sdx_path *path, sdx_heads *h, sdx_layout *layout)
{
    const sdx_type *type = sdx_match_type(g, path->top);
    const sdx_shape *s = &type->shape;
    if (type->dtype != SDX_F32) return "not float32";
    if (s->rank == 2) { /* sizes from where the product's x is flattened */
        const sdx_node *gemm = sdx_match_op(g, path->top, "Gemm");
        const sdx_node *flat = gemm ? sdx_match_op(g, gemm->in[0], "Reshape") : NULL;
        s = flat ? &sdx_match_type(g, sdx_match_through(g, flat->in[0]))->shape : s;
        if (s->rank != 3) return "a matrix that is no flattened [b,t,nh]";
        h->batch = sdx_element_from_dim(s->dim[0]);
        h->tokens = sdx_element_from_dim(s->dim[1]);
        *layout = layout_of(h, "bt|nh");
        return NULL;
    }
    if (s->rank < 3 || s->rank > 5) return "neither [b,t,nh] nor [b,n,t,h]";
    h->batch = sdx_element_from_dim(s->dim[0]);
    h->tokens = sdx_element_from_dim(s->dim[s->rank == 3 || h->tokens_first ? 1 : s->rank - 2]);
    *(s->rank == 3 ? &h->flat : &h->split) = path->top;
    *layout = layout_of(h, s->rank == 3 ? "b|t|nh" : h->tokens_first ? "b|t|n|h" : "b|n|t|h");
    return NULL;
}

/* Follows the path from where the heads are not split yet. */
static const char *match_fresh(const sdx_graph *g, const sdx_path *path, sdx_heads *h, sdx_layout *layout)
{
    if (!read_heads(g, path, h)) return "no Reshape splits the heads";
    const char *reason = start_layout(g, path, h, layout);
    if (reason) return reason;
    h->path = *path;
    h->no_projection = h->split != SDX_NONE ? "the heads come split" : match_projection(g, path->top, h);
    if (!sdx_path_follow(path, g, layout)) return "the way to the heads is unclear";
    return NULL;
}

/* Concat([b,n,p,h], [b,n,t,h]) along tokens: the cache of a decoder. */
static const sdx_node *match_cache(const sdx_graph *g, sdx_id v)
{
    const sdx_node *n = sdx_match_op(g, v, "Concat");
    const sdx_shape *s = n ? &sdx_match_type(g, v)->shape : NULL;
    int64_t axis = n ? sdx_node_int(n, "axis", 0) : 0;
    return n && n->n_in == 2 && s->rank == 4 && (axis == 2 || axis == -2) ? n : NULL;
}

static const char *match_cached(const sdx_graph *g, const sdx_node *concat, const sdx_path *outer, sdx_heads *h,
                                double *scale, sdx_layout *layout)
{
    sdx_path path;
    sdx_path_read(g, concat->in[1], SDX_NONE, &path);
    *scale *= path.scale;
    h->past = concat->in[0];
    h->present = concat->out[0];
    const char *reason = match_fresh(g, &path, h, layout);
    if (reason) return reason;
    if (path.scale != 1) return "the fresh tokens are scaled before they are cached";
    if (!sdx_layout_is(layout, "b|n|t|h")) return "the fresh tokens are not [b,n,t,h]";
    if (h->flat == SDX_NONE) return "the fresh tokens are never [b,t,nh]";
    const sdx_shape *past = &sdx_match_type(g, h->past)->shape,
                    *present = &sdx_match_type(g, h->present)->shape;
    if (past->rank != 4 || past->dim[1] != h->heads.number || past->dim[3] != h->head_size.number)
        return "the past is not [b,n,p,h]";
    sdx_heads all = *h;
    all.tokens = sdx_element_from_dim(present->dim[2]);
    *layout = layout_of(&all, "b|n|t|h");
    return sdx_path_follow(outer, g, layout) ? NULL : "the way from the cache to the product is unclear";
}

static const sdx_heads no_heads = {
    .flat = SDX_NONE, .split = SDX_NONE, .past = SDX_NONE, .present = SDX_NONE};

/* Head by head, as a product wants it. */
static bool is_headwise(const sdx_layout *l)
{
    static const char *const forms[] = {"b|n|t|h", "b|n|h|t", "bn|t|h", "bn|h|t"};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
        if (sdx_layout_is(l, forms[i])) return true;
    return false;
}

/* Number i on the path from below may be [b,n,t,h] or [b,t,n,h]; or it is the top, keys repeated as [b,g,r,t,h] and at
 * once made [b*n,t,h]. */
static sdx_id split_at(const sdx_graph *g, const sdx_path *path, int i, bool tokens_first)
{
    bool top = i == path->count;
    sdx_id v = top ? path->top : g->node[path->node[i]].out[0];
    int rank = sdx_match_type(g, v)->shape.rank;
    bool grouped = rank == 5 && top && i > 0 && sdx_match_type(g, g->node[path->node[i - 1]].out[0])->shape.rank == 3;
    return rank == 4 || (grouped && !tokens_first) ? v : SDX_NONE;
}

typedef struct split_heads { /* found so far */
    sdx_path path;
    sdx_heads heads;
    sdx_layout layout;
    bool found, fits;
} split_heads;

static void find_split_heads(const sdx_graph *g, sdx_id v, const sdx_path *whole, bool tokens_first, split_heads *best)
{
    for (int i = whole->count; i >= 0 && !best->fits; i--) {
        sdx_id split = split_at(g, whole, i, tokens_first);
        split_heads s = {.heads = no_heads, .found = true};
        if (split == SDX_NONE) continue;
        s.heads.tokens_first = tokens_first;
        sdx_path_read(g, v, split, &s.path);
        if (match_fresh(g, &s.path, &s.heads, &s.layout)) continue;
        s.fits = is_headwise(&s.layout);
        if (s.fits || (!best->found && !tokens_first)) *best = s;
    }
}

/* A path may go up beyond the heads: to keys repeated for groups of queries, or to all three in one tensor. The highest
 * value from which the way ends head by head, or any that can be told, replaces what was found from the top. */
static bool take_split_heads(const sdx_graph *g, sdx_id v, sdx_path *path, sdx_heads *h, sdx_layout *layout)
{
    split_heads best = {.found = false};
    find_split_heads(g, v, path, false, &best);
    find_split_heads(g, v, path, true, &best);
    if (!best.found) return false;
    *path = best.path;
    *h = best.heads;
    *layout = best.layout;
    return true;
}

static const char *match_heads(const sdx_graph *g, sdx_id v, bool may_be_cached, sdx_heads *h, double *scale,
                               sdx_layout *layout, sdx_attention *m)
{
    sdx_path path;
    double cached = 1;
    sdx_path_read(g, v, SDX_NONE, &path);
    sdx_id split = path.count ? path.node[path.count - 1] : SDX_NONE; /* where it begins to change */
    sdx_id stopped =
        split != SDX_NONE && sdx_match_is(&g->node[split], "Reshape") ? split : sdx_match_producer_id(g, path.top);
    const sdx_node *concat = may_be_cached ? match_cache(g, path.top) : NULL;
    *h = no_heads;
    const char *reason = concat ? match_cached(g, concat, &path, h, &cached, layout) : NULL;
    if (!concat || reason) { /* rotated before they are cached, or some tokens only: then [b,n,T,h] as it is */
        concat = NULL;
        cached = 1;
        *h = no_heads;
        reason = match_fresh(g, &path, h, layout);
    }
    bool fits = !reason && is_headwise(layout) && sdx_match_type(g, path.top)->shape.rank != 5;
    if (!concat && !fits && take_split_heads(g, v, &path, h, layout)) reason = NULL;
    *scale *= path.scale * cached;
    return reason ? sdx_attention_stop(m, stopped, reason) : NULL;
}

static bool same_heads(const sdx_heads *a, const sdx_heads *b)
{
    return sdx_element_same(a->heads, b->heads) && sdx_element_same(a->head_size, b->head_size) &&
           sdx_element_same(a->batch, b->batch);
}

static bool is_on(const sdx_path *path, sdx_id node)
{
    for (int i = 0; i < path->count; i++)
        if (path->node[i] == node) return true;
    return false;
}

/* A reader that goes when the attention is fused, or that only asks for a shape. */
static bool is_inside(const sdx_graph *g, const sdx_attention *m, const sdx_node *n)
{
    sdx_id id = sdx_match_id(g, n), x;
    double factor;
    bool transposed;
    return sdx_match_product(n, &factor, &transposed) || sdx_match_is(n, "Shape") ||
           sdx_match_factor(g, n, &x, &factor) || is_on(&m->q.path, id) || is_on(&m->k.path, id) ||
           is_on(&m->v.path, id);
}

/* Somebody else reads the heads on their way: a graph output, as a rule, that is to be cached. */
static bool is_shared(const sdx_graph *g, const sdx_attention *m, const sdx_path *path)
{
    for (int i = 0; i < path->count; i++) {
        sdx_id v = g->node[path->node[i]].out[0];
        if (g->value[v].is_output) return true;
        for (sdx_id r = 0; r < g->n_node; r++) {
            const sdx_node *n = &g->node[r];
            for (int k = 0; k < n->n_in && !n->dead; k++)
                if (n->in[k] == v && !is_inside(g, m, n)) return true;
        }
    }
    return false;
}

/* The second operand of a product, as the product reads it. */
static bool arrives_as(const sdx_layout *layout, const sdx_node *product, const char *rows, const char *columns)
{
    double alpha;
    bool transposed;
    sdx_match_product(product, &alpha, &transposed);
    return sdx_layout_is(layout, transposed ? columns : rows);
}

/* Which of the three does not arrive as it should: the last layout change on its way. */
static const char *blame_layout(const sdx_graph *g, const sdx_node *product, sdx_attention *m, const bool right[3])
{
    const struct {
        const sdx_heads *heads;
        const char *reason;
    } part[3] = {{&m->q, "the queries do not arrive as [b,n,t,h]"},
                 {&m->k, "the keys do not arrive as [b,n,h,T]"},
                 {&m->v, "the values do not arrive as [b,n,T,h]"}};
    for (int i = 0; i < 3; i++)
        if (!right[i])
            return sdx_attention_stop(
                m, part[i].heads->path.count ? part[i].heads->path.node[0] : sdx_match_id(g, product), part[i].reason);
    return sdx_attention_stop(m, sdx_match_id(g, product), "queries, keys and values do not meet head by head");
}

static const char *match_operands(const sdx_graph *g, const sdx_node *product, const sdx_node *context,
                                  sdx_attention *m, sdx_layout *result)
{
    sdx_layout q, k;
    double one = 1;
    const char *reason = match_heads(g, product->in[0], true, &m->q, &m->scale, &q, m);
    if (reason) return reason;
    m->steps++;
    if ((reason = match_heads(g, product->in[1], true, &m->k, &m->scale, &k, m))) return reason;
    m->steps++;
    bool cached = m->k.past != SDX_NONE;
    if ((reason = match_heads(g, context->in[1], cached, &m->v, &one, result, m))) return reason;
    if (one != 1) return sdx_attention_stop(m, sdx_match_producer_id(g, context->in[1]), "the values are scaled");
    if (!same_heads(&m->q, &m->k) || !same_heads(&m->q, &m->v))
        return sdx_attention_stop(m, sdx_match_id(g, product), "heads differ in number or size, or batches do");
    if (!sdx_element_same(m->k.tokens, m->v.tokens))
        return sdx_attention_stop(m, sdx_match_id(g, context), "keys and values differ in number");
    bool four[3] = {sdx_layout_is(&q, "b|n|t|h"), arrives_as(&k, product, "b|n|h|t", "b|n|t|h"),
                    arrives_as(result, context, "b|n|t|h", "b|n|h|t")};
    bool three[3] = {sdx_layout_is(&q, "bn|t|h"), arrives_as(&k, product, "bn|h|t", "bn|t|h"),
                     arrives_as(result, context, "bn|t|h", "bn|h|t")};
    bool meet = (four[0] && four[1]) || (three[0] && three[1]); /* the weights may be reshaped on their way to values */
    const bool right[3] = {four[0] || three[0], four[1] || three[1], four[2] || three[2]};
    if (!meet || !right[2]) return blame_layout(g, product, m, right);
    m->steps++;
    m->shared = is_shared(g, m, &m->k.path) || is_shared(g, m, &m->v.path);
    if (four[2] && m->v.past == SDX_NONE && !m->v.tokens_first && sdx_layout_is(result, "b|n|t|h"))
        m->v.split = sdx_match_through(g, context->in[1]);
    *result = layout_of(&m->q, four[2] ? "b|n|t|h" : "bn|t|h"); /* what comes out has the queries' tokens */
    return NULL;
}

/* Keys and values in one form, and queries [b,t,nh] unless everything is a projection of one x. */
static const char *check_forms(const sdx_graph *g, const sdx_node *product, sdx_attention *m)
{
    bool cached = m->k.past != SDX_NONE;
    if (cached != (m->v.past != SDX_NONE))
        return sdx_attention_stop(m, sdx_match_id(g, product), "only one of keys and values is cached");
    if (m->q.past != SDX_NONE) return sdx_attention_stop(m, sdx_match_id(g, product), "the queries are cached");
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
    const sdx_node *merge = sdx_match_op(g, v, "Reshape");
    if (merge && sdx_match_heads_merge(g, merge)) v = merge->in[0];
    const sdx_node *softmax = sdx_match_op(g, v, "Softmax");
    int64_t missing = sdx_model_opset(g->model, "") >= 13 ? -1 : 1;
    return softmax && sdx_match_axis_is_last(g, softmax, missing, softmax->in[0]) ? softmax : NULL;
}

const char *sdx_match_attention(const sdx_graph *g, const sdx_node *last, sdx_attention *m)
{
    sdx_path path;
    sdx_layout layout;
    const sdx_node *scores;
    double alpha;
    *m = (sdx_attention){.mask = SDX_NONE, .stopped = sdx_match_id(g, last)};
    sdx_path_read(g, last->out[0], SDX_NONE, &path);
    const sdx_node *context = sdx_graph_producer(g, path.top);
    bool transposed, product = sdx_match_product(context, &alpha, &transposed) && path.scale * alpha == 1;
    const sdx_node *softmax = product ? match_softmax(g, context->in[0]) : NULL;
    if (!softmax) return "no product with a Softmax";
    m->steps++;
    if (g->value[softmax->out[0]].is_output)
        return sdx_attention_stop(m, sdx_match_id(g, softmax), "the attention weights are an output of the graph");
    const char *reason = sdx_match_scores(g, softmax->in[0], m, &scores);
    if (reason) return reason;
    m->steps++;
    reason = match_operands(g, scores, context, m, &layout);
    if (!reason) reason = check_forms(g, scores, m);
    if (reason) return reason;
    if (!sdx_path_follow(&path, g, &layout))
        return sdx_attention_stop(m, sdx_match_id(g, last), "the heads are not joined again");
    m->joins_flat = sdx_layout_is(&layout, "bt|nh");
    if (!m->joins_flat && !sdx_layout_is(&layout, "b|t|nh"))
        return sdx_attention_stop(m, sdx_match_id(g, last), "the heads are not joined again");
    m->steps++;
    return sdx_match_terms(g, m);
}
