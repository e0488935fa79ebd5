/* test_safetensors.c: what the reader takes, and that it refuses files whose bytes contradict each other. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../base/memory.h"
#include "../../convert/checkpoint.h"
#include "folder_tests.h"

enum { MOST = 4096 };

typedef struct file {
    unsigned char bytes[MOST];
    size_t size;
} file;

static file make(const char *header, size_t data)
{
    file f = {.size = 8 + strlen(header) + data};
    f.bytes[0] = (unsigned char)strlen(header);
    f.bytes[1] = (unsigned char)(strlen(header) >> 8);
    memcpy(f.bytes + 8, header, strlen(header));
    for (size_t i = 0; i < data; i++) f.bytes[f.size - data + i] = (unsigned char)i;
    return f;
}

/* From a copy of exactly the right size, so that a sanitizer sees a read beyond it. */
static sdx_status read_bytes(const unsigned char *bytes, size_t size, sdx_error *err)
{
    sdx_checkpoint *c;
    unsigned char *copy = malloc(size + 1);
    ck_assert(copy != NULL);
    memcpy(copy + 1, bytes, size); /* misaligned as well */
    ck_assert_int_eq(sdx_checkpoint_create("folder", &c, NULL), SDX_OK);
    sdx_status status = sdx_safetensors_read(c, copy + 1, size, err);
    for (size_t i = 0; i < c->n_tensor; i++) {
        const unsigned char *data = c->tensor[i].data;
        ck_assert(data >= copy + 1 && data + sdx_tensor_bytes(&c->tensor[i]) <= copy + 1 + size);
    }
    sdx_checkpoint_close(c);
    free(copy);
    return status;
}

static const char good[] = "{\"__metadata__\":{\"format\":\"pt\"},"
                           "\"b\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[4,28]},"
                           "\"a\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[0,4]},"
                           "\"none\":{\"dtype\":\"I64\",\"shape\":[0,9],\"data_offsets\":[28,28]},"
                           "\"one\":{\"dtype\":\"F64\",\"shape\":[],\"data_offsets\":[28,36]}}   ";

START_TEST(good_file)
{
    file f = make(good, 36);
    sdx_checkpoint *c;
    sdx_error err = {0};
    ck_assert_int_eq(sdx_checkpoint_create("folder", &c, NULL), SDX_OK);
    ck_assert_msg(sdx_safetensors_read(c, f.bytes, f.size, &err) == SDX_OK, "%s", err.message);
    ck_assert_uint_eq(c->n_tensor, 4);
    const sdx_tensor *b = sdx_checkpoint_find(c, "b"), *one = sdx_checkpoint_find(c, "one");
    ck_assert(b && b->dtype == SDX_F32 && b->rank == 2 && b->dim[0] == 2 && b->dim[1] == 3);
    ck_assert_ptr_eq(b->data, f.bytes + f.size - 36 + 4);
    ck_assert(one && one->dtype == SDX_F64 && one->rank == 0);
    ck_assert_ptr_null(sdx_checkpoint_find(c, "c"));
    sdx_checkpoint_close(c);
}
END_TEST

static const struct {
    const char *header;
    size_t data;
    const char *says; /* part of the message */
} bad[] = {
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
     "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
     12, "inside"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
     "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[8,12]}}",
     12, "gap"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 5, "follow the header"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 3, "outside"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
     "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
     8, "duplicate"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,4]}}", 4, "does not take the 4 bytes"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,0]}}", 0, "does not take"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, "natural number"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,4]}}", 4, "natural number"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[NaN],\"data_offsets\":[0,4]}}", 4, "header, byte"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1e400],\"data_offsets\":[0,4]}}", 4, "header, byte"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[18446744073709551617],\"data_offsets\":[0,4]}}", 4, "header, byte"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}}", 4, "outside"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[9223372036854775804,9223372036854775807]}}", 4,
     "outside"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 4, "at most 12"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4, "outside"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, "no pair"},
    {"{\"a\":{\"dtype\":\"F8_E4M3\",\"shape\":[4],\"data_offsets\":[0,4]}}", 4, "F8_E4M3"},
    {"{\"a\":7}", 0, "dtype"},
    {"[1]", 0, "no JSON object"},
    {"{\"a\":", 0, "header, byte"},
};

START_TEST(contradictions_are_refused)
{
    file f = make(bad[_i].header, bad[_i].data);
    sdx_error err = {0};
    ck_assert_int_ne(read_bytes(f.bytes, f.size, &err), SDX_OK);
    ck_assert_msg(strstr(err.message, bad[_i].says) != NULL, "\"%s\" lacks \"%s\"", err.message, bad[_i].says);
}
END_TEST

START_TEST(every_truncation_is_refused)
{
    file f = make(good, 36);
    for (size_t size = 0; size < f.size; size++)
        ck_assert_int_eq(read_bytes(f.bytes, size, NULL), SDX_ERR_FILE);
    ck_assert_int_eq(read_bytes(f.bytes, f.size, NULL), SDX_OK);
}
END_TEST

