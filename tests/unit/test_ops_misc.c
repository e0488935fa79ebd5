/* test_ops_misc.c: recurrent cells, transforms, Einsum, sets, strings, random numbers, trees. The ONNX node
 * tests hold the values of every operator; here is what they do not reach: properties, other types, and
 * sentences for hostile attributes and inputs. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../../engine/engine.h"
#include "../../engine/ops/fourier.h"
#include "../../engine/ops/ops.h"

/* ---- one node, computed ------------------------------------------------------------------------------ */

typedef struct bench {
    sdx_model *model;
    const char *domain;
    sdx_id node, in[12];
    int n_in, n_out, n_attr;
    sdx_attr attr[16];
    sdx_tensor out[4];
    sdx_arena arena;
    sdx_error err;
} bench;

static bench start(const char *domain, int opset)
{
    bench b = {.n_out = 1, .domain = domain};
    sdx_arena_init(&b.arena);
    ck_assert_int_eq(sdx_model_create(&b.model, NULL), SDX_OK);
    b.model->path = "test.onnx";
    ck_assert_int_eq(sdx_model_set_opset(b.model, domain, opset, NULL), SDX_OK);
    return b;
}

static void stop(bench *b)
{
    sdx_model_close(b->model);
    sdx_arena_fini(&b->arena);
}

#define DIMS(...)                                                                                              \
    (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[])                                     \
    {                                                                                                          \
        __VA_ARGS__                                                                                            \
    }
#define LIST(type, ...)                                                                                        \
    sizeof((type[]){__VA_ARGS__}) / sizeof(type), (type[])                                                     \
    {                                                                                                          \
        __VA_ARGS__                                                                                            \
    }

static void feed(bench *b, sdx_dtype dtype, int rank, const int64_t *dim, const void *data)
{
    sdx_shape shape = sdx_shape_make(rank, dim);
    sdx_tensor t = sdx_tensor_make(dtype, &shape, data);
    ck_assert_int_eq(sdx_graph_add_constant(b->model->graph, NULL, &t, &b->in[b->n_in++], NULL), SDX_OK);
}

static void feed_absent(bench *b)
{
    b->in[b->n_in++] = SDX_NONE;
}
static void attribute(bench *b, sdx_attr a)
{
    b->attr[b->n_attr++] = a;
}

static void set_int(bench *b, const char *name, int64_t i)
{
    attribute(b, (sdx_attr){.name = name, .type = SDX_ATTR_INT, .i = i});
}
static void set_float(bench *b, const char *name, float f)
{
    attribute(b, (sdx_attr){.name = name, .type = SDX_ATTR_FLOAT, .f = f});
}
static void set_string(bench *b, const char *name, const char *s)
{
    attribute(b, (sdx_attr){.name = name, .type = SDX_ATTR_STRING, .s = s, .s_length = strlen(s)});
}
static void set_ints(bench *b, const char *name, size_t count, const int64_t *ints)
{
    attribute(b, (sdx_attr){.name = name, .type = SDX_ATTR_INTS, .count = count, .ints = ints});
}
static void set_strings(bench *b, const char *name, size_t count, const char *const *strings)
{
    attribute(b, (sdx_attr){.name = name, .type = SDX_ATTR_STRINGS, .count = count, .strings = strings});
}
static void set_tensor(bench *b, const char *name, const sdx_tensor *t)
{
    attribute(b, (sdx_attr){.name = name, .type = SDX_ATTR_TENSOR, .tensor = t});
}

static sdx_status run(bench *b, const char *op)
{
    sdx_id out[4];
    sdx_graph *g = b->model->graph;
    for (int i = 0; i < b->n_out; i++) ck_assert_int_eq(sdx_graph_add_value(g, NULL, &out[i], NULL), SDX_OK);
    ck_assert_int_eq(sdx_graph_add_node(g, b->domain, op, op, b->n_in, b->in, b->n_out, out, &b->node, NULL),
                     SDX_OK);
    g->node[b->node].attr = b->attr;
    g->node[b->node].n_attr = b->n_attr;
    TRY(sdx_model_resolve(b->model, &sdx_operators, &b->err));
    sdx_eval_context context = {sdx_kernels_get(SDX_ISA_COUNT - 1), 3, SDX_FOLD_STEPS};
    return sdx_eval_node(&context, b->model, &g->node[b->node], &b->arena, b->out, &b->err);
}

