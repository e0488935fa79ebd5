/* t5.c: T5 (Raffel et al. 2019, arXiv:1910.10683), its version 1.1 (Shazeer 2020, arXiv:2002.05202) and mT5, as
 * Hugging Face's modeling_t5.py has them: relative positions are a bias of all layers' attention, norms only
 * scale, scores are not divided. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../base/memory.h"
#include "../seq2seq.h"

enum {
    PLAIN = SDX_OWN_PART,
    GATED = PLAIN << 1,
    STACK = PLAIN << 2, /* the decoder */
};

#define ENCODER_LAYER "encoder.block.*."
#define DECODER_LAYER "decoder.block.#."
#define ATTENTION_ROWS(name, part)                                                                             \
    SDX_WEIGHT_ROW(name ".q", "QH", part), SDX_WEIGHT_ROW(name ".k", "QH", part),                              \
        SDX_WEIGHT_ROW(name ".v", "QH", part), SDX_WEIGHT_ROW(name ".o", "HQ", part)
#define SCALE_ROW(name, part)                                                                                  \
    {                                                                                                          \
        name ".weight", "H", SDX_FILL_NORM, part                                                               \
    }
#define FEED_FORWARD_ROWS(name, part)                                                                          \
    SDX_WEIGHT_ROW(name ".wi", "IH", (part) | PLAIN), SDX_WEIGHT_ROW(name ".wi_0", "IH", (part) | GATED),      \
        SDX_WEIGHT_ROW(name ".wi_1", "IH", (part) | GATED), SDX_WEIGHT_ROW(name ".wo", "HI", part)

static const sdx_tensor_row rows[] = {
    SDX_WEIGHT_ROW("shared", "VH", BODY),
    SDX_WEIGHT_ROW("encoder.block.0.layer.0.SelfAttention.relative_attention_bias", "RN", BODY),
    ATTENTION_ROWS(ENCODER_LAYER "layer.0.SelfAttention", BODY),
    SCALE_ROW(ENCODER_LAYER "layer.0.layer_norm", BODY),
    FEED_FORWARD_ROWS(ENCODER_LAYER "layer.1.DenseReluDense", BODY),
    SCALE_ROW(ENCODER_LAYER "layer.1.layer_norm", BODY),
    SCALE_ROW("encoder.final_layer_norm", BODY),
    SDX_WEIGHT_ROW("decoder.block.0.layer.0.SelfAttention.relative_attention_bias", "RN", STACK),
    ATTENTION_ROWS(DECODER_LAYER "layer.0.SelfAttention", STACK),
    SCALE_ROW(DECODER_LAYER "layer.0.layer_norm", STACK),
    ATTENTION_ROWS(DECODER_LAYER "layer.1.EncDecAttention", STACK),
    SCALE_ROW(DECODER_LAYER "layer.1.layer_norm", STACK),
    FEED_FORWARD_ROWS(DECODER_LAYER "layer.2.DenseReluDense", STACK),
    SCALE_ROW(DECODER_LAYER "layer.2.layer_norm", STACK),
    SCALE_ROW("decoder.final_layer_norm", STACK),
    SDX_WEIGHT_ROW("lm_head", "VH", DECODER),
};

static const sdx_attention_names self = {
    "layer.0.SelfAttention",   "layer.0.SelfAttention.q", "layer.0.SelfAttention.k",
    "layer.0.SelfAttention.v", "layer.0.SelfAttention.o",
};
static const sdx_attention_names cross = {
    "layer.1.EncDecAttention",   "layer.1.EncDecAttention.q", "layer.1.EncDecAttention.k",
    "layer.1.EncDecAttention.v", "layer.1.EncDecAttention.o",
};

/* ---- settings -------------------------------------------------------------------------------------------- */

