/* json_steps.c: the normalizers, pre-tokenizers and decoders of a tokenizer.json. Each kind is a row: its
 * "type", what that says by itself, and the function that reads its options. Sequences are flattened. */
#include <string.h>

#include "json.h"
#include "regex.h"

enum { NESTING = 32 }; /* of Sequence in Sequence */

typedef sdx_status (*step_reader)(sdx_tokenizer *t, const json_t *json, sdx_step *step, sdx_error *err);

typedef struct step_kind {
    const char *type;
    sdx_step preset;  /* run, and the options that the type itself says */
    step_reader read; /* NULL: nothing more to read */
} step_kind;

/* ---- normalizers ---- */

/* Value of each base64 digit, or -1. */
static int base64_digit(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c ? strchr(digits, c) : NULL;
    return at ? (int)(at - digits) : -1;
}

/* Bytes into out, which has room for 3 of every 4 digits begun; how many, or -1. */
static ptrdiff_t decode_base64(sdx_string text, unsigned char *out)
{
    uint32_t bits = 0;
    size_t digits = 0, n = 0;
    while (text.size && text.data[text.size - 1] == '=') text.size--;
    for (; digits < text.size; digits++) {
        int digit = base64_digit(text.data[digits]);
        if (digit < 0) return -1;
        bits = bits << 6 | (uint32_t)digit;
        if (digits % 4) out[n++] = (unsigned char)(bits >> (6 - 2 * (digits % 4)));
    }
    return (ptrdiff_t)n;
}

static sdx_status read_bert_normalizer(sdx_tokenizer *t, const json_t *json, sdx_step *step, sdx_error *err)
{
    (void)t;
    TRY(sdx_json_bool(json, "clean_text", true, &step->clean_text, err));
    TRY(sdx_json_bool(json, "handle_chinese_chars", true, &step->han, err));
    TRY(sdx_json_bool(json, "lowercase", true, &step->lowercase, err));
    return sdx_json_bool(json, "strip_accents", step->lowercase, &step->strip_accents, err);
}

static sdx_status read_strip(sdx_tokenizer *t, const json_t *json, sdx_step *step, sdx_error *err)
{
    (void)t;
    TRY(sdx_json_bool(json, "strip_left", true, &step->left, err));
    return sdx_json_bool(json, "strip_right", true, &step->right, err);
}

/* {"String": ...} or {"Regex": ...} */
static sdx_status read_pattern(sdx_tokenizer *t, const json_t *json, sdx_step *step, sdx_string *regex,
                               sdx_error *err)
{
    const json_t *pattern = json_object_get(json, "pattern");
    *regex = (sdx_string){0};
    if (json_object_get(pattern, "Regex")) return sdx_json_string(t, pattern, "Regex", NULL, regex, err);
    TRY(sdx_json_string(t, pattern, "String", NULL, &step->pattern, err));
    return step->pattern.size ? SDX_OK : sdx_fail(err, SDX_ERR_FILE, "a pattern is empty");
}

static bool is_text(sdx_string s, const char *text)
{
    return s.size == strlen(text) && !memcmp(s.data, text, s.size);
}

static sdx_status read_replace(sdx_tokenizer *t, const json_t *json, sdx_step *step, sdx_error *err)
{
    sdx_string regex;
    TRY(read_pattern(t, json, step, &regex, err));
    if (regex.data && !is_text(regex, " {2,}")) TRY(sdx_regex_compile(t, regex, &step->regex, err));
    return sdx_json_string(t, json, "content", NULL, &step->content, err);
}

static sdx_status read_prepend(sdx_tokenizer *t, const json_t *json, sdx_step *step, sdx_error *err)
{
    return sdx_json_string(t, json, "prepend", NULL, &step->content, err);
}

static sdx_status read_precompiled(sdx_tokenizer *t, const json_t *json, sdx_step *step, sdx_error *err)
{
    sdx_string text;
    TRY(sdx_json_string(t, json, "precompiled_charsmap", NULL, &text, err));
    unsigned char *bytes = sdx_arena_alloc(&t->arena, text.size / 4 * 3 + 3);
    if (!bytes) return sdx_fail_memory(err, text.size);
    ptrdiff_t n = decode_base64(text, bytes);
    if (n < 0) return sdx_fail(err, SDX_ERR_FILE, "precompiled_charsmap is not base64");
    return sdx_charsmap_read(t, bytes, (size_t)n, &step->charmap, err);
}

