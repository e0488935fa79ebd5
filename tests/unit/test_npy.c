/* test_npy.c: .npy files, against bytes that NumPy writes. */
#define _GNU_SOURCE
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../base/file.h"
#include "../../base/tensor.h"

static char path[] = "/tmp/sdx-npy-XXXXXX";

static void use_file(void)
{
    strcpy(path + sizeof path - 7, "XXXXXX");
    int fd = mkstemp(path);
    ck_assert(fd >= 0);
    close(fd);
}

static void remove_file(void)
{
    unlink(path);
}

/* The file `version, header, data` as NumPy lays it out. */
static void write_file(int version, const char *header, const void *data, size_t n)
{
    sdx_writer w;
    size_t length = strlen(header);
    unsigned char start[12] = {0x93,
                               'N',
                               'U',
                               'M',
                               'P',
                               'Y',
                               (unsigned char)version,
                               0,
                               (unsigned char)length,
                               (unsigned char)(length >> 8)};
    ck_assert_int_eq(sdx_writer_open(&w, path, NULL), SDX_OK);
    sdx_writer_put(&w, start, version == 1 ? 10 : 12);
    sdx_writer_put(&w, header, length);
    sdx_writer_put(&w, data, n);
    ck_assert_int_eq(sdx_writer_commit(&w, NULL), SDX_OK);
}

START_TEST(round_trip)
{
    static const sdx_dtype dtypes[] = {SDX_F32, SDX_F16, SDX_F64, SDX_I64, SDX_I32,  SDX_I16, SDX_I8,
                                       SDX_U64, SDX_U32, SDX_U16, SDX_U8,  SDX_BOOL, SDX_C64, SDX_C128};
    unsigned char data[6 * 16];
    for (size_t i = 0; i < sizeof data; i++) data[i] = (unsigned char)(i % 2);
    for (size_t d = 0; d < sizeof dtypes / sizeof *dtypes; d++)
        for (int rank = 0; rank <= 3; rank++) {
            sdx_tensor t = {.dtype = dtypes[d], .rank = rank, .dim = {rank == 1 ? 0 : 2, 3, 1}, .data = data},
                       back;
            ck_assert_int_eq(sdx_tensor_write_npy(path, &t, NULL), SDX_OK);
            ck_assert_int_eq(sdx_tensor_read_npy(path, &back, NULL), SDX_OK);
            ck_assert(back.dtype == t.dtype && back.rank == rank);
            ck_assert(!memcmp(back.dim, t.dim, (size_t)rank * sizeof *t.dim));
            ck_assert(!memcmp(back.data, data, sdx_tensor_bytes(&t)));
            sdx_tensor_free(&back);
        }
}
END_TEST

START_TEST(writes_what_numpy_writes)
{
    static const char want[] = "\x93NUMPY\x01\0v\0{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }"
                               "                                                            \n\0\0\x80\x3f";
    float one = 1;
    sdx_tensor t = {.dtype = SDX_F32, .rank = 1, .dim = {1}, .data = &one};
    char *bytes;
    size_t n;
    ck_assert_int_eq(sdx_tensor_write_npy(path, &t, NULL), SDX_OK);
    ck_assert_int_eq(sdx_file_read(path, 4096, &bytes, &n, NULL), SDX_OK);
    ck_assert_uint_eq(n, sizeof want - 1);
    ck_assert(!memcmp(bytes, want, n));
    free(bytes);
}
END_TEST

START_TEST(bfloat16_becomes_float32)
{
    uint16_t bits[2] = {0x3f80, 0xc000}; /* 1, -2 */
    sdx_tensor t = {.dtype = SDX_BF16, .rank = 1, .dim = {2}, .data = bits}, back;
    ck_assert_int_eq(sdx_tensor_write_npy(path, &t, NULL), SDX_OK);
    ck_assert_int_eq(sdx_tensor_read_npy(path, &back, NULL), SDX_OK);
    ck_assert(back.dtype == SDX_F32 && ((float *)back.data)[0] == 1 && ((float *)back.data)[1] == -2);
    sdx_tensor_free(&back);
}
END_TEST

