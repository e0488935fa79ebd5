/* cmd_bench.c: how long a model takes on random token ids of given shapes. --repeat_on_stdin lets another program
 * interleave its own runs with ours, which is the only fair way on a shared machine. */
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "cli.h"

static const cli_option options[] = {
    {"shape", CLI_REST, "BxS...", "batch and sequence, as 1x128 8x128 (default: 1x128)"},
    {"lengths", CLI_STRING, "A,B,...", "one ragged batch: texts of these lengths, padded to the longest"},
    {"runs", CLI_INT, "N", "timed runs of each shape (default: as many as fit in a second, 5 at least)"},
    {"vs", CLI_STRING, "ort",
     "also ONNX Runtime (of python3, or $SARDONYX_PYTHON) on the same file and inputs, in turn"},
    {"repeat_on_stdin", CLI_FLAG, NULL,
     "print ready; then for each line BxS or A,B,... the milliseconds of one run, for load those of the load"},
    {"profile", CLI_FLAG, NULL, "print the time per operator, of all shapes together"},
    {"no_optimize", CLI_FLAG, NULL, "run the graph as the file spells it"},
    {"skip_padding", CLI_FLAG, NULL, "outputs are 0 where the attention mask is, and cost nothing there"},
    {NULL, CLI_FLAG, NULL, NULL},
};

enum { MAX_PORTS = 32, MAX_RUNS = 1000, MAX_LENGTHS = 4096, TOKENS = 900 }; /* ids below any real vocabulary's size */
enum { QUICK_MS = 200 };

typedef struct bench {
    const sdx_program *program;
    const sdx_model *model;
    sdx_session *session;
    cli_rival *rival; /* or NULL */
    int threads;
    bool json;
} bench;

typedef struct feed { /* one shape's inputs */
    const char *name[MAX_PORTS];
    sdx_tensor tensor[MAX_PORTS]; /* owned data */
    size_t count;
} feed;

/* splitmix64 (Steele et al. 2014): the same inputs in every run of the program. */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static void free_feed(feed *f)
{
    for (size_t i = 0; i < f->count; i++) sdx_tensor_free(&f->tensor[i]);
    f->count = 0;
}

/* Element i of an input: ids at random, masks one up to a row's length, the rest small numbers. */
static double element_value(const char *name, int64_t row, int64_t column, const long *lengths, uint64_t *state)
{
    bool real = !lengths || column < lengths[row];
    if (strstr(name, "mask")) return real;
    if (strstr(name, "token_type")) return 0;
    if (strstr(name, "ids")) return real ? (double)(next_random(state) % TOKENS) : 0;
    return (double)(next_random(state) % 2048) / 1024 - 1;
}

static bool fill(sdx_tensor *t, const char *name, const long *lengths)
{
    size_t bytes = sdx_tensor_bytes(t);
    t->data = bytes ? malloc(bytes) : NULL;
    if (!t->data) return false;
    uint64_t state = 42;
    int64_t n = sdx_tensor_count(t), width = t->rank > 1 ? t->dim[1] : 1;
    for (int64_t i = 0; i < n; i++) {
        double x = element_value(name, i / width % (t->rank ? t->dim[0] : 1), i % width, t->rank == 2 ? lengths : NULL,
                                 &state);
        if (t->dtype == SDX_I64) ((int64_t *)t->data)[i] = (int64_t)x;
        else if (t->dtype == SDX_I32) ((int32_t *)t->data)[i] = (int32_t)x;
        else if (t->dtype == SDX_F32) ((float *)t->data)[i] = (float)x;
        else if (t->dtype == SDX_BOOL) ((uint8_t *)t->data)[i] = x != 0;
        else return false;
    }
    return true;
}

static int make_feed(const bench *b, long batch, long sequence, const long *lengths, feed *f)
{
    *f = (feed){.count = 0};
    for (size_t i = 0; i < sdx_model_input_count(b->model) && i < MAX_PORTS; i++) {
        sdx_port port = sdx_model_input(b->model, i);
        sdx_tensor t = cli_shape_input(&port, batch, sequence);
        if (!fill(&t, port.name, lengths)) {
            free(t.data);
            free_feed(f);
            return cli_usage_error("cannot make up input \"%s\" (%s)", port.name, sdx_dtype_name(port.dtype));
        }
        f->name[f->count] = port.name;
        f->tensor[f->count++] = t;
    }
    return EXIT_FINE;
}

