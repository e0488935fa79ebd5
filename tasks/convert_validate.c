/* convert_validate.c: the public sdx_convert: build the graph, write it, then open the written file as any user
 * would, run it on a sentence, and compare with the reference computed straight from the checkpoint. Speech and
 * vision models run on a made-up sound or image; of a sequence-to-sequence model the encoder is compared.
 *
 * The steps hold their memory one after the other: the model is freed when it is written, the reference when
 * its numbers are known, and only then the program is opened. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

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

/* ---- samples of other kinds ------------------------------------------------------------------------------ */

/* What the graph and the reference are both run on: a text, or values of this shape (rank 0: none). */
typedef struct probe {
    sdx_encoding text;
    sdx_shape shape;
    float *values; /* owned */
} probe;

static void free_probe(probe *p)
{
    sdx_encoding_free(&p->text);
    free(p->values);
}

/* Two tones and a little noise, within what recordings and normalized pixels have. */
static sdx_status invent_values(const sdx_shape *shape, float **out, sdx_error *err)
{
    size_t count = (size_t)sdx_shape_count(shape);
    float *values = sdx_calloc(count, sizeof *values);
    if (!values) return sdx_fail_memory(err, count * sizeof *values);
    uint32_t noise = 1;
    for (size_t i = 0; i < count; i++) {
        noise = noise * 1664525u + 1013904223u;
        values[i] =
            0.6f * sinf((float)i * 0.07f) + 0.3f * sinf((float)i * 0.31f) + (float)(noise >> 8) * 0x1p-26f;
    }
    *out = values;
    return SDX_OK;
}

static sdx_status make_probe(const sdx_convert_options *options, const sdx_reference *reference, probe *out,
                             sdx_error *err)
{
    out->shape = sdx_reference_sample(reference);
    return out->shape.rank ? invent_values(&out->shape, &out->values, err)
                           : encode_text(options, reference, &out->text, err);
}

/* ---- running the written file ---------------------------------------------------------------------------- */

static sdx_tensor bind_values(const probe *p)
{
    sdx_tensor t = {.dtype = SDX_F32, .rank = p->shape.rank, .data = p->values};
    for (int i = 0; i < t.rank; i++) t.dim[i] = p->shape.dim[i];
    return t;
}

/* A row for each of the graph's inputs, all [1, count]. mask: ones. */
static sdx_status bind_inputs(const sdx_model *model, const probe *p, int64_t *mask, const char **names,
                              sdx_tensor *inputs, sdx_error *err)
{
    const sdx_encoding *text = &p->text;
    size_t n = sdx_model_input_count(model);
    if (n > MAX_INPUTS) return sdx_fail(err, SDX_ERR_INTERNAL, "the converted graph has %zu inputs", n);
    for (size_t i = 0; i < n; i++) {
        names[i] = sdx_model_input(model, i).name;
        if (p->values) {
            inputs[i] = bind_values(p);
            continue;
        }
        inputs[i] = (sdx_tensor){.dtype = SDX_I64, .rank = 2, .dim = {1, (int64_t)text->count}};
        inputs[i].data = !strcmp(names[i], "input_ids")        ? text->ids
                         : !strcmp(names[i], "token_type_ids") ? text->type_ids
                                                               : mask;
    }
    return SDX_OK;
}

