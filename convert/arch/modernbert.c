/* modernbert.c: ModernBERT (Warner et al. 2024, arXiv:2412.13663): an encoder with normalization before each
 * part, rotary positions (Su et al. 2021, arXiv:2104.09864), gated feed-forward layers (Shazeer 2020,
 * arXiv:2002.05202), and attention that is global in every third layer and reaches to near tokens in the
 * others, as Hugging Face's modeling_modernbert.py has it. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../encoder.h"

enum {
    HEAD = POOLED, /* a layer in front of every classifier and of the words */
    NORM_BIAS = SDX_OWN_PART,
    ATTENTION_BIAS = 2 * SDX_OWN_PART,
    MLP_BIAS = 4 * SDX_OWN_PART,
    HEAD_BIAS = 8 * SDX_OWN_PART,
    WORDS_BIAS = 16 * SDX_OWN_PART,
};
enum { MAX_HEAD_SIZE = 1024 };

#define NORM(name, part) {name ".weight", "H", SDX_FILL_NORM, part}, SDX_BIAS_ROW(name, "H", part | NORM_BIAS)
#define LINEAR(name, out, in, part, bias)                                                                      \
    SDX_WEIGHT_ROW(name, out in, part), SDX_BIAS_ROW(name, out, part | bias)

static const sdx_tensor_row rows[] = {
    SDX_WEIGHT_ROW("embeddings.tok_embeddings", "VH", BODY),
    NORM("embeddings.norm", BODY),
    NORM("layers.+.attn_norm", BODY), /* the first layer's input is normalized already */
    LINEAR("layers.*.attn.Wqkv", "3H", "H", BODY, ATTENTION_BIAS),
    LINEAR("layers.*.attn.Wo", "H", "H", BODY, ATTENTION_BIAS),
    NORM("layers.*.mlp_norm", BODY),
    LINEAR("layers.*.mlp.Wi", "2I", "H", BODY, MLP_BIAS),
    LINEAR("layers.*.mlp.Wo", "H", "I", BODY, MLP_BIAS),
    NORM("final_norm", BODY),
    LINEAR("head.dense", "H", "H", HEAD, HEAD_BIAS),
    NORM("head.norm", HEAD),
    SDX_WEIGHT_ROW("decoder", "VH", DECODER),
    SDX_BIAS_ROW("decoder", "V", MLM | WORDS_BIAS),
    SDX_LINEAR_ROWS("classifier", "L", "H", CLASSIFIER),
    SDX_LINEAR_ROWS("classifier", "U", "H", CHOICE),
};

/* ---- settings -------------------------------------------------------------------------------------------- */

static const sdx_config_field fields[] = {
    SDX_SIZE_FIELDS(SDX_REQUIRED, SDX_REQUIRED, SDX_REQUIRED, SDX_REQUIRED),
    {"vocab_size", SDX_FIELD(vocab), SDX_REQUIRED, 1, 1 << 24},
    {"max_position_embeddings", SDX_FIELD(longest), 8192, 1, 1 << 20},
    {"local_attention", SDX_FIELD(window), 128, 1, 1 << 20},
    {"global_attn_every_n_layers", SDX_FIELD(period), 3, 1, 1 << 10},
};

static const struct {
    const char *key;
    bool missing;
    unsigned part;
} switches[] = {
    {"norm_bias", false, NORM_BIAS},    {"attention_bias", false, ATTENTION_BIAS},
    {"mlp_bias", false, MLP_BIAS},      {"classifier_bias", false, HEAD_BIAS},
    {"decoder_bias", true, WORDS_BIAS},
};

/* As transformers 4 writes the bases of the rotary embeddings, or as 5 does. */
static sdx_status read_rotary(const sdx_config *config, sdx_settings *s, sdx_error *err)
{
    static const char *const kinds[] = {"rope_parameters.full_attention.rope_type",
                                        "rope_parameters.sliding_attention.rope_type"};
    const double most = FLT_MAX;
    TRY(sdx_config_read_real(config, "global_rope_theta", 160000, most, &s->global_theta, err));
    TRY(sdx_config_read_real(config, "local_rope_theta", s->global_theta, most, &s->local_theta, err));
    TRY(sdx_config_read_real(config, "rope_parameters.full_attention.rope_theta", s->global_theta, most,
                             &s->global_theta, err));
    TRY(sdx_config_read_real(config, "rope_parameters.sliding_attention.rope_theta", s->local_theta, most,
                             &s->local_theta, err));
    for (int i = 0; i < 2; i++) {
        const char *kind = sdx_config_string(config, kinds[i]);
        if (kind && strcmp(kind, "default"))
            return sdx_fail(err, SDX_ERR_UNSUPPORTED, "%s: \"%s\" is \"%.40s\"; only default is known", config->path,
                            kinds[i], kind);
    }
    return SDX_OK;
}

