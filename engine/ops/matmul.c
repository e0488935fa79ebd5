/* matmul.c: MatMul, Gemm and ONNX Runtime's FusedMatMul, FusedGemm, GemmFastGelu and MatMulInteger16.
 *
 * Every product runs over packed panels of B (see kernels.h). A constant B is packed once, when the program is
 * made; another is packed into the workspace, since packing costs one pass over B and a product several. A runs
 * from where it lies unless it is transposed, then from a dense copy. alpha is multiplied into the packed B, so
 * that the bias stays exact. With one B for all batches A's batches become rows of one tall product; with many,
 * threads share out the batches. float16 and bfloat16 are widened first; float64 and integers take a plain
 * loop.
 */
#include <stdlib.h>
#include <string.h>

#include "linear.h"

typedef struct matmul {
    sdx_transpose ta, tb;
    float alpha;
    sdx_weight *weight;  /* constant B of one float32 matrix */
    const float *packed; /* other constant B: its matrices one after the other, each packed_stride floats */
    const void *a, *b;   /* constants that are read as they are, aligned */
} matmul;

/* Constant weights may be multiplied in 16 bits. */
static const sdx_gemm_f32_kernels *gemm_of(const sdx_kernels *kernels, bool constant, float alpha)
{
    return constant && alpha == 1.0f ? &kernels->linear : &kernels->gemm_f32;
}

/* Floats between packed matrices. */
static size_t packed_stride(const sdx_gemm_f32_kernels *gemm, int64_t k, int64_t n)
{
    return sdx_align_up(gemm->packed_bytes(k, n)) / sizeof(float);
}

static bool is_half(sdx_dtype t)
{
    return t == SDX_F16 || t == SDX_BF16;
}

/* ---- infer and prepare ----------------------------------------------------------------------------------- */

static void read_transposes(const sdx_node *node, sdx_transpose *ta, sdx_transpose *tb)
{
    *ta = (sdx_transpose){sdx_node_int(node, "transA", 0) != 0, sdx_node_int(node, "transBatchA", 0) != 0};
    *tb = (sdx_transpose){sdx_node_int(node, "transB", 0) != 0, sdx_node_int(node, "transBatchB", 0) != 0};
}

static sdx_status infer_product(sdx_infer *infer, sdx_transpose ta, sdx_transpose tb)
{
    sdx_shape shape;
    TRY(sdx_want_same_dtype(infer, 1, "B", 0, "A"));
    TRY(sdx_product_shape(&infer->in[0], ta, &infer->in[1], tb, &shape, infer->err));
    sdx_infer_set(infer, 0, infer->in[0].dtype, &shape);
    return SDX_OK;
}

static sdx_status infer_matmul(sdx_infer *infer)
{
    const unsigned types =
        SDX_SET_FLOAT | SDX_SET(SDX_I32) | SDX_SET(SDX_I64) | SDX_SET(SDX_U32) | SDX_SET(SDX_U64);
    TRY(sdx_want_dtype(infer, 0, "A", types));
    return infer_product(infer, (sdx_transpose){0}, (sdx_transpose){0});
}

static sdx_status infer_fused_matmul(sdx_infer *infer)
{
    sdx_transpose ta, tb;
    read_transposes(infer->node, &ta, &tb);
    TRY(sdx_want_dtype(infer, 0, "A", SDX_SET_FLOAT));
    return infer_product(infer, ta, tb);
}

static sdx_status infer_integer16(sdx_infer *infer)
{
    TRY(sdx_want_dtype(infer, 0, "A", SDX_SET(SDX_I16)));
    TRY(infer_product(infer, (sdx_transpose){0}, (sdx_transpose){0}));
    sdx_infer_set(infer, 0, SDX_I32, &infer->out[0].shape);
    return SDX_OK;
}

static sdx_status infer_fast_gelu(sdx_infer *infer)
{
    TRY(sdx_want_dtype(infer, 0, "A", SDX_SET(SDX_F32)));
    TRY(infer_product(infer, (sdx_transpose){0}, (sdx_transpose){0}));
    TRY(sdx_want_dtype(infer, 2, "the bias", SDX_SET(SDX_F32)));
    TRY(sdx_want_rank(infer, 2, "the bias", 1, 1));
    return sdx_want_dim(infer, 2, "the bias", 0, sdx_type_dim(&infer->out[0], -1));
}

