/* sampler.c: a token at a time: the best one, or one drawn from those that temperature, top-k and top-p leave, in
 * transformers' order. Several sequences may go on from one prompt; one that ended is no row any more.
 *
 * Draws depend on the seed, the sequence's number and the step alone, not on threads or on what else is in the batch:
 * the random number is the SplitMix64 output (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number
 * Generators", 2014) for those three, its upper 53 bits over 2^53. Candidates stand in descending order of score, the
 * lower id first among equals, and the one is drawn at which the sum of probabilities first exceeds the number. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../base/memory.h"
#include "generate.h"

typedef struct candidate {
    int64_t token;
    float score;
    double share; /* exp(score - the best score) */
} candidate;

struct sdx_sampler {
    const sdx_rules *rules;
    uint64_t first; /* number of the first sequence */
    size_t sequences, alive, length, stride;
    int64_t *ids;      /* [sequences, stride] */
    size_t *count;     /* [sequences] ids in each; owned, as is all below */
    int64_t *rows;     /* [alive, stride]: copies of those that go on */
    size_t *of;        /* [alive]: which sequence a row is */
    size_t *parent;    /* [alive] */
    candidate *choice; /* [vocab], once something is drawn */
};

sdx_status sdx_sampler_create(const sdx_rules *rules, const int64_t *prompt, size_t n, uint64_t first,
                              size_t sequences, sdx_sampler **out, sdx_error *err)
{
    size_t stride = rules->options.max_length > n ? rules->options.max_length : n + 1;
    sdx_sampler *s = sdx_calloc(1, sizeof *s);
    if (!s) return sdx_fail_memory(err, sizeof *s);
    *s = (sdx_sampler){.rules = rules, .first = first, .sequences = sequences, .alive = sequences, .length = n};
    s->stride = stride;
    s->ids = sdx_calloc(sequences, stride * sizeof *s->ids);
    s->rows = sdx_calloc(sequences, stride * sizeof *s->rows);
    s->count = sdx_calloc(sequences, sizeof *s->count);
    s->of = sdx_calloc(sequences, sizeof *s->of);
    s->parent = sdx_calloc(sequences, sizeof *s->parent);
    if (!s->ids || !s->rows || !s->count || !s->of || !s->parent) {
        sdx_sampler_free(s);
        return sdx_fail_memory(err, 2 * sequences * stride * sizeof *s->ids);
    }
    for (size_t i = 0; i < sequences; i++) {
        memcpy(s->ids + i * stride, prompt, n * sizeof *prompt);
        memcpy(s->rows + i * stride, prompt, n * sizeof *prompt);
        s->of[i] = i;
    }
    *out = s;
    return SDX_OK;
}

void sdx_sampler_free(sdx_sampler *s)
{
    if (!s) return;
    free(s->ids);
    free(s->rows);
    free(s->count);
    free(s->of);
    free(s->parent);
    free(s->choice);
    free(s);
}

/* ---- one choice ------------------------------------------------------------------------------------------ */

