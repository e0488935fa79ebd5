/* spiece.c: spiece.model, sentencepiece.bpe.model and their like: what SentencePiece itself wrote, read with
 * protobuf-c. The file says pieces, scores and the normalization of characters; the rest of the pipeline is
 * what transformers builds for the tokenizer's class (its convert_slow_tokenizer). */
#include "spiece.h"

#include <stdlib.h>
#include <string.h>

#include "../base/file.h"
#include "../base/memory.h"
#include "class.h"

#define MARK "\xe2\x96\x81"
enum { PEGASUS_OFFSET = 103 };

typedef struct reader {
    sdx_tokenizer *t;
    const sdx_class *class;
    const sdx_tokenizer_config *config;
    const Spm__Model *model;
    double *score; /* [room], by id; owned */
    size_t count, room;
    sdx_error *err;
} reader;

/* ---- the vocabulary -------------------------------------------------------------------------------------- */

static sdx_status put(reader *r, const char *text, double score)
{
    size_t n = strlen(text);
    if (sdx_utf8_valid(text, n) != n) return sdx_fail(r->err, SDX_ERR_FILE, "piece %zu is not UTF-8", r->count);
    if (r->count == r->room) {
        size_t room = r->room ? r->room * 2 : 4096;
        double *grown = sdx_realloc(r->score, room * sizeof *grown);
        if (!grown) return sdx_fail_memory(r->err, room * sizeof *grown);
        r->score = grown;
        r->room = room;
    }
    r->score[r->count] = score;
    return sdx_vocab_put(r->t, (int64_t)r->count++, text, n, r->err);
}

/* "5," and the like: ALBERT and XLNet want their comma apart. */
static bool is_number_comma(const char *text)
{
    const char *end = text + strlen(text);
    if (end - text < 2 || end[-1] != ',') return false;
    return sdx_is_number(sdx_utf8_before(end - 1));
}

static sdx_status put_pieces(reader *r, size_t from)
{
    for (size_t i = from; i < r->model->n_pieces; i++) {
        const Spm__Piece *piece = r->model->pieces[i];
        const char *text = piece->piece ? piece->piece : "";
        size_t n = strlen(text);
        if (sdx_utf8_valid(text, n) != n) return sdx_fail(r->err, SDX_ERR_FILE, "piece %zu is not UTF-8", i);
        bool penalty = r->class->penalty && is_number_comma(text);
        bool first = r->class->pieces == SDX_PIECES_LLAMA && i < 3;
        TRY(put(r, text, first ? 0 : piece->score - (penalty ? 100.0 : 0.0)));
    }
    return SDX_OK;
}

static sdx_status put_list(reader *r, const char *const *texts)
{
    for (; *texts; texts++) TRY(put(r, *texts, 0));
    return SDX_OK;
}

static sdx_status extra_ids(const reader *r, int64_t *count)
{
    TRY(sdx_json_integer(r->config->config, "extra_ids", 100, count, r->err));
    return *count >= 0 && *count <= 10000
               ? SDX_OK
               : sdx_fail(r->err, SDX_ERR_FILE, "extra_ids is %lld", (long long)*count);
}

static sdx_status put_t5(reader *r)
{
    int64_t extra;
    TRY(put_pieces(r, 0));
    TRY(extra_ids(r, &extra));
    while (extra--) {
        char name[40];
        snprintf(name, sizeof name, "<extra_id_%lld>", (long long)extra);
        TRY(put(r, name, 0));
    }
    return SDX_OK;
}

/* <pad>, </s> and 101 more stand in front, and offset says that it is 103. */
static sdx_status put_pegasus(reader *r)
{
    static const char *const own[] = {"<pad>", "</s>", "<mask_1>", "<mask_2>", NULL};
    int64_t offset;
    TRY(sdx_json_integer(r->config->config, "offset", PEGASUS_OFFSET, &offset, r->err));
    if (offset != PEGASUS_OFFSET)
        return sdx_fail(r->err, SDX_ERR_UNSUPPORTED, "offset %lld of a Pegasus tokenizer", (long long)offset);
    TRY(put_list(r, own));
    for (int i = 2; i < PEGASUS_OFFSET; i++) {
        char name[40];
        snprintf(name, sizeof name, "<unk_%d>", i);
        TRY(put(r, name, -100));
    }
    return put_pieces(r, 2);
}

