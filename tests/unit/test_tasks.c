/* test_tasks.c: the tasks through the public header: what their answers look like, whose they are, and that a text's
 * neighbours do not change them. That the numbers are right is tests/models/tasks_check.py's to say. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../include/sardonyx.h"
#include "folder_tests.h"

#define FINE(call)                                                                                                     \
    do {                                                                                                               \
        sdx_error err = {0};                                                                                           \
        ck_assert_msg((call) == SDX_OK, "%s", err.message);                                                            \
    } while (0)
#define TEXT(s) {s, sizeof s - 1}

static const sdx_text texts[] = {TEXT("what is AI?"), TEXT("a second text, which is longer than the first one")};
enum { N = sizeof texts / sizeof *texts };

/* A folder of tests/data/zoo; static buffer. */
static const char *zoo(const char *name)
{
    static char path[512];
    const char *data = getenv("SDX_TEST_DATA");
    snprintf(path, sizeof path, "%s/zoo/%s/checkpoint", data ? data : "tests/data", name);
    return path;
}

/* ---- from checkpoints of the repository ------------------------------------------------------------------ */

START_TEST(embedder)
{
    sdx_embedder *e;
    sdx_error wrong = {0};
    FINE(sdx_embedder_open(&(sdx_task_options){.model = zoo("bert-model")}, &e, &err));
    size_t dim = sdx_embedder_dim(e);
    ck_assert_uint_eq(dim, 64);
    float both[N * 64], alone[64], prompted[64];
    FINE(sdx_embedder_run(e, texts, N, both, &err));
    FINE(sdx_embedder_run(e, &texts[1], 1, alone, &err));
    ck_assert_mem_eq(alone, both + dim, sizeof alone);
    FINE(sdx_embedder_set_prompt(e, NULL, "query: ", &err));
    FINE(sdx_embedder_run(e, &texts[1], 1, prompted, &err));
    ck_assert_mem_ne(prompted, alone, sizeof alone);
    FINE(sdx_embedder_set_prompt(e, NULL, NULL, &err));
    FINE(sdx_embedder_run(e, &texts[1], 1, prompted, &err));
    ck_assert_mem_eq(prompted, alone, sizeof alone);
    ck_assert_int_eq(sdx_embedder_set_prompt(e, "no such prompt", NULL, &wrong), SDX_ERR_USAGE);
    sdx_embedder_free(e);
}
END_TEST

START_TEST(classifier)
{
    enum { LABELS = 5 };
    sdx_classifier *c;
    FINE(sdx_classifier_open(&(sdx_task_options){.model = zoo("bert-classify-bin")}, &c, &err));
    ck_assert_uint_eq(sdx_classifier_label_count(c), LABELS);
    ck_assert_str_eq(sdx_classifier_label(c, 4), "LABEL_4");
    float both[N * LABELS], alone[LABELS], paired[N * LABELS];
    FINE(sdx_classifier_run(c, texts, NULL, N, both, &err));
    FINE(sdx_classifier_run(c, &texts[1], NULL, 1, alone, &err));
    ck_assert_mem_eq(alone, both + LABELS, sizeof alone);
    double sum = 0;
    for (int i = 0; i < LABELS; i++) sum += (double)alone[i];
    ck_assert_double_eq_tol(sum, 1, 1e-6);
    /* a pair for the first text alone */
    FINE(sdx_classifier_run(c, texts, (sdx_text[N]){TEXT("its pair")}, N, paired, &err));
    ck_assert_mem_ne(paired, both, sizeof alone);
    ck_assert_mem_eq(paired + LABELS, alone, sizeof alone);
    sdx_classifier_free(c);
}
END_TEST

