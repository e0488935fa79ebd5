/* test_convert_seq2seq.c: random checkpoints of the decoder, speech and vision families: the graph against the
 * reference at several opsets; a decoder with past against the one without; and the sentences of what is
 * refused. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../base/memory.h"
#include "../../convert/convert.h"
#include "folder_tests.h"

/* ---- the models ------------------------------------------------------------------------------------------ */

#define SPEECH(type, class)                                                                                    \
    "{\"model_type\":\"" type                                                                                  \
    "\",\"architectures\":[\"" class "\"],\"hidden_size\":24,\"num_hidden_layers\":2,\"num_attention_heads\":" \
                                     "3,"                                                                      \
                                     "\"intermediate_size\":40,\"vocab_size\":12,\"conv_dim\":[8,10,12],"      \
                                     "\"conv_kernel\":[10,3,2],"                                               \
                                     "\"conv_stride\":[5,2,2],\"num_conv_pos_embedding_groups\":4,"            \
                                     "\"initializer_range\":0.3,"
#define IMAGE_OF(type)                                                                                         \
    "{\"model_type\":\"" type "\",\"hidden_size\":24,\"num_hidden_layers\":2,\"num_attention_heads\":3,"            \
    "\"intermediate_size\":40,\"image_size\":20,\"patch_size\":6,\"initializer_range\":0.3,"
#define IMAGE IMAGE_OF("vit")
#define GPT2                                                                                                   \
    "{\"model_type\":\"gpt2\",\"n_embd\":24,\"n_layer\":2,\"n_head\":3,\"vocab_size\":240,\"n_positions\":32," \
    "\"initializer_range\":0.3,"
#define T5(type, class)                                                                                        \
    "{\"model_type\":\"" type                                                                                  \
    "\",\"architectures\":[\"" class "\"],\"d_model\":24,\"d_kv\":10,\"d_ff\":40,\"num_layers\":2,\"num_"      \
                                     "decoder_layers\":3,\"num_heads\":3,"                                     \
                                     "\"vocab_size\":240,\"relative_attention_num_buckets\":8,\"relative_"     \
                                     "attention_max_distance\":6,"
#define BART(type, class)                                                                                      \
    "{\"model_type\":\"" type                                                                                  \
    "\",\"architectures\":[\"" class "\"],\"d_model\":24,\"encoder_layers\":2,\"decoder_layers\":3,\"encoder_" \
                                     "attention_heads\":3,"                                                    \
                                     "\"decoder_attention_heads\":4,\"encoder_ffn_dim\":40,\"decoder_ffn_"     \
                                     "dim\":32,\"vocab_size\":240,"                                            \
                                     "\"max_position_embeddings\":32,\"init_std\":0.3,"

