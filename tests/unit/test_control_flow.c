/* test_control_flow.c: graphs inside nodes, functions, sequences, inputs with defaults; and graphs made to hurt. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "../../base/memory.h"
#include "../../base/sequence.h"
#include "../../engine/engine.h"
#include "../../engine/ops/ops.h"

/* ---- building -------------------------------------------------------------------------------------------- */

enum { OPSET = 17 };

static sdx_model *new_model(void)
{
    sdx_model *m;
    ck_assert_int_eq(sdx_model_create(&m, NULL), SDX_OK);
    m->path = "test.onnx";
    ck_assert_int_eq(sdx_model_set_opset(m, "", OPSET, NULL), SDX_OK);
    return m;
}

static sdx_graph *new_graph(sdx_model *m, sdx_graph *parent)
{
    sdx_graph *g;
    ck_assert_int_eq(sdx_graph_create(m, parent, &g, NULL), SDX_OK);
    return g;
}

static sdx_id input(sdx_graph *g, const char *name, sdx_dtype dtype, int rank, const sdx_dim *dim)
{
    sdx_id id;
    sdx_shape shape = sdx_shape_make(rank, dim);
    ck_assert_int_eq(sdx_graph_add_input(g, name, dtype, &shape, &id, NULL), SDX_OK);
    return id;
}

static sdx_id scalar_input(sdx_graph *g, const char *name, sdx_dtype dtype) { return input(g, name, dtype, 0, NULL); }

/* A value of the graph around. */
static sdx_id capture(sdx_graph *g, const char *name, sdx_id outer)
{
    sdx_id id;
    ck_assert_int_eq(sdx_graph_add_value(g, name, &id, NULL), SDX_OK);
    g->value[id].outer = outer;
    return id;
}

static sdx_id emit(sdx_graph *g, const char *op, int n, const sdx_id *in)
{
    sdx_id id;
    ck_assert_int_eq(sdx_graph_emit(g, "", op, NULL, n, in, &id, NULL), SDX_OK);
    return id;
}

static sdx_id unary(sdx_graph *g, const char *op, sdx_id a) { return emit(g, op, 1, &a); }
static sdx_id binary(sdx_graph *g, const char *op, sdx_id a, sdx_id b) { return emit(g, op, 2, (sdx_id[]){a, b}); }

static sdx_id number(sdx_graph *g, float f)
{
    sdx_id id;
    ck_assert_int_eq(sdx_graph_add_scalar_f32(g, NULL, f, &id, NULL), SDX_OK);
    return id;
}

static void output(sdx_graph *g, sdx_id id) { ck_assert_int_eq(sdx_graph_add_output(g, id, NULL), SDX_OK); }

static sdx_id node(sdx_graph *g, const char *op, int n_in, const sdx_id *in, int n_out, sdx_id *out)
{
    sdx_id id;
    for (int i = 0; i < n_out; i++) ck_assert_int_eq(sdx_graph_add_value(g, NULL, &out[i], NULL), SDX_OK);
    ck_assert_int_eq(sdx_graph_add_node(g, "", op, op, n_in, in, n_out, out, &id, NULL), SDX_OK);
    return id;
}

static void carry(sdx_graph *g, sdx_id id, const char *name, sdx_graph *body)
{
    ck_assert_int_eq(sdx_node_set_int(g, id, name, 0, NULL), SDX_OK);
    sdx_attr *a = (sdx_attr *)sdx_node_attr(&g->node[id], name);
    a->type = SDX_ATTR_GRAPH;
    a->graph = body;
    ck_assert_int_eq(sdx_graph_sort(body, NULL), SDX_OK);
}

/* ---- running --------------------------------------------------------------------------------------------- */

typedef struct engine {
    sdx_program *program;
    sdx_session *session;
    sdx_error err;
} engine;

static bool open_engine(engine *e, sdx_model *m, uint64_t max_steps)
{
    sdx_run_options o = {.threads = 1, .max_steps = max_steps};
    *e = (engine){0};
    return sdx_graph_sort(m->graph, &e->err) == SDX_OK && sdx_program_create(m, &o, &e->program, &e->err) == SDX_OK &&
           sdx_session_create(e->program, &e->session, &e->err) == SDX_OK;
}

