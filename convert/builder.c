/* builder.c: see builder.h; the layers are in layers.c */
#include "builder.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "../base/parallel.h"

enum { MAX_NAME = 256 };

/* Records the status of a call made while nothing has failed; what follows it is skipped once something has. */
#define DO(b, call) ((b)->status == SDX_OK ? (void)((b)->status = (call)) : (void)0)

static void full_name(const sdx_builder *b, char *out, const char *name, const char *separator,
                      const char *tail)
{
    snprintf(out, MAX_NAME, "%s%s%s%s", b->scope, name, separator, tail);
}

void sdx_build_scope(sdx_builder *b, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(b->scope, sizeof b->scope, format, args);
    va_end(args);
}

void sdx_build_fail(sdx_builder *b, sdx_status status, const char *sentence)
{
    DO(b, sdx_fail(b->err, status, "%s", sentence));
}

/* ---- inside and outside of a branch ---------------------------------------------------------------------- */

/* Where inputs and constants are. */
static sdx_graph *home(const sdx_builder *b)
{
    return b->outside ? b->outside : b->graph;
}

static sdx_id find_value(const sdx_builder *b, const char *name)
{
    return b->status == SDX_OK ? sdx_graph_find_value(home(b), name) : SDX_NONE;
}

/* What stands in the graph being built for a value of its home. */
static sdx_id take(sdx_builder *b, sdx_id id)
{
    if (!b->outside || id == SDX_NONE || b->status != SDX_OK) return id;
    const char *name = b->outside->value[id].name;
    sdx_id inside = sdx_graph_find_value(b->graph, name);
    if (inside != SDX_NONE) return inside;
    DO(b, sdx_graph_add_value(b->graph, name, &inside, b->err));
    if (b->status == SDX_OK) b->graph->value[inside].outer = id;
    return inside;
}

/* ---- inputs and outputs ---------------------------------------------------------------------------------- */

static sdx_dim make_dim(sdx_builder *b, int64_t dim)
{
    static const char *const names[] = {
        "batch_size",
        "sequence",
        "nonzero",
        "frames",
        "encoder_sequence_length",
        "decoder_sequence_length",
        "past_decoder_sequence_length",
        "past_decoder_sequence_length + decoder_sequence_length",
        "past_sequence_length",
        "past_sequence_length + sequence",
        "num_choices",
    };
    if (dim >= 0) return dim;
    int symbol = sdx_model_symbol(b->graph->model, names[-1 - dim]);
    if (symbol < 0) DO(b, sdx_fail_memory(b->err, MAX_NAME));
    return SDX_DIM_SYMBOL(symbol);
}

sdx_id sdx_build_input(sdx_builder *b, const char *name, sdx_dtype dtype, int rank, const int64_t *dim)
{
    sdx_id id = find_value(b, name);
    sdx_shape shape = {.rank = rank};
    for (int i = 0; i < rank; i++) shape.dim[i] = make_dim(b, dim[i]);
    if (id == SDX_NONE) DO(b, sdx_graph_add_input(home(b), name, dtype, &shape, &id, b->err));
    return take(b, id);
}

sdx_id sdx_build_token_input(sdx_builder *b, const char *name)
{
    return sdx_build_input(b, name, SDX_I64, 2, (int64_t[]){SDX_BATCH, SDX_SEQUENCE});
}

/* Gives a value the name a caller of the graph will know it by. */
static sdx_status rename_value(sdx_graph *graph, sdx_id value, const char *name, sdx_error *err)
{
    char *copy = sdx_arena_strdup(&graph->model->arena, name);
    if (!copy || !sdx_map_put(&graph->names, copy, strlen(copy), value))
        return sdx_fail_memory(err, strlen(name));
    graph->value[value].name = copy;
    return SDX_OK;
}

void sdx_build_output(sdx_builder *b, sdx_id value, const char *name, sdx_dtype dtype, int rank,
                      const int64_t *dim)
{
    sdx_shape shape = {.rank = rank};
    for (int i = 0; i < rank; i++) shape.dim[i] = make_dim(b, dim[i]);
    DO(b, rename_value(b->graph, value, name, b->err));
    DO(b, sdx_graph_add_output(b->graph, value, b->err));
    if (b->status != SDX_OK) return;
    b->graph->value[value].type.dtype = dtype;
    b->graph->value[value].type.shape = shape;
}

/* ---- constants ------------------------------------------------------------------------------------------- */

static const sdx_tensor *find_weight(sdx_builder *b, const char *name)
{
    const sdx_tensor *t = b->status == SDX_OK ? sdx_checkpoint_find(b->checkpoint, name) : NULL;
    if (!t) DO(b, sdx_fail(b->err, SDX_ERR_FILE, "the checkpoint has no tensor \"%s\"", name));
    return t;
}

