/* cmd_quantize.c: int8 and weight-only quantization of a file, or of all graphs of a folder. */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

static const cli_option options[] = {
    {"model_path", CLI_STRING, "IN", "the .onnx file, or a folder: all its graphs, say encoder and decoders"},
    {"output", CLI_STRING, "OUT",
     "default: IN with -8bit before .onnx (-4bit with --weight_only 4); of a folder, a folder"},
    {"preset", CLI_STRING, "NAME", "accurate (default), anserini, avx512_vnni, avx2, arm64"},
    {"weight_type", CLI_STRING, "TYPE", "QInt8 (default) or QUInt8"},
    {"per_channel", CLI_FLAG, NULL, "one weight scale per output column"},
    {"reduce_range", CLI_FLAG, NULL, "7-bit weights, for CPUs whose int8 products saturate"},
    {"op_types", CLI_STRING, "A,B,...",
     "of MatMul, Gemm, Gather, Attention, EmbedLayerNormalization (default: these) and Conv"},
    {"nodes_to_exclude", CLI_REST, "NODE...", "nodes to leave in float"},
    {"weight_only", CLI_INT, "BITS", "4 or 8: weights in blocks (MatMulNBits), activations stay float"},
    {"block_size", CLI_INT, "N", "weights that share a scale, with --weight_only; default 32"},
    {"static", CLI_FLAG, NULL, "activation scales are constants, found by --calibration"},
    {"calibration", CLI_STRING, "PATH",
     "a folder of cases (input_NAME.npy, in it or in folders below), or text lines or JSON lines"},
    {"tokenizer", CLI_STRING, "TOK", "for calibration by text: folder or tokenizer.json"},
    {"max_length", CLI_INT, "N", "tokens of a calibration text, default 128"},
    {"calibrate_method", CLI_STRING, "NAME", "range of an activation: minmax (default), entropy, percentile"},
    {"percentile", CLI_REAL, "P", "of a hundred, for --calibrate_method percentile; default 99.999"},
    {"format", CLI_STRING, "FORM", "qoperator (default), or qdq with --static"},
    {"report", CLI_FLAG, NULL, "a table of the layers: the error that each adds, the milliseconds it saves"},
    {"target", CLI_STRING, "GOAL",
     "\"cosine>=0.999\" or \"top10>=0.97\" to the float model on the calibration data: leaves in float what it must"},
    {"external_data", CLI_FLAG, NULL, "put the weights in a file of their own"},
    {NULL, CLI_FLAG, NULL, NULL},
};

/* ---- options --------------------------------------------------------------------------------------------- */

static int choice(const cli_args *args, const char *option, const char *const *names, int *out)
{
    const char *given = cli_string(args, option, names[0]);
    char known[128] = "";
    for (*out = 0; names[*out]; ++*out) {
        if (!strcmp(names[*out], given)) return EXIT_FINE;
        snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", *out ? ", " : "", names[*out]);
    }
    return cli_usage_error("--%s \"%s\": expected one of %s", option, given, known);
}

static int read_options(const cli_args *args, const char **exclude, sdx_quantize_options *o)
{
    static const char *const types[] = {"QInt8", "QUInt8", NULL}, *const formats[] = {"qoperator", "qdq", NULL};
    static const char *const methods[] = {"minmax", "percentile", "entropy", NULL};
    int type, format, method, code = choice(args, "weight_type", types, &type);
    if (code == EXIT_FINE) code = choice(args, "format", formats, &format);
    if (code == EXIT_FINE) code = choice(args, "calibrate_method", methods, &method);
    if (code != EXIT_FINE) return code;
    size_t n = 0;
    while (n < 256 && (exclude[n] = cli_nth(args, "nodes_to_exclude", n))) n++;
    *o = (sdx_quantize_options){
        .preset = cli_string(args, "preset", NULL),
        .per_channel = cli_flag(args, "per_channel"),
        .unsigned_weights = type == 1,
        .reduce_range = cli_flag(args, "reduce_range"),
        .op_types = cli_string(args, "op_types", NULL),
        .exclude = exclude,
        .n_exclude = n,
        .weight_bits = (int)cli_int(args, "weight_only", 0),
        .block_size = (int)cli_int(args, "block_size", 0),
        .is_static = cli_flag(args, "static"),
        .format = (sdx_quantize_format)format,
        .method = (sdx_quantize_method)method,
        .percentile = cli_real(args, "percentile", 0),
        .external_data = cli_flag(args, "external_data"),
        .report = cli_flag(args, "report"),
        .target = cli_string(args, "target", NULL),
    };
    if (o->is_static && !cli_string(args, "calibration", NULL))
        return cli_usage_error("--static needs --calibration with cases or texts");
    return EXIT_FINE;
}

/* ---- one graph ------------------------------------------------------------------------------------------- */

static void print_report_json(const char *output, const sdx_quantize_report *r)
{
    fputs("{\"output\": ", stdout);
    cli_json_string(stdout, output, strlen(output));
    printf(", \"quantized\": %zu, \"skipped\": %zu, \"cases\": %zu, \"bytes_before\": %llu, \"bytes_after\": %llu",
           r->quantized, r->skipped, r->cases, (unsigned long long)r->bytes_before, (unsigned long long)r->bytes_after);
    if (r->table) fputs(", \"report\": ", stdout);
    if (r->table) cli_json_string(stdout, r->table, strlen(r->table));
    fputs("}", stdout);
}

