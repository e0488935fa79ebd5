/* linear_max.c: the largest output of a dense layer over the tokens of each text, without the outputs:
 *
 *     LinearMax(X [1,T,k], W [k,n], bias? [n], spans [N,2])                              W is [n,k] with `transposed`
 *     DynamicLinearMax(X, W [k,n] int8|uint8, w_scale [1|n], w_zero? [1|n], bias?, factor? [k], spans)
 *                                                                                        see dynamic_linear.c
 *     Y[b,j] = max over t in span b of (X W)[t,j] + bias[j], -inf for a text without tokens
 *
 * A sparse encoder's head (SPLADE, Formal et al. 2021) has a vocabulary of columns and keeps one number of each per
 * text: 2,000 tokens of 30,522 columns are 250 MB that nobody reads twice. Here a worker takes a few panels of W, which
 * then stay in its cache, meets block after block of rows, and folds each block into the maxima while it is warm. Made
 * by the pass pack_tokens only.
 *
 * Workspace: [a block of products per worker], then [the panels of a block per worker] as long as the weight is not
 * packed, for bytes [rows] [a copy of A per worker]
 */
#include <math.h>

#include "dynamic_linear.h"

enum { X, W, BIAS, SPANS };
enum { DYNAMIC_BIAS = 4, DYNAMIC_FACTOR = 5, DYNAMIC_SPANS = 6 };
/* A block: 4 * 32 columns of W and 8 * 14 rows of X are 0.8 MB of float32 at k = 768, the second-level cache's size. */
enum { PANELS = 4, TILES = 8 };

typedef struct linear_max {
    sdx_weight *weight;      /* float32 */
    sdx_dynamic_layer layer; /* bytes; of float32, only k and n */
    const void *kept[7];
} linear_max;

/* ---- infer ----------------------------------------------------------------------------------------------- */

static sdx_status infer_texts(sdx_infer *x, int spans, int columns)
{
    TRY(sdx_want_rank(x, X, "X", 3, 3));
    TRY(sdx_want_dim(x, X, "X", 0, 1));
    TRY(sdx_want_dim(x, W, "W", !columns, sdx_type_dim(&x->in[X], 2)));
    TRY(sdx_want_dtype(x, spans, "spans", SDX_SET(SDX_I64)));
    TRY(sdx_want_rank(x, spans, "spans", 2, 2));
    TRY(sdx_want_dim(x, spans, "spans", 1, 2));
    sdx_shape out = {.rank = 2, .dim = {sdx_type_dim(&x->in[spans], 0), sdx_type_dim(&x->in[W], columns)}};
    sdx_infer_set(x, 0, SDX_F32, &out);
    return SDX_OK;
}

static sdx_status infer_f32(sdx_infer *x)
{
    int columns = sdx_node_int(x->node, "transposed", 0) ? 0 : 1;
    TRY(sdx_want_dtype(x, X, "X", SDX_SET(SDX_F32)));
    TRY(sdx_want_dtype(x, W, "W", SDX_SET(SDX_F32)));
    TRY(sdx_want_rank(x, W, "W", 2, 2));
    TRY(sdx_want_dtype(x, BIAS, "the bias", SDX_SET(SDX_F32)));
    if (sdx_infer_has(x, BIAS)) TRY(sdx_want_dim(x, BIAS, "the bias", 0, sdx_type_dim(&x->in[W], columns)));
    return infer_texts(x, SPANS, columns);
}

static sdx_status infer_int8(sdx_infer *x)
{
    TRY(sdx_dynamic_layer_check(x));
    return infer_texts(x, DYNAMIC_SPANS, 1);
}

/* ---- prepare and plan ------------------------------------------------------------------------------------ */

static sdx_status prepare_f32(sdx_prepare *p)
{
    linear_max *state;
    PREPARE_STATE(p, state);
    if (!p->in[W].constant) return sdx_fail(p->err, SDX_ERR_UNSUPPORTED, "W must be constant");
    TRY(sdx_weight_prepare(p, W, sdx_node_int(p->node, "transposed", 0) != 0, &state->weight));
    state->layer = (sdx_dynamic_layer){.k = state->weight->k, .n = state->weight->n};
    return sdx_prepare_keep_all(p, state->kept);
}

