/* reference.h: the same models once more, computed straight from the checkpoint: plain loops in double
 * precision, no graph, no kernels. What the converter checks its graphs against.
 *
 * One sequence without padding. As with the builder, the first failure sticks in `status` and the layers after
 * it return NULL, so that a description reads without error handling. Arrays are row-major doubles in the
 * arena. */
#ifndef SDX_CONVERT_REFERENCE_H
#define SDX_CONVERT_REFERENCE_H

#include "../base/arena.h"
#include "checkpoint.h"
#include "config.h"

struct sdx_family;
struct sdx_head;

typedef struct sdx_forward {
    const sdx_checkpoint *checkpoint;
    const struct sdx_family *family;
    const struct sdx_head *head;
    unsigned parts;
    sdx_arena *arena;
    int threads;
    bool splade;
    int64_t count;                 /* tokens: S */
    const int64_t *ids, *type_ids; /* [S] */
    const double *encoded; /* of a decoder: [source, H], what the encoder made of its text */
    int64_t source;
    const float *values;           /* instead: [S] samples, or pixels, until the body sets count to its own */
    char scope[128];               /* stands before every name given */
    int rank;                      /* of the result, batch left out */
    int64_t dim[SDX_MAX_RANK];
    sdx_status status;
    sdx_error *err;
} sdx_forward;

void sdx_forward_scope(sdx_forward *f, const char *format, ...) SDX_PRINTF(2, 3);
double *sdx_forward_alloc(sdx_forward *f, int64_t count); /* zeros */
bool sdx_forward_has(const sdx_forward *f, const char *name);
/* Rows (dim 0) of the tensor; 0 after a failure. */
int64_t sdx_forward_rows(sdx_forward *f, const char *name);
/* All numbers of the tensor. */
double *sdx_forward_weight(sdx_forward *f, const char *name);

/* y [rows, out] = x [rows, in] W^T + b, W and b being name.weight and, if there is one, name.bias */
double *sdx_forward_linear(sdx_forward *f, const char *name, const double *x, int64_t rows);
/* The same with W and b under names of their own; bias NULL: none. */
double *sdx_forward_product(sdx_forward *f, const char *weight, const char *bias, const double *x,
                            int64_t rows);
/* y [S, H]: convolution over the tokens, as many as before; weight [H, H / groups, width], width odd */
double *sdx_forward_convolution(sdx_forward *f, const char *name, const double *x, int64_t groups);
/* In place: */
void sdx_forward_layer_norm(sdx_forward *f, const char *name, double *x, int64_t rows, double epsilon);
void sdx_forward_activation(sdx_forward *f, double *x, int64_t count, sdx_activation kind);
void sdx_forward_add(sdx_forward *f, double *x, const double *y, int64_t count);
/* x [S, H] += rows ids[i] of table name.weight; ids NULL: 0, 1, 2, ... */
void sdx_forward_add_embedding(sdx_forward *f, const char *name, const int64_t *ids, double *x);
/* The position of each token: pad + 1, pad + 2, ... for those that are not `pad`, pad for those that are. */
const int64_t *sdx_forward_positions_of_tokens(sdx_forward *f, int64_t pad);
/* softmax(q k^T / divisor + bias) v per head; q, k, v [S, heads * size], bias [heads, S, S] or NULL */
double *sdx_forward_attention(sdx_forward *f, const double *q, const double *k, const double *v, int64_t heads,
                              int64_t size, double divisor, const double *bias);
/* The same to other rows: k, v [keys, heads * size], bias [heads, S, keys] or NULL */
double *sdx_forward_attention_to(sdx_forward *f, const double *q, const double *k, const double *v, int64_t keys,
                                 int64_t heads, int64_t size, double divisor, const double *bias);
/* logits [S, V] -> [V]: max over tokens of log(1 + relu(logit)) */
double *sdx_forward_splade(sdx_forward *f, const double *logits, int64_t vocab);

#endif
