/* test_ops_basic.c: structural, data-movement and elementwise operators. The values of every operator are the
 * ONNX node tests' business; here is what those do not reach: properties against naive loops over random
 * shapes, extreme arguments, sentences for faults, and shapes that stay known through shape arithmetic. */
#include <check.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../../engine/engine.h"
#include "../../engine/ops/contents.h"
#include "../../engine/ops/lanes.h"

/* ---- one node, computed ---------------------------------------------------------------------------------- */

typedef struct bench {
    sdx_model *model;
    sdx_id node, in[8];
    int n_in, n_out;
    sdx_tensor out[4];
    sdx_arena arena;
    sdx_error err;
} bench;

static bench start(int opset)
{
    bench b = {.n_out = 1, .node = SDX_NONE};
    sdx_arena_init(&b.arena);
    ck_assert_int_eq(sdx_model_create(&b.model, NULL), SDX_OK);
    b.model->path = "test.onnx";
    ck_assert_int_eq(sdx_model_set_opset(b.model, "", opset, NULL), SDX_OK);
    return b;
}

static void stop(bench *b)
{
    sdx_model_close(b->model);
    sdx_arena_fini(&b->arena);
}

static sdx_tensor tensor(sdx_dtype dtype, int rank, const int64_t *dim, const void *data)
{
    sdx_shape shape = sdx_shape_make(rank, dim);
    return sdx_tensor_make(dtype, &shape, data);
}

static void feed(bench *b, sdx_tensor t)
{
    ck_assert_int_eq(sdx_graph_add_constant(b->model->graph, NULL, &t, &b->in[b->n_in], NULL), SDX_OK);
    b->n_in++;
}

static void feed_ints(bench *b, int n, const int64_t *v)
{
    ck_assert_int_eq(sdx_graph_add_ints(b->model->graph, NULL, n, v, &b->in[b->n_in], NULL), SDX_OK);
    b->n_in++;
}

static void feed_absent(bench *b) { b->in[b->n_in++] = SDX_NONE; }

static void make_node(bench *b, const char *op)
{
    sdx_id out[4];
    for (int i = 0; i < b->n_out; i++)
        ck_assert_int_eq(sdx_graph_add_value(b->model->graph, NULL, &out[i], NULL), SDX_OK);
    ck_assert_int_eq(
        sdx_graph_add_node(b->model->graph, "", op, op, b->n_in, b->in, b->n_out, out, &b->node, NULL), SDX_OK);
}

static sdx_status run(bench *b, int threads)
{
    sdx_eval_context context = {sdx_kernels_get(SDX_ISA_COUNT - 1), threads, SDX_FOLD_STEPS};
    sdx_status status = sdx_model_resolve(b->model, &sdx_operators, &b->err);
    if (status != SDX_OK) return status;
    return sdx_eval_node(&context, b->model, &b->model->graph->node[b->node], &b->arena, b->out, &b->err);
}

static void run_well(bench *b)
{
    ck_assert_msg(run(b, 3) == SDX_OK, "%s", b->err.message);
}

static void run_badly(bench *b, const char *part)
{
    ck_assert_int_ne(run(b, 1), SDX_OK);
    ck_assert_msg(strstr(b->err.message, part) != NULL, "\"%s\" lacks \"%s\"", b->err.message, part);
}

/* ---- random shapes --------------------------------------------------------------------------------------- */

static uint64_t seed;
static int64_t pick(int64_t n) /* [0, n) */
{
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (int64_t)((seed >> 33) % (uint64_t)n);
}

static sdx_shape pick_shape(int most_rank, int64_t most)
{
    sdx_shape s = {.rank = (int)pick(most_rank + 1)};
    for (int i = 0; i < s.rank; i++) s.dim[i] = 1 + pick(most);
    return s;
}

enum { MOST = 200000 };
static float floats[2][MOST], naive[MOST];

static void pick_floats(float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) x[i] = (float)(pick(4001) - 2000) / 256;
}

static void coordinates(int64_t i, const sdx_shape *s, int64_t at[SDX_MAX_RANK])
{
    for (int k = s->rank - 1; k >= 0; i /= s->dim[k--]) at[k] = i % s->dim[k];
}

static sdx_tensor f32(const sdx_shape *s, const float *x) { return sdx_tensor_make(SDX_F32, s, x); }

/* ---- broadcasting ---------------------------------------------------------------------------------------- */