static sdx_status prepare_int8(sdx_prepare *p)
{
    linear_max *state;
    PREPARE_STATE(p, state);
    TRY(sdx_dynamic_layer_prepare(p, &state->layer));
    return sdx_prepare_keep_all(p, state->kept);
}

typedef struct block {
    int64_t rows, columns, panels;
    size_t bytes; /* of its products */
} block;

static block make_block(int64_t mr, int64_t nr)
{
    block b = {TILES * mr, PANELS * nr, PANELS, 0};
    b.bytes = sdx_align_up((size_t)(b.rows * b.columns) * sizeof(float));
    return b;
}

static sdx_status plan_f32(sdx_plan_step *step)
{
    const sdx_weight *w = ((const linear_max *)step->state)->weight;
    block b = make_block(w->gemm->mr, w->gemm->nr);
    bool ok = sdx_workspace_add(&step->workspace, (size_t)step->threads, b.bytes) &&
              sdx_workspace_add(&step->workspace, (size_t)step->threads, sdx_weight_scratch(w, PANELS));
    return ok ? SDX_OK : sdx_workspace_fail(step->err);
}

static size_t copy_bytes(const sdx_kernels *kernels, const block *b, int64_t k)
{
    return sdx_align_up(kernels->gemm_int8.packed_a_bytes(b->rows, k));
}

static sdx_status plan_int8(sdx_plan_step *step)
{
    const sdx_dynamic_layer *layer = &((const linear_max *)step->state)->layer;
    block b = make_block(step->kernels->gemm_int8.mr, step->kernels->gemm_int8.nr);
    size_t *total = &step->workspace, threads = (size_t)step->threads;
    bool ok = sdx_workspace_add(total, threads, b.bytes) &&
              sdx_dynamic_rows_plan(total, step->in[X].shape.dim[1], layer->k) &&
              sdx_workspace_add(total, threads, copy_bytes(step->kernels, &b, layer->k));
    return ok ? SDX_OK : sdx_workspace_fail(step->err);
}

/* ---- run ------------------------------------------------------------------------------------------------- */

typedef struct task {
    const sdx_kernels *kernels;
    const sdx_dynamic_layer *layer;
    const sdx_weight *weight;    /* or NULL: bytes */
    const float *x, *bias;       /* float32: [rows, k] */
    const sdx_dynamic_rows *q;   /* bytes */
    const int64_t *span;         /* [texts, 2] */
    int64_t rows, texts;
    float *y;                    /* [texts, n] */
    block block;
    char *products, *copies;     /* a block, and of bytes a copy of A, per worker */
    char *panels;                /* of a weight, per worker */
    size_t panel_bytes;
} task;

/* Rows [row, row + rows) times the columns from `column` on, to out [rows, count]. panels: of a weight, theirs. */
static void multiply(const task *t, int64_t row, int64_t rows, int64_t column, const float *panels, float *out,
                     int64_t count, int worker)
{
    const sdx_dynamic_layer *l = t->layer;
    const int64_t nr = t->block.columns / t->block.panels, first = column / nr, n_panels = (count + nr - 1) / nr;
    if (t->weight) {
        t->weight->gemm->run(rows, l->n - column, l->k, t->x + row * l->k, l->k, panels, 0, n_panels,
                             t->bias ? t->bias + column : NULL, SDX_ACT_NONE, NULL, 0, out, count);
        return;
    }
    sdx_int8_epilogue e = l->epilogue;
    e.bias = t->bias;
    e.row_scale = t->q->scale + row;
    void *copy = t->copies + (size_t)worker * copy_bytes(t->kernels, &t->block, l->k);
    t->kernels->gemm_int8.run(rows, l->n, l->k, t->q->q + row * l->k, l->k, false, l->packed, first, first + n_panels,
                              t->q->zero + row, l->w_zero, &e, copy, out, count);
}

/* Products [rows, count] into the maxima of their texts; *text: where the row before ended up. */
static void fold_rows(const task *t, int64_t row, int64_t rows, int64_t column, int64_t count, const float *products,
                      int64_t *text)
{
    for (int64_t r = 0; r < rows; r++) {
        while (*text < t->texts && t->span[2 * *text + 1] <= row + r) ++*text;
        if (*text == t->texts) return;
        if (t->span[2 * *text] > row + r) continue;
        t->kernels->reduce.max_rows_f32(count, products + r * count, t->y + *text * t->layer->n + column);
    }
}

