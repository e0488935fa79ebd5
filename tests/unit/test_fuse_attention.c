/* test_fuse_attention.c: attention in the spellings that exporters use: scales, masks and grouped heads; and what looks
 * alike but has to stay, or to become a bias. Orders and caches: test_fuse_cached.c. */
#include <math.h>

#include "../../graph/passes/mask.h"
#include "graph_tests.h"

/* ---- Attention ------------------------------------------------------------------------------------------- */

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

/* ---- masks ----------------------------------------------------------------------------------------------- */

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

Suite *fuse_attention_suite(void);
Suite *fuse_attention_suite(void)
{
    Suite *s = suite_create("fuse_attention");
    TCase *t = tcase_create("all");
    tcase_add_checked_fixture(t, setup, teardown);
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
    tcase_add_loop_test(t, grouped_keys_of_fixed_size_fuse, 0, 2);
    tcase_add_test(t, reshaped_weights_fuse);
    tcase_add_test(t, mask_follows_its_axes);
    suite_add_tcase(s, t);
    return s;
}
