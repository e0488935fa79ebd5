/* deberta_v2.c: DeBERTa v2 and v3 (He et al. 2020, arXiv:2006.03654, and 2021, arXiv:2111.09543): attention in
 * which contents meet relative positions in both directions, as Hugging Face's modeling_deberta_v2.py has it.
 *
 *   scores_ij = (q_i k_j + q_i kr_d + k_j qr_d) / sqrt(size * terms),  d = bucket of i - j
 *
 * kr, qr [2 * span, H] are the embeddings of the buckets, projected as keys and as queries. Both products with
 * them are made for all buckets and gathered by one index [S, S] that all layers share. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../../base/memory.h"
#include "../encoder.h"

enum {
    POSITIONS = SDX_OWN_PART, /* absolute ones, added to the input */
    TYPES = 2 * SDX_OWN_PART,
    PROJECTION = 4 * SDX_OWN_PART, /* embeddings narrower than the layers */
    RELATIVE = 8 * SDX_OWN_PART,
    RELATIVE_NORM = 16 * SDX_OWN_PART,
    C2P = 32 * SDX_OWN_PART,      /* contents of the query meet positions */
    P2C = 64 * SDX_OWN_PART,      /* contents of the key do */
    OWN_KEY = 128 * SDX_OWN_PART, /* positions have projections of their own */
    CONVOLUTION = 256 * SDX_OWN_PART,
    LEGACY_MLM = 512 * SDX_OWN_PART,
};

#define LAYER "encoder.layer.*."

static const sdx_tensor_row rows[] = {
    SDX_WEIGHT_ROW("embeddings.word_embeddings", "VE", BODY),
    SDX_WEIGHT_ROW("embeddings.position_embeddings", "PE", BODY | POSITIONS),
    SDX_WEIGHT_ROW("embeddings.token_type_embeddings", "TE", BODY | TYPES),
    SDX_WEIGHT_ROW("embeddings.embed_proj", "HE", BODY | PROJECTION),
    SDX_NORM_ROWS("embeddings.LayerNorm", "H", BODY),
    SDX_LINEAR_ROWS(LAYER "attention.self.query_proj", "H", "H", BODY),
    SDX_LINEAR_ROWS(LAYER "attention.self.key_proj", "H", "H", BODY),
    SDX_LINEAR_ROWS(LAYER "attention.self.value_proj", "H", "H", BODY),
    SDX_LINEAR_ROWS(LAYER "attention.self.pos_key_proj", "H", "H", BODY | RELATIVE | OWN_KEY | C2P),
    SDX_LINEAR_ROWS(LAYER "attention.self.pos_query_proj", "H", "H", BODY | RELATIVE | OWN_KEY | P2C),
    SDX_AFTER_ATTENTION_ROWS(LAYER, BODY),
    {"encoder.rel_embeddings.weight", "2RH", SDX_FILL_WEIGHT, BODY | RELATIVE},
    SDX_NORM_ROWS("encoder.LayerNorm", "H", BODY | RELATIVE_NORM),
    SDX_LINEAR_ROWS("encoder.conv.conv", "H", "DK", BODY | CONVOLUTION),
    SDX_NORM_ROWS("encoder.conv.LayerNorm", "H", BODY | CONVOLUTION),
    SDX_LINEAR_ROWS("lm_predictions.lm_head.dense", "H", "H", MLM),
    SDX_NORM_ROWS("lm_predictions.lm_head.LayerNorm", "H", MLM),
    SDX_BIAS_ROW("lm_predictions.lm_head", "V", MLM),
    SDX_LINEAR_ROWS("cls.predictions.transform.dense", "E", "H", LEGACY_MLM),
    SDX_NORM_ROWS("cls.predictions.transform.LayerNorm", "E", LEGACY_MLM),
    SDX_WEIGHT_ROW("cls.predictions.decoder", "VE", DECODER),
    SDX_BIAS_ROW("cls.predictions", "V", LEGACY_MLM),
    SDX_LINEAR_ROWS("pooler.dense", "H", "H", POOLED),
    SDX_COMMON_HEAD_ROWS,
};