static engine start(sdx_model *m)
{
    engine e;
    ck_assert_msg(open_engine(&e, m, 0), "%s", e.err.message);
    return e;
}

static void stop(engine *e)
{
    sdx_session_free(e->session);
    sdx_program_free(e->program);
}

static sdx_tensor one(sdx_dtype dtype, const void *data) { return (sdx_tensor){.dtype = dtype, .data = (void *)data}; }

static sdx_status run(engine *e, size_t n, const char *const *names, const sdx_tensor *in, size_t n_out,
                      sdx_tensor *out)
{
    return sdx_session_run(e->session, n, names, in, n_out, out, &e->err);
}

static float first(const sdx_tensor *t) { return ((const float *)t->data)[0]; }

/* The model is refused, or fails when it runs, with a sentence that has `words`. */
static void expect_failure(sdx_model *m, uint64_t max_steps, size_t n, const char *const *names, const sdx_tensor *in,
                           const char *words)
{
    engine e;
    sdx_tensor out;
    bool opened = open_engine(&e, m, max_steps);
    ck_assert(!opened || run(&e, n, names, in, 1, &out) != SDX_OK);
    ck_assert_msg(strstr(e.err.message, words), "\"%s\" does not say \"%s\"", e.err.message, words);
    stop(&e);
}

/* ---- If -------------------------------------------------------------------------------------------------- */

START_TEST(if_takes_one_branch)
{
    sdx_model *m = new_model();
    sdx_graph *g = m->graph, *yes = new_graph(m, g), *no = new_graph(m, g);
    sdx_id c = scalar_input(g, "c", SDX_BOOL), x = scalar_input(g, "x", SDX_F32), y;
    sdx_id twice = binary(g, "Add", x, x);
    output(yes, binary(yes, "Add", capture(yes, "twice", twice), number(yes, 1)));
    output(no, capture(no, "x", x)); /* a captured value itself */
    sdx_id n = node(g, "If", 1, &c, 1, &y);
    carry(g, n, "then_branch", yes);
    carry(g, n, "else_branch", no);
    output(g, y);
    engine e = start(m);
    ck_assert_int_eq(e.program->model->graph->value[y].type.dtype, SDX_F32);
    for (int round = 0; round < 4; round++) {
        uint8_t condition = round & 1;
        float value = 3.5f + (float)round;
        sdx_tensor in[2] = {one(SDX_BOOL, &condition), one(SDX_F32, &value)}, out;
        ck_assert_int_eq(run(&e, 2, (const char *[]){"c", "x"}, in, 1, &out), SDX_OK);
        ck_assert_float_eq(first(&out), condition ? 2 * value + 1 : value);
        ck_assert_ptr_ne(out.data, &value);
    }
    stop(&e);
}
END_TEST

/* With the condition fixed, the branch's nodes stand in its place: one that writes, one that passes on what it
 * captures, one that gives a constant, one If inside. */
START_TEST(a_known_branch_moves_out)
{
    for (uint8_t condition = 0; condition < 2; condition++) {
        sdx_model *m = new_model();
        sdx_graph *g = m->graph, *yes = new_graph(m, g), *no = new_graph(m, g), *a = new_graph(m, yes),
                  *b = new_graph(m, yes);
        sdx_id c = scalar_input(g, "c", SDX_BOOL), x = scalar_input(g, "x", SDX_F32),
               d = scalar_input(g, "d", SDX_BOOL), y[2], z;
        sdx_id inner = capture(yes, "d", d), own = unary(yes, "Neg", capture(yes, "x", x));
        output(a, unary(a, "Abs", capture(a, "own", own)));
        output(b, capture(b, "own", own));
        sdx_id n = node(yes, "If", 1, &inner, 1, &z);
        carry(yes, n, "then_branch", a);
        carry(yes, n, "else_branch", b);
        output(yes, z);
        output(yes, own);
        output(no, capture(no, "x", x));
        output(no, number(no, 7));
        n = node(g, "If", 1, &c, 2, y);
        carry(g, n, "then_branch", yes);
        carry(g, n, "else_branch", no);
        output(g, y[0]);
        output(g, y[1]);
        sdx_tensor value = one(SDX_BOOL, &condition), out[2];
        ck_assert_int_eq(sdx_model_fix_input(m, "c", &value, NULL), SDX_OK);
        ck_assert_int_eq(sdx_model_fix_input(m, "c", &value, NULL), SDX_ERR_USAGE);
        engine e = start(m);
        int ifs = 0;
        for (sdx_id i = 0; i < m->graph->n_node; i++)
            ifs += !m->graph->node[i].dead && !strcmp(m->graph->node[i].op_type, "If");
        ck_assert_int_eq(ifs, condition); /* the inner one stays */
        uint8_t yes_or_no = 1;
        float number = 3;
        sdx_tensor in[2] = {one(SDX_F32, &number), one(SDX_BOOL, &yes_or_no)};
        ck_assert_int_eq(run(&e, 2, (const char *[]){"x", "d"}, in, 2, out), SDX_OK);
        ck_assert_float_eq(first(&out[0]), 3);
        ck_assert_float_eq(first(&out[1]), condition ? -3 : 7);
        stop(&e);
    }
}
END_TEST

