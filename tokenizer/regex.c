/* regex.c: see regex.h. Hugging Face's library hands patterns to Oniguruma with Ruby's syntax: ^ and $ match at
 * every line, \w is what UTS 18 says, \h is a hexadecimal digit, and its tables are those of Unicode 16. PCRE2
 * is told so by an option and by rewriting escapes and names of sets (but not those of smaller categories such
 * as \p{Lo}, which are Unicode 14's). Its own limit on backtracking turns a hostile pattern into an error. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "regex.h"

#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/buffer.h"

struct sdx_regex {
    pcre2_code *code; /* owned */
    sdx_regex *next;
};

struct sdx_regex_match {
    pcre2_match_data *data; /* owned */
    pcre2_match_context *context;
};

enum { PATTERN_LIMIT = 1 << 16, MATCH_LIMIT = 1000000 };

/* What Unicode 16 has and a PCRE2 of Unicode 14 does not know: letters, numbers, decimal digits among them. */
#define NEW_LETTERS                                                                                            \
    "\\x{1c89}\\x{1c8a}\\x{a7cb}-\\x{a7cd}\\x{a7da}-\\x{a7dc}\\x{105c0}-\\x{105f3}\\x{10d4a}-\\x{10d65}\\x{"   \
    "10d6f}-\\x{10d85}"                                                                                        \
    "\\x{10ec2}-\\x{10ec4}\\x{1123f}\\x{11240}\\x{11380}-\\x{11389}\\x{1138b}\\x{1138e}\\x{11390}-\\x{113b5}"  \
    "\\x{113b7}\\x{113d1}"                                                                                     \
    "\\x{113d3}\\x{11bc0}-\\x{11be0}\\x{11f02}\\x{11f04}-\\x{11f10}\\x{11f12}-\\x{11f33}\\x{1342f}\\x{13441}-" \
    "\\x{13446}"                                                                                               \
    "\\x{13460}-\\x{143fa}\\x{16100}-\\x{1611d}\\x{16d40}-\\x{16d6c}\\x{18cff}\\x{1b132}\\x{1b155}\\x{1df25}-" \
    "\\x{1df2a}"                                                                                               \
    "\\x{1e030}-\\x{1e06d}\\x{1e4d0}-\\x{1e4eb}\\x{1e5d0}-\\x{1e5ed}\\x{1e5f0}\\x{2b739}\\x{2ebf0}-\\x{2ee5d}" \
    "\\x{31350}-\\x{323af}"
#define NEW_DIGITS                                                                                             \
    "\\x{10d40}-\\x{10d49}\\x{116d0}-\\x{116e3}\\x{11bf0}-\\x{11bf9}\\x{11f50}-\\x{11f59}\\x{16130}-\\x{"      \
    "16139}"                                                                                                   \
    "\\x{16d70}-\\x{16d79}\\x{1ccf0}-\\x{1ccf9}\\x{1e4f0}-\\x{1e4f9}\\x{1e5f1}-\\x{1e5fa}"
#define NEW_MARKS                                                                                              \
    "\\x{897}\\x{cf3}\\x{ece}\\x{10d69}-\\x{10d6d}\\x{10efc}-\\x{10eff}\\x{11241}\\x{113b8}-\\x{113c0}\\x{"    \
    "113c2}\\x{113c5}"                                                                                         \
    "\\x{113c7}-\\x{113ca}\\x{113cc}-\\x{113d2}\\x{113e1}\\x{113e2}\\x{11f00}-\\x{11f03}\\x{11f34}-\\x{11f3a}" \
    "\\x{11f3e}-\\x{11f42}"                                                                                    \
    "\\x{11f5a}\\x{13440}\\x{13447}-\\x{13455}\\x{1611e}-\\x{1612f}\\x{1e08f}\\x{1e4ec}-\\x{1e4ef}\\x{1e5ee}"  \
    "\\x{1e5ef}"
#define NEW_PUNCTUATION                                                                                        \
    "\\x{1b4e}\\x{1b4f}\\x{1b7f}\\x{10d6e}\\x{113d4}\\x{113d5}\\x{113d7}\\x{113d8}\\x{11b00}-\\x{11b09}"       \
    "\\x{11be1}\\x{11f43}-\\x{11f4f}\\x{16d6d}-\\x{16d6f}\\x{1e5ff}"
