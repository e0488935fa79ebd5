/* attention.h: what the attention operators share: masks as addends, one call per (batch, head), and a past. */
#ifndef SDX_OPS_ATTENTION_H
#define SDX_OPS_ATTENTION_H

#include "compute.h"

/* Where one of Q, K, V lies: head h of batch b starts at data + b*batch + h*head, its rows are `row` apart
 * (floats). */
typedef struct sdx_heads {
    const float *data;
    int64_t batch, head, row;
} sdx_heads;

/* The scores after a stage, as some operators hand them out. */
typedef enum sdx_attention_stage {
    SDX_STAGE_NONE,    /* nobody asks */
    SDX_STAGE_SCORES,  /* scale * q k^T */
    SDX_STAGE_CAPPED,  /* after the soft cap */
    SDX_STAGE_MASKED,  /* with mask and bias, and -inf behind a causal diagonal */
    SDX_STAGE_WEIGHTS, /* after softmax */
} sdx_attention_stage;

typedef struct sdx_attention_stages { /* what the fused kernel does not do; all zero: nothing of it */
    float softcap;           /* cap * tanh(score / cap) */
    bool smooth;             /* one more logit in the softmax's denominator: 0, or sink[head] */
    const float *sink;       /* [heads] or NULL */
    sdx_attention_stage out; /* which one goes to scores */
    float *scores;           /* [batch, heads, queries, keys] */
} sdx_attention_stages;

typedef struct sdx_attention_job {
    const sdx_kernels *kernels;
    int threads;
    int64_t batch, heads, queries, keys, head_dim, value_dim;
    int64_t key_heads; /* heads / key_heads neighbouring heads share one of k and v */
    sdx_heads q, k, v;
    const float *mask; /* [batch, mask_rows, keys] added to the scores, or NULL; mask_rows 1 or queries */
    int64_t mask_rows;
    const float
        *bias; /* [1 or batch, 1 or heads, queries, keys] added too, or NULL; strides 0 where it repeats */
    int64_t bias_batch, bias_head;
    float scale;
    bool causal;
    /* Texts one after the other: text b has rows [span[2b], span[2b+1]) of q, k, v, out and of the mask's one row, each
     * counted from where batch 0 begins; `queries` and `keys` are then no text's more than that. Without bias. */
    const int64_t *span; /* [batch, 2], or NULL */
    float *out;      /* [batch, queries, heads * value_dim], or [batch, heads, queries, value_dim] */
    bool out_split;  /* the second */
    void *workspace; /* sdx_attention_workspace bytes */
    sdx_attention_stages stages;
} sdx_attention_job;

size_t sdx_attention_workspace(const sdx_kernels *kernels, int threads, int64_t queries, int64_t keys,
                               int64_t head_dim, int64_t value_dim);
/* Softmax(scale * q k^T + mask + bias) v for every head; a query with no key to see (all -inf) gives zeros. */
void sdx_attention_run(const sdx_attention_job *job);

/* What com.microsoft's causal operators mean beyond that: ONNX Runtime gives later keys the least float instead of
 * leaving them out, so that a query whose other keys the mask gives the least float, too, weighs all keys alike. Call
 * after sdx_attention_run. */
void sdx_attention_fill_blind(const sdx_attention_job *job);

/* Where the first query of a head writes. */
float *sdx_attention_out(const sdx_attention_job *job, int64_t b, int64_t h);

/* The same with every stage in the open (attention_stages.c): for jobs that set job->stages. */
size_t sdx_attention_stages_workspace(const sdx_kernels *kernels, int threads, int64_t queries, int64_t keys,
                                      int64_t head_dim, int64_t value_dim);
void sdx_attention_run_stages(const sdx_attention_job *job);

/* ---- masks: int32 [B] lengths; [2B] ends, then starts; [3B+2], of which the first B are lengths; [B,T];
 * [B,S,T]. A hidden key gets `filter` added to its score (ONNX Runtime's rule), any other 0. */
