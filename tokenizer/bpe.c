/* bpe.c: byte-pair encoding (Sennrich et al. 2016) as tokenizers does it: a word starts as its characters, and
 * again and again the pair that was learned first is merged, the leftmost of equals. Three ways to that result:
 * a word that is a token of its own and known to be what its merges give is looked up; short words keep the
 * rank of every pair in an array and look for the least; long ones keep a heap, so that time stays n log n. */
#include "bpe.h"

#include <string.h>

#define NO_RANK UINT32_MAX

enum { SHORT = 48 }; /* symbols; beyond that the heap is the faster */

/* ---- the symbols a word starts with
 * ----------------------------------------------------------------------------- */

typedef struct start {
    const sdx_model_step *model;
    const sdx_trie *trie;
    int32_t *ids;
    size_t count;
    bool unknown; /* one is due, in front of the next known symbol */
} start;

/* The token of one character with the prefix and suffix of its place, or -1. */
static int32_t character_id(const start *w, const char *c, size_t n, bool first, bool last)
{
    const sdx_trie *trie = w->trie;
    uint32_t node = first ? 0 : w->model->suffix_root;
    for (size_t i = 0; i < n && node != SDX_TRIE_NONE; i++)
        node = sdx_trie_step(trie, node, (unsigned char)c[i]);
    sdx_string suffix = w->model->suffix;
    for (size_t i = 0; last && i < suffix.size && node != SDX_TRIE_NONE; i++)
        node = sdx_trie_step(trie, node, (unsigned char)suffix.data[i]);
    return node == SDX_TRIE_NONE ? -1 : trie->node[node].value;
}

static void put_bytes(start *w, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) w->ids[w->count++] = w->model->byte_id[(unsigned char)s[i]];
}

static bool all_bytes(const sdx_model_step *model, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (model->byte_id[(unsigned char)s[i]] < 0) return false;
    }
    return true;
}

/* A character without a token: as bytes, or as one unknown token, which may stand for a run of them. Bytes do
 * not put a due unknown token in front of themselves: so does the original. */
static void put_unknown(start *w, const char *c, size_t n, bool first, bool last)
{
    const sdx_model_step *model = w->model;
    sdx_string prefix = first ? (sdx_string){0} : model->prefix,
               suffix = last ? model->suffix : (sdx_string){0};
    if (model->byte_fallback && all_bytes(model, prefix.data, prefix.size) && all_bytes(model, c, n) &&
        all_bytes(model, suffix.data, suffix.size)) {
        put_bytes(w, prefix.data, prefix.size);
        put_bytes(w, c, n);
        put_bytes(w, suffix.data, suffix.size);
        return;
    }
    if (!model->has_unknown) return;
    if (w->unknown && !model->fuse_unknown) w->ids[w->count++] = model->unknown_id;
    w->unknown = true;
}

/* The symbols of a word into ids, which has room for room_for(size) of them; returns how many. */
static size_t start_symbols(const sdx_model_step *model, const sdx_vocab *vocab, const char *word, size_t size,
                            int32_t *ids)
{
    start w = {model, &vocab->trie, ids, 0, false};
    for (size_t i = 0, n; i < size; i += n) {
        const unsigned char *p = (const unsigned char *)word + i, *next = p;
        sdx_utf8_next(&next);
        n = (size_t)(next - p);
        bool first = !i, last = i + n == size;
        int32_t id = character_id(&w, word + i, n, first, last);
        if (id < 0) {
            put_unknown(&w, word + i, n, first, last);
            continue;
        }
        if (w.unknown) ids[w.count++] = model->unknown_id;
        w.unknown = false;
        ids[w.count++] = id;
    }
    if (w.unknown) ids[w.count++] = model->unknown_id;
    return w.count;
}

/* At most one symbol a byte, but for the bytes of prefixes and suffixes, and an unknown one that was due. */
static size_t room_for(const sdx_model_step *model, size_t size)
{
    size_t per_byte = 1 + (model->byte_fallback ? model->prefix.size : 0);
    return (size + 1) * per_byte + model->suffix.size + 1;
}

/* ---- short words
 * -------------------------------------------------------------------------------------------------- */

static uint32_t rank_of(const sdx_merges *m, int32_t left, int32_t right)
{
    const sdx_merge *e = sdx_find_merge(m, left, right);
    return e ? e->rank : NO_RANK;
}

/* Merges ids[n] in place; returns how many are left. n <= SHORT. */
static size_t merge_short(const sdx_merges *m, int32_t *ids, size_t n)
{
    uint32_t rank[SHORT]; /* of ids[i], ids[i + 1] */
    for (size_t i = 0; i + 1 < n; i++) rank[i] = rank_of(m, ids[i], ids[i + 1]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++) best = rank[i] < rank[best] ? i : best;
        if (rank[best] == NO_RANK) break;
        ids[best] = sdx_find_merge(m, ids[best], ids[best + 1])->id;
        n--;
        memmove(ids + best + 1, ids + best + 2, (n - best - 1) * sizeof *ids);
        if (best + 1 < n) memmove(rank + best + 1, rank + best + 2, (n - best - 2) * sizeof *rank);
        if (best) rank[best - 1] = rank_of(m, ids[best - 1], ids[best]);
        if (best + 1 < n) rank[best] = rank_of(m, ids[best], ids[best + 1]);
    }
    return n;
}