static sdx_status read_settings(const sdx_config *config, sdx_settings *s, sdx_error *err)
{
    TRY(sdx_config_read_fields(config, fields, sizeof fields / sizeof *fields, s, err));
    TRY(sdx_config_check_heads(config, s, err));
    TRY(sdx_config_read_activation(config, "hidden_activation", SDX_GELU, &s->activation, err));
    TRY(sdx_config_read_activation(config, "classifier_activation", SDX_GELU, &s->head_activation, err));
    TRY(sdx_config_read_real(config, "norm_eps", 1e-5, 1, &s->norm_epsilon, err));
    TRY(sdx_config_read_real(config, "initializer_range", 0.02, 1, &s->initializer_range, err));
    TRY(read_rotary(config, s, err));
    TRY(sdx_config_read_period(config, "layer_types", "full_attention", &s->period, err));
    TRY(sdx_config_read_labels(config, &s->labels, err));
    const char *pooling = sdx_config_string(config, "classifier_pooling");
    s->mean_pooling = pooling && !strcmp(pooling, "mean");
    s->tied = sdx_config_read_bool(config, "tie_word_embeddings", true);
    for (size_t i = 0; i < sizeof switches / sizeof *switches; i++)
        if (sdx_config_read_bool(config, switches[i].key, switches[i].missing)) s->parts |= switches[i].part;
    int64_t size = s->hidden / s->heads;
    if (size % 2 == 0 && size <= MAX_HEAD_SIZE) return SDX_OK;
    return sdx_fail(err, SDX_ERR_UNSUPPORTED,
                    "%s: rotary embeddings take heads of an even size up to %d, not %lld", config->path,
                    MAX_HEAD_SIZE, (long long)size);
}

static bool is_global(const sdx_settings *s, int64_t layer)
{
    return layer % s->period == 0;
}

/* Turns per token of pair i of a head's dimensions. In float32, as in PyTorch: far positions multiply its
 * error. */
static float frequency(const sdx_settings *s, bool global, int64_t i)
{
    int64_t size = s->hidden / s->heads;
    double theta = (float)(global ? s->global_theta : s->local_theta), power = (float)(2 * i) / (float)size;
    return 1 / (float)pow(theta, power);
}

/* ---- as a graph ------------------------------------------------------------------------------------------ */

/* For one kind of layer. */
typedef struct kind {
    sdx_id cos, sin; /* [S, 1, size]; sin with the sign that rotate() needs */
    sdx_id bias;     /* [B, 1, 1 or S, S] */
} kind;

/* position [S, 1, 1] -> cos and sin of position * frequency, once per half of a head: [S, 1, size] */
static void build_rotary(sdx_builder *b, const sdx_settings *s, bool global, sdx_id position, kind *out)
{
    const char *name = global ? "rotary_global" : "rotary_local";
    int64_t size = s->hidden / s->heads, half = size / 2;
    float plus[MAX_HEAD_SIZE], minus[MAX_HEAD_SIZE]; /* minus: sin(-x) = -sin(x) for the first half */
    for (int64_t i = 0; i < size; i++) {
        plus[i] = frequency(s, global, i % half);
        minus[i] = i < half ? -plus[i] : plus[i];
    }
    sdx_id f =
        sdx_build_constant(b, global ? "frequencies_global" : "frequencies_local", SDX_F32, 1, &size, plus);
    sdx_id g = sdx_build_constant(b, global ? "signed_frequencies_global" : "signed_frequencies_local", SDX_F32,
                                  1, &size, minus);
    out->cos = sdx_build_module_op1(b, name, "Cos", sdx_build_module_op2(b, name, "Mul", position, f));
    out->sin = sdx_build_module_op1(b, name, "Sin", sdx_build_module_op2(b, name, "Mul", position, g));
}

