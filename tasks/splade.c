/* splade.c: one sparse vector over the vocabulary a text (Formal et al., SPLADE v2, arXiv 2109.10086):
 * weight[v] = max over tokens of log(1 + relu(logit[token, v])). A graph that ends in output_idx and output_weights
 * has done this itself; from a masked-LM graph it is done here. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../base/memory.h"
#include "text_model.h"

/* The texts of one run: vector i is entries [begin[i], begin[i] + length[i]). */
struct sdx_sparse_encoder {
    sdx_text_model model;
    int idx, weights; /* outputs of a SPLADE graph, or -1 */
    int logits;       /* output of a masked-LM graph, or -1 */
    int64_t *index;   /* [used]; owned, as weight, begin, length and row */
    float *weight;
    size_t used, room;
    size_t *begin, *length;
    float *row; /* [vocabulary] for the logits form */
    size_t row_room;
    sdx_encoding frame; /* of the empty text: what the tokenizer puts around every text */
};

sdx_status sdx_sparse_encoder_open(const sdx_task_options *options, sdx_sparse_encoder **out, sdx_error *err)
{
    sdx_sparse_encoder *e = sdx_calloc(1, sizeof *e);
    if (!e) return sdx_fail_memory(err, sizeof *e);
    sdx_status status;
    TRY_GOTO(sdx_text_model_open(options, &e->model, err));
    TRY_GOTO(sdx_tokenizer_encode(e->model.tokenizer, "", 0, NULL, 0, 0, &e->frame, err));
    e->idx = sdx_text_model_output(&e->model, "output_idx");
    e->weights = sdx_text_model_output(&e->model, "output_weights");
    e->logits = sdx_text_model_output(&e->model, "logits");
    if ((e->idx < 0 || e->weights < 0) && e->logits < 0)
        status = sdx_fail(err, SDX_ERR_UNSUPPORTED,
                          "%s: has neither outputs output_idx and output_weights (convert --splade) nor logits",
                          options->model);
done:
    if (status != SDX_OK) sdx_sparse_encoder_free(e);
    else *out = e;
    return status;
}

void sdx_sparse_encoder_free(sdx_sparse_encoder *e)
{
    if (!e) return;
    sdx_text_model_close(&e->model);
    sdx_encoding_free(&e->frame);
    free(e->index);
    free(e->weight);
    free(e->begin);
    free(e->length);
    free(e->row);
    free(e);
}

const sdx_tokenizer *sdx_sparse_encoder_tokenizer(const sdx_sparse_encoder *e) { return e->model.tokenizer; }

bool sdx_sparse_encoder_is_frame(const sdx_sparse_encoder *e, int64_t id)
{
    bool found = id == e->model.pad_id;
    for (size_t i = 0; i < e->frame.count; i++) found |= e->frame.ids[i] == id;
    return found;
}

static sdx_status reserve(sdx_sparse_encoder *e, size_t more, sdx_error *err)
{
    if (e->room - e->used >= more) return SDX_OK;
    size_t room = e->room ? e->room * 2 : 1024;
    while (room - e->used < more) room *= 2;
    int64_t *index = sdx_realloc(e->index, room * sizeof *index);
    if (index) e->index = index;
    float *weight = sdx_realloc(e->weight, room * sizeof *weight);
    if (weight) e->weight = weight;
    if (!index || !weight) return sdx_fail_memory(err, room * sizeof *index);
    e->room = room;
    return SDX_OK;
}

static void append(sdx_sparse_encoder *e, size_t text, int64_t index, float weight)
{
    e->index[e->used] = index;
    e->weight[e->used++] = weight;
    e->length[text]++;
}

static sdx_status check_sparse(const sdx_tensor *idx, const sdx_tensor *weights, const sdx_tensor *places,
                               sdx_error *err)
{
    int64_t n = sdx_tensor_count(idx);
    if (idx->dtype != SDX_I64 || weights->dtype != SDX_F32 || sdx_tensor_count(weights) != n)
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "output_idx and output_weights are not int64[n] and float32[n]");
    if (places && (places->dtype != SDX_I64 || places->rank != 2 || places->dim[0] != 2 || places->dim[1] != n))
        return sdx_fail(err, SDX_ERR_UNSUPPORTED,
                        "the weights of this SPLADE graph are not a matrix of texts and tokens");
    return SDX_OK;
}

