/* wav2vec2.c: wav2vec 2.0 (Baevski et al. 2020, arXiv:2006.11477) and HuBERT (Hsu et al. 2021), as Hugging
 * Face's modeling_wav2vec2.py and modeling_hubert.py have them: strided convolutions over samples, a grouped
 * convolution in place of position embeddings, and transformer layers. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../base/memory.h"
#include "wav2vec2.h"

enum {
    TEST_FRAMES = 8,
    MOST_SAMPLES = 1 << 22, /* for that many frames; models in use take 3000 */
};

#define LAYER "encoder.layers.*."

static const sdx_tensor_row rows[] = {
    SDX_WEIGHT_ROW(CONV "%.conv", "Cck", BODY),
    SDX_BIAS_ROW(CONV "%.conv", "C", BODY | CONV_BIAS),
    SDX_NORM_ROWS(CONV "%.layer_norm", "C", BODY | LAYER_NORMS),
    SDX_NORM_ROWS(CONV "0.layer_norm", "C", BODY | GROUP_NORM),
    SDX_NORM_ROWS("feature_projection.layer_norm", "W", BODY | PROJECTION_NORM),
    SDX_LINEAR_ROWS("feature_projection.projection", "H", "W", BODY),
    {POSITION ".parametrizations.weight.original0", "UUK", SDX_FILL_NORM, BODY | NEW_NAMES},
    {POSITION ".parametrizations.weight.original1", "HDK", SDX_FILL_WEIGHT, BODY | NEW_NAMES},
    {POSITION ".weight_g", "UUK", SDX_FILL_NORM, BODY | OLD_NAMES},
    {POSITION ".weight_v", "HDK", SDX_FILL_WEIGHT, BODY | OLD_NAMES},
    SDX_WEIGHT_ROW(POSITION, "HDK", BODY | BATCH_NORM),
    SDX_NORM_ROWS(BATCH, "H", BODY | BATCH_NORM),
    {BATCH ".running_mean", "H", SDX_FILL_BIAS, BODY | BATCH_NORM},
    {BATCH ".running_var", "H", SDX_FILL_NORM, BODY | BATCH_NORM},
    SDX_BIAS_ROW(POSITION, "H", BODY),
    SDX_NORM_ROWS("encoder.layer_norm", "H", BODY),
    SDX_LINEAR_ROWS(LAYER "attention.q_proj", "H", "H", BODY),
    SDX_LINEAR_ROWS(LAYER "attention.k_proj", "H", "H", BODY),
    SDX_LINEAR_ROWS(LAYER "attention.v_proj", "H", "H", BODY),
    SDX_LINEAR_ROWS(LAYER "attention.out_proj", "H", "H", BODY),
    SDX_NORM_ROWS(LAYER "layer_norm", "H", BODY),
    SDX_LINEAR_ROWS(LAYER "feed_forward.intermediate_dense", "I", "H", BODY),
    SDX_LINEAR_ROWS(LAYER "feed_forward.output_dense", "H", "I", BODY),
    SDX_NORM_ROWS(LAYER "final_layer_norm", "H", BODY),
    SDX_NORM_ROWS(LAYER "adapter_layer.norm", "H", BODY | LAYER_ADAPTERS),
    SDX_LINEAR_ROWS(LAYER "adapter_layer.linear_1", "A", "H", BODY | LAYER_ADAPTERS),
    SDX_LINEAR_ROWS(LAYER "adapter_layer.linear_2", "H", "A", BODY | LAYER_ADAPTERS),
    SDX_LINEAR_ROWS("adapter.proj", "O", "H", BODY | ADAPTER_PROJECTION),
    SDX_NORM_ROWS("adapter.proj_layer_norm", "O", BODY | ADAPTER_PROJECTION),
    SDX_WEIGHT_ROW(ADAPTER_CONV "&.conv", "2OOB", BODY | ADAPTER),
    SDX_BIAS_ROW(ADAPTER_CONV "&.conv", "2O", BODY | ADAPTER),
    SDX_LINEAR_ROWS("lm_head", "V", "O", CTC),
    {"layer_weights", "Z", SDX_FILL_BIAS, PROJECTOR | LAYER_SUM},
    {"layer_weights", "Z", SDX_FILL_BIAS, FRAMES | LAYER_SUM},
    SDX_LINEAR_ROWS("projector", "E", "H", PROJECTOR),
    SDX_LINEAR_ROWS("classifier", "L", "E", PROJECTOR),
    SDX_LINEAR_ROWS("classifier", "L", "H", FRAMES),
};

