/* zoo_check.c: runs models against stored outputs. Sees only the public interface.
 *
 *     zoo_check DIR [--graphs PATTERN]... [--no-optimize] [--threads N] [--every-isa] [--bound X]
 *               [--expected FILE]
 *
 * DIR is a zoo (folders of models) or one model's folder:
 *
 *     MODEL/GRAPH.onnx                   every file whose path below DIR matches a PATTERN (default: all)
 *     MODEL/case_K/input_NAME.npy        fed as input NAME
 *     MODEL/case_K/output_NAME.npy       what the original framework computed
 *     MODEL/case_K/GRAPH.NAME.npy        what ONNX Runtime computed for a quantized graph, which differs by
 * more MODEL/X/GRAPH.case_K/...           the same for a folder of graphs with cases of their own; GRAPH up to
 * its first "."
 *
 * Each case runs with one thread, for N > 1 with N, and with --every-isa under the cap of each instruction set:
 * those bytes must be identical. The bound is on max |got - golden| over max(1, max |golden|). Quantized graphs are
 * held to the root mean square instead: where the last bit of a float tips a rounding, a single code differs by a whole
 * step and says nothing; without a golden of their own they only have to run. FILE lists graphs with a wider bound and
 * the reason (lines of GRAPH, BOUND, REASON between tabs); a line whose graph has come within the usual bound is a
 * failure, so that the list only shrinks by being read. One line per failure; closes with "N passed, N failed".
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "../../include/sardonyx.h"

/* Those the CPU lacks are lowered to the best it has. */
static const char *const isas[] = {"scalar",     "avx2", "avxvnni",  "avx512",   "avx512vnni",
                                   "avx512fp16", "neon", "neon_dot", "neon_i8mm"};

enum { ISAS = sizeof isas / sizeof *isas, MOST_RUNS = 2 + ISAS };
enum { MOST_PATTERNS = 32, MOST_PORTS = 32, PATH_SIZE = 1024, MOST_EXCEPTIONS = 64 };

static const double FLOAT_BOUND = 1e-5, INT8_BOUND = 2e-3;

typedef struct exception { /* a line of FILE */
    char graph[PATH_SIZE];
    double bound;
    bool ran, needed;
} exception;

typedef struct options {
    const char *dir;
    const char *pattern[MOST_PATTERNS];
    int n_pattern;
    sdx_run_options run;
    bool every_isa;
    double bound; /* 0: the usual ones */
    const char *expected;
    exception *exception; /* [n_exception] */
    int n_exception;
} options;

typedef struct tally {
    int passed, failed;
} tally;

static bool is_file(const char *path)
{
    struct stat st;
    return !stat(path, &st) && S_ISREG(st.st_mode);
}

static bool is_folder(const char *path)
{
    struct stat st;
    return !stat(path, &st) && S_ISDIR(st.st_mode);
}

static void join(char out[PATH_SIZE], const char *dir, const char *name)
{
    snprintf(out, PATH_SIZE, "%s/%s", dir, name);
}

/* "bert-mlm/torchscript-op14.onnx" below DIR: what patterns are matched against and failures are told by. */
static const char *short_name(const options *o, const char *path)
{
    return path + strlen(o->dir) + 1;
}

/* ---- one case -------------------------------------------------------------------------------------------- */

typedef struct case_inputs {
    const char *name[MOST_PORTS];
    sdx_tensor tensor[MOST_PORTS];
    size_t count;
} case_inputs;

static void free_inputs(case_inputs *in)
{
    for (size_t i = 0; i < in->count; i++) sdx_tensor_free(&in->tensor[i]);
}

