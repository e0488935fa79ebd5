/* quantize.c: QuantizeLinear, DequantizeLinear and DynamicQuantizeLinear, and com.microsoft's names for the
 * first two.
 *
 *     q = saturate(round_half_even(x / scale) + zero)      x = (q - zero) * scale
 * with one scale for the tensor, one per index of an axis, or (opset 21) one per block of an axis. All three
 * are seen as [outer, axis, inner], with scale index (o*scales + i/block)*inner + r in the blocked case: runs
 * of equal scale go to the kernels, the rest element by element.
 */
#include <math.h>
#include <string.h>

#include "linear.h"

#define SET_INTEGER (SDX_SET_BYTE | SDX_SET(SDX_U16) | SDX_SET(SDX_I16))

typedef struct linear {
    int64_t axis, block;
} linear;

/* ---- infer ----------------------------------------------------------------------------------------------- */

/* The scale is one number, a row along the axis, or has the input's rank with the axis in blocks. */
static sdx_status check_scale(const sdx_infer *infer)
{
    const sdx_shape *x = &infer->in[0].shape, *s = &infer->in[1].shape;
    int64_t block = sdx_node_int(infer->node, "block_size", 0);
    int axis;
    if (x->rank < 0 || s->rank <= 0 || (s->rank == 1 && s->dim[0] == 1)) return SDX_OK;
    if (x->rank == 1 && sdx_node_int(infer->node, "axis", 1) == 1)
        axis = 0; /* the default, which must not fail */
    else
        TRY(sdx_axis_normalize(sdx_node_int(infer->node, "axis", 1), x->rank, &axis, infer->err));
    if (block < 0) return sdx_fail(infer->err, SDX_ERR_FILE, "block_size is %lld", (long long)block);
    if (!block) {
        TRY(sdx_want_rank(infer, 1, "the scale", 1, 1));
        return sdx_want_dim(infer, 1, "the scale", 0, x->dim[axis]);
    }
    TRY(sdx_want_rank(infer, 1, "the scale", x->rank, x->rank));
    for (int i = 0; i < x->rank; i++) {
        sdx_dim want = x->dim[i];
        if (i == axis && want >= 0) want = (want + block - 1) / block;
        TRY(sdx_want_dim(infer, 1, "the scale", i, want));
    }
    return SDX_OK;
}

static sdx_status check_zero(const sdx_infer *infer)
{
    const sdx_shape *s = &infer->in[1].shape, *z = &sdx_infer_in(infer, 2)->shape;
    if (s->rank < 0 || z->rank < 0 || sdx_shape_count(s) < 0 || sdx_shape_count(z) < 0) return SDX_OK;
    if (sdx_shape_count(s) == sdx_shape_count(z)) return SDX_OK;
    char ts[SDX_SHAPE_TEXT], tz[SDX_SHAPE_TEXT];
    return sdx_fail(infer->err, SDX_ERR_USAGE, "the zero point has shape %s, the scale %s",
                    sdx_shape_format(z, tz, sizeof tz), sdx_shape_format(s, ts, sizeof ts));
}

static sdx_status infer_quantize(sdx_infer *infer)
{
    const unsigned from = SDX_SET_FLOAT | SDX_SET(SDX_I32);
    TRY(sdx_want_dtype(infer, 0, "the input", from));
    TRY(sdx_want_dtype(infer, 1, "the scale", from));
    sdx_dtype to = (sdx_dtype)sdx_node_int(infer->node, "output_dtype", 0);
    if (sdx_infer_has(infer, 2))
        to = infer->in[2].dtype;
    else if (to == SDX_UNDEFINED)
        to = SDX_U8;
    if (to != SDX_UNDEFINED && !(to < 32 && SET_INTEGER & SDX_SET(to)))
        return sdx_fail(infer->err, SDX_ERR_UNSUPPORTED,
                        "quantization to type %s is not known; known are uint8, int8, "
                        "uint16 and int16",
                        sdx_dtype_name(to));
    TRY(check_scale(infer));
    TRY(check_zero(infer));
    sdx_infer_set(infer, 0, to, &infer->in[0].shape);
    return SDX_OK;
}

