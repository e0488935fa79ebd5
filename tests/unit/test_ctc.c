/* test_ctc.c: prefix beam search against all alignments there are; greedy decoding and its times. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../../tasks/ctc.h"

enum { FRAMES = 5, TOKENS = 3, BLANK = 0, ALIGNMENTS = 243, KEYS = 4096 };

/* A sequence of tokens as one number, base 4; alignment: a number of base TOKENS. */
static int collapse(int alignment)
{
    int key = 0, last = -1;
    for (int f = 0; f < FRAMES; f++, alignment /= TOKENS) {
        int token = alignment % TOKENS;
        if (token != BLANK && token != last) key = key * 4 + token;
        last = token;
    }
    return key;
}

static int most_probable(const float *logits)
{
    static double p[KEYS];
    memset(p, 0, sizeof p);
    int best = 0;
    for (int a = 0; a < ALIGNMENTS; a++) {
        double product = 1;
        for (int f = 0, rest = a; f < FRAMES; f++, rest /= TOKENS) {
            const float *x = logits + f * TOKENS;
            product *= exp(x[rest % TOKENS]) / (exp(x[0]) + exp(x[1]) + exp(x[2]));
        }
        p[collapse(a)] += product;
    }
    for (int k = 1; k < KEYS; k++)
        if (p[k] > p[best]) best = k;
    return best;
}

START_TEST(beams_find_the_most_probable)
{
    float logits[FRAMES * TOKENS];
    srand(7);
    for (int trial = 0; trial < 300; trial++) {
        for (int i = 0; i < FRAMES * TOKENS; i++) logits[i] = (float)(rand() % 4001 - 2000) / 1000;
        sdx_ctc_path path;
        ck_assert_int_eq(sdx_ctc_beam(logits, FRAMES, TOKENS, BLANK, 64, &path, NULL), SDX_OK);
        int key = 0;
        for (size_t i = 0; i < path.count; i++) {
            key = key * 4 + (int)path.id[i];
            ck_assert_uint_lt(path.begin[i], path.end[i]);
            ck_assert_uint_le(path.end[i], FRAMES);
            if (i > 0) ck_assert_uint_ge(path.begin[i], path.begin[i - 1]);
        }
        ck_assert_int_eq(key, most_probable(logits));
        sdx_ctc_path_free(&path);
        for (size_t beams = 1; beams < 4; beams++) { /* may miss it, but ends */
            ck_assert_int_eq(sdx_ctc_beam(logits, FRAMES, TOKENS, BLANK, beams, &path, NULL), SDX_OK);
            sdx_ctc_path_free(&path);
        }
    }
}
END_TEST

START_TEST(greedy_takes_runs_once)
{
    static const int best[] = {0, 1, 1, 0, 1, 2, 2, 2, 0};
    static const int64_t id[] = {1, 1, 2};
    static const size_t begin[] = {1, 4, 5}, end[] = {3, 5, 8};
    float logits[9 * TOKENS] = {0};
    for (int f = 0; f < 9; f++) logits[f * TOKENS + best[f]] = 1;
    sdx_ctc_path path;
    ck_assert_int_eq(sdx_ctc_greedy(logits, 9, TOKENS, BLANK, &path, NULL), SDX_OK);
    ck_assert_uint_eq(path.count, 3);
    ck_assert_mem_eq(path.id, id, sizeof id);
    ck_assert_mem_eq(path.begin, begin, sizeof begin);
    ck_assert_mem_eq(path.end, end, sizeof end);
    sdx_ctc_path_free(&path);
}
END_TEST

START_TEST(silence_says_nothing)
{
    sdx_ctc_path path;
    ck_assert_int_eq(sdx_ctc_beam(NULL, 0, TOKENS, BLANK, 4, &path, NULL), SDX_OK);
    ck_assert_uint_eq(path.count, 0);
    sdx_ctc_path_free(&path);
    ck_assert_int_eq(sdx_ctc_beam(NULL, 0, TOKENS, BLANK, 0, &path, NULL), SDX_ERR_USAGE);
}
END_TEST

Suite *ctc_suite(void);
Suite *ctc_suite(void)
{
    Suite *s = suite_create("ctc");
    TCase *c = tcase_create("all");
    tcase_add_test(c, beams_find_the_most_probable);
    tcase_add_test(c, greedy_takes_runs_once);
    tcase_add_test(c, silence_says_nothing);
    suite_add_tcase(s, c);
    return s;
}
