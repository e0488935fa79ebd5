/* test_onnx_io.c: ONNX files in and out. Hostile files are encoded by hand here, byte by byte, so that the
 * tests do not depend on the writer they test beside. */
#define _GNU_SOURCE
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../base/buffer.h"
#include "../../base/memory.h"
#include "../../graph/graph.h"
#include "folder_tests.h"

/* ---- encoding -------------------------------------------------------------------------------------------- */

static void put_varint(sdx_buffer *b, uint64_t v)
{
    for (; v > 127; v >>= 7) sdx_buffer_putc(b, (char)(v | 128));
    sdx_buffer_putc(b, (char)v);
}

static void put_int(sdx_buffer *b, unsigned field, int64_t v)
{
    put_varint(b, field << 3);
    put_varint(b, (uint64_t)v);
}

static void put_bytes(sdx_buffer *b, unsigned field, const void *bytes, size_t n)
{
    put_varint(b, field << 3 | 2);
    put_varint(b, n);
    sdx_buffer_append(b, bytes, n);
}

static void put_string(sdx_buffer *b, unsigned field, const char *s)
{
    put_bytes(b, field, s, strlen(s));
}

/* Appends sub as a message field and empties it. */
static void put_sub(sdx_buffer *b, unsigned field, sdx_buffer *sub)
{
    put_bytes(b, field, sub->data ? sub->data : "", sub->size);
    sdx_buffer_fini(sub);
}

static void put_node(sdx_buffer *graph, const char *op, const char *in, const char *out)
{
    sdx_buffer node = {0};
    put_string(&node, 1, in);
    put_string(&node, 2, out);
    put_string(&node, 4, op);
    put_sub(graph, 1, &node);
}

/* A Constant of one whole number. */
static void put_constant(sdx_buffer *graph, const char *out, int64_t number)
{
    sdx_buffer node = {0}, attribute = {0};
    put_string(&attribute, 1, "value_int");
    put_int(&attribute, 3, number);
    put_int(&attribute, 20, 2); /* INT */
    put_string(&node, 2, out);
    put_string(&node, 4, "Constant");
    put_sub(&node, 5, &attribute);
    put_sub(graph, 1, &node);
}

static void put_port(sdx_buffer *graph, unsigned field, const char *name)
{
    sdx_buffer info = {0}, type = {0}, tensor = {0};
    put_int(&tensor, 1, SDX_F32);
    put_sub(&type, 1, &tensor);
    put_string(&info, 1, name);
    put_sub(&info, 2, &type);
    put_sub(graph, field, &info);
}

/* Turns a graph message into a model message with this opset. */
static void wrap(sdx_buffer *graph, int opset, sdx_buffer *model)
{
    sdx_buffer import = {0};
    put_int(model, 1, 8);
    put_sub(model, 7, graph);
    if (!opset) return;
    put_int(&import, 2, opset);
    put_sub(model, 8, &import);
}

/* ---- reading from memory --------------------------------------------------------------------------------- */

