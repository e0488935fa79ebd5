/* passes.h: the passes, and what they share when they rewrite. */
#ifndef SDX_PASSES_H
#define SDX_PASSES_H

#include "match.h"

#define SDX_MS "com.microsoft"

sdx_status sdx_pass_inline_branches(sdx_pass_context *context, sdx_graph *graph);
sdx_status sdx_pass_fold_constants(sdx_pass_context *context, sdx_graph *graph);
sdx_status sdx_pass_fold_shapes(sdx_pass_context *context, sdx_graph *graph);
sdx_status sdx_pass_widen_f16(sdx_pass_context *context, sdx_graph *graph);
sdx_status sdx_pass_join_transposed(sdx_pass_context *context, sdx_graph *graph);
sdx_status sdx_pass_eliminate(sdx_pass_context *context, sdx_graph *graph);
sdx_status sdx_pass_merge_duplicates(sdx_pass_context *context, sdx_graph *graph);
sdx_status sdx_pass_fuse_index(sdx_pass_context *context, sdx_graph *graph);
sdx_status sdx_pass_fuse_layer_norm(sdx_pass_context *context, sdx_graph *graph);
sdx_status sdx_pass_fuse_rms_norm(sdx_pass_context *context, sdx_graph *graph);
sdx_status sdx_pass_fuse_gelu(sdx_pass_context *context, sdx_graph *graph);
sdx_status sdx_pass_fuse_attention(sdx_pass_context *context, sdx_graph *graph);
sdx_status sdx_pass_fuse_embed_layer_norm(sdx_pass_context *context, sdx_graph *graph);
sdx_status sdx_pass_fuse_skip_layer_norm(sdx_pass_context *context, sdx_graph *graph);
sdx_status sdx_pass_fuse_bias_gelu(sdx_pass_context *context, sdx_graph *graph);
sdx_status sdx_pass_fuse_dynamic_linear(sdx_pass_context *context, sdx_graph *graph);
sdx_status sdx_pass_fuse_scaled_rows(sdx_pass_context *context, sdx_graph *graph);
sdx_status sdx_pass_fuse_transpose(sdx_pass_context *context, sdx_graph *graph);
sdx_status sdx_pass_pack_tokens(sdx_pass_context *context, sdx_graph *graph);

/* For explain.c: why the product of x and a gate is no Gelu, NULL when it is. */
const char *sdx_gelu_reason(const sdx_graph *graph, const sdx_node *mul);
/* The same: why the LayerNormalization is not one of embeddings. */
const char *sdx_embedding_reason(const sdx_graph *graph, const sdx_node *norm);

/* A new node in the place of `anchor`, the last node of a matched pattern: it writes the values out[] (whose
 * old writers die), is named after anchor's scope, and imports its domain. Counts as a change. */
sdx_status sdx_pass_replace(sdx_pass_context *context, sdx_graph *graph, sdx_id anchor, const char *domain,
                            const char *op_type, int n_in, const sdx_id *in, int n_out, const sdx_id *out,
                            sdx_id *node);
/* `copy` holds the same numbers as `original`: its readers read the original, or, where copy is a graph output,
 * the original's producer writes copy. *done tells whether that was possible; then copy's old writer is dead.
 */
sdx_status sdx_pass_alias(sdx_pass_context *context, sdx_graph *graph, sdx_id original, sdx_id copy,
                          bool *done);
/* One node with one new output of inferred type; no attributes yet. */
sdx_status sdx_pass_emit(sdx_pass_context *context, sdx_graph *graph, const char *op_type, const char *name, int n_in,
                         const sdx_id *in, sdx_id *out);
/* A constant list of integers, or a scalar; each made once. */
sdx_status sdx_pass_ints(sdx_pass_context *context, sdx_graph *graph, int count, const int64_t *ints, sdx_id *out);
sdx_status sdx_pass_scalar(sdx_pass_context *context, sdx_graph *graph, float number, sdx_id *out);
/* The value as int32: itself, a Cast made before (also by another node), or a new Cast called <name>_int32. */
sdx_status sdx_pass_int32(sdx_pass_context *context, sdx_graph *graph, sdx_id value, sdx_id *result);
/* Drops what nobody reads any more and restores the order and the index. */
sdx_status sdx_pass_finish(sdx_pass_context *context, sdx_graph *graph);

#endif
