/* cli.h: what the commands share. The command line sees only include/sardonyx.h of the engine: the proof that the
 * public interface suffices. */
#ifndef SDX_CLI_H
#define SDX_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "../include/sardonyx.h"

enum { EXIT_FINE = 0, EXIT_FINDING = 1, EXIT_USAGE = 2, EXIT_OUR_FAULT = 3 };

/* ---- options (args.c) -------------------------------------------------------------------------------------- */

typedef enum cli_kind {
    CLI_FLAG,   /* --name; --name=VALUE too where there is a placeholder */
    CLI_STRING, /* --name VALUE or --name=VALUE */
    CLI_INT,
    CLI_REAL,
    CLI_LIST,   /* may be given again and again */
    CLI_REST    /* takes every argument up to the next option */
} cli_kind;

typedef struct cli_option {
    const char *name; /* with '_'; '-' is accepted for it */
    cli_kind kind;
    const char *placeholder; /* for help: "FILE" */
    const char *help;
} cli_option;

typedef struct cli_args {
    const struct cli_command *command;
    const char *positional[256];
    size_t n_positional;
    struct cli_given {
        const cli_option *option;
        const char *value;
    } given[256];
    size_t n_given;
} cli_args;

typedef struct cli_command {
    const char *name, *arguments, *about, *example;
    const cli_option *option; /* ended by a row without name; the common ones are added to it */
    int (*run)(const cli_args *args);
} cli_command;

extern const cli_option cli_common_options[];

/* EXIT_FINE, or EXIT_USAGE after one sentence on stderr. */
int cli_parse(const cli_command *command, int argc, char **argv, cli_args *args);
void cli_help(const cli_command *command, FILE *out);

bool cli_flag(const cli_args *args, const char *name);
const char *cli_string(const cli_args *args, const char *name, const char *missing); /* the last one given */
long cli_int(const cli_args *args, const char *name, long missing);
double cli_real(const cli_args *args, const char *name, double missing);
/* The i-th value of a list or rest option, or NULL past the last. */
const char *cli_nth(const cli_args *args, const char *name, size_t i);
sdx_run_options cli_run_options(const cli_args *args);

/* ---- talking (main.c) ----------------------------------------------------------------------------------------- */

/* "sardonyx: sentence" on stderr; returns the exit code that the status stands for. */
int cli_fail(const sdx_error *err);
void cli_warn(const sdx_model *model); /* what sdx_model_warning says, on stderr */
void cli_limit_memory(void); /* to what there is (memory.c) */
int cli_usage_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- names and files (names.c) ---------------------------------------------------------------------------------- */

/* A folder for --model_name: the folder itself, or what cli_hub_find gives. New memory, or NULL after a sentence on
 * stderr. */
char *cli_find_checkpoint(const cli_args *args, const char *name);
/* "models/bert.onnx" with "-optimized" -> "models/bert-optimized.onnx". New memory. */
char *cli_insert_suffix(const char *path, const char *suffix);
char *cli_join(const char *dir, const char *name, const char *extension);
const char *cli_basename(const char *path); /* trailing slashes ignored; static buffer */
bool cli_is_directory(const char *path);
/* The file a rewrite of input goes to: --output, else input with the suffix. New memory. */
char *cli_rewrite_output(const cli_args *args, const char *input, const char *suffix);
/* Model and tokenizer of a task from --model_name, --model_path and --tokenizer. *folder: free it when done. */
int cli_task_options(const cli_args *args, size_t max_length, sdx_task_options *out, char **folder);
int cli_make_directory(const char *path); /* with parents; EXIT_FINE or EXIT_USAGE after a sentence */

/* ---- the Hugging Face hub (hub.c) --------------------------------------------------------------------------------- */

/* The folder of the model's snapshot in the local cache, downloaded when it is not there. New memory, or NULL after a
 * sentence on stderr. */
char *cli_hub_find(const char *name, bool quiet);

/* ---- documents in (records.c) ------------------------------------------------------------------------------------- */

typedef struct cli_record {
    char *id;   /* NULL when the line has none */
    char *text, *pair; /* pair NULL when the line has none */
    size_t text_length, pair_length;
} cli_record;

typedef struct cli_records {
    FILE *file;
    const char *path;
    char *line;
    size_t capacity;
    size_t line_number;
} cli_records;

/* path NULL or "-": stdin. */
int cli_records_open(cli_records *in, const char *path);
/* The next document: a JSON object with "id" and "contents" or "text", or id<TAB>text, or plain text (id = line
 * number from 0). 1: got one; 0: end; -1: a bad line, its sentence in err. cli_record_free what you got. */
int cli_records_next(cli_records *in, cli_record *out, sdx_error *err);
/* Up to room documents: their number, 0 at the end; *code is EXIT_USAGE after a sentence about a bad line. */
size_t cli_records_window(cli_records *in, cli_record *out, size_t room, int *code);
void cli_records_close(cli_records *in);
void cli_record_free(cli_record *record);

/* Calibration data (cases.c): a folder of .npy cases, or texts for the model through the tokenizer. */
typedef struct cli_cases cli_cases;
int cli_cases_open(const char *path, const char *tokenizer, size_t max_length, const char *model, cli_cases **out);
sdx_status cli_cases_next(void *context, sdx_case *out, sdx_error *err); /* an sdx_case_fn */
void cli_cases_close(cli_cases *cases);

/* A file written beside its target and renamed over it by cli_output_close(out, true). */
typedef struct cli_output {
    FILE *file;
    char *path, *temporary; /* NULL: stdout */
} cli_output;
int cli_output_open(cli_output *out, const char *path);
int cli_output_close(cli_output *out, bool keep);

/* ---- documents through a task (records.c) ---------------------------------------------------------------------------- */

enum { CLI_WINDOW = 512 }; /* documents taken in at once, so that a batch finds texts of like length */

/* Handles n documents; what it prints goes to out. */
typedef int (*cli_window_fn)(void *context, const cli_record *docs, size_t n, FILE *out);

/* Hands --text (and --pair), or the lines of --input, to fn; out is --output, or output_path when that is not NULL. */
int cli_documents(const cli_args *args, const char *output_path, cli_window_fn fn, void *context);

/* The options that cli_task_options and cli_documents read. */
#define CLI_TASK_OPTIONS                                                                                               \
    {"model_name", CLI_STRING, "X", "checkpoint folder, or a name in the local Hugging Face cache"},                   \
    {"model_path", CLI_STRING, "M", "the .onnx file, when it is not in that folder"},                                  \
    {"tokenizer", CLI_STRING, "T", "folder with the tokenizer and its configuration"},                                 \
    {"input", CLI_STRING, "FILE", "JSON lines with id and contents or text, or id<TAB>text (default: stdin)"},         \
    {"output", CLI_STRING, "FILE", "where to write (default: stdout)"},                                                \
    {"text", CLI_STRING, "TEXT", "one text instead of --input"},                                                       \
    {"batch_tokens", CLI_INT, "N", "padded tokens in one run (default: 4096)"},                                        \
    {"max_length", CLI_INT, "N", "tokens a text (default: the model's)"}

#endif
