/* lanes.c: see lanes.h */
#include "lanes.h"

#include <math.h>

#include "../../base/parallel.h"

/* ---- lanes ----------------------------------------------------------------------------------------------- */

/* The integer types and the lane field that carries them; floats need conversions and stand beside. */
#define INTEGER_TYPES(X)                                                                                   \
    X(SDX_U8, uint8_t, i) X(SDX_I8, int8_t, i) X(SDX_U16, uint16_t, i) X(SDX_I16, int16_t, i)              \
    X(SDX_U32, uint32_t, i) X(SDX_I32, int32_t, i) X(SDX_I64, int64_t, i) X(SDX_U64, uint64_t, u)

sdx_lane_kind sdx_dtype_lane(sdx_dtype dtype)
{
    if (sdx_dtype_is_float(dtype) || sdx_dtype_is_coded(dtype)) return SDX_LANE_F;
    if (dtype == SDX_U64) return SDX_LANE_U;
    bool integer = sdx_dtype_is_integer(dtype) || sdx_dtype_is_small_int(dtype);
    return integer || dtype == SDX_BOOL ? SDX_LANE_I : SDX_LANE_NONE;
}

#define LOAD(type, field, convert)                                                                         \
    {                                                                                                      \
        const type *p = (const type *)x + at;                                                              \
        for (int64_t i = 0; i < n; i++) y[i].field = convert(p[i * stride]);                               \
        return;                                                                                            \
    }
#define LOAD_INTEGER(code, type, field) case code: LOAD(type, field, )

#define CODE_VALUE(code) sdx_code_to_f32(dtype, code)

void sdx_lanes_load(sdx_dtype dtype, const void *x, int64_t at, int64_t stride, int64_t n, sdx_lane *y)
{
    switch (dtype) {
        INTEGER_TYPES(LOAD_INTEGER)
    case SDX_BOOL: LOAD(uint8_t, i, 0 !=)
    case SDX_F32: LOAD(float, f, (double))
    case SDX_F64: LOAD(double, f, )
    case SDX_F16: LOAD(uint16_t, f, sdx_f16_to_f32)
    case SDX_BF16: LOAD(uint16_t, f, sdx_bf16_to_f32)
    case SDX_U4: case SDX_U2: LOAD(uint8_t, i, )
    case SDX_I4: case SDX_I2: LOAD(int8_t, i, )
    default: break;
    }
    if (sdx_dtype_is_coded(dtype)) LOAD(uint8_t, f, CODE_VALUE)
}

#define STORE(type, expression)                                                                            \
    {                                                                                                      \
        type *p = (type *)y + at;                                                                          \
        for (int64_t i = 0; i < n; i++) p[i] = (type)(expression);                                         \
        return;                                                                                            \
    }
#define STORE_INTEGER(code, type, field) case code: STORE(type, x[i].field)

void sdx_lanes_store(sdx_dtype dtype, const sdx_lane *x, int64_t n, void *y, int64_t at)
{
    switch (dtype) {
        INTEGER_TYPES(STORE_INTEGER)
    case SDX_BOOL: STORE(uint8_t, x[i].i != 0)
    case SDX_F32: STORE(float, x[i].f)
    case SDX_F64: STORE(double, x[i].f)
    case SDX_F16: STORE(uint16_t, sdx_f32_to_f16((float)x[i].f))
    case SDX_BF16: STORE(uint16_t, sdx_f32_to_bf16((float)x[i].f))
    case SDX_U4: case SDX_I4: case SDX_U2: case SDX_I2: STORE(uint8_t, sdx_small_byte(dtype, x[i].u))
    default: break;
    }
    if (sdx_dtype_is_coded(dtype)) STORE(uint8_t, sdx_f64_to_code(dtype, x[i].f, (sdx_coding){0}))
}

/* Lowest value of an integer type and one past the highest, exact as a double. */
static void integer_range(sdx_dtype dtype, double *low, double *past)
{
    int bits = sdx_dtype_is_small(dtype) ? 64 : sdx_dtype_bits(dtype); /* small ones wrap when stored */
    bool is_signed = sdx_dtype_is_signed(dtype) || sdx_dtype_is_small(dtype);
    *past = ldexp(1, is_signed ? bits - 1 : bits);
    *low = is_signed ? -*past : 0;
}