static int run_once(const bench *b, const feed *f, double *ms)
{
    sdx_tensor outputs[MAX_PORTS];
    size_t n = sdx_model_output_count(b->model);
    if (n > MAX_PORTS) return cli_usage_error("the model has more than %d outputs", MAX_PORTS);
    sdx_error err = {0};
    double start = cli_now();
    if (sdx_session_run(b->session, f->count, f->name, f->tensor, n, outputs, &err) != SDX_OK) return cli_fail(&err);
    *ms = 1e3 * (cli_now() - start);
    return EXIT_FINE;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

typedef struct timing { /* milliseconds */
    double min, median, p90;
} timing;

typedef struct result { /* of one shape */
    size_t runs;
    timing ours, theirs;
    double ratio;        /* median over the rounds of theirs / ours */
    double gflops, share; /* of the median; share: of what the arithmetic alone takes at the CPU's best, or 0 */
} result;

static timing summarize(double *ms, size_t n)
{
    qsort(ms, n, sizeof *ms, by_value);
    return (timing){ms[0], ms[n / 2], ms[n * 9 / 10]};
}

static double seconds_at_best(sdx_work done, sdx_work peak)
{
    return (done.f32 ? done.f32 / peak.f32 : 0) + (done.bf16 ? done.bf16 / peak.bf16 : 0) +
           (done.f16 ? done.f16 / peak.f16 : 0) + (done.int8 ? done.int8 / peak.int8 : 0);
}

/* Told in the moment of the runs, since clocks change. */
static void rate(const bench *b, sdx_work peak, result *r)
{
    const sdx_work done = sdx_session_work(b->session);
    r->gflops = (done.f32 + done.bf16 + done.f16 + done.int8) / r->ours.median * 1e-6;
    const double best = seconds_at_best(done, peak) / b->threads * 1e3;
    r->share = best > 0 && best < 1e300 ? best / r->ours.median : 0;
}

/* What the other engine's spinning threads would add to ours, and ours to it, is over after a moment. */
static int in_turn(const bench *b, const feed *f, size_t round, double *ours, double *theirs)
{
    static const struct timespec rest = {0, 50 * 1000 * 1000};
    int code = EXIT_FINE;
    for (size_t i = 0; code == EXIT_FINE && i < 2; i++) {
        const bool we = (round + i) % 2;
        double *ms = we ? ours : theirs;
        nanosleep(&rest, NULL);
        for (int again = 0; code == EXIT_FINE && again < 2 && (!again || *ms < QUICK_MS); again++)
            code = we ? run_once(b, f, ms) : cli_rival_run(b->rival, ms);
    }
    return code;
}

static int time_feed(const cli_args *args, const bench *b, const feed *f, result *r)
{
    static double ours[MAX_RUNS], theirs[MAX_RUNS], ratio[MAX_RUNS];
    double warm;
    int code = run_once(b, f, &warm);
    const sdx_work peak = sdx_program_peak(b->program);
    const double begin = cli_now();
    const long wanted = cli_int(args, "runs", 0);
    size_t n = 0;
    for (; code == EXIT_FINE && n < MAX_RUNS; n++) {
        if (wanted ? n >= (size_t)wanted : n >= 5 && cli_now() - begin > (b->rival ? 3 : 1)) break;
        code = b->rival ? in_turn(b, f, n, &ours[n], &theirs[n]) : run_once(b, f, &ours[n]);
        ratio[n] = theirs[n] / ours[n];
    }
    if (code != EXIT_FINE) return code;
    *r = (result){.runs = n, .ours = summarize(ours, n), .theirs = summarize(theirs, n)};
    r->ratio = summarize(ratio, n).median;
    rate(b, peak, r);
    return EXIT_FINE;
}

static void print_json(const bench *b, const char *label, const result *r, bool first)
{
    printf("%s{\"shape\": \"%s\", \"runs\": %zu, \"min_ms\": %.4f, \"median_ms\": %.4f, \"p90_ms\": %.4f, "
           "\"gflops\": %.2f, \"peak_share\": ",
           first ? "" : ", ", label, r->runs, r->ours.min, r->ours.median, r->ours.p90, r->gflops);
    if (r->share > 0) printf("%.4f", r->share);
    else printf("null");
    if (b->rival)
        printf(", \"vs\": {\"engine\": \"onnxruntime %s\", \"min_ms\": %.4f, \"median_ms\": %.4f, "
               "\"p90_ms\": %.4f, \"ratio\": %.3f}",
               cli_rival_version(b->rival), r->theirs.min, r->theirs.median, r->theirs.p90, r->ratio);
    putchar('}');
}

static void print_text(const bench *b, const char *label, const result *r)
{
    printf("%-12s %5zu runs  min %9.3f ms  median %9.3f ms  p90 %9.3f ms  %8.1f GFLOP/s", label, r->runs, r->ours.min,
           r->ours.median, r->ours.p90, r->gflops);
    if (r->share > 0) printf("  %5.1f %% of the peak", 100 * r->share);
    putchar('\n');
    if (b->rival)
        printf("%-12s             min %9.3f ms  median %9.3f ms  p90 %9.3f ms  takes %.2f times ours\n", "  ort",
               r->theirs.min, r->theirs.median, r->theirs.p90, r->ratio);
}

static int bench_shape(const cli_args *args, const bench *b, const char *label, long batch, long sequence,
                       const long *lengths, bool first)
{
    feed f;
    result r = {0};
    int code = make_feed(b, batch, sequence, lengths, &f);
    for (size_t i = 0; b->rival && code == EXIT_FINE && i < f.count; i++)
        code = cli_rival_feed(b->rival, f.name[i], &f.tensor[i]);
    if (code == EXIT_FINE) code = time_feed(args, b, &f, &r);
    free_feed(&f);
    if (code != EXIT_FINE) return code;
    if (b->json) print_json(b, label, &r, first);
    else print_text(b, label, &r);
    return EXIT_FINE;
}

/* "12,33,8" */
static size_t parse_lengths(const char *text, long *lengths, long *longest)
{
    size_t n = 0;
    *longest = 0;
    for (char *end; *text && n < MAX_LENGTHS; text = *end == ',' ? end + 1 : end) {
        lengths[n] = strtol(text, &end, 10);
        if (end == text || lengths[n] <= 0 || lengths[n] > 1 << 20 || (*end && *end != ',')) return 0;
        if (lengths[n] > *longest) *longest = lengths[n];
        n++;
    }
    return n;
}

static int bench_all(const cli_args *args, const bench *b)
{
    const char *ragged = cli_string(args, "lengths", NULL), *label = cli_nth(args, "shape", 0);
    int code = EXIT_FINE;
    size_t done = 0;
    if (!label && !ragged) label = "1x128";
    for (; code == EXIT_FINE && label; label = cli_nth(args, "shape", ++done)) {
        long batch, sequence;
        if (!cli_parse_shape(label, &batch, &sequence))
            return cli_usage_error("a shape is BxS, as 8x128, not \"%s\"", label);
        code = bench_shape(args, b, label, batch, sequence, NULL, done == 0);
    }
    if (code == EXIT_FINE && ragged) {
        static long lengths[MAX_LENGTHS];
        long longest;
        size_t n = parse_lengths(ragged, lengths, &longest);
        if (!n) return cli_usage_error("--lengths takes whole numbers with commas between, not \"%s\"", ragged);
        code = bench_shape(args, b, "ragged", (long)n, longest, lengths, done == 0);
    }
    return code;
}

/* A line of --repeat_on_stdin: BxS, or the lengths of a ragged batch. */
static int run_line(const bench *b, const char *line, double *ms)
{
    static long lengths[MAX_LENGTHS];
    long batch, sequence;
    const bool even = cli_parse_shape(line, &batch, &sequence);
    if (!even) batch = (long)parse_lengths(line, lengths, &sequence);
    if (!batch) return cli_usage_error("a line is BxS or A,B,..., not \"%s\"", line);
    feed f;
    int code = make_feed(b, batch, sequence, even ? NULL : lengths, &f);
    if (code == EXIT_FINE) code = run_once(b, &f, ms);
    free_feed(&f);
    return code;
}

static int repeat_on_stdin(const bench *b, double load_ms)
{
    char line[4096];
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        double ms;
        line[strcspn(line, "\r\n")] = 0;
        int code = EXIT_FINE;
        if (strcmp(line, "load"))
            code = run_line(b, line, &ms);
        else
            ms = load_ms;
        if (code != EXIT_FINE) return code;
        printf("%.4f\n", ms);
        fflush(stdout);
    }
    return EXIT_FINE;
}

