/* test_work.c: the arithmetic of a run is what the shapes say, and the same however the graph spells it. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../graph/graph.h"

enum { MOST = 64 };

static sdx_work run(sdx_program *program, size_t n, const char *const *names, const sdx_tensor *in)
{
    sdx_session *session;
    sdx_tensor out[2];
    sdx_error err = {0};
    ck_assert_int_eq(sdx_session_create(program, &session, &err), SDX_OK);
    ck_assert_msg(sdx_session_run(session, n, names, in, 1, out, &err) == SDX_OK, "%s", err.message);
    sdx_work work = sdx_session_work(session);
    sdx_session_free(session);
    return work;
}

static double total(sdx_work w) { return w.f32 + w.bf16 + w.f16 + w.int8; }

/* ---- by hand --------------------------------------------------------------------------------------------- */

/* op(x, w) of float32. */
static double count(const char *op, int rank, const int64_t *x_dim, const int64_t *w_dim, int64_t groups)
{
    sdx_model *m;
    ck_assert_int_eq(sdx_model_create(&m, NULL), SDX_OK);
    ck_assert_int_eq(sdx_model_set_opset(m, "", 17, NULL), SDX_OK);
    sdx_id in[2], out;
    sdx_shape x = sdx_shape_make(rank, x_dim), w = sdx_shape_make(rank, w_dim);
    ck_assert_int_eq(sdx_graph_add_input(m->graph, "x", SDX_F32, &x, &in[0], NULL), SDX_OK);
    ck_assert_int_eq(sdx_graph_add_input(m->graph, "w", SDX_F32, &w, &in[1], NULL), SDX_OK);
    ck_assert_int_eq(sdx_graph_emit(m->graph, "", op, NULL, 2, in, &out, NULL), SDX_OK);
    if (groups > 1) ck_assert_int_eq(sdx_node_set_int(m->graph, 0, "group", groups, NULL), SDX_OK);
    ck_assert_int_eq(sdx_graph_add_output(m->graph, out, NULL), SDX_OK);
    static const sdx_run_options plain = {.threads = 1, .no_optimize = true};
    sdx_program *program;
    sdx_error err = {0};
    ck_assert_msg(sdx_program_create(m, &plain, &program, &err) == SDX_OK, "%s", err.message);
    static float zeros[1024];
    double n = total(run(program, 2, (const char *const[]){"x", "w"},
                         (sdx_tensor[]){sdx_tensor_make(SDX_F32, &x, zeros), sdx_tensor_make(SDX_F32, &w, zeros)}));
    sdx_program_free(program);
    return n;
}

START_TEST(counts_by_hand)
{
    ck_assert_double_eq(count("MatMul", 3, (int64_t[]){2, 3, 4}, (int64_t[]){1, 4, 5}, 1), 2 * 2 * 3 * 4 * 5);
    ck_assert_double_eq(count("Gemm", 2, (int64_t[]){3, 4}, (int64_t[]){4, 5}, 1), 2 * 3 * 4 * 5);
    /* 6 outputs of 2 places of 4 filters, each over 3 channels of 3 taps */
    ck_assert_double_eq(count("Conv", 3, (int64_t[]){2, 6, 8}, (int64_t[]){4, 3, 3}, 2), 2 * (2 * 4 * 6) * (3 * 3));
    ck_assert_double_eq(count("ConvTranspose", 3, (int64_t[]){2, 6, 8}, (int64_t[]){6, 5, 3}, 1),
                        2 * (2 * 6 * 8) * (5 * 3));
    ck_assert_double_eq(count("Add", 2, (int64_t[]){3, 4}, (int64_t[]){3, 4}, 1), 0);
}
END_TEST

/* ---- of an encoder --------------------------------------------------------------------------------------- */

