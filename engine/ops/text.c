/* text.c: operators on tensors of strings. A string tensor is an array of pointers; the characters that an
 * operator makes lie in run->strings, those it only passes on stay where they are. Strings are UTF-8. Patterns
 * are matched by PCRE2, whose syntax holds that of RE2, with a limit on its backtracking, since a pattern comes
 * from a file.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <ctype.h>
#include <pcre2.h>
#include <string.h>
#include <utf8proc.h>

#include "compute.h"
#include "contents.h"
#include "dictionary.h"
#include "lanes.h"

#define STRINGS SDX_SET(SDX_STRING)

static const char *string_at(const sdx_tensor *t, int64_t i)
{
    const char *s = ((const char *const *)t->data)[i];
    return s ? s : "";
}

static void put_string(const sdx_tensor *t, int64_t i, const char *s)
{
    ((const char **)t->data)[i] = s;
}

/* ---- StringConcat ------------------------------------------------------------------------------------ */

static sdx_status infer_concat(sdx_infer *x)
{
    sdx_shape out;
    for (int i = 0; i < 2; i++) TRY(sdx_want_dtype(x, i, "an operand", STRINGS));
    TRY(sdx_shape_broadcast(&x->in[0].shape, &x->in[1].shape, &out, x->err));
    sdx_infer_set(x, 0, SDX_STRING, &out);
    return SDX_OK;
}

typedef struct concat_call {
    const sdx_run *run;
    int step[2];
    bool failed;
} concat_call;

static void concat_row(void *context, int64_t at, int64_t n, const int64_t *offset)
{
    concat_call *c = context;
    for (int64_t i = 0; i < n; i++) {
        const char *a = string_at(&c->run->in[0], offset[0] + i * c->step[0]);
        const char *b = string_at(&c->run->in[1], offset[1] + i * c->step[1]);
        size_t na = strlen(a), nb = strlen(b);
        char *s = sdx_arena_alloc(c->run->strings, na + nb + 1);
        c->failed |= !s;
        if (!s) return;
        memcpy(s, a, na);
        memcpy(s + na, b, nb);
        put_string(&c->run->out[0], at + i, s);
    }
}

static sdx_status run_concat(sdx_run *r)
{
    sdx_shape out = sdx_tensor_shape(&r->out[0]), operand[2] = {sdx_run_shape(r, 0), sdx_run_shape(r, 1)};
    sdx_walk walk;
    sdx_walk_init(&walk, &out, 2, operand);
    concat_call c = {.run = r, .step = {walk.step[0], walk.step[1]}};
    sdx_walk_run(&walk, 1, concat_row, &c); /* an arena is one thread's */
    return c.failed ? sdx_fail_memory(r->err, 0) : SDX_OK;
}

/* ---- StringSplit: X [...] -> pieces [..., most], counts [...] ---------------------------------------- */

typedef struct splitter {
    const char *delimiter; /* "": runs of white space */
    int64_t most;          /* splits */
} splitter;

static splitter find_splitter(const sdx_node *node)
{
    const sdx_attr *most = sdx_node_attr(node, "maxsplit");
    return (splitter){sdx_node_string(node, "delimiter", ""), most && most->i >= 0 ? most->i : INT64_MAX};
}

static const char *skip_space(const char *s)
{
    while (isspace((unsigned char)*s)) s++;
    return s;
}

/* The next piece from *at on, which moves behind it; false at the end. done: splits made before. */
static bool next_piece(const splitter *how, int64_t done, const char **at, const char **piece, size_t *length)
{
    bool space = !*how->delimiter;
    if (*at && space) *at = skip_space(*at);
    if (!*at || (space && !**at)) return false;
    *piece = *at;
    const char *end = NULL;
    if (done < how->most && !space) end = strstr(*at, how->delimiter);
    if (done < how->most && space) {
        end = *at;
        while (*end && !isspace((unsigned char)*end)) end++;
        if (!*end) end = NULL;
    }
    *length = end ? (size_t)(end - *at) : strlen(*at);
    *at = !end ? NULL : space ? end : end + strlen(how->delimiter);
    return true;
}

static int64_t count_pieces(const splitter *how, const char *s)
{
    int64_t n = 0;
    const char *piece;
    size_t length;
    while (next_piece(how, n, &s, &piece, &length)) n++;
    return n;
}

static sdx_status infer_split(sdx_infer *x)
{
    TRY(sdx_want_dtype(x, 0, "the input", STRINGS));
    sdx_shape out = x->in[0].shape;
    if (out.rank == SDX_MAX_RANK)
        return sdx_fail(x->err, SDX_ERR_UNSUPPORTED, "the result would have more than %d dimensions",
                        SDX_MAX_RANK);
    if (out.rank >= 0) out.dim[out.rank++] = SDX_DIM_UNKNOWN;
    sdx_infer_set(x, 0, SDX_STRING, &out);
    sdx_infer_set(x, 1, SDX_I64, &x->in[0].shape);
    return SDX_OK;
}

