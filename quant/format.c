/* format.c: see format.h */
#include "format.h"

#include <float.h>
#include <math.h>

static float load(const void *x, int64_t i)
{
    float f; /* weights in a mapped file need not be aligned */
    memcpy(&f, (const char *)x + i * (int64_t)sizeof f, sizeof f);
    return f;
}

bool sdx_quant_range(const void *x, int64_t count, int64_t stride, float *min, float *max)
{
    float lo = 0, hi = 0; /* zero must have an exact code */
    bool finite = true;
    for (int64_t i = 0; i < count; i++) {
        float f = load(x, i * stride);
        finite &= isfinite(f) != 0;
        lo = f < lo ? f : lo;
        hi = f > hi ? f : hi;
    }
    *min = lo;
    *max = hi;
    return finite;
}

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

void sdx_quant_apply(sdx_quant_format f, sdx_quant_params p, const void *x, int64_t count, int64_t stride, uint8_t *q)
{
    float lowest = f.is_signed ? -128 : 0, highest = f.is_signed ? 127 : 255, zero = (float)p.zero_point;
    for (int64_t i = 0; i < count; i++) {
        float code = nearbyintf(load(x, i * stride) / p.scale) + zero;
        code = code < lowest ? lowest : code > highest ? highest : code;
        q[i * stride] = f.is_signed ? (uint8_t)(int8_t)code : (uint8_t)code;
    }
}
