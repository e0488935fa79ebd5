/* added_tokens.c: tokens such as [MASK] that are found in the text itself, before any model. Leftmost match
 * first, of those the longest, as tokenizers' Aho-Corasick does; here a trie tried wherever a first byte fits.
 */
#include "tokenizer.h"

static bool word_before(sdx_string text, size_t at)
{
    return at && sdx_is_word(sdx_utf8_before(text.data + at));
}

static bool word_after(sdx_string text, size_t at)
{
    const unsigned char *p = (const unsigned char *)text.data + at;
    return at < text.size && sdx_is_word(sdx_utf8_next(&p));
}

static size_t skip_spaces_left(sdx_string text, size_t at, size_t limit)
{
    while (at > limit && sdx_is_space(sdx_utf8_before(text.data + at))) {
        do at--;
        while (at > limit && ((unsigned char)text.data[at] & 0xc0) == 0x80);
    }
    return at;
}

static size_t skip_spaces_right(sdx_string text, size_t at)
{
    while (at < text.size) {
        const unsigned char *start = (const unsigned char *)text.data + at, *p = start;
        if (!sdx_is_space(sdx_utf8_next(&p))) break;
        at += (size_t)(p - start);
    }
    return at;
}

/* The longest key at text[at]: its value and end, or -1. */
static int32_t longest_at(const sdx_trie *trie, sdx_string text, size_t at, size_t *end)
{
    int32_t found = -1;
    uint32_t node = 0;
    for (size_t i = at; i < text.size; i++) {
        node = sdx_trie_step(trie, node, (unsigned char)text.data[i]);
        if (node == SDX_TRIE_NONE) break;
        if (trie->node[node].value < 0) continue;
        found = trie->node[node].value;
        *end = i + 1;
    }
    return found;
}

bool sdx_added_find(const sdx_added_set *set, const sdx_added_token *added, sdx_string text, size_t done,
                    size_t *scan, sdx_added_match *match)
{
    if (!set->trie.size) return false;
    for (size_t i = *scan, end = 0; i < text.size; i++) {
        if (!set->first[(unsigned char)text.data[i]]) continue;
        int32_t index = longest_at(&set->trie, text, i, &end);
        if (index < 0) continue;
        const sdx_added_token *token = &added[index];
        *scan = end;
        if (token->single_word && (word_before(text, i) || word_after(text, end))) {
            i = end - 1; /* tokenizers goes on behind a refused match, too */
            continue;
        }
        match->begin = i < done ? done : i;
        match->end = end;
        match->id = token->id;
        if (token->lstrip) match->begin = skip_spaces_left(text, match->begin, done);
        if (token->rstrip) match->end = skip_spaces_right(text, end);
        if (token->lstrip && match->end <= match->begin) { /* nothing is left after the match before it */
            i = end - 1;
            continue;
        }
        return true;
    }
    return false;
}