static sdx_status split_one(sdx_run *r, const splitter *how, int64_t i, int64_t most)
{
    const char *at = string_at(&r->in[0], i), *piece;
    size_t length;
    for (int64_t k = 0; k < most; k++) {
        const char *s = "";
        if (next_piece(how, k, &at, &piece, &length))
            s = sdx_arena_strndup(r->strings, piece, length);
        else
            at = NULL;
        if (!s) return sdx_fail_memory(r->err, length);
        put_string(&r->out[0], i * most + k, s);
    }
    return SDX_OK;
}

static sdx_status run_split(sdx_run *r)
{
    splitter how = find_splitter(r->node);
    sdx_shape in = sdx_run_shape(r, 0), out = in;
    int64_t count = sdx_tensor_count(&r->in[0]), most = 0;
    TRY(r->allocate(r, 1, SDX_I64, &in));
    for (int64_t i = 0; i < count; i++) {
        int64_t n = count_pieces(&how, string_at(&r->in[0], i));
        if (r->out[1].data) ((int64_t *)r->out[1].data)[i] = n;
        if (n > most) most = n;
    }
    out.dim[out.rank++] = most;
    TRY(r->allocate(r, 0, SDX_STRING, &out));
    for (int64_t i = 0; r->out[0].data && i < count; i++) TRY(split_one(r, &how, i, most));
    return SDX_OK;
}

/* ---- StringNormalizer: stop words away, then one case; [C] or [1,C] ---------------------------------- */

/* The string in one case, simple mappings; what is not UTF-8 stays as it is. */
static const char *change_case(const sdx_run *r, const char *s, utf8proc_int32_t (*map)(utf8proc_int32_t))
{
    size_t n = strlen(s), to = 0;
    utf8proc_uint8_t *out =
        sdx_arena_alloc(r->strings, 2 * n + 5); /* no mapping of a 2-byte character takes over 3 */
    for (size_t at = 0; out && at < n;) {
        utf8proc_int32_t c;
        utf8proc_ssize_t used =
            utf8proc_iterate((const utf8proc_uint8_t *)s + at, (utf8proc_ssize_t)(n - at), &c);
        if (used > 0)
            to += (size_t)utf8proc_encode_char(map(c), out + to);
        else
            out[to++] = (utf8proc_uint8_t)s[at];
        at += used > 0 ? (size_t)used : 1;
    }
    return (const char *)out;
}

static sdx_status infer_normalizer(sdx_infer *x)
{
    TRY(sdx_want_dtype(x, 0, "the input", STRINGS));
    TRY(sdx_want_rank(x, 0, "the input", 1, 2));
    if (x->in[0].shape.rank == 2) TRY(sdx_want_dim(x, 0, "the input", 0, 1));
    sdx_shape out = x->in[0].shape;
    if (out.rank > 0) out.dim[out.rank - 1] = SDX_DIM_UNKNOWN;
    const char *action = sdx_node_string(x->node, "case_change_action", "NONE");
    if (strcmp(action, "NONE") && strcmp(action, "LOWER") && strcmp(action, "UPPER"))
        return sdx_fail(x->err, SDX_ERR_FILE,
                        "case_change_action is \"%.40s\", but must be LOWER, UPPER or NONE", action);
    sdx_infer_set(x, 0, SDX_STRING, &out);
    return SDX_OK;
}

/* Stop words as a dictionary, lowered when case does not matter. */
static sdx_status load_stop_words(const sdx_run *r, bool fold, sdx_dictionary *stop)
{
    const sdx_attr *words = sdx_node_attr(r->node, "stopwords");
    size_t n = words && words->strings ? words->count : 0;
    sdx_item *item;
    ARENA_NEW(r->strings, item, n, r->err);
    TRY(sdx_dictionary_init(stop, r->strings, n, r->err));
    for (size_t i = 0; i < n; i++) {
        item[i].string = fold ? change_case(r, words->strings[i], utf8proc_tolower) : words->strings[i];
        if (!item[i].string) return sdx_fail_memory(r->err, 0);
        sdx_dictionary_put(stop, &item[i], 1, 1);
    }
    return SDX_OK;
}

