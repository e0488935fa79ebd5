/* linear_max.c: the largest output of a dense layer over the tokens of each text, without the outputs:
 *
 *     LinearMax(X [1,T,k], W [k,n], spans [N,2], bias? [n]) = Y [N,n],  Y[b,j] = max over t in span b of (X W)[t,j] + bias[j]
 *
 * A sparse encoder's head (SPLADE, Formal et al. 2021) has a vocabulary of columns and keeps one number of each per
 * text: 2,000 tokens of 30,522 columns are 250 MB that nobody reads twice. Here a worker takes a few panels of W, which
 * then stay in its cache, meets block after block of rows, and folds each block into the maxima while it is warm. A
 * text without tokens gets -inf. W is [n,k] with `transposed`. Made by the pass pack_tokens only.
 *
 * Workspace: [a block of products per worker] */
#include <math.h>

#include "linear.h"

enum { X, W, SPANS, BIAS };
enum { PANELS = 4, TILES = 8 }; /* of a block: 4 * 32 columns of W, 8 * 14 rows of X: 0.8 MB at k = 768 */

typedef struct linear_max {
    int64_t k, n;
    const float *packed;
    const void *kept[4];
} linear_max;

static sdx_status infer(sdx_infer *x)
{
    TRY(sdx_want_dtype(x, X, "X", SDX_SET(SDX_F32)));
    TRY(sdx_want_rank(x, X, "X", 3, 3));
    TRY(sdx_want_dim(x, X, "X", 0, 1));
    TRY(sdx_want_dtype(x, W, "W", SDX_SET(SDX_F32)));
    TRY(sdx_want_rank(x, W, "W", 2, 2));
    int columns = sdx_node_int(x->node, "transposed", 0) ? 0 : 1;
    TRY(sdx_want_dim(x, W, "W", !columns, sdx_type_dim(&x->in[X], 2)));
    TRY(sdx_want_dtype(x, SPANS, "spans", SDX_SET(SDX_I64)));
    TRY(sdx_want_rank(x, SPANS, "spans", 2, 2));
    TRY(sdx_want_dim(x, SPANS, "spans", 1, 2));
    TRY(sdx_want_dtype(x, BIAS, "the bias", SDX_SET(SDX_F32)));
    if (sdx_infer_has(x, BIAS)) TRY(sdx_want_rank(x, BIAS, "the bias", 1, 1));
    if (sdx_infer_has(x, BIAS)) TRY(sdx_want_dim(x, BIAS, "the bias", 0, sdx_type_dim(&x->in[W], columns)));
    sdx_shape out = {.rank = 2, .dim = {sdx_type_dim(&x->in[SPANS], 0), sdx_type_dim(&x->in[W], columns)}};
    sdx_infer_set(x, 0, SDX_F32, &out);
    return SDX_OK;
}

static sdx_status prepare(sdx_prepare *p)
{
    linear_max *state;
    PREPARE_STATE(p, state);
    const sdx_tensor *w = p->in[W].constant;
    if (!w) return sdx_fail(p->err, SDX_ERR_UNSUPPORTED, "W must be constant");
    bool transposed = sdx_node_int(p->node, "transposed", 0) != 0;
    state->k = w->dim[transposed];
    state->n = w->dim[!transposed];
    size_t bytes = p->kernels->gemm_f32.packed_bytes(state->k, state->n);
    float *packed = sdx_arena_alloc(p->arena, bytes);
    if (!packed) return sdx_fail_memory(p->err, bytes);
    sdx_gemm_f32_pack(p->kernels, p->threads, state->k, state->n, w->data,
                      transposed ? 1 : state->n, transposed ? state->k : 1, 1.0f, packed);
    state->packed = packed;
    p->packed |= 1u << W;
    return sdx_prepare_keep_all(p, state->kept);
}

static int64_t block_rows(const sdx_kernels *kernels) { return TILES * kernels->gemm_f32.mr; }
static int64_t block_columns(const sdx_kernels *kernels) { return PANELS * kernels->gemm_f32.nr; }

static size_t block_bytes(const sdx_kernels *kernels)
{
    return sdx_align_up((size_t)(block_rows(kernels) * block_columns(kernels)) * sizeof(float));
}

