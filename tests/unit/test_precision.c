/* test_precision.c: a whole encoder with its weights multiplied in bfloat16: how far from float32, and that a text
 * still has the same bytes alone and in a batch; the probe's choice is one of the two. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../include/sardonyx.h"

Suite *precision_suite(void);

enum { TEXTS = 3, LENGTH = 17, WIDTH = 64, VALUES = TEXTS * LENGTH * WIDTH };

/* The first output of `texts` texts; false: this CPU has no such precision. */
static bool run(const char *precision, int64_t texts, float *values)
{
    static const char *const names[] = {"input_ids", "attention_mask", "token_type_ids"};
    static int64_t data[3][TEXTS * LENGTH];
    const char *folder = getenv("SDX_TEST_DATA");
    char path[512];
    sdx_error err = {0};
    sdx_program *program;
    sdx_session *session;
    sdx_tensor in[3], out;
    snprintf(path, sizeof path, "%s/zoo/bert-model/torchscript-op14.onnx", folder ? folder : "tests/data");
    if (sdx_program_open(path, &(sdx_run_options){.threads = 2, .precision = precision}, &program, &err) != SDX_OK) {
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
    sdx_session_free(session);
    sdx_program_free(program);
    return true;
}

static float full[VALUES], half[VALUES], other[VALUES];

/* Both sides of a product are off by 2^-9 at most; the last norm makes the values' own size 1. */
START_TEST(bfloat16_stays_near_float32)
{
    ck_assert(run(NULL, TEXTS, full));
    if (!run("bf16", TEXTS, half)) return;
    double squares = 0, most = 0;
    for (int i = 0; i < VALUES; i++) {
        const double off = fabs((double)half[i] - (double)full[i]);
        squares += off * off;
        if (off > most) most = off;
    }
    const double rms = sqrt(squares / VALUES);
    ck_assert_msg(rms > 1e-5 && rms < 0.008 && most < 0.04, "rms %g, largest %g", rms, most);
}
END_TEST

START_TEST(bfloat16_rows_do_not_see_their_batch)
{
    if (!run("bf16", TEXTS, half)) return;
    ck_assert(run("bf16", 1, other));
    ck_assert_mem_eq(half, other, LENGTH * WIDTH * sizeof *half);
}
END_TEST

START_TEST(auto_is_one_of_both)
{
    ck_assert(run("auto", TEXTS, other) && run(NULL, TEXTS, full));
    ck_assert(!memcmp(other, full, sizeof full) || (run("bf16", TEXTS, half) && !memcmp(other, half, sizeof half)));
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
    ck_assert(strstr(err.message, "fp32, bf16 or auto"));
}
END_TEST

Suite *precision_suite(void)
{
    Suite *s = suite_create("precision");
    TCase *c = tcase_create("bert");
    tcase_set_timeout(c, 120);
    tcase_add_test(c, bfloat16_stays_near_float32);
    tcase_add_test(c, bfloat16_rows_do_not_see_their_batch);
    tcase_add_test(c, auto_is_one_of_both);
    tcase_add_test(c, unknown_names_are_refused);
    suite_add_tcase(s, c);
    return s;
}
