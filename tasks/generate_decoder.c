/* generate_decoder.c: token sequences to scores of the next token, from the graphs that optimum exports:
 *
 *   encoder_model.onnx            ids -> states [1, S, D], once a text
 *   decoder_model.onnx            the first call: whole rows, states -> logits,
 * present.N.{decoder,encoder}.{key,value} decoder_with_past_model.onnx  every other call: last tokens,
 * past_key_values.* -> logits, present.N.decoder.* decoder_model_merged.onnx     both of them, by
 * use_cache_branch any other .onnx file          a decoder without encoder; with past_key_values.* inputs,
 * cached as well
 *
 * Without a graph that takes a past, every call runs whole rows. Inputs are known by their names. A cache is
 * copied once a step, when its rows are put into the order that the search decided on; cross-attention's only
 * when the number of rows changes. All rows are of one text, so nothing is padded. */
#include "generate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/file.h"
#include "../base/memory.h"

#define PAST    "past_key_values."
#define PRESENT "present."

typedef struct stage { /* a graph */
    sdx_program *program;
    sdx_session *session;
    size_t n_in, n_out;
    int logits;        /* the output of that name */
    const char **name; /* [n_in], and so on; owned */
    sdx_tensor *in, *out;
} stage;

/* What is fed to one past_key_values.* input, or to encoder_hidden_states. */
typedef struct slot {
    const char *name; /* after "past_key_values."; the model's */
    sdx_tensor value; /* [rows, ...]; data owned */
    size_t room;      /* bytes */
    sdx_tensor fresh; /* of the last run: takes value's place, rows in a new order; data NULL: none */
} slot;

struct sdx_decoder {
    stage encoder, first, past; /* program NULL: there is none; a merged graph is `past`, and first is empty */
    slot *slots;                /* [n_slots]: inputs of `past` */
    size_t n_slots;
    slot states;      /* of the encoder */
    size_t source;    /* tokens of the text that the encoder read */
    size_t cached;    /* tokens in the cache */
    int64_t *numbers; /* ids, ones and positions of a run; owned */
    size_t numbers_room;
    float *logits; /* owned */
    size_t logits_room;
};

/* ---- opening --------------------------------------------------------------------------------------------- */

static int find_output(const sdx_model *m, const char *name)
{
    for (size_t i = 0; i < sdx_model_output_count(m); i++)
        if (!strcmp(sdx_model_output(m, i).name, name)) return (int)i;
    return -1;
}

static bool begins(const char *s, const char *start)
{
    return !strncmp(s, start, strlen(start));
}

static sdx_status open_stage(const char *path, const sdx_run_options *run, const char *output, stage *s,
                             sdx_error *err)
{
    TRY(sdx_program_open(path, run, &s->program, err));
    TRY(sdx_session_create(s->program, &s->session, err));
    const sdx_model *m = sdx_program_model(s->program);
    s->n_in = sdx_model_input_count(m);
    s->n_out = sdx_model_output_count(m);
    s->logits = find_output(m, output);
    if (s->logits < 0) return sdx_fail(err, SDX_ERR_UNSUPPORTED, "%s: has no output \"%s\"", path, output);
    s->name = sdx_calloc(s->n_in + 1, sizeof *s->name);
    s->in = sdx_calloc(s->n_in + 1, sizeof *s->in);
    s->out = sdx_calloc(s->n_out + 1, sizeof *s->out);
    return s->name && s->in && s->out ? SDX_OK : sdx_fail_memory(err, s->n_in * sizeof *s->in);
}

static void close_stage(stage *s)
{
    sdx_session_free(s->session);
    sdx_program_free(s->program);
    free(s->name);
    free(s->in);
    free(s->out);
}

/* path/name or path/onnx/name in new memory; NULL when neither is there. */
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

static sdx_status open_if_there(const char *folder, const char *name, const sdx_run_options *run,
                                const char *output, stage *s, sdx_error *err)
{
    char *path = find_file(folder, name);
    sdx_status status = path ? open_stage(path, run, output, s, err) : SDX_OK;
    free(path);
    return status;
}

