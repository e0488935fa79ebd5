/* generate_rules.c: what may follow. Each rule is one of transformers' logits processors, and they run in its
 * order: biases, repetition penalty, n-grams, bad words, minimal length, forced first and last token, decay,
 * suppressed tokens. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "generate.h"

static void ban(float *scores, size_t vocab, int64_t id)
{
    if (id >= 0 && (uint64_t)id < vocab) scores[id] = -INFINITY;
}

static bool seen_before(const int64_t *ids, size_t i)
{
    for (size_t j = 0; j < i; j++)
        if (ids[j] == ids[i]) return true;
    return false;
}

/* Each token of ids, once (arXiv 1909.05858). */
static void penalize_repetition(double penalty, const int64_t *ids, size_t n, float *scores, size_t vocab)
{
    for (size_t i = 0; i < n; i++) {
        if (ids[i] < 0 || (uint64_t)ids[i] >= vocab || seen_before(ids, i)) continue;
        float *x = &scores[ids[i]];
        *x = *x < 0 ? *x * (float)penalty : *x / (float)penalty;
    }
}

/* What followed the last size - 1 of ids somewhere in text may not follow them again. */
static void ban_ngrams(size_t size, const int64_t *text, size_t length, const int64_t *ids, size_t n, float *scores,
                       size_t vocab)
{
    if (n + 1 < size) return;
    const int64_t *tail = ids + n - (size - 1);
    for (size_t i = 0; i + size <= length; i++)
        if (!memcmp(text + i, tail, (size - 1) * sizeof *ids)) ban(scores, vocab, text[i + size - 1]);
}

static void add_biases(const sdx_words *words, const int64_t *ids, size_t n, float *scores, size_t vocab)
{
    for (size_t w = 0, begin = 0; w < words->count; begin = words->end[w++]) {
        size_t length = words->end[w] - begin;
        const int64_t *word = words->ids + begin, last = word[length - 1];
        if ((length > n && length > 1) || last < 0 || (uint64_t)last >= vocab) continue;
        if (!memcmp(ids + n - (length - 1), word, (length - 1) * sizeof *ids)) scores[last] += words->bias[w];
    }
}

static void force(float *scores, size_t vocab, const int64_t *ids, size_t n)
{
    for (size_t v = 0; v < vocab; v++) scores[v] = -INFINITY;
    for (size_t i = 0; i < n; i++)
        if ((uint64_t)ids[i] < vocab) scores[ids[i]] = 0;
}

/* Ends that are banned stay so. */
static void hasten_end(const sdx_rules *r, size_t n, float *scores, size_t vocab)
{
    float more = (float)(pow(r->decay_factor, (double)(n - r->decay_start)) - 1);
    for (size_t i = 0; i < r->eos.count; i++) {
        uint64_t id = (uint64_t)r->eos.id[i];
        if (id < vocab && isfinite(scores[id])) scores[id] += fabsf(scores[id]) * more;
    }
}

void sdx_rules_apply(const sdx_rules *r, const int64_t *ids, size_t n, float *scores, size_t vocab)
{
    const sdx_generate_options *o = &r->options;
    size_t ngram = o->no_repeat_ngram_size, source_ngram = r->encoder_no_repeat_ngram_size;
    add_biases(&r->biased, ids, n, scores, vocab);
    if (o->repetition_penalty != 1) penalize_repetition(o->repetition_penalty, ids, n, scores, vocab);
    if (ngram) ban_ngrams(ngram, ids, n, ids, n, scores, vocab);
    if (source_ngram) ban_ngrams(source_ngram, r->source, r->n_source, ids, n, scores, vocab);
    add_biases(&r->bad, ids, n, scores, vocab);
    for (size_t i = 0; i < r->eos.count && n < o->min_length; i++) ban(scores, vocab, r->eos.id[i]);
    if (o->forced_bos_token_id >= 0 && n == 1) force(scores, vocab, &o->forced_bos_token_id, 1);
    if (r->forced_eos.count && n + 1 == o->max_length) force(scores, vocab, r->forced_eos.id, r->forced_eos.count);
    if (r->decay_factor != 1 && n > r->decay_start) hasten_end(r, n, scores, vocab);
    size_t suppressed = r->n_suppressed + (n == r->begin ? r->n_begin : 0);
    for (size_t i = 0; i < suppressed; i++) ban(scores, vocab, r->suppressed[i]);
}

bool sdx_rules_ends(const sdx_rules *r, int64_t id)
{
    for (size_t i = 0; i < r->eos.count; i++)
        if (r->eos.id[i] == id) return true;
    return false;
}

sdx_status sdx_rules_fix_lengths(sdx_rules *r, size_t prompt, sdx_error *err)
{
    sdx_generate_options *o = &r->options;
    if (o->max_new_tokens > SDX_MAX_GENERATED || o->max_length > SDX_MAX_GENERATED ||
        prompt > SDX_MAX_GENERATED)
        return sdx_fail(err, SDX_ERR_USAGE, "more than %d tokens are asked for", SDX_MAX_GENERATED);
    /* A first token that is forced is not the first that is chosen. */
    r->begin = prompt == 1 && o->forced_bos_token_id >= 0 ? 2 : prompt;
    if (o->max_new_tokens) o->max_length = prompt + o->max_new_tokens;
    bool by_default = r->default_room && o->max_new_tokens == SDX_DEFAULT_NEW_TOKENS;
    if (by_default && r->positions && o->max_length > r->positions) o->max_length = r->positions;
    r->decay_start += prompt;
    if (o->min_new_tokens) o->min_length = prompt + o->min_new_tokens;
    if (o->max_length > prompt) return SDX_OK;
    return sdx_fail(err, SDX_ERR_USAGE,
                    "the prompt has %zu tokens, max_length is %zu: no room for an answer; "
                    "raise max_length, or give max_new_tokens",
                    prompt, o->max_length);
}