/* dst [columns, rows] from src [rows, columns]. Tiles of 16 by 64: a source row's part is one or two cache
 * lines' stream, and the 16 floats written side by side fill a destination line. */
enum { TILE_ROWS = 16, TILE_COLUMNS = 64 };

typedef struct transposition {
    const sdx_tensor *src;
    float *dst;
} transposition;

/* Of columns: a thread then writes memory that no other touches. */
static void transpose_tiles(void *context, int64_t begin, int64_t end, int worker)
{
    const transposition *t = context;
    float tile[TILE_ROWS][TILE_COLUMNS];
    int64_t rows = t->src->dim[0], columns = t->src->dim[1];
    (void)worker;
    for (int64_t j0 = begin * TILE_COLUMNS; j0 < columns && j0 < end * TILE_COLUMNS; j0 += TILE_COLUMNS) {
        int64_t n = columns - j0 < TILE_COLUMNS ? columns - j0 : TILE_COLUMNS;
        for (int64_t i0 = 0; i0 < rows; i0 += TILE_ROWS) {
            int64_t m = rows - i0 < TILE_ROWS ? rows - i0 : TILE_ROWS;
            for (int64_t i = 0; i < m; i++) sdx_weight_load(t->src, (i0 + i) * columns + j0, n, tile[i]);
            for (int64_t j = 0; j < n; j++)
                for (int64_t i = 0; i < m; i++) t->dst[(j0 + j) * rows + i0 + i] = tile[i][j];
        }
    }
}

static void transpose(const sdx_tensor *src, float *dst)
{
    transposition t = {src, dst};
    sdx_parallel_for(sdx_default_threads(), (src->dim[1] + TILE_COLUMNS - 1) / TILE_COLUMNS, 1, transpose_tiles, &t);
}

static sdx_status copy_weight(sdx_builder *b, const sdx_tensor *t, bool transposed, sdx_tensor *out)
{
    int64_t count = sdx_tensor_count(t);
    float *data;
    ARENA_NEW(&b->graph->model->arena, data, (size_t)count, b->err);
    *out = *t;
    out->dtype = SDX_F32;
    out->data = data;
    if (transposed) {
        out->dim[0] = t->dim[1];
        out->dim[1] = t->dim[0];
        transpose(t, data);
    } else {
        sdx_weight_load(t, 0, count, data);
    }
    sdx_checkpoint_release(b->checkpoint, t);
    return SDX_OK;
}

/* In place: floats to 16-bit numbers, which never outrun what is still to be read. */
static sdx_status narrow(sdx_builder *b, const char *name, sdx_tensor *t)
{
    int64_t count = sdx_tensor_count(t);
    unsigned char *data = (unsigned char *)t->data;
    for (int64_t i = 0; i < count; i++) {
        float x;
        memcpy(&x, data + i * sizeof x, sizeof x);
        uint16_t half = b->dtype == SDX_F16 ? sdx_f32_to_f16(x) : sdx_f32_to_bf16(x);
        if (b->dtype == SDX_F16 && isfinite(x) && !isfinite(sdx_f16_to_f32(half)))
            return sdx_fail(b->err, SDX_ERR_UNSUPPORTED, "\"%s\" holds %g, which float16 cannot; take bfloat16",
                            name, (double)x);
        memcpy(data + i * sizeof half, &half, sizeof half);
    }
    t->dtype = b->dtype;
    return SDX_OK;
}

/* A 16-bit constant and a Cast, whose result bears the weight's name; loaders fold the two. */
static sdx_status add_narrow(sdx_builder *b, const char *name, sdx_tensor *t, sdx_id *out)
{
    char stored[MAX_NAME];
    sdx_id constant, cast;
    snprintf(stored, sizeof stored, "%s.%s", name, b->dtype == SDX_F16 ? "f16" : "bf16");
    TRY(narrow(b, name, t));
    TRY(sdx_graph_add_constant(home(b), stored, t, &constant, b->err));
    TRY(sdx_graph_add_value(home(b), name, out, b->err));
    char *label = sdx_arena_strdup(&b->graph->model->arena, name);
    if (!label) return sdx_fail_memory(b->err, strlen(name));
    TRY(sdx_graph_add_node(home(b), "", "Cast", label, 1, &constant, 1, out, &cast, b->err));
    return sdx_node_set_int(home(b), cast, "to", SDX_F32, b->err);
}

static bool is_vector(const sdx_tensor *t)
{
    int wide = 0;
    for (int i = 0; i < t->rank; i++) wide += t->dim[i] != 1;
    return wide < 2;
}

/* Vectors, also those written [1, n], stay float32: they are small, and what norms and biases lose would be lost in
 * every layer. They are copied: read where they lie, between matrices, each would bring back pages of those. */
