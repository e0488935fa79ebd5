/* numpy.c: files for NumPy and SciPy: the header of an .npy array whose length is known last, and a sparse matrix as
 * scipy.sparse.save_npz stores it (CSR: a ZIP of .npy members, uncompressed). The matrix is made from rows that the
 * journal has collected, in a few passes over them, so memory does not grow with the corpus. ZIP as PKWARE's APPNOTE
 * 6.3.10 has it, always with the 64-bit fields of its section 4.5.3. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "cli.h"
#include "numpy.h"

void cli_npy_header(char out[CLI_NPY_HEADER], const char *dtype, int rank, const uint64_t *dim)
{
    enum { MAGIC = 10 };
    char shape[64] = "";
    for (int i = 0; i < rank; i++)
        snprintf(shape + strlen(shape), sizeof shape - strlen(shape), "%llu,%s", (unsigned long long)dim[i],
                 i + 1 < rank ? " " : "");
    if (rank > 1) shape[strlen(shape) - 1] = 0; /* (3,) but (3, 4) */
    memset(out, ' ', CLI_NPY_HEADER);
    memcpy(out, "\x93NUMPY\1\0", 8);
    out[8] = CLI_NPY_HEADER - MAGIC;
    out[9] = 0;
    int n = snprintf(out + MAGIC, CLI_NPY_HEADER - MAGIC, "{'descr': '%s', 'fortran_order': False, 'shape': (%s), }",
                     dtype, shape);
    out[MAGIC + n] = ' ';
    out[CLI_NPY_HEADER - 1] = '\n';
}

void cli_sparse_row_write(FILE *out, const char *id, size_t n, const int32_t *index, const float *weight)
{
    uint32_t count = (uint32_t)n, length = (uint32_t)strlen(id);
    fwrite(&count, sizeof count, 1, out);
    if (n > 0) {
        fwrite(index, sizeof *index, n, out);
        fwrite(weight, sizeof *weight, n, out);
    }
    fwrite(&length, sizeof length, 1, out);
    fwrite(id, 1, length, out);
}

/* ---- ZIP ------------------------------------------------------------------------------------------------- */

enum { MEMBERS = 6, LOCAL = 30, EXTRA_LOCAL = 20, VERSION_ZIP64 = 45 };

typedef struct member {
    const char *name;
    uint64_t offset, size;
    uint32_t crc;
} member;

typedef struct zip {
    FILE *file;
    member member[MEMBERS];
    int count;
} zip;

static void put(FILE *f, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++) fputc((int)(value >> 8 * i & 0xff), f);
}

static void put_local_header(const zip *z, const member *m)
{
    put(z->file, 0x04034b50, 4);
    put(z->file, VERSION_ZIP64, 2);
    put(z->file, 0, 8); /* flags, stored, no time; the date below is 1980-01-01 */
    fseeko(z->file, -2, SEEK_CUR);
    put(z->file, 0x21, 2);
    put(z->file, m->crc, 4);
    put(z->file, 0xffffffff, 4);
    put(z->file, 0xffffffff, 4);
    put(z->file, strlen(m->name), 2);
    put(z->file, EXTRA_LOCAL, 2);
    fputs(m->name, z->file);
    put(z->file, 1, 2);
    put(z->file, EXTRA_LOCAL - 4, 2);
    put(z->file, m->size, 8);
    put(z->file, m->size, 8);
}

static void begin_member(zip *z, const char *name, const char *dtype, int rank, const uint64_t *dim)
{
    char header[CLI_NPY_HEADER];
    member *m = &z->member[z->count];
    *m = (member){.name = name, .offset = (uint64_t)ftello(z->file)};
    put_local_header(z, m);
    cli_npy_header(header, dtype, rank, dim);
    m->crc = (uint32_t)crc32(0, (const unsigned char *)header, sizeof header);
    m->size = sizeof header;
    fwrite(header, 1, sizeof header, z->file);
}

static void put_bytes(zip *z, const void *data, size_t n)
{
    member *m = &z->member[z->count];
    m->crc = (uint32_t)crc32_z(m->crc, data, n);
    m->size += n;
    fwrite(data, 1, n, z->file);
}

static void end_member(zip *z)
{
    member *m = &z->member[z->count++];
    off_t end = ftello(z->file);
    fseeko(z->file, (off_t)m->offset, SEEK_SET);
    put_local_header(z, m);
    fseeko(z->file, end, SEEK_SET);
}

static void put_directory(const zip *z)
{
    FILE *f = z->file;
    uint64_t begin = (uint64_t)ftello(f);
    for (int i = 0; i < z->count; i++) {
        const member *m = &z->member[i];
        put(f, 0x02014b50, 4);
        put(f, VERSION_ZIP64, 2);
        put(f, VERSION_ZIP64, 2);
        put(f, 0, 6);    /* flags, method, time */
        put(f, 0x21, 2); /* date */
        put(f, m->crc, 4);
        put(f, 0xffffffff, 4);
        put(f, 0xffffffff, 4);
        put(f, strlen(m->name), 2);
        put(f, 28, 2); /* extra field */
        put(f, 0, 2);  /* comment */
        put(f, 0, 8);  /* disk, attributes */
        put(f, 0xffffffff, 4);
        fputs(m->name, f);
        put(f, 1, 2);
        put(f, 24, 2);
        put(f, m->size, 8);
        put(f, m->size, 8);
        put(f, m->offset, 8);
    }
    uint64_t end = (uint64_t)ftello(f);
    put(f, 0x06064b50, 4); /* ZIP64 end of central directory */
    put(f, 44, 8);
    put(f, VERSION_ZIP64, 2);
    put(f, VERSION_ZIP64, 2);
    put(f, 0, 8);
    put(f, (uint64_t)z->count, 8);
    put(f, (uint64_t)z->count, 8);
    put(f, end - begin, 8);
    put(f, begin, 8);
    put(f, 0x07064b50, 4); /* where that is */
    put(f, 0, 4);
    put(f, end, 8);
    put(f, 1, 4);
    put(f, 0x06054b50, 4); /* the old one */
    put(f, 0, 4);
    put(f, (uint64_t)z->count, 2);
    put(f, (uint64_t)z->count, 2);
    put(f, 0xffffffff, 4);
    put(f, 0xffffffff, 4);
    put(f, 0, 2);
}

