/* unicode.c: see unicode.h. Decomposition, composition and case come from utf8proc; what it knows of characters
 * newer than Hugging Face's tables (or does not know yet) is corrected here. */
#include "unicode.h"

#include <string.h>
#include <utf8proc.h>

#include "unicode_tables.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* Bytes of the sequence at s, of n > 0 left: > 0 if valid, else minus the length of the maximal subpart. The
 * second byte's range depends on the first (Table 3-7), which excludes overlong forms and surrogates. */
static int sequence_length(const unsigned char *s, size_t n)
{
    unsigned first = s[0], low = 0x80, high = 0xbf;
    if (first < 0x80) return 1;
    if (first < 0xc2 || first > 0xf4) return -1;
    int length = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    if (first == 0xe0) low = 0xa0;
    if (first == 0xed) high = 0x9f;
    if (first == 0xf0) low = 0x90;
    if (first == 0xf4) high = 0x8f;
    for (int i = 1; i < length; i++, low = 0x80, high = 0xbf) {
        if ((size_t)i >= n || s[i] < low || s[i] > high) return -i;
    }
    return length;
}

size_t sdx_utf8_valid(const char *s, size_t size)
{
    const unsigned char *p = (const unsigned char *)s;
    size_t i = 0;
    while (i < size) {
        uint64_t word;
        if (size - i >= sizeof word) {
            memcpy(&word, p + i, sizeof word);
            if (!(word & 0x8080808080808080u)) {
                i += sizeof word;
                continue;
            }
        }
        int n = sequence_length(p + i, size - i);
        if (n < 0) return i;
        i += (size_t)n;
    }
    return size;
}

size_t sdx_utf8_bad(const char *s, size_t size)
{
    int n = sequence_length((const unsigned char *)s, size);
    return (size_t)(n < 0 ? -n : n);
}

static bool in_ranges(const unicode_range *range, size_t count, uint32_t c)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (c > range[middle].last)
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && c >= range[low].first;
}

bool sdx_is_space(uint32_t c)
{
    if (c < 0x80) return c == ' ' || (c >= 9 && c <= 13);
    return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
           c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

bool sdx_is_punctuation(uint32_t c)
{
    if (c >= 0x80) return in_ranges(punctuation_8, COUNT(punctuation_8), c);
    return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
}

bool sdx_is_nonspacing(uint32_t c)
{
    return c >= 0x300 && in_ranges(nonspacing_8, COUNT(nonspacing_8), c);
}
bool sdx_is_mark(uint32_t c)
{
    return c >= 0x300 && in_ranges(mark_9, COUNT(mark_9), c);
}
bool sdx_is_other(uint32_t c)
{
    return in_ranges(other_8, COUNT(other_8), c);
}

/* As BERT's and Hugging Face's code has them, the slip at U+2B820 included. */
bool sdx_is_han(uint32_t c)
{
    static const unicode_range han[] = {{0x3400, 0x4dbf},   {0x4e00, 0x9fff},   {0xf900, 0xfaff},
                                        {0x20000, 0x2a6df}, {0x2a700, 0x2b81f}, {0x2b920, 0x2ceaf},
                                        {0x2f800, 0x2fa1f}};
    return c >= 0x3400 && in_ranges(han, COUNT(han), c);
}

/* UTS 18: Alphabetic, M, Nd, Pc, Join_Control, of Unicode 16. Two symbol blocks are Alphabetic without being
 * letters; the rest are letters, marks and digits newer than Unicode 15, for an older utf8proc. */
bool sdx_is_word(uint32_t c)
{
    static const unicode_range others[] = {
        {0x897, 0x897},     {0x1c89, 0x1c8a},   {0x200c, 0x200d},   {0x24b6, 0x24e9},   {0xa7cb, 0xa7cd},
        {0xa7da, 0xa7dc},   {0x105c0, 0x105f3}, {0x10d40, 0x10d65}, {0x10d69, 0x10d6d}, {0x10d6f, 0x10d85},
        {0x10ec2, 0x10ec4}, {0x10efc, 0x10efc}, {0x11380, 0x11389}, {0x1138b, 0x1138b}, {0x1138e, 0x1138e},
        {0x11390, 0x113b5}, {0x113b7, 0x113c0}, {0x113c2, 0x113c2}, {0x113c5, 0x113c5}, {0x113c7, 0x113ca},
        {0x113cc, 0x113d3}, {0x113e1, 0x113e2}, {0x116d0, 0x116e3}, {0x11bc0, 0x11be0}, {0x11bf0, 0x11bf9},
        {0x11f5a, 0x11f5a}, {0x13460, 0x143fa}, {0x16100, 0x16139}, {0x16d40, 0x16d6c}, {0x16d70, 0x16d79},
        {0x18cff, 0x18cff}, {0x1ccf0, 0x1ccf9}, {0x1e5d0, 0x1e5fa}, {0x1f130, 0x1f149}, {0x1f150, 0x1f169},
        {0x1f170, 0x1f189}, {0x2ebf0, 0x2ee5d}};
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC: return true;
    default: return in_ranges(others, COUNT(others), c);
    }
}

