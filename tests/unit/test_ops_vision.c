/* test_ops_vision.c: convolutions against naive sums in every float type, the transposed convolution as the
 * adjoint of the convolution, forms of old opsets, and what must be refused: contradictory shapes, hostile
 * sizes, indices from data. The rest is covered by ONNX's node tests.
 */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../../engine/ops/compute.h"
#define TRIAL_OPSET 22
#include "trial.h"

/* ---- one node -------------------------------------------------------------------------------- */

/* Small multiples of 1/8: exact in every float type, as are their products. */
static void fill_eighths(float *x, int64_t n, uint32_t seed)
{
    for (int64_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = (float)((int)(seed >> 24) % 17 - 8) / 8;
    }
}

static void *convert(sdx_dtype dtype, const float *x, int64_t n)
{
    void *y = malloc((size_t)n * sdx_dtype_size(dtype) + 1);
    sdx_floats_store(dtype, x, n, y, 0);
    return y;
}

/* ---- convolution ----------------------------------------------------------------------------- */

typedef struct shape2d { /* 2-D, the general case in small */
    int64_t n, groups, c, m, h, w, kh, kw, stride, dilation, pad;
} shape2d;

static int64_t out_size(int64_t in, int64_t k, const shape2d *s)
{
    return (in + 2 * s->pad - (k - 1) * s->dilation - 1) / s->stride + 1;
}

static double naive_conv(const shape2d *s, const float *x, const float *w, int64_t image, int64_t filter,
                         int64_t oy, int64_t ox)
{
    double sum = 0;
    for (int64_t c = 0; c < s->c; c++)
        for (int64_t i = 0; i < s->kh; i++)
            for (int64_t j = 0; j < s->kw; j++) {
                int64_t y = oy * s->stride + i * s->dilation - s->pad,
                        z = ox * s->stride + j * s->dilation - s->pad;
                if (y < 0 || z < 0 || y >= s->h || z >= s->w) continue;
                int64_t channel = filter / s->m * s->c + c;
                sum += (double)x[((image * s->groups * s->c + channel) * s->h + y) * s->w + z] *
                       (double)w[((filter * s->c + c) * s->kh + i) * s->kw + j];
            }
    return sum;
}

static trial conv_trial(const shape2d *s, sdx_dtype dtype, const void *x, const void *w)
{
    return (trial){.op = "Conv",
                   .n_in = 2,
                   .constant = 2,
                   .in = {VIEW(dtype, x, 4, s->n, s->groups * s->c, s->h, s->w),
                          VIEW(dtype, w, 4, s->groups * s->m, s->c, s->kh, s->kw)},
                   .attr = {WHOLE("group", s->groups), LIST("strides", 2, s->stride, s->stride),
                            LIST("dilations", 2, s->dilation, s->dilation),
                            LIST("pads", 4, s->pad, s->pad, s->pad, s->pad)}};
}

static const shape2d conv_shapes[] = {
    {1, 1, 3, 5, 9, 8, 3, 3, 1, 1, 1},   {2, 1, 4, 40, 11, 70, 2, 5, 2, 1, 0},
    {1, 6, 1, 1, 12, 40, 3, 3, 1, 2, 2}, {1, 3, 2, 20, 1, 300, 1, 16, 1, 1, 0},
    {1, 1, 2, 3, 5, 5, 5, 5, 3, 1, 4},   {1, 1, 1, 2, 4, 33, 1, 1, 1, 1, 0},
    {2, 2, 70, 9, 6, 37, 3, 3, 1, 1, 1},
};

static void check_conv(const shape2d *s, sdx_dtype dtype, double bound)
{
    static float x[1 << 16], w[1 << 16];
    int64_t nx = s->n * s->groups * s->c * s->h * s->w, nw = s->groups * s->m * s->c * s->kh * s->kw;
    fill_eighths(x, nx, 1);
    fill_eighths(w, nw, 2);
    void *px = convert(dtype, x, nx), *pw = convert(dtype, w, nw);
    trial one = conv_trial(s, dtype, px, pw), many = one;
    many.threads = 3;
    run(&one);
    run(&many);
    ck_assert_int_eq(memcmp(one.out[0].data, many.out[0].data, sdx_tensor_bytes(&one.out[0])), 0);
    int64_t filters = s->groups * s->m, h = out_size(s->h, s->kh, s), v = out_size(s->w, s->kw, s);
    ck_assert_int_eq(sdx_tensor_count(&one.out[0]), s->n * filters * h * v);
    for (int64_t i = 0; i < s->n * filters * h * v; i++) {
        double want = naive_conv(s, x, w, i / (v * h * filters), i / (v * h) % filters, i / v % h, i % v);
        double got = sdx_tensor_get_f64(&one.out[0], i);
        ck_assert_msg(fabs(got - want) <= bound * (1 + fabs(want)), "%s, element %lld: %g, not %g",
                      sdx_dtype_name(dtype), (long long)i, got, want);
    }
    done(&one);
    done(&many);
    free(px);
    free(pw);
}

