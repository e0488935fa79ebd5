/* zip.c: see zip.h. After PKWARE's APPNOTE.TXT 6.3.9: the end record (4.3.16) is searched from the back, it
 * leads to the central directory (4.3.12), each row of which leads to a local header (4.3.7) with the data
 * behind it. Sizes of 4 GB and more stand in the Zip64 records and extra fields (4.3.14, 4.5.3). */
#include "zip.h"

#include <string.h>

enum {
    END_SIZE = 22,
    END64_LOCATOR_SIZE = 20,
    END64_SIZE = 56,
    ROW_SIZE = 46,
    LOCAL_SIZE = 30,
    MAX_COMMENT = 65535,
    EXTRA_ZIP64 = 1
};
static const uint32_t END = 0x06054b50, END64_LOCATOR = 0x07064b50, END64 = 0x06064b50, ROW = 0x02014b50,
                      LOCAL = 0x04034b50;

typedef struct bytes {
    const unsigned char *data;
    size_t size;
} bytes;

typedef struct directory {
    uint64_t begin, size, count;
} directory;

static uint64_t get(const unsigned char *p, int n)
{
    uint64_t v = 0;
    for (int i = 0; i < n; i++) v |= (uint64_t)p[i] << 8 * i;
    return v;
}

/* n bytes at an offset from the file, or NULL. */
static const unsigned char *at(bytes file, uint64_t offset, uint64_t n)
{
    return offset <= file.size && n <= file.size - offset ? file.data + offset : NULL;
}

static bool read_end64(bytes file, uint64_t end, directory *out)
{
    const unsigned char *p =
        end >= END64_LOCATOR_SIZE ? at(file, end - END64_LOCATOR_SIZE, END64_LOCATOR_SIZE) : NULL;
    if (!p || get(p, 4) != END64_LOCATOR) return false;
    p = at(file, get(p + 8, 8), END64_SIZE);
    if (!p || get(p, 4) != END64) return false;
    *out = (directory){.count = get(p + 32, 8), .size = get(p + 40, 8), .begin = get(p + 48, 8)};
    return true;
}

static sdx_status find_directory(bytes file, directory *out, sdx_error *err)
{
    for (size_t back = END_SIZE; back <= file.size && back <= END_SIZE + MAX_COMMENT; back++) {
        const unsigned char *p = file.data + file.size - back;
        if (get(p, 4) != END || get(p + 20, 2) != back - END_SIZE) continue;
        if (!read_end64(file, file.size - back, out))
            *out = (directory){.count = get(p + 10, 2), .size = get(p + 12, 4), .begin = get(p + 16, 4)};
        if (at(file, out->begin, out->size) && out->count <= out->size / ROW_SIZE) return SDX_OK;
        return sdx_fail(err, SDX_ERR_FILE, "the zip directory lies outside the file");
    }
    return sdx_fail(err, SDX_ERR_FILE, "is no zip archive, or is truncated: its end record is missing");
}

/* Takes a 64-bit field from the Zip64 extra for a 32-bit one that says "see there". */
static bool widen(uint64_t *field, bytes *extra)
{
    if (*field != UINT32_MAX) return true;
    if (extra->size < 8) return false;
    *field = get(extra->data, 8);
    *extra = (bytes){extra->data + 8, extra->size - 8};
    return true;
}

static bytes find_zip64(bytes extra)
{
    while (extra.size >= 4) {
        size_t n = get(extra.data + 2, 2);
        bytes body = {extra.data + 4, extra.size - 4};
        if (n > body.size) break;
        if (get(extra.data, 2) == EXTRA_ZIP64) return (bytes){body.data, n};
        extra = (bytes){body.data + n, body.size - n};
    }
    return (bytes){NULL, 0};
}

/* p: a row of the directory whose variable part is known to lie in the file. */
static sdx_status read_row(bytes file, const unsigned char *p, sdx_zip_entry *e, sdx_error *err)
{
    size_t name_length = get(p + 28, 2), extra_length = get(p + 30, 2);
    uint64_t packed = get(p + 20, 4), size = get(p + 24, 4), offset = get(p + 42, 4);
    bytes extra = find_zip64((bytes){p + ROW_SIZE + name_length, extra_length});
    if (get(p + 10, 2) || get(p + 8, 2) & 1)
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "zip entry \"%.200s\" is compressed or encrypted", e->name);
    if (!widen(&size, &extra) || !widen(&packed, &extra) || !widen(&offset, &extra) || size != packed)
        return sdx_fail(err, SDX_ERR_FILE, "zip entry \"%.200s\": contradictory sizes", e->name);
    const unsigned char *local = at(file, offset, LOCAL_SIZE);
    if (!local || get(local, 4) != LOCAL)
        return sdx_fail(err, SDX_ERR_FILE, "zip entry \"%.200s\" has no header at byte %llu", e->name,
                        (unsigned long long)offset);
    e->data = at(file, offset + LOCAL_SIZE + get(local + 26, 2) + get(local + 28, 2), size);
    e->size = size;
    if (!e->data) return sdx_fail(err, SDX_ERR_FILE, "zip entry \"%.200s\" reaches beyond the file", e->name);
    return SDX_OK;
}

static sdx_status read_rows(sdx_zip *zip, sdx_arena *arena, bytes file, directory dir, sdx_error *err)
{
    uint64_t offset = dir.begin;
    for (; zip->count < dir.count; zip->count++) {
        const unsigned char *p = at(file, offset, ROW_SIZE);
        size_t name_length = p ? get(p + 28, 2) : 0;
        uint64_t length = p ? ROW_SIZE + name_length + get(p + 30, 2) + get(p + 32, 2) : 0;
        if (!p || get(p, 4) != ROW || !at(file, offset, length))
            return sdx_fail(err, SDX_ERR_FILE, "row %zu of the zip directory is damaged", zip->count);
        sdx_zip_entry *e = &zip->entry[zip->count];
        e->name = sdx_arena_strndup(arena, (const char *)p + ROW_SIZE, name_length);
        if (!e->name) return sdx_fail_memory(err, name_length);
        TRY(read_row(file, p, e, err));
        if (!sdx_map_put(&zip->index, e->name, strlen(e->name), (int64_t)zip->count))
            return sdx_fail_memory(err, name_length);
        offset += length;
    }
    return SDX_OK;
}

sdx_status sdx_zip_open(sdx_zip *zip, sdx_arena *arena, const unsigned char *data, size_t size, sdx_error *err)
{
    bytes file = {data, size};
    directory dir = {0};
    *zip = (sdx_zip){0};
    TRY(find_directory(file, &dir, err));
    ARENA_NEW(arena, zip->entry, dir.count, err);
    sdx_status status = read_rows(zip, arena, file, dir, err);
    if (status != SDX_OK) sdx_zip_close(zip);
    return status;
}

void sdx_zip_close(sdx_zip *zip)
{
    sdx_map_fini(&zip->index);
}

const sdx_zip_entry *sdx_zip_find(const sdx_zip *zip, const char *name)
{
    int64_t i = sdx_map_get(&zip->index, name, strlen(name), -1);
    return i < 0 ? NULL : &zip->entry[i];
}
