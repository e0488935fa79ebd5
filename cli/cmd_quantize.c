/* cmd_quantize.c: dynamic int8 quantization of a file. */
#include <stdlib.h>
#include <string.h>

#include "cli.h"

static const cli_option options[] = {
    {"model_path", CLI_STRING, "IN", "the .onnx file"},
    {"output", CLI_STRING, "OUT", "default: IN with -8bit before .onnx"},
    {"preset", CLI_STRING, "NAME", "accurate, anserini, avx512_vnni, avx2, arm64"},
    {"weight_type", CLI_STRING, "TYPE", "QInt8 (default) or QUInt8"},
    {"per_channel", CLI_FLAG, NULL, "one weight scale per output column"},
    {"reduce_range", CLI_FLAG, NULL, "7-bit weights, for CPUs whose int8 products saturate"},
    {"report", CLI_FLAG, NULL, "list the layers with the error that their weights got"},
    {"nodes_to_exclude", CLI_REST, "NODE...", "nodes to leave in float"},
    {"external_data", CLI_FLAG, NULL, "put the weights in a file of their own"},
    {NULL, CLI_FLAG, NULL, NULL},
};

static int quantize_to(const cli_args *args, const char *input, const char *output)
{
    const char *type = cli_string(args, "weight_type", "QInt8"), *exclude[256];
    bool is_unsigned = !strcmp(type, "QUInt8");
    if (!is_unsigned && strcmp(type, "QInt8")) return cli_usage_error("--weight_type is QInt8 or QUInt8, not \"%s\"", type);
    size_t n = 0;
    while (n < 256 && (exclude[n] = cli_nth(args, "nodes_to_exclude", n))) n++;
    sdx_quantize_options o = {
        .input = input,
        .output = output,
        .preset = cli_string(args, "preset", NULL),
        .per_channel = cli_flag(args, "per_channel"),
        .unsigned_weights = is_unsigned,
        .reduce_range = cli_flag(args, "reduce_range"),
        .exclude = exclude,
        .n_exclude = n,
        .external_data = cli_flag(args, "external_data"),
        .report = cli_flag(args, "report"),
    };
    sdx_quantize_report r;
    sdx_error err = {0};
    if (sdx_quantize(&o, &r, &err) != SDX_OK) return cli_fail(&err);
    if (r.table && !cli_flag(args, "json")) fputs(r.table, stdout);
    free(r.table);
    double before = (double)r.bytes_before / 1e6, after = (double)r.bytes_after / 1e6;
    if (cli_flag(args, "json"))
        printf("{\"output\": \"%s\", \"quantized\": %zu, \"skipped\": %zu, \"bytes_before\": %llu, \"bytes_after\": %llu}\n",
               output, r.quantized, r.skipped, (unsigned long long)r.bytes_before, (unsigned long long)r.bytes_after);
    else
        printf("Wrote %s: %zu operators in int8, %zu left in float; %.1f MB, before %.1f MB\n", output, r.quantized,
               r.skipped, after, before);
    return EXIT_FINE;
}

static int run(const cli_args *args)
{
    const char *input = cli_string(args, "model_path", args->n_positional ? args->positional[0] : NULL);
    if (!input) return cli_usage_error("quantize needs --model_path");
    char *output = cli_rewrite_output(args, input, "-8bit");
    int code = output ? quantize_to(args, input, output) : cli_usage_error("out of memory");
    free(output);
    return code;
}

const cli_command cli_command_quantize = {
    "quantize", "--model_path IN [options]",
    "make a graph's weights and products int8\n\nDynamic quantization: weights int8, activations uint8 at run time. Without a preset: what ONNX Runtime's "
    "quantize_dynamic\nwrites with the same options. --preset accurate keeps the answers best: one scale a column and, in this engine, a row.",
    "sardonyx quantize --model_path models/bert-optimized.onnx --per_channel", options, run};
