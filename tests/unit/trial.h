/* trial.h: one node through the whole engine, as a test wants it: inputs and attributes in, outputs or the
 * error out. */
#ifndef SDX_TEST_TRIAL_H
#define SDX_TEST_TRIAL_H

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../../base/memory.h"
#include "../../engine/engine.h"
#include "../../engine/ops/ops.h"

#define TRIAL static __attribute__((unused))
#ifndef TRIAL_OPSET
#define TRIAL_OPSET 17
#endif

enum { MAX_IN = 18, MAX_OUT = 4 };

typedef struct attribute {
    const char *name;
    enum { END, INT, FLOAT, INTS, TEXT } kind;
    int64_t whole;
    double real;
    const char *text;
    size_t count; /* of a list */
    int64_t list[8];
} attribute;
#define WHOLE(key, n)     {.name = key, .kind = INT, .whole = n}
#define REAL(key, x)      {.name = key, .kind = FLOAT, .real = x}
#define STRING(key, s)    {.name = key, .kind = TEXT, .text = s}
#define LIST(key, n, ...) {.name = key, .kind = INTS, .count = n, .list = {__VA_ARGS__}}

typedef struct trial {
    const char *domain, *op; /* domain NULL: ai.onnx */
    int n_in, n_out;         /* n_out 0: 1 */
    sdx_tensor in[MAX_IN]; /* dtype SDX_UNDEFINED: absent */
    unsigned constant;     /* bit i: input i is an initializer */
    unsigned unwanted;     /* bit i: output i is not named */
    attribute attr[8];
    int opset; /* of ai.onnx; 0: TRIAL_OPSET */
    int threads;
    sdx_tensor out[MAX_OUT]; /* owned by the trial */
} trial;

TRIAL void set_attributes(sdx_model *m, sdx_id node, const attribute *a)
{
    for (; a->kind != END; a++) {
        sdx_status status =
            a->kind == INT     ? sdx_node_set_int(m->graph, node, a->name, a->whole, NULL)
            : a->kind == FLOAT ? sdx_node_set_float(m->graph, node, a->name, (float)a->real, NULL)
            : a->kind == INTS  ? sdx_node_set_ints(m->graph, node, a->name, a->count, a->list, NULL)
                               : sdx_node_set_string(m->graph, node, a->name, a->text, NULL);
        ck_assert_int_eq(status, SDX_OK);
    }
}

TRIAL sdx_model *make_model(const trial *t, sdx_id *in)
{
    sdx_model *m;
    sdx_id out[MAX_OUT], node;
    ck_assert_int_eq(sdx_model_create(&m, NULL), SDX_OK);
    m->path = "test.onnx";
    ck_assert_int_eq(sdx_model_set_opset(m, "", t->opset ? t->opset : TRIAL_OPSET, NULL), SDX_OK);
    ck_assert_int_eq(sdx_model_set_opset(m, "com.microsoft", 1, NULL), SDX_OK);
    for (int i = 0; i < t->n_in; i++) {
        char name[8] = {'i', (char)('a' + i), 0};
        sdx_shape shape = sdx_tensor_shape(&t->in[i]);
        in[i] = SDX_NONE;
        if (t->in[i].dtype == SDX_UNDEFINED) continue;
        if (t->constant & 1u << i)
            sdx_graph_add_constant(m->graph, name, &t->in[i], &in[i], NULL);
        else
            sdx_graph_add_input(m->graph, name, t->in[i].dtype, &shape, &in[i], NULL);
    }
    for (int i = 0; i < t->n_out; i++) {
        out[i] = SDX_NONE;
        if (!(t->unwanted & 1u << i))
            ck_assert_int_eq(sdx_graph_add_value(m->graph, NULL, &out[i], NULL), SDX_OK);
    }
    ck_assert_int_eq(
        sdx_graph_add_node(m->graph, t->domain ? t->domain : "", t->op, "node", t->n_in, in, t->n_out, out, &node, NULL),
        SDX_OK);
    set_attributes(m, node, t->attr);
    for (int i = 0; i < t->n_out; i++)
        if (out[i] != SDX_NONE) sdx_graph_add_output(m->graph, out[i], NULL);
    return m;
}

