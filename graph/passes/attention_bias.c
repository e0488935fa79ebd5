/* attention_bias.c: what an attention adds to its scores, as one tensor: masks that cannot be handed over as masks, and
 * every other term. Layers share what they add.
 *
 * Files are written for ONNX Runtime 1.17 and later. Measured against a plain implementation, 1.17.0 gets a bias that
 * broadcasts over batch or heads wrong, which 1.31.1 gets right. So com.microsoft's operators get [b,n,t,T] spelled
 * out. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "attention_write.h"

/* One node op(in...), which another layer may have made already. */
static sdx_status emit_once(sdx_attention_writer *w, const char *op_type, int n_in, const sdx_id *in, sdx_id *out)
{
    sdx_graph *g = w->g;
    for (sdx_id i = g->n_node; i-- > 0;) {
        const sdx_node *n = &g->node[i];
        if (!sdx_node_is(n, op_type) || n->n_in != n_in || n->n_attr) continue;
        if (!memcmp(n->in, in, (size_t)n_in * sizeof *in)) return *out = n->out[0], SDX_OK;
    }
    char name[240];
    snprintf(name, sizeof name, "%.200s_%s", g->value[in[0]].name, op_type);
    return sdx_pass_emit(w->context, g, op_type, name, n_in, in, out);
}

/* Some sizes of x as a list of integers. */
static sdx_status emit_sizes(sdx_attention_writer *w, sdx_id x, int count, const int64_t *axes, sdx_id *out)
{
    sdx_id in[2];
    TRY(emit_once(w, "Shape", 1, &x, &in[0]));
    TRY(sdx_pass_ints(w->context, w->g, count, axes, &in[1]));
    return emit_once(w, "Gather", 2, in, out);
}

static sdx_status emit_concat(sdx_attention_writer *w, int count, const sdx_id *in, sdx_id *out)
{
    TRY(sdx_graph_emit(w->g, "", "Concat", NULL, count, in, out, w->context->err));
    return sdx_node_set_int(w->g, w->g->value[*out].producer, "axis", 0, w->context->err);
}

/* [b*n,t,T] to [b,n,t,T] */
static sdx_status split_heads(sdx_attention_writer *w, int64_t heads, sdx_id *bias)
{
    const int64_t rows_and_keys[2] = {1, 2}, begin[2] = {-1, heads};
    sdx_id part[2], in[2] = {*bias, SDX_NONE};
    TRY(sdx_pass_ints(w->context, w->g, 2, begin, &part[0]));
    TRY(emit_sizes(w, *bias, 2, rows_and_keys, &part[1]));
    TRY(emit_concat(w, 2, part, &in[1]));
    return sdx_pass_emit(w->context, w->g, "Reshape", NULL, 2, in, bias);
}

/* The term as something to add: a replaced score amounts to Where(condition, fill, 0). */
static sdx_status term_addend(sdx_attention_writer *w, int64_t heads, const sdx_term *t, sdx_id *out)
{
    if (!t->where) {
        *out = t->value;
        return t->merged ? split_heads(w, heads, out) : SDX_OK;
    }
    sdx_id fill, zero;
    TRY(sdx_pass_scalar(w->context, w->g, (float)t->fill, &fill));
    TRY(sdx_pass_scalar(w->context, w->g, 0, &zero));
    sdx_id in[3] = {t->value, t->inverted ? zero : fill, t->inverted ? fill : zero};
    return emit_once(w, "Where", 3, in, out);
}

static sdx_status add_to(sdx_attention_writer *w, int64_t heads, sdx_id *sum, const sdx_term *t)
{
    sdx_id in[2] = {*sum, SDX_NONE};
    TRY(term_addend(w, heads, t, &in[1]));
    if (*sum == SDX_NONE) return *sum = in[1], SDX_OK;
    return emit_once(w, "Add", 2, in, sum);
}

/* Zeros [1,n,1,1] added: the same bias for each head, spelled out. */
static sdx_status repeat_heads(sdx_attention_writer *w, int64_t heads, sdx_id *bias)
{
    sdx_tensor t = {.dtype = SDX_F32, .rank = 4, .dim = {1, heads, 1, 1}};
    sdx_id in[2] = {*bias, SDX_NONE};
    char name[40];
    snprintf(name, sizeof name, "zeros_1_%lld_1_1", (long long)heads);
    in[1] = sdx_graph_find_value(w->g, name);
    if (in[1] == SDX_NONE) {
        size_t bytes = sdx_tensor_bytes(&t);
        t.data = sdx_arena_alloc(&w->g->model->arena, bytes);
        if (!t.data) return sdx_fail_memory(w->context->err, bytes);
        memset(t.data, 0, bytes);
        TRY(sdx_graph_add_constant(w->g, name, &t, &in[1], w->context->err));
    }
    return emit_once(w, "Add", 2, in, bias);
}

