/* generate_config.c: a folder's own rules of generation: generation_config.json, or, in folders older than that
 * file, the same names in config.json. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../base/json.h"
#include "../base/memory.h"
#include "generate.h"

enum { DEFAULT_TOP_K = 50, MAX_WORDS = 1 << 16 };

static size_t read_size(const json_t *config, const char *key, size_t missing)
{
    const json_t *value = json_object_get(config, key);
    json_int_t n = json_integer_value(value);
    return json_is_integer(value) && n >= 0 ? (size_t)n : missing;
}

static double read_real(const json_t *config, const char *key, double missing)
{
    const json_t *value = json_object_get(config, key);
    return json_is_number(value) ? json_number_value(value) : missing;
}

/* An id, or the first of a list of them. */
static int64_t read_id(const json_t *config, const char *key)
{
    const json_t *value = json_object_get(config, key);
    if (json_is_array(value)) value = json_array_get(value, 0);
    return json_is_integer(value) ? json_integer_value(value) : -1;
}

/* Some ids that may end an answer: one, or a list. */
static sdx_status read_ends(const json_t *config, const char *path, const char *key, sdx_ids *out, sdx_error *err)
{
    const json_t *value = json_object_get(config, key);
    size_t n = json_is_array(value) ? json_array_size(value) : json_is_integer(value);
    if (n > SDX_MAX_EOS)
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "%s: %zu %s; at most %d are supported", path, n, key, SDX_MAX_EOS);
    for (size_t i = 0; i < n; i++)
        out->id[i] = json_integer_value(json_is_array(value) ? json_array_get(value, i) : value);
    out->count = n;
    return SDX_OK;
}

/* ---- words ----------------------------------------------------------------------------------------------- */

/* Room for n words of that many ids in all. */
static sdx_status allocate_words(sdx_words *words, size_t n, size_t ids, sdx_error *err)
{
    words->ids = sdx_malloc((ids + 1) * sizeof *words->ids);
    words->end = sdx_malloc((n + 1) * sizeof *words->end);
    words->bias = sdx_malloc((n + 1) * sizeof *words->bias);
    if (words->ids && words->end && words->bias) return SDX_OK;
    return sdx_fail_memory(err, ids * sizeof *words->ids);
}

static void add_word(sdx_words *words, const json_t *word, double bias)
{
    size_t at = words->count ? words->end[words->count - 1] : 0;
    for (size_t i = 0; i < json_array_size(word); i++)
        words->ids[at++] = json_integer_value(json_array_get(word, i));
    words->end[words->count] = at;
    words->bias[words->count++] = (float)bias;
}

/* A lone end token is no bad word: transformers drops it, too. */
static bool is_end(const sdx_rules *r, const json_t *word)
{
    return json_array_size(word) == 1 && sdx_rules_ends(r, json_integer_value(json_array_get(word, 0)));
}

/* bad_words_ids: [[id, ...], ...], each a bias of minus infinity; sequence_bias: [[[id, ...], bias], ...] */
static sdx_status read_words(const json_t *config, const char *path, sdx_rules *r, sdx_error *err)
{
    const json_t *bad = json_object_get(config, "bad_words_ids"), *biased = json_object_get(config, "sequence_bias");
    size_t n_bad = json_array_size(bad), n_biased = json_array_size(biased), total_bad = 0, total_biased = 0;
    if (n_bad > MAX_WORDS || n_biased > MAX_WORDS)
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "%s: more than %d bad or biased words", path, MAX_WORDS);
    for (size_t w = 0; w < n_bad; w++) total_bad += json_array_size(json_array_get(bad, w));
    for (size_t w = 0; w < n_biased; w++)
        total_biased += json_array_size(json_array_get(json_array_get(biased, w), 0));
    TRY(allocate_words(&r->bad, n_bad, total_bad, err));
    TRY(allocate_words(&r->biased, n_biased, total_biased, err));
    for (size_t w = 0; w < n_bad; w++) {
        const json_t *word = json_array_get(bad, w);
        if (json_array_size(word) && !is_end(r, word)) add_word(&r->bad, word, -INFINITY);
    }
    for (size_t w = 0; w < n_biased; w++) {
        const json_t *pair = json_array_get(biased, w), *word = json_array_get(pair, 0);
        if (json_array_size(word)) add_word(&r->biased, word, json_number_value(json_array_get(pair, 1)));
    }
    return SDX_OK;
}

