/* memory.h: the allocation seam. Every heap allocation of the library passes here, so that a test build
 * (-DSDX_ALLOC_FAILURE) can make the n-th one fail. */
#ifndef SDX_BASE_MEMORY_H
#define SDX_BASE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

/* Vector loads may start anywhere in a buffer, but panels and rows begin on a cache line. */
#define SDX_ALIGN 64

void *sdx_malloc(size_t bytes);                 /* NULL on failure; bytes 0 gives a valid pointer */
void *sdx_calloc(size_t count, size_t bytes);   /* zeroed; checks the product */
void *sdx_realloc(void *p, size_t bytes);
void *sdx_malloc_aligned(size_t bytes);         /* SDX_ALIGN-aligned; release with free() */
char *sdx_strdup(const char *s);

/* a * b and a + b for sizes that come from a file: false on overflow. */
static inline bool sdx_mul_size(size_t a, size_t b, size_t *out) { return !__builtin_mul_overflow(a, b, out); }
static inline bool sdx_add_size(size_t a, size_t b, size_t *out) { return !__builtin_add_overflow(a, b, out); }

#ifdef SDX_ALLOC_FAILURE
/* The n-th allocation from now fails, and every one after it; 0: none does. */
void sdx_alloc_fail_after(long n);
long sdx_alloc_count(void);
#endif

#endif
