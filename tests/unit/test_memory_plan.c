/* test_memory_plan.c: no two values that are alive at one step overlap, whatever the lifetimes. */
#include <check.h>
#include <stdlib.h>

#include "../../base/memory.h"
#include "../../engine/memory_plan.h"

static uint32_t next(uint32_t *seed)
{
    return *seed = *seed * 1664525u + 1013904223u;
}
static uint32_t below(uint32_t *seed, uint32_t n)
{
    return (next(seed) >> 8) % n;
}

/* Also: inside the buffer, aligned, and the buffer is never larger than the sum, nor smaller than what some
 * step needs. */
static void check_plan(const sdx_interval *v, const size_t *bytes, size_t count, size_t total, int steps)
{
    size_t sum = 0;
    for (size_t i = 0; i < count; i++) {
        size_t rounded = (bytes[i] + SDX_ALIGN - 1) / SDX_ALIGN * SDX_ALIGN;
        sum += rounded;
        ck_assert_uint_eq(v[i].offset % SDX_ALIGN, 0);
        ck_assert_uint_le(v[i].offset + bytes[i], total);
        for (size_t j = 0; j < i; j++) {
            bool meet = v[i].begin <= v[j].end && v[j].begin <= v[i].end;
            bool apart = v[i].offset + bytes[i] <= v[j].offset || v[j].offset + bytes[j] <= v[i].offset;
            ck_assert_msg(!meet || apart, "values %zu and %zu overlap", i, j);
        }
    }
    ck_assert_uint_le(total, sum);
    for (int s = 0; s < steps; s++) {
        size_t alive = 0;
        for (size_t i = 0; i < count; i++) alive += v[i].begin <= s && s <= v[i].end ? bytes[i] : 0;
        ck_assert_uint_le(alive, total);
    }
}

START_TEST(random_lifetimes)
{
    uint32_t seed = (uint32_t)_i * 7919u + 1;
    enum { MOST = 160, STEPS = 60 };
    sdx_interval v[MOST];
    size_t bytes[MOST], total;
    size_t count = below(&seed, MOST + 1);
    for (size_t i = 0; i < count; i++) {
        int32_t begin = (int32_t)below(&seed, STEPS), end = begin + (int32_t)below(&seed, STEPS / 4);
        bytes[i] = below(&seed, 4) ? below(&seed, 100000) : below(&seed, 3) * 4096; /* 0 and ties too */
        v[i] = (sdx_interval){begin, end, bytes[i], 0};
    }
    ck_assert_int_eq(sdx_memory_plan(v, count, &total, NULL), SDX_OK);
    check_plan(v, bytes, count, total, STEPS + STEPS / 4);
}
END_TEST

START_TEST(chain_needs_two_buffers)
{
    sdx_interval v[50];
    size_t total;
    for (int i = 0; i < 50; i++) v[i] = (sdx_interval){i, i + 1, 1000, 0};
    ck_assert_int_eq(sdx_memory_plan(v, 50, &total, NULL), SDX_OK);
    ck_assert_uint_eq(total, 2 * 1024);
}
END_TEST

START_TEST(absurd_sizes_are_refused)
{
    sdx_interval v[2] = {{0, 1, SIZE_MAX / 2 + 1, 0}, {0, 1, SIZE_MAX / 2 + 1, 0}};
    size_t total;
    sdx_error err = {0};
    ck_assert_int_eq(sdx_memory_plan(v, 2, &total, &err), SDX_ERR_MEMORY);
    v[0].bytes = SIZE_MAX;
    ck_assert_int_eq(sdx_memory_plan(v, 1, &total, &err), SDX_ERR_MEMORY);
}
END_TEST

Suite *memory_plan_suite(void);
Suite *memory_plan_suite(void)
{
    Suite *s = suite_create("memory_plan");
    TCase *t = tcase_create("memory_plan");
    tcase_add_loop_test(t, random_lifetimes, 0, 300);
    tcase_add_test(t, chain_needs_two_buffers);
    tcase_add_test(t, absurd_sizes_are_refused);
    suite_add_tcase(s, t);
    return s;
}
