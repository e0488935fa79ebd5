/* text_model.h: what every text task shares: a tokenizer, a program and a session; texts sorted into batches of
 * like length, so that little is padded; and the usual three inputs. */
#ifndef SDX_TASKS_TEXT_MODEL_H
#define SDX_TASKS_TEXT_MODEL_H

#include "../base/status.h"
#include "../convert/convert.h"

typedef struct sdx_text_model {
    sdx_tokenizer *tokenizer;
    sdx_program *program;
    sdx_session *session;
    sdx_reference *checkpoint; /* owns the weights of a program converted in memory; else NULL */
    char *folder;        /* of the tokenizer: where modules.json and its like lie */
    size_t max_length;   /* tokens of a text; 0: no limit */
    size_t batch_tokens; /* padded tokens of a batch */
    int64_t pad_id;
    int places;          /* output int64[2, n] of a SPLADE graph, rows and tokens of its entries; -1: none */
    bool alone;          /* texts of a batch would change each other's numbers: one at a time */
} sdx_text_model;

/* Rows of one run: row r is texts[index[r]], its first length[r] tokens real. */
typedef struct sdx_text_batch {
    size_t count, width; /* rows, tokens in a padded row */
    const size_t *index, *length;
    const sdx_tensor *output; /* of the model, in its order */
} sdx_text_batch;

typedef sdx_status (*sdx_text_batch_fn)(void *context, const sdx_text_batch *batch, sdx_error *err);

/* The tokenizer's own folder, or the folder of the model; to be freed. */
char *sdx_task_folder(const sdx_task_options *options);
bool sdx_task_has_graph(const char *folder);
/* int64 to int32 in place, for graphs that an optimizer gave int32 inputs. */
void sdx_task_narrow(int64_t *data, size_t n);
/* Outputs are right for real tokens only, where it has a token dimension. The model may be an .onnx file, a
 * folder with one, or a checkpoint folder, which is converted in memory. */
sdx_status sdx_text_model_open(const sdx_task_options *options, sdx_text_model *out, sdx_error *err);
void sdx_text_model_close(sdx_text_model *model);
/* Runs all texts, in batches of at most max_rows rows (0: as batch_tokens allows), and hands each batch to fn.
 * pairs: NULL, or the second text of each, whose data may be NULL. */
sdx_status sdx_text_model_run(sdx_text_model *model, const sdx_text *texts, const sdx_text *pairs, size_t count,
                              size_t max_rows, sdx_text_batch_fn fn, void *context, sdx_error *err);
/* Index of the output of that name, or -1. */
int sdx_text_model_output(const sdx_text_model *model, const char *name);

#endif
