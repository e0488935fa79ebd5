/* generate_decoder.c: token sequences to scores of the next token, from the graphs that optimum exports:
 *
 *   encoder_model.onnx            ids -> states [B, S, D], once for a batch of texts
 *   decoder_model.onnx            the first call: whole rows, states -> logits, present.N.{decoder,encoder}.{key,value}
 *   decoder_with_past_model.onnx  every other call: last tokens, past_key_values.* -> logits, present.N.decoder.*
 *   decoder_model_merged.onnx     both of them, by use_cache_branch, which is decided when they are opened
 *   any other .onnx file          a decoder without encoder; with past_key_values.* inputs, cached as well
 *
 * Inputs are known by their names. Without a graph that takes a past, every call runs whole rows.
 *
 * Keys and values of the tokens so far stay in the session that reads them (sdx_session_keep), which appends to them
 * in place; they are moved only when rows change their order. What belongs to a text, the encoder's states and the keys
 * and values of cross-attention, is computed once and held here; it is moved only when rows change their text.
 *
 * Texts of one batch differ in length. Behind an encoder they are padded on the right, and its mask hides that. A
 * decoder's own prompts are padded on the left, so that all rows go on at one place; its mask and positions hide it. */
#include "generate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/memory.h"
#include "generate_graphs.h"

#define PAST    SDX_PAST
#define PRESENT "present."

/* One past_key_values.* input. */
typedef struct slot {
    const char *name; /* after "past_key_values."; the model's */
    bool cross;       /* of the text: held here; else kept by the session */
} slot;

/* What each row has of its text: [rows, ...]. */
typedef struct share {
    sdx_tensor value; /* data owned */
    size_t room;      /* bytes */
} share;

struct sdx_decoder {
    sdx_stages graphs;
    slot *slots;   /* [n_slots]: inputs of graphs.past */
    share *shares; /* [n_slots + 1]: of the cross slots; the last one are the encoder's states */
    size_t n_slots;
    size_t texts, source; /* texts of the batch; tokens of the longest that the encoder read */
    size_t *lengths;      /* [texts]; owned, as is text */
    size_t *text;         /* [rows]: of each row of the last call */
    size_t rows, rows_room, texts_room;
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

static bool has_input(const sdx_stage *s, const char *name)
{
    const sdx_model *m = sdx_program_model(s->program);
    for (size_t i = 0; i < s->n_in; i++)
        if (!strcmp(sdx_model_input(m, i).name, name)) return true;
    return false;
}

/* The first graph gives every slot its first value, the other all but cross-attention's each time. */
static sdx_status connect_slot(sdx_decoder *d, slot *s, sdx_error *err)
{
    const sdx_stage *past = &d->graphs.past, *first = d->graphs.first.program ? &d->graphs.first : past;
    char input[256], output[256];
    snprintf(input, sizeof input, PAST "%s", s->name);
    snprintf(output, sizeof output, PRESENT "%s", s->name);
    s->cross = strstr(s->name, "encoder.") != NULL;
    if (sdx_stage_output(first, output) < 0 || (!s->cross && sdx_stage_output(past, output) < 0))
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "no decoder has an output \"%s\" for its input %s", output, input);
    return s->cross ? SDX_OK : sdx_session_keep(past->session, input, output, err);
}

/* A slot for each past input; without them a graph for later calls would be of no use. */
static sdx_status make_slots(sdx_decoder *d, sdx_error *err)
{
    d->slots = sdx_calloc(d->graphs.past.n_in + 1, sizeof *d->slots);
    d->shares = sdx_calloc(d->graphs.past.n_in + 1, sizeof *d->shares);
    if (!d->slots || !d->shares) return sdx_fail_memory(err, d->graphs.past.n_in * sizeof *d->slots);
    if (!d->graphs.past.program) return SDX_OK;
    const sdx_model *m = sdx_program_model(d->graphs.past.program);
    for (size_t i = 0; i < d->graphs.past.n_in; i++) {
        sdx_port port = sdx_model_input(m, i);
        if (!begins(port.name, PAST)) continue;
        slot *s = &d->slots[d->n_slots++];
        s->name = port.name + strlen(PAST);
        TRY(connect_slot(d, s, err));
    }
    if (d->n_slots) return SDX_OK;
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
    for (size_t i = 0; d->shares && i <= d->n_slots; i++) free(d->shares[i].value.data);
    free(d->slots);
    free(d->shares);
    free(d->lengths);
    free(d->text);
    free(d->numbers);
    free(d->logits);
    free(d);
}

