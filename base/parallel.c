/* parallel.c: see parallel.h.
 *
 * A team is entered once: thread 0 leads, the others each wait at a slot of their own. A range is handed out by setting
 * slots to READY, part i to thread i, so that a thread meets the same panels of a weight in every run. Both sides wait
 * by spinning for a fifth of a millisecond, far longer than a step's imbalance, then sleep in the kernel (a futex), so
 * that idle threads cost nothing. A part that its thread has not begun by the time the leader is done with its own is
 * taken back and done by the leader: on a machine that is busy with other things nobody waits for a thread that the
 * system does not run. Which thread does a part never shows in its result.
 *
 *     FREE -> READY (leader) -> TAKEN (thread) -> FREE          the usual way
 *     FREE -> ASLEEP -> READY, waking the thread                nothing to do for long
 *     TAKEN -> AWAITED -> FREE, waking the leader               a part that takes long
 *     READY -> FREE                                             taken back
 */
#define _GNU_SOURCE
#include "parallel.h"

#include <linux/futex.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../include/sardonyx.h"
#include "clock.h"

#ifdef SDX_PTHREAD
#include <pthread.h>
#else
#include <omp.h>
#endif

/* ---- waiting --------------------------------------------------------------------------------------------- */

enum { FREE, READY, TAKEN, ASLEEP, AWAITED, QUIT };
enum { SPIN_NS = 200000, SPINS_PER_LOOK = 64 }; /* looks at the clock */

typedef struct slot {
    _Alignas(64) _Atomic uint32_t state; /* a cache line each */
} slot;

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Leaves `state` for another one within the time? */
static bool spin_while(slot *s, uint32_t state)
{
    int64_t end = 0;
    for (int i = 1; atomic_load_explicit(&s->state, memory_order_acquire) == state; i++) {
        relax();
        if (i % SPINS_PER_LOOK) continue;
        int64_t now = sdx_now_ns();
        if (!end) end = now + SPIN_NS;
        if (now >= end) return false;
    }
    return true;
}

/* Until `state`, which tells the other side to wake this one, is no more. */
static void sleep_while(slot *s, uint32_t state)
{
    while (atomic_load_explicit(&s->state, memory_order_acquire) == state)
        syscall(SYS_futex, &s->state, FUTEX_WAIT_PRIVATE, state, NULL, NULL, 0);
}

/* From one state to another, unless it has changed; wait and the sleeper's state make that a sleep. */
static bool change(slot *s, uint32_t from, uint32_t to)
{
    return atomic_compare_exchange_strong(&s->state, &from, to);
}

static void wait_while(slot *s, uint32_t state, uint32_t sleeping)
{
    if (!spin_while(s, state) && change(s, state, sleeping)) sleep_while(s, sleeping);
}

