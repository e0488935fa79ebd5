/* class.c: see class.h. */
#include "class.h"

#include <stdlib.h>
#include <string.h>

#include "../base/buffer.h"

/* ---- which ---------------------------------------------------------------------------------------------- */

/* "XTokenizer" and "XTokenizerFast" are X. */
static bool is_name(const char *given, const char *name)
{
    size_t n = strlen(name);
    if (strncmp(given, name, n)) return false;
    return !strcmp(given + n, "Tokenizer") || !strcmp(given + n, "TokenizerFast");
}

/* Is it one of the words of `list`? */
static bool is_listed(const char *list, const char *word)
{
    size_t n = strlen(word);
    for (const char *p = list; p && n && (p = strstr(p, word)); p += n) {
        if ((p == list || p[-1] == ' ') && (p[n] == ' ' || !p[n])) return true;
    }
    return false;
}

static const sdx_class *find_by(const char *tokenizer_class, const char *model_type)
{
    for (size_t i = 0; i < sdx_class_count; i++) {
        if (tokenizer_class && is_name(tokenizer_class, sdx_class_rows[i].name)) return &sdx_class_rows[i];
        if (model_type && is_listed(sdx_class_rows[i].model_types, model_type)) return &sdx_class_rows[i];
    }
    return NULL;
}

static const sdx_class *find_named(const char *name)
{
    const sdx_class *row = sdx_class_rows;
    while (strcmp(row->name, name)) row++;
    return row;
}

const sdx_class *sdx_class_find(const sdx_tokenizer_config *c, const char *fallback)
{
    const char *class = json_string_value(json_object_get(c->config, "tokenizer_class"));
    const char *type = json_string_value(json_object_get(c->model, "model_type"));
    if (class && strncmp(class, "PreTrainedTokenizer", 19)) return find_by(class, NULL);
    const sdx_class *found = type ? find_by(NULL, type) : NULL;
    return found ? found : find_named(fallback);
}

sdx_status sdx_class_refuse(const sdx_tokenizer_config *c, sdx_error *err)
{
    sdx_buffer b = {0};
    char *names;
    for (size_t i = 0; i < sdx_class_count; i++)
        sdx_buffer_printf(&b, i ? ", %s" : "%s", sdx_class_rows[i].name);
    TRY(sdx_buffer_take(&b, &names, err));
    sdx_status status = sdx_fail(err, SDX_ERR_UNSUPPORTED,
                                 "%.60s is read from tokenizer.json only; from its older files: %s",
                                 json_string_value(json_object_get(c->config, "tokenizer_class")), names);
    free(names);
    return status;
}

/* ---- templates ---------------------------------------------------------------------------------------- */

/* Layouts in a notation of our own: A and B are the texts, c s e b tokens (cls, sep, eos, bos), l the next of
 * the class's own, a digit the type of what stands before it. */
static const struct {
    const char *single, *pair;
} layouts[] = {[SDX_LAYOUT_BERT] = {"cAs", "cAsB1s1"},
               [SDX_LAYOUT_ROBERTA] = {"cAs", "cAssBs"},
               [SDX_LAYOUT_MARKUPLM] = {"cAs", "cAsBs"},
               [SDX_LAYOUT_CLIP] = {"bAe", "bAeeBe"},
               [SDX_LAYOUT_MPNET] = {"cAs", "cAssB1s1"},
               [SDX_LAYOUT_FUNNEL] = {"c2As", "c2AsB1s1"},
               [SDX_LAYOUT_SPLINTER] = {"cAs", "cAllsB1s1"},
               [SDX_LAYOUT_EOS] = {"Ae", "AeBe"},
               [SDX_LAYOUT_EOS_FIRST_TEXT] = {"Ae", "AB1"},
               [SDX_LAYOUT_SEP_FIRST] = {"sA", "sAssB"},
               [SDX_LAYOUT_BOS] = {"bA", "bAb1B1"},
               [SDX_LAYOUT_EOS_ONCE] = {"Ae", "ABe"},
               [SDX_LAYOUT_LANGUAGE_LAST] = {"Ael", "ABel"},
               [SDX_LAYOUT_LANGUAGE_FIRST] = {"lAe", "lABe"},
               [SDX_LAYOUT_WHISPER] = {"llllAe", "llllAB1e1"},
               [SDX_LAYOUT_XLNET] = {"Asc2", "AsB1s1c2"},
               [SDX_LAYOUT_PLAIN] = {"A", "AB1"}};

