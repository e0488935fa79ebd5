/* explain.h: what became of every place that looks like attention, a norm, a GELU or an embedding. */
#ifndef SDX_GRAPH_EXPLAIN_H
#define SDX_GRAPH_EXPLAIN_H

#include "graph.h"

/* Of a model after its passes, as text or as a JSON list. *missed: places that an operator exists for and that
 * did not become one. free() the text. */
sdx_status sdx_model_explain(const sdx_model *model, bool json, char **text, size_t *missed, sdx_error *err);

#endif