static int64_t broadcast_index(const sdx_shape *s, const sdx_shape *out, const int64_t *at)
{
    int64_t index = 0;
    for (int k = 0; k < s->rank; k++)
        index = index * s->dim[k] + (s->dim[k] == 1 ? 0 : at[out->rank - s->rank + k]);
    return index;
}

/* Some dims of a shape become 1, and leading ones vanish. */
static sdx_shape thin(const sdx_shape *s)
{
    int drop = (int)pick(s->rank + 1);
    sdx_shape t = sdx_shape_make(s->rank - drop, s->dim + drop);
    for (int i = 0; i < t.rank; i++)
        if (!pick(3)) t.dim[i] = 1;
    return t;
}

START_TEST(binary_broadcasts)
{
    seed = (uint64_t)_i + 1;
    sdx_shape full = pick_shape(5, 9), a = pick(2) ? full : thin(&full), b = thin(&full), out;
    ck_assert_int_eq(sdx_shape_broadcast(&a, &b, &out, NULL), SDX_OK);
    pick_floats(floats[0], sdx_shape_count(&a));
    pick_floats(floats[1], sdx_shape_count(&b));
    bench x = start(14);
    feed(&x, f32(&a, floats[0]));
    feed(&x, f32(&b, floats[1]));
    make_node(&x, "Sub");
    run_well(&x);
    sdx_shape got = sdx_tensor_shape(&x.out[0]);
    ck_assert(sdx_shape_same(&got, &out));
    for (int64_t i = 0, n = sdx_shape_count(&out); i < n; i++) {
        int64_t at[SDX_MAX_RANK];
        coordinates(i, &out, at);
        float want = floats[0][broadcast_index(&a, &out, at)] - floats[1][broadcast_index(&b, &out, at)];
        ck_assert_float_eq(((float *)x.out[0].data)[i], want);
    }
    stop(&x);
}
END_TEST

START_TEST(threads_change_nothing)
{
    static const char *const op[] = {"Add",       "Exp",        "Pow",    "Less",
                                     "ReduceSum", "ReduceMean", "CumSum", "Transpose"};
    seed = 7;
    sdx_shape s = {2, {300, 301}}, row = {1, {301}};
    pick_floats(floats[0], 300 * 301);
    pick_floats(floats[1], 301);
    bench x[2] = {start(17), start(17)};
    for (int k = 0; k < 2; k++) {
        feed(&x[k], f32(&s, floats[0]));
        if (_i == 6) feed_ints(&x[k], 1, (int64_t[]){1});
        else if (_i != 1 && _i < 4) feed(&x[k], f32(&row, floats[1]));
        make_node(&x[k], op[_i]);
        if (_i == 5) sdx_node_set_ints(x[k].model->graph, x[k].node, "axes", 1, (int64_t[]){0}, NULL);
        ck_assert_msg(run(&x[k], k ? 5 : 1) == SDX_OK, "%s", x[k].err.message);
    }
    ck_assert(!memcmp(x[0].out[0].data, x[1].out[0].data, sdx_tensor_bytes(&x[0].out[0])));
    stop(&x[0]);
    stop(&x[1]);
}
END_TEST

START_TEST(narrow_integers_wrap)
{
    uint8_t a[] = {250, 3, 0}, b[] = {10, 4, 1};
    int64_t three = 3;
    bench x = start(14);
    feed(&x, tensor(SDX_U8, 1, &three, a));
    feed(&x, tensor(SDX_U8, 1, &three, b));
    make_node(&x, _i ? "Sub" : "Add");
    run_well(&x);
    const uint8_t want[2][3] = {{4, 7, 1}, {240, 255, 255}};
    ck_assert_mem_eq(x.out[0].data, want[_i], 3);
    stop(&x);
}
END_TEST

START_TEST(integer_division_never_traps)
{
    int64_t a[] = {INT64_MIN, -7, 7}, b[] = {-1, 2, _i ? 0 : -2}, three = 3;
    bench x = start(14);
    feed(&x, tensor(SDX_I64, 1, &three, a));
    feed(&x, tensor(SDX_I64, 1, &three, b));
    make_node(&x, "Div");
    if (_i) {
        run_badly(&x, "element 2 of the integer divisor is 0");
    } else {
        run_well(&x);
        const int64_t *y = x.out[0].data;
        ck_assert_int_eq(y[0], INT64_MIN);
        ck_assert_int_eq(y[1], -3);
        ck_assert_int_eq(y[2], -3);
    }
    stop(&x);
}
END_TEST

/* ---- Cast ------------------------------------------------------------------------------------------------ */

