/* folder_tests.c: see folder_tests.h. */
#define _GNU_SOURCE
#include "folder_tests.h"

#include <check.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../base/file.h"
#include "../../convert/synthetic.h"

void make_folder(char *path)
{
    strcpy(path, "/tmp/sdx-test-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(path));
}

void remove_folder(const char *path)
{
    char file[512];
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        snprintf(file, sizeof file, "%s/%s", path, e->d_name);
        if (unlink(file)) remove_folder(file);
    }
    if (d) closedir(d);
    rmdir(path);
}

void put_file(const char *folder, const char *name, const void *bytes, size_t size)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    ck_assert(f && fwrite(bytes, 1, size, f) == size && !fclose(f));
}

void edit_file(const char *folder, const char *name, const char *from, const char *to)
{
    char path[512], *text, *edited;
    size_t size;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    ck_assert_int_eq(sdx_file_read(path, 1 << 16, &text, &size, NULL), SDX_OK);
    char *at = strstr(text, from);
    ck_assert_ptr_nonnull(at);
    int n = asprintf(&edited, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    ck_assert_int_ge(n, 0);
    put_file(folder, name, edited, (size_t)n);
    free(edited);
    free(text);
}

void make_checkpoint(char *path, const char *config)
{
    sdx_error err = {0};
    make_folder(path);
    put_file(path, "config.json", config, strlen(config));
    const sdx_synthetic_options o = {.config = path, .folder = path, .seed = 7, .dtype = SDX_F32};
    ck_assert_msg(sdx_synthetic_write(&o, &err) == SDX_OK, "%s", err.message);
}
