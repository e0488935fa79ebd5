/* kcheck.h: what the kernel checks share. A check compares the kernels of one tier with the formula in
 * double, bounds the difference by what rounding can do for these operands, not by a loose constant, and
 * wants the bits of scalar. Buffers end at a page that may not be touched. */
#ifndef KCHECK_H
#define KCHECK_H

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../kernels/kernels.h"

/* Rounding unit of fp32 and Higham's bound for a sum of k products. */
#define UNIT (FLT_EPSILON / 2.0)
static inline double gamma_k(double k) { return k * UNIT / (1.0 - k * UNIT); }

typedef struct context {
    const sdx_kernels *kernels; /* the tier being checked */
    const sdx_kernels *scalar;
    sdx_isa isa;
} context;

/* ---- random numbers: splitmix64 --------------------------------------------------------------- */
uint64_t random_bits(void);
int64_t random_int(int64_t low, int64_t high); /* both included */
float random_float(float low, float high);
void random_fill(int64_t n, float low, float high, float *x);
void random_bytes(int64_t n, uint8_t *x);
int64_t random_size(int64_t max); /* often 0, 1 or near a multiple of 16 */

/* ---- guarded buffers: every byte up to the end is usable, the next one faults -------------------- */
void *guarded(size_t bytes); /* filled with 0xa5; freed by guarded_reset */
#define GUARDED(type, count) ((type *)guarded((size_t)(count) * sizeof(type)))
void guarded_reset(void);

/* ---- verdicts ------------------------------------------------------------------------------------ */
bool expect(bool ok, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The bits that scalar gave at this point of the check, payloads of NaN aside. So what is judged, and in which
 * order, must not depend on the tier. */
bool expect_scalar(float got, const char *what, int64_t index);
/* The same, and |got - want| <= bound; NaN equals NaN, an infinity itself. */
bool expect_near(float got, double want, double bound, const char *what, int64_t index);
bool expect_bytes(const void *a, const void *b, size_t bytes, const char *what);
/* The largest error seen, in units a check chooses, printed with -v. */
void note_error(const char *what, double error);

/* The activations in double, and a bound for an error of `in` before them. */
double activation_value(sdx_activation activation, double x);
double activation_bound(double x, double in);

/* ---- families ------------------------------------------------------------------------------------ */
typedef struct check {
    const char *name;
    void (*run)(const context *);
} check;
extern const check gemm_f32_checks[], gemm_f16_checks[], gemm_int8_checks[], softmax_checks[], norm_checks[],
    activation_checks[], eltwise_checks[], reduce_checks[], conv_checks[], quantize_checks[], attention_checks[],
    dispatch_checks[];

/* ---- bench --------------------------------------------------------------------------------------- */
void bench_run(const context *c, const char *filter, bool json);

#endif
