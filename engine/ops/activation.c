/* activation.c: the GELU family: BiasGelu, FastGelu, Gelu and QuickGelu of com.microsoft, ai.onnx Gelu and Swish.
 *
 *     Gelu, BiasGelu   x/2 * (1 + erf(x / sqrt 2))
 *     FastGelu         x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3)))
 *     QuickGelu, Swish x * sigmoid(alpha x)
 * Work passes through a buffer on the stack in chunks where x must be kept or is not float32.
 */
#include <math.h>
#include <string.h>

#include "compute.h"

typedef struct gelu {
    enum { EXACT, TANH, QUICK } form;
    float alpha;
} gelu;

static sdx_status infer_gelu(sdx_infer *infer)
{
    TRY(sdx_want_dtype(infer, 0, "the input", SDX_SET_FLOAT));
    TRY(sdx_want_same_dtype(infer, 1, "the bias", 0, "the input"));
    if (sdx_infer_has(infer, 1) && infer->in[1].shape.rank >= 0) {
        TRY(sdx_want_rank(infer, 1, "the bias", 1, 1));
        TRY(sdx_want_dim(infer, 1, "the bias", 0, sdx_type_dim(&infer->in[0], -1)));
        if (infer->in[0].shape.rank == 0)
            return sdx_fail(infer->err, SDX_ERR_USAGE, "a bias needs an input with a row");
    }
    const char *form = sdx_node_string(infer->node, "approximate", "none");
    if (strcmp(form, "none") && strcmp(form, "tanh"))
        return sdx_fail(infer->err, SDX_ERR_FILE, "approximate is \"%s\", but must be none or tanh", form);
    return sdx_infer_same(infer);
}

static sdx_status prepare_gelu(sdx_prepare *p)
{
    gelu *state;
    PREPARE_STATE(p, state);
    bool tanh_form =
        !strcmp(p->node->op_type, "FastGelu") || !strcmp(sdx_node_string(p->node, "approximate", ""), "tanh");
    bool swish = !strcmp(p->node->op_type, "Swish");
    state->form = swish || !strcmp(p->node->op_type, "QuickGelu") ? QUICK : tanh_form ? TANH : EXACT;
    state->alpha = sdx_node_float(p->node, "alpha", swish ? 1 : 1.702f);
    return SDX_OK;
}

enum { CHUNK = 512 };

typedef struct task {
    const sdx_kernels *kernels;
    const gelu *state;
    int64_t n; /* of a row; one element when there is no bias */
    sdx_dtype dtype;
    const void *x, *bias;
    void *y;
} task;

/* n <= CHUNK elements; y may be x. */
static void gelu_f32(const task *t, int64_t n, const float *x, const float *bias, float *y)
{
    const sdx_element_kernels *k = &t->kernels->element;
    float product[CHUNK];
    switch (t->state->form) {
    case EXACT: k->bias_act_f32(n, x, bias, SDX_ACT_GELU, y); break;
    case TANH:
        if (bias) k->binary_f32[SDX_BINARY_ADD](n, x, 1, bias, 1, y);
        k->unary_f32[SDX_UNARY_GELU_TANH](n, bias ? y : x, y);
        break;
    case QUICK:
        k->binary_f32[SDX_BINARY_MUL](n, x, 1, &t->state->alpha, 0, product);
        k->unary_f32[SDX_UNARY_SIGMOID](n, product, product);
        k->binary_f32[SDX_BINARY_MUL](n, x, 1, product, 1, y);
        break;
    }
}

static double gelu_f64(const gelu *state, double x)
{
    switch (state->form) {
    case TANH: return 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
    case QUICK: return x / (1 + exp(-(double)state->alpha * x));
    default: return 0.5 * x * (1 + erf(x * 0.7071067811865476));
    }
}

/* Elements [at, at + n) of the tensors, the bias from b on. */
static void chunk(const task *t, int64_t at, int64_t n, int64_t b)
{
    float x[CHUNK], bias[CHUNK];
    if (t->dtype == SDX_F32) {
        gelu_f32(t, n, (const float *)t->x + at, t->bias ? (const float *)t->bias + b : NULL,
                 (float *)t->y + at);
    } else if (t->dtype == SDX_F64) {
        for (int64_t i = 0; i < n; i++) {
            double v = ((const double *)t->x)[at + i] + (t->bias ? ((const double *)t->bias)[b + i] : 0);
            ((double *)t->y)[at + i] = gelu_f64(t->state, v);
        }
    } else {
        sdx_floats_load(t->kernels, t->dtype, t->x, at, n, x);
        if (t->bias) sdx_floats_load(t->kernels, t->dtype, t->bias, b, n, bias);
        gelu_f32(t, n, x, t->bias ? bias : NULL, x);
        sdx_floats_store(t->dtype, x, n, t->y, at);
    }
}

static void gelu_rows(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const task *t = context;
    int64_t rows = t->bias ? end - begin : 1, n = t->bias ? t->n : end - begin;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < n; i += CHUNK)
            chunk(t, (t->bias ? (begin + r) * n : begin) + i, n - i < CHUNK ? n - i : CHUNK, i);
}

static sdx_status run_gelu(sdx_run *run)
{
    const sdx_tensor *x = &run->in[0];
    int64_t count = sdx_tensor_count(x);
    task t = {run->kernels, run->state, 1, x->dtype, x->data, NULL, run->out[0].data};
    if (count == 0) return SDX_OK;
    if (sdx_run_has_in(run, 1)) {
        t.bias = run->in[1].data;
        t.n = x->dim[x->rank - 1];
    }
    sdx_parallel_for(run->threads, count / t.n, sdx_row_grain(t.n), gelu_rows, &t);
    return SDX_OK;
}

#define MS "com.microsoft"
#define IN SDX_OP_INPLACE
static const sdx_op_def rows[] = {
    {"", "Gelu", 20, 0, 1, 1, 1, 1, IN, infer_gelu, prepare_gelu, NULL, run_gelu},
    {"", "Swish", 24, 0, 1, 1, 1, 1, IN, infer_gelu, prepare_gelu, NULL, run_gelu},
    {MS, "Gelu", 1, 0, 1, 1, 1, 1, IN, infer_gelu, prepare_gelu, NULL, run_gelu},
    {MS, "BiasGelu", 1, 0, 2, 2, 1, 1, IN, infer_gelu, prepare_gelu, NULL, run_gelu},
    {MS, "FastGelu", 1, 0, 1, 2, 1, 1, IN, infer_gelu, prepare_gelu, NULL, run_gelu},
    {MS, "QuickGelu", 1, 0, 1, 1, 1, 1, IN, infer_gelu, prepare_gelu, NULL, run_gelu},
};

SDX_OP_TABLE(activation);
