/* html.c: the graph as one page that needs no network. The page is graph/inspect.html, which the Makefile turns into
 * an array of bytes; here its @MODEL@ is replaced by the graphs as JSON, in an element that a browser does not run.
 *
 * Names come from the file and may try to break out of that element: '<' is therefore never written as such (inside
 * JSON strings \u003c says the same), and the page puts text into the document as text only.
 *
 *   {"path", "about", "graphs": [{"id", "name", "in": [v], "out": [v],
 *     "values": [[name, type, bytes or -1, first elements]],
 *     "nodes": [[name, domain, operator, [v or -1], [v or -1], [[attribute, text, graph id or -1]]]]}],
 *    "findings": [{"kind", "node", "became" or null, "reason", ..., "region": [[graph id, place in its nodes]]}]}
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "explain.h"
#include "inspect_html.h"
#include "value_text.h"

enum { N_PREVIEW = 12, N_LIST = 64 };

typedef struct writer {
    sdx_buffer out;
    const sdx_model *model;
    const sdx_model *shapes; /* types by value name where `model` does not know them, or NULL */
} writer;

/* ---- strings --------------------------------------------------------------------------------------------- */

/* The text between the quotes of a JSON string; bytes that are not UTF-8 become '?'. */
static void write_escaped(sdx_buffer *b, const char *s, size_t length)
{
    for (size_t i = 0; i < length;) {
        utf8proc_int32_t c;
        utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)s + i, (utf8proc_ssize_t)(length - i), &c);
        if (n <= 0) {
            sdx_buffer_putc(b, '?');
            i++;
            continue;
        }
        if (c < ' ' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' || c == 127)
            sdx_buffer_printf(b, "\\u%04x", (unsigned)c);
        else
            sdx_buffer_append(b, s + i, (size_t)n);
        i += (size_t)n;
    }
}

static void write_text(sdx_buffer *b, const char *s)
{
    sdx_buffer_putc(b, '"');
    write_escaped(b, s, strlen(s));
    sdx_buffer_putc(b, '"');
}

/* ---- types and tensors: pieces of a JSON string ---------------------------------------------------------- */

/* What sdx_write_type and its like have written into `plain`, which ends here. */
static void write_plain(sdx_buffer *b, sdx_buffer *plain)
{
    if (plain->size) write_escaped(b, plain->data, plain->size);
    b->failed |= plain->failed;
    sdx_buffer_fini(plain);
}

static void write_type(sdx_buffer *b, const sdx_model *m, sdx_dtype dtype, const sdx_shape *shape)
{
    sdx_buffer plain = {0};
    sdx_write_type(&plain, m, dtype, shape);
    write_plain(b, &plain);
}

static bool has_numbers(sdx_dtype dtype)
{
    return dtype != SDX_STRING && dtype != SDX_C64 && dtype != SDX_C128 && dtype != SDX_UNDEFINED &&
           dtype < SDX_TENSOR_LIST;
}

static bool is_integer(sdx_dtype dtype)
{
    return dtype != SDX_F32 && dtype != SDX_F64 && dtype != SDX_F16 && dtype != SDX_BF16 && !sdx_dtype_is_coded(dtype);
}

/* The first elements of a tensor. */
static void write_preview(sdx_buffer *b, const sdx_tensor *t)
{
    int64_t count = sdx_tensor_count(t);
    if (!has_numbers(t->dtype) || !t->data) return;
    for (int64_t i = 0; i < count && i < N_PREVIEW; i++) {
        if (i) sdx_buffer_puts(b, ", ");
        if (is_integer(t->dtype))
            sdx_buffer_printf(b, "%" PRId64, sdx_tensor_get_i64(t, i));
        else
            sdx_buffer_printf(b, "%.9g", sdx_tensor_get_f64(t, i));
    }
    if (count > N_PREVIEW) sdx_buffer_puts(b, ", ...");
}

/* ---- values, attributes, nodes --------------------------------------------------------------------------- */

