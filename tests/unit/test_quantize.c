/* test_quantize.c: the quantizer's number formats and files, and the layers that quantize their input at run time:
 * fused they give the bytes that the standard's chain gives, and with row scales a row's result is its own business. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../engine/engine.h"
#include "../../quant/format.h"
#include "../../quant/histogram.h"

enum { ROWS = 13, K = 70, N = 37 };

static sdx_error err;

static void ok(sdx_status status)
{
    ck_assert_msg(status == SDX_OK, "%s", err.message);
}

/* ---- formats --------------------------------------------------------------------------------------------- */

START_TEST(ranges_become_scales_and_zero_points)
{
    sdx_quant_params p = sdx_quant_params_of((sdx_quant_format){true, true, false}, -1, 2);
    ck_assert_float_eq_tol(p.scale, 2.0f / 127, 1e-9f);
    ck_assert_int_eq(p.zero_point, 0);
    p = sdx_quant_params_of((sdx_quant_format){false, false, false}, -1, 3);
    ck_assert_float_eq_tol(p.scale, 4.0f / 255, 1e-9f);
    ck_assert_int_eq(p.zero_point, 64);
    p = sdx_quant_params_of((sdx_quant_format){false, true, false}, -1, 2);
    ck_assert_float_eq_tol(p.scale, 4.0f / 255, 1e-9f);
    ck_assert_int_eq(p.zero_point, 128);
    p = sdx_quant_params_of((sdx_quant_format){false, true, false}, 0, 0);
    ck_assert_int_eq(p.zero_point, 128);
}
END_TEST

static float noise(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return (float)(*state >> 8) / (float)(1 << 23) - 1;
}

/* ---- histograms ------------------------------------------------------------------------------------------ */

START_TEST(a_histogram_does_not_depend_on_how_values_come)
{
    static float v[4000];
    static sdx_histogram at_once, in_parts;
    uint32_t seed = 3;
    for (int i = 0; i < 4000; i++) v[i] = noise(&seed) * (i % 97 == 5 ? 40.0f : 1.0f) * (float)(1 + i / 1000);
    sdx_histogram_init(&at_once);
    sdx_histogram_init(&in_parts);
    sdx_histogram_add(&at_once, v, 4000);
    for (int i = 0; i < 4000; i += 50) sdx_histogram_add(&in_parts, v + i, 50);
    float low[2], high[2];
    for (int m = 0; m < 3; m++) {
        sdx_histogram_range(&at_once, (sdx_quantize_method)m, 95, &low[0], &high[0]);
        sdx_histogram_range(&in_parts, (sdx_quantize_method)m, 95, &low[1], &high[1]);
        float bin = (float)fmax(at_once.width, in_parts.width);
        if (m != SDX_QUANTIZE_ENTROPY) {
            ck_assert_float_le(fabsf(low[0] - low[1]), 2 * bin);
            ck_assert_float_le(fabsf(high[0] - high[1]), 2 * bin);
        }
        ck_assert_float_ge(low[0], at_once.min);
        ck_assert_float_le(high[0], at_once.max);
        if (m == SDX_QUANTIZE_MINMAX) ck_assert_float_eq(high[0], at_once.max);
        if (m == SDX_QUANTIZE_PERCENTILE)
            ck_assert_float_lt(high[0], 0.9f * at_once.max); /* the few outliers are cut */
    }
    uint64_t total = 0;
    for (int i = 0; i < 2 * SDX_HISTOGRAM_HALF; i++) total += in_parts.count[i];
    ck_assert_uint_eq(total, 4000);
}
END_TEST

START_TEST(an_empty_histogram_has_no_range)
{
    static sdx_histogram h;
    float low, high, zeros[3] = {0};
    sdx_histogram_init(&h);
    sdx_histogram_range(&h, SDX_QUANTIZE_ENTROPY, 99, &low, &high);
    ck_assert(low > high);
    sdx_histogram_add(&h, (float[]){INFINITY, NAN}, 2);
    sdx_histogram_range(&h, SDX_QUANTIZE_MINMAX, 99, &low, &high);
    ck_assert(low > high);
    sdx_histogram_add(&h, zeros, 3);
    sdx_histogram_add(&h, (float[]){3}, 1);
    sdx_histogram_range(&h, SDX_QUANTIZE_MINMAX, 99, &low, &high);
    ck_assert(low == 0 && high == 3);
}
END_TEST

