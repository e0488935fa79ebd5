/* graph_tests.h: what the tests of passes share: a graph built by hand, the passes run over it, and the list of its
 * operators afterwards. */
#ifndef SDX_TESTS_GRAPH_TESTS_H
#define SDX_TESTS_GRAPH_TESTS_H

#include <check.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "../../engine/engine.h"
#include "../../engine/ops/ops.h"
#include "../../graph/passes/passes.h"

#define GRAPH_TEST static __attribute__((unused))

GRAPH_TEST sdx_model *model;
GRAPH_TEST sdx_graph *g;
GRAPH_TEST sdx_error err;

GRAPH_TEST void ok(sdx_status status)
{
    ck_assert_msg(status == SDX_OK, "%s", err.message);
}

GRAPH_TEST void setup(void)
{
    err = (sdx_error){0};
    ok(sdx_model_create(&model, &err));
    ok(sdx_model_set_opset(model, "", 14, &err));
    g = model->graph;
}

GRAPH_TEST void teardown(void)
{
    sdx_model_close(model);
}

/* ---- building ------------------------------------------------------------------------------------------- */

GRAPH_TEST sdx_dim symbol(const char *name)
{
    return SDX_DIM_SYMBOL(sdx_model_symbol(model, name));
}

GRAPH_TEST sdx_id input(const char *name, sdx_dtype dtype, int rank, sdx_dim a, sdx_dim b, sdx_dim c)
{
    sdx_dim dim[3] = {a, b, c};
    sdx_shape shape = sdx_shape_make(rank, dim);
    sdx_id id;
    ok(sdx_graph_add_input(g, name, dtype, &shape, &id, &err));
    return id;
}

/* float32[batch, tokens, width] */
GRAPH_TEST sdx_id hidden(const char *name, int64_t width)
{
    return input(name, SDX_F32, 3, symbol("batch"), symbol("tokens"), width);
}

GRAPH_TEST sdx_id tensor(sdx_dtype dtype, int rank, int64_t a, int64_t b, double first, double step)
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

GRAPH_TEST sdx_id scalar(double x)
{
    return tensor(SDX_F32, 0, 0, 0, x, 0);
}
GRAPH_TEST sdx_id vector(int64_t n)
{
    return tensor(SDX_F32, 1, n, 0, 0.1, 0.01);
}
GRAPH_TEST sdx_id matrix(int64_t rows, int64_t columns)
{
    return tensor(SDX_F32, 2, rows, columns, 0.1, 0.01);
}

GRAPH_TEST sdx_id ints(int count, ...)
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

GRAPH_TEST sdx_id op(const char *op_type, int n_in, sdx_id a, sdx_id b, sdx_id c)
{
    sdx_id in[3] = {a, b, c}, out;
    ok(sdx_graph_emit(g, "", op_type, NULL, n_in, in, &out, &err));
    return out;
}

GRAPH_TEST sdx_id op1(const char *op_type, sdx_id a)
{
    return op(op_type, 1, a, SDX_NONE, SDX_NONE);
}
GRAPH_TEST sdx_id op2(const char *op_type, sdx_id a, sdx_id b)
{
    return op(op_type, 2, a, b, SDX_NONE);
}

GRAPH_TEST sdx_id with_int(sdx_id v, const char *name, int64_t i)
{
    ok(sdx_node_set_int(g, g->value[v].producer, name, i, &err));
    return v;
}

GRAPH_TEST sdx_id with_ints(sdx_id v, const char *name, int count, const int64_t *list)
{
    ok(sdx_node_set_ints(g, g->value[v].producer, name, (size_t)count, list, &err));
    return v;
}

GRAPH_TEST sdx_id cast(sdx_id v, sdx_dtype to)
{
    return with_int(op1("Cast", v), "to", to);
}
GRAPH_TEST void output(sdx_id v)
{
    ok(sdx_graph_add_output(g, v, &err));
}

GRAPH_TEST sdx_id ids(const char *name)
{
    return input(name, SDX_I64, 2, symbol("batch"), symbol("tokens"), 0);
}

/* Reshape(y, Concat(Shape(y)[0], Shape(y)[1], 4, 2)) */
GRAPH_TEST sdx_id split_heads(sdx_id y, int heads, int size)
{
    sdx_id b = op2("Gather", op1("Shape", y), ints(1, 0)), t = op2("Gather", op1("Shape", y), ints(1, 1));
    sdx_id in[4] = {b, t, ints(1, heads), ints(1, size)}, shape;
    ok(sdx_graph_emit(g, "", "Concat", NULL, 4, in, &shape, &err));
    with_int(shape, "axis", 0);
    return op2("Reshape", y, shape);
}

/* ---- heads ---------------------------------------------------------------------------------------------- */

enum { HEADS = 4, SIZE = 2, WIDTH = HEADS * SIZE };

GRAPH_TEST sdx_id project(sdx_id x)
{
    return split_heads(op2("Add", vector(WIDTH), op2("MatMul", x, matrix(WIDTH, WIDTH))), HEADS, SIZE);
}

GRAPH_TEST sdx_id swap(sdx_id v, int64_t b, int64_t c, int64_t d)
{
    int64_t perm[4] = {0, b, c, d};
    return with_ints(op1("Transpose", v), "perm", 4, perm);
}

GRAPH_TEST sdx_id unsqueeze(sdx_id v)
{
    return op2("Unsqueeze", op2("Unsqueeze", v, ints(1, 1)), ints(1, 2));
}

/* ---- looking -------------------------------------------------------------------------------------------- */

GRAPH_TEST void run_as(bool for_run, bool standard, const char *only)
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

GRAPH_TEST void run_for(bool for_run, const char *only)
{
    run_as(for_run, false, only);
}

GRAPH_TEST void run(const char *only)
{
    run_for(false, only);
}

/* The graph's operators in order, and its outputs' names still there. */
GRAPH_TEST void expect(const char *operators)
{
    char own[1024] = "";
    for (sdx_id i = 0; i < g->n_node; i++) {
        if (*own) strcat(own, " ");
        strcat(own, g->node[i].op_type);
    }
    ck_assert_str_eq(own, operators);
}

GRAPH_TEST const sdx_node *find(const char *op_type)
{
    for (sdx_id i = 0; i < g->n_node; i++)
        if (strcmp(g->node[i].op_type, op_type) == 0) return &g->node[i];
    ck_abort_msg("no %s", op_type);
    return NULL;
}

#endif
