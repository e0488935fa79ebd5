/* tokenizer.c: the pipeline of tokenizer.h, and the public functions. A tokenizer is never written to after
 * opening; what a call needs lives in its sdx_scratch. */
#include "tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "../base/file.h"
#include "../base/memory.h"
#include "regex.h"

/* ---- opening ------------------------------------------------------------------------------------------ */

typedef struct file_kind {
    const char *name; /* of the file, or how it ends */
    sdx_status (*read)(sdx_tokenizer *t, const char *path, sdx_error *err);
} file_kind;

/* In a folder, the first that is there counts. */
static const file_kind file_kinds[] = {
    {"tokenizer.json", sdx_tokenizer_read_json},    {"vocab.txt", sdx_tokenizer_read_vocab_txt},
    {"spiece.model", sdx_tokenizer_read_spiece},    {"sentencepiece.bpe.model", sdx_tokenizer_read_spiece},
    {"spm.model", sdx_tokenizer_read_spiece},       {"sentencepiece.model", sdx_tokenizer_read_spiece},
    {"tokenizer.model", sdx_tokenizer_read_spiece}, {"source.spm", sdx_tokenizer_read_marian},
    {"vocab.json", sdx_tokenizer_read_vocab_json}};
/* Other names are told by their ends. */
static const file_kind endings[] = {{"vocab.json", sdx_tokenizer_read_vocab_json},
                                    {".json", sdx_tokenizer_read_json},
                                    {".model", sdx_tokenizer_read_spiece},
                                    {"source.spm", sdx_tokenizer_read_marian},
                                    {"", sdx_tokenizer_read_vocab_txt}};

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

static sdx_status read_as(sdx_tokenizer *t, const file_kind *kind, const char *path, sdx_error *err)
{
    TRY(kind->read(t, path, err));
    return sdx_tokenizer_finish(t, err);
}

static sdx_status read_file(sdx_tokenizer *t, const char *path, sdx_error *err)
{
    const file_kind *kind = endings;
    while (!ends_with(path, kind->name)) kind++;
    return read_as(t, kind, path, err);
}

static sdx_status read_folder(sdx_tokenizer *t, const char *folder, sdx_error *err)
{
    for (size_t i = 0; i < sizeof file_kinds / sizeof *file_kinds; i++) {
        char *path = sdx_path_join(folder, file_kinds[i].name);
        if (!path) return sdx_fail_memory(err, strlen(folder));
        bool found = sdx_file_exists(path);
        sdx_status status = found ? read_as(t, &file_kinds[i], path, err) : SDX_OK;
        free(path);
        if (found) return status;
    }
    return sdx_fail(err, SDX_ERR_FILE,
                    "%s: holds no tokenizer.json, vocab.txt, vocab.json or SentencePiece model", folder);
}

sdx_status sdx_tokenizer_open(const char *path, sdx_tokenizer **out, sdx_error *err)
{
    if (!path) return sdx_fail(err, SDX_ERR_USAGE, "no path of a tokenizer given");
    sdx_tokenizer *t = sdx_calloc(1, sizeof *t);
    if (!t) return sdx_fail_memory(err, sizeof *t);
    sdx_arena_init(&t->arena);
    t->pad_id = t->unk_id = t->cls_id = t->sep_id = t->mask_id = t->bos_id = t->eos_id = -1;
    sdx_status status = sdx_is_directory(path) ? read_folder(t, path, err) : read_file(t, path, err);
    if (status == SDX_OK)
        *out = t;
    else
        sdx_tokenizer_free(t);
    return status;
}

void sdx_tokenizer_free(sdx_tokenizer *t)
{
    if (!t) return;
    sdx_vocab_fini(&t->vocab);
    sdx_vocab_fini(&t->read_vocab);
    for (int i = 0; i < SDX_MARIAN_TRIES; i++) sdx_trie_fini(&t->pieces[i]);
    free(t->added);
    free(t->added_index);
    sdx_trie_fini(&t->raw.trie);
    sdx_trie_fini(&t->normalized.trie);
    sdx_regex_free_all(t->regexes);
    sdx_arena_fini(&t->arena);
    free(t);
}

static sdx_status run_steps(const sdx_steps *steps, sdx_scratch *s, sdx_error *err)
{
    for (size_t i = 0; i < steps->count; i++) TRY(steps->step[i].run(&steps->step[i], s, err));
    return SDX_OK;
}

