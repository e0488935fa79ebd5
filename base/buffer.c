/* buffer.c: see buffer.h */
#include "buffer.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "memory.h"

void sdx_buffer_fini(sdx_buffer *b)
{
    free(b->data);
    *b = (sdx_buffer){0};
}

static bool reserve(sdx_buffer *b, size_t more)
{
    if (b->failed || more > SIZE_MAX / 4) return !(b->failed = true);
    size_t need = b->size + more + 1;
    if (need <= b->capacity) return true;
    size_t capacity = b->capacity ? b->capacity : 64;
    while (capacity < need) capacity *= 2;
    char *data = sdx_realloc(b->data, capacity);
    if (!data) return !(b->failed = true);
    b->data = data;
    b->capacity = capacity;
    return true;
}

void sdx_buffer_append(sdx_buffer *b, const void *bytes, size_t n)
{
    if (!reserve(b, n)) return;
    if (n) memcpy(b->data + b->size, bytes, n);
    b->size += n;
    b->data[b->size] = 0;
}

void sdx_buffer_puts(sdx_buffer *b, const char *s) { sdx_buffer_append(b, s, strlen(s)); }
void sdx_buffer_putc(sdx_buffer *b, char c) { sdx_buffer_append(b, &c, 1); }

void sdx_buffer_printf(sdx_buffer *b, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0 || !reserve(b, (size_t)n)) return;
    va_start(args, format);
    vsnprintf(b->data + b->size, (size_t)n + 1, format, args);
    va_end(args);
    b->size += (size_t)n;
}

sdx_status sdx_buffer_take(sdx_buffer *b, char **text, sdx_error *err)
{
    if (!b->data) sdx_buffer_append(b, "", 0);
    if (b->failed) {
        sdx_buffer_fini(b);
        return sdx_fail(err, SDX_ERR_MEMORY, "out of memory while building text");
    }
    *text = b->data;
    *b = (sdx_buffer){0};
    return SDX_OK;
}
