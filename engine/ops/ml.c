/* ml.c: operators of ai.onnx.ml on features and labels: LabelEncoder, ArrayFeatureExtractor, Binarizer. */
#include <stdio.h>
#include <string.h>

#include "compute.h"
#include "contents.h"
#include "copy.h"
#include "dictionary.h"
#include "lanes.h"

#define NUMBERS (SDX_SET(SDX_F32) | SDX_SET(SDX_F64) | SDX_SET(SDX_I64) | SDX_SET(SDX_I32))

/* ---- LabelEncoder: one list of keys, one of values --------------------------------------------------- */

/* A list in one of its spellings, as a tensor of rank 1: <what>_strings, _int64s, _floats or, since 4, _tensor.
 */
static sdx_status find_list(const sdx_node *node, const char *what, sdx_tensor *out, sdx_error *err)
{
    static const char *const kind[] = {"strings", "int64s", "floats", "tensor"};
    char name[40];
    int found = 0;
    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "%s_%s", what, kind[i]);
        const sdx_attr *a = sdx_node_attr(node, name);
        if (!a) continue;
        if (a->strings)
            *out = (sdx_tensor){SDX_STRING, 1, {(int64_t)a->count}, (void *)a->strings};
        else if (a->ints)
            *out = (sdx_tensor){SDX_I64, 1, {(int64_t)a->count}, (void *)a->ints};
        else if (a->floats)
            *out = (sdx_tensor){SDX_F32, 1, {(int64_t)a->count}, (void *)a->floats};
        else if (a->tensor)
            *out = *a->tensor;
        else
            continue;
        found++;
    }
    if (found == 1) return SDX_OK;
    return sdx_fail(err, SDX_ERR_FILE, "%d of the attributes %s_* are given; one is needed", found, what);
}

typedef struct encoder {
    sdx_tensor keys, values;
    sdx_tensor other; /* one element: what unknown keys become */
    sdx_dictionary known;
} encoder;

/* default_tensor, or the default_* that goes with the values. */
static sdx_status find_default(sdx_prepare *p, encoder *e)
{
    const sdx_attr *given = sdx_node_attr(p->node, "default_tensor");
    e->other = (sdx_tensor){.dtype = e->values.dtype, .rank = 0};
    if (given && given->tensor) {
        e->other = *given->tensor;
        if (e->other.dtype == e->values.dtype && sdx_tensor_count(&e->other) == 1) return SDX_OK;
        return sdx_fail(p->err, SDX_ERR_FILE, "default_tensor must be one %s", sdx_dtype_name(e->values.dtype));
    }
    const char **string;
    sdx_lane lane, *one;
    ARENA_NEW(p->arena, string, 1, p->err);
    ARENA_NEW(p->arena, one, 1, p->err);
    *string = sdx_node_string(p->node, "default_string", "_Unused");
    if (sdx_dtype_is_float(e->values.dtype))
        lane.f = (double)sdx_node_float(p->node, "default_float", -0.0f);
    else
        lane.i = sdx_node_int(p->node, "default_int64", -1);
    sdx_lanes_store(e->values.dtype, &lane, 1, one, 0);
    e->other.data = e->values.dtype == SDX_STRING ? (void *)string : one;
    return SDX_OK;
}

static sdx_status fill_known(sdx_prepare *p, encoder *e)
{
    int64_t n = sdx_tensor_count(&e->keys);
    sdx_item *item;
    ARENA_NEW(p->arena, item, (size_t)n, p->err);
    TRY(sdx_dictionary_init(&e->known, p->arena, (size_t)n, p->err));
    for (int64_t i = 0; i < n; i++) {
        item[i] = sdx_item_at(&e->keys, i);
        sdx_dictionary_put(&e->known, &item[i], 1, i);
    }
    return SDX_OK;
}

