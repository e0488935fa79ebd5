/* bart.c: BART (Lewis et al. 2019, arXiv:1910.13461), mBART, Marian and Pegasus, as Hugging Face's
 * modeling_{bart,mbart,marian,pegasus}.py have them. They differ in where norms stand and in their positions;
 * the table `kinds` says how. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../../base/memory.h"
#include "../seq2seq.h"

enum {
    EMBEDDING_NORM = SDX_OWN_PART,
    FINAL_NORM = EMBEDDING_NORM << 1,
    POSITIONS = EMBEDDING_NORM << 2,
    LOGIT_BIAS = EMBEDDING_NORM << 3,
    SHARED = EMBEDDING_NORM << 4,   /* encoder and decoder have the same words */
    CLASSES = EMBEDDING_NORM << 6,  /* the layers of a classifier of texts */
    SEPARATE = EMBEDDING_NORM << 5, /* or words of their own, which then count: Marian's, and what is not tied */
};
enum { LAST_TOKEN = -1 }; /* of a text, padding left out, in place of a token that decoders start with */
static const double NORM_EPSILON = 1e-5; /* PyTorch's default: config.json has none */

static const struct kind {
    const char *model_type;
    unsigned parts;
    bool post_norm;
    int64_t offset; /* of the first position in its table; 0: the table is of sines, stored or not */
    bool wraps;     /* the decoder of a classifier starts with the text's last token: its language */
} kinds[] = {
    {"bart", EMBEDDING_NORM, true, 2, false},
    {"mbart", EMBEDDING_NORM | FINAL_NORM, false, 2, true},
    {"marian", 0, true, 0, false},
    {"pegasus", FINAL_NORM, false, 0, false},
};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

#define ENCODER_LAYER "encoder.layers.*."
#define DECODER_LAYER "decoder.layers.#."
#define ATTENTION_ROWS(name)                                                                                   \
    SDX_LINEAR_ROWS(name ".q_proj", "H", "H", BODY), SDX_LINEAR_ROWS(name ".k_proj", "H", "H", BODY),          \
        SDX_LINEAR_ROWS(name ".v_proj", "H", "H", BODY), SDX_LINEAR_ROWS(name ".out_proj", "H", "H", BODY),    \
        SDX_NORM_ROWS(name "_layer_norm", "H", BODY)

static const sdx_tensor_row rows[] = {
    SDX_WEIGHT_ROW("shared", "VH", BODY | SHARED),
    SDX_WEIGHT_ROW("encoder.embed_tokens", "VH", BODY | SEPARATE),
    SDX_WEIGHT_ROW("decoder.embed_tokens", "GH", BODY | SEPARATE),
    SDX_WEIGHT_ROW("encoder.embed_positions", "PH", POSITIONS),
    SDX_NORM_ROWS("encoder.layernorm_embedding", "H", BODY | EMBEDDING_NORM),
    ATTENTION_ROWS(ENCODER_LAYER "self_attn"),
    SDX_LINEAR_ROWS(ENCODER_LAYER "fc1", "I", "H", BODY),
    SDX_LINEAR_ROWS(ENCODER_LAYER "fc2", "H", "I", BODY),
    SDX_NORM_ROWS(ENCODER_LAYER "final_layer_norm", "H", BODY),
    SDX_NORM_ROWS("encoder.layer_norm", "H", BODY | FINAL_NORM),
    SDX_WEIGHT_ROW("decoder.embed_positions", "PH", POSITIONS),
    SDX_NORM_ROWS("decoder.layernorm_embedding", "H", BODY | EMBEDDING_NORM),
    ATTENTION_ROWS(DECODER_LAYER "self_attn"),
    ATTENTION_ROWS(DECODER_LAYER "encoder_attn"),
    SDX_LINEAR_ROWS(DECODER_LAYER "fc1", "J", "H", BODY),
    SDX_LINEAR_ROWS(DECODER_LAYER "fc2", "H", "J", BODY),
    SDX_NORM_ROWS(DECODER_LAYER "final_layer_norm", "H", BODY),
    SDX_NORM_ROWS("decoder.layer_norm", "H", BODY | FINAL_NORM),
    SDX_WEIGHT_ROW("lm_head", "GH", DECODER),
    {"final_logits_bias", "UG", SDX_FILL_BIAS, LOGIT_BIAS},
    SDX_LINEAR_ROWS("classification_head.dense", "H", "H", CLASSES),
    SDX_LINEAR_ROWS("classification_head.out_proj", "L", "H", CLASSES),
    SDX_LINEAR_ROWS("qa_outputs", "L", "H", SPANS),
};

