/* test_passes.c: each pass on small graphs built by hand, in the spellings that exporters use, and in spellings
 * that look alike but mean something else and must be left alone. A graph is compared as the list of its
 * operators. */
#include <check.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../engine/engine.h"
#include "../../engine/ops/ops.h"
#include "../../graph/passes/mask.h"
#include "../../graph/passes/passes.h"

static sdx_model *model;
static sdx_graph *g;
static sdx_error err;

static void ok(sdx_status status)
{
    ck_assert_msg(status == SDX_OK, "%s", err.message);
}

static void setup(void)
{
    err = (sdx_error){0};
    ok(sdx_model_create(&model, &err));
    ok(sdx_model_set_opset(model, "", 14, &err));
    g = model->graph;
}

static void teardown(void)
{
    sdx_model_close(model);
}

/* ---- building ------------------------------------------------------------------------------------------- */

static sdx_dim symbol(const char *name)
{
    return SDX_DIM_SYMBOL(sdx_model_symbol(model, name));
}

static sdx_id input(const char *name, sdx_dtype dtype, int rank, sdx_dim a, sdx_dim b, sdx_dim c)
{
    sdx_dim dim[3] = {a, b, c};
    sdx_shape shape = sdx_shape_make(rank, dim);
    sdx_id id;
    ok(sdx_graph_add_input(g, name, dtype, &shape, &id, &err));
    return id;
}

/* float32[batch, tokens, width] */
static sdx_id hidden(const char *name, int64_t width)
{
    return input(name, SDX_F32, 3, symbol("batch"), symbol("tokens"), width);
}

static sdx_id tensor(sdx_dtype dtype, int rank, int64_t a, int64_t b, double first, double step)
{
    sdx_tensor t = {.dtype = dtype, .rank = rank, .dim = {a, b}};
    int64_t n = sdx_tensor_count(&t);
    t.data = sdx_arena_alloc(&model->arena, sdx_tensor_bytes(&t) + 1);
    for (int64_t i = 0; i < n; i++) {
        double x = first + step * (double)i;
        if (dtype == SDX_F32)
            ((float *)t.data)[i] = (float)x;
        else
            ((int64_t *)t.data)[i] = (int64_t)x;
    }
    sdx_id id;
    ok(sdx_graph_add_constant(g, "c", &t, &id, &err));
    return id;
}

static sdx_id scalar(double x)
{
    return tensor(SDX_F32, 0, 0, 0, x, 0);
}
static sdx_id vector(int64_t n)
{
    return tensor(SDX_F32, 1, n, 0, 0.1, 0.01);
}
static sdx_id matrix(int64_t rows, int64_t columns)
{
    return tensor(SDX_F32, 2, rows, columns, 0.1, 0.01);
}

static sdx_id ints(int count, ...)
{
    int64_t list[8];
    va_list args;
    va_start(args, count);
    for (int i = 0; i < count; i++) list[i] = va_arg(args, int);
    va_end(args);
    sdx_id id;
    ok(sdx_graph_add_ints(g, "i", count, list, &id, &err));
    return id;
}

static sdx_id op(const char *op_type, int n_in, sdx_id a, sdx_id b, sdx_id c)
{
    sdx_id in[3] = {a, b, c}, out;
    ok(sdx_graph_emit(g, "", op_type, NULL, n_in, in, &out, &err));
    return out;
}

static sdx_id op1(const char *op_type, sdx_id a)
{
    return op(op_type, 1, a, SDX_NONE, SDX_NONE);
}
static sdx_id op2(const char *op_type, sdx_id a, sdx_id b)
{
    return op(op_type, 2, a, b, SDX_NONE);
}

static sdx_id with_int(sdx_id v, const char *name, int64_t i)
{
    ok(sdx_node_set_int(g, g->value[v].producer, name, i, &err));
    return v;
}

static sdx_id with_ints(sdx_id v, const char *name, int count, const int64_t *list)
{
    ok(sdx_node_set_ints(g, g->value[v].producer, name, (size_t)count, list, &err));
    return v;
}

static sdx_id cast(sdx_id v, sdx_dtype to)
{
    return with_int(op1("Cast", v), "to", to);
}
static void output(sdx_id v)
{
    ok(sdx_graph_add_output(g, v, &err));
}

/* ---- looking -------------------------------------------------------------------------------------------- */

static void run_as(bool for_run, bool standard, const char *only)
{
    const sdx_kernels *kernels;
    ok(sdx_kernels_choose(NULL, &kernels, &err));
    sdx_eval_context eval = {kernels, 1, SDX_FOLD_STEPS};
    sdx_pass_context context = {.model = model,
                                .registry = &sdx_operators,
                                .eval = sdx_eval_node,
                                .eval_context = &eval,
                                .for_run = for_run,
                                .standard = standard,
                                .err = &err};
    ok(sdx_passes_run(&context, only));
}

static void run_for(bool for_run, const char *only)
{
    run_as(for_run, false, only);
}

static void run(const char *only)
{
    run_for(false, only);
}

/* The graph's operators in order, and its outputs' names still there. */
static void expect(const char *operators)
{
    char own[1024] = "";
    for (sdx_id i = 0; i < g->n_node; i++) {
        if (*own) strcat(own, " ");
        strcat(own, g->node[i].op_type);
    }
    ck_assert_str_eq(own, operators);
}

static const sdx_node *find(const char *op_type)
{
    for (sdx_id i = 0; i < g->n_node; i++)
        if (strcmp(g->node[i].op_type, op_type) == 0) return &g->node[i];
    ck_abort_msg("no %s", op_type);
    return NULL;
}

/* ---- the driver ----------------------------------------------------------------------------------------- */

START_TEST(unknown_pass_is_named)
{
    sdx_pass_context context = {.model = model, .registry = &sdx_operators, .err = &err};
    ck_assert_int_eq(sdx_passes_run(&context, "eliminate,fuse_everything"), SDX_ERR_USAGE);
    ck_assert_ptr_nonnull(strstr(err.message, "fuse_everything"));
    ck_assert_ptr_nonnull(strstr(err.message, "fuse_attention"));
}
END_TEST

START_TEST(only_selects)
{
    sdx_id x = hidden("x", 8);
    output(op1("Relu", op1("Identity", x)));
    run("merge_duplicates");
    expect("Identity Relu");
    run("fold_constants,eliminate");
    expect("Relu");
}
END_TEST

START_TEST(unknown_operator_is_walked_around)
{
    sdx_id x = hidden("x", 8);
    output(op1("NobodyKnowsThis", op1("Identity", x)));
    run(NULL);
    expect("NobodyKnowsThis");
}
END_TEST

/* ---- folding -------------------------------------------------------------------------------------------- */

START_TEST(constants_fold)
{
    sdx_id x = hidden("x", 1), sum = op2("Add", scalar(2), op1("Sqrt", scalar(9)));
    sdx_id y = op2("Mul", x, sum);
    output(y);
    run("fold_constants");
    expect("Mul");
    double number;
    ck_assert(sdx_graph_scalar(g, find("Mul")->in[1], &number));
    ck_assert_double_eq(number, 5);
}
END_TEST

/* 90,000 int64 to 360 KB of float32: too much for a file, which had to keep both, not for a run. */
START_TEST(a_run_folds_more_than_a_file)
{
    sdx_id big = tensor(SDX_I64, 1, 90000, 0, 0, 1);
    output(op2("Add", input("x", SDX_F32, 1, 90000, 0, 0), cast(big, SDX_F32)));
    output(op2("Add", input("y", SDX_I64, 1, 90000, 0, 0), big));
    run("fold_constants");
    expect("Cast Add Add");
    run_for(true, "fold_constants");
    expect("Add Add");
}
END_TEST

