/* corpus.c: a corpus through a task: windows of documents, results in the order of the input, a bad line as a record of
 * its own, shards, and what a person at a terminal wants to know meanwhile. Memory is that of one window. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"

enum { WINDOW_BYTES = 8 << 20, BAD_SHOWN = 10 };

typedef struct shard {
    long index, count;
} shard;

typedef struct entry { /* a line of the input */
    cli_record record;
    char *error; /* NULL: the record is good */
} entry;

typedef struct corpus {
    const cli_task *task;
    cli_records in;
    cli_journal *out;
    cli_position at;
    shard shard;
    entry *entry;     /* [CLI_WINDOW] */
    cli_record *good; /* [CLI_WINDOW]: views of the good ones */
    size_t count;
    char *piece; /* what a document's write gives; owned, by open_memstream */
    size_t piece_size;
    FILE *piece_file;
    bool loud; /* progress */
    double start, shown; /* seconds, as cli_now has them */
    uint64_t skipped, skipped_bytes; /* done by an earlier run: documents, bytes of the input */
} corpus;

/* ---- pieces of output ------------------------------------------------------------------------------------ */

bool cli_ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

/* Bytes of the UTF-8 character at s, or 0 (Unicode 15, table 3-7). */
static size_t utf8_length(const unsigned char *s, size_t n)
{
    if (s[0] < 0x80) return 1;
    size_t length = s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0;
    if (length == 0 || length > n) return 0;
    unsigned char low = s[0] == 0xe0   ? 0xa0
                        : s[0] == 0xf0 ? 0x90
                                       : 0x80,
                  high = s[0] == 0xed   ? 0x9f
                         : s[0] == 0xf4 ? 0x8f
                                        : 0xbf;
    if (s[1] < low || s[1] > high) return 0;
    for (size_t i = 2; i < length; i++)
        if ((s[i] & 0xc0) != 0x80) return 0;
    return length;
}

void cli_json_string(FILE *out, const char *s, size_t n)
{
    const unsigned char *p = (const unsigned char *)s;
    fputc('"', out);
    for (size_t i = 0; i < n;) {
        size_t length = utf8_length(p + i, n - i);
        if (length == 0) fputs("\xef\xbf\xbd", out);
        else if (p[i] == '"' || p[i] == '\\') fprintf(out, "\\%c", p[i]);
        else if (p[i] < ' ') fprintf(out, "\\u%04x", p[i]);
        else fwrite(p + i, 1, length, out);
        i += length ? length : 1;
    }
    fputc('"', out);
}

int cli_write_bad(void *context, const cli_record *doc, const char *error, FILE *out)
{
    (void)context;
    fputs("{\"id\":", out);
    cli_json_string(out, doc->id, strlen(doc->id));
    fputs(",\"error\":", out);
    cli_json_string(out, error, strlen(error));
    fputs("}\n", out);
    return EXIT_FINE;
}

/* The piece that was just written goes to the journal. */
static int pass_on(corpus *c, int code)
{
    fflush(c->piece_file);
    if (code == EXIT_FINE) code = cli_journal_write(c->out, c->piece, (size_t)ftello(c->piece_file));
    rewind(c->piece_file);
    return code;
}

static int write_bad(corpus *c, const cli_record *doc, const char *error)
{
    if (c->at.bad++ < BAD_SHOWN) fprintf(stderr, "sardonyx: %s\n", error);
    c->at.written++;
    if (!c->task->write_bad) return EXIT_FINE;
    return pass_on(c, c->task->write_bad(c->task->context, doc, error, c->piece_file));
}

static int write_good(corpus *c, const cli_record *doc, size_t i)
{
    c->at.written++;
    return pass_on(c, c->task->write(c->task->context, doc, i, c->piece_file));
}

/* ---- progress -------------------------------------------------------------------------------------------- */