static void write_value(writer *w, const sdx_graph *g, const sdx_value *v)
{
    const sdx_tensor *stored = sdx_value_stored(v);
    sdx_buffer_putc(&w->out, '[');
    write_text(&w->out, v->name);
    sdx_buffer_puts(&w->out, ",\"");
    sdx_buffer type = {0};
    sdx_write_value_type(&type, g, v, w->shapes);
    write_plain(&w->out, &type);
    if (stored) {
        sdx_buffer_printf(&w->out, "\",%zu,\"", sdx_tensor_bytes(stored));
        write_preview(&w->out, stored);
        sdx_buffer_puts(&w->out, "\"]");
    } else {
        sdx_buffer_puts(&w->out, "\",-1,\"\"]");
    }
}

static void write_ids(sdx_buffer *b, const sdx_id *id, int count)
{
    sdx_buffer_putc(b, '[');
    for (int i = 0; i < count; i++) sdx_buffer_printf(b, "%s%d", i ? "," : "", (int)id[i]);
    sdx_buffer_putc(b, ']');
}

static void write_tensor(writer *w, const sdx_tensor *t)
{
    sdx_shape shape = sdx_tensor_shape(t);
    write_type(&w->out, w->model, t->dtype, &shape);
    sdx_buffer_putc(&w->out, ' ');
    write_preview(&w->out, t);
}

static void write_list(writer *w, const sdx_attr *a)
{
    sdx_buffer *b = &w->out;
    sdx_buffer_putc(b, '[');
    for (size_t i = 0; i < a->count && i < N_LIST; i++) {
        if (i) sdx_buffer_puts(b, ", ");
        if (a->type == SDX_ATTR_FLOATS) sdx_buffer_printf(b, "%.9g", (double)a->floats[i]);
        if (a->type == SDX_ATTR_INTS) sdx_buffer_printf(b, "%" PRId64, a->ints[i]);
        if (a->type == SDX_ATTR_STRINGS) write_escaped(b, a->strings[i], strlen(a->strings[i]));
        if (a->type == SDX_ATTR_TENSORS) write_tensor(w, &a->tensors[i]);
    }
    sdx_buffer_puts(b, a->count > N_LIST ? ", ...]" : "]");
}

static void write_attr_value(writer *w, const sdx_attr *a)
{
    sdx_buffer *b = &w->out;
    switch (a->type) {
    case SDX_ATTR_FLOAT: sdx_buffer_printf(b, "%.9g", (double)a->f); break;
    case SDX_ATTR_INT: sdx_buffer_printf(b, "%" PRId64, a->i); break;
    case SDX_ATTR_STRING: write_escaped(b, a->s, a->s_length); break;
    case SDX_ATTR_TENSOR: write_tensor(w, a->tensor); break;
    case SDX_ATTR_FLOATS:
    case SDX_ATTR_INTS:
    case SDX_ATTR_STRINGS:
    case SDX_ATTR_TENSORS: write_list(w, a); break;
    case SDX_ATTR_VALUE_TYPE: write_type(b, w->model, a->value_type->dtype, &a->value_type->shape); break;
    case SDX_ATTR_GRAPH:
    case SDX_ATTR_GRAPHS: break; /* the page shows them as links */
    }
}

/* One row; a list of graphs is a row for each. */
static void write_attr(writer *w, const sdx_attr *a)
{
    sdx_graph *const *graphs = a->type == SDX_ATTR_GRAPH ? &a->graph : a->graphs;
    bool links = !a->reference && (a->type == SDX_ATTR_GRAPH || a->type == SDX_ATTR_GRAPHS);
    size_t rows = links && a->type == SDX_ATTR_GRAPHS ? a->count : 1;
    for (size_t i = 0; i < rows; i++) {
        sdx_buffer_puts(&w->out, i ? ",[" : "[");
        write_text(&w->out, a->name);
        sdx_buffer_puts(&w->out, ",\"");
        if (!a->reference) write_attr_value(w, a);
        sdx_buffer_printf(&w->out, "\",%d]", links ? graphs[i]->index : -1);
    }
}

