/* histogram.c: bins of one width around 0. When a value lies outside, pairs of bins are joined until it does not, so
 * the range grows and the memory does not; what was counted stays exact to the width of a bin.
 *
 * Entropy: of all thresholds T, the one at which the distribution of |x|, clipped at T, differs least (Kullback and
 * Leibler's divergence) from what 128 levels leave of it (Migacz 2017, "8-bit inference with TensorRT"). */
#include "histogram.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { HALF = SDX_HISTOGRAM_HALF, LEVELS = 128 };

void sdx_histogram_init(sdx_histogram *h)
{
    memset(h, 0, sizeof *h);
    h->min = FLT_MAX;
    h->max = -FLT_MAX;
}

/* Bin HALF + i, i from -HALF, becomes bin HALF + floor(i / 2); inner bins first, so that none is counted twice. */
static void double_width(sdx_histogram *h)
{
    for (int i = 0; i < HALF; i++) {
        uint64_t up = 2 * i + 1 < HALF ? h->count[HALF + 2 * i] + h->count[HALF + 2 * i + 1] : 0;
        uint64_t down = 2 * i + 1 < HALF ? h->count[HALF - 1 - 2 * i] + h->count[HALF - 2 - 2 * i] : 0;
        h->count[HALF + i] = up;
        h->count[HALF - 1 - i] = down;
    }
    h->width *= 2;
}

static void cover(sdx_histogram *h, double largest)
{
    if (h->width == 0 && largest > 0) {
        /* Zeros so far stand in the bin above 0, whatever its width. */
        h->width = fmax(largest / HALF * 1.0001, DBL_MIN);
    }
    while (largest >= h->width * HALF && h->width > 0) double_width(h);
}

void sdx_histogram_add(sdx_histogram *h, const float *x, int64_t n)
{
    float min = h->min, max = h->max;
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(x[i])) continue;
        min = x[i] < min ? x[i] : min;
        max = x[i] > max ? x[i] : max;
    }
    if (min > max) return;
    h->min = min;
    h->max = max;
    cover(h, fmax(fabs((double)min), fabs((double)max)));
    double scale = h->width > 0 ? 1 / h->width : 0;
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(x[i])) continue;
        int bin = HALF + (int)floor((double)x[i] * scale);
        h->count[bin < 0 ? 0 : bin >= 2 * HALF ? 2 * HALF - 1 : bin]++;
    }
}

/* ---- ranges ---------------------------------------------------------------------------------------------- */

/* Each tail loses half of what is left of a hundred. */
static void middle(const sdx_histogram *h, double percentile, double *low, double *high)
{
    double total = 0, below = 0, above = 0, tail;
    int first = 0, last = 2 * HALF - 1;
    for (int i = 0; i < 2 * HALF; i++) total += (double)h->count[i];
    tail = total * (100 - percentile) / 200;
    while (first < last && (below += (double)h->count[first]) <= tail) first++;
    while (last > first && (above += (double)h->count[last]) <= tail) last--;
    *low = (first - HALF) * h->width;
    *high = (last - HALF + 1) * h->width;
}

/* The divergence of the first n bins p, `rest` more in the last of them, from what LEVELS of equal width leave of p. */
static double divergence(const double *p, int n, double rest)
{
    double sum = 0, d = 0;
    for (int i = 0; i < n; i++) sum += p[i];
    if (sum == 0) return INFINITY;
    for (int level = 0; level < LEVELS; level++) {
        int begin = (int)((int64_t)level * n / LEVELS), end = (int)((int64_t)(level + 1) * n / LEVELS), filled = 0;
        double mass = 0;
        for (int i = begin; i < end; i++) {
            mass += p[i];
            filled += p[i] > 0;
        }
        for (int i = begin; i < end; i++) {
            double want = (p[i] + (i == n - 1 ? rest : 0)) / (sum + rest);
            double have = p[i] > 0 ? mass / filled / sum : 1e-4; /* never nothing */
            if (want > 0) d += want * log(want / have);
        }
    }
    return d;
}

static double least_divergence(const sdx_histogram *h)
{
    double p[HALF], rest = 0, least = INFINITY;
    int best = HALF;
    for (int i = 0; i < HALF; i++) p[i] = (double)h->count[HALF + i] + (double)h->count[HALF - 1 - i];
    for (int n = HALF; n >= LEVELS; n--) {
        double d = divergence(p, n, rest);
        if (d < least) {
            least = d;
            best = n;
        }
        rest += p[n - 1];
    }
    return best * h->width;
}

void sdx_histogram_range(const sdx_histogram *h, sdx_quantize_method method, double percentile, float *low,
                         float *high)
{
    double lo = h->min, hi = h->max;
    if (h->min <= h->max && method == SDX_QUANTIZE_PERCENTILE) middle(h, percentile, &lo, &hi);
    if (h->min <= h->max && method == SDX_QUANTIZE_ENTROPY) {
        hi = least_divergence(h);
        lo = -hi;
    }
    *low = (float)fmax(lo, h->min);
    *high = (float)fmin(hi, h->max);
    if (h->min > h->max) return;
    *low = fminf(*low, 0);
    *high = fmaxf(*high, 0);
}
