/* mask_walk.h: the walk up a mask's subgraph, which mask.c takes, and mask_axes.c where axes move. */
#ifndef SDX_PASSES_MASK_WALK_H
#define SDX_PASSES_MASK_WALK_H

#include "mask.h"

/* What a value was seen to be: a position along an axis, or a mask (a number is one). */
typedef struct sdx_seen {
    bool is_position;
    int axis; /* of the position, counted from the last one */
    sdx_element start;
    sdx_mask m; /* when it is none */
} sdx_seen;

typedef struct sdx_mask_walk {
    const sdx_graph *g;
    int steps; /* left */
} sdx_mask_walk;

/* What v is; NULL, or why it cannot be told. */
const char *sdx_mask_look(sdx_mask_walk *w, sdx_id v, int depth, sdx_seen *s);
/* The one known element of v. */
const char *sdx_mask_element(sdx_mask_walk *w, sdx_id v, sdx_element *e);

const char *sdx_mask_unsqueeze(sdx_mask_walk *w, const sdx_node *n, int depth, sdx_seen *s);
const char *sdx_mask_reshape(sdx_mask_walk *w, const sdx_node *n, int depth, sdx_seen *s);
const char *sdx_mask_slice(sdx_mask_walk *w, const sdx_node *n, int depth, sdx_seen *s);
const char *sdx_mask_scatter(sdx_mask_walk *w, const sdx_node *n, int depth, sdx_seen *s);
const char *sdx_mask_gather(sdx_mask_walk *w, const sdx_node *n, int depth, sdx_seen *s);

#endif
