/* reference.c: see reference.h. Weights are read once, in the order they are stored: each row of a matrix meets
 * all tokens before the next, and the pages of a matrix are given back when it is done. */
#include "reference.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "../base/parallel.h"

enum { CHUNK = 256, LANES = 8, MAX_NAME = 256 };

void sdx_forward_scope(sdx_forward *f, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(f->scope, sizeof f->scope, format, args);
    va_end(args);
}

double *sdx_forward_alloc(sdx_forward *f, int64_t count)
{
    if (f->status != SDX_OK) return NULL;
    double *x = sdx_arena_array(f->arena, (size_t)count, sizeof *x);
    if (!x) f->status = sdx_fail_memory(f->err, (size_t)count * sizeof *x);
    return x;
}

static const sdx_tensor *find(sdx_forward *f, const char *name, const char *tail)
{
    char full[MAX_NAME];
    if (f->status != SDX_OK) return NULL;
    snprintf(full, sizeof full, "%s%s%s", f->scope, name, tail);
    const sdx_tensor *t = sdx_checkpoint_find(f->checkpoint, full);
    if (!t) f->status = sdx_fail(f->err, SDX_ERR_FILE, "the checkpoint has no tensor \"%s\"", full);
    return t;
}

bool sdx_forward_has(const sdx_forward *f, const char *name)
{
    char full[MAX_NAME];
    snprintf(full, sizeof full, "%s%s", f->scope, name);
    return sdx_checkpoint_find(f->checkpoint, full) != NULL;
}

int64_t sdx_forward_rows(sdx_forward *f, const char *name)
{
    const sdx_tensor *t = find(f, name, "");
    return t ? t->dim[0] : 0;
}

/* name.bias, or NULL if the checkpoint has none */
static const sdx_tensor *find_bias(sdx_forward *f, const char *name)
{
    char full[MAX_NAME];
    snprintf(full, sizeof full, "%s.bias", name);
    return sdx_forward_has(f, full) ? find(f, full, "") : NULL;
}

static double load(const sdx_tensor *t, int64_t i)
{
    float x;
    sdx_weight_load(t, i, 1, &x);
    return x;
}

double *sdx_forward_weight(sdx_forward *f, const char *name)
{
    const sdx_tensor *t = find(f, name, "");
    int64_t count = t ? sdx_tensor_count(t) : 0;
    double *x = sdx_forward_alloc(f, count);
    for (int64_t i = 0; x && i < count; i++) x[i] = load(t, i);
    return x;
}

/* ---- matrices -------------------------------------------------------------------------------------------- */

typedef struct product {
    const sdx_tensor *weight, *bias; /* [out, in], [out] or NULL */
    const double *x; /* [rows / LANES, in, LANES]: a row is a lane, so that a weight meets 8 at once */
    double *y;       /* [rows, out] */
    int64_t rows, in, out;
} product;

/* sum [LANES] += w [n] times x [n, LANES]; sums with names of their own stay in registers. */
static void add_products(const float *w, int64_t n, const double *x, double *sum)
{
    double a = sum[0], b = sum[1], c = sum[2], d = sum[3], e = sum[4], f = sum[5], g = sum[6], h = sum[7];
    for (int64_t j = 0; j < n; j++, x += LANES) {
        double v = (double)w[j];
        a += v * x[0], b += v * x[1], c += v * x[2], d += v * x[3];
        e += v * x[4], f += v * x[5], g += v * x[6], h += v * x[7];
    }
    sum[0] = a, sum[1] = b, sum[2] = c, sum[3] = d, sum[4] = e, sum[5] = f, sum[6] = g, sum[7] = h;
}

static void multiply_row(const product *p, int64_t o, int64_t first)
{
    float w[CHUNK];
    double sum[LANES] = {0};
    const double *x = p->x + first * p->in;
    for (int64_t i = 0; i < p->in; i += CHUNK) {
        int64_t n = p->in - i < CHUNK ? p->in - i : CHUNK;
        sdx_weight_load(p->weight, o * p->in + i, n, w);
        add_products(w, n, x + i * LANES, sum);
    }
    double bias = p->bias ? load(p->bias, o) : 0;
    for (int64_t l = 0; l < LANES && first + l < p->rows; l++) p->y[(first + l) * p->out + o] = sum[l] + bias;
}

