/* control_flow.h: what If, Loop, Scan and SequenceMap share: types of values that several runs of a subgraph
 * give, and the single numbers that steer them. */
#ifndef SDX_OPS_CONTROL_FLOW_H
#define SDX_OPS_CONTROL_FLOW_H

#include "../../base/sequence.h"
#include "ops.h"

/* What is true of both: no contents, no constant. */
sdx_type sdx_type_weaker(const sdx_type *a, const sdx_type *b);
/* What is known of a type when its numbers may be others. */
static inline sdx_type sdx_type_plain(const sdx_type *a) { return sdx_type_weaker(a, a); }

/* Lets states, in[first .. first + count), become weak enough to be true before and after every turn of the body.
 * out: [graph->n_output] of the last call, where the states stand from `back` on. */
sdx_status sdx_infer_turns(sdx_infer *infer, sdx_graph *graph, sdx_type *in, int first, int count, sdx_type *out,
                           int back);
/* An element of a list of turns gets the list's dims: `length` at `axis`. */
sdx_type sdx_type_stacked(const sdx_type *element, int axis, sdx_dim length);

/* The subgraph must exist and have these many inputs, and at least so many outputs. */
sdx_status sdx_prepare_body(sdx_prepare *prepare, const char *name, int n_in, int n_out, sdx_graph **body);

/* The number or truth in a tensor of one element. */
sdx_status sdx_run_number(sdx_run *run, const sdx_tensor *t, const char *what, int64_t *number);
/* A state must stay what it was. */
sdx_status sdx_run_check_state(sdx_run *run, int k, const sdx_tensor *before, const sdx_tensor *after);
/* What the file or inference says of the outputs of a subgraph that never ran: unknown sizes are 0. */
sdx_status sdx_run_unseen(sdx_run *run, const sdx_graph *graph, int output, sdx_dtype *dtype, sdx_shape *shape);
/* Strings that a subgraph made move to where the outputs' are. */
sdx_status sdx_run_keep_strings(sdx_run *run, sdx_dtype dtype, void *data, int64_t count);

#endif
