/* cmd_run.c: run a model on .npy files, or on a text. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

static const cli_option options[] = {
    {"input", CLI_REST, "NAME=FILE.npy...", "the model's inputs"},
    {"output_dir", CLI_STRING, "DIR", "write each output as DIR/NAME.npy"},
    {"profile", CLI_FLAG, NULL, "print the time per operator"},
    {"max_steps", CLI_INT, "N", "end a run that takes more operators than this (default: 100 million)"},
    {"no_optimize", CLI_FLAG, NULL, "run the graph as the file spells it"},
    {"skip_padding", CLI_FLAG, NULL, "outputs are 0 where the attention mask is, and cost nothing there"},
    {"model_path", CLI_STRING, "MODEL", "the model, when a text is given"},
    {"model_name", CLI_STRING, "TOK", "tokenizer: folder, or a name of the Hugging Face hub"},
    {"text", CLI_STRING, "TEXT", "run on this text"},
    {"threshold", CLI_REAL, "T", "with --text: count values up to T as zero (default: 0.01)"},
    {NULL, CLI_FLAG, NULL, NULL},
};

enum { MAX_PORTS = 64 };

typedef struct bound_inputs {
    char *name[MAX_PORTS];        /* owned */
    sdx_tensor tensor[MAX_PORTS]; /* owned data */
    size_t count;
} bound_inputs;

static void free_inputs(bound_inputs *in)
{
    for (size_t i = 0; i < in->count; i++) {
        free(in->name[i]);
        sdx_tensor_free(&in->tensor[i]);
    }
}

/* NAME=FILE.npy for each --input */
static int read_inputs(const cli_args *args, bound_inputs *in)
{
    const char *given;
    for (size_t i = 0; (given = cli_nth(args, "input", i)); i++) {
        const char *equals = strchr(given, '=');
        if (!equals || equals == given) return cli_usage_error("--input takes NAME=FILE.npy, not \"%s\"", given);
        if (in->count == MAX_PORTS) return cli_usage_error("too many inputs");
        sdx_error err = {0};
        if (sdx_tensor_read_npy(equals + 1, &in->tensor[in->count], &err) != SDX_OK) return cli_fail(&err);
        in->name[in->count] = strdup(given);
        if (!in->name[in->count]) return cli_out_of_memory();
        in->name[in->count++][equals - given] = 0;
    }
    return EXIT_FINE;
}

/* One input from a text, [1, tokens]: its ids, ones for the mask, segment ids for any other. */
static int bind_tokens(const sdx_port *port, const sdx_encoding *e, bound_inputs *in)
{
    if (port->dtype != SDX_I64 && port->dtype != SDX_I32)
        return cli_usage_error("--text gives token ids, but input \"%s\" is %s: use --input", port->name,
                               sdx_dtype_name(port->dtype));
    if (in->count == MAX_PORTS) return cli_usage_error("the model has more than %d inputs", MAX_PORTS);
    int64_t *data = malloc((e->count + 1) * sizeof *data);
    char *name = strdup(port->name);
    if (!data || !name) {
        free(data);
        free(name);
        return cli_out_of_memory();
    }
    bool ids = !strcmp(name, "input_ids"), mask = !strcmp(name, "attention_mask");
    for (size_t t = 0; t < e->count; t++) data[t] = ids ? e->ids[t] : mask ? 1 : e->type_ids[t];
    if (port->dtype == SDX_I32)
        for (size_t t = 0; t < e->count; t++) ((int32_t *)data)[t] = (int32_t)data[t];
    in->name[in->count] = name;
    in->tensor[in->count++] = (sdx_tensor){port->dtype, 2, {1, (int64_t)e->count}, data};
    return EXIT_FINE;
}

