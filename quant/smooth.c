/* smooth.c: some channels of a normalized activation are far larger than the rest and take the 8 bits of their row
 * for themselves. Dividing channel k by s[k] and multiplying row k of the weight by it changes no product, but lets the
 * weight, which has bits to spare, carry part of the range (Xiao et al. 2023, SmoothQuant):
 *
 *     s[k] = (max|x[:,k]| / max|W[k,:]|)^alpha        scaled to a geometric mean of 1
 *
 * A row with step d adds about d^2/12 * sum_k s[k]^2 |W[k]|^2 to the squared error of the product, a column of the
 * weight with step e about e^2/12 * |x/s|^2. The alpha with the least sum wins, and only if it gains a tenth. */
#include <math.h>
#include <string.h>

#include "../base/memory.h"
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
    int64_t width;
    float *x, *w;      /* [width] */
    double *square;    /* [width] */
    float *factor;     /* [width] of the alpha at hand */
    float *low, *high; /* [width] or more: ranges of columns */
} channels;

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

static void measure(const sdx_quant_sample *s, const readers *r, channels *c)
{
    for (int64_t i = 0; i < s->rows; i++) sdx_quant_range_columns(s->x + i * c->width, c->width, 1, c->low, c->high);
    for (int64_t k = 0; k < c->width; k++) c->x[k] = fmaxf(-c->low[k], c->high[k]);
    for (int i = 0; i < r->count; i++) {
        const sdx_tensor *w = r->weight[i];
        for (int64_t k = 0; k < c->width; k++) {
            float low = 0, high = 0;
            sdx_quant_range(row_at(w, k, 0), w->dim[1], 1, &low, &high);
            c->w[k] = fmaxf(c->w[k], fmaxf(-low, high));
            c->square[k] += sum_of_squares(row_at(w, k, 0), w->dim[1]);
        }
    }
}

static void set_factors(channels *c, double alpha)
{
    double mean = 0;
    for (int64_t k = 0; k < c->width; k++) {
        double ratio = c->x[k] > 0 && c->w[k] > 0 ? (double)c->x[k] / (double)c->w[k] : 1;
        c->factor[k] = (float)pow(ratio, alpha);
        mean += log((double)c->factor[k]) / (double)c->width;
    }
    for (int64_t k = 0; k < c->width; k++) {
        float exact = (float)((double)c->factor[k] / exp(mean));
        c->factor[k] = 1 / sdx_quant_scale_half(1 / exact); /* its inverse is what the file keeps, in half the bytes */
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
static double strip_steps(const sdx_tensor *w, channels *c, int64_t begin, int64_t n)
{
    double sum = 0;
    memset(c->low, 0, (size_t)n * sizeof *c->low);
    memset(c->high, 0, (size_t)n * sizeof *c->high);
    for (int64_t k = 0; k < c->width; k++) sdx_quant_range_columns(row_at(w, k, begin), n, c->factor[k], c->low, c->high);
    for (int64_t j = 0; j < n; j++) {
        double step = (double)fmaxf(-c->low[j], c->high[j]) / 127;
        sum += step * step;
    }
    return sum;
}

static double column_steps(const sdx_tensor *w, channels *c)
{
    int64_t n = w->dim[1];
    double sum = 0;
    if (n <= STRIPS * STRIP) return strip_steps(w, c, 0, n);
    for (int i = 0; i < STRIPS; i++) sum += strip_steps(w, c, i * (n - STRIP) / (STRIPS - 1), STRIP);
    return sum * (double)n / (STRIPS * STRIP);
}

static double expected_error(const sdx_quant_sample *s, const readers *r, channels *c)
{
    double step, energy, weights = 0, columns = 0;
    row_sums(s, c->factor, &step, &energy);
    for (int64_t k = 0; k < c->width; k++) weights += c->square[k] * (double)c->factor[k] * (double)c->factor[k];
    for (int i = 0; i < r->count; i++) columns += column_steps(r->weight[i], c);
    return step * weights + columns * energy;
}

static sdx_status make_channels(sdx_quantizer *z, int64_t width, channels *c)
{
    int64_t ranges = width > STRIPS * STRIP ? width : STRIPS * STRIP;
    float *all;
    ARENA_NEW(&z->model->arena, all, (size_t)(3 * width + 2 * ranges), z->err);
    *c = (channels){width, all, all + width, NULL, all + 2 * width, all + 3 * width, all + 3 * width + ranges};
    ARENA_NEW(&z->model->arena, c->square, (size_t)width, z->err);
    return SDX_OK;
}

sdx_status sdx_quantizer_smooth(sdx_quantizer *z, sdx_id x, const float **factor, int64_t *width)
{
    static const double alphas[] = {0.2, 0.3, 0.4, 0.5, 0.6, 0.7};
    *factor = NULL;
    *width = 0;
    const sdx_quant_sample *s = sdx_quantizer_sample(z, x);
    if (!s || !s->rows) return SDX_OK;
    readers r = find_readers(z, x, s->width);
    if (!r.count) return SDX_OK;
    channels c;
    TRY(make_channels(z, s->width, &c));
    measure(s, &r, &c);
    set_factors(&c, 0);
    double least = 0.98 * expected_error(s, &r, &c), best = 0;
    for (size_t i = 0; i < sizeof alphas / sizeof *alphas; i++) {
        set_factors(&c, alphas[i]);
        double error = expected_error(s, &r, &c);
        if (error < least) {
            least = error;
            best = alphas[i];
        }
    }
    if (best == 0) return SDX_OK;
    set_factors(&c, best);
    *factor = c.factor;
    *width = s->width;
    return SDX_OK;
}