const sdx_layer_names sdx_wav2vec2_layer = {
    .attention = "attention",
    .query = "attention.q_proj",
    .key = "attention.k_proj",
    .value = "attention.v_proj",
    .attention_out = "attention.out_proj",
    .attention_norm = "layer_norm",
    .inner = "feed_forward.intermediate_dense",
    .outer = "feed_forward.output_dense",
    .norm = "final_layer_norm",
};

/* ---- settings -------------------------------------------------------------------------------------------- */

static const sdx_config_field fields[] = {
    SDX_SIZE_FIELDS(768, 12, 12, 3072),
    {"vocab_size", SDX_FIELD(vocab), 32, 1, 1 << 24},
    {"classifier_proj_size", SDX_FIELD(embedding), 256, 1, 1 << 16},
    {"num_conv_pos_embeddings", SDX_FIELD(kernel), 128, 1, 1 << 12},
    {"num_conv_pos_embedding_groups", SDX_FIELD(groups), 16, 1, 1 << 12},
};

static sdx_status read_convolutions(const sdx_config *config, sdx_settings *s, sdx_error *err)
{
    int64_t kernels, strides;
    const char *norm = sdx_config_string(config, "feat_extract_norm");
    TRY(sdx_config_read_list(config, "conv_dim", 1, 1 << 14, s->conv_width, &s->convolutions, err));
    TRY(sdx_config_read_list(config, "conv_kernel", 1, 1 << 10, s->conv_kernel, &kernels, err));
    TRY(sdx_config_read_list(config, "conv_stride", 1, 1 << 10, s->conv_stride, &strides, err));
    if (kernels != s->convolutions || strides != s->convolutions)
        return sdx_fail(err, SDX_ERR_FILE, "%s: conv_dim, conv_kernel and conv_stride differ in length",
                        config->path);
    s->layer_normed = norm && !strcmp(norm, "layer");
    if (norm && !s->layer_normed && strcmp(norm, "group"))
        return sdx_fail(err, SDX_ERR_UNSUPPORTED,
                        "%s: \"feat_extract_norm\" is \"%.40s\"; known are group and layer", config->path,
                        norm);
    return SDX_OK;
}

static const sdx_config_field adapter_fields[] = {
    {"num_adapter_layers", SDX_FIELD(adapter_layers), 3, 1, 64},
    {"adapter_kernel_size", SDX_FIELD(adapter_kernel), 3, 1, 1 << 10},
    {"adapter_stride", SDX_FIELD(adapter_stride), 2, 1, 1 << 10},
};

/* Those behind the layers, and the one within each, which transformers makes only where norms stand in front. */
static sdx_status read_adapters(const sdx_config *config, sdx_settings *s, sdx_error *err)
{
    const sdx_config_field output = {"output_hidden_size", SDX_FIELD(output), s->hidden, 1, 1 << 16},
                           inner = {"adapter_attn_dim", SDX_FIELD(adapter), 0, 1, 1 << 16};
    TRY(sdx_config_read_fields(config, &inner, 1, s, err));
    if (s->adapter && s->stable_norm) s->parts |= LAYER_ADAPTERS;
    s->output = s->hidden;
    if (!sdx_config_read_bool(config, "add_adapter", false)) return SDX_OK;
    TRY(sdx_config_read_fields(config, &output, 1, s, err));
    TRY(sdx_config_read_fields(config, adapter_fields, sizeof adapter_fields / sizeof *adapter_fields, s, err));
    s->parts |= s->output == s->hidden ? ADAPTER : ADAPTER | ADAPTER_PROJECTION;
    return SDX_OK;
}

/* Samples for TEST_FRAMES, and for one frame behind an adapter. */
static int64_t test_samples(const sdx_settings *s)
{
    int64_t n = 1;
    for (int64_t i = 0; i < s->adapter_layers && n <= MOST_SAMPLES; i++)
        n = (n - 1) * s->adapter_stride + s->adapter_kernel - 2 * ADAPTER_PAD;
    if (n < TEST_FRAMES) n = TEST_FRAMES;
    for (int64_t i = s->convolutions - 1; i >= 0 && n <= MOST_SAMPLES; i--)
        n = (n - 1) * s->conv_stride[i] + s->conv_kernel[i];
    return n;
}

static sdx_status check_samples(const sdx_config *config, const sdx_settings *s, sdx_error *err)
{
    if (s->hidden % s->groups == 0 && test_samples(s) <= MOST_SAMPLES) return SDX_OK;
    return sdx_fail(err, SDX_ERR_FILE, "%s: the convolutions do not fit together", config->path);
}

