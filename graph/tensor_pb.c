/* tensor_pb.c: a file that holds one serialized TensorProto, as the ONNX test suites store inputs and outputs.
 */
#include <stdlib.h>
#include <string.h>

#include "../base/memory.h"
#include "onnx_io.h"

/* One block that free() releases: the pointers, then the strings. */
static sdx_status copy_strings(const sdx_tensor *t, void **out, sdx_error *err)
{
    const char *const *from = t->data;
    size_t count = (size_t)sdx_tensor_count(t), bytes = count * sizeof(char *);
    for (size_t i = 0; i < count; i++) bytes += strlen(from[i]) + 1;
    char **strings = sdx_malloc_aligned(bytes);
    if (!strings) return sdx_fail_memory(err, bytes);
    char *at = (char *)(strings + count);
    for (size_t i = 0; i < count; i++) {
        size_t n = strlen(from[i]) + 1;
        strings[i] = memcpy(at, from[i], n);
        at += n;
    }
    *out = strings;
    return SDX_OK;
}

static sdx_status copy_data(const sdx_tensor *t, void **out, sdx_error *err)
{
    if (t->dtype == SDX_STRING) return copy_strings(t, out, err);
    size_t bytes = sdx_tensor_bytes(t);
    void *data = sdx_malloc_aligned(bytes);
    if (!data) return sdx_fail_memory(err, bytes);
    if (bytes) memcpy(data, t->data, bytes);
    *out = data;
    return SDX_OK;
}

static sdx_status read_mapped(const sdx_file_map *file, sdx_arena *memory, sdx_tensor *out, sdx_error *err)
{
    sdx_onnx_source source = {.file = *file};
    ProtobufCMessage *message;
    sdx_tensor t;
    TRY(sdx_onnx_unpack(&onnx__tensor_proto__descriptor, file, memory, &message, err));
    TRY(sdx_onnx_read_tensor(&source, (const Onnx__TensorProto *)message, memory, &t, err));
    TRY(copy_data(&t, &t.data, err));
    *out = t;
    return SDX_OK;
}

sdx_status sdx_tensor_read_pb(const char *path, sdx_tensor *out, sdx_error *err)
{
    sdx_file_map file;
    sdx_arena memory;
    TRY(sdx_file_map_open(path, &file, err));
    sdx_arena_init(&memory);
    sdx_status status = read_mapped(&file, &memory, out, err);
    sdx_arena_fini(&memory);
    sdx_file_map_close(&file);
    if (status != SDX_OK && err) sdx_error_context(err, "%s", path);
    return status;
}