/* ---- settings -------------------------------------------------------------------------------------------- */

static const sdx_config_field fields[] = {
    {"type_vocab_size", SDX_FIELD(types), 0, 0, 1 << 10},
    {"position_buckets", SDX_FIELD(buckets), -1, 1, 1 << 16},
    {"max_relative_positions", SDX_FIELD(distance), -1, 1, 1 << 20},
    {"conv_kernel_size", SDX_FIELD(kernel), 0, 0, 1 << 10},
    {"conv_groups", SDX_FIELD(groups), 1, 1, 1 << 16},
};
static const sdx_config_field width_field = {"embedding_size", SDX_FIELD(embedding), 0, 1, 1 << 16};

static unsigned find_parts(const sdx_config *config, const sdx_settings *s)
{
    unsigned parts = 0;
    if (sdx_config_read_bool(config, "position_biased_input", true)) parts |= POSITIONS;
    if (s->types) parts |= TYPES;
    if (s->embedding != s->hidden) parts |= PROJECTION;
    if (sdx_config_read_bool(config, "relative_attention", false)) parts |= RELATIVE;
    if (sdx_config_lists(config, "norm_rel_ebd", "layer_norm")) parts |= RELATIVE_NORM;
    if (sdx_config_lists(config, "pos_att_type", "c2p")) parts |= C2P;
    if (sdx_config_lists(config, "pos_att_type", "p2c")) parts |= P2C;
    if (!sdx_config_read_bool(config, "share_att_key", false)) parts |= OWN_KEY;
    if (s->kernel) parts |= CONVOLUTION;
    return parts;
}

static sdx_status read_settings(const sdx_config *config, sdx_settings *s, sdx_error *err)
{
    TRY(sdx_encoder_read_settings(config, s, err));
    TRY(sdx_config_read_real(config, "layer_norm_eps", 1e-7, 1, &s->norm_epsilon, err));
    TRY(sdx_config_read_fields(config, fields, sizeof fields / sizeof *fields, s, err));
    TRY(sdx_config_read_fields(config, &width_field, 1, s, err));
    TRY(sdx_config_read_activation(config, "pooler_hidden_act", SDX_GELU, &s->head_activation, err));
    TRY(sdx_config_read_activation(config, "conv_act", SDX_TANH, &s->conv_activation, err));
    if (!s->embedding) s->embedding = s->hidden;
    s->type_input = s->types > 0;
    if (s->distance < 1) s->distance = s->positions;
    s->logarithmic = s->buckets > 0;
    if (!s->logarithmic) s->buckets = s->distance;
    s->parts = find_parts(config, s);
    if (s->hidden % s->groups || (s->kernel && s->kernel % 2 == 0))
        return sdx_fail(err, SDX_ERR_UNSUPPORTED,
                        "%s: the convolution's width must be odd and its groups must divide the hidden size",
                        config->path);
    if (s->logarithmic && s->buckets < 2)
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "%s: \"position_buckets\" must be at least 2", config->path);
    return SDX_OK;
}

/* sqrt(size * terms): each product that enters the scores adds to their variance. */
static double divisor(const sdx_settings *s, unsigned parts)
{
    int64_t terms = 1 + ((parts & C2P) != 0) + ((parts & P2C) != 0);
    return sqrt((double)(s->hidden / s->heads * terms));
}

/* Which of the 2 * R embeddings belongs to distance i - j of query and key: one each for the near half of the
 * buckets, then logarithmic steps. In float32, as PyTorch computes it. */
static int64_t bucket_of(const sdx_settings *s, int64_t distance)
{
    int64_t near = s->buckets / 2, far = distance < 0 ? -distance : distance, bucket = far;
    if (s->logarithmic && far > near && s->distance - 1 > near) {
        float whole = logf((float)(s->distance - 1) / (float)near);
        bucket = (int64_t)ceilf(logf((float)far / (float)near) / whole * (float)(near - 1)) + near;
    }
    int64_t at = s->buckets + (distance < 0 ? -bucket : bucket);
    return at < 0 ? 0 : at >= 2 * s->buckets ? 2 * s->buckets - 1 : at;
}

