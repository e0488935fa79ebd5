/* matmul_int8.c: 8-bit products: MatMulInteger and QLinearMatMul of ONNX, MatMulIntegerToFloat and
 * DynamicQuantizeMatMul of com.microsoft. One run function serves all four; a row of `forms` says which input
 * is what.
 *
 *     acc = sum_k (A - a_zero) * (B - b_zero)                exact, in int32
 *     y   = (float)acc * (a_scale * b_scale) + bias          the product of the scales first
 *     q   = saturate(round(y / y_scale) + y_zero)            QLinearMatMul
 * DynamicQuantizeMatMul makes its own A, scale and zero point from float32, as DynamicQuantizeLinear does. The
 * int32 sums are written where y goes and turned into floats there, panel by panel.
 */
#include "linear.h"

typedef enum result { RESULT_I32, RESULT_F32, RESULT_8BIT } result;

typedef struct form { /* input numbers, -1: none */
    int b, a_scale, b_scale, a_zero, b_zero, bias, y_scale, y_zero;
    bool dynamic; /* A is float32 */
    result result;
} form;

static const form form_integer = {1, -1, -1, 2, 3, -1, -1, -1, false, RESULT_I32};
static const form form_to_float = {1, 2, 3, 4, 5, 6, -1, -1, false, RESULT_F32};
static const form form_dynamic = {1, -1, 2, -1, 3, 4, -1, -1, true, RESULT_F32};
static const form form_qlinear = {3, 1, 4, 2, 5, -1, 6, 7, false, RESULT_8BIT};

typedef struct matmul_int8 {
    const form *form;
    const char *packed;  /* constant B: its matrices one after the other */
    const void *kept[8]; /* the other constants */
} matmul_int8;

static const sdx_transpose plain = {false, false};

/* ---- infer ----------------------------------------------------------------------------------------------- */

/* A's zero point and scale may also be given per row. */
static sdx_status check_rows(const sdx_infer *infer, int i, sdx_dim rows)
{
    const sdx_shape *s = &sdx_infer_in(infer, i)->shape;
    int64_t count = sdx_shape_count(s);
    if (rows < 0 || count < 0 || count == 1 || (rows == 0 && count == 0)) return SDX_OK;
    if (rows > 0 && count > 0 && count % rows == 0) return SDX_OK;
    char text[SDX_SHAPE_TEXT];
    return sdx_fail(infer->err, SDX_ERR_USAGE, "A's zero point has shape %s, but must have 1 or %lld elements",
                    sdx_shape_format(s, text, sizeof text), (long long)rows);
}

static sdx_status infer_form(sdx_infer *infer, const form *f)
{
    const sdx_type *a = &infer->in[0], *b = &infer->in[f->b];
    sdx_dim n = b->shape.rank == 1 ? 1 : sdx_type_dim(b, -1), m = a->shape.rank == 1 ? 1 : sdx_type_dim(a, -2);
    sdx_shape shape;
    TRY(sdx_want_dtype(infer, 0, "A", f->dynamic ? SDX_SET(SDX_F32) : SDX_SET_BYTE));
    TRY(sdx_want_dtype(infer, f->b, "B", SDX_SET_BYTE));
    TRY(sdx_product_shape(a, plain, b, plain, &shape, infer->err));
    TRY(sdx_int8_check(infer, f->b, "B", -1, f->b_zero, n));
    if (f->a_zero >= 0) {
        TRY(sdx_want_same_dtype(infer, f->a_zero, "A's zero point", 0, "A"));
        TRY(check_rows(infer, f->a_zero, m));
    }
    if (f->b_scale >= 0) TRY(sdx_int8_check(infer, f->b, "B", f->b_scale, -1, n));
    if (f->a_scale >= 0)
        TRY(sdx_int8_check(infer, 0, "A", f->a_scale, -1, n)); /* columns: the two may be exchanged */
    if (f->bias >= 0 && sdx_infer_has(infer, f->bias)) {
        TRY(sdx_want_dtype(infer, f->bias, "the bias", SDX_SET(SDX_F32)));
        TRY(sdx_want_rank(infer, f->bias, "the bias", 1, 1));
        TRY(sdx_want_dim(infer, f->bias, "the bias", 0, n));
    }
    sdx_dtype type = f->result == RESULT_I32 ? SDX_I32 : SDX_F32;
    if (f->result == RESULT_8BIT) {
        TRY(sdx_want_dtype(infer, f->y_zero, "the result's zero point", SDX_SET_BYTE));
        TRY(sdx_int8_check(infer, f->y_zero, "the result", f->y_scale, f->y_zero, 1));
        type = infer->in[f->y_zero].dtype;
    }
    sdx_infer_set(infer, 0, type, &shape);
    return SDX_OK;
}