static const sdx_layer_names encoder_layer = {
    .attention = "self_attn",
    .query = "self_attn.q_proj",
    .key = "self_attn.k_proj",
    .value = "self_attn.v_proj",
    .attention_out = "self_attn.out_proj",
    .attention_norm = "self_attn_layer_norm",
    .inner = "fc1",
    .outer = "fc2",
    .norm = "final_layer_norm",
};
static const sdx_attention_names self = {
    "self_attn", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj",
};
static const sdx_attention_names cross = {
    "encoder_attn",        "encoder_attn.q_proj",   "encoder_attn.k_proj",
    "encoder_attn.v_proj", "encoder_attn.out_proj",
};

/* ---- settings -------------------------------------------------------------------------------------------- */

static const sdx_config_field fields[] = {
    {"d_model", SDX_FIELD(hidden), 1024, 1, 1 << 16},
    {"encoder_layers", SDX_FIELD(layers), 12, 1, 1 << 10},
    {"decoder_layers", SDX_FIELD(decoder_layers), 12, 1, 1 << 10},
    {"encoder_attention_heads", SDX_FIELD(heads), 16, 1, 1 << 10},
    {"decoder_attention_heads", SDX_FIELD(decoder_heads), 16, 1, 1 << 10},
    {"encoder_ffn_dim", SDX_FIELD(inner), 4096, 1, 1 << 18},
    {"decoder_ffn_dim", SDX_FIELD(decoder_inner), 4096, 1, 1 << 18},
    {"vocab_size", SDX_FIELD(vocab), SDX_REQUIRED, 1, 1 << 24},
    {"max_position_embeddings", SDX_FIELD(positions), 1024, 1, 1 << 20},
    {"eos_token_id", SDX_FIELD(end), 2, 0, 1 << 24},
    {"decoder_start_token_id", SDX_FIELD(begin), 2, 0, 1 << 24},
    {"pad_token_id", SDX_FIELD(pad), 1, -1, 1 << 24},
};

static const struct kind *find_kind(const sdx_config *config)
{
    const char *type = sdx_config_string(config, "model_type");
    size_t i = 0;
    while (i + 1 < N_KINDS && strcmp(type, kinds[i].model_type)) i++;
    return &kinds[i];
}

/* Marian may keep the two languages' words apart, and score others than it reads. */
static sdx_status read_words(const sdx_config *config, sdx_settings *s, sdx_error *err)
{
    const sdx_config_field words = {"decoder_vocab_size", SDX_FIELD(decoder_vocab), s->vocab, 1, 1 << 24};
    TRY(sdx_config_read_fields(config, &words, 1, s, err));
    s->parts |= sdx_config_read_bool(config, "share_encoder_decoder_embeddings", true) ? SHARED : SEPARATE;
    s->tied = sdx_config_read_bool(config, "tie_word_embeddings", true);
    if (!s->tied || s->decoder_vocab == s->vocab) return SDX_OK;
    return sdx_fail(err, SDX_ERR_FILE,
                    "%s: words that are tied cannot be %lld for the encoder and %lld for the decoder", config->path,
                    (long long)s->vocab, (long long)s->decoder_vocab);
}

/* The module of a stack's words; tied ones score as well. */
static const char *words_of(unsigned parts, bool decoder)
{
    return !(parts & SEPARATE) ? "shared" : decoder ? "decoder.embed_tokens" : "encoder.embed_tokens";
}

