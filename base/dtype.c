/* dtype.c: see dtype.h. One table drives names, sizes and kinds; another describes the coded floats, which
 * share one function in each direction. Sources: the OCP specifications of 8-bit floating point and of the
 * microscaling (MX) formats; ONNX's documents for the FNUZ types and for casts beyond the largest number. */
#include "dtype.h"

#include <math.h>

#include "memory.h"

typedef struct dtype_row {
    const char *name;
    unsigned char size; /* bytes in memory */
    unsigned char bits; /* in a file */
    char kind;          /* i signed, u unsigned, f float, m coded float, b bool, c complex, s string */
} dtype_row;

static const dtype_row dtypes[] = {
    [SDX_F32] = {"float32", 4, 32, 'f'},
    [SDX_U8] = {"uint8", 1, 8, 'u'},
    [SDX_I8] = {"int8", 1, 8, 'i'},
    [SDX_U16] = {"uint16", 2, 16, 'u'},
    [SDX_I16] = {"int16", 2, 16, 'i'},
    [SDX_I32] = {"int32", 4, 32, 'i'},
    [SDX_I64] = {"int64", 8, 64, 'i'},
    [SDX_STRING] = {"string", 0, 0, 's'},
    [SDX_BOOL] = {"bool", 1, 8, 'b'},
    [SDX_F16] = {"float16", 2, 16, 'f'},
    [SDX_F64] = {"float64", 8, 64, 'f'},
    [SDX_U32] = {"uint32", 4, 32, 'u'},
    [SDX_U64] = {"uint64", 8, 64, 'u'},
    [SDX_C64] = {"complex64", 8, 64, 'c'},
    [SDX_C128] = {"complex128", 16, 128, 'c'},
    [SDX_BF16] = {"bfloat16", 2, 16, 'f'},
    [SDX_F8E4M3FN] = {"float8e4m3fn", 1, 8, 'm'},
    [SDX_F8E4M3FNUZ] = {"float8e4m3fnuz", 1, 8, 'm'},
    [SDX_F8E5M2] = {"float8e5m2", 1, 8, 'm'},
    [SDX_F8E5M2FNUZ] = {"float8e5m2fnuz", 1, 8, 'm'},
    [SDX_U4] = {"uint4", 1, 4, 'u'},
    [SDX_I4] = {"int4", 1, 4, 'i'},
    [SDX_F4E2M1] = {"float4e2m1", 1, 4, 'm'},
    [SDX_F8E8M0] = {"float8e8m0", 1, 8, 'm'},
    [SDX_U2] = {"uint2", 1, 2, 'u'},
    [SDX_I2] = {"int2", 1, 2, 'i'},
    [SDX_F6E2M3] = {"float6e2m3", 1, 6, 'm'},
    [SDX_F6E3M2] = {"float6e3m2", 1, 6, 'm'},
};

bool sdx_dtype_is_known(int64_t code)
{
    return code > 0 && (uint64_t)code < sizeof dtypes / sizeof *dtypes && dtypes[code].name;
}

static const dtype_row *find(sdx_dtype t)
{
    static const dtype_row unknown = {"undefined", 0, 0, '?'};
    return sdx_dtype_is_known((int64_t)t) ? &dtypes[t] : &unknown;
}

static bool is_any_int(sdx_dtype t) { return find(t)->kind == 'i' || find(t)->kind == 'u'; }

size_t sdx_dtype_size(sdx_dtype t) { return find(t)->size; }
const char *sdx_dtype_name(sdx_dtype t) { return find(t)->name; }
int sdx_dtype_bits(sdx_dtype t) { return find(t)->bits; }
bool sdx_dtype_is_float(sdx_dtype t) { return find(t)->kind == 'f'; }
bool sdx_dtype_is_coded(sdx_dtype t) { return find(t)->kind == 'm'; }
bool sdx_dtype_is_signed(sdx_dtype t) { return find(t)->kind == 'i'; }
bool sdx_dtype_is_small(sdx_dtype t) { return find(t)->bits > 0 && find(t)->bits < 8; }
bool sdx_dtype_is_integer(sdx_dtype t) { return is_any_int(t) && !sdx_dtype_is_small(t); }
bool sdx_dtype_is_small_int(sdx_dtype t) { return is_any_int(t) && sdx_dtype_is_small(t); }

