/* test_torch_zip.c: archives and pickles made byte by byte: views of storages, and programs that are refused.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "../../convert/checkpoint.h"
#include "../../convert/pickle.h"

enum { MOST = 4096 };

typedef struct bytes {
    unsigned char data[MOST];
    size_t size;
} bytes;

static void put(bytes *b, const void *from, size_t n)
{
    ck_assert(b->size + n <= MOST);
    memcpy(b->data + b->size, from, n);
    b->size += n;
}

static void put_text(bytes *b, const char *s)
{
    put(b, s, strlen(s));
}

static void put_number(bytes *b, uint64_t v, int n)
{
    for (int i = 0; i < n; i++) put(b, &(unsigned char){(unsigned char)(i < 8 ? v >> 8 * i : 0)}, 1);
}

/* ---- an archive ------------------------------------------------------------------------------------------ */

typedef struct entry {
    const char *name;
    const void *data;
    size_t size;
} entry;

/* Local header or directory row: they share most fields. */
static void put_header(bytes *b, const entry *e, bool row, size_t offset, int method)
{
    put_number(b, row ? 0x02014b50 : 0x04034b50, 4);
    put_number(b, 0, row ? 4 : 2); /* versions */
    put_number(b, 0, 2);
    put_number(b, (uint64_t)method, 2);
    put_number(b, 0, 8); /* time, date, CRC */
    put_number(b, e->size, 4);
    put_number(b, e->size, 4);
    put_number(b, strlen(e->name), 2);
    put_number(b, 0, row ? 12 : 2);
    if (row) put_number(b, offset, 4);
    put_text(b, e->name);
}

static bytes make_zip(const entry *entries, size_t n, int method)
{
    bytes b = {0};
    size_t offset[8];
    for (size_t i = 0; i < n; i++) {
        offset[i] = b.size;
        put_header(&b, &entries[i], false, 0, method);
        put(&b, entries[i].data, entries[i].size);
    }
    size_t directory = b.size;
    for (size_t i = 0; i < n; i++) put_header(&b, &entries[i], true, offset[i], method);
    size_t end = b.size;
    put_number(&b, 0x06054b50, 4);
    put_number(&b, 0, 4);
    put_number(&b, n, 2);
    put_number(&b, n, 2);
    put_number(&b, end - directory, 4);
    put_number(&b, directory, 4);
    put_number(&b, 0, 2);
    return b;
}

/* ---- a pickle -------------------------------------------------------------------------------------------- */

static void put_string(bytes *b, const char *s)
{
    put_text(b, "X");
    put_number(b, strlen(s), 4);
    put_text(b, s);
}

static void put_ints(bytes *b, int n, const int *v)
{
    put_text(b, "(");
    for (int i = 0; i < n; i++) {
        put_text(b, "J");
        put_number(b, (uint64_t)(int64_t)v[i], 4);
    }
    put_text(b, "t");
}

/* _rebuild_tensor_v2((storage), offset, size, stride, False, OrderedDict()) */
static void put_tensor(bytes *b, const char *name, const char *class, int offset, int rank, const int *size,
                       const int *stride)
{
    put_string(b, name);
    put_text(b, "ctorch._utils\n_rebuild_tensor_v2\n((");
    put_string(b, "storage");
    put_text(b, class);
    put_string(b, "0");
    put_string(b, "cpu");
    put_text(b, "K\x06tQJ");
    put_number(b, (uint64_t)(int64_t)offset, 4);
    put_ints(b, rank, size);
    put_ints(b, rank, stride);
    put_text(b, "\x89"
                "ccollections\nOrderedDict\n)RtR");
}

static const float storage[] = {0, 1, 2, 3, 4, 5};
static const char float_class[] = "ctorch\nFloatStorage\n";

static sdx_status read_zip(const bytes *zip, sdx_checkpoint **out, sdx_error *err)
{
    ck_assert_int_eq(sdx_checkpoint_create("folder", out, NULL), SDX_OK);
    return sdx_torch_zip_read(*out, zip->data, zip->size, err);
}

static bytes archive_of(const bytes *pickle)
{
    const entry entries[] = {{"m/data.pkl", pickle->data, pickle->size}, {"m/data/0", storage, sizeof storage}};
    return make_zip(entries, 2, 0);
}

static sdx_status read_pickle(const bytes *pickle, sdx_checkpoint **out, sdx_error *err)
{
    bytes zip = archive_of(pickle);
    return read_zip(&zip, out, err);
}

