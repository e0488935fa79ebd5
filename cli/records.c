/* records.c: documents from JSON lines, TSV or plain text, one at a time; results into a file that appears whole. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#include "cli.h"

int cli_records_open(cli_records *in, const char *path)
{
    *in = (cli_records){.path = path && strcmp(path, "-") ? path : "standard input"};
    in->file = in->path == path ? fopen(path, "r") : stdin;
    return in->file ? EXIT_FINE : cli_usage_error("%s: cannot open: %s", path, strerror(errno));
}

void cli_records_close(cli_records *in)
{
    if (in->file && in->file != stdin) fclose(in->file);
    free(in->line);
    *in = (cli_records){0};
}

void cli_record_free(cli_record *r)
{
    free(r->id);
    free(r->text);
    free(r->pair);
    *r = (cli_record){0};
}

static char *copy_bytes(const char *s, size_t n)
{
    char *copy = malloc(n + 1);
    if (!copy) return NULL;
    memcpy(copy, s, n);
    copy[n] = 0;
    return copy;
}

static int bad_line(const cli_records *in, sdx_error *err, const char *what)
{
    err->status = SDX_ERR_FILE;
    snprintf(err->message, sizeof err->message, "%s: line %zu: %s", in->path, in->line_number, what);
    return -1;
}

/* An id may be a string or a number. */
static char *json_id(const json_t *id)
{
    if (json_is_string(id)) return copy_bytes(json_string_value(id), json_string_length(id));
    return json_is_integer(id) ? json_dumps(id, JSON_ENCODE_ANY) : NULL;
}

static int parse_json(cli_records *in, size_t n, cli_record *out, sdx_error *err)
{
    json_error_t at;
    json_t *object = json_loadb(in->line, n, JSON_ALLOW_NUL, &at);
    if (!json_is_object(object)) {
        json_decref(object);
        return bad_line(in, err, *at.text ? at.text : "not a JSON object");
    }
    const json_t *text = json_object_get(object, "contents");
    if (!text) text = json_object_get(object, "text");
    int got = 1;
    if (!json_is_string(text)) {
        got = bad_line(in, err, "has neither a \"contents\" nor a \"text\" string");
    } else {
        out->text_length = json_string_length(text);
        out->text = copy_bytes(json_string_value(text), out->text_length);
        out->id = json_id(json_object_get(object, "id"));
        const json_t *pair = json_object_get(object, "pair");
        out->pair_length = json_string_length(pair);
        if (json_is_string(pair)) out->pair = copy_bytes(json_string_value(pair), out->pair_length);
    }
    json_decref(object);
    return got;
}

static int parse_plain(cli_records *in, size_t n, cli_record *out)
{
    const char *tab = memchr(in->line, '\t', n);
    char number[32];
    snprintf(number, sizeof number, "%zu", in->line_number - 1);
    const char *text = tab ? tab + 1 : in->line;
    out->text_length = n - (size_t)(text - in->line);
    out->text = copy_bytes(text, out->text_length);
    out->id = tab ? copy_bytes(in->line, (size_t)(tab - in->line)) : copy_bytes(number, strlen(number));
    return 1;
}

int cli_records_next(cli_records *in, cli_record *out, sdx_error *err)
{
    *out = (cli_record){0};
    ssize_t got;
    do {
        got = getline(&in->line, &in->capacity, in->file);
        if (got < 0) return ferror(in->file) ? bad_line(in, err, strerror(errno)) : 0;
        in->line_number++;
        while (got > 0 && (in->line[got - 1] == '\n' || in->line[got - 1] == '\r')) got--;
    } while (got == 0);
    int parsed = in->line[0] == '{' ? parse_json(in, (size_t)got, out, err) : parse_plain(in, (size_t)got, out);
    if (parsed == 1 && !out->text) return bad_line(in, err, "out of memory");
    return parsed;
}

int cli_output_open(cli_output *out, const char *path)
{
    *out = (cli_output){.file = stdout};
    if (!path || !strcmp(path, "-")) return EXIT_FINE;
    size_t n = strlen(path) + 16;
    out->path = copy_bytes(path, strlen(path));
    out->temporary = malloc(n);
    if (!out->path || !out->temporary) return cli_usage_error("out of memory");
    snprintf(out->temporary, n, "%s.tmp-%d", path, (int)getpid());
    out->file = fopen(out->temporary, "w");
    if (out->file) return EXIT_FINE;
    int code = cli_usage_error("%s: cannot write: %s", path, strerror(errno));
    free(out->path);
    free(out->temporary);
    *out = (cli_output){0};
    return code;
}

int cli_output_close(cli_output *out, bool keep)
{
    int code = EXIT_FINE;
    if (out->path) {
        bool ok = !fflush(out->file) && !fsync(fileno(out->file));
        ok = !fclose(out->file) && ok;
        if (keep && (!ok || rename(out->temporary, out->path)))
            code = cli_usage_error("%s: cannot write: %s", out->path, strerror(errno));
        if (!keep || code != EXIT_FINE) unlink(out->temporary);
        free(out->path);
        free(out->temporary);
    }
    *out = (cli_output){0};
    return code;
}

size_t cli_records_window(cli_records *in, cli_record *out, size_t room, int *code)
{
    size_t n = 0;
    int got = 1;
    sdx_error err = {0};
    while (n < room && (got = cli_records_next(in, &out[n], &err)) == 1) n++;
    if (got >= 0) return n;
    *code = cli_fail(&err);
    while (n > 0) cli_record_free(&out[--n]);
    return 0;
}

static int each_window(cli_records *in, FILE *out, cli_window_fn fn, void *context)
{
    cli_record docs[CLI_WINDOW];
    int code = EXIT_FINE;
    for (size_t n; code == EXIT_FINE && (n = cli_records_window(in, docs, CLI_WINDOW, &code)) > 0;) {
        code = fn(context, docs, n, out);
        while (n > 0) cli_record_free(&docs[--n]);
    }
    return code;
}

int cli_documents(const cli_args *args, const char *output_path, cli_window_fn fn, void *context)
{
    const char *text = cli_string(args, "text", NULL), *pair = cli_string(args, "pair", NULL);
    cli_records in = {.file = NULL};
    cli_output out;
    int code = text ? EXIT_FINE : cli_records_open(&in, cli_string(args, "input", NULL));
    if (code != EXIT_FINE) return code;
    code = cli_output_open(&out, output_path ? output_path : cli_string(args, "output", NULL));
    if (code == EXIT_FINE) {
        cli_record one = {.id = (char[]){"0"}, .text = (char *)text, .pair = (char *)pair};
        one.text_length = text ? strlen(text) : 0;
        one.pair_length = pair ? strlen(pair) : 0;
        code = text ? fn(context, &one, 1, out.file) : each_window(&in, out.file, fn, context);
        int closed = cli_output_close(&out, code == EXIT_FINE);
        if (code == EXIT_FINE) code = closed;
    }
    cli_records_close(&in);
    return code;
}
