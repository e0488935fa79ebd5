/* window.c: see window.h */
#include "window.h"

#include <string.h>

#include "contents.h"

enum same_pad { EXPLICIT, VALID, SAME_UPPER, SAME_LOWER };

/* Attributes and dims beyond these cannot belong to a tensor; below, no sum or product of two overflows. */
#define MOST_ATTRIBUTE (INT64_C(1) << 30)
#define MOST_DIM       (INT64_C(1) << 48)

/* ---- attributes ------------------------------------------------------------------------------ */

static sdx_status read_auto_pad(const sdx_node *node, enum same_pad *out, sdx_error *err)
{
    static const char *const name[] = {"NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"};
    const char *given = sdx_node_string(node, "auto_pad", "NOTSET");
    for (int i = 0; i < 4; i++)
        if (!strcmp(given, name[i]) || (i == 0 && !*given)) {
            *out = (enum same_pad)i;
            return SDX_OK;
        }
    return sdx_fail(err, SDX_ERR_FILE, "auto_pad is \"%s\"", given);
}

/* `count` integers of at least `least`; what is missing is set to `missing`, unless that is negative. */
static sdx_status read_list(const sdx_node *node, const char *name, int count, int64_t least, int64_t missing,
                            int64_t *out, sdx_error *err)
{
    size_t have;
    const int64_t *given = sdx_node_ints(node, name, &have);
    if (!given || have == 0) {
        if (missing < 0) return sdx_fail(err, SDX_ERR_FILE, "the attribute %s is missing", name);
        for (int i = 0; i < count; i++) out[i] = missing;
        return SDX_OK;
    }
    if (have != (size_t)count)
        return sdx_fail(err, SDX_ERR_FILE, "%s lists %zu numbers, but must list %d", name, have, count);
    for (int i = 0; i < count; i++) {
        if (given[i] < least || given[i] > MOST_ATTRIBUTE)
            return sdx_fail(err, SDX_ERR_FILE, "%s contains %lld", name, (long long)given[i]);
        out[i] = given[i];
    }
    return SDX_OK;
}

/* From the weights and, when it is given, the attribute, which must agree. */
static sdx_status read_kernel(sdx_window *w, const sdx_node *node, const sdx_dim *kernel, sdx_error *err)
{
    size_t have;
    if (!kernel || sdx_node_ints(node, "kernel_shape", &have))
        TRY(read_list(node, "kernel_shape", w->rank, 1, -1, w->kernel, err));
    else
        memcpy(w->kernel, kernel, (size_t)w->rank * sizeof *kernel);
    for (int i = 0; kernel && i < w->rank; i++) {
        if (!sdx_dim_is_known(kernel[i])) continue;
        if (kernel[i] != w->kernel[i])
            return sdx_fail(err, SDX_ERR_FILE,
                            "kernel_shape says %lld along dimension %d, but the weights have %lld",
                            (long long)w->kernel[i], i, (long long)kernel[i]);
        if (kernel[i] == 0 || kernel[i] > MOST_ATTRIBUTE)
            return sdx_fail(err, SDX_ERR_FILE, "the kernel has size %lld along dimension %d",
                            (long long)kernel[i], i);
    }
    return SDX_OK;
}

sdx_status sdx_window_attributes(sdx_window *w, const sdx_node *node, int rank, const sdx_dim *kernel,
                                 sdx_error *err)
{
    int64_t pads[2 * SDX_MAX_SPATIAL];
    *w = (sdx_window){.rank = rank};
    TRY(read_kernel(w, node, kernel, err));
    TRY(read_list(node, "strides", rank, 1, 1, w->stride, err));
    TRY(read_list(node, "dilations", rank, 1, 1, w->dilation, err));
    TRY(read_list(node, "pads", 2 * rank, 0, 0, pads, err));
    memcpy(w->pad, pads, (size_t)rank * sizeof *pads);
    memcpy(w->pad_end, pads + rank, (size_t)rank * sizeof *pads);
    return SDX_OK;
}

/* ---- output sizes ---------------------------------------------------------------------------- */

/* Inputs that a window spans along a dim, padding and gaps included. */
static int64_t window_span(const sdx_window *w, int i)
{
    return (w->kernel[i] - 1) * w->dilation[i] + 1;
}

/* Pads so that every stride has a window; the odd one goes to the end, or to the beginning. */
static void pad_same(sdx_window *w, int i, enum same_pad mode)
{
    w->out[i] = (w->in[i] + w->stride[i] - 1) / w->stride[i];
    int64_t total = (w->out[i] - 1) * w->stride[i] + window_span(w, i) - w->in[i];
    if (total < 0) total = 0;
    w->pad[i] = mode == SAME_LOWER ? (total + 1) / 2 : total / 2;
    w->pad_end[i] = total - w->pad[i];
}

static sdx_status slide(sdx_window *w, int i, bool ceil_mode, sdx_error *err)
{
    int64_t room = w->in[i] + w->pad[i] + w->pad_end[i] - window_span(w, i), stride = w->stride[i];
    if (room < 0)
        return sdx_fail(
            err, SDX_ERR_USAGE,
            "the window spans %lld along spatial dimension %d, but the input has only %lld there, padding "
            "included",
            (long long)window_span(w, i), i, (long long)(w->in[i] + w->pad[i] + w->pad_end[i]));
    w->out[i] = (room + (ceil_mode ? stride - 1 : 0)) / stride + 1;
    /* A window may hang over the end, but must not begin in the padding there. */
    if (ceil_mode && (w->out[i] - 1) * stride >= w->in[i] + w->pad[i]) w->out[i]--;
    return SDX_OK;
}