static void run_well(bench *b, const char *op)
{
    ck_assert_msg(run(b, op) == SDX_OK, "%s", b->err.message);
}

static void run_badly(bench *b, const char *op, const char *part)
{
    ck_assert_int_ne(run(b, op), SDX_OK);
    ck_assert_msg(strstr(b->err.message, part) != NULL, "\"%s\" lacks \"%s\"", b->err.message, part);
    stop(b);
}

static const float *floats_of(const bench *b, int i)
{
    return b->out[i].data;
}
static const char *string_of(const bench *b, int64_t i)
{
    return ((const char **)b->out[0].data)[i];
}

static uint64_t seed = 1;
static float pick(void) /* [-1, 1) */
{
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (float)((double)(seed >> 33) / 0x1p30 - 1);
}

/* ---- transforms -------------------------------------------------------------------------------------- */

START_TEST(fourier_matches_the_definition)
{
    for (int64_t n = 1; n <= 70; n++) {
        size_t tables, scratch;
        ck_assert(sdx_fourier_bytes(n, &tables, &scratch));
        void *memory = sdx_malloc_aligned(tables), *work = sdx_malloc_aligned(scratch);
        sdx_fourier f;
        sdx_complex x[70], y[70];
        for (int64_t i = 0; i < n; i++) x[i] = y[i] = (sdx_complex){(double)pick(), (double)pick()};
        sdx_fourier_init(&f, n, memory);
        sdx_fourier_run(&f, false, y, work);
        for (int64_t k = 0; k < n; k++) {
            double re = 0, im = 0;
            for (int64_t i = 0; i < n; i++) {
                double a = -2 * acos(-1) * (double)(i * k % n) / (double)n;
                re += x[i].re * cos(a) - x[i].im * sin(a);
                im += x[i].re * sin(a) + x[i].im * cos(a);
            }
            ck_assert_double_eq_tol(y[k].re, re, 1e-12 * (double)n);
            ck_assert_double_eq_tol(y[k].im, im, 1e-12 * (double)n);
        }
        sdx_fourier_run(&f, true, y, work);
        for (int64_t k = 0; k < n; k++) ck_assert_double_eq_tol(y[k].re / (double)n, x[k].re, 1e-12);
        free(memory);
        free(work);
    }
}
END_TEST

/* A length that needs more memory than the longer dim it cuts. */
START_TEST(dft_cuts_a_power_of_two)
{
    float x[16];
    for (int i = 0; i < 16; i++) x[i] = 1;
    bench b = start("", 20);
    feed(&b, SDX_F32, DIMS(1, 16, 1), x);
    feed(&b, SDX_I64, 0, NULL, &(int64_t){13});
    run_well(&b, "DFT");
    ck_assert_int_eq(b.out[0].dim[1], 13);
    ck_assert_float_eq_tol(floats_of(&b, 0)[0], 13, 1e-5f);
    for (int i = 1; i < 26; i++) ck_assert_float_eq_tol(floats_of(&b, 0)[i], 0, 1e-5f);
    stop(&b);
}
END_TEST

START_TEST(transforms_refuse_nonsense)
{
    float x[8] = {0};
    bench b = start("", 20);
    feed(&b, SDX_F32, DIMS(1, 4, 2), x);
    feed(&b, SDX_I64, 0, NULL, &(int64_t){-3});
    run_badly(&b, "DFT", "the length is -3");
    b = start("", 20);
    feed(&b, SDX_F32, DIMS(1, 4, 2), x);
    feed_absent(&b);
    feed(&b, SDX_I64, 0, NULL, &(int64_t){2});
    run_badly(&b, "DFT", "axis 2 is the last one");
    b = start("", 17);
    feed(&b, SDX_F32, DIMS(1, 8, 1), x);
    feed(&b, SDX_I64, 0, NULL, &(int64_t){0});
    feed_absent(&b);
    feed(&b, SDX_I64, 0, NULL, &(int64_t){4});
    run_badly(&b, "STFT", "do not fit");
    b = start("", 17);
    feed(&b, SDX_I64, 0, NULL, &(int64_t){-1});
    run_badly(&b, "HannWindow", "negative");
}
END_TEST

/* ---- recurrent cells --------------------------------------------------------------------------------- */

enum { T = 5, B = 3, I = 4, H = 6 };

typedef struct weights {
    float x[T * B * I], w[4 * H * I], r[4 * H * H], bias[8 * H];
} weights;

