/* family.h: what a family of models is: a row in the table of family.c, filled in by arch/<family>.c.
 *
 * A checkpoint is a set of parts (body, pooler, a head...). The family lists every tensor with its part and its
 * shape in letters; the list serves to check a checkpoint before anything is built, and to make random ones. */
#ifndef SDX_CONVERT_FAMILY_H
#define SDX_CONVERT_FAMILY_H

#include "builder.h"
#include "checkpoint.h"
#include "config.h"
#include "reference.h"

/* How a fresh tensor is filled. */
typedef enum sdx_fill { SDX_FILL_WEIGHT, SDX_FILL_BIAS, SDX_FILL_NORM } sdx_fill;

typedef struct sdx_tensor_row {
    const char *name; /* without the family's prefix; '*' stands for the number of the layer, '+' for the same
                         but not in layer 0; of two '*' the second counts within a group; '#' is the number of
                         a decoder's layer, '%' of a convolution, '&' of an adapter */
    const char
        *shape; /* a letter per dim as in sdx_settings, U for 1, D for H / groups,
                           h for H / heads, Y for 2 * P - 1, Z for layers + 1; "3H" is one dim 3 * H */
    sdx_fill fill;
    unsigned part; /* bits of the family's own; there are tensors of those with all bits present */
} sdx_tensor_row;

/* What a family's inputs become in the graph: int64 [B, S]; types: SDX_NONE if the graph has no such input. */
typedef struct sdx_text_inputs {
    sdx_id ids, mask, types;
} sdx_text_inputs;

typedef struct sdx_step sdx_step; /* of a head: encoder.h */

/* When a file of a sequence-to-sequence model is written: unless no_past, or if merged, is asked for. */
typedef enum sdx_graph_when { SDX_GRAPH_ALWAYS, SDX_GRAPH_PAST, SDX_GRAPH_MERGED } sdx_graph_when;

/* One of the files that make up a sequence-to-sequence model. */
typedef struct sdx_head_graph {
    const char *file; /* "encoder_model" */
    sdx_graph_when when;
    void (*build)(sdx_builder *b, const sdx_settings *s);
} sdx_head_graph;

typedef struct sdx_head {
    const char *architecture; /* as in config.json */
    const char *task;
    unsigned required, optional, untied; /* parts; untied ones are required when the embeddings are not tied */
    const sdx_step *step;                /* for sdx_build_steps and sdx_forward_steps */
    void (*build)(sdx_builder *b, const sdx_settings *s);
    /* The first output of the graph, computed independently; its shape goes to f->rank and f->dim. */
    const double *(*forward)(sdx_forward *f, const sdx_settings *s);
    const sdx_head_graph *graph; /* [n_graph], instead of build; forward computes the first */
    /* The logits of the others, from f->encoded. */
    const double *(*forward_decoder)(sdx_forward *f, const sdx_settings *s);
    size_t n_graph;
} sdx_head;

typedef struct sdx_family {
    const char *model_type;
    const char *prefix;   /* of the body's tensors in a checkpoint that has a head, "bert." */
    unsigned body;        /* the part that has the prefix */
    const sdx_head *head; /* [n_head] */
    size_t n_head;
    const sdx_tensor_row *row; /* [n_row] */
    size_t n_row;
    sdx_status (*read)(const sdx_config *config, sdx_settings *settings, sdx_error *err);
    /* Shape of what speech and vision models take, and the reference with it; NULL: tokens. */
    sdx_shape (*sample)(const sdx_settings *settings);
    /* Of families whose heads are steps: */
    const char *words; /* the embedding that a tied output matrix is */
    sdx_id (*build_body)(sdx_builder *b, const sdx_settings *s, const sdx_text_inputs *in); /* -> [B, S, H] */
    double *(*forward_body)(sdx_forward *f, const sdx_settings *s);                         /* -> [S, H] */
} sdx_family;

/* The first members of a family, by the names that arch/ gives its tables; and those of one whose heads are steps. */
#define SDX_FAMILY(type, before, prefixed, table, reader)                                                              \
    .model_type = type, .prefix = before, .body = prefixed, .head = table, .n_head = sizeof table / sizeof *table,     \
    .row = rows, .n_row = sizeof rows / sizeof *rows, .read = reader
#define SDX_FAMILY_OF_STEPS(embedding) .words = embedding, .build_body = build_body, .forward_body = forward_body

/* By config.json's model_type; the failure lists what is known. */
sdx_status sdx_family_find(const sdx_config *config, const sdx_family **out, sdx_error *err);
/* By task, or (NULL or "auto") by config.json's architectures. */
sdx_status sdx_family_find_head(const sdx_family *family, const sdx_config *config, const char *task,
                                const sdx_head **out, sdx_error *err);

/* One tensor of a model: its name without prefix, and its shape. */
typedef struct sdx_tensor_spec {
    char name[192];
    const sdx_tensor_row *row;
    int rank;
    int64_t dim[SDX_MAX_RANK];
} sdx_tensor_spec;

typedef sdx_status (*sdx_tensor_visitor)(void *context, const sdx_tensor_spec *spec, sdx_error *err);

/* Calls visit for each tensor of the parts, layer by layer. */
sdx_status sdx_family_each_tensor(const sdx_family *family, const sdx_settings *settings, unsigned parts,
                                  sdx_tensor_visitor visit, void *context, sdx_error *err);
/* Parts a complete checkpoint of this head has. */
unsigned sdx_family_parts(const sdx_head *head, const sdx_settings *settings);
/* Sets the checkpoint's prefix, finds out which optional parts it has, and checks every tensor's presence and
 * shape. *head may become a later row of the same architecture, if that is the one the checkpoint fits. */
sdx_status sdx_family_check(const sdx_family *family, const sdx_settings *settings, sdx_checkpoint *checkpoint,
                            const sdx_head **head, unsigned *parts, sdx_error *err);

#endif
