/* seq2seq.h: what decoders that attend to an encoder share. Three graphs make up such a model, with the names
 * that Optimum gives their inputs and outputs:
 *
 *   encoder_model            input_ids, attention_mask -> last_hidden_state
 *   decoder_model            the first step: input_ids and what the encoder said -> logits, and each layer's
 *                            keys and values, present.N.{decoder,encoder}.{key,value}
 *   decoder_with_past_model  a later step: input_ids and past_key_values.* -> logits, present.N.decoder.*
 *   decoder_model_merged     both decoders as branches of an If on use_cache_branch, which share their weights; a
 *                            later step gives empty present.N.encoder.*
 *
 * Of a decoder's layer, "decoder" stands for its attention to itself, "encoder" for that to the encoder. */
#ifndef SDX_CONVERT_SEQ2SEQ_H
#define SDX_CONVERT_SEQ2SEQ_H

#include "encoder.h"

enum { SDX_CACHED = 4 }; /* keys and values of both attentions, in the order of the names */

typedef struct sdx_decoder_graph {
    bool with_past;
    int64_t layers, heads, size; /* size: width of a head */
    double divisor;              /* of scores; 1: none */
    int64_t vocab;               /* scores of a token */
    sdx_id ids;                  /* [B, S] */
    sdx_id encoded;              /* [B, T, H]; with past SDX_NONE */
    sdx_id encoder_bias;         /* [B, 1, 1, T]: the padding of what was encoded */
    sdx_id queries, keys;        /* positions [S] and [past + S] */
    sdx_id *past, *present;      /* [layers * SDX_CACHED], SDX_NONE where there is none; owned */
    int64_t layer;               /* that is being built */
} sdx_decoder_graph;

/* The modules of an attention by their names behind the layer's scope. */
typedef struct sdx_attention_names {
    const char *attention; /* only labels nodes */
    const char *query, *key, *value, *out;
} sdx_attention_names;

/* The head that writes these graphs, by the names that arch/ gives its functions. */
#define SDX_SEQ2SEQ_GRAPHS                                                                                             \
    {                                                                                                                  \
        {"encoder_model", SDX_GRAPH_ALWAYS, build_encoder}, {"decoder_model", SDX_GRAPH_ALWAYS, build_decoder},        \
            {"decoder_with_past_model", SDX_GRAPH_PAST, build_decoder_with_past},                                      \
            {"decoder_model_merged", SDX_GRAPH_MERGED, build_merged},                                                  \
    }
#define SDX_SEQ2SEQ_HEAD(class, needs, may, separate)                                                                  \
    {                                                                                                                  \
        .architecture = class, .task = "text2text-generation", .required = needs, .optional = may, .untied = separate, \
        .forward = forward_encoder, .forward_decoder = forward_decoder, .graph = graphs,                               \
        .n_graph = sizeof graphs / sizeof *graphs,                                                                     \
    }

/* Inputs input_ids and attention_mask of an encoder. */
sdx_text_inputs sdx_build_encoder_inputs(sdx_builder *b);
/* Adds the inputs and fills in the rest from layers, heads, size and with_past. */
void sdx_build_decoder_begin(sdx_builder *b, sdx_decoder_graph *d, int64_t hidden);
/* The same inside a graph that has the encoder too: ids [B, S], mask [B, T], encoded [B, T, H]. Then end is not called,
 * but drop. */
void sdx_build_decoder_inside(sdx_builder *b, sdx_decoder_graph *d, sdx_id ids, sdx_id mask, sdx_id encoded);
void sdx_build_decoder_drop(sdx_decoder_graph *d);
/* Attention of x [B, S, H] to all tokens so far, or to what was encoded. */
sdx_id sdx_build_decoder_self_attention(sdx_builder *b, sdx_decoder_graph *d, const sdx_attention_names *n,
                                        sdx_id x, sdx_id bias);
sdx_id sdx_build_decoder_cross_attention(sdx_builder *b, sdx_decoder_graph *d, const sdx_attention_names *n,
                                         sdx_id x);
/* The same as plain arithmetic: of x [S, H] to rows [keys, H]; bias [heads, S, keys] or NULL. */
double *sdx_forward_decoder_attention(sdx_forward *f, const sdx_decoder_graph *d, const sdx_attention_names *n,
                                      const double *x, const double *rows, int64_t keys, const double *bias);
/* [heads, S, S]: 0, or -infinity for the future */
double *sdx_forward_causal_bias(sdx_forward *f, int64_t heads);
/* Adds the outputs and frees what begin took. */
void sdx_build_decoder_end(sdx_builder *b, sdx_decoder_graph *d, sdx_id logits);
/* The merged graph of two that are built with begin and end; of d: layers, heads, size, vocab. */
typedef void (*sdx_build_decoder_fn)(sdx_builder *b, const sdx_settings *s);
void sdx_build_merged_decoder(sdx_builder *b, const sdx_settings *s, const sdx_decoder_graph *d,
                              sdx_build_decoder_fn first, sdx_build_decoder_fn later);

#endif
