/* neon.h: the vocabulary on Armv8.0 NEON, which every AArch64 has. A mask is a vector of all-ones lanes. */
#include <arm_neon.h>

#define VLEN 4

typedef float32x4_t vf;
typedef int32x4_t vi;
typedef uint32x4_t vm;

V_INLINE vm v_first(int n)
{
    const int32x4_t lane = {0, 1, 2, 3};
    return vcltq_s32(lane, vdupq_n_s32(n));
}

V_INLINE vf v_zero(void) { return vdupq_n_f32(0.0f); }
V_INLINE vf v_set1(float x) { return vdupq_n_f32(x); }
V_INLINE vf v_load(const void *p) { return vreinterpretq_f32_u8(vld1q_u8(p)); }
V_INLINE void v_store(void *p, vf x) { vst1q_u8(p, vreinterpretq_u8_f32(x)); }

/* No masked loads here: tails pass through four floats on the stack. */
V_INLINE vf v_load_n(const void *p, int n)
{
    if (n >= VLEN) return v_load(p);
    float part[VLEN] = {0};
    if (n > 0) memcpy(part, p, (size_t)n * sizeof(float));
    return v_load(part);
}

V_INLINE void v_store_n(void *p, vf x, int n)
{
    if (n >= VLEN) {
        v_store(p, x);
        return;
    }
    float part[VLEN];
    v_store(part, x);
    if (n > 0) memcpy(p, part, (size_t)n * sizeof(float));
}

V_INLINE vf v_add(vf a, vf b) { return vaddq_f32(a, b); }
V_INLINE vf v_sub(vf a, vf b) { return vsubq_f32(a, b); }
V_INLINE vf v_mul(vf a, vf b) { return vmulq_f32(a, b); }
V_INLINE vf v_div(vf a, vf b) { return vdivq_f32(a, b); }
V_INLINE vf v_fma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
V_INLINE vf v_fnma(vf a, vf b, vf c) { return vfmsq_f32(c, a, b); }
V_INLINE vf v_min(vf a, vf b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
V_INLINE vf v_max(vf a, vf b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
V_INLINE vf v_abs(vf x) { return vabsq_f32(x); }
V_INLINE vf v_neg(vf x) { return vnegq_f32(x); }
V_INLINE vf v_sqrt(vf x) { return vsqrtq_f32(x); }
V_INLINE vf v_round(vf x) { return vrndnq_f32(x); }
V_INLINE vf v_copysign(vf x, vf sign) { return vbslq_f32(vdupq_n_u32(0x80000000u), sign, x); }

V_INLINE vm v_lt(vf a, vf b) { return vcltq_f32(a, b); }
V_INLINE vm v_isnan(vf x) { return vmvnq_u32(vceqq_f32(x, x)); }
V_INLINE vm v_or(vm a, vm b) { return vorrq_u32(a, b); }
V_INLINE bool v_any(vm m) { return vmaxvq_u32(m) != 0; }
V_INLINE vm v_none(void) { return vdupq_n_u32(0); }
V_INLINE vf v_select(vm m, vf a, vf b) { return vbslq_f32(m, a, b); }

/* Halves onto each other until one lane is left; vaddvq adds neighbours, vmaxvq keeps NaN. */
#define V_REDUCE(name, op)                                                                                     \
    V_INLINE float name(vf x)                                                                                  \
    {                                                                                                          \
        x = op(x, vextq_f32(x, x, 2));                                                                         \
        return vgetq_lane_f32(op(x, vextq_f32(x, x, 1)), 0);                                                   \
    }
V_REDUCE(v_reduce_add, v_add)
V_REDUCE(v_reduce_max, v_max)
V_REDUCE(v_reduce_min, v_min)
#undef V_REDUCE

V_INLINE vi v_cvt_i(vf x) { return vcvtnq_s32_f32(x); }
V_INLINE vf v_cvt_f(vi x) { return vcvtq_f32_s32(x); }

/* Two factors and one rounding, as in avx2.h. */
V_INLINE vf v_ldexp(vf x, vf n)
{
    int32x4_t e = v_cvt_i(n), half = vshrq_n_s32(e, 1), bias = vdupq_n_s32(127);
    float32x4_t first = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(half, bias), 23));
    float32x4_t second = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vsubq_s32(e, half), bias), 23));
    return vmulq_f32(vmulq_f32(x, first), second);
}

