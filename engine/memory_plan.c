/* memory_plan.c: offsets for values with known lifetimes. Greedy by size (Pisarchyk and Lee, "Efficient Memory
 * Management for Deep Neural Net Inference", 2020): the largest value goes first, each into the tightest gap
 * between those already placed that are alive at the same time. Near the lower bound on transformers, and a
 * pure function of the lifetimes. */
#include "memory_plan.h"

#include <stdint.h>
#include <stdlib.h>

#include "../base/memory.h"

static int by_size(const void *a, const void *b)
{
    const sdx_interval *x = *(sdx_interval *const *)a, *y = *(sdx_interval *const *)b;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? 1 : -1;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return x < y ? -1 : x > y; /* both are of one array */
}

/* The start of the tightest gap of at least need bytes between `placed` (ascending offsets) that meet v's life.
 */
static size_t find_gap(sdx_interval *const *placed, size_t count, const sdx_interval *v, size_t need)
{
    size_t end = 0, best = SIZE_MAX, best_gap = SIZE_MAX;
    for (size_t i = 0; i < count; i++) {
        const sdx_interval *p = placed[i];
        if (p->end < v->begin || v->end < p->begin) continue;
        if (p->offset > end && p->offset - end >= need && p->offset - end < best_gap) {
            best_gap = p->offset - end;
            best = end;
        }
        if (p->offset + p->bytes > end) end = p->offset + p->bytes;
    }
    return best == SIZE_MAX ? end : best;
}

/* Keeps `placed` in ascending order of offsets. */
static void insert(sdx_interval **placed, size_t count, sdx_interval *v)
{
    size_t i = count;
    for (; i > 0 && placed[i - 1]->offset > v->offset; i--) placed[i] = placed[i - 1];
    placed[i] = v;
}

static bool round_up(size_t bytes, size_t *out)
{
    if (!sdx_add_size(bytes, SDX_ALIGN - 1, out)) return false;
    *out -= *out % SDX_ALIGN;
    return true;
}

sdx_status sdx_memory_plan(sdx_interval *interval, size_t count, size_t *total, sdx_error *err)
{
    /* Even if nothing were shared, the sum must be a size: then no offset below overflows. */
    size_t sum = 0;
    for (size_t i = 0; i < count; i++)
        if (!round_up(interval[i].bytes, &interval[i].bytes) || !sdx_add_size(sum, interval[i].bytes, &sum))
            return sdx_fail_memory(err, SIZE_MAX);
    sdx_interval **order = sdx_calloc(count, 2 * sizeof *order);
    if (!order) return sdx_fail_memory(err, 2 * count * sizeof *order);
    sdx_interval **placed = order + count;
    for (size_t i = 0; i < count; i++) order[i] = &interval[i];
    if (count) qsort(order, count, sizeof *order, by_size);
    *total = 0;
    for (size_t i = 0; i < count; i++) {
        sdx_interval *v = order[i];
        v->offset = find_gap(placed, i, v, v->bytes);
        insert(placed, i, v);
        if (v->offset + v->bytes > *total) *total = v->offset + v->bytes;
    }
    free(order);
    return SDX_OK;
}