static void float_to_integer(sdx_dtype to, int64_t n, sdx_lane *x)
{
    double low, past;
    integer_range(to, &low, &past);
    /* In 64 bits "past - 1" is not a double, so the limit itself is spelled as an integer. */
    uint64_t top = past >= 0x1p64 ? UINT64_MAX : (uint64_t)past - 1;
    for (int64_t i = 0; i < n; i++) {
        double v = trunc(x[i].f);
        if (!(v == v)) x[i].i = 0;
        else if (v >= past) x[i].u = top;
        else if (v < low) x[i].i = (int64_t)low;
        else if (to == SDX_U64) x[i].u = (uint64_t)v;
        else x[i].i = (int64_t)v;
    }
}

void sdx_lanes_convert(sdx_lane_kind from, sdx_dtype to, int64_t n, sdx_lane *x)
{
    sdx_lane_kind kind = sdx_dtype_lane(to);
    if (from == SDX_LANE_F && to == SDX_BOOL)
        for (int64_t i = 0; i < n; i++) x[i].i = x[i].f != 0;
    else if (from == SDX_LANE_F && kind != SDX_LANE_F) float_to_integer(to, n, x);
    else if (from == SDX_LANE_I && kind == SDX_LANE_F)
        for (int64_t i = 0; i < n; i++) x[i].f = (double)x[i].i;
    else if (from == SDX_LANE_U && kind == SDX_LANE_F)
        for (int64_t i = 0; i < n; i++) x[i].f = (double)x[i].u;
}

/* ---- broadcasting ---------------------------------------------------------------------------------------- */

void sdx_walk_init(sdx_walk *walk, const sdx_shape *result, int operands, const sdx_shape *operand)
{
    int64_t stride[SDX_WALK_MAX][SDX_MAX_RANK];
    for (int k = 0; k < operands; k++) sdx_shape_broadcast_strides(&operand[k], result, stride[k]);
    *walk = (sdx_walk){.operands = operands, .count = sdx_shape_count(result)};
    for (int i = 0; i < result->rank; i++) {
        if (result->dim[i] == 1) continue;
        /* Dim i continues the one before when stepping over it whole is one step of that one, for every
         * operand. */
        bool merge = walk->rank > 0;
        for (int k = 0; k < operands; k++)
            merge = merge && walk->stride[k][walk->rank - 1] == stride[k][i] * result->dim[i];
        if (!merge) walk->dim[walk->rank++] = 1;
        walk->dim[walk->rank - 1] *= result->dim[i];
        for (int k = 0; k < operands; k++) walk->stride[k][walk->rank - 1] = stride[k][i];
    }
    if (walk->rank == 0) walk->dim[walk->rank++] = 1;
    for (int k = 0; k < operands; k++) walk->step[k] = (int)walk->stride[k][walk->rank - 1];
}

typedef struct walk_call {
    const sdx_walk *walk;
    sdx_walk_fn fn;
    void *context;
} walk_call;

static void walk_range(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const walk_call *call = context;
    const sdx_walk *w = call->walk;
    int last = w->rank - 1;
    while (begin < end) {
        int64_t row = begin / w->dim[last], column = begin % w->dim[last], n = w->dim[last] - column;
        if (n > end - begin) n = end - begin;
        int64_t offset[SDX_WALK_MAX] = {0};
        for (int k = 0; k < w->operands; k++) offset[k] = column * w->step[k];
        for (int i = last - 1; i >= 0; i--, row /= w->dim[i + 1])
            for (int k = 0; k < w->operands; k++) offset[k] += row % w->dim[i] * w->stride[k][i];
        call->fn(call->context, begin, n, offset);
        begin += n;
    }
}

void sdx_walk_run(const sdx_walk *walk, int threads, sdx_walk_fn fn, void *context)
{
    walk_call call = {walk, fn, context};
    sdx_parallel_for(threads, walk->count, SDX_WALK_GRAIN, walk_range, &call);
}
