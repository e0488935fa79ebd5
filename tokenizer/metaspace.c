/* metaspace.c: SentencePiece's way with spaces: they become U+2581 and belong to the word behind them. */
#include <string.h>

#include "tokenizer.h"

/* Appends text[n] with the mark in place of each space. */
static sdx_status append_marked(sdx_pieces *p, const char *text, size_t n, sdx_string mark, sdx_error *err)
{
    for (size_t i = 0; i < n;) {
        const char *space = memchr(text + i, ' ', n - i);
        size_t run = space ? (size_t)(space - text) - i : n - i;
        TRY(sdx_text_append(p, text + i, run, err));
        i += run;
        if (!space) break;
        TRY(sdx_text_append(p, mark.data, mark.size, err));
        i++;
    }
    return SDX_OK;
}

static bool starts_with(const char *text, size_t n, sdx_string mark)
{
    return n >= mark.size && !memcmp(text, mark.data, mark.size);
}

/* A piece begins at every mark. */
static sdx_status cut_marks(sdx_scratch *s, size_t begin, sdx_string mark, sdx_error *err)
{
    const char *text = s->next.text;
    size_t end = s->next.size;
    for (size_t i = begin; i < end; i++) {
        if (text[i] != mark.data[0] || !starts_with(text + i, end - i, mark)) continue;
        if (i > begin) TRY(sdx_piece_add(&s->next, begin, i, -1, err));
        begin = i;
        i += mark.size - 1;
    }
    return begin < end ? sdx_piece_add(&s->next, begin, end, -1, err) : SDX_OK;
}

static sdx_status cut_metaspace(const sdx_step *step, sdx_piece piece, sdx_scratch *s, sdx_error *err)
{
    const char *text = s->now.text + piece.begin;
    size_t n = piece.end - piece.begin, begin = s->next.size;
    bool wanted = step->prepend == SDX_PREPEND_ALWAYS ||
                  (step->prepend == SDX_PREPEND_FIRST && s->at_start && !piece.begin);
    if (wanted && *text != ' ' && !starts_with(text, n, step->pattern))
        TRY(sdx_text_append(&s->next, step->pattern.data, step->pattern.size, err));
    TRY(append_marked(&s->next, text, n, step->pattern, err));
    if (step->split) return cut_marks(s, begin, step->pattern, err);
    return sdx_piece_add(&s->next, begin, s->next.size, -1, err);
}

SDX_STEP(sdx_split_metaspace)
{
    TRY(sdx_text_reserve(&s->next, s->now.size + s->now.size / 2, err));
    TRY(sdx_each_piece(step, cut_metaspace, s, err));
    sdx_scratch_note_start(s);
    sdx_scratch_swap(s);
    return SDX_OK;
}

/* The marks become spaces again; those of the first token go, if one was put there. */
SDX_STEP(sdx_decode_metaspace)
{
    sdx_string mark = step->pattern;
    for (size_t i = 0; i < s->now.count; i++) {
        sdx_piece piece = s->now.piece[i];
        size_t begin = s->next.size;
        TRY(sdx_text_reserve(&s->next, piece.end - piece.begin, err));
        for (size_t at = piece.begin; at < piece.end;) {
            if (!starts_with(s->now.text + at, piece.end - at, mark)) {
                s->next.text[s->next.size++] = s->now.text[at++];
                continue;
            }
            if (i || step->prepend == SDX_PREPEND_NEVER) s->next.text[s->next.size++] = ' ';
            at += mark.size;
        }
        TRY(sdx_piece_add(&s->next, begin, s->next.size, -1, err));
    }
    sdx_scratch_swap(s);
    return SDX_OK;
}
