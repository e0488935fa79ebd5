/* test_ops_attention.c: attention of ONNX and of decoders, rotary positions, caches, block-quantized weights
 * and the QLinear operators: against naive loops in double, against themselves with a cache, and what they
 * refuse. */
#include "trial.h"

#define MS                    "com.microsoft"
#define I64(data, rank, ...)  view(SDX_I64, rank, (int64_t[]){__VA_ARGS__}, data)
#define U8(data, rank, ...)   view(SDX_U8, rank, (int64_t[]){__VA_ARGS__}, data)
#define BOOL(data, rank, ...) view(SDX_BOOL, rank, (int64_t[]){__VA_ARGS__}, data)

static void expect_refusal(trial *t, const char *words)
{
    sdx_error err;
    ck_assert_int_ne(try_run(t, &err), SDX_OK);
    ck_assert_msg(strstr(err.message, words), "\"%s\" lacks \"%s\"", err.message, words);
}

/* ---- Attention of ONNX ----------------------------------------------------------------------------------- */

enum { B = 2, N = 4, NKV = 2, S = 3, P = 2, T = P + S, H = 8, HV = 6 };

typedef struct tensors {
    float q[B * N * S * H], k[B * NKV * S * H], v[B * NKV * S * HV], past_k[B * NKV * P * H],
        past_v[B * NKV * P * HV];
    float mask[N * S * T];
    uint8_t allowed[S * T];
} tensors;

static tensors *make_tensors(void)
{
    static tensors x;
    fill(x.q, B * N * S * H, 1);
    fill(x.k, B * NKV * S * H, 2);
    fill(x.v, B * NKV * S * HV, 3);
    fill(x.past_k, B * NKV * P * H, 4);
    fill(x.past_v, B * NKV * P * HV, 5);
    fill(x.mask, N * S * T, 6);
    for (int i = 0; i < S * T; i++) x.allowed[i] = i % 3 != 1;
    return &x;
}

static double key_at(const tensors *x, int b, int g, int j, int d)
{
    return j < P ? x->past_k[((b * NKV + g) * P + j) * H + d] : x->k[((b * NKV + g) * S + j - P) * H + d];
}

static double value_at(const tensors *x, int b, int g, int j, int d)
{
    return j < P ? x->past_v[((b * NKV + g) * P + j) * HV + d] : x->v[((b * NKV + g) * S + j - P) * HV + d];
}

/* Y [B,N,S,HV] with a past; weights [B,N,S,T]. */
static void naive(const tensors *x, bool causal, double cap, bool mask, bool allowed, double *y,
                  double *weights)
{
    for (int r = 0; r < B * N * S; r++) {
        int b = r / N / S, h = r / S % N, i = r % S, g = h / (N / NKV);
        double *w = weights + r * T, sum = 0;
        for (int j = 0; j < T; j++) {
            double s = 0;
            for (int d = 0; d < H; d++) s += (double)x->q[r * H + d] * key_at(x, b, g, j, d);
            s /= sqrt(H);
            if (cap != 0) s = cap * tanh(s / cap);
            if (mask) s += (double)x->mask[(h * S + i) * T + j];
            bool hidden = (causal && j > i + P) || (allowed && !x->allowed[i * T + j]);
            sum += w[j] = hidden ? 0 : exp(s);
        }
        for (int j = 0; j < T; j++) w[j] /= sum;
        for (int d = 0; d < HV; d++) {
            y[r * HV + d] = 0;
            for (int j = 0; j < T; j++) y[r * HV + d] += w[j] * value_at(x, b, g, j, d);
        }
    }
}

static trial onnx_trial(tensors *x)
{
    return (trial){.domain = "",
                   .op = "Attention",
                   .opset = 24,
                   .n_in = 6,
                   .n_out = 4,
                   .in = {F32(x->q, 4, B, N, S, H),
                          F32(x->k, 4, B, NKV, S, H),
                          F32(x->v, 4, B, NKV, S, HV),
                          {0},
                          F32(x->past_k, 4, B, NKV, P, H),
                          F32(x->past_v, 4, B, NKV, P, HV)}};
}

