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
} sdx_scratch;

void sdx_scratch_fini(sdx_scratch *s);
/* Room for `more` bytes, pieces, ids beyond those there are, or for `count` code points. */
sdx_status sdx_text_reserve(sdx_pieces *p, size_t more, sdx_error *err);
sdx_status sdx_piece_reserve(sdx_pieces *p, size_t more, sdx_error *err);
sdx_status sdx_id_reserve(sdx_scratch *s, size_t more, sdx_error *err);
sdx_status sdx_point_reserve(sdx_scratch *s, size_t count, sdx_error *err);
/* Appends bytes to the text of p. */
sdx_status sdx_text_append(sdx_pieces *p, const char *bytes, size_t n, sdx_error *err);
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

/* The options of all kinds side by side: each kind uses its own few. */
struct sdx_step {
    sdx_step_fn run;
    void (*prepare)(sdx_step *step); /* fills the table, once the options are read; NULL: has none */
    unsigned char ascii[128];        /* what becomes of each ASCII byte, or its class */
    sdx_string pattern, content;     /* Replace; WordPiece decoder: pattern is its prefix */
    bool clean_text, han, strip_accents, lowercase; /* BertNormalizer */
    bool compose, compatibility;                    /* NFC, NFD, NFKC, NFKD */
    bool left, right;                               /* Strip */
    bool cleanup;                                   /* WordPiece decoder */
};

typedef struct sdx_steps {
    sdx_step *step; /* [count]; in the arena */
    size_t count;
} sdx_steps;

/* Normalizers: the whole of now.text, no pieces. */
sdx_status sdx_normalize_bert(const sdx_step *step, sdx_scratch *s, sdx_error *err);
void sdx_normalize_bert_prepare(sdx_step *step);
sdx_status sdx_normalize_form(const sdx_step *step, sdx_scratch *s, sdx_error *err);
sdx_status sdx_normalize_lowercase(const sdx_step *step, sdx_scratch *s, sdx_error *err);
sdx_status sdx_normalize_strip_accents(const sdx_step *step, sdx_scratch *s, sdx_error *err);
sdx_status sdx_normalize_strip(const sdx_step *step, sdx_scratch *s, sdx_error *err);
sdx_status sdx_normalize_replace(const sdx_step *step, sdx_scratch *s, sdx_error *err);

/* Pre-tokenizers: each piece without an id is cut further. */
sdx_status sdx_split_bert(const sdx_step *step, sdx_scratch *s, sdx_error *err);
sdx_status sdx_split_words(const sdx_step *step, sdx_scratch *s, sdx_error *err);  /* Whitespace */
sdx_status sdx_split_spaces(const sdx_step *step, sdx_scratch *s, sdx_error *err); /* WhitespaceSplit */
void sdx_split_bert_prepare(sdx_step *step);
void sdx_split_words_prepare(sdx_step *step);
void sdx_split_spaces_prepare(sdx_step *step);

/* Decoders: pieces are tokens, whose texts are put together at the end. */
sdx_status sdx_decode_wordpiece(const sdx_step *step, sdx_scratch *s, sdx_error *err);
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
    /* WordPiece */
    uint32_t suffix_root; /* where a word's later tokens start in the trie; SDX_TRIE_NONE: nowhere */
    size_t max_chars;     /* longer words are unknown */
};

sdx_status sdx_wordpiece_run(const sdx_model_step *model, const sdx_vocab *vocab, sdx_scratch *s,
                             sdx_error *err);
/* Once the vocabulary is there. */
void sdx_wordpiece_init(sdx_model_step *model, const sdx_vocab *vocab, sdx_string prefix, size_t max_chars);

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
} sdx_slot;

typedef struct sdx_template {
    sdx_slot *slot; /* [count]; in the arena */
    size_t count;
} sdx_template;

typedef struct sdx_sequence {
    const int32_t *ids;
    size_t count;
} sdx_sequence;

/* [CLS] A [SEP] and [CLS] A [SEP] B [SEP], as BERT has them. */
sdx_status sdx_template_bert(sdx_tokenizer *t, int32_t cls, int32_t sep, sdx_error *err);
/* Cuts a and b (NULL: no pair), the longest first, so that they and the template's own tokens fit into
 * max_length. left: drops from the left. */
sdx_status sdx_truncate(const sdx_template *template, bool left, size_t max_length, sdx_sequence *a,
                        sdx_sequence *b, sdx_error *err);
sdx_status sdx_template_apply(const sdx_template *template, sdx_sequence a, sdx_sequence b, sdx_encoding *out,
                              sdx_error *err);

/* ---- the tokenizer -----------------------------------------------------------------------------------------
 */

struct sdx_tokenizer {
    sdx_arena arena; /* owns every string, step and template */
    sdx_vocab vocab;
    sdx_added_token *added; /* [added_count]; owned */
    size_t added_count, added_room;
    sdx_added_set raw, normalized;
    sdx_steps normalizers, pre_tokenizers, decoders;
    sdx_model_step model;
    sdx_template single, pair;
    bool truncate_left;
    bool clean_up_spaces;                                            /* after decoding */
    size_t model_max_length;                                         /* 0: not known */
    int32_t pad_id, unk_id, cls_id, sep_id, mask_id, bos_id, eos_id; /* -1: none */
};

/* Building, for the readers. Names in messages are the readers' affair. */
char *sdx_tokenizer_keep(sdx_tokenizer *t, const char *s, size_t n); /* a copy in the arena; NULL: no memory */
sdx_status sdx_vocab_put(sdx_tokenizer *t, int64_t id, const char *text, size_t n, sdx_error *err);
sdx_status sdx_vocab_finish(sdx_vocab *v, sdx_error *err); /* table and trie from all that was put */
void sdx_vocab_fini(sdx_vocab *v);
/* The id of a token of the model or an added one; -1. */
int32_t sdx_tokenizer_find(const sdx_tokenizer *t, const char *text, size_t n);
/* Registers an added token: its id is the vocabulary's if it is there, else token.id, else (-1) a new one. */
sdx_status sdx_tokenizer_add(sdx_tokenizer *t, sdx_added_token token, sdx_error *err);
/* After all else: checks and builds what encoding needs. */
sdx_status sdx_tokenizer_finish(sdx_tokenizer *t, sdx_error *err);

sdx_status sdx_tokenizer_read_json(sdx_tokenizer *t, const char *path, sdx_error *err); /* tokenizer.json */
sdx_status sdx_tokenizer_read_vocab_txt(sdx_tokenizer *t, const char *path,
                                        sdx_error *err); /* and its config */
#endif
