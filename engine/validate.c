/* validate.c: is a rewritten graph still the same function? Both graphs run on random inputs of two shapes,
 * made to suit what the inputs mean: ids stay inside the table they index, other integers, and matrices called a mask,
 * are ones then zeros. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/memory.h"
#include "engine.h"

/* Rewrites reorder sums; where activations are quantized on the way, one rounding the other way is a whole
 * code. */
static const double FLOAT_BOUND = 1e-4, INT8_BOUND = 3e-2, HALF_BOUND = 2e-2;

enum { TRIALS = 2, AUDIO = 4000 }; /* samples: enough for the strides of a speech model's convolutions */

typedef struct trial {
    sdx_arena arena; /* owns the data of all lists */
    int64_t *size;   /* [n_symbol] chosen for a name, 0: not yet */
    size_t n_in, n_out;
    const char **name; /* [n_in] */
    sdx_tensor *in, *out;
} trial;

/* ---- what an integer input indexes ----------------------------------------------------------------------- */

static const char *const transparent[] = {"Cast",    "Identity", "Reshape", "Unsqueeze",
                                          "Squeeze", "Flatten",  "Expand"};

static bool passes_on(const sdx_node *n)
{
    for (size_t i = 0; i < sizeof transparent / sizeof *transparent; i++)
        if (sdx_node_is(n, transparent[i])) return true;
    return false;
}

/* Rows of the table that input `at` of a node indexes; INT64_MAX when it indexes none. */
static int64_t table_rows(const sdx_graph *g, const sdx_node *n, int at)
{
    int table = -1;
    if (sdx_node_is(n, "Gather") && at == 1 && sdx_node_int(n, "axis", 0) == 0) table = 0;
    if (sdx_node_is_in(n, "com.microsoft", "EmbedLayerNormalization"))
        table = at == 0 ? 2 : at == 1 ? 4 : at == 8 ? 3 : -1; /* ids, segments, positions */
    const sdx_tensor *t = table < 0 ? NULL : sdx_graph_constant(g, sdx_node_in(n, table));
    return t && t->rank > 0 ? t->dim[0] : INT64_MAX;
}

/* The smallest table that a value, or the same numbers under another shape or type, indexes. Nodes are in
 * order. */
static sdx_status index_bound(const sdx_graph *g, sdx_id v, int64_t *bound, sdx_error *err)
{
    bool *same = sdx_calloc((size_t)g->n_value, sizeof *same);
    if (!same) return sdx_fail_memory(err, (size_t)g->n_value);
    same[v] = true;
    *bound = INT64_MAX;
    for (sdx_id i = 0; i < g->n_node; i++) {
        const sdx_node *n = &g->node[i];
        for (int k = 0; k < n->n_in && !n->dead; k++) {
            if (n->in[k] == SDX_NONE || !same[n->in[k]]) continue;
            int64_t rows = table_rows(g, n, k);
            if (rows < *bound) *bound = rows;
            if (k == 0 && n->n_out && n->out[0] != SDX_NONE && passes_on(n)) same[n->out[0]] = true;
        }
    }
    free(same);
    return SDX_OK;
}

/* ---- random inputs --------------------------------------------------------------------------------------- */

static uint32_t next(uint32_t *seed)
{
    return *seed = *seed * 1664525u + 1013904223u;
}
static uint32_t below(uint32_t *seed, uint32_t n)
{
    return (next(seed) >> 8) % n;
}

/* Trials from TRIALS on: for models whose tables end early. */
static int64_t small_size(bool batch, bool past, int k)
{
    return batch ? 1 + k - TRIALS : past ? 1 : 2;
}

/* A size by its name, in trial k: different things get different sizes. "past_length + sequence_length" is a
 * sum, as is "total_length". */