static void multiply_rows(void *context, int64_t begin, int64_t end, int worker)
{
    const product *p = context;
    (void)worker;
    for (int64_t o = begin; o < end; o++)
        for (int64_t first = 0; first < p->rows; first += LANES) multiply_row(p, o, first);
}

/* [rows, in] -> [ceil(rows / LANES), in, LANES], missing rows 0 */
static double *interleave(sdx_forward *f, const double *x, int64_t rows, int64_t in)
{
    double *out = sdx_forward_alloc(f, (rows + LANES - 1) / LANES * LANES * in);
    for (int64_t r = 0; out && r < rows; r++)
        for (int64_t i = 0; i < in; i++) out[(r / LANES * in + i) * LANES + r % LANES] = x[r * in + i];
    return out;
}

static double *multiply(sdx_forward *f, const sdx_tensor *weight, const sdx_tensor *bias, const double *x,
                        int64_t rows)
{
    if (f->status != SDX_OK) return NULL;
    product p = {.weight = weight, .bias = bias, .rows = rows, .in = weight->dim[1], .out = weight->dim[0]};
    p.x = interleave(f, x, rows, p.in);
    p.y = sdx_forward_alloc(f, rows * p.out);
    if (f->status != SDX_OK) return NULL;
    sdx_parallel_for(f->threads, p.out, 16, multiply_rows, &p);
    sdx_checkpoint_release(f->checkpoint, weight);
    return p.y;
}

double *sdx_forward_product(sdx_forward *f, const char *weight, const char *bias, const double *x, int64_t rows)
{
    const sdx_tensor *w = find(f, weight, ""), *b = bias ? find(f, bias, "") : NULL;
    return multiply(f, w, b, x, rows);
}

double *sdx_forward_linear(sdx_forward *f, const char *name, const double *x, int64_t rows)
{
    const sdx_tensor *w = find(f, name, ".weight"), *b = find_bias(f, name);
    return multiply(f, w, b, x, rows);
}

double *sdx_forward_convolution(sdx_forward *f, const char *name, const double *x, int64_t groups)
{
    const sdx_tensor *w = find(f, name, ".weight"), *b = find(f, name, ".bias");
    int64_t out = w ? w->dim[0] : 0, in = w ? w->dim[1] : 0, width = w ? w->dim[2] : 0, H = in * groups;
    double *y = sdx_forward_alloc(f, f->count * out);
    for (int64_t i = 0; f->status == SDX_OK && i < out * in * width; i++) {
        int64_t o = i / (in * width), c = o / (out / groups) * in + i / width % in,
                shift = i % width - width / 2;
        double weight = load(w, i);
        for (int64_t t = 0; t < f->count; t++)
            if (t + shift >= 0 && t + shift < f->count) y[t * out + o] += weight * x[(t + shift) * H + c];
    }
    for (int64_t i = 0; f->status == SDX_OK && i < f->count * out; i++) y[i] += load(b, i % out);
    return y;
}

/* ---- rows ------------------------------------------------------------------------------------------------ */

void sdx_forward_layer_norm(sdx_forward *f, const char *name, double *x, int64_t rows, double epsilon)
{
    const sdx_tensor *scale = find(f, name, ".weight"), *shift = find_bias(f, name);
    if (f->status != SDX_OK) return;
    int64_t n = scale->dim[0];
    for (int64_t r = 0; r < rows; r++, x += n) {
        double mean = 0, variance = 0;
        for (int64_t i = 0; i < n; i++) mean += x[i] / (double)n;
        for (int64_t i = 0; i < n; i++) variance += (x[i] - mean) * (x[i] - mean) / (double)n;
        for (int64_t i = 0; i < n; i++)
            x[i] = (x[i] - mean) / sqrt(variance + epsilon) * load(scale, i) + (shift ? load(shift, i) : 0);
    }
}

static double activate(double x, sdx_activation kind)
{
    const double pi = 3.14159265358979323846;
    switch (kind) {
    case SDX_GELU: return x / 2 * (1 + erf(x / sqrt(2)));
    case SDX_GELU_TANH: return x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x * x * x)));
    case SDX_SILU: return x / (1 + exp(-x));
    case SDX_TANH: return tanh(x);
    case SDX_QUICK_GELU: return x / (1 + exp(-1.702 * x));
    case SDX_SIGMOID: return 1 / (1 + exp(-x));
    case SDX_MISH: return x * tanh(log1p(exp(x)));
    case SDX_RELU6: return fmin(fmax(x, 0), 6);
    case SDX_RELU_SQUARED: return x > 0 ? x * x : 0;
    case SDX_LEAKY_RELU: return x > 0 ? x : 0.01 * x;
    case SDX_IDENTITY: return x;
    case SDX_RELU: break;
    }
    return x > 0 ? x : 0;
}

