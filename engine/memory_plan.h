/* memory_plan.h: where in one buffer each value of a run lives. */
#ifndef SDX_MEMORY_PLAN_H
#define SDX_MEMORY_PLAN_H

#include "../base/status.h"

typedef struct sdx_interval {
    int32_t begin, end; /* first and last step at which the bytes are needed, both included */
    size_t bytes;
    size_t offset; /* out: a multiple of SDX_ALIGN */
} sdx_interval;

/* Places all so that no two that are alive at the same step overlap; *total: bytes of the buffer. */
sdx_status sdx_memory_plan(sdx_interval *interval, size_t count, size_t *total, sdx_error *err);

#endif
