/* linear.c: see linear.h */
#include "linear.h"

#include <math.h>
#include <string.h>

/* ---- cutting --------------------------------------------------------------------------------------------- */

enum { BLOCK_TILES = 10, COPIED_TILES = 3 };

/* Rows per block: at most `tiles` register tiles, so that a block of A stays in the second-level cache while the panels
 * pass. Blocks of even size, as threads take equal numbers of them; tiles a row or two lower cost nothing. */
static int64_t block_rows(int64_t m, int64_t mr, int64_t tiles)
{
    int64_t most = tiles * mr, blocks = (m + most - 1) / most;
    return blocks <= 1 ? m : (m + blocks - 1) / blocks;
}

typedef struct cut {
    int64_t rows, panels, tiles; /* rows of a block, panels of a block, blocks * panels */
    int64_t grain;
} cut;

static cut cut_product(int64_t m, int64_t n, int64_t k, int64_t mr, int64_t nr, int64_t block_tiles)
{
    cut c = {.rows = block_rows(m, mr, block_tiles), .panels = (n + nr - 1) / nr};
    int64_t blocks = c.rows ? (m + c.rows - 1) / c.rows : 0;
    c.tiles = blocks * c.panels;
    int64_t work = c.rows * nr * k / 32; /* about a nanosecond each */
    c.grain = work > 0 ? SDX_GRAIN / work + 1 : SDX_GRAIN;
    return c;
}

/* The part of tiles [*tile, end) that lies in one block: its rows and panels. */
typedef struct piece {
    int64_t row, rows, panel_begin, panel_end;
} piece;

static piece next_piece(const cut *c, int64_t m, int64_t *tile, int64_t end)
{
    int64_t block = *tile / c->panels, from = *tile % c->panels, count = end - *tile;
    if (count > c->panels - from) count = c->panels - from;
    *tile += count;
    int64_t row = block * c->rows;
    return (piece){row, m - row < c->rows ? m - row : c->rows, from, from + count};
}

/* ---- float32 --------------------------------------------------------------------------------------------- */

typedef struct f32_task {
    const sdx_gemm_f32_job *job;
    const float *packed; /* NULL: the job's weight is not */
    cut cut;
    size_t copy_slice;  /* bytes of one worker's copy of A; 0: A as it lies */
    size_t panel_slice; /* bytes of one worker's panels */
} f32_task;

enum { WAYS = 8, SET_BYTES = 4096, COPY_PANELS = 8 };
enum { PANELS_AT_ONCE = 4 }; /* of a weight: 512 bytes of each of its rows */

/* A copied row: a cache line longer than needed. */
static int64_t copy_stride(int64_t k)
{
    return k + SDX_ALIGN / (int64_t)sizeof(float);
}

static size_t copy_slice(const sdx_gemm_f32_kernels *gemm, int64_t m, int64_t n, int64_t k, int64_t lda)
{
    bool collide = lda * (int64_t)sizeof(float) % SET_BYTES == 0 && gemm->mr > WAYS && m > WAYS;
    if (!collide || n < COPY_PANELS * gemm->nr) return 0;
    return sdx_align_up((size_t)(block_rows(m, gemm->mr, COPIED_TILES) * copy_stride(k)) * sizeof(float));
}

size_t sdx_gemm_f32_workspace(const sdx_gemm_f32_kernels *gemm, int threads, int64_t m, int64_t n, int64_t k,
                              int64_t lda, const sdx_weight *weight)
{
    size_t panels = weight ? sdx_weight_scratch(weight, PANELS_AT_ONCE) : 0;
    return (copy_slice(gemm, m, n, k, lda) + panels) * (size_t)threads;
}

static const float *copy_rows(const float *a, int64_t lda, int64_t rows, int64_t k, float *copy)
{
    for (int64_t i = 0; i < rows; i++) memcpy(copy + i * copy_stride(k), a + i * lda, (size_t)k * sizeof *a);
    return copy;
}

/* panels: B's from number `first` on. */
static void multiply_piece(const f32_task *task, const piece *p, const float *panels, int64_t first, int worker)
{
    const sdx_gemm_f32_job *j = task->job;
    const int64_t column = first * j->gemm->nr;
    const float *residual = j->residual ? j->residual + p->row * j->ldr + column : NULL, *a = j->a + p->row * j->lda;
    float *copy = task->copy_slice ? (float *)(void *)((char *)j->workspace + (size_t)worker * task->copy_slice) : NULL;
    if (copy) a = copy_rows(a, j->lda, p->rows, j->k, copy);
    j->gemm->run(p->rows, j->n - column, j->k, a, copy ? copy_stride(j->k) : j->lda, panels, p->panel_begin - first,
                 p->panel_end - first, j->bias ? j->bias + column : NULL, j->activation, residual, j->ldr,
                 j->c + p->row * j->ldc + p->panel_begin * j->gemm->nr, j->ldc);
}

