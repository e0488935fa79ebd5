/* avx512vnni.h: AVX512 and the dot product of bytes. */
#include "avx512.h"

#define V_DOT4 1

/* acc + the sum of four products u8 * s8 per lane, without saturation. As assembly, because gcc 12 copies the
 * accumulators of the intrinsic around. */
V_INLINE vi vi_dot4(vi acc, vi u8, vi s8)
{
    __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(u8), "v"(s8));
    return acc;
}
