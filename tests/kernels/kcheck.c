/* kcheck.c: runs the kernel checks for every tier this CPU has. A check judges scalar against the formula in
 * double, and the other tiers too, but these also against scalar by bits: the numbers that a check judges for
 * scalar are kept, and the same seed must bring the same ones, in the same order, for every other tier.
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

/* The numbers that the check under way judged for scalar, as bits; for the others, how far they are in it. */
static struct {
    bool recording;
    uint32_t *bits;
    size_t count, capacity, at;
} reference;

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

/* Keeps what scalar gave, or compares with it; all NaN are one. */
bool expect_scalar(float got, const char *what, int64_t index)
{
    uint32_t bits;
    if (isnan(got)) got = NAN;
    memcpy(&bits, &got, sizeof bits);
    if (!reference.recording) {
        const size_t at = reference.at++;
        return expect(at < reference.count && reference.bits[at] == bits,
                      "%s[%lld] is %.9g: not the bits of scalar", what, (long long)index, (double)got);
    }
    if (reference.count == reference.capacity) {
        reference.capacity = 2 * reference.capacity + 4096;
        reference.bits = realloc(reference.bits, reference.capacity * sizeof *reference.bits);
        if (!reference.bits) abort();
    }
    reference.bits[reference.count++] = bits;
    return true;
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
    return expect_scalar(got, what, index) && expect(ok, "%s[%lld] is %.9g, should be %.9g +- %.2g", what,
                                                 (long long)index, (double)got, want, bound);
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
static const check *const families[] = {gemm_f32_checks,   gemm_f16_checks, gemm_int8_checks, softmax_checks,
                                        norm_checks,       activation_checks, eltwise_checks, reduce_checks,
                                        conv_checks,       quantize_checks, attention_checks, dispatch_checks};

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

static context tier_context(sdx_isa isa)
{
    return (context){sdx_kernels_get(isa), sdx_kernels_get(SDX_ISA_SCALAR), isa};
}

/* One check for one tier; scalar records what the others must repeat. */
static void run_check(const context *c, const check *k, uint64_t seed, int *passed, int *failed)
{
    state.isa = sdx_isa_name(c->isa);
    state.check = k->name;
    state.failures = 0;
    state.random = seed; /* so that one check alone repeats */
    reference.recording = c->isa == SDX_ISA_SCALAR;
    if (reference.recording) reference.count = 0;
    reference.at = 0;
    for (int i = 0; i < REPEATS && state.failures == 0; i++) {
        k->run(c);
        guarded_reset();
    }
    if (state.failures) {
        printf("FAIL %s %s: %d mismatches; --seed %llu\n", state.isa, k->name, state.failures,
               (unsigned long long)seed);
        ++*failed;
    } else
        ++*passed;
}

/* Scalar always runs, for the others are held against it. */
static void run_checks(const options *o, int *passed, int *failed)
{
    for (size_t f = 0; f < sizeof families / sizeof *families; f++)
        for (const check *k = families[f]; k->name; k++)
            for (int isa = 0; isa < SDX_ISA_COUNT; isa++) {
                const bool wanted = o->only < 0 || isa == o->only || isa == SDX_ISA_SCALAR;
                if (!wanted || !sdx_isa_available((sdx_isa)isa)) continue;
                if (o->filter && !strstr(k->name, o->filter)) continue;
                const context c = tier_context((sdx_isa)isa);
                run_check(&c, k, o->seed, passed, failed);
            }
}

static void run_benches(const options *o)
{
    for (int isa = 0; isa < SDX_ISA_COUNT; isa++)
        if (sdx_isa_available((sdx_isa)isa) && (o->only < 0 || isa == o->only)) {
            const context c = tier_context((sdx_isa)isa);
            bench_run(&c, o->filter, o->json);
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
    if (o.bench) {
        run_benches(&o);
        return 0;
    }
    int passed = 0, failed = 0;
    printf("seed %llu\n", (unsigned long long)o.seed);
    run_checks(&o, &passed, &failed);
    free(reference.bits);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
