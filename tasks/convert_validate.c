/* convert_validate.c: the public sdx_convert: build the graph, write it, then open the written file as any user
 * would, run it on a sentence, and compare with the reference computed straight from the checkpoint.
 *
 * The steps hold their memory one after the other: the model is freed when it is written, the reference when
 * its numbers are known, and only then the program is opened. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/memory.h"
#include "../convert/convert.h"

enum { MAX_FILE = 64 << 20, MAX_INPUTS = 8 };

/* ---- vocabulary ------------------------------------------------------------------------------------------ */

/* path of name in folder if it is a file there, else NULL */
static char *find_file(const char *folder, const char *name)
{
    char *path = sdx_path_join(folder, name);
    if (path && sdx_file_exists(path)) return path;
    free(path);
    return NULL;
}

static sdx_status put_tokens(sdx_writer *w, const char *folder, sdx_error *err)
{
    sdx_tokenizer *tokenizer;
    TRY(sdx_tokenizer_open(folder, &tokenizer, err));
    size_t n = sdx_tokenizer_vocab_size(tokenizer);
    for (size_t id = 0; id < n; id++) {
        const char *token = sdx_tokenizer_token(tokenizer, (int64_t)id);
        if (token) sdx_writer_put(w, token, strlen(token));
        sdx_writer_put(w, "\n", 1); /* a gap in the numbering is an empty line: line n is token n */
    }
    sdx_tokenizer_free(tokenizer);
    return SDX_OK;
}

static sdx_status put_file(sdx_writer *w, const char *path, sdx_error *err)
{
    char *text;
    size_t size;
    TRY(sdx_file_read(path, MAX_FILE, &text, &size, err));
    sdx_writer_put(w, text, size);
    if (size && text[size - 1] != '\n') sdx_writer_put(w, "\n", 1);
    free(text);
    return SDX_OK;
}

static sdx_status write_vocabulary(const char *folder, const char *path, sdx_error *err)
{
    sdx_writer w;
    TRY(sdx_writer_open(&w, path, err));
    char *list = find_file(folder, "vocab.txt");
    sdx_status status = list ? put_file(&w, list, err) : put_tokens(&w, folder, err);
    free(list);
    if (status == SDX_OK) return sdx_writer_commit(&w, err);
    sdx_writer_abort(&w);
    return status;
}

/* ---- the sentence ---------------------------------------------------------------------------------------- */

static bool has_tokenizer(const char *folder)
{
    static const char *const names[] = {"tokenizer.json", "vocab.txt"};
    bool found = false;
    for (size_t i = 0; i < sizeof names / sizeof *names && !found; i++) {
        char *path = find_file(folder, names[i]);
        found = path != NULL;
        free(path);
    }
    return found;
}

static sdx_status tokenize(const sdx_convert_options *options, size_t longest, sdx_encoding *out,
                           sdx_error *err)
{
    const char *text = options->text ? options->text : "what is AI?";
    sdx_tokenizer *tokenizer;
    TRY(sdx_tokenizer_open(options->checkpoint, &tokenizer, err));
    sdx_status status = sdx_tokenizer_encode(tokenizer, text, strlen(text), NULL, 0, longest, out, err);
    sdx_tokenizer_free(tokenizer);
    return status;
}

/* Weights without a tokenizer, or with one of a kind unknown here, can be checked as well: any tokens do. */
static sdx_status invent_tokens(size_t count, int64_t vocab, sdx_encoding *out, sdx_error *err)
{
    sdx_encoding e = {count, sdx_calloc(count, sizeof *e.ids), sdx_calloc(count, sizeof *e.type_ids)};
    if (!e.ids || !e.type_ids) {
        sdx_encoding_free(&e);
        return sdx_fail_memory(err, count * sizeof *e.ids);
    }
    for (size_t i = 0; i < count; i++) e.ids[i] = (int64_t)(i + 1) * 7919 % vocab;
    *out = e;
    return SDX_OK;
}

