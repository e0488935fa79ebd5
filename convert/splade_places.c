/* splade_places.c: see sdx_splade_expose_places. Whoever exported the graph, output_idx is one row of what NonZero
 * gave, by Gather, Split, Slice, Transpose and Squeeze, all of which read it by their first input. */
#include <string.h>

#include "convert.h"

static sdx_id find_output(const sdx_graph *g, const char *name)
{
    for (int i = 0; i < g->n_output; i++)
        if (!strcmp(g->value[g->output[i]].name, name)) return g->output[i];
    return SDX_NONE;
}

static const sdx_node *find_nonzero(const sdx_graph *g, sdx_id value)
{
    static const char *const passes_on[] = {"Gather", "Split", "Slice", "Transpose", "Squeeze", "Identity", "Reshape"};
    enum { FAR = 16 };
    for (int step = 0; step < FAR; step++) {
        const sdx_node *n = sdx_graph_producer(g, value);
        if (!n || n->n_in < 1 || sdx_node_is(n, "NonZero")) return n && n->n_in == 1 ? n : NULL;
        bool known = false;
        for (size_t i = 0; i < sizeof passes_on / sizeof *passes_on; i++) known |= sdx_node_is(n, passes_on[i]);
        if (!known) return NULL;
        value = n->in[0];
    }
    return NULL;
}

sdx_status sdx_splade_expose_places(sdx_model *model, int *output, sdx_error *err)
{
    sdx_graph *g = model->graph;
    *output = -1;
    sdx_id index = find_output(g, "output_idx");
    const sdx_node *nonzero = index == SDX_NONE ? NULL : find_nonzero(g, index);
    if (!nonzero) return SDX_OK;
    for (int i = 0; i < g->n_output; i++)
        if (g->output[i] == nonzero->out[0]) *output = i;
    if (*output >= 0) return SDX_OK;
    TRY(sdx_graph_add_output(g, nonzero->out[0], err));
    *output = g->n_output - 1;
    return SDX_OK;
}
