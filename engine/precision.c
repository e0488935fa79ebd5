/* precision.c: what multiplies by constant weights: float32, bfloat16, float16, or what a probe of this CPU says.
 *
 * That a CPU has a bfloat16 dot product does not say that it pays: AMD's Zen 4 does two a cycle, twice the work of its
 * float32, Intel's cores without AMX one in two cycles, half of it; float16 they do at twice the rate. So "auto" times
 * what this CPU has on a product that lies in the caches, in turn, and compares the best of each, which other programs
 * disturb least. It takes less than a millisecond. */
#include <stdlib.h>
#include <string.h>

#include "../base/clock.h"
#include "../base/memory.h"
#include "engine.h"

enum { ROWS = 56, COLUMNS = 64, DEPTH = 512, ROUNDS = 8 };

/* A gain below this is not worth the digits; either answer of a real CPU is far from it. */
static const double worth = 1.25;

static int64_t panels(const sdx_gemm_f32_kernels *k) { return (COLUMNS + k->nr - 1) / k->nr; }

static double time_product(const sdx_gemm_f32_kernels *k, const float *a, const float *packed, float *c)
{
    const double start = sdx_now();
    k->run(ROWS, COLUMNS, DEPTH, a, DEPTH, packed, 0, panels(k), NULL, SDX_ACT_NONE, NULL, 0, c, COLUMNS);
    return sdx_now() - start;
}

/* In one order everywhere. fast: by an instruction of this CPU, so that it may pay. */
typedef struct choice {
    const char *name;
    const sdx_gemm_f32_kernels *gemm;
    bool fast;
} choice;
enum { FP32, BF16, FP16, CHOICES };

static void list_choices(const sdx_kernels *k, choice list[CHOICES])
{
    list[FP32] = (choice){"fp32", &k->gemm_f32, true};
    list[BF16] = (choice){"bf16", &k->gemm_bf16, k->gemm_bf16.run != NULL};
    list[FP16] = (choice){"fp16", &k->gemm_f16, k->isa == SDX_ISA_AVX512FP16};
}

/* The shortest time of each fast one, in seconds; of the others 1. */
static sdx_status probe(const choice list[CHOICES], double best[CHOICES], sdx_error *err)
{
    float *a = sdx_calloc(ROWS * DEPTH, sizeof *a), *b = sdx_calloc(DEPTH * COLUMNS, sizeof *b);
    float *c = sdx_calloc(ROWS * COLUMNS, sizeof *c), *packed[CHOICES] = {NULL};
    bool fine = a && b && c;
    for (int i = 0; i < CHOICES; i++) {
        best[i] = 1;
        if (!list[i].fast) continue;
        packed[i] = sdx_malloc_aligned(list[i].gemm->packed_bytes(DEPTH, COLUMNS));
        fine = fine && packed[i];
        if (fine) list[i].gemm->pack_b(DEPTH, COLUMNS, b, COLUMNS, 1, 0, panels(list[i].gemm), packed[i]);
    }
    for (int round = 0; fine && round < ROUNDS; round++)
        for (int i = 0; i < CHOICES; i++) {
            const double t = list[i].fast ? time_product(list[i].gemm, a, packed[i], c) : 1;
            if (t < best[i]) best[i] = t;
        }
    free(a);
    free(b);
    free(c);
    for (int i = 0; i < CHOICES; i++) free(packed[i]);
    return fine ? SDX_OK : sdx_fail(err, SDX_ERR_MEMORY, "out of memory");
}

static sdx_status choose(const choice list[CHOICES], int *chosen, sdx_error *err)
{
    double best[CHOICES];
    *chosen = FP32;
    if (!list[BF16].fast && !list[FP16].fast) return SDX_OK;
    TRY(probe(list, best, err));
    for (int i = FP32 + 1; i < CHOICES; i++)
        if (best[FP32] >= worth * best[i] && best[i] < best[*chosen]) *chosen = i;
    return SDX_OK;
}

static sdx_status find(const choice list[CHOICES], const char *name, int *chosen, sdx_error *err)
{
    for (*chosen = 0; *chosen < CHOICES; ++*chosen)
        if (!strcmp(name, list[*chosen].name)) return SDX_OK;
    return sdx_fail(err, SDX_ERR_USAGE, "precision is fp32, bf16, fp16 or auto, not \"%s\"", name);
}

sdx_status sdx_kernels_set_precision(const char *precision, sdx_arena *arena, const sdx_kernels **kernels,
                                     sdx_error *err)
{
    choice list[CHOICES];
    int chosen;
    list_choices(*kernels, list);
    if (precision && !strcmp(precision, "auto"))
        TRY(choose(list, &chosen, err));
    else
        TRY(find(list, precision ? precision : "fp32", &chosen, err));
    if (chosen == FP32) return SDX_OK;
    if (!list[chosen].gemm->run)
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "bf16 needs a CPU with AVX512-BF16; this one (%s) runs fp32 faster",
                        sdx_isa_name((*kernels)->isa));
    sdx_kernels *own;
    ARENA_NEW(arena, own, 1, err);
    *own = **kernels;
    own->linear = *list[chosen].gemm;
    *kernels = own;
    return SDX_OK;
}

const char *sdx_kernels_precision(const sdx_kernels *kernels)
{
    choice list[CHOICES];
    list_choices(kernels, list);
    int i = CHOICES - 1;
    while (i > FP32 && list[i].gemm->run != kernels->linear.run) i--;
    return list[i].name;
}