START_TEST(onnx_attention_agrees_with_loops)
{
    tensors *x = make_tensors();
    static double y[B * N * S * HV], weights[B * N * S * T];
    bool causal = _i & 1, mask = _i & 2, allowed = !mask && _i & 8;
    double cap = _i & 4 ? 0.5 : 0;
    naive(x, causal, cap, mask, allowed, y, weights);
    trial t = onnx_trial(x), many;
    if (mask) t.in[3] = F32(x->mask, 3, N, S, T);
    if (allowed) t.in[3] = BOOL(x->allowed, 2, S, T);
    t.attr[0] = (attribute)WHOLE("is_causal", causal);
    t.attr[1] = (attribute)REAL("softcap", cap);
    t.attr[2] = (attribute)WHOLE("qk_matmul_output_mode", 3);
    many = t;
    many.threads = 3;
    run(&t);
    run(&many);
    expect_close(&t.out[0], y, B * N * S * HV, 1e-5);
    expect_close(&t.out[3], weights, B * N * S * T, 1e-5);
    for (int o = 0; o < 4; o++) expect_same_bits(&t.out[o], &many.out[o]);
    done(&many);
    done(&t);
    t.n_out = 1; /* the fused kernel, when nobody asks for the weights */
    run(&t);
    expect_close(&t.out[0], y, B * N * S * HV, 1e-5);
    done(&t);
}
END_TEST

START_TEST(a_query_without_keys_gives_zeros)
{
    tensors *x = make_tensors();
    static const uint8_t none[S * T];
    trial t = onnx_trial(x);
    t.in[3] = BOOL(none, 2, S, T);
    t.n_out = 1 + 3 * _i;
    run(&t);
    const float *y = t.out[0].data;
    for (int i = 0; i < B * N * S * HV; i++) ck_assert(y[i] == 0);
    done(&t);
}
END_TEST

START_TEST(onnx_attention_refuses_contradictions)
{
    tensors *x = make_tensors();
    static const int64_t too_many[B] = {S, S + 1};
    trial t = onnx_trial(x);
    t.in[3] = F32(x->mask, 2, S, T + 1);
    expect_refusal(&t, "attn_mask");
    t = onnx_trial(x);
    t.in[5] = (sdx_tensor){0};
    expect_refusal(&t, "come together");
    t = onnx_trial(x);
    t.in[4] = t.in[5] = (sdx_tensor){0};
    t.n_in = 7;
    t.n_out = 1;
    t.in[6] = I64(too_many, 1, B);
    expect_refusal(&t, "nonpad_kv_seqlen says 4 of 3");
    t = onnx_trial(x);
    t.in[1] = F32(x->k, 4, B, 1, S, H); /* another number of heads */
    expect_refusal(&t, "K has 1 heads, V 2");
}
END_TEST

/* ---- caches of decoders ---------------------------------------------------------------------------------- */

enum { TOKENS = 6, HIDDEN = N * H, KV = NKV * H };

typedef struct decoder {
    float q[TOKENS * HIDDEN], k[TOKENS * KV], v[TOKENS * KV], cos[TOKENS * H / 2], sin[TOKENS * H / 2];
    int32_t last, total;
} decoder;

static decoder *make_decoder(void)
{
    static decoder d;
    fill(d.q, TOKENS * HIDDEN, 11);
    fill(d.k, TOKENS * KV, 12);
    fill(d.v, TOKENS * KV, 13);
    for (int i = 0; i < TOKENS * H / 2; i++) {
        d.cos[i] = cosf((float)i);
        d.sin[i] = sinf((float)i);
    }
    return &d;
}

/* Tokens [from, to) of one sequence after those before them. */
static trial decoder_trial(decoder *d, int from, int to, const sdx_tensor *past)
{
    d->last = to - 1;
    d->total = to;
    int n = to - from;
    trial t = {.domain = MS,
               .op = "GroupQueryAttention",
               .n_in = 9,
               .n_out = 3,
               .in = {F32(d->q + from * HIDDEN, 3, 1, n, HIDDEN), F32(d->k + from * KV, 3, 1, n, KV),
                      F32(d->v + from * KV, 3, 1, n, KV), past ? past[1] : (sdx_tensor){0},
                      past ? past[2] : (sdx_tensor){0}, I32(&d->last, 1, 1), I32(&d->total, 0, 1),
                      F32(d->cos, 2, TOKENS, H / 2), F32(d->sin, 2, TOKENS, H / 2)},
               .attr = {WHOLE("num_heads", N), WHOLE("kv_num_heads", NKV), WHOLE("do_rotary", 1)}};
    return t;
}