/* ---- long words
 * ------------------------------------------------------------------------------------------------------ */

typedef struct symbol {
    int32_t id; /* -1: merged into the one before it */
    uint32_t previous, next;
} symbol;

typedef struct candidate {
    uint32_t rank, at; /* symbol[at] and the next */
    int32_t id;        /* of the result */
} candidate;

typedef struct heap {
    candidate *item; /* [count]: a binary heap, the least on top */
    size_t count;
} heap;

static bool before(candidate a, candidate b)
{
    return a.rank != b.rank ? a.rank < b.rank : a.at < b.at;
}

static void push(heap *h, candidate c)
{
    size_t i = h->count++;
    for (; i && before(c, h->item[(i - 1) / 2]); i = (i - 1) / 2) h->item[i] = h->item[(i - 1) / 2];
    h->item[i] = c;
}

static candidate pop(heap *h)
{
    candidate top = h->item[0], last = h->item[--h->count];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < h->count; i = child) {
        if (child + 1 < h->count && before(h->item[child + 1], h->item[child])) child++;
        if (!before(h->item[child], last)) break;
        h->item[i] = h->item[child];
    }
    h->item[i] = last;
    return top;
}

static void consider(const sdx_merges *m, heap *h, const symbol *s, uint32_t at)
{
    if (s[at].next == NO_RANK) return;
    const sdx_merge *e = sdx_find_merge(m, s[at].id, s[s[at].next].id);
    if (e) push(h, (candidate){e->rank, at, e->id});
}

/* One merge, if the candidate is not out of date: symbols around it have changed since it was pushed. */
static void apply(const sdx_merges *m, heap *h, symbol *s, candidate c)
{
    uint32_t right = s[c.at].next;
    if (s[c.at].id < 0 || right == NO_RANK) return;
    const sdx_merge *e = sdx_find_merge(m, s[c.at].id, s[right].id);
    if (!e || e->id != c.id) return;
    s[c.at].id = c.id;
    s[c.at].next = s[right].next;
    s[right].id = -1;
    if (s[c.at].next != NO_RANK) s[s[c.at].next].previous = c.at;
    if (s[c.at].previous != NO_RANK) consider(m, h, s, s[c.at].previous);
    consider(m, h, s, c.at);
}

/* s: [n] symbols, followed by room for 3 n candidates (each merge removes a symbol and adds two at most). */
static size_t merge_long(const sdx_merges *m, int32_t *ids, size_t n, symbol *s)
{
    heap h = {(candidate *)(s + n), 0};
    for (size_t i = 0; i < n; i++) {
        s[i] = (symbol){ids[i], i ? (uint32_t)i - 1 : NO_RANK, i + 1 < n ? (uint32_t)i + 1 : NO_RANK};
    }
    for (size_t i = 0; i + 1 < n; i++) consider(m, &h, s, (uint32_t)i);
    while (h.count) apply(m, &h, s, pop(&h));
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        if (s[i].id >= 0) ids[count++] = s[i].id;
    }
    return count;
}

/* ---- the model
 * --------------------------------------------------------------------------------------------------------- */

/* The token that is the whole word, if that is what the merges would give (or the file says not to ask); -1. */
static int32_t whole_word(const sdx_model_step *model, const sdx_vocab *vocab, const char *word, size_t size)
{
    int32_t id = sdx_trie_get(&vocab->trie, word, size);
    return id >= 0 && (model->ignore_merges || model->merges->whole[id]) ? id : -1;
}

/* Merges what start_symbols found; ids beyond s->id_count are the word's. */
static sdx_status merge_word(const sdx_merges *m, sdx_scratch *s, size_t n, sdx_error *err)
{
    int32_t *ids = s->ids + s->id_count;
    if (n > SHORT) {
        TRY(sdx_work_reserve(s, n * (sizeof(symbol) + 3 * sizeof(candidate)), err));
        n = merge_long(m, ids, n, s->work);
    } else {
        n = merge_short(m, ids, n);
    }
    s->id_count += n;
    return SDX_OK;
}

sdx_status sdx_bpe_word(const sdx_model_step *model, const sdx_vocab *vocab, const char *word, size_t size,
                        sdx_scratch *s, sdx_error *err)
{
    TRY(sdx_id_reserve(s, room_for(model, size), err));
    size_t n = start_symbols(model, vocab, word, size, s->ids + s->id_count);
    return merge_word(model->merges, s, n, err);
}

sdx_status sdx_bpe_run(const sdx_model_step *model, const sdx_vocab *vocab, sdx_scratch *s, sdx_error *err)
{
    for (size_t i = 0; i < s->now.count; i++) {
        sdx_piece piece = s->now.piece[i];
        const char *word = s->now.text + piece.begin;
        size_t size = piece.end - piece.begin;
        int32_t id = piece.id >= 0 ? piece.id : whole_word(model, vocab, word, size);
        if (id >= 0)
            TRY(sdx_id_add(s, id, err));
        else
            TRY(sdx_bpe_word(model, vocab, word, size, s, err));
    }
    return SDX_OK;
}