static sdx_work run_encoder(const char *path, sdx_run_options options, int64_t texts, const int64_t *lengths)
{
    sdx_program *program;
    sdx_error err = {0};
    options.threads = 1;
    ck_assert_msg(sdx_program_open(path, &options, &program, &err) == SDX_OK, "%s", err.message);
    int64_t ids[MOST], mask[MOST], types[MOST] = {0}, longest = 0;
    for (int64_t i = 0; i < texts; i++) longest = lengths[i] > longest ? lengths[i] : longest;
    ck_assert_int_le(texts * longest, MOST);
    for (int64_t i = 0; i < texts * longest; i++) {
        ids[i] = 5 + i;
        mask[i] = i % longest < lengths[i / longest];
    }
    sdx_shape shape = {.rank = 2, .dim = {texts, longest}};
    sdx_work work = run(program, 3, (const char *const[]){"input_ids", "attention_mask", "token_type_ids"},
                        (sdx_tensor[]){sdx_tensor_make(SDX_I64, &shape, ids), sdx_tensor_make(SDX_I64, &shape, mask),
                                       sdx_tensor_make(SDX_I64, &shape, types)});
    sdx_program_free(program);
    return work;
}

static void place(char path[512], const char *model)
{
    const char *data = getenv("SDX_TEST_DATA");
    snprintf(path, 512, "%s/zoo/%s.onnx", data ? data : "tests/data", model);
}

static const int64_t lengths[] = {9, 2, 5};

START_TEST(spellings_agree)
{
    static const char *const models[] = {"bert-splade/torchscript-op14", "bert-model/torchscript-op14.ort-optimized",
                                         "bert-model-sdpa/dynamo-op18"};
    char path[512];
    place(path, models[_i]);
    static const int64_t even[] = {9, 9, 9};
    sdx_work spelled = run_encoder(path, (sdx_run_options){.no_optimize = true}, 3, even);
    ck_assert_double_gt(spelled.f32, 0);
    ck_assert_double_eq(total(run_encoder(path, (sdx_run_options){0}, 3, even)), spelled.f32);
    ck_assert_double_eq(total(run_encoder(path, (sdx_run_options){.precision = "auto"}, 3, even)), spelled.f32);
}
END_TEST

/* Padding that is skipped is not counted. */
START_TEST(packed_batches_count_their_tokens)
{
    char path[512];
    place(path, "bert-splade/torchscript-op14");
    const sdx_run_options options = {.skip_padding = true};
    double alone = 0;
    for (int i = 0; i < 3; i++) alone += total(run_encoder(path, options, 1, &lengths[i]));
    ck_assert_double_eq(total(run_encoder(path, options, 3, lengths)), alone);
}
END_TEST

START_TEST(quantized_layers_count_as_int8)
{
    char path[512], quantized[] = "/tmp/sdx-work-XXXXXX";
    place(path, "bert-splade/torchscript-op14");
    int file = mkstemp(quantized);
    ck_assert_int_ge(file, 0);
    close(file);
    sdx_error err = {0};
    sdx_quantize_options how = {.input = path, .output = quantized};
    sdx_quantize_report report;
    ck_assert_msg(sdx_quantize(&how, &report, &err) == SDX_OK, "%s", err.message);
    sdx_work fp32 = run_encoder(path, (sdx_run_options){0}, 3, lengths),
             int8 = run_encoder(quantized, (sdx_run_options){0}, 3, lengths);
    ck_assert_double_eq(total(int8), total(fp32));
    ck_assert_double_gt(int8.int8, 0.9 * total(fp32));
    ck_assert_double_gt(int8.f32, 0); /* attention */
    unlink(quantized);
}
END_TEST

START_TEST(peaks_are_plausible)
{
    char path[512];
    place(path, "bert-model/torchscript-op14");
    sdx_program *program;
    ck_assert_int_eq(sdx_program_open(path, &(sdx_run_options){.threads = 1}, &program, NULL), SDX_OK);
    sdx_work peak = sdx_program_peak(program);
    if (peak.f32) {
        ck_assert_double_gt(peak.f32, 1e8);
        ck_assert_double_lt(peak.f32, 1e13);
        ck_assert_double_gt(peak.int8, 0);
    }
    sdx_program_free(program);
}
END_TEST

Suite *work_suite(void)
{
    Suite *s = suite_create("work");
    TCase *t = tcase_create("counts");
    tcase_add_test(t, counts_by_hand);
    tcase_add_loop_test(t, spellings_agree, 0, 3);
    tcase_add_test(t, packed_batches_count_their_tokens);
    tcase_add_test(t, quantized_layers_count_as_int8);
    tcase_add_test(t, peaks_are_plausible);
    suite_add_tcase(s, t);
    return s;
}
