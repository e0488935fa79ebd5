/* scalar.h: the vocabulary with one lane, in plain C for any machine. The elementary functions are libm's
 * (vec/math.h), so that what the other instruction sets are checked against is not derived from them. */
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
V_INLINE vf v_fma(vf a, vf b, vf c) { return a * b + c; }
V_INLINE vf v_fnma(vf a, vf b, vf c) { return c - a * b; }
V_INLINE vf v_min(vf a, vf b) { return a < b ? a : b; }
V_INLINE vf v_max(vf a, vf b) { return a > b ? a : b; }
V_INLINE vf v_abs(vf x) { return fabsf(x); }
V_INLINE vf v_neg(vf x) { return -x; }
V_INLINE vf v_sqrt(vf x) { return sqrtf(x); }
V_INLINE vf v_round(vf x) { return nearbyintf(x); }
V_INLINE vf v_copysign(vf x, vf sign) { return copysignf(x, sign); }

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

V_INLINE vi v_cvt_i(vf x) { return (int32_t)nearbyintf(x); }
V_INLINE vf v_cvt_f(vi x) { return (float)x; }

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