START_TEST(known_dim_folds)
{
    sdx_id x = hidden("x", 64);
    sdx_id width = op2("Gather", op1("Shape", x), ints(1, 2));
    output(op2("Mul", x, op1("Sqrt", cast(width, SDX_F32))));
    run(NULL);
    expect("Mul");
}
END_TEST

START_TEST(outputs_and_random_numbers_do_not_fold)
{
    output(op2("Add", scalar(2), scalar(3)));
    run("fold_constants");
    expect("Add");
}
END_TEST

/* Reshape(y, Concat(Shape(y)[0], Shape(y)[1], 4, 2)) */
static sdx_id split_heads(sdx_id y, int heads, int size)
{
    sdx_id b = op2("Gather", op1("Shape", y), ints(1, 0)), t = op2("Gather", op1("Shape", y), ints(1, 1));
    sdx_id in[4] = {b, t, ints(1, heads), ints(1, size)}, shape;
    ok(sdx_graph_emit(g, "", "Concat", NULL, 4, in, &shape, &err));
    with_int(shape, "axis", 0);
    return op2("Reshape", y, shape);
}

START_TEST(reshape_target_becomes_constant)
{
    sdx_id x = hidden("x", 8);
    sdx_id y = with_int(split_heads(x, 4, 2), "allowzero", 1);
    output(y);
    run(NULL);
    expect("Reshape");
    int64_t target[4];
    int count;
    ck_assert(sdx_type_ints(&g->value[g->node[0].in[1]].type, 4, target, &count));
    ck_assert_int_eq(count, 4);
    ck_assert(target[0] == 0 && target[1] == 0 && target[2] == 4 && target[3] == 2);
    ck_assert_int_eq(sdx_node_int(&g->node[0], "allowzero", 0), 0);
}
END_TEST

START_TEST(reshape_of_two_foreign_dims_stays)
{
    sdx_id x = hidden("x", 8), other = input("other", SDX_F32, 2, symbol("p"), symbol("q"), 0);
    sdx_id in[3] = {op2("Gather", op1("Shape", other), ints(1, 0)),
                    op2("Gather", op1("Shape", other), ints(1, 1)), ints(1, 8)};
    sdx_id shape;
    ok(sdx_graph_emit(g, "", "Concat", NULL, 3, in, &shape, &err));
    with_int(shape, "axis", 0);
    output(op2("Reshape", x, shape));
    run(NULL);
    ck_assert_ptr_null(sdx_graph_constant(g, find("Reshape")->in[1]));
}
END_TEST

START_TEST(no_ops_go)
{
    sdx_id x = hidden("x", 8), y = op1("Identity", x);
    y = op2("Mul", scalar(1), op2("Add", y, scalar(0)));
    y = op2("Div", op2("Sub", y, scalar(0)), scalar(1));
    static const int64_t there[3] = {2, 0, 1}, back[3] = {1, 2, 0};
    y = with_ints(op1("Transpose", with_ints(op1("Transpose", y), "perm", 3, there)), "perm", 3, back);
    y = op2("Reshape", cast(op1("Dropout", y), SDX_F32), ints(3, 0, 0, 8));
    output(op1("Relu", y));
    run("eliminate");
    expect("Relu");
}
END_TEST

START_TEST(look_alikes_of_no_ops_stay)
{
    sdx_id x = hidden("x", 1), y = op2("Sub", scalar(0), x);
    y = op2("Div", scalar(1), y);
    y = op2("Add", y, tensor(SDX_F32, 2, 1, 1, 0, 0)); /* same shape: goes */
    static const int64_t there[3] = {2, 0, 1};
    y = with_ints(op1("Transpose", with_ints(op1("Transpose", y), "perm", 3, there)), "perm", 3, there);
    output(op2("Reshape", y, ints(2, -1, 1)));
    run("eliminate");
    expect("Sub Div Transpose Transpose Reshape");
}
END_TEST

START_TEST(identity_before_an_output_keeps_its_name)
{
    sdx_id x = hidden("x", 8), y = op1("Identity", op1("Relu", x));
    const char *name = g->value[y].name;
    output(y);
    output(op1("Identity", x)); /* an input cannot be renamed */
    run("eliminate");
    expect("Relu Identity");
    ck_assert_str_eq(g->value[g->node[0].out[0]].name, name);
}
END_TEST

START_TEST(duplicates_merge)
{
    sdx_id x = hidden("x", 8);
    sdx_id a = op2("Mul", x, vector(8)), b = op2("Mul", x, vector(8)), c = op2("Mul", x, scalar(3));
    output(op2("Add", op2("Add", a, b), c));
    run("merge_duplicates");
    expect("Mul Mul Add Add");
    ck_assert_uint_eq(sdx_graph_initializer_count(g), 2);
}
END_TEST

START_TEST(integers_times_zero_fold)
{
    sdx_id x = hidden("x", 8), unused = input("unused", SDX_I64, 1, 3, 0, 0);
    sdx_id sum = with_int(op1("ReduceSum", unused), "keepdims", 0);
    output(op2("Add", x, op2("Mul", cast(sum, SDX_F32), scalar(0))));
    sdx_id real = with_int(op1("ReduceSum", input("real", SDX_F32, 1, 3, 0, 0)), "keepdims", 0);
    output(op2("Mul", real, scalar(0))); /* infinity * 0 is not 0 */
    run(NULL);
    ck_assert_int_eq(g->n_node, 3);
    expect("Add ReduceSum Mul");
}
END_TEST

/* ---- look-ups at NonZero ----------------------------------------------------------------------------------
 */

static sdx_id coordinates(sdx_id x)
{
    static const int64_t swapped[2] = {1, 0};
    return with_ints(op1("Transpose", op1("NonZero", x)), "perm", 2, swapped);
}

START_TEST(flat_look_up_fuses)
{
    sdx_id x = input("x", SDX_F32, 2, symbol("batch"), 100, 0), column[2], transposed = coordinates(x);
    ok(sdx_graph_add_value(g, NULL, &column[0], &err));
    ok(sdx_graph_add_value(g, NULL, &column[1], &err));
    sdx_id in[2] = {transposed, ints(2, 1, 1)}, node;
    ok(sdx_graph_add_node(g, "", "Split", "", 2, in, 2, column, &node, &err));
    ok(sdx_node_set_int(g, node, "axis", 1, &err));
    sdx_id i = op2("Squeeze", column[0], ints(1, 1)), j = op2("Squeeze", column[1], ints(1, 1));
    /* the width that the index is made with must be x's own */
    sdx_id flat = op2("Add", j, op2("Mul", i, ints(1, _i == 0 ? 100 : 99)));
    sdx_id list = op2("Gather", with_int(op1("Flatten", x), "axis", 2), flat);
    output(j);
    output(op2("Reshape", list, ints(1, -1)));
    run("fuse_index");
    if (_i == 0)
        expect("NonZero Gather Transpose GatherND");
    else
        ck_assert_ptr_nonnull(find("Flatten"));
}
END_TEST

START_TEST(stacked_look_up_fuses)
{
    sdx_id x = input("x", SDX_F32, 2, symbol("batch"), 100, 0), transposed = coordinates(x), column[2];
    for (int k = 0; k < 2; k++) {
        sdx_id in[4] = {transposed, ints(1, k), ints(1, k + 1), ints(1, 1)}, slice;
        ok(sdx_graph_emit(g, "", "Slice", NULL, 4, in, &slice, &err));
        column[k] = op2("Unsqueeze", op2("Squeeze", slice, ints(1, 1)), ints(1, -1));
    }
    sdx_id stacked = with_int(op2("Concat", column[_i], column[1 - _i]), "axis", -1);
    output(op2("GatherND", x, stacked));
    run("fuse_index");
    if (_i == 0)
        expect("NonZero Transpose GatherND");
    else
        ck_assert_ptr_nonnull(find("Concat")); /* columns swapped */
}
END_TEST

