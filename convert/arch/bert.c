/* bert.c: BERT (Devlin et al. 2018, arXiv:1810.04805) and its heads, as Hugging Face's modeling_bert.py has
 * them. */
#include <stddef.h>
#include <string.h>

#include "../family.h"

enum { BODY = 1, POOLER = 2, MLM = 4, DECODER = 8, CLASSIFIER = 16 };

/* ---- what is in a checkpoint ----------------------------------------------------------------------------- */

#define LAYER "encoder.layer.*."

static const sdx_tensor_row rows[] = {
    {"embeddings.word_embeddings.weight", "VH", SDX_FILL_WEIGHT, BODY},
    {"embeddings.position_embeddings.weight", "PH", SDX_FILL_WEIGHT, BODY},
    {"embeddings.token_type_embeddings.weight", "TH", SDX_FILL_WEIGHT, BODY},
    {"embeddings.LayerNorm.weight", "H", SDX_FILL_NORM, BODY},
    {"embeddings.LayerNorm.bias", "H", SDX_FILL_BIAS, BODY},

    {LAYER "attention.self.query.weight", "HH", SDX_FILL_WEIGHT, BODY},
    {LAYER "attention.self.query.bias", "H", SDX_FILL_BIAS, BODY},
    {LAYER "attention.self.key.weight", "HH", SDX_FILL_WEIGHT, BODY},
    {LAYER "attention.self.key.bias", "H", SDX_FILL_BIAS, BODY},
    {LAYER "attention.self.value.weight", "HH", SDX_FILL_WEIGHT, BODY},
    {LAYER "attention.self.value.bias", "H", SDX_FILL_BIAS, BODY},
    {LAYER "attention.output.dense.weight", "HH", SDX_FILL_WEIGHT, BODY},
    {LAYER "attention.output.dense.bias", "H", SDX_FILL_BIAS, BODY},
    {LAYER "attention.output.LayerNorm.weight", "H", SDX_FILL_NORM, BODY},
    {LAYER "attention.output.LayerNorm.bias", "H", SDX_FILL_BIAS, BODY},
    {LAYER "intermediate.dense.weight", "IH", SDX_FILL_WEIGHT, BODY},
    {LAYER "intermediate.dense.bias", "I", SDX_FILL_BIAS, BODY},
    {LAYER "output.dense.weight", "HI", SDX_FILL_WEIGHT, BODY},
    {LAYER "output.dense.bias", "H", SDX_FILL_BIAS, BODY},
    {LAYER "output.LayerNorm.weight", "H", SDX_FILL_NORM, BODY},
    {LAYER "output.LayerNorm.bias", "H", SDX_FILL_BIAS, BODY},

    {"pooler.dense.weight", "HH", SDX_FILL_WEIGHT, POOLER},
    {"pooler.dense.bias", "H", SDX_FILL_BIAS, POOLER},

    {"cls.predictions.transform.dense.weight", "HH", SDX_FILL_WEIGHT, MLM},
    {"cls.predictions.transform.dense.bias", "H", SDX_FILL_BIAS, MLM},
    {"cls.predictions.transform.LayerNorm.weight", "H", SDX_FILL_NORM, MLM},
    {"cls.predictions.transform.LayerNorm.bias", "H", SDX_FILL_BIAS, MLM},
    {"cls.predictions.decoder.weight", "VH", SDX_FILL_WEIGHT, DECODER},
    {"cls.predictions.bias", "V", SDX_FILL_BIAS, MLM},

    {"classifier.weight", "LH", SDX_FILL_WEIGHT, CLASSIFIER},
    {"classifier.bias", "L", SDX_FILL_BIAS, CLASSIFIER},
};

#define FIELD(member) offsetof(sdx_settings, member)

static const sdx_config_field fields[] = {
    {"hidden_size", FIELD(hidden), SDX_REQUIRED, 1 << 16},
    {"num_hidden_layers", FIELD(layers), SDX_REQUIRED, 1 << 10},
    {"num_attention_heads", FIELD(heads), SDX_REQUIRED, 1 << 10},
    {"intermediate_size", FIELD(inner), SDX_REQUIRED, 1 << 18},
    {"vocab_size", FIELD(vocab), SDX_REQUIRED, 1 << 24},
    {"max_position_embeddings", FIELD(positions), 512, 1 << 20},
    {"type_vocab_size", FIELD(types), 2, 1 << 10},
};

static sdx_status read_settings(const sdx_config *config, sdx_settings *s, sdx_error *err)
{
    const char *positions = sdx_config_string(config, "position_embedding_type");
    if (positions && strcmp(positions, "absolute"))
        return sdx_fail(err, SDX_ERR_UNSUPPORTED,
                        "%s: \"position_embedding_type\" is \"%.60s\"; only absolute is known", config->path,
                        positions);
    TRY(sdx_config_read_fields(config, fields, sizeof fields / sizeof *fields, s, err));
    TRY(sdx_config_check_heads(config, s, err));
    TRY(sdx_config_read_activation(config, "hidden_act", &s->activation, err));
    TRY(sdx_config_read_real(config, "layer_norm_eps", 1e-12, &s->norm_epsilon, err));
    TRY(sdx_config_read_real(config, "initializer_range", 0.02, &s->initializer_range, err));
    TRY(sdx_config_read_labels(config, &s->labels, err));
    s->tied = sdx_config_read_bool(config, "tie_word_embeddings", true);
    return SDX_OK;
}

