/* cmd_transcribe.c: speech to text, one line a file. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

static const cli_option options[] = {
    {"model_name", CLI_STRING, "X", "checkpoint folder or cached name"},
    {"model_path", CLI_STRING, "M", "the .onnx file, when it is not in that folder"},
    {"tokenizer", CLI_STRING, "T", "folder with vocab.json and preprocessor_config.json"},
    {"output", CLI_STRING, "FILE", "lines (default: stdout)"},
    {NULL, CLI_FLAG, NULL, NULL},
};

static int write_text(const cli_args *args, FILE *f, const char *path, char *text, size_t length)
{
    if (!cli_flag(args, "json")) {
        fprintf(f, "%s\n", text);
        return EXIT_FINE;
    }
    json_t *line = json_pack("{s:s, s:s%}", "file", path, "text", text, length);
    char *dump = line ? json_dumps(line, JSON_COMPACT) : NULL;
    json_decref(line);
    if (!dump) return cli_usage_error("%s: its name is not UTF-8", path);
    fprintf(f, "%s\n", dump);
    free(dump);
    return EXIT_FINE;
}

static int transcribe_samples(const cli_args *args, sdx_transcriber *t, FILE *f, const char *path,
                              const float *samples, size_t count, int rate)
{
    sdx_error err = {0};
    char *text;
    size_t length;
    if (sdx_transcriber_run(t, samples, count, rate, &text, &length, &err) != SDX_OK) return cli_fail(&err);
    int code = write_text(args, f, path, text, length);
    free(text);
    return code;
}

/* float32[n] or [rows, n]: the model's input_values, a line a row. */
static int transcribe_npy(const cli_args *args, sdx_transcriber *t, FILE *f, const char *path)
{
    sdx_error err = {0};
    sdx_tensor values;
    if (sdx_tensor_read_npy(path, &values, &err) != SDX_OK) return cli_fail(&err);
    int code = EXIT_FINE;
    if (values.dtype != SDX_F32 || values.rank < 1 || values.rank > 2) {
        code = cli_usage_error("%s: not float32 of one or two dimensions", path);
    } else {
        size_t n = (size_t)values.dim[values.rank - 1], rows = values.rank == 2 ? (size_t)values.dim[0] : 1;
        for (size_t r = 0; r < rows && code == EXIT_FINE; r++)
            code = transcribe_samples(args, t, f, path, (const float *)values.data + r * n, n, 0);
    }
    sdx_tensor_free(&values);
    return code;
}

static int transcribe_file(const cli_args *args, sdx_transcriber *t, FILE *f, const char *path)
{
    size_t length = strlen(path), count;
    if (length > 4 && !strcmp(path + length - 4, ".npy")) return transcribe_npy(args, t, f, path);
    sdx_error err = {0};
    float *samples;
    int rate;
    if (sdx_audio_read_wav(path, &samples, &count, &rate, &err) != SDX_OK) return cli_fail(&err);
    int code = transcribe_samples(args, t, f, path, samples, count, rate);
    free(samples);
    return code;
}

static int transcribe_all(const cli_args *args, sdx_transcriber *t)
{
    cli_output out;
    int code = cli_output_open(&out, cli_string(args, "output", NULL));
    if (code != EXIT_FINE) return code;
    for (size_t i = 0; i < args->n_positional && code == EXIT_FINE; i++)
        code = transcribe_file(args, t, out.file, args->positional[i]);
    int closed = cli_output_close(&out, code == EXIT_FINE);
    return code == EXIT_FINE ? closed : code;
}

static int run(const cli_args *args)
{
    sdx_task_options o;
    char *folder = NULL;
    if (!args->n_positional) return cli_usage_error("transcribe needs a WAV file");
    int code = cli_task_options(args, 0, &o, &folder);
    if (code != EXIT_FINE) return code;
    sdx_error err = {0};
    sdx_transcriber *t;
    if (sdx_transcriber_open(&o, &t, &err) == SDX_OK) {
        code = transcribe_all(args, t);
        sdx_transcriber_free(t);
    } else {
        code = cli_fail(&err);
    }
    free(folder);
    return code;
}

const cli_command cli_command_transcribe = {
    "transcribe",
    "--model_name X | --model_path M --tokenizer T [options] FILE.wav...",
    "turn speech into text with a CTC model such as wav2vec 2.0\n\nWAV files of any rate, one line each. A "
    ".npy file holds "
    "input_values, which are taken as they are, a line a row.",
    "sardonyx transcribe --model_name ./wav2vec2-base-960h speech.wav",
    options,
    run};
