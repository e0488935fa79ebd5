/* cmd_encode.c: texts to sparse (SPLADE) vectors, in the form that an index or a program takes. */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "numpy.h"

static const cli_option options[] = {
    CLI_TASK_OPTIONS,
    {"format", CLI_STRING, "FORMAT", "jsonl (default), anserini, qdrant, elasticsearch, opensearch, vespa, npz"},
    {"compat", CLI_STRING, "WHOM",
     "with anserini: anserini (default) or pyserini, which rounds otherwise and keeps [CLS]"},
    {"threshold", CLI_REAL, "T", "leave out weights up to T (default: 0)"},
    {"top_k", CLI_INT, "K", "only the K heaviest terms, heaviest first"},
    {NULL, CLI_FLAG, NULL, NULL},
};

typedef struct term {
    int64_t index;
    float weight;
} term;

struct job;
typedef struct format {
    const char *name;
    int (*write)(struct job *j, const cli_record *doc, size_t n, FILE *out); /* of the n terms in j->term */
    int (*write_bad)(void *context, const cli_record *doc, const char *error, FILE *out);
    bool (*drops)(const struct job *j, int64_t id); /* terms that never appear; NULL: none */
    cli_finish_fn finish;
} format;

typedef struct job {
    sdx_sparse_encoder *encoder;
    const sdx_tokenizer *tokenizer;
    const format *format;
    bool pyserini;
    double threshold;
    size_t top_k;
    sdx_sparse_vector vector[CLI_WINDOW];
    term *term; /* [room]; owned */
    size_t room;
} job;

/* ---- terms ----------------------------------------------------------------------------------------------- */

static int heavier(const void *a, const void *b)
{
    const term *x = a, *y = b;
    if (x->weight != y->weight) return x->weight < y->weight ? 1 : -1;
    return x->index < y->index ? -1 : x->index > y->index;
}

/* The terms of v that are written, in j->term; their number, or -1. */
static long choose_terms(job *j, const sdx_sparse_vector *v)
{
    if (v->count > j->room) {
        term *bigger = realloc(j->term, v->count * sizeof *bigger);
        if (!bigger) return -1;
        j->term = bigger;
        j->room = v->count;
    }
    size_t n = 0;
    for (size_t i = 0; i < v->count; i++) {
        bool drop = j->format->drops && j->format->drops(j, v->index[i]);
        if (!drop && v->weight[i] > j->threshold && sdx_tokenizer_token(j->tokenizer, v->index[i]))
            j->term[n++] = (term){v->index[i], v->weight[i]};
    }
    if (!j->top_k) return (long)n;
    qsort(j->term, n, sizeof *j->term, heavier);
    return (long)(n < j->top_k ? n : j->top_k);
}

/* Anserini leaves out [CLS], [SEP] and [PAD]; Pyserini does not. */
static bool anserini_drops(const job *j, int64_t id)
{
    return !j->pyserini && sdx_sparse_encoder_is_frame(j->encoder, id);
}

/* OpenSearch's sparse encoders set all special tokens to 0. */
static bool opensearch_drops(const job *j, int64_t id) { return sdx_tokenizer_is_special(j->tokenizer, id); }

/* Anserini: Math.round(w / 5 * 256) in float32, where Java's round is floor(x + 0.5) without a rounding in between.
 * Pyserini: Python's round of the same in double, halves to even. */
static long impact(const job *j, float weight)
{
    if (j->pyserini) return lrint((double)weight / 5 * 256);
    return (long)floor((double)(weight / 5.0f * 256.0f) + 0.5);
}

/* ---- JSON forms ------------------------------------------------------------------------------------------ */

static void put_field(FILE *out, const char *before, const char *s, size_t n)
{
    fputs(before, out);
    cli_json_string(out, s, n);
}

/* {"token":weight,...}; dotless: "." in tokens becomes "__", as Elasticsearch has it, where a dot would name a
 * subfield. */