/* ---- pre-tokenizers ---- */

static sdx_status read_byte_level(sdx_tokenizer *t, const json_t *json, sdx_step *step, sdx_error *err)
{
    (void)t;
    TRY(sdx_json_bool(json, "add_prefix_space", true, &step->add_space, err));
    return sdx_json_bool(json, "use_regex", true, &step->words, err);
}

static sdx_status read_character(sdx_tokenizer *t, const json_t *json, const char *name, const char *fallback,
                                 sdx_string *text, uint32_t *out, sdx_error *err)
{
    TRY(sdx_json_string(t, json, name, fallback, text, err));
    const unsigned char *p = (const unsigned char *)text->data;
    if (text->size) *out = sdx_utf8_next(&p);
    if (!text->size || (size_t)(p - (const unsigned char *)text->data) != text->size)
        return sdx_fail(err, SDX_ERR_FILE, "\"%s\" is not one character", name);
    return SDX_OK;
}

static sdx_status read_metaspace(sdx_tokenizer *t, const json_t *json, sdx_step *step, sdx_error *err)
{
    static const char *const schemes[] = {"always", "first", "never", NULL};
    bool add;
    unsigned scheme;
    TRY(read_character(t, json, "replacement", "\xe2\x96\x81", &step->pattern, &step->character, err));
    TRY(sdx_json_bool(json, "add_prefix_space", true, &add, err));
    TRY(sdx_json_choice(json, "prepend_scheme", schemes, SDX_PREPEND_ALWAYS, &scheme, err));
    step->prepend = add ? (sdx_prepend)scheme : SDX_PREPEND_NEVER;
    return sdx_json_bool(json, "split", true, &step->split, err);
}

static sdx_status read_behavior(const json_t *json, sdx_step *step, sdx_error *err)
{
    static const char *const names[] = {"Removed",        "Isolated",   "MergedWithPrevious",
                                        "MergedWithNext", "Contiguous", NULL};
    unsigned behavior;
    TRY(sdx_json_choice(json, "behavior", names, SDX_SPLIT_ISOLATED, &behavior, err));
    step->behavior = (sdx_behavior)behavior;
    return SDX_OK;
}

static sdx_status read_punctuation(sdx_tokenizer *t, const json_t *json, sdx_step *step, sdx_error *err)
{
    (void)t;
    return read_behavior(json, step, err);
}

static sdx_status read_split(sdx_tokenizer *t, const json_t *json, sdx_step *step, sdx_error *err)
{
    sdx_string regex;
    TRY(read_pattern(t, json, step, &regex, err));
    TRY(read_behavior(json, step, err));
    TRY(sdx_json_bool(json, "invert", false, &step->invert, err));
    if (!regex.data) return SDX_OK;
    bool all_matches =
        step->behavior == SDX_SPLIT_ISOLATED || (step->behavior == SDX_SPLIT_REMOVED && step->invert);
    if (all_matches && is_text(regex, SDX_GPT2_PATTERN)) { /* it leaves nothing between its matches */
        step->run = sdx_split_gpt2;
        return SDX_OK;
    }
    return sdx_regex_compile(t, regex, &step->regex, err);
}

static sdx_status read_digits(sdx_tokenizer *t, const json_t *json, sdx_step *step, sdx_error *err)
{
    bool each;
    (void)t;
    TRY(sdx_json_bool(json, "individual_digits", false, &each, err));
    step->behavior = each ? SDX_SPLIT_ISOLATED : SDX_SPLIT_CONTIGUOUS;
    return SDX_OK;
}

static sdx_status read_delimiter(sdx_tokenizer *t, const json_t *json, sdx_step *step, sdx_error *err)
{
    sdx_string text;
    return read_character(t, json, "delimiter", NULL, &text, &step->character, err);
}