/* The bias [B, 1, 1, S] with -FLT_MAX also where tokens are farther apart than half the window. */
static sdx_id build_local_bias(sdx_builder *b, const sdx_settings *s, sdx_id range, sdx_id bias)
{
    const char *name = "local_attention";
    sdx_id distance = sdx_build_module_op2(b, name, "Sub", sdx_build_unsqueeze(b, name, range, 1), range);
    distance = sdx_build_module_op1(b, name, "Abs", distance);
    sdx_id far = sdx_build_module_op2(b, name, "Greater", distance, sdx_build_int(b, s->window / 2));
    return sdx_build_module_op(b, name, "Where", 3, (sdx_id[]){far, sdx_build_real(b, -FLT_MAX), bias});
}

/* x [B, S, heads, size]: dimension i and i + size/2 turn together. */
static sdx_id rotate(sdx_builder *b, const sdx_settings *s, const kind *k, sdx_id x)
{
    int64_t half = s->hidden / s->heads / 2;
    sdx_id part[2];
    sdx_build_split(b, "attn.rotary/Split", x, -1, 2, (int64_t[]){half, half}, part);
    sdx_id swapped = sdx_build_module_op2(b, "attn.rotary", "Concat", part[1], part[0]);
    sdx_build_attr_int(b, "axis", -1);
    x = sdx_build_op2(b, "Mul", "attn.rotary/Mul_cos", x, k->cos);
    swapped = sdx_build_op2(b, "Mul", "attn.rotary/Mul_sin", swapped, k->sin);
    return sdx_build_module_op2(b, "attn.rotary", "Add", x, swapped);
}

/* Queries and keys are turned as one tensor of twice the heads. */
static sdx_id build_attention(sdx_builder *b, const sdx_settings *s, const kind *with, sdx_id x)
{
    int64_t size = s->hidden / s->heads;
    sdx_id part[2], pair[2];
    x = sdx_build_linear(b, "attn.Wqkv", x);
    sdx_build_split(b, "attn/Split_qk_v", x, -1, 2, (int64_t[]){2 * s->hidden, s->hidden}, part);
    sdx_id qk = rotate(b, s, with, sdx_build_split_heads(b, "attn", "qk", part[0], 2 * s->heads, size));
    sdx_build_split(b, "attn/Split_q_k", qk, 2, 2, (int64_t[]){s->heads, s->heads}, pair);
    sdx_id q = sdx_build_heads_first(b, "attn", "q", pair[0], false);
    sdx_id k = sdx_build_heads_first(b, "attn", "k", pair[1], true);
    sdx_id v = sdx_build_split_heads(b, "attn", "v", part[1], s->heads, size);
    v = sdx_build_heads_first(b, "attn", "v", v, false);
    sdx_id scores = sdx_build_scores(b, "attn", q, k, sqrt((double)size));
    x = sdx_build_attend(b, "attn", scores, with->bias, v, s->hidden);
    return sdx_build_linear(b, "attn.Wo", x);
}

static sdx_id build_gated(sdx_builder *b, const sdx_settings *s, sdx_id x)
{
    sdx_id part[2];
    x = sdx_build_linear(b, "mlp.Wi", x);
    sdx_build_split(b, "mlp/Split", x, -1, 2, (int64_t[]){s->inner, s->inner}, part);
    x = sdx_build_activation(b, "mlp.act", part[0], s->activation);
    x = sdx_build_op2(b, "Mul", "mlp/Mul_gate", x, part[1]);
    return sdx_build_linear(b, "mlp.Wo", x);
}

