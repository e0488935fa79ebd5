/* wav2vec2.c: wav2vec 2.0 (Baevski et al. 2020, arXiv:2006.11477) and HuBERT (Hsu et al. 2021), as Hugging
 * Face's modeling_wav2vec2.py and modeling_hubert.py have them: strided convolutions over samples, a grouped
 * convolution in place of position embeddings, and transformer layers. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../base/memory.h"
#include "../encoder.h"

enum {
    CTC = SDX_OWN_PART,
    GROUP_NORM = CTC << 1,
    LAYER_NORMS = CTC << 2,
    CONV_BIAS = CTC << 3,
    PROJECTION_NORM = CTC << 4,
    NEW_NAMES = CTC << 5, /* of the weight norm's two tensors: PyTorch 2.1 renamed them */
    OLD_NAMES = CTC << 6,
    PROJECTOR = CTC << 7, /* and the classifier of whole sounds behind it */
    FRAMES = CTC << 8,    /* the classifier of frames */
    TEST_FRAMES = 8,
    MOST_SAMPLES = 1 << 22, /* for that many frames; models in use take 3000 */
};
static const double CONV_NORM_EPSILON = 1e-5; /* PyTorch's default: config.json does not reach these norms */

#define CONV     "feature_extractor.conv_layers."
#define LAYER    "encoder.layers.*."
#define POSITION "encoder.pos_conv_embed.conv"

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
    SDX_LINEAR_ROWS("lm_head", "V", "H", CTC),
    SDX_LINEAR_ROWS("projector", "E", "H", PROJECTOR),
    SDX_LINEAR_ROWS("classifier", "L", "E", PROJECTOR),
    SDX_LINEAR_ROWS("classifier", "L", "H", FRAMES),
};

static const sdx_layer_names names = {
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
    {"hidden_size", SDX_FIELD(hidden), 768, 1, 1 << 16},
    {"num_hidden_layers", SDX_FIELD(layers), 12, 1, 1 << 10},
    {"num_attention_heads", SDX_FIELD(heads), 12, 1, 1 << 10},
    {"intermediate_size", SDX_FIELD(inner), 3072, 1, 1 << 18},
    {"vocab_size", SDX_FIELD(vocab), 32, 1, 1 << 24},
    {"classifier_proj_size", SDX_FIELD(embedding), 256, 1, 1 << 16},
    {"num_conv_pos_embeddings", SDX_FIELD(kernel), 128, 1, 1 << 12},
    {"num_conv_pos_embedding_groups", SDX_FIELD(groups), 16, 1, 1 << 12},
};

/* Samples for so many frames. */
static int64_t samples_of(const sdx_settings *s, int64_t frames)
{
    for (int64_t i = s->convolutions - 1; i >= 0 && frames <= MOST_SAMPLES; i--)
        frames = (frames - 1) * s->conv_stride[i] + s->conv_kernel[i];
    return frames;
}

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
    if (s->hidden % s->groups || samples_of(s, TEST_FRAMES) > MOST_SAMPLES)
        return sdx_fail(err, SDX_ERR_FILE, "%s: the convolutions do not fit together", config->path);
    return SDX_OK;
}

static sdx_status refuse_variants(const sdx_config *config, sdx_error *err)
{
    static const char *const variants[] = {"add_adapter", "conv_pos_batch_norm", "use_weighted_layer_sum"};
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++)
        if (sdx_config_read_bool(config, variants[i], false))
            return sdx_fail(err, SDX_ERR_UNSUPPORTED, "%s: models with \"%s\" cannot be converted yet",
                            config->path, variants[i]);
    sdx_settings adapter;
    sdx_config_field width = {"adapter_attn_dim", SDX_FIELD(inner), 0, 1, 1 << 16};
    TRY(sdx_config_read_fields(config, &width, 1, &adapter, err));
    if (adapter.inner)
        return sdx_fail(err, SDX_ERR_UNSUPPORTED,
                        "%s: models with \"adapter_attn_dim\" cannot be converted yet", config->path);
    return SDX_OK;
}

static sdx_status read_settings(const sdx_config *config, sdx_settings *s, sdx_error *err)
{
    TRY(refuse_variants(config, err));
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
               (sdx_config_read_bool(config, "conv_bias", false) ? CONV_BIAS : 0);
    s->longest = TEST_FRAMES;
    return SDX_OK;
}

