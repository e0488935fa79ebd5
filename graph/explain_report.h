/* explain_report.h: what explain.c finds, and its forms: text, JSON, a page (explain_report.c). */
#ifndef SDX_GRAPH_EXPLAIN_REPORT_H
#define SDX_GRAPH_EXPLAIN_REPORT_H

#include "explain.h"

typedef struct sdx_finding {
    const char *kind, *place; /* "attention"; the node where it would end, or did */
    const sdx_node *at;       /* that node */
    const char *became;       /* operator, or NULL */
    bool should;              /* an operator exists that could take its place */
    int steps, of;            /* matched */
    const char *reason;
    const sdx_graph *g; /* of stopped */
    const sdx_node *stopped;
    const char *expected, *fix;
} sdx_finding;

typedef struct sdx_report {
    const sdx_graph *g;
    sdx_finding *list; /* owned */
    size_t count, capacity;
    sdx_error *err;
} sdx_report;

/* free() the text. */
sdx_status sdx_report_write(const sdx_report *report, const sdx_model *model, sdx_explain_form form, char **text);

#endif
