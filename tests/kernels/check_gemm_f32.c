/* check_gemm_f32.c: packing, products, epilogues, and the invariance rule by bytes. */
#include "kcheck.h"

typedef struct problem {
    int64_t m, n, k, lda, ldc;
    float *a, *b, *bias, *residual, *c, *packed;
    bool is_bf16; /* which no other instruction set has: no bits to compare */
} problem;

static int64_t panels(const sdx_gemm_f32_kernels *g, int64_t n) { return (n + g->nr - 1) / g->nr; }

/* A last row without its padding, so that the guard page stands right after the last element. */
static float *matrix(int64_t rows, int64_t cols, int64_t ld)
{
    const int64_t count = rows > 0 ? (rows - 1) * ld + cols : 0;
    float *x = GUARDED(float, count);
    random_fill(count, -1.0f, 1.0f, x);
    return x;
}

static problem make(const sdx_gemm_f32_kernels *g, int64_t m, int64_t n, int64_t k)
{
    problem p = {m, n, k, k + random_int(0, 5), n + random_int(0, 5), NULL, NULL, NULL, NULL, NULL, NULL, false};
    p.a = matrix(m, k, p.lda);
    p.b = matrix(k, n, n);
    p.bias = matrix(1, n, n);
    p.residual = matrix(m, n, n);
    p.c = matrix(m, n, p.ldc);
    p.packed = guarded(g->packed_bytes(k, n));
    g->pack_b(k, n, p.b, n, 1, 0, panels(g, n), p.packed);
    return p;
}

static void compare(const problem *p, const float *bias, sdx_activation act, const float *residual)
{
    for (int64_t i = 0; i < p->m; i++)
        for (int64_t j = 0; j < p->n; j++) {
            double sum = bias ? bias[j] : 0.0, size = fabs(sum);
            for (int64_t q = 0; q < p->k; q++) {
                const double product = (double)p->a[i * p->lda + q] * (double)p->b[q * p->n + j];
                sum += product;
                size += fabs(product);
            }
            double want = activation_value(act, sum), bound = gamma_k((double)p->k + 2) * size;
            if (act != SDX_ACT_NONE) bound = activation_bound(want, bound);
            if (residual) want += (double)residual[i * p->n + j];
            bound += 2 * UNIT * (fabs(want) + bound);
            const float got = p->c[i * p->ldc + j];
            if (p->is_bf16 ? !expect(fabs((double)got - want) <= bound, "c is %g, should be %g", (double)got, want)
                           : !expect_near(got, want, bound, "c", i * p->n + j)) {
                printf("  m %lld n %lld k %lld\n", (long long)p->m, (long long)p->n, (long long)p->k);
                return;
            }
        }
}

static void products(const context *c)
{
    const sdx_gemm_f32_kernels *g = &c->kernels->gemm_f32;
    for (int round = 0; round < 60; round++) {
        const int64_t m = round < 32 ? round : random_size(70), n = random_size(100), k = random_size(90);
        problem p = make(g, m, n, k);
        const float *bias = random_int(0, 1) ? p.bias : NULL, *residual = random_int(0, 1) ? p.residual : NULL;
        const sdx_activation act = (sdx_activation)random_int(0, 3);
        g->run(m, n, k, p.a, p.lda, p.packed, 0, panels(g, n), bias, act, residual, n, p.c, p.ldc);
        compare(&p, bias, act, residual);
        guarded_reset();
    }
}

/* C += A*B with residual == c, after an activation. */
static void in_place_residual(const context *c)
{
    const sdx_gemm_f32_kernels *g = &c->kernels->gemm_f32;
    for (int round = 0; round < 8; round++) {
        problem p = make(g, random_int(1, 40), random_int(1, 70), random_int(1, 60));
        float *copy = GUARDED(float, p.m *p.n);
        for (int64_t i = 0; i < p.m * p.n; i++) copy[i] = p.c[i / p.n * p.ldc + i % p.n];
        const sdx_activation act = (sdx_activation)(round % 4);
        g->run(p.m, p.n, p.k, p.a, p.lda, p.packed, 0, panels(g, p.n), p.bias, act, p.c, p.ldc, p.c, p.ldc);
        compare(&p, p.bias, act, copy);
        guarded_reset();
    }
}

/* B transposed, with odd strides and at an odd address packs to the same bytes; so does each panel alone. */
static void packing(const context *c)
{
    const sdx_gemm_f32_kernels *g = &c->kernels->gemm_f32;
    for (int round = 0; round < 30; round++) {
        const int64_t n = random_size(80), k = random_size(60);
        const int64_t strides[3][2] = {{n + 3, 1}, {1, k + 2}, {3, 3 * k + 1}};
        const problem p = make(g, 0, n, k);
        for (int s = 0; s < 3; s++) {
            const int64_t rs = strides[s][0], cs = strides[s][1];
            const int64_t count = n > 0 && k > 0 ? (k - 1) * rs + (n - 1) * cs + 1 : 0;
            char *b = (char *)guarded((size_t)count * sizeof(float) + 1) + round % 2;
            for (int64_t i = 0; i < k; i++)
                for (int64_t j = 0; j < n; j++)
                    memcpy(b + (i * rs + j * cs) * (int64_t)sizeof(float), &p.b[i * n + j], sizeof(float));
            float *packed = guarded(g->packed_bytes(k, n));
            for (int64_t q = panels(g, n) - 1; q >= 0; q--) g->pack_b(k, n, b, rs, cs, q, q + 1, packed);
            expect_bytes(packed, p.packed, g->packed_bytes(k, n), "packed");
        }
        guarded_reset();
    }
}

