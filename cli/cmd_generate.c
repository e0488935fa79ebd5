/* cmd_generate.c: text from text, one line an answer. */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

static const cli_option options[] = {
    {"model_name", CLI_STRING, "X", "folder with encoder_model.onnx and its decoders, or cached name"},
    {"model_path", CLI_STRING, "M",
     "that folder, or a decoder-only .onnx file, when the tokenizer is elsewhere"},
    {"tokenizer", CLI_STRING, "T", "folder with the tokenizer (default: the model's)"},
    {"input", CLI_STRING, "FILE", "JSON lines with text or contents, or plain lines (default: stdin)"},
    {"output", CLI_STRING, "FILE", "answers (default: stdout)"},
    {"text", CLI_STRING, "TEXT", "one text instead of --input"},
    {"num_beams", CLI_INT, "N", "1: greedy; else beam search"},
    {"max_new_tokens", CLI_INT, "N", "tokens after the prompt at most"},
    {"max_length", CLI_INT, "N", "ids in all at most"},
    {"min_length", CLI_INT, "N", "ids in all at least"},
    {"min_new_tokens", CLI_INT, "N", "tokens after the prompt at least"},
    {"length_penalty", CLI_REAL, "P", "beams: scores are divided by length to this power"},
    {"no_repeat_ngram_size", CLI_INT, "N", "no N tokens stand twice in an answer"},
    {"repetition_penalty", CLI_REAL, "P", "makes tokens that are there already less likely"},
    {"early_stopping", CLI_STRING, "WHEN", "beams: true, false or never"},
    {"num_return_sequences", CLI_INT, "N", "answers to each text: the best beams, or as many draws"},
    {"forced_bos_token_id", CLI_INT, "ID", "first token of the answer: the language, for mBART"},
    {"do_sample", CLI_FLAG, NULL, "draw tokens instead of taking the best"},
    {"temperature", CLI_REAL, "T", "sampling: above 1 more even, below 1 more sure"},
    {"top_k", CLI_INT, "K", "sampling: among the K best; 0: all"},
    {"top_p", CLI_REAL, "P", "sampling: among the best that add up to P"},
    {"seed", CLI_INT, "N", "sampling: the same seed, the same answers (default: 0)"},
    {"batch_size", CLI_INT, "N", "texts that are read and answered together (default: 16)"},
    {"stream", CLI_FLAG, NULL,
     "print answers word by word as they come, of a decoder what is new; one beam only"},
    {NULL, CLI_FLAG, NULL, NULL},
};

/* ---- options --------------------------------------------------------------------------------------------- */

/* A count from the command line over the one there is. */
static int take_size(const cli_args *args, const char *name, size_t *value)
{
    long given = cli_int(args, name, -1);
    if (!cli_string(args, name, NULL)) return EXIT_FINE;
    if (given < 0) return cli_usage_error("--%s is %ld; it cannot be negative", name, given);
    *value = (size_t)given;
    return EXIT_FINE;
}

static int take_early_stopping(const cli_args *args, sdx_early_stopping *value)
{
    static const struct {
        const char *word;
        sdx_early_stopping meaning;
    } words[] = {{"false", SDX_STOP_HEURISTIC}, {"true", SDX_STOP_EARLY}, {"never", SDX_STOP_NEVER}};
    const char *given = cli_string(args, "early_stopping", NULL);
    if (!given) return EXIT_FINE;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strcmp(given, words[i].word)) continue;
        *value = words[i].meaning;
        return EXIT_FINE;
    }
    return cli_usage_error("--early_stopping is true, false or never, not \"%s\"", given);
}

static int take_options(const cli_args *args, sdx_generate_options *o)
{
    const struct {
        const char *name;
        size_t *value;
    } sizes[] = {
        {"num_beams", &o->num_beams},           {"max_new_tokens", &o->max_new_tokens},
        {"max_length", &o->max_length},         {"min_length", &o->min_length},
        {"min_new_tokens", &o->min_new_tokens}, {"no_repeat_ngram_size", &o->no_repeat_ngram_size},
        {"top_k", &o->top_k},                   {"num_return_sequences", &o->num_return_sequences},
    };
    int code = EXIT_FINE;
    if (cli_string(args, "max_length", NULL)) o->max_new_tokens = 0; /* of the folder: it would win */
    if (cli_string(args, "min_length", NULL)) o->min_new_tokens = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes && code == EXIT_FINE; i++)
        code = take_size(args, sizes[i].name, sizes[i].value);
    o->length_penalty = cli_real(args, "length_penalty", o->length_penalty);
    o->repetition_penalty = cli_real(args, "repetition_penalty", o->repetition_penalty);
    o->forced_bos_token_id = cli_int(args, "forced_bos_token_id", o->forced_bos_token_id);
    o->do_sample = o->do_sample || cli_flag(args, "do_sample");
    o->temperature = cli_real(args, "temperature", o->temperature);
    o->top_p = cli_real(args, "top_p", o->top_p);
    o->seed = (uint64_t)cli_int(args, "seed", 0);
    return code == EXIT_FINE ? take_early_stopping(args, &o->early_stopping) : code;
}

