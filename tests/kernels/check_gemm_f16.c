/* check_gemm_f16.c: products in float16, bit for bit as a plain loop over halves has them. Where the CPU has no such
 * instruction the same tile runs on an exact emulation (kernels/vec/half.h); where it has, both are checked. */
#include "kcheck.h"

enum { CHAIN = 128 }; /* of k, in two chains of halves: kernels/gemm_f16.c */

typedef struct problem {
    int64_t m, n, k, lda, ldc;
    float *a, *b, *bias, *residual, *c, *packed;
} problem;

static int64_t panels(const sdx_gemm_f32_kernels *g, int64_t n) { return (n + g->nr - 1) / g->nr; }

/* Rows `ld` apart, the last one without its padding; of sizes that differ by powers of two from -spread to spread. */
static float *matrix(int64_t rows, int64_t cols, int64_t ld, int spread)
{
    const int64_t count = rows > 0 ? (rows - 1) * ld + cols : 0;
    float *x = GUARDED(float, count);
    for (int64_t i = 0; i < count; i++)
        x[i] = ldexpf(random_float(-1.0f, 1.0f), (int)random_int(-spread, spread));
    return x;
}

static problem make(const sdx_gemm_f32_kernels *g, int64_t m, int64_t n, int64_t k, int spread)
{
    problem p = {m, n, k, k + random_int(0, 5), n + random_int(0, 5), NULL, NULL, NULL, NULL, NULL, NULL};
    p.a = matrix(m, k, p.lda, spread);
    p.b = matrix(k, n, n, spread);
    p.bias = matrix(1, n, n, 0);
    p.residual = matrix(m, n, n, 0);
    p.c = matrix(m, n, p.ldc, 0);
    p.packed = guarded(g->packed_bytes(k, n));
    g->pack_b(k, n, p.b, n, 1, 0, panels(g, n), p.packed);
    return p;
}

static void run(const sdx_gemm_f32_kernels *g, const problem *p, const float *bias, sdx_activation act,
                const float *residual)
{
    g->run(p->m, p->n, p->k, p->a, p->lda, p->packed, 0, panels(g, p->n), bias, act, residual, p->n, p->c, p->ldc);
}

/* ---- the plain loop ---------------------------------------------------------------------------------- */
/* x as the nearest half, ties to even. A product of halves plus a half is exact in double, or one side cannot move the
 * other's 11 bits. */
static double half(double x)
{
    if (x == 0.0 || !isfinite(x)) return x;
    const int e = ilogb(x) < -14 ? -14 : ilogb(x);
    const double rounded = ldexp(nearbyint(ldexp(x, 10 - e)), e - 10);
    return fabs(rounded) > 65504.0 ? copysign(INFINITY, x) : rounded;
}

/* The power of two that brings the largest of x[0, n) to [8, 16). */
static double factor(int64_t n, const float *x, int64_t step)
{
    float most = 0.0f;
    for (int64_t i = 0; i < n; i++) most = fmaxf(most, fabsf(x[i * step]));
    int e;
    frexpf(most, &e);
    return ldexp(1.0, 4 - e);
}

static float product(const problem *p, int64_t i, int64_t j)
{
    const float *a = p->a + i * p->lda, *b = p->b + j;
    const double row = factor(p->k, a, 1), column = factor(p->k, b, p->n);
    float sums[2] = {0.0f, 0.0f};
    for (int64_t first = 0; first < p->k; first += CHAIN) {
        double chain[2] = {0.0, 0.0};
        for (int64_t q = first; q < p->k && q < first + CHAIN; q++)
            chain[q % 2] = half(half((double)a[q] * row) * half((double)b[q * p->n] * column) + chain[q % 2]);
        for (int odd = 0; odd < 2; odd++) sums[odd] += (float)chain[odd];
    }
    return (sums[0] + sums[1]) * (float)(1.0 / row / column);
}