static sdx_status read_bytes(const void *bytes, size_t n, sdx_model **out, sdx_error *err)
{
    void *map = mmap(NULL, n ? n : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert(map != MAP_FAILED);
    if (n) memcpy(map, bytes, n);
    return sdx_onnx_read_mapped("test.onnx", (sdx_file_map){.data = map, .size = n}, out, err);
}

/* Reads a model with this graph; expects failure with this status and sentence, or success when sentence is
 * NULL. */
static void expect(sdx_buffer *graph, int opset, sdx_status status, const char *sentence)
{
    sdx_buffer model = {0};
    sdx_model *m = NULL;
    sdx_error err = {0};
    wrap(graph, opset, &model);
    sdx_status got = read_bytes(model.data, model.size, &m, &err);
    ck_assert_msg(got == status, "status %d: %s", got, err.message);
    if (sentence) {
        ck_assert_msg(strstr(err.message, sentence) != NULL, "\"%s\" lacks \"%s\"", err.message, sentence);
        ck_assert(!strncmp(err.message, "test.onnx: ", 11));
    }
    sdx_model_close(m);
    sdx_buffer_fini(&model);
}

START_TEST(refuses_broken_graphs)
{
    sdx_buffer g = {0};
    put_port(&g, 11, "x"), put_node(&g, "Relu", "x", "y"), put_port(&g, 12, "y");
    expect(&g, 13, SDX_OK, NULL);
    put_port(&g, 11, "x"), put_node(&g, "Relu", "x", "y"), put_port(&g, 12, "y");
    expect(&g, 1, SDX_OK, NULL); /* old versions are for the operators to know */
    put_port(&g, 11, "x"), put_node(&g, "Relu", "x", "y"), put_port(&g, 12, "y");
    expect(&g, 0, SDX_ERR_FILE, "does not say which version");
    put_port(&g, 11, "x"), put_node(&g, "Relu", "x", "y"), put_node(&g, "Relu", "x", "y");
    expect(&g, 13, SDX_ERR_FILE, "\"y\" is defined twice");
    put_port(&g, 11, "x"), put_port(&g, 11, "x");
    expect(&g, 13, SDX_ERR_FILE, "\"x\" is defined twice");
    put_constant(&g, "y", 1), put_constant(&g, "y", 2), put_port(&g, 12, "y");
    expect(&g, 13, SDX_OK, NULL); /* of constants the last counts */
    put_port(&g, 11, "x"), put_node(&g, "Relu", "x", "y"), put_constant(&g, "y", 2);
    expect(&g, 13, SDX_ERR_FILE, "\"y\" is defined twice");
    put_node(&g, "Relu", "nowhere", "y");
    expect(&g, 13, SDX_ERR_FILE, "input \"nowhere\"");
    put_port(&g, 12, "y");
    expect(&g, 13, SDX_ERR_FILE, "graph output \"y\"");
    put_node(&g, "Relu", "a", "b"), put_node(&g, "Relu", "b", "a");
    expect(&g, 13, SDX_ERR_FILE, "cycle");
    put_string(&g, 99, "fields of the future are skipped");
    expect(&g, 13, SDX_OK, NULL);
}
END_TEST

/* Operators as of the newest version known, with a warning; all that are not known in one message. */
START_TEST(reads_files_of_the_future)
{
    for (int known = 0; known < 2; known++) {
        sdx_buffer g = {0}, bytes = {0};
        put_port(&g, 11, "x"), put_node(&g, "Relu", "x", "y");
        if (!known)
            put_node(&g, "Foresee", "y", "a"), put_node(&g, "Divine", "y", "b"), put_node(&g, "Divine", "b", "c");
        put_port(&g, 12, "y");
        wrap(&g, 99, &bytes);
        sdx_model *m;
        sdx_program *program = NULL;
        sdx_error err = {0};
        ck_assert_int_eq(read_bytes(bytes.data, bytes.size, &m, &err), SDX_OK);
        ck_assert_ptr_nonnull(strstr(sdx_model_warning(m), "opset 99"));
        sdx_status status = sdx_program_create(m, NULL, &program, &err);
        ck_assert_int_eq(status, known ? SDX_OK : SDX_ERR_UNSUPPORTED);
        ck_assert_str_eq(err.message, known ? ""
                                            : "test.onnx: 2 operators are not supported here: Foresee-99 (1 node), "
                                              "Divine-99 (2 nodes)");
        sdx_program_free(program);
        sdx_buffer_fini(&bytes);
    }
}
END_TEST

START_TEST(sorts_nodes)
{
    sdx_buffer g = {0}, model = {0};
    sdx_model *m;
    put_node(&g, "Neg", "b", "c"), put_node(&g, "Abs", "a", "b"), put_node(&g, "Relu", "x", "a");
    put_port(&g, 11, "x"), put_port(&g, 12, "c");
    wrap(&g, 13, &model);
    ck_assert_int_eq(read_bytes(model.data, model.size, &m, NULL), SDX_OK);
    ck_assert_int_eq(m->graph->n_node, 3);
    ck_assert_str_eq(m->graph->node[0].op_type, "Relu");
    ck_assert_str_eq(m->graph->node[2].op_type, "Neg");
    sdx_model_close(m);
    sdx_buffer_fini(&model);
}
END_TEST

/* ---- tensors --------------------------------------------------------------------------------------------- */

typedef struct tensor_case {
    int dtype;
    int64_t dim;
    unsigned field; /* of TensorProto */
    const char *bytes;
    size_t n;
    sdx_status status;
    const char *sentence; /* or the expected bytes when it reads */
    size_t n_sentence;
} tensor_case;

#define BYTES(s) s, sizeof s - 1
static const tensor_case tensor_cases[] = {
    {SDX_F32, 2, 9, BYTES("\0\0\x80\x3f\0\0\0\x40"), SDX_OK, BYTES("\0\0\x80\x3f\0\0\0\x40")},
    {SDX_F32, 2, 4, BYTES("\0\0\x80\x3f\0\0\0\x40"), SDX_OK, BYTES("\0\0\x80\x3f\0\0\0\x40")},
    {SDX_F16, 2, 5, BYTES("\x80\x78\x01"), SDX_OK, BYTES("\0\x3c\x01\0")},
    {SDX_I8, 2, 5, BYTES("\x07\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), SDX_OK, BYTES("\x07\xff")},
    {SDX_I64, 1, 7, BYTES("\x80\x01"), SDX_OK, BYTES("\x80\0\0\0\0\0\0\0")},
    {SDX_U32, 1, 11, BYTES("\x05"), SDX_OK, BYTES("\x05\0\0\0")},
    {SDX_F32, 0, 9, BYTES(""), SDX_OK, BYTES("")},
    {SDX_F32, 2, 9, BYTES("\0\0\x80\x3f"), SDX_ERR_FILE,
     BYTES("\"w\" is float32[2], 8 bytes, but its data has 4")},
    {SDX_F32, 1, 4, BYTES("\0\0\x80\x3f\0\0\0\x40"), SDX_ERR_FILE, BYTES("but its data has 8")},
    {SDX_F32, -1, 9, BYTES(""), SDX_ERR_FILE, BYTES("negative size")},
    {SDX_F32, INT64_MAX, 9, BYTES("abcd"), SDX_ERR_FILE, BYTES("overflows")},
    {SDX_F32, 1 << 30, 9, BYTES("abcd"), SDX_ERR_FILE, BYTES("but its data has 4")},
    {SDX_UNDEFINED, 1, 9, BYTES("a"), SDX_ERR_FILE, BYTES("no element type")},
    {29, 1, 9, BYTES("a"), SDX_ERR_UNSUPPORTED, BYTES("\"w\" has ONNX element type 29")},
    {SDX_F8E5M2, 2, 9, BYTES("\x3c\xff"), SDX_OK, BYTES("\x3c\xff")},
    {SDX_F8E8M0, 2, 5, BYTES("\xff\x01\x7f"), SDX_OK, BYTES("\xff\x7f")},
    {SDX_U4, 3, 9, BYTES("\x21\x0f"), SDX_OK, BYTES("\1\2\17")},
    {SDX_I4, 3, 9, BYTES("\x81\x0f"), SDX_OK, BYTES("\1\xf8\xff")},
    {SDX_I4, 3, 5, BYTES("\x81\x01\x0f"), SDX_OK, BYTES("\1\xf8\xff")},
    {SDX_I2, 5, 9, BYTES("\xe4\x01"), SDX_OK, BYTES("\0\1\xfe\xff\1")},
    {SDX_F4E2M1, 2, 9, BYTES("\xf7"), SDX_OK, BYTES("\7\17")},
    {SDX_F6E2M3, 2, 9, BYTES("\x7f\x0f"), SDX_OK, BYTES("\x3f\x3d")},
    {SDX_F6E3M2, 2, 5, BYTES("\x3f\x41"), SDX_OK, BYTES("\x3f\1")},
    {SDX_U4, 3, 9, BYTES("\x21\x0f\x01"), SDX_ERR_FILE,
     BYTES("\"w\" is uint4[3], 2 bytes, but its data has 3")},
    {SDX_F6E2M3, 3, 5, BYTES("\1\2"), SDX_ERR_FILE, BYTES("but its data has 2")},
    {SDX_U2, INT64_MAX, 9, BYTES("abcd"), SDX_ERR_FILE, BYTES("but its data has 4")},
    {SDX_STRING, 2, 6, BYTES("one"), SDX_ERR_FILE, BYTES("room for 2 strings")},
};

START_TEST(checks_tensor_data)
{
    const tensor_case *c = &tensor_cases[_i];
    sdx_buffer t = {0}, g = {0}, model = {0};
    sdx_model *m = NULL;
    sdx_error err = {0};
    put_int(&t, 1, c->dim);
    put_int(&t, 2, c->dtype);
    put_string(&t, 8, "w");
    put_bytes(&t, c->field, c->bytes, c->n);
    put_sub(&g, 5, &t);
    wrap(&g, 13, &model);
    sdx_status status = read_bytes(model.data, model.size, &m, &err);
    ck_assert_msg(status == c->status, "case %d: status %d %s", _i, status, err.message);
    if (status == SDX_OK) {
        const sdx_tensor *w = sdx_graph_constant(m->graph, sdx_graph_find_value(m->graph, "w"));
        ck_assert_uint_eq(sdx_tensor_bytes(w), c->n_sentence);
        ck_assert(!memcmp(w->data, c->sentence, c->n_sentence));
        sdx_model_close(m);
    } else {
        ck_assert_msg(strstr(err.message, c->sentence) != NULL, "case %d: %s", _i, err.message);
    }
    sdx_buffer_fini(&model);
}
END_TEST

/* ---- round trips ----------------------------------------------------------------------------------------- */

static char folder[FOLDER];

static const char *in_folder(const char *name)
{
    static char path[4][256];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof path[turn], "%s/%s", folder, name);
    return path[turn];
}

enum { WEIGHTS = 4096 };
static float weights[WEIGHTS];

/* Then/else branches that read `x` of the graph outside. */
static sdx_graph *make_branch(sdx_model *m, sdx_id x, const char *op)
{
    sdx_graph *g;
    sdx_id captured, y;
    ck_assert_int_eq(sdx_graph_create(m, m->graph, &g, NULL), SDX_OK);
    ck_assert_int_eq(sdx_graph_add_value(g, m->graph->value[x].name, &captured, NULL), SDX_OK);
    g->value[captured].outer = x;
    g->name = op;
    ck_assert_int_eq(sdx_graph_emit(g, "", op, op, 1, &captured, &y, NULL), SDX_OK);
    ck_assert_int_eq(sdx_graph_add_output(g, y, NULL), SDX_OK);
    return g;
}

/* x f32[batch,?,4096] -> Mul by weights -> If(flag) -> y, with one attribute of every simple kind on the Mul.
 */
static sdx_model *make_model(void)
{
    sdx_model *m;
    sdx_id x, w, flag, product, y;
    ck_assert_int_eq(sdx_model_create(&m, NULL), SDX_OK);
    ck_assert_int_eq(sdx_model_set_opset(m, "", 14, NULL), SDX_OK);
    ck_assert_int_eq(sdx_model_set_opset(m, "unused", 3, NULL), SDX_OK);
    ck_assert_int_eq(sdx_model_set_metadata(m, "model_type", "bert", NULL), SDX_OK);
    sdx_graph *g = m->graph;
    sdx_shape shape = {.rank = 3,
                       .dim = {SDX_DIM_SYMBOL(sdx_model_symbol(m, "batch")), SDX_DIM_UNKNOWN, WEIGHTS}};
    ck_assert_int_eq(sdx_graph_add_input(g, "x", SDX_F32, &shape, &x, NULL), SDX_OK);
    for (int i = 0; i < WEIGHTS; i++) weights[i] = (float)i;
    sdx_tensor t = {.dtype = SDX_F32, .rank = 1, .dim = {WEIGHTS}, .data = weights};
    ck_assert_int_eq(sdx_graph_add_constant(g, "w", &t, &w, NULL), SDX_OK);
    bool yes = true;
    t = (sdx_tensor){.dtype = SDX_BOOL, .data = sdx_arena_strndup(&m->arena, (char *)&yes, 1)};
    ck_assert_int_eq(sdx_graph_add_constant(g, "flag", &t, &flag, NULL), SDX_OK);
    ck_assert_int_eq(sdx_graph_emit(g, "", "Mul", "product", 2, (sdx_id[]){x, w}, &product, NULL), SDX_OK);
    ck_assert_int_eq(sdx_node_set_float(g, 0, "f", 0.5f, NULL), SDX_OK);
    ck_assert_int_eq(sdx_node_set_int(g, 0, "i", -3, NULL), SDX_OK);
    ck_assert_int_eq(sdx_node_set_string(g, 0, "s", "text", NULL), SDX_OK);
    ck_assert_int_eq(sdx_node_set_ints(g, 0, "is", 3, (int64_t[]){1, -2, INT64_MAX}, NULL), SDX_OK);
    ck_assert_int_eq(sdx_graph_emit(g, "", "If", "y", 1, &flag, &y, NULL), SDX_OK);
    sdx_attr *branch = sdx_arena_array(&m->arena, 2, sizeof *branch);
    branch[0] =
        (sdx_attr){.name = "then_branch", .type = SDX_ATTR_GRAPH, .graph = make_branch(m, product, "Abs")};
    branch[1] =
        (sdx_attr){.name = "else_branch", .type = SDX_ATTR_GRAPH, .graph = make_branch(m, product, "Neg")};
    g->node[1].attr = branch;
    g->node[1].n_attr = 2;
    g->value[y].type = (sdx_type){.dtype = SDX_F32, .shape = shape};
    ck_assert_int_eq(sdx_graph_add_output(g, y, NULL), SDX_OK);
    ck_assert_int_eq(sdx_graph_sort(g, NULL), SDX_OK);
    return m;
}

static void check_model(const sdx_model *m)
{
    const sdx_graph *g = m->graph;
    ck_assert_int_eq(g->n_node, 2);
    ck_assert_int_eq(sdx_model_opset(m, ""), 14);
    ck_assert_int_eq(sdx_model_opset(m, "unused"), 0);
    ck_assert_str_eq(sdx_model_metadata(m, "model_type"), "bert");
    sdx_port x = sdx_model_input(m, 0);
    ck_assert_int_eq(x.rank, 3);
    ck_assert_str_eq(x.symbol[0], "batch");
    ck_assert(x.dim[1] == -1 && !x.symbol[1] && x.dim[2] == WEIGHTS);
    const sdx_node *mul = &g->node[0], *branch = &g->node[1];
    size_t n;
    ck_assert(sdx_node_float(mul, "f", 0) == 0.5f);
    ck_assert_int_eq(sdx_node_int(mul, "i", 0), -3);
    ck_assert_str_eq(sdx_node_string(mul, "s", ""), "text");
    ck_assert(sdx_node_ints(mul, "is", &n)[2] == INT64_MAX && n == 3);
    const sdx_tensor *w = sdx_graph_constant(g, mul->in[1]);
    ck_assert(!memcmp(w->data, weights, sizeof weights));
    const sdx_graph *otherwise = sdx_node_attr(branch, "else_branch")->graph;
    ck_assert_str_eq(otherwise->node[0].op_type, "Neg");
    ck_assert_int_eq(otherwise->value[otherwise->node[0].in[0]].outer, mul->out[0]);
}

START_TEST(round_trip)
{
    sdx_onnx_write_options options = {.external_data = _i == 1};
    sdx_model *made = make_model(), *m;
    sdx_error err = {0};
    char *first, *second;
    size_t n_first, n_second;
    make_folder(folder);
    ck_assert_int_eq(sdx_onnx_write(made, in_folder("model.onnx"), &options, NULL), SDX_OK);
    sdx_model_close(made);
    ck_assert_int_eq(sdx_file_read(in_folder("model.onnx"), 1 << 20, &first, &n_first, NULL), SDX_OK);
    ck_assert(n_first < sizeof weights || !options.external_data);
    ck_assert_msg(sdx_model_open(folder, &m, &err) == SDX_OK, "%s", err.message); /* the folder, not the file */
    check_model(m);
    const unsigned char *w = sdx_graph_constant(m->graph, m->graph->node[0].in[1])->data;
    const sdx_file_map *map = options.external_data ? &m->external[0] : &m->file;
    ck_assert(w >= map->data && w < map->data + map->size); /* not copied */
    /* Over the files that are mapped: the same bytes again. */
    ck_assert_int_eq(sdx_onnx_write(m, in_folder("model.onnx"), &options, NULL), SDX_OK);
    check_model(m);
    sdx_model_close(m);
    ck_assert_int_eq(sdx_file_read(in_folder("model.onnx"), 1 << 20, &second, &n_second, NULL), SDX_OK);
    ck_assert(n_first == n_second && !memcmp(first, second, n_first));
    free(first);
    free(second);
    remove_folder(folder);
}
END_TEST

/* A weight of n elements below 8 bits, written packed and read back. */
static void check_small_weight(sdx_dtype dtype, int64_t n, bool external)
{
    sdx_onnx_write_options options = {.external_data = external};
    sdx_model *m;
    sdx_error err = {0};
    sdx_id w, y;
    uint8_t *data = malloc((size_t)n);
    for (int64_t i = 0; i < n; i++) data[i] = sdx_small_byte(dtype, (uint64_t)(i * 11 + i / 7));
    sdx_tensor t = {.dtype = dtype, .rank = 1, .dim = {n}, .data = data};
    ck_assert_int_eq(sdx_model_create(&m, NULL), SDX_OK);
    ck_assert_int_eq(sdx_model_set_opset(m, "", 25, NULL), SDX_OK);
    ck_assert_int_eq(sdx_graph_add_constant(m->graph, "w", &t, &w, NULL), SDX_OK);
    ck_assert_int_eq(sdx_graph_emit(m->graph, "", "Cast", "y", 1, &w, &y, NULL), SDX_OK);
    ck_assert_int_eq(sdx_node_set_int(m->graph, 0, "to", SDX_F32, NULL), SDX_OK);
    ck_assert_int_eq(sdx_graph_add_output(m->graph, y, NULL), SDX_OK);
    ck_assert_int_eq(sdx_onnx_write(m, in_folder("model.onnx"), &options, NULL), SDX_OK);
    sdx_model_close(m);
    ck_assert_msg(sdx_model_open(folder, &m, &err) == SDX_OK, "%s", err.message);
    const sdx_tensor *back = sdx_graph_constant(m->graph, sdx_graph_find_value(m->graph, "w"));
    ck_assert(back->dtype == dtype && back->dim[0] == n && !memcmp(back->data, data, (size_t)n));
    ck_assert_int_eq(m->n_external, external ? 1 : 0);
    sdx_model_close(m);
    free(data);
}

START_TEST(packs_small_weights)
{
    static const sdx_dtype small[] = {SDX_U4, SDX_I4, SDX_U2, SDX_I2, SDX_F4E2M1, SDX_F6E2M3, SDX_F6E3M2};
    make_folder(folder);
    check_small_weight(small[_i], 1, false);
    check_small_weight(small[_i], 5003, false); /* several of the writer's chunks, and a part of a byte */
    check_small_weight(small[_i], 5003, true);
    remove_folder(folder);
}
END_TEST

START_TEST(inspects)
{
    sdx_model *m = make_model();
    char *text;
    ck_assert_int_eq(sdx_model_inspect(m, false, &text, NULL), SDX_OK);
    ck_assert(strstr(text, "x: float32[batch,?,4096]") && strstr(text, "nodes: 4") &&
              strstr(text, "w float32[4096]"));
    free(text);
    ck_assert_int_eq(sdx_model_inspect(m, true, &text, NULL), SDX_OK);
    ck_assert(strstr(text, "\"nodes\": 4") && strstr(text, "\"bytes\": 16385") &&
              strstr(text, "\"ai.onnx\": 14"));
    free(text);
    sdx_model_close(m);
}
END_TEST

START_TEST(draws)
{
    sdx_model *m;
    sdx_graph *body, *g;
    sdx_id x, y, z;
    char *text;
    ck_assert_int_eq(sdx_model_create(&m, NULL), SDX_OK);
    g = m->graph;
    sdx_shape shape = {.rank = 1, .dim = {3}};
    ck_assert_int_eq(sdx_graph_add_input(g, "x", SDX_F32, &shape, &x, NULL), SDX_OK);
    ck_assert_int_eq(sdx_graph_emit(g, "", "If", "y", 1, &x, &y, NULL), SDX_OK);
    g->node[0].name = "a \"quoted\\\n\" name";
    ck_assert_int_eq(sdx_graph_create(m, g, &body, NULL), SDX_OK);
    ck_assert_int_eq(sdx_graph_add_value(body, "x", &z, NULL), SDX_OK);
    body->value[z].outer = x;
    ck_assert_int_eq(sdx_graph_emit(body, "", "Relu", "z", 1, &z, &z, NULL), SDX_OK);
    ck_assert_int_eq(sdx_graph_add_output(body, z, NULL), SDX_OK);
    ck_assert_int_eq(sdx_node_set_graph(g, 0, "then_branch", body, NULL), SDX_OK);
    ck_assert_int_eq(sdx_graph_add_output(g, y, NULL), SDX_OK);
    ck_assert_int_eq(sdx_model_inspect_dot(m, NULL, &text, NULL), SDX_OK);
    ck_assert_ptr_nonnull(strstr(text, "tooltip=\"a \\\"quoted\\\\ \\\" name\""));
    ck_assert_ptr_nonnull(strstr(text, "v0_0 -> n0_0 [label=\"float32[3]\"]"));
    ck_assert_ptr_nonnull(strstr(text, "subgraph cluster_1 {"));
    ck_assert_ptr_nonnull(strstr(text, "v0_0 -> n1_0")); /* captured */
    ck_assert_ptr_nonnull(strstr(text, "n1_0 -> o1_1"));
    free(text);
    sdx_model_close(m);
}
END_TEST

/* ---- external data --------------------------------------------------------------------------------------- */

/* A model whose only tensor, uint8[n], lives in `location`. */
static void write_external(const char *location, int64_t n, const char *offset, const char *length)
{
    const char *pairs[3][2] = {{"location", location}, {"offset", offset}, {"length", length}};
    sdx_buffer t = {0}, g = {0}, model = {0}, pair = {0};
    sdx_writer w;
    put_int(&t, 1, n);
    put_int(&t, 2, SDX_U8);
    put_string(&t, 8, "w");
    for (int i = 0; i < 3; i++) {
        if (!pairs[i][1]) continue;
        put_string(&pair, 1, pairs[i][0]);
        put_string(&pair, 2, pairs[i][1]);
        put_sub(&t, 13, &pair);
    }
    put_int(&t, 14, 1);
    put_sub(&g, 5, &t);
    wrap(&g, 13, &model);
    ck_assert_int_eq(sdx_writer_open(&w, in_folder("sub/model.onnx"), NULL), SDX_OK);
    sdx_writer_put(&w, model.data, model.size);
    ck_assert_int_eq(sdx_writer_commit(&w, NULL), SDX_OK);
    sdx_buffer_fini(&model);
}

static void expect_external(const char *location, int64_t n, const char *offset, const char *length,
                            const char *sentence)
{
    sdx_model *m = NULL;
    sdx_error err = {0};
    write_external(location, n, offset, length);
    sdx_status status = sdx_model_open(in_folder("sub/model.onnx"), &m, &err);
    if (sentence) {
        ck_assert_msg(status == SDX_ERR_FILE && strstr(err.message, sentence), "%s: %d %s", location, status,
                      err.message);
    } else {
        ck_assert_msg(status == SDX_OK, "%s", err.message);
        const sdx_tensor *t = sdx_graph_constant(m->graph, sdx_graph_find_value(m->graph, "w"));
        ck_assert(!memcmp(t->data, "345", 3));
    }
    sdx_model_close(m);
}

START_TEST(external_data_stays_in_its_folder)
{
    make_folder(folder);
    char command[512];
    snprintf(command, sizeof command,
             "cd %s && mkdir -p sub/deep && printf 0123456789 > sub/data && cp sub/data sub/deep/data && cp "
             "sub/data out "
             "&& ln -s ../out sub/link && ln -s deep/data sub/inner",
             folder);
    ck_assert_int_eq(system(command), 0);
    expect_external("data", 3, "3", "3", NULL);
    expect_external("data", 3, "3", NULL, NULL);
    expect_external("deep/data", 3, "3", "3", NULL);
    expect_external("inner", 3, "3", "3", NULL);
    expect_external("data", 3, "8", "3", "which has 10");
    expect_external("data", 3, "18446744073709551615", "3", "which has 10");
    expect_external("data", 3, "3", "4", "has 4");
    expect_external("data", 3, "-3", "3", "not a number");
    expect_external("absent", 3, "3", "3", "missing");
    expect_external("../out", 3, "3", "3", "outside");
    expect_external("deep/../../out", 3, "3", "3", "outside");
    expect_external("/etc/passwd", 3, "3", "3", "outside");
    expect_external("link", 3, "3", "3", "outside");
    expect_external("", 3, "3", "3", "names no file");
    remove_folder(folder);
}
END_TEST

/* ---- damage ---------------------------------------------------------------------------------------------- */

static char *model_bytes(size_t *n)
{
    sdx_model *m = make_model();
    char *bytes;
    make_folder(folder);
    ck_assert_int_eq(sdx_onnx_write(m, in_folder("model.onnx"), NULL, NULL), SDX_OK);
    ck_assert_int_eq(sdx_file_read(in_folder("model.onnx"), 1 << 20, &bytes, n, NULL), SDX_OK);
    sdx_model_close(m);
    remove_folder(folder);
    return bytes;
}

START_TEST(truncations_are_refused)
{
    size_t n;
    char *bytes = model_bytes(&n);
    for (size_t cut = 0; cut < n; cut += cut < 600 || cut > n - 300 ? 1 : 997) {
        sdx_model *m = NULL;
        sdx_error err = {0};
        sdx_status status = read_bytes(bytes, cut, &m, &err);
        /* A cut between two fields of the model leaves a valid message, which lacks the graph or the opset. */
        if (status != SDX_OK) ck_assert(!strncmp(err.message, "test.onnx: ", 11));
        sdx_model_close(m);
    }
    free(bytes);
}
END_TEST

START_TEST(bit_flips_do_no_harm)
{
    size_t n;
    char *bytes = model_bytes(&n);
    uint64_t seed = 88172645463325252u;
    for (int i = 0; i < 500; i++) {
        seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
        size_t at = seed % n;
        if (i % 4) at = at % 600; /* mostly outside the weights */
        bytes[at] ^= (char)(1 << (seed >> 40) % 8);
        sdx_model *m = NULL;
        read_bytes(bytes, n, &m, NULL);
        sdx_model_close(m);
        bytes[at] ^= (char)(1 << (seed >> 40) % 8);
    }
    free(bytes);
}
END_TEST

/* If inside If inside If ...: each level is three messages. */
START_TEST(deep_nesting_is_refused)
{
    sdx_buffer g = {0}, attr = {0}, node = {0}, model = {0};
    sdx_error err = {0};
    sdx_model *m = NULL;
    for (int i = 0; i < 1000; i++) {
        put_sub(&attr, 6, &g);
        put_sub(&node, 5, &attr);
        put_sub(&g, 1, &node);
    }
    wrap(&g, 13, &model);
    ck_assert_int_eq(read_bytes(model.data, model.size, &m, &err), SDX_ERR_FILE);
    ck_assert(strstr(err.message, "nested too deeply") != NULL);
    sdx_buffer_fini(&model);
}
END_TEST

/* Two bytes make a node that unpacks to more than a hundred. */
START_TEST(unpacking_is_bounded)
{
    sdx_buffer g = {0}, model = {0};
    sdx_error err = {0};
    sdx_model *m = NULL;
    for (int i = 0; i < 200000; i++) put_bytes(&g, 1, "", 0);
    wrap(&g, 13, &model);
    ck_assert_int_eq(read_bytes(model.data, model.size, &m, &err), SDX_ERR_FILE);
    ck_assert_msg(strstr(err.message, "unpack to more") != NULL, "%s", err.message);
    sdx_buffer_fini(&model);
}
END_TEST

START_TEST(reads_tensor_files)
{
    static const char *const words[] = {"one", "", "three"};
    sdx_buffer t = {0};
    sdx_writer w;
    sdx_tensor got;
    put_int(&t, 1, 3);
    put_int(&t, 2, SDX_STRING);
    for (int i = 0; i < 3; i++) put_string(&t, 6, words[i]);
    make_folder(folder);
    ck_assert_int_eq(sdx_writer_open(&w, in_folder("t.pb"), NULL), SDX_OK);
    sdx_writer_put(&w, t.data, t.size);
    ck_assert_int_eq(sdx_writer_commit(&w, NULL), SDX_OK);
    sdx_buffer_fini(&t);
    ck_assert_int_eq(sdx_tensor_read_pb(in_folder("t.pb"), &got, NULL), SDX_OK);
    for (int i = 0; i < 3; i++) ck_assert_str_eq(((char **)got.data)[i], words[i]);
    sdx_tensor_free(&got);
    ck_assert_int_eq(sdx_tensor_read_pb(in_folder("absent.pb"), &got, NULL), SDX_ERR_FILE);
    remove_folder(folder);
}
END_TEST

#ifdef SDX_ALLOC_FAILURE
/* Every allocation fails once: reading and writing say so, and leak nothing. */
START_TEST(survives_failed_allocations)
{
    size_t n;
    char *bytes = model_bytes(&n);
    make_folder(folder);
    sdx_status status = SDX_ERR_MEMORY;
    for (long k = 1; status != SDX_OK && k < 10000; k++) {
        sdx_model *m = NULL;
        sdx_error err = {0};
        sdx_alloc_fail_after(k);
        status = read_bytes(bytes, n, &m, &err);
        if (status == SDX_OK) status = sdx_onnx_write(m, in_folder("model.onnx"), NULL, &err);
        sdx_alloc_fail_after(0);
        ck_assert_msg(status == SDX_OK || status == SDX_ERR_MEMORY, "%ld: %s", k, err.message);
        ck_assert(status == SDX_OK || strstr(err.message, "out of memory"));
        sdx_model_close(m);
    }
    ck_assert_int_eq(status, SDX_OK);
    free(bytes);
    remove_folder(folder);
}
END_TEST
#endif

Suite *onnx_io_suite(void);
Suite *onnx_io_suite(void)
{
    Suite *s = suite_create("onnx_io");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, 60);
    tcase_add_test(c, refuses_broken_graphs);
    tcase_add_test(c, reads_files_of_the_future);
    tcase_add_test(c, sorts_nodes);
    tcase_add_loop_test(c, checks_tensor_data, 0, sizeof tensor_cases / sizeof *tensor_cases);
    tcase_add_loop_test(c, round_trip, 0, 2);
    tcase_add_loop_test(c, packs_small_weights, 0, 7);
    tcase_add_test(c, inspects);
    tcase_add_test(c, draws);
    tcase_add_test(c, external_data_stays_in_its_folder);
    tcase_add_test(c, reads_tensor_files);
    tcase_add_test(c, truncations_are_refused);
    tcase_add_test(c, bit_flips_do_no_harm);
    tcase_add_test(c, deep_nesting_is_refused);
    tcase_add_test(c, unpacking_is_bounded);
#ifdef SDX_ALLOC_FAILURE
    tcase_add_test(c, survives_failed_allocations);
#endif
    suite_add_tcase(s, c);
    return s;
}
