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

#include "../base/memory.h"
#include "generate_graphs.h"

#define PAST    SDX_PAST
#define PRESENT "present."

/* What is fed to one past_key_values.* input, or to encoder_hidden_states. */
typedef struct slot {
    const char *name; /* after "past_key_values."; the model's */
    sdx_tensor value; /* [rows, ...]; data owned */
    size_t room;      /* bytes */
    sdx_tensor fresh; /* of the last run: takes value's place, rows in a new order; data NULL: none */
} slot;

struct sdx_decoder {
    sdx_stages graphs;
    slot *slots; /* [n_slots]: inputs of graphs.past */
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

static bool begins(const char *s, const char *start)
{
    return !strncmp(s, start, strlen(start));
}

static bool is_cross(const char *name)
{
    return strstr(name, ".encoder.") != NULL;
}

/* The first graph gives every slot its first value, the other all but cross-attention's each time. */
static sdx_status check_presents(const sdx_decoder *d, sdx_error *err)
{
    const sdx_stage *past = &d->graphs.past, *first = d->graphs.first.program ? &d->graphs.first : past;
    for (size_t k = 0; k < d->n_slots; k++) {
        char name[256];
        snprintf(name, sizeof name, PRESENT "%s", d->slots[k].name);
        if (sdx_stage_output(first, name) < 0 || (!is_cross(name) && sdx_stage_output(past, name) < 0))
            return sdx_fail(err, SDX_ERR_UNSUPPORTED,
                            "no decoder has an output \"%s\" for its input " PAST "%s", name, d->slots[k].name);
    }
    return SDX_OK;
}

/* A slot for each past input; without them a graph for later calls would be of no use. */
static sdx_status make_slots(sdx_decoder *d, sdx_error *err)
{
    if (!d->graphs.past.program) return SDX_OK;
    const sdx_model *m = sdx_program_model(d->graphs.past.program);
    d->slots = sdx_calloc(d->graphs.past.n_in + 1, sizeof *d->slots);
    if (!d->slots) return sdx_fail_memory(err, d->graphs.past.n_in * sizeof *d->slots);
    for (size_t i = 0; i < d->graphs.past.n_in; i++) {
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
    sdx_status status = sdx_stages_open(path, run, &d->graphs, err);
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
    sdx_stages_close(&d->graphs);
    for (size_t i = 0; i < d->n_slots; i++) free(d->slots[i].value.data);
    free(d->slots);
    free(d->states.value.data);
    free(d->numbers);
    free(d->logits);
    free(d);
}

bool sdx_decoder_has_encoder(const sdx_decoder *d)
{
    return d->graphs.encoder.program != NULL;
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
static void take_present(sdx_decoder *d, const sdx_stage *s, bool began)
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
    if (strcmp(port->name, "encoder_hidden_states") || !d->graphs.encoder.program)
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "the graph has an input \"%s\", which no text gives",
                        port->name);
    TRY(slot_repeat(&d->states, c->rows, err));
    *in = d->states.value;
    return SDX_OK;
}

/* Runs a graph; its outputs are in s->out. */
static sdx_status run_stage(sdx_decoder *d, sdx_stage *s, const call *c, sdx_error *err)
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
    if (!d->graphs.encoder.program) return SDX_OK;
    d->source = n;
    TRY(run_stage(d, &d->graphs.encoder, &(call){ids, 1, n, 0, n}, err));
    d->states.name = "last_hidden_state";
    d->states.fresh = d->graphs.encoder.out[d->graphs.encoder.result];
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
    sdx_stage *s =
        d->graphs.past.program && (!began || !d->graphs.first.program) ? &d->graphs.past : &d->graphs.first;
    if (s == &d->graphs.past) TRY(settle(d, parent, rows, err));
    TRY(run_stage(d, s, &(call){ids, rows, stride, d->graphs.past.program ? d->cached : 0, length}, err));
    take_present(d, s, began);
    if (d->graphs.past.program) d->cached = length;
    *logits = NULL;
    TRY(copy_logits(d, &s->out[s->result], rows, vocab, err));
    *logits = d->logits;
    return SDX_OK;
}