static sdx_status run(sdx_session *session, const sdx_model *model, const probe *p, sdx_tensor *outputs,
                      size_t n_outputs, sdx_error *err)
{
    const size_t count = p->text.count;
    const char *names[MAX_INPUTS];
    sdx_tensor inputs[MAX_INPUTS];
    int64_t *mask = sdx_malloc((count + 1) * sizeof *mask);
    if (!mask) return sdx_fail_memory(err, (count + 1) * sizeof *mask);
    for (size_t i = 0; i < count; i++) mask[i] = 1;
    sdx_status status = bind_inputs(model, p, mask, names, inputs, err);
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

static sdx_status run_and_compare(const char *path, const probe *p, bool sparse,
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
    if (status == SDX_OK) status = run(session, model, p, outputs, n, err);
    if (status == SDX_OK) status = compare_outputs(outputs, n, sparse, reference, report, err);
    if (status == SDX_OK)
        snprintf(report->output_name, sizeof report->output_name, "%s",
                 sdx_model_output(model, sparse ? 1 : 0).name);
    free(outputs);
    sdx_session_free(session);
    sdx_program_free(program);
    return status;
}

/* Takes the reference over. file: the first that was written. */
static sdx_status validate(const sdx_convert_options *options, const char *file, sdx_reference *reference,
                           sdx_convert_report *report, sdx_error *err)
{
    probe p = {0};
    sdx_reference_result expected = {0};
    bool sparse = sdx_reference_is_sparse(reference);
    sdx_status status = make_probe(options, reference, &p, err);
    if (status == SDX_OK)
        status = p.values
                     ? sdx_reference_run_values(reference, p.values, &expected, err)
                     : sdx_reference_run(reference, p.text.count, p.text.ids, p.text.type_ids, &expected, err);
    sdx_reference_free(reference);
    if (status == SDX_OK) status = run_and_compare(file, &p, sparse, &expected, report, err);
    free(expected.value);
    free_probe(&p);
    if (status != SDX_OK) sdx_error_context(err, "%s: written, but not validated", file);
    return status;
}

/* ---- the folder of a sequence-to-sequence model ---------------------------------------------------------- */

/* "a/b.onnx" -> "a/b"; owned */
static char *folder_of(const char *output)
{
    char *folder = sdx_strdup(output);
    size_t n = strlen(output);
    if (folder && n > 5 && !strcmp(output + n - 5, ".onnx")) folder[n - 5] = 0;
    return folder;
}

/* Where graph `index` goes; owned. */
static char *path_of(const sdx_convert_options *options, const sdx_reference *reference, size_t index)
{
    const char *file = sdx_reference_graph_file(reference, index);
    if (!file) return sdx_strdup(options->output);
    char name[64], *folder = folder_of(options->output);
    snprintf(name, sizeof name, "%s.onnx", file);
    char *path = folder ? sdx_path_join(folder, name) : NULL;
    free(folder);
    return path;
}

static sdx_status copy_file(const char *from, const char *folder, const char *name, sdx_error *err)
{
    sdx_file_map map;
    sdx_writer w;
    char *to = sdx_path_join(folder, name);
    if (!to) return sdx_fail_memory(err, strlen(folder));
    sdx_status status = sdx_file_map_open(from, &map, err);
    if (status == SDX_OK) {
        status = sdx_writer_open(&w, to, err);
        if (status == SDX_OK) {
            sdx_writer_put(&w, map.data, map.size);
            status = sdx_writer_commit(&w, err);
        }
        sdx_file_map_close(&map);
    }
    free(to);
    return status;
}

/* What those who load the folder look for beside the graphs. */
static sdx_status copy_companions(const char *checkpoint, const char *folder, sdx_error *err)
{
    static const char *const names[] = {
        "config.json",       "generation_config.json",  "tokenizer.json", "tokenizer_config.json",
        "added_tokens.json", "special_tokens_map.json", "vocab.json",     "merges.txt",
        "spiece.model",      "sentencepiece.bpe.model", "source.spm",     "target.spm",
    };
    sdx_status status = SDX_OK;
    for (size_t i = 0; i < sizeof names / sizeof *names && status == SDX_OK; i++) {
        char *from = find_file(checkpoint, names[i]);
        if (from) status = copy_file(from, folder, names[i], err);
        free(from);
    }
    return status;
}

static sdx_status make_folder(const sdx_convert_options *options, sdx_error *err)
{
    char *folder = folder_of(options->output);
    if (!folder) return sdx_fail_memory(err, strlen(options->output));
    sdx_status status = SDX_OK;
    if (mkdir(folder, 0777) && errno != EEXIST)
        status = sdx_fail(err, SDX_ERR_FILE, "%s: cannot make the folder: %s", folder, strerror(errno));
    if (status == SDX_OK) status = copy_companions(options->checkpoint, folder, err);
    free(folder);
    return status;
}

/* ---- all of it ------------------------------------------------------------------------------------------- */

/* Closes the model. */
static sdx_status write_model(const sdx_convert_options *options, const sdx_reference *reference, size_t index,
                              sdx_model *model, sdx_error *err)
{
    sdx_onnx_write_options how = {.external_data = options->external_data};
    char *path = path_of(options, reference, index);
    sdx_status status =
        path ? sdx_onnx_write(model, path, &how, err) : sdx_fail_memory(err, strlen(options->output));
    sdx_model_close(model);
    free(path);
    return status;
}

/* One graph after the other, so that no two are in memory. Takes the first over. */
static sdx_status write_models(const sdx_convert_options *options, const sdx_reference *reference,
                               sdx_model *model, sdx_convert_report *made, sdx_error *err)
{
    sdx_status status = sdx_reference_graph_file(reference, 0) ? make_folder(options, err) : SDX_OK;
    if (status == SDX_OK)
        status = write_model(options, reference, 0, model, err);
    else
        sdx_model_close(model);
    for (size_t i = 1; i < made->graphs && status == SDX_OK; i++) {
        status = sdx_convert_build_graph(options, reference, i, &model, made, err);
        if (status == SDX_OK) status = write_model(options, reference, i, model, err);
    }
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
    sdx_status status = write_models(options, reference, model, &made, err);
    bool folder = sdx_reference_graph_file(reference, 0) != NULL;
    made.wrote_vocabulary = !folder && options->vocabulary && has_tokenizer(options->checkpoint);
    if (status == SDX_OK && made.wrote_vocabulary)
        status = write_vocabulary(options->checkpoint, options->vocabulary, err);
    char *first = path_of(options, reference, 0);
    if (status == SDX_OK && !first) status = sdx_fail_memory(err, strlen(options->output));
    if (status == SDX_OK && !options->skip_validation)
        status = validate(options, first, reference, &made, err);
    else
        sdx_reference_free(reference);
    free(first);
    if (status == SDX_OK && report) *report = made;
    return status;
}
