/* convolve.c: see convolve.h */
#include "convolve.h"

#include <string.h>

/* ---- shapes ---------------------------------------------------------------------------------- */

static sdx_status read_groups(const sdx_node *node, int64_t *groups, sdx_error *err)
{
    *groups = sdx_node_int(node, "group", 1);
    if (*groups >= 1) return SDX_OK;
    return sdx_fail(err, SDX_ERR_FILE, "group is %lld", (long long)*groups);
}

static sdx_status check_channels(const sdx_infer *infer, int x, int w, int64_t groups)
{
    sdx_dim c = sdx_type_dim(&infer->in[x], 1), m = sdx_type_dim(&infer->in[w], 0),
            each = sdx_type_dim(&infer->in[w], 1);
    if (sdx_dim_is_known(m) && m % groups)
        return sdx_fail(infer->err, SDX_ERR_USAGE, "%lld filters cannot be cut into %lld groups", (long long)m,
                        (long long)groups);
    if (!sdx_dim_is_known(c) || !sdx_dim_is_known(each) || (c % groups == 0 && c / groups == each))
        return SDX_OK;
    return sdx_fail(infer->err, SDX_ERR_USAGE,
                    "the input has %lld channels, but the weights are for %lld groups of %lld", (long long)c,
                    (long long)groups, (long long)each);
}

sdx_status sdx_convolution_infer(sdx_infer *infer, int x, int w, sdx_shape *y)
{
    const sdx_shape *sx = &infer->in[x].shape, *sw = &infer->in[w].shape;
    int64_t groups;
    sdx_window window;
    *y = SDX_SHAPE_UNKNOWN;
    TRY(read_groups(infer->node, &groups, infer->err));
    TRY(sdx_want_rank(infer, x, "the input", 3, SDX_MAX_RANK));
    TRY(sdx_want_rank(infer, w, "the weights", 3, SDX_MAX_RANK));
    if (sx->rank < 0) return SDX_OK;
    TRY(sdx_want_rank(infer, w, "the weights", sx->rank, sx->rank));
    TRY(check_channels(infer, x, w, groups));
    sdx_dim unknown[SDX_MAX_SPATIAL];
    for (int i = 0; i < SDX_MAX_SPATIAL; i++) unknown[i] = SDX_DIM_UNKNOWN;
    const sdx_dim *kernel = sw->rank < 0 ? unknown : sw->dim + 2;
    TRY(sdx_window_read(&window, infer->node, sx->rank - 2, sx->dim + 2, kernel, infer->err));
    sdx_window_name_out(&window, infer->node, infer->model);
    y->rank = sx->rank;
    y->dim[0] = sx->dim[0];
    y->dim[1] = sdx_type_dim(&infer->in[w], 0);
    memcpy(y->dim + 2, window.out, (size_t)window.rank * sizeof *y->dim);
    return SDX_OK;
}

sdx_status sdx_convolution_want_bias(const sdx_infer *infer, int i, int w, unsigned dtypes)
{
    if (!sdx_infer_has(infer, i)) return SDX_OK;
    TRY(sdx_want_dtype(infer, i, "the bias", dtypes));
    TRY(sdx_want_rank(infer, i, "the bias", 1, 1));
    return sdx_want_dim(infer, i, "the bias", 0, sdx_type_dim(&infer->in[w], 0));
}

sdx_status sdx_convolution_make(sdx_convolution *c, const sdx_node *node, const sdx_shape *x,
                                const sdx_shape *w, sdx_error *err)
{
    TRY(read_groups(node, &c->groups, err));
    TRY(sdx_window_read(&c->window, node, x->rank - 2, x->dim + 2, w->dim + 2, err));
    c->batch = x->dim[0];
    c->channels = w->dim[1];
    c->filters = w->dim[0] / c->groups;
    c->taps = sdx_window_taps(&c->window);
    if (__builtin_mul_overflow(c->channels, c->taps, &c->depth)) return sdx_workspace_fail(err);
    c->in_plane = sdx_window_in_count(&c->window);
    c->out_plane = sdx_window_out_count(&c->window);
    return SDX_OK;
}

