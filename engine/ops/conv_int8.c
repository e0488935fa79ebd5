/* conv_int8.c: ConvInteger and QLinearConv: the convolution of convolve.h through the 8-bit GEMM kernels.
 *
 *     acc = sum (W - w_zero) * (X - x_zero)              exact, in int32; padding is x_zero
 *     y   = saturate(round((acc + bias) * (x_scale * w_scale / y_scale)) + y_zero)       QLinearConv
 *
 * w_zero and w_scale are one number or one per filter. A block of columns is made as bytes, [depth][outputs],
 * and packed by the kernels: only they know the layout that their instruction set wants.
 */
#include <math.h>

#include "convolve.h"

typedef struct form { /* input numbers, -1: none */
    int w, x_scale, x_zero, w_scale, w_zero, y_scale, y_zero, bias;
} form;

static const form form_integer = {1, -1, 2, -1, 3, -1, -1, -1};
static const form form_qlinear = {3, 1, 2, 4, 5, 6, 7, 8};

static bool is_qlinear(const form *f)
{
    return f->y_scale >= 0;
}

/* ---- infer ----------------------------------------------------------------------------------- */

static sdx_status infer_form(sdx_infer *infer, const form *f)
{
    sdx_shape y;
    TRY(sdx_want_dtype(infer, 0, "the input", SDX_SET_BYTE));
    TRY(sdx_want_dtype(infer, f->w, "the weights", SDX_SET_BYTE));
    TRY(sdx_int8_check(infer, 0, "the input", f->x_scale, f->x_zero, 1));
    TRY(sdx_int8_check(infer, f->w, "the weights", f->w_scale, f->w_zero, sdx_type_dim(&infer->in[f->w], 0)));
    TRY(sdx_convolution_infer(infer, 0, f->w, &y));
    if (!is_qlinear(f)) {
        sdx_infer_set(infer, 0, SDX_I32, &y);
        return SDX_OK;
    }
    TRY(sdx_want_dtype(infer, f->y_zero, "the result's zero point", SDX_SET_BYTE));
    TRY(sdx_int8_check(infer, f->y_zero, "the result", f->y_scale, f->y_zero, 1));
    TRY(sdx_convolution_want_bias(infer, f->bias, f->w, SDX_SET(SDX_I32)));
    sdx_infer_set(infer, 0, infer->in[f->y_zero].dtype, &y);
    return SDX_OK;
}

static sdx_status infer_integer(sdx_infer *infer)
{
    return infer_form(infer, &form_integer);
}
static sdx_status infer_qlinear(sdx_infer *infer)
{
    return infer_form(infer, &form_qlinear);
}

/* ---- plan ------------------------------------------------------------------------------------ */

/* A worker's memory: columns as bytes, the same packed, the kernels' copy of the weights, zero points of the
 * columns, and the sums of QLinearConv. */
typedef struct layout {
    size_t columns, packed, weights, zeros, sums, all;
} layout;

static bool make_layout(const sdx_convolution *c, const sdx_kernels *k, bool qlinear, int64_t block, layout *l)
{
    size_t n = (size_t)block;
    *l = (layout){.packed = k->gemm_int8.packed_bytes(c->depth, block),
                  .weights = sdx_gemm_int8_workspace(k, 1, c->filters, c->depth)};
    return sdx_workspace_add(&l->columns, n, (size_t)c->depth) &&
           sdx_workspace_add(&l->zeros, n, sizeof(int32_t)) &&
           (!qlinear || sdx_workspace_add(&l->sums, n * sizeof(int32_t), (size_t)c->filters)) &&
           sdx_workspace_add(&l->all, 1, l->columns) && sdx_workspace_add(&l->all, 1, l->packed) &&
           sdx_workspace_add(&l->all, 1, l->weights) && sdx_workspace_add(&l->all, 1, l->zeros) &&
           sdx_workspace_add(&l->all, 1, l->sums);
}

static int64_t block_of(const sdx_convolution *c, const sdx_kernels *k, int threads)
{
    return sdx_convolution_block(c, 1, k->gemm_int8.nr, threads);
}

/* Workspace: [zero points of the filters] [workers]. */
static sdx_status plan_form(sdx_plan_step *step, const form *f)
{
    sdx_convolution c;
    layout l;
    TRY(sdx_convolution_make(&c, step->node, &step->in[0].shape, &step->in[f->w].shape, step->err));
    bool ok = make_layout(&c, step->kernels, is_qlinear(f), block_of(&c, step->kernels, step->threads), &l) &&
              sdx_workspace_add(&step->workspace, (size_t)(c.groups * c.filters), sizeof(int32_t)) &&
              sdx_workspace_add(&step->workspace, (size_t)step->threads, l.all);
    return ok ? SDX_OK : sdx_workspace_fail(step->err);
}

static sdx_status plan_integer(sdx_plan_step *step)
{
    return plan_form(step, &form_integer);
}
static sdx_status plan_qlinear(sdx_plan_step *step)
{
    return plan_form(step, &form_qlinear);
}

/* ---- run ------------------------------------------------------------------------------------- */

typedef struct task {
    const sdx_run *run;
    const form *form;
    sdx_convolution c;
    layout layout;
    int64_t block;
    int x_zero;
    const int32_t *w_zero; /* [M], or NULL for zeros */
    char *workers;
} task;

