/* sensitivity.c: what each layer costs in accuracy and saves in time, measured: the model with that layer alone in
 * integers, run on the calibration cases next to the float model. And the target: as few layers as possible stay in
 * float, those that hurt most first, so that the answers stay as near as was asked.
 *
 * The answer to a case is one vector: the mean over tokens of the first float output, or that output itself, or for a
 * sparse encoder the weights at their indices. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/buffer.h"
#include "../base/clock.h"
#include "../base/memory.h"
#include "calibrate.h"

enum { NEIGHBOURS = 10, TIMED_RUNS = 5 };

typedef struct answers {
    float **vector;  /* [cases], each [width]. Owned */
    int64_t *width;  /* [cases] */
    size_t count;
} answers;

/* A program ready to run. */
typedef struct runner {
    sdx_program *program;
    sdx_session *session;
    sdx_tensor *output; /* [n_output] */
    size_t n_output;
} runner;

typedef struct layer {
    const char *name, *op_type; /* the value it makes; in the arena of `names` */
    double error, saved;        /* 1 - cosine it adds alone; milliseconds */
    bool in_float;              /* the target wants it so */
    bool none;                  /* the quantizer has no use for it */
} layer;

typedef struct study {
    const sdx_quantize_options *options;
    const sdx_calibration *calibration;
    sdx_model *names;   /* the float model, for its names */
    layer *layer;       /* [n_layer], most harmful first once measured. Owned */
    const char **list;  /* [n_layer + options->n_exclude]: names to exclude. Owned */
    size_t n_layer;
    runner in_float;    /* open all the time, to be timed in turns with the others */
    answers reference;
    double milliseconds; /* of its first case, when it was timed last */
    sdx_error *err;
} study;

/* ---- answers --------------------------------------------------------------------------------------------- */

static void answers_fini(answers *a)
{
    for (size_t i = 0; i < a->count; i++) free(a->vector[i]);
    free(a->vector);
    free(a->width);
    *a = (answers){.vector = NULL};
}

static float *sparse_vector(const sdx_tensor *index, const sdx_tensor *weight, int64_t *width)
{
    enum { MOST = 1 << 20 };
    *width = 0;
    for (int64_t i = 0; i < sdx_tensor_count(index); i++) {
        int64_t at = ((const int64_t *)index->data)[i];
        if (at >= *width && at < MOST) *width = at + 1;
    }
    *width = (*width + 65535) / 65536 * 65536; /* of one width, whichever entries are there */
    float *v = sdx_calloc((size_t)*width + 1, sizeof *v);
    for (int64_t i = 0; v && i < sdx_tensor_count(index); i++) {
        int64_t at = ((const int64_t *)index->data)[i];
        if (at >= 0 && at < *width) v[at] = ((const float *)weight->data)[i];
    }
    return v;
}

/* Rows of a matrix or of several are averaged; less is taken as it is. */
static float *mean_vector(const sdx_tensor *t, int64_t *width)
{
    int64_t count = sdx_tensor_count(t);
    *width = t->rank >= 3 ? t->dim[t->rank - 1] : count;
    int64_t rows = *width ? count / *width : 0;
    float *v = sdx_calloc((size_t)*width + 1, sizeof *v);
    for (int64_t i = 0; v && i < count; i++) v[i % *width] += ((const float *)t->data)[i] / (float)rows;
    return v;
}

static float *vector_of(const sdx_tensor *output, size_t n, int64_t *width)
{
    bool sparse = n == 2 && output[0].dtype == SDX_I64 && output[0].rank == 1 && output[1].dtype == SDX_F32 &&
                  sdx_tensor_count(&output[0]) == sdx_tensor_count(&output[1]);
    if (sparse) return sparse_vector(&output[0], &output[1], width);
    for (size_t i = 0; i < n; i++)
        if (output[i].dtype == SDX_F32) return mean_vector(&output[i], width);
    *width = 0;
    return sdx_calloc(1, sizeof(float));
}

static void runner_close(runner *r)
{
    sdx_session_free(r->session);
    sdx_program_free(r->program);
    free(r->output);
    *r = (runner){.program = NULL};
}

