/* beam.c: beam search as transformers 4.57 does it, step by step and in float32, so that ids come out equal.
 *
 * A step looks at the best K = max(2, 1 + eos ids) * num_beams continuations of all rows: even if the best
 * num_beams all end, num_beams are left to go on with. Those among the best num_beams that end compete, by
 * score over length to the power length_penalty, for one of num_beams places. "Minus infinity" is -1e9 added to
 * a score, as there. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../base/memory.h"
#include "generate.h"

static const float worthless = -1e9f;

typedef struct candidate {
    size_t parent;
    int64_t token;
    float score; /* sum of log probabilities */
    bool ends;
} candidate;

typedef struct hypothesis {
    size_t length;
    float score; /* with the length penalty */
    bool finished;
} hypothesis;

struct sdx_beam {
    const sdx_rules *rules;
    size_t beams, kept, prompt, length, stride;
    int64_t *rows, *next_rows;      /* [beams, stride]; in block, as all arrays down to parent */
    int64_t *ended, *next_ended;    /* [beams, stride]: ids of the hypotheses */
    hypothesis *place, *next_place; /* [beams], best first */
    float *score, *next_score;      /* [beams] of the rows */
    candidate *top;                 /* [kept], best first */
    size_t *parent;                 /* [beams] */
    void *block;
    bool improvable; /* a row might still beat a place */
};

/* ---- making ---------------------------------------------------------------------------------------------- */

static size_t block_bytes(size_t beams, size_t kept, size_t stride)
{
    return 4 * beams * stride * sizeof(int64_t) + 2 * beams * sizeof(hypothesis) + beams * sizeof(size_t) +
           kept * sizeof(candidate) + 2 * beams * sizeof(float);
}

/* Cuts the block, the widest alignment first. */
static void lay_out(sdx_beam *b)
{
    size_t cells = b->beams * b->stride;
    b->rows = b->block;
    b->next_rows = b->rows + cells;
    b->ended = b->next_rows + cells;
    b->next_ended = b->ended + cells;
    b->place = (hypothesis *)(b->next_ended + cells);
    b->next_place = b->place + b->beams;
    b->parent = (size_t *)(b->next_place + b->beams);
    b->top = (candidate *)(b->parent + b->beams);
    b->score = (float *)(b->top + b->kept);
    b->next_score = b->score + b->beams;
}

sdx_status sdx_beam_create(const sdx_rules *rules, const int64_t *prompt, size_t n, sdx_beam **out,
                           sdx_error *err)
{
    const sdx_generate_options *o = &rules->options;
    if (o->num_beams < 1 || o->num_beams > SDX_MAX_BEAMS)
        return sdx_fail(err, SDX_ERR_USAGE, "num_beams is %zu; it must be 1 to %d", o->num_beams,
                        SDX_MAX_BEAMS);
    size_t kept = (rules->eos.count > 1 ? 1 + rules->eos.count : 2) * o->num_beams;
    sdx_beam *b = sdx_calloc(1, sizeof *b);
    if (b) *b = (sdx_beam){.rules = rules, .beams = o->num_beams, .kept = kept, .prompt = n, .length = n};
    if (b) b->stride = o->max_length > n ? o->max_length : n + 1;
    if (b) b->block = sdx_calloc(1, block_bytes(b->beams, kept, b->stride));
    if (!b || !b->block) {
        free(b);
        return sdx_fail_memory(err, block_bytes(o->num_beams, kept, o->max_length));
    }
    lay_out(b);
    for (size_t r = 0; r < b->beams; r++) {
        memcpy(b->rows + r * b->stride, prompt, n * sizeof *prompt);
        b->score[r] = r ? worthless : 0; /* all rows are one at first: only row 0 counts */
        b->place[r] = (hypothesis){.length = n, .score = worthless};
        memcpy(b->ended + r * b->stride, prompt, n * sizeof *prompt);
    }
    b->improvable = true;
    *out = b;
    return SDX_OK;
}

void sdx_beam_free(sdx_beam *b)
{
    if (!b) return;
    free(b->block);
    free(b);
}

/* ---- a step ---------------------------------------------------------------------------------------------- */

/* The best continuations of all rows, into top; false if there are not enough that are numbers. */
static bool find_top(sdx_beam *b, const float *scores, size_t rows, size_t vocab)
{
    size_t count = 0;
    for (size_t r = 0; r < b->beams; r++) {
        const float *row = scores + (r < rows ? r : 0) * vocab;
        for (size_t v = 0; v < vocab; v++) {
            float score = row[v] + b->score[r];
            if (isnan(score) || (count == b->kept && score <= b->top[count - 1].score)) continue;
            size_t at = count < b->kept ? count++ : count - 1;
            for (; at > 0 && b->top[at - 1].score < score; at--) b->top[at] = b->top[at - 1];
            b->top[at] = (candidate){r, (int64_t)v, score, false};
        }
    }
    for (size_t k = 0; k < count; k++)
        b->top[k].ends =
            b->length + 1 >= b->rules->options.max_length || sdx_rules_ends(b->rules, b->top[k].token);
    return count == b->kept;
}

