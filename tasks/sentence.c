/* sentence.c: modules.json and its like (sentence-transformers, Reimers and Gurevych 2019). Only a text's own
 * tokens enter its vector, in double and in order, so that neighbours and padding change no bit. */
#include "sentence.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../base/file.h"
#include "../base/json.h"
#include "../base/memory.h"
#include "../convert/checkpoint.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

/* ---- pooling --------------------------------------------------------------------------------------------- */

typedef enum pooling { POOL_CLS, POOL_MAX, POOL_MEAN, POOL_MEAN_SQRT, POOL_WEIGHTED_MEAN, POOL_LAST } pooling;

/* In the order in which older files' flags (key) join the vectors of several; newer ones list names. */
static const struct {
    const char *key, *name;
} pooling_modes[SDX_POOLING_MODES] = {
    [POOL_CLS] = {"pooling_mode_cls_token", "cls"},
    [POOL_MAX] = {"pooling_mode_max_tokens", "max"},
    [POOL_MEAN] = {"pooling_mode_mean_tokens", "mean"},
    [POOL_MEAN_SQRT] = {"pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens"},
    [POOL_WEIGHTED_MEAN] = {"pooling_mode_weightedmean_tokens", "weightedmean"},
    [POOL_LAST] = {"pooling_mode_lasttoken", "lasttoken"},
};

/* Number d of the vector of tokens [from, length). x: [length, dim]. The first and the last token are those of
 * all, and a token's weight is its place among all, also when the first are skipped. Of no tokens the means are
 * 0. */
static double pooled(pooling mode, const float *x, size_t from, size_t length, size_t dim, size_t d)
{
    double sum = 0, weight = 0;
    switch (mode) {
    case POOL_CLS: return x[d];
    case POOL_LAST: return x[(length - 1) * dim + d];
    case POOL_MAX:
        sum = from < length ? x[from * dim + d] : -1e9;
        for (size_t t = from; t < length; t++) sum = fmax(sum, x[t * dim + d]);
        return sum;
    case POOL_WEIGHTED_MEAN: /* later tokens weigh more */
        for (size_t t = from; t < length; t++) {
            sum += (double)(t + 1) * x[t * dim + d];
            weight += (double)(t + 1);
        }
        return sum / fmax(weight, 1e-9);
    default:
        for (size_t t = from; t < length; t++) sum += x[t * dim + d];
        weight = fmax((double)(length - from), 1e-9);
        return sum / (mode == POOL_MEAN ? weight : sqrt(weight));
    }
}

/* ---- layers ---------------------------------------------------------------------------------------------- */

static double identity(double x) { return x; }
static double relu(double x) { return fmax(x, 0); }
static double gelu(double x) { return 0.5 * x * (1 + erf(x / sqrt(2))); }
static double sigmoid(double x) { return 1 / (1 + exp(-x)); }
static double silu(double x) { return x * sigmoid(x); }

/* By the last part of the class's name: "torch.nn.modules.activation.Tanh". */
static const struct {
    const char *name;
    double (*fn)(double);
} activations[] = {
    {"Identity", identity}, {"Tanh", tanh},       {"ReLU", relu},
    {"GELU", gelu},         {"Sigmoid", sigmoid}, {"SiLU", silu},
};

static double *normalize(const sdx_sentence_layer *l, double *in, double *out)
{
    double square = 0;
    (void)out;
    for (size_t i = 0; i < l->in; i++) square += in[i] * in[i];
    double norm = fmax(sqrt(square), 1e-12);
    for (size_t i = 0; i < l->in; i++) in[i] /= norm;
    return in;
}

static double *layer_norm(const sdx_sentence_layer *l, double *in, double *out)
{
    double mean = 0, variance = 0, n = (double)l->in;
    (void)out;
    for (size_t i = 0; i < l->in; i++) mean += in[i] / n;
    for (size_t i = 0; i < l->in; i++) variance += (in[i] - mean) * (in[i] - mean) / n;
    double scale = 1 / sqrt(variance + 1e-5); /* torch.nn.LayerNorm's own */
    for (size_t i = 0; i < l->in; i++) in[i] = (in[i] - mean) * scale * l->weight[i] + l->bias[i];
    return in;
}