static sdx_status open_seq2seq(sdx_decoder *d, const char *folder, const sdx_run_options *run, sdx_error *err)
{
    TRY(open_if_there(folder, "encoder_model.onnx", run, "last_hidden_state", &d->encoder, err));
    TRY(open_if_there(folder, "decoder_model.onnx", run, "logits", &d->first, err));
    const char *past = d->first.program ? "decoder_with_past_model.onnx" : "decoder_model_merged.onnx";
    TRY(open_if_there(folder, past, run, "logits", &d->past, err));
    if (d->first.program || d->past.program) return SDX_OK;
    return sdx_fail(err, SDX_ERR_FILE,
                    "%s: has encoder_model.onnx, but neither decoder_model.onnx nor "
                    "decoder_model_merged.onnx",
                    folder);
}

/* A lone graph is run on whole rows unless it takes a past. */
static sdx_status open_lone(sdx_decoder *d, const char *path, const sdx_run_options *run, sdx_error *err)
{
    TRY(open_stage(path, run, "logits", &d->first, err));
    for (size_t i = 0; i < d->first.n_in; i++) {
        if (!begins(sdx_model_input(sdx_program_model(d->first.program), i).name, PAST)) continue;
        d->past = d->first;
        d->first = (stage){0};
        break;
    }
    return SDX_OK;
}

static bool is_cross(const char *name)
{
    return strstr(name, ".encoder.") != NULL;
}

/* The first graph gives every slot its first value, the other all but cross-attention's each time. */
static sdx_status check_presents(const sdx_decoder *d, sdx_error *err)
{
    const sdx_model *past = sdx_program_model(d->past.program);
    const sdx_model *first = d->first.program ? sdx_program_model(d->first.program) : past;
    for (size_t k = 0; k < d->n_slots; k++) {
        char name[256];
        snprintf(name, sizeof name, PRESENT "%s", d->slots[k].name);
        if (find_output(first, name) < 0 || (!is_cross(name) && find_output(past, name) < 0))
            return sdx_fail(err, SDX_ERR_UNSUPPORTED,
                            "no decoder has an output \"%s\" for its input " PAST "%s", name, d->slots[k].name);
    }
    return SDX_OK;
}

/* A slot for each past input; without them a graph for later calls would be of no use. */
static sdx_status make_slots(sdx_decoder *d, sdx_error *err)
{
    if (!d->past.program) return SDX_OK;
    const sdx_model *m = sdx_program_model(d->past.program);
    d->slots = sdx_calloc(d->past.n_in + 1, sizeof *d->slots);
    if (!d->slots) return sdx_fail_memory(err, d->past.n_in * sizeof *d->slots);
    for (size_t i = 0; i < d->past.n_in; i++) {
        sdx_port port = sdx_model_input(m, i);
        if (!begins(port.name, PAST)) continue;
        if (port.rank != 4 || !sdx_dtype_size(port.dtype))
            return sdx_fail(err, SDX_ERR_UNSUPPORTED, "input \"%s\" is not [rows, heads, tokens, size]",
                            port.name);
        slot *s = &d->slots[d->n_slots++];
        *s = (slot){.name = port.name + strlen(PAST), .value = {.dtype = port.dtype, .rank = 4}};
        memcpy(s->value.dim, port.dim, 4 * sizeof *port.dim);
    }
    if (d->n_slots) return check_presents(d, err);
    return sdx_fail(err, SDX_ERR_UNSUPPORTED, "the decoder with a past has no inputs " PAST "*");
}

sdx_status sdx_decoder_open(const char *path, const sdx_run_options *run, sdx_decoder **out, sdx_error *err)
{
    sdx_decoder *d = sdx_calloc(1, sizeof *d);
    if (!d) return sdx_fail_memory(err, sizeof *d);
    char *encoder = sdx_is_directory(path) ? find_file(path, "encoder_model.onnx") : NULL;
    sdx_status status = encoder ? open_seq2seq(d, path, run, err) : open_lone(d, path, run, err);
    free(encoder);
    if (status == SDX_OK) status = make_slots(d, err);
    if (status == SDX_OK)
        *out = d;
    else
        sdx_decoder_free(d);
    return status;
}

