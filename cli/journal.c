/* journal.c: output that is only ever appended to, so that a run that was killed can go on. Beside OUT,
 *
 *     OUT.part         the pieces so far
 *     OUT.part.state   how far they are whole: JSON, replaced after every window by a rename
 *
 * A run that resumes cuts OUT.part back to what the state vouches for, which drops a torn piece, and reads the input on
 * from there. Pieces depend on the documents alone, so the bytes are those of a run that was never disturbed. When OUT
 * ends in .gz every window is a gzip member of its own: members in a row are one gzip file, and cuts fall between. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "cli.h"

struct cli_journal {
    FILE *file;
    char *path, *part, *state, *key; /* all NULL: stdout; only part: a stream of that name */
    bool gz, member;                 /* member: one is begun */
    z_stream z;
};

static void journal_free(cli_journal *j)
{
    if (!j) return;
    if (j->file && j->file != stdout) fclose(j->file);
    if (j->gz) deflateEnd(&j->z);
    free(j->path);
    free(j->part);
    free(j->state);
    free(j->key);
    free(j);
}

/* ---- the state file -------------------------------------------------------------------------------------- */

typedef struct field {
    const char *name;
    size_t offset;
} field;

static const field fields[] = {
    {"lines", offsetof(cli_position, lines)},     {"documents", offsetof(cli_position, documents)},
    {"written", offsetof(cli_position, written)}, {"bad", offsetof(cli_position, bad)},
    {"bytes", offsetof(cli_position, bytes)},
};
enum { FIELDS = sizeof fields / sizeof *fields };

static uint64_t *field_of(cli_position *at, size_t i) { return (uint64_t *)((char *)at + fields[i].offset); }

/* Reads the state; false when there is none, or none to trust. *same: it was begun with this key. */
static bool read_state(const cli_journal *j, cli_position *at, bool *same)
{
    json_t *state = json_load_file(j->state, 0, NULL);
    const char *key = json_string_value(json_object_get(state, "key"));
    bool whole = key != NULL;
    *same = key && !strcmp(key, j->key);
    for (size_t i = 0; i < FIELDS; i++) {
        const json_t *value = json_object_get(state, fields[i].name);
        whole = whole && json_is_integer(value) && json_integer_value(value) >= 0;
        *field_of(at, i) = whole ? (uint64_t)json_integer_value(value) : 0;
    }
    json_decref(state);
    return whole;
}

static int write_state(const cli_journal *j, cli_position *at)
{
    json_t *state = json_object();
    json_object_set_new(state, "key", json_string(j->key));
    for (size_t i = 0; i < FIELDS; i++)
        json_object_set_new(state, fields[i].name, json_integer((json_int_t)*field_of(at, i)));
    char *text = json_dumps(state, JSON_INDENT(1));
    json_decref(state);
    cli_output out;
    int code = text ? cli_output_open_as(&out, j->state, ".new") : cli_out_of_memory();
    if (code == EXIT_FINE) {
        fprintf(out.file, "%s\n", text);
        code = cli_output_close(&out, true);
    }
    free(text);
    return code;
}

/* ---- opening --------------------------------------------------------------------------------------------- */

static char *with_suffix(const char *path, const char *suffix)
{
    size_t n = strlen(path) + strlen(suffix) + 1;
    char *joined = malloc(n);
    if (joined) snprintf(joined, n, "%s%s", path, suffix);
    return joined;
}

/* Cuts the file back to the last commit; without one, or with less than it claims, the run begins anew. */
static int go_on(cli_journal *j, cli_position *at)
{
    struct stat about;
    bool same = false;
    if (read_state(j, at, &same)) {
        if (!same)
            return cli_usage_error("%s was begun with other options or another input; give those, or remove it",
                                   j->part);
        if (fstat(fileno(j->file), &about) || (uint64_t)about.st_size < at->bytes) *at = (cli_position){0};
    }
    if (ftruncate(fileno(j->file), (off_t)at->bytes) || fseeko(j->file, (off_t)at->bytes, SEEK_SET))
        return cli_usage_error("%s: %s", j->part, strerror(errno));
    return EXIT_FINE;
}

