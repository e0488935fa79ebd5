/* generate.c: text to text. A decoder scores, rules forbid and force, greedy choice or a beam search decides.
 * The prompt is run as one row: the first step of a beam search is the same for all its rows. */
#include "generate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../base/file.h"
#include "../base/memory.h"
#include "../tokenizer/tokenizer.h"

struct sdx_generator {
    sdx_tokenizer *tokenizer;
    sdx_decoder *decoder;
    sdx_rules rules;
    size_t max_source; /* tokens of a text; 0: no limit */
    int64_t *ids;      /* the last result, [room]; owned */
    size_t count, room;
};

/* ---- opening --------------------------------------------------------------------------------------------- */

static sdx_status read_rules(sdx_generator *g, const sdx_task_options *o, sdx_error *err)
{
    const char *places[] = {o->model, o->tokenizer ? o->tokenizer : o->model};
    char *folders[2];
    sdx_status status = SDX_OK;
    for (int i = 0; i < 2; i++)
        folders[i] = sdx_is_directory(places[i]) ? sdx_strdup(places[i]) : sdx_path_dirname(places[i]);
    if (folders[0] && folders[1])
        status = sdx_rules_read((const char *const *)folders, 2, &g->rules, err);
    else
        status = sdx_fail_memory(err, 1);
    free(folders[0]);
    free(folders[1]);
    return status;
}

sdx_status sdx_generator_open(const sdx_task_options *o, sdx_generator **out, sdx_error *err)
{
    if (!o->model) return sdx_fail(err, SDX_ERR_USAGE, "no model given");
    sdx_generator *g = sdx_calloc(1, sizeof *g);
    if (!g) return sdx_fail_memory(err, sizeof *g);
    sdx_status status;
    TRY_GOTO(sdx_tokenizer_open(o->tokenizer ? o->tokenizer : o->model, &g->tokenizer, err));
    TRY_GOTO(read_rules(g, o, err));
    TRY_GOTO(sdx_decoder_open(o->model, &o->run, &g->decoder, err));
    g->max_source = o->max_length ? o->max_length : g->tokenizer->model_max_length;
    if (sdx_decoder_has_encoder(g->decoder) && g->rules.start < 0)
        status = sdx_fail(err, SDX_ERR_FILE, "%s: its configuration has no decoder_start_token_id", o->model);
done:
    if (status != SDX_OK)
        sdx_generator_free(g);
    else
        *out = g;
    return status;
}

void sdx_generator_free(sdx_generator *g)
{
    if (!g) return;
    sdx_decoder_free(g->decoder);
    sdx_tokenizer_free(g->tokenizer);
    sdx_rules_free(&g->rules);
    free(g->ids);
    free(g);
}

sdx_generate_options sdx_generator_defaults(const sdx_generator *g)
{
    return g->rules.options;
}
const sdx_tokenizer *sdx_generator_tokenizer(const sdx_generator *g)
{
    return g->tokenizer;
}

/* ---- searching ------------------------------------------------------------------------------------------- */

static sdx_status keep(sdx_generator *g, const int64_t *ids, size_t n, size_t room, sdx_error *err)
{
    if (room > g->room) {
        int64_t *grown = sdx_realloc(g->ids, room * sizeof *grown);
        if (!grown) return sdx_fail_memory(err, room * sizeof *grown);
        g->ids = grown;
        g->room = room;
    }
    memcpy(g->ids, ids, n * sizeof *ids);
    g->count = n;
    return SDX_OK;
}

