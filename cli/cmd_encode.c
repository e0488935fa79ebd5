/* cmd_encode.c: texts to sparse (SPLADE) vectors, as token weights or as Anserini's integer impacts. */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

static const cli_option options[] = {
    CLI_TASK_OPTIONS,
    {"format", CLI_STRING, "FORMAT", "jsonl: float weights (default); anserini: integer impacts"},
    {"threshold", CLI_REAL, "T", "leave out weights up to T (default: 0)"},
    {"top_k", CLI_INT, "K", "only the K heaviest terms, heaviest first"},
    {NULL, CLI_FLAG, NULL, NULL},
};

typedef struct writer {
    sdx_sparse_encoder *encoder;
    bool anserini;
    double threshold;
    size_t top_k;
} writer;

typedef struct term {
    int64_t index;
    float weight;
} term;

static int heavier(const void *a, const void *b)
{
    const term *x = a, *y = b;
    if (x->weight != y->weight) return x->weight < y->weight ? 1 : -1;
    return x->index < y->index ? -1 : x->index > y->index;
}

/* Anserini quantizes a weight w to Math.round(w / 5 * 256) in float32; Java's round is floor(x + 0.5). */
static long long impact(float weight) { return (long long)floorf(weight / 5.0f * 256.0f + 0.5f); }

static json_t *vector_object(const writer *w, const term *terms, size_t n)
{
    json_t *vector = json_object();
    for (size_t i = 0; i < n; i++) {
        const char *token = sdx_tokenizer_token(sdx_sparse_encoder_tokenizer(w->encoder), terms[i].index);
        if (!token) continue;
        if (!w->anserini) json_object_set_new(vector, token, json_real(terms[i].weight));
        else if (impact(terms[i].weight) > 0) json_object_set_new(vector, token, json_integer(impact(terms[i].weight)));
    }
    return vector;
}

static int write_vector(const writer *w, const cli_record *doc, const sdx_sparse_vector *v, FILE *out)
{
    term *terms = malloc((v->count + 1) * sizeof *terms);
    if (!terms) return cli_usage_error("out of memory");
    size_t n = 0;
    for (size_t i = 0; i < v->count; i++)
        if (v->weight[i] > w->threshold) terms[n++] = (term){v->index[i], v->weight[i]};
    if (w->top_k) {
        qsort(terms, n, sizeof *terms, heavier);
        if (n > w->top_k) n = w->top_k;
    }
    json_t *line = json_object();
    json_object_set_new(line, "id", json_string(doc->id ? doc->id : ""));
    if (w->anserini) json_object_set_new(line, "contents", json_stringn(doc->text, doc->text_length));
    json_object_set_new(line, "vector", vector_object(w, terms, n));
    char *text = json_dumps(line, JSON_COMPACT | JSON_REAL_PRECISION(9));
    json_decref(line);
    free(terms);
    if (!text) return cli_usage_error("out of memory");
    fprintf(out, "%s\n", text);
    free(text);
    return EXIT_FINE;
}

static int encode_window(void *context, const cli_record *docs, size_t n, FILE *out)
{
    const writer *w = context;
    sdx_text texts[CLI_WINDOW] = {{NULL, 0}};
    sdx_sparse_vector vectors[CLI_WINDOW];
    for (size_t i = 0; i < n; i++) texts[i] = (sdx_text){docs[i].text, docs[i].text_length};
    sdx_error err = {0};
    if (sdx_sparse_encoder_run(w->encoder, texts, n, vectors, &err) != SDX_OK) return cli_fail(&err);
    int code = EXIT_FINE;
    for (size_t i = 0; i < n && code == EXIT_FINE; i++) code = write_vector(w, &docs[i], &vectors[i], out);
    return code;
}

static int run(const cli_args *args)
{
    sdx_task_options o;
    char *folder = NULL;
    int code = cli_task_options(args, 256, &o, &folder);
    if (code != EXIT_FINE) return code;
    const char *format = cli_string(args, "format", "jsonl");
    writer w = {.anserini = !strcmp(format, "anserini"), .threshold = cli_real(args, "threshold", 0)};
    w.top_k = (size_t)cli_int(args, "top_k", 0);
    sdx_error err = {0};
    if (!w.anserini && strcmp(format, "jsonl")) {
        code = cli_usage_error("--format is jsonl or anserini, not \"%s\"", format);
    } else if (sdx_sparse_encoder_open(&o, &w.encoder, &err) == SDX_OK) {
        code = cli_documents(args, NULL, encode_window, &w);
        sdx_sparse_encoder_free(w.encoder);
    } else {
        code = cli_fail(&err);
    }
    free(folder);
    return code;
}

const cli_command cli_command_encode = {
    "encode", "--model_name X | --model_path M --tokenizer T [options]",
    "turn texts into sparse (SPLADE) vectors\n\njsonl: {\"id\", \"vector\": {token: weight}}; anserini: the same with integer "
    "impacts and contents, for its JsonVectorCollection.",
    "sardonyx encode --model_name ./splade --input docs.jsonl --output impacts.jsonl --format anserini", options, run};
