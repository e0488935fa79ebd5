/* onnx_read_attr.c: ONNX's texts, types and attributes into the IR's. What an attribute holds is copied, but for
 * tensors, which may stay where they are in the file; a subgraph is read as a graph of its own. */
#include "onnx_reader.h"

sdx_status sdx_onnx_copy_text(sdx_onnx_reader *r, const char *s, const char **out)
{
    const char *text = sdx_onnx_text(s);
    *out = sdx_arena_strdup(r->arena, text);
    return *out ? SDX_OK : sdx_fail_memory(r->err, strlen(text));
}

sdx_status sdx_onnx_copy_texts(sdx_onnx_reader *r, size_t count, char *const *from, const char *const **out, int *n)
{
    const char **list;
    ARENA_NEW(r->arena, list, count, r->err);
    for (size_t i = 0; i < count; i++) TRY(sdx_onnx_copy_text(r, from[i], &list[i]));
    *out = list;
    *n = (int)count;
    return SDX_OK;
}

/* ---- types ----------------------------------------------------------------------------------------------- */

static sdx_status read_dim(sdx_onnx_reader *r, const Onnx__TensorShapeProto__Dimension *d, sdx_dim *out)
{
    *out = SDX_DIM_UNKNOWN;
    if (d->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE && d->dim_value >= 0) {
        *out = d->dim_value;
    } else if (d->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM && *sdx_onnx_text(d->dim_param)) {
        int symbol = sdx_model_symbol(r->model, d->dim_param);
        if (symbol == SDX_NONE) return sdx_fail_memory(r->err, strlen(d->dim_param));
        *out = SDX_DIM_SYMBOL(symbol);
    }
    return SDX_OK;
}

static sdx_status read_tensor_type(sdx_onnx_reader *r, const Onnx__TypeProto__Tensor *t, sdx_dtype *dtype,
                                   sdx_shape *shape)
{
    *dtype = t && sdx_dtype_is_known(t->elem_type) ? (sdx_dtype)t->elem_type : SDX_UNDEFINED;
    *shape = SDX_SHAPE_UNKNOWN;
    if (!t || !t->shape || t->shape->n_dim > SDX_MAX_RANK) return SDX_OK;
    shape->rank = (int)t->shape->n_dim;
    for (int i = 0; i < shape->rank; i++) TRY(read_dim(r, t->shape->dim[i], &shape->dim[i]));
    return SDX_OK;
}

sdx_status sdx_onnx_read_type(sdx_onnx_reader *r, const Onnx__TypeProto *t, const sdx_declared **out)
{
    sdx_declared *d;
    ARENA_NEW(r->arena, d, 1, r->err);
    if (t && t->optional_type) {
        d->optional = true;
        t = t->optional_type->elem_type;
    }
    if (t && t->sequence_type) {
        d->sequence = true;
        t = t->sequence_type->elem_type;
    }
    *out = d;
    return read_tensor_type(r, t ? t->tensor_type : NULL, &d->dtype, &d->shape);
}

/* ---- attributes ------------------------------------------------------------------------------------------ */

static sdx_status read_subgraph(sdx_onnx_reader *r, sdx_graph *parent, const Onnx__GraphProto *p, sdx_graph **out)
{
    TRY(sdx_graph_create(r->model, parent, out, r->err));
    return sdx_onnx_read_graph(r, *out, p);
}

static sdx_status copy_string(sdx_onnx_reader *r, const ProtobufCBinaryData *from, const char **out)
{
    *out = sdx_arena_strndup(r->arena, from->len ? (const char *)from->data : "", from->len);
    return *out ? SDX_OK : sdx_fail_memory(r->err, from->len);
}

static sdx_status copy_list(sdx_onnx_reader *r, const void *from, size_t count, size_t size, const void **out)
{
    void *list = sdx_arena_array(r->arena, count, size);
    if (!list) return sdx_fail_memory(r->err, count * size);
    if (count) memcpy(list, from, count * size);
    *out = list;
    return SDX_OK;
}

static sdx_status read_strings(sdx_onnx_reader *r, const Onnx__AttributeProto *p, sdx_attr *a)
{
    const char **list;
    ARENA_NEW(r->arena, list, p->n_strings, r->err);
    for (size_t i = 0; i < p->n_strings; i++) TRY(copy_string(r, &p->strings[i], &list[i]));
    a->strings = list;
    a->count = p->n_strings;
    return SDX_OK;
}

static sdx_status read_tensors(sdx_onnx_reader *r, size_t count, Onnx__TensorProto *const *from, const sdx_tensor **out)
{
    sdx_tensor *list;
    ARENA_NEW(r->arena, list, count, r->err);
    for (size_t i = 0; i < count; i++)
        TRY(sdx_onnx_read_tensor(&r->source, from[i], r->arena, &list[i], r->err));
    *out = list;
    return SDX_OK;
}

