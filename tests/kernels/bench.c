/* bench.c: speeds of the kernels as a share of what this core can do, measured in the same moment: clouds
 * change clocks between minutes. Weights rotate through copies beyond L2 and mostly beyond L3, as the layers
 * of a model do. */
#include "../../base/clock.h"
#include "kcheck.h"

/* ---- timing ------------------------------------------------------------------------------------------ */
enum { COPIES_MAX = 12, COPIES_BYTES = 96 << 20 };

typedef struct job {
    const sdx_kernels *kernels;
    const sdx_gemm_f32_kernels *gemm; /* of floats */
    int64_t m, n, k;
    void *a, *packed[COPIES_MAX], *c, *workspace;
    float *bias;
    int copies;
} job;

/* Seconds of one call, the best of several sweeps over the copies. */
static double best_seconds(void (*call)(const job *, int), const job *j)
{
    double best = 1e9;
    const double end = sdx_now() + 0.12;
    do {
        int calls = 0;
        const double begin = sdx_now();
        do
            for (int i = 0; i < j->copies; i++, calls++) call(j, i);
        while (sdx_now() - begin < 2e-4);
        best = fmin(best, (sdx_now() - begin) / calls);
    } while (sdx_now() < end);
    return best;
}

static void *allocate(size_t bytes)
{
    void *p = aligned_alloc(64, (bytes + 127) / 64 * 64);
    if (!p) abort();
    memset(p, 0x3c, bytes); /* 0.0115 as a float, 60 as a byte: nothing underflows */
    return p;
}

static void report(const context *c, const char *name, const job *j, double seconds, double peak, bool json)
{
    const double speed = 2.0 * (double)j->m * (double)j->n * (double)j->k / seconds * 1e-9;
    const double share = peak > 0.0 ? 100.0 * speed / peak : 0.0;
    if (json)
        printf("{\"kernel\":\"%s\",\"isa\":\"%s\",\"m\":%lld,\"k\":%lld,\"n\":%lld,\"us\":%.2f,\"gops\":%.1f,"
               "\"peak\":%.1f,\"share\":%.1f}\n",
               name, sdx_isa_name(c->isa), (long long)j->m, (long long)j->k, (long long)j->n, seconds * 1e6,
               speed, peak, share);
    else
        printf("%-10s %-10s m %4lld  k %4lld  n %5lld  %9.1f us  %7.1f G/s  %5.1f %% of %.0f\n", name,
               sdx_isa_name(c->isa), (long long)j->m, (long long)j->k, (long long)j->n, seconds * 1e6, speed,
               share, peak);
}

/* ---- GEMM ---------------------------------------------------------------------------------------------- */
static int64_t panels(int64_t n, int64_t nr) { return (n + nr - 1) / nr; }

static void call_float(const job *j, int i)
{
    const sdx_gemm_f32_kernels *g = j->gemm;
    g->run(j->m, j->n, j->k, j->a, j->k, j->packed[i], 0, panels(j->n, g->nr), j->bias, SDX_ACT_NONE, NULL, 0, j->c,
           j->n);
}

static void call_int8(const job *j, int i)
{
    const sdx_gemm_int8_kernels *g = &j->kernels->gemm_int8;
    g->run(j->m, j->n, j->k, j->a, j->k, false, j->packed[i], 0, panels(j->n, g->nr), NULL, NULL, NULL,
           j->workspace, j->c, j->n);
}

typedef struct product {
    const char *name;
    const sdx_gemm_f32_kernels *gemm; /* NULL for int8 */
    double (*peak)(const sdx_kernels *kernels);
    bool wanted;
} product;

static void bench_gemm(const context *c, const product *p, const int64_t shape[3], bool json)
{
    const sdx_gemm_int8_kernels *int8 = &c->kernels->gemm_int8;
    job j = {.kernels = c->kernels, .gemm = p->gemm, .m = shape[0], .k = shape[1], .n = shape[2]};
    const size_t size = (size_t)(j.k * j.n) * (p->gemm ? sizeof(float) : 1);
    const size_t bytes = p->gemm ? p->gemm->packed_bytes(j.k, j.n) : int8->packed_bytes(j.k, j.n);
    void *b = allocate(size);
    j.copies = (int)(COPIES_BYTES / bytes) + 1;
    if (j.copies > COPIES_MAX) j.copies = COPIES_MAX;
    for (int i = 0; i < j.copies; i++) {
        j.packed[i] = allocate(bytes);
        if (p->gemm)
            p->gemm->pack_b(j.k, j.n, b, j.n, 1, 0, panels(j.n, p->gemm->nr), j.packed[i]);
        else
            int8->pack_b(j.k, j.n, b, j.n, 1, true, 0, panels(j.n, int8->nr), j.packed[i]);
    }
    j.a = allocate((size_t)(j.m * j.k) * sizeof(float));
    j.c = allocate((size_t)(j.m * j.n) * sizeof(float));
    j.bias = allocate((size_t)j.n * sizeof(float));
    j.workspace = allocate(int8->packed_a_bytes(j.m, j.k));
    report(c, p->name, &j, best_seconds(p->gemm ? call_float : call_int8, &j), 1e-9 * p->peak(c->kernels),
           json);
    for (int i = 0; i < j.copies; i++) free(j.packed[i]);
    free(b), free(j.a), free(j.c), free(j.bias), free(j.workspace);
}

