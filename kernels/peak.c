/* peak.c: how many operations a second a core does at best: 12 independent chains of one multiply-add instruction,
 * in registers only. Measured, not looked up: clouds change clocks between minutes. */
#include "../base/clock.h"
#include "kernels.h"

#if defined(__x86_64__)

#define CHAIN(op, r)                                                                                           \
    op " %%" r "0,%%" r "0,%%" r "1\n" op " %%" r "0,%%" r "0,%%" r "2\n" op " %%" r "0,%%" r "0,%%" r         \
       "3\n" op " %%" r "0,%%" r "0,%%" r "4\n" op " %%" r "0,%%" r "0,%%" r "5\n" op " %%" r "0,%%" r         \
       "0,%%" r "6\n" op " %%" r "0,%%" r "0,%%" r "7\n" op " %%" r "0,%%" r "0,%%" r "8\n" op " %%" r         \
       "0,%%" r "0,%%" r "9\n" op " %%" r "0,%%" r "0,%%" r "10\n" op " %%" r "0,%%" r "0,%%" r "11\n" op      \
       " %%" r "0,%%" r "0,%%" r "12\n"
#define PEAK(name, op, r)                                                                                      \
    static void name(long n)                                                                                   \
    {                                                                                                          \
        __asm__ volatile("vzeroall\n1:\n" CHAIN(op, r) CHAIN(op, r) "dec %0\njnz 1b\nvzeroupper"               \
                         : "+r"(n)::"cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",      \
                           "xmm8", "xmm9", "xmm10", "xmm11", "xmm12");                                         \
    }
PEAK(fma_zmm, "vfmadd231ps", "zmm")
PEAK(fma_ymm, "vfmadd231ps", "ymm")
PEAK(bf16_zmm, "vdpbf16ps", "zmm")
PEAK(f16_zmm, "vfmadd231ph", "zmm")
PEAK(dot_zmm, "vpdpbusd", "zmm")
PEAK(dot_ymm, "%{vex%} vpdpbusd", "ymm")
PEAK(madd_zmm, "vpmaddwd", "zmm")
PEAK(madd_ymm, "vpmaddwd", "ymm")

enum { TRIES = 20, TURNS = 20000, LINKS = 24 };

/* operations: of one instruction. The best of some tries, which other programs disturb least. */
static double rate(void (*chain)(long), double operations)
{
    double best = 1e9;
    for (int i = 0; i < TRIES; i++) {
        const double start = sdx_now();
        chain(TURNS);
        const double t = sdx_now() - start;
        if (t < best) best = t;
    }
    return TURNS * (double)LINKS * operations / best;
}

double sdx_peak_f32(const sdx_kernels *k)
{
    return k->isa >= SDX_ISA_AVX512 ? rate(fma_zmm, 32) : k->isa >= SDX_ISA_AVX2 ? rate(fma_ymm, 16) : 0;
}

double sdx_peak_bf16(const sdx_kernels *k) { return k->gemm_bf16.run ? rate(bf16_zmm, 64) : 0; }

double sdx_peak_f16(const sdx_kernels *k) { return k->isa == SDX_ISA_AVX512FP16 ? rate(f16_zmm, 64) : 0; }

double sdx_peak_int8(const sdx_kernels *k)
{
    switch (k->isa) {
    case SDX_ISA_AVX512FP16:
    case SDX_ISA_AVX512VNNI: return rate(dot_zmm, 128);
    case SDX_ISA_AVX512: return rate(madd_zmm, 64);
    case SDX_ISA_AVXVNNI: return rate(dot_ymm, 64);
    case SDX_ISA_AVX2: return rate(madd_ymm, 32);
    default: return 0;
    }
}

#else

double sdx_peak_f32(const sdx_kernels *k) { return (void)k, 0.0; }
double sdx_peak_bf16(const sdx_kernels *k) { return (void)k, 0.0; }
double sdx_peak_int8(const sdx_kernels *k) { return (void)k, 0.0; }
double sdx_peak_f16(const sdx_kernels *k) { return (void)k, 0.0; }

#endif
