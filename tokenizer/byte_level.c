/* byte_level.c: GPT-2's byte-level text. Every byte has a printable character of its own (bytes that are
 * printable in Latin-1 have theirs, the others U+0100 and up), so that a vocabulary of characters covers all
 * texts. GPT-2's word pattern is matched by hand: it is a choice by the next one or two character classes. */
#include <string.h>

#include "tokenizer.h"

/* ---- bytes and their characters ------------------------------------------------------------------------- */

static bool is_printable(uint32_t byte)
{
    return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

/* The character of a byte. The 68 unprintable ones are counted up from U+0100: 0-32, 127-160, 173. */
static uint32_t byte_character(unsigned char byte)
{
    if (is_printable(byte)) return byte;
    if (byte <= 0x20) return 0x100u + byte;
    if (byte == 0xad) return 0x143;
    return 0x121u + byte - 0x7f;
}

/* The byte of a character, or -1. */
static int character_byte(uint32_t c)
{
    if (c < 0x100) return is_printable(c) ? (int)c : -1;
    if (c <= 0x120) return (int)(c - 0x100);
    if (c <= 0x142) return (int)(c - 0x121 + 0x7f);
    return c == 0x143 ? 0xad : -1;
}

/* Appends the characters of bytes[n]. */
static sdx_status append_bytes(sdx_pieces *p, const unsigned char *bytes, size_t n, sdx_error *err)
{
    TRY(sdx_text_reserve(p, 2 * n, err));
    char *out = p->text + p->size;
    for (size_t i = 0; i < n; i++) {
        if (bytes[i] > 0x20 && bytes[i] < 0x7f)
            *out++ = (char)bytes[i];
        else
            out = sdx_utf8_put(out, byte_character(bytes[i]));
    }
    p->size = (size_t)(out - p->text);
    return SDX_OK;
}

SDX_STEP(sdx_normalize_bytes)
{
    (void)step;
    TRY(append_bytes(&s->next, (const unsigned char *)s->now.text, s->now.size, err));
    sdx_scratch_swap(s);
    return SDX_OK;
}

/* ---- GPT-2's words ----------------------------------------------------------------------------------------
 */

typedef enum class { LETTER, NUMBER, SPACE, OTHER } class;

/* L: letter, N: number, S: space, O: other, for each ASCII character. */
static const char ascii_class[129] = "OOOOOOOOOSSSSSOOOOOOOOOOOOOOOOOOSOOOOOOOOOOOOOOONNNNNNNNNNOOOOOO"
                                     "OLLLLLLLLLLLLLLLLLLLLLLLLLLOOOOOOLLLLLLLLLLLLLLLLLLLLLLLLLLOOOOO";

static inline class class_next(const unsigned char **p)
{
    if (**p < 0x80) {
        char c = ascii_class[*(*p)++];
        return c == 'L' ? LETTER : c == 'N' ? NUMBER : c == 'S' ? SPACE : OTHER;
    }
    uint32_t c = sdx_utf8_next(p);
    if (sdx_is_letter(c)) return LETTER;
    if (sdx_is_space(c)) return SPACE;
    return sdx_is_number(c) ? NUMBER : OTHER;
}

/* Behind all characters of this class. */
static const unsigned char *run_end(const unsigned char *p, const unsigned char *end, class of)
{
    while (p < end) {
        const unsigned char *next = p;
        if (class_next(&next) != of) break;
        p = next;
    }
    return p;
}

/* 's 't 're 've 'm 'll 'd: bytes of the one at p, or 0. */
static size_t contraction(const unsigned char *p, const unsigned char *end)
{
    if (*p != '\'' || end - p < 2) return 0;
    if (memchr("stmd", p[1], 4)) return 2;
    if (end - p < 3) return 0;
    return (p[1] == 'r' && p[2] == 'e') || (p[1] == 'v' && p[2] == 'e') || (p[1] == 'l' && p[2] == 'l') ? 3 : 0;
}

/* Behind the spaces at p, or before the last of them if a word follows that it may belong to. */
static const unsigned char *spaces_before_word(const unsigned char *p, const unsigned char *end)
{
    const unsigned char *stop = run_end(p, end, SPACE);
    if (stop == end) return stop;
    do stop--;
    while ((*stop & 0xc0) == 0x80);
    return stop;
}

const unsigned char *sdx_gpt2_word(const unsigned char *p, const unsigned char *end)
{
    size_t n = contraction(p, end);
    if (n) return p + n;
    const unsigned char *next = p;
    class first = class_next(&next);
    if (first != SPACE) return run_end(next, end, first);
    if (*p == ' ' && next < end) {
        const unsigned char *after = next;
        class second = class_next(&after);
        if (second != SPACE) return run_end(after, end, second);
    }
    const unsigned char *stop = spaces_before_word(p, end); /* \s+(?!\S)|\s+ */
    return stop > p ? stop : next;
}

static sdx_status cut_gpt2(const sdx_step *step, sdx_piece piece, sdx_scratch *s, sdx_error *err)
{
    (void)step;
    const unsigned char *text = (const unsigned char *)s->now.text, *end = text + piece.end;
    for (const unsigned char *p = text + piece.begin, *next; p < end; p = next) {
        next = sdx_gpt2_word(p, end);
        TRY(sdx_piece_add(&s->next, (size_t)(p - text), (size_t)(next - text), -1, err));
    }
    return SDX_OK;
}

SDX_STEP(sdx_split_gpt2)
{
    TRY(sdx_each_piece(step, cut_gpt2, s, err));
    sdx_scratch_swap_pieces(s);
    return SDX_OK;
}

/* ---- the pre-tokenizer --------------------------------------------------------------------------------------
 */

static sdx_status put_word(const unsigned char *p, const unsigned char *end, sdx_scratch *s, sdx_error *err)
{
    size_t begin = s->next.size;
    TRY(append_bytes(&s->next, p, (size_t)(end - p), err));
    return sdx_piece_add(&s->next, begin, s->next.size, -1, err);
}

/* The first word of a text that is to begin with a space and does not: the pattern sees " x" as one word. */
static sdx_status put_first_word(const sdx_step *step, const unsigned char **p, const unsigned char *end,
                                 sdx_scratch *s, sdx_error *err)
{
    size_t begin = s->next.size;
    const unsigned char *start = *p, *after = start;
    TRY(append_bytes(&s->next, (const unsigned char *)" ", 1, err));
    class first = class_next(&after);
    if (!step->words)
        *p = end;
    else if (first != SPACE)
        *p = run_end(after, end, first);
    else
        *p = spaces_before_word(start, end);
    TRY(append_bytes(&s->next, start, (size_t)(*p - start), err));
    return sdx_piece_add(&s->next, begin, s->next.size, -1, err);
}

static sdx_status cut_bytes(const sdx_step *step, sdx_piece piece, sdx_scratch *s, sdx_error *err)
{
    const unsigned char *p = (const unsigned char *)s->now.text + piece.begin;
    const unsigned char *end = (const unsigned char *)s->now.text + piece.end;
    if (step->add_space && *p != ' ') TRY(put_first_word(step, &p, end, s, err));
    while (p < end) {
        const unsigned char *next = step->words ? sdx_gpt2_word(p, end) : end;
        TRY(put_word(p, next, s, err));
        p = next;
    }
    return SDX_OK;
}

SDX_STEP(sdx_split_bytes)
{
    TRY(sdx_text_reserve(&s->next, s->now.size + s->now.size / 4, err));
    TRY(sdx_each_piece(step, cut_bytes, s, err));
    sdx_scratch_note_start(s);
    sdx_scratch_swap(s);
    return SDX_OK;
}

/* ---- and back -----------------------------------------------------------------------------------------------
 */

/* Appends the bytes of a token; one with a character that stands for no byte is taken as it is. */
static sdx_status append_token(sdx_pieces *p, const char *token, size_t n, sdx_error *err)
{
    const unsigned char *at = (const unsigned char *)token, *end = at + n;
    size_t begin = p->size;
    TRY(sdx_text_reserve(p, n, err));
    while (at < end) {
        int byte = character_byte(sdx_utf8_next(&at));
        if (byte < 0) {
            p->size = begin;
            return sdx_text_append(p, token, n, err);
        }
        p->text[p->size++] = (char)byte;
    }
    return SDX_OK;
}

/* One piece of all tokens; now holds their bytes until they are repaired, which next takes. */
SDX_STEP(sdx_decode_bytes)
{
    (void)step;
    for (size_t i = 0; i < s->now.count; i++) {
        sdx_piece piece = s->now.piece[i];
        TRY(append_token(&s->next, s->now.text + piece.begin, piece.end - piece.begin, err));
    }
    sdx_scratch_swap(s);
    TRY(sdx_text_repair(s->now.text, s->now.size, &s->next, err));
    TRY(sdx_piece_add(&s->next, 0, s->next.size, -1, err));
    sdx_scratch_swap(s);
    return SDX_OK;
}
