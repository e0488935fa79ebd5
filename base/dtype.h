/* dtype.h: element types and the conversions between their bits. */
#ifndef SDX_BASE_DTYPE_H
#define SDX_BASE_DTYPE_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "../include/sardonyx.h"

bool sdx_dtype_is_float(sdx_dtype t);   /* f16, bf16, f32, f64 */
bool sdx_dtype_is_integer(sdx_dtype t); /* signed and unsigned, not bool */

/* IEEE 754 binary16 and bfloat16; rounding to nearest, ties to even; NaN stays NaN. */
float sdx_f16_to_f32(uint16_t h);
uint16_t sdx_f32_to_f16(float f);
uint16_t sdx_f32_to_bf16(float f);

static inline float sdx_bf16_to_f32(uint16_t h)
{
    uint32_t bits = (uint32_t)h << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

#endif
