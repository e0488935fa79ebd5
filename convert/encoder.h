/* encoder.h: what BERT and its descendants share, each thing twice: as a graph, and as plain arithmetic.
 *
 *   body: token ids --embeddings, layers--> last hidden state [B, S, H]. Functions of the family, made of pieces
 *         from here.
 *   head: last hidden state --steps--> outputs. A list that sdx_build_steps and sdx_forward_steps carry out.
 *
 * The two sides share names and lists, no code: the second is what the first is checked against. */
#ifndef SDX_CONVERT_ENCODER_H
#define SDX_CONVERT_ENCODER_H

#include "family.h"

/* ---- settings -------------------------------------------------------------------------------------------- */

/* Sizes by their usual names, with what each is where config.json does not say. */
#define SDX_SIZE_FIELDS(H, L, N, I)                                                                                    \
    {"hidden_size", SDX_FIELD(hidden), H, 1, 1 << 16}, {"num_hidden_layers", SDX_FIELD(layers), L, 1, 1 << 10},        \
        {"num_attention_heads", SDX_FIELD(heads), N, 1, 1 << 10}, {"intermediate_size", SDX_FIELD(inner), I, 1, 1 << 18}

/* The fields of config.json that BERT's descendants have in common, with BERT's defaults. */
sdx_status sdx_encoder_read_settings(const sdx_config *config, sdx_settings *settings, sdx_error *err);
/* And where the layers are BERT's: whether positions are absolute, or relative ones in each attention. */
sdx_status sdx_bert_read_settings(const sdx_config *config, sdx_settings *settings, sdx_error *err);

/* ---- tensors: rows of a family's table ------------------------------------------------------------------- */

/* The parts most families have; their own begin at SDX_OWN_PART. */
enum {
    BODY = 1,
    POOLER = 2,  /* a layer over the first token, which the bare model may have */
    MLM = 4,     /* the head that fills masks */
    DECODER = 8, /* its matrix, if that is not the word embedding */
    POOLED = 16, /* the classifier's layers that come before its last, if it has its own */
    CLASSIFIER = 32,
    SPANS = 64,      /* the head that answers questions */
    CHOICE = 128,    /* the last layer of the head that chooses among texts: one score */
    DISTANCES = 256, /* attention's table of relative positions */
    SDX_OWN_PART = 512,
};

#define SDX_WEIGHT_ROW(name, shape, part)                                                                      \
    {                                                                                                          \
        name ".weight", shape, SDX_FILL_WEIGHT, part                                                           \
    }
#define SDX_BIAS_ROW(name, shape, part)                                                                        \
    {                                                                                                          \
        name ".bias", shape, SDX_FILL_BIAS, part                                                               \
    }
#define SDX_LINEAR_ROWS(name, out, in, part) SDX_WEIGHT_ROW(name, out in, part), SDX_BIAS_ROW(name, out, part)
#define SDX_NORM_ROWS(name, width, part)                                                                       \
    {name ".weight", width, SDX_FILL_NORM, part}, SDX_BIAS_ROW(name, width, part)

/* BERT's embeddings and its layers, whose modules sdx_bert_layer names. */
#define SDX_BERT_EMBEDDING_ROWS(width, part)                                                                   \
    SDX_WEIGHT_ROW("embeddings.word_embeddings", "V" width, part),                                             \
        SDX_WEIGHT_ROW("embeddings.position_embeddings", "P" width, part),                                     \
        SDX_WEIGHT_ROW("embeddings.token_type_embeddings", "T" width, part),                                   \
        SDX_NORM_ROWS("embeddings.LayerNorm", width, part)