START_TEST(a_step_with_a_cache_is_the_last_row_of_the_prompt)
{
    decoder *d = make_decoder();
    attribute window = WHOLE("local_window_size", _i ? 3 : -1);
    trial whole = decoder_trial(d, 0, TOKENS, NULL);
    whole.attr[3] = window;
    run(&whole);
    trial first = decoder_trial(d, 0, TOKENS - 1, NULL);
    first.attr[3] = window;
    run(&first);
    trial step = decoder_trial(d, TOKENS - 1, TOKENS, first.out);
    step.attr[3] = window;
    run(&step);
    const float *all = whole.out[0].data, *one = step.out[0].data;
    for (int i = 0; i < HIDDEN; i++) ck_assert_float_eq_tol(one[i], all[(TOKENS - 1) * HIDDEN + i], 1e-6f);
    expect_same_bits(&whole.out[1], &step.out[1]);
    expect_same_bits(&whole.out[2], &step.out[2]);
    done(&whole);
    done(&first);
    done(&step);
}
END_TEST

START_TEST(group_query_refuses_what_would_read_outside)
{
    decoder *d = make_decoder();
    trial t = decoder_trial(d, 0, TOKENS, NULL);
    int32_t far = 100;
    t.in[5] = I32(&far, 1, 1);
    expect_refusal(&t, "a length of 101");
    t = decoder_trial(d, 0, 3, NULL);
    d->last = 4; /* two tokens of a past that is not there */
    d->total = 5;
    expect_refusal(&t, "0 past");
    t = decoder_trial(d, 0, TOKENS, NULL);
    t.in[7] = F32(d->cos, 2, TOKENS - 1, H / 2);
    t.in[8] = F32(d->sin, 2, TOKENS - 1, H / 2);
    expect_refusal(&t, "position 5");
    t = decoder_trial(d, 0, TOKENS, NULL);
    d->total = 2;
    expect_refusal(&t, "total_sequence_length 2");
}
END_TEST

/* MultiHeadAttention with its past in a larger buffer, and what is left of the buffer. */
START_TEST(a_buffer_works_as_a_past_of_its_valid_rows)
{
    enum { ROOM = 7, OLD = 2 };
    static float q[S * HIDDEN], k[S * HIDDEN], v[S * HIDDEN], buffer[2][N * ROOM * H], past[2][N * OLD * H];
    int32_t old = OLD, too_old = ROOM - S + 1;
    fill(q, S * HIDDEN, 21);
    fill(k, S * HIDDEN, 22);
    fill(v, S * HIDDEN, 23);
    for (int c = 0; c < 2; c++) {
        fill(buffer[c], N * ROOM * H, (uint32_t)(24 + c));
        for (int h = 0; h < N; h++)
            memcpy(past[c] + h * OLD * H, buffer[c] + h * ROOM * H, OLD * H * sizeof(float));
    }
    trial t = {.domain = MS,
               .op = "MultiHeadAttention",
               .n_in = 8,
               .n_out = 3,
               .in = {F32(q, 3, 1, S, HIDDEN),
                      F32(k, 3, 1, S, HIDDEN),
                      F32(v, 3, 1, S, HIDDEN),
                      {0},
                      {0},
                      {0},
                      F32(past[0], 4, 1, N, OLD, H),
                      F32(past[1], 4, 1, N, OLD, H)},
               .attr = {WHOLE("num_heads", N), WHOLE("unidirectional", 1)}};
    run(&t);
    trial shared = t;
    shared.n_in = 9;
    shared.in[6] = F32(buffer[0], 4, 1, N, ROOM, H);
    shared.in[7] = F32(buffer[1], 4, 1, N, ROOM, H);
    shared.in[8] = I32(&old, 1, 1);
    run(&shared);
    expect_same_bits(&t.out[0], &shared.out[0]);
    const float *present = shared.out[1].data, *tail = present + (ROOM - 1) * H;
    ck_assert_int_eq(shared.out[1].dim[2], ROOM);
    ck_assert(!memcmp(present + OLD * H, (const float *)t.out[1].data + OLD * H, S * H * sizeof(float)));
    ck_assert(!memcmp(tail, buffer[0] + (ROOM - 1) * H, H * sizeof(float)));
    done(&t);
    done(&shared);
    shared.in[8] = I32(&too_old, 1, 1);
    expect_refusal(&shared, "do not fit a buffer of 7");
}
END_TEST