/* Packs every matrix of a constant B; a half-precision B is widened on the way. */
static sdx_status pack_constant(sdx_prepare *p, const sdx_tensor *b, sdx_transpose tb, float alpha,
                                const float **out)
{
    sdx_shape shape = sdx_tensor_shape(b);
    sdx_product product;
    sdx_product_make_right(&shape, tb, &product);
    const sdx_gemm_f32_kernels *gemm = gemm_of(p->kernels, true, alpha);
    size_t stride = packed_stride(gemm, product.k, product.n);
    size_t bytes;
    bool fits = sdx_mul_size((size_t)product.b.count, stride * sizeof(float), &bytes);
    float *packed = fits ? sdx_arena_alloc_raw(p->arena, bytes) : NULL, *wide = NULL;
    if (!packed) return sdx_fail_memory(p->err, fits ? bytes : SIZE_MAX);
    const void *data = b->data;
    if (b->dtype != SDX_F32) {
        int64_t count = sdx_tensor_count(b);
        data = wide = sdx_malloc((size_t)count * sizeof *wide);
        if (!wide) return sdx_fail_memory(p->err, (size_t)count * sizeof *wide);
        sdx_floats_load(p->kernels, b->dtype, b->data, 0, count, wide);
    }
    for (int64_t i = 0, number; i < product.batch; i++) {
        int64_t offset = sdx_operand_offset(&product, &product.b, i, &number);
        sdx_gemm_f32_pack(gemm, p->threads, product.k, product.n, (const char *)data + offset * 4,
                          product.b.row_stride, product.b.col_stride, alpha, packed + (size_t)number * stride);
    }
    free(wide);
    *out = packed;
    return SDX_OK;
}

static bool packs(sdx_dtype t)
{
    return t == SDX_F32 || is_half(t);
}

static sdx_status keep_operands(sdx_prepare *p, matmul *state)
{
    const sdx_tensor *b = p->in[1].constant;
    TRY(sdx_prepare_keep(p, 0, &state->a));
    if (!b || p->brief || !packs(b->dtype)) return sdx_prepare_keep(p, 1, &state->b);
    if (b->dtype == SDX_F32 && b->rank == 2 && state->alpha == 1.0f)
        return sdx_weight_prepare(p, 1, state->tb.last, &state->weight);
    p->packed |= 2u;
    return pack_constant(p, b, state->tb, state->alpha, &state->packed);
}

static sdx_status prepare_matmul(sdx_prepare *p)
{
    matmul *state;
    PREPARE_STATE(p, state);
    read_transposes(p->node, &state->ta, &state->tb);
    state->alpha = sdx_node_float(p->node, "alpha", 1.0f);
    return keep_operands(p, state);
}

/* ---- the float32 product --------------------------------------------------------------------------------- */

typedef struct operands {
    const float *a, *b; /* as floats; b NULL when it is one of: */
    const sdx_weight *weight;
    const float *packed;
} operands;

/* With one B, A must be dense: copied when transposed. With many, each worker copies its current A. */
static int64_t copied_floats(const sdx_product *p)
{
    if (p->b.count == 1) return p->a.dense ? 0 : p->batch * p->m * p->k;
    return p->a.col_stride == 1 ? 0 : p->m * p->k;
}

static int batch_workers(const sdx_product *p, int threads)
{
    if (p->b.count == 1 || p->batch < threads) return 1;
    return threads;
}

/* Columns of B that one product packs at once: B may be a vocabulary's table, which would need as much again. */
static int64_t packed_columns(const sdx_gemm_f32_kernels *gemm, int64_t k, int64_t n)
{
    enum { MOST = 4 << 20 }; /* bytes */
    int64_t panel = k * gemm->nr * (int64_t)sizeof(float);
    int64_t columns = panel > 0 && panel < MOST ? MOST / panel * gemm->nr : n;
    return columns < n ? columns : n;
}