START_TEST(cast_out_of_range_is_the_limit)
{
    static const float from[] = {NAN, INFINITY, -INFINITY, 1e30f, -1e30f, -1.9f, 255.5f};
    static const struct {
        sdx_dtype to;
        int64_t want[7];
    } row[] = {
        {SDX_I64, {0, INT64_MAX, INT64_MIN, INT64_MAX, INT64_MIN, -1, 255}},
        {SDX_I32, {0, INT32_MAX, INT32_MIN, INT32_MAX, INT32_MIN, -1, 255}},
        {SDX_I8, {0, 127, -128, 127, -128, -1, 127}},
        {SDX_U8, {0, 255, 0, 255, 0, 0, 255}},
        {SDX_U64, {0, -1, 0, -1, 0, 0, 255}}, /* -1: all bits */
        {SDX_BOOL, {1, 1, 1, 1, 1, 1, 1}},
    };
    int64_t seven = 7;
    bench x = start(13);
    feed(&x, tensor(SDX_F32, 1, &seven, from));
    make_node(&x, "Cast");
    sdx_node_set_int(x.model->graph, x.node, "to", row[_i].to, NULL);
    run_well(&x);
    for (int i = 0; i < 7; i++) ck_assert_int_eq(sdx_tensor_get_i64(&x.out[0], i), row[_i].want[i]);
    stop(&x);
}
END_TEST

/* ---- moving data ----------------------------------------------------------------------------------------- */

/* Elements of `size` bytes that tell their place. */
static void number_bytes(unsigned char *x, int64_t n, size_t size)
{
    for (int64_t i = 0; i < n; i++)
        for (size_t k = 0; k < size; k++)
            x[(size_t)i * size + k] = (unsigned char)((i >> (8 * (k % 4))) + (int64_t)k);
}

START_TEST(transpose_moves_every_element)
{
    static const sdx_dtype types[] = {SDX_U8, SDX_F16, SDX_F32, SDX_I64, SDX_C128};
    seed = (uint64_t)_i * 77 + 5;
    sdx_dtype t = types[pick(5)];
    size_t size = sdx_dtype_size(t);
    sdx_shape in = pick_shape(5, _i % 4 ? 7 : 12);
    unsigned char *data = (unsigned char *)floats;
    if ((size_t)sdx_shape_count(&in) * size > sizeof floats) return;
    number_bytes(data, sdx_shape_count(&in), size);
    int64_t perm[SDX_MAX_RANK], stride[SDX_MAX_RANK];
    for (int i = 0; i < in.rank; i++) perm[i] = i;
    for (int i = in.rank - 1; i > 0; i--) {
        int64_t k = pick(i + 1), held = perm[i];
        perm[i] = perm[k];
        perm[k] = held;
    }
    bench x = start(13);
    feed(&x, sdx_tensor_make(t, &in, data));
    make_node(&x, "Transpose");
    sdx_node_set_ints(x.model->graph, x.node, "perm", (size_t)in.rank, perm, NULL);
    run_well(&x);
    sdx_shape out = sdx_tensor_shape(&x.out[0]);
    sdx_shape_strides(&in, stride);
    for (int64_t i = 0, n = sdx_shape_count(&out); i < n; i++) {
        int64_t at[SDX_MAX_RANK], from = 0;
        coordinates(i, &out, at);
        for (int k = 0; k < out.rank; k++) from += at[k] * stride[perm[k]];
        ck_assert_mem_eq((unsigned char *)x.out[0].data + (size_t)i * size, data + (size_t)from * size, size);
    }
    stop(&x);
}
END_TEST

static int64_t pick_extreme(int64_t dim)
{
    static const int64_t odd[] = {INT64_MIN, INT64_MIN + 1, INT64_MAX, INT32_MAX, INT32_MIN, 0, -1};
    return pick(4) ? pick(4 * dim + 5) - 2 * dim - 2 : odd[pick(7)];
}

/* One axis by Python's rules, step by step: indices into kept[]. */
static int64_t naive_slice(int64_t start, int64_t end, int64_t step, int64_t dim, int64_t *kept)
{
    int64_t n = 0, low = step < 0 ? -1 : 0, high = step < 0 ? dim - 1 : dim;
    if (start < 0) start = start < -dim ? 0 : start + dim; /* ONNX: a start before the first is the first */
    if (end < 0) end = end < -dim ? low : end + dim;
    if (start > high) start = high;
    if (end > high) end = high;
    for (int64_t i = start; step > 0 ? i < end : i > end; i += step) {
        kept[n++] = i;
        if (step > dim || step < -dim) break;
    }
    return n;
}

