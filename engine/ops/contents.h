/* contents.h: what infer knows of the numbers in small integer tensors, and short lists of integers.
 *
 * Exporters compute shapes inside the graph: Shape, Gather, Concat, Reshape. As long as each such operator
 * passes on its elements (numbers or symbols), every later shape is known exactly for a run and symbolically
 * before.
 */
#ifndef SDX_OPS_CONTENTS_H
#define SDX_OPS_CONTENTS_H

#include "ops.h"

/* An infer function: output 0 has the type and contents of input 0. */
sdx_status sdx_infer_identity(sdx_infer *infer);
/* Contents of input i, also of unaligned and bool constants; NULL when unknown. */
const sdx_element *sdx_infer_contents(sdx_infer *infer, int i, int *count);
/* Room for `count` elements; NULL when that is negative (unknown) or more than is tracked. */
sdx_element *sdx_infer_new_contents(sdx_infer *infer, int64_t count);
/* Attaches them to output i; contents may be NULL. */
void sdx_infer_set_contents(sdx_infer *infer, int i, const sdx_element *contents, int64_t count);

static inline bool sdx_element_is_number(sdx_element e) { return e.symbol == SDX_ELEMENT_NUMBER; }
#define SDX_ELEMENT_NONE ((sdx_element){0, SDX_ELEMENT_UNKNOWN})
/* For certain not negative: numbers, sizes by name, and their sums, products and quotients. */
bool sdx_element_nonnegative(const sdx_model *model, sdx_element e);
/* A dim from an element of a shape; a negative number is an error. */
sdx_status sdx_infer_dim(sdx_infer *infer, sdx_element e, sdx_dim *out);
/* Elements of a shape as an element: a number, a symbol, or unknown. */
sdx_element sdx_infer_size(sdx_infer *infer, const sdx_shape *shape);
/* Input i, if its type is known, is of integers that can be sizes. */
sdx_status sdx_infer_want_sizes(const sdx_infer *infer, int i);
/* Input i is a vector of dims: its contents when known, else as many unknown dims as its length says. */
sdx_status sdx_infer_shape_input(sdx_infer *infer, int i, sdx_shape *out);

/* A short list of integers that is an attribute in old opsets and an input in new ones. */
typedef struct sdx_ints {
    bool present; /* given, if only as an empty list */
    bool known;   /* the values are there; always so when running */
    int count;    /* -1: not known */
    int64_t v[SDX_MAX_ELEMENTS];
} sdx_ints;
/* attribute may be NULL, input may be -1. */
sdx_status sdx_infer_ints(sdx_infer *infer, const char *attribute, int input, sdx_ints *out);
sdx_status sdx_run_ints(sdx_run *run, const char *attribute, int input, sdx_ints *out);
/* Axes in [-rank, rank) as a set of bits; a repeated axis is an error. */
sdx_status sdx_axes_to_set(const sdx_ints *axes, int rank, unsigned *set, sdx_error *err);

/* Element i of an integer or bool tensor at any alignment. */
int64_t sdx_tensor_index(const sdx_tensor *t, int64_t i);
static inline sdx_shape sdx_run_shape(const sdx_run *run, int i) { return sdx_tensor_shape(&run->in[i]); }

#endif
