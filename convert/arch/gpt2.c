/* gpt2.c: GPT-2 (Radford et al. 2019), as Hugging Face's modeling_gpt2.py has it: norms stand before what they
 * feed, a token sees those before it, and matrices are stored [in, out], as graphs want them. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "../../base/memory.h"
#include "../seq2seq.h"

enum { SCORE = SDX_OWN_PART }; /* of the last token */

#define LAYER                      "h.*."
#define CONV1D_ROWS(name, in, out) SDX_WEIGHT_ROW(name, in out, BODY), SDX_BIAS_ROW(name, out, BODY)

static const sdx_tensor_row rows[] = {
    SDX_WEIGHT_ROW("wte", "VH", BODY),          SDX_WEIGHT_ROW("wpe", "PH", BODY),
    SDX_NORM_ROWS(LAYER "ln_1", "H", BODY),     CONV1D_ROWS(LAYER "attn.c_attn", "H", "3H"),
    CONV1D_ROWS(LAYER "attn.c_proj", "H", "H"), SDX_NORM_ROWS(LAYER "ln_2", "H", BODY),
    CONV1D_ROWS(LAYER "mlp.c_fc", "H", "I"),    CONV1D_ROWS(LAYER "mlp.c_proj", "I", "H"),
    SDX_NORM_ROWS("ln_f", "H", BODY),           SDX_WEIGHT_ROW("lm_head", "VH", DECODER),
    SDX_WEIGHT_ROW("score", "LH", SCORE),       SDX_COMMON_HEAD_ROWS,
};

static const sdx_config_field fields[] = {
    {"n_embd", SDX_FIELD(hidden), SDX_REQUIRED, 1, 1 << 16},
    {"n_layer", SDX_FIELD(layers), SDX_REQUIRED, 1, 1 << 10},
    {"n_head", SDX_FIELD(heads), SDX_REQUIRED, 1, 1 << 10},
    {"n_inner", SDX_FIELD(inner), 0, 1, 1 << 18},
    {"vocab_size", SDX_FIELD(vocab), SDX_REQUIRED, 1, 1 << 24},
    {"n_positions", SDX_FIELD(positions), 1024, 1, 1 << 20},
    {"pad_token_id", SDX_FIELD(pad), -1, 0, 1 << 24},
};

static sdx_status read_settings(const sdx_config *config, sdx_settings *s, sdx_error *err)
{
    TRY(sdx_config_read_fields(config, fields, sizeof fields / sizeof *fields, s, err));
    TRY(sdx_config_check_heads(config, s, err));
    TRY(sdx_config_read_activation(config, "activation_function", SDX_GELU_TANH, &s->activation, err));
    TRY(sdx_config_read_real(config, "layer_norm_epsilon", 1e-5, 1, &s->norm_epsilon, err));
    TRY(sdx_config_read_real(config, "initializer_range", 0.02, 1, &s->initializer_range, err));
    TRY(sdx_config_read_labels(config, &s->labels, err));
    if (sdx_config_read_bool(config, "add_cross_attention", false))
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "%s: GPT-2 is known without cross attention only", config->path);
    s->plain_scores = !sdx_config_read_bool(config, "scale_attn_weights", true);
    s->layer_scores = sdx_config_read_bool(config, "scale_attn_by_inverse_layer_idx", false);
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

/* What scores are divided by in this layer. */
static double divisor_of(const sdx_settings *s, int64_t layer)
{
    double root = s->plain_scores ? 1 : sqrt((double)(s->hidden / s->heads));
    return s->layer_scores ? root * (double)(layer + 1) : root;
}

/* The layers' keys and values [B, N, .., size], key and value in turn: those of tokens before these, and those
 * of all. */
typedef struct cache {
    sdx_id *past, *present; /* [2 * layers] */
} cache;

/* queries [S], keys [K] and mask [B, K] -> [B, 1, S, K]. The future is -inf, padding -FLT_MAX: a row of padding
 * in front, which sees nothing, then gets the mean of the padding before it, as in PyTorch. The diagonal is
 * never -inf. */
static sdx_id build_bias(sdx_builder *b, sdx_id queries, sdx_id keys, sdx_id mask)
{
    const char *name = "causal_bias";
    sdx_id past = sdx_build_module_op2(b, name, "LessOrEqual", keys, sdx_build_unsqueeze(b, name, queries, 1));
    sdx_id in[] = {past, sdx_build_real(b, 0), sdx_build_real(b, -INFINITY)};
    sdx_id causal = sdx_build_module_op(b, name, "Where", 3, in);
    return sdx_build_module_op2(b, name, "Add", causal, sdx_build_attention_bias(b, mask));
}

/* x [B, S, H] -> [B, N, S, size]; swapped: [B, N, size, S] */
static sdx_id build_heads(sdx_builder *b, const sdx_settings *s, const char *suffix, sdx_id x, bool swapped)
{
    x = sdx_build_split_heads(b, "attn", suffix, x, s->heads, s->hidden / s->heads);
    return sdx_build_heads_first(b, "attn", suffix, x, swapped);
}

