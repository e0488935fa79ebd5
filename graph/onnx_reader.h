/* onnx_reader.h: what the parts of the reader share: onnx_reader.c begins with the file and its functions,
 * onnx_read_graph.c reads graphs and their nodes, onnx_read_attr.c texts, types and attributes. */
#ifndef SDX_GRAPH_ONNX_READER_H
#define SDX_GRAPH_ONNX_READER_H

#include <string.h>

#include "onnx_io.h"

typedef struct sdx_onnx_reader {
    sdx_model *model;
    sdx_arena *arena; /* the model's */
    sdx_onnx_source source;
    bool in_function; /* whose opsets are its own */
    sdx_error *err;
} sdx_onnx_reader;

static inline const char *sdx_onnx_text(const char *s)
{
    return s ? s : "";
}

/* The default domain has two spellings. */
static inline const char *sdx_onnx_domain(const char *s)
{
    return !s || !strcmp(s, "ai.onnx") ? "" : s;
}

/* Copies in the model's arena. */
sdx_status sdx_onnx_copy_text(sdx_onnx_reader *r, const char *s, const char **out);
sdx_status sdx_onnx_copy_texts(sdx_onnx_reader *r, size_t count, char *const *from, const char *const **out, int *n);

sdx_status sdx_onnx_read_type(sdx_onnx_reader *r, const Onnx__TypeProto *t, const sdx_declared **out);
/* g: the graph of the node, around subgraphs. */
sdx_status sdx_onnx_read_attributes(sdx_onnx_reader *r, sdx_graph *g, size_t count,
                                    Onnx__AttributeProto *const *from, sdx_attr **out, int *n);
sdx_status sdx_onnx_read_graph(sdx_onnx_reader *r, sdx_graph *g, const Onnx__GraphProto *p);
sdx_status sdx_onnx_read_function_body(sdx_onnx_reader *r, sdx_graph *g, const Onnx__FunctionProto *p);

#endif
