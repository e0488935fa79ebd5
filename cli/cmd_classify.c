/* cmd_classify.c: labels and scores, one JSON line a text. */
#include <jansson.h>
#include <stdlib.h>

#include "cli.h"

static const cli_option options[] = {
    CLI_TASK_OPTIONS,
    {"pair", CLI_STRING, "TEXT", "with --text: the second text of a pair"},
    {"top_k", CLI_INT, "K", "the K best labels (default: all)"},
    {NULL, CLI_FLAG, NULL, NULL},
};

typedef struct scored {
    size_t label;
    float score;
} scored;

static int better(const void *a, const void *b)
{
    const scored *x = a, *y = b;
    if (x->score != y->score) return x->score < y->score ? 1 : -1;
    return x->label < y->label ? -1 : 1;
}

/* {"id":..,"labels":[{"label":..,"score":..}, ...]}, best first. */
static int write_labels(FILE *f, const sdx_classifier *c, const char *id, const float *scores, size_t top_k)
{
    size_t n = sdx_classifier_label_count(c);
    scored *order = malloc(n * sizeof *order);
    if (!order) return cli_out_of_memory();
    for (size_t i = 0; i < n; i++) order[i] = (scored){i, scores[i]};
    qsort(order, n, sizeof *order, better);
    json_t *line = json_object(), *list = json_array();
    json_object_set_new(line, "id", json_string(id ? id : ""));
    for (size_t i = 0; i < n && (!top_k || i < top_k); i++)
        json_array_append_new(list, json_pack("{s:s, s:f}", "label", sdx_classifier_label(c, order[i].label), "score",
                                              (double)order[i].score));
    json_object_set_new(line, "labels", list);
    char *text = json_dumps(line, JSON_COMPACT | JSON_REAL_PRECISION(9));
    json_decref(line);
    free(order);
    if (!text) return cli_out_of_memory();
    fprintf(f, "%s\n", text);
    free(text);
    return EXIT_FINE;
}

typedef struct job {
    sdx_classifier *classifier;
    size_t top_k, labels;
    float *scores; /* [CLI_WINDOW, labels]; owned */
} job;

static sdx_status classify_window(void *context, const cli_record *docs, size_t n, sdx_error *err)
{
    const job *j = context;
    sdx_text texts[CLI_WINDOW], pairs[CLI_WINDOW];
    for (size_t i = 0; i < n; i++) {
        texts[i] = (sdx_text){docs[i].text, docs[i].text_length};
        pairs[i] = (sdx_text){docs[i].pair, docs[i].pair_length};
    }
    return sdx_classifier_run(j->classifier, texts, pairs, n, j->scores, err);
}

static int write_document(void *context, const cli_record *doc, size_t i, FILE *out)
{
    const job *j = context;
    return write_labels(out, j->classifier, doc->id, j->scores + i * j->labels, j->top_k);
}

static int classify(const cli_args *args, job *j)
{
    cli_task task = {j, classify_window, write_document, cli_write_bad, NULL, NULL, true};
    j->labels = sdx_classifier_label_count(j->classifier);
    j->scores = malloc(CLI_WINDOW * j->labels * sizeof *j->scores);
    return j->scores ? cli_documents(args, &task) : cli_out_of_memory();
}

static int run(const cli_args *args)
{
    sdx_task_options o;
    char *folder = NULL;
    int code = cli_task_options(args, 0, &o, &folder);
    if (code != EXIT_FINE) return code;
    sdx_error err = {0};
    job j = {.top_k = (size_t)cli_int(args, "top_k", 0)};
    if (sdx_classifier_open(&o, &j.classifier, &err) == SDX_OK) {
        code = classify(args, &j);
        sdx_classifier_free(j.classifier);
    } else {
        code = cli_fail(&err);
    }
    free(j.scores);
    free(folder);
    return code;
}

const cli_command cli_command_classify = {
    "classify", "--model_name X | --model_path M --tokenizer T [options]",
    "give texts, or pairs of texts, the labels of config.json's id2label with their scores\n\nA pair is \"text\" and "
    "\"pair\" (or \"text_pair\") of a JSON line, or id<TAB>text<TAB>text. Scores follow problem_type: softmax, a "
    "sigmoid\nfor each label, or the bare number of a regression. {\"id\", \"labels\": [{\"label\", \"score\"}]} a line, "
    "best first.",
    "sardonyx classify --model_name ./sst2 --text 'a fine film' --top_k 1", options, run, 0};