static void put_weights(const job *j, size_t n, bool dotless, FILE *out)
{
    fputc('{', out);
    for (size_t i = 0; i < n; i++) {
        const char *token = sdx_tokenizer_token(j->tokenizer, j->term[i].index);
        char plain[2 * 256 + 1];
        if (dotless && strchr(token, '.') && strlen(token) < sizeof plain / 2) {
            char *p = plain;
            for (const char *c = token; *c; c++) {
                *p++ = *c == '.' ? '_' : *c;
                if (*c == '.') *p++ = '_';
            }
            *p = 0;
            token = plain;
        }
        put_field(out, i ? "," : "", token, strlen(token));
        fprintf(out, ":%.9g", j->term[i].weight);
    }
    fputc('}', out);
}

static int write_jsonl(job *j, const cli_record *doc, size_t n, FILE *out)
{
    put_field(out, "{\"id\":", doc->id, strlen(doc->id));
    fputs(",\"vector\":", out);
    put_weights(j, n, false, out);
    fputs("}\n", out);
    return EXIT_FINE;
}

static int write_anserini(job *j, const cli_record *doc, size_t n, FILE *out)
{
    put_field(out, "{\"id\":", doc->id, strlen(doc->id));
    put_field(out, ",\"contents\":", doc->text, doc->text_length);
    fputs(",\"vector\":{", out);
    for (size_t i = 0, some = 0; i < n; i++) {
        const char *token = sdx_tokenizer_token(j->tokenizer, j->term[i].index);
        long value = impact(j, j->term[i].weight);
        if (value <= 0) continue;
        put_field(out, some++ ? "," : "", token, strlen(token));
        fprintf(out, ":%ld", value);
    }
    fputs("}}\n", out);
    return EXIT_FINE;
}

/* A document without terms, so that the collection can be indexed all the same. */
static int write_bad_anserini(void *context, const cli_record *doc, const char *error, FILE *out)
{
    (void)context;
    put_field(out, "{\"id\":", doc->id, strlen(doc->id));
    put_field(out, ",\"contents\":\"\",\"vector\":{},\"error\":", error, strlen(error));
    fputs("}\n", out);
    return EXIT_FINE;
}

/* The lines of a _bulk request. */
static int write_bulk(job *j, const cli_record *doc, size_t n, FILE *out)
{
    put_field(out, "{\"index\":{\"_id\":", doc->id, strlen(doc->id));
    put_field(out, "}}\n{\"contents\":", doc->text, doc->text_length);
    fputs(",\"vector\":", out);
    put_weights(j, n, true, out);
    fputs("}\n", out);
    return EXIT_FINE;
}

/* A put operation with a tensor<float>(token{}). */
static int write_vespa(job *j, const cli_record *doc, size_t n, FILE *out)
{
    static const char space[] = "id:docs:doc::";
    char *name = malloc(sizeof space + strlen(doc->id));
    if (!name) return cli_out_of_memory();
    memcpy(name, space, sizeof space);
    strcat(name, doc->id);
    put_field(out, "{\"put\":", name, strlen(name));
    free(name);
    put_field(out, ",\"fields\":{\"id\":", doc->id, strlen(doc->id));
    put_field(out, ",\"contents\":", doc->text, doc->text_length);
    fputs(",\"vector\":{\"cells\":", out);
    put_weights(j, n, false, out);
    fputs("}}}\n", out);
    return EXIT_FINE;
}

/* ---- Qdrant ---------------------------------------------------------------------------------------------- */

static bool is_uuid(const char *s)
{
    for (int i = 0; i < 36; i++)
        if (i == 8 || i == 13 || i == 18 || i == 23 ? s[i] != '-' : !isxdigit((unsigned char)s[i])) return false;
    return !s[36];
}

static bool is_number(const char *s)
{
    size_t n = strspn(s, "0123456789");
    return n > 0 && n < 20 && !s[n] && (n == 1 || *s != '0');
}

