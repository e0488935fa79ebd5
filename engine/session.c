/* session.c: checks what the caller gives against what the graph declares, and runs the main graph on it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/buffer.h"
#include "../base/memory.h"
#include "../base/parallel.h"
#include "engine.h"

struct sdx_session {
    const sdx_program *program;
    sdx_context context;
    sdx_tensor *input;    /* [n_input] of the current run; SDX_UNDEFINED: not given */
    uint64_t runs;
    int64_t splits; /* ranges that the last run gave to threads */
    sdx_session *apart;   /* owned: of program->apart, made when needed */
    bool ran_apart;       /* the last run was its */
};

static const sdx_graph *graph_of(const sdx_session *s)
{
    return s->program->model->graph;
}

/* ---- inputs ---------------------------------------------------------------------------------------------- */

/* "int64[batch_size,sequence]" as the model declares it. */
static char *format_declared(const sdx_model *model, const sdx_type *t, char *buf, size_t size)
{
    size_t at = (size_t)snprintf(buf, size, "%s[", sdx_dtype_name(t->dtype));
    for (int i = 0; i < t->shape.rank && at < size; i++) {
        sdx_dim d = t->shape.dim[i];
        const char *comma = i ? "," : "";
        int n;
        if (sdx_dim_is_known(d))
            n = snprintf(buf + at, size - at, "%s%lld", comma, (long long)d);
        else if (!sdx_dim_is_symbol(d))
            n = snprintf(buf + at, size - at, "%s?", comma);
        else
            n = snprintf(buf + at, size - at, "%s%.60s", comma, model->symbol[SDX_DIM_SYMBOL_ID(d)].name);
        at += (size_t)n;
    }
    if (at < size) snprintf(buf + at, size - at, t->shape.rank < 0 ? "...]" : "]");
    return buf;
}

static sdx_status fail_mismatch(const sdx_model *model, const sdx_value *value, const sdx_type *type,
                                const sdx_tensor *given, sdx_error *err)
{
    char declared[640], got[SDX_TENSOR_TEXT];
    sdx_shape shape = sdx_tensor_shape(given);
    return sdx_fail(err, SDX_ERR_USAGE, "%s: input \"%.200s\": expected %s, got %s", model->path, value->name,
                    format_declared(model, type, declared, sizeof declared),
                    sdx_tensor_format(given->dtype, &shape, got, sizeof got));
}

static bool fits(const sdx_type *declared, const sdx_tensor *given)
{
    if (declared->dtype != SDX_UNDEFINED && declared->dtype != given->dtype) return false;
    if (declared->shape.rank >= 0 && declared->shape.rank != given->rank) return false;
    for (int i = 0; i < declared->shape.rank; i++)
        if (sdx_dim_is_known(declared->shape.dim[i]) && declared->shape.dim[i] != given->dim[i]) return false;
    return true;
}

static sdx_status check_tensor(const sdx_model *model, const sdx_value *value, const sdx_type *type,
                               const sdx_tensor *given, sdx_error *err)
{
    if (given->rank < 0 || given->rank > SDX_MAX_RANK)
        return sdx_fail(err, SDX_ERR_USAGE, "%s: input \"%s\": rank %d is outside 0..%d", model->path,
                        value->name, given->rank, SDX_MAX_RANK);
    if (!fits(type, given)) return fail_mismatch(model, value, type, given, err);
    sdx_shape shape = sdx_tensor_shape(given);
    size_t bytes;
    if (!sdx_tensor_size(given->dtype, &shape, &bytes)) return fail_mismatch(model, value, type, given, err);
    if (bytes && !given->data)
        return sdx_fail(err, SDX_ERR_USAGE, "%s: input \"%s\": data is NULL", model->path, value->name);
    if (bytes && !sdx_is_aligned(given))
        return sdx_fail(err, SDX_ERR_USAGE, "%s: input \"%s\": data is not aligned to its %zu-byte elements",
                        model->path, value->name, sdx_dtype_size(given->dtype));
    return SDX_OK;
}

static sdx_status fail_kind(const sdx_model *model, const sdx_value *value, const char *expected, sdx_error *err)
{
    return sdx_fail(err, SDX_ERR_USAGE, "%s: input \"%.200s\": expected %s", model->path, value->name, expected);
}

