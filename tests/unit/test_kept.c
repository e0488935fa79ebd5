/* test_kept.c: what a session keeps from run to run is what a caller would have handed back: with attention that
 * appends in place, and with a Concat that cannot. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "../../engine/engine.h"

enum { ROWS = 3, HEADS = 2, SIZE = 4, HIDDEN = HEADS * SIZE, STEPS = 40 };

static const char *const names[] = {"x", "past_key", "past_value"};

/* present = past and x, by MultiHeadAttention(x, x, x, past), or by Concat next to one without a past. */
static sdx_program *make_program(bool in_place)
{
    sdx_model *m;
    sdx_id in[8], out[3];
    ck_assert_int_eq(sdx_model_create(&m, NULL), SDX_OK);
    ck_assert_int_eq(sdx_model_set_opset(m, "", 17, NULL), SDX_OK);
    ck_assert_int_eq(sdx_model_set_opset(m, "com.microsoft", 1, NULL), SDX_OK);
    sdx_dim rows = SDX_DIM_SYMBOL(sdx_model_symbol(m, "rows")), past = SDX_DIM_SYMBOL(sdx_model_symbol(m, "past"));
    sdx_dim t = SDX_DIM_SYMBOL(sdx_model_symbol(m, "t"));
    for (int i = 0; i < 8; i++) in[i] = SDX_NONE;
    sdx_graph_add_input(m->graph, names[0], SDX_F32, &(sdx_shape){3, {rows, t, HIDDEN}}, &in[0], NULL);
    in[1] = in[2] = in[0];
    sdx_shape shape = {4, {rows, HEADS, past, SIZE}};
    sdx_graph_add_input(m->graph, names[1], SDX_F32, &shape, &in[6], NULL);
    sdx_graph_add_input(m->graph, names[2], SDX_F32, &shape, &in[7], NULL);
    sdx_id node;
    for (int o = 0; o < 3; o++) sdx_graph_add_value(m->graph, NULL, &out[o], NULL);
    sdx_graph_add_node(m->graph, "com.microsoft", "MultiHeadAttention", "attention", 8, in, 3, out, &node, NULL);
    sdx_node_set_int(m->graph, node, "num_heads", HEADS, NULL);
    if (!in_place) { /* somebody else reads the past */
        sdx_id both[2] = {in[6], in[7]}, sum;
        sdx_graph_emit(m->graph, "", "Add", "sum", 2, both, &sum, NULL);
        sdx_graph_add_output(m->graph, out[0], NULL);
        sdx_graph_add_output(m->graph, out[1], NULL);
        sdx_graph_add_output(m->graph, out[2], NULL);
        sdx_graph_add_output(m->graph, sum, NULL);
    }
    for (int o = 0; o < 3 && in_place; o++) sdx_graph_add_output(m->graph, out[o], NULL);
    sdx_program *p;
    sdx_error err = {0};
    ck_assert_msg(sdx_program_create(m, &(sdx_run_options){.threads = 1}, &p, &err) == SDX_OK, "%s", err.message);
    return p;
}

static void fill(float *x, int n, unsigned seed)
{
    for (int i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = (float)(seed >> 16) / 32768 - 1;
    }
}

/* What the caller would keep: a dense copy of an output, its rows in another order. */
static void hand_back(sdx_tensor *kept, const sdx_tensor *output, const size_t *row, int rows)
{
    size_t bytes = sdx_tensor_bytes(output) / (size_t)output->dim[0];
    char *data = malloc((size_t)rows * bytes);
    for (int r = 0; r < rows; r++) memcpy(data + (size_t)r * bytes, (char *)output->data + row[r] * bytes, bytes);
    free(kept->data);
    *kept = *output;
    kept->dim[0] = rows;
    kept->data = data;
}

