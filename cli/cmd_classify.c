/* cmd_classify.c: labels and scores, one JSON line a text. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

static const cli_option options[] = {
    {"model_name", CLI_STRING, "X", "checkpoint folder or cached name"},
    {"model_path", CLI_STRING, "M", "the .onnx file, when it is not in that folder"},
    {"tokenizer", CLI_STRING, "T", "folder with the tokenizer and config.json"},
    {"input", CLI_STRING, "FILE", "JSON lines with text or contents, and pair where there is one (default: stdin)"},
    {"output", CLI_STRING, "FILE", "JSON lines (default: stdout)"},
    {"text", CLI_STRING, "TEXT", "one text instead of --input"},
    {"pair", CLI_STRING, "TEXT", "with --text: the second text of a pair"},
    {"top_k", CLI_INT, "K", "the K best labels (default: all)"},
    {"batch_tokens", CLI_INT, "N", "padded tokens in one run (default: 4096)"},
    {"max_length", CLI_INT, "N", "tokens a text (default: the model's)"},
    {NULL, CLI_FLAG, NULL, NULL},
};

enum { WINDOW = 256 };

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
    if (!order) return cli_usage_error("out of memory");
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
    if (!text) return cli_usage_error("out of memory");
    fprintf(f, "%s\n", text);
    free(text);
    return EXIT_FINE;
}

static int classify_window(const cli_args *args, sdx_classifier *c, const cli_record *docs, size_t n, FILE *f)
{
    sdx_text texts[WINDOW] = {{NULL, 0}}, pairs[WINDOW] = {{NULL, 0}};
    size_t labels = sdx_classifier_label_count(c);
    float *scores = malloc(n * labels * sizeof *scores);
    if (!scores) return cli_usage_error("out of memory");
    for (size_t i = 0; i < n; i++) {
        texts[i] = (sdx_text){docs[i].text, docs[i].text_length};
        pairs[i] = (sdx_text){docs[i].pair, docs[i].pair_length};
    }
    sdx_error err = {0};
    int code = sdx_classifier_run(c, texts, pairs, n, scores, &err) == SDX_OK ? EXIT_FINE : cli_fail(&err);
    for (size_t i = 0; i < n && code == EXIT_FINE; i++)
        code = write_labels(f, c, docs[i].id, scores + i * labels, (size_t)cli_int(args, "top_k", 0));
    free(scores);
    return code;
}

static int classify_file(const cli_args *args, sdx_classifier *c, cli_records *in, FILE *f)
{
    cli_record docs[WINDOW];
    int code = EXIT_FINE;
    for (size_t n; code == EXIT_FINE && (n = cli_records_window(in, docs, WINDOW, &code)) > 0;) {
        code = classify_window(args, c, docs, n, f);
        while (n > 0) cli_record_free(&docs[--n]);
    }
    return code;
}

static int classify(const cli_args *args, sdx_classifier *c)
{
    const char *text = cli_string(args, "text", NULL), *pair = cli_string(args, "pair", NULL);
    if (text) {
        cli_record doc = {.id = (char[]){"0"}, .text = (char *)text, .text_length = strlen(text), .pair = (char *)pair};
        doc.pair_length = pair ? strlen(pair) : 0;
        return classify_window(args, c, &doc, 1, stdout);
    }
    cli_records in;
    cli_output out;
    int code = cli_records_open(&in, cli_string(args, "input", NULL));
    if (code != EXIT_FINE) return code;
    code = cli_output_open(&out, cli_string(args, "output", NULL));
    if (code == EXIT_FINE) {
        code = classify_file(args, c, &in, out.file);
        int closed = cli_output_close(&out, code == EXIT_FINE);
        if (code == EXIT_FINE) code = closed;
    }
    cli_records_close(&in);
    return code;
}

static int run(const cli_args *args)
{
    sdx_task_options o;
    char *folder = NULL;
    int code = cli_task_options(args, 0, &o, &folder);
    if (code != EXIT_FINE) return code;
    sdx_error err = {0};
    sdx_classifier *c;
    if (sdx_classifier_open(&o, &c, &err) == SDX_OK) {
        code = classify(args, c);
        sdx_classifier_free(c);
    } else {
        code = cli_fail(&err);
    }
    free(folder);
    return code;
}

const cli_command cli_command_classify = {
    "classify", "--model_name X | --model_path M --tokenizer T [options]",
    "give texts, or pairs of texts, the labels of config.json's id2label with their scores",
    "sardonyx classify --model_name ./sst2 --text 'a fine film' --top_k 1", options, run};
