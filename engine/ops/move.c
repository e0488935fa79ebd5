/* move.c: slices moved to where other inputs say: Compress, ReverseSequence, TensorScatter. Lengths and places
 * are checked before anything is moved; elements are bytes here, whatever their type. */
#include <string.h>

#include "compute.h"
#include "contents.h"
#include "copy.h"

static size_t block_bytes(const sdx_tensor *t, const sdx_shape *s, int axis)
{
    return (size_t)sdx_shape_span(s, axis + 1, s->rank) * sdx_element_size(t->dtype);
}

/* ---- Compress: keeps the slices whose condition is true ---------------------------------------------- */

static sdx_status infer_compress(sdx_infer *x)
{
    TRY(sdx_want_dtype(x, 1, "the condition", SDX_SET(SDX_BOOL)));
    TRY(sdx_want_rank(x, 1, "the condition", 1, 1));
    const sdx_attr *axis = sdx_node_attr(x->node, "axis");
    sdx_shape out = x->in[0].shape;
    int at;
    if (!axis) {
        out = (sdx_shape){.rank = 1, .dim = {SDX_DIM_UNKNOWN}};
    } else if (out.rank >= 0) {
        TRY(sdx_axis_normalize(axis->i, out.rank, &at, x->err));
        out.dim[at] = SDX_DIM_UNKNOWN;
    }
    sdx_infer_set(x, 0, x->in[0].dtype, &out);
    return SDX_OK;
}

static sdx_status run_compress(sdx_run *r)
{
    const sdx_tensor *x = &r->in[0];
    const sdx_attr *attr = sdx_node_attr(r->node, "axis");
    const uint8_t *keep = r->in[1].data;
    sdx_shape in = sdx_run_shape(r, 0);
    int axis = 0;
    if (attr)
        TRY(sdx_axis_normalize(attr->i, in.rank, &axis, r->err));
    else
        in = (sdx_shape){.rank = 1, .dim = {sdx_tensor_count(x)}};
    int64_t conditions = r->in[1].dim[0], kept = 0, dim = in.dim[axis], outer = sdx_shape_span(&in, 0, axis);
    for (int64_t i = 0; i < conditions; i++) {
        kept += keep[i] != 0;
        if (keep[i] && i >= dim)
            return sdx_fail(r->err, SDX_ERR_USAGE, "condition %lld is true, but there are only %lld slices",
                            (long long)i, (long long)dim);
    }
    size_t block = block_bytes(x, &in, axis);
    in.dim[axis] = kept;
    TRY(r->allocate(r, 0, x->dtype, &in));
    char *y = r->out[0].data;
    for (int64_t o = 0; block && o < outer; o++)
        for (int64_t i = 0; i < conditions; i++) {
            if (!keep[i]) continue;
            memcpy(y, (const char *)x->data + (size_t)(o * dim + i) * block, block);
            y += block;
        }
    return SDX_OK;
}

/* ---- ReverseSequence: the first lengths[b] steps of sequence b, backwards ---------------------------- */

static sdx_status find_time_axis(const sdx_node *node, int *time, sdx_error *err)
{
    int64_t t = sdx_node_int(node, "time_axis", 0), b = sdx_node_int(node, "batch_axis", 1);
    if ((t != 0 && t != 1) || b != 1 - t)
        return sdx_fail(err, SDX_ERR_FILE, "time_axis %lld and batch_axis %lld must be 0 and 1", (long long)t,
                        (long long)b);
    *time = (int)t;
    return SDX_OK;
}

static sdx_status infer_reverse(sdx_infer *x)
{
    int time;
    TRY(find_time_axis(x->node, &time, x->err));
    TRY(sdx_want_rank(x, 0, "the input", 2, SDX_MAX_RANK));
    TRY(sdx_want_dtype(x, 1, "the lengths", SDX_SET(SDX_I64)));
    TRY(sdx_want_rank(x, 1, "the lengths", 1, 1));
    TRY(sdx_want_dim(x, 1, "the lengths", 0, sdx_type_dim(&x->in[0], 1 - time)));
    return sdx_infer_same(x);
}

static sdx_status run_reverse(sdx_run *r)
{
    const sdx_tensor *x = &r->in[0];
    sdx_shape s = sdx_run_shape(r, 0);
    int time;
    TRY(find_time_axis(r->node, &time, r->err));
    int64_t steps = s.dim[time], batch = s.dim[1 - time];
    int64_t step = time == 0 ? batch : 1, sequence = time == 0 ? 1 : steps; /* in blocks */
    size_t block = block_bytes(x, &s, 1);
    for (int64_t b = 0; b < batch; b++) {
        int64_t n = sdx_tensor_index(&r->in[1], b);
        if (n < 0 || n > steps)
            return sdx_fail(r->err, SDX_ERR_USAGE, "length %lld of sequence %lld is outside [0, %lld]",
                            (long long)n, (long long)b, (long long)steps);
        for (int64_t t = 0; block && t < steps; t++) {
            int64_t from = t < n ? n - 1 - t : t;
            memcpy((char *)r->out[0].data + (size_t)(b * sequence + t * step) * block,
                   (const char *)x->data + (size_t)(b * sequence + from * step) * block, block);
        }
    }
    return SDX_OK;
}