/* Expand to [b, n, t, 1]: the sizes come from the queries [b,t,nh]. */
static sdx_status repeat_all(sdx_attention_writer *w, const sdx_attention *m, sdx_id *bias)
{
    sdx_id size[4], expand[2] = {*bias, SDX_NONE}, x = m->q.flat == SDX_NONE ? m->q.p.x : m->q.flat;
    const int64_t heads[2] = {m->q.heads.number, 1};
    for (int i = 0; i < 2; i++) {
        int64_t axis = i;
        TRY(emit_sizes(w, x, 1, &axis, &size[2 * i]));
        TRY(sdx_pass_ints(w->context, w->g, 1, &heads[i], &size[2 * i + 1]));
    }
    TRY(emit_concat(w, 4, size, &expand[1]));
    return emit_once(w, "Expand", 2, expand, bias);
}

static bool is_size(sdx_dim d, sdx_element e)
{
    return sdx_dim_same(d, sdx_element_to_dim(e));
}

/* [b,n,t,T] as ONNX Runtime 1.17 wants it; here a 1 would do for b and n. */
static sdx_status spell_out(sdx_attention_writer *w, const sdx_attention *m, sdx_id *bias)
{
    const sdx_shape *s = &sdx_match_type(w->g, *bias)->shape;
    bool four = s->rank == 4, run = w->context->for_run;
    bool batch = four && (is_size(s->dim[0], m->q.batch) || (run && s->dim[0] == 1));
    bool heads = four && (is_size(s->dim[1], m->q.heads) || (run && s->dim[1] == 1));
    bool rows = four && is_size(s->dim[2], m->q.tokens);
    if (batch && heads && rows) return SDX_OK;
    return batch && rows ? repeat_heads(w, m->q.heads.number, bias) : repeat_all(w, m, bias);
}

static bool is_in(const sdx_term *t, const sdx_term *list, int count)
{
    for (int i = 0; i < count; i++)
        if (list[i].value == t->value && list[i].where == t->where) return true;
    return false;
}

bool sdx_attention_adds_masks(const sdx_attention_writer *w, const sdx_attention *m, bool takes_mask)
{
    bool square = m->k.past != SDX_NONE || sdx_element_same(m->k.tokens, m->q.tokens);
    if (m->causal && !square) return true; /* to the operators, the first query is the first key then */
    if (m->mask == SDX_NONE) return false;
    return !takes_mask || (m->n_bias > 0 && !w->context->for_run); /* in files they bring the batch along */
}

bool sdx_attention_is_added(const sdx_attention *m, int term, bool with_masks)
{
    return with_masks || is_in(&m->term[term], m->bias, m->n_bias);
}

sdx_status sdx_attention_bias(sdx_attention_writer *w, sdx_attention *m, bool takes_mask, sdx_id *bias)
{
    *bias = SDX_NONE;
    bool with_masks = sdx_attention_adds_masks(w, m, takes_mask);
    if (with_masks) {
        m->mask = SDX_NONE;
        m->causal = false;
    }
    for (int i = 0; i < m->n_term; i++)
        if (sdx_attention_is_added(m, i, with_masks)) TRY(add_to(w, m->q.heads.number, bias, &m->term[i]));
    return *bias == SDX_NONE ? SDX_OK : spell_out(w, m, bias);
}

/* ---- for ONNX's own operator ------------------------------------------------------------------------------ */

/* Expand to [.,.,t,T]: the operator broadcasts masks, but ONNX Runtime 1.31.1 wants a row for each query. */
static sdx_status repeat_rows(sdx_attention_writer *w, const sdx_attention *m, sdx_id *bias)
{
    const sdx_shape *s = &sdx_match_type(w->g, *bias)->shape;
    const int64_t axis = 1, one = 1;
    sdx_id size[3], expand[2] = {*bias, SDX_NONE};
    if (s->rank > 1 && is_size(s->dim[s->rank - 2], m->q.tokens)) return SDX_OK;
    TRY(sdx_pass_ints(w->context, w->g, 1, &one, &size[0]));
    TRY(emit_sizes(w, m->q.flat, 1, &axis, &size[1]));
    size[2] = size[0];
    TRY(emit_concat(w, 3, size, &expand[1]));
    return emit_once(w, "Expand", 2, expand, bias);
}

