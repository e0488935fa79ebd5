/* onnx_wire.c: from the bytes of a file to protobuf-c's structs, without copying the weights and without trust.
 *
 * protobuf-c copies every `bytes` field, so that a 400 MB model would need 800 MB, and it follows nested
 * messages as deep as a file asks. A scan over the wire format goes first. It copies the message into a
 * skeleton: fields that onnx.proto does not have are dropped, and a TensorProto's large raw_data is replaced by
 * two numbers that say where in the file it is. protobuf-c's own descriptors drive the scan, so there is no
 * second table of the format. What protobuf-c then allocates comes from an arena whose size is bounded by the
 * skeleton's. */
#include <string.h>

#include "../base/buffer.h"
#include "onnx_io.h"

enum { VARINT = 0, FIXED64 = 1, LENGTH = 2, FIXED32 = 5 }; /* wire types; 3 and 4 are the long-gone groups */
enum { PADDED_VARINT = 5 };                                /* bytes of a length that is filled in afterwards */

typedef struct scan {
    const unsigned char *start; /* of the file, for offsets */
    const unsigned char *at, *end;
    sdx_buffer skeleton;
    size_t padding; /* bytes of the skeleton that padded lengths added */
    sdx_error *err;
} scan;

typedef struct field {
    uint64_t number;
    int wire;
    const unsigned char *body, *end; /* payload: of LENGTH without its length */
} field;

static sdx_status malformed(scan *s, const char *what)
{
    return sdx_fail(s->err, SDX_ERR_FILE, "not a valid ONNX file: %s at byte %zu", what,
                    (size_t)(s->at - s->start));
}

static sdx_status read_varint(scan *s, uint64_t *out)
{
    uint64_t v = 0;
    for (int shift = 0; shift < 70 && s->at < s->end; shift += 7) {
        unsigned char byte = *s->at++;
        v |= (uint64_t)(byte & 127) << (shift < 63 ? shift : 63);
        if (byte < 128) {
            *out = v;
            return SDX_OK;
        }
    }
    return malformed(s, "a number is cut off or too long");
}

static sdx_status read_field(scan *s, field *f)
{
    uint64_t tag, length = 0;
    TRY(read_varint(s, &tag));
    f->number = tag >> 3;
    f->wire = (int)(tag & 7);
    if (f->number == 0 || f->number > 536870911) return malformed(s, "an impossible field number");
    f->body = s->at;
    if (f->wire == VARINT) {
        TRY(read_varint(s, &length));
        f->end = s->at;
        return SDX_OK;
    }
    if (f->wire == LENGTH)
        TRY(read_varint(s, &length));
    else if (f->wire == FIXED64)
        length = 8;
    else if (f->wire == FIXED32)
        length = 4;
    else
        return malformed(s, "an unknown kind of field");
    if (length > (uint64_t)(s->end - s->at))
        return malformed(s, "a field longer than what is left of the file");
    f->body = s->at;
    s->at += length;
    f->end = s->at;
    return SDX_OK;
}

static void put_varint(sdx_buffer *b, uint64_t v)
{
    while (v > 127) {
        sdx_buffer_putc(b, (char)(v | 128));
        v >>= 7;
    }
    sdx_buffer_putc(b, (char)v);
}

static void put_number(sdx_buffer *b, uint64_t number, uint64_t v)
{
    put_varint(b, number << 3 | VARINT);
    put_varint(b, v);
}

enum { RAW_DATA = 9, MAPPED_OFFSET = 536870910, MAPPED_LENGTH = 536870911 }; /* of TensorProto */

static bool is_mapped_number(const ProtobufCMessageDescriptor *type, uint64_t number)
{
    return type == &onnx__tensor_proto__descriptor && number >= MAPPED_OFFSET;
}

static void copy_field(scan *s, const ProtobufCMessageDescriptor *type, const field *f)
{
    size_t n = (size_t)(f->end - f->body);
    if (type == &onnx__tensor_proto__descriptor && f->number == RAW_DATA && n >= SDX_ONNX_MAPPED_BYTES) {
        put_number(&s->skeleton, MAPPED_OFFSET, (uint64_t)(f->body - s->start));
        put_number(&s->skeleton, MAPPED_LENGTH, n);
        return;
    }
    put_varint(&s->skeleton, f->number << 3 | (uint64_t)f->wire);
    if (f->wire == LENGTH) put_varint(&s->skeleton, n);
    sdx_buffer_append(&s->skeleton, f->body, n);
}

static sdx_status scan_message(scan *s, const ProtobufCMessageDescriptor *type, int depth);

/* The length of the copy is not known before it is made, so its varint is padded to five bytes (which readers
 * accept) and filled in afterwards. */
