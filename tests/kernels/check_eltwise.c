/* check_eltwise.c: the arithmetic is correctly rounded, so each pair has one right answer. */
#include "kcheck.h"

#include "../../base/dtype.h"

static float special(void)
{
    static const float some[] = {0.0f, -0.0f, 1.0f, -1.0f, 1e-41f, FLT_MAX, -FLT_MAX};
    return some[random_int(0, 6)];
}

/* NaN first or second, payloads aside; +0 and -0 are one maximum. */
static bool same(float a, float b) { return a == b || (isnan(a) && isnan(b)); }

static void binary(const context *c)
{
    for (int round = 0; round < 240; round++) {
        const int op = round % SDX_BINARY_COUNT;
        const int a_step = round / 6 % 4 != 1, b_step = round / 6 % 4 != 2;
        const int64_t n = random_size(150);
        float *a = GUARDED(float, a_step ? n : 1), *b = GUARDED(float, b_step ? n : 1);
        float *y = GUARDED(float, n);
        random_fill(a_step ? n : 1, -3.0f, 3.0f, a);
        random_fill(b_step ? n : 1, -3.0f, 3.0f, b);
        for (int i = 0; i < 6 && n > 0; i++) {
            a[a_step ? random_int(0, n - 1) : 0] = i == 5 ? NAN : i == 4 ? -INFINITY : special();
            b[b_step ? random_int(0, n - 1) : 0] = i == 3 ? NAN : i == 4 ? INFINITY : special();
        }
        c->kernels->element.binary_f32[op](n, a, a_step, b, b_step, y);
        for (int64_t i = 0; i < n; i++) {
            const float p = a[a_step ? i : 0], q = b[b_step ? i : 0];
            const bool nan = isnan(p) || isnan(q);
            expect_scalar(y[i], "y", i);
            if (op == SDX_BINARY_MAX)
                expect(same(y[i], nan ? NAN : fmaxf(p, q)), "max of %g, %g", (double)p, (double)q);
            if (op == SDX_BINARY_MIN)
                expect(same(y[i], nan ? NAN : fminf(p, q)), "min of %g, %g", (double)p, (double)q);
            if (op == SDX_BINARY_DIV) expect(same(y[i], p / q), "%g / %g", (double)p, (double)q);
            if (op == SDX_BINARY_SUB) expect(same(y[i], p - q), "%g - %g", (double)p, (double)q);
        }
        guarded_reset();
    }
}

/* Every half there is, then tails. */
static void halves(const context *c)
{
    uint16_t *x = GUARDED(uint16_t, 65536);
    float *y = GUARDED(float, 65536);
    for (int i = 0; i < 65536; i++) x[i] = (uint16_t)i;
    c->kernels->element.f16_to_f32(65536, x, y);
    for (int i = 0; i < 65536; i++) expect_near(y[i], (double)sdx_f16_to_f32((uint16_t)i), 0, "half", i);
    for (int64_t n = 0; n < 40; n++) {
        uint16_t *tail = GUARDED(uint16_t, n);
        memset(tail, 0x3c, (size_t)n * sizeof *tail);
        c->kernels->element.f16_to_f32(n, tail, GUARDED(float, n));
    }
}

const check eltwise_checks[] = {{"eltwise binary", binary}, {"eltwise f16", halves}, {0}};