START_TEST(rotary_positions_are_checked)
{
    decoder *d = make_decoder();
    static const int64_t outside[2] = {0, TOKENS}, offset[1] = {TOKENS - 1};
    trial t = {.domain = "",
               .op = "RotaryEmbedding",
               .opset = 23,
               .n_in = 4,
               .n_out = 1,
               .in = {F32(d->q, 3, 1, 2, HIDDEN), F32(d->cos, 2, TOKENS, H / 2), F32(d->sin, 2, TOKENS, H / 2),
                      I64(outside, 2, 1, 2)},
               .attr = {WHOLE("num_heads", N)}};
    expect_refusal(&t, "position 6 is outside tables of 6 rows");
    trial ms = {.domain = MS,
                .op = "RotaryEmbedding",
                .n_in = 4,
                .n_out = 1,
                .in = {t.in[0], I64(offset, 1, 1), t.in[1], t.in[2]}};
    expect_refusal(&ms, "position 5"); /* the second row would be position 6 */
    t.attr[0].whole = 3;
    expect_refusal(&t, "32 columns");
}
END_TEST

/* ---- beams that share their past ------------------------------------------------------------------------- */

START_TEST(beams_read_the_rows_of_each_other)
{
    enum { BEAMS = 2, HEADS = 2, DIM = 4, ROOM = 3, PAST = 2, ROW = HEADS * DIM, CACHE = HEADS * ROOM * DIM };
    static const int32_t from[BEAMS * ROOM] = {1, 0, 9, 0, 1, 9}, past_length = PAST, wrong[BEAMS * ROOM] = {2};
    float x[3][BEAMS * ROW], past[2][BEAMS * CACHE], own[2][BEAMS * CACHE];
    for (uint32_t i = 0; i < 3; i++) fill(x[i], BEAMS * ROW, 71 + i);
    for (uint32_t i = 0; i < 2; i++) {
        fill(past[i], BEAMS * CACHE, 81 + i);
        for (int64_t at = 0; at < BEAMS * CACHE; at++) {
            int64_t row = at / CACHE, token = at / DIM % ROOM;
            own[i][at] = past[i][(token < PAST ? from[row * ROOM + token] : row) * CACHE + at % CACHE];
        }
    }
    trial t = {.domain = MS,
               .op = "MultiHeadAttention",
               .n_in = 10,
               .n_out = 1,
               .in = {F32(x[0], 3, BEAMS, 1, ROW),
                      F32(x[1], 3, BEAMS, 1, ROW),
                      F32(x[2], 3, BEAMS, 1, ROW),
                      {0},
                      {0},
                      {0},
                      F32(past[0], 4, BEAMS, HEADS, ROOM, DIM),
                      F32(past[1], 4, BEAMS, HEADS, ROOM, DIM),
                      I32(&past_length, 1, 1),
                      I32(from, 3, 1, BEAMS, ROOM)},
               .attr = {WHOLE("num_heads", HEADS)}};
    trial alone = t;
    alone.n_in = 9;
    for (int i = 0; i < 2; i++) alone.in[6 + i].data = own[i];
    run(&t);
    run(&alone);
    expect_same_bits(&t.out[0], &alone.out[0]);
    done(&t);
    done(&alone);
    t.in[9].data = (void *)wrong;
    expect_refusal(&t, "names beam 2 of 2");
}
END_TEST