static bytes make_views(void)
{
    bytes p = {0};
    put_text(&p, "\x80\x02}(");
    put_tensor(&p, "w", float_class, 0, 2, (int[]){2, 3}, (int[]){3, 1});
    put_tensor(&p, "transposed", float_class, 0, 2, (int[]){3, 2}, (int[]){1, 3});
    put_tensor(&p, "tail", float_class, 4, 1, (int[]){2}, (int[]){1});
    put_string(&p, "epoch");
    put_text(&p, "K\x07u.");
    return p;
}

START_TEST(views_of_a_storage)
{
    static const float turned[] = {0, 3, 1, 4, 2, 5};
    bytes p = make_views(), zip = archive_of(&p);
    sdx_checkpoint *c;
    sdx_error err = {0};
    ck_assert_msg(read_zip(&zip, &c, &err) == SDX_OK, "%s", err.message);
    ck_assert_uint_eq(c->n_tensor, 3);
    const sdx_tensor *w = sdx_checkpoint_find(c, "w"), *t = sdx_checkpoint_find(c, "transposed");
    const sdx_tensor *tail = sdx_checkpoint_find(c, "tail");
    ck_assert(w && w->rank == 2 && w->dim[0] == 2 && w->dim[1] == 3 &&
              !memcmp(w->data, storage, sizeof storage));
    ck_assert(t && t->dim[0] == 3 && t->dim[1] == 2 && !memcmp(t->data, turned, sizeof turned));
    ck_assert(tail && tail->dim[0] == 2 && !memcmp(tail->data, storage + 4, 8));
    ck_assert_int_eq(sdx_checkpoint_get(c, "w", 2, (int64_t[]){3, 2}, &w, &err), SDX_ERR_FILE);
    ck_assert(strstr(err.message, "\"w\" has shape [2,3] where config.json makes it [3,2]") != NULL);
    sdx_checkpoint_close(c);
}
END_TEST

static const struct {
    int offset, rank, size[3], stride[3];
    bool good;
} views[] = {
    {0, 1, {6}, {1}, true},
    {0, 0, {0}, {0}, true},
    {6, 1, {0}, {1}, true},
    {0, 2, {1, 6}, {2147483647, 1}, true}, /* the stride of a single row is never used */
    {0, 1, {7}, {1}, false},
    {5, 1, {2}, {1}, false},
    {-1, 1, {1}, {1}, false},
    {0, 1, {-1}, {1}, false},
    {0, 1, {2}, {-1}, false},
    {0, 2, {1000000, 1000000}, {0, 0}, false}, /* more elements than the storage holds */
    {0, 3, {2147483647, 2147483647, 2147483647}, {1, 1, 1}, false},
    {0, 2, {2, 2}, {2147483647, 2147483647}, false},
};

START_TEST(views_stay_inside)
{
    bytes p = {0};
    sdx_checkpoint *c;
    sdx_error err = {0};
    put_text(&p, "}(");
    put_tensor(&p, "w", float_class, views[_i].offset, views[_i].rank, views[_i].size, views[_i].stride);
    put_text(&p, "u.");
    ck_assert_msg((read_pickle(&p, &c, &err) == SDX_OK) == views[_i].good, "%s", err.message);
    sdx_checkpoint_close(c);
}
END_TEST

static const struct {
    const char *program;
    const char *says;
} programs[] = {
    {"cposix\nsystem\n(X\x02", "\"posix system\""},
    {"c__builtin__\neval\n.", "\"__builtin__ eval\""},
    {"cos\nsystem\n(X\x02", "\"os system\""},
    {"i__builtin__\nexec\n.", "instruction 0x69"},
    {"}r\xff\xff\xff\x7f.", "memo"},
    {"\x8a\xff\x01.", "more than 64 bits"},
    {"\x8b\xff\xff\xff\x7f.", "instruction 0x8b"},
    {"X\xff\xff\xff\xff.", "middle of an instruction"},
    {"ctorch\nFloatStorage\n)R.", "storage class"},
    {"\x93.", "instruction 0x93"},
    {"P0\n.", "instruction 0x50"},
    {"}", "middle of an instruction"},
    {".", "stack is empty"},
    {"(.", "stack is empty"},
    {"t.", "no mark"},
    {"u.", "no mark"},
    {"}s.", "stack is empty"},
    {"}(X\x01", "middle of an instruction"},
    {"h\x05.", "memo"},
    {"}q\xff.", "memo"},
    {"}.", "holds no tensors"},
    {"].", "dictionary of tensors"},
    {")Q.", "no storage"},
    {"K\x01K\x02R.", "no function"},
    {"K\x01K\x02K\x03s.", "no container"},
    {"}(K\x01u.", "key without a value"},
};

