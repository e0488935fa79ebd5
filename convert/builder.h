/* builder.h: writes graphs the way a model is described: one call per layer, weights by their names.
 *
 * The first failure sticks in `status`; what is built after it is nothing (SDX_NONE), so that a description
 * reads without error handling and its caller checks once.
 *
 * Forms are chosen to be few nodes and to be what fusing optimizers (ONNX Runtime's and ours) look for.
 * Constants are initializers, and equal ones are shared. Matrices are stored [in, out], which is what MatMul
 * and the quantizers of MatMul want; Hugging Face stores [out, in], so they are transposed into the model's
 * arena, and the pages of the original are given back. A tied output matrix is therefore stored twice, as
 * embedding [V, H] and transposed: a Transpose node would save the file 4*V*H bytes but hide the model's
 * largest MatMul from int8 quantization. */
#ifndef SDX_CONVERT_BUILDER_H
#define SDX_CONVERT_BUILDER_H

#include "../graph/graph.h"
#include "checkpoint.h"
#include "config.h"

struct sdx_family;
struct sdx_head;

typedef struct sdx_builder {
    sdx_graph *graph;
    sdx_graph *outside; /* of a branch of an If: where its inputs and constants are; else NULL */
    const sdx_checkpoint *checkpoint;
    const struct sdx_family *family;
    const struct sdx_head *head;
    unsigned parts;  /* of the family, as found in the checkpoint */
    int opset;       /* of the default domain, 13 to 21 */
    sdx_dtype dtype; /* of stored matrices: float32, or float16 or bfloat16 with a Cast behind each */
    bool splade;     /* masked-LM heads end in sparse vectors instead of logits */
    char scope[128]; /* stands before every name given: "encoder.layer.3." */
    sdx_id node;     /* the node made last */
    sdx_id distances; /* [S, S], of attention with relative positions; SDX_NONE until it is needed */
    sdx_status status;
    sdx_error *err;
} sdx_builder;

void sdx_build_scope(sdx_builder *b, const char *format, ...) SDX_PRINTF(2, 3);
/* A failure of the description's own. */
void sdx_build_fail(sdx_builder *b, sdx_status status, const char *sentence);

/* ---- inputs, constants, outputs -------------------------------------------------------------------------- */

/* int64 [batch_size, sequence] */
sdx_id sdx_build_token_input(sdx_builder *b, const char *name);
/* Dims: sizes, or SDX_BATCH and the like. A branch takes the input of this name from outside, where it is made
 * if it is not there yet. */
sdx_id sdx_build_input(sdx_builder *b, const char *name, sdx_dtype dtype, int rank, const int64_t *dim);
/* The value becomes a graph output of this name. */
void sdx_build_output(sdx_builder *b, sdx_id value, const char *name, sdx_dtype dtype, int rank,
                      const int64_t *dim);
enum {
    SDX_BATCH = -1,
    SDX_SEQUENCE = -2,
    SDX_NONZERO = -3,
    SDX_FRAMES = -4,
    SDX_ENCODER_SEQUENCE = -5,
    SDX_DECODER_SEQUENCE = -6,
    SDX_PAST = -7,
    SDX_PRESENT = -8, /* SDX_PAST and SDX_DECODER_SEQUENCE together */
    SDX_PAST_SEQUENCE = -9,
    SDX_PRESENT_SEQUENCE = -10, /* SDX_PAST_SEQUENCE and SDX_SEQUENCE together */
    SDX_CHOICES = -11,
};

bool sdx_build_has(const sdx_builder *b, const char *name);    /* the checkpoint has this tensor */
sdx_id sdx_build_weight(sdx_builder *b, const char *name);     /* as stored, as float32 */
sdx_id sdx_build_transposed(sdx_builder *b, const char *name); /* [out, in] stored, [in, out] in the graph */
sdx_id sdx_build_module_weight(sdx_builder *b, const char *module, const char *weight);
sdx_id sdx_build_real(sdx_builder *b, double x);                       /* float32 scalar */
sdx_id sdx_build_int(sdx_builder *b, int64_t n);                       /* int64 scalar */
sdx_id sdx_build_ints(sdx_builder *b, int count, const int64_t *ints); /* int64 [count] */
/* A copy of data under this name, whatever the scope; the constant of this name if there is one already. */
sdx_id sdx_build_constant(sdx_builder *b, const char *name, sdx_dtype dtype, int rank, const int64_t *dim,
                          const void *data);

/* ---- operators: `label` becomes the node's name behind the scope ----------------------------------------- */

sdx_id sdx_build_op(sdx_builder *b, const char *op, const char *label, int n_in, const sdx_id *in);
sdx_id sdx_build_op1(sdx_builder *b, const char *op, const char *label, sdx_id x);
sdx_id sdx_build_op2(sdx_builder *b, const char *op, const char *label, sdx_id x, sdx_id y);
/* Two outputs, or more: out [n_out]. */
void sdx_build_split(sdx_builder *b, const char *label, sdx_id x, int64_t axis, int n_out, const int64_t *sizes,
                     sdx_id *out);