START_TEST(sparse_encoder)
{
    sdx_sparse_encoder *e;
    sdx_sparse_vector v[N];
    FINE(sdx_sparse_encoder_open(&(sdx_task_options){.model = zoo("bert-splade")}, &e, &err));
    FINE(sdx_sparse_encoder_run(e, texts, N, v, &err));
    const sdx_tokenizer *t = sdx_sparse_encoder_tokenizer(e);
    for (int i = 0; i < N; i++) {
        ck_assert_uint_gt(v[i].count, 0);
        for (size_t k = 0; k < v[i].count; k++) {
            ck_assert_float_gt(v[i].weight[k], 0);
            ck_assert_ptr_nonnull(sdx_tokenizer_token(t, v[i].index[k]));
            ck_assert(k == 0 || v[i].index[k] > v[i].index[k - 1]);
        }
    }
    for (int64_t id = 0; id < (int64_t)sdx_tokenizer_vocab_size(t); id++) {
        const char *token = sdx_tokenizer_token(t, id);
        bool frame = !strcmp(token, "[CLS]") || !strcmp(token, "[SEP]") || !strcmp(token, "[PAD]");
        ck_assert_int_eq(sdx_sparse_encoder_is_frame(e, id), frame);
    }
    sdx_sparse_encoder_free(e);
}
END_TEST

/* ---- from checkpoints made here -------------------------------------------------------------------------- */

START_TEST(generator)
{
    char folder[FOLDER];
    sdx_generator *g;
    sdx_generated out[N];
    make_checkpoint(
        folder, "{\"model_type\":\"t5\",\"architectures\":[\"T5ForConditionalGeneration\"],\"d_model\":32,\"d_ff\":64,"
                "\"d_kv\":8,\"num_heads\":4,\"num_layers\":2,\"num_decoder_layers\":2,\"vocab_size\":1600,"
                "\"is_encoder_decoder\":true,\"decoder_start_token_id\":0,\"eos_token_id\":1,\"pad_token_id\":0}");
    FINE(sdx_copy_companions(zoo("t5"), folder, &err));
    FINE(sdx_generator_open(&(sdx_task_options){.model = folder}, &g, &err));
    sdx_generate_options o = sdx_generator_defaults(g);
    ck_assert_uint_eq(o.num_beams, 1);
    o.max_new_tokens = 5;
    FINE(sdx_generator_run(g, &o, texts, N, out, &err));
    ck_assert_uint_le(out[1].count, 6);
    ck_assert_int_eq(out[1].ids[0], 0);
    int64_t both[8];
    size_t count = out[1].count;
    memcpy(both, out[1].ids, count * sizeof *both);
    FINE(sdx_generator_run(g, &o, &texts[1], 1, out, &err));
    ck_assert_uint_eq(out[0].count, count);
    ck_assert_mem_eq(out[0].ids, both, count * sizeof *both);
    char *said;
    FINE(sdx_tokenizer_decode(sdx_generator_tokenizer(g), out[0].ids, out[0].count, true, &said, NULL, &err));
    free(said);
    sdx_generator_free(g);
    remove_folder(folder);
}
END_TEST

/* Without and with an adapter, which leaves a frame for four. */
START_TEST(transcriber)
{
    static const char vocab[] = "{\"<pad>\":0,\"<s>\":1,\"</s>\":2,\"<unk>\":3,\"|\":4,\"A\":5,\"B\":6}",
                      rate[] = "{\"sampling_rate\":16000,\"do_normalize\":true}";
    char folder[FOLDER];
    sdx_transcriber *t;
    sdx_transcript said;
    const char *adapter = _i ? "\"add_adapter\":true,\"num_adapter_layers\":2," : "";
    char config[512];
    snprintf(config, sizeof config,
             "{\"model_type\":\"wav2vec2\",\"architectures\":[\"Wav2Vec2ForCTC\"],%s\"hidden_size\":32,"
             "\"num_hidden_layers\":2,\"num_attention_heads\":4,\"intermediate_size\":48,\"vocab_size\":7,"
             "\"conv_dim\":[32,32],\"conv_kernel\":[10,3],\"conv_stride\":[5,2],\"num_feat_extract_layers\":2,"
             "\"num_conv_pos_embeddings\":6,\"num_conv_pos_embedding_groups\":2,\"pad_token_id\":0}",
             adapter);
    make_checkpoint(folder, config);
    put_file(folder, "vocab.json", vocab, sizeof vocab - 1);
    put_file(folder, "preprocessor_config.json", rate, sizeof rate - 1);
    FINE(sdx_transcriber_open(&(sdx_task_options){.model = folder}, &t, &err));
    float samples[4000];
    for (int i = 0; i < 4000; i++) samples[i] = sinf((float)(i * i) * 1e-4f);
    FINE(sdx_transcriber_run(t, &(sdx_transcribe_options){.num_beams = 2}, samples, 4000, 16000, &said, &err));
    ck_assert_uint_eq(said.length, strlen(said.text));
    for (size_t i = 0; i < said.words; i++)
        ck_assert(said.word[i].start <= said.word[i].end && said.word[i].end <= 0.25);
    ck_assert_uint_gt(said.characters, 0);
    ck_assert_double_gt(said.character[said.characters - 1].end, 0.2); /* the last of 0.25 s */
    sdx_transcript_free(&said);
    sdx_transcriber_free(t);
    remove_folder(folder);
}
END_TEST