static const struct {
    const char *config, *task, *output;
} models[] = {
    {SPEECH("wav2vec2", "Wav2Vec2ForCTC") "\"feat_extract_norm\":\"group\",\"num_conv_pos_embeddings\":6}",
     "automatic-speech-recognition", "logits"},
    {SPEECH("wav2vec2", "Wav2Vec2Model") "\"feat_extract_norm\":\"layer\",\"conv_bias\":true,"
                                         "\"do_stable_layer_norm\":true,\"num_conv_pos_embeddings\":5}",
     "feature-extraction", "last_hidden_state"},
    {SPEECH("hubert", "HubertForCTC") "\"feat_proj_layer_norm\":false,\"feat_extract_activation\":\"relu\"}",
     "automatic-speech-recognition", "logits"},
    {IMAGE "\"architectures\":[\"ViTForImageClassification\"],\"num_labels\":5}", "image-classification", "logits"},
    {IMAGE "\"architectures\":[\"ViTModel\"],\"qkv_bias\":false,\"num_channels\":1}", "feature-extraction",
     "last_hidden_state"},
    {GPT2 "\"architectures\":[\"GPT2LMHeadModel\"]}", "text-generation", "logits"},
    {GPT2 "\"architectures\":[\"GPT2LMHeadModel\"],\"tie_word_embeddings\":false,\"n_inner\":50}", "text-generation",
     "logits"},
    {GPT2 "\"architectures\":[\"GPT2Model\"],\"activation_function\":\"relu\"}", "feature-extraction",
     "last_hidden_state"},
    {T5("mt5", "MT5EncoderModel") "\"feed_forward_proj\":\"gated-gelu\"}", "feature-extraction", "last_hidden_state"},
    {T5("t5", "T5ForConditionalGeneration") "\"feed_forward_proj\":\"relu\"}", "text2text-generation",
     "last_hidden_state"},
    {T5("mt5", "MT5ForConditionalGeneration") "\"feed_forward_proj\":\"gated-gelu\",\"tie_word_embeddings\":false}",
     "text2text-generation", "last_hidden_state"},
    {BART("bart", "BartForConditionalGeneration") "\"activation_function\":\"gelu\"}", "text2text-generation",
     "last_hidden_state"},
    {BART("mbart", "MBartForConditionalGeneration") "\"scale_embedding\":true,\"tie_word_embeddings\":false}",
     "text2text-generation", "last_hidden_state"},
    {BART("marian", "MarianMTModel") "\"activation_function\":\"swish\"}", "text2text-generation", "last_hidden_state"},
    {BART("bart", "BartModel") "\"activation_function\":\"gelu\"}", "text2text-generation", "last_hidden_state"},
    {BART("marian", "MarianMTModel") "\"share_encoder_decoder_embeddings\":false,\"decoder_vocab_size\":99,"
                                     "\"tie_word_embeddings\":false}",
     "text2text-generation", "last_hidden_state"},
    {BART("pegasus", "PegasusForConditionalGeneration") "\"activation_function\":\"relu\"}", "text2text-generation",
     "last_hidden_state"},
    {SPEECH("wav2vec2", "Wav2Vec2ForSequenceClassification") "\"classifier_proj_size\":9,\"num_labels\":4}",
     "audio-classification", "logits"},
    {SPEECH("wav2vec2", "Wav2Vec2ForAudioFrameClassification") "\"num_labels\":4}", "audio-frame-classification",
     "logits"},
    {"{\"model_type\":\"vit\",\"architectures\":[\"ViTModel\"],\"hidden_size\":24,\"num_hidden_layers\":1,"
     "\"num_attention_heads\":3,\"intermediate_size\":40,\"image_size\":[20,33],\"patch_size\":6,\"pooler_act\":"
     "\"gelu\","
     "\"pooler_output_size\":7,\"initializer_range\":0.3}",
     "feature-extraction", "last_hidden_state"},
    {GPT2 "\"architectures\":[\"GPT2ForSequenceClassification\"],\"num_labels\":3}", "text-classification", "logits"},
    {GPT2 "\"architectures\":[\"GPT2ForTokenClassification\"],\"num_labels\":3}", "token-classification", "logits"},
    {BART("bart", "BartForQuestionAnswering") "\"tie_word_embeddings\":false}", "question-answering", "start_logits"},
    {"{\"model_type\":\"bert\",\"architectures\":[\"BertForNextSentencePrediction\"],\"hidden_size\":24,"
     "\"num_hidden_layers\":1,\"num_attention_heads\":3,\"intermediate_size\":40,\"vocab_size\":240,"
     "\"position_embedding_type\":\"relative_key\",\"max_position_embeddings\":32,\"initializer_range\":0.3}",
     "next-sentence-prediction", "logits"},
    {"{\"model_type\":\"electra\",\"architectures\":[\"ElectraForMultipleChoice\"],\"hidden_size\":24,"
     "\"embedding_size\":10,\"num_hidden_layers\":1,\"num_attention_heads\":3,\"intermediate_size\":40,"
     "\"vocab_size\":240,\"max_position_embeddings\":32,\"initializer_range\":0.3}",
     "multiple-choice", "logits"},
    {SPEECH("wav2vec2", "Wav2Vec2ForCTC") "\"add_adapter\":true,\"num_conv_pos_embeddings\":6}",
     "automatic-speech-recognition", "logits"},
    {SPEECH("wav2vec2", "Wav2Vec2Model") "\"add_adapter\":true,\"output_hidden_size\":14,\"num_adapter_layers\":2,"
                                         "\"adapter_kernel_size\":5,\"adapter_stride\":3,\"adapter_attn_dim\":16,"
                                         "\"num_conv_pos_embeddings\":6}",
     "feature-extraction", "last_hidden_state"},
    {SPEECH("wav2vec2", "Wav2Vec2ForCTC") "\"adapter_attn_dim\":7,\"do_stable_layer_norm\":true,"
                                          "\"num_conv_pos_embeddings\":6}",
     "automatic-speech-recognition", "logits"},
    {SPEECH("hubert", "HubertForCTC") "\"conv_pos_batch_norm\":true,\"num_conv_pos_embeddings\":6}",
     "automatic-speech-recognition", "logits"},
    {SPEECH("hubert", "HubertForSequenceClassification") "\"use_weighted_layer_sum\":true,\"num_labels\":4,"
                                                         "\"classifier_proj_size\":9}",
     "audio-classification", "logits"},
    {SPEECH("wav2vec2", "Wav2Vec2ForAudioFrameClassification") "\"use_weighted_layer_sum\":true,"
                                                               "\"do_stable_layer_norm\":true}",
     "audio-frame-classification", "logits"},
    {BART("mbart", "MBartForSequenceClassification") "\"eos_token_id\":99,\"pad_token_id\":199,\"num_labels\":3}",
     "text-classification", "logits"},
    {BART("mbart", "MBartForQuestionAnswering") "\"pad_token_id\":239}", "question-answering", "start_logits"},
    {IMAGE "\"architectures\":[\"ViTForMaskedImageModeling\"],\"encoder_stride\":4}", "masked-im", "reconstruction"},
    {IMAGE_OF("deit") "\"architectures\":[\"DeiTModel\"]}", "feature-extraction", "last_hidden_state"},
    {IMAGE_OF("deit") "\"architectures\":[\"DeiTForMaskedImageModeling\"],\"encoder_stride\":6,\"num_channels\":2}",
     "masked-im", "reconstruction"},
    {IMAGE_OF("deit") "\"architectures\":[\"DeiTForImageClassificationWithTeacher\"],\"num_labels\":5}",
     "image-classification", "logits"},
};
enum { N_MODELS = sizeof models / sizeof *models, FIRST_FOLDER = 9, END_FOLDER = 17 }; /* folders: of three graphs */