START_TEST(is_what_was_handed_back)
{
    sdx_program *p = make_program(_i == 0);
    sdx_session *mine, *keeps;
    sdx_tensor kept[2] = {{SDX_F32, 4, {ROWS, HEADS, 1, SIZE}, NULL}, {SDX_F32, 4, {ROWS, HEADS, 1, SIZE}, NULL}};
    ck_assert_int_eq(sdx_session_create(p, &mine, NULL), SDX_OK);
    ck_assert_int_eq(sdx_session_create(p, &keeps, NULL), SDX_OK);
    for (int k = 0; k < 2; k++) {
        const char *output = sdx_model_output(sdx_program_model(p), (size_t)k + 1).name;
        kept[k].data = malloc(ROWS * HIDDEN * sizeof(float));
        fill(kept[k].data, ROWS * HIDDEN, 7 + (unsigned)k);
        ck_assert_int_eq(sdx_session_keep(keeps, names[k + 1], output, NULL), SDX_OK);
        ck_assert_int_eq(sdx_session_set_kept(keeps, names[k + 1], &kept[k], NULL), SDX_OK);
    }
    static const size_t orders[5][4] = {{0, 1, 2}, {1, 1, 0}, {2, 0, 1, 1}, {1, 3}, {0, 1}};
    static const int counts[5] = {3, 3, 4, 2, 2};
    int rows = ROWS;
    for (int step = 0; step < STEPS; step++) {
        float x[4 * 2 * HIDDEN];
        int tokens = 1 + (step == 5), order = rows == 3 ? (step == 20 ? 2 : step % 2) : rows == 4 ? 3 : 4;
        fill(x, rows * tokens * HIDDEN, 100 + (unsigned)step);
        sdx_tensor in[3] = {{SDX_F32, 3, {rows, tokens, HIDDEN}, x}, kept[0], kept[1]}, a[3], b[3];
        ck_assert_int_eq(sdx_session_run(mine, 3, names, in, 3, a, NULL), SDX_OK);
        ck_assert_int_eq(sdx_session_run(keeps, 1, names, in, 3, b, NULL), SDX_OK);
        ck_assert(b[1].dtype == SDX_UNDEFINED && b[2].dtype == SDX_UNDEFINED);
        ck_assert(!memcmp(a[0].data, b[0].data, sdx_tensor_bytes(&a[0])));
        hand_back(&kept[0], &a[1], orders[order], counts[order]);
        hand_back(&kept[1], &a[2], orders[order], counts[order]);
        ck_assert_int_eq(sdx_session_reorder_kept(keeps, orders[order], (size_t)counts[order], NULL), SDX_OK);
        rows = counts[order];
    }
    for (int k = 0; k < 2; k++) free(kept[k].data);
    sdx_session_free(mine);
    sdx_session_free(keeps);
    sdx_program_free(p);
}
END_TEST

START_TEST(is_appended_in_place)
{
    for (int in_place = 0; in_place < 2; in_place++) {
        sdx_program *p = make_program(in_place);
        sdx_keeper keeper = {0};
        sdx_plan *plan;
        for (int k = 1; k < 3; k++) {
            sdx_port port = sdx_model_input(sdx_program_model(p), (size_t)k);
            ck_assert_int_eq(sdx_keeper_add(&keeper, &port, k, k, NULL), SDX_OK);
        }
        sdx_tensor past = {SDX_F32, 4, {1, HEADS, 9, SIZE}, NULL},
                   feed[3] = {{SDX_F32, 3, {1, 1, HIDDEN}, NULL}, past, past};
        ck_assert_int_eq(sdx_plan_create(sdx_program_main(p), feed, &keeper, &plan, NULL), SDX_OK);
        ck_assert_int_eq(plan->append[0] >= 0 && plan->append[1] >= 0, in_place);
        ck_assert_int_eq(plan->append[0] < 0 && plan->append[1] < 0, !in_place);
        sdx_plan_free(plan);
        sdx_keeper_fini(&keeper);
        sdx_program_free(p);
    }
}
END_TEST

START_TEST(refuses)
{
    sdx_program *p = make_program(true);
    sdx_session *s;
    sdx_error err = {0};
    const char *present = sdx_model_output(sdx_program_model(p), 1).name;
    ck_assert_int_eq(sdx_session_create(p, &s, NULL), SDX_OK);
    ck_assert_int_eq(sdx_session_keep(s, "past", present, &err), SDX_ERR_USAGE);
    ck_assert_int_eq(sdx_session_keep(s, names[0], present, &err), SDX_ERR_UNSUPPORTED);
    ck_assert_int_eq(sdx_session_keep(s, names[1], present, &err), SDX_OK);
    ck_assert_int_eq(sdx_session_keep(s, names[1], present, &err), SDX_ERR_USAGE);
    sdx_tensor wrong = {SDX_F32, 4, {1, HEADS + 1, 0, SIZE}, NULL};
    ck_assert_int_eq(sdx_session_set_kept(s, names[1], &wrong, &err), SDX_ERR_USAGE);
    ck_assert_int_eq(sdx_session_set_kept(s, names[2], &wrong, &err), SDX_ERR_USAGE);
    ck_assert_int_eq(sdx_session_reorder_kept(s, (size_t[]){0}, 1, &err), SDX_ERR_USAGE);
    sdx_session_free(s);
    sdx_program_free(p);
}
END_TEST

Suite *kept_suite(void);
Suite *kept_suite(void)
{
    Suite *s = suite_create("kept");
    TCase *c = tcase_create("all");
    tcase_add_loop_test(c, is_what_was_handed_back, 0, 2);
    tcase_add_test(c, is_appended_in_place);
    tcase_add_test(c, refuses);
    suite_add_tcase(s, c);
    return s;
}
