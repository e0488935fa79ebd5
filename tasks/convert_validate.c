/* convert_validate.c: the public sdx_convert: build the graphs, write them, then have them checked (convert_check.c).
 *
 * The steps hold their memory one after the other: the model is freed when it is written, the reference when
 * its numbers are known, and only then the program is opened. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "../base/memory.h"
#include "convert_check.h"

enum { MAX_FILE = 64 << 20, MAX_GRAPHS = 4 };

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

static sdx_status make_folder(const sdx_convert_options *options, sdx_error *err)
{
    char *folder = folder_of(options->output);
    if (!folder) return sdx_fail_memory(err, strlen(options->output));
    sdx_status status = SDX_OK;
    if (mkdir(folder, 0777) && errno != EEXIST)
        status = sdx_fail(err, SDX_ERR_FILE, "%s: cannot make the folder: %s", folder, strerror(errno));
    if (status == SDX_OK) status = sdx_copy_companions(options->checkpoint, folder, err);
    free(folder);
    return status;
}

/* ---- all of it ------------------------------------------------------------------------------------------- */

/* Closes the model. */
static sdx_status write_model(const sdx_convert_options *options, const sdx_reference *reference, size_t index,
                              sdx_model *model, sdx_error *err)
{
    sdx_onnx_write_options how = {
        .external_data = options->external_data, .progress = options->progress, .context = options->progress_context};
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

/* Takes the reference over. */
static sdx_status check_files(const sdx_convert_options *options, sdx_reference *reference, sdx_convert_report *made,
                              sdx_error *err)
{
    char *path[MAX_GRAPHS] = {NULL};
    bool complete = true;
    for (size_t i = 0; i < made->graphs; i++) complete &= (path[i] = path_of(options, reference, i)) != NULL;
    sdx_status status = SDX_OK;
    if (complete) {
        status = sdx_convert_check(options, reference, path, made, err);
    } else {
        sdx_reference_free(reference);
        status = sdx_fail_memory(err, strlen(options->output));
    }
    for (size_t i = 0; i < made->graphs; i++) free(path[i]);
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
    made.wrote_vocabulary = !folder && options->vocabulary && sdx_convert_has_tokenizer(options->checkpoint);
    if (status == SDX_OK && made.wrote_vocabulary)
        status = write_vocabulary(options->checkpoint, options->vocabulary, err);
    if (status == SDX_OK && !options->skip_validation)
        status = check_files(options, reference, &made, err);
    else
        sdx_reference_free(reference);
    if (status == SDX_OK && report) *report = made;
    return status;
}
