/* main.c: sardonyx VERB [options]. One command per file, cmd_<verb>.c, listed in the table here. */
#include <stdarg.h>
#include <string.h>
#include <time.h>

#include "cli.h"

#define COMMANDS(X)                                                                                                    \
    X(convert)                                                                                                         \
    X(optimize) X(quantize) X(run) X(test) X(tokenize) X(encode) X(embed) X(classify) X(generate) X(transcribe)        \
        X(inspect) X(bench) X(ops)

#define DECLARE(verb) extern const cli_command cli_command_##verb;
#define LIST(verb) &cli_command_##verb,
COMMANDS(DECLARE)
static const cli_command *const commands[] = {COMMANDS(LIST)};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

int cli_usage_error(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("sardonyx: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    return EXIT_USAGE;
}

int cli_out_of_memory(void)
{
    fputs("sardonyx: out of memory\n", stderr);
    return EXIT_OUR_FAULT;
}

double cli_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int cli_fail(const sdx_error *err)
{
    fprintf(stderr, "sardonyx: %s\n", err->message);
    return err->status == SDX_ERR_INTERNAL || err->status == SDX_ERR_MEMORY ? EXIT_OUR_FAULT : EXIT_USAGE;
}

void cli_warn(const sdx_model *model)
{
    const char *warning = sdx_model_warning(model);
    if (warning) fprintf(stderr, "sardonyx: warning: %s\n", warning);
}

static void print_overview(FILE *out)
{
    fprintf(out,
            "usage: sardonyx VERB [options]\n\nTransformer models on a CPU: convert, optimize, quantize, run.\n\n");
    for (int i = 0; i < N_COMMANDS; i++) {
        const char *about = commands[i]->about;
        fprintf(out, "  %-10s %.*s\n", commands[i]->name, (int)strcspn(about, "\n"), about);
    }
    fprintf(out, "\nsardonyx VERB --help tells a verb's options; sardonyx --version the build.\n");
}

static void print_version(void)
{
    printf("sardonyx %s\nbuild: %s\nCPU: %s, used: %s\nthreads: %d\n", SDX_VERSION, sdx_build_flags(), sdx_cpu_isa(),
           sdx_used_isa(), sdx_default_threads());
}

static int run_command(const cli_command *command, int argc, char **argv)
{
    cli_args args;
    int code = cli_parse(command, argc, argv, &args);
    if (code != EXIT_FINE) return code;
    if (cli_flag(&args, "help")) {
        cli_help(command, stdout);
        return EXIT_FINE;
    }
    sdx_error err = {0};
    const char *isa = cli_string(&args, "isa", NULL);
    if (isa && sdx_set_isa(isa, &err) != SDX_OK) return cli_fail(&err);
    if (cli_flag(&args, "version")) print_version();
    else code = command->run(&args);
    if (fflush(stdout) || ferror(stdout)) return cli_usage_error("cannot write to standard output");
    return code;
}

int main(int argc, char **argv)
{
    const char *verb = argc > 1 ? argv[1] : NULL;
    cli_limit_memory();
    if (!verb) {
        print_overview(stderr);
        return EXIT_USAGE;
    }
    if (!strcmp(verb, "--help") || !strcmp(verb, "-h") || !strcmp(verb, "help")) {
        print_overview(stdout);
        return EXIT_FINE;
    }
    if (!strcmp(verb, "--version")) {
        print_version();
        return EXIT_FINE;
    }
    for (int i = 0; i < N_COMMANDS; i++)
        if (!strcmp(verb, commands[i]->name)) return run_command(commands[i], argc - 2, argv + 2);
    return cli_usage_error("there is no verb \"%s\"; sardonyx --help lists them", verb);
}
