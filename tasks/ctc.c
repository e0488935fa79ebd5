/* ctc.c: greedy decoding, and prefix beam search (Hannun et al. 2014, "First-Pass Large Vocabulary Continuous Speech
 * Recognition using Bi-Directional Recurrent DNNs", algorithm 1, without a language model). A beam is a token sequence
 * with the summed probability of all its alignments to the frames so far, apart for those that end in a blank: only
 * behind a blank does the same token again mean a second one. Sequences share their beginnings in a tree; a node knows
 * the frame at which its token was most likely first spoken. */
#include "ctc.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../base/memory.h"

void sdx_ctc_path_free(sdx_ctc_path *path)
{
    free(path->id);
    free(path->begin);
    free(path->end);
    *path = (sdx_ctc_path){0};
}

static sdx_status path_init(sdx_ctc_path *path, size_t room, sdx_error *err)
{
    *path = (sdx_ctc_path){0};
    path->id = sdx_malloc((room + 1) * sizeof *path->id);
    path->begin = sdx_malloc((room + 1) * sizeof *path->begin);
    path->end = sdx_malloc((room + 1) * sizeof *path->end);
    if (path->id && path->begin && path->end) return SDX_OK;
    sdx_ctc_path_free(path);
    return sdx_fail_memory(err, room * sizeof *path->id);
}

static size_t best_of(const float *x, size_t n)
{
    size_t best = 0;
    for (size_t k = 1; k < n; k++)
        if (x[k] > x[best]) best = k;
    return best;
}

sdx_status sdx_ctc_greedy(const float *logits, size_t frames, size_t tokens, int64_t blank, sdx_ctc_path *out,
                          sdx_error *err)
{
    int64_t last = -1;
    TRY(path_init(out, frames, err));
    for (size_t f = 0; f < frames; f++) {
        int64_t id = (int64_t)best_of(logits + f * tokens, tokens);
        if (id == last && id != blank) {
            out->end[out->count - 1] = f + 1;
        } else if (id != blank) {
            out->id[out->count] = id;
            out->begin[out->count] = f;
            out->end[out->count++] = f + 1;
        }
        last = id;
    }
    return SDX_OK;
}

/* ---- prefix beam search ---------------------------------------------------------------------------------- */

enum { NOBODY = -1 };

typedef struct node { /* a token sequence: its parent's, and one more */
    int32_t parent, child, sibling; /* child: the newest; sibling: the next older one */
    int32_t token, depth;
    int32_t slot; /* among the beams of this frame, or NOBODY */
    size_t frame;
    double strongest; /* log probability with which it was entered at `frame` */
} node;

typedef struct beam { /* of the tree's node, or of that node and one more token */
    int32_t node, extra; /* extra NOBODY: the node itself */
    double blank, token; /* log probabilities of the alignments that end in a blank, and of the others */
    double entered;      /* that part of `token` which speaks the last token for the first time */
} beam;

typedef struct search {
    node *node;
    size_t nodes, room;
    beam *beam, *next; /* [width], [width * tokens] */
    size_t beams, width;
    double *log; /* [tokens]: log probabilities of the frame */
} search;

static double log_add(double a, double b)
{
    if (a < b) return log_add(b, a);
    return b == -INFINITY ? a : a + log1p(exp(b - a));
}

static double total(const beam *b) { return log_add(b->blank, b->token); }

static int more_likely(const void *a, const void *b)
{
    const beam *x = a, *y = b;
    double p = total(x), q = total(y);
    if (p != q) return p < q ? 1 : -1;
    return x->node != y->node ? (x->node < y->node ? -1 : 1) : (x->extra > y->extra) - (x->extra < y->extra);
}

static void log_softmax(const float *x, size_t n, double *out)
{
    double max = x[best_of(x, n)], sum = 0;
    for (size_t k = 0; k < n; k++) sum += exp(x[k] - max);
    for (size_t k = 0; k < n; k++) out[k] = x[k] - max - log(sum);
}

/* Where in s->beam the sequence of `parent` and one more token is, or NOBODY. */
static int32_t find_beam(const search *s, int32_t parent, int32_t token)
{
    int32_t c = s->node[parent].child;
    while (c != NOBODY && s->node[c].token != token) c = s->node[c].sibling;
    return c == NOBODY ? NOBODY : s->node[c].slot;
}

/* One frame: s->next gets every beam as it is, then each with one more token. Returns their number. */
static size_t extend(search *s, size_t tokens, int64_t blank)
{
    size_t n = s->beams;
    for (size_t i = 0; i < s->beams; i++) {
        const beam *b = &s->beam[i];
        int32_t last = s->node[b->node].token;
        s->next[i] = (beam){b->node, NOBODY, total(b) + s->log[blank], -INFINITY, -INFINITY};
        if (last != NOBODY) s->next[i].token = b->token + s->log[last];
    }
    for (size_t i = 0; i < s->beams; i++) {
        const beam *b = &s->beam[i];
        for (int32_t k = 0; k < (int32_t)tokens; k++) {
            if (k == blank) continue;
            double p = (k == s->node[b->node].token ? b->blank : total(b)) + s->log[k];
            int32_t there = find_beam(s, b->node, k);
            if (there == NOBODY) {
                s->next[n++] = (beam){b->node, k, -INFINITY, p, p};
            } else {
                s->next[there].token = log_add(s->next[there].token, p);
                s->next[there].entered = p;
            }
        }
    }
    return n;
}

