/* json_post.c: the post-processor of a tokenizer.json, which becomes the templates for one text and for two. */
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

/* The same form: "cls": ["<s>", 0], "sep": ["</s>", 2] */
static sdx_status read_roberta_processing(sdx_tokenizer *t, const json_t *json, sdx_error *err)
{
    int32_t cls = -1, sep = -1;
    TRY(slot_id(t, json_array_get(json_object_get(json, "cls"), 1), &cls, err));
    TRY(slot_id(t, json_array_get(json_object_get(json, "sep"), 1), &sep, err));
    return sdx_template_roberta(t, cls, sep, err);
}

/* It only moves offsets, which nobody asks here. */
static sdx_status read_byte_level(sdx_tokenizer *t, const json_t *json, sdx_error *err)
{
    (void)t;
    (void)json;
    (void)err;
    return SDX_OK;
}

static sdx_status read_one(sdx_tokenizer *t, const json_t *json, sdx_error *err)
{
    static const struct {
        const char *type;
        sdx_status (*read)(sdx_tokenizer *t, const json_t *json, sdx_error *err);
    } kinds[] = {{"TemplateProcessing", read_template_processing},
                 {"BertProcessing", read_bert_processing},
                 {"RobertaProcessing", read_roberta_processing},
                 {"ByteLevel", read_byte_level}};
    const char *type = sdx_json_type(json);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(type, kinds[i].type)) continue;
        if (t->single.slot && kinds[i].read != read_byte_level)
            return sdx_fail(err, SDX_ERR_UNSUPPORTED, "two post_processors that add tokens are not supported");
        return kinds[i].read(t, json, err);
    }
    return sdx_fail(err, SDX_ERR_UNSUPPORTED, "post_processor \"%.60s\" is not supported", type);
}

sdx_status sdx_json_read_post_processor(sdx_tokenizer *t, const json_t *root, sdx_error *err)
{
    const json_t *json = json_object_get(root, "post_processor");
    if (!json || json_is_null(json)) return SDX_OK;
    if (strcmp(sdx_json_type(json), "Sequence")) return read_one(t, json, err);
    const json_t *part, *list = json_object_get(json, "processors");
    if (!json_is_array(list))
        return sdx_fail(err, SDX_ERR_FILE, "post_processor: \"processors\" is not a list");
    for (size_t i = 0; (part = json_array_get(list, i)); i++) TRY(read_one(t, part, err));
    return SDX_OK;
}
