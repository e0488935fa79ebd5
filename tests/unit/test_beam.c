/* test_beam.c: beam search against the best of all sequences, its three ways to stop by hand, and the rules of
 * generation. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../../tasks/generate.h"

enum { EOS = 0, VOCAB = 3, MAX_LENGTH = 5 };

static sdx_rules make_rules(size_t beams, size_t max_length, double length_penalty, sdx_early_stopping stop)
{
    sdx_rules r = {.eos = {{EOS}, 1}, .decay_factor = 1};
    r.options = (sdx_generate_options){.num_beams = beams,
                                       .max_length = max_length,
                                       .length_penalty = length_penalty,
                                       .repetition_penalty = 1,
                                       .forced_bos_token_id = -1,
                                       .early_stopping = stop};
    return r;
}

/* ---- against all sequences ---------------------------------------------------------------------------- */

/* The log probabilities that a made-up model gives after a sequence: a hash of it and the seed. */
static void model(unsigned seed, const int64_t *ids, size_t n, float *scores)
{
    uint64_t h = seed * 0x9e3779b97f4a7c15u + 1;
    double sum = 0, x[VOCAB];
    for (size_t i = 0; i < n; i++) h = (h ^ (uint64_t)ids[i]) * 0xbf58476d1ce4e5b9u + 7;
    for (size_t v = 0; v < VOCAB; v++) {
        h = (h ^ h >> 29) * 0x94d049bb133111ebu + v;
        x[v] = exp((double)(h >> 40) / (1 << 24) * 4);
        sum += x[v];
    }
    for (size_t v = 0; v < VOCAB; v++) scores[v] = (float)log(x[v] / sum);
}

typedef struct best {
    double score;
    int64_t ids[MAX_LENGTH];
    size_t length;
} best;

/* Every sequence that goes on from ids[n], whose log probability is sum. */
static void try_all(unsigned seed, double length_penalty, int64_t *ids, size_t n, double sum, best *b)
{
    float scores[VOCAB];
    model(seed, ids, n, scores);
    for (int64_t v = 0; v < VOCAB; v++) {
        ids[n] = v;
        double total = sum + scores[v], score = total / pow((double)n, length_penalty);
        if (v != EOS && n + 1 < MAX_LENGTH) {
            try_all(seed, length_penalty, ids, n + 1, total, b);
        } else if (score > b->score) {
            *b = (best){.score = score, .length = n + 1};
            memcpy(b->ids, ids, (n + 1) * sizeof *ids);
        }
    }
}

static sdx_beam *search(const sdx_rules *rules, unsigned seed)
{
    sdx_beam *beam;
    int64_t start = 1;
    bool done = false;
    ck_assert_int_eq(sdx_beam_create(rules, &start, 1, &beam, NULL), SDX_OK);
    float *scores = malloc(rules->options.num_beams * VOCAB * sizeof *scores);
    while (!done) {
        size_t stride, length;
        const size_t *parent;
        const int64_t *ids = sdx_beam_rows(beam, &stride, &length, &parent);
        for (size_t r = 0; r < rules->options.num_beams; r++) {
            ck_assert_uint_lt(parent[r], rules->options.num_beams);
            model(seed, ids + r * stride, length, scores + r * VOCAB);
        }
        ck_assert_int_eq(sdx_beam_step(beam, scores, rules->options.num_beams, VOCAB, &done, NULL), SDX_OK);
    }
    free(scores);
    return beam;
}

/* Sixteen rows hold all that can be open at once, and a search that never stops early misses nothing. */
START_TEST(finds_the_best_of_all)
{
    static const double penalties[] = {0.5, 1, 2};
    for (unsigned seed = 0; seed < 200; seed++) {
        double length_penalty = penalties[seed % 3];
        sdx_rules rules = make_rules(16, MAX_LENGTH, length_penalty, SDX_STOP_NEVER);
        sdx_beam *beam = search(&rules, seed);
        best b = {.score = -INFINITY};
        int64_t ids[MAX_LENGTH] = {1};
        try_all(seed, length_penalty, ids, 1, 0, &b);
        size_t length;
        const int64_t *got = sdx_beam_result(beam, 0, &length);
        ck_assert_uint_eq(length, b.length);
        ck_assert(!memcmp(got, b.ids, length * sizeof *got));
        sdx_beam_free(beam);
    }
}
END_TEST