/* Each row alone, at another place, and each panel alone: the same bytes. */
static void invariance(const context *c)
{
    const sdx_gemm_f32_kernels *g = &c->kernels->gemm_f32;
    if (strcmp(g->name, "openblas") == 0) return;
    for (int round = 0; round < 12; round++) {
        const int64_t m = random_int(1, 200), n = random_int(1, 130), k = random_int(1, 150);
        problem p = make(g, m, n, k);
        const sdx_activation act = (sdx_activation)random_int(0, 3);
        g->run(m, n, k, p.a, p.lda, p.packed, 0, panels(g, n), p.bias, act, NULL, 0, p.c, p.ldc);
        float *part = GUARDED(float, m *n);
        for (int64_t begin = 0; begin < m;) {
            int64_t rows = random_int(1, 30);
            if (rows > m - begin) rows = m - begin;
            for (int64_t q = 0; q < panels(g, n);) {
                int64_t end = q + random_int(1, 3);
                if (end > panels(g, n)) end = panels(g, n);
                g->run(rows, n, k, p.a + begin * p.lda, p.lda, p.packed, q, end, p.bias, act, NULL, 0, part + q * g->nr,
                       n);
                q = end;
            }
            for (int64_t i = 0; i < rows; i++)
                if (!expect_bytes(part + i * n, p.c + (begin + i) * p.ldc, (size_t)n * sizeof(float), "row"))
                    return;
            begin += rows;
        }
        guarded_reset();
    }
}

/* Infinities, NaN and denormals come through; rows without them stay clean. */
static void specials(const context *c)
{
    const sdx_gemm_f32_kernels *g = &c->kernels->gemm_f32;
    problem p = make(g, 5, 40, 20);
    p.a[0 * p.lda + 3] = INFINITY;
    p.a[2 * p.lda + 7] = NAN;
    for (int64_t q = 0; q < p.k; q++) p.a[3 * p.lda + q] = 1e-41f;
    g->run(p.m, p.n, p.k, p.a, p.lda, p.packed, 0, panels(g, p.n), NULL, SDX_ACT_NONE, NULL, 0, p.c, p.ldc);
    for (int64_t j = 0; j < p.n; j++) {
        expect(isinf(p.c[j]), "inf lost in column %lld", (long long)j);
        expect(isfinite(p.c[p.ldc + j]), "row 1 is not finite");
        expect(isnan(p.c[2 * p.ldc + j]), "NaN lost in column %lld", (long long)j);
        double want = 0.0;
        for (int64_t q = 0; q < p.k; q++) want += (double)p.a[3 * p.lda + q] * (double)p.b[q * p.n + j];
        expect_near(p.c[3 * p.ldc + j], want, 20 * 0x1p-149, "denormal", j);
        expect(isfinite(p.c[4 * p.ldc + j]), "row 4 is not finite");
    }
}

static float rounded(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Of rounded operands the products are those of fp32 but for the order of two sums, also of rows that go piece by
 * piece; and no bit of a row depends on the rows around it. */
static void bf16(const context *c)
{
    const sdx_gemm_f32_kernels *g = &c->kernels->gemm_bf16;
    if (!g->run) return;
    for (int round = 0; round < 60; round++) {
        const int64_t m = round < 32 ? round : random_size(70), n = random_size(100);
        const int64_t k = round == 40 ? 8192 + 77 : random_size(90);
        problem p = make(g, m, n, k);
        p.is_bf16 = true;
        for (int64_t i = 0; m && i < (m - 1) * p.lda + k; i++) p.a[i] = rounded(p.a[i]);
        for (int64_t i = 0; i < k * n; i++) p.b[i] = rounded(p.b[i]);
        const float *bias = random_int(0, 1) ? p.bias : NULL, *residual = random_int(0, 1) ? p.residual : NULL;
        const sdx_activation act = (sdx_activation)random_int(0, 3);
        g->run(m, n, k, p.a, p.lda, p.packed, 0, panels(g, n), bias, act, residual, n, p.c, p.ldc);
        compare(&p, bias, act, residual);
        float *row = GUARDED(float, n);
        for (int64_t i = 0; i < m; i += 5) {
            g->run(1, n, k, p.a + i * p.lda, p.lda, p.packed, 0, panels(g, n), bias, act,
                   residual ? residual + i * n : NULL, n, row, n);
            expect_bytes(row, p.c + i * p.ldc, (size_t)n * sizeof *row, "a row alone");
        }
        guarded_reset();
    }
}

const check gemm_f32_checks[] = {
    {"gemm_f32 products", products}, {"gemm_f32 in-place residual", in_place_residual},
    {"gemm_f32 packing", packing},   {"gemm_f32 invariance", invariance},
    {"gemm_f32 specials", specials}, {"gemm_bf16", bf16},
    {0}};
