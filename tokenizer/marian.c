/* marian.c: Marian's translation models (OPUS-MT): source.spm cuts the text, vocab.json numbers the pieces of
 * both languages, target_vocab.json those of the language written if "separate_vocabs" says so. transformers
 * has no other pipeline for them than SentencePiece itself, so its code is followed here and not tokenizers':
 * characters are normalized by the longest match (normalizer.cc), pieces found over the whole text with sums
 * kept as floats (unigram_model.cc), control pieces never found in the text. */
#include <float.h>
#include <stdlib.h>
#include <string.h>

#include "../base/file.h"
#include "../base/memory.h"
#include "class.h"
#include "spiece.h"

static const sdx_string mark = {"\xe2\x96\x81", 3};

/* ---- from text to pieces ------------------------------------------------------------------------------ */

/* The bytes of the longest of the user's own pieces at the start of text[n], or 0. */
static size_t own_piece(const sdx_trie *own, const char *text, size_t n)
{
    uint32_t at = 0;
    size_t found = 0;
    for (size_t i = 0; i < n && (at = sdx_trie_step(own, at, (unsigned char)text[i])) != SDX_TRIE_NONE; i++) {
        if (own->node[at].value >= 0) found = i + 1;
    }
    return found;
}

/* How a character is read, or several that the map replaces together; the bytes it takes. */
static size_t next_normal(const sdx_step *step, const char *text, size_t n, sdx_string *to)
{
    size_t used = step->own->size ? own_piece(step->own, text, n) : 0;
    const unsigned char *next = (const unsigned char *)text;
    if (!used && step->charmap && (used = sdx_charsmap_longest(step->charmap, text, n, to))) return used;
    if (!used) {
        sdx_utf8_next(&next);
        used = (size_t)(next - (const unsigned char *)text);
    }
    *to = (sdx_string){text, used};
    return used;
}

static sdx_status put_marked(sdx_string text, sdx_pieces *out, sdx_error *err)
{
    for (size_t i = 0; i < text.size; i++) {
        bool space = text.data[i] == ' ';
        TRY(sdx_text_append(out, space ? mark.data : text.data + i, space ? mark.size : 1, err));
    }
    return SDX_OK;
}

/* The text as SentencePiece would have it: mapped, its spaces marks, no more of them than needed. */
static sdx_status normalize(const sdx_step *step, sdx_string text, sdx_pieces *out, sdx_error *err)
{
    size_t begin = out->size;
    bool started = false, after_space = step->cleanup;
    for (size_t at = 0, skip; at < text.size;) {
        sdx_string to;
        at += next_normal(step, text.data + at, text.size - at, &to);
        if (!started && step->cleanup && to.size == 1 && *to.data == ' ') continue;
        if (!started && step->add_space) TRY(sdx_text_append(out, mark.data, mark.size, err));
        started = true;
        for (skip = 0; after_space && skip < to.size && to.data[skip] == ' ';) skip++;
        TRY(put_marked((sdx_string){to.data + skip, to.size - skip}, out, err));
        if (skip < to.size) after_space = step->cleanup && to.data[to.size - 1] == ' ';
    }
    while (step->cleanup && out->size - begin >= mark.size &&
           !memcmp(out->text + out->size - mark.size, mark.data, mark.size))
        out->size -= mark.size;
    return SDX_OK;
}

/* The bytes of a code such as >>fr<< at the start, or 0. */
static size_t language_code(const char *text, size_t n)
{
    if (n < 2 || memcmp(text, ">>", 2)) return 0;
    for (size_t i = 0; i + 2 <= n; i++) {
        if (!memcmp(text + i, "<<", 2)) return i + 2;
    }
    return 0;
}

static sdx_status cut(const sdx_step *step, sdx_piece piece, sdx_scratch *s, sdx_error *err)
{
    sdx_string text = {s->now.text + piece.begin, piece.end - piece.begin};
    size_t code = language_code(text.data, text.size), begin = s->next.size;
    if (code) {
        int32_t id = sdx_trie_get(step->known, text.data, code);
        TRY(sdx_text_append(&s->next, text.data, code, err));
        TRY(sdx_piece_add(&s->next, begin, s->next.size, id >= 0 ? id : step->unknown_id, err));
        begin = s->next.size;
    }
    TRY(normalize(step, (sdx_string){text.data + code, text.size - code}, &s->next, err));
    return s->next.size > begin ? sdx_piece_add(&s->next, begin, s->next.size, -1, err) : SDX_OK;
}

SDX_STEP(sdx_split_marian)
{
    TRY(sdx_each_piece(step, cut, s, err));
    sdx_scratch_swap(s);
    return SDX_OK;
}