/* ---- graphs ---------------------------------------------------------------------------------------------- */

static sdx_id constant(sdx_graph *g, const char *name, sdx_dtype dtype, int rank, int64_t a, int64_t b, uint32_t seed)
{
    sdx_tensor t = {.dtype = dtype, .rank = rank, .dim = {a, b}};
    t.data = sdx_arena_alloc(&g->model->arena, sdx_tensor_bytes(&t));
    for (int64_t i = 0; i < sdx_tensor_count(&t); i++) {
        float x = noise(&seed);
        if (dtype == SDX_F32) ((float *)t.data)[i] = x;
        else ((uint8_t *)t.data)[i] = (uint8_t)(int)(x * 127);
    }
    sdx_id id;
    ok(sdx_graph_add_constant(g, name, &t, &id, &err));
    return id;
}

static sdx_model *empty(sdx_id *x)
{
    sdx_model *m;
    ok(sdx_model_create(&m, &err));
    ok(sdx_model_set_opset(m, "", 14, &err));
    ok(sdx_model_set_opset(m, "com.microsoft", 1, &err));
    sdx_shape shape = {.rank = 2, .dim = {SDX_DIM_SYMBOL(sdx_model_symbol(m, "rows")), K}};
    ok(sdx_graph_add_input(m->graph, "x", SDX_F32, &shape, x, &err));
    return m;
}

static const char *const tails[] = {NULL, "Relu", "Tanh", "Gelu", "BiasGelu"};

enum { FACTOR = 32 };

/* The chain as quantize_dynamic writes it; form: bit 0 per column, bit 1 with a zero point, then which tail; FACTOR:
 * after a Mul of the columns. */
static sdx_model *chain(int form, bool row)
{
    sdx_id x, q[3], sum, real, scales, out;
    sdx_model *m = empty(&x);
    sdx_graph *g = m->graph;
    const char *tail = tails[form % FACTOR >> 2];
    if (form & FACTOR)
        ok(sdx_graph_emit(g, "", "Mul", "smooth", 2, (sdx_id[]){x, constant(g, "f", SDX_F32, 1, K, 0, 6)}, &x, &err));
    for (int i = 0; i < 3; i++) ok(sdx_graph_add_value(g, "q", &q[i], &err));
    ok(sdx_graph_add_node(g, "", "DynamicQuantizeLinear", "quantize", 1, &x, 3, q, NULL, &err));
    sdx_id in[] = {q[0], constant(g, "w", SDX_I8, 2, K, N, 1), q[2], SDX_NONE};
    if (form & 2) in[3] = constant(g, "w_zero", SDX_I8, form & 1, N, 0, 2);
    sdx_id w_scale = constant(g, "w_scale", SDX_F32, form & 1, N, 0, 3),
           bias = constant(g, "bias", SDX_F32, 1, N, 0, 4);
    ok(sdx_graph_emit(g, "", "MatMulInteger", "sum", form & 2 ? 4 : 3, in, &sum, &err));
    ok(sdx_graph_emit(g, "", "Cast", "real", 1, &sum, &real, &err));
    ok(sdx_node_set_int(g, g->n_node - 1, "to", SDX_F32, &err));
    ok(sdx_graph_emit(g, "", "Mul", "scales", 2, (sdx_id[]){q[1], w_scale}, &scales, &err));
    ok(sdx_graph_emit(g, "", "Mul", "scaled", 2, (sdx_id[]){real, scales}, &out, &err));
    if (tail && !strcmp(tail, "BiasGelu")) {
        ok(sdx_graph_emit(g, "com.microsoft", tail, "y", 2, (sdx_id[]){out, bias}, &out, &err));
    } else {
        ok(sdx_graph_emit(g, "", "Add", "biased", 2, (sdx_id[]){bias, out}, &out, &err));
        if (tail) ok(sdx_graph_emit(g, strcmp(tail, "Gelu") ? "" : "com.microsoft", tail, "y", 1, &out, &out, &err));
    }
    ok(sdx_graph_add_output(g, out, &err));
    if (row) ok(sdx_model_set_metadata(m, "sardonyx.activation_scale", "row", &err));
    ok(sdx_graph_index(g, &err));
    return m;
}

