/* unicode.h: UTF-8, and the character properties that decide ids. Properties follow the versions of Unicode
 * that Hugging Face's tokenizers were built with (see unicode_tables.h), not the version of the installed
 * library. */
#ifndef SDX_TOKENIZER_UNICODE_H
#define SDX_TOKENIZER_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SDX_REPLACEMENT 0xfffdu

/* Bytes of the longest prefix that is valid UTF-8. */
size_t sdx_utf8_valid(const char *s, size_t size);
/* Bytes (1-3) at s, which is not the start of a valid sequence, that one U+FFFD stands for: the maximal subpart
 * of Unicode 3.9, as in Python's errors="replace". */
size_t sdx_utf8_bad(const char *s, size_t size);

/* One code point of valid UTF-8; advances *s. */
static inline uint32_t sdx_utf8_next(const unsigned char **s)
{
    const unsigned char *p = *s;
    if (p[0] < 0x80) {
        *s += 1;
        return p[0];
    }
    if (p[0] < 0xe0) {
        *s += 2;
        return (p[0] & 0x1fu) << 6 | (p[1] & 0x3fu);
    }
    if (p[0] < 0xf0) {
        *s += 3;
        return (p[0] & 0x0fu) << 12 | (p[1] & 0x3fu) << 6 | (p[2] & 0x3fu);
    }
    *s += 4;
    return (p[0] & 0x07u) << 18 | (p[1] & 0x3fu) << 12 | (p[2] & 0x3fu) << 6 | (p[3] & 0x3fu);
}

/* Writes 1-4 bytes; returns the end. */
static inline char *sdx_utf8_put(char *out, uint32_t c)
{
    if (c < 0x80) {
        *out++ = (char)c;
    } else if (c < 0x800) {
        *out++ = (char)(0xc0 | c >> 6);
        *out++ = (char)(0x80 | (c & 0x3f));
    } else if (c < 0x10000) {
        *out++ = (char)(0xe0 | c >> 12);
        *out++ = (char)(0x80 | (c >> 6 & 0x3f));
        *out++ = (char)(0x80 | (c & 0x3f));
    } else {
        *out++ = (char)(0xf0 | c >> 18);
        *out++ = (char)(0x80 | (c >> 12 & 0x3f));
        *out++ = (char)(0x80 | (c >> 6 & 0x3f));
        *out++ = (char)(0x80 | (c & 0x3f));
    }
    return out;
}

/* The code point that ends at s (valid UTF-8 before it, not empty). */
static inline uint32_t sdx_utf8_before(const char *s)
{
    const unsigned char *p = (const unsigned char *)s - 1;
    while ((*p & 0xc0) == 0x80) p--;
    return sdx_utf8_next(&p);
}

bool sdx_is_space(uint32_t c);       /* White_Space */
bool sdx_is_punctuation(uint32_t c); /* BERT's: ASCII symbols and P* */
bool sdx_is_nonspacing(uint32_t c);  /* Mn */
bool sdx_is_mark(uint32_t c);        /* M* */
bool sdx_is_other(uint32_t c);       /* Cc, Cf, Co */
bool sdx_is_han(uint32_t c);         /* BERT's CJK ranges */
bool sdx_is_word(uint32_t c);        /* \w of a Unicode regular expression */

bool sdx_is_letter(uint32_t c);  /* L*, of Unicode 16 */
bool sdx_is_number(uint32_t c);  /* N*, of Unicode 16 */
bool sdx_is_numeric(uint32_t c); /* N*, of Unicode 17: Rust's char::is_numeric */

/* The context-free lower case of c: 1 or 2 code points. */
int sdx_lower(uint32_t c, uint32_t out[2]);
uint32_t sdx_upper(uint32_t c);

enum { SDX_DECOMPOSED_MAX = 18 }; /* code points of the longest decomposition (U+FDFA) */
/* The full canonical (or compatibility) decomposition of c; returns its length. */
int sdx_decompose(uint32_t c, bool compatibility, uint32_t out[SDX_DECOMPOSED_MAX]);
/* Sorts runs of combining marks by class: what makes decompositions canonical. c, spare: [count]. */
void sdx_reorder(uint32_t *c, size_t count, uint32_t *spare);
/* Composes a canonically ordered text in place; returns its new length. */
size_t sdx_compose(uint32_t *c, size_t count);

#endif
