/* test_ops_compute.c: the compute operators, one node at a time through the engine, against naive double loops;
 * and what batching rests on: no bit of a row depends on its neighbours, its padding or the number of threads.
 */
#include "trial.h"

/* ---- products
 * ------------------------------------------------------------------------------------------------------ */

enum { B = 6, M = 37, K = 45, N = 70 };

/* [2,3,M,K] x [3,K,N]: broadcasting, constant and computed B, aligned or not, any number of threads: the same
 * bits. */
START_TEST(matmul_agrees_however_it_is_cut)
{
    static float a[B * M * K], b[3 * K * N];
    static double want[B * M * N];
    static char shifted[sizeof b + 1];
    fill(a, B * M * K, 1);
    fill(b, 3 * K * N, 2);
    memcpy(shifted + 1, b, sizeof b);
    for (int z = 0; z < B; z++)
        for (int i = 0; i < M; i++)
            for (int j = 0; j < N; j++) {
                double sum = 0;
                for (int l = 0; l < K; l++) sum += (double)a[(z * M + i) * K + l] * b[(z % 3 * K + l) * N + j];
                want[(z * M + i) * N + j] = sum;
            }
    trial t = {
        .domain = "", .op = "MatMul", .n_in = 2, .n_out = 1, .in = {F32(a, 4, 2, 3, M, K), F32(b, 3, 3, K, N)}};
    run(&t);
    expect_close(&t.out[0], want, B * M * N, 1e-5);
    for (int threads = 1; threads <= 9; threads += 4)
        for (unsigned constant = 0; constant < 3; constant++) {
            trial u = t;
            u.threads = threads;
            u.constant = constant ? 2u : 0;
            if (constant == 2) u.in[1].data = shifted + 1;
            run(&u);
            expect_same_bits(&t.out[0], &u.out[0]);
            done(&u);
        }
    done(&t);
}
END_TEST

START_TEST(a_row_of_a_product_is_itself_in_any_company)
{
    static float a[M * K], b[K * N];
    fill(a, M * K, 3);
    fill(b, K * N, 4);
    trial all = {.domain = "",
                 .op = "MatMul",
                 .n_in = 2,
                 .n_out = 1,
                 .in = {F32(a, 2, M, K), F32(b, 2, K, N)},
                 .constant = 2u};
    run(&all);
    for (int i = 0; i < M; i++) {
        trial one = {.domain = "",
                     .op = "MatMul",
                     .n_in = 2,
                     .n_out = 1,
                     .in = {F32(a + i * K, 2, 1, K), F32(b, 2, K, N)},
                     .constant = 2u};
        run(&one);
        ck_assert(!memcmp(one.out[0].data, (float *)all.out[0].data + i * N, N * sizeof(float)));
        done(&one);
    }
    done(&all);
}
END_TEST

/* Rows 4 KB apart are copied for tall tiles: each alone, where nothing is, has the same bits. */
START_TEST(rows_that_share_a_cache_set_are_copied)
{
    enum { ROWS = 50, DEPTH = 1024, COLUMNS = 300 };
    static float a[ROWS * DEPTH], b[DEPTH * COLUMNS];
    fill(a, ROWS * DEPTH, 5);
    fill(b, DEPTH * COLUMNS, 6);
    trial all = {.domain = "",
                 .op = "MatMul",
                 .n_in = 2,
                 .n_out = 1,
                 .in = {F32(a, 2, ROWS, DEPTH), F32(b, 2, DEPTH, COLUMNS)},
                 .constant = 2u,
                 .threads = 3};
    run(&all);
    for (int i = 0; i < ROWS; i++) {
        trial one = {.domain = "",
                     .op = "MatMul",
                     .n_in = 2,
                     .n_out = 1,
                     .in = {F32(a + i * DEPTH, 2, 1, DEPTH), F32(b, 2, DEPTH, COLUMNS)},
                     .constant = 2u};
        fill(b, DEPTH * COLUMNS, 6); /* a program gives up a large constant that it has packed */
        run(&one);
        ck_assert(!memcmp(one.out[0].data, (float *)all.out[0].data + i * COLUMNS, COLUMNS * sizeof(float)));
        done(&one);
    }
    done(&all);
}
END_TEST