/* Takes the model over. */
static sdx_status runner_open(sdx_model *model, runner *r, sdx_error *err)
{
    *r = (runner){.program = NULL};
    TRY(sdx_program_create(model, NULL, &r->program, err));
    r->n_output = sdx_model_output_count(sdx_program_model(r->program));
    r->output = sdx_calloc(r->n_output + 1, sizeof *r->output);
    sdx_status status = r->output ? sdx_session_create(r->program, &r->session, err)
                                  : sdx_fail_memory(err, r->n_output * sizeof *r->output);
    if (status != SDX_OK) runner_close(r);
    return status;
}

static sdx_status run_case(const runner *r, const sdx_case *k, sdx_error *err)
{
    return sdx_session_run(r->session, k->count, k->name, k->tensor, r->n_output, r->output, err);
}

/* What it answers to all cases. */
static sdx_status answer(const sdx_calibration *c, const runner *r, answers *a, sdx_error *err)
{
    *a = (answers){.vector = sdx_calloc(c->n_kept + 1, sizeof *a->vector),
                   .width = sdx_calloc(c->n_kept + 1, sizeof *a->width)};
    sdx_status status = a->vector && a->width ? SDX_OK : sdx_fail_memory(err, c->n_kept * sizeof *a->vector);
    for (size_t i = 0; i < c->n_kept && status == SDX_OK; i++) {
        status = run_case(r, &c->kept[i], err);
        if (status != SDX_OK) break;
        a->vector[a->count] = vector_of(r->output, r->n_output, &a->width[a->count]);
        if (!a->vector[a->count++]) status = sdx_fail_memory(err, sizeof(float));
    }
    if (status != SDX_OK) answers_fini(a);
    return status;
}

/* Milliseconds of the first case, the fastest run of each; in turns, so that both meet the machine in one mood. */
static sdx_status race(const sdx_calibration *c, const runner *const r[2], double time[2], sdx_error *err)
{
    time[0] = time[1] = INFINITY;
    for (int run = 0; run < 2 * TIMED_RUNS; run++) {
        double start = sdx_now();
        TRY(run_case(r[run % 2], &c->kept[0], err));
        time[run % 2] = fmin(time[run % 2], 1e3 * (sdx_now() - start));
    }
    return SDX_OK;
}

/* ---- comparing ------------------------------------------------------------------------------------------- */

static double cosine(const answers *a, size_t i, const answers *b, size_t k)
{
    int64_t width = a->width[i] < b->width[k] ? a->width[i] : b->width[k];
    double ab = 0, aa = 0, bb = 0;
    for (int64_t j = 0; j < a->width[i]; j++) aa += (double)a->vector[i][j] * (double)a->vector[i][j];
    for (int64_t j = 0; j < b->width[k]; j++) bb += (double)b->vector[k][j] * (double)b->vector[k][j];
    for (int64_t j = 0; j < width; j++) ab += (double)a->vector[i][j] * (double)b->vector[k][j];
    return aa > 0 && bb > 0 ? ab / sqrt(aa * bb) : aa == bb;
}

static double mean_cosine(const answers *a, const answers *b)
{
    double sum = 0;
    for (size_t i = 0; i < a->count; i++) sum += cosine(a, i, b, i);
    return a->count ? sum / (double)a->count : 1;
}

/* The cases nearest to case i, without itself. */
static void nearest(const answers *a, size_t i, size_t *out)
{
    double best[NEIGHBOURS];
    size_t n = 0;
    for (size_t k = 0; k < a->count; k++) {
        double c = k == i ? -2 : cosine(a, i, a, k);
        size_t at = n < NEIGHBOURS ? n : NEIGHBOURS;
        if (k == i || (n == NEIGHBOURS && c <= best[n - 1])) continue;
        if (at == NEIGHBOURS) at--;
        else n++;
        for (; at > 0 && best[at - 1] < c; at--) {
            best[at] = best[at - 1];
            out[at] = out[at - 1];
        }
        best[at] = c;
        out[at] = k;
    }
}

/* Share of the ten nearest cases that stay. */
static double overlap(const answers *a, const answers *b)
{
    size_t same = 0, x[NEIGHBOURS], y[NEIGHBOURS];
    for (size_t i = 0; i < a->count; i++) {
        nearest(a, i, x);
        nearest(b, i, y);
        for (int k = 0; k < NEIGHBOURS; k++)
            for (int l = 0; l < NEIGHBOURS; l++) same += x[k] == y[l];
    }
    return (double)same / (double)(NEIGHBOURS * a->count);
}

