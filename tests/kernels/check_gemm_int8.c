/* check_gemm_int8.c: every sign and zero point, exact to the last bit, extreme values included. */
#include "kcheck.h"

static int32_t value(const uint8_t *x, int64_t i, bool is_signed) { return is_signed ? (int8_t)x[i] : x[i]; }

typedef struct problem {
    int64_t m, n, k, lda, ldc;
    bool a_signed, b_signed;
    uint8_t *a, *b;
    int32_t *a_zero, *b_zero, *c; /* c: floats behind an epilogue */
    sdx_int8_epilogue *epilogue;
} problem;

static int32_t *zeros(int64_t n, bool is_signed)
{
    int32_t *z = GUARDED(int32_t, n);
    for (int64_t i = 0; i < n; i++) z[i] = (int32_t)random_int(0, 255) - (is_signed ? 128 : 0);
    return random_int(0, 1) ? z : NULL;
}

static problem make(int64_t m, int64_t n, int64_t k, bool a_signed, bool b_signed)
{
    problem p = {m, n, k, k + random_int(0, 9), n + random_int(0, 3), a_signed, b_signed, 0, 0, 0, 0, 0, NULL};
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

static sdx_int8_epilogue *make_epilogue(const problem *p)
{
    sdx_int8_epilogue *e = guarded(sizeof *e);
    float *scale = GUARDED(float, p->n + !p->n), *rows = GUARDED(float, p->m), *bias = GUARDED(float, p->n);
    random_fill(p->n + !p->n, 1e-5f, 1e-4f, scale);
    random_fill(p->m, 0.5f, 2.0f, rows);
    random_fill(p->n, -1.0f, 1.0f, bias);
    *e = (sdx_int8_epilogue){.scale = scale,
                             .scale_step = (int)random_int(0, 1),
                             .bias = random_int(0, 1) ? bias : NULL,
                             .row_scale = random_int(0, 2) ? rows : NULL};
    if (e->row_scale) e->activation = (sdx_activation)random_int(0, 3);
    return e;
}

static bool compare_float(const problem *p, int64_t i, int64_t j, int64_t sum)
{
    const sdx_int8_epilogue *e = p->epilogue;
    float y;
    memcpy(&y, p->c + i * p->ldc + j, sizeof y);
    const double scale = (double)e->scale[j * e->scale_step] * (e->row_scale ? (double)e->row_scale[i] : 1.0);
    const double product = scale * (double)sum, bias = e->bias ? (double)e->bias[j] : 0.0;
    double want = activation_value(e->activation, product + bias), bound = 4 * UNIT * (fabs(product) + fabs(bias));
    if (e->activation != SDX_ACT_NONE) bound = activation_bound(want, bound);
    return expect_near(y, want, bound, "y", i * p->n + j);
}

static bool compare_sum(const problem *p, int64_t i, int64_t j, int64_t want)
{
    return expect(p->c[i * p->ldc + j] == want, "c[%lld,%lld] of %lldx%lldx%lld is %d, should be %lld",
                  (long long)i, (long long)j, (long long)p->m, (long long)p->n, (long long)p->k,
                  p->c[i * p->ldc + j], (long long)want);
}

static bool compare(const problem *p)
{
    for (int64_t i = 0; i < p->m; i++)
        for (int64_t j = 0; j < p->n; j++) {
            int64_t want = 0;
            for (int64_t q = 0; q < p->k; q++)
                want += (int64_t)(value(p->a, i * p->lda + q, p->a_signed) - (p->a_zero ? p->a_zero[i] : 0)) *
                        (value(p->b, q * p->n + j, p->b_signed) - (p->b_zero ? p->b_zero[j] : 0));
            if (!(p->epilogue ? compare_float(p, i, j, want) : compare_sum(p, i, j, want))) return false;
        }
    return true;
}

static void check_products(const context *c, bool with_epilogue)
{
    const sdx_gemm_int8_kernels *g = &c->kernels->gemm_int8;
    for (int round = 0; round < 100; round++) {
        const int64_t m = round < 40 ? round : random_size(60), n = random_size(80), k = random_size(130);
        problem p = make(m, n, k, round & 1, round & 2);
        if (with_epilogue) p.epilogue = make_epilogue(&p);
        const int64_t panels = (n + g->nr - 1) / g->nr, half = panels / 2;
        void *packed = guarded(g->packed_bytes(k, n)), *workspace = guarded(g->packed_a_bytes(m, k));
        g->pack_b(k, n, p.b, n, 1, p.b_signed, half, panels, packed);
        g->pack_b(k, n, p.b, n, 1, p.b_signed, 0, half, packed);
        g->run(m, n, k, p.a, p.lda, p.a_signed, packed, half, panels, p.a_zero, p.b_zero, p.epilogue, workspace,
               p.c + half * g->nr, p.ldc);
        g->run(m, n, k, p.a, p.lda, p.a_signed, packed, 0, half, p.a_zero, p.b_zero, p.epilogue, workspace,
               p.c, p.ldc);
        if (!compare(&p)) return;
        guarded_reset();
    }
}

static void products(const context *c) { check_products(c, false); }
static void epilogues(const context *c) { check_products(c, true); }

static void packing(const context *c)
{
    const sdx_gemm_int8_kernels *g = &c->kernels->gemm_int8;
    for (int round = 0; round < 20; round++) {
        const int64_t n = random_size(70), k = random_size(70);
        uint8_t *b = guarded((size_t)(k * n)), *transposed = guarded((size_t)(k * n));
        random_bytes(k * n, b);
        for (int64_t i = 0; i < k * n; i++) transposed[i % n * k + i / n] = b[i];
        uint8_t *x = guarded(g->packed_bytes(k, n)), *y = guarded(g->packed_bytes(k, n));
        const int64_t panels = (n + g->nr - 1) / g->nr;
        g->pack_b(k, n, b, n, 1, round & 1, 0, panels, x);
        g->pack_b(k, n, transposed, 1, k, round & 1, 0, panels, y);
        expect_bytes(x, y, g->packed_bytes(k, n), "packed");
        guarded_reset();
    }
}

#if defined(__x86_64__)
/* Few CPUs have AVX-VNNI; its tile over an emulated dot product runs wherever AVX2 does. */
void sdx_gemm_int8_init_avxvnni_emulated(sdx_kernels *table);

static void emulated(const context *c)
{
    sdx_kernels table = *c->kernels;
    const context with_tile = {&table, c->scalar, c->isa};
    if (c->isa != SDX_ISA_SCALAR) sdx_gemm_int8_init_avxvnni_emulated(&table);
    products(&with_tile);
    epilogues(&with_tile);
    packing(&with_tile);
}
#else
static void emulated(const context *c) { (void)c; }
#endif

const check gemm_int8_checks[] = {{"gemm_int8 products", products},
                                  {"gemm_int8 epilogues", epilogues},
                                  {"gemm_int8 packing", packing},
                                  {"gemm_int8 avxvnni tile", emulated},
                                  {0}};
