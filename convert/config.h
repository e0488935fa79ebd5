/* config.h: config.json of a Hugging Face folder, read into the sizes a family of models needs. */
#ifndef SDX_CONVERT_CONFIG_H
#define SDX_CONVERT_CONFIG_H

#include "../base/status.h"

typedef enum sdx_activation { SDX_GELU, SDX_GELU_TANH, SDX_RELU } sdx_activation;

/* What the known families are described by; each reads the fields it has. */
typedef struct sdx_settings {
    int64_t hidden;    /* H: width of the residual stream */
    int64_t layers;    /* how often rows with a '*' occur */
    int64_t heads;     /* divides H */
    int64_t inner;     /* I: width of the feed-forward layer */
    int64_t vocab;     /* V */
    int64_t positions; /* P: longest sequence */
    int64_t types;     /* T: token types (segments) */
    int64_t labels;    /* L: classes of a classifier */
    sdx_activation activation;
    double norm_epsilon;
    double initializer_range; /* standard deviation of fresh weights */
    bool tied;                /* the output matrix is the word embedding */
} sdx_settings;

typedef struct sdx_config {
    char *path;
    void *json; /* json_t of the root object */
} sdx_config;

/* path: the file, or a folder that holds config.json. */
sdx_status sdx_config_open(const char *path, sdx_config *out, sdx_error *err);
void sdx_config_close(sdx_config *config);

/* The string, or NULL when the key is absent or no string. */
const char *sdx_config_string(const sdx_config *config, const char *key);
/* Name i of "architectures"; NULL beyond the end. */
const char *sdx_config_architecture(const sdx_config *config, size_t i);

/* One whole number of config.json and where it goes. */
typedef struct sdx_config_field {
    const char *key;
    size_t offset;   /* of an int64_t in sdx_settings */
    int64_t missing; /* value when the key is absent; SDX_REQUIRED: an error */
    int64_t limit;   /* values are in [1, limit] */
} sdx_config_field;
#define SDX_REQUIRED (-1)

sdx_status sdx_config_read_fields(const sdx_config *config, const sdx_config_field *field, size_t count,
                                  sdx_settings *settings, sdx_error *err);
sdx_status sdx_config_read_real(const sdx_config *config, const char *key, double missing, double *out,
                                sdx_error *err);
sdx_status sdx_config_read_activation(const sdx_config *config, const char *key, sdx_activation *out,
                                      sdx_error *err);
bool sdx_config_read_bool(const sdx_config *config, const char *key, bool missing);
/* num_labels, or the number of entries of id2label; 2 (Hugging Face's default) when neither is there. */
sdx_status sdx_config_read_labels(const sdx_config *config, int64_t *out, sdx_error *err);
/* heads divides hidden. */
sdx_status sdx_config_check_heads(const sdx_config *config, const sdx_settings *settings, sdx_error *err);

#endif