/* The text by which an added token is found: normalized as the text around it will be, if it is to be. */
static sdx_status search_key(sdx_tokenizer *t, const sdx_added_token *a, sdx_scratch *s, sdx_string *key,
                             sdx_error *err)
{
    *key = a->text;
    if (!a->normalized) return SDX_OK;
    s->now.size = s->now.count = 0;
    TRY(sdx_text_append(&s->now, a->text.data, a->text.size, err));
    TRY(run_steps(&t->normalizers, s, err));
    char *copy = sdx_tokenizer_keep(t, s->now.text, s->now.size);
    if (!copy) return sdx_fail_memory(err, s->now.size);
    *key = (sdx_string){copy, s->now.size};
    return SDX_OK;
}

static sdx_status build_set(sdx_tokenizer *t, bool normalized, sdx_added_set *set, sdx_error *err)
{
    sdx_scratch s = {0};
    sdx_status status = SDX_OK;
    size_t count = 0;
    sdx_string *key = sdx_malloc(t->added_count * sizeof *key);
    int32_t *index = sdx_malloc(t->added_count * sizeof *index);
    if (!key || !index) TRY_GOTO(sdx_fail_memory(err, t->added_count * sizeof *key));
    /* Of equal keys the trie keeps the last: backwards, special ones behind the others. */
    for (size_t k = 2 * t->added_count; k--;) {
        size_t i = k % t->added_count;
        if (t->added[i].normalized != normalized || t->added[i].special != (k < t->added_count)) continue;
        TRY_GOTO(search_key(t, &t->added[i], &s, &key[count], err));
        if (!key[count].size) continue;
        set->first[(unsigned char)key[count].data[0]] = true;
        index[count++] = (int32_t)i;
    }
    if (count) TRY_GOTO(sdx_trie_init(&set->trie, key, index, count, err));
done:
    sdx_scratch_fini(&s);
    free(key);
    free(index);
    return status;
}

/* Without a post-processor, sequences are only put one after the other. */
static sdx_status default_templates(sdx_tokenizer *t, sdx_error *err)
{
    if (t->single.slot) return SDX_OK;
    const sdx_slot slot[] = {{.kind = SDX_SLOT_A, .id = -1}, {.kind = SDX_SLOT_B, .id = -1, .type_id = 1}};
    TRY(sdx_template_set(t, &t->single, slot, 1, err));
    return sdx_template_set(t, &t->pair, slot, 2, err);
}

static void prepare_steps(sdx_steps *steps)
{
    for (size_t i = 0; i < steps->count; i++) {
        if (steps->step[i].prepare) steps->step[i].prepare(&steps->step[i]);
    }
}

sdx_status sdx_tokenizer_finish(sdx_tokenizer *t, sdx_error *err)
{
    prepare_steps(&t->normalizers);
    prepare_steps(&t->pre_tokenizers);
    TRY(build_set(t, false, &t->raw, err));
    TRY(build_set(t, true, &t->normalized, err));
    return default_templates(t, err);
}

/* ---- encoding ------------------------------------------------------------------------------------------ */

/* Cuts now.text into pieces at the added tokens that are looked for after normalization. */
static sdx_status cut_normalized(const sdx_tokenizer *t, sdx_scratch *s, sdx_error *err)
{
    sdx_string text = {s->now.text, s->now.size};
    sdx_added_match m;
    size_t done = 0, scan = 0;
    while (sdx_added_find(&t->normalized, t->added, text, done, &scan, &m)) {
        if (done < m.begin) TRY(sdx_piece_add(&s->now, done, m.begin, -1, err));
        TRY(sdx_piece_add(&s->now, m.begin, m.end, m.id, err));
        done = m.end;
    }
    return done < text.size ? sdx_piece_add(&s->now, done, text.size, -1, err) : SDX_OK;
}

static sdx_status encode_plain(const sdx_tokenizer *t, const char *text, size_t size, sdx_scratch *s,
                               sdx_error *err)
{
    s->now.size = s->now.count = 0;
    TRY(sdx_text_append(&s->now, text, size, err));
    TRY(run_steps(&t->normalizers, s, err));
    TRY(cut_normalized(t, s, err));
    TRY(run_steps(&t->pre_tokenizers, s, err));
    return t->model.run(&t->model, &t->vocab, s, err);
}

/* Appends the ids of valid UTF-8 to s->ids. */
static sdx_status encode_valid(const sdx_tokenizer *t, sdx_string text, sdx_scratch *s, sdx_error *err)
{
    sdx_added_match m;
    size_t done = 0, scan = 0;
    TRY(sdx_id_reserve(s, text.size / 3 + 1, err));
    while (sdx_added_find(&t->raw, t->added, text, done, &scan, &m)) {
        s->at_start = !done;
        if (done < m.begin) TRY(encode_plain(t, text.data + done, m.begin - done, s, err));
        TRY(sdx_id_add(s, m.id, err));
        done = m.end;
    }
    s->at_start = !done;
    return done < text.size ? encode_plain(t, text.data + done, text.size - done, s, err) : SDX_OK;
}

