/* profile.c: where the time went, by operator and by node, as text. */
#include <stdlib.h>
#include <string.h>

#include "../base/buffer.h"
#include "../base/memory.h"
#include "engine.h"

typedef struct row {
    const sdx_node *node; /* the one, or any of its kind */
    size_t nodes;
    double seconds;
} row;

enum { SLOWEST = 20 };

static int by_time(const void *a, const void *b)
{
    const row *x = a, *y = b;
    return x->seconds < y->seconds ? 1 : x->seconds > y->seconds ? -1 : 0;
}

static bool same_operator(const sdx_node *a, const sdx_node *b)
{
    return !strcmp(a->op_type, b->op_type) && !strcmp(a->domain, b->domain);
}

static size_t count_nodes(const sdx_program *p)
{
    size_t n = 0;
    for (int b = 0; b < p->n_body; b++) n += p->body[b].graph ? (size_t)p->body[b].graph->n_node : 0;
    return n;
}

static size_t collect_nodes(const sdx_program *p, sdx_profile *const *profile, row *rows)
{
    size_t n = 0;
    for (int b = 0; b < p->n_body; b++) {
        const sdx_graph *g = p->body[b].graph;
        for (sdx_id i = 0; g && i < g->n_node; i++)
            if (profile[b][i].runs) rows[n++] = (row){&g->node[i], 1, profile[b][i].seconds};
    }
    return n;
}

static size_t collect_operators(const row *nodes, size_t count, row *rows)
{
    size_t n = 0;
    for (size_t i = 0; i < count; i++) {
        size_t at = 0;
        while (at < n && !same_operator(rows[at].node, nodes[i].node)) at++;
        if (at == n) rows[n++] = (row){.node = nodes[i].node};
        rows[at].nodes++;
        rows[at].seconds += nodes[i].seconds;
    }
    return n;
}

static void print_rows(sdx_buffer *b, const row *rows, size_t count, double total, uint64_t runs, bool by_node)
{
    for (size_t i = 0; i < count; i++) {
        const sdx_node *n = rows[i].node;
        sdx_buffer_printf(b, "%10.3f %6.1f%% ", 1e3 * rows[i].seconds / (double)runs,
                          total > 0 ? 100 * rows[i].seconds / total : 0.0);
        if (by_node)
            sdx_buffer_printf(b, " %s  ", *n->name ? n->name : "(no name)");
        else
            sdx_buffer_printf(b, "%6zu  ", rows[i].nodes);
        sdx_buffer_printf(b, "%s%s%s\n", n->domain, *n->domain ? "::" : "", n->op_type);
    }
}

sdx_status sdx_profile_format(const sdx_program *p, sdx_profile *const *profile, uint64_t runs, char **text,
                              sdx_error *err)
{
    size_t most = count_nodes(p);
    row *nodes = sdx_calloc(most, 2 * sizeof *nodes), *operators;
    if (!nodes) return sdx_fail_memory(err, most * sizeof *nodes);
    operators = nodes + most;
    size_t n_node = collect_nodes(p, profile, nodes), n_op = collect_operators(nodes, n_node, operators);
    double total = 0;
    for (size_t i = 0; i < n_op; i++) total += operators[i].seconds;
    if (n_op) qsort(operators, n_op, sizeof *operators, by_time);
    if (n_node) qsort(nodes, n_node, sizeof *nodes, by_time);

    sdx_buffer b = {0};
    uint64_t divisor = runs ? runs : 1;
    sdx_buffer_printf(&b, "%llu runs, %.3f ms each\n\n    ms/run   share  nodes  operator\n",
                      (unsigned long long)runs, 1e3 * total / (double)divisor);
    print_rows(&b, operators, n_op, total, divisor, false);
    sdx_buffer_puts(&b, "\n    ms/run   share  node\n");
    print_rows(&b, nodes, n_node < SLOWEST ? n_node : SLOWEST, total, divisor, true);
    free(nodes);
    return sdx_buffer_take(&b, text, err);
}