static const sdx_config_field fields[] = {
    {"d_model", SDX_FIELD(hidden), 512, 1, 1 << 16},
    {"num_layers", SDX_FIELD(layers), 6, 1, 1 << 10},
    {"num_decoder_layers", SDX_FIELD(decoder_layers), 0, 1, 1 << 10},
    {"num_heads", SDX_FIELD(heads), 8, 1, 1 << 10},
    {"d_kv", SDX_FIELD(size), 64, 1, 1 << 12},
    {"d_ff", SDX_FIELD(inner), 2048, 1, 1 << 18},
    {"vocab_size", SDX_FIELD(vocab), SDX_REQUIRED, 1, 1 << 24},
    {"relative_attention_num_buckets", SDX_FIELD(buckets), 32, 4, 1 << 12},
    {"relative_attention_max_distance", SDX_FIELD(distance), 128, 2, 1 << 12},
};

/* "relu", or "gated-gelu", which means the tanh form; else an activation by its name. */
static sdx_status read_feed_forward(const sdx_config *config, sdx_settings *s, sdx_error *err)
{
    const char *kind = sdx_config_string(config, "feed_forward_proj");
    s->gated = kind && !strncmp(kind, "gated-", 6);
    if (s->gated && strcmp(kind, "gated-gelu") && strcmp(kind, "gated-silu") && strcmp(kind, "gated-relu"))
        return sdx_fail(
            err, SDX_ERR_UNSUPPORTED,
            "%s: \"feed_forward_proj\" is \"%.40s\"; known gates are gated-gelu, gated-silu, gated-relu",
            config->path, kind);
    s->parts = s->gated ? GATED : PLAIN;
    if (!s->gated)
        return sdx_config_read_activation(config, "feed_forward_proj", SDX_RELU, &s->activation, err);
    s->activation = kind[6] == 'g' ? SDX_GELU_TANH : kind[6] == 's' ? SDX_SILU : SDX_RELU;
    return SDX_OK;
}

/* Tied words score what is scaled. transformers 5 ties always, says of T5 whether it scales, and never scales mT5. */
static bool scales_scores(const sdx_config *config, const sdx_settings *s)
{
    const char *type = sdx_config_string(config, "model_type"),
               *version = sdx_config_string(config, "transformers_version");
    bool newer = version && atoi(version) >= 5 && type && !strcmp(type, "mt5");
    return sdx_config_read_bool(config, "scale_decoder_outputs", s->tied && !newer);
}

static sdx_status read_settings(const sdx_config *config, sdx_settings *s, sdx_error *err)
{
    TRY(sdx_config_read_fields(config, fields, sizeof fields / sizeof *fields, s, err));
    TRY(sdx_config_read_real(config, "layer_norm_epsilon", 1e-6, 1, &s->norm_epsilon, err));
    TRY(read_feed_forward(config, s, err));
    if (s->distance <= s->buckets / 2)
        return sdx_fail(err, SDX_ERR_FILE,
                        "%s: \"relative_attention_max_distance\" must be more than half the number of buckets",
                        config->path);
    if (!s->decoder_layers) s->decoder_layers = s->layers;
    s->joined = s->heads * s->size;
    s->longest = 512;
    s->initializer_range = 0.05;
    s->tied = sdx_config_read_bool(config, "tie_word_embeddings", true);
    s->logit_scale = scales_scores(config, s) ? 1 / sqrt((double)s->hidden) : 1;
    return SDX_OK;
}

/* ---- as a graph ------------------------------------------------------------------------------------------ */

/* x / sqrt(mean(x^2) + epsilon) * weight (Zhang and Sennrich 2019), multiplied in PyTorch's order: scores are
 * not divided, so that attention enlarges what the last bits differ by; with a quotient ONNX Runtime fuses the
 * norm and ends 2e-5 away from PyTorch on a tiny model, with a reciprocal 3e-6. */
static sdx_id build_norm(sdx_builder *b, const sdx_settings *s, const char *name, sdx_id x)
{
    char label[64];
    snprintf(label, sizeof label, "%s/ReduceMean", name);
    sdx_id mean = sdx_build_module_op2(b, name, "Pow", x, sdx_build_real(b, 2));
    mean = sdx_build_reduce(b, "ReduceMean", label, mean, -1, true);
    mean = sdx_build_module_op2(b, name, "Add", mean, sdx_build_real(b, s->norm_epsilon));
    /* Divided by the root, as ONNX Runtime looks for it, not times its reciprocal, as PyTorch writes it. */
    x = sdx_build_module_op2(b, name, "Div", x, sdx_build_module_op1(b, name, "Sqrt", mean));
    return sdx_build_module_op2(b, name, "Mul", x, sdx_build_module_weight(b, name, "weight"));
}

