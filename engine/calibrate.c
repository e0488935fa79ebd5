/* calibrate.c: quantizing with a look at the activations. The float model runs case by case; of every activation that
 * is to become integers a few rows are kept, from which smooth.c finds the large channels, and for a static form a
 * histogram, from which its range comes. Neither grows with the number of cases. The float program is gone before
 * the first weight is quantized, so that the two never lie in memory together. Without cases the model gets made-up
 * tokens; one whose inputs cannot be made up is quantized without. */
#include "calibrate.h"

#include <stdlib.h>
#include <string.h>

#include "../base/memory.h"
#include "ops/ops.h"

enum { MOST_ROWS = 128, ROWS_OF_A_CASE = 64, MOST_KEPT = 64 };

/* Layers are to be compared, on cases. */
static bool compares(const sdx_quantize_options *o) { return o->report || o->target; }

/* ---- what to look at ------------------------------------------------------------------------------------- */

static bool is_listed(const sdx_calibration *c, const char *name)
{
    for (size_t i = 0; i < c->n_watched; i++)
        if (!strcmp(c->watched[i].name, name)) return true;
    return false;
}

static sdx_status watch_value(sdx_calibration *c, const char *name, bool with_histogram, sdx_error *err)
{
    sdx_watched w = {.name = sdx_strdup(name), .histogram = with_histogram ? sdx_malloc(sizeof *w.histogram) : NULL};
    sdx_watched *grown = sdx_realloc(c->watched, (c->n_watched + 1) * sizeof *grown);
    if (grown) c->watched = grown;
    if (!grown || !w.name || (with_histogram && !w.histogram)) {
        free(w.name);
        free(w.histogram);
        return sdx_fail_memory(err, sizeof *w.histogram);
    }
    if (w.histogram) sdx_histogram_init(w.histogram);
    c->watched[c->n_watched++] = w;
    return SDX_OK;
}

/* Lists what the quantizer wants and makes it outputs, the only ones: what comes after the last of them need not run.
 * An input of the graph is seen in the case itself. */
static sdx_status watch(sdx_calibration *c, sdx_graph *g, const sdx_quantize_options *options, sdx_error *err)
{
    for (int i = 0; i < g->n_output; i++) g->value[g->output[i]].is_output = false;
    g->n_output = 0;
    for (sdx_id i = 0; i < g->n_node; i++) {
        sdx_id v = sdx_quantize_activation(options, g, &g->node[i]);
        if (v == SDX_NONE || is_listed(c, g->value[v].name)) continue;
        TRY(watch_value(c, g->value[v].name, options->is_static, err));
        if (sdx_graph_producer(g, v)) TRY(sdx_graph_add_output(g, v, err));
    }
    return sdx_graph_clean(g, err);
}

/* ---- what is seen ---------------------------------------------------------------------------------------- */

/* Rows spread over the tensor, as many as there is room for. */
static sdx_status keep_rows(sdx_watched *w, const sdx_tensor *t, sdx_error *err)
{
    int64_t width = t->rank ? t->dim[t->rank - 1] : 0, rows = width ? sdx_tensor_count(t) / width : 0;
    if (!rows || (w->n_row && w->width != width)) return SDX_OK;
    if (!w->rows) w->rows = sdx_malloc((size_t)(MOST_ROWS * width) * sizeof *w->rows);
    if (!w->rows) return sdx_fail_memory(err, (size_t)(MOST_ROWS * width) * sizeof *w->rows);
    w->width = width;
    int64_t room = MOST_ROWS - w->n_row, take = rows < ROWS_OF_A_CASE ? rows : ROWS_OF_A_CASE;
    if (take > room) take = room;
    for (int64_t i = 0; i < take; i++)
        memcpy(w->rows + w->n_row++ * width, (const float *)t->data + i * rows / take * width,
               (size_t)width * sizeof(float));
    return SDX_OK;
}

static sdx_status look(sdx_watched *w, const sdx_tensor *t, sdx_error *err)
{
    if (t->dtype != SDX_F32) return SDX_OK;
    if (w->histogram) sdx_histogram_add(w->histogram, t->data, sdx_tensor_count(t));
    return w->n_row < MOST_ROWS ? keep_rows(w, t, err) : SDX_OK;
}

