/* cmd_optimize.c: fuse a graph and write it. */
#include <stdlib.h>
#include <string.h>

#include "cli.h"

static const cli_option options[] = {
    {"model_path", CLI_STRING, "IN", "the .onnx file"},
    {"output", CLI_STRING, "OUT", "default: IN with -optimized before .onnx"},
    {"stats", CLI_FLAG, NULL, "print node counts before and after, and what was fused"},
    {"explain", CLI_FLAG, "text|json|html",
     "say what became of every attention, norm, GELU, embedding; exit 1 when one was missed"},
    {"model_type", CLI_STRING, "TYPE", "accepted for the tutorials' sake; the graph itself is read"},
    {"num_heads", CLI_INT, "N", "checked against what the graph says"},
    {"hidden_size", CLI_INT, "N", "checked against what the graph says"},
    {"target", CLI_STRING, "ort|std", "ort (default): for ONNX Runtime from 1.17 on; std: standard operators only"},
    {"fp16", CLI_FLAG, NULL, "weights of MatMul, Gather, attention, ... in float16; inputs and outputs stay float32"},
    {"bf16", CLI_FLAG, NULL, "the same in bfloat16, which ONNX Runtime does not run on a CPU"},
    {"only", CLI_STRING, "A,B", "run these passes only"},
    {"external_data", CLI_FLAG, NULL, "put the weights in a file of their own"},
    {NULL, CLI_FLAG, NULL, NULL},
};

static void print_stats(const char *title, const sdx_graph_stats *s)
{
    printf("%s model stats:\n", title);
    printf("Number of nodes: %zu\nNumber of inputs: %zu\nNumber of outputs: %zu\nInitializers: %zu\n", s->nodes,
           s->inputs, s->outputs, s->initializers);
    for (size_t i = 0; i < s->n_fused; i++)
        printf("%s%s: %zu\n", i ? "  " : "Fused operators:\n  ", s->fused[i].name, s->fused[i].count);
}

static void print_stats_json(const char *key, const sdx_graph_stats *s)
{
    printf("\"%s\": {\"nodes\": %zu, \"inputs\": %zu, \"outputs\": %zu, \"initializers\": %zu, \"fused\": {",
           key, s->nodes, s->inputs, s->outputs, s->initializers);
    for (size_t i = 0; i < s->n_fused; i++)
        printf("%s\"%s\": %zu", i ? ", " : "", s->fused[i].name, s->fused[i].count);
    printf("}}");
}

/* What came of it. */
typedef struct outcome {
    const char *output;
    sdx_graph_stats before, after;
    char *explanation; /* NULL if not asked; owned */
    size_t missed;
} outcome;

static void print_json(const outcome *o)
{
    fputs("{\"output\": ", stdout);
    cli_json_string(stdout, o->output, strlen(o->output));
    fputs(", ", stdout);
    print_stats_json("original", &o->before);
    fputs(", ", stdout);
    print_stats_json("optimized", &o->after);
    if (o->explanation) printf(", \"missed\": %zu, \"explain\": %s", o->missed, o->explanation);
    fputs("}\n", stdout);
}

/* whole: the explanation is JSON or a page, and stands on stdout alone. */
static void print_text(const outcome *o, bool stats, bool whole)
{
    if (stats && !whole) {
        print_stats("Original", &o->before);
        print_stats("Optimized", &o->after);
    }
    if (o->explanation) fputs(o->explanation, stdout);
    fprintf(whole ? stderr : stdout, "Wrote %s: %zu nodes, before %zu\n", o->output, o->after.nodes, o->before.nodes);
}

static int optimize_to(const cli_args *args, const char *input, const char *output)
{
    bool json = cli_flag(args, "json");
    const char *form = cli_string(args, "explain", NULL);
    outcome out = {.output = output};
    sdx_error err = {0}, unchecked = {0};
    const sdx_optimize_options o = {
        .input = input,
        .output = output,
        .only = cli_string(args, "only", NULL),
        .target = cli_string(args, "target", NULL),
        .weights = cli_flag(args, "fp16") ? "fp16" : cli_flag(args, "bf16") ? "bf16" : NULL,
        .model_type = cli_string(args, "model_type", NULL),
        .num_heads = (int)cli_int(args, "num_heads", 0),
        .hidden_size = (int)cli_int(args, "hidden_size", 0),
        .threads = (int)cli_int(args, "threads", 0),
        .isa = cli_string(args, "isa", NULL),
        .external_data = cli_flag(args, "external_data"),
        .explanation = cli_flag(args, "explain") ? &out.explanation : NULL,
        .explain_form = json ? "json" : form,
        .missed = &out.missed,
        .unchecked = &unchecked,
    };
    if (sdx_optimize(&o, &out.before, &out.after, &err) != SDX_OK) return cli_fail(&err);
    if (*unchecked.message)
        fprintf(stderr, "sardonyx: warning: not compared with the original, which fails: %s\n", unchecked.message);
    if (json) print_json(&out);
    else print_text(&out, cli_flag(args, "stats"), form && strcmp(form, "text"));
    free(out.explanation);
    return out.missed ? EXIT_FINDING : EXIT_FINE;
}

static int run(const cli_args *args)
{
    const char *input = cli_string(args, "model_path", args->n_positional ? args->positional[0] : NULL);
    if (!input) return cli_usage_error("optimize needs --model_path");
    char *output = cli_rewrite_output(args, input, "-optimized");
    int code = output ? optimize_to(args, input, output) : cli_out_of_memory();
    free(output);
    return code;
}

const cli_command cli_command_optimize = {"optimize",
                                          "--model_path IN [options]",
                                          "fuse a graph: attention, layer norms, GELU, embeddings\n\nThe "
                                          "optimized graph is run against the original before it "
                                          "is written.",
                                          "sardonyx optimize --model_path models/bert.onnx --stats",
                                          options,
                                          run, 1};