START_TEST(gemm_transposes_scales_and_broadcasts_c)
{
    static float a[M * K], b[K * N], c[M * N];
    static double want[M * N];
    int ta = _i & 1, tb = _i >> 1 & 1, form = _i >> 2;
    const int64_t c_dims[4][2] = {{1, N}, {M, 1}, {M, N}, {1, 1}};
    fill(a, M * K, 5);
    fill(b, K * N, 6);
    fill(c, M * N, 7);
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++) {
            double sum = 0;
            for (int l = 0; l < K; l++)
                sum += (double)(ta ? a[l * M + i] : a[i * K + l]) * (tb ? b[j * K + l] : b[l * N + j]);
            int64_t row = c_dims[form][0] == 1 ? 0 : i, col = c_dims[form][1] == 1 ? 0 : j;
            want[i * N + j] = 0.5 * sum + 2 * c[row * c_dims[form][1] + col];
        }
    trial t = {.domain = "",
               .op = "Gemm",
               .n_in = 3,
               .n_out = 1,
               .in = {F32(a, 2, ta ? K : M, ta ? M : K), F32(b, 2, tb ? N : K, tb ? K : N)}};
    t.in[2] = F32(c, 2, c_dims[form][0], c_dims[form][1]);
    const attribute attr[] = {
        WHOLE("transA", ta), WHOLE("transB", tb), REAL("alpha", 0.5), REAL("beta", 2)};
    memcpy(t.attr, attr, sizeof attr);
    for (t.constant = 0; t.constant < 8; t.constant += 2) {
        run(&t);
        expect_close(&t.out[0], want, M * N, 1e-5);
        done(&t);
    }
}
END_TEST

START_TEST(inner_dims_must_agree)
{
    float x[1] = {0};
    sdx_error err;
    trial t = {.domain = "",
               .op = "MatMul",
               .n_in = 2,
               .n_out = 1,
               .in = {F32(x, 4, 1, 12, 128, 64), F32(x, 4, 1, 12, 32, 128)}};
    ck_assert_int_ne(try_run(&t, &err), SDX_OK);
    ck_assert_ptr_nonnull(
        strstr(err.message, "inner dims differ: A float32[1,12,128,64], B float32[1,12,32,128]"));
}
END_TEST

START_TEST(matmul_integer_is_exact)
{
    static uint8_t a[M * K];
    static int8_t b[K * N], b_zero[N];
    static double want[M * N];
    uint8_t a_zero = 131;
    fill_bytes(a, M * K, 8);
    fill_bytes(b, K * N, 9);
    fill_bytes(b_zero, N, 10);
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++) {
            int sum = 0;
            for (int l = 0; l < K; l++) sum += (a[i * K + l] - a_zero) * (b[l * N + j] - b_zero[j]);
            want[i * N + j] = sum;
        }
    trial t = {.domain = "", .op = "MatMulInteger", .n_in = 4, .n_out = 1};
    t.in[0] = view(SDX_U8, 2, (int64_t[]){M, K}, a);
    t.in[1] = view(SDX_I8, 2, (int64_t[]){K, N}, b);
    t.in[2] = view(SDX_U8, 0, NULL, &a_zero);
    t.in[3] = view(SDX_I8, 1, (int64_t[]){N}, b_zero);
    t.constant = _i & 1 ? 0xEu : 0;
    t.threads = _i & 2 ? 5 : 1;
    run(&t);
    expect_close(&t.out[0], want, M * N, 0);
    done(&t);
}
END_TEST

/* ---- rows
 * ---------------------------------------------------------------------------------------------------------- */

