/* mask.c: evaluating a mask's subgraph for every case; see mask.h.
 *
 * What is walked through is either a condition (a number for each case) or a position, the index along one axis
 * plus a start, as Range makes it. Comparing a position along one axis with one along another makes a causal
 * condition. */
#include "mask.h"

#include <math.h>
#include <string.h>

enum { STEPS = 600, DEPTH = 40 }; /* nodes looked at, however often the same */

typedef struct seen {
    bool is_position;
    int axis; /* of the position, counted from the last one */
    sdx_element start;
    sdx_mask m; /* when it is none */
} seen;

typedef struct walk {
    const sdx_graph *g;
    int steps; /* left */
} walk;

static const char *look(walk *w, sdx_id v, int depth, seen *s);
static const char *look_mask(walk *w, sdx_id v, int depth, sdx_mask *m);

static seen number_seen(double number)
{
    return (seen){.m = {.at = {{number, number}, {number, number}}, .source = SDX_NONE}};
}

static const char *element(walk *w, sdx_id v, sdx_element *e)
{
    int count = 0;
    const sdx_element *known = v == SDX_NONE ? NULL : sdx_type_contents(sdx_match_type(w->g, v), &count);
    if (!known || count != 1 || known->symbol == SDX_ELEMENT_UNKNOWN) return "an index that is not known";
    *e = *known;
    return NULL;
}

/* ---- element-wise operators ----------------------------------------------------------------------------- */

static double op_add(double a, double b)
{
    return a + b;
}
static double op_sub(double a, double b)
{
    return a - b;
}
static double op_mul(double a, double b)
{
    return a * b;
}
static double op_div(double a, double b)
{
    return a / b;
}
static double op_equal(double a, double b)
{
    return a == b;
}
static double op_greater(double a, double b)
{
    return a > b;
}
static double op_less(double a, double b)
{
    return a < b;
}
static double op_greater_equal(double a, double b)
{
    return a >= b;
}
static double op_less_equal(double a, double b)
{
    return a <= b;
}
static double op_min(double a, double b)
{
    return a < b ? a : b;
}
static double op_max(double a, double b)
{
    return a > b ? a : b;
}
static double op_and(double a, double b)
{
    return a != 0 && b != 0;
}
static double op_or(double a, double b)
{
    return a != 0 || b != 0;
}

static const struct binary {
    const char *op_type;
    double (*of)(double a, double b);
} binaries[] = {
    {"Add", op_add},
    {"Sub", op_sub},
    {"Mul", op_mul},
    {"Div", op_div},
    {"Equal", op_equal},
    {"Greater", op_greater},
    {"Less", op_less},
    {"GreaterOrEqual", op_greater_equal},
    {"LessOrEqual", op_less_equal},
    {"Min", op_min},
    {"Max", op_max},
    {"And", op_and},
    {"Or", op_or},
};

/* m and other are seen side by side: they must come from the same input along the same axes, or be numbers. */
static bool join(sdx_mask *m, const sdx_mask *o)
{
    if (o->source != SDX_NONE) {
        if (m->source != SDX_NONE && (m->source != o->source || m->batch != o->batch || m->key != o->key))
            return false;
        m->source = o->source;
        m->batch = o->batch;
        m->key = o->key;
        m->batch_size = o->batch_size;
        m->key_size = o->key_size;
    }
    if (o->causal) {
        if (m->causal && (m->row != o->row || m->column != o->column || !sdx_element_same(m->shift, o->shift)))
            return false;
        m->causal = true;
        m->row = o->row;
        m->column = o->column;
        m->shift = o->shift;
    }
    return true;
}

#define EACH_CASE(i, k)                                                                                        \
    for (int i = 0; i < 2; i++)                                                                                \
        for (int k = 0; k < 2; k++)

/* A condition that is 1 where column + its start > row + its start. */
static seen causal_seen(sdx_model *model, const seen *column, const seen *row, bool after)
{
    seen s = number_seen(0);
    s.m.at[0][after] = s.m.at[1][after] = 1;
    s.m.causal = true;
    s.m.column = column->axis;
    s.m.row = row->axis;
    s.m.shift = sdx_model_arith(model, '-', row->start, column->start);
    return s;
}