/* ---- when it stops ------------------------------------------------------------------------------------ */

/* Two rows; the end is likely, all else unlikely: after step 2 both places are taken (-0.1 and -3.1/2), and the
 * best row is worth -6/2. After the step that takes the last place, "never" still hopes for -6/9. */
static const struct {
    sdx_early_stopping stop;
    double length_penalty;
    size_t steps;
} stops[] = {
    {SDX_STOP_EARLY, 1, 2}, {SDX_STOP_HEURISTIC, 1, 2}, {SDX_STOP_NEVER, 1, 5}, {SDX_STOP_NEVER, 0, 2}};

START_TEST(stops_when_it_should)
{
    static const float scores[2 * VOCAB] = {-0.1f, -3, -4, -0.1f, -3, -4};
    sdx_rules rules = make_rules(2, 10, stops[_i].length_penalty, stops[_i].stop);
    sdx_beam *beam;
    size_t steps = 0, length;
    bool done = false;
    ck_assert_int_eq(sdx_beam_create(&rules, (int64_t[]){1}, 1, &beam, NULL), SDX_OK);
    for (; !done; steps++) ck_assert_int_eq(sdx_beam_step(beam, scores, 2, VOCAB, &done, NULL), SDX_OK);
    ck_assert_uint_eq(steps, stops[_i].steps);
    const int64_t *ids = sdx_beam_result(beam, 0, &length);
    ck_assert(length == 2 && ids[0] == 1 && ids[1] == EOS);
    sdx_beam_free(beam);
}
END_TEST

START_TEST(refuses)
{
    sdx_beam *beam;
    bool done;
    sdx_rules rules = make_rules(SDX_MAX_BEAMS + 1, 10, 1, SDX_STOP_EARLY);
    ck_assert_int_eq(sdx_beam_create(&rules, (int64_t[]){1}, 1, &beam, NULL), SDX_ERR_USAGE);
    rules.options.num_beams = 2;
    ck_assert_int_eq(sdx_beam_create(&rules, (int64_t[]){1}, 1, &beam, NULL), SDX_OK);
    float nothing[2 * VOCAB] = {NAN, NAN, NAN, NAN, NAN, NAN};
    ck_assert_int_eq(sdx_beam_step(beam, nothing, 2, VOCAB, &done, NULL), SDX_ERR_UNSUPPORTED);
    sdx_beam_free(beam);
    rules.options.max_length = 3;
    ck_assert_int_eq(sdx_rules_fix_lengths(&rules, 3, NULL), SDX_ERR_USAGE);
    rules.options.max_new_tokens = (size_t)-1;
    ck_assert_int_eq(sdx_rules_fix_lengths(&rules, 3, NULL), SDX_ERR_USAGE);
}
END_TEST

/* ---- rules -------------------------------------------------------------------------------------------- */

/* Of six tokens that all score 2 after ids[n]: those that are banned, one bit each. */
static unsigned banned(const sdx_rules *rules, const int64_t *ids, size_t n)
{
    float scores[6] = {2, 2, 2, 2, 2, 2};
    unsigned bits = 0;
    sdx_rules_apply(rules, ids, n, scores, 6);
    for (int v = 0; v < 6; v++) bits |= (unsigned)(scores[v] == -INFINITY) << v;
    return bits;
}

