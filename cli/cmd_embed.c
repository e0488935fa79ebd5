/* cmd_embed.c: texts to dense vectors, as JSON lines or one .npy matrix. */
#include <stdlib.h>
#include <string.h>

#include "cli.h"

static const cli_option options[] = {
    CLI_TASK_OPTIONS, /* --output ending in .npy: one matrix */
    {NULL, CLI_FLAG, NULL, NULL},
};

typedef struct job {
    sdx_embedder *embedder;
    size_t dim;
    bool matrix; /* collect rows for a .npy file instead of printing lines */
    float *data; /* [rows, dim]; owned */
    size_t rows, capacity;
} job;

static void print_row(FILE *f, const char *id, const float *row, size_t dim)
{
    fputs("{\"id\":\"", f);
    for (const char *c = id ? id : ""; *c; c++) {
        if (*c == '"' || *c == '\\') fputc('\\', f);
        if ((unsigned char)*c < ' ') fprintf(f, "\\u%04x", *c);
        else fputc(*c, f);
    }
    fputs("\",\"embedding\":[", f);
    for (size_t i = 0; i < dim; i++) fprintf(f, "%s%.9g", i ? "," : "", row[i]);
    fputs("]}\n", f);
}

/* Room for count more rows at the end of data. */
static bool reserve(job *j, size_t count)
{
    if (j->rows + count <= j->capacity) return true;
    size_t capacity = j->capacity ? j->capacity * 2 : CLI_WINDOW;
    float *data = realloc(j->data, capacity * j->dim * sizeof *data);
    if (!data) return false;
    j->data = data;
    j->capacity = capacity;
    return true;
}

static int embed_window(void *context, const cli_record *docs, size_t n, FILE *out)
{
    job *j = context;
    sdx_text texts[CLI_WINDOW] = {{NULL, 0}};
    for (size_t i = 0; i < n; i++) texts[i] = (sdx_text){docs[i].text, docs[i].text_length};
    if (!reserve(j, n)) return cli_usage_error("out of memory");
    float *rows = j->data + j->rows * j->dim;
    sdx_error err = {0};
    if (sdx_embedder_run(j->embedder, texts, n, rows, &err) != SDX_OK) return cli_fail(&err);
    if (j->matrix) j->rows += n;
    for (size_t i = 0; i < n && !j->matrix; i++) print_row(out, docs[i].id, rows + i * j->dim, j->dim);
    return EXIT_FINE;
}

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

static int embed(const cli_args *args, job *j)
{
    const char *output = cli_string(args, "output", NULL);
    j->dim = sdx_embedder_dim(j->embedder);
    j->matrix = output && ends_with(output, ".npy");
    int code = cli_documents(args, j->matrix ? "-" : NULL, embed_window, j);
    if (code != EXIT_FINE || !j->matrix) return code;
    sdx_tensor t = {SDX_F32, 2, {(int64_t)j->rows, (int64_t)j->dim}, j->data};
    sdx_error err = {0};
    return sdx_tensor_write_npy(output, &t, &err) == SDX_OK ? EXIT_FINE : cli_fail(&err);
}

static int run(const cli_args *args)
{
    sdx_task_options o;
    char *folder = NULL;
    int code = cli_task_options(args, 0, &o, &folder);
    if (code != EXIT_FINE) return code;
    sdx_error err = {0};
    job j = {.embedder = NULL};
    if (sdx_embedder_open(&o, &j.embedder, &err) == SDX_OK) {
        code = embed(args, &j);
        sdx_embedder_free(j.embedder);
    } else {
        code = cli_fail(&err);
    }
    free(j.data);
    free(folder);
    return code;
}

const cli_command cli_command_embed = {
    "embed", "--model_name X | --model_path M --tokenizer T [options]",
    "turn texts into dense vectors\n\nPooling and normalization follow modules.json. The vector of a text does not depend "
    "on its neighbours.",
    "sardonyx embed --model_name ./all-MiniLM-L6-v2 --input docs.jsonl --output vectors.npy", options, run};
