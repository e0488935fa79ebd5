/* cmd_ops.c: the operator table, as text, JSON or the Markdown of docs/operators.md. */
#include "cli.h"

static const cli_option options[] = {
    {"markdown", CLI_FLAG, NULL, "as docs/operators.md"},
    {NULL, CLI_FLAG, NULL, NULL},
};

/* "from-to"; "from-" when there is no end; "from" when both are the same and the range is a count. */
static const char *range(char text[static 32], int from, int to, bool open, bool count)
{
    if (open) snprintf(text, 32, "%d-", from);
    else if (count && from == to) snprintf(text, 32, "%d", from);
    else snprintf(text, 32, "%d-%d", from, to);
    return text;
}

static void print_json(const sdx_op_info *op)
{
    printf("\n  {\"domain\": \"%s\", \"name\": \"%s\", \"since\": %d, \"until\": ", op->domain, op->name, op->since);
    if (op->until) printf("%d", op->until);
    else printf("null");
    printf(", \"inputs\": [%d, %d], \"outputs\": [%d, %d], \"family\": \"%s\"}", op->min_inputs, op->max_inputs,
           op->min_outputs, op->max_outputs, op->family);
}

static void print_line(const sdx_op_info *op, bool markdown)
{
    char opsets[32], inputs[32], outputs[32];
    printf(markdown ? "| %s | %s | %s | %s | %s | %s |\n" : "%-14s %-32s %-8s %-6s %-6s %s\n", op->domain, op->name,
           range(opsets, op->since, op->until, !op->until, false),
           range(inputs, op->min_inputs, op->max_inputs, op->max_inputs < 0, true),
           range(outputs, op->min_outputs, op->max_outputs, op->max_outputs < 0, true), op->family);
}

static int run(const cli_args *args)
{
    bool json = cli_flag(args, "json"), markdown = !json && cli_flag(args, "markdown");
    if (json) printf("{\"operators\": [");
    else if (markdown)
        printf("# Operators\n\n"
               "Made by `make docs` from the operator table. A range without an end is open; *family* is the file in\n"
               "engine/ops that computes the operator.\n\n"
               "| domain | operator | opsets | inputs | outputs | family |\n|---|---|---|---|---|---|\n");
    else printf("%-14s %-32s %-8s %-6s %-6s %s\n", "domain", "operator", "opsets", "inputs", "outputs", "family");
    for (size_t i = 0; i < sdx_operator_count(); i++) {
        sdx_op_info op = sdx_operator_at(i);
        if (json && i) printf(",");
        if (json) print_json(&op);
        else print_line(&op, markdown);
    }
    if (json) printf("\n]}\n");
    return EXIT_FINE;
}

const cli_command cli_command_ops = {"ops", "[--json | --markdown]", "list the operators that this build runs",
                                     "sardonyx ops", options, run, 0};
