/* classify.c: a text's labels and scores from a graph with an output `logits` of shape [batch, labels]. Scores are
 * those of transformers' text-classification pipeline. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/json.h"
#include "../base/memory.h"
#include "text_model.h"

typedef enum scoring { SCORE_SOFTMAX, SCORE_SIGMOID, SCORE_NONE } scoring;

struct sdx_classifier {
    sdx_text_model model;
    int logits; /* the output that is read */
    size_t labels;
    char **name; /* [labels]; owned */
    scoring scoring;
};

/* ---- opening --------------------------------------------------------------------------------------------- */

static scoring choose_scoring(const json_t *config, size_t labels)
{
    const char *type = json_string_value(json_object_get(config, "problem_type"));
    if (type && !strcmp(type, "regression")) return SCORE_NONE;
    if (type && !strcmp(type, "multi_label_classification")) return SCORE_SIGMOID;
    return labels == 1 ? SCORE_SIGMOID : SCORE_SOFTMAX;
}

/* id2label maps "0", "1", ... to names; LABEL_i where it is silent, as transformers does. */
static sdx_status name_labels(sdx_classifier *c, const json_t *config, sdx_error *err)
{
    c->name = sdx_calloc(c->labels, sizeof *c->name);
    if (!c->name) return sdx_fail_memory(err, c->labels * sizeof *c->name);
    const json_t *names = json_object_get(config, "id2label");
    for (size_t i = 0; i < c->labels; i++) {
        char key[32];
        snprintf(key, sizeof key, "LABEL_%zu", i);
        const char *name = json_string_value(json_object_get(names, key + strlen("LABEL_")));
        c->name[i] = sdx_strdup(name ? name : key);
        if (!c->name[i]) return sdx_fail_memory(err, sizeof key);
    }
    return SDX_OK;
}

static sdx_status note_labels(void *context, const sdx_text_batch *batch, sdx_error *err)
{
    sdx_classifier *c = context;
    const sdx_tensor *t = &batch->output[c->logits];
    if (t->dtype != SDX_F32 || t->rank != 2 || t->dim[1] < 1)
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "logits are not float32[batch, labels]: this is no text classifier");
    c->labels = (size_t)t->dim[1];
    return SDX_OK;
}

sdx_status sdx_classifier_open(const sdx_task_options *options, sdx_classifier **out, sdx_error *err)
{
    sdx_classifier *c = sdx_calloc(1, sizeof *c);
    if (!c) return sdx_fail_memory(err, sizeof *c);
    sdx_status status;
    json_t *config = NULL;
    sdx_text probe = {"a", 1}; /* the graph need not say how many labels it has */
    TRY_GOTO(sdx_text_model_open(options, &c->model, err));
    c->logits = sdx_text_model_output(&c->model, "logits");
    if (c->logits < 0) {
        status = sdx_fail(err, SDX_ERR_UNSUPPORTED, "%s: has no output \"logits\"", options->model);
        goto done;
    }
    TRY_GOTO(sdx_text_model_run(&c->model, &probe, NULL, 1, 1, note_labels, c, err));
    TRY_GOTO(sdx_json_read_in(c->model.folder, "config.json", JSON_OBJECT, 0, &config, err));
    c->scoring = choose_scoring(config, c->labels);
    TRY_GOTO(name_labels(c, config, err));
done:
    json_decref(config);
    if (status != SDX_OK) sdx_classifier_free(c);
    else *out = c;
    return status;
}

void sdx_classifier_free(sdx_classifier *c)
{
    if (!c) return;
    sdx_text_model_close(&c->model);
    for (size_t i = 0; c->name && i < c->labels; i++) free(c->name[i]);
    free(c->name);
    free(c);
}

size_t sdx_classifier_label_count(const sdx_classifier *c) { return c->labels; }
const char *sdx_classifier_label(const sdx_classifier *c, size_t i) { return i < c->labels ? c->name[i] : NULL; }

/* ---- scoring --------------------------------------------------------------------------------------------- */

static void score_row(scoring how, size_t n, const float *x, float *y)
{
    double max = x[0], sum = 0;
    for (size_t i = 1; i < n; i++) max = fmax(max, x[i]);
    for (size_t i = 0; i < n; i++) sum += exp(x[i] - max);
    for (size_t i = 0; i < n; i++) {
        if (how == SCORE_SOFTMAX) y[i] = (float)(exp(x[i] - max) / sum);
        else y[i] = how == SCORE_SIGMOID ? (float)(1 / (1 + exp(-(double)x[i]))) : x[i];
    }
}

typedef struct score_job {
    const sdx_classifier *classifier;
    float *scores;
} score_job;

static sdx_status score_batch(void *context, const sdx_text_batch *batch, sdx_error *err)
{
    const score_job *job = context;
    const sdx_classifier *c = job->classifier;
    const sdx_tensor *t = &batch->output[c->logits];
    if (t->rank != 2 || (size_t)t->dim[0] != batch->count || (size_t)t->dim[1] != c->labels)
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "logits are not [batch, %zu]", c->labels);
    for (size_t r = 0; r < batch->count; r++)
        score_row(c->scoring, c->labels, (const float *)t->data + r * c->labels,
                  job->scores + batch->index[r] * c->labels);
    return SDX_OK;
}

sdx_status sdx_classifier_run(sdx_classifier *c, const sdx_text *texts, const sdx_text *pairs, size_t count,
                              float *scores, sdx_error *err)
{
    score_job job = {c, scores};
    return sdx_text_model_run(&c->model, texts, pairs, count, 0, score_batch, &job, err);
}