/* What ONNX Runtime's optimizer makes of chain(form % 4, row): one operator, or two where form has bit 2. */
static sdx_model *short_chain(int form, bool row)
{
    sdx_id x, q[3], out;
    sdx_model *m = empty(&x);
    sdx_graph *g = m->graph;
    sdx_id w = constant(g, "w", SDX_I8, 2, K, N, 1), w_scale = constant(g, "w_scale", SDX_F32, form & 1, N, 0, 3);
    sdx_id w_zero = form & 2 ? constant(g, "w_zero", SDX_I8, form & 1, N, 0, 2) : SDX_NONE;
    sdx_id bias = constant(g, "bias", SDX_F32, 1, N, 0, 4);
    if (form & 4) {
        for (int i = 0; i < 3; i++) ok(sdx_graph_add_value(g, "q", &q[i], &err));
        ok(sdx_graph_add_node(g, "", "DynamicQuantizeLinear", "quantize", 1, &x, 3, q, NULL, &err));
        sdx_id in[] = {q[0], w, q[1], w_scale, q[2], w_zero, bias};
        ok(sdx_graph_emit(g, "com.microsoft", "MatMulIntegerToFloat", "y", 7, in, &out, &err));
    } else {
        sdx_id in[] = {x, w, w_scale, w_zero, bias};
        ok(sdx_graph_emit(g, "com.microsoft", "DynamicQuantizeMatMul", "y", 5, in, &out, &err));
    }
    ok(sdx_graph_add_output(g, out, &err));
    if (row) ok(sdx_model_set_metadata(m, "sardonyx.activation_scale", "row", &err));
    ok(sdx_graph_index(g, &err));
    return m;
}

static void fill(float *x)
{
    uint32_t seed = 9;
    for (int i = 0; i < ROWS * K; i++) x[i] = noise(&seed) * (float)(1 + i / K); /* rows of different ranges */
    memset(x, 0, K * sizeof *x);
}

/* y [rows, N] of rows of x; fused: whether a DynamicLinear must have been made. */
static void run(sdx_model *m, sdx_run_options options, float *x, int rows, bool fused, float *y)
{
    sdx_program *program;
    sdx_session *session;
    sdx_tensor in = {.dtype = SDX_F32, .rank = 2, .dim = {rows, K}, .data = x}, out;
    const char *name = "x";
    ok(sdx_program_create(m, &options, &program, &err));
    bool found = false;
    for (sdx_id i = 0; i < m->graph->n_node; i++) found |= !strcmp(m->graph->node[i].op_type, "DynamicLinear");
    ck_assert_int_eq(found, fused);
    if (fused) ck_assert_int_eq(m->graph->n_node, 1);
    ok(sdx_session_create(program, &session, &err));
    ok(sdx_session_run(session, 1, &name, &in, 1, &out, &err));
    ck_assert_int_eq(sdx_tensor_count(&out), rows * N);
    memcpy(y, out.data, sdx_tensor_bytes(&out));
    sdx_session_free(session);
    sdx_program_free(program);
}

static float x[ROWS * K], spelled[ROWS * N], y[ROWS * N];

START_TEST(fusing_changes_no_bit)
{
    fill(x);
    run(chain(_i, false), (sdx_run_options){.no_optimize = true}, x, ROWS, false, spelled);
    run(chain(_i, false), (sdx_run_options){0}, x, ROWS, true, y);
    ck_assert_mem_eq(spelled, y, sizeof y);
    run(chain(_i, true), (sdx_run_options){.strict = true}, x, ROWS, true, y);
    ck_assert_mem_eq(spelled, y, sizeof y);
    run(chain(_i, true), (sdx_run_options){0}, x, ROWS, true, y);
    ck_assert_mem_ne(spelled, y, sizeof y);
}
END_TEST

