/* cmd_test.c: ONNX test folders: model.onnx and test_data_set_K/{input,output}_I.pb. */
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli.h"

static const cli_option options[] = {
    {"rtol", CLI_REAL, "R", "relative tolerance (default: 1e-3, as ONNX)"},
    {"atol", CLI_REAL, "A", "absolute tolerance (default: 1e-7, as ONNX)"},
    {"tolerances", CLI_STRING, "FILE.tsv", "lines of case<TAB>rtol<TAB>atol that override them"},
    {"max_steps", CLI_INT, "N", "end a run that takes more operators than this (default: 100 million)"},
    {"no_optimize", CLI_FLAG, NULL, "run the graphs as the files spell them"},
    {NULL, CLI_FLAG, NULL, NULL},
};

enum { MAX_PORTS = 512, WHY = 600 };

typedef struct tolerance {
    double rtol, atol;
} tolerance;

static bool is_close(double got, double want, tolerance tol)
{
    if (isnan(got) || isnan(want)) return isnan(got) && isnan(want);
    if (isinf(got) || isinf(want)) return got == want;
    return fabs(got - want) <= tol.atol + tol.rtol * fabs(want);
}

static bool same_strings(const sdx_tensor *got, const sdx_tensor *want, char *why)
{
    const char *const *g = got->data, *const *w = want->data;
    for (int64_t i = 0, n = sdx_tensor_count(want); i < n; i++) {
        if (!strcmp(g[i], w[i])) continue;
        snprintf(why, WHY, "element %lld is \"%.100s\", expected \"%.100s\"", (long long)i, g[i], w[i]);
        return false;
    }
    return true;
}

/* Complex numbers are seen as rows of two. */
static sdx_tensor real_view(const sdx_tensor *t)
{
    int64_t n = sdx_tensor_count(t);
    if (t->dtype == SDX_C64) return (sdx_tensor){SDX_F32, 1, {2 * n}, t->data};
    if (t->dtype == SDX_C128) return (sdx_tensor){SDX_F64, 1, {2 * n}, t->data};
    return (sdx_tensor){t->dtype, 1, {n}, t->data};
}

/* Integers that a double does not hold are compared byte for byte. */
static bool same_element(const sdx_tensor *got, const sdx_tensor *want, int64_t i, tolerance tol)
{
    if (want->dtype == SDX_I64 || want->dtype == SDX_U64)
        return ((const uint64_t *)got->data)[i] == ((const uint64_t *)want->data)[i];
    return is_close(sdx_tensor_get_f64(got, i), sdx_tensor_get_f64(want, i), tol);
}

static bool same_values(const sdx_tensor *got, const sdx_tensor *want, tolerance tol, char *why)
{
    if (want->dtype == SDX_STRING) return same_strings(got, want, why);
    sdx_tensor g = real_view(got), w = real_view(want);
    if (w.dtype == SDX_BF16) tol.rtol = fmax(tol.rtol, 0x1p-6); /* two of its last places, as ONNX allows */
    for (int64_t i = 0; i < w.dim[0]; i++) {
        if (same_element(&g, &w, i, tol)) continue;
        snprintf(why, WHY, "element %lld is %.9g, expected %.9g", (long long)i, sdx_tensor_get_f64(&g, i),
                 sdx_tensor_get_f64(&w, i));
        return false;
    }
    return true;
}

/* Of random numbers only type and shape are compared. */
static bool same_tensor(const sdx_tensor *got, const sdx_tensor *want, bool is_random, tolerance tol, char *why)
{
    bool shape = got->rank == want->rank;
    for (int d = 0; d < want->rank && shape; d++) shape = got->dim[d] == want->dim[d];
    if (got->dtype != want->dtype || !shape) {
        snprintf(why, WHY, "is %s of rank %d, expected %s of rank %d%s", sdx_dtype_name(got->dtype), got->rank,
                 sdx_dtype_name(want->dtype), want->rank, got->rank == want->rank ? " with other dims" : "");
        return false;
    }
    return is_random || same_values(got, want, tol, why);
}

