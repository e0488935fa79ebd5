/* test_convert.c: conversions of random checkpoints of a tiny BERT, run and compared with the reference; and the
 * sentences of what is refused. Other families, and PyTorch's numbers: test_convert_families.c. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../base/memory.h"
#include "../../convert/convert.h"
#include "../../convert/synthetic.h"
#include "folder_tests.h"

typedef struct folder {
    char path[FOLDER], file[128];
} folder;

static const char *in(folder *d, const char *name)
{
    snprintf(d->file, sizeof d->file, "%s/%s", d->path, name);
    return d->file;
}

static char *get(const char *path, size_t *size)
{
    char *data;
    ck_assert_int_eq(sdx_file_read(path, 1 << 24, &data, size, NULL), SDX_OK);
    return data;
}

/* ---- a tiny BERT ----------------------------------------------------------------------------------------- */

enum { LAYERS = 2, VOCAB = 240 };

/* `more` adds or, as jansson refuses duplicates, never repeats keys. */
static void make_config(folder *d, const char *architecture, const char *activation, const char *more)
{
    char text[1024];
    int n = snprintf(
        text, sizeof text,
        "{\"model_type\":\"bert\",\"architectures\":[\"%s\"],\"hidden_size\":24,\"num_hidden_layers\":%d,"
        "\"num_attention_heads\":3,\"intermediate_size\":40,\"vocab_size\":%d,"
        "\"max_position_embeddings\":32,\"type_vocab_size\":2,\"initializer_range\":0.3,"
        "\"hidden_act\":\"%s\"%s}",
        architecture, LAYERS, VOCAB, activation, more);
    put_file(d->path, "config.json", text, (size_t)n);
}

static folder make_bert(const char *architecture, const char *activation, sdx_dtype dtype,
                              const char *more)
{
    folder d;
    make_folder(d.path);
    sdx_error err = {0};
    make_config(&d, architecture, activation, more);
    const sdx_synthetic_options o = {.config = d.path, .folder = d.path, .seed = 5, .dtype = dtype};
    ck_assert_msg(sdx_synthetic_write(&o, &err) == SDX_OK, "%s", err.message);
    return d;
}

static sdx_convert_report convert(folder *d, const char *output, const char *task, int opset)
{
    sdx_convert_report report;
    sdx_error err = {0};
    char path[128];
    snprintf(path, sizeof path, "%s/%s", d->path, output);
    const sdx_convert_options o = {.checkpoint = d->path, .output = path, .task = task, .opset = opset};
    ck_assert_msg(sdx_convert(&o, &report, &err) == SDX_OK, "%s", err.message);
    return report;
}

/* ---- graphs compute what the reference does -------------------------------------------------------------- */

static const struct {
    const char *architecture, *task, *says, *output;
    int64_t nodes, nodes17, nodes20; /* LayerNormalization came with opset 17, Gelu with 20 */
} models[] = {
    {"BertModel", NULL, "feature-extraction", "last_hidden_state", 126, 86, 78},
    {"BertForMaskedLM", "auto", "fill-mask", "logits", 141, 93, 81},
    {"BertForMaskedLM", "sparse", "sparse", "output_weights", 152, 104, 92},
    {"BertForMaskedLM", "feature-extraction", "feature-extraction", "last_hidden_state", 123, 83, 75},
    {"BertForSequenceClassification", NULL, "text-classification", "logits", 127, 87, 79},
};
enum { N_MODELS = sizeof models / sizeof *models };

