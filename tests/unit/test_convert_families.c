/* test_convert_families.c: every family and head against what PyTorch computed (tests/data/zoo): the reference
 * forward, row by row without its padding, and the graph, padding included; and random checkpoints of the same
 * configurations, on which the two must agree. */
#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../base/memory.h"
#include "../../convert/convert.h"
#include "../../convert/synthetic.h"
#include "folder_tests.h"

static const struct {
    const char *model, *task, *output; /* first output */
} goldens[] = {
    {"bert-model", "auto", "last_hidden_state"},
    {"bert-mlm", "auto", "logits"},
    {"bert-classify-bin", "auto", "logits"},
    {"bert-splade", "sparse", "output_idx"},
    {"tiny-bert-tokens", "auto", "logits"},
    {"tiny-bert-spans", "auto", "start_logits"},
    {"tiny-distilbert-mlm", "auto", "logits"},
    {"tiny-distilbert-splade", "sparse", "output_idx"},
    {"tiny-distilbert-classify", "auto", "logits"},
    {"tiny-roberta-splade", "sparse", "output_idx"},
    {"tiny-xlm-roberta-model", "auto", "last_hidden_state"},
    {"tiny-xlm-roberta-untied", "auto", "logits"},
    {"tiny-camembert-classify", "auto", "logits"},
    {"tiny-mpnet-model", "auto", "last_hidden_state"},
    {"tiny-mpnet-mlm", "auto", "logits"},
    {"tiny-electra-mlm", "auto", "logits"},
    {"tiny-electra-replaced", "auto", "logits"},
    {"tiny-electra-classify", "auto", "logits"},
    {"tiny-albert-groups", "auto", "last_hidden_state"},
    {"tiny-albert-mlm", "auto", "logits"},
    {"tiny-deberta-v3-mlm", "auto", "logits"},
    {"tiny-deberta-v3-classify", "auto", "logits"},
    {"tiny-deberta-v2-convolution", "auto", "last_hidden_state"},
    {"tiny-deberta-v2-own-keys", "auto", "last_hidden_state"},
    {"tiny-modernbert-mlm", "auto", "logits"},
    {"tiny-modernbert-mean", "auto", "logits"},
    {"tiny-bert-relative", "auto", "last_hidden_state"},
    {"tiny-albert-relative", "auto", "last_hidden_state"},
    {"tiny-bert-choice", "auto", "logits"},
    {"tiny-gpt2-classify", "auto", "logits"},
    {"tiny-bart-classify", "auto", "logits"},
};
enum { N_GOLDENS = sizeof goldens / sizeof *goldens, MAX_VALUES = 4, CASES = 2, VOCABULARY = 1 << 16 };

static const char *place(char *path, size_t size, int which, const char *rest)
{
    const char *data = getenv("SDX_TEST_DATA");
    snprintf(path, size, "%s/zoo/%s/%s", data ? data : "tests/data", goldens[which].model, rest);
    return path;
}

static sdx_tensor read_array(int which, int k, const char *kind, const char *name)
{
    char rest[128], path[1024];
    sdx_tensor t = {0};
    snprintf(rest, sizeof rest, "case_%d/%s_%s.npy", k, kind, name);
    place(path, sizeof path, which, rest);
    if (access(path, R_OK)) return t;
    ck_assert_int_eq(sdx_tensor_read_npy(path, &t, NULL), SDX_OK);
    return t;
}

static void compare(const double *got, const float *golden, int64_t count)
{
    double largest = 1;
    for (int64_t i = 0; i < count; i++) largest = fmax(largest, fabs((double)golden[i]));
    for (int64_t i = 0; i < count; i++)
        ck_assert_msg(fabs(got[i] - (double)golden[i]) <= 1e-5 * largest, "%lld: %g %g", (long long)i, got[i],
                      (double)golden[i]);
}