/* ---- blocks ---------------------------------------------------------------------------------- */

enum { BLOCK_BYTES = 512 * 1024 };

int64_t sdx_convolution_block(const sdx_convolution *c, size_t size, int64_t panel, int threads)
{
    int64_t fits = c->depth > 0 ? BLOCK_BYTES / (int64_t)size / c->depth : BLOCK_BYTES;
    int64_t works = c->batch * c->groups, share = c->out_plane;
    if (works > 0 && works < 4 * threads) share = (c->out_plane * works + 4 * threads - 1) / (4 * threads);
    int64_t block = (fits < share ? fits : share) / panel * panel;
    return block > panel ? block : panel;
}

sdx_convolution_part sdx_convolution_part_at(const sdx_convolution *c, int64_t block, int64_t i)
{
    int64_t blocks = (c->out_plane + block - 1) / block, work = i / blocks;
    sdx_convolution_part p = {
        .image = work / c->groups, .group = work % c->groups, .begin = i % blocks * block};
    p.end = p.begin + block < c->out_plane ? p.begin + block : c->out_plane;
    return p;
}

/* ---- columns --------------------------------------------------------------------------------- */

typedef struct gather {
    const sdx_convolution *c;
    const char *x;
    char *columns;
    size_t size;
    int64_t tap, begin, panel, step;
} gather;

#define COPY(type)                                                                                             \
    {                                                                                                          \
        const type *from = (const type *)src;                                                                  \
        type *to = (type *)dst;                                                                                \
        for (int64_t i = 0; i < n; i++) to[i] = from[i * step];                                                \
    }

static void copy_piece(size_t size, int64_t n, const void *src, int64_t step, void *dst)
{
    if (step == 1)
        memcpy(dst, src, (size_t)n * size);
    else if (size == 1)
        COPY(uint8_t)
    else
        COPY(uint32_t)
}

/* One run for all channels, cut where panels end. */
static void gather_run(void *context, int64_t out, int64_t in, int64_t n)
{
    const gather *g = context;
    const sdx_convolution *c = g->c;
    int64_t at = out - g->begin;
    while (n > 0) {
        int64_t lane = at % g->panel, left = g->panel - lane, piece = n < left ? n : left;
        char *dst = g->columns + ((at / g->panel * c->depth + g->tap) * g->panel + lane) * (int64_t)g->size;
        const char *src = g->x + in * (int64_t)g->size;
        for (int64_t k = 0; k < c->channels; k++) {
            copy_piece(g->size, piece, src, g->step, dst);
            src += c->in_plane * (int64_t)g->size;
            dst += c->taps * g->panel * (int64_t)g->size;
        }
        at += piece;
        in += piece * g->step;
        n -= piece;
    }
}

static bool has_padding(const sdx_window *w)
{
    for (int i = 0; i < w->rank; i++)
        if (w->pad[i] || w->pad_end[i]) return true;
    return false;
}

void sdx_convolution_columns(const sdx_convolution *c, const void *x, size_t size, int pad, int64_t begin,
                             int64_t end, int64_t panel, void *columns)
{
    const sdx_window *w = &c->window;
    gather g = {.c = c,
                .x = x,
                .columns = columns,
                .size = size,
                .begin = begin,
                .panel = panel,
                .step = w->stride[w->rank - 1]};
    size_t one = (size_t)(panel * c->depth) * size;
    size_t full = (size_t)((end - begin) / panel), all = (size_t)((end - begin + panel - 1) / panel);
    if (all > full) memset(g.columns + full * one, 0, one);
    if (has_padding(w)) memset(columns, pad, all * one);
    for (g.tap = 0; g.tap < c->taps; g.tap++) sdx_window_runs(w, g.tap, begin, end, gather_run, &g);
}