static sdx_status infer_dequantize(sdx_infer *infer)
{
    TRY(sdx_want_dtype(infer, 0, "the input", SET_INTEGER | SDX_SET(SDX_I32)));
    TRY(sdx_want_dtype(infer, 1, "the scale", SDX_SET_FLOAT));
    TRY(sdx_want_same_dtype(infer, 2, "the zero point", 0, "the input"));
    TRY(check_scale(infer));
    TRY(check_zero(infer));
    sdx_dtype to = (sdx_dtype)sdx_node_int(infer->node, "output_dtype", infer->in[1].dtype);
    if (to != SDX_UNDEFINED && !(to < 32 && SDX_SET_FLOAT & SDX_SET(to)))
        return sdx_fail(infer->err, SDX_ERR_UNSUPPORTED, "output_dtype %d is not a float type", (int)to);
    sdx_infer_set(infer, 0, to, &infer->in[0].shape);
    return SDX_OK;
}

static sdx_status prepare_linear(sdx_prepare *p)
{
    linear *state;
    PREPARE_STATE(p, state);
    state->axis = sdx_node_int(p->node, "axis", 1);
    state->block = sdx_node_int(p->node, "block_size", 0);
    return SDX_OK;
}

/* ---- geometry -------------------------------------------------------------------------------------------- */

typedef struct geometry {
    int64_t count;
    int64_t inner, n; /* element e has axis index e / inner % n */
    int64_t block,
        blocks;  /* 0: one scale per axis index; else blocks of the axis, and one scale per inner index too */
    int64_t run; /* elements side by side with one scale */
} geometry;

static geometry make_geometry(const linear *state, const sdx_tensor *x, const sdx_tensor *scale)
{
    sdx_shape s = sdx_tensor_shape(x);
    int64_t count = sdx_shape_count(&s), axis = state->axis < 0 ? state->axis + s.rank : state->axis;
    if (sdx_tensor_count(scale) == 1 && !state->block) return (geometry){count, count, 1, 0, 0, count};
    if (s.rank == 1) axis = 0;
    geometry g = {count, sdx_shape_span(&s, (int)axis + 1, s.rank), s.dim[axis], state->block, 0, 1};
    g.run = g.inner;
    if (g.block) {
        g.blocks = (g.n + g.block - 1) / g.block;
        g.run = g.inner == 1 ? g.block : 1;
    }
    return g;
}

static int64_t scale_index(const geometry *g, int64_t e)
{
    if (g->run == g->count) return 0;
    int64_t i = e / g->inner % g->n;
    if (!g->block) return i;
    return (e / g->inner / g->n * g->blocks + i / g->block) * g->inner + e % g->inner;
}

/* Elements from e on that share its scale, none beyond `end`. */
static int64_t run_length(const geometry *g, int64_t e, int64_t end)
{
    int64_t left = g->run - e % g->run;
    if (g->block && g->inner == 1) {
        int64_t i = e % g->n;
        left = g->block - i % g->block;
        if (left > g->n - i) left = g->n - i;
    }
    return left < end - e ? left : end - e;
}

/* ---- run ------------------------------------------------------------------------------------------------- */

typedef struct task {
    const sdx_kernels *kernels;
    geometry g;
    const sdx_tensor *x, *scale, *zero; /* zero NULL when absent */
    sdx_tensor *y;
} task;

static void saturate_16(const sdx_tensor *y, int64_t at, double q)
{
    if (y->dtype == SDX_U16)
        ((uint16_t *)y->data)[at] = (uint16_t)fmin(fmax(q, 0), 65535);
    else
        ((int16_t *)y->data)[at] = (int16_t)fmin(fmax(q, -32768), 32767);
}

enum { CHUNK = 512 };

/* x[at..at+n) with one scale. float16 and the like pass through float32, int32 through float64. */
static void quantize_run(const task *t, int64_t at, int64_t n, double scale, int32_t zero)
{
    const sdx_quantize_kernels *k = &t->kernels->quantize;
    if (t->y->dtype == SDX_U16 || t->y->dtype == SDX_I16) {
        for (int64_t i = 0; i < n; i++) {
            float ratio = (float)sdx_tensor_get_f64(t->x, at + i) / (float)scale;
            saturate_16(t->y, at + i, isnan(ratio) ? 0 : (double)rintf(ratio) + zero);
        }
        return;
    }
    float wide[CHUNK];
    for (int64_t i = 0, part; i < n; i += part) {
        part = n - i < CHUNK && t->x->dtype != SDX_F32 ? n - i : CHUNK;
        const float *x = wide;
        if (t->x->dtype == SDX_F32) {
            part = n;
            x = (const float *)t->x->data + at;
        } else {
            for (int64_t j = 0; j < part; j++) wide[j] = (float)sdx_tensor_get_f64(t->x, at + i + j);
        }
        if (t->y->dtype == SDX_U8)
            k->f32_u8(part, x, (float)scale, zero, (uint8_t *)t->y->data + at + i);
        else
            k->f32_s8(part, x, (float)scale, zero, (int8_t *)t->y->data + at + i);
    }
}

