/* onnx_io.h: what the files that read ONNX share: unpacking bounded by the size of the file (onnx_wire.c),
 * tensors (onnx_tensor.c) and data kept in other files (onnx_external.c). */
#ifndef SDX_ONNX_IO_H
#define SDX_ONNX_IO_H

#include "graph.h"
#include "onnx.pb-c.h"

/* raw_data of this many bytes and more stays where it is in the mapped file; less is copied, aligned. */
#define SDX_ONNX_MAPPED_BYTES 256
/* Messages inside messages: a subgraph takes three. */
#define SDX_ONNX_MAX_DEPTH 96

/* Unpacks one message. Everything it needs comes from `memory`, which the caller ends; large raw_data is left
 * out and named by mapped_offset and mapped_length. */
sdx_status sdx_onnx_unpack(const ProtobufCMessageDescriptor *type, const sdx_file_map *file, sdx_arena *memory,
                           ProtobufCMessage **out, sdx_error *err);

/* Where the bytes of tensors may be. */
typedef struct sdx_onnx_source {
    sdx_file_map file; /* mapped_offset counts from its start */
    sdx_model *model;  /* owns the mapped external files; NULL: external data is refused */
    sdx_map locations; /* external file, as the tensors spell it -> index in model->external; owned */
    size_t spread;     /* bytes given so far to sparse tensors spread out */
} sdx_onnx_source;

/* The tensor's data: in the mapping, or copied into the arena. Messages name the tensor. */
sdx_status sdx_onnx_read_tensor(sdx_onnx_source *source, const Onnx__TensorProto *proto, sdx_arena *arena,
                                sdx_tensor *out, sdx_error *err);
/* The same for a sparse tensor, spread out to a dense one. */
sdx_status sdx_onnx_read_sparse(sdx_onnx_source *source, const Onnx__SparseTensorProto *proto, sdx_arena *arena,
                                sdx_tensor *out, sdx_error *err);
/* The `bytes` bytes that a tensor keeps in another file, mapped once per file. */
sdx_status sdx_onnx_find_external(sdx_onnx_source *source, const Onnx__TensorProto *proto, size_t bytes,
                                  const unsigned char **data, sdx_error *err);

#endif