START_TEST(convolution_in_every_float_type)
{
    for (size_t i = 0; i < sizeof conv_shapes / sizeof *conv_shapes; i++) {
        check_conv(&conv_shapes[i], SDX_F32, 1e-6);
        check_conv(&conv_shapes[i], SDX_F64, 1e-12);
        check_conv(&conv_shapes[i], SDX_F16, 1e-3);
        check_conv(&conv_shapes[i], SDX_BF16, 1e-2);
    }
}
END_TEST

/* <conv(x), y> = <x, transposed conv(y)>, exactly: all products are multiples of 1/64. */
START_TEST(transposed_convolution_is_the_adjoint)
{
    static float x[1 << 16], w[1 << 16], y[1 << 16];
    static const sdx_dtype types[] = {SDX_F32, SDX_F64};
    for (int i = 0; i < 8; i++) {
        shape2d s = conv_shapes[i / 2];
        sdx_dtype dtype = types[i % 2];
        int64_t h = out_size(s.h, s.kh, &s), v = out_size(s.w, s.kw, &s), ny = s.n * s.groups * s.m * h * v;
        int64_t nx = s.n * s.groups * s.c * s.h * s.w, nw = s.groups * s.m * s.c * s.kh * s.kw;
        fill_eighths(x, nx, 3), fill_eighths(w, nw, 4), fill_eighths(y, ny, 5);
        void *px = convert(dtype, x, nx), *pw = convert(dtype, w, nw), *py = convert(dtype, y, ny);
        trial forward = conv_trial(&s, dtype, px, pw), back = forward;
        back.op = "ConvTranspose";
        back.in[0] = VIEW(dtype, py, 4, s.n, s.groups * s.m, h, v);
        back.attr[4] = (attribute)LIST("output_shape", 2, s.h, s.w);
        back.attr[4].name = "output_padding"; /* rows and columns that no window reached */
        back.attr[4].list[0] = (s.h + 2 * s.pad - (s.kh - 1) * s.dilation - 1) % s.stride;
        back.attr[4].list[1] = (s.w + 2 * s.pad - (s.kw - 1) * s.dilation - 1) % s.stride;
        run(&forward);
        run(&back);
        ck_assert_int_eq(sdx_tensor_count(&back.out[0]), nx);
        double left = 0, right = 0;
        for (int64_t k = 0; k < ny; k++) left += sdx_tensor_get_f64(&forward.out[0], k) * (double)y[k];
        for (int64_t k = 0; k < nx; k++) right += sdx_tensor_get_f64(&back.out[0], k) * (double)x[k];
        ck_assert_double_eq(left, right);
        done(&forward);
        done(&back);
        free(px), free(pw), free(py);
    }
}
END_TEST

/* 5000 products of extremes are beyond float32's integers, and padding counts as the zero point. */
START_TEST(integer_convolution_is_exact)
{
    static uint8_t x[5000], w[3 * 5000];
    memset(x, 255, sizeof x);
    memset(w, 254, sizeof w);
    uint8_t x_zero = 3, w_zero[3] = {0, 1, 255};
    trial t = {.op = "ConvInteger",
               .n_in = 4,
               .in = {VIEW(SDX_U8, x, 3, 1, 5000, 1), VIEW(SDX_U8, w, 3, 3, 5000, 1),
                      VIEW(SDX_U8, &x_zero, 0, 0), VIEW(SDX_U8, w_zero, 1, 3)},
               .attr = {LIST("pads", 2, 1, 1)}};
    run(&t);
    const int32_t *y = t.out[0].data;
    const int32_t want[9] = {0, 252 * 254 * 5000, 0, 0, 252 * 253 * 5000, 0, 0, -252 * 5000, 0};
    for (int i = 0; i < 9; i++) ck_assert_int_eq(y[i], want[i]);
    done(&t);
}
END_TEST

