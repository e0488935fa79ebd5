/* generate.c: text to text. A decoder scores, rules forbid and force, a sampler or a beam search decides.
 *
 * Texts of like length run together, a search for each; a step of the decoder is one for all rows of all searches. In
 * the first one a text is one row, since all rows of its search begin alike; a search that is over takes its rows away.
 * Rules and searches see no padding, so that a text's answer is what it would be alone. */
#include "generate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../base/arena.h"
#include "../base/file.h"
#include "../base/memory.h"
#include "../base/parallel.h"
#include "../tokenizer/tokenizer.h"

enum { BATCH_TOKENS = 4096 };

struct sdx_generator {
    sdx_tokenizer *tokenizer;
    sdx_decoder *decoder;
    sdx_rules rules;
    size_t max_source;   /* tokens of a text; 0: no limit */
    size_t batch_tokens; /* padded tokens of a batch, counting rows of the searches */
    int threads;
    sdx_arena results; /* ids of the last run */
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
    g->batch_tokens = o->batch_tokens ? o->batch_tokens : BATCH_TOKENS;
    g->threads = o->run.threads > 0 ? o->run.threads : sdx_default_threads();
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
    sdx_arena_fini(&g->results);
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

/* ---- one search ------------------------------------------------------------------------------------------ */

/* For the answers to one text: a beam search, or samplers of one token at a time. */
typedef struct hunt {
    size_t text; /* its place in the run */
    sdx_rules rules;
    const int64_t *prompt;
    size_t n; /* of the prompt; rows have length - n new tokens */
    sdx_beam *beam;
    sdx_sampler *sampler;
    bool done;
    const int64_t *ids; /* the rows to go on with, stride apart */
    size_t stride, length, rows;
    const size_t *parent;
    size_t base, called; /* its rows in the last call: from base on */
} hunt;

static sdx_status hunt_begin(hunt *h, sdx_error *err)
{
    const sdx_generate_options *o = &h->rules.options;
    TRY(sdx_rules_fix_lengths(&h->rules, h->n, err));
    if (o->num_beams > 1) return sdx_beam_create(&h->rules, h->prompt, h->n, &h->beam, err);
    size_t first = (o->first_text + h->text) * o->num_return_sequences;
    return sdx_sampler_create(&h->rules, h->prompt, h->n, first, o->num_return_sequences, &h->sampler, err);
}

static void hunt_end(hunt *h)
{
    sdx_beam_free(h->beam);
    sdx_sampler_free(h->sampler);
}

static void hunt_look(hunt *h)
{
    h->rows = h->rules.options.num_beams;
    if (h->beam) {
        h->ids = sdx_beam_rows(h->beam, &h->stride, &h->length, &h->parent);
    } else {
        h->ids = sdx_sampler_rows(h->sampler, &h->stride, &h->rows, &h->parent);
        h->length = h->called ? h->length + 1 : h->n;
    }
    if (!h->called) h->rows = 1;
}

static sdx_status hunt_step(hunt *h, const float *scores, size_t vocab, sdx_error *err)
{
    if (h->beam) return sdx_beam_step(h->beam, scores, h->called, vocab, &h->done, err);
    return sdx_sampler_step(h->sampler, scores, h->called, vocab, &h->done, err);
}

static const int64_t *hunt_result(const hunt *h, size_t i, size_t *length)
{
    return h->beam ? sdx_beam_result(h->beam, i, length) : sdx_sampler_result(h->sampler, i, length);
}

/* ---- a batch of searches --------------------------------------------------------------------------------- */

typedef struct batch {
    sdx_generator *g;
    hunt *hunts; /* [count]; owned, as are the arrays */
    size_t count, rows;
    size_t width;   /* of a padded row: the longest prompt, and what may follow */
    size_t longest; /* prompt */
    int64_t *ids;   /* [rows, width]: padded on the left */
    size_t *parent; /* [rows] */
    hunt **owner;   /* [rows] */
    float *scores;  /* [rows, vocab] of the step: the decoder's */
    size_t vocab;
} batch;

static sdx_status batch_allocate(batch *b, const sdx_generate_options *o, sdx_error *err)
{
    size_t rows = b->count * (o->num_beams > 1 ? o->num_beams : o->num_return_sequences);
    for (size_t i = 0; i < b->count; i++) {
        hunt *h = &b->hunts[i];
        size_t room = h->rules.options.max_length - h->n;
        if (h->n > b->longest) b->longest = h->n;
        if (room > b->width) b->width = room;
    }
    b->width += b->longest;
    b->ids = sdx_calloc(rows, b->width * sizeof *b->ids);
    b->parent = sdx_calloc(rows, sizeof *b->parent);
    b->owner = sdx_calloc(rows, sizeof *b->owner);
    return b->ids && b->parent && b->owner ? SDX_OK : sdx_fail_memory(err, rows * b->width * sizeof *b->ids);
}

/* The rows of all searches that are not over, one under the other; their common length. */
static size_t batch_collect(batch *b)
{
    size_t length = 0;
    b->rows = 0;
    for (size_t i = 0; i < b->count; i++) {
        hunt *h = &b->hunts[i];
        if (h->done) continue;
        hunt_look(h);
        size_t pad = b->longest - h->n, base = b->rows;
        for (size_t r = 0; r < h->rows; r++, b->rows++) {
            int64_t *row = b->ids + b->rows * b->width;
            memset(row, 0, pad * sizeof *row);
            memcpy(row + pad, h->ids + r * h->stride, h->length * sizeof *row);
            b->parent[b->rows] = h->called == 1 ? h->base : h->base + h->parent[r];
            if (!h->called) b->parent[b->rows] = b->rows;
            b->owner[b->rows] = h;
        }
        h->base = base;
        h->called = h->rows;
        length = pad + h->length;
    }
    return length;
}

/* log_softmax in place, in the order of torch's: float32 but for the sum. */
static void log_softmax(float *x, size_t n)
{
    float max = -INFINITY;
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        if (x[i] > max) max = x[i];
    for (size_t i = 0; i < n; i++) sum += expf(x[i] - max);
    float rest = (float)log(sum);
    for (size_t i = 0; i < n; i++) x[i] = x[i] - max - rest;
}

static void prepare_rows(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    batch *b = context;
    for (size_t r = (size_t)begin; r < (size_t)end; r++) {
        const hunt *h = b->owner[r];
        float *row = b->scores + r * b->vocab;
        if (h->beam) log_softmax(row, b->vocab);
        sdx_rules_apply(&h->rules, h->ids + (r - h->base) * h->stride, h->length, row, b->vocab);
        if (h->beam && h->rules.renormalize) log_softmax(row, b->vocab);
    }
}

static sdx_status tell(const hunt *h, sdx_error *err)
{
    const sdx_generate_options *o = &h->rules.options;
    size_t length;
    if (!o->on_token) return SDX_OK;
    const int64_t *ids = hunt_result(h, 0, &length);
    if (o->on_token(o->context, h->text, ids[length - 1])) return SDX_OK;
    return sdx_fail(err, SDX_ERR_USAGE, "the run was ended by its caller");
}

/* The model has a position for each token of every row. */
static sdx_status check_positions(const batch *b, sdx_error *err)
{
    for (size_t i = 0; i < b->count; i++) {
        const hunt *h = &b->hunts[i];
        if (h->done || !h->rules.hard_limit || h->length <= h->rules.positions) continue;
        return sdx_fail(err, SDX_ERR_USAGE,
                        "an answer grew beyond the %zu positions that the model has; give a smaller max_length or "
                        "max_new_tokens",
                        h->rules.positions);
    }
    return SDX_OK;
}

static sdx_status batch_step(batch *b, bool *done, sdx_error *err)
{
    size_t length = batch_collect(b);
    TRY(check_positions(b, err));
    TRY(sdx_decoder_step(b->g->decoder, b->ids, b->width, length, b->parent, b->rows, &b->scores, &b->vocab, err));
    sdx_parallel_for(b->g->threads, (int64_t)b->rows, 1, prepare_rows, b);
    *done = true;
    for (size_t i = 0; i < b->count; i++) {
        hunt *h = &b->hunts[i];
        if (h->done) continue;
        TRY(hunt_step(h, b->scores + h->base * b->vocab, b->vocab, err));
        TRY(tell(h, err));
        *done = *done && h->done;
    }
    return SDX_OK;
}

static sdx_status batch_results(const batch *b, sdx_generated *out, sdx_error *err)
{
    for (size_t i = 0; i < b->count; i++) {
        const hunt *h = &b->hunts[i];
        size_t n = h->rules.options.num_return_sequences, length;
        for (size_t k = 0; k < n; k++) {
            const int64_t *ids = hunt_result(h, k, &length);
            int64_t *copy = sdx_arena_alloc(&b->g->results, length * sizeof *copy);
            if (!copy) return sdx_fail_memory(err, length * sizeof *copy);
            memcpy(copy, ids, length * sizeof *copy);
            out[h->text * n + k] = (sdx_generated){copy, length};
        }
    }
    return SDX_OK;
}

/* ---- running --------------------------------------------------------------------------------------------- */

typedef struct source { /* a text */
    size_t text;
    sdx_encoding encoding;
} source;

static int by_length(const void *a, const void *b)
{
    const source *x = a, *y = b;
    if (x->encoding.count != y->encoding.count) return x->encoding.count < y->encoding.count ? -1 : 1;
    return x->text < y->text ? -1 : x->text > y->text;
}

/* Runs the decoder's beginning on texts padded with zeros, which masks hide. */
static sdx_status begin(sdx_generator *g, const source *sources, size_t count, sdx_error *err)
{
    bool left = !sdx_decoder_has_encoder(g->decoder);
    size_t width = sources[count - 1].encoding.count;
    int64_t *ids = sdx_calloc(count, width * sizeof *ids);
    size_t *lengths = sdx_calloc(count, sizeof *lengths);
    sdx_status status = ids && lengths ? SDX_OK : sdx_fail_memory(err, count * width * sizeof *ids);
    for (size_t i = 0; i < count && status == SDX_OK; i++) {
        lengths[i] = sources[i].encoding.count;
        memcpy(ids + i * width + (left ? width - lengths[i] : 0), sources[i].encoding.ids, lengths[i] * sizeof *ids);
    }
    if (status == SDX_OK) status = sdx_decoder_begin(g->decoder, ids, width, lengths, count, err);
    free(ids);
    free(lengths);
    return status;
}

static sdx_status run_batch(sdx_generator *g, const sdx_rules *rules, const source *sources, size_t count,
                            sdx_generated *out, sdx_error *err)
{
    bool encoder = sdx_decoder_has_encoder(g->decoder), done = false;
    batch b = {.g = g, .count = count, .hunts = sdx_calloc(count, sizeof *b.hunts)};
    if (!b.hunts) return sdx_fail_memory(err, count * sizeof *b.hunts);
    sdx_status status;
    for (size_t i = 0; i < count; i++) {
        hunt *h = &b.hunts[i];
        *h = (hunt){.text = sources[i].text, .rules = *rules};
        h->rules.source = sources[i].encoding.ids;
        h->rules.n_source = sources[i].encoding.count;
        h->prompt = encoder ? &rules->start : sources[i].encoding.ids;
        h->n = encoder ? 1 : sources[i].encoding.count;
        TRY_GOTO(hunt_begin(h, err));
    }
    TRY_GOTO(batch_allocate(&b, &rules->options, err));
    TRY_GOTO(begin(g, sources, count, err));
    while (!done) TRY_GOTO(batch_step(&b, &done, err));
    status = batch_results(&b, out, err);
done:
    for (size_t i = 0; i < count; i++) hunt_end(&b.hunts[i]);
    free(b.hunts);
    free(b.ids);
    free(b.parent);
    free(b.owner);
    return status;
}

/* How many of the sorted sources go into one batch. */
static size_t batch_size(const sdx_generator *g, const sdx_generate_options *o, const source *sources, size_t count)
{
    size_t n = 1, rows = o->num_beams > 1 ? o->num_beams : o->num_return_sequences;
    size_t answer = o->max_new_tokens ? o->max_new_tokens : o->max_length;
    bool padding = sdx_decoder_takes_padding(g->decoder);
    for (; n < count; n++) {
        size_t tokens = sources[n].encoding.count;
        if (!padding && tokens != sources[0].encoding.count) break;
        if ((n + 1) * (tokens + rows * (answer < g->batch_tokens ? answer : g->batch_tokens)) > g->batch_tokens) break;
    }
    return n;
}

static sdx_status check_options(const sdx_generate_options *o, sdx_error *err)
{
    if (o->num_beams < 1 || o->num_beams > SDX_MAX_BEAMS)
        return sdx_fail(err, SDX_ERR_USAGE, "num_beams is %zu; it must be 1 to %d", o->num_beams, SDX_MAX_BEAMS);
    if (o->do_sample && o->num_beams > 1)
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "sampling within a beam search is not supported: give num_beams 1");
    size_t most = o->num_beams > 1 ? o->num_beams : o->do_sample ? SDX_MAX_BEAMS : 1;
    if (o->num_return_sequences < 1 || o->num_return_sequences > most)
        return sdx_fail(err, SDX_ERR_USAGE,
                        "num_return_sequences is %zu; it must be 1 to %zu: num_beams, or 1 without beams and sampling",
                        o->num_return_sequences, most);
    if (o->do_sample && !(o->temperature > 0))
        return sdx_fail(err, SDX_ERR_USAGE, "temperature is %g; it must be above 0", o->temperature);
    if (o->do_sample && !(o->top_p > 0 && o->top_p <= 1))
        return sdx_fail(err, SDX_ERR_USAGE, "top_p is %g; it must be above 0 and at most 1", o->top_p);
    if (o->on_token && (o->num_beams > 1 || o->num_return_sequences > 1))
        return sdx_fail(err, SDX_ERR_USAGE, "tokens can be told as they come with one beam and one sequence only");
    return SDX_OK;
}

