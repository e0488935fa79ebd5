/* onnx_reader.c: an ONNX file into the IR: the model's header, its functions, its graph (onnx_read_graph.c). */
#include "onnx_reader.h"

enum {
    MAX_OPSETS = 256,
    IR_NEWEST = 14, /* what is known: ONNX 1.23 */
    OPSET_NEWEST = 28
};

/* ---- functions ------------------------------------------------------------------------------------------ */

/* A domain that stands twice counts with its higher version. */
static sdx_status read_opsets(sdx_onnx_reader *r, size_t count, Onnx__OperatorSetIdProto *const *from, sdx_opset **out,
                              int *n)
{
    sdx_opset *list;
    ARENA_NEW(r->arena, list, count, r->err);
    *n = 0;
    for (size_t i = 0; i < count && *n < MAX_OPSETS; i++) {
        const char *domain = sdx_onnx_domain(from[i]->domain);
        int at = 0;
        while (at < *n && strcmp(list[at].domain, domain)) at++;
        if (at == *n) {
            TRY(sdx_onnx_copy_text(r, domain, &list[at].domain));
            ++*n;
        }
        if (from[i]->version > list[at].version) list[at].version = from[i]->version;
    }
    *out = list;
    return SDX_OK;
}

static sdx_status read_function(sdx_onnx_reader *r, const Onnx__FunctionProto *p, sdx_function *f)
{
    if (*sdx_onnx_text(p->overload))
        return sdx_fail(r->err, SDX_ERR_UNSUPPORTED, "it is overloaded (\"%s\")", p->overload);
    TRY(sdx_onnx_copy_text(r, sdx_onnx_domain(p->domain), &f->domain));
    TRY(sdx_onnx_copy_text(r, p->name, &f->name));
    TRY(sdx_onnx_copy_texts(r, p->n_input, p->input, &f->input, &f->n_input));
    TRY(sdx_onnx_copy_texts(r, p->n_output, p->output, &f->output, &f->n_output));
    TRY(sdx_onnx_copy_texts(r, p->n_attribute, p->attribute, &f->attribute, &f->n_attribute));
    TRY(read_opsets(r, p->n_opset_import, p->opset_import, &f->opset, &f->n_opset));
    TRY(sdx_graph_create(r->model, NULL, &f->body, r->err));
    TRY(sdx_onnx_read_attributes(r, f->body, p->n_attribute_proto, p->attribute_proto, &f->preset, &f->n_preset));
    TRY(sdx_onnx_copy_text(r, p->name, &f->body->name));
    return sdx_onnx_read_function_body(r, f->body, p);
}

static sdx_status read_functions(sdx_onnx_reader *r, const Onnx__ModelProto *p)
{
    sdx_model *m = r->model;
    ARENA_NEW(r->arena, m->function, p->n_functions, r->err);
    r->in_function = true;
    for (size_t i = 0; i < p->n_functions; i++) {
        sdx_status status = read_function(r, p->functions[i], &m->function[i]);
        if (status != SDX_OK && r->err)
            sdx_error_context(r->err, "function \"%.100s\"", sdx_onnx_text(p->functions[i]->name));
        TRY(status);
        m->n_function++;
    }
    r->in_function = false;
    return SDX_OK;
}

/* ---- models ---------------------------------------------------------------------------------------------- */

static sdx_status read_header(sdx_onnx_reader *r, const Onnx__ModelProto *p)
{
    sdx_model *m = r->model;
    m->ir_version = p->ir_version;
    m->model_version = p->model_version;
    TRY(sdx_onnx_copy_text(r, p->producer_name, &m->producer_name));
    TRY(sdx_onnx_copy_text(r, p->producer_version, &m->producer_version));
    TRY(sdx_onnx_copy_text(r, p->domain, &m->domain));
    TRY(sdx_onnx_copy_text(r, p->doc_string, &m->doc));
    TRY(read_opsets(r, p->n_opset_import, p->opset_import, &m->opset, &m->n_opset));
    ARENA_NEW(r->arena, m->metadata, p->n_metadata_props, r->err);
    for (size_t i = 0; i < p->n_metadata_props; i++) {
        TRY(sdx_onnx_copy_text(r, p->metadata_props[i]->key, &m->metadata[i].key));
        TRY(sdx_onnx_copy_text(r, p->metadata_props[i]->value, &m->metadata[i].value));
        m->n_metadata++;
    }
    return SDX_OK;
}

