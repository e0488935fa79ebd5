/* signal.c: DFT and STFT over the transforms of fourier.h, the window functions, and the mel filter bank. A
 * complex tensor has a last dim of 2, a real one of 1. Everything is computed in double.
 */
#include <math.h>
#include <string.h>

#include "compute.h"
#include "contents.h"
#include "fourier.h"
#include "lanes.h"

/* ---- scalars that decide shapes ---------------------------------------------------------------------- */

/* Input i when it is one known integer; missing when it is absent. False: not known yet. */
static bool known_scalar(sdx_infer *x, int i, int64_t missing, int64_t *out)
{
    int n;
    *out = missing;
    if (!sdx_infer_has(x, i)) return true;
    const sdx_element *e = sdx_infer_contents(x, i, &n);
    if (!e || n != 1 || !sdx_element_is_number(e[0])) return false;
    *out = e[0].number;
    return true;
}

static sdx_status run_scalar(const sdx_run *r, int i, int64_t missing, int64_t *out)
{
    *out = missing;
    if (!sdx_run_has_in(r, i)) return SDX_OK;
    if (sdx_tensor_count(&r->in[i]) != 1)
        return sdx_fail(r->err, SDX_ERR_USAGE, "input %d must be one number", i);
    *out = sdx_tensor_index(&r->in[i], 0);
    return SDX_OK;
}

static sdx_status want_integer(const sdx_infer *x, int i, const char *name)
{
    return sdx_want_dtype(x, i, name, SDX_SET(SDX_I32) | SDX_SET(SDX_I64));
}

static sdx_status want_complex(const sdx_infer *x)
{
    sdx_dim last = sdx_type_dim(&x->in[0], -1);
    TRY(sdx_want_dtype(x, 0, "the input", SDX_SET_FLOAT));
    TRY(sdx_want_rank(x, 0, "the input", 2, SDX_MAX_RANK));
    if (!sdx_dim_is_known(last) || last == 1 || last == 2) return SDX_OK;
    return sdx_fail(x->err, SDX_ERR_USAGE, "the last dimension is %lld, but must be 1 (real) or 2 (complex)",
                    (long long)last);
}

static double number_at(const sdx_tensor *t, int64_t i)
{
    return sdx_tensor_get_f64(t, i);
}

static void store_number(const sdx_tensor *t, int64_t i, double x)
{
    sdx_lane lane = {.f = x};
    sdx_lanes_convert(SDX_LANE_F, t->dtype, 1, &lane);
    sdx_lanes_store(t->dtype, &lane, 1, t->data, i);
}

/* ---- the transforms' memory: tables for all, then n numbers and scratch for each worker -------------- */

typedef struct transform {
    sdx_fourier fourier;
    char *own; /* workers' parts */
    size_t own_bytes;
} transform;

static sdx_status plan_transform(sdx_plan_step *p, int64_t n)
{
    size_t tables, scratch, own = 0;
    bool fits = sdx_fourier_bytes(n, &tables, &scratch) &&
                sdx_workspace_add(&own, (size_t)n, sizeof(sdx_complex)) &&
                sdx_workspace_add(&own, scratch, 1) && sdx_workspace_add(&p->workspace, tables, 1) &&
                sdx_workspace_add(&p->workspace, (size_t)p->threads, own);
    return fits ? SDX_OK : sdx_workspace_fail(p->err);
}

static sdx_status begin_transform(const sdx_run *r, int64_t n, transform *t)
{
    size_t tables, scratch;
    if (n < 1 || !sdx_fourier_bytes(n, &tables, &scratch))
        return sdx_fail(r->err, SDX_ERR_USAGE, "a transform of length %lld", (long long)n);
    char *at = r->workspace;
    sdx_fourier_init(&t->fourier, n, sdx_workspace_take(&at, tables));
    t->own = at;
    t->own_bytes = sdx_align_up((size_t)n * sizeof(sdx_complex)) + sdx_align_up(scratch);
    return SDX_OK;
}

static sdx_complex *own_numbers(const transform *t, int worker, void **scratch)
{
    char *own = t->own + (size_t)worker * t->own_bytes;
    *scratch = own + sdx_align_up((size_t)t->fourier.n * sizeof(sdx_complex));
    return (sdx_complex *)(void *)own;
}

/* Element i of a complex or real tensor seen as pairs or singles. */
static sdx_complex complex_at(const sdx_tensor *t, int64_t i, int64_t parts)
{
    return (sdx_complex){number_at(t, i * parts), parts == 2 ? number_at(t, i * 2 + 1) : 0};
}

