/* value_text.h: what is known of a value, as people read it: "float32[batch,128,768]". */
#ifndef SDX_GRAPH_VALUE_TEXT_H
#define SDX_GRAPH_VALUE_TEXT_H

#include "../base/buffer.h"
#include "graph.h"

/* "float32[batch,128]"; "[...]" where even the rank is unknown; nothing at all where the element type is. */
void sdx_write_type(sdx_buffer *b, const sdx_model *model, sdx_dtype dtype, const sdx_shape *shape);
/* The same of a value, of a sequence or an optional too. shapes: NULL, or a model that has values of the same names
 * and may know more of them. */
void sdx_write_value_type(sdx_buffer *b, const sdx_graph *graph, const sdx_value *value, const sdx_model *shapes);

#endif