static void show_progress(corpus *c, bool last)
{
    if (!c->loud || (!last && cli_now() - c->shown < 0.5)) return;
    c->shown = cli_now();
    uint64_t consumed, total, done = c->at.written - c->skipped;
    cli_lines_progress(c->in.lines, &consumed, &total);
    double elapsed = cli_now() - c->start, rate = (double)done / (elapsed > 0 ? elapsed : 1);
    fprintf(stderr, "\r%llu documents, %.1f a second", (unsigned long long)c->at.written, rate);
    if (!last && total > consumed && consumed > c->skipped_bytes) {
        long left = (long)(elapsed * (double)(total - consumed) / (double)(consumed - c->skipped_bytes));
        fprintf(stderr, ", %ld:%02ld:%02ld left", left / 3600, left / 60 % 60, left % 60);
    }
    fprintf(stderr, "\033[K%s", last ? "\n" : "");
}

/* ---- a window -------------------------------------------------------------------------------------------- */

static void drop_window(corpus *c)
{
    for (; c->count > 0; c->count--) {
        cli_record_free(&c->entry[c->count - 1].record);
        free(c->entry[c->count - 1].error);
    }
    cli_give_back_memory();
}

/* One line as an entry: a record, or what is wrong with it. A document without an id gets its line's number from 0. */
static bool take_line(corpus *c, const char *line, size_t n)
{
    entry *e = &c->entry[c->count];
    sdx_error err = {0};
    char number[32];
    *e = (entry){.error = NULL};
    if (cli_records_parse(&c->in, line, n, &e->record, &err) < 0) e->error = strdup(err.message);
    snprintf(number, sizeof number, "%zu", c->in.line_number - 1);
    if (!e->record.id) e->record.id = strdup(number);
    c->count++;
    return e->record.id && (e->error || err.status == SDX_OK);
}

/* Fills the window with documents of this shard. Its end depends on the documents alone. EXIT_FINE also at the end. */
static int read_window(corpus *c)
{
    sdx_error err = {0};
    const char *line;
    size_t n, bytes = 0;
    int got = 1;
    while (c->count < CLI_WINDOW && bytes < WINDOW_BYTES && (got = cli_records_line(&c->in, &line, &n, &err)) == 1) {
        if (c->at.documents++ % (uint64_t)c->shard.count != (uint64_t)c->shard.index) continue;
        if (!take_line(c, line, n)) return cli_out_of_memory();
        bytes += n;
    }
    c->at.lines = c->in.line_number;
    return got < 0 ? cli_fail(&err) : EXIT_FINE;
}

/* A document of the window is at fault: each for itself. */
static int run_singly(corpus *c)
{
    int code = EXIT_FINE;
    for (size_t i = 0; i < c->count && code == EXIT_FINE; i++) {
        const entry *e = &c->entry[i];
        sdx_error err = {0};
        if (e->error) code = write_bad(c, &e->record, e->error);
        else if (c->task->run(c->task->context, &e->record, 1, &err) == SDX_OK) code = write_good(c, &e->record, 0);
        else if (err.status == SDX_ERR_USAGE) code = write_bad(c, &e->record, err.message);
        else code = cli_fail(&err);
    }
    return code;
}

static int run_window(corpus *c)
{
    size_t n = 0;
    sdx_error err = {0};
    int code = EXIT_FINE;
    for (size_t i = 0; i < c->count; i++)
        if (!c->entry[i].error) c->good[n++] = c->entry[i].record;
    if (n > 0 && c->task->run(c->task->context, c->good, n, &err) != SDX_OK)
        return err.status == SDX_ERR_USAGE ? run_singly(c) : cli_fail(&err);
    n = 0;
    for (size_t i = 0; i < c->count && code == EXIT_FINE; i++) {
        const entry *e = &c->entry[i];
        code = e->error ? write_bad(c, &e->record, e->error) : write_good(c, &e->record, n++);
    }
    return code;
}

static int each_window(corpus *c)
{
    int code = EXIT_FINE;
    bool more = true;
    while (code == EXIT_FINE && more) {
        code = read_window(c);
        more = c->count > 0;
        if (code == EXIT_FINE && more) code = run_window(c);
        if (code == EXIT_FINE && more) code = cli_journal_commit(c->out, &c->at);
        if (code == EXIT_FINE && more) show_progress(c, false);
        drop_window(c);
    }
    return code;
}

/* ---- shards ---------------------------------------------------------------------------------------------- */

