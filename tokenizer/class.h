/* class.h: what transformers' code, not any file, says about a tokenizer that has no tokenizer.json: its
 * special tokens, its template, how its vocabulary differs from the file's. One row a class. */
#ifndef SDX_TOKENIZER_CLASS_H
#define SDX_TOKENIZER_CLASS_H

#include "json.h"

typedef enum sdx_layout {
    SDX_LAYOUT_BERT,     /* cls A sep, cls A sep B sep, B of type 1 */
    SDX_LAYOUT_ROBERTA,  /* cls A sep, cls A sep sep B sep, all of type 0 */
    SDX_LAYOUT_MPNET,    /* the same, B of type 1 */
    SDX_LAYOUT_FUNNEL,   /* as BERT, cls of type 2 */
    SDX_LAYOUT_EOS,      /* A eos, A eos B eos, all of type 0 */
    SDX_LAYOUT_BOS,      /* bos A, bos A bos B, B of type 1; add_bos_token and add_eos_token may say else */
    SDX_LAYOUT_EOS_ONCE, /* A eos, A B eos */
    SDX_LAYOUT_LANGUAGE_LAST,  /* A eos language, A B eos language */
    SDX_LAYOUT_LANGUAGE_FIRST, /* language A eos, language A B eos; legacy_behaviour: as the one above */
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
    SDX_PIECES_LLAMA
} sdx_pieces_kind;

typedef enum sdx_text_rules {
    SDX_RULES_SPM,     /* charsmap, no space at the end, two spaces or more are U+2581 */
    SDX_RULES_ALBERT,  /* quotes, accents, case, charsmap, spaces */
    SDX_RULES_REMBERT, /* quotes, spaces, accents, case, charsmap */
    SDX_RULES_DEBERTA, /* case, strip, charsmap, spaces */
    SDX_RULES_LLAMA
} sdx_text_rules;

enum { SDX_SPECIALS = 7 }; /* unk, sep, pad, cls, mask, bos, eos */

typedef struct sdx_class {
    const char *name, *model_type; /* tokenizer_class without "Tokenizer"; config.json's model_type or NULL */
    sdx_layout layout;
    const char *special[SDX_SPECIALS];                     /* when no file says; NULL: none */
    bool mask_lstrip, mask_normalized, unknown_normalized; /* where no file describes these tokens */
    sdx_pieces_kind pieces;
    sdx_text_rules rules;
    bool lowercase, keep_accents; /* do_lower_case and keep_accents when no file says */
    const char *const *languages; /* or NULL; the source language is "src_lang", else language */
    const char *language;
    bool penalty; /* a piece such as "5," is made unattractive */
} sdx_class;

/* The class that the configuration names, else the one called `fallback`. NULL: named, but not known here. */
const sdx_class *sdx_class_find(const sdx_tokenizer_config *c, const char *fallback);
/* Where that is NULL: says which classes are known. */
sdx_status sdx_class_refuse(const sdx_tokenizer_config *c, sdx_error *err);
/* Registers the special tokens and the listed ones, sets the ids in t, and the templates. */
sdx_status sdx_class_apply(const sdx_class *class, const sdx_tokenizer_config *c, sdx_tokenizer *t,
                           sdx_error *err);

#endif