static weights pick_weights(void)
{
    weights v;
    float *all[] = {v.x, v.w, v.r, v.bias};
    size_t count[] = {T * B * I, 4 * H * I, 4 * H * H, 8 * H};
    for (int k = 0; k < 4; k++)
        for (size_t i = 0; i < count[k]; i++) all[k][i] = pick();
    return v;
}

static bench start_lstm(const weights *v, const int32_t *lengths, const char *direction)
{
    bench b = start("", 22);
    b.n_out = 3;
    set_string(&b, "direction", direction);
    feed(&b, SDX_F32, DIMS(T, B, I), v->x);
    feed(&b, SDX_F32, DIMS(1, 4 * H, I), v->w);
    feed(&b, SDX_F32, DIMS(1, 4 * H, H), v->r);
    feed(&b, SDX_F32, DIMS(1, 8 * H), v->bias);
    feed(&b, SDX_I32, DIMS(B), lengths);
    return b;
}

/* Backwards over each sequence's own length is forwards over the sequence turned round. */
START_TEST(lstm_reverse_is_forward_of_the_reverse)
{
    const int32_t lengths[B] = {5, 2, 1};
    weights v = pick_weights(), turned = v;
    for (int s = 0; s < B; s++)
        for (int t = 0; t < lengths[s]; t++)
            memcpy(turned.x + (t * B + s) * I, v.x + ((lengths[s] - 1 - t) * B + s) * I, I * sizeof(float));
    bench back = start_lstm(&v, lengths, "reverse"), forth = start_lstm(&turned, lengths, "forward");
    run_well(&back, "LSTM");
    run_well(&forth, "LSTM");
    for (int i = 0; i < B * H; i++) {
        ck_assert_float_eq_tol(floats_of(&back, 1)[i], floats_of(&forth, 1)[i], 1e-6f);
        ck_assert_float_eq_tol(floats_of(&back, 2)[i], floats_of(&forth, 2)[i], 1e-6f);
    }
    for (int t = 0; t < T; t++)
        for (int s = 0; s < B; s++)
            for (int h = 0; h < H; h++) {
                int from = t < lengths[s] ? lengths[s] - 1 - t : t;
                float y = floats_of(&back, 0)[(t * B + s) * H + h];
                ck_assert_float_eq_tol(y, floats_of(&forth, 0)[(from * B + s) * H + h], 1e-6f);
                if (t >= lengths[s]) ck_assert_float_eq(y, 0);
            }
    stop(&back);
    stop(&forth);
}
END_TEST

enum { LSTM_GATES = 4 * H, W_SCALE = 8, W_ZERO, R_SCALE, R_ZERO };

/* Bytes [rows, LSTM_GATES], and the matrix [LSTM_GATES, rows] they stand for. */
static void pick_bytes(int rows, float scale, uint8_t zero, uint8_t *bytes, float *matrix)
{
    for (int i = 0; i < rows * LSTM_GATES; i++) {
        bytes[i] = (uint8_t)(128 + 120 * pick());
        matrix[i % LSTM_GATES * rows + i / LSTM_GATES] = (float)(bytes[i] - zero) * scale;
    }
}

/* Nothing else is lost than what rounding X and the states to 8 bits loses. */
START_TEST(rounded_lstm_is_nearly_the_lstm)
{
    const int32_t lengths[B] = {5, 2, 1};
    const float scale = 0.008f;
    const uint8_t zero = 127;
    uint8_t w[I * LSTM_GATES], r[H * LSTM_GATES];
    weights v = pick_weights();
    pick_bytes(I, scale, zero, w, v.w);
    pick_bytes(H, scale, zero, r, v.r);
    bench whole = start_lstm(&v, lengths, "forward"), rounded;
    run_well(&whole, "LSTM");
    for (int scales = 0; scales < 2; scales++) {
        rounded = start("com.microsoft", 1);
        rounded.n_out = 3;
        feed(&rounded, SDX_F32, DIMS(T, B, I), v.x);
        feed(&rounded, SDX_U8, DIMS(1, I, LSTM_GATES), w);
        feed(&rounded, SDX_U8, DIMS(1, H, LSTM_GATES), r);
        feed(&rounded, SDX_F32, DIMS(1, 8 * H), v.bias);
        feed(&rounded, SDX_I32, DIMS(B), lengths);
        for (int i = 0; i < 3; i++) feed_absent(&rounded);
        for (int i = 0; i < 2 && scales; i++) {
            feed(&rounded, SDX_F32, DIMS(1), &scale);
            feed(&rounded, SDX_U8, DIMS(1), &zero);
        }
        if (!scales) run_badly(&rounded, "DynamicQuantizeLSTM", "W_scale and W_zero_point must be given");
    }
    run_well(&rounded, "DynamicQuantizeLSTM");
    for (int i = 0; i < T * B * H; i++)
        ck_assert_float_eq_tol(floats_of(&rounded, 0)[i], floats_of(&whole, 0)[i], 0.02f);
    stop(&whole);
    stop(&rounded);
}
END_TEST

