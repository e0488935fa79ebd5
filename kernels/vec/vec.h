/* vec.h: the vector vocabulary the kernels are written in, after SLEEF and Highway: one small set of words,
 * one header per instruction set, so that softmax.c is one text compiled once per ISA (-DSDX_ISA_TAG=avx2).
 *
 * Every word rounds alike on every instruction set, a product and a sum are one rounding only where v_fma says
 * so (-ffp-contract=off), and what crosses lanes does not see VLEN (V_PARTS below): the same bits everywhere.
 *
 *   VLEN                        lanes of a vector
 *   vf, vi, vm                  VLEN floats; VLEN int32; one truth value per lane
 *   v_load(p) v_store(p, x)     any alignment; p is void so that weights of a mapped file may lie anywhere
 *   v_load_n(p, n) v_store_n    the first n lanes, 0 <= n <= VLEN; others load as 0 and are not stored
 *   v_min(a, b) v_max(a, b)     b when a or b is NaN: v_max(lo, x) keeps the NaN of x, v_max(x, lo) drops it
 *   v_fma(a, b, c)              a*b + c;  v_fnma: c - a*b
 *   v_round                     to nearest, ties to even
 *   v_ldexp(x, n)               x * 2^n for integral n in [-252, 254], rounded once, also into the denormals
 *   v_frexp(x, &e)              x = m * 2^e, m in [1/sqrt(2), sqrt(2)), for x > 0 and finite
 *   v_select(m, a, b)           m ? a : b
 *   v_cvt_i(x)                  float to int32, nearest even, for |x| < 2^31;  v_cvt_f: back
 *   v_reduce_add/max/min(x)     over the lanes: the upper half onto the lower until one is left
 *   v_first(n)                  true in lanes below n
 *   v_transpose(r)              VLEN vectors as a square matrix, in place
 *
 * vec/math.h builds exp, log, erf, tanh and the activations on these. */
#ifndef SDX_VEC_H
#define SDX_VEC_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "../kernels.h"

#define V_INLINE static inline __attribute__((always_inline, unused))

/* Before a loop whose count is a constant once inlined: no loop is left, and arrays indexed by it live in
 * registers. */
#if defined(__clang__)
#define V_UNROLL _Pragma("clang loop unroll(full)")
#else
#define V_UNROLL _Pragma("GCC unroll 16")
#endif

#define V_STRING(text) #text
#define V_HEADER(tag)  V_STRING(tag.h)

#include V_HEADER(SDX_ISA_TAG)

#include "math.h"

/* The one exported symbol of a kernel object: void sdx_<family>_init_<isa>(sdx_kernels *table). */
#define V_JOIN(family, tag)          sdx_##family##_init_##tag
#define V_JOIN_EXPANDED(family, tag) V_JOIN(family, tag)
#define KERNEL_INIT(family)                                                                                    \
    void V_JOIN_EXPANDED(family, SDX_ISA_TAG)(sdx_kernels * table);                                            \
    void V_JOIN_EXPANDED(family, SDX_ISA_TAG)(sdx_kernels * table)

/* How many of the VLEN lanes starting at i lie below n. */
V_INLINE int v_lanes(int64_t i, int64_t n) { return n - i < VLEN ? (int)(n - i) : VLEN; }

/* A reduction over a row runs in 16, 32 or 64 lanes, the kernel's choice, whatever VLEN is: element i in lane
 * i % lanes, the lanes kept in V_PARTS(lanes) vectors. At the end v_fold puts the upper half onto the lower
 * until one is left. */
#define V_PARTS(lanes) ((lanes) / VLEN)

#define V_FOLD_HALF(half, op)                                                                                  \
    if (parts > half) {                                                                                        \
        V_UNROLL                                                                                               \
        for (int j = 0; j < half; j++) x[j] = op(x[j], x[j + half]);                                           \
    }
#define V_FOLD(name, op)                                                                                       \
    V_INLINE float v_fold_##name(const int parts, vf *x)                                                       \
    {                                                                                                          \
        V_FOLD_HALF(32, op) /* written out, so that vectors stay in registers */                               \
        V_FOLD_HALF(16, op)                                                                                    \
        V_FOLD_HALF(8, op)                                                                                     \
        V_FOLD_HALF(4, op)                                                                                     \
        V_FOLD_HALF(2, op)                                                                                     \
        V_FOLD_HALF(1, op)                                                                                     \
        return v_reduce_##name(x[0]);                                                                          \
    }
V_FOLD(add, v_add)
V_FOLD(max, v_max)
V_FOLD(min, v_min)
#undef V_FOLD
#undef V_FOLD_HALF

V_INLINE void v_fill(const int parts, vf value, vf *x)
{
    V_UNROLL
    for (int j = 0; j < parts; j++) x[j] = value;
}

#endif