/* ---- as a graph ------------------------------------------------------------------------------------------ */

/* What all layers share. */
typedef struct shared {
    sdx_id bias;  /* [B, 1, S, S] */
    sdx_id index; /* [B, N, S, S] */
    sdx_id table; /* embeddings of the buckets, [2 * R, H] */
} shared;

static sdx_id build_embeddings(sdx_builder *b, const sdx_settings *s, const sdx_text_inputs *in)
{
    sdx_build_scope(b, "embeddings.");
    sdx_id x = sdx_build_embedding(b, "word_embeddings", in->ids);
    if (b->parts & POSITIONS) {
        sdx_id positions = sdx_build_positions(b, "position_ids", in->ids, s->positions);
        x = sdx_build_op2(b, "Add", "Add_positions", x,
                          sdx_build_embedding(b, "position_embeddings", positions));
    }
    if (b->parts & TYPES)
        x = sdx_build_op2(b, "Add", "Add_types", x, sdx_build_embedding(b, "token_type_embeddings", in->types));
    if (b->parts & PROJECTION) x = sdx_build_linear(b, "embed_proj", x);
    return sdx_build_layer_norm(b, "LayerNorm", x, s->norm_epsilon);
}

/* x [B, S, H] with zeros for padding; weight [B, S, 1] */
static sdx_id clear_padding(sdx_builder *b, const char *name, sdx_id x, sdx_id weight)
{
    return sdx_build_op2(b, "Mul", name, x, weight);
}

/* [B, 1, S, S]: 0 between tokens, else -FLT_MAX: padding attends to everything alike, as in Hugging Face. */
static sdx_id build_bias(sdx_builder *b, const sdx_text_inputs *in)
{
    const char *name = "attention_bias";
    sdx_id row = sdx_build_unsqueeze(b, name, sdx_build_unsqueeze(b, name, in->mask, 1), 2);
    sdx_id column = sdx_build_unsqueeze(b, name, sdx_build_unsqueeze(b, name, in->mask, 1), 3);
    return sdx_build_mask_bias(b, sdx_build_op2(b, "Mul", "attention_bias/Mul_pairs", row, column));
}

/* The bucket of each pair of tokens, for every head of every text: GatherElements does not broadcast. */
static sdx_id build_index(sdx_builder *b, const sdx_settings *s, const sdx_text_inputs *in, sdx_id bias)
{
    const char *name = "relative_positions";
    int64_t farthest = s->distance > s->buckets ? s->distance : s->buckets, count = 2 * farthest + 1;
    int64_t *table = sdx_calloc((size_t)count, sizeof *table);
    if (!table) sdx_build_fail(b, SDX_ERR_MEMORY, "out of memory");
    for (int64_t i = 0; table && i < count; i++) table[i] = bucket_of(s, i - farthest);
    sdx_id buckets = sdx_build_constant(b, "relative_buckets", SDX_I64, 1, &count, table);
    free(table);
    sdx_id distance = sdx_build_distances(b, name, sdx_build_range(b, name, in->ids), farthest);
    sdx_id index = sdx_build_module_op2(b, name, "Gather", buckets, distance);
    sdx_id shape = sdx_build_op1(b, "Shape", "relative_positions/Shape_bias", bias);
    shape = sdx_build_module_op2(b, name, "Mul", shape, sdx_build_ints(b, 4, (int64_t[]){1, s->heads, 1, 1}));
    return sdx_build_module_op2(b, name, "Expand", index, shape);
}

/* The buckets' embeddings [2 * R, H] as queries [1, N, 2 * R, size] or keys [1, N, size, 2 * R] */
static sdx_id project_positions(sdx_builder *b, const sdx_settings *s, const char *own, const char *same,
                                const char *suffix, sdx_id table, bool keys)
{
    sdx_id x =
        sdx_build_linear(b, b->parts & OWN_KEY ? own : same, sdx_build_unsqueeze(b, "positions", table, 0));
    x = sdx_build_split_heads(b, "attention.self", suffix, x, s->heads, s->hidden / s->heads);
    return sdx_build_heads_first(b, "attention.self", suffix, x, keys);
}

