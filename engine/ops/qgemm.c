/* qgemm.c: com.microsoft QGemm: Gemm of 8-bit matrices.
 *
 *     acc = (A - a_zero) (B - b_zero) + C            exact, in int32; C [M,N] or what broadcasts to it
 *     y   = acc * (alpha * a_scale * b_scale[j]),    float32 without y_scale
 *     q   = saturate(round_half_even(acc * (alpha * a_scale * b_scale[j] / y_scale)) + y_zero)
 *
 * Workspace: [sums] [zero points and scales] [A transposed] [B packed, when not constant] and the product's
 * own.
 */
#include <math.h>

#include "contents.h"
#include "linear.h"

enum { A, A_SCALE, A_ZERO, B, B_SCALE, B_ZERO, C, Y_SCALE, Y_ZERO };

typedef struct qgemm {
    bool trans_a, trans_b;
    float alpha;
    const void *packed; /* constant B */
} qgemm;

typedef struct sizes {
    int64_t m, n, k;
} sizes;

/* ---- infer and prepare ----------------------------------------------------------------------------------- */

static sdx_status check_c(const sdx_infer *infer, sdx_dim m, sdx_dim n)
{
    const sdx_shape *c = &sdx_infer_in(infer, C)->shape;
    const sdx_dim want[2] = {n, m};
    TRY(sdx_want_dtype(infer, C, "C", SDX_SET(SDX_I32)));
    TRY(sdx_want_rank(infer, C, "C", 0, 2));
    for (int i = 0; i < c->rank; i++)
        if (c->dim[c->rank - 1 - i] != 1) TRY(sdx_want_dim(infer, C, "C", c->rank - 1 - i, want[i]));
    return SDX_OK;
}

static sdx_status infer_qgemm(sdx_infer *infer)
{
    bool trans_a = sdx_node_int(infer->node, "transA", 0), trans_b = sdx_node_int(infer->node, "transB", 0);
    const sdx_type *a = &infer->in[A], *b = sdx_infer_in(infer, B);
    TRY(sdx_want_present(infer, A_SCALE, "A's scale"));
    TRY(sdx_want_present(infer, B, "B"));
    TRY(sdx_want_dtype(infer, A, "A", SDX_SET_BYTE));
    TRY(sdx_want_dtype(infer, B, "B", SDX_SET_BYTE));
    TRY(sdx_want_rank(infer, A, "A", 2, 2));
    TRY(sdx_want_rank(infer, B, "B", 2, 2));
    sdx_dim m = sdx_type_dim(a, trans_a), n = sdx_type_dim(b, !trans_b);
    TRY(sdx_want_dim(infer, B, "B", trans_b, sdx_type_dim(a, !trans_a)));
    TRY(sdx_int8_check(infer, A, "A", A_SCALE, A_ZERO, 1));
    TRY(sdx_want_present(infer, B_SCALE, "B's scale"));
    TRY(sdx_int8_check(infer, B, "B", B_SCALE, B_ZERO, n));
    TRY(check_c(infer, m, n));
    sdx_dtype type = SDX_F32;
    if (sdx_infer_has(infer, Y_SCALE)) {
        TRY(sdx_want_dtype(infer, Y_ZERO, "the result's zero point", SDX_SET_BYTE));
        TRY(sdx_int8_check(infer, Y_ZERO, "the result", Y_SCALE, sdx_infer_has(infer, Y_ZERO) ? Y_ZERO : -1,
                           1));
        type = sdx_infer_has(infer, Y_ZERO) ? infer->in[Y_ZERO].dtype : a->dtype;
    }
    sdx_shape shape = {.rank = 2, .dim = {m, n}};
    sdx_infer_set(infer, 0, type, &shape);
    return SDX_OK;
}

/* B(i,j) = b[i*row + j*col] of a [k,n] or transposed [n,k] matrix. */
static void pack(const sdx_kernels *kernels, const qgemm *state, const sizes *s, const sdx_tensor *b,
                 void *packed)
{
    int64_t row = state->trans_b ? 1 : s->n, col = state->trans_b ? s->k : 1;
    sdx_gemm_int8_pack(kernels, 1, s->k, s->n, b->data, row, col, b->dtype == SDX_I8, packed);
}

static sdx_status prepare_qgemm(sdx_prepare *p)
{
    qgemm *state;
    PREPARE_STATE(p, state);
    state->trans_a = sdx_node_int(p->node, "transA", 0) != 0;
    state->trans_b = sdx_node_int(p->node, "transB", 0) != 0;
    state->alpha = sdx_node_float(p->node, "alpha", 1.0f);
    const sdx_tensor *b = p->in[B].constant;
    if (!b) return SDX_OK;
    sizes s = {.n = b->dim[!state->trans_b], .k = b->dim[state->trans_b]};
    size_t bytes = p->kernels->gemm_int8.packed_bytes(s.k, s.n);
    void *packed = sdx_arena_alloc(p->arena, bytes);
    if (!packed) return sdx_fail_memory(p->err, bytes);
    pack(p->kernels, state, &s, b, packed);
    state->packed = packed;
    p->packed |= 1u << B;
    return SDX_OK;
}

static sizes make_sizes(const qgemm *state, const int64_t *a, const int64_t *b)
{
    return (sizes){a[state->trans_a], b[!state->trans_b], a[!state->trans_a]};
}