/* ---- and back ------------------------------------------------------------------------------------------ */

enum { KNOWN, CONTROL }; /* the values of the trie of pieces */

/* A piece that is no special token. Its mark goes while nothing stands before it; one that the language's own
 * SentencePiece does not know keeps it. */
static sdx_status put_piece(const sdx_step *step, sdx_string text, bool first, sdx_pieces *out, sdx_error *err)
{
    int32_t kind = sdx_trie_get(step->known, text.data, text.size);
    if (kind == CONTROL) return SDX_OK;
    size_t at = 0;
    if (first && kind == KNOWN && text.size >= mark.size && !memcmp(text.data, mark.data, mark.size))
        at = mark.size;
    while (at < text.size) {
        bool space = text.size - at >= mark.size && !memcmp(text.data + at, mark.data, mark.size);
        TRY(sdx_text_append(out, space ? " " : text.data + at, 1, err));
        at += space ? mark.size : 1;
    }
    return SDX_OK;
}

SDX_STEP(sdx_decode_marian)
{
    size_t run = 0;    /* where the text since the last special token begins */
    bool seen = false; /* the one mark that is dropped, where not all are */
    for (size_t i = 0; i < s->now.count; i++) {
        sdx_piece piece = s->now.piece[i];
        sdx_string text = {s->now.text + piece.begin, piece.end - piece.begin};
        size_t begin = s->next.size;
        bool first = begin == run && !seen && (step->cleanup || step->add_space);
        if (piece.id >= 0) {
            TRY(sdx_text_append(&s->next, text.data, text.size, err));
            TRY(sdx_text_append(&s->next, " ", 1, err));
            run = s->next.size;
        } else {
            TRY(put_piece(step, text, first, &s->next, err));
        }
        seen = piece.id < 0 && !step->cleanup && s->next.size == begin;
        TRY(sdx_piece_add(&s->next, begin, s->next.size, -1, err));
    }
    sdx_scratch_swap(s);
    return SDX_OK;
}

/* ---- the files ------------------------------------------------------------------------------------------ */

typedef struct reader {
    sdx_tokenizer *t;
    const char *folder;
    const sdx_tokenizer_config *config;
    Spm__Model *source, *target; /* owned */
    sdx_error *err;
} reader;

static sdx_status open_model(const reader *r, const char *name, Spm__Model **out)
{
    char *path = sdx_path_join(r->folder, name);
    if (!path) return sdx_fail_memory(r->err, strlen(r->folder));
    sdx_status status = sdx_spiece_open(path, out, r->err);
    free(path);
    return status;
}

static sdx_status take_vocab(const reader *r, const char *name)
{
    char *path = sdx_path_join(r->folder, name);
    if (!path) return sdx_fail_memory(r->err, strlen(r->folder));
    sdx_status status = sdx_tokenizer_take_vocab_json(r->t, path, NULL, r->err);
    free(path);
    return status;
}

/* vocab.json, or of two files the second: tokens are looked up there. */
static sdx_status read_vocabs(reader *r)
{
    bool separate;
    TRY(sdx_json_bool(r->config->config, "separate_vocabs", false, &separate, r->err));
    TRY(take_vocab(r, "vocab.json"));
    if (!separate) return SDX_OK;
    r->t->read_vocab = r->t->vocab;
    r->t->vocab = (sdx_vocab){0};
    return take_vocab(r, "target_vocab.json");
}

static const sdx_vocab *words(const reader *r)
{
    return r->t->read_vocab.size ? &r->t->read_vocab : &r->t->vocab;
}

/* A trie of some pieces to be: [n_pieces] keys and values at most. */
typedef struct key_list {
    sdx_string *key; /* owned */
    int32_t *value;  /* owned */
    size_t count;
} key_list;

static sdx_status make_keys(size_t room, key_list *out, sdx_error *err)
{
    *out = (key_list){sdx_calloc(room + 1, sizeof *out->key), sdx_calloc(room + 1, sizeof *out->value), 0};
    return out->key && out->value ? SDX_OK : sdx_fail_memory(err, (room + 1) * sizeof *out->key);
}

static void add_key(key_list *list, const char *text, int32_t value)
{
    list->key[list->count] = (sdx_string){text, strlen(text)};
    list->value[list->count++] = value;
}

static sdx_status finish_keys(key_list *list, sdx_status status, sdx_trie *out, sdx_error *err)
{
    if (status == SDX_OK && list->count) status = sdx_trie_init(out, list->key, list->value, list->count, err);
    free(list->key);
    free(list->value);
    return status;
}

