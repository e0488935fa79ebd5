/* attention_scores.c: what happens to the scores of an attention between queries times keys and the Softmax. Read
 * upwards from the Softmax, each addend and each Where is a term. A term that acts like a mask of padding, or like the
 * rule not to look ahead (mask.h), becomes that; any other is kept as a bias. */
#include <math.h>
#include <string.h>

#include "attention.h"

/* ---- scores --------------------------------------------------------------------------------------------- */

typedef struct scores {
    const sdx_node *product;
    double scale;
    sdx_term term[SDX_MOST_TERMS];
    int n_term;
} scores;

static bool read_scores(const sdx_graph *g, sdx_id v, int depth, scores *s);

static bool add_term(scores *s, sdx_term t)
{
    if (s->n_term == SDX_MOST_TERMS) return false;
    s->term[s->n_term++] = t;
    return true;
}

static bool read_where(const sdx_graph *g, const sdx_node *n, int depth, scores *s)
{
    double fill;
    for (int i = 1; i <= 2; i++) /* Where(c, fill, scores) or Where(c, scores, fill) */
        if (sdx_graph_scalar(g, n->in[i], &fill))
            return read_scores(g, n->in[3 - i], depth, s) &&
                   add_term(s, (sdx_term){.value = n->in[0], .where = true, .inverted = i == 2, .fill = fill});
    return false;
}

bool sdx_match_heads_merge(const sdx_graph *g, const sdx_node *n)
{
    if (!sdx_match_is(n, "Reshape")) return false;
    const sdx_shape *a = &sdx_match_type(g, n->in[0])->shape, *b = &sdx_match_type(g, n->out[0])->shape;
    if (a->rank < 3 || b->rank < 3 || a->rank + b->rank != 7) return false;
    return sdx_dim_same(a->dim[a->rank - 1], b->dim[b->rank - 1]) &&
           sdx_dim_same(a->dim[a->rank - 2], b->dim[b->rank - 2]);
}

/* An addend [b*n,t,T] of scores [b*n,t,T]. */
static bool is_merged(const sdx_graph *g, sdx_id v, sdx_id sum)
{
    const sdx_shape *s = &sdx_match_type(g, v)->shape;
    return s->rank == 3 && s->dim[0] != 1 && sdx_match_type(g, sum)->shape.rank == 3;
}

static bool read_scores(const sdx_graph *g, sdx_id v, int depth, scores *s)
{
    const sdx_node *n = sdx_graph_producer(g, sdx_match_through(g, v));
    double factor;
    bool transposed;
    if (!n || depth == 0) return false;
    if (sdx_match_product(n, &factor, &transposed)) {
        *s = (scores){.product = n, .scale = factor};
        return !sdx_graph_constant(g, n->in[0]) && !sdx_graph_constant(g, n->in[1]);
    }
    if (sdx_match_factor(g, n, &v, &factor)) {
        if (!read_scores(g, v, depth - 1, s) || s->n_term > 0) return false; /* the terms would be scaled too */
        s->scale *= factor;
        return true;
    }
    if (sdx_match_heads_merge(g, n)) return read_scores(g, n->in[0], depth - 1, s);
    if (sdx_match_is(n, "Where")) return read_where(g, n, depth - 1, s);
    if (!sdx_match_is(n, "Add")) return false;
    for (int i = 0; i < 2; i++)
        if (read_scores(g, n->in[i], depth - 1, s))
            return add_term(s, (sdx_term){.value = n->in[1 - i], .merged = is_merged(g, n->in[1 - i], n->out[0])});
    return false;
}

/* v is computed from a product of two tensors that are not constants. */
static bool has_product(const sdx_graph *g, sdx_id v, int depth)
{
    const sdx_node *n = v == SDX_NONE || depth == 0 ? NULL : sdx_graph_producer(g, v);
    double alpha;
    bool transposed;
    if (!n) return false;
    if (sdx_match_product(n, &alpha, &transposed))
        return !sdx_graph_constant(g, n->in[0]) && !sdx_graph_constant(g, n->in[1]);
    for (int i = 0; i < n->n_in; i++)
        if (has_product(g, n->in[i], depth - 1)) return true;
    return false;
}

/* The node on the way from the Softmax to the product that read_scores does not see through. */
static sdx_id blame_scores(const sdx_graph *g, sdx_id v)
{
    sdx_id x, next = v;
    double factor;
    for (const sdx_node *n; (n = sdx_graph_producer(g, next)) != NULL; v = next) {
        bool scale = sdx_match_factor(g, n, &x, &factor);
        if (!scale && !sdx_match_is(n, "Add") && !sdx_match_is(n, "Where") && !sdx_match_heads_merge(g, n) &&
            sdx_match_copied(g, n) == SDX_NONE)
            return sdx_match_id(g, n);
        for (int i = 0; i < n->n_in; i++)
            if (has_product(g, n->in[i], 6)) next = n->in[i];
        if (next == v) return sdx_match_id(g, n);
        /* A scale after a mask scales the mask, too. */
        const sdx_node *below = scale ? sdx_graph_producer(g, next) : NULL;
        if (below && (sdx_match_is(below, "Add") || sdx_match_is(below, "Where"))) return sdx_match_id(g, n);
    }
    return sdx_match_producer_id(g, v);
}