START_TEST(skip_layer_norm_adds_and_normalizes)
{
    enum { ROWS = 10, H = 21 };
    static float x[ROWS * H], skip[5 * H], gamma[H], beta[H], bias[H];
    static double want[ROWS * H], sums[ROWS * H];
    fill(x, ROWS * H, 11);
    fill(skip, 5 * H, 12);
    fill(gamma, H, 13);
    fill(beta, H, 14);
    fill(bias, H, 15);
    for (int r = 0; r < ROWS; r++) {
        double mean = 0, var = 0, *s = sums + r * H;
        for (int i = 0; i < H; i++) mean += s[i] = (double)x[r * H + i] + skip[r % 5 * H + i] + bias[i];
        mean /= H;
        for (int i = 0; i < H; i++) var += (s[i] - mean) * (s[i] - mean) / H;
        for (int i = 0; i < H; i++) want[r * H + i] = (s[i] - mean) / sqrt(var + 1e-5) * gamma[i] + beta[i];
    }
    trial t = {
        .domain = "com.microsoft",
        .op = "SkipLayerNormalization",
        .n_in = 5,
        .n_out = 4,
        .in = {F32(x, 3, 2, 5, H), F32(skip, 2, 5, H), F32(gamma, 1, H), F32(beta, 1, H), F32(bias, 1, H)},
        .constant = 0x1C,
        .unwanted = 6u,
        .attr = {REAL("epsilon", 1e-5)}};
    run(&t);
    expect_close(&t.out[0], want, ROWS * H, 2e-6);
    expect_close(&t.out[3], sums, ROWS * H, 1e-6);
    done(&t);
}
END_TEST

/* Axis 1 of [2,3,4]: since opset 13 three numbers, before all twelve. The model's opset is 17. */
START_TEST(softmax_along_an_inner_axis)
{
    float x[24];
    double want[24];
    fill(x, 24, 16);
    for (int o = 0; o < 2; o++)
        for (int r = 0; r < 4; r++) {
            double sum = 0;
            for (int i = 0; i < 3; i++) sum += exp(x[o * 12 + i * 4 + r]);
            for (int i = 0; i < 3; i++) want[o * 12 + i * 4 + r] = exp(x[o * 12 + i * 4 + r]) / sum;
        }
    trial t = {.domain = "",
               .op = "Softmax",
               .n_in = 1,
               .n_out = 1,
               .in = {F32(x, 3, 2, 3, 4)},
               .constant = 0,
               .unwanted = 0,
               .attr = {WHOLE("axis", 1)}};
    run(&t);
    expect_close(&t.out[0], want, 24, 1e-6);
    done(&t);
}
END_TEST

START_TEST(dynamic_quantization_rounds_half_to_even)
{
    /* scale 1, zero 0: halves go to the even neighbour */
    const float x[6] = {0, 255, 0.5f, 1.5f, 2.5f, 254.5f}, zeros[3] = {0, 0, 0}, both[3] = {-1, 0, 2};
    const double want[6] = {0, 255, 0, 2, 2, 254};
    trial t = {.domain = "", .op = "DynamicQuantizeLinear", .n_in = 1, .n_out = 3, .in = {F32(x, 1, 6)}};
    run(&t);
    expect_close(&t.out[0], want, 6, 0);
    expect_close(&t.out[1], (double[]){1}, 1, 0);
    done(&t);
    t.in[0] = F32(zeros, 1, 3);
    run(&t);
    expect_close(&t.out[0], (double[]){0, 0, 0}, 3, 0);
    expect_close(&t.out[1], (double[]){1}, 1, 0); /* as ONNX Runtime; never 0 */
    done(&t);
    t.in[0] = F32(both, 1, 3);
    run(&t);
    expect_close(&t.out[0], (double[]){0, 85, 255}, 3, 0);
    expect_close(&t.out[2], (double[]){85}, 1, 0);
    done(&t);
}
END_TEST

/* ---- embedding
 * ------------------------------------------------------------------------------------------------------- */

START_TEST(embedding_checks_ids_and_counts_the_mask)
{
    enum { H = 8, ROWS = 5 };
    static float word[ROWS * H], position[3 * H], gamma[H], beta[H];
    int32_t ids[6] = {0, 4, 2, 1, 1, 3}, mask[6] = {1, 1, 0, 1, 2, 0};
    sdx_error err;
    fill(word, ROWS * H, 17);
    fill(position, 3 * H, 18);
    fill(gamma, H, 19);
    fill(beta, H, 20);
    trial t = {.domain = "com.microsoft", .op = "EmbedLayerNormalization", .n_in = 8, .n_out = 3};
    t.in[0] = I32(ids, 2, 2, 3);
    t.in[2] = F32(word, 2, ROWS, H);
    t.in[3] = F32(position, 2, 3, H);
    t.in[5] = F32(gamma, 1, H);
    t.in[6] = F32(beta, 1, H);
    t.in[7] = I32(mask, 2, 2, 3);
    t.constant = 0x6C;
    run(&t);
    expect_close(&t.out[1], (double[]){2, 1}, 2, 0);
    for (int i = 0; i < H; i++)
        ck_assert_float_eq(((float *)t.out[2].data)[H + i], word[4 * H + i] + position[H + i]);
    done(&t);
    ids[3] = 5;
    ck_assert_int_eq(try_run(&t, &err), SDX_ERR_USAGE);
    ck_assert_ptr_nonnull(strstr(err.message, "token id 5 is outside the table of 5 rows"));
    ids[3] = -1;
    ck_assert_int_eq(try_run(&t, &err), SDX_ERR_USAGE);
}
END_TEST

