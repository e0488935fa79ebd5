/* class.c: see class.h. */
#include "class.h"

#include <stdlib.h>
#include <string.h>

#include "../base/buffer.h"
#include "languages.h"

#define BERT                                                                                                   \
    {                                                                                                          \
        "[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]", NULL, NULL                                               \
    }
#define ROBERTA                                                                                                \
    {                                                                                                          \
        "<unk>", "</s>", "<pad>", "<s>", "<mask>", "<s>", "</s>"                                               \
    }

#define BERT_CLASS(given, type)                                                                                \
    {                                                                                                          \
        .name = given, .model_type = type, .special = BERT                                                     \
    }

static const sdx_class classes[] = {
    /* vocab.txt */
    BERT_CLASS("Bert", "bert"),
    BERT_CLASS("DistilBert", "distilbert"),
    BERT_CLASS("Electra", "electra"),
    BERT_CLASS("ConvBert", "convbert"),
    BERT_CLASS("MobileBert", "mobilebert"),
    BERT_CLASS("LayoutLM", "layoutlm"),
    BERT_CLASS("Lxmert", "lxmert"),
    BERT_CLASS("SqueezeBert", "squeezebert"),
    BERT_CLASS("Retribert", "retribert"),
    BERT_CLASS("Realm", "realm"),
    BERT_CLASS("DPRQuestionEncoder", "dpr"),
    BERT_CLASS("DPRContextEncoder", NULL),
    BERT_CLASS("DPRReader", NULL),
    {"Funnel", "funnel", .layout = SDX_LAYOUT_FUNNEL,
     .special = {"<unk>", "<sep>", "<pad>", "<cls>", "<mask>", "<s>", "</s>"}},
    {"MPNet", "mpnet", .layout = SDX_LAYOUT_MPNET,
     .special = {"[UNK]", "</s>", "<pad>", "<s>", "<mask>", "<s>", "</s>"}, .mask_lstrip = true,
     .mask_normalized = true},
    /* vocab.json and merges.txt */
    {"Roberta", "roberta", .layout = SDX_LAYOUT_ROBERTA, .special = ROBERTA, .mask_lstrip = true},
    {"Bart", "bart", .layout = SDX_LAYOUT_ROBERTA, .special = ROBERTA, .mask_lstrip = true},
    {"Longformer", "longformer", .layout = SDX_LAYOUT_ROBERTA, .special = ROBERTA, .mask_lstrip = true},
    {"LED", "led", .layout = SDX_LAYOUT_ROBERTA, .special = ROBERTA, .mask_lstrip = true},
    {"Deberta", "deberta", .layout = SDX_LAYOUT_BERT,
     .special = {"[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]", "[CLS]", "[SEP]"}, .mask_lstrip = true},
    {"GPT2", "gpt2", .layout = SDX_LAYOUT_PLAIN,
     .special = {"<|endoftext|>", NULL, NULL, NULL, NULL, "<|endoftext|>", "<|endoftext|>"}},
    {"CodeGen", "codegen", .layout = SDX_LAYOUT_PLAIN,
     .special = {"<|endoftext|>", NULL, NULL, NULL, NULL, "<|endoftext|>", "<|endoftext|>"}},
    /* SentencePiece */
    {"T5", "t5", .layout = SDX_LAYOUT_EOS, .special = {"<unk>", NULL, "<pad>", NULL, NULL, NULL, "</s>"},
     .pieces = SDX_PIECES_T5},
    {"MT5", "mt5", .layout = SDX_LAYOUT_EOS, .special = {"<unk>", NULL, "<pad>", NULL, NULL, NULL, "</s>"},
     .pieces = SDX_PIECES_T5},
    {"XLMRoberta", "xlm-roberta", .layout = SDX_LAYOUT_ROBERTA, .special = ROBERTA, .mask_lstrip = true,
     .pieces = SDX_PIECES_FAIRSEQ},
    {"Camembert", "camembert", .layout = SDX_LAYOUT_ROBERTA, .special = ROBERTA, .mask_lstrip = true,
     .pieces = SDX_PIECES_CAMEMBERT},
    {"MBart", "mbart", .layout = SDX_LAYOUT_LANGUAGE_LAST, .special = ROBERTA, .mask_lstrip = true,
     .pieces = SDX_PIECES_FAIRSEQ, .languages = mbart_languages, .language = "en_XX"},
    {"MBart50", NULL, .layout = SDX_LAYOUT_LANGUAGE_FIRST,
     .special = {"<unk>", "</s>", "<pad>", "<s>", "<mask>", NULL, "</s>"}, .mask_lstrip = true,
     .pieces = SDX_PIECES_FAIRSEQ, .languages = mbart50_languages, .language = "en_XX"},
    {"Nllb", "m2m_100", .layout = SDX_LAYOUT_LANGUAGE_FIRST, .special = ROBERTA, .mask_lstrip = true,
     .mask_normalized = true, .pieces = SDX_PIECES_NLLB, .languages = nllb_languages, .language = "eng_Latn"},
    {"Pegasus", "pegasus", .layout = SDX_LAYOUT_EOS_ONCE,
     .special = {"<unk>", NULL, "<pad>", NULL, "<mask_2>", NULL, "</s>"}, .pieces = SDX_PIECES_PEGASUS},
    {"Marian", "marian", .layout = SDX_LAYOUT_EOS_ONCE,
     .special = {"<unk>", NULL, "<pad>", NULL, NULL, NULL, "</s>"}},
    {"Albert", "albert", .layout = SDX_LAYOUT_BERT,
     .special = {"<unk>", "[SEP]", "<pad>", "[CLS]", "[MASK]", "[CLS]", "[SEP]"}, .mask_lstrip = true,
     .rules = SDX_RULES_ALBERT, .lowercase = true, .penalty = true},
    {"FNet", "fnet", .layout = SDX_LAYOUT_BERT,
     .special = {"<unk>", "[SEP]", "<pad>", "[CLS]", "[MASK]", NULL, NULL}, .mask_lstrip = true,
     .rules = SDX_RULES_ALBERT, .keep_accents = true, .penalty = true},
    {"RemBert", "rembert", .layout = SDX_LAYOUT_BERT,
     .special = {"[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]", "[CLS]", "[SEP]"}, .mask_lstrip = true,
     .rules = SDX_RULES_REMBERT, .keep_accents = true},
    {"XLNet", "xlnet", .layout = SDX_LAYOUT_XLNET,
     .special = {"<unk>", "<sep>", "<pad>", "<cls>", "<mask>", "<s>", "</s>"}, .mask_lstrip = true,
     .rules = SDX_RULES_ALBERT, .penalty = true},
    {"DebertaV2", "deberta-v2", .layout = SDX_LAYOUT_BERT,
     .special = {"[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]", "[CLS]", "[SEP]"}, .rules = SDX_RULES_DEBERTA,
     .unknown_normalized = true},
    {"BigBird", "big_bird", .layout = SDX_LAYOUT_BERT,
     .special = {"<unk>", "[SEP]", "<pad>", "[CLS]", "[MASK]", "<s>", "</s>"}, .unknown_normalized = true,
     .mask_lstrip = true, .mask_normalized = true},
    {"Llama", "llama", .layout = SDX_LAYOUT_BOS, .special = {"<unk>", NULL, NULL, NULL, NULL, "<s>", "</s>"},
     .pieces = SDX_PIECES_LLAMA, .rules = SDX_RULES_LLAMA},
    /* vocab.json of characters */
    {"Wav2Vec2CTC", "wav2vec2", .layout = SDX_LAYOUT_PLAIN,
     .special = {"<unk>", NULL, "<pad>", NULL, NULL, "<s>", "</s>"}},
    {"Wav2Vec2CTC", "hubert", .layout = SDX_LAYOUT_PLAIN,
     .special = {"<unk>", NULL, "<pad>", NULL, NULL, "<s>", "</s>"}},
};