/* The tokens that the letters l stand for. */
enum { MOST_OWN = 4 };
typedef struct own_tokens {
    int32_t id[MOST_OWN];
    size_t count;
} own_tokens;

static sdx_status set_layout(sdx_tokenizer *t, sdx_template *out, const char *layout, const own_tokens *own,
                             sdx_error *err)
{
    enum { MOST = 16 };
    sdx_slot slot[MOST];
    size_t n = 0, used = 0;
    for (const char *p = layout; *p && n < MOST; p++) {
        int32_t id = *p == 'c' ? t->cls_id : *p == 's' ? t->sep_id : *p == 'e' ? t->eos_id : t->bos_id;
        if (*p == 'l') id = own->id[used++];
        bool text = *p == 'A' || *p == 'B';
        if (!text && id < 0)
            return sdx_fail(err, SDX_ERR_FILE, "a special token of the template is not in the vocabulary");
        sdx_slot_kind kind = *p == 'A' ? SDX_SLOT_A : *p == 'B' ? SDX_SLOT_B : SDX_SLOT_ID;
        slot[n] = (sdx_slot){.kind = kind, .id = text ? -1 : id};
        if (p[1] >= '0' && p[1] <= '9') slot[n].type_id = *++p - '0';
        n++;
    }
    return sdx_template_set(t, out, slot, n, err);
}

/* Llama and GPT-2 can be told to begin with <s> or not, Llama to end with </s>. */
static sdx_status set_bos_layout(const sdx_tokenizer_config *c, bool by_default, sdx_tokenizer *t,
                                 sdx_error *err)
{
    static const char *const table[2][2][2] = {{{"A", "AB1"}, {"Ae", "AeB1e1"}},
                                               {{"bA", "bAb1B1"}, {"bAe", "bAeb1B1e1"}}};
    bool bos, eos;
    TRY(sdx_json_bool(c->config, "add_bos_token", by_default, &bos, err));
    TRY(sdx_json_bool(c->config, "add_eos_token", false, &eos, err));
    const char *const *layout = table[bos][eos && by_default];
    const char *pair = bos && !by_default ? "bAB1" : layout[1]; /* GPT-2's second text has none */
    TRY(set_layout(t, &t->single, layout[0], NULL, err));
    return set_layout(t, &t->pair, pair, NULL, err);
}

static void own_add(own_tokens *own, const sdx_tokenizer *t, const char *text)
{
    int32_t id = sdx_tokenizer_find(t, text, strlen(text));
    own->id[own->count++] = id;
}

static void find_language(const sdx_class *class, const sdx_tokenizer_config *c, const sdx_tokenizer *t,
                          own_tokens *own)
{
    char name[64];
    const char *given = json_string_value(json_object_get(c->config, "src_lang"));
    bool bare = given && class->pieces == SDX_PIECES_SEAMLESS && !strstr(given, "__"); /* deu for __deu__ */
    snprintf(name, sizeof name, bare ? "__%s__" : "%s", given ? given : class->language);
    own_add(own, t, name);
}

