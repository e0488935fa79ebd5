/* test_dtype.c: element types. Every code of every coded float against the definition of its format, and every
 * conversion to a code against a search for the nearest number. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../../base/tensor.h"

typedef enum special { NOTHING, ONE_NAN, IEEE, FNUZ } special; /* what the codes beyond the numbers mean */

static const struct {
    sdx_dtype dtype;
    int bits, exponent, mantissa, bias;
    special special;
    double largest;
} formats[] = {
    {SDX_F8E4M3FN, 8, 4, 3, 7, ONE_NAN, 448},   {SDX_F8E4M3FNUZ, 8, 4, 3, 8, FNUZ, 240},
    {SDX_F8E5M2, 8, 5, 2, 15, IEEE, 57344},     {SDX_F8E5M2FNUZ, 8, 5, 2, 16, FNUZ, 57344},
    {SDX_F4E2M1, 4, 2, 1, 1, NOTHING, 6},       {SDX_F6E2M3, 6, 2, 3, 1, NOTHING, 7.5},
    {SDX_F6E3M2, 6, 3, 2, 3, NOTHING, 28},
};
enum { N_FORMATS = sizeof formats / sizeof *formats };

static const sdx_coding saturated = {0}, overflowing = {.overflow = true};

static double define(int f, int code)
{
    int mantissa = code & ((1 << formats[f].mantissa) - 1);
    int exponent = code >> formats[f].mantissa & ((1 << formats[f].exponent) - 1);
    int sign = code >> (formats[f].bits - 1), ones = (1 << formats[f].exponent) - 1;
    special s = formats[f].special;
    if (s == FNUZ && code == 0x80) return NAN;
    if (s == ONE_NAN && exponent == ones && mantissa == 7) return NAN;
    if (s == IEEE && exponent == ones) return mantissa ? NAN : sign ? -INFINITY : INFINITY;
    double fraction = mantissa * pow(2, -formats[f].mantissa);
    double x = exponent ? (1 + fraction) * pow(2, exponent - formats[f].bias)
                        : fraction * pow(2, 1 - formats[f].bias);
    return sign ? -x : x;
}

START_TEST(every_code_has_its_value)
{
    sdx_dtype t = formats[_i].dtype;
    double largest = 0;
    for (int code = 0; code < 1 << formats[_i].bits; code++) {
        double want = define(_i, code), got = sdx_code_to_f32(t, (uint8_t)code);
        ck_assert_msg(isnan(want) ? isnan(got) : got == want && !signbit(got) == !signbit(want),
                      "%s %02x: %g, not %g", sdx_dtype_name(t), code, got, want);
        if (isfinite(want)) largest = fmax(largest, want);
        if (isnan(want)) continue;
        ck_assert_int_eq(sdx_f64_to_code(t, want, overflowing), code);
    }
    ck_assert(largest == formats[_i].largest);
}
END_TEST

/* The code of the number nearest to x >= 0; of two, the even one. */
static int nearest(int f, double x)
{
    int best = 0;
    for (int code = 0; code < 1 << (formats[f].bits - 1); code++) {
        double y = define(f, code), known = define(f, best);
        if (!isfinite(y)) continue;
        double d = fabs(x - y) - fabs(x - known);
        if (d < 0 || (d == 0 && code % 2 == 0)) best = code;
    }
    return best;
}

static void check_nearest(int f, double x)
{
    sdx_dtype t = formats[f].dtype;
    int want = nearest(f, x), sign = 1 << (formats[f].bits - 1);
    ck_assert_msg(sdx_f64_to_code(t, x, saturated) == want, "%s of %a is %02x, not %02x", sdx_dtype_name(t), x,
                  sdx_f64_to_code(t, x, saturated), want);
    int negative = formats[f].special == FNUZ && !want ? 0 : want | sign;
    ck_assert_int_eq(sdx_f64_to_code(t, -x, saturated), negative);
}

START_TEST(numbers_go_to_the_nearest_code)
{
    for (int code = 0; code + 1 < 1 << (formats[_i].bits - 1); code++) {
        double low = define(_i, code), high = define(_i, code + 1), middle = (low + high) / 2;
        if (!isfinite(high)) continue;
        check_nearest(_i, low);
        check_nearest(_i, middle);
        check_nearest(_i, nextafter(middle, 0));
        check_nearest(_i, nextafter(middle, INFINITY));
    }
    check_nearest(_i, 1e6);
    check_nearest(_i, 1e-12);
    check_nearest(_i, 1.5 * formats[_i].largest);
}
END_TEST