static sdx_status add_weight(sdx_builder *b, const char *name, const sdx_tensor *t, bool transposed,
                             sdx_id *out)
{
    bool vector = is_vector(t), narrows = !vector && (b->dtype == SDX_F16 || b->dtype == SDX_BF16);
    sdx_tensor copy = *t;
    if (narrows || transposed || vector || t->dtype != SDX_F32) TRY(copy_weight(b, t, transposed, &copy));
    return narrows ? add_narrow(b, name, &copy, out)
                   : sdx_graph_add_constant(home(b), name, &copy, out, b->err);
}

bool sdx_build_has(const sdx_builder *b, const char *name)
{
    char full[MAX_NAME];
    full_name(b, full, name, "", "");
    return sdx_checkpoint_find(b->checkpoint, full) != NULL;
}

sdx_id sdx_build_weight(sdx_builder *b, const char *name)
{
    char full[MAX_NAME];
    full_name(b, full, name, "", "");
    sdx_id id = find_value(b, full);
    const sdx_tensor *t = id == SDX_NONE ? find_weight(b, full) : NULL;
    if (t) DO(b, add_weight(b, full, t, false, &id));
    return take(b, id);
}

sdx_id sdx_build_transposed(sdx_builder *b, const char *name)
{
    char full[MAX_NAME], result[MAX_NAME];
    full_name(b, full, name, "", "");
    full_name(b, result, name, ".", "T");
    sdx_id id = find_value(b, result);
    const sdx_tensor *t = id == SDX_NONE ? find_weight(b, full) : NULL;
    if (t) DO(b, add_weight(b, result, t, true, &id));
    return take(b, id);
}

sdx_id sdx_build_constant(sdx_builder *b, const char *name, sdx_dtype dtype, int rank, const int64_t *dim,
                          const void *data)
{
    sdx_id id = find_value(b, name);
    if (id != SDX_NONE || b->status != SDX_OK) return take(b, id);
    sdx_tensor t = {.dtype = dtype, .rank = rank};
    for (int i = 0; i < rank; i++) t.dim[i] = dim[i];
    size_t bytes = sdx_tensor_bytes(&t);
    t.data = sdx_arena_alloc(&b->graph->model->arena, bytes);
    if (!t.data) {
        DO(b, sdx_fail_memory(b->err, bytes));
        return SDX_NONE;
    }
    memcpy(t.data, data, bytes);
    DO(b, sdx_graph_add_constant(home(b), name, &t, &id, b->err));
    return take(b, id);
}

sdx_id sdx_build_real(sdx_builder *b, double x)
{
    char name[MAX_NAME];
    snprintf(name, sizeof name, "float_%.9g", (double)(float)x);
    sdx_id id = find_value(b, name);
    if (id == SDX_NONE) DO(b, sdx_graph_add_scalar_f32(home(b), name, (float)x, &id, b->err));
    return take(b, id);
}

sdx_id sdx_build_int(sdx_builder *b, int64_t n)
{
    char name[MAX_NAME];
    snprintf(name, sizeof name, "int_%" PRId64, n);
    return sdx_build_constant(b, name, SDX_I64, 0, NULL, &n);
}

sdx_id sdx_build_ints(sdx_builder *b, int count, const int64_t *ints)
{
    char name[MAX_NAME] = "ints";
    size_t n = strlen(name);
    for (int i = 0; i < count && n < sizeof name; i++)
        n += (size_t)snprintf(name + n, sizeof name - n, "_%" PRId64, ints[i]);
    sdx_id id = find_value(b, name);
    if (id == SDX_NONE) DO(b, sdx_graph_add_ints(home(b), name, count, ints, &id, b->err));
    return take(b, id);
}

/* ---- operators ------------------------------------------------------------------------------------------- */

sdx_id sdx_build_op(sdx_builder *b, const char *op, const char *label, int n_in, const sdx_id *in)
{
    char name[MAX_NAME];
    sdx_id id = SDX_NONE;
    full_name(b, name, label, "", "");
    DO(b, sdx_graph_add_value(b->graph, name, &id, b->err));
    if (b->status != SDX_OK) return SDX_NONE;
    /* The value's name was made unique; the node bears the same. */
    char *unique = sdx_arena_strdup(&b->graph->model->arena, b->graph->value[id].name);
    if (!unique) DO(b, sdx_fail_memory(b->err, strlen(name)));
    DO(b, sdx_graph_add_node(b->graph, "", op, unique, n_in, in, 1, &id, &b->node, b->err));
    return b->status == SDX_OK ? id : SDX_NONE;
}