/* What decoding knows. */
static sdx_status know_pieces(const reader *r)
{
    const Spm__Model *m = r->target;
    key_list list;
    sdx_status status = make_keys(m->n_pieces, &list, r->err);
    for (size_t i = 0; status == SDX_OK && i < m->n_pieces; i++) {
        const Spm__Piece *piece = m->pieces[i];
        if (!piece->piece || !*piece->piece || piece->type == SPM__PIECE__TYPE__UNKNOWN) continue;
        add_key(&list, piece->piece, piece->type == SPM__PIECE__TYPE__CONTROL ? CONTROL : KNOWN);
    }
    if (status == SDX_OK && !list.count) status = sdx_fail(r->err, SDX_ERR_FILE, "target.spm has no pieces");
    return finish_keys(&list, status, &r->t->pieces[SDX_MARIAN_TARGET], r->err);
}

/* The user's own, which normalization leaves as they are. */
static sdx_status own_pieces(const reader *r)
{
    const Spm__Model *m = r->source;
    key_list list;
    sdx_status status = make_keys(m->n_pieces, &list, r->err);
    for (size_t i = 0; status == SDX_OK && i < m->n_pieces; i++) {
        const Spm__Piece *piece = m->pieces[i];
        if (piece->type == SPM__PIECE__TYPE__USER_DEFINED && piece->piece && *piece->piece)
            add_key(&list, piece->piece, 0);
    }
    return finish_keys(&list, status, &r->t->pieces[SDX_MARIAN_OWN], r->err);
}

static bool in_text(const Spm__Piece *piece)
{
    bool type = piece->type == SPM__PIECE__TYPE__NORMAL || piece->type == SPM__PIECE__TYPE__USER_DEFINED;
    return type && piece->piece && *piece->piece;
}

/* A user's own piece counts more than any other. */
static double score_of(const Spm__Piece *piece, float most)
{
    if (piece->type != SPM__PIECE__TYPE__USER_DEFINED) return piece->score;
    return (float)strlen(piece->piece) * most - 0.1;
}

/* The pieces that text is spelled with: their ids are vocab.json's, or, for those that it lacks, ids behind all
 * of them, which become <unk>. */
static sdx_status set_pieces(const reader *r)
{
    const Spm__Model *m = r->source;
    sdx_model_step *model = &r->t->model;
    const sdx_vocab *vocab = words(r);
    float least = FLT_MAX, most = FLT_MIN; /* SentencePiece's own start, though scores are negative */
    double *score;
    key_list list;
    for (size_t i = 0; i < m->n_pieces; i++) {
        if (m->pieces[i]->type != SPM__PIECE__TYPE__NORMAL) continue;
        least = m->pieces[i]->score < least ? m->pieces[i]->score : least;
        most = m->pieces[i]->score > most ? m->pieces[i]->score : most;
    }
    model->no_token = (int32_t)vocab->size;
    ARENA_NEW(&r->t->arena, score, vocab->size + m->n_pieces, r->err);
    sdx_status status = make_keys(m->n_pieces, &list, r->err);
    for (size_t i = 0; status == SDX_OK && i < m->n_pieces; i++) {
        if (!in_text(m->pieces[i])) continue;
        const char *text = m->pieces[i]->piece;
        int32_t id = sdx_trie_get(&vocab->trie, text, strlen(text));
        if (id < 0) id = model->no_token + (int32_t)i;
        score[id] = score_of(m->pieces[i], most);
        add_key(&list, text, id);
    }
    model->score = score;
    model->unknown_score = least - 10;
    if (status == SDX_OK && !list.count) status = sdx_fail(r->err, SDX_ERR_FILE, "source.spm has no pieces");
    return finish_keys(&list, status, &r->t->pieces[SDX_MARIAN_SOURCE], r->err);
}

/* What a SentencePiece model may be and none of Marian's is. */
static sdx_status check_model(const reader *r, const Spm__Model *m, const char *name)
{
    bool bytes = false, suffix = m->trainer && m->trainer->treat_whitespace_as_suffix;
    bool plain = m->normalizer && !m->normalizer->escape_whitespaces;
    for (size_t i = 0; i < m->n_pieces; i++) bytes |= m->pieces[i]->type == SPM__PIECE__TYPE__BYTE;
    if (m->trainer && m->trainer->model_type != SPM__TRAINER__MODEL_TYPE__UNIGRAM)
        return sdx_fail(r->err, SDX_ERR_UNSUPPORTED, "%s: Marian's pieces are read as Unigram only", name);
    if (!bytes && !suffix && !plain) return SDX_OK;
    return sdx_fail(r->err, SDX_ERR_UNSUPPORTED, "%s: %s, which is not supported for Marian", name,
                    bytes    ? "has pieces for bytes"
                    : suffix ? "marks the ends of words"
                             : "does not mark spaces");
}

