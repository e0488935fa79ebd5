/* memory.c: how much memory the process may have, and what it gives back.
 *
 * A model that asks for more than there is ends with a message, not with the kernel's killer: the process may have as
 * much data as the machine, or the cgroup it runs in. A limit that the caller set stays.
 *
 * A long run over a corpus gives back between its windows what glibc keeps of freed blocks, so that it stays flat. */
#include <malloc.h>
#include <stdint.h>
#include <sys/resource.h>
#include <unistd.h>

#include "cli.h"

#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
void cli_limit_memory(void) {} /* their shadow is larger than any memory */
#else
/* Bytes that the cgroup grants (version 2, then 1); UINT64_MAX: no limit. */
static uint64_t cgroup_memory(void)
{
    static const char *const files[] = {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        FILE *f = fopen(files[i], "r");
        unsigned long long bytes;
        bool is_number = f && fscanf(f, "%llu", &bytes) == 1; /* else "max" */
        if (f) fclose(f);
        if (is_number) return bytes;
    }
    return UINT64_MAX;
}

void cli_limit_memory(void)
{
    uint64_t bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE), granted = cgroup_memory();
    struct rlimit limit;
    if (granted < bytes) bytes = granted;
    if (getrlimit(RLIMIT_DATA, &limit) != 0 || limit.rlim_cur != RLIM_INFINITY) return;
    limit.rlim_cur = bytes / 10 * 9; /* the rest for files that are mapped, and for others */
    setrlimit(RLIMIT_DATA, &limit);
}
#endif

void cli_give_back_memory(void)
{
#ifdef __GLIBC__
    malloc_trim(0);
#endif
}
