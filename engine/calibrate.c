/* calibrate.c: quantizing with a look at the activations. The float model runs once on random token ids: which channels
 * of a normalized activation are large is a property of the weights far more than of the text, so that any tokens show
 * it (smooth.c checks that it pays). A model whose inputs cannot be made up is quantized without. */
#include <stdlib.h>
#include <string.h>

#include "../base/memory.h"
#include "../quant/quant.h"
#include "engine.h"
#include "ops/ops.h"

enum { BATCH = 4, TOKENS = 64, MOST_ROWS = 128, MOST_INPUTS = 8 };

typedef struct calibration {
    sdx_program *program;
    sdx_session *session;
    size_t n_output, n_own; /* outputs, of them the model's own */
    int64_t vocabulary;
    const char *name[MOST_INPUTS];
    sdx_tensor input[MOST_INPUTS]; /* owned data */
    size_t n_input;
    sdx_tensor *output;       /* [n_output] views. Owned array */
    sdx_quant_sample *sample; /* [n_sample] views of outputs. Owned array */
    size_t n_sample;
} calibration;

/* ---- what to look at --------------------------------------------------------------------------------------------- */

static bool is_watched(const sdx_graph *g, const sdx_node *n)
{
    bool product = sdx_node_is(n, "MatMul") || sdx_node_is_in(n, "com.microsoft", "Attention");
    const sdx_tensor *w = product ? sdx_graph_constant(g, n->in[1]) : NULL;
    return w && w->dtype == SDX_F32 && w->rank == 2 && !g->value[n->in[0]].is_output && sdx_graph_producer(g, n->in[0]);
}

static sdx_status watch(sdx_graph *g, sdx_error *err)
{
    for (sdx_id i = 0; i < g->n_node; i++)
        if (is_watched(g, &g->node[i])) TRY(sdx_graph_add_output(g, g->node[i].in[0], err));
    return sdx_graph_index(g, err);
}

/* ---- made-up inputs ---------------------------------------------------------------------------------------------- */

/* Rows of the table that input_ids look up; 0 when there is none. */
static int64_t find_vocabulary(const sdx_graph *g)
{
    for (sdx_id i = 0; i < g->n_node; i++) {
        const sdx_node *n = &g->node[i], *cast;
        bool embed = sdx_node_is_in(n, "com.microsoft", "EmbedLayerNormalization");
        if (!embed && !sdx_node_is(n, "Gather")) continue;
        sdx_id index = n->in[embed ? 0 : 1], table = n->in[embed ? 2 : 0];
        while ((cast = sdx_graph_producer(g, index)) && sdx_node_is(cast, "Cast")) index = cast->in[0];
        const sdx_tensor *t = sdx_graph_constant(g, table);
        if (t && t->rank == 2 && g->value[index].is_input && !strcmp(g->value[index].name, "input_ids")) return t->dim[0];
    }
    return 0;
}

static int64_t element(const calibration *c, const char *name, int64_t i, int64_t width, uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u; /* Knuth's MMIX generator */
    if (strstr(name, "mask")) return 1;
    if (strstr(name, "position")) return i % width;
    return strcmp(name, "input_ids") ? 0 : (int64_t)((*state >> 33) % (uint64_t)c->vocabulary);
}

/* False when the input is not one that a text encoder has. */
static bool make_input(calibration *c, const sdx_port *port)
{
    bool known = strstr(port->name, "input_ids") || strstr(port->name, "mask") || strstr(port->name, "token_type") ||
                 strstr(port->name, "position_ids");
    if (!known || port->rank != 2 || (port->dtype != SDX_I64 && port->dtype != SDX_I32) || c->n_input == MOST_INPUTS)
        return false;
    sdx_tensor t = {.dtype = port->dtype, .rank = 2, .dim = {BATCH, TOKENS}};
    for (int d = 0; d < 2; d++)
        if (port->dim[d] >= 0) t.dim[d] = port->dim[d];
    if (sdx_tensor_count(&t) > BATCH * TOKENS * 8 || !(t.data = sdx_malloc(sdx_tensor_bytes(&t) + 1))) return false;
    uint64_t state = 1;
    for (int64_t i = 0; i < sdx_tensor_count(&t); i++) {
        int64_t id = element(c, port->name, i, t.dim[1], &state);
        if (t.dtype == SDX_I64) ((int64_t *)t.data)[i] = id;
        else ((int32_t *)t.data)[i] = (int32_t)id;
    }
    c->name[c->n_input] = port->name;
    c->input[c->n_input++] = t;
    return true;
}

static bool make_inputs(calibration *c, const sdx_model *model)
{
    bool ok = c->vocabulary > 0;
    for (size_t i = 0; i < sdx_model_input_count(model) && ok; i++) {
        sdx_port port = sdx_model_input(model, i);
        ok = port.has_default || make_input(c, &port);
    }
    return ok;
}

/* ---- the run ----------------------------------------------------------------------------------------------------- */

static void collect(calibration *c, const sdx_model *model)
{
    for (size_t i = c->n_own; i < c->n_output; i++) {
        const sdx_tensor *t = &c->output[i];
        if (t->dtype != SDX_F32 || t->rank < 2 || !sdx_tensor_count(t)) continue;
        int64_t width = t->dim[t->rank - 1], rows = sdx_tensor_count(t) / width;
        c->sample[c->n_sample++] = (sdx_quant_sample){sdx_model_output(model, i).name,
                                                      rows < MOST_ROWS ? rows : MOST_ROWS, width, t->data};
    }
}

static sdx_status run(calibration *c, const char *path, sdx_error *err)
{
    sdx_model *model;
    TRY(sdx_model_open(path, &model, err));
    c->n_own = sdx_model_output_count(model);
    c->vocabulary = find_vocabulary(model->graph);
    sdx_status status = c->vocabulary ? watch(model->graph, err) : SDX_OK;
    if (status != SDX_OK || !c->vocabulary) {
        sdx_model_close(model);
        return status;
    }
    TRY(sdx_program_create(model, NULL, &c->program, err));
    c->n_output = sdx_model_output_count(model);
    c->output = sdx_calloc(c->n_output, sizeof *c->output);
    c->sample = sdx_calloc(c->n_output, sizeof *c->sample);
    if (!c->output || !c->sample) return sdx_fail_memory(err, c->n_output * sizeof *c->output);
    if (!make_inputs(c, model)) return SDX_OK;
    TRY(sdx_session_create(c->program, &c->session, err));
    TRY(sdx_session_run(c->session, c->n_input, c->name, c->input, c->n_output, c->output, err));
    collect(c, model);
    return SDX_OK;
}

static void release(calibration *c)
{
    for (size_t i = 0; i < c->n_input; i++) free(c->input[i].data);
    free(c->output);
    free(c->sample);
    sdx_session_free(c->session);
    sdx_program_free(c->program);
}

sdx_status sdx_quantize(const sdx_quantize_options *options, sdx_quantize_report *report, sdx_error *err)
{
    calibration c = {.program = NULL};
    sdx_error ignored = {0}; /* a model that does not run here can be quantized all the same */
    if (sdx_quantize_wants_samples(options) && run(&c, options->input, &ignored) != SDX_OK) c.n_sample = 0;
    sdx_status status = sdx_quantize_sampled(options, c.sample, c.n_sample, report, err);
    release(&c);
    return status;
}
