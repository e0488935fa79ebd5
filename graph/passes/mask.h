/* mask.h: recognizing an attention mask by what it does.
 *
 * Exporters turn attention_mask[batch, keys] (1: look, 0: do not) into a term [batch,1,*,keys] in a dozen ways:
 * (1 - mask) * min, Where(Cast(1 - mask), min, 1 - mask), Where(mask == 0, min, scores), ... Instead of listing
 * them, the subgraph is evaluated twice, for mask 0 and for mask 1, while noting where the two axes went. */
#ifndef SDX_PASSES_MASK_H
#define SDX_PASSES_MASK_H

#include "match.h"

typedef struct sdx_mask {
    double at[2];                 /* the element's value where the source holds 0, and where it holds 1 */
    sdx_id source;                /* graph input [batch, keys]; SDX_NONE while the value is a mere number */
    int batch, key;               /* their axes, counted from the last one (0) */
    sdx_dim batch_size, key_size; /* what the graph says of their sizes */
} sdx_mask;

/* Reads v as an element-wise function of one graph input of rank 2. */
const char *sdx_match_mask(const sdx_graph *g, sdx_id v, sdx_mask *mask);

#endif