/* A weight that both branches multiply by is packed once, unless the products differ. */
START_TEST(branches_share_packed_weights)
{
    enum { N = 160 };
    static float weight[N * N], row[N];
    for (int i = 0; i < N * N; i++) weight[i] = (float)(i % 7 - 3);
    for (int i = 0; i < N; i++) row[i] = (float)(i % 5);
    sdx_tensor constant = {SDX_F32, 2, {N, N}, weight};
    for (int same = 0; same < 2; same++) {
        sdx_model *m = new_model();
        sdx_graph *g = m->graph, *branch[2] = {new_graph(m, g), new_graph(m, g)};
        sdx_id c = scalar_input(g, "c", SDX_BOOL), x = input(g, "x", SDX_F32, 2, (sdx_dim[]){1, N}), w, y;
        ck_assert_int_eq(sdx_graph_add_constant(g, "w", &constant, &w, NULL), SDX_OK);
        sdx_id n = node(g, "If", 1, &c, 1, &y);
        for (int i = 0; i < 2; i++) {
            sdx_graph *b = branch[i];
            sdx_id own = capture(b, "x", x), shared = capture(b, "w", w);
            b->value[shared].type = g->value[w].type;
            output(b, binary(b, "Gemm", own, shared));
            ck_assert_int_eq(sdx_node_set_int(b, 0, "transB", i && !same, NULL), SDX_OK);
            carry(g, n, i ? "else_branch" : "then_branch", b);
        }
        output(g, y);
        engine e = start(m);
        const sdx_body *body = e.program->body;
        ck_assert_int_eq(body[branch[0]->index].state[0] == body[branch[1]->index].state[0], same);
        float got[2];
        for (uint8_t condition = 0; condition < 2; condition++) {
            sdx_tensor in[2] = {one(SDX_BOOL, &condition), {SDX_F32, 2, {1, N}, row}}, out;
            ck_assert_msg(run(&e, 2, (const char *[]){"c", "x"}, in, 1, &out) == SDX_OK, "%s", e.err.message);
            got[condition] = ((const float *)out.data)[1];
        }
        ck_assert_int_eq(got[0] == got[1], same);
        stop(&e);
    }
}
END_TEST

/* ---- Loop ------------------------------------------------------------------------------------------------ */

/* state' = state * x, list of states; goes on as long as state' < limit. */
static sdx_model *power_model(sdx_id *trips)
{
    sdx_model *m = new_model();
    sdx_graph *g = m->graph, *b = new_graph(m, g);
    sdx_id n = scalar_input(g, "n", SDX_I64), x = scalar_input(g, "x", SDX_F32),
           limit = scalar_input(g, "limit", SDX_F32);
    sdx_id out[2], in[3] = {n, SDX_NONE, number(g, 1)};
    scalar_input(b, "i", SDX_I64), scalar_input(b, "go", SDX_BOOL);
    sdx_id s = scalar_input(b, "s", SDX_F32), next = binary(b, "Mul", s, capture(b, "x", x));
    output(b, binary(b, "Less", next, capture(b, "limit", limit)));
    output(b, next);
    output(b, next);
    carry(g, node(g, "Loop", 3, in, 2, out), "body", b);
    output(g, out[0]);
    output(g, out[1]);
    *trips = n;
    return m;
}

