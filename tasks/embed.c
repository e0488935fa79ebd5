/* embed.c: one dense vector a text: token vectors pooled and normalized as the sentence-transformers folder says
 * (modules.json, 1_Pooling/config.json). Only a text's own tokens enter its vector, in double and in order, so
 * that neighbours and padding change no bit. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../base/json.h"
#include "../base/memory.h"
#include "text_model.h"

typedef enum pooling { POOL_CLS, POOL_MEAN, POOL_MAX, POOL_MEAN_SQRT, POOL_WEIGHTED_MEAN, POOL_LAST } pooling;

static const struct {
    const char *key; /* in 1_Pooling/config.json */
    pooling mode;
} pooling_modes[] = {
    {"pooling_mode_cls_token", POOL_CLS},
    {"pooling_mode_mean_tokens", POOL_MEAN},
    {"pooling_mode_max_tokens", POOL_MAX},
    {"pooling_mode_mean_sqrt_len_tokens", POOL_MEAN_SQRT},
    {"pooling_mode_weightedmean_tokens", POOL_WEIGHTED_MEAN},
    {"pooling_mode_lasttoken", POOL_LAST},
};

struct sdx_embedder {
    sdx_text_model model;
    int output; /* the model's output [batch, tokens, dim] */
    size_t dim;
    pooling pooling;
    bool normalize;
};

/* ---- modules.json ------------------------------------------------------------------------------------------- */

static sdx_status read_pooling(sdx_embedder *e, const char *module, sdx_error *err)
{
    if (strstr(module, "..") || module[0] == '/')
        return sdx_fail(err, SDX_ERR_FILE, "%s/modules.json: path \"%.80s\" leaves the folder", e->model.folder, module);
    char name[256];
    snprintf(name, sizeof name, "%.200s%sconfig.json", module, *module ? "/" : "");
    json_t *config;
    TRY(sdx_json_read_in(e->model.folder, name, JSON_OBJECT, 0, &config, err));
    int found = 0;
    for (size_t i = 0; i < sizeof pooling_modes / sizeof *pooling_modes; i++) {
        if (!json_is_true(json_object_get(config, pooling_modes[i].key))) continue;
        e->pooling = pooling_modes[i].mode;
        found++;
    }
    json_decref(config);
    if (found == 1) return SDX_OK;
    return sdx_fail(err, SDX_ERR_UNSUPPORTED, "%s/%s: asks for %d pooling modes; exactly one is supported",
                    e->model.folder, name, found);
}

/* One entry of modules.json, by the last part of its type's name. */
static sdx_status read_module(sdx_embedder *e, const json_t *module, sdx_error *err)
{
    const char *type = json_string_value(json_object_get(module, "type"));
    const char *path = json_string_value(json_object_get(module, "path"));
    if (!type || !path) return sdx_fail(err, SDX_ERR_FILE, "%s/modules.json: a module lacks type or path", e->model.folder);
    const char *dot = strrchr(type, '.'), *kind = dot ? dot + 1 : type;
    if (!strcmp(kind, "Transformer")) return SDX_OK;
    if (!strcmp(kind, "Pooling")) return read_pooling(e, path, err);
    if (strcmp(kind, "Normalize"))
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "%s/modules.json: module type %.100s is not supported", e->model.folder, type);
    e->normalize = true;
    return SDX_OK;
}

static sdx_status read_modules(sdx_embedder *e, sdx_error *err)
{
    e->pooling = POOL_MEAN;
    json_t *modules, *sentence;
    TRY(sdx_json_read_in(e->model.folder, "modules.json", JSON_ARRAY, 0, &modules, err));
    e->normalize = modules == NULL;
    sdx_status status = SDX_OK;
    for (size_t i = 0; i < json_array_size(modules) && status == SDX_OK; i++)
        status = read_module(e, json_array_get(modules, i), err);
    json_decref(modules);
    if (status != SDX_OK) return status;
    TRY(sdx_json_read_in(e->model.folder, "sentence_bert_config.json", JSON_OBJECT, 0, &sentence, err));
    json_int_t limit = json_integer_value(json_object_get(sentence, "max_seq_length"));
    if (limit > 0) e->model.max_length = (size_t)limit;
    json_decref(sentence);
    return SDX_OK;
}

/* ---- opening ------------------------------------------------------------------------------------------------- */

