/* quantize.c: fp32 to bytes and back, as ONNX QuantizeLinear and DequantizeLinear. Saturating to [low -
 * zero, high - zero] before rounding equals saturating after it, because the bounds are integers and
 * rounding is monotone; it also keeps the conversion to int32 in range. NaN becomes the lowest value. */
#include "vec/vec.h"

V_INLINE vi quantized(vf x, vf scale, vf low, vf high, vi zero)
{
    return vi_add(v_cvt_i(v_min(v_max(v_div(x, scale), low), high)), zero);
}

V_INLINE void quantize(int64_t n, const float *x, float scale, int32_t zero_point, int32_t lowest, uint8_t *y)
{
    const vf s = v_set1(scale), low = v_set1((float)(lowest - zero_point));
    const vf high = v_set1((float)(lowest + 255 - zero_point));
    const vi zero = vi_set1(zero_point);
    int64_t i = 0;
    for (; i + VLEN <= n; i += VLEN) vi_store_8(y + i, quantized(v_load(x + i), s, low, high, zero));
    if (i < n) {
        uint8_t tail[VLEN];
        vi_store_8(tail, quantized(v_load_n(x + i, (int)(n - i)), s, low, high, zero));
        memcpy(y + i, tail, (size_t)(n - i));
    }
}

static void f32_u8(int64_t n, const float *x, float scale, int32_t zero_point, uint8_t *y)
{
    quantize(n, x, scale, zero_point, 0, y);
}

static void f32_s8(int64_t n, const float *x, float scale, int32_t zero_point, int8_t *y)
{
    quantize(n, x, scale, zero_point, -128, (uint8_t *)y);
}

/* ---- a row by its own range ------------------------------------------------------------------------------- */
enum { PARTS = V_PARTS(64) };

V_INLINE vf product(const float *x, const float *factor, int64_t i, int64_t n)
{
    const int lanes = v_lanes(i, n);
    return factor ? v_mul(v_load_n(x + i, lanes), v_load_n(factor + i, lanes)) : v_load_n(x + i, lanes);
}

/* Extremes of x * factor and 0, which the lanes past the end are; NaN ignored. */
V_INLINE void range(int64_t n, const float *x, const float *factor, float *min, float *max)
{
    vf low[PARTS], high[PARTS];
    v_fill(PARTS, v_zero(), low);
    v_fill(PARTS, v_zero(), high);
    for (int64_t i = 0; i < n;) {
        V_UNROLL
        for (int j = 0; j < PARTS; j++, i += VLEN) {
            if (i >= n) continue;
            const vf v = product(x, factor, i, n);
            low[j] = v_min(v, low[j]);
            high[j] = v_max(v, high[j]);
        }
    }
    *min = v_fold_min(PARTS, low);
    *max = v_fold_max(PARTS, high);
}

/* x / scale, correctly rounded, for a third of a division: `by` is 1 / scale correctly rounded, and one step corrects the
 * quotient (Markstein, "Computation of elementary functions on the IBM RISC System/6000", 1990). */
V_INLINE vf quotient(vf x, vf scale, vf by)
{
    const vf q = v_mul(x, by);
    return v_fma(v_fnma(q, scale, x), by, q);
}

V_INLINE void quantize_row(int64_t n, const float *x, const float *factor, uint8_t *y, float *scale,
                           int32_t *zero_point)
{
    float min, max;
    range(n, x, factor, &min, &max);
    *scale = (max - min) / 255.0f;
    if (*scale < 0x1p-126f) *scale = 1.0f;
    *zero_point = (int32_t)rintf(fminf(0.0f - min / *scale, 255.0f));
    const vf s = v_set1(*scale), by = v_set1(1.0f / *scale);
    const vf low = v_set1((float)-*zero_point), high = v_set1((float)(255 - *zero_point));
    const vi zero = vi_set1(*zero_point);
    for (int64_t i = 0; i < n; i += VLEN) {
        const vf v = v_min(v_max(quotient(product(x, factor, i, n), s, by), low), high);
        const vi q = vi_add(v_cvt_i(v), zero);
        if (i + VLEN <= n) {
            vi_store_8(y + i, q);
            continue;
        }
        uint8_t tail[VLEN];
        vi_store_8(tail, q);
        memcpy(y + i, tail, (size_t)(n - i));
    }
}

static void row_u8(int64_t n, const float *x, const float *factor, uint8_t *y, float *scale, int32_t *zero_point)
{
    if (factor)
        quantize_row(n, x, factor, y, scale, zero_point);
    else
        quantize_row(n, x, NULL, y, scale, zero_point);
}

#define DEQUANTIZE(name, type, load)                                                                           \
    static void name(int64_t n, const type *x, float scale, int32_t zero_point, float *y)                      \
    {                                                                                                          \
        const vf s = v_set1(scale);                                                                            \
        const vi zero = vi_set1(zero_point);                                                                   \
        int64_t i = 0;                                                                                         \
        for (; i + VLEN <= n; i += VLEN) v_store(y + i, v_mul(v_cvt_f(vi_sub(load(x + i), zero)), s));         \
        for (; i < n; i++) y[i] = (float)(x[i] - zero_point) * scale;                                          \
    }

DEQUANTIZE(u8_f32, uint8_t, vi_load_u8)
DEQUANTIZE(s8_f32, int8_t, vi_load_s8)

KERNEL_INIT(quantize)
{
    table->quantize = (sdx_quantize_kernels){
        .f32_u8 = f32_u8, .f32_s8 = f32_s8, .row_u8 = row_u8, .u8_f32 = u8_f32, .s8_f32 = s8_f32};
}