static void f32_tiles(void *context, int64_t begin, int64_t end, int worker)
{
    const f32_task *task = context;
    while (begin < end) {
        piece p = next_piece(&task->cut, task->job->m, &begin, end);
        multiply_piece(task, &p, task->packed, 0, worker);
    }
}

/* Panels [begin, end), a few at a time, times all blocks of rows. */
static void f32_panels(void *context, int64_t begin, int64_t end, int worker)
{
    const f32_task *task = context;
    const sdx_gemm_f32_job *j = task->job;
    char *slices = (char *)j->workspace + (size_t)j->threads * task->copy_slice;
    float *scratch = (float *)(void *)(slices + (size_t)worker * task->panel_slice);
    for (int64_t next; begin < end; begin = next) {
        next = end - begin < PANELS_AT_ONCE ? end : begin + PANELS_AT_ONCE;
        const float *panels = sdx_weight_panels(j->weight, begin, next, scratch);
        for (int64_t row = 0; row < j->m; row += task->cut.rows) {
            int64_t rows = j->m - row < task->cut.rows ? j->m - row : task->cut.rows;
            multiply_piece(task, &(piece){row, rows, begin, next}, panels, begin, worker);
        }
    }
}

void sdx_gemm_f32_run(const sdx_gemm_f32_job *job)
{
    size_t copied = job->workspace ? copy_slice(job->gemm, job->m, job->n, job->k, job->lda) : 0;
    int64_t tiles = copied ? COPIED_TILES : BLOCK_TILES;
    f32_task task = {.job = job, .packed = job->packed, .copy_slice = copied};
    task.cut = cut_product(job->m, job->n, job->k, job->gemm->mr, job->gemm->nr, tiles);
    if (!task.packed) task.packed = sdx_weight_packed(job->weight);
    if (!task.packed) {
        task.panel_slice = sdx_weight_scratch(job->weight, PANELS_AT_ONCE);
        sdx_parallel_for(job->threads, task.cut.panels, task.cut.grain, f32_panels, &task);
    } else {
        sdx_parallel_for(job->threads, task.cut.tiles, task.cut.grain, f32_tiles, &task);
    }
}

typedef struct pack_task {
    const sdx_gemm_f32_kernels *gemm;
    int64_t k, n;
    const void *b;
    int64_t row_stride, col_stride;
    float alpha;
    float *packed;
} pack_task;

static void pack_panels(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const pack_task *t = context;
    t->gemm->pack_b(t->k, t->n, t->b, t->row_stride, t->col_stride, begin, end, t->packed);
    if (t->alpha == 1.0f) return;
    int64_t each = t->k * t->gemm->nr;
    for (int64_t i = begin * each; i < end * each; i++) t->packed[i] *= t->alpha;
}

void sdx_gemm_f32_pack(const sdx_gemm_f32_kernels *gemm, int threads, int64_t k, int64_t n, const void *b,
                       int64_t row_stride, int64_t col_stride, float alpha, float *packed)
{
    pack_task task = {gemm, k, n, b, row_stride, col_stride, alpha, packed};
    int64_t panels = (n + gemm->nr - 1) / gemm->nr;
    sdx_parallel_for(threads, panels, sdx_row_grain(k * gemm->nr), pack_panels, &task);
}

/* ---- int8 ------------------------------------------------------------------------------------------------ */

typedef struct int8_task {
    const sdx_gemm_int8_job *job;
    cut cut;
    size_t slice; /* bytes of one worker's copy of A */
} int8_task;

static size_t int8_slice(const sdx_kernels *kernels, int64_t m, int64_t k)
{
    return sdx_align_up(kernels->gemm_int8.packed_a_bytes(block_rows(m, kernels->gemm_int8.mr, BLOCK_TILES), k));
}

size_t sdx_gemm_int8_workspace(const sdx_kernels *kernels, int threads, int64_t m, int64_t k)
{
    return int8_slice(kernels, m, k) * (size_t)threads;
}

