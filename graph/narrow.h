/* narrow.h: weights of 16 bits. */
#ifndef SDX_GRAPH_NARROW_H
#define SDX_GRAPH_NARROW_H

#include "graph.h"

/* Of a model after its passes, types inferred: weights of safe operators become SDX_F16 or SDX_BF16. */
sdx_status sdx_model_narrow(sdx_model *model, sdx_dtype to, sdx_error *err);

#endif