static int64_t named_size(const char *name, bool first, int k)
{
    const char *plus = strchr(name, '+');
    size_t length = plus ? (size_t)(plus - name) : strlen(name);
    char part[64];
    snprintf(part, sizeof part, "%.*s", (int)(length < sizeof part ? length : sizeof part - 1), name);
    int64_t size = strtoll(part, NULL, 10);
    if (size <= 0 && strstr(part, "total")) {
        size = named_size("past+fresh", false, k);
    } else if (size <= 0) {
        bool batch = strstr(part, "batch") || (first && !plus);
        size = k >= TRIALS               ? small_size(batch, strstr(part, "past"), k)
               : batch                   ? 1 + 2 * k
               : strstr(part, "past")    ? 5 + 4 * k
               : strstr(part, "encoder") ? 8 + 2 * k
                                         : 7 - 3 * k;
    }
    return plus ? size + named_size(plus + 1, false, k) : size;
}

static bool has_convolution(const sdx_graph *g)
{
    for (sdx_id i = 0; i < g->n_node; i++)
        if (sdx_node_is(&g->node[i], "Conv")) return true;
    return false;
}

/* Unknown sizes: 1 and 3 texts of 7 and 4 tokens, after 5 and 9. The first dim is the batch; rank-2 floats
 * that are convolved are audio. */
static sdx_shape concrete(const sdx_model *model, const sdx_type *type, int k, int64_t *chosen)
{
    sdx_shape s = type->shape;
    for (int i = 0; i < s.rank; i++) {
        sdx_dim d = s.dim[i];
        if (sdx_dim_is_known(d)) continue;
        int symbol = sdx_dim_is_symbol(d) ? SDX_DIM_SYMBOL_ID(d) : SDX_NONE;
        bool audio = sdx_dtype_is_float(type->dtype) && s.rank == 2 && i > 0 && has_convolution(model->graph);
        int64_t unnamed = 0, *size = symbol == SDX_NONE ? &unnamed : &chosen[symbol];
        const char *name = symbol == SDX_NONE ? "" : model->symbol[symbol].name;
        if (*size == 0) *size = audio ? AUDIO + 1000 * k : named_size(name, i == 0 && s.rank > 1, k);
        s.dim[i] = *size;
    }
    return s;
}

static void store(sdx_tensor *t, int64_t i, int64_t number)
{
    size_t size = sdx_dtype_size(t->dtype);
    memcpy((unsigned char *)t->data + (size_t)i * size, &number, size);
}

static void fill(sdx_tensor *t, bool mask, int64_t bound, uint32_t *seed)
{
    int64_t row = t->rank ? t->dim[t->rank - 1] : 1;
    for (int64_t i = 0, count = sdx_tensor_count(t); i < count; i++) {
        int64_t ones = row - (i / (row ? row : 1)) % 3; /* each row ends in 0, 1 or 2 zeros */
        double random = mask ? i % row < ones : (double)below(seed, 2001) / 1000 - 1;
        if (t->dtype == SDX_F32)
            ((float *)t->data)[i] = (float)random;
        else if (t->dtype == SDX_F64)
            ((double *)t->data)[i] = random;
        else if (t->dtype == SDX_F16)
            ((uint16_t *)t->data)[i] = sdx_f32_to_f16((float)random);
        else if (bound < INT64_MAX)
            store(t, i, below(seed, (uint32_t)(bound < 1 << 24 ? bound : 1 << 24)));
        else
            store(t, i, row == 1 || i % row < ones);
    }
}

