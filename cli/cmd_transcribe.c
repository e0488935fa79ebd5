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
    {"num_beams", CLI_INT, "N", "prefix beam search (default: 1, the best token of each frame)"},
    {"timestamps", CLI_STRING, "word|char", "when each word or character was said, in seconds"},
    {"chunk_length_s", CLI_REAL, "S", "longer sounds run in windows of S seconds (default: 30; 0: whole)"},
    {"stride_length_s", CLI_REAL, "S", "context on each side of a window (default: a sixth of it)"},
    {NULL, CLI_FLAG, NULL, NULL},
};

static json_t *timed_list(const sdx_timed_text *item, size_t n)
{
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(
            list, json_pack("{s:s, s:[f,f]}", "text", item[i].text, "timestamp", item[i].start, item[i].end));
    return list;
}

static int write_json(FILE *f, const char *path, const sdx_transcript *t, const char *timestamps)
{
    json_t *line = json_pack("{s:s, s:s%}", "file", path, "text", t->text, t->length);
    if (line && timestamps)
        json_object_set_new(line, "chunks", *timestamps == 'w' ? timed_list(t->word, t->words)
                                                               : timed_list(t->character, t->characters));
    char *dump = line ? json_dumps(line, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(line);
    if (!dump) return cli_usage_error("%s: its name is not UTF-8", path);
    fprintf(f, "%s\n", dump);
    free(dump);
    return EXIT_FINE;
}

static void write_text(FILE *f, const sdx_transcript *t, const char *timestamps)
{
    bool words = timestamps && *timestamps == 'w';
    const sdx_timed_text *item = words ? t->word : t->character;
    fprintf(f, "%s\n", t->text);
    for (size_t i = 0; timestamps && i < (words ? t->words : t->characters); i++)
        fprintf(f, "%.2f\t%.2f\t%s\n", item[i].start, item[i].end, item[i].text);
}

static int transcribe_samples(const cli_args *args, sdx_transcriber *t, FILE *f, const char *path,
                              const float *samples, size_t count, int rate)
{
    sdx_error err = {0};
    sdx_transcript said;
    const char *timestamps = cli_string(args, "timestamps", NULL);
    sdx_transcribe_options o = {.num_beams = (size_t)cli_int(args, "num_beams", 1)};
    double chunk = cli_real(args, "chunk_length_s", 30);
    o.chunk_seconds = chunk > 0 ? chunk : -1;
    o.stride_seconds = cli_real(args, "stride_length_s", 0);
    if (sdx_transcriber_run(t, &o, samples, count, rate, &said, &err) != SDX_OK) return cli_fail(&err);
    int code = EXIT_FINE;
    if (cli_flag(args, "json")) code = write_json(f, path, &said, timestamps);
    else write_text(f, &said, timestamps);
    sdx_transcript_free(&said);
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
    if (sdx_audio_read(path, &samples, &count, &rate, &err) != SDX_OK) return cli_fail(&err);
    int code = transcribe_samples(args, t, f, path, samples, count, rate);
    free(samples);
    return code;
}

static int transcribe_all(const cli_args *args, sdx_transcriber *t)
{
    cli_output out;
    int code = cli_check_output(args);
    if (code == EXIT_FINE) code = cli_output_open(&out, cli_string(args, "output", NULL));
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
    const char *timestamps = cli_string(args, "timestamps", "word");
    if (!args->n_positional) return cli_usage_error("transcribe needs a sound file");
    if (strcmp(timestamps, "word") && strcmp(timestamps, "char"))
        return cli_usage_error("--timestamps is word or char, not \"%s\"", timestamps);
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
    "--model_name X | --model_path M --tokenizer T [options] FILE...",
    "turn speech into text with a CTC model such as wav2vec 2.0\n\nSound files (WAV, FLAC, Ogg) of any rate, one line each. A "
    ".npy file holds input_values, which are taken\nas they are, a line a row. With --timestamps: lines of start, end and text "
    "follow, or \"chunks\" with --json.",
    "sardonyx transcribe --model_name ./wav2vec2-base-960h --timestamps word speech.flac",
    options,
    run, CLI_MAX_POSITIONAL};
