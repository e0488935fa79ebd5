/* cpu.c: which instruction sets may be used. Feature bits of CPUID and, because the operating system must
 * save the registers too, XCR0; never lists of models, which age (OpenBLAS took this for a Prescott). */
#include "kernels.h"

#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

static const char *const names[SDX_ISA_COUNT] = {
    [SDX_ISA_SCALAR] = "scalar",         [SDX_ISA_AVX2] = "avx2", [SDX_ISA_AVX512] = "avx512",
    [SDX_ISA_AVX512VNNI] = "avx512vnni", [SDX_ISA_NEON] = "neon",
};

const char *sdx_isa_name(sdx_isa isa) { return (unsigned)isa < SDX_ISA_COUNT ? names[isa] : "?"; }

bool sdx_isa_parse(const char *name, sdx_isa *out)
{
    for (int i = 0; i < SDX_ISA_COUNT; i++)
        if (strcmp(name, names[i]) == 0) {
            *out = (sdx_isa)i;
            return true;
        }
    return false;
}

#if defined(__x86_64__)

enum {
    XCR0_AVX = 0x06,    /* xmm, ymm */
    XCR0_AVX512 = 0xe6, /* and masks, zmm, zmm16-31 */
};

static unsigned read_xcr0(void)
{
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

static bool has(unsigned reg, unsigned bits) { return (reg & bits) == bits; }

sdx_isa sdx_isa_detect(void)
{
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !has(c, bit_OSXSAVE | bit_AVX | bit_FMA | bit_F16C))
        return SDX_ISA_SCALAR;
    const unsigned xcr0 = read_xcr0();
    if (!has(xcr0, XCR0_AVX) || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || !has(b, bit_AVX2))
        return SDX_ISA_SCALAR;
    const unsigned avx512 = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL | bit_AVX512CD;
    if (!has(xcr0, XCR0_AVX512) || !has(b, avx512)) return SDX_ISA_AVX2;
    return has(c, bit_AVX512VNNI) ? SDX_ISA_AVX512VNNI : SDX_ISA_AVX512;
}

#elif defined(__aarch64__)

sdx_isa sdx_isa_detect(void) { return SDX_ISA_NEON; } /* part of the base architecture */

#else

sdx_isa sdx_isa_detect(void) { return SDX_ISA_SCALAR; }

#endif

bool sdx_isa_available(sdx_isa isa)
{
    const sdx_isa best = sdx_isa_detect();
    if (isa == SDX_ISA_NEON || best == SDX_ISA_NEON) return isa == best || isa == SDX_ISA_SCALAR;
    return isa <= best;
}