static sdx_status encode(sdx_generator *g, const sdx_text *texts, size_t count, size_t first, source *sources,
                         sdx_error *err)
{
    for (size_t i = 0; i < count; i++) {
        size_t number = first + i + 1;
        sdx_encoding *e = &sources[i].encoding;
        sources[i].text = i;
        TRY(sdx_tokenizer_encode(g->tokenizer, texts[i].data, texts[i].length, NULL, 0, g->max_source, e, err));
        if (!e->count) return sdx_fail(err, SDX_ERR_USAGE, "text %zu has no tokens", number);
        if (g->rules.hard_limit && e->count > g->rules.positions)
            return sdx_fail(err, SDX_ERR_USAGE,
                            "text %zu has %zu tokens, and the model %zu positions; shorten it, or set the tokenizer's "
                            "model_max_length, which cuts",
                            number, e->count, g->rules.positions);
    }
    return SDX_OK;
}

sdx_status sdx_generator_run(sdx_generator *g, const sdx_generate_options *options, const sdx_text *texts,
                             size_t count, sdx_generated *out, sdx_error *err)
{
    sdx_rules rules = g->rules; /* its lists stay the generator's */
    if (options) rules.options = *options;
    TRY(check_options(&rules.options, err));
    sdx_arena_fini(&g->results);
    sdx_arena_init(&g->results);
    source *sources = sdx_calloc(count + 1, sizeof *sources);
    if (!sources) return sdx_fail_memory(err, count * sizeof *sources);
    sdx_status status = SDX_OK;
    TRY_GOTO(encode(g, texts, count, rules.options.first_text, sources, err));
    qsort(sources, count, sizeof *sources, by_length);
    for (size_t at = 0, n; at < count; at += n) {
        n = batch_size(g, &rules.options, sources + at, count - at);
        TRY_GOTO(run_batch(g, &rules, sources + at, n, out, err));
    }
done:
    for (size_t i = 0; i < count; i++) sdx_encoding_free(&sources[i].encoding);
    free(sources);
    return status;
}
