/* hub.c: a model's name to a folder: its snapshot in the cache of huggingface_hub,
 *
 *   HUB/models--org--name/refs/main          the commit
 *                        /snapshots/COMMIT   the files
 *
 * and when it is not there, sardonyx-fetch, a program of its own, is run to download it. Were libcurl part of this one,
 * every start would load it and the thirty libraries behind it: 25 ms and 6 MB, for what happens once a model. */
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli.h"

extern char **environ;

#define FETCH "sardonyx-fetch"
enum { MAX_ROOT = 2048, MAX_PATH = 4096 };

/* ---- names and folders ----------------------------------------------------------------------------------- */

/* One part of a name: letters, digits, '-', '_' and '.', but not only dots. */
static bool is_part(const char *s, size_t n)
{
    bool more = false;
    for (size_t i = 0; i < n; i++) {
        if (!isalnum((unsigned char)s[i]) && !strchr("-_.", s[i])) return false;
        more |= s[i] != '.';
    }
    return more && n < 100;
}

static bool is_hub_name(const char *name)
{
    const char *slash = strchr(name, '/');
    if (!slash) return is_part(name, strlen(name));
    return is_part(name, (size_t)(slash - name)) && is_part(slash + 1, strlen(slash + 1));
}

/* As huggingface_hub looks for it: variable, and what is behind its value. */
static void find_cache(char *out, size_t size)
{
    static const char *const places[][2] = {{"HF_HUB_CACHE", ""},
                                            {"HUGGINGFACE_HUB_CACHE", ""},
                                            {"HF_HOME", "/hub"},
                                            {"XDG_CACHE_HOME", "/huggingface/hub"},
                                            {"HOME", "/.cache/huggingface/hub"}};
    snprintf(out, size, ".");
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        const char *value = getenv(places[i][0]);
        if (!value || !*value) continue;
        snprintf(out, size, "%s%s", value, places[i][1]);
        return;
    }
}

static void find_root(const char *name, char *out, size_t size)
{
    find_cache(out, size - 256);
    size_t n = strlen(out);
    n += (size_t)snprintf(out + n, size - n, "/models--");
    for (const char *c = name; *c && n + 3 < size; c++) {
        if (*c == '/') out[n++] = '-';
        out[n++] = *c == '/' ? '-' : *c;
    }
    out[n] = 0;
}

/* The snapshot that refs/main names, if it is there; new memory. */
static char *find_snapshot(const char *root)
{
    char path[MAX_PATH], commit[80] = "";
    snprintf(path, sizeof path, "%s/refs/main", root);
    FILE *f = fopen(path, "r");
    if (!f) return NULL;
    if (!fgets(commit, sizeof commit, f)) *commit = 0;
    fclose(f);
    commit[strcspn(commit, "\r\n \t")] = 0;
    snprintf(path, sizeof path, "%s/snapshots/%s", root, commit);
    return is_part(commit, strlen(commit)) && cli_is_directory(path) ? strdup(path) : NULL;
}

/* ---- downloading ----------------------------------------------------------------------------------------- */

/* Beside this program, else wherever PATH says. */
static void find_fetch(char *out, size_t size)
{
    char self[MAX_PATH];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    while (n > 0 && self[n - 1] != '/') n--;
    snprintf(out, size, "%.*s%s", n > 0 ? (int)n : 0, self, FETCH);
    if (n <= 0 || access(out, X_OK)) snprintf(out, size, "%s", FETCH);
}

/* The program has said what was wrong if its exit code is not 0. */
static int run_fetch(const char *name, char *root, bool quiet)
{
    char program[MAX_PATH + sizeof FETCH],
        *arguments[5] = {program, quiet ? "--quiet" : "--loud", (char *)name, root, NULL};
    pid_t child;
    int status;
    find_fetch(program, sizeof program);
    int why = posix_spawnp(&child, program, NULL, NULL, arguments, environ);
    if (why)
        return cli_usage_error("%s: no such folder, and no such model in the local Hugging Face cache (%s); " FETCH
                               " would download it, but: %s",
                               name, root, strerror(why));
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR) return cli_usage_error("%s: %s", program, strerror(errno));
    return WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_USAGE;
}

char *cli_hub_find(const char *name, bool quiet)
{
    const char *offline = getenv("HF_HUB_OFFLINE");
    char root[MAX_ROOT];
    if (!is_hub_name(name)) {
        cli_usage_error("%s: no such folder, and no name of a model on the hub", name);
        return NULL;
    }
    find_root(name, root, sizeof root);
    char *snapshot = find_snapshot(root);
    if (snapshot) return snapshot;
    if (!offline || !*offline || !strcmp(offline, "0"))
        return run_fetch(name, root, quiet) == EXIT_FINE ? find_snapshot(root) : NULL;
    cli_usage_error(
        "%s: no such folder, and no such model in the local Hugging Face cache (%s); HF_HUB_OFFLINE forbids "
        "to download it",
        name, root);
    return NULL;
}