/* ---- LayerNormalization -----------------------------------------------------------------------------------
 */

static sdx_id mean(sdx_id v, int64_t axis)
{
    return with_ints(op1("ReduceMean", v), "axes", 1, &axis);
}

static sdx_id norm(sdx_id x, double exponent, int64_t axis, int64_t width)
{
    sdx_id d = op2("Sub", x, mean(x, axis));
    sdx_id deviation = op1("Sqrt", op2("Add", mean(op2("Pow", d, scalar(exponent)), axis), scalar(1e-12)));
    return op2("Add", vector(width), op2("Mul", op2("Div", d, deviation), vector(width)));
}

START_TEST(layer_norm_fuses)
{
    output(norm(hidden("x", 8), 2, -1, 8));
    run("fuse_layer_norm");
    expect("LayerNormalization");
    ck_assert_float_eq(sdx_node_float(&g->node[0], "epsilon", 0), 1e-12f);
    ck_assert_int_eq(g->node[0].n_in, 3);
}
END_TEST

START_TEST(layer_norm_without_beta_fuses)
{
    sdx_id x = hidden("x", 8), d = op2("Sub", x, mean(x, 2)), again = op2("Sub", x, mean(x, 2));
    sdx_id deviation = op1("Sqrt", op2("Add", mean(op2("Mul", again, again), 2), scalar(1e-5)));
    output(op2("Mul", op2("Div", d, deviation), vector(8)));
    run("merge_duplicates,fuse_layer_norm");
    expect("LayerNormalization");
    ck_assert_int_eq(g->node[0].n_in, 2);
}
END_TEST

START_TEST(other_norms_stay)
{
    output(norm(hidden("x", 8), 3, -1, 8)); /* not a variance */
    output(norm(hidden("y", 8), 2, 1, 8));  /* not the last axis */
    run("fuse_layer_norm");
    for (sdx_id i = 0; i < g->n_node; i++) ck_assert_str_ne(g->node[i].op_type, "LayerNormalization");
}
END_TEST

/* ---- Gelu -------------------------------------------------------------------------------------------------
 */

/* where: on which operand of the outer products the 0.5 sits. */
static sdx_id gelu(sdx_id x, sdx_id inner, const char *function, int where)
{
    sdx_id gate = op2("Add", op1(function, inner), scalar(1)), half = scalar(0.5);
    if (where == 0) return op2("Mul", op2("Mul", x, gate), half);
    if (where == 1) return op2("Mul", x, op2("Mul", half, gate));
    return op2("Mul", op2("Mul", x, half), gate);
}

START_TEST(erf_gelu_fuses)
{
    sdx_id x = hidden("x", 8);
    sdx_id inner = _i % 2 ? op2("Mul", x, scalar(M_SQRT1_2)) : op2("Div", x, scalar(sqrt(2)));
    output(gelu(x, inner, "Erf", _i / 2));
    run("fuse_gelu");
    expect("Gelu");
    ck_assert_str_eq(g->node[0].domain, SDX_MS);
    ck_assert_int_eq(sdx_model_opset(model, SDX_MS), 1);
}
END_TEST

START_TEST(tanh_gelu_fuses)
{
    sdx_id x = hidden("x", 8), inner, k = scalar(sqrt(2 / M_PI)), c = scalar(0.044715);
    if (_i % 3 == 0)
        inner = op2("Mul", k, op2("Add", x, op2("Mul", c, op2("Pow", x, scalar(3)))));
    else if (_i % 3 == 1)
        inner = op2("Mul", op2("Mul", x, k), op2("Add", scalar(1), op2("Mul", op2("Mul", c, x), x)));
    else
        inner = op2("Mul", op2("Add", x, op2("Mul", c, op2("Mul", x, op2("Mul", x, x)))), k);
    output(gelu(x, inner, "Tanh", _i / 3));
    run("fuse_gelu");
    expect("FastGelu");
}
END_TEST

START_TEST(quick_gelu_fuses)
{
    sdx_id x = hidden("x", 8);
    output(op2("Mul", op1("Sigmoid", op2("Mul", scalar(1.702), x)), x));
    output(op2("Mul", op1("Sigmoid", x), x)); /* SiLU */
    run("fuse_gelu");
    expect("Sigmoid Mul QuickGelu");
    const sdx_node *n = find("QuickGelu");
    ck_assert_float_eq(sdx_node_float(n, "alpha", 0), 1.702f);
}
END_TEST

START_TEST(other_activations_stay)
{
    sdx_id x = hidden("x", 8), y = hidden("y", 8);
    output(gelu(x, op2("Mul", x, scalar(0.8)), "Erf", 0));
    output(gelu(x, op2("Mul", y, scalar(M_SQRT1_2)), "Erf", 0));
    output(gelu(x, op2("Mul", x, scalar(0.797885)), "Tanh", 0)); /* the cubic term is missing */
    run("fuse_gelu");
    for (sdx_id i = 0; i < g->n_node; i++) ck_assert_str_ne(g->node[i].domain, SDX_MS);
}
END_TEST

START_TEST(bias_goes_into_gelu)
{
    sdx_id x = hidden("x", 8), sum = op2("Add", vector(16), op2("MatMul", x, matrix(8, 16)));
    output(gelu(sum, op2("Div", sum, scalar(sqrt(2))), "Erf", 0));
    sdx_id shared = op2("Add", op2("MatMul", x, matrix(8, 4)), vector(4));
    output(gelu(shared, op2("Div", shared, scalar(sqrt(2))), "Erf", 0));
    output(shared);
    run("fuse_gelu,fuse_bias_gelu");
    expect("MatMul MatMul Add Gelu BiasGelu");
}
END_TEST

/* ---- SkipLayerNormalization ---------------------------------------------------------------------------------
 */

static sdx_id layer_norm(sdx_id x, int64_t width)
{
    sdx_id y = op("LayerNormalization", 3, x, vector(width), vector(width));
    ok(sdx_node_set_float(g, g->value[y].producer, "epsilon", 1e-6f, &err));
    return y;
}

START_TEST(skip_connection_fuses)
{
    sdx_id x = hidden("x", 8), skip = hidden("skip", 8);
    sdx_id dense = op2("Add", vector(8), op2("MatMul", x, matrix(8, 8)));
    sdx_id sum = op2("Add", skip, dense);
    output(layer_norm(sum, 8));
    if (_i) output(op1("Relu", sum));
    run("fuse_skip_layer_norm");
    expect(_i ? "MatMul SkipLayerNormalization Relu" : "MatMul SkipLayerNormalization");
    const sdx_node *n = &g->node[1];
    ck_assert_int_eq(n->n_in, 5);
    ck_assert_int_eq(n->n_out, _i ? 4 : 1);
    if (_i) ck_assert_int_eq(n->out[3], sum);
    ck_assert_float_eq(sdx_node_float(n, "epsilon", 0), 1e-6f);
}
END_TEST

START_TEST(skips_that_broadcast_stay)
{
    sdx_id x = hidden("x", 8), row = input("row", SDX_F32, 3, 1, symbol("tokens"), 8);
    output(layer_norm(op2("Add", x, row), 8));
    output(layer_norm(op2("Add", x, vector(8)), 8));
    run("fuse_skip_layer_norm");
    expect("Add LayerNormalization Add LayerNormalization");
}
END_TEST

/* ---- EmbedLayerNormalization --------------------------------------------------------------------------------
 */

static sdx_id ids(const char *name)
{
    return input(name, SDX_I64, 2, symbol("batch"), symbol("tokens"), 0);
}

static sdx_id position_row(sdx_id like, double first)
{
    sdx_id row = tensor(SDX_I64, 2, 1, 64, first, 1);
    sdx_id in[5] = {row, ints(1, 0), op2("Gather", op1("Shape", like), ints(1, 1)), ints(1, 1), ints(1, 1)},
           out;
    ok(sdx_graph_emit(g, "", "Slice", NULL, 5, in, &out, &err));
    return out;
}

