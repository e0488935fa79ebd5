/* cmd_convert.c: checkpoint folder to ONNX, with the guide's names, check and exit code. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

static const cli_option options[] = {
    {"model_name", CLI_STRING, "X",
     "checkpoint folder, or a name of the Hugging Face hub: from the local cache, else downloaded"},
    {"output_dir", CLI_STRING, "DIR", "where to write (default: models)"},
    {"text", CLI_STRING, "TEXT", "text to check the graph with (default: what is AI?)"},
    {"task", CLI_STRING, "TASK",
     "auto, or feature-extraction, fill-mask, text-classification, token-classification, "
     "question-answering, text-generation, text-generation-with-past, text2text-generation, "
     "multiple-choice, automatic-speech-recognition, audio-classification, "
     "image-classification, sparse; an unknown one lists what the model has"},
    {"opset", CLI_INT, "N", "opset to write, 13 to 21 (default: 14)"},
    {"dtype", CLI_STRING, "TYPE", "store matrices as fp32, fp16 or bf16; computing is in fp32 (default: fp32)"},
    {"splade", CLI_FLAG, NULL, "append the SPLADE head; the same as --task sparse"},
    {"no_past", CLI_FLAG, NULL, "sequence to sequence: write no decoder_with_past_model.onnx"},
    {"merged", CLI_FLAG, NULL, "sequence to sequence: write decoder_model_merged.onnx too, both decoders in one"},
    {"external_data", CLI_FLAG, NULL, "put the weights in a file of their own"},
    {"threshold", CLI_REAL, "T", "largest L1 difference that passes (default: 1e-2)"},
    {NULL, CLI_FLAG, NULL, NULL},
};

static void print_report(const sdx_convert_report *r, const char *output, const char *vocabulary, bool json)
{
    /* A folder has the file's name without .onnx. */
    bool folder = r->graphs > 1;
    int length = (int)strlen(output) - (folder ? (int)strlen(".onnx") : 0);
    if (json) {
        fputs("{\"model\": ", stdout);
        cli_json_string(stdout, output, (size_t)length);
        if (r->wrote_vocabulary) fputs(", \"vocabulary\": ", stdout);
        if (r->wrote_vocabulary) cli_json_string(stdout, vocabulary, strlen(vocabulary));
        printf(", \"model_type\": \"%s\", \"task\": \"%s\", \"nodes\": %zu, \"initializers\": %zu, \"output\": \"%s\", "
               "\"l1_difference\": %.9g, \"max_difference\": %.9g}\n",
               r->model_type, r->task, r->nodes, r->initializers, r->output_name, r->l1_difference, r->max_difference);
        return;
    }
    printf("Model type: %s, task: %s\n", r->model_type, r->task);
    if (folder)
        printf("Wrote %zu graphs to %.*s/ (%zu nodes, %zu initializers)\n", r->graphs, length, output, r->nodes,
               r->initializers);
    else
        printf("Wrote %s (%zu nodes, %zu initializers)%s%s\n", output, r->nodes, r->initializers,
               r->wrote_vocabulary ? " and " : "; the checkpoint has no tokenizer",
               r->wrote_vocabulary ? vocabulary : "");
    printf("Checked output %s against an independent reference forward:\n", r->output_name);
    printf("L1 difference: %.6g (after ReLU), largest: %.6g\n", r->l1_difference, r->max_difference);
}

static bool parse_dtype(const char *name, sdx_dtype *out)
{
    static const struct {
        const char *name;
        sdx_dtype dtype;
    } names[] = {{"fp32", SDX_F32}, {"fp16", SDX_F16}, {"bf16", SDX_BF16}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(name, names[i].name)) continue;
        *out = names[i].dtype;
        return true;
    }
    return false;
}

/* ---- progress -------------------------------------------------------------------------------------------- */

enum { BAR_WIDTH = 40 };
#define SHOWN_FROM 100000000u /* bytes; less is written before one could read it */

static void show_progress(void *context, uint64_t done, uint64_t total)
{
    static const char full[] = "########################################";
    int *shown = context; /* percent, or -1: nothing yet */
    int percent = total ? (int)(100 * done / total) : 100;
    if (total < SHOWN_FROM || percent == *shown) return;
    *shown = percent;
    fprintf(stderr, "\rwriting [%-*.*s] %3d%% of %llu MB  ", BAR_WIDTH, percent * BAR_WIDTH / 100, full, percent,
            (unsigned long long)(total / 1000000));
}

/* What comes next, a report or a sentence about an error, starts on a line of its own. */
static void end_progress(int shown)
{
    if (shown >= 0) fputc('\n', stderr);
}

/* ---- converting ------------------------------------------------------------------------------------------ */

static int convert_to(const cli_args *args, const char *checkpoint, const char *output, const char *vocabulary)
{
    const char *task = cli_string(args, "task", "auto");
    sdx_convert_options o = {
        .checkpoint = checkpoint,
        .output = output,
        .vocabulary = vocabulary,
        .task = task,
        .text = cli_string(args, "text", NULL),
        .opset = (int)cli_int(args, "opset", 0),
        .splade = cli_flag(args, "splade") || !strcmp(task, "sparse"),
        .external_data = cli_flag(args, "external_data"),
        .no_past = cli_flag(args, "no_past"),
        .merged = cli_flag(args, "merged"),
    };
    if (!parse_dtype(cli_string(args, "dtype", "fp32"), &o.dtype))
        return cli_usage_error("--dtype is fp32, fp16 or bf16");
    int shown = -1;
    if (isatty(STDERR_FILENO) && !cli_flag(args, "quiet")) {
        o.progress = show_progress;
        o.progress_context = &shown;
    }
    sdx_convert_report report;
    sdx_error err = {0};
    sdx_status status = sdx_convert(&o, &report, &err);
    end_progress(shown);
    if (status != SDX_OK) return cli_fail(&err);
    print_report(&report, output, vocabulary, cli_flag(args, "json"));
    double threshold = cli_real(args, "threshold", 1e-2);
    if (report.l1_difference <= threshold) return EXIT_FINE;
    fprintf(stderr, "sardonyx: warning: the L1 difference %g is above the threshold %g\n", report.l1_difference,
            threshold);
    return EXIT_FINDING;
}

static int run(const cli_args *args)
{
    const char *name = cli_string(args, "model_name", NULL), *dir = cli_string(args, "output_dir", "models");
    if (!name) return cli_usage_error("convert needs --model_name");
    char *checkpoint = cli_find_checkpoint(args, name);
    if (!checkpoint) return EXIT_USAGE;
    int code = cli_make_directory(dir);
    if (code == EXIT_FINE) {
        char *output = cli_join(dir, cli_basename(name), ".onnx");
        char *vocabulary = cli_join(dir, cli_basename(name), "-vocab.txt");
        code = output && vocabulary ? convert_to(args, checkpoint, output, vocabulary) : cli_out_of_memory();
        free(output);
        free(vocabulary);
    }
    free(checkpoint);
    return code;
}

const cli_command cli_command_convert = {
    "convert", "--model_name X [options]",
    "make an ONNX file from a Hugging Face checkpoint folder\n\nWrites DIR/<name>.onnx and DIR/<name>-vocab.txt, or, of a "
    "sequence-to-sequence model, DIR/<name>/ with\nencoder_model.onnx, decoder_model.onnx, decoder_with_past_model.onnx, "
    "configuration and tokenizer; then "
    "runs the graph and an independent forward pass\nover the same text. Exit 1: they differ by more than the threshold.",
    "sardonyx convert --model_name ./splade-cocondenser --splade --output_dir models", options, run, 0};
