/* sentence.h: what a sentence-transformers folder has around its transformer: modules.json with pooling, dense layers
 * and normalization behind it; prompts before it. */
#ifndef SDX_TASKS_SENTENCE_H
#define SDX_TASKS_SENTENCE_H

#include <jansson.h>

#include "../base/status.h"

enum { SDX_POOLING_MODES = 6 };

typedef struct sdx_sentence_layer { /* a dense layer; without a weight: normalization */
    size_t in, out;
    float *weight, *bias; /* [out, in], [out] or NULL; owned */
    double (*activation)(double);
} sdx_sentence_layer;

typedef struct sdx_sentence {
    bool pools[SDX_POOLING_MODES]; /* their vectors, in the order of sentence.c's table, become one */
    bool skips_prompt;             /* the prompt's tokens are not pooled */
    bool lower_case;               /* texts are, before they are tokenized */
    size_t max_length;             /* tokens of a text; 0: not said */
    size_t token_dim, dim;         /* of a token's vector, of a text's */
    sdx_sentence_layer *layer;     /* [layers]; owned */
    size_t layers, widest;
    double *work;    /* [2, widest]; owned */
    json_t *prompts; /* name -> text; NULL: none */
    const char *default_prompt; /* of the texts, or NULL */
} sdx_sentence;

/* A folder without modules.json: mean pooling, normalized. */
sdx_status sdx_sentence_open(const char *folder, size_t token_dim, sdx_sentence *out, sdx_error *err);
void sdx_sentence_close(sdx_sentence *s);
/* x: [length, token_dim], the first `prompt` of them the prompt's. out: [dim] */
void sdx_sentence_vector(const sdx_sentence *s, const float *x, size_t length, size_t prompt, float *out);

#endif
