/* status.h: errors are values that carry one sentence a person can act on. */
#ifndef SDX_BASE_STATUS_H
#define SDX_BASE_STATUS_H

#include <stdarg.h>

#include "../include/sardonyx.h"

#if defined(__GNUC__)
#define SDX_PRINTF(text, first) __attribute__((format(printf, text, first)))
#else
#define SDX_PRINTF(text, first)
#endif

/* Records the sentence (err may be NULL) and returns status, so that a caller writes `return sdx_fail(...)`. */
sdx_status sdx_fail(sdx_error *err, sdx_status status, const char *format, ...) SDX_PRINTF(3, 4);

/* Puts "context: " in front of the recorded sentence. */
void sdx_error_context(sdx_error *err, const char *format, ...) SDX_PRINTF(2, 3);

/* "out of memory (N bytes)". */
sdx_status sdx_fail_memory(sdx_error *err, size_t bytes);

/* Forwards a failure from a function that owns nothing. */
#define TRY(call)                                                                                          \
    do {                                                                                                   \
        sdx_status try_status = (call);                                                                    \
        if (try_status != SDX_OK) return try_status;                                                       \
    } while (0)

/* Forwards a failure to the `done:` label of a function that must release something; needs `status` in
 * scope. */
#define TRY_GOTO(call)                                                                                     \
    do {                                                                                                   \
        status = (call);                                                                                   \
        if (status != SDX_OK) goto done;                                                                   \
    } while (0)

#endif
