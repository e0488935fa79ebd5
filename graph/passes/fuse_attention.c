/* fuse_attention.c: writing a matched attention (attention_match.c) as ONNX's Attention-23(q, k, v, what is added to the
 * scores, past k, past v) where only standard operators are wanted, else as one of two operators of com.microsoft:
 *
 *     Attention(x, [Wq|Wk|Wv], [bq|bk|bv], mask, -, bias)           three projections of one x, nothing cached
 *     MultiHeadAttention(q, k, v, -, mask, bias, past k, past v)    everything else
 *
 * The 2-D mask is handed over as it is, so that padding may be on either side, and its fill value with it. A
 * mask that was set rather than added differs only in rows that look at nothing at all. "No key after the
 * query" is the attribute unidirectional. Any other term of the scores becomes the bias.
 *
 * Files are written for ONNX Runtime 1.17 and later. Measured against a plain implementation, 1.17.0 gets two
 * cases wrong that 1.31.1 gets right: a bias that broadcasts over batch or heads, and a mask when there are
 * more keys than queries without a past. So files spell the bias [b,n,t,T] out, and hide keys of cross
 * attention by it. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../base/memory.h"
#include "../../base/parallel.h"
#include "attention.h"
#include "passes.h"

enum { ROWS = 64 }; /* copied by a thread at least */

typedef struct writer {
    sdx_pass_context *context;
    sdx_graph *g;
    struct packing *packed; /* made so far */
} writer;

/* ---- packing -------------------------------------------------------------------------------------------- */

/* Layers may share their weights (ALBERT): each triple is packed once. */
typedef struct packing {
    sdx_projection p[3];
    sdx_id weight, bias;
    struct packing *next;
} packing;

typedef struct pack_task {
    const sdx_graph *g;
    const packing *k;
    char *packed;
} pack_task;

/* Rows of [Wq|Wk|Wv], each [in, out]. The weights may lie unaligned in the file. */
static void pack_rows(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const pack_task *t = context;
    for (int which = SDX_Q; which <= SDX_V; which++) {
        const sdx_projection *p = &t->k->p[which];
        const char *w = sdx_graph_constant(t->g, p->weight)->data;
        size_t row = (size_t)p->out * sizeof(float), offset = (size_t)which * row;
        for (int64_t i = begin; i < end; i++) {
            char *to = t->packed + (size_t)i * 3 * row + offset;
            if (!p->transposed)
                memcpy(to, w + (size_t)(i * p->all + p->first) * sizeof(float), row);
            else
                for (int64_t c = 0; c < p->out; c++)
                    memcpy(to + (size_t)c * sizeof(float),
                           w + (size_t)((p->first + c) * p->in + i) * sizeof(float), sizeof(float));
        }
    }
}

/* Most of the time that the passes of a model take, as the memory is fresh: so on all threads. */
static void pack_weight(const writer *w, const packing *k, char *packed)
{
    pack_task task = {w->g, k, packed};
    sdx_parallel_for(w->context->threads, k->p[SDX_Q].in, ROWS, pack_rows, &task);
}

static void pack_bias(const sdx_graph *g, const packing *k, char *packed)
{
    for (int which = SDX_Q; which <= SDX_V; which++) {
        const sdx_projection *p = &k->p[which];
        size_t bytes = (size_t)p->out * sizeof(float);
        if (p->bias == SDX_NONE) continue;
        const char *from = sdx_graph_constant(g, p->bias)->data;
        memcpy(packed + (size_t)which * bytes, from + (size_t)p->first * sizeof(float), bytes);
    }
}

static sdx_status add_packed(writer *w, const packing *k, bool bias, sdx_id *out)
{
    const sdx_projection *p = &k->p[SDX_Q];
    sdx_arena *arena = &w->g->model->arena;
    sdx_tensor t = {.dtype = SDX_F32, .rank = bias ? 1 : 2, .dim = {p->in, 3 * p->out}};
    if (bias) t.dim[0] = 3 * p->out;
    size_t bytes = sdx_tensor_bytes(&t);
    t.data = bias ? sdx_arena_alloc(arena, bytes) : sdx_arena_alloc_raw(arena, bytes);
    if (!t.data) return sdx_fail_memory(w->context->err, bytes);
    if (bias)
        pack_bias(w->g, k, t.data);
    else
        pack_weight(w, k, t.data);
    sdx_id named = bias && p->bias != SDX_NONE ? p->bias : p->weight;
    const char *name = sdx_arena_printf(arena, "%s_qkv%s", w->g->value[named].name, bias ? "_bias" : "");
    if (!name) return sdx_fail_memory(w->context->err, 64);
    return sdx_graph_add_constant(w->g, name, &t, out, w->context->err);
}