static sdx_status make_input(const sdx_model *model, sdx_id v, int k, trial *t, sdx_error *err)
{
    const sdx_value *value = &model->graph->value[v];
    bool integer = sdx_dtype_is_integer(value->type.dtype) || value->type.dtype == SDX_BOOL;
    sdx_dtype dtype = value->type.dtype;
    bool real = dtype == SDX_F32 || dtype == SDX_F64 || dtype == SDX_F16;
    if (value->type.shape.rank < 0 || (!real && !integer))
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "%s: cannot make up numbers for input \"%s\" to compare with",
                        model->path, value->name);
    int64_t bound = INT64_MAX;
    if (integer) TRY(index_bound(model->graph, v, &bound, err));
    sdx_shape shape = concrete(model, &value->type, k, t->size);
    size_t bytes;
    sdx_tensor *in = &t->in[t->n_in];
    *in = sdx_tensor_make(value->type.dtype, &shape, NULL);
    if (!sdx_tensor_size(in->dtype, &shape, &bytes) || !(in->data = sdx_arena_alloc(&t->arena, bytes)))
        return sdx_fail_memory(err, bytes);
    uint32_t seed = 12345u * (uint32_t)(v + 1) + (uint32_t)k;
    fill(in, shape.rank == 2 && strstr(value->name, "mask"), bound < 1 ? 1 : bound, &seed);
    if (!(t->name[t->n_in++] = sdx_arena_strdup(&t->arena, value->name))) return sdx_fail_memory(err, 64);
    return SDX_OK;
}

static sdx_status make_trial(const sdx_model *model, int k, trial *t, sdx_error *err)
{
    const sdx_graph *g = model->graph;
    ARENA_NEW(&t->arena, t->size, (size_t)model->n_symbol + 1, err);
    ARENA_NEW(&t->arena, t->name, (size_t)g->n_input, err);
    ARENA_NEW(&t->arena, t->in, (size_t)g->n_input, err);
    t->n_out = (size_t)g->n_output;
    ARENA_NEW(&t->arena, t->out, t->n_out, err);
    for (int i = 0; i < g->n_input; i++)
        if (sdx_is_fed(g, i)) TRY(make_input(model, g->input[i], k, t, err));
    return SDX_OK;
}

/* ---- the comparison -------------------------------------------------------------------------------------- */

static sdx_status keep_outputs(trial *t, const sdx_tensor *out, sdx_error *err)
{
    for (size_t i = 0; i < t->n_out; i++) {
        size_t bytes = sdx_tensor_bytes(&out[i]);
        t->out[i] = out[i];
        t->out[i].data = sdx_arena_alloc(&t->arena, bytes);
        if (!t->out[i].data) return sdx_fail_memory(err, bytes);
        if (bytes) memcpy(t->out[i].data, out[i].data, bytes);
    }
    return SDX_OK;
}

/* max |a - b| / max(1, max |a|); infinite when types, shapes or infinities differ. */
static double difference(const sdx_tensor *a, const sdx_tensor *b)
{
    sdx_shape sa = sdx_tensor_shape(a), sb = sdx_tensor_shape(b);
    if (a->dtype != b->dtype || !sdx_shape_same(&sa, &sb)) return INFINITY;
    double worst = 0, norm = 1;
    for (int64_t i = 0, n = sdx_tensor_count(a); i < n; i++) {
        double x = sdx_tensor_get_f64(a, i), y = sdx_tensor_get_f64(b, i), d = fabs(x - y);
        if (isnan(x) != isnan(y)) return INFINITY;
        if (isnan(d)) d = isinf(x) && x != y ? INFINITY : 0;
        if (d > worst) worst = d;
        if (isfinite(x) && fabs(x) > norm) norm = fabs(x);
    }
    return worst / norm;
}

static bool is_quantized(const sdx_graph *g)
{
    for (sdx_id i = 0; i < g->n_node; i++) {
        const char *op = g->node[i].op_type;
        if (!g->node[i].dead && (strstr(op, "Quantize") || strstr(op, "Integer") || !strncmp(op, "Q", 1)))
            return true;
    }
    return false;
}

/* Random numbers differ from run to run: only types and shapes are compared. */
static double bound_for(const sdx_graph *g)
{
    for (sdx_id i = 0; i < g->n_node; i++) {
        const sdx_node *n = &g->node[i];
        bool trains = sdx_node_is(n, "Dropout") && sdx_node_in(n, 2) != SDX_NONE;
        if (trains || (n->def && n->def->flags & SDX_OP_NONDETERMINISTIC)) return DBL_MAX;
    }
    for (sdx_id v = 0; v < g->n_value; v++)
        if (g->value[v].type.dtype == SDX_F16 || g->value[v].type.dtype == SDX_BF16) return HALF_BOUND;
    return is_quantized(g) ? INT8_BOUND : FLOAT_BOUND;
}