START_TEST(every_task_in_every_opset)
{
    int opset = 13 + _i / N_MODELS, m = _i % N_MODELS;
    folder d = make_bert(models[m].architecture, "gelu", SDX_F32, "");
    sdx_convert_report r = convert(&d, "model.onnx", models[m].task, opset);
    ck_assert_str_eq(r.model_type, "bert");
    ck_assert_str_eq(r.task, models[m].says);
    ck_assert_str_eq(r.output_name, models[m].output);
    int64_t nodes = opset < 17 ? models[m].nodes : opset < 20 ? models[m].nodes17 : models[m].nodes20;
    ck_assert_int_eq((int64_t)r.nodes, nodes);
    ck_assert_msg(r.l1_difference < 1e-5 && r.max_difference < 1e-4, "opset %d: %g %g", opset, r.l1_difference,
                  r.max_difference);
    sdx_model *model;
    ck_assert_int_eq(sdx_model_open(in(&d, "model.onnx"), &model, NULL), SDX_OK);
    ck_assert_int_eq(sdx_model_opset(model, ""), opset);
    ck_assert_int_eq(model->ir_version, opset <= 14 ? 7 : opset <= 18 ? 8 : opset <= 20 ? 9 : 10);
    ck_assert_int_eq(model->n_opset, 1);
    ck_assert_str_eq(sdx_model_metadata(model, "model_type"), "bert");
    ck_assert_str_eq(sdx_model_metadata(model, "num_heads"), "3");
    ck_assert_str_eq(sdx_model_metadata(model, "hidden_size"), "24");
    ck_assert_str_eq(sdx_model_input(model, 0).name, "input_ids");
    ck_assert_str_eq(sdx_model_input(model, 1).name, "attention_mask");
    ck_assert_str_eq(sdx_model_input(model, 2).name, "token_type_ids");
    sdx_model_close(model);
    remove_folder(d.path);
}
END_TEST

START_TEST(every_activation_and_dtype)
{
    static const char *const activations[] = {"gelu", "gelu_pytorch_tanh", "relu", "silu", "tanh", "quick_gelu",
                                              "sigmoid", "mish", "relu6", "relu2", "leaky_relu", "linear"};
    enum { N = sizeof activations / sizeof *activations };
    static const sdx_dtype dtypes[] = {SDX_F32, SDX_F16, SDX_BF16};
    folder d = make_bert("BertForMaskedLM", activations[_i % N], dtypes[_i / N], "");
    sdx_convert_report r = convert(&d, "model.onnx", NULL, 0);
    ck_assert_msg(r.max_difference < 1e-4, "%g", r.max_difference);
    remove_folder(d.path);
}
END_TEST

START_TEST(untied_output_matrix)
{
    folder d = make_bert("BertForMaskedLM", "gelu", SDX_F32, ",\"tie_word_embeddings\":false");
    size_t size;
    char *bytes = get(in(&d, "model.safetensors"), &size);
    ck_assert(strstr(bytes + 8, "\"cls.predictions.decoder.weight\"") != NULL);
    free(bytes);
    ck_assert(convert(&d, "model.onnx", NULL, 0).max_difference < 1e-4);
    remove_folder(d.path);
}
END_TEST

/* Replaces text of the header by text of the same length. */
static void edit_header(folder *d, const char *from, const char *to)
{
    size_t size, changes = 0;
    char *bytes = get(in(d, "model.safetensors"), &size);
    ck_assert_uint_eq(strlen(from), strlen(to));
    for (char *p = bytes + 8; (p = strstr(p, from)); changes++) memcpy(p, to, strlen(to));
    ck_assert_uint_gt(changes, 0);
    put_file(d->path, "model.safetensors", bytes, size);
    free(bytes);
}

START_TEST(old_names_and_missing_prefix)
{
    folder d = make_bert("BertForMaskedLM", "gelu", SDX_F32, "");
    convert(&d, "model.onnx", NULL, 0);
    edit_header(&d, "LayerNorm.weight\"", "LayerNorm.gamma\" ");
    edit_header(&d, "LayerNorm.bias\"", "LayerNorm.beta\"");
    edit_header(&d, "\"bert.encoder", "     \"encoder");
    convert(&d, "second.onnx", NULL, 0);
    size_t n, m;
    char *first = get(in(&d, "model.onnx"), &n), *second = get(in(&d, "second.onnx"), &m);
    ck_assert(n == m && !memcmp(first, second, n)); /* and so are two runs on the same input */
    free(first);
    free(second);
    remove_folder(d.path);
}
END_TEST

typedef struct watched {
    size_t calls, finished;
    uint64_t done;
    bool sound;
} watched;

static void watch(void *context, uint64_t done, uint64_t total)
{
    watched *w = context;
    w->sound &= done >= w->done && done <= total;
    w->finished += done == total;
    w->done = done;
    w->calls++;
}