static sdx_watched *find_watched(sdx_calibration *c, const char *name)
{
    for (size_t i = 0; i < c->n_watched; i++)
        if (!strcmp(c->watched[i].name, name)) return &c->watched[i];
    return NULL;
}

static sdx_status look_at_all(sdx_calibration *c, const sdx_case *given, const sdx_model *model,
                              const sdx_tensor *output, sdx_error *err)
{
    sdx_watched *w;
    for (size_t i = 0; i < given->count; i++)
        if ((w = find_watched(c, given->name[i]))) TRY(look(w, &given->tensor[i], err));
    for (size_t i = 0; i < sdx_model_output_count(model); i++)
        if ((w = find_watched(c, sdx_model_output(model, i).name))) TRY(look(w, &output[i], err));
    return SDX_OK;
}

static sdx_status keep_case(sdx_calibration *c, const sdx_case *given, sdx_error *err)
{
    for (size_t i = 0; i < given->count; i++)
        if (given->tensor[i].dtype == SDX_STRING) return SDX_OK; /* its bytes are the source's */
    sdx_case *kept = sdx_realloc(c->kept, (c->n_kept + 1) * sizeof *kept);
    if (kept) c->kept = kept;
    void **block = sdx_realloc(c->block, (c->n_kept + 1) * sizeof *block);
    if (block) c->block = block;
    if (!kept || !block || !sdx_case_copy(given, &kept[c->n_kept], &block[c->n_kept]))
        return sdx_fail_memory(err, sizeof *kept);
    c->n_kept++;
    return SDX_OK;
}

/* ---- the runs -------------------------------------------------------------------------------------------- */

static sdx_status run_cases(const sdx_quantize_options *o, sdx_calibration *c, const sdx_program *program,
                            sdx_case_fn next, void *context, sdx_error *err)
{
    const sdx_model *model = sdx_program_model(program);
    size_t n = sdx_model_output_count(model);
    sdx_session *session = NULL;
    sdx_tensor *output = sdx_calloc(n + 1, sizeof *output);
    if (!output) return sdx_fail_memory(err, n * sizeof *output);
    sdx_status status = sdx_session_create(program, &session, err);
    while (status == SDX_OK) {
        sdx_case given;
        status = next(context, &given, err);
        if (status != SDX_OK || !given.count) break;
        if (n) status = sdx_session_run(session, given.count, given.name, given.tensor, n, output, err);
        if (status == SDX_OK) status = look_at_all(c, &given, model, output, err);
        if (status == SDX_OK && compares(o) && c->n_kept < MOST_KEPT) status = keep_case(c, &given, err);
        c->cases++;
    }
    sdx_session_free(session);
    free(output);
    return status;
}

static sdx_status list_samples(sdx_calibration *c, const sdx_quantize_options *o, sdx_error *err)
{
    c->sample = sdx_calloc(c->n_watched + 1, sizeof *c->sample);
    if (!c->sample) return sdx_fail_memory(err, c->n_watched * sizeof *c->sample);
    for (size_t i = 0; i < c->n_watched; i++) {
        const sdx_watched *w = &c->watched[i];
        sdx_quant_sample *s = &c->sample[i];
        *s = (sdx_quant_sample){w->name, w->n_row, w->width, w->rows, 1, -1};
        if (w->histogram)
            sdx_histogram_range(w->histogram, o->method, o->percentile > 0 ? o->percentile : 99.999, &s->low, &s->high);
    }
    return SDX_OK;
}

static sdx_status run_source(const sdx_quantize_options *o, sdx_calibration *c, sdx_model *model, sdx_case_fn next,
                             void *context, sdx_error *err)
{
    sdx_status status = watch(c, model->graph, o, err);
    if (status != SDX_OK || (!c->n_watched && !compares(o))) {
        sdx_model_close(model);
        return status;
    }
    sdx_program *program;
    const sdx_run_options how = {.brief = !o->next_case}; /* for two made-up cases */
    TRY(sdx_program_create(model, &how, &program, err));
    status = run_cases(o, c, program, next, context, err);
    sdx_program_free(program);
    return status == SDX_OK ? list_samples(c, o, err) : status;
}

