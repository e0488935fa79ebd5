/* check_attention.c: one head against double, with masks, bias, causality, and the two invariances: other
 * queries and appended masked keys change no bit. */
#include "kcheck.h"

static float *matrix(int64_t rows, int64_t cols, int64_t ld, float range)
{
    const int64_t count = rows > 0 ? (rows - 1) * ld + cols : 0;
    float *x = GUARDED(float, count);
    random_fill(count, -range, range, x);
    return x;
}

static sdx_attention_args make(int64_t queries, int64_t keys, int64_t head, int64_t value)
{
    sdx_attention_args g = {.queries = queries, .keys = keys, .head_dim = head, .value_dim = value};
    g.ldq = head + random_int(0, 7);
    g.ldk = head + random_int(0, 7);
    g.ldv = value + random_int(0, 7);
    g.ldout = value + random_int(0, 7);
    g.q = matrix(queries, head, g.ldq, 2.0f);
    g.k = matrix(keys, head, g.ldk, 2.0f);
    g.v = matrix(keys, value, g.ldv, 1.0f);
    g.out = matrix(queries, value, g.ldout, 1.0f);
    g.scale = 1.0f / sqrtf((float)(head > 0 ? head : 1));
    return g;
}

static void run(const context *c, sdx_attention_args *g)
{
    const sdx_attention_kernels *k = &c->kernels->attention;
    const size_t bytes = k->workspace_bytes(g->queries, g->keys, g->head_dim, g->value_dim);
    g->workspace = guarded((bytes + 63) / 64 * 64);
    k->run_f32(g);
}

/* Score j of query i in double, and in *error what rounding may add to it. */
static double score(const sdx_attention_args *g, int64_t i, int64_t j, double *error)
{
    double sum = 0.0, size = 0.0;
    if (g->causal && j > i + g->keys - g->queries) return -INFINITY;
    for (int64_t p = 0; p < g->head_dim; p++) {
        const double product = (double)g->q[i * g->ldq + p] * (double)g->k[j * g->ldk + p];
        sum += product;
        size += fabs(product);
    }
    sum *= (double)g->scale;
    *error = fmax(*error, gamma_k((double)g->head_dim + 8) * (size * (double)g->scale + 8.0));
    if (g->mask) sum += (double)g->mask[i * g->ldmask + j];
    if (g->bias) sum += (double)g->bias[i * g->ldbias + j];
    return sum;
}

/* An error e of every score moves each weight by a factor of at most exp(2e), and the output likewise. */
static void compare(const sdx_attention_args *g)
{
    double *s = calloc((size_t)g->keys + 1, sizeof *s);
    for (int64_t i = 0; i < g->queries; i++) {
        double max = -INFINITY, sum = 0.0, error = 0.0;
        for (int64_t j = 0; j < g->keys; j++) {
            s[j] = score(g, i, j, &error);
            max = fmax(max, s[j]);
        }
        for (int64_t j = 0; j < g->keys; j++) sum += s[j] = max == -INFINITY ? 0.0 : exp(s[j] - max);
        if (sum == 0.0) sum = 1.0; /* nothing to see: zeros */
        const double bound = expm1(2 * error) + 2 * gamma_k((double)g->keys + 40);
        for (int64_t d = 0; d < g->value_dim; d++) {
            double want = 0.0, size = 0.0;
            for (int64_t j = 0; j < g->keys; j++) {
                want += s[j] / sum * (double)g->v[j * g->ldv + d];
                size += s[j] / sum * fabs((double)g->v[j * g->ldv + d]);
            }
            if (!expect_near(g->out[i * g->ldout + d], want, bound * size + 1e-30, "out",
                             i * g->value_dim + d)) {
                printf("  queries %lld keys %lld head %lld value %lld\n", (long long)g->queries,
                       (long long)g->keys, (long long)g->head_dim, (long long)g->value_dim);
                free(s);
                return;
            }
        }
    }
    free(s);
}

static void against_double(const context *c)
{
    for (int round = 0; round < 60; round++) {
        const int64_t queries = random_int(1, 50), keys = round == 7 ? 1500 : random_int(1, 140);
        sdx_attention_args g = make(queries, keys, random_size(70), random_size(70));
        float *mask = matrix(queries, keys, keys, 3.0f);
        if (round & 1) {
            g.ldmask = round & 2 ? keys : 0;
            g.mask = mask;
            for (int64_t j = 1; j < keys; j++)
                if (random_int(0, 3) == 0) mask[j] = round & 4 ? -INFINITY : -FLT_MAX;
        }
        if (round % 3 == 0) g.bias = matrix(queries, keys, g.ldbias = keys + 1, 2.0f);
        g.causal = round % 5 == 0;
        run(c, &g);
        compare(&g);
        guarded_reset();
    }
    sdx_attention_args none = make(0, 5, 8, 8);
    run(c, &none);
}

static void invariance(const context *c)
{
    for (int round = 0; round < 25; round++) {
        const int64_t queries = random_int(1, 40), keys = random_int(1, 90), more = random_int(1, 80);
        const int64_t head = random_int(1, 64), value = random_int(1, 64);
        sdx_attention_args g = make(queries, keys + more, head, value);
        float *mask = GUARDED(float, keys + more), *all = GUARDED(float, queries *value);
        for (int64_t j = 0; j < keys + more; j++) mask[j] = j < keys ? 0.0f : round & 1 ? -INFINITY : -FLT_MAX;
        g.mask = mask;
        g.out = all;
        g.ldout = value;
        run(c, &g);
        g.keys = keys; /* the same keys without the masked ones, then one query alone */
        g.out = GUARDED(float, queries *value);
        run(c, &g);
        expect_bytes(all, g.out, (size_t)(queries * value) * sizeof(float), "masked keys");
        const int64_t i = random_int(0, queries - 1);
        g.q += i * g.ldq;
        g.queries = 1;
        run(c, &g);
        expect_bytes(all + i * value, g.out, (size_t)value * sizeof(float), "one query");
        guarded_reset();
    }
}

/* The last queries of many, alone, as a decoder's steps have them: their own kernel, the same bits. */
static void decoding(const context *c)
{
    for (int round = 0; round < 40; round++) {
        const int64_t few = 1 + round % 4, queries = few + random_int(5, 30);
        const int64_t keys = round == 9 ? 1500 : queries + random_int(0, 90), value = random_size(140);
        sdx_attention_args g = make(queries, keys, random_size(140), value);
        g.ldout = value;
        g.causal = round & 4;
        if (round & 8) g.mask = matrix(queries, keys, g.ldmask = keys, 3.0f);
        if (round & 16) g.bias = matrix(queries, keys, g.ldbias = keys, 3.0f);
        float *all = g.out = GUARDED(float, queries *value);
        run(c, &g);
        g.q += (queries - few) * g.ldq;
        if (g.mask) g.mask += (queries - few) * keys;
        if (g.bias) g.bias += (queries - few) * keys;
        g.queries = few;
        g.out = GUARDED(float, few *value);
        run(c, &g);
        expect_bytes(all + (queries - few) * value, g.out, (size_t)(few * value) * sizeof(float), "few queries");
        guarded_reset();
    }
}

const check attention_checks[] = {{"attention", against_double},
                                  {"attention invariance", invariance},
                                  {"attention decoding", decoding},
                                  {0}};