static sdx_status read_settings(const sdx_config *config, sdx_settings *s, sdx_error *err)
{
    TRY(sdx_config_read_fields(config, fields, sizeof fields / sizeof *fields, s, err));
    TRY(sdx_config_check_heads(config, s, err));
    TRY(read_convolutions(config, s, err));
    TRY(sdx_config_read_activation(config, "hidden_act", SDX_GELU, &s->activation, err));
    TRY(sdx_config_read_activation(config, "feat_extract_activation", SDX_GELU, &s->conv_activation, err));
    TRY(sdx_config_read_real(config, "layer_norm_eps", 1e-5, 1, &s->norm_epsilon, err));
    TRY(sdx_config_read_real(config, "initializer_range", 0.02, 1, &s->initializer_range, err));
    TRY(sdx_config_read_labels(config, &s->labels, err));
    s->stable_norm = sdx_config_read_bool(config, "do_stable_layer_norm", false);
    s->projection_norm = sdx_config_read_bool(config, "feat_proj_layer_norm", true);
    s->parts = (s->layer_normed ? LAYER_NORMS : GROUP_NORM) | (s->projection_norm ? PROJECTION_NORM : 0) |
               (sdx_config_read_bool(config, "conv_bias", false) ? CONV_BIAS : 0) |
               (sdx_config_read_bool(config, "use_weighted_layer_sum", false) ? LAYER_SUM : 0);
    if (sdx_config_read_bool(config, "conv_pos_batch_norm", false)) {
        s->parts |= BATCH_NORM;
        s->without = NEW_NAMES | OLD_NAMES;
    }
    TRY(read_adapters(config, s, err));
    return check_samples(config, s, err);
}

static sdx_shape sample(const sdx_settings *s)
{
    return sdx_shape_make(2, (sdx_dim[]){1, test_samples(s)});
}

/* ---- as a graph ------------------------------------------------------------------------------------------ */

static sdx_id swap_time(sdx_builder *b, const char *label, sdx_id x)
{
    return sdx_build_transpose(b, label, x, 3, (int64_t[]){0, 2, 1});
}

/* A group per channel: each channel's samples are normalized, an instance norm. x [B, C, T] */
static sdx_id build_group_norm(sdx_builder *b, const char *name, sdx_id x)
{
    sdx_id in[] = {x, sdx_build_module_weight(b, name, "weight"), sdx_build_module_weight(b, name, "bias")};
    x = sdx_build_module_op(b, name, "InstanceNormalization", 3, in);
    sdx_build_attr_float(b, "epsilon", PLAIN_NORM_EPSILON);
    return x;
}

/* x [B, c, T] -> [B, C, T'] */
static sdx_id build_convolution(sdx_builder *b, const sdx_settings *s, int64_t i, sdx_id x)
{
    bool biased = b->parts & CONV_BIAS;
    sdx_build_scope(b, CONV "%d.", (int)i);
    sdx_id in[] = {x, sdx_build_weight(b, "conv.weight"), biased ? sdx_build_weight(b, "conv.bias") : SDX_NONE};
    x = sdx_build_op(b, "Conv", "conv/Conv", biased ? 3 : 2, in);
    sdx_build_attr_ints(b, "kernel_shape", 1, &s->conv_kernel[i]);
    sdx_build_attr_ints(b, "strides", 1, &s->conv_stride[i]);
    if (s->layer_normed) {
        x = swap_time(b, "layer_norm/Transpose", x);
        x = sdx_build_layer_norm(b, "layer_norm", x, PLAIN_NORM_EPSILON);
        x = swap_time(b, "layer_norm/Transpose_back", x);
    } else if (i == 0) {
        x = build_group_norm(b, "layer_norm", x);
    }
    return sdx_build_activation(b, "activation", x, s->conv_activation);
}

/* samples [B, T] -> [B, S, H] */
static sdx_id build_features(sdx_builder *b, const sdx_settings *s, sdx_id samples)
{
    sdx_id x = sdx_build_unsqueeze(b, "feature_extractor", samples, 1);
    for (int64_t i = 0; i < s->convolutions; i++) x = build_convolution(b, s, i, x);
    sdx_build_scope(b, "feature_projection.");
    x = swap_time(b, "Transpose", x);
    if (s->projection_norm) x = sdx_build_layer_norm(b, "layer_norm", x, s->norm_epsilon);
    return sdx_build_linear(b, "projection", x);
}