static double *dense(const sdx_sentence_layer *l, double *in, double *out)
{
    for (size_t o = 0; o < l->out; o++) {
        double sum = l->bias ? l->bias[o] : 0;
        for (size_t i = 0; i < l->in; i++) sum += in[i] * l->weight[o * l->in + i];
        out[o] = l->activation(sum);
    }
    return out;
}

void sdx_sentence_vector(const sdx_sentence *s, const float *x, size_t length, size_t prompt, float *out)
{
    double *now = s->work, *next = s->work + s->widest, *to = now;
    size_t from = !s->skips_prompt ? 0 : prompt < length ? prompt : length;
    for (size_t p = 0; p < s->pools; p++)
        for (size_t d = 0; d < s->token_dim; d++)
            *to++ = pooled((pooling)s->pool[p], x, from, length, s->token_dim, d);
    for (size_t i = 0; i < s->layers; i++) {
        double *result = s->layer[i].run(&s->layer[i], now, next);
        if (result == next) {
            next = now;
            now = result;
        }
    }
    for (size_t d = 0; d < s->dim; d++) out[d] = (float)now[d];
}

/* ---- the files ------------------------------------------------------------------------------------------- */

typedef struct reader {
    sdx_sentence *s;
    const char *folder, *transformer; /* where modules.json is, and where the transformer */
    size_t width;                     /* of the vector so far; 0: not yet pooled */
} reader;

static const char *last_part(const char *type)
{
    const char *dot = strrchr(type, '.');
    return dot ? dot + 1 : type;
}

/* config.json of a module's folder. */
static sdx_status read_config(const reader *r, const char *module, json_t **out, sdx_error *err)
{
    char *folder = sdx_path_join(r->folder, module);
    if (!folder) return sdx_fail_memory(err, 1);
    sdx_status status = sdx_json_read_in(folder, "config.json", JSON_OBJECT, 0, out, err);
    if (status == SDX_OK && !*out) status = sdx_fail(err, SDX_ERR_FILE, "%s/config.json: no such file", folder);
    free(folder);
    return status;
}

/* "pooling_mode": a name or a list of names, joined in its order. False: one that is not known, or too many. */
static bool name_mode(sdx_sentence *s, const json_t *name)
{
    for (size_t i = 0; i < json_array_size(name); i++)
        if (!name_mode(s, json_array_get(name, i))) return false;
    if (json_is_array(name)) return true;
    for (int mode = 0; mode < SDX_POOLING_MODES; mode++) {
        if (!json_is_string(name) || strcmp(json_string_value(name), pooling_modes[mode].name)) continue;
        if (s->pools == SDX_POOLING_MODES) return false;
        s->pool[s->pools++] = mode;
        return true;
    }
    return false;
}

/* Older files: a flag for each mode. */
static void flag_modes(sdx_sentence *s, const json_t *config)
{
    for (int mode = 0; mode < SDX_POOLING_MODES; mode++) {
        const json_t *flag = json_object_get(config, pooling_modes[mode].key);
        if (flag ? json_is_true(flag) : mode == POOL_MEAN) s->pool[s->pools++] = mode;
    }
}

static sdx_status read_pooling(reader *r, const char *module, sdx_error *err)
{
    json_t *config;
    TRY(read_config(r, module, &config, err));
    const json_t *names = sdx_json_member(config, "pooling_mode");
    bool known = !names || name_mode(r->s, names);
    if (!names) flag_modes(r->s, config);
    r->width = r->s->pools * r->s->token_dim;
    r->s->skips_prompt = json_is_false(json_object_get(config, "include_prompt"));
    json_decref(config);
    if (known && r->width > 0) return SDX_OK;
    return sdx_fail(err, SDX_ERR_UNSUPPORTED,
                    "%s/%s/config.json: names no pooling mode, or one that is not known", r->folder, module);
}