/* What stands before the file's pieces, how many of these are left out, what stands behind them; and the id of
 * the unknown token, -1 for the file's own. */
static const struct {
    const char *const before[6];
    size_t skip;
    const char *const after[8];
    int32_t unknown;
} pieces[] = {
    [SDX_PIECES_PLAIN] = {.unknown = -1},
    [SDX_PIECES_FAIRSEQ] = {{"<s>", "<pad>", "</s>", "<unk>"}, 3, {"<mask>"}, 3},
    [SDX_PIECES_NLLB] = {{"<s>", "<pad>", "</s>", "<unk>"}, 3, {NULL}, 3},
    [SDX_PIECES_XGLM] = {{"<s>", "<pad>", "</s>", "<unk>"}, 3,
                         {"<madeupword0>", "<madeupword1>", "<madeupword2>", "<madeupword3>", "<madeupword4>",
                          "<madeupword5>", "<madeupword6>"}, 3},
    [SDX_PIECES_CAMEMBERT] = {{"<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED"}, 1,
                              {"<mask>"}, 3},
    [SDX_PIECES_SEAMLESS] = {{"<pad>", "<unk>", "<s>", "</s>"}, 3, {NULL}, 1},
    [SDX_PIECES_BARTHEZ] = {.unknown = 3},
    [SDX_PIECES_LLAMA] = {.unknown = 0},
    [SDX_PIECES_GEMMA] = {{"<pad>", "<eos>", "<bos>"}, 3, {NULL}, 3},
    [SDX_PIECES_T5] = {.unknown = -1},
    [SDX_PIECES_PEGASUS] = {.unknown = -1},
};

static sdx_status put_vocab(reader *r)
{
    sdx_pieces_kind kind = r->class->pieces;
    if (kind == SDX_PIECES_T5) return put_t5(r);
    if (kind == SDX_PIECES_PEGASUS) return put_pegasus(r);
    TRY(put_list(r, pieces[kind].before));
    if (kind == SDX_PIECES_CAMEMBERT) r->score[r->count - 1] = -100;
    TRY(put_pieces(r, pieces[kind].skip));
    if (kind == SDX_PIECES_FAIRSEQ && r->class->languages) TRY(put_list(r, r->class->languages));
    return put_list(r, pieces[kind].after);
}

/* ---- the model ------------------------------------------------------------------------------------------- */

static sdx_status set_bpe(reader *r)
{
    sdx_model_step *m = &r->t->model;
    const Spm__Trainer *trainer = r->model->trainer;
    const char *unknown = trainer && trainer->unk_piece ? trainer->unk_piece : "<unk>";
    sdx_merge_list merges = {0};
    size_t n = strlen(unknown);
    m->unknown = (sdx_string){sdx_tokenizer_keep(r->t, unknown, n), n};
    if (!m->unknown.data) return sdx_fail_memory(r->err, n);
    m->unknown_id = sdx_trie_get(&r->t->vocab.trie, unknown, n);
    m->has_unknown = m->fuse_unknown = true;
    m->byte_fallback = r->class->rules == SDX_RULES_LLAMA;
    sdx_status status = sdx_spiece_merges(&r->t->vocab, r->score, r->count, &merges, r->err);
    if (status == SDX_OK) status = sdx_bpe_build(r->t, &merges, r->err);
    sdx_merge_list_fini(&merges);
    return status;
}

static sdx_status set_unigram(reader *r)
{
    double *score;
    int32_t unknown = pieces[r->class->pieces].unknown;
    if (unknown < 0) unknown = r->model->trainer ? r->model->trainer->unk_id : 0;
    if (r->class->pieces == SDX_PIECES_PEGASUS && unknown >= 0 && unknown < INT32_MAX - PEGASUS_OFFSET)
        unknown += PEGASUS_OFFSET;
    ARENA_NEW(&r->t->arena, score, r->t->vocab.size, r->err);
    memcpy(score, r->score, r->t->vocab.size * sizeof *score);
    return sdx_unigram_init(r->t, score, unknown, r->class->rules == SDX_RULES_LLAMA, r->err);
}

