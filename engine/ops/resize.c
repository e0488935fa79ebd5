/* resize.c: Resize and Upsample.
 *
 * Interpolation is separable: along each axis an output coordinate is a weighted sum of `taps` input
 * coordinates, found once per axis. An output row takes the rows it depends on, weighted by the product over
 * the outer axes, into one row of doubles, which is then interpolated along the last axis. Nearest neighbours
 * are copied, whatever their type. Coordinates are float32 as in ONNX Runtime: at ties the rounding decides
 * which neighbour is nearest.
 */
#include <math.h>
#include <string.h>

#include "compute.h"
#include "contents.h"
#include "copy.h"
#include "lanes.h"

typedef struct form {
    int roi, scales, sizes; /* input numbers; -1: none */
    bool upsample;          /* opset 10 and before: asymmetric coordinates, cut to a neighbour */
} form;

static const form form_7 = {-1, -1, -1, true}, form_9 = {-1, 1, -1, true}, form_11 = {1, 2, 3, false};

/* ---- attributes ------------------------------------------------------------------------------ */

enum mode { NEAREST, LINEAR, CUBIC };
enum coordinates {
    HALF_PIXEL,
    HALF_PIXEL_SYMMETRIC,
    PYTORCH_HALF_PIXEL,
    ALIGN_CORNERS,
    ASYMMETRIC,
    TF_HALF_PIXEL_FOR_NN,
    TF_CROP_AND_RESIZE
};
enum nearest { ROUND_PREFER_FLOOR, ROUND_PREFER_CEIL, FLOOR, CEIL, SIMPLE };
enum policy { STRETCH, NOT_LARGER, NOT_SMALLER };

static const char *const mode_name[] = {"nearest", "linear", "cubic", NULL};
static const char *const coordinates_name[] = {
    "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners",
    "asymmetric", "tf_half_pixel_for_nn", "tf_crop_and_resize", NULL};
static const char *const nearest_name[] = {"round_prefer_floor", "round_prefer_ceil", "floor", "ceil", NULL};
static const char *const policy_name[] = {"stretch", "not_larger", "not_smaller", NULL};

typedef struct options {
    int mode, coordinates, nearest, policy; /* of the enums above */
    bool antialias, exclude_outside;
    float cubic_a, extrapolation;
    int n_axes; /* -1: all */
    int axes[SDX_MAX_RANK];
} options;

static sdx_status read_name(const sdx_node *node, const char *attribute, const char *const *name, int *out,
                            sdx_error *err)
{
    const char *given = sdx_node_string(node, attribute, name[0]);
    for (int i = 0; name[i]; i++)
        if (!strcmp(given, name[i])) {
            *out = i;
            return SDX_OK;
        }
    return sdx_fail(err, SDX_ERR_UNSUPPORTED, "%s is \"%s\", which is not known", attribute, given);
}

static sdx_status read_axes(const sdx_node *node, int rank, options *o, sdx_error *err)
{
    size_t count;
    unsigned seen = 0;
    const int64_t *given = sdx_node_ints(node, "axes", &count);
    o->n_axes = -1;
    if (!given) return SDX_OK;
    if (count > (size_t)rank) return sdx_fail(err, SDX_ERR_FILE, "axes lists %zu axes of %d", count, rank);
    o->n_axes = (int)count;
    for (int i = 0; i < o->n_axes; i++) {
        TRY(sdx_axis_normalize(given[i], rank, &o->axes[i], err));
        if (seen & 1u << o->axes[i]) return sdx_fail(err, SDX_ERR_FILE, "axes names axis %d twice", o->axes[i]);
        seen |= 1u << o->axes[i];
    }
    return SDX_OK;
}