static sdx_status compare(const sdx_model *model, const trial *t, const sdx_tensor *out, double bound,
                          sdx_error *err)
{
    for (size_t i = 0; i < t->n_out; i++) {
        double d = difference(&t->out[i], &out[i]);
        if (!(d <= bound))
            return sdx_fail(
                err, SDX_ERR_INTERNAL,
                "%s: output \"%s\" of the rewritten graph is off by %.3g, allowed is %.3g; nothing was written",
                model->path, model->graph->value[model->graph->output[i]].name, d, bound);
    }
    return SDX_OK;
}

/* Runs every trial; the first program's outputs are kept, the second's are compared with them. */
static sdx_status run_trials(const sdx_program *program, trial *trials, bool keep, double bound, sdx_error *err)
{
    sdx_session *session;
    TRY(sdx_session_create(program, &session, err));
    sdx_status status = SDX_OK;
    for (int k = 0; k < TRIALS && status == SDX_OK; k++) {
        trial *t = &trials[k];
        sdx_tensor *out = sdx_arena_array(&t->arena, t->n_out, sizeof *out);
        status = out ? sdx_session_run(session, t->n_in, t->name, t->in, t->n_out, out, err)
                     : sdx_fail_memory(err, t->n_out * sizeof *out);
        if (status == SDX_OK)
            status = keep ? keep_outputs(t, out, err) : compare(program->model, t, out, bound, err);
    }
    sdx_session_free(session);
    return status;
}

static sdx_status try_original(const sdx_program *program, int first, trial *trials, sdx_error *err)
{
    for (int k = 0; k < TRIALS; k++) {
        sdx_arena_fini(&trials[k].arena);
        trials[k] = (trial){0};
        TRY(make_trial(program->model, first + k, &trials[k], err));
    }
    return run_trials(program, trials, true, 0, err);
}

struct sdx_answers {
    trial trials[TRIALS];
    double bound;
};

/* A model that does not take the usual sizes gets small ones; if neither, *refused tells the first failure. */
static sdx_status run_original(sdx_answers *a, const char *path, const sdx_run_options *how, sdx_error *refused,
                               sdx_error *err)
{
    sdx_program *program;
    sdx_error ignored = {0};
    TRY(sdx_program_open(path, how, &program, err));
    a->bound = bound_for(program->model->graph);
    sdx_status status = try_original(program, 0, a->trials, err);
    if (status != SDX_OK && status != SDX_ERR_MEMORY) {
        if (try_original(program, TRIALS, a->trials, &ignored) != SDX_OK) *refused = *err;
        *err = (sdx_error){0};
        status = SDX_OK;
    }
    sdx_program_free(program);
    return status;
}

sdx_status sdx_answers_create(const char *original, const sdx_run_options *how, sdx_answers **out, sdx_error *refused,
                              sdx_error *err)
{
    sdx_answers *a = sdx_calloc(1, sizeof *a);
    if (!a) return sdx_fail_memory(err, sizeof *a);
    sdx_status status = run_original(a, original, how, refused, err);
    if (status == SDX_OK && !*refused->message)
        *out = a;
    else
        sdx_answers_free(a);
    return status;
}

sdx_status sdx_answers_compare(sdx_answers *a, sdx_model *rewritten, const sdx_run_options *how, sdx_error *err)
{
    sdx_program *program;
    TRY(sdx_program_create(rewritten, how, &program, err));
    double bound = fmax(a->bound, bound_for(program->model->graph)); /* weights may have become halves */
    sdx_status status = run_trials(program, a->trials, false, bound, err);
    sdx_program_free(program);
    return status;
}

void sdx_answers_free(sdx_answers *a)
{
    if (!a) return;
    for (int k = 0; k < TRIALS; k++) sdx_arena_fini(&a->trials[k].arena);
    free(a);
}

/* ---- where it went wrong --------------------------------------------------------------------------------- */