static sdx_status read_fixed(sdx_tokenizer *t, const json_t *json, sdx_step *step, sdx_error *err)
{
    (void)t;
    TRY(sdx_json_size(json, "length", 5, &step->start, err));
    return step->start ? SDX_OK : sdx_fail(err, SDX_ERR_FILE, "FixedLength has length 0");
}

/* ---- decoders ---- */

static sdx_status read_wordpiece_decoder(sdx_tokenizer *t, const json_t *json, sdx_step *step, sdx_error *err)
{
    TRY(sdx_json_string(t, json, "prefix", "##", &step->pattern, err));
    return sdx_json_bool(json, "cleanup", true, &step->cleanup, err);
}

static sdx_status read_bpe_decoder(sdx_tokenizer *t, const json_t *json, sdx_step *step, sdx_error *err)
{
    TRY(sdx_json_string(t, json, "suffix", "</w>", &step->pattern, err));
    return step->pattern.size ? SDX_OK : sdx_fail(err, SDX_ERR_FILE, "BPEDecoder has an empty suffix");
}

static sdx_status read_strip_decoder(sdx_tokenizer *t, const json_t *json, sdx_step *step, sdx_error *err)
{
    TRY(read_character(t, json, "content", NULL, &step->pattern, &step->character, err));
    TRY(sdx_json_size(json, "start", 0, &step->start, err));
    return sdx_json_size(json, "stop", 0, &step->stop, err);
}

static sdx_status read_ctc(sdx_tokenizer *t, const json_t *json, sdx_step *step, sdx_error *err)
{
    TRY(sdx_json_string(t, json, "pad_token", "<pad>", &step->pattern, err));
    TRY(sdx_json_string(t, json, "word_delimiter_token", "|", &step->content, err));
    if (!step->content.size) return sdx_fail(err, SDX_ERR_FILE, "CTC has an empty word delimiter");
    return sdx_json_bool(json, "cleanup", true, &step->cleanup, err);
}

/* ---- the tables ---- */

static const step_kind normalizer_kinds[] = {
    {"BertNormalizer",
     {.run = sdx_normalize_bert, .prepare = sdx_normalize_bert_prepare},
     read_bert_normalizer},
    {"Lowercase", {.run = sdx_normalize_lowercase}, NULL},
    {"NFC", {.run = sdx_normalize_form, .compose = true}, NULL},
    {"NFD", {.run = sdx_normalize_form}, NULL},
    {"NFKC", {.run = sdx_normalize_form, .compose = true, .compatibility = true}, NULL},
    {"NFKD", {.run = sdx_normalize_form, .compatibility = true}, NULL},
    {"StripAccents", {.run = sdx_normalize_strip_accents}, NULL},
    {"Strip", {.run = sdx_normalize_strip}, read_strip},
    {"Replace", {.run = sdx_normalize_replace}, read_replace},
    {"Prepend", {.run = sdx_normalize_prepend}, read_prepend},
    {"Nmt", {.run = sdx_normalize_nmt}, NULL},
    {"ByteLevel", {.run = sdx_normalize_bytes}, NULL},
    {"Precompiled",
     {.run = sdx_normalize_precompiled, .prepare = sdx_normalize_precompiled_prepare},
     read_precompiled},
    {NULL, {0}, NULL},
};

static const step_kind pre_tokenizer_kinds[] = {
    {"BertPreTokenizer", {.run = sdx_split_bert, .prepare = sdx_split_bert_prepare}, NULL},
    {"Whitespace", {.run = sdx_split_words, .prepare = sdx_split_words_prepare}, NULL},
    {"WhitespaceSplit", {.run = sdx_split_spaces, .prepare = sdx_split_spaces_prepare}, NULL},
    {"ByteLevel", {.run = sdx_split_bytes}, read_byte_level},
    {"Metaspace", {.run = sdx_split_metaspace}, read_metaspace},
    {"Punctuation", {.run = sdx_split_punctuation}, read_punctuation},
    {"Digits", {.run = sdx_split_digits}, read_digits},
    {"Split", {.run = sdx_split_pattern}, read_split},
    {"CharDelimiterSplit", {.run = sdx_split_delimiter, .behavior = SDX_SPLIT_REMOVED}, read_delimiter},
    {"FixedLength", {.run = sdx_split_fixed}, read_fixed},
    {"UnicodeScripts", {.run = sdx_split_scripts}, NULL},
    {NULL, {0}, NULL},
};

