/* fuse_attention.c: writing a matched attention (attention_match.c) as ONNX's Attention-23(q, k, v, what is added to
 * the scores, past k, past v) where only standard operators are wanted, else as one of two operators of com.microsoft:
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
#include <math.h>
#include <stdlib.h>

#include "../../base/memory.h"
#include "attention_write.h"

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

static sdx_status set_attributes(sdx_attention_writer *w, sdx_id node, const sdx_attention *m)
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
static sdx_status joined(sdx_attention_writer *w, sdx_id last, const sdx_attention *m, sdx_id *out)
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

static sdx_status write_attention(sdx_attention_writer *w, sdx_id last, sdx_attention *m)
{
    const sdx_packing *packed = NULL;
    const sdx_projection p[3] = {m->q.p, m->k.p, m->v.p};
    TRY(sdx_attention_pack(w, p, &packed));
    sdx_id in[6] = {p[0].x, packed->weight, packed->bias, SDX_NONE, SDX_NONE, SDX_NONE}, out, node;
    TRY(sdx_attention_bias(w, m, true, &in[5]));
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

/* [b,g,r,t,h] becomes [b,n,t,h]; [b,t,n,h] becomes [b,t,nh]. */
static sdx_status reshape_heads(sdx_attention_writer *w, sdx_heads *h)
{
    const int64_t n = h->heads.number, size = h->head_size.number;
    const int64_t four[4] = {0, n, -1, size}, three[3] = {0, 0, n * size};
    sdx_id in[2] = {h->split, SDX_NONE}, out;
    if (h->split == SDX_NONE || (!h->tokens_first && sdx_match_type(w->g, h->split)->shape.rank == 4)) return SDX_OK;
    TRY(sdx_pass_ints(w->context, w->g, h->tokens_first ? 3 : 4, h->tokens_first ? three : four, &in[1]));
    TRY(sdx_pass_emit(w->context, w->g, "Reshape", NULL, 2, in, &out));
    h->split = h->tokens_first ? SDX_NONE : out;
    if (h->tokens_first) h->flat = out;
    h->tokens_first = false;
    return SDX_OK;
}

/* Heads that come split (queries after rotary positions, say) are joined. */
static sdx_status join_heads(sdx_attention_writer *w, sdx_heads *h)
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

static sdx_status check_order(sdx_attention_writer *w, const sdx_attention *m, bool with_masks, bool *possible)
{
    const sdx_id out[2] = {m->k.present, m->v.present};
    *possible = true;
    if (m->k.present == SDX_NONE) return SDX_OK;
    bool *visited = sdx_calloc((size_t)w->g->n_value, sizeof *visited);
    if (!visited) return sdx_fail_memory(w->context->err, (size_t)w->g->n_value);
    for (int i = 0; i < m->n_term; i++)
        *possible &= !sdx_attention_is_added(m, i, with_masks) || !depends_on(w->g, m->term[i].value, out, 2, visited);
    free(visited);
    return SDX_OK;
}

static sdx_status write_multi_head(sdx_attention_writer *w, sdx_id last, sdx_attention *m)
{
    bool split = m->k.flat == SDX_NONE, takes_mask = is_self(m) || w->context->for_run, possible;
    TRY(check_order(w, m, sdx_attention_adds_masks(w, m, takes_mask), &possible));
    if (!possible) return SDX_OK;
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
    TRY(sdx_attention_bias(w, m, takes_mask, &in[5]));
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

/* Masks are added just as the graph did it. */
static sdx_status write_standard(sdx_attention_writer *w, sdx_id last, sdx_attention *m)
{
    sdx_heads *h[3] = {&m->q, &m->k, &m->v};
    sdx_error *err = w->context->err;
    bool possible, causal = is_square_causal(m);
    TRY(check_order(w, m, !causal, &possible));
    for (int i = SDX_Q; i <= SDX_V; i++) possible &= h[i]->flat != SDX_NONE || h[i]->split != SDX_NONE;
    if (!possible) return SDX_OK;
    for (int i = SDX_Q; i <= SDX_V; i++) TRY(join_heads(w, h[i]));
    sdx_id in[6] = {m->q.flat, m->k.flat, m->v.flat, SDX_NONE, m->k.past, m->v.past};
    sdx_id out[3] = {SDX_NONE, m->k.present, m->v.present}, node;
    if (!causal) TRY(sdx_attention_standard_bias(w, m, &in[3]));
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
    sdx_attention_writer w = {context, graph, NULL};
    sdx_id count = graph->n_node;
    for (sdx_id i = 0; i < count; i++) {
        if (!sdx_match_is(&graph->node[i], "Reshape") || sdx_match_attention(graph, &graph->node[i], &m))
            continue;
        for (int k = SDX_Q; k <= SDX_V; k++) TRY(reshape_heads(&w, (sdx_heads *[]){&m.q, &m.k, &m.v}[k]));
        if (context->standard)
            TRY(write_standard(&w, i, &m));
        else if (can_write(&m))
            TRY(is_self_contained(&m) ? write_attention(&w, i, &m) : write_multi_head(&w, i, &m));
    }
    return sdx_pass_finish(context, graph);
}
