/* smooth.c: some channels of a normalized activation are far larger than the rest and take the 8 bits of their row
 * for themselves. Dividing channel k by s[k] and multiplying row k of the weight by it changes no product, but lets the
 * weight, which has bits to spare, carry part of the range (Xiao et al. 2023, SmoothQuant):
 *
 *     s[k] = (max|x[:,k]| / max|W[k,:]|)^alpha        scaled to a geometric mean of 1
 *
 * A row with step d adds about d^2/12 * sum_k s[k]^2 |W[k]|^2 to the squared error of the product, a column of the
 * weight with step e about e^2/12 * |x/s|^2. The alpha with the least sum wins, if it gains two hundredths. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../base/memory.h"
#include "../base/parallel.h"
#include "quantizer.h"

enum { MOST_READERS = 8 };

typedef struct readers {
    const sdx_tensor *weight[MOST_READERS];
    int count;
} readers;

static bool is_product(const sdx_node *n)
{
    return !strcmp(n->op_type, "MatMul") || !strcmp(n->op_type, "Attention");
}

typedef struct read_count {
    sdx_id value;
    int count;
} read_count;

static void count_read(void *context, sdx_id v)
{
    read_count *c = context;
    c->count += v == c->value;
}

/* Those in graphs inside count; they are the only ones that a value from a graph around is known to have. */
static bool has_one_reader(const sdx_graph *g, sdx_id v)
{
    read_count c = {.value = v};
    for (sdx_id i = 0; i < g->n_node; i++) sdx_node_each_read(&g->node[i], count_read, &c);
    return c.count == 1 && g->value[v].outer == SDX_NONE;
}

/* The weights that x is multiplied by; none when one of them has other readers, whose x would want other factors. */
static readers find_readers(const sdx_quantizer *z, sdx_id x, int64_t width)
{
    const sdx_graph *g = z->graph;
    readers r = {.count = 0};
    for (sdx_id i = 0; i < g->n_node; i++) {
        const sdx_node *n = &g->node[i];
        if (n->n_in < 2 || n->in[0] != x || !sdx_quantizer_is_weight(z, n->in[1], 2)) continue;
        const sdx_tensor *w = sdx_graph_constant(g, n->in[1]);
        bool fits = is_product(n) && w->rank == 2 && w->dim[0] == width && r.count < MOST_READERS;
        if (!fits || !has_one_reader(g, n->in[1])) return (readers){.count = 0};
        r.weight[r.count++] = w;
    }
    return r;
}

/* The largest of each channel of x, and of each row of the weights with its sum of squares. */
typedef struct channels {
    const sdx_quant_sample *sample;
    readers readers;
    int64_t width;
    float *x, *w;   /* [width] */
    double *square; /* [width] */
} channels;

/* An alpha: what it gives, and where that is found out. */
typedef struct trial {
    double alpha, error;
    float *factor;     /* [width] */
    float *low, *high; /* [width] or more: ranges of columns */
} trial;

/* Strips of columns that stand for all of a wide weight when alphas are compared. */
enum { STRIPS = 8, STRIP = 128 };

static const char *row_at(const sdx_tensor *w, int64_t row, int64_t column)
{
    return (const char *)w->data + (row * w->dim[1] + column) * (int64_t)sizeof(float);
}

static double sum_of_squares(const char *x, int64_t n)
{
    double sum = 0;
    for (int64_t j = 0; j < n; j++) {
        float f;
        memcpy(&f, x + j * (int64_t)sizeof f, sizeof f);
        sum += (double)f * (double)f;
    }
    return sum;
}

static void measure_weights(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const channels *c = context;
    for (int i = 0; i < c->readers.count; i++) {
        const sdx_tensor *w = c->readers.weight[i];
        for (int64_t k = begin; k < end; k++) {
            float low = 0, high = 0;
            sdx_quant_range(row_at(w, k, 0), w->dim[1], 1, &low, &high);
            c->w[k] = fmaxf(c->w[k], fmaxf(-low, high));
            c->square[k] += sum_of_squares(row_at(w, k, 0), w->dim[1]);
        }
    }
}

static void measure_sample(const channels *c, float *low, float *high)
{
    const sdx_quant_sample *s = c->sample;
    for (int64_t i = 0; i < s->rows; i++) sdx_quant_range_columns(s->x + i * c->width, c->width, 1, low, high);
    for (int64_t k = 0; k < c->width; k++) c->x[k] = fmaxf(-low[k], high[k]);
}

static void set_factors(const channels *c, trial *t)
{
    double mean = 0;
    for (int64_t k = 0; k < c->width; k++) {
        double ratio = c->x[k] > 0 && c->w[k] > 0 ? (double)c->x[k] / (double)c->w[k] : 1;
        t->factor[k] = (float)pow(ratio, t->alpha);
        mean += log((double)t->factor[k]) / (double)c->width;
    }
    for (int64_t k = 0; k < c->width; k++) {
        float exact = (float)((double)t->factor[k] / exp(mean));
        t->factor[k] = 1 / sdx_quant_scale_half(1 / exact); /* its inverse is what the file keeps, in half the bytes */
    }
}

