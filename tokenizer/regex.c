/* regex.c: see regex.h. Hugging Face's library hands patterns to Oniguruma with Ruby's syntax: ^ and $ match at
 * every line, \w is what UTS 18 says, \h is a hexadecimal digit, and its tables are those of Unicode 16. PCRE2
 * is told so by an option and by rewriting escapes and names of sets; [:graph:], [:print:] and scripts that
 * are not in the table stay as PCRE2 has them. Its own limit on backtracking turns a hostile pattern
 * into an error. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "regex.h"

#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/buffer.h"
#include "regex_tables.h"

struct sdx_regex {
    pcre2_code *code; /* owned */
    sdx_regex *next;
};

struct sdx_regex_match {
    pcre2_match_data *data; /* owned */
    pcre2_match_context *context;
};

enum { PATTERN_LIMIT = 1 << 16, MATCH_LIMIT = 1000000 };

/* What Unicode 16 has and a PCRE2 of Unicode 14 does not know is added by hand. */
#define LETTER      "\\p{L}" NEW_LU NEW_LL NEW_LM NEW_LO
#define DIGIT       "\\p{Nd}" NEW_ND
#define NUMBER      "\\p{N}" NEW_ND NEW_NO
#define MARK        "\\p{M}" NEW_MN NEW_MC
#define PUNCTUATION "\\p{P}" NEW_PD NEW_PO
#define SYMBOL      "\\p{S}" NEW_SM NEW_SO
#define ASSIGNED    LETTER MARK NUMBER PUNCTUATION SYMBOL "\\p{Z}"
#define LOWER       "\\p{Lowercase}" NEW_LOWERCASE "\\x{10fc}\\x{a7f2}-\\x{a7f4}\\x{ab69}"
#define UPPER       "\\p{Uppercase}" NEW_LU
#define ALPHA                                                                                                  \
    "\\p{Alphabetic}" NEW_LU NEW_LL NEW_LM NEW_LO NEW_ALPHABETIC_MARKS                                         \
    "\\x{363}-\\x{36f}\\x{c04}\\x{f82}\\x{f83}\\x{1dd3}-\\x{1de6}\\x{11080}\\x{11081}"
#define SPACE                                                                                                  \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{"   \
    "3000}"
/* Symbols that are alphabetic count; superscripts and fractions of Latin-1 do for \w alone, not for [\w]. */
#define WORD                                                                                                   \
    LETTER DIGIT MARK "\\p{Nl}\\p{Pc}\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}" \
                      "\\x{1f170}-\\x{1f189}"
#define LONE_WORD WORD "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}"

/* Sets by name that mean something else, or something newer, than to PCRE2. In capitals (\\W), with a ^
 * ([:^alpha:], \p{^L}) or by \\P they are the rest of the world. */
static const struct {
    const char *name, *set; /* ^ before a set: the rest of the world */
} named_sets[] = {
    {"w", WORD},
    {"d", DIGIT},
    {"s", SPACE},
    {"h", "0-9a-fA-F"},
    {"p{L}", LETTER},
    {"p{Letter}", LETTER},
    {"p{Lu}", "\\p{Lu}" NEW_LU},
    {"p{Ll}", "\\p{Ll}" NEW_LL},
    {"p{Lm}", "\\p{Lm}" NEW_LM},
    {"p{Lo}", "\\p{Lo}" NEW_LO},
    {"p{N}", NUMBER},
    {"p{Nd}", DIGIT},
    {"p{No}", "\\p{No}" NEW_NO},
    {"p{M}", MARK},
    {"p{Mn}", "\\p{Mn}" NEW_MN},
    {"p{Mc}", "\\p{Mc}" NEW_MC},
    {"p{P}", PUNCTUATION},
    {"p{Punct}", PUNCTUATION},
    {"p{Pd}", "\\p{Pd}" NEW_PD},
    {"p{Po}", "\\p{Po}" NEW_PO},
    {"p{S}", SYMBOL},
    {"p{Sm}", "\\p{Sm}" NEW_SM},
    {"p{So}", "\\p{So}" NEW_SO},
    {"p{Cf}", "\\p{Cf}" NEW_CF},
    {"p{C}", "^" ASSIGNED},
    {"p{Cn}", "^" ASSIGNED "\\p{Cc}\\p{Cf}\\p{Co}\\p{Cs}" NEW_CF},
    {"p{Alpha}", ALPHA},
    {"p{Alphabetic}", ALPHA},
    {"p{Alnum}", ALPHA DIGIT},
    {"p{Lowercase}", LOWER},
    {"p{Uppercase}", UPPER},
    {"p{Han}", "\\p{sc:Han}" NEW_HAN}, /* PCRE2's own takes extensions in */
    {"p{Hiragana}", "\\p{sc:Hiragana}" NEW_HIRAGANA},
    {"p{Katakana}", "\\p{sc:Katakana}" NEW_KATAKANA},
    {"p{Latin}", "\\p{sc:Latin}" NEW_LATIN},
    {"p{Cyrillic}", "\\p{sc:Cyrillic}" NEW_CYRILLIC},
    {"p{Arabic}", "\\p{sc:Arabic}" NEW_ARABIC},
    {"[:alpha:]", ALPHA},
    {"[:alnum:]", ALPHA DIGIT},
    {"[:digit:]", DIGIT},
    {"[:lower:]", LOWER},
    {"[:upper:]", UPPER},
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
        found.set = named_sets[k].set + (*named_sets[k].set == '^');
        found.negated ^= found.set > named_sets[k].set;
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