/* Every item of a sequence is of the type that the file declares; their shapes differ, whatever it says. */
static sdx_status check_sequence(const sdx_model *model, const sdx_value *value, const sdx_type *type,
                                 const sdx_tensor_list *given, sdx_error *err)
{
    if (!given || (given->count && !given->item)) return fail_kind(model, value, "a sequence, got NULL", err);
    for (size_t i = 0; i < given->count; i++)
        TRY(check_tensor(model, value, type, &given->item[i], err));
    return SDX_OK;
}

static sdx_status check_value(const sdx_model *model, const sdx_value *value, const sdx_tensor *given, sdx_error *err)
{
    const sdx_declared *d = value->declared;
    if (!d || !(d->sequence || d->optional)) {
        if (!sdx_dtype_is_tensor(given->dtype)) return fail_kind(model, value, "a tensor", err);
        return check_tensor(model, value, &value->type, given, err);
    }
    sdx_type type = {.dtype = d->dtype, .shape = d->sequence ? SDX_SHAPE_UNKNOWN : d->shape};
    if (given->dtype == SDX_NOTHING) return d->optional ? SDX_OK : fail_kind(model, value, "a sequence", err);
    if (d->sequence != (given->dtype == SDX_TENSOR_LIST))
        return fail_kind(model, value, d->sequence ? "a sequence" : "a tensor", err);
    if (d->sequence) return check_sequence(model, value, &type, given->data, err);
    return check_tensor(model, value, &type, given, err);
}

static bool must_be_given(const sdx_graph *g, int i)
{
    const sdx_value *v = &g->value[g->input[i]];
    return sdx_is_fed(g, i) && !v->preset;
}

/* Names of the inputs to be given; only_missing: of those that were not. */
static void list_inputs(const sdx_session *s, bool only_missing, sdx_buffer *text)
{
    const sdx_graph *g = graph_of(s);
    for (int i = 0; i < g->n_input; i++) {
        if (!sdx_is_fed(g, i) || (only_missing && (!must_be_given(g, i) || s->input[i].dtype != SDX_UNDEFINED)))
            continue;
        sdx_buffer_printf(text, "%s\"%.100s\"", text->size ? ", " : "", g->value[g->input[i]].name);
    }
}

static sdx_status fail_listing(const sdx_session *s, bool only_missing, const char *what, sdx_error *err)
{
    sdx_buffer names = {0};
    list_inputs(s, only_missing, &names);
    sdx_status status = sdx_fail(err, SDX_ERR_USAGE, "%s: %s %s", s->program->model->path, what,
                                 names.data ? names.data : "none");
    sdx_buffer_fini(&names);
    return status;
}

static sdx_status fail_unknown(const sdx_session *s, const char *name, sdx_error *err)
{
    char what[320];
    snprintf(what, sizeof what, "there is no input \"%.200s\"; the inputs are", name);
    return fail_listing(s, false, what, err);
}

static sdx_status take_input(sdx_session *s, const char *name, const sdx_tensor *given, sdx_error *err)
{
    const sdx_model *model = s->program->model;
    const sdx_graph *g = model->graph;
    int i = 0;
    while (i < g->n_input && strcmp(g->value[g->input[i]].name, name)) i++;
    if (i == g->n_input) return fail_unknown(s, name, err);
    if (!sdx_is_fed(g, i))
        return sdx_fail(err, SDX_ERR_UNSUPPORTED,
                        "%s: input \"%s\" is a weight: before ONNX IR version 4 every one is listed as an input, and it "
                        "cannot be given", model->path, name);
    if (s->input[i].dtype != SDX_UNDEFINED)
        return sdx_fail(err, SDX_ERR_USAGE, "%s: input \"%s\" is given twice", model->path, name);
    TRY(check_value(model, &g->value[g->input[i]], given, err));
    s->input[i] = *given;
    return SDX_OK;
}

static const sdx_kept *find_kept(const sdx_session *s, int input)
{
    const sdx_keeper *keeper = &s->context.keeper;
    for (int k = 0; k < keeper->count; k++)
        if (keeper->kept[k].input == input) return &keeper->kept[k];
    return NULL;
}

