/* records.c: documents from JSON lines, TSV or plain text, one at a time; results into a file that appears whole. What
 * the lines are, the file's name says, or else its first line. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"

int cli_record_error(sdx_error *err, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    err->status = SDX_ERR_FILE;
    vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    return -1;
}

/* What lines of a file with such a name are, with or without .gz. */
static cli_line_form form_of_name(const char *path)
{
    static const struct {
        const char *end;
        cli_line_form form;
    } known[] = {{".jsonl", CLI_JSON_LINES}, {".ndjson", CLI_JSON_LINES}, {".json", CLI_JSON_LINES},
                 {".tsv", CLI_TSV_LINES},    {".txt", CLI_TEXT_LINES}};
    size_t n = path ? strlen(path) : 0;
    if (n > 3 && !strcmp(path + n - 3, ".gz")) n -= 3;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        size_t m = strlen(known[i].end);
        if (n > m && !strncmp(path + n - m, known[i].end, m)) return known[i].form;
    }
    return CLI_UNKNOWN_LINES;
}

int cli_records_open(cli_records *in, const char *path)
{
    sdx_error err = {0};
    *in = (cli_records){.path = path && strcmp(path, "-") ? path : "standard input", .form = form_of_name(path)};
    return cli_lines_open(path, &in->lines, &err) < 0 ? cli_fail(&err) : EXIT_FINE;
}

void cli_records_close(cli_records *in)
{
    cli_lines_close(in->lines);
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
    return cli_record_error(err, "%s: line %zu: %s", in->path, in->line_number, what);
}

/* An id may be a string or a whole number, or absent. */
static int take_id(const cli_records *in, const json_t *id, cli_record *out, sdx_error *err)
{
    if (!id || json_is_null(id)) return 1;
    const char *text = json_string_value(id);
    if (text && strlen(text) < json_string_length(id)) return bad_line(in, err, "its id has a NUL character");
    if (!text && !json_is_integer(id)) return bad_line(in, err, "its id is neither a string nor a whole number");
    out->id = text ? copy_bytes(text, strlen(text)) : json_dumps(id, JSON_ENCODE_ANY);
    return out->id ? 1 : bad_line(in, err, "out of memory");
}

static int take_texts(const cli_records *in, const json_t *object, cli_record *out, sdx_error *err)
{
    const json_t *text = json_object_get(object, "contents"), *pair = json_object_get(object, "pair");
    if (!text) text = json_object_get(object, "text");
    if (!pair) pair = json_object_get(object, "text_pair");
    if (!json_is_string(text)) return bad_line(in, err, "has neither a \"contents\" nor a \"text\" string");
    out->text_length = json_string_length(text);
    out->text = copy_bytes(json_string_value(text), out->text_length);
    out->pair_length = json_string_length(pair);
    if (json_is_string(pair)) out->pair = copy_bytes(json_string_value(pair), out->pair_length);
    return out->text ? 1 : bad_line(in, err, "out of memory");
}

static int parse_json(const cli_records *in, const char *line, size_t n, cli_record *out, sdx_error *err)
{
    json_error_t at = {.text = ""};
    json_t *object = json_loadb(line, n, JSON_ALLOW_NUL, &at);
    if (!json_is_object(object)) {
        json_decref(object);
        return cli_record_error(err, "%s: line %zu: not a JSON object%s%s", in->path, in->line_number,
                                *at.text ? ": " : "", at.text);
    }
    int got = take_id(in, json_object_get(object, "id"), out, err);
    if (got == 1) got = take_texts(in, object, out, err);
    json_decref(object);
    return got;
}

static int parse_tsv(const cli_records *in, const char *line, size_t n, cli_record *out, sdx_error *err)
{
    const char *tab = memchr(line, '\t', n);
    if (!tab) return bad_line(in, err, "has no tab between an id and a text");
    const char *end = line + n, *text = tab + 1, *second = in->pairs ? memchr(text, '\t', (size_t)(end - text)) : NULL;
    out->id = copy_bytes(line, (size_t)(tab - line));
    out->text_length = (size_t)((second ? second : end) - text);
    out->text = copy_bytes(text, out->text_length);
    if (!second) return 1;
    out->pair_length = (size_t)(end - second - 1);
    out->pair = copy_bytes(second + 1, out->pair_length);
    return out->pair ? 1 : bad_line(in, err, "out of memory");
}

static int parse_text(const cli_records *in, const char *line, size_t n, cli_record *out)
{
    char number[32];
    snprintf(number, sizeof number, "%zu", in->line_number - 1);
    out->id = copy_bytes(number, strlen(number));
    out->text_length = n;
    out->text = copy_bytes(line, n);
    return 1;
}

/* What the lines are, by the first one. */
static cli_line_form form_of_line(const char *line, size_t n)
{
    size_t blanks = strspn(line, " ");
    if (blanks < n && line[blanks] == '{') return CLI_JSON_LINES;
    return memchr(line, '\t', n) ? CLI_TSV_LINES : CLI_TEXT_LINES;
}