bool sdx_decoder_has_encoder(const sdx_decoder *d)
{
    return d->graphs.encoder.program != NULL;
}

bool sdx_decoder_takes_padding(const sdx_decoder *d)
{
    const sdx_stage *s = d->graphs.encoder.program ? &d->graphs.encoder
                         : d->graphs.past.program  ? &d->graphs.past
                                                   : &d->graphs.first;
    return has_input(s, "attention_mask") && (d->graphs.encoder.program || has_input(s, "position_ids"));
}

/* ---- what rows have of their text ------------------------------------------------------------------------ */

/* Row r of the share becomes row from[r] of t, which may be the share's own value. */
static sdx_status share_set(share *s, const sdx_tensor *t, const size_t *from, size_t rows, sdx_error *err)
{
    size_t row = t->dim[0] > 0 ? sdx_tensor_bytes(t) / (size_t)t->dim[0] : 0, bytes = rows * row + 1;
    bool fits = bytes <= s->room && t->data != s->value.data;
    char *data = fits ? s->value.data : sdx_malloc_aligned(bytes);
    if (!data) return sdx_fail_memory(err, bytes);
    for (size_t r = 0; r < rows; r++) memcpy(data + r * row, (char *)t->data + from[r] * row, row);
    sdx_tensor value = *t;
    value.data = data;
    value.dim[0] = (int64_t)rows;
    if (!fits) {
        free(s->value.data);
        s->room = bytes;
    }
    s->value = value;
    return SDX_OK;
}

static share *states_of(sdx_decoder *d)
{
    return &d->shares[d->n_slots];
}

/* ---- feeding --------------------------------------------------------------------------------------------- */

/* Tokens from skip to length of rows of ids; row r begins with pad[text[r]] tokens that do not count. */
typedef struct call {
    const int64_t *ids;
    size_t rows, stride, skip, length;
    const size_t *text; /* [rows] */
    bool encoder;
} call;

typedef enum filling { FILL_IDS, FILL_SOURCE_MASK, FILL_MASK, FILL_POSITIONS } filling;

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
};

/* Tokens in front of a row that do not count. */
static size_t pad_of(const sdx_decoder *d, size_t text)
{
    return d->graphs.encoder.program ? 0 : d->source - d->lengths[text];
}

static int64_t number_at(const sdx_decoder *d, filling what, const call *c, size_t row, size_t t)
{
    size_t text = c->text[row], pad = pad_of(d, text);
    switch (what) {
    case FILL_IDS: return c->ids[row * c->stride + c->skip + t];
    case FILL_SOURCE_MASK: return t < d->lengths[text];
    case FILL_MASK: return c->encoder ? t < d->lengths[text] : t >= pad;
    default: return c->skip + t < pad ? 0 : (int64_t)(c->skip + t - pad);
    }
}

/* The numbers of one input into data, which has room for them. */
static sdx_tensor fill(const sdx_decoder *d, filling what, const call *c, sdx_dtype dtype, int64_t *data)
{
    size_t width = c->length - c->skip;
    if (what == FILL_SOURCE_MASK) width = d->source;
    if (what == FILL_MASK) width = c->length;
    for (size_t r = 0; r < c->rows; r++)
        for (size_t t = 0; t < width; t++) data[r * width + t] = number_at(d, what, c, r, t);
    if (dtype == SDX_I32) sdx_task_narrow(data, c->rows * width);
    return (sdx_tensor){dtype, 2, {(int64_t)c->rows, (int64_t)width}, data};
}