#define NEW_SYMBOLS                                                                                            \
    "\\x{2427}-\\x{2429}\\x{2ffc}-\\x{2fff}\\x{31e4}\\x{31e5}\\x{31ef}\\x{10d8e}\\x{10d8f}\\x{1cc00}-\\x{"     \
    "1ccef}\\x{1cd00}-\\x{1ceb3}\\x{1f6dc}\\x{1f774}-\\x{1f776}\\x{1f77b}-\\x{1f77f}\\x{1f7d9}\\x{1f8b2}-"     \
    "\\x{1f8bb}\\x{1f8c0}\\x{1f8c1}\\x{1fa75}-\\x{1fa77}\\x{1fa87}-\\x{1fa89}\\x{1fa8f}\\x{1faad}-\\x{"        \
    "1faaf}\\x{1fabb}-\\x{1fabf}\\x{1fac6}\\x{1face}\\x{1facf}\\x{1fada}-\\x{1fadc}\\x{1fadf}\\x{1fae8}"       \
    "\\x{1fae9}\\x{1faf7}\\x{1faf8}\\x{1fbcb}-\\x{1fbef}"
#define LETTER      "\\p{L}" NEW_LETTERS
#define NUMBER      "\\p{N}" NEW_DIGITS "\\x{1d2c0}-\\x{1d2d3}"
#define DIGIT       "\\p{Nd}" NEW_DIGITS
#define MARK        "\\p{M}" NEW_MARKS
#define PUNCTUATION "\\p{P}" NEW_PUNCTUATION
#define SYMBOL      "\\p{S}" NEW_SYMBOLS
#define ALPHA                                                                                                  \
    "\\p{Alphabetic}" NEW_LETTERS NEW_MARKS "\\x{363}-\\x{36f}\\x{c04}\\x{f82}\\x{f83}\\x{1dd3}-\\x{1de6}"     \
    "\\x{11080}\\x{11081}"
#define SPACE                                                                                                  \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{"   \
    "3000}"
/* Symbols that are alphabetic count; superscripts and fractions of Latin-1 do for \w alone, not for [\w]. */
#define WORD                                                                                                   \
    LETTER DIGIT NEW_MARKS "\\p{M}\\p{Nl}\\p{Pc}\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}" \
                           "\\x{1f170}-\\x{1f189}"
#define LONE_WORD WORD "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}"

/* Sets by name that mean something else, or something newer, than to PCRE2. In capitals (\\W), with a ^
 * ([:^alpha:], \p{^L}) or by \\P they are the rest of the world. */
static const struct {
    const char *name, *set;
} named_sets[] = {
    {"w", WORD},
    {"d", DIGIT},
    {"s", SPACE},
    {"h", "0-9a-fA-F"},
    {"p{L}", LETTER},
    {"p{Letter}", LETTER},
    {"p{N}", NUMBER},
    {"p{Nd}", DIGIT},
    {"p{M}", MARK},
    {"p{P}", PUNCTUATION},
    {"p{Punct}", PUNCTUATION},
    {"p{S}", SYMBOL},
    {"p{Alpha}", ALPHA},
    {"p{Alnum}", ALPHA DIGIT},
    {"[:alpha:]", ALPHA},
    {"[:alnum:]", ALPHA DIGIT},
    {"[:digit:]", DIGIT},
    {"[:lower:]", "\\p{Lowercase}"},
    {"[:upper:]", "\\p{Uppercase}"},
    {"[:space:]", SPACE},
    {"[:blank:]", "\\t\\p{Zs}"},
    {"[:punct:]", PUNCTUATION SYMBOL},
    {"[:word:]", WORD},
};

/* Other escapes, outside of brackets. */
static const struct {
    const char *escape, *to;
} escapes[] = {
    {"b", "(?:(?<=[" LONE_WORD "])(?![" LONE_WORD "])|(?<![" LONE_WORD "])(?=[" LONE_WORD "]))"},
    {"B", "(?:(?<=[" LONE_WORD "])(?=[" LONE_WORD "])|(?<![" LONE_WORD "])(?![" LONE_WORD "]))"},
    {"O", "(?s:.)"},
};

static bool starts(const char *p, const char *end, const char *with)
{
    size_t n = strlen(with);
    return (size_t)(end - p) >= n && !memcmp(p, with, n);
}