/* The entries of a batch, row by row: index int64[n], weight float32[n], and of which row, as NonZero orders them. */
static sdx_status take_sparse(void *context, const sdx_text_batch *batch, sdx_error *err)
{
    sdx_sparse_encoder *e = context;
    const sdx_tensor *idx = &batch->output[e->idx], *weights = &batch->output[e->weights];
    const sdx_tensor *places = e->model.places >= 0 ? &batch->output[e->model.places] : NULL;
    TRY(check_sparse(idx, weights, places, err));
    size_t n = (size_t)sdx_tensor_count(idx), at = 0;
    const int64_t *index = idx->data, *row = places ? places->data : NULL;
    TRY(reserve(e, n, err));
    for (size_t r = 0; r < batch->count; r++) {
        size_t text = batch->index[r];
        e->begin[text] = e->used;
        for (; at < n && (!row || row[at] == (int64_t)r); at++)
            append(e, text, index[at], ((float *)weights->data)[at]);
    }
    if (at == n) return SDX_OK;
    return sdx_fail(err, SDX_ERR_UNSUPPORTED, "output_idx is not in the order of the texts");
}

/* Log and relu are monotone, so the maximum over tokens comes first. logits: [tokens, vocabulary] */
static sdx_status take_row(sdx_sparse_encoder *e, size_t text, const float *logits, size_t tokens, size_t vocabulary,
                           sdx_error *err)
{
    memset(e->row, 0, vocabulary * sizeof *e->row);
    for (size_t t = 0; t < tokens; t++)
        for (size_t v = 0; v < vocabulary; v++) {
            float x = logits[t * vocabulary + v];
            if (x > e->row[v]) e->row[v] = x;
        }
    TRY(reserve(e, vocabulary, err));
    e->begin[text] = e->used;
    for (size_t v = 0; v < vocabulary; v++)
        if (e->row[v] > 0) append(e, text, (int64_t)v, log1pf(e->row[v]));
    return SDX_OK;
}

static sdx_status take_logits(void *context, const sdx_text_batch *batch, sdx_error *err)
{
    sdx_sparse_encoder *e = context;
    const sdx_tensor *t = &batch->output[e->logits];
    if (t->dtype != SDX_F32 || t->rank != 3 || (size_t)t->dim[0] != batch->count || (size_t)t->dim[1] != batch->width)
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "logits are not float32[batch, tokens, vocabulary]");
    size_t vocabulary = (size_t)t->dim[2];
    if (vocabulary > e->row_room) {
        float *row = sdx_realloc(e->row, vocabulary * sizeof *row);
        if (!row) return sdx_fail_memory(err, vocabulary * sizeof *row);
        e->row = row;
        e->row_room = vocabulary;
    }
    for (size_t r = 0; r < batch->count; r++) {
        const float *logits = (const float *)t->data + r * batch->width * vocabulary;
        TRY(take_row(e, batch->index[r], logits, batch->length[r], vocabulary, err));
    }
    return SDX_OK;
}

sdx_status sdx_sparse_encoder_run(sdx_sparse_encoder *e, const sdx_text *texts, size_t count, sdx_sparse_vector *out,
                                  sdx_error *err)
{
    bool sparse = e->idx >= 0 && e->weights >= 0;
    free(e->begin);
    free(e->length);
    e->used = 0;
    e->begin = sdx_calloc(count, sizeof *e->begin);
    e->length = sdx_calloc(count, sizeof *e->length);
    if (!e->begin || !e->length) return sdx_fail_memory(err, count * sizeof *e->begin);
    size_t max_rows = sparse && e->model.places < 0 ? 1 : 0;
    TRY(sdx_text_model_run(&e->model, texts, NULL, count, max_rows, sparse ? take_sparse : take_logits, e, err));
    for (size_t i = 0; i < count; i++)
        out[i] = (sdx_sparse_vector){e->length[i], e->index + e->begin[i], e->weight + e->begin[i]};
    return SDX_OK;
}
