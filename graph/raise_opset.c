/* raise_opset.c: a graph written for an older opset of the standard operators, in the words of a newer one.
 *
 * Most operators only learned new types. Those that changed what a node must look like, or what it means, have a row
 * below with the opset that changed them (onnx/docs/Changelog.md): a node from before gets the row's function, one
 * after the other until it is as the wanted opset has it. A row without a function is refused by name: such a graph
 * has to be exported again. */
#include <float.h>
#include <stdio.h>
#include <string.h>

#include "op.h"

typedef struct raiser {
    sdx_model *model;
    sdx_graph *g;
    sdx_id node;
    sdx_error *err;
} raiser;

/* ---- attributes and inputs ------------------------------------------------------------------------------- */

static sdx_node *node_of(const raiser *r)
{
    return &r->g->node[r->node];
}

static void drop_attribute(const raiser *r, const char *name)
{
    sdx_node *n = node_of(r);
    for (int i = 0; i < n->n_attr; i++)
        if (!strcmp(n->attr[i].name, name)) n->attr[i--] = n->attr[--n->n_attr];
}

static sdx_status set_input(const raiser *r, int at, sdx_id value)
{
    sdx_node *n = node_of(r);
    if (at >= n->n_in) {
        sdx_id *in;
        ARENA_NEW(&r->model->arena, in, (size_t)at + 1, r->err);
        for (int i = 0; i <= at; i++) in[i] = i < n->n_in ? n->in[i] : SDX_NONE;
        n->in = in;
        n->n_in = at + 1;
    }
    n->in[at] = value;
    return SDX_OK;
}

/* Attribute `name`, a list of integers, becomes input `at`. */
static sdx_status ints_to_input(const raiser *r, const char *name, int at)
{
    size_t count = 0;
    const int64_t *ints = sdx_node_ints(node_of(r), name, &count);
    sdx_id value;
    if (!ints) return SDX_OK;
    TRY(sdx_graph_add_ints(r->g, name, (int)count, ints, &value, r->err));
    drop_attribute(r, name);
    return set_input(r, at, value);
}

static sdx_status float_to_input(const raiser *r, const char *name, float missing, int at)
{
    float number = sdx_node_float(node_of(r), name, missing);
    sdx_id value;
    drop_attribute(r, name);
    if (number == missing) return SDX_OK;
    TRY(sdx_graph_add_scalar_f32(r->g, name, number, &value, r->err));
    return set_input(r, at, value);
}

static const sdx_type *type_in(const raiser *r, int i)
{
    static const sdx_type unknown = {.shape = {.rank = -1}};
    sdx_id v = sdx_node_in(node_of(r), i);
    return v == SDX_NONE ? &unknown : &r->g->value[v].type;
}

static sdx_status refuse(const raiser *r, const char *why)
{
    char where[SDX_NODE_TEXT];
    return sdx_fail(r->err, SDX_ERR_UNSUPPORTED, "%s: %s cannot be raised to a newer opset: %s; export again for one",
                    r->model->path, sdx_node_format(node_of(r), where, sizeof where), why);
}

/* ---- one change each ------------------------------------------------------------------------------------- */

static sdx_status axes_to_input(const raiser *r)
{
    return ints_to_input(r, "axes", 1);
}

static sdx_status split_to_input(const raiser *r)
{
    return ints_to_input(r, "split", 1);
}

/* Equal parts have to be counted. */
static sdx_status count_parts(const raiser *r)
{
    if (sdx_node_in(node_of(r), 1) != SDX_NONE) return SDX_OK;
    return sdx_node_set_int(r->g, r->node, "num_outputs", node_of(r)->n_out, r->err);
}

/* From one axis on everything was one row; then, one axis. The same where that axis is the last. */
static sdx_status softmax_of_rows(const raiser *r)
{
    int rank = type_in(r, 0)->shape.rank;
    int64_t axis = sdx_node_int(node_of(r), "axis", 1);
    if (axis != -1 && (rank <= 0 || axis != rank - 1)) return refuse(r, "it normalizes several axes at once");
    return sdx_node_set_int(r->g, r->node, "axis", -1, r->err);
}

static sdx_status dropout_of_inference(const raiser *r)
{
    sdx_id mask = sdx_node_out(node_of(r), 1);
    if (mask != SDX_NONE && (r->g->value[mask].uses > 0 || r->g->value[mask].is_output))
        return refuse(r, "its mask is read, and had another type");
    drop_attribute(r, "ratio");
    return SDX_OK;
}

static sdx_status clip_to_inputs(const raiser *r)
{
    if (type_in(r, 0)->dtype != SDX_F32) return refuse(r, "its bounds are of a type that is not known");
    TRY(float_to_input(r, "min", -FLT_MAX, 1));
    return float_to_input(r, "max", FLT_MAX, 2);
}

static sdx_status pad_to_inputs(const raiser *r)
{
    if (type_in(r, 0)->dtype != SDX_F32) return refuse(r, "its value is of a type that is not known");
    TRY(ints_to_input(r, "pads", 1));
    return float_to_input(r, "value", 0, 2);
}

static sdx_status slice_to_inputs(const raiser *r)
{
    TRY(ints_to_input(r, "starts", 1));
    TRY(ints_to_input(r, "ends", 2));
    return ints_to_input(r, "axes", 3);
}

