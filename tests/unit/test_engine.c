/* test_engine.c: programs, plans and sessions on graphs made in memory. */
#include <check.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../base/memory.h"
#include "../../engine/engine.h"
#include "../../engine/ops/ops.h"

/* ---- building and running -------------------------------------------------------------------------------- */

enum { OPSET = 17 };

static sdx_model *new_model(void)
{
    sdx_model *m;
    ck_assert_int_eq(sdx_model_create(&m, NULL), SDX_OK);
    m->path = "test.onnx";
    ck_assert_int_eq(sdx_model_set_opset(m, "", OPSET, NULL), SDX_OK);
    return m;
}

static sdx_id input(sdx_model *m, const char *name, sdx_dtype dtype, int rank, const sdx_dim *dim)
{
    sdx_id id;
    sdx_shape shape = sdx_shape_make(rank, dim);
    ck_assert_int_eq(sdx_graph_add_input(m->graph, name, dtype, &shape, &id, NULL), SDX_OK);
    return id;
}

static sdx_id emit(sdx_model *m, const char *op, int n_in, const sdx_id *in)
{
    sdx_id id;
    ck_assert_int_eq(sdx_graph_emit(m->graph, "", op, NULL, n_in, in, &id, NULL), SDX_OK);
    return id;
}

static sdx_id unary(sdx_model *m, const char *op, sdx_id a)
{
    return emit(m, op, 1, &a);
}
static sdx_id binary(sdx_model *m, const char *op, sdx_id a, sdx_id b)
{
    return emit(m, op, 2, (sdx_id[]){a, b});
}

static sdx_id reshape(sdx_model *m, sdx_id a, int rank, const int64_t *dim)
{
    sdx_id target;
    ck_assert_int_eq(sdx_graph_add_ints(m->graph, NULL, rank, dim, &target, NULL), SDX_OK);
    return binary(m, "Reshape", a, target);
}

static void output(sdx_model *m, sdx_id id)
{
    ck_assert_int_eq(sdx_graph_add_output(m->graph, id, NULL), SDX_OK);
}

typedef struct engine {
    sdx_program *program;
    sdx_session *session;
} engine;

static engine start(sdx_model *m, const sdx_run_options *options)
{
    engine e;
    sdx_error err = {0};
    ck_assert_msg(sdx_program_create(m, options, &e.program, &err) == SDX_OK, "%s", err.message);
    ck_assert_msg(sdx_session_create(e.program, &e.session, &err) == SDX_OK, "%s", err.message);
    return e;
}

static void stop(engine e)
{
    sdx_session_free(e.session);
    sdx_program_free(e.program);
}

static sdx_tensor f32(int rank, const int64_t *dim, const float *data)
{
    sdx_shape shape = sdx_shape_make(rank, dim);
    return sdx_tensor_make(SDX_F32, &shape, data);
}

static const sdx_run_options plain = {.threads = 1, .no_optimize = true};

/* ---- runs ------------------------------------------------------------------------------------------------ */

static sdx_model *add_model(void)
{
    sdx_model *m = new_model();
    sdx_dim dim[2] = {SDX_DIM_SYMBOL(sdx_model_symbol(m, "batch")), 3};
    sdx_id x = input(m, "x", SDX_F32, 2, dim), y = input(m, "y", SDX_F32, 2, dim);
    output(m, unary(m, "Relu", binary(m, "Add", x, y)));
    return m;
}

static void check_add(engine e, int64_t batch)
{
    float *x = malloc((size_t)batch * 3 * sizeof *x + 4), *y = malloc((size_t)batch * 3 * sizeof *y + 4);
    for (int i = 0; i < batch * 3; i++) x[i] = (float)i - 4, y[i] = (float)(i % 2);
    sdx_tensor in[2] = {f32(2, (int64_t[]){batch, 3}, y), f32(2, (int64_t[]){batch, 3}, x)}, out;
    const char *names[2] = {"y", "x"};
    ck_assert_int_eq(sdx_session_run(e.session, 2, names, in, 1, &out, NULL), SDX_OK);
    ck_assert_int_eq(out.dim[0], batch);
    for (int i = 0; i < batch * 3; i++) {
        float sum = x[i] + y[i], *got = out.data;
        ck_assert_float_eq(got[i], sum > 0 ? sum : 0);
        ck_assert_float_eq(x[i], (float)i - 4); /* the caller's memory is never written */
    }
    free(x);
    free(y);
}

