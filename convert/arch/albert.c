/* albert.c: ALBERT (Lan et al. 2019, arXiv:1909.11942): BERT with narrow embeddings and layers that share their
 * weights, as Hugging Face's modeling_albert.py has it. The graph holds each shared matrix once. */
#include "../encoder.h"

#define LAYER "encoder.albert_layer_groups.*.albert_layers.*."

static const sdx_tensor_row rows[] = {
    SDX_BERT_EMBEDDING_ROWS("E", BODY),
    SDX_LINEAR_ROWS("encoder.embedding_hidden_mapping_in", "H", "E", BODY),
    SDX_LINEAR_ROWS(LAYER "attention.query", "H", "H", BODY),
    SDX_LINEAR_ROWS(LAYER "attention.key", "H", "H", BODY),
    SDX_LINEAR_ROWS(LAYER "attention.value", "H", "H", BODY),
    SDX_WEIGHT_ROW(LAYER "attention.distance_embedding", "Yh", BODY | DISTANCES),
    SDX_LINEAR_ROWS(LAYER "attention.dense", "H", "H", BODY),
    SDX_NORM_ROWS(LAYER "attention.LayerNorm", "H", BODY),
    SDX_LINEAR_ROWS(LAYER "ffn", "I", "H", BODY),
    SDX_LINEAR_ROWS(LAYER "ffn_output", "H", "I", BODY),
    SDX_NORM_ROWS(LAYER "full_layer_layer_norm", "H", BODY),
    SDX_LINEAR_ROWS("pooler", "H", "H", POOLER),
    SDX_LINEAR_ROWS("predictions.dense", "E", "H", MLM),
    SDX_NORM_ROWS("predictions.LayerNorm", "E", MLM),
    SDX_WEIGHT_ROW("predictions.decoder", "VE", DECODER),
    SDX_BIAS_ROW("predictions", "V", MLM),
    SDX_COMMON_HEAD_ROWS,
};

static const sdx_layer_names names = {
    .attention = "attention",
    .query = "attention.query",
    .key = "attention.key",
    .value = "attention.value",
    .attention_out = "attention.dense",
    .attention_norm = "attention.LayerNorm",
    .inner = "ffn",
    .outer = "ffn_output",
    .norm = "full_layer_layer_norm",
};

static const sdx_config_field fields[] = {
    {"embedding_size", SDX_FIELD(embedding), 128, 1, 1 << 16},
    {"num_hidden_groups", SDX_FIELD(stacks), 1, 1, 1 << 10},
    {"inner_group_num", SDX_FIELD(inner_groups), 1, 1, 1 << 10},
};

static sdx_status read_settings(const sdx_config *config, sdx_settings *s, sdx_error *err)
{
    TRY(sdx_bert_read_settings(config, s, err));
    TRY(sdx_config_read_activation(config, "hidden_act", SDX_GELU_TANH, &s->activation, err));
    TRY(sdx_config_read_fields(config, fields, sizeof fields / sizeof *fields, s, err));
    s->relative_whole = true;
    s->depth = s->layers;
    s->layers = s->stacks * s->inner_groups;
    if (s->stacks <= s->depth) return SDX_OK;
    return sdx_fail(err, SDX_ERR_FILE, "%s: has more groups of layers than layers", config->path);
}

#define SCOPE "encoder.albert_layer_groups.%d.albert_layers.%d."

/* The group that is run as number i of the depth. */
static int group_of(const sdx_settings *s, int64_t i)
{
    return (int)(i * s->stacks / s->depth);
}

static sdx_id build_body(sdx_builder *b, const sdx_settings *s, const sdx_text_inputs *in)
{
    sdx_id positions = s->relative ? SDX_NONE : sdx_build_positions(b, "position_ids", in->ids, s->positions);
    sdx_id x = sdx_build_embeddings(b, s, in, positions);
    sdx_build_scope(b, "encoder.");
    x = sdx_build_linear(b, "embedding_hidden_mapping_in", x);
    sdx_id bias = sdx_build_attention_bias(b, in->mask);
    for (int64_t i = 0; i < s->depth; i++) {
        for (int64_t inner = 0; inner < s->inner_groups; inner++) {
            sdx_build_scope(b, SCOPE, group_of(s, i), (int)inner);
            x = sdx_build_after_attention(b, s, &names, x, sdx_build_self_attention(b, s, &names, x, bias));
        }
    }
    return x;
}

static double *forward_body(sdx_forward *f, const sdx_settings *s)
{
    double *x = sdx_forward_embeddings(f, s, NULL);
    sdx_forward_scope(f, "encoder.");
    x = sdx_forward_linear(f, "embedding_hidden_mapping_in", x, f->count);
    for (int64_t i = 0; i < s->depth; i++) {
        for (int64_t inner = 0; inner < s->inner_groups; inner++) {
            sdx_arena_mark mark = sdx_arena_get_mark(f->arena);
            sdx_forward_scope(f, SCOPE, group_of(s, i), (int)inner);
            sdx_forward_after_attention(f, s, &names, x, sdx_forward_self_attention(f, s, &names, x, NULL));
            sdx_arena_reset(f->arena, mark);
        }
    }
    return x;
}

static const sdx_step model[] = SDX_MODEL_STEPS("pooler");
static const sdx_step masked_lm[] =
    SDX_LM_STEPS("predictions.dense", SDX_STEP_ACT, "predictions.LayerNorm", "predictions.bias",
                 "predictions.decoder.weight");
static const sdx_step classifier[] = SDX_CLASSIFIER_STEPS("pooler", SDX_STEP_TANH, "classifier");
static const sdx_step choice[] = SDX_CHOICE_STEPS("pooler", SDX_STEP_TANH);

static const sdx_head heads[] = {
    SDX_HEAD("AlbertModel", "feature-extraction", BODY, POOLER, 0, model),
    SDX_HEAD("AlbertForMaskedLM", "fill-mask", BODY | MLM, 0, DECODER, masked_lm),
    SDX_HEAD("AlbertForPreTraining", "fill-mask", BODY | MLM, 0, DECODER, masked_lm),
    SDX_HEAD("AlbertForSequenceClassification", "text-classification", BODY | POOLER | CLASSIFIER, 0, 0,
             classifier),
    SDX_COMMON_HEADS("Albert"),
    SDX_HEAD("AlbertForMultipleChoice", "multiple-choice", BODY | POOLER | CHOICE, 0, 0, choice),
};

const sdx_family sdx_family_albert = {
    SDX_FAMILY("albert", "albert.", BODY | POOLER, heads, read_settings),
    SDX_FAMILY_OF_STEPS("embeddings.word_embeddings.weight"),
};