static sdx_status add_layer(reader *r, double *(*run)(const sdx_sentence_layer *, double *, double *),
                            sdx_sentence_layer **out, sdx_error *err)
{
    sdx_sentence *s = r->s;
    sdx_sentence_layer *bigger = sdx_realloc(s->layer, (s->layers + 1) * sizeof *bigger);
    if (!bigger) return sdx_fail_memory(err, (s->layers + 1) * sizeof *bigger);
    s->layer = bigger;
    *out = &bigger[s->layers++];
    **out = (sdx_sentence_layer){.in = r->width, .out = r->width, .run = run};
    return SDX_OK;
}

static sdx_status load(const sdx_checkpoint *c, const char *name, int rank, const int64_t *dim, float **out,
                       sdx_error *err)
{
    const sdx_tensor *t;
    TRY(sdx_checkpoint_get(c, name, rank, dim, &t, err));
    *out = sdx_malloc((size_t)sdx_tensor_count(t) * sizeof **out);
    if (!*out) return sdx_fail_memory(err, (size_t)sdx_tensor_count(t) * sizeof **out);
    sdx_weight_load(t, 0, sdx_tensor_count(t), *out);
    return SDX_OK;
}

/* The module's weight, of that rank, and bias. */
static sdx_status load_weights(const reader *r, const char *module, const char *const names[2], int rank,
                               bool bias, sdx_sentence_layer *l, sdx_error *err)
{
    sdx_checkpoint *c = NULL;
    int64_t dims[] = {(int64_t)l->out, (int64_t)l->in};
    char *folder = sdx_path_join(r->folder, module);
    if (!folder) return sdx_fail_memory(err, 1);
    sdx_status status = sdx_checkpoint_open(folder, &c, err);
    if (status == SDX_OK) status = load(c, names[0], rank, dims, &l->weight, err);
    if (status == SDX_OK && bias) status = load(c, names[1], 1, dims, &l->bias, err);
    if (c) sdx_checkpoint_close(c);
    free(folder);
    return status;
}

static sdx_status choose_activation(const json_t *config, sdx_sentence_layer *l, sdx_error *err)
{
    const char *type = json_string_value(json_object_get(config, "activation_function"));
    for (size_t i = 0; i < COUNT(activations); i++)
        if (!strcmp(activations[i].name, type ? last_part(type) : "Tanh")) l->activation = activations[i].fn;
    return l->activation ? SDX_OK
                         : sdx_fail(err, SDX_ERR_UNSUPPORTED, "activation %.100s is not supported", type);
}

static sdx_status read_dense_config(const reader *r, const json_t *config, sdx_sentence_layer *l,
                                    sdx_error *err)
{
    size_t in;
    const char *input = json_string_value(json_object_get(config, "module_input_name"));
    TRY(sdx_json_size(config, "in_features", 0, &in, err));
    TRY(sdx_json_size(config, "out_features", 0, &l->out, err));
    if (input && strcmp(input, "sentence_embedding"))
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "a dense layer on %.100s is not supported", input);
    if (json_is_true(json_object_get(config, "use_residual")))
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "a dense layer with use_residual is not supported");
    if (in != r->width || l->out < 1)
        return sdx_fail(err, SDX_ERR_FILE, "a dense layer from %zu to %zu does not fit vectors of %zu", in,
                        l->out, r->width);
    return choose_activation(config, l, err);
}

static sdx_status read_dense(reader *r, const char *module, sdx_error *err)
{
    json_t *config;
    sdx_sentence_layer *l;
    bool bias = true;
    TRY(read_config(r, module, &config, err));
    sdx_status status = add_layer(r, dense, &l, err);
    if (status == SDX_OK) status = sdx_json_bool(config, "bias", true, &bias, err);
    if (status == SDX_OK) status = read_dense_config(r, config, l, err);
    if (status == SDX_OK)
        status =
            load_weights(r, module, (const char *const[]){"linear.weight", "linear.bias"}, 2, bias, l, err);
    json_decref(config);
    if (status != SDX_OK) sdx_error_context(err, "%s/%s", r->folder, module);
    else r->width = l->out;
    return status;
}