/* ---- 16 bits --------------------------------------------------------------------------------------------- */

float sdx_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, mantissa = h & 0x3ff, bits;
    if (exponent == 31) {
        bits = sign | 0x7f800000 | mantissa << 13;
    } else if (exponent) {
        bits = sign | (exponent + 112) << 23 | mantissa << 13;
    } else { /* subnormal: the mantissa counts units of 2^-24 */
        float f = (float)mantissa * 0x1p-24f;
        return sign ? -f : f;
    }
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

uint16_t sdx_f32_to_f16(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    bits &= 0x7fffffff;
    if (bits > 0x7f800000) return (uint16_t)(sign | 0x7e00);
    if (bits >= 0x477ff000) return (uint16_t)(sign | 0x7c00); /* rounds past 65504 */
    if (bits < 0x38800000) { /* subnormal: adding 0.5 aligns and rounds to 2^-24 */
        float magnitude;
        memcpy(&magnitude, &bits, sizeof magnitude);
        magnitude += 0.5f;
        memcpy(&bits, &magnitude, sizeof bits);
        return (uint16_t)(sign | (bits - 0x3f000000));
    }
    uint32_t round = 0xfff + (bits >> 13 & 1);
    return (uint16_t)(sign | ((bits - 0x38000000 + round) >> 13));
}

