/* kcheck.c: runs the kernel checks for every tier this CPU has.
 *     kcheck [--seed N] [--isa NAME] [--filter TEXT] [-v]        checks; exit 1 when one failed
 *     kcheck --bench [--json] [--isa NAME] [--filter TEXT]       speeds
 * The seed is printed; the same seed gives the same run. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include "kcheck.h"

#include <stdarg.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* ---- state of the run ---------------------------------------------------------------------------- */
static struct {
    uint64_t random;
    const char *isa, *check; /* under way */
    int failures;            /* of this check */
    bool verbose;
} state;

double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- random -------------------------------------------------------------------------------------- */
uint64_t random_bits(void)
{
    uint64_t z = state.random += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

int64_t random_int(int64_t low, int64_t high)
{
    return low + (int64_t)(random_bits() % (uint64_t)(high - low + 1));
}

float random_float(float low, float high)
{
    return low + (high - low) * (float)(random_bits() >> 40) * 0x1p-24f;
}

void random_fill(int64_t n, float low, float high, float *x)
{
    for (int64_t i = 0; i < n; i++) x[i] = random_float(low, high);
}

void random_bytes(int64_t n, uint8_t *x)
{
    for (int64_t i = 0; i < n; i++) x[i] = (uint8_t)(random_bits() >> 32);
}

int64_t random_size(int64_t max)
{
    int64_t n = random_int(0, max);
    switch (random_int(0, 5)) {
    case 0: n = random_int(0, 2); break;
    case 1: n = n / 16 * 16 + random_int(-1, 1); break;
    default: break;
    }
    return n < 0 ? 0 : n > max ? max : n;
}

/* ---- guarded buffers ----------------------------------------------------------------------------- */
enum { GUARDED_MAX = 256 };
static struct {
    void *map;
    size_t bytes;
} maps[GUARDED_MAX];
static int map_count;

void *guarded(size_t bytes)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), used = (bytes + page - 1) / page * page;
    if (map_count == GUARDED_MAX) abort();
    char *map = mmap(NULL, used + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED || mprotect(map + used, page, PROT_NONE) != 0) abort();
    maps[map_count].map = map;
    maps[map_count++].bytes = used + page;
    memset(map, 0xa5, used);
    return map + used - bytes;
}

void guarded_reset(void)
{
    while (map_count > 0) {
        map_count--;
        munmap(maps[map_count].map, maps[map_count].bytes);
    }
}

/* ---- verdicts ------------------------------------------------------------------------------------ */
enum { SHOWN = 5, REPEATS = 4 };

bool expect(bool ok, const char *format, ...)
{
    if (ok) return true;
    if (state.failures++ < SHOWN) {
        va_list args;
        va_start(args, format);
        printf("FAIL %s %s: ", state.isa, state.check);
        vprintf(format, args);
        printf("\n");
        va_end(args);
    }
    return false;
}

bool expect_near(float got, double want, double bound, const char *what, int64_t index)
{
    bool ok;
    if (isnan(want) || isnan(got))
        ok = isnan(want) && isnan(got);
    else if (isinf(want) || isinf(got))
        ok = (double)got == want || fabs(want) > FLT_MAX;
    else
        ok = fabs((double)got - want) <= bound;
    return expect(ok, "%s[%lld] is %.9g, should be %.9g +- %.2g", what, (long long)index, (double)got, want,
                  bound);
}

bool expect_bytes(const void *a, const void *b, size_t bytes, const char *what)
{
    return expect(bytes == 0 || memcmp(a, b, bytes) == 0, "%s: bytes differ", what);
}

void note_error(const char *what, double error)
{
    if (state.verbose) printf("  %-10s %-12s error %.3g\n", state.isa, what, error);
}

/* ---- main ---------------------------------------------------------------------------------------- */
static const check *const families[] = {gemm_f32_checks,   gemm_int8_checks, softmax_checks, norm_checks,
                                        activation_checks, eltwise_checks,   reduce_checks,  conv_checks,
                                        quantize_checks,   attention_checks, dispatch_checks};

typedef struct options {
    uint64_t seed;
    const char *filter;
    bool bench, json;
    int only; /* tier, or -1 */
} options;

static bool parse(int argc, char **argv, options *o)
{
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        sdx_isa isa;
        if (strcmp(argv[i], "--bench") == 0)
            o->bench = true;
        else if (strcmp(argv[i], "--json") == 0)
            o->json = true;
        else if (strcmp(argv[i], "-v") == 0)
            state.verbose = true;
        else if (strcmp(argv[i], "--seed") == 0 && value)
            o->seed = strtoull(argv[++i], NULL, 0);
        else if (strcmp(argv[i], "--filter") == 0 && value)
            o->filter = argv[++i];
        else if (strcmp(argv[i], "--isa") == 0 && value && sdx_isa_parse(value, &isa)) {
            o->only = (int)isa;
            i++;
        } else
            return false;
    }
    return true;
}

static void run_checks(const context *c, const options *o, int *passed, int *failed)
{
    for (size_t f = 0; f < sizeof families / sizeof *families; f++)
        for (const check *k = families[f]; k->name; k++) {
            if (o->filter && !strstr(k->name, o->filter)) continue;
            state.check = k->name;
            state.failures = 0;
            state.random = o->seed; /* so that one check alone repeats */
            for (int i = 0; i < REPEATS && state.failures == 0; i++) {
                k->run(c);
                guarded_reset();
            }
            if (state.failures) {
                printf("FAIL %s %s: %d mismatches; --seed %llu\n", state.isa, k->name, state.failures,
                       (unsigned long long)o->seed);
                ++*failed;
            } else
                ++*passed;
        }
}

int main(int argc, char **argv)
{
    options o = {.seed = (uint64_t)time(NULL), .only = -1};
    if (!parse(argc, argv, &o)) {
        fprintf(stderr, "usage: kcheck [--seed N] [--isa NAME] [--filter TEXT] [-v] | --bench [--json]\n");
        return 2;
    }
    if (o.only >= 0 && !sdx_isa_available((sdx_isa)o.only)) {
        fprintf(stderr, "kcheck: this CPU has no %s\n", sdx_isa_name((sdx_isa)o.only));
        return 2;
    }
    if (!o.bench) printf("seed %llu\n", (unsigned long long)o.seed);
    int passed = 0, failed = 0;
    for (int isa = 0; isa < SDX_ISA_COUNT; isa++) {
        if (!sdx_isa_available((sdx_isa)isa) || (o.only >= 0 && isa != o.only)) continue;
        const context c = {sdx_kernels_get((sdx_isa)isa), sdx_kernels_get(SDX_ISA_SCALAR), (sdx_isa)isa};
        state.isa = sdx_isa_name((sdx_isa)isa);
        if (o.bench)
            bench_run(&c, o.filter, o.json);
        else
            run_checks(&c, &o, &passed, &failed);
    }
    if (o.bench) return 0;
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
