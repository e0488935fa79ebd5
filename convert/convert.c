/* convert.c: see convert.h */
#include "convert.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/memory.h"
#include "family.h"

enum { DEFAULT_OPSET = 14, FIRST_OPSET = 13, LAST_OPSET = 21, MAX_GRAPHS = 4 };

struct sdx_reference {
    sdx_checkpoint *checkpoint;
    sdx_settings settings;
    const sdx_family *family;
    const sdx_head *head;
    unsigned parts;
    bool splade;
    size_t graph[MAX_GRAPHS]; /* of head->graph: those to be written */
    size_t n_graph;               /* 0: the head is one graph */
};

void sdx_reference_free(sdx_reference *r)
{
    if (!r) return;
    sdx_checkpoint_close(r->checkpoint);
    free(r);
}

bool sdx_reference_is_sparse(const sdx_reference *r)
{
    return r->splade;
}
int64_t sdx_reference_vocab_size(const sdx_reference *r)
{
    int64_t decoder = r->settings.decoder_vocab, encoder = r->settings.vocab;
    return decoder && decoder < encoder ? decoder : encoder;
}
int64_t sdx_reference_positions(const sdx_reference *r)
{
    return r->settings.longest;
}

sdx_shape sdx_reference_sample(const sdx_reference *r)
{
    return r->family->sample ? r->family->sample(&r->settings) : (sdx_shape){0};
}

static const double *forward_decoder(const sdx_reference *r, sdx_forward *f)
{
    int64_t count = f->count;
    f->encoded = r->head->forward(f, &r->settings);
    f->source = f->count;
    f->count = count;
    return r->head->forward_decoder(f, &r->settings);
}

/* input: what of sdx_forward depends on it. */
static sdx_status run_forward(const sdx_reference *r, const sdx_forward *input, bool decoder,
                              sdx_reference_result *out, sdx_error *err)
{
    sdx_arena arena;
    sdx_arena_init(&arena);
    sdx_forward f = {.checkpoint = r->checkpoint,
                     .family = r->family,
                     .head = r->head,
                     .parts = r->parts,
                     .arena = &arena,
                     .threads = sdx_default_threads(),
                     .splade = r->splade,
                     .count = input->count,
                     .ids = input->ids,
                     .type_ids = input->type_ids,
                     .values = input->values,
                     .err = err};
    const double *value = decoder ? forward_decoder(r, &f) : r->head->forward(&f, &r->settings);
    sdx_reference_result result = {.rank = f.rank};
    size_t n = 1;
    for (int i = 0; i < f.rank; i++) n *= (size_t)(result.dim[i] = f.dim[i]);
    if (f.status == SDX_OK && !(result.value = sdx_malloc(n * sizeof *value)))
        f.status = sdx_fail_memory(err, n * sizeof *value);
    if (f.status == SDX_OK) {
        memcpy(result.value, value, n * sizeof *value);
        *out = result;
    }
    sdx_arena_fini(&arena);
    return f.status;
}

sdx_status sdx_reference_run(const sdx_reference *r, size_t count, const int64_t *ids, const int64_t *type_ids,
                             sdx_reference_result *out, sdx_error *err)
{
    const sdx_forward text = {.count = (int64_t)count, .ids = ids, .type_ids = type_ids};
    return run_forward(r, &text, false, out, err);
}

sdx_status sdx_reference_run_decoder(const sdx_reference *r, size_t count, const int64_t *ids,
                                     sdx_reference_result *out, sdx_error *err)
{
    return run_forward(r, &(sdx_forward){.count = (int64_t)count, .ids = ids}, true, out, err);
}

sdx_status sdx_reference_run_values(const sdx_reference *r, const float *values, sdx_reference_result *out,
                                    sdx_error *err)
{
    sdx_shape shape = sdx_reference_sample(r);
    return run_forward(r, &(sdx_forward){.count = sdx_shape_count(&shape), .values = values}, false, out, err);
}

