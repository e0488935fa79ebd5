/* search_beams.c: which tokens come next, by the rules of ONNX Runtime's generation operators (those of transformers'
 * early beam search, Wolf et al. 2020): of the best 2 * beams continuations of a text those among the first `beams`
 * that end compete, by score / length ^ length_penalty, for one of `beams` places; the others go on. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "search.h"

static const float worthless = -1e9f; /* beams but the first start so: they are equal then */

sdx_status sdx_search_init(sdx_search *s, const sdx_search_rules *rules, const int32_t *prompt, sdx_arena *arena,
                           sdx_error *err)
{
    *s = (sdx_search){
        .rules = *rules, .rows = rules->batch * rules->beams, .length = rules->prompt, .open = rules->batch};
    size_t rows = (size_t)s->rows, room = (size_t)rules->max_length;
    int32_t *tokens;
    ARENA_NEW(arena, s->sequence, rows * room, err); /* a batch comes from a tensor, beams <= 128, room <= 4096 */
    ARENA_NEW(arena, s->next, rows * room, err);
    ARENA_NEW(arena, s->parent, rows, err);
    ARENA_NEW(arena, s->score, rows, err);
    ARENA_NEW(arena, s->top, 2 * (size_t)rules->beams, err);
    ARENA_NEW(arena, s->ending, rows, err);
    ARENA_NEW(arena, s->endings, (size_t)rules->batch, err);
    ARENA_NEW(arena, s->done, (size_t)rules->batch, err);
    ARENA_NEW(arena, tokens, rows * room, err);
    for (int64_t r = 0; r < s->rows; r++) {
        memcpy(s->sequence + r * rules->max_length, prompt + r / rules->beams * rules->prompt,
               (size_t)rules->prompt * sizeof *prompt);
        s->score[r] = r % rules->beams ? worthless : 0;
        s->ending[r].tokens = tokens + r * rules->max_length;
    }
    return SDX_OK;
}

/* ---- scores ---------------------------------------------------------------------------------------------- */

static void take_log_softmax(int64_t n, float *x)
{
    float max = x[0];
    double sum = 0;
    for (int64_t i = 1; i < n; i++) max = fmaxf(max, x[i]);
    for (int64_t i = 0; i < n; i++) sum += expf(x[i] - max);
    float shift = max + (float)log(sum);
    for (int64_t i = 0; i < n; i++) x[i] -= shift;
}

static bool is_token(const sdx_search *s, int32_t token) { return token >= 0 && token < s->rules.vocab; }

/* Every token of the sequence counts once. */
static void punish_repetition(const sdx_search *s, const int32_t *sequence, float *score)
{
    for (int64_t i = 0; i < s->length; i++) {
        bool seen = !is_token(s, sequence[i]);
        for (int64_t k = 0; k < i && !seen; k++) seen = sequence[k] == sequence[i];
        if (seen) continue;
        float *x = &score[sequence[i]];
        *x = *x < 0 ? *x * s->rules.repetition_penalty : *x / s->rules.repetition_penalty;
    }
}

static void forbid_ngrams(const sdx_search *s, const int32_t *sequence, float *score)
{
    int64_t before = s->rules.ngram - 1;
    for (int64_t i = 0; i + before < s->length; i++)
        if (!memcmp(sequence + i, sequence + s->length - before, (size_t)before * sizeof *sequence) &&
            is_token(s, sequence[i + before]))
            score[sequence[i + before]] = -FLT_MAX;
}

static void forbid_masked(const int32_t *mask, int64_t n, float *score)
{
    for (int64_t i = 0; mask && i < n; i++)
        if (!mask[i]) score[i] = -FLT_MAX;
}

static void adjust(const sdx_search *s, int64_t row, float *score)
{
    const sdx_search_rules *r = &s->rules;
    const int32_t *sequence = s->sequence + row * r->max_length;
    if (r->repetition_penalty != 1) punish_repetition(s, sequence, score);
    if (r->ngram > 0 && r->ngram <= s->length) forbid_ngrams(s, sequence, score);
    forbid_masked(r->vocab_mask, r->vocab, score);
    if (s->length == r->prompt && r->prefix_mask)
        forbid_masked(r->prefix_mask + row / r->beams * r->vocab, r->vocab, score);
    if (s->length < r->min_length && r->eos >= 0 && r->eos < r->vocab) score[r->eos] = -FLT_MAX;
}

/* ---- beams ----------------------------------------------------------------------------------------------- */