uint16_t sdx_f32_to_bf16(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* ---- coded floats ---------------------------------------------------------------------------------------- */

/* A code is a sign bit, then a magnitude: exponent and mantissa, which grow together. */
typedef struct float_format {
    unsigned char mantissa; /* bits */
    unsigned char bias;
    unsigned char sign;     /* the bit */
    unsigned char largest;  /* magnitude of the largest number */
    unsigned char overflow; /* what stands for more: infinity, NaN, or the largest for types without either */
    unsigned char nan;      /* types without NaN give it as -0 */
    bool fnuz;              /* no -0: its code is the one NaN */
} float_format;

static const float_format formats[] = {
    [SDX_F8E4M3FN] = {3, 7, 0x80, 0x7e, 0x7f, 0x7f, false},
    [SDX_F8E4M3FNUZ] = {3, 8, 0x80, 0x7f, 0x80, 0x80, true},
    [SDX_F8E5M2] = {2, 15, 0x80, 0x7b, 0x7c, 0x7e, false},
    [SDX_F8E5M2FNUZ] = {2, 16, 0x80, 0x7f, 0x80, 0x80, true},
    [SDX_F4E2M1] = {1, 1, 0x08, 0x07, 0x07, 0x08, false},
    [SDX_F6E2M3] = {3, 1, 0x20, 0x1f, 0x1f, 0x20, false},
    [SDX_F6E3M2] = {2, 3, 0x20, 0x1f, 0x1f, 0x20, false},
};

/* float8e8m0: code c is 2^(c - 127), no sign, no zero. */
enum { E8M0_BIAS = 127, E8M0_LARGEST = 0xfe, E8M0_NAN = 0xff };

float sdx_code_to_f32(sdx_dtype t, uint8_t code)
{
    if (t == SDX_F8E8M0) return code == E8M0_NAN ? NAN : ldexpf(1, code - E8M0_BIAS);
    const float_format *f = &formats[t];
    unsigned magnitude = code & (f->sign - 1u);
    bool negative = code & f->sign;
    if (f->fnuz && code == f->nan) return NAN;
    if (magnitude > f->largest) {
        bool infinite = magnitude == f->overflow && f->overflow != f->nan;
        return !infinite ? NAN : negative ? -INFINITY : INFINITY;
    }
    /* Where float32 keeps exponent and mantissa, the magnitude is the number divided by 2^(127 - bias);
     * subnormal ones too. */
    uint32_t bits = magnitude << (23 - f->mantissa), scale = (254u - f->bias) << 23;
    float number, factor;
    memcpy(&number, &bits, sizeof number);
    memcpy(&factor, &scale, sizeof factor);
    return negative ? -number * factor : number * factor;
}

/* x > 0 and finite. The code may come out beyond the largest; a carry out of the mantissa raises the exponent.
 */
static int round_magnitude(const float_format *f, double x)
{
    int exponent;
    frexp(x, &exponent);
    exponent--; /* of 1.xxx */
    if (exponent < 1 - f->bias) exponent = 1 - f->bias;
    int units = (int)rint(ldexp(x, f->mantissa - exponent));
    return ((exponent + f->bias - 1) << f->mantissa) + units;
}

static uint8_t power_to_code(double x, sdx_coding coding)
{
    int exponent;
    if (!(x >= 0)) return E8M0_NAN;
    if (isinf(x)) return coding.overflow ? E8M0_NAN : E8M0_LARGEST;
    if (x == 0) return coding.overflow ? E8M0_NAN : 0;
    double mantissa = 2 * frexp(x, &exponent); /* [1, 2) */
    int code = exponent - 1 + E8M0_BIAS;
    if (coding.round == SDX_ROUND_UP) code += mantissa > 1;
    if (coding.round == SDX_ROUND_NEAREST) code += mantissa >= 1.5; /* ties go up */
    if (code >= 0 && code <= E8M0_LARGEST) return (uint8_t)code;
    return coding.overflow ? E8M0_NAN : code < 0 ? 0 : E8M0_LARGEST;
}

uint8_t sdx_f64_to_code(sdx_dtype t, double x, sdx_coding coding)
{
    if (t == SDX_F8E8M0) return power_to_code(x, coding);
    const float_format *f = &formats[t];
    unsigned sign = signbit(x) ? f->sign : 0;
    if (isnan(x)) return (uint8_t)(f->fnuz ? f->nan : f->nan ^ sign);
    int magnitude = x == 0 ? 0 : isinf(x) ? f->largest + 1 : round_magnitude(f, fabs(x));
    if (magnitude > f->largest) magnitude = coding.overflow ? f->overflow : f->largest;
    if (f->fnuz && magnitude == 0) return 0;
    return (uint8_t)(sign | (unsigned)magnitude);
}

/* ---- small types ----------------------------------------------------------------------------------------- */

uint8_t sdx_small_byte(sdx_dtype t, uint64_t bits)
{
    int unused = 8 - find(t)->bits;
    uint8_t top = (uint8_t)(bits << unused);
    if (sdx_dtype_is_signed(t)) return (uint8_t)((int8_t)top >> unused);
    return (uint8_t)(top >> unused);
}

bool sdx_dtype_file_bytes(sdx_dtype t, size_t count, size_t *bytes)
{
    size_t bits = find(t)->bits;
    if (bits >= 8) return sdx_mul_size(count, bits / 8, bytes);
    /* Eight elements at a time make whole bytes. */
    *bytes = count / 8 * bits + (count % 8 * bits + 7) / 8;
    return true;
}

void sdx_small_unpack(sdx_dtype t, const uint8_t *file, size_t n, uint8_t *memory)
{
    unsigned bits = find(t)->bits, window = 0, have = 0;
    for (size_t i = 0; i < n; i++) {
        if (have < bits) {
            window |= (unsigned)*file++ << have;
            have += 8;
        }
        memory[i] = sdx_small_byte(t, window);
        window >>= bits;
        have -= bits;
    }
}

void sdx_small_pack(sdx_dtype t, const uint8_t *memory, size_t n, uint8_t *file)
{
    unsigned bits = find(t)->bits, window = 0, have = 0;
    for (size_t i = 0; i < n; i++) {
        window |= (memory[i] & ((1u << bits) - 1)) << have;
        have += bits;
        if (have < 8) continue;
        *file++ = (uint8_t)window;
        window >>= 8;
        have -= 8;
    }
    if (have) *file = (uint8_t)window;
}