static void write_node(writer *w, const sdx_node *n)
{
    sdx_buffer *b = &w->out;
    sdx_buffer_putc(b, '[');
    write_text(b, n->name);
    sdx_buffer_putc(b, ',');
    write_text(b, n->domain);
    sdx_buffer_putc(b, ',');
    write_text(b, n->op_type);
    sdx_buffer_putc(b, ',');
    write_ids(b, n->in, n->n_in);
    sdx_buffer_putc(b, ',');
    write_ids(b, n->out, n->n_out);
    sdx_buffer_puts(b, ",[");
    bool any = false;
    for (int i = 0; i < n->n_attr; i++) {
        if (n->attr[i].type == SDX_ATTR_GRAPHS && !n->attr[i].count) continue;
        if (any) sdx_buffer_putc(b, ',');
        write_attr(w, &n->attr[i]);
        any = true;
    }
    sdx_buffer_puts(b, "]]");
}

/* ---- the page -------------------------------------------------------------------------------------------- */

/* A graph, then the graphs inside its nodes. */
static void write_graph(writer *w, const sdx_graph *g)
{
    sdx_buffer *b = &w->out;
    const sdx_graph *sub;
    sdx_buffer_printf(b, "%s{\"id\":%d,\"name\":", g == w->model->graph ? "" : ",\n", g->index);
    write_text(b, g->name ? g->name : "");
    sdx_buffer_puts(b, ",\"in\":");
    write_ids(b, g->input, g->n_input);
    sdx_buffer_puts(b, ",\"out\":");
    write_ids(b, g->output, g->n_output);
    sdx_buffer_puts(b, ",\"values\":[");
    for (sdx_id v = 0; v < g->n_value; v++) {
        sdx_buffer_puts(b, v ? ",\n" : "");
        write_value(w, g, &g->value[v]);
    }
    sdx_buffer_puts(b, "],\"nodes\":[");
    bool any = false;
    for (sdx_id i = 0; i < g->n_node; i++) {
        if (g->node[i].dead) continue;
        sdx_buffer_puts(b, any ? ",\n" : "");
        write_node(w, &g->node[i]);
        any = true;
    }
    sdx_buffer_puts(b, "]}");
    for (sdx_id i = 0; i < g->n_node; i++)
        for (int k = 0; !g->node[i].dead && (sub = sdx_node_graph(&g->node[i], k)); k++) write_graph(w, sub);
}

/* JSON has '<' in strings only. */
static void write_json(sdx_buffer *b, const char *json)
{
    for (; *json; json++)
        if (*json == '<')
            sdx_buffer_puts(b, "\\u003c");
        else
            sdx_buffer_putc(b, *json);
}

sdx_status sdx_model_inspect_html(const sdx_model *model, const sdx_model *shapes, char **html, sdx_error *err)
{
    return sdx_model_page(model, shapes, NULL, html, err);
}

sdx_status sdx_model_page(const sdx_model *model, const sdx_model *shapes, const char *findings, char **html,
                          sdx_error *err)
{
    writer w = {.model = model, .shapes = shapes};
    char *about;
    TRY(sdx_model_inspect(model, false, &about, err));
    static const char mark[] = "@MODEL@";
    const char *hole = strstr(inspect_page, mark);
    sdx_buffer_append(&w.out, inspect_page, (size_t)(hole - inspect_page));
    sdx_buffer_puts(&w.out, "{\"path\":");
    write_text(&w.out, model->path);
    sdx_buffer_puts(&w.out, ",\"about\":");
    write_text(&w.out, about);
    sdx_buffer_puts(&w.out, ",\"graphs\":[");
    write_graph(&w, model->graph);
    sdx_buffer_puts(&w.out, "],\"findings\":");
    write_json(&w.out, findings ? findings : "[]");
    sdx_buffer_puts(&w.out, "}");
    sdx_buffer_puts(&w.out, hole + strlen(mark));
    free(about);
    return sdx_buffer_take(&w.out, html, err);
}