/* ---- half precision around an operator of float32 -------------------------------------------------------- */

static uint16_t to_half(sdx_dtype dtype, float x) { return dtype == SDX_F16 ? sdx_f32_to_f16(x) : sdx_f32_to_bf16(x); }
static float of_half(sdx_dtype dtype, uint16_t x) { return dtype == SDX_F16 ? sdx_f16_to_f32(x) : sdx_bf16_to_f32(x); }

/* Outputs are those of the same numbers in float32, rounded once; _i: the type, and whether the weight is constant. */
START_TEST(half_precision_is_float32_rounded)
{
    enum { IN = 8, COLUMNS = 24, X = S * IN, W = IN * COLUMNS };
    sdx_dtype dtype = _i & 1 ? SDX_BF16 : SDX_F16;
    float x[X], w[W], bias[COLUMNS];
    uint16_t hx[X], hw[W], hbias[COLUMNS];
    float *wide[] = {x, w, bias};
    uint16_t *narrow[] = {hx, hw, hbias};
    for (int i = 0, n[] = {X, W, COLUMNS}; i < 3; i++) {
        fill(wide[i], n[i], 61 + (uint32_t)i);
        for (int k = 0; k < n[i]; k++) wide[i][k] = of_half(dtype, narrow[i][k] = to_half(dtype, wide[i][k]));
    }
    trial full = {.domain = MS,
                  .op = "Attention",
                  .n_in = 3,
                  .n_out = 2,
                  .constant = _i & 2 ? 1u << 1 : 0,
                  .in = {F32(x, 3, 1, S, IN), F32(w, 2, IN, COLUMNS), F32(bias, 1, COLUMNS)},
                  .attr = {WHOLE("num_heads", 2), WHOLE("unidirectional", 1)}};
    trial half = full;
    for (int i = 0; i < 3; i++) {
        half.in[i].dtype = dtype;
        half.in[i].data = narrow[i];
    }
    run(&full);
    run(&half);
    for (int o = 0; o < 2; o++) {
        ck_assert_int_eq(half.out[o].dtype, dtype);
        for (int64_t k = 0; k < sdx_tensor_count(&full.out[o]); k++)
            ck_assert_uint_eq(((uint16_t *)half.out[o].data)[k], to_half(dtype, ((float *)full.out[o].data)[k]));
    }
    done(&full);
    done(&half);
    half.in[1] = full.in[1];
    expect_refusal(&half, _i & 1 ? "its inputs mix float32 and bfloat16" : "its inputs mix float32 and float16");
}
END_TEST

/* ---- 8-bit attention without a bias ---------------------------------------------------------------------- */

START_TEST(qattention_needs_no_bias)
{
    enum { IN = 8, COLUMNS = 24 };
    static uint8_t x[S * IN], w[IN * COLUMNS];
    static float zeros[COLUMNS], x_scale = 0.02f, w_scale = 0.01f;
    static const uint8_t zero = 128;
    fill_bytes(x, sizeof x, 31);
    fill_bytes(w, sizeof w, 32);
    trial t = {.domain = MS,
               .op = "QAttention",
               .n_in = 8,
               .n_out = 1,
               .constant = 1u << 1,
               .in = {U8(x, 3, 1, S, IN),
                      U8(w, 2, IN, COLUMNS),
                      F32(zeros, 1, COLUMNS),
                      F32(&x_scale, 1, 1),
                      F32(&w_scale, 1, 1),
                      {0},
                      U8(&zero, 1, 1),
                      U8(&zero, 1, 1)},
               .attr = {WHOLE("num_heads", 2)}};
    trial bare = t;
    bare.in[2] = (sdx_tensor){0};
    run(&t);
    run(&bare);
    expect_same_bits(&t.out[0], &bare.out[0]);
    done(&t);
    done(&bare);
    bare.in[3] = (sdx_tensor){0};
    expect_refusal(&bare, "the input's scale (input 3) is missing");
}
END_TEST

/* ---- weights in blocks ----------------------------------------------------------------------------------- */

