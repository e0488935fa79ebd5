/* test_precision.c: a whole encoder with its weights multiplied in 16 bits: how far from float32, and that a text still
 * has the same bytes alone and in a batch, float16 also where the CPU lacks it; what the probe chooses. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../include/sardonyx.h"

Suite *precision_suite(void);

enum { TEXTS = 3, LENGTH = 17, WIDTH = 64, VALUES = TEXTS * LENGTH * WIDTH };

static const char *chosen; /* by the last run */

/* The first output of `texts` texts; false: this CPU has no such precision. */
static bool run_on(const char *isa, const char *precision, int64_t texts, float *values)
{
    static const char *const names[] = {"input_ids", "attention_mask", "token_type_ids"};
    static int64_t data[3][TEXTS * LENGTH];
    const char *folder = getenv("SDX_TEST_DATA");
    const sdx_run_options options = {.threads = 1 + (int)texts % 2, .precision = precision, .isa = isa};
    char path[512];
    sdx_error err = {0};
    sdx_program *program;
    sdx_session *session;
    sdx_tensor in[3], out;
    snprintf(path, sizeof path, "%s/zoo/bert-model/torchscript-op14.onnx", folder ? folder : "tests/data");
    if (sdx_program_open(path, &options, &program, &err) != SDX_OK) {
        ck_assert_msg(err.status == SDX_ERR_UNSUPPORTED && strstr(err.message, "AVX512-BF16"), "%s", err.message);
        return false;
    }
    ck_assert_int_eq(sdx_session_create(program, &session, &err), SDX_OK);
    for (int i = 0; i < TEXTS * LENGTH; i++) {
        data[0][i] = 5 + i * 37 % 1900;
        data[1][i] = 1;
    }
    for (int i = 0; i < 3; i++)
        in[i] = (sdx_tensor){.dtype = SDX_I64, .rank = 2, .dim = {texts, LENGTH}, .data = data[i]};
    ck_assert_msg(sdx_session_run(session, 3, names, in, 1, &out, &err) == SDX_OK, "%s", err.message);
    ck_assert_int_eq(sdx_tensor_count(&out), texts * LENGTH * WIDTH);
    memcpy(values, out.data, (size_t)(texts * LENGTH * WIDTH) * sizeof *values);
    chosen = sdx_program_precision(program);
    sdx_session_free(session);
    sdx_program_free(program);
    return true;
}

static bool run(const char *precision, int64_t texts, float *values) { return run_on(NULL, precision, texts, values); }

static float full[VALUES], half[VALUES], other[VALUES];

/* Both sides of a product are off by 2^-9 at most, in float16 by 2^-12, and its sums by as much as a few; the last norm
 * makes the values' own size 1. */
static const struct {
    const char *precision;
    double rms, most;
} halves[] = {{"bf16", 0.008, 0.04}, {"fp16", 0.003, 0.015}};
enum { HALVES = sizeof halves / sizeof *halves };

START_TEST(sixteen_bits_stay_near_float32)
{
    ck_assert(run(NULL, TEXTS, full));
    ck_assert_str_eq(chosen, "fp32");
    if (!run(halves[_i].precision, TEXTS, half)) return;
    ck_assert_str_eq(chosen, halves[_i].precision);
    double squares = 0, most = 0;
    for (int i = 0; i < VALUES; i++) {
        const double off = fabs((double)half[i] - (double)full[i]);
        squares += off * off;
        if (off > most) most = off;
    }
    const double rms = sqrt(squares / VALUES);
    ck_assert_msg(rms > 1e-5 && rms < halves[_i].rms && most < halves[_i].most, "rms %g, largest %g", rms, most);
}
END_TEST

START_TEST(rows_of_sixteen_bits_do_not_see_their_batch)
{
    if (!run(halves[_i].precision, TEXTS, half)) return;
    ck_assert(run(halves[_i].precision, 1, other));
    ck_assert_mem_eq(half, other, LENGTH * WIDTH * sizeof *half);
}
END_TEST

START_TEST(float16_in_software_has_the_same_bytes)
{
    ck_assert(run("fp16", TEXTS, half) && run_on("scalar", "fp16", TEXTS, other));
    ck_assert_mem_eq(half, other, sizeof half);
}
END_TEST

START_TEST(auto_is_one_of_them)
{
    ck_assert(run("auto", TEXTS, other));
    const char *probed = chosen;
    ck_assert(run(probed, TEXTS, full));
    ck_assert_mem_eq(other, full, sizeof full);
    ck_assert(run_on("scalar", "auto", TEXTS, other)); /* what is in software does not pay */
    ck_assert_str_eq(chosen, "fp32");
}
END_TEST

START_TEST(unknown_names_are_refused)
{
    sdx_program *program;
    sdx_error err = {0};
    const char *folder = getenv("SDX_TEST_DATA");
    char path[512];
    snprintf(path, sizeof path, "%s/zoo/bert-model/torchscript-op14.onnx", folder ? folder : "tests/data");
    ck_assert_int_eq(sdx_program_open(path, &(sdx_run_options){.precision = "fp8"}, &program, &err), SDX_ERR_USAGE);
    ck_assert(strstr(err.message, "fp32, bf16, fp16 or auto"));
}
END_TEST

Suite *precision_suite(void)
{
    Suite *s = suite_create("precision");
    TCase *c = tcase_create("bert");
    tcase_set_timeout(c, 120);
    tcase_add_loop_test(c, sixteen_bits_stay_near_float32, 0, HALVES);
    tcase_add_loop_test(c, rows_of_sixteen_bits_do_not_see_their_batch, 0, HALVES);
    tcase_add_test(c, float16_in_software_has_the_same_bytes);
    tcase_add_test(c, auto_is_one_of_them);
    tcase_add_test(c, unknown_names_are_refused);
    suite_add_tcase(s, c);
    return s;
}
