/* builder.c: see builder.h */
#include "builder.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define MAX_NAME 256

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

/* ---- inputs and outputs ---------------------------------------------------------------------------------- */

static sdx_dim make_dim(sdx_builder *b, int64_t dim)
{
    static const char *const names[] = {"batch_size", "sequence", "nonzero"};
    if (dim >= 0) return dim;
    int symbol = sdx_model_symbol(b->graph->model, names[-1 - dim]);
    if (symbol < 0) DO(b, sdx_fail_memory(b->err, MAX_NAME));
    return SDX_DIM_SYMBOL(symbol);
}

sdx_id sdx_build_token_input(sdx_builder *b, const char *name)
{
    sdx_id id = SDX_NONE;
    sdx_shape shape = sdx_shape_make(2, (sdx_dim[]){make_dim(b, SDX_BATCH), make_dim(b, SDX_SEQUENCE)});
    DO(b, sdx_graph_add_input(b->graph, name, SDX_I64, &shape, &id, b->err));
    return id;
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

static sdx_id find_value(const sdx_builder *b, const char *name)
{
    return b->status == SDX_OK ? sdx_graph_find_value(b->graph, name) : SDX_NONE;
}

static const sdx_tensor *find_weight(sdx_builder *b, const char *name)
{
    const sdx_tensor *t = b->status == SDX_OK ? sdx_checkpoint_find(b->checkpoint, name) : NULL;
    if (!t) DO(b, sdx_fail(b->err, SDX_ERR_FILE, "the checkpoint has no tensor \"%s\"", name));
    return t;
}

/* dst [columns, rows] from src [rows, columns]. Tiles of 16 by 64: a source row's part is one or two cache
 * lines' stream, and the 16 floats written side by side fill a destination line. */
static void transpose(const sdx_tensor *src, float *dst)
{
    enum { ROWS = 16, COLUMNS = 64 };
    float tile[ROWS][COLUMNS];
    int64_t rows = src->dim[0], columns = src->dim[1];
    for (int64_t i0 = 0; i0 < rows; i0 += ROWS) {
        int64_t m = rows - i0 < ROWS ? rows - i0 : ROWS;
        for (int64_t j0 = 0; j0 < columns; j0 += COLUMNS) {
            int64_t n = columns - j0 < COLUMNS ? columns - j0 : COLUMNS;
            for (int64_t i = 0; i < m; i++) sdx_weight_load(src, (i0 + i) * columns + j0, n, tile[i]);
            for (int64_t j = 0; j < n; j++)
                for (int64_t i = 0; i < m; i++) dst[(j0 + j) * rows + i0 + i] = tile[i][j];
        }
    }
}

static sdx_status add_float_copy(sdx_builder *b, const char *name, const sdx_tensor *t, bool transposed,
                                 sdx_id *out)
{
    sdx_arena *arena = &b->graph->model->arena;
    int64_t count = sdx_tensor_count(t);
    sdx_tensor copy = *t;
    float *data;
    ARENA_NEW(arena, data, (size_t)count, b->err);
    copy.dtype = SDX_F32;
    copy.data = data;
    if (transposed) {
        copy.dim[0] = t->dim[1];
        copy.dim[1] = t->dim[0];
        transpose(t, data);
    } else {
        sdx_weight_load(t, 0, count, data);
    }
    sdx_checkpoint_release(b->checkpoint, t);
    return sdx_graph_add_constant(b->graph, name, &copy, out, b->err);
}

sdx_id sdx_build_weight(sdx_builder *b, const char *name)
{
    char full[MAX_NAME];
    full_name(b, full, name, "", "");
    sdx_id id = find_value(b, full);
    const sdx_tensor *t = id == SDX_NONE ? find_weight(b, full) : NULL;
    if (!t) return id;
    if (t->dtype == SDX_F32)
        DO(b, sdx_graph_add_constant(b->graph, full, t, &id, b->err));
    else
        DO(b, add_float_copy(b, full, t, false, &id));
    return id;
}

sdx_id sdx_build_transposed(sdx_builder *b, const char *name)
{
    char full[MAX_NAME], result[MAX_NAME];
    full_name(b, full, name, "", "");
    full_name(b, result, name, ".", "T");
    sdx_id id = find_value(b, result);
    const sdx_tensor *t = id == SDX_NONE ? find_weight(b, full) : NULL;
    if (t) DO(b, add_float_copy(b, result, t, true, &id));
    return id;
}

sdx_id sdx_build_real(sdx_builder *b, double x)
{
    char name[MAX_NAME];
    snprintf(name, sizeof name, "float_%.9g", (double)(float)x);
    sdx_id id = find_value(b, name);
    if (id == SDX_NONE) DO(b, sdx_graph_add_scalar_f32(b->graph, name, (float)x, &id, b->err));
    return id;
}

sdx_id sdx_build_int(sdx_builder *b, int64_t n)
{
    char name[MAX_NAME];
    snprintf(name, sizeof name, "int_%" PRId64, n);
    sdx_id id = find_value(b, name);
    int64_t *data = id == SDX_NONE ? sdx_arena_alloc(&b->graph->model->arena, sizeof *data) : NULL;
    if (!data) return id;
    *data = n;
    sdx_tensor scalar = {.dtype = SDX_I64, .data = data};
    DO(b, sdx_graph_add_constant(b->graph, name, &scalar, &id, b->err));
    return id;
}

sdx_id sdx_build_ints(sdx_builder *b, int count, const int64_t *ints)
{
    char name[MAX_NAME] = "ints";
    size_t n = strlen(name);
    for (int i = 0; i < count && n < sizeof name; i++)
        n += (size_t)snprintf(name + n, sizeof name - n, "_%" PRId64, ints[i]);
    sdx_id id = find_value(b, name);
    if (id == SDX_NONE) DO(b, sdx_graph_add_ints(b->graph, name, count, ints, &id, b->err));
    return id;
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

void sdx_build_attr_int(sdx_builder *b, const char *name, int64_t n)
{
    DO(b, sdx_node_set_int(b->graph, b->node, name, n, b->err));
}

void sdx_build_attr_ints(sdx_builder *b, const char *name, size_t count, const int64_t *ints)
{
    DO(b, sdx_node_set_ints(b->graph, b->node, name, count, ints, b->err));
}

/* "module/Op": the usual label. */
typedef struct label {
    char text[MAX_NAME];
} label;

static label in_module(const char *module, const char *op)
{
    label l;
    snprintf(l.text, sizeof l.text, "%s/%s", module, op);
    return l;
}

static sdx_id module_op1(sdx_builder *b, const char *module, const char *op, sdx_id x)
{
    return sdx_build_op1(b, op, in_module(module, op).text, x);
}

static sdx_id module_op2(sdx_builder *b, const char *module, const char *op, sdx_id x, sdx_id y)
{
    return sdx_build_op2(b, op, in_module(module, op).text, x, y);
}

/* Reductions take their axes as an attribute until opset 17, as an input from 18 on. */
static sdx_id reduce(sdx_builder *b, const char *op, const char *name, sdx_id x, int64_t axis, bool keep)
{
    sdx_id r = b->opset < 18 ? sdx_build_op1(b, op, name, x)
                             : sdx_build_op2(b, op, name, x, sdx_build_ints(b, 1, &axis));
    if (b->opset < 18) sdx_build_attr_ints(b, "axes", 1, &axis);
    if (!keep) sdx_build_attr_int(b, "keepdims", 0);
    return r;
}

static sdx_id module_weight(sdx_builder *b, const char *module, const char *weight)
{
    label l;
    snprintf(l.text, sizeof l.text, "%s.%s", module, weight);
    return sdx_build_weight(b, l.text);
}

/* ---- layers ---------------------------------------------------------------------------------------------- */

sdx_id sdx_build_linear(sdx_builder *b, const char *name, sdx_id x)
{
    label weight;
    snprintf(weight.text, sizeof weight.text, "%s.weight", name);
    x = module_op2(b, name, "MatMul", x, sdx_build_transposed(b, weight.text));
    return module_op2(b, name, "Add", x, module_weight(b, name, "bias"));
}

sdx_id sdx_build_linear_rows(sdx_builder *b, const char *name, sdx_id x)
{
    sdx_id in[] = {x, module_weight(b, name, "weight"), module_weight(b, name, "bias")};
    x = sdx_build_op(b, "Gemm", in_module(name, "Gemm").text, 3, in);
    sdx_build_attr_int(b, "transB", 1);
    return x;
}

static sdx_id layer_norm_op(sdx_builder *b, const char *name, sdx_id x, double epsilon)
{
    sdx_id in[] = {x, module_weight(b, name, "weight"), module_weight(b, name, "bias")};
    x = sdx_build_op(b, "LayerNormalization", in_module(name, "LayerNormalization").text, 3, in);
    sdx_build_attr_int(b, "axis", -1);
    DO(b, sdx_node_set_float(b->graph, b->node, "epsilon", (float)epsilon, b->err));
    return x;
}

sdx_id sdx_build_layer_norm(sdx_builder *b, const char *name, sdx_id x, double epsilon)
{
    if (b->opset >= 17) return layer_norm_op(b, name, x, epsilon);
    sdx_id mean = reduce(b, "ReduceMean", in_module(name, "ReduceMean").text, x, -1, true);
    sdx_id centered = module_op2(b, name, "Sub", x, mean);
    sdx_id squared = module_op2(b, name, "Pow", centered, sdx_build_real(b, 2));
    sdx_id variance = reduce(b, "ReduceMean", in_module(name, "ReduceMean_variance").text, squared, -1, true);
    sdx_id shifted =
        sdx_build_op2(b, "Add", in_module(name, "Add_epsilon").text, variance, sdx_build_real(b, epsilon));
    sdx_id normal = module_op2(b, name, "Div", centered, module_op1(b, name, "Sqrt", shifted));
    sdx_id scaled = module_op2(b, name, "Mul", normal, module_weight(b, name, "weight"));
    return module_op2(b, name, "Add", scaled, module_weight(b, name, "bias"));
}

/* x/2 * (1 + erf(x / sqrt 2)), multiplied in PyTorch's order */
static sdx_id gelu(sdx_builder *b, const char *name, sdx_id x)
{
    sdx_id t = module_op2(b, name, "Div", x, sdx_build_real(b, sqrt(2)));
    t = module_op2(b, name, "Add", module_op1(b, name, "Erf", t), sdx_build_real(b, 1));
    t = module_op2(b, name, "Mul", x, t);
    return sdx_build_op2(b, "Mul", in_module(name, "Mul_half").text, t, sdx_build_real(b, 0.5));
}

/* x/2 * (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) */
static sdx_id gelu_tanh(sdx_builder *b, const char *name, sdx_id x)
{
    const double pi = 3.14159265358979323846;
    sdx_id t = module_op2(b, name, "Pow", x, sdx_build_real(b, 3));
    t = sdx_build_op2(b, "Mul", in_module(name, "Mul_cube").text, t, sdx_build_real(b, 0.044715));
    t = sdx_build_op2(b, "Add", in_module(name, "Add_cube").text, x, t);
    t = sdx_build_op2(b, "Mul", in_module(name, "Mul_scale").text, t, sdx_build_real(b, sqrt(2 / pi)));
    t = module_op2(b, name, "Add", module_op1(b, name, "Tanh", t), sdx_build_real(b, 1));
    x = sdx_build_op2(b, "Mul", in_module(name, "Mul_half").text, x, sdx_build_real(b, 0.5));
    return module_op2(b, name, "Mul", x, t);
}

sdx_id sdx_build_activation(sdx_builder *b, const char *name, sdx_id x, sdx_activation kind)
{
    switch (kind) {
    case SDX_GELU: return gelu(b, name, x);
    case SDX_GELU_TANH: return gelu_tanh(b, name, x);
    case SDX_RELU: break;
    }
    return module_op1(b, name, "Relu", x);
}

sdx_id sdx_build_embedding(sdx_builder *b, const char *name, sdx_id ids)
{
    return module_op2(b, name, "Gather", module_weight(b, name, "weight"), ids);
}

static sdx_id position_row(sdx_builder *b, int64_t positions)
{
    sdx_id id = SDX_NONE;
    int64_t *row = sdx_arena_array(&b->graph->model->arena, (size_t)positions, sizeof *row);
    if (!row) {
        DO(b, sdx_fail_memory(b->err, (size_t)positions * sizeof *row));
        return id;
    }
    for (int64_t i = 0; i < positions; i++) row[i] = i;
    sdx_tensor t = {.dtype = SDX_I64, .rank = 2, .dim = {1, positions}, .data = row};
    DO(b, sdx_graph_add_constant(b->graph, "position_ids", &t, &id, b->err));
    return id;
}

sdx_id sdx_build_positions(sdx_builder *b, const char *name, sdx_id ids, int64_t positions)
{
    const int64_t zero = 0, one = 1;
    sdx_id length = module_op2(b, name, "Gather", module_op1(b, name, "Shape", ids), sdx_build_int(b, 1));
    length = module_op2(b, name, "Unsqueeze", length, sdx_build_ints(b, 1, &zero));
    sdx_id in[] = {position_row(b, positions), sdx_build_ints(b, 1, &zero), length, sdx_build_ints(b, 1, &one),
                   sdx_build_ints(b, 1, &one)};
    return sdx_build_op(b, "Slice", in_module(name, "Slice").text, 5, in);
}

sdx_id sdx_build_attention_bias(sdx_builder *b, sdx_id mask)
{
    const int64_t one = 1, two = 2;
    const char *name = "attention_bias";
    mask = module_op2(b, name, "Unsqueeze", mask, sdx_build_ints(b, 1, &one));
    mask = module_op2(b, name, "Unsqueeze", mask, sdx_build_ints(b, 1, &two));
    mask = module_op1(b, name, "Cast", mask);
    sdx_build_attr_int(b, "to", SDX_F32);
    sdx_id padding = module_op2(b, name, "Sub", sdx_build_real(b, 1), mask);
    return module_op2(b, name, "Mul", padding, sdx_build_real(b, -FLT_MAX));
}

/* [B, S, heads * head_size] -> [B, heads, S, head_size], or with the last two dims swapped for the keys */
static sdx_id split_heads(sdx_builder *b, const char *name, const char *suffix, sdx_id x, int64_t heads,
                          int64_t head_size, bool swap)
{
    static const int64_t straight[] = {0, 2, 1, 3}, swapped[] = {0, 2, 3, 1};
    label l;
    snprintf(l.text, sizeof l.text, "%s/Reshape_%s", name, suffix);
    x = sdx_build_op2(b, "Reshape", l.text, x, sdx_build_ints(b, 4, (int64_t[]){0, 0, heads, head_size}));
    snprintf(l.text, sizeof l.text, "%s/Transpose_%s", name, suffix);
    x = sdx_build_op1(b, "Transpose", l.text, x);
    sdx_build_attr_ints(b, "perm", 4, swap ? swapped : straight);
    return x;
}

static sdx_id project(sdx_builder *b, const char *name, const char *which, sdx_id x)
{
    label l;
    snprintf(l.text, sizeof l.text, "%s.%s", name, which);
    return sdx_build_linear(b, l.text, x);
}

sdx_id sdx_build_self_attention(sdx_builder *b, const char *name, sdx_id x, sdx_id bias, int64_t heads,
                                int64_t head_size)
{
    sdx_id q = split_heads(b, name, "q", project(b, name, "query", x), heads, head_size, false);
    sdx_id k = split_heads(b, name, "k", project(b, name, "key", x), heads, head_size, true);
    sdx_id v = split_heads(b, name, "v", project(b, name, "value", x), heads, head_size, false);
    sdx_id scores = sdx_build_op2(b, "MatMul", in_module(name, "MatMul_qk").text, q, k);
    scores = module_op2(b, name, "Div", scores, sdx_build_real(b, sqrt((double)head_size)));
    scores = sdx_build_op2(b, "Add", in_module(name, "Add_bias").text, scores, bias);
    scores = module_op1(b, name, "Softmax", scores);
    sdx_build_attr_int(b, "axis", -1);
    x = sdx_build_op2(b, "MatMul", in_module(name, "MatMul_v").text, scores, v);
    x = module_op1(b, name, "Transpose", x);
    sdx_build_attr_ints(b, "perm", 4, (int64_t[]){0, 2, 1, 3});
    return module_op2(b, name, "Reshape", x, sdx_build_ints(b, 3, (int64_t[]){0, 0, heads * head_size}));
}

sdx_id sdx_build_first_token(sdx_builder *b, const char *name, sdx_id x)
{
    x = module_op2(b, name, "Gather", x, sdx_build_int(b, 0));
    sdx_build_attr_int(b, "axis", 1);
    return x;
}

/* log(1 + relu(x)) never decreases and is 0 at 0, so it may follow the maximum over tokens instead of preceding
 * it: three passes over [B, V] in place of [B, S, V]. Padding counts as 0, as Formal et al. 2021 (SPLADE v2)
 * have it. */
void sdx_build_splade(sdx_builder *b, sdx_id logits, sdx_id mask)
{
    const int64_t last = -1, row_major[] = {1, 0}, any[] = {SDX_NONZERO};
    const char *name = "splade";
    sdx_build_scope(b, "%s", "");
    sdx_id weight = module_op2(b, name, "Unsqueeze", mask, sdx_build_ints(b, 1, &last));
    weight = module_op1(b, name, "Cast", weight);
    sdx_build_attr_int(b, "to", SDX_F32);
    sdx_id x = module_op2(b, name, "Mul", logits, weight);
    x = reduce(b, "ReduceMax", in_module(name, "ReduceMax").text, x, 1, false);
    x = module_op1(b, name, "Relu", x);
    x = module_op1(b, name, "Log", module_op2(b, name, "Add", x, sdx_build_real(b, 1)));
    sdx_id places = module_op1(b, name, "NonZero", x); /* [2, n]: batch rows, vocabulary indices */
    sdx_id index = module_op2(b, name, "Gather", places, sdx_build_int(b, 1));
    places = module_op1(b, name, "Transpose", places);
    sdx_build_attr_ints(b, "perm", 2, row_major);
    sdx_id values = module_op2(b, name, "GatherND", x, places);
    sdx_build_output(b, index, "output_idx", SDX_I64, 1, any);
    sdx_build_output(b, values, "output_weights", SDX_F32, 1, any);
}
