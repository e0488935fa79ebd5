/* generate_graphs.h: the graphs of a generating model, found in a folder or made from a checkpoint. */
#ifndef SDX_TASKS_GENERATE_GRAPHS_H
#define SDX_TASKS_GENERATE_GRAPHS_H

#include "text_model.h"

#define SDX_PAST "past_key_values."

typedef struct sdx_stage { /* a graph */
    sdx_program *program;  /* NULL: there is none */
    sdx_session *session;
    size_t n_in, n_out;
    int result;        /* the output that is read: last_hidden_state or logits */
    const char **name; /* [n_in], room for a run's names, inputs and outputs; owned */
    sdx_tensor *in, *out;
} sdx_stage;

/* A merged graph, or a lone one that takes a past, is `past`, and there is no `first`. */
typedef struct sdx_stages {
    sdx_stage encoder, first, past;
    sdx_reference *checkpoint; /* owns the weights of graphs made in memory; else NULL */
} sdx_stages;

/* path: see sdx_decoder_open. On failure nothing is left open. */
sdx_status sdx_stages_open(const char *path, const sdx_run_options *run, sdx_stages *out, sdx_error *err);
void sdx_stages_close(sdx_stages *stages);
/* Index of the output of that name, or -1. */
int sdx_stage_output(const sdx_stage *stage, const char *name);

#endif
