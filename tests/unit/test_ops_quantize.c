/* test_ops_quantize.c: QuantizeLinear, DequantizeLinear, Cast and BitCast over all their types, against the
 * formulas of their documents element by element, and what they refuse. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../../engine/engine.h"
#include "../../engine/ops/ops.h"

/* ---- one node, computed ---------------------------------------------------------------------------------- */

typedef struct bench {
    sdx_model *model;
    sdx_id node, in[3];
    int n_in;
    sdx_tensor out;
    sdx_arena arena;
    sdx_error err;
} bench;

static bench start(const char *op, int n_in, const sdx_tensor *in)
{
    bench b = {.n_in = n_in};
    sdx_id out;
    sdx_arena_init(&b.arena);
    ck_assert_int_eq(sdx_model_create(&b.model, NULL), SDX_OK);
    b.model->path = "test.onnx";
    ck_assert_int_eq(sdx_model_set_opset(b.model, "", 26, NULL), SDX_OK);
    sdx_graph *g = b.model->graph;
    for (int i = 0; i < n_in; i++)
        ck_assert_int_eq(sdx_graph_add_constant(g, NULL, &in[i], &b.in[i], NULL), SDX_OK);
    ck_assert_int_eq(sdx_graph_add_value(g, NULL, &out, NULL), SDX_OK);
    ck_assert_int_eq(sdx_graph_add_node(g, "", op, op, n_in, b.in, 1, &out, &b.node, NULL), SDX_OK);
    return b;
}

static void set(bench *b, const char *name, int64_t value)
{
    ck_assert_int_eq(sdx_node_set_int(b->model->graph, b->node, name, value, NULL), SDX_OK);
}

static sdx_status run(bench *b)
{
    sdx_eval_context context = {sdx_kernels_get(SDX_ISA_COUNT - 1), 2, SDX_FOLD_STEPS};
    TRY(sdx_model_resolve(b->model, &sdx_operators, &b->err));
    return sdx_eval_node(&context, b->model, &b->model->graph->node[b->node], &b->arena, &b->out, &b->err);
}

static void run_well(bench *b) { ck_assert_msg(run(b) == SDX_OK, "%s", b->err.message); }

static void stop(bench *b)
{
    sdx_model_close(b->model);
    sdx_arena_fini(&b->arena);
}

static void refuse(bench *b, const char *part)
{
    ck_assert_int_ne(run(b), SDX_OK);
    ck_assert_msg(strstr(b->err.message, part) != NULL, "\"%s\" lacks \"%s\"", b->err.message, part);
    stop(b);
}

static void expect(const bench *b, sdx_dtype dtype, int n, const double *want)
{
    ck_assert_msg(b->out.dtype == dtype, "%s, not %s", sdx_dtype_name(b->out.dtype), sdx_dtype_name(dtype));
    ck_assert_int_eq(sdx_tensor_count(&b->out), n);
    for (int i = 0; i < n; i++) {
        double got = sdx_tensor_get_f64(&b->out, i);
        ck_assert_msg(isnan(want[i]) ? isnan(got) : got == want[i], "%s: element %d is %.9g, not %.9g",
                      sdx_dtype_name(dtype), i, got, want[i]);
    }
}

#define TENSOR(dtype, data, rank, ...) ((sdx_tensor){dtype, rank, {__VA_ARGS__}, (void *)(data)})

/* ---- the linear operators, all types, three granularities ------------------------------------------------ */

enum { ROWS = 5, COLUMNS = 7, BLOCK = 3, BLOCKS = 3, COUNT = ROWS * COLUMNS };
static const sdx_dtype quantized[] = {
    SDX_U8,       SDX_I8,         SDX_U16,    SDX_I16,        SDX_U4,     SDX_I4,     SDX_U2,    SDX_I2,
    SDX_F8E4M3FN, SDX_F8E4M3FNUZ, SDX_F8E5M2, SDX_F8E5M2FNUZ, SDX_F4E2M1, SDX_F6E2M3, SDX_F6E3M2};
enum { N_QUANTIZED = sizeof quantized / sizeof *quantized };

typedef enum granularity { TENSOR_WISE, ROW_WISE, BLOCK_WISE } granularity;

static sdx_tensor scales(granularity g, sdx_dtype dtype, const void *data)
{
    if (g == TENSOR_WISE) return TENSOR(dtype, data, 0, 0);
    if (g == ROW_WISE) return TENSOR(dtype, data, 1, ROWS);
    return TENSOR(dtype, data, 2, ROWS, BLOCKS);
}

