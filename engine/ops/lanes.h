/* lanes.h: one loop for every dtype, and broadcasting.
 *
 * An operator that computes loads up to SDX_LANES elements of any numeric type into 64-bit lanes (double, int64
 * or uint64), works on lanes, and stores. A sum of int8 wraps and a float32 quotient rounds once, as they would
 * natively: 64-bit results are exact, or have more than twice the bits of the type they are stored to.
 * float32 has its own kernels where models are hot.
 */
#ifndef SDX_OPS_LANES_H
#define SDX_OPS_LANES_H

#include "../../base/dtype.h"
#include "../../base/shape.h"

#define SDX_LANES 256

typedef union sdx_lane {
    double f;
    int64_t i;
    uint64_t u;
} sdx_lane;

typedef enum sdx_lane_kind { SDX_LANE_F, SDX_LANE_I, SDX_LANE_U, SDX_LANE_NONE } sdx_lane_kind;

/* The kind a type is loaded as: floats (also coded) F, uint64 U, other integers and bool I, the rest NONE. */
sdx_lane_kind sdx_dtype_lane(sdx_dtype dtype);
/* y[i] = x[at + i*stride] for n elements. */
void sdx_lanes_load(sdx_dtype dtype, const void *x, int64_t at, int64_t stride, int64_t n, sdx_lane *y);
/* y[at + i] = x[i]; x is of the type's own kind, integers wrap, coded floats stop at their largest. */
void sdx_lanes_store(sdx_dtype dtype, const sdx_lane *x, int64_t n, void *y, int64_t at);
/* From one kind to what storing as `to` wants. A float beyond an integer type becomes that type's limit, NaN 0;
 * below 8 bits it wraps, as ONNX's casts do. */
void sdx_lanes_convert(sdx_lane_kind from, sdx_dtype to, int64_t n, sdx_lane *x);

/* ---- broadcasting ---------------------------------------------------------------------------------------- */
#define SDX_WALK_MAX 3

/* How operands lie under a broadcast result, with as few dims as will do. Along the last dim (the row) an
 * operand advances by step 1 or stands still. */
typedef struct sdx_walk {
    int rank; /* >= 1 */
    int operands;
    int64_t dim[SDX_MAX_RANK];
    int64_t stride[SDX_WALK_MAX][SDX_MAX_RANK]; /* elements */
    int64_t count;                              /* elements of the result */
    int step[SDX_WALK_MAX];
} sdx_walk;

/* n results from `at` on, inside one row; offset[k]: the element of operand k that belongs to the first. */
typedef void (*sdx_walk_fn)(void *context, int64_t at, int64_t n, const int64_t offset[SDX_WALK_MAX]);

/* Every operand must broadcast to the result; all known. */
void sdx_walk_init(sdx_walk *walk, const sdx_shape *result, int operands, const sdx_shape *operand);
void sdx_walk_run(const sdx_walk *walk, int threads, sdx_walk_fn fn, void *context);

#define SDX_WALK_GRAIN 16384 /* elements worth a thread in cheap loops */

#endif
