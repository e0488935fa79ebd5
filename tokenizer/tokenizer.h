/* tokenizer.h: what a tokenizer is made of. The parts and their names are those of Hugging Face's
 * tokenizer.json, whose meaning is followed exactly:
 *
 *   text -> added tokens cut out -> normalizers -> (added tokens again) -> pre-tokenizers -> model ->
 * truncation
 *        -> template          and back:  ids -> tokens -> decoders -> clean-up
 *
 * Normalizers, pre-tokenizers and decoders are steps: functions that read one state of the text and write the
 * next. A kind of step is one function and one row in the table of tokenizer_json.c. */
#ifndef SDX_TOKENIZER_TOKENIZER_H
#define SDX_TOKENIZER_TOKENIZER_H

#include "../base/arena.h"
#include "../base/status.h"
#include "trie.h"
#include "unicode.h"

/* ---- the working state of one call ---------------------------------------------------------------- */

/* Bytes [begin, end) of the text; id >= 0 when it is a token already. */
typedef struct sdx_piece {
    uint32_t begin, end;
    int32_t id;
} sdx_piece;

typedef struct sdx_pieces {
    char *text; /* valid UTF-8; owned */
    size_t size, text_room;
    sdx_piece *piece; /* owned */
    size_t count, piece_room;
} sdx_pieces;

typedef struct sdx_scratch {
    sdx_pieces now, next; /* a step reads `now` and writes `next`, then they change places */
    int32_t *ids;         /* what the model found so far; owned */
    size_t id_count, id_room;
    uint32_t *points, *spare; /* [point_room] each, one allocation; owned */
    size_t point_room;
    void *work; /* [work_room] bytes, what a model needs for one piece; owned */
    size_t work_room;
    struct sdx_regex_match *match; /* made by the first regular expression; owned */
    bool at_start;                 /* now begins with the first character of the whole text, kept or changed */
} sdx_scratch;

void sdx_scratch_fini(sdx_scratch *s);
/* Room for `more` bytes, pieces, ids beyond those there are, or for `count` code points. */
sdx_status sdx_text_reserve(sdx_pieces *p, size_t more, sdx_error *err);
sdx_status sdx_piece_reserve(sdx_pieces *p, size_t more, sdx_error *err);
sdx_status sdx_id_reserve(sdx_scratch *s, size_t more, sdx_error *err);
sdx_status sdx_point_reserve(sdx_scratch *s, size_t count, sdx_error *err);
/* At least so many bytes at s->work; what was there is lost. */
sdx_status sdx_work_reserve(sdx_scratch *s, size_t bytes, sdx_error *err);
/* Appends bytes to the text of p. */
sdx_status sdx_text_append(sdx_pieces *p, const char *bytes, size_t n, sdx_error *err);
/* The same, U+FFFD standing for what is not UTF-8. */
sdx_status sdx_text_repair(const char *bytes, size_t n, sdx_pieces *out, sdx_error *err);
/* Before the pieces are copied to a text of their own: have the first characters been dropped? */
void sdx_scratch_note_start(sdx_scratch *s);
/* next becomes now: its text (and pieces), or only its pieces, over the same text. */
void sdx_scratch_swap(sdx_scratch *s);
void sdx_scratch_swap_pieces(sdx_scratch *s);

static inline sdx_status sdx_piece_add(sdx_pieces *p, size_t begin, size_t end, int32_t id, sdx_error *err)
{
    if (p->count == p->piece_room) TRY(sdx_piece_reserve(p, 1, err));
    p->piece[p->count++] = (sdx_piece){(uint32_t)begin, (uint32_t)end, id};
    return SDX_OK;
}

static inline sdx_status sdx_id_add(sdx_scratch *s, int32_t id, sdx_error *err)
{
    if (s->id_count == s->id_room) TRY(sdx_id_reserve(s, 1, err));
    s->ids[s->id_count++] = id;
    return SDX_OK;
}

/* ---- steps ------------------------------------------------------------------------------------------ */