START_TEST(block_quantized_weights_agree_with_loops)
{
    enum { ROWS = 3, K = 40, COLUMNS = 5, BLOCK = 16, BLOCKS = 3 };
    int bits = 2 << _i, per_byte = 8 / bits, bytes = BLOCKS * BLOCK / per_byte,
        zero_bytes = (BLOCKS * bits + 7) / 8;
    static float a[ROWS * K], scale[COLUMNS * BLOCKS];
    static uint8_t w[COLUMNS * BLOCKS * BLOCK], zero[COLUMNS * BLOCKS];
    static double want[ROWS * COLUMNS];
    fill(a, ROWS * K, 41);
    fill(scale, COLUMNS * BLOCKS, 42);
    fill_bytes(w, sizeof w, 43);
    fill_bytes(zero, sizeof zero, 44);
    for (int i = 0; i < ROWS * COLUMNS; i++) {
        int j = i % COLUMNS;
        want[i] = 0;
        for (int k = 0; k < K; k++) {
            int block = k / BLOCK, mask = (1 << bits) - 1;
            int q = w[j * bytes + k / per_byte] >> k % per_byte * bits & mask;
            int z = zero[j * zero_bytes + block / per_byte] >> block % per_byte * bits & mask;
            want[i] += (double)a[i / COLUMNS * K + k] * (q - z) * (double)scale[j * BLOCKS + block];
        }
    }
    trial t = {.domain = MS,
               .op = "MatMulNBits",
               .n_in = 4,
               .n_out = 1,
               .constant = 14,
               .in = {F32(a, 2, ROWS, K), U8(w, 3, COLUMNS, BLOCKS, bytes / BLOCKS),
                      F32(scale, 2, COLUMNS, BLOCKS), U8(zero, 2, COLUMNS, zero_bytes)},
               .attr = {WHOLE("K", K), WHOLE("N", COLUMNS), WHOLE("bits", bits), WHOLE("block_size", BLOCK)}};
    trial live = t;
    live.constant = 0;
    run(&t);
    run(&live);
    expect_close(&t.out[0], want, ROWS * COLUMNS, 1e-5);
    expect_same_bits(&t.out[0], &live.out[0]);
    done(&t);
    done(&live);
    t.attr[1].whole = COLUMNS + 1;
    expect_refusal(&t, "the weight has shape");
    t.attr[1].whole = (int64_t)1e18;
    expect_refusal(&t, "make no sense");
}
END_TEST

/* ---- QLinear operators ----------------------------------------------------------------------------------- */

START_TEST(qlinear_operators_are_float_ones_between_codes)
{
    enum { COUNT = 24 };
    static uint8_t a[COUNT], b[COUNT], a_zero = 100, b_zero = 9, y_zero = 77;
    static float a_scale = 0.031f, b_scale = 0.017f, y_scale = 0.043f;
    fill_bytes(a, COUNT, 51);
    fill_bytes(b, COUNT, 52);
    trial t = {.domain = MS,
               .op = _i ? "QLinearMul" : "QLinearAdd",
               .n_in = 8,
               .n_out = 1,
               .in = {U8(a, 2, 4, 6), F32(&a_scale, 1, 1), U8(&a_zero, 1, 1), U8(b, 2, 4, 6),
                      F32(&b_scale, 1, 1), U8(&b_zero, 1, 1), F32(&y_scale, 1, 1), U8(&y_zero, 1, 1)}};
    run(&t);
    for (int i = 0; i < COUNT; i++) {
        double x = (a[i] - a_zero) * (double)a_scale, y = (b[i] - b_zero) * (double)b_scale;
        double q = fmin(fmax(rint((_i ? x * y : x + y) / (double)y_scale) + y_zero, 0), 255);
        ck_assert_int_eq(((const uint8_t *)t.out[0].data)[i], (int)q);
    }
    done(&t);
    t.in[6] = F32(&y_scale, 1, 0);
    expect_refusal(&t, "must be one number");
    trial concat = {
        .domain = MS, .op = "QLinearConcat", .n_in = 4, .n_out = 1, .in = {t.in[1], t.in[7], t.in[0], t.in[1]}};
    concat.attr[0] = (attribute)WHOLE("axis", 0);
    expect_refusal(&concat, "(value, scale, zero point)");
}
END_TEST