typedef struct named_set {
    const char *set;
    size_t used; /* bytes of the pattern */
    bool negated;
} named_set;

/* The set that is named at p, behind a backslash or at "[:"; its .set is NULL if none is. */
static named_set find_set(const char *p, const char *end)
{
    char name[16];
    size_t n = 0, i = 0;
    named_set found = {0};
    for (; p + i < end && n + 1 < sizeof name; i++) {
        bool capital = !i && (*p == 'W' || *p == 'D' || *p == 'S' || *p == 'H' || *p == 'P');
        if (capital || (i && p[i] == '^')) found.negated = !found.negated;
        if (!i || p[i] != '^') name[n++] = (char)(capital ? p[i] | 0x20 : p[i]);
        if ((!i && *name != 'p' && *name != '[') || (i && (p[i] == '}' || p[i] == ']'))) break;
    }
    for (size_t k = 0; k < sizeof named_sets / sizeof *named_sets; k++) {
        if (!starts(name, name + n, named_sets[k].name)) continue;
        found.set = named_sets[k].set;
        found.used = strlen(named_sets[k].name) == 1 ? 1 : i + 1;
        return found;
    }
    return found;
}

/* \\p{Han}: PCRE2 would take its extensions in, too. p: behind the backslash; the bytes used, or 0. */
static size_t put_script(sdx_buffer *b, const char *p, const char *end)
{
    char name[48], pattern[64];
    const char *close = starts(p, end, "p{") || starts(p, end, "P{") ? memchr(p, '}', (size_t)(end - p)) : NULL;
    size_t n = close ? (size_t)(close - p - 2) : 0, offset;
    int number;
    if (n < 3 || n >= sizeof name) return 0; /* two letters are a category */
    memcpy(name, p + 2, n);
    name[n] = 0;
    bool negated = *name == '^';
    snprintf(pattern, sizeof pattern, "\\%c{%ssc:%s}", *p, negated ? "^" : "", name + negated);
    pcre2_code *code = pcre2_compile((PCRE2_SPTR)pattern, strlen(pattern), PCRE2_UTF, &number, &offset, NULL);
    if (!code) return 0;
    pcre2_code_free(code);
    sdx_buffer_puts(b, pattern);
    return n + 3;
}

static bool is_hex(const char *p, const char *end)
{
    bool all = end - p >= 4;
    for (int i = 0; all && i < 4; i++) all = strchr("0123456789abcdefABCDEF", p[i]) && p[i];
    return all;
}

/* An escape that means the same inside of brackets and outside; p: behind the backslash. Returns its length. */
static size_t put_escape(sdx_buffer *b, const char *p, const char *end)
{
    size_t script = put_script(b, p, end);
    if (script) return script;
    if (*p == 'u' && is_hex(p + 1, end)) {
        sdx_buffer_printf(b, "\\x{%.4s}", p + 1);
        return 5;
    }
    sdx_buffer_append(b, p - 1, 2);
    return 1;
}

static size_t put_outside(sdx_buffer *b, const char *p, const char *end)
{
    named_set found = find_set(p, end);
    for (size_t i = 0; i < sizeof escapes / sizeof *escapes; i++) {
        if (*escapes[i].escape != *p) continue;
        sdx_buffer_puts(b, escapes[i].to);
        return 1;
    }
    if (!found.set) return put_escape(b, p, end);
    bool word = *p == 'w' || *p == 'W';
    sdx_buffer_printf(b, found.negated ? "[^%s]" : "[%s]", word ? LONE_WORD : found.set);
    return found.used;
}

/* ---- sets --------------------------------------------------------------------------------------------------
 * Oniguruma's sets may hold sets, and be intersections ([\p{L}&&[^a]]). PCRE2 says the same with alternatives
 * and lookaheads, each of one character: A B as (?:A|B), A&&B as (?=A)B, the rest of the world as (?!A)(?s:.).
 */

typedef struct set {
    sdx_buffer plain;  /* what a bracket expression can hold, of the part between two && */
    sdx_buffer nested; /* "|" and a set, for each of its sets */
    sdx_buffer before; /* a lookahead for each part that is done */
} set;

static void put_buffer(sdx_buffer *out, const sdx_buffer *from)
{
    if (from->size) sdx_buffer_append(out, from->data, from->size);
    out->failed |= from->failed;
}

