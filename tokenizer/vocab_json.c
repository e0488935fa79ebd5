/* vocab_json.c: vocab.json, a token's id by its text. With merges.txt beside it, it is byte-pair encoding as
 * GPT-2's code wrote it (RoBERTa, BART, CLIP, ...); alone, it is the characters of a CTC model (Wav2Vec2). What
 * is done to the text is what transformers' convert_slow_tokenizer says for the class. */
#include <stdlib.h>
#include <string.h>

#include "../base/file.h"
#include "class.h"
#include "regex.h"

enum { FILE_LIMIT = 128 << 20 };

/* {"eng": {"a": 5, ...}, ...}: one vocabulary a language, as MMS has them. */
static sdx_status take_language(sdx_tokenizer *t, sdx_json_cursor *c, const char *language, sdx_error *err)
{
    if (!sdx_json_take(c, '{')) return sdx_fail(err, SDX_ERR_FILE, "is not an object of vocabularies");
    do {
        sdx_string name;
        TRY(sdx_json_take_string(c, &name, err));
        if (!sdx_json_take(c, ':')) return sdx_json_malformed(c, err);
        if (!strcmp(name.data, language)) return sdx_json_take_vocab(t, c, err);
        TRY(sdx_json_pass_vocab(c, err));
    } while (sdx_json_take(c, ','));
    return sdx_fail(err, SDX_ERR_FILE, "has no vocabulary of target_lang \"%.60s\"", language);
}

sdx_status sdx_tokenizer_take_vocab_json(sdx_tokenizer *t, const char *path, const char *language,
                                         sdx_error *err)
{
    char *data;
    size_t size;
    TRY(sdx_file_read(path, FILE_LIMIT, &data, &size, err));
    sdx_json_cursor c = {data, data + size};
    sdx_status status;
    if (sdx_utf8_valid(data, size) != size)
        status = sdx_fail(err, SDX_ERR_FILE, "is not UTF-8");
    else
        status = language ? take_language(t, &c, language, err) : sdx_json_take_vocab(t, &c, err);
    free(data);
    if (status != SDX_OK) sdx_error_context(err, "%s", path);
    return status;
}

static sdx_status set_step(sdx_tokenizer *t, sdx_steps *out, const sdx_step *step, size_t count, sdx_error *err)
{
    ARENA_NEW(&t->arena, out->step, count, err);
    memcpy(out->step, step, count * sizeof *step);
    out->count = count;
    return SDX_OK;
}

/* ---- recipes ------------------------------------------------------------------------------------------- */

typedef struct recipe_step {
    sdx_step step;
    const char *regex; /* to be compiled into it, or NULL */
} recipe_step;

enum { MOST_STEPS = 3 };

typedef struct recipe {
    recipe_step normalize[MOST_STEPS], split[MOST_STEPS], decode[MOST_STEPS]; /* up to the first without run */
    const char *suffix;                                                       /* of a word's last token */
    bool unknown;          /* what is not in the vocabulary becomes unk_token; else nothing */
    bool prefix_space;     /* add_prefix_space counts */
    bool version_only;     /* merges.txt: the first line is a heading only if it says #version: */
    bool last_line, blank; /* ... a last line without its end counts; empty lines are passed over */
    size_t most;           /* ... no more merges than these; 0: any number */
} recipe;

#define WORD_END "</w>"
#define BERT_NORMALIZER                                                                                        \
    .run = sdx_normalize_bert, .prepare = sdx_normalize_bert_prepare, .clean_text = true, .han = true
#define BERT_SPLIT                                                                                             \
    {                                                                                                          \
        {                                                                                                      \
            {                                                                                                  \
                .run = sdx_split_bert, .prepare = sdx_split_bert_prepare                                       \
            }                                                                                                  \
        }                                                                                                      \
    }

static const recipe recipes[] = {
    [SDX_WORDS_GPT2] = {.split = {{{.run = sdx_split_bytes, .words = true}}},
                        .decode = {{{.run = sdx_decode_bytes}}}, .prefix_space = true},
    [SDX_WORDS_QWEN2] =
        {.normalize = {{{.run = sdx_normalize_form, .compose = true}}},
         .split = {{{.run = sdx_split_pattern, .behavior = SDX_SPLIT_ISOLATED},
                    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}"
                    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},
                   {{.run = sdx_split_bytes}}},
         .decode = {{{.run = sdx_decode_bytes}}}, .prefix_space = true, .version_only = true, .last_line = true,
         .blank = true},
    [SDX_WORDS_CLIP] =
        {.normalize = {{{.run = sdx_normalize_form, .compose = true}},
                       {{.run = sdx_normalize_replace, .content = {" ", 1}}, "\\s+"},
                       {{.run = sdx_normalize_lowercase}}},
         .split = {{{.run = sdx_split_pattern, .behavior = SDX_SPLIT_REMOVED, .invert = true},
                    "'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+"},
                   {{.run = sdx_split_bytes, .words = true}}},
         .decode = {{{.run = sdx_decode_bytes}},
                    {{.run = sdx_decode_replace, .pattern = {WORD_END, 4}, .content = {" ", 1}}},
                    {{.run = sdx_normalize_strip, .left = true, .right = true}}},
         .suffix = WORD_END, .unknown = true, .last_line = true, .most = 49152 - 256 - 2},
    [SDX_WORDS_HERBERT] = {.normalize = {{{BERT_NORMALIZER}}}, .split = BERT_SPLIT,
                           .decode = {{{.run = sdx_decode_bpe, .pattern = {WORD_END, 4}}}}, .suffix = WORD_END,
                           .unknown = true, .version_only = true},
    [SDX_WORDS_OPENAI] = {.normalize = {{{BERT_NORMALIZER, .lowercase = true, .strip_accents = true}}},
                          .split = BERT_SPLIT,
                          .decode = {{{.run = sdx_decode_bpe, .pattern = {WORD_END, 4}}}}, .suffix = WORD_END,
                          .unknown = true},
};