static sdx_id build_body(sdx_builder *b, const sdx_settings *s, const sdx_text_inputs *in)
{
    kind global, local;
    sdx_build_scope(b, "%s", "");
    sdx_id range = sdx_build_range(b, "positions", in->ids);
    sdx_id position = sdx_build_cast(b, "positions", range, SDX_F32);
    position =
        sdx_build_module_op2(b, "positions", "Unsqueeze", position, sdx_build_ints(b, 2, (int64_t[]){1, 2}));
    global.bias = sdx_build_attention_bias(b, in->mask);
    build_rotary(b, s, true, position, &global);
    local.bias = build_local_bias(b, s, range, global.bias);
    build_rotary(b, s, false, position, &local);
    sdx_id x = sdx_build_embedding(b, "embeddings.tok_embeddings", in->ids);
    x = sdx_build_layer_norm(b, "embeddings.norm", x, s->norm_epsilon);
    for (int64_t i = 0; i < s->layers; i++) {
        sdx_build_scope(b, "layers.%d.", (int)i);
        sdx_id y = i ? sdx_build_layer_norm(b, "attn_norm", x, s->norm_epsilon) : x;
        y = build_attention(b, s, is_global(s, i) ? &global : &local, y);
        x = sdx_build_op2(b, "Add", "attn/Add_residual", x, y);
        y = build_gated(b, s, sdx_build_layer_norm(b, "mlp_norm", x, s->norm_epsilon));
        x = sdx_build_op2(b, "Add", "mlp/Add_residual", x, y);
    }
    sdx_build_scope(b, "%s", "");
    return sdx_build_layer_norm(b, "final_norm", x, s->norm_epsilon);
}

/* ---- as plain arithmetic --------------------------------------------------------------------------------- */

/* Columns [from, from + width) of x [S, columns]. */
static double *take_columns(sdx_forward *f, const double *x, int64_t columns, int64_t from, int64_t width)
{
    double *y = sdx_forward_alloc(f, f->count * width);
    for (int64_t i = 0; f->status == SDX_OK && i < f->count * width; i++)
        y[i] = x[i / width * columns + from + i % width];
    return y;
}

/* x [S, H] in place: each pair of a head's dimensions turns by the token's position times its frequency. */
static void forward_rotate(sdx_forward *f, const sdx_settings *s, bool global, double *x)
{
    int64_t size = s->hidden / s->heads, half = size / 2;
    for (int64_t at = 0; f->status == SDX_OK && at < f->count * s->heads * half; at++) {
        int64_t token = at / (s->heads * half), head = at / half % s->heads, i = at % half;
        float angle = (float)token * frequency(s, global, i);
        double *a = x + token * s->hidden + head * size + i, *b = a + half, left = *a, right = *b;
        *a = left * cos((double)angle) - right * sin((double)angle);
        *b = right * cos((double)angle) + left * sin((double)angle);
    }
}

static double *forward_window(sdx_forward *f, const sdx_settings *s)
{
    int64_t S = f->count;
    double *bias = sdx_forward_alloc(f, s->heads * S * S);
    for (int64_t i = 0; f->status == SDX_OK && i < s->heads * S * S; i++)
        if (llabs(i / S % S - i % S) > s->window / 2) bias[i] = -INFINITY;
    return bias;
}

static double *forward_attention(sdx_forward *f, const sdx_settings *s, int64_t layer, const double *x,
                                 const double *window)
{
    int64_t H = s->hidden, size = H / s->heads;
    bool global = is_global(s, layer);
    const double *qkv = sdx_forward_linear(f, "attn.Wqkv", x, f->count);
    double *q = take_columns(f, qkv, 3 * H, 0, H), *k = take_columns(f, qkv, 3 * H, H, H);
    double *v = take_columns(f, qkv, 3 * H, 2 * H, H);
    forward_rotate(f, s, global, q);
    forward_rotate(f, s, global, k);
    x = sdx_forward_attention(f, q, k, v, s->heads, size, sqrt((double)size), global ? NULL : window);
    return sdx_forward_linear(f, "attn.Wo", x, f->count);
}

static double *forward_gated(sdx_forward *f, const sdx_settings *s, const double *x)
{
    int64_t I = s->inner;
    const double *both = sdx_forward_linear(f, "mlp.Wi", x, f->count);
    double *y = take_columns(f, both, 2 * I, 0, I), *gate = take_columns(f, both, 2 * I, I, I);
    sdx_forward_activation(f, y, f->count * I, s->activation);
    for (int64_t i = 0; f->status == SDX_OK && i < f->count * I; i++) y[i] *= gate[i];
    return sdx_forward_linear(f, "mlp.Wo", y, f->count);
}