static int tokenize_inputs(const cli_args *args, const sdx_model *model, bound_inputs *in)
{
    const char *text = cli_string(args, "text", NULL), *name = cli_string(args, "model_name", NULL);
    if (!name) return cli_usage_error("run --text needs --model_name for the tokenizer");
    sdx_tokenizer *tok;
    int code = cli_open_tokenizer(args, name, &tok);
    if (code != EXIT_FINE) return code;
    sdx_error err = {0};
    sdx_encoding e;
    sdx_status status = sdx_tokenizer_encode(tok, text, strlen(text), NULL, 0, 512, &e, &err);
    sdx_tokenizer_free(tok);
    if (status != SDX_OK) return cli_fail(&err);
    for (size_t i = 0; i < sdx_model_input_count(model) && code == EXIT_FINE; i++) {
        sdx_port port = sdx_model_input(model, i);
        if (!port.has_default) code = bind_tokens(&port, &e, in);
    }
    sdx_encoding_free(&e);
    return code;
}

/* ---- results -------------------------------------------------------------------------------------------- */

static void print_shape(const char *name, const sdx_tensor *t)
{
    printf("%s: %s[", name, sdx_dtype_name(t->dtype));
    for (int d = 0; d < t->rank; d++) printf("%s%lld", d ? "," : "", (long long)t->dim[d]);
    printf("]");
}

static bool is_float(const sdx_tensor *t)
{
    return t->dtype == SDX_F32 || t->dtype == SDX_F64 || t->dtype == SDX_F16 || t->dtype == SDX_BF16;
}

/* Floats up to the threshold count as zero, as they do in an index of sparse vectors. */
static int64_t count_nonzero(const sdx_tensor *t, double threshold)
{
    int64_t n = 0;
    for (int64_t i = 0; i < sdx_tensor_count(t); i++)
        n += fabs(sdx_tensor_get_f64(t, i)) > (is_float(t) ? threshold : 0);
    return n;
}

/* As text and as JSON, which has no word for infinity. */
static void print_values(const sdx_tensor *t, bool json)
{
    for (int64_t i = 0; i < sdx_tensor_count(t); i++) {
        double value = sdx_tensor_get_f64(t, i);
        fputs(i ? ", " : "[", stdout);
        if (json && !isfinite(value)) fputs("null", stdout);
        else printf(is_float(t) ? "%.*g" : "%.*f", !is_float(t) ? 0 : json ? 9 : 6, value);
    }
    fputs(sdx_tensor_count(t) ? "]" : "[]", stdout);
}

static void print_tensor(const char *name, const sdx_tensor *t, double threshold)
{
    print_shape(name, t);
    printf(" non-zero: %lld\n", (long long)count_nonzero(t, threshold));
    print_values(t, false);
    fputc('\n', stdout);
}

static void print_tensor_json(const char *name, const sdx_tensor *t, bool values, double threshold)
{
    fputs("{\"name\": ", stdout);
    cli_json_string(stdout, name, strlen(name));
    printf(", \"dtype\": \"%s\", \"shape\": [", sdx_dtype_name(t->dtype));
    for (int d = 0; d < t->rank; d++) printf("%s%lld", d ? ", " : "", (long long)t->dim[d]);
    fputs("]", stdout);
    if (values) {
        printf(", \"non_zero\": %lld, \"values\": ", (long long)count_nonzero(t, threshold));
        print_values(t, true);
    }
    fputs("}", stdout);
}

/* DIR/NAME.npy, with what a path cannot hold replaced. */
static int write_output(const char *dir, const char *name, const sdx_tensor *t)
{
    char file[256];
    snprintf(file, sizeof file, "%s", name);
    for (char *c = file; *c; c++)
        if (*c == '/') *c = '_';
    char *path = cli_join(dir, file, ".npy");
    if (!path) return cli_out_of_memory();
    sdx_error err = {0};
    sdx_status status = sdx_tensor_write_npy(path, t, &err);
    free(path);
    return status == SDX_OK ? EXIT_FINE : cli_fail(&err);
}

