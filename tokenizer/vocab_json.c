/* vocab_json.c: vocab.json, a token's id by its text. With merges.txt beside it, it is byte-level BPE as
 * GPT-2's code wrote it (RoBERTa, BART, ...); alone, it is the characters of a CTC model (Wav2Vec2). */
#include <stdlib.h>
#include <string.h>

#include "../base/file.h"
#include "class.h"

enum { FILE_LIMIT = 128 << 20 };

sdx_status sdx_tokenizer_take_vocab_json(sdx_tokenizer *t, const char *path, sdx_error *err)
{
    char *data;
    size_t size;
    TRY(sdx_file_read(path, FILE_LIMIT, &data, &size, err));
    sdx_json_cursor c = {data, data + size};
    sdx_status status = sdx_utf8_valid(data, size) == size ? sdx_json_take_vocab(t, &c, err)
                                                           : sdx_fail(err, SDX_ERR_FILE, "is not UTF-8");
    free(data);
    if (status != SDX_OK) sdx_error_context(err, "%s", path);
    return status;
}

static sdx_status set_step(sdx_tokenizer *t, sdx_steps *out, const sdx_step *step, size_t count, sdx_error *err)
{
    ARENA_NEW(&t->arena, out->step, count, err);
    memcpy(out->step, step, count * sizeof *step);
    out->count = count;
    return SDX_OK;
}

/* ---- merges.txt -------------------------------------------------------------------------------------------
 */

/* As transformers reads it: the first line is a heading whatever it says, and a last line without its end does
 * not count. */
static sdx_status parse_merges(char *data, size_t size, sdx_merge_list *list, sdx_error *err)
{
    char *line = memchr(data, '\n', size), *end;
    for (size_t number = 2; line; line = end, number++) {
        line++;
        end = memchr(line, '\n', size - (size_t)(line - data));
        if (!end) break;
        size_t n = (size_t)(end - line);
        sdx_string left, right;
        if (n && line[n - 1] == '\r') n--;
        if (sdx_utf8_valid(line, n) != n) return sdx_fail(err, SDX_ERR_FILE, "line %zu is not UTF-8", number);
        line[n] = 0;
        TRY(sdx_split_merge((sdx_string){line, n}, &left, &right, err));
        TRY(sdx_merge_list_add(list, left, right, err));
    }
    return SDX_OK;
}

static sdx_status read_merges(sdx_tokenizer *t, const char *path, sdx_error *err)
{
    char *data;
    size_t size;
    sdx_merge_list list = {0};
    TRY(sdx_file_read(path, FILE_LIMIT, &data, &size, err));
    sdx_status status = parse_merges(data, size, &list, err);
    if (status == SDX_OK) status = sdx_bpe_build(t, &list, err);
    sdx_merge_list_fini(&list);
    free(data);
    if (status != SDX_OK) sdx_error_context(err, "%s", path);
    return status;
}

/* ---- byte-level BPE
 * ------------------------------------------------------------------------------------------ */

static sdx_status build_bpe(sdx_tokenizer *t, const sdx_tokenizer_config *c, sdx_error *err)
{
    bool roberta = sdx_trie_get(&t->vocab.trie, "<s>", 3) >= 0 && sdx_trie_get(&t->vocab.trie, "</s>", 4) >= 0;
    const sdx_class *class = sdx_class_find(c, roberta ? "Roberta" : "GPT2");
    if (!class) return sdx_class_refuse(c, err);
    sdx_step split = {.run = sdx_split_bytes, .words = true}, decode = {.run = sdx_decode_bytes};
    TRY(sdx_json_bool(c->config, "add_prefix_space", false, &split.add_space, err));
    TRY(set_step(t, &t->pre_tokenizers, &split, 1, err));
    TRY(set_step(t, &t->decoders, &decode, 1, err));
    return sdx_class_apply(class, c, t, err);
}

/* ---- CTC
 * ------------------------------------------------------------------------------------------------------ */