START_TEST(slice_follows_python)
{
    seed = (uint64_t)_i + 1000;
    sdx_shape in = {2, {1 + pick(9), 1 + pick(9)}};
    int64_t start_[2], end[2], step[2], axes[2] = {0, -1}, kept[2][16], n[2];
    pick_floats(floats[0], sdx_shape_count(&in));
    for (int k = 0; k < 2; k++) {
        start_[k] = pick_extreme(in.dim[k]);
        end[k] = pick_extreme(in.dim[k]);
        do step[k] = pick(3) ? pick(7) - 3 : pick_extreme(in.dim[k]);
        while (step[k] == 0);
        n[k] = naive_slice(start_[k], end[k], step[k], in.dim[k], kept[k]);
    }
    bench x = start(13);
    feed(&x, f32(&in, floats[0]));
    feed_ints(&x, 2, start_);
    feed_ints(&x, 2, end);
    feed_ints(&x, 2, axes);
    feed_ints(&x, 2, step);
    make_node(&x, "Slice");
    run_well(&x);
    ck_assert_int_eq(x.out[0].dim[0], n[0]);
    ck_assert_int_eq(x.out[0].dim[1], n[1]);
    for (int64_t i = 0; i < n[0]; i++)
        for (int64_t k = 0; k < n[1]; k++)
            ck_assert_float_eq(((float *)x.out[0].data)[i * n[1] + k],
                               floats[0][kept[0][i] * in.dim[1] + kept[1][k]]);
    stop(&x);
}
END_TEST

/* Split undoes Concat. */
START_TEST(split_undoes_concat)
{
    seed = (uint64_t)_i + 50;
    sdx_shape s = pick_shape(4, 5);
    if (s.rank == 0) s.rank = 1, s.dim[0] = 3;
    int axis = (int)pick(s.rank);
    int64_t sizes[3];
    bench x = start(13), y = start(13);
    float *data = floats[0];
    for (int i = 0; i < 3; i++) {
        sizes[i] = s.dim[axis] = pick(4);
        pick_floats(data, sdx_shape_count(&s));
        feed(&x, f32(&s, data));
        data += sdx_shape_count(&s);
    }
    make_node(&x, "Concat");
    sdx_node_set_int(x.model->graph, x.node, "axis", axis - s.rank, NULL);
    run_well(&x);
    feed(&y, x.out[0]);
    feed_ints(&y, 3, sizes);
    y.n_out = 3;
    make_node(&y, "Split");
    sdx_node_set_int(y.model->graph, y.node, "axis", axis, NULL);
    run_well(&y);
    data = floats[0];
    for (int i = 0; i < 3; i++) {
        int64_t n = sdx_tensor_count(&y.out[i]);
        ck_assert_int_eq(y.out[i].dim[axis], sizes[i]);
        ck_assert(!memcmp(y.out[i].data, data, (size_t)n * sizeof *data));
        data += n;
    }
    stop(&x);
    stop(&y);
}
END_TEST

START_TEST(tile_repeats_every_axis)
{
    seed = (uint64_t)_i + 70;
    sdx_shape in = pick_shape(4, 4);
    int64_t repeats[SDX_MAX_RANK];
    for (int i = 0; i < in.rank; i++) repeats[i] = 1 + pick(3);
    pick_floats(floats[0], sdx_shape_count(&in));
    bench x = start(13);
    feed(&x, f32(&in, floats[0]));
    feed_ints(&x, in.rank, repeats);
    make_node(&x, "Tile");
    run_well(&x);
    sdx_shape out = sdx_tensor_shape(&x.out[0]);
    for (int64_t i = 0, n = sdx_shape_count(&out); i < n; i++) {
        int64_t at[SDX_MAX_RANK], from = 0;
        coordinates(i, &out, at);
        for (int k = 0; k < in.rank; k++) from = from * in.dim[k] + at[k] % in.dim[k];
        ck_assert_float_eq(((float *)x.out[0].data)[i], floats[0][from]);
    }
    stop(&x);
}
END_TEST

/* ---- reductions ------------------------------------------------------------------------------------------ */

