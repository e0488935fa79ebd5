/* transcribe.c: speech to text with a CTC model (Graves et al. 2006): the samples, normalized as
 * preprocessor_config.json says, give scores of the tokens for each frame, and those a path of tokens (ctc.c).
 *
 * A long sound runs in windows that overlap. Of each, the scores of a stride on both sides are dropped, where the model
 * lacked context, and what is left joins to the scores of the whole, as transformers' pipeline has it. The sound is
 * normalized before, as a whole: a quiet window stays quiet.
 *
 *     |---------- chunk ----------|
 *     |stride|   kept   |  stride |
 *                |stride|   kept   |  stride |
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../base/json.h"
#include "../base/memory.h"
#include "audio.h"
#include "ctc.h"
#include "text_model.h"

struct sdx_transcriber {
    sdx_text_model model;
    int logits; /* the output that is read */
    int rate;   /* Hz that the model hears */
    bool normalize;
    size_t per_frame;  /* samples a frame of scores */
    int64_t delimiter; /* the token between words, or -1 */
};

static sdx_status read_preprocessor(sdx_transcriber *t, sdx_error *err)
{
    json_t *config;
    TRY(sdx_json_read_in(t->model.folder, "preprocessor_config.json", JSON_OBJECT, 0, &config, err));
    const json_t *rate = json_object_get(config, "sampling_rate");
    t->rate = json_is_integer(rate) ? (int)json_integer_value(rate) : 16000;
    t->normalize = !json_is_false(json_object_get(config, "do_normalize"));
    json_decref(config);
    if (t->rate >= 1000 && t->rate <= 192000) return SDX_OK;
    return sdx_fail(err, SDX_ERR_FILE, "%s/preprocessor_config.json: sampling_rate %d makes no sense",
                    t->model.folder, t->rate);
}

static void add_stride(sdx_transcriber *t, int64_t stride)
{
    if (stride > 0 && stride < 1 << 10 && t->per_frame < 1 << 20) t->per_frame *= (size_t)stride;
}

/* wav2vec 2.0's adapter leaves fewer frames. */
static sdx_status add_adapter(sdx_transcriber *t, const json_t *config, sdx_error *err)
{
    int64_t layers, stride;
    TRY(sdx_json_integer(config, "num_adapter_layers", 3, &layers, err));
    TRY(sdx_json_integer(config, "adapter_stride", 2, &stride, err));
    for (int64_t i = 0; i < layers && i < 64; i++) add_stride(t, stride);
    return SDX_OK;
}

/* The product of the strides of all convolutions: inputs_to_logits_ratio, and the adapter's. */
static sdx_status read_strides(sdx_transcriber *t, sdx_error *err)
{
    json_t *config;
    sdx_status status = SDX_OK;
    TRY(sdx_json_read_in(t->model.folder, "config.json", JSON_OBJECT, 0, &config, err));
    const json_t *strides = json_object_get(config, "conv_stride");
    t->per_frame = json_array_size(strides) ? 1 : 320; /* wav2vec 2.0's */
    for (size_t i = 0; i < json_array_size(strides); i++)
        add_stride(t, json_integer_value(json_array_get(strides, i)));
    if (json_is_true(json_object_get(config, "add_adapter"))) status = add_adapter(t, config, err);
    json_decref(config);
    return status;
}

static sdx_status find_delimiter(sdx_transcriber *t, sdx_error *err)
{
    json_t *config;
    TRY(sdx_json_read_in(t->model.folder, "tokenizer_config.json", JSON_OBJECT, 0, &config, err));
    const char *name = json_string_value(json_object_get(config, "word_delimiter_token"));
    t->delimiter = -1;
    for (size_t i = 0; i < sdx_tokenizer_vocab_size(t->model.tokenizer); i++) {
        const char *token = sdx_tokenizer_token(t->model.tokenizer, (int64_t)i);
        if (token && !strcmp(token, name ? name : "|")) t->delimiter = (int64_t)i;
    }
    json_decref(config);
    return SDX_OK;
}

sdx_status sdx_transcriber_open(const sdx_task_options *options, sdx_transcriber **out, sdx_error *err)
{
    sdx_transcriber *t = sdx_calloc(1, sizeof *t);
    if (!t) return sdx_fail_memory(err, sizeof *t);
    sdx_status status;
    TRY_GOTO(sdx_text_model_open(options, &t->model, err));
    TRY_GOTO(read_preprocessor(t, err));
    TRY_GOTO(read_strides(t, err));
    TRY_GOTO(find_delimiter(t, err));
    t->logits = sdx_text_model_output(&t->model, "logits");
    if (t->logits < 0)
        status = sdx_fail(err, SDX_ERR_UNSUPPORTED, "%s: has no output \"logits\"", options->model);
done:
    if (status != SDX_OK)
        sdx_transcriber_free(t);
    else
        *out = t;
    return status;
}

