/* test_search.c: how BeamSearch and GreedySearch choose: against all sequences there are, and rule by rule. */
#include <check.h>
#include <float.h>
#include <math.h>
#include <string.h>

#include "../../engine/ops/search.h"

enum { VOCAB = 4, EOS = 3, PAD = 9, LENGTH = 5, BEAMS = 128, TEXTS = 2 };

/* Logits of a made-up model: a hash of text and tokens. */
static void model(int text, const int32_t *tokens, int64_t n, float *logits)
{
    uint64_t h = 77u + (unsigned)text;
    for (int64_t i = 0; i < n; i++) h = (h ^ (uint64_t)tokens[i]) * 0xbf58476d1ce4e5b9u + 7;
    for (int v = 0; v < VOCAB; v++) {
        h = h * 6364136223846793005u + 1442695040888963407u;
        logits[v] = (float)(h >> 40) / 4194304.0f;
    }
}

static sdx_search_rules make_rules(void)
{
    return (sdx_search_rules){.batch = TEXTS, .beams = BEAMS, .vocab = VOCAB, .prompt = 1, .max_length = LENGTH,
                              .eos = EOS, .pad = PAD, .length_penalty = 1, .repetition_penalty = 1};
}

static void search_all(sdx_search *s, const sdx_search_rules *rules, sdx_arena *arena)
{
    static float logits[TEXTS * BEAMS * VOCAB];
    static const int32_t prompt[TEXTS] = {1, 2};
    ck_assert_int_eq(sdx_search_init(s, rules, prompt, arena, NULL), SDX_OK);
    while (s->open && s->length < rules->max_length) {
        for (int64_t r = 0; r < s->rows; r++)
            model((int)(r / rules->beams), s->sequence + r * rules->max_length, s->length, logits + r * VOCAB);
        sdx_search_step(s, logits);
    }
}

/* The best score of what begins with these tokens, and that sequence. */
static float best_of(int text, int32_t *tokens, int64_t n, double sum, int32_t *best)
{
    float logits[VOCAB], top = -INFINITY;
    double total = 0;
    if (n == LENGTH) {
        memcpy(best, tokens, LENGTH * sizeof *best);
        return (float)(sum / LENGTH);
    }
    model(text, tokens, n, logits);
    for (int v = 0; v < VOCAB; v++) total += exp((double)logits[v]);
    for (int v = 0; v < VOCAB; v++) {
        int32_t found[LENGTH] = {PAD, PAD, PAD, PAD, PAD};
        double now = sum + logits[v] - log(total);
        tokens[n] = v;
        memcpy(found, tokens, (size_t)n * sizeof *found);
        float score = v == EOS ? (float)(now / (double)n) : best_of(text, tokens, n + 1, now, found);
        if (score <= top) continue;
        top = score;
        memcpy(best, found, sizeof found);
    }
    return top;
}

START_TEST(wide_beams_find_the_best_of_all)
{
    sdx_search s;
    sdx_arena arena;
    sdx_arena_init(&arena);
    sdx_search_rules rules = make_rules();
    int32_t sequences[TEXTS * LENGTH], best[LENGTH], tokens[LENGTH];
    float scores[TEXTS];
    search_all(&s, &rules, &arena);
    sdx_search_finish(&s, 1, sequences, scores);
    for (int text = 0; text < TEXTS; text++) {
        tokens[0] = text + 1;
        float want = best_of(text, tokens, 1, 0, best);
        ck_assert_float_eq_tol(scores[text], want, 1e-5f);
        ck_assert(!memcmp(sequences + text * LENGTH, best, sizeof best));
    }
    sdx_arena_fini(&arena);
}
END_TEST

/* Greedily: the best token each time, and pad from the end on. */
START_TEST(greedy_takes_the_best_token)
{
    sdx_search s;
    sdx_arena arena;
    sdx_arena_init(&arena);
    sdx_search_rules rules = make_rules();
    rules.beams = 1;
    rules.greedy = true;
    int32_t sequences[TEXTS * LENGTH];
    search_all(&s, &rules, &arena);
    sdx_search_finish(&s, 1, sequences, NULL);
    for (int text = 0; text < TEXTS; text++) {
        int32_t want[LENGTH] = {text + 1};
        for (int n = 1, ended = 0; n < LENGTH; n++) {
            float logits[VOCAB];
            int32_t best = 0;
            model(text, want, n, logits);
            for (int32_t v = 1; v < VOCAB; v++) best = logits[v] > logits[best] ? v : best;
            ended |= best == EOS;
            want[n] = ended ? PAD : best;
        }
        ck_assert(!memcmp(sequences + text * LENGTH, want, sizeof want));
    }
    sdx_arena_fini(&arena);
}
END_TEST

/* After 1 0 1 no pair may repeat, 2 is masked, the end is too early: what is left is 1. */
START_TEST(rules_leave_one_token)
{
    static const int32_t prompt[3] = {1, 0, 1}, mask[VOCAB] = {1, 1, 0, 1};
    sdx_search s;
    sdx_arena arena;
    sdx_arena_init(&arena);
    sdx_search_rules rules = make_rules();
    rules.batch = rules.beams = 1;
    rules.prompt = 3;
    rules.ngram = 2;
    rules.min_length = 4;
    rules.vocab_mask = mask;
    rules.greedy = true;
    float logits[VOCAB] = {4, 1, 3, 2};
    ck_assert_int_eq(sdx_search_init(&s, &rules, prompt, &arena, NULL), SDX_OK);
    sdx_search_step(&s, logits);
    ck_assert_int_eq(s.sequence[3], 1);
    float again[VOCAB] = {1, 8, 9, 5}; /* 1 was there: 8 / 2; and the end is allowed now */
    s.rules.repetition_penalty = 2;
    s.rules.ngram = 0;
    sdx_search_step(&s, again);
    ck_assert_int_eq(s.sequence[4], PAD);
    ck_assert_int_eq(s.open, 0);
    sdx_arena_fini(&arena);
}
END_TEST

Suite *search_suite(void)
{
    Suite *s = suite_create("search");
    TCase *c = tcase_create("search");
    tcase_add_test(c, wide_beams_find_the_best_of_all);
    tcase_add_test(c, greedy_takes_the_best_token);
    tcase_add_test(c, rules_leave_one_token);
    suite_add_tcase(s, c);
    return s;
}
