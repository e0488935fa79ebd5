/* vocab_txt.c: vocab.txt, one token a line, with tokenizer_config.json beside it: the tokenizers that BERT's
 * own code wrote. It becomes the pipeline that transformers' BertTokenizerFast builds from the same files. */
#include <stdlib.h>
#include <string.h>

#include "../base/file.h"
#include "class.h"

enum { FILE_LIMIT = 128 << 20, MAX_CHARS = 100 };

/* Lines end at \n, \r\n or \r, as Python reads them. */
static sdx_status put_lines(sdx_tokenizer *t, const char *data, size_t size, sdx_error *err)
{
    int64_t id = 0;
    for (size_t i = 0; i < size; id++) {
        size_t end = i;
        while (end < size && data[end] != '\n' && data[end] != '\r') end++;
        if (sdx_utf8_valid(data + i, end - i) != end - i) {
            return sdx_fail(err, SDX_ERR_FILE, "line %lld is not UTF-8", (long long)id + 1);
        }
        TRY(sdx_vocab_put(t, id, data + i, end - i, err));
        if (end + 1 < size && data[end] == '\r' && data[end + 1] == '\n') end++;
        i = end + 1;
    }
    return sdx_vocab_finish(&t->vocab, err);
}

static sdx_status read_lines(sdx_tokenizer *t, const char *path, sdx_error *err)
{
    char *data;
    size_t size;
    TRY(sdx_file_read(path, FILE_LIMIT, &data, &size, err));
    sdx_status status = put_lines(t, data, size, err);
    free(data);
    if (status != SDX_OK) sdx_error_context(err, "%s", path);
    return status;
}

static sdx_status set_bert_steps(sdx_tokenizer *t, const json_t *config, sdx_error *err)
{
    sdx_step normalizer = {
        .run = sdx_normalize_bert, .prepare = sdx_normalize_bert_prepare, .clean_text = true};
    TRY(sdx_json_bool(config, "do_lower_case", true, &normalizer.lowercase, err));
    TRY(sdx_json_bool(config, "strip_accents", normalizer.lowercase, &normalizer.strip_accents, err));
    TRY(sdx_json_bool(config, "tokenize_chinese_chars", true, &normalizer.han, err));
    sdx_step *step;
    ARENA_NEW(&t->arena, step, 3, err);
    step[0] = normalizer;
    step[1] = (sdx_step){.run = sdx_split_bert, .prepare = sdx_split_bert_prepare};
    step[2] = (sdx_step){.run = sdx_decode_wordpiece, .pattern = {"##", 2}, .cleanup = true};
    t->normalizers = (sdx_steps){&step[0], 1};
    t->pre_tokenizers = (sdx_steps){&step[1], 1};
    t->decoders = (sdx_steps){&step[2], 1};
    return SDX_OK;
}

static sdx_status set_model(sdx_tokenizer *t, const sdx_class *class, const sdx_tokenizer_config *c,
                            sdx_error *err)
{
    const char *unknown = sdx_tokenizer_config_token(c, "unk_token");
    if (!unknown) unknown = class->special[0];
    size_t n = strlen(unknown);
    t->model.unknown = (sdx_string){sdx_tokenizer_keep(t, unknown, n), n};
    if (!t->model.unknown.data) return sdx_fail_memory(err, n);
    t->model.unknown_id = sdx_trie_get(&t->vocab.trie, unknown, n);
    sdx_wordpiece_init(&t->model, &t->vocab, (sdx_string){"##", 2}, MAX_CHARS);
    return SDX_OK;
}

static sdx_status build(sdx_tokenizer *t, const sdx_tokenizer_config *c, sdx_error *err)
{
    const sdx_class *class = sdx_class_find(c, "Bert");
    if (!class) return sdx_class_refuse(c, err);
    TRY(set_bert_steps(t, c->config, err));
    TRY(set_model(t, class, c, err));
    return sdx_class_apply(class, c, t, err);
}

sdx_status sdx_tokenizer_read_vocab_txt(sdx_tokenizer *t, const char *path, sdx_error *err)
{
    sdx_tokenizer_config config;
    TRY(read_lines(t, path, err));
    TRY(sdx_tokenizer_config_open(path, &config, err));
    sdx_status status = build(t, &config, err);
    sdx_tokenizer_config_close(&config);
    if (status != SDX_OK) sdx_error_context(err, "%s", path);
    return status;
}
