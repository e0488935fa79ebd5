/* status.c: see status.h */
#include "status.h"

#include <stdio.h>
#include <string.h>

sdx_status sdx_fail(sdx_error *err, sdx_status status, const char *format, ...)
{
    if (!err) return status;
    /* The arguments may point into err->message, so the sentence is built beside it. */
    char sentence[SDX_ERROR_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    err->status = status;
    memcpy(err->message, sentence, sizeof sentence);
    /* One sentence is one line, whatever a file put into a name. */
    for (char *c = err->message; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 127) *c = '?';
    return status;
}

void sdx_error_context(sdx_error *err, const char *format, ...)
{
    if (!err) return;
    char context[SDX_ERROR_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(context, sizeof context, format, args);
    va_end(args);
    sdx_fail(err, err->status, "%.400s: %.600s", context, err->message);
}

sdx_status sdx_fail_memory(sdx_error *err, size_t bytes)
{
    if (!bytes) return sdx_fail(err, SDX_ERR_MEMORY, "out of memory");
    return sdx_fail(err, SDX_ERR_MEMORY, "out of memory (%zu bytes)", bytes);
}
