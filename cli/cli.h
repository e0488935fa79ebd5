/* cli.h: what the commands share. The command line sees only include/sardonyx.h of the engine: the proof that
 * the public interface suffices. */
#ifndef SDX_CLI_H
#define SDX_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "../include/sardonyx.h"

enum { EXIT_FINE = 0, EXIT_FINDING = 1, EXIT_USAGE = 2, EXIT_OUR_FAULT = 3 };

/* ---- options (args.c) ------------------------------------------------------------------------------------ */

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

enum { CLI_MAX_POSITIONAL = 256 };

typedef struct cli_args {
    const struct cli_command *command;
    const char *positional[CLI_MAX_POSITIONAL];
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
    size_t max_positional; /* arguments that are no options, at most */
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

/* ---- talking (main.c) ------------------------------------------------------------------------------------ */

/* "sardonyx: sentence" on stderr; returns the exit code that the status stands for. */
int cli_fail(const sdx_error *err);
void cli_warn(const sdx_model *model); /* what sdx_model_warning says, on stderr */
void cli_limit_memory(void); /* to what there is (memory.c) */
void cli_give_back_memory(void); /* what was freed, to the system */
int cli_usage_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
int cli_out_of_memory(void);
double cli_now(void); /* seconds, of a clock that nobody sets */

/* ---- names and files (names.c) --------------------------------------------------------------------------- */

/* A folder for --model_name: the folder itself, or what cli_hub_find gives. New memory, or NULL after a
 * sentence on stderr. */
char *cli_find_checkpoint(const cli_args *args, const char *name);
/* A tokenizer's folder or file, else a name for cli_hub_find. */
int cli_open_tokenizer(const cli_args *args, const char *name, sdx_tokenizer **out);
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

/* "8x128" */
bool cli_parse_shape(const char *text, long *batch, long *sequence);
/* An input without data. Of its unknown sizes the first dimension's is the batch, the others the sequence. */
sdx_tensor cli_shape_input(const sdx_port *port, long batch, long sequence);

/* ---- another engine beside ours (rival.c) ---------------------------------------------------------------- */

typedef struct cli_rival cli_rival;
/* engine: "ort". Loads the file in a process of its own. *out is to be stopped also after a failure. */
int cli_rival_start(const char *engine, const char *model, int threads, cli_rival **out);
const char *cli_rival_version(const cli_rival *rival);
/* an input of the runs to come */
int cli_rival_feed(cli_rival *rival, const char *name, const sdx_tensor *tensor);
int cli_rival_run(cli_rival *rival, double *ms);
void cli_rival_stop(cli_rival *rival);

/* ---- the Hugging Face hub (hub.c) ------------------------------------------------------------------------ */

/* The folder of the model's snapshot in the local cache, downloaded when it is not there. New memory, or NULL
 * after a sentence on stderr. */
char *cli_hub_find(const char *name, bool quiet);

/* ---- lines in (lines.c) ---------------------------------------------------------------------------------- */

enum { CLI_LONGEST_LINE = 64 << 20 }; /* bytes; what is longer is cut there, and no document */

typedef struct cli_lines cli_lines;
/* path NULL or "-": stdin. 0, or -1 with err set. */
int cli_lines_open(const char *path, cli_lines **out, sdx_error *err);
/* 1: a line without its end, valid until the next; 0: no more; -1: the file cannot be read on, see err. */
int cli_lines_next(cli_lines *in, const char **line, size_t *length, sdx_error *err);
void cli_lines_progress(const cli_lines *in, uint64_t *consumed, uint64_t *total); /* total 0: unknown */
void cli_lines_close(cli_lines *in);

/* ---- documents in (records.c) ---------------------------------------------------------------------------- */

typedef struct cli_record {
    char *id;   /* NULL when the line has none */
    char *text, *pair; /* pair NULL when the line has none */
    size_t text_length, pair_length;
} cli_record;

typedef enum cli_line_form { CLI_UNKNOWN_LINES, CLI_JSON_LINES, CLI_TSV_LINES, CLI_TEXT_LINES } cli_line_form;

typedef struct cli_records {
    cli_lines *lines;
    const char *path;
    cli_line_form form;
    size_t line_number;
    bool pairs; /* a TSV line may have a second text */
} cli_records;

/* Sets err to SDX_ERR_FILE and a sentence; -1. */
int cli_record_error(sdx_error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* path NULL or "-": stdin. */
int cli_records_open(cli_records *in, const char *path);
/* The next document: a JSON object with "id" and "contents" or "text", or id<TAB>text, or plain text (id = line
 * number from 0). 1: got one; 0: end; -1: a bad line or file, its sentence in err. cli_record_free what you
 * got. */
int cli_records_next(cli_records *in, cli_record *out, sdx_error *err);
/* The same in two steps: the next line that is not empty (1, 0 or -1), and what is in it (1 or -1; an id may be
 * set also for -1). */
int cli_records_line(cli_records *in, const char **line, size_t *n, sdx_error *err);
int cli_records_parse(const cli_records *in, const char *line, size_t n, cli_record *out, sdx_error *err);
/* Up to room documents: their number, 0 at the end; *code is EXIT_USAGE after a sentence about a bad line. */
size_t cli_records_window(cli_records *in, cli_record *out, size_t room, int *code);
void cli_records_close(cli_records *in);
void cli_record_free(cli_record *record);

/* Calibration data (cases.c): a folder of .npy cases, or texts for the model through the tokenizer. */
typedef struct cli_cases cli_cases;
int cli_cases_open(const char *path, const char *tokenizer, size_t max_length, const char *model,
                   cli_cases **out);
sdx_status cli_cases_next(void *context, sdx_case *out, sdx_error *err); /* an sdx_case_fn */
void cli_cases_close(cli_cases *cases);

bool cli_is_stdout(const char *path); /* NULL, "-" and its names in /dev */
/* Something that is there and no regular file, such as a pipe or a device: written to, not replaced. */
bool cli_is_stream(const char *path);
/* Refuses a folder as --output, and the file of --input. */
int cli_check_output(const cli_args *args);
/* A file written beside its target and renamed over it by cli_output_close(out, true). */
typedef struct cli_output {
    FILE *file;
    char *path, *temporary; /* NULL, NULL: stdout; temporary NULL: a stream */
} cli_output;
int cli_output_open(cli_output *out, const char *path);
/* The same with a name for the file beside it that a later run writes again, should this one be killed. */
int cli_output_open_as(cli_output *out, const char *path, const char *suffix);
int cli_output_close(cli_output *out, bool keep);

/* ---- results that survive kill -9 (journal.c) ------------------------------------------------------------ */

/* How far a run has come; a point where it can go on. */
typedef struct cli_position {
    uint64_t lines, documents; /* of the input: lines read, and those of them that were not empty */
    uint64_t written, bad;     /* documents of this shard: all, and those with an error */
    uint64_t bytes;            /* of the output, in front of which all is whole */
} cli_position;

typedef struct cli_journal cli_journal;
/* path NULL or "-": stdout, which cannot be resumed. key: what must be the same for a run to go on. *at is
 * where to begin; *complete: a run before this one has finished. */
int cli_journal_open(const char *path, bool resume, const char *key, cli_journal **out, cli_position *at,
                     bool *complete);
int cli_journal_write(cli_journal *journal, const void *data, size_t n);
/* What was written so far is whole, and *at says how far the input is read. */
int cli_journal_commit(cli_journal *journal, cli_position *at);
/* Makes the finished output: the file of what was written becomes path, or make turns it into path. */
typedef int (*cli_finish_fn)(void *context, const char *written, const cli_position *at, const char *path);
int cli_journal_finish(cli_journal *journal, const cli_position *at, cli_finish_fn make, void *context);
/* After a failure: keeps what a later run can go on from. */
void cli_journal_abandon(cli_journal *journal, const cli_position *at);

/* ---- documents through a task (corpus.c) ----------------------------------------------------------------- */

enum { CLI_WINDOW = 512 }; /* documents taken in at once, so that a batch finds texts of like length */

/* A task over documents. What is written for a document is one piece of the output. */
typedef struct cli_task {
    void *context;
    /* Works n documents out, at most CLI_WINDOW. SDX_ERR_USAGE: one of them is at fault. */
    sdx_status (*run)(void *context, const cli_record *docs, size_t n, sdx_error *err);
    int (*write)(void *context, const cli_record *doc, size_t i, FILE *out); /* the i-th of them */
    int (*write_bad)(void *context, const cli_record *doc, const char *error, FILE *out); /* or NULL: nothing */
    int (*begin)(void *context, FILE *out); /* what stands before the first document; or NULL */
    cli_finish_fn finish;                   /* or NULL: the pieces are the output */
    bool pairs;                             /* takes two texts where a line has them */
} cli_task;

/* Hands --text (and --pair), or the lines of --input, to the task; its output goes to --output. */
int cli_documents(const cli_args *args, const cli_task *task);
/* A JSON string; bytes that are not UTF-8 become U+FFFD. */
void cli_json_string(FILE *out, const char *s, size_t n);
/* {"id":..,"error":..} and a newline. */
int cli_write_bad(void *context, const cli_record *doc, const char *error, FILE *out);
bool cli_ends_with(const char *s, const char *end);

/* The options that cli_task_options and cli_documents read. */
#define CLI_TASK_OPTIONS                                                                                               \
    {"model_name", CLI_STRING, "X", "checkpoint folder, or a name in the local Hugging Face cache"},                   \
    {"model_path", CLI_STRING, "M", "the .onnx file, when it is not in that folder"},                                  \
    {"tokenizer", CLI_STRING, "T", "folder with the tokenizer and its configuration"},                                 \
    {"input", CLI_STRING, "FILE", "JSON lines with id and contents or text, id<TAB>text, or plain text; also gzipped"}, \
    {"output", CLI_STRING, "FILE", "where to write; .gz: compressed (default: stdout)"},                               \
    {"text", CLI_STRING, "TEXT", "one text instead of --input"},                                                       \
    {"batch_tokens", CLI_INT, "N", "tokens in one run (default: 4096)"},                                               \
    {"max_length", CLI_INT, "N", "tokens a text (default: the model's)"},                                              \
    {"shard", CLI_STRING, "i/n", "every n-th document from the i-th on (default: as SLURM or Kubernetes says)"},       \
    {"resume", CLI_FLAG, NULL, "go on where a run that was killed has stopped"}

#endif
