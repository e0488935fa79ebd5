/* explain.h: what became of every place that looks like attention, a norm, a GELU or an embedding. */
#ifndef SDX_GRAPH_EXPLAIN_H
#define SDX_GRAPH_EXPLAIN_H

#include "graph.h"

typedef enum sdx_explain_form { SDX_EXPLAIN_TEXT, SDX_EXPLAIN_JSON, SDX_EXPLAIN_HTML } sdx_explain_form;

/* Of a model after its passes: as text, as a JSON list, or as inspect's page with the places marked. *missed: places
 * that an operator exists for and that did not become one. free() the text. */
sdx_status sdx_model_explain(const sdx_model *model, sdx_explain_form form, char **text, size_t *missed,
                             sdx_error *err);

/* The page of sdx_model_inspect_html; findings: a JSON list of them, or NULL (html.c). */
sdx_status sdx_model_page(const sdx_model *model, const sdx_model *shapes, const char *findings, char **html,
                          sdx_error *err);

#endif
