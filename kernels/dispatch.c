/* dispatch.c: fills one table per tier. The scalar kernels fill it whole; then each tier of this CPU, in order,
 * overwrites what it improves. */
#include "kernels.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define ALL_FAMILIES(isa, F)                                                                                   \
    F(gemm_f32, isa)                                                                                           \
    F(gemm_int8, isa)                                                                                          \
    F(softmax, isa)                                                                                            \
    F(norm, isa)                                                                                               \
    F(activation, isa)                                                                                         \
    F(eltwise, isa)                                                                                            \
    F(reduce, isa)                                                                                             \
    F(conv, isa)                                                                                               \
    F(quantize, isa)                                                                                           \
    F(attention, isa)

#if defined(__x86_64__)
#define KERNEL_OBJECTS(F)                                                                                      \
    ALL_FAMILIES(scalar, F)                                                                                    \
    F(gemm_f16, scalar)                                                                                        \
    ALL_FAMILIES(avx2, F)                                                                                      \
    F(gemm_int8, avxvnni)                                                                                      \
    ALL_FAMILIES(avx512, F)                                                                                    \
    F(gemm_f16, avx512)                                                                                        \
    F(gemm_int8, avx512vnni)                                                                                   \
    F(gemm_bf16, avx512vnni)                                                                                   \
    F(gemm_f16, avx512fp16)
#elif defined(__aarch64__)
#define KERNEL_OBJECTS(F)                                                                                      \
    ALL_FAMILIES(scalar, F)                                                                                    \
    F(gemm_f16, scalar)                                                                                        \
    ALL_FAMILIES(neon, F)                                                                                      \
    F(gemm_int8, neon_dot)                                                                                     \
    F(gemm_int8, neon_i8mm)
#else
#define KERNEL_OBJECTS(F)                                                                                      \
    ALL_FAMILIES(scalar, F)                                                                                    \
    F(gemm_f16, scalar)
#endif

#define DECLARE(family, isa) void sdx_##family##_init_##isa(sdx_kernels *table);
KERNEL_OBJECTS(DECLARE)
#undef DECLARE

enum {
    isa_scalar = SDX_ISA_SCALAR,
    isa_avx2 = SDX_ISA_AVX2,
    isa_avxvnni = SDX_ISA_AVXVNNI,
    isa_avx512 = SDX_ISA_AVX512,
    isa_avx512vnni = SDX_ISA_AVX512VNNI,
    isa_avx512fp16 = SDX_ISA_AVX512FP16,
    isa_neon = SDX_ISA_NEON,
    isa_neon_dot = SDX_ISA_NEON_DOT,
    isa_neon_i8mm = SDX_ISA_NEON_I8MM
};

typedef struct kernel_object {
    int isa;
    void (*init)(sdx_kernels *table);
} kernel_object;

static const kernel_object objects[] = {
#define ROW(family, isa) {isa_##isa, sdx_##family##_init_##isa},
    KERNEL_OBJECTS(ROW)
#undef ROW
};

static sdx_kernels tables[SDX_ISA_COUNT]; /* written once, by fill_tables */
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void fill_tier(int isa)
{
    if (isa > 0) tables[isa] = tables[isa - 1];
    if (!sdx_isa_available((sdx_isa)isa)) return;
    tables[isa].isa = (sdx_isa)isa;
    for (size_t i = 0; i < sizeof objects / sizeof *objects; i++)
        if (objects[i].isa == isa) objects[i].init(&tables[isa]);
}

#ifdef SDX_WITH_OPENBLAS
void sdx_gemm_f32_init_openblas(sdx_kernels *table);

/* OpenBLAS serves CPUs for which we have no vector tile, unless SARDONYX_GEMM says openblas, scalar or own. */
static void choose_gemm(void)
{
    const char *choice = getenv("SARDONYX_GEMM");
    if (!choice) choice = sdx_isa_detect() == SDX_ISA_SCALAR ? "openblas" : "own";
    for (int isa = 0; isa < SDX_ISA_COUNT; isa++)
        if (strcmp(choice, "openblas") == 0)
            sdx_gemm_f32_init_openblas(&tables[isa]);
        else if (strcmp(choice, "scalar") == 0)
            tables[isa].gemm_f32 = tables[SDX_ISA_SCALAR].gemm_f32;
}
#else
static void choose_gemm(void)
{
    const char *choice = getenv("SARDONYX_GEMM");
    for (int isa = 0; choice && strcmp(choice, "scalar") == 0 && isa < SDX_ISA_COUNT; isa++)
        tables[isa].gemm_f32 = tables[SDX_ISA_SCALAR].gemm_f32;
}
#endif

static void fill_tables(void)
{
    for (int isa = 0; isa < SDX_ISA_COUNT; isa++) fill_tier(isa);
    choose_gemm();
    for (int isa = 0; isa < SDX_ISA_COUNT; isa++) tables[isa].linear = tables[isa].gemm_f32;
}

const sdx_kernels *sdx_kernels_get(sdx_isa cap)
{
    pthread_once(&once, fill_tables);
    return &tables[(unsigned)cap < SDX_ISA_COUNT ? cap : SDX_ISA_COUNT - 1];
}