/* A model that cannot be shown made-up tokens is quantized without a look. */
static sdx_status run_made_up(const sdx_quantize_options *o, sdx_calibration *c, sdx_model *model)
{
    sdx_made_up source;
    sdx_error ignored = {0};
    bool can = sdx_made_up_init(&source, model);
    if (!can) sdx_model_close(model);
    else if (run_source(o, c, model, sdx_made_up_next, &source, &ignored) != SDX_OK) sdx_calibration_fini(c);
    sdx_made_up_fini(&source);
    return SDX_OK;
}

sdx_status sdx_calibration_run(const sdx_quantize_options *o, sdx_calibration *c, sdx_error *err)
{
    *c = (sdx_calibration){.watched = NULL};
    sdx_model *model;
    if (!sdx_quantize_wants_samples(o) && !compares(o)) return SDX_OK;
    if (o->is_static && !o->next_case)
        return sdx_fail(err, SDX_ERR_USAGE, "static quantization needs cases to find the ranges of activations");
    TRY(sdx_model_open(o->input, &model, err));
    if (!o->next_case) return run_made_up(o, c, model);
    TRY(run_source(o, c, model, o->next_case, o->case_context, err));
    return c->cases || !o->is_static ? SDX_OK : sdx_fail(err, SDX_ERR_USAGE, "there are no calibration cases");
}

void sdx_calibration_fini(sdx_calibration *c)
{
    for (size_t i = 0; i < c->n_watched; i++) {
        free(c->watched[i].name);
        free(c->watched[i].histogram);
        free(c->watched[i].rows);
    }
    for (size_t i = 0; i < c->n_kept; i++) free(c->block[i]);
    free(c->watched);
    free(c->sample);
    free(c->kept);
    free(c->block);
    *c = (sdx_calibration){.watched = NULL};
}

/* The options with what the study adds to what is excluded; *list is to be freed. */
static sdx_status exclude_more(sdx_quantize_options *o, const sdx_excluded *more, const char ***list, sdx_error *err)
{
    *list = sdx_calloc(o->n_exclude + more->count + 1, sizeof **list);
    if (!*list) return sdx_fail_memory(err, more->count * sizeof **list);
    for (size_t i = 0; i < o->n_exclude; i++) (*list)[i] = o->exclude[i];
    for (size_t i = 0; i < more->count; i++) (*list)[o->n_exclude + i] = more->name[i];
    o->exclude = *list;
    o->n_exclude += more->count;
    return SDX_OK;
}

static sdx_status make_model(sdx_quantize_options *o, const sdx_calibration *c, const sdx_excluded *more,
                             sdx_model **model, sdx_quantize_report *report, sdx_error *err)
{
    const char **list;
    TRY(exclude_more(o, more, &list, err));
    sdx_status status = sdx_quantize_model(o, c->sample, c->sample ? c->n_watched : 0, model, report, err);
    free(list);
    return status;
}

sdx_status sdx_quantize(const sdx_quantize_options *options, sdx_quantize_report *report, sdx_error *err)
{
    sdx_calibration c;
    sdx_quantize_options o = *options;
    sdx_quantize_report own = {0};
    sdx_excluded more = {0};
    sdx_model *model = NULL;
    char *table = NULL;
    sdx_status status = sdx_calibration_run(options, &c, err);
    if (status == SDX_OK && compares(options)) status = sdx_sensitivity_study(options, &c, &table, &more, err);
    if (status == SDX_OK) status = make_model(&o, &c, &more, &model, &own, err);
    if (status == SDX_OK && !own.quantized && !options->allow_none)
        status = sdx_fail(err, SDX_ERR_USAGE, "%s: nothing to quantize: no MatMul, Gemm, Gather, Attention or "
                          "EmbedLayerNormalization with a constant float32 weight", options->input);
    own.cases = c.cases;
    sdx_calibration_fini(&c);
    if (status == SDX_OK) status = sdx_quantize_write(options, model, &own, err);
    sdx_model_close(model);
    for (size_t i = 0; i < more.count; i++) free(more.name[i]);
    free(more.name);
    if (status == SDX_OK && report) {
        *report = own;
        report->table = table;
        return SDX_OK;
    }
    free(table);
    return status;
}
