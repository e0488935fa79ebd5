/* wav2vec2_reference.c: wav2vec 2.0 and HuBERT as plain arithmetic, in double, which shares names but no step with
 * the graph of wav2vec2.c. */
#include <math.h>

#include "wav2vec2.h"

typedef struct convolution {
    int64_t in, out, kernel, stride, groups, pad; /* pad: in front */
} convolution;

/* y [T', out] from x [T, in], weight [out, in / groups, kernel]; bias may be NULL */
static double *convolve(sdx_forward *f, const convolution *c, const double *w, const double *bias,
                        const double *x, int64_t T, int64_t frames)
{
    int64_t in = c->in / c->groups, out = c->out / c->groups;
    double *y = sdx_forward_alloc(f, frames * c->out);
    for (int64_t o = 0; f->status == SDX_OK && o < c->out; o++) {
        for (int64_t t = 0; t < frames; t++) {
            double sum = bias ? bias[o] : 0;
            for (int64_t k = 0; k < c->kernel; k++) {
                int64_t at = t * c->stride + k - c->pad;
                if (at < 0 || at >= T) continue;
                for (int64_t i = 0; i < in; i++)
                    sum += w[(o * in + i) * c->kernel + k] * x[at * c->in + o / out * in + i];
            }
            y[t * c->out + o] = sum;
        }
    }
    return y;
}

/* Each column of x [T, C] to mean 0 and deviation 1, then scaled and shifted. */
static void forward_group_norm(sdx_forward *f, double *x, int64_t T, int64_t C)
{
    const double *scale = sdx_forward_weight(f, "layer_norm.weight"),
                 *shift = sdx_forward_weight(f, "layer_norm.bias");
    for (int64_t c = 0; f->status == SDX_OK && c < C; c++) {
        double mean = 0, variance = 0;
        for (int64_t t = 0; t < T; t++) mean += x[t * C + c] / (double)T;
        for (int64_t t = 0; t < T; t++) variance += (x[t * C + c] - mean) * (x[t * C + c] - mean) / (double)T;
        for (int64_t t = 0; t < T; t++)
            x[t * C + c] = (x[t * C + c] - mean) / sqrt(variance + PLAIN_NORM_EPSILON) * scale[c] + shift[c];
    }
}

/* Sets f->count to the number of frames. -> [S, H] */
static double *forward_features(sdx_forward *f, const sdx_settings *s)
{
    int64_t T = f->count;
    double *x = sdx_forward_alloc(f, T);
    for (int64_t t = 0; f->status == SDX_OK && t < T; t++) x[t] = (double)f->values[t];
    for (int64_t i = 0; i < s->convolutions; i++) {
        convolution c = {
            i ? s->conv_width[i - 1] : 1, s->conv_width[i], s->conv_kernel[i], s->conv_stride[i], 1, 0};
        int64_t frames = (T - c.kernel) / c.stride + 1;
        sdx_forward_scope(f, CONV "%d.", (int)i);
        const double *bias = f->parts & CONV_BIAS ? sdx_forward_weight(f, "conv.bias") : NULL;
        x = convolve(f, &c, sdx_forward_weight(f, "conv.weight"), bias, x, T, frames);
        T = frames;
        if (s->layer_normed)
            sdx_forward_layer_norm(f, "layer_norm", x, T, PLAIN_NORM_EPSILON);
        else if (i == 0)
            forward_group_norm(f, x, T, c.out);
        sdx_forward_activation(f, x, T * c.out, s->conv_activation);
    }
    f->count = T;
    sdx_forward_scope(f, "feature_projection.");
    if (s->projection_norm) sdx_forward_layer_norm(f, "layer_norm", x, T, s->norm_epsilon);
    x = sdx_forward_linear(f, "projection", x, T);
    sdx_forward_scope(f, "%s", "");
    return x;
}

/* g v / |v| as doubles; v [H, D, K] is changed. */
static const double *forward_position_weight(sdx_forward *f, const sdx_settings *s)
{
    const double *g = sdx_forward_weight(f, sdx_wav2vec2_norm_name(f->parts, true));
    double *v = sdx_forward_weight(f, sdx_wav2vec2_norm_name(f->parts, false));
    int64_t K = s->kernel, n = s->hidden * (s->hidden / s->groups);
    for (int64_t k = 0; f->status == SDX_OK && k < K; k++) {
        double sum = 0;
        for (int64_t i = 0; i < n; i++) sum += v[i * K + k] * v[i * K + k];
        for (int64_t i = 0; i < n; i++) v[i * K + k] *= g[k] / sqrt(sum);
    }
    return v;
}

