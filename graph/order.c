/* order.c: who reads and who makes each value, and the nodes in an order in which they can run. */
#include <stdlib.h>
#include <string.h>

#include "../base/memory.h"
#include "graph.h"

/* ---- uses ------------------------------------------------------------------------------------------------ */

static void count_use(void *context, sdx_id v) { ((sdx_value *)context)[v].uses++; }

typedef struct use_cursor {
    sdx_id *next, *list, node;
} use_cursor;

static void list_use(void *context, sdx_id v)
{
    use_cursor *c = context;
    c->list[c->next[v]++] = c->node;
}

sdx_status sdx_graph_index(sdx_graph *g, sdx_error *err)
{
    for (sdx_id v = 0; v < g->n_value; v++) {
        g->value[v].uses = 0;
        g->value[v].producer = SDX_NONE;
    }
    for (sdx_id i = 0; i < g->n_node; i++) {
        const sdx_node *n = &g->node[i];
        if (n->dead) continue;
        sdx_node_each_read(n, count_use, g->value);
        for (int k = 0; k < n->n_out; k++)
            if (n->out[k] != SDX_NONE) g->value[n->out[k]].producer = i;
    }
    size_t n_begin = (size_t)g->n_value + 1, total = 0;
    sdx_id *begin = sdx_realloc(g->use_begin, n_begin * sizeof *begin);
    if (!begin) return sdx_fail_memory(err, n_begin * sizeof *begin);
    g->use_begin = begin;
    for (sdx_id v = 0; v < g->n_value; v++) {
        begin[v] = (sdx_id)total;
        total += (size_t)g->value[v].uses;
    }
    begin[g->n_value] = (sdx_id)total;
    sdx_id *list = sdx_realloc(g->use_node, total * sizeof *list);
    if (!list) return sdx_fail_memory(err, total * sizeof *list);
    g->use_node = list;
    /* Fill with begin[] as cursors, which shifts them by one value; then shift back. */
    use_cursor cursor = {begin, list, 0};
    for (sdx_id i = 0; i < g->n_node; i++) {
        if (g->node[i].dead) continue;
        cursor.node = i;
        sdx_node_each_read(&g->node[i], list_use, &cursor);
    }
    for (sdx_id v = g->n_value; v > 0; v--) begin[v] = begin[v - 1];
    begin[0] = 0;
    for (int i = 0; i < g->n_output; i++) g->value[g->output[i]].uses++;
    return SDX_OK;
}

/* ---- order ----------------------------------------------------------------------------------------------- */

/* Depth-first walk towards the producers, without recursion. A node is expanded once: what it still needs goes on the
 * stack above it, and when it is on top again all that is done. So open nodes are the ancestors of the top. */
enum { UNSEEN, OPEN, DONE };

typedef struct walk {
    const sdx_graph *graph;
    unsigned char *state; /* [n_node] */
    sdx_id *stack;        /* room for every read and one start */
    size_t depth;
    sdx_id cycle; /* a node on one, or SDX_NONE */
} walk;

static void push_producer(void *context, sdx_id v)
{
    walk *w = context;
    sdx_id p = w->graph->value[v].producer;
    if (p == SDX_NONE || w->graph->node[p].dead) return;
    if (w->state[p] == UNSEEN) w->stack[w->depth++] = p;
    else if (w->state[p] == OPEN) w->cycle = p;
}

/* Appends start and all it depends on to order[], producers first. */
static sdx_status visit(walk *w, sdx_id start, sdx_id *order, sdx_id *n_order, sdx_error *err)
{
    w->stack[0] = start;
    w->depth = 1;
    while (w->depth) {
        sdx_id top = w->stack[w->depth - 1];
        if (w->state[top] == UNSEEN) {
            w->state[top] = OPEN;
            sdx_node_each_read(&w->graph->node[top], push_producer, w);
        } else {
            if (w->state[top] == OPEN) order[(*n_order)++] = top;
            w->state[top] = DONE;
            w->depth--;
        }
        if (w->cycle == SDX_NONE) continue;
        char text[SDX_NODE_TEXT];
        return sdx_fail(err, SDX_ERR_FILE, "%s: the graph has a cycle through %s", w->graph->model->path,
                        sdx_node_format(&w->graph->node[w->cycle], text, sizeof text));
    }
    return SDX_OK;
}

/* Orders nodes producers first. all: every live node; else only what graph outputs need. Nodes that write graph
 * outputs are reached in file order, so the result is stable. */
static sdx_status order_nodes(sdx_graph *g, bool all, sdx_error *err)
{
    size_t n = (size_t)g->n_node;
    sdx_status status = SDX_OK;
    size_t reads = (size_t)g->use_begin[g->n_value];
    walk w = {
        .graph = g, .state = sdx_calloc(n, 1), .stack = sdx_malloc((reads + 1) * sizeof(sdx_id)), .cycle = SDX_NONE};
    sdx_id *order = sdx_malloc(n * sizeof *order), n_order = 0;
    unsigned char *needed = sdx_calloc(n, 1);
    sdx_node *sorted = sdx_malloc(n * sizeof *sorted);
    if (!w.state || !w.stack || !order || !needed || !sorted) {
        status = sdx_fail_memory(err, n * sizeof *sorted);
        goto done;
    }
    for (int i = 0; i < g->n_output && !all; i++) {
        sdx_id p = g->value[g->output[i]].producer;
        if (p != SDX_NONE && !g->node[p].dead) TRY_GOTO(visit(&w, p, order, &n_order, err));
    }
    for (sdx_id i = 0; i < n_order; i++) needed[order[i]] = 1;
    memset(w.state, UNSEEN, n);
    n_order = 0;
    for (sdx_id i = 0; i < g->n_node; i++)
        if (!g->node[i].dead && (all || needed[i])) TRY_GOTO(visit(&w, i, order, &n_order, err));
    for (sdx_id i = 0; i < n_order; i++) sorted[i] = g->node[order[i]];
    if (n_order) memcpy(g->node, sorted, (size_t)n_order * sizeof *sorted);
    g->n_node = n_order;
    status = sdx_graph_index(g, err);
done:
    free(w.state);
    free(w.stack);
    free(order);
    free(needed);
    free(sorted);
    return status;
}

sdx_status sdx_graph_sort(sdx_graph *g, sdx_error *err)
{
    TRY(sdx_graph_index(g, err));
    return order_nodes(g, true, err);
}

sdx_status sdx_graph_clean(sdx_graph *g, sdx_error *err)
{
    TRY(sdx_graph_index(g, err));
    return order_nodes(g, false, err);
}