/* The three lie in one weight already, side by side (GPT-2). */
static bool is_packed(const sdx_projection p[3])
{
    for (int i = SDX_Q; i <= SDX_V; i++)
        if (p[i].weight != p[0].weight || p[i].bias != p[0].bias || p[i].bias == SDX_NONE || p[i].transposed ||
            p[i].first != i * p[0].out)
            return false;
    return p[0].all == 3 * p[0].out;
}

static bool same_projections(const sdx_projection a[3], const sdx_projection b[3])
{
    for (int i = SDX_Q; i <= SDX_V; i++)
        if (a[i].weight != b[i].weight || a[i].bias != b[i].bias || a[i].first != b[i].first) return false;
    return true;
}

static sdx_status pack(writer *w, const sdx_projection p[3], packing **out)
{
    for (packing *k = w->packed; k; k = k->next)
        if (same_projections(k->p, p)) return *out = k, SDX_OK;
    packing *fresh;
    ARENA_NEW(&w->g->model->arena, fresh, 1, w->context->err);
    memcpy(fresh->p, p, sizeof fresh->p);
    if (is_packed(p)) {
        fresh->weight = p[0].weight;
        fresh->bias = p[0].bias;
    } else {
        TRY(add_packed(w, fresh, false, &fresh->weight));
        TRY(add_packed(w, fresh, true, &fresh->bias));
    }
    fresh->next = w->packed;
    *out = w->packed = fresh;
    return SDX_OK;
}

/* ---- the bias ------------------------------------------------------------------------------------------- */

/* One node op(in...), which another layer may have made already. */
static sdx_status emit_once(writer *w, const char *op_type, int n_in, const sdx_id *in, sdx_id *out)
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
static sdx_status emit_sizes(writer *w, sdx_id x, int count, const int64_t *axes, sdx_id *out)
{
    sdx_id in[2];
    TRY(emit_once(w, "Shape", 1, &x, &in[0]));
    TRY(sdx_pass_ints(w->context, w->g, count, axes, &in[1]));
    return emit_once(w, "Gather", 2, in, out);
}

static sdx_status emit_concat(writer *w, int count, const sdx_id *in, sdx_id *out)
{
    TRY(sdx_graph_emit(w->g, "", "Concat", NULL, count, in, out, w->context->err));
    return sdx_node_set_int(w->g, w->g->value[*out].producer, "axis", 0, w->context->err);
}

/* [b*n,t,T] to [b,n,t,T] */
static sdx_status split_heads(writer *w, int64_t heads, sdx_id *bias)
{
    const int64_t rows_and_keys[2] = {1, 2}, begin[2] = {-1, heads};
    sdx_id part[2], in[2] = {*bias, SDX_NONE};
    TRY(sdx_pass_ints(w->context, w->g, 2, begin, &part[0]));
    TRY(emit_sizes(w, *bias, 2, rows_and_keys, &part[1]));
    TRY(emit_concat(w, 2, part, &in[1]));
    return sdx_pass_emit(w->context, w->g, "Reshape", NULL, 2, in, bias);
}

/* The term as something to add: a replaced score amounts to Where(condition, fill, 0). */
static sdx_status term_addend(writer *w, int64_t heads, const sdx_term *t, sdx_id *out)
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

static sdx_status add_to(writer *w, int64_t heads, sdx_id *sum, const sdx_term *t)
{
    sdx_id in[2] = {*sum, SDX_NONE};
    TRY(term_addend(w, heads, t, &in[1]));
    if (*sum == SDX_NONE) return *sum = in[1], SDX_OK;
    return emit_once(w, "Add", 2, in, sum);
}

/* Zeros [1,n,1,1] added: the same bias for each head, spelled out. */
static sdx_status repeat_heads(writer *w, int64_t heads, sdx_id *bias)
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
static sdx_status repeat_all(writer *w, const sdx_attention *m, sdx_id *bias)
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
static sdx_status spell_out(writer *w, const sdx_attention *m, sdx_id *bias)
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