START_TEST(runs_at_many_shapes)
{
    engine e = start(add_model(), _i ? NULL : &plain);
    for (int round = 0; round < 3; round++)
        for (int64_t batch = 0; batch < 12; batch++) check_add(e, batch); /* more shapes than cached plans */
    check_add(e, 5000);
    for (int i = 0; i < 40; i++) check_add(e, 2); /* the buffer shrinks */
    stop(e);
}
END_TEST

/* One program, a session per thread, plans made at the same time. */
static void *run_alone(void *program)
{
    sdx_session *s;
    bool ok = sdx_session_create(program, &s, NULL) == SDX_OK;
    float x[60] = {0}, y[60] = {0};
    for (int64_t batch = 1; ok && batch <= 20; batch++) {
        sdx_tensor in[2] = {f32(2, (int64_t[]){batch, 3}, x), f32(2, (int64_t[]){batch, 3}, y)}, out;
        y[batch * 3 - 1] = (float)batch;
        ok = sdx_session_run(s, 2, (const char *[]){"x", "y"}, in, 1, &out, NULL) == SDX_OK;
        ok = ok && ((float *)out.data)[batch * 3 - 1] == (float)batch;
    }
    sdx_session_free(s);
    return ok ? program : NULL;
}

START_TEST(sessions_share_a_program)
{
    engine e = start(add_model(), &(sdx_run_options){.threads = 1});
    pthread_t thread[4];
    for (int i = 0; i < 4; i++) ck_assert_int_eq(pthread_create(&thread[i], NULL, run_alone, e.program), 0);
    for (int i = 0; i < 4; i++) {
        void *result;
        pthread_join(thread[i], &result);
        ck_assert_ptr_eq(result, e.program);
    }
    stop(e);
}
END_TEST

START_TEST(an_output_is_never_the_callers_input)
{
    sdx_model *m = new_model();
    sdx_id x = input(m, "x", SDX_F32, 1, (sdx_dim[]){4});
    output(m, x);
    output(m, reshape(m, x, 2, (int64_t[]){2, 2}));
    engine e = start(m, &plain);
    float data[4] = {1, 2, 3, 4};
    sdx_tensor in = f32(1, (int64_t[]){4}, data), out[2];
    ck_assert_int_eq(sdx_session_run(e.session, 1, (const char *[]){"x"}, &in, 2, out, NULL), SDX_OK);
    memset(data, 0, sizeof data);
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < 4; i++) ck_assert_float_eq(((float *)out[k].data)[i], (float)(i + 1));
    ck_assert_int_eq(out[1].rank, 2);
    stop(e);
}
END_TEST

/* A target that is itself an input: shapes only the run knows, also of what follows. */
START_TEST(shapes_may_depend_on_values)
{
    sdx_model *m = new_model();
    sdx_id x = input(m, "x", SDX_F32, 1, (sdx_dim[]){6}), s = input(m, "s", SDX_I64, 1, (sdx_dim[]){2});
    sdx_id r = binary(m, "Reshape", unary(m, "Neg", x), s);
    output(m, unary(m, "Neg", r));
    output(m, r);
    output(m, binary(m, "Reshape", x, s));
    engine e = start(m, &plain);
    float data[6] = {1, 2, 3, 4, 5, 6};
    for (int64_t rows = 1; rows <= 6; rows++) {
        int64_t target[2] = {rows, 6 / rows};
        if (rows * target[1] != 6) continue;
        sdx_tensor in[2] = {f32(1, (int64_t[]){6}, data), {SDX_I64, 1, {2}, target}}, out[3];
        sdx_error err;
        ck_assert_msg(sdx_session_run(e.session, 2, (const char *[]){"x", "s"}, in, 3, out, &err) == SDX_OK,
                      "%s", err.message);
        for (int k = 0; k < 3; k++) {
            ck_assert_int_eq(out[k].dim[0], rows);
            ck_assert_float_eq(((float *)out[k].data)[5], k == 1 ? -6 : 6);
        }
    }
    int64_t wrong[2] = {4, 2};
    sdx_tensor in[2] = {f32(1, (int64_t[]){6}, data), {SDX_I64, 1, {2}, wrong}}, out[3];
    sdx_error err;
    ck_assert_int_ne(sdx_session_run(e.session, 2, (const char *[]){"x", "s"}, in, 3, out, &err), SDX_OK);
    ck_assert_ptr_nonnull(strstr(err.message, "Reshape"));
    stop(e);
}
END_TEST

