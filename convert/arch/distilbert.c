/* distilbert.c: DistilBERT (Sanh et al. 2019, arXiv:1910.01108): BERT with half the layers and no token types,
 * as Hugging Face's modeling_distilbert.py has it. */
#include "../encoder.h"

#define LAYER "transformer.layer.*."

static const sdx_tensor_row rows[] = {
    SDX_WEIGHT_ROW("embeddings.word_embeddings", "VH", BODY),
    SDX_WEIGHT_ROW("embeddings.position_embeddings", "PH", BODY),
    SDX_NORM_ROWS("embeddings.LayerNorm", "H", BODY),
    SDX_LINEAR_ROWS(LAYER "attention.q_lin", "H", "H", BODY),
    SDX_LINEAR_ROWS(LAYER "attention.k_lin", "H", "H", BODY),
    SDX_LINEAR_ROWS(LAYER "attention.v_lin", "H", "H", BODY),
    SDX_LINEAR_ROWS(LAYER "attention.out_lin", "H", "H", BODY),
    SDX_NORM_ROWS(LAYER "sa_layer_norm", "H", BODY),
    SDX_LINEAR_ROWS(LAYER "ffn.lin1", "I", "H", BODY),
    SDX_LINEAR_ROWS(LAYER "ffn.lin2", "H", "I", BODY),
    SDX_NORM_ROWS(LAYER "output_layer_norm", "H", BODY),
    SDX_LINEAR_ROWS("vocab_transform", "H", "H", MLM),
    SDX_NORM_ROWS("vocab_layer_norm", "H", MLM),
    SDX_WEIGHT_ROW("vocab_projector", "VH", DECODER),
    SDX_BIAS_ROW("vocab_projector", "V", MLM),
    SDX_LINEAR_ROWS("pre_classifier", "H", "H", POOLED),
    SDX_COMMON_HEAD_ROWS,
};

static const sdx_layer_names names = {
    .attention = "attention",
    .query = "attention.q_lin",
    .key = "attention.k_lin",
    .value = "attention.v_lin",
    .attention_out = "attention.out_lin",
    .attention_norm = "sa_layer_norm",
    .inner = "ffn.lin1",
    .outer = "ffn.lin2",
    .norm = "output_layer_norm",
};

static const sdx_config_field fields[] = {
    {"dim", SDX_FIELD(hidden), SDX_REQUIRED, 1, 1 << 16},
    {"n_layers", SDX_FIELD(layers), SDX_REQUIRED, 1, 1 << 10},
    {"n_heads", SDX_FIELD(heads), SDX_REQUIRED, 1, 1 << 10},
    {"hidden_dim", SDX_FIELD(inner), SDX_REQUIRED, 1, 1 << 18},
    {"vocab_size", SDX_FIELD(vocab), SDX_REQUIRED, 1, 1 << 24},
    {"max_position_embeddings", SDX_FIELD(positions), 512, 1, 1 << 20},
};

static sdx_status read_settings(const sdx_config *config, sdx_settings *s, sdx_error *err)
{
    TRY(sdx_config_read_fields(config, fields, sizeof fields / sizeof *fields, s, err));
    TRY(sdx_config_check_heads(config, s, err));
    TRY(sdx_config_read_activation(config, "activation", SDX_GELU, &s->activation, err));
    TRY(sdx_config_read_real(config, "initializer_range", 0.02, 1, &s->initializer_range, err));
    TRY(sdx_config_read_labels(config, &s->labels, err));
    s->norm_epsilon = 1e-12;
    s->tied = sdx_config_read_bool(config, "tie_word_embeddings", true);
    s->embedding = s->hidden;
    s->longest = s->positions;
    return SDX_OK;
}

static sdx_id build_layer(sdx_builder *b, const sdx_settings *s, sdx_id x, sdx_id bias)
{
    return sdx_build_after_attention(b, s, &names, x, sdx_build_self_attention(b, s, &names, x, bias));
}

static sdx_id build_body(sdx_builder *b, const sdx_settings *s, const sdx_text_inputs *in)
{
    sdx_id positions = sdx_build_positions(b, "position_ids", in->ids, s->positions);
    sdx_id x = sdx_build_embeddings(b, s, in, positions);
    return sdx_build_layers(b, s, "transformer.layer.", build_layer, x, sdx_build_attention_bias(b, in->mask));
}

static void forward_layer(sdx_forward *f, const sdx_settings *s, double *x, const double *bias)
{
    sdx_forward_after_attention(f, s, &names, x, sdx_forward_self_attention(f, s, &names, x, bias));
}

static double *forward_body(sdx_forward *f, const sdx_settings *s)
{
    double *x = sdx_forward_embeddings(f, s, NULL);
    sdx_forward_layers(f, s, "transformer.layer.", forward_layer, x, NULL);
    return x;
}

static const sdx_step masked_lm[] =
    SDX_LM_STEPS("vocab_transform", SDX_STEP_ACT, "vocab_layer_norm", "vocab_projector.bias", "vocab_projector.weight");
static const sdx_step classifier[] = SDX_CLASSIFIER_STEPS("pre_classifier", SDX_STEP_RELU, "classifier");
static const sdx_step choice[] = SDX_CHOICE_STEPS("pre_classifier", SDX_STEP_RELU);

static const sdx_head heads[] = {
    SDX_HEAD("DistilBertModel", "feature-extraction", BODY, 0, 0, sdx_steps_hidden),
    SDX_HEAD("DistilBertForMaskedLM", "fill-mask", BODY | MLM, 0, DECODER, masked_lm),
    SDX_HEAD("DistilBertForSequenceClassification", "text-classification", BODY | POOLED | CLASSIFIER, 0, 0,
             classifier),
    SDX_COMMON_HEADS("DistilBert"),
    SDX_HEAD("DistilBertForMultipleChoice", "multiple-choice", BODY | POOLED | CHOICE, 0, 0, choice),
};

const sdx_family sdx_family_distilbert = {
    SDX_FAMILY("distilbert", "distilbert.", BODY, heads, read_settings),
    SDX_FAMILY_OF_STEPS("embeddings.word_embeddings.weight"),
};