/* The output matrix of the masked-LM head: Hugging Face ties it to the embedding, whatever else the file holds.
 */
static const char *decoder_weight(unsigned parts)
{
    return parts & DECODER ? "cls.predictions.decoder.weight" : "embeddings.word_embeddings.weight";
}

/* ---- as a graph ------------------------------------------------------------------------------------------ */

typedef struct inputs {
    sdx_id ids, mask, types; /* [B, S] */
} inputs;

static inputs add_inputs(sdx_builder *b)
{
    inputs in;
    in.ids = sdx_build_token_input(b, "input_ids");
    in.mask = sdx_build_token_input(b, "attention_mask");
    in.types = sdx_build_token_input(b, "token_type_ids");
    return in;
}

static sdx_id build_embeddings(sdx_builder *b, const sdx_settings *s, const inputs *in)
{
    sdx_build_scope(b, "embeddings.");
    sdx_id words = sdx_build_embedding(b, "word_embeddings", in->ids);
    sdx_id types = sdx_build_embedding(b, "token_type_embeddings", in->types);
    sdx_id positions = sdx_build_positions(b, "position_ids", in->ids, s->positions);
    positions = sdx_build_embedding(b, "position_embeddings", positions);
    sdx_id x = sdx_build_op2(b, "Add", "Add_types", words, types);
    x = sdx_build_op2(b, "Add", "Add_positions", x, positions);
    return sdx_build_layer_norm(b, "LayerNorm", x, s->norm_epsilon);
}

static sdx_id build_layer(sdx_builder *b, const sdx_settings *s, int64_t layer, sdx_id x, sdx_id bias)
{
    sdx_build_scope(b, "encoder.layer.%d.", (int)layer);
    sdx_id y = sdx_build_self_attention(b, "attention.self", x, bias, s->heads, s->hidden / s->heads);
    y = sdx_build_linear(b, "attention.output.dense", y);
    y = sdx_build_op2(b, "Add", "attention.output/Add_residual", y, x);
    x = sdx_build_layer_norm(b, "attention.output.LayerNorm", y, s->norm_epsilon);
    y = sdx_build_linear(b, "intermediate.dense", x);
    y = sdx_build_activation(b, "intermediate.activation", y, s->activation);
    y = sdx_build_linear(b, "output.dense", y);
    y = sdx_build_op2(b, "Add", "output/Add_residual", y, x);
    return sdx_build_layer_norm(b, "output.LayerNorm", y, s->norm_epsilon);
}

/* -> [B, S, H] */
static sdx_id build_body(sdx_builder *b, const sdx_settings *s, const inputs *in)
{
    sdx_id x = build_embeddings(b, s, in);
    sdx_build_scope(b, "encoder.");
    sdx_id bias = sdx_build_attention_bias(b, in->mask);
    for (int64_t i = 0; i < s->layers; i++) x = build_layer(b, s, i, x, bias);
    sdx_build_scope(b, "%s", "");
    return x;
}

/* -> [B, H] */
static sdx_id build_pooler(sdx_builder *b, sdx_id x)
{
    x = sdx_build_first_token(b, "pooler", x);
    x = sdx_build_linear_rows(b, "pooler.dense", x);
    return sdx_build_op1(b, "Tanh", "pooler.activation/Tanh", x);
}

static void build_model(sdx_builder *b, const sdx_settings *s, unsigned parts)
{
    inputs in = add_inputs(b);
    sdx_id x = build_body(b, s, &in);
    sdx_build_output(b, x, "last_hidden_state", SDX_F32, 3, (int64_t[]){SDX_BATCH, SDX_SEQUENCE, s->hidden});
    if (parts & POOLER)
        sdx_build_output(b, build_pooler(b, x), "pooler_output", SDX_F32, 2, (int64_t[]){SDX_BATCH, s->hidden});
}

static void build_masked_lm(sdx_builder *b, const sdx_settings *s, unsigned parts)
{
    inputs in = add_inputs(b);
    sdx_id x = build_body(b, s, &in);
    x = sdx_build_linear(b, "cls.predictions.transform.dense", x);
    x = sdx_build_activation(b, "cls.predictions.transform.activation", x, s->activation);
    x = sdx_build_layer_norm(b, "cls.predictions.transform.LayerNorm", x, s->norm_epsilon);
    x = sdx_build_op2(b, "MatMul", "cls.predictions.decoder/MatMul", x,
                      sdx_build_transposed(b, decoder_weight(parts)));
    x = sdx_build_op2(b, "Add", "cls.predictions.decoder/Add", x, sdx_build_weight(b, "cls.predictions.bias"));
    if (b->splade)
        sdx_build_splade(b, x, in.mask);
    else
        sdx_build_output(b, x, "logits", SDX_F32, 3, (int64_t[]){SDX_BATCH, SDX_SEQUENCE, s->vocab});
}