START_TEST(reductions_match_naive_sums)
{
    static const char *const op[] = {"ReduceSum", "ReduceMax", "ReduceMin", "ReduceMean", "ReduceL2"};
    seed = (uint64_t)_i + 300;
    int which = (int)pick(5), n_axes = 0;
    sdx_shape in = pick_shape(5, 8), out = in;
    if (in.rank == 0) return;
    int64_t axes[SDX_MAX_RANK], count = sdx_shape_count(&in), each = 1;
    for (int i = 0; i < in.rank; i++) {
        if (pick(2)) continue;
        axes[n_axes++] = pick(2) ? i : i - in.rank;
        out.dim[i] = 1;
        each *= in.dim[i];
    }
    if (n_axes == 0) return;
    pick_floats(floats[0], count);
    for (int64_t i = 0, n = sdx_shape_count(&out); i < n; i++)
        naive[i] = which == 1 ? -INFINITY : which == 2 ? INFINITY : 0;
    for (int64_t i = 0; i < count; i++) {
        int64_t at[SDX_MAX_RANK];
        coordinates(i, &in, at);
        float v = floats[0][i], *y = &naive[broadcast_index(&out, &in, at)];
        if (which == 1) *y = fmaxf(*y, v);
        else if (which == 2) *y = fminf(*y, v);
        else *y += which == 4 ? v * v : v;
    }
    bench x = start(18);
    feed(&x, f32(&in, floats[0]));
    feed_ints(&x, n_axes, axes);
    make_node(&x, op[which]);
    run_well(&x);
    for (int64_t i = 0, n = sdx_shape_count(&out); i < n; i++) {
        float want = which == 3 ? naive[i] / (float)each : which == 4 ? sqrtf(naive[i]) : naive[i];
        ck_assert_float_eq_tol(((float *)x.out[0].data)[i], want, 1e-5f * (1 + fabsf(want) + (float)each));
    }
    stop(&x);
}
END_TEST

START_TEST(log_sum_exp_does_not_overflow)
{
    float v[] = {1000, 1000};
    int64_t two = 2;
    bench x = start(18);
    feed(&x, tensor(SDX_F32, 1, &two, v));
    make_node(&x, "ReduceLogSumExp");
    run_well(&x);
    ck_assert_float_eq_tol(*(float *)x.out[0].data, 1000.6931f, 1e-3f);
    stop(&x);
}
END_TEST

START_TEST(top_k_keeps_the_order_of_equals)
{
    float v[] = {1, -3, 2, 2, -INFINITY, 1};
    int64_t six = 6;
    bench x = start(11);
    x.n_out = 2;
    feed(&x, tensor(SDX_F32, 1, &six, v));
    feed_ints(&x, 1, (int64_t[]){4});
    make_node(&x, "TopK");
    sdx_node_set_int(x.model->graph, x.node, "largest", _i, NULL);
    run_well(&x);
    const int64_t want[2][4] = {{4, 1, 0, 5}, {2, 3, 0, 5}};
    ck_assert_mem_eq(x.out[1].data, want[_i], sizeof want[_i]);
    stop(&x);
}
END_TEST

/* ---- faults: each a sentence ----------------------------------------------------------------------------- */

START_TEST(index_outside_is_named)
{
    seed = 3;
    sdx_shape s = {2, {4, 3}};
    pick_floats(floats[0], 12);
    bench x = start(13);
    feed(&x, f32(&s, floats[0]));
    feed_ints(&x, 2, (int64_t[]){-4, _i ? -5 : 4});
    make_node(&x, "Gather");
    run_badly(&x, _i ? "index -5 (element 1 of the indices) is outside [-4, 4)" : "index 4 ");
    stop(&x);
}
END_TEST

/* Operators over a float32 [2,6] and one list of int64. */
static const struct {
    const char *op;
    int n;
    int64_t v[3];
    const char *message;
} faults[] = {
    {"Reshape", 2, {5, -1}, "[2,6] cannot be reshaped to [5,?]"},
    {"Reshape", 2, {3, 5}, "[2,6] cannot be reshaped to [3,5]"},
    {"Reshape", 2, {-1, -1}, "more than one -1"},
    {"Reshape", 1, {-2}, "negative size -2"},
    {"Reshape", 3, {1, 12, 0}, "copies dim 2"},
    {"Reshape", 3, {INT64_MAX, INT64_MAX, -1}, "has no size"},
    {"Expand", 2, {2, 5}, "do not broadcast"},
    {"Expand", 1, {-6}, "negative size -6"},
    {"Squeeze", 1, {0}, "axis 0 has size 2"},
    {"Unsqueeze", 2, {0, 0}, "axis 0 is given twice"},
    {"Unsqueeze", 1, {7}, "axis 7 is outside"},
    {"Tile", 1, {2}, "repeats"},
    {"Tile", 2, {-1, 1}, "negative size -1"},
    {"ReduceSum", 1, {2}, "axis 2 is outside [-2, 2)"},
    {"ReduceSum", 2, {1, -1}, "axis 1 is given twice"},
    {"Pad", 3, {1, 1, 1}, "pads has 3 numbers for 2 axes"},
    {"TopK", 1, {7}, "k is 7"},
    {"Split", 3, {1, 1, 1}, "3 sizes for 1 outputs"},
    {"Split", 1, {-2}, "size -2"},
    {"CumSum", 1, {2}, "axis 2 is outside"},
};