static sdx_status read_inputs(const sdx_model *model, const char *dir, case_inputs *in, sdx_error *err)
{
    in->count = 0;
    for (size_t i = 0; i < sdx_model_input_count(model) && in->count < MOST_PORTS; i++) {
        char path[PATH_SIZE];
        const char *name = sdx_model_input(model, i).name;
        snprintf(path, sizeof path, "%s/input_%s.npy", dir, name);
        if (!is_file(path)) continue; /* the run will say that it is missing, if it is */
        sdx_status status = sdx_tensor_read_npy(path, &in->tensor[in->count], err);
        if (status != SDX_OK) return status;
        in->name[in->count++] = name;
    }
    return SDX_OK;
}

static bool same_shape(const sdx_tensor *a, const sdx_tensor *b)
{
    return a->dtype == b->dtype && a->rank == b->rank &&
           !memcmp(a->dim, b->dim, (size_t)a->rank * sizeof *a->dim);
}

/* max (or rms) of |got - golden|, over max(1, max |golden|); infinite when types or shapes differ, or a NaN is
 * on one side only. */
static double difference(const sdx_tensor *got, const sdx_tensor *golden, bool rms)
{
    if (!same_shape(got, golden)) return INFINITY;
    if (got->dtype != SDX_F32) return memcmp(got->data, golden->data, sdx_tensor_bytes(got)) ? INFINITY : 0;
    const float *x = got->data, *y = golden->data;
    double worst = 0, norm = 1, squares = 0;
    int64_t count = sdx_tensor_count(got);
    for (int64_t i = 0; i < count; i++) {
        double d = fabs((double)x[i] - (double)y[i]);
        if (isnan(x[i]) != isnan(y[i])) return INFINITY;
        if (isnan(d)) continue; /* both NaN, or the same infinity */
        squares += d * d;
        if (d > worst) worst = d;
        if (fabs((double)y[i]) > norm) norm = fabs((double)y[i]);
    }
    return (rms && count ? sqrt(squares / (double)count) : worst) / norm;
}

static bool is_quantized(const char *graph)
{
    return strstr(graph, "8bit") || strstr(graph, "qdq");
}

/* The stored output for this graph: its own when it is quantized. *bound: how near. */
static bool find_golden(const char *dir, const char *graph, const char *output, char path[PATH_SIZE],
                        double *bound)
{
    size_t stem = strlen(graph) - strlen(".onnx");
    bool quantized = is_quantized(graph);
    if (quantized)
        snprintf(path, PATH_SIZE, "%s/%.*s.%s.npy", dir, (int)stem, graph, output);
    else
        snprintf(path, PATH_SIZE, "%s/output_%s.npy", dir, output);
    *bound = quantized ? INT8_BOUND : FLOAT_BOUND;
    return is_file(path);
}

/* The wider bound that the list gives to label's graph ("GRAPH case_K"), and whether it was needed. */
static double widen_bound(const options *o, const char *label, double usual, double d)
{
    for (int i = 0; i < o->n_exception; i++) {
        exception *e = &o->exception[i];
        size_t n = strlen(e->graph);
        if (strncmp(label, e->graph, n) || label[n] != ' ') continue;
        e->ran = true;
        e->needed |= !(d <= usual);
        return e->bound;
    }
    return usual;
}

static bool compare_output(const options *o, const char *label, const char *dir, const char *graph,
                           const char *name, const sdx_tensor *got)
{
    char path[PATH_SIZE];
    double bound;
    sdx_tensor golden;
    sdx_error err;
    if (!find_golden(dir, graph, name, path, &bound)) return true; /* e.g. a pooler that nobody stored */
    if (o->bound > 0) bound = o->bound;
    if (sdx_tensor_read_npy(path, &golden, &err) != SDX_OK) {
        printf("FAIL %s: %s\n", label, err.message);
        return false;
    }
    double d = difference(got, &golden, is_quantized(graph));
    sdx_tensor_free(&golden);
    bound = widen_bound(o, label, bound, d);
    if (!(d <= bound))
        printf("FAIL %s: output \"%s\" is off by %.3g, allowed is %.3g\n", label, name, d, bound);
    return d <= bound;
}