static const step_kind decoder_kinds[] = {
    {"WordPiece", {.run = sdx_decode_wordpiece}, read_wordpiece_decoder},
    {"ByteLevel", {.run = sdx_decode_bytes}, NULL},
    {"Metaspace", {.run = sdx_decode_metaspace}, read_metaspace},
    {"BPEDecoder", {.run = sdx_decode_bpe}, read_bpe_decoder},
    {"Replace", {.run = sdx_decode_replace}, read_replace},
    {"ByteFallback", {.run = sdx_decode_byte_fallback}, NULL},
    {"Fuse", {.run = sdx_decode_fuse}, NULL},
    {"Strip", {.run = sdx_decode_strip}, read_strip_decoder},
    {"CTC", {.run = sdx_decode_ctc}, read_ctc},
    {NULL, {0}, NULL},
};

/* One kind of component in the file: its member, the member of a Sequence that lists the parts, and the table.
 */
typedef struct component {
    const char *name, *list;
    const step_kind *kinds;
    size_t offset; /* of its sdx_steps in the tokenizer */
} component;

static const component components[] = {
    {"normalizer", "normalizers", normalizer_kinds, offsetof(sdx_tokenizer, normalizers)},
    {"pre_tokenizer", "pretokenizers", pre_tokenizer_kinds, offsetof(sdx_tokenizer, pre_tokenizers)},
    {"decoder", "decoders", decoder_kinds, offsetof(sdx_tokenizer, decoders)},
};

/* How many steps `json` stands for. */
static sdx_status count_steps(const component *c, const json_t *json, int depth, size_t *count, sdx_error *err)
{
    if (!json || json_is_null(json)) return SDX_OK;
    if (!json_is_object(json)) return sdx_fail(err, SDX_ERR_FILE, "\"%s\" is not an object", c->name);
    if (strcmp(sdx_json_type(json), "Sequence")) {
        ++*count;
        return SDX_OK;
    }
    const json_t *part, *list = json_object_get(json, c->list);
    if (!json_is_array(list) || depth == NESTING) {
        return sdx_fail(err, SDX_ERR_FILE, "%s Sequence: \"%s\" is not a list, or nested too deep", c->name,
                        c->list);
    }
    for (size_t i = 0; (part = json_array_get(list, i)); i++) TRY(count_steps(c, part, depth + 1, count, err));
    return SDX_OK;
}

static sdx_status read_step(const component *c, sdx_tokenizer *t, const json_t *json, sdx_step *out,
                            sdx_error *err)
{
    const char *type = sdx_json_type(json);
    for (const step_kind *kind = c->kinds; kind->type; kind++) {
        if (strcmp(kind->type, type)) continue;
        *out = kind->preset;
        return kind->read ? kind->read(t, json, out, err) : SDX_OK;
    }
    return sdx_fail(err, SDX_ERR_UNSUPPORTED, "%s \"%.60s\" is not supported", c->name, type);
}

static sdx_status read_steps(const component *c, sdx_tokenizer *t, const json_t *json, sdx_steps *out,
                             sdx_error *err)
{
    if (!json || json_is_null(json)) return SDX_OK;
    if (strcmp(sdx_json_type(json), "Sequence")) return read_step(c, t, json, &out->step[out->count++], err);
    const json_t *part, *list = json_object_get(json, c->list);
    for (size_t i = 0; (part = json_array_get(list, i)); i++) TRY(read_steps(c, t, part, out, err));
    return SDX_OK;
}

sdx_status sdx_json_read_steps(sdx_tokenizer *t, const json_t *root, sdx_error *err)
{
    for (size_t i = 0; i < sizeof components / sizeof *components; i++) {
        const component *c = &components[i];
        const json_t *json = json_object_get(root, c->name);
        sdx_steps *steps = (sdx_steps *)((char *)t + c->offset);
        size_t count = 0;
        TRY(count_steps(c, json, 0, &count, err));
        ARENA_NEW(&t->arena, steps->step, count, err);
        TRY(read_steps(c, t, json, steps, err));
    }
    return SDX_OK;
}