/* ---- DFT: the length is input 1; the axis an attribute before opset 20 and input 2 since ------------- */

typedef struct dft {
    bool inverse, onesided;
    int64_t length; /* SDX_DIM_UNKNOWN: not known yet */
    int axis;
} dft;

static dft read_dft(const sdx_node *node)
{
    return (dft){.inverse = sdx_node_int(node, "inverse", 0) != 0,
                 .onesided = sdx_node_int(node, "onesided", 0) != 0};
}

static sdx_status settle_axis(dft *d, int64_t axis, int rank, sdx_error *err)
{
    TRY(sdx_axis_normalize(axis, rank, &d->axis, err));
    if (d->axis < rank - 1) return SDX_OK;
    return sdx_fail(err, SDX_ERR_USAGE, "axis %lld is the last one, which holds the parts of a number",
                    (long long)axis);
}

static int64_t usual_length(const dft *d, int64_t dim)
{
    if (dim < 0) return SDX_DIM_UNKNOWN;
    return d->inverse && d->onesided ? 2 * (dim > 0 ? dim - 1 : 0) : dim;
}

static sdx_status infer_dft(sdx_infer *x)
{
    dft d = read_dft(x->node);
    TRY(want_complex(x));
    TRY(want_integer(x, 1, "the length"));
    TRY(want_integer(x, 2, "the axis"));
    if (d.onesided && !d.inverse && sdx_type_dim(&x->in[0], -1) == 2)
        return sdx_fail(x->err, SDX_ERR_USAGE, "a one-sided transform needs real input");
    sdx_shape out = x->in[0].shape;
    int64_t axis, length;
    bool old = x->node->def && x->node->def->since < 20;
    x->out[0].dtype = x->in[0].dtype;
    if (out.rank < 0) return SDX_OK;
    if (!known_scalar(x, 2, old ? sdx_node_int(x->node, "axis", 1) : -2, &axis)) {
        for (int i = 0; i < out.rank - 1; i++) out.dim[i] = SDX_DIM_UNKNOWN;
    } else {
        TRY(settle_axis(&d, axis, out.rank, x->err));
        if (!known_scalar(x, 1, usual_length(&d, out.dim[d.axis]), &length))
            length = SDX_DIM_UNKNOWN;
        else if (sdx_infer_has(x, 1) && length < 0)
            return sdx_fail(x->err, SDX_ERR_USAGE, "the length is %lld", (long long)length);
        out.dim[d.axis] = d.onesided && !d.inverse && length >= 0 ? length / 2 + 1 : length;
    }
    out.dim[out.rank - 1] = d.inverse && d.onesided ? 1 : 2;
    sdx_infer_set(x, 0, x->in[0].dtype, &out);
    return SDX_OK;
}

static sdx_status plan_dft(sdx_plan_step *p)
{
    dft d = read_dft(p->node);
    const sdx_shape *in = &p->in[0].shape, *out = &p->out[0].shape;
    int64_t n = 0; /* the longest that any axis can be: the axis itself is a value */
    for (int i = 0; i < out->rank - 1; i++) {
        int64_t m = d.onesided && !d.inverse ? 2 * (out->dim[i] > 0 ? out->dim[i] - 1 : 0) + 1 : out->dim[i];
        if (out->dim[i] > INT32_MAX) return sdx_workspace_fail(p->err);
        if (out->dim[i] != in->dim[i] && m > n) n = m;
    }
    for (int i = 0; i < in->rank - 1; i++)
        if (in->dim[i] > n) n = in->dim[i];
    TRY(plan_transform(p, n));
    return SDX_OK;
}

typedef struct dft_call {
    const sdx_tensor *x, *y;
    dft d;
    transform t;
    int64_t dim, inner, parts, out_dim, out_parts;
} dft_call;

/* The numbers along one fibre, cut or padded to the length; a one-sided spectrum is mirrored. */
static void load_fibre(const dft_call *c, int64_t outer, int64_t inner, sdx_complex *v)
{
    int64_t n = c->d.length;
    for (int64_t k = 0; k < n; k++) {
        bool mirrored = c->d.inverse && c->d.onesided && k > n / 2;
        int64_t from = mirrored ? n - k : k;
        v[k] = (sdx_complex){0, 0};
        if (from < c->dim) v[k] = complex_at(c->x, (outer * c->dim + from) * c->inner + inner, c->parts);
        if (mirrored) v[k].im = -v[k].im;
    }
}

