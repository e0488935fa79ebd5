/* mask.c: evaluating a mask's subgraph for every case; see mask.h.
 *
 * What is walked through is either a condition (a number for each case) or a position, the index along one axis
 * plus a start, as Range makes it. Comparing a position along one axis with one along another makes a causal
 * condition. Where operators move the axes, mask_axes.c follows. */
#include <math.h>

#include "mask_walk.h"

enum { STEPS = 600, DEPTH = 40 }; /* nodes looked at, however often the same */

static const char *look_mask(sdx_mask_walk *w, sdx_id v, int depth, sdx_mask *m);

static sdx_seen number_seen(double number)
{
    return (sdx_seen){.m = {.at = {{number, number}, {number, number}}, .source = SDX_NONE}};
}

const char *sdx_mask_element(sdx_mask_walk *w, sdx_id v, sdx_element *e)
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
static sdx_seen causal_seen(sdx_model *model, const sdx_seen *column, const sdx_seen *row, bool after)
{
    sdx_seen s = number_seen(0);
    s.m.at[0][after] = s.m.at[1][after] = 1;
    s.m.causal = true;
    s.m.column = column->axis;
    s.m.row = row->axis;
    s.m.shift = sdx_model_arith(model, '-', row->start, column->start);
    return s;
}

static const char *look_positions(sdx_mask_walk *w, const sdx_node *n, const sdx_seen *a, const sdx_seen *b,
                                  sdx_seen *s)
{
    sdx_model *model = w->g->model;
    if (a->axis == b->axis) return "positions along one axis are compared";
    if (sdx_match_is(n, "Greater")) return *s = causal_seen(model, a, b, true), NULL;
    if (sdx_match_is(n, "Less")) return *s = causal_seen(model, b, a, true), NULL;
    if (sdx_match_is(n, "LessOrEqual")) return *s = causal_seen(model, a, b, false), NULL;
    if (sdx_match_is(n, "GreaterOrEqual")) return *s = causal_seen(model, b, a, false), NULL;
    return "arithmetic on positions";
}

static const char *look_binary(sdx_mask_walk *w, const sdx_node *n, const struct binary *op, int depth, sdx_seen *s)
{
    sdx_seen a, b;
    const char *reason = sdx_mask_look(w, n->in[0], depth, &a);
    if (!reason) reason = sdx_mask_look(w, n->in[1], depth, &b);
    if (reason) return reason;
    if (a.is_position && b.is_position) return look_positions(w, n, &a, &b, s);
    if (a.is_position || b.is_position) return "arithmetic on positions";
    *s = a;
    EACH_CASE(i, k) s->m.at[i][k] = op->of(a.m.at[i][k], b.m.at[i][k]);
    return join(&s->m, &b.m) ? NULL : "the mask mixes two inputs, or two orders";
}

static const char *look_where(sdx_mask_walk *w, const sdx_node *n, int depth, sdx_seen *s)
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

