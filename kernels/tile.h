/* tile.h: what the register tiles of both GEMMs share. A tile keeps all of its C in registers over the whole
 * of k and is instantiated once per row count; see tile_f32.h for the reasons. */
#ifndef SDX_TILE_H
#define SDX_TILE_H

#include "vec/vec.h"

enum { PREFETCH_STEPS = 64, CACHE_LINE = 64 };

/* Keeps the compiler from turning three row pointers derived from one into registers of their own: x86
 * addresses base, base + stride and base + 2*stride from two registers, and 14 rows then need 5 bases. */
#define OPAQUE(pointer) __asm__("" : "+r"(pointer))

/* Rows of tile t when m rows are cut into `tiles` nearly equal ones, the larger first. */
V_INLINE int tile_height(int64_t m, int64_t tiles, int64_t t) { return (int)(m / tiles + (t < m % tiles)); }

V_INLINE int64_t round_up(int64_t x, int64_t unit) { return (x + unit - 1) / unit * unit; }

/* The panel PREFETCH_STEPS ahead into L1, and as much of what comes after it into L2. */
V_INLINE void tile_prefetch(const char *panel, const int step_bytes, const char *next)
{
    V_UNROLL
    for (int line = 0; line < step_bytes; line += CACHE_LINE) {
        __builtin_prefetch(panel + PREFETCH_STEPS * step_bytes + line, 0, 3);
        __builtin_prefetch(next + line, 0, 2);
    }
}

V_INLINE vf activate(sdx_activation activation, vf x)
{
    switch (activation) {
    case SDX_ACT_RELU: return v_relu(x);
    case SDX_ACT_GELU: return v_gelu(x);
    case SDX_ACT_TANH: return v_tanh(x);
    case SDX_ACT_NONE: break;
    }
    return x;
}

/* F(1) ... F(rows), for a table of instantiations. */
#define TILE_LIST_4(F)      F(1) F(2) F(3) F(4)
#define TILE_LIST_6(F)      TILE_LIST_4(F) F(5) F(6)
#define TILE_LIST_8(F)      TILE_LIST_6(F) F(7) F(8)
#define TILE_LIST_12(F)     TILE_LIST_8(F) F(9) F(10) F(11) F(12)
#define TILE_LIST_14(F)     TILE_LIST_12(F) F(13) F(14)
#define TILE_LIST_(rows, F) TILE_LIST_##rows(F)
#define TILE_LIST(rows, F)  TILE_LIST_(rows, F)

/* "avx512 14x32" */
#define TILE_NAME_(tag, rows, cols) V_STRING(tag) " " V_STRING(rows) "x" V_STRING(cols)
#define TILE_NAME(rows, cols)       TILE_NAME_(SDX_ISA_TAG, rows, cols)

#endif