/* As in avx2.h. */
V_INLINE vf v_frexp(vf x, vf *e)
{
    vm tiny = v_lt(x, v_set1(0x1p-126f));
    x = v_select(tiny, v_mul(x, v_set1(0x1p23f)), x);
    int32x4_t half = vdupq_n_s32(0x3f3504f3), bits = vsubq_s32(vreinterpretq_s32_f32(x), half);
    *e = v_sub(v_cvt_f(vshrq_n_s32(bits, 23)), v_select(tiny, v_set1(23.0f), v_zero()));
    return vreinterpretq_f32_s32(vaddq_s32(vandq_s32(bits, vdupq_n_s32(0x7fffff)), half));
}

V_INLINE vi vi_set1(int32_t x) { return vdupq_n_s32(x); }
V_INLINE vi vi_add(vi a, vi b) { return vaddq_s32(a, b); }
V_INLINE vi vi_sub(vi a, vi b) { return vsubq_s32(a, b); }
V_INLINE vi vi_mul(vi a, vi b) { return vmulq_s32(a, b); }
V_INLINE vi vi_load(const void *p) { return vreinterpretq_s32_u8(vld1q_u8(p)); }
V_INLINE void vi_store(void *p, vi x) { vst1q_u8(p, vreinterpretq_u8_s32(x)); }
V_INLINE vi vi_load_n(const void *p, int n) { return vreinterpretq_s32_f32(v_load_n(p, n)); }
V_INLINE void vi_store_n(void *p, vi x, int n) { v_store_n(p, vreinterpretq_f32_s32(x), n); }

V_INLINE uint8x8_t v_load_4_bytes(const void *p)
{
    uint32_t four;
    memcpy(&four, p, sizeof four);
    return vreinterpret_u8_u32(vdup_n_u32(four));
}

V_INLINE vi vi_load_u8(const uint8_t *p)
{
    return vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(v_load_4_bytes(p)))));
}

V_INLINE vi vi_load_s8(const int8_t *p)
{
    return vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u8(v_load_4_bytes(p)))));
}

V_INLINE void vi_store_8(void *p, vi x)
{
    const int16x4_t narrow = vmovn_s32(x);
    const uint32_t four = vget_lane_u32(vreinterpret_u32_s8(vmovn_s16(vcombine_s16(narrow, narrow))), 0);
    memcpy(p, &four, sizeof four);
}

V_INLINE vi vi_dot2(vi acc, vi a, vi b)
{
    const int16x8_t p = vreinterpretq_s16_s32(a), q = vreinterpretq_s16_s32(b);
    const int32x4_t low = vmull_s16(vget_low_s16(p), vget_low_s16(q));
    return vaddq_s32(acc, vpaddq_s32(low, vmull_high_s16(p, q)));
}

V_INLINE vi vi_load_s8_pairs(const int8_t *p) { return vreinterpretq_s32_s16(vmovl_s8(vld1_s8(p))); }

#define V_F16 1
V_INLINE vf v_load_f16(const uint16_t *p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }

V_INLINE void v_transpose(vf r[VLEN])
{
    const float64x2_t a = vreinterpretq_f64_f32(vtrn1q_f32(r[0], r[1]));
    const float64x2_t b = vreinterpretq_f64_f32(vtrn2q_f32(r[0], r[1]));
    const float64x2_t c = vreinterpretq_f64_f32(vtrn1q_f32(r[2], r[3]));
    const float64x2_t d = vreinterpretq_f64_f32(vtrn2q_f32(r[2], r[3]));
    r[0] = vreinterpretq_f32_f64(vtrn1q_f64(a, c));
    r[1] = vreinterpretq_f32_f64(vtrn1q_f64(b, d));
    r[2] = vreinterpretq_f32_f64(vtrn2q_f64(a, c));
    r[3] = vreinterpretq_f32_f64(vtrn2q_f64(b, d));
}
