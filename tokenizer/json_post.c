/* json_post.c: the post-processor of a tokenizer.json, which becomes the templates for one text and for two.
 * What a processor is handed are parts: the texts at first, then what the one before it made of them. Instead
 * of doing that to every text, it is done here once to the texts' places. */
#include <string.h>

#include "json.h"

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

/* ---- parts ----------------------------------------------------------------------------------------------- */

enum { MAX_SLOTS = 512 };

typedef struct parts {
    sdx_slot slot[MAX_SLOTS];
    size_t end[MAX_SLOTS]; /* [count]: of each part in slot */
    size_t count, slots;
} parts;

static size_t part_begin(const parts *p, size_t i)
{
    return i ? p->end[i - 1] : 0;
}

static sdx_status put_slot(parts *p, sdx_slot slot, sdx_error *err)
{
    if (p->slots == MAX_SLOTS)
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "post_processor: makes more than %d items", MAX_SLOTS);
    p->slot[p->slots++] = slot;
    return SDX_OK;
}

static sdx_status put_token(parts *p, int32_t id, int32_t type, sdx_error *err)
{
    return put_slot(p, (sdx_slot){SDX_SLOT_ID, id, type, SDX_SLOT_ID, type}, err);
}

/* Ends a part, which may be empty if it is a list of special tokens. */
static sdx_status end_part(parts *p, sdx_error *err)
{
    if (p->count == MAX_SLOTS)
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "post_processor: makes more than %d parts", MAX_SLOTS);
    p->end[p->count++] = p->slots;
    return SDX_OK;
}

/* Part i of `in`, as it is. */
static sdx_status put_part(parts *out, const parts *in, size_t i, sdx_error *err)
{
    for (size_t k = part_begin(in, i); k < in->end[i]; k++) TRY(put_slot(out, in->slot[k], err));
    return SDX_OK;
}

/* ---- processors ------------------------------------------------------------------------------------------ */

/* Makes out of in; adds the tokens that are to have room to *own. */
typedef sdx_status (*processor_fn)(const sdx_tokenizer *t, const json_t *json, bool pair, const parts *in,
                                   parts *out, size_t *own, sdx_error *err);

/* {"Sequence": {"id": "A", "type_id": 0}}: the first or second part, of that type. */
static sdx_status put_sequence(const json_t *sequence, const parts *in, parts *out, sdx_error *err)
{
    const char *name = json_string_value(json_object_get(sequence, "id"));
    size_t which = name && !strcmp(name, "B"), from = out->slots;
    int32_t type = 0;
    TRY(read_type_id(sequence, &type, err));
    if (!name || (strcmp(name, "A") && strcmp(name, "B")) || which >= in->count)
        return sdx_fail(err, SDX_ERR_FILE, "post_processor: a template names a sequence that is not there");
    TRY(put_part(out, in, which, err));
    for (; from < out->slots; from++) out->slot[from].type_id = type;
    return SDX_OK;
}

/* {"SpecialToken": {"id": "[CLS]", "type_id": 0}} */
static sdx_status put_special(const sdx_tokenizer *t, const json_t *processor, const json_t *special,
                              parts *out, sdx_error *err)
{
    const json_t *id, *ids = special_ids(processor, special);
    int32_t token = -1, type = 0;
    TRY(read_type_id(special, &type, err));
    if (!ids) return sdx_fail(err, SDX_ERR_FILE, "post_processor: a template holds an unknown item");
    for (size_t i = 0; (id = json_array_get(ids, i)); i++) {
        TRY(slot_id(t, id, &token, err));
        TRY(put_token(out, token, type, err));
    }
    return SDX_OK;
}

/* Every item is a part of its own afterwards. */
static sdx_status apply_template(const sdx_tokenizer *t, const json_t *json, bool pair, const parts *in,
                                 parts *out, size_t *own, sdx_error *err)
{
    const char *names[] = {"single", "pair"};
    if (in->count < 1 || in->count > 2) {
        return sdx_fail(err, SDX_ERR_UNSUPPORTED,
                        "post_processor: a template behind one that made %zu parts, not 1 or 2", in->count);
    }
    const json_t *item, *list = json_object_get(json, names[in->count - 1]);
    if (!json_is_array(list))
        return sdx_fail(err, SDX_ERR_FILE, "post_processor: \"%s\" is not a list", names[in->count - 1]);
    for (size_t i = 0; (item = json_array_get(list, i)); i++) {
        const json_t *sequence = json_object_get(item, "Sequence");
        if (sequence)
            TRY(put_sequence(sequence, in, out, err));
        else
            TRY(put_special(t, json, json_object_get(item, "SpecialToken"), out, err));
        TRY(end_part(out, err));
    }
    list = json_object_get(json, names[pair]);
    for (size_t i = 0; (item = json_array_get(list, i)); i++)
        *own += json_array_size(special_ids(json, json_object_get(item, "SpecialToken")));
    return SDX_OK;
}

/* "cls": ["[CLS]", 101], "sep": ["[SEP]", 102]; in RobertaProcessing, too. */
static sdx_status read_cls_sep(const sdx_tokenizer *t, const json_t *json, int32_t *cls, int32_t *sep,
                               sdx_error *err)
{
    TRY(slot_id(t, json_array_get(json_object_get(json, "cls"), 1), cls, err));
    return slot_id(t, json_array_get(json_object_get(json, "sep"), 1), sep, err);
}