START_TEST(beyond_the_largest)
{
    sdx_dtype t = formats[_i].dtype;
    double largest = formats[_i].largest, step = largest - define(_i, nearest(_i, largest) - 1);
    const double beyond[] = {INFINITY, -INFINITY, 1e300, -1e300, largest + step, -largest - step};
    for (int i = 0; i < 6; i++) {
        double s = sdx_code_to_f32(t, sdx_f64_to_code(t, beyond[i], saturated));
        double o = sdx_code_to_f32(t, sdx_f64_to_code(t, beyond[i], overflowing));
        ck_assert(s == copysign(largest, beyond[i]));
        if (formats[_i].special == NOTHING) ck_assert(o == s);
        else if (formats[_i].special == IEEE) ck_assert(o == copysign(INFINITY, beyond[i]));
        else ck_assert(isnan(o));
    }
    /* What rounds to the largest does not overflow. */
    ck_assert(sdx_code_to_f32(t, sdx_f64_to_code(t, largest + step * 0.49, overflowing)) == largest);
    double nan = sdx_code_to_f32(t, sdx_f64_to_code(t, NAN, saturated));
    ck_assert(formats[_i].special == NOTHING ? nan == 0 : isnan(nan));
}
END_TEST

static const struct {
    double x;
    int code[4]; /* up, down, nearest; nearest when out of range means NaN */
} powers[] = {
    {1, {127, 127, 127, 127}},
    {1.25, {128, 127, 127, 127}},
    {1.5, {128, 127, 128, 128}},
    {0x1p-127, {0, 0, 0, 0}},
    {0x1.8p-128, {0, 0, 0, 0}},
    {0x1p-140, {0, 0, 0, 255}},
    {0, {0, 0, 0, 255}},
    {0x1p127, {254, 254, 254, 254}},
    {0x1.9p127, {254, 254, 254, 255}},
    {INFINITY, {254, 254, 254, 255}},
    {NAN, {255, 255, 255, 255}},
    {-1, {255, 255, 255, 255}},
};

START_TEST(powers_of_two)
{
    for (int code = 0; code < 255; code++)
        ck_assert(sdx_code_to_f32(SDX_F8E8M0, (uint8_t)code) == pow(2, code - 127));
    ck_assert(isnan(sdx_code_to_f32(SDX_F8E8M0, 255)));
    static const sdx_coding coding[4] = {
        {false, SDX_ROUND_UP}, {false, SDX_ROUND_DOWN}, {false, SDX_ROUND_NEAREST}, {true, SDX_ROUND_NEAREST}};
    for (size_t i = 0; i < sizeof powers / sizeof *powers; i++)
        for (int k = 0; k < 4; k++) {
            int got = sdx_f64_to_code(SDX_F8E8M0, powers[i].x, coding[k]);
            ck_assert_msg(got == powers[i].code[k], "%a, coding %d: %d, not %d", powers[i].x, k, got,
                          powers[i].code[k]);
        }
}
END_TEST

START_TEST(halves_survive_float32)
{
    for (unsigned h = 0; h < 1 << 16; h++) {
        float f = sdx_f16_to_f32((uint16_t)h), b = sdx_bf16_to_f32((uint16_t)h);
        unsigned from_f = sdx_f32_to_f16(f), from_b = sdx_f32_to_bf16(b);
        ck_assert(isnan(f) ? isnan(sdx_f16_to_f32((uint16_t)from_f)) : from_f == h);
        ck_assert(isnan(b) ? isnan(sdx_bf16_to_f32((uint16_t)from_b)) : from_b == h);
    }
    static const struct {
        float x;
        unsigned f16, bf16;
    } rounded[] = {{0x1.002p0f, 0x3c00, 0x3f80}, /* ties go to even */
                   {0x1.006p0f, 0x3c02, 0x3f80}, {0x1.01p0f, 0x3c04, 0x3f80}, {0x1.03p0f, 0x3c0c, 0x3f82},
                   {65519, 0x7bff, 0x4780},      {65520, 0x7c00, 0x4780},     {0x1p-25f, 0, 0x3300},
                   {0x1.8p-25f, 1, 0x3340},      {3.4e38f, 0x7c00, 0x7f80}};
    for (size_t i = 0; i < sizeof rounded / sizeof *rounded; i++) {
        ck_assert_uint_eq(sdx_f32_to_f16(rounded[i].x), rounded[i].f16);
        ck_assert_uint_eq(sdx_f32_to_bf16(rounded[i].x), rounded[i].bf16);
    }
}
END_TEST

