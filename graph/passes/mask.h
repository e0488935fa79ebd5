/* mask.h: recognizing an attention mask by what it does.
 *
 * Exporters turn attention_mask[batch, keys] (1: look, 0: do not) into a term [batch,1,*,keys] in a dozen ways:
 * (1 - mask) * min, Where(Cast(1 - mask), min, 1 - mask), Where(mask == 0, min, scores), ... and the rule that a query
 * sees no later key in another dozen: Trilu, Range > Range, a sliced table, copied about by ScatterND and GatherND.
 * Instead of listing them, the subgraph is evaluated for every case that matters (mask 0 or 1, key after the query or
 * not), while noting where the axes went. */
#ifndef SDX_PASSES_MASK_H
#define SDX_PASSES_MASK_H

#include "match.h"

typedef struct sdx_mask {
    double at[2][2];              /* [source holds 0, 1][key stands after the query: no, yes]: the element's value */
    sdx_id source;                /* graph input [batch, keys]; SDX_NONE: the value does not depend on any */
    int batch, key;               /* their axes, counted from the last one (0) */
    sdx_dim batch_size, key_size; /* what the graph says of their sizes */
    bool causal;                  /* the value depends on positions: row r stands at r + shift among the columns */
    int row, column;              /* their axes, counted from the last one */
    sdx_element shift;
} sdx_mask;

/* Reads v as an element-wise function of one graph input of rank 2 and of positions; a number is one, too. */
const char *sdx_match_mask(const sdx_graph *g, sdx_id v, sdx_mask *mask);

#endif
