/* attention.h: what the attention operators share: masks as addends, and one call per (batch, head). */
#ifndef SDX_OPS_ATTENTION_H
#define SDX_OPS_ATTENTION_H

#include "compute.h"

/* Where one of Q, K, V lies: head h of batch b starts at data + b*batch + h*head, its rows are `row` apart
 * (floats). */
typedef struct sdx_heads {
    const float *data;
    int64_t batch, head, row;
} sdx_heads;

typedef struct sdx_attention_job {
    const sdx_kernels *kernels;
    int threads;
    int64_t batch, heads, queries, keys, head_dim, value_dim;
    sdx_heads q, k, v;
    const float *mask; /* [batch, mask_rows, keys] added to the scores, or NULL; mask_rows 1 or queries */
    int64_t mask_rows;
    const float
        *bias; /* [1 or batch, 1 or heads, queries, keys] added too, or NULL; strides 0 where it repeats */
    int64_t bias_batch, bias_head;
    float scale;
    bool causal;
    float *out;      /* [batch, queries, heads * value_dim] */
    void *workspace; /* sdx_attention_workspace bytes */
} sdx_attention_job;

size_t sdx_attention_workspace(const sdx_kernels *kernels, int threads, int64_t queries, int64_t keys,
                               int64_t head_dim, int64_t value_dim);
void sdx_attention_run(const sdx_attention_job *job);

/* ---- masks: int32 [B] lengths; [2B] ends, then starts; [3B+2], of which the first B are lengths; [B,T];
 * [B,S,T]. A hidden key gets `filter` added to its score (ONNX Runtime's rule), any other 0. */
sdx_status sdx_mask_check(const sdx_shape *mask, sdx_dim batch, sdx_dim queries, sdx_dim keys, sdx_error *err);
/* Rows per batch of the addend: 0 (no mask, or one that says nothing), 1 or queries. */
int64_t sdx_mask_rows(const sdx_tensor *mask, int64_t batch, int64_t queries, int64_t keys);
void sdx_mask_fill(const sdx_tensor *mask, int64_t batch, int64_t rows, int64_t keys, float filter,
                   float *addend);

/* attention_bias: [1 or B, 1 or N, S, T] of float32. */
sdx_status sdx_attention_check_bias(const sdx_infer *infer, int input, sdx_dim batch, sdx_dim heads,
                                    sdx_dim queries, sdx_dim keys);
void sdx_attention_set_bias(sdx_attention_job *job, const sdx_tensor *bias);

/* present[b,h] = past[b,h] then the new rows: past [B,N,P,H] or NULL, present [B,N,P+L,H]. */
void sdx_attention_append(int threads, int64_t batch, int64_t heads, int64_t past_length, int64_t length,
                          int64_t dim, const float *past, sdx_heads fresh, float *present);
/* A [B,N,T,H] tensor as heads. */
sdx_heads sdx_heads_of(const float *data, int64_t heads, int64_t length, int64_t dim);

#endif