static bool compare_outputs(const options *o, const sdx_model *model, const char *label, const char *dir,
                            const char *graph, const sdx_tensor *outputs)
{
    bool ok = true;
    for (size_t i = 0; i < sdx_model_output_count(model); i++)
        ok &= compare_output(o, label, dir, graph, sdx_model_output(model, i).name, &outputs[i]);
    return ok;
}

static bool same_bytes(const sdx_model *model, const char *label, const char *how, const sdx_tensor *a,
                       const sdx_tensor *b)
{
    for (size_t i = 0; i < sdx_model_output_count(model); i++) {
        if (same_shape(&a[i], &b[i]) && !memcmp(a[i].data, b[i].data, sdx_tensor_bytes(&a[i]))) continue;
        printf("FAIL %s: output \"%s\" has other bytes with %s\n", label, sdx_model_output(model, i).name, how);
        return false;
    }
    return true;
}

/* Sessions of one graph: [0] with one thread, the others differ in what must not matter. */
typedef struct runs {
    int count;
    const char *how[MOST_RUNS];
    sdx_program *program[MOST_RUNS];
    sdx_session *session[MOST_RUNS];
} runs;

static bool run_case(const options *o, const runs *r, const char *label, const char *dir, const char *graph)
{
    const sdx_model *model = sdx_program_model(r->program[0]);
    sdx_tensor outputs[MOST_RUNS][MOST_PORTS];
    case_inputs in;
    sdx_error err;
    size_t n_out = sdx_model_output_count(model);
    bool ok = read_inputs(model, dir, &in, &err) == SDX_OK;
    for (int k = 0; k < r->count && ok; k++)
        ok = sdx_session_run(r->session[k], in.count, in.name, in.tensor, n_out, outputs[k], &err) == SDX_OK;
    if (!ok) printf("FAIL %s: %s\n", label, err.message);
    if (ok) ok = compare_outputs(o, model, label, dir, graph, outputs[0]);
    for (int k = 1; k < r->count && ok; k++) ok = same_bytes(model, label, r->how[k], outputs[0], outputs[k]);
    free_inputs(&in);
    return ok;
}

/* ---- graphs and folders ---------------------------------------------------------------------------------- */

static bool add_run(const char *path, const sdx_run_options *run, const char *how, runs *r, sdx_error *err)
{
    const int k = r->count++;
    r->how[k] = how;
    return sdx_program_open(path, run, &r->program[k], err) == SDX_OK &&
           sdx_session_create(r->program[k], &r->session[k], err) == SDX_OK;
}

static bool open_runs(const options *o, const char *path, runs *r, sdx_error *err)
{
    sdx_run_options run = o->run;
    run.threads = 1;
    bool ok = add_run(path, &run, "one thread", r, err);
    if (o->run.threads > 1) ok = ok && add_run(path, &o->run, "more threads", r, err);
    for (int i = 0; o->every_isa && i < ISAS; i++) {
        run.isa = isas[i];
        ok = ok && add_run(path, &run, isas[i], r, err);
    }
    return ok && sdx_model_output_count(sdx_program_model(r->program[0])) <= MOST_PORTS;
}

static void close_runs(runs *r)
{
    for (int k = 0; k < r->count; k++) {
        sdx_session_free(r->session[k]);
        sdx_program_free(r->program[k]);
    }
}

static bool find_case(const char *dir, const char *graph, int k, char folder[PATH_SIZE])
{
    snprintf(folder, PATH_SIZE, "%s/%.*s.case_%d", dir, (int)strcspn(graph, "."), graph, k);
    if (is_folder(folder)) return true;
    snprintf(folder, PATH_SIZE, "%s/case_%d", dir, k);
    return is_folder(folder);
}

