/* npy.c: NumPy's .npy files. A magic string, a version, the length of a header, the header (a Python dictionary
 * literal with the keys descr, fortran_order and shape), then the bytes. Format: NumPy enhancement proposal 1.
 * Read: versions 1 to 3, either byte order, either memory order. Written: version 1, little-endian, C order. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"
#include "memory.h"
#include "tensor.h"

static const struct {
    const char *code; /* without the byte order */
    sdx_dtype dtype;
} codes[] = {
    {"f4", SDX_F32}, {"f2", SDX_F16},   {"f8", SDX_F64},  {"i8", SDX_I64}, {"i4", SDX_I32}, {"i2", SDX_I16},
    {"i1", SDX_I8},  {"u8", SDX_U64},   {"u4", SDX_U32},  {"u2", SDX_U16}, {"u1", SDX_U8},  {"b1", SDX_BOOL},
    {"c8", SDX_C64}, {"c16", SDX_C128}, {"V2", SDX_BF16}, /* NumPy has no bfloat16; the usual add-on saves it so
                                                           */
};
enum { N_CODES = sizeof codes / sizeof *codes, MAX_HEADER = 64 << 10 };

typedef struct header {
    sdx_dtype dtype;
    bool swapped, fortran;
    sdx_shape shape;
    size_t data_at; /* offset of the bytes */
} header;

static sdx_status malformed(sdx_error *err, const char *what)
{
    return sdx_fail(err, SDX_ERR_FILE, "not a valid .npy file: %s", what);
}

/* ---- reading --------------------------------------------------------------------------------------------- */

/* What follows 'key': in the header, or NULL. */
static const char *find_key(const char *text, const char *key)
{
    char quoted[24];
    snprintf(quoted, sizeof quoted, "'%s':", key);
    const char *at = strstr(text, quoted);
    return at ? at + strlen(quoted) + strspn(at + strlen(quoted), " ") : NULL;
}

static sdx_status parse_descr(const char *text, header *h, sdx_error *err)
{
    const char *at = find_key(text, "descr");
    if (!at || *at != '\'' || !strchr("<>|=", at[1]) || !at[1])
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "the .npy file holds records or has no element type");
    size_t n = strcspn(at + 2, "'");
    h->swapped = at[1] == '>';
    for (int i = 0; i < N_CODES; i++)
        if (n == strlen(codes[i].code) && !strncmp(at + 2, codes[i].code, n)) h->dtype = codes[i].dtype;
    if (h->dtype == SDX_UNDEFINED)
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "element type \"%.*s\" of the .npy file is not supported",
                        n < 40 ? (int)n + 1 : 40, at + 1);
    return SDX_OK;
}

static sdx_status parse_shape(const char *text, header *h, sdx_error *err)
{
    const char *at = find_key(text, "shape");
    if (!at || *at++ != '(') return malformed(err, "it has no shape");
    for (at += strspn(at, " "); *at != ')'; at += strspn(at, "L, ")) {
        int64_t n = 0;
        if (*at < '0' || *at > '9') return malformed(err, "its shape is not a list of sizes");
        for (; *at >= '0' && *at <= '9'; at++)
            if (__builtin_mul_overflow(n, 10, &n) || __builtin_add_overflow(n, *at - '0', &n))
                return malformed(err, "a size overflows");
        if (h->shape.rank == SDX_MAX_RANK)
            return sdx_fail(err, SDX_ERR_UNSUPPORTED, "the .npy file has more than %d dimensions",
                            SDX_MAX_RANK);
        h->shape.dim[h->shape.rank++] = n;
    }
    return SDX_OK;
}

/* text: the header, NUL-terminated. */
static sdx_status parse_text(const char *text, header *h, sdx_error *err)
{
    TRY(parse_descr(text, h, err));
    TRY(parse_shape(text, h, err));
    const char *order = find_key(text, "fortran_order");
    if (!order) return malformed(err, "it does not say its memory order");
    h->fortran = !strncmp(order, "True", 4);
    return SDX_OK;
}

static sdx_status parse_header(const sdx_file_map *file, header *h, sdx_error *err)
{
    const unsigned char *d = file->data;
    if (file->size < 12 || memcmp(d, "\x93NUMPY", 6))
        return malformed(err, "it does not begin with \\x93NUMPY");
    if (d[6] < 1 || d[6] > 3)
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "version %d of the .npy format is not supported", d[6]);
    size_t at = d[6] == 1 ? 10 : 12, n = (size_t)d[8] | (size_t)d[9] << 8;
    if (d[6] > 1) n |= (size_t)d[10] << 16 | (size_t)d[11] << 24;
    if (n > MAX_HEADER || n > file->size - at) return malformed(err, "its header is cut off");
    char *text = sdx_malloc(n + 1);
    if (!text) return sdx_fail_memory(err, n + 1);
    memcpy(text, d + at, n);
    text[n] = 0;
    *h = (header){.data_at = at + n};
    sdx_status status = parse_text(text, h, err);
    free(text);
    return status;
}

static void swap_bytes(unsigned char *data, size_t count, size_t each)
{
    for (size_t i = 0; i < count; i++, data += each)
        for (size_t k = 0; k < each / 2; k++) {
            unsigned char byte = data[k];
            data[k] = data[each - 1 - k];
            data[each - 1 - k] = byte;
        }
}

