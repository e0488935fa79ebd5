/* cmd_embed.c: texts to dense vectors, as JSON lines or one .npy matrix. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "numpy.h"

static const cli_option options[] = {
    CLI_TASK_OPTIONS, /* --output ending in .npy: one matrix */
    {"prompt_name", CLI_STRING, "NAME", "a prompt of config_sentence_transformers.json (default: what it says)"},
    {"prompt", CLI_STRING, "TEXT", "stands before every text"},
    {NULL, CLI_FLAG, NULL, NULL},
};

typedef struct job {
    sdx_embedder *embedder;
    uint64_t dim;
    float *rows; /* [CLI_WINDOW, dim]; owned */
} job;

static sdx_status embed_window(void *context, const cli_record *docs, size_t n, sdx_error *err)
{
    const job *j = context;
    sdx_text texts[CLI_WINDOW];
    for (size_t i = 0; i < n; i++) texts[i] = (sdx_text){docs[i].text, docs[i].text_length};
    return sdx_embedder_run(j->embedder, texts, n, j->rows, err);
}

/* ---- JSON lines ------------------------------------------------------------------------------------------ */

static int write_line(void *context, const cli_record *doc, size_t i, FILE *out)
{
    const job *j = context;
    const float *row = j->rows + i * j->dim;
    fputs("{\"id\":", out);
    cli_json_string(out, doc->id, strlen(doc->id));
    fputs(",\"embedding\":[", out);
    for (size_t d = 0; d < j->dim; d++) fprintf(out, "%s%.9g", d ? "," : "", row[d]);
    fputs("]}\n", out);
    return EXIT_FINE;
}

/* ---- .npy: rows of float32 behind a header that gets their number at the end ----------------------------- */

static int begin_matrix(void *context, FILE *out)
{
    const job *j = context;
    char header[CLI_NPY_HEADER];
    cli_npy_header(header, "<f4", 2, (uint64_t[]){0, j->dim});
    fwrite(header, 1, sizeof header, out);
    return EXIT_FINE;
}

static int write_row(void *context, const cli_record *doc, size_t i, FILE *out)
{
    const job *j = context;
    (void)doc;
    fwrite(j->rows + i * j->dim, sizeof *j->rows, j->dim, out);
    return EXIT_FINE;
}

static int write_bad_row(void *context, const cli_record *doc, const char *error, FILE *out)
{
    const job *j = context;
    (void)doc;
    (void)error;
    for (size_t d = 0; d < j->dim; d++) fwrite(&(float){0}, sizeof(float), 1, out);
    return EXIT_FINE;
}

static int finish_matrix(void *context, const char *written, const cli_position *at, const char *path)
{
    const job *j = context;
    char header[CLI_NPY_HEADER];
    cli_npy_header(header, "<f4", 2, (uint64_t[]){at->written, j->dim});
    FILE *f = fopen(written, "r+");
    bool ok = f && fwrite(header, 1, sizeof header, f) == sizeof header;
    ok = f && !fflush(f) && !fsync(fileno(f)) && ok;
    ok = f && !fclose(f) && ok;
    return ok && !rename(written, path) ? EXIT_FINE : cli_usage_error("%s: cannot write: %s", path, strerror(errno));
}

/* ---- the command ----------------------------------------------------------------------------------------- */

static int embed(const cli_args *args, job *j)
{
    cli_task lines = {j, embed_window, write_line, cli_write_bad, NULL, NULL, false};
    cli_task matrix = {j, embed_window, write_row, write_bad_row, begin_matrix, finish_matrix, false};
    j->dim = sdx_embedder_dim(j->embedder);
    j->rows = malloc(CLI_WINDOW * j->dim * sizeof *j->rows);
    if (!j->rows) return cli_out_of_memory();
    return cli_documents(args, cli_ends_with(cli_string(args, "output", "-"), ".npy") ? &matrix : &lines);
}

static int run(const cli_args *args)
{
    sdx_task_options o;
    char *folder = NULL;
    int code = cli_task_options(args, 0, &o, &folder);
    if (code != EXIT_FINE) return code;
    sdx_error err = {0};
    job j = {.embedder = NULL};
    const char *name = cli_string(args, "prompt_name", NULL), *prompt = cli_string(args, "prompt", NULL);
    bool ready = sdx_embedder_open(&o, &j.embedder, &err) == SDX_OK &&
                 sdx_embedder_set_prompt(j.embedder, name, prompt, &err) == SDX_OK;
    code = ready ? embed(args, &j) : cli_fail(&err);
    sdx_embedder_free(j.embedder);
    free(j.rows);
    free(folder);
    return code;
}

const cli_command cli_command_embed = {
    "embed", "--model_name X | --model_path M --tokenizer T [options]",
    "turn texts into dense vectors\n\nPrompts, pooling, dense layers and normalization follow the sentence-transformers "
    "folder. The vector of a text does\nnot depend on its neighbours. {\"id\", \"embedding\": [...]} a line, or one .npy "
    "matrix, a row a document. A line that\nholds no document becomes a record with \"error\", or a row of zeros; the run "
    "goes on and ends with exit code 1.",
    "sardonyx embed --model_name ./all-MiniLM-L6-v2 --input docs.jsonl --output vectors.npy", options, run, 0};
