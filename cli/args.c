/* args.c: options from a table. "-" and "_" are one letter inside long names, "--x=y" and "--x y" one form. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

const cli_option cli_common_options[] = {
    {"threads", CLI_INT, "N", "worker threads (default: what cgroup, cpuset and OMP_NUM_THREADS allow)"},
    {"isa", CLI_STRING, "NAME",
     "cap: scalar, avx2, avxvnni, avx512, avx512vnni, avx512fp16, neon, neon_dot, neon_i8mm"},
    {"precision", CLI_STRING, "NAME",
     "fp32 (default); bf16, fp16: products with weights in 16 bits; auto: the one the CPU gains by"},
    {"strict_onnx", CLI_FLAG, NULL, "only what the standard says; int8 files of ours allow more"},
    {"json", CLI_FLAG, NULL, "print one JSON object instead of text"},
    {"quiet", CLI_FLAG, NULL, "no progress on stderr"},
    {"help", CLI_FLAG, NULL, "this page"},
    {"version", CLI_FLAG, NULL, "version, build, instruction set, threads"},
    {NULL, CLI_FLAG, NULL, NULL},
};

/* Compares up to '=' or the end. */
static bool name_matches(const char *given, const char *name)
{
    for (; *given && *given != '='; given++, name++)
        if ((*given == '-' ? '_' : *given) != *name) return false;
    return !*name;
}

static const cli_option *find_in(const cli_option *table, const char *given)
{
    for (; table && table->name; table++)
        if (name_matches(given, table->name)) return table;
    return NULL;
}

static const cli_option *find_option(const cli_command *command, const char *given)
{
    const cli_option *o = find_in(command->option, given);
    return o ? o : find_in(cli_common_options, given);
}

static int check_value(const cli_option *o, const char *value)
{
    char *end;
    errno = 0;
    if (o->kind == CLI_INT) {
        long n = strtol(value, &end, 10);
        if (errno || *end || end == value || n < 0 || n > INT_MAX)
            return cli_usage_error("--%s takes a whole number, not \"%s\"", o->name, value);
    } else if (o->kind == CLI_REAL) {
        strtod(value, &end);
        if (errno || *end || end == value) return cli_usage_error("--%s takes a number, not \"%s\"", o->name, value);
    }
    return EXIT_FINE;
}

static int add_given(cli_args *args, const cli_option *o, const char *value)
{
    if (args->n_given == sizeof args->given / sizeof *args->given) return cli_usage_error("too many options");
    args->given[args->n_given].option = o;
    args->given[args->n_given++].value = value;
    return value ? check_value(o, value) : EXIT_FINE;
}

/* One "--name ..." at argv[*at]; moves *at past its values. */
static int parse_option(cli_args *args, int argc, char **argv, int *at)
{
    const char *name = argv[*at] + 2, *equals = strchr(name, '=');
    const cli_option *o = find_option(args->command, name);
    if (!o)
        return cli_usage_error("%s has no option --%s; see sardonyx %s --help", args->command->name, name,
                               args->command->name);
    ++*at;
    if (o->kind == CLI_FLAG) {
        if (equals && !o->placeholder) return cli_usage_error("--%s takes no value", o->name);
        return add_given(args, o, equals ? equals + 1 : NULL);
    }
    if (equals) return add_given(args, o, equals + 1);
    if (*at >= argc) return cli_usage_error("--%s needs a value (%s)", o->name, o->placeholder);
    int code = add_given(args, o, argv[(*at)++]);
    while (o->kind == CLI_REST && code == EXIT_FINE && *at < argc && strncmp(argv[*at], "--", 2))
        code = add_given(args, o, argv[(*at)++]);
    return code;
}

int cli_parse(const cli_command *command, int argc, char **argv, cli_args *args)
{
    *args = (cli_args){.command = command};
    for (int i = 0; i < argc;) {
        if (!strncmp(argv[i], "--", 2) && argv[i][2]) {
            int code = parse_option(args, argc, argv, &i);
            if (code != EXIT_FINE) return code;
        } else if (args->n_positional == command->max_positional) {
            return cli_usage_error("%s does not know what to do with \"%s\"; see sardonyx %s --help", command->name,
                                   argv[i], command->name);
        } else {
            args->positional[args->n_positional++] = argv[i++];
        }
    }
    return EXIT_FINE;
}

static void help_rows(const cli_option *o, FILE *out)
{
    for (; o && o->name; o++) {
        char left[64];
        snprintf(left, sizeof left, "--%s%s%s", o->name, o->placeholder ? " " : "",
                 o->placeholder ? o->placeholder : "");
        fprintf(out, "  %-34s %s\n", left, o->help);
    }
}

void cli_help(const cli_command *c, FILE *out)
{
    fprintf(out, "usage: sardonyx %s %s\n\n%s\n\noptions:\n", c->name, c->arguments, c->about);
    help_rows(c->option, out);
    help_rows(cli_common_options, out);
    fprintf(out, "\nexample:\n  %s\n", c->example);
}

const char *cli_nth(const cli_args *args, const char *name, size_t nth)
{
    for (size_t i = 0; i < args->n_given; i++)
        if (!strcmp(args->given[i].option->name, name) && nth-- == 0) return args->given[i].value;
    return NULL;
}

bool cli_flag(const cli_args *args, const char *name)
{
    for (size_t i = 0; i < args->n_given; i++)
        if (!strcmp(args->given[i].option->name, name)) return true;
    return false;
}

const char *cli_string(const cli_args *args, const char *name, const char *missing)
{
    const char *value = missing;
    for (size_t i = 0; i < args->n_given; i++)
        if (!strcmp(args->given[i].option->name, name)) value = args->given[i].value;
    return value;
}

long cli_int(const cli_args *args, const char *name, long missing)
{
    const char *value = cli_string(args, name, NULL);
    return value ? strtol(value, NULL, 10) : missing;
}

double cli_real(const cli_args *args, const char *name, double missing)
{
    const char *value = cli_string(args, name, NULL);
    return value ? strtod(value, NULL) : missing;
}

sdx_run_options cli_run_options(const cli_args *args)
{
    return (sdx_run_options){.threads = (int)cli_int(args, "threads", 0), .isa = cli_string(args, "isa", NULL),
                             .precision = cli_string(args, "precision", NULL),
                             .strict = cli_flag(args, "strict_onnx"),
                             .no_optimize = cli_flag(args, "no_optimize"),
                             .skip_padding = cli_flag(args, "skip_padding"),
                             .profile = cli_flag(args, "profile"),
                             .max_steps = (uint64_t)cli_int(args, "max_steps", 0)};
}