/* A file from the future is read as far as it is understood: operators as of the newest version known. */
static sdx_status warn_of_newer(sdx_onnx_reader *r)
{
    sdx_model *m = r->model;
    long long opset = (long long)sdx_model_opset(m, "");
    if (m->ir_version <= IR_NEWEST && opset <= OPSET_NEWEST) return SDX_OK;
    m->warning = sdx_arena_printf(r->arena,
                                  "%s: it is of ONNX IR version %lld and opset %lld, newer than the %d and %d known here; "
                                  "operators are taken as of opset %d",
                                  m->path, (long long)m->ir_version, opset, IR_NEWEST, OPSET_NEWEST, OPSET_NEWEST);
    return m->warning ? SDX_OK : sdx_fail_memory(r->err, 256);
}

static sdx_status read_model(sdx_onnx_reader *r, const Onnx__ModelProto *p)
{
    if (!p->graph) return sdx_fail(r->err, SDX_ERR_FILE, "not a valid ONNX model: it holds no graph");
    if (p->ir_version < 3)
        return sdx_fail(r->err, SDX_ERR_UNSUPPORTED,
                        "it has ONNX IR version %lld; versions before 3 are not supported",
                        (long long)p->ir_version);
    if (!p->n_opset_import)
        return sdx_fail(r->err, SDX_ERR_FILE,
                        "the model does not say which version of ONNX's operators it uses");
    TRY(read_header(r, p));
    TRY(warn_of_newer(r));
    TRY(read_functions(r, p));
    return sdx_onnx_read_graph(r, r->model->graph, p->graph);
}

static sdx_status unpack_and_read(sdx_onnx_reader *r)
{
    sdx_arena memory;
    ProtobufCMessage *message;
    sdx_arena_init(&memory);
    sdx_status status =
        sdx_onnx_unpack(&onnx__model_proto__descriptor, &r->model->file, &memory, &message, r->err);
    if (status == SDX_OK) status = read_model(r, (const Onnx__ModelProto *)message);
    sdx_map_fini(&r->source.locations);
    sdx_arena_fini(&memory);
    return status;
}

sdx_status sdx_onnx_read_mapped(const char *path, sdx_file_map file, sdx_model **out, sdx_error *err)
{
    sdx_model *m;
    sdx_error own = {0}; /* so that there is a sentence to put the path in front of, and a status to return */
    sdx_status status = sdx_model_create(&m, &own);
    if (status != SDX_OK) {
        sdx_file_map_close(&file);
        if (err) *err = own;
        return status;
    }
    m->file = file;
    sdx_onnx_reader r = {.model = m, .arena = &m->arena, .source = {.file = file, .model = m}, .err = &own};
    status = sdx_onnx_copy_text(&r, path, &m->path);
    if (status == SDX_OK) status = unpack_and_read(&r);
    if (status == SDX_OK) {
        *out = m;
        return SDX_OK;
    }
    sdx_model_close(m);
    size_t n = strlen(path);
    if (strncmp(own.message, path, n)) sdx_error_context(&own, "%s", path);
    if (err) *err = own;
    return status;
}

sdx_status sdx_onnx_read(const char *path, sdx_model **out, sdx_error *err)
{
    sdx_file_map file;
    TRY(sdx_file_map_open(path, &file, err));
    return sdx_onnx_read_mapped(path, file, out, err);
}