static const char *scores_of(const sdx_settings *s, unsigned parts)
{
    return !s->tied ? "lm_head.weight" : parts & SHARED ? "shared.weight" : "decoder.embed_tokens.weight";
}

static sdx_status read_settings(const sdx_config *config, sdx_settings *s, sdx_error *err)
{
    const struct kind *kind = find_kind(config);
    TRY(sdx_config_read_fields(config, fields, sizeof fields / sizeof *fields, s, err));
    TRY(sdx_config_check_heads(config, s, err));
    TRY(sdx_config_read_activation(config, "activation_function", SDX_GELU, &s->activation, err));
    TRY(sdx_config_read_labels(config, &s->labels, err));
    TRY(sdx_config_read_real(config, "init_std", 0.02, 1, &s->initializer_range, err));
    if (s->hidden % s->decoder_heads)
        return sdx_fail(err, SDX_ERR_FILE, "%s: %lld decoder attention heads do not divide the width %lld",
                        config->path, (long long)s->decoder_heads, (long long)s->hidden);
    s->norm_epsilon = NORM_EPSILON;
    s->parts = kind->parts;
    TRY(read_words(config, s, err));
    s->post_norm = kind->post_norm;
    s->offset = kind->offset;
    if (kind->wraps) s->begin = LAST_TOKEN;
    s->longest = s->positions;
    s->positions += kind->offset;
    s->embedding_scale = sdx_config_read_bool(config, "scale_embedding", false) ? sqrt((double)s->hidden) : 1;
    return SDX_OK;
}

/* Vaswani et al. 2017, but with all sines before all cosines. */
static double sine_position(int64_t position, int64_t i, int64_t hidden)
{
    int64_t half = (hidden + 1) / 2;
    double angle = (double)position / pow(10000, 2 * (double)(i % half) / (double)hidden);
    return i < half ? sin(angle) : cos(angle);
}

/* ---- as a graph ------------------------------------------------------------------------------------------ */

static sdx_id build_sines(sdx_builder *b, const sdx_settings *s)
{
    const int64_t dim[] = {s->positions, s->hidden}, n = dim[0] * dim[1];
    float *table = sdx_malloc((size_t)n * sizeof *table);
    if (!table) sdx_build_fail(b, SDX_ERR_MEMORY, "out of memory");
    for (int64_t i = 0; table && i < n; i++) table[i] = (float)sine_position(i / dim[1], i % dim[1], dim[1]);
    sdx_id id = table ? sdx_build_constant(b, "sine_positions", SDX_F32, 2, dim, table) : SDX_NONE;
    free(table);
    return id;
}

/* Words and positions, in scope "encoder." or "decoder.": ids [B, S], positions [S] -> [B, S, H] */
static sdx_id build_embeddings(sdx_builder *b, const sdx_settings *s, const char *scope, sdx_id ids,
                               sdx_id positions)
{
    sdx_build_scope(b, "%s", "");
    sdx_id x = sdx_build_embedding(b, words_of(b->parts, *scope == 'd'), ids);
    sdx_build_scope(b, "%s", scope);
    if (s->embedding_scale != 1)
        x = sdx_build_module_op2(b, "embed_tokens", "Mul", x, sdx_build_real(b, s->embedding_scale));
    if (s->offset)
        positions = sdx_build_module_op2(b, "embed_positions", "Add", positions, sdx_build_int(b, s->offset));
    sdx_id table = b->parts & POSITIONS ? sdx_build_weight(b, "embed_positions.weight") : build_sines(b, s);
    x = sdx_build_op2(b, "Add", "embeddings/Add", x,
                      sdx_build_module_op2(b, "embed_positions", "Gather", table, positions));
    return b->parts & EMBEDDING_NORM ? sdx_build_layer_norm(b, "layernorm_embedding", x, s->norm_epsilon) : x;
}

static sdx_id build_final_norm(sdx_builder *b, const sdx_settings *s, const char *name, sdx_id x)
{
    sdx_build_scope(b, "%s", "");
    return b->parts & FINAL_NORM ? sdx_build_layer_norm(b, name, x, s->norm_epsilon) : x;
}

