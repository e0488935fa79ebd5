/* text_model.c: see text_model.h */
#include "text_model.h"

#include <stdlib.h>
#include <string.h>

#include "../base/file.h"
#include "../base/memory.h"
#include "../tokenizer/tokenizer.h"

enum { DEFAULT_BATCH_TOKENS = 4096, MAX_INPUTS = 8, MAX_OUTPUTS = 64 };

/* ---- opening --------------------------------------------------------------------------------------------- */

static bool has_file(const char *dir, const char *name)
{
    char *path = sdx_path_join(dir, name);
    bool found = path && sdx_file_exists(path);
    free(path);
    return found;
}

bool sdx_task_has_graph(const char *folder)
{
    return has_file(folder, "model.onnx") || has_file(folder, "onnx/model.onnx");
}

/* A checkpoint without an ONNX file is converted in memory, the graph never written. */
static sdx_status open_model(sdx_text_model *m, const sdx_task_options *o, sdx_model **out, sdx_error *err)
{
    if (!sdx_is_directory(o->model) || sdx_task_has_graph(o->model) || !has_file(o->model, "config.json"))
        return sdx_model_open(o->model, out, err);
    sdx_convert_report report;
    return sdx_convert_build(&(sdx_convert_options){.checkpoint = o->model}, out, &m->checkpoint, &report, err);
}

static sdx_status open_program(sdx_text_model *m, const sdx_task_options *o, sdx_error *err)
{
    sdx_model *model;
    TRY(open_model(m, o, &model, err));
    sdx_status status = sdx_splade_expose_places(model, &m->places, err);
    if (status != SDX_OK) {
        sdx_model_close(model);
        return status;
    }
    sdx_run_options run = o->run;
    run.skip_padding = true;
    TRY(sdx_program_create(model, &run, &m->program, err));
    m->alone = sdx_model_mixes_rows(sdx_program_model(m->program));
    return SDX_OK;
}

char *sdx_task_folder(const sdx_task_options *o)
{
    const char *place = o->tokenizer ? o->tokenizer : o->model;
    return sdx_is_directory(place) ? sdx_strdup(place) : sdx_path_dirname(place);
}

sdx_status sdx_text_model_open(const sdx_task_options *o, sdx_text_model *out, sdx_error *err)
{
    sdx_text_model m = {.places = -1, .batch_tokens = o->batch_tokens ? o->batch_tokens : DEFAULT_BATCH_TOKENS};
    sdx_status status = SDX_OK;
    if (!o->model) return sdx_fail(err, SDX_ERR_USAGE, "no model given");
    m.folder = sdx_task_folder(o);
    if (!m.folder) return sdx_fail_memory(err, 1);
    TRY_GOTO(sdx_tokenizer_open(o->tokenizer ? o->tokenizer : m.folder, &m.tokenizer, err));
    TRY_GOTO(open_program(&m, o, err));
    TRY_GOTO(sdx_session_create(m.program, &m.session, err));
    m.max_length = o->max_length ? o->max_length : m.tokenizer->model_max_length;
    m.pad_id = m.tokenizer->pad_id >= 0 ? m.tokenizer->pad_id : 0;
    if (sdx_model_input_count(sdx_program_model(m.program)) > MAX_INPUTS ||
        sdx_model_output_count(sdx_program_model(m.program)) > MAX_OUTPUTS)
        status =
            sdx_fail(err, SDX_ERR_UNSUPPORTED, "%s: more inputs or outputs than a text encoder has", o->model);
done:
    if (status != SDX_OK) sdx_text_model_close(&m);
    else *out = m;
    return status;
}

void sdx_text_model_close(sdx_text_model *m)
{
    sdx_session_free(m->session);
    sdx_program_free(m->program);
    sdx_reference_free(m->checkpoint);
    sdx_tokenizer_free(m->tokenizer);
    free(m->folder);
    *m = (sdx_text_model){0};
}

int sdx_text_model_output(const sdx_text_model *m, const char *name)
{
    const sdx_model *model = sdx_program_model(m->program);
    for (size_t i = 0; i < sdx_model_output_count(model); i++)
        if (!strcmp(sdx_model_output(model, i).name, name)) return (int)i;
    return -1;
}

/* ---- batches --------------------------------------------------------------------------------------------- */

typedef struct job { /* a text and its tokens */
    size_t index;
    sdx_encoding encoding;
} job;

/* Longest first: the first batch needs the most memory. Ties by index, so that the order is one. */
static int by_length(const void *a, const void *b)
{
    const job *x = a, *y = b;
    if (x->encoding.count != y->encoding.count) return x->encoding.count < y->encoding.count ? 1 : -1;
    return x->index < y->index ? -1 : 1;
}

