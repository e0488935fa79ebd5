/* apart.c: a way out of what inference assumes. Two inputs whose sizes meet in an Add are taken to be of one size,
 * "batch" and "mask_batch", as fusions want to know; a caller may still give 1 for one of them and let it broadcast.
 * Each run compares the sizes with what was assumed (frame.c); where they differ the file is compiled again, once, with
 * nothing assumed, and such runs are that program's: slower, and right. A model made or edited in memory cannot be
 * compiled again: there the run is refused. */
#include "../base/memory.h"
#include "engine.h"

static sdx_status copy_option(sdx_program *p, const char **text, sdx_error *err)
{
    if (!*text) return SDX_OK;
    *text = sdx_arena_strdup(&p->arena, *text);
    return *text ? SDX_OK : sdx_fail_memory(err, 16);
}

sdx_status sdx_program_keep_options(sdx_program *p, const sdx_run_options *options, sdx_error *err)
{
    p->from_file = true;
    if (options) p->options = *options;
    TRY(copy_option(p, &p->options.isa, err));
    return copy_option(p, &p->options.precision, err);
}

/* Of the bytes that are mapped already: the file of that name may be another by now. */
static sdx_status make_apart(const sdx_program *p, sdx_program **out, sdx_error *err)
{
    sdx_model *model;
    sdx_file_map file = p->model->file;
    file.borrowed = true;
    TRY(sdx_onnx_read_mapped(p->model->path, file, &model, err));
    model->assume_nothing = true;
    return sdx_program_create(model, &p->options, out, err);
}

sdx_status sdx_program_find_apart(const sdx_program *program, const sdx_program **out, sdx_error *err)
{
    sdx_program *p = (sdx_program *)program;
    pthread_mutex_lock(&p->lock);
    sdx_status status = p->from_file && !p->apart ? make_apart(p, &p->apart, err) : SDX_OK;
    *out = p->apart;
    pthread_mutex_unlock(&p->lock);
    return status;
}