/* The best 2 * beams continuations of a text; of equal ones the first. */
static void find_top(sdx_search *s, int64_t text, const float *scores)
{
    int64_t count = 0, room = 2 * s->rules.beams, vocab = s->rules.vocab;
    for (int64_t row = text * s->rules.beams; row < (text + 1) * s->rules.beams; row++)
        for (int64_t token = 0; token < vocab; token++) {
            float score = scores[row * vocab + token];
            if (count == room && !(score > s->top[room - 1].score)) continue;
            int64_t at = count < room ? count++ : room - 1;
            for (; at > 0 && score > s->top[at - 1].score; at--) s->top[at] = s->top[at - 1];
            s->top[at] = (sdx_search_candidate){row, token, score};
        }
}

static void add_ending(sdx_search *s, int64_t text, const int32_t *sequence, float sum)
{
    sdx_search_ending *e = s->ending + text * s->rules.beams;
    float score = sum / powf((float)s->length, s->rules.length_penalty);
    int64_t at = s->endings[text];
    if (at == s->rules.beams) {
        if (score <= e[--at].score) return;
    } else {
        s->endings[text]++;
    }
    int32_t *tokens = e[at].tokens;
    for (; at > 0 && score > e[at - 1].score; at--) e[at] = e[at - 1];
    memcpy(tokens, sequence, (size_t)s->length * sizeof *tokens);
    e[at] = (sdx_search_ending){s->length, score, tokens};
}

static void go_on(sdx_search *s, int64_t row, const sdx_search_candidate *from)
{
    int32_t *to = s->next + row * s->rules.max_length;
    memcpy(to, s->sequence + from->row * s->rules.max_length, (size_t)s->length * sizeof *to);
    to[s->length] = (int32_t)from->token;
    s->parent[row] = from->row;
    s->score[row] = from->score;
}

static bool can_improve(const sdx_search *s, int64_t text)
{
    float best = s->top[0].score / powf((float)s->length, s->rules.length_penalty);
    return s->ending[(text + 1) * s->rules.beams - 1].score < best;
}

static void step_text(sdx_search *s, int64_t text, const float *scores)
{
    int64_t beams = s->rules.beams, row = text * beams, end = row + beams;
    for (int64_t r = row; s->done[text] && r < end; r++)
        go_on(s, r, &(sdx_search_candidate){r, s->rules.pad, 0});
    if (s->done[text]) return;
    find_top(s, text, scores);
    for (int64_t i = 0; i < 2 * beams && row < end; i++) {
        const sdx_search_candidate *c = &s->top[i];
        if (c->token != s->rules.eos) go_on(s, row++, c);
        else if (i < beams) add_ending(s, text, s->sequence + c->row * s->rules.max_length, c->score);
    }
    if (s->endings[text] < beams || (!s->rules.early && can_improve(s, text))) return;
    s->done[text] = true;
    s->open--;
}

/* Greedy: the end is written as pad, and so is all behind it. */
static void step_greedy(sdx_search *s, int64_t row, const float *logits)
{
    int64_t best = 0;
    for (int64_t i = 1; i < s->rules.vocab; i++)
        if (logits[i] > logits[best]) best = i;
    if (!s->done[row] && best == s->rules.eos) {
        s->done[row] = true;
        s->open--;
    }
    go_on(s, row, &(sdx_search_candidate){row, s->done[row] ? s->rules.pad : best, 0});
}

void sdx_search_step(sdx_search *s, float *logits)
{
    int64_t vocab = s->rules.vocab;
    for (int64_t row = 0; row < s->rows; row++) {
        float *x = logits + row * vocab;
        if (!s->rules.greedy) take_log_softmax(vocab, x);
        adjust(s, row, x);
        for (int64_t i = 0; i < vocab && !s->rules.greedy; i++) x[i] += s->score[row];
    }
    for (int64_t text = 0; text < s->rules.batch; text++) {
        if (s->rules.greedy) step_greedy(s, text, logits + text * vocab);
        else step_text(s, text, logits);
    }
    int32_t *swap = s->sequence;
    s->sequence = s->next;
    s->next = swap;
    s->length++;
}

void sdx_search_finish(sdx_search *s, int64_t count, int32_t *sequences, float *scores)
{
    int64_t room = s->rules.max_length, beams = s->rules.beams;
    for (int64_t i = 0; i < s->rules.batch * count * room; i++) sequences[i] = (int32_t)s->rules.pad;
    for (int64_t text = 0; text < s->rules.batch; text++) {
        for (int64_t b = 0; b < beams && (s->rules.greedy || !s->done[text]); b++)
            add_ending(s, text, s->sequence + (text * beams + b) * room, s->score[text * beams + b]);
        for (int64_t i = 0; i < count; i++) {
            const sdx_search_ending *e = &s->ending[text * beams + i];
            memcpy(sequences + (text * count + i) * room, e->tokens, (size_t)e->length * sizeof *sequences);
            if (scores) scores[text * count + i] = e->score;
        }
    }
}
