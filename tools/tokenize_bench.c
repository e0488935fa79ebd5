/* tokenize_bench.c: tokenize_bench TOKENIZER [TEXTS RUNS]
 *
 * Times opening a tokenizer and, on one thread, encoding every line of a file; the best of several runs. Prints
 * one JSON object. bench/tokenizer.py compares. */
#define _GNU_SOURCE /* getline */
#include <stdio.h>
#include <stdlib.h>

#include "../base/clock.h"
#include "../include/sardonyx.h"

enum { OPEN_RUNS = 5 };

typedef struct line_list {
    char **line;   /* [count]; owned, each too */
    size_t *bytes; /* [count] */
    size_t count;
} line_list;

static int fail(const char *message)
{
    fprintf(stderr, "tokenize_bench: %s\n", message);
    return 1;
}

static bool read_lines(const char *path, line_list *list)
{
    FILE *file = fopen(path, "rb");
    char *line = NULL;
    size_t room = 0, capacity = 0;
    if (!file) return false;
    for (ssize_t n; (n = getline(&line, &capacity, file)) >= 0; line = NULL, capacity = 0) {
        if (list->count == room) {
            room = room ? 2 * room : 1024;
            list->line = realloc(list->line, room * sizeof *list->line);
            list->bytes = realloc(list->bytes, room * sizeof *list->bytes);
            if (!list->line || !list->bytes) return false;
        }
        list->line[list->count] = line;
        list->bytes[list->count++] = (size_t)n - (n && line[n - 1] == '\n');
    }
    free(line);
    fclose(file);
    return true;
}

static void free_lines(line_list *list)
{
    for (size_t i = 0; i < list->count; i++) free(list->line[i]);
    free(list->line);
    free(list->bytes);
}

/* Encodes all lines once; returns the number of tokens, 0 on failure. */
static size_t encode_all(const sdx_tokenizer *t, const line_list *list)
{
    size_t tokens = 0;
    for (size_t i = 0; i < list->count; i++) {
        sdx_encoding e;
        if (sdx_tokenizer_encode(t, list->line[i], list->bytes[i], NULL, 0, 0, &e, NULL) != SDX_OK) return 0;
        tokens += e.count;
        sdx_encoding_free(&e);
    }
    return tokens;
}

static sdx_status time_opening(const char *path, double *best, sdx_error *err)
{
    *best = 1e9;
    for (int run = 0; run < OPEN_RUNS; run++) {
        sdx_tokenizer *t;
        double start = sdx_now();
        sdx_status status = sdx_tokenizer_open(path, &t, err);
        if (status != SDX_OK) return status;
        double seconds = sdx_now() - start;
        if (seconds < *best) *best = seconds;
        sdx_tokenizer_free(t);
    }
    return SDX_OK;
}

int main(int argc, char **argv)
{
    sdx_error err = {0};
    sdx_tokenizer *t;
    line_list list = {0};
    double open, best = 1e9;
    size_t tokens = 0;
    if (argc != 2 && argc != 4) return fail("usage: tokenize_bench TOKENIZER [TEXTS RUNS]");
    if (time_opening(argv[1], &open, &err) != SDX_OK || sdx_tokenizer_open(argv[1], &t, &err) != SDX_OK)
        return fail(err.message);
    if (argc == 4 && !read_lines(argv[2], &list)) return fail("cannot read the texts");
    for (int run = 0; argc == 4 && run < atoi(argv[3]); run++) {
        double start = sdx_now();
        tokens = encode_all(t, &list);
        if (sdx_now() - start < best) best = sdx_now() - start;
    }
    printf("{\"open\": %.6f, \"seconds\": %.6f, \"tokens\": %zu}\n", open, best, tokens);
    free_lines(&list);
    sdx_tokenizer_free(t);
    return 0;
}
