/* config.c: see config.h */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/file.h"
#include "../base/json.h"
#include "../base/memory.h"

enum { MAX_LABELS = 1 << 20 };

static const struct {
    const char *name;
    sdx_activation activation;
} activations[] = {
    {"gelu", SDX_GELU}, {"gelu_new", SDX_GELU_TANH},  {"relu", SDX_RELU},  {"gelu_pytorch_tanh", SDX_GELU_TANH},
    {"silu", SDX_SILU}, {"gelu_fast", SDX_GELU_TANH}, {"swish", SDX_SILU}, {"gelu_python", SDX_GELU},
    {"tanh", SDX_TANH}, {"gelu_accurate", SDX_GELU_TANH}, {"gelu_python_tanh", SDX_GELU_TANH},
    {"quick_gelu", SDX_QUICK_GELU}, {"sigmoid", SDX_SIGMOID}, {"mish", SDX_MISH}, {"relu6", SDX_RELU6},
    {"relu2", SDX_RELU_SQUARED}, {"leaky_relu", SDX_LEAKY_RELU}, {"linear", SDX_IDENTITY},
};

sdx_status sdx_config_open(const char *path, sdx_config *out, sdx_error *err)
{
    sdx_config c = {.path = sdx_is_directory(path) ? sdx_path_join(path, "config.json") : sdx_strdup(path)};
    if (!c.path) return sdx_fail_memory(err, strlen(path));
    json_t *json = NULL;
    sdx_status status = sdx_json_read(c.path, JSON_OBJECT, JSON_REJECT_DUPLICATES, &json, err);
    c.json = json;
    if (status == SDX_OK)
        *out = c;
    else
        sdx_config_close(&c);
    return status;
}

void sdx_config_close(sdx_config *config)
{
    json_decref(config->json);
    free(config->path);
    *config = (sdx_config){0};
}

/* null counts as absent, as in Hugging Face. "a.b" is b of object a: no key there has a dot. */
static json_t *find(const sdx_config *c, const char *key)
{
    json_t *value = c->json;
    for (size_t n; *key; key += n + (key[n] == '.')) {
        n = strcspn(key, ".");
        value = json_object_getn(value, key, n);
    }
    return json_is_null(value) ? NULL : value;
}

const char *sdx_config_string(const sdx_config *c, const char *key)
{
    return json_string_value(find(c, key));
}

const char *sdx_config_architecture(const sdx_config *c, size_t i)
{
    return json_string_value(json_array_get(json_object_get(c->json, "architectures"), i));
}

static bool has_word(const char *text, const char *word)
{
    size_t length = strlen(word);
    for (const char *p = text; (p = strstr(p, word)); p += length) {
        bool begins = p == text || p[-1] == '|' || p[-1] == ' ';
        bool ends = !p[length] || p[length] == '|' || p[length] == ' ';
        if (begins && ends) return true;
    }
    return false;
}

bool sdx_config_lists(const sdx_config *c, const char *key, const char *word)
{
    json_t *value = find(c, key), *item;
    const char *text = json_string_value(value);
    size_t i;
    if (text) return has_word(text, word);
    json_array_foreach(value, i, item)
    {
        const char *one = json_string_value(item);
        if (one && !strcmp(one, word)) return true;
    }
    return false;
}

static sdx_status read_field(const sdx_config *c, const sdx_config_field *f, sdx_settings *settings,
                             sdx_error *err)
{
    json_t *value = find(c, f->key);
    int64_t n = value ? json_integer_value(value) : f->missing;
    if (!value && f->missing == SDX_REQUIRED)
        return sdx_fail(err, SDX_ERR_FILE, "%s: has no \"%s\"", c->path, f->key);
    if (value && (!json_is_integer(value) || ((n < f->least || n > f->most) && n != f->missing)))
        return sdx_fail(err, SDX_ERR_FILE, "%s: \"%s\" must be a whole number from %lld to %lld", c->path,
                        f->key, (long long)f->least, (long long)f->most);
    memcpy((char *)settings + f->offset, &n, sizeof n);
    return SDX_OK;
}

sdx_status sdx_config_read_fields(const sdx_config *c, const sdx_config_field *field, size_t count,
                                  sdx_settings *settings, sdx_error *err)
{
    for (size_t i = 0; i < count; i++) TRY(read_field(c, &field[i], settings, err));
    return SDX_OK;
}

sdx_status sdx_config_read_real(const sdx_config *c, const char *key, double missing, double below, double *out,
                                sdx_error *err)
{
    json_t *value = find(c, key);
    double x = value ? json_number_value(value) : missing;
    if (value && (!json_is_number(value) || !(x > 0 && x < below)))
        return sdx_fail(err, SDX_ERR_FILE, "%s: \"%s\" must be a number between 0 and %g", c->path, key, below);
    *out = x;
    return SDX_OK;
}

