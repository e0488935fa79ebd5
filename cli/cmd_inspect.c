/* cmd_inspect.c: what is in a model. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

static const cli_option options[] = {
    {"html", CLI_STRING, "FILE", "write the graph as a page: zoom, search, click; it needs no network"},
    {NULL, CLI_FLAG, NULL, NULL},
};

static int write_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    bool fine = f && fputs(text, f) != EOF;
    if (f) fine = fclose(f) == 0 && fine;
    if (fine) return EXIT_FINE;
    return cli_usage_error("%s: cannot write: %s", path, strerror(errno));
}

/* Compiling infers the shapes that files mostly leave out. A model that cannot be compiled is shown without. */
static int write_page(const sdx_model *model, const char *model_path, const char *path)
{
    sdx_run_options plain = {.no_optimize = true};
    sdx_program *program = NULL;
    sdx_error err = {0};
    if (sdx_program_open(model_path, &plain, &program, &err) != SDX_OK)
        fprintf(stderr, "sardonyx: only shapes that the file says are shown: %s\n", err.message);
    char *html;
    sdx_status status =
        sdx_model_inspect_html(model, program ? sdx_program_model(program) : NULL, &html, &err);
    sdx_program_free(program);
    if (status != SDX_OK) return cli_fail(&err);
    int code = write_file(path, html);
    free(html);
    if (code == EXIT_FINE) printf("Wrote %s\n", path);
    return code;
}

static int write_text(const sdx_model *model, bool json)
{
    char *text;
    sdx_error err = {0};
    if (sdx_model_inspect(model, json, &text, &err) != SDX_OK) return cli_fail(&err);
    fputs(text, stdout);
    free(text);
    return EXIT_FINE;
}

static int run(const cli_args *args)
{
    if (args->n_positional != 1) return cli_usage_error("inspect takes one model");
    const char *path = args->positional[0], *page = cli_string(args, "html", NULL);
    sdx_error err = {0};
    sdx_model *model;
    if (sdx_model_open(path, &model, &err) != SDX_OK) return cli_fail(&err);
    cli_warn(model);
    int code = page ? write_page(model, path, page) : write_text(model, cli_flag(args, "json"));
    sdx_model_close(model);
    return code;
}

const cli_command cli_command_inspect = {
    "inspect", "MODEL [--json | --html FILE]",
    "show what is in a model: inputs, outputs, opsets, metadata, operators, largest weights",
    "sardonyx inspect models/bert.onnx --html bert.html", options, run};
