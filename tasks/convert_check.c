/* convert_check.c: runs the graphs that were written, as any user would, and compares them with the reference
 * computed straight from the checkpoint. Speech and vision models run on a made-up sound or image.
 *
 * Of a model that generates, every graph is checked with the same tokens: the last one goes, with the others
 * as its past, to what takes a past. The reference knows no past: it computes all rows at once.
 *
 *   encoder_model                      all n                      -> states
 *   decoder_model, merged              tokens 0 .. n-2            -> logits, present
 *   decoder_with_past_model, merged    token n-1, present as past -> logits */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/memory.h"
#include "convert_check.h"

/* ---- the sentence ---------------------------------------------------------------------------------------- */

bool sdx_convert_has_tokenizer(const char *folder)
{
    static const char *const names[] = {"tokenizer.json", "vocab.txt", "source.spm"};
    bool found = false;
    for (size_t i = 0; i < sizeof names / sizeof *names && !found; i++) {
        char *path = sdx_path_join(folder, names[i]);
        found = path && sdx_file_exists(path);
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
    sdx_encoding e = {.count = count,
                      .ids = sdx_calloc(count, sizeof *e.ids),
                      .type_ids = sdx_calloc(count, sizeof *e.type_ids)};
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
    if (sdx_convert_has_tokenizer(options->checkpoint)) {
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

/* ---- a graph and what it is fed -------------------------------------------------------------------------- */

typedef struct opened {
    sdx_program *program;
    sdx_session *session;
    const sdx_model *model;
    size_t n_in, n_out;
    const char **name; /* [n_in]; owned, as are the next two */
    sdx_tensor *in;
    sdx_tensor *out; /* [n_out], of the last run: the session's */
} opened;

static void close_graph(opened *g)
{
    sdx_session_free(g->session);
    sdx_program_free(g->program);
    free(g->name);
    free(g->in);
    free(g->out);
    *g = (opened){.program = NULL};
}

static sdx_status open_graph(const char *path, opened *g, sdx_error *err)
{
    const sdx_run_options options = {0};
    *g = (opened){.program = NULL};
    TRY(sdx_program_open(path, &options, &g->program, err));
    g->model = sdx_program_model(g->program);
    g->n_in = sdx_model_input_count(g->model);
    g->n_out = sdx_model_output_count(g->model);
    g->name = sdx_calloc(g->n_in + 1, sizeof *g->name);
    g->in = sdx_calloc(g->n_in + 1, sizeof *g->in);
    g->out = sdx_calloc(g->n_out + 1, sizeof *g->out);
    if (!g->name || !g->in || !g->out) return sdx_fail_memory(err, g->n_in * sizeof *g->in);
    return sdx_session_create(g->program, &g->session, err);
}

typedef struct feed {
    const probe *p;
    int64_t from, to;         /* the tokens that are fed */
    const int64_t *ones;      /* [n] */
    const int64_t *positions; /* [n] */
    const opened *encoder;    /* that has run, or NULL */
    const opened *before;     /* the graph whose present.* is the past; NULL: the past is empty */
} feed;

/* [1, count], or [1, 1, count] for a graph that chooses among texts */
static sdx_tensor row_of(const sdx_port *port, const int64_t *data, int64_t count)
{
    if (port->rank == 3) return (sdx_tensor){.dtype = SDX_I64, .rank = 3, .dim = {1, 1, count}, .data = (void *)data};
    return (sdx_tensor){.dtype = SDX_I64, .rank = 2, .dim = {1, count}, .data = (void *)data};
}

/* past_key_values.X is the output present.X of the graph before. */
static sdx_tensor bind_past(const feed *f, const sdx_port *port)
{
    static float nothing[1];
    const char *name = strchr(port->name, '.');
    for (size_t i = 0; f->before && i < f->before->n_out; i++) {
        const char *output = sdx_model_output(f->before->model, i).name, *dot = strchr(output, '.');
        if (dot && !strcmp(dot, name)) return f->before->out[i];
    }
    return (sdx_tensor){SDX_F32, 4, {1, port->dim[1], 0, port->dim[3]}, nothing};
}

static sdx_tensor bind_values(const probe *p)
{
    sdx_tensor t = {.dtype = SDX_F32, .rank = p->shape.rank, .data = p->values};
    for (int i = 0; i < t.rank; i++) t.dim[i] = p->shape.dim[i];
    return t;
}

static sdx_tensor bind_input(const feed *f, const sdx_port *port, bool *later)
{
    const sdx_encoding *text = &f->p->text;
    int64_t count = f->to - f->from;
    if (f->p->values) return bind_values(f->p);
    if (!strncmp(port->name, "past_key_values.", 16)) return bind_past(f, port);
    if (!strcmp(port->name, "input_ids")) return row_of(port, text->ids + f->from, count);
    if (!strcmp(port->name, "token_type_ids")) return row_of(port, text->type_ids + f->from, count);
    if (!strcmp(port->name, "position_ids")) return row_of(port, f->positions + f->from, count);
    if (!strcmp(port->name, "encoder_attention_mask")) return row_of(port, f->ones, (int64_t)text->count);
    if (!strcmp(port->name, "encoder_hidden_states") && f->encoder) return f->encoder->out[0];
    if (!strcmp(port->name, "use_cache_branch")) return (sdx_tensor){SDX_BOOL, 1, {1}, later};
    return row_of(port, f->ones, f->to);
}

static sdx_status run_graph(opened *g, const feed *f, sdx_error *err)
{
    bool later = f->before != NULL;
    for (size_t i = 0; i < g->n_in; i++) {
        sdx_port port = sdx_model_input(g->model, i);
        g->name[i] = port.name;
        g->in[i] = bind_input(f, &port, &later);
    }
    return sdx_session_run(g->session, g->n_in, g->name, g->in, g->n_out, g->out, err);
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

/* The larger of the two, NaN when either is. */
static double larger(double a, double b)
{
    return isnan(a) || a > b ? a : b; /* b NaN: a > b is false */
}

/* Into the report goes the worst of all comparisons, NaN when any difference is. */
static void compare(const float *graph, const double *reference, int64_t n, sdx_convert_report *report)
{
    double sum = 0, worst = 0;
    for (int64_t i = 0; i < n; i++) {
        double g = (double)graph[i], r = reference[i];
        sum += fabs((g < 0 ? 0 : g) - (r < 0 ? 0 : r));
        worst = larger(fabs(g - r), worst);
    }
    report->l1_difference = larger(sum / (double)n, report->l1_difference);
    report->max_difference = larger(worst, report->max_difference);
}

/* Rows from .. to of the reference, or all of it, against the graph's first output. */
static sdx_status compare_rows(const opened *g, const sdx_reference_result *r, int64_t from, int64_t to,
                               sdx_convert_report *report, sdx_error *err)
{
    int64_t all = count_values(r), width = from || to ? all / r->dim[0] : all,
            n = from || to ? (to - from) * width : all;
    if (g->out[0].dtype != SDX_F32 || sdx_tensor_count(&g->out[0]) != n)
        return sdx_fail(err, SDX_ERR_INTERNAL, "the graph's first output has another shape than the reference");
    compare(g->out[0].data, r->value + from * width, n, report);
    return SDX_OK;
}

static sdx_status compare_sparse(const opened *g, const sdx_reference_result *r, sdx_convert_report *report,
                                 sdx_error *err)
{
    int64_t n = count_values(r);
    if (g->n_out != 2) return sdx_fail(err, SDX_ERR_INTERNAL, "a sparse graph has two outputs");
    float *dense = sdx_calloc((size_t)n, sizeof *dense);
    if (!dense) return sdx_fail_memory(err, (size_t)n * sizeof *dense);
    sdx_status status = scatter(&g->out[0], &g->out[1], dense, n, err);
    if (status == SDX_OK) compare(dense, r->value, n, report);
    free(dense);
    return status;
}

/* ---- the graphs of a model ------------------------------------------------------------------------------- */

enum { MAX_GRAPHS = 4 };

typedef struct check {
    probe p;
    sdx_reference_result first;  /* of the only graph, or of the encoder */
    sdx_reference_result logits; /* of the decoders; value NULL: there are none */
    bool sparse;
    size_t n_graph;
    int64_t *ones, *positions; /* [n] each */
    opened graph[MAX_GRAPHS];
    sdx_convert_report *report;
} check;

static void free_check(check *c)
{
    for (size_t i = 0; i < MAX_GRAPHS; i++) close_graph(&c->graph[i]);
    sdx_encoding_free(&c->p.text);
    free(c->p.values);
    free(c->first.value);
    free(c->logits.value);
    free(c->ones);
    free(c->positions);
}

static sdx_status compute_expected(const sdx_reference *r, check *c, sdx_error *err)
{
    const sdx_encoding *text = &c->p.text;
    if (c->p.values) return sdx_reference_run_values(r, c->p.values, &c->first, err);
    TRY(sdx_reference_run(r, text->count, text->ids, text->type_ids, &c->first, err));
    if (c->n_graph < 2) return SDX_OK;
    return sdx_reference_run_decoder(r, text->count, text->ids, &c->logits, err);
}

/* All that needs the checkpoint. */
static sdx_status prepare(const sdx_convert_options *options, const sdx_reference *r, check *c, sdx_error *err)
{
    c->sparse = sdx_reference_is_sparse(r);
    TRY(make_probe(options, r, &c->p, err));
    /* Decoders are fed what the encoder is, and may know fewer words. */
    for (size_t i = 0; c->n_graph > 1 && i < c->p.text.count; i++) c->p.text.ids[i] %= sdx_reference_vocab_size(r);
    TRY(compute_expected(r, c, err));
    size_t n = c->p.text.count;
    c->ones = sdx_calloc(n + 1, sizeof *c->ones);
    c->positions = sdx_calloc(n + 1, sizeof *c->positions);
    if (!c->ones || !c->positions) return sdx_fail_memory(err, n * sizeof *c->ones);
    for (size_t i = 0; i < n; i++) {
        c->ones[i] = 1;
        c->positions[i] = (int64_t)i;
    }
    return SDX_OK;
}

static feed feed_of(const check *c, int64_t from, int64_t to, const opened *before)
{
    return (feed){&c->p, from, to, c->ones, c->positions, c->logits.value ? &c->graph[0] : NULL, before};
}

static bool has_input(const opened *g, const char *start)
{
    for (size_t i = 0; i < g->n_in; i++)
        if (!strncmp(sdx_model_input(g->model, i).name, start, strlen(start))) return true;
    return false;
}

/* Tokens from .. to of the decoder g. */
static sdx_status check_rows(const check *c, opened *g, const sdx_reference_result *expected, int64_t from, int64_t to,
                             const opened *before, sdx_error *err)
{
    const feed f = feed_of(c, from, to, before);
    TRY(run_graph(g, &f, err));
    return compare_rows(g, expected, from, to, c->report, err);
}

/* A decoder: all tokens but the last, then the last alone if the graph takes a past, the first graph's if it takes
 * nothing else. */
static sdx_status check_decoder(check *c, const char *path, opened *g, const sdx_reference_result *expected,
                                sdx_error *err)
{
    int64_t n = (int64_t)c->p.text.count, head = n > 1 ? n - 1 : n;
    bool past = has_input(g, "past_key_values."), starts = !past || has_input(g, "use_cache_branch") || c->n_graph < 2;
    opened next = {.program = NULL};
    const opened *before = starts ? g : &c->graph[1];
    if (starts) TRY(check_rows(c, g, expected, 0, head, NULL, err));
    if (!past || head == n) return SDX_OK;
    sdx_status status = starts ? open_graph(path, &next, err) : SDX_OK; /* the past is still the first session's */
    if (status == SDX_OK) status = check_rows(c, starts ? &next : g, expected, head, n, before, err);
    close_graph(&next);
    return status;
}

/* The only graph, or the encoder. */
static sdx_status check_first(check *c, const char *path, sdx_error *err)
{
    opened *g = &c->graph[0];
    if (has_input(g, "past_key_values.")) return check_decoder(c, path, g, &c->first, err);
    const feed f = {&c->p, 0, (int64_t)c->p.text.count, c->ones, c->positions, NULL, NULL};
    TRY(run_graph(g, &f, err));
    return c->sparse ? compare_sparse(g, &c->first, c->report, err)
                     : compare_rows(g, &c->first, 0, 0, c->report, err);
}

static sdx_status check_graphs(check *c, char *const *path, sdx_error *err)
{
    for (size_t i = 0; i < c->n_graph; i++) {
        sdx_status status = open_graph(path[i], &c->graph[i], err);
        if (status == SDX_OK)
            status = i ? check_decoder(c, path[i], &c->graph[i], &c->logits, err) : check_first(c, path[i], err);
        if (status == SDX_OK) continue;
        sdx_error_context(err, "%s: written, but not validated", path[i]);
        return status;
    }
    const char *name = sdx_model_output(c->graph[0].model, c->sparse ? 1 : 0).name;
    snprintf(c->report->output_name, sizeof c->report->output_name, "%s", name);
    return SDX_OK;
}

sdx_status sdx_convert_check(const sdx_convert_options *options, sdx_reference *reference, char *const *path,
                             sdx_convert_report *report, sdx_error *err)
{
    check c = {.n_graph = report->graphs, .report = report};
    report->l1_difference = report->max_difference = 0;
    sdx_status status = prepare(options, reference, &c, err);
    sdx_reference_free(reference);
    if (status != SDX_OK)
        sdx_error_context(err, "%s: written, but not validated", path[0]);
    else
        status = check_graphs(&c, path, err);
    free_check(&c);
    return status;
}