sdx_status sdx_config_read_activation(const sdx_config *c, const char *key, sdx_activation missing,
                                      sdx_activation *out, sdx_error *err)
{
    json_t *value = find(c, key);
    const char *name = json_string_value(value);
    *out = missing;
    if (!value) return SDX_OK;
    char known[384] = "";
    for (size_t i = 0, n = 0; i < sizeof activations / sizeof *activations; i++) {
        if (name && !strcmp(name, activations[i].name)) {
            *out = activations[i].activation;
            return SDX_OK;
        }
        n += (size_t)snprintf(known + n, sizeof known - n, "%s%s", i ? ", " : "", activations[i].name);
    }
    return sdx_fail(err, SDX_ERR_UNSUPPORTED, "%s: \"%s\" is \"%.40s\"; known are %s", c->path, key,
                    name ? name : "no string", known);
}

sdx_status sdx_config_read_list(const sdx_config *c, const char *key, int64_t least, int64_t most, int64_t *out,
                                int64_t *count, sdx_error *err)
{
    json_t *list = find(c, key), *item;
    size_t i, n = json_array_size(list);
    if (n < 1 || n > SDX_CONVOLUTIONS)
        return sdx_fail(err, SDX_ERR_FILE, "%s: \"%s\" must be a list of 1 to %d numbers", c->path, key,
                        SDX_CONVOLUTIONS);
    json_array_foreach(list, i, item)
    {
        out[i] = json_integer_value(item);
        if (!json_is_integer(item) || out[i] < least || out[i] > most)
            return sdx_fail(err, SDX_ERR_FILE, "%s: \"%s\" must hold whole numbers from %lld to %lld", c->path,
                            key, (long long)least, (long long)most);
    }
    *count = (int64_t)n;
    return SDX_OK;
}

sdx_status sdx_config_read_pair(const sdx_config *c, const char *key, int64_t missing, int64_t most, int64_t *out,
                                sdx_error *err)
{
    json_t *value = find(c, key);
    bool list = json_is_array(value) && json_array_size(value) == 2;
    for (size_t i = 0; i < 2; i++) {
        json_t *one = list ? json_array_get(value, i) : value;
        out[i] = value ? json_integer_value(one) : missing;
        if (value && (!json_is_integer(one) || out[i] < 1 || out[i] > most))
            return sdx_fail(err, SDX_ERR_FILE, "%s: \"%s\" must be a whole number from 1 to %lld, or two of them",
                            c->path, key, (long long)most);
    }
    return SDX_OK;
}

sdx_status sdx_config_read_period(const sdx_config *c, const char *key, const char *word, int64_t *out,
                                  sdx_error *err)
{
    json_t *list = find(c, key), *item;
    size_t n = json_array_size(list), period = n, i;
    if (!list) return SDX_OK;
    for (i = 1; i < period; i++) {
        const char *text = json_string_value(json_array_get(list, i));
        if (text && !strcmp(text, word)) period = i;
    }
    json_array_foreach(list, i, item)
    {
        const char *text = json_string_value(item);
        if (!text || (i % period == 0) != !strcmp(text, word))
            return sdx_fail(err, SDX_ERR_UNSUPPORTED, "%s: \"%s\" must have \"%s\" first and at even intervals",
                            c->path, key, word);
    }
    if (n) *out = (int64_t)period;
    return SDX_OK;
}

bool sdx_config_read_bool(const sdx_config *c, const char *key, bool missing)
{
    json_t *value = find(c, key);
    return json_is_boolean(value) ? json_is_true(value) : missing;
}

sdx_status sdx_config_read_labels(const sdx_config *c, int64_t *out, sdx_error *err)
{
    json_t *names = find(c, "id2label"), *number = find(c, "num_labels");
    json_int_t n = number ? json_integer_value(number) : names ? (json_int_t)json_object_size(names) : 2;
    if (n < 1 || n > MAX_LABELS)
        return sdx_fail(err, SDX_ERR_FILE, "%s: the number of labels must be from 1 to %d", c->path,
                        MAX_LABELS);
    *out = n;
    return SDX_OK;
}

sdx_status sdx_config_check_heads(const sdx_config *c, const sdx_settings *s, sdx_error *err)
{
    if (s->hidden % s->heads == 0) return SDX_OK;
    return sdx_fail(err, SDX_ERR_FILE, "%s: %lld attention heads do not divide the hidden size %lld", c->path,
                    (long long)s->heads, (long long)s->hidden);
}