#define SDX_BERT_LAYER_ROWS(part)                                                                              \
    SDX_LINEAR_ROWS("encoder.layer.*.attention.self.query", "H", "H", part),                                   \
        SDX_LINEAR_ROWS("encoder.layer.*.attention.self.key", "H", "H", part),                                 \
        SDX_LINEAR_ROWS("encoder.layer.*.attention.self.value", "H", "H", part),                               \
        SDX_WEIGHT_ROW("encoder.layer.*.attention.self.distance_embedding", "Yh", (part) | DISTANCES),         \
        SDX_AFTER_ATTENTION_ROWS("encoder.layer.*.", part)
#define SDX_AFTER_ATTENTION_ROWS(layer, part)                                                                  \
    SDX_LINEAR_ROWS(layer "attention.output.dense", "H", "H", part),                                           \
        SDX_NORM_ROWS(layer "attention.output.LayerNorm", "H", part),                                          \
        SDX_LINEAR_ROWS(layer "intermediate.dense", "I", "H", part),                                           \
        SDX_LINEAR_ROWS(layer "output.dense", "H", "I", part),                                                 \
        SDX_NORM_ROWS(layer "output.LayerNorm", "H", part)

/* ---- layers ---------------------------------------------------------------------------------------------- */

/* Modules of a layer, by their names behind the layer's scope. */
typedef struct sdx_layer_names {
    const char *attention; /* labels nodes; its distance_embedding is the table of relative positions */
    const char *query, *key, *value;
    const char *attention_out, *attention_norm;
    const char *inner, *outer, *norm;
} sdx_layer_names;

extern const sdx_layer_names sdx_bert_layer;

/* Attention of x [B, S, H] to itself; bias [B, 1 or N, 1 or S, S] is added to the scores. */
sdx_id sdx_build_self_attention(sdx_builder *b, const sdx_settings *s, const sdx_layer_names *n, sdx_id x,
                                sdx_id bias);
/* From the attention's result to the end of a layer that normalizes after each residual (Vaswani et al. 2017).
 */
sdx_id sdx_build_after_attention(sdx_builder *b, const sdx_settings *s, const sdx_layer_names *n, sdx_id x,
                                 sdx_id attended);
/* A whole layer that normalizes in front of attention and feed-forward instead (Xiong et al. 2020). */
sdx_id sdx_build_pre_norm_layer(sdx_builder *b, const sdx_settings *s, const sdx_layer_names *n, sdx_id x,
                                sdx_id bias);
/* Layers "encoder.layer.0." on, with attention of its own kind per family. */
typedef sdx_id (*sdx_build_layer_fn)(sdx_builder *b, const sdx_settings *s, sdx_id x, sdx_id bias);
sdx_id sdx_build_layers(sdx_builder *b, const sdx_settings *s, const char *scope, sdx_build_layer_fn layer,
                        sdx_id x, sdx_id bias);
sdx_id sdx_build_bert_layer(sdx_builder *b, const sdx_settings *s, sdx_id x, sdx_id bias);

/* Words + token types + positions, if there are any, normalized: [B, S, E]. Without token types in the input, type 0.
 */
sdx_id sdx_build_embeddings(sdx_builder *b, const sdx_settings *s, const sdx_text_inputs *in, sdx_id positions);

/* The same in place, x and attended [S, H]; bias [N, S, S] or NULL. */
double *sdx_forward_self_attention(sdx_forward *f, const sdx_settings *s, const sdx_layer_names *n,
                                   const double *x, const double *bias);
void sdx_forward_after_attention(sdx_forward *f, const sdx_settings *s, const sdx_layer_names *n, double *x,
                                 const double *attended);
void sdx_forward_pre_norm_layer(sdx_forward *f, const sdx_settings *s, const sdx_layer_names *n, double *x,
                                const double *bias);
/* A copy of x [S, H], normalized. */
double *sdx_forward_normalized(sdx_forward *f, const sdx_settings *s, const char *name, const double *x);
typedef void (*sdx_forward_layer_fn)(sdx_forward *f, const sdx_settings *s, double *x, const double *bias);
void sdx_forward_layers(sdx_forward *f, const sdx_settings *s, const char *scope, sdx_forward_layer_fn layer,
                        double *x, const double *bias);
