/* check_conv.c: a row of depthwise convolution within gamma_(taps+1), by the same roundings at any place in the
 * row. */
#include "kcheck.h"

enum { MOST_TAPS = 40 };

static void depthwise(const context *c)
{
    for (int round = 0; round < 200; round++) {
        const int64_t n = random_size(300), taps = random_int(0, MOST_TAPS), reach = random_int(0, 100);
        float *x = GUARDED(float, n + reach), *y = GUARDED(float, n), w[MOST_TAPS], one;
        int64_t offset[MOST_TAPS];
        const float start = random_float(-1.0f, 1.0f);
        random_fill(n + reach, -1.0f, 1.0f, x);
        random_fill(taps, -1.0f, 1.0f, w);
        for (int64_t t = 0; t < taps; t++) offset[t] = random_int(0, reach);
        c->kernels->conv.depthwise_row_f32(n, taps, x, offset, w, start, y);
        for (int64_t i = 0; i < n; i++) {
            double want = (double)start, size = fabs(want);
            for (int64_t t = 0; t < taps; t++) {
                want += (double)w[t] * (double)x[offset[t] + i];
                size += fabs((double)w[t] * (double)x[offset[t] + i]);
            }
            expect_near(y[i], want, gamma_k((double)taps + 1) * size, "depthwise row", i);
        }
        for (int64_t i = 0; i < n; i += 1 + n / 7) {
            c->kernels->conv.depthwise_row_f32(1, taps, x + i, offset, w, start, &one);
            expect_bytes(&one, y + i, sizeof one, "depthwise row, one element");
        }
        guarded_reset();
    }
}

const check conv_checks[] = {{"conv depthwise", depthwise}, {0}};
