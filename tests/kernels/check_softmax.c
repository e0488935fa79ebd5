/* check_softmax.c: against double; masks of -inf and of the lowest float; appended masked elements change no
 * bit. */
#include "kcheck.h"

/* e^d with |d| <= range errs by 2 ulp and by the rounding of d; the sum by gamma_n. */
static void compare(int64_t n, const float *x, const float *y, double range)
{
    double max = -INFINITY, sum = 0.0;
    for (int64_t i = 0; i < n; i++) max = fmax(max, (double)x[i]);
    for (int64_t i = 0; i < n; i++) sum += exp((double)x[i] - max);
    for (int64_t i = 0; i < n; i++) {
        const double want = exp((double)x[i] - max) / sum;
        if (!expect_near(y[i], want, want * (gamma_k((double)n) + (2 * range + 8) * UNIT) + 0x1p-126, "y", i))
            return;
    }
}

static void against_double(const context *c)
{
    for (int round = 0; round < 200; round++) {
        const int64_t n = random_size(700);
        const float range = random_float(0.0f, 60.0f);
        float *x = GUARDED(float, n), *y = GUARDED(float, n);
        random_fill(n, -range, range, x);
        if (n > 0) {
            if (round % 3 == 0) x[random_int(0, n - 1)] = -INFINITY;
            if (round % 5 == 0) x[random_int(0, n - 1)] = -FLT_MAX;
            x[random_int(0, n - 1)] = 0.5f;
        }
        c->kernels->row.softmax_f32(n, x, y);
        compare(n, x, y, (double)range);
        c->kernels->row.softmax_f32(n, x, x);
        expect_bytes(x, y, (size_t)n * sizeof(float), "in place");
        guarded_reset();
    }
}

static void masks(const context *c)
{
    for (int round = 0; round < 50; round++) {
        const int64_t n = random_int(1, 200), more = random_int(1, 100);
        float *x = GUARDED(float, n + more), *y = GUARDED(float, n + more), *z = GUARDED(float, n);
        random_fill(n, -5.0f, 5.0f, x);
        for (int64_t i = n; i < n + more; i++) x[i] = round & 1 ? -INFINITY : -FLT_MAX;
        c->kernels->row.softmax_f32(n, x, z);
        c->kernels->row.softmax_f32(n + more, x, y);
        expect_bytes(y, z, (size_t)n * sizeof(float), "masked tail");
        for (int64_t i = n; i < n + more; i++) expect(y[i] == 0.0f, "masked weight is %g", (double)y[i]);
        guarded_reset();
    }
    float low[5] = {-FLT_MAX, -FLT_MAX, -FLT_MAX, -FLT_MAX, -FLT_MAX}, y[5];
    c->kernels->row.softmax_f32(5, low, y);
    for (int i = 0; i < 5; i++) expect_near(y[i], 0.2, 1e-7, "all lowest", i);
    for (int i = 0; i < 5; i++) low[i] = -INFINITY;
    c->kernels->row.softmax_f32(5, low, y);
    expect(isnan(y[0]) && isnan(y[4]), "a row of -inf gives %g", (double)y[0]);
    low[3] = NAN;
    c->kernels->row.softmax_f32(5, low, y);
    expect(isnan(y[3]), "NaN is lost");
}

const check softmax_checks[] = {{"softmax", against_double}, {"softmax masks", masks}, {0}};
