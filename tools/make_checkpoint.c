/* make_checkpoint.c: make_checkpoint CONFIG.json OUTDIR [--seed N] [--dtype f32|f16|bf16]
 *
 * A Hugging Face folder with random weights for tests and benchmarks at full size: see convert/synthetic.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../convert/synthetic.h"

static int usage(void)
{
    fputs("usage: make_checkpoint CONFIG.json OUTDIR [--seed N] [--dtype f32|f16|bf16]\n", stderr);
    return 2;
}

static bool parse_dtype(const char *name, sdx_dtype *out)
{
    static const struct {
        const char *name;
        sdx_dtype dtype;
    } names[] = {{"f32", SDX_F32}, {"f16", SDX_F16}, {"bf16", SDX_BF16}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(name, names[i].name)) continue;
        *out = names[i].dtype;
        return true;
    }
    return false;
}

static bool parse_option(const char *name, const char *value, sdx_synthetic_options *options)
{
    char *end;
    if (!strcmp(name, "--dtype")) return parse_dtype(value, &options->dtype);
    if (strcmp(name, "--seed")) return false;
    options->seed = strtoull(value, &end, 10);
    return *value && !*end;
}

int main(int argc, char **argv)
{
    sdx_synthetic_options options = {.dtype = SDX_F32, .seed = 1};
    sdx_error err = {0};
    if (argc < 3 || argc % 2 == 0) return usage();
    options.config = argv[1];
    options.folder = argv[2];
    for (int i = 3; i < argc; i += 2)
        if (!parse_option(argv[i], argv[i + 1], &options)) return usage();
    if (sdx_synthetic_write(&options, &err) == SDX_OK) return 0;
    fprintf(stderr, "make_checkpoint: %s\n", err.message);
    return 1;
}
