/* replace.c: Replace, as a normalizer and as a decoder: a string, a regular expression, or the one expression
 * that nearly every SentencePiece tokenizer carries, two spaces or more, which needs no engine. */
#define _GNU_SOURCE /* memmem */
#include <string.h>

#include "regex.h"
#include "tokenizer.h"

/* Is the first character of the text gone? It is where a match took its place with more characters, the last of
 * which tokenizers then takes for the origin of what stands there; or with nothing. */
static bool moves_start(const sdx_step *step, size_t begin, sdx_string match)
{
    if (begin) return false;
    const unsigned char *p = (const unsigned char *)match.data;
    if (match.size) sdx_utf8_next(&p);
    return match.size && (!step->content.size || p < (const unsigned char *)match.data + match.size);
}

/* Spaces at text[i] if they are two or more; else 0. */
static size_t spaces_at(sdx_string text, size_t i)
{
    size_t n = i;
    while (n < text.size && text.data[n] == ' ') n++;
    return n - i >= 2 ? n - i : 0;
}

static sdx_status replace_spaces(const sdx_step *step, sdx_string text, sdx_scratch *s, sdx_error *err)
{
    sdx_pieces *out = &s->next;
    size_t done = 0;
    for (size_t i = 0; i < text.size;) {
        const char *space = memchr(text.data + i, ' ', text.size - i);
        if (!space) break;
        i = (size_t)(space - text.data);
        size_t n = spaces_at(text, i);
        if (n) {
            if (moves_start(step, i, (sdx_string){text.data, n})) s->at_start = false;
            TRY(sdx_text_append(out, text.data + done, i - done, err));
            TRY(sdx_text_append(out, step->content.data, step->content.size, err));
            done = i + n;
        }
        i += n ? n : 1;
    }
    return sdx_text_append(out, text.data + done, text.size - done, err);
}

static sdx_status replace_string(const sdx_step *step, sdx_string text, sdx_scratch *s, sdx_error *err)
{
    sdx_pieces *out = &s->next;
    const char *at = text.data, *end = at + text.size, *hit;
    while (at < end && (hit = memmem(at, (size_t)(end - at), step->pattern.data, step->pattern.size))) {
        if (moves_start(step, (size_t)(hit - text.data), step->pattern)) s->at_start = false;
        TRY(sdx_text_append(out, at, (size_t)(hit - at), err));
        TRY(sdx_text_append(out, step->content.data, step->content.size, err));
        at = hit + step->pattern.size;
    }
    return sdx_text_append(out, at, (size_t)(end - at), err);
}

static sdx_status replace_regex(const sdx_step *step, sdx_string text, sdx_scratch *s, sdx_error *err)
{
    sdx_pieces *out = &s->next;
    sdx_regex_scan scan = {step->regex, text, 0, SIZE_MAX, 0, 0};
    size_t done = 0;
    for (bool found;;) {
        TRY(sdx_regex_next(&scan, s, &found, err));
        if (!found) break;
        if (moves_start(step, scan.begin, (sdx_string){text.data, scan.end})) s->at_start = false;
        if (scan.begin > done) TRY(sdx_text_append(out, text.data + done, scan.begin - done, err));
        TRY(sdx_text_append(out, step->content.data, step->content.size, err));
        done = scan.end;
    }
    return sdx_text_append(out, text.data + done, text.size - done, err);
}

/* Appends the text with all matches replaced to next. */
static sdx_status replace(const sdx_step *step, sdx_string text, sdx_scratch *s, sdx_error *err)
{
    if (!text.size) return SDX_OK;
    if (step->regex) return replace_regex(step, text, s, err);
    if (!step->pattern.size) return replace_spaces(step, text, s, err);
    return replace_string(step, text, s, err);
}

SDX_STEP(sdx_normalize_replace)
{
    TRY(replace(step, (sdx_string){s->now.text, s->now.size}, s, err));
    sdx_scratch_swap(s);
    return SDX_OK;
}

SDX_STEP(sdx_decode_replace)
{
    for (size_t i = 0; i < s->now.count; i++) {
        sdx_piece piece = s->now.piece[i];
        size_t begin = s->next.size;
        TRY(replace(step, (sdx_string){s->now.text + piece.begin, piece.end - piece.begin}, s, err));
        TRY(sdx_piece_add(&s->next, begin, s->next.size, -1, err));
    }
    sdx_scratch_swap(s);
    return SDX_OK;
}
