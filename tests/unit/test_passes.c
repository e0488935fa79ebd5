/* test_passes.c: what all passes share, and those that fold, eliminate and merge, on small graphs built by hand, in the
 * spellings that exporters use, and in spellings that look alike but mean something else and must be left alone. */
#include <unistd.h>

#include "graph_tests.h"

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

/* ---- sizes ----------------------------------------------------------------------------------------------- */

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

/* ---- the check ------------------------------------------------------------------------------------------- */

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

Suite *passes_suite(void);
Suite *passes_suite(void)
{
    Suite *s = suite_create("passes");
    TCase *t = tcase_create("all");
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
    tcase_add_test(t, sizes_have_one_form);
    tcase_add_test(t, growing_constants_fold_at_load_only);
    tcase_add_test(t, divergence_is_traced);
    suite_add_tcase(s, t);
    return s;
}
