/* fuzz_tokenizer.c: a hostile tokenizer.json, then hostile text through whatever opened. Input: the file's
 * bytes, one NUL, text. The file must have a name, so it goes through /dev/shm or /tmp, once per process. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../include/sardonyx.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(const sdx_tokenizer *t, const char *text, size_t size, size_t max_length)
{
    sdx_encoding e;
    sdx_error err;
    char *decoded;
    if (sdx_tokenizer_encode(t, text, size, text, size / 2, max_length, &e, &err) != SDX_OK) return;
    for (size_t i = 0; i < e.count; i++) {
        if (!sdx_tokenizer_token(t, e.ids[i])) abort(); /* an id without a token */
    }
    if (sdx_tokenizer_decode(t, e.ids, e.count, false, &decoded, NULL, &err) == SDX_OK) free(decoded);
    sdx_encoding_free(&e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64], *text;
    sdx_error err;
    sdx_tokenizer *t;
    const uint8_t *end = size ? memchr(data, 0, size) : NULL;
    size_t json = end ? (size_t)(end - data) : size, rest = end ? size - json - 1 : 0;
    snprintf(path, sizeof path, "%s/sdx-fuzz-%ld.json", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm",
             (long)getpid());
    FILE *file = fopen(path, "wb");
    if (!file) return 0;
    fwrite(data, 1, json, file);
    fclose(file);
    if (sdx_tokenizer_open(path, &t, &err) == SDX_OK) {
        text = malloc(rest + 1); /* exact size: an overrun is seen */
        if (text && rest) memcpy(text, end + 1, rest);
        if (text) use(t, text, rest, 0);
        if (text) use(t, text, rest, 7);
        free(text);
        sdx_tokenizer_free(t);
    }
    remove(path);
    return 0;
}