/* ---- answers --------------------------------------------------------------------------------------------- */

/* {"id":..,"ids":[..],"text":".."}; id only when the document has one. */
static int write_json(FILE *f, const char *id, const int64_t *ids, size_t n, const char *text, size_t length)
{
    json_t *line = json_object(), *list = json_array();
    for (size_t i = 0; i < n; i++) json_array_append_new(list, json_integer(ids[i]));
    if (id) json_object_set_new(line, "id", json_string(id));
    json_object_set_new(line, "ids", list);
    json_object_set_new(line, "text", json_stringn(text, length));
    char *dump = json_dumps(line, JSON_COMPACT);
    json_decref(line);
    if (!dump) return cli_out_of_memory();
    fprintf(f, "%s\n", dump);
    free(dump);
    return EXIT_FINE;
}

typedef struct job {
    const cli_args *args;
    sdx_generator *g;
    sdx_generate_options options;
    size_t batch; /* texts at a time */
    FILE *f;
} job;

static int write_answer(const job *j, const char *id, const sdx_generated *a)
{
    sdx_error err = {0};
    size_t length;
    char *text;
    if (sdx_tokenizer_decode(sdx_generator_tokenizer(j->g), a->ids, a->count, true, &text, &length, &err) != SDX_OK)
        return cli_fail(&err);
    int code = EXIT_FINE;
    if (cli_flag(j->args, "json"))
        code = write_json(j->f, id, a->ids, a->count, text, length);
    else
        fprintf(j->f, "%s\n", text);
    free(text);
    return code;
}

/* ---- piece by piece -------------------------------------------------------------------------------------- */

typedef struct pieces {
    const job *job;
    int64_t *ids; /* [room] of the answer so far; owned */
    size_t count, room;
    size_t written; /* bytes of its text */
} pieces;

/* Bytes of text[n] that later tokens cannot change: all up to the last blank, since a word may go on and a
 * decoder may take the blank away ("it 's"); or all, after a character of a script that has no blanks (U+3000
 * and on). One that is cut in two decodes to U+FFFD at the end. */
static size_t settled(const char *text, size_t n)
{
    while (n >= 3 && !memcmp(text + n - 3, "\xef\xbf\xbd", 3)) n -= 3;
    size_t lead = n;
    while (lead > 0 && ((unsigned char)text[lead - 1] & 0xc0) == 0x80) lead--;
    if (lead > 0 && (unsigned char)text[lead - 1] >= 0xe3) return n;
    while (n > 0 && text[n - 1] != ' ' && text[n - 1] != '\n') n--;
    return n > 0 && text[n - 1] == ' ' ? n - 1 : n;
}

/* What the text of all tokens so far has more than was written: a token alone may be a part of a character, and
 * whether a space stands before it depends on where it is. */
static bool write_more(pieces *s, bool last)
{
    char *text;
    size_t n;
    const sdx_tokenizer *t = sdx_generator_tokenizer(s->job->g);
    if (sdx_tokenizer_decode(t, s->ids, s->count, true, &text, &n, NULL) != SDX_OK) return false;
    if (!last) n = settled(text, n);
    if (n > s->written) fwrite(text + s->written, 1, n - s->written, s->job->f);
    if (n > s->written) s->written = n;
    free(text);
    return fflush(s->job->f) == 0;
}

static bool take_token(void *context, size_t text, int64_t id)
{
    (void)text; /* there is one */
    pieces *s = context;
    if (s->count == s->room) {
        size_t room = 2 * s->room + 64;
        int64_t *grown = realloc(s->ids, room * sizeof *grown);
        if (!grown) return false;
        s->ids = grown;
        s->room = room;
    }
    s->ids[s->count++] = id;
    return write_more(s, false);
}

static int answer_in_pieces(job *j, const cli_record *doc)
{
    pieces s = {.job = j};
    sdx_error err = {0};
    sdx_generate_options o = j->options;
    sdx_generated out;
    o.on_token = take_token;
    o.context = &s;
    sdx_text text = {doc->text, doc->text_length};
    int code = sdx_generator_run(j->g, &o, &text, 1, &out, &err) == SDX_OK ? EXIT_FINE : cli_fail(&err);
    j->options.first_text++;
    if (code == EXIT_FINE) write_more(&s, true);
    if (s.written || code == EXIT_FINE) fprintf(j->f, "\n");
    free(s.ids);
    return code;
}

