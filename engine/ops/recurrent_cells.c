/* recurrent_cells.c: activations and the elementwise parts of RNN, GRU and LSTM; see recurrent.h */
#include "recurrent.h"

#include <math.h>
#include <string.h>
#include <strings.h>

/* ---- activations ------------------------------------------------------------------------------------- */

static float affine(float x, float a, float b)
{
    return a * x + b;
}
static float leaky(float x, float a, float b)
{
    return (void)b, x < 0 ? a * x : x;
}
static float thresholded(float x, float a, float b)
{
    return (void)b, x >= a ? x : 0;
}
static float scaled_tanh(float x, float a, float b)
{
    return a * tanhf(b * x);
}
static float hard_sigmoid(float x, float a, float b)
{
    return fminf(fmaxf(a * x + b, 0), 1);
}
static float elu(float x, float a, float b)
{
    return (void)b, x < 0 ? a * expm1f(x) : x;
}
static float softsign(float x, float a, float b)
{
    return (void)a, (void)b, x / (1 + fabsf(x));
}
static float softplus(float x, float a, float b)
{
    return (void)a, (void)b, fmaxf(x, 0) + log1pf(expf(-fabsf(x)));
}

static const sdx_cell_function functions[] = {
    {"Sigmoid", SDX_UNARY_SIGMOID, NULL, NAN, NAN},
    {"Tanh", SDX_UNARY_TANH, NULL, NAN, NAN},
    {"Relu", SDX_UNARY_RELU, NULL, NAN, NAN},
    {"Affine", -1, affine, 1, 0},
    {"LeakyRelu", -1, leaky, 0.01f, NAN},
    {"ThresholdedRelu", -1, thresholded, 1, NAN},
    {"ScaledTanh", -1, scaled_tanh, 1, 1},
    {"HardSigmoid", -1, hard_sigmoid, 0.2f, 0.5f},
    {"Elu", -1, elu, 1, NAN},
    {"Softsign", -1, softsign, NAN, NAN},
    {"Softplus", -1, softplus, NAN, NAN},
};

sdx_status sdx_cell_find_function(const char *name, const sdx_cell_function **out, sdx_error *err)
{
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        if (!strcasecmp(functions[i].name, name)) {
            *out = &functions[i];
            return SDX_OK;
        }
    return sdx_fail(err, SDX_ERR_FILE, "\"%.40s\" is no activation of a recurrent cell", name);
}

/* ---- cells ------------------------------------------------------------------------------------------- */

/* Activation number `which` of H elements. */
static void activate(const sdx_cell_step *s, int which, float *x)
{
    const sdx_cell_activation *a = &s->activation[which];
    if (a->function->kernel >= 0)
        s->run->kernels->element.unary_f32[a->function->kernel](s->hidden, x, x);
    else
        for (int64_t i = 0; i < s->hidden; i++) x[i] = a->function->f(x[i], a->alpha, a->beta);
}

/* The same of a gate's sum, clipped first. */
static void open_gate(const sdx_cell_step *s, int which, float *x)
{
    const sdx_element_kernels *k = &s->run->kernels->element;
    float high = s->state->clip, low = -high;
    if (high < INFINITY) {
        k->binary_f32[SDX_BINARY_MAX](s->hidden, x, 1, &low, 0, x);
        k->binary_f32[SDX_BINARY_MIN](s->hidden, x, 1, &high, 0, x);
    }
    activate(s, which, x);
}

/* c[B, n] (rows ldc apart) = a[B, H] * packed R + c or bias. */
static void multiply(const sdx_cell_step *s, const float *a, const float *packed, int64_t n, const float *bias,
                     float *c, int64_t ldc)
{
    sdx_gemm_f32_job job = {.gemm = &s->run->kernels->gemm_f32,
                            .threads = s->run->threads,
                            .m = s->batch,
                            .n = n,
                            .k = s->hidden,
                            .a = a,
                            .lda = s->hidden,
                            .packed = packed,
                            .bias = bias,
                            .activation = SDX_ACT_NONE,
                            .residual = bias ? NULL : c,
                            .ldr = ldc,
                            .c = c,
                            .ldc = ldc};
    sdx_gemm_f32_run(&job);
}

