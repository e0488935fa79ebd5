/* token_region.h: the part of a graph that computes a row for every token, as pack_tokens.c takes it out.
 *
 *     token_region.c   what may be inside
 *     pack_tokens.c    by which ways its values leave, and the pass
 *     token_body.c     the subgraph that it becomes
 */
#ifndef SDX_PASSES_TOKEN_REGION_H
#define SDX_PASSES_TOKEN_REGION_H

#include "passes.h"

#define SDX_OWN "sardonyx"

/* A dense layer whose outputs only rise with the maximum: Y = X W + bias, or a DynamicLinear. */
typedef struct sdx_token_head {
    sdx_id layer, bias; /* node; of a product, the value that is added to it */
    sdx_id after[4];    /* the operators behind it, last one first: each reads the one after it, the last one Y */
    int n_after;
} sdx_token_head;

typedef enum sdx_token_exit_kind {
    SDX_EXIT_TOKENS, /* all rows */
    SDX_EXIT_FIRST,  /* the first row of every text */
    SDX_EXIT_MAX     /* the maximum over the rows of every text */
} sdx_token_exit_kind;

typedef struct sdx_token_exit {
    sdx_token_exit_kind kind;
    sdx_id token;        /* a value of the region */
    sdx_id out;          /* what the graph around reads: the same, or what the reader made of it */
    sdx_token_head head; /* of SDX_EXIT_MAX */
} sdx_token_exit;

enum { SDX_TOKEN_EXITS = 8 };

typedef struct sdx_token_region {
    sdx_graph *g;
    sdx_id entry, mask; /* [B,S,H]; int32 [B,S] or lengths [B] */
    bool *inside;       /* [n_value]: one row per token */
    bool *member;       /* [n_node] */
    sdx_token_exit exit[SDX_TOKEN_EXITS];
    int n_exit;
    bool keep_first, binary; /* attributes of PackTokens */
} sdx_token_region;

/* An attention operator that has a form for packed texts. */
typedef struct sdx_token_attention {
    const char *domain, *name, *packed;
    int tokens;     /* inputs that have a row per token, from the first on */
    int mask, n_in; /* the place of the mask; inputs of the packed form, spans last */
} sdx_token_attention;

/* The row of the node, or NULL. */
const sdx_token_attention *sdx_token_attention_of(const sdx_node *node);
/* It attends to its own text's tokens under one mask, and nothing else is asked of it. */
bool sdx_token_attention_fits(const sdx_graph *g, const sdx_node *node);

/* What can be computed row by row with the attention `seed`: entry, mask, inside[] and member[], without ways out. */
sdx_status sdx_token_region_grow(sdx_graph *g, sdx_id seed, sdx_token_region *r, sdx_error *err);

/* Add with a constant number, Relu or Log: never falls when its one input *other rises. */
bool sdx_token_is_monotone(const sdx_graph *g, const sdx_node *n, sdx_id *other);
/* A DynamicLinear whose activation is Relu. */
bool sdx_token_ends_in_relu(const sdx_node *n);

/* The region as a graph of its own (inputs tokens, spans, visible; an output for each exit). */
sdx_status sdx_token_body_make(sdx_pass_context *context, const sdx_token_region *r, sdx_graph **body);

#endif