typedef struct sdx_step sdx_step;
typedef sdx_status (*sdx_step_fn)(const sdx_step *step, sdx_scratch *s, sdx_error *err);

/* What becomes of the matches of a splitting pattern, by tokenizers' names. */
typedef enum sdx_behavior {
    SDX_SPLIT_REMOVED,
    SDX_SPLIT_ISOLATED,
    SDX_SPLIT_WITH_PREVIOUS,
    SDX_SPLIT_WITH_NEXT,
    SDX_SPLIT_CONTIGUOUS
} sdx_behavior;

typedef enum sdx_prepend { SDX_PREPEND_ALWAYS, SDX_PREPEND_FIRST, SDX_PREPEND_NEVER } sdx_prepend;

/* The options of all kinds side by side: each kind uses its own few. */
struct sdx_step {
    sdx_step_fn run;
    void (*prepare)(sdx_step *step);    /* fills the table, once the options are read; NULL: has none */
    unsigned char ascii[128];           /* what becomes of each ASCII byte, or its class */
    sdx_string pattern, content;        /* what is looked for, and what stands there afterwards */
    const struct sdx_regex *regex;      /* instead of pattern, or NULL; Replace: neither is / {2,}/ */
    const struct sdx_charsmap *charmap; /* Precompiled, Marian */
    const sdx_trie *known;              /* Marian: language codes; decoder: pieces */
    const sdx_trie *own;                /* Marian: pieces that normalization leaves as they are */
    int32_t unknown_id;                 /* Marian: of other language codes */
    uint32_t character;                 /* Metaspace, CharDelimiterSplit, Strip decoder */
    size_t start, stop;                 /* Strip decoder: characters at most; FixedLength: start */
    sdx_behavior behavior;
    sdx_prepend prepend;
    bool invert;                                    /* Split */
    bool add_space, words;                          /* ByteLevel: add_prefix_space, use_regex */
    bool split;                                     /* Metaspace */
    bool each;                                      /* Digits: one by one */
    bool clean_text, han, strip_accents, lowercase; /* BertNormalizer */
    bool compose, compatibility;                    /* NFC, NFD, NFKC, NFKD */
    bool left, right;                               /* Strip */
    bool cleanup;                                   /* WordPiece and CTC decoders */
};

typedef struct sdx_steps {
    sdx_step *step; /* [count]; in the arena */
    size_t count;
} sdx_steps;

/* A kind of step is a function of this name; where it has a table, sdx_X_prepare fills it. */
#define SDX_STEP(name) sdx_status name(const sdx_step *step, sdx_scratch *s, sdx_error *err)

/* Normalizers: the whole of now.text, no pieces. */
SDX_STEP(sdx_normalize_bert);
SDX_STEP(sdx_normalize_form);
SDX_STEP(sdx_normalize_lowercase);
SDX_STEP(sdx_normalize_uppercase);
SDX_STEP(sdx_normalize_strip_accents);
SDX_STEP(sdx_normalize_strip);
SDX_STEP(sdx_normalize_replace);
SDX_STEP(sdx_normalize_prepend);
SDX_STEP(sdx_normalize_nmt);
SDX_STEP(sdx_normalize_bytes); /* ByteLevel */
SDX_STEP(sdx_normalize_precompiled);
void sdx_normalize_bert_prepare(sdx_step *step);
void sdx_normalize_precompiled_prepare(sdx_step *step);
/* Parses a precompiled charsmap (spm_precompiled's format). */
sdx_status sdx_charsmap_read(sdx_tokenizer *t, const unsigned char *bytes, size_t size,
                             const struct sdx_charsmap **out, sdx_error *err);
/* The bytes of the longest prefix of text[n] that is replaced, as SentencePiece itself reads the map; 0: none. */
size_t sdx_charsmap_longest(const struct sdx_charsmap *map, const char *text, size_t n, sdx_string *to);