static sdx_status add_node(search *s, int32_t parent, int32_t token, int32_t *out, sdx_error *err)
{
    if (s->nodes == s->room) {
        size_t room = s->room ? s->room * 2 : 1024;
        if (room > INT32_MAX) return sdx_fail(err, SDX_ERR_UNSUPPORTED, "the sound is too long for a beam search");
        node *bigger = sdx_realloc(s->node, room * sizeof *bigger);
        if (!bigger) return sdx_fail_memory(err, room * sizeof *bigger);
        s->node = bigger;
        s->room = room;
    }
    *out = (int32_t)s->nodes++;
    s->node[*out] = (node){parent, NOBODY, NOBODY, token, 0, NOBODY, 0, -INFINITY};
    if (parent == NOBODY) return SDX_OK;
    s->node[*out].depth = s->node[parent].depth + 1;
    s->node[*out].sibling = s->node[parent].child;
    s->node[parent].child = *out;
    return SDX_OK;
}

/* A candidate that survives: its sequence gets a node of the tree. */
static sdx_status settle(search *s, beam *b, size_t frame, sdx_error *err)
{
    if (b->extra != NOBODY) {
        int32_t child = s->node[b->node].child;
        while (child != NOBODY && s->node[child].token != b->extra) child = s->node[child].sibling;
        if (child == NOBODY) TRY(add_node(s, b->node, b->extra, &child, err));
        *b = (beam){child, NOBODY, b->blank, b->token, b->entered};
    }
    node *n = &s->node[b->node];
    if (b->entered > n->strongest) {
        n->strongest = b->entered;
        n->frame = frame;
    }
    return SDX_OK;
}

static sdx_status step(search *s, const float *logits, size_t frame, size_t tokens, int64_t blank, sdx_error *err)
{
    log_softmax(logits, tokens, s->log);
    size_t n = extend(s, tokens, blank);
    for (size_t i = 0; i < s->beams; i++) s->node[s->beam[i].node].slot = NOBODY;
    qsort(s->next, n, sizeof *s->next, more_likely);
    s->beams = n < s->width ? n : s->width;
    for (size_t i = 0; i < s->beams; i++) {
        TRY(settle(s, &s->next[i], frame, err));
        s->beam[i] = s->next[i];
        s->node[s->beam[i].node].slot = (int32_t)i;
    }
    return SDX_OK;
}

static sdx_status read_path(const search *s, sdx_ctc_path *out, sdx_error *err)
{
    int32_t at = s->beam[0].node;
    size_t count = (size_t)s->node[at].depth;
    TRY(path_init(out, count, err));
    out->count = count;
    for (size_t i = count; i-- > 0; at = s->node[at].parent) {
        out->id[i] = s->node[at].token;
        out->begin[i] = s->node[at].frame;
        if (i + 1 < count && out->begin[i] > out->begin[i + 1]) out->begin[i] = out->begin[i + 1];
        out->end[i] = out->begin[i] + 1;
    }
    return SDX_OK;
}

sdx_status sdx_ctc_beam(const float *logits, size_t frames, size_t tokens, int64_t blank, size_t beams,
                        sdx_ctc_path *out, sdx_error *err)
{
    enum { MOST_BEAMS = 4096 };
    if (beams < 1 || beams > MOST_BEAMS)
        return sdx_fail(err, SDX_ERR_USAGE, "%zu beams; 1 to %d are supported", beams, MOST_BEAMS);
    search s = {.width = beams, .beams = 1};
    sdx_status status;
    int32_t root;
    s.beam = sdx_malloc(beams * sizeof *s.beam);
    s.next = sdx_malloc(beams * (tokens + 1) * sizeof *s.next);
    s.log = sdx_malloc(tokens * sizeof *s.log);
    if (!s.beam || !s.next || !s.log) {
        status = sdx_fail_memory(err, beams * (tokens + 1) * sizeof *s.next);
        goto done;
    }
    TRY_GOTO(add_node(&s, NOBODY, NOBODY, &root, err));
    s.node[root].slot = 0;
    s.beam[0] = (beam){root, NOBODY, 0, -INFINITY, -INFINITY};
    for (size_t f = 0; f < frames; f++) TRY_GOTO(step(&s, logits + f * tokens, f, tokens, blank, err));
    status = read_path(&s, out, err);
done:
    free(s.node);
    free(s.beam);
    free(s.next);
    free(s.log);
    return status;
}