static sdx_status set_model(reader *r)
{
    int type = r->model->trainer ? (int)r->model->trainer->model_type : SPM__TRAINER__MODEL_TYPE__UNIGRAM;
    if (type == SPM__TRAINER__MODEL_TYPE__UNIGRAM) return set_unigram(r);
    if (type == SPM__TRAINER__MODEL_TYPE__BPE) return set_bpe(r);
    return sdx_fail(r->err, SDX_ERR_UNSUPPORTED, "SentencePiece's model type %d is neither Unigram nor BPE",
                    type);
}

/* ---- the steps ------------------------------------------------------------------------------------------- */

typedef struct step_list {
    sdx_step step[12];
    size_t count;
} step_list;

static void add(step_list *list, sdx_step step)
{
    list->step[list->count++] = step;
}

static sdx_status keep_steps(reader *r, const step_list *list, sdx_steps *out)
{
    ARENA_NEW(&r->t->arena, out->step, list->count, r->err);
    memcpy(out->step, list->step, list->count * sizeof *list->step);
    out->count = list->count;
    return SDX_OK;
}

static sdx_step replace_string(const char *from, const char *to)
{
    return (sdx_step){
        .run = sdx_normalize_replace, .pattern = {from, strlen(from)}, .content = {to, strlen(to)}};
}

static sdx_step replace_spaces(const char *to)
{
    return (sdx_step){.run = sdx_normalize_replace, .content = {to, strlen(to)}};
}

static sdx_status add_charsmap(reader *r, step_list *list)
{
    const Spm__Normalizer *n = r->model->normalizer;
    if (!n || !n->precompiled_charsmap.len) return SDX_OK;
    sdx_step step = {.run = sdx_normalize_precompiled, .prepare = sdx_normalize_precompiled_prepare};
    TRY(sdx_charsmap_read(r->t, n->precompiled_charsmap.data, n->precompiled_charsmap.len, &step.charmap,
                          r->err));
    add(list, step);
    return SDX_OK;
}

static sdx_status add_case(reader *r, step_list *list)
{
    bool lower;
    TRY(sdx_json_bool(r->config->config, "do_lower_case", r->class->lowercase, &lower, r->err));
    if (lower) add(list, (sdx_step){.run = sdx_normalize_lowercase});
    return SDX_OK;
}

static sdx_status add_accents_and_case(reader *r, step_list *list)
{
    bool keep;
    TRY(sdx_json_bool(r->config->config, "keep_accents", r->class->keep_accents, &keep, r->err));
    if (!keep) {
        add(list, (sdx_step){.run = sdx_normalize_form, .compatibility = true});
        add(list, (sdx_step){.run = sdx_normalize_strip_accents});
    }
    return add_case(r, list);
}

static sdx_status add_normalizers(reader *r, step_list *list, bool legacy, bool add_space)
{
    bool rembert = r->class->rules == SDX_RULES_REMBERT;
    switch (r->class->rules) {
    case SDX_RULES_ALBERT:
    case SDX_RULES_REMBERT:
        add(list, replace_string("``", "\""));
        add(list, replace_string("''", "\""));
        if (rembert) add(list, replace_spaces(" "));
        TRY(add_accents_and_case(r, list));
        TRY(add_charsmap(r, list));
        if (!rembert) add(list, replace_spaces(" "));
        return SDX_OK;
    case SDX_RULES_DEBERTA:
        TRY(add_case(r, list));
        add(list, (sdx_step){.run = sdx_normalize_strip, .left = true, .right = true});
        TRY(add_charsmap(r, list));
        add(list, replace_spaces(" "));
        return SDX_OK;
    case SDX_RULES_LLAMA:
        if (!legacy) return SDX_OK;
        if (add_space) add(list, (sdx_step){.run = sdx_normalize_prepend, .content = {MARK, 3}});
        add(list, replace_string(" ", MARK));
        return SDX_OK;
    default:
        TRY(add_charsmap(r, list));
        add(list, (sdx_step){.run = sdx_normalize_strip, .right = true});
        add(list, replace_spaces(MARK));
        return SDX_OK;
    }
}