int cli_records_line(cli_records *in, const char **line, size_t *n, sdx_error *err)
{
    static const char mark[] = "\xef\xbb\xbf"; /* byte order mark, in front of what some editors write */
    int got;
    do {
        got = cli_lines_next(in->lines, line, n, err);
        if (got <= 0) return got;
        if (in->line_number++ == 0 && *n >= 3 && !memcmp(*line, mark, 3)) {
            *line += 3;
            *n -= 3;
        }
        while (*n > 0 && (*line)[*n - 1] == '\r') --*n;
    } while (*n == 0);
    if (in->form == CLI_UNKNOWN_LINES) in->form = form_of_line(*line, *n);
    return 1;
}

int cli_records_parse(const cli_records *in, const char *line, size_t n, cli_record *out, sdx_error *err)
{
    if (n >= CLI_LONGEST_LINE) return bad_line(in, err, "is longer than 64 MB");
    int parsed = in->form == CLI_JSON_LINES  ? parse_json(in, line, n, out, err)
                 : in->form == CLI_TSV_LINES ? parse_tsv(in, line, n, out, err)
                                             : parse_text(in, line, n, out);
    return parsed == 1 && !out->text ? bad_line(in, err, "out of memory") : parsed;
}

int cli_records_next(cli_records *in, cli_record *out, sdx_error *err)
{
    const char *line;
    size_t n;
    *out = (cli_record){0};
    int got = cli_records_line(in, &line, &n, err);
    return got == 1 ? cli_records_parse(in, line, n, out, err) : got;
}

size_t cli_records_window(cli_records *in, cli_record *out, size_t room, int *code)
{
    size_t n = 0;
    int got = 1;
    sdx_error err = {0};
    while (n < room && (got = cli_records_next(in, &out[n], &err)) == 1) n++;
    if (got >= 0) return n;
    *code = cli_fail(&err);
    cli_record_free(&out[n]);
    while (n > 0) cli_record_free(&out[--n]);
    return 0;
}

bool cli_is_stdout(const char *path)
{
    return !path || !strcmp(path, "-") || !strcmp(path, "/dev/stdout") || !strcmp(path, "/dev/fd/1");
}

bool cli_is_stream(const char *path)
{
    struct stat about;
    bool open_already = !strncmp(path, "/dev/std", 8) || !strncmp(path, "/dev/fd/", 8); /* whatever it leads to */
    return open_already || (!stat(path, &about) && !S_ISREG(about.st_mode) && !S_ISDIR(about.st_mode));
}

int cli_check_output(const cli_args *args)
{
    const char *output = cli_string(args, "output", NULL), *input = cli_string(args, "input", NULL);
    struct stat out, in;
    if (!output || !strcmp(output, "-") || stat(output, &out)) return EXIT_FINE;
    if (S_ISDIR(out.st_mode)) return cli_usage_error("%s: is a folder; --output is a file", output);
    if (!input || !strcmp(input, "-") || stat(input, &in) || !S_ISREG(in.st_mode)) return EXIT_FINE;
    if (in.st_dev != out.st_dev || in.st_ino != out.st_ino) return EXIT_FINE;
    return cli_usage_error("%s: is the input; results in its place would destroy it", output);
}

int cli_output_open(cli_output *out, const char *path)
{
    char suffix[32];
    *out = (cli_output){.file = stdout};
    if (cli_is_stdout(path)) return EXIT_FINE;
    snprintf(suffix, sizeof suffix, ".tmp-%d", (int)getpid());
    return cli_output_open_as(out, path, suffix);
}

int cli_output_open_as(cli_output *out, const char *path, const char *suffix)
{
    size_t n = strlen(path) + strlen(suffix) + 1;
    bool stream = cli_is_stream(path);
    *out = (cli_output){0};
    out->path = copy_bytes(path, strlen(path));
    out->temporary = stream ? NULL : malloc(n);
    if (!out->path || (!stream && !out->temporary)) return cli_out_of_memory();
    if (!stream) snprintf(out->temporary, n, "%s%s", path, suffix);
    out->file = stream ? fopen(path, "a") : fopen(out->temporary, "w");
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
        bool beside = out->temporary != NULL;
        errno = ferror(out->file) ? EIO : 0; /* an earlier write failed, and what it said is gone */
        bool ok = !errno && !fflush(out->file) && (!beside || !fsync(fileno(out->file)));
        ok = !fclose(out->file) && ok;
        if (keep && (!ok || (beside && rename(out->temporary, out->path))))
            code = cli_usage_error("%s: cannot write: %s", out->path, strerror(errno));
        if (beside && (!keep || code != EXIT_FINE)) unlink(out->temporary);
        free(out->path);
        free(out->temporary);
    }
    *out = (cli_output){0};
    return code;
}
