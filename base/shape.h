/* shape.h: sizes known and unknown, and the integer arithmetic on them.
 *
 * A dim is a size (>= 0) or a negative code: SDX_DIM_UNKNOWN, or a symbol of the model's symbol table.
 * Two equal symbols are the same size; two unknowns say nothing of each other. */
#ifndef SDX_BASE_SHAPE_H
#define SDX_BASE_SHAPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "status.h"

typedef int64_t sdx_dim;

#define SDX_DIM_UNKNOWN ((sdx_dim)-1)
#define SDX_DIM_SYMBOL(id) ((sdx_dim)(-2) - (sdx_dim)(id))
#define SDX_DIM_SYMBOL_ID(dim) ((int)(-2 - (dim)))
static inline bool sdx_dim_is_known(sdx_dim d) { return d >= 0; }
static inline bool sdx_dim_is_symbol(sdx_dim d) { return d <= -2; }
/* Equal for certain: the same size or the same symbol. */
static inline bool sdx_dim_same(sdx_dim a, sdx_dim b) { return a == b && a != SDX_DIM_UNKNOWN; }

typedef struct sdx_shape {
    int rank; /* -1: unknown */
    sdx_dim dim[SDX_MAX_RANK];
} sdx_shape;

#define SDX_SHAPE_UNKNOWN ((sdx_shape){.rank = -1})

sdx_shape sdx_shape_make(int rank, const sdx_dim *dim);
bool sdx_shape_is_known(const sdx_shape *s); /* rank and every dim */
bool sdx_shape_same(const sdx_shape *a, const sdx_shape *b);
/* Elements of a known shape; -1 when some dim is unknown, a size is absurd or the product overflows. */
int64_t sdx_shape_count(const sdx_shape *s);
/* Product of dim[from..to). All must be known. */
int64_t sdx_shape_span(const sdx_shape *s, int from, int to);
/* Row-major strides in elements of a known shape. */
void sdx_shape_strides(const sdx_shape *s, int64_t stride[SDX_MAX_RANK]);
/* NumPy broadcasting, also of unknown and symbolic dims: 1 yields to anything, a size wins over a symbol. */
sdx_status sdx_shape_broadcast(const sdx_shape *a, const sdx_shape *b, sdx_shape *out, sdx_error *err);
/* Strides of `from` seen from a shape it broadcasts to: 0 where it repeats. Both known. */
void sdx_shape_broadcast_strides(const sdx_shape *from, const sdx_shape *to, int64_t stride[SDX_MAX_RANK]);
/* axis in [-rank, rank) to [0, rank). */
sdx_status sdx_axis_normalize(int64_t axis, int rank, int *out, sdx_error *err);
/* "[1,?,64]" into buf; returns buf. Symbols print as "?". */
char *sdx_shape_format(const sdx_shape *s, char *buf, size_t size);

#define SDX_SHAPE_TEXT 176 /* enough for sdx_shape_format of rank 8 */

#endif