static sdx_id add_gathered(sdx_builder *b, const char *name, sdx_id scores, sdx_id all, sdx_id index,
                           int64_t axis)
{
    all = sdx_build_module_op2(b, name, "GatherElements", all, index);
    sdx_build_attr_int(b, "axis", axis);
    return sdx_build_module_op2(b, name, "Add", scores, all);
}

/* q [B, N, S, size], k [B, N, size, S] -> [B, N, S, S] */
static sdx_id build_scores(sdx_builder *b, const sdx_settings *s, const shared *with, sdx_id q, sdx_id k)
{
    sdx_id scores = sdx_build_op2(b, "MatMul", "attention.self/MatMul_qk", q, k);
    if (b->parts & RELATIVE && b->parts & C2P) {
        sdx_id keys = project_positions(b, s, "attention.self.pos_key_proj", "attention.self.key_proj", "kr",
                                        with->table, true);
        sdx_id all = sdx_build_op2(b, "MatMul", "attention.self/MatMul_c2p", q, keys); /* [B, N, S, 2 * R] */
        scores = add_gathered(b, "attention.self.c2p", scores, all, with->index, 3);
    }
    if (b->parts & RELATIVE && b->parts & P2C) {
        sdx_id queries = project_positions(b, s, "attention.self.pos_query_proj", "attention.self.query_proj",
                                           "qr", with->table, false);
        sdx_id all = sdx_build_op2(b, "MatMul", "attention.self/MatMul_p2c", queries, k); /* [B, N, 2 * R, S] */
        scores = add_gathered(b, "attention.self.p2c", scores, all, with->index, 2);
    }
    return sdx_build_module_op2(b, "attention.self", "Div", scores, sdx_build_real(b, divisor(s, b->parts)));
}

static sdx_id build_heads(sdx_builder *b, const sdx_settings *s, const char *module, const char *suffix,
                          sdx_id x)
{
    x = sdx_build_split_heads(b, "attention.self", suffix, sdx_build_linear(b, module, x), s->heads,
                              s->hidden / s->heads);
    return sdx_build_heads_first(b, "attention.self", suffix, x, suffix[0] == 'k');
}

static sdx_id build_layer(sdx_builder *b, const sdx_settings *s, const shared *with, sdx_id x)
{
    sdx_id q = build_heads(b, s, "attention.self.query_proj", "q", x);
    sdx_id k = build_heads(b, s, "attention.self.key_proj", "k", x);
    sdx_id v = build_heads(b, s, "attention.self.value_proj", "v", x);
    sdx_id scores = build_scores(b, s, with, q, k);
    sdx_id y = sdx_build_attend(b, "attention.self", scores, with->bias, v, s->hidden);
    return sdx_build_after_attention(b, s, &sdx_bert_layer, x, y);
}

/* v2's first layer also sees its input [B, S, H] through a window of neighbours. */
static sdx_id build_convolution(sdx_builder *b, const sdx_settings *s, sdx_id input, sdx_id output,
                                sdx_id weight)
{
    static const int64_t swap[] = {0, 2, 1};
    const int64_t pads[] = {s->kernel / 2, s->kernel / 2};
    sdx_build_scope(b, "encoder.conv.");
    sdx_id in[] = {sdx_build_transpose(b, "conv/Transpose", input, 3, swap), sdx_build_weight(b, "conv.weight"),
                   sdx_build_weight(b, "conv.bias")};
    sdx_id x = sdx_build_op(b, "Conv", "conv/Conv", 3, in);
    sdx_build_attr_ints(b, "pads", 2, pads);
    sdx_build_attr_int(b, "group", s->groups);
    x = sdx_build_transpose(b, "conv/Transpose_back", x, 3, swap);
    x = clear_padding(b, "conv/Mul_mask", x, weight);
    x = sdx_build_activation(b, "conv.activation", x, s->conv_activation);
    x = sdx_build_layer_norm(b, "LayerNorm", sdx_build_op2(b, "Add", "Add", output, x), s->norm_epsilon);
    return clear_padding(b, "Mul_mask", x, weight);
}