/* ---- attention
 * ------------------------------------------------------------------------------------------------------- */

enum { BATCH = 2, S = 9, HEADS = 3, HEAD = 7, HIDDEN = HEADS * HEAD, PAST = 4 };

typedef struct block { /* one Attention node's numbers */
    float x[BATCH * S * HIDDEN], weight[HIDDEN * 3 * HIDDEN], bias[3 * HIDDEN];
} block;

static block *make_block(void)
{
    static block b;
    fill(b.x, BATCH * S * HIDDEN, 21);
    fill(b.weight, HIDDEN * 3 * HIDDEN, 22);
    fill(b.bias, 3 * HIDDEN, 23);
    return &b;
}

static double project(const block *b, int row, int column)
{
    double sum = b->bias[column];
    for (int i = 0; i < HIDDEN; i++) sum += (double)b->x[row * HIDDEN + i] * b->weight[i * 3 * HIDDEN + column];
    return sum;
}

/* hidden[batch][key] keys are left out; causal: so are those behind the query. */
static void naive_attention(const block *b, const bool hidden[BATCH][S], bool causal, double *out)
{
    for (int z = 0; z < BATCH; z++)
        for (int h = 0; h < HEADS; h++)
            for (int i = 0; i < S; i++) {
                double p[S], sum = 0;
                for (int j = 0; j < S; j++) {
                    double score = 0;
                    for (int d = 0; d < HEAD; d++)
                        score +=
                            project(b, z * S + i, h * HEAD + d) * project(b, z * S + j, HIDDEN + h * HEAD + d);
                    bool seen = !hidden[z][j] && (!causal || j <= i);
                    sum += p[j] = seen ? exp(score / sqrt(HEAD)) : 0;
                }
                for (int d = 0; d < HEAD; d++) {
                    double v = 0;
                    for (int j = 0; j < S; j++)
                        v += p[j] / sum * project(b, z * S + j, 2 * HIDDEN + h * HEAD + d);
                    out[((z * S + i) * HEADS + h) * HEAD + d] = v;
                }
            }
}

static trial attention_trial(block *b)
{
    return (trial){.domain = "com.microsoft",
                   .op = "Attention",
                   .n_in = 4,
                   .n_out = 1,
                   .in = {F32(b->x, 3, BATCH, S, HIDDEN), F32(b->weight, 2, HIDDEN, 3 * HIDDEN),
                          F32(b->bias, 1, 3 * HIDDEN)},
                   .constant = 6u,
                   .unwanted = 0,
                   .attr = {WHOLE("num_heads", HEADS)}};
}

static void expect_attention(trial *t, const block *b, const bool hidden[BATCH][S], bool causal)
{
    static double want[BATCH * S * HIDDEN];
    naive_attention(b, hidden, causal, want);
    run(t);
    expect_close(&t->out[0], want, BATCH * S * HIDDEN, 1e-5);
    done(t);
}

