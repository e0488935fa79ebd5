/* cmd_tokenize.c: text to ids and back, JSON lines in and out. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include "cli.h"

static const cli_option options[] = {
    {"model_name", CLI_STRING, "TOK",
     "folder with tokenizer.json, vocab.txt, vocab.json or a SentencePiece model, or such a file"},
    {"max_length", CLI_INT, "N", "truncate to N tokens (a line's own max_length wins)"},
    {"text", CLI_STRING, "TEXT", "one text instead of lines from --input"},
    {"input", CLI_STRING, "FILE", "JSON lines (default: standard input)"},
    {"text_lines", CLI_FLAG, NULL, "the input is plain text, one text a line"},
    {"as_configured", CLI_FLAG, NULL,
     "truncate and pad as tokenizer.json itself says, all lines one batch; also prints attention_mask and overflowing"},
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

static int encode(const sdx_tokenizer *tok, const char *text, size_t n, const char *pair, size_t m,
                  size_t max_length)
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

/* ---- --as_configured ------------------------------------------------------------------------------------- */

typedef struct batch {
    sdx_text *text, *pair; /* [count]; they point into line[] */
    json_t **line;         /* [count], owned */
    size_t count, room;
} batch;

static sdx_text text_of(const json_t *string)
{
    return (sdx_text){json_string_value(string), json_string_length(string)};
}

/* Takes the line over. */
static int batch_add(batch *b, json_t *line)
{
    if (b->count == b->room) {
        size_t room = b->room ? 2 * b->room : 256;
        sdx_text *text = realloc(b->text, room * sizeof *text);
        if (text) b->text = text;
        sdx_text *pair = realloc(b->pair, room * sizeof *pair);
        if (pair) b->pair = pair;
        json_t **lines = realloc(b->line, room * sizeof *lines);
        if (lines) b->line = lines;
        if (!text || !pair || !lines) {
            json_decref(line);
            return cli_out_of_memory();
        }
        b->room = room;
    }
    const json_t *text = json_is_string(line) ? line : json_object_get(line, "text");
    b->text[b->count] = text_of(text);
    b->pair[b->count] = text_of(json_object_get(line, "pair"));
    b->line[b->count++] = line;
    return json_is_string(text) ? EXIT_FINE : cli_usage_error("line %zu has no \"text\" string", b->count);
}

static void batch_free(batch *b)
{
    for (size_t i = 0; i < b->count; i++) json_decref(b->line[i]);
    free(b->text);
    free(b->pair);
    free(b->line);
}

static json_t *attention_mask(const sdx_encoding *e, bool left)
{
    json_t *a = json_array();
    for (size_t i = 0; i < e->count; i++) {
        bool padding = left ? i < e->padding : i >= e->count - e->padding;
        json_array_append_new(a, json_integer(!padding));
    }
    return a;
}

static json_t *encoding_json(const sdx_encoding *e, bool left)
{
    json_t *overflow = json_array();
    for (size_t i = 0; i < e->overflow_count; i++)
        json_array_append_new(overflow, encoding_json(&e->overflow[i], left));
    return json_pack("{s:o, s:o, s:o, s:o}", "ids", int_array(e->ids, e->count), "token_type_ids",
                     int_array(e->type_ids, e->count), "attention_mask", attention_mask(e, left), "overflowing",
                     overflow);
}

static int encode_batch(const sdx_tokenizer *tok, const batch *b)
{
    const sdx_padding *padding = sdx_tokenizer_padding(tok);
    sdx_encoding *e = calloc(b->count + 1, sizeof *e);
    sdx_error err = {0};
    if (!e) return cli_out_of_memory();
    sdx_status status = sdx_tokenizer_encode_batch(tok, b->text, b->pair, b->count, sdx_tokenizer_truncation(tok),
                                                   padding, e, &err);
    for (size_t i = 0; status == SDX_OK && i < b->count; i++) {
        print_json_line(encoding_json(&e[i], padding && padding->left));
        sdx_encoding_free(&e[i]);
    }
    free(e);
    return status == SDX_OK ? EXIT_FINE : cli_fail(&err);
}

/* ---- lines ----------------------------------------------------------------------------------------------- */

static int decode_object(const sdx_tokenizer *tok, const json_t *line, bool keep_special)
{
    const json_t *list = json_object_get(line, "ids");
    if (!json_is_array(list)) return cli_usage_error("a line has no \"ids\" list");
    size_t n = json_array_size(list);
    int64_t *ids = malloc((n + 1) * sizeof *ids);
    if (!ids) return cli_out_of_memory();
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

/* all: NULL, or where the line waits for the others. */
static int handle_line(const sdx_tokenizer *tok, const cli_args *args, const char *line, size_t n,
                       size_t number,
                       batch *all)
{
    size_t max_length = (size_t)cli_int(args, "max_length", 0);
    if (cli_flag(args, "text_lines") && all) return batch_add(all, json_stringn_nocheck(line, n));
    if (cli_flag(args, "text_lines")) return encode(tok, line, n, NULL, 0, max_length);
    json_error_t at;
    json_t *object = json_loadb(line, n, JSON_ALLOW_NUL, &at);
    if (!json_is_object(object)) {
        json_decref(object);
        return cli_usage_error("line %zu is not a JSON object: %s (plain text needs --text_lines)", number, at.text);
    }
    if (all) return batch_add(all, object);
    int code = cli_flag(args, "decode") ? decode_object(tok, object, cli_flag(args, "keep_special"))
                                        : encode_object(tok, object, max_length);
    json_decref(object);
    return code;
}

static int handle_file(const sdx_tokenizer *tok, const cli_args *args)
{
    cli_records in;
    batch all = {0};
    bool configured = cli_flag(args, "as_configured");
    int code = cli_records_open(&in, cli_string(args, "input", NULL));
    if (code != EXIT_FINE) return code;
    sdx_error err = {0};
    const char *line;
    size_t n;
    while (code == EXIT_FINE && cli_lines_next(in.lines, &line, &n, &err) == 1)
        code = handle_line(tok, args, line, n, ++in.line_number, configured ? &all : NULL);
    if (code == EXIT_FINE && err.status != SDX_OK) code = cli_fail(&err);
    cli_records_close(&in);
    if (configured && code == EXIT_FINE) code = encode_batch(tok, &all);
    batch_free(&all);
    return code;
}

static int run(const cli_args *args)
{
    const char *name = cli_string(args, "model_name", NULL), *text = cli_string(args, "text", NULL);
    if (!name) return cli_usage_error("tokenize needs --model_name");
    if (cli_flag(args, "as_configured") && (text || cli_flag(args, "decode") || cli_int(args, "max_length", 0)))
        return cli_usage_error(
            "--as_configured goes with lines of text alone, not with --text, --decode, --max_length");
    if (text && cli_flag(args, "decode")) return cli_usage_error("--decode reads ids from --input, not --text");
    sdx_tokenizer *tok;
    int code = cli_open_tokenizer(args, name, &tok);
    if (code != EXIT_FINE) return code;
    code = text ? encode(tok, text, strlen(text), NULL, 0, (size_t)cli_int(args, "max_length", 0))
                    : handle_file(tok, args);
    sdx_tokenizer_free(tok);
    return code;
}

const cli_command cli_command_tokenize = {
    "tokenize", "--model_name TOK [options]", "turn text into token ids, or ids into text",
    "echo '{\"text\": \"what is AI?\"}' | sardonyx tokenize --model_name ./bert-base-uncased", options, run, 0};
