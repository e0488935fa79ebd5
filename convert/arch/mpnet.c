/* mpnet.c: MPNet (Song et al. 2020, arXiv:2004.09297): BERT with T5's relative positions as a bias of all
 * layers' attention, as Hugging Face's modeling_mpnet.py has it. */
#include "../encoder.h"

enum { PAD = 1, BUCKETS = 32, FARTHEST = 128 }; /* fixed there, whatever config.json says */

#define LAYER "encoder.layer.*."

static const sdx_tensor_row rows[] = {
    SDX_WEIGHT_ROW("embeddings.word_embeddings", "VH", BODY),
    SDX_WEIGHT_ROW("embeddings.position_embeddings", "PH", BODY),
    SDX_NORM_ROWS("embeddings.LayerNorm", "H", BODY),
    SDX_LINEAR_ROWS(LAYER "attention.attn.q", "H", "H", BODY),
    SDX_LINEAR_ROWS(LAYER "attention.attn.k", "H", "H", BODY),
    SDX_LINEAR_ROWS(LAYER "attention.attn.v", "H", "H", BODY),
    SDX_LINEAR_ROWS(LAYER "attention.attn.o", "H", "H", BODY),
    SDX_NORM_ROWS(LAYER "attention.LayerNorm", "H", BODY),
    SDX_LINEAR_ROWS(LAYER "intermediate.dense", "I", "H", BODY),
    SDX_LINEAR_ROWS(LAYER "output.dense", "H", "I", BODY),
    SDX_NORM_ROWS(LAYER "output.LayerNorm", "H", BODY),
    SDX_WEIGHT_ROW("encoder.relative_attention_bias", "RN", BODY),
    SDX_LINEAR_ROWS("pooler.dense", "H", "H", POOLER),
    SDX_ROBERTA_HEAD_ROWS,
    SDX_COMMON_HEAD_ROWS,
};

static const sdx_layer_names names = {
    .attention = "attention.attn",
    .query = "attention.attn.q",
    .key = "attention.attn.k",
    .value = "attention.attn.v",
    .attention_out = "attention.attn.o",
    .attention_norm = "attention.LayerNorm",
    .inner = "intermediate.dense",
    .outer = "output.dense",
    .norm = "output.LayerNorm",
};

static const sdx_config_field fields[] = {
    {"relative_attention_num_buckets", SDX_FIELD(buckets), BUCKETS, 1, 1 << 16},
};

static sdx_status read_settings(const sdx_config *config, sdx_settings *s, sdx_error *err)
{
    TRY(sdx_encoder_read_settings(config, s, err));
    TRY(sdx_config_read_fields(config, fields, 1, s, err));
    s->types = 0;
    s->type_input = false;
    s->longest = s->positions - PAD - 1;
    if (s->longest < 1 || s->buckets < BUCKETS)
        return sdx_fail(err, SDX_ERR_FILE,
                        "%s: an MPNet has at least 3 positions and %d buckets of relative ones", config->path,
                        BUCKETS);
    return SDX_OK;
}

/* ---- as a graph ------------------------------------------------------------------------------------------ */

/* Padding and relative positions in one: [B, N, S, S]. The constant says which bucket a clipped distance is in.
 */
static sdx_id build_bias(sdx_builder *b, const sdx_text_inputs *in)
{
    const char *name = "relative_attention_bias";
    int64_t bucket[2 * FARTHEST + 1],
        count = 2 * FARTHEST + 1; /* of distances from query to key, FARTHEST down */
    for (int64_t i = 0; i < count; i++) bucket[i] = sdx_relative_bucket(FARTHEST - i, BUCKETS, FARTHEST);
    sdx_build_scope(b, "encoder.");
    sdx_id distance = sdx_build_distances(b, name, sdx_build_range(b, name, in->ids), FARTHEST);
    sdx_id table = sdx_build_constant(b, "relative_buckets", SDX_I64, 1, &count, bucket);
    distance = sdx_build_op2(b, "Gather", "relative_attention_bias/Gather_bucket", table, distance);
    sdx_id bias = sdx_build_transposed(b, "relative_attention_bias.weight");
    bias = sdx_build_module_op2(b, name, "Gather", bias, distance);
    sdx_build_attr_int(b, "axis", 1);
    return sdx_build_module_op2(b, name, "Add", bias, sdx_build_attention_bias(b, in->mask));
}

static sdx_id build_layer(sdx_builder *b, const sdx_settings *s, sdx_id x, sdx_id bias)
{
    return sdx_build_after_attention(b, s, &names, x, sdx_build_self_attention(b, s, &names, x, bias));
}

static sdx_id build_body(sdx_builder *b, const sdx_settings *s, const sdx_text_inputs *in)
{
    sdx_id positions = sdx_build_positions_of_tokens(b, "position_ids", in->ids, PAD);
    sdx_id x = sdx_build_embeddings(b, s, in, positions);
    return sdx_build_layers(b, s, "encoder.layer.", build_layer, x, build_bias(b, in));
}

/* ---- as plain arithmetic --------------------------------------------------------------------------------- */

static double *forward_bias(sdx_forward *f, const sdx_settings *s)
{
    int64_t S = f->count;
    const double *table = sdx_forward_weight(f, "encoder.relative_attention_bias.weight"); /* [R, N] */
    double *bias = sdx_forward_alloc(f, s->heads * S * S);
    for (int64_t i = 0; f->status == SDX_OK && i < s->heads * S * S; i++) {
        int64_t head = i / (S * S), query = i / S % S, key = i % S;
        bias[i] = table[sdx_relative_bucket(key - query, BUCKETS, FARTHEST) * s->heads + head];
    }
    return bias;
}

static void forward_layer(sdx_forward *f, const sdx_settings *s, double *x, const double *bias)
{
    sdx_forward_after_attention(f, s, &names, x, sdx_forward_self_attention(f, s, &names, x, bias));
}

static double *forward_body(sdx_forward *f, const sdx_settings *s)
{
    double *x = sdx_forward_embeddings(f, s, sdx_forward_positions_of_tokens(f, PAD));
    sdx_forward_scope(f, "%s", "");
    sdx_forward_layers(f, s, "encoder.layer.", forward_layer, x, forward_bias(f, s));
    return x;
}

/* ---- heads: RoBERTa's ------------------------------------------------------------------------------------ */

static const sdx_head heads[] = SDX_ROBERTA_HEADS("MPNet");

const sdx_family sdx_family_mpnet = {
    SDX_FAMILY("mpnet", "mpnet.", BODY | POOLER, heads, read_settings),
    SDX_FAMILY_OF_STEPS("embeddings.word_embeddings.weight"),
};
