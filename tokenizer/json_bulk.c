/* json_bulk.c: see json_bulk.h. Finding the lists needs no more than to know where strings begin and end and to
 * count brackets; if the file is not even that, all of it goes to the library, which says what is wrong. */
#include "json_bulk.h"

#include <stdlib.h>
#include <string.h>

#include "../base/file.h"
#include "../base/json.h"
#include "../base/memory.h"

enum { FILE_LIMIT = 256 << 20 };

/* ---- skipping ------------------------------------------------------------------------------------------- */

static void skip_space(sdx_json_cursor *c)
{
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\n' || *c->at == '\r' || *c->at == '\t')) c->at++;
}

bool sdx_json_at(sdx_json_cursor *c, char punctuation)
{
    skip_space(c);
    return c->at < c->end && *c->at == punctuation;
}

bool sdx_json_take(sdx_json_cursor *c, char punctuation)
{
    bool there = sdx_json_at(c, punctuation);
    c->at += there;
    return there;
}

/* Behind the string that begins at *c->at, a quote. */
static bool skip_string(sdx_json_cursor *c)
{
    for (char *p = c->at + 1; p < c->end; p++) {
        if (*p == '"') {
            c->at = p + 1;
            return true;
        }
        p += *p == '\\';
    }
    c->at = c->end;
    return false;
}

static bool skip_brackets(sdx_json_cursor *c)
{
    /* what a byte does to the depth; 2: begins a string */
    static const signed char effect[256] = {['{'] = 1, ['['] = 1, ['}'] = -1, [']'] = -1, ['"'] = 2};
    size_t depth = 0;
    while (c->at < c->end) {
        int what = effect[(unsigned char)*c->at];
        if (what == 2) {
            if (!skip_string(c)) return false;
            continue;
        }
        c->at++;
        depth += (size_t)what;
        if (what < 0 && !depth) return true;
    }
    return false;
}

static bool skip_value(sdx_json_cursor *c)
{
    skip_space(c);
    if (c->at == c->end) return false;
    if (*c->at == '"') return skip_string(c);
    if (*c->at == '{' || *c->at == '[') return skip_brackets(c);
    while (c->at < c->end && !strchr(",}] \n\r\t", *c->at)) c->at++;
    return true;
}

/* ---- finding the lists ------------------------------------------------------------------------------------
 */

typedef struct key_range {
    const char *begin, *end; /* quotes included */
} key_range;

static bool is_key(key_range key, const char *name)
{
    size_t n = strlen(name);
    return (size_t)(key.end - key.begin) == n + 2 && !memcmp(key.begin + 1, name, n);
}

typedef bool (*member_fn)(sdx_json_file *file, key_range key, sdx_json_cursor *value);

/* Calls member() with the key and the beginning of the value, behind which it goes. */
static bool walk_object(sdx_json_file *file, sdx_json_cursor *c, member_fn member)
{
    if (!sdx_json_take(c, '{')) return false;
    if (sdx_json_take(c, '}')) return true;
    do {
        if (!sdx_json_at(c, '"')) return false;
        key_range key = {.begin = c->at};
        if (!skip_string(c)) return false;
        key.end = c->at;
        if (!sdx_json_take(c, ':')) return false;
        skip_space(c);
        if (!member(file, key, c)) return false;
    } while (sdx_json_take(c, ','));
    return sdx_json_take(c, '}');
}

static bool member_of_model(sdx_json_file *file, key_range key, sdx_json_cursor *value)
{
    sdx_json_cursor list = {value->at, value->at};
    if (!skip_value(value)) return false;
    list.end = value->at;
    if (is_key(key, "vocab")) file->vocab = list;
    if (is_key(key, "merges")) file->merges = list;
    return true;
}

static bool member_of_root(sdx_json_file *file, key_range key, sdx_json_cursor *value)
{
    if (!is_key(key, "model") || !sdx_json_at(value, '{')) return skip_value(value);
    file->vocab = file->merges = (sdx_json_cursor){0};
    return walk_object(file, value, member_of_model);
}

