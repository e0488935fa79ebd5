/* avx512fp16.h: AVX512 and multiply-adds of float16, which know denormals whatever MXCSR says. */
#include "avx512.h"

#define V_FMA_F16 1

/* See half.h. As assembly, because gcc 12 keeps half of the accumulators of the intrinsic on the stack. */
V_INLINE vi vi_fma_f16(vi a, vi b, vi c)
{
    __asm__("vfmadd231ph %2, %1, %0" : "+v"(c) : "v"(a), "v"(b));
    return c;
}