static bool same_sequence(const sdx_tensor_list *got, const sdx_tensor_list *want, bool random, tolerance tol,
                          char *why)
{
    if (got->count != want->count) {
        snprintf(why, WHY, "has %zu items, expected %zu", got->count, want->count);
        return false;
    }
    for (size_t i = 0; i < want->count; i++) {
        char difference[WHY];
        if (same_tensor(&got->item[i], &want->item[i], random, tol, difference)) continue;
        snprintf(why, WHY, "item %zu: %.500s", i, difference);
        return false;
    }
    return true;
}

static bool same_value(const sdx_tensor *got, const sdx_tensor *want, bool random, tolerance tol, char *why)
{
    bool sequences = got->dtype == SDX_TENSOR_LIST && want->dtype == SDX_TENSOR_LIST;
    if (sequences) return same_sequence(got->data, want->data, random, tol, why);
    if (got->dtype == SDX_NOTHING && want->dtype == SDX_NOTHING) return true;
    return same_tensor(got, want, random, tol, why);
}

static bool read_indexed(const char *dir, const char *kind, size_t i, sdx_port port, sdx_tensor *out,
                         sdx_error *err)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s_%zu.pb", dir, kind, i);
    return sdx_value_read_pb(path, &port, out, err) == SDX_OK;
}

static bool compare_outputs(const char *dir, const sdx_model *model, const sdx_tensor *outputs, tolerance tol,
                            char *why)
{
    for (size_t i = 0; i < sdx_model_output_count(model); i++) {
        sdx_tensor want;
        sdx_error err = {0};
        if (!read_indexed(dir, "output", i, sdx_model_output(model, i), &want, &err)) {
            snprintf(why, WHY, "%.500s", err.message);
            return false;
        }
        char difference[WHY];
        bool same = same_value(&outputs[i], &want, sdx_model_is_random(model), tol, difference);
        sdx_tensor_free(&want);
        if (same) continue;
        snprintf(why, WHY, "output %.100s: %.400s", sdx_model_output(model, i).name, difference);
        return false;
    }
    return true;
}

/* Inputs that have defaults may lack their file. */
static bool read_inputs(const char *dir, const sdx_model *model, const char **names, sdx_tensor *inputs,
                        size_t *n,
                        sdx_error *err)
{
    for (size_t i = 0; i < sdx_model_input_count(model); i++) {
        sdx_port port = sdx_model_input(model, i);
        char path[4096];
        struct stat st;
        snprintf(path, sizeof path, "%s/input_%zu.pb", dir, i);
        if (port.has_default && stat(path, &st)) continue;
        if (!read_indexed(dir, "input", i, port, &inputs[*n], err)) return false;
        names[(*n)++] = port.name;
    }
    return true;
}

/* One test_data_set_K. */
static bool run_set(const char *dir, const sdx_program *program, sdx_session *session, tolerance tol, char *why)
{
    const sdx_model *model = sdx_program_model(program);
    const char *names[MAX_PORTS];
    sdx_tensor inputs[MAX_PORTS], outputs[MAX_PORTS];
    size_t n = 0, n_in = sdx_model_input_count(model), n_out = sdx_model_output_count(model);
    sdx_error err = {.message = "too many inputs or outputs"};
    bool ok = n_in <= MAX_PORTS && n_out <= MAX_PORTS && read_inputs(dir, model, names, inputs, &n, &err) &&
              sdx_session_run(session, n, names, inputs, n_out, outputs, &err) == SDX_OK;
    if (ok) ok = compare_outputs(dir, model, outputs, tol, why);
    else snprintf(why, WHY, "%.590s", err.message);
    while (n > 0) sdx_tensor_free(&inputs[--n]);
    return ok;
}

