/* dynamic_linear.c: a dense layer in int8 whose input is quantized on the way in. Made by the pass
 * fuse_dynamic_linear only, never read from a file:
 *
 *     DynamicLinear(X [..., k], W [k, n] int8|uint8, w_scale [1|n], w_zero? [1|n], bias? [n], factor? [k])
 *     y = activation((float)acc * (x_scale * w_scale) + bias)
 *
 * per_row 0 is DynamicQuantizeLinear - MatMulInteger - Cast - Mul - Add - activation, rounding by rounding; the sums
 * become floats while they are in the cache, which saves the chain's passes over memory. per_row 1 gives every row
 * a scale and zero point of its own: a row no longer pays for its neighbours' outliers, and its result is the same
 * in any batch (per-token activation scales, Yao et al. 2022, ZeroQuant). `factor` needs per_row: X * factor is what is
 * quantized, a row at a time in the cache (factors of SmoothQuant, Xiao et al. 2022, that quant/smooth.c writes). */
#include "dynamic_linear.h"

#include <string.h>

enum { X, W, W_SCALE, W_ZERO, BIAS, FACTOR };

/* ---- rows ------------------------------------------------------------------------------------------------ */

bool sdx_dynamic_rows_plan(size_t *total, int64_t m, int64_t k)
{
    return sdx_workspace_add(total, (size_t)m, (size_t)k) &&
           sdx_workspace_add(total, (size_t)m, sizeof(float)) &&
           sdx_workspace_add(total, (size_t)m, sizeof(int32_t));
}

sdx_dynamic_rows sdx_dynamic_rows_take(char **workspace, int64_t m, int64_t k)
{
    sdx_dynamic_rows rows = {.m = m, .k = k};
    rows.q = sdx_workspace_take(workspace, (size_t)m * (size_t)k);
    rows.scale = sdx_workspace_take(workspace, (size_t)m * sizeof *rows.scale);
    rows.zero = sdx_workspace_take(workspace, (size_t)m * sizeof *rows.zero);
    return rows;
}

typedef struct fill_task {
    const sdx_kernels *kernels;
    const float *x, *factor;
    const sdx_dynamic_rows *rows;
} fill_task;

static void fill_rows(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const fill_task *t = context;
    const sdx_dynamic_rows *r = t->rows;
    for (int64_t i = begin; i < end; i++)
        t->kernels->quantize.row_u8(r->k, t->x + i * r->k, t->factor, r->q + i * r->k, &r->scale[i], &r->zero[i]);
}

void sdx_dynamic_rows_fill(const sdx_kernels *kernels, int threads, const float *x, const float *factor,
                           const sdx_dynamic_rows *rows)
{
    fill_task task = {kernels, x, factor, rows};
    sdx_parallel_for(threads, rows->m, sdx_row_grain(rows->k), fill_rows, &task);
}

void sdx_dynamic_rows_fill_alike(const sdx_kernels *kernels, int threads, const float *x, const sdx_dynamic_rows *rows)
{
    float scale;
    uint8_t zero;
    sdx_dynamic_range(kernels, threads, rows->m * rows->k, x, &scale, &zero);
    sdx_quantize_u8(kernels, threads, rows->m * rows->k, x, scale, zero, rows->q);
    for (int64_t i = 0; i < rows->m; i++) {
        rows->scale[i] = scale;
        rows->zero[i] = zero;
    }
}

/* ---- the operator ---------------------------------------------------------------------------------------- */

sdx_status sdx_dynamic_factor_check(const sdx_infer *in, int i)
{
    TRY(sdx_want_dtype(in, i, "the factor", SDX_SET(SDX_F32)));
    if (!sdx_infer_has(in, i)) return SDX_OK;
    int rank = in->in[X].shape.rank;
    TRY(sdx_want_rank(in, i, "the factor", 1, 1));
    return sdx_want_dim(in, i, "the factor", 0, rank > 0 ? sdx_type_dim(&in->in[X], rank - 1) : SDX_DIM_UNKNOWN);
}

sdx_status sdx_dynamic_layer_check(const sdx_infer *in)
{
    TRY(sdx_want_dtype(in, X, "X", SDX_SET(SDX_F32)));
    TRY(sdx_want_dtype(in, W, "W", SDX_SET_BYTE));
    TRY(sdx_want_rank(in, W, "W", 2, 2));
    sdx_dim n = sdx_type_dim(&in->in[W], 1);
    TRY(sdx_int8_check(in, W, "W", W_SCALE, W_ZERO, n));
    TRY(sdx_want_dtype(in, BIAS, "the bias", SDX_SET(SDX_F32)));
    if (sdx_infer_has(in, BIAS)) TRY(sdx_want_dim(in, BIAS, "the bias", 0, n));
    return sdx_dynamic_factor_check(in, FACTOR);
}

