/* fuzz_tokenizer.c: a hostile tokenizer file, then hostile text through whatever opened. Input, by its first
 * byte: 'C': tokenizer_config.json, NUL, then one of the others; 'S': a SentencePiece model of three quarters of the
 * rest, then text; 'M': vocab.json, NUL, then as 'S', the model being both of Marian's; 'V': vocab.json, NUL,
 * merges.txt, NUL, text; else tokenizer.json, NUL, text. Files must have names, so they go through /dev/shm or /tmp, a
 * folder a process. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../include/sardonyx.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct bytes {
    const uint8_t *data;
    size_t size;
} bytes;

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

/* Windows and padding as the file has them, if they are not absurd. */
static void use_as_configured(const sdx_tokenizer *t, const char *text, size_t size)
{
    enum { MOST = 1 << 12 };
    const sdx_text texts[] = {{text, size}, {text, size / 3}}, pairs[] = {{text, size / 2}, {NULL, 0}};
    const sdx_padding *padding = sdx_tokenizer_padding(t);
    sdx_encoding e[2];
    sdx_error err;
    if (padding && (padding->length > MOST || padding->multiple > MOST)) padding = NULL;
    if (sdx_tokenizer_encode_batch(t, texts, pairs, 2, sdx_tokenizer_truncation(t), padding, e, &err) != SDX_OK)
        return;
    for (size_t i = 0; i < 2; i++) sdx_encoding_free(&e[i]);
}

static void write_file(const char *folder, const char *name, bytes b)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    if (!file) return;
    fwrite(b.data, 1, b.size, file);
    fclose(file);
}

/* What stands before the next NUL; moves behind it. */
static bytes take(bytes *rest)
{
    const uint8_t *end = rest->size ? memchr(rest->data, 0, rest->size) : NULL;
    bytes part = {rest->data, end ? (size_t)(end - rest->data) : rest->size};
    size_t used = part.size + (end != NULL);
    *rest = (bytes){rest->data + used, rest->size - used};
    return part;
}

/* Writes the files; what is left is the text. */
static bytes write_files(const char *folder, bytes input)
{
    if (input.size && input.data[0] == 'C') {
        input = (bytes){input.data + 1, input.size - 1};
        write_file(folder, "tokenizer_config.json", take(&input));
    }
    char kind = input.size ? (char)input.data[0] : '{';
    if (kind != 'S' && kind != 'V' && kind != 'M') {
        write_file(folder, "tokenizer.json", take(&input));
        return input;
    }
    input = (bytes){input.data + 1, input.size - 1};
    if (kind == 'V') {
        write_file(folder, "vocab.json", take(&input));
        bytes merges = take(&input);
        if (merges.size) write_file(folder, "merges.txt", merges);
        return input;
    }
    if (kind == 'M') write_file(folder, "vocab.json", take(&input));
    size_t model = input.size / 4 * 3;
    write_file(folder, kind == 'M' ? "source.spm" : "spiece.model", (bytes){input.data, model});
    if (kind == 'M') write_file(folder, "target.spm", (bytes){input.data, model});
    return (bytes){input.data + model, input.size - model};
}

static void remove_files(const char *folder)
{
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt",
                                        "spiece.model",   "source.spm",            "target.spm"};
    char path[128];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        remove(path);
    }
    rmdir(folder);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char folder[64], *text;
    sdx_error err;
    sdx_tokenizer *t;
    snprintf(folder, sizeof folder, "%s/sdx-fuzz-%ld", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm",
             (long)getpid());
    mkdir(folder, 0700);
    bytes rest = write_files(folder, (bytes){data, size});
    if (sdx_tokenizer_open(folder, &t, &err) == SDX_OK) {
        text = malloc(rest.size + 1); /* exact size: an overrun is seen */
        if (text && rest.size) memcpy(text, rest.data, rest.size);
        if (text) use(t, text, rest.size, 0);
        if (text) use(t, text, rest.size, 7);
        if (text) use_as_configured(t, text, rest.size);
        free(text);
        sdx_tokenizer_free(t);
    }
    remove_files(folder);
    return 0;
}
