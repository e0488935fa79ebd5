/* split.c: the pre-tokenizers that look for something in a piece and cut there. What they find differs, what
 * becomes of it (removed, alone, joined to a neighbour) is said once. */
#define _GNU_SOURCE /* memmem */
#include <string.h>

#include "regex.h"
#include "tokenizer.h"

sdx_status sdx_each_piece(const sdx_step *step, sdx_piece_fn cut, sdx_scratch *s, sdx_error *err)
{
    for (size_t i = 0; i < s->now.count; i++) {
        sdx_piece piece = s->now.piece[i];
        if (piece.id >= 0)
            TRY(sdx_piece_add(&s->next, s->next.size, s->next.size, piece.id, err));
        else if (piece.begin < piece.end)
            TRY(cut(step, piece, s, err));
    }
    return SDX_OK;
}

/* ---- what becomes of matches --------------------------------------------------------------------------------
 */

typedef struct cutter {
    const sdx_step *step;
    sdx_scratch *s;
    size_t base;       /* of the piece in the text; all else counts from there */
    size_t begin, end; /* a piece not yet put out, because it may grow */
    bool open;         /* there is one */
    bool was_match;    /* the last part was a match */
} cutter;

static sdx_status put_out(cutter *c, sdx_error *err)
{
    if (!c->open || c->begin == c->end) return SDX_OK;
    return sdx_piece_add(&c->s->next, c->base + c->begin, c->base + c->end, -1, err);
}

/* The next part [begin, end): does it belong to the open piece? */
static bool joins(const cutter *c, bool match)
{
    switch (c->step->behavior) {
    case SDX_SPLIT_WITH_PREVIOUS: return match && !c->was_match;
    case SDX_SPLIT_WITH_NEXT: return !match && c->was_match;
    case SDX_SPLIT_CONTIGUOUS: return match == c->was_match;
    default: return false;
    }
}

static sdx_status part(cutter *c, size_t begin, size_t end, bool match, sdx_error *err)
{
    match = match != c->step->invert;
    if (c->open && joins(c, match)) {
        c->end = end;
    } else {
        TRY(put_out(c, err));
        c->open = !(match && c->step->behavior == SDX_SPLIT_REMOVED);
        c->begin = begin;
        c->end = end;
    }
    c->was_match = match;
    return SDX_OK;
}

/* ---- patterns
 * ------------------------------------------------------------------------------------------------- */

static sdx_status cut_regex(cutter *c, sdx_string text, sdx_error *err)
{
    sdx_regex_scan scan = {c->step->regex, text, 0, SIZE_MAX, 0, 0};
    size_t done = 0;
    for (bool found;;) {
        TRY(sdx_regex_next(&scan, c->s, &found, err));
        if (!found) break;
        if (scan.begin < done) scan.begin = done;
        if (done < scan.begin) TRY(part(c, done, scan.begin, false, err));
        TRY(part(c, scan.begin, scan.end, true, err));
        done = scan.end;
    }
    return done < text.size ? part(c, done, text.size, false, err) : SDX_OK;
}

static sdx_status cut_string(cutter *c, sdx_string text, sdx_error *err)
{
    sdx_string pattern = c->step->pattern;
    size_t done = 0;
    for (const char *hit; (hit = memmem(text.data + done, text.size - done, pattern.data, pattern.size));) {
        size_t at = (size_t)(hit - text.data);
        if (done < at) TRY(part(c, done, at, false, err));
        done = at + pattern.size;
        TRY(part(c, at, done, true, err));
    }
    return done < text.size ? part(c, done, text.size, false, err) : SDX_OK;
}

static sdx_status cut_pattern(const sdx_step *step, sdx_piece piece, sdx_scratch *s, sdx_error *err)
{
    cutter c = {.step = step, .s = s, .base = piece.begin};
    sdx_string text = {s->now.text + piece.begin, piece.end - piece.begin};
    if (step->regex)
        TRY(cut_regex(&c, text, err));
    else
        TRY(cut_string(&c, text, err));
    return put_out(&c, err);
}

SDX_STEP(sdx_split_pattern)
{
    TRY(sdx_each_piece(step, cut_pattern, s, err));
    sdx_scratch_swap_pieces(s);
    return SDX_OK;
}

/* ---- characters
 * ------------------------------------------------------------------------------------------------ */

typedef bool (*is_match)(const sdx_step *step, uint32_t c);

static bool is_delimiter(const sdx_step *step, uint32_t c)
{
    return c == step->character;
}

static bool is_punctuation(const sdx_step *step, uint32_t c)
{
    (void)step;
    return sdx_is_punctuation(c);
}

static bool is_digit(const sdx_step *step, uint32_t c)
{
    (void)step;
    return sdx_is_numeric(c);
}

/* Each matching character is a match; what lies between is one part. */
static sdx_status cut_characters(const sdx_step *step, is_match is, sdx_piece piece, sdx_scratch *s,
                                 sdx_error *err)
{
    cutter c = {.step = step, .s = s, .base = piece.begin};
    const unsigned char *text = (const unsigned char *)s->now.text + piece.begin, *p = text;
    const unsigned char *end = text + (piece.end - piece.begin), *done = text;
    while (p < end) {
        const unsigned char *here = p;
        if (!is(step, sdx_utf8_next(&p))) continue;
        if (done < here) TRY(part(&c, (size_t)(done - text), (size_t)(here - text), false, err));
        TRY(part(&c, (size_t)(here - text), (size_t)(p - text), true, err));
        done = p;
    }
    if (done < end) TRY(part(&c, (size_t)(done - text), (size_t)(end - text), false, err));
    return put_out(&c, err);
}

static sdx_status cut_delimiter(const sdx_step *step, sdx_piece piece, sdx_scratch *s, sdx_error *err)
{
    return cut_characters(step, is_delimiter, piece, s, err);
}

static sdx_status cut_punctuation(const sdx_step *step, sdx_piece piece, sdx_scratch *s, sdx_error *err)
{
    return cut_characters(step, is_punctuation, piece, s, err);
}

static sdx_status cut_digits(const sdx_step *step, sdx_piece piece, sdx_scratch *s, sdx_error *err)
{
    return cut_characters(step, is_digit, piece, s, err);
}

static sdx_status cut_fixed(const sdx_step *step, sdx_piece piece, sdx_scratch *s, sdx_error *err)
{
    const unsigned char *text = (const unsigned char *)s->now.text;
    for (const unsigned char *p = text + piece.begin, *end = text + piece.end; p < end;) {
        const unsigned char *begin = p;
        for (size_t i = 0; i < step->start && p < end; i++) sdx_utf8_next(&p);
        TRY(sdx_piece_add(&s->next, (size_t)(begin - text), (size_t)(p - text), -1, err));
    }
    return SDX_OK;
}

static sdx_status cut_all(const sdx_step *step, sdx_piece_fn cut, sdx_scratch *s, sdx_error *err)
{
    TRY(sdx_each_piece(step, cut, s, err));
    sdx_scratch_swap_pieces(s);
    return SDX_OK;
}

SDX_STEP(sdx_split_delimiter)
{
    return cut_all(step, cut_delimiter, s, err);
}

SDX_STEP(sdx_split_punctuation)
{
    return cut_all(step, cut_punctuation, s, err);
}

SDX_STEP(sdx_split_digits)
{
    return cut_all(step, cut_digits, s, err);
}

SDX_STEP(sdx_split_fixed)
{
    return cut_all(step, cut_fixed, s, err);
}
