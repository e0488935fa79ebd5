/* vision.c: pixels moved and boxes handled: DepthToSpace, SpaceToDepth and CenterCropPad are strided copies;
 * RoiAlign (K. He et al., Mask R-CNN, 2017) and NonMaxSuppression serve object detection.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compute.h"
#include "contents.h"
#include "copy.h"

/* ---- DepthToSpace, SpaceToDepth -------------------------------------------------------------- */

/* Depth is [b, b, C] (DCR) or [C, b, b] (CRD); SpaceToDepth is the way back. */
static sdx_status read_blocks(const sdx_node *node, int64_t *block, bool *crd, sdx_error *err)
{
    const char *mode = sdx_node_string(node, "mode", "DCR");
    *block = sdx_node_int(node, "blocksize", 0);
    *crd = !strcmp(mode, "CRD");
    if (!*crd && strcmp(mode, "DCR")) return sdx_fail(err, SDX_ERR_FILE, "mode is \"%s\"", mode);
    if (*block >= 1 && *block <= INT16_MAX) return SDX_OK;
    return sdx_fail(err, SDX_ERR_FILE, "blocksize is %lld", (long long)*block);
}

static sdx_dim multiply(sdx_infer *infer, sdx_dim d, char op, int64_t by)
{
    return sdx_element_to_dim(
        sdx_model_arith(infer->model, op, sdx_element_from_dim(d), sdx_element_number(by)));
}

static bool to_space(const sdx_node *node)
{
    return node->op_type[0] == 'D';
}

static sdx_status infer_blocks(sdx_infer *infer)
{
    const sdx_shape *x = &infer->in[0].shape;
    int64_t b;
    bool crd;
    TRY(read_blocks(infer->node, &b, &crd, infer->err));
    TRY(sdx_want_rank(infer, 0, "the input", 4, 4));
    infer->out[0].dtype = infer->in[0].dtype;
    if (x->rank < 0) return SDX_OK;
    bool space = to_space(infer->node);
    for (int i = 1; i < 4; i++) {
        int64_t unit = !space ? (i > 1 ? b : 1) : i == 1 ? b * b : 1;
        if (sdx_dim_is_known(x->dim[i]) && x->dim[i] % unit)
            return sdx_fail(infer->err, SDX_ERR_USAGE, "dimension %d is %lld, not a multiple of %lld", i,
                            (long long)x->dim[i], (long long)unit);
    }
    sdx_shape y = {4,
                   {x->dim[0], multiply(infer, x->dim[1], space ? '/' : '*', b * b),
                    multiply(infer, x->dim[2], space ? '*' : '/', b),
                    multiply(infer, x->dim[3], space ? '*' : '/', b)}};
    sdx_infer_set(infer, 0, infer->in[0].dtype, &y);
    return SDX_OK;
}

/* Walks [N, C, H, b, W, b] of the side with pixels; both sides have strides for it. */
static sdx_status run_blocks(sdx_run *run)
{
    int64_t b;
    bool crd, space = to_space(run->node);
    TRY(read_blocks(run->node, &b, &crd, run->err));
    const sdx_tensor *deep = space ? &run->in[0] : &run->out[0], *wide = space ? &run->out[0] : &run->in[0];
    int64_t c = wide->dim[1], h = deep->dim[2], w = deep->dim[3], plane = h * w;
    int64_t depth_c = crd ? b * b * plane : plane, depth_y = crd ? b * plane : b * c * plane;
    int64_t depth_x = crd ? plane : c * plane;
    const int64_t deep_stride[6] = {c * b * b * plane, depth_c, w, depth_y, 1, depth_x};
    const int64_t wide_stride[6] = {c * b * b * plane, b * b * plane, b * w * b, w * b, b, 1};
    sdx_copy copy = {.rank = 6,
                     .dim = {deep->dim[0], c, h, b, w, b},
                     .src = run->in[0].data,
                     .dst = run->out[0].data,
                     .size = sdx_element_size(run->in[0].dtype)};
    memcpy(copy.src_stride, space ? deep_stride : wide_stride, sizeof deep_stride);
    memcpy(copy.dst_stride, space ? wide_stride : deep_stride, sizeof wide_stride);
    sdx_copy_strided(&copy, run->threads);
    return SDX_OK;
}

/* ---- CenterCropPad --------------------------------------------------------------------------- */