START_TEST(progress_is_told)
{
    folder d = make_bert("BertModel", "gelu", SDX_F32, "");
    char model[128];
    snprintf(model, sizeof model, "%s/model.onnx", d.path);
    watched w = {.sound = true};
    const sdx_convert_options o = {.checkpoint = d.path,
                                   .output = model,
                                   .external_data = _i,
                                   .skip_validation = true,
                                   .progress = watch,
                                   .progress_context = &w};
    sdx_error err = {0};
    ck_assert_msg(sdx_convert(&o, NULL, &err) == SDX_OK, "%s", err.message);
    ck_assert(w.sound && w.calls > 10);
    ck_assert_uint_eq(w.finished, 1);
    size_t n, m = 0;
    free(get(model, &n));
    if (_i) free(get(in(&d, "model.onnx.data"), &m));
    ck_assert_uint_eq(w.done, n + m);
    remove_folder(d.path);
}
END_TEST

START_TEST(vocabulary_and_external_data)
{
    folder d = make_bert("BertModel", "gelu", SDX_F32, "");
    char model[128], list[128];
    snprintf(model, sizeof model, "%s/model.onnx", d.path);
    snprintf(list, sizeof list, "%s/list.txt", d.path);
    const sdx_convert_options o = {
        .checkpoint = d.path, .output = model, .vocabulary = list, .text = "a b c", .external_data = true};
    sdx_convert_report r;
    sdx_error err = {0};
    ck_assert_msg(sdx_convert(&o, &r, &err) == SDX_OK, "%s", err.message);
    ck_assert(r.max_difference < 1e-4);
    ck_assert(sdx_file_exists(in(&d, "model.onnx.data")));
    size_t n, m;
    char *from = get(in(&d, "vocab.txt"), &n), *to = get(list, &m);
    ck_assert(n == m && !memcmp(from, to, n));
    free(from);
    free(to);
    remove_folder(d.path);
}
END_TEST

/* ---- refusals -------------------------------------------------------------------------------------------- */

static const struct {
    const char *from, *to; /* in config.json */
    const char *task;
    int opset;
    const char *says;
} faults[] = {
    {"\"bert\"", "\"yeti\"", NULL, 0, "type \"yeti\" cannot be converted yet; known types: bert, distilbert, roberta"},
    {"BertModel", "BertModal", NULL, 0, "\"BertModal\" is unknown; known are BertModel (feature-extraction)"},
    {"architectures", "architectuurs", NULL, 0, "the task must be given"},
    {"\"gelu\"", "\"maxout\"", NULL, 0, "\"hidden_act\" is \"maxout\"; known are gelu"},
    {"hidden_size\":24", "hidden_size\":30", NULL, 0, "embeddings.word_embeddings.weight\" has shape [240,24]"},
    {"hidden_size\":24", "hidden_size\":25", NULL, 0, "3 attention heads do not divide the hidden size 25"},
    {"intermediate_size\":40", "intermediate_size\":41", NULL, 0,
     "\"encoder.layer.0.intermediate.dense.weight\" has shape [40,24] where config.json makes it [41,24]"},
    {"num_hidden_layers\":2", "num_hidden_layers\":3", NULL, 0,
     "no tensor \"encoder.layer.2.attention.self.query.weight\""},
    {"vocab_size\":240,", "vocab_size\":-24,", NULL, 0, "\"vocab_size\" must be a whole number from 1 to"},
    {"\"vocab_size\"", "\"vocal_size\"", NULL, 0, "has no \"vocab_size\""},
    {"vocab_size\":240,", "vocab_size\":99999999999999999999999,", NULL, 0, "config.json: line"},
    {"{", "{\"position_embedding_type\":\"rotary\",", NULL, 0, "is \"rotary\"; known are absolute"},
    {"{", "{", "fill-mask", 0, "no tensor \"cls.predictions.transform.dense.weight\""},
    {"{", "{", "translation", 0, "no task \"translation\" for models of type \"bert\"; there are BertModel"},
    {"{", "{", "text-classification!", 0, "no task \"text-classification!\""},
    {"{", "{", NULL, 22, "opset 22 is not offered; choose one from 13 to 21"},
};

START_TEST(faults_are_named)
{
    folder d = make_bert("BertModel", "gelu", SDX_F32, "");
    edit_file(d.path, "config.json", faults[_i].from, faults[_i].to);
    const sdx_convert_options o = {
        .checkpoint = d.path, .output = "unused", .task = faults[_i].task, .opset = faults[_i].opset};
    sdx_model *model;
    sdx_reference *reference;
    sdx_convert_report report;
    sdx_error err = {0};
    ck_assert_int_ne(sdx_convert_build(&o, &model, &reference, &report, &err), SDX_OK);
    ck_assert_msg(strstr(err.message, faults[_i].says) != NULL, "\"%s\" lacks \"%s\"", err.message,
                  faults[_i].says);
    remove_folder(d.path);
}
END_TEST