static sdx_status follow(sdx_tokenizer *t, const recipe_step *from, sdx_steps *out, bool add_space,
                         sdx_error *err)
{
    sdx_step step[MOST_STEPS];
    size_t n = 0;
    for (; n < MOST_STEPS && from[n].step.run; n++) {
        const char *regex = from[n].regex;
        step[n] = from[n].step;
        if (regex) TRY(sdx_regex_compile(t, (sdx_string){regex, strlen(regex)}, &step[n].regex, err));
        if (step[n].run == sdx_split_bytes) step[n].add_space = add_space;
    }
    return set_step(t, out, step, n, err);
}

static sdx_status set_bpe_steps(sdx_tokenizer *t, const sdx_class *class, const sdx_tokenizer_config *c,
                                sdx_error *err)
{
    const recipe *r = &recipes[class->words];
    bool add_space;
    TRY(sdx_json_bool(c->config, "add_prefix_space", class->add_space, &add_space, err));
    TRY(follow(t, r->normalize, &t->normalizers, false, err));
    TRY(follow(t, r->split, &t->pre_tokenizers, add_space && r->prefix_space, err));
    return follow(t, r->decode, &t->decoders, false, err);
}

static sdx_status set_bpe_model(sdx_tokenizer *t, const sdx_class *class, const sdx_tokenizer_config *c,
                                sdx_error *err)
{
    const recipe *r = &recipes[class->words];
    const char *unknown = sdx_tokenizer_config_token(c, "unk_token");
    if (r->suffix) t->model.suffix = (sdx_string){r->suffix, strlen(r->suffix)};
    if (!r->unknown) return SDX_OK;
    if (!unknown) unknown = class->special[0];
    size_t n = strlen(unknown);
    t->model.unknown = (sdx_string){sdx_tokenizer_keep(t, unknown, n), n};
    if (!t->model.unknown.data) return sdx_fail_memory(err, n);
    t->model.unknown_id = sdx_trie_get(&t->vocab.trie, unknown, n);
    t->model.has_unknown = true;
    return SDX_OK;
}

/* ---- merges.txt ---------------------------------------------------------------------------------------- */

/* As the class's own code reads it: which first line is a heading, which last line counts. */
static sdx_status parse_merges(char *data, size_t size, const recipe *r, sdx_merge_list *list, sdx_error *err)
{
    bool heading = !r->version_only || (size >= 9 && !memcmp(data, "#version:", 9));
    size_t number = 1;
    for (char *line = data, *end; line < data + size; line = end + 1, number++) {
        sdx_string left, right;
        end = memchr(line, '\n', size - (size_t)(line - data));
        if (!end && !r->last_line) break;
        if (!end) end = data + size; /* sdx_file_read leaves room for the NUL */
        if ((heading && number == 1) || (r->most && list->count == r->most)) continue;
        size_t n = (size_t)(end - line);
        if (n && line[n - 1] == '\r') n--;
        if (!n && r->blank) continue;
        if (sdx_utf8_valid(line, n) != n) return sdx_fail(err, SDX_ERR_FILE, "line %zu is not UTF-8", number);
        line[n] = 0;
        TRY(sdx_split_merge((sdx_string){line, n}, &left, &right, err));
        TRY(sdx_merge_list_add(list, left, right, err));
    }
    return SDX_OK;
}

static sdx_status read_merges(sdx_tokenizer *t, const char *path, const recipe *r, sdx_error *err)
{
    char *data;
    size_t size;
    sdx_merge_list list = {0};
    TRY(sdx_file_read(path, FILE_LIMIT, &data, &size, err));
    sdx_status status = parse_merges(data, size, r, &list, err);
    if (status == SDX_OK) status = sdx_bpe_build(t, &list, err);
    sdx_merge_list_fini(&list);
    free(data);
    if (status != SDX_OK) sdx_error_context(err, "merges.txt");
    return status;
}

