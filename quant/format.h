/* format.h: integer formats of tensors: what range, scale and zero point a block of floats gets. The numbers
 * are those of ONNX Runtime's quantizer, bit for bit for symmetric int8, so that files can be compared. */
#ifndef SDX_QUANT_FORMAT_H
#define SDX_QUANT_FORMAT_H

#include "../base/tensor.h"

typedef struct sdx_quant_format {
    bool is_signed;    /* int8, else uint8 */
    bool symmetric;    /* zero point 0; for uint8 in the middle */
    bool reduce_range; /* 7 bits, for CPUs whose u8*s8 pair sums saturate in 16 bits */
} sdx_quant_format;

typedef struct sdx_quant_params {
    float scale;    /* x = (q - zero_point) * scale */
    int zero_point; /* in the range of the integer type */
} sdx_quant_params;

/* Of floats from min <= 0 to max >= 0. */
sdx_quant_params sdx_quant_params_of(sdx_quant_format format, float min, float max);

/* The least float16 that is not below the scale, so that a file can keep half the bytes; the scale itself where
 * a float16 would be more than 1 % off. */
float sdx_quant_scale_half(float scale);

/* ---- rows of floats, at any alignment: x[j] * factor for j < n ------------------------------------------- */

/* Widens [*low, *high]; false when one is not finite. */
bool sdx_quant_range(const void *x, int64_t n, float factor, float *low, float *high);
/* The same with a range for every j. */
bool sdx_quant_range_columns(const void *x, int64_t n, float factor, float *low, float *high);
/* q[j] = clip(round_half_even(x[j] * factor / scale) + zero). */
void sdx_quant_apply(bool is_signed, float scale, float zero, const void *x, int64_t n, float factor,
                     uint8_t *q);
/* The same with a scale and a zero for every j. */
void sdx_quant_apply_columns(bool is_signed, const float *scale, const float *zero, const void *x, int64_t n,
                             float factor,
                             uint8_t *q);

#endif