static sdx_id look_up(int rows, sdx_id which)
{
    return op2("Gather", matrix(rows, 8), which);
}

START_TEST(bert_embeddings_fuse)
{
    sdx_id words = ids("input_ids"), types = ids("token_type_ids");
    sdx_id sum =
        op2("Add", op2("Add", look_up(100, words), look_up(2, types)), look_up(64, position_row(words, 0)));
    output(layer_norm(sum, 8));
    run("fuse_embed_layer_norm");
    expect("Cast Cast EmbedLayerNormalization");
    ck_assert_int_eq(g->node[2].n_in, 7);
    ck_assert_str_eq(g->value[g->node[0].in[0]].name, "input_ids");
}
END_TEST

START_TEST(embeddings_with_given_positions_fuse)
{
    sdx_id words = ids("input_ids"), positions = ids("position_ids");
    sdx_id sum = op2("Add", look_up(64, positions), look_up(100, words));
    output(layer_norm(sum, 8));
    output(op1("Relu", sum));
    run("fuse_embed_layer_norm");
    const sdx_node *n = find("EmbedLayerNormalization");
    ck_assert_int_eq(n->n_in, 9);
    ck_assert_int_eq(n->n_out, 3);
    ck_assert_int_eq(n->out[2], sum);
    ck_assert_int_eq(n->in[1], SDX_NONE);
    ck_assert_str_eq(g->value[n->in[8]].name, "position_ids_int32");
    ck_assert_int_eq(sdx_graph_constant(g, n->in[2])->dim[0], 100);
}
END_TEST

START_TEST(constant_segment_goes_into_positions)
{
    sdx_id words = ids("input_ids"), zeros = tensor(SDX_I64, 2, 1, 64, 0, 0);
    sdx_id in[5] = {zeros, ints(1, 0), op2("Gather", op1("Shape", words), ints(1, 1)), ints(1, 1), ints(1, 1)};
    sdx_id row;
    ok(sdx_graph_emit(g, "", "Slice", NULL, 5, in, &row, &err));
    sdx_id segment = look_up(2, op2("Expand", row, op1("Shape", words)));
    sdx_id sum = op2("Add", op2("Add", look_up(100, words), segment), look_up(64, position_row(words, 0)));
    output(layer_norm(sum, 8));
    run(NULL);
    expect("Cast EmbedLayerNormalization");
    const sdx_node *n = find("EmbedLayerNormalization");
    ck_assert_int_eq(n->in[4], SDX_NONE);
    const float *positions = sdx_graph_constant(g, n->in[3])->data;
    ck_assert_float_eq(positions[8], 0.1f + 8 * 0.01f + 0.1f);
}
END_TEST

/* Static sizes: positions and segments were looked up by constant folding. */
START_TEST(looked_up_segments_go_into_positions)
{
    sdx_id words = input("input_ids", SDX_I64, 2, 2, 4, 0), segments = tensor(SDX_F32, 2, 4, 8, 0.5, 0);
    output(layer_norm(op2("Add", op2("Add", look_up(100, words), segments), matrix(4, 8)), 8));
    run("fuse_embed_layer_norm");
    expect("Cast EmbedLayerNormalization");
    const float *positions = sdx_graph_constant(g, g->node[1].in[3])->data;
    ck_assert_float_eq(positions[8], 0.1f + 8 * 0.01f + 0.5f);
}
END_TEST

START_TEST(shifted_positions_stay)
{
    sdx_id words = ids("input_ids");
    output(layer_norm(op2("Add", look_up(100, words), look_up(66, position_row(words, 2))), 8));
    run("fuse_embed_layer_norm");
    ck_assert_int_eq(find("LayerNormalization")->n_in, 3);
}
END_TEST

/* ---- Attention
 * ------------------------------------------------------------------------------------------------ */

enum { HEADS = 4, SIZE = 2, WIDTH = HEADS * SIZE };

static sdx_id project(sdx_id x)
{
    return split_heads(op2("Add", vector(WIDTH), op2("MatMul", x, matrix(WIDTH, WIDTH))), HEADS, SIZE);
}

static sdx_id swap(sdx_id v, int64_t b, int64_t c, int64_t d)
{
    int64_t perm[4] = {0, b, c, d};
    return with_ints(op1("Transpose", v), "perm", 4, perm);
}

static sdx_id unsqueeze(sdx_id v)
{
    return op2("Unsqueeze", op2("Unsqueeze", v, ints(1, 1)), ints(1, 2));
}

/* The ways to mask that exporters emit, on scores; mask is [batch, tokens]. */
enum {
    NO_MASK,
    MUL_MIN,
    WHERE_MIN,
    SCORES_WHERE,
    SCORES_WHERE_KEEP,
    SET_INFINITY,
    N_MASK,
    INVERTED,
    SHORT_FILL
};

static sdx_id apply_mask(int kind, sdx_id scores, sdx_id mask)
{
    if (kind == NO_MASK) return scores;
    sdx_id wide = unsqueeze(mask), min = scalar(-3.4028234663852886e38);
    sdx_id hidden_keys = op2("Sub", scalar(1), cast(wide, SDX_F32));
    sdx_id is_zero = op2("Equal", wide, ints(1, 0));
    switch (kind) {
    case MUL_MIN: return op2("Add", scores, op2("Mul", hidden_keys, min));
    case WHERE_MIN: return op2("Add", op("Where", 3, cast(hidden_keys, SDX_BOOL), min, hidden_keys), scores);
    case SCORES_WHERE: return op("Where", 3, op2("Expand", is_zero, op1("Shape", scores)), min, scores);
    case SCORES_WHERE_KEEP: return op("Where", 3, op1("Not", is_zero), scores, scalar(-10000));
    case SET_INFINITY:
        return op2("Add", scores, op("Where", 3, cast(wide, SDX_BOOL), scalar(0), scalar(-INFINITY)));
    case INVERTED: return op2("Add", scores, op2("Mul", cast(wide, SDX_F32), min));
    case SHORT_FILL: return op2("Add", scores, op2("Mul", hidden_keys, scalar(-1)));
    default: return scores;
    }
}

/* Where the scale is: 0 after the product, 1 on the queries, 2 as square roots on both sides. */
static sdx_id attend(sdx_id xq, sdx_id xk, sdx_id xv, int scale, int mask_kind, sdx_id mask)
{
    sdx_id q = swap(project(xq), 2, 1, 3), k = swap(project(xk), 2, 3, 1), v = swap(project(xv), 2, 1, 3);
    if (scale == 1) q = op2("Div", q, scalar(sqrt(SIZE)));
    if (scale == 2) {
        sdx_id root = op1("Sqrt", op2("Div", scalar(1), op1("Sqrt", scalar(SIZE))));
        q = op2("Mul", q, root);
        k = op2("Mul", root, k);
    }
    sdx_id scores = op2("MatMul", q, k);
    if (scale == 0) scores = op2("Div", scores, scalar(sqrt(SIZE)));
    sdx_id weights = with_int(op1("Softmax", apply_mask(mask_kind, scores, mask)), "axis", -1);
    return op2("Reshape", swap(op2("MatMul", weights, v), 2, 1, 3), ints(3, 0, 0, WIDTH));
}

