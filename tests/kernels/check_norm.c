/* check_norm.c: layer norm and RMS norm with every optional operand, also far from mean 0. */
#include "kcheck.h"

typedef struct problem {
    int64_t n;
    float *x, *skip, *bias, *gamma, *beta, *y, *sum;
    double *s; /* x + skip + bias as floats round it */
    double mean, inv_std, size;
} problem;

static float *row(int64_t n, float centre)
{
    float *x = GUARDED(float, n);
    random_fill(n, centre - 2.0f, centre + 2.0f, x);
    return x;
}

static float *maybe(float *x) { return random_int(0, 1) ? x : NULL; }

static problem make(bool centred, double eps)
{
    problem p = {.n = random_size(900)};
    if (p.n == 0) p.n = 1;
    p.x = row(p.n, random_float(-20.0f, 20.0f));
    p.skip = maybe(row(p.n, 0.0f));
    p.bias = maybe(row(p.n, 0.0f));
    p.gamma = row(p.n, 1.0f);
    p.beta = maybe(row(p.n, 0.0f));
    p.sum = maybe(row(p.n, 0.0f));
    p.y = row(p.n, 0.0f);
    p.s = GUARDED(double, p.n);
    double sum = 0.0, squares = 0.0;
    for (int64_t i = 0; i < p.n; i++) {
        float s = p.x[i];
        if (p.skip) s += p.skip[i];
        if (p.bias) s += p.bias[i];
        sum += p.s[i] = (double)s;
        p.size = fmax(p.size, fabs((double)s));
    }
    p.mean = centred ? sum / (double)p.n : 0.0;
    for (int64_t i = 0; i < p.n; i++) squares += (p.s[i] - p.mean) * (p.s[i] - p.mean);
    p.inv_std = 1.0 / sqrt(squares / (double)p.n + eps);
    return p;
}

/* The mean errs by at most gamma_n * size (our sums run in n/32 or fewer chains, so this is generous); that
 * shifts every element and, to second order, the variance. */
static void compare(const problem *p)
{
    const double shift = gamma_k((double)p->n / 8 + 8) * p->size;
    for (int64_t i = 0; i < p->n; i++) {
        const double z = (p->s[i] - p->mean) * p->inv_std, g = (double)p->gamma[i];
        const double want = z * g + (p->beta ? (double)p->beta[i] : 0.0);
        const double relative = gamma_k((double)p->n / 8 + 16) + 2 * shift * shift * p->inv_std * p->inv_std;
        const double bound = fabs(g) * (shift * p->inv_std + fabs(z) * relative) + 2 * UNIT * fabs(want);
        if (!expect_near(p->y[i], want, bound, "y", i)) return;
        if (p->sum && !expect((double)p->sum[i] == p->s[i], "sum[%lld] is wrong", (long long)i)) return;
    }
}

static void layer_norm(const context *c)
{
    for (int round = 0; round < 200; round++) {
        const float eps = round % 2 ? 1e-12f : 1e-5f;
        problem p = make(true, (double)eps);
        float mean, inv_std;
        c->kernels->row.layer_norm_f32(p.n, p.x, p.skip, p.bias, p.gamma, p.beta, eps, p.y, p.sum, &mean,
                                       &inv_std);
        if (p.n > 1) { /* one element: variance 0 or the error of the mean */
            compare(&p);
            expect_near(mean, p.mean, gamma_k((double)p.n / 8 + 8) * p.size, "mean", 0);
        }
        float *y = GUARDED(float, p.n);
        memcpy(y, p.x, (size_t)p.n * sizeof *y);
        c->kernels->row.layer_norm_f32(p.n, y, p.skip, p.bias, p.gamma, p.beta, eps, y, NULL, NULL, NULL);
        expect_bytes(y, p.y, (size_t)p.n * sizeof *y, "in place");
        guarded_reset();
    }
    c->kernels->row.layer_norm_f32(0, NULL, NULL, NULL, NULL, NULL, 1e-5f, NULL, NULL, NULL, NULL);
}

static void rms_norm(const context *c)
{
    for (int round = 0; round < 100; round++) {
        problem p = make(false, 1e-6);
        float inv_std;
        p.beta = NULL;
        c->kernels->row.rms_norm_f32(p.n, p.x, p.skip, p.bias, p.gamma, 1e-6f, p.y, p.sum, &inv_std);
        compare(&p);
        expect_near(inv_std, p.inv_std, p.inv_std * gamma_k((double)p.n / 8 + 8), "inv_std", 0);
        guarded_reset();
    }
}

const check norm_checks[] = {{"norm layer", layer_norm}, {"norm rms", rms_norm}, {0}};
