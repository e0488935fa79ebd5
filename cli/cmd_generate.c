/* cmd_generate.c: text from text, one line an answer. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

static const cli_option options[] = {
    {"model_name", CLI_STRING, "X", "folder with encoder_model.onnx and its decoders, or cached name"},
    {"model_path", CLI_STRING, "M",
     "that folder, or a decoder-only .onnx file, when the tokenizer is elsewhere"},
    {"tokenizer", CLI_STRING, "T", "folder with the tokenizer (default: the model's)"},
    {"input", CLI_STRING, "FILE", "JSON lines with text or contents, or plain lines (default: stdin)"},
    {"output", CLI_STRING, "FILE", "answers (default: stdout)"},
    {"text", CLI_STRING, "TEXT", "one text instead of --input"},
    {"num_beams", CLI_INT, "N", "1: greedy; else beam search"},
    {"max_new_tokens", CLI_INT, "N", "tokens after the prompt at most"},
    {"max_length", CLI_INT, "N", "ids in all at most"},
    {"min_length", CLI_INT, "N", "ids in all at least"},
    {"min_new_tokens", CLI_INT, "N", "tokens after the prompt at least"},
    {"length_penalty", CLI_REAL, "P", "beams: scores are divided by length to this power"},
    {"no_repeat_ngram_size", CLI_INT, "N", "no N tokens stand twice in an answer"},
    {"repetition_penalty", CLI_REAL, "P", "makes tokens that are there already less likely"},
    {"early_stopping", CLI_STRING, "WHEN", "beams: true, false or never"},
    {NULL, CLI_FLAG, NULL, NULL},
};

/* ---- options --------------------------------------------------------------------------------------------- */

/* A count from the command line over the one there is. */
static int take_size(const cli_args *args, const char *name, size_t *value)
{
    long given = cli_int(args, name, -1);
    if (!cli_string(args, name, NULL)) return EXIT_FINE;
    if (given < 0) return cli_usage_error("--%s is %ld; it cannot be negative", name, given);
    *value = (size_t)given;
    return EXIT_FINE;
}

static int take_early_stopping(const cli_args *args, sdx_early_stopping *value)
{
    static const struct {
        const char *word;
        sdx_early_stopping meaning;
    } words[] = {{"false", SDX_STOP_HEURISTIC}, {"true", SDX_STOP_EARLY}, {"never", SDX_STOP_NEVER}};
    const char *given = cli_string(args, "early_stopping", NULL);
    if (!given) return EXIT_FINE;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strcmp(given, words[i].word)) continue;
        *value = words[i].meaning;
        return EXIT_FINE;
    }
    return cli_usage_error("--early_stopping is true, false or never, not \"%s\"", given);
}

static int take_options(const cli_args *args, sdx_generate_options *o)
{
    const struct {
        const char *name;
        size_t *value;
    } sizes[] = {
        {"num_beams", &o->num_beams},           {"max_new_tokens", &o->max_new_tokens},
        {"max_length", &o->max_length},         {"min_length", &o->min_length},
        {"min_new_tokens", &o->min_new_tokens}, {"no_repeat_ngram_size", &o->no_repeat_ngram_size},
    };
    int code = EXIT_FINE;
    if (cli_string(args, "max_length", NULL)) o->max_new_tokens = 0; /* of the folder: it would win */
    if (cli_string(args, "min_length", NULL)) o->min_new_tokens = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes && code == EXIT_FINE; i++)
        code = take_size(args, sizes[i].name, sizes[i].value);
    o->length_penalty = cli_real(args, "length_penalty", o->length_penalty);
    o->repetition_penalty = cli_real(args, "repetition_penalty", o->repetition_penalty);
    return code == EXIT_FINE ? take_early_stopping(args, &o->early_stopping) : code;
}

/* ---- answers --------------------------------------------------------------------------------------------- */