/* Scales and zero points of the columns, spelled out once. */
static sdx_status prepare_columns(sdx_prepare *p, sdx_dynamic_layer *layer)
{
    const sdx_tensor *scale = p->in[W_SCALE].constant, *zero = p->n_in > W_ZERO ? p->in[W_ZERO].constant : NULL;
    if (!scale) return sdx_fail(p->err, SDX_ERR_UNSUPPORTED, "the weight's scale must be constant");
    if (p->n_in > W_ZERO && p->in[W_ZERO].dtype != SDX_UNDEFINED && !zero)
        return sdx_fail(p->err, SDX_ERR_UNSUPPORTED, "the weight's zero point must be constant");
    static const float one = 1;
    const sdx_tensor unit = {.dtype = SDX_F32, .data = (void *)&one};
    float *scales;
    int32_t *zeros;
    ARENA_NEW(p->arena, scales, (size_t)layer->n + 1, p->err);
    layer->epilogue.scale = scales;
    layer->epilogue.scale_step = sdx_int8_scales(&unit, scale, layer->n, scales);
    if (!zero) return SDX_OK;
    ARENA_NEW(p->arena, zeros, (size_t)layer->n + 1, p->err);
    layer->w_zero = sdx_int8_zeros(zero, layer->n, zeros);
    return SDX_OK;
}

sdx_status sdx_dynamic_layer_prepare(sdx_prepare *p, sdx_dynamic_layer *layer)
{
    const sdx_tensor *w = p->in[W].constant;
    if (!w) return sdx_fail(p->err, SDX_ERR_UNSUPPORTED, "W must be constant");
    layer->k = w->dim[0];
    layer->n = w->dim[1];
    TRY(sdx_int8_pack(p, w, layer->k, layer->n, &layer->packed));
    TRY(prepare_columns(p, layer));
    p->packed |= 1u << W | 1u << W_SCALE | 1u << W_ZERO;
    return SDX_OK;
}

typedef struct dynamic_linear {
    sdx_dynamic_layer layer;
    bool per_row;
    const void *kept[6];
} dynamic_linear;

static sdx_status infer(sdx_infer *in)
{
    sdx_shape shape;
    TRY(sdx_dynamic_layer_check(in));
    if (sdx_infer_has(in, FACTOR) && !sdx_node_int(in->node, "per_row", 0))
        return sdx_fail(in->err, SDX_ERR_FILE, "a factor needs per_row");
    TRY(sdx_product_shape(&in->in[X], (sdx_transpose){0}, &in->in[W], (sdx_transpose){0}, &shape, in->err));
    sdx_infer_set(in, 0, SDX_F32, &shape);
    return SDX_OK;
}

static sdx_activation activation_of(const sdx_node *n)
{
    static const char *const names[] = {[SDX_ACT_NONE] = "", [SDX_ACT_RELU] = "Relu", [SDX_ACT_GELU] = "Gelu",
                                        [SDX_ACT_TANH] = "Tanh"};
    const char *name = sdx_node_string(n, "activation", "");
    int a = SDX_ACT_TANH;
    while (a > SDX_ACT_NONE && strcmp(names[a], name)) a--;
    return (sdx_activation)a;
}

static sdx_status prepare(sdx_prepare *p)
{
    dynamic_linear *state;
    PREPARE_STATE(p, state);
    state->per_row = sdx_node_int(p->node, "per_row", 0) != 0;
    TRY(sdx_dynamic_layer_prepare(p, &state->layer));
    state->layer.epilogue.activation = activation_of(p->node);
    return sdx_prepare_keep_all(p, state->kept);
}

static int64_t row_count(const dynamic_linear *state, int64_t count)
{
    return state->layer.k ? count / state->layer.k : 0;
}

/* Workspace: [rows] [copies of A] */
static sdx_status plan(sdx_plan_step *step)
{
    const dynamic_linear *state = step->state;
    int64_t m = row_count(state, sdx_shape_count(&step->in[X].shape));
    size_t *total = &step->workspace;
    bool ok = sdx_dynamic_rows_plan(total, m, state->layer.k) &&
              sdx_workspace_add(total, 1, sdx_gemm_int8_workspace(step->kernels, step->threads, m, state->layer.k));
    return ok ? SDX_OK : sdx_workspace_fail(step->err);
}

static sdx_status run(sdx_run *r)
{
    const dynamic_linear *state = r->state;
    const sdx_dynamic_layer *layer = &state->layer;
    int64_t m = row_count(state, sdx_tensor_count(&r->in[X]));
    char *workspace = r->workspace;
    sdx_dynamic_rows rows = sdx_dynamic_rows_take(&workspace, m, layer->k);
    sdx_int8_epilogue epilogue = layer->epilogue;
    epilogue.row_scale = rows.scale;
    if (sdx_run_has_in(r, BIAS)) epilogue.bias = sdx_kept_in(r, state->kept, BIAS).data;
    sdx_gemm_int8_job job = {.kernels = r->kernels, .threads = r->threads, .m = m, .n = layer->n, .k = layer->k,
                             .a = rows.q, .lda = layer->k, .packed = layer->packed, .a_zero = rows.zero,
                             .b_zero = layer->w_zero, .c = r->out[0].data, .ldc = layer->n, .epilogue = &epilogue,
                             .workspace = workspace};
    const float *x = sdx_kept_in(r, state->kept, X).data;
    const float *factor = sdx_run_has_in(r, FACTOR) ? sdx_kept_in(r, state->kept, FACTOR).data : NULL;
    if (state->per_row)
        sdx_dynamic_rows_fill(r->kernels, r->threads, x, factor, &rows);
    else
        sdx_dynamic_rows_fill_alike(r->kernels, r->threads, x, &rows);
    sdx_gemm_int8_run(&job);
    return SDX_OK;
}

static const sdx_op_def rows[] = {
    {"sardonyx", "DynamicLinear", 1, 0, 3, 6, 1, 1, SDX_OP_ANY_ALIGNMENT, infer, prepare, plan, run},
};

SDX_OP_TABLE(dynamic_linear);