static sdx_status plan(sdx_plan_step *step)
{
    bool ok = sdx_workspace_add(&step->workspace, (size_t)step->threads, block_bytes(step->kernels));
    return ok ? SDX_OK : sdx_workspace_fail(step->err);
}

typedef struct task {
    const linear_max *state;
    const sdx_kernels *kernels;
    const float *x, *bias;
    const int64_t *span; /* [texts, 2] */
    int64_t rows, texts;
    float *y;
    char *workspace;
} task;

/* A block of products [rows, count] into the maxima of their texts; *text: where the row before ended up. */
static void fold_rows(const task *t, int64_t row, int64_t rows, int64_t column, int64_t count, const float *block,
                      int64_t *text)
{
    for (int64_t r = 0; r < rows; r++) {
        while (*text < t->texts && t->span[2 * *text + 1] <= row + r) ++*text;
        if (*text == t->texts) return;
        if (t->span[2 * *text] > row + r) continue;
        t->kernels->reduce.max_rows_f32(count, block + r * count, t->y + *text * t->state->n + column);
    }
}

/* Column blocks [begin, end), all texts. */
static void fold_columns(void *context, int64_t begin, int64_t end, int worker)
{
    const task *t = context;
    const linear_max *s = t->state;
    const sdx_gemm_f32_kernels *gemm = &t->kernels->gemm_f32;
    const int64_t width = block_columns(t->kernels), height = block_rows(t->kernels);
    float *block = (float *)(void *)(t->workspace + (size_t)worker * block_bytes(t->kernels));
    for (int64_t i = begin; i < end; i++) {
        int64_t column = i * width, count = s->n - column < width ? s->n - column : width, text = 0;
        for (int64_t b = 0; b < t->texts; b++)
            for (int64_t j = 0; j < count; j++) t->y[b * s->n + column + j] = -INFINITY;
        for (int64_t row = 0, rows; row < t->rows; row += rows) {
            rows = t->rows - row < height ? t->rows - row : height;
            gemm->run(rows, count, s->k, t->x + row * s->k, s->k, s->packed + column * s->k, 0,
                      (count + gemm->nr - 1) / gemm->nr, t->bias ? t->bias + column : NULL, SDX_ACT_NONE, NULL, 0,
                      block, count);
            fold_rows(t, row, rows, column, count, block, &text);
        }
    }
}

/* Texts follow each other among the rows. */
static sdx_status check_spans(const sdx_run *r, const task *t)
{
    int64_t last = 0;
    for (int64_t b = 0; b < t->texts; b++) {
        int64_t begin = t->span[2 * b], end = t->span[2 * b + 1];
        if (begin < last || end < begin || end > t->rows)
            return sdx_fail(r->err, SDX_ERR_USAGE, "text %lld has rows %lld to %lld, after %lld and of %lld", (long long)b,
                            (long long)begin, (long long)end, (long long)last, (long long)t->rows);
        last = end;
    }
    return SDX_OK;
}

static sdx_status run(sdx_run *r)
{
    const linear_max *s = r->state;
    task t = {.state = s, .kernels = r->kernels, .x = sdx_kept_in(r, s->kept, X).data, .rows = r->in[X].dim[1],
              .span = sdx_kept_in(r, s->kept, SPANS).data, .texts = r->in[SPANS].dim[0], .y = r->out[0].data,
              .workspace = r->workspace};
    if (sdx_run_has_in(r, BIAS)) t.bias = sdx_kept_in(r, s->kept, BIAS).data;
    TRY(check_spans(r, &t));
    int64_t width = block_columns(r->kernels), blocks = (s->n + width - 1) / width;
    sdx_parallel_for(r->threads, blocks, sdx_row_grain(t.rows * width * s->k / 32), fold_columns, &t);
    return SDX_OK;
}

static const sdx_op_def rows[] = {
    {"sardonyx", "LinearMax", 1, 0, 3, 4, 1, 1, SDX_OP_ANY_ALIGNMENT, infer, prepare, plan, run},
};

SDX_OP_TABLE(linear_max);
