/* gpt2.c: GPT-2 (Radford et al. 2019), as Hugging Face's modeling_gpt2.py has it: norms stand before what they
 * feed, a token sees those before it, and matrices are stored [in, out], as graphs want them. */
#include <math.h>
#include <stdio.h>

#include "../encoder.h"

#define LAYER                      "h.*."
#define CONV1D_ROWS(name, in, out) SDX_WEIGHT_ROW(name, in out, BODY), SDX_BIAS_ROW(name, out, BODY)

static const sdx_tensor_row rows[] = {
    SDX_WEIGHT_ROW("wte", "VH", BODY),          SDX_WEIGHT_ROW("wpe", "PH", BODY),
    SDX_NORM_ROWS(LAYER "ln_1", "H", BODY),     CONV1D_ROWS(LAYER "attn.c_attn", "H", "3H"),
    CONV1D_ROWS(LAYER "attn.c_proj", "H", "H"), SDX_NORM_ROWS(LAYER "ln_2", "H", BODY),
    CONV1D_ROWS(LAYER "mlp.c_fc", "H", "I"),    CONV1D_ROWS(LAYER "mlp.c_proj", "I", "H"),
    SDX_NORM_ROWS("ln_f", "H", BODY),           SDX_WEIGHT_ROW("lm_head", "VH", DECODER),
};

static const sdx_config_field fields[] = {
    {"n_embd", SDX_FIELD(hidden), SDX_REQUIRED, 1, 1 << 16},
    {"n_layer", SDX_FIELD(layers), SDX_REQUIRED, 1, 1 << 10},
    {"n_head", SDX_FIELD(heads), SDX_REQUIRED, 1, 1 << 10},
    {"n_inner", SDX_FIELD(inner), 0, 1, 1 << 18},
    {"vocab_size", SDX_FIELD(vocab), SDX_REQUIRED, 1, 1 << 24},
    {"n_positions", SDX_FIELD(positions), 1024, 1, 1 << 20},
};

static sdx_status read_settings(const sdx_config *config, sdx_settings *s, sdx_error *err)
{
    TRY(sdx_config_read_fields(config, fields, sizeof fields / sizeof *fields, s, err));
    TRY(sdx_config_check_heads(config, s, err));
    TRY(sdx_config_read_activation(config, "activation_function", SDX_GELU_TANH, &s->activation, err));
    TRY(sdx_config_read_real(config, "layer_norm_epsilon", 1e-5, 1, &s->norm_epsilon, err));
    TRY(sdx_config_read_real(config, "initializer_range", 0.02, 1, &s->initializer_range, err));
    if (!sdx_config_read_bool(config, "scale_attn_weights", true) ||
        sdx_config_read_bool(config, "scale_attn_by_inverse_layer_idx", false) ||
        sdx_config_read_bool(config, "add_cross_attention", false))
        return sdx_fail(err, SDX_ERR_UNSUPPORTED,
                        "%s: GPT-2 is known with scores divided by the root of a head's size and without cross "
                        "attention only",
                        config->path);
    if (!s->inner) s->inner = 4 * s->hidden;
    s->tied = sdx_config_read_bool(config, "tie_word_embeddings", true);
    s->longest = s->positions;
    return SDX_OK;
}

/* ---- as a graph ------------------------------------------------------------------------------------------ */

static sdx_id build_conv1d(sdx_builder *b, const char *name, sdx_id x)
{
    x = sdx_build_module_op2(b, name, "MatMul", x, sdx_build_module_weight(b, name, "weight"));
    return sdx_build_module_op2(b, name, "Add", x, sdx_build_module_weight(b, name, "bias"));
}

/* The future is -inf, padding -FLT_MAX: a row of padding in front, which sees nothing, then gets the mean of
 * the padding before it, as in PyTorch. The diagonal is never -inf. -> [B, 1, S, S] */
static sdx_id build_bias(sdx_builder *b, sdx_id ids, sdx_id mask)
{
    const char *name = "causal_bias";
    sdx_id range = sdx_build_range(b, name, ids);
    sdx_id past = sdx_build_module_op2(b, name, "LessOrEqual", range, sdx_build_unsqueeze(b, name, range, 1));
    sdx_id in[] = {past, sdx_build_real(b, 0), sdx_build_real(b, -INFINITY)};
    sdx_id causal = sdx_build_module_op(b, name, "Where", 3, in);
    return sdx_build_module_op2(b, name, "Add", causal, sdx_build_attention_bias(b, mask));
}

static sdx_id build_attention(sdx_builder *b, const sdx_settings *s, sdx_id x, sdx_id bias)
{
    const int64_t size = s->hidden / s->heads, sizes[] = {s->hidden, s->hidden, s->hidden};
    sdx_id part[3];
    sdx_build_split(b, "attn/Split", build_conv1d(b, "attn.c_attn", x), 2, 3, sizes, part);
    sdx_id q = sdx_build_heads_first(b, "attn", "q",
                                     sdx_build_split_heads(b, "attn", "q", part[0], s->heads, size), false);
    sdx_id k = sdx_build_heads_first(b, "attn", "k",
                                     sdx_build_split_heads(b, "attn", "k", part[1], s->heads, size), true);
    sdx_id v = sdx_build_heads_first(b, "attn", "v",
                                     sdx_build_split_heads(b, "attn", "v", part[2], s->heads, size), false);
    x = sdx_build_attend(b, "attn", sdx_build_scores(b, "attn", q, k, sqrt((double)size)), bias, v, s->hidden);
    return build_conv1d(b, "attn.c_proj", x);
}