static bool run_case(const cli_args *args, const char *dir, tolerance tol, char *why)
{
    sdx_run_options run_options = cli_run_options(args);
    char path[4096];
    snprintf(path, sizeof path, "%s/model.onnx", dir);
    sdx_error err = {0};
    sdx_program *program;
    sdx_session *session = NULL;
    if (sdx_program_open(path, &run_options, &program, &err) != SDX_OK) {
        snprintf(why, WHY, "%.590s", err.message);
        return false;
    }
    bool ok = sdx_session_create(program, &session, &err) == SDX_OK;
    if (!ok) snprintf(why, WHY, "%.590s", err.message);
    for (int set = 0; ok; set++) {
        snprintf(path, sizeof path, "%s/test_data_set_%d", dir, set);
        if (!cli_is_directory(path)) {
            if (set) break;
            snprintf(why, WHY, "%.500s: no such folder, so there is nothing to compare", path);
            ok = false;
        }
        ok = ok && run_set(path, program, session, tol, why);
    }
    sdx_session_free(session);
    sdx_program_free(program);
    return ok;
}

static int case_tolerance(const cli_args *args, const char *name, tolerance *tol)
{
    *tol = (tolerance){cli_real(args, "rtol", 1e-3), cli_real(args, "atol", 1e-7)};
    const char *path = cli_string(args, "tolerances", NULL);
    if (!path) return EXIT_FINE;
    FILE *f = fopen(path, "r");
    if (!f) return cli_usage_error("%s: cannot open: %s", path, strerror(errno));
    char line[1024], key[512];
    double rtol, atol;
    while (fgets(line, sizeof line, f))
        if (sscanf(line, "%511s %lf %lf", key, &rtol, &atol) == 3 && !strcmp(key, name)) *tol = (tolerance){rtol, atol};
    fclose(f);
    return EXIT_FINE;
}

typedef struct tally {
    size_t passed, failed;
} tally;

static int count_case(const cli_args *args, const char *dir, tally *t)
{
    char why[WHY] = "";
    const char *name = cli_basename(dir);
    tolerance tol;
    int code = case_tolerance(args, name, &tol);
    if (code != EXIT_FINE) return code;
    if (run_case(args, dir, tol, why)) {
        t->passed++;
        return EXIT_FINE;
    }
    t->failed++;
    if (!cli_flag(args, "json")) {
        printf("FAILED %s: %s\n", name, why);
        return EXIT_FINE;
    }
    fputs(t->failed == 1 ? "{\"failures\": [{\"case\": " : ", {\"case\": ", stdout);
    cli_json_string(stdout, name, strlen(name));
    fputs(", \"why\": ", stdout);
    cli_json_string(stdout, why, strlen(why));
    fputc('}', stdout);
    return EXIT_FINE;
}

static bool is_case(const char *dir)
{
    char path[4096];
    struct stat st;
    snprintf(path, sizeof path, "%s/model.onnx", dir);
    return !stat(path, &st);
}

/* A case folder itself, or a folder of cases, in name order. */
static int walk(const cli_args *args, const char *dir, tally *t)
{
    if (is_case(dir)) return count_case(args, dir, t);
    struct dirent **entry;
    int n = scandir(dir, &entry, NULL, alphasort), code = EXIT_FINE;
    if (n < 0) return cli_usage_error("%s: cannot read the folder: %s", dir, strerror(errno));
    for (int i = 0; i < n; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%s", dir, entry[i]->d_name);
        if (code == EXIT_FINE && entry[i]->d_name[0] != '.' && is_case(path)) code = count_case(args, path, t);
        free(entry[i]);
    }
    free(entry);
    return code;
}

static int run(const cli_args *args)
{
    if (!args->n_positional) return cli_usage_error("test needs a folder");
    tally t = {0, 0};
    for (size_t i = 0; i < args->n_positional; i++) {
        int code = walk(args, args->positional[i], &t);
        if (code != EXIT_FINE) return code;
    }
    if (!t.passed && !t.failed) return cli_usage_error("no test case (a folder with model.onnx) found");
    if (!cli_flag(args, "json")) printf("%zu passed, %zu failed\n", t.passed, t.failed);
    else printf("%s, \"passed\": %zu, \"failed\": %zu}\n", t.failed ? "]" : "{\"failures\": []", t.passed, t.failed);
    return t.failed ? EXIT_FINDING : EXIT_FINE;
}

const cli_command cli_command_test = {"test", "DIR... [--rtol R] [--atol A]", "run ONNX test folders and compare",
                                      "sardonyx test node_tests/test_add node_tests/test_matmul_2d", options, run, CLI_MAX_POSITIONAL};
