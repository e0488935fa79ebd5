/* roberta.c: RoBERTa (Liu et al. 2019, arXiv:1907.11692), XLM-RoBERTa (Conneau et al. 2019, arXiv:1911.02116)
 * and CamemBERT (Martin et al. 2019, arXiv:1911.03894): BERT with positions counted from behind the padding
 * token's id, one token type and heads of their own, as Hugging Face's modeling_roberta.py has them. */
#include "../encoder.h"

static const sdx_tensor_row rows[] = {
    SDX_BERT_EMBEDDING_ROWS("H", BODY),
    SDX_BERT_LAYER_ROWS(BODY),
    SDX_LINEAR_ROWS("pooler.dense", "H", "H", POOLER),
    SDX_ROBERTA_HEAD_ROWS,
    SDX_COMMON_HEAD_ROWS,
};

static const sdx_config_field fields[] = {{"pad_token_id", SDX_FIELD(pad), 1, 0, 1 << 24}};

static sdx_status read_settings(const sdx_config *config, sdx_settings *s, sdx_error *err)
{
    TRY(sdx_bert_read_settings(config, s, err));
    TRY(sdx_config_read_fields(config, fields, 1, s, err));
    s->type_input = false; /* their tokenizers make none */
    s->longest = s->positions - s->pad - 1;
    if (s->longest < 1)
        return sdx_fail(err, SDX_ERR_FILE,
                        "%s: \"max_position_embeddings\" leaves no position behind \"pad_token_id\"",
                        config->path);
    return SDX_OK;
}

static sdx_id build_body(sdx_builder *b, const sdx_settings *s, const sdx_text_inputs *in)
{
    sdx_id positions = s->relative ? SDX_NONE : sdx_build_positions_of_tokens(b, "position_ids", in->ids, s->pad);
    sdx_id x = sdx_build_embeddings(b, s, in, positions);
    return sdx_build_layers(b, s, "encoder.layer.", sdx_build_bert_layer, x,
                            sdx_build_attention_bias(b, in->mask));
}

static double *forward_body(sdx_forward *f, const sdx_settings *s)
{
    double *x = sdx_forward_embeddings(f, s, sdx_forward_positions_of_tokens(f, s->pad));
    sdx_forward_layers(f, s, "encoder.layer.", sdx_forward_bert_layer, x, NULL);
    return x;
}

/* The three differ in tokenizer and training only. */
/* The three differ in their tokenizers alone. */
#define FAMILY(name, type, class)                                                                                      \
    static const sdx_head name##_heads[] = SDX_ROBERTA_HEADS(class);                                                   \
    const sdx_family sdx_family_##name = {                                                                             \
        SDX_FAMILY(type, "roberta.", BODY | POOLER, name##_heads, read_settings),                                      \
        SDX_FAMILY_OF_STEPS("embeddings.word_embeddings.weight"),                                                      \
    }

FAMILY(roberta, "roberta", "Roberta");
FAMILY(xlm_roberta, "xlm-roberta", "XLMRoberta");
FAMILY(camembert, "camembert", "Camembert");
