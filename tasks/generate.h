/* generate.h: the parts of text generation. generate.c drives them: a decoder that turns token sequences into
 * scores (generate_decoder.c), rules that forbid and force tokens (generate_rules.c, read by
 * generate_config.c), the choice of a token at a time (sampler.c) and the beam search (beam.c). All follow
 * transformers' generate(), whose names the options bear. */
#ifndef SDX_TASKS_GENERATE_H
#define SDX_TASKS_GENERATE_H

#include "text_model.h"

enum { SDX_MAX_EOS = 8, SDX_MAX_BEAMS = 1024, SDX_MAX_GENERATED = 1 << 20, SDX_DEFAULT_NEW_TOKENS = 20 };

/* ---- rules ----------------------------------------------------------------------------------------------- */

/* Words of several ids each, one after the other, and what is added to the score of the last id of a word where the
 * others stand already. All owned. */
typedef struct sdx_words {
    int64_t *ids;
    size_t *end; /* [count]: of each word in ids */
    float *bias; /* [count] */
    size_t count;
} sdx_words;

typedef struct sdx_ids {
    int64_t id[SDX_MAX_EOS];
    size_t count;
} sdx_ids;

typedef struct sdx_rules {
    sdx_generate_options options;
    int64_t start;           /* decoder_start_token_id; -1: there is none */
    sdx_ids eos, forced_eos; /* none forced: not forced */
    int64_t *suppressed;     /* [n_suppressed]: never; then [n_begin]: not as the first new token; owned */
    size_t n_suppressed, n_begin, begin; /* begin: length of a row whose next token is the first new one */
    sdx_words biased, bad;
    const int64_t *source; /* [n_source]: the text's own ids; the caller's */
    size_t n_source;
    size_t encoder_no_repeat_ngram_size; /* 0: n-grams of the source may be repeated */
    size_t decay_start;                  /* from that length on, once lengths are fixed, */
    double decay_factor;                 /* an end is more likely with each token; 1: none */
    bool renormalize; /* beams: what the rules leave adds up to one again */
    size_t positions;  /* max_position_embeddings; 0: no limit */
    bool hard_limit;   /* the model has no row for a position behind them */
    bool default_room; /* the length is transformers' default, which stops at the positions */
} sdx_rules;

/* From generation_config.json, else config.json, of the first of the folders that has one. */
sdx_status sdx_rules_read(const char *const *folders, size_t n, sdx_rules *out, sdx_error *err);
void sdx_rules_free(sdx_rules *rules);
/* max_length and min_length from their *_new_tokens, where those are given, for a prompt of that many ids. */
sdx_status sdx_rules_fix_lengths(sdx_rules *rules, size_t prompt, sdx_error *err);
/* Changes scores[vocab], of the token that would follow ids[n]. */
void sdx_rules_apply(const sdx_rules *rules, const int64_t *ids, size_t n, float *scores, size_t vocab);
bool sdx_rules_ends(const sdx_rules *rules, int64_t id);

/* ---- beam search ----------------------------------------------------------------------------------------- */

typedef struct sdx_beam sdx_beam;

/* Every one of options.num_beams rows begins with prompt[n]. The rules, lengths fixed, must outlive the search.
 */
sdx_status sdx_beam_create(const sdx_rules *rules, const int64_t *prompt, size_t n, sdx_beam **out,
                           sdx_error *err);
void sdx_beam_free(sdx_beam *beam);
/* scores: [rows, vocab], log probabilities after the rules; the first row stands for those that are missing. *done:
 * the search is over. */
sdx_status sdx_beam_step(sdx_beam *beam, const float *scores, size_t rows, size_t vocab, bool *done, sdx_error *err);
/* The rows to go on with: row r is ids + r * stride, and continues row parent[r] of the step before. */
const int64_t *sdx_beam_rows(const sdx_beam *beam, size_t *stride, size_t *length, const size_t **parent);
/* Sequence i of num_beams, best first. */
const int64_t *sdx_beam_result(const sdx_beam *beam, size_t i, size_t *length);

/* ---- a token at a time ----------------------------------------------------------------------------------- */

typedef struct sdx_sampler sdx_sampler;

/* Sequences number first, first + 1, ... of a run, which begin with prompt[n]: at most SDX_MAX_BEAMS. */
sdx_status sdx_sampler_create(const sdx_rules *rules, const int64_t *prompt, size_t n, uint64_t first,
                              size_t sequences, sdx_sampler **out, sdx_error *err);
void sdx_sampler_free(sdx_sampler *sampler);
/* As sdx_beam_step; scores need not be probabilities. */
sdx_status sdx_sampler_step(sdx_sampler *sampler, const float *scores, size_t rows, size_t vocab, bool *done,
                            sdx_error *err);
/* As sdx_beam_rows: sequences that ended are no rows. */
const int64_t *sdx_sampler_rows(const sdx_sampler *sampler, size_t *stride, size_t *rows, const size_t **parent);
const int64_t *sdx_sampler_result(const sdx_sampler *sampler, size_t i, size_t *length);

/* ---- decoder --------------------------------------------------------------------------------------------- */

typedef struct sdx_decoder sdx_decoder;

/* path: a folder with encoder_model.onnx and its decoders, a decoder-only graph or its folder, or a checkpoint
 * folder, which is converted in memory. */
sdx_status sdx_decoder_open(const char *path, const sdx_run_options *run, sdx_decoder **out, sdx_error *err);
void sdx_decoder_free(sdx_decoder *decoder);
bool sdx_decoder_has_encoder(const sdx_decoder *decoder);
/* Texts of different lengths may be padded: with an encoder on the right, else on the left. */
bool sdx_decoder_takes_padding(const sdx_decoder *decoder);
/* New texts: forgets the caches; with an encoder, runs it on ids, rows stride apart and padded to the longest. */
sdx_status sdx_decoder_begin(sdx_decoder *decoder, const int64_t *ids, size_t stride, const size_t *lengths,
                             size_t texts, sdx_error *err);
/* Scores of the tokens after ids[rows][length], rows stride apart; row r continues row parent[r] of the last call; in
 * the first call after begin there is a row for each text, and it is its own parent. *logits: [rows, *vocab], the
 * caller's to change, valid until the next call. */
sdx_status sdx_decoder_step(sdx_decoder *decoder, const int64_t *ids, size_t stride, size_t length,
                            const size_t *parent, size_t rows, float **logits, size_t *vocab, sdx_error *err);

#endif
