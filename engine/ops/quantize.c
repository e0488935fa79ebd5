/* quantize.c: QuantizeLinear, DequantizeLinear and DynamicQuantizeLinear, and com.microsoft's names for the
 * first two.
 *
 *     q = saturate(round_half_even(x / scale) + zero)      x = (q - zero) * scale
 * where q is an integer of 2 to 16 bits, or a coded float, which rounds in its own way (base/dtype.h),
 * with one scale for the tensor, one per index of an axis, or (opset 21) one per block of an axis. All three
 * are seen as [outer, axis, inner], with scale index (o*scales + i/block)*inner + r in the blocked case: runs
 * of equal scale go to the kernels, the rest element by element.
 */
#include <math.h>
#include <string.h>

#include "lanes.h"
#include "linear.h"

#define SET_SMALL     (SDX_SET(SDX_U4) | SDX_SET(SDX_I4) | SDX_SET(SDX_U2) | SDX_SET(SDX_I2))
#define SET_E4M3      (SDX_SET(SDX_F8E4M3FN) | SDX_SET(SDX_F8E4M3FNUZ))
#define SET_E5M2      (SDX_SET(SDX_F8E5M2) | SDX_SET(SDX_F8E5M2FNUZ))
#define SET_CODED     (SET_E4M3 | SET_E5M2 | SDX_SET(SDX_F4E2M1) | SDX_SET(SDX_F6E2M3) | SDX_SET(SDX_F6E3M2))
#define SET_QUANTIZED (SDX_SET_BYTE | SDX_SET(SDX_U16) | SDX_SET(SDX_I16) | SET_SMALL | SET_CODED)

typedef struct linear {
    int64_t axis, block;
    sdx_dtype precision; /* what x / scale is rounded to; SDX_UNDEFINED: the type of the scale */
    sdx_coding coding;
} linear;

/* ---- infer ----------------------------------------------------------------------------------------------- */

static int64_t blocks_of(int64_t n, int64_t block) /* rounded up, for any block size of a file */
{
    return n / block + (n % block != 0);
}