static void run_rnn(const sdx_cell_step *s)
{
    multiply(s, s->h, s->r, s->hidden, NULL, s->gates, s->hidden);
    for (int64_t b = 0; b < s->batch; b++) open_gate(s, 0, s->gates + b * s->hidden);
    memcpy(s->h, s->gates, (size_t)(s->batch * s->hidden) * sizeof(float));
}

/* Gates z r h. */
static void run_gru(const sdx_cell_step *s)
{
    int64_t n = s->hidden, row = 3 * n;
    multiply(s, s->h, s->r, 2 * n, NULL, s->gates, row);
    for (int64_t b = 0; b < s->batch; b++) {
        float *g = s->gates + b * row;
        open_gate(s, 0, g);
        open_gate(s, 0, g + n);
        for (int64_t i = 0; i < n; i++) s->extra[b * n + i] = g[n + i] * s->h[b * n + i];
    }
    if (s->state->linear_before_reset)
        multiply(s, s->h, s->r_last, n, s->r_bias, s->extra, n);
    else
        multiply(s, s->extra, s->r_last, n, NULL, s->gates + 2 * n, row);
    for (int64_t b = 0; b < s->batch; b++) {
        float *z = s->gates + b * row, *r = z + n, *g = r + n, *h = s->h + b * n;
        for (int64_t i = 0; s->state->linear_before_reset && i < n; i++) g[i] += r[i] * s->extra[b * n + i];
        open_gate(s, 1, g);
        for (int64_t i = 0; i < n; i++) h[i] = (1 - z[i]) * g[i] + z[i] * h[i];
    }
}

static void look(const sdx_cell_step *s, int which, const float *c, float *gate)
{
    const float *p = s->peephole ? s->peephole + which * s->hidden : NULL;
    for (int64_t i = 0; p && i < s->hidden; i++) gate[i] += p[i] * c[i];
}

void sdx_cell_round(const sdx_run *run, int64_t n, const float *x, uint8_t *bytes, float *y)
{
    float scale;
    uint8_t zero;
    sdx_dynamic_range(run->kernels, run->threads, n, x, &scale, &zero);
    sdx_quantize_u8(run->kernels, run->threads, n, x, scale, zero, bytes);
    run->kernels->quantize.u8_f32(n, bytes, scale, zero, y);
}

/* Gates i o f c; peepholes i o f, of which o looks at the new cell. */
static void run_lstm(const sdx_cell_step *s)
{
    int64_t n = s->hidden;
    if (s->bytes) sdx_cell_round(s->run, s->batch * n, s->h, s->bytes, s->extra);
    multiply(s, s->bytes ? s->extra : s->h, s->r, 4 * n, NULL, s->gates, 4 * n);
    for (int64_t b = 0; b < s->batch; b++) {
        float *in = s->gates + b * 4 * n, *out = in + n, *forget = out + n, *g = forget + n;
        float *c = s->c + b * n, *h = s->h + b * n;
        look(s, 0, c, in);
        look(s, 2, c, forget);
        open_gate(s, 0, in);
        open_gate(s, 0, forget);
        open_gate(s, 1, g);
        for (int64_t i = 0; s->state->input_forget && i < n; i++) forget[i] = 1 - in[i];
        for (int64_t i = 0; i < n; i++) c[i] = forget[i] * c[i] + in[i] * g[i];
        look(s, 1, c, out);
        open_gate(s, 0, out);
        memcpy(g, c, (size_t)n * sizeof *c);
        activate(s, 2, g); /* not clipped: this is the cell, not a sum of products */
        for (int64_t i = 0; i < n; i++) h[i] = out[i] * g[i];
    }
}

static const sdx_cell cells[] = {
    {"RNN", 1, 1, {"Tanh"}, run_rnn, false},
    {"GRU", 3, 2, {"Sigmoid", "Tanh"}, run_gru, false},
    {"LSTM", 4, 3, {"Sigmoid", "Tanh", "Tanh"}, run_lstm, false},
    {"DynamicQuantizeLSTM", 4, 3, {"Sigmoid", "Tanh", "Tanh"}, run_lstm, true},
};

const sdx_cell *sdx_cell_find(const sdx_node *node)
{
    const sdx_cell *c = cells;
    while (strcmp(c->op, node->op_type)) c++; /* the rows below name no other */
    return c;
}
