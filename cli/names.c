/* names.c: from what a user types to folders and files. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli.h"

bool cli_is_directory(const char *path)
{
    struct stat st;
    return !stat(path, &st) && S_ISDIR(st.st_mode);
}

/* printf into new memory. */
static char *format3(const char *format, const char *a, const char *b, const char *c)
{
    size_t n = strlen(format) + strlen(a) + strlen(b) + strlen(c) + 1;
    char *s = malloc(n);
    if (s) snprintf(s, n, format, a, b, c); /* format has three %s, from this file only */
    return s;
}

char *cli_join(const char *dir, const char *name, const char *extension)
{
    return format3("%s/%s%s", *dir ? dir : ".", name, extension);
}

char *cli_insert_suffix(const char *path, const char *suffix)
{
    size_t n = strlen(path), extension = strlen(".onnx");
    bool onnx = n > extension && !strcmp(path + n - extension, ".onnx");
    char *stem = format3("%s%s%s", path, "", "");
    if (!stem) return NULL;
    if (onnx) stem[n - extension] = 0;
    char *out = format3("%s%s%s", stem, suffix, ".onnx");
    free(stem);
    return out;
}

const char *cli_basename(const char *path)
{
    static char name[256];
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/') end--;
    size_t begin = end;
    while (begin > 0 && path[begin - 1] != '/') begin--;
    snprintf(name, sizeof name, "%.*s", (int)(end - begin), path + begin);
    return name;
}

int cli_make_directory(const char *path)
{
    char *copy = format3("%s%s%s", path, "", "");
    if (!copy) return cli_out_of_memory();
    for (char *p = copy + 1;; p++) {
        char c = *p;
        if (c && c != '/') continue;
        *p = 0;
        if (mkdir(copy, 0777) && errno != EEXIST) {
            free(copy);
            return cli_usage_error("%s: cannot make the folder: %s", path, strerror(errno));
        }
        *p = c;
        if (!c) break;
    }
    free(copy);
    return EXIT_FINE;
}

char *cli_find_checkpoint(const cli_args *args, const char *name)
{
    struct stat st;
    if (cli_is_directory(name)) return format3("%s%s%s", name, "", "");
    if (!stat(name, &st)) {
        cli_usage_error("%s: is a file, but --model_name is a checkpoint folder; a model's file goes to --model_path",
                        name);
        return NULL;
    }
    return cli_hub_find(name, cli_flag(args, "quiet"));
}

int cli_open_tokenizer(const cli_args *args, const char *name, sdx_tokenizer **out)
{
    struct stat st;
    sdx_error err = {0};
    char *folder = stat(name, &st) ? cli_find_checkpoint(args, name) : format3("%s%s%s", name, "", "");
    if (!folder) return EXIT_USAGE;
    sdx_status status = sdx_tokenizer_open(folder, out, &err);
    free(folder);
    return status == SDX_OK ? EXIT_FINE : cli_fail(&err);
}

char *cli_rewrite_output(const cli_args *args, const char *input, const char *suffix)
{
    const char *output = cli_string(args, "output", NULL);
    return output ? format3("%s%s%s", output, "", "") : cli_insert_suffix(input, suffix);
}

int cli_task_options(const cli_args *args, size_t max_length, sdx_task_options *out, char **folder)
{
    const char *path = cli_string(args, "model_path", NULL), *name = cli_string(args, "model_name", NULL);
    if (!path && !name) return cli_usage_error("%s needs --model_name or --model_path", args->command->name);
    *folder = name ? cli_find_checkpoint(args, name) : NULL;
    if (name && !*folder) return EXIT_USAGE;
    *out = (sdx_task_options){
        .model = path ? path : *folder,
        .tokenizer = cli_string(args, "tokenizer", *folder),
        .max_length = (size_t)cli_int(args, "max_length", (long)max_length),
        .batch_tokens = (size_t)cli_int(args, "batch_tokens", 0),
        .run = cli_run_options(args),
    };
    return EXIT_FINE;
}

bool cli_parse_shape(const char *text, long *batch, long *sequence)
{
    char end;
    return sscanf(text, "%ldx%ld%c", batch, sequence, &end) == 2 && *batch > 0 && *sequence > 0 &&
           *batch <= 1 << 20 && *sequence <= 1 << 20;
}

sdx_tensor cli_shape_input(const sdx_port *port, long batch, long sequence)
{
    sdx_tensor t = {.dtype = port->dtype, .rank = port->rank < 0 ? 2 : port->rank};
    for (int d = 0; d < t.rank; d++) {
        int64_t size = port->rank < 0 ? -1 : port->dim[d];
        t.dim[d] = size >= 0 ? size : d ? sequence : batch;
    }
    return t;
}