START_TEST(empty_batches)
{
    float w[12] = {0};
    trial conv = {.op = "Conv", .n_in = 2, .in = {F32(NULL, 4, 0, 1, 5, 5), F32(w, 4, 1, 1, 3, 3)}};
    trial pool = {
        .op = "MaxPool", .n_in = 1, .in = {F32(NULL, 4, 0, 1, 5, 5)}, .attr = {LIST("kernel_shape", 2, 2, 2)}};
    trial norm = {
        .op = "InstanceNormalization", .n_in = 3, .in = {F32(NULL, 3, 0, 1, 5), F32(w, 1, 1), F32(w, 1, 1)}};
    trial *all[] = {&conv, &pool, &norm};
    for (int i = 0; i < 3; i++) {
        run(all[i]);
        ck_assert_int_eq(sdx_tensor_count(&all[i]->out[0]), 0);
        done(all[i]);
    }
}
END_TEST

/* ---- old opsets ------------------------------------------------------------------------------ */

START_TEST(group_norm_18_scales_groups)
{
    float x[4] = {-1, 1, -3, 3}, scale[2] = {2, 10}, bias[2] = {1, 0};
    trial t = {.op = "GroupNormalization",
               .opset = 18,
               .n_in = 3,
               .in = {F32(x, 3, 1, 4, 1), F32(scale, 1, 2), F32(bias, 1, 2)},
               .attr = {WHOLE("num_groups", 2), REAL("epsilon", 0)}};
    const float want[4] = {-1, 3, -10, 10};
    run(&t);
    for (int i = 0; i < 4; i++) ck_assert_float_eq_tol(((float *)t.out[0].data)[i], want[i], 1e-5f);
    done(&t);
    t.opset = 21;
    refuse(t, "the scale has shape [2]");
}
END_TEST

START_TEST(roi_align_10_has_no_half_pixel)
{
    float x[16], region[4] = {1, 1, 3, 3};
    int64_t image = 0;
    for (int i = 0; i < 16; i++) x[i] = (float)i;
    trial t = {.op = "RoiAlign",
               .n_in = 3,
               .in = {F32(x, 4, 1, 1, 4, 4), F32(region, 2, 1, 4), VIEW(SDX_I64, &image, 1, 1)},
               .attr = {WHOLE("sampling_ratio", 2)}};
    const float want[2] = {10, 7.5f}; /* centred on pixel (2, 2), or (1.5, 1.5) */
    for (int i = 0; i < 2; i++) {
        t.opset = i ? 16 : 10;
        run(&t);
        ck_assert_float_eq_tol(*(float *)t.out[0].data, want[i], 1e-5f);
        done(&t);
    }
    image = 1;
    refuse(t, "region 0 is of image 1 of 1");
}
END_TEST

START_TEST(resize_10_cuts_coordinates)
{
    float x[4] = {0, 1, 2, 3}, scale[1] = {0.5f};
    trial t = {.op = "Resize", .opset = 10, .n_in = 2, .in = {F32(x, 1, 4), F32(scale, 1, 1)}};
    run(&t);
    ck_assert_int_eq(t.out[0].dim[0], 2);
    ck_assert_float_eq(((float *)t.out[0].data)[1], 2);
    done(&t);
    scale[0] = 1.5f;
    run(&t);
    ck_assert_int_eq(t.out[0].dim[0], 6);
    ck_assert_float_eq(((float *)t.out[0].data)[5], 3);
    done(&t);
}
END_TEST

/* ---- what is refused ------------------------------------------------------------------------- */

START_TEST(contradictions_are_refused)
{
    static float x[256], w[256];
    trial conv = {.op = "Conv", .n_in = 2, .in = {F32(x, 4, 1, 4, 5, 5), F32(w, 4, 2, 4, 3, 3)}}, t;
    t = conv, t.attr[0] = (attribute)WHOLE("group", 2);
    refuse(t, "the input has 4 channels, but the weights are for 2 groups of 4");
    t = conv, t.attr[0] = (attribute)WHOLE("group", 0);
    refuse(t, "group is 0");
    t = conv, t.attr[0] = (attribute)LIST("strides", 2, 1, 0);
    refuse(t, "strides contains 0");
    t = conv, t.attr[0] = (attribute)LIST("pads", 2, 1, 1);
    refuse(t, "pads lists 2 numbers");
    t = conv, t.attr[0] = (attribute)LIST("kernel_shape", 2, 3, 2);
    refuse(t, "kernel_shape says 2");
    t = conv, t.attr[0] = (attribute)LIST("dilations", 2, 4, 1);
    refuse(t, "the window spans 9");
    t = conv, t.attr[0] = (attribute)STRING("auto_pad", "SOME");
    refuse(t, "auto_pad is \"SOME\"");
    t = conv, t.in[0] = F32(x, 3, 1, 4, 5);
    refuse(t, "must have 3 dimensions");
}
END_TEST

