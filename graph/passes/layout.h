/* layout.h: which meaning each dim of a tensor has while a graph splits heads, swaps axes and joins them again.
 *
 * The letters are b (batch), t (tokens), n (heads), h (channels of a head). A projection is "b|t|nh": rank 3,
 * the last dim holding heads of channels. Reshape regroups the letters without changing their order, Transpose
 * moves groups. So any exporter's path from a projection to a MatMul can be replayed, and the question is only
 * what it ends in: "b|n|t|h" for queries and values, "b|n|h|t" for transposed keys, or the same with "bn" in
 * one dim. */
#ifndef SDX_PASSES_LAYOUT_H
#define SDX_PASSES_LAYOUT_H

#include "match.h"

enum { SDX_LAYOUT_ATOMS = 4 };

typedef struct sdx_layout {
    int rank;
    struct {
        int count;
        int atom[SDX_LAYOUT_ATOMS]; /* index into "btnh" */
    } dim[SDX_MAX_RANK];
    sdx_element size[SDX_LAYOUT_ATOMS]; /* of b, t, n, h */
} sdx_layout;

/* From text such as "b|t|nh". */
sdx_layout sdx_layout_make(const char *text, const sdx_element size[SDX_LAYOUT_ATOMS]);
bool sdx_layout_is(const sdx_layout *layout, const char *text);
/* Follows Reshape, Squeeze, Unsqueeze or Transpose; false when the result cannot be told. */
bool sdx_layout_follow(sdx_layout *layout, const sdx_graph *g, const sdx_node *n);

/* The nodes between a value and what it was before layout changes and multiplications by numbers. */
typedef struct sdx_path {
    sdx_id node[12]; /* layout changes, the last one first */
    int count;
    double scale;
    sdx_id top; /* where the path begins */
} sdx_path;

/* From v up to `until`, SDX_NONE: as far as it goes. */
void sdx_path_read(const sdx_graph *g, sdx_id v, sdx_id until, sdx_path *path);
bool sdx_path_follow(const sdx_path *path, const sdx_graph *g, sdx_layout *layout);

#endif
