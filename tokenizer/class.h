/* class.h: what transformers' code, not any file, says about a tokenizer that has no tokenizer.json: its
 * special tokens, its template, how its vocabulary differs from the file's. One row a class. */
#ifndef SDX_TOKENIZER_CLASS_H
#define SDX_TOKENIZER_CLASS_H

#include "json.h"

typedef enum sdx_layout {
    SDX_LAYOUT_BERT,     /* cls A sep, cls A sep B sep, B of type 1 */
    SDX_LAYOUT_ROBERTA,  /* cls A sep, cls A sep sep B sep, all of type 0 */
    SDX_LAYOUT_MARKUPLM, /* cls A sep, cls A sep B sep, all of type 0 */
    SDX_LAYOUT_MPNET,    /* as RoBERTa, B of type 1 */
    SDX_LAYOUT_CLIP,     /* as RoBERTa with bos and eos */
    SDX_LAYOUT_FUNNEL,   /* as BERT, cls of type 2 */
    SDX_LAYOUT_SPLINTER, /* as BERT, [QUESTION] . before the sep of A in pairs */
    SDX_LAYOUT_EOS,      /* A eos, A eos B eos, all of type 0 */
    SDX_LAYOUT_EOS_FIRST_TEXT, /* A eos, A B, B of type 1 */
    SDX_LAYOUT_SEP_FIRST,      /* sep A, sep A sep sep B */
    SDX_LAYOUT_BOS,      /* bos A, bos A bos B, B of type 1; add_bos_token and add_eos_token may say else */
    SDX_LAYOUT_EOS_ONCE, /* A eos, A B eos */
    SDX_LAYOUT_LANGUAGE_LAST,  /* A eos language, A B eos language */
    SDX_LAYOUT_LANGUAGE_FIRST, /* language A eos, language A B eos; legacy_behaviour: as the one above */
    SDX_LAYOUT_WHISPER,        /* prefix A eos, prefix A B eos, B and eos of type 1 */
    SDX_LAYOUT_XLNET,          /* A sep cls, A sep B sep cls, cls of type 2 */
    SDX_LAYOUT_PLAIN           /* A, A B */
} sdx_layout;

/* How a SentencePiece file's pieces become the vocabulary, and what is done to the text. */
typedef enum sdx_pieces_kind {
    SDX_PIECES_PLAIN,
    SDX_PIECES_FAIRSEQ,   /* <s> <pad> </s> <unk>, the pieces behind the first three, languages, <mask> */
    SDX_PIECES_NLLB,      /* <s> <pad> </s> <unk>, the pieces behind the first three; languages are added */
    SDX_PIECES_PEGASUS,   /* 103 of its own, the pieces behind the first two */
    SDX_PIECES_CAMEMBERT, /* five of its own, the pieces behind the first, <mask> */
    SDX_PIECES_T5,        /* the pieces, then <extra_id_99> to <extra_id_0> */
    SDX_PIECES_XGLM,      /* as fairseq's, then seven made up words */
    SDX_PIECES_SEAMLESS,  /* <pad> <unk> <s> </s>, the pieces behind the first three */
    SDX_PIECES_BARTHEZ,   /* the pieces; the fourth is the unknown one */
    SDX_PIECES_LLAMA,     /* the pieces, of which the first three score 0 */
    SDX_PIECES_GEMMA      /* <pad> <eos> <bos>, the pieces behind the first three */
} sdx_pieces_kind;

/* How text becomes the words of byte-pair encoding. */
typedef enum sdx_words {
    SDX_WORDS_GPT2,    /* GPT-2's pattern, bytes */
    SDX_WORDS_QWEN2,   /* NFC, a pattern, bytes */
    SDX_WORDS_CLIP,    /* NFC, spaces, case, a pattern, bytes; </w> ends words */
    SDX_WORDS_HERBERT, /* BERT's words; </w> ends them */
    SDX_WORDS_OPENAI   /* the same in lower case */
} sdx_words;

typedef enum sdx_text_rules {
    SDX_RULES_SPM,     /* charsmap, no space at the end, two spaces or more are U+2581 */
    SDX_RULES_ALBERT,  /* quotes, accents, case, charsmap, spaces */
    SDX_RULES_REMBERT, /* quotes, spaces, accents, case, charsmap */
    SDX_RULES_DEBERTA, /* case, strip, charsmap, spaces */
    SDX_RULES_LLAMA
} sdx_text_rules;

enum { SDX_SPECIALS = 7 }; /* unk, sep, pad, cls, mask, bos, eos */
enum { SDX_SPECIAL_UNKNOWN = 1 << 0, SDX_SPECIAL_MASK = 1 << 4, SDX_SPECIAL_ALL = (1 << SDX_SPECIALS) - 1 };

typedef struct sdx_class {
    const char *name;        /* tokenizer_class without "Tokenizer" */
    const char *model_types; /* of config.json, with spaces between; or NULL */
    sdx_layout layout;
    const char *special[SDX_SPECIALS];                     /* when no file says; NULL: none */
    bool mask_lstrip;    /* where no file describes these tokens: spaces before the mask belong to it; ... */
    unsigned normalized; /* ... those that are found in the normalized text, SDX_SPECIAL_... */
    sdx_words words; /* vocab.json and merges.txt */
    bool add_space;  /* add_prefix_space when no file says */
    sdx_pieces_kind pieces;
    sdx_text_rules rules;
    bool spacing; /* "legacy" and "add_prefix_space" count */
    bool lowercase, keep_accents; /* do_lower_case and keep_accents when no file says */
    const char *const *languages; /* that the class adds, or NULL */
    const char *language;         /* of the text, where "src_lang" does not say; NULL: none is marked */
    bool penalty; /* a piece such as "5," is made unattractive */
    bool infills; /* has the tokens that mark a gap to fill; texts are not cut at <FILL_ME> here */
} sdx_class;

extern const sdx_class sdx_class_rows[];
extern const size_t sdx_class_count;

/* The class that the configuration names, else the one called `fallback`. NULL: named, but not known here. */
const sdx_class *sdx_class_find(const sdx_tokenizer_config *c, const char *fallback);
/* Where that is NULL: says which classes are known. */
sdx_status sdx_class_refuse(const sdx_tokenizer_config *c, sdx_error *err);
/* Registers the special tokens and the listed ones, sets the ids in t, and the templates. */
sdx_status sdx_class_apply(const sdx_class *class, const sdx_tokenizer_config *c, sdx_tokenizer *t,
                           sdx_error *err);

#endif