static sdx_status infer_integer(sdx_infer *infer)
{
    return infer_form(infer, &form_integer);
}
static sdx_status infer_to_float(sdx_infer *infer)
{
    return infer_form(infer, &form_to_float);
}
static sdx_status infer_dynamic(sdx_infer *infer)
{
    return infer_form(infer, &form_dynamic);
}
static sdx_status infer_qlinear(sdx_infer *infer)
{
    return infer_form(infer, &form_qlinear);
}

/* ---- prepare --------------------------------------------------------------------------------------------- */

/* Bytes between packed matrices. */
static size_t packed_stride(const sdx_kernels *kernels, const sdx_product *p)
{
    return sdx_align_up(kernels->gemm_int8.packed_bytes(p->k, p->n));
}

static sdx_status pack_constant(sdx_prepare *p, const sdx_tensor *b, const char **out)
{
    sdx_shape shape = sdx_tensor_shape(b);
    sdx_product product;
    sdx_product_make_right(&shape, plain, &product);
    size_t stride = packed_stride(p->kernels, &product);
    char *packed = sdx_arena_array(p->arena, (size_t)product.b.count, stride);
    if (!packed) return sdx_fail_memory(p->err, (size_t)product.b.count * stride);
    for (int64_t i = 0, number; i < product.batch; i++) {
        int64_t offset = sdx_operand_offset(&product, &product.b, i, &number);
        sdx_gemm_int8_pack(p->kernels, p->threads, product.k, product.n, (const char *)b->data + offset,
                           product.b.row_stride, product.b.col_stride, b->dtype == SDX_I8,
                           packed + (size_t)number * stride);
    }
    *out = packed;
    return SDX_OK;
}

static sdx_status prepare_form(sdx_prepare *p, const form *f)
{
    matmul_int8 *state;
    PREPARE_STATE(p, state);
    state->form = f;
    if (p->in[f->b].constant) {
        TRY(pack_constant(p, p->in[f->b].constant, &state->packed));
        p->packed |= 1u << f->b;
    }
    return sdx_prepare_keep_all(p, state->kept);
}

static sdx_status prepare_integer(sdx_prepare *p)
{
    return prepare_form(p, &form_integer);
}
static sdx_status prepare_to_float(sdx_prepare *p)
{
    return prepare_form(p, &form_to_float);
}
static sdx_status prepare_dynamic(sdx_prepare *p)
{
    return prepare_form(p, &form_dynamic);
}
static sdx_status prepare_qlinear(sdx_prepare *p)
{
    return prepare_form(p, &form_qlinear);
}

/* ---- plan ------------------------------------------------------------------------------------------------ */

/* Rows of one call: with one B all batches of A are rows of it. */
static int64_t call_rows(const sdx_product *p)
{
    return p->b.count == 1 ? p->batch * p->m : p->m;
}

static int batch_workers(const sdx_product *p, int threads)
{
    return p->b.count == 1 || p->batch < threads ? 1 : threads;
}

/* Bytes of one worker: [B packed, when not constant] [copies of A]. */
static size_t worker_bytes(const sdx_kernels *kernels, int threads, const sdx_product *p, bool packed)
{
    int inner = batch_workers(p, threads) > 1 ? 1 : threads;
    size_t own = packed ? 0 : packed_stride(kernels, p);
    return own + sdx_align_up(sdx_gemm_int8_workspace(kernels, inner, call_rows(p), p->k));
}