static sdx_id build_table(sdx_builder *b, const sdx_settings *s)
{
    sdx_build_scope(b, "encoder.");
    sdx_id table = sdx_build_weight(b, "rel_embeddings.weight");
    return b->parts & RELATIVE_NORM ? sdx_build_layer_norm(b, "LayerNorm", table, s->norm_epsilon) : table;
}

static sdx_id build_body(sdx_builder *b, const sdx_settings *s, const sdx_text_inputs *in)
{
    sdx_id x = build_embeddings(b, s, in);
    sdx_id weight = sdx_build_cast(b, "mask", sdx_build_unsqueeze(b, "mask", in->mask, 2), SDX_F32);
    x = clear_padding(b, "Mul_mask", x, weight);
    sdx_build_scope(b, "encoder.");
    shared with = {.bias = build_bias(b, in), .index = SDX_NONE, .table = SDX_NONE};
    if (b->parts & RELATIVE) {
        with.index = build_index(b, s, in, with.bias);
        with.table = build_table(b, s);
    }
    for (int64_t i = 0; i < s->layers; i++) {
        sdx_id input = x;
        sdx_build_scope(b, "encoder.layer.%d.", (int)i);
        x = build_layer(b, s, &with, x);
        if (i == 0 && b->parts & CONVOLUTION) x = build_convolution(b, s, input, x, weight);
    }
    return x;
}

/* ---- as plain arithmetic --------------------------------------------------------------------------------- */

static double *forward_embeddings(sdx_forward *f, const sdx_settings *s)
{
    double *x = sdx_forward_alloc(f, f->count * s->embedding);
    sdx_forward_scope(f, "embeddings.");
    sdx_forward_add_embedding(f, "word_embeddings", f->ids, x);
    if (f->parts & POSITIONS) sdx_forward_add_embedding(f, "position_embeddings", NULL, x);
    if (f->parts & TYPES) sdx_forward_add_embedding(f, "token_type_embeddings", f->type_ids, x);
    if (f->parts & PROJECTION) x = sdx_forward_linear(f, "embed_proj", x, f->count);
    sdx_forward_layer_norm(f, "LayerNorm", x, f->count, s->norm_epsilon);
    return x;
}

/* bias [N, S, S] += content_t . position_d for each pair of tokens i, j; t is i, or j if by_key */
static void add_products(sdx_forward *f, const sdx_settings *s, const double *content, const double *position,
                         bool by_key, double *bias)
{
    int64_t S = f->count, size = s->hidden / s->heads;
    for (int64_t at = 0; f->status == SDX_OK && at < s->heads * S * S; at++) {
        int64_t head = at / (S * S), i = at / S % S, j = at % S;
        const double *c = content + (by_key ? j : i) * s->hidden + head * size;
        const double *p = position + bucket_of(s, i - j) * s->hidden + head * size;
        for (int64_t n = 0; n < size; n++) bias[at] += c[n] * p[n] / divisor(s, f->parts);
    }
}

static double *forward_attention(sdx_forward *f, const sdx_settings *s, const double *x, const double *table)
{
    const double *q = sdx_forward_linear(f, "attention.self.query_proj", x, f->count);
    const double *k = sdx_forward_linear(f, "attention.self.key_proj", x, f->count);
    const double *v = sdx_forward_linear(f, "attention.self.value_proj", x, f->count);
    double *bias = sdx_forward_alloc(f, s->heads * f->count * f->count);
    bool own = f->parts & OWN_KEY;
    if (f->parts & RELATIVE && f->parts & C2P) {
        const char *name = own ? "attention.self.pos_key_proj" : "attention.self.key_proj";
        add_products(f, s, q, sdx_forward_linear(f, name, table, 2 * s->buckets), false, bias);
    }
    if (f->parts & RELATIVE && f->parts & P2C) {
        const char *name = own ? "attention.self.pos_query_proj" : "attention.self.query_proj";
        add_products(f, s, k, sdx_forward_linear(f, name, table, 2 * s->buckets), true, bias);
    }
    return sdx_forward_attention(f, q, k, v, s->heads, s->hidden / s->heads, divisor(s, f->parts), bias);
}