static sdx_status run_normalizer(sdx_run *r)
{
    const sdx_tensor *x = &r->in[0];
    const char *action = sdx_node_string(r->node, "case_change_action", "NONE");
    bool fold = !sdx_node_int(r->node, "is_case_sensitive", 0);
    int64_t count = sdx_tensor_count(x), kept = 0;
    sdx_dictionary stop;
    const char **words;
    TRY(load_stop_words(r, fold, &stop));
    ARENA_NEW(r->strings, words, (size_t)count + 1, r->err);
    for (int64_t i = 0; i < count; i++) {
        const char *s = string_at(x, i);
        sdx_item item = {.string = fold ? change_case(r, s, utf8proc_tolower) : s};
        if (item.string && sdx_dictionary_find(&stop, &item, 1, 1) >= 0) continue;
        if (*action != 'N') s = change_case(r, s, *action == 'L' ? utf8proc_tolower : utf8proc_toupper);
        if (!s || !item.string) return sdx_fail_memory(r->err, 0);
        words[kept++] = s;
    }
    if (kept == 0) words[kept++] = ""; /* as the standard has it */
    sdx_shape out = sdx_run_shape(r, 0);
    out.dim[out.rank - 1] = kept;
    TRY(r->allocate(r, 0, SDX_STRING, &out));
    memcpy(r->out[0].data, words, (size_t)kept * sizeof *words);
    return SDX_OK;
}

/* ---- RegexFullMatch ---------------------------------------------------------------------------------- */

enum { MATCH_LIMIT = 1000000 }; /* calls of PCRE2's matcher for one string: some milliseconds */

static void *arena_malloc(size_t bytes, void *arena)
{
    return sdx_arena_alloc(arena, bytes);
}
static void arena_free(void *p, void *arena)
{
    (void)p, (void)arena;
}

static sdx_status infer_regex(sdx_infer *x)
{
    TRY(sdx_want_dtype(x, 0, "the input", STRINGS));
    sdx_infer_set(x, 0, SDX_BOOL, &x->in[0].shape);
    return SDX_OK;
}

static sdx_status prepare_regex(sdx_prepare *p)
{
    const char *pattern = sdx_node_string(p->node, "pattern", "");
    pcre2_general_context *memory = pcre2_general_context_create(arena_malloc, arena_free, p->arena);
    pcre2_compile_context *context = memory ? pcre2_compile_context_create(memory) : NULL;
    if (!context) return sdx_fail_memory(p->err, 0);
    int code;
    PCRE2_SIZE at;
    PCRE2_UCHAR why[120] = "";
    uint32_t options =
        PCRE2_ANCHORED | PCRE2_ENDANCHORED | PCRE2_UTF | PCRE2_DOLLAR_ENDONLY | PCRE2_NEVER_BACKSLASH_C;
    p->state = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, options, &code, &at, context);
    if (p->state) return SDX_OK;
    pcre2_get_error_message(code, why, sizeof why);
    return sdx_fail(p->err, SDX_ERR_FILE, "pattern \"%.100s\", position %zu: %s", pattern, (size_t)at,
                    (const char *)why);
}

static sdx_status run_regex(sdx_run *r)
{
    const pcre2_code *code = r->state;
    pcre2_match_data *match = pcre2_match_data_create_from_pattern(code, NULL);
    pcre2_match_context *limits = pcre2_match_context_create(NULL);
    sdx_status status = match && limits ? SDX_OK : sdx_fail_memory(r->err, 0);
    int64_t count = sdx_tensor_count(&r->in[0]);
    if (limits) pcre2_set_match_limit(limits, MATCH_LIMIT);
    for (int64_t i = 0; status == SDX_OK && i < count; i++) {
        PCRE2_SPTR s = (PCRE2_SPTR)string_at(&r->in[0], i);
        int found = pcre2_match(code, s, PCRE2_ZERO_TERMINATED, 0, 0, match, limits);
        ((uint8_t *)r->out[0].data)[i] = found >= 0;
        if (found == PCRE2_ERROR_MATCHLIMIT || found == PCRE2_ERROR_HEAPLIMIT || found == PCRE2_ERROR_NOMEMORY)
            status = sdx_fail(r->err, SDX_ERR_UNSUPPORTED, "string %lld takes the pattern too long to match",
                              (long long)i);
    }
    pcre2_match_data_free(match);
    pcre2_match_context_free(limits);
    return status;
}

static const sdx_op_def rows[] = {
    {"", "StringConcat", 20, 0, 2, 2, 1, 1, 0, infer_concat, NULL, NULL, run_concat},
    {"", "StringSplit", 20, 0, 1, 1, 1, 2, SDX_OP_DYNAMIC, infer_split, NULL, NULL, run_split},
    {"", "StringNormalizer", 10, 0, 1, 1, 1, 1, SDX_OP_DYNAMIC, infer_normalizer, NULL, NULL, run_normalizer},
    {"", "RegexFullMatch", 20, 0, 1, 1, 1, 1, 0, infer_regex, prepare_regex, NULL, run_regex},
};

SDX_OP_TABLE(text);