static const char *look_positions(walk *w, const sdx_node *n, const seen *a, const seen *b, seen *s)
{
    sdx_model *model = w->g->model;
    if (a->axis == b->axis) return "positions along one axis are compared";
    if (sdx_match_is(n, "Greater")) return *s = causal_seen(model, a, b, true), NULL;
    if (sdx_match_is(n, "Less")) return *s = causal_seen(model, b, a, true), NULL;
    if (sdx_match_is(n, "LessOrEqual")) return *s = causal_seen(model, a, b, false), NULL;
    if (sdx_match_is(n, "GreaterOrEqual")) return *s = causal_seen(model, b, a, false), NULL;
    return "arithmetic on positions";
}

static const char *look_binary(walk *w, const sdx_node *n, const struct binary *op, int depth, seen *s)
{
    seen a, b;
    const char *reason = look(w, n->in[0], depth, &a);
    if (!reason) reason = look(w, n->in[1], depth, &b);
    if (reason) return reason;
    if (a.is_position && b.is_position) return look_positions(w, n, &a, &b, s);
    if (a.is_position || b.is_position) return "arithmetic on positions";
    *s = a;
    EACH_CASE(i, k) s->m.at[i][k] = op->of(a.m.at[i][k], b.m.at[i][k]);
    return join(&s->m, &b.m) ? NULL : "the mask mixes two inputs, or two orders";
}

static const char *look_where(walk *w, const sdx_node *n, int depth, seen *s)
{
    sdx_mask yes, no;
    *s = number_seen(0);
    const char *reason = look_mask(w, n->in[0], depth, &s->m);
    if (!reason) reason = look_mask(w, n->in[1], depth, &yes);
    if (!reason) reason = look_mask(w, n->in[2], depth, &no);
    if (reason) return reason;
    EACH_CASE(i, k) s->m.at[i][k] = s->m.at[i][k] != 0 ? yes.at[i][k] : no.at[i][k];
    return join(&s->m, &yes) && join(&s->m, &no) ? NULL : "the mask mixes two inputs, or two orders";
}

static const char *look_cast(walk *w, const sdx_node *n, int depth, seen *s)
{
    const char *reason = look(w, n->in[0], depth, s);
    sdx_dtype to = (sdx_dtype)sdx_node_int(n, "to", 0);
    if (reason || s->is_position) return reason;
    EACH_CASE(i, k)
    {
        double *x = &s->m.at[i][k];
        if (to == SDX_BOOL)
            *x = *x != 0;
        else if (sdx_dtype_is_integer(to))
            *x = trunc(*x);
    }
    return NULL;
}

static const char *look_not(walk *w, const sdx_node *n, int depth, seen *s)
{
    *s = number_seen(0);
    const char *reason = look_mask(w, n->in[0], depth, &s->m);
    EACH_CASE(i, k) s->m.at[i][k] = s->m.at[i][k] == 0;
    return reason;
}

/* ---- axes ----------------------------------------------------------------------------------------------- */

/* Axis d from the end becomes to[d]; -1 where it is lost. */
static bool move_axes(seen *s, const int to[SDX_MAX_RANK])
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