static sdx_id build_feed_forward(sdx_builder *b, const sdx_settings *s, const char *module, sdx_id x)
{
    char in[64], gate[64], out[64], act[64];
    snprintf(in, sizeof in, "%s.%s", module, s->gated ? "wi_0" : "wi");
    snprintf(gate, sizeof gate, "%s.wi_1", module);
    snprintf(out, sizeof out, "%s.wo", module);
    snprintf(act, sizeof act, "%s.act", module);
    sdx_id y = sdx_build_activation(b, act, sdx_build_linear(b, in, x), s->activation);
    if (s->gated) y = sdx_build_module_op2(b, module, "Mul", y, sdx_build_linear(b, gate, x));
    return sdx_build_linear(b, out, y);
}

/* The bias of each head for each distance from query to key, as a constant [N, columns]: column c is distance
 * c - first. Distances below 0 are the future to a decoder, which may not see it. */
static sdx_id build_table(sdx_builder *b, const sdx_settings *s, const char *stack, int64_t first, bool causal)
{
    char name[128];
    const int64_t dim[] = {s->heads, first + s->distance + 1}, n = dim[0] * dim[1],
                  stored = s->buckets * s->heads;
    snprintf(name, sizeof name, "%s.block.0.layer.0.SelfAttention.relative_attention_bias.weight", stack);
    const sdx_tensor *weight = sdx_checkpoint_find(b->checkpoint, name); /* [R, N] */
    float *table = sdx_malloc((size_t)(n + stored) * sizeof *table), *bias = table + n;
    if (!table) sdx_build_fail(b, SDX_ERR_MEMORY, "out of memory");
    sdx_id id = SDX_NONE;
    if (b->status == SDX_OK) {
        sdx_weight_load(weight, 0, stored, bias);
        for (int64_t i = 0; i < n; i++) {
            int64_t head = i / dim[1], ahead = first - i % dim[1];
            int64_t bucket =
                causal && ahead > 0
                    ? 0
                    : sdx_relative_bucket(ahead, causal ? 2 * s->buckets : s->buckets, s->distance);
            table[i] = causal && ahead > 0 ? -FLT_MAX : bias[bucket * s->heads + head];
        }
        snprintf(name, sizeof name, "%s.relative_positions", stack);
        id = sdx_build_constant(b, name, SDX_F32, 2, dim, table);
    }
    free(table);
    return id;
}

/* queries [S], keys [K] -> [N, S, K] */
static sdx_id build_bias(sdx_builder *b, const sdx_settings *s, const char *stack, sdx_id queries, sdx_id keys,
                         bool causal)
{
    const char *name = "relative_positions";
    int64_t first = causal ? 1 : s->distance;
    sdx_id distance = sdx_build_module_op2(b, name, "Sub", sdx_build_unsqueeze(b, name, queries, 1), keys);
    sdx_id in[] = {distance, sdx_build_int(b, -first), sdx_build_int(b, s->distance)};
    distance = sdx_build_module_op(b, name, "Clip", 3, in);
    distance = sdx_build_module_op2(b, name, "Add", distance, sdx_build_int(b, first));
    sdx_id bias = sdx_build_module_op2(b, name, "Gather", build_table(b, s, stack, first, causal), distance);
    sdx_build_attr_int(b, "axis", 1);
    return bias;
}