static sdx_status read_options(const sdx_node *node, const form *f, int rank, options *o, sdx_error *err)
{
    *o = (options){.coordinates = ASYMMETRIC, .nearest = SIMPLE, .n_axes = -1};
    TRY(read_name(node, "mode", mode_name, &o->mode, err));
    if (f->upsample) return SDX_OK;
    TRY(read_name(node, "coordinate_transformation_mode", coordinates_name, &o->coordinates, err));
    TRY(read_name(node, "nearest_mode", nearest_name, &o->nearest, err));
    TRY(read_name(node, "keep_aspect_ratio_policy", policy_name, &o->policy, err));
    o->antialias = sdx_node_int(node, "antialias", 0) != 0;
    o->exclude_outside = sdx_node_int(node, "exclude_outside", 0) != 0;
    o->cubic_a = sdx_node_float(node, "cubic_coeff_a", -0.75f);
    o->extrapolation = sdx_node_float(node, "extrapolation_value", 0);
    return read_axes(node, rank, o, err);
}

/* ---- sizes ----------------------------------------------------------------------------------- */

typedef struct sizes {
    int64_t out[SDX_MAX_RANK];
    float scale[SDX_MAX_RANK];
    bool resized[SDX_MAX_RANK];
} sizes;

static int axis_count(const options *o, int rank)
{
    return o->n_axes < 0 ? rank : o->n_axes;
}
static int axis_at(const options *o, int i)
{
    return o->n_axes < 0 ? i : o->axes[i];
}

static sdx_status check_length(const char *what, int64_t have, int want, sdx_error *err)
{
    if (have == want) return SDX_OK;
    return sdx_fail(err, SDX_ERR_USAGE, "%s has %lld numbers for %d axes", what, (long long)have, want);
}

static sdx_status from_scales(const options *o, const sdx_shape *x, const double *scale, int64_t count,
                              sizes *s, sdx_error *err)
{
    TRY(check_length("scales", count, axis_count(o, x->rank), err));
    for (int i = 0; i < count; i++) {
        int a = axis_at(o, i);
        float out = (float)scale[i] * (float)x->dim[a];
        if (!(scale[i] > 0) || !(out < 0x1p40f))
            return sdx_fail(err, SDX_ERR_USAGE, "a scale of %g for an axis of %lld", scale[i],
                            (long long)x->dim[a]);
        s->scale[a] = (float)scale[i];
        s->out[a] = (int64_t)out;
        s->resized[a] = true;
    }
    return SDX_OK;
}

static sdx_status from_sizes(const options *o, const sdx_shape *x, const int64_t *size, int64_t count, sizes *s,
                             sdx_error *err)
{
    TRY(check_length("sizes", count, axis_count(o, x->rank), err));
    float common = 0;
    for (int i = 0; i < count; i++) {
        int64_t in = x->dim[axis_at(o, i)];
        if (size[i] < 0 || size[i] > INT64_C(1) << 40 || (in == 0 && size[i] > 0))
            return sdx_fail(err, SDX_ERR_USAGE, "a size of %lld for an axis of %lld", (long long)size[i],
                            (long long)in);
        float scale = in ? (float)size[i] / (float)in : 1;
        bool better = o->policy == NOT_LARGER ? scale < common : scale > common;
        if (i == 0 || better) common = scale;
    }
    for (int i = 0; i < count; i++) {
        int a = axis_at(o, i);
        bool keep = o->policy != STRETCH;
        s->out[a] = keep ? (int64_t)floorf(common * (float)x->dim[a] + 0.5f) : size[i];
        s->scale[a] = keep ? common : x->dim[a] ? (float)size[i] / (float)x->dim[a] : 1;
        s->resized[a] = true;
    }
    return SDX_OK;
}

