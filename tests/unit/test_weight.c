/* test_weight.c: weights that a program packs when it runs for the second time: the same bits before, while and after
 * that, as from weights that were packed at once. */
#include <check.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../../engine/engine.h"
#include "../../engine/ops/weight.h"

Suite *weight_suite(void);

enum { TOKENS = 37, WIDTH = 96, INNER = 1024, OUT = 200, RUNS = 4, SESSIONS = 3 };

/* ---- a model: attention, a wide layer, a narrow one of a transposed matrix with a bias ---------------------- */

static sdx_id constant(sdx_model *m, int rows, int columns)
{
    sdx_id id;
    sdx_shape shape = {.rank = 2, .dim = {rows, columns}};
    float *data = sdx_arena_alloc(&m->arena, (size_t)(rows * columns) * sizeof *data);
    for (int i = 0; i < rows * columns; i++) data[i] = (float)((i * 7919 + columns) % 613 - 306) / 2048.0f;
    sdx_tensor t = sdx_tensor_make(SDX_F32, &shape, data);
    if (rows == 1) t.dim[0] = t.dim[1], t.rank = 1;
    ck_assert_int_eq(sdx_graph_add_constant(m->graph, NULL, &t, &id, NULL), SDX_OK);
    return id;
}

static sdx_id node(sdx_model *m, const char *domain, const char *op, const char *attribute, int value, int n,
                   sdx_id *in)
{
    sdx_id made, out;
    ck_assert_int_eq(sdx_graph_add_value(m->graph, NULL, &out, NULL), SDX_OK);
    ck_assert_int_eq(sdx_graph_add_node(m->graph, domain, op, NULL, n, in, 1, &out, &made, NULL), SDX_OK);
    if (attribute) ck_assert_int_eq(sdx_node_set_int(m->graph, made, attribute, value, NULL), SDX_OK);
    return out;
}

static sdx_model *make_model(void)
{
    sdx_model *m;
    sdx_id x;
    ck_assert_int_eq(sdx_model_create(&m, NULL), SDX_OK);
    m->path = "test.onnx";
    ck_assert_int_eq(sdx_model_set_opset(m, "", 17, NULL), SDX_OK);
    ck_assert_int_eq(sdx_model_set_opset(m, "com.microsoft", 1, NULL), SDX_OK);
    sdx_shape shape = {.rank = 3, .dim = {1, TOKENS, WIDTH}};
    ck_assert_int_eq(sdx_graph_add_input(m->graph, "x", SDX_F32, &shape, &x, NULL), SDX_OK);
    x = node(m, "com.microsoft", "Attention", "num_heads", 2, 3,
             (sdx_id[]){x, constant(m, WIDTH, 3 * WIDTH), constant(m, 1, 3 * WIDTH)});
    x = node(m, "", "MatMul", NULL, 0, 2, (sdx_id[]){x, constant(m, WIDTH, INNER)});
    sdx_id rows;
    ck_assert_int_eq(sdx_graph_add_ints(m->graph, NULL, 2, (int64_t[]){TOKENS, INNER}, &rows, NULL), SDX_OK);
    x = node(m, "", "Reshape", NULL, 0, 2, (sdx_id[]){x, rows});
    x = node(m, "", "Gemm", "transB", 1, 3, (sdx_id[]){x, constant(m, OUT, INNER), constant(m, 1, OUT)});
    ck_assert_int_eq(sdx_graph_add_output(m->graph, x, NULL), SDX_OK);
    return m;
}

/* The same from a file: its weights are mapped. */
static sdx_model *make_mapped(void)
{
    char path[64];
    sdx_model *m = make_model(), *mapped;
    snprintf(path, sizeof path, "/tmp/sdx_weight_%d.onnx", (int)getpid());
    ck_assert_int_eq(sdx_onnx_write(m, path, &(sdx_onnx_write_options){0}, NULL), SDX_OK);
    sdx_model_close(m);
    ck_assert_int_eq(sdx_model_open(path, &mapped, NULL), SDX_OK);
    remove(path);
    return mapped;
}

static sdx_program *compile(sdx_model *m, int threads, const char *precision)
{
    sdx_program *program;
    sdx_error err = {0};
    sdx_run_options how = {.threads = threads, .precision = precision, .no_optimize = true};
    ck_assert_msg(sdx_program_create(m, &how, &program, &err) == SDX_OK, "%s", err.message);
    return program;
}