/* constant: B was dealt with by prepare. */
static bool plan_product(const sdx_kernels *kernels, int threads, const sdx_product *p, const matmul *state,
                         bool constant, size_t *total)
{
    size_t workers = (size_t)batch_workers(p, threads);
    int64_t copied = copied_floats(p);
    size_t slice = sdx_align_up((size_t)copied * sizeof(float));
    const sdx_gemm_f32_kernels *gemm = &kernels->gemm_f32;
    int64_t columns = p->b.count == 1 ? packed_columns(gemm, p->k, p->n) : p->n;
    if (!constant) slice += packed_stride(gemm, p->k, columns) * sizeof(float);
    if (p->b.count == 1)
        slice += sdx_gemm_f32_workspace(gemm, threads, p->batch * p->m, p->n, p->k, p->k, state->weight);
    return sdx_workspace_add(total, workers, slice);
}

/* rows x cols of a strided matrix, dense. */
static void copy_dense(const float *x, int64_t rows, int64_t cols, int64_t row_stride, int64_t col_stride,
                       float *y)
{
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++) y[i * cols + j] = x[i * row_stride + j * col_stride];
}

typedef struct product_task {
    const sdx_kernels *kernels;
    const sdx_product *p;
    operands in;
    float alpha;
    float *c;
    char *workspace;
    size_t slice;
    int threads; /* inside one batch */
} product_task;

static void run_batches(void *context, int64_t begin, int64_t end, int worker)
{
    const product_task *t = context;
    const sdx_product *p = t->p;
    float *scratch = (float *)(void *)(t->workspace + (size_t)worker * t->slice);
    const sdx_gemm_f32_kernels *gemm = gemm_of(t->kernels, t->in.packed, t->alpha);
    size_t stride = packed_stride(gemm, p->k, p->n);
    float *copy = t->in.packed ? scratch : scratch + stride;
    int64_t in_scratch = -1, number;
    for (int64_t i = begin; i < end; i++) {
        int64_t offset = sdx_operand_offset(p, &p->b, i, &number);
        const float *packed = t->in.packed ? t->in.packed + (size_t)number * stride : scratch;
        if (!t->in.packed && number != in_scratch) {
            sdx_gemm_f32_pack(gemm, t->threads, p->k, p->n, t->in.b + offset, p->b.row_stride,
                              p->b.col_stride, t->alpha, scratch);
            in_scratch = number;
        }
        const float *a = t->in.a + sdx_operand_offset(p, &p->a, i, &number);
        int64_t lda = p->a.row_stride;
        if (p->a.col_stride != 1) {
            copy_dense(a, p->m, p->k, p->a.row_stride, p->a.col_stride, copy);
            a = copy;
            lda = p->k;
        }
        sdx_gemm_f32_run(&(sdx_gemm_f32_job){.gemm = gemm,
                                             .threads = t->threads,
                                             .m = p->m,
                                             .n = p->n,
                                             .k = p->k,
                                             .a = a,
                                             .lda = lda,
                                             .packed = packed,
                                             .c = t->c + i * p->m * p->n,
                                             .ldc = p->n});
    }
}

/* All batches of A are rows of one product; bias, activation and residual as in the kernel. */
static void run_tall(const sdx_kernels *kernels, int threads, const sdx_product *p, operands in, float alpha,
                     const float *bias, sdx_activation activation, bool add_to_c, float *c, char *workspace)
{
    const sdx_gemm_f32_kernels *gemm = gemm_of(kernels, !in.b, alpha);
    const float *a = in.a;
    int64_t columns = in.b ? packed_columns(gemm, p->k, p->n) : p->n;
    float *scratch = NULL;
    if (in.b)
        scratch = sdx_workspace_take(&workspace, packed_stride(gemm, p->k, columns) * sizeof *scratch);
    if (!p->a.dense) {
        float *copy = sdx_workspace_take(&workspace, (size_t)(p->batch * p->m * p->k) * sizeof *copy);
        for (int64_t i = 0, number; i < p->batch; i++)
            copy_dense(in.a + sdx_operand_offset(p, &p->a, i, &number), p->m, p->k, p->a.row_stride,
                       p->a.col_stride, copy + i * p->m * p->k);
        a = copy;
    }
    sdx_gemm_f32_job job = {.gemm = gemm,
                            .threads = threads,
                            .m = p->batch * p->m,
                            .k = p->k,
                            .a = a,
                            .lda = p->k,
                            .packed = in.b ? scratch : in.packed,
                            .weight = in.weight,
                            .activation = activation,
                            .ldr = p->n,
                            .ldc = p->n,
                            .workspace = workspace};
    for (int64_t j = 0; j < p->n; j += columns) {
        job.n = columns < p->n - j ? columns : p->n - j;
        job.bias = bias ? bias + j : NULL;
        job.residual = add_to_c ? c + j : NULL;
        job.c = c + j;
        if (scratch)
            sdx_gemm_f32_pack(gemm, threads, p->k, job.n, in.b + j * p->b.col_stride, p->b.row_stride, p->b.col_stride,
                              alpha, scratch);
        sdx_gemm_f32_run(&job);
    }
}

