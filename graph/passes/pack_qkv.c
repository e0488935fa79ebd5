/* pack_qkv.c: the weights of queries, keys and values side by side, [in, 3 out], as Attention reads them. In GPT-2 they
 * lie so in the file; else they are copied. Layers may share their weights (ALBERT): each triple is packed once. */
#include <string.h>

#include "../../base/parallel.h"
#include "attention_write.h"

enum { ROWS = 64 }; /* copied by a thread at least */

typedef struct pack_task {
    const sdx_graph *g;
    const sdx_packing *k;
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
static void pack_weight(const sdx_attention_writer *w, const sdx_packing *k, char *packed)
{
    pack_task task = {w->g, k, packed};
    sdx_parallel_for(w->context->threads, k->p[SDX_Q].in, ROWS, pack_rows, &task);
}

static void pack_bias(const sdx_graph *g, const sdx_packing *k, char *packed)
{
    for (int which = SDX_Q; which <= SDX_V; which++) {
        const sdx_projection *p = &k->p[which];
        size_t bytes = (size_t)p->out * sizeof(float);
        if (p->bias == SDX_NONE) continue;
        const char *from = sdx_graph_constant(g, p->bias)->data;
        memcpy(packed + (size_t)which * bytes, from + (size_t)p->first * sizeof(float), bytes);
    }
}

static sdx_status add_packed(sdx_attention_writer *w, const sdx_packing *k, bool bias, sdx_id *out)
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

sdx_status sdx_attention_pack(sdx_attention_writer *w, const sdx_projection p[3], const sdx_packing **out)
{
    for (const sdx_packing *k = w->packed; k; k = k->next)
        if (same_projections(k->p, p)) return *out = k, SDX_OK;
    sdx_packing *fresh;
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