static sdx_status read_graphs(sdx_onnx_reader *r, sdx_graph *g, const Onnx__AttributeProto *p, sdx_attr *a)
{
    sdx_graph **list;
    ARENA_NEW(r->arena, list, p->n_graphs, r->err);
    for (size_t i = 0; i < p->n_graphs; i++) TRY(read_subgraph(r, g, p->graphs[i], &list[i]));
    a->graphs = list;
    a->count = p->n_graphs;
    return SDX_OK;
}

/* Files from before the type field say it by the field that is there. */
static int attribute_type(const Onnx__AttributeProto *p)
{
    if (p->type) return p->type;
    if (p->has_f) return SDX_ATTR_FLOAT;
    if (p->has_i) return SDX_ATTR_INT;
    if (p->has_s) return SDX_ATTR_STRING;
    if (p->t) return SDX_ATTR_TENSOR;
    if (p->g) return SDX_ATTR_GRAPH;
    if (p->n_floats) return SDX_ATTR_FLOATS;
    if (p->n_strings) return SDX_ATTR_STRINGS;
    if (p->n_tensors) return SDX_ATTR_TENSORS;
    if (p->n_graphs) return SDX_ATTR_GRAPHS;
    return SDX_ATTR_INTS;
}

enum { SPARSE_TENSOR = 11 }; /* ONNX's attribute type: only Constant has one, and here it is a tensor */

static sdx_status read_spread_out(sdx_onnx_reader *r, const Onnx__SparseTensorProto *p, sdx_attr *a)
{
    sdx_tensor *t;
    ARENA_NEW(r->arena, t, 1, r->err);
    a->type = SDX_ATTR_TENSOR;
    a->tensor = t;
    return sdx_onnx_read_sparse(&r->source, p, r->arena, t, r->err);
}

static sdx_status read_content(sdx_onnx_reader *r, sdx_graph *g, const Onnx__AttributeProto *p, sdx_attr *a)
{
    switch (a->type) {
    case SDX_ATTR_FLOAT: a->f = p->f; return SDX_OK;
    case SDX_ATTR_INT: a->i = p->i; return SDX_OK;
    case SDX_ATTR_STRING: a->s_length = p->s.len; return copy_string(r, &p->s, &a->s);
    case SDX_ATTR_FLOATS:
        a->count = p->n_floats;
        return copy_list(r, p->floats, p->n_floats, sizeof(float), (const void **)&a->floats);
    case SDX_ATTR_INTS:
        a->count = p->n_ints;
        return copy_list(r, p->ints, p->n_ints, sizeof(int64_t), (const void **)&a->ints);
    case SDX_ATTR_STRINGS: return read_strings(r, p, a);
    case SDX_ATTR_TENSORS:
        a->count = p->n_tensors;
        return read_tensors(r, p->n_tensors, p->tensors, &a->tensors);
    case SDX_ATTR_GRAPHS: return read_graphs(r, g, p, a);
    case SDX_ATTR_TENSOR:
        if (p->t) return read_tensors(r, 1, &p->t, &a->tensor);
        return sdx_fail(r->err, SDX_ERR_FILE, "attribute \"%s\" lacks its tensor", a->name);
    case SDX_ATTR_GRAPH:
        if (p->g) return read_subgraph(r, g, p->g, &a->graph);
        return sdx_fail(r->err, SDX_ERR_FILE, "attribute \"%s\" lacks its graph", a->name);
    case SDX_ATTR_VALUE_TYPE: return sdx_onnx_read_type(r, p->tp, &a->value_type);
    }
    if ((int)a->type == SPARSE_TENSOR && p->sparse_tensor) return read_spread_out(r, p->sparse_tensor, a);
    return sdx_fail(r->err, SDX_ERR_UNSUPPORTED,
                    "attribute \"%s\" is of ONNX attribute type %d; lists of sparse tensors and of types are not supported",
                    a->name, (int)a->type);
}

sdx_status sdx_onnx_read_attributes(sdx_onnx_reader *r, sdx_graph *g, size_t count,
                                    Onnx__AttributeProto *const *from, sdx_attr **out, int *n)
{
    sdx_attr *list;
    ARENA_NEW(r->arena, list, count, r->err);
    for (size_t i = 0; i < count; i++) {
        const Onnx__AttributeProto *p = from[i];
        sdx_attr *a = &list[i];
        TRY(sdx_onnx_copy_text(r, p->name, &a->name));
        a->type = (sdx_attr_type)attribute_type(p);
        if (*sdx_onnx_text(p->ref_attr_name))
            TRY(sdx_onnx_copy_text(r, p->ref_attr_name, &a->reference));
        else
            TRY(read_content(r, g, p, a));
    }
    *out = list;
    *n = (int)count;
    return SDX_OK;
}