/* ---- the matrix ------------------------------------------------------------------------------------------ */

typedef struct row {
    uint32_t count, id_length;
    char *data; /* indices, weights */
    char *id;
    size_t data_room, id_room;
} row;

static bool grow(char **p, size_t *room, size_t want)
{
    if (want <= *room) return true;
    char *bigger = realloc(*p, want * 2);
    if (!bigger) return false;
    *p = bigger;
    *room = want * 2;
    return true;
}

static bool read_row(FILE *in, row *r)
{
    if (fread(&r->count, sizeof r->count, 1, in) != 1 || !grow(&r->data, &r->data_room, (size_t)r->count * 8 + 1))
        return false;
    if (fread(r->data, 8, r->count, in) != r->count || fread(&r->id_length, sizeof r->id_length, 1, in) != 1)
        return false;
    return grow(&r->id, &r->id_room, (size_t)r->id_length + 1) && fread(r->id, 1, r->id_length, in) == r->id_length;
}

typedef struct matrix {
    FILE *rows;
    uint64_t count, entries, longest_id;
} matrix;

typedef void (*row_fn)(zip *z, const matrix *m, const row *r, uint64_t *sum);

static bool each_row(zip *z, matrix *m, row_fn fn)
{
    row r = {0};
    uint64_t sum = 0, i = 0;
    rewind(m->rows);
    for (; i < m->count && read_row(m->rows, &r); i++) fn(z, m, &r, &sum);
    free(r.data);
    free(r.id);
    return i == m->count;
}

static void measure(zip *z, const matrix *m, const row *r, uint64_t *sum)
{
    (void)z;
    (void)sum;
    matrix *measured = (matrix *)m;
    measured->entries += r->count;
    if (r->id_length > measured->longest_id) measured->longest_id = r->id_length;
}

static void put_index(zip *z, const matrix *m, const row *r, uint64_t *sum)
{
    (void)m;
    (void)sum;
    put_bytes(z, r->data, (size_t)r->count * sizeof(int32_t));
}

static void put_weight(zip *z, const matrix *m, const row *r, uint64_t *sum)
{
    (void)m;
    (void)sum;
    put_bytes(z, r->data + (size_t)r->count * sizeof(int32_t), (size_t)r->count * sizeof(float));
}

static void put_end(zip *z, const matrix *m, const row *r, uint64_t *sum)
{
    (void)m;
    *sum += r->count;
    put_bytes(z, sum, sizeof *sum);
}

static void put_id(zip *z, const matrix *m, const row *r, uint64_t *sum)
{
    (void)sum;
    static const char zeros[256];
    put_bytes(z, r->id, r->id_length);
    for (uint64_t n = r->id_length; n < m->longest_id;) {
        size_t piece = m->longest_id - n < sizeof zeros ? (size_t)(m->longest_id - n) : sizeof zeros;
        put_bytes(z, zeros, piece);
        n += piece;
    }
}

static bool put_matrix(zip *z, matrix *m, uint64_t width)
{
    uint64_t zero = 0, shape[] = {m->count, width}, two = 2, ends = m->count + 1;
    char bytes[32];
    if (!each_row(z, m, measure)) return false;
    if (m->longest_id == 0) m->longest_id = 1;
    begin_member(z, "format.npy", "|S3", 0, NULL);
    put_bytes(z, "csr", 3);
    end_member(z);
    begin_member(z, "shape.npy", "<i8", 1, &two);
    put_bytes(z, shape, sizeof shape);
    end_member(z);
    begin_member(z, "indptr.npy", "<i8", 1, &ends);
    put_bytes(z, &zero, sizeof zero);
    bool ok = each_row(z, m, put_end);
    end_member(z);
    begin_member(z, "indices.npy", "<i4", 1, &m->entries);
    ok = ok && each_row(z, m, put_index);
    end_member(z);
    begin_member(z, "data.npy", "<f4", 1, &m->entries);
    ok = ok && each_row(z, m, put_weight);
    end_member(z);
    snprintf(bytes, sizeof bytes, "|S%llu", (unsigned long long)m->longest_id);
    begin_member(z, "ids.npy", bytes, 1, &m->count);
    ok = ok && each_row(z, m, put_id);
    end_member(z);
    put_directory(z);
    return ok;
}

int cli_sparse_rows_to_npz(const char *rows, uint64_t count, uint64_t width, const char *path)
{
    matrix m = {.rows = fopen(rows, "rb"), .count = count};
    if (!m.rows) return cli_usage_error("%s: %s", rows, strerror(errno));
    cli_output out;
    int code = cli_output_open_as(&out, path, ".part.npz");
    if (code == EXIT_FINE) {
        zip z = {.file = out.file};
        bool ok = put_matrix(&z, &m, width) && !ferror(out.file);
        bool full = ferror(out.file);
        if (!ok)
            code =
                cli_usage_error("%s: cannot be made from %s: %s", path, rows, full ? strerror(errno) : "it is damaged");
        int closed = cli_output_close(&out, ok);
        if (code == EXIT_FINE) code = closed;
    }
    fclose(m.rows);
    return code;
}