/* The part as one expression, and on to the next. */
static void end_part(set *s, sdx_buffer *out)
{
    bool empty = !s->plain.size && !s->nested.size;
    sdx_buffer_puts(out, empty ? "(?:(?!)" : s->plain.size ? "(?:[" : "(?:");
    put_buffer(out, &s->plain);
    if (s->plain.size)
        sdx_buffer_putc(out, ']');
    else if (s->nested.size) /* no alternative before it */
        memmove(s->nested.data, s->nested.data + 1, --s->nested.size);
    put_buffer(out, &s->nested);
    sdx_buffer_puts(out, ")");
    s->plain.size = s->nested.size = 0;
}

static void put_set(set *s, bool negated, sdx_buffer *out)
{
    if (!s->nested.size && !s->before.size) {
        sdx_buffer_puts(out, negated ? "[^" : "[");
        put_buffer(out, &s->plain);
        sdx_buffer_puts(out, "]");
        return;
    }
    sdx_buffer_puts(out, negated ? "(?:(?!" : "(?:");
    put_buffer(out, &s->before);
    end_part(s, out);
    sdx_buffer_puts(out, negated ? ")(?s:.))" : ")");
}

static bool translate_set(const char **at, const char *end, int depth, sdx_buffer *out);

/* One item of a set at p, not its end; returns the place behind it, or NULL. */
static const char *translate_item(const char *p, const char *end, int depth, set *s)
{
    const char *name = starts(p, end, "[:") ? memchr(p, ']', (size_t)(end - p)) : NULL; /* [:alpha:] */
    bool escape = *p == '\\' && p + 1 < end;
    named_set found = {0};
    if (name || escape) found = find_set(p + escape, end);
    if (found.set) {
        if (found.negated)
            sdx_buffer_printf(&s->nested, "|[^%s]", found.set);
        else
            sdx_buffer_puts(&s->plain, found.set);
        return p + escape + found.used;
    }
    if (name) {
        sdx_buffer_append(&s->plain, p, (size_t)(name + 1 - p));
        return name + 1;
    }
    if (starts(p, end, "&&")) {
        sdx_buffer_puts(&s->before, "(?=");
        end_part(s, &s->before);
        sdx_buffer_puts(&s->before, ")");
        return p + 2;
    }
    if (*p == '[') {
        sdx_buffer_putc(&s->nested, '|');
        p++;
        return translate_set(&p, end, depth + 1, &s->nested) ? p : NULL;
    }
    if (escape) return p + 1 + put_escape(&s->plain, p + 1, end);
    if (*p == ']' || (*p == '^' && !s->plain.size)) sdx_buffer_putc(&s->plain, '\\');
    sdx_buffer_putc(&s->plain, *p);
    return p + 1;
}

/* *at: behind the bracket that begins the set; moved behind the one that ends it. False: there is none, or the
 * sets are nested too deep. */
static bool translate_set(const char **at, const char *end, int depth, sdx_buffer *out)
{
    enum { NESTING = 16 };
    set s = {0};
    const char *p = *at;
    if (depth == NESTING) return false;
    bool negated = p < end && *p == '^';
    p += negated;
    for (const char *first = p; p && p < end && (*p != ']' || p == first);)
        p = translate_item(p, end, depth, &s);
    bool done = p && p < end;
    if (done) {
        put_set(&s, negated, out);
        *at = p + 1;
    }
    sdx_buffer_fini(&s.plain);
    sdx_buffer_fini(&s.nested);
    sdx_buffer_fini(&s.before);
    return done;
}

/* (?m) in Ruby is what (?s) is elsewhere. */
static const char *put_options(const char *p, const char *end, sdx_buffer *out)
{
    sdx_buffer_puts(out, "(?");
    for (p += 2; p < end && strchr("imx-", *p) && *p; p++) sdx_buffer_putc(out, *p == 'm' ? 's' : *p);
    return p;
}