static double peak_rss_mb(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) ? 0 : (double)usage.ru_maxrss * 1024 / 1e6;
}

/* The first run packs nothing more but touches everything: what a short-lived process pays. */
static int first_run(const cli_args *args, const bench *b, double *ms)
{
    long batch = 1, sequence = 128;
    const char *shape = cli_nth(args, "shape", 0);
    if (shape && !cli_parse_shape(shape, &batch, &sequence))
        return cli_usage_error("a shape is BxS, not \"%s\"", shape);
    feed f;
    int code = make_feed(b, batch, sequence, NULL, &f);
    if (code == EXIT_FINE) code = run_once(b, &f, ms);
    free_feed(&f);
    return code;
}

static int print_profile(const bench *b)
{
    char *text;
    sdx_error err = {0};
    if (sdx_session_profile(b->session, &text, &err) != SDX_OK) return cli_fail(&err);
    printf("\n%s", text);
    free(text);
    return EXIT_FINE;
}

static int bench_program(const cli_args *args, const bench *b, const char *path, double load_ms)
{
    if (cli_flag(args, "repeat_on_stdin")) return repeat_on_stdin(b, load_ms);
    double first_ms;
    int code = first_run(args, b, &first_ms);
    if (code != EXIT_FINE) return code;
    const char *isa = sdx_used_isa(), *precision = sdx_program_precision(b->program);
    if (b->json) {
        printf("{\"model\": ");
        cli_json_string(stdout, path, strlen(path));
        printf(", \"isa\": \"%s\", \"precision\": \"%s\", \"threads\": %d, \"load_ms\": %.3f, \"first_run_ms\": %.3f, "
               "\"results\": [",
               isa, precision, b->threads, load_ms, first_ms);
    } else {
        printf("%s: %s, %s, %d threads; load %.1f ms, first run %.1f ms\n", path, isa, precision, b->threads, load_ms,
               first_ms);
    }
    code = bench_all(args, b);
    if (b->json) printf("], \"peak_rss_mb\": %.1f}\n", peak_rss_mb());
    else printf("peak memory %.1f MB\n", peak_rss_mb());
    return code == EXIT_FINE && cli_flag(args, "profile") && !b->json ? print_profile(b) : code;
}

