/* bert.c: BERT (Devlin et al. 2018, arXiv:1810.04805) and its heads, as Hugging Face's modeling_bert.py has
 * them. */
#include "../encoder.h"

enum { NEXT = SDX_OWN_PART }; /* whether the second text follows the first */

static const sdx_tensor_row rows[] = {
    SDX_BERT_EMBEDDING_ROWS("H", BODY),
    SDX_BERT_LAYER_ROWS(BODY),
    SDX_LINEAR_ROWS("pooler.dense", "H", "H", POOLER),
    SDX_LINEAR_ROWS("cls.predictions.transform.dense", "H", "H", MLM),
    SDX_NORM_ROWS("cls.predictions.transform.LayerNorm", "H", MLM),
    SDX_WEIGHT_ROW("cls.predictions.decoder", "VH", DECODER),
    SDX_BIAS_ROW("cls.predictions", "V", MLM),
    SDX_LINEAR_ROWS("cls.seq_relationship", "2U", "H", NEXT),
    SDX_COMMON_HEAD_ROWS,
};

static sdx_id build_body(sdx_builder *b, const sdx_settings *s, const sdx_text_inputs *in)
{
    sdx_id positions = s->relative ? SDX_NONE : sdx_build_positions(b, "position_ids", in->ids, s->positions);
    sdx_id x = sdx_build_embeddings(b, s, in, positions);
    return sdx_build_layers(b, s, "encoder.layer.", sdx_build_bert_layer, x,
                            sdx_build_attention_bias(b, in->mask));
}

static double *forward_body(sdx_forward *f, const sdx_settings *s)
{
    double *x = sdx_forward_embeddings(f, s, NULL);
    sdx_forward_layers(f, s, "encoder.layer.", sdx_forward_bert_layer, x, NULL);
    return x;
}

static const sdx_step masked_lm[] = {
    {SDX_STEP_LINEAR, .name = "cls.predictions.transform.dense"},
    {.kind = SDX_STEP_ACT},
    {SDX_STEP_NORM, .name = "cls.predictions.transform.LayerNorm"},
    {SDX_STEP_WORDS, .name = "cls.predictions.bias", .part = DECODER,
     .untied = "cls.predictions.decoder.weight"},
    {.kind = SDX_STEP_SPLADE},
    {.kind = SDX_STEP_END},
};
static const sdx_step classifier[] = {
    {.kind = SDX_STEP_FIRST},
    {SDX_STEP_LINEAR, .name = "pooler.dense"},
    {.kind = SDX_STEP_TANH},
    {SDX_STEP_LINEAR, .name = "classifier"},
    {SDX_STEP_OUTPUT, .name = "logits"},
    {.kind = SDX_STEP_END},
};
static const sdx_step next_sentence[] = {
    {.kind = SDX_STEP_FIRST},
    {SDX_STEP_LINEAR, .name = "pooler.dense"},
    {.kind = SDX_STEP_TANH},
    {SDX_STEP_LINEAR, .name = "cls.seq_relationship"},
    {SDX_STEP_OUTPUT, .name = "logits"},
    {.kind = SDX_STEP_END},
};

static const sdx_head heads[] = {
    SDX_HEAD("BertModel", "feature-extraction", BODY, POOLER, 0, sdx_steps_pooled),
    SDX_HEAD("BertForMaskedLM", "fill-mask", BODY | MLM, 0, DECODER, masked_lm),
    SDX_HEAD("BertForPreTraining", "fill-mask", BODY | MLM, 0, DECODER, masked_lm),
    SDX_HEAD("BertForSequenceClassification", "text-classification", BODY | POOLER | CLASSIFIER, 0, 0,
             classifier),
    SDX_HEAD("BertForTokenClassification", "token-classification", BODY | CLASSIFIER, 0, 0, sdx_steps_tokens),
    SDX_HEAD("BertForQuestionAnswering", "question-answering", BODY | SPANS, 0, 0, sdx_steps_spans),
    SDX_HEAD("BertForNextSentencePrediction", "next-sentence-prediction", BODY | POOLER | NEXT, 0, 0,
             next_sentence),
    SDX_HEAD("BertForMultipleChoice", "multiple-choice", BODY | POOLER | CHOICE, 0, 0, sdx_steps_choice),
};

const sdx_family sdx_family_bert = {
    .model_type = "bert",
    .prefix = "bert.",
    .body = BODY | POOLER,
    .head = heads,
    .n_head = sizeof heads / sizeof *heads,
    .row = rows,
    .n_row = sizeof rows / sizeof *rows,
    .read = sdx_bert_read_settings,
    .words = "embeddings.word_embeddings.weight",
    .build_body = build_body,
    .forward_body = forward_body,
};