static const char *look_cast(sdx_mask_walk *w, const sdx_node *n, int depth, sdx_seen *s)
{
    const char *reason = sdx_mask_look(w, n->in[0], depth, s);
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

static const char *look_not(sdx_mask_walk *w, const sdx_node *n, int depth, sdx_seen *s)
{
    *s = number_seen(0);
    const char *reason = look_mask(w, n->in[0], depth, &s->m);
    EACH_CASE(i, k) s->m.at[i][k] = s->m.at[i][k] == 0;
    return reason;
}

/* ---- where positions and numbers come from -------------------------------------------------------------- */

static const char *look_range(sdx_mask_walk *w, const sdx_node *n, sdx_seen *s)
{
    double step;
    *s = (sdx_seen){.is_position = true};
    const char *reason = sdx_mask_element(w, n->in[0], &s->start);
    return !reason && !(sdx_graph_scalar(w->g, n->in[2], &step) && step == 1) ? "a Range with steps" : reason;
}

/* A triangle of x: where the column is k or more after the row (upper), or at most k (lower). */
static const char *look_trilu(sdx_mask_walk *w, const sdx_node *n, int depth, sdx_seen *s)
{
    sdx_element k = sdx_element_number(0);
    bool upper = sdx_node_int(n, "upper", 1) != 0;
    const char *reason = sdx_mask_look(w, n->in[0], depth, s);
    if (!reason && sdx_node_in(n, 1) != SDX_NONE) reason = sdx_mask_element(w, n->in[1], &k);
    if (reason) return reason;
    if (s->is_position) return "a triangle of positions";
    sdx_seen column = {.axis = 0, .start = sdx_element_number(0)}, row = {.axis = 1};
    row.start =
        sdx_model_arith(w->g->model, '-', k, sdx_element_number(upper)); /* after: column > row + this */
    sdx_seen triangle = causal_seen(w->g->model, &column, &row, upper);
    EACH_CASE(i, c) s->m.at[i][c] = triangle.m.at[i][c] != 0 ? s->m.at[i][c] : 0;
    return join(&s->m, &triangle.m) ? NULL : "two orders";
}

static const char *look_filled(sdx_mask_walk *w, const sdx_node *n, sdx_seen *s)
{
    const sdx_attr *value = sdx_node_attr(n, "value");
    if (value && (!value->tensor || sdx_tensor_count(value->tensor) != 1)) return "a bad ConstantOfShape";
    (void)w;
    *s = number_seen(value ? sdx_tensor_get_f64(value->tensor, 0) : 0);
    return NULL;
}

/* A stored table [1,..,rows,columns]: the same number everywhere, or one number up to the diagonal, another
 * after. */
static const char *look_table(const sdx_tensor *t, sdx_seen *s)
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

static const char *look_input(sdx_mask_walk *w, sdx_id v, sdx_seen *s)
{
    const sdx_type *type = sdx_match_type(w->g, v);
    bool number =
        sdx_dtype_is_integer(type->dtype) || sdx_dtype_is_float(type->dtype) || type->dtype == SDX_BOOL;
    if (!is_graph_input(w->g, v) || type->shape.rank != 2 || !number)
        return "the mask is not a graph input [batch, keys]";
    *s = (sdx_seen){.m = {.at = {{0, 0}, {1, 1}},
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
    const char *(*look)(sdx_mask_walk *w, const sdx_node *n, int depth, sdx_seen *s);
} rules[] = {
    {"Unsqueeze", sdx_mask_unsqueeze}, {"Reshape", sdx_mask_reshape}, {"Cast", look_cast},
    {"Where", look_where},             {"Slice", sdx_mask_slice},     {"Not", look_not},
    {"ScatterND", sdx_mask_scatter},   {"GatherND", sdx_mask_gather}, {"Trilu", look_trilu},
};

const char *sdx_mask_look(sdx_mask_walk *w, sdx_id v, int depth, sdx_seen *s)
{
    double number;
    if (v == SDX_NONE || depth == 0 || w->steps-- == 0) return "the mask's subgraph is too deep";
    if (sdx_graph_scalar(w->g, v, &number)) return *s = number_seen(number), NULL;
    if (sdx_graph_constant(w->g, v)) return look_table(sdx_graph_constant(w->g, v), s);
    const sdx_node *n = sdx_graph_producer(w->g, v);
    if (!n) return look_input(w, v, s);
    if (sdx_match_is(n, "Expand") || sdx_match_is(n, "Identity")) return sdx_mask_look(w, n->in[0], depth - 1, s);
    if (sdx_match_is(n, "Range")) return look_range(w, n, s);
    if (sdx_match_is(n, "ConstantOfShape")) return look_filled(w, n, s);
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (sdx_match_is(n, rules[i].op_type)) return rules[i].look(w, n, depth - 1, s);
    for (size_t i = 0; i < sizeof binaries / sizeof *binaries; i++)
        if (sdx_match_is(n, binaries[i].op_type) && n->n_in == 2)
            return look_binary(w, n, &binaries[i], depth - 1, s);
    return "an operator that is not mask arithmetic";
}

static const char *look_mask(sdx_mask_walk *w, sdx_id v, int depth, sdx_mask *m)
{
    sdx_seen s;
    const char *reason = sdx_mask_look(w, v, depth, &s);
    if (reason) return reason;
    *m = s.m;
    return s.is_position ? "a position, not a mask" : NULL;
}

const char *sdx_match_mask(const sdx_graph *g, sdx_id v, sdx_mask *mask)
{
    sdx_mask_walk w = {g, STEPS};
    return look_mask(&w, v, DEPTH, mask);
}