static void run_product(const sdx_kernels *kernels, int threads, const sdx_product *p, operands in, float alpha,
                        float *c, char *workspace)
{
    if (p->b.count == 1) {
        run_tall(kernels, threads, p, in, alpha, NULL, SDX_ACT_NONE, false, c, workspace);
        return;
    }
    int workers = batch_workers(p, threads);
    size_t slice = sdx_align_up((size_t)copied_floats(p) * sizeof(float));
    if (!in.packed) slice += packed_stride(&kernels->gemm_f32, p->k, p->n) * sizeof(float);
    product_task task = {kernels, p, in, alpha, c, workspace, slice, workers > 1 ? 1 : threads};
    int64_t work = p->m * p->n * p->k / 32 + p->k * p->n;
    sdx_parallel_for(workers, p->batch, sdx_row_grain(work), run_batches, &task);
}

/* ---- the plain product: float64 by doubles, integers by uint64, which wraps as every narrower type does -- */

static void add_row_f64(int64_t n, double a, const double *b, double *c)
{
    for (int64_t j = 0; j < n; j++) c[j] += a * b[j];
}

static void add_row_u64(int64_t n, uint64_t a, const uint64_t *b, uint64_t *c)
{
    for (int64_t j = 0; j < n; j++) c[j] += a * b[j];
}

static void store_u64(sdx_dtype dtype, const uint64_t *x, int64_t n, void *data, int64_t begin)
{
    for (int64_t i = 0; i < n; i++) {
        if (sdx_dtype_size(dtype) == 8)
            ((uint64_t *)data)[begin + i] = x[i];
        else
            ((uint32_t *)data)[begin + i] = (uint32_t)x[i];
    }
}

/* Row i of C in a workspace of n * 2 eight-byte words: a row of B, and the sums. */
static void plain_row(const sdx_product *p, const sdx_tensor *a, int64_t a_row, const sdx_tensor *b,
                      int64_t b_matrix, double alpha, void *workspace, sdx_tensor *c, int64_t c_row)
{
    double *row = workspace, *sum = row + p->n;
    uint64_t *urow = workspace, *usum = urow + p->n;
    bool is_float = sdx_dtype_is_float(c->dtype);
    memset(sum, 0, (size_t)p->n * sizeof *sum);
    for (int64_t l = 0; l < p->k; l++) {
        int64_t at = a_row + l * p->a.col_stride, from = b_matrix + l * p->b.row_stride;
        for (int64_t j = 0; j < p->n; j++) {
            if (is_float)
                row[j] = sdx_tensor_get_f64(b, from + j * p->b.col_stride);
            else
                urow[j] = (uint64_t)sdx_tensor_get_i64(b, from + j * p->b.col_stride);
        }
        if (is_float)
            add_row_f64(p->n, alpha * sdx_tensor_get_f64(a, at), row, sum);
        else
            add_row_u64(p->n, (uint64_t)sdx_tensor_get_i64(a, at), urow, usum);
    }
    if (is_float)
        sdx_doubles_store(c->dtype, sum, p->n, c->data, c_row);
    else
        store_u64(c->dtype, usum, p->n, c->data, c_row);
}

static void run_plain(const sdx_product *p, const sdx_tensor *a, const sdx_tensor *b, double alpha,
                      sdx_tensor *c, void *workspace)
{
    for (int64_t i = 0, number; i < p->batch; i++) {
        int64_t from_a = sdx_operand_offset(p, &p->a, i, &number),
                from_b = sdx_operand_offset(p, &p->b, i, &number);
        for (int64_t r = 0; r < p->m; r++)
            plain_row(p, a, from_a + r * p->a.row_stride, b, from_b, alpha, workspace, c,
                      (i * p->m + r) * p->n);
    }
}