static sdx_convert_report convert_with(const char *folder, sdx_convert_options o)
{
    char output[128];
    sdx_convert_report r;
    sdx_error err = {0};
    snprintf(output, sizeof output, "%s/out.onnx", folder);
    o.checkpoint = folder;
    o.output = output;
    ck_assert_msg(sdx_convert(&o, &r, &err) == SDX_OK, "%s", err.message);
    return r;
}

static sdx_convert_report convert(const char *folder, int opset, bool no_past)
{
    return convert_with(folder, (sdx_convert_options){.opset = opset, .no_past = no_past});
}

START_TEST(graph_is_reference)
{
    static const int opsets[] = {13, 17, 18};
    char folder[FOLDER];
    make_checkpoint(folder, models[_i].config);
    for (size_t i = 0; i < sizeof opsets / sizeof *opsets; i++) {
        sdx_convert_report r = convert(folder, opsets[i], false);
        ck_assert_str_eq(r.task, models[_i].task);
        ck_assert_str_eq(r.output_name, models[_i].output);
        ck_assert_uint_eq(r.graphs, _i >= FIRST_FOLDER && _i < END_FOLDER ? 3 : 1);
        ck_assert_msg(r.max_difference < 1e-4, "%s, opset %d: %g", models[_i].config, opsets[i],
                      r.max_difference);
    }
    remove_folder(folder);
}
END_TEST

/* The check runs it twice: without a past, and with that of the first run. */
START_TEST(gpt2_takes_a_past)
{
    static const char *const configs[] = {
        GPT2 "\"architectures\":[\"GPT2LMHeadModel\"]}",
        GPT2 "\"architectures\":[\"GPT2LMHeadModel\"],\"tie_word_embeddings\":false,"
             "\"scale_attn_by_inverse_layer_idx\":true}",
        GPT2 "\"architectures\":[\"GPT2LMHeadModel\"],\"scale_attn_weights\":false,\"n_inner\":50}",
    };
    char folder[FOLDER];
    make_checkpoint(folder, configs[_i]);
    sdx_convert_report r = convert_with(folder, (sdx_convert_options){.task = "text-generation-with-past"});
    ck_assert_str_eq(r.task, "text-generation-with-past");
    ck_assert_msg(r.max_difference < 1e-4, "%g", r.max_difference);
    r = convert_with(folder, (sdx_convert_options){.opset = 18});
    ck_assert_str_eq(r.task, "text-generation");
    ck_assert_msg(r.max_difference < 1e-4, "%g", r.max_difference);
    remove_folder(folder);
}
END_TEST

/* ---- decoders -------------------------------------------------------------------------------------------- */

enum { ENCODED = 5, TOKENS = 9, MOST = 64 };

typedef struct graph {
    sdx_program *program;
    sdx_session *session;
    size_t n_out;
    sdx_tensor out[MOST]; /* of the last run; the session's */
} graph;