START_TEST(a_row_depends_on_nothing_else)
{
    static const char *const isas[] = {"scalar", "avx2", "avx512", NULL};
    float reference[ROWS * N], one[N];
    fill(x);
    run(chain(_i, true), (sdx_run_options){.isa = "scalar", .threads = 1}, x, ROWS, true, reference);
    for (int i = 0; i < 4; i++) {
        for (int threads = 1; threads <= 4; threads *= 2) {
            run(chain(_i, true), (sdx_run_options){.isa = isas[i], .threads = threads}, x, ROWS, true, y);
            ck_assert_mem_eq(reference, y, sizeof y);
        }
        for (int r = 0; r < ROWS; r++) {
            run(chain(_i, true), (sdx_run_options){.isa = isas[i]}, x + r * K, 1, true, one);
            ck_assert_mem_eq(reference + r * N, one, sizeof one);
        }
    }
}
END_TEST

START_TEST(a_row_is_what_the_standard_gives_it_alone)
{
    fill(x);
    run(chain(_i, true), (sdx_run_options){0}, x, ROWS, true, y);
    for (int r = 0; r < ROWS; r++) {
        run(chain(_i, false), (sdx_run_options){.no_optimize = true}, x + r * K, 1, false, spelled);
        ck_assert_mem_eq(y + r * N, spelled, N * sizeof *y);
    }
}
END_TEST

/* Factors of the columns become the layer's own, and no bit changes. */
START_TEST(factors_move_into_the_layer)
{
    fill(x);
    run(chain(_i | FACTOR, true), (sdx_run_options){0}, x, ROWS, true, y);
    for (int r = 0; r < ROWS; r++) {
        run(chain(_i | FACTOR, false), (sdx_run_options){.no_optimize = true}, x + r * K, 1, false, spelled);
        ck_assert_mem_eq(y + r * N, spelled, N * sizeof *y);
    }
}
END_TEST

/* Only by the metadata's leave, ONNX Runtime's operators have scales per row too. */
/* Mul(scale rows, Cast(code rows)); sliced: rows 1 to the input's length, else those it lists. */
static sdx_model *scaled_table(sdx_dtype dtype, bool sliced)
{
    sdx_model *m;
    sdx_id in[4], codes, scales, out;
    ok(sdx_model_create(&m, &err));
    ok(sdx_model_set_opset(m, "", 14, &err));
    sdx_graph *g = m->graph;
    sdx_shape shape = {.rank = 1, .dim = {SDX_DIM_SYMBOL(sdx_model_symbol(m, "rows"))}};
    ok(sdx_graph_add_input(g, "x", SDX_I64, &shape, &in[1], &err));
    sdx_id q = constant(g, "q", dtype, 2, 9, K, 1), scale = constant(g, "scale", SDX_F32, 2, 9, 1, 2);
    if (sliced) {
        ok(sdx_graph_emit(g, "", "Shape", "ends", 1, &in[1], &in[2], &err));
        ok(sdx_graph_add_ints(g, "starts", 1, (int64_t[]){1}, &in[1], &err));
        ok(sdx_graph_add_ints(g, "axes", 1, (int64_t[]){0}, &in[3], &err));
    }
    in[0] = q;
    ok(sdx_graph_emit(g, "", sliced ? "Slice" : "Gather", "codes", sliced ? 4 : 2, in, &codes, &err));
    in[0] = scale;
    ok(sdx_graph_emit(g, "", sliced ? "Slice" : "Gather", "scales", sliced ? 4 : 2, in, &scales, &err));
    ok(sdx_graph_emit(g, "", "Cast", "cast", 1, &codes, &codes, &err));
    ok(sdx_node_set_int(g, g->n_node - 1, "to", SDX_F32, &err));
    ok(sdx_graph_emit(g, "", "Mul", "y", 2, (sdx_id[]){scales, codes}, &out, &err));
    ok(sdx_graph_add_output(g, out, &err));
    ok(sdx_graph_index(g, &err));
    return m;
}