/* ---- the rest of the file -----------------------------------------------------------------------------------
 */

/* "null" in place of a value, and its lines, so that messages name the right one. */
static char *put_null(char *out, sdx_json_cursor value)
{
    memcpy(out, "null", 4);
    out += 4;
    for (char *p = value.at; (p = memchr(p, '\n', (size_t)(value.end - p))); p++) *out++ = '\n';
    return out;
}

/* Copies the file without the lists to out, which has room for all of it and 8 bytes; returns the end. */
static char *copy_rest(const sdx_json_file *file, size_t size, char *out)
{
    sdx_json_cursor cut[2] = {file->vocab, file->merges};
    if (cut[0].at > cut[1].at) {
        cut[0] = file->merges;
        cut[1] = file->vocab;
    }
    const char *done = file->text;
    for (size_t i = 0; i < 2; i++) {
        if (!cut[i].at || (i && cut[i].at < cut[0].end)) continue;
        memcpy(out, done, (size_t)(cut[i].at - done));
        out = put_null(out + (cut[i].at - done), cut[i]);
        done = cut[i].end;
    }
    size_t rest = (size_t)(file->text + size - done);
    memcpy(out, done, rest);
    return out + rest;
}

static sdx_status load_rest(const char *path, sdx_json_file *file, size_t size, sdx_error *err)
{
    char *rest = sdx_malloc(size + 8);
    if (!rest) return sdx_fail_memory(err, size);
    char *end = copy_rest(file, size, rest);
    sdx_status status =
        sdx_json_parse(rest, (size_t)(end - rest), JSON_OBJECT, JSON_ALLOW_NUL, &file->root, err);
    free(rest);
    if (status != SDX_OK) sdx_error_context(err, "%s", path);
    return status;
}

sdx_status sdx_json_file_open(const char *path, sdx_json_file *out, sdx_error *err)
{
    size_t size;
    *out = (sdx_json_file){0};
    TRY(sdx_file_read(path, FILE_LIMIT, &out->text, &size, err));
    sdx_json_cursor all = {out->text, out->text + size};
    if (sdx_utf8_valid(out->text, size) != size || !walk_object(out, &all, member_of_root))
        out->vocab = out->merges = (sdx_json_cursor){0};
    sdx_status status = load_rest(path, out, size, err);
    if (status != SDX_OK) sdx_json_file_close(out);
    return status;
}

void sdx_json_file_close(sdx_json_file *file)
{
    json_decref(file->root);
    free(file->text);
    *file = (sdx_json_file){0};
}

/* ---- reading
 * --------------------------------------------------------------------------------------------------- */

sdx_status sdx_json_malformed(const sdx_json_cursor *c, sdx_error *err)
{
    size_t left = (size_t)(c->end - c->at);
    return sdx_fail(err, SDX_ERR_FILE, "the model's vocabulary or merges are malformed at \"%.*s\"",
                    (int)(left < 20 ? left : 20), c->at);
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* uXXXX at p: its value, or -1. */
static int32_t unicode_escape(const char *p, const char *end)
{
    int32_t value = 0;
    if (end - p < 5 || *p != 'u') return -1;
    for (int i = 1; i < 5; i++) {
        int digit = hex_digit(p[i]);
        if (digit < 0) return -1;
        value = value << 4 | digit;
    }
    return value;
}

/* One escape at *p, behind the backslash; appends to *out. */
static bool unescape(char **p, const char *end, char **out)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *plain = **p ? strchr(from, **p) : NULL;
    if (plain) {
        *(*out)++ = to[plain - from];
        ++*p;
        return true;
    }
    int32_t c = unicode_escape(*p, end);
    if (c < 0) return false;
    *p += 5;
    if (c >= 0xd800 && c < 0xdc00) { /* the first half of a pair */
        int32_t low = **p == '\\' ? unicode_escape(*p + 1, end) : -1;
        if (low < 0xdc00 || low > 0xdfff) return false;
        c = 0x10000 + ((c & 0x3ff) << 10 | (low & 0x3ff));
        *p += 6;
    }
    if (c >= 0xdc00 && c < 0xe000) return false;
    *out = sdx_utf8_put(*out, (uint32_t)c); /* never longer than the escape */
    return true;
}