/* Where(condition, x, y) of two numbers, of which one hides a key and the other is 0. */
static bool is_choice(const sdx_graph *g, sdx_id v, double *fill)
{
    const sdx_node *where = sdx_match_op(g, v, "Where");
    double x, y;
    if (!where || !sdx_graph_scalar(g, where->in[1], &x) || !sdx_graph_scalar(g, where->in[2], &y)) return false;
    *fill = fmin(x, y);
    return fmax(x, y) == 0 && *fill <= SDX_LEAST_FILL;
}

/* The term hides keys and does nothing else. *finite: by a finite number, and maybe all keys of a query. */
static bool only_hides(const sdx_graph *g, const sdx_attention *m, const sdx_term *t, bool *finite)
{
    double fill = t->fill;
    bool known = !is_in(t, m->bias, m->n_bias), hides = known || t->where || is_choice(g, t->value, &fill);
    *finite = hides && (known ? m->mask != SDX_NONE : fill >= -FLT_MAX);
    return hides;
}

/* A mask inside what looked like a bias: T5 adds its positions to one, a window of ModernBERT hides more keys by the
 * mask's own number. */
static bool holds_mask(const sdx_graph *g, sdx_id v)
{
    const sdx_node *n = sdx_graph_producer(g, sdx_match_through(g, v));
    bool window = n && sdx_match_is(n, "Where");
    sdx_mask mask;
    double fill = 0;
    if (!n || (!window && !sdx_match_is(n, "Add"))) return false;
    if (window && !sdx_graph_scalar(g, n->in[1], &fill)) return false;
    for (int i = window ? 2 : 0; i < n->n_in; i++)
        if (!sdx_match_mask(g, n->in[i], &mask) && mask.source != SDX_NONE)
            return !mask.causal && mask.at[0][0] >= -FLT_MAX && (!window || fill == mask.at[0][0]);
    return false;
}

/* Some bias holds a mask, and all keys that a query may not see are hidden by a finite number, the same for all. */
static bool fills_alike(const sdx_graph *g, const sdx_attention *m)
{
    bool filled = false;
    if (m->causal || (m->mask != SDX_NONE && m->sum[0][0] < -FLT_MAX)) return false;
    for (int i = 0; i < m->n_bias; i++) {
        const sdx_term *t = &m->bias[i];
        if (t->where && t->fill < -FLT_MAX) return false;
        filled |= !t->where && holds_mask(g, t->value);
    }
    return filled;
}

static sdx_status add_terms(sdx_attention_writer *w, const sdx_attention *m, bool hiding, sdx_id *sum, bool *finite)
{
    bool one;
    for (int i = 0; i < m->n_term; i++) {
        if (only_hides(w->g, m, &m->term[i], &one) != hiding) continue;
        TRY(add_to(w, m->q.heads.number, sum, &m->term[i]));
        *finite |= one;
    }
    return SDX_OK;
}

/* A query that sees nothing weighs alike the keys that the least float hides; to ONNX
 * Runtime that is -inf, which gives zeros. Half of it hides as well: so masks are halved, which leaves -inf (as where
 * two of them meet) what it is; where a bias holds the mask, the sum is lifted. */
sdx_status sdx_attention_standard_bias(sdx_attention_writer *w, const sdx_attention *m, sdx_id *bias)
{
    bool lift = fills_alike(w->g, m), finite = false, ignored = false;
    sdx_id number;
    *bias = SDX_NONE;
    TRY(add_terms(w, m, true, bias, &finite));
    if (finite && !lift) {
        TRY(sdx_pass_scalar(w->context, w->g, 0.5f, &number));
        TRY(emit_once(w, "Mul", 2, (sdx_id[]){*bias, number}, bias));
    }
    TRY(add_terms(w, m, false, bias, &ignored));
    if (lift) {
        TRY(sdx_pass_scalar(w->context, w->g, -FLT_MAX / 2, &number));
        TRY(emit_once(w, "Max", 2, (sdx_id[]){*bias, number}, bias));
    }
    return *bias == SDX_NONE ? SDX_OK : repeat_rows(w, m, bias);
}
