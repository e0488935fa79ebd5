/* regex.c: see regex.h. Hugging Face's library hands patterns to Oniguruma with Ruby's syntax: ^ and $ match at
 * every line, \w is what UTS 18 says, \h is a hexadecimal digit. PCRE2 is told so by an option and by rewriting
 * these escapes. Its own limit on backtracking turns a hostile pattern into an error. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "regex.h"

#include <pcre2.h>
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

#define WORD "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24b6}-\\x{24e9}"

/* Escapes that mean something else: outside of brackets, inside of them. */
static const struct {
    char letter;
    const char *outside, *inside;
} escapes[] = {{'w', "[" WORD "]", WORD}, {'W', "[^" WORD "]", "\\W"}, {'h', "[0-9a-fA-F]", "0-9a-fA-F"}};

static bool put_escape(sdx_buffer *b, char letter, bool inside)
{
    for (size_t i = 0; i < sizeof escapes / sizeof *escapes; i++) {
        if (escapes[i].letter != letter) continue;
        sdx_buffer_puts(b, inside ? escapes[i].inside : escapes[i].outside);
        return true;
    }
    return false;
}

static void translate(sdx_string pattern, sdx_buffer *out)
{
    bool inside = false;
    for (size_t i = 0; i < pattern.size; i++) {
        char c = pattern.data[i];
        if (c == '\\' && i + 1 < pattern.size) {
            if (!put_escape(out, pattern.data[++i], inside)) sdx_buffer_append(out, pattern.data + i - 1, 2);
            continue;
        }
        if (c == '[') inside = true;
        if (c == ']') inside = false;
        sdx_buffer_putc(out, c);
    }
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
    translate(pattern, &b);
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
