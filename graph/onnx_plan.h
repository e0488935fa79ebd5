/* onnx_plan.h: what a file will hold, decided before its first byte: onnx_plan.c makes it, onnx_writer.c writes it. */
#ifndef SDX_ONNX_PLAN_H
#define SDX_ONNX_PLAN_H

#include "graph.h"

typedef struct sdx_onnx_marks {
    const sdx_graph *graph;
    unsigned char *flags; /* [n_value] */
    struct sdx_onnx_marks *next;
} sdx_onnx_marks;

typedef struct sdx_onnx_plan {
    const sdx_model *model;
    sdx_arena arena;
    sdx_onnx_marks *marks; /* of every graph */
    const char **domain;   /* [n_domain] of live nodes */
    int n_domain;
    int64_t ir_version;
    uint64_t *offset;     /* [main graph's n_value] in the data file, or EMBEDDED; NULL: all embedded */
    uint64_t data_bytes;  /* of the data file; 0: there is none */
    const char *location; /* the data file, as seen from the model */
    const sdx_onnx_write_options *options;
    uint64_t total; /* bytes of both files */
} sdx_onnx_plan;
#define SDX_ONNX_EMBEDDED UINT64_MAX
enum { SDX_ONNX_ALIGN = 4096 }; /* of a tensor in the data file: a page, so that readers can map single ones */

/* Everything but offset, data_bytes, location and total. plan: model, arena and options are set. */
sdx_status sdx_onnx_plan_make(sdx_onnx_plan *plan, sdx_error *err);
/* Gives every larger initializer of the main graph its place in the data file of a model at `path`. */
sdx_status sdx_onnx_plan_external(sdx_onnx_plan *plan, const char *path, sdx_error *err);

const sdx_onnx_marks *sdx_onnx_plan_marks(const sdx_onnx_plan *plan, const sdx_graph *graph);
/* A weight, or the default of an input; and whether the file holds one for v. */
const sdx_tensor *sdx_onnx_initializer(const sdx_value *value);
bool sdx_onnx_is_initializer(const sdx_onnx_marks *marks, sdx_id v);

#endif