static sdx_id build_encoder_attention(sdx_builder *b, const sdx_settings *s, sdx_id x, sdx_id bias)
{
    const char *name = self.attention, *modules[] = {self.query, self.key, self.value},
               *suffix[] = {"q", "k", "v"};
    sdx_id part[3];
    for (int i = 0; i < 3; i++) {
        part[i] =
            sdx_build_split_heads(b, name, suffix[i], sdx_build_linear(b, modules[i], x), s->heads, s->size);
        part[i] = sdx_build_heads_first(b, name, suffix[i], part[i], i == 1);
    }
    sdx_id scores = sdx_build_op2(b, "MatMul", "layer.0.SelfAttention/MatMul_qk", part[0], part[1]);
    return sdx_build_linear(b, self.out, sdx_build_attend(b, name, scores, bias, part[2], s->joined));
}

static sdx_id build_encoder_layer(sdx_builder *b, const sdx_settings *s, sdx_id x, sdx_id bias)
{
    sdx_id y = build_encoder_attention(b, s, build_norm(b, s, "layer.0.layer_norm", x), bias);
    x = sdx_build_op2(b, "Add", "layer.0/Add_residual", x, y);
    y = build_feed_forward(b, s, "layer.1.DenseReluDense", build_norm(b, s, "layer.1.layer_norm", x));
    return sdx_build_op2(b, "Add", "layer.1/Add_residual", x, y);
}

/* sequence: what the graph calls the number of tokens */
static void build_encoded(sdx_builder *b, const sdx_settings *s, sdx_text_inputs in, int64_t sequence)
{
    sdx_id x = sdx_build_embedding(b, "shared", in.ids);
    sdx_build_scope(b, "encoder.");
    sdx_id range = sdx_build_range(b, "positions", in.ids);
    sdx_id bias = build_bias(b, s, "encoder", range, range, false);
    bias = sdx_build_op2(b, "Add", "relative_positions/Add_mask", bias, sdx_build_attention_bias(b, in.mask));
    x = sdx_build_layers(b, s, "encoder.block.", build_encoder_layer, x, bias);
    x = build_norm(b, s, "encoder.final_layer_norm", x);
    sdx_build_output(b, x, "last_hidden_state", SDX_F32, 3, (int64_t[]){SDX_BATCH, sequence, s->hidden});
}

static void build_encoder(sdx_builder *b, const sdx_settings *s)
{
    build_encoded(b, s, sdx_build_encoder_inputs(b), SDX_ENCODER_SEQUENCE);
}

/* The encoder by itself, as sentence encoders have it. */
static void build_model(sdx_builder *b, const sdx_settings *s)
{
    sdx_id ids = sdx_build_token_input(b, "input_ids"), mask = sdx_build_token_input(b, "attention_mask");
    build_encoded(b, s, (sdx_text_inputs){ids, mask, SDX_NONE}, SDX_SEQUENCE);
}

static sdx_id build_decoder_layer(sdx_builder *b, const sdx_settings *s, sdx_decoder_graph *d, sdx_id x,
                                  sdx_id bias)
{
    sdx_build_scope(b, "decoder.block.%d.", (int)d->layer);
    sdx_id y = sdx_build_decoder_self_attention(b, d, &self, build_norm(b, s, "layer.0.layer_norm", x), bias);
    x = sdx_build_op2(b, "Add", "layer.0/Add_residual", x, y);
    y = sdx_build_decoder_cross_attention(b, d, &cross, build_norm(b, s, "layer.1.layer_norm", x));
    x = sdx_build_op2(b, "Add", "layer.1/Add_residual", x, y);
    y = build_feed_forward(b, s, "layer.2.DenseReluDense", build_norm(b, s, "layer.2.layer_norm", x));
    return sdx_build_op2(b, "Add", "layer.2/Add_residual", x, y);
}

/* x [B, S, H] -> [B, S, V] */
static sdx_id build_logits(sdx_builder *b, const sdx_settings *s, sdx_id x)
{
    if (s->logit_scale != 1)
        x = sdx_build_module_op2(b, "lm_head", "Mul", x, sdx_build_real(b, s->logit_scale));
    return sdx_build_module_op2(b, "lm_head", "MatMul", x,
                                sdx_build_transposed(b, s->tied ? "shared.weight" : "lm_head.weight"));
}

