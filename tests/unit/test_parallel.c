/* test_parallel.c: every index is handled once, by workers that do not share a number, in and out of a team, however
 * late the threads are. */
#include <check.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <time.h>

#include "../../base/parallel.h"

enum { MOST = 1000, THREADS = 5 };

typedef struct tally {
    int64_t grain, n;
    _Atomic int seen[MOST], busy[THREADS]; /* parts that a worker is at */
    _Atomic int wrong;
    int64_t pause_ns;
    struct tally *inner; /* a range that each part splits itself */
} tally;

static void pause_for(int64_t ns)
{
    struct timespec t = {.tv_nsec = (long)ns};
    if (ns) nanosleep(&t, NULL);
}

static void count(void *context, int64_t begin, int64_t end, int worker)
{
    tally *t = context;
    if (worker < 0 || worker >= THREADS || atomic_fetch_add(&t->busy[worker], 1)) atomic_fetch_add(&t->wrong, 1);
    if (begin == 0) pause_for(t->pause_ns);
    for (int64_t i = begin; i < end; i++) atomic_fetch_add(&t->seen[i], 1);
    tally inner = {.grain = 1, .n = 7};
    if (t->inner) {
        sdx_parallel_for(THREADS, inner.n, inner.grain, count, &inner);
        for (int64_t i = 0; i < inner.n; i++)
            if (inner.seen[i] != 1 || inner.wrong) atomic_fetch_add(&t->wrong, 1);
    }
    atomic_fetch_sub(&t->busy[worker], 1);
}

static void check_range(int64_t n, int64_t grain, int64_t pause_ns, bool nested)
{
    tally t = {.grain = grain, .n = n, .pause_ns = pause_ns};
    if (nested) t.inner = &t;
    sdx_parallel_for(THREADS, n, grain, count, &t);
    ck_assert_int_eq(t.wrong, 0);
    for (int64_t i = 0; i < n; i++) ck_assert_int_eq(t.seen[i], 1);
}

/* Long after short: threads that fell asleep, a leader that did, parts that were taken back. */
static void many_ranges(void *context)
{
    int *rounds = context;
    for (int i = 0; i < 200; i++) {
        check_range(1 + i * 37 % MOST, 1 + i % 9, i % 50 == 0 ? 600000 : 0, i % 10 == 0);
        if (i % 40 == 0) pause_for(600000);
    }
    ++*rounds;
}

START_TEST(alone)
{
    int rounds = 0;
    many_ranges(&rounds);
    ck_assert_int_eq(rounds, 1);
}
END_TEST

START_TEST(in_a_team)
{
    int rounds = 0;
    int64_t splits = 0;
    for (int i = 1; i <= 4; i++) {
        sdx_parallel_team(THREADS, &splits, many_ranges, &rounds);
        ck_assert_int_eq(rounds, i);
        ck_assert_int_ge(splits, 100);
    }
}
END_TEST

static void team_within(void *context)
{
    int64_t splits = 9;
    sdx_parallel_team(THREADS, &splits, many_ranges, context);
}

START_TEST(team_in_a_team)
{
    int rounds = 0;
    int64_t splits = 9;
    sdx_parallel_team(THREADS, &splits, team_within, &rounds);
    ck_assert_int_eq(rounds, 1);
}
END_TEST

static void nothing(void *context)
{
    (void)context;
}

START_TEST(nothing_to_share)
{
    int64_t splits = 9;
    sdx_parallel_team(THREADS, &splits, nothing, NULL);
    ck_assert_int_eq(splits, 0);
    check_range(0, 1, 0, false);
    check_range(1, 0, 0, false);
}
END_TEST

Suite *parallel_suite(void);
Suite *parallel_suite(void)
{
    Suite *s = suite_create("parallel");
    TCase *t = tcase_create("parallel");
    tcase_add_test(t, alone);
    tcase_add_test(t, in_a_team);
    tcase_add_test(t, team_in_a_team);
    tcase_add_test(t, nothing_to_share);
    suite_add_tcase(s, t);
    return s;
}