/* Indices and weights as one vector, so that an entry on one side only is a difference like any other. */
static float *make_dense(const sdx_tensor *index, const sdx_tensor *weight)
{
    float *dense = calloc(VOCABULARY, sizeof *dense);
    ck_assert(dense != NULL);
    for (int64_t i = 0; i < sdx_tensor_count(index); i++)
        dense[((const int64_t *)index->data)[i]] = ((const float *)weight->data)[i];
    return dense;
}

/* ---- the reference --------------------------------------------------------------------------------------- */

static void check_row(const sdx_reference *reference, const sdx_tensor *inputs, int64_t row,
                      const float *golden, int64_t stride)
{
    int64_t S = inputs[0].dim[inputs[0].rank - 1], count = 0, n = 1;
    const int64_t *mask = (const int64_t *)inputs[1].data + row * S;
    int64_t *types = inputs[2].data ? (int64_t *)inputs[2].data + row * S : calloc((size_t)S, sizeof *types);
    while (count < S && mask[count]) count++;
    sdx_reference_result r;
    ck_assert_int_eq(
        sdx_reference_run(reference, (size_t)count, (const int64_t *)inputs[0].data + row * S, types, &r, NULL),
        SDX_OK);
    for (int i = 0; i < r.rank; i++) n *= r.dim[i];
    compare(r.value, golden + row * stride, n);
    free(r.value);
    if (!inputs[2].data) free(types);
}

static void check_case(const sdx_reference *reference, int which, int k)
{
    sdx_tensor in[] = {read_array(which, k, "input", "input_ids"),
                       read_array(which, k, "input", "attention_mask"),
                       read_array(which, k, "input", "token_type_ids")};
    sdx_tensor out = read_array(which, k, "output", goldens[which].output);
    int64_t rows = sdx_tensor_count(&in[0]) / in[0].dim[in[0].rank - 1];
    ck_assert(out.data != NULL);
    if (sdx_reference_is_sparse(reference)) {
        sdx_tensor weight = read_array(which, k, "output", "output_weights");
        float *dense = make_dense(&out, &weight);
        check_row(reference, in, 0, dense, 0);
        free(dense);
        sdx_tensor_free(&weight);
    } else {
        for (int64_t row = 0; row < rows; row++)
            check_row(reference, in, row, out.data, sdx_tensor_count(&out) / rows);
    }
    for (int i = 0; i < 3; i++) sdx_tensor_free(&in[i]);
    sdx_tensor_free(&out);
}

START_TEST(reference_is_pytorch)
{
    char path[1024];
    place(path, sizeof path, _i, "checkpoint");
    const sdx_convert_options o = {.checkpoint = path, .output = "unused", .task = goldens[_i].task};
    sdx_model *model;
    sdx_reference *reference;
    sdx_convert_report report;
    sdx_error err = {0};
    ck_assert_msg(sdx_convert_build(&o, &model, &reference, &report, &err) == SDX_OK, "%s", err.message);
    sdx_model_close(model);
    for (int k = 0; k < CASES; k++) check_case(reference, _i, k);
    sdx_reference_free(reference);
}
END_TEST

/* ---- the graph ------------------------------------------------------------------------------------------- */

static void compare_tensors(const sdx_tensor *got, const float *golden, int64_t count)
{
    double *wide = malloc((size_t)count * sizeof *wide);
    ck_assert(wide != NULL);
    for (int64_t i = 0; i < count; i++) wide[i] = (double)((const float *)got->data)[i];
    compare(wide, golden, count);
    free(wide);
}

static void compare_sparse(const sdx_tensor *got, const sdx_tensor *golden)
{
    float *dense = make_dense(&got[0], &got[1]), *expected = make_dense(&golden[0], &golden[1]);
    compare_tensors(&(sdx_tensor){.data = dense}, expected, VOCABULARY);
    free(dense);
    free(expected);
}

