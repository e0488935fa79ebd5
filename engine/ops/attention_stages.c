/* attention_stages.c: attention with every stage in the open, for what the fused kernel does not do: a soft cap
 * between product and mask, one more logit in the softmax, the scores as an output.
 *
 *     S = scale * Q K^T;  S = cap * tanh(S / cap);  S += mask + bias;  P = softmax(S);  out = P V
 * A worker takes a whole head; a stage that is asked for is copied out on the way.
 *
 * Workspace of a worker: [K^T packed] [V packed] [S, queries x keys].
 */
#include <math.h>
#include <string.h>

#include "attention.h"
#include "linear.h"

static size_t slice_bytes(const sdx_kernels *kernels, int64_t queries, int64_t keys, int64_t head_dim,
                          int64_t value_dim)
{
    return sdx_align_up(kernels->gemm_f32.packed_bytes(head_dim, keys)) +
           sdx_align_up(kernels->gemm_f32.packed_bytes(keys, value_dim)) +
           sdx_align_up((size_t)(queries * keys) * sizeof(float));
}

size_t sdx_attention_stages_workspace(const sdx_kernels *kernels, int threads, int64_t queries, int64_t keys,
                                      int64_t head_dim, int64_t value_dim)
{
    return slice_bytes(kernels, queries, keys, head_dim, value_dim) * (size_t)threads;
}

/* C[m,n] = A B, B(i,j) = b[i*row + j*col]. */
static void multiply(const sdx_attention_job *j, int64_t m, int64_t n, int64_t k, const float *a, int64_t lda,
                     const float *b, int64_t row, int64_t col, float alpha, float *packed, float *c,
                     int64_t ldc)
{
    sdx_gemm_f32_pack(&j->kernels->gemm_f32, 1, k, n, b, row, col, alpha, packed);
    sdx_gemm_f32_run(&(sdx_gemm_f32_job){.gemm = &j->kernels->gemm_f32,
                                         .threads = 1,
                                         .m = m,
                                         .n = n,
                                         .k = k,
                                         .a = a,
                                         .lda = lda,
                                         .packed = packed,
                                         .c = c,
                                         .ldc = ldc});
}

static void cap(const sdx_attention_job *j, int64_t n, float *s)
{
    const sdx_element_kernels *e = &j->kernels->element;
    float by = j->stages.softcap;
    e->binary_f32[SDX_BINARY_DIV](n, s, 1, &by, 0, s);
    e->unary_f32[SDX_UNARY_TANH](n, s, s);
    e->binary_f32[SDX_BINARY_MUL](n, s, 1, &by, 0, s);
}

/* Adds mask and bias to the row of query i, and hides what lies behind the diagonal. */
static void mask_row(const sdx_attention_job *j, int64_t b, int64_t h, int64_t i, float *s)
{
    void (*add)(int64_t, const float *, int, const float *, int, float *) =
        j->kernels->element.binary_f32[SDX_BINARY_ADD];
    if (j->mask) add(j->keys, s, 1, j->mask + (b * j->mask_rows + (j->mask_rows == 1 ? 0 : i)) * j->keys, 1, s);
    if (j->bias) add(j->keys, s, 1, j->bias + b * j->bias_batch + h * j->bias_head + i * j->keys, 1, s);
    if (!j->causal) return;
    int64_t visible = i + j->keys - j->queries + 1;
    for (int64_t k = visible > 0 ? visible : 0; k < j->keys; k++) s[k] = -INFINITY;
}

/* softmax with `extra` as one more logit, -inf for none; a row of only -inf gives zeros. */
static void weigh_row(const sdx_attention_job *j, float extra, float *s)
{
    float max = j->kernels->reduce.max_f32(j->keys, s);
    if (extra == -INFINITY && max > -INFINITY) {
        j->kernels->row.softmax_f32(j->keys, s, s);
        return;
    }
    if (max == -INFINITY) {
        for (int64_t k = 0; k < j->keys; k++) s[k] = 0;
        return;
    }
    const sdx_element_kernels *e = &j->kernels->element;
    max = fmaxf(max, extra);
    e->binary_f32[SDX_BINARY_SUB](j->keys, s, 1, &max, 0, s);
    e->unary_f32[SDX_UNARY_EXP](j->keys, s, s);
    float sum = j->kernels->reduce.sum_f32(j->keys, s) + expf(extra - max);
    e->binary_f32[SDX_BINARY_DIV](j->keys, s, 1, &sum, 0, s);
}

/* Copies the scores out when this is the stage that is asked for. */
static void hand_out(const sdx_attention_job *j, sdx_attention_stage stage, int64_t item, const float *s)
{
    int64_t n = j->queries * j->keys;
    if (j->stages.out == stage && n) memcpy(j->stages.scores + item * n, s, (size_t)n * sizeof *s);
}

static void run_head(const sdx_attention_job *j, int64_t item, char *workspace)
{
    int64_t b = item / j->heads, h = item % j->heads, key_head = h / (j->heads / j->key_heads);
    const sdx_gemm_f32_kernels *gemm = &j->kernels->gemm_f32;
    float *packed_k = sdx_workspace_take(&workspace, gemm->packed_bytes(j->head_dim, j->keys));
    float *packed_v = sdx_workspace_take(&workspace, gemm->packed_bytes(j->keys, j->value_dim));
    float *s = (float *)(void *)workspace;
    float extra = !j->stages.smooth ? -INFINITY : j->stages.sink ? j->stages.sink[h] : 0.0f;
    multiply(j, j->queries, j->keys, j->head_dim, j->q.data + b * j->q.batch + h * j->q.head, j->q.row,
             j->k.data + b * j->k.batch + key_head * j->k.head, 1, j->k.row, j->scale, packed_k, s, j->keys);
    hand_out(j, SDX_STAGE_SCORES, item, s);
    if (j->stages.softcap != 0) cap(j, j->queries * j->keys, s);
    hand_out(j, SDX_STAGE_CAPPED, item, s);
    for (int64_t i = 0; i < j->queries; i++) mask_row(j, b, h, i, s + i * j->keys);
    hand_out(j, SDX_STAGE_MASKED, item, s);
    for (int64_t i = 0; i < j->queries; i++) weigh_row(j, extra, s + i * j->keys);
    hand_out(j, SDX_STAGE_WEIGHTS, item, s);
    multiply(j, j->queries, j->value_dim, j->keys, s, j->keys,
             j->v.data + b * j->v.batch + key_head * j->v.head, j->v.row, 1, 1.0f, packed_v,
             sdx_attention_out(j, b, h), j->out_split ? j->value_dim : j->heads * j->value_dim);
}

static void run_items(void *context, int64_t begin, int64_t end, int worker)
{
    const sdx_attention_job *j = context;
    size_t slice = slice_bytes(j->kernels, j->queries, j->keys, j->head_dim, j->value_dim);
    for (int64_t i = begin; i < end; i++) run_head(j, i, (char *)j->workspace + (size_t)worker * slice);
}

void sdx_attention_run_stages(const sdx_attention_job *job)
{
    int64_t work = job->queries * job->keys * (job->head_dim + job->value_dim) / 32;
    sdx_attention_job copy = *job;
    sdx_parallel_for(job->threads, job->batch * job->heads, sdx_row_grain(work), run_items, &copy);
}