/* Workspace: [A quantized] [row zeros] [column zeros] [scales] [sums, for an 8-bit result] [workers]. */
static sdx_status plan_form(sdx_plan_step *step)
{
    const matmul_int8 *state = step->state;
    const form *f = state->form;
    sdx_product p;
    sdx_product_make(&step->in[0].shape, plain, &step->in[f->b].shape, plain, &p);
    size_t rows = (size_t)(p.batch * p.m), cells = rows * (size_t)p.n, *total = &step->workspace;
    size_t worker = worker_bytes(step->kernels, step->threads, &p, state->packed != NULL);
    bool ok = sdx_workspace_add(total, f->dynamic ? (size_t)sdx_shape_count(&step->in[0].shape) : 0, 1) &&
              sdx_workspace_add(total, rows, sizeof(int32_t)) &&
              sdx_workspace_add(total, (size_t)p.n, sizeof(int32_t)) &&
              sdx_workspace_add(total, (size_t)p.n + 1, sizeof(float)) &&
              sdx_workspace_add(total, f->result == RESULT_8BIT ? cells : 0, sizeof(int32_t)) &&
              sdx_workspace_add(total, (size_t)batch_workers(&p, step->threads), worker);
    return ok ? SDX_OK : sdx_workspace_fail(step->err);
}

/* ---- run ------------------------------------------------------------------------------------------------- */

typedef struct task {
    const sdx_product *p;
    sdx_gemm_int8_job job; /* of batch 0 */
    const void *b;         /* not packed yet */
    bool b_signed;
    const char *packed;
    char *workers;
    size_t worker_bytes;
} task;

static void run_batches(void *context, int64_t begin, int64_t end, int worker)
{
    const task *t = context;
    const sdx_product *p = t->p;
    const sdx_kernels *kernels = t->job.kernels;
    char *own = t->workers + (size_t)worker * t->worker_bytes;
    size_t stride = packed_stride(kernels, p);
    int64_t in_own = -1, number;
    for (int64_t i = begin; i < end; i++) {
        sdx_gemm_int8_job job = t->job;
        int64_t offset = sdx_operand_offset(p, &p->b, i, &number);
        job.packed = t->packed ? t->packed + (size_t)number * stride : own;
        if (!t->packed && number != in_own) {
            sdx_gemm_int8_pack(kernels, 1, p->k, p->n, (const char *)t->b + offset, p->b.row_stride, p->b.col_stride,
                                      t->b_signed, own);
            in_own = number;
        }
        job.workspace = t->packed ? own : own + stride;
        job.a = (const char *)job.a + sdx_operand_offset(p, &p->a, i, &number);
        job.c = (int32_t *)job.c + i * p->m * p->n;
        if (job.a_zero) job.a_zero += i * p->m;
        sdx_gemm_int8_run(&job);
    }
}

static sdx_tensor get(const sdx_run *run, int i)
{
    return sdx_kept_in(run, ((const matmul_int8 *)run->state)->kept, i);
}

/* A's zero points for all rows; given as one number, per row of a matrix, or per row of every batch. */
static const int32_t *row_zeros(const sdx_run *run, int input, int64_t rows, int32_t *out)
{
    if (input < 0 || !sdx_run_has_in(run, input)) return NULL;
    sdx_tensor zero = get(run, input);
    int64_t count = sdx_tensor_count(&zero);
    int32_t any = 0;
    for (int64_t i = 0; i < rows; i++) any |= out[i] = (int32_t)sdx_tensor_get_i64(&zero, i % count);
    return any ? out : NULL;
}

/* A as bytes, its zero points and its scale (in *a_scale, when the form has scales). */
static void find_a(const sdx_run *run, const form *f, const sdx_product *p, sdx_gemm_int8_job *job,
                   char **workspace, sdx_tensor *a_scale, float *own_scale)
{
    sdx_tensor a = get(run, 0);
    int64_t count = sdx_tensor_count(&a), rows = p->batch * p->m;
    uint8_t *bytes = sdx_workspace_take(workspace, f->dynamic ? (size_t)count : 0), zero;
    int32_t *zeros = sdx_workspace_take(workspace, (size_t)rows * sizeof *zeros);
    job->a = a.data;
    job->a_signed = a.dtype == SDX_I8;
    if (f->a_scale >= 0) *a_scale = get(run, f->a_scale);
    if (!f->dynamic) {
        job->a_zero = row_zeros(run, f->a_zero, rows, zeros);
        return;
    }
    sdx_dynamic_range(run->kernels, run->threads, count, a.data, own_scale, &zero);
    sdx_quantize_u8(run->kernels, run->threads, count, a.data, *own_scale, zero, bytes);
    for (int64_t i = 0; i < rows; i++) zeros[i] = zero;
    job->a = bytes;
    job->a_zero = zero ? zeros : NULL;
    *a_scale = (sdx_tensor){.dtype = SDX_F32, .data = own_scale};
}