static void open_graph(graph *g, const char *folder, const char *file)
{
    char path[256];
    const sdx_run_options o = {0};
    sdx_error err = {0};
    snprintf(path, sizeof path, "%s/out/%s.onnx", folder, file);
    ck_assert_msg(sdx_program_open(path, &o, &g->program, &err) == SDX_OK, "%s", err.message);
    ck_assert_int_eq(sdx_session_create(g->program, &g->session, &err), SDX_OK);
    g->n_out = sdx_model_output_count(sdx_program_model(g->program));
}

static void close_graph(graph *g)
{
    sdx_session_free(g->session);
    sdx_program_free(g->program);
}

/* past_key_values.X is the output present.X of the graph that ran first. */
static sdx_tensor find_past(const graph *first, const char *input)
{
    char name[64];
    snprintf(name, sizeof name, "present%s", input + strlen("past_key_values"));
    for (size_t i = 0; i < first->n_out; i++)
        if (!strcmp(sdx_model_output(sdx_program_model(first->program), i).name, name)) return first->out[i];
    ck_abort_msg("no output %s", name);
    return (sdx_tensor){0};
}

/* first: what gives the past; NULL: there is none, which a merged graph is told with empty tensors. */
static void run_graph(graph *g, const sdx_tensor *ids, const sdx_tensor *mask, const sdx_tensor *encoded,
                      const graph *first)
{
    static float nothing[1];
    bool later = first != NULL;
    const sdx_tensor branch = {.dtype = SDX_BOOL, .rank = 1, .dim = {1}, .data = &later};
    const sdx_model *model = sdx_program_model(g->program);
    const char *names[MOST];
    sdx_tensor in[MOST];
    sdx_error err = {0};
    size_t n = sdx_model_input_count(model);
    for (size_t i = 0; i < n; i++) {
        sdx_port port = sdx_model_input(model, i);
        const char *name = names[i] = port.name;
        const sdx_tensor empty = {SDX_F32, 4, {1, port.dim[1], 0, port.dim[3]}, nothing};
        in[i] = !strcmp(name, "input_ids")               ? *ids
                : !strcmp(name, "encoder_hidden_states") ? *encoded
                : !strcmp(name, "use_cache_branch")      ? branch
                : strncmp(name, "past_key_values", 15)   ? *mask
                : later                                  ? find_past(first, name)
                                                         : empty;
    }
    ck_assert_msg(sdx_session_run(g->session, n, names, in, g->n_out, g->out, &err) == SDX_OK, "%s",
                  err.message);
}

static sdx_tensor row_of(sdx_dtype dtype, int64_t count, const void *data)
{
    return (sdx_tensor){.dtype = dtype, .rank = 2, .dim = {1, count}, .data = (void *)data};
}

/* Columns [from, ..] of a against all of b, both [1, S, V]. */
static void compare_tail(const sdx_tensor *a, int64_t from, const sdx_tensor *b)
{
    int64_t V = b->dim[2], n = b->dim[1] * V;
    const float *x = (const float *)a->data + from * V, *y = b->data;
    ck_assert_int_eq(a->dim[1], from + b->dim[1]);
    for (int64_t i = 0; i < n; i++)
        ck_assert_msg(fabsf(x[i] - y[i]) <= 1e-4f * fmaxf(1, fabsf(x[i])), "%lld: %g %g", (long long)i,
                      (double)x[i], (double)y[i]);
}

static void make_tokens(int64_t *ids)
{
    for (int i = 0; i < TOKENS; i++) ids[i] = (i * 37 + 5) % 99; /* every decoder knows these */
}

/* The first tokens in one graph and the others in the other are all tokens in the first. */
START_TEST(past_is_what_came_before)
{
    char folder[FOLDER];
    int64_t ids[TOKENS], ones[ENCODED] = {1, 1, 1, 1, 1};
    make_tokens(ids);
    make_checkpoint(folder, models[_i].config);
    convert(folder, 0, false);
    graph encoder, whole, first, rest;
    open_graph(&encoder, folder, "encoder_model");
    open_graph(&whole, folder, "decoder_model");
    open_graph(&first, folder, "decoder_model");
    open_graph(&rest, folder, "decoder_with_past_model");
    sdx_tensor mask = row_of(SDX_I64, ENCODED, ones), text = row_of(SDX_I64, ENCODED, ids);
    run_graph(&encoder, &text, &mask, NULL, NULL);
    sdx_tensor all = row_of(SDX_I64, TOKENS, ids);
    run_graph(&whole, &all, &mask, encoder.out, NULL);
    for (int64_t n = 1; n < TOKENS; n += 3) { /* also past T5's last bucket */
        sdx_tensor head = row_of(SDX_I64, n, ids), tail = row_of(SDX_I64, TOKENS - n, ids + n);
        run_graph(&first, &head, &mask, encoder.out, NULL);
        run_graph(&rest, &tail, &mask, NULL, &first);
        compare_tail(&whole.out[0], n, &rest.out[0]);
    }
    close_graph(&encoder);
    close_graph(&whole);
    close_graph(&first);
    close_graph(&rest);
    remove_folder(folder);
}
END_TEST