TRIAL sdx_status run_session(trial *t, sdx_program *program, sdx_error *err)
{
    const char *names[MAX_IN];
    static const char *const all[MAX_IN] = {"ia", "ib", "ic", "id", "ie", "if", "ig", "ih", "ii",
                                            "ij", "ik", "il", "im", "in", "io", "ip", "iq", "ir"};
    sdx_tensor given[MAX_IN], got[MAX_OUT];
    size_t n = 0, n_got = 0;
    for (int i = 0; i < t->n_in; i++) {
        if (t->in[i].dtype == SDX_UNDEFINED || t->constant & 1u << i) continue;
        names[n] = all[i];
        given[n++] = t->in[i];
    }
    for (int i = 0; i < t->n_out; i++) n_got += !(t->unwanted & 1u << i);
    sdx_session *session;
    TRY(sdx_session_create(program, &session, err));
    sdx_status status = sdx_session_run(session, n, names, given, n_got, got, err);
    for (int i = 0, g = 0; i < t->n_out && status == SDX_OK; i++) {
        if (t->unwanted & 1u << i) continue;
        t->out[i] = got[g++];
        size_t bytes = sdx_tensor_bytes(&t->out[i]);
        void *copy = malloc(bytes + 1);
        if (bytes) memcpy(copy, t->out[i].data, bytes);
        t->out[i].data = copy;
    }
    sdx_session_free(session);
    return status;
}

TRIAL sdx_status try_run(trial *t, sdx_error *err)
{
    sdx_id in[MAX_IN];
    sdx_program *program;
    sdx_run_options options = {.threads = t->threads ? t->threads : 1, .no_optimize = true};
    *err = (sdx_error){0};
    if (!t->n_out) t->n_out = 1;
    TRY(sdx_program_create(make_model(t, in), &options, &program, err));
    sdx_status status = run_session(t, program, err);
    sdx_program_free(program);
    return status;
}

TRIAL void run(trial *t)
{
    sdx_error err;
    ck_assert_msg(try_run(t, &err) == SDX_OK, "%s", err.message);
}

TRIAL void refuse(trial t, const char *sentence)
{
    sdx_error err;
    ck_assert_msg(try_run(&t, &err) != SDX_OK, "%s was not refused", t.op);
    ck_assert_msg(strstr(err.message, sentence), "%s", err.message);
}

TRIAL void done(trial *t)
{
    for (int i = 0; i < t->n_out; i++) free(t->out[i].data);
    memset(t->out, 0, sizeof t->out);
}

TRIAL sdx_tensor view(sdx_dtype dtype, int rank, const int64_t *dim, const void *data)
{
    sdx_shape s = sdx_shape_make(rank, dim);
    return sdx_tensor_make(dtype, &s, data);
}
#define VIEW(dtype, data, rank, ...) view(dtype, rank, (int64_t[]){__VA_ARGS__}, data)
#define F32(data, rank, ...)         VIEW(SDX_F32, data, rank, __VA_ARGS__)
#define I32(data, rank, ...)         VIEW(SDX_I32, data, rank, __VA_ARGS__)

/* Numbers in [-1, 1), the same on every run. */
TRIAL void fill(float *x, int64_t n, uint32_t seed)
{
    for (int64_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = (float)(seed >> 8) / 8388608.0f - 1.0f;
    }
}

TRIAL void fill_bytes(void *x, int64_t n, uint32_t seed)
{
    for (int64_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        ((uint8_t *)x)[i] = (uint8_t)(seed >> 24);
    }
}

TRIAL void expect_close(const sdx_tensor *t, const double *want, int64_t n, double tolerance)
{
    ck_assert_int_eq(sdx_tensor_count(t), n);
    for (int64_t i = 0; i < n; i++)
        ck_assert_msg(fabs(sdx_tensor_get_f64(t, i) - want[i]) <= tolerance * (1 + fabs(want[i])),
                      "element %d is %.9g, not %.9g", (int)i, sdx_tensor_get_f64(t, i), want[i]);
}

TRIAL void expect_same_bits(const sdx_tensor *a, const sdx_tensor *b)
{
    ck_assert_uint_eq(sdx_tensor_bytes(a), sdx_tensor_bytes(b));
    ck_assert(!memcmp(a->data, b->data, sdx_tensor_bytes(a)));
}

#endif
