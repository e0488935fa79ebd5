/* dot.c: the graph in the DOT language of Graphviz (https://graphviz.org/doc/info/lang.html): a box a node, an ellipse
 * an input or output, an edge a value with its type. Weights are left out, as in every drawing of a network that can be
 * read; graphs that nodes carry are clusters. */
#include "explain.h"
#include "value_text.h"

typedef struct writer {
    sdx_buffer out;
    const sdx_model *shapes;
} writer;

/* A quoted string. Characters that would end it, or begin an escape, are escaped; line ends become spaces. */
static void write_quoted(sdx_buffer *b, const char *s)
{
    sdx_buffer_putc(b, '"');
    for (; *s; s++) {
        if (*s == '"' || *s == '\\') sdx_buffer_putc(b, '\\');
        sdx_buffer_putc(b, (unsigned char)*s < ' ' ? ' ' : *s);
    }
    sdx_buffer_putc(b, '"');
}

static void write_type_label(writer *w, const sdx_graph *g, const sdx_value *v)
{
    sdx_buffer type = {0};
    sdx_write_value_type(&type, g, v, w->shapes);
    sdx_buffer_puts(&w->out, " [label=");
    write_quoted(&w->out, type.data ? type.data : "");
    sdx_buffer_puts(&w->out, "];\n");
    w->out.failed |= type.failed;
    sdx_buffer_fini(&type);
}

/* From what makes the value, in its own graph or in one around it, to `end`; none from a weight. */
static void write_edge(writer *w, const sdx_graph *g, sdx_id v, char end, sdx_id to)
{
    if (v == SDX_NONE) return;
    const sdx_graph *from = g;
    sdx_id source = v;
    for (; from->value[source].outer != SDX_NONE; from = from->parent) source = from->value[source].outer;
    const sdx_value *s = &from->value[source];
    bool made = s->producer != SDX_NONE;
    if (!made && sdx_value_stored(s)) return;
    sdx_buffer_printf(&w->out, "%c%d_%d -> %c%d_%d", made ? 'n' : 'v', from->index, (int)(made ? s->producer : source),
                      end, g->index, (int)to);
    write_type_label(w, g, &g->value[v]);
}

static void write_graph(writer *w, const sdx_graph *g);

static void write_node(writer *w, const sdx_graph *g, sdx_id i)
{
    const sdx_node *n = &g->node[i];
    const sdx_graph *body;
    sdx_buffer_printf(&w->out, "n%d_%d [label=", g->index, (int)i);
    write_quoted(&w->out, n->op_type);
    sdx_buffer_puts(&w->out, ", tooltip=");
    write_quoted(&w->out, n->name);
    sdx_buffer_puts(&w->out, "];\n");
    for (int k = 0; k < n->n_in; k++) write_edge(w, g, n->in[k], 'n', i);
    for (int k = 0; (body = sdx_node_graph(n, k)); k++) {
        sdx_buffer_printf(&w->out, "subgraph cluster_%d {\nlabel=", body->index);
        write_quoted(&w->out, body->name ? body->name : "");
        sdx_buffer_puts(&w->out, ";\n");
        write_graph(w, body);
        sdx_buffer_puts(&w->out, "}\n");
    }
}

static void write_port(writer *w, const sdx_graph *g, sdx_id v, char kind)
{
    sdx_buffer_printf(&w->out, "%c%d_%d [shape=ellipse, label=", kind, g->index, (int)v);
    write_quoted(&w->out, g->value[v].name);
    sdx_buffer_puts(&w->out, "];\n");
}

static void write_graph(writer *w, const sdx_graph *g)
{
    for (int i = 0; i < g->n_input; i++)
        if (!sdx_value_stored(&g->value[g->input[i]])) write_port(w, g, g->input[i], 'v');
    for (sdx_id i = 0; i < g->n_node; i++)
        if (!g->node[i].dead) write_node(w, g, i);
    for (int i = 0; i < g->n_output; i++) {
        write_port(w, g, g->output[i], 'o');
        write_edge(w, g, g->output[i], 'o', g->output[i]);
    }
}

sdx_status sdx_model_inspect_dot(const sdx_model *model, const sdx_model *shapes, char **dot, sdx_error *err)
{
    writer w = {.shapes = shapes};
    sdx_buffer_puts(&w.out, "digraph {\nnode [shape=box, fontname=sans];\nedge [fontname=sans, fontsize=9];\n");
    write_graph(&w, model->graph);
    sdx_buffer_puts(&w.out, "}\n");
    return sdx_buffer_take(&w.out, dot, err);
}