START_TEST(small_types_become_what_numpy_knows)
{
    uint8_t codes[2] = {0x38, 0xc0}, ints[2] = {0xff, 0x07};
    sdx_tensor t = {.dtype = SDX_F8E4M3FN, .rank = 1, .dim = {2}, .data = codes}, back;
    ck_assert_int_eq(sdx_tensor_write_npy(path, &t, NULL), SDX_OK);
    ck_assert_int_eq(sdx_tensor_read_npy(path, &back, NULL), SDX_OK);
    ck_assert(back.dtype == SDX_F32 && ((float *)back.data)[0] == 1 && ((float *)back.data)[1] == -2);
    sdx_tensor_free(&back);
    t = (sdx_tensor){.dtype = SDX_I4, .rank = 1, .dim = {2}, .data = ints};
    ck_assert_int_eq(sdx_tensor_write_npy(path, &t, NULL), SDX_OK);
    ck_assert_int_eq(sdx_tensor_read_npy(path, &back, NULL), SDX_OK);
    ck_assert(back.dtype == SDX_I8 && ((int8_t *)back.data)[0] == -1 && ((int8_t *)back.data)[1] == 7);
    sdx_tensor_free(&back);
}
END_TEST

START_TEST(reads_other_orders)
{
    sdx_tensor t;
    /* [[0,1,2],[3,4,5]] with the first index running fastest, and big-endian */
    write_file(2, "{'descr': '>i2', 'fortran_order': True, 'shape': (2, 3), }\n", "\0\0\0\3\0\1\0\4\0\2\0\5",
               12);
    ck_assert_int_eq(sdx_tensor_read_npy(path, &t, NULL), SDX_OK);
    ck_assert(t.dtype == SDX_I16 && t.rank == 2 && t.dim[0] == 2 && t.dim[1] == 3);
    for (int i = 0; i < 6; i++) ck_assert_int_eq(((int16_t *)t.data)[i], i);
    sdx_tensor_free(&t);
}
END_TEST

static const struct {
    const char *header;
    sdx_status status;
    const char *sentence;
} refusals[] = {
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }", SDX_ERR_FILE, "cut off: 8 bytes"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807, 9), }", SDX_ERR_FILE,
     "overflows"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }", SDX_ERR_FILE, "overflows"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }", SDX_ERR_FILE, "not a list of sizes"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (1", SDX_ERR_FILE, "not a list of sizes"},
    {"{'descr': '<f4', 'fortran_order': False, }", SDX_ERR_FILE, "no shape"},
    {"{'descr': '<f4', 'shape': (1,), }", SDX_ERR_FILE, "memory order"},
    {"{'descr': '<U5', 'fortran_order': False, 'shape': (1,), }", SDX_ERR_UNSUPPORTED, "<U5"},
    {"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }", SDX_ERR_UNSUPPORTED, "records"},
    {"", SDX_ERR_UNSUPPORTED, "no element type"},
};

START_TEST(refuses)
{
    sdx_tensor t;
    sdx_error err = {0};
    write_file(1, refusals[_i].header, "12345678", 8);
    ck_assert_int_eq(sdx_tensor_read_npy(path, &t, &err), refusals[_i].status);
    ck_assert_msg(strstr(err.message, refusals[_i].sentence) != NULL, "%s", err.message);
    ck_assert(!strncmp(err.message, path, strlen(path)));
}
END_TEST

START_TEST(refuses_what_is_not_npy)
{
    sdx_tensor t;
    write_file(9, "", "", 0);
    ck_assert_int_eq(sdx_tensor_read_npy(path, &t, NULL), SDX_ERR_UNSUPPORTED);
    ck_assert_int_eq(truncate(path, 3), 0);
    ck_assert_int_eq(sdx_tensor_read_npy(path, &t, NULL), SDX_ERR_FILE);
    ck_assert_int_eq(sdx_tensor_read_npy("/nowhere.npy", &t, NULL), SDX_ERR_FILE);
}
END_TEST

Suite *npy_suite(void);
Suite *npy_suite(void)
{
    Suite *s = suite_create("npy");
    TCase *c = tcase_create("all");
    tcase_add_checked_fixture(c, use_file, remove_file);
    tcase_add_test(c, round_trip);
    tcase_add_test(c, writes_what_numpy_writes);
    tcase_add_test(c, bfloat16_becomes_float32);
    tcase_add_test(c, small_types_become_what_numpy_knows);
    tcase_add_test(c, reads_other_orders);
    tcase_add_loop_test(c, refuses, 0, sizeof refusals / sizeof *refusals);
    tcase_add_test(c, refuses_what_is_not_npy);
    suite_add_tcase(s, c);
    return s;
}
