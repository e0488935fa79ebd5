/* neon_dot.h: NEON and the dot product of bytes of Armv8.2, which takes two of one sign. */
#include "neon.h"

#define V_DOT4        1
#define V_DOT4_SIGNED 1

/* acc + the sum of four products s8 * s8 per lane. */
V_INLINE vi vi_dot4(vi acc, vi a, vi b)
{
    return vdotq_s32(acc, vreinterpretq_s8_s32(a), vreinterpretq_s8_s32(b));
}
