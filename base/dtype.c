/* dtype.c: see dtype.h. One table drives names and sizes. */
#include "dtype.h"

typedef struct dtype_row {
    const char *name;
    unsigned char size; /* bytes */
    char kind;          /* i signed, u unsigned, f float, b bool, c complex, s string */
} dtype_row;

static const dtype_row dtypes[] = {
    [SDX_F32] = {"float32", 4, 'f'},      [SDX_U8] = {"uint8", 1, 'u'},     [SDX_I8] = {"int8", 1, 'i'},
    [SDX_U16] = {"uint16", 2, 'u'},       [SDX_I16] = {"int16", 2, 'i'},    [SDX_I32] = {"int32", 4, 'i'},
    [SDX_I64] = {"int64", 8, 'i'},        [SDX_STRING] = {"string", 0, 's'}, [SDX_BOOL] = {"bool", 1, 'b'},
    [SDX_F16] = {"float16", 2, 'f'},      [SDX_F64] = {"float64", 8, 'f'},  [SDX_U32] = {"uint32", 4, 'u'},
    [SDX_U64] = {"uint64", 8, 'u'},       [SDX_C64] = {"complex64", 8, 'c'}, [SDX_C128] = {"complex128", 16, 'c'},
    [SDX_BF16] = {"bfloat16", 2, 'f'},
};

static const dtype_row *find(sdx_dtype t)
{
    static const dtype_row unknown = {"undefined", 0, '?'};
    if ((int)t <= 0 || (size_t)t >= sizeof dtypes / sizeof *dtypes || !dtypes[t].name) return &unknown;
    return &dtypes[t];
}

size_t sdx_dtype_size(sdx_dtype t) { return find(t)->size; }
const char *sdx_dtype_name(sdx_dtype t) { return find(t)->name; }
bool sdx_dtype_is_float(sdx_dtype t) { return find(t)->kind == 'f'; }

bool sdx_dtype_is_integer(sdx_dtype t)
{
    char kind = find(t)->kind;
    return kind == 'i' || kind == 'u';
}

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
    if (bits < 0x38800000) {                                  /* subnormal: adding 0.5 aligns and rounds to 2^-24 */
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
