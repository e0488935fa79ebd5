/* avxvnni.h: AVX2 and the dot product of bytes, in the encoding for CPUs without AVX512. */
#include "avx2.h"

#define V_DOT4 1

/* As in avx512vnni.h. */
V_INLINE vi vi_dot4(vi acc, vi u8, vi s8)
{
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc) : "x"(u8), "x"(s8));
    return acc;
}