static sdx_id build_encoder_layer(sdx_builder *b, const sdx_settings *s, sdx_id x, sdx_id bias)
{
    if (!s->post_norm) return sdx_build_pre_norm_layer(b, s, &encoder_layer, x, bias);
    return sdx_build_after_attention(b, s, &encoder_layer, x,
                                     sdx_build_self_attention(b, s, &encoder_layer, x, bias));
}

static sdx_id build_encoding(sdx_builder *b, const sdx_settings *s, const sdx_text_inputs *in)
{
    sdx_id x = build_embeddings(b, s, "encoder.", in->ids, sdx_build_range(b, "positions", in->ids));
    x = sdx_build_layers(b, s, "encoder.layers.", build_encoder_layer, x, sdx_build_attention_bias(b, in->mask));
    return build_final_norm(b, s, "encoder.layer_norm", x);
}

static void build_encoder(sdx_builder *b, const sdx_settings *s)
{
    sdx_text_inputs in = sdx_build_encoder_inputs(b);
    sdx_build_output(b, build_encoding(b, s, &in), "last_hidden_state", SDX_F32, 3,
                     (int64_t[]){SDX_BATCH, SDX_ENCODER_SEQUENCE, s->hidden});
}

/* A sublayer's way in and out: its norm is at one of the two. */
static sdx_id enter(sdx_builder *b, const sdx_settings *s, const char *norm, sdx_id x)
{
    return s->post_norm ? x : sdx_build_layer_norm(b, norm, x, s->norm_epsilon);
}

static sdx_id leave(sdx_builder *b, const sdx_settings *s, const char *norm, sdx_id x, sdx_id y)
{
    x = sdx_build_module_op2(b, norm, "Add", y, x);
    return s->post_norm ? sdx_build_layer_norm(b, norm, x, s->norm_epsilon) : x;
}

static sdx_id build_decoder_layer(sdx_builder *b, const sdx_settings *s, sdx_decoder_graph *d, sdx_id x,
                                  sdx_id bias)
{
    const char *of_self = "self_attn_layer_norm", *of_cross = "encoder_attn_layer_norm",
               *last = "final_layer_norm";
    sdx_build_scope(b, "decoder.layers.%d.", (int)d->layer);
    x = leave(b, s, of_self, x, sdx_build_decoder_self_attention(b, d, &self, enter(b, s, of_self, x), bias));
    x = leave(b, s, of_cross, x, sdx_build_decoder_cross_attention(b, d, &cross, enter(b, s, of_cross, x)));
    sdx_id y = sdx_build_linear(b, "fc1", enter(b, s, last, x));
    y = sdx_build_linear(b, "fc2", sdx_build_activation(b, "activation", y, s->activation));
    return leave(b, s, last, x, y);
}

/* queries [S], keys [K] -> [S, K]: 0, or -FLT_MAX for the future */
static sdx_id build_causal_bias(sdx_builder *b, sdx_id queries, sdx_id keys)
{
    const char *name = "causal_bias";
    sdx_id past = sdx_build_module_op2(b, name, "LessOrEqual", keys, sdx_build_unsqueeze(b, name, queries, 1));
    sdx_id in[] = {past, sdx_build_real(b, 0), sdx_build_real(b, -FLT_MAX)};
    return sdx_build_module_op(b, name, "Where", 3, in);
}

static sdx_id build_logits(sdx_builder *b, const sdx_settings *s, sdx_id x)
{
    x = sdx_build_module_op2(b, "lm_head", "MatMul", x,
                             sdx_build_transposed(b, scores_of(s, b->parts)));
    if (!(b->parts & LOGIT_BIAS)) return x;
    return sdx_build_module_op2(b, "lm_head", "Add", x, sdx_build_weight(b, "final_logits_bias"));
}

static sdx_decoder_graph decoder_of(const sdx_settings *s, bool with_past)
{
    int64_t size = s->hidden / s->decoder_heads;
    return (sdx_decoder_graph){.with_past = with_past,
                               .layers = s->decoder_layers,
                               .heads = s->decoder_heads,
                               .size = size,
                               .divisor = sqrt((double)size),
                               .vocab = s->decoder_vocab};
}

