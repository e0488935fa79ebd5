/* cmd_ops.c: the operator table, as text, JSON or the Markdown of docs/operators.md. */
#include "cli.h"

static const cli_option options[] = {
    {"markdown", CLI_FLAG, NULL, "as docs/operators.md"},
    {NULL, CLI_FLAG, NULL, NULL},
};

static void print_range(const sdx_op_info *op, const char *dash)
{
    if (op->until) printf("%d%s%d", op->since, dash, op->until);
    else printf("%d%s", op->since, dash);
}

static void print_json(void)
{
    printf("{\"operators\": [");
    for (size_t i = 0; i < sdx_operator_count(); i++) {
        sdx_op_info op = sdx_operator_at(i);
        printf("%s\n  {\"domain\": \"%s\", \"name\": \"%s\", \"since\": %d, \"until\": ", i ? "," : "", op.domain,
               op.name, op.since);
        if (op.until) printf("%d}", op.until);
        else printf("null}");
    }
    printf("\n]}\n");
}

static int run(const cli_args *args)
{
    if (cli_flag(args, "json")) {
        print_json();
        return EXIT_FINE;
    }
    bool markdown = cli_flag(args, "markdown");
    if (markdown)
        printf("# Operators\n\nMade by `make docs` from the operator table. An opset range without an end is open.\n\n"
               "| domain | operator | opsets |\n|---|---|---|\n");
    for (size_t i = 0; i < sdx_operator_count(); i++) {
        sdx_op_info op = sdx_operator_at(i);
        printf(markdown ? "| %s | %s | " : "%-14s %-32s ", op.domain, op.name);
        print_range(&op, "-");
        printf(markdown ? " |\n" : "\n");
    }
    return EXIT_FINE;
}

const cli_command cli_command_ops = {"ops", "[--json | --markdown]", "list the operators that this build runs",
                                     "sardonyx ops", options, run};