/* Some elements of C, the corners among them. */
static bool compare(const problem *p, const float *bias, sdx_activation act, const float *residual)
{
    const int64_t count = p->m * p->n, step = count * p->k / 20000 + 1;
    for (int64_t at = 0; at < count; at += at + step < count || at == count - 1 ? step : count - 1 - at) {
        const int64_t i = at / p->n, j = at % p->n;
        const float sum = product(p, i, j) + (bias ? bias[j] : 0.0f), more = residual ? residual[i * p->n + j] : 0.0f;
        const double want = activation_value(act, (double)sum);
        double bound = 0.0;
        if (act != SDX_ACT_NONE) bound = activation_bound(want, 0.0) + 2 * UNIT * fabs(want + (double)more);
        if (!expect_near(p->c[i * p->ldc + j], (double)((float)want + more), bound, "c", at)) {
            printf("  m %lld n %lld k %lld\n", (long long)p->m, (long long)p->n, (long long)p->k);
            return false;
        }
    }
    return true;
}

/* ---- checks ------------------------------------------------------------------------------------------ */
static void products(const context *c)
{
    const sdx_gemm_f32_kernels *g = &c->kernels->gemm_f16;
    for (int round = 0; round < 50; round++) {
        const bool is_long = round == 40; /* rows beyond what a block holds */
        const int64_t m = is_long ? 15 : round < 32 ? round : random_size(70), n = is_long ? 5 : random_size(100);
        const int64_t k = is_long ? 8192 + 77 : random_size(round % 2 ? 90 : 700);
        const problem p = make(g, m, n, k, (int)random_int(0, 6));
        const float *bias = random_int(0, 1) ? p.bias : NULL, *residual = random_int(0, 1) ? p.residual : NULL;
        const sdx_activation act = (sdx_activation)random_int(0, 3);
        run(g, &p, bias, act, residual);
        compare(&p, bias, act, residual);
        guarded_reset();
    }
}

/* Each row alone, and each panel alone: the same bytes. */
static void invariance(const context *c)
{
    const sdx_gemm_f32_kernels *g = &c->kernels->gemm_f16;
    for (int round = 0; round < 4; round++) {
        const problem p = make(g, random_int(1, 150), random_int(1, 130), random_int(1, 150), 3);
        run(g, &p, p.bias, SDX_ACT_GELU, NULL);
        float *row = GUARDED(float, p.n);
        for (int64_t i = 0; i < p.m; i += 7) {
            for (int64_t q = 0; q < panels(g, p.n); q++)
                g->run(1, p.n, p.k, p.a + i * p.lda, p.lda, p.packed, q, q + 1, p.bias, SDX_ACT_GELU, NULL, 0,
                       row + q * g->nr, p.n);
            if (!expect_bytes(row, p.c + i * p.ldc, (size_t)p.n * sizeof *row, "a row alone")) return;
        }
        guarded_reset();
    }
}

/* B transposed, with odd strides and at an odd address, panel by panel: the same bytes. */
static void packing(const context *c)
{
    const sdx_gemm_f32_kernels *g = &c->kernels->gemm_f16;
    for (int round = 0; round < 10; round++) {
        const int64_t n = random_size(80), k = random_size(60), strides[2][2] = {{1, k + 2}, {3, 3 * k + 1}};
        const problem p = make(g, 0, n, k, 5);
        for (int s = 0; s < 2; s++) {
            const int64_t rs = strides[s][0], cs = strides[s][1];
            const int64_t count = n > 0 && k > 0 ? (k - 1) * rs + (n - 1) * cs + 1 : 0;
            char *b = (char *)guarded((size_t)count * sizeof(float) + 1) + round % 2;
            for (int64_t i = 0; i < k * n; i++)
                memcpy(b + (i / n * rs + i % n * cs) * (int64_t)sizeof(float), &p.b[i], sizeof(float));
            float *packed = guarded(g->packed_bytes(k, n));
            for (int64_t q = panels(g, n) - 1; q >= 0; q--) g->pack_b(k, n, b, rs, cs, q, q + 1, packed);
            expect_bytes(packed, p.packed, g->packed_bytes(k, n), "packed");
        }
        guarded_reset();
    }
}