/* What Whisper's transcripts begin with: <|startoftranscript|>, the language, the task, <|notimestamps|>. */
static sdx_status find_whisper_prefix(const sdx_tokenizer_config *c, const sdx_tokenizer *t, own_tokens *own,
                                      sdx_error *err)
{
    static const char *const members[] = {"language", "task"};
    bool timestamps;
    own_add(own, t, "<|startoftranscript|>");
    for (size_t i = 0; i < 2; i++) {
        char token[48];
        const char *value = json_string_value(json_object_get(c->config, members[i]));
        if (!value) continue;
        snprintf(token, sizeof token, "<|%s|>", value);
        own_add(own, t, token);
        if (own->id[own->count - 1] < 0)
            return sdx_fail(err, SDX_ERR_UNSUPPORTED,
                            "tokenizer_config.json: %s \"%.40s\": the vocabulary has no %s (languages go by "
                            "their codes: \"de\")",
                            members[i], value, token);
    }
    TRY(sdx_json_bool(c->config, "predict_timestamps", false, &timestamps, err));
    if (!timestamps) own_add(own, t, "<|notimestamps|>");
    return SDX_OK;
}

static sdx_status find_own_tokens(const sdx_class *class, const sdx_tokenizer_config *c,
                                  sdx_tokenizer *t, own_tokens *own, sdx_error *err)
{
    const char *question = json_string_value(json_object_get(c->config, "question_token"));
    if (class->layout == SDX_LAYOUT_WHISPER) return find_whisper_prefix(c, t, own, err);
    if (class->layout == SDX_LAYOUT_SPLINTER) {
        if (!question) question = "[QUESTION]";
        own_add(own, t, question);
        if (own->id[0] < 0) own->id[0] = t->unk_id; /* as transformers, which adds it only then */
        TRY(sdx_tokenizer_add_special(t, question, err));
        own_add(own, t, ".");
    } else if (class->language) {
        find_language(class, c, t, own);
    }
    return SDX_OK;
}

static sdx_status set_templates(const sdx_class *class, const sdx_tokenizer_config *c, sdx_tokenizer *t,
                                sdx_error *err)
{
    own_tokens own = {.count = 0};
    sdx_layout layout = class->layout;
    if (layout == SDX_LAYOUT_BOS) return set_bos_layout(c, true, t, err);
    if (!strcmp(class->name, "GPT2")) return set_bos_layout(c, false, t, err);
    TRY(find_own_tokens(class, c, t, &own, err));
    if (class->languages) {
        bool last;
        TRY(sdx_json_bool(c->config, "legacy_behaviour", layout == SDX_LAYOUT_LANGUAGE_LAST, &last, err));
        layout = last ? SDX_LAYOUT_LANGUAGE_LAST : layout;
    }
    size_t absent = layout == SDX_LAYOUT_WHISPER ? MOST_OWN - own.count : 0;
    TRY(set_layout(t, &t->single, layouts[layout].single + absent, &own, err));
    return set_layout(t, &t->pair, layouts[layout].pair + absent, &own, err);
}

/* CodeLlama's; a null of the file's says that it has none. */
static sdx_status add_infilling(const sdx_tokenizer_config *c, sdx_tokenizer *t, sdx_error *err)
{
    static const char *const marks[][2] = {{"prefix_token", "\u2581<PRE>"},
                                           {"middle_token", "\u2581<MID>"},
                                           {"suffix_token", "\u2581<SUF>"},
                                           {"eot_token", "\u2581<EOT>"}};
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        const char *text = sdx_tokenizer_config_token(c, marks[i][0]);
        if (!text && json_is_null(json_object_get(c->config, marks[i][0]))) continue;
        TRY(sdx_tokenizer_add_special(t, text ? text : marks[i][1], err));
    }
    return SDX_OK;
}

sdx_status sdx_class_apply(const sdx_class *class, const sdx_tokenizer_config *c, sdx_tokenizer *t,
                           sdx_error *err)
{
    TRY(sdx_tokenizer_config_add_tokens(c, class, t, err));
    for (const char *const *l = class->languages; l && *l; l++) TRY(sdx_tokenizer_add_special(t, *l, err));
    if (class->infills) TRY(add_infilling(c, t, err));
    TRY(sdx_tokenizer_config_apply(c, class->special, t, err));
    return set_templates(class, c, t, err);
}