static sdx_shape sample(const sdx_settings *s)
{
    return sdx_shape_make(2, (sdx_dim[]){1, samples_of(s, TEST_FRAMES)});
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
    sdx_build_attr_float(b, "epsilon", CONV_NORM_EPSILON);
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
        x = sdx_build_layer_norm(b, "layer_norm", x, CONV_NORM_EPSILON);
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

/* The weight norm's magnitude g [1, 1, K] and direction v [H, D, K] by their names, new or old. */
static const char *weight_name(unsigned parts, bool magnitude)
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
    const int64_t K = s->kernel, dim[] = {s->hidden, s->hidden / s->groups, K}, count = dim[0] * dim[1] * K;
    const sdx_tensor *g = sdx_checkpoint_find(b->checkpoint, weight_name(b->parts, true));
    const sdx_tensor *v = sdx_checkpoint_find(b->checkpoint, weight_name(b->parts, false));
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

/* x [B, S, H] -> the same. PyTorch pads by K / 2 on both sides and drops the last frame if K is even. */
static sdx_id build_positions(sdx_builder *b, const sdx_settings *s, sdx_id x)
{
    const int64_t K = s->kernel, pads[] = {K / 2, K - 1 - K / 2};
    sdx_build_scope(b, "%s", "");
    sdx_id in[] = {swap_time(b, POSITION "/Transpose", x), build_position_weight(b, s),
                   sdx_build_weight(b, POSITION ".bias")};
    x = sdx_build_module_op(b, POSITION, "Conv", 3, in);
    sdx_build_attr_ints(b, "kernel_shape", 1, &K);
    sdx_build_attr_ints(b, "pads", 2, pads);
    sdx_build_attr_int(b, "group", s->groups);
    x = sdx_build_activation(b, "encoder.pos_conv_embed.activation", x, s->conv_activation);
    return swap_time(b, POSITION "/Transpose_back", x);
}

static sdx_id build_layer(sdx_builder *b, const sdx_settings *s, sdx_id x, sdx_id bias)
{
    if (s->stable_norm) return sdx_build_pre_norm_layer(b, s, &names, x, bias);
    return sdx_build_after_attention(b, s, &names, x, sdx_build_self_attention(b, s, &names, x, bias));
}

/* The encoder's norm stands in front of layers that normalize behind, and behind the others. */
static sdx_id build_body(sdx_builder *b, const sdx_settings *s)
{
    sdx_id x = build_features(
        b, s, sdx_build_input(b, "input_values", SDX_F32, 2, (int64_t[]){SDX_BATCH, SDX_SEQUENCE}));
    x = sdx_build_op2(b, "Add", "encoder/Add_positions", x, build_positions(b, s, x));
    if (!s->stable_norm) x = sdx_build_layer_norm(b, "encoder.layer_norm", x, s->norm_epsilon);
    x = sdx_build_layers(b, s, "encoder.layers.", build_layer, x, SDX_NONE);
    return s->stable_norm ? sdx_build_layer_norm(b, "encoder.layer_norm", x, s->norm_epsilon) : x;
}

static void build_model(sdx_builder *b, const sdx_settings *s)
{
    sdx_build_output(b, build_body(b, s), "last_hidden_state", SDX_F32, 3,
                     (int64_t[]){SDX_BATCH, SDX_FRAMES, s->hidden});
}

static void build_ctc(sdx_builder *b, const sdx_settings *s)
{
    sdx_build_output(b, sdx_build_linear(b, "lm_head", build_body(b, s)), "logits", SDX_F32, 3,
                     (int64_t[]){SDX_BATCH, SDX_FRAMES, s->vocab});
}

/* The mean of all frames, narrowed. */
static void build_sound_classifier(sdx_builder *b, const sdx_settings *s)
{
    sdx_id x = sdx_build_linear(b, "projector", build_body(b, s));
    x = sdx_build_reduce(b, "ReduceMean", "pooler/ReduceMean", x, 1, false);
    sdx_build_output(b, sdx_build_linear_rows(b, "classifier", x), "logits", SDX_F32, 2,
                     (int64_t[]){SDX_BATCH, s->labels});
}

static void build_frame_classifier(sdx_builder *b, const sdx_settings *s)
{
    sdx_build_output(b, sdx_build_linear(b, "classifier", build_body(b, s)), "logits", SDX_F32, 3,
                     (int64_t[]){SDX_BATCH, SDX_FRAMES, s->labels});
}

/* ---- as plain arithmetic --------------------------------------------------------------------------------- */

typedef struct convolution {
    int64_t in, out, kernel, stride, groups, pad; /* pad: in front */
} convolution;

/* y [T', out] from x [T, in], weight [out, in / groups, kernel]; bias may be NULL */
static double *convolve(sdx_forward *f, const convolution *c, const double *w, const double *bias,
                        const double *x, int64_t T, int64_t frames)
{
    int64_t in = c->in / c->groups, out = c->out / c->groups;
    double *y = sdx_forward_alloc(f, frames * c->out);
    for (int64_t o = 0; f->status == SDX_OK && o < c->out; o++) {
        for (int64_t t = 0; t < frames; t++) {
            double sum = bias ? bias[o] : 0;
            for (int64_t k = 0; k < c->kernel; k++) {
                int64_t at = t * c->stride + k - c->pad;
                if (at < 0 || at >= T) continue;
                for (int64_t i = 0; i < in; i++)
                    sum += w[(o * in + i) * c->kernel + k] * x[at * c->in + o / out * in + i];
            }
            y[t * c->out + o] = sum;
        }
    }
    return y;
}

/* Each column of x [T, C] to mean 0 and deviation 1, then scaled and shifted. */
static void forward_group_norm(sdx_forward *f, double *x, int64_t T, int64_t C)
{
    const double *scale = sdx_forward_weight(f, "layer_norm.weight"),
                 *shift = sdx_forward_weight(f, "layer_norm.bias");
    for (int64_t c = 0; f->status == SDX_OK && c < C; c++) {
        double mean = 0, variance = 0;
        for (int64_t t = 0; t < T; t++) mean += x[t * C + c] / (double)T;
        for (int64_t t = 0; t < T; t++) variance += (x[t * C + c] - mean) * (x[t * C + c] - mean) / (double)T;
        for (int64_t t = 0; t < T; t++)
            x[t * C + c] = (x[t * C + c] - mean) / sqrt(variance + CONV_NORM_EPSILON) * scale[c] + shift[c];
    }
}

/* Sets f->count to the number of frames. -> [S, H] */
static double *forward_features(sdx_forward *f, const sdx_settings *s)
{
    int64_t T = f->count;
    double *x = sdx_forward_alloc(f, T);
    for (int64_t t = 0; f->status == SDX_OK && t < T; t++) x[t] = (double)f->values[t];
    for (int64_t i = 0; i < s->convolutions; i++) {
        convolution c = {
            i ? s->conv_width[i - 1] : 1, s->conv_width[i], s->conv_kernel[i], s->conv_stride[i], 1, 0};
        int64_t frames = (T - c.kernel) / c.stride + 1;
        sdx_forward_scope(f, CONV "%d.", (int)i);
        const double *bias = f->parts & CONV_BIAS ? sdx_forward_weight(f, "conv.bias") : NULL;
        x = convolve(f, &c, sdx_forward_weight(f, "conv.weight"), bias, x, T, frames);
        T = frames;
        if (s->layer_normed)
            sdx_forward_layer_norm(f, "layer_norm", x, T, CONV_NORM_EPSILON);
        else if (i == 0)
            forward_group_norm(f, x, T, c.out);
        sdx_forward_activation(f, x, T * c.out, s->conv_activation);
    }
    f->count = T;
    sdx_forward_scope(f, "feature_projection.");
    if (s->projection_norm) sdx_forward_layer_norm(f, "layer_norm", x, T, s->norm_epsilon);
    x = sdx_forward_linear(f, "projection", x, T);
    sdx_forward_scope(f, "%s", "");
    return x;
}

/* g v / |v| as doubles; v [H, D, K] is changed. */
static const double *forward_position_weight(sdx_forward *f, const sdx_settings *s)
{
    const double *g = sdx_forward_weight(f, weight_name(f->parts, true));
    double *v = sdx_forward_weight(f, weight_name(f->parts, false));
    int64_t K = s->kernel, n = s->hidden * (s->hidden / s->groups);
    for (int64_t k = 0; f->status == SDX_OK && k < K; k++) {
        double sum = 0;
        for (int64_t i = 0; i < n; i++) sum += v[i * K + k] * v[i * K + k];
        for (int64_t i = 0; i < n; i++) v[i * K + k] *= g[k] / sqrt(sum);
    }
    return v;
}

static void forward_positions(sdx_forward *f, const sdx_settings *s, double *x)
{
    convolution c = {s->hidden, s->hidden, s->kernel, 1, s->groups, s->kernel / 2};
    const double *w = forward_position_weight(f, s), *bias = sdx_forward_weight(f, POSITION ".bias");
    double *y = convolve(f, &c, w, bias, x, f->count, f->count);
    sdx_forward_activation(f, y, f->count * s->hidden, s->conv_activation);
    sdx_forward_add(f, x, y, f->count * s->hidden);
}

static void forward_layer(sdx_forward *f, const sdx_settings *s, double *x, const double *bias)
{
    if (s->stable_norm)
        sdx_forward_pre_norm_layer(f, s, &names, x, bias);
    else
        sdx_forward_after_attention(f, s, &names, x, sdx_forward_self_attention(f, s, &names, x, bias));
}

static double *forward_body(sdx_forward *f, const sdx_settings *s)
{
    double *x = forward_features(f, s);
    forward_positions(f, s, x);
    if (!s->stable_norm) sdx_forward_layer_norm(f, "encoder.layer_norm", x, f->count, s->norm_epsilon);
    sdx_forward_layers(f, s, "encoder.layers.", forward_layer, x, NULL);
    if (s->stable_norm) sdx_forward_layer_norm(f, "encoder.layer_norm", x, f->count, s->norm_epsilon);
    return x;
}

static const double *set_result(sdx_forward *f, const double *x, int64_t width)
{
    f->rank = 2;
    f->dim[0] = f->count;
    f->dim[1] = width;
    return x;
}

static const double *forward_model(sdx_forward *f, const sdx_settings *s)
{
    const double *x = forward_body(f, s);
    return set_result(f, x, s->hidden);
}

static const double *forward_ctc(sdx_forward *f, const sdx_settings *s)
{
    const double *x = forward_body(f, s);
    return set_result(f, sdx_forward_linear(f, "lm_head", x, f->count), s->vocab);
}

static const double *forward_sound_classifier(sdx_forward *f, const sdx_settings *s)
{
    int64_t E = s->embedding;
    const double *body = forward_body(f, s), *x = sdx_forward_linear(f, "projector", body, f->count);
    double *mean = sdx_forward_alloc(f, E);
    for (int64_t i = 0; f->status == SDX_OK && i < f->count * E; i++) mean[i % E] += x[i] / (double)f->count;
    f->rank = 1;
    f->dim[0] = s->labels;
    return sdx_forward_linear(f, "classifier", mean, 1);
}

static const double *forward_frame_classifier(sdx_forward *f, const sdx_settings *s)
{
    const double *x = forward_body(f, s);
    return set_result(f, sdx_forward_linear(f, "classifier", x, f->count), s->labels);
}

/* ---- heads: a row per way to name the weight norm -------------------------------------------------------- */

#define HEAD(architecture, task, parts, builder, reference)                                                    \
    {                                                                                                          \
        architecture, task, BODY | (parts), .build = builder, .forward = reference                             \
    }
#define HEADS(architecture, task, parts, builder, reference)                                                   \
    HEAD(architecture, task, (parts) | NEW_NAMES, builder, reference),                                         \
        HEAD(architecture, task, (parts) | OLD_NAMES, builder, reference)
#define FAMILY(name, title)                                                                                    \
    static const sdx_head heads_of_##name[] = {                                                                \
        HEADS(title "ForCTC", "automatic-speech-recognition", CTC, build_ctc, forward_ctc),                    \
        HEADS(title "ForSequenceClassification", "audio-classification", PROJECTOR,                            \
              build_sound_classifier, forward_sound_classifier),                                               \
        HEADS(title "ForAudioFrameClassification", "audio-frame-classification", FRAMES,                       \
              build_frame_classifier, forward_frame_classifier),                                               \
        HEADS(title "Model", "feature-extraction", 0, build_model, forward_model),                             \
    };                                                                                                         \
    const sdx_family sdx_family_##name = {                                                                     \
        .model_type = #name,                                                                                   \
        .prefix = #name ".",                                                                                   \
        .body = ~(unsigned)(CTC | PROJECTOR | FRAMES),                                                         \
        .head = heads_of_##name,                                                                               \
        .n_head = sizeof heads_of_##name / sizeof *heads_of_##name,                                            \
        .row = rows,                                                                                           \
        .n_row = sizeof rows / sizeof *rows,                                                                   \
        .read = read_settings,                                                                                 \
        .sample = sample,                                                                                      \
    }

FAMILY(wav2vec2, "Wav2Vec2");
FAMILY(hubert, "Hubert");