START_TEST(constants_may_lie_askew)
{
    static unsigned char bytes[1 + 3 * sizeof(float)];
    float values[3] = {1, 2, 3};
    memcpy(bytes + 1, values, sizeof values);
    sdx_model *m = new_model();
    sdx_id x = input(m, "x", SDX_F32, 1, (sdx_dim[]){3}), c;
    sdx_tensor t = {SDX_F32, 1, {3}, bytes + 1};
    ck_assert_int_eq(sdx_graph_add_constant(m->graph, "c", &t, &c, NULL), SDX_OK);
    output(m, binary(m, "Add", x, c));
    engine e = start(m, &plain);
    sdx_tensor in = f32(1, (int64_t[]){3}, values), out;
    ck_assert_int_eq(sdx_session_run(e.session, 1, (const char *[]){"x"}, &in, 1, &out, NULL), SDX_OK);
    ck_assert_float_eq(((float *)out.data)[2], 6);
    stop(e);
}
END_TEST

/* ---- plans ----------------------------------------------------------------------------------------------- */

START_TEST(shape_chains_cost_nothing)
{
    sdx_model *m = new_model();
    sdx_dim n = SDX_DIM_SYMBOL(sdx_model_symbol(m, "n"));
    sdx_id x = input(m, "x", SDX_F32, 2, (sdx_dim[]){n, 6}),
           y = input(m, "y", SDX_F32, 1, (sdx_dim[]){SDX_DIM_UNKNOWN});
    sdx_id s = unary(m, "Shape", x), two;
    ck_assert_int_eq(sdx_graph_add_ints(m->graph, NULL, 2, (int64_t[]){1, 1}, &two, NULL), SDX_OK);
    output(m, binary(m, "Reshape", y, binary(m, "Mul", s, two)));
    engine e = start(m, &plain);
    sdx_plan *p;
    sdx_tensor feed[2] = {{SDX_F32, 2, {4, 6}, NULL}, {SDX_F32, 1, {24}, NULL}};
    ck_assert_int_eq(sdx_plan_create(sdx_program_main(e.program), feed, NULL, &p, NULL), SDX_OK);
    ck_assert_int_eq(p->n_step, 1);
    ck_assert(p->step[0].shares && !p->step[0].dynamic);
    sdx_plan_free(p);
    stop(e);
}
END_TEST

START_TEST(chains_work_in_place)
{
    sdx_model *m = new_model();
    sdx_id v = input(m, "x", SDX_F32, 1, (sdx_dim[]){1024});
    for (int i = 0; i < 9; i++) v = unary(m, i % 2 ? "Exp" : "Neg", v);
    output(m, v);
    engine e = start(m, &plain);
    sdx_plan *p;
    sdx_tensor feed = {SDX_F32, 1, {1024}, NULL};
    ck_assert_int_eq(sdx_plan_create(sdx_program_main(e.program), &feed, NULL, &p, NULL), SDX_OK);
    ck_assert_int_eq(p->n_step, 9);
    ck_assert_uint_le(p->bytes, 4096 + 64 * 9); /* one value, and nothing much of workspaces */
    sdx_plan_free(p);
    stop(e);
}
END_TEST

