/* generate_graphs.c: which graphs there are, and each ready to run. A folder of optimum's, or of our own
 * `convert`, has encoder_model.onnx and its decoders; a checkpoint folder is converted in memory, to the same
 * graphs. */
#include "generate_graphs.h"

#include <stdlib.h>
#include <string.h>

#include "../base/file.h"
#include "../base/memory.h"

int sdx_stage_output(const sdx_stage *s, const char *name)
{
    const sdx_model *m = sdx_program_model(s->program);
    for (size_t i = 0; i < s->n_out; i++)
        if (!strcmp(sdx_model_output(m, i).name, name)) return (int)i;
    return -1;
}

/* ---- one graph ------------------------------------------------------------------------------------------- */

/* A session for the program that s has; where names it in messages. */
static sdx_status ready_stage(const char *where, const char *output, sdx_stage *s, sdx_error *err)
{
    const sdx_model *m = sdx_program_model(s->program);
    TRY(sdx_session_create(s->program, &s->session, err));
    s->n_in = sdx_model_input_count(m);
    s->n_out = sdx_model_output_count(m);
    s->result = sdx_stage_output(s, output);
    if (s->result < 0) return sdx_fail(err, SDX_ERR_UNSUPPORTED, "%s: has no output \"%s\"", where, output);
    s->name = sdx_calloc(s->n_in + 1, sizeof *s->name);
    s->in = sdx_calloc(s->n_in + 1, sizeof *s->in);
    s->out = sdx_calloc(s->n_out + 1, sizeof *s->out);
    return s->name && s->in && s->out ? SDX_OK : sdx_fail_memory(err, s->n_in * sizeof *s->in);
}

static sdx_status open_stage(const char *path, const sdx_run_options *run, const char *output, sdx_stage *s,
                             sdx_error *err)
{
    TRY(sdx_program_open(path, run, &s->program, err));
    return ready_stage(path, output, s, err);
}

static void close_stage(sdx_stage *s)
{
    sdx_session_free(s->session);
    sdx_program_free(s->program);
    free(s->name);
    free(s->in);
    free(s->out);
    *s = (sdx_stage){0};
}

/* A lone graph is run on whole rows unless it takes a past. */
static void place_lone(sdx_stages *g)
{
    const sdx_model *m = sdx_program_model(g->first.program);
    for (size_t i = 0; i < g->first.n_in; i++) {
        if (strncmp(sdx_model_input(m, i).name, SDX_PAST, strlen(SDX_PAST))) continue;
        g->past = g->first;
        g->first = (sdx_stage){0};
        return;
    }
}

/* ---- files ----------------------------------------------------------------------------------------------- */

/* folder/name or folder/onnx/name in new memory; NULL when neither is there. */
static char *find_file(const char *folder, const char *name)
{
    char *path = sdx_path_join(folder, name);
    if (path && sdx_file_exists(path)) return path;
    free(path);
    char *inner = sdx_path_join(folder, "onnx");
    path = inner ? sdx_path_join(inner, name) : NULL;
    free(inner);
    if (path && sdx_file_exists(path)) return path;
    free(path);
    return NULL;
}

static bool has_file(const char *folder, const char *name)
{
    char *path = find_file(folder, name);
    free(path);
    return path != NULL;
}

static sdx_status open_if_there(const char *folder, const char *name, const sdx_run_options *run,
                                const char *output, sdx_stage *s, sdx_error *err)
{
    char *path = find_file(folder, name);
    sdx_status status = path ? open_stage(path, run, output, s, err) : SDX_OK;
    free(path);
    return status;
}

/* The branch without a cache does not read the inputs for one: then they need not be given. */
static sdx_status drop_pasts(sdx_model *m, sdx_error *err)
{
    for (size_t i = sdx_model_input_count(m); i-- > 0;) {
        sdx_port port = sdx_model_input(m, i);
        sdx_tensor empty = {port.dtype, 1, {0}, NULL};
        if (!strncmp(port.name, SDX_PAST, strlen(SDX_PAST))) TRY(sdx_model_fix_input(m, port.name, &empty, err));
    }
    return SDX_OK;
}