/* Rows of any size a float can have, each its own: halves alone would overflow or vanish. The bound is 2^-11 for each
 * side and for each of the 64 sums of a chain. */
static void sizes(const context *c)
{
    const sdx_gemm_f32_kernels *g = &c->kernels->gemm_f16;
    for (int round = 0; round < 6; round++) {
        problem p = make(g, 20, 40, random_int(1, 300), 0);
        int exponent[20];
        for (int64_t i = 0; i < p.m; i++) {
            exponent[i] = (int)random_int(-140, 120);
            for (int64_t q = 0; q < p.k; q++) p.a[i * p.lda + q] = ldexpf(p.a[i * p.lda + q], exponent[i]);
        }
        run(g, &p, NULL, SDX_ACT_NONE, NULL);
        for (int64_t i = 0; i < p.m; i++)
            for (int64_t j = 0; j < p.n; j++) {
                double want = 0.0, size = 0.0;
                for (int64_t q = 0; q < p.k; q++) {
                    const double one = (double)p.a[i * p.lda + q] * (double)p.b[q * p.n + j];
                    want += one;
                    size += fabs(one);
                }
                const double bound = 66 * 0x1p-11 * size + (double)p.k * ldexp(1.0, exponent[i] - 20) + 0x1p-149;
                expect_near(p.c[i * p.ldc + j], want, bound, "c", i * p.n + j);
            }
        guarded_reset();
    }
}

/* The most that a chain can come to: every product is as large as the factors let it be, and none cancels. */
static void full_chains(const context *c)
{
    const sdx_gemm_f32_kernels *g = &c->kernels->gemm_f16;
    problem p = make(g, 15, 33, 500, 0);
    for (int64_t i = 0; i < (p.m - 1) * p.lda + p.k; i++) p.a[i] = 0x1.fffffep0f;
    for (int64_t i = 0; i < p.k * p.n; i++) p.b[i] = -0x1.fffffep0f;
    g->pack_b(p.k, p.n, p.b, p.n, 1, 0, panels(g, p.n), p.packed);
    run(g, &p, NULL, SDX_ACT_NONE, NULL);
    for (int64_t i = 0; i < p.m * p.n; i++) /* 2 in float16 */
        expect_near(p.c[i / p.n * p.ldc + i % p.n], -4.0 * (double)p.k, 0.0, "c", i);
}

/* Infinities and NaN come through; rows without them stay clean. */
static void specials(const context *c)
{
    const sdx_gemm_f32_kernels *g = &c->kernels->gemm_f16;
    problem p = make(g, 6, 40, 200, 0);
    p.a[0 * p.lda + 3] = INFINITY;
    p.a[2 * p.lda + 7] = NAN;
    for (int64_t q = 0; q < p.k; q++) p.a[4 * p.lda + q] = 0.0f;
    for (int64_t j = 0; j < p.n; j++) p.b[3 * p.n + j] = 0.5f;
    g->pack_b(p.k, p.n, p.b, p.n, 1, 0, panels(g, p.n), p.packed);
    run(g, &p, NULL, SDX_ACT_NONE, NULL);
    for (int64_t j = 0; j < p.n; j++) {
        expect(isinf(p.c[j]), "inf lost in column %lld", (long long)j);
        expect(isnan(p.c[2 * p.ldc + j]), "NaN lost in column %lld", (long long)j);
        for (int64_t i = 0; i < p.m; i++) expect_scalar(p.c[i * p.ldc + j], "c", i * p.n + j);
        expect(isfinite(p.c[p.ldc + j]) && isfinite(p.c[3 * p.ldc + j]), "a row beside is not finite");
        expect(p.c[4 * p.ldc + j] == 0.0f, "zeros made %g", (double)p.c[4 * p.ldc + j]);
    }
}

const check gemm_f16_checks[] = {{"gemm_f16 products", products}, {"gemm_f16 invariance", invariance},
                                 {"gemm_f16 packing", packing},   {"gemm_f16 sizes", sizes},
                                 {"gemm_f16 full chains", full_chains},
                                 {"gemm_f16 specials", specials}, {0}};
