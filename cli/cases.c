/* cases.c: calibration data as the inputs of runs: a folder of .npy files, or texts through a tokenizer. One case is in
 * memory at a time. */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

enum { MOST_INPUTS = 64 };

struct cli_cases {
    sdx_model *model;      /* whose inputs these are */
    sdx_tokenizer *tokenizer; /* NULL: the cases are folders */
    size_t max_length;
    cli_records records;
    char *folder;
    struct dirent **entry; /* [n_entry] below folder */
    int n_entry, next_entry;
    size_t count;          /* of the case at hand */
    char *name[MOST_INPUTS]; /* owned */
    sdx_tensor tensor[MOST_INPUTS]; /* owned */
};

static void drop_case(cli_cases *c)
{
    for (size_t i = 0; i < c->count; i++) {
        free(c->name[i]);
        sdx_tensor_free(&c->tensor[i]);
    }
    c->count = 0;
}

static sdx_status fail(sdx_error *err, sdx_status status, const char *what, const char *name)
{
    err->status = status;
    snprintf(err->message, sizeof err->message, "%s: %s", name, what);
    return status;
}

/* ---- folders --------------------------------------------------------------------------------------------- */

static int is_visible(const struct dirent *entry) { return entry->d_name[0] != '.'; }

/* Takes the data over. */
static sdx_status add_input(cli_cases *c, const char *name, sdx_tensor t, sdx_error *err)
{
    char *copy = malloc(strlen(name) + 1);
    if (!copy || c->count == MOST_INPUTS) {
        free(copy);
        sdx_tensor_free(&t);
        return fail(err, SDX_ERR_USAGE, copy ? "too many inputs" : "out of memory", name);
    }
    strcpy(copy, name);
    c->name[c->count] = copy;
    c->tensor[c->count++] = t;
    return SDX_OK;
}

/* "folder/prefixNAME.npy"; a slash in a name is _ in a file's. New memory, NULL when there is no such file. */
static char *find_file(const char *folder, const char *prefix, const char *name)
{
    char file[1024];
    int n = snprintf(file, sizeof file, "%s%s.npy", prefix, name);
    for (char *p = file; *p; p++)
        if (*p == '/') *p = '_';
    char *path = n > 0 && (size_t)n < sizeof file ? cli_join(folder, file, "") : NULL;
    if (path && !access(path, R_OK)) return path;
    free(path);
    return NULL;
}

/* input_NAME.npy or NAME.npy for every input of the model. */
static sdx_status read_folder(cli_cases *c, const char *folder, sdx_error *err)
{
    sdx_status status = SDX_OK;
    for (size_t i = 0; i < sdx_model_input_count(c->model) && status == SDX_OK; i++) {
        const char *name = sdx_model_input(c->model, i).name;
        char *path = find_file(folder, "input_", name);
        if (!path) path = find_file(folder, "", name);
        if (!path) continue;
        sdx_tensor t = {0};
        status = sdx_tensor_read_npy(path, &t, err);
        if (status == SDX_OK) status = add_input(c, name, t, err);
        free(path);
    }
    return status;
}

/* The folder itself if it holds .npy files, then those below it that do. */
static sdx_status next_folder(cli_cases *c, sdx_error *err)
{
    sdx_status status = SDX_OK;
    while (status == SDX_OK && !c->count && c->next_entry <= c->n_entry) {
        int i = c->next_entry++;
        char *path = i ? cli_join(c->folder, c->entry[i - 1]->d_name, "") : NULL;
        if (!i || (path && cli_is_directory(path))) status = read_folder(c, i ? path : c->folder, err);
        free(path);
    }
    return status;
}

/* ---- texts ----------------------------------------------------------------------------------------------- */

static int64_t element(const sdx_encoding *e, const char *name, size_t i)
{
    if (strstr(name, "mask")) return 1;
    if (strstr(name, "position")) return (int64_t)i;
    return strstr(name, "token_type") ? e->type_ids[i] : e->ids[i];
}

