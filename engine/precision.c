/* precision.c: what multiplies by constant weights: float32, bfloat16, or what a probe of this CPU says.
 *
 * That a CPU has a bfloat16 dot product does not say that it pays: AMD's Zen 4 does two a cycle, twice the work of its
 * float32, Intel's cores without AMX one in two cycles, half of it. So "auto" times both on a product that lies in the
 * caches, in turn, and compares the best of each, which other programs disturb least. It takes less than a millisecond. */
#include <stdlib.h>
#include <string.h>

#include "../base/clock.h"
#include "../base/memory.h"
#include "engine.h"

enum { ROWS = 56, COLUMNS = 64, DEPTH = 512, ROUNDS = 8 };

/* A gain below this is not worth the digits; either answer of a real CPU is far from it. */
static const double worth = 1.25;

static double time_product(const sdx_gemm_f32_kernels *k, const float *a, const float *packed, float *c)
{
    const double start = sdx_now();
    k->run(ROWS, COLUMNS, DEPTH, a, DEPTH, packed, 0, (COLUMNS + k->nr - 1) / k->nr, NULL, SDX_ACT_NONE, NULL, 0, c,
           COLUMNS);
    return sdx_now() - start;
}

static sdx_status probe(const sdx_gemm_f32_kernels *const kernels[2], double best[2], sdx_error *err)
{
    float *a = sdx_calloc(ROWS * DEPTH, sizeof *a), *b = sdx_calloc(DEPTH * COLUMNS, sizeof *b);
    float *c = sdx_calloc(ROWS * COLUMNS, sizeof *c), *packed[2] = {NULL, NULL};
    bool fine = a && b && c;
    for (int i = 0; i < 2; i++) {
        packed[i] = sdx_malloc_aligned(kernels[i]->packed_bytes(DEPTH, COLUMNS));
        fine = fine && packed[i];
        best[i] = 1;
        if (fine)
            kernels[i]->pack_b(DEPTH, COLUMNS, b, COLUMNS, 1, 0, (COLUMNS + kernels[i]->nr - 1) / kernels[i]->nr,
                               packed[i]);
    }
    for (int round = 0; fine && round < 2 * ROUNDS; round++) {
        const double t = time_product(kernels[round % 2], a, packed[round % 2], c);
        if (t < best[round % 2]) best[round % 2] = t;
    }
    free(a);
    free(b);
    free(c);
    free(packed[0]);
    free(packed[1]);
    return fine ? SDX_OK : sdx_fail(err, SDX_ERR_MEMORY, "out of memory");
}

static sdx_status choose(const sdx_kernels *k, bool *bf16, sdx_error *err)
{
    double best[2];
    const sdx_gemm_f32_kernels *const both[2] = {&k->gemm_f32, &k->gemm_bf16};
    *bf16 = false;
    if (!k->gemm_bf16.run) return SDX_OK;
    TRY(probe(both, best, err));
    *bf16 = best[0] >= worth * best[1];
    return SDX_OK;
}

sdx_status sdx_kernels_set_precision(const char *precision, sdx_arena *arena, const sdx_kernels **kernels,
                                     sdx_error *err)
{
    bool bf16 = precision && !strcmp(precision, "bf16");
    if (precision && !strcmp(precision, "auto"))
        TRY(choose(*kernels, &bf16, err));
    else if (precision && !bf16 && strcmp(precision, "fp32"))
        return sdx_fail(err, SDX_ERR_USAGE, "precision is fp32, bf16 or auto, not \"%s\"", precision);
    if (!bf16) return SDX_OK;
    if (!(*kernels)->gemm_bf16.run)
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "bf16 needs a CPU with AVX512-BF16; this one (%s) runs fp32 faster",
                        sdx_isa_name((*kernels)->isa));
    sdx_kernels *own;
    ARENA_NEW(arena, own, 1, err);
    *own = **kernels;
    own->linear = own->gemm_bf16;
    *kernels = own;
    return SDX_OK;
}