static sdx_status add_splits(reader *r, step_list *list, sdx_prepend prepend, bool legacy)
{
    bool punctuation, llama = r->class->rules == SDX_RULES_LLAMA;
    TRY(sdx_json_bool(r->config->config, "split_by_punct", false, &punctuation, r->err));
    if (punctuation && r->class->rules == SDX_RULES_DEBERTA)
        add(list, (sdx_step){.run = sdx_split_punctuation, .behavior = SDX_SPLIT_ISOLATED});
    if (r->class->pieces == SDX_PIECES_PEGASUS)
        add(list, (sdx_step){.run = sdx_split_spaces, .prepare = sdx_split_spaces_prepare});
    if (!llama || !legacy) {
        add(list,
            (sdx_step){.run = sdx_split_metaspace, .pattern = {MARK, 3}, .prepend = prepend, .split = !llama});
    }
    return SDX_OK;
}

static void add_decoders(const reader *r, step_list *list, sdx_prepend prepend, bool add_space)
{
    if (r->class->rules != SDX_RULES_LLAMA) {
        add(list, (sdx_step){.run = sdx_decode_metaspace, .pattern = {MARK, 3}, .prepend = prepend});
        return;
    }
    add(list, (sdx_step){.run = sdx_decode_replace, .pattern = {MARK, 3}, .content = {" ", 1}});
    add(list, (sdx_step){.run = sdx_decode_byte_fallback});
    add(list, (sdx_step){.run = sdx_decode_fuse});
    if (add_space) add(list, (sdx_step){.run = sdx_decode_strip, .pattern = {" ", 1}, .start = 1});
}

/* "legacy" and "add_prefix_space" belong to some classes; a null of theirs is a no. */
static sdx_status read_spacing(const reader *r, bool *legacy, bool *add_space)
{
    const json_t *config = r->config->config;
    *legacy = r->class->pieces != SDX_PIECES_SEAMLESS;
    *add_space = r->class->pieces != SDX_PIECES_GEMMA;
    if (!r->class->spacing) return SDX_OK;
    TRY(sdx_json_bool(config, "legacy", true, legacy, r->err));
    bool if_null = !json_object_get(config, "add_prefix_space");
    return sdx_json_bool(config, "add_prefix_space", if_null, add_space, r->err);
}

static sdx_status set_steps(reader *r)
{
    step_list normalizers = {.count = 0}, splits = {.count = 0}, decoders = {.count = 0};
    bool legacy, add_space;
    TRY(read_spacing(r, &legacy, &add_space));
    sdx_prepend prepend = !add_space ? SDX_PREPEND_NEVER : legacy ? SDX_PREPEND_ALWAYS : SDX_PREPEND_FIRST;
    TRY(add_normalizers(r, &normalizers, legacy, add_space));
    TRY(add_splits(r, &splits, prepend, legacy));
    add_decoders(r, &decoders, prepend, add_space);
    TRY(keep_steps(r, &normalizers, &r->t->normalizers));
    TRY(keep_steps(r, &splits, &r->t->pre_tokenizers));
    return keep_steps(r, &decoders, &r->t->decoders);
}

/* ---- special tokens -------------------------------------------------------------------------------------- */

/* Control pieces and those the trainer was told of are found in the text itself. */
static sdx_status add_file_tokens(const reader *r)
{
    bool gemma = r->class->pieces == SDX_PIECES_GEMMA; /* whose turns are special, too */
    for (size_t i = 0; i < r->model->n_pieces; i++) {
        const Spm__Piece *piece = r->model->pieces[i];
        bool control = piece->type == SPM__PIECE__TYPE__CONTROL;
        if ((!control && piece->type != SPM__PIECE__TYPE__USER_DEFINED) || !piece->piece) continue;
        bool turn = !strcmp(piece->piece, "<start_of_turn>") || !strcmp(piece->piece, "<end_of_turn>");
        sdx_added_token token = {.text = {piece->piece, strlen(piece->piece)}, .id = -1};
        token.special = control || (gemma && turn);
        TRY(sdx_tokenizer_add(r->t, token, r->err));
    }
    return SDX_OK;
}

