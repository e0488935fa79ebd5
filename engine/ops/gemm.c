/* gemm.c: Gemm, alpha * A * B + beta * C of matrices, and ONNX Runtime's FusedGemm with an activation behind it.
 *
 * A row C is the kernel's bias, and Relu and Tanh its activation. Any other C is spread over Y first and the product
 * added to it, any other activation a pass of its own.
 */
#include <string.h>

#include "matmul.h"

typedef struct gemm_activation {
    const char *name;
    sdx_activation fused; /* in the GEMM kernel, or SDX_ACT_NONE */
    int unary;            /* as a pass of its own; SDX_UNARY_COUNT: LeakyRelu */
} gemm_activation;

static const gemm_activation activations[] = {
    {"", SDX_ACT_NONE, 0},
    {"Relu", SDX_ACT_RELU, SDX_UNARY_RELU},
    {"Tanh", SDX_ACT_TANH, SDX_UNARY_TANH},
    {"Sigmoid", SDX_ACT_NONE, SDX_UNARY_SIGMOID},
    {"LeakyRelu", SDX_ACT_NONE, SDX_UNARY_COUNT},
};

static const gemm_activation *find_activation(const sdx_node *node)
{
    const char *name = sdx_node_string(node, "activation", "");
    for (size_t i = 0; i < sizeof activations / sizeof *activations; i++)
        if (!strcmp(activations[i].name, name)) return &activations[i];
    return NULL;
}

typedef struct gemm {
    sdx_matmul product;
    float beta;
    const void *c; /* constant C, aligned */
    const gemm_activation *activation;
    float slope; /* of LeakyRelu */
} gemm;

static sdx_status infer_gemm(sdx_infer *infer)
{
    sdx_transpose ta, tb;
    sdx_matmul_transposes(infer->node, &ta, &tb);
    TRY(sdx_want_dtype(infer, 0, "A", SDX_SET_FLOAT));
    TRY(sdx_want_rank(infer, 0, "A", 2, 2));
    TRY(sdx_want_rank(infer, 1, "B", 2, 2));
    TRY(sdx_want_same_dtype(infer, 2, "C", 0, "A"));
    TRY(sdx_matmul_infer(infer, ta, tb));
    const sdx_shape *y = &infer->out[0].shape, *c = &sdx_infer_in(infer, 2)->shape;
    for (int i = 1; i <= c->rank && y->rank == 2; i++) {
        sdx_dim have = c->dim[c->rank - i], want = i <= 2 ? y->dim[2 - i] : 1;
        if (have < 0 || want < 0 || have == 1 || have == want) continue;
        char tc[SDX_SHAPE_TEXT], ty[SDX_SHAPE_TEXT];
        return sdx_fail(infer->err, SDX_ERR_USAGE, "C %s does not broadcast to the product's %s",
                        sdx_shape_format(c, tc, sizeof tc), sdx_shape_format(y, ty, sizeof ty));
    }
    return SDX_OK;
}

static sdx_status infer_fused_gemm(sdx_infer *infer)
{
    TRY(infer_gemm(infer));
    if (find_activation(infer->node)) return SDX_OK;
    return sdx_fail(infer->err, SDX_ERR_UNSUPPORTED,
                    "activation \"%s\" is not known; known are Relu, Tanh, Sigmoid and "
                    "LeakyRelu",
                    sdx_node_string(infer->node, "activation", ""));
}

static sdx_status prepare_gemm(sdx_prepare *p)
{
    gemm *state;
    PREPARE_STATE(p, state);
    sdx_matmul_transposes(p->node, &state->product.ta, &state->product.tb);
    state->product.alpha = sdx_node_float(p->node, "alpha", 1.0f);
    state->beta = sdx_node_float(p->node, "beta", 1.0f);
    state->activation = find_activation(p->node);
    state->slope = sdx_node_float(p->node, "activation_alpha", 0.01f);
    TRY(sdx_matmul_keep(p, &state->product));
    return sdx_prepare_keep(p, 2, &state->c);
}

/* Workspace as MatMul's, with [C widened] and [bias row] before the product's own. */
static sdx_status plan_gemm(sdx_plan_step *step)
{
    const gemm *state = step->state;
    bool has_c = step->n_in > 2 && step->in[2].dtype != SDX_UNDEFINED;
    int64_t n = step->out[0].shape.dim[1], count = has_c ? sdx_shape_count(&step->in[2].shape) : 0;
    if (sdx_dtype_is_half(step->in[0].dtype) && !sdx_workspace_add(&step->workspace, (size_t)count, sizeof(float)))
        return sdx_workspace_fail(step->err);
    if (!sdx_workspace_add(&step->workspace, (size_t)n, sizeof(float))) return sdx_workspace_fail(step->err);
    sdx_plan_step inner = *step;
    inner.state = &state->product;
    TRY(sdx_matmul_plan(&inner));
    step->workspace = inner.workspace;
    return SDX_OK;
}

