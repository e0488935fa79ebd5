/* avxvnni_emulated.h: kernels/vec/avxvnni.h without its instruction, so that kcheck can hold that tier's tile to
 * scalar on any CPU with AVX2. Four products u8 * s8 are two pairs of int16, whose sums vpmaddwd has exactly. */
#include "../../kernels/vec/avx2.h"

#define V_DOT4 1

V_INLINE vi vi_dot4(vi acc, vi u8, vi s8)
{
    const __m256i even = _mm256_madd_epi16(_mm256_and_si256(u8, _mm256_set1_epi16(0xff)),
                                           _mm256_srai_epi16(_mm256_slli_epi16(s8, 8), 8));
    const __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(u8, 8), _mm256_srai_epi16(s8, 8));
    return _mm256_add_epi32(acc, _mm256_add_epi32(even, odd));
}