/* ---- layers ---------------------------------------------------------------------------------------------- */

/* The model with the layers for which keep says so in float: what it answers and, unless `saved` is NULL, the
 * milliseconds that it is faster. */
static sdx_status try_layers(study *s, bool (*keep)(const layer *, const layer *), const layer *only, answers *a,
                             double *saved, size_t *quantized)
{
    sdx_quantize_options o = *s->options;
    sdx_quantize_report r;
    sdx_model *model;
    runner tried;
    double time[2] = {0, 0};
    size_t n = 0;
    for (; n < o.n_exclude; n++) s->list[n] = o.exclude[n];
    for (size_t i = 0; i < s->n_layer; i++)
        if (keep(&s->layer[i], only)) s->list[n++] = s->layer[i].name;
    o.exclude = s->list;
    o.n_exclude = n;
    TRY(sdx_quantize_model(&o, s->calibration->sample, s->calibration->n_watched, &model, &r, s->err));
    *quantized = r.quantized;
    TRY(runner_open(model, &tried, s->err));
    sdx_status status = answer(s->calibration, &tried, a, s->err);
    if (saved && status == SDX_OK) {
        status = race(s->calibration, (const runner *const[]){&s->in_float, &tried}, time, s->err);
        *saved = time[0] - time[1];
        s->milliseconds = time[0];
        if (status != SDX_OK) answers_fini(a);
    }
    runner_close(&tried);
    return status;
}

static bool is_other(const layer *l, const layer *only) { return l != only; }

static bool is_in_float(const layer *l, const layer *only)
{
    (void)only;
    return l->in_float;
}

static sdx_status list_layers(study *s)
{
    const sdx_graph *g = s->names->graph;
    s->layer = sdx_calloc((size_t)g->n_node + 1, sizeof *s->layer);
    s->list = sdx_calloc((size_t)g->n_node + 1 + s->options->n_exclude, sizeof *s->list);
    if (!s->layer || !s->list) return sdx_fail_memory(s->err, (size_t)g->n_node * sizeof *s->layer);
    for (sdx_id i = 0; i < g->n_node; i++)
        if (sdx_quantize_is_candidate(s->options, g, &g->node[i]))
            s->layer[s->n_layer++] = (layer){.name = g->value[g->node[i].out[0]].name, .op_type = g->node[i].op_type};
    return SDX_OK;
}

static int by_error(const void *a, const void *b)
{
    const layer *x = a, *y = b;
    return x->error < y->error ? 1 : x->error > y->error ? -1 : 0;
}

/* Those that the quantizer turns out to leave alone are no layers. */
static sdx_status measure_layers(study *s)
{
    size_t n = 0, quantized;
    for (size_t i = 0; i < s->n_layer; i++) {
        answers a;
        layer *l = &s->layer[i];
        TRY(try_layers(s, is_other, l, &a, s->options->report ? &l->saved : NULL, &quantized));
        l->error = 1 - mean_cosine(&s->reference, &a);
        l->none = !quantized;
        answers_fini(&a);
    }
    for (size_t i = 0; i < s->n_layer; i++)
        if (!s->layer[i].none) s->layer[n++] = s->layer[i];
    s->n_layer = n;
    qsort(s->layer, n, sizeof *s->layer, by_error);
    return SDX_OK;
}

/* ---- the target ------------------------------------------------------------------------------------------ */

typedef struct target {
    double (*measure)(const answers *, const answers *);
    double least;
} target;

static sdx_status read_target(const study *s, const char *text, target *t)
{
    bool by_cosine = !strncmp(text, "cosine>=", 8), by_neighbours = !strncmp(text, "top10>=", 7);
    char *end = NULL;
    if (by_cosine || by_neighbours) t->least = strtod(strchr(text, '=') + 1, &end);
    if (!end || *end || !(t->least > 0 && t->least <= 1))
        return sdx_fail(s->err, SDX_ERR_USAGE, "target \"%s\": expected cosine>=X or top10>=X, X at most 1", text);
    t->measure = by_cosine ? mean_cosine : overlap;
    if (by_neighbours && s->calibration->n_kept <= NEIGHBOURS + 1)
        return sdx_fail(s->err, SDX_ERR_USAGE,
                        "target \"%s\": %zu calibration cases have no ten neighbours each; give more", text,
                        s->calibration->n_kept);
    return SDX_OK;
}