void sdx_decoder_free(sdx_decoder *d)
{
    if (!d) return;
    close_stage(&d->encoder);
    close_stage(&d->first);
    close_stage(&d->past);
    for (size_t i = 0; i < d->n_slots; i++) free(d->slots[i].value.data);
    free(d->slots);
    free(d->states.value.data);
    free(d->numbers);
    free(d->logits);
    free(d);
}

bool sdx_decoder_has_encoder(const sdx_decoder *d)
{
    return d->encoder.program != NULL;
}

/* ---- caches ---------------------------------------------------------------------------------------------- */

static size_t row_bytes(const sdx_tensor *t)
{
    return t->dim[0] > 0 ? sdx_tensor_bytes(t) / (size_t)t->dim[0] : 0;
}

static sdx_status slot_reserve(slot *s, size_t bytes, sdx_error *err)
{
    if (bytes <= s->room && s->value.data) return SDX_OK;
    size_t room = bytes + bytes / 2 + 1;
    free(s->value.data);
    s->room = 0;
    s->value.data = sdx_malloc_aligned(room);
    if (!s->value.data) return sdx_fail_memory(err, room);
    s->room = room;
    return SDX_OK;
}

/* Row r becomes row parent[r] of what the last run gave. */
static sdx_status slot_settle(slot *s, const size_t *parent, size_t rows, sdx_error *err)
{
    if (!s->fresh.data) return SDX_OK;
    sdx_tensor from = s->fresh;
    size_t bytes = row_bytes(&from);
    TRY(slot_reserve(s, rows * bytes, err));
    for (size_t r = 0; r < rows; r++) {
        if (from.dim[0] < 1 || parent[r] >= (size_t)from.dim[0])
            return sdx_fail(err, SDX_ERR_UNSUPPORTED, "\"%s\" has %lld rows, not one a sequence", s->name,
                            (long long)from.dim[0]);
        memcpy((char *)s->value.data + r * bytes, (char *)from.data + parent[r] * bytes, bytes);
    }
    void *data = s->value.data;
    s->value = from;
    s->value.data = data;
    s->value.dim[0] = (int64_t)rows;
    s->fresh = (sdx_tensor){.data = NULL};
    return SDX_OK;
}

/* All rows of a text's encoder are alike: the first stands for as many as there are now. */
static sdx_status slot_repeat(slot *s, size_t rows, sdx_error *err)
{
    size_t have = (size_t)s->value.dim[0], bytes = row_bytes(&s->value);
    if (have == rows) return SDX_OK;
    char *data = sdx_malloc_aligned(rows * bytes + 1);
    if (!data) return sdx_fail_memory(err, rows * bytes);
    for (size_t r = 0; r < rows; r++) memcpy(data + r * bytes, s->value.data, bytes);
    free(s->value.data);
    s->value.data = data;
    s->value.dim[0] = (int64_t)rows;
    s->room = rows * bytes + 1;
    return SDX_OK;
}

/* Before anything is cached: no tokens. */
static sdx_status slot_clear(slot *s, size_t rows, sdx_error *err)
{
    if (s->value.dim[1] < 0 || s->value.dim[3] < 0)
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "input \"" PAST "%s\" does not say its heads and their size",
                        s->name);
    s->value.dim[0] = (int64_t)rows;
    s->value.dim[2] = 0;
    s->fresh = (sdx_tensor){.data = NULL};
    return slot_reserve(s, 1, err);
}

/* What a run gave under present.* is what the next one gets. A merged graph gives empty cross-attention after
 * the first run: the first stays. */