/* Qdrant takes whole numbers and UUIDs; of any other id we make a UUID of version 8 (RFC 9562), its bits the id's
 * FNV-1a hash. The id itself is in the payload. */
static void put_point_id(FILE *out, const char *id)
{
    if (is_number(id)) {
        fputs(id, out);
        return;
    }
    if (is_uuid(id)) {
        fprintf(out, "\"%s\"", id);
        return;
    }
    uint64_t h[2] = {0xcbf29ce484222325u, 0x84222325cbf29ce4u};
    for (const char *c = id; *c; c++)
        for (int k = 0; k < 2; k++) h[k] = (h[k] ^ (unsigned char)*c ^ (unsigned)k) * 0x100000001b3u;
    fprintf(out, "\"%08x-%04x-8%03x-%04x-%012llx\"", (unsigned)(h[0] >> 32), (unsigned)(h[0] >> 16 & 0xffff),
            (unsigned)(h[0] & 0xfff), (unsigned)(h[1] >> 48 & 0x3fff) | 0x8000,
            (unsigned long long)(h[1] & 0xffffffffffff));
}

/* A point with the sparse vector "sparse". */
static int write_qdrant(job *j, const cli_record *doc, size_t n, FILE *out)
{
    fputs("{\"id\":", out);
    put_point_id(out, doc->id);
    fputs(",\"vector\":{\"sparse\":{\"indices\":[", out);
    for (size_t i = 0; i < n; i++) fprintf(out, "%s%lld", i ? "," : "", (long long)j->term[i].index);
    fputs("],\"values\":[", out);
    for (size_t i = 0; i < n; i++) fprintf(out, "%s%.9g", i ? "," : "", j->term[i].weight);
    put_field(out, "]}},\"payload\":{\"id\":", doc->id, strlen(doc->id));
    put_field(out, ",\"contents\":", doc->text, doc->text_length);
    fputs("}}\n", out);
    return EXIT_FINE;
}

/* ---- SciPy ----------------------------------------------------------------------------------------------- */

static int by_index(const void *a, const void *b)
{
    const term *x = a, *y = b;
    return x->index < y->index ? -1 : x->index > y->index;
}

static int write_row(job *j, const cli_record *doc, size_t n, FILE *out)
{
    int32_t *index = malloc((n + 1) * sizeof *index);
    float *weight = malloc((n + 1) * sizeof *weight);
    int code = index && weight ? EXIT_FINE : cli_out_of_memory();
    if (j->top_k) qsort(j->term, n, sizeof *j->term, by_index);
    for (size_t i = 0; i < n && code == EXIT_FINE; i++) {
        index[i] = (int32_t)j->term[i].index;
        weight[i] = j->term[i].weight;
    }
    if (code == EXIT_FINE) cli_sparse_row_write(out, doc->id, n, index, weight);
    free(index);
    free(weight);
    return code;
}

static int write_bad_row(void *context, const cli_record *doc, const char *error, FILE *out)
{
    (void)context;
    (void)error;
    cli_sparse_row_write(out, doc->id, 0, NULL, NULL);
    return EXIT_FINE;
}

static int finish_npz(void *context, const char *written, const cli_position *at, const char *path)
{
    const job *j = context;
    return cli_sparse_rows_to_npz(written, at->written, sdx_tokenizer_vocab_size(j->tokenizer), path);
}

/* ---- the command ----------------------------------------------------------------------------------------- */

static const format formats[] = {
    {"jsonl", write_jsonl, cli_write_bad, NULL, NULL},
    {"anserini", write_anserini, write_bad_anserini, anserini_drops, NULL},
    {"qdrant", write_qdrant, NULL, NULL, NULL},
    {"elasticsearch", write_bulk, NULL, NULL, NULL},
    {"opensearch", write_bulk, NULL, opensearch_drops, NULL},
    {"vespa", write_vespa, NULL, NULL, NULL},
    {"npz", write_row, write_bad_row, NULL, finish_npz},
};