static sdx_status fill_input(cli_cases *c, const sdx_port *port, const sdx_encoding *e, sdx_error *err)
{
    bool integer = port->dtype == SDX_I64 || port->dtype == SDX_I32,
         known = strstr(port->name, "ids") || strstr(port->name, "mask");
    if (!integer || !known)
        return fail(err, SDX_ERR_USAGE, "this input cannot be made of text: give --calibration a folder of .npy cases",
                    port->name);
    sdx_tensor t = {.dtype = port->dtype, .rank = 2, .dim = {1, (int64_t)e->count}};
    t.data = malloc(e->count * 8 + 1);
    if (!t.data) return fail(err, SDX_ERR_MEMORY, "out of memory", port->name);
    for (size_t i = 0; i < e->count; i++) {
        if (t.dtype == SDX_I64) ((int64_t *)t.data)[i] = element(e, port->name, i);
        else ((int32_t *)t.data)[i] = (int32_t)element(e, port->name, i);
    }
    return add_input(c, port->name, t, err);
}

static sdx_status next_text(cli_cases *c, sdx_error *err)
{
    cli_record r;
    int got = cli_records_next(&c->records, &r, err);
    if (got <= 0) return got ? SDX_ERR_FILE : SDX_OK;
    sdx_encoding e;
    sdx_status status =
        sdx_tokenizer_encode(c->tokenizer, r.text, r.text_length, r.pair, r.pair_length, c->max_length, &e, err);
    cli_record_free(&r);
    if (status != SDX_OK) return status;
    for (size_t i = 0; i < sdx_model_input_count(c->model) && status == SDX_OK; i++) {
        sdx_port port = sdx_model_input(c->model, i);
        if (!port.has_default) status = fill_input(c, &port, &e, err);
    }
    sdx_encoding_free(&e);
    return status;
}

/* ---- both ------------------------------------------------------------------------------------------------ */

static int open_texts(cli_cases *c, const char *path, const char *tokenizer)
{
    sdx_error err = {0};
    if (access(path, R_OK)) return cli_usage_error("%s: cannot open: %s", path, strerror(errno));
    if (!tokenizer) return cli_usage_error("--calibration %s: texts need --tokenizer", path);
    if (sdx_tokenizer_open(tokenizer, &c->tokenizer, &err) != SDX_OK) return cli_fail(&err);
    return cli_records_open(&c->records, path);
}

static int open_folder(cli_cases *c, const char *path)
{
    c->folder = cli_join(path, "", "");
    c->n_entry = scandir(path, &c->entry, is_visible, alphasort);
    return c->folder && c->n_entry >= 0 ? EXIT_FINE
                                        : cli_usage_error("%s: cannot read the folder: %s", path, strerror(errno));
}

int cli_cases_open(const char *path, const char *tokenizer, size_t max_length, const char *model,
                   cli_cases **out)
{
    cli_cases *c = calloc(1, sizeof *c);
    if (!c) return cli_out_of_memory();
    c->max_length = max_length;
    sdx_error err = {0};
    int code = sdx_model_open(model, &c->model, &err) == SDX_OK ? EXIT_FINE : cli_fail(&err);
    if (code == EXIT_FINE) code = cli_is_directory(path) ? open_folder(c, path) : open_texts(c, path, tokenizer);
    if (code == EXIT_FINE) *out = c;
    else cli_cases_close(c);
    return code;
}

sdx_status cli_cases_next(void *context, sdx_case *out, sdx_error *err)
{
    cli_cases *c = context;
    drop_case(c);
    sdx_status status = c->tokenizer ? next_text(c, err) : next_folder(c, err);
    if (status != SDX_OK) return status;
    *out = (sdx_case){c->count, (const char *const *)c->name, c->tensor};
    return SDX_OK;
}

void cli_cases_close(cli_cases *c)
{
    if (!c) return;
    drop_case(c);
    for (int i = 0; i < c->n_entry; i++) free(c->entry[i]);
    free(c->entry);
    free(c->folder);
    cli_records_close(&c->records);
    sdx_tokenizer_free(c->tokenizer);
    sdx_model_close(c->model);
    free(c);
}