/* from: first index runs fastest; to: last index runs fastest. */
static void copy_fortran(unsigned char *to, const unsigned char *from, const sdx_shape *s, size_t each)
{
    int64_t count = sdx_shape_count(s), index[SDX_MAX_RANK] = {0};
    for (int64_t i = 0; i < count; i++) {
        int64_t at = 0;
        for (int k = s->rank - 1; k >= 0; k--) at = at * s->dim[k] + index[k];
        memcpy(to + (size_t)i * each, from + (size_t)at * each, each);
        for (int k = s->rank - 1; k >= 0 && ++index[k] == s->dim[k]; k--) index[k] = 0;
    }
}

static sdx_status read_mapped(const sdx_file_map *file, sdx_tensor *out, sdx_error *err)
{
    header h;
    size_t bytes, each;
    TRY(parse_header(file, &h, err));
    if (!sdx_tensor_size(h.dtype, &h.shape, &bytes)) return malformed(err, "its size overflows");
    if (bytes > file->size - h.data_at)
        return sdx_fail(err, SDX_ERR_FILE, "the .npy file is cut off: %zu bytes of data, its shape needs %zu",
                        file->size - h.data_at, bytes);
    unsigned char *data = sdx_malloc_aligned(bytes);
    if (!data) return sdx_fail_memory(err, bytes);
    const unsigned char *from = file->data + h.data_at;
    each = sdx_dtype_size(h.dtype);
    if (h.fortran && h.shape.rank > 1)
        copy_fortran(data, from, &h.shape, each);
    else if (bytes)
        memcpy(data, from, bytes);
    bool complex_pair = h.dtype == SDX_C64 || h.dtype == SDX_C128;
    if (h.swapped)
        swap_bytes(data, complex_pair ? bytes / (each / 2) : bytes / each, complex_pair ? each / 2 : each);
    *out = sdx_tensor_make(h.dtype, &h.shape, data);
    return SDX_OK;
}

sdx_status sdx_tensor_read_npy(const char *path, sdx_tensor *out, sdx_error *err)
{
    sdx_file_map file;
    TRY(sdx_file_map_open(path, &file, err));
    sdx_status status = read_mapped(&file, out, err);
    sdx_file_map_close(&file);
    if (status != SDX_OK && err) sdx_error_context(err, "%s", path);
    return status;
}

/* ---- writing --------------------------------------------------------------------------------------------- */

static void put_header(sdx_writer *w, const char *code, const sdx_tensor *t)
{
    char text[512], shape[256] = "";
    int n = 0;
    for (int i = 0; i < t->rank; i++)
        n += snprintf(shape + n, sizeof shape - (size_t)n, "%lld,%s", (long long)t->dim[i],
                      i + 1 < t->rank ? " " : "");
    if (t->rank > 1) shape[n - 1] = 0; /* only a tuple of one ends with a comma */
    char order = code[1] == '1' && code[2] == 0 ? '|' : '<';
    n = snprintf(text, sizeof text, "{'descr': '%c%s', 'fortran_order': False, 'shape': (%s), }", order, code,
                 shape);
    size_t total = ((size_t)n + 1 + 10 + 63) / 64 * 64; /* the data starts at a multiple of 64 */
    unsigned char start[10] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0};
    start[8] = (unsigned char)(total - 10);
    start[9] = (unsigned char)((total - 10) >> 8);
    sdx_writer_put(w, start, sizeof start);
    memset(text + n, ' ', total - 11 - (size_t)n);
    text[total - 11] = '\n';
    sdx_writer_put(w, text, total - 10);
}

/* The type NumPy reads it as: the floats it does not know as float32, which holds them exactly, integers below
 * 8 bits as the bytes that they are in memory. */
static sdx_dtype written_as(sdx_dtype t)
{
    if (t == SDX_BF16 || sdx_dtype_is_coded(t)) return SDX_F32;
    if (sdx_dtype_is_small_int(t)) return sdx_dtype_is_signed(t) ? SDX_I8 : SDX_U8;
    return t;
}

static void put_floats(sdx_writer *w, const sdx_tensor *t)
{
    const unsigned char *data = t->data; /* may be unaligned */
    size_t each = sdx_dtype_size(t->dtype);
    for (size_t i = 0, n = (size_t)sdx_tensor_count(t); i < n; i++) {
        uint16_t bits = data[i];
        if (each == sizeof bits) memcpy(&bits, data + i * each, each);
        float f = t->dtype == SDX_BF16 ? sdx_bf16_to_f32(bits) : sdx_code_to_f32(t->dtype, (uint8_t)bits);
        sdx_writer_put(w, &f, sizeof f);
    }
}

sdx_status sdx_tensor_write_npy(const char *path, const sdx_tensor *t, sdx_error *err)
{
    sdx_dtype dtype = written_as(t->dtype);
    const char *code = NULL;
    for (int i = 0; i < N_CODES; i++)
        if (codes[i].dtype == dtype) code = codes[i].code;
    if (!code)
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "%s: a tensor of type %s cannot be written as .npy", path,
                        sdx_dtype_name(t->dtype));
    sdx_writer w;
    TRY(sdx_writer_open(&w, path, err));
    put_header(&w, code, t);
    if (dtype == SDX_F32 && t->dtype != SDX_F32)
        put_floats(&w, t);
    else
        sdx_writer_put(&w, t->data, sdx_tensor_bytes(t));
    return sdx_writer_commit(&w, err);
}