void sdx_forward_bert_layer(sdx_forward *f, const sdx_settings *s, double *x, const double *bias);
/* positions NULL: 0, 1, 2, ... */
double *sdx_forward_embeddings(sdx_forward *f, const sdx_settings *s, const int64_t *positions);

/* T5's buckets of relative positions (Raffel et al. 2019), for attention in both directions. distance: position
 * of the key less that of the query. Logarithms in float32, as in PyTorch. */
int64_t sdx_relative_bucket(int64_t distance, int64_t buckets, int64_t farthest);

/* ---- heads ----------------------------------------------------------------------------------------------- */

typedef enum sdx_step_kind {
    SDX_STEP_END,
    SDX_STEP_FIRST,    /* [B, S, H] -> [B, H]: the first token */
    SDX_STEP_POOL,     /* the same, or the mean of all: as configured */
    SDX_STEP_LAST,     /* the last token that is no padding; the last of all if padding has no token */
    SDX_STEP_END_TOKEN, /* the last of the tokens that end a text */
    SDX_STEP_LINEAR,   /* module `name` */
    SDX_STEP_NORM,     /* module `name` */
    SDX_STEP_ACT,      /* the layers' activation */
    SDX_STEP_HEAD_ACT, /* the head's activation */
    SDX_STEP_TANH,
    SDX_STEP_GELU,
    SDX_STEP_RELU,
    SDX_STEP_WORDS,   /* scores of the vocabulary: matrix `untied` if `part` is there, else the family's words;
                         bias `name` if there is one */
    SDX_STEP_SQUEEZE, /* [B, S, 1] -> [B, S] */
    SDX_STEP_OUTPUT,  /* the graph's output `name` */
    SDX_STEP_SPLADE,  /* output "logits", or sparse vectors */
    SDX_STEP_SPANS,   /* [B, S, 2] -> outputs "start_logits" and "end_logits", [B, S] each */
    SDX_STEP_CHOICES, /* [B * C, 1] -> output "logits" [B, C]; makes the inputs [B, C, S]: a row is a text */
} sdx_step_kind;

struct sdx_step {
    sdx_step_kind kind;
    const char *name;
    unsigned part; /* the step is made only if the checkpoint has this part; 0: always */
    const char *untied;
};

/* Lists that families have under names of their own:
 * the last hidden state and, if there is a pooler, what it makes of the first token, */
#define SDX_MODEL_STEPS(pooler)                                                                                        \
    {                                                                                                                  \
        {SDX_STEP_OUTPUT, .name = "last_hidden_state"}, {SDX_STEP_FIRST, .part = POOLER},                              \
            {SDX_STEP_LINEAR, .name = pooler, .part = POOLER}, {SDX_STEP_TANH, .part = POOLER},                        \
            {SDX_STEP_OUTPUT, .name = "pooler_output", .part = POOLER}, {.kind = SDX_STEP_END},                        \
    }
/* scores of the vocabulary behind a layer and its norm, */
#define SDX_LM_STEPS(dense, act, norm, bias, matrix)                                                                   \
    {                                                                                                                  \
        {SDX_STEP_LINEAR, .name = dense}, {.kind = act}, {SDX_STEP_NORM, .name = norm},                                \
            {SDX_STEP_WORDS, .name = bias, .part = DECODER, .untied = matrix}, {.kind = SDX_STEP_SPLADE},              \
            {.kind = SDX_STEP_END},                                                                                    \
    }
/* classes of a text, or a choice among texts, by two layers over the first token. */
#define SDX_FIRST_TOKEN_STEPS(dense, act, last)                                                                        \
    {.kind = SDX_STEP_FIRST}, {SDX_STEP_LINEAR, .name = dense}, {.kind = act}, {SDX_STEP_LINEAR, .name = last}