START_TEST(splade_needs_a_masked_lm)
{
    folder d = make_bert("BertModel", "gelu", SDX_F32, "");
    const sdx_convert_options o = {
        .checkpoint = d.path, .output = "unused", .task = "feature-extraction", .splade = true};
    sdx_error err = {0};
    ck_assert_int_eq(sdx_convert(&o, NULL, &err), SDX_ERR_USAGE);
    ck_assert(strstr(err.message, "masked language model") != NULL);
    remove_folder(d.path);
}
END_TEST

START_TEST(nothing_is_written_on_failure)
{
    folder d = make_bert("BertModel", "gelu", SDX_F32, "");
    char path[128];
    snprintf(path, sizeof path, "%s/model.onnx", d.path);
    const sdx_convert_options o = {.checkpoint = d.path, .output = path, .task = "fill-mask"};
    ck_assert_int_ne(sdx_convert(&o, NULL, NULL), SDX_OK);
    ck_assert(!sdx_file_exists(path));
    remove_folder(d.path);
}
END_TEST

START_TEST(tokens_outside_the_vocabulary)
{
    folder d = make_bert("BertModel", "gelu", SDX_F32, "");
    const sdx_convert_options o = {.checkpoint = d.path, .output = "unused"};
    sdx_model *model;
    sdx_reference *reference;
    sdx_reference_result result;
    sdx_convert_report report;
    sdx_error err = {0};
    ck_assert_int_eq(sdx_convert_build(&o, &model, &reference, &report, &err), SDX_OK);
    sdx_model_close(model);
    ck_assert_int_eq(sdx_reference_run(reference, 1, (int64_t[]){VOCAB}, (int64_t[]){0}, &result, &err),
                     SDX_ERR_USAGE);
    ck_assert(strstr(err.message, "240 is no row of embeddings.word_embeddings") != NULL);
    sdx_reference_free(reference);
    remove_folder(d.path);
}
END_TEST

#ifdef SDX_ALLOC_FAILURE
/* With an error record and without. Steps grow, so that the many allocations of the later stages do not make
 * the test long. */
START_TEST(allocations_may_fail)
{
    folder d = make_bert("BertForMaskedLM", "gelu", SDX_F32, "");
    const sdx_convert_options o = {.checkpoint = d.path, .output = "unused", .splade = true};
    sdx_status status = SDX_ERR_MEMORY;
    for (long n = 1; status != SDX_OK; n += 1 + n / 64) {
        sdx_model *model = NULL;
        sdx_reference *reference = NULL;
        sdx_convert_report report;
        sdx_error err = {0};
        sdx_alloc_fail_after(n);
        status = sdx_convert_build(&o, &model, &reference, &report, n % 2 ? &err : NULL);
        sdx_alloc_fail_after(0);
        ck_assert_msg(status == SDX_OK || status == SDX_ERR_MEMORY, "allocation %ld: %s", n, err.message);
        sdx_model_close(model);
        sdx_reference_free(reference);
    }
    remove_folder(d.path);
}
END_TEST
#endif

Suite *convert_suite(void);
Suite *convert_suite(void)
{
    Suite *s = suite_create("convert");
    TCase *t = tcase_create("convert");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, every_task_in_every_opset, 0, 9 * N_MODELS);
    tcase_add_loop_test(t, every_activation_and_dtype, 0, 36);
    tcase_add_test(t, untied_output_matrix);
    tcase_add_test(t, old_names_and_missing_prefix);
    tcase_add_loop_test(t, progress_is_told, 0, 2);
    tcase_add_test(t, vocabulary_and_external_data);
    tcase_add_loop_test(t, faults_are_named, 0, sizeof faults / sizeof *faults);
    tcase_add_test(t, splade_needs_a_masked_lm);
    tcase_add_test(t, nothing_is_written_on_failure);
    tcase_add_test(t, tokens_outside_the_vocabulary);
#ifdef SDX_ALLOC_FAILURE
    tcase_add_test(t, allocations_may_fail);
#endif
    suite_add_tcase(s, t);
    return s;
}
