/* scalar.h: the vocabulary with one lane, in plain C for any machine. It is the specification: every other
 * instruction set gives these bits. */
#define VLEN 1

typedef float vf;
typedef int32_t vi;
typedef bool vm;

V_INLINE vf v_zero(void) { return 0.0f; }
V_INLINE vf v_set1(float x) { return x; }

V_INLINE vf v_load(const void *p)
{
    float x;
    memcpy(&x, p, sizeof x);
    return x;
}

V_INLINE void v_store(void *p, vf x) { memcpy(p, &x, sizeof x); }
V_INLINE vf v_load_n(const void *p, int n) { return n > 0 ? v_load(p) : 0.0f; }

V_INLINE void v_store_n(void *p, vf x, int n)
{
    if (n > 0) v_store(p, x);
}

V_INLINE vf v_add(vf a, vf b) { return a + b; }
V_INLINE vf v_sub(vf a, vf b) { return a - b; }
V_INLINE vf v_mul(vf a, vf b) { return a * b; }
V_INLINE vf v_div(vf a, vf b) { return a / b; }

/* p + d in double, rounded to odd: cut towards 0, the last bit set when anything was cut. Such a sum can go to
 * float without harm from rounding twice (Boldo & Melquiond, "Emulation of FMA and correctly rounded sums",
 * 2008). e is what the rounded sum s lost (Knuth's TwoSum), NaN when s is infinite. */
static __attribute__((noinline, unused)) float v_add_odd(double p, double d)
{
    const double s = p + d, t = s - p, e = (p - (s - t)) + (d - t);
    uint64_t bits;
    memcpy(&bits, &s, sizeof bits);
    bits -= e * s < 0.0;
    bits |= e < 0.0 || e > 0.0;
    double odd;
    memcpy(&odd, &bits, sizeof odd);
    return (float)odd;
}

/* a*b + c, rounded once, where fmaf may be a call: in double the product is exact, and rounding the sum twice
 * shows only when it lies half-way between two floats, or among the denormals. */
V_INLINE vf v_fma(vf a, vf b, vf c)
{
#ifdef __FP_FAST_FMAF
    return fmaf(a, b, c);
#else
    const double p = (double)a * (double)b, s = p + (double)c;
    uint64_t bits;
    memcpy(&bits, &s, sizeof bits);
    const bool usual = (bits & 0x1fffffff) != 0x10000000 && fabs(s) >= 0x1p-126;
    return __builtin_expect(usual, 1) ? (float)s : v_add_odd(p, (double)c);
#endif
}

V_INLINE vf v_fnma(vf a, vf b, vf c) { return v_fma(-a, b, c); }
V_INLINE vf v_min(vf a, vf b) { return a < b ? a : b; }
V_INLINE vf v_max(vf a, vf b) { return a > b ? a : b; }
V_INLINE vf v_abs(vf x) { return fabsf(x); }
V_INLINE vf v_neg(vf x) { return -x; }
V_INLINE vf v_sqrt(vf x) { return sqrtf(x); }
V_INLINE vf v_copysign(vf x, vf sign) { return copysignf(x, sign); }

/* Next to 2^23 a float has no room for a fraction. */
V_INLINE vf v_round(vf x)
{
    const float a = fabsf(x);
    return a < 0x1p23f ? copysignf((a + 0x1p23f) - 0x1p23f, x) : x;
}

V_INLINE vm v_lt(vf a, vf b) { return a < b; }
V_INLINE vm v_isnan(vf x) { return x != x; }
V_INLINE vm v_or(vm a, vm b) { return a || b; }
V_INLINE bool v_any(vm m) { return m; }
V_INLINE vm v_none(void) { return false; }
V_INLINE vm v_first(int n) { return n > 0; }
V_INLINE vf v_select(vm m, vf a, vf b) { return m ? a : b; }

V_INLINE float v_reduce_add(vf x) { return x; }
V_INLINE float v_reduce_max(vf x) { return x; }
V_INLINE float v_reduce_min(vf x) { return x; }

V_INLINE vi v_cvt_i(vf x) { return (int32_t)v_round(x); }
V_INLINE vf v_cvt_f(vi x) { return (float)x; }

V_INLINE uint32_t v_bits(vf x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

V_INLINE vf v_from_bits(uint32_t bits)
{
    vf x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Two factors and one rounding, as in avx2.h. */
V_INLINE vf v_ldexp(vf x, vf n)
{
    const int32_t e = n == n ? (int32_t)n : 0, half = e >> 1;
    return x * v_from_bits((uint32_t)(half + 127) << 23) * v_from_bits((uint32_t)(e - half + 127) << 23);
}

/* As in avx2.h. */
V_INLINE vf v_frexp(vf x, vf *e)
{
    const bool tiny = x < 0x1p-126f;
    const uint32_t half = 0x3f3504f3, bits = v_bits(tiny ? x * 0x1p23f : x) - half;
    *e = (float)((int32_t)bits >> 23) - (tiny ? 23.0f : 0.0f);
    return v_from_bits((bits & 0x7fffff) + half);
}

V_INLINE vi vi_set1(int32_t x) { return x; }
V_INLINE vi vi_add(vi a, vi b) { return (int32_t)((uint32_t)a + (uint32_t)b); }
V_INLINE vi vi_sub(vi a, vi b) { return (int32_t)((uint32_t)a - (uint32_t)b); }
V_INLINE vi vi_mul(vi a, vi b) { return (int32_t)((uint32_t)a * (uint32_t)b); }

V_INLINE vi vi_load(const void *p)
{
    int32_t x;
    memcpy(&x, p, sizeof x);
    return x;
}

V_INLINE void vi_store(void *p, vi x) { memcpy(p, &x, sizeof x); }
V_INLINE vi vi_load_n(const void *p, int n) { return n > 0 ? vi_load(p) : 0; }

V_INLINE void vi_store_n(void *p, vi x, int n)
{
    if (n > 0) vi_store(p, x);
}

/* VLEN bytes, widened; narrowed (the value fits). */
V_INLINE vi vi_load_u8(const uint8_t *p) { return *p; }
V_INLINE vi vi_load_s8(const int8_t *p) { return *p; }
V_INLINE void vi_store_8(void *p, vi x) { *(uint8_t *)p = (uint8_t)x; }

/* Pairs of int16 in an int32: acc + lo*lo + hi*hi; and VLEN pairs of int8 widened to such pairs. */
V_INLINE int16_t vi_low16(vi x) { return (int16_t)(uint16_t)((uint32_t)x & 0xffffu); }
V_INLINE int16_t vi_high16(vi x) { return (int16_t)(uint16_t)((uint32_t)x >> 16); }

V_INLINE vi vi_dot2(vi acc, vi a, vi b)
{
    return vi_add(acc, vi_low16(a) * vi_low16(b) + vi_high16(a) * vi_high16(b));
}

V_INLINE vi vi_load_s8_pairs(const int8_t *p)
{
    return (int32_t)((uint32_t)(uint16_t)p[0] | (uint32_t)(uint16_t)p[1] << 16);
}

V_INLINE void v_transpose(vf r[VLEN]) { (void)r; }
