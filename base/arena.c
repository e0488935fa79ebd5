/* arena.c: see arena.h. Blocks grow geometrically; an allocation larger than a block gets one of its own. A block is
 * memory only as far as it was used, so large ones cost nothing, and weights that lie back to back fill huge pages. */
#include "arena.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "memory.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define POISON(p, n) ASAN_POISON_MEMORY_REGION((p), (n))
#define UNPOISON(p, n) ASAN_UNPOISON_MEMORY_REGION((p), (n))
#define RED_ZONE 16
#else
#define POISON(p, n) ((void)(p), (void)(n))
#define UNPOISON(p, n) ((void)(p), (void)(n))
#define RED_ZONE 0
#endif

struct sdx_arena_block {
    sdx_arena_block *next;
    size_t size, used;
    _Alignas(SDX_ALIGN) unsigned char data[];
};

enum { FIRST_BLOCK = 16 << 10, LARGEST_BLOCK = 64 << 20 };

void sdx_arena_init(sdx_arena *arena) { *arena = (sdx_arena){0}; }

static void free_until(sdx_arena *arena, const sdx_arena_block *keep)
{
    while (arena->block && arena->block != keep) {
        sdx_arena_block *b = arena->block;
        arena->block = b->next;
        arena->total -= b->size;
        UNPOISON(b->data, b->size);
        free(b);
    }
}

void sdx_arena_fini(sdx_arena *arena)
{
    free_until(arena, NULL);
    sdx_arena_init(arena);
}

static sdx_arena_block *add_block(sdx_arena *arena, size_t need)
{
    size_t size = arena->block ? arena->block->size * 2 : FIRST_BLOCK;
    if (size > LARGEST_BLOCK) size = LARGEST_BLOCK;
    if (size < need) size = need;
    if (size > SIZE_MAX / 2) return NULL;
    sdx_arena_block *b = sdx_malloc_aligned(sizeof *b + size);
    if (!b) return NULL;
    *b = (sdx_arena_block){.next = arena->block, .size = size};
    POISON(b->data, size);
    arena->block = b;
    arena->total += size;
    return b;
}

void *sdx_arena_alloc_raw(sdx_arena *arena, size_t bytes)
{
    size_t align = bytes >= SDX_ALIGN ? SDX_ALIGN : 16;
    if (bytes > SIZE_MAX / 4) return NULL;
    sdx_arena_block *b = arena->block;
    size_t at = b ? (b->used + align - 1) / align * align : 0;
    if (!b || at > b->size || b->size - at < bytes + RED_ZONE) {
        b = add_block(arena, bytes + RED_ZONE);
        if (!b) return NULL;
        at = 0;
    }
    UNPOISON(b->data + at, bytes);
    b->used = at + bytes + RED_ZONE;
    return b->data + at;
}

void *sdx_arena_alloc(sdx_arena *arena, size_t bytes)
{
    void *p = sdx_arena_alloc_raw(arena, bytes);
    return p ? memset(p, 0, bytes) : NULL;
}

void *sdx_arena_array(sdx_arena *arena, size_t count, size_t size)
{
    size_t bytes;
    return sdx_mul_size(count, size, &bytes) ? sdx_arena_alloc(arena, bytes) : NULL;
}

char *sdx_arena_strndup(sdx_arena *arena, const char *s, size_t n)
{
    char *copy = sdx_arena_alloc(arena, n + 1);
    if (copy) memcpy(copy, s, n);
    return copy;
}

char *sdx_arena_strdup(sdx_arena *arena, const char *s) { return sdx_arena_strndup(arena, s, strlen(s)); }

char *sdx_arena_printf(sdx_arena *arena, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *s = n < 0 ? NULL : sdx_arena_alloc(arena, (size_t)n + 1);
    if (!s) return NULL;
    va_start(args, format);
    vsnprintf(s, (size_t)n + 1, format, args);
    va_end(args);
    return s;
}

sdx_arena_mark sdx_arena_get_mark(const sdx_arena *arena)
{
    return (sdx_arena_mark){arena->block, arena->block ? arena->block->used : 0};
}

void sdx_arena_reset(sdx_arena *arena, sdx_arena_mark mark)
{
    free_until(arena, mark.block);
    if (!mark.block) return;
    mark.block->used = mark.used;
    POISON(mark.block->data + mark.used, mark.block->size - mark.used);
}