static const sdx_class *bpe_class(const sdx_tokenizer *t, const sdx_tokenizer_config *c)
{
    bool roberta = sdx_trie_get(&t->vocab.trie, "<s>", 3) >= 0 && sdx_trie_get(&t->vocab.trie, "</s>", 4) >= 0;
    return sdx_class_find(c, roberta ? "Roberta" : "GPT2");
}

/* ---- CTC ------------------------------------------------------------------------------------------------- */

/* Tokens of several characters are found before the text is taken apart; spaces around them belong to them. */
static sdx_status add_long_tokens(sdx_tokenizer *t, sdx_error *err)
{
    for (size_t id = 0; id < t->vocab.size; id++) {
        sdx_string text = t->vocab.token[id].text;
        const unsigned char *p = (const unsigned char *)text.data;
        if (!text.size) continue;
        sdx_utf8_next(&p);
        if ((size_t)(p - (const unsigned char *)text.data) == text.size) continue;
        TRY(sdx_tokenizer_add(t, (sdx_added_token){text, (int32_t)id, .lstrip = true, .rstrip = true}, err));
    }
    return SDX_OK;
}

static sdx_status set_ctc_steps(sdx_tokenizer *t, const sdx_tokenizer_config *c, sdx_string pad, sdx_error *err)
{
    sdx_string delimiter, space;
    bool lower;
    TRY(sdx_json_string(t, c->config, "word_delimiter_token", "|", &delimiter, err));
    TRY(sdx_json_string(t, c->config, "replace_word_delimiter_char", " ", &space, err));
    TRY(sdx_json_bool(c->config, "do_lower_case", false, &lower, err));
    if (!delimiter.size) return sdx_fail(err, SDX_ERR_FILE, "word_delimiter_token is empty");
    sdx_step normalize[] = {{.run = sdx_normalize_replace, .pattern = {" ", 1}, .content = delimiter},
                            {.run = sdx_normalize_uppercase}};
    sdx_step split = {.run = sdx_split_fixed, .start = 1};
    sdx_step decode[] = {{.run = sdx_decode_ctc, .pattern = pad},
                         {.run = sdx_decode_replace, .pattern = delimiter, .content = space},
                         {.run = sdx_normalize_strip, .left = true, .right = true},
                         {.run = sdx_normalize_lowercase}};
    TRY(set_step(t, &t->normalizers, normalize, lower ? 2 : 1, err));
    TRY(set_step(t, &t->pre_tokenizers, &split, 1, err));
    return set_step(t, &t->decoders, decode, lower ? 4 : 3, err);
}

static sdx_status build_ctc(sdx_tokenizer *t, const sdx_tokenizer_config *c, sdx_error *err)
{
    const sdx_class *class = sdx_class_find(c, "Wav2Vec2CTC");
    if (!class || strcmp(class->name, "Wav2Vec2CTC"))
        return sdx_fail(err, SDX_ERR_FILE, "merges.txt is missing beside it");
    TRY(sdx_class_apply(class, c, t, err));
    TRY(add_long_tokens(t, err));
    t->model.run = sdx_word_level_run;
    t->model.unknown = (sdx_string){"<unk>", 5};
    t->model.unknown_id = t->unk_id;
    const char *pad = sdx_tokenizer_token(t, t->pad_id);
    return set_ctc_steps(t, c, (sdx_string){pad, pad ? strlen(pad) : 0}, err);
}

/* ---- which ----------------------------------------------------------------------------------------------- */

static sdx_status build_bpe(sdx_tokenizer *t, const char *merges, const sdx_class *class,
                            const sdx_tokenizer_config *c, sdx_error *err)
{
    if (!class) return sdx_class_refuse(c, err);
    TRY(set_bpe_model(t, class, c, err));
    TRY(read_merges(t, merges, &recipes[class->words], err));
    TRY(set_bpe_steps(t, class, c, err));
    return sdx_class_apply(class, c, t, err);
}

static sdx_status read_with(sdx_tokenizer *t, const char *path, const char *merges,
                            const sdx_tokenizer_config *config, sdx_error *err)
{
    bool bpe = sdx_file_exists(merges);
    const char *language = json_string_value(json_object_get(config->config, "target_lang"));
    TRY(sdx_tokenizer_take_vocab_json(t, path, bpe ? NULL : language, err));
    sdx_status status =
        bpe ? build_bpe(t, merges, bpe_class(t, config), config, err) : build_ctc(t, config, err);
    if (status != SDX_OK) sdx_error_context(err, "%s", path);
    return status;
}

sdx_status sdx_tokenizer_read_vocab_json(sdx_tokenizer *t, const char *path, sdx_error *err)
{
    sdx_tokenizer_config config;
    TRY(sdx_tokenizer_config_open(path, &config, err));
    char *folder = sdx_path_dirname(path), *merges = folder ? sdx_path_join(folder, "merges.txt") : NULL;
    sdx_status status = merges ? read_with(t, path, merges, &config, err) : sdx_fail_memory(err, strlen(path));
    free(merges);
    free(folder);
    sdx_tokenizer_config_close(&config);
    return status;
}
