/* cmd_tokenize.c: text to ids and back, JSON lines in and out. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include "cli.h"

static const cli_option options[] = {
    {"model_name", CLI_STRING, "TOK", "folder with tokenizer.json or vocab.txt, or one of these files"},
    {"max_length", CLI_INT, "N", "truncate to N tokens (a line's own max_length wins)"},
    {"text", CLI_STRING, "TEXT", "one text instead of lines from --input"},
    {"input", CLI_STRING, "FILE", "JSON lines (default: standard input)"},
    {"text_lines", CLI_FLAG, NULL, "the input is plain text, one text a line"},
    {"decode", CLI_FLAG, NULL, "the other way: {\"ids\": [...]} in, {\"text\": ...} out"},
    {"keep_special", CLI_FLAG, NULL, "with --decode: keep special tokens"},
    {NULL, CLI_FLAG, NULL, NULL},
};

static json_t *int_array(const int64_t *x, size_t n)
{
    json_t *a = json_array();
    for (size_t i = 0; i < n; i++) json_array_append_new(a, json_integer(x[i]));
    return a;
}

static void print_json_line(json_t *object)
{
    char *text = json_dumps(object, JSON_COMPACT);
    if (text) puts(text);
    free(text);
    json_decref(object);
}

static int encode(const sdx_tokenizer *tok, const char *text, size_t n, const char *pair, size_t m, size_t max_length)
{
    sdx_error err = {0};
    sdx_encoding e;
    if (sdx_tokenizer_encode(tok, text, n, pair, m, max_length, &e, &err) != SDX_OK) return cli_fail(&err);
    print_json_line(json_pack("{s:o, s:o}", "ids", int_array(e.ids, e.count), "token_type_ids",
                              int_array(e.type_ids, e.count)));
    sdx_encoding_free(&e);
    return EXIT_FINE;
}

static int encode_object(const sdx_tokenizer *tok, const json_t *line, size_t max_length)
{
    const json_t *text = json_object_get(line, "text"), *pair = json_object_get(line, "pair");
    const json_t *limit = json_object_get(line, "max_length");
    if (!json_is_string(text)) return cli_usage_error("a line has no \"text\" string");
    if (json_is_integer(limit) && json_integer_value(limit) > 0) max_length = (size_t)json_integer_value(limit);
    return encode(tok, json_string_value(text), json_string_length(text), json_string_value(pair),
                  json_string_length(pair), max_length);
}

static int decode_object(const sdx_tokenizer *tok, const json_t *line, bool keep_special)
{
    const json_t *list = json_object_get(line, "ids");
    if (!json_is_array(list)) return cli_usage_error("a line has no \"ids\" list");
    size_t n = json_array_size(list);
    int64_t *ids = malloc((n + 1) * sizeof *ids);
    if (!ids) return cli_usage_error("out of memory");
    for (size_t i = 0; i < n; i++) ids[i] = json_integer_value(json_array_get(list, i));
    char *text;
    size_t length;
    sdx_error err = {0};
    sdx_status status = sdx_tokenizer_decode(tok, ids, n, !keep_special, &text, &length, &err);
    free(ids);
    if (status != SDX_OK) return cli_fail(&err);
    print_json_line(json_pack("{s:s%}", "text", text, length));
    free(text);
    return EXIT_FINE;
}

static int handle_line(const sdx_tokenizer *tok, const cli_args *args, const char *line, size_t n, size_t number)
{
    size_t max_length = (size_t)cli_int(args, "max_length", 0);
    if (cli_flag(args, "text_lines")) return encode(tok, line, n, NULL, 0, max_length);
    json_error_t at;
    json_t *object = json_loadb(line, n, JSON_ALLOW_NUL, &at);
    if (!json_is_object(object)) {
        json_decref(object);
        return cli_usage_error("line %zu is not a JSON object: %s (plain text needs --text_lines)", number, at.text);
    }
    int code = cli_flag(args, "decode") ? decode_object(tok, object, cli_flag(args, "keep_special"))
                                        : encode_object(tok, object, max_length);
    json_decref(object);
    return code;
}

static int handle_file(const sdx_tokenizer *tok, const cli_args *args)
{
    cli_records in;
    int code = cli_records_open(&in, cli_string(args, "input", NULL));
    if (code != EXIT_FINE) return code;
    ssize_t n;
    while (code == EXIT_FINE && (n = getline(&in.line, &in.capacity, in.file)) >= 0) {
        in.line_number++;
        if (n > 0 && in.line[n - 1] == '\n') n--;
        code = handle_line(tok, args, in.line, (size_t)n, in.line_number);
    }
    cli_records_close(&in);
    return code;
}

static int run(const cli_args *args)
{
    const char *name = cli_string(args, "model_name", NULL), *text = cli_string(args, "text", NULL);
    if (!name) return cli_usage_error("tokenize needs --model_name");
    sdx_error err = {0};
    sdx_tokenizer *tok;
    if (sdx_tokenizer_open(name, &tok, &err) != SDX_OK) return cli_fail(&err);
    int code = text ? encode(tok, text, strlen(text), NULL, 0, (size_t)cli_int(args, "max_length", 0))
                    : handle_file(tok, args);
    sdx_tokenizer_free(tok);
    return code;
}

const cli_command cli_command_tokenize = {
    "tokenize", "--model_name TOK [options]", "turn text into token ids, or ids into text",
    "echo '{\"text\": \"what is AI?\"}' | sardonyx tokenize --model_name ./bert-base-uncased", options, run};
