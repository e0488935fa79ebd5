/* spiece_merges.c: SentencePiece's BPE keeps no merges: they are all pairs of pieces that make a piece, the
 * best scored first (transformers' SentencePieceExtractor). */
#include <stdlib.h>

#include "../base/memory.h"
#include "spiece.h"

/* A pair of pieces that makes a piece, and what it is sorted by. */
typedef struct pair {
    double score;
    int32_t left, right;
    uint32_t left_chars, right_chars, order;
} pair;

typedef struct pair_list {
    pair *item; /* [room]; owned */
    size_t count, room;
} pair_list;

static size_t char_count(const char *s, size_t n)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++) count += ((unsigned char)s[i] & 0xc0) != 0x80;
    return count;
}

static sdx_status add_pair(pair_list *list, pair p, sdx_error *err)
{
    if (list->count == list->room) {
        size_t room = list->room ? list->room * 2 : 4096;
        pair *grown = sdx_realloc(list->item, room * sizeof *grown);
        if (!grown) return sdx_fail_memory(err, room * sizeof *grown);
        list->item = grown;
        list->room = room;
    }
    list->item[list->count++] = p;
    return SDX_OK;
}

static int by_ids(const void *a, const void *b)
{
    const pair *x = a, *y = b;
    if (x->left != y->left) return x->left < y->left ? -1 : 1;
    return (x->right > y->right) - (x->right < y->right);
}

/* The best score first; then the longer left part, the longer right part. */
static int by_score(const void *a, const void *b)
{
    const pair *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    if (x->left_chars != y->left_chars) return x->left_chars > y->left_chars ? -1 : 1;
    if (x->right_chars != y->right_chars) return x->right_chars > y->right_chars ? -1 : 1;
    return x->order < y->order ? -1 : 1;
}

/* All ways to cut a piece in two pieces. */
static sdx_status pairs_of(const sdx_trie *trie, sdx_string text, double score, pair_list *list, sdx_error *err)
{
    size_t first = list->count;
    for (size_t i = 1; i < text.size; i++) {
        const char *at = text.data + i;
        size_t n = text.size - i;
        if (((unsigned char)*at & 0xc0) == 0x80) continue;
        int32_t left = sdx_trie_get(trie, text.data, i), right = left < 0 ? -1 : sdx_trie_get(trie, at, n);
        if (right < 0) continue;
        uint32_t chars = (uint32_t)char_count(text.data, i), rest = (uint32_t)char_count(at, n);
        TRY(add_pair(list, (pair){score, left, right, chars, rest, 0}, err));
    }
    if (list->count > first + 1) qsort(list->item + first, list->count - first, sizeof *list->item, by_ids);
    return SDX_OK;
}

static sdx_status find(const sdx_vocab *vocab, const double *score, size_t count, pair_list *pairs,
                       sdx_merge_list *merges, sdx_error *err)
{
    const sdx_token *token = vocab->token;
    for (size_t id = 0; id < count; id++)
        TRY(pairs_of(&vocab->trie, token[id].text, score[id], pairs, err));
    for (size_t i = 0; i < pairs->count; i++) pairs->item[i].order = (uint32_t)i;
    if (pairs->count) qsort(pairs->item, pairs->count, sizeof *pairs->item, by_score);
    for (size_t i = 0; i < pairs->count; i++) {
        const pair *p = &pairs->item[i];
        TRY(sdx_merge_list_add(merges, token[p->left].text, token[p->right].text, err));
    }
    return SDX_OK;
}

sdx_status sdx_spiece_merges(const sdx_vocab *vocab, const double *score, size_t count, sdx_merge_list *out,
                             sdx_error *err)
{
    pair_list pairs = {0};
    sdx_status status = find(vocab, score, count, &pairs, out, err);
    free(pairs.item);
    return status;
}