static sdx_decoder_graph decoder_of(const sdx_settings *s, bool with_past)
{
    return (sdx_decoder_graph){
        .with_past = with_past, .layers = s->decoder_layers, .heads = s->heads, .size = s->size, .divisor = 1,
        .vocab = s->vocab};
}

static void build_either_decoder(sdx_builder *b, const sdx_settings *s, bool with_past)
{
    sdx_decoder_graph d = decoder_of(s, with_past);
    sdx_build_decoder_begin(b, &d, s->hidden);
    sdx_id bias = build_bias(b, s, "decoder", d.queries, d.keys, true);
    sdx_build_scope(b, "%s", "");
    sdx_id x = sdx_build_embedding(b, "shared", d.ids);
    for (; d.layer < d.layers; d.layer++) x = build_decoder_layer(b, s, &d, x, bias);
    sdx_build_scope(b, "%s", "");
    x = build_norm(b, s, "decoder.final_layer_norm", x);
    sdx_build_decoder_end(b, &d, build_logits(b, s, x));
}

static void build_decoder(sdx_builder *b, const sdx_settings *s)
{
    build_either_decoder(b, s, false);
}

static void build_decoder_with_past(sdx_builder *b, const sdx_settings *s)
{
    build_either_decoder(b, s, true);
}

static void build_merged(sdx_builder *b, const sdx_settings *s)
{
    sdx_decoder_graph d = decoder_of(s, true);
    sdx_build_merged_decoder(b, s, &d, build_decoder, build_decoder_with_past);
}

/* ---- as plain arithmetic --------------------------------------------------------------------------------- */

/* -> a normalized copy of x [S, H] */
static double *forward_norm(sdx_forward *f, const sdx_settings *s, const char *name, const double *x)
{
    int64_t H = s->hidden;
    const double *w = sdx_forward_weight(f, name);
    double *y = sdx_forward_alloc(f, f->count * H);
    for (int64_t t = 0; f->status == SDX_OK && t < f->count; t++) {
        double sum = 0;
        for (int64_t i = 0; i < H; i++) sum += x[t * H + i] * x[t * H + i];
        for (int64_t i = 0; i < H; i++)
            y[t * H + i] = x[t * H + i] / sqrt(sum / (double)H + s->norm_epsilon) * w[i];
    }
    return y;
}

/* [N, S, S] of "encoder" or "decoder", whose future has no bucket and is not seen. */
static double *forward_bias(sdx_forward *f, const sdx_settings *s, const char *stack, bool causal)
{
    char name[128];
    int64_t S = f->count, buckets = causal ? 2 * s->buckets : s->buckets;
    snprintf(name, sizeof name, "%s.block.0.layer.0.SelfAttention.relative_attention_bias.weight", stack);
    const double *table = sdx_forward_weight(f, name);
    double *bias = sdx_forward_alloc(f, s->heads * S * S);
    for (int64_t i = 0; f->status == SDX_OK && i < s->heads * S * S; i++) {
        int64_t ahead = i % S - i / S % S, head = i / (S * S);
        bool hidden = causal && ahead > 0;
        bias[i] = hidden ? -INFINITY : table[sdx_relative_bucket(ahead, buckets, s->distance) * s->heads + head];
    }
    return bias;
}

/* x [S, H] += the feed-forward layer `module` of x, normalized */
static void forward_feed_forward(sdx_forward *f, const sdx_settings *s, const char *norm, const char *module, double *x)
{
    char in[64], gate[64], out[64];
    snprintf(in, sizeof in, "%s.%s", module, s->gated ? "wi_0" : "wi");
    snprintf(gate, sizeof gate, "%s.wi_1", module);
    snprintf(out, sizeof out, "%s.wo", module);
    const double *normal = forward_norm(f, s, norm, x);
    double *y = sdx_forward_linear(f, in, normal, f->count);
    sdx_forward_activation(f, y, f->count * s->inner, s->activation);
    const double *factor = s->gated ? sdx_forward_linear(f, gate, normal, f->count) : NULL;
    for (int64_t i = 0; f->status == SDX_OK && factor && i < f->count * s->inner; i++) y[i] *= factor[i];
    sdx_forward_add(f, x, sdx_forward_linear(f, out, y, f->count), f->count * s->hidden);
}