static size_t best_of(const float *x, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

static sdx_status search_greedily(sdx_generator *g, const sdx_rules *rules, const int64_t *prompt, size_t n,
                                  sdx_error *err)
{
    size_t limit = rules->options.max_length, vocab;
    float *scores;
    TRY(keep(g, prompt, n, limit, err));
    for (bool done = false; !done && g->count < limit; g->count++) {
        TRY(sdx_decoder_step(g->decoder, g->ids, limit, g->count, (size_t[]){0}, 1, &scores, &vocab, err));
        sdx_rules_apply(rules, g->ids, g->count, scores, vocab);
        g->ids[g->count] = (int64_t)best_of(scores, vocab);
        done = sdx_rules_ends(rules, g->ids[g->count]);
    }
    return SDX_OK;
}

/* log_softmax in place; the sum in double. */
static void log_softmax(float *x, size_t n)
{
    double max = x[best_of(x, n)], sum = 0;
    for (size_t i = 0; i < n; i++) sum += exp(x[i] - max);
    double shift = max + log(sum);
    for (size_t i = 0; i < n; i++) x[i] = (float)(x[i] - shift);
}

/* scores[rows] from the decoder into all[beams], all ready for the search; one row stands for all. */
static void prepare_scores(const sdx_rules *rules, const int64_t *ids, size_t stride, size_t length,
                           float *scores, size_t rows, size_t vocab, float *all)
{
    for (size_t r = 0; r < rules->options.num_beams; r++) {
        float *row = all + r * vocab;
        if (r < rows) log_softmax(scores + r * vocab, vocab);
        memcpy(row, scores + (r < rows ? r : 0) * vocab, vocab * sizeof *row);
        sdx_rules_apply(rules, ids + r * stride, length, row, vocab);
    }
}

static sdx_status search_beams(sdx_generator *g, const sdx_rules *rules, const int64_t *prompt, size_t n,
                               sdx_error *err)
{
    static const size_t first_row[SDX_MAX_BEAMS];
    size_t stride, length, vocab, rows = 1, before = 1, beams = rules->options.num_beams;
    const size_t *parent;
    float *scores, *all = NULL;
    sdx_beam *beam;
    TRY(sdx_beam_create(rules, prompt, n, &beam, err));
    sdx_status status;
    for (bool done = false; !done; before = rows, rows = beams) {
        const int64_t *ids = sdx_beam_rows(beam, &stride, &length, &parent);
        if (before == 1) parent = first_row;
        TRY_GOTO(sdx_decoder_step(g->decoder, ids, stride, length, parent, rows, &scores, &vocab, err));
        if (!all) all = sdx_malloc(beams * vocab * sizeof *all);
        if (!all) {
            status = sdx_fail_memory(err, beams * vocab * sizeof *all);
            goto done;
        }
        prepare_scores(rules, ids, stride, length, scores, rows, vocab, all);
        TRY_GOTO(sdx_beam_step(beam, all, vocab, &done, err));
    }
    const int64_t *best = sdx_beam_best(beam, &length);
    status = keep(g, best, length, length, err);
done:
    free(all);
    sdx_beam_free(beam);
    return status;
}

/* ---- running --------------------------------------------------------------------------------------------- */

sdx_status sdx_generator_run(sdx_generator *g, const sdx_generate_options *options, sdx_text text,
                             const int64_t **ids, size_t *count, sdx_error *err)
{
    sdx_encoding source;
    sdx_rules rules = g->rules; /* its lists stay the generator's */
    if (options) rules.options = *options;
    TRY(sdx_tokenizer_encode(g->tokenizer, text.data, text.length, NULL, 0, g->max_source, &source, err));
    bool encoder = sdx_decoder_has_encoder(g->decoder);
    const int64_t *prompt = encoder ? &rules.start : source.ids;
    size_t n = encoder ? 1 : source.count;
    sdx_status status;
    if (!source.count) {
        status = sdx_fail(err, SDX_ERR_USAGE, "the text has no tokens");
        goto done;
    }
    TRY_GOTO(sdx_rules_fix_lengths(&rules, n, err));
    TRY_GOTO(sdx_decoder_begin(g->decoder, source.ids, source.count, err));
    TRY_GOTO(rules.options.num_beams == 1 ? search_greedily(g, &rules, prompt, n, err)
                                          : search_beams(g, &rules, prompt, n, err));
    *ids = g->ids;
    *count = g->count;
done:
    sdx_encoding_free(&source);
    return status;
}