/* ---- which ---------------------------------------------------------------------------------------------- */

/* "XTokenizer" and "XTokenizerFast" are X. */
static bool is_name(const char *given, const char *name)
{
    size_t n = strlen(name);
    if (strncmp(given, name, n)) return false;
    return !strcmp(given + n, "Tokenizer") || !strcmp(given + n, "TokenizerFast");
}

static const sdx_class *find_by(const char *tokenizer_class, const char *model_type)
{
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++) {
        if (tokenizer_class && is_name(tokenizer_class, classes[i].name)) return &classes[i];
        if (model_type && classes[i].model_type && !strcmp(model_type, classes[i].model_type))
            return &classes[i];
    }
    return NULL;
}

static const sdx_class *find_named(const char *name)
{
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++) {
        if (!strcmp(classes[i].name, name)) return &classes[i];
    }
    return NULL;
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
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++) {
        bool again = i && !strcmp(classes[i].name, classes[i - 1].name);
        if (!again) sdx_buffer_printf(&b, i ? ", %s" : "%s", classes[i].name);
    }
    TRY(sdx_buffer_take(&b, &names, err));
    sdx_status status = sdx_fail(err, SDX_ERR_UNSUPPORTED,
                                 "%.60s is read from tokenizer.json only; from its older files: %s",
                                 json_string_value(json_object_get(c->config, "tokenizer_class")), names);
    free(names);
    return status;
}

