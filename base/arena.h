/* arena.h: a bump allocator. What lives as long as a model, a program or a plan is allocated from that
 * object's arena and freed with it, so that error paths have nothing to release. */
#ifndef SDX_BASE_ARENA_H
#define SDX_BASE_ARENA_H

#include <stdarg.h>
#include <stddef.h>

#include "status.h"

typedef struct sdx_arena_block sdx_arena_block;

typedef struct sdx_arena {
    sdx_arena_block *block; /* newest first; all owned */
    size_t total;           /* bytes taken from the system */
} sdx_arena;

typedef struct sdx_arena_mark {
    sdx_arena_block *block;
    size_t used;
} sdx_arena_mark;

void sdx_arena_init(sdx_arena *arena);
void sdx_arena_fini(sdx_arena *arena);

/* Zeroed memory aligned to SDX_ALIGN for 64 bytes and more, else to 16; NULL when the system has none.
 * bytes 0 gives a valid pointer. */
void *sdx_arena_alloc(sdx_arena *arena, size_t bytes);
/* The same with bytes of any value, for weights about to be packed: they are touched once. */
void *sdx_arena_alloc_raw(sdx_arena *arena, size_t bytes);
/* count * size with the product checked. */
void *sdx_arena_array(sdx_arena *arena, size_t count, size_t size);
char *sdx_arena_strdup(sdx_arena *arena, const char *s);
char *sdx_arena_strndup(sdx_arena *arena, const char *s, size_t n);
char *sdx_arena_printf(sdx_arena *arena, const char *format, ...) SDX_PRINTF(2, 3);

/* Everything allocated after the mark is given back. */
sdx_arena_mark sdx_arena_get_mark(const sdx_arena *arena);
void sdx_arena_reset(sdx_arena *arena, sdx_arena_mark mark);

/* `type *name = NEW(arena, type)`-style helpers that fail with a sentence. */
#define ARENA_NEW(arena, pointer, count, err)                                                              \
    do {                                                                                                   \
        (pointer) = sdx_arena_array((arena), (count), sizeof *(pointer));                                  \
        if (!(pointer)) return sdx_fail_memory((err), (size_t)(count) * sizeof *(pointer));                \
    } while (0)

#endif