#define SDX_CLASSIFIER_STEPS(dense, act, last)                                                                         \
    {                                                                                                                  \
        SDX_FIRST_TOKEN_STEPS(dense, act, last), {SDX_STEP_OUTPUT, .name = "logits"}, {.kind = SDX_STEP_END},          \
    }
#define SDX_CHOICE_STEPS(dense, act)                                                                                   \
    {                                                                                                                  \
        SDX_FIRST_TOKEN_STEPS(dense, act, "classifier"), {.kind = SDX_STEP_CHOICES}, {.kind = SDX_STEP_END},           \
    }

/* Lists that many families have as they are. */
extern const sdx_step sdx_steps_hidden[];     /* the last hidden state alone */
extern const sdx_step sdx_steps_pooled[];     /* and, if there is a pooler, its output */
extern const sdx_step sdx_steps_tokens[];     /* classifier of tokens: module "classifier" */
extern const sdx_step sdx_steps_spans[];      /* module "qa_outputs" */
extern const sdx_step sdx_steps_roberta_lm[]; /* modules "lm_head" */
extern const sdx_step sdx_steps_roberta_classifier[];
extern const sdx_step sdx_steps_choice[]; /* pooler and "classifier" */
#define SDX_COMMON_HEAD_ROWS                                                                                   \
    SDX_LINEAR_ROWS("classifier", "L", "H", CLASSIFIER), SDX_LINEAR_ROWS("classifier", "U", "H", CHOICE),      \
        SDX_LINEAR_ROWS("qa_outputs", "L", "H", SPANS)
#define SDX_ROBERTA_HEAD_ROWS                                                                                  \
    SDX_LINEAR_ROWS("lm_head.dense", "H", "H", MLM), SDX_NORM_ROWS("lm_head.layer_norm", "H", MLM),            \
        SDX_WEIGHT_ROW("lm_head.decoder", "VH", DECODER), SDX_BIAS_ROW("lm_head", "V", MLM),                   \
        SDX_LINEAR_ROWS("classifier.dense", "H", "H", POOLED),                                                 \
        SDX_LINEAR_ROWS("classifier.out_proj", "L", "H", POOLED)

void sdx_build_steps(sdx_builder *b, const sdx_settings *s);
const double *sdx_forward_steps(sdx_forward *f, const sdx_settings *s);

/* A row of a family's heads. */
#define SDX_HEAD(class, of, needs, may, separate, steps)                                                       \
    {                                                                                                          \
        .architecture = class, .task = of, .required = needs, .optional = may, .untied = separate,             \
        .step = steps, .build = sdx_build_steps, .forward = sdx_forward_steps                                  \
    }
/* The heads of SDX_COMMON_HEAD_ROWS that need nothing else; all of RoBERTa's. */
#define SDX_COMMON_HEADS(class)                                                                                        \
    SDX_HEAD(class "ForTokenClassification", "token-classification", BODY | CLASSIFIER, 0, 0, sdx_steps_tokens),       \
        SDX_HEAD(class "ForQuestionAnswering", "question-answering", BODY | SPANS, 0, 0, sdx_steps_spans)
#define SDX_ROBERTA_HEADS(class)                                                                                       \
    {                                                                                                                  \
        SDX_HEAD(class "Model", "feature-extraction", BODY, POOLER, 0, sdx_steps_pooled),                              \
            SDX_HEAD(class "ForMaskedLM", "fill-mask", BODY | MLM, 0, DECODER, sdx_steps_roberta_lm),                  \
            SDX_HEAD(class "ForSequenceClassification", "text-classification", BODY | POOLED, 0, 0,                    \
                     sdx_steps_roberta_classifier),                                                                    \
            SDX_COMMON_HEADS(class),                                                                                   \
            SDX_HEAD(class "ForMultipleChoice", "multiple-choice", BODY | POOLER | CHOICE, 0, 0, sdx_steps_choice),    \
    }

#endif
