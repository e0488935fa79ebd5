/* check_reduce.c: sums within gamma_n, extremes exact, NaN by each function's rule. */
#include "kcheck.h"

static void sums(const context *c)
{
    for (int round = 0; round < 100; round++) {
        const int64_t n = random_size(2000);
        float *x = GUARDED(float, n);
        random_fill(n, -1.0f, 1.0f, x);
        double want = 0.0, size = 0.0;
        for (int64_t i = 0; i < n; i++) {
            want += (double)x[i];
            size += fabs((double)x[i]);
        }
        expect_near(c->kernels->reduce.sum_f32(n, x), want, gamma_k((double)n) * size, "sum", n);
        guarded_reset();
    }
}

static void extremes(const context *c)
{
    const sdx_reduce_kernels *r = &c->kernels->reduce;
    for (int round = 0; round < 200; round++) {
        const int64_t n = random_size(150), at = n > 0 ? random_int(0, n - 1) : -1;
        float *x = GUARDED(float, n), low = INFINITY, high = -INFINITY, min, max;
        random_fill(n, round & 1 ? -3.0f : 1.0f, 3.0f, x);
        if (round % 7 == 0) /* zeros of both signs, one of which is an extreme */
            for (int64_t i = 0; i < n; i++) x[i] = copysignf(round & 8 ? 0.0f : x[i] > 2.0f, x[i] - 1.5f);
        if (round % 4 == 0 && n > 0) x[at] = NAN;
        if (round % 4 == 1 && n > 0) x[at] = round & 8 ? INFINITY : -INFINITY;
        for (int64_t i = 0; i < n; i++) {
            low = fminf(low, x[i]);
            high = fmaxf(high, x[i]);
        }
        r->min_max_f32(n, x, &min, &max);
        expect(min == low && max == high, "min_max of %lld: %g, %g, should be %g, %g", (long long)n,
               (double)min, (double)max, (double)low, (double)high);
        expect_scalar(min, "min", n);
        expect_scalar(max, "max", n);
        expect_near(r->max_f32(n, x), round % 4 == 0 && n > 0 ? NAN : (double)high, 0, "max", n);
        guarded_reset();
    }
}

static void rows(const context *c)
{
    for (int64_t n = 0; n < 70; n++) {
        float *x = GUARDED(float, n), *acc = GUARDED(float, n), *want = GUARDED(float, n);
        random_fill(n, -1.0f, 1.0f, x);
        random_fill(n, -1.0f, 1.0f, acc);
        if (n > 2) acc[2] = -INFINITY;
        for (int64_t i = 0; i < n; i++) want[i] = fmaxf(x[i], acc[i]);
        c->kernels->reduce.max_rows_f32(n, x, acc);
        expect_bytes(acc, want, (size_t)n * sizeof *acc, "max_rows");
        guarded_reset();
    }
}

const check reduce_checks[] = {
    {"reduce sum", sums}, {"reduce extremes", extremes}, {"reduce max_rows", rows}, {0}};