/* x [S, H] as the running statistics have it, scaled and shifted */
static const double *forward_batch_norm(sdx_forward *f, const sdx_settings *s, const double *x)
{
    const double *scale = sdx_forward_weight(f, BATCH ".weight"), *shift = sdx_forward_weight(f, BATCH ".bias"),
                 *mean = sdx_forward_weight(f, BATCH ".running_mean"),
                 *variance = sdx_forward_weight(f, BATCH ".running_var");
    double *y = sdx_forward_alloc(f, f->count * s->hidden);
    for (int64_t i = 0, c = 0; f->status == SDX_OK && i < f->count * s->hidden; i++, c = i % s->hidden)
        y[i] = (x[i] - mean[c]) / sqrt(variance[c] + PLAIN_NORM_EPSILON) * scale[c] + shift[c];
    return y;
}

static void forward_positions(sdx_forward *f, const sdx_settings *s, double *x)
{
    convolution c = {s->hidden, s->hidden, s->kernel, 1, s->groups, s->kernel / 2};
    bool batch = f->parts & BATCH_NORM;
    const double *w = batch ? sdx_forward_weight(f, POSITION ".weight") : forward_position_weight(f, s);
    const double *bias = sdx_forward_weight(f, POSITION ".bias"), *in = batch ? forward_batch_norm(f, s, x) : x;
    double *y = convolve(f, &c, w, bias, in, f->count, f->count);
    sdx_forward_activation(f, y, f->count * s->hidden, s->conv_activation);
    sdx_forward_add(f, x, y, f->count * s->hidden);
}

static void forward_layer_adapter(sdx_forward *f, const sdx_settings *s, double *x)
{
    double *y = sdx_forward_alloc(f, f->count * s->hidden);
    sdx_forward_add(f, y, x, f->count * s->hidden);
    sdx_forward_layer_norm(f, "adapter_layer.norm", y, f->count, PLAIN_NORM_EPSILON);
    y = sdx_forward_linear(f, "adapter_layer.linear_1", y, f->count);
    sdx_forward_activation(f, y, f->count * s->adapter, SDX_RELU);
    sdx_forward_add(f, x, sdx_forward_linear(f, "adapter_layer.linear_2", y, f->count), f->count * s->hidden);
}

static void forward_layer(sdx_forward *f, const sdx_settings *s, double *x, const double *bias)
{
    const sdx_layer_names *n = &sdx_wav2vec2_layer;
    if (s->stable_norm)
        sdx_forward_pre_norm_layer(f, s, n, x, bias);
    else
        sdx_forward_after_attention(f, s, n, x, sdx_forward_self_attention(f, s, n, x, bias));
    if (f->parts & LAYER_ADAPTERS) forward_layer_adapter(f, s, x);
}

static void forward_norm(sdx_forward *f, const sdx_settings *s, double *x)
{
    sdx_forward_scope(f, "%s", "");
    sdx_forward_layer_norm(f, "encoder.layer_norm", x, f->count, s->norm_epsilon);
}

static double *forward_embeddings(sdx_forward *f, const sdx_settings *s)
{
    double *x = forward_features(f, s);
    forward_positions(f, s, x);
    if (!s->stable_norm) forward_norm(f, s, x);
    return x;
}

static double *forward_last_layer(sdx_forward *f, const sdx_settings *s)
{
    double *x = forward_embeddings(f, s);
    sdx_forward_layers(f, s, "encoder.layers.", forward_layer, x, NULL);
    if (s->stable_norm) forward_norm(f, s, x);
    return x;
}

/* sum [S, H] += exp(weight) x */
static void add_share(sdx_forward *f, const sdx_settings *s, double *sum, const double *x, double weight)
{
    for (int64_t i = 0; f->status == SDX_OK && i < f->count * s->hidden; i++) sum[i] += exp(weight) * x[i];
}