static sdx_status read_layer_norm(reader *r, const char *module, sdx_error *err)
{
    sdx_sentence_layer *l;
    TRY(add_layer(r, layer_norm, &l, err));
    sdx_status status =
        load_weights(r, module, (const char *const[]){"norm.weight", "norm.bias"}, 1, true, l, err);
    if (status != SDX_OK) sdx_error_context(err, "%s/%s", r->folder, module);
    return status;
}

static sdx_status read_normalize(reader *r, const char *module, sdx_error *err)
{
    sdx_sentence_layer *l;
    (void)module;
    return add_layer(r, normalize, &l, err);
}

static sdx_status read_nothing(reader *r, const char *module, sdx_error *err)
{
    (void)r, (void)module, (void)err;
    return SDX_OK;
}

static const struct {
    const char *kind;
    bool on_tokens; /* else on the vector of a text */
    sdx_status (*read)(reader *r, const char *module, sdx_error *err);
} module_kinds[] = {
    {"Transformer", true, read_nothing}, {"Pooling", true, read_pooling},
    {"Dense", false, read_dense},        {"LayerNorm", false, read_layer_norm},
    {"Dropout", false, read_nothing},    {"Normalize", false, read_normalize},
};

/* What an entry of modules.json says it is, by the last part of its type's name, and where. */
static sdx_status name_module(const char *folder, const json_t *module, const char **kind, const char **path,
                              sdx_error *err)
{
    const char *type = json_string_value(json_object_get(module, "type"));
    *path = json_string_value(json_object_get(module, "path"));
    if (!type || !*path)
        return sdx_fail(err, SDX_ERR_FILE, "%s/modules.json: a module lacks type or path", folder);
    if (strstr(*path, "..") || **path == '/')
        return sdx_fail(err, SDX_ERR_FILE, "%s/modules.json: path \"%.80s\" leaves the folder", folder, *path);
    *kind = last_part(type);
    return SDX_OK;
}

static sdx_status read_module(reader *r, const json_t *module, sdx_error *err)
{
    const char *kind, *path;
    TRY(name_module(r->folder, module, &kind, &path, err));
    for (size_t i = 0; i < COUNT(module_kinds); i++) {
        if (strcmp(module_kinds[i].kind, kind)) continue;
        if (module_kinds[i].on_tokens != (r->width == 0))
            return sdx_fail(err, SDX_ERR_UNSUPPORTED,
                            "%s/modules.json: %.100s is on the wrong side of the pooling", r->folder, kind);
        return module_kinds[i].read(r, path, err);
    }
    return sdx_fail(err, SDX_ERR_UNSUPPORTED, "%s/modules.json: module type %.100s is not supported", r->folder,
                    kind);
}

static sdx_status read_modules(reader *r, sdx_error *err)
{
    json_t *modules;
    TRY(sdx_json_read_in(r->folder, "modules.json", JSON_ARRAY, 0, &modules, err));
    if (!modules) {
        r->s->pool[r->s->pools++] = POOL_MEAN;
        r->width = r->s->token_dim;
        return read_normalize(r, "", err);
    }
    sdx_status status = SDX_OK;
    for (size_t i = 0; i < json_array_size(modules) && status == SDX_OK; i++)
        status = read_module(r, json_array_get(modules, i), err);
    json_decref(modules);
    if (status == SDX_OK && r->width == 0)
        status = sdx_fail(err, SDX_ERR_UNSUPPORTED, "%s/modules.json: has no pooling", r->folder);
    return status;
}

/* The transformer's own settings, under the first name there is, as sentence-transformers looks for them; where
 * they say no length, a text has no more tokens than the model positions. */