START_TEST(faults_are_sentences)
{
    seed = 4;
    sdx_shape s = {2, {2, 6}};
    pick_floats(floats[0], 12);
    bench x = start(17);
    feed(&x, f32(&s, floats[0]));
    feed_ints(&x, faults[_i].n, faults[_i].v);
    x.n_out = strcmp(faults[_i].op, "TopK") ? 1 : 2;
    make_node(&x, faults[_i].op);
    run_badly(&x, faults[_i].message);
    stop(&x);
}
END_TEST

START_TEST(huge_results_fail_cleanly)
{
    float one = 1;
    bench x = start(13);
    feed(&x, tensor(SDX_F32, 0, NULL, &one));
    feed_ints(&x, 2, (int64_t[]){INT64_MAX / 2, INT64_MAX / 2});
    make_node(&x, "Expand");
    ck_assert_int_ne(run(&x, 1), SDX_OK);
    stop(&x);
}
END_TEST

START_TEST(zero_step_is_refused)
{
    float v[] = {1, 2};
    int64_t two = 2;
    bench x = start(13);
    feed(&x, tensor(SDX_F32, 1, &two, v));
    feed_ints(&x, 1, (int64_t[]){0});
    feed_ints(&x, 1, (int64_t[]){2});
    feed_absent(&x);
    feed_ints(&x, 1, (int64_t[]){0});
    make_node(&x, "Slice");
    run_badly(&x, "a step is 0");
    stop(&x);
}
END_TEST

/* ---- shapes through shape arithmetic --------------------------------------------------------------------- */

typedef struct chain {
    bench b;
    sdx_graph *g;
    sdx_id x; /* float32 [batch, sequence, 64] */
    sdx_dim batch, sequence;
} chain;

static chain start_chain(void)
{
    chain c = {.b = start(17)};
    c.g = c.b.model->graph;
    c.batch = SDX_DIM_SYMBOL(sdx_model_symbol(c.b.model, "batch"));
    c.sequence = SDX_DIM_SYMBOL(sdx_model_symbol(c.b.model, "sequence"));
    sdx_shape s = {3, {c.batch, c.sequence, 64}};
    ck_assert_int_eq(sdx_graph_add_input(c.g, "x", SDX_F32, &s, &c.x, NULL), SDX_OK);
    return c;
}

static sdx_id emit(chain *c, const char *op, int n, const sdx_id *in)
{
    sdx_id out;
    ck_assert_int_eq(sdx_graph_emit(c->g, "", op, NULL, n, in, &out, NULL), SDX_OK);
    return out;
}
#define EMIT(c, op, ...)                                                                                       \
    emit(c, op, (int)(sizeof(sdx_id[]){__VA_ARGS__} / sizeof(sdx_id)), (sdx_id[]){__VA_ARGS__})

static sdx_id list(chain *c, int n, const int64_t *v)
{
    sdx_id out;
    ck_assert_int_eq(sdx_graph_add_ints(c->g, NULL, n, v, &out, NULL), SDX_OK);
    return out;
}
#define LIST(c, ...) list(c, (int)(sizeof(int64_t[]){__VA_ARGS__} / sizeof(int64_t)), (int64_t[]){__VA_ARGS__})

static void set_axis(chain *c, int64_t axis) { sdx_node_set_int(c->g, c->g->n_node - 1, "axis", axis, NULL); }

static void check_shape(chain *c, sdx_id value, int rank, const sdx_dim *dim)
{
    sdx_error err = {0};
    ck_assert_msg(sdx_model_resolve(c->b.model, &sdx_operators, &err) == SDX_OK, "%s", err.message);
    ck_assert_msg(sdx_model_infer(c->b.model, &err) == SDX_OK, "%s", err.message);
    const sdx_shape *s = &c->g->value[value].type.shape;
    ck_assert_int_eq(s->rank, rank);
    for (int i = 0; i < rank; i++)
        ck_assert_msg(s->dim[i] == dim[i], "dim %d is %lld", i, (long long)s->dim[i]);
    stop(&c->b);
}
#define CHECK(c, value, ...) \
    check_shape(c, value, (int)(sizeof(sdx_dim[]){__VA_ARGS__} / sizeof(sdx_dim)), (sdx_dim[]){__VA_ARGS__})