static int scale_of(granularity g, int i)
{
    if (g == TENSOR_WISE) return 0;
    return g == ROW_WISE ? i / COLUMNS : i / COLUMNS * BLOCKS + i % COLUMNS / BLOCK;
}

static void set_granularity(bench *b, granularity g)
{
    set(b, "axis", g == BLOCK_WISE ? -1 : 0);
    if (g == BLOCK_WISE) set(b, "block_size", BLOCK);
}

static double saturate(sdx_dtype t, double q)
{
    if (sdx_dtype_is_coded(t)) return sdx_code_to_f32(t, sdx_f64_to_code(t, q, (sdx_coding){0}));
    double most = ldexp(1, sdx_dtype_bits(t) - sdx_dtype_is_signed(t)) - 1;
    return fmin(fmax(q, sdx_dtype_is_signed(t) ? -most - 1 : 0), most);
}

/* Zero points are 0 or 1 (0 for coded floats): one byte, or two, that both types of each width share. */
static void make_zeros(sdx_dtype t, unsigned char zero[2 * ROWS * BLOCKS])
{
    size_t size = sdx_dtype_size(t);
    memset(zero, 0, 2 * ROWS * BLOCKS);
    for (size_t i = 0; i < ROWS * BLOCKS && !sdx_dtype_is_coded(t); i++) zero[i * size] = i % 2 == 0;
}

START_TEST(linear_both_ways)
{
    sdx_dtype t = quantized[_i % N_QUANTIZED];
    granularity g = (granularity)(_i / N_QUANTIZED);
    float x[COUNT], scale[ROWS * BLOCKS];
    double q[COUNT], y[COUNT];
    unsigned char zero[2 * ROWS * BLOCKS];
    make_zeros(t, zero);
    for (int i = 0; i < ROWS * BLOCKS; i++) scale[i] = 0.37f * (float)(i + 1);
    for (int i = 0; i < COUNT; i++) x[i] = (float)(i * 37 % 71 - 35) * 0.31f;
    sdx_tensor in[3] = {TENSOR(SDX_F32, x, 2, ROWS, COLUMNS), scales(g, SDX_F32, scale), scales(g, t, zero)};
    for (int i = 0; i < COUNT; i++) {
        int s = scale_of(g, i);
        float ratio = x[i] / scale[s];
        double z = sdx_tensor_get_f64(&in[2], s);
        q[i] = saturate(t, sdx_dtype_is_coded(t) ? (double)ratio : (double)rintf(ratio) + z);
        y[i] = (double)((float)(q[i] - z) * scale[s]);
    }
    bench b = start("QuantizeLinear", 3, in);
    set_granularity(&b, g);
    run_well(&b);
    expect(&b, t, COUNT, q);
    in[0] = b.out;
    bench back = start("DequantizeLinear", 3, in);
    set_granularity(&back, g);
    run_well(&back);
    expect(&back, SDX_F32, COUNT, y);
    stop(&b);
    stop(&back);
}
END_TEST

/* 2049.4 is 2050 in float16 and 2048 in bfloat16; the integer follows the type of the division. */
START_TEST(division_has_a_precision)
{
    static const double want[] = {2049, 2050, 2048, 2049};
    static const sdx_dtype precision[] = {SDX_F32, SDX_F16, SDX_BF16, SDX_F64};
    float x = 2049.4f, one = 1;
    sdx_tensor in[2] = {TENSOR(SDX_F32, &x, 0, 0), TENSOR(SDX_F32, &one, 0, 0)};
    bench b = start("QuantizeLinear", 2, in);
    set(&b, "output_dtype", SDX_U16);
    set(&b, "precision", precision[_i]);
    run_well(&b);
    expect(&b, SDX_U16, 1, &want[_i]);
    stop(&b);
    uint16_t half_one = 0x3c00; /* without the attribute the scale's type decides */
    in[1] = TENSOR(SDX_F16, &half_one, 0, 0);
    b = start("QuantizeLinear", 2, in);
    set(&b, "output_dtype", SDX_U16);
    run_well(&b);
    expect(&b, SDX_U16, 1, &want[1]);
    stop(&b);
}
END_TEST

START_TEST(powers_of_two_scale)
{
    const uint8_t codes[] = {0x02, 0x0f, 0x07}, scale[] = {128, 127, 120}; /* 1, -6, 6; 2, 1, 2^-7 */
    const sdx_tensor in[] = {TENSOR(SDX_F4E2M1, codes, 1, 3), TENSOR(SDX_F8E8M0, scale, 1, 3)};
    bench b = start("DequantizeLinear", 2, in);
    set(&b, "axis", 0);
    set(&b, "output_dtype", SDX_BF16);
    run_well(&b);
    expect(&b, SDX_BF16, 3, (double[]){2, -6, 6.0 / 128});
    stop(&b);
    b = start("DequantizeLinear", 2, in);
    set(&b, "axis", 0);
    refuse(&b, "output_dtype must be given");
}
END_TEST

