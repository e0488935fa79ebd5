/* class_rows.c: the tokenizers that transformers knows, one row each; see class.h. */
#include "class.h"

#include <stddef.h>

#include "languages.h"

#define BERT                                                                                                   \
    {                                                                                                          \
        "[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]", NULL, NULL                                               \
    }
#define BERT_ENDS                                                                                              \
    {                                                                                                          \
        "[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]", "[CLS]", "[SEP]"                                         \
    }
#define ROBERTA                                                                                                \
    {                                                                                                          \
        "<unk>", "</s>", "<pad>", "<s>", "<mask>", "<s>", "</s>"                                               \
    }
#define T5                                                                                                     \
    {                                                                                                          \
        "<unk>", NULL, "<pad>", NULL, NULL, NULL, "</s>"                                                       \
    }
#define GPT2                                                                                                   \
    {                                                                                                          \
        "<|endoftext|>", NULL, NULL, NULL, NULL, "<|endoftext|>", "<|endoftext|>"                              \
    }

const sdx_class sdx_class_rows[] = {
    /* vocab.txt */
    {"Bert", "bert ernie nezha megatron-bert qdqbert visual_bert align blip bros chinese_clip git vilt",
     .special = BERT},
    {"DistilBert", "distilbert", .special = BERT},
    {"Electra", "electra", .special = BERT},
    {"ConvBert", "convbert", .special = BERT},
    {"MobileBert", "mobilebert", .special = BERT},
    {"LayoutLM", "layoutlm", .special = BERT},
    {"LayoutLMv2", "layoutlmv2", .special = BERT},
    {"Lxmert", "lxmert", .special = BERT},
    {"SqueezeBert", "squeezebert", .special = BERT},
    {"RetriBert", "retribert", .special = BERT},
    {"Realm", "realm", .special = BERT},
    {"DPRQuestionEncoder", "dpr", .special = BERT},
    {"DPRContextEncoder", NULL, .special = BERT},
    {"DPRReader", NULL, .special = BERT},
    {"Splinter", "splinter", .layout = SDX_LAYOUT_SPLINTER, .special = BERT},
    {"Funnel", "funnel", .layout = SDX_LAYOUT_FUNNEL,
     .special = {"<unk>", "<sep>", "<pad>", "<cls>", "<mask>", "<s>", "</s>"}},
    {"MPNet", "mpnet", .layout = SDX_LAYOUT_MPNET,
     .special = {"[UNK]", "</s>", "<pad>", "<s>", "<mask>", "<s>", "</s>"}, .mask_lstrip = true},
    /* vocab.json and merges.txt */
    {"Roberta", "roberta roberta-prelayernorm data2vec-text ibert mega mra bridgetower clap",
     .layout = SDX_LAYOUT_ROBERTA, .special = ROBERTA, .mask_lstrip = true},
    {"Bart", "bart", .layout = SDX_LAYOUT_ROBERTA, .special = ROBERTA, .mask_lstrip = true},
    {"Mvp", "mvp", .layout = SDX_LAYOUT_ROBERTA, .special = ROBERTA, .mask_lstrip = true},
    {"Longformer", "longformer", .layout = SDX_LAYOUT_ROBERTA, .special = ROBERTA, .mask_lstrip = true},
    {"LED", "led", .layout = SDX_LAYOUT_ROBERTA, .special = ROBERTA, .mask_lstrip = true},
    {"LayoutLMv3", "layoutlmv3 lilt", .layout = SDX_LAYOUT_ROBERTA, .special = ROBERTA, .mask_lstrip = true,
     .add_space = true},
    {"MarkupLM", "markuplm", .layout = SDX_LAYOUT_MARKUPLM, .special = ROBERTA, .mask_lstrip = true},
    {"Blenderbot", "blenderbot", .layout = SDX_LAYOUT_EOS_FIRST_TEXT, .special = ROBERTA, .mask_lstrip = true},
    {"Deberta", "deberta", .special = BERT_ENDS, .mask_lstrip = true},
    {"GPT2", "gpt2 opt gpt_neo gptj gpt_bigcode starcoder2", .layout = SDX_LAYOUT_PLAIN, .special = GPT2},
    {"CodeGen", "codegen phi", .layout = SDX_LAYOUT_PLAIN, .special = GPT2},
    {"Qwen2", "qwen2 qwen2_moe qwen2_vl qwen2_5_vl qwen2_audio qwen3 qwen3_moe qwen3_next",
     .layout = SDX_LAYOUT_PLAIN, .words = SDX_WORDS_QWEN2,
     .special = {"<|endoftext|>", NULL, "<|endoftext|>", NULL, NULL, NULL, "<|endoftext|>"}},
    {"Whisper", "whisper", .layout = SDX_LAYOUT_WHISPER, .special = GPT2},
    {"CLIP", "clip clipseg groupvit owlvit owlv2 xclip aimv2 oneformer", .layout = SDX_LAYOUT_CLIP,
     .words = SDX_WORDS_CLIP, .normalized = SDX_SPECIAL_ALL,
     .special = {"<|endoftext|>", NULL, "<|endoftext|>", NULL, NULL, "<|startoftext|>", "<|endoftext|>"}},
    {"Herbert", "herbert", .words = SDX_WORDS_HERBERT, .special = ROBERTA},
    {"OpenAIGPT", "openai-gpt", .layout = SDX_LAYOUT_PLAIN, .words = SDX_WORDS_OPENAI, .special = {"<unk>"}},
    /* SentencePiece */
    {"T5", "t5 longt5 umt5 switch_transformers pix2struct musicgen", .layout = SDX_LAYOUT_EOS, .special = T5,
     .pieces = SDX_PIECES_T5, .spacing = true},
    {"MT5", "mt5", .layout = SDX_LAYOUT_EOS, .special = T5, .pieces = SDX_PIECES_T5, .spacing = true},
    {"Udop", "udop", .layout = SDX_LAYOUT_EOS, .spacing = true,
     .special = {"<unk>", "</s>", "<pad>", NULL, NULL, NULL, "</s>"}},
    {"XLMRoberta", "xlm-roberta xlm-roberta-xl xmod kosmos-2", .layout = SDX_LAYOUT_ROBERTA,
     .special = ROBERTA, .mask_lstrip = true, .pieces = SDX_PIECES_FAIRSEQ},
    {"LayoutXLM", "layoutxlm", .layout = SDX_LAYOUT_ROBERTA, .special = ROBERTA, .mask_lstrip = true,
     .pieces = SDX_PIECES_FAIRSEQ},
    {"XGLM", "xglm", .layout = SDX_LAYOUT_SEP_FIRST,
     .special = {"<unk>", "</s>", "<pad>", "<s>", NULL, "<s>", "</s>"}, .pieces = SDX_PIECES_XGLM},
    {"Camembert", "camembert", .layout = SDX_LAYOUT_ROBERTA, .special = ROBERTA, .mask_lstrip = true,
     .pieces = SDX_PIECES_CAMEMBERT},
    {"Barthez", "barthez", .layout = SDX_LAYOUT_ROBERTA, .special = ROBERTA, .mask_lstrip = true,
     .pieces = SDX_PIECES_BARTHEZ},
    {"MBart", "mbart", .layout = SDX_LAYOUT_LANGUAGE_LAST, .special = ROBERTA, .mask_lstrip = true,
     .pieces = SDX_PIECES_FAIRSEQ, .languages = mbart_languages, .language = "en_XX"},
    {"MBart50", "mbart50", .layout = SDX_LAYOUT_LANGUAGE_FIRST,
     .special = {"<unk>", "</s>", "<pad>", "<s>", "<mask>", NULL, "</s>"}, .mask_lstrip = true,
     .normalized = SDX_SPECIAL_MASK, .pieces = SDX_PIECES_FAIRSEQ, .languages = mbart50_languages,
     .language = "en_XX"},
    {"Nllb", "m2m_100 nllb nllb-moe", .layout = SDX_LAYOUT_LANGUAGE_FIRST, .special = ROBERTA,
     .mask_lstrip = true, .normalized = SDX_SPECIAL_MASK, .pieces = SDX_PIECES_NLLB, .languages = nllb_languages,
     .language = "eng_Latn"},
    {"SeamlessM4T", "seamless_m4t seamless_m4t_v2", .layout = SDX_LAYOUT_LANGUAGE_FIRST,
     .special = {"<unk>", "</s>", "<pad>", "<s>", NULL, "<s>", "</s>"}, .pieces = SDX_PIECES_SEAMLESS,
     .language = "__eng__"},
    {"Pegasus", "pegasus pegasus_x bigbird_pegasus", .layout = SDX_LAYOUT_EOS_ONCE,
     .special = {"<unk>", NULL, "<pad>", NULL, "<mask_2>", NULL, "</s>"}, .pieces = SDX_PIECES_PEGASUS},
    {"Marian", "marian", .layout = SDX_LAYOUT_EOS_ONCE, .special = T5},
    {"Reformer", "reformer", .layout = SDX_LAYOUT_PLAIN,
     .special = {"<unk>", NULL, NULL, NULL, NULL, NULL, "</s>"}},
    {"Albert", "albert nystromformer yoso", .mask_lstrip = true, .rules = SDX_RULES_ALBERT, .lowercase = true,
     .special = {"<unk>", "[SEP]", "<pad>", "[CLS]", "[MASK]", "[CLS]", "[SEP]"}, .penalty = true},
    {"FNet", "fnet", .special = {"<unk>", "[SEP]", "<pad>", "[CLS]", "[MASK]", NULL, NULL},
     .mask_lstrip = true, .rules = SDX_RULES_ALBERT, .keep_accents = true, .penalty = true},
    {"RemBert", "rembert", .special = BERT_ENDS, .mask_lstrip = true, .rules = SDX_RULES_REMBERT,
     .normalized = SDX_SPECIAL_MASK, .keep_accents = true},
    {"XLNet", "xlnet", .layout = SDX_LAYOUT_XLNET,
     .special = {"<unk>", "<sep>", "<pad>", "<cls>", "<mask>", "<s>", "</s>"}, .mask_lstrip = true,
     .rules = SDX_RULES_ALBERT, .penalty = true},
    {"DebertaV2", "deberta-v2", .special = BERT_ENDS, .rules = SDX_RULES_DEBERTA,
     .normalized = SDX_SPECIAL_UNKNOWN},
    {"BigBird", "big_bird", .special = {"<unk>", "[SEP]", "<pad>", "[CLS]", "[MASK]", "<s>", "</s>"},
     .mask_lstrip = true, .normalized = SDX_SPECIAL_ALL},
    {"Llama", "llama mistral mixtral", .layout = SDX_LAYOUT_BOS,
     .special = {"<unk>", NULL, NULL, NULL, NULL, "<s>", "</s>"}, .pieces = SDX_PIECES_LLAMA,
     .rules = SDX_RULES_LLAMA, .spacing = true},
    {"CodeLlama", "code_llama", .layout = SDX_LAYOUT_BOS,
     .special = {"<unk>", NULL, NULL, NULL, NULL, "<s>", "</s>"}, .pieces = SDX_PIECES_LLAMA,
     .rules = SDX_RULES_LLAMA, .infills = true},
    {"Gemma", "gemma gemma2 gemma3 gemma3_text t5gemma", .layout = SDX_LAYOUT_BOS,
     .special = {"<unk>", NULL, "<pad>", NULL, NULL, "<bos>", "<eos>"}, .pieces = SDX_PIECES_GEMMA,
     .rules = SDX_RULES_LLAMA},
    /* vocab.json of characters */
    {"Wav2Vec2CTC", "wav2vec2 hubert wav2vec2-conformer wav2vec2-bert data2vec-audio wavlm unispeech sew",
     .layout = SDX_LAYOUT_PLAIN, .special = {"<unk>", NULL, "<pad>", NULL, NULL, "<s>", "</s>"}},
};
const size_t sdx_class_count = sizeof sdx_class_rows / sizeof *sdx_class_rows;