static int run(const cli_args *args)
{
    if (args->n_positional != 1) return cli_usage_error("bench needs a model");
    const char *path = args->positional[0], *vs = cli_string(args, "vs", NULL);
    sdx_run_options run_options = cli_run_options(args);
    sdx_error err = {0};
    sdx_program *program;
    bench b = {.threads = run_options.threads ? run_options.threads : sdx_default_threads(),
               .json = cli_flag(args, "json")};
    double start = cli_now();
    if (sdx_program_open(path, &run_options, &program, &err) != SDX_OK) return cli_fail(&err);
    int code = sdx_session_create(program, &b.session, &err) == SDX_OK ? EXIT_FINE : cli_fail(&err);
    const double load_ms = 1e3 * (cli_now() - start);
    b.program = program;
    b.model = sdx_program_model(program);
    if (code == EXIT_FINE && vs) code = cli_rival_start(vs, path, b.threads, &b.rival);
    if (code == EXIT_FINE) code = bench_program(args, &b, path, load_ms);
    cli_rival_stop(b.rival);
    sdx_session_free(b.session);
    sdx_program_free(program);
    return code;
}

const cli_command cli_command_bench = {
    "bench", "MODEL [--shape BxS...] [--lengths A,B,...] [--threads N] [--vs ort]",
    "time a model on random token ids", "sardonyx bench models/bert.onnx --shape 1x32 1x128 8x128 --threads 2", options, run, 1};