static sdx_status meets(study *s, const target *t, bool *met)
{
    answers a;
    size_t quantized;
    TRY(try_layers(s, is_in_float, NULL, &a, NULL, &quantized));
    *met = t->measure(&s->reference, &a) >= t->least;
    answers_fini(&a);
    return SDX_OK;
}

/* The fewest of the most harmful layers that have to stay in float, by halving; then those go back that need not. */
static sdx_status choose_layers(study *s, const target *t)
{
    size_t low = 0, high = s->n_layer; /* with `high` of them in float, which is all, nothing is quantized */
    bool met;
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        for (size_t i = 0; i < s->n_layer; i++) s->layer[i].in_float = i < middle;
        TRY(meets(s, t, &met));
        *(met ? &high : &low) = middle;
    }
    if (high == s->n_layer)
        return sdx_fail(s->err, SDX_ERR_USAGE, "%s: target \"%s\" is met with no layer in integers", s->options->input,
                        s->options->target);
    for (size_t i = 0; i < s->n_layer; i++) s->layer[i].in_float = i < high;
    for (size_t i = high; i-- > 0;) {
        s->layer[i].in_float = false;
        TRY(meets(s, t, &met));
        s->layer[i].in_float = !met;
    }
    return SDX_OK;
}

/* ---- the table ------------------------------------------------------------------------------------------- */

static sdx_status write_table(study *s, char **out)
{
    answers a;
    sdx_buffer b = {0};
    double saved;
    size_t quantized;
    TRY(try_layers(s, is_in_float, NULL, &a, &saved, &quantized));
    sdx_buffer_printf(&b, "1 - cosine  ms saved  operator                 result\n");
    for (size_t i = 0; i < s->n_layer; i++)
        sdx_buffer_printf(&b, "%10.2e  %8.3f  %-24s %s%s\n", fmax(s->layer[i].error, 0), s->layer[i].saved,
                          s->layer[i].op_type, s->layer[i].name, s->layer[i].in_float ? "  (left in float)" : "");
    sdx_buffer_printf(&b,
                      "%10.2e  %8.3f  all that are not in float; on %zu cases, the first of them %.3f ms in float\n",
                      fmax(1 - mean_cosine(&s->reference, &a), 0), saved, a.count, s->milliseconds);
    answers_fini(&a);
    return sdx_buffer_take(&b, out, s->err);
}

static sdx_status run_study(study *s, char **table, sdx_excluded *excluded)
{
    sdx_model *model;
    target t = {.measure = mean_cosine};
    if (s->options->target) TRY(read_target(s, s->options->target, &t));
    TRY(sdx_model_open(s->options->input, &s->names, s->err));
    TRY(list_layers(s));
    TRY(sdx_model_open(s->options->input, &model, s->err));
    TRY(runner_open(model, &s->in_float, s->err));
    TRY(answer(s->calibration, &s->in_float, &s->reference, s->err));
    bool met = true; /* then layers are measured for the report only */
    if (s->options->target) TRY(meets(s, &t, &met));
    if (!met || s->options->report) TRY(measure_layers(s));
    if (!met) TRY(choose_layers(s, &t));
    if (s->options->report) TRY(write_table(s, table));
    for (size_t i = 0; i < s->n_layer; i++) {
        if (!s->layer[i].in_float) continue;
        char **grown = sdx_realloc(excluded->name, (excluded->count + 1) * sizeof *grown);
        if (grown) excluded->name = grown;
        if (!grown || !(grown[excluded->count] = sdx_strdup(s->layer[i].name)))
            return sdx_fail_memory(s->err, sizeof *grown);
        excluded->count++;
    }
    return SDX_OK;
}

sdx_status sdx_sensitivity_study(const sdx_quantize_options *options, const sdx_calibration *c, char **table,
                                 sdx_excluded *excluded, sdx_error *err)
{
    study s = {.options = options, .calibration = c, .err = err};
    *excluded = (sdx_excluded){.name = NULL};
    sdx_status status = c->n_kept ? run_study(&s, table, excluded)
                                  : sdx_fail(err, SDX_ERR_USAGE,
                                             "%s: a report or a target needs calibration cases, which "
                                             "cannot be made up for this model",
                                             options->input);
    answers_fini(&s.reference);
    runner_close(&s.in_float);
    free(s.layer);
    free(s.list);
    sdx_model_close(s.names);
    return status;
}