START_TEST(recurrent_refuses_nonsense)
{
    weights v = pick_weights();
    bench b = start_lstm(&v, (int32_t[]){5, 6, 1}, "forward");
    run_badly(&b, "LSTM", "sequence_lens[1] is 6");
    b = start_lstm(&v, (int32_t[]){5, 5, 1}, "sideways");
    run_badly(&b, "LSTM", "direction is \"sideways\"");
    b = start_lstm(&v, (int32_t[]){5, 5, 1}, "forward");
    set_strings(&b, "activations", LIST(const char *, "Tanh", "Tanh", "Softmax"));
    run_badly(&b, "LSTM", "\"Softmax\" is no activation");
    b = start_lstm(&v, (int32_t[]){5, 5, 1}, "forward");
    set_strings(&b, "activations", LIST(const char *, "Tanh"));
    run_badly(&b, "LSTM", "1 activations are given; 3 are needed");
    b = start("", 22);
    feed(&b, SDX_F32, DIMS(T, B, I), v.x);
    feed(&b, SDX_F32, DIMS(1, 3 * H, I), v.w);
    feed(&b, SDX_F32, DIMS(1, 2 * H, H), v.r);
    run_badly(&b, "GRU", "R has shape");
}
END_TEST

/* ---- Einsum ------------------------------------------------------------------------------------------ */

static const float ramp[24] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11,
                               12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23};

static bench einsum(const char *equation)
{
    bench b = start("", 12);
    set_string(&b, "equation", equation);
    return b;
}

START_TEST(einsum_forms)
{
    bench b = einsum("ii j->ji");
    feed(&b, SDX_F32, DIMS(2, 2, 3), ramp);
    run_well(&b, "Einsum");
    const float diagonal[] = {0, 9, 1, 10, 2, 11};
    ck_assert_mem_eq(b.out[0].data, diagonal, sizeof diagonal);
    stop(&b);
    b = einsum("...i,...i"); /* ellipses of different rank: [2,1] with [3] */
    feed(&b, SDX_F32, DIMS(2, 1, 2), ramp);
    feed(&b, SDX_F32, DIMS(3, 2), ramp);
    run_well(&b, "Einsum");
    const float products[] = {1, 3, 5, 3, 13, 23};
    ck_assert_int_eq(b.out[0].rank, 2);
    ck_assert_mem_eq(b.out[0].data, products, sizeof products);
    stop(&b);
    b = einsum("ij,jk->ik"); /* nothing to sum over */
    feed(&b, SDX_F32, DIMS(2, 0), ramp);
    feed(&b, SDX_F32, DIMS(0, 2), ramp);
    run_well(&b, "Einsum");
    for (int i = 0; i < 4; i++) ck_assert_float_eq(floats_of(&b, 0)[i], 0);
    stop(&b);
    b = einsum("i,i->"); /* integers wrap as they do elsewhere */
    feed(&b, SDX_I8, DIMS(2), (int8_t[]){100, 100});
    feed(&b, SDX_I8, DIMS(2), (int8_t[]){1, 1});
    run_well(&b, "Einsum");
    ck_assert_int_eq(*(int8_t *)b.out[0].data, -56);
    stop(&b);
}
END_TEST