static void find_b(const sdx_run *run, const form *f, const sdx_product *p, sdx_gemm_int8_job *job,
                   sdx_int8_epilogue *epilogue, char **workspace, const sdx_tensor *a_scale)
{
    int32_t *zeros = sdx_workspace_take(workspace, (size_t)p->n * sizeof *zeros);
    float *scale = sdx_workspace_take(workspace, (size_t)(p->n + 1) * sizeof *scale);
    if (sdx_run_has_in(run, f->b_zero)) {
        sdx_tensor zero = get(run, f->b_zero);
        job->b_zero = sdx_int8_zeros(&zero, p->n, zeros);
    }
    if (f->b_scale >= 0) {
        sdx_tensor b_scale = get(run, f->b_scale);
        epilogue->scale = scale;
        epilogue->scale_step = sdx_int8_scales(a_scale, &b_scale, p->n, scale);
        job->epilogue = epilogue;
    }
    if (f->bias >= 0 && sdx_run_has_in(run, f->bias)) epilogue->bias = get(run, f->bias).data;
}

static void store_8bit(const sdx_run *run, const form *f, int64_t count, const float *y)
{
    sdx_tensor scale = get(run, f->y_scale), zero = get(run, f->y_zero);
    float s = (float)sdx_tensor_get_f64(&scale, 0);
    int32_t z = (int32_t)sdx_tensor_get_i64(&zero, 0);
    if (run->out[0].dtype == SDX_U8)
        run->kernels->quantize.f32_u8(count, y, s, z, run->out[0].data);
    else
        run->kernels->quantize.f32_s8(count, y, s, z, run->out[0].data);
}

static sdx_status run_form(sdx_run *run)
{
    const matmul_int8 *state = run->state;
    const form *f = state->form;
    sdx_shape sa = sdx_tensor_shape(&run->in[0]), sb = sdx_tensor_shape(&run->in[f->b]);
    sdx_product p;
    sdx_product_make(&sa, plain, &sb, plain, &p);
    char *workspace = run->workspace;
    sdx_tensor a_scale = {0};
    float own_scale;
    sdx_int8_epilogue epilogue = {0};
    sdx_gemm_int8_job job = {
        .kernels = run->kernels, .m = call_rows(&p), .n = p.n, .k = p.k, .lda = p.k, .ldc = p.n};
    find_a(run, f, &p, &job, &workspace, &a_scale, &own_scale);
    find_b(run, f, &p, &job, &epilogue, &workspace, &a_scale);
    int64_t cells = p.batch * p.m * p.n;
    job.c = run->out[0].data;
    if (f->result == RESULT_8BIT) job.c = sdx_workspace_take(&workspace, (size_t)cells * sizeof(float));
    int workers = batch_workers(&p, run->threads);
    job.threads = workers > 1 ? 1 : run->threads;
    task t = {&p,
              job,
              run->in[f->b].data,
              run->in[f->b].dtype == SDX_I8,
              state->packed,
              workspace,
              worker_bytes(run->kernels, run->threads, &p, state->packed != NULL)};
    sdx_parallel_for(workers, p.b.count == 1 && p.batch ? 1 : p.batch, 1, run_batches, &t);
    if (f->result == RESULT_8BIT) store_8bit(run, f, cells, job.c);
    return SDX_OK;
}

#define MS  "com.microsoft"
#define ANY SDX_OP_ANY_ALIGNMENT
static const sdx_op_def rows[] = {
    {"", "MatMulInteger", 10, 0, 2, 4, 1, 1, ANY, infer_integer, prepare_integer, plan_form, run_form},
    {"", "QLinearMatMul", 10, 0, 8, 8, 1, 1, ANY, infer_qlinear, prepare_qlinear, plan_form, run_form},
    {MS, "MatMulIntegerToFloat", 1, 0, 4, 7, 1, 1, ANY | SDX_OP_WIDE, infer_to_float, prepare_to_float, plan_form,
     run_form},
    {MS, "DynamicQuantizeMatMul", 1, 0, 3, 5, 1, 1, ANY, infer_dynamic, prepare_dynamic, plan_form, run_form},
};

SDX_OP_TABLE(matmul_int8);