static bool is_category(uint32_t c, utf8proc_category_t first, utf8proc_category_t last,
                        const unicode_range *newer, size_t count)
{
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);
    if (category >= first && category <= last) return true;
    return category == UTF8PROC_CATEGORY_CN && in_ranges(newer, count, c);
}

/* Letters and numbers newer than Unicode 15, for an older utf8proc. */
bool sdx_is_letter(uint32_t c)
{
    static const unicode_range newer[] = {
        {0x1c89, 0x1c8a},   {0xa7cb, 0xa7cd},   {0xa7da, 0xa7dc},   {0x105c0, 0x105f3}, {0x10d4a, 0x10d65},
        {0x10d6f, 0x10d85}, {0x10ec2, 0x10ec4}, {0x11380, 0x11389}, {0x1138b, 0x1138b}, {0x1138e, 0x1138e},
        {0x11390, 0x113b5}, {0x113b7, 0x113b7}, {0x113d1, 0x113d1}, {0x113d3, 0x113d3}, {0x11bc0, 0x11be0},
        {0x13460, 0x143fa}, {0x16100, 0x1611d}, {0x16d40, 0x16d6c}, {0x18cff, 0x18cff}, {0x1e5d0, 0x1e5ed},
        {0x1e5f0, 0x1e5f0}, {0x2ebf0, 0x2ee5d}};
    return is_category(c, UTF8PROC_CATEGORY_LU, UTF8PROC_CATEGORY_LO, newer, COUNT(newer));
}

static const unicode_range numbers_16[] = {{0x10d40, 0x10d49}, {0x116d0, 0x116e3}, {0x11bf0, 0x11bf9},
                                           {0x16130, 0x16139}, {0x16d70, 0x16d79}, {0x1ccf0, 0x1ccf9},
                                           {0x1e5f1, 0x1e5fa}};

bool sdx_is_number(uint32_t c)
{
    return is_category(c, UTF8PROC_CATEGORY_ND, UTF8PROC_CATEGORY_NO, numbers_16, COUNT(numbers_16));
}

bool sdx_is_numeric(uint32_t c)
{
    return sdx_is_number(c) || (c >= 0x11de0 && c <= 0x11de9) || (c >= 0x16ff4 && c <= 0x16ff6);
}

