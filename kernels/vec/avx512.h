/* avx512.h: the vocabulary on 512-bit registers: AVX512 F, BW, DQ, VL, CD. Masks are mask registers, and tails
 * cost nothing. */
#include <immintrin.h>

#define VLEN 16

typedef __m512 vf;
typedef __m512i vi;
typedef __mmask16 vm;

V_INLINE vm v_first(int n) { return (vm)((1u << n) - 1u); }

V_INLINE vf v_zero(void) { return _mm512_setzero_ps(); }
V_INLINE vf v_set1(float x) { return _mm512_set1_ps(x); }
V_INLINE vf v_load(const void *p) { return _mm512_loadu_ps(p); }
V_INLINE void v_store(void *p, vf x) { _mm512_storeu_ps(p, x); }
V_INLINE vf v_load_n(const void *p, int n) { return _mm512_maskz_loadu_ps(v_first(n), p); }
V_INLINE void v_store_n(void *p, vf x, int n) { _mm512_mask_storeu_ps(p, v_first(n), x); }

V_INLINE vf v_add(vf a, vf b) { return _mm512_add_ps(a, b); }
V_INLINE vf v_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
V_INLINE vf v_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
V_INLINE vf v_div(vf a, vf b) { return _mm512_div_ps(a, b); }
V_INLINE vf v_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
V_INLINE vf v_fnma(vf a, vf b, vf c) { return _mm512_fnmadd_ps(a, b, c); }
V_INLINE vf v_min(vf a, vf b) { return _mm512_min_ps(a, b); }
V_INLINE vf v_max(vf a, vf b) { return _mm512_max_ps(a, b); }
V_INLINE vf v_abs(vf x) { return _mm512_andnot_ps(_mm512_set1_ps(-0.0f), x); }
V_INLINE vf v_neg(vf x) { return _mm512_xor_ps(_mm512_set1_ps(-0.0f), x); }
V_INLINE vf v_sqrt(vf x) { return _mm512_sqrt_ps(x); }
V_INLINE vf v_round(vf x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

V_INLINE vf v_copysign(vf x, vf sign)
{
    const __m512i top = _mm512_set1_epi32(INT32_MIN); /* 0xca: top ? sign : x, bit by bit */
    return _mm512_castsi512_ps(
        _mm512_ternarylogic_epi32(top, _mm512_castps_si512(sign), _mm512_castps_si512(x), 0xca));
}

V_INLINE vm v_lt(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
V_INLINE vm v_isnan(vf x) { return _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q); }
V_INLINE vm v_or(vm a, vm b) { return (vm)(a | b); }
V_INLINE bool v_any(vm m) { return m != 0; }
V_INLINE vm v_none(void) { return 0; }
V_INLINE vf v_select(vm m, vf a, vf b) { return _mm512_mask_blend_ps(m, b, a); }

/* Halves onto each other until one lane is left; the intrinsics of that name leave the order to the
 * compiler. */
#define V_REDUCE(name, op, op_half, op_quarter)                                                                \
    V_INLINE float name(vf x)                                                                                  \
    {                                                                                                          \
        __m256 w = op_half(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));                           \
        __m128 h = op_quarter(_mm256_castps256_ps128(w), _mm256_extractf128_ps(w, 1));                         \
        h = op_quarter(h, _mm_movehl_ps(h, h));                                                                \
        return _mm_cvtss_f32(op_quarter(h, _mm_shuffle_ps(h, h, 1)));                                          \
    }
V_REDUCE(v_reduce_add, _mm512_add_ps, _mm256_add_ps, _mm_add_ps)
V_REDUCE(v_reduce_max, _mm512_max_ps, _mm256_max_ps, _mm_max_ps)
V_REDUCE(v_reduce_min, _mm512_min_ps, _mm256_min_ps, _mm_min_ps)
#undef V_REDUCE