static sdx_status k_to_input(const raiser *r)
{
    int64_t k = sdx_node_int(node_of(r), "k", 0);
    sdx_id value;
    drop_attribute(r, "k");
    TRY(sdx_graph_add_ints(r->g, "k", 1, &k, &value, r->err));
    return set_input(r, 1, value);
}

static sdx_status scatter_elements(const raiser *r)
{
    node_of(r)->op_type = "ScatterElements";
    return SDX_OK;
}

static sdx_status normalize_in_inference(const raiser *r)
{
    if (node_of(r)->n_out > 1 || !sdx_node_int(node_of(r), "spatial", 1))
        return refuse(r, "it trains, or has a mean for every place");
    drop_attribute(r, "spatial");
    return SDX_OK;
}

static sdx_status name_the_grid_modes(const raiser *r)
{
    const char *mode = sdx_node_string(node_of(r), "mode", "bilinear");
    if (!strcmp(mode, "nearest")) return SDX_OK;
    return sdx_node_set_string(r->g, r->node, "mode", !strcmp(mode, "bicubic") ? "cubic" : "linear", r->err);
}

static sdx_status keep_half_pixels(const raiser *r)
{
    static const char name[] = "coordinate_transformation_mode";
    if (sdx_node_attr(node_of(r), name)) return SDX_OK;
    return sdx_node_set_string(r->g, r->node, name, "output_half_pixel", r->err);
}

static sdx_status pool_to_the_end(const raiser *r)
{
    return sdx_node_int(node_of(r), "ceil_mode", 0) ? refuse(r, "ceil_mode averaged otherwise") : SDX_OK;
}

/* Of an operator, rows in the order of their opsets. */
static const struct change {
    const char *op_type;
    int64_t since;
    sdx_status (*adapt)(const raiser *r);
    const char *refused;
} changes[] = {
    {"AveragePool", 19, pool_to_the_end, NULL},
    {"BatchNormalization", 14, normalize_in_inference, NULL},
    {"Clip", 11, clip_to_inputs, NULL},
    {"DFT", 20, NULL, "its axis became an input"},
    {"Dropout", 12, dropout_of_inference, NULL},
    {"GridSample", 20, name_the_grid_modes, NULL},
    {"GroupNormalization", 21, NULL, "scale and bias are of channels, no longer of groups"},
    {"Hardmax", 13, softmax_of_rows, NULL},
    {"LogSoftmax", 13, softmax_of_rows, NULL},
    {"Pad", 11, pad_to_inputs, NULL},
    {"ReduceL1", 18, axes_to_input, NULL},
    {"ReduceL2", 18, axes_to_input, NULL},
    {"ReduceLogSum", 18, axes_to_input, NULL},
    {"ReduceLogSumExp", 18, axes_to_input, NULL},
    {"ReduceMax", 18, axes_to_input, NULL},
    {"ReduceMean", 18, axes_to_input, NULL},
    {"ReduceMin", 18, axes_to_input, NULL},
    {"ReduceProd", 18, axes_to_input, NULL},
    {"ReduceSum", 13, axes_to_input, NULL},
    {"ReduceSumSquare", 18, axes_to_input, NULL},
    {"Resize", 11, NULL, "pixels were placed otherwise"},
    {"RoiAlign", 16, keep_half_pixels, NULL},
    {"Scan", 9, NULL, "it had a batch axis"},
    {"Scatter", 11, scatter_elements, NULL},
    {"Slice", 10, slice_to_inputs, NULL},
    {"Softmax", 13, softmax_of_rows, NULL},
    {"Split", 13, split_to_input, NULL},
    {"Split", 18, count_parts, NULL},
    {"Squeeze", 13, axes_to_input, NULL},
    {"TopK", 10, k_to_input, NULL},
    {"Unsqueeze", 13, axes_to_input, NULL},
    {"Upsample", 10, NULL, "Resize took its place, and places pixels otherwise"},
};

/* ---- the whole ------------------------------------------------------------------------------------------- */

static sdx_status raise_node(const raiser *r, int64_t from, int64_t to)
{
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        const struct change *c = &changes[i];
        if (c->since <= from || c->since > to || !sdx_node_is(node_of(r), c->op_type)) continue;
        TRY(c->adapt ? c->adapt(r) : refuse(r, c->refused));
    }
    node_of(r)->version = 0;
    return SDX_OK;
}

int64_t sdx_model_newest_opset(const sdx_model *model)
{
    int64_t newest = sdx_model_opset(model, "");
    for (const sdx_graph *g = model->graphs; g; g = g->next)
        for (sdx_id i = 0; i < g->n_node; i++)
            if (!*g->node[i].domain && g->node[i].version > newest) newest = g->node[i].version;
    return newest;
}

sdx_status sdx_model_raise_opset(sdx_model *model, int64_t to, sdx_error *err)
{
    enum { OLDEST = 7 }; /* before, operands of arithmetic were broadcast by attributes */
    int64_t own = sdx_model_opset(model, "");
    for (sdx_graph *g = model->graphs; g; g = g->next) {
        TRY(sdx_graph_index(g, err));
        for (sdx_id i = 0; i < g->n_node; i++) {
            raiser r = {model, g, i, err};
            int64_t from = g->node[i].version ? g->node[i].version : own;
            if (*g->node[i].domain || g->node[i].dead || from >= to) continue;
            if (from < OLDEST) return refuse(&r, "its opset is older than 7");
            TRY(raise_node(&r, from, to));
        }
    }
    return own < to ? sdx_model_set_opset(model, "", to, err) : SDX_OK;
}