/* Of a text the values too; of files, which may be large, the shapes. */
static void print_outputs(const cli_args *args, const sdx_model *model, const sdx_tensor *outputs)
{
    bool text = cli_string(args, "text", NULL) != NULL, json = cli_flag(args, "json");
    double threshold = cli_real(args, "threshold", 0.01);
    if (json) fputs("{\"outputs\": [", stdout);
    for (size_t i = 0; i < sdx_model_output_count(model); i++) {
        const char *name = sdx_model_output(model, i).name;
        if (json) {
            fputs(i ? ", " : "", stdout);
            print_tensor_json(name, &outputs[i], text, threshold);
        } else if (text) {
            print_tensor(name, &outputs[i], threshold);
        } else if (!cli_flag(args, "quiet")) {
            print_shape(name, &outputs[i]);
            fputc('\n', stdout);
        }
    }
    if (json) fputs("]", stdout);
}

static int write_outputs(const char *dir, const sdx_model *model, const sdx_tensor *outputs)
{
    int code = cli_make_directory(dir);
    for (size_t i = 0; i < sdx_model_output_count(model) && code == EXIT_FINE; i++)
        code = write_output(dir, sdx_model_output(model, i).name, &outputs[i]);
    return code;
}

static int run_session(const cli_args *args, const sdx_model *model, sdx_session *session,
                       const bound_inputs *in)
{
    sdx_tensor outputs[MAX_PORTS];
    size_t n = sdx_model_output_count(model);
    if (n > MAX_PORTS) return cli_usage_error("the model has more than %d outputs", MAX_PORTS);
    sdx_error err = {0};
    if (sdx_session_run(session, in->count, (const char *const *)in->name, in->tensor, n, outputs, &err) != SDX_OK)
        return cli_fail(&err);
    const char *dir = cli_string(args, "output_dir", NULL);
    int code = dir ? write_outputs(dir, model, outputs) : EXIT_FINE;
    if (code != EXIT_FINE) return code;
    char *profile = NULL;
    if (cli_flag(args, "profile") && sdx_session_profile(session, &profile, &err) != SDX_OK) return cli_fail(&err);
    print_outputs(args, model, outputs);
    if (cli_flag(args, "json")) {
        if (profile) fputs(", \"profile\": ", stdout);
        if (profile) cli_json_string(stdout, profile, strlen(profile));
        fputs("}\n", stdout);
    } else if (profile) {
        fputs(profile, stdout);
    }
    free(profile);
    return EXIT_FINE;
}

static int run(const cli_args *args)
{
    const char *path = cli_string(args, "model_path", args->n_positional ? args->positional[0] : NULL);
    if (!path) return cli_usage_error("run needs a model");
    sdx_run_options options_run = cli_run_options(args);
    sdx_error err = {0};
    sdx_program *program;
    if (sdx_program_open(path, &options_run, &program, &err) != SDX_OK) return cli_fail(&err);
    cli_warn(sdx_program_model(program));
    const sdx_model *model = sdx_program_model(program);
    bound_inputs in = {.count = 0};
    int code = cli_string(args, "text", NULL) ? tokenize_inputs(args, model, &in) : read_inputs(args, &in);
    sdx_session *session = NULL;
    if (code == EXIT_FINE && sdx_session_create(program, &session, &err) != SDX_OK) code = cli_fail(&err);
    if (code == EXIT_FINE) code = run_session(args, model, session, &in);
    free_inputs(&in);
    sdx_session_free(session);
    sdx_program_free(program);
    return code;
}

const cli_command cli_command_run = {
    "run", "MODEL --input NAME=FILE.npy... [--output_dir DIR]\n       sardonyx run --model_path MODEL --model_name TOK --text TEXT",
    "run a model on .npy files or on a text",
    "sardonyx run bert.onnx --input input_ids=ids.npy attention_mask=mask.npy --output_dir out", options, run, 1};