static sdx_status copy_message(scan *s, const ProtobufCMessageDescriptor *type, const field *f, int depth)
{
    if (f->wire != LENGTH) return malformed(s, "a number where a message should be");
    put_varint(&s->skeleton, f->number << 3 | LENGTH);
    size_t length_at = s->skeleton.size;
    sdx_buffer_append(&s->skeleton, "\x80\x80\x80\x80\x00", PADDED_VARINT);
    s->padding += PADDED_VARINT - 1;
    const unsigned char *after = s->at, *end = s->end;
    s->at = f->body;
    s->end = f->end;
    TRY(scan_message(s, type, depth + 1));
    s->at = after;
    s->end = end;
    if (s->skeleton.failed) return sdx_fail_memory(s->err, s->skeleton.size);
    size_t n = s->skeleton.size - length_at - PADDED_VARINT;
    if (n > INT32_MAX) return malformed(s, "a graph of more than 2 GB without its weights");
    unsigned char *length = (unsigned char *)s->skeleton.data + length_at;
    for (int i = 0; i < PADDED_VARINT; i++, n >>= 7) length[i] |= n & 127;
    return SDX_OK;
}

/* Copies s->at .. s->end. A field that should stand once is refused twice: protobuf would merge the two, which
 * no writer of ONNX relies on. */
static sdx_status scan_message(scan *s, const ProtobufCMessageDescriptor *type, int depth)
{
    if (depth > SDX_ONNX_MAX_DEPTH) return malformed(s, "messages nested too deeply");
    uint64_t seen = 0; /* by index of the field; no message here has more than 64 */
    while (s->at < s->end) {
        field f = {0};
        TRY(read_field(s, &f));
        const ProtobufCFieldDescriptor *d = protobuf_c_message_descriptor_get_field(type, (unsigned)f.number);
        if (!d || is_mapped_number(type, f.number)) continue;
        uint64_t bit = (uint64_t)1 << (d - type->fields);
        bool by_length = d->type == PROTOBUF_C_TYPE_MESSAGE || d->type == PROTOBUF_C_TYPE_BYTES;
        if (d->label != PROTOBUF_C_LABEL_REPEATED && by_length && (seen & bit))
            return malformed(s, "a field that should stand once stands twice");
        seen |= bit;
        if (d->type == PROTOBUF_C_TYPE_MESSAGE)
            TRY(copy_message(s, d->descriptor, &f, depth));
        else
            copy_field(s, type, &f);
    }
    return SDX_OK;
}

/* ---- memory for protobuf-c ------------------------------------------------------------------------------- */

/* Honest graphs take up to 10 times their bytes, a list of small unpacked integers 44 times. A hostile file
 * could ask for hundreds: an empty node is two bytes. */
enum { BUDGET_FACTOR = 64, BUDGET_BASE = 1 << 20 };

typedef struct budget {
    sdx_arena *arena;
    size_t left;
    bool refused, failed; /* over budget; the system has no memory */
} budget;

static void *budget_alloc(void *data, size_t bytes)
{
    budget *b = data;
    if (bytes > b->left) {
        b->refused = true;
        return NULL;
    }
    b->left -= bytes;
    void *p = sdx_arena_alloc(b->arena, bytes);
    if (!p) b->failed = true;
    return p;
}

static void budget_free(void *data, void *p)
{
    (void)data, (void)p; /* the arena frees all at once */
}

static sdx_status unpack_skeleton(const scan *s, const ProtobufCMessageDescriptor *type, sdx_arena *memory,
                                  ProtobufCMessage **out)
{
    const sdx_buffer *skeleton = &s->skeleton;
    size_t most = BUDGET_BASE + BUDGET_FACTOR * (skeleton->size - s->padding);
    budget b = {memory, most, false, false};
    ProtobufCAllocator allocator = {budget_alloc, budget_free, &b};
    const uint8_t *bytes = skeleton->size ? (const uint8_t *)skeleton->data : (const uint8_t *)"";
    ProtobufCMessage *message = protobuf_c_message_unpack(type, &allocator, skeleton->size, bytes);
    if (b.failed) return sdx_fail_memory(s->err, skeleton->size);
    if (b.refused)
        return sdx_fail(s->err, SDX_ERR_FILE,
                        "not a valid ONNX file: its graph would unpack to more than %zu bytes", most);
    if (!message) return sdx_fail(s->err, SDX_ERR_FILE, "not a valid ONNX file: a field has the wrong type");
    *out = message;
    return SDX_OK;
}

sdx_status sdx_onnx_unpack(const ProtobufCMessageDescriptor *type, const sdx_file_map *file, sdx_arena *memory,
                           ProtobufCMessage **out, sdx_error *err)
{
    scan s = {.start = file->data, .at = file->data, .end = file->data + file->size, .err = err};
    sdx_status status = scan_message(&s, type, 0);
    if (status == SDX_OK && s.skeleton.failed) status = sdx_fail_memory(err, s.skeleton.size);
    if (status == SDX_OK) status = unpack_skeleton(&s, type, memory, out);
    sdx_buffer_fini(&s.skeleton);
    return status;
}