START_TEST(attention_fuses)
{
    int scale = _i % 3, mask_kind = _i / 3;
    sdx_id x = hidden("x", WIDTH), mask = ids("attention_mask");
    output(attend(x, x, x, scale, mask_kind, mask));
    run(NULL);
    expect(mask_kind == NO_MASK ? "Attention" : "Cast Attention");
    const sdx_node *n = find("Attention");
    ck_assert_int_eq(sdx_node_int(n, "num_heads", 0), HEADS);
    ck_assert_ptr_null(sdx_node_attr(n, "scale"));
    float fill = sdx_node_float(n, "mask_filter_value", 0);
    if (mask_kind == NO_MASK)
        ck_assert_int_eq(n->n_in, 3);
    else if (mask_kind == SCORES_WHERE_KEEP)
        ck_assert_float_eq(fill, -10000.0f);
    else
        ck_assert_float_eq(fill, -3.4028234663852886e38f);
    const float *packed = sdx_graph_constant(g, n->in[1])->data;
    ck_assert_float_eq(packed[WIDTH], 0.1f); /* row 0 of Wk starts after row 0 of Wq */
    ck_assert_float_eq(packed[3 * WIDTH], packed[WIDTH - 1] + 0.01f);
}
END_TEST

START_TEST(layers_share_one_mask)
{
    sdx_id x = hidden("x", WIDTH), mask = ids("attention_mask");
    sdx_id y = attend(x, x, x, 0, MUL_MIN, mask);
    output(attend(y, y, y, 1, SCORES_WHERE, mask));
    run(NULL);
    expect("Cast Attention Attention");
    ck_assert_uint_eq(sdx_graph_initializer_count(g), 2); /* equal weights are packed once */
}
END_TEST

START_TEST(unusual_scale_is_written)
{
    sdx_id x = hidden("x", WIDTH);
    output(attend(x, x, x, 3, NO_MASK, SDX_NONE));
    run(NULL);
    expect("Attention");
    ck_assert_float_eq(sdx_node_float(&g->node[0], "scale", 0), 1);
}
END_TEST

static void expect_no_attention(void)
{
    run(NULL);
    for (sdx_id i = 0; i < g->n_node; i++) ck_assert_str_ne(g->node[i].op_type, "Attention");
}

START_TEST(cross_attention_fuses)
{
    sdx_id x = hidden("x", WIDTH), memory = input("memory", SDX_F32, 3, symbol("batch"), symbol("far"), WIDTH);
    output(attend(x, memory, memory, 0, NO_MASK, SDX_NONE));
    run(NULL);
    expect("MatMul Add MatMul Add MultiHeadAttention"); /* keys and values share a weight here, so they are one
                                                           product */
    const sdx_node *n = find("MultiHeadAttention");
    ck_assert(n->n_in == 3 && n->in[1] == n->in[2] && n->in[0] != n->in[1]);
}
END_TEST

/* ONNX Runtime 1.17 misreads a mask over more keys than there are queries: files say it as a bias [b,n,t,T]. */
START_TEST(mask_of_cross_attention_is_a_bias_in_files)
{
    sdx_id x = hidden("x", WIDTH), memory = input("memory", SDX_F32, 3, symbol("batch"), symbol("far"), WIDTH);
    sdx_id mask = input("attention_mask", SDX_I64, 2, symbol("batch"), symbol("far"), 0);
    output(attend(x, memory, memory, 0, MUL_MIN, mask));
    run_for(_i, NULL);
    const sdx_node *n = find("MultiHeadAttention");
    ck_assert_int_eq(sdx_node_in(n, 4) != SDX_NONE, _i);
    ck_assert_int_eq(sdx_node_in(n, 5) != SDX_NONE, !_i);
}
END_TEST

START_TEST(terms_that_are_no_mask_become_a_bias)
{
    sdx_id x = hidden("x", WIDTH), mask = ids("attention_mask");
    output(attend(x, x, x, 0, _i, mask));
    run(NULL);
    const sdx_node *n = find("Attention");
    ck_assert(n->n_in == 6 && n->in[3] == SDX_NONE && n->in[5] != SDX_NONE);
    ck_assert_ptr_null(sdx_node_attr(n, "mask_filter_value"));
}
END_TEST

/* A mask of one row for all texts broadcasts in the graph, which Attention's mask does not: a bias. Sizes that
 * only differ in name are taken as equal, as nothing else is meant. */
START_TEST(mask_of_other_size)
{
    sdx_id x = hidden("x", WIDTH);
    sdx_id mask = input("attention_mask", SDX_I64, 2, _i ? 1 : symbol("other"), symbol("tokens"), 0);
    output(attend(x, x, x, 0, MUL_MIN, mask));
    run(NULL);
    const sdx_node *n = find("Attention");
    ck_assert_int_eq(sdx_node_in(n, 3) != SDX_NONE, !_i);
    ck_assert_int_eq(sdx_node_in(n, 5) != SDX_NONE, _i);
    sdx_dim declared = g->value[mask].type.shape.dim[0];
    ck_assert(_i || strcmp(model->symbol[SDX_DIM_SYMBOL_ID(declared)].name, "other") == 0);
}
END_TEST

START_TEST(unnamed_sizes_are_told_apart)
{
    sdx_dim u = SDX_DIM_UNKNOWN;
    sdx_id x = input("x", SDX_F32, 3, u, u, WIDTH), mask = input("attention_mask", SDX_I64, 2, u, u, 0);
    output(attend(x, x, x, 0, MUL_MIN, mask));
    run(NULL);
    expect("Cast Attention");
    ck_assert_int_eq(g->value[x].type.shape.dim[0], SDX_DIM_UNKNOWN);
}
END_TEST

START_TEST(full_bias_is_kept)
{
    sdx_id x = hidden("x", WIDTH);
    sdx_dim dim[4] = {1, HEADS, symbol("tokens"), symbol("tokens")};
    sdx_shape shape = sdx_shape_make(4, dim);
    sdx_id bias, q = swap(project(x), 2, 1, 3), k = swap(project(x), 2, 3, 1), v = swap(project(x), 2, 1, 3);
    ok(sdx_graph_add_input(g, "bias", SDX_F32, &shape, &bias, &err));
    sdx_id weights = with_int(op1("Softmax", op2("Add", op2("MatMul", q, k), bias)), "axis", -1);
    output(op2("Reshape", swap(op2("MatMul", weights, v), 2, 1, 3), ints(3, 0, 0, WIDTH)));
    run_for(_i, NULL);
    const sdx_node *n = find("Attention");
    ck_assert_int_eq(n->n_in, 6);
    if (_i) /* here one bias serves all texts; ONNX Runtime 1.17 wants it spelled out */
        ck_assert_int_eq(n->in[5], bias);
    else
        ck_assert_int_eq(find("Expand")->in[0], bias);
    ck_assert_float_eq(sdx_node_float(n, "scale", 0), 1);
}
END_TEST

START_TEST(attention_weights_as_output_stay)
{
    sdx_id x = hidden("x", WIDTH);
    output(attend(x, x, x, 0, NO_MASK, SDX_NONE));
    for (sdx_id i = 0; i < g->n_node; i++)
        if (strcmp(g->node[i].op_type, "Softmax") == 0) output(g->node[i].out[0]);
    expect_no_attention();
}
END_TEST

/* Swapping tokens and channels after the product must not pass for joining heads. */
START_TEST(heads_joined_the_wrong_way_stay)
{
    sdx_id x = input("x", SDX_F32, 3, symbol("batch"), WIDTH, WIDTH);
    sdx_id q = swap(project(x), 2, 1, 3), k = swap(project(x), 2, 3, 1), v = swap(project(x), 2, 1, 3);
    sdx_id weights = with_int(op1("Softmax", op2("MatMul", q, k)), "axis", -1);
    output(op2("Reshape", swap(op2("MatMul", weights, v), 1, 2, 3), ints(3, 0, WIDTH, WIDTH)));
    expect_no_attention();
}
END_TEST

/* x[2,3,8] cut into heads as [2,n,3,2] */
static sdx_id static_heads(sdx_id x, int heads)
{
    return swap(op2("Reshape", op2("MatMul", x, matrix(WIDTH, heads * SIZE)), ints(4, 2, 3, heads, SIZE)), 2, 1, 3);
}