/* a + b/2 in units of y's scale is a tie, which goes to even; 0 times a value that is too large for a float is 0. */
START_TEST(qlinear_sums_and_products_are_exact)
{
    static const uint8_t a[4] = {129, 130, 128, 200}, half = 255, zero[2] = {128, 0}, b[4] = {0, 0, 0, 0};
    static const float scale = 2.0f / 255, small = 1.0f / 255, one = 1, huge = 2.6793888e36f;
    trial sum = {.domain = MS,
                 .op = "QLinearAdd",
                 .n_in = 8,
                 .n_out = 1,
                 .in = {U8(a, 1, 4), F32(&scale, 1, 1), U8(&zero[0], 1, 1), U8(&half, 1, 1), F32(&small, 1, 1),
                        U8(&zero[1], 1, 1), F32(&scale, 1, 1), U8(&zero[1], 1, 1)}};
    trial product = sum;
    product.op = "QLinearMul";
    product.in[0] = U8(b, 1, 4);
    product.in[1] = product.in[6] = F32(&one, 1, 1);
    product.in[2] = U8(&zero[1], 1, 1);
    product.in[4] = F32(&huge, 1, 1);
    run(&sum);
    run(&product);
    ck_assert(!memcmp(sum.out[0].data, (uint8_t[]){128, 130, 128, 200}, 4)); /* 128.5 129.5 127.5 199.5 */
    ck_assert(!memcmp(product.out[0].data, b, 4));
    done(&sum);
    done(&product);
}
END_TEST

START_TEST(qgemm_agrees_with_loops)
{
    enum { ROWS = 3, K = 7, COLUMNS = 4 };
    static uint8_t a[K * ROWS], b[COLUMNS * K], a_zero = 12, b_zero[COLUMNS] = {1, 2, 3, 200};
    static float a_scale = 0.01f, b_scale[COLUMNS] = {0.02f, 0.03f, 0.01f, 0.05f};
    static int32_t c[COLUMNS] = {5, -6, 700, 8};
    static double want[ROWS * COLUMNS];
    fill_bytes(a, sizeof a, 61);
    fill_bytes(b, sizeof b, 62);
    for (int i = 0; i < ROWS * COLUMNS; i++) {
        int j = i % COLUMNS, sum = c[j];
        for (int k = 0; k < K; k++) sum += (a[k * ROWS + i / COLUMNS] - a_zero) * (b[j * K + k] - b_zero[j]);
        want[i] = sum * 0.5 * (double)a_scale * (double)b_scale[j];
    }
    trial t = {.domain = MS,
               .op = "QGemm",
               .n_in = 7,
               .n_out = 1,
               .in = {U8(a, 2, K, ROWS), F32(&a_scale, 1, 1), U8(&a_zero, 1, 1), U8(b, 2, COLUMNS, K),
                      F32(b_scale, 1, COLUMNS), U8(b_zero, 1, COLUMNS), I32(c, 1, COLUMNS)},
               .attr = {WHOLE("transA", 1), WHOLE("transB", 1), REAL("alpha", 0.5)}};
    trial packed = t;
    packed.constant = 1u << 3;
    run(&t);
    run(&packed);
    expect_close(&t.out[0], want, ROWS * COLUMNS, 1e-5);
    expect_same_bits(&t.out[0], &packed.out[0]);
    done(&t);
    done(&packed);
}
END_TEST

/* ---- relative positions, padding, matrices --------------------------------------------------------------- */