/* Outputs that PyTorch's folder does not have (a pooler's, say) are not compared. */
static void run_case(const sdx_model *model, sdx_session *session, int which, int k)
{
    const char *names[MAX_VALUES];
    sdx_tensor in[MAX_VALUES], out[MAX_VALUES] = {{0}}, golden[MAX_VALUES] = {{0}};
    size_t n_in = sdx_model_input_count(model), n_out = sdx_model_output_count(model);
    ck_assert(n_in <= MAX_VALUES && n_out <= MAX_VALUES);
    for (size_t i = 0; i < n_in; i++) {
        names[i] = sdx_model_input(model, i).name;
        in[i] = read_array(which, k, "input", names[i]);
        ck_assert_msg(in[i].data != NULL, "%s", names[i]);
    }
    ck_assert_int_eq(sdx_session_run(session, n_in, names, in, n_out, out, NULL), SDX_OK);
    for (size_t i = 0; i < n_out; i++)
        golden[i] = read_array(which, k, "output", sdx_model_output(model, i).name);
    ck_assert(golden[0].data != NULL);
    bool sparse = !strcmp(goldens[which].output, "output_idx");
    if (sparse) compare_sparse(out, golden);
    for (size_t i = 0; i < n_out && !sparse; i++) {
        if (!golden[i].data) continue;
        ck_assert_int_eq(sdx_tensor_count(&out[i]), sdx_tensor_count(&golden[i]));
        compare_tensors(&out[i], golden[i].data, sdx_tensor_count(&golden[i]));
    }
    for (size_t i = 0; i < n_in; i++) sdx_tensor_free(&in[i]);
    for (size_t i = 0; i < n_out; i++) sdx_tensor_free(&golden[i]);
}

static const struct {
    int opset;
    bool as_spelled; /* each node by itself, nothing fused */
} ways[] = {{13, false}, {14, true}, {17, false}, {21, true}};
enum { N_WAYS = sizeof ways / sizeof *ways };

START_TEST(graph_is_pytorch)
{
    int which = _i / N_WAYS, way = _i % N_WAYS;
    char path[1024], file[] = "/tmp/sdx-family-XXXXXX";
    place(path, sizeof path, which, "checkpoint");
    int descriptor = mkstemp(file);
    ck_assert_int_ge(descriptor, 0);
    close(descriptor);
    const sdx_convert_options o = {.checkpoint = path,
                                   .output = file,
                                   .task = goldens[which].task,
                                   .opset = ways[way].opset,
                                   .skip_validation = true};
    const sdx_run_options how = {.no_optimize = ways[way].as_spelled};
    sdx_convert_report report;
    sdx_program *program;
    sdx_session *session;
    sdx_error err = {0};
    ck_assert_msg(sdx_convert(&o, &report, &err) == SDX_OK, "%s", err.message);
    ck_assert_msg(sdx_program_open(file, &how, &program, &err) == SDX_OK, "%s", err.message);
    ck_assert_int_eq(sdx_session_create(program, &session, NULL), SDX_OK);
    for (int k = 0; k < CASES; k++) run_case(sdx_program_model(program), session, which, k);
    sdx_session_free(session);
    sdx_program_free(program);
    unlink(file);
}
END_TEST

/* ---- random checkpoints of the same configurations ------------------------------------------------------- */

static void check_random(int which, const char *folder, sdx_dtype stored, double bar)
{
    char config[1024], output[256];
    place(config, sizeof config, which, "checkpoint/config.json");
    snprintf(output, sizeof output, "%s/model.onnx", folder);
    const sdx_synthetic_options make = {.config = config, .folder = folder, .seed = 3, .dtype = stored};
    const sdx_convert_options o = {
        .checkpoint = folder, .output = output, .task = goldens[which].task, .dtype = stored, .text = "a b, c"};
    sdx_convert_report report;
    sdx_error err = {0};
    ck_assert_msg(sdx_synthetic_write(&make, &err) == SDX_OK, "%s", err.message);
    ck_assert_msg(sdx_convert(&o, &report, &err) == SDX_OK, "%s", err.message);
    ck_assert_msg(report.max_difference < bar, "%g", report.max_difference);
}