/* One branch of a merged decoder, as a decoder of its own. */
static sdx_status open_branch(const char *folder, bool cached, const sdx_run_options *run, sdx_stage *s, sdx_error *err)
{
    char *path = find_file(folder, "decoder_model_merged.onnx");
    if (!path) return SDX_OK;
    sdx_tensor branch = {SDX_BOOL, 1, {1}, &cached};
    sdx_model *m = NULL;
    sdx_status status;
    TRY_GOTO(sdx_model_open(path, &m, err));
    status = sdx_model_fix_input(m, "use_cache_branch", &branch, err);
    if (status == SDX_OK && !cached) status = drop_pasts(m, err);
    if (status != SDX_OK) sdx_model_close(m);
    if (status == SDX_OK) status = sdx_program_create(m, run, &s->program, err);
    if (status == SDX_OK) status = ready_stage(path, "logits", s, err);
done:
    free(path);
    return status;
}

static sdx_status open_files(sdx_stages *g, const char *folder, const sdx_run_options *run, sdx_error *err)
{
    TRY(open_if_there(folder, "encoder_model.onnx", run, "last_hidden_state", &g->encoder, err));
    TRY(open_if_there(folder, "decoder_model.onnx", run, "logits", &g->first, err));
    if (g->first.program)
        return open_if_there(folder, "decoder_with_past_model.onnx", run, "logits", &g->past, err);
    TRY(open_branch(folder, false, run, &g->first, err));
    TRY(open_branch(folder, true, run, &g->past, err));
    if (g->first.program) return SDX_OK;
    return sdx_fail(err, SDX_ERR_FILE,
                    "%s: has encoder_model.onnx, but neither decoder_model.onnx nor decoder_model_merged.onnx",
                    folder);
}

/* ---- a checkpoint ---------------------------------------------------------------------------------------- */

/* The stage of a converted graph's file name; NULL names a lone graph. */
static sdx_stage *stage_of(sdx_stages *g, const char *file)
{
    if (!file || !strcmp(file, "decoder_model")) return &g->first;
    if (!strcmp(file, "encoder_model")) return &g->encoder;
    return strcmp(file, "decoder_with_past_model") ? NULL : &g->past;
}

static sdx_status make_stage(sdx_stages *g, const char *folder, const char *file, sdx_model *model,
                             const sdx_run_options *run, sdx_error *err)
{
    sdx_stage *s = stage_of(g, file);
    if (!s || s->program) {
        sdx_model_close(model);
        return sdx_fail(err, SDX_ERR_INTERNAL, "%s: a graph \"%s\" was made, which is not known here", folder,
                        file ? file : "");
    }
    TRY(sdx_program_create(model, run, &s->program, err));
    return ready_stage(folder, s == &g->encoder ? "last_hidden_state" : "logits", s, err);
}

static sdx_status convert_checkpoint(sdx_stages *g, const char *folder, const sdx_run_options *run,
                                     sdx_error *err)
{
    sdx_convert_options options = {.checkpoint = folder, .task = "text-generation-with-past"};
    sdx_convert_report report;
    sdx_model *model;
    if (sdx_convert_build(&options, &model, &g->checkpoint, &report, NULL) != SDX_OK) {
        options.task = NULL; /* a family without that task, which has its own */
        TRY(sdx_convert_build(&options, &model, &g->checkpoint, &report, err));
    }
    TRY(make_stage(g, folder, sdx_reference_graph_file(g->checkpoint, 0), model, run, err));
    for (size_t i = 1; i < report.graphs; i++) {
        TRY(sdx_convert_build_graph(&options, g->checkpoint, i, &model, &report, err));
        TRY(make_stage(g, folder, sdx_reference_graph_file(g->checkpoint, i), model, run, err));
    }
    if (!g->encoder.program) place_lone(g);
    return SDX_OK;
}

/* ---- all ------------------------------------------------------------------------------------------------- */

static sdx_status open_lone(sdx_stages *g, const char *path, const sdx_run_options *run, sdx_error *err)
{
    TRY(open_stage(path, run, "logits", &g->first, err));
    place_lone(g);
    return SDX_OK;
}

sdx_status sdx_stages_open(const char *path, const sdx_run_options *run, sdx_stages *out, sdx_error *err)
{
    sdx_stages g = {.checkpoint = NULL};
    sdx_status status;
    bool folder = sdx_is_directory(path);
    if (folder && has_file(path, "encoder_model.onnx"))
        status = open_files(&g, path, run, err);
    else if (folder && !has_file(path, "model.onnx") && has_file(path, "config.json"))
        status = convert_checkpoint(&g, path, run, err);
    else
        status = open_lone(&g, path, run, err);
    if (status == SDX_OK)
        *out = g;
    else
        sdx_stages_close(&g);
    return status;
}

void sdx_stages_close(sdx_stages *g)
{
    close_stage(&g->encoder);
    close_stage(&g->first);
    close_stage(&g->past);
    sdx_reference_free(g->checkpoint);
    g->checkpoint = NULL;
}