/* One input; *given false: the session has it. */
static sdx_status feed(sdx_decoder *d, const sdx_port *port, const call *c, int64_t *data, sdx_tensor *in, bool *given,
                       sdx_error *err)
{
    *given = true;
    for (size_t i = 0; i < sizeof fillings / sizeof *fillings; i++) {
        if (strcmp(port->name, fillings[i].name)) continue;
        *in = fill(d, fillings[i].what, c, port->dtype, data);
        return SDX_OK;
    }
    for (size_t k = 0; k < d->n_slots && begins(port->name, PAST); k++) {
        if (strcmp(d->slots[k].name, port->name + strlen(PAST))) continue;
        *given = d->slots[k].cross;
        *in = d->shares[k].value;
        return SDX_OK;
    }
    *in = states_of(d)->value;
    if (!strcmp(port->name, "encoder_hidden_states") && d->graphs.encoder.program) return SDX_OK;
    return sdx_fail(err, SDX_ERR_UNSUPPORTED, "the graph has an input \"%s\", which no text gives", port->name);
}

static sdx_status reserve_numbers(sdx_decoder *d, size_t n, sdx_error *err)
{
    if (n <= d->numbers_room) return SDX_OK;
    free(d->numbers);
    d->numbers_room = 0;
    d->numbers = sdx_malloc(2 * n * sizeof *d->numbers);
    if (!d->numbers) return sdx_fail_memory(err, 2 * n * sizeof *d->numbers);
    d->numbers_room = 2 * n;
    return SDX_OK;
}

/* Runs a graph; its outputs are in s->out. */
static sdx_status run_stage(sdx_decoder *d, sdx_stage *s, const call *c, sdx_error *err)
{
    const sdx_model *m = sdx_program_model(s->program);
    size_t cells = c->rows * (c->length > d->source ? c->length : d->source) + 1, n = 0;
    TRY(reserve_numbers(d, s->n_in * cells, err));
    for (size_t i = 0; i < s->n_in; i++) {
        sdx_port port = sdx_model_input(m, i);
        bool given;
        TRY(feed(d, &port, c, d->numbers + i * cells, &s->in[n], &given, err));
        s->name[n] = port.name;
        n += given;
    }
    return sdx_session_run(s->session, n, s->name, s->in, s->n_out, s->out, err);
}

/* ---- texts ----------------------------------------------------------------------------------------------- */

static sdx_status reserve(size_t **list, size_t *room, size_t n, sdx_error *err)
{
    if (n <= *room) return SDX_OK;
    size_t *grown = sdx_realloc(*list, n * sizeof **list);
    if (!grown) return sdx_fail_memory(err, n * sizeof **list);
    *list = grown;
    *room = n;
    return SDX_OK;
}

sdx_status sdx_decoder_begin(sdx_decoder *d, const int64_t *ids, size_t stride, const size_t *lengths, size_t texts,
                             sdx_error *err)
{
    d->cached = d->source = 0;
    TRY(reserve(&d->lengths, &d->texts_room, texts, err));
    TRY(reserve(&d->text, &d->rows_room, texts, err));
    for (size_t i = 0; i < texts; i++) {
        d->text[i] = i;
        d->lengths[i] = lengths[i];
        if (lengths[i] > d->source) d->source = lengths[i];
    }
    d->texts = d->rows = texts;
    if (!d->graphs.encoder.program) return SDX_OK;
    TRY(run_stage(d, &d->graphs.encoder, &(call){ids, texts, stride, 0, d->source, d->text, true}, err));
    const sdx_tensor *states = &d->graphs.encoder.out[d->graphs.encoder.result];
    if (states->rank != 3 || states->dim[0] != (int64_t)texts)
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "the encoder's last_hidden_state is not [batch, tokens, size]");
    return share_set(states_of(d), states, d->text, texts, err);
}

/* ---- the calls ------------------------------------------------------------------------------------------- */