static const char *const power_names[] = {"n", "x", "limit"};

START_TEST(loops_carry_states_and_collect)
{
    sdx_id trips;
    engine e = start(power_model(&trips));
    static const struct {
        int64_t n;
        float limit, last;
        int64_t turns;
    } cases[] = {{5, 1e9f, 32, 5}, {5, 8, 8, 3}, {0, 1e9f, 1, 0}, {-3, 1e9f, 1, 0}, {INT64_MAX, 1000, 1024, 10}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        float x = 2, limit = cases[i].limit;
        sdx_tensor in[3] = {one(SDX_I64, &cases[i].n), one(SDX_F32, &x), one(SDX_F32, &limit)}, out[2];
        ck_assert_int_eq(run(&e, 3, power_names, in, 2, out), SDX_OK);
        ck_assert_float_eq(first(&out[0]), cases[i].last);
        ck_assert_int_eq(out[1].rank, 1);
        ck_assert_int_eq(out[1].dim[0], cases[i].turns);
        for (int64_t k = 0; k < cases[i].turns; k++) ck_assert_float_eq(((float *)out[1].data)[k], (float)(2ll << k));
    }
    stop(&e);
}
END_TEST

START_TEST(endless_loops_end_at_the_limit_of_steps)
{
    sdx_id trips;
    int64_t n = INT64_MAX;
    float x = 1, limit = 2;
    sdx_tensor in[3] = {one(SDX_I64, &n), one(SDX_F32, &x), one(SDX_F32, &limit)};
    expect_failure(power_model(&trips), 10000, 3, power_names, in, "10000 steps");
}
END_TEST

START_TEST(loops_stand_in_loops)
{
    sdx_model *m = new_model();
    sdx_graph *g = m->graph, *outer = new_graph(m, g), *inner = new_graph(m, outer);
    sdx_id n = scalar_input(g, "n", SDX_I64), x = scalar_input(g, "x", SDX_F32), y, z;
    scalar_input(outer, "i", SDX_I64);
    sdx_id go = scalar_input(outer, "go", SDX_BOOL), s = scalar_input(outer, "s", SDX_F32);
    sdx_id n_outer = capture(outer, "n", n), x_outer = capture(outer, "x", x);
    scalar_input(inner, "i", SDX_I64);
    sdx_id go_inner = scalar_input(inner, "go", SDX_BOOL), t = scalar_input(inner, "t", SDX_F32);
    output(inner, go_inner);
    output(inner, binary(inner, "Add", t, capture(inner, "x", x_outer)));
    carry(outer, node(outer, "Loop", 3, (sdx_id[]){n_outer, SDX_NONE, s}, 1, &z), "body", inner);
    output(outer, go);
    output(outer, z);
    carry(g, node(g, "Loop", 3, (sdx_id[]){n, SDX_NONE, number(g, 0)}, 1, &y), "body", outer);
    output(g, y);
    engine e = start(m);
    for (int64_t k = 0; k < 5; k++) {
        float value = 0.5f;
        sdx_tensor in[2] = {one(SDX_I64, &k), one(SDX_F32, &value)}, out;
        ck_assert_int_eq(run(&e, 2, (const char *[]){"n", "x"}, in, 1, &out), SDX_OK);
        ck_assert_float_eq(first(&out), 0.5f * (float)(k * k));
    }
    stop(&e);
}
END_TEST