/* Which of the input's dims each number of the second input sets. */
static sdx_status crop_axes(const sdx_node *node, int rank, int64_t given, sdx_ints *axes, sdx_error *err)
{
    size_t count;
    unsigned set;
    const int64_t *v = sdx_node_ints(node, "axes", &count);
    *axes = (sdx_ints){.known = true, .count = rank};
    for (int i = 0; i < rank; i++) axes->v[i] = i;
    if (v && count > SDX_MAX_RANK) return sdx_fail(err, SDX_ERR_FILE, "axes lists %zu axes", count);
    if (v) {
        axes->count = (int)count;
        memcpy(axes->v, v, count * sizeof *v);
    }
    if (axes->count != given)
        return sdx_fail(err, SDX_ERR_USAGE, "shape has %lld numbers for %d axes", (long long)given,
                        axes->count);
    TRY(sdx_axes_to_set(axes, rank, &set, err));
    for (int i = 0; i < axes->count; i++) axes->v[i] += axes->v[i] < 0 ? rank : 0;
    return SDX_OK;
}

static sdx_status infer_crop(sdx_infer *infer)
{
    const sdx_type *x = &infer->in[0];
    sdx_shape size, y = x->shape;
    sdx_ints axes;
    infer->out[0].dtype = x->dtype;
    if (x->dtype == SDX_STRING) return sdx_fail(infer->err, SDX_ERR_UNSUPPORTED, "it does not take strings");
    TRY(sdx_infer_shape_input(infer, 1, &size));
    if (x->shape.rank < 0 || size.rank < 0) return SDX_OK;
    TRY(crop_axes(infer->node, x->shape.rank, size.rank, &axes, infer->err));
    for (int i = 0; i < axes.count; i++) y.dim[axes.v[i]] = size.dim[i];
    sdx_infer_set(infer, 0, x->dtype, &y);
    return SDX_OK;
}

/* The middle of the larger is copied to the middle of the smaller; both begin at half the difference, rounded
 * down. */
static sdx_status run_crop(sdx_run *run)
{
    const sdx_tensor *in = &run->in[0], *out = &run->out[0];
    sdx_shape x = sdx_tensor_shape(in), y = sdx_tensor_shape(out);
    sdx_copy copy = {.rank = x.rank, .src = in->data, .dst = out->data, .size = sdx_element_size(in->dtype)};
    sdx_shape_strides(&x, copy.src_stride);
    sdx_shape_strides(&y, copy.dst_stride);
    if (sdx_tensor_count(out) == 0) return SDX_OK;
    memset(out->data, 0, sdx_tensor_bytes(out));
    for (int i = 0; i < x.rank; i++) {
        int64_t more = y.dim[i] - x.dim[i];
        copy.dim[i] = more > 0 ? x.dim[i] : y.dim[i];
        if (more > 0)
            copy.dst += (size_t)(more / 2 * copy.dst_stride[i]) * copy.size;
        else
            copy.src += (size_t)(-more / 2 * copy.src_stride[i]) * copy.size;
    }
    sdx_copy_strided(&copy, run->threads);
    return SDX_OK;
}

/* ---- RoiAlign -------------------------------------------------------------------------------- */

typedef struct align {
    const sdx_run *run;
    int64_t channels, height, width, out_height, out_width,
        samples;            /* samples per bin and dim; 0: as many as pixels */
    double scale, shift;    /* of coordinates */
    bool max, at_least_one; /* regions are at least one pixel */
} align;

static sdx_status read_align(const sdx_node *node, bool half_pixel, align *a, sdx_error *err)
{
    const char *mode = sdx_node_string(node, "mode", "avg");
    const char *how = sdx_node_string(node, "coordinate_transformation_mode",
                                      half_pixel ? "half_pixel" : "output_half_pixel");
    a->max = !strcmp(mode, "max");
    a->at_least_one = !strcmp(how, "output_half_pixel");
    a->shift = a->at_least_one ? 0 : 0.5;
    a->scale = (double)sdx_node_float(node, "spatial_scale", 1);
    a->samples = sdx_node_int(node, "sampling_ratio", 0);
    a->out_height = sdx_node_int(node, "output_height", 1);
    a->out_width = sdx_node_int(node, "output_width", 1);
    if ((!a->max && strcmp(mode, "avg")) || (!a->at_least_one && strcmp(how, "half_pixel")))
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "mode \"%s\" with coordinates \"%s\" is not known", mode,
                        how);
    if (a->out_height < 1 || a->out_width < 1 || a->samples < 0 || a->samples > INT16_MAX)
        return sdx_fail(err, SDX_ERR_FILE, "the output size or the sampling ratio is not positive");
    return SDX_OK;
}