/* Masks are added like everything else where they cannot be handed over as masks. */
static bool adds_masks(const writer *w, const sdx_attention *m, bool takes_mask)
{
    if (m->mask == SDX_NONE) return false;
    return !takes_mask || (m->n_bias > 0 && !w->context->for_run); /* in files they bring the batch along */
}

static bool is_added(const sdx_attention *m, int term, bool with_masks)
{
    return with_masks || is_in(&m->term[term], m->bias, m->n_bias);
}

/* Everything that is added to the scores. */
static sdx_status make_bias(writer *w, sdx_attention *m, bool takes_mask, sdx_id *bias)
{
    *bias = SDX_NONE;
    bool with_masks = adds_masks(w, m, takes_mask);
    if (with_masks) {
        m->mask = SDX_NONE;
        m->causal = false;
    }
    for (int i = 0; i < m->n_term; i++)
        if (is_added(m, i, with_masks)) TRY(add_to(w, m->q.heads.number, bias, &m->term[i]));
    return *bias == SDX_NONE ? SDX_OK : spell_out(w, m, bias);
}

/* ---- rewriting ------------------------------------------------------------------------------------------ */

/* One x, heads of one size, and nobody else who wants the keys and values. */
static bool is_self_contained(const sdx_attention *m)
{
    const sdx_heads *h[3] = {&m->q, &m->k, &m->v};
    for (int i = SDX_Q; i <= SDX_V; i++)
        if (h[i]->no_projection || h[i]->past != SDX_NONE || m->shared || h[i]->p.x != m->q.p.x ||
            h[i]->p.in != m->q.p.in)
            return false;
    return true;
}

static sdx_status set_attributes(writer *w, sdx_id node, const sdx_attention *m)
{
    double usual = 1 / sqrt((double)m->q.head_size.number);
    sdx_error *err = w->context->err;
    TRY(sdx_node_set_int(w->g, node, "num_heads", m->q.heads.number, err));
    if (m->mask != SDX_NONE) TRY(sdx_node_set_float(w->g, node, "mask_filter_value", (float)m->fill, err));
    if (m->causal) TRY(sdx_node_set_int(w->g, node, "unidirectional", 1, err));
    if (fabs(m->scale - usual) > 1e-6 * usual)
        TRY(sdx_node_set_float(w->g, node, "scale", (float)m->scale, err));
    return SDX_OK;
}

static int trim(const sdx_id *list, int count)
{
    while (count > 0 && list[count - 1] == SDX_NONE) count--;
    return count;
}

/* The operator's output is [b,t,nh]; who wants it flattened gets a Reshape. */
static sdx_status joined(writer *w, sdx_id last, const sdx_attention *m, sdx_id *out)
{
    *out = w->g->node[last].out[0];
    if (!m->joins_flat) return SDX_OK;
    sdx_id in[2], flat = *out, node;
    int64_t target[2] = {-1, m->q.heads.number * m->v.head_size.number};
    TRY(sdx_graph_add_value(w->g, NULL, out, w->context->err));
    TRY(sdx_pass_ints(w->context, w->g, 2, target, &in[1]));
    in[0] = *out;
    return sdx_pass_replace(w->context, w->g, last, "", "Reshape", 2, in, 1, &flat, &node);
}

static sdx_status write_attention(writer *w, sdx_id last, sdx_attention *m)
{
    packing *packed = NULL;
    const sdx_projection p[3] = {m->q.p, m->k.p, m->v.p};
    TRY(pack(w, p, &packed));
    sdx_id in[6] = {p[0].x, packed->weight, packed->bias, SDX_NONE, SDX_NONE, SDX_NONE}, out, node;
    TRY(make_bias(w, m, true, &in[5]));
    if (m->mask != SDX_NONE) TRY(sdx_pass_int32(w->context, w->g, m->mask, &in[3]));
    TRY(joined(w, last, m, &out));
    TRY(sdx_pass_replace(w->context, w->g, last, SDX_MS, "Attention", trim(in, 6), in, 1, &out, &node));
    return set_attributes(w, node, m);
}

/* As many keys as queries, or known to be the past's and the fresh ones. */
static bool is_self(const sdx_attention *m)
{
    return m->k.tokens.symbol == m->q.tokens.symbol && m->k.tokens.number == m->q.tokens.number &&
           m->k.flat != SDX_NONE;
}