/* scales and sizes: NULL or empty when not given; Upsample-7 has them as an attribute. */
static sdx_status find_sizes(const sdx_node *node, const form *f, const options *o, const sdx_shape *x,
                             const sdx_tensor *scales, const sdx_tensor *given, sizes *s, sdx_error *err)
{
    double scale[SDX_MAX_RANK];
    int64_t size[SDX_MAX_RANK], count = 0;
    const sdx_attr *attr = f->scales < 0 ? sdx_node_attr(node, "scales") : NULL;
    for (int i = 0; i < x->rank; i++) {
        s->out[i] = x->dim[i];
        s->scale[i] = 1;
        s->resized[i] = false;
    }
    if (attr)
        count = (int64_t)attr->count;
    else if (scales)
        count = sdx_tensor_count(scales);
    if (count > SDX_MAX_RANK) return check_length("scales", count, axis_count(o, x->rank), err);
    if (count > 0 || f->sizes < 0 || !given) {
        for (int64_t i = 0; i < count; i++)
            scale[i] = attr ? (double)attr->floats[i] : sdx_tensor_get_f64(scales, i);
        return from_scales(o, x, scale, count, s, err);
    }
    count = sdx_tensor_count(given);
    if (count > SDX_MAX_RANK) return check_length("sizes", count, axis_count(o, x->rank), err);
    for (int64_t i = 0; i < count; i++) size[i] = sdx_tensor_index(given, i);
    return from_sizes(o, x, size, count, s, err);
}

/* ---- infer ----------------------------------------------------------------------------------- */

/* The output as far as it is known while the scales, the sizes or the input's dims are not. */
static sdx_status partial_shape(sdx_infer *infer, const form *f, const options *o, sdx_shape *y)
{
    sdx_shape given;
    int n = axis_count(o, y->rank);
    for (int i = 0; i < n; i++) y->dim[axis_at(o, i)] = SDX_DIM_UNKNOWN;
    if (f->sizes < 0 || !sdx_infer_has(infer, f->sizes) || o->policy != STRETCH) return SDX_OK;
    TRY(sdx_infer_shape_input(infer, f->sizes, &given));
    for (int i = 0; i < n && given.rank == n; i++) y->dim[axis_at(o, i)] = given.dim[i];
    return SDX_OK;
}

static const sdx_tensor *constant_in(const sdx_infer *infer, int i)
{
    return i >= 0 && sdx_infer_has(infer, i) ? infer->in[i].constant : NULL;
}

static bool is_given(const sdx_infer *infer, int i)
{
    return i >= 0 && sdx_infer_has(infer, i) && sdx_shape_count(&infer->in[i].shape) != 0;
}

static sdx_status infer_form(sdx_infer *infer, const form *f)
{
    const sdx_type *x = &infer->in[0];
    options o;
    infer->out[0].dtype = x->dtype;
    if (f->scales >= 0) TRY(sdx_want_dtype(infer, f->scales, "scales", SDX_SET(SDX_F32)));
    if (f->roi >= 0) TRY(sdx_want_dtype(infer, f->roi, "roi", SDX_SET_FLOAT));
    if (f->sizes >= 0) TRY(sdx_want_dtype(infer, f->sizes, "sizes", SDX_SET(SDX_I64)));
    if (x->shape.rank < 0) return SDX_OK;
    TRY(sdx_want_rank(infer, 0, "the input", 1, SDX_MAX_RANK));
    TRY(read_options(infer->node, f, x->shape.rank, &o, infer->err));
    bool computed = o.mode != NEAREST || o.coordinates == TF_CROP_AND_RESIZE;
    if (x->dtype && computed && sdx_dtype_lane(x->dtype) == SDX_LANE_NONE)
        return sdx_fail(infer->err, SDX_ERR_UNSUPPORTED, "%s cannot be interpolated", sdx_dtype_name(x->dtype));
    const sdx_tensor *scales = constant_in(infer, f->scales), *given = constant_in(infer, f->sizes);
    sdx_shape y = x->shape;
    bool known =
        (is_given(infer, f->scales) ? scales != NULL : f->scales < 0 || !is_given(infer, f->sizes) || given);
    if (!known || !sdx_shape_is_known(&x->shape)) {
        TRY(partial_shape(infer, f, &o, &y));
    } else {
        sizes s;
        TRY(find_sizes(infer->node, f, &o, &x->shape, scales, given, &s, infer->err));
        memcpy(y.dim, s.out, sizeof y.dim);
    }
    sdx_infer_set(infer, 0, x->dtype, &y);
    return SDX_OK;
}

