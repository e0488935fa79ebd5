/* electra.c: ELECTRA (Clark et al. 2020, arXiv:2003.10555): BERT with narrow embeddings, a generator that fills
 * masks and a discriminator that finds what was filled, as Hugging Face's modeling_electra.py has them. */
#include "../encoder.h"

enum { PROJECTION = SDX_OWN_PART, REPLACED = 2 * SDX_OWN_PART, SUMMARY = 4 * SDX_OWN_PART };

static const sdx_tensor_row rows[] = {
    SDX_BERT_EMBEDDING_ROWS("E", BODY),
    SDX_LINEAR_ROWS("embeddings_project", "H", "E", BODY | PROJECTION),
    SDX_BERT_LAYER_ROWS(BODY),
    SDX_LINEAR_ROWS("generator_predictions.dense", "E", "H", MLM),
    SDX_NORM_ROWS("generator_predictions.LayerNorm", "E", MLM),
    SDX_WEIGHT_ROW("generator_lm_head", "VE", DECODER),
    SDX_BIAS_ROW("generator_lm_head", "V", MLM),
    SDX_LINEAR_ROWS("classifier.dense", "H", "H", POOLED),
    SDX_LINEAR_ROWS("classifier.out_proj", "L", "H", POOLED),
    SDX_COMMON_HEAD_ROWS,
    SDX_LINEAR_ROWS("sequence_summary.summary", "H", "H", SUMMARY),
    SDX_LINEAR_ROWS("discriminator_predictions.dense", "H", "H", REPLACED),
    SDX_LINEAR_ROWS("discriminator_predictions.dense_prediction", "U", "H", REPLACED),
};

static const sdx_config_field fields[] = {{"embedding_size", SDX_FIELD(embedding), 128, 1, 1 << 16}};

static sdx_status read_settings(const sdx_config *config, sdx_settings *s, sdx_error *err)
{
    TRY(sdx_bert_read_settings(config, s, err));
    TRY(sdx_config_read_fields(config, fields, 1, s, err));
    TRY(sdx_config_read_activation(config, "summary_activation", SDX_GELU, &s->head_activation, err));
    s->parts |= s->embedding != s->hidden ? PROJECTION : 0;
    return SDX_OK;
}

static sdx_id build_body(sdx_builder *b, const sdx_settings *s, const sdx_text_inputs *in)
{
    sdx_id positions = s->relative ? SDX_NONE : sdx_build_positions(b, "position_ids", in->ids, s->positions);
    sdx_id x = sdx_build_embeddings(b, s, in, positions);
    sdx_build_scope(b, "%s", "");
    if (b->parts & PROJECTION) x = sdx_build_linear(b, "embeddings_project", x);
    return sdx_build_layers(b, s, "encoder.layer.", sdx_build_bert_layer, x,
                            sdx_build_attention_bias(b, in->mask));
}

static double *forward_body(sdx_forward *f, const sdx_settings *s)
{
    double *x = sdx_forward_embeddings(f, s, NULL);
    sdx_forward_scope(f, "%s", "");
    if (f->parts & PROJECTION) x = sdx_forward_linear(f, "embeddings_project", x, f->count);
    sdx_forward_layers(f, s, "encoder.layer.", sdx_forward_bert_layer, x, NULL);
    return x;
}

static const sdx_step masked_lm[] =
    SDX_LM_STEPS("generator_predictions.dense", SDX_STEP_GELU, "generator_predictions.LayerNorm",
                 "generator_lm_head.bias", "generator_lm_head.weight");
static const sdx_step classifier[] = SDX_CLASSIFIER_STEPS("classifier.dense", SDX_STEP_GELU, "classifier.out_proj");
static const sdx_step replaced[] = {
    {SDX_STEP_LINEAR, .name = "discriminator_predictions.dense"},
    {.kind = SDX_STEP_ACT},
    {SDX_STEP_LINEAR, .name = "discriminator_predictions.dense_prediction"},
    {.kind = SDX_STEP_SQUEEZE},
    {SDX_STEP_OUTPUT, .name = "logits"},
    {.kind = SDX_STEP_END},
};
static const sdx_step choice[] = SDX_CHOICE_STEPS("sequence_summary.summary", SDX_STEP_HEAD_ACT);

static const sdx_head heads[] = {
    SDX_HEAD("ElectraModel", "feature-extraction", BODY, 0, 0, sdx_steps_hidden),
    SDX_HEAD("ElectraForMaskedLM", "fill-mask", BODY | MLM, 0, DECODER, masked_lm),
    SDX_HEAD("ElectraForPreTraining", "replaced-token-detection", BODY | REPLACED, 0, 0, replaced),
    SDX_HEAD("ElectraForSequenceClassification", "text-classification", BODY | POOLED, 0, 0, classifier),
    SDX_COMMON_HEADS("Electra"),
    SDX_HEAD("ElectraForMultipleChoice", "multiple-choice", BODY | SUMMARY | CHOICE, 0, 0, choice),
};

const sdx_family sdx_family_electra = {
    SDX_FAMILY("electra", "electra.", BODY, heads, read_settings),
    SDX_FAMILY_OF_STEPS("embeddings.word_embeddings.weight"),
};
