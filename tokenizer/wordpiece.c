/* wordpiece.c: WordPiece (Schuster & Nakajima 2012, as BERT uses it): from the left, always the longest token
 * of the vocabulary; tokens that continue a word carry a prefix such as "##". The trie holds the continuing
 * tokens below the node of their prefix, so that matching never builds a string. Failure links (Song et al.
 * 2021) would make the worst case linear; a word has at most max_chars characters, and nearly all are one or
 * two tokens. */
#include "tokenizer.h"

void sdx_wordpiece_init(sdx_model_step *model, const sdx_vocab *vocab, sdx_string prefix, size_t max_chars)
{
    model->run = sdx_wordpiece_run;
    model->max_chars = max_chars;
    model->suffix_root = sdx_trie_walk(&vocab->trie, prefix.data, prefix.size);
}

static size_t count_chars(const unsigned char *p, const unsigned char *end)
{
    size_t n = 0;
    for (; p < end; p++) n += (*p & 0xc0) != 0x80;
    return n;
}

/* The longest token that begins at p, below `root`: its id, and its end in *p; -1 if there is none. */
static inline int32_t longest_token(const sdx_trie *trie, uint32_t root, const unsigned char **p,
                                    const unsigned char *end)
{
    int32_t id = -1;
    uint32_t node = root;
    for (const unsigned char *q = *p; q < end; q++) {
        node = sdx_trie_step(trie, node, *q);
        if (node == SDX_TRIE_NONE) break;
        if (trie->node[node].value < 0) continue;
        id = trie->node[node].value;
        *p = q + 1;
    }
    return id;
}

static sdx_status unknown_word(const sdx_model_step *model, sdx_scratch *s, sdx_error *err)
{
    if (model->unknown_id >= 0) return sdx_id_add(s, model->unknown_id, err);
    return sdx_fail(err, SDX_ERR_FILE,
                    "a word cannot be spelled and the vocabulary has no unknown token \"%.60s\"",
                    model->unknown.data);
}

static sdx_status encode_word(const sdx_model_step *model, const sdx_vocab *vocab, sdx_scratch *s,
                              sdx_piece piece, sdx_error *err)
{
    const unsigned char *p = (const unsigned char *)s->now.text + piece.begin;
    const unsigned char *end = (const unsigned char *)s->now.text + piece.end;
    if ((size_t)(end - p) > model->max_chars && count_chars(p, end) > model->max_chars) {
        return unknown_word(model, s, err);
    }
    size_t before = s->id_count;
    for (uint32_t root = 0; p < end; root = model->suffix_root) {
        int32_t id = root == SDX_TRIE_NONE ? -1 : longest_token(&vocab->trie, root, &p, end);
        if (id < 0) {
            s->id_count = before;
            return unknown_word(model, s, err);
        }
        TRY(sdx_id_add(s, id, err));
    }
    return SDX_OK;
}

sdx_status sdx_wordpiece_run(const sdx_model_step *model, const sdx_vocab *vocab, sdx_scratch *s,
                             sdx_error *err)
{
    for (size_t i = 0; i < s->now.count; i++) {
        sdx_piece piece = s->now.piece[i];
        if (piece.id >= 0)
            TRY(sdx_id_add(s, piece.id, err));
        else
            TRY(encode_word(model, vocab, s, piece, err));
    }
    return SDX_OK;
}