/* Pre-tokenizers: each piece without an id is cut further. */
SDX_STEP(sdx_split_bert);
SDX_STEP(sdx_split_words);  /* Whitespace */
SDX_STEP(sdx_split_spaces); /* WhitespaceSplit */
SDX_STEP(sdx_split_bytes);  /* ByteLevel */
SDX_STEP(sdx_split_gpt2);   /* Split, isolated, by GPT-2's pattern */
SDX_STEP(sdx_split_metaspace);
SDX_STEP(sdx_split_pattern); /* Split */
SDX_STEP(sdx_split_punctuation);
SDX_STEP(sdx_split_digits);
SDX_STEP(sdx_split_delimiter);
SDX_STEP(sdx_split_fixed);
SDX_STEP(sdx_split_scripts); /* UnicodeScripts */
SDX_STEP(sdx_split_marian);
void sdx_split_bert_prepare(sdx_step *step);
void sdx_split_words_prepare(sdx_step *step);
void sdx_split_spaces_prepare(sdx_step *step);
/* Runs `cut` on every piece that is text still; it appends to next. A helper of the steps above. */
typedef sdx_status (*sdx_piece_fn)(const sdx_step *step, sdx_piece piece, sdx_scratch *s, sdx_error *err);
sdx_status sdx_each_piece(const sdx_step *step, sdx_piece_fn cut, sdx_scratch *s, sdx_error *err);
/* The end of the match of GPT-2's pattern at p < end. */
const unsigned char *sdx_gpt2_word(const unsigned char *p, const unsigned char *end);
#define SDX_GPT2_PATTERN "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

/* Decoders: pieces are tokens, whose texts are put together at the end; the special ones have their ids. */
SDX_STEP(sdx_decode_wordpiece);
SDX_STEP(sdx_decode_bytes);
SDX_STEP(sdx_decode_metaspace);
SDX_STEP(sdx_decode_bpe);
SDX_STEP(sdx_decode_replace);
SDX_STEP(sdx_decode_byte_fallback);
SDX_STEP(sdx_decode_fuse);
SDX_STEP(sdx_decode_strip);
SDX_STEP(sdx_decode_ctc);
SDX_STEP(sdx_decode_marian);
/* transformers' clean_up_tokenization, in place; returns the new size. */
size_t sdx_clean_up_spaces(char *text, size_t size);

/* ---- vocabulary and model ---------------------------------------------------------------------------- */

typedef struct sdx_token {
    sdx_string text; /* NUL-terminated; data NULL: no token has this id */
    bool special;
} sdx_token;

typedef struct sdx_vocab {
    sdx_token *token; /* [size], by id; owned */
    size_t size;
    sdx_trie trie; /* of the model's tokens, not of those only added */
    /* While it is read: what sdx_vocab_put was given. Two tokens may share an id. */
    sdx_string *key; /* [key_count]; owned */
    int32_t *value;  /* likewise */
    size_t key_count, key_room;
} sdx_vocab;

typedef struct sdx_model_step sdx_model_step;

/* The model turns each piece of now into ids. */
struct sdx_model_step {
    sdx_status (*run)(const sdx_model_step *model, const sdx_vocab *vocab, sdx_scratch *s, sdx_error *err);
    sdx_string unknown; /* the token that stands for what the vocabulary cannot spell */
    int32_t unknown_id; /* -1: not in the vocabulary */
    bool byte_fallback; /* BPE, Unigram: bytes of the unknown as <0x00> and so on, if all are there */
    int32_t byte_id[256];
    /* WordPiece */
    uint32_t suffix_root; /* where a word's later tokens start in the trie; SDX_TRIE_NONE: nowhere */
    size_t max_chars;     /* longer words are unknown */
    /* BPE */
    bool fuse_unknown, ignore_merges, has_unknown;
    sdx_string prefix, suffix; /* of a word's later characters, of its last */
    struct sdx_merges *merges; /* in the arena */
    /* Unigram */
    const double *score; /* [vocab->size], by id; in the arena */
    double unknown_score;
    bool single;                    /* sums are kept as floats, as SentencePiece's own code does */
    const sdx_trie *pieces, *words; /* Marian: of source.spm, of vocab.json; NULL: both are the vocabulary's */
    int32_t no_token;               /* Marian: ids from here on are pieces that vocab.json does not hold */
};