/* What the class itself calls special beyond the seven. */
static sdx_status add_class_tokens(const reader *r)
{
    static const char *const camembert[] = {"<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED", NULL};
    static const char *const xlnet[] = {"<eop>", "<eod>", NULL};
    static const char *const none[] = {NULL};
    int64_t extra = 0;
    const char *const *list = r->class->pieces == SDX_PIECES_CAMEMBERT ? camembert
                              : r->class->pieces == SDX_PIECES_XGLM    ? pieces[SDX_PIECES_XGLM].after
                              : r->class->layout == SDX_LAYOUT_XLNET   ? xlnet
                                                                       : none;
    for (; *list; list++) TRY(sdx_tokenizer_add_special(r->t, *list, r->err));
    if (r->class->pieces == SDX_PIECES_T5) TRY(extra_ids(r, &extra));
    for (int i = 2; r->class->pieces == SDX_PIECES_PEGASUS && i < PEGASUS_OFFSET; i++) {
        char name[40];
        snprintf(name, sizeof name, "<unk_%d>", i);
        TRY(sdx_tokenizer_add_special(r->t, name, r->err));
    }
    for (int64_t i = 0; i < extra; i++) {
        char name[40];
        snprintf(name, sizeof name, "<extra_id_%lld>", (long long)i);
        TRY(sdx_tokenizer_add_special(r->t, name, r->err));
    }
    return SDX_OK;
}

/* ---- the file -------------------------------------------------------------------------------------------- */

static sdx_status build(reader *r)
{
    if (!r->class) return sdx_class_refuse(r->config, r->err);
    TRY(put_vocab(r));
    TRY(sdx_vocab_finish(&r->t->vocab, r->err));
    TRY(set_model(r));
    TRY(set_steps(r));
    TRY(add_file_tokens(r));
    TRY(sdx_class_apply(r->class, r->config, r->t, r->err));
    return add_class_tokens(r);
}

/* Without a configuration, the usual names of the files tell. */
static const char *class_by_name(const char *path)
{
    const char *name = sdx_path_basename(path);
    if (!strcmp(name, "sentencepiece.bpe.model")) return "XLMRoberta";
    if (!strcmp(name, "spm.model")) return "DebertaV2";
    if (!strcmp(name, "tokenizer.model")) return "Llama";
    return "T5";
}

static sdx_status read_model(sdx_tokenizer *t, const char *path, const sdx_tokenizer_config *config,
                             const Spm__Model *model, sdx_error *err)
{
    reader r = {.t = t, .config = config, .model = model, .err = err};
    r.class = sdx_class_find(config, class_by_name(path));
    sdx_status status = build(&r);
    free(r.score);
    return status;
}

sdx_status sdx_spiece_open(const char *path, Spm__Model **out, sdx_error *err)
{
    enum { FILE_LIMIT = 256 << 20 };
    char *data;
    size_t size;
    TRY(sdx_file_read(path, FILE_LIMIT, &data, &size, err));
    *out = spm__model__unpack(NULL, size, (const uint8_t *)data);
    free(data);
    return *out ? SDX_OK : sdx_fail(err, SDX_ERR_FILE, "%s: is not a SentencePiece model", path);
}

sdx_status sdx_tokenizer_read_spiece(sdx_tokenizer *t, const char *path, sdx_error *err)
{
    sdx_tokenizer_config config;
    Spm__Model *model;
    TRY(sdx_tokenizer_config_open(path, &config, err));
    sdx_status status = sdx_spiece_open(path, &model, err);
    if (status == SDX_OK) {
        status = read_model(t, path, &config, model, err);
        spm__model__free_unpacked(model, NULL);
        if (status != SDX_OK) sdx_error_context(err, "%s", path);
    }
    sdx_tokenizer_config_close(&config);
    return status;
}