START_TEST(programs_are_refused)
{
    bytes p = {0};
    sdx_checkpoint *c;
    sdx_error err = {0};
    put_text(&p, programs[_i].program);
    ck_assert_int_ne(read_pickle(&p, &c, &err), SDX_OK);
    ck_assert_msg(strstr(err.message, programs[_i].says) != NULL, "\"%s\" lacks \"%s\"", err.message,
                  programs[_i].says);
    sdx_checkpoint_close(c);
}
END_TEST

START_TEST(archives_are_refused)
{
    bytes p = make_views(), zip = archive_of(&p);
    sdx_checkpoint *c;
    for (size_t size = 0; size < zip.size; size++) {
        bytes cut = zip;
        cut.size = size;
        ck_assert_int_ne(read_zip(&cut, &c, NULL), SDX_OK);
        sdx_checkpoint_close(c);
    }
    for (size_t bit = 0; bit < zip.size * 8; bit++) { /* survived, whatever the answer */
        bytes flipped = zip;
        flipped.data[bit / 8] ^= (unsigned char)(1 << bit % 8);
        read_zip(&flipped, &c, NULL);
        sdx_checkpoint_close(c);
    }
}
END_TEST

START_TEST(old_and_compressed_files_are_named)
{
    sdx_checkpoint *c;
    sdx_error err = {0};
    bytes old = {0};
    put_text(&old, "\x80\x02\x8a\nl\xfc\x9c"
                   "F\xf9 j\xa8P\x19.");
    ck_assert_int_eq(read_zip(&old, &c, &err), SDX_ERR_UNSUPPORTED);
    ck_assert(strstr(err.message, "before PyTorch 1.6") != NULL);
    sdx_checkpoint_close(c);
    const entry e = {"m/data.pkl", "}.", 2};
    bytes packed = make_zip(&e, 1, 8);
    ck_assert_int_eq(read_zip(&packed, &c, &err), SDX_ERR_UNSUPPORTED);
    ck_assert(strstr(err.message, "compressed") != NULL);
    sdx_checkpoint_close(c);
}
END_TEST

/* What the files claim is not what is taken: sizes beyond the file, a storage under many names, a million marks. */
START_TEST(bombs_are_refused)
{
    sdx_checkpoint *c;
    sdx_error err = {0};
    static const float large[400];
    bytes p = make_views(), zip = archive_of(&p);
    for (size_t at = 0; at + 46 < zip.size; at++) /* the directory's rows: both sizes 4 GB */
        if (!memcmp(zip.data + at, "PK\x01\x02", 4)) memset(zip.data + at + 20, 0xfe, 8);
    ck_assert_int_eq(read_zip(&zip, &c, &err), SDX_ERR_FILE);
    sdx_checkpoint_close(c);

    bytes many = {0};
    put_text(&many, "}(");
    for (int i = 0; i < 15; i++)
        put_tensor(&many, (char[]){(char)('a' + i), 0}, float_class, 0, 2, (int[]){20, 20}, (int[]){1, 20});
    put_text(&many, "u.");
    const entry entries[] = {{"m/data.pkl", many.data, many.size}, {"m/data/0", large, sizeof large}};
    zip = make_zip(entries, 2, 0);
    ck_assert_int_eq(read_zip(&zip, &c, &err), SDX_ERR_FILE);
    ck_assert_msg(strstr(err.message, "share more than 4 times") != NULL, "%s", err.message);
    sdx_checkpoint_close(c);

    const size_t n = 1 << 20;
    unsigned char *marks = malloc(n);
    sdx_arena arena;
    sdx_pickle_tensor *tensors;
    size_t count;
    ck_assert(marks != NULL);
    sdx_arena_init(&arena);
    memset(marks, '(', n);
    ck_assert_int_eq(sdx_pickle_read(&arena, marks, n, &tensors, &count, &err), SDX_ERR_FILE);
    for (size_t i = n / 2; i < n; i++) marks[i] = 't'; /* tuples in tuples, to any depth */
    ck_assert_int_eq(sdx_pickle_read(&arena, marks, n, &tensors, &count, &err), SDX_ERR_FILE);
    sdx_arena_fini(&arena);
    free(marks);
}
END_TEST

Suite *torch_zip_suite(void);
Suite *torch_zip_suite(void)
{
    Suite *s = suite_create("torch_zip");
    TCase *t = tcase_create("torch_zip");
    tcase_add_test(t, views_of_a_storage);
    tcase_add_loop_test(t, views_stay_inside, 0, sizeof views / sizeof *views);
    tcase_add_loop_test(t, programs_are_refused, 0, sizeof programs / sizeof *programs);
    tcase_add_test(t, archives_are_refused);
    tcase_add_test(t, bombs_are_refused);
    tcase_add_test(t, old_and_compressed_files_are_named);
    suite_add_tcase(s, t);
    return s;
}
