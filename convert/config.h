/* config.h: config.json of a Hugging Face folder, read into the sizes a family of models needs. */
#ifndef SDX_CONVERT_CONFIG_H
#define SDX_CONVERT_CONFIG_H

#include <stddef.h>

#include "../base/status.h"

typedef enum sdx_activation {
    SDX_GELU,
    SDX_GELU_TANH,
    SDX_RELU,
    SDX_SILU,
    SDX_TANH,
    SDX_QUICK_GELU, /* x * sigmoid(1.702 x) */
    SDX_SIGMOID,
    SDX_MISH, /* x * tanh(log(1 + e^x)) */
    SDX_RELU6,
    SDX_RELU_SQUARED,
    SDX_LEAKY_RELU, /* slope 0.01 */
    SDX_IDENTITY,
} sdx_activation;

enum { SDX_CONVOLUTIONS = 16 };

/* What the known families are described by; each reads the fields it has. */
typedef struct sdx_settings {
    int64_t hidden;    /* H: width of the residual stream */
    int64_t embedding; /* E: width of the embeddings */
    int64_t layers;    /* how often rows with a '*' occur */
    int64_t heads;     /* N; divides H */
    int64_t inner;     /* I: width of the feed-forward layer */
    int64_t vocab;     /* V */
    int64_t positions; /* P: rows of the position embedding */
    int64_t longest;   /* tokens of the longest sequence */
    int64_t types;     /* T: token types (segments); 0: there are none */
    int64_t labels;    /* L: classes of a classifier */
    int64_t pad;       /* id of the padding token; GPT-2: or -1 */
    int64_t begin, end; /* BART: ids of the token a decoder starts with, and of a text's last */
    bool type_input;   /* token_type_ids are an input of the model */

    int64_t buckets;                     /* R: buckets of relative positions */
    int64_t distance;                    /* farthest relative position that has a bucket of its own */
    bool relative, relative_keys;        /* BERT: positions are relative and meet queries; and keys */
    bool relative_whole;                 /* ALBERT: what they give is not divided as scores are */
    int64_t kernel;                      /* K: width of a convolution */
    int64_t groups;                      /* of a convolution */
    bool logarithmic;                    /* DeBERTa: far positions share buckets */
    int64_t stacks, inner_groups, depth; /* ALBERT: groups of layers, layers in a group, groups run */
    int64_t window, period;           /* ModernBERT: reach of local attention; each period-th layer is global */
    double local_theta, global_theta; /* ModernBERT: bases of the rotary embeddings */
    bool mean_pooling;                /* a classifier reads the mean of all tokens instead of the first */

    int64_t decoder_layers, decoder_heads, decoder_inner; /* J: the last */
    int64_t decoder_vocab;                                /* G: words of a decoder that has its own */
    int64_t size, joined;                                 /* T5: width of a head; Q: of all heads */
    double embedding_scale, logit_scale;
    bool gated;                            /* feed-forward layers with a gate */
    bool post_norm;                        /* BART: the norm follows the residual */
    bool plain_scores, layer_scores;       /* GPT-2: not divided by the root; divided by the layer's number */
    int64_t offset;                        /* of the first position in its table; of the first patch of an image */
    int64_t stride;                        /* ViT: side of the square that a patch becomes; S: its colours' values */
    int64_t image[2], patch, channels; /* ViT: an image's rows and columns of pixels, a patch's side (X); colours: F */
    int64_t convolutions;                  /* wav2vec 2.0: of the feature extractor; W: channels of the last */
    int64_t conv_width[SDX_CONVOLUTIONS];  /* C: channels out of each, c: into it */
    int64_t conv_kernel[SDX_CONVOLUTIONS]; /* k */
    int64_t conv_stride[SDX_CONVOLUTIONS];
    bool layer_normed;    /* each convolution has a layer norm, instead of the first a group norm */
    bool stable_norm;     /* norms stand before what they feed */
    bool projection_norm; /* of the features */
    int64_t output, adapter_layers;         /* O: width behind the adapter, and its convolutions, numbered '&' */
    int64_t adapter_kernel, adapter_stride; /* B: the first */
    int64_t adapter;                        /* A: inner width of each layer's own adapter */

    sdx_activation activation, head_activation, conv_activation;
    double norm_epsilon;
    double initializer_range; /* standard deviation of fresh weights */
    bool tied;                /* the output matrix is the word embedding */
    unsigned parts, without;  /* parts of the family that config.json switches on, and off */
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
/* Whether key holds word: as one string, as a part of one ("c2p|p2c"), or as an element of a list of them. */
bool sdx_config_lists(const sdx_config *config, const char *key, const char *word);

/* In what follows a key "a.b" is b of object a. */

/* One whole number of config.json and where it goes. */
typedef struct sdx_config_field {
    const char *key;
    size_t offset;   /* of an int64_t in sdx_settings */
    int64_t missing; /* value when the key is absent, always allowed; SDX_REQUIRED: an error */
    int64_t least, most;
} sdx_config_field;
#define SDX_REQUIRED      INT64_MIN
#define SDX_FIELD(member) offsetof(sdx_settings, member)

sdx_status sdx_config_read_fields(const sdx_config *config, const sdx_config_field *field, size_t count,
                                  sdx_settings *settings, sdx_error *err);
/* In (0, below). */
sdx_status sdx_config_read_real(const sdx_config *config, const char *key, double missing, double below,
                                double *out, sdx_error *err);
sdx_status sdx_config_read_activation(const sdx_config *config, const char *key, sdx_activation missing,
                                      sdx_activation *out, sdx_error *err);
/* A list of whole numbers: count says how many there are, at most SDX_CONVOLUTIONS. */
sdx_status sdx_config_read_list(const sdx_config *config, const char *key, int64_t least, int64_t most,
                                int64_t *out, int64_t *count, sdx_error *err);
/* A whole number, or a list of two, to both or each of out [2]. */
sdx_status sdx_config_read_pair(const sdx_config *config, const char *key, int64_t missing, int64_t most, int64_t *out,
                                sdx_error *err);
/* Of a list of words: every how many items `word` stands, the first included. Without the list *out stays. */
sdx_status sdx_config_read_period(const sdx_config *config, const char *key, const char *word, int64_t *out,
                                  sdx_error *err);
bool sdx_config_read_bool(const sdx_config *config, const char *key, bool missing);
/* num_labels, or the number of entries of id2label; 2 (Hugging Face's default) when neither is there. */
sdx_status sdx_config_read_labels(const sdx_config *config, int64_t *out, sdx_error *err);
/* heads divides hidden. */
sdx_status sdx_config_check_heads(const sdx_config *config, const sdx_settings *settings, sdx_error *err);

#endif