/* Both branches of the merged graph give what the graphs they are made of do. */
START_TEST(merged_is_both)
{
    enum { HEAD = 4 };
    char folder[FOLDER];
    int64_t ids[TOKENS], ones[ENCODED] = {1, 1, 1, 1, 1};
    make_tokens(ids);
    make_checkpoint(folder, models[_i].config);
    ck_assert_uint_eq(convert_with(folder, (sdx_convert_options){.merged = true}).graphs, 4);
    graph encoder, first, rest, merged, again;
    open_graph(&encoder, folder, "encoder_model");
    open_graph(&first, folder, "decoder_model");
    open_graph(&rest, folder, "decoder_with_past_model");
    open_graph(&merged, folder, "decoder_model_merged");
    open_graph(&again, folder, "decoder_model_merged");
    sdx_tensor mask = row_of(SDX_I64, ENCODED, ones), text = row_of(SDX_I64, ENCODED, ids);
    sdx_tensor head = row_of(SDX_I64, HEAD, ids), tail = row_of(SDX_I64, TOKENS - HEAD, ids + HEAD);
    run_graph(&encoder, &text, &mask, NULL, NULL);
    run_graph(&first, &head, &mask, encoder.out, NULL);
    run_graph(&merged, &head, &mask, encoder.out, NULL);
    ck_assert_uint_eq(merged.n_out, first.n_out);
    for (size_t i = 0; i < first.n_out; i++) {
        int64_t n = sdx_tensor_count(&first.out[i]);
        ck_assert_int_eq(sdx_tensor_count(&merged.out[i]), n);
        ck_assert_mem_eq(merged.out[i].data, first.out[i].data, (size_t)n * sizeof(float));
    }
    run_graph(&rest, &tail, &mask, NULL, &first);
    run_graph(&again, &tail, &mask, encoder.out, &merged);
    compare_tail(&again.out[0], 0, &rest.out[0]);
    compare_tail(&again.out[1], 0, &rest.out[1]);
    graph *const all[] = {&encoder, &first, &rest, &merged, &again};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) close_graph(all[i]);
    remove_folder(folder);
}
END_TEST

START_TEST(folder_is_complete)
{
    static const struct {
        const char *file;
        bool without_past;
    } files[] = {{"encoder_model.onnx", true},
                 {"decoder_model.onnx", true},
                 {"config.json", true},
                 {"tokenizer_config.json", true},
                 {"decoder_with_past_model.onnx", false}};
    char folder[FOLDER], path[256];
    make_checkpoint(folder, models[FIRST_FOLDER].config);
    for (int pass = 0; pass < 2; pass++) {
        ck_assert_uint_eq(convert(folder, 0, pass == 0).graphs, pass == 0 ? 2 : 3);
        for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
            snprintf(path, sizeof path, "%s/out/%s", folder, files[i].file);
            ck_assert_msg(sdx_file_exists(path) == (pass == 1 || files[i].without_past), "%s", path);
        }
    }
    remove_folder(folder);
}
END_TEST

/* ---- refusals -------------------------------------------------------------------------------------------- */