/* x += attention of x, normalized, to itself or to what was encoded */
static void forward_attention(sdx_forward *f, const sdx_settings *s, const sdx_attention_names *n, const char *norm,
                              double *x, const double *encoded, const double *bias)
{
    const sdx_decoder_graph d = decoder_of(s, false);
    const double *y = forward_norm(f, s, norm, x);
    y = sdx_forward_decoder_attention(f, &d, n, y, encoded ? encoded : y, encoded ? f->source : f->count, bias);
    sdx_forward_add(f, x, y, f->count * s->hidden);
}

static void forward_layer(sdx_forward *f, const sdx_settings *s, double *x, const double *bias)
{
    forward_attention(f, s, &self, "layer.0.layer_norm.weight", x, NULL, bias);
    forward_feed_forward(f, s, "layer.1.layer_norm.weight", "layer.1.DenseReluDense", x);
}

static void forward_decoder_layer(sdx_forward *f, const sdx_settings *s, double *x, const double *bias)
{
    forward_attention(f, s, &self, "layer.0.layer_norm.weight", x, NULL, bias);
    forward_attention(f, s, &cross, "layer.1.layer_norm.weight", x, f->encoded, NULL);
    forward_feed_forward(f, s, "layer.2.layer_norm.weight", "layer.2.DenseReluDense", x);
}

static const double *forward_encoder(sdx_forward *f, const sdx_settings *s)
{
    double *x = sdx_forward_alloc(f, f->count * s->hidden);
    sdx_forward_add_embedding(f, "shared", f->ids, x);
    sdx_forward_layers(f, s, "encoder.block.", forward_layer, x, forward_bias(f, s, "encoder", false));
    f->rank = 2;
    f->dim[0] = f->count;
    f->dim[1] = s->hidden;
    return forward_norm(f, s, "encoder.final_layer_norm.weight", x);
}

static const double *forward_decoder(sdx_forward *f, const sdx_settings *s)
{
    double *x = sdx_forward_alloc(f, f->count * s->hidden), *bias = forward_bias(f, s, "decoder", true);
    sdx_forward_add_embedding(f, "shared", f->ids, x);
    for (int64_t i = 0; i < s->decoder_layers; i++) {
        sdx_forward_scope(f, "decoder.block.%d.", (int)i);
        forward_decoder_layer(f, s, x, bias);
    }
    sdx_forward_scope(f, "%s", "");
    x = forward_norm(f, s, "decoder.final_layer_norm.weight", x);
    for (int64_t i = 0; f->status == SDX_OK && i < f->count * s->hidden; i++) x[i] *= s->logit_scale;
    f->dim[1] = s->vocab;
    return sdx_forward_product(f, s->tied ? "shared.weight" : "lm_head.weight", NULL, x, f->count);
}

/* ---- heads ----------------------------------------------------------------------------------------------- */

static const sdx_head_graph graphs[] = SDX_SEQ2SEQ_GRAPHS;

/* A bare model has nothing but its words to score with. */
#define HEAD(class) SDX_SEQ2SEQ_HEAD(class, BODY | STACK, 0, DECODER)
#define FAMILY(name, title)                                                                                    \
    static const sdx_head heads_of_##name[] = {                                                                \
        HEAD(title "ForConditionalGeneration"),                                                                \
        HEAD(title "Model"),                                                                                   \
        {.architecture = title "EncoderModel",                                                                 \
         .task = "feature-extraction",                                                                         \
         .required = BODY,                                                                                     \
         .build = build_model,                                                                                 \
         .forward = forward_encoder},                                                                          \
    };                                                                                                         \
    const sdx_family sdx_family_##name = {SDX_FAMILY(#name, "transformer.", 0, heads_of_##name, read_settings)}

FAMILY(t5, "T5");
FAMILY(mt5, "MT5");