static int choose_format(const cli_args *args, job *j)
{
    const char *name = cli_string(args, "format", "jsonl"), *output = cli_string(args, "output", "-");
    const char *compat = cli_string(args, "compat", "anserini");
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (!strcmp(formats[i].name, name)) j->format = &formats[i];
    if (!j->format)
        return cli_usage_error(
            "--format is jsonl, anserini, qdrant, elasticsearch, opensearch, vespa or npz, not \"%s\"", name);
    if (j->format->finish && (!strcmp(output, "-") || cli_ends_with(output, ".gz")))
        return cli_usage_error("--format %s needs --output FILE.%s", name, name);
    j->pyserini = !strcmp(compat, "pyserini");
    if (!j->pyserini && strcmp(compat, "anserini"))
        return cli_usage_error("--compat is anserini or pyserini, not \"%s\"", compat);
    return EXIT_FINE;
}

static sdx_status encode_window(void *context, const cli_record *docs, size_t n, sdx_error *err)
{
    job *j = context;
    sdx_text texts[CLI_WINDOW];
    for (size_t i = 0; i < n; i++) texts[i] = (sdx_text){docs[i].text, docs[i].text_length};
    return sdx_sparse_encoder_run(j->encoder, texts, n, j->vector, err);
}

static int write_document(void *context, const cli_record *doc, size_t i, FILE *out)
{
    job *j = context;
    long n = choose_terms(j, &j->vector[i]);
    return n < 0 ? cli_out_of_memory() : j->format->write(j, doc, (size_t)n, out);
}

static int encode(const cli_args *args, const sdx_task_options *o, job *j)
{
    sdx_error err = {0};
    int code = choose_format(args, j);
    if (code != EXIT_FINE) return code;
    j->threshold = cli_real(args, "threshold", 0);
    j->top_k = (size_t)cli_int(args, "top_k", 0);
    if (sdx_sparse_encoder_open(o, &j->encoder, &err) != SDX_OK) return cli_fail(&err);
    j->tokenizer = sdx_sparse_encoder_tokenizer(j->encoder);
    cli_task task = {.context = j, .run = encode_window, .write = write_document};
    task.write_bad = j->format->write_bad;
    task.finish = j->format->finish;
    code = cli_documents(args, &task);
    sdx_sparse_encoder_free(j->encoder);
    return code;
}

static int run(const cli_args *args)
{
    sdx_task_options o;
    char *folder = NULL;
    int code = cli_task_options(args, 256, &o, &folder);
    if (code != EXIT_FINE) return code;
    job *j = calloc(1, sizeof *j);
    code = j ? encode(args, &o, j) : cli_out_of_memory();
    if (j) free(j->term);
    free(j);
    free(folder);
    return code;
}

const cli_command cli_command_encode = {
    "encode", "--model_name X | --model_path M --tokenizer T [options]",
    "turn texts into sparse (SPLADE) vectors\n\n"
    "jsonl           {\"id\", \"vector\": {token: weight}}\n"
    "anserini        {\"id\", \"contents\", \"vector\": {token: impact}} for a JsonVectorCollection; no [CLS], [SEP], [PAD]\n"
    "qdrant          points with the sparse vector \"sparse\"\n"
    "elasticsearch   lines of a _bulk request: fields contents and vector (sparse_vector)\n"
    "opensearch      the same without special tokens (rank_features)\n"
    "vespa           put operations on a document type doc with fields id, contents, vector (tensor<float>(t{}))\n"
    "npz             a CSR matrix for scipy.sparse.load_npz, with an array of ids beside it\n\n"
    "A line that holds no document becomes a record with \"error\" (jsonl, anserini) or an empty row (npz), or is left out;\n"
    "the run goes on and ends with exit code 1.",
    "sardonyx encode --model_name ./splade --input docs.jsonl.gz --output impacts.jsonl --format anserini --resume", options,
    run, 0};
