/* value_text.c: see value_text.h */
#include "value_text.h"

#include <inttypes.h>

static void write_dim(sdx_buffer *b, const sdx_model *m, sdx_dim d)
{
    sdx_element e = sdx_model_resolve_element(m, sdx_element_from_dim(d));
    if (e.symbol == SDX_ELEMENT_NUMBER)
        sdx_buffer_printf(b, "%" PRId64, e.number);
    else
        sdx_buffer_puts(b, e.symbol >= 0 && e.symbol < m->n_symbol ? m->symbol[e.symbol].name : "?");
}

void sdx_write_type(sdx_buffer *b, const sdx_model *m, sdx_dtype dtype, const sdx_shape *shape)
{
    if (dtype == SDX_UNDEFINED) return;
    sdx_buffer_puts(b, sdx_dtype_name(dtype));
    sdx_buffer_putc(b, '[');
    if (shape->rank < 0) sdx_buffer_puts(b, "...");
    for (int i = 0; i < shape->rank; i++) {
        if (i) sdx_buffer_putc(b, ',');
        write_dim(b, m, shape->dim[i]);
    }
    sdx_buffer_putc(b, ']');
}

void sdx_write_value_type(sdx_buffer *b, const sdx_graph *g, const sdx_value *v, const sdx_model *shapes)
{
    const sdx_model *m = g->model;
    const sdx_tensor *stored = sdx_value_stored(v);
    const sdx_type *type = &v->type;
    if (stored) {
        sdx_shape shape = sdx_tensor_shape(stored);
        sdx_write_type(b, m, stored->dtype, &shape);
        return;
    }
    if (v->declared && (v->declared->sequence || v->declared->optional)) {
        sdx_buffer_puts(b, v->declared->sequence ? "sequence of " : "optional ");
        sdx_write_type(b, m, v->declared->dtype, &v->declared->shape);
        return;
    }
    sdx_id other = !v->is_input && shapes && g == m->graph ? sdx_graph_find_value(shapes->graph, v->name) : SDX_NONE;
    if (other != SDX_NONE && shapes->graph->value[other].type.dtype != SDX_UNDEFINED) {
        m = shapes;
        type = &m->graph->value[other].type;
    }
    sdx_write_type(b, m, type->dtype, &type->shape);
}
