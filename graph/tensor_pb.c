/* tensor_pb.c: files that hold one serialized value, as the ONNX test suites store inputs and outputs: a
 * TensorProto, SequenceProto or OptionalProto. The bytes do not say which: whoever reads must know. */
#include "../base/memory.h"
#include "../base/sequence.h"
#include "onnx_io.h"

/* Into one block that free() releases. */
static sdx_status copy_out(const sdx_tensor *value, sdx_tensor *out, sdx_error *err)
{
    size_t bytes;
    if (!sdx_value_size(value, &bytes)) return sdx_fail_memory(err, SIZE_MAX);
    void *block = sdx_malloc_aligned(bytes);
    if (!block) return sdx_fail_memory(err, bytes);
    *out = sdx_value_copy(value, block);
    return SDX_OK;
}

typedef struct source {
    sdx_onnx_source onnx;
    sdx_arena *memory; /* until the value is copied out */
} source;

static sdx_status take_tensor(source *s, const Onnx__TensorProto *p, sdx_tensor *out, sdx_error *err)
{
    return sdx_onnx_read_tensor(&s->onnx, p, s->memory, out, err);
}

static sdx_status take_sequence(source *s, const Onnx__SequenceProto *p, sdx_tensor *out, sdx_error *err)
{
    sdx_tensor_list *q;
    ARENA_NEW(s->memory, q, 1, err);
    ARENA_NEW(s->memory, q->item, p->n_tensor_values, err);
    if (p->elem_type > 1)
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "it is a sequence of something other than tensors");
    for (; q->count < p->n_tensor_values; q->count++)
        TRY(take_tensor(s, p->tensor_values[q->count], &q->item[q->count], err));
    if (q->count) q->dtype = q->item[0].dtype;
    *out = sdx_sequence_view(q);
    return SDX_OK;
}

static sdx_status take_optional(source *s, const Onnx__OptionalProto *p, sdx_tensor *out, sdx_error *err)
{
    if (p->tensor_value) return take_tensor(s, p->tensor_value, out, err);
    if (p->sequence_value) return take_sequence(s, p->sequence_value, out, err);
    *out = (sdx_tensor){.dtype = SDX_NOTHING};
    return SDX_OK;
}

static const ProtobufCMessageDescriptor *message_type(const sdx_port *port)
{
    return port->optional   ? &onnx__optional_proto__descriptor
           : port->sequence ? &onnx__sequence_proto__descriptor
                            : &onnx__tensor_proto__descriptor;
}

static sdx_status read_mapped(const sdx_file_map *file, const sdx_port *port, sdx_arena *memory, sdx_tensor *out,
                              sdx_error *err)
{
    source s = {{.file = *file}, memory};
    ProtobufCMessage *message;
    sdx_tensor value;
    TRY(sdx_onnx_unpack(message_type(port), file, memory, &message, err));
    if (port->optional)
        TRY(take_optional(&s, (const Onnx__OptionalProto *)message, &value, err));
    else if (port->sequence)
        TRY(take_sequence(&s, (const Onnx__SequenceProto *)message, &value, err));
    else
        TRY(take_tensor(&s, (const Onnx__TensorProto *)message, &value, err));
    return copy_out(&value, out, err);
}

sdx_status sdx_value_read_pb(const char *path, const sdx_port *port, sdx_tensor *out, sdx_error *err)
{
    sdx_file_map file;
    sdx_arena memory;
    TRY(sdx_file_map_open(path, &file, err));
    sdx_arena_init(&memory);
    sdx_status status = read_mapped(&file, port, &memory, out, err);
    sdx_arena_fini(&memory);
    sdx_file_map_close(&file);
    if (status != SDX_OK && err) sdx_error_context(err, "%s", path);
    return status;
}

sdx_status sdx_tensor_read_pb(const char *path, sdx_tensor *out, sdx_error *err)
{
    return sdx_value_read_pb(path, &(sdx_port){.rank = -1}, out, err);
}