/* Before anything is cached, a graph that takes a past gets one of no tokens. */
static sdx_status begin_empty(sdx_decoder *d, size_t rows, sdx_error *err)
{
    const sdx_model *m = sdx_program_model(d->graphs.past.program);
    for (size_t k = 0; k < d->n_slots; k++) {
        char name[256];
        snprintf(name, sizeof name, PAST "%s", d->slots[k].name);
        size_t i = 0;
        while (strcmp(sdx_model_input(m, i).name, name)) i++;
        sdx_port port = sdx_model_input(m, i);
        if (port.rank != 4 || port.dim[1] < 0 || port.dim[3] < 0)
            return sdx_fail(err, SDX_ERR_UNSUPPORTED, "input \"%s\" does not say its heads and their size", name);
        sdx_tensor empty = {port.dtype, 4, {(int64_t)rows, port.dim[1], 0, port.dim[3]}, NULL};
        TRY(d->slots[k].cross ? share_set(&d->shares[k], &empty, d->text, rows, err)
                              : sdx_session_set_kept(d->graphs.past.session, name, &empty, err));
    }
    return SDX_OK;
}

/* After the first call: what the graph gave under present.* is where later calls begin. */
static sdx_status take_presents(sdx_decoder *d, const sdx_stage *s, sdx_error *err)
{
    for (size_t k = 0; k < d->n_slots; k++) {
        char name[256];
        snprintf(name, sizeof name, PRESENT "%s", d->slots[k].name);
        const sdx_tensor *t = &s->out[sdx_stage_output(s, name)];
        if (t->dtype == SDX_UNDEFINED) continue; /* the session kept it */
        if (t->rank != 4 || t->dim[0] != (int64_t)d->rows)
            return sdx_fail(err, SDX_ERR_UNSUPPORTED, "\"%s\" is not [%zu, heads, tokens, size]", name, d->rows);
        size_t *same = d->text; /* a first call has a row for each text */
        snprintf(name, sizeof name, PAST "%s", d->slots[k].name);
        TRY(d->slots[k].cross ? share_set(&d->shares[k], t, same, d->rows, err)
                              : sdx_session_set_kept(d->graphs.past.session, name, t, err));
    }
    return SDX_OK;
}

/* Rows move: what is kept goes with them, what is of their text only if that changes. */
static sdx_status move_rows(sdx_decoder *d, const size_t *parent, size_t rows, sdx_error *err)
{
    bool same = rows == d->rows, same_texts = same;
    TRY(reserve(&d->text, &d->rows_room, 2 * (rows > d->rows ? rows : d->rows), err));
    size_t *text = d->text + d->rows_room / 2;
    for (size_t r = 0; r < rows; r++) {
        if (parent[r] >= d->rows) return sdx_fail(err, SDX_ERR_INTERNAL, "row %zu of %zu", parent[r], d->rows);
        text[r] = d->text[parent[r]];
        same = same && parent[r] == r;
        same_texts = same_texts && text[r] == d->text[r];
    }
    if (!same && d->cached) TRY(sdx_session_reorder_kept(d->graphs.past.session, parent, rows, err));
    for (size_t k = 0; k <= d->n_slots && !same_texts; k++)
        if (d->shares[k].value.data) TRY(share_set(&d->shares[k], &d->shares[k].value, parent, rows, err));
    memcpy(d->text, text, rows * sizeof *text);
    d->rows = rows;
    return SDX_OK;
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

sdx_status sdx_decoder_step(sdx_decoder *d, const int64_t *ids, size_t stride, size_t length,
                            const size_t *parent, size_t rows, float **logits, size_t *vocab, sdx_error *err)
{
    bool began = d->cached == 0, has_past = d->graphs.past.program != NULL;
    sdx_stage *s = has_past && (!began || !d->graphs.first.program) ? &d->graphs.past : &d->graphs.first;
    TRY(move_rows(d, parent, rows, err));
    if (began && s == &d->graphs.past) TRY(begin_empty(d, rows, err));
    TRY(run_stage(d, s, &(call){ids, rows, stride, d->cached, length, d->text, false}, err));
    if (began && has_past) TRY(take_presents(d, s, err));
    if (has_past) d->cached = length;
    *logits = NULL;
    TRY(copy_logits(d, &s->out[s->result], rows, vocab, err));
    *logits = d->logits;
    return SDX_OK;
}
