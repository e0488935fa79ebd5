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

/* Fills report->nodes, initializers, model_type and task. */
sdx_status sdx_convert_build(const sdx_convert_options *options, sdx_model **model, sdx_reference **reference,
                             sdx_convert_report *report, sdx_error *err);
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
bool sdx_reference_is_sparse(const sdx_reference *reference);
int64_t sdx_reference_vocab_size(const sdx_reference *reference);
int64_t sdx_reference_positions(const sdx_reference *reference); /* longest sequence */

#endif