/* x.view(x.size(0), x.size(1), 4, 16).transpose(1, 2).reshape(batch, -1, 64): how PyTorch exports heads. */
START_TEST(heads_keep_their_symbols)
{
    chain c = start_chain();
    sdx_id shape = EMIT(&c, "Shape", c.x);
    sdx_id b = EMIT(&c, "Unsqueeze", EMIT(&c, "Gather", shape, LIST(&c, 0)), LIST(&c, 0));
    b = EMIT(&c, "Squeeze", b, LIST(&c, 0));
    sdx_id s = EMIT(&c, "Slice", shape, LIST(&c, 1), LIST(&c, 2));
    sdx_id to = EMIT(&c, "Concat", b, s, LIST(&c, 4), LIST(&c, 16));
    set_axis(&c, 0);
    sdx_id heads = EMIT(&c, "Reshape", c.x, to);
    if (_i == 0) {
        CHECK(&c, heads, c.batch, c.sequence, 4, 16);
        return;
    }
    sdx_id turned = EMIT(&c, "Transpose", heads);
    sdx_node_set_ints(c.g, c.g->n_node - 1, "perm", 4, (int64_t[]){0, 2, 1, 3}, NULL);
    if (_i == 1) {
        CHECK(&c, turned, c.batch, 4, c.sequence, 16);
        return;
    }
    sdx_id back = EMIT(&c, "Reshape", turned, LIST(&c, 0, -1, 64));
    CHECK(&c, back, c.batch, c.sequence, 64);
}
END_TEST

START_TEST(flattened_and_back)
{
    chain c = start_chain();
    sdx_id flat = EMIT(&c, "Reshape", c.x, LIST(&c, -1, 64));
    sdx_id s = EMIT(&c, "Slice", EMIT(&c, "Shape", c.x), LIST(&c, 1), LIST(&c, 2));
    sdx_id to = EMIT(&c, "Concat", LIST(&c, -1), s, LIST(&c, 64));
    set_axis(&c, 0);
    sdx_id back = EMIT(&c, "Reshape", flat, to);
    CHECK(&c, back, c.batch, c.sequence, 64);
}
END_TEST

START_TEST(zero_copies_and_the_hole_is_a_number)
{
    chain c = start_chain();
    sdx_id y = EMIT(&c, "Reshape", c.x, LIST(&c, 0, 0, 4, -1));
    CHECK(&c, y, c.batch, c.sequence, 4, 16);
}
END_TEST

/* torch.expand: Where(shape == -1, 1, shape), and sizes by arithmetic. */
START_TEST(expand_of_minus_one)
{
    chain c = start_chain();
    sdx_id shape = EMIT(&c, "Shape", c.x), ones = EMIT(&c, "ConstantOfShape", LIST(&c, 3));
    int64_t one = 1, dim = 1;
    sdx_tensor t = tensor(SDX_I64, 1, &dim, &one);
    sdx_node_set_tensor(c.g, c.g->n_node - 1, "value", &t, NULL);
    sdx_id wanted = EMIT(&c, "Mul", EMIT(&c, "Add", shape, LIST(&c, 0, 0, 0)), LIST(&c, 1, 1, 1));
    sdx_id test = EMIT(&c, "Equal", wanted, EMIT(&c, "Mul", ones, LIST(&c, -1)));
    sdx_id y = EMIT(&c, "Expand", c.x, EMIT(&c, "Where", test, ones, wanted));
    CHECK(&c, y, c.batch, c.sequence, 64);
}
END_TEST

/* Position ids: arange(sequence), and the first rows of a table of 512. */
START_TEST(positions_have_the_length_of_the_text)
{
    chain c = start_chain();
    sdx_id s = EMIT(&c, "Gather", EMIT(&c, "Shape", c.x), LIST(&c, 1));
    if (_i == 0) {
        sdx_id scalar = EMIT(&c, "Squeeze", s);
        sdx_id zero = EMIT(&c, "Squeeze", LIST(&c, 0)), one = EMIT(&c, "Squeeze", LIST(&c, 1));
        CHECK(&c, EMIT(&c, "Range", zero, scalar, one), c.sequence);
        return;
    }
    sdx_id table;
    sdx_shape rows = {2, {1, 512}};
    ck_assert_int_eq(sdx_graph_add_input(c.g, "table", SDX_I64, &rows, &table, NULL), SDX_OK);
    CHECK(&c, EMIT(&c, "Slice", table, LIST(&c, 0), s, LIST(&c, 1)), 1, c.sequence);
}
END_TEST