static sdx_status encode_text(const sdx_convert_options *options, const sdx_reference *reference,
                              sdx_encoding *out, sdx_error *err)
{
    size_t longest = (size_t)sdx_reference_positions(reference);
    if (has_tokenizer(options->checkpoint)) {
        sdx_status status = tokenize(options, longest, out, err);
        if (status != SDX_ERR_UNSUPPORTED) return status;
    }
    return invent_tokens(longest < 8 ? longest : 8, sdx_reference_vocab_size(reference), out, err);
}

/* ---- running the written file ---------------------------------------------------------------------------- */

/* A row for each of the graph's inputs, all [1, count]. mask: ones. */
static sdx_status bind_inputs(const sdx_model *model, const sdx_encoding *text, int64_t *mask,
                              const char **names, sdx_tensor *inputs, sdx_error *err)
{
    size_t n = sdx_model_input_count(model);
    if (n > MAX_INPUTS) return sdx_fail(err, SDX_ERR_INTERNAL, "the converted graph has %zu inputs", n);
    for (size_t i = 0; i < n; i++) {
        names[i] = sdx_model_input(model, i).name;
        inputs[i] = (sdx_tensor){.dtype = SDX_I64, .rank = 2, .dim = {1, (int64_t)text->count}};
        inputs[i].data = !strcmp(names[i], "input_ids")        ? text->ids
                         : !strcmp(names[i], "token_type_ids") ? text->type_ids
                                                               : mask;
    }
    return SDX_OK;
}

static sdx_status run(sdx_session *session, const sdx_model *model, const sdx_encoding *text,
                      sdx_tensor *outputs, size_t n_outputs, sdx_error *err)
{
    const char *names[MAX_INPUTS];
    sdx_tensor inputs[MAX_INPUTS];
    int64_t *mask = sdx_malloc(text->count * sizeof *mask);
    if (!mask) return sdx_fail_memory(err, text->count * sizeof *mask);
    for (size_t i = 0; i < text->count; i++) mask[i] = 1;
    sdx_status status = bind_inputs(model, text, mask, names, inputs, err);
    if (status == SDX_OK)
        status = sdx_session_run(session, sdx_model_input_count(model), names, inputs, n_outputs, outputs, err);
    free(mask);
    return status;
}

/* ---- comparing ------------------------------------------------------------------------------------------- */

static int64_t count_values(const sdx_reference_result *r)
{
    int64_t n = 1;
    for (int i = 0; i < r->rank; i++) n *= r->dim[i];
    return n;
}

/* Indices and weights to a dense vector [n] of floats. */
static sdx_status scatter(const sdx_tensor *index, const sdx_tensor *weight, float *out, int64_t n,
                          sdx_error *err)
{
    int64_t count = sdx_tensor_count(index);
    if (index->dtype != SDX_I64 || weight->dtype != SDX_F32 || sdx_tensor_count(weight) != count)
        return sdx_fail(err, SDX_ERR_INTERNAL, "the graph's sparse outputs do not fit together");
    for (int64_t i = 0; i < count; i++) {
        int64_t at = ((const int64_t *)index->data)[i];
        if (at < 0 || at >= n)
            return sdx_fail(err, SDX_ERR_INTERNAL, "the graph's output names token %lld", (long long)at);
        out[at] = ((const float *)weight->data)[i];
    }
    return SDX_OK;
}

/* NaN when any difference is. */
static void compare(const float *graph, const sdx_reference_result *reference, sdx_convert_report *report)
{
    int64_t n = count_values(reference);
    double sum = 0, worst = 0;
    for (int64_t i = 0; i < n; i++) {
        double g = (double)graph[i], r = reference->value[i], d = fabs(g - r);
        sum += fabs((g < 0 ? 0 : g) - (r < 0 ? 0 : r));
        if (!isnan(worst) && !(d <= worst)) worst = d;
    }
    report->l1_difference = sum / (double)n;
    report->max_difference = worst;
}

