/* parallel.c: see parallel.h */
#define _GNU_SOURCE
#include "parallel.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include "../include/sardonyx.h"

#ifdef SDX_PTHREAD
#include <pthread.h>
#endif

/* Range i of `parts`: the first n % parts ranges are one longer. */
static int64_t range_begin(int64_t n, int parts, int i)
{
    int64_t each = n / parts, longer = n % parts;
    return each * i + (i < longer ? i : longer);
}

static int count_parts(int threads, int64_t n, int64_t grain)
{
    int64_t parts = grain > 0 ? n / grain : n;
    if (parts > threads) parts = threads;
    if (parts > SDX_MAX_THREADS) parts = SDX_MAX_THREADS;
    return parts < 1 ? 1 : (int)parts;
}

#ifdef SDX_PTHREAD
typedef struct part {
    sdx_parallel_fn fn;
    void *context;
    int64_t begin, end;
    int worker;
} part;

static void *run_part(void *arg)
{
    part *p = arg;
    p->fn(p->context, p->begin, p->end, p->worker);
    return NULL;
}

static void run_parts(int parts, int64_t n, sdx_parallel_fn fn, void *context)
{
    part work[SDX_MAX_THREADS];
    pthread_t thread[SDX_MAX_THREADS];
    bool started[SDX_MAX_THREADS] = {false};
    for (int i = parts - 1; i >= 0; i--) {
        work[i] = (part){fn, context, range_begin(n, parts, i), range_begin(n, parts, i + 1), i};
        started[i] = i && !pthread_create(&thread[i], NULL, run_part, &work[i]);
        if (!started[i]) run_part(&work[i]);
    }
    for (int i = 1; i < parts; i++)
        if (started[i]) pthread_join(thread[i], NULL);
}
#else
static void run_parts(int parts, int64_t n, sdx_parallel_fn fn, void *context)
{
#pragma omp parallel for num_threads(parts) schedule(static, 1)
    for (int i = 0; i < parts; i++) fn(context, range_begin(n, parts, i), range_begin(n, parts, i + 1), i);
}
#endif

void sdx_parallel_for(int threads, int64_t n, int64_t grain, sdx_parallel_fn fn, void *context)
{
    if (n <= 0) return;
    int parts = count_parts(threads, n, grain);
    if (parts == 1) fn(context, 0, n, 0);
    else run_parts(parts, n, fn, context);
}

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
