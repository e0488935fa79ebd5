/* cmd_inspect.c: what is in a model: in the file, after the passes that run at load, or planned for certain inputs. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

static const cli_option options[] = {
    {"html", CLI_STRING, "FILE", "write the graph as a page: zoom, search, click; it needs no network"},
    {"dot", CLI_FLAG, NULL, "print the graph in Graphviz's language"},
    {"stage", CLI_STRING, "WHICH",
     "graph (default): as in the file; passes: as it runs; plan: its steps, and their memory"},
    {"shape", CLI_STRING, "BxS", "with --stage plan: batch and sequence (default: 1x128)"},
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

/* The call of the library that made the text comes first, in its argument: so the text by its address. */
static int print_text(sdx_status status, char **text, const sdx_error *err)
{
    if (status != SDX_OK) return cli_fail(err);
    fputs(*text, stdout);
    free(*text);
    return EXIT_FINE;
}

/* shapes: see sdx_model_inspect_html. */
static int show(const cli_args *args, const sdx_model *model, const sdx_model *shapes)
{
    const char *page = cli_string(args, "html", NULL);
    char *text = NULL;
    sdx_error err = {0};
    if (page) {
        if (sdx_model_inspect_html(model, shapes, &text, &err) != SDX_OK) return cli_fail(&err);
        int code = write_file(page, text);
        free(text);
        if (code == EXIT_FINE) printf("Wrote %s\n", page);
        return code;
    }
    if (cli_flag(args, "dot")) return print_text(sdx_model_inspect_dot(model, shapes, &text, &err), &text, &err);
    return print_text(sdx_model_inspect(model, cli_flag(args, "json"), &text, &err), &text, &err);
}

/* Compiling infers the shapes that files mostly leave out. A model that cannot be compiled is shown without. */
static int show_file(const cli_args *args, const char *path)
{
    sdx_model *model;
    sdx_program *program = NULL;
    sdx_error err = {0};
    if (sdx_model_open(path, &model, &err) != SDX_OK) return cli_fail(&err);
    cli_warn(model);
    bool drawn = cli_flag(args, "dot") || cli_string(args, "html", NULL);
    if (drawn &&
        sdx_program_open(path, &(sdx_run_options){.no_optimize = true, .brief = true}, &program, &err) != SDX_OK)
        fprintf(stderr, "sardonyx: only shapes that the file says are shown: %s\n", err.message);
    int code = show(args, model, program ? sdx_program_model(program) : NULL);
    sdx_program_free(program);
    sdx_model_close(model);
    return code;
}

static int show_plan(const cli_args *args, const sdx_program *program)
{
    enum { MAX_INPUTS = 256 };
    const char *shape = cli_string(args, "shape", "1x128"), *name[MAX_INPUTS];
    static sdx_tensor input[MAX_INPUTS];
    const sdx_model *model = sdx_program_model(program);
    size_t n = sdx_model_input_count(model);
    long batch, sequence;
    if (!cli_parse_shape(shape, &batch, &sequence))
        return cli_usage_error("a shape is BxS, as 8x128, not \"%s\"", shape);
    if (n > MAX_INPUTS) return cli_usage_error("the model has more than %d inputs", MAX_INPUTS);
    for (size_t i = 0; i < n; i++) {
        sdx_port port = sdx_model_input(model, i);
        name[i] = port.name;
        input[i] = cli_shape_input(&port, batch, sequence);
    }
    char *text = NULL;
    sdx_error err = {0};
    sdx_status status = sdx_program_describe_plan(program, n, name, input, cli_flag(args, "json"), &text, &err);
    return print_text(status, &text, &err);
}

static int run(const cli_args *args)
{
    if (args->n_positional != 1) return cli_usage_error("inspect needs a model");
    const char *stage = cli_string(args, "stage", "graph"), *path = args->positional[0];
    bool plan = !strcmp(stage, "plan");
    if (!strcmp(stage, "graph")) return show_file(args, path);
    if (!plan && strcmp(stage, "passes")) return cli_usage_error("--stage is graph, passes or plan, not \"%s\"", stage);
    if (plan && (cli_flag(args, "dot") || cli_string(args, "html", NULL)))
        return cli_usage_error("a plan is a list, not a graph: --stage plan takes neither --dot nor --html");
    sdx_run_options how = cli_run_options(args);
    how.brief = true;
    sdx_program *program;
    sdx_error err = {0};
    if (sdx_program_open(path, &how, &program, &err) != SDX_OK) return cli_fail(&err);
    int code = plan ? show_plan(args, program) : show(args, sdx_program_model(program), NULL);
    sdx_program_free(program);
    return code;
}

const cli_command cli_command_inspect = {
    "inspect", "MODEL [--json | --html FILE | --dot] [--stage graph|passes|plan]",
    "show what is in a model: inputs, outputs, opsets, metadata, operators, largest weights",
    "sardonyx inspect models/bert.onnx --html bert.html", options, run, 1};