/* Random graphs of exact operators, views among them, against the same arithmetic done naively: a value
 * overwritten too early would show. */
enum { WIDTH = 8, MOST_VALUES = 40 };

static uint32_t below(uint32_t *seed, uint32_t n)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (*seed >> 8) % n;
}

static void random_node(sdx_model *m, uint32_t *seed, sdx_id *id, float (*value)[WIDTH], bool *square, int n)
{
    static const int64_t flat[1] = {WIDTH}, folded[2] = {2, WIDTH / 2};
    int a = (int)below(seed, (uint32_t)n), b = (int)below(seed, (uint32_t)n), kind = (int)below(seed, 4);
    if (kind == 1 && square[a] != square[b]) kind = 3;
    square[n] = square[a] ^ (kind == 3);
    if (kind == 0 || kind == 2)
        id[n] = unary(m, kind ? "Relu" : "Neg", id[a]);
    else if (kind == 1)
        id[n] = binary(m, "Sub", id[a], id[b]);
    else
        id[n] = square[n] ? reshape(m, id[a], 2, folded) : reshape(m, id[a], 1, flat);
    for (int i = 0; i < WIDTH; i++) {
        float x = value[a][i];
        value[n][i] = kind == 0 ? -x : kind == 1 ? x - value[b][i] : kind == 2 ? (x > 0 ? x : 0) : x;
    }
}

START_TEST(random_graphs_compute_what_they_say)
{
    uint32_t seed = (uint32_t)_i * 2654435761u + 5;
    float value[MOST_VALUES][WIDTH], given[WIDTH];
    sdx_id id[MOST_VALUES];
    bool square[MOST_VALUES] = {false};
    int wanted[4];
    sdx_model *m = new_model();
    for (int i = 0; i < WIDTH; i++) value[0][i] = given[i] = (float)below(&seed, 17) - 8;
    id[0] = input(m, "x", SDX_F32, 1, (sdx_dim[]){WIDTH});
    for (int n = 1; n < MOST_VALUES; n++) random_node(m, &seed, id, value, square, n);
    for (int k = 0; k < 4; k++) {
        wanted[k] = k ? (int)below(&seed, MOST_VALUES) : MOST_VALUES - 1;
        output(m, id[wanted[k]]);
    }
    engine e = start(m, below(&seed, 2) ? &plain : NULL);
    for (int round = 0; round < 2; round++) {
        sdx_tensor in = f32(1, (int64_t[]){WIDTH}, given), out[4];
        sdx_error err;
        ck_assert_msg(sdx_session_run(e.session, 1, (const char *[]){"x"}, &in, 4, out, &err) == SDX_OK, "%s",
                      err.message);
        for (int k = 0; k < 4; k++)
            for (int i = 0; i < WIDTH; i++) ck_assert_float_eq(((float *)out[k].data)[i], value[wanted[k]][i]);
    }
    stop(e);
}
END_TEST

/* ---- messages -------------------------------------------------------------------------------------------- */

static void expect_failure(engine e, size_t n, const char *const *names, const sdx_tensor *in, const char *part)
{
    sdx_tensor out;
    sdx_error err = {0};
    ck_assert_int_eq(sdx_session_run(e.session, n, names, in, 1, &out, &err), SDX_ERR_USAGE);
    ck_assert_msg(strstr(err.message, part) != NULL, "\"%s\" lacks \"%s\"", err.message, part);
    ck_assert_int_eq(sdx_session_run(e.session, n, names, in, 1, &out, NULL), SDX_ERR_USAGE);
}

