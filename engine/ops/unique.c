/* unique.c: the distinct elements of a tensor, or its distinct slices along an axis. Slices are sorted by
 * merging, which keeps equal ones in their order, so that the first of a run of equals is the first in the
 * tensor. A NaN is larger than any number and equal to itself, as NumPy has it.
 */
#include <string.h>

#include "compute.h"
#include "contents.h"
#include "copy.h"
#include "lanes.h"

/* X seen as [outer, n, inner]: slice i is all elements with the middle index i. */
typedef struct slices {
    int64_t outer, n, inner;
    int axis; /* -1: X is flat */
} slices;

static sdx_status find_slices(const sdx_node *node, const sdx_shape *x, slices *s, sdx_error *err)
{
    const sdx_attr *axis = sdx_node_attr(node, "axis");
    *s = (slices){1, 0, 1, -1};
    if (axis) TRY(sdx_axis_normalize(axis->i, x->rank, &s->axis, err));
    if (!sdx_shape_is_known(x)) return SDX_OK;
    s->n = axis ? x->dim[s->axis] : sdx_shape_count(x);
    if (!axis) return SDX_OK;
    s->outer = sdx_shape_span(x, 0, s->axis);
    s->inner = sdx_shape_span(x, s->axis + 1, x->rank);
    return SDX_OK;
}

/* com.microsoft's has no output for where each element is first, and does not sort: 1, else 0. */
static int skips_first(const sdx_node *node)
{
    return *node->domain != 0;
}

static sdx_status infer_unique(sdx_infer *x)
{
    sdx_dtype t = x->in[0].dtype;
    if (t != SDX_UNDEFINED && t != SDX_STRING && sdx_dtype_lane(t) == SDX_LANE_NONE)
        return sdx_fail(x->err, SDX_ERR_UNSUPPORTED, "it does not take %s", sdx_dtype_name(t));
    sdx_shape in = x->in[0].shape, list = {.rank = 1, .dim = {SDX_DIM_UNKNOWN}}, y = list, all = list;
    slices s = {.axis = -1};
    if (in.rank >= 0) {
        TRY(find_slices(x->node, &in, &s, x->err));
        if (sdx_shape_is_known(&in)) all.dim[0] = s.n;
        if (s.axis >= 0) {
            y = in;
            y.dim[s.axis] = SDX_DIM_UNKNOWN;
        }
    } else if (sdx_node_attr(x->node, "axis")) {
        y = in;
    }
    sdx_infer_set(x, 0, t, &y);
    int skip = skips_first(x->node);
    if (!skip) sdx_infer_set(x, 1, SDX_I64, &list);
    sdx_infer_set(x, 2 - skip, SDX_I64, &all);
    sdx_infer_set(x, 3 - skip, SDX_I64, &list);
    return SDX_OK;
}

/* ---- order ------------------------------------------------------------------------------------------- */

typedef struct sorting {
    slices s;
    sdx_lane_kind kind;        /* NONE: strings */
    const sdx_lane *x;         /* all elements, widened */
    const char *const *string; /* or these */
} sorting;

static int compare_floats(double a, double b)
{
    if (a != a || b != b) return (a != a) - (b != b);
    return (a > b) - (a < b);
}

static int compare_elements(const sorting *o, int64_t a, int64_t b)
{
    switch (o->kind) {
    case SDX_LANE_F: return compare_floats(o->x[a].f, o->x[b].f);
    case SDX_LANE_I: return (o->x[a].i > o->x[b].i) - (o->x[a].i < o->x[b].i);
    case SDX_LANE_U: return (o->x[a].u > o->x[b].u) - (o->x[a].u < o->x[b].u);
    default: return strcmp(o->string[a], o->string[b]);
    }
}

static int compare_slices(const sorting *o, int64_t a, int64_t b)
{
    for (int64_t i = 0; i < o->s.outer; i++)
        for (int64_t k = 0; k < o->s.inner; k++) {
            int64_t row = i * o->s.n;
            int c = compare_elements(o, (row + a) * o->s.inner + k, (row + b) * o->s.inner + k);
            if (c) return c;
        }
    return 0;
}

/* Sorted numbers of all slices, in order[n] or spare[n]: returns which. */
static int64_t *sort_slices(const sorting *o, int64_t *order, int64_t *spare)
{
    int64_t n = o->s.n;
    for (int64_t i = 0; i < n; i++) order[i] = i;
    for (int64_t width = 1; width < n; width *= 2) {
        for (int64_t begin = 0; begin < n; begin += 2 * width) {
            int64_t middle = begin + width < n ? begin + width : n,
                    end = middle + width < n ? middle + width : n;
            for (int64_t a = begin, b = middle, to = begin; to < end; to++) {
                bool left = a < middle && (b == end || compare_slices(o, order[a], order[b]) <= 0);
                spare[to] = order[left ? a++ : b++];
            }
        }
        int64_t *swap = order;
        order = spare;
        spare = swap;
    }
    return order;
}

