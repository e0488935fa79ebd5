/* main.c: runs every suite; the list is made from the file names in this folder. `unit NAME` runs one. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SUITE(name) Suite *name##_suite(void);
#include "suites.h"
#undef SUITE

static const struct {
    const char *name;
    Suite *(*make)(void);
} suites[] = {
#define SUITE(name) {#name, name##_suite},
#include "suites.h"
#undef SUITE
};

int main(int argc, char **argv)
{
    int failed = 0, passed = 0;
    for (size_t i = 0; i < sizeof suites / sizeof *suites; i++) {
        if (argc > 1 && strcmp(argv[1], suites[i].name) != 0) continue;
        SRunner *runner = srunner_create(suites[i].make());
        /* In one process: sanitizers and debuggers see everything, and OpenMP does not survive a fork. */
        srunner_set_fork_status(runner, CK_NOFORK);
        srunner_run_all(runner, CK_NORMAL);
        int bad = srunner_ntests_failed(runner);
        failed += bad;
        passed += srunner_ntests_run(runner) - bad;
        srunner_free(runner);
    }
    printf("%d passed, %d failed\n", passed, failed);
    return failed || !passed;
}