static sdx_status want_element_type(const sdx_tensor *t, const char *what, sdx_error *err)
{
    if (t->dtype == SDX_STRING || t->dtype == SDX_I16 || NUMBERS & SDX_SET(t->dtype)) return SDX_OK;
    return sdx_fail(err, SDX_ERR_UNSUPPORTED, "%s are %s", what, sdx_dtype_name(t->dtype));
}

static sdx_status find_lists(const sdx_node *node, sdx_tensor *keys, sdx_tensor *values, sdx_error *err)
{
    TRY(find_list(node, "keys", keys, err));
    TRY(find_list(node, "values", values, err));
    TRY(want_element_type(keys, "keys", err));
    TRY(want_element_type(values, "values", err));
    if (sdx_tensor_count(keys) == sdx_tensor_count(values)) return SDX_OK;
    return sdx_fail(err, SDX_ERR_FILE, "there are %lld keys and %lld values", (long long)sdx_tensor_count(keys),
                    (long long)sdx_tensor_count(values));
}

static sdx_status infer_encoder(sdx_infer *x)
{
    sdx_tensor keys, values;
    TRY(find_lists(x->node, &keys, &values, x->err));
    TRY(sdx_want_dtype(x, 0, "the input", SDX_SET(keys.dtype)));
    sdx_infer_set(x, 0, values.dtype, &x->in[0].shape);
    return SDX_OK;
}

/* A tensor attribute may lie askew in the file. */
static sdx_status align(sdx_prepare *p, sdx_tensor *t)
{
    size_t bytes = sdx_tensor_bytes(t);
    void *copy = sdx_arena_alloc(p->arena, bytes);
    if (!copy) return sdx_fail_memory(p->err, bytes);
    if (bytes) memcpy(copy, t->data, bytes);
    t->data = copy;
    return SDX_OK;
}

static sdx_status prepare_encoder(sdx_prepare *p)
{
    encoder *e;
    PREPARE_STATE(p, e);
    TRY(find_lists(p->node, &e->keys, &e->values, p->err));
    TRY(align(p, &e->keys));
    TRY(align(p, &e->values));
    TRY(find_default(p, e));
    return fill_known(p, e);
}

static sdx_status run_encoder(sdx_run *r)
{
    const encoder *e = r->state;
    size_t size = sdx_element_size(e->values.dtype);
    char *y = r->out[0].data;
    for (int64_t i = 0, n = sdx_tensor_count(&r->in[0]); i < n; i++) {
        sdx_item key = sdx_item_at(&r->in[0], i);
        int64_t at = sdx_dictionary_find(&e->known, &key, 1, 1);
        const char *from = at < 0 ? e->other.data : (const char *)e->values.data + (size_t)at * size;
        memcpy(y + (size_t)i * size, from, size);
    }
    return SDX_OK;
}

/* ---- LabelEncoder-1: class names to their numbers, or back ------------------------------------------- */

static sdx_status infer_classes(sdx_infer *x)
{
    TRY(sdx_want_dtype(x, 0, "the input", SDX_SET(SDX_STRING) | SDX_SET(SDX_I64)));
    sdx_dtype t = x->in[0].dtype;
    sdx_infer_set(x, 0, t == SDX_STRING ? SDX_I64 : t == SDX_I64 ? SDX_STRING : SDX_UNDEFINED, &x->in[0].shape);
    return SDX_OK;
}

static sdx_status prepare_classes(sdx_prepare *p)
{
    encoder *e;
    PREPARE_STATE(p, e);
    TRY(find_list(p->node, "classes", &e->keys, p->err));
    return fill_known(p, e);
}

static sdx_status run_classes(sdx_run *r)
{
    const encoder *e = r->state;
    bool to_name = r->in[0].dtype == SDX_I64;
    const char *other_name = sdx_node_string(r->node, "default_string", "_Unused");
    for (int64_t i = 0, n = sdx_tensor_count(&r->in[0]); i < n; i++) {
        sdx_item item = sdx_item_at(&r->in[0], i);
        int64_t number = to_name ? (int64_t)item.bits : sdx_dictionary_find(&e->known, &item, 1, 1);
        bool known = number >= 0 && number < e->keys.dim[0];
        if (to_name)
            ((const char **)r->out[0].data)[i] = known ? ((char **)e->keys.data)[number] : other_name;
        else
            ((int64_t *)r->out[0].data)[i] = known ? number : sdx_node_int(r->node, "default_int64", -1);
    }
    return SDX_OK;
}