START_TEST(size_is_a_product)
{
    chain c = start_chain();
    sdx_id n = EMIT(&c, "Unsqueeze", EMIT(&c, "Size", c.x), LIST(&c, 0));
    sdx_id flat = EMIT(&c, "Reshape", c.x, n);
    sdx_id halved = EMIT(&c, "Reshape", flat, LIST(&c, -1, 32));
    sdx_id again = EMIT(&c, "Reshape", halved, EMIT(&c, "Shape", c.x));
    CHECK(&c, again, c.batch, c.sequence, 64);
}
END_TEST

/* ---- the table ------------------------------------------------------------------------------------------- */

/* Operators that ONNX replaced by one of another name. */
static bool is_withdrawn(const char *name) { return !strcmp(name, "Scatter") || !strcmp(name, "Upsample"); }

START_TEST(rows_are_whole_and_ranges_meet)
{
    for (size_t t = 0; t < sdx_operators.count; t++) {
        const sdx_op_table *table = sdx_operators.table[t];
        for (size_t i = 0; i < table->count; i++) {
            const sdx_op_def *d = &table->row[i];
            ck_assert_msg(d->infer && d->run, "%s lacks a function", d->name);
            ck_assert_msg(!d->until || d->until >= d->since, "%s", d->name);
            if (!d->until) continue;
            int next = 0; /* rows of this name that begin where this one ends */
            for (size_t k = 0; k < table->count; k++) {
                const sdx_op_def *e = &table->row[k];
                if (k == i || strcmp(e->name, d->name) || strcmp(e->domain, d->domain)) continue;
                next += e->since == d->until + 1;
                bool apart = e->since > d->until || (e->until && e->until < d->since);
                ck_assert_msg(apart, "%s: rows since %d and %d overlap", d->name, d->since, e->since);
            }
            ck_assert_msg(next == 1 || is_withdrawn(d->name), "%s-%d has no successor", d->name,
                          d->since);
        }
    }
}
END_TEST

Suite *ops_basic_suite(void)
{
    Suite *s = suite_create("ops_basic");
    TCase *values = tcase_create("values");
    tcase_add_loop_test(values, binary_broadcasts, 0, 60);
    tcase_add_loop_test(values, threads_change_nothing, 0, 8);
    tcase_add_loop_test(values, narrow_integers_wrap, 0, 2);
    tcase_add_loop_test(values, integer_division_never_traps, 0, 2);
    tcase_add_loop_test(values, cast_out_of_range_is_the_limit, 0, 6);
    tcase_add_loop_test(values, transpose_moves_every_element, 0, 60);
    tcase_add_loop_test(values, slice_follows_python, 0, 300);
    tcase_add_loop_test(values, split_undoes_concat, 0, 20);
    tcase_add_loop_test(values, tile_repeats_every_axis, 0, 20);
    tcase_add_loop_test(values, reductions_match_naive_sums, 0, 120);
    tcase_add_test(values, log_sum_exp_does_not_overflow);
    tcase_add_loop_test(values, top_k_keeps_the_order_of_equals, 0, 2);
    suite_add_tcase(s, values);
    TCase *bad = tcase_create("faults");
    tcase_add_loop_test(bad, index_outside_is_named, 0, 2);
    tcase_add_loop_test(bad, faults_are_sentences, 0, (int)(sizeof faults / sizeof *faults));
    tcase_add_test(bad, huge_results_fail_cleanly);
    tcase_add_test(bad, zero_step_is_refused);
    suite_add_tcase(s, bad);
    TCase *shapes = tcase_create("shapes");
    tcase_add_loop_test(shapes, heads_keep_their_symbols, 0, 3);
    tcase_add_test(shapes, flattened_and_back);
    tcase_add_test(shapes, zero_copies_and_the_hole_is_a_number);
    tcase_add_test(shapes, expand_of_minus_one);
    tcase_add_loop_test(shapes, positions_have_the_length_of_the_text, 0, 2);
    tcase_add_test(shapes, size_is_a_product);
    tcase_add_test(shapes, rows_are_whole_and_ranges_meet);
    suite_add_tcase(s, shapes);
    return s;
}