void sdx_transcriber_free(sdx_transcriber *t)
{
    if (!t) return;
    sdx_text_model_close(&t->model);
    free(t);
}

/* Mean 0 and variance 1, as Wav2Vec2FeatureExtractor has it. */
static void normalize(float *x, size_t n)
{
    double sum = 0, square = 0;
    for (size_t i = 0; i < n; i++) sum += x[i];
    double mean = sum / (double)n;
    for (size_t i = 0; i < n; i++) square += (x[i] - mean) * (x[i] - mean);
    double scale = 1 / sqrt(square / (double)n + 1e-7);
    for (size_t i = 0; i < n; i++) x[i] = (float)((x[i] - mean) * scale);
}

/* ---- scores ---------------------------------------------------------------------------------------------- */

typedef struct scores { /* of all frames so far */
    float *logit;       /* [frames, tokens]; owned */
    size_t frames, tokens;
} scores;

/* Frames [from, to) of a window, as far as they are there. logits: [1, frames, tokens] */
static sdx_status add_scores(scores *s, const sdx_tensor *logits, size_t from, size_t to, sdx_error *err)
{
    if (logits->rank != 3 || logits->dim[0] != 1 || logits->dim[2] < 1 || logits->dtype != SDX_F32 ||
        (s->tokens && logits->dim[2] != (int64_t)s->tokens))
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "logits are not float32[1, frames, tokens]: this is no CTC model");
    size_t frames = (size_t)logits->dim[1];
    s->tokens = (size_t)logits->dim[2];
    if (to > frames) to = frames;
    if (from >= to) return SDX_OK;
    size_t more = to - from;
    float *bigger = sdx_realloc(s->logit, (s->frames + more) * s->tokens * sizeof *bigger);
    if (!bigger) return sdx_fail_memory(err, (s->frames + more) * s->tokens * sizeof *bigger);
    s->logit = bigger;
    memcpy(s->logit + s->frames * s->tokens, (const float *)logits->data + from * s->tokens,
           more * s->tokens * sizeof *bigger);
    s->frames += more;
    return SDX_OK;
}

/* values: [n], as the model takes them; frames [from, to) of its scores are kept. */
static sdx_status run_window(sdx_transcriber *t, float *values, size_t n, size_t from, size_t to, scores *s,
                             sdx_error *err)
{
    const sdx_model *model = sdx_program_model(t->model.program);
    const char *names[] = {"input_values", "attention_mask"};
    sdx_tensor in[2] = {{SDX_F32, 2, {1, (int64_t)n}, values}}, out[64];
    size_t inputs = sdx_model_input_count(model), outputs = (size_t)t->logits + 1;
    int64_t *mask = NULL;
    if (inputs > 2)
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "the model has %zu inputs; a CTC model has one or two", inputs);
    if (inputs == 2) {
        mask = sdx_malloc(n * sizeof *mask);
        if (!mask) return sdx_fail_memory(err, n * sizeof *mask);
        for (size_t i = 0; i < n; i++) mask[i] = 1;
        in[1] = (sdx_tensor){SDX_I64, 2, {1, (int64_t)n}, mask};
    }
    sdx_status status = sdx_session_run(t->model.session, inputs, names, in, outputs, out, err);
    if (status == SDX_OK) status = add_scores(s, &out[t->logits], from, to, err);
    else sdx_error_context(err, "a sound of %zu samples", n); /* too short for the convolutions, often */
    free(mask);
    return status;
}

/* Windows begin at frames, so frame k of the window at frame w is frame w + k of the whole. */
static sdx_status run_values(sdx_transcriber *t, const sdx_transcribe_options *o, float *values, size_t n, scores *s,
                             sdx_error *err)
{
    double asked = o->chunk_seconds == 0 ? 30 : o->chunk_seconds, frame = (double)t->per_frame / t->rate;
    double side = o->stride_seconds > 0 ? o->stride_seconds : asked / 6;
    if (asked < 0 || (double)n <= asked * t->rate) return run_window(t, values, n, 0, SIZE_MAX, s, err);
    if (!(side >= frame && 2 * side + 2 * frame <= asked))
        return sdx_fail(err, SDX_ERR_USAGE, "windows of %g s with strides of %g s keep nothing, or have no context",
                        asked, side);
    size_t stride = (size_t)(side / frame + 0.5), chunk = (size_t)(asked / frame + 0.5);
    for (size_t at = 0;; at += (chunk - 2 * stride) * t->per_frame) {
        size_t length = n - at < chunk * t->per_frame ? n - at : chunk * t->per_frame;
        bool last = at + length == n;
        TRY(run_window(t, values + at, length, at ? stride : 0, last ? SIZE_MAX : chunk - stride, s, err));
        if (last) return SDX_OK;
    }
}

