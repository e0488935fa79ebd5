/* tile_finish.h: from a finished tile of sums in L1 to C, for the GEMMs that sum in float. Included after TILE_COLS. */
#ifndef SDX_TILE_FINISH_H
#define SDX_TILE_FINISH_H

#include "tile.h"

typedef struct epilogue {
    const float *bias;     /* of the panel's first column, or NULL */
    const float *residual; /* of the tile's first element, or NULL */
    int64_t ldr;
} epilogue;

/* C[rows, cols] from tile[rows, TILE_COLS]; every choice is made outside the loops. */
V_INLINE void finish(sdx_activation activation, const epilogue *e, const float *tile, int rows, int64_t cols,
                     float *c, int64_t ldc)
{
    for (int64_t j = 0; j < cols; j += VLEN) {
        const int lanes = v_lanes(j, cols);
        const vf bias = e->bias ? v_load_n(e->bias + j, lanes) : v_zero();
        for (int i = 0; i < rows; i++) {
            vf x = activate(activation, v_add(v_load(tile + i * TILE_COLS + j), bias));
            if (e->residual) x = v_add(x, v_load_n(e->residual + i * e->ldr + j, lanes));
            v_store_n(c + i * ldc + j, x, lanes);
        }
    }
}

static void finish_tile(sdx_activation activation, const epilogue *e, const float *tile, int rows, int64_t cols,
                        float *c, int64_t ldc)
{
    switch (activation) {
    case SDX_ACT_NONE: finish(SDX_ACT_NONE, e, tile, rows, cols, c, ldc); break;
    case SDX_ACT_RELU: finish(SDX_ACT_RELU, e, tile, rows, cols, c, ldc); break;
    case SDX_ACT_GELU: finish(SDX_ACT_GELU, e, tile, rows, cols, c, ldc); break;
    case SDX_ACT_TANH: finish(SDX_ACT_TANH, e, tile, rows, cols, c, ldc); break;
    }
}

#endif