sdx_status sdx_mask_check(const sdx_shape *mask, sdx_dim batch, sdx_dim queries, sdx_dim keys, sdx_error *err);
/* Rows per batch of the addend: 0 (no mask, or one that says nothing), 1 or queries. */
int64_t sdx_mask_rows(const sdx_tensor *mask, int64_t batch, int64_t queries, int64_t keys);
void sdx_mask_fill(const sdx_tensor *mask, int64_t batch, int64_t rows, int64_t keys, float filter,
                   float *addend);

/* A number of heads that a file gives may be multiplied by any size without overflow. */
static inline bool sdx_heads_fit(int64_t heads)
{
    return heads > 0 && heads <= INT32_MAX;
}

/* Input `spans`, int64 [texts, 2], of an operator whose batch is one row of texts; `plain`: nothing else is asked for
 * that texts would need each for itself. */
sdx_status sdx_attention_check_spans(const sdx_infer *infer, int spans, bool plain);
/* The job is of these texts, which must lie inside its rows. */
sdx_status sdx_attention_set_spans(const sdx_run *run, const sdx_tensor *spans, sdx_attention_job *job);

/* attention_bias: [1 or B, 1 or N, S, T] of float32. */
sdx_status sdx_attention_check_bias(const sdx_infer *infer, int input, sdx_dim batch, sdx_dim heads,
                                    sdx_dim queries, sdx_dim keys);
void sdx_attention_set_bias(sdx_attention_job *job, const sdx_tensor *bias);

/* ---- keys and values of earlier tokens. present[b,h] = the valid rows of past[b,h], the fresh rows, zeros up to
 * its room. */
typedef struct sdx_cache {
    int64_t batch, heads, dim;
    int64_t past, past_room; /* rows of [batch, heads, past_room, dim] that are valid, and that are there */
    const int64_t *past_of;  /* [batch] valid rows instead of `past`, or NULL */
    int64_t fresh;           /* rows to append */
    int64_t room;            /* rows of present: at least the valid and the fresh ones */
    bool is_buffer;          /* room is past_room, and the past's other rows stay instead of zeros */
    bool in_place;           /* past and present are one buffer, in which only the fresh rows are new */
} sdx_cache;

void sdx_cache_append(int threads, const sdx_cache *cache, const float *past, sdx_heads fresh, float *present);
/* Appends the fresh heads to input `past` in output `present` (in the workspace when nobody wants it or it is half
 * precision) and lets *heads read from there. Nothing to do without both. */
void sdx_cache_join(const sdx_run *run, const sdx_cache *cache, int past, int present, sdx_heads *heads,
                    char **workspace);
/* What it takes of a workspace. */
bool sdx_cache_plan(sdx_plan_step *step, const sdx_cache *cache, int past, int present, size_t *total);

/* A [B,N,T,H] tensor as heads, and a [B,T,N*H] one. */
sdx_heads sdx_heads_of(const float *data, int64_t heads, int64_t length, int64_t dim);
sdx_heads sdx_heads_of_rows(const float *data, int64_t heads, int64_t length, int64_t dim);

/* ---- rotary embedding (rotary.c): pairs of a head's first 2*half numbers turn by an angle of the position  */
typedef struct sdx_rotary {
    const float *cos, *sin; /* [positions, half] */
    int64_t positions, half;
    bool interleaved; /* pairs are neighbours; else x[i] goes with x[i + half] */
} sdx_rotary;

/* One head of n >= 2*half numbers; y may be x. */
void sdx_rotary_turn(const sdx_rotary *rotary, int64_t position, int64_t n, const float *x, float *y);

/* All rows of [batch, queries]: their positions are given, or go on behind each sequence's past. */
typedef struct sdx_turn {
    sdx_rotary rotary;
    const int64_t *past, *positions; /* [batch]; [batch, queries] or NULL */
    int64_t batch, queries, dim;
} sdx_turn;

/* Every position is inside the tables. */
sdx_status sdx_turn_check(const sdx_turn *turn, sdx_error *err);
/* Lets *heads read from turned copies in the workspace, [batch, queries, heads, dim]. */
void sdx_turn_heads(int threads, const sdx_turn *turn, int64_t heads, sdx_heads *of, char **workspace);

#endif
