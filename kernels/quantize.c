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
        .f32_u8 = f32_u8, .f32_s8 = f32_s8, .u8_f32 = u8_f32, .s8_f32 = s8_f32};
}