/* A state may grow: inference must not take its first size for its size. */
START_TEST(states_may_grow)
{
    sdx_model *m = new_model();
    sdx_graph *g = m->graph, *b = new_graph(m, g);
    sdx_id n = scalar_input(g, "n", SDX_I64), x = input(g, "x", SDX_F32, 1, (sdx_dim[]){1}), y;
    scalar_input(b, "i", SDX_I64);
    sdx_id go = scalar_input(b, "go", SDX_BOOL), s = input(b, "s", SDX_F32, 1, (sdx_dim[]){1});
    sdx_id joined = binary(b, "Concat", s, s);
    ck_assert_int_eq(sdx_node_set_int(b, b->value[joined].producer, "axis", 0, NULL), SDX_OK);
    output(b, go);
    output(b, joined);
    carry(g, node(g, "Loop", 3, (sdx_id[]){n, SDX_NONE, x}, 1, &y), "body", b);
    output(g, unary(g, "Shape", y));
    engine e = start(m);
    int64_t turns = 6;
    float value = 1;
    sdx_tensor in[2] = {one(SDX_I64, &turns), {SDX_F32, 1, {1}, &value}}, out;
    ck_assert_msg(run(&e, 2, (const char *[]){"n", "x"}, in, 1, &out) == SDX_OK, "%s", e.err.message);
    ck_assert_int_eq(*(int64_t *)out.data, 64);
    stop(&e);
}
END_TEST

START_TEST(a_state_keeps_its_type)
{
    sdx_model *m = new_model();
    sdx_graph *g = m->graph, *b = new_graph(m, g);
    sdx_id n = scalar_input(g, "n", SDX_I64), x = scalar_input(g, "x", SDX_F32), y;
    sdx_id i = scalar_input(b, "i", SDX_I64), go = scalar_input(b, "go", SDX_BOOL);
    scalar_input(b, "s", SDX_F32);
    output(b, go);
    output(b, i);
    carry(g, node(g, "Loop", 3, (sdx_id[]){n, SDX_NONE, x}, 1, &y), "body", b);
    output(g, y);
    int64_t turns = 1;
    float value = 1;
    sdx_tensor in[2] = {one(SDX_I64, &turns), one(SDX_F32, &value)};
    expect_failure(m, 0, 2, (const char *[]){"n", "x"}, in, "state 0 comes back");
}
END_TEST

START_TEST(subgraphs_must_fit)
{
    for (int k = 0; k < 2; k++) {
        sdx_model *m = new_model();
        sdx_graph *g = m->graph, *b = new_graph(m, g);
        sdx_id n = scalar_input(g, "n", SDX_I64), y;
        output(b, scalar_input(b, "only", SDX_BOOL));
        sdx_id id = node(g, "Loop", 2, (sdx_id[]){n, SDX_NONE}, 1, &y);
        if (k) carry(g, id, "body", b);
        output(g, y);
        expect_failure(m, 0, 0, NULL, NULL, k ? "has 1 inputs" : "lacks the subgraph \"body\"");
    }
}
END_TEST

/* ---- functions ------------------------------------------------------------------------------------------- */

/* Leaky(x) = LeakyRelu<alpha = @slope>(x) with slope 0.5 unless the call says otherwise. */
static void add_leaky(sdx_model *m)
{
    sdx_function *f = m->function = sdx_arena_array(&m->arena, 1, sizeof *f);
    sdx_attr *preset = sdx_arena_array(&m->arena, 1, sizeof *preset);
    sdx_graph *g = new_graph(m, NULL);
    static const char *const x = "x", *const y = "y", *const slope = "slope";
    sdx_id out = unary(g, "LeakyRelu", scalar_input(g, "x", SDX_UNDEFINED));
    ck_assert_int_eq(sdx_node_set_float(g, 0, "alpha", 0, NULL), SDX_OK);
    g->node[0].attr[0].reference = "slope";
    output(g, out);
    *preset = (sdx_attr){.name = "slope", .type = SDX_ATTR_FLOAT, .f = 0.5f};
    *f = (sdx_function){"local", "Leaky", &x, &y, &slope, 1, 1, 1, preset, 1, m->opset, m->n_opset, g};
    m->n_function = 1;
}

START_TEST(functions_become_their_nodes)
{
    sdx_model *m = new_model();
    sdx_graph *g = m->graph;
    add_leaky(m);
    sdx_id x = scalar_input(g, "x", SDX_F32), y, z;
    ck_assert_int_eq(sdx_graph_emit(g, "local", "Leaky", "y", 1, &x, &y, NULL), SDX_OK);
    ck_assert_int_eq(sdx_graph_emit(g, "local", "Leaky", "z", 1, &y, &z, NULL), SDX_OK);
    ck_assert_int_eq(sdx_node_set_float(g, 1, "slope", 0.25f, NULL), SDX_OK);
    output(g, z);
    engine e = start(m);
    float value = -8;
    sdx_tensor in = one(SDX_F32, &value), out;
    ck_assert_int_eq(run(&e, 1, (const char *[]){"x"}, &in, 1, &out), SDX_OK);
    ck_assert_float_eq(first(&out), -1);
    stop(&e);
}
END_TEST

