/* mask_axes.c: operators that move what a mask is made of, or cut it: for mask.c, where its axes went. */
#include "mask_walk.h"

/* ---- axes ----------------------------------------------------------------------------------------------- */

/* Axis d from the end becomes to[d]; -1 where it is lost. */
static bool move_axes(sdx_seen *s, const int to[SDX_MAX_RANK])
{
    if (s->is_position) return (s->axis = to[s->axis]) >= 0;
    if (s->m.source != SDX_NONE) {
        s->m.batch = to[s->m.batch];
        s->m.key = to[s->m.key];
        if (s->m.batch < 0 || s->m.key < 0) return false;
    }
    if (s->m.causal) {
        s->m.row = to[s->m.row];
        s->m.column = to[s->m.column];
        if (s->m.row < 0 || s->m.column < 0) return false;
    }
    return true;
}

const char *sdx_mask_unsqueeze(sdx_mask_walk *w, const sdx_node *n, int depth, sdx_seen *s)
{
    int64_t listed[SDX_MAX_RANK];
    int count = 0, rank = sdx_match_type(w->g, n->out[0])->shape.rank, to[SDX_MAX_RANK];
    size_t n_axes = 0;
    const int64_t *axes = sdx_node_ints(n, "axes", &n_axes);
    unsigned inserted = 0; /* bit d: the axis at distance d from the end is new */
    const char *reason = sdx_mask_look(w, n->in[0], depth, s);
    if (reason) return reason;
    if (axes)
        count = (int)n_axes;
    else if (sdx_node_in(n, 1) == SDX_NONE ||
             !sdx_type_ints(sdx_match_type(w->g, n->in[1]), SDX_MAX_RANK, listed, &count))
        return "unknown axes";
    for (int i = 0; i < count && rank > 0; i++) {
        int64_t axis = axes ? axes[i] : listed[i];
        axis = axis < 0 ? -1 - axis : rank - 1 - axis;
        if (axis < 0 || axis >= rank) return "bad axes";
        inserted |= 1u << axis;
    }
    if (rank <= 0) return "unknown rank";
    for (int d = 0, at = 0; d < SDX_MAX_RANK; d++, at++) {
        while (at < SDX_MAX_RANK && inserted >> at & 1) at++;
        to[d] = at < rank ? at : -1;
    }
    return move_axes(s, to) ? NULL : "an axis is lost";
}

/* Sizes of 1 come and go; the others keep their order. */
static bool reshape_axes(const sdx_shape *from, const sdx_shape *into, int to[SDX_MAX_RANK])
{
    int at = into->rank - 1;
    for (int d = 0; d < SDX_MAX_RANK; d++) to[d] = -1;
    for (int i = from->rank - 1; i >= 0; i--) {
        if (from->dim[i] == 1) continue;
        while (at >= 0 && into->dim[at] == 1) at--;
        if (at < 0 || !sdx_dim_same(from->dim[i], into->dim[at])) return false;
        to[from->rank - 1 - i] = into->rank - 1 - at--;
    }
    while (at >= 0 && into->dim[at] == 1) at--;
    return at < 0;
}

/* [batch, keys] to [batch, 1, 1, keys]: where the graph names the sizes anew, the new names are right. */
static bool renames(const sdx_shape *from, const sdx_shape *into, sdx_seen *s)
{
    if (s->is_position || s->m.causal || from->rank != 2 || into->rank < 2 || s->m.key != 0 || s->m.batch != 1)
        return false;
    for (int i = 1; i + 1 < into->rank; i++)
        if (into->dim[i] != 1) return false;
    s->m.batch = into->rank - 1;
    s->m.batch_size = into->dim[0];
    s->m.key_size = into->dim[into->rank - 1];
    return true;
}

const char *sdx_mask_reshape(sdx_mask_walk *w, const sdx_node *n, int depth, sdx_seen *s)
{
    const sdx_shape *from = &sdx_match_type(w->g, n->in[0])->shape,
                    *into = &sdx_match_type(w->g, n->out[0])->shape;
    int to[SDX_MAX_RANK];
    const char *reason = sdx_mask_look(w, n->in[0], depth, s);
    if (reason) return reason;
    if (from->rank >= 0 && into->rank >= 0 && reshape_axes(from, into, to) && move_axes(s, to)) return NULL;
    return renames(from, into, s) ? NULL : "a Reshape that is no Unsqueeze";
}

/* ---- Slice ---------------------------------------------------------------------------------------------- */

/* The slice along axis d begins at `start`; the result has `size` there. */
static const char *cut(sdx_model *model, sdx_seen *s, int d, sdx_element start, sdx_dim size)
{
    bool at_zero = sdx_element_same(start, sdx_element_number(0));
    if (s->is_position) {
        if (d == s->axis) s->start = sdx_model_arith(model, '+', s->start, start);
        return NULL;
    }
    if (s->m.source != SDX_NONE && (d == s->m.key || d == s->m.batch)) {
        if (!at_zero) return "a part of the mask is cut off";
        *(d == s->m.key ? &s->m.key_size : &s->m.batch_size) = size;
    }
    if (s->m.causal && d == s->m.row) s->m.shift = sdx_model_arith(model, '+', s->m.shift, start);
    if (s->m.causal && d == s->m.column) s->m.shift = sdx_model_arith(model, '-', s->m.shift, start);
    return NULL;
}