static double *forward_layer_sum(sdx_forward *f, const sdx_settings *s)
{
    double *x = forward_embeddings(f, s), *sum = sdx_forward_alloc(f, f->count * s->hidden), total = 0;
    const double *weight = sdx_forward_weight(f, "layer_weights");
    for (int64_t i = 0; f->status == SDX_OK && i <= s->layers; i++) {
        sdx_forward_scope(f, "encoder.layers.%d.", (int)i - 1);
        if (i) forward_layer(f, s, x, NULL);
        if (i == s->layers && s->stable_norm) forward_norm(f, s, x);
        add_share(f, s, sum, x, weight[i]);
        total += exp(weight[i]);
    }
    sdx_forward_scope(f, "%s", "");
    for (int64_t i = 0; f->status == SDX_OK && i < f->count * s->hidden; i++) sum[i] /= total;
    return sum;
}

static double *forward_frames(sdx_forward *f, const sdx_settings *s)
{
    return f->parts & LAYER_SUM ? forward_layer_sum(f, s) : forward_last_layer(f, s);
}

/* x [S, O] -> [S', O]; sets f->count */
static double *forward_adapter_layer(sdx_forward *f, const sdx_settings *s, int64_t i, const double *x)
{
    const int64_t O = s->output, frames = (f->count + 2 * ADAPTER_PAD - s->adapter_kernel) / s->adapter_stride + 1;
    const convolution c = {O, 2 * O, s->adapter_kernel, s->adapter_stride, 1, ADAPTER_PAD};
    sdx_forward_scope(f, ADAPTER_CONV "%d.", (int)i);
    const double *w = sdx_forward_weight(f, "conv.weight"), *bias = sdx_forward_weight(f, "conv.bias");
    const double *both = convolve(f, &c, w, bias, x, f->count, frames);
    double *y = sdx_forward_alloc(f, frames * O);
    for (int64_t k = 0; f->status == SDX_OK && k < frames * O; k++) {
        const double *row = both + k / O * 2 * O;
        y[k] = row[k % O] / (1 + exp(-row[O + k % O]));
    }
    f->count = frames;
    return y;
}

static double *forward_body(sdx_forward *f, const sdx_settings *s)
{
    double *x = forward_last_layer(f, s);
    if (f->parts & ADAPTER_PROJECTION) {
        x = sdx_forward_linear(f, "adapter.proj", x, f->count);
        sdx_forward_layer_norm(f, "adapter.proj_layer_norm", x, f->count, PLAIN_NORM_EPSILON);
    }
    for (int64_t i = 0; f->parts & ADAPTER && i < s->adapter_layers; i++) x = forward_adapter_layer(f, s, i, x);
    sdx_forward_scope(f, "%s", "");
    return x;
}

static const double *set_result(sdx_forward *f, const double *x, int64_t width)
{
    f->rank = 2;
    f->dim[0] = f->count;
    f->dim[1] = width;
    return x;
}

const double *sdx_wav2vec2_forward_model(sdx_forward *f, const sdx_settings *s)
{
    const double *x = forward_body(f, s);
    return set_result(f, x, s->output);
}

const double *sdx_wav2vec2_forward_ctc(sdx_forward *f, const sdx_settings *s)
{
    const double *x = forward_body(f, s);
    return set_result(f, sdx_forward_linear(f, "lm_head", x, f->count), s->vocab);
}

const double *sdx_wav2vec2_forward_sound_classifier(sdx_forward *f, const sdx_settings *s)
{
    int64_t E = s->embedding;
    const double *body = forward_frames(f, s), *x = sdx_forward_linear(f, "projector", body, f->count);
    double *mean = sdx_forward_alloc(f, E);
    for (int64_t i = 0; f->status == SDX_OK && i < f->count * E; i++) mean[i % E] += x[i] / (double)f->count;
    f->rank = 1;
    f->dim[0] = s->labels;
    return sdx_forward_linear(f, "classifier", mean, 1);
}

const double *sdx_wav2vec2_forward_frame_classifier(sdx_forward *f, const sdx_settings *s)
{
    const double *x = forward_frames(f, s);
    return set_result(f, sdx_forward_linear(f, "classifier", x, f->count), s->labels);
}