/* A function of opset 11 in a model of a newer one: its node keeps its opset until the graph's is raised. */
START_TEST(functions_keep_their_opset)
{
    sdx_model *m = new_model();
    sdx_graph *g = m->graph;
    add_leaky(m);
    sdx_graph *body = m->function->body;
    const int64_t axes[1] = {0};
    body->node[0] = (sdx_node){.domain = "", .op_type = "Unsqueeze", .name = "", .in = body->node[0].in, .n_in = 1,
                               .out = body->node[0].out, .n_out = 1};
    ck_assert_int_eq(sdx_node_set_ints(body, 0, "axes", 1, axes, NULL), SDX_OK); /* an input from opset 13 on */
    m->function->opset = &(sdx_opset){"", 11};
    m->function->n_opset = 1;
    sdx_id x = scalar_input(g, "x", SDX_F32), y;
    ck_assert_int_eq(sdx_graph_emit(g, "local", "Leaky", "y", 1, &x, &y, NULL), SDX_OK);
    output(g, y);
    ck_assert_int_eq(sdx_model_inline_functions(m, NULL), SDX_OK);
    const sdx_node *n = sdx_graph_producer(g, y);
    ck_assert(sdx_node_is(n, "Unsqueeze") && n->version == 11 && n->n_in == 1);
    int64_t newest = sdx_model_newest_opset(m);
    ck_assert_int_ge(newest, 13);
    sdx_error err = {0};
    ck_assert_msg(sdx_model_resolve(m, &sdx_operators, &err) == SDX_OK && sdx_model_infer(m, &err) == SDX_OK &&
                  sdx_model_raise_opset(m, newest, &err) == SDX_OK, "%s", err.message);
    n = sdx_graph_producer(g, y);
    ck_assert(n->n_in == 2 && sdx_graph_constant(g, n->in[1]) && !sdx_node_attr(n, "axes"));
    engine e = start(m);
    float value = -8;
    sdx_tensor in = one(SDX_F32, &value), out;
    ck_assert_int_eq(run(&e, 1, (const char *[]){"x"}, &in, 1, &out), SDX_OK);
    ck_assert(out.rank == 1 && first(&out) == -8);
    stop(&e);
}
END_TEST

/* n functions, each calling the next one twice; the last calls `end`. */
static sdx_model *doubling_model(int n, const char *end)
{
    sdx_model *m = new_model();
    m->function = sdx_arena_array(&m->arena, (size_t)n, sizeof *m->function);
    m->n_function = n;
    static const char *const port = "x";
    for (int i = 0; i < n; i++) {
        sdx_graph *g = new_graph(m, NULL);
        const char *next = i + 1 < n ? sdx_arena_printf(&m->arena, "f%d", i + 1) : end;
        sdx_id v = scalar_input(g, "x", SDX_UNDEFINED);
        const char *domain = i + 1 < n || end[0] == 'f' ? "local" : "";
        for (int k = 0; k < 2; k++) ck_assert_int_eq(sdx_graph_emit(g, domain, next, NULL, 1, &v, &v, NULL), SDX_OK);
        output(g, v);
        m->function[i] = (sdx_function){.domain = "local", .name = sdx_arena_printf(&m->arena, "f%d", i), .body = g};
        m->function[i].input = m->function[i].output = &port;
        m->function[i].n_input = m->function[i].n_output = 1;
        m->function[i].opset = m->opset;
        m->function[i].n_opset = m->n_opset;
    }
    sdx_id x = scalar_input(m->graph, "x", SDX_F32), y;
    ck_assert_int_eq(sdx_graph_emit(m->graph, "local", "f0", NULL, 1, &x, &y, NULL), SDX_OK);
    output(m->graph, y);
    return m;
}

