/* file.c: see file.h */
#define _GNU_SOURCE
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "memory.h"

static sdx_status fail_errno(sdx_error *err, const char *path, const char *what)
{
    return sdx_fail(err, SDX_ERR_FILE, "%s: %s: %s", path, what, strerror(errno));
}

static sdx_status open_regular(const char *path, int *fd, size_t *size, sdx_error *err)
{
    *fd = open(path, O_RDONLY | O_CLOEXEC);
    if (*fd < 0) return fail_errno(err, path, "cannot open");
    struct stat st;
    if (fstat(*fd, &st)) {
        sdx_status status = fail_errno(err, path, "cannot stat");
        close(*fd);
        return status;
    }
    if (!S_ISREG(st.st_mode)) {
        close(*fd);
        return sdx_fail(err, SDX_ERR_FILE, "%s: is not a regular file", path);
    }
    *size = (size_t)st.st_size;
    return SDX_OK;
}

sdx_status sdx_file_map_open(const char *path, sdx_file_map *out, sdx_error *err)
{
    int fd;
    size_t size;
    TRY(open_regular(path, &fd, &size, err));
    sdx_status status = SDX_OK;
    void *data = (void *)""; /* mmap refuses length 0 */
    if (size) data = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED) status = fail_errno(err, path, "cannot map");
    close(fd);
    if (status == SDX_OK) *out = (sdx_file_map){.data = data, .size = size};
    return status;
}

void sdx_file_map_close(sdx_file_map *map)
{
    if (map->size && !map->borrowed) munmap((void *)map->data, map->size);
    *map = (sdx_file_map){0};
}

bool sdx_file_map_holds(const sdx_file_map *map, const void *data)
{
    const unsigned char *at = data;
    return map->size && at >= map->data && at < map->data + map->size;
}

void sdx_pages_release(const void *data, size_t bytes)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)data;
    uintptr_t end = (begin + bytes) / page * page;
    begin = (begin + page - 1) / page * page;
    if (begin < end) madvise((void *)begin, end - begin, MADV_DONTNEED);
}

sdx_status sdx_file_read(const char *path, size_t limit, char **data, size_t *size, sdx_error *err)
{
    int fd;
    size_t n, got = 0;
    char *bytes = NULL;
    TRY(open_regular(path, &fd, &n, err));
    sdx_status status = SDX_OK;
    if (n > limit) {
        status = sdx_fail(err, SDX_ERR_FILE, "%s: %zu bytes, more than the %zu allowed here", path, n, limit);
    } else if (!(bytes = sdx_malloc(n + 1))) {
        status = sdx_fail_memory(err, n + 1);
    }
    while (status == SDX_OK && got < n) {
        ssize_t r = read(fd, bytes + got, n - got);
        if (r > 0) got += (size_t)r;
        else if (r == 0) n = got; /* it shrank meanwhile */
        else if (errno != EINTR) status = fail_errno(err, path, "cannot read");
    }
    close(fd);
    if (status != SDX_OK) {
        free(bytes);
        return status;
    }
    bytes[n] = 0;
    *data = bytes;
    *size = n;
    return SDX_OK;
}

bool sdx_file_exists(const char *path)
{
    struct stat st;
    return !stat(path, &st) && S_ISREG(st.st_mode) && !access(path, R_OK);
}

bool sdx_is_directory(const char *path)
{
    struct stat st;
    return !stat(path, &st) && S_ISDIR(st.st_mode);
}

char *sdx_path_join(const char *dir, const char *name)
{
    size_t n = strlen(dir), m = strlen(name);
    char *path = sdx_malloc(n + m + 2);
    if (!path) return NULL;
    memcpy(path, dir, n);
    if (n && dir[n - 1] != '/') path[n++] = '/';
    memcpy(path + n, name, m + 1);
    return path;
}