/* Column blocks [begin, end), all texts. */
static void fold_columns(void *context, int64_t begin, int64_t end, int worker)
{
    const task *t = context;
    const block *b = &t->block;
    const int64_t n = t->layer->n, nr = b->columns / b->panels;
    float *products = (float *)(void *)(t->products + (size_t)worker * b->bytes);
    float *scratch = (float *)(void *)(t->panels + (size_t)worker * t->panel_bytes);
    for (int64_t i = begin; i < end; i++) {
        int64_t column = i * b->columns, count = n - column < b->columns ? n - column : b->columns, text = 0;
        const int64_t panel = i * b->panels, next = panel + (count + nr - 1) / nr;
        const float *panels = t->weight ? sdx_weight_panels(t->weight, panel, next, scratch) : NULL;
        for (int64_t j = 0; j < t->texts * count; j++) t->y[j / count * n + column + j % count] = -INFINITY;
        for (int64_t row = 0, rows; row < t->rows; row += rows) {
            rows = t->rows - row < b->rows ? t->rows - row : b->rows;
            multiply(t, row, rows, column, panels, products, count, worker);
            fold_rows(t, row, rows, column, count, products, &text);
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
            return sdx_fail(r->err, SDX_ERR_USAGE, "text %lld has rows %lld to %lld, after %lld and of %lld",
                            (long long)b, (long long)begin, (long long)end, (long long)last, (long long)t->rows);
        last = end;
    }
    return SDX_OK;
}

static task make_task(const sdx_run *r, int bias, int spans)
{
    const linear_max *s = r->state;
    task t = {.kernels = r->kernels, .layer = &s->layer, .x = sdx_kept_in(r, s->kept, X).data, .rows = r->in[X].dim[1],
              .span = sdx_kept_in(r, s->kept, spans).data, .texts = r->in[spans].dim[0], .y = r->out[0].data};
    if (sdx_run_has_in(r, bias)) t.bias = sdx_kept_in(r, s->kept, bias).data;
    return t;
}

static sdx_status fold(sdx_run *r, task *t)
{
    TRY(check_spans(r, t));
    const block *b = &t->block;
    int64_t blocks = (t->layer->n + b->columns - 1) / b->columns, work = t->rows * b->columns * t->layer->k / 32;
    sdx_parallel_for(r->threads, blocks, sdx_row_grain(work), fold_columns, t);
    return SDX_OK;
}

static sdx_status run_f32(sdx_run *r)
{
    task t = make_task(r, BIAS, SPANS);
    char *workspace = r->workspace;
    t.weight = ((const linear_max *)r->state)->weight;
    t.block = make_block(t.weight->gemm->mr, t.weight->gemm->nr);
    t.products = sdx_workspace_take(&workspace, (size_t)r->threads * t.block.bytes);
    t.panel_bytes = sdx_weight_scratch(t.weight, PANELS);
    t.panels = workspace;
    return fold(r, &t);
}

static sdx_status run_int8(sdx_run *r)
{
    task t = make_task(r, DYNAMIC_BIAS, DYNAMIC_SPANS);
    char *workspace = r->workspace;
    t.block = make_block(r->kernels->gemm_int8.mr, r->kernels->gemm_int8.nr);
    t.products = sdx_workspace_take(&workspace, (size_t)r->threads * t.block.bytes);
    sdx_dynamic_rows rows = sdx_dynamic_rows_take(&workspace, t.rows, t.layer->k);
    t.q = &rows;
    t.copies = workspace;
    const float *factor = NULL;
    if (sdx_run_has_in(r, DYNAMIC_FACTOR))
        factor = sdx_kept_in(r, ((const linear_max *)r->state)->kept, DYNAMIC_FACTOR).data;
    sdx_dynamic_rows_fill(r->kernels, r->threads, t.x, factor, &rows);
    return fold(r, &t);
}

static const sdx_op_def rows[] = {
    {"sardonyx", "LinearMax", 1, 0, 2, 4, 1, 1, SDX_OP_ANY_ALIGNMENT, infer_f32, prepare_f32, plan_f32, run_f32},
    {"sardonyx", "DynamicLinearMax", 1, 0, 3, 7, 1, 1, SDX_OP_ANY_ALIGNMENT, infer_int8, prepare_int8, plan_int8,
     run_int8},
};

SDX_OP_TABLE(linear_max);
