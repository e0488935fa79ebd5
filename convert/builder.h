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

typedef struct sdx_builder {
    sdx_graph *graph;
    const sdx_checkpoint *checkpoint;
    int opset;       /* of the default domain, 13 to 18 */
    bool splade;     /* masked-LM heads end in sparse vectors instead of logits */
    char scope[128]; /* stands before every name given: "encoder.layer.3." */
    sdx_id node;     /* the node made last */
    sdx_status status;
    sdx_error *err;
} sdx_builder;

void sdx_build_scope(sdx_builder *b, const char *format, ...) SDX_PRINTF(2, 3);

/* ---- inputs, constants, outputs -------------------------------------------------------------------------- */

/* int64 [batch_size, sequence] */
sdx_id sdx_build_token_input(sdx_builder *b, const char *name);
/* The value becomes a graph output of this name. Dims: sizes, or SDX_BATCH and SDX_SEQUENCE; SDX_NONZERO. */
void sdx_build_output(sdx_builder *b, sdx_id value, const char *name, sdx_dtype dtype, int rank,
                      const int64_t *dim);
enum { SDX_BATCH = -1, SDX_SEQUENCE = -2, SDX_NONZERO = -3 };

sdx_id sdx_build_weight(sdx_builder *b, const char *name);     /* as stored, as float32 */
sdx_id sdx_build_transposed(sdx_builder *b, const char *name); /* [out, in] stored, [in, out] in the graph */
sdx_id sdx_build_real(sdx_builder *b, double x);               /* float32 scalar */
sdx_id sdx_build_int(sdx_builder *b, int64_t n);               /* int64 scalar */
sdx_id sdx_build_ints(sdx_builder *b, int count, const int64_t *ints); /* int64 [count] */

/* ---- operators: `label` becomes the node's name behind the scope and a '/' ------------------------------- */

sdx_id sdx_build_op(sdx_builder *b, const char *op, const char *label, int n_in, const sdx_id *in);
sdx_id sdx_build_op1(sdx_builder *b, const char *op, const char *label, sdx_id x);
sdx_id sdx_build_op2(sdx_builder *b, const char *op, const char *label, sdx_id x, sdx_id y);
/* Attributes of the node made last. */
void sdx_build_attr_int(sdx_builder *b, const char *name, int64_t n);
void sdx_build_attr_ints(sdx_builder *b, const char *name, size_t count, const int64_t *ints);

/* ---- layers: `name` is that of the module in the checkpoint ---------------------------------------------- */

sdx_id sdx_build_linear(sdx_builder *b, const char *name, sdx_id x); /* x [.., in] -> [.., out] */
sdx_id sdx_build_linear_rows(sdx_builder *b, const char *name,
                             sdx_id x); /* x [n, in] -> [n, out], as one Gemm */
sdx_id sdx_build_layer_norm(sdx_builder *b, const char *name, sdx_id x, double epsilon);
sdx_id sdx_build_activation(sdx_builder *b, const char *name, sdx_id x, sdx_activation kind);
sdx_id sdx_build_embedding(sdx_builder *b, const char *name, sdx_id ids);
/* ids [B, S] -> [1, S]: 0, 1, ..., S-1, cut from a constant row of `positions` */
sdx_id sdx_build_positions(sdx_builder *b, const char *name, sdx_id ids, int64_t positions);
/* mask int64 [B, S], 1 for tokens -> float [B, 1, 1, S], 0 for tokens, -FLT_MAX for padding */
sdx_id sdx_build_attention_bias(sdx_builder *b, sdx_id mask);
/* x [B, S, heads * head_size] -> softmax(q k^T / sqrt(head_size) + bias) v, with the projections query, key and
 * value of module `name` */
sdx_id sdx_build_self_attention(sdx_builder *b, const char *name, sdx_id x, sdx_id bias, int64_t heads,
                                int64_t head_size);
/* x [B, S, H] -> [B, H]: the first token */
sdx_id sdx_build_first_token(sdx_builder *b, const char *name, sdx_id x);
/* logits [B, S, V] -> outputs output_idx and output_weights: the entries of max over tokens of log(1 +
 * relu(logits)) that are not zero, row after row */
void sdx_build_splade(sdx_builder *b, sdx_id logits, sdx_id mask);

#endif
