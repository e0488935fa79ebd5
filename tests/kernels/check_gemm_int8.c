/* check_gemm_int8.c: every sign and zero point, exact to the last bit, extreme values included. */
#include "kcheck.h"

static int32_t value(const uint8_t *x, int64_t i, bool is_signed) { return is_signed ? (int8_t)x[i] : x[i]; }

typedef struct problem {
    int64_t m, n, k, lda, ldc;
    bool a_signed, b_signed;
    uint8_t *a, *b;
    int32_t *a_zero, *b_zero, *c;
} problem;

static int32_t *zeros(int64_t n, bool is_signed)
{
    int32_t *z = GUARDED(int32_t, n);
    for (int64_t i = 0; i < n; i++) z[i] = (int32_t)random_int(0, 255) - (is_signed ? 128 : 0);
    return random_int(0, 1) ? z : NULL;
}

static problem make(int64_t m, int64_t n, int64_t k, bool a_signed, bool b_signed)
{
    problem p = {m, n, k, k + random_int(0, 9), n + random_int(0, 3), a_signed, b_signed, 0, 0, 0, 0, 0};
    const int64_t count = m > 0 ? (m - 1) * p.lda + k : 0;
    p.a = guarded((size_t)count);
    p.b = guarded((size_t)(k * n));
    p.c = GUARDED(int32_t, m > 0 ? (m - 1) * p.ldc + n : 0);
    random_bytes(count, p.a);
    random_bytes(k * n, p.b);
    if (random_int(0, 3) == 0) { /* where a saturating product would show */
        memset(p.a, a_signed ? 0x80 : 0xff, (size_t)count);
        memset(p.b, b_signed ? 0x80 : 0xff, (size_t)(k * n));
    }
    p.a_zero = zeros(m, a_signed);
    p.b_zero = zeros(n, b_signed);
    return p;
}

static bool compare(const problem *p)
{
    for (int64_t i = 0; i < p->m; i++)
        for (int64_t j = 0; j < p->n; j++) {
            int64_t want = 0;
            for (int64_t q = 0; q < p->k; q++)
                want += (int64_t)(value(p->a, i * p->lda + q, p->a_signed) - (p->a_zero ? p->a_zero[i] : 0)) *
                        (value(p->b, q * p->n + j, p->b_signed) - (p->b_zero ? p->b_zero[j] : 0));
            if (!expect(p->c[i * p->ldc + j] == want, "c[%lld,%lld] of %lldx%lldx%lld is %d, should be %lld",
                        (long long)i, (long long)j, (long long)p->m, (long long)p->n, (long long)p->k,
                        p->c[i * p->ldc + j], (long long)want))
                return false;
        }
    return true;
}

static void products(const context *c)
{
    const sdx_gemm_int8_kernels *g = &c->kernels->gemm_int8;
    for (int round = 0; round < 100; round++) {
        const int64_t m = round < 40 ? round : random_size(60), n = random_size(80), k = random_size(130);
        const problem p = make(m, n, k, round & 1, round & 2);
        const int64_t panels = (n + g->nr - 1) / g->nr, half = panels / 2;
        void *packed = guarded(g->packed_bytes(k, n)), *workspace = guarded(g->packed_a_bytes(m, k));
        g->pack_b(k, n, p.b, n, 1, p.b_signed, packed);
        g->run(m, n, k, p.a, p.lda, p.a_signed, packed, half, panels, p.a_zero, p.b_zero, workspace, p.c,
               p.ldc);
        g->run(m, n, k, p.a, p.lda, p.a_signed, packed, 0, half, p.a_zero, p.b_zero, workspace, p.c, p.ldc);
        if (!compare(&p)) return;
        guarded_reset();
    }
}

static void packing(const context *c)
{
    const sdx_gemm_int8_kernels *g = &c->kernels->gemm_int8;
    for (int round = 0; round < 20; round++) {
        const int64_t n = random_size(70), k = random_size(70);
        uint8_t *b = guarded((size_t)(k * n)), *transposed = guarded((size_t)(k * n));
        random_bytes(k * n, b);
        for (int64_t i = 0; i < k * n; i++) transposed[i % n * k + i / n] = b[i];
        uint8_t *x = guarded(g->packed_bytes(k, n)), *y = guarded(g->packed_bytes(k, n));
        g->pack_b(k, n, b, n, 1, round & 1, x);
        g->pack_b(k, n, transposed, 1, k, round & 1, y);
        expect_bytes(x, y, g->packed_bytes(k, n), "packed");
        guarded_reset();
    }
}

const check gemm_int8_checks[] = {{"gemm_int8 products", products}, {"gemm_int8 packing", packing}, {0}};