const char *sdx_wav2vec2_norm_name(unsigned parts, bool magnitude)
{
    if (parts & NEW_NAMES)
        return magnitude ? POSITION ".parametrizations.weight.original0"
                         : POSITION ".parametrizations.weight.original1";
    return magnitude ? POSITION ".weight_g" : POSITION ".weight_v";
}

/* weight[.., k] = g[k] v[.., k] / |v[.., k]|, in place of v; factor: room for [K] */
static void normalize(float *v, const float *g, double *factor, int64_t count, int64_t K)
{
    for (int64_t k = 0; k < K; k++) factor[k] = 0;
    for (int64_t i = 0; i < count; i++) factor[i % K] += (double)v[i] * (double)v[i];
    for (int64_t k = 0; k < K; k++) factor[k] = (double)g[k] / sqrt(factor[k]);
    for (int64_t i = 0; i < count; i++) v[i] = (float)((double)v[i] * factor[i % K]);
}

/* The weight the convolution multiplies with: nothing is left of the norm when training is over. */
static sdx_id build_position_weight(sdx_builder *b, const sdx_settings *s)
{
    if (b->parts & BATCH_NORM) return sdx_build_weight(b, POSITION ".weight");
    const int64_t K = s->kernel, dim[] = {s->hidden, s->hidden / s->groups, K}, count = dim[0] * dim[1] * K;
    const sdx_tensor *g = sdx_checkpoint_find(b->checkpoint, sdx_wav2vec2_norm_name(b->parts, true));
    const sdx_tensor *v = sdx_checkpoint_find(b->checkpoint, sdx_wav2vec2_norm_name(b->parts, false));
    float *weight = sdx_malloc((size_t)(count + K) * sizeof *weight), *magnitude = weight + count;
    double *factor = sdx_malloc((size_t)K * sizeof *factor);
    sdx_id id = SDX_NONE;
    if (!weight || !factor) sdx_build_fail(b, SDX_ERR_MEMORY, "out of memory");
    if (b->status == SDX_OK) {
        sdx_weight_load(v, 0, count, weight);
        sdx_weight_load(g, 0, K, magnitude);
        normalize(weight, magnitude, factor, count, K);
        id = sdx_build_constant(b, POSITION ".weight", SDX_F32, 3, dim, weight);
    }
    free(weight);
    free(factor);
    return id;
}

/* x [B, H, S]. It cannot be folded into the convolution behind it, whose zeros around the frames it does not shift. */
static sdx_id build_batch_norm(sdx_builder *b, sdx_id x)
{
    sdx_id in[] = {x, sdx_build_weight(b, BATCH ".weight"), sdx_build_weight(b, BATCH ".bias"),
                   sdx_build_weight(b, BATCH ".running_mean"), sdx_build_weight(b, BATCH ".running_var")};
    x = sdx_build_module_op(b, BATCH, "BatchNormalization", 5, in);
    sdx_build_attr_float(b, "epsilon", PLAIN_NORM_EPSILON);
    return x;
}

/* x [B, S, H] -> the same. PyTorch pads by K / 2 on both sides and drops the last frame if K is even. */
static sdx_id build_positions(sdx_builder *b, const sdx_settings *s, sdx_id x)
{
    const int64_t K = s->kernel, pads[] = {K / 2, K - 1 - K / 2};
    sdx_build_scope(b, "%s", "");
    x = swap_time(b, POSITION "/Transpose", x);
    if (b->parts & BATCH_NORM) x = build_batch_norm(b, x);
    sdx_id in[] = {x, build_position_weight(b, s), sdx_build_weight(b, POSITION ".bias")};
    x = sdx_build_module_op(b, POSITION, "Conv", 3, in);
    sdx_build_attr_ints(b, "kernel_shape", 1, &K);
    sdx_build_attr_ints(b, "pads", 2, pads);
    sdx_build_attr_int(b, "group", s->groups);
    x = sdx_build_activation(b, "encoder.pos_conv_embed.activation", x, s->conv_activation);
    return swap_time(b, POSITION "/Transpose_back", x);
}

/* The pair of layers that an adapted model has for its language, in scope of the layer. */
static sdx_id build_layer_adapter(sdx_builder *b, sdx_id x)
{
    sdx_id y = sdx_build_layer_norm(b, "adapter_layer.norm", x, PLAIN_NORM_EPSILON);
    y = sdx_build_activation(b, "adapter_layer", sdx_build_linear(b, "adapter_layer.linear_1", y), SDX_RELU);
    y = sdx_build_linear(b, "adapter_layer.linear_2", y);
    return sdx_build_module_op2(b, "adapter_layer", "Add", y, x);
}

