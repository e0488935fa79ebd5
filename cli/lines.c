/* lines.c: lines of a file or a pipe, plain or compressed by gzip (RFC 1952; several members are one text), in memory
 * that does not grow with the file. Reads no more than is there, so that a person at a pipe gets answers. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "cli.h"

enum { BLOCK = 1 << 16, LONGEST = CLI_LONGEST_LINE }; /* bytes */

struct cli_lines {
    int fd;
    const char *path;
    uint64_t consumed, total; /* bytes of the file itself; total 0: unknown */
    bool gz, at_end, fresh;   /* fresh: between two members */
    z_stream z;
    unsigned char raw[BLOCK]; /* of the file, when it is compressed */
    char block[BLOCK];        /* of the text: [at, have) is not yet handed out */
    size_t at, have;
    char *line;
    size_t length, room;
};

static int read_some(cli_lines *in, void *to, sdx_error *err)
{
    ssize_t got;
    do got = read(in->fd, to, BLOCK);
    while (got < 0 && errno == EINTR);
    if (got < 0) return cli_record_error(err, "%s: cannot read: %s", in->path, strerror(errno));
    in->consumed += (uint64_t)got;
    return (int)got;
}

/* The next compressed bytes; false at the end or after an error in err. */
static bool more_raw(cli_lines *in, sdx_error *err)
{
    int got = read_some(in, in->raw, err);
    in->z.next_in = in->raw;
    in->z.avail_in = got > 0 ? (unsigned)got : 0;
    if (got == 0 && !in->fresh) cli_record_error(err, "%s: its gzip data are cut off", in->path);
    return got > 0;
}

/* Bytes of text in block: > 0, 0 at the end, -1 after an error. */
static int inflate_block(cli_lines *in, sdx_error *err)
{
    in->z.next_out = (unsigned char *)in->block;
    in->z.avail_out = BLOCK;
    while (in->z.avail_out == BLOCK) {
        if (in->z.avail_in == 0 && !more_raw(in, err)) return err->status == SDX_OK ? 0 : -1;
        in->fresh = false;
        int code = inflate(&in->z, Z_NO_FLUSH);
        if (code == Z_STREAM_END) {
            in->fresh = true;
            inflateReset(&in->z);
        } else if (code != Z_OK && code != Z_BUF_ERROR) {
            return cli_record_error(err, "%s: its gzip data are damaged", in->path);
        }
    }
    return (int)(BLOCK - in->z.avail_out);
}

static int fill(cli_lines *in, sdx_error *err)
{
    int got = in->gz ? inflate_block(in, err) : read_some(in, in->block, err);
    in->at = 0;
    in->have = got > 0 ? (size_t)got : 0;
    in->at_end = got == 0;
    return got;
}

/* The first block tells whether the file is compressed. */
static int begin(cli_lines *in, sdx_error *err)
{
    int got = read_some(in, in->block, err);
    if (got < 0) return -1;
    in->have = (size_t)got;
    in->at_end = got == 0;
    in->gz = got >= 2 && (unsigned char)in->block[0] == 0x1f && (unsigned char)in->block[1] == 0x8b;
    if (!in->gz) return 0;
    enum { GZIP_ONLY = 16 };
    if (inflateInit2(&in->z, MAX_WBITS + GZIP_ONLY) != Z_OK) return cli_record_error(err, "out of memory");
    memcpy(in->raw, in->block, in->have);
    in->z.next_in = in->raw;
    in->z.avail_in = (unsigned)in->have;
    in->have = 0;
    return 0;
}

int cli_lines_open(const char *path, cli_lines **out, sdx_error *err)
{
    cli_lines *in = calloc(1, sizeof *in);
    if (!in) return cli_record_error(err, "out of memory");
    bool standard = !path || !strcmp(path, "-");
    struct stat about;
    in->path = standard ? "standard input" : path;
    in->fd = standard ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    int code = in->fd < 0 ? cli_record_error(err, "%s: cannot open: %s", path, strerror(errno)) : begin(in, err);
    if (code < 0) {
        cli_lines_close(in);
        return -1;
    }
    if (!fstat(in->fd, &about) && S_ISREG(about.st_mode)) in->total = (uint64_t)about.st_size;
    *out = in;
    return 0;
}

void cli_lines_close(cli_lines *in)
{
    if (!in) return;
    if (in->gz) inflateEnd(&in->z);
    if (in->fd > STDIN_FILENO) close(in->fd);
    free(in->line);
    free(in);
}

void cli_lines_progress(const cli_lines *in, uint64_t *consumed, uint64_t *total)
{
    *consumed = in->consumed;
    *total = in->total;
}

/* Adds n bytes of the block to the line; what is beyond LONGEST only counts. */
static bool append(cli_lines *in, size_t n)
{
    size_t keep = in->length >= LONGEST ? 0 : n < LONGEST - in->length ? n : LONGEST - in->length;
    if (in->length + keep + 1 > in->room) {
        size_t room = 2 * (in->length + keep) + 256;
        char *line = realloc(in->line, room);
        if (!line) return false;
        in->line = line;
        in->room = room;
    }
    if (keep) memcpy(in->line + in->length, in->block + in->at, keep);
    in->length += keep;
    in->line[in->length] = 0;
    in->at += n;
    return true;
}

int cli_lines_next(cli_lines *in, const char **line, size_t *length, sdx_error *err)
{
    in->length = 0;
    for (bool whole = false, some = false; !whole;) {
        if (in->at == in->have && (in->at_end || fill(in, err) <= 0)) {
            if (err->status != SDX_OK) return -1;
            if (!some) return 0;
            break;
        }
        const char *end = memchr(in->block + in->at, '\n', in->have - in->at);
        whole = end != NULL;
        some = true;
        if (!append(in, end ? (size_t)(end - in->block) - in->at : in->have - in->at))
            return cli_record_error(err, "out of memory");
        in->at += whole;
    }
    *line = in->line;
    *length = in->length;
    return 1;
}