/* [b,g,r,t,h] as [b,n,t,h] */
static sdx_status unite_groups(writer *w, sdx_heads *h)
{
    const int64_t target[4] = {0, h->heads.number, -1, h->head_size.number};
    sdx_id in[2] = {h->split, SDX_NONE};
    if (h->split == SDX_NONE || sdx_match_type(w->g, h->split)->shape.rank == 4) return SDX_OK;
    TRY(sdx_pass_ints(w->context, w->g, 4, target, &in[1]));
    return sdx_pass_emit(w->context, w->g, "Reshape", NULL, 2, in, &h->split);
}

/* Heads that come split (queries after rotary positions, say) are joined. */
static sdx_status join_heads(writer *w, sdx_heads *h)
{
    static const int64_t perm[4] = {0, 2, 1, 3};
    const int64_t target[3] = {0, 0, h->heads.number * h->head_size.number};
    sdx_id in[2], transposed;
    if (h->flat != SDX_NONE) return SDX_OK;
    TRY(sdx_graph_emit(w->g, "", "Transpose", NULL, 1, &h->split, &transposed, w->context->err));
    TRY(sdx_node_set_ints(w->g, w->g->value[transposed].producer, "perm", 4, perm, w->context->err));
    in[0] = transposed;
    TRY(sdx_pass_ints(w->context, w->g, 3, target, &in[1]));
    return sdx_graph_emit(w->g, "", "Reshape", NULL, 2, in, &h->flat, w->context->err);
}

/* v is computed from what the nodes that write out[] write: such an attention would wait for itself. */
static bool depends_on(const sdx_graph *g, sdx_id v, const sdx_id *out, int n_out, bool *visited)
{
    if (v == SDX_NONE || visited[v]) return false;
    visited[v] = true;
    for (int i = 0; i < n_out; i++)
        if (v == out[i]) return true;
    const sdx_node *n = sdx_graph_producer(g, v);
    for (int i = 0; n && i < n->n_in; i++)
        if (depends_on(g, n->in[i], out, n_out, visited)) return true;
    return false;
}

static sdx_status check_order(writer *w, const sdx_attention *m, bool with_masks, bool *possible)
{
    const sdx_id out[2] = {m->k.present, m->v.present};
    *possible = true;
    if (m->k.present == SDX_NONE) return SDX_OK;
    bool *visited = sdx_calloc((size_t)w->g->n_value, sizeof *visited);
    if (!visited) return sdx_fail_memory(w->context->err, (size_t)w->g->n_value);
    for (int i = 0; i < m->n_term; i++)
        *possible &= !is_added(m, i, with_masks) || !depends_on(w->g, m->term[i].value, out, 2, visited);
    free(visited);
    return SDX_OK;
}

static sdx_status write_multi_head(writer *w, sdx_id last, sdx_attention *m)
{
    bool split = m->k.flat == SDX_NONE, takes_mask = is_self(m) || w->context->for_run, possible;
    TRY(check_order(w, m, adds_masks(w, m, takes_mask), &possible));
    if (!possible) return SDX_OK;
    for (int i = SDX_Q; i <= SDX_V; i++) TRY(unite_groups(w, (sdx_heads *[]){&m->q, &m->k, &m->v}[i]));
    TRY(join_heads(w, &m->q));
    sdx_id in[8] = {m->q.flat,
                    split ? m->k.split : m->k.flat,
                    split ? m->v.split : m->v.flat,
                    SDX_NONE,
                    SDX_NONE,
                    SDX_NONE,
                    m->k.past,
                    m->v.past};
    sdx_id out[3] = {SDX_NONE, m->k.present, m->v.present}, node;
    TRY(make_bias(w, m, takes_mask, &in[5]));
    if (m->mask != SDX_NONE) TRY(sdx_pass_int32(w->context, w->g, m->mask, &in[4]));
    TRY(joined(w, last, m, &out[0]));
    TRY(sdx_pass_replace(w->context, w->g, last, SDX_MS, "MultiHeadAttention", trim(in, 8), in, trim(out, 3),
                         out, &node));
    return set_attributes(w, node, m);
}

/* Causality is the operator's where queries and keys are the same tokens: only there do all agree on the diagonal. */
static bool is_square_causal(const sdx_attention *m)
{
    return m->causal && m->mask == SDX_NONE && m->n_bias == 0 && m->k.past == SDX_NONE && is_self(m);
}

/* Expand to [.,.,t,T]: the operator broadcasts masks, but ONNX Runtime 1.31.1 wants a row for each query. */
static sdx_status repeat_rows(writer *w, const sdx_attention *m, sdx_id *bias)
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