/* ---- batches --------------------------------------------------------------------------------------------- */

static int answer(job *j, const cli_record *docs, size_t count)
{
    size_t each = j->options.num_return_sequences;
    sdx_text *texts = calloc(count, sizeof *texts);
    sdx_generated *out = calloc(count * each + 1, sizeof *out);
    sdx_error err = {0};
    int code = texts && out ? EXIT_FINE : cli_out_of_memory();
    for (size_t i = 0; i < count && code == EXIT_FINE; i++)
        texts[i] = (sdx_text){docs[i].text, docs[i].text_length};
    if (code == EXIT_FINE && sdx_generator_run(j->g, &j->options, texts, count, out, &err) != SDX_OK)
        code = cli_fail(&err);
    for (size_t i = 0; i < count * each && code == EXIT_FINE; i++)
        code = write_answer(j, docs[i / each].id, &out[i]);
    j->options.first_text += count;
    if (fflush(j->f) && code == EXIT_FINE) /* now, since the next may take a while */
        code = cli_usage_error("cannot write answers: %s", strerror(errno));
    free(texts);
    free(out);
    return code;
}

static int answer_file(job *j, cli_records *in)
{
    int code = EXIT_FINE;
    cli_record *docs = calloc(j->batch, sizeof *docs);
    if (!docs) return cli_out_of_memory();
    for (size_t n; code == EXIT_FINE && (n = cli_records_window(in, docs, j->batch, &code)) > 0;) {
        if (code == EXIT_FINE)
            code = cli_flag(j->args, "stream") ? answer_in_pieces(j, docs) : answer(j, docs, n);
        for (size_t i = 0; i < n; i++) cli_record_free(&docs[i]);
    }
    free(docs);
    return code;
}

static int make_job(const cli_args *args, sdx_generator *g, job *j)
{
    bool stream = cli_flag(args, "stream");
    long batch = cli_int(args, "batch_size", 16);
    *j = (job){.args = args, .g = g, .options = sdx_generator_defaults(g), .batch = stream ? 1 : (size_t)batch};
    if (batch < 1 || batch > 1 << 16) return cli_usage_error("--batch_size is %ld; it must be 1 to 65536", batch);
    if (stream && cli_flag(args, "json")) return cli_usage_error("--stream prints text; it does not go with --json");
    return take_options(args, &j->options);
}

static int answer_all(const cli_args *args, sdx_generator *g)
{
    const char *text = cli_string(args, "text", NULL);
    cli_records in = {0};
    cli_output out;
    job j;
    int code = make_job(args, g, &j);
    if (code == EXIT_FINE) code = cli_check_output(args);
    if (code == EXIT_FINE && !text) code = cli_records_open(&in, cli_string(args, "input", NULL));
    if (code != EXIT_FINE) return code;
    code = cli_output_open(&out, cli_string(args, "output", NULL));
    if (code == EXIT_FINE) {
        cli_record one = {.text = (char *)text, .text_length = text ? strlen(text) : 0};
        j.f = out.file;
        if (!text)
            code = answer_file(&j, &in);
        else
            code = cli_flag(args, "stream") ? answer_in_pieces(&j, &one) : answer(&j, &one, 1);
        int closed = cli_output_close(&out, code == EXIT_FINE);
        if (code == EXIT_FINE) code = closed;
    }
    cli_records_close(&in);
    return code;
}

static int run(const cli_args *args)
{
    sdx_task_options o;
    char *folder = NULL;
    int code = cli_task_options(args, 0, &o, &folder);
    if (code != EXIT_FINE) return code;
    o.max_length = 0; /* --max_length is of the answer; a text is cut where the tokenizer says */
    sdx_error err = {0};
    sdx_generator *g;
    if (sdx_generator_open(&o, &g, &err) == SDX_OK) {
        code = answer_all(args, g);
        sdx_generator_free(g);
    } else {
        code = cli_fail(&err);
    }
    free(folder);
    return code;
}

const cli_command cli_command_generate = {
    "generate",
    "--model_name X [--tokenizer T] [options]",
    "answer texts with a sequence-to-sequence model, or continue them with a decoder\n\nThe folder holds "
    "encoder_model.onnx, decoder_model.onnx and decoder_with_past_model.onnx (or decoder_model_merged.onnx), "
    "or one\n"
    "decoder-only model.onnx. Options that are not given are generation_config.json's. Ids equal those of "
    "transformers'\ngenerate(), but for what sampling draws: that is our own random generator's.",
    "sardonyx generate --model_name ./t5-small-onnx --text 'translate English to German: A fine day.' "
    "--num_beams 4",
    options,
    run, 0};