/* ---- MatMul ---------------------------------------------------------------------------------------------- */

/* Workspace: [A widened] [B widened] [C in float32] when half precision, then what plan_product asks for. */
static bool plan_wide(const sdx_product *p, sdx_dtype dtype, int64_t a, int64_t b, bool constant, size_t *total)
{
    if (!is_half(dtype)) return true;
    return sdx_workspace_add(total, (size_t)a, sizeof(float)) &&
           sdx_workspace_add(total, constant ? 0 : (size_t)b, sizeof(float)) &&
           sdx_workspace_add(total, (size_t)(p->batch * p->m * p->n), sizeof(float));
}

static sdx_status plan_matmul(sdx_plan_step *step)
{
    const matmul *state = step->state;
    const sdx_shape *a = &step->in[0].shape, *b = &step->in[1].shape;
    sdx_product p;
    sdx_product_make(a, state->ta, b, state->tb, &p);
    sdx_dtype dtype = step->in[0].dtype;
    bool constant = state->weight || state->packed, ok;
    if (packs(dtype))
        ok = plan_wide(&p, dtype, sdx_shape_count(a), sdx_shape_count(b), constant, &step->workspace) &&
             plan_product(step->kernels, step->threads, &p, state, constant, &step->workspace);
    else
        ok = sdx_workspace_add(&step->workspace, (size_t)p.n * 2, sizeof(double));
    return ok ? SDX_OK : sdx_workspace_fail(step->err);
}

static sdx_status run_matmul(sdx_run *run)
{
    const matmul *state = run->state;
    sdx_tensor a = run->in[0], b = run->in[1], *c = &run->out[0];
    sdx_shape sa = sdx_tensor_shape(&a), sb = sdx_tensor_shape(&b);
    char *workspace = run->workspace;
    sdx_product p;
    sdx_product_make(&sa, state->ta, &sb, state->tb, &p);
    if (state->a) a.data = (void *)state->a;
    if (state->b) b.data = (void *)state->b;
    if (!packs(a.dtype)) {
        run_plain(&p, &a, &b, (double)state->alpha, c, workspace);
        return SDX_OK;
    }
    operands in = {.weight = state->weight, .packed = state->packed};
    in.a = sdx_floats_of(run->kernels, &a, &workspace);
    if (!in.weight && !in.packed) in.b = sdx_floats_of(run->kernels, &b, &workspace);
    int64_t count = p.batch * p.m * p.n;
    float *result = c->data;
    if (c->dtype != SDX_F32) result = sdx_workspace_take(&workspace, (size_t)count * sizeof *result);
    run_product(run->kernels, run->threads, &p, in, state->alpha, result, workspace);
    if (c->dtype != SDX_F32) sdx_floats_store(c->dtype, result, count, c->data, 0);
    return SDX_OK;
}

/* GemmFastGelu: the product, its bias and GELU by tanh, in place. */
static sdx_status run_fast_gelu(sdx_run *run)
{
    TRY(run_matmul(run));
    const sdx_element_kernels *k = &run->kernels->element;
    const sdx_tensor *y = &run->out[0];
    int64_t n = y->rank ? y->dim[y->rank - 1] : 1, count = sdx_tensor_count(y);
    float *data = y->data;
    for (int64_t i = 0; i < count; i += n)
        if (sdx_run_has_in(run, 2)) k->binary_f32[SDX_BINARY_ADD](n, data + i, 1, run->in[2].data, 1, data + i);
    k->unary_f32[SDX_UNARY_GELU_TANH](count, data, data);
    return SDX_OK;
}

/* ---- Gemm: alpha * A * B + beta * C, and an activation in FusedGemm -------------------------------------- */

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
    matmul product;
    float beta;
    const void *c; /* constant C, aligned */
    const gemm_activation *activation;
    float slope; /* of LeakyRelu */
} gemm;