static sdx_status add_terms(writer *w, const sdx_attention *m, bool hiding, sdx_id *sum, bool *finite)
{
    bool one;
    for (int i = 0; i < m->n_term; i++) {
        if (only_hides(w->g, m, &m->term[i], &one) != hiding) continue;
        TRY(add_to(w, m->q.heads.number, sum, &m->term[i]));
        *finite |= one;
    }
    return SDX_OK;
}

/* What is added to the scores. A query that sees nothing weighs alike the keys that the least float hides; to ONNX
 * Runtime that is -inf, which gives zeros. Half of it hides as well: so masks are halved, which leaves -inf (as where
 * two of them meet) what it is; where a bias holds the mask, the sum is lifted. */
static sdx_status make_standard_bias(writer *w, const sdx_attention *m, sdx_id *bias)
{
    bool lift = fills_alike(w->g, m), finite = false, ignored = false;
    sdx_id number;
    TRY(add_terms(w, m, true, bias, &finite));
    if (finite && !lift) {
        TRY(sdx_pass_scalar(w->context, w->g, 0.5f, &number));
        TRY(emit_once(w, "Mul", 2, (sdx_id[]){*bias, number}, bias));
    }
    TRY(add_terms(w, m, false, bias, &ignored));
    if (!lift) return SDX_OK;
    TRY(sdx_pass_scalar(w->context, w->g, -FLT_MAX / 2, &number));
    return emit_once(w, "Max", 2, (sdx_id[]){*bias, number}, bias);
}

/* Masks are added just as the graph did it. */
static sdx_status write_standard(writer *w, sdx_id last, sdx_attention *m)
{
    sdx_heads *h[3] = {&m->q, &m->k, &m->v};
    sdx_error *err = w->context->err;
    bool possible, causal = is_square_causal(m);
    TRY(check_order(w, m, !causal, &possible));
    for (int i = SDX_Q; i <= SDX_V; i++) possible &= h[i]->flat != SDX_NONE || h[i]->split != SDX_NONE;
    if (!possible) return SDX_OK;
    for (int i = SDX_Q; i <= SDX_V; i++) {
        TRY(unite_groups(w, h[i]));
        TRY(join_heads(w, h[i]));
    }
    sdx_id in[6] = {m->q.flat, m->k.flat, m->v.flat, SDX_NONE, m->k.past, m->v.past};
    sdx_id out[3] = {SDX_NONE, m->k.present, m->v.present}, node;
    if (!causal) TRY(make_standard_bias(w, m, &in[3]));
    if (in[3] != SDX_NONE) TRY(repeat_rows(w, m, &in[3]));
    TRY(joined(w, last, m, &out[0]));
    TRY(sdx_pass_replace(w->context, w->g, last, "", "Attention", trim(in, 6), in, trim(out, 3), out, &node));
    TRY(sdx_node_set_int(w->g, node, "q_num_heads", m->q.heads.number, err));
    TRY(sdx_node_set_int(w->g, node, "kv_num_heads", m->k.heads.number, err));
    TRY(sdx_node_set_float(w->g, node, "scale", (float)m->scale, err));
    return causal ? sdx_node_set_int(w->g, node, "is_causal", 1, err) : SDX_OK;
}

/* Keys and values of one form: flat both, or split both. */
static bool can_write(const sdx_attention *m)
{
    bool flat = m->k.flat != SDX_NONE && m->v.flat != SDX_NONE,
         split = m->k.flat == SDX_NONE && m->v.split != SDX_NONE;
    if (m->k.head_size.number != m->v.head_size.number) return false;
    return is_self_contained(m) || ((m->q.flat != SDX_NONE || m->q.split != SDX_NONE) && (flat || split));
}

sdx_status sdx_pass_fuse_attention(sdx_pass_context *context, sdx_graph *graph)
{
    sdx_attention m;
    writer w = {context, graph, NULL};
    sdx_id count = graph->n_node;
    for (sdx_id i = 0; i < count; i++) {
        if (!sdx_match_is(&graph->node[i], "Reshape") || sdx_match_attention(graph, &graph->node[i], &m))
            continue;
        if (context->standard)
            TRY(write_standard(&w, i, &m));
        else if (can_write(&m))
            TRY(is_self_contained(&m) ? write_attention(&w, i, &m) : write_multi_head(&w, i, &m));
    }
    return sdx_pass_finish(context, graph);
}