START_TEST(tables_of_bytes_are_read_in_one_step)
{
    static const char *const name = "x";
    int64_t index[] = {8, 0, -2, 3, 3};
    sdx_tensor in = {.dtype = SDX_I64, .rank = 1, .dim = {5}, .data = index}, out;
    float expected[5 * K];
    for (int step = 0; step < 3; step++) { /* as spelled, fused, and an index outside */
        sdx_model *m = scaled_table(_i & 1 ? SDX_U8 : SDX_I8, _i >> 1);
        sdx_program *program;
        sdx_session *session;
        ok(sdx_program_create(m, &(sdx_run_options){.no_optimize = step == 0}, &program, &err));
        bool found = false;
        for (sdx_id i = 0; i < m->graph->n_node; i++) found |= !strcmp(m->graph->node[i].op_type, "ScaledRows");
        ck_assert(found == (step > 0));
        if (step == 2) index[4] = 9;
        ok(sdx_session_create(program, &session, &err));
        sdx_status status = sdx_session_run(session, 1, &name, &in, 1, &out, &err);
        ck_assert_int_eq(status, step == 2 && !(_i >> 1) ? SDX_ERR_USAGE : SDX_OK);
        if (step == 0) memcpy(expected, out.data, sdx_tensor_bytes(&out));
        if (step == 1) ck_assert_mem_eq(expected, out.data, sdx_tensor_bytes(&out));
        sdx_session_free(session);
        sdx_program_free(program);
    }
}
END_TEST

START_TEST(shortened_chains_have_row_scales)
{
    fill(x);
    run(short_chain(_i, false), (sdx_run_options){0}, x, ROWS, false, spelled);
    run(short_chain(_i, true), (sdx_run_options){.strict = true}, x, ROWS, false, y);
    ck_assert_mem_eq(spelled, y, sizeof y);
    run(chain(_i & 3, true), (sdx_run_options){0}, x, ROWS, true, spelled);
    run(short_chain(_i, true), (sdx_run_options){0}, x, ROWS, true, y);
    ck_assert_mem_eq(spelled, y, sizeof y);
}
END_TEST

/* Attention of int8 projections over rows of x * factor: `inside`, the factor is the operator's own input. */
static void attend(bool inside, float *out)
{
    sdx_id v, attended;
    sdx_model *m = empty(&v);
    sdx_graph *g = m->graph;
    sdx_program *program;
    sdx_session *session;
    sdx_tensor got;
    int64_t *axis = sdx_arena_alloc(&m->arena, sizeof *axis);
    sdx_id axes, factor = constant(g, "f", SDX_F32, 1, K, 0, 6);
    ok(sdx_graph_add_constant(g, "axes", &(sdx_tensor){.dtype = SDX_I64, .rank = 1, .dim = {1}, .data = axis}, &axes,
                              &err));
    ok(sdx_graph_emit(g, "", "Unsqueeze", "batch", 2, (sdx_id[]){v, axes}, &v, &err));
    if (!inside) ok(sdx_graph_emit(g, "", "Mul", "smooth", 2, (sdx_id[]){v, factor}, &v, &err));
    sdx_id in[] = {v, constant(g, "w", SDX_I8, 2, K, 3 * N, 1), SDX_NONE, inside ? factor : SDX_NONE,
                   constant(g, "w_scale", SDX_F32, 0, 0, 0, 3)};
    ok(sdx_graph_emit(g, "sardonyx", "DynamicAttention", "attention", 5, in, &attended, &err));
    ok(sdx_node_set_int(g, g->n_node - 1, "num_heads", 1, &err));
    ok(sdx_graph_add_output(g, attended, &err));
    ok(sdx_graph_index(g, &err));
    ok(sdx_program_create(m, &(sdx_run_options){.no_optimize = true}, &program, &err));
    ok(sdx_session_create(program, &session, &err));
    const char *name = "x";
    sdx_tensor rows = {.dtype = SDX_F32, .rank = 2, .dim = {ROWS, K}, .data = x};
    ok(sdx_session_run(session, 1, &name, &rows, 1, &got, &err));
    ck_assert_int_eq(sdx_tensor_count(&got), ROWS * N);
    memcpy(out, got.data, sdx_tensor_bytes(&got));
    sdx_session_free(session);
    sdx_program_free(program);
}

