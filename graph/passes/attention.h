/* attention.h: what a matched attention is. attention_match.c finds it, with the help of attention_scores.c, and
 * fuse_attention.c writes it. */
#ifndef SDX_PASSES_ATTENTION_H
#define SDX_PASSES_ATTENTION_H

#include "layout.h"
#include "mask.h"

enum { SDX_Q, SDX_K, SDX_V };

/* x W + b, or some columns of such a product that was cut apart. */
typedef struct sdx_projection {
    sdx_id x, weight, bias; /* weight [in, all], or [all, in] when transposed; bias [all], SDX_NONE: zero */
    bool transposed;
    int64_t in, first, out, all; /* the columns first .. first + out of all */
} sdx_projection;

/* Queries, keys or values on their way to the product. Keys and values may be those of earlier tokens and fresh
 * ones after them. */
typedef struct sdx_heads {
    sdx_id flat;  /* [b,t,nh], before the heads are split, or SDX_NONE */
    sdx_id split; /* [b,n,t,h]: set when they are never flat, as cached keys of an encoder, and for values; or
                   * [b,g,r,t,h], n = g r, or [b,t,n,h], which are yet to be reshaped */
    bool tokens_first; /* split is [b,t,n,h] */
    sdx_id past, present;                        /* [b,n,p,h] and [b,n,p+t,h], or SDX_NONE */
    sdx_element batch, tokens, heads, head_size; /* tokens: the fresh ones */
    sdx_projection p;
    const char *no_projection; /* why flat is not a projection of something; NULL when it is */
    sdx_path path;             /* from flat or split to the product, or to the cache */
} sdx_heads;

typedef struct sdx_term { /* something that happens to the scores between MatMul and Softmax */
    sdx_id value;
    bool where; /* value is a condition, under which a score becomes fill (or, inverted, keeps) */
    bool inverted;
    bool merged; /* value is added to scores [b*n,t,T] and is of this shape itself */
    double fill;
} sdx_term;

enum { SDX_MOST_TERMS = 6 };

#define SDX_LEAST_FILL (-1e3) /* a fill value above this does not hide a key */

typedef struct sdx_attention {
    sdx_heads q, k, v;
    double scale;
    sdx_term term[SDX_MOST_TERMS];
    int n_term;
    bool shared;     /* somebody else reads keys or values, head by head */
    bool joins_flat; /* the output is [b*t, nh], not [b,t,nh] */
    /* What the terms amount to, when none has to be kept as a bias: */
    sdx_id mask; /* graph input [b, keys], SDX_NONE: none */
    double fill; /* of hidden scores */
    bool causal;
    double sum[2][2]; /* what mask and causal rule add in all: [mask holds 0, 1][key after the query: no, yes] */
    int n_bias; /* terms that are neither mask nor causal: kept as they are, in bias[] */
    sdx_term bias[SDX_MOST_TERMS];
    /* Where and why matching stopped: */
    sdx_id stopped; /* node */
    int steps;      /* that had matched */
} sdx_attention;

/* `last` is the Reshape that joins the heads again. NULL, or why it is no attention. */
const char *sdx_match_attention(const sdx_graph *g, const sdx_node *last, sdx_attention *m);
/* Its parts. From the Softmax's input up to the product of queries and keys: fills in scale and terms; then, when heads
 * and tokens are known, what the terms amount to. */
const char *sdx_match_scores(const sdx_graph *g, sdx_id v, sdx_attention *m, const sdx_node **product);
const char *sdx_match_terms(const sdx_graph *g, sdx_attention *m);
/* [b,n,t,T] as [bn,t,T], or back: the scores are the same. */
bool sdx_match_heads_merge(const sdx_graph *g, const sdx_node *n);
/* Notes where matching stopped, and returns the reason. */
const char *sdx_attention_stop(sdx_attention *m, sdx_id node, const char *reason);

/* How many steps a match takes; and each one's name, in order. */
enum { SDX_ATTENTION_STEPS = 6 };
extern const char *const sdx_attention_step[SDX_ATTENTION_STEPS];

#endif