/* Tokens of several characters are found before the text is taken apart; spaces around them belong to them. */
static sdx_status add_long_tokens(sdx_tokenizer *t, sdx_error *err)
{
    for (size_t id = 0; id < t->vocab.size; id++) {
        sdx_string text = t->vocab.token[id].text;
        const unsigned char *p = (const unsigned char *)text.data;
        if (!text.size) continue;
        sdx_utf8_next(&p);
        if ((size_t)(p - (const unsigned char *)text.data) == text.size) continue;
        TRY(sdx_tokenizer_add(t, (sdx_added_token){text, (int32_t)id, .lstrip = true, .rstrip = true}, err));
    }
    return SDX_OK;
}

static sdx_status set_ctc_steps(sdx_tokenizer *t, const sdx_tokenizer_config *c, sdx_string pad, sdx_error *err)
{
    sdx_string delimiter, space;
    bool lower;
    TRY(sdx_json_string(t, c->config, "word_delimiter_token", "|", &delimiter, err));
    TRY(sdx_json_string(t, c->config, "replace_word_delimiter_char", " ", &space, err));
    TRY(sdx_json_bool(c->config, "do_lower_case", false, &lower, err));
    if (!delimiter.size) return sdx_fail(err, SDX_ERR_FILE, "word_delimiter_token is empty");
    sdx_step normalize[] = {{.run = sdx_normalize_replace, .pattern = {" ", 1}, .content = delimiter},
                            {.run = sdx_normalize_uppercase}};
    sdx_step split = {.run = sdx_split_fixed, .start = 1};
    sdx_step decode[] = {{.run = sdx_decode_ctc, .pattern = pad},
                         {.run = sdx_decode_replace, .pattern = delimiter, .content = space},
                         {.run = sdx_normalize_strip, .left = true, .right = true},
                         {.run = sdx_normalize_lowercase}};
    TRY(set_step(t, &t->normalizers, normalize, lower ? 2 : 1, err));
    TRY(set_step(t, &t->pre_tokenizers, &split, 1, err));
    return set_step(t, &t->decoders, decode, lower ? 4 : 3, err);
}

static sdx_status build_ctc(sdx_tokenizer *t, const sdx_tokenizer_config *c, sdx_error *err)
{
    const sdx_class *class = sdx_class_find(c, "Wav2Vec2CTC");
    if (!class || strcmp(class->name, "Wav2Vec2CTC"))
        return sdx_fail(err, SDX_ERR_FILE, "merges.txt is missing beside it");
    TRY(sdx_class_apply(class, c, t, err));
    TRY(add_long_tokens(t, err));
    t->model.run = sdx_word_level_run;
    t->model.unknown = (sdx_string){"<unk>", 5};
    t->model.unknown_id = t->unk_id;
    const char *pad = sdx_tokenizer_token(t, t->pad_id);
    return set_ctc_steps(t, c, (sdx_string){pad, pad ? strlen(pad) : 0}, err);
}

/* ---- which
 * ------------------------------------------------------------------------------------------------------ */

static sdx_status read_with(sdx_tokenizer *t, const char *path, const char *merges,
                            const sdx_tokenizer_config *config, sdx_error *err)
{
    bool bpe = sdx_file_exists(merges);
    TRY(sdx_tokenizer_take_vocab_json(t, path, err));
    if (bpe) TRY(read_merges(t, merges, err));
    sdx_status status = bpe ? build_bpe(t, config, err) : build_ctc(t, config, err);
    if (status != SDX_OK) sdx_error_context(err, "%s", path);
    return status;
}

sdx_status sdx_tokenizer_read_vocab_json(sdx_tokenizer *t, const char *path, sdx_error *err)
{
    sdx_tokenizer_config config;
    TRY(sdx_tokenizer_config_open(path, &config, err));
    char *folder = sdx_path_dirname(path), *merges = folder ? sdx_path_join(folder, "merges.txt") : NULL;
    sdx_status status = merges ? read_with(t, path, merges, &config, err) : sdx_fail_memory(err, strlen(path));
    free(merges);
    free(folder);
    sdx_tokenizer_config_close(&config);
    return status;
}