static sdx_status infer_align(sdx_infer *infer, bool half_pixel)
{
    align a;
    TRY(read_align(infer->node, half_pixel, &a, infer->err));
    TRY(sdx_want_dtype(infer, 0, "the input", SDX_SET_FLOAT));
    TRY(sdx_want_same_dtype(infer, 1, "the regions", 0, "the input"));
    TRY(sdx_want_dtype(infer, 2, "the batch indices", SDX_SET(SDX_I64)));
    TRY(sdx_want_rank(infer, 0, "the input", 4, 4));
    TRY(sdx_want_rank(infer, 1, "the regions", 2, 2));
    TRY(sdx_want_dim(infer, 1, "the regions", 1, 4));
    TRY(sdx_want_rank(infer, 2, "the batch indices", 1, 1));
    TRY(sdx_want_dim(infer, 2, "the batch indices", 0, sdx_type_dim(&infer->in[1], 0)));
    sdx_shape y = {4,
                   {sdx_type_dim(&infer->in[1], 0), sdx_type_dim(&infer->in[0], 1), a.out_height, a.out_width}};
    sdx_infer_set(infer, 0, infer->in[0].dtype, &y);
    return SDX_OK;
}

/* One bilinear sample into acc; off the image by more than a pixel counts as zero. */
static void align_sample(const align *a, int64_t plane, double y, double x, double *acc, bool first)
{
    const sdx_tensor *in = &a->run->in[0];
    double w[4] = {0, 0, 0, 0}, v[4] = {0, 0, 0, 0};
    if (y >= -1 && x >= -1 && y <= (double)a->height && x <= (double)a->width) {
        y = fmin(fmax(y, 0), (double)(a->height - 1));
        x = fmin(fmax(x, 0), (double)(a->width - 1));
        int64_t y0 = (int64_t)y, x0 = (int64_t)x, y1 = y0 + (y0 < a->height - 1), x1 = x0 + (x0 < a->width - 1);
        double dy = y - (double)y0, dx = x - (double)x0;
        const int64_t at[4] = {y0 * a->width + x0, y0 * a->width + x1, y1 * a->width + x0, y1 * a->width + x1};
        w[0] = (1 - dy) * (1 - dx), w[1] = (1 - dy) * dx, w[2] = dy * (1 - dx), w[3] = dy * dx;
        for (int i = 0; i < 4; i++) sdx_doubles_load(in->dtype, in->data, plane + at[i], 1, &v[i]);
    }
    for (int i = 0; i < 4; i++) {
        if (!a->max)
            *acc += w[i] * v[i];
        else if (first && i == 0)
            *acc = w[i] * v[i];
        else
            *acc = fmax(*acc, w[i] * v[i]);
    }
}

/* Regions [begin, end), each for all channels and bins. */
static void align_regions(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const align *a = context;
    const sdx_tensor *out = &a->run->out[0], *regions = &a->run->in[1];
    int64_t each = a->channels * a->out_height * a->out_width;
    for (int64_t i = begin * each; i < end * each; i++) {
        int64_t column = i % a->out_width, row = i / a->out_width % a->out_height;
        int64_t channel = i / (a->out_width * a->out_height) % a->channels, region = i / each;
        int64_t image = ((const int64_t *)a->run->in[2].data)[region];
        double box[4], acc = 0; /* x1, y1, x2, y2 */
        sdx_doubles_load(regions->dtype, regions->data, region * 4, 4, box);
        for (int k = 0; k < 4; k++) box[k] = box[k] * a->scale - a->shift;
        double least = a->at_least_one ? 1 : -INFINITY;
        double height = fmax(box[3] - box[1], least) / (double)a->out_height;
        double width = fmax(box[2] - box[0], least) / (double)a->out_width;
        int64_t rows = a->samples ? a->samples : (int64_t)fmin(fmax(ceil(height), 0), 4096);
        int64_t columns = a->samples ? a->samples : (int64_t)fmin(fmax(ceil(width), 0), 4096);
        for (int64_t s = 0; s < rows * columns; s++) {
            double y = box[1] + height * ((double)row + ((double)(s / columns) + 0.5) / (double)rows);
            double x = box[0] + width * ((double)column + ((double)(s % columns) + 0.5) / (double)columns);
            align_sample(a, (image * a->channels + channel) * a->height * a->width, y, x, &acc, s == 0);
        }
        if (!a->max && rows * columns > 0) acc /= (double)(rows * columns);
        sdx_doubles_store(out->dtype, &acc, 1, out->data, i);
    }
}