static void int8_tiles(void *context, int64_t begin, int64_t end, int worker)
{
    const int8_task *task = context;
    const sdx_gemm_int8_job *j = task->job;
    void *workspace = task->slice ? (char *)j->workspace + (size_t)worker * task->slice : NULL;
    while (begin < end) {
        piece p = next_piece(&task->cut, j->m, &begin, end);
        sdx_int8_epilogue e = {0};
        if (j->epilogue) e = *j->epilogue;
        if (e.row_scale) e.row_scale += p.row;
        int64_t place = p.row * j->ldc + p.panel_begin * j->kernels->gemm_int8.nr;
        j->kernels->gemm_int8.run(p.rows, j->n, j->k, (const char *)j->a + p.row * j->lda, j->lda, j->a_signed,
                                  j->packed, p.panel_begin, p.panel_end, j->a_zero ? j->a_zero + p.row : NULL,
                                  j->b_zero, j->epilogue ? &e : NULL, workspace,
                                  (char *)j->c + place * (int64_t)sizeof(int32_t), j->ldc);
    }
}

void sdx_gemm_int8_run(const sdx_gemm_int8_job *job)
{
    const sdx_gemm_int8_kernels *gemm = &job->kernels->gemm_int8;
    int8_task task = {job, cut_product(job->m, job->n, job->k, gemm->mr, gemm->nr, BLOCK_TILES),
                      int8_slice(job->kernels, job->m, job->k)};
    sdx_parallel_for(job->threads, task.cut.tiles, task.cut.grain, int8_tiles, &task);
}

typedef struct range_task {
    const sdx_kernels *kernels;
    const float *x;
    float min[SDX_MAX_THREADS], max[SDX_MAX_THREADS];
} range_task;

static void range_part(void *context, int64_t begin, int64_t end, int worker)
{
    range_task *t = context;
    t->kernels->reduce.min_max_f32(end - begin, t->x + begin, &t->min[worker], &t->max[worker]);
}

static void dynamic_params(float min, float max, float *scale, uint8_t *zero)
{
    min = min < 0 ? min : 0;
    max = max > 0 ? max : 0;
    *scale = max == min ? 1.0f : (max - min) / 255.0f;
    *zero = (uint8_t)rintf(fminf(fmaxf(0.0f - min / *scale, 0.0f), 255.0f));
}

void sdx_dynamic_range(const sdx_kernels *kernels, int threads, int64_t n, const float *x, float *scale,
                       uint8_t *zero)
{
    range_task t = {.kernels = kernels, .x = x};
    sdx_parallel_for(threads, n, SDX_GRAIN, range_part, &t);
    float min = 0, max = 0;
    for (int i = 0; i < SDX_MAX_THREADS; i++) {
        if (t.min[i] < min) min = t.min[i];
        if (t.max[i] > max) max = t.max[i];
    }
    dynamic_params(min, max, scale, zero);
}

typedef struct quantize_task {
    const sdx_kernels *kernels;
    const float *x;
    float scale;
    uint8_t zero, *y;
} quantize_task;

static void quantize_part(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const quantize_task *t = context;
    t->kernels->quantize.f32_u8(end - begin, t->x + begin, t->scale, t->zero, t->y + begin);
}

void sdx_quantize_u8(const sdx_kernels *kernels, int threads, int64_t n, const float *x, float scale,
                     uint8_t zero, uint8_t *y)
{
    quantize_task t = {kernels, x, scale, zero, y};
    sdx_parallel_for(threads, n, SDX_GRAIN, quantize_part, &t);
}

const int32_t *sdx_int8_zeros(const sdx_tensor *zero, int64_t count, int32_t *out)
{
    bool single = sdx_tensor_count(zero) == 1;
    int32_t any = 0, first = (int32_t)sdx_tensor_get_i64(zero, 0);
    const uint8_t *byte = zero->data;
    for (int64_t i = 0; i < count; i++)
        any |= out[i] = single ? first : zero->dtype == SDX_I8 ? (int8_t)byte[i] : byte[i];
    return any ? out : NULL;
}

/* A vocabulary has tens of thousands of them, once a run. */
static float scale_at(const sdx_tensor *t, int64_t i)
{
    float x;
    if (t->dtype != SDX_F32) return (float)sdx_tensor_get_f64(t, i);
    memcpy(&x, (const char *)t->data + i * (int64_t)sizeof x, sizeof x);
    return x;
}

int sdx_int8_scales(const sdx_tensor *a_scale, const sdx_tensor *b_scale, int64_t n, float *out)
{
    int64_t a_count = sdx_tensor_count(a_scale), b_count = sdx_tensor_count(b_scale);
    int64_t count = a_count == 1 && b_count == 1 ? 1 : n;
    for (int64_t j = 0; j < count; j++)
        out[j] = scale_at(a_scale, a_count == 1 ? 0 : j) * scale_at(b_scale, b_count == 1 ? 0 : j);
    return count != 1;
}

