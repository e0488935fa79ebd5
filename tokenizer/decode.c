/* decode.c: the decoders, and the clean-ups that undo the spaces a word splitter put around punctuation. */
#include <string.h>

#include "tokenizer.h"

/* `to` is never the longer, so that it works in place. */
static size_t replace_all(char *text, size_t size, sdx_string from, sdx_string to)
{
    size_t out = 0;
    for (size_t i = 0; i < size;) {
        if (text[i] == from.data[0] && size - i >= from.size && !memcmp(text + i, from.data, from.size)) {
            memcpy(text + out, to.data, to.size);
            out += to.size;
            i += from.size;
        } else {
            text[out++] = text[i++];
        }
    }
    return out;
}

static size_t replace_listed(char *text, size_t size, const char *const (*table)[2], size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const char *from = table[i][0], *to = table[i][1];
        size = replace_all(text, size, (sdx_string){from, strlen(from)}, (sdx_string){to, strlen(to)});
    }
    return size;
}

size_t sdx_clean_up_spaces(char *text, size_t size)
{
    static const char *const table[][2] = {{" .", "."},     {" ?", "?"},     {" !", "!"},   {" ,", ","},
                                           {" ' ", "'"},    {" n't", "n't"}, {" 'm", "'m"}, {" 's", "'s"},
                                           {" 've", "'ve"}, {" 're", "'re"}};
    return replace_listed(text, size, table, sizeof table / sizeof *table);
}

