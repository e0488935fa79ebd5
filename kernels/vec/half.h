/* half.h: the words of float16 that gemm_f16.c needs: VLEN pairs of halves in the lanes of a vi. Included after tile.h.
 *
 *   vi_fma_f16(a, b, c)     a*b + c of every half, rounded once to float16, denormals kept
 *   vi_pair_f16(x, y)       VLEN pairs of floats as pairs of halves, x in the low one, rounded to nearest even
 *   v_load_f16(p)           VLEN halves as floats;  v_store_f16(p, x): rounded, to nearest even
 *
 * Where the CPU multiplies halves (vec/avx512fp16.h) vi_fma_f16 is its instruction; elsewhere it is worked out in wider
 * floats to the same bits, far slower: to see anywhere what such a CPU answers, and to check the kernel where there is
 * none. */
#ifndef SDX_HALF_H
#define SDX_HALF_H

#if VLEN == 16

V_INLINE __m256i narrowed_f16(vf x) { return _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
V_INLINE void v_store_f16(uint16_t *p, vf x) { _mm256_storeu_si256((void *)p, narrowed_f16(x)); }

V_INLINE vi vi_pair_f16(vf x, vf y)
{
    return _mm512_or_si512(_mm512_cvtepu16_epi32(narrowed_f16(x)),
                           _mm512_slli_epi32(_mm512_cvtepu16_epi32(narrowed_f16(y)), 16));
}

#ifndef V_FMA_F16
/* a*b + c rounded to odd: cut towards 0, the last bit set when anything was cut, which is when rounding down and up
 * differ. Of 24 bits so rounded the 11 of a half come out as if rounded once (Boldo & Melquiond, 2008). */
V_INLINE vf fma_odd(vf a, vf b, vf c)
{
    const vf down = _mm512_fmadd_round_ps(a, b, c, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    const vf up = _mm512_fmadd_round_ps(a, b, c, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC);
    const vi cut = _mm512_castps_si512(_mm512_fmadd_round_ps(a, b, c, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC));
    return _mm512_castsi512_ps(
        _mm512_mask_or_epi32(cut, _mm512_cmp_ps_mask(down, up, _CMP_NEQ_OQ), cut, _mm512_set1_epi32(1)));
}

V_INLINE __m256i fma_f16_half(__m256i a, __m256i b, __m256i c)
{
    return narrowed_f16(fma_odd(_mm512_cvtph_ps(a), _mm512_cvtph_ps(b), _mm512_cvtph_ps(c)));
}

V_INLINE vi vi_fma_f16(vi a, vi b, vi c)
{
    const __m256i low = fma_f16_half(_mm512_castsi512_si256(a), _mm512_castsi512_si256(b), _mm512_castsi512_si256(c));
    const __m256i high = fma_f16_half(_mm512_extracti64x4_epi64(a, 1), _mm512_extracti64x4_epi64(b, 1),
                                      _mm512_extracti64x4_epi64(c, 1));
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}
#endif

#else /* one lane */

#include "../../base/dtype.h"

V_INLINE vi vi_pair_f16(vf x, vf y) { return (vi)(sdx_f32_to_f16(x) | (uint32_t)sdx_f32_to_f16(y) << 16); }
V_INLINE vf v_load_f16(const uint16_t *p) { return sdx_f16_to_f32(*p); }
V_INLINE void v_store_f16(uint16_t *p, vf x) { *p = sdx_f32_to_f16(x); }

/* The product is exact in double. So is the sum, unless one side is so small beside the other that it cannot move a
 * half, or so large that the sum is infinite; and rounded to odd on its way through float it is rounded once. */
V_INLINE uint32_t fma_f16(uint32_t a, uint32_t b, uint32_t c)
{
    double sum = (double)sdx_f16_to_f32((uint16_t)a) * (double)sdx_f16_to_f32((uint16_t)b) +
                 (double)sdx_f16_to_f32((uint16_t)c);
    uint64_t bits;
    memcpy(&bits, &sum, sizeof bits);
    const uint64_t cut = bits & 0x1fffffff; /* the 29 bits that float lacks */
    bits = (bits - cut) | (uint64_t)(cut != 0) << 29;
    memcpy(&sum, &bits, sizeof sum);
    return sdx_f32_to_f16((float)sum);
}

V_INLINE vi vi_fma_f16(vi a, vi b, vi c)
{
    const uint32_t x = (uint32_t)a, y = (uint32_t)b, z = (uint32_t)c;
    return (vi)(fma_f16(x & 0xffff, y & 0xffff, z & 0xffff) | fma_f16(x >> 16, y >> 16, z >> 16) << 16);
}

#endif

#endif
