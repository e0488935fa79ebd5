/* generate_config.c: a folder's own rules of generation: generation_config.json, or, in folders older than that
 * file, the same names in config.json. */
#include <stdlib.h>
#include <string.h>

#include "../base/json.h"
#include "../base/memory.h"
#include "generate.h"

enum { DEFAULT_TOP_K = 50, MAX_BAD_WORDS = 1 << 16 };

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

static sdx_status read_eos(const json_t *config, const char *path, sdx_rules *r, sdx_error *err)
{
    const json_t *value = json_object_get(config, "eos_token_id");
    size_t n = json_is_array(value) ? json_array_size(value) : json_is_integer(value);
    if (n > SDX_MAX_EOS)
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "%s: %zu eos_token_id; at most %d are supported", path, n,
                        SDX_MAX_EOS);
    for (size_t i = 0; i < n; i++)
        r->eos[i] = json_integer_value(json_is_array(value) ? json_array_get(value, i) : value);
    r->n_eos = n;
    return SDX_OK;
}

/* A lone end token is no bad word: transformers drops it, too. */
static bool is_end(const sdx_rules *r, const json_t *word)
{
    return json_array_size(word) == 1 && sdx_rules_ends(r, json_integer_value(json_array_get(word, 0)));
}

/* bad_words_ids: [[id, ...], ...] */
static sdx_status read_bad_words(const json_t *config, const char *path, sdx_rules *r, sdx_error *err)
{
    const json_t *list = json_object_get(config, "bad_words_ids");
    size_t n = json_array_size(list), total = 0;
    for (size_t w = 0; w < n; w++) total += json_array_size(json_array_get(list, w));
    if (!total) return SDX_OK;
    if (n > MAX_BAD_WORDS) return sdx_fail(err, SDX_ERR_UNSUPPORTED, "%s: %zu bad words are too many", path, n);
    r->bad_ids = sdx_malloc(total * sizeof *r->bad_ids);
    r->bad_end = sdx_malloc(n * sizeof *r->bad_end);
    if (!r->bad_ids || !r->bad_end) return sdx_fail_memory(err, total * sizeof *r->bad_ids);
    size_t at = 0;
    for (size_t w = 0; w < n; w++) {
        const json_t *word = json_array_get(list, w);
        if (!json_array_size(word) || is_end(r, word)) continue;
        for (size_t i = 0; i < json_array_size(word); i++)
            r->bad_ids[at++] = json_integer_value(json_array_get(word, i));
        r->bad_end[r->n_bad++] = at;
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

/* A max_length of 20 is transformers' own default, which it takes to mean 20 new tokens, or as many as the model has
 * positions for: max_position_embeddings, which GPT-2 calls n_positions. */
static sdx_status read_default_length(const char *const *folders, size_t n, sdx_rules *r, sdx_error *err)
{
    sdx_generate_options *o = &r->options;
    json_t *config = NULL;
    if (o->max_new_tokens || (o->max_length && o->max_length != SDX_DEFAULT_NEW_TOKENS)) return SDX_OK;
    o->max_new_tokens = SDX_DEFAULT_NEW_TOKENS;
    for (size_t i = 0; i < n && !config; i++)
        TRY(sdx_json_read_in(folders[i], "config.json", JSON_OBJECT, 0, &config, err));
    const char *type = json_string_value(json_object_get(config, "model_type"));
    bool gpt2 = type && !strcmp(type, "gpt2");
    r->positions = read_size(config, gpt2 ? "n_positions" : "max_position_embeddings", 0);
    json_decref(config);
    return SDX_OK;
}

/* Settings that would change the ids and are not known here: null, false, 0, 1 and [] are no setting. */
static sdx_status refuse_unknown(const json_t *config, const char *path, sdx_error *err)
{
    static const char *const keys[] = {
        "num_beam_groups",
        "diversity_penalty",
        "penalty_alpha",
        "encoder_no_repeat_ngram_size",
        "encoder_repetition_penalty",
        "exponential_decay_length_penalty",
        "guidance_scale",
        "sequence_bias",
        "min_p",
        "epsilon_cutoff",
        "eta_cutoff",
        "typical_p",
        "forced_decoder_ids",
        "force_words_ids",
        "constraints",
    };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const json_t *value = json_object_get(config, keys[i]);
        double number = json_number_value(value);
        bool set = json_is_number(value) ? number != 0 && number != 1
                                         : json_array_size(value) > 0 || json_object_size(value) > 0;
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
    r.forced_eos = read_id(config, "forced_eos_token_id");
    r.renormalize = json_is_true(json_object_get(config, "renormalize_logits"));
    sdx_status status = refuse_unknown(config, path, err);
    if (status == SDX_OK) status = read_default_length(folders, n, &r, err);
    if (status == SDX_OK) status = read_eos(config, path, &r, err);
    if (status == SDX_OK) status = read_bad_words(config, path, &r, err);
    if (status == SDX_OK) status = read_suppressed(config, &r, err);
    json_decref(config);
    if (status == SDX_OK)
        *out = r;
    else
        sdx_rules_free(&r);
    return status;
}

void sdx_rules_free(sdx_rules *r)
{
    free(r->bad_ids);
    free(r->bad_end);
    free(r->suppressed);
    *r = (sdx_rules){0};
}