static sdx_id build_layer(sdx_builder *b, const sdx_settings *s, sdx_id x, sdx_id bias)
{
    sdx_id y = build_attention(b, s, sdx_build_layer_norm(b, "ln_1", x, s->norm_epsilon), bias);
    x = sdx_build_op2(b, "Add", "attn/Add_residual", y, x);
    y = build_conv1d(b, "mlp.c_fc", sdx_build_layer_norm(b, "ln_2", x, s->norm_epsilon));
    y = build_conv1d(b, "mlp.c_proj", sdx_build_activation(b, "mlp.act", y, s->activation));
    return sdx_build_op2(b, "Add", "mlp/Add_residual", y, x);
}

static sdx_id build_body(sdx_builder *b, const sdx_settings *s, const sdx_text_inputs *in)
{
    sdx_id positions = sdx_build_positions(b, "position_ids", in->ids, s->positions);
    sdx_id x = sdx_build_op2(b, "Add", "embeddings/Add", sdx_build_embedding(b, "wte", in->ids),
                             sdx_build_embedding(b, "wpe", positions));
    x = sdx_build_layers(b, s, "h.", build_layer, x, build_bias(b, in->ids, in->mask));
    return sdx_build_layer_norm(b, "ln_f", x, s->norm_epsilon);
}

/* ---- as plain arithmetic --------------------------------------------------------------------------------- */

/* y [S, out] = x [S, in] W + b, W [in, out] */
static double *forward_conv1d(sdx_forward *f, const char *name, const double *x, int64_t in, int64_t out)
{
    char weight[64], bias[64];
    snprintf(weight, sizeof weight, "%s.weight", name);
    snprintf(bias, sizeof bias, "%s.bias", name);
    const double *w = sdx_forward_weight(f, weight), *shift = sdx_forward_weight(f, bias);
    double *y = sdx_forward_alloc(f, f->count * out);
    for (int64_t t = 0; f->status == SDX_OK && t < f->count; t++) {
        for (int64_t o = 0; o < out; o++) y[t * out + o] = shift[o];
        for (int64_t i = 0; i < in; i++)
            for (int64_t o = 0; o < out; o++) y[t * out + o] += x[t * in + i] * w[i * out + o];
    }
    return y;
}

/* Column `part` of three of x [S, 3, H] */
static double *take_part(sdx_forward *f, const sdx_settings *s, const double *x, int64_t part)
{
    int64_t H = s->hidden;
    double *y = sdx_forward_alloc(f, f->count * H);
    for (int64_t i = 0; f->status == SDX_OK && i < f->count * H; i++) y[i] = x[(i / H * 3 + part) * H + i % H];
    return y;
}

static void forward_layer(sdx_forward *f, const sdx_settings *s, double *x, const double *bias)
{
    int64_t H = s->hidden, size = H / s->heads;
    double *y = forward_conv1d(f, "attn.c_attn", sdx_forward_normalized(f, s, "ln_1", x), H, 3 * H);
    const double *q = take_part(f, s, y, 0), *k = take_part(f, s, y, 1), *v = take_part(f, s, y, 2);
    y = sdx_forward_attention(f, q, k, v, s->heads, size, sqrt((double)size), bias);
    sdx_forward_add(f, x, forward_conv1d(f, "attn.c_proj", y, H, H), f->count * H);
    y = forward_conv1d(f, "mlp.c_fc", sdx_forward_normalized(f, s, "ln_2", x), H, s->inner);
    sdx_forward_activation(f, y, f->count * s->inner, s->activation);
    sdx_forward_add(f, x, forward_conv1d(f, "mlp.c_proj", y, s->inner, H), f->count * H);
}

static double *forward_body(sdx_forward *f, const sdx_settings *s)
{
    int64_t S = f->count;
    double *x = sdx_forward_alloc(f, S * s->hidden), *bias = sdx_forward_alloc(f, s->heads * S * S);
    for (int64_t i = 0; f->status == SDX_OK && i < s->heads * S * S; i++)
        bias[i] = i % S > i / S % S ? -INFINITY : 0;
    sdx_forward_add_embedding(f, "wte", f->ids, x);
    sdx_forward_add_embedding(f, "wpe", NULL, x);
    sdx_forward_layers(f, s, "h.", forward_layer, x, bias);
    sdx_forward_layer_norm(f, "ln_f", x, S, s->norm_epsilon);
    return x;
}

/* ---- heads ----------------------------------------------------------------------------------------------- */

static const sdx_step language_model[] = {
    {SDX_STEP_WORDS, .name = "lm_head.bias", .part = DECODER, .untied = "lm_head.weight"},
    {SDX_STEP_OUTPUT, .name = "logits"},
    {.kind = SDX_STEP_END},
};

static const sdx_head heads[] = {
    SDX_HEAD("GPT2LMHeadModel", "text-generation", BODY, 0, DECODER, language_model),
    SDX_HEAD("GPT2Model", "feature-extraction", BODY, 0, 0, sdx_steps_hidden),
};

const sdx_family sdx_family_gpt2 = {
    .model_type = "gpt2",
    .prefix = "transformer.",
    .body = BODY,
    .head = heads,
    .n_head = sizeof heads / sizeof *heads,
    .row = rows,
    .n_row = sizeof rows / sizeof *rows,
    .read = read_settings,
    .words = "wte.weight",
    .build_body = build_body,
    .forward_body = forward_body,
};