START_TEST(bans)
{
    static const int64_t ids[] = {1, 2, 3, 1, 2};
    sdx_rules r = make_rules(1, 10, 1, SDX_STOP_EARLY);
    ck_assert_uint_eq(banned(&r, ids, 5), 0);
    r.options.no_repeat_ngram_size = 3; /* 1 2 was followed by 3 */
    ck_assert_uint_eq(banned(&r, ids, 5), 1 << 3);
    ck_assert_uint_eq(banned(&r, ids, 4), 0);
    r.options.no_repeat_ngram_size = 1;
    ck_assert_uint_eq(banned(&r, ids, 5), 1 << 1 | 1 << 2 | 1 << 3);
    r.options.no_repeat_ngram_size = 6;
    ck_assert_uint_eq(banned(&r, ids, 5), 0);
    r.options.no_repeat_ngram_size = 0;
    r.options.min_length = 6;
    ck_assert_uint_eq(banned(&r, ids, 5), 1 << EOS);
    r.options.min_length = 5;
    ck_assert_uint_eq(banned(&r, ids, 5), 0);
    r.options.min_length = 0;
    r.bad.ids = (int64_t[]){5, 2, 4, 3, 4, 99, -1};
    r.bad.end = (size_t[]){1, 3, 5, 6, 7}; /* [5] [2 4] [3 4] [99] [-1] */
    r.bad.bias = (float[]){-INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY};
    r.bad.count = 5;
    ck_assert_uint_eq(banned(&r, ids, 5), 1 << 5 | 1 << 4);
    ck_assert_uint_eq(banned(&r, ids, 4), 1 << 5);
}
END_TEST

START_TEST(forces_and_penalizes)
{
    static const int64_t ids[] = {1, 2, 2};
    sdx_rules r = make_rules(1, 4, 1, SDX_STOP_EARLY);
    r.options.forced_bos_token_id = 3;
    r.forced_eos = (sdx_ids){{EOS, 4}, 2};
    ck_assert_uint_eq(banned(&r, ids, 1), 63 & ~(1u << 3));
    ck_assert_uint_eq(banned(&r, ids, 2), 0);
    ck_assert_uint_eq(banned(&r, ids, 3), 63 & ~(1u << EOS | 1u << 4));
    float scores[VOCAB] = {-1, -1, 4};
    r.forced_eos.count = 0;
    r.options.repetition_penalty = 2; /* once for a token, however often it is there */
    sdx_rules_apply(&r, ids, 3, scores, VOCAB);
    ck_assert(scores[0] == -1 && scores[1] == -2 && scores[2] == 2);
}
END_TEST

/* After 1 2 3, of a source 2 3 4 2. */
START_TEST(heeds_the_source)
{
    static const int64_t ids[] = {1, 2, 3}, source[] = {2, 3, 4, 2};
    sdx_rules r = make_rules(1, 10, 1, SDX_STOP_EARLY);
    r.source = source;
    r.n_source = 4;
    r.encoder_no_repeat_ngram_size = 3;
    ck_assert_uint_eq(banned(&r, ids, 3), 1 << 4);
    r.encoder_no_repeat_ngram_size = 1;
    ck_assert_uint_eq(banned(&r, ids, 3), 1 << 2 | 1 << 3 | 1 << 4);
}
END_TEST

START_TEST(adds_biases_and_decays)
{
    static const int64_t ids[] = {1, 2, 3};
    sdx_rules r = make_rules(1, 10, 1, SDX_STOP_EARLY);
    r.biased = (sdx_words){(int64_t[]){2, 3, 1, 2, 1}, (size_t[]){1, 3, 5}, (float[]){0.5f, 1, 4}, 3};
    float scores[6] = {-8, 1, 1, 1, 1, 1};
    r.decay_start = 1; /* [2]: 0.5, [3 1]: 1, [2 1]: 4; 8 * (1.5^2 - 1) for the end */
    r.decay_factor = 1.5;
    sdx_rules_apply(&r, ids, 3, scores, 6);
    ck_assert(scores[EOS] == 2 && scores[1] == 2 && scores[2] == 1.5f && scores[3] == 1);
    sdx_rules_apply(&r, ids, 1, scores, 6);
    ck_assert(scores[EOS] == 2);
}
END_TEST

Suite *beam_suite(void);
Suite *beam_suite(void)
{
    Suite *s = suite_create("beam");
    TCase *c = tcase_create("all");
    tcase_add_test(c, finds_the_best_of_all);
    tcase_add_loop_test(c, stops_when_it_should, 0, sizeof stops / sizeof *stops);
    tcase_add_test(c, refuses);
    tcase_add_test(c, bans);
    tcase_add_test(c, forces_and_penalizes);
    tcase_add_test(c, heeds_the_source);
    tcase_add_test(c, adds_biases_and_decays);
    suite_add_tcase(s, c);
    return s;
}