/* Counts of taps, inputs and outputs stay within what a tensor can have. */
static sdx_status check_counts(const sdx_window *w, sdx_error *err)
{
    const int64_t *list[] = {w->kernel, w->in, w->out};
    for (int l = 0; l < 3; l++) {
        int64_t count = 1;
        for (int i = 0; i < w->rank; i++) {
            if (sdx_dim_is_known(list[l][i]) &&
                (__builtin_mul_overflow(count, list[l][i], &count) || count > MOST_DIM))
                return sdx_fail(err, SDX_ERR_USAGE, "the window's kernel, input or output would be too large");
        }
    }
    return SDX_OK;
}

sdx_status sdx_window_read(sdx_window *w, const sdx_node *node, int rank, const sdx_dim *in,
                           const sdx_dim *kernel, sdx_error *err)
{
    enum same_pad mode;
    bool ceil_mode = sdx_node_int(node, "ceil_mode", 0) != 0;
    TRY(read_auto_pad(node, &mode, err));
    TRY(sdx_window_attributes(w, node, rank, kernel, err));
    for (int i = 0; i < rank; i++) {
        w->in[i] = in[i];
        w->out[i] = SDX_DIM_UNKNOWN;
        if (in[i] > MOST_DIM) return sdx_fail(err, SDX_ERR_USAGE, "a dimension of %lld", (long long)in[i]);
        if (mode != EXPLICIT) w->pad[i] = w->pad_end[i] = 0;
        if (!sdx_dim_is_known(in[i]) || !sdx_dim_is_known(w->kernel[i])) continue;
        if (mode == SAME_UPPER || mode == SAME_LOWER)
            pad_same(w, i, mode);
        else
            TRY(slide(w, i, ceil_mode, err));
    }
    return check_counts(w, err);
}

void sdx_window_name_out(sdx_window *w, const sdx_node *node, sdx_model *model)
{
    enum same_pad mode = EXPLICIT;
    if (sdx_node_int(node, "ceil_mode", 0) || read_auto_pad(node, &mode, NULL) != SDX_OK) return;
    for (int i = 0; i < w->rank; i++) {
        if (!sdx_dim_is_symbol(w->in[i]) || !sdx_dim_is_known(w->kernel[i])) continue;
        bool same = mode == SAME_UPPER || mode == SAME_LOWER;
        int64_t room = same ? w->stride[i] - 1 : w->pad[i] + w->pad_end[i] - window_span(w, i) + w->stride[i];
        sdx_element e = sdx_model_arith(model, '+', sdx_element_from_dim(w->in[i]), sdx_element_number(room));
        w->out[i] = sdx_element_to_dim(sdx_model_arith(model, '/', e, sdx_element_number(w->stride[i])));
    }
}

/* ---- sliding --------------------------------------------------------------------------------- */

static int64_t product(int rank, const int64_t *dim)
{
    int64_t n = 1;
    for (int i = 0; i < rank; i++) n *= dim[i];
    return n;
}

int64_t sdx_window_taps(const sdx_window *w)
{
    return product(w->rank, w->kernel);
}
int64_t sdx_window_in_count(const sdx_window *w)
{
    return product(w->rank, w->in);
}
int64_t sdx_window_out_count(const sdx_window *w)
{
    return product(w->rank, w->out);
}

void sdx_window_tap(const sdx_window *w, int64_t i, int64_t tap[SDX_MAX_SPATIAL])
{
    for (int d = w->rank - 1; d >= 0; d--) {
        tap[d] = i % w->kernel[d];
        i /= w->kernel[d];
    }
}

/* First input element of the row that this tap sees from output row `row` (all dims but the last), or -1. */
static int64_t input_row(const sdx_window *w, const int64_t *shift, int64_t row)
{
    int last = w->rank - 1;
    int64_t at = 0, stride = w->in[last];
    for (int d = last - 1; d >= 0; d--) {
        int64_t position = row % w->out[d] * w->stride[d] + shift[d];
        if (position < 0 || position >= w->in[d]) return -1;
        row /= w->out[d];
        at += position * stride;
        stride *= w->in[d];
    }
    return at;
}

void sdx_window_runs(const sdx_window *w, int64_t i, int64_t begin, int64_t end, sdx_window_fn fn,
                     void *context)
{
    int last = w->rank - 1;
    int64_t shift[SDX_MAX_SPATIAL], width = w->out[last], stride = w->stride[last], size = w->in[last];
    if (begin >= end) return;
    sdx_window_tap(w, i, shift);
    for (int d = 0; d <= last; d++) shift[d] = shift[d] * w->dilation[d] - w->pad[d];
    /* Outputs of a row with 0 <= o * stride + shift < size. */
    int64_t low = shift[last] >= 0 ? 0 : (-shift[last] + stride - 1) / stride;
    int64_t high = shift[last] < size ? (size - 1 - shift[last]) / stride + 1 : 0;
    if (high > width) high = width;
    for (int64_t row = begin / width; row * width < end; row++) {
        int64_t from = begin - row * width, to = end - row * width;
        if (from < low) from = low;
        if (to > high) to = high;
        int64_t base = from < to ? input_row(w, shift, row) : -1;
        if (base >= 0) fn(context, row * width + from, base + from * stride + shift[last], to - from);
    }
}