static const struct {
    int model;
    const char *from, *to, *says;
} faults[] = {
    {0, "[10,3,2]", "[10,3]  ", "differ in length"},
    {0, "[10,3,2]", "[10,3,0]", "\"conv_kernel\" must hold whole numbers from 1 to"},
    {0, "\"group\"", "\"batch\"", "\"feat_extract_norm\" is \"batch\"; known are group and layer"},
    {0, "_groups\":4", "_groups\":5", "the convolutions do not fit together"},
    {0, "[5,2,2]", "[5,999,999]", "the convolutions do not fit together"},
    {0, "{", "{\"add_adapter\":true,", "no tensor \"adapter.layers.0.conv.weight\""},
    {0, "{", "{\"add_adapter\":true,\"adapter_kernel_size\":1024,\"adapter_stride\":1024,",
     "the convolutions do not fit together"},
    {0, "{", "{\"conv_pos_batch_norm\":true,", "no tensor \"encoder.pos_conv_embed.conv.weight\""},
    {25, "\"num_conv_pos", "\"adapter_kernel_size\":4,\"num_conv_pos", "conv.weight\" has shape [48,24,3]"},
    {33, "\"image_size\":20", "\"image_size\":[20,40]", "has shape"},
    {0, "[8,10,12]", "[8,10,13]", "feature_extractor.conv_layers.2.conv.weight\" has shape [12,10,2]"},
    {3, "patch_size\":6", "patch_size\":60", "is larger than the image's 20"},
    {3, "patch_size\":6", "patch_size\":5", "has shape"},
    {5, "{", "{\"add_cross_attention\":true,", "without cross attention only"},
    {9, "\"relu\"", "\"gated-tanh\"", "known gates are gated-gelu"},
    {9, "distance\":6", "distance\":4", "more than half the number of buckets"},
    {9, "decoder_layers\":3", "decoder_layers\":4", "no tensor \"decoder.block.3."},
    {11, "decoder_attention_heads\":4", "decoder_attention_heads\":5",
     "5 decoder attention heads do not divide"},
    {14, "{", "{\"share_encoder_decoder_embeddings\":false,", "no tensor \"encoder.embed_tokens.weight\""},
    {14, "{", "{\"decoder_vocab_size\":99,", "240 for the encoder and 99 for the decoder"},
};

START_TEST(faults_are_named)
{
    char folder[FOLDER];
    sdx_model *model;
    sdx_reference *reference;
    sdx_convert_report report;
    sdx_error err = {0};
    make_checkpoint(folder, models[faults[_i].model].config);
    edit_file(folder, "config.json", faults[_i].from, faults[_i].to);
    const sdx_convert_options o = {.checkpoint = folder, .output = "unused"};
    ck_assert_int_ne(sdx_convert_build(&o, &model, &reference, &report, &err), SDX_OK);
    ck_assert_msg(strstr(err.message, faults[_i].says) != NULL, "%s", err.message);
    remove_folder(folder);
}
END_TEST

#ifdef SDX_ALLOC_FAILURE
/* All graphs of a model, with steps that grow. */
START_TEST(allocations_may_fail)
{
    char folder[FOLDER];
    make_checkpoint(folder, models[_i].config);
    const sdx_convert_options o = {.checkpoint = folder, .output = "unused"};
    sdx_status status = SDX_ERR_MEMORY;
    for (long n = 1; status != SDX_OK; n += 1 + n / 32) {
        sdx_model *model = NULL;
        sdx_reference *reference = NULL;
        sdx_convert_report report;
        sdx_error err = {0};
        sdx_alloc_fail_after(n);
        status = sdx_convert_build(&o, &model, &reference, &report, &err);
        for (size_t i = 1; status == SDX_OK && i < report.graphs; i++) {
            sdx_model_close(model);
            model = NULL;
            status = sdx_convert_build_graph(&o, reference, i, &model, &report, &err);
        }
        sdx_alloc_fail_after(0);
        ck_assert_msg(status == SDX_OK || status == SDX_ERR_MEMORY, "allocation %ld: %s", n, err.message);
        sdx_model_close(model);
        sdx_reference_free(reference);
    }
    remove_folder(folder);
}
END_TEST
#endif

Suite *convert_seq2seq_suite(void);
Suite *convert_seq2seq_suite(void)
{
    Suite *s = suite_create("convert_seq2seq");
    TCase *t = tcase_create("convert_seq2seq");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, graph_is_reference, 0, N_MODELS);
    tcase_add_loop_test(t, gpt2_takes_a_past, 0, 3);
    tcase_add_loop_test(t, past_is_what_came_before, FIRST_FOLDER, END_FOLDER);
    tcase_add_loop_test(t, merged_is_both, FIRST_FOLDER, END_FOLDER);
    tcase_add_test(t, folder_is_complete);
    tcase_add_loop_test(t, faults_are_named, 0, sizeof faults / sizeof *faults);
#ifdef SDX_ALLOC_FAILURE
    tcase_add_loop_test(t, allocations_may_fail, 0, N_MODELS);
#endif
    suite_add_tcase(s, t);
    return s;
}