/* Attributes of the node made last. */
void sdx_build_attr_int(sdx_builder *b, const char *name, int64_t n);
void sdx_build_attr_ints(sdx_builder *b, const char *name, size_t count, const int64_t *ints);
void sdx_build_attr_tensor(sdx_builder *b, const char *name, const sdx_tensor *tensor);
void sdx_build_attr_float(sdx_builder *b, const char *name, double x);
void sdx_build_attr_string(sdx_builder *b, const char *name, const char *s);

/* The same, labelled "module/op". */
sdx_id sdx_build_module_op(sdx_builder *b, const char *module, const char *op, int n_in, const sdx_id *in);
sdx_id sdx_build_module_op1(sdx_builder *b, const char *module, const char *op, sdx_id x);
sdx_id sdx_build_module_op2(sdx_builder *b, const char *module, const char *op, sdx_id x, sdx_id y);
sdx_id sdx_build_cast(sdx_builder *b, const char *module, sdx_id x, sdx_dtype to);
sdx_id sdx_build_unsqueeze(sdx_builder *b, const char *module, sdx_id x, int64_t axis);
sdx_id sdx_build_transpose(sdx_builder *b, const char *label, sdx_id x, int rank, const int64_t *order);
sdx_id sdx_build_reduce(sdx_builder *b, const char *op, const char *label, sdx_id x, int64_t axis, bool keep);

/* ---- layers (layers.c): `name` is that of the module in the checkpoint; a bias is added if there is one ----
 */

sdx_id sdx_build_linear(sdx_builder *b, const char *name, sdx_id x);      /* x [.., in] -> [.., out] */
sdx_id sdx_build_linear_rows(sdx_builder *b, const char *name, sdx_id x); /* x [n, in] -> [n, out]: one Gemm */
sdx_id sdx_build_layer_norm(sdx_builder *b, const char *name, sdx_id x, double epsilon);
sdx_id sdx_build_activation(sdx_builder *b, const char *name, sdx_id x, sdx_activation kind);
sdx_id sdx_build_embedding(sdx_builder *b, const char *name, sdx_id ids);
/* ids [B, S] -> [1, S]: 0, 1, ..., S-1, cut from a constant row of `positions` */
sdx_id sdx_build_positions(sdx_builder *b, const char *name, sdx_id ids, int64_t positions);
/* ids [B, S] -> [B, S]: pad + 1, pad + 2, ... for the tokens that are not `pad`, pad for those that are */
sdx_id sdx_build_positions_of_tokens(sdx_builder *b, const char *name, sdx_id ids, int64_t pad);
/* ids [B, S] -> [S]: 0, 1, ..., S-1, however long */
sdx_id sdx_build_range(sdx_builder *b, const char *name, sdx_id ids);
/* range [S] -> [S, S]: clip(i - j, -limit, limit) + limit, an index from 0 to 2 * limit */
sdx_id sdx_build_distances(sdx_builder *b, const char *name, sdx_id range, int64_t limit);
/* mask int64 [B, S], 1 for tokens -> float [B, 1, 1, S], 0 for tokens, -FLT_MAX for padding */
sdx_id sdx_build_attention_bias(sdx_builder *b, sdx_id mask);
sdx_id sdx_build_mask_bias(sdx_builder *b, sdx_id mask); /* the same for a mask of any shape */
/* Attention of module `name` in four steps:
 *   x [B, S, heads * size] -> [B, S, heads, size] -> [B, heads, S, size], or [B, heads, size, S] for keys
 *   scores q k^T / divisor; softmax(scores + bias) v -> [B, S, heads * size]; bias may be SDX_NONE */
sdx_id sdx_build_split_heads(sdx_builder *b, const char *name, const char *suffix, sdx_id x, int64_t heads,
                             int64_t size);
sdx_id sdx_build_heads_first(sdx_builder *b, const char *name, const char *suffix, sdx_id x, bool keys);
sdx_id sdx_build_scores(sdx_builder *b, const char *name, sdx_id q, sdx_id k, double divisor);
sdx_id sdx_build_attend(sdx_builder *b, const char *name, sdx_id scores, sdx_id bias, sdx_id v, int64_t width);
/* x [B, S, H] -> [B, H]: the first token; the mean of those with mask 1 */
sdx_id sdx_build_first_token(sdx_builder *b, const char *name, sdx_id x);
sdx_id sdx_build_mean_token(sdx_builder *b, const char *name, sdx_id x, sdx_id mask);
/* The last token that `found` [B, S], bools, is true for; the last of all where it is for none. */
sdx_id sdx_build_last_token(sdx_builder *b, const char *name, sdx_id x, sdx_id found);
/* logits [B, S, V] -> outputs output_idx and output_weights: the entries of max over tokens of log(1 +
 * relu(logits)) that are not zero, row after row */
void sdx_build_splade(sdx_builder *b, sdx_id logits, sdx_id mask);

#endif
