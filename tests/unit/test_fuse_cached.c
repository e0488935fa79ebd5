/* test_fuse_cached.c: attention that does not look ahead, with keys and values of earlier tokens, and with queries,
 * keys and values in one tensor. */
#include "graph_tests.h"

/* ---- causal, cached and packed attention ----------------------------------------------------------------- */

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
    sdx_id padding = op2("Sub", scalar(1), cast(unsqueeze(mask), SDX_F32));
    sdx_id scores = op("Where", 3, after(TRILU, x), min, op2("MatMul", q, k));
    sdx_id weights = with_int(op1("Softmax", op2("Add", scores, op2("Mul", padding, min))), "axis", -1);
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

/* Llama: keys are rotated before they are cached. They stay [b,n,T,h], and the order becomes a bias: without a past the
 * operator would take the first query for the first key. */
START_TEST(rotated_cache_fuses)
{
    sdx_id x = hidden("x", WIDTH), past = cache("past_key"), length = size_of(past, 2), all;
    sdx_id k = with_int(op2("Concat", past, op1("Tanh", swap(project(x), 2, 1, 3))), "axis", 2);
    sdx_id v = with_int(op2("Concat", cache("past_value"), swap(project(x), 2, 1, 3)), "axis", 2);
    all = op2("Add", length, size_of(x, 1));
    sdx_id key = range(scalar_i64(0), all), query = op2("Unsqueeze", range(length, all), ints(1, 1));
    sdx_id scores = op2("MatMul", op1("Tanh", swap(project(x), 2, 1, 3)), swap(k, 1, 3, 2));
    scores = op("Where", 3, op2("Greater", key, query), scalar(-10000), scores);
    sdx_id weights = with_int(op1("Softmax", scores), "axis", -1);
    output(op2("Reshape", swap(op2("MatMul", weights, v), 2, 1, 3), ints(3, 0, 0, WIDTH)));
    run(NULL);
    const sdx_node *n = find("MultiHeadAttention");
    ck_assert(n->n_in == 6 && n->in[1] == k && n->in[2] == v && n->in[5] != SDX_NONE);
    ck_assert_int_eq(sdx_node_int(n, "unidirectional", 0), 0);
}
END_TEST

/* GPT-J: keys are rotated as [b,t,n,h] and turned into [b,n,h,T] at once. */
START_TEST(heads_rotated_behind_tokens_fuse)
{
    sdx_id x = hidden("x", WIDTH), rotated = op1("Tanh", project(x)), v = swap(project(x), 2, 1, 3);
    sdx_id scores = op2("MatMul", swap(op1("Tanh", project(x)), 2, 1, 3), swap(rotated, 2, 3, 1));
    sdx_id weights = with_int(op1("Softmax", scores), "axis", -1);
    output(op2("Reshape", swap(op2("MatMul", weights, v), 2, 1, 3), ints(3, 0, 0, WIDTH)));
    run(NULL);
    const sdx_node *keys = sdx_match_op(g, find("MultiHeadAttention")->in[1], "Reshape");
    ck_assert(keys && keys->in[0] == rotated);
}
END_TEST

/* All three in one tensor [b,t,3,n,h] (ModernBERT): each is cut out, then its heads are moved. */
START_TEST(heads_cut_out_of_one_tensor_fuse)
{
    sdx_id x = hidden("x", WIDTH), part[3];
    sdx_id whole = op2("Reshape", op2("MatMul", x, matrix(WIDTH, 3 * WIDTH)), ints(5, 0, 0, 3, HEADS, SIZE));
    for (int i = 0; i < 3; i++) {
        sdx_id in[4] = {whole, ints(1, i), ints(1, i + 1), ints(1, 2)}, slice;
        ok(sdx_graph_emit(g, "", "Slice", NULL, 4, in, &slice, &err));
        part[i] = swap(op2("Squeeze", slice, ints(1, 2)), 2, 1, 3);
    }
    sdx_id scores = op2("MatMul", op1("Tanh", part[0]), swap(op1("Tanh", part[1]), 1, 3, 2));
    sdx_id joined = swap(op2("MatMul", with_int(op1("Softmax", scores), "axis", -1), part[2]), 2, 1, 3);
    output(op2("Reshape", joined, ints(3, 0, 0, WIDTH)));
    run(NULL);
    ck_assert_int_eq(find("MultiHeadAttention")->in[2], part[2]);
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

Suite *fuse_cached_suite(void);
Suite *fuse_cached_suite(void)
{
    Suite *s = suite_create("fuse_cached");
    TCase *t = tcase_create("all");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_loop_test(t, causal_attention_fuses, 0, 2 * N_CAUSAL);
    tcase_add_test(t, two_masks_are_halved_in_standard_form);
    tcase_add_loop_test(t, other_orders_are_a_bias, STRICTER, REVERSED + 1);
    tcase_add_test(t, cached_attention_fuses);
    tcase_add_test(t, rotated_cache_fuses);
    tcase_add_test(t, heads_rotated_behind_tokens_fuse);
    tcase_add_test(t, heads_cut_out_of_one_tensor_fuse);
    tcase_add_test(t, transposed_cache_fuses);
    tcase_add_loop_test(t, packed_projection_fuses, 0, 2);
    suite_add_tcase(s, t);
    return s;
}
