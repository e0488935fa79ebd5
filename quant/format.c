/* format.c: see format.h. The loops over rows are written so that the compiler makes vectors of them. */
#include "format.h"

#include <float.h>
#include <math.h>

#include "../base/dtype.h"

static float load(const void *x, int64_t i)
{
    float f; /* weights in a mapped file need not be aligned */
    memcpy(&f, (const char *)x + i * (int64_t)sizeof f, sizeof f);
    return f;
}

/* ---- parameters ------------------------------------------------------------------------------------------ */

/* Codes lowest and highest of the format. */
static void code_range(sdx_quant_format f, int *lowest, int *highest)
{
    if (f.is_signed) {
        *highest = f.reduce_range ? 64 : 127;
        *lowest = f.symmetric ? -*highest : -*highest - 1;
    } else {
        *lowest = 0;
        *highest = f.reduce_range ? 127 : 255;
    }
}

sdx_quant_params sdx_quant_params_of(sdx_quant_format f, float min, float max)
{
    int lowest, highest;
    code_range(f, &lowest, &highest);
    double lo = min, hi = max;
    if (f.symmetric) {
        hi = fmax(fabs(lo), fabs(hi));
        lo = -hi;
    }
    int middle = f.is_signed ? 0 : (highest + 1) / 2;
    float scale = (float)((hi - lo) / (double)(highest - lowest));
    if (scale < FLT_MIN) return (sdx_quant_params){1, f.symmetric ? middle : lowest};
    double zero = f.symmetric ? middle : nearbyint((double)lowest - lo / (double)scale);
    return (sdx_quant_params){scale, (int)fmin(fmax(zero, lowest), highest)};
}

float sdx_quant_scale_half(float scale)
{
    uint16_t half = sdx_f32_to_f16(scale);
    if (sdx_f16_to_f32(half) < scale) half++; /* the next code is the next larger number */
    float rounded = sdx_f16_to_f32(half);
    return rounded <= 1.01f * scale ? rounded : scale;
}

/* ---- rows ------------------------------------------------------------------------------------------------ */

bool sdx_quant_range(const void *x, int64_t n, float factor, float *low, float *high)
{
    enum { LANES = 16 }; /* running ranges, for a maximum has no vector form that keeps the order */
    float lo[LANES], hi[LANES];
    bool finite = true;
    for (int j = 0; j < LANES; j++) {
        lo[j] = *low;
        hi[j] = *high;
    }
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        finite &= sdx_quant_range_columns((const char *)x + i * (int64_t)sizeof(float), LANES, factor, lo, hi);
    finite &= sdx_quant_range_columns((const char *)x + i * (int64_t)sizeof(float), n - i, factor, lo, hi);
    for (int j = 0; j < LANES; j++) {
        *low = lo[j] < *low ? lo[j] : *low;
        *high = hi[j] > *high ? hi[j] : *high;
    }
    return finite;
}

bool sdx_quant_range_columns(const void *x, int64_t n, float factor, float *low, float *high)
{
    int bad = 0;
    for (int64_t j = 0; j < n; j++) {
        float f = load(x, j) * factor;
        bad |= !(fabsf(f) <= FLT_MAX);
        low[j] = f < low[j] ? f : low[j];
        high[j] = f > high[j] ? f : high[j];
    }
    return !bad;
}

/* Codes are below 2^22 in magnitude: adding 1.5 * 2^23 leaves no fraction, and the hardware rounds half to even. */
static float code_of(float x, float scale, float zero, float lowest)
{
    const float magic = 12582912.0f;
    float code = x / scale + magic - magic + zero, highest = lowest + 255;
    code = code < lowest ? lowest : code;
    return code > highest ? highest : code;
}

void sdx_quant_apply(bool is_signed, float scale, float zero, const void *x, int64_t n, float factor,
                     uint8_t *q)
{
    float lowest = is_signed ? -128 : 0;
    for (int64_t j = 0; j < n; j++) q[j] = (uint8_t)(int)code_of(load(x, j) * factor, scale, zero, lowest);
}

void sdx_quant_apply_columns(bool is_signed, const float *scale, const float *zero, const void *x, int64_t n,
                             float factor,
                             uint8_t *q)
{
    float lowest = is_signed ? -128 : 0;
    for (int64_t j = 0; j < n; j++) q[j] = (uint8_t)(int)code_of(load(x, j) * factor, scale[j], zero[j], lowest);
}