static sdx_status run_align(sdx_run *run, bool half_pixel)
{
    const sdx_tensor *x = &run->in[0], *image = &run->in[2];
    align a = {.run = run, .channels = x->dim[1], .height = x->dim[2], .width = x->dim[3]};
    TRY(read_align(run->node, half_pixel, &a, run->err));
    for (int64_t i = 0; i < image->dim[0]; i++) {
        int64_t n = ((const int64_t *)image->data)[i];
        if (n < 0 || n >= x->dim[0])
            return sdx_fail(run->err, SDX_ERR_USAGE, "region %lld is of image %lld of %lld", (long long)i,
                            (long long)n, (long long)x->dim[0]);
    }
    if (sdx_tensor_count(&run->out[0]) == 0) return SDX_OK;
    if (a.height == 0 || a.width == 0) return sdx_fail(run->err, SDX_ERR_USAGE, "the images are empty");
    sdx_parallel_for(run->threads, image->dim[0], 1, align_regions, &a);
    return SDX_OK;
}

static sdx_status infer_align_10(sdx_infer *infer)
{
    return infer_align(infer, false);
}
static sdx_status infer_align_16(sdx_infer *infer)
{
    return infer_align(infer, true);
}
static sdx_status run_align_10(sdx_run *run)
{
    return run_align(run, false);
}
static sdx_status run_align_16(sdx_run *run)
{
    return run_align(run, true);
}

/* ---- NonMaxSuppression ----------------------------------------------------------------------- */

static sdx_status infer_nms(sdx_infer *infer)
{
    static const char *const name[] = {"the boxes", "the scores", "the most boxes", "the IOU threshold",
                                       "the score threshold"};
    TRY(sdx_want_rank(infer, 0, name[0], 3, 3));
    TRY(sdx_want_rank(infer, 1, name[1], 3, 3));
    TRY(sdx_want_dim(infer, 0, name[0], 2, 4));
    TRY(sdx_want_dim(infer, 1, name[1], 0, sdx_type_dim(&infer->in[0], 0)));
    TRY(sdx_want_dim(infer, 1, name[1], 2, sdx_type_dim(&infer->in[0], 1)));
    for (int i = 0; i < infer->n_in; i++)
        TRY(sdx_want_dtype(infer, i, name[i], SDX_SET(i == 2 ? SDX_I64 : SDX_F32)));
    for (int i = 2; i < infer->n_in; i++)
        if (sdx_infer_has(infer, i) && sdx_shape_count(&infer->in[i].shape) == 0)
            return sdx_fail(infer->err, SDX_ERR_USAGE, "%s must be one number", name[i]);
    sdx_shape y = {2, {SDX_DIM_UNKNOWN, 3}};
    sdx_infer_set(infer, 0, SDX_I64, &y);
    return SDX_OK;
}

typedef struct candidate {
    float score;
    int64_t index;
} candidate;

/* Down in score; of equals the first box first. */
static int compare_candidates(const void *a, const void *b)
{
    const candidate *x = a, *y = b;
    if (x->score != y->score) return x->score < y->score ? 1 : -1;
    return x->index < y->index ? -1 : x->index > y->index;
}

/* Corners (low y, low x, high y, high x). */
static void box_corners(const float *box, bool by_center, float corner[4])
{
    if (by_center) { /* x, y, width, height */
        corner[0] = box[1] - box[3] / 2, corner[2] = box[1] + box[3] / 2;
        corner[1] = box[0] - box[2] / 2, corner[3] = box[0] + box[2] / 2;
        return;
    }
    for (int i = 0; i < 2; i++)
        corner[i] = fminf(box[i], box[i + 2]), corner[i + 2] = fmaxf(box[i], box[i + 2]);
}

static bool overlap(const float *a, const float *b, bool by_center, float threshold)
{
    float x[4], y[4];
    box_corners(a, by_center, x);
    box_corners(b, by_center, y);
    float height = fminf(x[2], y[2]) - fmaxf(x[0], y[0]), width = fminf(x[3], y[3]) - fmaxf(x[1], y[1]);
    float area_x = (x[2] - x[0]) * (x[3] - x[1]), area_y = (y[2] - y[0]) * (y[3] - y[1]);
    if (height <= 0 || width <= 0 || area_x <= 0 || area_y <= 0) return false;
    float common = height * width;
    return common / (area_x + area_y - common) > threshold;
}

typedef struct nms {
    const float *boxes, *scores; /* [count, 4], [count]: of one image and class */
    int64_t count, most;
    float iou, score; /* thresholds */
    bool by_center;
    candidate *candidate; /* [count] */
} nms;