sdx_status sdx_wordpiece_run(const sdx_model_step *model, const sdx_vocab *vocab, sdx_scratch *s,
                             sdx_error *err);
sdx_status sdx_bpe_run(const sdx_model_step *model, const sdx_vocab *vocab, sdx_scratch *s, sdx_error *err);
sdx_status sdx_unigram_run(const sdx_model_step *model, const sdx_vocab *vocab, sdx_scratch *s, sdx_error *err);
sdx_status sdx_word_level_run(const sdx_model_step *model, const sdx_vocab *vocab, sdx_scratch *s,
                              sdx_error *err);
/* Once the vocabulary is there. */
void sdx_wordpiece_init(sdx_model_step *model, const sdx_vocab *vocab, sdx_string prefix, size_t max_chars);
/* Merges in the order they were learned, as texts that someone else keeps. */
typedef struct sdx_merge_list {
    sdx_string *pair; /* [2 * count]; owned */
    size_t count, room;
} sdx_merge_list;

sdx_status sdx_merge_list_add(sdx_merge_list *list, sdx_string left, sdx_string right, sdx_error *err);
void sdx_merge_list_fini(sdx_merge_list *list);
sdx_status sdx_split_merge(sdx_string both, sdx_string *left, sdx_string *right,
                           sdx_error *err); /* at a space */
/* BPE, the model's options being set. */
sdx_status sdx_bpe_build(sdx_tokenizer *t, const sdx_merge_list *list, sdx_error *err);
/* score: [vocab.size] by id. unknown_id as in the file, or -1. */
sdx_status sdx_unigram_init(sdx_tokenizer *t, const double *score, int32_t unknown_id, bool byte_fallback,
                            sdx_error *err);
/* The ids of <0x00> to <0xFF>, -1 where one is missing. */
void sdx_find_byte_tokens(sdx_model_step *model, const sdx_vocab *vocab);

/* ---- added tokens ------------------------------------------------------------------------------------ */

typedef struct sdx_added_token {
    sdx_string text;
    int32_t id;
    bool single_word, lstrip, rstrip, normalized, special;
} sdx_added_token;

/* One trie for those found in the raw text, one for those found after normalization. */
typedef struct sdx_added_set {
    sdx_trie trie;   /* values: indices into the tokenizer's added tokens; size 0: none */
    bool first[256]; /* bytes that some token begins with */
} sdx_added_set;

typedef struct sdx_added_match {
    size_t begin, end; /* spaces stripped by lstrip and rstrip included */
    int32_t id;
} sdx_added_match;

/* The next match that begins at `done` or later; *scan is where to look from, and is moved behind it. */
bool sdx_added_find(const sdx_added_set *set, const sdx_added_token *added, sdx_string text, size_t done,
                    size_t *scan, sdx_added_match *match);

/* ---- after the model ----------------------------------------------------------------------------------- */

typedef enum sdx_slot_kind { SDX_SLOT_ID, SDX_SLOT_A, SDX_SLOT_B } sdx_slot_kind;

typedef struct sdx_slot {
    sdx_slot_kind kind;
    int32_t id; /* SDX_SLOT_ID */
    int32_t type_id;
    sdx_slot_kind part;     /* the text that it belongs to when that is cut: of each window, ... */
    int32_t window_type_id; /* ... this is its type, but for the first */
} sdx_slot;

typedef struct sdx_template {
    sdx_slot *slot; /* [count]; in the arena */
    size_t count;
    size_t own; /* special tokens that truncation leaves room for */
} sdx_template;

typedef struct sdx_sequence {
    const int32_t *ids;
    size_t count;
} sdx_sequence;

/* A copy of slot[count]. The type of a text is the same in all windows. */
sdx_status sdx_template_set(sdx_tokenizer *t, sdx_template *out, const sdx_slot *slot, size_t count,
                            sdx_error *err);
