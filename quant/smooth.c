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

static int reader_count(const sdx_graph *g, sdx_id v)
{
    int count = 0;
    for (sdx_id i = 0; i < g->n_node; i++)
        for (int k = 0; k < g->node[i].n_in; k++) count += g->node[i].in[k] == v;
    return count;
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
        if (!fits || reader_count(g, n->in[1]) != 1) return (readers){.count = 0};
        r.weight[r.count++] = w;
    }
    return r;
}

static float load(const sdx_tensor *t, int64_t i)
{
    float f;
    memcpy(&f, (const char *)t->data + i * (int64_t)sizeof f, sizeof f);
    return f;
}

/* The largest of each channel of x, and of each row of the weights with its sum of squares. */
typedef struct channels {
    int64_t width;
    float *x, *w, *square; /* [width] */
    float *factor;         /* [width] of the alpha at hand */
    float *column;         /* [columns] of the widest weight */
} channels;

static void measure(const sdx_quant_sample *s, const readers *r, channels *c)
{
    for (int64_t i = 0; i < s->rows; i++)
        for (int64_t k = 0; k < c->width; k++) c->x[k] = fmaxf(c->x[k], fabsf(s->x[i * c->width + k]));
    for (int i = 0; i < r->count; i++) {
        int64_t n = r->weight[i]->dim[1];
        for (int64_t k = 0; k < c->width; k++) {
            for (int64_t j = 0; j < n; j++) {
                float f = load(r->weight[i], k * n + j);
                c->w[k] = fmaxf(c->w[k], fabsf(f));
                c->square[k] += f * f;
            }
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
    for (int64_t k = 0; k < c->width; k++) c->factor[k] = (float)((double)c->factor[k] / exp(mean));
}

/* Mean square of the rows' steps, and of the rows themselves, once divided. */
static void row_sums(const sdx_quant_sample *s, const float *factor, double *step, double *energy)
{
    *step = *energy = 0;
    for (int64_t i = 0; i < s->rows; i++) {
        float low = 0, high = 0;
        for (int64_t k = 0; k < s->width; k++) {
            float f = s->x[i * s->width + k] / factor[k];
            low = fminf(low, f);
            high = fmaxf(high, f);
            *energy += (double)(f * f) / (double)s->rows;
        }
        *step += (double)(high - low) * (double)(high - low) / (255.0 * 255.0) / (double)s->rows;
    }
}

/* Sum over the columns of the squares of their steps, once multiplied. */
static double column_steps(const sdx_tensor *w, channels *c)
{
    int64_t n = w->dim[1];
    memset(c->column, 0, (size_t)n * sizeof *c->column);
    for (int64_t k = 0; k < c->width; k++)
        for (int64_t j = 0; j < n; j++) c->column[j] = fmaxf(c->column[j], fabsf(load(w, k * n + j)) * c->factor[k]);
    double sum = 0;
    for (int64_t j = 0; j < n; j++) sum += (double)c->column[j] * (double)c->column[j] / (127.0 * 127.0);
    return sum;
}

static double expected_error(const sdx_quant_sample *s, const readers *r, channels *c)
{
    double step, energy, weights = 0, columns = 0;
    row_sums(s, c->factor, &step, &energy);
    for (int64_t k = 0; k < c->width; k++)
        weights += (double)c->square[k] * (double)c->factor[k] * (double)c->factor[k];
    for (int i = 0; i < r->count; i++) columns += column_steps(r->weight[i], c);
    return step * weights + columns * energy;
}

static const sdx_quant_sample *find_sample(const sdx_quantizer *z, sdx_id x)
{
    for (size_t i = 0; i < z->n_sample; i++)
        if (!strcmp(z->sample[i].name, sdx_quantizer_name(z, x))) return &z->sample[i];
    return NULL;
}

static sdx_status make_channels(sdx_quantizer *z, int64_t width, const readers *r, channels *c)
{
    int64_t widest = 1;
    for (int i = 0; i < r->count; i++) widest = r->weight[i]->dim[1] > widest ? r->weight[i]->dim[1] : widest;
    float *all;
    ARENA_NEW(&z->model->arena, all, (size_t)(4 * width + widest), z->err);
    *c = (channels){width, all, all + width, all + 2 * width, all + 3 * width, all + 4 * width};
    return SDX_OK;
}

sdx_status sdx_quantizer_smooth(sdx_quantizer *z, sdx_id x, const float **factor, int64_t *width)
{
    static const double alphas[] = {0.3, 0.4, 0.5};
    *factor = NULL;
    *width = 0;
    const sdx_quant_sample *s = find_sample(z, x);
    if (!s || !s->rows) return SDX_OK;
    readers r = find_readers(z, x, s->width);
    if (!r.count) return SDX_OK;
    channels c;
    TRY(make_channels(z, s->width, &r, &c));
    measure(s, &r, &c);
    set_factors(&c, 0);
    double least = 0.9 * expected_error(s, &r, &c), best = 0;
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