static void write_continuation(const sdx_beam *b, const candidate *c, int64_t *ids)
{
    memcpy(ids, b->rows + c->parent * b->stride, b->length * sizeof *ids);
    ids[b->length] = c->token;
}

static bool all_finished(const sdx_beam *b)
{
    for (size_t i = 0; i < b->beams; i++)
        if (!b->place[i].finished) return false;
    return true;
}

/* What candidate k would be worth in a place. */
static hypothesis judge(const sdx_beam *b, size_t k, bool closed)
{
    bool finished = b->top[k].ends && k < b->beams;
    double length = (double)(b->length + 1 - b->prompt);
    float score = b->top[k].score / (float)pow(length, b->rules->options.length_penalty);
    if (closed) score += worthless;
    if (!b->improvable) score += worthless;
    if (!finished) score += worthless;
    return (hypothesis){b->length + 1, score, finished};
}

/* The best of old places and candidates, old ones first among equals. */
static void update_places(sdx_beam *b)
{
    bool closed = b->rules->options.early_stopping == SDX_STOP_EARLY && all_finished(b);
    size_t old = 0, taken = 0;
    bool used[(1 + SDX_MAX_EOS) * SDX_MAX_BEAMS] = {false};
    for (; taken < b->beams; taken++) {
        hypothesis best = b->place[old];
        size_t from = b->kept;
        for (size_t k = 0; k < b->kept; k++) {
            hypothesis h = judge(b, k, closed);
            bool beats = h.score > best.score || (h.score == best.score && !best.finished && from == b->kept);
            if (used[k] || !beats) continue;
            best = h;
            from = k;
        }
        int64_t *ids = b->next_ended + taken * b->stride;
        if (from == b->kept) {
            memcpy(ids, b->ended + old * b->stride, best.length * sizeof *ids);
            old++;
        } else {
            write_continuation(b, &b->top[from], ids);
            used[from] = true;
        }
        b->next_place[taken] = best;
    }
    hypothesis *places = b->place;
    b->place = b->next_place;
    b->next_place = places;
    int64_t *ended = b->ended;
    b->ended = b->next_ended;
    b->next_ended = ended;
}

/* The best candidates that do not end become the rows; those that end only where too few are left. */
static void update_rows(sdx_beam *b)
{
    size_t taken = 0;
    for (int ending = 0; ending < 2; ending++)
        for (size_t k = 0; k < b->kept && taken < b->beams; k++) {
            const candidate *c = &b->top[k];
            if (c->ends != (ending == 1)) continue;
            write_continuation(b, c, b->next_rows + taken * b->stride);
            b->next_score[taken] = ending ? c->score + worthless : c->score;
            b->parent[taken++] = c->parent;
        }
    int64_t *rows = b->rows;
    b->rows = b->next_rows;
    b->next_rows = rows;
    float *score = b->score;
    b->score = b->next_score;
    b->next_score = score;
    b->length++;
}

/* Whether the best row, at its best length, could beat the worst place. */
static bool can_improve(const sdx_beam *b)
{
    const sdx_generate_options *o = &b->rules->options;
    bool longest = o->early_stopping == SDX_STOP_NEVER && o->length_penalty > 0;
    double length = (double)((longest ? o->max_length : b->length) - b->prompt);
    float best = b->score[0] / (float)pow(length, o->length_penalty);
    float worst = b->place[b->beams - 1].score; /* places are sorted */
    for (size_t i = 0; i < b->beams; i++)
        if (best > (b->place[i].finished ? worst : worthless)) return true;
    return false;
}

sdx_status sdx_beam_step(sdx_beam *b, const float *scores, size_t rows, size_t vocab, bool *done, sdx_error *err)
{
    if (b->length >= b->stride) return sdx_fail(err, SDX_ERR_USAGE, "the search is over");
    if (!find_top(b, scores, rows, vocab))
        return sdx_fail(err, SDX_ERR_UNSUPPORTED,
                        "%zu beams over %zu tokens have not %zu continuations with a score: is a token both forced and "
                        "suppressed, or the model's output not a number?",
                        b->beams, vocab, b->kept);
    bool open = false;
    for (size_t k = 0; k < b->kept; k++) open |= !b->top[k].ends;
    update_places(b);
    update_rows(b);
    b->improvable = b->improvable && can_improve(b);
    bool full = b->rules->options.early_stopping == SDX_STOP_EARLY && all_finished(b);
    *done = !b->improvable || full || !open;
    return SDX_OK;
}

const int64_t *sdx_beam_rows(const sdx_beam *b, size_t *stride, size_t *length, const size_t **parent)
{
    *stride = b->stride;
    *length = b->length;
    *parent = b->parent;
    return b->rows;
}

const int64_t *sdx_beam_result(const sdx_beam *b, size_t i, size_t *length)
{
    *length = b->place[i].length;
    return b->ended + i * b->stride;
}
