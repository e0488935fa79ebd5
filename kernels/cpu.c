/* cpu.c: which instruction sets may be used: on x86 the feature bits of CPUID and, because the operating system
 * must save the registers too, XCR0; on AArch64 what the kernel says in its auxiliary vector. Never lists of
 * models, which age (OpenBLAS took this for a Prescott). The tiers are no chain: a CPU may have AVX512 and no
 * AVX-VNNI, or the reverse, so what is found is a set, one bit per tier. */
#include "kernels.h"

#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

static const char *const names[SDX_ISA_COUNT] = {
    [SDX_ISA_SCALAR] = "scalar",         [SDX_ISA_AVX2] = "avx2",     [SDX_ISA_AVXVNNI] = "avxvnni",
    [SDX_ISA_AVX512] = "avx512",         [SDX_ISA_NEON] = "neon",     [SDX_ISA_NEON_DOT] = "neon_dot",
    [SDX_ISA_AVX512VNNI] = "avx512vnni", [SDX_ISA_NEON_I8MM] = "neon_i8mm", [SDX_ISA_AVX512FP16] = "avx512fp16",
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

enum { SCALAR = 1u << SDX_ISA_SCALAR };

static bool has(unsigned long word, unsigned long bits) { return (word & bits) == bits; }

#if defined(__x86_64__)

enum {
    XCR0_AVX = 0x06,    /* xmm, ymm */
    XCR0_AVX512 = 0xe6, /* and masks, zmm, zmm16-31 */
    AVX_VNNI = 1 << 4,     /* leaf 7.1, eax */
    AVX512_FP16 = 1 << 23, /* leaf 7, edx */
};

static unsigned read_xcr0(void)
{
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

static unsigned tiers(void)
{
    unsigned a, b, c, d, found = SCALAR;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !has(c, bit_OSXSAVE | bit_AVX | bit_FMA | bit_F16C)) return found;
    const unsigned xcr0 = read_xcr0();
    if (!has(xcr0, XCR0_AVX) || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || !has(b, bit_AVX2)) return found;
    found |= 1u << SDX_ISA_AVX2;
    const unsigned avx512 = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL | bit_AVX512CD;
    if (has(xcr0, XCR0_AVX512) && has(b, avx512)) {
        found |= 1u << SDX_ISA_AVX512;
        if (has(c, bit_AVX512VNNI)) found |= 1u << SDX_ISA_AVX512VNNI;
        if (has(c, bit_AVX512VNNI) && has(d, AVX512_FP16)) found |= 1u << SDX_ISA_AVX512FP16;
    }
    if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && has(a, AVX_VNNI)) found |= 1u << SDX_ISA_AVXVNNI;
    return found;
}

#elif defined(__aarch64__)

static unsigned tiers(void)
{
    unsigned found = SCALAR | 1u << SDX_ISA_NEON; /* part of the base architecture */
#if defined(__linux__)
    enum { DOTPROD = 1 << 20, I8MM = 1 << 13 }; /* AT_HWCAP, AT_HWCAP2 */
    if (has(getauxval(AT_HWCAP), DOTPROD)) found |= 1u << SDX_ISA_NEON_DOT;
    if (has(getauxval(AT_HWCAP2), I8MM)) found |= 1u << SDX_ISA_NEON_I8MM;
#endif
    return found;
}

#else

static unsigned tiers(void) { return SCALAR; }

#endif

sdx_isa sdx_isa_detect(void)
{
    const unsigned found = tiers();
    int best = SDX_ISA_COUNT - 1;
    while (!(found >> best & 1)) best--;
    return (sdx_isa)best;
}

bool sdx_isa_available(sdx_isa isa) { return tiers() >> isa & 1; }