/* What is stored as 16 bits and stays so is converted without loss, too. */
START_TEST(graph_is_the_reference)
{
    static const sdx_dtype dtypes[] = {SDX_F32, SDX_F16, SDX_BF16};
    for (int i = 0; i < 3; i++) {
        char folder[FOLDER];
        make_folder(folder);
        check_random(_i, folder, dtypes[i], 1e-4);
        remove_folder(folder);
    }
}
END_TEST

/* ---- config.json of transformers 5 ----------------------------------------------------------------------- */

static void convert_config(const char *folder, const json_t *config, char **bytes, size_t *size)
{
    char path[256];
    sdx_error err = {0};
    snprintf(path, sizeof path, "%s/config.json", folder);
    ck_assert_int_eq(json_dump_file(config, path, 0), 0);
    snprintf(path, sizeof path, "%s/model.onnx", folder);
    const sdx_convert_options o = {.checkpoint = folder, .output = path, .skip_validation = true};
    ck_assert_msg(sdx_convert(&o, NULL, &err) == SDX_OK, "%s", err.message);
    ck_assert_int_eq(sdx_file_read(path, 1 << 24, bytes, size, NULL), SDX_OK);
}

/* The bases of the rotary embeddings and the kinds of layers moved to other keys: the graph stays the same. */
START_TEST(newer_modernbert_is_the_same)
{
    char folder[FOLDER], path[1024], link[256], *old, *fresh;
    size_t n_old, n_fresh;
    make_folder(folder);
    int which = 0;
    while (strcmp(goldens[which].model, "tiny-modernbert-mlm")) which++;
    place(path, sizeof path, which, "checkpoint/config.json");
    json_t *config = json_load_file(path, 0, NULL);
    place(path, sizeof path, which, "checkpoint/model.safetensors");
    char *weights = realpath(path, NULL);
    snprintf(link, sizeof link, "%s/model.safetensors", folder);
    ck_assert(config && weights && !symlink(weights, link));
    free(weights);
    json_object_set_new(config, "local_rope_theta", json_real(500));
    convert_config(folder, config, &old, &n_old);
    json_object_del(config, "global_rope_theta");
    json_object_del(config, "local_rope_theta");
    json_object_del(config, "global_attn_every_n_layers");
    const char *full = "full_attention", *near = "sliding_attention";
    json_object_set_new(config, "layer_types", json_pack("[ssss]", full, near, near, full));
    json_object_set_new(config, "rope_parameters",
                        json_pack("{s{sfss}s{sfss}}", full, "rope_theta", 160000.0, "rope_type", "default", near,
                                  "rope_theta", 500.0, "rope_type", "default"));
    convert_config(folder, config, &fresh, &n_fresh);
    ck_assert_uint_eq(n_old, n_fresh);
    ck_assert_mem_eq(old, fresh, n_old);
    json_object_set_new(config, "layer_types", json_pack("[ssss]", full, near, full, near));
    json_array_append_new(json_object_get(config, "layer_types"), json_string(near));
    snprintf(path, sizeof path, "%s/config.json", folder);
    ck_assert_int_eq(json_dump_file(config, path, 0), 0);
    const sdx_convert_options o = {.checkpoint = folder, .output = "unused", .skip_validation = true};
    sdx_error err = {0};
    ck_assert_int_ne(sdx_convert(&o, NULL, &err), SDX_OK);
    ck_assert_msg(strstr(err.message, "at even intervals") != NULL, "%s", err.message);
    json_decref(config);
    free(old);
    free(fresh);
    remove_folder(folder);
}
END_TEST