START_TEST(functions_end)
{
    engine e = start(doubling_model(6, "Neg"));
    float value = 3;
    sdx_tensor in = one(SDX_F32, &value), out;
    ck_assert_int_eq(run(&e, 1, (const char *[]){"x"}, &in, 1, &out), SDX_OK);
    ck_assert_float_eq(first(&out), 3);
    stop(&e);
    expect_failure(doubling_model(3, "f1"), 0, 0, NULL, NULL, "calls itself");
    expect_failure(doubling_model(40, "Neg"), 0, 0, NULL, NULL, "more than");
    expect_failure(doubling_model(100, "Neg"), 0, 0, NULL, NULL, "deep");
}
END_TEST

/* ---- sequences and optionals ----------------------------------------------------------------------------- */

START_TEST(sequences_are_given_and_taken)
{
    sdx_model *m = new_model();
    sdx_graph *g = m->graph;
    sdx_id s = scalar_input(g, "s", SDX_UNDEFINED), x = scalar_input(g, "x", SDX_F32);
    sdx_declared declared = {.sequence = true, .dtype = SDX_F32, .shape = SDX_SHAPE_UNKNOWN};
    g->value[s].type.shape = SDX_SHAPE_UNKNOWN;
    g->value[s].declared = &declared;
    output(g, binary(g, "SequenceInsert", s, x));
    output(g, unary(g, "SequenceLength", s));
    output(g, unary(g, "Identity", s));
    engine e = start(m);
    float a[3] = {1, 2, 3}, value = 9;
    sdx_tensor items[2] = {{SDX_F32, 1, {3}, a}, {SDX_F32, 0, {0}, a}};
    for (size_t n = 0; n <= 2; n++) {
        sdx_tensor_list list = {SDX_F32, n, items};
        sdx_tensor in[2] = {sdx_sequence_view(&list), one(SDX_F32, &value)}, out[3];
        ck_assert_msg(run(&e, 2, (const char *[]){"s", "x"}, in, 3, out) == SDX_OK, "%s", e.err.message);
        const sdx_tensor_list *longer = sdx_tensor_sequence(&out[0]), *same = sdx_tensor_sequence(&out[2]);
        ck_assert_uint_eq(longer->count, n + 1);
        ck_assert_float_eq(first(&longer->item[n]), 9);
        ck_assert_int_eq(*(int64_t *)out[1].data, (int64_t)n);
        ck_assert_uint_eq(same->count, n);
        ck_assert_ptr_ne(same, &list);
        if (n) ck_assert_mem_eq(same->item[0].data, a, sizeof a);
    }
    sdx_tensor in[2] = {one(SDX_F32, &value), one(SDX_F32, &value)}, out;
    ck_assert_int_eq(run(&e, 2, (const char *[]){"s", "x"}, in, 1, &out), SDX_ERR_USAGE);
    ck_assert(strstr(e.err.message, "a sequence"));
    stop(&e);
}
END_TEST

START_TEST(arithmetic_refuses_sequences)
{
    static const char *const ops[] = {"Neg", "Shape", "Cast", "NonZero", "Unsqueeze", "ReduceSum"};
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        sdx_model *m = new_model();
        sdx_graph *g = m->graph;
        sdx_id x = scalar_input(g, "x", SDX_F32), s = unary(g, "SequenceConstruct", x), axes;
        ck_assert_int_eq(sdx_graph_add_ints(g, NULL, 1, (int64_t[]){0}, &axes, NULL), SDX_OK);
        bool two = !strcmp(ops[i], "Unsqueeze");
        sdx_id y = two ? binary(g, ops[i], s, axes) : unary(g, ops[i], s);
        ck_assert_int_eq(sdx_node_set_int(g, g->value[y].producer, "to", SDX_I64, NULL), SDX_OK);
        output(g, y);
        float value = 1;
        sdx_tensor in = one(SDX_F32, &value);
        expect_failure(m, 0, 1, (const char *[]){"x"}, &in, "not a tensor");
    }
}
END_TEST