START_TEST(inputs_are_checked)
{
    engine e = start(add_model(), NULL);
    float data[12] = {0};
    int64_t whole[12] = {0};
    const char *xy[3] = {"x", "y", "y"}, *xz[2] = {"x", "z"};
    sdx_tensor good = f32(2, (int64_t[]){2, 3}, data), longer = f32(2, (int64_t[]){4, 3}, data);
    sdx_tensor narrow = f32(2, (int64_t[]){3, 2}, data), flat = f32(1, (int64_t[]){3}, data);
    sdx_tensor integer = {SDX_I64, 2, {2, 3}, whole},
               askew = f32(2, (int64_t[]){2, 3}, (float *)((char *)data + 1));
    sdx_tensor negative = f32(2, (int64_t[]){-1, 3}, data), null = f32(2, (int64_t[]){2, 3}, NULL);
    expect_failure(e, 1, xy, &good, "inputs are missing: \"y\"");
    expect_failure(e, 2, xz, (sdx_tensor[]){good, good},
                   "there is no input \"z\"; the inputs are \"x\", \"y\"");
    expect_failure(e, 3, xy, (sdx_tensor[]){good, good, good}, "input \"y\" is given twice");
    expect_failure(e, 2, xy, (sdx_tensor[]){good, integer},
                   "test.onnx: input \"y\": expected float32[batch,3], got int64[2,3]");
    expect_failure(e, 2, xy, (sdx_tensor[]){narrow, good}, "expected float32[batch,3], got float32[3,2]");
    expect_failure(e, 2, xy, (sdx_tensor[]){flat, good}, "got float32[3]");
    expect_failure(e, 2, xy, (sdx_tensor[]){negative, good}, "input \"x\"");
    expect_failure(e, 2, xy, (sdx_tensor[]){null, good}, "data is NULL");
    expect_failure(e, 2, xy, (sdx_tensor[]){askew, good}, "not aligned");
    expect_failure(e, 2, xy, (sdx_tensor[]){good, longer},
                   "input \"y\": dimension 0 (\"batch\") is 4, but it is 2 in input \"x\"");
    check_add(e, 2);
    stop(e);
}
END_TEST

/* ---- sizes taken as one ---------------------------------------------------------------------------------- */

/* Concat(past[p], now[n]) + mask[total]: inference takes total to be p + n. In the file, where it can be read again. */
static sdx_program *program_of_sum(const char *path)
{
    sdx_model *m = new_model();
    sdx_dim p = SDX_DIM_SYMBOL(sdx_model_symbol(m, "p")), n = SDX_DIM_SYMBOL(sdx_model_symbol(m, "n"));
    sdx_dim total = SDX_DIM_SYMBOL(sdx_model_symbol(m, "total"));
    sdx_id past = input(m, "past", SDX_F32, 1, &p), now = input(m, "now", SDX_F32, 1, &n);
    sdx_id mask = input(m, "mask", SDX_F32, 1, &total), node = m->graph->n_node;
    sdx_id both = binary(m, "Concat", past, now), sum = binary(m, "Add", both, mask);
    ck_assert_int_eq(sdx_node_set_int(m->graph, node, "axis", 0, NULL), SDX_OK);
    output(m, sum);
    output(m, unary(m, "Shape", sum));
    ck_assert_int_eq(sdx_onnx_write(m, path, &(sdx_onnx_write_options){0}, NULL), SDX_OK);
    sdx_model_close(m);
    sdx_program *program;
    ck_assert_int_eq(sdx_program_open(path, NULL, &program, NULL), SDX_OK);
    return program;
}

START_TEST(sizes_taken_as_one_may_differ)
{
    char path[64];
    snprintf(path, sizeof path, "/tmp/sdx_apart_%d.onnx", (int)getpid());
    engine e = {.program = program_of_sum(path)};
    remove(path); /* what is mapped is enough */
    ck_assert_int_eq(e.program->model->n_assumed, 1);
    ck_assert_int_eq(sdx_session_create(e.program, &e.session, NULL), SDX_OK);
    static const char *const names[] = {"past", "now", "mask"};
    static const int64_t sizes[][4] = {{2, 3, 5, 5}, {2, 3, 1, 5}, {1, 0, 4, 4}, {2, 2, 4, 4}, {2, 2, 3, -1}};
    float data[5] = {1, 2, 3, 4, 5};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        sdx_tensor in[3], out[2];
        sdx_error err = {0};
        for (int k = 0; k < 3; k++) in[k] = f32(1, &sizes[i][k], data);
        sdx_status status = sdx_session_run(e.session, 3, names, in, 2, out, &err);
        ck_assert_int_eq(status, sizes[i][3] < 0 ? SDX_ERR_USAGE : SDX_OK);
        ck_assert(status == SDX_OK || strstr(err.message, "\"total\" of an input is 3, but 2 + 2 is expected"));
        if (status != SDX_OK) continue;
        ck_assert_int_eq(out[0].dim[0], sizes[i][3]);
        ck_assert_int_eq(((const int64_t *)out[1].data)[0], sizes[i][3]);
        ck_assert(((const float *)out[0].data)[0] == 2.0f);
        ck_assert_int_eq(e.program->apart != NULL, i > 0);
    }
    stop(e);
}
END_TEST

