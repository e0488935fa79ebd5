/* test_sampler.c: tokens one at a time: the best one, and draws that keep to temperature, top-k, top-p and the seed. */
#include <check.h>
#include <math.h>
#include <string.h>

#include "../../tasks/generate.h"

enum { VOCAB = 200, STEPS = 4000 };

static sdx_rules make_rules(size_t max_length)
{
    sdx_rules r = {.eos = {{0}, 1}};
    r.options = (sdx_generate_options){
        .num_beams = 1, .max_length = max_length, .do_sample = true, .temperature = 1, .top_p = 1, .seed = 5};
    return r;
}

/* Scores 0 for the end, which never comes, and log(v) else. */
static void make_scores(float *scores)
{
    for (int v = 0; v < VOCAB; v++) scores[v] = v ? logf((float)v) : -INFINITY;
}

/* How often each token comes in STEPS steps of sequence number `first`. */
static void count_tokens(const sdx_rules *rules, uint64_t first, const float *scores, size_t *count)
{
    sdx_sampler *s;
    bool done = false;
    size_t length;
    ck_assert_int_eq(sdx_sampler_create(rules, (int64_t[]){1}, 1, first, 1, &s, NULL), SDX_OK);
    while (!done) ck_assert_int_eq(sdx_sampler_step(s, scores, 1, VOCAB, &done, NULL), SDX_OK);
    const int64_t *ids = sdx_sampler_result(s, 0, &length);
    ck_assert_uint_eq(length, STEPS + 1);
    for (int v = 0; v < VOCAB; v++) count[v] = 0;
    for (size_t i = 1; i < length; i++) count[ids[i]]++;
    sdx_sampler_free(s);
}

/* Frequencies within five standard deviations of share(v) = scores' softmax among the tokens from least on. */
static void check_shares(const sdx_rules *rules, int least, double power)
{
    float scores[VOCAB];
    size_t count[VOCAB];
    double sum = 0;
    make_scores(scores);
    count_tokens(rules, 0, scores, count);
    for (int v = least; v < VOCAB; v++) sum += pow(v, power);
    for (int v = 0; v < VOCAB; v++) {
        double share = v < least ? 0 : pow(v, power) / sum, spread = sqrt(STEPS * share * (1 - share));
        ck_assert_double_le(fabs((double)count[v] - STEPS * share), 5 * spread);
    }
}

START_TEST(draws_by_probability)
{
    sdx_rules r = make_rules(STEPS + 1);
    check_shares(&r, 1, 1);
    r.options.temperature = 0.5;
    check_shares(&r, 1, 2);
    r.options.temperature = 1;
    r.options.top_k = 7;
    check_shares(&r, VOCAB - 7, 1);
    r.options.top_k = 0;
    r.options.top_p = (199 + 198 + 197 + 0.5) / (199 * 200 / 2); /* three, and the one that passes the sum */
    check_shares(&r, VOCAB - 4, 1);
    r.options.top_p = 1e-9;
    check_shares(&r, VOCAB - 1, 1);
}
END_TEST

START_TEST(depends_on_seed_and_number)
{
    sdx_rules r = make_rules(STEPS + 1);
    float scores[VOCAB];
    size_t a[VOCAB], b[VOCAB];
    make_scores(scores);
    count_tokens(&r, 0, scores, a);
    count_tokens(&r, 0, scores, b);
    ck_assert(!memcmp(a, b, sizeof a));
    count_tokens(&r, 1, scores, b);
    ck_assert(memcmp(a, b, sizeof a));
    r.options.seed++;
    count_tokens(&r, 0, scores, b);
    ck_assert(memcmp(a, b, sizeof a));
}
END_TEST

START_TEST(ended_sequences_are_no_rows)
{
    static const float ends_second[6] = {-1, 0, -1, 0, -1, -1}; /* two rows of three: 1, then the end */
    static const float goes_on[3] = {-1, -1, 0};
    sdx_rules r = make_rules(4);
    r.options.do_sample = false;
    sdx_sampler *s;
    bool done;
    size_t stride, rows, length;
    const size_t *parent;
    ck_assert_int_eq(sdx_sampler_create(&r, (int64_t[]){1}, 1, 0, 3, &s, NULL), SDX_OK);
    ck_assert_int_eq(sdx_sampler_step(s, goes_on, 1, 3, &done, NULL), SDX_OK);
    sdx_sampler_rows(s, &stride, &rows, &parent);
    ck_assert(!done && rows == 3);
    const float three[9] = {0, -1, -1, -1, 0, -1, 0, -1, -1};
    ck_assert_int_eq(sdx_sampler_step(s, three, 3, 3, &done, NULL), SDX_OK);
    const int64_t *ids = sdx_sampler_rows(s, &stride, &rows, &parent);
    ck_assert(!done && rows == 1 && parent[0] == 1 && ids[1] == 2 && ids[2] == 1);
    ck_assert_int_eq(sdx_sampler_step(s, ends_second, 1, 3, &done, NULL), SDX_OK);
    ck_assert(done);
    ids = sdx_sampler_result(s, 0, &length);
    ck_assert(length == 3 && ids[2] == 0);
    ids = sdx_sampler_result(s, 1, &length);
    ck_assert(length == 4 && ids[3] == 1);
    sdx_sampler_free(s);
}
END_TEST

Suite *sampler_suite(void);
Suite *sampler_suite(void)
{
    Suite *s = suite_create("sampler");
    TCase *c = tcase_create("all");
    tcase_add_test(c, draws_by_probability);
    tcase_add_test(c, depends_on_seed_and_number);
    tcase_add_test(c, ended_sequences_are_no_rows);
    suite_add_tcase(s, c);
    return s;
}