/* One text (b.ids NULL) or two, cut as `truncation` says (NULL: not), the template's own tokens around. windows:
 * what is cut off becomes out's overflow. */
sdx_status sdx_template_apply(const sdx_template *template, const sdx_truncation *truncation, sdx_sequence a,
                              sdx_sequence b, bool windows, sdx_encoding *out, sdx_error *err);

/* ---- the tokenizer -----------------------------------------------------------------------------------------
 */

enum { /* pieces: which source.spm spells with, which target.spm knows, the user's own in source.spm */
    SDX_MARIAN_SOURCE, SDX_MARIAN_TARGET, SDX_MARIAN_OWN, SDX_MARIAN_TRIES
};

struct sdx_tokenizer {
    sdx_arena arena; /* owns every string, step and template */
    sdx_vocab vocab;
    sdx_vocab read_vocab; /* Marian with separate vocabularies: of the language read; else empty */
    sdx_trie pieces[SDX_MARIAN_TRIES]; /* Marian, else empty */
    sdx_added_token *added; /* [added_count]; owned */
    size_t added_count, added_room;
    uint32_t *added_index; /* [2 * added_room]: hash table of 1 + index into added; 0: free; owned */
    sdx_added_set raw, normalized;
    sdx_steps normalizers, pre_tokenizers, decoders;
    sdx_model_step model;
    struct sdx_regex *regexes; /* all of them, linked; owned */
    sdx_template single, pair;
    bool truncate_left;
    const sdx_truncation *truncation; /* tokenizer.json's own, in the arena, or NULL */
    const sdx_padding *padding;
    bool clean_up_spaces;                                            /* after decoding */
    size_t model_max_length;                                         /* 0: not known */
    int32_t pad_id, unk_id, cls_id, sep_id, mask_id, bos_id, eos_id; /* -1: none */
};

/* Text as the bytes are, pairs too; truncation NULL: none. */
sdx_status sdx_tokenizer_encode_as(const sdx_tokenizer *t, sdx_text text, sdx_text pair,
                                   const sdx_truncation *truncation, bool windows, sdx_encoding *out,
                                   sdx_error *err);

/* Building, for the readers. Names in messages are the readers' affair. */
char *sdx_tokenizer_keep(sdx_tokenizer *t, const char *s, size_t n); /* a copy in the arena; NULL: no memory */
sdx_status sdx_vocab_put(sdx_tokenizer *t, int64_t id, const char *text, size_t n, sdx_error *err);
sdx_status sdx_vocab_finish(sdx_vocab *v, sdx_error *err); /* table and trie from all that was put */
void sdx_vocab_fini(sdx_vocab *v);
/* The id of a token of the model or an added one; -1. */
int32_t sdx_tokenizer_find(const sdx_tokenizer *t, const char *text, size_t n);
/* The id of an added token with this text; -1. */
int32_t sdx_tokenizer_added_id(const sdx_tokenizer *t, const char *text, size_t n);
/* Registers an added token: its id is the vocabulary's if it is there, else token.id, else (-1) a new one. Of
 * two with one text, the first says whether it is normalized, the later what it strips. */
sdx_status sdx_tokenizer_add(sdx_tokenizer *t, sdx_added_token token, sdx_error *err);
/* After all else: checks and builds what encoding needs. */
sdx_status sdx_tokenizer_finish(sdx_tokenizer *t, sdx_error *err);

/* One reader a kind of file; what lies beside it is read, too. */
sdx_status sdx_tokenizer_read_json(sdx_tokenizer *t, const char *path, sdx_error *err); /* tokenizer.json */
sdx_status sdx_tokenizer_read_vocab_txt(sdx_tokenizer *t, const char *path, sdx_error *err);
sdx_status sdx_tokenizer_read_vocab_json(sdx_tokenizer *t, const char *path, sdx_error *err);
sdx_status sdx_tokenizer_read_spiece(sdx_tokenizer *t, const char *path, sdx_error *err);
sdx_status sdx_tokenizer_read_marian(sdx_tokenizer *t, const char *path, sdx_error *err); /* source.spm */
#endif