START_TEST(options_are_checked)
{
    sdx_program *p;
    sdx_error err;
    ck_assert_int_eq(sdx_program_create(add_model(), &(sdx_run_options){.threads = -1}, &p, &err),
                     SDX_ERR_USAGE);
    ck_assert_int_eq(sdx_program_create(add_model(), &(sdx_run_options){.isa = "z80"}, &p, &err),
                     SDX_ERR_USAGE);
    ck_assert_ptr_nonnull(strstr(err.message, "z80"));
    ck_assert_int_eq(sdx_set_isa("z80", &err), SDX_ERR_USAGE);
    engine e = start(add_model(), &(sdx_run_options){.isa = "scalar"});
    ck_assert_int_eq(e.program->kernels->isa, SDX_ISA_SCALAR);
    check_add(e, 3);
    stop(e);
}
END_TEST

START_TEST(a_profile_names_operators)
{
    engine e = start(add_model(), &(sdx_run_options){.profile = true});
    char *text;
    check_add(e, 3);
    ck_assert_int_eq(sdx_session_profile(e.session, &text, NULL), SDX_OK);
    ck_assert(strstr(text, "Add") && strstr(text, "Relu") && strstr(text, "1 runs"));
    free(text);
    stop(e);
}
END_TEST

/* ---- optimizing files ------------------------------------------------------------------------------------ */

START_TEST(files_are_optimized)
{
    char in[64], out[64];
    snprintf(in, sizeof in, "/tmp/sdx_engine_%d.onnx", (int)getpid());
    snprintf(out, sizeof out, "/tmp/sdx_engine_%d_out.onnx", (int)getpid());
    sdx_model *m = add_model();
    sdx_id twice = unary(m, "Identity", unary(m, "Identity", m->graph->output[0]));
    output(m, unary(m, "Neg", twice));
    ck_assert_int_eq(sdx_model_set_metadata(m, "num_heads", "4", NULL), SDX_OK);
    ck_assert_int_eq(sdx_onnx_write(m, in, &(sdx_onnx_write_options){0}, NULL), SDX_OK);
    sdx_model_close(m);

    sdx_optimize_options o = {.input = in, .output = out, .num_heads = 8};
    sdx_graph_stats before, after;
    sdx_error err;
    ck_assert_int_eq(sdx_optimize(&o, &before, &after, &err), SDX_ERR_USAGE);
    ck_assert(strstr(err.message, "num_heads 8") && access(out, F_OK));
    o.num_heads = 4;
    o.model_type = "nonsense";
    ck_assert_int_eq(sdx_optimize(&o, &before, &after, &err), SDX_ERR_USAGE);
    o.model_type = "bert";
    ck_assert_msg(sdx_optimize(&o, &before, &after, &err) == SDX_OK, "%s", err.message);
    ck_assert_uint_eq(before.nodes, 5);
    ck_assert_uint_eq(after.nodes, 3);
    ck_assert_uint_eq(after.outputs, 2);
    sdx_program *p;
    ck_assert_int_eq(sdx_program_open(out, NULL, &p, &err), SDX_OK);
    sdx_program_free(p);
    unlink(in);
    unlink(out);
}
END_TEST