static sdx_status set_model(const reader *r)
{
    sdx_model_step *m = &r->t->model;
    TRY(check_model(r, r->source, "source.spm"));
    TRY(check_model(r, r->target, "target.spm"));
    TRY(set_pieces(r));
    TRY(own_pieces(r));
    m->run = sdx_unigram_run;
    m->single = true;
    m->pieces = &r->t->pieces[SDX_MARIAN_SOURCE];
    m->words = &words(r)->trie;
    m->unknown_id = sdx_trie_get(m->words, "<unk>", 5);
    return m->unknown_id >= 0 ? SDX_OK : sdx_fail(r->err, SDX_ERR_FILE, "vocab.json: <unk> is missing");
}

static sdx_status set_step(const reader *r, const sdx_step *step, size_t count, sdx_steps *out)
{
    ARENA_NEW(&r->t->arena, out->step, count, r->err);
    memcpy(out->step, step, count * sizeof *step);
    out->count = count;
    return SDX_OK;
}

static sdx_status set_steps(const reader *r)
{
    const Spm__Normalizer *n = r->source->normalizer, *back = r->target->normalizer;
    sdx_step split = {.run = sdx_split_marian,
                      .known = r->t->model.words,
                      .unknown_id = r->t->model.unknown_id,
                      .own = &r->t->pieces[SDX_MARIAN_OWN],
                      .add_space = !n || n->add_dummy_prefix,
                      .cleanup = !n || n->remove_extra_whitespaces};
    const sdx_step decode[] = {{.run = sdx_decode_marian,
                                .known = &r->t->pieces[SDX_MARIAN_TARGET],
                                .add_space = !back || back->add_dummy_prefix,
                                .cleanup = !back || back->remove_extra_whitespaces},
                               {.run = sdx_normalize_strip, .left = true, .right = true}};
    if (n && n->precompiled_charsmap.len)
        TRY(sdx_charsmap_read(r->t, n->precompiled_charsmap.data, n->precompiled_charsmap.len, &split.charmap,
                              r->err));
    TRY(set_step(r, &split, 1, &r->t->pre_tokenizers));
    return set_step(r, decode, 2, &r->t->decoders);
}

/* What stands around a text that is read is numbered by the vocabulary of that language. */
static sdx_status check_separate(const reader *r)
{
    sdx_tokenizer *t = r->t;
    if (!t->read_vocab.size) return SDX_OK;
    const char *end = sdx_tokenizer_token(t, t->eos_id), *pad = sdx_tokenizer_token(t, t->pad_id);
    if (t->unk_id != t->model.unknown_id || !end || sdx_trie_get(t->model.words, end, strlen(end)) != t->eos_id)
        return sdx_fail(r->err, SDX_ERR_UNSUPPORTED, "</s> and <unk> have other ids in target_vocab.json");
    t->pad_id = pad ? sdx_trie_get(t->model.words, pad, strlen(pad)) : -1;
    return SDX_OK;
}

static sdx_status build(reader *r)
{
    enum { MAX_LENGTH = 512 }; /* transformers', when no file says */
    const sdx_class *class = sdx_class_find(r->config, "Marian");
    if (!class || strcmp(class->name, "Marian"))
        return sdx_fail(r->err, SDX_ERR_UNSUPPORTED,
                        "source.spm is Marian's, and the tokenizer_class is another");
    TRY(open_model(r, "source.spm", &r->source));
    TRY(open_model(r, "target.spm", &r->target));
    TRY(read_vocabs(r));
    r->t->model_max_length = MAX_LENGTH;
    TRY(sdx_class_apply(class, r->config, r->t, r->err));
    TRY(set_model(r));
    TRY(know_pieces(r));
    TRY(set_steps(r));
    return check_separate(r);
}

sdx_status sdx_tokenizer_read_marian(sdx_tokenizer *t, const char *path, sdx_error *err)
{
    sdx_tokenizer_config config;
    TRY(sdx_tokenizer_config_open(path, &config, err));
    char *folder = sdx_path_dirname(path);
    reader r = {.t = t, .folder = folder, .config = &config, .err = err};
    sdx_status status = folder ? build(&r) : sdx_fail_memory(err, strlen(path));
    if (status != SDX_OK && folder) sdx_error_context(err, "%s", folder);
    if (r.source) spm__model__free_unpacked(r.source, NULL);
    if (r.target) spm__model__free_unpacked(r.target, NULL);
    free(folder);
    sdx_tokenizer_config_close(&config);
    return status;
}
