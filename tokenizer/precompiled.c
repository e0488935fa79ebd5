/* precompiled.c: SentencePiece's precompiled normalization: a double array (darts-clone's format, 32-bit units)
 * from UTF-8 strings to offsets into a blob of NUL-terminated replacements. tokenizers applies it in its own
 * way, which decides ids: a whole grapheme of at most 5 bytes is replaced by what its shortest listed prefix
 * gives; failing that, each of its characters is looked up. */
#include <string.h>
#include <utf8proc.h>

#include "tokenizer.h"

typedef struct sdx_charsmap {
    const uint32_t *unit; /* [units]; in the arena */
    size_t units;
    const char *blob; /* [blob_size], NUL behind it; in the arena */
    size_t blob_size;
} sdx_charsmap;

enum { SHORT_GRAPHEME = 5, IDENTITY = 0, MAPPED = 1 };

sdx_status sdx_charsmap_read(sdx_tokenizer *t, const unsigned char *bytes, size_t size,
                             const sdx_charsmap **out, sdx_error *err)
{
    sdx_charsmap *map;
    uint32_t trie_size = 0;
    if (size >= 4)
        trie_size = bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
    if (size < 4 || trie_size > size - 4 || trie_size < 4) {
        return sdx_fail(err, SDX_ERR_FILE, "the precompiled charsmap is cut short (%zu bytes)", size);
    }
    ARENA_NEW(&t->arena, map, 1, err);
    uint32_t *unit;
    map->units = trie_size / 4;
    ARENA_NEW(&t->arena, unit, map->units, err);
    for (size_t i = 0; i < map->units; i++) {
        const unsigned char *p = bytes + 4 + 4 * i;
        unit[i] = p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
    }
    map->unit = unit;
    map->blob_size = size - 4 - trie_size;
    const char *blob = (const char *)bytes + 4 + trie_size;
    if (sdx_utf8_valid(blob, map->blob_size) != map->blob_size) {
        return sdx_fail(err, SDX_ERR_FILE, "the precompiled charsmap holds text that is not UTF-8");
    }
    map->blob = sdx_tokenizer_keep(t, blob, map->blob_size);
    if (!map->blob) return sdx_fail_memory(err, map->blob_size);
    *out = map;
    return SDX_OK;
}

static uint32_t offset_of(uint32_t unit)
{
    return (unit >> 10) << ((unit & 1u << 9) >> 6);
}

/* The replacement of the shortest prefix of text[n] that has one, or of the longest; its bytes, or 0. */
static size_t find_prefix(const sdx_charsmap *map, const char *text, size_t n, bool longest, sdx_string *to)
{
    size_t at = offset_of(map->unit[0]), found = 0;
    for (size_t i = 0; i < n && text[i]; i++) {
        unsigned char c = (unsigned char)text[i];
        at ^= c;
        if (at >= map->units || (map->unit[at] & (1u << 31 | 0xff)) != c) return found;
        uint32_t unit = map->unit[at];
        at ^= offset_of(unit);
        if (!(unit >> 8 & 1)) continue;
        size_t begin = at < map->units ? map->unit[at] & 0x7fffffffu : map->blob_size;
        if (begin >= map->blob_size || ((unsigned char)map->blob[begin] & 0xc0) == 0x80) return found;
        *to = (sdx_string){map->blob + begin, strlen(map->blob + begin)};
        found = i + 1;
        if (!longest) break;
    }
    return found;
}

static bool lookup(const sdx_charsmap *map, const char *text, size_t n, sdx_string *to)
{
    return find_prefix(map, text, n, false, to) > 0;
}

size_t sdx_charsmap_longest(const sdx_charsmap *map, const char *text, size_t n, sdx_string *to)
{
    return find_prefix(map, text, n, true, to);
}

void sdx_normalize_precompiled_prepare(sdx_step *step)
{
    sdx_string to;
    for (int c = 0; c < 128; c++) {
        char text = (char)c;
        step->ascii[c] = lookup(step->charmap, &text, 1, &to) || c == '\r' ? MAPPED : IDENTITY;
    }
}