/* ---- weights --------------------------------------------------------------------------------- */

typedef struct axis {
    int64_t in, out, taps;
    int64_t *index; /* [out, taps], clamped to [0, in) */
    float *weight;  /* [out, taps] */
    bool *outside;  /* [out]: takes the extrapolation value; NULL: none do */
} axis;

/* Taps on both sides of a coordinate, when the filter reaches `reach` outputs. */
static int64_t taps_of(const options *o, float scale)
{
    int64_t reach = o->mode == NEAREST ? 0 : o->mode == LINEAR ? 1 : 2;
    if (o->antialias && scale < 1) reach = (int64_t)ceilf((float)reach / scale);
    return reach ? 2 * reach : 1;
}

static float coordinate(const options *o, const axis *a, float scale, int64_t at, const float roi[2])
{
    float x = (float)at, in = (float)a->in, out = scale * in; /* out may have a fraction */
    switch (o->coordinates) {
    case HALF_PIXEL_SYMMETRIC: return in / 2 * (1 - (float)a->out / out) + (x + 0.5f) / scale - 0.5f;
    case PYTORCH_HALF_PIXEL: return a->out > 1 ? (x + 0.5f) / scale - 0.5f : 0;
    case ALIGN_CORNERS: return a->out > 1 ? x * (in - 1) / (out - 1) : 0;
    case ASYMMETRIC: return scale == (float)a->out / in ? x * in / (float)a->out : x / scale; /* rounded once */
    case TF_HALF_PIXEL_FOR_NN: return (x + 0.5f) / scale;
    case TF_CROP_AND_RESIZE:
        if (a->out <= 1) return 0.5f * (roi[0] + roi[1]) * (in - 1);
        return roi[0] * (in - 1) + x * (roi[1] - roi[0]) * (in - 1) / (float)(a->out - 1);
    default: return (x + 0.5f) / scale - 0.5f;
    }
}

static float nearest_to(int how, float x, float scale)
{
    switch (how) {
    case ROUND_PREFER_FLOOR: return x - floorf(x) == 0.5f ? floorf(x) : roundf(x);
    case ROUND_PREFER_CEIL: return roundf(x);
    case CEIL: return ceilf(x);
    case SIMPLE: return scale < 1 ? ceilf(x) : truncf(x);
    default: return floorf(x);
    }
}