/* ---- attention and elements ----------------------------------------------------------------------------- */
static void call_attention(const job *j, int i)
{
    (void)i;
    float *q = j->a;
    sdx_attention_args g = {.queries = j->m,
                            .keys = j->n,
                            .head_dim = j->k,
                            .value_dim = j->k,
                            .q = q,
                            .ldq = j->k,
                            .k = q,
                            .ldk = j->k,
                            .v = q,
                            .ldv = j->k,
                            .scale = 0.1f,
                            .out = j->c,
                            .ldout = j->k,
                            .workspace = j->workspace};
    j->kernels->attention.run_f32(&g);
}

static void bench_attention(const context *c, int64_t tokens, int64_t dim, bool json)
{
    job j = {
        .kernels = c->kernels, .m = tokens, .n = tokens, .k = 2 * dim, .copies = 1}; /* counts q k^T and p v */
    j.a = allocate((size_t)(tokens * dim) * sizeof(float));
    j.c = allocate((size_t)(tokens * dim) * sizeof(float));
    random_fill(tokens * dim, -1.0f, 1.0f, j.a);
    j.workspace = allocate(c->kernels->attention.workspace_bytes(tokens, tokens, dim, dim));
    job call = j;
    call.k = dim;
    report(c, "attention", &j, best_seconds(call_attention, &call), 1e-9 * sdx_peak_f32(c->kernels), json);
    free(j.a), free(j.c), free(j.workspace);
}

static void call_gelu(const job *j, int i)
{
    (void)i;
    j->kernels->element.unary_f32[SDX_UNARY_GELU](j->n, j->a, j->c);
}

static void call_exp(const job *j, int i)
{
    (void)i;
    j->kernels->element.unary_f32[SDX_UNARY_EXP](j->n, j->a, j->c);
}

static void call_softmax(const job *j, int i)
{
    (void)i;
    j->kernels->row.softmax_f32(j->n, j->a, j->c);
}

static void call_norm(const job *j, int i)
{
    (void)i;
    j->kernels->row.layer_norm_f32(j->n, j->a, j->a, NULL, j->bias, j->bias, 1e-12f, j->c, NULL, NULL, NULL);
}

static void call_quantize(const job *j, int i)
{
    (void)i;
    j->kernels->quantize.f32_u8(j->n, j->a, 0.02f, 128, j->c);
}

static const struct element_bench {
    const char *name;
    void (*call)(const job *, int);
    int64_t n;
} element_benches[] = {{"exp", call_exp, 4096},         {"gelu", call_gelu, 1536},
                       {"softmax", call_softmax, 128},  {"softmax", call_softmax, 512},
                       {"layer_norm", call_norm, 384},  {"layer_norm", call_norm, 768},
                       {"quantize", call_quantize, 768}};

static void bench_element(const context *c, const struct element_bench *e, bool json)
{
    job j = {.kernels = c->kernels, .n = e->n, .copies = 1};
    j.a = allocate((size_t)e->n * sizeof(float));
    j.c = allocate((size_t)e->n * sizeof(float));
    j.bias = allocate((size_t)e->n * sizeof(float));
    random_fill(e->n, -5.0f, 5.0f, j.a);
    const double ns = best_seconds(e->call, &j) * 1e9;
    printf(json ? "{\"kernel\":\"%s\",\"isa\":\"%s\",\"n\":%lld,\"ns\":%.1f,\"ns_per_element\":%.3f}\n"
                : "%-10s %-10s n %4lld  %9.1f ns  %.3f ns/element\n",
           e->name, sdx_isa_name(c->isa), (long long)e->n, ns, ns / (double)e->n);
    free(j.a), free(j.c), free(j.bias);
}

static bool wanted(const char *name, const char *filter) { return !filter || strstr(name, filter); }

void bench_run(const context *c, const char *filter, bool json)
{
    static const int64_t rows[] = {1, 2, 4, 8, 32, 128}, shapes[][2] = {{768, 768}, {768, 3072}, {3072, 768},
                                                                        {384, 384}, {384, 1536}, {1536, 384}};
    static const int64_t tokens[] = {8, 32, 128, 256, 512};
    if (c->isa == SDX_ISA_SCALAR) return; /* nobody waits for it */
    const sdx_kernels *k = c->kernels; /* of 16 bits, what the CPU has an instruction for */
    const product products[] = {
        {"gemm_f32", &k->gemm_f32, sdx_peak_f32, true},
        {"gemm_bf16", &k->gemm_bf16, sdx_peak_bf16, k->gemm_bf16.run != NULL},
        {"gemm_f16", &k->gemm_f16, sdx_peak_f16, k->isa == SDX_ISA_AVX512FP16},
        {"gemm_int8", NULL, sdx_peak_int8, true},
    };
    for (size_t p = 0; p < sizeof products / sizeof *products; p++)
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
            for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
                if (products[p].wanted && wanted(products[p].name, filter))
                    bench_gemm(c, &products[p], (const int64_t[3]){rows[r], shapes[s][0], shapes[s][1]}, json);
    for (size_t t = 0; t < sizeof tokens / sizeof *tokens && wanted("attention", filter); t++) {
        bench_attention(c, tokens[t], 32, json);
        bench_attention(c, tokens[t], 64, json);
    }
    for (size_t i = 0; i < sizeof element_benches / sizeof *element_benches; i++)
        if (wanted(element_benches[i].name, filter)) bench_element(c, &element_benches[i], json);
}