/* Behind begin or inside -> [B, S, H] */
static sdx_id build_decoding(sdx_builder *b, const sdx_settings *s, sdx_decoder_graph *d)
{
    sdx_id bias = build_causal_bias(b, d->queries, d->keys);
    sdx_id x = build_embeddings(b, s, "decoder.", d->ids, d->queries);
    for (; d->layer < d->layers; d->layer++) x = build_decoder_layer(b, s, d, x, bias);
    return build_final_norm(b, s, "decoder.layer_norm", x);
}

static void build_either_decoder(sdx_builder *b, const sdx_settings *s, bool with_past)
{
    sdx_decoder_graph d = decoder_of(s, with_past);
    sdx_build_decoder_begin(b, &d, s->hidden);
    sdx_build_decoder_end(b, &d, build_logits(b, s, build_decoding(b, s, &d)));
}

/* ids [B, S] -> [B, 1]: the last token that is no padding */
static sdx_id build_last_id(sdx_builder *b, const sdx_settings *s, sdx_id ids)
{
    const char *name = "decoder.last_token";
    sdx_id text = sdx_build_module_op2(b, name, "Equal", ids, sdx_build_int(b, s->pad));
    text = sdx_build_cast(b, name, sdx_build_module_op1(b, name, "Not", text), SDX_I64);
    sdx_id at = sdx_build_reduce(b, "ReduceSum", "decoder.last_token/ReduceSum", text, 1, true);
    at = sdx_build_module_op2(b, name, "Sub", at, sdx_build_int(b, 1));
    sdx_id last = sdx_build_module_op2(b, name, "GatherElements", ids, at);
    sdx_build_attr_int(b, "axis", 1);
    return last;
}

/* The text moved on by one token, behind the one that its decoder starts with: ids [B, S] -> the same */
static sdx_id build_shifted(sdx_builder *b, const sdx_settings *s, sdx_id ids)
{
    const char *name = "decoder.input_ids";
    if (s->begin != LAST_TOKEN) {
        sdx_id in[] = {ids, sdx_build_ints(b, 4, (int64_t[]){0, 1, 0, -1}), sdx_build_int(b, s->begin)};
        return sdx_build_module_op(b, name, "Pad", 3, in);
    }
    sdx_id first = build_last_id(b, s, ids);
    sdx_id rest = sdx_build_module_op2(b, name, "Pad", ids, sdx_build_ints(b, 4, (int64_t[]){0, 0, 0, -1}));
    sdx_id all = sdx_build_module_op2(b, name, "Concat", first, rest);
    sdx_build_attr_int(b, "axis", 1);
    return all;
}

