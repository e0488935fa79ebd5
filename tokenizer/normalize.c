/* normalize.c: the normalizers. Text is mostly ASCII, which no Unicode form changes: each normalizer copies
 * ASCII through a byte table and takes only the runs between through code points. */
#include <string.h>

#include "tokenizer.h"

/* Bytes of the longest prefix of s that is all ASCII. */
static size_t ascii_run(const char *s, size_t n)
{
    size_t i = 0;
    uint64_t word;
    for (; n - i >= sizeof word; i += sizeof word) {
        memcpy(&word, s + i, sizeof word);
        if (word & 0x8080808080808080u) break;
    }
    while (i < n && !((unsigned char)s[i] & 0x80)) i++;
    return i;
}

static size_t other_run(const char *s, size_t n)
{
    size_t i = 0;
    while (i < n && ((unsigned char)s[i] & 0x80)) i++;
    return i;
}

/* Appends code points to a text. */
static sdx_status append_points(sdx_pieces *p, const uint32_t *c, size_t count, sdx_error *err)
{
    TRY(sdx_text_reserve(p, count * 4, err));
    char *out = p->text + p->size;
    for (size_t i = 0; i < count; i++) out = sdx_utf8_put(out, c[i]);
    p->size = (size_t)(out - p->text);
    return SDX_OK;
}

/* ---- BertNormalizer ---------------------------------------------------------------------------------- */

/* What becomes of each ASCII byte; 0xff: dropped. */
void sdx_normalize_bert_prepare(sdx_step *step)
{
    unsigned char *table = step->ascii;
    for (unsigned c = 0; c < 128; c++) {
        table[c] = (unsigned char)(step->lowercase && c >= 'A' && c <= 'Z' ? c + 32 : c);
        if (!step->clean_text) continue;
        if (c == '\t' || c == '\n' || c == '\r')
            table[c] = ' ';
        else if (c < 32 || c == 127)
            table[c] = 0xff;
    }
}

static sdx_status bert_ascii(const unsigned char table[128], const char *s, size_t n, sdx_pieces *out,
                             sdx_error *err)
{
    TRY(sdx_text_reserve(out, n, err));
    char *to = out->text + out->size;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = table[(unsigned char)s[i]];
        *to = (char)c;
        to += c != 0xff;
    }
    out->size = (size_t)(to - out->text);
    return SDX_OK;
}

/* Clean text and space out Han, then decompose: points of s[n] (not ASCII) into s->points, and how many. */
static sdx_status bert_points(const sdx_step *step, const char *text, size_t n, sdx_scratch *s, size_t *count,
                              sdx_error *err)
{
    const unsigned char *p = (const unsigned char *)text, *end = p + n;
    size_t k = 0;
    while (p < end) {
        TRY(sdx_point_reserve(s, k + SDX_DECOMPOSED_MAX + 2, err));
        uint32_t c = sdx_utf8_next(&p);
        if (step->clean_text) {
            if (c == SDX_REPLACEMENT || sdx_is_other(c)) {
                if (!k && !s->next.size) s->at_start = false;
                continue;
            }
            if (sdx_is_space(c)) c = ' ';
        }
        bool han = step->han && sdx_is_han(c);
        if (han) s->points[k++] = ' ';
        if (step->strip_accents)
            k += (size_t)sdx_decompose(c, false, s->points + k);
        else
            s->points[k++] = c;
        if (han) s->points[k++] = ' ';
    }
    *count = k;
    return SDX_OK;
}

static sdx_status bert_other(const sdx_step *step, const char *text, size_t n, sdx_scratch *s, sdx_error *err)
{
    size_t count;
    TRY(bert_points(step, text, n, s, &count, err));
    if (step->strip_accents) sdx_reorder(s->points, count, s->spare);
    sdx_pieces *out = &s->next;
    TRY(sdx_text_reserve(out, count * 8, err)); /* lower case may double a code point */
    char *to = out->text + out->size;
    for (size_t i = 0; i < count; i++) {
        uint32_t c = s->points[i], lower[2] = {c};
        if (step->strip_accents && sdx_is_nonspacing(c)) {
            if (to == out->text) s->at_start = false;
            continue;
        }
        int m = step->lowercase ? sdx_lower(c, lower) : 1;
        for (int j = 0; j < m; j++) to = sdx_utf8_put(to, lower[j]);
    }
    out->size = (size_t)(to - out->text);
    return SDX_OK;
}

sdx_status sdx_normalize_bert(const sdx_step *step, sdx_scratch *s, sdx_error *err)
{
    const char *text = s->now.text;
    for (size_t i = 0, n = s->now.size; i < n;) {
        size_t run = ascii_run(text + i, n - i);
        if (run && !s->next.size && step->ascii[(unsigned char)text[i]] == 0xff) s->at_start = false;
        TRY(bert_ascii(step->ascii, text + i, run, &s->next, err));
        i += run;
        run = other_run(text + i, n - i);
        if (run) TRY(bert_other(step, text + i, run, s, err));
        i += run;
    }
    sdx_scratch_swap(s);
    return SDX_OK;
}

/* ---- Unicode forms -------------------------------------------------------------------------------------- */