/* i/n with 0 <= i <= n: shard n is shard 0, so that counting from 0 and from 1 both share all documents out. */
static int parse_shard(const char *text, shard *s)
{
    char *end;
    s->index = strtol(text, &end, 10);
    if (end > text && *end == '/' && end[1] >= '0' && end[1] <= '9') s->count = strtol(end + 1, &end, 10);
    if (*end || s->count < 1 || s->index < 0 || s->index > s->count)
        return cli_usage_error("--shard is i/n with i from 0 to n - 1 (or from 1 to n), not \"%s\"", text);
    s->index %= s->count;
    return EXIT_FINE;
}

static long number_in(const char *name, long missing)
{
    const char *value = getenv(name);
    return value && *value ? strtol(value, NULL, 10) : missing;
}

/* What the scheduler that started us says: SLURM's job arrays, or an indexed job of Kubernetes, which does not tell its
 * tasks how many they are: JOB_COMPLETIONS has to. */
static int scheduler_shard(const cli_args *args, shard *s)
{
    const char *whence = getenv("SLURM_ARRAY_TASK_ID") ? "SLURM_ARRAY_TASK_ID" : "JOB_COMPLETION_INDEX";
    if (!getenv(whence)) return EXIT_FINE;
    if (*whence == 'S') {
        long first = number_in("SLURM_ARRAY_TASK_MIN", 0), step = number_in("SLURM_ARRAY_TASK_STEP", 1);
        s->count = number_in("SLURM_ARRAY_TASK_COUNT", 0);
        s->index = (number_in(whence, 0) - first) / (step > 0 ? step : 1);
    } else {
        s->count = number_in("JOB_COMPLETIONS", 0);
        s->index = number_in(whence, 0);
    }
    if (s->count < 1)
        return cli_usage_error("%s is set, but not how many there are (%s); give --shard i/n, or 0/1 for all", whence,
                               *whence == 'S' ? "SLURM_ARRAY_TASK_COUNT" : "JOB_COMPLETIONS");
    if (s->index < 0 || s->index >= s->count)
        return cli_usage_error("%s gives shard %ld of %ld; --shard i/n overrides it", whence, s->index, s->count);
    if (!cli_flag(args, "quiet"))
        fprintf(stderr, "sardonyx: shard %ld/%ld, by %s (--shard 0/1 takes all)\n", s->index, s->count, whence);
    return EXIT_FINE;
}

/* ---- all of it ------------------------------------------------------------------------------------------- */

/* What must be the same for a run to go on: the options that decide what is written, and which input. */
static char *resume_key(const cli_args *args, const corpus *c)
{
    static const char *const free_ones[] = {"output", "threads", "quiet", "json", "resume", "shard"};
    char *key = NULL;
    size_t size;
    FILE *f = open_memstream(&key, &size);
    if (!f) return NULL;
    fprintf(f, "%s shard=%ld/%ld", args->command->name, c->shard.index, c->shard.count);
    for (size_t i = 0; i < args->n_given; i++) {
        bool matters = true;
        for (size_t k = 0; k < sizeof free_ones / sizeof *free_ones; k++)
            matters = matters && strcmp(args->given[i].option->name, free_ones[k]);
        if (matters)
            fprintf(f, " %s=%s", args->given[i].option->name, args->given[i].value ? args->given[i].value : "");
    }
    struct stat about;
    const char *input = cli_string(args, "input", NULL);
    if (input && !stat(input, &about) && S_ISREG(about.st_mode)) fprintf(f, " bytes=%lld", (long long)about.st_size);
    return fclose(f) ? NULL : key;
}

/* Reads what an earlier run has done. */
static int skip_done(corpus *c)
{
    sdx_error err = {0};
    const char *line;
    size_t n;
    uint64_t total;
    while (c->in.line_number < c->at.lines)
        if (cli_records_line(&c->in, &line, &n, &err) != 1)
            return err.status == SDX_OK ? cli_usage_error("%s: is shorter than it was", c->in.path) : cli_fail(&err);
    c->skipped = c->at.written;
    cli_lines_progress(c->in.lines, &c->skipped_bytes, &total);
    return EXIT_FINE;
}