START_TEST(overflow_follows_saturate)
{
    const float x[] = {1e6f, -INFINITY, NAN, 448}, one = 1;
    const sdx_tensor in[] = {TENSOR(SDX_F32, x, 1, 4), TENSOR(SDX_F32, &one, 0, 0)};
    for (int saturates = 0; saturates < 2; saturates++) {
        const double fn[] = {saturates ? 448 : NAN, saturates ? -448 : NAN, NAN, 448};
        bench b = start("QuantizeLinear", 2, in);
        set(&b, "output_dtype", SDX_F8E4M3FN);
        set(&b, "saturate", saturates);
        run_well(&b);
        expect(&b, SDX_F8E4M3FN, 4, fn);
        stop(&b);
        const double ieee[] = {saturates ? 57344 : INFINITY, saturates ? -57344 : -INFINITY, NAN, 448};
        b = start("Cast", 1, in);
        set(&b, "to", SDX_F8E5M2);
        set(&b, "saturate", saturates);
        run_well(&b);
        expect(&b, SDX_F8E5M2, 4, ieee);
        stop(&b);
    }
}
END_TEST

START_TEST(linear_refusals)
{
    const float x[] = {1, 2, 3};
    const uint8_t zero = 0;
    sdx_tensor in[3] = {TENSOR(SDX_F32, x, 1, 3), TENSOR(SDX_F32, x, 0, 0), TENSOR(SDX_I4, &zero, 0, 0)};
    bench b = start("QuantizeLinear", 3, in);
    set(&b, "output_dtype", SDX_U4);
    refuse(&b, "output_dtype is uint4, but the zero point is int4");
    static const int64_t strange[] = {SDX_F32, SDX_F8E8M0, 29, 65, -1, INT64_MAX, INT64_C(1) << 32 | SDX_U8};
    for (size_t i = 0; i < sizeof strange / sizeof *strange; i++) {
        b = start("QuantizeLinear", 2, in);
        set(&b, "output_dtype", strange[i]);
        refuse(&b, "output_dtype");
    }
    b = start("QuantizeLinear", 2, in);
    set(&b, "precision", SDX_I8);
    refuse(&b, "precision");
    in[0] = TENSOR(SDX_U4, "\1\2\3", 1, 3);
    b = start("DequantizeLinear", 3, in);
    refuse(&b, "the zero point is int4, but the input is uint4");
    in[1] = TENSOR(SDX_F32, x, 1, 2);
    b = start("DequantizeLinear", 2, in);
    refuse(&b, "dimension 0 must be 3");
    b = start("DequantizeLinear", 2, in);
    set(&b, "block_size", -2);
    refuse(&b, "block_size is -2");
}
END_TEST

/* ---- Cast and BitCast ------------------------------------------------------------------------------------ */

START_TEST(casts_round_powers_of_two)
{
    static const char *const mode[] = {"up", "down", "nearest"};
    static const double want[][3] = {{4, 0.25, 1}, {2, 0.125, 0.5}, {4, 0.125, 1}};
    const float x[] = {3, 0.15f, 0.75f};
    const sdx_tensor in = TENSOR(SDX_F32, x, 1, 3);
    bench b = start("Cast", 1, &in);
    set(&b, "to", SDX_F8E8M0);
    ck_assert_int_eq(sdx_node_set_string(b.model->graph, b.node, "round_mode", mode[_i], NULL), SDX_OK);
    run_well(&b);
    expect(&b, SDX_F8E8M0, 3, want[_i]);
    stop(&b);
}
END_TEST

START_TEST(casts_wrap_into_small_integers)
{
    const int64_t x[] = {7, 8, -9, 200, INT64_MIN};
    const float f[] = {7.9f, 8, -9.9f, 200, 1e30f};
    const sdx_tensor in[] = {TENSOR(SDX_I64, x, 1, 5), TENSOR(SDX_F32, f, 1, 5)};
    const double i4[] = {7, -8, 7, -8, 0}, u2[] = {3, 0, 3, 0, 0}, far[] = {7, -8, 7, -8, -1};
    bench b = start("Cast", 1, &in[0]);
    set(&b, "to", SDX_I4);
    run_well(&b);
    expect(&b, SDX_I4, 5, i4);
    stop(&b);
    b = start("Cast", 1, &in[0]);
    set(&b, "to", SDX_U2);
    run_well(&b);
    expect(&b, SDX_U2, 5, u2);
    stop(&b);
    b = start("Cast", 1, &in[1]);
    set(&b, "to", SDX_I4);
    run_well(&b);
    expect(&b, SDX_I4, 5, far);
    stop(&b);
}
END_TEST

