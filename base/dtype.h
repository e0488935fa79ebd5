/* dtype.h: element types and the conversions between their bits.
 *
 * Types below 8 bits (the small ones) lie in files several to a byte. In memory each element has a byte of its
 * own, so that whatever moves elements need not know: an integer's value, sign extended, or a float's code in
 * the low bits. sdx_small_pack and sdx_small_unpack stand between the two, where files are read and written.
 */
#ifndef SDX_BASE_DTYPE_H
#define SDX_BASE_DTYPE_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "../include/sardonyx.h"

bool sdx_dtype_is_known(int64_t code);   /* one of sdx_dtype other than SDX_UNDEFINED */
bool sdx_dtype_is_float(sdx_dtype t);    /* f16, bf16, f32, f64: what operators compute with */
bool sdx_dtype_is_integer(sdx_dtype t);  /* of 8 bits and more, signed and unsigned, not bool */
bool sdx_dtype_is_coded(sdx_dtype t);    /* floats of 8 bits and less */
bool sdx_dtype_is_small(sdx_dtype t);    /* integers and floats below 8 bits */
bool sdx_dtype_is_small_int(sdx_dtype t);
bool sdx_dtype_is_signed(sdx_dtype t);   /* signed integers of any width */
int sdx_dtype_bits(sdx_dtype t);         /* of one element in a file; 0 as sdx_dtype_size */

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

/* ---- coded floats ---------------------------------------------------------------------------------------- */

/* How a number becomes a code. Rounding is to nearest, ties to even, but for float8e8m0, the powers of two. */
typedef struct sdx_coding {
    bool overflow; /* beyond the largest number: infinity or NaN, if the type has one, instead of that number */
    enum { SDX_ROUND_UP, SDX_ROUND_DOWN, SDX_ROUND_NEAREST } round; /* of float8e8m0 */
} sdx_coding;

float sdx_code_to_f32(sdx_dtype t, uint8_t code); /* exact */
uint8_t sdx_f64_to_code(sdx_dtype t, double x, sdx_coding coding);

/* ---- small types ----------------------------------------------------------------------------------------- */

/* The byte in memory for an element whose bits are the low ones of `bits`. */
uint8_t sdx_small_byte(sdx_dtype t, uint64_t bits);
/* Bytes of `count` elements of any type as a file keeps them; false on overflow. */
bool sdx_dtype_file_bytes(sdx_dtype t, size_t count, size_t *bytes);
/* n bytes of memory from and to ceil(n * bits / 8) bytes of a file: a stream of bits, the low ones first. */
void sdx_small_unpack(sdx_dtype t, const uint8_t *file, size_t n, uint8_t *memory);
void sdx_small_pack(sdx_dtype t, const uint8_t *memory, size_t n, uint8_t *file);

#endif