/* ---- refusals -------------------------------------------------------------------------------------------- */

/* A model without the outputs that the task needs; and nothing comes out. */
START_TEST(wrong_model)
{
    sdx_error err = {0};
    sdx_task_options o = {.model = zoo("bert-model")};
    sdx_classifier *c = NULL;
    sdx_sparse_encoder *s = NULL;
    sdx_generator *g = NULL;
    sdx_transcriber *t = NULL;
    ck_assert_int_eq(sdx_classifier_open(&o, &c, &err), SDX_ERR_UNSUPPORTED);
    ck_assert_int_eq(sdx_sparse_encoder_open(&o, &s, &err), SDX_ERR_UNSUPPORTED);
    ck_assert_int_eq(sdx_generator_open(&o, &g, &err), SDX_ERR_UNSUPPORTED);
    ck_assert_int_eq(sdx_transcriber_open(&o, &t, &err), SDX_ERR_UNSUPPORTED);
    ck_assert(!c && !s && !g && !t);
    ck_assert_int_eq(sdx_embedder_open(&(sdx_task_options){.model = "/nowhere"}, &(sdx_embedder *){0}, NULL),
                     SDX_ERR_FILE);
}
END_TEST

START_TEST(free_takes_null)
{
    sdx_model_close(NULL);
    sdx_program_free(NULL);
    sdx_session_free(NULL);
    sdx_tokenizer_free(NULL);
    sdx_embedder_free(NULL);
    sdx_sparse_encoder_free(NULL);
    sdx_classifier_free(NULL);
    sdx_generator_free(NULL);
    sdx_transcriber_free(NULL);
}
END_TEST

/* ---- about ----------------------------------------------------------------------------------------------- */

START_TEST(about_the_build)
{
    ck_assert_ptr_nonnull(strstr(sdx_build_flags(), "MODE="));
    const char *cap = getenv("SARDONYX_ISA");
    bool scalar = cap && !strcmp(cap, "scalar");
    if (!cap || scalar) ck_assert_str_eq(sdx_used_isa(), scalar ? cap : sdx_cpu_isa());
}
END_TEST

/* What a program and its model say of themselves. */
START_TEST(about_a_program)
{
    sdx_program *p;
    char *text, path[600];
    snprintf(path, sizeof path, "%s/../torchscript-op14.onnx", zoo("bert-model"));
    FINE(sdx_program_open(path, NULL, &p, &err));
    const sdx_model *model = sdx_program_model(p);
    ck_assert(!sdx_model_is_random(model) && !sdx_model_mixes_rows(model));
    FINE(sdx_model_inspect_html(model, NULL, &text, &err));
    ck_assert_ptr_nonnull(strstr(text, "<html"));
    free(text);
    const char *names[] = {"input_ids", "attention_mask", "token_type_ids"};
    sdx_tensor inputs[3];
    for (int i = 0; i < 3; i++) inputs[i] = (sdx_tensor){SDX_I64, 2, {1, 8}, NULL};
    FINE(sdx_program_describe_plan(p, 3, names, inputs, true, &text, &err));
    ck_assert_ptr_nonnull(strstr(text, "\"buffer_bytes\""));
    free(text);
    sdx_program_free(p);
}
END_TEST

Suite *tasks_suite(void)
{
    Suite *s = suite_create("tasks");
    TCase *t = tcase_create("tasks");
    tcase_add_test(t, embedder);
    tcase_add_test(t, classifier);
    tcase_add_test(t, sparse_encoder);
    tcase_add_test(t, generator);
    tcase_add_loop_test(t, transcriber, 0, 2);
    tcase_add_test(t, wrong_model);
    tcase_add_test(t, free_takes_null);
    tcase_add_test(t, about_the_build);
    tcase_add_test(t, about_a_program);
    suite_add_tcase(s, t);
    return s;
}