typedef struct int8_pack_task {
    const sdx_gemm_int8_kernels *gemm;
    int64_t k, n;
    const void *b;
    int64_t row_stride, col_stride;
    bool b_signed;
    void *packed;
} int8_pack_task;

static void int8_pack_panels(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const int8_pack_task *t = context;
    t->gemm->pack_b(t->k, t->n, t->b, t->row_stride, t->col_stride, t->b_signed, begin, end, t->packed);
}

void sdx_gemm_int8_pack(const sdx_kernels *kernels, int threads, int64_t k, int64_t n, const void *b,
                        int64_t row_stride, int64_t col_stride, bool b_signed, void *packed)
{
    const sdx_gemm_int8_kernels *gemm = &kernels->gemm_int8;
    int8_pack_task task = {gemm, k, n, b, row_stride, col_stride, b_signed, packed};
    int64_t panels = (n + gemm->nr - 1) / gemm->nr;
    if (panels == 0) gemm->pack_b(k, n, b, row_stride, col_stride, b_signed, 0, 0, packed);
    sdx_parallel_for(threads, panels, sdx_row_grain(k * gemm->nr), int8_pack_panels, &task);
}

sdx_status sdx_int8_pack(sdx_prepare *p, const sdx_tensor *b, int64_t k, int64_t n, const void **out)
{
    size_t bytes = p->kernels->gemm_int8.packed_bytes(k, n);
    void *packed = sdx_arena_alloc_raw(p->arena, bytes);
    if (!packed) return sdx_fail_memory(p->err, bytes);
    sdx_gemm_int8_pack(p->kernels, p->threads, k, n, b->data, n, 1, b->dtype == SDX_I8, packed);
    *out = packed;
    return SDX_OK;
}

static sdx_status check_per_column(const sdx_infer *infer, int i, const char *name, const char *what,
                                   sdx_dim columns)
{
    const sdx_shape *s = &sdx_infer_in(infer, i)->shape;
    int64_t count = sdx_shape_count(s);
    if (count < 0 || count == 1 || columns < 0 || count == columns) return SDX_OK;
    char text[SDX_SHAPE_TEXT];
    return sdx_fail(infer->err, SDX_ERR_USAGE, "the %s of %s has shape %s, but must have 1 or %lld elements",
                    what, name, sdx_shape_format(s, text, sizeof text), (long long)columns);
}

sdx_status sdx_int8_check(const sdx_infer *infer, int value, const char *name, int scale, int zero,
                          sdx_dim columns)
{
    if (scale >= 0) {
        TRY(sdx_want_dtype(infer, scale, "a scale", SDX_SET_FLOAT));
        TRY(check_per_column(infer, scale, name, "scale", columns));
    }
    if (zero < 0) return SDX_OK;
    TRY(sdx_want_same_dtype(infer, zero, "a zero point", value, name));
    return check_per_column(infer, zero, name, "zero point", columns);
}

/* ---- which matrices meet --------------------------------------------------------------------------------- */

/* The operand as [batch dims..., rows, cols], with the strides that go with it when the shape is known. */
typedef struct view {
    int rank; /* >= 2 */
    sdx_dim dim[SDX_MAX_RANK];
    int64_t stride[SDX_MAX_RANK];
} view;

static void move_first_behind_batch(int64_t *x, int rank)
{
    int64_t first = x[0];
    memmove(x, x + 1, (size_t)(rank - 2) * sizeof *x);
    x[rank - 2] = first;
}

static void swap_last(int64_t *x, int rank)
{
    int64_t last = x[rank - 1];
    x[rank - 1] = x[rank - 2];
    x[rank - 2] = last;
}

static view make_view(const sdx_shape *s, sdx_transpose t, bool is_left)
{
    view v = {.rank = s->rank};
    memcpy(v.dim, s->dim, sizeof v.dim);
    if (sdx_shape_is_known(s)) sdx_shape_strides(s, v.stride);
    if (s->rank == 1) {
        v.rank = 2;
        v.dim[is_left] = s->dim[0];
        v.dim[!is_left] = 1;
        v.stride[is_left] = 1;
        v.stride[!is_left] = is_left ? s->dim[0] : 1;
        if (is_left) v.dim[0] = 1;
        return v;
    }
    if (t.batch && s->rank > 2) {
        move_first_behind_batch(v.dim, v.rank);
        move_first_behind_batch(v.stride, v.rank);
    }
    if (t.last) {
        swap_last(v.dim, v.rank);
        swap_last(v.stride, v.rank);
    }
    return v;
}