/* The number a token row has at position t for the input of that name. */
static sdx_status fill_input(const sdx_text_model *m, const char *name, const job *jobs, size_t rows,
                             size_t width, int64_t *data, sdx_error *err)
{
    bool ids = !strcmp(name, "input_ids"), mask = !strcmp(name, "attention_mask");
    if (!ids && !mask && strcmp(name, "token_type_ids"))
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "the model has an input \"%s\", which no text gives", name);
    for (size_t r = 0; r < rows; r++) {
        const sdx_encoding *e = &jobs[r].encoding;
        for (size_t t = 0; t < width; t++) {
            bool real = t < e->count;
            int64_t value = ids ? m->pad_id : 0;
            if (real) value = ids ? e->ids[t] : mask ? 1 : e->type_ids[t];
            data[r * width + t] = value;
        }
    }
    return SDX_OK;
}

void sdx_task_narrow(int64_t *data, size_t n)
{
    for (size_t i = 0; i < n; i++) ((int32_t *)data)[i] = (int32_t)data[i];
}

static sdx_status run_batch(sdx_text_model *m, const job *jobs, size_t rows, sdx_text_batch_fn fn,
                            void *context, sdx_error *err)
{
    const sdx_model *model = sdx_program_model(m->program);
    size_t width = jobs[0].encoding.count, n_in = sdx_model_input_count(model), cells = rows * width;
    const char *names[MAX_INPUTS];
    sdx_tensor inputs[MAX_INPUTS], outputs[MAX_OUTPUTS];
    sdx_status status = SDX_OK;
    int64_t *data = sdx_malloc(n_in * (cells + 1) * sizeof *data);
    size_t *index = sdx_malloc(2 * rows * sizeof *index);
    if (!data || !index) {
        status = sdx_fail_memory(err, n_in * cells * sizeof *data);
        goto done;
    }
    for (size_t i = 0; i < n_in; i++) {
        sdx_port port = sdx_model_input(model, i);
        int64_t *own = data + i * cells;
        TRY_GOTO(fill_input(m, port.name, jobs, rows, width, own, err));
        if (port.dtype == SDX_I32) sdx_task_narrow(own, cells);
        names[i] = port.name;
        inputs[i] = (sdx_tensor){port.dtype, 2, {(int64_t)rows, (int64_t)width}, own};
    }
    TRY_GOTO(sdx_session_run(m->session, n_in, names, inputs, sdx_model_output_count(model), outputs, err));
    for (size_t r = 0; r < rows; r++) {
        index[r] = jobs[r].index;
        index[rows + r] = jobs[r].encoding.count;
    }
    status = fn(context, &(sdx_text_batch){rows, width, index, index + rows, outputs}, err);
done:
    free(data);
    free(index);
    return status;
}

static sdx_status tokenize_all(const sdx_text_model *m, const sdx_text *texts, const sdx_text *pairs,
                               size_t count, job *jobs, sdx_error *err)
{
    for (size_t i = 0; i < count; i++) {
        jobs[i].index = i;
        sdx_text pair = pairs ? pairs[i] : (sdx_text){NULL, 0};
        TRY(sdx_tokenizer_encode(m->tokenizer, texts[i].data, texts[i].length, pair.data, pair.length,
                                 m->max_length, &jobs[i].encoding, err));
        if (!jobs[i].encoding.count) return sdx_fail(err, SDX_ERR_USAGE, "text %zu has no tokens", i);
    }
    return SDX_OK;
}

sdx_status sdx_text_model_run(sdx_text_model *m, const sdx_text *texts, const sdx_text *pairs, size_t count,
                              size_t max_rows, sdx_text_batch_fn fn, void *context, sdx_error *err)
{
    job *jobs = sdx_calloc(count, sizeof *jobs);
    if (!jobs) return sdx_fail_memory(err, count * sizeof *jobs);
    sdx_status status;
    TRY_GOTO(tokenize_all(m, texts, pairs, count, jobs, err));
    qsort(jobs, count, sizeof *jobs, by_length);
    for (size_t at = 0; at < count;) {
        size_t rows = m->batch_tokens / jobs[at].encoding.count;
        if (max_rows && rows > max_rows) rows = max_rows;
        if (m->alone) rows = 1;
        if (rows < 1) rows = 1;
        if (rows > count - at) rows = count - at;
        TRY_GOTO(run_batch(m, jobs + at, rows, fn, context, err));
        at += rows;
    }
done:
    for (size_t i = 0; i < count; i++) sdx_encoding_free(&jobs[i].encoding);
    free(jobs);
    return status;
}