static void take_present(sdx_decoder *d, const stage *s, bool began)
{
    const sdx_model *m = sdx_program_model(s->program);
    for (size_t i = 0; i < s->n_out; i++) {
        const char *name = sdx_model_output(m, i).name;
        if (!begins(name, PRESENT)) continue;
        for (size_t k = 0; k < d->n_slots; k++) {
            slot *into = &d->slots[k];
            if (strcmp(into->name, name + strlen(PRESENT))) continue;
            if (began || !is_cross(name)) into->fresh = s->out[i];
        }
    }
}

/* ---- feeding --------------------------------------------------------------------------------------------- */

typedef struct call {
    const int64_t *ids;                /* [rows] rows, stride apart */
    size_t rows, stride, skip, length; /* tokens skip to length are fed */
} call;

static size_t cells_of(const sdx_decoder *d, const call *c)
{
    size_t longest = c->length > d->source ? c->length : d->source;
    return c->rows * longest + 1;
}

/* int64 to int32 in place, for graphs that an optimizer gave int32 inputs. */
static void narrow(int64_t *data, size_t n)
{
    for (size_t i = 0; i < n; i++) ((int32_t *)data)[i] = (int32_t)data[i];
}

typedef enum filling { FILL_IDS, FILL_SOURCE_MASK, FILL_MASK, FILL_POSITIONS, FILL_CACHE_BRANCH } filling;

static const struct {
    const char *name;
    filling what;
} fillings[] = {
    {"input_ids", FILL_IDS},
    {"decoder_input_ids", FILL_IDS},
    {"encoder_attention_mask", FILL_SOURCE_MASK},
    {"attention_mask", FILL_MASK},
    {"decoder_attention_mask", FILL_MASK},
    {"position_ids", FILL_POSITIONS},
    {"use_cache_branch", FILL_CACHE_BRANCH},
};

/* The numbers of one input into data, which has room for them. */
static sdx_tensor fill(const sdx_decoder *d, filling what, const call *c, sdx_dtype dtype, int64_t *data)
{
    size_t width = c->length - c->skip;
    if (what == FILL_SOURCE_MASK) width = d->source;
    if (what == FILL_MASK) width = c->length;
    for (size_t r = 0; r < c->rows; r++)
        for (size_t t = 0; t < width; t++) {
            int64_t *x = &data[r * width + t];
            *x = what == FILL_IDS         ? c->ids[r * c->stride + c->skip + t]
                 : what == FILL_POSITIONS ? (int64_t)(c->skip + t)
                                          : 1;
        }
    if (what == FILL_CACHE_BRANCH) {
        *(bool *)data = d->cached > 0;
        return (sdx_tensor){SDX_BOOL, 1, {1}, data};
    }
    if (dtype == SDX_I32) narrow(data, c->rows * width);
    return (sdx_tensor){dtype, 2, {(int64_t)c->rows, (int64_t)width}, data};
}

static sdx_status feed(sdx_decoder *d, const sdx_port *port, const call *c, int64_t *data, sdx_tensor *in,
                       sdx_error *err)
{
    for (size_t i = 0; i < sizeof fillings / sizeof *fillings; i++) {
        if (strcmp(port->name, fillings[i].name)) continue;
        *in = fill(d, fillings[i].what, c, port->dtype, data);
        return SDX_OK;
    }
    for (size_t k = 0; k < d->n_slots && begins(port->name, PAST); k++) {
        if (strcmp(d->slots[k].name, port->name + strlen(PAST))) continue;
        *in = d->slots[k].value;
        return SDX_OK;
    }
    if (strcmp(port->name, "encoder_hidden_states") || !d->encoder.program)
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "the graph has an input \"%s\", which no text gives",
                        port->name);
    TRY(slot_repeat(&d->states, c->rows, err));
    *in = d->states.value;
    return SDX_OK;
}