static sdx_status take_inputs(sdx_session *s, size_t count, const char *const *names, const sdx_tensor *inputs,
                              sdx_error *err)
{
    const sdx_graph *g = graph_of(s);
    for (int i = 0; i < g->n_input; i++) {
        const sdx_kept *kept = find_kept(s, i);
        s->input[i] = kept ? kept->value : sdx_absent;
    }
    for (size_t i = 0; i < count; i++) TRY(take_input(s, names[i], &inputs[i], err));
    for (int i = 0; i < g->n_input; i++)
        if (must_be_given(g, i) && s->input[i].dtype == SDX_UNDEFINED)
            return fail_listing(s, true, "inputs are missing:", err);
    s->context.n_bound = 0;
    s->context.apart = false;
    for (int i = 0; i < g->n_input; i++)
        if (!sdx_program_main(s->program)->late[i]) TRY(sdx_context_bind(&s->context, i, &s->input[i], err));
    return SDX_OK;
}

/* ---- sessions -------------------------------------------------------------------------------------------- */

static sdx_status allocate(sdx_session *s, sdx_error *err)
{
    size_t inputs = (size_t)graph_of(s)->n_input;
    TRY(sdx_context_init(&s->context, s->program, err));
    s->input = sdx_calloc(inputs, sizeof *s->input);
    return s->input ? SDX_OK : sdx_fail_memory(err, inputs * sizeof *s->input);
}

sdx_status sdx_session_create(const sdx_program *program, sdx_session **out, sdx_error *err)
{
    sdx_session *s = sdx_calloc(1, sizeof *s);
    if (!s) return sdx_fail_memory(err, sizeof *s);
    s->program = program;
    sdx_status status = allocate(s, err);
    if (status != SDX_OK)
        sdx_session_free(s);
    else
        *out = s;
    return status;
}

void sdx_session_free(sdx_session *s)
{
    if (!s) return;
    sdx_session_free(s->apart);
    sdx_context_fini(&s->context);
    free(s->input);
    free(s);
}

static const sdx_frame *main_frame(const sdx_session *s)
{
    return &s->context.frame[graph_of(s)->index][0];
}

typedef struct walk {
    sdx_session *session;
    sdx_plan *plan;
    unsigned char *buffer;
    sdx_error *err;
    sdx_status status;
} walk;

static void lead_walk(void *context)
{
    walk *w = context;
    w->status = sdx_plan_run(w->plan, &w->session->context, w->session->input, w->buffer, w->err);
}

/* All steps with one team of threads. */
static sdx_status run_plan(sdx_session *s, const sdx_frame *f, sdx_error *err)
{
    walk w = {s, f->plan[0], f->buffer, err, SDX_OK};
    sdx_parallel_team(s->program->threads, &s->splits, lead_walk, &w);
    return w.status;
}

static sdx_status run(sdx_session *s, size_t n_inputs, const char *const *names, const sdx_tensor *inputs,
                      sdx_error *err)
{
    sdx_frame_release(&s->context.frame[graph_of(s)->index][0]);
    TRY(take_inputs(s, n_inputs, names, inputs, err));
    sdx_program_begin_run(s->program);
    s->context.steps_left = s->program->max_steps;
    s->context.work = (sdx_work){0};
    const sdx_body *body = sdx_program_main(s->program);
    sdx_keeper *keeper = &s->context.keeper;
    sdx_frame *f = &s->context.frame[body->graph->index][0];
    TRY(sdx_frame_plan(&s->context, body, 0, s->input, err));
    TRY(sdx_keeper_prepare(keeper, f->plan[0], err));
    for (int k = 0; k < keeper->count; k++) s->input[keeper->kept[k].input] = keeper->kept[k].value;
    TRY(run_plan(s, f, err));
    TRY(sdx_keeper_take(keeper, f->plan[0], f->buffer, err));
    s->runs++;
    return SDX_OK;
}

/* Sizes that the program takes as one differ: this run is one of the program that does not. Where that fails as well,
 * the first failure, in *err, says it best. */
static sdx_status run_apart(sdx_session *s, size_t n_inputs, const char *const *names, const sdx_tensor *inputs,
                            size_t n_outputs, sdx_tensor *outputs, sdx_error *err)
{
    const sdx_program *program;
    sdx_error own = {0};
    sdx_status status = sdx_program_find_apart(s->program, &program, &own);
    if (status == SDX_OK && !program) return err->status;
    if (status == SDX_OK && !s->apart) status = sdx_session_create(program, &s->apart, &own);
    if (status == SDX_OK) status = sdx_session_run(s->apart, n_inputs, names, inputs, n_outputs, outputs, &own);
    if (status == SDX_ERR_MEMORY) *err = own;
    s->ran_apart = status == SDX_OK;
    return status == SDX_OK ? SDX_OK : err->status;
}