START_TEST(attention_knows_every_mask)
{
    block *b = make_block();
    bool hidden[BATCH][S] = {{false}};
    trial t = attention_trial(b);
    t.threads = _i ? 8 : 1;
    t.constant = _i ? 6u : 0;
    expect_attention(&t, b, hidden, false);
    t.attr[1] = (attribute)WHOLE("unidirectional", 1);
    expect_attention(&t, b, hidden, true);
    t.attr[1].kind = END;

    int32_t ends[BATCH] = {S, 5}, both[2 * BATCH] = {S, 5, 2, 0}, matrix[BATCH * S], cube[BATCH * S * S],
            one[2] = {0, 1};
    t.in[3] = I32(one, 2, 2, 1); /* says nothing */
    expect_attention(&t, b, hidden, false);
    for (int j = 5; j < S; j++) hidden[1][j] = true;
    t.in[3] = I32(ends, 1, 2);
    expect_attention(&t, b, hidden, false);
    hidden[0][0] = hidden[0][1] = true;
    t.in[3] = I32(both, 1, 4);
    expect_attention(&t, b, hidden, false);
    for (int i = 0; i < BATCH * S; i++) matrix[i] = !hidden[i / S][i % S];
    t.in[3] = I32(matrix, 2, 2, S);
    expect_attention(&t, b, hidden, false);
    for (int i = 0; i < BATCH * S * S; i++) cube[i] = !hidden[i / S / S][i % S];
    t.in[3] = I32(cube, 3, 2, S, S);
    expect_attention(&t, b, hidden, false);
}
END_TEST

/* A sequence alone, and the same sequence padded in a batch. */
START_TEST(padding_changes_no_bit)
{
    block *b = make_block();
    enum { SHORT = 5 };
    int32_t mask[BATCH * S];
    for (int i = 0; i < BATCH * S; i++) mask[i] = i < S || i % S < SHORT;
    trial batch = attention_trial(b), alone = attention_trial(b);
    batch.in[3] = I32(mask, 2, BATCH, S);
    batch.attr[1] = alone.attr[1] = (attribute)REAL("mask_filter_value", _i ? -3.4e38 : -10000);
    alone.in[0] = F32(b->x + S * HIDDEN, 3, 1, SHORT, HIDDEN);
    alone.in[3] = I32(mask, 2, 1, SHORT);
    run(&batch);
    run(&alone);
    ck_assert(
        !memcmp((float *)batch.out[0].data + S * HIDDEN, alone.out[0].data, SHORT * HIDDEN * sizeof(float)));
    done(&batch);
    done(&alone);
}
END_TEST

/* Decoding token by token with past and present gives what one causal pass gives. */
START_TEST(a_past_continues_where_it_left_off)
{
    block *b = make_block();
    trial whole = attention_trial(b), first = attention_trial(b), rest = attention_trial(b);
    whole.in[0] = F32(b->x, 3, 1, S, HIDDEN);
    first.in[0] = F32(b->x, 3, 1, PAST, HIDDEN);
    rest.in[0] = F32(b->x + PAST * HIDDEN, 3, 1, S - PAST, HIDDEN);
    whole.attr[1] = first.attr[1] = rest.attr[1] = (attribute)WHOLE("unidirectional", 1);
    first.n_out = rest.n_out = 2;
    rest.n_in = 5;
    run(&whole);
    run(&first);
    rest.in[4] = first.out[1];
    run(&rest);
    ck_assert_int_eq(rest.out[1].dim[3], S);
    double want[S * HIDDEN];
    for (int i = 0; i < (S - PAST) * HIDDEN; i++) want[i] = ((float *)whole.out[0].data)[PAST * HIDDEN + i];
    expect_close(&rest.out[0], want, (S - PAST) * HIDDEN, 1e-6);
    sdx_tensor kept = rest.out[0];
    free(rest.out[1].data);
    rest.n_out = 1; /* nobody wants `present`: the same numbers from the workspace */
    run(&rest);
    expect_same_bits(&kept, &rest.out[0]);
    free(kept.data);
    done(&whole);
    done(&first);
    done(&rest);
}
END_TEST

START_TEST(heads_with_separate_inputs_agree_with_attention)
{
    block *b = make_block();
    static float part[3][BATCH * S * HIDDEN];
    static double want[BATCH * S * HIDDEN];
    const bool hidden[BATCH][S] = {{false}};
    naive_attention(b, hidden, false, want);
    for (int p = 0; p < 3; p++)
        for (int i = 0; i < BATCH * S; i++)
            for (int j = 0; j < HIDDEN; j++)
                part[p][i * HIDDEN + j] = (float)(project(b, i, p * HIDDEN + j) - b->bias[p * HIDDEN + j]);
    trial t = {.domain = "com.microsoft",
               .op = "MultiHeadAttention",
               .n_in = 4,
               .n_out = 1,
               .in = {F32(part[0], 3, BATCH, S, HIDDEN), F32(part[1], 3, BATCH, S, HIDDEN),
                      F32(part[2], 3, BATCH, S, HIDDEN), F32(b->bias, 1, 3 * HIDDEN)},
               .constant = 8u,
               .unwanted = 0,
               .attr = {WHOLE("num_heads", HEADS)}};
    run(&t);
    expect_close(&t.out[0], want, BATCH * S * HIDDEN, 1e-5);
    done(&t);
}
END_TEST