static sdx_status fail_inner(const sdx_type *a, const sdx_type *b, sdx_error *err)
{
    char ta[SDX_TENSOR_TEXT], tb[SDX_TENSOR_TEXT];
    return sdx_fail(err, SDX_ERR_USAGE, "inner dims differ: A %s, B %s",
                    sdx_tensor_format(a->dtype, &a->shape, ta, sizeof ta),
                    sdx_tensor_format(b->dtype, &b->shape, tb, sizeof tb));
}

sdx_status sdx_product_shape(const sdx_type *type_a, sdx_transpose ta, const sdx_type *type_b, sdx_transpose tb,
                             sdx_shape *c, sdx_error *err)
{
    const sdx_shape *a = &type_a->shape, *b = &type_b->shape;
    *c = SDX_SHAPE_UNKNOWN;
    if (a->rank < 0 || b->rank < 0) return SDX_OK;
    if (a->rank == 0 || b->rank == 0) return sdx_fail(err, SDX_ERR_USAGE, "a scalar is not a matrix");
    view va = make_view(a, ta, true), vb = make_view(b, tb, false);
    sdx_dim ka = va.dim[va.rank - 1], kb = vb.dim[vb.rank - 2];
    if (sdx_dim_is_known(ka) && sdx_dim_is_known(kb) && ka != kb) return fail_inner(type_a, type_b, err);
    sdx_shape batch_a = sdx_shape_make(va.rank - 2, va.dim), batch_b = sdx_shape_make(vb.rank - 2, vb.dim);
    TRY(sdx_shape_broadcast(&batch_a, &batch_b, c, err));
    if (a->rank > 1) c->dim[c->rank++] = va.dim[va.rank - 2];
    if (b->rank > 1) c->dim[c->rank++] = vb.dim[vb.rank - 1];
    return SDX_OK;
}

static void make_operand(const view *v, int rank, const int64_t *dim, sdx_operand *o)
{
    *o = (sdx_operand){.row_stride = v->stride[v->rank - 2], .col_stride = v->stride[v->rank - 1], .count = 1};
    int lead = rank - (v->rank - 2);
    for (int i = v->rank - 3; i >= 0; i--) {
        bool repeats = v->dim[i] == 1 && dim[i + lead] != 1;
        o->step[i + lead] = repeats ? 0 : v->stride[i];
        o->index[i + lead] = repeats ? 0 : o->count;
        o->count *= v->dim[i];
    }
    o->dense = true;
    int64_t stride = 1;
    for (int i = v->rank - 1; i >= 0; i--) {
        if (v->dim[i] != 1 && v->stride[i] != stride) o->dense = false;
        stride *= v->dim[i];
    }
}

void sdx_product_make(const sdx_shape *a, sdx_transpose ta, const sdx_shape *b, sdx_transpose tb,
                      sdx_product *out)
{
    view va = make_view(a, ta, true), vb = make_view(b, tb, false);
    sdx_shape batch_a = sdx_shape_make(va.rank - 2, va.dim), batch_b = sdx_shape_make(vb.rank - 2, vb.dim),
              batch;
    *out = (sdx_product){.m = va.dim[va.rank - 2], .n = vb.dim[vb.rank - 1], .k = va.dim[va.rank - 1]};
    if (sdx_shape_broadcast(&batch_a, &batch_b, &batch, NULL) != SDX_OK)
        return; /* sdx_product_shape has seen it */
    out->rank = batch.rank;
    memcpy(out->dim, batch.dim, sizeof batch.dim);
    out->batch = sdx_shape_span(&batch, 0, batch.rank);
    make_operand(&va, batch.rank, out->dim, &out->a);
    make_operand(&vb, batch.rank, out->dim, &out->b);
}

void sdx_product_make_right(const sdx_shape *b, sdx_transpose tb, sdx_product *out)
{
    view v = make_view(b, tb, false);
    sdx_shape row = {.rank = 2, .dim = {1, v.dim[v.rank - 2]}};
    sdx_product_make(&row, (sdx_transpose){0}, b, tb, out);
}

int64_t sdx_operand_offset(const sdx_product *p, const sdx_operand *o, int64_t i, int64_t *number)
{
    int64_t offset = 0;
    *number = 0;
    for (int axis = p->rank - 1; axis >= 0; axis--) {
        int64_t at = i % p->dim[axis];
        i /= p->dim[axis];
        offset += at * o->step[axis];
        *number += at * o->index[axis];
    }
    return offset;
}
