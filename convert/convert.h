/* convert.h: a Hugging Face folder becomes a graph, without PyTorch and without the engine.
 *
 *   config.json --family.c--> settings, head --builder.c, arch/<family>.c--> model
 *   weights     --checkpoint.c--^        `--reference.c, arch/<family>.c--> numbers to compare with
 *
 * tasks/convert_validate.c writes the model, runs it and compares. */
#ifndef SDX_CONVERT_H
#define SDX_CONVERT_H

#include "../graph/graph.h"

/* The checkpoint and what is known of it. Owns the mapped weights that the model's constants point to: close
 * the model first. */
typedef struct sdx_reference sdx_reference;

/* The first graph, or the only one. Fills report->nodes, initializers, model_type, task and graphs. */
sdx_status sdx_convert_build(const sdx_convert_options *options, sdx_model **model, sdx_reference **reference,
                             sdx_convert_report *report, sdx_error *err);
/* Graph `index` of the report->graphs there are; adds to report->nodes and initializers. */
sdx_status sdx_convert_build_graph(const sdx_convert_options *options, const sdx_reference *reference,
                                   size_t index, sdx_model **model, sdx_convert_report *report, sdx_error *err);
/* "encoder_model" and the like; NULL for the only one. */
const char *sdx_reference_graph_file(const sdx_reference *reference, size_t index);
void sdx_reference_free(sdx_reference *reference);

/* The graph's first output for one sequence without padding, batch dim left out. For a sparse model it is the
 * dense vector [vocab]. */
typedef struct sdx_reference_result {
    int rank;
    int64_t dim[SDX_MAX_RANK];
    double *value; /* owned: free */
} sdx_reference_result;

sdx_status sdx_reference_run(const sdx_reference *reference, size_t count, const int64_t *ids,
                             const int64_t *type_ids, sdx_reference_result *out, sdx_error *err);
/* Logits [count, vocab] of the decoders for these tokens, when the encoder has read the same. */
sdx_status sdx_reference_run_decoder(const sdx_reference *reference, size_t count, const int64_t *ids,
                                     sdx_reference_result *out, sdx_error *err);
/* Of a speech or vision model: values of the shape sdx_reference_sample gives; for text that has rank 0. */
sdx_status sdx_reference_run_values(const sdx_reference *reference, const float *values,
                                    sdx_reference_result *out, sdx_error *err);
sdx_shape sdx_reference_sample(const sdx_reference *reference); /* batch included */
bool sdx_reference_is_sparse(const sdx_reference *reference);
int64_t sdx_reference_vocab_size(const sdx_reference *reference); /* tokens that encoder and decoder both know */
int64_t sdx_reference_positions(const sdx_reference *reference); /* longest sequence */

/* A SPLADE graph says which token and how heavy, but not of which text of a batch. Its NonZero knows both: that value
 * [2, n] (rows, then tokens) becomes a graph output, whose index goes to *output; -1 when output_idx comes from
 * elsewhere. */
sdx_status sdx_splade_expose_places(sdx_model *model, int *output, sdx_error *err);

#endif
