/* format.h: integer formats of tensors: what range, scale and zero point a block of floats gets. The numbers are
 * those of ONNX Runtime's quantizer, bit for bit for symmetric int8, so that files can be compared. */
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

/* Range of count floats at x[0], x[stride], ...; any alignment. False when one is not finite. */
bool sdx_quant_range(const void *x, int64_t count, int64_t stride, float *min, float *max);
sdx_quant_params sdx_quant_params_of(sdx_quant_format format, float min, float max);
/* q[i*stride] = clip(round_half_even(x[i*stride] / scale) + zero_point), one byte each. */
void sdx_quant_apply(sdx_quant_format format, sdx_quant_params params, const void *x, int64_t count, int64_t stride,
                     uint8_t *q);

#endif