/* [CLS] A [SEP], then B [SEP] of type 1. */
static sdx_status apply_bert(const sdx_tokenizer *t, const json_t *json, bool pair, const parts *in, parts *out,
                             size_t *own, sdx_error *err)
{
    int32_t cls = -1, sep = -1;
    TRY(read_cls_sep(t, json, &cls, &sep, err));
    for (size_t i = 0; i < in->count; i++) {
        if (!i) TRY(put_token(out, cls, 0, err));
        TRY(put_part(out, in, i, err));
        TRY(put_token(out, sep, i > 0, err));
        TRY(end_part(out, err));
    }
    *own += pair ? 3 : 2;
    return SDX_OK;
}

/* <s> A </s>, then </s> B </s>, all of type 0. */
static sdx_status apply_roberta(const sdx_tokenizer *t, const json_t *json, bool pair, const parts *in,
                                parts *out, size_t *own, sdx_error *err)
{
    int32_t cls = -1, sep = -1;
    TRY(read_cls_sep(t, json, &cls, &sep, err));
    for (size_t i = 0; i < in->count; i++) {
        TRY(put_token(out, i ? sep : cls, 0, err));
        TRY(put_part(out, in, i, err));
        TRY(put_token(out, sep, 0, err));
        TRY(end_part(out, err));
    }
    for (size_t k = 0; k < out->slots; k++) out->slot[k].type_id = out->slot[k].window_type_id = 0;
    *own += pair ? 4 : 2;
    return SDX_OK;
}

/* It only moves offsets, which nobody asks here. */
static sdx_status apply_byte_level(const sdx_tokenizer *t, const json_t *json, bool pair, const parts *in,
                                   parts *out, size_t *own, sdx_error *err)
{
    (void)t, (void)json, (void)pair, (void)own, (void)err;
    *out = *in;
    return SDX_OK;
}

static sdx_status apply_one(const sdx_tokenizer *t, const json_t *json, bool pair, parts *p, size_t *own,
                            sdx_error *err)
{
    static const struct {
        const char *type;
        processor_fn apply;
    } kinds[] = {{"TemplateProcessing", apply_template},
                 {"BertProcessing", apply_bert},
                 {"RobertaProcessing", apply_roberta},
                 {"ByteLevel", apply_byte_level}};
    const char *type = sdx_json_type(json);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(type, kinds[i].type)) continue;
        parts out = {.count = 0};
        TRY(kinds[i].apply(t, json, pair, p, &out, own, err));
        *p = out;
        return SDX_OK;
    }
    return sdx_fail(err, SDX_ERR_UNSUPPORTED, "post_processor \"%.60s\" is not supported", type);
}

static sdx_status apply(const sdx_tokenizer *t, const json_t *json, bool pair, int depth, parts *p, size_t *own,
                        sdx_error *err)
{
    enum { NESTING = 32 };
    if (strcmp(sdx_json_type(json), "Sequence")) return apply_one(t, json, pair, p, own, err);
    const json_t *part, *list = json_object_get(json, "processors");
    if (!json_is_array(list) || depth == NESTING)
        return sdx_fail(err, SDX_ERR_FILE, "post_processor: \"processors\" is not a list, or nested too deep");
    for (size_t i = 0; (part = json_array_get(list, i)); i++) TRY(apply(t, part, pair, depth + 1, p, own, err));
    return SDX_OK;
}

/* Each slot learns whose windows it is in. */
static void note_texts(parts *p)
{
    for (size_t i = 0; i < p->count; i++) {
        sdx_slot_kind text = SDX_SLOT_ID;
        for (size_t k = part_begin(p, i); k < p->end[i]; k++) {
            if (p->slot[k].kind != SDX_SLOT_ID) text = p->slot[k].kind;
        }
        for (size_t k = part_begin(p, i); k < p->end[i]; k++) p->slot[k].part = text;
    }
}

static sdx_status read_template(sdx_tokenizer *t, const json_t *json, bool pair, sdx_template *out,
                                sdx_error *err)
{
    const sdx_slot text[] = {{SDX_SLOT_A, -1, 0, SDX_SLOT_ID, 0}, {SDX_SLOT_B, -1, 1, SDX_SLOT_ID, 1}};
    parts p = {.count = 0};
    for (size_t i = 0; i <= pair; i++) {
        TRY(put_slot(&p, text[i], err));
        TRY(end_part(&p, err));
    }
    out->own = 0;
    TRY(apply(t, json, pair, 0, &p, &out->own, err));
    note_texts(&p);
    ARENA_NEW(&t->arena, out->slot, p.slots, err);
    memcpy(out->slot, p.slot, p.slots * sizeof *p.slot);
    out->count = p.slots;
    return SDX_OK;
}

sdx_status sdx_json_read_post_processor(sdx_tokenizer *t, const json_t *root, sdx_error *err)
{
    const json_t *json = sdx_json_member(root, "post_processor");
    if (!json) return SDX_OK;
    TRY(read_template(t, json, false, &t->single, err));
    return read_template(t, json, true, &t->pair, err);
}