/* ---- ArrayFeatureExtractor: columns of the last axis; the rows before it become one dim -------------- */

static sdx_status infer_extractor(sdx_infer *x)
{
    TRY(sdx_want_dtype(x, 0, "the input", NUMBERS | SDX_SET(SDX_STRING)));
    TRY(sdx_want_dtype(x, 1, "the indices", SDX_SET(SDX_I64)));
    TRY(sdx_want_rank(x, 0, "the input", 1, SDX_MAX_RANK));
    sdx_shape out = x->in[0].shape;
    sdx_dim n = sdx_infer_size(x, &x->in[1].shape).symbol == SDX_ELEMENT_NUMBER
                    ? sdx_shape_count(&x->in[1].shape)
                    : SDX_DIM_UNKNOWN;
    if (out.rank == 1)
        out = (sdx_shape){.rank = 2, .dim = {1, n}};
    else if (out.rank > 1)
        out.dim[out.rank - 1] = n;
    sdx_infer_set(x, 0, x->in[0].dtype, &out);
    return SDX_OK;
}

static sdx_status run_extractor(sdx_run *r)
{
    const sdx_tensor *x = &r->in[0];
    sdx_shape in = sdx_run_shape(r, 0);
    int64_t columns = in.dim[in.rank - 1], rows = sdx_shape_span(&in, 0, in.rank - 1),
            n = sdx_tensor_count(&r->in[1]);
    size_t size = sdx_element_size(x->dtype);
    char *y = r->out[0].data;
    for (int64_t i = 0; i < n; i++) {
        int64_t column = sdx_tensor_index(&r->in[1], i);
        if (column < 0 || column >= columns)
            return sdx_fail(r->err, SDX_ERR_USAGE, "index %lld is outside [0, %lld)", (long long)column,
                            (long long)columns);
        for (int64_t row = 0; row < rows; row++)
            memcpy(y + (size_t)(row * n + i) * size,
                   (const char *)x->data + (size_t)(row * columns + column) * size, size);
    }
    return SDX_OK;
}

/* ---- Binarizer --------------------------------------------------------------------------------------- */

static sdx_status infer_binarizer(sdx_infer *x)
{
    TRY(sdx_want_dtype(x, 0, "the input", NUMBERS));
    return sdx_infer_same(x);
}

static sdx_status run_binarizer(sdx_run *r)
{
    const sdx_tensor *x = &r->in[0];
    double threshold = (double)sdx_node_float(r->node, "threshold", 0);
    bool floats = sdx_dtype_is_float(x->dtype);
    for (int64_t i = 0, n = sdx_tensor_count(x); i < n; i++) {
        bool above = sdx_tensor_get_f64(x, i) > threshold;
        sdx_lane lane = {.i = above};
        if (floats) lane.f = above;
        sdx_lanes_store(x->dtype, &lane, 1, r->out[0].data, i);
    }
    return SDX_OK;
}

#define ML "ai.onnx.ml"
static const sdx_op_def rows[] = {
    {ML, "LabelEncoder", 1, 1, 1, 1, 1, 1, 0, infer_classes, prepare_classes, NULL, run_classes},
    {ML, "LabelEncoder", 2, 0, 1, 1, 1, 1, 0, infer_encoder, prepare_encoder, NULL, run_encoder},
    {ML, "ArrayFeatureExtractor", 1, 0, 2, 2, 1, 1, 0, infer_extractor, NULL, NULL, run_extractor},
    {ML, "Binarizer", 1, 0, 1, 1, 1, 1, SDX_OP_INPLACE, infer_binarizer, NULL, NULL, run_binarizer},
};

SDX_OP_TABLE(ml);
