/* zip.h: the directory of a zip archive whose entries are stored, not compressed: what PyTorch writes, so that
 * tensors can be mapped. */
#ifndef SDX_CONVERT_ZIP_H
#define SDX_CONVERT_ZIP_H

#include "../base/arena.h"
#include "../base/map.h"

typedef struct sdx_zip_entry {
    const char *name; /* in the arena */
    const unsigned char *data;
    size_t size;
} sdx_zip_entry;

typedef struct sdx_zip {
    sdx_zip_entry *entry; /* [count], in the arena */
    size_t count;
    sdx_map index; /* name -> position */
} sdx_zip;

/* Entries point into data. */
sdx_status sdx_zip_open(sdx_zip *zip, sdx_arena *arena, const unsigned char *data, size_t size, sdx_error *err);
void sdx_zip_close(sdx_zip *zip);
const sdx_zip_entry *sdx_zip_find(const sdx_zip *zip, const char *name); /* NULL if absent */

#endif