/* Runs a graph; its outputs are in s->out. */
static sdx_status run_stage(sdx_decoder *d, stage *s, const call *c, sdx_error *err)
{
    const sdx_model *m = sdx_program_model(s->program);
    size_t cells = cells_of(d, c);
    if (s->n_in * cells > d->numbers_room) {
        free(d->numbers);
        d->numbers_room = 0;
        d->numbers = sdx_malloc(2 * s->n_in * cells * sizeof *d->numbers);
        if (!d->numbers) return sdx_fail_memory(err, 2 * s->n_in * cells * sizeof *d->numbers);
        d->numbers_room = 2 * s->n_in * cells;
    }
    for (size_t i = 0; i < s->n_in; i++) {
        sdx_port port = sdx_model_input(m, i);
        TRY(feed(d, &port, c, d->numbers + i * cells, &s->in[i], err));
        s->name[i] = port.name;
    }
    return sdx_session_run(s->session, s->n_in, s->name, s->in, s->n_out, s->out, err);
}

/* ---- the calls ------------------------------------------------------------------------------------------- */

sdx_status sdx_decoder_begin(sdx_decoder *d, const int64_t *ids, size_t n, sdx_error *err)
{
    d->cached = d->source = 0;
    for (size_t k = 0; k < d->n_slots; k++) d->slots[k].fresh = (sdx_tensor){.data = NULL};
    if (!d->encoder.program) return SDX_OK;
    d->source = n;
    TRY(run_stage(d, &d->encoder, &(call){ids, 1, n, 0, n}, err));
    d->states.name = "last_hidden_state";
    d->states.fresh = d->encoder.out[d->encoder.logits];
    if (d->states.fresh.rank != 3)
        return sdx_fail(err, SDX_ERR_UNSUPPORTED,
                        "the encoder's last_hidden_state is not [batch, tokens, size]");
    return slot_settle(&d->states, (size_t[]){0}, 1, err);
}

/* The scores after the last token of each row, as float32. t: [rows, tokens, vocab]. */
static sdx_status copy_logits(sdx_decoder *d, const sdx_tensor *t, size_t rows, size_t *vocab, sdx_error *err)
{
    if (t->rank != 3 || (size_t)t->dim[0] != rows || t->dim[1] < 1 || t->dim[2] < 1)
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "logits are not [%zu, tokens, vocabulary]", rows);
    size_t n = (size_t)t->dim[2], tokens = (size_t)t->dim[1];
    if (rows * n > d->logits_room) {
        free(d->logits);
        d->logits_room = 0;
        d->logits = sdx_malloc(rows * n * sizeof *d->logits);
        if (!d->logits) return sdx_fail_memory(err, rows * n * sizeof *d->logits);
        d->logits_room = rows * n;
    }
    for (size_t r = 0; r < rows; r++) {
        size_t at = ((r + 1) * tokens - 1) * n;
        if (t->dtype == SDX_F32)
            memcpy(d->logits + r * n, (float *)t->data + at, n * sizeof(float));
        else
            for (size_t v = 0; v < n; v++)
                d->logits[r * n + v] = (float)sdx_tensor_get_f64(t, (int64_t)(at + v));
    }
    *vocab = n;
    return SDX_OK;
}

static sdx_status settle(sdx_decoder *d, const size_t *parent, size_t rows, sdx_error *err)
{
    for (size_t k = 0; k < d->n_slots; k++) {
        slot *s = &d->slots[k];
        if (!d->cached)
            TRY(slot_clear(s, rows, err));
        else if (s->fresh.data)
            TRY(slot_settle(s, parent, rows, err));
        else
            TRY(slot_repeat(s, rows, err));
    }
    return SDX_OK;
}

sdx_status sdx_decoder_step(sdx_decoder *d, const int64_t *ids, size_t stride, size_t length,
                            const size_t *parent, size_t rows, float **logits, size_t *vocab, sdx_error *err)
{
    bool began = d->cached == 0;
    stage *s = d->past.program && (!began || !d->first.program) ? &d->past : &d->first;
    if (s == &d->past) TRY(settle(d, parent, rows, err));
    TRY(run_stage(d, s, &(call){ids, rows, stride, d->past.program ? d->cached : 0, length}, err));
    take_present(d, s, began);
    if (d->past.program) d->cached = length;
    *logits = NULL;
    TRY(copy_logits(d, &s->out[s->logits], rows, vocab, err));
    *logits = d->logits;
    return SDX_OK;
}
