/* json_model.c: the model of a tokenizer.json: its options, its vocabulary, its merges. */
#include <stdlib.h>
#include <string.h>

#include "../base/memory.h"
#include "json.h"

typedef sdx_status (*model_reader)(sdx_tokenizer *t, const json_t *model, sdx_json_file *file, sdx_error *err);

/* "unk_token", which may be null or absent. */
static sdx_status read_unknown(sdx_tokenizer *t, const json_t *model, const char *fallback, sdx_error *err)
{
    sdx_model_step *m = &t->model;
    TRY(sdx_json_string(t, model, "unk_token", fallback, &m->unknown, err));
    m->unknown_id = sdx_trie_get(&t->vocab.trie, m->unknown.data, m->unknown.size);
    return SDX_OK;
}

static sdx_status read_wordpiece(sdx_tokenizer *t, const json_t *model, sdx_json_file *file, sdx_error *err)
{
    sdx_string prefix;
    int64_t max_chars;
    TRY(sdx_json_take_vocab(t, &file->vocab, err));
    TRY(read_unknown(t, model, "[UNK]", err));
    TRY(sdx_json_string(t, model, "continuing_subword_prefix", "##", &prefix, err));
    TRY(sdx_json_integer(model, "max_input_chars_per_word", 100, &max_chars, err));
    if (max_chars < 0) return sdx_fail(err, SDX_ERR_FILE, "max_input_chars_per_word is negative");
    sdx_wordpiece_init(&t->model, &t->vocab, prefix, (size_t)max_chars);
    return SDX_OK;
}

static sdx_status read_word_level(sdx_tokenizer *t, const json_t *model, sdx_json_file *file, sdx_error *err)
{
    TRY(sdx_json_take_vocab(t, &file->vocab, err));
    TRY(read_unknown(t, model, "<unk>", err));
    t->model.run = sdx_word_level_run;
    return SDX_OK;
}

/* ---- BPE --------------------------------------------------------------------------------------------------
 */

/* "left right", as files before 2024 have it, or ["left", "right"]. */
static sdx_status take_merge(sdx_json_cursor *c, sdx_string *left, sdx_string *right, sdx_error *err)
{
    if (sdx_json_take(c, '[')) {
        TRY(sdx_json_take_string(c, left, err));
        if (!sdx_json_take(c, ',')) return sdx_json_malformed(c, err);
        TRY(sdx_json_take_string(c, right, err));
        return sdx_json_take(c, ']') ? SDX_OK : sdx_json_malformed(c, err);
    }
    sdx_string both;
    TRY(sdx_json_take_string(c, &both, err));
    return sdx_split_merge(both, left, right, err);
}

static sdx_status take_merges(sdx_json_cursor *c, sdx_merge_list *list, sdx_error *err)
{
    if (!c->at || !sdx_json_take(c, '['))
        return sdx_fail(err, SDX_ERR_FILE, "the model's \"merges\" is not a list");
    if (sdx_json_take(c, ']')) return SDX_OK;
    do {
        sdx_string left, right;
        TRY(take_merge(c, &left, &right, err));
        TRY(sdx_merge_list_add(list, left, right, err));
    } while (sdx_json_take(c, ','));
    return sdx_json_take(c, ']') ? SDX_OK : sdx_json_malformed(c, err);
}

static sdx_status read_bpe(sdx_tokenizer *t, const json_t *model, sdx_json_file *file, sdx_error *err)
{
    sdx_model_step *m = &t->model;
    TRY(sdx_json_take_vocab(t, &file->vocab, err));
    TRY(read_unknown(t, model, "", err));
    m->has_unknown = !json_is_null(json_object_get(model, "unk_token")) && json_object_get(model, "unk_token");
    TRY(sdx_json_string(t, model, "continuing_subword_prefix", "", &m->prefix, err));
    TRY(sdx_json_string(t, model, "end_of_word_suffix", "", &m->suffix, err));
    TRY(sdx_json_bool(model, "fuse_unk", false, &m->fuse_unknown, err));
    TRY(sdx_json_bool(model, "byte_fallback", false, &m->byte_fallback, err));
    TRY(sdx_json_bool(model, "ignore_merges", false, &m->ignore_merges, err));
    sdx_merge_list list = {0};
    sdx_status status = take_merges(&file->merges, &list, err);
    if (status == SDX_OK) status = sdx_bpe_build(t, &list, err);
    sdx_merge_list_fini(&list);
    return status;
}

