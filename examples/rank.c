/* rank.c: semantic search in one file. Embeds a handful of sentences with each model given, ranks them for a query
 * and shows sizes, times and similarities side by side.
 *
 *   rank TOKENIZER_FOLDER QUERY MODEL.onnx [MODEL.onnx ...]
 */
#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include <sardonyx.h>

static const char *const sentences[] = {
    "The cat sleeps on the warm windowsill.",
    "A recipe for bread needs flour, water, salt and yeast.",
    "Neural retrieval models turn text into sparse vectors.",
    "The train to Hamburg leaves at half past seven.",
    "Quantization makes a network smaller and faster.",
    "Photosynthesis converts light into chemical energy.",
    "An inverted index maps each term to the documents that contain it.",
    "The orchestra tuned its instruments before the concert.",
    "Interest rates rose by a quarter of a point.",
    "Search engines rank documents by how well they answer a query.",
    "She planted tomatoes and basil in the garden.",
    "A transformer attends to all tokens of a sentence at once.",
};
enum { N = sizeof sentences / sizeof *sentences, MAX_MODELS = 8, REPEATS = 20 };

typedef struct result {
    const char *model;
    double megabytes, load_ms, query_ms;
    float score[N]; /* cosine of the query and each sentence */
    float *vectors; /* [N + 1, dim], the query last; owned */
    size_t dim;
} result;

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static double cosine(const float *a, const float *b, size_t dim)
{
    double dot = 0, aa = 0, bb = 0;
    for (size_t i = 0; i < dim; i++) {
        dot += (double)a[i] * b[i];
        aa += (double)a[i] * a[i];
        bb += (double)b[i] * b[i];
    }
    return dot / sqrt(aa * bb + 1e-300);
}

static int by_time(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Median time of embedding the query alone. */
static sdx_status time_query(sdx_embedder *e, result *r, const sdx_text *query, float *scratch, sdx_error *err)
{
    double ms[REPEATS];
    for (int i = 0; i < REPEATS; i++) {
        double start = now_ms();
        sdx_status status = sdx_embedder_run(e, query, 1, scratch, err);
        if (status != SDX_OK) return status;
        ms[i] = now_ms() - start;
    }
    qsort(ms, REPEATS, sizeof *ms, by_time);
    r->query_ms = ms[REPEATS / 2];
    return SDX_OK;
}

static sdx_status embed_with(const char *model, const char *tokenizer, const char *query, result *r, sdx_error *err)
{
    struct stat st;
    sdx_task_options options = {.model = model, .tokenizer = tokenizer};
    sdx_embedder *e;
    double start = now_ms();
    sdx_status status = sdx_embedder_open(&options, &e, err);
    if (status != SDX_OK) return status;
    r->model = model;
    r->load_ms = now_ms() - start;
    r->megabytes = stat(model, &st) ? 0 : (double)st.st_size / 1e6;
    r->dim = sdx_embedder_dim(e);
    r->vectors = malloc((N + 1) * r->dim * sizeof *r->vectors);
    sdx_text texts[N + 1];
    for (int i = 0; i < N; i++) texts[i] = (sdx_text){sentences[i], strlen(sentences[i])};
    texts[N] = (sdx_text){query, strlen(query)};
    if (!r->vectors) status = SDX_ERR_MEMORY;
    else status = sdx_embedder_run(e, texts, N + 1, r->vectors, err);
    const float *q = r->vectors + N * r->dim;
    for (int i = 0; i < N && status == SDX_OK; i++)
        r->score[i] = (float)cosine(q, r->vectors + (size_t)i * r->dim, r->dim);
    if (status == SDX_OK) status = time_query(e, r, &texts[N], r->vectors + N * r->dim, err);
    sdx_embedder_free(e);
    return status;
}

/* The sentence at each place of a result's ranking. */
static void rank(const result *r, int order[N])
{
    for (int i = 0; i < N; i++) {
        int at = i;
        for (; at > 0 && r->score[i] > r->score[order[at - 1]]; at--) order[at] = order[at - 1];
        order[at] = i;
    }
}

static void print_table(const result *r, int n, const char *query)
{
    int order[N];
    rank(&r[0], order);
    printf("\nQuery: %s\n\n", query);
    for (int i = 0; i < N; i++) {
        for (int m = 0; m < n; m++) printf("%7.4f ", r[m].score[order[i]]);
        printf(" %s\n", sentences[order[i]]);
    }
    printf("\n%-44s %9s %9s %10s %12s\n", "model", "size", "load", "one query", "like first");
    for (int m = 0; m < n; m++) {
        double same = 0;
        for (int i = 0; i <= N && r[m].dim == r[0].dim; i++)
            same +=
                cosine(r[m].vectors + (size_t)i * r[m].dim, r[0].vectors + (size_t)i * r[0].dim, r[0].dim) / (N + 1);
        const char *slash = strrchr(r[m].model, '/');
        printf("%-44s %6.1f MB %6.0f ms %7.2f ms %12.6f\n", slash ? slash + 1 : r[m].model, r[m].megabytes,
               r[m].load_ms, r[m].query_ms, same);
    }
}

int main(int argc, char **argv)
{
    if (argc < 4 || argc > 3 + MAX_MODELS) {
        fprintf(stderr, "usage: %s TOKENIZER_FOLDER QUERY MODEL.onnx...\n", argv[0]);
        return 2;
    }
    result results[MAX_MODELS] = {{0}};
    sdx_error err = {0};
    int n = argc - 3, code = 0;
    for (int m = 0; m < n && !code; m++)
        if (embed_with(argv[3 + m], argv[1], argv[2], &results[m], &err) != SDX_OK) code = 2;
    if (code) fprintf(stderr, "rank: %s\n", err.message);
    else print_table(results, n, argv[2]);
    for (int m = 0; m < n; m++) free(results[m].vectors);
    return code;
}