/* Two heads of keys for four of queries; with fixed sizes the exporter makes [8,3,2] of the repeated ones at once. */
START_TEST(grouped_keys_of_fixed_size_fuse)
{
    sdx_id x = input("x", SDX_F32, 3, 2, 3, WIDTH), five = ints(5, 2, 2, 2, 3, SIZE), part[2];
    for (int i = 0; i < 2; i++) part[i] = op2("Expand", op2("Unsqueeze", static_heads(x, 2), ints(1, 2)), five);
    static const int64_t turned[3] = {0, 2, 1};
    sdx_id k = with_ints(op1("Transpose", op2("Reshape", part[0], ints(3, 8, 3, SIZE))), "perm", 3, turned);
    sdx_id scores = op2("MatMul", static_heads(x, HEADS), op2("Reshape", k, ints(4, 2, HEADS, SIZE, 3)));
    sdx_id v = op2("Reshape", part[1], ints(4, 2, HEADS, 3, SIZE));
    sdx_id joined = swap(op2("MatMul", with_int(op1("Softmax", scores), "axis", -1), v), 2, 1, 3);
    output(op2("Reshape", joined, ints(3, 2, 3, WIDTH)));
    run_as(false, _i, NULL);
    const sdx_node *n = find(_i ? "Attention" : "MultiHeadAttention");
    ck_assert_int_eq(sdx_node_int(n, _i ? "kv_num_heads" : "num_heads", 0), HEADS);
    if (!_i) ck_assert_int_eq(sdx_match_op(g, n->in[1], "Reshape")->in[0], part[0]);
}
END_TEST

/* BLOOM: queries and keys meet as [b*n,..], the weights are reshaped, the values are [b,n,T,h]. */
START_TEST(reshaped_weights_fuse)
{
    sdx_id x = input("x", SDX_F32, 3, 2, 3, WIDTH), q = op2("Reshape", static_heads(x, HEADS), ints(3, 8, 3, SIZE));
    sdx_id k = op2("Reshape", swap(static_heads(x, HEADS), 1, 3, 2), ints(3, 8, SIZE, 3));
    sdx_id scores = op2("Reshape", op2("MatMul", q, k), ints(4, 2, HEADS, 3, 3));
    sdx_id weights = with_int(op1("Softmax", scores), "axis", -1);
    output(op2("Reshape", swap(op2("MatMul", weights, static_heads(x, HEADS)), 2, 1, 3), ints(3, 2, 3, WIDTH)));
    run(NULL);
    expect("Attention");
}
END_TEST

/* ---- causal, cached and packed attention
 * ---------------------------------------------------------------------- */

static sdx_id scalar_i64(int64_t x)
{
    return tensor(SDX_I64, 0, 0, 0, (double)x, 0);
}

static sdx_id size_of(sdx_id v, int64_t axis)
{
    return op2("Gather", op1("Shape", v), scalar_i64(axis));
}

static sdx_id range(sdx_id from, sdx_id to)
{
    return op("Range", 3, from, to, scalar_i64(1));
}

/* Conditions [.., t, t] that are true where the key stands after the query, as exporters spell them. */
enum { TRILU, RANGES, LESS_OR_EQUAL, TABLE, SCATTERED, N_CAUSAL, STRICTER, REVERSED };

static sdx_id grid(sdx_id n)
{
    sdx_id column = op2("Unsqueeze", range(scalar_i64(0), n), ints(1, 1)), row = range(scalar_i64(0), n);
    sdx_id shape = op1("Shape", op2("Add", column, row));
    sdx_id parts[2] = {op2("Unsqueeze", op2("Expand", column, shape), ints(1, -1)),
                       op2("Unsqueeze", op2("Expand", row, shape), ints(1, -1))};
    return with_int(op2("Concat", parts[0], parts[1]), "axis", -1);
}

static sdx_id triangle_table(int64_t n)
{
    sdx_id table = tensor(SDX_F32, 2, n, n, 0, 0);
    float *x = g->value[table].type.constant->data;
    for (int64_t i = 0; i < n * n; i++) x[i] = i % n > i / n;
    return table;
}

static sdx_id after(int kind, sdx_id x)
{
    sdx_id n = size_of(x, 1), list = op2("Unsqueeze", n, ints(1, 0));
    sdx_id square = with_int(op2("Concat", list, list), "axis", 0);
    sdx_id key = range(scalar_i64(0), n), query = op2("Unsqueeze", range(scalar_i64(0), n), ints(1, 1));
    sdx_id ones = op2("Expand", scalar(1), square);
    switch (kind) {
    case TRILU: return cast(with_int(op2("Trilu", ones, scalar_i64(1)), "upper", 1), SDX_BOOL);
    case RANGES: return op2("Greater", key, query);
    case LESS_OR_EQUAL: return op1("Not", op2("LessOrEqual", key, query));
    case SCATTERED:
        return cast(op("ScatterND", 3, ones, grid(n), cast(op2("Greater", key, query), SDX_F32)), SDX_BOOL);
    case STRICTER: return cast(with_int(op2("Trilu", ones, scalar_i64(0)), "upper", 1), SDX_BOOL);
    case REVERSED: return op2("Less", key, query);
    default: { /* a table of 16 positions, cut to size along both axes */
        sdx_id rows[5] = {triangle_table(16), ints(1, 0), list, ints(1, 0), SDX_NONE}, cut, columns;
        ok(sdx_graph_emit(g, "", "Slice", NULL, 4, rows, &cut, &err));
        sdx_id in[4] = {cut, ints(1, 0), list, ints(1, 1)};
        ok(sdx_graph_emit(g, "", "Slice", NULL, 4, in, &columns, &err));
        return cast(columns, SDX_BOOL);
    }
    }
}

static sdx_id attend_causally(sdx_id x, int kind, bool where)
{
    sdx_id q = swap(project(x), 2, 1, 3), k = swap(project(x), 2, 3, 1), v = swap(project(x), 2, 1, 3);
    sdx_id scores = op2("MatMul", q, k), hidden_keys = after(kind, x), min = scalar(-3.4028234663852886e38);
    scores = where ? op("Where", 3, hidden_keys, min, scores)
                   : op2("Add", scores,
                         op2("Unsqueeze", op("Where", 3, hidden_keys, min, scalar(0)), ints(2, 0, 1)));
    sdx_id weights = with_int(op1("Softmax", scores), "axis", -1);
    return op2("Reshape", swap(op2("MatMul", weights, v), 2, 1, 3), ints(3, 0, 0, WIDTH));
}

START_TEST(causal_attention_fuses)
{
    output(attend_causally(hidden("x", WIDTH), _i % N_CAUSAL, _i >= N_CAUSAL));
    run(NULL);
    expect("Attention");
    ck_assert_int_eq(sdx_node_int(&g->node[0], "unidirectional", 0), 1);
    ck_assert_int_eq(g->node[0].n_in, 3);
}
END_TEST

/* GPT-Neo: the order sets scores to the least float, padding adds it. Where both do it is -inf, which has to stay:
 * halved, not lifted. */
START_TEST(two_masks_are_halved_in_standard_form)
{
    sdx_id x = hidden("x", WIDTH), mask = ids("attention_mask"), min = scalar(-3.4028234663852886e38);
    sdx_id q = swap(project(x), 2, 1, 3), k = swap(project(x), 2, 3, 1), v = swap(project(x), 2, 1, 3);
    sdx_id scores = op("Where", 3, after(TRILU, x), min, op2("MatMul", q, k));
    sdx_id weights = with_int(op1("Softmax", apply_mask(MUL_MIN, scores, mask)), "axis", -1);
    output(op2("Reshape", swap(op2("MatMul", weights, v), 2, 1, 3), ints(3, 0, 0, WIDTH)));
    run_as(false, true, NULL);
    double half;
    const sdx_node *n = find("Attention"), *mul = sdx_match_op(g, n->in[3], "Mul");
    ck_assert(mul && sdx_graph_scalar(g, mul->in[1], &half) && half == 0.5);
}
END_TEST