/* ---- Unigram ------------------------------------------------------------------------------------------------
 */

/* [["token", score], ...] */
static sdx_status take_scored(sdx_tokenizer *t, sdx_json_cursor *c, double **score, sdx_error *err)
{
    size_t count = 0, room = 0;
    if (!c->at || !sdx_json_take(c, '['))
        return sdx_fail(err, SDX_ERR_FILE, "the model's \"vocab\" is not a list");
    if (sdx_json_take(c, ']')) return SDX_OK;
    do {
        sdx_string text;
        if (count == room) {
            room = room ? room * 2 : 4096;
            double *grown = sdx_realloc(*score, room * sizeof *grown);
            if (!grown) return sdx_fail_memory(err, room * sizeof *grown);
            *score = grown;
        }
        if (!sdx_json_take(c, '[')) return sdx_json_malformed(c, err);
        TRY(sdx_json_take_string(c, &text, err));
        if (!sdx_json_take(c, ',')) return sdx_json_malformed(c, err);
        TRY(sdx_json_take_double(c, &(*score)[count], err));
        if (!sdx_json_take(c, ']')) return sdx_json_malformed(c, err);
        TRY(sdx_vocab_put(t, (int64_t)count++, text.data, text.size, err));
    } while (sdx_json_take(c, ','));
    return sdx_json_take(c, ']') ? SDX_OK : sdx_json_malformed(c, err);
}

static sdx_status read_unigram(sdx_tokenizer *t, const json_t *model, sdx_json_file *file, sdx_error *err)
{
    int64_t unknown;
    bool byte_fallback;
    double *score = NULL, *kept;
    sdx_status status;
    TRY(sdx_json_integer(model, "unk_id", -1, &unknown, err));
    TRY(sdx_json_bool(model, "byte_fallback", false, &byte_fallback, err));
    if (unknown < -1 || unknown > INT32_MAX)
        return sdx_fail(err, SDX_ERR_FILE, "unk_id %lld is outside the vocabulary", (long long)unknown);
    TRY_GOTO(take_scored(t, &file->vocab, &score, err));
    TRY_GOTO(sdx_vocab_finish(&t->vocab, err));
    kept = sdx_arena_array(&t->arena, t->vocab.size, sizeof *kept);
    if (!kept) TRY_GOTO(sdx_fail_memory(err, t->vocab.size * sizeof *kept));
    memcpy(kept, score, t->vocab.size * sizeof *kept);
    status = sdx_unigram_init(t, kept, (int32_t)unknown, byte_fallback, err);
done:
    free(score);
    return status;
}

/* ---- which
 * ---------------------------------------------------------------------------------------------------- */

/* Files of before 2021 do not say their model's type. */
static const char *guess_type(const json_t *model, sdx_json_file *file)
{
    if (file->merges.at && file->vocab.at) return "BPE";
    if (json_object_get(model, "max_input_chars_per_word")) return "WordPiece";
    if (file->vocab.at && *file->vocab.at == '[') return "Unigram";
    return file->vocab.at ? "WordLevel" : "";
}

sdx_status sdx_json_read_model(sdx_tokenizer *t, sdx_json_file *file, sdx_error *err)
{
    static const struct {
        const char *type;
        model_reader read;
    } kinds[] = {{"WordPiece", read_wordpiece},
                 {"BPE", read_bpe},
                 {"Unigram", read_unigram},
                 {"WordLevel", read_word_level}};
    const json_t *model = json_object_get(file->root, "model");
    const char *type = json_object_get(model, "type") ? sdx_json_type(model) : guess_type(model, file);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (!strcmp(type, kinds[i].type)) return kinds[i].read(t, model, file, err);
    }
    return sdx_fail(err, SDX_ERR_UNSUPPORTED, "model \"%.60s\" is not supported", type);
}