/* ---- templates --------------------------------------------------------------------------------------------
 */

/* Layouts in a notation of our own: A and B are the texts, c s e b l tokens (cls, sep, eos, bos, language), a
 * digit the type of what stands before it. */
static const struct {
    const char *single, *pair;
} layouts[] = {[SDX_LAYOUT_BERT] = {"cAs", "cAsB1s1"},
               [SDX_LAYOUT_ROBERTA] = {"cAs", "cAssBs"},
               [SDX_LAYOUT_MPNET] = {"cAs", "cAssB1s1"},
               [SDX_LAYOUT_FUNNEL] = {"c2As", "c2AsB1s1"},
               [SDX_LAYOUT_EOS] = {"Ae", "AeBe"},
               [SDX_LAYOUT_BOS] = {"bA", "bAb1B1"},
               [SDX_LAYOUT_EOS_ONCE] = {"Ae", "ABe"},
               [SDX_LAYOUT_LANGUAGE_LAST] = {"Ael", "ABel"},
               [SDX_LAYOUT_LANGUAGE_FIRST] = {"lAe", "lABe"},
               [SDX_LAYOUT_XLNET] = {"Asc2", "AsB1s1c2"},
               [SDX_LAYOUT_PLAIN] = {"A", "AB1"}};

static sdx_status set_layout(sdx_tokenizer *t, sdx_template *out, const char *layout, int32_t language,
                             sdx_error *err)
{
    enum { MOST = 16 };
    sdx_slot slot[MOST];
    size_t n = 0;
    for (const char *p = layout; *p && n < MOST; p++) {
        int32_t id = *p == 'c' ? t->cls_id : *p == 's' ? t->sep_id : *p == 'e' ? t->eos_id : t->bos_id;
        if (*p == 'l') id = language;
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
    TRY(set_layout(t, &t->single, layout[0], -1, err));
    return set_layout(t, &t->pair, pair, -1, err);
}

static sdx_status set_templates(const sdx_class *class, const sdx_tokenizer_config *c, sdx_tokenizer *t,
                                sdx_error *err)
{
    int32_t language = -1;
    if (class->layout == SDX_LAYOUT_BOS) return set_bos_layout(c, true, t, err);
    if (!strcmp(class->name, "GPT2")) return set_bos_layout(c, false, t, err);
    sdx_layout layout = class->layout;
    if (class->languages) {
        bool last;
        const char *name = json_string_value(json_object_get(c->config, "src_lang"));
        if (!name) name = class->language;
        language = sdx_tokenizer_find(t, name, strlen(name));
        TRY(sdx_json_bool(c->config, "legacy_behaviour", layout == SDX_LAYOUT_LANGUAGE_LAST, &last, err));
        layout = last ? SDX_LAYOUT_LANGUAGE_LAST : layout;
    }
    TRY(set_layout(t, &t->single, layouts[layout].single, language, err));
    return set_layout(t, &t->pair, layouts[layout].pair, language, err);
}

sdx_status sdx_class_apply(const sdx_class *class, const sdx_tokenizer_config *c, sdx_tokenizer *t,
                           sdx_error *err)
{
    TRY(sdx_tokenizer_config_add_tokens(c, class, t, err));
    for (const char *const *l = class->languages; l && *l; l++) TRY(sdx_tokenizer_add_special(t, *l, err));
    TRY(sdx_tokenizer_config_apply(c, class->special, t, err));
    return set_templates(class, c, t, err);
}