static sdx_status validate(const char *original, sdx_model *rewritten, sdx_error *refused, sdx_error *err)
{
    const sdx_run_options how = {0};
    sdx_answers *answers = NULL;
    sdx_status status = sdx_answers_create(original, &how, &answers, refused, err);
    if (answers)
        status = sdx_answers_compare(answers, rewritten, &how, err);
    else
        sdx_model_close(rewritten);
    sdx_answers_free(answers);
    return status;
}

/* A rewrite that changes the function is refused, by name of the output. */
START_TEST(a_wrong_rewrite_is_found)
{
    char in[64];
    snprintf(in, sizeof in, "/tmp/sdx_engine_%d_wrong.onnx", (int)getpid());
    sdx_model *m = add_model();
    ck_assert_int_eq(sdx_onnx_write(m, in, &(sdx_onnx_write_options){0}, NULL), SDX_OK);
    sdx_error err = {0}, refused = {0};
    m->graph->node[0].op_type = "Sub";
    ck_assert_int_eq(validate(in, m, &refused, &err), SDX_ERR_INTERNAL);
    ck_assert_msg(strstr(err.message, "is off by"), "%s", err.message);
    ck_assert_int_eq(validate(in, add_model(), &refused, &err), SDX_OK);
    ck_assert_str_eq(refused.message, "");
    unlink(in);
}
END_TEST

/* A model that takes none of the sizes that can be made up is not compared, and the reason is told. */
START_TEST(an_original_that_fails_is_told)
{
    char in[64];
    snprintf(in, sizeof in, "/tmp/sdx_engine_%d_fails.onnx", (int)getpid());
    sdx_model *m = new_model(), *never = add_model();
    sdx_dim dim[1] = {SDX_DIM_SYMBOL(sdx_model_symbol(m, "n"))};
    sdx_id x = input(m, "x", SDX_F32, 1, dim), shape;
    const int64_t target[2] = {11, 13};
    ck_assert_int_eq(sdx_graph_add_ints(m->graph, "target", 2, target, &shape, NULL), SDX_OK);
    output(m, binary(m, "Reshape", x, shape));
    ck_assert_int_eq(sdx_onnx_write(m, in, &(sdx_onnx_write_options){0}, NULL), SDX_OK);
    sdx_error err = {0}, refused = {0};
    ck_assert_int_eq(validate(in, never, &refused, &err), SDX_OK);
    ck_assert_msg(strstr(refused.message, "Reshape"), "%s", refused.message);
    sdx_model_close(m);
    unlink(in);
}
END_TEST

/* ---- the table of operators ------------------------------------------------------------------------------ */

static bool same_operator(const sdx_op_def *a, const sdx_op_def *b)
{
    return !strcmp(a->name, b->name) && !strcmp(a->domain, b->domain);
}

static void check_against(const sdx_op_def *a, const sdx_op_def *b)
{
    int end_a = a->until ? a->until : INT32_MAX, end_b = b->until ? b->until : INT32_MAX;
    ck_assert_msg(a->since > end_b || b->since > end_a, "%s-%d and %s-%d overlap", a->name, a->since, b->name,
                  b->since);
}

START_TEST(every_operator_is_complete)
{
    size_t rows = 0;
    for (size_t t = 0; t < sdx_operators.count; t++) {
        const sdx_op_table *table = sdx_operators.table[t];
        for (size_t i = 0; i < table->count; i++, rows++) {
            const sdx_op_def *d = &table->row[i];
            ck_assert_msg(d->infer && d->run && d->since > 0, "%s-%d is incomplete", d->name, d->since);
            ck_assert_msg(d->max_in < 0 || d->min_in <= d->max_in, "%s-%d", d->name, d->since);
            /* recurrent cells may leave out every output */
            ck_assert_msg(d->min_out >= 0 && d->max_out != 0 && (d->max_out < 0 || d->min_out <= d->max_out),
                          "%s-%d", d->name, d->since);
            int following = 0; /* the next version; none: current, or withdrawn */
            for (size_t u = 0; u < sdx_operators.count; u++)
                for (size_t k = 0; k < sdx_operators.table[u]->count; k++) {
                    const sdx_op_def *o = &sdx_operators.table[u]->row[k];
                    if (o == d || !same_operator(o, d)) continue;
                    check_against(d, o);
                    if (o->since > d->since && (!following || o->since < following)) following = o->since;
                }
            ck_assert_msg(!following || following == d->until + 1, "%s: a hole before opset %d", d->name,
                          following);
        }
    }
    ck_assert_uint_eq(rows, sdx_operator_count());
    ck_assert_ptr_null(sdx_operator_at(rows).name);
    ck_assert_str_eq(sdx_operator_at(0).domain[0] ? "named" : "", "named");
}
END_TEST