static void dequantize_run(const task *t, int64_t at, int64_t n, double scale, int32_t zero)
{
    const sdx_quantize_kernels *k = &t->kernels->quantize;
    if (t->y->dtype == SDX_F32 && t->x->dtype == SDX_U8) {
        k->u8_f32(n, (const uint8_t *)t->x->data + at, (float)scale, zero, (float *)t->y->data + at);
    } else if (t->y->dtype == SDX_F32 && t->x->dtype == SDX_I8) {
        k->s8_f32(n, (const int8_t *)t->x->data + at, (float)scale, zero, (float *)t->y->data + at);
    } else {
        for (int64_t i = 0; i < n; i++) {
            double v = (double)((float)(sdx_tensor_get_i64(t->x, at + i) - zero) * (float)scale);
            sdx_doubles_store(t->y->dtype, &v, 1, t->y->data, at + i);
        }
    }
}

static void linear_runs(const task *t, int64_t begin, int64_t end,
                        void (*fn)(const task *, int64_t, int64_t, double, int32_t))
{
    for (int64_t e = begin, n; e < end; e += n) {
        int64_t s = scale_index(&t->g, e);
        n = run_length(&t->g, e, end);
        fn(t, e, n, sdx_tensor_get_f64(t->scale, s), t->zero ? (int32_t)sdx_tensor_get_i64(t->zero, s) : 0);
    }
}

static void quantize_part(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    linear_runs(context, begin, end, quantize_run);
}

static void dequantize_part(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    linear_runs(context, begin, end, dequantize_run);
}

static sdx_status run_linear(sdx_run *run, sdx_parallel_fn fn)
{
    task t = {run->kernels, {0}, &run->in[0], &run->in[1], sdx_run_has_in(run, 2) ? &run->in[2] : NULL,
              &run->out[0]};
    t.g = make_geometry(run->state, t.x, t.scale);
    sdx_parallel_for(run->threads, t.g.count, SDX_GRAIN, fn, &t);
    return SDX_OK;
}

static sdx_status run_quantize(sdx_run *run)
{
    return run_linear(run, quantize_part);
}
static sdx_status run_dequantize(sdx_run *run)
{
    return run_linear(run, dequantize_part);
}

/* ---- DynamicQuantizeLinear ------------------------------------------------------------------------------- */

static sdx_status infer_dynamic(sdx_infer *infer)
{
    const sdx_shape scalar = {.rank = 0};
    TRY(sdx_want_dtype(infer, 0, "the input", SDX_SET(SDX_F32)));
    sdx_infer_set(infer, 0, SDX_U8, &infer->in[0].shape);
    sdx_infer_set(infer, 1, SDX_F32, &scalar);
    sdx_infer_set(infer, 2, SDX_U8, &scalar);
    return SDX_OK;
}

static sdx_status run_dynamic(sdx_run *run)
{
    float scale;
    uint8_t zero;
    int64_t n = sdx_tensor_count(&run->in[0]);
    sdx_dynamic_range(run->kernels, run->threads, n, run->in[0].data, &scale, &zero);
    if (sdx_run_has_out(run, 0))
        sdx_quantize_u8(run->kernels, run->threads, n, run->in[0].data, scale, zero, run->out[0].data);
    if (sdx_run_has_out(run, 1)) *(float *)run->out[1].data = scale;
    if (sdx_run_has_out(run, 2)) *(uint8_t *)run->out[2].data = zero;
    return SDX_OK;
}

#define MS "com.microsoft"
static const sdx_op_def rows[] = {
    {"", "QuantizeLinear", 10, 0, 2, 3, 1, 1, 0, infer_quantize, prepare_linear, NULL, run_quantize},
    {"", "DequantizeLinear", 10, 0, 2, 3, 1, 1, 0, infer_dequantize, prepare_linear, NULL, run_dequantize},
    {"", "DynamicQuantizeLinear", 11, 0, 1, 1, 3, 3, 0, infer_dynamic, NULL, NULL, run_dynamic},
    {MS, "QuantizeLinear", 1, 0, 2, 3, 1, 1, 0, infer_quantize, prepare_linear, NULL, run_quantize},
    {MS, "DequantizeLinear", 1, 0, 2, 3, 1, 1, 0, infer_dequantize, prepare_linear, NULL, run_dequantize},
};

SDX_OP_TABLE(quantize);