static bool is_negative(const sdx_model *model, sdx_element e)
{
    if (e.symbol < 0) return e.number < 0;
    const sdx_symbol *s = &model->symbol[e.symbol];
    return s->op == '*' && s->right.symbol == SDX_ELEMENT_NUMBER && s->right.number < 0;
}

const char *sdx_mask_slice(sdx_mask_walk *w, const sdx_node *n, int depth, sdx_seen *s)
{
    int64_t axis, step = 1;
    int count = 0;
    sdx_element start;
    const sdx_shape *from = &sdx_match_type(w->g, n->in[0])->shape,
                    *into = &sdx_match_type(w->g, n->out[0])->shape;
    const char *reason = sdx_mask_look(w, n->in[0], depth, s);
    if (!reason) reason = sdx_mask_element(w, sdx_node_in(n, 1), &start);
    if (reason) return reason;
    if (sdx_node_in(n, 3) == SDX_NONE || !sdx_type_ints(sdx_match_type(w->g, n->in[3]), 1, &axis, &count))
        return "a Slice of several axes";
    sdx_id steps = sdx_node_in(n, 4);
    if (steps != SDX_NONE && !sdx_type_ints(sdx_match_type(w->g, steps), 1, &step, &count))
        return "unknown steps";
    if (axis < 0) axis += from->rank;
    if (step != 1 || axis < 0 || axis >= from->rank) return "a Slice that leaves out elements";
    sdx_element size = sdx_element_from_dim(from->dim[axis]);
    if (is_negative(w->g->model, start)) start = sdx_model_arith(w->g->model, '+', size, start);
    return cut(w->g->model, s, from->rank - 1 - (int)axis, start, into->dim[axis]);
}

/* ---- coordinates ---------------------------------------------------------------------------------------- */

/* Indices [..., K] that are K columns side by side, each the index along one axis of the result, or 0:
 * axis[k] is that axis, counted from the last one of the result, -1 for 0. */
static const char *look_grid(sdx_mask_walk *w, sdx_id v, int depth, int axis[SDX_MAX_RANK], int *count)
{
    const sdx_node *concat = sdx_match_op(w->g, v, "Concat");
    if (!concat || !sdx_match_axis_is_last(w->g, concat, 0, v) || concat->n_in > SDX_MAX_RANK)
        return "indices that are not columns side by side";
    *count = concat->n_in;
    for (int k = 0; k < concat->n_in; k++) {
        sdx_seen s;
        const char *reason = sdx_mask_look(w, concat->in[k], depth, &s);
        if (reason) return reason;
        if (sdx_match_last_dim(w->g, concat->in[k]) != 1) return "indices that are not columns side by side";
        bool zero = !s.is_position && s.m.source == SDX_NONE && !s.m.causal && s.m.at[0][0] == 0;
        bool whole = s.is_position && s.axis > 0 && sdx_element_same(s.start, sdx_element_number(0));
        if (!zero && !whole) return "indices that are not the coordinates";
        axis[k] = zero ? -1 : s.axis - 1;
    }
    return NULL;
}

/* Every element is written to its own place: the updates replace the data. */
const char *sdx_mask_scatter(sdx_mask_walk *w, const sdx_node *n, int depth, sdx_seen *s)
{
    int axis[SDX_MAX_RANK], count;
    const sdx_shape *data = &sdx_match_type(w->g, n->in[0])->shape,
                    *updates = &sdx_match_type(w->g, n->in[2])->shape;
    const char *reason = look_grid(w, n->in[1], depth, axis, &count);
    if (reason) return reason;
    if (data->rank != count || !sdx_shape_same(data, updates))
        return "a ScatterND that leaves something as it was";
    for (int k = 0; k < count; k++)
        if (axis[k] != count - 1 - k && !(axis[k] < 0 && data->dim[k] == 1))
            return "a ScatterND that moves elements";
    return sdx_mask_look(w, n->in[2], depth, s);
}

/* Data at the coordinates themselves: its axes go where the coordinates run. The first elements of a longer
 * axis are taken to be all of them, as the mask must have the size of what it masks. */
const char *sdx_mask_gather(sdx_mask_walk *w, const sdx_node *n, int depth, sdx_seen *s)
{
    int axis[SDX_MAX_RANK], count, to[SDX_MAX_RANK];
    const sdx_shape *data = &sdx_match_type(w->g, n->in[0])->shape,
                    *out = &sdx_match_type(w->g, n->out[0])->shape;
    const char *reason = look_grid(w, n->in[1], depth, axis, &count);
    if (!reason) reason = sdx_mask_look(w, n->in[0], depth, s);
    if (reason) return reason;
    if (data->rank != count || sdx_node_int(n, "batch_dims", 0) != 0) return "a GatherND of whole rows";
    for (int d = 0; d < SDX_MAX_RANK; d++) to[d] = d < count ? axis[count - 1 - d] : -1;
    if (!move_axes(s, to)) return "an axis is lost";
    if (s->is_position || s->m.source == SDX_NONE) return NULL;
    s->m.batch_size = out->dim[out->rank - 1 - s->m.batch];
    s->m.key_size = out->dim[out->rank - 1 - s->m.key];
    return NULL;
}