/* ---- memory ---------------------------------------------------------------------------------------------- */

#ifdef SDX_ALLOC_FAILURE
START_TEST(a_warm_run_allocates_nothing)
{
    engine e = start(add_model(), &plain);
    float data[6] = {0};
    sdx_tensor in[2] = {f32(2, (int64_t[]){2, 3}, data), f32(2, (int64_t[]){2, 3}, data)}, out;
    const char *names[2] = {"x", "y"};
    ck_assert_int_eq(sdx_session_run(e.session, 2, names, in, 1, &out, NULL), SDX_OK);
    sdx_alloc_fail_after(0);
    ck_assert_int_eq(sdx_session_run(e.session, 2, names, in, 1, &out, NULL), SDX_OK);
    ck_assert_int_eq(sdx_alloc_count(), 0);
    stop(e);
}
END_TEST

static sdx_status run_once(sdx_model *m)
{
    sdx_program *p = NULL;
    sdx_session *s = NULL;
    float data[6] = {0};
    sdx_tensor in[2] = {f32(2, (int64_t[]){2, 3}, data), f32(2, (int64_t[]){2, 3}, data)}, out;
    sdx_status status = sdx_program_create(m, NULL, &p, NULL);
    if (status == SDX_OK) status = sdx_session_create(p, &s, NULL);
    if (status == SDX_OK) status = sdx_session_run(s, 2, (const char *[]){"x", "y"}, in, 1, &out, NULL);
    sdx_session_free(s);
    sdx_program_free(p);
    return status;
}

START_TEST(every_failed_allocation_is_reported)
{
    for (long n = 1; n < 1000; n++) {
        sdx_model *m = add_model();
        sdx_alloc_fail_after(n);
        sdx_status status = run_once(m);
        sdx_alloc_fail_after(0);
        if (status == SDX_OK) return;
        ck_assert_int_eq(status, SDX_ERR_MEMORY);
    }
    ck_abort_msg("never succeeds");
}
END_TEST
#endif

Suite *engine_suite(void);
Suite *engine_suite(void)
{
    Suite *s = suite_create("engine");
    TCase *t = tcase_create("engine");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, runs_at_many_shapes, 0, 2);
    tcase_add_test(t, sessions_share_a_program);
    tcase_add_test(t, an_output_is_never_the_callers_input);
    tcase_add_test(t, shapes_may_depend_on_values);
    tcase_add_test(t, constants_may_lie_askew);
    tcase_add_test(t, shape_chains_cost_nothing);
    tcase_add_test(t, chains_work_in_place);
    tcase_add_loop_test(t, random_graphs_compute_what_they_say, 0, 200);
    tcase_add_test(t, inputs_are_checked);
    tcase_add_test(t, sizes_taken_as_one_may_differ);
    tcase_add_test(t, options_are_checked);
    tcase_add_test(t, a_profile_names_operators);
    tcase_add_test(t, files_are_optimized);
    tcase_add_test(t, a_wrong_rewrite_is_found);
    tcase_add_test(t, an_original_that_fails_is_told);
    tcase_add_test(t, every_operator_is_complete);
#ifdef SDX_ALLOC_FAILURE
    tcase_add_test(t, a_warm_run_allocates_nothing);
    tcase_add_test(t, every_failed_allocation_is_reported);
#endif
    suite_add_tcase(s, t);
    return s;
}
