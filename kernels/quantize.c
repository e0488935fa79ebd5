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

/* ---- a row by its own range ------------------------------------------------------------------------------ */
enum { PARTS = V_PARTS(64) };

V_INLINE vf product(const float *x, const float *factor)
{
    return factor ? v_mul(v_load(x), v_load(factor)) : v_load(x);
}

/* The last n < VLEN of a row, zeros behind. */
V_INLINE vf product_n(const float *x, const float *factor, int n)
{
    return factor ? v_mul(v_load_n(x, n), v_load_n(factor, n)) : v_load_n(x, n);
}

/* Extremes of x * factor and 0; NaN ignored. */
V_INLINE void range(int64_t n, const float *x, const float *factor, float *min, float *max)
{
    vf low[PARTS], high[PARTS];
    int64_t i = 0;
    v_fill(PARTS, v_zero(), low);
    v_fill(PARTS, v_zero(), high);
    for (; i + PARTS * VLEN <= n; i += PARTS * VLEN) {
        V_UNROLL
        for (int j = 0; j < PARTS; j++) {
            const vf v = product(x + i + j * VLEN, factor ? factor + i + j * VLEN : NULL);
            low[j] = v_min(v, low[j]);
            high[j] = v_max(v, high[j]);
        }
    }
    for (; i < n; i += VLEN) {
        const vf v = product_n(x + i, factor ? factor + i : NULL, v_lanes(i, n));
        low[0] = v_min(v, low[0]);
        high[0] = v_max(v, high[0]);
    }
    *min = v_fold_min(PARTS, low);
    *max = v_fold_max(PARTS, high);
}

/* x / scale, correctly rounded, for a third of a division: `by` is 1 / scale correctly rounded, and one step corrects
 * the quotient (Markstein, "Computation of elementary functions on the IBM RISC System/6000", 1990). */
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
    const float place = 0.0f - min / *scale;
    *zero_point = place < 255.0f ? (int32_t)rintf(place) : 255;
    const vf s = v_set1(*scale), by = v_set1(1.0f / *scale);
    const vf low = v_set1((float)-*zero_point), high = v_set1((float)(255 - *zero_point));
    const vi zero = vi_set1(*zero_point);
    int64_t i = 0;
    for (; i + VLEN <= n; i += VLEN) {
        const vf v = quotient(product(x + i, factor ? factor + i : NULL), s, by);
        vi_store_8(y + i, vi_add(v_cvt_i(v_min(v_max(v, low), high)), zero));
    }
    if (i < n) {
        const vf v = quotient(product_n(x + i, factor ? factor + i : NULL, (int)(n - i)), s, by);
        uint8_t tail[VLEN];
        vi_store_8(tail, vi_add(v_cvt_i(v_min(v_max(v, low), high)), zero));
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
