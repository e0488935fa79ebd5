/* ops.h: the operator families, and the few helpers that many of them share. A family is one file that ends
 * with its table:
 *
 *     static const sdx_op_def rows[] = {{"", "Softmax", 13, 0, 1, 1, 1, 1, SDX_OP_INPLACE, infer, NULL, NULL,
 * run}, ...}; SDX_OP_TABLE(softmax);
 */
#ifndef SDX_ENGINE_OPS_H
#define SDX_ENGINE_OPS_H

#include "../../base/memory.h"
#include "../../base/parallel.h"
#include "../../graph/op.h"
#include "../../kernels/kernels.h"

/* One word per file of this folder, in the order in which operators are looked up and listed. */
/* clang-format off */
#define SDX_OP_FAMILIES(X) \
    X(activation) X(attention) X(attention_onnx) X(batch_norm) X(bias) X(cast) X(causal_conv) X(concat) \
    X(control_flow) X(conv) X(conv_int8) X(conv_transpose) X(dynamic_linear) X(einsum) X(elementwise) X(elu) \
    X(embed) X(flex_attention) X(gates) X(gather) X(gemm) X(grid_sample) X(group_query) X(hardmax) X(indexing) \
    X(linalg) X(linear_attention) X(linear_max) X(loss) X(math) X(matmul) X(matmul_int8) X(ml) X(moe) X(move) \
    X(multi_head) X(nbits) X(ngram) X(norm) X(optional) X(pack_tokens) X(packing) X(pool) X(qgemm) X(qlinear) \
    X(quantize) X(random) X(recurrent) X(reduce) X(relative_bias) X(resize) X(rotary) X(scan) X(search) \
    X(sequence) X(shape) X(signal) X(slice) X(softmax) X(sparse_attention) X(text) X(time_warping) \
    X(token_ngrams) X(topk) X(training) X(transpose) X(tree) X(unique) X(vision)

#define SDX_OP_DECLARE(family) extern const sdx_op_table sdx_ops_##family;
SDX_OP_FAMILIES(SDX_OP_DECLARE)
#undef SDX_OP_DECLARE

/* At the end of a family's file: its table, from the array `rows`. */
#define SDX_OP_TABLE(family) const sdx_op_table sdx_ops_##family = {#family, rows, sizeof rows / sizeof *rows}

/* All of them (registry.c). */
extern const sdx_op_registry sdx_operators;

/* ---- helpers for infer ----------------------------------------------------------------------------------- */

static inline bool sdx_infer_has(const sdx_infer *infer, int i)
{
    return i < infer->n_in && sdx_node_in(infer->node, i) != SDX_NONE;
}

/* Output i has this type and shape; harmless when the node has no output i. */
static inline void sdx_infer_set(sdx_infer *infer, int i, sdx_dtype dtype, const sdx_shape *shape)
{
    if (i >= infer->n_out) return;
    infer->out[i].dtype = dtype;
    infer->out[i].shape = *shape;
}

/* Output 0 has the type and shape of input 0. */
static inline sdx_status sdx_infer_same(sdx_infer *infer)
{
    sdx_infer_set(infer, 0, infer->in[0].dtype, &infer->in[0].shape);
    return SDX_OK;
}

#endif