START_TEST(attention_takes_factors)
{
    fill(x);
    attend(false, spelled);
    attend(true, y);
    ck_assert_mem_eq(spelled, y, sizeof y);
}
END_TEST

/* ---- files ----------------------------------------------------------------------------------------------- */

typedef struct files {
    char in[64], out[64];
} files;

/* rows [K] of x through two float layers, written to a file. */
static files make_file(void)
{
    files f = {"/tmp/sdx_quantize_in_XXXXXX", "/tmp/sdx_quantize_out_XXXXXX"};
    close(mkstemp(f.in));
    close(mkstemp(f.out));
    sdx_id v, w;
    sdx_model *m = empty(&v);
    w = constant(m->graph, "w", SDX_F32, 2, K, N, 5);
    ok(sdx_graph_emit(m->graph, "", "MatMul", "y", 2, (sdx_id[]){v, w}, &v, &err));
    ok(sdx_graph_add_output(m->graph, v, &err));
    ok(sdx_graph_index(m->graph, &err));
    ok(sdx_onnx_write(m, f.in, &(sdx_onnx_write_options){0}, &err));
    sdx_model_close(m);
    return f;
}

static void remove_files(const files *f)
{
    unlink(f->in);
    unlink(f->out);
}

START_TEST(only_our_recipe_allows_row_scales)
{
    static const char *const presets[] = {"accurate", NULL, NULL, "anserini", "avx512_vnni", "avx2", "arm64"};
    files f = make_file();
    /* ONNX Runtime's options alone ask for its form */
    sdx_quantize_options o = {.input = f.in, .output = f.out, .preset = presets[_i], .per_channel = _i == 2};
    sdx_quantize_report r;
    ok(sdx_quantize(&o, &r, &err));
    ck_assert_int_eq(r.quantized, 1);
    sdx_model *m;
    ok(sdx_model_open(f.out, &m, &err));
    const char *scale = sdx_model_metadata(m, "sardonyx.activation_scale");
    ck_assert_int_eq(scale != NULL, _i < 2);
    sdx_model_close(m);
    remove_files(&f);
}
END_TEST

static sdx_status next_ramp(void *context, sdx_case *out, sdx_error *e)
{
    static const char *const name = "x";
    static float ramp[2 * K];
    static const sdx_tensor t = {.dtype = SDX_F32, .rank = 2, .dim = {2, K}, .data = ramp};
    (void)e;
    int *made = context;
    for (int i = 0; i < 2 * K; i++) ramp[i] = (float)(i - K / 2) / K; /* -0.5 to 1.5 */
    *out = (sdx_case){(*made)++ < 3, &name, &t};
    return SDX_OK;
}

/* Static forms compute what the float graph does, to the steps of their codes. */
START_TEST(static_forms_are_near_the_float_graph)
{
    files f = make_file();
    int made = 0;
    sdx_quantize_options o = {.input = f.in, .output = f.out, .is_static = true, .format = (sdx_quantize_format)_i,
                              .next_case = next_ramp, .case_context = &made};
    sdx_quantize_report r;
    ok(sdx_quantize(&o, &r, &err));
    ck_assert_uint_eq(r.cases, 3);
    sdx_model *m;
    for (int i = 0; i < ROWS * K; i++) x[i] = (float)(i % (2 * K) - K / 2) / K;
    ok(sdx_model_open(f.in, &m, &err));
    run(m, (sdx_run_options){0}, x, ROWS, false, spelled);
    ok(sdx_model_open(f.out, &m, &err));
    run(m, (sdx_run_options){.strict = true}, x, ROWS, false, y);
    for (int i = 0; i < ROWS * N; i++) ck_assert_float_le(fabsf(y[i] - spelled[i]), 0.1f);
    o.next_case = NULL;
    ck_assert_int_eq(sdx_quantize(&o, &r, &err), SDX_ERR_USAGE);
    remove_files(&f);
}
END_TEST

