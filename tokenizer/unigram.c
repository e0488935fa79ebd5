/* unigram.c: the unigram language model (Kudo 2018): of all ways to spell a piece with the vocabulary, the one
 * with the largest sum of scores, by Viterbi over the bytes. Ties go to the token that begins first, as in
 * tokenizers and SentencePiece. A character that no token spells costs more than any token; neighbours of that
 * kind become one unknown token. */
#include <string.h>

#include "tokenizer.h"

typedef struct node {
    double score;   /* of the best path that ends here */
    uint32_t begin; /* of its last token; NO_PATH: none ends here */
    int32_t id;     /* of that token; -1: an unknown character */
} node;

#define NO_PATH UINT32_MAX

void sdx_find_byte_tokens(sdx_model_step *model, const sdx_vocab *vocab)
{
    static const char hex[] = "0123456789ABCDEF";
    char name[] = "<0x00>";
    for (unsigned i = 0; i < 256; i++) {
        name[3] = hex[i >> 4];
        name[4] = hex[i & 15];
        model->byte_id[i] = sdx_trie_get(&vocab->trie, name, 6);
    }
}

sdx_status sdx_unigram_init(sdx_tokenizer *t, const double *score, int32_t unknown_id, bool byte_fallback,
                            sdx_error *err)
{
    enum { PENALTY = 10 };
    sdx_model_step *model = &t->model;
    double least = score[0];
    if (unknown_id >= 0 && (size_t)unknown_id >= t->vocab.size) {
        return sdx_fail(err, SDX_ERR_FILE, "unk_id %d is outside the vocabulary", unknown_id);
    }
    for (size_t i = 1; i < t->vocab.size; i++) least = score[i] < least ? score[i] : least;
    model->run = sdx_unigram_run;
    model->score = score;
    model->unknown_id = unknown_id;
    model->unknown_score = least - PENALTY;
    model->byte_fallback = byte_fallback;
    model->no_token = INT32_MAX;
    sdx_find_byte_tokens(model, &t->vocab);
    return SDX_OK;
}

/* SentencePiece compares the sum as it is, and keeps it as a float. */
static inline void offer(node *to, double score, uint32_t begin, int32_t id, bool single)
{
    if (to->begin == NO_PATH || score > to->score) *to = (node){single ? (float)score : score, begin, id};
}

/* The best paths to every position of text[n]; best: [n + 1]. False: a character has no token, nor is there an
 * unknown one. */
static bool find_paths(const sdx_model_step *model, const sdx_trie *trie, const unsigned char *text, uint32_t n,
                       node *best)
{
    for (uint32_t i = 0; i <= n; i++) best[i] = (node){0, NO_PATH, -1};
    for (uint32_t i = 0, length; i < n; i += length) {
        const unsigned char *next = text + i;
        sdx_utf8_next(&next);
        length = (uint32_t)(next - text) - i;
        bool single = false;
        uint32_t at = 0;
        for (uint32_t j = i; j < n; j++) {
            at = sdx_trie_step(trie, at, text[j]);
            if (at == SDX_TRIE_NONE) break;
            int32_t id = trie->node[at].value;
            if (id < 0) continue;
            offer(&best[j + 1], model->score[id] + best[i].score, i, id, model->single);
            single |= j + 1 == i + length;
        }
        if (single) continue;
        if (model->unknown_id < 0) return false;
        offer(&best[i + length], model->unknown_score + best[i].score, i, -1, model->single);
    }
    return true;
}

/* What no token spells: a token after all, if the characters happen to be one; bytes, the last one first; or
 * the unknown token. */
static sdx_status put_unknown(const sdx_model_step *model, const sdx_vocab *vocab, const char *text, size_t n,
                              sdx_scratch *s, sdx_error *err)
{
    int32_t id = sdx_trie_get(model->words ? model->words : &vocab->trie, text, n);
    if (id >= 0) return sdx_id_add(s, id, err);
    bool bytes = model->byte_fallback;
    for (size_t i = 0; bytes && i < n; i++) bytes = model->byte_id[(unsigned char)text[i]] >= 0;
    for (size_t i = n; bytes && i--;) TRY(sdx_id_add(s, model->byte_id[(unsigned char)text[i]], err));
    return bytes ? SDX_OK : sdx_id_add(s, model->unknown_id, err);
}

static bool is_unknown(const sdx_model_step *model, const node *at)
{
    return at->id == -1 || at->id == model->unknown_id;
}

/* The path that ends at n, from its last token to its first. */
static sdx_status put_path(const sdx_model_step *model, const sdx_vocab *vocab, const char *text,
                           const node *best, uint32_t n, sdx_scratch *s, sdx_error *err)
{
    for (uint32_t end = n, begin; end; end = begin) {
        begin = best[end].begin;
        if (!is_unknown(model, &best[end])) {
            TRY(sdx_id_add(s, best[end].id < model->no_token ? best[end].id : model->unknown_id, err));
            continue;
        }
        while (begin && is_unknown(model, &best[begin])) begin = best[begin].begin;
        TRY(put_unknown(model, vocab, text + begin, end - begin, s, err));
    }
    return SDX_OK;
}

static void reverse(int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n / 2; i++) {
        int32_t id = ids[i];
        ids[i] = ids[n - 1 - i];
        ids[n - 1 - i] = id;
    }
}

static sdx_status encode_piece(const sdx_model_step *model, const sdx_vocab *vocab, sdx_piece piece,
                               sdx_scratch *s, sdx_error *err)
{
    uint32_t n = piece.end - piece.begin;
    const char *text = s->now.text + piece.begin;
    size_t before = s->id_count;
    TRY(sdx_work_reserve(s, (n + (size_t)1) * sizeof(node), err));
    const sdx_trie *pieces = model->pieces ? model->pieces : &vocab->trie;
    if (!find_paths(model, pieces, (const unsigned char *)text, n, s->work)) {
        return sdx_fail(err, SDX_ERR_FILE, "the vocabulary cannot spell this text and has no unknown token");
    }
    TRY(put_path(model, vocab, text, s->work, n, s, err));
    reverse(s->ids + before, s->id_count - before);
    return SDX_OK;
}

sdx_status sdx_unigram_run(const sdx_model_step *model, const sdx_vocab *vocab, sdx_scratch *s, sdx_error *err)
{
    for (size_t i = 0; i < s->now.count; i++) {
        sdx_piece piece = s->now.piece[i];
        if (piece.id >= 0)
            TRY(sdx_id_add(s, piece.id, err));
        else
            TRY(encode_piece(model, vocab, piece, s, err));
    }
    return SDX_OK;
}