/* The one text of the command line. */
static int run_text(corpus *c, const char *text, const char *pair)
{
    c->entry[0].record = (cli_record){strdup("0"), strdup(text), pair ? strdup(pair) : NULL, strlen(text), 0};
    c->entry[0].record.pair_length = pair ? strlen(pair) : 0;
    c->count = 1;
    int code = c->entry[0].record.id && c->entry[0].record.text ? run_window(c) : cli_out_of_memory();
    if (code == EXIT_FINE) code = cli_journal_commit(c->out, &c->at);
    return code;
}

static int report(const corpus *c)
{
    if (c->at.bad == 0) return EXIT_FINE;
    fprintf(stderr, "sardonyx: %llu of %llu documents were bad\n", (unsigned long long)c->at.bad,
            (unsigned long long)c->at.written);
    return EXIT_FINDING;
}

static int run_corpus(const cli_args *args, corpus *c)
{
    const char *text = cli_string(args, "text", NULL);
    int code = EXIT_FINE;
    if (c->at.bytes == 0 && c->task->begin) code = pass_on(c, c->task->begin(c->task->context, c->piece_file));
    if (code == EXIT_FINE && text) code = run_text(c, text, cli_string(args, "pair", NULL));
    if (code == EXIT_FINE && !text) code = skip_done(c);
    if (code == EXIT_FINE && !text) code = each_window(c);
    if (c->at.written > 0) show_progress(c, true);
    if (code == EXIT_FINE && c->at.bad > 0 && c->at.bad == c->at.written)
        code = c->at.bad == 1 ? EXIT_USAGE : cli_usage_error("%s: all %llu documents are bad", c->in.path,
                                                             (unsigned long long)c->at.bad);
    if (code == EXIT_FINE) code = cli_journal_commit(c->out, &c->at); /* an empty corpus, too, has an output */
    if (code == EXIT_FINE) code = cli_journal_finish(c->out, &c->at, c->task->finish, c->task->context);
    else cli_journal_abandon(c->out, &c->at);
    return code == EXIT_FINE ? report(c) : code;
}

static int open_corpus(const cli_args *args, corpus *c, bool *complete)
{
    const char *asked = cli_string(args, "shard", NULL), *output = cli_string(args, "output", NULL);
    bool text = cli_string(args, "text", NULL) != NULL;
    c->shard = (shard){0, 1};
    int code = cli_check_output(args);
    if (code == EXIT_FINE && c->task->finish && output && cli_is_stream(output))
        code = cli_usage_error("%s: is no regular file, which a matrix needs", output);
    if (code == EXIT_FINE && asked) code = parse_shard(asked, &c->shard);
    else if (code == EXIT_FINE && !text) code = scheduler_shard(args, &c->shard);
    char *key = code == EXIT_FINE ? resume_key(args, c) : NULL;
    c->entry = calloc(CLI_WINDOW, sizeof *c->entry);
    c->good = calloc(CLI_WINDOW, sizeof *c->good);
    c->piece_file = open_memstream(&c->piece, &c->piece_size);
    if (code == EXIT_FINE && (!key || !c->entry || !c->good || !c->piece_file)) code = cli_out_of_memory();
    if (code == EXIT_FINE && !text) code = cli_records_open(&c->in, cli_string(args, "input", NULL));
    c->in.pairs = c->task->pairs;
    if (code == EXIT_FINE) code = cli_journal_open(output, cli_flag(args, "resume"), key, &c->out, &c->at, complete);
    free(key);
    c->start = c->shown = cli_now();
    c->loud = !text && isatty(STDERR_FILENO) && !cli_flag(args, "quiet");
    return code;
}

int cli_documents(const cli_args *args, const cli_task *task)
{
    corpus c = {.task = task};
    bool complete = false;
    int code = open_corpus(args, &c, &complete);
    if (code == EXIT_FINE && complete && !cli_flag(args, "quiet"))
        fprintf(stderr, "sardonyx: %s is complete; nothing to do\n", cli_string(args, "output", NULL));
    if (code == EXIT_FINE && !complete) code = run_corpus(args, &c);
    drop_window(&c);
    cli_records_close(&c.in);
    if (c.piece_file) fclose(c.piece_file);
    free(c.piece);
    free(c.entry);
    free(c.good);
    return code;
}
