/* avx2.h: the vocabulary on 256-bit registers: AVX2, FMA and F16C. A mask is a vector of all-ones lanes. */
#include <immintrin.h>

#define VLEN 8

typedef __m256 vf;
typedef __m256i vi;
typedef __m256 vm;

V_INLINE __m256i v_lane_mask(int n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

V_INLINE vf v_zero(void) { return _mm256_setzero_ps(); }
V_INLINE vf v_set1(float x) { return _mm256_set1_ps(x); }
V_INLINE vf v_load(const void *p) { return _mm256_loadu_ps(p); }
V_INLINE void v_store(void *p, vf x) { _mm256_storeu_ps(p, x); }
V_INLINE vf v_load_n(const void *p, int n) { return _mm256_maskload_ps(p, v_lane_mask(n)); }

/* A masked store takes Zen a dozen cycles: only where it must. */
V_INLINE void v_store_n(void *p, vf x, int n)
{
    if (n >= VLEN)
        _mm256_storeu_ps(p, x);
    else
        _mm256_maskstore_ps(p, v_lane_mask(n), x);
}

V_INLINE vf v_add(vf a, vf b) { return _mm256_add_ps(a, b); }
V_INLINE vf v_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
V_INLINE vf v_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
V_INLINE vf v_div(vf a, vf b) { return _mm256_div_ps(a, b); }
V_INLINE vf v_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
V_INLINE vf v_fnma(vf a, vf b, vf c) { return _mm256_fnmadd_ps(a, b, c); }
V_INLINE vf v_min(vf a, vf b) { return _mm256_min_ps(a, b); }
V_INLINE vf v_max(vf a, vf b) { return _mm256_max_ps(a, b); }
V_INLINE vf v_abs(vf x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x); }
V_INLINE vf v_neg(vf x) { return _mm256_xor_ps(_mm256_set1_ps(-0.0f), x); }
V_INLINE vf v_sqrt(vf x) { return _mm256_sqrt_ps(x); }
V_INLINE vf v_round(vf x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

V_INLINE vf v_copysign(vf x, vf sign)
{
    return _mm256_blendv_ps(v_abs(x), _mm256_or_ps(v_abs(x), _mm256_set1_ps(-0.0f)), sign);
}

V_INLINE vm v_lt(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
V_INLINE vm v_isnan(vf x) { return _mm256_cmp_ps(x, x, _CMP_UNORD_Q); }
V_INLINE vm v_or(vm a, vm b) { return _mm256_or_ps(a, b); }
V_INLINE bool v_any(vm m) { return _mm256_movemask_ps(m) != 0; }
V_INLINE vm v_none(void) { return _mm256_setzero_ps(); }
V_INLINE vm v_first(int n) { return _mm256_castsi256_ps(v_lane_mask(n)); }
V_INLINE vf v_select(vm m, vf a, vf b) { return _mm256_blendv_ps(b, a, m); }

/* Halves onto each other until one lane is left. */
#define V_REDUCE(name, op)                                                                                     \
    V_INLINE float name(vf x)                                                                                  \
    {                                                                                                          \
        __m128 h = op(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));                                 \
        h = op(h, _mm_movehl_ps(h, h));                                                                        \
        return _mm_cvtss_f32(op(h, _mm_shuffle_ps(h, h, 1)));                                                  \
    }
V_REDUCE(v_reduce_add, _mm_add_ps)
V_REDUCE(v_reduce_max, _mm_max_ps)
V_REDUCE(v_reduce_min, _mm_min_ps)
#undef V_REDUCE

V_INLINE vi v_cvt_i(vf x) { return _mm256_cvtps_epi32(x); }
V_INLINE vf v_cvt_f(vi x) { return _mm256_cvtepi32_ps(x); }

/* 2^n has no float outside [-126, 127]; two factors reach [-252, 254], and only the last product rounds. */
V_INLINE vf v_ldexp(vf x, vf n)
{
    __m256i e = v_cvt_i(n), half = _mm256_srai_epi32(e, 1), bias = _mm256_set1_epi32(127);
    __m256i first = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
    __m256i second = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(e, half), bias), 23);
    return _mm256_mul_ps(_mm256_mul_ps(x, _mm256_castsi256_ps(first)), _mm256_castsi256_ps(second));
}