/* Hiding the query's own key too, or all before it, is another thing: a bias. */
START_TEST(other_orders_are_a_bias)
{
    output(attend_causally(hidden("x", WIDTH), _i, false));
    run(NULL);
    const sdx_node *n = find("Attention");
    ck_assert_int_eq(sdx_node_int(n, "unidirectional", 0), 0);
    ck_assert_int_eq(n->n_in, 6);
}
END_TEST

static sdx_id cache(const char *name)
{
    sdx_dim dim[4] = {symbol("batch"), HEADS, symbol("past"), SIZE};
    sdx_shape shape = sdx_shape_make(4, dim);
    sdx_id id;
    ok(sdx_graph_add_input(g, name, SDX_F32, &shape, &id, &err));
    return id;
}

START_TEST(cached_attention_fuses)
{
    sdx_id x = hidden("x", WIDTH), past = cache("past_key"), min = scalar(-10000);
    sdx_id q = swap(project(x), 2, 1, 3);
    sdx_id k = with_int(op2("Concat", past, swap(project(x), 2, 1, 3)), "axis", -2);
    sdx_id v = with_int(op2("Concat", cache("past_value"), swap(project(x), 2, 1, 3)), "axis", 2);
    sdx_id length = size_of(past, 2), all = op2("Add", length, size_of(x, 1));
    sdx_id key = range(scalar_i64(0), all), query = op2("Unsqueeze", range(length, all), ints(1, 1));
    sdx_id term = op("Where", 3, op2("Greater", key, query), min, scalar(0));
    sdx_id scores = op2("Add", op2("MatMul", q, swap(k, 1, 3, 2)), term);
    sdx_id weights = with_int(op1("Softmax", scores), "axis", -1);
    output(op2("Reshape", swap(op2("MatMul", weights, v), 2, 1, 3), ints(3, 0, 0, WIDTH)));
    output(k);
    output(v);
    run(NULL);
    expect("MatMul Add MultiHeadAttention");
    const sdx_node *n = &g->node[2];
    ck_assert(n->n_in == 8 && n->in[6] == past && n->n_out == 3 && n->out[1] == k && n->out[2] == v);
    ck_assert_int_eq(sdx_node_int(n, "unidirectional", 0), 1);
}
END_TEST

/* GPT-2 as it was exported in 2020: the keys are cached as [b,n,h,p] and handed out as they came, [b,n,p,h]; the causal
 * rule is cut out of a table. */
START_TEST(transposed_cache_fuses)
{
    sdx_id x = hidden("x", WIDTH), past = cache("past_key"), length = size_of(past, 2);
    sdx_id q = swap(project(x), 2, 1, 3);
    sdx_id k = with_int(op2("Concat", swap(past, 1, 3, 2), swap(project(x), 2, 3, 1)), "axis", -1);
    sdx_id v = with_int(op2("Concat", cache("past_value"), swap(project(x), 2, 1, 3)), "axis", 2);
    sdx_id key = range(scalar_i64(0), op2("Add", length, size_of(x, 1)));
    sdx_id query = op2("Unsqueeze", range(length, op2("Add", length, size_of(x, 1))), ints(1, 1));
    sdx_id scores = op("Where", 3, op2("Greater", key, query), scalar(-10000), op2("MatMul", q, k));
    sdx_id weights = with_int(op1("Softmax", scores), "axis", -1), present = swap(k, 1, 3, 2);
    output(op2("Reshape", swap(op2("MatMul", weights, v), 2, 1, 3), ints(3, 0, 0, WIDTH)));
    output(present);
    run(NULL);
    expect("MatMul Add MultiHeadAttention");
    const sdx_node *n = &g->node[2];
    ck_assert(n->n_in == 8 && n->in[6] == past && n->out[1] == present);
}
END_TEST

/* GPT-2: one product for all three, cut apart; its weight is Attention's. */
START_TEST(packed_projection_fuses)
{
    sdx_id x = hidden("x", WIDTH), weight = matrix(WIDTH, 3 * WIDTH), part[3];
    sdx_id whole = op2("Add", op2("MatMul", x, weight), vector(3 * WIDTH));
    for (int i = 0; i < 3; i++) ok(sdx_graph_add_value(g, NULL, &part[i], &err));
    sdx_id in[2] = {whole, ints(3, WIDTH, WIDTH, WIDTH)}, node;
    ok(sdx_graph_add_node(g, "", "Split", "", 2, in, 3, part, &node, &err));
    ok(sdx_node_set_int(g, node, "axis", -1, &err));
    sdx_id split = ints(4, 0, 0, HEADS, SIZE);
    sdx_id q = swap(op2("Reshape", part[_i], split), 2, 1, 3),
           k = swap(op2("Reshape", part[1], split), 2, 3, 1);
    sdx_id v = swap(op2("Reshape", part[2 - _i], split), 2, 1, 3);
    sdx_id weights = with_int(op1("Softmax", op2("MatMul", q, k)), "axis", -1);
    output(op2("Reshape", swap(op2("MatMul", weights, v), 2, 1, 3), ints(3, 0, 0, WIDTH)));
    run(NULL);
    expect("Attention");
    ck_assert_int_eq(g->node[0].in[1] == weight, _i == 0); /* in this order: as it lies in the file */
}
END_TEST

/* ---- SimplifiedLayerNormalization
 * ------------------------------------------------------------------------------ */

static sdx_id rms_norm(sdx_id x, int kind)
{
    sdx_id square = kind % 2 ? op2("Mul", x, x) : op2("Pow", x, scalar(2));
    int64_t last[1] = {-1};
    sdx_id root = op1("Sqrt", op2("Add", with_ints(op1("ReduceMean", square), "axes", 1, last), scalar(1e-6)));
    if (kind / 2 == 0) return op2("Mul", vector(8), op2("Div", x, root));
    sdx_id inverse = kind / 2 == 1 ? op1("Reciprocal", root) : op2("Div", scalar(1), root);
    return op2("Mul", op2("Mul", x, inverse), vector(8));
}

START_TEST(rms_norm_fuses)
{
    output(rms_norm(hidden("x", 8), _i));
    run(NULL);
    expect("SimplifiedLayerNormalization");
    ck_assert_float_eq(sdx_node_float(&g->node[0], "epsilon", 0), 1e-6f);
}
END_TEST

START_TEST(rms_norm_takes_the_skip)
{
    sdx_id sum = op2("Add", hidden("x", 8), hidden("y", 8));
    output(op2("Add", rms_norm(sum, _i), sum));
    run(NULL);
    expect("SkipSimplifiedLayerNormalization Add");
    ck_assert(g->node[0].n_in == 3 && g->node[0].n_out == 4);
}
END_TEST

/* ---- sizes
 * ---------------------------------------------------------------------------------------------------- */

static sdx_element named(const char *name)
{
    return sdx_element_from_dim(symbol(name));
}

static sdx_element arith(char op_, sdx_element a, sdx_element b)
{
    return sdx_model_arith(model, op_, a, b);
}

static bool same(sdx_element a, sdx_element b)
{
    return a.symbol == b.symbol && (a.symbol != SDX_ELEMENT_NUMBER || a.number == b.number);
}