const char *sdx_match_scores(const sdx_graph *g, sdx_id v, sdx_attention *m, const sdx_node **product)
{
    scores s;
    if (!read_scores(g, v, 8, &s))
        return sdx_attention_stop(m, blame_scores(g, v), "the scores are not a product, scaled and masked");
    *product = s.product;
    m->scale = s.scale;
    m->n_term = s.n_term;
    memcpy(m->term, s.term, sizeof s.term);
    return NULL;
}

/* ---- terms ---------------------------------------------------------------------------------------------- */

/* The mask as what it adds to a score. */
static bool as_addend(const sdx_term *t, sdx_mask *mask)
{
    for (int i = 0; t->where && i < 2; i++)
        for (int k = 0; k < 2; k++) mask->at[i][k] = (mask->at[i][k] != 0) != t->inverted ? t->fill : 0;
    return mask->at[1][0] == 0;
}

/* All keys: those of the past too. */
static sdx_element keys(const sdx_graph *g, const sdx_attention *m)
{
    if (m->k.present == SDX_NONE) return m->k.tokens;
    return sdx_element_from_dim(sdx_match_type(g, m->k.present)->shape.dim[2]);
}

/* Query r stands at r + shift among the keys: after all that are not fresh. */
static bool is_causal(const sdx_graph *g, const sdx_mask *mask, const sdx_attention *m)
{
    sdx_element shift = sdx_model_arith(g->model, '-', keys(g, m), m->q.tokens);
    return mask->row == 1 && mask->column == 0 && sdx_element_same(mask->shift, shift);
}

static bool hides(double x)
{
    return x <= SDX_LEAST_FILL;
}

/* True when the term is a mask [b,1,*,keys], the rule not to look ahead, both, or nothing at all. */
static bool take_mask(const sdx_graph *g, const sdx_term *t, sdx_attention *m)
{
    sdx_mask mask;
    if (sdx_match_mask(g, t->value, &mask) || !as_addend(t, &mask)) return false;
    bool padding = mask.source != SDX_NONE;
    if (!padding && !mask.causal) return true; /* 0 everywhere */
    if (mask.causal && (!is_causal(g, &mask, m) || !hides(mask.at[1][1]))) return false;
    if (padding) {
        if (mask.key != 0 || mask.batch != 3 || (m->mask != SDX_NONE && m->mask != mask.source)) return false;
        if (!sdx_dim_same(mask.batch_size, sdx_element_to_dim(m->q.batch)) ||
            !sdx_dim_same(mask.key_size, sdx_element_to_dim(keys(g, m))))
            return false;
        if (!hides(mask.at[0][0]) || (mask.causal && !hides(mask.at[0][1]))) return false;
        m->mask = mask.source;
    }
    for (int i = 0; i < 2; i++)
        for (int k = 0; k < 2; k++) m->sum[i][k] += mask.at[i][k];
    m->causal |= mask.causal;
    return true;
}

/* A query that sees padding only weighs its keys by what their scores were filled with. The operators put the least
 * float on later keys; where those had less than the padding had, as from two masks added up, the padding must get
 * visibly more than the least float. */
static double choose_fill(const sdx_attention *m)
{
    const double least = -3.4028234663852886e38, padding = m->sum[0][0];
    bool below = m->causal && hides(m->sum[0][1] - padding) && hides(m->sum[1][1] - padding);
    return fmax(padding, below ? least / 2 : least);
}

/* Something to add to the scores: [b|1, n|1, t|1, keys], with leading 1s left out or not, or [b*n, t|1, keys]. */
static bool is_addend(const sdx_graph *g, const sdx_term *t, const sdx_attention *m)
{
    const sdx_shape *s = &sdx_match_type(g, t->value)->shape;
    sdx_element want[4] = {keys(g, m), m->q.tokens, m->q.heads, m->q.batch};
    if (t->merged) want[2] = sdx_model_arith(g->model, '*', m->q.batch, m->q.heads);
    if (s->rank < 1 || s->rank > 4) return false;
    for (int i = 0; i < s->rank; i++)
        if (s->dim[s->rank - 1 - i] != 1 && !sdx_dim_same(s->dim[s->rank - 1 - i], sdx_element_to_dim(want[i])))
            return false;
    return true;
}

static const char *keep_bias(const sdx_graph *g, const sdx_term *t, sdx_attention *m)
{
    if (t->where && !hides(t->fill)) return "scores are replaced by a number that does not hide them";
    if (!is_addend(g, t, m)) return "what is added to the scores is not [b|1, n|1, queries|1, keys]";
    if (!t->where && sdx_match_type(g, t->value)->dtype != SDX_F32)
        return "what is added to the scores is not float32";
    if (m->n_bias == SDX_MOST_TERMS) return "too many things are added to the scores";
    m->bias[m->n_bias++] = *t;
    return NULL;
}

const char *sdx_match_terms(const sdx_graph *g, sdx_attention *m)
{
    for (int i = 0; i < m->n_term; i++) {
        if (take_mask(g, &m->term[i], m)) continue;
        const char *reason = keep_bias(g, &m->term[i], m);
        if (reason) return sdx_attention_stop(m, sdx_match_producer_id(g, m->term[i].value), reason);
    }
    if (m->mask != SDX_NONE) m->fill = choose_fill(m);
    return NULL;
}

