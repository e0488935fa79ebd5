/* memory.c: see memory.h */
#define _GNU_SOURCE
#include "memory.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#ifdef SDX_ALLOC_FAILURE
static long allocations, fail_at;

void sdx_alloc_fail_after(long n)
{
    allocations = 0;
    fail_at = n;
}

long sdx_alloc_count(void) { return allocations; }

static bool refuse(void)
{
    long n = __atomic_add_fetch(&allocations, 1, __ATOMIC_RELAXED);
    return fail_at && n >= fail_at;
}
#else
static bool refuse(void) { return false; }
#endif

void *sdx_malloc(size_t bytes) { return refuse() ? NULL : malloc(bytes ? bytes : 1); }

void *sdx_calloc(size_t count, size_t bytes)
{
    if (refuse()) return NULL;
    return count && bytes ? calloc(count, bytes) : calloc(1, 1);
}

void *sdx_realloc(void *p, size_t bytes) { return refuse() ? NULL : realloc(p, bytes ? bytes : 1); }

enum { HUGE_PAGE = 2 << 20 };

/* Weights and activations are streamed: with huge pages, where the system grants them, a page fault and a look-up of
 * an address serve 512 times as much. */
static void *allocate_huge(size_t bytes)
{
    void *p;
    if (posix_memalign(&p, HUGE_PAGE, bytes)) return NULL;
    madvise(p, bytes, MADV_HUGEPAGE); /* a wish */
    return p;
}

void *sdx_malloc_aligned(size_t bytes)
{
    if (refuse() || bytes > SIZE_MAX - SDX_ALIGN) return NULL;
    if (bytes >= HUGE_PAGE) return allocate_huge(bytes);
    size_t rounded = (bytes + SDX_ALIGN - 1) / SDX_ALIGN * SDX_ALIGN;
    return aligned_alloc(SDX_ALIGN, rounded ? rounded : SDX_ALIGN);
}

char *sdx_strdup(const char *s)
{
    size_t n = strlen(s) + 1;
    char *copy = sdx_malloc(n);
    if (copy) memcpy(copy, s, n);
    return copy;
}
