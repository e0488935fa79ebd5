/* matmul.c: MatMul and ONNX Runtime's FusedMatMul, GemmFastGelu and MatMulInteger16; and what Gemm (gemm.c) shares.
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

#include "matmul.h"

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

/* ---- infer and prepare ----------------------------------------------------------------------------------- */

void sdx_matmul_transposes(const sdx_node *node, sdx_transpose *ta, sdx_transpose *tb)
{
    *ta = (sdx_transpose){sdx_node_int(node, "transA", 0) != 0, sdx_node_int(node, "transBatchA", 0) != 0};
    *tb = (sdx_transpose){sdx_node_int(node, "transB", 0) != 0, sdx_node_int(node, "transBatchB", 0) != 0};
}

sdx_status sdx_matmul_infer(sdx_infer *infer, sdx_transpose ta, sdx_transpose tb)
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
    return sdx_matmul_infer(infer, (sdx_transpose){0}, (sdx_transpose){0});
}

static sdx_status infer_fused_matmul(sdx_infer *infer)
{
    sdx_transpose ta, tb;
    sdx_matmul_transposes(infer->node, &ta, &tb);
    TRY(sdx_want_dtype(infer, 0, "A", SDX_SET_FLOAT));
    return sdx_matmul_infer(infer, ta, tb);
}

static sdx_status infer_integer16(sdx_infer *infer)
{
    TRY(sdx_want_dtype(infer, 0, "A", SDX_SET(SDX_I16)));
    TRY(sdx_matmul_infer(infer, (sdx_transpose){0}, (sdx_transpose){0}));
    sdx_infer_set(infer, 0, SDX_I32, &infer->out[0].shape);
    return SDX_OK;
}

static sdx_status infer_fast_gelu(sdx_infer *infer)
{
    TRY(sdx_want_dtype(infer, 0, "A", SDX_SET(SDX_F32)));
    TRY(sdx_matmul_infer(infer, (sdx_transpose){0}, (sdx_transpose){0}));
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

bool sdx_matmul_is_f32(sdx_dtype t)
{
    return t == SDX_F32 || sdx_dtype_is_half(t);
}

sdx_status sdx_matmul_keep(sdx_prepare *p, sdx_matmul *state)
{
    const sdx_tensor *b = p->in[1].constant;
    TRY(sdx_prepare_keep(p, 0, &state->a));
    if (!b || p->brief || !sdx_matmul_is_f32(b->dtype)) return sdx_prepare_keep(p, 1, &state->b);
    if (b->dtype == SDX_F32 && b->rank == 2 && state->alpha == 1.0f)
        return sdx_weight_prepare(p, 1, state->tb.last, &state->weight);
    p->packed |= 2u;
    return pack_constant(p, b, state->tb, state->alpha, &state->packed);
}

static sdx_status prepare_matmul(sdx_prepare *p)
{
    sdx_matmul *state;
    PREPARE_STATE(p, state);
    sdx_matmul_transposes(p->node, &state->ta, &state->tb);
    state->alpha = sdx_node_float(p->node, "alpha", 1.0f);
    return sdx_matmul_keep(p, state);
}

/* ---- the float32 product --------------------------------------------------------------------------------- */

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
static bool plan_product(const sdx_kernels *kernels, int threads, const sdx_product *p, const sdx_matmul *state,
                         bool constant, size_t *total)
{
    size_t workers = (size_t)batch_workers(p, threads);
    int64_t copied = copied_floats(p);
    size_t slice = sdx_align_up((size_t)copied * sizeof(float));
    const sdx_gemm_f32_kernels *gemm = gemm_of(kernels, constant, state->alpha);
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
    sdx_operands in;
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
void sdx_matmul_run_tall(const sdx_kernels *kernels, int threads, const sdx_product *p, sdx_operands in, float alpha,
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

static void run_product(const sdx_kernels *kernels, int threads, const sdx_product *p, sdx_operands in, float alpha,
                        float *c, char *workspace)
{
    if (p->b.count == 1) {
        sdx_matmul_run_tall(kernels, threads, p, in, alpha, NULL, SDX_ACT_NONE, false, c, workspace);
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

void sdx_matmul_run_plain(const sdx_product *p, const sdx_tensor *a, const sdx_tensor *b, double alpha,
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
    if (!sdx_dtype_is_half(dtype)) return true;
    return sdx_workspace_add(total, (size_t)a, sizeof(float)) &&
           sdx_workspace_add(total, constant ? 0 : (size_t)b, sizeof(float)) &&
           sdx_workspace_add(total, (size_t)(p->batch * p->m * p->n), sizeof(float));
}

sdx_status sdx_matmul_plan(sdx_plan_step *step)
{
    const sdx_matmul *state = step->state;
    const sdx_shape *a = &step->in[0].shape, *b = &step->in[1].shape;
    sdx_product p;
    sdx_product_make(a, state->ta, b, state->tb, &p);
    sdx_dtype dtype = step->in[0].dtype;
    bool constant = state->weight || state->packed, ok;
    if (sdx_matmul_is_f32(dtype))
        ok = plan_wide(&p, dtype, sdx_shape_count(a), sdx_shape_count(b), constant, &step->workspace) &&
             plan_product(step->kernels, step->threads, &p, state, constant, &step->workspace);
    else
        ok = sdx_workspace_add(&step->workspace, (size_t)p.n * 2, sizeof(double));
    return ok ? SDX_OK : sdx_workspace_fail(step->err);
}

static sdx_status run_matmul(sdx_run *run)
{
    const sdx_matmul *state = run->state;
    sdx_tensor a = run->in[0], b = run->in[1], *c = &run->out[0];
    sdx_shape sa = sdx_tensor_shape(&a), sb = sdx_tensor_shape(&b);
    char *workspace = run->workspace;
    sdx_product p;
    sdx_product_make(&sa, state->ta, &sb, state->tb, &p);
    if (state->a) a.data = (void *)state->a;
    if (state->b) b.data = (void *)state->b;
    if (!sdx_matmul_is_f32(a.dtype)) {
        sdx_matmul_run_plain(&p, &a, &b, (double)state->alpha, c, workspace);
        return SDX_OK;
    }
    sdx_operands in = {.weight = state->weight, .packed = state->packed};
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

#define MS  "com.microsoft"
#define ANY SDX_OP_ANY_ALIGNMENT
static const sdx_op_def rows[] = {
    {"", "MatMul", 1, 0, 2, 2, 1, 1, ANY, infer_matmul, prepare_matmul, sdx_matmul_plan, run_matmul},
    {MS, "FusedMatMul", 1, 0, 2, 2, 1, 1, ANY, infer_fused_matmul, prepare_matmul, sdx_matmul_plan, run_matmul},
    {MS, "TransposeMatMul", 1, 0, 2, 2, 1, 1, ANY, infer_fused_matmul, prepare_matmul, sdx_matmul_plan, run_matmul},
    {MS, "MatMulInteger16", 1, 0, 2, 2, 1, 1, ANY, infer_integer16, prepare_matmul, sdx_matmul_plan, run_matmul},
    {MS, "GemmFastGelu", 1, 0, 2, 3, 1, 1, SDX_OP_WIDE, infer_fast_gelu, prepare_matmul, sdx_matmul_plan, run_fast_gelu},
};

SDX_OP_TABLE(matmul);