START_TEST(sequences_check_positions)
{
    static const int64_t bad[] = {1, -2, INT64_MAX, INT64_MIN};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        sdx_model *m = new_model();
        sdx_graph *g = m->graph;
        sdx_id x = scalar_input(g, "x", SDX_F32), at = scalar_input(g, "at", SDX_I64);
        output(g, binary(g, "SequenceAt", unary(g, "SequenceConstruct", x), at));
        float value = 1;
        sdx_tensor in[2] = {one(SDX_F32, &value), one(SDX_I64, &bad[i])};
        expect_failure(m, 0, 2, (const char *[]){"x", "at"}, in, "outside a sequence");
    }
}
END_TEST

/* ---- defaults, sizes ------------------------------------------------------------------------------------- */

START_TEST(defaults_may_be_replaced)
{
    sdx_model *m = new_model();
    sdx_graph *g = m->graph;
    sdx_id x = scalar_input(g, "x", SDX_F32), w = scalar_input(g, "w", SDX_F32);
    float preset = 10, value = 2, other = 5;
    sdx_tensor stored = one(SDX_F32, &preset);
    g->value[w].preset = &stored;
    output(g, binary(g, "Mul", x, unary(g, "Neg", w)));
    output(g, w);
    engine e = start(m);
    for (int round = 0; round < 4; round++) {
        sdx_tensor in[2] = {one(SDX_F32, &value), one(SDX_F32, &other)}, out[2];
        size_t given = 1 + (size_t)(round & 1);
        ck_assert_int_eq(run(&e, given, (const char *[]){"x", "w"}, in, 2, out), SDX_OK);
        ck_assert_float_eq(first(&out[0]), round & 1 ? -10 : -20);
        ck_assert_float_eq(first(&out[1]), round & 1 ? 5 : 10);
    }
    stop(&e);
}
END_TEST

/* Two inputs with a common size by name, one of which only the branch reads that does not run. */
START_TEST(unread_inputs_may_contradict)
{
    sdx_model *m = new_model();
    sdx_graph *g = m->graph, *yes = new_graph(m, g), *no = new_graph(m, g);
    sdx_dim n = SDX_DIM_SYMBOL(sdx_model_symbol(m, "n"));
    sdx_id c = scalar_input(g, "c", SDX_BOOL), x = input(g, "x", SDX_F32, 1, &n),
           past = input(g, "past", SDX_F32, 1, &n), y;
    sdx_id copy = unary(g, "Neg", x);
    output(yes, binary(yes, "Add", capture(yes, "copy", copy), capture(yes, "past", past)));
    output(no, capture(no, "copy", copy));
    sdx_id id = node(g, "If", 1, &c, 1, &y);
    carry(g, id, "then_branch", yes);
    carry(g, id, "else_branch", no);
    output(g, y);
    engine e = start(m);
    float a[2] = {1, 2}, b = 1;
    for (uint8_t condition = 0; condition < 2; condition++) {
        sdx_tensor in[3] = {one(SDX_BOOL, &condition), {SDX_F32, 1, {2}, a}, {SDX_F32, 1, {1}, &b}}, out;
        sdx_status status = run(&e, 3, (const char *[]){"c", "x", "past"}, in, 1, &out);
        ck_assert_int_eq(status, condition ? SDX_ERR_USAGE : SDX_OK);
    }
    ck_assert(strstr(e.err.message, "dimension 0 (\"n\") is 1"));
    stop(&e);
}
END_TEST

Suite *control_flow_suite(void)
{
    Suite *s = suite_create("control_flow");
    const TTest *const tests[] = {if_takes_one_branch, a_known_branch_moves_out, branches_share_packed_weights,
                                         loops_carry_states_and_collect,
                                         endless_loops_end_at_the_limit_of_steps, loops_stand_in_loops,
                                         states_may_grow, a_state_keeps_its_type, subgraphs_must_fit,
                                         functions_become_their_nodes, functions_keep_their_opset, functions_end,
                                         sequences_are_given_and_taken,
                                         arithmetic_refuses_sequences, sequences_check_positions,
                                         defaults_may_be_replaced, unread_inputs_may_contradict};
    TCase *c = tcase_create("all");
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) tcase_add_test(c, tests[i]);
    suite_add_tcase(s, c);
    return s;
}
