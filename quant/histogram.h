/* histogram.h: the values of a stream, in memory that does not grow with it. */
#ifndef SDX_QUANT_HISTOGRAM_H
#define SDX_QUANT_HISTOGRAM_H

#include <stdint.h>

#include "../include/sardonyx.h"

enum { SDX_HISTOGRAM_HALF = 1024 }; /* bins on each side of 0 */

typedef struct sdx_histogram {
    float min, max; /* of the values so far; min > max: none */
    double width;   /* of a bin; 0: only zeros so far */
    uint64_t count[2 * SDX_HISTOGRAM_HALF]; /* bin b: [(b - HALF) * width, (b - HALF + 1) * width) */
} sdx_histogram;

void sdx_histogram_init(sdx_histogram *h);
/* Values that are not finite are left out. */
void sdx_histogram_add(sdx_histogram *h, const float *x, int64_t n);
/* The range for an activation, 0 within; percentile in (0, 100]. *low > *high when there were no values. */
void sdx_histogram_range(const sdx_histogram *h, sdx_quantize_method method, double percentile, float *low,
                         float *high);

#endif