static sdx_status plan_qgemm(sdx_plan_step *step)
{
    const qgemm *state = step->state;
    size_t *total = &step->workspace;
    sizes s = make_sizes(state, step->in[A].shape.dim, step->in[B].shape.dim);
    bool ok =
        sdx_workspace_add(total, (size_t)(s.m * s.n), sizeof(int32_t)) &&
        sdx_workspace_add(total, (size_t)s.m, sizeof(int32_t)) &&
        sdx_workspace_add(total, (size_t)s.n, sizeof(int32_t)) &&
        sdx_workspace_add(total, (size_t)s.n, sizeof(float)) &&
        sdx_workspace_add(total, state->trans_a ? (size_t)(s.m * s.k) : 0, 1) &&
        sdx_workspace_add(total, state->packed ? 0 : step->kernels->gemm_int8.packed_bytes(s.k, s.n), 1) &&
        sdx_workspace_add(total, 1, sdx_gemm_int8_workspace(step->kernels, step->threads, s.m, s.k));
    return ok ? SDX_OK : sdx_workspace_fail(step->err);
}

/* ---- run ------------------------------------------------------------------------------------------------- */

static void transpose(const uint8_t *x, int64_t rows, int64_t cols, uint8_t *y)
{
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++) y[j * rows + i] = x[i * cols + j];
}

/* Row i of the result from its sums. */
static void finish_row(const sdx_run *run, const sizes *s, int64_t i, const int32_t *acc, const float *scale,
                       int step)
{
    const sdx_tensor *c = &run->in[C], *y = &run->out[0];
    bool has_c = sdx_run_has_in(run, C);
    int64_t cols = has_c && c->rank ? c->dim[c->rank - 1] : 1, at = 0;
    if (has_c && c->rank == 2 && c->dim[0] != 1) at = i * cols;
    int64_t zero = sdx_run_has_in(run, Y_ZERO) ? sdx_tensor_get_i64(&run->in[Y_ZERO], 0) : 0;
    for (int64_t j = 0; j < s->n; j++) {
        int32_t add = has_c ? ((const int32_t *)c->data)[at + (cols == 1 ? 0 : j)] : 0;
        float x = (float)(int32_t)((uint32_t)acc[j] + (uint32_t)add) * scale[j * step];
        int64_t out = i * s->n + j;
        if (y->dtype == SDX_F32)
            ((float *)y->data)[out] = x;
        else if (y->dtype == SDX_U8)
            ((uint8_t *)y->data)[out] = (uint8_t)fminf(fmaxf(rintf(x) + (float)zero, 0), 255);
        else
            ((int8_t *)y->data)[out] = (int8_t)fminf(fmaxf(rintf(x) + (float)zero, -128), 127);
    }
}

static int make_scales(const sdx_run *run, int64_t n, float *scale)
{
    const qgemm *state = run->state;
    int step = sdx_int8_scales(&run->in[A_SCALE], &run->in[B_SCALE], n, scale);
    float by = state->alpha;
    if (sdx_run_has_in(run, Y_SCALE)) by /= (float)sdx_tensor_get_f64(&run->in[Y_SCALE], 0);
    for (int64_t j = 0; j < (step ? n : 1); j++) scale[j] *= by;
    return step;
}

static sdx_status run_qgemm(sdx_run *run)
{
    const qgemm *state = run->state;
    sizes s = make_sizes(state, run->in[A].dim, run->in[B].dim);
    char *workspace = run->workspace;
    int32_t *acc = sdx_workspace_take(&workspace, (size_t)(s.m * s.n) * sizeof *acc);
    int32_t *a_zero = sdx_workspace_take(&workspace, (size_t)s.m * sizeof *a_zero);
    int32_t *b_zero = sdx_workspace_take(&workspace, (size_t)s.n * sizeof *b_zero);
    float *scale = sdx_workspace_take(&workspace, (size_t)s.n * sizeof *scale);
    uint8_t *turned = sdx_workspace_take(&workspace, state->trans_a ? (size_t)(s.m * s.k) : 0);
    void *packing =
        sdx_workspace_take(&workspace, state->packed ? 0 : run->kernels->gemm_int8.packed_bytes(s.k, s.n));
    if (s.m == 0 || s.n == 0) return SDX_OK;
    if (state->trans_a) transpose(run->in[A].data, s.k, s.m, turned);
    if (!state->packed) pack(run->kernels, state, &s, &run->in[B], packing);
    sdx_gemm_int8_job job = {.kernels = run->kernels,
                             .threads = run->threads,
                             .m = s.m,
                             .n = s.n,
                             .k = s.k,
                             .a = state->trans_a ? turned : run->in[A].data,
                             .lda = s.k,
                             .a_signed = run->in[A].dtype == SDX_I8,
                             .packed = state->packed ? state->packed : packing,
                             .c = acc,
                             .ldc = s.n,
                             .workspace = workspace};
    if (sdx_run_has_in(run, A_ZERO)) job.a_zero = sdx_int8_zeros(&run->in[A_ZERO], s.m, a_zero);
    if (sdx_run_has_in(run, B_ZERO)) job.b_zero = sdx_int8_zeros(&run->in[B_ZERO], s.n, b_zero);
    sdx_gemm_int8_run(&job);
    int step = make_scales(run, s.n, scale);
    for (int64_t i = 0; i < s.m; i++) finish_row(run, &s, i, acc + i * s.n, scale, step);
    return SDX_OK;
}

#define MS "com.microsoft"
static const sdx_op_def rows[] = {
    {MS, "QGemm", 1, 0, 2, 9, 1, 1, 0, infer_qgemm, prepare_qgemm, plan_qgemm, run_qgemm},
};

SDX_OP_TABLE(qgemm);