static const sdx_dtype small[] = {SDX_U4, SDX_I4, SDX_U2, SDX_I2, SDX_F4E2M1, SDX_F6E2M3, SDX_F6E3M2};

START_TEST(packing_and_back)
{
    enum { MOST = 41 };
    sdx_dtype t = small[_i];
    size_t bits = (size_t)sdx_dtype_bits(t), bytes;
    for (size_t n = 0; n <= MOST; n++) {
        uint8_t memory[MOST], file[MOST + 1], back[MOST + 1];
        for (size_t i = 0; i < n; i++) memory[i] = sdx_small_byte(t, i * 37 + n);
        ck_assert(sdx_dtype_file_bytes(t, n, &bytes) && bytes == (n * bits + 7) / 8);
        file[bytes] = back[n] = 0xa5;
        sdx_small_pack(t, memory, n, file);
        sdx_small_unpack(t, file, n, back);
        ck_assert(!memcmp(memory, back, n) && file[bytes] == 0xa5 && back[n] == 0xa5);
        for (size_t i = 0; i < n * bits; i++) /* bit k of element i is bit i * bits + k of the file */
            ck_assert_int_eq(file[i / 8] >> i % 8 & 1, memory[i / bits] >> i % bits & 1);
    }
}
END_TEST

START_TEST(small_values)
{
    uint8_t i4[] = {0xf8, 0x07}, f4[] = {0x0b, 0x07}, u2[] = {3, 0};
    sdx_tensor t = {SDX_I4, 1, {2}, i4};
    ck_assert(sdx_tensor_get_i64(&t, 0) == -8 && sdx_tensor_get_f64(&t, 1) == 7);
    t = (sdx_tensor){SDX_F4E2M1, 1, {2}, f4};
    ck_assert(sdx_tensor_get_f64(&t, 0) == -1.5 && sdx_tensor_get_i64(&t, 1) == 6);
    t = (sdx_tensor){SDX_U2, 1, {2}, u2};
    ck_assert(sdx_tensor_get_i64(&t, 0) == 3 && sdx_tensor_bytes(&t) == 2 && sdx_tensor_file_bytes(&t) == 1);
    ck_assert_int_eq(sdx_small_byte(SDX_I2, 2), 0xfe);
    ck_assert_int_eq(sdx_small_byte(SDX_U4, 0x123), 3);
}
END_TEST

START_TEST(every_type_is_described)
{
    for (int t = SDX_F32; t <= SDX_F6E3M2; t++) {
        ck_assert(sdx_dtype_is_known(t) && strcmp(sdx_dtype_name((sdx_dtype)t), "undefined") != 0);
        size_t bits = (size_t)sdx_dtype_bits((sdx_dtype)t), size = sdx_dtype_size((sdx_dtype)t);
        ck_assert(t == SDX_STRING ? !bits && !size : bits > 0 && bits <= 8 * size);
    }
    ck_assert(!sdx_dtype_is_known(0) && !sdx_dtype_is_known(-1) && !sdx_dtype_is_known(SDX_F6E3M2 + 1));
    ck_assert(!sdx_dtype_is_known(INT64_MAX) && sdx_dtype_size((sdx_dtype)1000) == 0);
}
END_TEST

Suite *dtype_suite(void);
Suite *dtype_suite(void)
{
    Suite *s = suite_create("dtype");
    TCase *c = tcase_create("all");
    tcase_add_loop_test(c, every_code_has_its_value, 0, N_FORMATS);
    tcase_add_loop_test(c, numbers_go_to_the_nearest_code, 0, N_FORMATS);
    tcase_add_loop_test(c, beyond_the_largest, 0, N_FORMATS);
    tcase_add_test(c, powers_of_two);
    tcase_add_test(c, halves_survive_float32);
    tcase_add_loop_test(c, packing_and_back, 0, sizeof small / sizeof *small);
    tcase_add_test(c, small_values);
    tcase_add_test(c, every_type_is_described);
    suite_add_tcase(s, c);
    return s;
}