static sdx_status read_settings(reader *r, sdx_error *err)
{
    static const char *const names[] = {
        "sentence_bert_config.json",      "sentence_roberta_config.json", "sentence_distilbert_config.json",
        "sentence_camembert_config.json", "sentence_albert_config.json",  "sentence_xlm-roberta_config.json",
        "sentence_xlnet_config.json",
    };
    json_t *settings = NULL;
    for (size_t i = 0; i < COUNT(names) && !settings; i++)
        TRY(sdx_json_read_in(r->transformer, names[i], JSON_OBJECT, 0, &settings, err));
    sdx_status status = sdx_json_size(settings, "max_seq_length", 0, &r->s->max_length, err);
    if (status == SDX_OK) status = sdx_json_bool(settings, "do_lower_case", false, &r->s->lower_case, err);
    json_decref(settings);
    if (status != SDX_OK) return status;
    TRY(sdx_json_read_in(r->transformer, "config.json", JSON_OBJECT, 0, &settings, err));
    status = sdx_json_size(settings, "max_position_embeddings", 0, &r->s->positions, err);
    json_decref(settings);
    return status;
}

const char *sdx_sentence_prompt(const sdx_sentence *s, const char *name)
{
    const json_t *text = json_object_get(s->prompts, name);
    return json_is_null(text) ? "" : json_string_value(text);
}

static sdx_status read_prompts(reader *r, sdx_error *err)
{
    json_t *config;
    TRY(sdx_json_read_in(r->folder, "config_sentence_transformers.json", JSON_OBJECT, 0, &config, err));
    const char *name = json_string_value(json_object_get(config, "default_prompt_name"));
    r->s->prompts = json_incref((json_t *)sdx_json_member(config, "prompts"));
    r->s->default_prompt = name ? sdx_sentence_prompt(r->s, name) : NULL;
    json_decref(config);
    if (!name || r->s->default_prompt) return SDX_OK;
    return sdx_fail(err, SDX_ERR_FILE,
                    "%s/config_sentence_transformers.json: default_prompt_name \"%.100s\" is no prompt",
                    r->folder, name);
}

sdx_status sdx_sentence_transformer(const char *folder, char **out, sdx_error *err)
{
    json_t *modules;
    const char *kind = "", *path = "";
    TRY(sdx_json_read_in(folder, "modules.json", JSON_ARRAY, 0, &modules, err));
    sdx_status status = modules ? name_module(folder, json_array_get(modules, 0), &kind, &path, err) : SDX_OK;
    *out = status == SDX_OK && !strcmp(kind, "Transformer") ? sdx_path_join(folder, path) : NULL;
    if (status == SDX_OK && (!*out || !*path || !sdx_is_directory(*out))) {
        free(*out);
        *out = sdx_strdup(folder);
    }
    json_decref(modules);
    return status == SDX_OK && !*out ? sdx_fail_memory(err, strlen(folder)) : status;
}

sdx_status sdx_sentence_open(const char *folder, const char *transformer, size_t token_dim, sdx_sentence *out,
                             sdx_error *err)
{
    sdx_sentence s = {.token_dim = token_dim};
    reader r = {&s, folder, transformer, 0};
    sdx_status status;
    TRY_GOTO(read_modules(&r, err));
    TRY_GOTO(read_settings(&r, err));
    TRY_GOTO(read_prompts(&r, err));
    s.dim = s.widest = r.width;
    for (size_t i = 0; i < s.layers; i++)
        if (s.layer[i].in > s.widest) s.widest = s.layer[i].in;
    s.work = sdx_calloc(2 * s.widest, sizeof *s.work);
    if (!s.work) status = sdx_fail_memory(err, 2 * s.widest * sizeof *s.work);
done:
    if (status != SDX_OK) sdx_sentence_close(&s);
    else *out = s;
    return status;
}

void sdx_sentence_close(sdx_sentence *s)
{
    for (size_t i = 0; i < s->layers; i++) {
        free(s->layer[i].weight);
        free(s->layer[i].bias);
    }
    free(s->layer);
    free(s->work);
    json_decref(s->prompts);
    *s = (sdx_sentence){0};
}
