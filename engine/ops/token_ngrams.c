/* token_ngrams.c: com.microsoft's operators on the n-grams of token ids.
 *
 * NGramRepeatBlock: a token that would complete an n-gram for the second time gets the score -inf.
 *
 * NGramHashMapping (Engram memories): for n from 2 to max_ngram_size the last n ids, ids[t], ids[t-1], ..., each times
 * its multiplier, are joined by exclusive or; every head has that modulo its own size, plus its offset. Before the
 * first id stand past_ids, or pad_id, or the eos_token_id that is given; behind a border (an earlier eos_token_id with
 * reset_on_eos, a change of segment_ids) as well. Numbers wrap in their type.
 */
#include <math.h>
#include <string.h>

#include "compute.h"
#include "contents.h"

/* ---- NGramRepeatBlock ------------------------------------------------------------------------------------ */

static sdx_status infer_repeat(sdx_infer *infer)
{
    if (sdx_node_int(infer->node, "ngram_size", 0) < 1)
        return sdx_fail(infer->err, SDX_ERR_FILE, "ngram_size must be 1 or more");
    TRY(sdx_want_dtype(infer, 0, "input_ids", SDX_SET(SDX_I64)));
    TRY(sdx_want_dtype(infer, 1, "scores", SDX_SET(SDX_F32)));
    TRY(sdx_want_rank(infer, 0, "input_ids", 2, 2));
    TRY(sdx_want_rank(infer, 1, "scores", 2, 2));
    TRY(sdx_want_dim(infer, 1, "scores", 0, sdx_type_dim(&infer->in[0], 0)));
    sdx_infer_set(infer, 0, infer->in[1].dtype, &infer->in[1].shape);
    return SDX_OK;
}

static sdx_status run_repeat(sdx_run *run)
{
    int64_t rows = run->in[0].dim[0], length = run->in[0].dim[1], vocabulary = run->in[1].dim[1];
    int64_t before = sdx_node_int(run->node, "ngram_size", 1) - 1;
    if (rows && vocabulary) memcpy(run->out[0].data, run->in[1].data, (size_t)(rows * vocabulary) * sizeof(float));
    for (int64_t r = 0; r < rows && before < length; r++) {
        const int64_t *ids = (const int64_t *)run->in[0].data + r * length, *last = ids + length - before;
        for (int64_t i = 0; i + before < length; i++) {
            int64_t next = ids[i + before];
            if (before && memcmp(ids + i, last, (size_t)before * sizeof *ids)) continue;
            if (next < 0 || next >= vocabulary)
                return sdx_fail(run->err, SDX_ERR_USAGE, "the id %lld is outside scores of %lld tokens", (long long)next,
                                (long long)vocabulary);
            ((float *)run->out[0].data)[r * vocabulary + next] = -INFINITY;
        }
    }
    return SDX_OK;
}

/* ---- NGramHashMapping ------------------------------------------------------------------------------------ */

enum { IDS, MULTIPLIERS, SIZES, PAST, OFFSETS, EOS, SEGMENTS };
enum { MOST_LENGTH = 64 }; /* of an n-gram */

typedef struct hashing {
    int64_t length, heads, pad; /* the longest n-gram; of each length */
    bool reset;
} hashing;

static sdx_status read_hashing(const sdx_node *n, hashing *h, sdx_error *err)
{
    *h = (hashing){.length = sdx_node_int(n, "max_ngram_size", 0),
                   .heads = sdx_node_int(n, "n_head_per_ngram", 0),
                   .pad = sdx_node_int(n, "pad_id", 0),
                   .reset = sdx_node_int(n, "reset_on_eos", 0) != 0};
    if (h->length >= 2 && h->length <= MOST_LENGTH && h->heads > 0 && h->heads <= INT32_MAX) return SDX_OK;
    return sdx_fail(err, SDX_ERR_FILE, "max_ngram_size %lld and n_head_per_ngram %lld make no sense",
                    (long long)h->length, (long long)h->heads);
}

static sdx_status infer_hashing(sdx_infer *infer)
{
    static const struct {
        const char *name;
        int rank;
    } in[] = {{"input_ids", 2}, {"multipliers", 1}, {"vocab_sizes", 1}, {"past_ids", 2}, {"head_offsets", 1},
              {"eos_token_id", -1}, {"segment_ids", 2}};
    hashing h;
    TRY(read_hashing(infer->node, &h, infer->err));
    TRY(sdx_want_dtype(infer, IDS, in[IDS].name, SDX_SET(SDX_I32) | SDX_SET(SDX_I64)));
    TRY(sdx_want_dtype(infer, SEGMENTS, in[SEGMENTS].name, SDX_SET(SDX_I32)));
    for (int i = IDS; i <= SEGMENTS; i++) {
        if (i != SEGMENTS) TRY(sdx_want_same_dtype(infer, i, in[i].name, IDS, in[IDS].name));
        if (in[i].rank > 0) TRY(sdx_want_rank(infer, i, in[i].name, in[i].rank, in[i].rank));
    }
    const sdx_type *ids = &infer->in[IDS];
    sdx_dim batch = sdx_type_dim(ids, 0), tokens = sdx_type_dim(ids, 1), past = h.length - 1;
    for (int d = 0; d < 2; d++) {
        TRY(sdx_want_dim(infer, PAST, in[PAST].name, d, d ? past : batch));
        TRY(sdx_want_dim(infer, SEGMENTS, in[SEGMENTS].name, d, d ? tokens : batch));
    }
    TRY(sdx_want_dim(infer, SIZES, in[SIZES].name, 0, past * h.heads));
    TRY(sdx_want_dim(infer, OFFSETS, in[OFFSETS].name, 0, past * h.heads));
    sdx_dim multipliers = sdx_type_dim(&infer->in[MULTIPLIERS], 0);
    if (multipliers >= 0 && multipliers < h.length)
        return sdx_fail(infer->err, SDX_ERR_USAGE, "%lld multipliers are not enough for n-grams of %lld",
                        (long long)multipliers, (long long)h.length);
    sdx_shape hashes = {3, {batch, tokens, past * h.heads}}, present = {2, {batch, past}};
    sdx_infer_set(infer, 0, ids->dtype, &hashes);
    sdx_infer_set(infer, 1, ids->dtype, &present);
    return SDX_OK;
}

