/* file.h: files in and out. Reading maps or loads whole files; writing never leaves half a file: bytes go to
 * a temporary beside the target, which is synced and renamed over it on commit. */
#ifndef SDX_BASE_FILE_H
#define SDX_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include "status.h"

typedef struct sdx_file_map {
    const unsigned char *data; /* [size], read-only */
    size_t size;
    bool borrowed; /* somebody else unmaps it */
} sdx_file_map;

sdx_status sdx_file_map_open(const char *path, sdx_file_map *out, sdx_error *err);
void sdx_file_map_close(sdx_file_map *map);
bool sdx_file_map_holds(const sdx_file_map *map, const void *data);
/* Gives back the whole pages inside [data, data + bytes): those of a file are read again when somebody looks,
 * others are zero from then on. */
void sdx_pages_release(const void *data, size_t bytes);

/* The whole file, NUL-terminated, owned by the caller (free). Refuses more than `limit` bytes. */
sdx_status sdx_file_read(const char *path, size_t limit, char **data, size_t *size, sdx_error *err);

bool sdx_file_exists(const char *path); /* a regular file that can be read */
bool sdx_is_directory(const char *path);
/* "dir/name" in new memory (free), NULL when out of memory. */
char *sdx_path_join(const char *dir, const char *name);
/* The folder part of a path ("." when there is none) in new memory. */
char *sdx_path_dirname(const char *path);
/* The part after the last '/', pointing into path. */
const char *sdx_path_basename(const char *path);

typedef struct sdx_writer {
    int fd;
    char *path, *temporary; /* owned */
    unsigned char *buffer;  /* owned */
    size_t buffered;
    size_t written; /* bytes so far, buffered ones included */
    size_t flushed, started; /* of them handed to the system, and on their way to the disk */
    bool failed;    /* errno of the first failure in `code` */
    int code;
} sdx_writer;

sdx_status sdx_writer_open(sdx_writer *w, const char *path, sdx_error *err);
void sdx_writer_put(sdx_writer *w, const void *bytes, size_t n); /* failures stick until commit */
void sdx_writer_flush(sdx_writer *w); /* everything is on its way to the disk; nobody waits for it */
sdx_status sdx_writer_commit(sdx_writer *w, sdx_error *err);     /* or removes the temporary and says why */
void sdx_writer_abort(sdx_writer *w);                            /* harmless after commit */

#endif