START_TEST(blocks_of_weights_are_near_the_float_graph)
{
    int bits = _i ? 8 : 4;
    files f = make_file();
    sdx_quantize_options o = {.input = f.in, .output = f.out, .weight_bits = bits, .block_size = 16};
    sdx_quantize_report r;
    ok(sdx_quantize(&o, &r, &err));
    sdx_model *m;
    fill(x); /* row 1 is noise */
    ok(sdx_model_open(f.in, &m, &err));
    run(m, (sdx_run_options){0}, x + K, 1, false, spelled);
    ok(sdx_model_open(f.out, &m, &err));
    run(m, (sdx_run_options){0}, x + K, 1, false, y);
    /* a step is 2 / (2^bits - 1), an error half of it, and 70 of them add up */
    for (int i = 0; i < N; i++) ck_assert_float_le(fabsf(y[i] - spelled[i]), 2.0f * 70 / (float)((1 << bits) - 1) / 2);
    remove_files(&f);
}
END_TEST

/* op(x W), or x W, with x and W of the graph around. */
static sdx_graph *branch(sdx_graph *around, sdx_id x_id, sdx_id w, const char *op)
{
    sdx_graph *g;
    sdx_id in[2], out;
    ok(sdx_graph_create(around->model, around, &g, &err));
    ok(sdx_graph_add_value(g, "x", &in[0], &err));
    ok(sdx_graph_add_value(g, "w", &in[1], &err));
    g->value[in[0]].outer = x_id;
    g->value[in[1]].outer = w;
    ok(sdx_graph_emit(g, "", "MatMul", "product", 2, in, &out, &err));
    if (op) ok(sdx_graph_emit(g, "", op, "changed", 1, &out, &out, &err));
    ok(sdx_graph_add_output(g, out, &err));
    ok(sdx_graph_index(g, &err));
    return g;
}

/* max(x) > 0 ? x W : -(x W), written over the file. */
static void write_branches(const char *path)
{
    sdx_id v;
    sdx_model *m = empty(&v);
    sdx_graph *g = m->graph;
    sdx_id w = constant(g, "w", SDX_F32, 2, K, N, 5), largest, zero, condition, out;
    ok(sdx_graph_emit(g, "", "ReduceMax", "largest", 1, &v, &largest, &err));
    ok(sdx_node_set_int(g, g->n_node - 1, "keepdims", 0, &err));
    ok(sdx_graph_add_scalar_f32(g, "nothing", 0, &zero, &err));
    ok(sdx_graph_emit(g, "", "Greater", "condition", 2, (sdx_id[]){largest, zero}, &condition, &err));
    ok(sdx_graph_emit(g, "", "If", "either", 1, &condition, &out, &err));
    ok(sdx_node_set_graph(g, g->n_node - 1, "then_branch", branch(g, v, w, NULL), &err));
    ok(sdx_node_set_graph(g, g->n_node - 1, "else_branch", branch(g, v, w, "Neg"), &err));
    ok(sdx_graph_add_output(g, out, &err));
    ok(sdx_graph_index(g, &err));
    ok(sdx_onnx_write(m, path, &(sdx_onnx_write_options){0}, &err));
    sdx_model_close(m);
}

static int count_matrices(const sdx_model *m)
{
    int count = 0;
    for (const sdx_graph *g = m->graphs; g; g = g->next)
        for (sdx_id v = 0; v < g->n_value; v++) {
            const sdx_tensor *t = sdx_value_stored(&g->value[v]);
            count += t && sdx_tensor_count(t) >= K * N;
        }
    return count;
}