/* -> past and x, which becomes the present */
static sdx_id join(sdx_builder *b, const char *label, sdx_id past, sdx_id x, sdx_id *present)
{
    x = sdx_build_op2(b, "Concat", label, past, x);
    sdx_build_attr_int(b, "axis", 2);
    return *present = x;
}

/* c NULL: nothing is cached. */
static sdx_id build_attention(sdx_builder *b, const sdx_settings *s, int64_t layer, const cache *c, sdx_id x,
                              sdx_id bias)
{
    const int64_t sizes[] = {s->hidden, s->hidden, s->hidden}, at = 2 * layer;
    sdx_id part[3];
    sdx_build_split(b, "attn/Split", build_conv1d(b, "attn.c_attn", x), 2, 3, sizes, part);
    sdx_id q = build_heads(b, s, "q", part[0], false), k = build_heads(b, s, "k", part[1], !c),
           v = build_heads(b, s, "v", part[2], false);
    if (c) {
        k = join(b, "attn/Concat_k", c->past[at], k, &c->present[at]);
        v = join(b, "attn/Concat_v", c->past[at + 1], v, &c->present[at + 1]);
        k = sdx_build_transpose(b, "attn/Transpose_keys", k, 4, (int64_t[]){0, 1, 3, 2});
    }
    x = sdx_build_attend(b, "attn", sdx_build_scores(b, "attn", q, k, divisor_of(s, layer)), bias, v, s->hidden);
    return build_conv1d(b, "attn.c_proj", x);
}

static sdx_id build_layer(sdx_builder *b, const sdx_settings *s, int64_t layer, const cache *c, sdx_id x,
                          sdx_id bias)
{
    sdx_build_scope(b, "h.%d.", (int)layer);
    sdx_id y = build_attention(b, s, layer, c, sdx_build_layer_norm(b, "ln_1", x, s->norm_epsilon), bias);
    x = sdx_build_op2(b, "Add", "attn/Add_residual", y, x);
    y = build_conv1d(b, "mlp.c_fc", sdx_build_layer_norm(b, "ln_2", x, s->norm_epsilon));
    y = build_conv1d(b, "mlp.c_proj", sdx_build_activation(b, "mlp.act", y, s->activation));
    return sdx_build_op2(b, "Add", "mlp/Add_residual", y, x);
}

/* ids [B, S], positions [1 or B, S] -> [B, S, H] */
static sdx_id build_stack(sdx_builder *b, const sdx_settings *s, sdx_id ids, sdx_id positions, sdx_id bias,
                          const cache *c)
{
    sdx_id x = sdx_build_op2(b, "Add", "embeddings/Add", sdx_build_embedding(b, "wte", ids),
                             sdx_build_embedding(b, "wpe", positions));
    for (int64_t i = 0; i < s->layers; i++) x = build_layer(b, s, i, c, x, bias);
    sdx_build_scope(b, "%s", "");
    return sdx_build_layer_norm(b, "ln_f", x, s->norm_epsilon);
}

static sdx_id build_body(sdx_builder *b, const sdx_settings *s, const sdx_text_inputs *in)
{
    sdx_id positions = sdx_build_positions(b, "position_ids", in->ids, s->positions);
    sdx_id range = sdx_build_range(b, "causal_bias", in->ids);
    return build_stack(b, s, in->ids, positions, build_bias(b, range, range, in->mask), NULL);
}

/* ---- with a past: Optimum's names ------------------------------------------------------------------------ */

static const char *cached_name(char *name, size_t size, const char *kind, int64_t i)
{
    snprintf(name, size, "%s.%d.%s", kind, (int)(i / 2), i % 2 ? "value" : "key");
    return name;
}

static void add_past(sdx_builder *b, const sdx_settings *s, const cache *c)
{
    char name[64];
    const int64_t dim[] = {SDX_BATCH, s->heads, SDX_PAST_SEQUENCE, s->hidden / s->heads};
    for (int64_t i = 0; i < 2 * s->layers; i++) {
        c->past[i] = sdx_build_input(b, cached_name(name, sizeof name, "past_key_values", i), SDX_F32, 4, dim);
        c->present[i] = SDX_NONE;
    }
}

static void put_present(sdx_builder *b, const sdx_settings *s, const cache *c)
{
    char name[64];
    const int64_t dim[] = {SDX_BATCH, s->heads, SDX_PRESENT_SEQUENCE, s->hidden / s->heads};
    for (int64_t i = 0; b->status == SDX_OK && i < 2 * s->layers; i++)
        sdx_build_output(b, c->present[i], cached_name(name, sizeof name, "present", i), SDX_F32, 4, dim);
}

/* Positions of these tokens, which stand behind the past. ids [B, S], past [B, N, P, size] -> [S] */
static sdx_id build_queries(sdx_builder *b, sdx_id ids, sdx_id past)
{
    sdx_id shape = sdx_build_op1(b, "Shape", "queries/Shape_past", past);
    sdx_id before = sdx_build_op2(b, "Gather", "queries/Gather_past", shape, sdx_build_int(b, 2));
    return sdx_build_module_op2(b, "queries", "Add", sdx_build_range(b, "queries", ids), before);
}