static sdx_id build_layer(sdx_builder *b, const sdx_settings *s, sdx_id x, sdx_id bias)
{
    const sdx_layer_names *n = &sdx_wav2vec2_layer;
    if (!s->stable_norm)
        return sdx_build_after_attention(b, s, n, x, sdx_build_self_attention(b, s, n, x, bias));
    x = sdx_build_pre_norm_layer(b, s, n, x, bias);
    return b->parts & LAYER_ADAPTERS ? build_layer_adapter(b, x) : x;
}

/* The encoder's norm stands in front of layers that normalize behind, and behind the others. */
static sdx_id build_norm(sdx_builder *b, const sdx_settings *s, sdx_id x)
{
    sdx_build_scope(b, "%s", "");
    return sdx_build_layer_norm(b, "encoder.layer_norm", x, s->norm_epsilon);
}

/* What the first layer reads. */
static sdx_id build_embeddings(sdx_builder *b, const sdx_settings *s)
{
    sdx_id x = build_features(
        b, s, sdx_build_input(b, "input_values", SDX_F32, 2, (int64_t[]){SDX_BATCH, SDX_SEQUENCE}));
    x = sdx_build_op2(b, "Add", "encoder/Add_positions", x, build_positions(b, s, x));
    return s->stable_norm ? x : build_norm(b, s, x);
}

static sdx_id build_last_layer(sdx_builder *b, const sdx_settings *s)
{
    sdx_id x = sdx_build_layers(b, s, "encoder.layers.", build_layer, build_embeddings(b, s), SDX_NONE);
    return s->stable_norm ? build_norm(b, s, x) : x;
}

/* softmax of the checkpoint's weights; share: [layers + 1] */
static void load_shares(sdx_builder *b, const sdx_settings *s, float *share)
{
    double total = 0;
    float most = -INFINITY;
    sdx_weight_load(sdx_checkpoint_find(b->checkpoint, "layer_weights"), 0, s->layers + 1, share);
    for (int64_t i = 0; i <= s->layers; i++) most = fmaxf(most, share[i]);
    for (int64_t i = 0; i <= s->layers; i++) total += exp((double)(share[i] - most));
    for (int64_t i = 0; i <= s->layers; i++) share[i] = (float)(exp((double)(share[i] - most)) / total);
}

/* sum + share x; sum SDX_NONE: 0 */
static sdx_id add_share(sdx_builder *b, sdx_id sum, sdx_id x, float share)
{
    x = sdx_build_module_op2(b, "layer_weights", "Mul", x, sdx_build_real(b, (double)share));
    return sum == SDX_NONE ? x : sdx_build_module_op2(b, "layer_weights", "Add", sum, x);
}

/* A weighted sum of what the first layer reads and what each layer gives, the last one normalized: s3prl's, and
 * transformers' up to 4.57. Its 5.23 leaves out the norm that stands behind pre-norm layers. */
static sdx_id build_layer_sum(sdx_builder *b, const sdx_settings *s)
{
    float share[MOST_LAYERS + 1];
    load_shares(b, s, share);
    sdx_id x = build_embeddings(b, s), sum = add_share(b, SDX_NONE, x, share[0]);
    for (int64_t i = 1; i <= s->layers; i++) {
        sdx_build_scope(b, "encoder.layers.%d.", (int)i - 1);
        x = build_layer(b, s, x, SDX_NONE);
        if (i == s->layers && s->stable_norm) x = build_norm(b, s, x);
        sum = add_share(b, sum, x, share[i]);
    }
    sdx_build_scope(b, "%s", "");
    return sum;
}

/* What classifiers read. */
static sdx_id build_frames(sdx_builder *b, const sdx_settings *s)
{
    return b->parts & LAYER_SUM ? build_layer_sum(b, s) : build_last_layer(b, s);
}