sdx_id sdx_build_op1(sdx_builder *b, const char *op, const char *label, sdx_id x)
{
    return sdx_build_op(b, op, label, 1, &x);
}

sdx_id sdx_build_op2(sdx_builder *b, const char *op, const char *label, sdx_id x, sdx_id y)
{
    return sdx_build_op(b, op, label, 2, (sdx_id[]){x, y});
}

void sdx_build_split(sdx_builder *b, const char *label, sdx_id x, int64_t axis, int n_out, const int64_t *sizes,
                     sdx_id *out)
{
    char name[MAX_NAME];
    sdx_id in[] = {x, sdx_build_ints(b, n_out, sizes)};
    full_name(b, name, label, "", "");
    for (int i = 0; i < n_out; i++) out[i] = SDX_NONE;
    for (int i = 0; i < n_out; i++) DO(b, sdx_graph_add_value(b->graph, name, &out[i], b->err));
    if (b->status != SDX_OK) return;
    char *unique = sdx_arena_strdup(&b->graph->model->arena, b->graph->value[out[0]].name);
    if (!unique) DO(b, sdx_fail_memory(b->err, strlen(name)));
    DO(b, sdx_graph_add_node(b->graph, "", "Split", unique, 2, in, n_out, out, &b->node, b->err));
    sdx_build_attr_int(b, "axis", axis);
}

void sdx_build_attr_int(sdx_builder *b, const char *name, int64_t n)
{
    DO(b, sdx_node_set_int(b->graph, b->node, name, n, b->err));
}

void sdx_build_attr_ints(sdx_builder *b, const char *name, size_t count, const int64_t *ints)
{
    DO(b, sdx_node_set_ints(b->graph, b->node, name, count, ints, b->err));
}

void sdx_build_attr_tensor(sdx_builder *b, const char *name, const sdx_tensor *tensor)
{
    DO(b, sdx_node_set_tensor(b->graph, b->node, name, tensor, b->err));
}

/* ---- in a module: the label is "module/Op" --------------------------------------------------------------- */

sdx_id sdx_build_module_op(sdx_builder *b, const char *module, const char *op, int n_in, const sdx_id *in)
{
    char label[MAX_NAME];
    snprintf(label, sizeof label, "%s/%s", module, op);
    return sdx_build_op(b, op, label, n_in, in);
}

sdx_id sdx_build_module_op1(sdx_builder *b, const char *module, const char *op, sdx_id x)
{
    return sdx_build_module_op(b, module, op, 1, &x);
}

sdx_id sdx_build_module_op2(sdx_builder *b, const char *module, const char *op, sdx_id x, sdx_id y)
{
    return sdx_build_module_op(b, module, op, 2, (sdx_id[]){x, y});
}

sdx_id sdx_build_module_weight(sdx_builder *b, const char *module, const char *weight)
{
    char name[MAX_NAME];
    snprintf(name, sizeof name, "%s.%s", module, weight);
    return sdx_build_weight(b, name);
}

sdx_id sdx_build_cast(sdx_builder *b, const char *module, sdx_id x, sdx_dtype to)
{
    x = sdx_build_module_op1(b, module, "Cast", x);
    sdx_build_attr_int(b, "to", to);
    return x;
}

sdx_id sdx_build_unsqueeze(sdx_builder *b, const char *module, sdx_id x, int64_t axis)
{
    return sdx_build_module_op2(b, module, "Unsqueeze", x, sdx_build_ints(b, 1, &axis));
}

sdx_id sdx_build_transpose(sdx_builder *b, const char *label, sdx_id x, int rank, const int64_t *order)
{
    x = sdx_build_op1(b, "Transpose", label, x);
    sdx_build_attr_ints(b, "perm", (size_t)rank, order);
    return x;
}

void sdx_build_attr_float(sdx_builder *b, const char *name, double x)
{
    DO(b, sdx_node_set_float(b->graph, b->node, name, (float)x, b->err));
}

void sdx_build_attr_string(sdx_builder *b, const char *name, const char *s)
{
    DO(b, sdx_node_set_string(b->graph, b->node, name, s, b->err));
}

/* Reductions take their axes as an attribute until opset 17, as an input from 18 on. */
sdx_id sdx_build_reduce(sdx_builder *b, const char *op, const char *label, sdx_id x, int64_t axis, bool keep)
{
    sdx_id r = b->opset < 18 && strcmp(op, "ReduceSum")
                   ? sdx_build_op1(b, op, label, x)
                   : sdx_build_op2(b, op, label, x, sdx_build_ints(b, 1, &axis));
    if (b->opset < 18 && strcmp(op, "ReduceSum")) sdx_build_attr_ints(b, "axes", 1, &axis);
    if (!keep) sdx_build_attr_int(b, "keepdims", 0);
    return r;
}