static void run_graph(const options *o, const char *dir, const char *graph, tally *t)
{
    char path[PATH_SIZE], label[PATH_SIZE];
    join(path, dir, graph);
    runs r = {0};
    sdx_error err = {.message = "too many outputs"};
    if (!open_runs(o, path, &r, &err)) {
        printf("FAIL %s: %s\n", short_name(o, path), err.message);
        t->failed++;
    } else {
        char folder[PATH_SIZE];
        for (int k = 0; find_case(dir, graph, k, folder); k++) {
            snprintf(label, sizeof label, "%s case_%d", short_name(o, path), k);
            if (run_case(o, &r, label, folder, graph))
                t->passed++;
            else
                t->failed++;
        }
    }
    close_runs(&r);
}

static bool is_wanted(const options *o, const char *path)
{
    for (int i = 0; i < o->n_pattern; i++)
        if (!fnmatch(o->pattern[i], short_name(o, path), 0)) return true;
    return o->n_pattern == 0;
}

static bool has_suffix(const char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);
    return n > m && !strcmp(s + n - m, suffix);
}

/* The folder's graphs, then the folders in it that are not cases. */
static void walk(const options *o, const char *dir, int depth, tally *t)
{
    struct dirent **entry;
    int n = scandir(dir, &entry, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        char path[PATH_SIZE];
        const char *name = entry[i]->d_name;
        join(path, dir, name);
        if (name[0] != '.' && has_suffix(name, ".onnx") && is_file(path) && is_wanted(o, path))
            run_graph(o, dir, name, t);
        if (name[0] != '.' && depth > 0 && is_folder(path)) walk(o, path, depth - 1, t);
        free(entry[i]);
    }
    if (n >= 0) free(entry);
}

static bool read_expected(options *o)
{
    static exception list[MOST_EXCEPTIONS];
    char line[2 * PATH_SIZE];
    FILE *f = o->expected ? fopen(o->expected, "r") : NULL;
    o->exception = list;
    if (!f) return !o->expected;
    while (fgets(line, sizeof line, f) && o->n_exception < MOST_EXCEPTIONS) {
        exception *e = &list[o->n_exception];
        if (line[0] != '#' && sscanf(line, "%1023[^\t]\t%lf", e->graph, &e->bound) == 2) o->n_exception++;
    }
    fclose(f);
    return true;
}

static void find_needless(const options *o, tally *t)
{
    for (int i = 0; i < o->n_exception; i++) {
        if (!o->exception[i].ran || o->exception[i].needed) continue;
        printf("FAIL %s: keeps the usual bound; take its line out of %s\n", o->exception[i].graph, o->expected);
        t->failed++;
    }
}

static bool parse(int argc, char **argv, options *o)
{
    for (int i = 1; i < argc; i++) {
        bool more = i + 1 < argc;
        if (!strcmp(argv[i], "--no-optimize"))
            o->run.no_optimize = true;
        else if (!strcmp(argv[i], "--every-isa"))
            o->every_isa = true;
        else if (!strcmp(argv[i], "--threads") && more)
            o->run.threads = atoi(argv[++i]);
        else if (!strcmp(argv[i], "--bound") && more)
            o->bound = atof(argv[++i]);
        else if (!strcmp(argv[i], "--expected") && more)
            o->expected = argv[++i];
        else if (!strcmp(argv[i], "--graphs") && more && o->n_pattern < MOST_PATTERNS)
            o->pattern[o->n_pattern++] = argv[++i];
        else if (argv[i][0] != '-' && !o->dir)
            o->dir = argv[i];
        else
            return false;
    }
    return o->dir != NULL;
}

int main(int argc, char **argv)
{
    options o = {0};
    tally t = {0};
    if (!parse(argc, argv, &o)) {
        fprintf(stderr, "usage: zoo_check DIR [--graphs PATTERN]... [--no-optimize] [--threads N] [--every-isa] "
                        "[--bound X] [--expected FILE]\n");
        return 2;
    }
    if (!read_expected(&o)) {
        fprintf(stderr, "zoo_check: cannot read %s\n", o.expected);
        return 2;
    }
    walk(&o, o.dir, 2, &t);
    find_needless(&o, &t);
    printf("%d passed, %d failed\n", t.passed, t.failed);
    return t.failed || !t.passed;
}