void sdx_forward_activation(sdx_forward *f, double *x, int64_t count, sdx_activation kind)
{
    for (int64_t i = 0; f->status == SDX_OK && i < count; i++) x[i] = activate(x[i], kind);
}

void sdx_forward_add(sdx_forward *f, double *x, const double *y, int64_t count)
{
    for (int64_t i = 0; f->status == SDX_OK && i < count; i++) x[i] += y[i];
}

void sdx_forward_add_embedding(sdx_forward *f, const char *name, const int64_t *ids, double *x)
{
    const sdx_tensor *table = find(f, name, ".weight");
    for (int64_t t = 0; f->status == SDX_OK && t < f->count; t++) {
        int64_t id = ids ? ids[t] : t, width = table->dim[1];
        if (id < 0 || id >= table->dim[0]) {
            f->status = sdx_fail(f->err, SDX_ERR_USAGE, "token %lld: %lld is no row of %s%s with its %lld rows",
                                 (long long)t, (long long)id, f->scope, name, (long long)table->dim[0]);
            return;
        }
        for (int64_t i = 0; i < width; i++) x[t * width + i] += load(table, id * width + i);
    }
}

const int64_t *sdx_forward_positions_of_tokens(sdx_forward *f, int64_t pad)
{
    int64_t *position =
        f->status == SDX_OK ? sdx_arena_array(f->arena, (size_t)f->count, sizeof *position) : NULL;
    int64_t tokens = 0;
    if (f->status == SDX_OK && !position)
        f->status = sdx_fail_memory(f->err, (size_t)f->count * sizeof *position);
    for (int64_t t = 0; position && t < f->count; t++) position[t] = pad + (f->ids[t] == pad ? 0 : ++tokens);
    return position;
}

/* ---- attention ------------------------------------------------------------------------------------------- */

static void softmax(double *x, int64_t n)
{
    double largest = x[0], sum = 0;
    for (int64_t i = 1; i < n; i++) largest = fmax(largest, x[i]);
    for (int64_t i = 0; i < n; i++) sum += x[i] = exp(x[i] - largest);
    for (int64_t i = 0; i < n; i++) x[i] /= sum;
}

static double dot(const double *x, const double *y, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i] * y[i];
    return sum;
}

double *sdx_forward_attention_to(sdx_forward *f, const double *q, const double *k, const double *v, int64_t keys,
                                 int64_t heads, int64_t size, double divisor, const double *bias)
{
    int64_t S = f->count, H = heads * size;
    double *y = sdx_forward_alloc(f, S * H), *p = sdx_forward_alloc(f, keys);
    if (f->status != SDX_OK) return NULL;
    for (int64_t h = 0; h < heads; h++) {
        for (int64_t t = 0; t < S; t++) {
            int64_t at = t * H + h * size;
            for (int64_t s = 0; s < keys; s++) {
                p[s] = dot(q + at, k + s * H + h * size, size) / divisor;
                if (bias) p[s] += bias[(h * S + t) * keys + s];
            }
            softmax(p, keys);
            for (int64_t s = 0; s < keys; s++)
                for (int64_t i = 0; i < size; i++) y[at + i] += p[s] * v[s * H + h * size + i];
        }
    }
    return y;
}

double *sdx_forward_attention(sdx_forward *f, const double *q, const double *k, const double *v, int64_t heads,
                              int64_t size, double divisor, const double *bias)
{
    return sdx_forward_attention_to(f, q, k, v, f->count, heads, size, divisor, bias);
}

double *sdx_forward_splade(sdx_forward *f, const double *logits, int64_t vocab)
{
    double *y = sdx_forward_alloc(f, vocab);
    for (int64_t t = 0; f->status == SDX_OK && t < f->count; t++)
        for (int64_t i = 0; i < vocab; i++) y[i] = fmax(y[i], log1p(fmax(logits[t * vocab + i], 0)));
    return y;
}