START_TEST(hostile_sizes_are_refused)
{
    static float x[64], w[64];
    const int64_t most = 1 << 30;
    trial t = {.op = "Conv",
               .n_in = 2,
               .in = {F32(x, 5, 1, 1, 2, 2, 2), F32(w, 5, 1, 1, 1, 1, 1)},
               .attr = {LIST("pads", 6, most, most, most, most, most, most)}};
    refuse(t, "too large");
    t.attr[0] = (attribute)LIST("pads", 6, -1, 0, 0, 0, 0, 0);
    refuse(t, "pads contains -1");
    t = (trial){.op = "MaxPool",
                .n_in = 1,
                .in = {F32(x, 4, 1, 1, 2, 2)},
                .attr = {LIST("kernel_shape", 2, most, most), LIST("pads", 4, most, most, most, most)}};
    refuse(t, "too large");
    float scale[2] = {NAN, 1};
    t = (trial){.op = "Resize", .n_in = 3, .in = {F32(x, 2, 2, 2), {0}, F32(scale, 1, 2)}};
    refuse(t, "a scale of nan");
    scale[0] = 1e30f;
    refuse(t, "a scale of 1e+30");
    int64_t size[2] = {INT64_MAX, 1};
    t = (trial){.op = "Resize", .n_in = 4, .in = {F32(x, 2, 2, 2), {0}, {0}, VIEW(SDX_I64, size, 1, 2)}};
    refuse(t, "a size of");
    int64_t image[2] = {4, 4}, block[2] = {0, 2};
    t = (trial){.op = "Col2Im",
                .n_in = 3,
                .in = {F32(x, 3, 1, 4, 9), VIEW(SDX_I64, image, 1, 2), VIEW(SDX_I64, block, 1, 2)}};
    refuse(t, "not positive");
}
END_TEST

START_TEST(indices_in_data_are_checked)
{
    float x[4] = {1, 2, 3, 4};
    int64_t index[4] = {0, 2, 8, 16};
    trial t = {.op = "MaxUnpool",
               .n_in = 2,
               .in = {F32(x, 4, 1, 1, 2, 2), VIEW(SDX_I64, index, 4, 1, 1, 2, 2)},
               .attr = {LIST("kernel_shape", 2, 2, 2), LIST("strides", 2, 2, 2)}};
    refuse(t, "index 16 is outside the unpooled 16 elements");
    index[3] = -1;
    refuse(t, "index -1");
    float region[5] = {-1, 0, 0, 1, 1};
    t = (trial){.op = "MaxRoiPool",
                .n_in = 2,
                .in = {F32(x, 4, 1, 1, 2, 2), F32(region, 2, 1, 5)},
                .attr = {LIST("pooled_shape", 2, 1, 1)}};
    refuse(t, "region 0 is of image -1 of 1");
    float grid[4] = {NAN, INFINITY, -INFINITY, 1e30f};
    t = (trial){.op = "GridSample", .n_in = 2, .in = {F32(x, 4, 1, 1, 2, 2), F32(grid, 4, 1, 1, 2, 2)}};
    static const char *const padding[] = {"zeros", "border", "reflection"};
    for (int i = 0; i < 3; i++) { /* any value will do, none outside the image is read */
        t.attr[0] = (attribute)STRING("padding_mode", padding[i]);
        run(&t);
        done(&t);
    }
}
END_TEST

Suite *ops_vision_suite(void);
Suite *ops_vision_suite(void)
{
    Suite *s = suite_create("ops_vision");
    TCase *c = tcase_create("all");
    tcase_add_test(c, convolution_in_every_float_type);
    tcase_add_test(c, transposed_convolution_is_the_adjoint);
    tcase_add_test(c, integer_convolution_is_exact);
    tcase_add_test(c, empty_batches);
    tcase_add_test(c, group_norm_18_scales_groups);
    tcase_add_test(c, roi_align_10_has_no_half_pixel);
    tcase_add_test(c, resize_10_cuts_coordinates);
    tcase_add_test(c, contradictions_are_refused);
    tcase_add_test(c, hostile_sizes_are_refused);
    tcase_add_test(c, indices_in_data_are_checked);
    suite_add_tcase(s, c);
    return s;
}