static sdx_id build_logits(sdx_builder *b, const sdx_settings *s, sdx_id x)
{
    const char *matrix = s->tied ? "wte.weight" : "lm_head.weight";
    return sdx_build_op2(b, "MatMul", "lm_head/MatMul", x, sdx_build_transposed(b, matrix));
}

static void build_cached(sdx_builder *b, const sdx_settings *s, const cache *c)
{
    const int64_t row[] = {SDX_BATCH, SDX_SEQUENCE}, all[] = {SDX_BATCH, SDX_PRESENT_SEQUENCE};
    sdx_id ids = sdx_build_input(b, "input_ids", SDX_I64, 2, row);
    add_past(b, s, c);
    sdx_id mask = sdx_build_input(b, "attention_mask", SDX_I64, 2, all);
    sdx_id positions = sdx_build_input(b, "position_ids", SDX_I64, 2, row);
    sdx_id bias = build_bias(b, build_queries(b, ids, c->past[0]), sdx_build_range(b, "keys", mask), mask);
    sdx_id x = build_stack(b, s, ids, positions, bias, c);
    sdx_build_output(b, build_logits(b, s, x), "logits", SDX_F32, 3,
                     (int64_t[]){SDX_BATCH, SDX_SEQUENCE, s->vocab});
    put_present(b, s, c);
}

static void build_with_past(sdx_builder *b, const sdx_settings *s)
{
    size_t count = 2 * (size_t)s->layers;
    sdx_id *ids = sdx_malloc(2 * count * sizeof *ids);
    if (ids)
        build_cached(b, s, &(cache){ids, ids + count});
    else
        sdx_build_fail(b, SDX_ERR_MEMORY, "out of memory");
    free(ids);
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

static void forward_layer(sdx_forward *f, const sdx_settings *s, int64_t layer, double *x, const double *bias)
{
    int64_t H = s->hidden;
    sdx_forward_scope(f, "h.%d.", (int)layer);
    double *y = forward_conv1d(f, "attn.c_attn", sdx_forward_normalized(f, s, "ln_1", x), H, 3 * H);
    const double *q = take_part(f, s, y, 0), *k = take_part(f, s, y, 1), *v = take_part(f, s, y, 2);
    y = sdx_forward_attention(f, q, k, v, s->heads, H / s->heads, divisor_of(s, layer), bias);
    sdx_forward_add(f, x, forward_conv1d(f, "attn.c_proj", y, H, H), f->count * H);
    y = forward_conv1d(f, "mlp.c_fc", sdx_forward_normalized(f, s, "ln_2", x), H, s->inner);
    sdx_forward_activation(f, y, f->count * s->inner, s->activation);
    sdx_forward_add(f, x, forward_conv1d(f, "mlp.c_proj", y, s->inner, H), f->count * H);
}

static double *forward_body(sdx_forward *f, const sdx_settings *s)
{
    int64_t S = f->count;
    double *x = sdx_forward_alloc(f, S * s->hidden), *bias = sdx_forward_causal_bias(f, s->heads);
    sdx_forward_add_embedding(f, "wte", f->ids, x);
    sdx_forward_add_embedding(f, "wpe", NULL, x);
    for (int64_t i = 0; i < s->layers; i++) forward_layer(f, s, i, x, bias);
    sdx_forward_scope(f, "%s", "");
    sdx_forward_layer_norm(f, "ln_f", x, S, s->norm_epsilon);
    return x;
}

/* ---- heads ----------------------------------------------------------------------------------------------- */

static const sdx_step language_model[] = {
    {SDX_STEP_WORDS, .name = "lm_head.bias", .part = DECODER, .untied = "lm_head.weight"},
    {SDX_STEP_OUTPUT, .name = "logits"},
    {.kind = SDX_STEP_END},
};
static const sdx_step classifier[] = {
    {.kind = SDX_STEP_LAST},
    {SDX_STEP_LINEAR, .name = "score"},
    {SDX_STEP_OUTPUT, .name = "logits"},
    {.kind = SDX_STEP_END},
};

static const sdx_head heads[] = {
    SDX_HEAD("GPT2LMHeadModel", "text-generation", BODY, 0, DECODER, language_model),
    {.architecture = "GPT2LMHeadModel",
     .task = "text-generation-with-past",
     .required = BODY,
     .untied = DECODER,
     .step = language_model,
     .build = build_with_past,
     .forward = sdx_forward_steps},
    SDX_HEAD("GPT2ForSequenceClassification", "text-classification", BODY | SCORE, 0, 0, classifier),
    SDX_COMMON_HEADS("GPT2"),
    SDX_HEAD("GPT2Model", "feature-extraction", BODY, 0, 0, sdx_steps_hidden),
};

const sdx_family sdx_family_gpt2 = {
    SDX_FAMILY("gpt2", "transformer.", BODY, heads, read_settings),
    SDX_FAMILY_OF_STEPS("wte.weight"),
};