static sdx_status find_output(sdx_embedder *e, const char *path, sdx_error *err)
{
    const sdx_model *model = sdx_program_model(e->model.program);
    e->output = sdx_text_model_output(&e->model, "last_hidden_state");
    if (e->output < 0) e->output = sdx_text_model_output(&e->model, "token_embeddings");
    for (size_t i = 0; i < sdx_model_output_count(model) && e->output < 0; i++)
        if (sdx_model_output(model, i).rank == 3) e->output = (int)i;
    if (e->output >= 0) return SDX_OK;
    return sdx_fail(err, SDX_ERR_UNSUPPORTED, "%s: no output of shape [batch, tokens, dim] to pool", path);
}

static sdx_status note_dim(void *context, const sdx_text_batch *batch, sdx_error *err)
{
    sdx_embedder *e = context;
    const sdx_tensor *t = &batch->output[e->output];
    if (t->rank != 3 || t->dtype != SDX_F32)
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "the output to pool is not float32 of rank 3");
    e->dim = (size_t)t->dim[2];
    return SDX_OK;
}

sdx_status sdx_embedder_open(const sdx_task_options *options, sdx_embedder **out, sdx_error *err)
{
    sdx_embedder *e = sdx_calloc(1, sizeof *e);
    if (!e) return sdx_fail_memory(err, sizeof *e);
    sdx_status status;
    sdx_text probe = {"a", 1}; /* the graph may not say how wide its output is */
    TRY_GOTO(sdx_text_model_open(options, &e->model, err));
    TRY_GOTO(read_modules(e, err));
    if (options->max_length) e->model.max_length = options->max_length;
    TRY_GOTO(find_output(e, options->model, err));
    TRY_GOTO(sdx_text_model_run(&e->model, &probe, NULL, 1, 1, note_dim, e, err));
done:
    if (status != SDX_OK) sdx_embedder_free(e);
    else *out = e;
    return status;
}

void sdx_embedder_free(sdx_embedder *e)
{
    if (!e) return;
    sdx_text_model_close(&e->model);
    free(e);
}

size_t sdx_embedder_dim(const sdx_embedder *e) { return e->dim; }

/* ---- pooling -------------------------------------------------------------------------------------------------- */

/* Sum over tokens of weight(t) * x[t][d], in double. x: [length, dim]. */
static double pooled(pooling mode, const float *x, size_t length, size_t dim, size_t d)
{
    double sum = 0, weight = 0;
    switch (mode) {
    case POOL_CLS: return x[d];
    case POOL_LAST: return x[(length - 1) * dim + d];
    case POOL_MAX:
        sum = x[d];
        for (size_t t = 1; t < length; t++) sum = fmax(sum, x[t * dim + d]);
        return sum;
    case POOL_WEIGHTED_MEAN: /* later tokens weigh more: t + 1 */
        for (size_t t = 0; t < length; t++) {
            sum += (double)(t + 1) * x[t * dim + d];
            weight += (double)(t + 1);
        }
        return sum / weight;
    default:
        for (size_t t = 0; t < length; t++) sum += x[t * dim + d];
        return sum / (mode == POOL_MEAN ? (double)length : sqrt((double)length));
    }
}

static void pool_row(const sdx_embedder *e, const float *x, size_t length, float *out)
{
    double square = 0;
    for (size_t d = 0; d < e->dim; d++) {
        double value = pooled(e->pooling, x, length, e->dim, d);
        out[d] = (float)value;
        square += value * value;
    }
    if (!e->normalize) return;
    double norm = fmax(sqrt(square), 1e-12);
    for (size_t d = 0; d < e->dim; d++) out[d] = (float)(out[d] / norm);
}

typedef struct pool_job {
    const sdx_embedder *embedder;
    float *out;
} pool_job;

static sdx_status pool_batch(void *context, const sdx_text_batch *batch, sdx_error *err)
{
    const pool_job *job = context;
    const sdx_embedder *e = job->embedder;
    const sdx_tensor *t = &batch->output[e->output];
    if (t->rank != 3 || (size_t)t->dim[0] != batch->count || (size_t)t->dim[1] != batch->width ||
        (size_t)t->dim[2] != e->dim)
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "the model's output is not [batch, tokens, %zu]", e->dim);
    for (size_t r = 0; r < batch->count; r++) {
        const float *x = (const float *)t->data + r * batch->width * e->dim;
        pool_row(e, x, batch->length[r], job->out + batch->index[r] * e->dim);
    }
    return SDX_OK;
}

sdx_status sdx_embedder_run(sdx_embedder *e, const sdx_text *texts, size_t count, float *out, sdx_error *err)
{
    pool_job job = {e, out};
    return sdx_text_model_run(&e->model, texts, NULL, count, 0, pool_batch, &job, err);
}