const char *sdx_path_basename(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

char *sdx_path_dirname(const char *path)
{
    size_t n = (size_t)(sdx_path_basename(path) - path);
    if (!n) return sdx_strdup(".");
    while (n > 1 && path[n - 1] == '/') n--;
    char *dir = sdx_malloc(n + 1);
    if (!dir) return NULL;
    memcpy(dir, path, n);
    dir[n] = 0;
    return dir;
}

enum { WRITE_BUFFER = 256 << 10, SYNC_BLOCK = 32 << 20 };

sdx_status sdx_writer_open(sdx_writer *w, const char *path, sdx_error *err)
{
    struct stat about;
    *w = (sdx_writer){.fd = -1};
    if (!stat(path, &about) && !S_ISREG(about.st_mode))
        return sdx_fail(err, SDX_ERR_USAGE, "%s: is there and no regular file; it is not replaced", path);
    w->path = sdx_strdup(path);
    w->buffer = sdx_malloc(WRITE_BUFFER);
    size_t n = strlen(path) + 32;
    w->temporary = sdx_malloc(n);
    if (!w->path || !w->buffer || !w->temporary) {
        sdx_writer_abort(w);
        return sdx_fail_memory(err, WRITE_BUFFER);
    }
    snprintf(w->temporary, n, "%s.tmp-XXXXXX", path);
    w->fd = mkostemp(w->temporary, O_CLOEXEC);
    if (w->fd < 0) {
        sdx_status status = fail_errno(err, path, "cannot write beside it");
        w->temporary[0] = 0;
        sdx_writer_abort(w);
        return status;
    }
    mode_t mask = umask(0);
    umask(mask);
    fchmod(w->fd, 0666 & ~mask);
    return SDX_OK;
}

/* The disk begins while the rest is still being made; the fsync at the end then finds little to do. */
static void start_sync(sdx_writer *w, size_t least)
{
#ifdef SYNC_FILE_RANGE_WRITE
    if (w->flushed - w->started < least) return;
    sync_file_range(w->fd, (off_t)w->started, (off_t)(w->flushed - w->started), SYNC_FILE_RANGE_WRITE);
    w->started = w->flushed;
#else
    (void)w, (void)least;
#endif
}

static void flush_bytes(sdx_writer *w, const unsigned char *bytes, size_t n)
{
    while (n && !w->failed) {
        ssize_t r = write(w->fd, bytes, n);
        if (r >= 0) {
            bytes += r;
            n -= (size_t)r;
            w->flushed += (size_t)r;
            start_sync(w, SYNC_BLOCK);
        } else if (errno != EINTR) {
            w->failed = true;
            w->code = errno;
        }
    }
}

void sdx_writer_put(sdx_writer *w, const void *bytes, size_t n)
{
    w->written += n;
    if (n > WRITE_BUFFER - w->buffered) {
        flush_bytes(w, w->buffer, w->buffered);
        w->buffered = 0;
    }
    if (n > WRITE_BUFFER) {
        flush_bytes(w, bytes, n);
    } else if (n) {
        memcpy(w->buffer + w->buffered, bytes, n);
        w->buffered += n;
    }
}

void sdx_writer_flush(sdx_writer *w)
{
    flush_bytes(w, w->buffer, w->buffered);
    w->buffered = 0;
    start_sync(w, 1);
}

sdx_status sdx_writer_commit(sdx_writer *w, sdx_error *err)
{
    flush_bytes(w, w->buffer, w->buffered);
    w->buffered = 0;
    errno = w->code;
    bool ok = !w->failed && !fsync(w->fd) && !rename(w->temporary, w->path);
    sdx_status status = ok ? SDX_OK : fail_errno(err, w->path, "cannot write");
    if (ok) w->temporary[0] = 0;
    sdx_writer_abort(w);
    return status;
}

void sdx_writer_abort(sdx_writer *w)
{
    if (w->fd >= 0) close(w->fd);
    if (w->temporary && w->temporary[0]) unlink(w->temporary);
    free(w->path);
    free(w->temporary);
    free(w->buffer);
    *w = (sdx_writer){.fd = -1};
}