/* A convolution whose second half of channels gates the first: x [B, O, T] -> [B, O, T'] */
static sdx_id build_adapter_layer(sdx_builder *b, const sdx_settings *s, int64_t i, sdx_id x)
{
    const int64_t pads[] = {ADAPTER_PAD, ADAPTER_PAD}, halves[] = {s->output, s->output};
    sdx_id half[2];
    sdx_build_scope(b, ADAPTER_CONV "%d.", (int)i);
    sdx_id in[] = {x, sdx_build_weight(b, "conv.weight"), sdx_build_weight(b, "conv.bias")};
    x = sdx_build_op(b, "Conv", "conv/Conv", 3, in);
    sdx_build_attr_ints(b, "kernel_shape", 1, &s->adapter_kernel);
    sdx_build_attr_ints(b, "strides", 1, &s->adapter_stride);
    sdx_build_attr_ints(b, "pads", 2, pads);
    sdx_build_split(b, "glu/Split", x, 1, 2, halves, half);
    return sdx_build_op2(b, "Mul", "glu/Mul", half[0], sdx_build_op1(b, "Sigmoid", "glu/Sigmoid", half[1]));
}

/* All frames, fewer behind an adapter: [B, S', O] */
static sdx_id build_body(sdx_builder *b, const sdx_settings *s)
{
    sdx_id x = build_last_layer(b, s);
    if (b->parts & ADAPTER_PROJECTION) {
        x = sdx_build_linear(b, "adapter.proj", x);
        x = sdx_build_layer_norm(b, "adapter.proj_layer_norm", x, PLAIN_NORM_EPSILON);
    }
    if (!(b->parts & ADAPTER)) return x;
    x = swap_time(b, "adapter/Transpose", x);
    for (int64_t i = 0; i < s->adapter_layers; i++) x = build_adapter_layer(b, s, i, x);
    sdx_build_scope(b, "%s", "");
    return swap_time(b, "adapter/Transpose_back", x);
}

static void build_model(sdx_builder *b, const sdx_settings *s)
{
    sdx_build_output(b, build_body(b, s), "last_hidden_state", SDX_F32, 3,
                     (int64_t[]){SDX_BATCH, SDX_FRAMES, s->output});
}

static void build_ctc(sdx_builder *b, const sdx_settings *s)
{
    sdx_build_output(b, sdx_build_linear(b, "lm_head", build_body(b, s)), "logits", SDX_F32, 3,
                     (int64_t[]){SDX_BATCH, SDX_FRAMES, s->vocab});
}

/* The mean of all frames, narrowed. */
static void build_sound_classifier(sdx_builder *b, const sdx_settings *s)
{
    sdx_id x = sdx_build_linear(b, "projector", build_frames(b, s));
    x = sdx_build_reduce(b, "ReduceMean", "pooler/ReduceMean", x, 1, false);
    sdx_build_output(b, sdx_build_linear_rows(b, "classifier", x), "logits", SDX_F32, 2,
                     (int64_t[]){SDX_BATCH, s->labels});
}

static void build_frame_classifier(sdx_builder *b, const sdx_settings *s)
{
    sdx_build_output(b, sdx_build_linear(b, "classifier", build_frames(b, s)), "logits", SDX_F32, 3,
                     (int64_t[]){SDX_BATCH, SDX_FRAMES, s->labels});
}

/* ---- heads: a row per way to name the weight norm -------------------------------------------------------- */

#define HEAD(architecture, task, parts, builder, reference)                                                            \
    {                                                                                                                  \
        architecture, task, BODY | (parts), .build = builder, .forward = reference                                     \
    }
#define HEADS(architecture, task, parts, builder, reference)                                                           \
    HEAD(architecture, task, (parts) | NEW_NAMES, builder, reference),                                                 \
        HEAD(architecture, task, (parts) | OLD_NAMES, builder, reference)
#define FAMILY(name, title)                                                                                            \
    static const sdx_head heads_of_##name[] = {                                                                        \
        HEADS(title "ForCTC", "automatic-speech-recognition", CTC, build_ctc, sdx_wav2vec2_forward_ctc),               \
        HEADS(title "ForSequenceClassification", "audio-classification", PROJECTOR,                                    \
              build_sound_classifier, sdx_wav2vec2_forward_sound_classifier),                                          \
        HEADS(title "ForAudioFrameClassification", "audio-frame-classification", FRAMES,                               \
              build_frame_classifier, sdx_wav2vec2_forward_frame_classifier),                                          \
        HEADS(title "Model", "feature-extraction", 0, build_model, sdx_wav2vec2_forward_model),                        \
    };                                                                                                                 \
    const sdx_family sdx_family_##name = {                                                                             \
        SDX_FAMILY(#name, #name ".", ~(unsigned)(CTC | PROJECTOR | FRAMES | LAYER_SUM), heads_of_##name,               \
                   read_settings),                                                                                     \
        .sample = sample,                                                                                              \
    }

FAMILY(wav2vec2, "Wav2Vec2");
FAMILY(hubert, "Hubert");
