/* search.h: the choice of tokens in BeamSearch and GreedySearch, apart from where the scores come from. */
#ifndef SDX_OPS_SEARCH_H
#define SDX_OPS_SEARCH_H

#include "ops.h"

typedef struct sdx_search_rules {
    int64_t batch, beams, vocab;
    int64_t prompt, max_length, min_length; /* in tokens */
    int64_t ngram;                          /* of this length none may repeat; 0: any may */
    int64_t eos, pad;
    float length_penalty, repetition_penalty;
    bool greedy;                /* the best token of raw logits, instead of beams */
    bool early;                 /* a text is done once it has as many endings as beams */
    const int32_t *vocab_mask;  /* [vocab] 0: never; or NULL */
    const int32_t *prefix_mask; /* [batch, vocab] 0: not as first token; or NULL */
} sdx_search_rules;

typedef struct sdx_search_candidate {
    int64_t row, token;
    float score;
} sdx_search_candidate;

/* A sequence that came to its end. */
typedef struct sdx_search_ending {
    int64_t length;
    float score;     /* with the length penalty */
    int32_t *tokens; /* [max_length] */
} sdx_search_ending;

typedef struct sdx_search {
    sdx_search_rules rules;
    int64_t rows;               /* batch * beams */
    int64_t length;             /* tokens that every sequence has */
    int32_t *sequence, *next;   /* [rows, max_length] */
    int64_t *parent;            /* [rows]: of the step before, that a row goes on from */
    float *score;               /* [rows]: sums of log probabilities */
    sdx_search_candidate *top;  /* [2 * beams], best first */
    sdx_search_ending *ending;  /* [batch, beams], best first */
    int64_t *endings;           /* [batch] */
    bool *done;                 /* [batch] */
    int64_t open;               /* texts that are not done */
} sdx_search;

/* All memory is the arena's. prompt: [batch, rules->prompt]. */
sdx_status sdx_search_init(sdx_search *search, const sdx_search_rules *rules, const int32_t *prompt, sdx_arena *arena,
                           sdx_error *err);
/* logits: [rows, vocab], overwritten by the scores that decide. Afterwards length is one more, and parent is set. */
void sdx_search_step(sdx_search *search, float *logits);
/* The best `count` sequences of every text, filled up with pad: sequences [batch, count, max_length], scores
 * [batch, count] or NULL. */
void sdx_search_finish(sdx_search *search, int64_t count, int32_t *sequences, float *scores);

#endif