START_TEST(narrow_storage_costs_little)
{
    char path[1024], folder[FOLDER], output[256];
    make_folder(folder);
    place(path, sizeof path, _i, "checkpoint");
    snprintf(output, sizeof output, "%s/model.onnx", folder);
    const sdx_convert_options o = {
        .checkpoint = path, .output = output, .task = goldens[_i].task, .dtype = SDX_BF16};
    sdx_convert_report report;
    sdx_error err = {0};
    ck_assert_msg(sdx_convert(&o, &report, &err) == SDX_OK, "%s", err.message);
    ck_assert_msg(report.max_difference > 0 && report.max_difference < 0.3, "%g", report.max_difference);
    remove_folder(folder);
}
END_TEST

START_TEST(bfloat16_may_not_fit_float16)
{
    char path[1024], folder[FOLDER], output[256], weights[256];
    place(path, sizeof path, 0, "checkpoint/config.json");
    make_folder(folder);
    const sdx_synthetic_options make = {.config = path, .folder = folder, .seed = 3, .dtype = SDX_BF16};
    ck_assert_int_eq(sdx_synthetic_write(&make, NULL), SDX_OK);
    snprintf(weights, sizeof weights, "%s/model.safetensors", folder);
    FILE *f = fopen(weights, "r+b");
    unsigned char length[8];
    ck_assert(f && fread(length, 1, 8, f) == 8);
    long header = (long)(length[0] | length[1] << 8 | length[2] << 16);
    const unsigned char huge[] = {0x80, 0x7f - 1}; /* 0x7e80: about 1e38, in the first matrix */
    ck_assert(!fseek(f, 8 + header, SEEK_SET) && fwrite(huge, 1, 2, f) == 2 && !fclose(f));
    snprintf(output, sizeof output, "%s/model.onnx", folder);
    const sdx_convert_options o = {.checkpoint = folder, .output = output, .dtype = SDX_F16};
    sdx_error err = {0};
    ck_assert_int_eq(sdx_convert(&o, NULL, &err), SDX_ERR_UNSUPPORTED);
    ck_assert_msg(strstr(err.message, "which float16 cannot") != NULL, "%s", err.message);
    remove_folder(folder);
}
END_TEST

#ifdef SDX_ALLOC_FAILURE
START_TEST(allocations_may_fail)
{
    char path[1024];
    place(path, sizeof path, _i, "checkpoint");
    const sdx_convert_options o = {
        .checkpoint = path, .output = "unused", .task = goldens[_i].task, .dtype = SDX_F16};
    sdx_status status = SDX_ERR_MEMORY;
    for (long n = 1; status != SDX_OK; n += 1 + n / 16) {
        sdx_model *model = NULL;
        sdx_reference *reference = NULL;
        sdx_convert_report report;
        sdx_error err = {0};
        sdx_alloc_fail_after(n);
        status = sdx_convert_build(&o, &model, &reference, &report, &err);
        sdx_alloc_fail_after(0);
        ck_assert_msg(status == SDX_OK || status == SDX_ERR_MEMORY, "allocation %ld: %s", n, err.message);
        sdx_model_close(model);
        sdx_reference_free(reference);
    }
}
END_TEST
#endif

Suite *convert_families_suite(void);
Suite *convert_families_suite(void)
{
    Suite *s = suite_create("convert_families");
    TCase *t = tcase_create("convert_families");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, reference_is_pytorch, 0, N_GOLDENS);
    tcase_add_loop_test(t, graph_is_pytorch, 0, N_GOLDENS * N_WAYS);
    tcase_add_test(t, newer_modernbert_is_the_same);
    tcase_add_loop_test(t, graph_is_the_reference, 4, N_GOLDENS);
    tcase_add_loop_test(t, narrow_storage_costs_little, 4, N_GOLDENS);
    tcase_add_test(t, bfloat16_may_not_fit_float16);
#ifdef SDX_ALLOC_FAILURE
    tcase_add_loop_test(t, allocations_may_fail, 4, N_GOLDENS);
#endif
    suite_add_tcase(s, t);
    return s;
}