START_TEST(near_positions_have_buckets_of_their_own)
{
    enum { BUCKETS = 8, L = 20 };
    static float table[BUCKETS];
    static const int64_t length = L, other = L + 1;
    for (int i = 0; i < BUCKETS; i++) table[i] = (float)i;
    trial t = {.domain = MS,
               .op = "RelativePositionBias",
               .n_in = 3,
               .n_out = 1,
               .in = {F32(table, 2, BUCKETS, 1), I64(&length, 1, 1), I64(&length, 1, 1)},
               .attr = {WHOLE("max_distance", 8), WHOLE("is_bidirectional", 0)}};
    run(&t);
    const float *y = t.out[0].data;
    for (int j = 0; j < L; j++) {
        int back = 10 - j; /* from query 10 */
        int bucket = back <= 0 ? 0 : back < 4 ? back : back < 8 ? -1 : 7;
        if (bucket >= 0) ck_assert_int_eq((int)y[10 * L + j], bucket);
    }
    done(&t);
    t.in[2] = I64(&other, 1, 1);
    expect_refusal(&t, "must be equal");
}
END_TEST

START_TEST(padding_comes_back_as_zeros)
{
    static float x[2 * 3 * 2];
    static int32_t count[2] = {1, 3}, wrong[2] = {1, 4}, outside[4] = {0, 3, 4, 6};
    fill(x, 12, 71);
    trial t = {.domain = MS,
               .op = "RemovePadding",
               .n_in = 2,
               .n_out = 4,
               .in = {F32(x, 3, 2, 3, 2), I32(count, 1, 2)}};
    run(&t);
    ck_assert_int_eq(t.out[0].dim[0], 4);
    trial back = {.domain = MS, .op = "RestorePadding", .n_in = 2, .n_out = 1, .in = {t.out[0], t.out[1]}};
    run(&back);
    const float *y = back.out[0].data;
    for (int i = 0; i < 12; i++) ck_assert_float_eq(y[i], i >= 2 && i < 6 ? 0.0f : x[i]);
    done(&back);
    back.in[1] = I32(outside, 2, 2, 2);
    expect_refusal(&back, "token_offset 4 is outside 4 places");
    done(&t);
    t.in[1] = I32(wrong, 1, 2);
    expect_refusal(&t, "has 4 tokens of 3");
}
END_TEST

START_TEST(a_singular_matrix_has_no_inverse)
{
    static const float m[4] = {0, 2, 4, 0}, singular[4] = {1, 2, 2, 4};
    static const double want[4] = {0, 0.25, 0.5, 0};
    trial t = {.domain = MS, .op = "Inverse", .n_in = 1, .n_out = 1, .in = {F32(m, 2, 2, 2)}};
    run(&t);
    expect_close(&t.out[0], want, 4, 1e-7);
    done(&t);
    t.in[0] = F32(singular, 2, 2, 2);
    expect_refusal(&t, "singular");
}
END_TEST

Suite *ops_attention_suite(void)
{
    Suite *s = suite_create("ops_attention");
    TCase *c = tcase_create("attention");
    tcase_add_loop_test(c, onnx_attention_agrees_with_loops, 0, 16);
    tcase_add_loop_test(c, a_query_without_keys_gives_zeros, 0, 2);
    tcase_add_test(c, onnx_attention_refuses_contradictions);
    tcase_add_loop_test(c, a_step_with_a_cache_is_the_last_row_of_the_prompt, 0, 2);
    tcase_add_test(c, group_query_refuses_what_would_read_outside);
    tcase_add_test(c, a_buffer_works_as_a_past_of_its_valid_rows);
    tcase_add_test(c, rotary_positions_are_checked);
    tcase_add_test(c, near_positions_have_buckets_of_their_own);
    tcase_add_test(c, beams_read_the_rows_of_each_other);
    tcase_add_loop_test(c, half_precision_is_float32_rounded, 0, 4);
    suite_add_tcase(s, c);

    c = tcase_create("quantized");
    tcase_add_test(c, qattention_needs_no_bias);
    tcase_add_loop_test(c, block_quantized_weights_agree_with_loops, 0, 3);
    tcase_add_loop_test(c, qlinear_operators_are_float_ones_between_codes, 0, 2);
    tcase_add_test(c, qlinear_sums_and_products_are_exact);
    tcase_add_test(c, qgemm_agrees_with_loops);
    suite_add_tcase(s, c);
    c = tcase_create("other");
    tcase_add_test(c, padding_comes_back_as_zeros);
    tcase_add_test(c, a_singular_matrix_has_no_inverse);
    suite_add_tcase(s, c);
    return s;
}
