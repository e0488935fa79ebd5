/* buffer.h: a growing byte string. The first failed allocation sticks (`failed`), so that a writer appends
 * freely and checks once at the end. */
#ifndef SDX_BASE_BUFFER_H
#define SDX_BASE_BUFFER_H

#include <stdbool.h>
#include <stddef.h>

#include "status.h"

typedef struct sdx_buffer {
    char *data; /* NUL-terminated whenever size > 0; owned */
    size_t size, capacity;
    bool failed;
} sdx_buffer;

void sdx_buffer_fini(sdx_buffer *b);
void sdx_buffer_append(sdx_buffer *b, const void *bytes, size_t n);
void sdx_buffer_puts(sdx_buffer *b, const char *s);
void sdx_buffer_putc(sdx_buffer *b, char c);
void sdx_buffer_printf(sdx_buffer *b, const char *format, ...) SDX_PRINTF(2, 3);
/* Hands the string over (never NULL on SDX_OK) and empties the buffer; on failure releases it. */
sdx_status sdx_buffer_take(sdx_buffer *b, char **text, sdx_error *err);

#endif