START_TEST(casts_spell_numbers_and_read_them)
{
    static const float f[] = {1, 0.1f, -1e10f, 1e-7f, 3.14159274f, NAN, INFINITY, -INFINITY};
    static const char *const spelled[] = {"1", "0.1", "-1e+10", "1e-07", "3.1415927", "NaN", "INF", "-INF"};
    static const char *const ints[] = {"9223372036854775807", " -3", "+12"};
    sdx_tensor in = TENSOR(SDX_F32, f, 1, 8);
    bench b = start("Cast", 1, &in);
    set(&b, "to", SDX_STRING);
    run_well(&b);
    for (int i = 0; i < 8; i++) ck_assert_str_eq(((const char **)b.out.data)[i], spelled[i]);
    bench back = start("Cast", 1, &b.out);
    set(&back, "to", SDX_F64);
    run_well(&back);
    expect(&back, SDX_F64, 8, (double[]){1, 0.1, -1e10, 1e-7, 3.1415927, NAN, INFINITY, -INFINITY});
    stop(&back);
    stop(&b);
    in = TENSOR(SDX_STRING, ints, 1, 3);
    b = start("Cast", 1, &in);
    set(&b, "to", SDX_I64);
    run_well(&b);
    ck_assert(((int64_t *)b.out.data)[0] == INT64_MAX && ((int64_t *)b.out.data)[1] == -3);
    stop(&b);
    static const char *const word[] = {"7", "seven"};
    in = TENSOR(SDX_STRING, word, 1, 2);
    b = start("Cast", 1, &in);
    set(&b, "to", SDX_F32);
    refuse(&b, "element 1 is \"seven\", not a number");
}
END_TEST

START_TEST(bits_are_kept)
{
    const uint8_t i4[] = {0xff, 0xf8, 7};
    const sdx_tensor in = TENSOR(SDX_I4, i4, 1, 3);
    bench b = start("BitCast", 1, &in);
    set(&b, "to", SDX_U4);
    run_well(&b);
    expect(&b, SDX_U4, 3, (double[]){15, 8, 7});
    bench f = start("BitCast", 1, &b.out);
    set(&f, "to", SDX_F4E2M1);
    run_well(&f);
    expect(&f, SDX_F4E2M1, 3, (double[]){-6, 0, 6});
    bench back = start("BitCast", 1, &f.out);
    set(&back, "to", SDX_I4);
    run_well(&back);
    expect(&back, SDX_I4, 3, (double[]){-1, -8, 7});
    stop(&b);
    stop(&f);
    stop(&back);
}
END_TEST

START_TEST(cast_refusals)
{
    const float x = 1;
    const sdx_tensor in = TENSOR(SDX_F32, &x, 0, 0);
    bench b = start("Cast", 1, &in);
    refuse(&b, "lacks the attribute \"to\"");
    b = start("Cast", 1, &in);
    set(&b, "to", 29);
    refuse(&b, "casts to type 29");
    b = start("Cast", 1, &in);
    set(&b, "to", SDX_F8E8M0);
    ck_assert_int_eq(sdx_node_set_string(b.model->graph, b.node, "round_mode", "sideways", NULL), SDX_OK);
    refuse(&b, "round_mode is \"sideways\"");
    b = start("BitCast", 1, &in);
    set(&b, "to", SDX_F16);
    refuse(&b, "float32 has 32 bits and float16 16");
    b = start("BitCast", 1, &in);
    set(&b, "to", SDX_STRING);
    refuse(&b, "not strings");
}
END_TEST

Suite *ops_quantize_suite(void);
Suite *ops_quantize_suite(void)
{
    Suite *s = suite_create("ops_quantize");
    TCase *c = tcase_create("all");
    tcase_add_loop_test(c, linear_both_ways, 0, 3 * N_QUANTIZED);
    tcase_add_loop_test(c, division_has_a_precision, 0, 4);
    tcase_add_test(c, powers_of_two_scale);
    tcase_add_test(c, overflow_follows_saturate);
    tcase_add_test(c, linear_refusals);
    tcase_add_loop_test(c, casts_round_powers_of_two, 0, 3);
    tcase_add_test(c, casts_wrap_into_small_integers);
    tcase_add_test(c, casts_spell_numbers_and_read_them);
    tcase_add_test(c, bits_are_kept);
    tcase_add_test(c, cast_refusals);
    suite_add_tcase(s, c);
    return s;
}