static size_t best_of(const float *x, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static double random_number(uint64_t seed, uint64_t sequence, uint64_t step)
{
    return (double)(mix(mix(mix(seed) ^ sequence) ^ step) >> 11) * 0x1p-53;
}

static int by_score(const void *a, const void *b)
{
    const candidate *x = a, *y = b;
    if (x->score != y->score) return x->score < y->score ? 1 : -1;
    return x->token < y->token ? -1 : x->token > y->token;
}

/* The first k in order, by a partial quicksort; k may be all. */
static void sort_first(candidate *c, size_t n, size_t k)
{
    while (n > k && n > 64) {
        candidate pivot = c[n / 2];
        size_t i = 0, j = n - 1;
        for (;; i++, j--) {
            while (by_score(&c[i], &pivot) < 0) i++;
            while (by_score(&c[j], &pivot) > 0) j--;
            if (i >= j) break;
            candidate t = c[i];
            c[i] = c[j];
            c[j] = t;
        }
        if (i < k) break; /* the rest of the k are further on: sort it all */
        n = i;
    }
    qsort(c, n, sizeof *c, by_score);
}

/* Candidates in order; how many. Those that score as much as the k-th stay too, as there. */
static size_t find_candidates(const sdx_generate_options *o, const float *scores, size_t vocab, candidate *c)
{
    size_t n = 0, k = o->top_k && o->top_k < vocab ? o->top_k : vocab;
    for (size_t v = 0; v < vocab; v++)
        if (scores[v] > -INFINITY) c[n++] = (candidate){(int64_t)v, scores[v] / (float)o->temperature, 0};
    if (k < n) {
        sort_first(c, n, k);
        float last = c[k - 1].score;
        size_t kept = k;
        for (size_t i = k; i < n; i++)
            if (c[i].score >= last) c[kept++] = c[i];
        n = kept;
    }
    qsort(c, n, sizeof *c, by_score);
    return n;
}

/* Drops what lies behind the first ones that add up to top_p; the sum of what is left. */
static double cut_tail(double top_p, candidate *c, size_t *n)
{
    double sum = 0, taken = 0;
    for (size_t i = 0; i < *n; i++) sum += c[i].share = exp((double)c[i].score - c[0].score);
    if (top_p >= 1) return sum;
    size_t i = 0;
    while (i < *n && (i == 0 || taken < top_p * sum)) taken += c[i++].share;
    *n = i;
    return taken;
}

static int64_t draw(sdx_sampler *s, size_t sequence, const float *scores, size_t vocab)
{
    const sdx_generate_options *o = &s->rules->options;
    candidate *c = s->choice;
    size_t n = find_candidates(o, scores, vocab, c), i = 0;
    if (!n) return (int64_t)best_of(scores, vocab);
    double x = random_number(o->seed, s->first + sequence, s->length) * cut_tail(o->top_p, c, &n);
    for (double sum = c[0].share; sum <= x && i + 1 < n; sum += c[i].share) i++;
    return c[i].token;
}

/* ---- a step ---------------------------------------------------------------------------------------------- */

/* Ended sequences leave the rows; the others move up. */
static void drop_ended(sdx_sampler *s, const bool *ended)
{
    size_t alive = 0;
    for (size_t r = 0; r < s->alive; r++) {
        s->parent[alive] = r;
        s->of[alive] = s->of[r];
        if (ended[r]) continue;
        memcpy(s->rows + alive * s->stride, s->ids + s->of[r] * s->stride, s->length * sizeof *s->ids);
        alive++;
    }
    s->alive = alive;
}

sdx_status sdx_sampler_step(sdx_sampler *s, const float *scores, size_t rows, size_t vocab, bool *done, sdx_error *err)
{
    bool ended[SDX_MAX_BEAMS];
    if (s->rules->options.do_sample && !s->choice) s->choice = sdx_malloc(vocab * sizeof *s->choice);
    if (s->rules->options.do_sample && !s->choice) return sdx_fail_memory(err, vocab * sizeof *s->choice);
    for (size_t r = 0; r < s->alive; r++) {
        const float *row = scores + (r < rows ? r : 0) * vocab;
        size_t sequence = s->of[r];
        int64_t token = s->choice ? draw(s, sequence, row, vocab) : (int64_t)best_of(row, vocab);
        s->ids[sequence * s->stride + s->length] = token;
        s->count[sequence] = s->length + 1;
        ended[r] = s->length + 1 >= s->rules->options.max_length || sdx_rules_ends(s->rules, token);
    }
    s->length++;
    drop_ended(s, ended);
    *done = s->alive == 0;
    return SDX_OK;
}

const int64_t *sdx_sampler_rows(const sdx_sampler *s, size_t *stride, size_t *rows, const size_t **parent)
{
    *stride = s->stride;
    *rows = s->alive;
    *parent = s->parent;
    return s->rows;
}

const int64_t *sdx_sampler_result(const sdx_sampler *s, size_t i, size_t *length)
{
    *length = s->count[i];
    return s->ids + i * s->stride;
}
