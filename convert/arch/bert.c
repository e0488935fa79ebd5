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

static const sdx_step masked_lm[] =
    SDX_LM_STEPS("cls.predictions.transform.dense", SDX_STEP_ACT, "cls.predictions.transform.LayerNorm",
                 "cls.predictions.bias", "cls.predictions.decoder.weight");
static const sdx_step classifier[] = SDX_CLASSIFIER_STEPS("pooler.dense", SDX_STEP_TANH, "classifier");
static const sdx_step next_sentence[] = SDX_CLASSIFIER_STEPS("pooler.dense", SDX_STEP_TANH, "cls.seq_relationship");

static const sdx_head heads[] = {
    SDX_HEAD("BertModel", "feature-extraction", BODY, POOLER, 0, sdx_steps_pooled),
    SDX_HEAD("BertForMaskedLM", "fill-mask", BODY | MLM, 0, DECODER, masked_lm),
    SDX_HEAD("BertForPreTraining", "fill-mask", BODY | MLM, 0, DECODER, masked_lm),
    SDX_HEAD("BertForSequenceClassification", "text-classification", BODY | POOLER | CLASSIFIER, 0, 0,
             classifier),
    SDX_COMMON_HEADS("Bert"),
    SDX_HEAD("BertForNextSentencePrediction", "next-sentence-prediction", BODY | POOLER | NEXT, 0, 0,
             next_sentence),
    SDX_HEAD("BertForMultipleChoice", "multiple-choice", BODY | POOLER | CHOICE, 0, 0, sdx_steps_choice),
};

const sdx_family sdx_family_bert = {
    SDX_FAMILY("bert", "bert.", BODY | POOLER, heads, sdx_bert_read_settings),
    SDX_FAMILY_OF_STEPS("embeddings.word_embeddings.weight"),
};