/* The filter at distance x: a triangle, or R. Keys, Cubic convolution interpolation, 1981, eq. 4. */
static float filter(const options *o, float x)
{
    float a = o->cubic_a;
    x = fabsf(x);
    if (o->mode == LINEAR) return x < 1 ? 1 - x : 0;
    if (x <= 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    return x < 2 ? ((a * x - 5 * a) * x + 8 * a) * x - 4 * a : 0;
}

/* Weights of `taps` neighbours of x; the first is `*first`. */
static void weigh(const options *o, const axis *a, float x, float stretch, int64_t *first, float *weight)
{
    float sum = 0;
    *first = (int64_t)floorf(x) - a->taps / 2 + 1;
    for (int64_t t = 0; t < a->taps; t++) {
        int64_t at = *first + t;
        bool outside = at < 0 || at >= a->in;
        weight[t] = o->exclude_outside && outside ? 0 : filter(o, ((float)at - x) * stretch);
        sum += weight[t];
    }
    bool normal = !o->exclude_outside && stretch == 1;
    for (int64_t t = 0; t < a->taps && !normal && sum != 0; t++) weight[t] /= sum;
}

static void fill_axis(const options *o, axis *a, float scale, bool resized, const float roi[2])
{
    float stretch = o->antialias && scale < 1 ? scale : 1;
    for (int64_t i = 0; i < a->out; i++) {
        float x = resized ? coordinate(o, a, scale, i, roi) : (float)i, last = (float)(a->in - 1);
        int64_t first, *index = a->index + i * a->taps;
        float *weight = a->weight + i * a->taps;
        if (a->outside) a->outside[i] = resized && !(x >= 0 && x <= last);
        if (!(x > -0x1p40f && x < 0x1p40f)) x = 0; /* a region of interest that is not finite */
        weight[0] = 1;
        if (!resized)
            first = i;
        else if (o->mode == NEAREST)
            first = (int64_t)nearest_to(o->nearest, x, scale);
        else
            weigh(o, a, x, stretch, &first, weight);
        for (int64_t t = 0; t < a->taps; t++) {
            int64_t at = first + t;
            index[t] = at < 0 ? 0 : at >= a->in ? a->in - 1 : at;
        }
    }
}

/* ---- plan ------------------------------------------------------------------------------------ */

/* No scale that leads from `in` to `out` is smaller: sizes are rounded down, or to the nearest, in float32. */
static float least_scale(int64_t in, int64_t out)
{
    return (float)(0.999 * ((double)out - 0.75) / (double)in);
}

/* Workspace: for each axis index, weight and outside, then per worker a row. */
static sdx_status plan_form(sdx_plan_step *step, const form *f)
{
    const sdx_shape *x = &step->in[0].shape, *y = &step->out[0].shape;
    options o;
    bool ok = true;
    TRY(read_options(step->node, f, x->rank, &o, step->err));
    if (sdx_shape_count(y) == 0) return SDX_OK;
    for (int i = 0; i < x->rank && ok; i++) {
        size_t out = (size_t)y->dim[i], cells;
        ok = sdx_mul_size(out, (size_t)taps_of(&o, least_scale(x->dim[i], y->dim[i])), &cells) &&
             sdx_workspace_add(&step->workspace, cells, sizeof(int64_t)) &&
             sdx_workspace_add(&step->workspace, cells, sizeof(float)) &&
             sdx_workspace_add(&step->workspace, out, sizeof(bool));
    }
    size_t row = (size_t)x->dim[x->rank - 1] * sizeof(double);
    ok = ok && sdx_workspace_add(&step->workspace, (size_t)step->threads, sdx_align_up(row));
    return ok ? SDX_OK : sdx_workspace_fail(step->err);
}

/* ---- run ------------------------------------------------------------------------------------- */

typedef struct task {
    const sdx_run *run;
    options o;
    int rank;
    axis axis[SDX_MAX_RANK];
    int64_t stride[SDX_MAX_RANK]; /* of the input */
    char *rows;
} task;

/* Coordinates of output row `row`; true when one is outside. */
static bool locate(const task *t, int64_t row, int64_t at[SDX_MAX_RANK])
{
    bool outside = false;
    for (int i = t->rank - 2; i >= 0; row /= t->axis[i--].out) {
        at[i] = row % t->axis[i].out;
        outside |= t->axis[i].outside && t->axis[i].outside[at[i]];
    }
    return outside;
}

static void fill_value(const task *t, int64_t n, int64_t at)
{
    sdx_lane value = {.f = (double)t->o.extrapolation};
    sdx_dtype dtype = t->run->out[0].dtype;
    sdx_lanes_convert(SDX_LANE_F, dtype, 1, &value);
    for (int64_t i = 0; i < n; i++) sdx_lanes_store(dtype, &value, 1, t->run->out[0].data, at + i);
}

/* Element `i` of the output is outside along the last axis. */
static void fill_outside(const task *t, const axis *last, int64_t begin)
{
    for (int64_t i = 0; last->outside && i < last->out; i++)
        if (last->outside[i]) fill_value(t, 1, begin + i);
}

static void nearest_rows(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const task *t = context;
    const axis *last = &t->axis[t->rank - 1];
    size_t size = sdx_element_size(t->run->in[0].dtype);
    for (int64_t row = begin; row < end; row++) {
        int64_t at[SDX_MAX_RANK], from = 0;
        if (locate(t, row, at)) {
            fill_value(t, last->out, row * last->out);
            continue;
        }
        for (int i = 0; i < t->rank - 1; i++) from += t->axis[i].index[at[i]] * t->stride[i];
        const char *src = (const char *)t->run->in[0].data + (size_t)from * size;
        char *dst = (char *)t->run->out[0].data + (size_t)(row * last->out) * size;
        for (int64_t i = 0; i < last->out; i++, dst += size)
            memcpy(dst, src + (size_t)last->index[i] * size, size);
        fill_outside(t, last, row * last->out);
    }
}

/* sum[in] += weight * the row of the input at `from`. */
static void add_row(const task *t, int64_t from, double weight, double *sum)
{
    const sdx_tensor *x = &t->run->in[0];
    sdx_lane lane[SDX_LANES];
    int64_t width = t->axis[t->rank - 1].in;
    for (int64_t i = 0; i < width; i += SDX_LANES) {
        int64_t n = width - i < SDX_LANES ? width - i : SDX_LANES;
        sdx_lanes_load(x->dtype, x->data, from + i, 1, n, lane);
        sdx_lanes_convert(sdx_dtype_lane(x->dtype), SDX_F64, n, lane);
        for (int64_t j = 0; j < n; j++) sum[i + j] += weight * lane[j].f;
    }
}

/* All combinations of the taps of the outer axes. */
static void gather_row(const task *t, const int64_t at[SDX_MAX_RANK], double *sum)
{
    int64_t combinations = 1;
    for (int i = 0; i < t->rank - 1; i++) combinations *= t->axis[i].taps;
    for (int64_t c = 0; c < combinations; c++) {
        int64_t rest = c, from = 0;
        double weight = 1;
        for (int i = t->rank - 2; i >= 0; rest /= t->axis[i--].taps) {
            int64_t tap = at[i] * t->axis[i].taps + rest % t->axis[i].taps;
            from += t->axis[i].index[tap] * t->stride[i];
            weight *= (double)t->axis[i].weight[tap];
        }
        if (weight != 0) add_row(t, from, weight, sum);
    }
}

static void interpolate_rows(void *context, int64_t begin, int64_t end, int worker)
{
    const task *t = context;
    const axis *last = &t->axis[t->rank - 1];
    sdx_dtype dtype = t->run->out[0].dtype;
    size_t bytes = (size_t)last->in * sizeof(double);
    double *sum = (double *)(void *)(t->rows + (size_t)worker * sdx_align_up(bytes));
    for (int64_t row = begin; row < end; row++) {
        int64_t at[SDX_MAX_RANK];
        if (locate(t, row, at)) {
            fill_value(t, last->out, row * last->out);
            continue;
        }
        memset(sum, 0, bytes);
        gather_row(t, at, sum);
        for (int64_t i = 0; i < last->out; i++) {
            sdx_lane y = {.f = 0};
            for (int64_t k = i * last->taps; k < (i + 1) * last->taps; k++)
                y.f += (double)last->weight[k] * sum[last->index[k]];
            sdx_lanes_convert(SDX_LANE_F, dtype, 1, &y);
            sdx_lanes_store(dtype, &y, 1, t->run->out[0].data, row * last->out + i);
        }
        fill_outside(t, last, row * last->out);
    }
}

/* roi: [starts, ends] of the resized axes. */
static sdx_status read_roi(const sdx_run *run, const form *f, const options *o, int rank, float roi[][2])
{
    int n = axis_count(o, rank);
    if (o->coordinates != TF_CROP_AND_RESIZE) return SDX_OK;
    if (!sdx_run_has_in(run, f->roi)) return sdx_fail(run->err, SDX_ERR_USAGE, "tf_crop_and_resize needs roi");
    TRY(check_length("roi", sdx_tensor_count(&run->in[f->roi]), 2 * n, run->err));
    for (int i = 0; i < n; i++)
        for (int end = 0; end < 2; end++)
            roi[axis_at(o, i)][end] = (float)sdx_tensor_get_f64(&run->in[f->roi], end * n + i);
    return SDX_OK;
}

static sdx_status run_form(sdx_run *run, const form *f)
{
    const sdx_tensor *scales = f->scales >= 0 && sdx_run_has_in(run, f->scales) ? &run->in[f->scales] : NULL;
    const sdx_tensor *given = f->sizes >= 0 && sdx_run_has_in(run, f->sizes) ? &run->in[f->sizes] : NULL;
    sdx_shape x = sdx_tensor_shape(&run->in[0]);
    task t = {.run = run, .rank = x.rank};
    sizes s;
    float roi[SDX_MAX_RANK][2] = {{0}};
    TRY(read_options(run->node, f, x.rank, &t.o, run->err));
    TRY(find_sizes(run->node, f, &t.o, &x, scales, given, &s, run->err));
    TRY(read_roi(run, f, &t.o, x.rank, roi));
    int64_t count = sdx_tensor_count(&run->out[0]), width = s.out[x.rank - 1];
    if (count == 0) return SDX_OK;
    char *workspace = run->workspace;
    for (int i = 0; i < x.rank; i++) {
        axis *a = &t.axis[i];
        *a = (axis){.in = x.dim[i], .out = s.out[i], .taps = s.resized[i] ? taps_of(&t.o, s.scale[i]) : 1};
        if (s.resized[i] && s.scale[i] == 1 && t.o.coordinates != TF_CROP_AND_RESIZE)
            a->taps = 1, s.resized[i] = false;
        a->index = sdx_workspace_take(&workspace, (size_t)(a->out * a->taps) * sizeof *a->index);
        a->weight = sdx_workspace_take(&workspace, (size_t)(a->out * a->taps) * sizeof *a->weight);
        bool *outside = sdx_workspace_take(&workspace, (size_t)a->out * sizeof *outside);
        if (t.o.coordinates == TF_CROP_AND_RESIZE) a->outside = outside;
        fill_axis(&t.o, a, s.scale[i], s.resized[i], roi[i]);
    }
    t.rows = workspace;
    sdx_shape_strides(&x, t.stride);
    sdx_parallel_for(run->threads, count / width, sdx_row_grain(width * 8),
                     t.o.mode == NEAREST ? nearest_rows : interpolate_rows, &t);
    return SDX_OK;
}

#define FORM(name)                                                                                             \
    static sdx_status infer_##name(sdx_infer *infer)                                                           \
    {                                                                                                          \
        return infer_form(infer, &form_##name);                                                                \
    }                                                                                                          \
    static sdx_status plan_##name(sdx_plan_step *step)                                                         \
    {                                                                                                          \
        return plan_form(step, &form_##name);                                                                  \
    }                                                                                                          \
    static sdx_status run_##name(sdx_run *run)                                                                 \
    {                                                                                                          \
        return run_form(run, &form_##name);                                                                    \
    }
FORM(7)
FORM(9)
FORM(11)

static const sdx_op_def rows[] = {
    {"", "Upsample", 7, 8, 1, 1, 1, 1, 0, infer_7, NULL, plan_7, run_7},
    {"", "Upsample", 9, 9, 2, 2, 1, 1, 0, infer_9, NULL, plan_9, run_9},
    {"", "Resize", 10, 10, 2, 2, 1, 1, 0, infer_9, NULL, plan_9, run_9},
    {"", "Resize", 11, 0, 1, 4, 1, 1, 0, infer_11, NULL, plan_11, run_11},
};

SDX_OP_TABLE(resize);
