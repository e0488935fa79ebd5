/* bits.h: numbers narrower than a byte, packed low bits first, as com.microsoft's quantized weights are. */
#ifndef SDX_OPS_BITS_H
#define SDX_OPS_BITS_H

#include <stdint.h>

/* Element i of a stream of 2, 4 or 8 bits each. */
static inline int sdx_bits_read(const uint8_t *stream, int64_t i, int bits)
{
    int64_t per_byte = 8 / bits;
    return stream[i / per_byte] >> (int)(i % per_byte) * bits & ((1 << bits) - 1);
}

#endif
