/* quantizer.h: what the files of the quantizer share: its state, constants in integers, and the rewrites. */
#ifndef SDX_QUANT_QUANTIZER_H
#define SDX_QUANT_QUANTIZER_H

#include "../base/buffer.h"
#include "../graph/graph.h"
#include "format.h"
#include "quant.h"

/* A value in integer form: three values of the graph, and a fourth that is float again. */
typedef struct sdx_quantized {
    sdx_id q, scale, zero; /* zero SDX_NONE: 0 */
    sdx_id real;           /* q through a DequantizeLinear, in the QDQ form; else SDX_NONE */
    int kind;            /* of a weight, axis and type: one constant may be wanted in two forms */
    /* of an activation, [channels]: it was divided by these, so rows of weights are multiplied */
    const float *factor;
} sdx_quantized;

typedef struct sdx_quant_recipe {
    const char *name;       /* as --preset takes it */
    bool per_channel;       /* weights: one scale per column */
    bool unsigned_weights;  /* uint8 */
    bool symmetric;         /* unsigned weights too, around 128 */
    bool reduce_range;
    bool row_scales;        /* tables: one scale per row; norms stay in float; activation scales per row where the
                               engine can: the file's metadata says so */
} sdx_quant_recipe;

/* What was made of the values of one graph. */
typedef struct sdx_quant_cache {
    sdx_quantized *done; /* [n_done], by value id: q is SDX_NONE where nothing was. Owned. */
    sdx_id n_done;
} sdx_quant_cache;

typedef struct sdx_quantizer {
    const sdx_quantize_options *options;
    const sdx_quant_sample *sample; /* [n_sample] */
    size_t n_sample;
    sdx_quant_recipe recipe;
    sdx_model *model;
    sdx_graph *graph;       /* the one at hand: the main graph, or one inside a node of it */
    sdx_quant_cache *cache; /* [n_cache], by the index of a graph. Owned. */
    int n_cache;
    int threads;
    sdx_quantize_report report;
    sdx_error *err;
} sdx_quantizer;

/* ---- constants.c, weights.c ------------------------------------------------------------------------------ */

/* What is laid over one scale. */
typedef enum sdx_quant_axis { SDX_QUANT_TENSOR, SDX_QUANT_COLUMN, SDX_QUANT_ROW } sdx_quant_axis;

const char *sdx_quantizer_name(const sdx_quantizer *z, sdx_id v);
/* "<name><suffix>" in the arena, with more behind it where a graph around has that name; NULL when out of
 * memory. */
const char *sdx_quantizer_suffixed(sdx_quantizer *z, const char *name, const char *suffix);
/* One node with one result, both named <name><suffix>. */
sdx_status sdx_quantizer_emit(sdx_quantizer *z, const char *domain, const char *op, const char *name,
                              const char *suffix,
                              int n_in, const sdx_id *in, sdx_id *result);
/* The same with an existing value as the result; *node may be NULL. */
sdx_status sdx_quantizer_emit_to(sdx_quantizer *z, const char *domain, const char *op, const char *name,
                                 const char *suffix, int n_in, const sdx_id *in, sdx_id result, sdx_id *node);
sdx_status sdx_quantizer_constant(sdx_quantizer *z, const char *name, const char *suffix, const sdx_tensor *t,
                                  sdx_id *out);
/* float32 numbers; in our recipe, where they are float16 and many, as such behind a Cast, which engines fold
 * when they load the file. */
sdx_status sdx_quantizer_reals(sdx_quantizer *z, const char *name, const char *suffix, const sdx_tensor *t,
                               sdx_id *out);
/* What was made of a value before, q SDX_NONE if nothing was; NULL when out of memory. */
sdx_quantized *sdx_quantizer_cached(sdx_quantizer *z, sdx_id v);
sdx_status sdx_quantizer_remember(sdx_quantizer *z, sdx_id v, const sdx_quantized *made);
/* A weight that a graph inside reads belongs to a graph around it, and so do its codes: makes the owner of *v
 * the graph at hand, *v its id there, and returns the graph to come back to, which then captures what was
 * made. */
sdx_graph *sdx_quantizer_enter_owner(sdx_quantizer *z, sdx_id *v);
sdx_status sdx_quantizer_leave_owner(sdx_quantizer *z, sdx_graph *inside, sdx_quantized *made);
/* x->real of the other three, called after name. */
sdx_status sdx_quantizer_dequantize(sdx_quantizer *z, const char *name, sdx_quant_axis axis, sdx_quantized *x);
/* A float32 constant with a matrix (or, by min_rank, a vector) in it. */
bool sdx_quantizer_is_weight(const sdx_quantizer *z, sdx_id v, int min_rank);
/* Constant v in integers, made once. Per column (the last axis) or row (axis 0) scale and zero are vectors, but
 * [rows, 1] for a matrix by row, whose rows are looked up. factor: [rows], multiplied in first (per column
 * only), or NULL. */
sdx_status sdx_quantizer_weight(sdx_quantizer *z, sdx_id v, sdx_quant_format format, sdx_quant_axis axis,
                                const float *factor, sdx_quantized *out);
/* Value v through a DynamicQuantizeLinear, or by the range that calibration found through a QuantizeLinear;
 * made once. */
sdx_status sdx_quantizer_activation(sdx_quantizer *z, sdx_id v, sdx_quantized *out);
/* The factors [width] that make activation x and its weights easier to quantize; NULL when none do
 * (smooth.c). */
sdx_status sdx_quantizer_smooth(sdx_quantizer *z, sdx_id x, const float **factor, int64_t *width);
/* Attribute by attribute, those in names[] (NULL at the end) that `from` has. */
sdx_status sdx_quantizer_copy_attributes(sdx_quantizer *z, const sdx_node *from, sdx_id to,
                                         const char *const *names);
/* Nodes without a name are called after what they make. */
const char *sdx_quantizer_node_name(const sdx_quantizer *z, const sdx_node *n);

/* What calibration saw of a value, or NULL. */
const sdx_quant_sample *sdx_quantizer_sample(const sdx_quantizer *z, sdx_id v);
/* A static activation of which calibration saw nothing: its node stays in float. */
bool sdx_quantizer_is_unseen(const sdx_quantizer *z, sdx_id v);

/* A Gemm by a constant becomes a MatMul of its name and an Add, where that is the same. */
sdx_status sdx_quant_split_gemm(sdx_quantizer *z, sdx_id node); /* products.c */

/* ---- rewrites: each returns with *done false when the node is not one it takes --------------------------- */

typedef sdx_status (*sdx_quant_rewrite)(sdx_quantizer *z, sdx_id node, bool *done);

sdx_status sdx_quant_matmul(sdx_quantizer *z, sdx_id node, bool *done);    /* products.c */
sdx_status sdx_quant_attention(sdx_quantizer *z, sdx_id node, bool *done);
sdx_status sdx_quant_conv(sdx_quantizer *z, sdx_id node, bool *done);
/* blocks.c: MatMul and Gemm by weight only */
sdx_status sdx_quant_blocks(sdx_quantizer *z, sdx_id node, bool *done);
sdx_status sdx_quant_gather(sdx_quantizer *z, sdx_id node, bool *done);    /* tables.c */
sdx_status sdx_quant_embed(sdx_quantizer *z, sdx_id node, bool *done);

#endif
