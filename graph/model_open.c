/* model_open.c: sdx_model_open and the questions anyone may ask of an open model. */
#include <stdlib.h>
#include <string.h>

#include "graph.h"

/* The first of these below a folder is its model. */
static const char *const file_names[] = {"model.onnx", "onnx/model.onnx"};

static sdx_status open_in_folder(const char *folder, sdx_model **out, sdx_error *err)
{
    for (size_t i = 0; i < sizeof file_names / sizeof *file_names; i++) {
        char *path = sdx_path_join(folder, file_names[i]);
        if (!path) return sdx_fail_memory(err, strlen(folder) + 32);
        bool found = sdx_file_exists(path);
        sdx_status status = found ? sdx_onnx_read(path, out, err) : SDX_OK;
        free(path);
        if (found) return status;
    }
    return sdx_fail(err, SDX_ERR_FILE, "%s: the folder holds neither %s nor %s", folder, file_names[0],
                    file_names[1]);
}

sdx_status sdx_model_open(const char *path, sdx_model **out, sdx_error *err)
{
    if (!path || !*path) return sdx_fail(err, SDX_ERR_USAGE, "no model file was given");
    return sdx_is_directory(path) ? open_in_folder(path, out, err) : sdx_onnx_read(path, out, err);
}

/* What inference found, and where it found nothing, what the file says. */
static sdx_port make_port(const sdx_model *model, sdx_id id)
{
    const sdx_value *v = &model->graph->value[id];
    const sdx_declared *d = v->declared;
    bool known = v->type.dtype != SDX_UNDEFINED || !d;
    const sdx_shape *shape = known ? &v->type.shape : &d->shape;
    sdx_port port = {.name = v->name, .dtype = known ? v->type.dtype : d->dtype, .rank = shape->rank};
    port.sequence = d && d->sequence;
    port.optional = d && d->optional;
    port.has_default = v->preset || (v->is_input && v->type.constant);
    for (int i = 0; i < port.rank; i++) {
        sdx_dim size = shape->dim[i];
        port.dim[i] = sdx_dim_is_known(size) ? size : -1;
        if (sdx_dim_is_symbol(size)) port.symbol[i] = model->symbol[SDX_DIM_SYMBOL_ID(size)].name;
    }
    return port;
}

size_t sdx_model_input_count(const sdx_model *model)
{
    return (size_t)model->graph->n_input;
}
size_t sdx_model_output_count(const sdx_model *model)
{
    return (size_t)model->graph->n_output;
}
sdx_port sdx_model_input(const sdx_model *model, size_t i)
{
    return make_port(model, model->graph->input[i]);
}
sdx_port sdx_model_output(const sdx_model *model, size_t i)
{
    return make_port(model, model->graph->output[i]);
}

const char *sdx_model_metadata(const sdx_model *model, const char *key)
{
    for (int i = 0; i < model->n_metadata; i++)
        if (!strcmp(model->metadata[i].key, key)) return model->metadata[i].value;
    return NULL;
}

const char *sdx_model_warning(const sdx_model *model)
{
    return model->warning;
}