/* ---- TensorScatter: writes an update into a cache at each sequence's own place ----------------------- */

enum { CACHE, UPDATE, PLACES };

static sdx_status find_cache_axis(const sdx_node *node, int rank, int *axis, bool *circular, sdx_error *err)
{
    const char *mode = sdx_node_string(node, "mode", "linear");
    *circular = !strcmp(mode, "circular");
    if (!*circular && strcmp(mode, "linear"))
        return sdx_fail(err, SDX_ERR_FILE, "mode is \"%.40s\", but must be linear or circular", mode);
    if (rank < 0) return SDX_OK;
    TRY(sdx_axis_normalize(sdx_node_int(node, "axis", -2), rank, axis, err));
    if (*axis == 0) return sdx_fail(err, SDX_ERR_FILE, "axis 0 is the batch; it cannot be written along");
    return SDX_OK;
}

static sdx_status infer_tensor_scatter(sdx_infer *x)
{
    int axis, rank = x->in[CACHE].shape.rank;
    bool circular;
    TRY(find_cache_axis(x->node, rank, &axis, &circular, x->err));
    TRY(sdx_want_same_dtype(x, UPDATE, "the update", CACHE, "the cache"));
    TRY(sdx_want_dtype(x, PLACES, "write_indices", SDX_SET(SDX_I64)));
    TRY(sdx_want_rank(x, PLACES, "write_indices", 1, 1));
    if (rank >= 0) {
        TRY(sdx_want_rank(x, UPDATE, "the update", rank, rank));
        TRY(sdx_want_dim(x, PLACES, "write_indices", 0, x->in[CACHE].shape.dim[0]));
    }
    for (int d = 0; d < rank; d++)
        if (d != axis) TRY(sdx_want_dim(x, UPDATE, "the update", d, x->in[CACHE].shape.dim[d]));
    return sdx_infer_same(x);
}

static sdx_status check_place(const sdx_run *r, int64_t b, int64_t place, int64_t steps, int64_t room,
                              bool circular)
{
    if (place >= 0 && steps <= room && (circular || place <= room - steps)) return SDX_OK;
    return sdx_fail(r->err, SDX_ERR_USAGE,
                    "sequence %lld: %lld steps written at %lld do not fit a cache of %lld", (long long)b,
                    (long long)steps, (long long)place, (long long)room);
}

static sdx_status run_tensor_scatter(sdx_run *r)
{
    const sdx_tensor *update = &r->in[UPDATE];
    sdx_shape s = sdx_run_shape(r, CACHE);
    int axis;
    bool circular;
    TRY(find_cache_axis(r->node, s.rank, &axis, &circular, r->err));
    TRY(sdx_run_copy(r));
    int64_t room = s.dim[axis], steps = update->dim[axis], rows = sdx_shape_span(&s, 1, axis);
    size_t block = block_bytes(update, &s, axis);
    for (int64_t b = 0; b < s.dim[0]; b++) {
        int64_t place = sdx_run_has_in(r, PLACES) ? sdx_tensor_index(&r->in[PLACES], b) : 0;
        TRY(check_place(r, b, place, steps, room, circular));
        for (int64_t row = b * rows; row < (b + 1) * rows; row++)
            for (int64_t t = 0; block && t < steps; t++) {
                int64_t to = (place % room + t) % room; /* room >= steps > 0; linear: place + t */
                memcpy((char *)r->out[0].data + (size_t)(row * room + to) * block,
                       (const char *)update->data + (size_t)(row * steps + t) * block, block);
            }
    }
    return SDX_OK;
}

static const sdx_op_def rows[] = {
    {"", "Compress", 9, 0, 2, 2, 1, 1, SDX_OP_DYNAMIC, infer_compress, NULL, NULL, run_compress},
    {"", "ReverseSequence", 10, 0, 2, 2, 1, 1, 0, infer_reverse, NULL, NULL, run_reverse},
    {"", "TensorScatter", 24, 0, 2, 3, 1, 1, SDX_OP_INPLACE, infer_tensor_scatter, NULL, NULL,
     run_tensor_scatter},
};

SDX_OP_TABLE(move);