static sdx_status encode_bytes(const sdx_tokenizer *t, const char *text, size_t size, sdx_scratch *s,
                               sdx_error *err)
{
    if (sdx_utf8_valid(text, size) == size) return encode_valid(t, (sdx_string){text, size}, s, err);
    sdx_pieces repaired = {0};
    sdx_status status = sdx_text_repair(text, size, &repaired, err);
    if (status == SDX_OK) status = encode_valid(t, (sdx_string){repaired.text, repaired.size}, s, err);
    free(repaired.text);
    return status;
}

sdx_status sdx_tokenizer_encode_as(const sdx_tokenizer *t, sdx_text text, sdx_text pair,
                                   const sdx_truncation *truncation, bool windows, sdx_encoding *out,
                                   sdx_error *err)
{
    sdx_scratch s = {0};
    sdx_status status;
    TRY_GOTO(encode_bytes(t, text.data, text.length, &s, err));
    size_t first = s.id_count;
    if (pair.data) TRY_GOTO(encode_bytes(t, pair.data, pair.length, &s, err));
    sdx_sequence a = {s.ids, first}, b = {pair.data ? s.ids + first : NULL, s.id_count - first};
    status = sdx_template_apply(pair.data ? &t->pair : &t->single, truncation, a, b, windows, out, err);
done:
    sdx_scratch_fini(&s);
    return status;
}

sdx_status sdx_tokenizer_encode(const sdx_tokenizer *t, const char *text, size_t text_len, const char *pair,
                                size_t pair_len, size_t max_length, sdx_encoding *out, sdx_error *err)
{
    const sdx_truncation truncation = {.max_length = max_length, .left = t->truncate_left};
    return sdx_tokenizer_encode_as(t, (sdx_text){text, text_len}, (sdx_text){pair, pair_len},
                                   max_length ? &truncation : NULL, false, out, err);
}

/* ---- decoding, and the vocabulary ------------------------------------------------------------------------ */

static const sdx_token *token_at(const sdx_tokenizer *t, int64_t id)
{
    bool known = id >= 0 && (uint64_t)id < t->vocab.size && t->vocab.token[id].text.data;
    return known ? &t->vocab.token[id] : NULL;
}

/* By its text: a vocabulary may hold a special token twice. */
static bool is_special(const sdx_tokenizer *t, const sdx_token *token)
{
    if (token->special) return true;
    int32_t id = sdx_tokenizer_added_id(t, token->text.data, token->text.size);
    return id >= 0 && t->vocab.token[id].special;
}

/* The tokens of ids, one piece each, into now. Unknown ids are passed over, as tokenizers does. */
static sdx_status gather_tokens(const sdx_tokenizer *t, const int64_t *ids, size_t count, bool skip_special,
                                sdx_scratch *s, sdx_error *err)
{
    for (size_t i = 0; i < count; i++) {
        const sdx_token *token = token_at(t, ids[i]);
        bool special = token && is_special(t, token);
        if (!token || (skip_special && special)) continue;
        if (!t->decoders.count && s->now.count) TRY(sdx_text_append(&s->now, " ", 1, err));
        size_t begin = s->now.size;
        TRY(sdx_text_append(&s->now, token->text.data, token->text.size, err));
        TRY(sdx_piece_add(&s->now, begin, s->now.size, special ? (int32_t)ids[i] : -1, err));
    }
    return SDX_OK;
}

sdx_status sdx_tokenizer_decode(const sdx_tokenizer *t, const int64_t *ids, size_t count, bool skip_special,
                                char **text, size_t *length, sdx_error *err)
{
    sdx_scratch s = {0};
    sdx_status status;
    TRY_GOTO(gather_tokens(t, ids, count, skip_special, &s, err));
    TRY_GOTO(run_steps(&t->decoders, &s, err));
    if (t->clean_up_spaces) s.now.size = sdx_clean_up_spaces(s.now.text, s.now.size);
    TRY_GOTO(sdx_text_append(&s.now, "", 1, err));
    *text = s.now.text;
    if (length) *length = s.now.size - 1;
    s.now.text = NULL;
done:
    sdx_scratch_fini(&s);
    return status;
}

size_t sdx_tokenizer_vocab_size(const sdx_tokenizer *t)
{
    return t->vocab.size;
}

const char *sdx_tokenizer_token(const sdx_tokenizer *t, int64_t id)
{
    const sdx_token *token = token_at(t, id);
    return token ? token->text.data : NULL;
}

bool sdx_tokenizer_is_special(const sdx_tokenizer *t, int64_t id)
{
    const sdx_token *token = token_at(t, id);
    return token && token->special;
}