/* Every value that both graphs compute under one name becomes an output of both, in the rewritten graph's
 * order. */
static sdx_status expose(sdx_graph *original, sdx_graph *rewritten, sdx_error *err)
{
    for (sdx_id i = 0; i < rewritten->n_node; i++) {
        for (int k = 0; k < rewritten->node[i].n_out; k++) {
            sdx_id v = rewritten->node[i].out[k];
            sdx_id w = v == SDX_NONE ? SDX_NONE : sdx_graph_find_value(original, rewritten->value[v].name);
            if (w == SDX_NONE || !sdx_graph_producer(original, w)) continue;
            if (rewritten->value[v].is_output || original->value[w].is_output) continue;
            TRY(sdx_graph_add_output(original, w, err));
            TRY(sdx_graph_add_output(rewritten, v, err));
        }
    }
    TRY(sdx_graph_index(original, err));
    return sdx_graph_index(rewritten, err);
}

/* The outputs from `declared` on are in the graph's order: the first that is off tells the node. */
static const sdx_node *first_off(const sdx_graph *g, const trial *t, const sdx_tensor *out, int declared,
                                 double bound)
{
    for (int i = declared; i < g->n_output; i++)
        if (!(difference(&t->out[i], &out[i]) <= bound)) return sdx_graph_producer(g, g->output[i]);
    return NULL;
}

/* Runs the rewritten program on what the original answered in trial k; NULL when only declared outputs are off.
 */
static sdx_status run_until_off(const sdx_program *program, trial *t, int declared, double bound, char *place,
                                size_t size, sdx_error *err)
{
    sdx_session *session;
    TRY(sdx_session_create(program, &session, err));
    sdx_tensor *out = sdx_arena_array(&t->arena, t->n_out, sizeof *out);
    sdx_status status = out ? sdx_session_run(session, t->n_in, t->name, t->in, t->n_out, out, err)
                            : sdx_fail_memory(err, t->n_out * sizeof *out);
    const sdx_graph *g = program->model->graph;
    const sdx_node *n = status == SDX_OK ? first_off(g, t, out, declared, bound) : NULL;
    if (n) sdx_node_format(n, place, size);
    sdx_session_free(session);
    return status;
}

static sdx_status run_pair(sdx_program *original, sdx_program *rewritten, int declared, double bound,
                           char *place, size_t size, sdx_error *err)
{
    trial trials[TRIALS] = {0};
    sdx_status status = SDX_OK;
    for (int k = 0; k < TRIALS && status == SDX_OK; k++)
        status = make_trial(original->model, k, &trials[k], err);
    if (status == SDX_OK) status = run_trials(original, trials, true, 0, err);
    for (int k = 0; k < TRIALS && status == SDX_OK && !*place; k++)
        status = run_until_off(rewritten, &trials[k], declared, bound, place, size, err);
    for (int k = 0; k < TRIALS; k++) sdx_arena_fini(&trials[k].arena);
    return status;
}

sdx_status sdx_find_divergence(const char *original, sdx_model *rewritten, const sdx_run_options *how, char *place,
                               size_t size, sdx_error *err)
{
    sdx_model *model = NULL;
    sdx_program *a = NULL, *b = NULL;
    *place = '\0';
    sdx_status status = sdx_model_open(original, &model, err);
    if (status == SDX_OK) status = sdx_graph_index(model->graph, err);
    int declared = rewritten->graph->n_output;
    if (status == SDX_OK) status = expose(model->graph, rewritten->graph, err);
    if (status != SDX_OK) {
        sdx_model_close(model);
        sdx_model_close(rewritten);
        return status;
    }
    status = sdx_program_create(rewritten, how, &b, err);
    if (status == SDX_OK)
        status = sdx_program_create(model, how, &a, err);
    else
        sdx_model_close(model);
    if (status == SDX_OK) status = run_pair(a, b, declared, bound_for(a->model->graph), place, size, err);
    sdx_program_free(a);
    sdx_program_free(b);
    return status;
}