/* sums: [filters, n] of one part, to the result's type. */
static void requantize(const task *t, const sdx_convolution_part *p, const int32_t *sums, int64_t n)
{
    const sdx_run *r = t->run;
    const form *f = t->form;
    sdx_tensor *y = &r->out[0];
    double x_scale = sdx_tensor_get_f64(&r->in[f->x_scale], 0),
           y_scale = sdx_tensor_get_f64(&r->in[f->y_scale], 0);
    int64_t y_zero = sdx_tensor_get_i64(&r->in[f->y_zero], 0);
    int64_t low = y->dtype == SDX_U8 ? 0 : -128, high = low + 255;
    bool per_filter = sdx_tensor_count(&r->in[f->w_scale]) != 1;
    for (int64_t m = 0; m < t->c.filters; m++) {
        int64_t filter = p->group * t->c.filters + m,
                at = sdx_convolution_y(&t->c, p) + m * t->c.out_plane + p->begin;
        float scale =
            (float)(x_scale * sdx_tensor_get_f64(&r->in[f->w_scale], per_filter ? filter : 0) / y_scale);
        int64_t bias = sdx_run_has_in(r, f->bias) ? sdx_tensor_get_i64(&r->in[f->bias], filter) : 0;
        for (int64_t j = 0; j < n; j++) {
            float q = rintf((float)(sums[m * n + j] + bias) * scale) + (float)y_zero;
            int64_t v = q <= (float)low ? low : q >= (float)high ? high : q == q ? (int64_t)q : 0;
            ((uint8_t *)y->data)[at + j] = (uint8_t)v;
        }
    }
}

static void conv_part(const task *t, const sdx_convolution_part *p, char *own)
{
    const sdx_run *r = t->run;
    const sdx_convolution *c = &t->c;
    const sdx_tensor *w = &r->in[t->form->w];
    int64_t n = p->end - p->begin;
    char *columns = sdx_workspace_take(&own, t->layout.columns),
         *packed = sdx_workspace_take(&own, t->layout.packed);
    void *weights = sdx_workspace_take(&own, t->layout.weights);
    int32_t *zeros = sdx_workspace_take(&own, t->layout.zeros),
            *sums = sdx_workspace_take(&own, t->layout.sums);
    sdx_convolution_columns(c, (const char *)r->in[0].data + sdx_convolution_x(c, p), 1, t->x_zero, p->begin,
                            p->end, n, columns);
    sdx_gemm_int8_pack(r->kernels, 1, c->depth, n, columns, n, 1, r->in[0].dtype == SDX_I8, packed);
    for (int64_t j = 0; j < n; j++) zeros[j] = t->x_zero;
    bool direct = !is_qlinear(t->form);
    sdx_gemm_int8_job job = {.kernels = r->kernels,
                             .threads = 1,
                             .m = c->filters,
                             .n = n,
                             .k = c->depth,
                             .a = (const char *)w->data + p->group * c->filters * c->depth,
                             .lda = c->depth,
                             .a_signed = w->dtype == SDX_I8,
                             .packed = packed,
                             .a_zero = t->w_zero ? t->w_zero + p->group * c->filters : NULL,
                             .b_zero = t->x_zero ? zeros : NULL,
                             .c =
                                 direct ? (int32_t *)r->out[0].data + sdx_convolution_y(c, p) + p->begin : sums,
                             .ldc = direct ? c->out_plane : n,
                             .workspace = weights};
    sdx_gemm_int8_run(&job);
    if (!direct) requantize(t, p, sums, n);
}

static void conv_parts(void *context, int64_t begin, int64_t end, int worker)
{
    const task *t = context;
    for (int64_t i = begin; i < end; i++) {
        sdx_convolution_part p = sdx_convolution_part_at(&t->c, t->block, i);
        conv_part(t, &p, t->workers + (size_t)worker * sdx_align_up(t->layout.all));
    }
}

static sdx_status run_form(sdx_run *run, const form *f)
{
    task t = {.run = run, .form = f};
    sdx_shape x = sdx_tensor_shape(&run->in[0]), w = sdx_tensor_shape(&run->in[f->w]);
    TRY(sdx_convolution_make(&t.c, run->node, &x, &w, run->err));
    if (sdx_tensor_count(&run->out[0]) == 0) return SDX_OK;
    t.block = block_of(&t.c, run->kernels, run->threads);
    if (!make_layout(&t.c, run->kernels, is_qlinear(f), t.block, &t.layout))
        return sdx_workspace_fail(run->err);
    t.workers = run->workspace;
    int64_t filters = t.c.groups * t.c.filters;
    int32_t *zeros = sdx_workspace_take(&t.workers, (size_t)filters * sizeof *zeros);
    if (sdx_run_has_in(run, f->w_zero)) t.w_zero = sdx_int8_zeros(&run->in[f->w_zero], filters, zeros);
    if (sdx_run_has_in(run, f->x_zero)) t.x_zero = (int)sdx_tensor_get_i64(&run->in[f->x_zero], 0);
    int64_t work = t.block * t.c.depth * (t.c.filters + 8) / 64; /* about a nanosecond each */
    sdx_parallel_for(run->threads, sdx_convolution_parts(&t.c, t.block), sdx_row_grain(work), conv_parts, &t);
    return SDX_OK;
}

static sdx_status run_integer(sdx_run *run)
{
    return run_form(run, &form_integer);
}
static sdx_status run_qlinear(sdx_run *run)
{
    return run_form(run, &form_qlinear);
}

static const sdx_op_def rows[] = {
    {"", "ConvInteger", 10, 0, 2, 4, 1, 1, 0, infer_integer, NULL, plan_integer, run_integer},
    {"", "QLinearConv", 10, 0, 8, 9, 1, 1, 0, infer_qlinear, NULL, plan_qlinear, run_qlinear},
};

SDX_OP_TABLE(conv_int8);