static void dft_range(void *context, int64_t begin, int64_t end, int worker)
{
    const dft_call *c = context;
    void *scratch;
    sdx_complex *v = own_numbers(&c->t, worker, &scratch);
    double scale = c->d.inverse ? 1 / (double)c->d.length : 1;
    for (int64_t f = begin; f < end; f++) {
        int64_t outer = f / c->inner, inner = f % c->inner;
        load_fibre(c, outer, inner, v);
        sdx_fourier_run(&c->t.fourier, c->d.inverse, v, scratch);
        for (int64_t k = 0; k < c->out_dim; k++) {
            int64_t to = ((outer * c->out_dim + k) * c->inner + inner) * c->out_parts;
            store_number(c->y, to, v[k].re * scale);
            if (c->out_parts == 2) store_number(c->y, to + 1, v[k].im * scale);
        }
    }
}

static sdx_status run_dft(sdx_run *r)
{
    sdx_shape in = sdx_run_shape(r, 0), out = sdx_tensor_shape(&r->out[0]);
    bool old = r->node->def && r->node->def->since < 20;
    dft_call c = {.x = &r->in[0], .y = &r->out[0], .d = read_dft(r->node)};
    int64_t axis;
    TRY(run_scalar(r, 2, old ? sdx_node_int(r->node, "axis", 1) : -2, &axis));
    TRY(settle_axis(&c.d, axis, in.rank, r->err));
    TRY(run_scalar(r, 1, usual_length(&c.d, in.dim[c.d.axis]), &c.d.length));
    if (sdx_tensor_count(&r->out[0]) == 0) return SDX_OK;
    TRY(begin_transform(r, c.d.length, &c.t));
    c.dim = in.dim[c.d.axis];
    c.out_dim = out.dim[c.d.axis];
    c.parts = in.dim[in.rank - 1];
    c.out_parts = out.dim[out.rank - 1];
    c.inner = sdx_shape_span(&in, c.d.axis + 1, in.rank - 1);
    int64_t fibres = sdx_shape_span(&in, 0, c.d.axis) * c.inner;
    sdx_parallel_for(r->threads, fibres, sdx_row_grain(c.d.length * 16), dft_range, &c);
    return SDX_OK;
}

/* ---- STFT: signal [B,S,1|2], step, window [L], L -> [B, frames, L or L/2+1, 2] ----------------------- */

enum { SIGNAL, STEP, WINDOW, LENGTH };

static bool is_onesided(const sdx_node *node)
{
    return sdx_node_int(node, "onesided", 1) != 0;
}

static sdx_status frame_count(int64_t signal, int64_t length, int64_t step, int64_t *out, sdx_error *err)
{
    if (step < 1 || length < 1 || length > signal)
        return sdx_fail(err, SDX_ERR_USAGE,
                        "frames of length %lld every %lld do not fit a signal of length %lld",
                        (long long)length, (long long)step, (long long)signal);
    *out = (signal - length) / step + 1;
    return SDX_OK;
}

static sdx_status infer_stft(sdx_infer *x)
{
    TRY(want_complex(x));
    TRY(sdx_want_rank(x, SIGNAL, "the signal", 3, 3));
    TRY(want_integer(x, STEP, "frame_step"));
    TRY(sdx_want_same_dtype(x, WINDOW, "the window", SIGNAL, "the signal"));
    TRY(sdx_want_rank(x, WINDOW, "the window", 1, 1));
    TRY(want_integer(x, LENGTH, "frame_length"));
    if (is_onesided(x->node) && sdx_type_dim(&x->in[0], -1) == 2)
        return sdx_fail(x->err, SDX_ERR_USAGE, "a one-sided transform needs a real signal");
    sdx_dim signal = sdx_type_dim(&x->in[SIGNAL], 1);
    int64_t step, length, usual = sdx_infer_has(x, WINDOW) ? sdx_type_dim(&x->in[WINDOW], 0) : signal;
    bool known = known_scalar(x, LENGTH, usual, &length) && length >= 0;
    if (known && sdx_infer_has(x, WINDOW)) TRY(sdx_want_dim(x, WINDOW, "the window", 0, length));
    sdx_shape out = {.rank = 4, .dim = {sdx_type_dim(&x->in[SIGNAL], 0), SDX_DIM_UNKNOWN, SDX_DIM_UNKNOWN, 2}};
    if (known) out.dim[2] = is_onesided(x->node) ? length / 2 + 1 : length;
    if (known && known_scalar(x, STEP, 1, &step) && sdx_dim_is_known(signal))
        TRY(frame_count(signal, length, step, &out.dim[1], x->err));
    sdx_infer_set(x, 0, x->in[0].dtype, &out);
    return SDX_OK;
}