/* A classifier's: the decoder reads the text once more, behind the token it starts with. */
static sdx_id build_body(sdx_builder *b, const sdx_settings *s, const sdx_text_inputs *in)
{
    sdx_decoder_graph d = decoder_of(s, false);
    sdx_id encoded = build_encoding(b, s, in);
    sdx_build_decoder_inside(b, &d, build_shifted(b, s, in->ids), in->mask, encoded);
    sdx_id x = build_decoding(b, s, &d);
    sdx_build_decoder_drop(&d);
    return x;
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

static void forward_layer(sdx_forward *f, const sdx_settings *s, double *x, const double *bias)
{
    if (s->post_norm)
        sdx_forward_after_attention(f, s, &encoder_layer, x,
                                    sdx_forward_self_attention(f, s, &encoder_layer, x, bias));
    else
        sdx_forward_pre_norm_layer(f, s, &encoder_layer, x, bias);
}

/* Of f->ids, in scope "encoder." or "decoder." */
static double *forward_embeddings(sdx_forward *f, const sdx_settings *s, const char *scope)
{
    int64_t H = s->hidden;
    double *x = sdx_forward_alloc(f, f->count * H);
    sdx_forward_add_embedding(f, words_of(f->parts, *scope == 'd'), f->ids, x);
    sdx_forward_scope(f, "%s", scope);
    const double *table = f->parts & POSITIONS ? sdx_forward_weight(f, "embed_positions.weight") : NULL;
    for (int64_t i = 0; f->status == SDX_OK && i < f->count * H; i++)
        x[i] = x[i] * s->embedding_scale + (table ? table[s->offset * H + i] : sine_position(i / H, i % H, H));
    if (f->parts & EMBEDDING_NORM)
        sdx_forward_layer_norm(f, "layernorm_embedding", x, f->count, s->norm_epsilon);
    sdx_forward_scope(f, "%s", "");
    return x;
}

static double *forward_encoding(sdx_forward *f, const sdx_settings *s)
{
    double *x = forward_embeddings(f, s, "encoder.");
    sdx_forward_layers(f, s, "encoder.layers.", forward_layer, x, NULL);
    if (f->parts & FINAL_NORM) sdx_forward_layer_norm(f, "encoder.layer_norm", x, f->count, s->norm_epsilon);
    return x;
}

static const double *forward_encoder(sdx_forward *f, const sdx_settings *s)
{
    const double *x = forward_encoding(f, s);
    f->rank = 2;
    f->dim[0] = f->count;
    f->dim[1] = s->hidden;
    return x;
}

static const double *forward_enter(sdx_forward *f, const sdx_settings *s, const char *norm, const double *x)
{
    return s->post_norm ? x : sdx_forward_normalized(f, s, norm, x);
}

/* x [S, H] += y */
static void forward_leave(sdx_forward *f, const sdx_settings *s, const char *norm, double *x, const double *y)
{
    sdx_forward_add(f, x, y, f->count * s->hidden);
    if (s->post_norm) sdx_forward_layer_norm(f, norm, x, f->count, s->norm_epsilon);
}

static void forward_decoder_layer(sdx_forward *f, const sdx_settings *s, double *x, const double *bias)
{
    const char *of_self = "self_attn_layer_norm", *of_cross = "encoder_attn_layer_norm", *last = "final_layer_norm";
    const sdx_decoder_graph d = decoder_of(s, false);
    const double *y = forward_enter(f, s, of_self, x);
    forward_leave(f, s, of_self, x, sdx_forward_decoder_attention(f, &d, &self, y, y, f->count, bias));
    y = forward_enter(f, s, of_cross, x);
    forward_leave(f, s, of_cross, x, sdx_forward_decoder_attention(f, &d, &cross, y, f->encoded, f->source, NULL));
    double *inner = sdx_forward_linear(f, "fc1", forward_enter(f, s, last, x), f->count);
    sdx_forward_activation(f, inner, f->count * s->decoder_inner, s->activation);
    forward_leave(f, s, last, x, sdx_forward_linear(f, "fc2", inner, f->count));
}

/* Of f->ids and f->encoded -> [S, H] */
static double *forward_decoding(sdx_forward *f, const sdx_settings *s)
{
    double *x = forward_embeddings(f, s, "decoder."), *bias = sdx_forward_causal_bias(f, s->decoder_heads);
    for (int64_t i = 0; i < s->decoder_layers; i++) {
        sdx_forward_scope(f, "decoder.layers.%d.", (int)i);
        forward_decoder_layer(f, s, x, bias);
    }
    sdx_forward_scope(f, "%s", "");
    if (f->parts & FINAL_NORM) sdx_forward_layer_norm(f, "decoder.layer_norm", x, f->count, s->norm_epsilon);
    return x;
}

/* The token a classifier's decoder starts with. */
static int64_t first_token(const sdx_settings *s, const int64_t *text, int64_t count)
{
    if (s->begin != LAST_TOKEN) return s->begin;
    int64_t words = 0;
    for (int64_t i = 0; i < count; i++) words += text[i] != s->pad;
    return text[words ? words - 1 : 0];
}

static double *forward_body(sdx_forward *f, const sdx_settings *s)
{
    const int64_t *text = f->ids;
    f->encoded = forward_encoding(f, s);
    f->source = f->count;
    int64_t *shifted = sdx_arena_array(f->arena, (size_t)f->count, sizeof *shifted);
    if (!shifted && f->status == SDX_OK) f->status = sdx_fail_memory(f->err, (size_t)f->count * sizeof *shifted);
    for (int64_t i = 0; shifted && i < f->count; i++) shifted[i] = i ? text[i - 1] : first_token(s, text, f->count);
    f->ids = shifted;
    double *x = forward_decoding(f, s);
    f->ids = text;
    return x;
}

static const double *forward_decoder(sdx_forward *f, const sdx_settings *s)
{
    double *x = forward_decoding(f, s);
    double *logits = sdx_forward_product(f, scores_of(s, f->parts), NULL, x, f->count);
    const double *shift = f->parts & LOGIT_BIAS ? sdx_forward_weight(f, "final_logits_bias") : NULL;
    for (int64_t i = 0; f->status == SDX_OK && shift && i < f->count * s->decoder_vocab; i++)
        logits[i] += shift[i % s->decoder_vocab];
    f->dim[1] = s->decoder_vocab;
    return logits;
}

/* ---- heads ----------------------------------------------------------------------------------------------- */

static const sdx_head_graph graphs[] = SDX_SEQ2SEQ_GRAPHS;

static const sdx_step classifier[] = {
    {.kind = SDX_STEP_END_TOKEN},
    {SDX_STEP_LINEAR, .name = "classification_head.dense"},
    {.kind = SDX_STEP_TANH},
    {SDX_STEP_LINEAR, .name = "classification_head.out_proj"},
    {SDX_STEP_OUTPUT, .name = "logits"},
    {.kind = SDX_STEP_END},
};

/* needs, may: parts besides the body */
#define HEAD(class, needs, may, separate) SDX_SEQ2SEQ_HEAD(class, BODY | (needs), LOGIT_BIAS | (may), separate)
/* Words that are not tied are three tables, or, as transformers saved them before, still one for both stacks. A bare
 * model, as BART's own checkpoints call themselves, scores with its words. */
#define HEADS(class, bare, needs, may)                                                                         \
    HEAD(class, needs, may, DECODER | SEPARATE), HEAD(class, needs, may, DECODER), HEAD(bare, needs, may, DECODER)
#define CLASSIFIES(class, of, head, steps)                                                                     \
    SDX_HEAD(class, of, BODY | POSITIONS | (head), 0, SEPARATE, steps),                                        \
        SDX_HEAD(class, of, BODY | POSITIONS | (head), 0, 0, steps)

static const sdx_head bart_heads[] = {
    HEADS("BartForConditionalGeneration", "BartModel", POSITIONS, 0),
    CLASSIFIES("BartForSequenceClassification", "text-classification", CLASSES, classifier),
    CLASSIFIES("BartForQuestionAnswering", "question-answering", SPANS, sdx_steps_spans),
};
static const sdx_head mbart_heads[] = {
    HEADS("MBartForConditionalGeneration", "MBartModel", POSITIONS, 0),
    CLASSIFIES("MBartForSequenceClassification", "text-classification", CLASSES, classifier),
    CLASSIFIES("MBartForQuestionAnswering", "question-answering", SPANS, sdx_steps_spans),
};
static const sdx_head marian_heads[] = {HEADS("MarianMTModel", "MarianModel", 0, POSITIONS)};
static const sdx_head pegasus_heads[] = {HEADS("PegasusForConditionalGeneration", "PegasusModel", 0, POSITIONS)};

#define FAMILY(name)                                                                                                   \
    const sdx_family sdx_family_##name = {                                                                             \
        SDX_FAMILY(#name, "model.", ~(unsigned)(DECODER | LOGIT_BIAS | CLASSES | SPANS), name##_heads, read_settings), \
        SDX_FAMILY_OF_STEPS(NULL),                                                                                     \
    }

FAMILY(bart);
FAMILY(mbart);
FAMILY(marian);
FAMILY(pegasus);