enum { OVERLAP_WORK = 16 }; /* operations of a comparison */

/* Indices of the boxes kept, at most `most`, to index[]. Every box is compared with all that were kept. */
static sdx_status suppress(sdx_run *run, const nms *s, int64_t *index, int64_t *count)
{
    int64_t n = 0, kept = 0, compared = 0;
    for (int64_t i = 0; i < s->count; i++)
        if (s->scores[i] > s->score) s->candidate[n++] = (candidate){s->scores[i], i};
    qsort(s->candidate, (size_t)n, sizeof *s->candidate, compare_candidates);
    for (int64_t i = 0; i < n && kept < s->most; i++) {
        const float *box = s->boxes + s->candidate[i].index * 4;
        bool lost = false;
        for (int64_t k = 0; k < kept && !lost; k++, compared++)
            lost = overlap(box, s->boxes + index[k] * 4, s->by_center, s->iou);
        if (!lost) index[kept++] = s->candidate[i].index;
        if (compared < SDX_STEP_WORK) continue;
        TRY(sdx_run_spend(run, OVERLAP_WORK * (double)compared));
        compared = 0;
    }
    *count = kept;
    return sdx_run_spend(run, OVERLAP_WORK * (double)compared);
}

/* Workspace: candidates, and the boxes kept of every image and class. */
static sdx_status plan_nms(sdx_plan_step *step)
{
    const sdx_shape *scores = &step->in[1].shape;
    bool ok = sdx_workspace_add(&step->workspace, (size_t)scores->dim[2], sizeof(candidate)) &&
              sdx_workspace_add(&step->workspace, (size_t)sdx_shape_count(scores), sizeof(int64_t)) &&
              sdx_workspace_add(&step->workspace, (size_t)(scores->dim[0] * scores->dim[1]), sizeof(int64_t));
    return ok ? SDX_OK : sdx_workspace_fail(step->err);
}

static sdx_status run_nms(sdx_run *run)
{
    const sdx_tensor *scores = &run->in[1];
    int64_t classes = scores->dim[1], count = scores->dim[2], works = scores->dim[0] * classes, total = 0;
    char *workspace = run->workspace;
    nms s = {
        .count = count, .score = -INFINITY, .by_center = sdx_node_int(run->node, "center_point_box", 0) != 0};
    if (sdx_run_has_in(run, 2)) s.most = *(const int64_t *)run->in[2].data;
    if (sdx_run_has_in(run, 3)) s.iou = *(const float *)run->in[3].data;
    if (sdx_run_has_in(run, 4)) s.score = *(const float *)run->in[4].data;
    s.candidate = sdx_workspace_take(&workspace, (size_t)count * sizeof *s.candidate);
    int64_t *index = sdx_workspace_take(&workspace, (size_t)(works * count) * sizeof *index);
    int64_t *kept = sdx_workspace_take(&workspace, (size_t)works * sizeof *kept);
    for (int64_t i = 0; i < works; i++) {
        s.boxes = (const float *)run->in[0].data + i / classes * count * 4;
        s.scores = (const float *)scores->data + i * count;
        TRY(suppress(run, &s, index + i * count, &kept[i]));
        total += kept[i];
    }
    sdx_shape shape = {2, {total, 3}};
    TRY(run->allocate(run, 0, SDX_I64, &shape));
    int64_t *y = run->out[0].data;
    for (int64_t i = 0; i < works; i++)
        for (int64_t k = 0; k < kept[i]; k++, y += 3)
            y[0] = i / classes, y[1] = i % classes, y[2] = index[i * count + k];
    return SDX_OK;
}

static const sdx_op_def rows[] = {
    {"", "DepthToSpace", 1, 0, 1, 1, 1, 1, 0, infer_blocks, NULL, NULL, run_blocks},
    {"", "SpaceToDepth", 1, 0, 1, 1, 1, 1, 0, infer_blocks, NULL, NULL, run_blocks},
    {"", "CenterCropPad", 18, 0, 2, 2, 1, 1, 0, infer_crop, NULL, NULL, run_crop},
    {"", "RoiAlign", 10, 15, 3, 3, 1, 1, 0, infer_align_10, NULL, NULL, run_align_10},
    {"", "RoiAlign", 16, 0, 3, 3, 1, 1, 0, infer_align_16, NULL, NULL, run_align_16},
    {"", "NonMaxSuppression", 10, 0, 2, 5, 1, 1, SDX_OP_DYNAMIC, infer_nms, NULL, plan_nms, run_nms},
};

SDX_OP_TABLE(vision);
