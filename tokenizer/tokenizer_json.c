/* tokenizer_json.c: tokenizer.json, the one file format of Hugging Face's tokenizers library. Each kind of
 * component is a row: its "type", and the function that reads its options. Sequences of components are
 * flattened. */
#include <string.h>

#include "json.h"

enum { NESTING = 32 }; /* of Sequence in Sequence */

/* ---- steps: normalizers, pre-tokenizers, decoders ------------------------------------------------------ */

typedef sdx_status (*step_reader)(sdx_tokenizer *t, const json_t *json, sdx_step *step, sdx_error *err);

typedef struct step_kind {
    const char *type;
    sdx_step preset;  /* run, and the options that the type itself says */
    step_reader read; /* NULL: nothing more to read */
} step_kind;

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

static sdx_status read_replace(sdx_tokenizer *t, const json_t *json, sdx_step *step, sdx_error *err)
{
    const json_t *pattern = json_object_get(json, "pattern");
    if (json_object_get(pattern, "Regex")) {
        return sdx_fail(err, SDX_ERR_UNSUPPORTED,
                        "normalizer Replace with a regular expression is not supported");
    }
    TRY(sdx_json_string(t, pattern, "String", NULL, &step->pattern, err));
    if (!step->pattern.size) return sdx_fail(err, SDX_ERR_FILE, "normalizer Replace has an empty pattern");
    return sdx_json_string(t, json, "content", NULL, &step->content, err);
}

static sdx_status read_wordpiece_decoder(sdx_tokenizer *t, const json_t *json, sdx_step *step, sdx_error *err)
{
    TRY(sdx_json_string(t, json, "prefix", "##", &step->pattern, err));
    return sdx_json_bool(json, "cleanup", true, &step->cleanup, err);
}

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
    {NULL, {0}, NULL},
};

static const step_kind pre_tokenizer_kinds[] = {
    {"BertPreTokenizer", {.run = sdx_split_bert, .prepare = sdx_split_bert_prepare}, NULL},
    {"Whitespace", {.run = sdx_split_words, .prepare = sdx_split_words_prepare}, NULL},
    {"WhitespaceSplit", {.run = sdx_split_spaces, .prepare = sdx_split_spaces_prepare}, NULL},
    {NULL, {0}, NULL},
};

static const step_kind decoder_kinds[] = {
    {"WordPiece", {.run = sdx_decode_wordpiece}, read_wordpiece_decoder},
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

static sdx_status read_components(sdx_tokenizer *t, const json_t *root, sdx_error *err)
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

/* ---- model ---------------------------------------------------------------------------------------------- */

/* {"token": id, ...} */
static sdx_status read_vocab_object(sdx_tokenizer *t, const json_t *model, sdx_error *err)
{
    const char *text;
    json_t *id, *vocab = json_object_get(model, "vocab");
    if (!json_is_object(vocab)) return sdx_fail(err, SDX_ERR_FILE, "the model's \"vocab\" is not an object");
    json_object_foreach(vocab, text, id)
    {
        if (!json_is_integer(id))
            return sdx_fail(err, SDX_ERR_FILE, "the id of \"%.60s\" is not an integer", text);
        TRY(sdx_vocab_put(t, json_integer_value(id), text, strlen(text), err));
    }
    return sdx_vocab_finish(&t->vocab, err);
}

static sdx_status read_wordpiece(sdx_tokenizer *t, const json_t *model, sdx_error *err)
{
    sdx_string prefix;
    int64_t max_chars;
    TRY(read_vocab_object(t, model, err));
    TRY(sdx_json_string(t, model, "unk_token", "[UNK]", &t->model.unknown, err));
    TRY(sdx_json_string(t, model, "continuing_subword_prefix", "##", &prefix, err));
    TRY(sdx_json_integer(model, "max_input_chars_per_word", 100, &max_chars, err));
    if (max_chars < 0) return sdx_fail(err, SDX_ERR_FILE, "max_input_chars_per_word is negative");
    t->model.unknown_id = sdx_trie_get(&t->vocab.trie, t->model.unknown.data, t->model.unknown.size);
    sdx_wordpiece_init(&t->model, &t->vocab, prefix, (size_t)max_chars);
    return SDX_OK;
}

static sdx_status read_model(sdx_tokenizer *t, const json_t *root, sdx_error *err)
{
    static const struct {
        const char *type;
        sdx_status (*read)(sdx_tokenizer *t, const json_t *model, sdx_error *err);
    } kinds[] = {{"WordPiece", read_wordpiece}};
    const json_t *model = json_object_get(root, "model");
    const char *type = sdx_json_type(model);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (!strcmp(type, kinds[i].type)) return kinds[i].read(t, model, err);
    }
    return sdx_fail(err, SDX_ERR_UNSUPPORTED, "model \"%.60s\" is not supported", type);
}

