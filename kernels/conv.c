/* conv.c: one output row of a depthwise convolution. Every tap is a row of the (padded) input, shifted; the
 * sums of four vectors of outputs stay in registers while all taps pass, so that input and output are touched
 * once. */
#include "vec/vec.h"

static void depthwise_row_f32(int64_t n, int64_t taps, const float *x, const int64_t *offset, const float *w,
                              float start, float *y)
{
    int64_t i = 0;
    for (; i + 4 * VLEN <= n; i += 4 * VLEN) {
        vf s[4] = {v_set1(start), v_set1(start), v_set1(start), v_set1(start)};
        for (int64_t t = 0; t < taps; t++) {
            const float *from = x + offset[t] + i;
            const vf weight = v_set1(w[t]);
            for (int j = 0; j < 4; j++) s[j] = v_fma(weight, v_load(from + j * VLEN), s[j]);
        }
        for (int j = 0; j < 4; j++) v_store(y + i + j * VLEN, s[j]);
    }
    for (; i < n; i += VLEN) {
        const int lanes = v_lanes(i, n);
        vf s = v_set1(start);
        for (int64_t t = 0; t < taps; t++) s = v_fma(v_set1(w[t]), v_load_n(x + offset[t] + i, lanes), s);
        v_store_n(y + i, s, lanes);
    }
}

KERNEL_INIT(conv)
{
    table->conv.depthwise_row_f32 = depthwise_row_f32;
}