static sdx_status read_suppressed(const json_t *config, sdx_rules *r, sdx_error *err)
{
    const json_t *always = json_object_get(config, "suppress_tokens");
    const json_t *begin = json_object_get(config, "begin_suppress_tokens");
    size_t n = json_array_size(always), total = n + json_array_size(begin);
    r->suppressed = sdx_malloc((total + 1) * sizeof *r->suppressed);
    if (!r->suppressed) return sdx_fail_memory(err, total * sizeof *r->suppressed);
    for (size_t i = 0; i < total; i++)
        r->suppressed[i] = json_integer_value(i < n ? json_array_get(always, i) : json_array_get(begin, i - n));
    r->n_suppressed = n;
    r->n_begin = total - n;
    return SDX_OK;
}

static sdx_early_stopping read_early_stopping(const json_t *config)
{
    const json_t *value = json_object_get(config, "early_stopping");
    const char *word = json_string_value(value);
    if (word && !strcmp(word, "never")) return SDX_STOP_NEVER;
    return json_is_true(value) ? SDX_STOP_EARLY : SDX_STOP_HEURISTIC;
}

static void read_options(const json_t *config, sdx_generate_options *o)
{
    *o = (sdx_generate_options){
        .num_beams = read_size(config, "num_beams", 1),
        .max_length = read_size(config, "max_length", 0),
        .min_length = read_size(config, "min_length", 0),
        .max_new_tokens = read_size(config, "max_new_tokens", 0),
        .min_new_tokens = read_size(config, "min_new_tokens", 0),
        .no_repeat_ngram_size = read_size(config, "no_repeat_ngram_size", 0),
        .length_penalty = read_real(config, "length_penalty", 1),
        .repetition_penalty = read_real(config, "repetition_penalty", 1),
        .early_stopping = read_early_stopping(config),
        .num_return_sequences = read_size(config, "num_return_sequences", 1),
        .forced_bos_token_id = read_id(config, "forced_bos_token_id"),
        .do_sample = json_is_true(json_object_get(config, "do_sample")),
        .temperature = read_real(config, "temperature", 1),
        .top_k = read_size(config, "top_k", DEFAULT_TOP_K),
        .top_p = read_real(config, "top_p", 1),
    };
}

/* exponential_decay_length_penalty: [new tokens before it begins, factor] */
static void read_other_rules(const json_t *config, sdx_rules *r)
{
    const json_t *decay = json_object_get(config, "exponential_decay_length_penalty");
    const json_t *start = json_array_get(decay, 0), *factor = json_array_get(decay, 1);
    bool decays = json_is_integer(start) && json_integer_value(start) >= 0 && json_is_number(factor);
    r->decay_start = decays ? (size_t)json_integer_value(start) : 0;
    r->decay_factor = decays ? json_number_value(factor) : 1;
    r->encoder_no_repeat_ngram_size = read_size(config, "encoder_no_repeat_ngram_size", 0);
}

/* max_position_embeddings, which GPT-2 calls n_positions. The families whose positions are rows of a table are named:
 * others, as rotary ones, may go beyond. */
static sdx_status read_positions(const char *const *folders, size_t n, sdx_rules *r, sdx_error *err)
{
    static const char *const tables[] = {"bart", "mbart", "marian", "pegasus", "gpt2"};
    json_t *config = NULL;
    for (size_t i = 0; i < n && !config; i++)
        TRY(sdx_json_read_in(folders[i], "config.json", JSON_OBJECT, 0, &config, err));
    const char *type = json_string_value(json_object_get(config, "model_type"));
    bool gpt2 = type && !strcmp(type, "gpt2");
    r->positions = read_size(config, gpt2 ? "n_positions" : "max_position_embeddings", 0);
    for (size_t i = 0; type && i < sizeof tables / sizeof *tables; i++)
        r->hard_limit = r->hard_limit || (!strcmp(type, tables[i]) && r->positions);
    json_decref(config);
    return SDX_OK;
}