/* ---- reading --------------------------------------------------------------------------------------------- */

/* Sparse vectors are made of a masked-LM head. */
static sdx_status choose_task(sdx_reference *r, const sdx_convert_options *options, const char **task,
                              sdx_error *err)
{
    const char *asked = options->task ? options->task : "auto";
    bool sparse = !strcmp(asked, "sparse"),
         fits = sparse || !strcmp(asked, "auto") || !strcmp(asked, "fill-mask");
    r->splade = options->splade || sparse;
    if (r->splade && !fits)
        return sdx_fail(err, SDX_ERR_USAGE,
                        "SPLADE vectors come from a masked language model, not from task \"%.60s\"", asked);
    *task = r->splade ? "fill-mask" : asked;
    return SDX_OK;
}

static sdx_status read_config(sdx_reference *r, const sdx_convert_options *options, sdx_error *err)
{
    sdx_config config;
    const char *task = NULL;
    TRY(choose_task(r, options, &task, err));
    TRY(sdx_config_open(options->checkpoint, &config, err));
    sdx_status status = sdx_family_find(&config, &r->family, err);
    if (status == SDX_OK) status = sdx_family_find_head(r->family, &config, task, &r->head, err);
    if (status == SDX_OK) status = r->family->read(&config, &r->settings, err);
    sdx_config_close(&config);
    return status;
}

/* Sentence encoders often keep the name of the architecture they were trained as, without its head's weights: when
 * the task is ours to choose, the bare model will do. The first failure is what is reported. */
static sdx_status check_weights(sdx_reference *r, const sdx_convert_options *options, sdx_error *err)
{
    sdx_status status = sdx_family_check(r->family, &r->settings, r->checkpoint, &r->head, &r->parts, err);
    bool automatic = !r->splade && (!options->task || !strcmp(options->task, "auto"));
    const sdx_config none = {.path = ""};
    const sdx_head *head;
    if (status == SDX_OK || !automatic || r->head->n_graph ||
        sdx_family_find_head(r->family, &none, "feature-extraction", &head, NULL) != SDX_OK || head == r->head ||
        sdx_family_check(r->family, &r->settings, r->checkpoint, &head, &r->parts, NULL) != SDX_OK)
        return status;
    r->head = head;
    return SDX_OK;
}

static sdx_status read_folder(const sdx_convert_options *options, sdx_reference **out, sdx_error *err)
{
    sdx_reference *r = sdx_calloc(1, sizeof *r);
    if (!r) return sdx_fail_memory(err, sizeof *r);
    sdx_status status = read_config(r, options, err);
    if (status == SDX_OK) status = sdx_checkpoint_open(options->checkpoint, &r->checkpoint, err);
    if (status == SDX_OK) status = check_weights(r, options, err);
    if (status == SDX_OK)
        *out = r;
    else
        sdx_reference_free(r);
    return status;
}

/* ---- building -------------------------------------------------------------------------------------------- */

static sdx_status set_number(sdx_model *model, const char *key, int64_t number, sdx_error *err)
{
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)number);
    return sdx_model_set_metadata(model, key, text, err);
}

/* The oldest IR that knows the opset: readers refuse newer ones than theirs. */
static int64_t ir_version(int opset)
{
    return opset <= 14 ? 7 : opset <= 18 ? 8 : opset <= 20 ? 9 : 10;
}

static sdx_status describe(sdx_model *model, const sdx_reference *r, int opset, sdx_error *err)
{
    model->ir_version = ir_version(opset);
    model->producer_name = "sardonyx";
    model->producer_version = SDX_VERSION;
    TRY(sdx_model_set_opset(model, "", opset, err));
    TRY(sdx_model_set_metadata(model, "model_type", r->family->model_type, err));
    TRY(set_number(model, "num_heads", r->settings.heads, err));
    return set_number(model, "hidden_size", r->settings.hidden, err);
}