/* x += what the first layer made of its input, `output` */
static void forward_convolution(sdx_forward *f, const sdx_settings *s, const double *input, double *output)
{
    sdx_forward_scope(f, "encoder.conv.");
    double *x = sdx_forward_convolution(f, "conv", input, s->groups);
    sdx_forward_activation(f, x, f->count * s->hidden, s->conv_activation);
    sdx_forward_add(f, output, x, f->count * s->hidden);
    sdx_forward_layer_norm(f, "LayerNorm", output, f->count, s->norm_epsilon);
}

static double *forward_body(sdx_forward *f, const sdx_settings *s)
{
    double *x = forward_embeddings(f, s), *table = NULL, *input = sdx_forward_alloc(f, f->count * s->hidden);
    sdx_forward_scope(f, "encoder.");
    if (f->parts & RELATIVE) table = sdx_forward_weight(f, "rel_embeddings.weight");
    if (table && f->parts & RELATIVE_NORM)
        sdx_forward_layer_norm(f, "LayerNorm", table, 2 * s->buckets, s->norm_epsilon);
    sdx_forward_add(f, input, x, f->count * s->hidden);
    for (int64_t i = 0; i < s->layers; i++) {
        sdx_arena_mark mark = sdx_arena_get_mark(f->arena);
        sdx_forward_scope(f, "encoder.layer.%d.", (int)i);
        sdx_forward_after_attention(f, s, &sdx_bert_layer, x, forward_attention(f, s, x, table));
        if (i == 0 && f->parts & CONVOLUTION) forward_convolution(f, s, input, x);
        sdx_arena_reset(f->arena, mark);
    }
    return x;
}

/* ---- heads ----------------------------------------------------------------------------------------------- */

/* Microsoft's own head, and the one Hugging Face trains by default ("legacy" in config.json): as the file has
 * it. */
static const sdx_step microsoft_lm[] =
    SDX_LM_STEPS("lm_predictions.lm_head.dense", SDX_STEP_ACT, "lm_predictions.lm_head.LayerNorm",
                 "lm_predictions.lm_head.bias", NULL);
static const sdx_step masked_lm[] =
    SDX_LM_STEPS("cls.predictions.transform.dense", SDX_STEP_ACT, "cls.predictions.transform.LayerNorm",
                 "cls.predictions.bias", "cls.predictions.decoder.weight");
static const sdx_step classifier[] = SDX_CLASSIFIER_STEPS("pooler.dense", SDX_STEP_HEAD_ACT, "classifier");
static const sdx_step choice[] = SDX_CHOICE_STEPS("pooler.dense", SDX_STEP_HEAD_ACT);

static const sdx_head heads[] = {
    SDX_HEAD("DebertaV2Model", "feature-extraction", BODY, 0, 0, sdx_steps_hidden),
    SDX_HEAD("DebertaV2ForMaskedLM", "fill-mask", BODY | LEGACY_MLM, 0, DECODER, masked_lm),
    SDX_HEAD("DebertaV2ForMaskedLM", "fill-mask", BODY | MLM, 0, 0, microsoft_lm),
    SDX_HEAD("DebertaV2ForSequenceClassification", "text-classification", BODY | POOLED | CLASSIFIER, 0, 0,
             classifier),
    SDX_COMMON_HEADS("DebertaV2"),
    SDX_HEAD("DebertaV2ForMultipleChoice", "multiple-choice", BODY | POOLED | CHOICE, 0, 0, choice),
};

const sdx_family sdx_family_deberta_v2 = {
    SDX_FAMILY("deberta-v2", "deberta.", BODY, heads, read_settings),
    SDX_FAMILY_OF_STEPS("embeddings.word_embeddings.weight"),
};