sdx_status sdx_json_take_string(sdx_json_cursor *c, sdx_string *out, sdx_error *err)
{
    if (!sdx_json_take(c, '"')) return sdx_json_malformed(c, err);
    char *begin = c->at, *to = begin, *p = begin;
    while (p < c->end && *p != '"') {
        if ((unsigned char)*p < 0x20) return sdx_json_malformed(c, err);
        if (*p != '\\') {
            *to++ = *p++;
            continue;
        }
        p++;
        if (p == c->end || !unescape(&p, c->end, &to)) return sdx_json_malformed(c, err);
    }
    if (p == c->end) return sdx_json_malformed(c, err);
    *to = 0;
    c->at = p + 1;
    *out = (sdx_string){begin, (size_t)(to - begin)};
    return SDX_OK;
}

sdx_status sdx_json_take_integer(sdx_json_cursor *c, int64_t *out, sdx_error *err)
{
    uint64_t value = 0;
    bool minus = sdx_json_take(c, '-');
    skip_space(c);
    const char *begin = c->at;
    for (; c->at < c->end && *c->at >= '0' && *c->at <= '9'; c->at++) {
        if (value > (uint64_t)INT64_MAX / 10 - 1) return sdx_json_malformed(c, err);
        value = value * 10 + (uint64_t)(*c->at - '0');
    }
    if (c->at == begin || (c->at < c->end && strchr(".eE", *c->at))) return SDX_ERR_FILE;
    *out = minus ? -(int64_t)value : (int64_t)value;
    return SDX_OK;
}

sdx_status sdx_json_take_double(sdx_json_cursor *c, double *out, sdx_error *err)
{
    skip_space(c);
    bool number = c->at < c->end && (*c->at == '-' || (*c->at >= '0' && *c->at <= '9'));
    const char *end = number ? sdx_read_number(c->at, c->end, out) : c->at;
    if (end == c->at) return sdx_json_malformed(c, err);
    c->at += end - c->at;
    return SDX_OK;
}

/* t NULL: the tokens are passed over. */
static sdx_status take_tokens(sdx_tokenizer *t, sdx_json_cursor *c, sdx_error *err)
{
    if (!c->at || !sdx_json_take(c, '{'))
        return sdx_fail(err, SDX_ERR_FILE, "the model's \"vocab\" is not an object");
    if (sdx_json_take(c, '}')) return SDX_OK;
    do {
        sdx_string text;
        int64_t id;
        TRY(sdx_json_take_string(c, &text, err));
        if (!sdx_json_take(c, ':')) return sdx_json_malformed(c, err);
        if (sdx_json_at(c, '{'))
            return sdx_fail(err, SDX_ERR_FILE,
                            "\"%.60s\" is a vocabulary of its own: tokenizer_config.json names none by "
                            "target_lang",
                            text.data);
        if (sdx_json_take_integer(c, &id, err) != SDX_OK)
            return sdx_fail(err, SDX_ERR_FILE, "the id of \"%.60s\" is not an integer", text.data);
        if (t) TRY(sdx_vocab_put(t, id, text.data, text.size, err));
    } while (sdx_json_take(c, ','));
    return sdx_json_take(c, '}') ? SDX_OK : sdx_json_malformed(c, err);
}

sdx_status sdx_json_take_vocab(sdx_tokenizer *t, sdx_json_cursor *c, sdx_error *err)
{
    TRY(take_tokens(t, c, err));
    return sdx_vocab_finish(&t->vocab, err);
}

sdx_status sdx_json_pass_vocab(sdx_json_cursor *c, sdx_error *err)
{
    return take_tokens(NULL, c, err);
}