/* tokenizers' own list, one longer, and applied to single tokens. */
static size_t clean_up_token(char *text, size_t size)
{
    static const char *const table[][2] = {
        {" .", "."},   {" ?", "?"},           {" !", "!"},   {" ,", ","},     {" ' ", "'"},   {" n't", "n't"},
        {" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
    return replace_listed(text, size, table, sizeof table / sizeof *table);
}

sdx_status sdx_decode_wordpiece(const sdx_step *step, sdx_scratch *s, sdx_error *err)
{
    for (size_t i = 0; i < s->now.count; i++) {
        const char *token = s->now.text + s->now.piece[i].begin;
        size_t size = s->now.piece[i].end - s->now.piece[i].begin, begin = s->next.size;
        bool suffix = i && size >= step->pattern.size && !memcmp(token, step->pattern.data, step->pattern.size);
        if (suffix) {
            token += step->pattern.size;
            size -= step->pattern.size;
        } else if (i) {
            TRY(sdx_text_append(&s->next, " ", 1, err));
        }
        TRY(sdx_text_append(&s->next, token, size, err));
        if (step->cleanup) s->next.size = begin + clean_up_token(s->next.text + begin, s->next.size - begin);
        TRY(sdx_piece_add(&s->next, begin, s->next.size, -1, err));
    }
    sdx_scratch_swap(s);
    return SDX_OK;
}

/* Appends a token with each `from` replaced. */
static sdx_status append_replaced(sdx_pieces *p, const char *token, size_t size, sdx_string from, sdx_string to,
                                  sdx_error *err)
{
    for (size_t i = 0; i < size;) {
        bool hit = from.size && size - i >= from.size && !memcmp(token + i, from.data, from.size);
        TRY(sdx_text_append(p, hit ? to.data : token + i, hit ? to.size : 1, err));
        i += hit ? from.size : 1;
    }
    return SDX_OK;
}

/* The end-of-word mark becomes a space, and nothing in the last token. */
SDX_STEP(sdx_decode_bpe)
{
    for (size_t i = 0; i < s->now.count; i++) {
        sdx_piece piece = s->now.piece[i];
        size_t begin = s->next.size;
        sdx_string to = {" ", i + 1 < s->now.count};
        TRY(append_replaced(&s->next, s->now.text + piece.begin, piece.end - piece.begin, step->pattern, to,
                            err));
        TRY(sdx_piece_add(&s->next, begin, s->next.size, -1, err));
    }
    sdx_scratch_swap(s);
    return SDX_OK;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The byte of a token such as <0x0A>, or -1. */
static int fallback_byte(const char *token, size_t size)
{
    if (size != 6 || memcmp(token, "<0x", 3) || token[5] != '>') return -1;
    int high = hex_value(token[3]), low = hex_value(token[4]);
    return high < 0 || low < 0 ? -1 : high << 4 | low;
}

/* Ends a run of bytes that began at `begin` of next's text: one piece, or, if it is not UTF-8, one a byte, of
 * U+FFFD. */
static sdx_status end_bytes(sdx_scratch *s, size_t begin, sdx_error *err)
{
    size_t n = s->next.size - begin;
    if (!n) return SDX_OK;
    if (sdx_utf8_valid(s->next.text + begin, n) != n) {
        s->next.size = begin;
        for (size_t i = 0; i < n; i++, begin += 3) {
            TRY(sdx_text_append(&s->next, "\xef\xbf\xbd", 3, err));
            TRY(sdx_piece_add(&s->next, begin, s->next.size, -1, err));
        }
        return SDX_OK;
    }
    return sdx_piece_add(&s->next, begin, s->next.size, -1, err);
}

SDX_STEP(sdx_decode_byte_fallback)
{
    (void)step;
    size_t run = 0; /* where the bytes not yet ended begin */
    for (size_t i = 0; i < s->now.count; i++) {
        const char *token = s->now.text + s->now.piece[i].begin;
        size_t size = s->now.piece[i].end - s->now.piece[i].begin;
        int byte = fallback_byte(token, size);
        if (byte >= 0) {
            char c = (char)byte;
            TRY(sdx_text_append(&s->next, &c, 1, err));
            continue;
        }
        TRY(end_bytes(s, run, err));
        run = s->next.size;
        TRY(sdx_text_append(&s->next, token, size, err));
        TRY(sdx_piece_add(&s->next, run, s->next.size, -1, err));
        run = s->next.size;
    }
    TRY(end_bytes(s, run, err));
    sdx_scratch_swap(s);
    return SDX_OK;
}

/* All tokens become one. */
SDX_STEP(sdx_decode_fuse)
{
    (void)step;
    (void)err;
    if (s->now.count) s->now.piece[0] = (sdx_piece){0, (uint32_t)s->now.size, -1};
    s->now.count = s->now.count > 0;
    return SDX_OK;
}

static size_t character_before(const char *text, size_t end)
{
    do end--;
    while (((unsigned char)text[end] & 0xc0) == 0x80);
    return end;
}

/* A character is cut from both ends of every token, so many times at most. */
SDX_STEP(sdx_decode_strip)
{
    sdx_string cut = step->pattern;
    for (size_t i = 0; i < s->now.count; i++) {
        sdx_piece piece = s->now.piece[i];
        const char *text = s->now.text;
        size_t begin = piece.begin, end = piece.end, at = s->next.size;
        for (size_t k = 0; k < step->start && end - begin >= cut.size; k++, begin += cut.size) {
            if (memcmp(text + begin, cut.data, cut.size)) break;
        }
        for (size_t k = 0; k < step->stop && end > begin; k++) {
            size_t last = character_before(text, end);
            if (end - last != cut.size || memcmp(text + last, cut.data, cut.size)) break;
            end = last;
        }
        TRY(sdx_text_append(&s->next, text + begin, end - begin, err));
        TRY(sdx_piece_add(&s->next, at, s->next.size, -1, err));
    }
    sdx_scratch_swap(s);
    return SDX_OK;
}

static bool same_token(const sdx_pieces *p, size_t i, size_t j)
{
    size_t n = p->piece[i].end - p->piece[i].begin;
    return p->piece[j].end - p->piece[j].begin == n &&
           !memcmp(p->text + p->piece[i].begin, p->text + p->piece[j].begin, n);
}

/* Repeated tokens are one, the blank is nothing, the delimiter is a space. */
SDX_STEP(sdx_decode_ctc)
{
    sdx_pieces *out = &s->next;
    for (size_t i = 0; i < s->now.count; i++) {
        if (i && same_token(&s->now, i - 1, i)) continue;
        sdx_piece piece = s->now.piece[i];
        size_t begin = out->size;
        TRY(append_replaced(out, s->now.text + piece.begin, piece.end - piece.begin, step->pattern,
                            (sdx_string){0}, err));
        if (step->cleanup) {
            char *text = out->text + begin;
            size_t n = clean_up_token(text, out->size - begin);
            out->size = begin + replace_all(text, n, step->content, (sdx_string){" ", 1});
        }
        if (out->size > begin) TRY(sdx_piece_add(out, begin, out->size, -1, err));
    }
    sdx_scratch_swap(s);
    return SDX_OK;
}