static sdx_status plan_stft(sdx_plan_step *p)
{
    int64_t bins = p->out[0].shape.dim[2];
    if (bins > INT32_MAX) return sdx_workspace_fail(p->err);
    return plan_transform(p,
                          is_onesided(p->node) ? 2 * bins : bins); /* a frame is shorter than twice its bins */
}

typedef struct stft_call {
    const sdx_tensor *x, *window, *y; /* window NULL: all ones */
    transform t;
    int64_t signal, step, length, frames, bins, parts;
} stft_call;

static void stft_range(void *context, int64_t begin, int64_t end, int worker)
{
    const stft_call *c = context;
    void *scratch;
    sdx_complex *v = own_numbers(&c->t, worker, &scratch);
    for (int64_t f = begin; f < end; f++) {
        int64_t first = f / c->frames * c->signal + f % c->frames * c->step;
        for (int64_t k = 0; k < c->length; k++) {
            double w = c->window ? number_at(c->window, k) : 1;
            v[k] = complex_at(c->x, first + k, c->parts);
            v[k] = (sdx_complex){v[k].re * w, v[k].im * w};
        }
        sdx_fourier_run(&c->t.fourier, false, v, scratch);
        for (int64_t k = 0; k < c->bins; k++) {
            store_number(c->y, (f * c->bins + k) * 2, v[k].re);
            store_number(c->y, (f * c->bins + k) * 2 + 1, v[k].im);
        }
    }
}

static sdx_status run_stft(sdx_run *r)
{
    const sdx_tensor *x = &r->in[SIGNAL], *y = &r->out[0];
    stft_call c = {
        .x = x, .y = y, .signal = x->dim[1], .parts = x->dim[2], .frames = y->dim[1], .bins = y->dim[2]};
    if (sdx_run_has_in(r, WINDOW)) c.window = &r->in[WINDOW];
    TRY(run_scalar(r, STEP, 1, &c.step));
    TRY(run_scalar(r, LENGTH, c.window ? c.window->dim[0] : c.signal, &c.length));
    if (c.window && c.window->dim[0] != c.length)
        return sdx_fail(r->err, SDX_ERR_USAGE, "the window has %lld elements, a frame %lld",
                        (long long)c.window->dim[0], (long long)c.length);
    if (sdx_tensor_count(y) == 0) return SDX_OK;
    TRY(begin_transform(r, c.length, &c.t));
    sdx_parallel_for(r->threads, y->dim[0] * c.frames, sdx_row_grain(c.length * 16), stft_range, &c);
    return SDX_OK;
}

/* ---- windows: sums of cosines ------------------------------------------------------------------------ */

static sdx_status read_output_type(const sdx_infer *x, sdx_dtype *out)
{
    *out = (sdx_dtype)sdx_node_int(x->node, "output_datatype", SDX_F32);
    if (sdx_dtype_is_float(*out) || sdx_dtype_is_integer(*out)) return SDX_OK;
    return sdx_fail(x->err, SDX_ERR_UNSUPPORTED, "output_datatype %lld is not a numeric type",
                    (long long)sdx_node_int(x->node, "output_datatype", SDX_F32));
}

static sdx_status infer_window(sdx_infer *x)
{
    sdx_dtype dtype;
    TRY(read_output_type(x, &dtype));
    TRY(want_integer(x, 0, "the size"));
    sdx_shape out = {.rank = 1, .dim = {SDX_DIM_UNKNOWN}};
    int64_t size;
    if (known_scalar(x, 0, 0, &size)) TRY(sdx_infer_dim(x, sdx_element_number(size), &out.dim[0]));
    sdx_infer_set(x, 0, dtype, &out);
    return SDX_OK;
}

/* w(k) = a0 - a1 cos(2 pi k / n) + a2 cos(4 pi k / n); n is the size, or one less for a symmetric window. */
static sdx_status run_window(sdx_run *r, double a0, double a1, double a2)
{
    const sdx_tensor *y = &r->out[0];
    bool periodic = sdx_node_int(r->node, "periodic", 1) != 0;
    double n = (double)(periodic ? y->dim[0] : y->dim[0] - 1);
    for (int64_t k = 0; k < y->dim[0]; k++) {
        double angle = 2 * 3.14159265358979323846 * (double)k / n;
        store_number(y, k, a0 - a1 * cos(angle) + a2 * cos(2 * angle));
    }
    return SDX_OK;
}

