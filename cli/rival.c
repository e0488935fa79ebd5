/* rival.c: another engine in a process of its own, for `bench --vs`: a Python interpreter that runs ONNX Runtime on the
 * same file and the same inputs, when asked. Its threads go on spinning for a moment after a run, and ours would wait
 * for them, so who runs next rests first, and runs twice if it is quick: the second run finds its weights warm. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"

extern char **environ;

/* argv: file, threads. "input NAME DTYPE DIMS..." and the bytes keep an input, "run" prints milliseconds. */
static const char ort_program[] =
    "import sys, time\n"
    "try:\n"
    "    import numpy, onnxruntime\n"
    "    options = onnxruntime.SessionOptions()\n"
    "    options.intra_op_num_threads = int(sys.argv[2])\n"
    "    options.log_severity_level = 3\n"
    "    session = onnxruntime.InferenceSession(sys.argv[1], options, providers=['CPUExecutionProvider'])\n"
    "except Exception as e:\n"
    "    print('failed', ' '.join(str(e).split())[:400], flush=True)\n"
    "    sys.exit(1)\n"
    "print('ready', onnxruntime.__version__, flush=True)\n"
    "feed = {}\n"
    "for line in sys.stdin.buffer:\n"
    "    words = line.decode().split()\n"
    "    if words[0] == 'input':\n"
    "        shape = [int(d) for d in words[3:]]\n"
    "        dtype = numpy.dtype(words[2])\n"
    "        count = int(numpy.prod(shape, dtype=numpy.int64))\n"
    "        data = sys.stdin.buffer.read(count * dtype.itemsize)\n"
    "        feed[words[1]] = numpy.frombuffer(data, dtype).reshape(shape)\n"
    "        continue\n"
    "    start = time.perf_counter()\n"
    "    try:\n"
    "        session.run(None, feed)\n"
    "        print(1e3 * (time.perf_counter() - start), flush=True)\n"
    "    except Exception as e:\n"
    "        print('failed', ' '.join(str(e).split())[:400], flush=True)\n"
    "        sys.exit(1)\n";

enum { MAX_LINE = 512 };

struct cli_rival {
    pid_t pid;
    FILE *to, *from;
    char version[64];
};

/* One line of its answer; a word of its own about what failed becomes ours. */
static int read_answer(cli_rival *r, char line[MAX_LINE])
{
    if (!fgets(line, MAX_LINE, r->from)) return cli_usage_error("--vs ort: the other engine ended without a word");
    line[strcspn(line, "\n")] = 0;
    return strncmp(line, "failed ", 7) ? EXIT_FINE : cli_usage_error("--vs ort: %s", line + 7);
}

/* A child that reads what we write to `to`. */
static int spawn(const char *python, char *const arguments[], cli_rival *r)
{
    int down[2], up[2];
    if (pipe(down) || pipe(up)) return cli_usage_error("--vs ort: %s", strerror(errno));
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, down[0], 0);
    posix_spawn_file_actions_adddup2(&actions, up[1], 1);
    for (int i = 0; i < 2; i++) {
        posix_spawn_file_actions_addclose(&actions, down[i]);
        posix_spawn_file_actions_addclose(&actions, up[i]);
    }
    int why = posix_spawnp(&r->pid, python, &actions, NULL, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (why) r->pid = 0;
    close(down[0]);
    close(up[1]);
    r->to = fdopen(down[1], "wb");
    r->from = fdopen(up[0], "r");
    if (!why && r->to && r->from) return EXIT_FINE;
    return cli_usage_error("--vs ort runs %s with the package onnxruntime (SARDONYX_PYTHON names another): %s", python,
                           strerror(why ? why : errno));
}

int cli_rival_start(const char *engine, const char *model, int threads, cli_rival **out)
{
    if (strcmp(engine, "ort")) return cli_usage_error("--vs knows ort (ONNX Runtime), not \"%s\"", engine);
    const char *python = getenv("SARDONYX_PYTHON");
    if (!python) python = "python3";
    char count[16], line[MAX_LINE];
    snprintf(count, sizeof count, "%d", threads);
    char *const arguments[] = {(char *)python, "-c", (char *)ort_program, (char *)model, count, NULL};
    cli_rival *r = calloc(1, sizeof *r);
    if (!r) return cli_usage_error("out of memory");
    *out = r;
    signal(SIGPIPE, SIG_IGN); /* should it end, reading tells */
    int code = spawn(python, arguments, r);
    if (code == EXIT_FINE) code = read_answer(r, line);
    if (code == EXIT_FINE) snprintf(r->version, sizeof r->version, "%.63s", line + strlen("ready "));
    return code;
}

const char *cli_rival_version(const cli_rival *r) { return r->version; }

int cli_rival_feed(cli_rival *r, const char *name, const sdx_tensor *t)
{
    fprintf(r->to, "input %s %s", name, sdx_dtype_name(t->dtype));
    for (int i = 0; i < t->rank; i++) fprintf(r->to, " %" PRId64, t->dim[i]);
    fputc('\n', r->to);
    fwrite(t->data, 1, sdx_tensor_bytes(t), r->to);
    return ferror(r->to) ? cli_usage_error("--vs ort: the other engine does not listen") : EXIT_FINE;
}

int cli_rival_run(cli_rival *r, double *ms)
{
    char line[MAX_LINE];
    fputs("run\n", r->to);
    fflush(r->to);
    int code = read_answer(r, line);
    if (code == EXIT_FINE) *ms = strtod(line, NULL);
    return code;
}

void cli_rival_stop(cli_rival *r)
{
    if (!r) return;
    if (r->to) fclose(r->to);
    if (r->from) fclose(r->from);
    if (r->pid > 0) waitpid(r->pid, NULL, 0);
    free(r);
}