/* A weight of the graph around that two branches read is one matrix of codes, in each form. */
START_TEST(branches_share_the_codes_of_a_weight)
{
    files f = make_file();
    sdx_quantize_options o = {.input = f.in, .output = f.out, .per_channel = _i == 1, .weight_bits = _i == 2 ? 8 : 0};
    sdx_quantize_report r;
    sdx_model *m;
    write_branches(f.in);
    ok(sdx_quantize(&o, &r, &err));
    ck_assert_uint_eq(r.quantized, 2);
    ok(sdx_model_open(f.out, &m, &err));
    ck_assert_int_eq(count_matrices(m), 1);
    sdx_model_close(m);
    for (int sign = -1; sign <= 1; sign += 2) {
        for (int i = 0; i < 2 * K; i++) x[i] = (float)(sign * (i + 1)) / (2 * K);
        ok(sdx_model_open(f.in, &m, &err));
        run(m, (sdx_run_options){0}, x, 2, false, spelled);
        ok(sdx_model_open(f.out, &m, &err));
        run(m, (sdx_run_options){.strict = true}, x, 2, false, y);
        for (int i = 0; i < 2 * N; i++) ck_assert_float_le(fabsf(y[i] - spelled[i]), 0.1f);
    }
    remove_files(&f);
}
END_TEST

START_TEST(mistakes_are_named)
{
    files f = make_file();
    sdx_quantize_report r;
    sdx_quantize_options o = {.input = f.in, .output = f.out, .preset = "avx1024"};
    ck_assert_int_eq(sdx_quantize(&o, &r, &err), SDX_ERR_USAGE);
    ck_assert_ptr_nonnull(strstr(err.message, "avx512_vnni"));
    const char *nobody = "nobody";
    o = (sdx_quantize_options){.input = f.in, .output = f.out, .weight_bits = 3};
    ck_assert_int_eq(sdx_quantize(&o, &r, &err), SDX_ERR_USAGE);
    o = (sdx_quantize_options){.input = f.in, .output = f.out, .op_types = "MatMul,Softmax"};
    ck_assert_int_eq(sdx_quantize(&o, &r, &err), SDX_ERR_USAGE);
    o = (sdx_quantize_options){.input = f.in, .output = f.out, .format = SDX_QUANTIZE_QDQ};
    ck_assert_int_eq(sdx_quantize(&o, &r, &err), SDX_ERR_USAGE);
    o = (sdx_quantize_options){.input = f.in, .output = f.out, .exclude = &nobody, .n_exclude = 1};
    ck_assert_int_eq(sdx_quantize(&o, &r, &err), SDX_ERR_USAGE);
    ck_assert_ptr_nonnull(strstr(err.message, nobody));
    remove_files(&f);
}
END_TEST

static void setup(void)
{
    err = (sdx_error){0};
}

Suite *quantize_suite(void);
Suite *quantize_suite(void)
{
    Suite *s = suite_create("quantize");
    TCase *c = tcase_create("quantize");
    tcase_add_checked_fixture(c, setup, NULL);
    tcase_add_test(c, ranges_become_scales_and_zero_points);
    tcase_add_loop_test(c, fusing_changes_no_bit, 0, 20);
    tcase_add_loop_test(c, a_row_depends_on_nothing_else, 0, 8);
    tcase_add_loop_test(c, a_row_is_what_the_standard_gives_it_alone, 0, 20);
    tcase_add_loop_test(c, factors_move_into_the_layer, 0, 20);
    tcase_add_loop_test(c, tables_of_bytes_are_read_in_one_step, 0, 4);
    tcase_add_loop_test(c, shortened_chains_have_row_scales, 0, 8);
    tcase_add_test(c, attention_takes_factors);
    tcase_add_loop_test(c, only_our_recipe_allows_row_scales, 0, 7);
    tcase_add_test(c, a_histogram_does_not_depend_on_how_values_come);
    tcase_add_test(c, an_empty_histogram_has_no_range);
    tcase_add_loop_test(c, static_forms_are_near_the_float_graph, 0, 2);
    tcase_add_loop_test(c, blocks_of_weights_are_near_the_float_graph, 0, 2);
    tcase_add_loop_test(c, branches_share_the_codes_of_a_weight, 0, 3);
    tcase_add_test(c, mistakes_are_named);
    suite_add_tcase(s, c);
    return s;
}