static void print_report(const char *output, const sdx_quantize_options *o, const sdx_quantize_report *r)
{
    if (r->table) fputs(r->table, stdout);
    printf("Wrote %s: %zu operators in int%d, %zu left in float; %.1f MB, before %.1f MB\n", output, r->quantized,
           o->weight_bits ? o->weight_bits : 8, r->skipped, (double)r->bytes_after / 1e6,
           (double)r->bytes_before / 1e6);
}

static int quantize_to(const cli_args *args, sdx_quantize_options *o, const char *input, const char *output)
{
    const char *calibration = cli_string(args, "calibration", NULL);
    cli_cases *cases = NULL;
    o->input = input;
    o->output = output;
    if (calibration) {
        int code = cli_cases_open(calibration, cli_string(args, "tokenizer", NULL),
                                  (size_t)cli_int(args, "max_length", 128), input, &cases);
        if (code != EXIT_FINE) return code;
        o->next_case = cli_cases_next;
        o->case_context = cases;
    }
    sdx_quantize_report r = {0};
    sdx_error err = {0};
    sdx_status status = sdx_quantize(o, &r, &err);
    cli_cases_close(cases);
    if (status != SDX_OK) return cli_fail(&err);
    if (cli_flag(args, "json")) print_report_json(output, &r);
    else print_report(output, o, &r);
    free(r.table);
    return EXIT_FINE;
}

/* ---- a folder -------------------------------------------------------------------------------------------- */

/* A graph that was not quantized before. */
static int is_source(const struct dirent *entry)
{
    const char *n = entry->d_name;
    return cli_ends_with(n, ".onnx") && !cli_ends_with(n, "-8bit.onnx") && !cli_ends_with(n, "-4bit.onnx") &&
           !cli_ends_with(n, "_quantized.onnx");
}

/* DIR/x.onnx -> OUT/x.onnx, or beside it with the suffix. */
static int quantize_entry(const cli_args *args, sdx_quantize_options *o, const char *folder, const char *name,
                          const char *suffix)
{
    const char *target = cli_string(args, "output", NULL);
    char *input = cli_join(folder, name, ""), *output = NULL;
    if (input) output = target ? cli_join(target, name, "") : cli_insert_suffix(input, suffix);
    int code = output ? quantize_to(args, o, input, output) : cli_out_of_memory();
    free(input);
    free(output);
    return code;
}

/* So that the folder of 8-bit graphs can be used as the first was. */
static int prepare_output(const char *folder, const char *target)
{
    sdx_error err = {0};
    int code = cli_make_directory(target);
    return code != EXIT_FINE ? code : sdx_copy_companions(folder, target, &err) == SDX_OK ? EXIT_FINE : cli_fail(&err);
}

static int quantize_folder(const cli_args *args, sdx_quantize_options *o, const char *folder,
                           const char *suffix)
{
    struct dirent **entry;
    const char *target = cli_string(args, "output", NULL);
    bool json = cli_flag(args, "json");
    int n = scandir(folder, &entry, is_source, alphasort), code = EXIT_FINE;
    if (n <= 0) code = cli_usage_error("%s: the folder holds no .onnx file to quantize", folder);
    else if (target) code = prepare_output(folder, target);
    o->allow_none = true;
    for (int i = 0; i < n; i++) {
        if (json && code == EXIT_FINE) fputs(i ? ", " : "{\"graphs\": [", stdout);
        if (code == EXIT_FINE) code = quantize_entry(args, o, folder, entry[i]->d_name, suffix);
        free(entry[i]);
    }
    if (n >= 0) free(entry);
    if (json && code == EXIT_FINE) fputs("]}\n", stdout);
    return code;
}

static int run(const cli_args *args)
{
    const char *input = cli_string(args, "model_path", args->n_positional ? args->positional[0] : NULL), *exclude[256];
    if (!input) return cli_usage_error("quantize needs --model_path");
    sdx_quantize_options o;
    int code = read_options(args, exclude, &o);
    if (code != EXIT_FINE) return code;
    const char *suffix = o.weight_bits == 4 ? "-4bit" : "-8bit";
    if (cli_is_directory(input)) return quantize_folder(args, &o, input, suffix);
    char *output = cli_rewrite_output(args, input, suffix);
    code = output ? quantize_to(args, &o, input, output) : cli_out_of_memory();
    if (code == EXIT_FINE && cli_flag(args, "json")) fputc('\n', stdout);
    free(output);
    return code;
}

const cli_command cli_command_quantize = {
    "quantize", "--model_path IN [options]",
    "make a graph's weights and products int8\n\nWeights int8, activations uint8 by scales found at run time (or, --static, by calibration). The default keeps "
    "the answers\nbest: one scale a column and, in this engine, a row. --per_channel, --reduce_range or --weight_type alone write what\nONNX "
    "Runtime's quantize_dynamic writes with them, --preset anserini what it writes by default.",
    "sardonyx quantize --model_path models/bert-optimized.onnx", options, run, 1};
