/* clock.h: a clock that nobody sets, for measuring how long something takes. */
#ifndef SDX_CLOCK_H
#define SDX_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline int64_t sdx_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline double sdx_now(void) { return 1e-9 * (double)sdx_now_ns(); } /* seconds */

#endif