START_TEST(einsum_refuses_nonsense)
{
    static const char *const bad[][2] = {
        {"ij,jk->iz", "unknown or repeated label"},
        {"ij,jk->ii", "unknown or repeated label"},
        {"ij->i", "not one term"},
        {"ij,jk,kl->il", "not one term"},
        {"i1,jk->ik", "unreadable"},
        {"ijk,jk->i", "rank"},
        {"i...j...,jk", "unreadable"},
        {"ij,jk->ik,", "something follows"},
        {"ij,kj->ik", "sizes 3 and 4"},
        {"", "rank"},
        {"abcdefghijk...,jk->a", "rank"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        bench b = einsum(bad[i][0]);
        feed(&b, SDX_F32, DIMS(2, 3), ramp);
        feed(&b, SDX_F32, DIMS(3, 4), ramp);
        run_badly(&b, "Einsum", bad[i][1]);
    }
}
END_TEST

/* ---- sets and moves ---------------------------------------------------------------------------------- */

START_TEST(unique_of_nan_and_strings)
{
    bench b = start("", 11);
    b.n_out = 4;
    feed(&b, SDX_F32, DIMS(5), (float[]){NAN, 2, NAN, -0.0f, 0});
    run_well(&b, "Unique");
    ck_assert_int_eq(b.out[0].dim[0], 3);
    ck_assert_float_eq(floats_of(&b, 0)[1], 2);
    ck_assert_mem_eq(b.out[1].data, ((int64_t[]){3, 1, 0}), 3 * sizeof(int64_t));
    ck_assert_mem_eq(b.out[2].data, ((int64_t[]){2, 1, 2, 0, 0}), 5 * sizeof(int64_t));
    ck_assert_mem_eq(b.out[3].data, ((int64_t[]){2, 1, 2}), 3 * sizeof(int64_t));
    stop(&b);
    b = start("", 11);
    set_int(&b, "sorted", 0);
    feed(&b, SDX_STRING, DIMS(4), (const char *[]){"b", "a", "b", "c"});
    run_well(&b, "Unique");
    ck_assert_int_eq(b.out[0].dim[0], 3);
    ck_assert_str_eq(string_of(&b, 0), "b");
    ck_assert_str_eq(string_of(&b, 2), "c");
    stop(&b);
    b = start("", 11); /* nothing in, nothing out */
    feed(&b, SDX_F32, DIMS(0), ramp);
    run_well(&b, "Unique");
    ck_assert_int_eq(b.out[0].dim[0], 0);
    stop(&b);
}
END_TEST

START_TEST(moves_check_their_places)
{
    bench b = start("", 11);
    feed(&b, SDX_F32, DIMS(2), ramp);
    feed(&b, SDX_BOOL, DIMS(3), (uint8_t[]){1, 0, 1});
    run_badly(&b, "Compress", "condition 2 is true");
    b = start("", 10);
    feed(&b, SDX_F32, DIMS(2, 3), ramp);
    feed(&b, SDX_I64, DIMS(3), (int64_t[]){1, 3, 1});
    run_badly(&b, "ReverseSequence", "length 3 of sequence 1");
    for (int64_t place = -1; place <= 3; place += 4) {
        b = start("", 24);
        feed(&b, SDX_F32, DIMS(1, 4, 1), ramp);
        feed(&b, SDX_F32, DIMS(1, 2, 1), ramp);
        feed(&b, SDX_I64, DIMS(1), &place);
        run_badly(&b, "TensorScatter", "do not fit a cache of 4");
    }
    b = start("", 24);
    set_string(&b, "mode", "circular");
    feed(&b, SDX_F32, DIMS(1, 4, 1), ramp);
    feed(&b, SDX_F32, DIMS(1, 2, 1), ramp + 10);
    feed(&b, SDX_I64, DIMS(1), &(int64_t){INT64_MAX}); /* 3 modulo 4 */
    run_well(&b, "TensorScatter");
    ck_assert_mem_eq(b.out[0].data, ((float[]){11, 1, 2, 10}), 4 * sizeof(float));
    stop(&b);
}
END_TEST

START_TEST(hardmax_rows_before_opset_13)
{
    const float x[] = {1, 2, 3, 0};
    bench b = start("", 11);
    feed(&b, SDX_F32, DIMS(1, 2, 2), x);
    run_well(&b, "Hardmax"); /* everything behind axis 1 is one row */
    ck_assert_mem_eq(b.out[0].data, ((float[]){0, 0, 1, 0}), 4 * sizeof(float));
    stop(&b);
    b = start("", 13);
    feed(&b, SDX_F32, DIMS(1, 2, 2), x);
    run_well(&b, "Hardmax");
    ck_assert_mem_eq(b.out[0].data, ((float[]){0, 1, 1, 0}), 4 * sizeof(float));
    stop(&b);
}
END_TEST

START_TEST(loss_checks_labels)
{
    for (int64_t label = -1; label <= 3; label += 4) {
        bench b = start("", 13);
        feed(&b, SDX_F32, DIMS(1, 3), ramp);
        feed(&b, SDX_I64, DIMS(1), &label);
        run_badly(&b, "NegativeLogLikelihoodLoss", "is outside [0, 3)");
    }
    bench b = start("", 13);
    set_int(&b, "ignore_index", -1);
    set_string(&b, "reduction", "sum");
    feed(&b, SDX_F64, DIMS(2, 2), (double[]){0, 0, 1, 0});
    feed(&b, SDX_I32, DIMS(2), (int32_t[]){0, -1});
    run_well(&b, "SoftmaxCrossEntropyLoss");
    ck_assert_double_eq_tol(*(double *)b.out[0].data, log(2), 1e-15);
    stop(&b);
}
END_TEST

/* ---- strings ----------------------------------------------------------------------------------------- */

START_TEST(strings_split_and_change_case)
{
    bench b = start("", 20);
    b.n_out = 2;
    set_int(&b, "maxsplit", 1);
    feed(&b, SDX_STRING, DIMS(3), (const char *[]){" a  b c", "", "x"});
    run_well(&b, "StringSplit");
    ck_assert_int_eq(b.out[0].dim[1], 2);
    static const char *const pieces[] = {"a", "b c", "", "", "x", ""};
    for (int i = 0; i < 6; i++) ck_assert_str_eq(string_of(&b, i), pieces[i]);
    ck_assert_mem_eq(b.out[1].data, ((int64_t[]){2, 0, 1}), 3 * sizeof(int64_t));
    stop(&b);
    b = start("", 10);
    set_string(&b, "case_change_action", "UPPER");
    set_strings(&b, "stopwords", LIST(const char *, "DER"));
    feed(&b, SDX_STRING, DIMS(1, 3),
         (const char *[]){"der",
                          "\xc3\xbc"
                          "ber\xff",
                          "\xc8\xbf\xc8\xbf"});
    run_well(&b, "StringNormalizer");
    ck_assert_int_eq(b.out[0].dim[1], 2);
    ck_assert_str_eq(string_of(&b, 0), "\xc3\x9c"
                                       "BER\xff");
    ck_assert_str_eq(string_of(&b, 1), "\xe2\xb1\xbe\xe2\xb1\xbe"); /* grows by half */
    stop(&b);
}
END_TEST

START_TEST(regex_is_bounded)
{
    bench b = start("", 20);
    set_string(&b, "pattern", "(a+)+b");
    feed(&b, SDX_STRING, DIMS(1),
         (const char *[]){"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaac"});
    /* PCRE2 may see that there is no b; else it stops at the limit. */
    if (run(&b, "RegexFullMatch") == SDX_OK)
        ck_assert_int_eq(*(uint8_t *)b.out[0].data, 0);
    else
        ck_assert_ptr_nonnull(strstr(b.err.message, "too long to match"));
    stop(&b);
    b = start("", 20);
    set_string(&b, "pattern", "(x+x+)+y(?!z)[xy]*q");
    feed(&b, SDX_STRING, DIMS(1), (const char *[]){"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxyq!yq"});
    if (run(&b, "RegexFullMatch") == SDX_OK) ck_assert_int_eq(*(uint8_t *)b.out[0].data, 0);
    stop(&b);
    b = start("", 20);
    set_string(&b, "pattern", "(unclosed");
    feed(&b, SDX_STRING, DIMS(1), (const char *[]){"x"});
    run_badly(&b, "RegexFullMatch", "position 9");
    b = start("", 20);
    set_string(&b, "pattern", ".*");
    feed(&b, SDX_STRING, DIMS(1), (const char *[]){"not UTF-8: \xff"});
    run_well(&b, "RegexFullMatch");
    ck_assert_int_eq(*(uint8_t *)b.out[0].data, 0);
    stop(&b);
}
END_TEST

static bench vectorizer(size_t n, const int64_t *counts)
{
    static const int64_t indexes[] = {1, 0}, pool[] = {7, 7, 8};
    static const float weights_of[] = {10, 0.5f};
    bench b = start("", 9);
    set_string(&b, "mode", "TFIDF");
    set_ints(&b, "ngram_counts", n, counts);
    set_ints(&b, "ngram_indexes", 2, indexes);
    set_ints(&b, "pool_int64s", 3, pool);
    set_int(&b, "min_gram_length", 1);
    set_int(&b, "max_gram_length", 2);
    set_int(&b, "max_skip_count", INT64_MAX);
    attribute(&b, (sdx_attr){.name = "weights", .type = SDX_ATTR_FLOATS, .count = 2, .floats = weights_of});
    return b;
}

START_TEST(vectorizer_counts_with_skips)
{
    bench b = vectorizer(LIST(int64_t, 0, 1));
    feed(&b, SDX_I32, DIMS(4), (int32_t[]){7, 8, 9, 8});
    run_well(&b, "TfIdfVectorizer");
    ck_assert_mem_eq(b.out[0].data, ((float[]){1, 10}), 2 * sizeof(float)); /* 7 8 and 7 . . 8; 7 */
    stop(&b);
    b = vectorizer(LIST(int64_t, 2, 1));
    feed(&b, SDX_I32, DIMS(1), (int32_t[]){7});
    run_badly(&b, "TfIdfVectorizer", "ngram_counts[0] does not fit");
    b = vectorizer(LIST(int64_t, 0));
    feed(&b, SDX_I32, DIMS(1), (int32_t[]){7});
    run_badly(&b, "TfIdfVectorizer", "more n-grams than ngram_indexes");
}
END_TEST

/* ---- random numbers ---------------------------------------------------------------------------------- */

static bench normal_numbers(float with_seed)
{
    bench b = start("", 22);
    set_ints(&b, "shape", LIST(int64_t, 100, 100));
    set_float(&b, "mean", 3);
    set_float(&b, "seed", with_seed);
    run_well(&b, "RandomNormal");
    return b;
}

START_TEST(random_numbers_have_their_distribution)
{
    bench a = normal_numbers(1), same = normal_numbers(1), other = normal_numbers(2);
    double sum = 0, square = 0;
    for (int i = 0; i < 10000; i++) {
        double x = (double)floats_of(&a, 0)[i] - 3;
        sum += x;
        square += x * x;
    }
    ck_assert_double_eq_tol(sum / 10000, 0, 0.05);
    ck_assert_double_eq_tol(square / 10000, 1, 0.05);
    ck_assert_mem_eq(a.out[0].data, same.out[0].data, 10000 * sizeof(float));
    ck_assert_mem_ne(a.out[0].data, other.out[0].data, 10000 * sizeof(float));
    stop(&a);
    stop(&same);
    stop(&other);
}
END_TEST

START_TEST(multinomial_and_dropout)
{
    bench b = start("", 22);
    set_int(&b, "sample_size", 200);
    feed(&b, SDX_F32, DIMS(2, 3), (float[]){-INFINITY, 0, -INFINITY, 1, -INFINITY, 1});
    run_well(&b, "Multinomial");
    int twos = 0;
    for (int i = 0; i < 200; i++) {
        ck_assert_int_eq(((int32_t *)b.out[0].data)[i], 1);
        ck_assert_int_ne(((int32_t *)b.out[0].data)[200 + i], 1);
        twos += ((int32_t *)b.out[0].data)[200 + i] == 2;
    }
    ck_assert_int_gt(twos, 50);
    ck_assert_int_lt(twos, 150);
    stop(&b);
    b = start("", 13);
    feed(&b, SDX_F32, DIMS(2), ramp);
    feed(&b, SDX_F32, 0, NULL, &(float){1});
    feed(&b, SDX_BOOL, 0, NULL, &(uint8_t){1});
    run_badly(&b, "Dropout", "ratio is 1");
}
END_TEST

/* ---- ai.onnx.ml -------------------------------------------------------------------------------------- */

/* One node whose true branch leads to `next`, a leaf or a node. */
static bench tree(int64_t next, int64_t is_leaf, int64_t feature, const sdx_tensor *modes,
                  const sdx_tensor *numbers)
{
    bench b = start("ai.onnx.ml", 5);
    static const int64_t zero[] = {0}, one[] = {1};
    static int64_t truth[3];
    truth[0] = next, truth[1] = is_leaf, truth[2] = feature;
    set_ints(&b, "tree_roots", 1, zero);
    set_ints(&b, "nodes_featureids", 1, &truth[2]);
    set_ints(&b, "nodes_truenodeids", 1, &truth[0]);
    set_ints(&b, "nodes_trueleafs", 1, &truth[1]);
    set_ints(&b, "nodes_falsenodeids", 1, zero);
    set_ints(&b, "nodes_falseleafs", 1, one);
    set_ints(&b, "leaf_targetids", 1, zero);
    set_tensor(&b, "nodes_modes", modes);
    set_tensor(&b, "nodes_splits", numbers);
    set_tensor(&b, "leaf_weights", numbers);
    feed(&b, SDX_F32, DIMS(1, 1), ramp);
    return b;
}

START_TEST(trees_are_checked)
{
    uint8_t less_or_equal = 0;
    float half = 0.5f;
    sdx_tensor modes = {SDX_U8, 1, {1}, &less_or_equal}, numbers = {SDX_F32, 1, {1}, &half};
    bench b = tree(0, 1, 0, &modes, &numbers);
    run_well(&b, "TreeEnsemble");
    ck_assert_float_eq(floats_of(&b, 0)[0], 0.5f);
    stop(&b);
    b = tree(0, 0, 0, &modes, &numbers); /* to itself */
    run_badly(&b, "TreeEnsemble", "cycle");
    b = tree(1, 1, 0, &modes, &numbers);
    run_badly(&b, "TreeEnsemble", "node 0 of the trees makes no sense");
    b = tree(0, 1, 7, &modes, &numbers);
    run_badly(&b, "TreeEnsemble", "feature 7 of 1");
    less_or_equal = 6; /* BRANCH_MEMBER without members */
    b = tree(0, 1, 0, &modes, &numbers);
    run_badly(&b, "TreeEnsemble", "fewer sets");
}
END_TEST

START_TEST(labels_are_encoded)
{
    bench b = start("ai.onnx.ml", 2);
    attribute(
        &b,
        (sdx_attr){.name = "keys_floats", .type = SDX_ATTR_FLOATS, .count = 3, .floats = (float[]){NAN, 1, 1}});
    set_strings(&b, "values_strings", LIST(const char *, "nan", "first", "last"));
    feed(&b, SDX_F32, DIMS(3), (float[]){-NAN, 1, 2});
    run_well(&b, "LabelEncoder");
    ck_assert_str_eq(string_of(&b, 0), "nan");
    ck_assert_str_eq(string_of(&b, 1), "last");
    ck_assert_str_eq(string_of(&b, 2), "_Unused");
    stop(&b);
    b = start("ai.onnx.ml", 1);
    set_strings(&b, "classes_strings", LIST(const char *, "x", "y"));
    feed(&b, SDX_I64, DIMS(2), (int64_t[]){1, 2});
    run_well(&b, "LabelEncoder");
    ck_assert_str_eq(string_of(&b, 0), "y");
    ck_assert_str_eq(string_of(&b, 1), "_Unused");
    stop(&b);
    b = start("ai.onnx.ml", 2);
    set_ints(&b, "keys_int64s", LIST(int64_t, 1, 2));
    set_ints(&b, "values_int64s", LIST(int64_t, 1));
    feed(&b, SDX_I64, DIMS(1), (int64_t[]){1});
    run_badly(&b, "LabelEncoder", "2 keys and 1 values");
}
END_TEST

Suite *ops_misc_suite(void)
{
    Suite *s = suite_create("ops_misc");
    TCase *c = tcase_create("ops_misc");
    tcase_add_test(c, fourier_matches_the_definition);
    tcase_add_test(c, dft_cuts_a_power_of_two);
    tcase_add_test(c, transforms_refuse_nonsense);
    tcase_add_test(c, lstm_reverse_is_forward_of_the_reverse);
    tcase_add_test(c, rounded_lstm_is_nearly_the_lstm);
    tcase_add_test(c, recurrent_refuses_nonsense);
    tcase_add_test(c, einsum_forms);
    tcase_add_test(c, einsum_refuses_nonsense);
    tcase_add_test(c, unique_of_nan_and_strings);
    tcase_add_test(c, moves_check_their_places);
    tcase_add_test(c, hardmax_rows_before_opset_13);
    tcase_add_test(c, loss_checks_labels);
    tcase_add_test(c, strings_split_and_change_case);
    tcase_add_test(c, regex_is_bounded);
    tcase_add_test(c, vectorizer_counts_with_skips);
    tcase_add_test(c, random_numbers_have_their_distribution);
    tcase_add_test(c, multinomial_and_dropout);
    tcase_add_test(c, trees_are_checked);
    tcase_add_test(c, labels_are_encoded);
    suite_add_tcase(s, c);
    return s;
}