/* {"id":..,"ids":[..],"text":".."}; id only when the document has one. */
static int write_json(FILE *f, const char *id, const int64_t *ids, size_t n, const char *text, size_t length)
{
    json_t *line = json_object(), *list = json_array();
    for (size_t i = 0; i < n; i++) json_array_append_new(list, json_integer(ids[i]));
    if (id) json_object_set_new(line, "id", json_string(id));
    json_object_set_new(line, "ids", list);
    json_object_set_new(line, "text", json_stringn(text, length));
    char *dump = json_dumps(line, JSON_COMPACT);
    json_decref(line);
    if (!dump) return cli_usage_error("out of memory");
    fprintf(f, "%s\n", dump);
    free(dump);
    return EXIT_FINE;
}

static int answer(const cli_args *args, sdx_generator *g, const sdx_generate_options *o, const cli_record *doc,
                  FILE *f)
{
    sdx_error err = {0};
    const int64_t *ids;
    size_t n, length;
    char *text;
    if (sdx_generator_run(g, o, (sdx_text){doc->text, doc->text_length}, &ids, &n, &err) != SDX_OK ||
        sdx_tokenizer_decode(sdx_generator_tokenizer(g), ids, n, true, &text, &length, &err) != SDX_OK)
        return cli_fail(&err);
    int code = EXIT_FINE;
    if (cli_flag(args, "json"))
        code = write_json(f, doc->id, ids, n, text, length);
    else
        fprintf(f, "%s\n", text);
    free(text);
    return code;
}

static int answer_file(const cli_args *args, sdx_generator *g, const sdx_generate_options *o, cli_records *in,
                       FILE *f)
{
    cli_record doc;
    int code = EXIT_FINE;
    while (code == EXIT_FINE && cli_records_window(in, &doc, 1, &code) == 1) {
        code = answer(args, g, o, &doc, f);
        fflush(f); /* the next may take a while */
        cli_record_free(&doc);
    }
    return code;
}

static int answer_all(const cli_args *args, sdx_generator *g)
{
    sdx_generate_options o = sdx_generator_defaults(g);
    const char *text = cli_string(args, "text", NULL);
    cli_records in = {0};
    cli_output out;
    int code = take_options(args, &o);
    if (code == EXIT_FINE && !text) code = cli_records_open(&in, cli_string(args, "input", NULL));
    if (code != EXIT_FINE) return code;
    code = cli_output_open(&out, cli_string(args, "output", NULL));
    if (code == EXIT_FINE) {
        cli_record one = {.text = (char *)text, .text_length = text ? strlen(text) : 0};
        code = text ? answer(args, g, &o, &one, out.file) : answer_file(args, g, &o, &in, out.file);
        int closed = cli_output_close(&out, code == EXIT_FINE);
        if (code == EXIT_FINE) code = closed;
    }
    cli_records_close(&in);
    return code;
}

static int run(const cli_args *args)
{
    sdx_task_options o;
    char *folder = NULL;
    int code = cli_task_options(args, 0, &o, &folder);
    if (code != EXIT_FINE) return code;
    o.max_length = 0; /* --max_length is of the answer; a text is cut where the tokenizer says */
    sdx_error err = {0};
    sdx_generator *g;
    if (sdx_generator_open(&o, &g, &err) == SDX_OK) {
        code = answer_all(args, g);
        sdx_generator_free(g);
    } else {
        code = cli_fail(&err);
    }
    free(folder);
    return code;
}

const cli_command cli_command_generate = {
    "generate",
    "--model_name X [--tokenizer T] [options]",
    "answer texts with a sequence-to-sequence model, or continue them with a decoder\n\nThe folder holds "
    "encoder_model.onnx, decoder_model.onnx and decoder_with_past_model.onnx (or decoder_model_merged.onnx), "
    "or one\n"
    "decoder-only model.onnx. Options that are not given are generation_config.json's. Ids equal those of "
    "transformers'\ngenerate(); a configuration that asks for sampling is answered greedily.",
    "sardonyx generate --model_name ./t5-small-onnx --text 'translate English to German: A fine day.' "
    "--num_beams 4",
    options,
    run};
