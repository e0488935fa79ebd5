/* cmd_embed.c: texts to dense vectors, as JSON lines or one .npy matrix. */
#include <stdlib.h>
#include <string.h>

#include "cli.h"

static const cli_option options[] = {
    {"model_name", CLI_STRING, "X", "sentence-transformers or checkpoint folder, or cached name"},
    {"model_path", CLI_STRING, "M", "the .onnx file, when it is not in that folder"},
    {"tokenizer", CLI_STRING, "T", "folder with tokenizer and modules.json"},
    {"input", CLI_STRING, "FILE", "JSON lines with id and contents or text, or id<TAB>text (default: stdin)"},
    {"output", CLI_STRING, "FILE", "JSON lines, or a matrix if it ends in .npy (default: stdout)"},
    {"text", CLI_STRING, "TEXT", "one text instead of --input"},
    {"batch_tokens", CLI_INT, "N", "padded tokens in one run (default: 4096)"},
    {"max_length", CLI_INT, "N", "tokens a text (default: the model's)"},
    {NULL, CLI_FLAG, NULL, NULL},
};

enum { WINDOW = 512 }; /* documents taken in at once, so that a batch finds texts of one length */

typedef struct matrix { /* rows for the .npy form */
    float *data;
    size_t rows, capacity;
} matrix;

typedef struct sink {
    cli_output *out; /* NULL: collect into matrix */
    matrix *matrix;
    size_t dim;
} sink;

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

static int append_rows(matrix *m, const float *rows, size_t count, size_t dim)
{
    if (m->rows + count > m->capacity) {
        size_t capacity = m->capacity ? m->capacity * 2 : WINDOW;
        float *data = realloc(m->data, capacity * dim * sizeof *data);
        if (!data) return cli_usage_error("out of memory");
        m->data = data;
        m->capacity = capacity;
    }
    memcpy(m->data + m->rows * dim, rows, count * dim * sizeof *rows);
    m->rows += count;
    return EXIT_FINE;
}

static int embed_window(sdx_embedder *e, const cli_record *docs, size_t n, float *rows, const sink *s)
{
    sdx_text texts[WINDOW] = {{NULL, 0}};
    for (size_t i = 0; i < n; i++) texts[i] = (sdx_text){docs[i].text, docs[i].text_length};
    sdx_error err = {0};
    if (sdx_embedder_run(e, texts, n, rows, &err) != SDX_OK) return cli_fail(&err);
    if (s->matrix) return append_rows(s->matrix, rows, n, s->dim);
    for (size_t i = 0; i < n; i++) print_row(s->out->file, docs[i].id, rows + i * s->dim, s->dim);
    return EXIT_FINE;
}

static int embed_all(sdx_embedder *e, cli_records *in, const sink *s)
{
    float *rows = malloc(WINDOW * s->dim * sizeof *rows);
    if (!rows) return cli_usage_error("out of memory");
    cli_record docs[WINDOW];
    int code = EXIT_FINE;
    for (size_t n; code == EXIT_FINE && (n = cli_records_window(in, docs, WINDOW, &code)) > 0;) {
        code = embed_window(e, docs, n, rows, s);
        while (n > 0) cli_record_free(&docs[--n]);
    }
    free(rows);
    return code;
}

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

static int embed_to_npy(sdx_embedder *e, cli_records *in, const char *path)
{
    matrix m = {NULL, 0, 0};
    size_t dim = sdx_embedder_dim(e);
    int code = embed_all(e, in, &(sink){NULL, &m, dim});
    if (code == EXIT_FINE) {
        sdx_tensor t = {SDX_F32, 2, {(int64_t)m.rows, (int64_t)dim}, m.data};
        sdx_error err = {0};
        if (sdx_tensor_write_npy(path, &t, &err) != SDX_OK) code = cli_fail(&err);
    }
    free(m.data);
    return code;
}

static int embed_to_lines(sdx_embedder *e, cli_records *in, const char *path)
{
    cli_output out;
    int code = cli_output_open(&out, path);
    if (code != EXIT_FINE) return code;
    code = embed_all(e, in, &(sink){&out, NULL, sdx_embedder_dim(e)});
    int closed = cli_output_close(&out, code == EXIT_FINE);
    return code == EXIT_FINE ? closed : code;
}

static int embed_one(sdx_embedder *e, const char *text)
{
    size_t dim = sdx_embedder_dim(e);
    float *row = malloc(dim * sizeof *row);
    if (!row) return cli_usage_error("out of memory");
    sdx_error err = {0};
    sdx_text t = {text, strlen(text)};
    int code = sdx_embedder_run(e, &t, 1, row, &err) == SDX_OK ? EXIT_FINE : cli_fail(&err);
    if (code == EXIT_FINE) print_row(stdout, "0", row, dim);
    free(row);
    return code;
}

static int embed(const cli_args *args, sdx_embedder *e)
{
    const char *text = cli_string(args, "text", NULL), *output = cli_string(args, "output", NULL);
    if (text) return embed_one(e, text);
    cli_records in;
    int code = cli_records_open(&in, cli_string(args, "input", NULL));
    if (code != EXIT_FINE) return code;
    code = output && ends_with(output, ".npy") ? embed_to_npy(e, &in, output) : embed_to_lines(e, &in, output);
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
    sdx_embedder *e;
    if (sdx_embedder_open(&o, &e, &err) == SDX_OK) {
        code = embed(args, e);
        sdx_embedder_free(e);
    } else {
        code = cli_fail(&err);
    }
    free(folder);
    return code;
}

const cli_command cli_command_embed = {
    "embed", "--model_name X | --model_path M --tokenizer T [options]",
    "turn texts into dense vectors\n\nPooling and normalization follow modules.json. The vector of a text does not depend "
    "on its neighbours.",
    "sardonyx embed --model_name ./all-MiniLM-L6-v2 --input docs.jsonl --output vectors.npy", options, run};