static sdx_status compare_outputs(const sdx_tensor *outputs, size_t n_outputs, bool sparse,
                                  const sdx_reference_result *reference, sdx_convert_report *report,
                                  sdx_error *err)
{
    int64_t n = count_values(reference);
    if (!sparse) {
        if (outputs[0].dtype != SDX_F32 || sdx_tensor_count(&outputs[0]) != n)
            return sdx_fail(err, SDX_ERR_INTERNAL,
                            "the graph's first output has another shape than the reference");
        compare(outputs[0].data, reference, report);
        return SDX_OK;
    }
    float *dense = sdx_calloc((size_t)n, sizeof *dense);
    if (!dense) return sdx_fail_memory(err, (size_t)n * sizeof *dense);
    sdx_status status = n_outputs == 2 ? scatter(&outputs[0], &outputs[1], dense, n, err)
                                       : sdx_fail(err, SDX_ERR_INTERNAL, "a sparse graph has two outputs");
    if (status == SDX_OK) compare(dense, reference, report);
    free(dense);
    return status;
}

static sdx_status run_and_compare(const char *path, const sdx_encoding *text, bool sparse,
                                  const sdx_reference_result *reference, sdx_convert_report *report,
                                  sdx_error *err)
{
    sdx_run_options options = {0};
    sdx_program *program;
    sdx_session *session = NULL;
    sdx_tensor *outputs = NULL;
    TRY(sdx_program_open(path, &options, &program, err));
    const sdx_model *model = sdx_program_model(program);
    size_t n = sdx_model_output_count(model);
    sdx_status status = sdx_session_create(program, &session, err);
    if (status == SDX_OK && !(outputs = sdx_calloc(n, sizeof *outputs)))
        status = sdx_fail_memory(err, n * sizeof *outputs);
    if (status == SDX_OK) status = run(session, model, text, outputs, n, err);
    if (status == SDX_OK) status = compare_outputs(outputs, n, sparse, reference, report, err);
    if (status == SDX_OK)
        snprintf(report->output_name, sizeof report->output_name, "%s",
                 sdx_model_output(model, sparse ? 1 : 0).name);
    free(outputs);
    sdx_session_free(session);
    sdx_program_free(program);
    return status;
}

/* Takes the reference over. */
static sdx_status validate(const sdx_convert_options *options, sdx_reference *reference,
                           sdx_convert_report *report, sdx_error *err)
{
    sdx_encoding text = {0};
    sdx_reference_result expected = {0};
    bool sparse = sdx_reference_is_sparse(reference);
    sdx_status status = encode_text(options, reference, &text, err);
    if (status == SDX_OK)
        status = sdx_reference_run(reference, text.count, text.ids, text.type_ids, &expected, err);
    sdx_reference_free(reference);
    if (status == SDX_OK) status = run_and_compare(options->output, &text, sparse, &expected, report, err);
    free(expected.value);
    sdx_encoding_free(&text);
    if (status != SDX_OK) sdx_error_context(err, "%s: written, but not validated", options->output);
    return status;
}

sdx_status sdx_convert(const sdx_convert_options *options, sdx_convert_report *report, sdx_error *err)
{
    sdx_convert_report made = {0};
    sdx_model *model = NULL;
    sdx_reference *reference = NULL;
    if (!options->checkpoint || !options->output)
        return sdx_fail(err, SDX_ERR_USAGE, "a conversion needs a checkpoint folder and an output file");
    TRY(sdx_convert_build(options, &model, &reference, &made, err));
    sdx_onnx_write_options how = {.external_data = options->external_data};
    sdx_status status = sdx_onnx_write(model, options->output, &how, err);
    sdx_model_close(model);
    made.wrote_vocabulary = options->vocabulary && has_tokenizer(options->checkpoint);
    if (status == SDX_OK && made.wrote_vocabulary)
        status = write_vocabulary(options->checkpoint, options->vocabulary, err);
    if (status == SDX_OK && !options->skip_validation)
        status = validate(options, reference, &made, err);
    else
        sdx_reference_free(reference);
    if (status == SDX_OK && report) *report = made;
    return status;
}
