/* test_fuse_norms.c: the fusions of norms, GELUs, skip connections and embeddings, in the spellings that exporters use,
 * and their look-alikes, which must be left alone. */
#include <math.h>

#include "graph_tests.h"

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

/* For ONNX Runtime 1.17: a norm that two nodes read has a beta in files. */
START_TEST(norms_left_without_beta_get_zeros)
{
    sdx_id x = hidden("x", 8), y = op2("LayerNormalization", x, vector(8));
    output(op1("Relu", y));
    output(op1("Tanh", y));
    run_for(_i, NULL);
    const sdx_node *n = find("LayerNormalization");
    ck_assert_int_eq(n->n_in, _i ? 2 : 3);
    if (!_i) ck_assert_float_eq(((const float *)sdx_graph_constant(g, n->in[2])->data)[7], 0);
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
    sdx_id text = op2("Add", look_up(100, words), look_up(2, types)), positions = look_up(64, position_row(words, 0));
    if (_i) positions = op2("Expand", positions, op1("Shape", text)); /* XLM */
    output(layer_norm(op2("Add", text, positions), 8));
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

/* ---- SimplifiedLayerNormalization ------------------------------------------------------------------------ */

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

Suite *fuse_norms_suite(void);
Suite *fuse_norms_suite(void)
{
    Suite *s = suite_create("fuse_norms");
    TCase *t = tcase_create("all");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, layer_norm_fuses);
    tcase_add_test(t, layer_norm_without_beta_fuses);
    tcase_add_test(t, other_norms_stay);
    tcase_add_loop_test(t, erf_gelu_fuses, 0, 6);
    tcase_add_loop_test(t, tanh_gelu_fuses, 0, 9);
    tcase_add_test(t, quick_gelu_fuses);
    tcase_add_test(t, other_activations_stay);
    tcase_add_test(t, bias_goes_into_gelu);
    tcase_add_loop_test(t, skip_connection_fuses, 0, 2);
    tcase_add_loop_test(t, norms_left_without_beta_get_zeros, 0, 2);
    tcase_add_test(t, skips_that_broadcast_stay);
    tcase_add_loop_test(t, bert_embeddings_fuse, 0, 2);
    tcase_add_test(t, embeddings_with_given_positions_fuse);
    tcase_add_test(t, constant_segment_goes_into_positions);
    tcase_add_test(t, looked_up_segments_go_into_positions);
    tcase_add_test(t, shifted_positions_stay);
    tcase_add_loop_test(t, rms_norm_fuses, 0, 6);
    tcase_add_loop_test(t, rms_norm_takes_the_skip, 0, 6);
    suite_add_tcase(s, t);
    return s;
}