/* ---- com.microsoft's forms of operators that ONNX has ---------------------------------------------------- */

/* A convolution of one tap is a product: activation(2 x + bias + z). */
START_TEST(fused_conv_adds_and_activates)
{
    float x[4] = {-2, -0.5f, 0.25f, 3}, w = 2, bias = 0.5f, z[4] = {1, 0, 0, -9};
    trial t = {.domain = "com.microsoft",
               .op = "FusedConv",
               .n_in = 4,
               .n_out = 1,
               .in = {F32(x, 3, 1, 1, 4), F32(&w, 3, 1, 1, 1), F32(&bias, 1, 1), F32(z, 3, 1, 1, 4)},
               .attr = {STRING("activation", "Relu")}};
    run(&t);
    expect_close(&t.out[0], (double[]){0, 0, 1, 0}, 4, 1e-6);
    done(&t);
    sdx_error err;
    t.attr[0].text = "Clip"; /* which needs its bounds */
    ck_assert_int_eq(try_run(&t, &err), SDX_ERR_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(err.message, "\"Clip\""));
}
END_TEST

START_TEST(pad_and_gather_nd_of_microsoft)
{
    float x[4] = {1, 2, 3, 4};
    int64_t pads[4] = {0, 1, 0, 0}, at[2] = {1, 0};
    sdx_tensor in[2] = {F32(x, 2, 2, 2), view(SDX_I64, 1, (int64_t[]){4}, pads)};
    trial pad = {.domain = "com.microsoft", .op = "Pad", .n_in = 2, .n_out = 1, .in = {in[0], in[1]}};
    trial gather = {.domain = "com.microsoft",
                    .op = "GatherND",
                    .n_in = 2,
                    .n_out = 1,
                    .in = {in[0], view(SDX_I64, 2, (int64_t[]){1, 2}, at)}};
    run(&pad);
    run(&gather);
    expect_close(&pad.out[0], (double[]){0, 1, 2, 0, 3, 4}, 6, 0);
    expect_close(&gather.out[0], (double[]){3}, 1, 0);
    done(&pad);
    done(&gather);
}
END_TEST

Suite *ops_compute_suite(void)
{
    Suite *s = suite_create("ops_compute");
    TCase *c = tcase_create("products");
    tcase_set_timeout(c, 60);
    tcase_add_test(c, matmul_agrees_however_it_is_cut);
    tcase_add_test(c, a_row_of_a_product_is_itself_in_any_company);
    tcase_add_test(c, rows_that_share_a_cache_set_are_copied);
    tcase_add_loop_test(c, gemm_transposes_scales_and_broadcasts_c, 0, 16);
    tcase_add_test(c, inner_dims_must_agree);
    tcase_add_loop_test(c, matmul_integer_is_exact, 0, 4);
    suite_add_tcase(s, c);
    c = tcase_create("rows");
    tcase_add_test(c, fused_conv_adds_and_activates);
    tcase_add_test(c, pad_and_gather_nd_of_microsoft);
    tcase_add_test(c, skip_layer_norm_adds_and_normalizes);
    tcase_add_test(c, softmax_along_an_inner_axis);
    tcase_add_test(c, dynamic_quantization_rounds_half_to_even);
    tcase_add_test(c, embedding_checks_ids_and_counts_the_mask);
    suite_add_tcase(s, c);
    c = tcase_create("attention");
    tcase_add_loop_test(c, attention_knows_every_mask, 0, 2);
    tcase_add_loop_test(c, padding_changes_no_bit, 0, 2);
    tcase_add_test(c, a_past_continues_where_it_left_off);
    tcase_add_test(c, heads_with_separate_inputs_agree_with_attention);
    suite_add_tcase(s, c);
    return s;
}