/* The form of text[n], whose first code point may be ASCII and all others are not. */
static sdx_status form_run(const sdx_step *step, const char *text, size_t n, sdx_scratch *s, sdx_error *err)
{
    const unsigned char *p = (const unsigned char *)text, *end = p + n;
    size_t k = 0;
    while (p < end) {
        TRY(sdx_point_reserve(s, k + SDX_DECOMPOSED_MAX, err));
        k += (size_t)sdx_decompose(sdx_utf8_next(&p), step->compatibility, s->points + k);
    }
    sdx_reorder(s->points, k, s->spare);
    if (step->compose) k = sdx_compose(s->points, k);
    return append_points(&s->next, s->points, k, err);
}

sdx_status sdx_normalize_form(const sdx_step *step, sdx_scratch *s, sdx_error *err)
{
    const char *text = s->now.text;
    for (size_t i = 0, n = s->now.size; i < n;) {
        size_t ascii = ascii_run(text + i, n - i), other = other_run(text + i + ascii, n - i - ascii);
        size_t head = ascii && other ? ascii - 1 : ascii; /* a mark composes with the letter before it */
        TRY(sdx_text_append(&s->next, text + i, head, err));
        if (other) TRY(form_run(step, text + i + head, ascii - head + other, s, err));
        i += ascii + other;
    }
    sdx_scratch_swap(s);
    return SDX_OK;
}

/* ---- the small ones ----------------------------------------------------------------------------------------
 */

sdx_status sdx_normalize_lowercase(const sdx_step *step, sdx_scratch *s, sdx_error *err)
{
    (void)step;
    const unsigned char *p = (const unsigned char *)s->now.text, *end = p + s->now.size;
    TRY(sdx_text_reserve(&s->next, 2 * s->now.size, err)); /* no lower case is longer */
    char *out = s->next.text;
    while (p < end) {
        uint32_t lower[2];
        int n = sdx_lower(sdx_utf8_next(&p), lower);
        for (int i = 0; i < n; i++) out = sdx_utf8_put(out, lower[i]);
    }
    s->next.size = (size_t)(out - s->next.text);
    sdx_scratch_swap(s);
    return SDX_OK;
}

/* What is lower or upper case becomes upper case, character by character. */
SDX_STEP(sdx_normalize_uppercase)
{
    (void)step;
    const unsigned char *p = (const unsigned char *)s->now.text, *end = p + s->now.size;
    while (p < end) {
        uint32_t upper = sdx_upper(sdx_utf8_next(&p));
        TRY(append_points(&s->next, &upper, 1, err));
    }
    sdx_scratch_swap(s);
    return SDX_OK;
}

sdx_status sdx_normalize_strip_accents(const sdx_step *step, sdx_scratch *s, sdx_error *err)
{
    (void)step;
    const unsigned char *p = (const unsigned char *)s->now.text, *end = p + s->now.size;
    while (p < end) {
        uint32_t c = sdx_utf8_next(&p);
        if (!sdx_is_mark(c))
            TRY(append_points(&s->next, &c, 1, err));
        else if (!s->next.size)
            s->at_start = false;
    }
    sdx_scratch_swap(s);
    return SDX_OK;
}

sdx_status sdx_normalize_strip(const sdx_step *step, sdx_scratch *s, sdx_error *err)
{
    const char *text = s->now.text;
    size_t begin = 0, end = s->now.size;
    while (step->left && begin < end) {
        const unsigned char *p = (const unsigned char *)text + begin;
        if (!sdx_is_space(sdx_utf8_next(&p))) break;
        begin = (size_t)(p - (const unsigned char *)text);
    }
    while (step->right && end > begin && sdx_is_space(sdx_utf8_before(text + end))) {
        do end--;
        while (((unsigned char)text[end] & 0xc0) == 0x80);
    }
    if (begin) s->at_start = false;
    TRY(sdx_text_append(&s->next, text + begin, end - begin, err));
    sdx_scratch_swap(s);
    return SDX_OK;
}

/* SentencePiece's: not for an empty text. */
SDX_STEP(sdx_normalize_prepend)
{
    if (!s->now.size) return SDX_OK;
    TRY(sdx_text_append(&s->next, step->content.data, step->content.size, err));
    TRY(sdx_text_append(&s->next, s->now.text, s->now.size, err));
    sdx_scratch_swap(s);
    return SDX_OK;
}

/* Nmt: what SentencePiece's nmt_ rules drop, and what they take for a space. */
static bool nmt_drops(uint32_t c)
{
    return (c >= 1 && c <= 8) || c == 0xb || (c >= 0xe && c <= 0x1f) || c == 0x7f || c == 0x8f || c == 0x9f;
}

static bool nmt_is_space(uint32_t c)
{
    return c == 9 || c == 0xa || c == 0xc || c == 0xd || c == 0x1680 || (c >= 0x200b && c <= 0x200f) ||
           c == 0x2028 || c == 0x2029 || c == 0x2581 || c == 0xfeff || c == 0xfffd;
}

SDX_STEP(sdx_normalize_nmt)
{
    (void)step;
    const unsigned char *p = (const unsigned char *)s->now.text, *end = p + s->now.size;
    TRY(sdx_text_reserve(&s->next, s->now.size, err));
    char *out = s->next.text;
    while (p < end) {
        uint32_t c = sdx_utf8_next(&p);
        if (!nmt_drops(c))
            out = sdx_utf8_put(out, nmt_is_space(c) ? ' ' : c);
        else if (out == s->next.text)
            s->at_start = false;
    }
    s->next.size = (size_t)(out - s->next.text);
    sdx_scratch_swap(s);
    return SDX_OK;
}
