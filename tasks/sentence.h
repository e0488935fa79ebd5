/* sentence.h: what a sentence-transformers folder has around its transformer: modules.json with pooling, dense
 * layers and normalization behind it; prompts before it. */
#ifndef SDX_TASKS_SENTENCE_H
#define SDX_TASKS_SENTENCE_H

#include <jansson.h>

#include "../base/status.h"

enum { SDX_POOLING_MODES = 6 };

typedef struct sdx_sentence_layer sdx_sentence_layer;
struct sdx_sentence_layer { /* a dense layer, LayerNorm or normalization */
    size_t in, out;
    float *weight, *bias; /* owned; dense: [out, in], [out] or NULL; LayerNorm: [in] each */
    double (*activation)(double);
    /* Of in[l->in]: either changes it and returns it, or fills out[l->out] and returns that. */
    double *(*run)(const sdx_sentence_layer *l, double *in, double *out);
};

typedef struct sdx_sentence {
    int pool[SDX_POOLING_MODES]; /* [pools]: places in sentence.c's table; their vectors become one */
    size_t pools;
    bool skips_prompt;             /* the prompt's tokens are not pooled */
    bool lower_case;               /* texts are, before they are tokenized */
    size_t max_length, positions;  /* tokens of a text, of any; 0: not said */
    size_t token_dim, dim;         /* of a token's vector, of a text's */
    sdx_sentence_layer *layer;     /* [layers]; owned */
    size_t layers, widest;
    double *work;    /* [2, widest]; owned */
    json_t *prompts; /* name -> text; NULL: none */
    const char *default_prompt; /* of the texts, or NULL */
} sdx_sentence;

/* Where modules.json of that folder has the transformer and its tokenizer, often in the folder itself; to be
 * freed. */
sdx_status sdx_sentence_transformer(const char *folder, char **out, sdx_error *err);
/* A folder without modules.json: mean pooling, normalized. transformer: the folder that has the transformer's
 * settings. */
sdx_status sdx_sentence_open(const char *folder, const char *transformer, size_t token_dim, sdx_sentence *out,
                             sdx_error *err);
void sdx_sentence_close(sdx_sentence *s);
/* The prompt of that name, "" where it is null; NULL: there is none. */
const char *sdx_sentence_prompt(const sdx_sentence *s, const char *name);
/* x: [length, token_dim], the first `prompt` of them the prompt's. out: [dim] */
void sdx_sentence_vector(const sdx_sentence *s, const float *x, size_t length, size_t prompt, float *out);

#endif