static int open_part(cli_journal *j, bool resume, cli_position *at)
{
    int fd = open(j->part, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    j->file = fd < 0 ? NULL : fdopen(fd, "r+");
    if (!j->file) return cli_usage_error("%s: cannot write: %s", j->part, strerror(errno));
    if (lockf(fd, F_TLOCK, 0)) return cli_usage_error("%s: another run is writing it", j->part);
    if (resume) return go_on(j, at);
    if (ftruncate(fd, 0) || (unlink(j->state) && errno != ENOENT))
        return cli_usage_error("%s: %s", j->part, strerror(errno));
    return EXIT_FINE;
}

static int open_stream(cli_journal *j, const char *path)
{
    j->part = with_suffix(path, "");
    j->file = j->part ? fopen(path, "a") : NULL;
    return j->file ? EXIT_FINE : cli_usage_error("%s: cannot write: %s", path, strerror(errno));
}

static int open_files(cli_journal *j, const char *path, bool resume, const char *key, cli_position *at, bool *complete)
{
    enum { GZIP_FORMAT = 16 };
    j->path = with_suffix(path, "");
    j->part = with_suffix(path, ".part");
    j->state = with_suffix(path, ".part.state");
    j->key = with_suffix(key, "");
    if (!j->path || !j->part || !j->state || !j->key) return cli_out_of_memory();
    if (cli_ends_with(path, ".gz") &&
        deflateInit2(&j->z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, MAX_WBITS + GZIP_FORMAT, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        return cli_out_of_memory();
    j->gz = cli_ends_with(path, ".gz");
    *complete = resume && access(j->part, F_OK) && !access(j->path, F_OK);
    if (*complete) unlink(j->state);
    return *complete ? EXIT_FINE : open_part(j, resume, at);
}

int cli_journal_open(const char *path, bool resume, const char *key, cli_journal **out, cli_position *at,
                     bool *complete)
{
    bool standard = cli_is_stdout(path), stream = !standard && cli_is_stream(path);
    *at = (cli_position){0};
    *complete = false;
    if ((standard || stream) && resume)
        return cli_usage_error("--resume needs --output FILE: what went to %s cannot be seen",
                               stream ? path : "stdout");
    cli_journal *j = calloc(1, sizeof *j);
    if (!j) return cli_out_of_memory();
    j->file = standard ? stdout : NULL;
    int code = standard ? EXIT_FINE
               : stream ? open_stream(j, path)
                        : open_files(j, path, resume, key, at, complete);
    if (code == EXIT_FINE && !*complete) *out = j;
    else journal_free(j);
    return code;
}

/* ---- writing --------------------------------------------------------------------------------------------- */

static int write_failed(const cli_journal *j)
{
    return cli_usage_error("%s: cannot write: %s", j->part ? j->part : "standard output", strerror(errno));
}

static int deflate_piece(cli_journal *j, const void *data, size_t n, int flush)
{
    unsigned char block[1 << 14];
    j->z.next_in = (unsigned char *)data;
    j->z.avail_in = (unsigned)n;
    do {
        j->z.next_out = block;
        j->z.avail_out = sizeof block;
        deflate(&j->z, flush);
        size_t made = sizeof block - j->z.avail_out;
        if (fwrite(block, 1, made, j->file) != made) return write_failed(j);
    } while (j->z.avail_out == 0);
    return EXIT_FINE;
}

int cli_journal_write(cli_journal *j, const void *data, size_t n)
{
    enum { PIECE = 1 << 30 }; /* zlib counts in unsigned int */
    if (!j->gz) return fwrite(data, 1, n, j->file) == n ? EXIT_FINE : write_failed(j);
    int code = EXIT_FINE;
    for (size_t done = 0; done < n && code == EXIT_FINE; done += PIECE)
        code = deflate_piece(j, (const char *)data + done, n - done < PIECE ? n - done : PIECE, Z_NO_FLUSH);
    j->member = j->member || n > 0;
    return code;
}

int cli_journal_commit(cli_journal *j, cli_position *at)
{
    if (j->member) {
        int code = deflate_piece(j, "", 0, Z_FINISH);
        if (code != EXIT_FINE) return code;
        deflateReset(&j->z);
        j->member = false;
    }
    if (fflush(j->file)) return write_failed(j);
    if (!j->path) return EXIT_FINE;
    if (fdatasync(fileno(j->file))) return write_failed(j);
    at->bytes = (uint64_t)ftello(j->file);
    return write_state(j, at);
}

int cli_journal_finish(cli_journal *j, const cli_position *at, cli_finish_fn make, void *context)
{
    int code = EXIT_FINE;
    if (j->path) {
        if (make) code = make(context, j->part, at, j->path);
        else if (rename(j->part, j->path)) code = cli_usage_error("%s: cannot write: %s", j->path, strerror(errno));
        if (code == EXIT_FINE) unlink(j->part); /* when make has left it */
        if (code == EXIT_FINE) unlink(j->state);
    }
    journal_free(j);
    return code;
}

void cli_journal_abandon(cli_journal *j, const cli_position *at)
{
    if (j->path && at->written == at->bad) { /* nothing worth keeping */
        unlink(j->part);
        unlink(j->state);
    }
    journal_free(j);
}