static sdx_status run_hann(sdx_run *r)
{
    return run_window(r, 0.5, 0.5, 0);
}
static sdx_status run_hamming(sdx_run *r)
{
    return run_window(r, 25.0 / 46, 21.0 / 46, 0);
}
static sdx_status run_blackman(sdx_run *r)
{
    return run_window(r, 0.42, 0.5, 0.08);
}

/* ---- MelWeightMatrix: triangles between edges that lie evenly on the mel scale ----------------------- */

enum { BINS, DFT_LENGTH, RATE, LOWER, UPPER };

static sdx_status infer_mel(sdx_infer *x)
{
    sdx_dtype dtype;
    TRY(read_output_type(x, &dtype));
    for (int i = BINS; i <= RATE; i++) TRY(want_integer(x, i, i == BINS ? "num_mel_bins" : "a size"));
    for (int i = LOWER; i <= UPPER; i++) TRY(sdx_want_dtype(x, i, "an edge", SDX_SET_FLOAT));
    sdx_shape out = {.rank = 2, .dim = {SDX_DIM_UNKNOWN, SDX_DIM_UNKNOWN}};
    int64_t bins, length;
    if (known_scalar(x, BINS, 0, &bins)) TRY(sdx_infer_dim(x, sdx_element_number(bins), &out.dim[1]));
    if (known_scalar(x, DFT_LENGTH, 0, &length))
        TRY(sdx_infer_dim(x, sdx_element_number(length < 0 ? length : length / 2 + 1), &out.dim[0]));
    sdx_infer_set(x, 0, dtype, &out);
    return SDX_OK;
}

/* m(f) = 2595 log10(1 + f/700), and back. */
static double mel(double hertz)
{
    return 2595 * log10(1 + hertz / 700);
}
static double hertz(double mels)
{
    return 700 * (pow(10, mels / 2595) - 1);
}

/* Row of the matrix in which edge i lies. */
static double edge_row(int64_t i, int64_t bins, double length, double rate, double low, double high)
{
    double step = (high - low) / (double)(bins + 2);
    return floor((length + 1) * hertz(low + (double)i * step) / rate);
}

static sdx_status run_mel(sdx_run *r)
{
    const sdx_tensor *y = &r->out[0];
    int64_t length, rate, rows = y->dim[0], bins = y->dim[1];
    TRY(run_scalar(r, DFT_LENGTH, 0, &length));
    TRY(run_scalar(r, RATE, 0, &rate));
    for (int i = LOWER; i <= UPPER; i++)
        if (sdx_tensor_count(&r->in[i]) != 1)
            return sdx_fail(r->err, SDX_ERR_USAGE, "input %d must be one number", i);
    double low = mel(number_at(&r->in[LOWER], 0)), high = mel(number_at(&r->in[UPPER], 0)), edge[3];
    if (rate < 1 || !isfinite(low) || !isfinite(high))
        return sdx_fail(r->err, SDX_ERR_USAGE, "the sample rate or an edge makes no sense");
    for (int64_t b = 0; b < bins; b++) {
        for (int i = 0; i < 3; i++) edge[i] = edge_row(b + i, bins, (double)length, (double)rate, low, high);
        for (int64_t j = 0; j < rows; j++) {
            double at = (double)j, w = 0;
            if (at >= edge[1] && at < edge[2])
                w = (edge[2] - at) / (edge[2] - edge[1]);
            else if (at >= edge[0] && at <= edge[1])
                w = edge[0] == edge[1] ? 1 : (at - edge[0]) / (edge[1] - edge[0]);
            store_number(y, j * bins + b, w);
        }
    }
    return SDX_OK;
}

static const sdx_op_def rows[] = {
    {"", "DFT", 17, 19, 1, 2, 1, 1, 0, infer_dft, NULL, plan_dft, run_dft},
    {"", "DFT", 20, 0, 1, 3, 1, 1, 0, infer_dft, NULL, plan_dft, run_dft},
    {"", "STFT", 17, 0, 2, 4, 1, 1, 0, infer_stft, NULL, plan_stft, run_stft},
    {"", "HannWindow", 17, 0, 1, 1, 1, 1, 0, infer_window, NULL, NULL, run_hann},
    {"", "HammingWindow", 17, 0, 1, 1, 1, 1, 0, infer_window, NULL, NULL, run_hamming},
    {"", "BlackmanWindow", 17, 0, 1, 1, 1, 1, 0, infer_window, NULL, NULL, run_blackman},
    {"", "MelWeightMatrix", 17, 0, 5, 5, 1, 1, 0, infer_mel, NULL, NULL, run_mel},
};

SDX_OP_TABLE(signal);
