/* neon_i8mm.h: NEON and the byte matrix product of Armv8.6. */
#include "neon.h"

#define V_MATMUL 1

/* acc, a 2 x 2 matrix, plus a[2, 8] of u8 times b[8, 2] of s8, whose columns lie together. */
V_INLINE vi vi_matmul(vi acc, vi a, vi b)
{
    return vusmmlaq_s32(acc, vreinterpretq_u8_s32(a), vreinterpretq_s8_s32(b));
}

/* Eight bytes of each; the low and the high halves of each. */
V_INLINE vi vi_load_rows(const void *p, const void *q)
{
    return vreinterpretq_s32_u8(vcombine_u8(vld1_u8(p), vld1_u8(q)));
}
V_INLINE vi vi_low_halves(vi a, vi b) { return vcombine_s32(vget_low_s32(a), vget_low_s32(b)); }
V_INLINE vi vi_high_halves(vi a, vi b) { return vcombine_s32(vget_high_s32(a), vget_high_s32(b)); }