static const sdx_head_graph *graph_of(const sdx_reference *r, size_t index)
{
    return &r->head->graph[r->graph[index]];
}

static sdx_status build(sdx_model *model, const sdx_reference *r, size_t index, int opset, sdx_dtype dtype,
                        sdx_error *err)
{
    sdx_builder b = {.graph = model->graph,
                     .checkpoint = r->checkpoint,
                     .family = r->family,
                     .head = r->head,
                     .parts = r->parts,
                     .opset = opset,
                     .dtype = dtype,
                     .splade = r->splade,
                     .distances = SDX_NONE,
                     .err = err};
    TRY(describe(model, r, opset, err));
    model->graph->name = r->family->model_type;
    (r->n_graph ? graph_of(r, index)->build : r->head->build)(&b, &r->settings);
    TRY(b.status);
    return sdx_graph_index(model->graph, err);
}

static sdx_status check_options(const sdx_convert_options *options, sdx_error *err)
{
    if (options->opset && (options->opset < FIRST_OPSET || options->opset > LAST_OPSET))
        return sdx_fail(err, SDX_ERR_USAGE, "opset %d is not offered; choose one from %d to %d", options->opset,
                        FIRST_OPSET, LAST_OPSET);
    sdx_dtype dtype = options->dtype;
    if (dtype && dtype != SDX_F32 && dtype != SDX_F16 && dtype != SDX_BF16)
        return sdx_fail(err, SDX_ERR_USAGE, "weights are stored as float32, float16 or bfloat16, not as %s",
                        sdx_dtype_name(dtype));
    return SDX_OK;
}

/* A merged decoder needs what no_past leaves out, and has it. */
static void choose_graphs(sdx_reference *r, const sdx_convert_options *options)
{
    for (size_t i = 0; i < r->head->n_graph; i++) {
        sdx_graph_when when = r->head->graph[i].when;
        if ((when == SDX_GRAPH_PAST && options->no_past) || (when == SDX_GRAPH_MERGED && !options->merged)) continue;
        r->graph[r->n_graph++] = i;
    }
}

static void fill_report(const sdx_reference *r, sdx_convert_report *report)
{
    *report = (sdx_convert_report){.l1_difference = NAN, .max_difference = NAN};
    report->graphs = r->n_graph ? r->n_graph : 1;
    snprintf(report->model_type, sizeof report->model_type, "%s", r->family->model_type);
    snprintf(report->task, sizeof report->task, "%s", r->splade ? "sparse" : r->head->task);
}

const char *sdx_reference_graph_file(const sdx_reference *r, size_t index)
{
    return r->n_graph ? graph_of(r, index)->file : NULL;
}

sdx_status sdx_convert_build_graph(const sdx_convert_options *options, const sdx_reference *r, size_t index,
                                   sdx_model **out, sdx_convert_report *report, sdx_error *err)
{
    sdx_model *model = NULL;
    sdx_status status = sdx_model_create(&model, err);
    if (status == SDX_OK)
        status = build(model, r, index, options->opset ? options->opset : DEFAULT_OPSET,
                       options->dtype ? options->dtype : SDX_F32, err);
    if (status != SDX_OK) {
        sdx_model_close(model);
        return status;
    }
    for (const sdx_graph *g = model->graphs; g; g = g->next) report->nodes += (size_t)g->n_node;
    report->initializers += sdx_graph_initializer_count(model->graph);
    *out = model;
    return SDX_OK;
}

sdx_status sdx_convert_build(const sdx_convert_options *options, sdx_model **out, sdx_reference **reference,
                             sdx_convert_report *report, sdx_error *err)
{
    sdx_reference *r = NULL;
    TRY(check_options(options, err));
    TRY(read_folder(options, &r, err));
    choose_graphs(r, options);
    fill_report(r, report);
    sdx_status status = sdx_convert_build_graph(options, r, 0, out, report, err);
    if (status == SDX_OK)
        *reference = r;
    else
        sdx_reference_free(r);
    return status;
}