START_TEST(sizes_have_one_form)
{
    sdx_element a = named("a"), b = named("b"), two = sdx_element_number(2), six = sdx_element_number(6);
    ck_assert(same(arith('-', arith('+', a, b), a), b));
    ck_assert(same(arith('+', arith('*', a, two), arith('*', two, a)), arith('*', a, sdx_element_number(4))));
    ck_assert(same(arith('-', a, a), sdx_element_number(0)));
    ck_assert(same(arith('/', arith('*', arith('*', b, six), a), arith('*', a, two)),
                   arith('*', b, sdx_element_number(3))));
    ck_assert(same(arith('/', arith('/', a, two), six), arith('/', a, sdx_element_number(12))));
    /* (a / 2 - 1) / 6 + 1 is (a + 10) / 12 */
    sdx_element chain = arith('+', arith('/', arith('-', arith('/', a, two), sdx_element_number(1)), six),
                              sdx_element_number(1));
    ck_assert(same(chain, arith('/', arith('+', a, sdx_element_number(10)), sdx_element_number(12))));
    ck_assert(same(arith('<', b, a), arith('<', a, b)));
    sdx_model_equate(model, SDX_DIM_SYMBOL_ID(symbol("a")), SDX_DIM_SYMBOL_ID(symbol("b")));
    ck_assert(same(arith('-', b, a), sdx_element_number(0)));
}
END_TEST

/* 30,000 floats, made of half as many bytes: not into a file, but at load. */
START_TEST(growing_constants_fold_at_load_only)
{
    static const uint16_t half[30000];
    sdx_tensor t = {.dtype = SDX_F16, .rank = 1, .dim = {30000}, .data = (void *)half};
    sdx_id c, x = hidden("x", 30000);
    ok(sdx_graph_add_constant(g, "c", &t, &c, &err));
    output(op2("Mul", x, cast(c, SDX_F32)));
    run("fold_constants");
    expect("Cast Mul");
    run_for(true, "fold_constants");
    expect("Mul");
}
END_TEST

/* ---- the check
 * ------------------------------------------------------------------------------------------------ */

static void build_chain(const char *second)
{
    sdx_id x = hidden("x", 8), a, b, c, in[2];
    ok(sdx_graph_emit(g, "", "Relu", "a", 1, &x, &a, &err));
    in[0] = a;
    in[1] = x;
    ok(sdx_graph_emit(g, "", second, "b", 2, in, &b, &err));
    g->node[g->value[b].producer].name = "wrong";
    ok(sdx_graph_emit(g, "", "Tanh", "c", 1, &b, &c, &err));
    output(c);
    ok(sdx_graph_index(g, &err));
}

START_TEST(divergence_is_traced)
{
    char path[] = "/tmp/sdx-divergence-XXXXXX", place[SDX_NODE_TEXT];
    close(mkstemp(path));
    build_chain("Add");
    ok(sdx_onnx_write(model, path, &(sdx_onnx_write_options){0}, &err));
    for (int i = 0; i < 2; i++) {
        sdx_model_close(model);
        setup();
        build_chain(i ? "Add" : "Sub");
        ok(sdx_find_divergence(path, model, &(sdx_run_options){0}, place, sizeof place, &err));
        model = NULL;
        ck_assert_str_eq(place, i ? "" : "node \"wrong\" (Sub)");
    }
    unlink(path);
}
END_TEST

/* ---- masks
 * ------------------------------------------------------------------------------------------------------ */

START_TEST(mask_follows_its_axes)
{
    sdx_id mask = ids("attention_mask"), x = hidden("x", 8);
    sdx_id wide = op2("Unsqueeze", mask, ints(2, 0, -1)); /* [1, batch, tokens, 1] */
    output(op2("Mul", x, cast(wide, SDX_F32)));
    run("merge_duplicates");
    sdx_mask m;
    ck_assert_ptr_null(sdx_match_mask(g, wide, &m));
    ck_assert(m.batch == 2 && m.key == 1 && m.at[0][0] == 0 && m.at[1][0] == 1 && !m.causal &&
              m.source == mask);
    ck_assert_ptr_nonnull(sdx_match_mask(g, x, &m));
}
END_TEST

Suite *passes_suite(void);
Suite *passes_suite(void)
{
    Suite *s = suite_create("passes");
    TCase *t = tcase_create("passes");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, unknown_pass_is_named);
    tcase_add_test(t, only_selects);
    tcase_add_test(t, unknown_operator_is_walked_around);
    tcase_add_test(t, constants_fold);
    tcase_add_test(t, a_run_folds_more_than_a_file);
    tcase_add_test(t, known_dim_folds);
    tcase_add_test(t, outputs_and_random_numbers_do_not_fold);
    tcase_add_test(t, reshape_target_becomes_constant);
    tcase_add_test(t, reshape_of_two_foreign_dims_stays);
    tcase_add_test(t, no_ops_go);
    tcase_add_test(t, look_alikes_of_no_ops_stay);
    tcase_add_test(t, identity_before_an_output_keeps_its_name);
    tcase_add_test(t, duplicates_merge);
    tcase_add_test(t, integers_times_zero_fold);
    tcase_add_loop_test(t, flat_look_up_fuses, 0, 2);
    tcase_add_loop_test(t, stacked_look_up_fuses, 0, 2);
    tcase_add_test(t, layer_norm_fuses);
    tcase_add_test(t, layer_norm_without_beta_fuses);
    tcase_add_test(t, other_norms_stay);
    tcase_add_loop_test(t, erf_gelu_fuses, 0, 6);
    tcase_add_loop_test(t, tanh_gelu_fuses, 0, 9);
    tcase_add_test(t, quick_gelu_fuses);
    tcase_add_test(t, other_activations_stay);
    tcase_add_test(t, bias_goes_into_gelu);
    tcase_add_loop_test(t, skip_connection_fuses, 0, 2);
    tcase_add_test(t, skips_that_broadcast_stay);
    tcase_add_test(t, bert_embeddings_fuse);
    tcase_add_test(t, embeddings_with_given_positions_fuse);
    tcase_add_test(t, constant_segment_goes_into_positions);
    tcase_add_test(t, looked_up_segments_go_into_positions);
    tcase_add_test(t, shifted_positions_stay);
    tcase_add_loop_test(t, attention_fuses, 0, 3 * N_MASK);
    tcase_add_test(t, layers_share_one_mask);
    tcase_add_test(t, unusual_scale_is_written);
    tcase_add_test(t, cross_attention_fuses);
    tcase_add_loop_test(t, mask_of_cross_attention_is_a_bias_in_files, 0, 2);
    tcase_add_loop_test(t, terms_that_are_no_mask_become_a_bias, INVERTED, SHORT_FILL + 1);
    tcase_add_loop_test(t, mask_of_other_size, 0, 2);
    tcase_add_test(t, unnamed_sizes_are_told_apart);
    tcase_add_loop_test(t, full_bias_is_kept, 0, 2);
    tcase_add_test(t, attention_weights_as_output_stay);
    tcase_add_test(t, heads_joined_the_wrong_way_stay);
    tcase_add_loop_test(t, causal_attention_fuses, 0, 2 * N_CAUSAL);
    tcase_add_loop_test(t, grouped_keys_of_fixed_size_fuse, 0, 2);
    tcase_add_test(t, reshaped_weights_fuse);
    tcase_add_test(t, two_masks_are_halved_in_standard_form);
    tcase_add_loop_test(t, other_orders_are_a_bias, STRICTER, REVERSED + 1);
    tcase_add_test(t, cached_attention_fuses);
    tcase_add_test(t, transposed_cache_fuses);
    tcase_add_loop_test(t, packed_projection_fuses, 0, 2);
    tcase_add_loop_test(t, rms_norm_fuses, 0, 6);
    tcase_add_loop_test(t, rms_norm_takes_the_skip, 0, 6);
    tcase_add_test(t, sizes_have_one_form);
    tcase_add_test(t, growing_constants_fold_at_load_only);
    tcase_add_test(t, divergence_is_traced);
    tcase_add_test(t, mask_follows_its_axes);
    suite_add_tcase(s, t);
    return s;
}