static sdx_status infer_gemm(sdx_infer *infer)
{
    sdx_transpose ta, tb;
    read_transposes(infer->node, &ta, &tb);
    TRY(sdx_want_dtype(infer, 0, "A", SDX_SET_FLOAT));
    TRY(sdx_want_rank(infer, 0, "A", 2, 2));
    TRY(sdx_want_rank(infer, 1, "B", 2, 2));
    TRY(sdx_want_same_dtype(infer, 2, "C", 0, "A"));
    TRY(infer_product(infer, ta, tb));
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
    read_transposes(p->node, &state->product.ta, &state->product.tb);
    state->product.alpha = sdx_node_float(p->node, "alpha", 1.0f);
    state->beta = sdx_node_float(p->node, "beta", 1.0f);
    state->activation = find_activation(p->node);
    state->slope = sdx_node_float(p->node, "activation_alpha", 0.01f);
    TRY(keep_operands(p, &state->product));
    return sdx_prepare_keep(p, 2, &state->c);
}

/* Workspace as MatMul's, with [C widened] and [bias row] before the product's own. */
static sdx_status plan_gemm(sdx_plan_step *step)
{
    const gemm *state = step->state;
    bool has_c = step->n_in > 2 && step->in[2].dtype != SDX_UNDEFINED;
    int64_t n = step->out[0].shape.dim[1], count = has_c ? sdx_shape_count(&step->in[2].shape) : 0;
    if (is_half(step->in[0].dtype) && !sdx_workspace_add(&step->workspace, (size_t)count, sizeof(float)))
        return sdx_workspace_fail(step->err);
    if (!sdx_workspace_add(&step->workspace, (size_t)n, sizeof(float))) return sdx_workspace_fail(step->err);
    sdx_plan_step inner = *step;
    inner.state = &state->product;
    TRY(plan_matmul(&inner));
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

static void gemm_f32(sdx_run *run, const sdx_product *p, operands in, const float *c, float *y, char *workspace)
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
    run_tall(run->kernels, run->threads, p, in, state->product.alpha, bias, fused, add_to_c, y, workspace);
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
    if (!packs(a.dtype)) {
        run_plain(&p, &a, &b, (double)state->product.alpha, y, workspace);
        if (c.data) add_c_f64(&c, p.m, p.n, (double)state->beta, y->data);
        return SDX_OK;
    }
    operands in = {.weight = state->product.weight, .packed = state->product.packed};
    in.a = sdx_floats_of(run->kernels, &a, &workspace);
    if (!in.weight && !in.packed) in.b = sdx_floats_of(run->kernels, &b, &workspace);
    const float *wide_c = c.data ? sdx_floats_of(run->kernels, &c, &workspace) : NULL;
    float *result = y->data;
    if (y->dtype != SDX_F32) result = sdx_workspace_take(&workspace, (size_t)(p.m * p.n) * sizeof *result);
    gemm_f32(run, &p, in, wide_c, result, workspace);
    if (y->dtype != SDX_F32) sdx_floats_store(y->dtype, result, p.m * p.n, y->data, 0);
    return SDX_OK;
}

#define MS  "com.microsoft"
#define ANY SDX_OP_ANY_ALIGNMENT
static const sdx_op_def rows[] = {
    {"", "MatMul", 1, 0, 2, 2, 1, 1, ANY, infer_matmul, prepare_matmul, plan_matmul, run_matmul},
    {"", "Gemm", 1, 0, 2, 3, 1, 1, ANY, infer_gemm, prepare_gemm, plan_gemm, run_gemm},
    {MS, "FusedMatMul", 1, 0, 2, 2, 1, 1, ANY, infer_fused_matmul, prepare_matmul, plan_matmul, run_matmul},
    {MS, "TransposeMatMul", 1, 0, 2, 2, 1, 1, ANY, infer_fused_matmul, prepare_matmul, plan_matmul, run_matmul},
    {MS, "MatMulInteger16", 1, 0, 2, 2, 1, 1, ANY, infer_integer16, prepare_matmul, plan_matmul, run_matmul},
    {MS, "GemmFastGelu", 1, 0, 2, 3, 1, 1, SDX_OP_WIDE, infer_fast_gelu, prepare_matmul, plan_matmul, run_fast_gelu},
    {MS, "FusedGemm", 1, 0, 2, 3, 1, 1, ANY, infer_fused_gemm, prepare_gemm, plan_gemm, run_gemm},
};

SDX_OP_TABLE(matmul);