/* A max_length of 20 is transformers' own default, which it takes to mean 20 new tokens, or as many as there are
 * positions. */
static void set_default_length(sdx_rules *r)
{
    sdx_generate_options *o = &r->options;
    if (o->max_new_tokens || (o->max_length && o->max_length != SDX_DEFAULT_NEW_TOKENS)) return;
    o->max_new_tokens = SDX_DEFAULT_NEW_TOKENS;
    r->default_room = true;
}

/* Settings that would change the ids and are not known here: null, false, 0, 1 and [] are no setting. */
static sdx_status refuse_unknown(const json_t *config, const char *path, sdx_error *err)
{
    static const char *const keys[] = {
        "num_beam_groups",
        "diversity_penalty",
        "penalty_alpha",
        "encoder_repetition_penalty",
        "guidance_scale",
        "min_p",
        "epsilon_cutoff",
        "eta_cutoff",
        "typical_p",
        "forced_decoder_ids",
        "force_words_ids",
        "constraints",
        "dola_layers",
        "stop_strings",
        "token_healing",
        "watermarking_config",
    };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const json_t *value = json_object_get(config, keys[i]);
        double number = json_number_value(value);
        bool set = json_is_number(value) ? number != 0 && number != 1
                   : json_is_string(value) || json_is_true(value) || json_array_size(value) > 0 ||
                         json_object_size(value) > 0;
        if (set)
            return sdx_fail(err, SDX_ERR_UNSUPPORTED,
                            "%s: its configuration of generation sets %s, which is not supported", path,
                            keys[i]);
    }
    return SDX_OK;
}

static sdx_status find_config(const char *const *folders, size_t n, const char **path, json_t **out,
                              sdx_error *err)
{
    static const char *const names[] = {"generation_config.json", "config.json"};
    *out = NULL;
    for (size_t k = 0; k < sizeof names / sizeof *names; k++)
        for (size_t i = 0; i < n && !*out; i++) {
            *path = folders[i];
            TRY(sdx_json_read_in(folders[i], names[k], JSON_OBJECT, 0, out, err));
        }
    if (*out) return SDX_OK;
    return sdx_fail(err, SDX_ERR_FILE, "%s: has neither generation_config.json nor config.json", folders[0]);
}

sdx_status sdx_rules_read(const char *const *folders, size_t n, sdx_rules *out, sdx_error *err)
{
    sdx_rules r = {.start = -1};
    json_t *config;
    const char *path = NULL;
    TRY(find_config(folders, n, &path, &config, err));
    read_options(config, &r.options);
    r.start = read_id(config, "decoder_start_token_id");
    if (r.start < 0) r.start = read_id(config, "bos_token_id");
    read_other_rules(config, &r);
    set_default_length(&r);
    r.renormalize = json_is_true(json_object_get(config, "renormalize_logits"));
    sdx_status status = refuse_unknown(config, path, err);
    if (status == SDX_OK) status = read_positions(folders, n, &r, err);
    if (status == SDX_OK) status = read_ends(config, path, "eos_token_id", &r.eos, err);
    if (status == SDX_OK) status = read_ends(config, path, "forced_eos_token_id", &r.forced_eos, err);
    if (status == SDX_OK) status = read_words(config, path, &r, err);
    if (status == SDX_OK) status = read_suppressed(config, &r, err);
    json_decref(config);
    if (status == SDX_OK)
        *out = r;
    else
        sdx_rules_free(&r);
    return status;
}

static void free_words(sdx_words *words)
{
    free(words->ids);
    free(words->end);
    free(words->bias);
}

void sdx_rules_free(sdx_rules *r)
{
    free_words(&r->bad);
    free_words(&r->biased);
    free(r->suppressed);
    *r = (sdx_rules){0};
}