static const char *look_unsqueeze(walk *w, const sdx_node *n, int depth, seen *s)
{
    int64_t listed[SDX_MAX_RANK];
    int count = 0, rank = sdx_match_type(w->g, n->out[0])->shape.rank, to[SDX_MAX_RANK];
    size_t n_axes = 0;
    const int64_t *axes = sdx_node_ints(n, "axes", &n_axes);
    unsigned inserted = 0; /* bit d: the axis at distance d from the end is new */
    const char *reason = look(w, n->in[0], depth, s);
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
static bool renames(const sdx_shape *from, const sdx_shape *into, seen *s)
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

static const char *look_reshape(walk *w, const sdx_node *n, int depth, seen *s)
{
    const sdx_shape *from = &sdx_match_type(w->g, n->in[0])->shape,
                    *into = &sdx_match_type(w->g, n->out[0])->shape;
    int to[SDX_MAX_RANK];
    const char *reason = look(w, n->in[0], depth, s);
    if (reason) return reason;
    if (from->rank >= 0 && into->rank >= 0 && reshape_axes(from, into, to) && move_axes(s, to)) return NULL;
    return renames(from, into, s) ? NULL : "a Reshape that is no Unsqueeze";
}

/* ---- Slice ---------------------------------------------------------------------------------------------- */

/* The slice along axis d begins at `start`; the result has `size` there. */
static const char *cut(sdx_model *model, seen *s, int d, sdx_element start, sdx_dim size)
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

static const char *look_slice(walk *w, const sdx_node *n, int depth, seen *s)
{
    int64_t axis, step = 1;
    int count = 0;
    sdx_element start;
    const sdx_shape *from = &sdx_match_type(w->g, n->in[0])->shape,
                    *into = &sdx_match_type(w->g, n->out[0])->shape;
    const char *reason = look(w, n->in[0], depth, s);
    if (!reason) reason = element(w, sdx_node_in(n, 1), &start);
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
static const char *look_grid(walk *w, sdx_id v, int depth, int axis[SDX_MAX_RANK], int *count)
{
    const sdx_node *concat = sdx_match_op(w->g, v, "Concat");
    if (!concat || !sdx_match_axis_is_last(w->g, concat, 0, v) || concat->n_in > SDX_MAX_RANK)
        return "indices that are not columns side by side";
    *count = concat->n_in;
    for (int k = 0; k < concat->n_in; k++) {
        seen s;
        const char *reason = look(w, concat->in[k], depth, &s);
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
static const char *look_scatter(walk *w, const sdx_node *n, int depth, seen *s)
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
    return look(w, n->in[2], depth, s);
}

/* Data at the coordinates themselves: its axes go where the coordinates run. The first elements of a longer
 * axis are taken to be all of them, as the mask must have the size of what it masks. */
static const char *look_gather(walk *w, const sdx_node *n, int depth, seen *s)
{
    int axis[SDX_MAX_RANK], count, to[SDX_MAX_RANK];
    const sdx_shape *data = &sdx_match_type(w->g, n->in[0])->shape,
                    *out = &sdx_match_type(w->g, n->out[0])->shape;
    const char *reason = look_grid(w, n->in[1], depth, axis, &count);
    if (!reason) reason = look(w, n->in[0], depth, s);
    if (reason) return reason;
    if (data->rank != count || sdx_node_int(n, "batch_dims", 0) != 0) return "a GatherND of whole rows";
    for (int d = 0; d < SDX_MAX_RANK; d++) to[d] = d < count ? axis[count - 1 - d] : -1;
    if (!move_axes(s, to)) return "an axis is lost";
    if (s->is_position || s->m.source == SDX_NONE) return NULL;
    s->m.batch_size = out->dim[out->rank - 1 - s->m.batch];
    s->m.key_size = out->dim[out->rank - 1 - s->m.key];
    return NULL;
}

/* ---- where positions and numbers come from -------------------------------------------------------------- */

static const char *look_range(walk *w, const sdx_node *n, seen *s)
{
    double step;
    *s = (seen){.is_position = true};
    const char *reason = element(w, n->in[0], &s->start);
    return !reason && !(sdx_graph_scalar(w->g, n->in[2], &step) && step == 1) ? "a Range with steps" : reason;
}

/* A triangle of x: where the column is k or more after the row (upper), or at most k (lower). */
static const char *look_trilu(walk *w, const sdx_node *n, int depth, seen *s)
{
    sdx_element k = sdx_element_number(0);
    bool upper = sdx_node_int(n, "upper", 1) != 0;
    const char *reason = look(w, n->in[0], depth, s);
    if (!reason && sdx_node_in(n, 1) != SDX_NONE) reason = element(w, n->in[1], &k);
    if (reason) return reason;
    if (s->is_position) return "a triangle of positions";
    seen column = {.axis = 0, .start = sdx_element_number(0)}, row = {.axis = 1};
    row.start =
        sdx_model_arith(w->g->model, '-', k, sdx_element_number(upper)); /* after: column > row + this */
    seen triangle = causal_seen(w->g->model, &column, &row, upper);
    EACH_CASE(i, c) s->m.at[i][c] = triangle.m.at[i][c] != 0 ? s->m.at[i][c] : 0;
    return join(&s->m, &triangle.m) ? NULL : "two orders";
}

static const char *look_filled(walk *w, const sdx_node *n, seen *s)
{
    const sdx_attr *value = sdx_node_attr(n, "value");
    if (value && (!value->tensor || sdx_tensor_count(value->tensor) != 1)) return "a bad ConstantOfShape";
    (void)w;
    *s = number_seen(value ? sdx_tensor_get_f64(value->tensor, 0) : 0);
    return NULL;
}

/* A stored table [1,..,rows,columns]: the same number everywhere, or one number up to the diagonal, another
 * after. */
static const char *look_table(const sdx_tensor *t, seen *s)
{
    enum { MOST = 1 << 24 };
    int64_t count = sdx_tensor_count(t), columns = t->rank ? t->dim[t->rank - 1] : 1;
    int64_t rows = t->rank > 1 ? t->dim[t->rank - 2] : 1;
    if (t->dtype == SDX_STRING || count == 0 || count > MOST) return "a table that is not read";
    double before = sdx_tensor_get_f64(t, 0), after = columns > 1 ? sdx_tensor_get_f64(t, 1) : before;
    bool triangle = count == rows * columns && rows > 1, uniform = true;
    for (int64_t i = 0; i < count && (triangle || uniform); i++) {
        double x = sdx_tensor_get_f64(t, i);
        uniform &= x == before;
        triangle &= x == (i % columns > i / columns ? after : before);
    }
    if (uniform) return *s = number_seen(before), NULL;
    if (!triangle) return "a table that is no triangle";
    *s = number_seen(before);
    s->m.at[0][1] = s->m.at[1][1] = after;
    s->m.causal = true;
    s->m.column = 0;
    s->m.row = 1;
    s->m.shift = sdx_element_number(0);
    return NULL;
}

/* A graph input, also when a subgraph captures it. */
static bool is_graph_input(const sdx_graph *g, sdx_id v)
{
    for (; g->value[v].outer != SDX_NONE; g = g->parent) v = g->value[v].outer;
    return g->value[v].is_input && !g->parent;
}

static const char *look_input(walk *w, sdx_id v, seen *s)
{
    const sdx_type *type = sdx_match_type(w->g, v);
    bool number =
        sdx_dtype_is_integer(type->dtype) || sdx_dtype_is_float(type->dtype) || type->dtype == SDX_BOOL;
    if (!is_graph_input(w->g, v) || type->shape.rank != 2 || !number)
        return "the mask is not a graph input [batch, keys]";
    *s = (seen){.m = {.at = {{0, 0}, {1, 1}},
                      .source = v,
                      .batch = 1,
                      .key = 0,
                      .batch_size = type->shape.dim[0],
                      .key_size = type->shape.dim[1]}};
    return NULL;
}

/* ---- the walk ------------------------------------------------------------------------------------------- */

static const struct rule {
    const char *op_type;
    const char *(*look)(walk *w, const sdx_node *n, int depth, seen *s);
} rules[] = {
    {"Unsqueeze", look_unsqueeze}, {"Reshape", look_reshape}, {"Cast", look_cast},
    {"Where", look_where},         {"Slice", look_slice},     {"Not", look_not},
    {"ScatterND", look_scatter},   {"GatherND", look_gather}, {"Trilu", look_trilu},
};

static const char *look(walk *w, sdx_id v, int depth, seen *s)
{
    double number;
    if (v == SDX_NONE || depth == 0 || w->steps-- == 0) return "the mask's subgraph is too deep";
    if (sdx_graph_scalar(w->g, v, &number)) return *s = number_seen(number), NULL;
    if (sdx_graph_constant(w->g, v)) return look_table(sdx_graph_constant(w->g, v), s);
    const sdx_node *n = sdx_graph_producer(w->g, v);
    if (!n) return look_input(w, v, s);
    if (sdx_match_is(n, "Expand") || sdx_match_is(n, "Identity")) return look(w, n->in[0], depth - 1, s);
    if (sdx_match_is(n, "Range")) return look_range(w, n, s);
    if (sdx_match_is(n, "ConstantOfShape")) return look_filled(w, n, s);
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (sdx_match_is(n, rules[i].op_type)) return rules[i].look(w, n, depth - 1, s);
    for (size_t i = 0; i < sizeof binaries / sizeof *binaries; i++)
        if (sdx_match_is(n, binaries[i].op_type) && n->n_in == 2)
            return look_binary(w, n, &binaries[i], depth - 1, s);
    return "an operator that is not mask arithmetic";
}

static const char *look_mask(walk *w, sdx_id v, int depth, sdx_mask *m)
{
    seen s;
    const char *reason = look(w, v, depth, &s);
    if (reason) return reason;
    *m = s.m;
    return s.is_position ? "a position, not a mask" : NULL;
}

const char *sdx_match_mask(const sdx_graph *g, sdx_id v, sdx_mask *mask)
{
    walk w = {g, STEPS};
    return look_mask(&w, v, DEPTH, mask);
}