sdx_status sdx_session_run(sdx_session *s, size_t n_inputs, const char *const *input_names,
                           const sdx_tensor *inputs, size_t n_outputs, sdx_tensor *outputs, sdx_error *err)
{
    sdx_error local;
    if (!err) err = &local;
    size_t declared = (size_t)graph_of(s)->n_output;
    if (n_outputs > declared)
        return sdx_fail(err, SDX_ERR_USAGE, "%s: %zu outputs are asked for, the model has %zu",
                        s->program->model->path, n_outputs, declared);
    const sdx_keeper *keeper = &s->context.keeper;
    s->ran_apart = false;
    sdx_status status = run(s, n_inputs, input_names, inputs, err);
    if (status != SDX_OK && s->context.apart && !keeper->count)
        return run_apart(s, n_inputs, input_names, inputs, n_outputs, outputs, err);
    TRY(status);
    for (size_t i = 0; i < n_outputs; i++) outputs[i] = sdx_frame_output(main_frame(s), (int)i);
    for (int k = 0; k < keeper->count; k++)
        if ((size_t)keeper->kept[k].output < n_outputs) outputs[keeper->kept[k].output] = sdx_absent;
    return SDX_OK;
}

/* ---- what is kept from run to run ------------------------------------------------------------------------ */

static int find_value(const sdx_graph *g, const sdx_id *ids, int count, const char *name)
{
    for (int i = 0; i < count; i++)
        if (!strcmp(g->value[ids[i]].name, name)) return i;
    return -1;
}

sdx_status sdx_session_keep(sdx_session *s, const char *input, const char *output, sdx_error *err)
{
    const sdx_model *model = s->program->model;
    const sdx_graph *g = model->graph;
    int i = find_value(g, g->input, g->n_input, input), o = find_value(g, g->output, g->n_output, output);
    if (i < 0 || o < 0)
        return sdx_fail(err, SDX_ERR_USAGE, "%s: there is no %s \"%.200s\"", model->path, i < 0 ? "input" : "output",
                        i < 0 ? input : output);
    if (s->runs || !sdx_is_fed(g, i) || find_kept(s, i))
        return sdx_fail(err, SDX_ERR_USAGE, "%s: input \"%.200s\" cannot be kept: %s", model->path, input,
                        s->runs ? "the session ran already" : "it is a weight, or is kept already");
    sdx_port port = sdx_model_input(model, (size_t)i);
    return sdx_keeper_add(&s->context.keeper, &port, i, o, err);
}

sdx_status sdx_session_set_kept(sdx_session *s, const char *input, const sdx_tensor *value, sdx_error *err)
{
    const sdx_graph *g = graph_of(s);
    int i = find_value(g, g->input, g->n_input, input);
    sdx_kept *kept = i < 0 ? NULL : (sdx_kept *)find_kept(s, i);
    if (!kept)
        return sdx_fail(err, SDX_ERR_USAGE, "%s: no input \"%.200s\" is kept", s->program->model->path, input);
    return sdx_kept_set(kept, value, err);
}

sdx_status sdx_session_reorder_kept(sdx_session *s, const size_t *row, size_t rows, sdx_error *err)
{
    return sdx_keeper_reorder(&s->context.keeper, row, rows, err);
}

sdx_status sdx_session_profile(const sdx_session *s, char **text, sdx_error *err)
{
    if (s->ran_apart) return sdx_session_profile(s->apart, text, err);
    if (!s->context.profile)
        return sdx_fail(err, SDX_ERR_USAGE, "%s: the program was made without the profile option",
                        s->program->model->path);
    return sdx_profile_format(s->program, s->context.profile, s->runs, text, err);
}

sdx_work sdx_session_work(const sdx_session *s)
{
    return s->ran_apart ? s->apart->context.work : s->context.work;
}

sdx_work sdx_program_peak(const sdx_program *p)
{
    return (sdx_work){.f32 = sdx_peak_f32(p->kernels),
                      .bf16 = sdx_peak_bf16(p->kernels),
                      .f16 = sdx_peak_f16(p->kernels),
                      .int8 = sdx_peak_int8(p->kernels)};
}