/* Denormals are first scaled up. Subtracting the bits of sqrt(1/2) makes the exponent field step there. */
V_INLINE vf v_frexp(vf x, vf *e)
{
    vm tiny = v_lt(x, v_set1(0x1p-126f));
    x = v_select(tiny, _mm256_mul_ps(x, v_set1(0x1p23f)), x);
    __m256i half = _mm256_set1_epi32(0x3f3504f3), bits = _mm256_sub_epi32(_mm256_castps_si256(x), half);
    *e = v_sub(v_cvt_f(_mm256_srai_epi32(bits, 23)), v_select(tiny, v_set1(23.0f), v_zero()));
    bits = _mm256_and_si256(bits, _mm256_set1_epi32(0x7fffff));
    return _mm256_castsi256_ps(_mm256_add_epi32(bits, half));
}

V_INLINE vi vi_set1(int32_t x) { return _mm256_set1_epi32(x); }
V_INLINE vi vi_add(vi a, vi b) { return _mm256_add_epi32(a, b); }
V_INLINE vi vi_sub(vi a, vi b) { return _mm256_sub_epi32(a, b); }
V_INLINE vi vi_mul(vi a, vi b) { return _mm256_mullo_epi32(a, b); }
V_INLINE vi vi_load(const void *p) { return _mm256_loadu_si256(p); }
V_INLINE void vi_store(void *p, vi x) { _mm256_storeu_si256(p, x); }
V_INLINE vi vi_load_n(const void *p, int n) { return _mm256_maskload_epi32(p, v_lane_mask(n)); }

V_INLINE void vi_store_n(void *p, vi x, int n)
{
    if (n >= VLEN)
        _mm256_storeu_si256(p, x);
    else
        _mm256_maskstore_epi32(p, v_lane_mask(n), x);
}

V_INLINE vi vi_load_u8(const uint8_t *p) { return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)p)); }
V_INLINE vi vi_load_s8(const int8_t *p) { return _mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)p)); }

V_INLINE void vi_store_8(void *p, vi x)
{
    const __m128i low = _mm_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
    x = _mm256_shuffle_epi8(x, _mm256_broadcastsi128_si256(low));
    _mm_storel_epi64(p, _mm_unpacklo_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1)));
}

V_INLINE vi vi_dot2(vi acc, vi a, vi b) { return _mm256_add_epi32(acc, _mm256_madd_epi16(a, b)); }
V_INLINE vi vi_load_s8_pairs(const int8_t *p) { return _mm256_cvtepi8_epi16(_mm_loadu_si128((const void *)p)); }

#define V_F16 1
V_INLINE vf v_load_f16(const uint16_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const void *)p)); }

/* 2x2 exchanges at distances 1, 2 and 4. */
V_INLINE void v_transpose(vf r[VLEN])
{
    vf s[VLEN], t[VLEN];
    V_UNROLL
    for (int i = 0; i < 8; i += 2) {
        s[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        s[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    V_UNROLL
    for (int i = 0; i < 8; i += 4) {
        t[i] = _mm256_shuffle_ps(s[i], s[i + 2], 0x44);
        t[i + 1] = _mm256_shuffle_ps(s[i], s[i + 2], 0xee);
        t[i + 2] = _mm256_shuffle_ps(s[i + 1], s[i + 3], 0x44);
        t[i + 3] = _mm256_shuffle_ps(s[i + 1], s[i + 3], 0xee);
    }
    V_UNROLL
    for (int i = 0; i < 4; i++) {
        r[i] = _mm256_permute2f128_ps(t[i], t[i + 4], 0x20);
        r[i + 4] = _mm256_permute2f128_ps(t[i], t[i + 4], 0x31);
    }
}