typedef struct row { /* of ids, with what stands before */
    const sdx_run *run;
    hashing h;
    int64_t at, tokens, fill;
} row;

static int64_t id_at(const row *r, int64_t t)
{
    int64_t past = r->h.length - 1;
    if (t >= 0) return sdx_tensor_get_i64(&r->run->in[IDS], r->at * r->tokens + t);
    return sdx_run_has_in(r->run, PAST) ? sdx_tensor_get_i64(&r->run->in[PAST], r->at * past + past + t) : r->fill;
}

/* Nothing of what stands before token t and up to token t - 1 may be looked at from t on. */
static bool is_border(const row *r, int64_t t)
{
    const sdx_run *run = r->run;
    bool ends = r->h.reset && sdx_run_has_in(run, EOS) && id_at(r, t - 1) == r->fill;
    if (ends || t < 1 || !sdx_run_has_in(run, SEGMENTS)) return ends;
    const int32_t *segment = (const int32_t *)run->in[SEGMENTS].data + r->at * r->tokens;
    return segment[t] != segment[t - 1];
}

/* x as a number of the ids' type. */
static int64_t wrap(sdx_dtype dtype, uint64_t x)
{
    return dtype == SDX_I32 ? (int32_t)(uint32_t)x : (int64_t)x;
}

static void put(const sdx_tensor *t, int64_t i, int64_t number)
{
    size_t size = sdx_dtype_size(t->dtype);
    memcpy((char *)t->data + (size_t)i * size, &number, size);
}

static void hash_token(const row *r, int64_t t)
{
    const sdx_run *run = r->run;
    const hashing *h = &r->h;
    sdx_dtype dtype = run->in[IDS].dtype;
    int64_t n_hash = (h->length - 1) * h->heads, to = (r->at * r->tokens + t) * n_hash;
    uint64_t mix = 0;
    bool behind = false;
    for (int64_t k = 0; k < h->length; k++) {
        behind |= k > 0 && is_border(r, t - k + 1);
        int64_t id = behind ? r->fill : id_at(r, t - k);
        mix ^= (uint64_t)id * (uint64_t)sdx_tensor_get_i64(&run->in[MULTIPLIERS], k);
        for (int64_t i = (k - 1) * h->heads; k > 0 && i < k * h->heads; i++) {
            int64_t size = sdx_tensor_get_i64(&run->in[SIZES], i), code = wrap(dtype, mix) % size;
            uint64_t hash = (uint64_t)(code < 0 ? code + size : code);
            if (sdx_run_has_in(run, OFFSETS)) hash += (uint64_t)sdx_tensor_get_i64(&run->in[OFFSETS], i);
            put(&run->out[0], to + i, wrap(dtype, hash));
        }
    }
}

static sdx_status run_hashing(sdx_run *run)
{
    row r = {.run = run, .tokens = run->in[IDS].dim[1]};
    TRY(read_hashing(run->node, &r.h, run->err));
    for (int64_t i = 0; i < run->in[SIZES].dim[0]; i++)
        if (sdx_tensor_get_i64(&run->in[SIZES], i) <= 0)
            return sdx_fail(run->err, SDX_ERR_USAGE, "vocab_sizes[%lld] is not positive", (long long)i);
    r.fill = r.h.pad;
    if (sdx_run_has_in(run, EOS)) {
        if (sdx_tensor_count(&run->in[EOS]) != 1)
            return sdx_fail(run->err, SDX_ERR_USAGE, "eos_token_id must be one number");
        r.fill = sdx_tensor_get_i64(&run->in[EOS], 0);
    }
    int64_t past = r.h.length - 1;
    for (r.at = 0; r.at < run->in[IDS].dim[0]; r.at++) {
        for (int64_t t = 0; t < r.tokens; t++) hash_token(&r, t);
        for (int64_t i = 0; i < past && sdx_run_has_out(run, 1); i++)
            put(&run->out[1], r.at * past + i, id_at(&r, r.tokens - past + i));
    }
    return SDX_OK;
}

#define MS "com.microsoft"
static const sdx_op_def rows[] = {
    {MS, "NGramRepeatBlock", 1, 0, 2, 2, 1, 1, 0, infer_repeat, NULL, NULL, run_repeat},
    {MS, "NGramHashMapping", 1, 0, 3, 7, 1, 2, 0, infer_hashing, NULL, NULL, run_hashing},
};

SDX_OP_TABLE(token_ngrams);
