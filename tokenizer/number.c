/* number.c: decimal numbers to the nearest double. A Unigram vocabulary is a quarter of a million scores of 16
 * or 17 digits, so the common case avoids strtod: digits that fit into 64 bits and a power of ten up to 27 are
 * both exact in the x87 format of 64-bit significands, which leaves one division. Rounding its result again to
 * 53 bits goes wrong only if the 11 bits dropped are exactly one half; those go to strtod, as does all else. */
#include <float.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>

#include "json_bulk.h"

/* strtod in the "C" locale: the decimal point may be something else in the caller's. Returns the end. */
static const char *slow_number(const char *text, const char *end, double *out)
{
    char copy[400], *stop;
    size_t n = 0;
    char point = *localeconv()->decimal_point;
    for (; n + 1 < sizeof copy && text + n < end && strchr("+-.eE0123456789", text[n]) && text[n]; n++)
        copy[n] = text[n] == '.' ? point : text[n];
    copy[n] = 0;
    *out = strtod(copy, &stop);
    return text + (stop - copy);
}

#if LDBL_MANT_DIG == 64

/* text = digits * 10^-scale, if that is all there is: no exponent, at most 19 digits. NULL: it is not. */
static const char *read_digits(const char *text, const char *end, uint64_t *digits, int *scale)
{
    const char *p = text, *point = NULL;
    int count = 0;
    *digits = 0;
    for (; p < end; p++) {
        if (*p == '.' && !point) {
            point = p;
            continue;
        }
        if (*p < '0' || *p > '9') break;
        *digits = *digits * 10 + (uint64_t)(*p - '0');
        if (++count > 19) return NULL;
    }
    *scale = point ? (int)(p - point) - 1 : 0;
    return count && (p == end || (*p | 0x20) != 'e') ? p : NULL;
}

/* False: not sure. */
static bool divide(uint64_t digits, int scale, double *out)
{
    static const long double power[] = {1e0L,  1e1L,  1e2L,  1e3L,  1e4L,  1e5L,  1e6L,  1e7L,  1e8L,  1e9L,
                                        1e10L, 1e11L, 1e12L, 1e13L, 1e14L, 1e15L, 1e16L, 1e17L, 1e18L, 1e19L};
    uint64_t significand;
    long double quotient = (long double)digits / power[scale];
    memcpy(&significand, &quotient, sizeof significand);
    if ((significand & 0x7ff) == 0x400) return false;
    *out = (double)quotient;
    return true;
}

static const char *fast_number(const char *text, const char *end, double *out)
{
    uint64_t digits;
    int scale;
    bool minus = *text == '-';
    const char *stop = read_digits(text + minus, end, &digits, &scale);
    if (!stop || !divide(digits, scale, out)) return NULL;
    if (minus) *out = -*out;
    return stop;
}

#else

static const char *fast_number(const char *text, const char *end, double *out)
{
    (void)text;
    (void)end;
    (void)out;
    return NULL;
}

#endif

const char *sdx_read_number(const char *text, const char *end, double *out)
{
    const char *stop = text < end ? fast_number(text, end, out) : NULL;
    return stop ? stop : slow_number(text, end, out);
}