static double *forward_normal(sdx_forward *f, const sdx_settings *s, const char *name, const double *x)
{
    double *y = take_columns(f, x, s->hidden, 0, s->hidden);
    if (name) sdx_forward_layer_norm(f, name, y, f->count, s->norm_epsilon);
    return y;
}

static double *forward_body(sdx_forward *f, const sdx_settings *s)
{
    int64_t n = f->count * s->hidden;
    double *x = sdx_forward_alloc(f, n), *window = forward_window(f, s);
    sdx_forward_scope(f, "%s", "");
    sdx_forward_add_embedding(f, "embeddings.tok_embeddings", f->ids, x);
    sdx_forward_layer_norm(f, "embeddings.norm", x, f->count, s->norm_epsilon);
    for (int64_t i = 0; i < s->layers; i++) {
        sdx_arena_mark mark = sdx_arena_get_mark(f->arena);
        sdx_forward_scope(f, "layers.%d.", (int)i);
        const double *y = forward_normal(f, s, i ? "attn_norm" : NULL, x);
        sdx_forward_add(f, x, forward_attention(f, s, i, y, window), n);
        sdx_forward_add(f, x, forward_gated(f, s, forward_normal(f, s, "mlp_norm", x)), n);
        sdx_arena_reset(f->arena, mark);
    }
    sdx_forward_scope(f, "%s", "");
    sdx_forward_layer_norm(f, "final_norm", x, f->count, s->norm_epsilon);
    return x;
}

/* ---- heads ----------------------------------------------------------------------------------------------- */

#define PREDICTION_HEAD                                                                                        \
    {SDX_STEP_LINEAR, .name = "head.dense"}, {.kind = SDX_STEP_HEAD_ACT},                                      \
    {                                                                                                          \
        SDX_STEP_NORM, .name = "head.norm"                                                                     \
    }

static const sdx_step masked_lm[] = {
    PREDICTION_HEAD,
    {SDX_STEP_WORDS, .name = "decoder.bias", .part = DECODER, .untied = "decoder.weight"},
    {.kind = SDX_STEP_SPLADE},
    {.kind = SDX_STEP_END},
};
static const sdx_step classifier[] = {
    {.kind = SDX_STEP_POOL},
    PREDICTION_HEAD,
    {SDX_STEP_LINEAR, .name = "classifier"},
    {SDX_STEP_OUTPUT, .name = "logits"},
    {.kind = SDX_STEP_END},
};
static const sdx_step token_classifier[] = {
    PREDICTION_HEAD,
    {SDX_STEP_LINEAR, .name = "classifier"},
    {SDX_STEP_OUTPUT, .name = "logits"},
    {.kind = SDX_STEP_END},
};
static const sdx_step spans[] = {
    PREDICTION_HEAD,
    {SDX_STEP_LINEAR, .name = "classifier"},
    {.kind = SDX_STEP_SPANS},
    {.kind = SDX_STEP_END},
};
static const sdx_step choice[] = {
    {.kind = SDX_STEP_POOL},
    PREDICTION_HEAD,
    {SDX_STEP_LINEAR, .name = "classifier"},
    {.kind = SDX_STEP_CHOICES},
    {.kind = SDX_STEP_END},
};

static const sdx_head heads[] = {
    SDX_HEAD("ModernBertModel", "feature-extraction", BODY, 0, 0, sdx_steps_hidden),
    SDX_HEAD("ModernBertForMaskedLM", "fill-mask", BODY | HEAD | MLM, 0, DECODER, masked_lm),
    SDX_HEAD("ModernBertForSequenceClassification", "text-classification", BODY | HEAD | CLASSIFIER, 0, 0,
             classifier),
    SDX_HEAD("ModernBertForTokenClassification", "token-classification", BODY | HEAD | CLASSIFIER, 0, 0,
             token_classifier),
    SDX_HEAD("ModernBertForQuestionAnswering", "question-answering", BODY | HEAD | CLASSIFIER, 0, 0, spans),
    SDX_HEAD("ModernBertForMultipleChoice", "multiple-choice", BODY | HEAD | CHOICE, 0, 0, choice),
};

const sdx_family sdx_family_modernbert = {
    SDX_FAMILY("modernbert", "model.", BODY, heads, read_settings),
    SDX_FAMILY_OF_STEPS("embeddings.tok_embeddings.weight"),
};