/* Mean square of the rows' steps, and of the rows themselves, once divided. */
static void row_sums(const sdx_quant_sample *s, const float *factor, double *step, double *energy)
{
    *step = *energy = 0;
    for (int64_t i = 0; i < s->rows; i++) {
        float low = 0, high = 0;
        for (int64_t k = 0; k < s->width; k++) {
            float f = s->x[i * s->width + k] / factor[k];
            low = f < low ? f : low;
            high = f > high ? f : high;
            *energy += (double)(f * f) / (double)s->rows;
        }
        *step += (double)(high - low) * (double)(high - low) / (255.0 * 255.0) / (double)s->rows;
    }
}

/* Sum of the squares of the steps of columns [begin, begin + n), once multiplied. */
static double strip_steps(const sdx_tensor *w, trial *t, int64_t begin, int64_t n)
{
    double sum = 0;
    memset(t->low, 0, (size_t)n * sizeof *t->low);
    memset(t->high, 0, (size_t)n * sizeof *t->high);
    for (int64_t k = 0; k < w->dim[0]; k++)
        sdx_quant_range_columns(row_at(w, k, begin), n, t->factor[k], t->low, t->high);
    for (int64_t j = 0; j < n; j++) {
        double step = (double)fmaxf(-t->low[j], t->high[j]) / 127;
        sum += step * step;
    }
    return sum;
}

static double column_steps(const sdx_tensor *w, trial *t)
{
    int64_t n = w->dim[1];
    double sum = 0;
    if (n <= STRIPS * STRIP) return strip_steps(w, t, 0, n);
    for (int i = 0; i < STRIPS; i++) sum += strip_steps(w, t, i * (n - STRIP) / (STRIPS - 1), STRIP);
    return sum * (double)n / (STRIPS * STRIP);
}

static double expected_error(const channels *c, trial *t)
{
    double step, energy, weights = 0, columns = 0;
    row_sums(c->sample, t->factor, &step, &energy);
    for (int64_t k = 0; k < c->width; k++) weights += c->square[k] * (double)t->factor[k] * (double)t->factor[k];
    for (int i = 0; i < c->readers.count; i++) columns += column_steps(c->readers.weight[i], t);
    return step * weights + columns * energy;
}

/* 0: no factors. */
static const double alphas[] = {0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7};
enum { ALPHAS = sizeof alphas / sizeof *alphas };

typedef struct contest {
    const channels *channels;
    trial trial[ALPHAS];
} contest;

static void run_trials(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    contest *c = context;
    for (int64_t i = begin; i < end; i++) {
        set_factors(c->channels, &c->trial[i]);
        c->trial[i].error = expected_error(c->channels, &c->trial[i]);
    }
}

static const trial *best_trial(const contest *c)
{
    const trial *best = &c->trial[0];
    double least = 0.98 * best->error;
    for (int i = 1; i < ALPHAS; i++) {
        bool less = c->trial[i].error < least; /* never of a NaN */
        best = less ? &c->trial[i] : best;
        least = less ? best->error : least;
    }
    return best;
}

/* All in one zeroed block, to be freed; NULL when out of memory. */
static float *make_room(channels *c, contest *trials)
{
    int64_t width = c->width, ranges = width > STRIPS * STRIP ? width : STRIPS * STRIP;
    size_t numbers = (size_t)(4 * width + ALPHAS * (width + 2 * ranges));
    float *all = sdx_calloc(numbers, sizeof *all), *at = all;
    if (!all) return NULL;
    c->square = (double *)(void *)at;
    c->x = at += 2 * width;
    c->w = at += width;
    at += width;
    for (int i = 0; i < ALPHAS; i++, at += width + 2 * ranges)
        trials->trial[i] = (trial){alphas[i], 0, at, at + width, at + width + ranges};
    return all;
}

static sdx_status keep_factors(sdx_quantizer *z, const trial *t, int64_t width, const float **factor)
{
    float *kept;
    ARENA_NEW(&z->model->arena, kept, (size_t)width, z->err);
    *factor = memcpy(kept, t->factor, (size_t)width * sizeof *kept);
    return SDX_OK;
}

sdx_status sdx_quantizer_smooth(sdx_quantizer *z, sdx_id x, const float **factor, int64_t *width)
{
    *factor = NULL;
    *width = 0;
    const sdx_quant_sample *s = sdx_quantizer_sample(z, x);
    if (!s || !s->rows) return SDX_OK;
    channels c = {.sample = s, .readers = find_readers(z, x, s->width), .width = s->width};
    contest trials = {.channels = &c};
    if (!c.readers.count) return SDX_OK;
    float *room = make_room(&c, &trials);
    if (!room) return sdx_fail_memory(z->err, (size_t)c.width * sizeof *room);
    measure_sample(&c, trials.trial[0].low, trials.trial[0].high);
    sdx_parallel_for(z->threads, c.width, 16, measure_weights, &c);
    sdx_parallel_for(z->threads, ALPHAS, 1, run_trials, &trials);
    const trial *best = best_trial(&trials);
    sdx_status status = best->alpha > 0 ? keep_factors(z, best, c.width, factor) : SDX_OK;
    if (*factor) *width = c.width;
    free(room);
    return status;
}