/* The row [n] that C is, times beta: C itself when it can be. */
static const float *bias_row(const float *c, int64_t c_cols, int64_t n, float beta, float *row)
{
    if (c_cols == n && beta == 1.0f) return c;
    for (int64_t j = 0; j < n; j++) row[j] = beta * c[c_cols == 1 ? 0 : j];
    return row;
}

static void spread(const float *c, int64_t c_cols, int64_t m, int64_t n, float beta, float *y)
{
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) y[i * n + j] = beta * c[i * c_cols + (c_cols == 1 ? 0 : j)];
}

static void activate(const sdx_kernels *kernels, const gemm *state, int64_t n, float *y)
{
    if (state->activation->unary != SDX_UNARY_COUNT) {
        kernels->element.unary_f32[state->activation->unary](n, y, y);
        return;
    }
    for (int64_t i = 0; i < n; i++) y[i] = y[i] < 0 ? y[i] * state->slope : y[i];
}

static void gemm_f32(sdx_run *run, const sdx_product *p, sdx_operands in, const float *c, float *y, char *workspace)
{
    const gemm *state = run->state;
    sdx_shape sc = c ? sdx_tensor_shape(&run->in[2]) : (sdx_shape){.rank = 0};
    int64_t c_cols = sc.rank ? sc.dim[sc.rank - 1] : 1;
    bool is_row = sc.rank < 2 || sc.dim[sc.rank - 2] == 1;
    float *row = sdx_workspace_take(&workspace, (size_t)p->n * sizeof *row);
    const float *bias = c && is_row ? bias_row(c, c_cols, p->n, state->beta, row) : NULL;
    bool add_to_c = c && !is_row;
    if (add_to_c) spread(c, c_cols, p->m, p->n, state->beta, y);
    sdx_activation fused = add_to_c ? SDX_ACT_NONE : state->activation->fused;
    sdx_matmul_run_tall(run->kernels, run->threads, p, in, state->product.alpha, bias, fused, add_to_c, y, workspace);
    if (*state->activation->name && fused == SDX_ACT_NONE) activate(run->kernels, state, p->m * p->n, y);
}

/* y += beta * C for float64. */
static void add_c_f64(const sdx_tensor *c, int64_t m, int64_t n, double beta, double *y)
{
    sdx_shape full = {.rank = 2, .dim = {m, n}}, own = sdx_tensor_shape(c);
    int64_t stride[SDX_MAX_RANK];
    while (own.rank > 2) own = sdx_shape_make(own.rank - 1, own.dim + 1);
    sdx_shape_broadcast_strides(&own, &full, stride);
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++)
            y[i * n + j] += beta * ((const double *)c->data)[i * stride[0] + j * stride[1]];
}

static sdx_status run_gemm(sdx_run *run)
{
    const gemm *state = run->state;
    sdx_tensor a = run->in[0], b = run->in[1], c = {0}, *y = &run->out[0];
    if (sdx_run_has_in(run, 2)) c = run->in[2];
    sdx_shape sa = sdx_tensor_shape(&a), sb = sdx_tensor_shape(&b);
    char *workspace = run->workspace;
    sdx_product p;
    sdx_product_make(&sa, state->product.ta, &sb, state->product.tb, &p);
    if (state->product.a) a.data = (void *)state->product.a;
    if (state->product.b) b.data = (void *)state->product.b;
    if (state->c) c.data = (void *)state->c;
    if (!sdx_matmul_is_f32(a.dtype)) {
        sdx_matmul_run_plain(&p, &a, &b, (double)state->product.alpha, y, workspace);
        if (c.data) add_c_f64(&c, p.m, p.n, (double)state->beta, y->data);
        return SDX_OK;
    }
    sdx_operands in = {.weight = state->product.weight, .packed = state->product.packed};
    in.a = sdx_floats_of(run->kernels, &a, &workspace);
    if (!in.weight && !in.packed) in.b = sdx_floats_of(run->kernels, &b, &workspace);
    const float *wide_c = c.data ? sdx_floats_of(run->kernels, &c, &workspace) : NULL;
    float *result = y->data;
    if (y->dtype != SDX_F32) result = sdx_workspace_take(&workspace, (size_t)(p.m * p.n) * sizeof *result);
    gemm_f32(run, &p, in, wide_c, result, workspace);
    if (y->dtype != SDX_F32) sdx_floats_store(y->dtype, result, p.m * p.n, y->data, 0);
    return SDX_OK;
}

#define ANY SDX_OP_ANY_ALIGNMENT
static const sdx_op_def rows[] = {
    {"", "Gemm", 1, 0, 2, 3, 1, 1, ANY, infer_gemm, prepare_gemm, plan_gemm, run_gemm},
    {"com.microsoft", "FusedGemm", 1, 0, 2, 3, 1, 1, ANY, infer_fused_gemm, prepare_gemm, plan_gemm, run_gemm},
};

SDX_OP_TABLE(gemm);
