/* parallel.h: the only seam to threads. Built over OpenMP, or (PARALLEL=pthread, for ThreadSanitizer) pthreads.
 * The split of a range never changes results: a body may not carry anything from one index to another. */
#ifndef SDX_BASE_PARALLEL_H
#define SDX_BASE_PARALLEL_H

#include <stdint.h>

/* Handles [begin, end); worker is in [0, threads), unique among bodies that run at the same time. */
typedef void (*sdx_parallel_fn)(void *context, int64_t begin, int64_t end, int worker);

/* Runs fn over [0, n) in at most `threads` contiguous ranges of at least `grain` indices; returns when all are done. */
void sdx_parallel_for(int threads, int64_t n, int64_t grain, sdx_parallel_fn fn, void *context);

typedef void (*sdx_parallel_lead)(void *context);

/* Runs fn on this thread. The ranges that it splits go to one team of `threads`, which is entered and left once, rather
 * than one each. *splits: how many those were, 0 before the first call; where the last call had fewer than two, threads
 * are not called together for the next. Within a team, or for one thread, fn alone. */
void sdx_parallel_team(int threads, int64_t *splits, sdx_parallel_lead fn, void *context);

#define SDX_MAX_THREADS 256

#endif
