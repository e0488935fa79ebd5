/* cmd_inspect.c: what is in a model. */
#include <stdlib.h>

#include "cli.h"

static const cli_option options[] = {{NULL, CLI_FLAG, NULL, NULL}};

static int run(const cli_args *args)
{
    if (args->n_positional != 1) return cli_usage_error("inspect takes one model");
    sdx_error err = {0};
    sdx_model *model;
    if (sdx_model_open(args->positional[0], &model, &err) != SDX_OK) return cli_fail(&err);
    cli_warn(model);
    char *text;
    sdx_status status = sdx_model_inspect(model, cli_flag(args, "json"), &text, &err);
    sdx_model_close(model);
    if (status != SDX_OK) return cli_fail(&err);
    fputs(text, stdout);
    free(text);
    return EXIT_FINE;
}

const cli_command cli_command_inspect = {
    "inspect", "MODEL [--json]", "show what is in a model: inputs, outputs, opsets, metadata, operators, largest weights",
    "sardonyx inspect models/bert.onnx", options, run};