int sdx_lower(uint32_t c, uint32_t out[2])
{
    /* Upper case letters of Unicode 16 and 17: Rust knows them, utf8proc before 2.11 does not. */
    static const struct {
        uint32_t first, last;
        int32_t delta;
    } newer[] = {{0x1c89, 0x1c89, 1},      {0xa7cb, 0xa7cb, -0xa7cb + 0x264},
                 {0xa7cc, 0xa7cc, 1},      {0xa7ce, 0xa7ce, 1},
                 {0xa7d2, 0xa7d2, 1},      {0xa7d4, 0xa7d4, 1},
                 {0xa7da, 0xa7da, 1},      {0xa7dc, 0xa7dc, -0xa7dc + 0x19b},
                 {0x10d50, 0x10d65, 0x20}, {0x16ea0, 0x16eb8, 0x1b}};
    if (c < 0x80) {
        out[0] = c >= 'A' && c <= 'Z' ? c + 32 : c;
        return 1;
    }
    if (c == 0x130) { /* I with dot above: the only one that grows */
        out[0] = 'i';
        out[1] = 0x307;
        return 2;
    }
    out[0] = (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
    for (size_t i = 0; c >= 0x1c89 && out[0] == c && i < COUNT(newer); i++) {
        if (c >= newer[i].first && c <= newer[i].last) out[0] = (uint32_t)((int32_t)c + newer[i].delta);
    }
    return 1;
}

uint32_t sdx_upper(uint32_t c)
{
    return (uint32_t)utf8proc_toupper((utf8proc_int32_t)c);
}

int sdx_decompose(uint32_t c, bool compatibility, uint32_t out[SDX_DECOMPOSED_MAX])
{
    /* What got a decomposition after Unicode 9 has none in Hugging Face's tables. */
    static const unicode_range newer[] = {
        {0x32ff, 0x32ff},   {0xa7f1, 0xa7f4},   {0xab69, 0xab69},   {0x105c9, 0x105c9}, {0x105e4, 0x105e4},
        {0x10781, 0x107ba}, {0x11383, 0x113c8}, {0x11938, 0x11938}, {0x16121, 0x16128}, {0x16d68, 0x16d6a},
        {0x1ccd6, 0x1ccf9}, {0x1e030, 0x1e06d}, {0x1f16c, 0x1f16c}, {0x1fbf0, 0x1fbf9}};
    int boundary = 0, options = UTF8PROC_DECOMPOSE | (compatibility ? UTF8PROC_COMPAT : 0);
    if (c >= 0xa0 && !in_ranges(newer, COUNT(newer), c)) {
        utf8proc_int32_t points[SDX_DECOMPOSED_MAX];
        utf8proc_ssize_t n = utf8proc_decompose_char((utf8proc_int32_t)c, points, SDX_DECOMPOSED_MAX,
                                                     (utf8proc_option_t)options, &boundary);
        if (n > 0 && n <= SDX_DECOMPOSED_MAX) {
            for (utf8proc_ssize_t i = 0; i < n; i++) out[i] = (uint32_t)points[i];
            return (int)n;
        }
    }
    out[0] = c;
    return 1;
}

/* Marks newer than Unicode 9 have no class in Hugging Face's tables. */
static bool is_newer_mark(uint32_t c)
{
    return c >= 0x300 && utf8proc_get_property((utf8proc_int32_t)c)->combining_class &&
           !in_ranges(mark_9, COUNT(mark_9), c);
}

static int combining_class(uint32_t c)
{
    if (c < 0x300 || is_newer_mark(c)) return 0;
    return utf8proc_get_property((utf8proc_int32_t)c)->combining_class;
}

static void insertion_sort(uint32_t *c, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        uint32_t mark = c[i];
        size_t j = i;
        for (; j && combining_class(c[j - 1]) > combining_class(mark); j--) c[j] = c[j - 1];
        c[j] = mark;
    }
}

/* For long runs, which no writing has but a hostile text may: linear where insertion is quadratic. */
static void counting_sort(uint32_t *c, size_t count, uint32_t *spare)
{
    size_t start[257] = {0};
    memcpy(spare, c, count * sizeof *c);
    for (size_t i = 0; i < count; i++) start[combining_class(c[i]) + 1]++;
    for (int k = 1; k < 257; k++) start[k] += start[k - 1];
    for (size_t i = 0; i < count; i++) c[start[combining_class(spare[i])]++] = spare[i];
}

void sdx_reorder(uint32_t *c, size_t count, uint32_t *spare)
{
    enum { LONG = 32 };
    for (size_t i = 0; i < count;) {
        size_t end = i;
        while (end < count && combining_class(c[end])) end++;
        if (end - i > LONG)
            counting_sort(c + i, end - i, spare);
        else if (end - i > 1)
            insertion_sort(c + i, end - i);
        i = end > i ? end : i + 1;
    }
}

static size_t compose_run(uint32_t *c, size_t count)
{
    utf8proc_ssize_t n = utf8proc_normalize_utf32((utf8proc_int32_t *)c, (utf8proc_ssize_t)count,
                                                  UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    return n < 0 ? count : (size_t)n;
}

/* In runs that end before a newer mark: with class 0 it separates what stands around it. */
size_t sdx_compose(uint32_t *c, size_t count)
{
    size_t out = 0;
    for (size_t i = 0, end; i < count; i = end) {
        for (end = i + 1; end < count && !is_newer_mark(c[end]);) end++;
        size_t n = compose_run(c + i, end - i);
        memmove(c + out, c + i, n * sizeof *c);
        out += n;
    }
    return out;
}