/* ---- run --------------------------------------------------------------------------------------------- */

typedef struct groups {
    int64_t count;
    int64_t *of;    /* [n]: the group of each slice */
    int64_t *first; /* [count]: its first slice */
} groups;

/* Neighbours in the order that are equal are one group. by_value: groups in that order, else as they first
 * occur. */
static void find_groups(const sorting *o, const int64_t *order, bool by_value, int64_t *number, groups *g)
{
    g->count = 0;
    for (int64_t i = 0; i < o->s.n; i++) {
        if (i == 0 || compare_slices(o, order[i - 1], order[i])) g->first[g->count++] = order[i];
        g->of[order[i]] = g->count - 1;
    }
    if (by_value) return;
    int64_t seen = 0;
    for (int64_t i = 0; i < g->count; i++) number[i] = -1;
    for (int64_t i = 0; i < o->s.n; i++) {
        int64_t *is = &number[g->of[i]];
        if (*is < 0) *is = seen++;
        g->of[i] = *is;
    }
    for (int64_t i = o->s.n - 1; i >= 0; i--) g->first[g->of[i]] = i;
}

static sdx_status store_list(sdx_run *r, int out, int64_t n, const int64_t *from)
{
    if (out >= r->n_out) return SDX_OK;
    sdx_shape shape = {.rank = 1, .dim = {n}};
    TRY(r->allocate(r, out, SDX_I64, &shape));
    int64_t *to = r->out[out].data;
    for (int64_t i = 0; to && i < n; i++) to[i] = from ? from[i] : 0;
    return SDX_OK;
}

static sdx_status store_groups(sdx_run *r, const slices *s, const groups *g)
{
    const sdx_tensor *x = &r->in[0];
    sdx_shape y = {.rank = 1, .dim = {g->count}};
    if (s->axis >= 0) {
        y = sdx_run_shape(r, 0);
        y.dim[s->axis] = g->count;
    }
    TRY(r->allocate(r, 0, x->dtype, &y));
    size_t block = (size_t)s->inner * sdx_element_size(x->dtype);
    for (int64_t o = 0; block && o < s->outer; o++)
        for (int64_t i = 0; i < g->count; i++)
            memcpy((char *)r->out[0].data + (size_t)(o * g->count + i) * block,
                   (const char *)x->data + (size_t)(o * s->n + g->first[i]) * block, block);
    int skip = skips_first(r->node), last = 3 - skip;
    if (!skip) TRY(store_list(r, 1, g->count, g->first));
    TRY(store_list(r, 2 - skip, s->n, g->of));
    TRY(store_list(r, last, g->count, NULL));
    int64_t *counts = r->n_out > last ? r->out[last].data : NULL;
    for (int64_t i = 0; counts && i < s->n; i++) counts[g->of[i]]++;
    return SDX_OK;
}

static sdx_status plan_unique(sdx_plan_step *p)
{
    slices s;
    TRY(find_slices(p->node, &p->in[0].shape, &s, p->err));
    size_t count = (size_t)sdx_shape_count(&p->in[0].shape);
    bool fits = sdx_workspace_add(&p->workspace, count, sizeof(sdx_lane));
    for (int i = 0; i < 5 && fits; i++) fits = sdx_workspace_add(&p->workspace, (size_t)s.n, sizeof(int64_t));
    return fits ? SDX_OK : sdx_workspace_fail(p->err);
}

static sdx_status run_unique(sdx_run *r)
{
    const sdx_tensor *x = &r->in[0];
    sdx_shape shape = sdx_run_shape(r, 0);
    sorting o = {.kind = sdx_dtype_lane(x->dtype)};
    TRY(find_slices(r->node, &shape, &o.s, r->err));
    int64_t count = sdx_tensor_count(x), *list[5];
    char *at = r->workspace;
    sdx_lane *wide = sdx_workspace_take(&at, (size_t)count * sizeof *wide);
    for (int i = 0; i < 5; i++) list[i] = sdx_workspace_take(&at, (size_t)o.s.n * sizeof(int64_t));
    if (o.kind == SDX_LANE_NONE)
        o.string = x->data;
    else
        sdx_lanes_load(x->dtype, x->data, 0, 1, count, wide);
    o.x = wide;
    groups g = {.of = list[2], .first = list[3]};
    find_groups(&o, sort_slices(&o, list[0], list[1]), sdx_node_int(r->node, "sorted", !skips_first(r->node)) != 0, list[4], &g);
    return store_groups(r, &o.s, &g);
}

static const sdx_op_def rows[] = {
    {"", "Unique", 11, 0, 1, 1, 1, 4, SDX_OP_DYNAMIC, infer_unique, NULL, plan_unique, run_unique},
    {"com.microsoft", "Unique", 1, 0, 1, 1, 3, 3, SDX_OP_DYNAMIC, infer_unique, NULL, plan_unique, run_unique},
};

SDX_OP_TABLE(unique);
