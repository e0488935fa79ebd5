/* session.c: checks what the caller gives against what the graph declares, finds or makes the plan for these
 * shapes, lends it the working buffer and runs it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/buffer.h"
#include "../base/memory.h"
#include "engine.h"

/* PLANS: sequence lengths that alternate in a stream of batches. PATIENCE: runs that need less than a quarter
 * of the buffer before it is given back. */
enum { PLANS = 8, PATIENCE = 16 };

struct sdx_session {
    const sdx_program *program;
    sdx_plan *plan[PLANS]; /* owned, most recently used first */
    int n_plan;
    unsigned char *buffer; /* owned; contents live from one run to the next, for the outputs */
    size_t capacity;
    int oversized;     /* runs in a row that needed less than a quarter */
    sdx_tensor *input; /* [n_input] of the current run; SDX_UNDEFINED: not given yet */
    sdx_shape *shape;  /* [n_input] */
    sdx_arena scratch;
    sdx_profile *profile; /* [n_node] when the program asks for it */
    uint64_t runs;
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

static sdx_status fail_mismatch(const sdx_model *model, const sdx_value *value, const sdx_tensor *given,
                                sdx_error *err)
{
    char declared[640], got[SDX_TENSOR_TEXT];
    sdx_shape shape = sdx_tensor_shape(given);
    return sdx_fail(err, SDX_ERR_USAGE, "%s: input \"%.200s\": expected %s, got %s", model->path, value->name,
                    format_declared(model, &value->type, declared, sizeof declared),
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

static sdx_status check_tensor(const sdx_model *model, const sdx_value *value, const sdx_tensor *given,
                               sdx_error *err)
{
    if (given->rank < 0 || given->rank > SDX_MAX_RANK)
        return sdx_fail(err, SDX_ERR_USAGE, "%s: input \"%s\": rank %d is outside 0..%d", model->path,
                        value->name, given->rank, SDX_MAX_RANK);
    if (!fits(&value->type, given)) return fail_mismatch(model, value, given, err);
    sdx_shape shape = sdx_tensor_shape(given);
    size_t bytes;
    if (!sdx_tensor_size(given->dtype, &shape, &bytes)) return fail_mismatch(model, value, given, err);
    if (bytes && !given->data)
        return sdx_fail(err, SDX_ERR_USAGE, "%s: input \"%s\": data is NULL", model->path, value->name);
    if (bytes && !sdx_is_aligned(given))
        return sdx_fail(err, SDX_ERR_USAGE, "%s: input \"%s\": data is not aligned to its %zu-byte elements",
                        model->path, value->name, sdx_dtype_size(given->dtype));
    return SDX_OK;
}

/* Names of the inputs to be given; only_missing: of those that were not. */
static void list_inputs(const sdx_session *s, bool only_missing, sdx_buffer *text)
{
    const sdx_graph *g = graph_of(s);
    for (int i = 0; i < g->n_input; i++) {
        if (!sdx_is_fed(g, i) || (only_missing && s->input[i].dtype != SDX_UNDEFINED)) continue;
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
                        "%s: input \"%s\" has a default that was compiled in; it cannot be given", model->path,
                        name);
    if (s->input[i].dtype != SDX_UNDEFINED)
        return sdx_fail(err, SDX_ERR_USAGE, "%s: input \"%s\" is given twice", model->path, name);
    TRY(check_tensor(model, &g->value[g->input[i]], given, err));
    s->input[i] = *given;
    s->shape[i] = sdx_tensor_shape(given);
    return SDX_OK;
}

/* ---- one symbol, one size -------------------------------------------------------------------------------- */

typedef struct axis {
    int input, dim;
} axis;

/* The first place where this symbol got its size. */
static axis first_axis(const sdx_graph *g, sdx_dim symbol)
{
    for (int i = 0; i < g->n_input; i++) {
        const sdx_shape *declared = &g->value[g->input[i]].type.shape;
        for (int d = 0; d < declared->rank; d++)
            if (sdx_is_fed(g, i) && declared->dim[d] == symbol) return (axis){i, d};
    }
    return (axis){-1, -1};
}

static sdx_status check_symbols(const sdx_session *s, int i, sdx_error *err)
{
    const sdx_model *model = s->program->model;
    const sdx_graph *g = model->graph;
    const sdx_value *value = &g->value[g->input[i]];
    for (int d = 0; d < value->type.shape.rank; d++) {
        sdx_dim symbol = value->type.shape.dim[d];
        if (!sdx_dim_is_symbol(symbol)) continue;
        axis first = first_axis(g, symbol);
        if (s->input[first.input].dim[first.dim] == s->input[i].dim[d]) continue;
        return sdx_fail(
            err, SDX_ERR_USAGE,
            "%s: input \"%.120s\": dimension %d (\"%.60s\") is %lld, but it is %lld in input \"%.120s\"",
            model->path, value->name, d, model->symbol[SDX_DIM_SYMBOL_ID(symbol)].name,
            (long long)s->input[i].dim[d], (long long)s->input[first.input].dim[first.dim],
            g->value[g->input[first.input]].name);
    }
    return SDX_OK;
}

static sdx_status take_inputs(sdx_session *s, size_t count, const char *const *names, const sdx_tensor *inputs,
                              sdx_error *err)
{
    const sdx_graph *g = graph_of(s);
    for (int i = 0; i < g->n_input; i++) s->input[i] = sdx_absent;
    for (size_t i = 0; i < count; i++) TRY(take_input(s, names[i], &inputs[i], err));
    for (int i = 0; i < g->n_input; i++)
        if (sdx_is_fed(g, i) && s->input[i].dtype == SDX_UNDEFINED)
            return fail_listing(s, true, "inputs are missing:", err);
    for (int i = 0; i < g->n_input; i++)
        if (sdx_is_fed(g, i)) TRY(check_symbols(s, i, err));
    return SDX_OK;
}

/* ---- plans and buffer ------------------------------------------------------------------------------------ */

static bool has_shapes(const sdx_session *s, const sdx_plan *p)
{
    for (int i = 0; i < graph_of(s)->n_input; i++)
        if (sdx_is_fed(graph_of(s), i) && !sdx_shape_same(&s->shape[i], &p->key[i])) return false;
    return true;
}

static void move_to_front(sdx_session *s, int at)
{
    sdx_plan *p = s->plan[at];
    memmove(&s->plan[1], &s->plan[0], (size_t)at * sizeof *s->plan);
    s->plan[0] = p;
}

/* The plan for the current shapes becomes plan[0]; the least recently used one makes room. */
static sdx_status find_plan(sdx_session *s, sdx_error *err)
{
    for (int i = 0; i < s->n_plan; i++) {
        if (!has_shapes(s, s->plan[i])) continue;
        move_to_front(s, i);
        return SDX_OK;
    }
    sdx_plan *p;
    TRY(sdx_plan_create(s->program, s->shape, &p, err));
    if (s->n_plan == PLANS) sdx_plan_free(s->plan[--s->n_plan]);
    s->plan[s->n_plan++] = p;
    move_to_front(s, s->n_plan - 1);
    return SDX_OK;
}

static sdx_status fit_buffer(sdx_session *s, size_t bytes, sdx_error *err)
{
    s->oversized = bytes < s->capacity / 4 ? s->oversized + 1 : 0;
    if (s->buffer && bytes <= s->capacity && s->oversized < PATIENCE) return SDX_OK;
    free(s->buffer);
    s->buffer = sdx_malloc_aligned(bytes);
    s->capacity = s->buffer ? bytes : 0;
    s->oversized = 0;
    return s->buffer ? SDX_OK : sdx_fail_memory(err, bytes);
}

/* ---- sessions -------------------------------------------------------------------------------------------- */

static sdx_status allocate(sdx_session *s, sdx_error *err)
{
    size_t inputs = (size_t)graph_of(s)->n_input, nodes = (size_t)graph_of(s)->n_node;
    s->input = sdx_calloc(inputs, sizeof *s->input);
    s->shape = sdx_calloc(inputs, sizeof *s->shape);
    if (s->program->profile) s->profile = sdx_calloc(nodes, sizeof *s->profile);
    bool complete = s->input && s->shape && (s->profile || !s->program->profile);
    return complete ? SDX_OK : sdx_fail_memory(err, inputs * sizeof *s->input + nodes * sizeof *s->profile);
}

sdx_status sdx_session_create(const sdx_program *program, sdx_session **out, sdx_error *err)
{
    sdx_session *s = sdx_calloc(1, sizeof *s);
    if (!s) return sdx_fail_memory(err, sizeof *s);
    s->program = program;
    sdx_arena_init(&s->scratch);
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
    for (int i = 0; i < s->n_plan; i++) sdx_plan_free(s->plan[i]);
    sdx_arena_fini(&s->scratch);
    free(s->buffer);
    free(s->input);
    free(s->shape);
    free(s->profile);
    free(s);
}

static sdx_status run(sdx_session *s, size_t n_inputs, const char *const *names, const sdx_tensor *inputs,
                      sdx_error *err)
{
    if (s->n_plan) sdx_plan_release(s->plan[0]); /* the outputs of the last run end here */
    TRY(take_inputs(s, n_inputs, names, inputs, err));
    TRY(find_plan(s, err));
    TRY(fit_buffer(s, s->plan[0]->bytes, err));
    TRY(sdx_plan_run(s->plan[0], s->input, s->buffer, &s->scratch, s->profile, err));
    s->runs++;
    return SDX_OK;
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
    TRY(run(s, n_inputs, input_names, inputs, err));
    for (size_t i = 0; i < n_outputs; i++) outputs[i] = sdx_plan_output(s->plan[0], (int)i, s->buffer);
    return SDX_OK;
}

sdx_status sdx_session_profile(const sdx_session *s, char **text, sdx_error *err)
{
    if (!s->profile)
        return sdx_fail(err, SDX_ERR_USAGE, "%s: the program was made without the profile option",
                        s->program->model->path);
    return sdx_profile_format(graph_of(s), s->profile, s->runs, text, err);
}