static void set(slot *s, uint32_t state, uint32_t sleeping)
{
    if (atomic_exchange(&s->state, state) == sleeping)
        syscall(SYS_futex, &s->state, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* ---- parts ----------------------------------------------------------------------------------------------- */

/* A range cut into parts, the first n % parts of which are one longer. */
typedef struct range {
    sdx_parallel_fn fn;
    void *context;
    int64_t n;
    int parts;
} range;

static int64_t part_begin(const range *r, int i)
{
    int64_t each = r->n / r->parts, longer = r->n % r->parts;
    return each * i + (i < longer ? i : longer);
}

static void run_part(const range *r, int i)
{
    r->fn(r->context, part_begin(r, i), part_begin(r, i + 1), i);
}

static int count_parts(int threads, int64_t n, int64_t grain)
{
    int64_t parts = grain > 0 ? n / grain : n;
    if (parts > threads) parts = threads;
    if (parts > SDX_MAX_THREADS) parts = SDX_MAX_THREADS;
    return parts < 1 ? 1 : (int)parts;
}

/* ---- teams ----------------------------------------------------------------------------------------------- */

typedef struct team {
    sdx_parallel_lead lead;
    void *context;
    int size; /* thread i in (0, size) waits at slot[i] */
    range range;
    slot slot[SDX_MAX_THREADS];
} team;

/* Of the thread that leads one, while it is not itself at a part: what that runs is not for the team. */
static _Thread_local team *led;
static _Thread_local int64_t ranges_split;

static void serve(team *t, int i)
{
    slot *s = &t->slot[i];
    for (;;) {
        wait_while(s, FREE, ASLEEP);
        if (atomic_load_explicit(&s->state, memory_order_acquire) == QUIT) return;
        if (!change(s, READY, TAKEN)) continue; /* taken back */
        run_part(&t->range, i);
        set(s, FREE, AWAITED);
    }
}

static void lead(team *t, int size)
{
    t->size = size;
    led = t;
    t->lead(t->context);
    led = NULL;
    for (int i = 1; i < size; i++) set(&t->slot[i], QUIT, ASLEEP);
}

/* The leader: the parts of threads that there are not, its own, those not begun; then it waits for the rest. */
static void share_out(team *t, const range *r)
{
    int shared = r->parts < t->size ? r->parts : t->size;
    t->range = *r;
    for (int i = 1; i < shared; i++) set(&t->slot[i], READY, ASLEEP);
    led = NULL;
    for (int i = shared; i < r->parts; i++) run_part(r, i);
    run_part(r, 0);
    for (int i = 1; i < shared; i++)
        if (change(&t->slot[i], READY, FREE)) run_part(r, i);
    led = t;
    for (int i = 1; i < shared; i++) wait_while(&t->slot[i], TAKEN, AWAITED);
}

#ifdef SDX_PTHREAD
typedef struct member {
    team *team;
    int number;
} member;

static void *serve_thread(void *arg)
{
    member *m = arg;
    serve(m->team, m->number);
    return NULL;
}

static void run_team(team *t, int threads)
{
    pthread_t thread[SDX_MAX_THREADS];
    member m[SDX_MAX_THREADS];
    int started = 1;
    for (; started < threads; started++) {
        m[started] = (member){t, started};
        if (pthread_create(&thread[started], NULL, serve_thread, &m[started])) break;
    }
    lead(t, started);
    for (int i = 1; i < started; i++) pthread_join(thread[i], NULL);
}
#else
static void run_team(team *t, int threads)
{
#pragma omp parallel num_threads(threads)
    if (omp_get_thread_num()) serve(t, omp_get_thread_num());
    else lead(t, omp_get_num_threads());
}
#endif

static void enter_team(int threads, sdx_parallel_lead fn, void *context)
{
    team t;
    t.lead = fn;
    t.context = context;
    for (int i = 0; i < threads; i++) atomic_init(&t.slot[i].state, FREE);
    run_team(&t, threads);
}

void sdx_parallel_team(int threads, int64_t *splits, sdx_parallel_lead fn, void *context)
{
    int64_t before = ranges_split;
    if (threads > SDX_MAX_THREADS) threads = SDX_MAX_THREADS;
    if (led || threads < 2 || *splits < 2) fn(context);
    else enter_team(threads, fn, context);
    *splits = ranges_split - before;
}

/* A team for one range. */
static void lead_range(void *context)
{
    share_out(led, context);
}

void sdx_parallel_for(int threads, int64_t n, int64_t grain, sdx_parallel_fn fn, void *context)
{
    if (n <= 0) return;
    range r = {fn, context, n, count_parts(threads, n, grain)};
    if (r.parts == 1) {
        fn(context, 0, n, 0);
        return;
    }
    ranges_split++;
    if (led) share_out(led, &r);
    else enter_team(r.parts, lead_range, &r);
}

/* ---- how many -------------------------------------------------------------------------------------------- */

/* CPU time per period that the cgroup grants, rounded up to CPUs; 0: no limit. Version 2, then version 1. */
static int cgroup_cpus(void)
{
    long long quota = -1, period = 0;
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "r");
    if (f) {
        if (fscanf(f, "%lld %lld", &quota, &period) != 2) quota = -1; /* "max" */
        fclose(f);
    } else if ((f = fopen("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "r"))) {
        if (fscanf(f, "%lld", &quota) != 1) quota = -1;
        fclose(f);
        f = fopen("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "r");
        if (f) {
            if (fscanf(f, "%lld", &period) != 1) period = 0;
            fclose(f);
        }
    }
    return quota > 0 && period > 0 ? (int)((quota + period - 1) / period) : 0;
}

int sdx_default_threads(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
    int quota = cgroup_cpus();
    if (quota && quota < n) n = quota;
    const char *omp = getenv("OMP_NUM_THREADS");
    long asked = omp ? strtol(omp, NULL, 10) : 0;
    if (asked > 0) n = (int)(asked < SDX_MAX_THREADS ? asked : SDX_MAX_THREADS);
    return n < 1 ? 1 : n;
}