/* ---- post-processor ---------------------------------------------------------------------------------------
 */

static sdx_status slot_id(const sdx_tokenizer *t, const json_t *value, int32_t *out, sdx_error *err)
{
    int64_t id = json_is_integer(value) ? json_integer_value(value) : -1;
    if (id < 0 || (uint64_t)id >= t->vocab.size || !t->vocab.token[id].text.data) {
        return sdx_fail(err, SDX_ERR_FILE, "post_processor: a special token's id is not in the vocabulary");
    }
    *out = (int32_t)id;
    return SDX_OK;
}

/* The ids of a template's special token, from the table beside it; NULL if it is not an array. */
static const json_t *special_ids(const json_t *processor, const json_t *special)
{
    const char *name = json_string_value(json_object_get(special, "id"));
    const json_t *entry = name ? json_object_get(json_object_get(processor, "special_tokens"), name) : NULL;
    const json_t *ids = json_object_get(entry, "ids");
    return json_is_array(ids) ? ids : NULL;
}

static sdx_status read_type_id(const json_t *item, int32_t *out, sdx_error *err)
{
    int64_t type;
    TRY(sdx_json_integer(item, "type_id", 0, &type, err));
    if (type < 0 || type > INT32_MAX)
        return sdx_fail(err, SDX_ERR_FILE, "post_processor: type_id %lld", (long long)type);
    *out = (int32_t)type;
    return SDX_OK;
}

/* {"Sequence": {"id": "A", "type_id": 0}} or {"SpecialToken": {"id": "[CLS]", "type_id": 0}}, into slot[]. */
static sdx_status read_item(const sdx_tokenizer *t, const json_t *processor, const json_t *item, sdx_slot *slot,
                            size_t *count, sdx_error *err)
{
    const json_t *sequence = json_object_get(item, "Sequence"),
                 *special = json_object_get(item, "SpecialToken");
    int32_t type = 0;
    TRY(read_type_id(sequence ? sequence : special, &type, err));
    const char *name = json_string_value(json_object_get(sequence, "id"));
    if (name && (!strcmp(name, "A") || !strcmp(name, "B"))) {
        slot[(*count)++] = (sdx_slot){*name == 'A' ? SDX_SLOT_A : SDX_SLOT_B, -1, type};
        return SDX_OK;
    }
    const json_t *id, *ids = special_ids(processor, special);
    if (!ids) return sdx_fail(err, SDX_ERR_FILE, "post_processor: a template holds an unknown item");
    for (size_t i = 0; (id = json_array_get(ids, i)); i++) {
        slot[*count] = (sdx_slot){SDX_SLOT_ID, -1, type};
        TRY(slot_id(t, id, &slot[(*count)++].id, err));
    }
    return SDX_OK;
}

static sdx_status read_template(sdx_tokenizer *t, const json_t *processor, const char *name, sdx_template *out,
                                sdx_error *err)
{
    const json_t *item, *list = json_object_get(processor, name);
    size_t room = 0;
    if (!json_is_array(list)) return sdx_fail(err, SDX_ERR_FILE, "post_processor: \"%s\" is not a list", name);
    for (size_t i = 0; (item = json_array_get(list, i)); i++) {
        const json_t *ids = special_ids(processor, json_object_get(item, "SpecialToken"));
        room += ids ? json_array_size(ids) : 1;
    }
    ARENA_NEW(&t->arena, out->slot, room, err);
    for (size_t i = 0; (item = json_array_get(list, i)); i++) {
        TRY(read_item(t, processor, item, out->slot, &out->count, err));
    }
    return SDX_OK;
}