/* The scale is one number, a row along the axis, or has the input's rank with the axis in blocks. */
static sdx_status check_scale(const sdx_infer *infer)
{
    const sdx_shape *x = &infer->in[0].shape, *s = &infer->in[1].shape;
    int64_t block = sdx_node_int(infer->node, "block_size", 0);
    int axis;
    if (block < 0) return sdx_fail(infer->err, SDX_ERR_FILE, "block_size is %lld", (long long)block);
    if (x->rank < 0 || s->rank <= 0 || (s->rank == 1 && s->dim[0] == 1)) return SDX_OK;
    if (x->rank == 1 && sdx_node_int(infer->node, "axis", 1) == 1)
        axis = 0; /* the default, which must not fail */
    else
        TRY(sdx_axis_normalize(sdx_node_int(infer->node, "axis", 1), x->rank, &axis, infer->err));
    if (!block) {
        TRY(sdx_want_rank(infer, 1, "the scale", 1, 1));
        return sdx_want_dim(infer, 1, "the scale", 0, x->dim[axis]);
    }
    TRY(sdx_want_rank(infer, 1, "the scale", x->rank, x->rank));
    for (int i = 0; i < x->rank; i++) {
        sdx_dim want = x->dim[i];
        if (i == axis && want >= 0) want = blocks_of(want, block);
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

/* An attribute that names a type of the set; `missing` when it is absent or 0. */
static sdx_status read_dtype(const sdx_infer *infer, const char *name, unsigned set, sdx_dtype missing,
                             sdx_dtype *out)
{
    int64_t code = sdx_node_int(infer->node, name, 0);
    *out = code ? (sdx_dtype)code : missing;
    if (!code || (sdx_dtype_is_known(code) && set & SDX_SET(code))) return SDX_OK;
    return sdx_fail(infer->err, SDX_ERR_UNSUPPORTED, "%s %lld is not a type that it knows", name,
                    (long long)code);
}

static sdx_status infer_quantize(sdx_infer *infer)
{
    const unsigned from = SDX_SET_FLOAT | SDX_SET(SDX_I32);
    sdx_dtype to, precision, missing = sdx_infer_has(infer, 2) ? SDX_UNDEFINED : SDX_U8;
    TRY(sdx_want_dtype(infer, 0, "the input", from));
    TRY(sdx_want_dtype(infer, 1, "the scale", from | SDX_SET(SDX_F8E8M0)));
    TRY(sdx_want_dtype(infer, 2, "the zero point", SET_QUANTIZED));
    TRY(read_dtype(infer, "precision", SDX_SET_FLOAT, SDX_UNDEFINED, &precision));
    TRY(read_dtype(infer, "output_dtype", SET_QUANTIZED, missing, &to));
    sdx_dtype zero = sdx_infer_in(infer, 2)->dtype;
    if (to && zero && to != zero)
        return sdx_fail(infer->err, SDX_ERR_FILE, "output_dtype is %s, but the zero point is %s",
                        sdx_dtype_name(to), sdx_dtype_name(zero));
    TRY(check_scale(infer));
    TRY(check_zero(infer));
    sdx_infer_set(infer, 0, zero ? zero : to, &infer->in[0].shape);
    return SDX_OK;
}

static sdx_status infer_dequantize(sdx_infer *infer)
{
    sdx_dtype to, scale = infer->in[1].dtype;
    TRY(sdx_want_dtype(infer, 0, "the input", SET_QUANTIZED | SDX_SET(SDX_I32)));
    TRY(sdx_want_dtype(infer, 1, "the scale", SDX_SET_FLOAT | SDX_SET(SDX_F8E8M0)));
    TRY(sdx_want_same_dtype(infer, 2, "the zero point", 0, "the input"));
    TRY(check_scale(infer));
    TRY(check_zero(infer));
    TRY(read_dtype(infer, "output_dtype", SDX_SET_FLOAT, scale, &to));
    if (to == SDX_F8E8M0)
        return sdx_fail(infer->err, SDX_ERR_FILE, "with a scale of %s, output_dtype must be given",
                        sdx_dtype_name(scale));
    sdx_infer_set(infer, 0, to, &infer->in[0].shape);
    return SDX_OK;
}

static sdx_status prepare_linear(sdx_prepare *p)
{
    linear *state;
    PREPARE_STATE(p, state);
    state->axis = sdx_node_int(p->node, "axis", 1);
    state->block = sdx_node_int(p->node, "block_size", 0);
    state->precision = (sdx_dtype)sdx_node_int(p->node, "precision", SDX_UNDEFINED);
    state->coding.overflow = !sdx_node_int(p->node, "saturate", 1);
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
    if (sdx_tensor_count(scale) == 1) return (geometry){count, count, 1, 0, 0, count};
    if (s.rank == 1) axis = 0;
    geometry g = {count, sdx_shape_span(&s, (int)axis + 1, s.rank), s.dim[axis], state->block, 0, 1};
    g.run = g.inner;
    if (g.block) {
        g.blocks = blocks_of(g.n, g.block);
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
    sdx_dtype precision;
    sdx_coding coding;
} task;

/* To float32 where the type is none of the float types. */
static double round_to(sdx_dtype t, double x)
{
    switch (t) {
    case SDX_F64: return x;
    case SDX_F16: return sdx_f16_to_f32(sdx_f32_to_f16((float)x));
    case SDX_BF16: return sdx_bf16_to_f32(sdx_f32_to_bf16((float)x));
    default: return (float)x;
    }
}

static void load_doubles(const sdx_tensor *x, int64_t at, int64_t n, sdx_lane *lane)
{
    sdx_lanes_load(x->dtype, x->data, at, 1, n, lane);
    sdx_lanes_convert(sdx_dtype_lane(x->dtype), SDX_F64, n, lane);
}

static void store_integers(const sdx_tensor *y, int64_t at, int64_t n, double zero, sdx_lane *lane)
{
    bool is_signed = sdx_dtype_is_signed(y->dtype);
    double values = ldexp(1, sdx_dtype_bits(y->dtype));
    double low = is_signed ? -values / 2 : 0, high = low + values - 1;
    for (int64_t i = 0; i < n; i++) {
        double q = isnan(lane[i].f) ? 0 : rint(lane[i].f) + zero;
        lane[i].i = (int64_t)fmin(fmax(q, low), high);
    }
    sdx_lanes_store(y->dtype, lane, n, y->data, at);
}

/* x[at..at+n) with one scale, for all types. */
static void quantize_any(const task *t, int64_t at, int64_t n, double scale, double zero)
{
    sdx_lane lane[SDX_LANES];
    uint8_t *codes = t->y->data;
    double divisor = round_to(t->precision, scale);
    for (int64_t end = at + n, part; at < end; at += part) {
        part = end - at < SDX_LANES ? end - at : SDX_LANES;
        load_doubles(t->x, at, part, lane);
        for (int64_t i = 0; i < part; i++)
            lane[i].f = round_to(t->precision, round_to(t->precision, lane[i].f) / divisor);
        if (!sdx_dtype_is_coded(t->y->dtype))
            store_integers(t->y, at, part, zero, lane);
        else
            for (int64_t i = 0; i < part; i++)
                codes[at + i] = sdx_f64_to_code(t->y->dtype, lane[i].f + zero, t->coding);
    }
}

static void quantize_run(const task *t, int64_t at, int64_t n, double scale, double zero)
{
    const sdx_quantize_kernels *k = &t->kernels->quantize;
    const float *x = (const float *)t->x->data + at;
    if (t->x->dtype != SDX_F32 || t->precision != SDX_F32)
        quantize_any(t, at, n, scale, zero);
    else if (t->y->dtype == SDX_U8)
        k->f32_u8(n, x, (float)scale, (int32_t)zero, (uint8_t *)t->y->data + at);
    else if (t->y->dtype == SDX_I8)
        k->f32_s8(n, x, (float)scale, (int32_t)zero, (int8_t *)t->y->data + at);
    else
        quantize_any(t, at, n, scale, zero);
}

static void dequantize_any(const task *t, int64_t at, int64_t n, double scale, double zero)
{
    sdx_lane lane[SDX_LANES];
    sdx_dtype product = t->y->dtype == SDX_F64 ? SDX_F64 : SDX_F32;
    for (int64_t end = at + n, part; at < end; at += part) {
        part = end - at < SDX_LANES ? end - at : SDX_LANES;
        load_doubles(t->x, at, part, lane);
        for (int64_t i = 0; i < part; i++)
            lane[i].f = round_to(product, round_to(product, lane[i].f - zero) * round_to(product, scale));
        sdx_lanes_store(t->y->dtype, lane, part, t->y->data, at);
    }
}

static void dequantize_run(const task *t, int64_t at, int64_t n, double scale, double zero)
{
    const sdx_quantize_kernels *k = &t->kernels->quantize;
    const uint8_t *x = (const uint8_t *)t->x->data + at;
    if (t->y->dtype == SDX_F32 && t->x->dtype == SDX_U8)
        k->u8_f32(n, x, (float)scale, (int32_t)zero, (float *)t->y->data + at);
    else if (t->y->dtype == SDX_F32 && t->x->dtype == SDX_I8)
        k->s8_f32(n, (const int8_t *)x, (float)scale, (int32_t)zero, (float *)t->y->data + at);
    else
        dequantize_any(t, at, n, scale, zero);
}

static void linear_runs(const task *t, int64_t begin, int64_t end,
                        void (*fn)(const task *, int64_t, int64_t, double, double))
{
    for (int64_t e = begin, n; e < end; e += n) {
        int64_t s = scale_index(&t->g, e);
        n = run_length(&t->g, e, end);
        fn(t, e, n, sdx_tensor_get_f64(t->scale, s), t->zero ? sdx_tensor_get_f64(t->zero, s) : 0);
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
    const linear *state = run->state;
    task t = {.kernels = run->kernels,
              .g = make_geometry(state, &run->in[0], &run->in[1]),
              .x = &run->in[0],
              .scale = &run->in[1],
              .zero = sdx_run_has_in(run, 2) ? &run->in[2] : NULL,
              .y = &run->out[0],
              .precision = state->precision ? state->precision : run->in[1].dtype,
              .coding = state->coding};
    if (!sdx_dtype_is_float(t.precision)) t.precision = SDX_F32;
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