static sdx_status translate(sdx_string pattern, sdx_buffer *out, sdx_error *err)
{
    const char *end = pattern.data + pattern.size;
    for (const char *p = pattern.data; p < end;) {
        if (*p == '\\' && p + 1 < end) {
            p += 1 + put_outside(out, p + 1, end);
        } else if (starts(p, end, "(?")) {
            p = put_options(p, end, out);
        } else if (*p == '[') {
            p++;
            if (translate_set(&p, end, 0, out)) continue;
            sdx_buffer_fini(out);
            return sdx_fail(err, SDX_ERR_UNSUPPORTED,
                            "regular expression \"%.80s\": a set does not end, or is nested too deep",
                            pattern.data);
        } else {
            sdx_buffer_putc(out, *p++);
        }
    }
    return SDX_OK;
}

static sdx_status compile(const char *pattern, size_t size, pcre2_code **code, sdx_error *err)
{
    const uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
    int number;
    size_t offset;
    *code = pcre2_compile((PCRE2_SPTR)pattern, size, options, &number, &offset, NULL);
    if (!*code) {
        PCRE2_UCHAR message[128];
        pcre2_get_error_message(number, message, sizeof message);
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "regular expression \"%.80s\": %s", pattern, (char *)message);
    }
    pcre2_jit_compile(*code, PCRE2_JIT_COMPLETE); /* where there is none, the interpreter does it */
    return SDX_OK;
}

sdx_status sdx_regex_compile(sdx_tokenizer *t, sdx_string pattern, const sdx_regex **out, sdx_error *err)
{
    sdx_regex *regex;
    sdx_buffer b = {0};
    char *text;
    if (pattern.size > PATTERN_LIMIT) return sdx_fail(err, SDX_ERR_FILE, "a regular expression is too long");
    ARENA_NEW(&t->arena, regex, 1, err);
    TRY(translate(pattern, &b, err));
    size_t size = b.size;
    TRY(sdx_buffer_take(&b, &text, err));
    sdx_status status = compile(text, size, &regex->code, err);
    free(text);
    if (status != SDX_OK) return status;
    regex->next = t->regexes;
    t->regexes = regex;
    *out = regex;
    return SDX_OK;
}

void sdx_regex_free_all(sdx_regex *first)
{
    for (; first; first = first->next) pcre2_code_free(first->code);
}

static sdx_status make_match(sdx_scratch *s, sdx_error *err)
{
    if (s->match) return SDX_OK;
    s->match = calloc(1, sizeof *s->match);
    if (s->match) {
        s->match->data = pcre2_match_data_create(1, NULL);
        s->match->context = pcre2_match_context_create(NULL);
    }
    if (!s->match || !s->match->data || !s->match->context) return sdx_fail_memory(err, sizeof *s->match);
    pcre2_set_match_limit(s->match->context, MATCH_LIMIT);
    return SDX_OK;
}

void sdx_regex_match_free(sdx_regex_match *match)
{
    if (!match) return;
    pcre2_match_data_free(match->data);
    pcre2_match_context_free(match->context);
    free(match);
}

static int search(const sdx_regex_scan *scan, const sdx_regex_match *m)
{
    PCRE2_SPTR text = (PCRE2_SPTR)scan->text.data;
    int n = pcre2_match(scan->regex->code, text, scan->text.size, scan->from, PCRE2_NO_UTF_CHECK, m->data,
                        m->context);
    if (n != PCRE2_ERROR_JIT_STACKLIMIT) return n;
    return pcre2_match(scan->regex->code, text, scan->text.size, scan->from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                       m->data, m->context);
}

sdx_status sdx_regex_next(sdx_regex_scan *scan, sdx_scratch *s, bool *found, sdx_error *err)
{
    TRY(make_match(s, err));
    *found = false;
    while (scan->from <= scan->text.size) {
        int n = search(scan, s->match);
        if (n == PCRE2_ERROR_NOMATCH) return SDX_OK;
        if (n < 0)
            return sdx_fail(err, SDX_ERR_FILE, "a regular expression gave up on this text (PCRE2 %d)", n);
        const size_t *at = pcre2_get_ovector_pointer(s->match->data);
        if (at[0] != at[1] || at[1] != scan->last_end) {
            scan->begin = at[0] <= at[1] ? at[0] : at[1]; /* \K may put the start behind the end */
            scan->end = scan->from = scan->last_end = at[1];
            *found = true;
            return SDX_OK;
        }
        do scan->from++;
        while (scan->from < scan->text.size && ((unsigned char)scan->text.data[scan->from] & 0xc0) == 0x80);
    }
    return SDX_OK;
}
