/* check_quantize.c: rounding half to even, saturation and NaN exact; bytes back to floats. */
#include "kcheck.h"

static int32_t quantized(float x, float scale, int32_t zero, int32_t low)
{
    if (isnan(x)) return low;
    const double y = nearbyint((double)(x / scale)) + zero; /* x / scale rounds to float first, as ONNX does */
    return y < low ? low : y > low + 255 ? low + 255 : (int32_t)y;
}

static void quantize(const context *c)
{
    const sdx_quantize_kernels *q = &c->kernels->quantize;
    for (int round = 0; round < 150; round++) {
        const int64_t n = random_size(200);
        const float scale = round % 3 ? random_float(0.001f, 0.1f) : 0.5f;
        const int32_t zero = (int32_t)random_int(0, 255);
        float *x = GUARDED(float, n);
        uint8_t *u = GUARDED(uint8_t, n);
        int8_t *s = GUARDED(int8_t, n);
        random_fill(n, -12.0f, 12.0f, x);
        for (int64_t i = 0; i < n; i++) /* ties, and what an int32 cannot hold */
            if (i % 4 == 1) x[i] = (float)random_int(-40, 40) * 0.25f;
        if (n > 4) x[0] = NAN, x[1] = INFINITY, x[2] = -INFINITY, x[3] = 1e30f;
        q->f32_u8(n, x, scale, zero, u);
        q->f32_s8(n, x, scale, zero - 128, s);
        for (int64_t i = 0; i < n; i++) {
            const int32_t want_u = quantized(x[i], scale, zero, 0),
                          want_s = quantized(x[i], scale, zero - 128, -128);
            expect(u[i] == want_u, "u8 of %.9g / %.9g + %d: %d, should be %d", (double)x[i], (double)scale,
                   zero, u[i], want_u);
            expect(s[i] == want_s, "s8 of %.9g / %.9g + %d: %d, should be %d", (double)x[i], (double)scale,
                   zero - 128, s[i], want_s);
        }
        guarded_reset();
    }
}

/* As DynamicQuantizeLinear, ties included; columns past n unread. */
static void quantize_row(const context *c)
{
    for (int round = 0; round < 150; round++) {
        const int64_t n = random_size(200);
        float *x = GUARDED(float, n), *factor = round % 2 ? GUARDED(float, n) : NULL, scale, size = 1;
        uint8_t *q = GUARDED(uint8_t, n);
        int32_t zero;
        if (round % 5 == 0) size = 1e-38f;
        if (round % 5 == 1) size = 1e30f;
        random_fill(n, (round % 3 ? -3.0f : 1.0f) * size, (round % 4 ? 5.0f : -1.0f) * size, x);
        if (factor) random_fill(n, 0.1f, 4.0f, factor);
        if (n > 40 && round % 5 == 2) { /* scale 1/8 or 1/2: many ties */
            x[0] = -16, x[1] = 15.875f;
            for (int64_t i = 2; i < n; i++) x[i] = (float)random_int(-256, 254) / 16;
            if (factor) random_fill(n, 1.0f, 1.0f, factor);
        }
        c->kernels->quantize.row_u8(n, x, factor, q, &scale, &zero);
        float min = 0, max = 0;
        for (int64_t i = 0; i < n; i++) {
            const float v = factor ? x[i] * factor[i] : x[i];
            if (v < min) min = v;
            if (v > max) max = v;
        }
        const float range = (max - min) / 255.0f, want = range < 0x1p-126f ? 1.0f : range;
        expect(scale == want, "scale %.9g, should be %.9g", (double)scale, (double)want);
        expect(zero == (int32_t)nearbyintf(0.0f - min / want), "zero point %d", zero);
        for (int64_t i = 0; i < n; i++) {
            const float v = factor ? x[i] * factor[i] : x[i];
            expect(q[i] == quantized(v, scale, zero, 0), "%.9g / %.9g + %d: %d", (double)v, (double)scale, zero, q[i]);
        }
        guarded_reset();
    }
    float x[3] = {NAN, -1.0f, 3.0f}, scale;
    uint8_t q[3];
    int32_t zero;
    c->kernels->quantize.row_u8(3, x, NULL, q, &scale, &zero);
    expect(q[0] == 0 && q[1] == 0 && q[2] == 255 && zero == 64, "NaN: %d %d %d, zero point %d", q[0], q[1], q[2], zero);
}

static void dequantize(const context *c)
{
    const sdx_quantize_kernels *q = &c->kernels->quantize;
    for (int round = 0; round < 100; round++) {
        const int64_t n = random_size(150);
        const float scale = random_float(0.001f, 0.1f);
        const int32_t zero = (int32_t)random_int(-128, 255);
        uint8_t *bytes = GUARDED(uint8_t, n);
        float *y = GUARDED(float, n);
        random_bytes(n, bytes);
        q->u8_f32(n, bytes, scale, zero, y);
        for (int64_t i = 0; i < n; i++) expect(y[i] == (float)(bytes[i] - zero) * scale, "u8 %d", bytes[i]);
        q->s8_f32(n, (const int8_t *)bytes, scale, zero, y);
        for (int64_t i = 0; i < n; i++)
            expect(y[i] == (float)((int8_t)bytes[i] - zero) * scale, "s8 %d", bytes[i]);
        guarded_reset();
    }
}

const check quantize_checks[] = {
    {"quantize", quantize}, {"quantize a row", quantize_row}, {"quantize back", dequantize}, {0}};