/* Marks of Unicode 16, which belong to the character before them though an older utf8proc does not know it. */
static bool is_newer_mark(uint32_t c)
{
    static const uint32_t range[][2] = {
        {0x897, 0x897},     {0x10d69, 0x10d6d}, {0x10efc, 0x10efc}, {0x113b8, 0x113c0}, {0x113c2, 0x113c2},
        {0x113c5, 0x113c5}, {0x113c7, 0x113ca}, {0x113cc, 0x113d0}, {0x113d2, 0x113d2}, {0x113e1, 0x113e2},
        {0x11f5a, 0x11f5a}, {0x1611e, 0x1612f}, {0x1e5ee, 0x1e5ef}};
    for (size_t i = 0; c >= range[0][0] && i < sizeof range / sizeof *range; i++) {
        if (c >= range[i][0] && c <= range[i][1]) return true;
    }
    return false;
}

/* The end of the grapheme at p, or somewhere beyond `limit` bytes. */
static const unsigned char *grapheme_end(const unsigned char *p, const unsigned char *end, size_t limit)
{
    const unsigned char *start = p;
    utf8proc_int32_t state = 0, c = (utf8proc_int32_t)sdx_utf8_next(&p);
    while (p < end) {
        const unsigned char *next = p;
        utf8proc_int32_t d = (utf8proc_int32_t)sdx_utf8_next(&next);
        if (utf8proc_grapheme_break_stateful(c, d, &state) && !is_newer_mark((uint32_t)d)) break;
        p = next;
        c = d;
        if ((size_t)(p - start) > limit) break;
    }
    return p;
}

/* One character; returns its end. */
static sdx_status put_character(const sdx_step *step, const unsigned char **p, sdx_pieces *out, sdx_error *err)
{
    const unsigned char *start = *p;
    sdx_string to;
    sdx_utf8_next(p);
    size_t n = (size_t)(*p - start);
    if (!lookup(step->charmap, (const char *)start, n, &to)) to = (sdx_string){(const char *)start, n};
    return sdx_text_append(out, to.data, to.size, err);
}

/* One grapheme at *p; moves *p behind it. */
static sdx_status put_grapheme(const sdx_step *step, const unsigned char **p, const unsigned char *end,
                               sdx_pieces *out, sdx_error *err)
{
    const unsigned char *stop = grapheme_end(*p, end, SHORT_GRAPHEME);
    size_t n = (size_t)(stop - *p);
    sdx_string to;
    if (n <= SHORT_GRAPHEME && lookup(step->charmap, (const char *)*p, n, &to)) {
        *p = stop;
        return sdx_text_append(out, to.data, to.size, err);
    }
    if (n > SHORT_GRAPHEME) stop = grapheme_end(*p, end, SIZE_MAX);
    while (*p < stop) TRY(put_character(step, p, out, err));
    return SDX_OK;
}

/* Behind the ASCII that stays as it is. The last of it may be the start of a longer grapheme. */
static const unsigned char *plain_run(const sdx_step *step, const unsigned char *p, const unsigned char *end)
{
    const unsigned char *start = p;
    while (p < end && *p < 0x80 && step->ascii[*p] == IDENTITY) p++;
    return p > start && p < end && *p >= 0x80 ? p - 1 : p;
}

SDX_STEP(sdx_normalize_precompiled)
{
    const unsigned char *p = (const unsigned char *)s->now.text, *end = p + s->now.size;
    TRY(sdx_text_reserve(&s->next, s->now.size, err));
    while (p < end) {
        const unsigned char *stop = plain_run(step, p, end);
        TRY(sdx_text_append(&s->next, (const char *)p, (size_t)(stop - p), err));
        p = stop;
        if (p < end) TRY(put_grapheme(step, &p, end, &s->next, err));
    }
    sdx_scratch_swap(s);
    return SDX_OK;
}