V_INLINE vi v_cvt_i(vf x) { return _mm512_cvtps_epi32(x); }
V_INLINE vf v_cvt_f(vi x) { return _mm512_cvtepi32_ps(x); }
V_INLINE vf v_ldexp(vf x, vf n) { return _mm512_scalef_ps(x, n); }

/* getexp and getmant know denormals; mantissas below sqrt(1/2) are doubled. */
V_INLINE vf v_frexp(vf x, vf *e)
{
    vf m = _mm512_getmant_ps(x, _MM_MANT_NORM_p5_1, _MM_MANT_SIGN_zero), g = _mm512_getexp_ps(x);
    vm low = v_lt(m, _mm512_set1_ps(0.70710678f));
    *e = v_select(low, g, _mm512_add_ps(g, v_set1(1.0f)));
    return _mm512_mask_add_ps(m, low, m, m);
}

V_INLINE vi vi_set1(int32_t x) { return _mm512_set1_epi32(x); }
V_INLINE vi vi_add(vi a, vi b) { return _mm512_add_epi32(a, b); }
V_INLINE vi vi_sub(vi a, vi b) { return _mm512_sub_epi32(a, b); }
V_INLINE vi vi_mul(vi a, vi b) { return _mm512_mullo_epi32(a, b); }
V_INLINE vi vi_load(const void *p) { return _mm512_loadu_si512(p); }
V_INLINE void vi_store(void *p, vi x) { _mm512_storeu_si512(p, x); }
V_INLINE vi vi_load_n(const void *p, int n) { return _mm512_maskz_loadu_epi32(v_first(n), p); }
V_INLINE void vi_store_n(void *p, vi x, int n) { _mm512_mask_storeu_epi32(p, v_first(n), x); }
V_INLINE vi vi_load_u8(const uint8_t *p) { return _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)p)); }
V_INLINE vi vi_load_s8(const int8_t *p) { return _mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)p)); }
V_INLINE void vi_store_8(void *p, vi x) { _mm_storeu_si128(p, _mm512_cvtepi32_epi8(x)); }
V_INLINE vi vi_dot2(vi acc, vi a, vi b) { return _mm512_add_epi32(acc, _mm512_madd_epi16(a, b)); }
V_INLINE vi vi_load_s8_pairs(const int8_t *p)
{
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const void *)p));
}

#define V_F16 1
V_INLINE vf v_load_f16(const uint16_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)p)); }

/* 4x4 transposes inside the 128-bit lanes, then the lanes as a 4x4 matrix. */
V_INLINE void v_transpose(vf r[VLEN])
{
    vf s[VLEN], t[VLEN];
    V_UNROLL
    for (int i = 0; i < 16; i += 2) {
        s[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        s[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    V_UNROLL
    for (int i = 0; i < 16; i += 4) {
        t[i] = _mm512_shuffle_ps(s[i], s[i + 2], 0x44);
        t[i + 1] = _mm512_shuffle_ps(s[i], s[i + 2], 0xee);
        t[i + 2] = _mm512_shuffle_ps(s[i + 1], s[i + 3], 0x44);
        t[i + 3] = _mm512_shuffle_ps(s[i + 1], s[i + 3], 0xee);
    }
    V_UNROLL
    for (int i = 0; i < 4; i++) {
        vf a = _mm512_shuffle_f32x4(t[i], t[i + 4], 0x88), b = _mm512_shuffle_f32x4(t[i], t[i + 4], 0xdd);
        vf c = _mm512_shuffle_f32x4(t[i + 8], t[i + 12], 0x88);
        vf d = _mm512_shuffle_f32x4(t[i + 8], t[i + 12], 0xdd);
        r[i] = _mm512_shuffle_f32x4(a, c, 0x88);
        r[i + 8] = _mm512_shuffle_f32x4(a, c, 0xdd);
        r[i + 4] = _mm512_shuffle_f32x4(b, d, 0x88);
        r[i + 12] = _mm512_shuffle_f32x4(b, d, 0xdd);
    }
}