/* Any answer will do that is no crash; read_bytes checks that what is accepted lies inside the file. */
START_TEST(every_flipped_bit_is_survived)
{
    file f = make(good, 36);
    for (size_t bit = 0; bit < (f.size - 36) * 8; bit++) {
        f.bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
        read_bytes(f.bytes, f.size, NULL);
        f.bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
}
END_TEST

START_TEST(huge_header_is_refused)
{
    file f = make("{}", 0);
    sdx_error err = {0};
    f.bytes[7] = 0x7f;
    ck_assert_int_eq(read_bytes(f.bytes, f.size, &err), SDX_ERR_FILE);
    ck_assert(strstr(err.message, "claims") != NULL);
    /* 99 MB that are there: refused by their length, before anything is made of them */
    const size_t length = 99 << 20;
    unsigned char *large = calloc(length + 8, 1); /* pages never touched */
    ck_assert(large != NULL);
    for (int i = 0; i < 8; i++) large[i] = (unsigned char)(length >> 8 * i);
    sdx_checkpoint *c;
    ck_assert_int_eq(sdx_checkpoint_create("folder", &c, NULL), SDX_OK);
    ck_assert_int_eq(sdx_safetensors_read(c, large, length + 8, &err), SDX_ERR_FILE);
    ck_assert_msg(strstr(err.message, "4194304 is the limit") != NULL, "%s", err.message);
    sdx_checkpoint_close(c);
    free(large);
}
END_TEST

START_TEST(elements_become_floats)
{
    static const uint16_t half[] = {0x3c00, 0xc000, 0x0001}, brain[] = {0x3f80, 0xc000, 0x7f80};
    static const double wide[] = {1, -2, 1e300};
    const sdx_tensor h = {SDX_F16, 1, {3}, (void *)half}, b = {SDX_BF16, 1, {3}, (void *)brain};
    const sdx_tensor w = {SDX_F64, 1, {3}, (void *)wide};
    float x[3];
    sdx_weight_load(&h, 0, 3, x);
    ck_assert(x[0] == 1 && x[1] == -2 && x[2] == 0x1p-24f);
    sdx_weight_load(&b, 1, 2, x);
    ck_assert(x[0] == -2 && x[1] > 3e38f);
    sdx_weight_load(&w, 0, 2, x);
    ck_assert(x[0] == 1 && x[1] == -2);
}
END_TEST

/* ---- folders --------------------------------------------------------------------------------------------- */

static sdx_status open_shards(const char *index, sdx_error *err)
{
    char d[FOLDER];
    make_folder(d);
    file one = make("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4);
    file two = make("{\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8);
    put_file(d, "one", one.bytes, one.size);
    put_file(d, "two", two.bytes, two.size);
    put_file(d, "model.safetensors.index.json", index, strlen(index));
    sdx_checkpoint *c = NULL;
    sdx_status status = sdx_checkpoint_open(d, &c, err);
    if (status == SDX_OK) {
        ck_assert_uint_eq(c->n_tensor, 2);
        ck_assert(sdx_checkpoint_find(c, "a") && sdx_checkpoint_find(c, "b"));
    }
    sdx_checkpoint_close(c);
    remove_folder(d);
    return status;
}

static const struct {
    const char *index;
    const char *says; /* NULL: works */
} indexes[] = {
    {"{\"weight_map\":{\"b\":\"two\",\"a\":\"one\"}}", NULL},
    {"{\"weight_map\":{\"b\":\"two\",\"a\":\"../one\"}}", "of this folder"},
    {"{\"weight_map\":{\"b\":\"two\",\"a\":\"/etc/passwd\"}}", "of this folder"},
    {"{\"weight_map\":{\"b\":\"two\",\"a\":\"..\"}}", "of this folder"},
    {"{\"weight_map\":{\"b\":\"two\",\"a\":1}}", "of this folder"},
    {"{\"weight_map\":{\"b\":\"two\",\"c\":\"one\"}}", "\"c\" is not in one"},
    {"{\"weight_map\":{\"b\":\"three\"}}", "three"},
    {"{}", "weight_map"},
    {"{", "line 1"},
};

START_TEST(shards)
{
    sdx_error err = {0};
    sdx_status status = open_shards(indexes[_i].index, &err);
    ck_assert_int_eq(status == SDX_OK, indexes[_i].says == NULL);
    if (indexes[_i].says)
        ck_assert_msg(strstr(err.message, indexes[_i].says) != NULL, "\"%s\" lacks \"%s\"", err.message,
                      indexes[_i].says);
}
END_TEST

START_TEST(empty_folder_says_what_is_missing)
{
    char d[FOLDER];
    make_folder(d);
    sdx_checkpoint *c;
    sdx_error err = {0};
    ck_assert_int_eq(sdx_checkpoint_open(d, &c, &err), SDX_ERR_FILE);
    ck_assert(strstr(err.message, "model.safetensors") != NULL);
    remove_folder(d);
}
END_TEST

#ifdef SDX_ALLOC_FAILURE
START_TEST(every_allocation_may_fail)
{
    file f = make(good, 36);
    for (long n = 1;; n++) {
        sdx_checkpoint *c = NULL;
        sdx_alloc_fail_after(n);
        sdx_status status = sdx_checkpoint_create("folder", &c, NULL);
        if (status == SDX_OK) status = sdx_safetensors_read(c, f.bytes, f.size, NULL);
        sdx_alloc_fail_after(0);
        sdx_checkpoint_close(c);
        if (status == SDX_OK) break;
        ck_assert_int_eq(status, SDX_ERR_MEMORY);
    }
}
END_TEST
#endif

Suite *safetensors_suite(void);
Suite *safetensors_suite(void)
{
    Suite *s = suite_create("safetensors");
    TCase *t = tcase_create("safetensors");
    tcase_add_test(t, good_file);
    tcase_add_loop_test(t, contradictions_are_refused, 0, sizeof bad / sizeof *bad);
    tcase_add_test(t, every_truncation_is_refused);
    tcase_add_test(t, every_flipped_bit_is_survived);
    tcase_add_test(t, huge_header_is_refused);
    tcase_add_test(t, elements_become_floats);
    tcase_add_loop_test(t, shards, 0, sizeof indexes / sizeof *indexes);
    tcase_add_test(t, empty_folder_says_what_is_missing);
#ifdef SDX_ALLOC_FAILURE
    tcase_add_test(t, every_allocation_may_fail);
#endif
    suite_add_tcase(s, t);
    return s;
}