static float given[TOKENS * WIDTH], expected[TOKENS * OUT];

static bool run(sdx_session *s, float *values)
{
    sdx_shape shape = {.rank = 3, .dim = {1, TOKENS, WIDTH}};
    sdx_tensor in = sdx_tensor_make(SDX_F32, &shape, given), out;
    if (sdx_session_run(s, 1, (const char *[]){"x"}, &in, 1, &out, NULL) != SDX_OK) return false;
    memcpy(values, out.data, sizeof expected);
    return true;
}

/* What weights in memory give, which are packed when the program is made. */
static void expect(const char *precision)
{
    sdx_session *s;
    for (int i = 0; i < TOKENS * WIDTH; i++) given[i] = (float)(i * 31 % 101 - 50) / 32.0f;
    sdx_program *program = compile(make_model(), 1, precision);
    ck_assert_ptr_null(program->late->first);
    ck_assert_int_eq(sdx_session_create(program, &s, NULL), SDX_OK);
    ck_assert(run(s, expected));
    sdx_session_free(s);
    sdx_program_free(program);
}

/* ---- tests ----------------------------------------------------------------------------------------------- */

START_TEST(second_run_packs)
{
    static float got[TOKENS * OUT];
    const char *precision = _i % 2 ? "fp16" : "fp32";
    expect(precision);
    sdx_program *program = compile(make_mapped(), _i + 1, precision);
    sdx_session *s;
    int count = 0;
    for (const sdx_weight *w = program->late->first; w; w = w->next) count++;
    ck_assert_int_eq(count, 3);
    for (int r = 0; r < RUNS; r++) {
        ck_assert_int_eq(sdx_session_create(program, &s, NULL), SDX_OK);
        ck_assert(run(s, got));
        ck_assert_mem_eq(got, expected, sizeof expected);
        for (const sdx_weight *w = program->late->first; w; w = w->next)
            ck_assert_int_eq(sdx_weight_packed(w) != NULL, r > 0);
        sdx_session_free(s);
    }
    sdx_program_free(program);
}
END_TEST

/* Inputs that do not fit are no run: the next one is still the first. */
START_TEST(refused_runs_do_not_count)
{
    static float got[TOKENS * OUT];
    expect("fp32");
    sdx_program *program = compile(make_mapped(), 1, "fp32");
    sdx_session *s;
    ck_assert_int_eq(sdx_session_create(program, &s, NULL), SDX_OK);
    for (int i = 0; i < 2; i++) ck_assert_int_eq(sdx_session_run(s, 0, NULL, NULL, 0, NULL, NULL), SDX_ERR_USAGE);
    ck_assert(run(s, got));
    ck_assert_mem_eq(got, expected, sizeof expected);
    ck_assert_ptr_null(sdx_weight_packed(program->late->first));
    sdx_session_free(s);
    sdx_program_free(program);
}
END_TEST

static void *run_often(void *program)
{
    static _Thread_local float got[TOKENS * OUT];
    sdx_session *s;
    bool ok = sdx_session_create(program, &s, NULL) == SDX_OK;
    for (int r = 0; r < RUNS && ok; r++) ok = run(s, got) && !memcmp(got, expected, sizeof expected);
    sdx_session_free(s);
    return ok ? program : NULL;
}

START_TEST(sessions_run_while_one_packs)
{
    expect("fp32");
    sdx_program *program = compile(make_mapped(), 1, "fp32");
    pthread_t thread[SESSIONS];
    for (int i = 0; i < SESSIONS; i++) ck_assert_int_eq(pthread_create(&thread[i], NULL, run_often, program), 0);
    for (int i = 0; i < SESSIONS; i++) {
        void *done;
        pthread_join(thread[i], &done);
        ck_assert_ptr_eq(done, program);
    }
    sdx_program_free(program);
}
END_TEST

Suite *weight_suite(void)
{
    Suite *s = suite_create("weight");
    TCase *c = tcase_create("late");
    tcase_add_loop_test(c, second_run_packs, 0, 4);
    tcase_add_test(c, refused_runs_do_not_count);
    tcase_add_test(c, sessions_run_while_one_packs);
    suite_add_tcase(s, c);
    return s;
}
