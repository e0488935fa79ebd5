/* replay.c: runs a fuzz target without a fuzzer: every file of the corpus as it is, then cut short and with flipped
 * bits at places a fixed generator picks. A crash or a sanitizer's report ends the process, which is the failure. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { CUTS = 40, FLIPS = 160 };

static uint64_t state = 0x9e3779b97f4a7c15u;

static size_t below(size_t n) /* xorshift64* (Vigna, arXiv 1402.6246) */
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return n ? (size_t)((state * 0x2545f4914f6cdd1du) >> 16) % n : 0;
}

/* A copy of exactly size bytes, so that the sanitizer sees a read past the end. */
static void try_bytes(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size ? size : 1);
    if (!copy) abort();
    if (size) memcpy(copy, data, size);
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
}

static size_t try_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f || fseek(f, 0, SEEK_END)) abort();
    long end = ftell(f);
    rewind(f);
    size_t size = end > 0 ? (size_t)end : 0;
    uint8_t *data = malloc(size + 1);
    if (!data || fread(data, 1, size, f) != size) abort();
    fclose(f);
    try_bytes(data, size);
    for (int i = 0; i < CUTS; i++) try_bytes(data, below(size + 1));
    for (int i = 0; i < FLIPS && size; i++) {
        size_t at = below(size);
        uint8_t bit = (uint8_t)(1u << below(8));
        data[at] ^= bit;
        try_bytes(data, size);
        if (i % 4) data[at] ^= bit; /* some stay, so that faults meet */
    }
    free(data);
    return 1 + CUTS + (size ? FLIPS : 0);
}

int main(int argc, char **argv)
{
    size_t tried = 0;
    for (int i = 1; i < argc; i++) {
        DIR *dir = opendir(argv[i]);
        if (!dir) tried += try_file(argv[i]);
        for (struct dirent *entry; dir && (entry = readdir(dir));) {
            char path[4096];
            snprintf(path, sizeof path, "%s/%s", argv[i], entry->d_name);
            if (entry->d_name[0] != '.') tried += try_file(path);
        }
        if (dir) closedir(dir);
    }
    printf("%zu passed, 0 failed\n", tried);
    return tried == 0;
}
