/* transcribe.c: speech to text with a CTC model (Graves et al. 2006): the samples, normalized as
 * preprocessor_config.json says, give scores of the tokens for each frame; the best of each frame, runs and
 * blanks collapsed by the tokenizer, is the text. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../base/json.h"
#include "../base/memory.h"
#include "audio.h"
#include "text_model.h"

struct sdx_transcriber {
    sdx_text_model model;
    int logits; /* the output that is read */
    int rate;   /* Hz that the model hears */
    bool normalize;
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

sdx_status sdx_transcriber_open(const sdx_task_options *options, sdx_transcriber **out, sdx_error *err)
{
    sdx_transcriber *t = sdx_calloc(1, sizeof *t);
    if (!t) return sdx_fail_memory(err, sizeof *t);
    sdx_status status;
    TRY_GOTO(sdx_text_model_open(options, &t->model, err));
    TRY_GOTO(read_preprocessor(t, err));
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

/* logits: [1, frames, tokens] */
static sdx_status decode(const sdx_transcriber *t, const sdx_tensor *logits, char **text, size_t *length,
                         sdx_error *err)
{
    if (logits->rank != 3 || logits->dim[0] != 1 || logits->dim[2] < 1 || logits->dtype != SDX_F32)
        return sdx_fail(err, SDX_ERR_UNSUPPORTED,
                        "logits are not float32[1, frames, tokens]: this is no CTC model");
    size_t frames = (size_t)logits->dim[1], tokens = (size_t)logits->dim[2];
    int64_t *ids = sdx_malloc(frames * sizeof *ids);
    if (!ids) return sdx_fail_memory(err, frames * sizeof *ids);
    for (size_t f = 0; f < frames; f++) {
        const float *x = (const float *)logits->data + f * tokens;
        ids[f] = 0;
        for (size_t k = 1; k < tokens; k++)
            if (x[k] > x[ids[f]]) ids[f] = (int64_t)k;
    }
    sdx_status status = sdx_tokenizer_decode(t->model.tokenizer, ids, frames, false, text, length, err);
    free(ids);
    return status;
}

/* values: [n], as the model takes them. */
static sdx_status run_values(sdx_transcriber *t, float *values, size_t n, char **text, size_t *length,
                             sdx_error *err)
{
    const sdx_model *model = sdx_program_model(t->model.program);
    const char *names[] = {"input_values", "attention_mask"};
    sdx_tensor in[2] = {{SDX_F32, 2, {1, (int64_t)n}, values}}, out[64];
    size_t inputs = sdx_model_input_count(model), outputs = (size_t)t->logits + 1;
    int64_t *mask = NULL;
    if (inputs > 2)
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "the model has %zu inputs; a CTC model has one or two",
                        inputs);
    if (inputs == 2) {
        mask = sdx_malloc(n * sizeof *mask);
        if (!mask) return sdx_fail_memory(err, n * sizeof *mask);
        for (size_t i = 0; i < n; i++) mask[i] = 1;
        in[1] = (sdx_tensor){SDX_I64, 2, {1, (int64_t)n}, mask};
    }
    sdx_status status = sdx_session_run(t->model.session, inputs, names, in, outputs, out, err);
    if (status == SDX_OK)
        status = decode(t, &out[t->logits], text, length, err);
    else
        sdx_error_context(err, "a sound of %zu samples", n); /* too short for the convolutions, often */
    free(mask);
    return status;
}

sdx_status sdx_transcriber_run(sdx_transcriber *t, const float *samples, size_t count, int rate, char **text,
                               size_t *length, sdx_error *err)
{
    float *values = NULL;
    size_t n = count;
    if (!count) return sdx_fail(err, SDX_ERR_USAGE, "the sound has no samples");
    if (rate < 0) return sdx_fail(err, SDX_ERR_USAGE, "a rate of %d Hz makes no sense", rate);
    if (rate && rate != t->rate) {
        TRY(sdx_audio_resample(samples, count, rate, t->rate, &values, &n, err));
    } else {
        values = sdx_malloc(n * sizeof *values);
        if (!values) return sdx_fail_memory(err, n * sizeof *values);
        memcpy(values, samples, n * sizeof *values);
    }
    if (rate && t->normalize) normalize(values, n);
    sdx_status status = run_values(t, values, n, text, length, err);
    free(values);
    return status;
}