static sdx_status read_template_processing(sdx_tokenizer *t, const json_t *json, sdx_error *err)
{
    TRY(read_template(t, json, "single", &t->single, err));
    return read_template(t, json, "pair", &t->pair, err);
}

/* "cls": ["[CLS]", 101], "sep": ["[SEP]", 102] */
static sdx_status read_bert_processing(sdx_tokenizer *t, const json_t *json, sdx_error *err)
{
    int32_t cls = -1, sep = -1;
    TRY(slot_id(t, json_array_get(json_object_get(json, "cls"), 1), &cls, err));
    TRY(slot_id(t, json_array_get(json_object_get(json, "sep"), 1), &sep, err));
    return sdx_template_bert(t, cls, sep, err);
}

static sdx_status read_post_processor(sdx_tokenizer *t, const json_t *root, sdx_error *err)
{
    static const struct {
        const char *type;
        sdx_status (*read)(sdx_tokenizer *t, const json_t *json, sdx_error *err);
    } kinds[] = {{"TemplateProcessing", read_template_processing}, {"BertProcessing", read_bert_processing}};
    const json_t *json = json_object_get(root, "post_processor");
    if (!json || json_is_null(json)) return SDX_OK;
    const char *type = sdx_json_type(json);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (!strcmp(type, kinds[i].type)) return kinds[i].read(t, json, err);
    }
    return sdx_fail(err, SDX_ERR_UNSUPPORTED, "post_processor \"%.60s\" is not supported", type);
}

/* ---- the file
 * ------------------------------------------------------------------------------------------------ */

static sdx_status read_added_tokens(sdx_tokenizer *t, const json_t *root, sdx_error *err)
{
    const json_t *item, *list = json_object_get(root, "added_tokens");
    for (size_t i = 0; (item = json_array_get(list, i)); i++) {
        sdx_added_token token;
        int64_t id;
        TRY(sdx_json_integer(item, "id", -1, &id, err));
        TRY(sdx_json_added_token(item, id, &token, err));
        TRY(sdx_tokenizer_add(t, token, err));
    }
    return SDX_OK;
}

/* How long texts get is for the caller to say; the file's own limit only stands in for a missing configuration.
 */
static sdx_status read_truncation(sdx_tokenizer *t, const json_t *root, sdx_error *err)
{
    const json_t *json = json_object_get(root, "truncation");
    const char *direction = json_string_value(json_object_get(json, "direction"));
    int64_t length;
    TRY(sdx_json_integer(json, "max_length", 0, &length, err));
    t->model_max_length = length > 0 ? (size_t)length : 0;
    t->truncate_left = direction && !strcmp(direction, "Left");
    return SDX_OK;
}

static sdx_status build(sdx_tokenizer *t, const json_t *root, const sdx_tokenizer_config *config,
                        sdx_error *err)
{
    TRY(read_model(t, root, err));
    TRY(read_added_tokens(t, root, err));
    TRY(read_components(t, root, err));
    TRY(read_post_processor(t, root, err));
    TRY(read_truncation(t, root, err));
    return sdx_tokenizer_config_apply(config, t, err);
}

sdx_status sdx_tokenizer_read_json(sdx_tokenizer *t, const char *path, sdx_error *err)
{
    sdx_tokenizer_config config;
    json_t *root;
    TRY(sdx_json_load(path, 0, &root, err));
    sdx_status status = sdx_tokenizer_config_open(path, &config, err);
    if (status == SDX_OK) {
        status = build(t, root, &config, err);
        sdx_tokenizer_config_close(&config);
        if (status != SDX_OK) sdx_error_context(err, "%s", path);
    }
    json_decref(root);
    return status;
}