/* ---- what was said --------------------------------------------------------------------------------------- */

/* The text of tokens [from, to). The tokenizer takes a run of a token once, so blanks go between. */
static sdx_status text_of(const sdx_transcriber *t, const sdx_ctc_path *path, size_t from, size_t to, char **text,
                          size_t *length, sdx_error *err)
{
    size_t n = 2 * (to - from);
    int64_t *ids = sdx_malloc((n + 1) * sizeof *ids);
    if (!ids) return sdx_fail_memory(err, n * sizeof *ids);
    for (size_t i = from; i < to; i++) {
        ids[2 * (i - from)] = path->id[i];
        ids[2 * (i - from) + 1] = t->model.pad_id;
    }
    sdx_status status = sdx_tokenizer_decode(t->model.tokenizer, ids, n, false, text, length, err);
    free(ids);
    return status;
}

static sdx_status add_timed(const sdx_transcriber *t, const sdx_ctc_path *path, size_t from, size_t to,
                            sdx_timed_text *out, sdx_error *err)
{
    double frame = (double)t->per_frame / t->rate;
    out->start = (double)path->begin[from] * frame;
    out->end = (double)path->end[to - 1] * frame;
    if (to - from > 1 || path->id[from] != t->delimiter) return text_of(t, path, from, to, &out->text, NULL, err);
    out->text = sdx_strdup(" ");
    return out->text ? SDX_OK : sdx_fail_memory(err, 2);
}

static sdx_status time_tokens(const sdx_transcriber *t, const sdx_ctc_path *path, sdx_transcript *out, sdx_error *err)
{
    out->word = sdx_calloc(path->count + 1, sizeof *out->word);
    out->character = sdx_calloc(path->count + 1, sizeof *out->character);
    if (!out->word || !out->character) return sdx_fail_memory(err, path->count * sizeof *out->word);
    for (size_t i = 0; i < path->count; i++) TRY(add_timed(t, path, i, i + 1, &out->character[out->characters++], err));
    for (size_t from = 0, to; from < path->count; from = to + 1) {
        for (to = from; to < path->count && path->id[to] != t->delimiter; to++) {}
        if (to > from) TRY(add_timed(t, path, from, to, &out->word[out->words++], err));
    }
    return SDX_OK;
}

static sdx_status decode(const sdx_transcriber *t, const sdx_transcribe_options *o, const scores *s,
                         sdx_transcript *out, sdx_error *err)
{
    sdx_ctc_path path = {0};
    if (o->num_beams > 1) TRY(sdx_ctc_beam(s->logit, s->frames, s->tokens, t->model.pad_id, o->num_beams, &path, err));
    else TRY(sdx_ctc_greedy(s->logit, s->frames, s->tokens, t->model.pad_id, &path, err));
    sdx_status status = text_of(t, &path, 0, path.count, &out->text, &out->length, err);
    if (status == SDX_OK) status = time_tokens(t, &path, out, err);
    sdx_ctc_path_free(&path);
    return status;
}

void sdx_transcript_free(sdx_transcript *t)
{
    for (size_t i = 0; i < t->words; i++) free(t->word[i].text);
    for (size_t i = 0; i < t->characters; i++) free(t->character[i].text);
    free(t->word);
    free(t->character);
    free(t->text);
    *t = (sdx_transcript){0};
}

sdx_status sdx_transcriber_run(sdx_transcriber *t, const sdx_transcribe_options *options, const float *samples,
                               size_t count, int rate, sdx_transcript *out, sdx_error *err)
{
    sdx_transcribe_options o = options ? *options : (sdx_transcribe_options){0};
    sdx_transcript transcript = {0};
    scores s = {0};
    float *values = NULL;
    size_t n = count;
    sdx_status status;
    if (!count) return sdx_fail(err, SDX_ERR_USAGE, "the sound has no samples");
    if (rate && (rate < SDX_AUDIO_MIN_RATE || rate > SDX_AUDIO_MAX_RATE))
        return sdx_fail(err, SDX_ERR_USAGE, "a rate of %d Hz makes no sense", rate);
    if (rate && rate != t->rate) {
        TRY(sdx_audio_resample(samples, count, rate, t->rate, &values, &n, err));
    } else {
        values = sdx_malloc(n * sizeof *values);
        if (!values) return sdx_fail_memory(err, n * sizeof *values);
        memcpy(values, samples, n * sizeof *values);
    }
    if (rate && t->normalize) normalize(values, n);
    TRY_GOTO(run_values(t, &o, values, n, &s, err));
    TRY_GOTO(decode(t, &o, &s, &transcript, err));
done:
    free(values);
    free(s.logit);
    if (status == SDX_OK) *out = transcript;
    else sdx_transcript_free(&transcript);
    return status;
}