static void build_classifier(sdx_builder *b, const sdx_settings *s, unsigned parts)
{
    (void)parts;
    inputs in = add_inputs(b);
    sdx_id x = build_pooler(b, build_body(b, s, &in));
    x = sdx_build_linear_rows(b, "classifier", x);
    sdx_build_output(b, x, "logits", SDX_F32, 2, (int64_t[]){SDX_BATCH, s->labels});
}

/* ---- as plain arithmetic --------------------------------------------------------------------------------- */

/* x [S, H] in place */
static void forward_layer(sdx_forward *f, const sdx_settings *s, int64_t layer, double *x)
{
    sdx_forward_scope(f, "encoder.layer.%d.", (int)layer);
    sdx_arena_mark mark = sdx_arena_get_mark(f->arena);
    const double *q = sdx_forward_linear(f, "attention.self.query", x, f->count);
    const double *k = sdx_forward_linear(f, "attention.self.key", x, f->count);
    const double *v = sdx_forward_linear(f, "attention.self.value", x, f->count);
    double *y = sdx_forward_attention(f, q, k, v, s->heads, s->hidden / s->heads);
    y = sdx_forward_linear(f, "attention.output.dense", y, f->count);
    sdx_forward_add(f, x, y, f->count * s->hidden);
    sdx_forward_layer_norm(f, "attention.output.LayerNorm", x, f->count, s->norm_epsilon);
    y = sdx_forward_linear(f, "intermediate.dense", x, f->count);
    sdx_forward_activation(f, y, f->count * s->inner, s->activation);
    y = sdx_forward_linear(f, "output.dense", y, f->count);
    sdx_forward_add(f, x, y, f->count * s->hidden);
    sdx_forward_layer_norm(f, "output.LayerNorm", x, f->count, s->norm_epsilon);
    sdx_arena_reset(f->arena, mark);
}

/* -> [S, H] */
static double *forward_body(sdx_forward *f, const sdx_settings *s)
{
    double *x = sdx_forward_alloc(f, f->count * s->hidden);
    sdx_forward_scope(f, "embeddings.");
    sdx_forward_add_embedding(f, "word_embeddings", f->ids, x);
    sdx_forward_add_embedding(f, "token_type_embeddings", f->type_ids, x);
    sdx_forward_add_embedding(f, "position_embeddings", NULL, x);
    sdx_forward_layer_norm(f, "LayerNorm", x, f->count, s->norm_epsilon);
    for (int64_t i = 0; i < s->layers; i++) forward_layer(f, s, i, x);
    sdx_forward_scope(f, "%s", "");
    return x;
}

static void set_shape(sdx_forward *f, int rank, int64_t first, int64_t second)
{
    f->rank = rank;
    f->dim[0] = first;
    f->dim[1] = second;
}

static const double *forward_model(sdx_forward *f, const sdx_settings *s, unsigned parts)
{
    (void)parts;
    set_shape(f, 2, f->count, s->hidden);
    return forward_body(f, s);
}

static const double *forward_masked_lm(sdx_forward *f, const sdx_settings *s, unsigned parts)
{
    double *x = forward_body(f, s);
    x = sdx_forward_linear(f, "cls.predictions.transform.dense", x, f->count);
    sdx_forward_activation(f, x, f->count * s->hidden, s->activation);
    sdx_forward_layer_norm(f, "cls.predictions.transform.LayerNorm", x, f->count, s->norm_epsilon);
    x = sdx_forward_product(f, decoder_weight(parts), "cls.predictions.bias", x, f->count);
    set_shape(f, f->splade ? 1 : 2, f->splade ? s->vocab : f->count, s->vocab);
    return f->splade ? sdx_forward_splade(f, x, s->vocab) : x;
}

static const double *forward_classifier(sdx_forward *f, const sdx_settings *s, unsigned parts)
{
    (void)parts;
    double *x = sdx_forward_linear(f, "pooler.dense", forward_body(f, s), 1); /* row 0: the first token */
    sdx_forward_tanh(f, x, s->hidden);
    set_shape(f, 1, s->labels, 0);
    return sdx_forward_linear(f, "classifier", x, 1);
}

/* ---- the family ------------------------------------------------------------------------------------------ */

static const sdx_head heads[] = {
    {"BertModel", "feature-extraction", BODY, POOLER, 0, build_model, forward_model},
    {"BertForMaskedLM", "fill-mask", BODY | MLM, 0, DECODER, build_masked_lm, forward_masked_lm},
    {"BertForPreTraining", "fill-mask", BODY | MLM, 0, DECODER, build_masked_lm, forward_masked_lm},
    {"BertForSequenceClassification", "text-classification", BODY | POOLER | CLASSIFIER, 0, 0, build_classifier,
     forward_classifier},
};

const sdx_family sdx_family_bert = {
    .model_type = "bert",
    .prefix = "bert.",
    .body = BODY | POOLER,
    .head = heads,
    .n_head = sizeof heads / sizeof *heads,
    .row = rows,
    .n_row = sizeof rows / sizeof *rows,
    .read = read_settings,
};
