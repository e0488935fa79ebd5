/* qlinear.c: com.microsoft QLinearAdd, Mul, Sigmoid, LeakyRelu, Softmax, Concat, Where, AveragePool and
 * GlobalAveragePool: the float operator of the same name between a DequantizeLinear of every 8-bit input and a
 * QuantizeLinear of the output.
 *
 *     x = (q - zero) * scale;   y = f(x, ...);   q = saturate(round_half_even(y / scale) + zero)
 * So each is a row of `forms`, which says where values, scales and zero points are among the inputs, and the
 * work is the float operator's own: it sees a copy of the node with the values as its inputs, of type float32.
 *
 * Workspace: [every value as float32] [the result as float32] and the float operator's own.
 */
#include <string.h>

#include "compute.h"
#include "contents.h"

enum { MOST_VALUES = 64 };

/* Where the scales are applied. A sum of codes by the ratio of two scales, and a product of codes, are exact where
 * rounding each value first is not: ties fall as in ONNX Runtime, and large scales do not overflow. */
typedef enum scaling {
    SCALE_VALUES, /* x = (q - zero) * scale; y / scale */
    SCALE_RATIOS, /* x = (q - zero) * (scale / y's scale); y as it is */
    SCALE_RESULT  /* x = q - zero; y / (y's scale / all scales) */
} scaling;

typedef struct form {
    const char *name, *op; /* the float operator's */
    int version;           /* of ai.onnx in which it is looked up; 0: the attribute "opset" */
    int plain;             /* leading inputs that it gets as they are */
    int first, values;     /* (value, scale, zero point) from input `first` on; values -1: up to the last */
    int y_scale;           /* the zero point is next to it */
    scaling scaling;
} form;

static const form forms[] = {
    {"QLinearAdd", "Add", 14, 0, 0, 2, 6, SCALE_RATIOS},
    {"QLinearMul", "Mul", 14, 0, 0, 2, 6, SCALE_RESULT},
    {"QLinearSigmoid", "Sigmoid", 13, 0, 0, 1, 3, SCALE_VALUES},
    {"QLinearLeakyRelu", "LeakyRelu", 16, 0, 0, 1, 3, SCALE_VALUES},
    {"QLinearSoftmax", "Softmax", 0, 0, 0, 1, 3, SCALE_VALUES},
    {"QLinearConcat", "Concat", 13, 0, 2, -1, 0, SCALE_VALUES},
    {"QLinearWhere", "Where", 16, 1, 1, 2, 7, SCALE_VALUES},
    {"QLinearAveragePool", "AveragePool", 11, 0, 0, 1, 3, SCALE_VALUES},
    {"QLinearGlobalAveragePool", "GlobalAveragePool", 1, 0, 0, 1, 3, SCALE_VALUES},
};

/* A node of the float operator, and which inputs of the quantized one are its own. */
typedef struct inner {
    const form *form;
    const sdx_op_def *def;
    sdx_node node;
    int n;
    int from[MOST_VALUES];
    sdx_id in[MOST_VALUES];
} inner;

static sdx_status make_inner(const sdx_node *node, inner *out, sdx_error *err)
{
    const form *f = forms;
    while (strcmp(f->name, node->op_type)) f++;
    int values = f->values >= 0 ? f->values : (node->n_in - f->first) / 3;
    *out = (inner){.form = f, .node = *node, .n = f->plain + values};
    if (f->values < 0 && (node->n_in - f->first) % 3)
        return sdx_fail(err, SDX_ERR_FILE, "inputs from %d on must be (value, scale, zero point)", f->first);
    if (out->n > MOST_VALUES)
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "more than %d inputs are not supported", MOST_VALUES);
    int64_t version = f->version ? f->version : sdx_node_int(node, "opset", 13);
    out->def = sdx_op_find(&sdx_operators, "", f->op, version);
    if (!out->def) return sdx_fail(err, SDX_ERR_UNSUPPORTED, "%s-%lld is not known", f->op, (long long)version);
    for (int i = 0; i < out->n; i++) {
        out->from[i] = i < f->plain ? i : f->first + 3 * (i - f->plain);
        out->in[i] = sdx_node_in(node, out->from[i]);
    }
    out->node.op_type = f->op;
    out->node.domain = "";
    out->node.def = out->def;
    out->node.in = out->in;
    out->node.n_in = out->n;
    return SDX_OK;
}

#define INNER(name, of, err)                                                                                   \
    inner name;                                                                                                \
    TRY(make_inner(of, &name, err))

/* ---- infer ----------------------------------------------------------------------------------------------- */

static sdx_status want_number(const sdx_infer *infer, int i, const char *name)
{
    int64_t count = sdx_shape_count(&sdx_infer_in(infer, i)->shape);
    if (!sdx_infer_has(infer, i) || count < 0 || count == 1) return SDX_OK;
    return sdx_fail(infer->err, SDX_ERR_USAGE, "%s (input %d) must be one number", name, i);
}

static sdx_status check_triple(const sdx_infer *infer, int value, int scale, int type)
{
    TRY(sdx_want_present(infer, scale, "a scale"));
    TRY(sdx_want_dtype(infer, scale, "a scale", SDX_SET(SDX_F32)));
    TRY(want_number(infer, scale, "a scale"));
    TRY(sdx_want_same_dtype(infer, scale + 1, "a zero point", type, "the value"));
    TRY(want_number(infer, scale + 1, "a zero point"));
    if (value < 0) return SDX_OK;
    TRY(sdx_want_present(infer, value, "a value"));
    TRY(sdx_want_dtype(infer, value, "a value", SDX_SET_BYTE));
    return sdx_want_same_dtype(infer, value, "a value", type, "the first one");
}

static sdx_status infer_qlinear(sdx_infer *infer)
{
    INNER(in, infer->node, infer->err);
    int first = in.from[in.form->plain];
    sdx_type type[MOST_VALUES];
    if (sdx_node_int(infer->node, "channels_last", 0))
        return sdx_fail(infer->err, SDX_ERR_UNSUPPORTED, "channels_last is not supported");
    if (in.n == in.form->plain) return sdx_fail(infer->err, SDX_ERR_FILE, "there are no values");
    TRY(check_triple(infer, -1, in.form->y_scale, first));
    for (int i = 0; i < in.n; i++) {
        if (in.from[i] >= infer->n_in) return sdx_want_present(infer, in.from[i], "a value");
        if (i >= in.form->plain) TRY(check_triple(infer, in.from[i], in.from[i] + 1, first));
        type[i] = infer->in[in.from[i]];
        if (i < in.form->plain) continue;
        type[i].dtype = type[i].dtype == SDX_UNDEFINED ? SDX_UNDEFINED : SDX_F32;
        type[i].constant = NULL;
        type[i].contents = NULL;
    }
    sdx_infer own = *infer;
    own.node = &in.node;
    own.n_in = in.n;
    own.in = type;
    TRY(in.def->infer(&own));
    infer->out[0].dtype = infer->in[first].dtype;
    return SDX_OK;
}

/* ---- prepare and plan ------------------------------------------------------------------------------------ */

typedef struct qlinear {
    const void *own; /* the float operator's state */
} qlinear;

static sdx_status prepare_qlinear(sdx_prepare *p)
{
    INNER(in, p->node, p->err);
    qlinear *state;
    PREPARE_STATE(p, state);
    if (!in.def->prepare) return SDX_OK;
    sdx_type type[MOST_VALUES];
    for (int i = 0; i < in.n; i++) {
        type[i] = p->in[in.from[i]];
        type[i].constant = NULL;
        if (i >= in.form->plain) type[i].dtype = SDX_F32;
    }
    sdx_prepare own = *p;
    own.node = &in.node;
    own.n_in = in.n;
    own.in = type;
    own.state = NULL;
    TRY(in.def->prepare(&own));
    state->own = own.state;
    return SDX_OK;
}

static sdx_status plan_qlinear(sdx_plan_step *step)
{
    INNER(in, step->node, step->err);
    sdx_type type[MOST_VALUES], result = step->out[0];
    size_t *total = &step->workspace;
    bool ok = sdx_workspace_add(total, (size_t)sdx_shape_count(&result.shape), sizeof(float));
    for (int i = 0; i < in.n; i++) {
        type[i] = step->in[in.from[i]];
        if (i < in.form->plain) continue;
        type[i].dtype = SDX_F32;
        type[i].constant = NULL;
        ok = ok && sdx_workspace_add(total, (size_t)sdx_shape_count(&type[i].shape), sizeof(float));
    }
    result.dtype = SDX_F32;
    sdx_plan_step own = *step;
    own.node = &in.node;
    own.state = ((const qlinear *)step->state)->own;
    own.n_in = in.n;
    own.in = type;
    own.out = &result;
    own.workspace = 0;
    if (in.def->plan) TRY(in.def->plan(&own));
    return ok && sdx_workspace_add(total, 1, own.workspace) ? SDX_OK : sdx_workspace_fail(step->err);
}

/* ---- run ------------------------------------------------------------------------------------------------- */

static float read_scale(const sdx_run *run, int i)
{
    return (float)sdx_tensor_get_f64(&run->in[i], 0);
}

static int32_t read_zero(const sdx_run *run, int i)
{
    return sdx_run_has_in(run, i) ? (int32_t)sdx_tensor_get_i64(&run->in[i], 0) : 0;
}

/* What the codes of input i are multiplied by. */
static float value_scale(const sdx_run *run, const form *f, int i)
{
    if (f->scaling == SCALE_RESULT) return 1;
    float scale = read_scale(run, i + 1);
    return f->scaling == SCALE_RATIOS ? scale / read_scale(run, f->y_scale) : scale;
}

/* What the result is divided by. */
static float result_scale(const sdx_run *run, const inner *in)
{
    if (in->form->scaling == SCALE_RATIOS) return 1;
    float scale = read_scale(run, in->form->y_scale);
    for (int i = 0; i < in->n && in->form->scaling == SCALE_RESULT; i++) scale /= read_scale(run, in->from[i] + 1);
    return scale;
}

/* The value at input i as float32, in the workspace. */
static sdx_tensor dequantize(const sdx_run *run, int i, float scale, char **workspace)
{
    sdx_tensor q = run->in[i], x = q;
    int64_t n = sdx_tensor_count(&q);
    x.dtype = SDX_F32;
    x.data = sdx_workspace_take(workspace, (size_t)n * sizeof(float));
    int32_t zero = read_zero(run, i + 2);
    if (q.dtype == SDX_U8)
        run->kernels->quantize.u8_f32(n, q.data, scale, zero, x.data);
    else
        run->kernels->quantize.s8_f32(n, q.data, scale, zero, x.data);
    return x;
}

static void quantize(const sdx_run *run, const sdx_tensor *y, float scale, int32_t zero)
{
    int64_t n = sdx_tensor_count(y);
    if (run->out[0].dtype == SDX_U8)
        run->kernels->quantize.f32_u8(n, y->data, scale, zero, run->out[0].data);
    else
        run->kernels->quantize.f32_s8(n, y->data, scale, zero, run->out[0].data);
}

static sdx_status run_qlinear(sdx_run *run)
{
    INNER(in, run->node, run->err);
    sdx_tensor value[MOST_VALUES], result = run->out[0];
    char *workspace = run->workspace;
    result.dtype = SDX_F32;
    result.data = sdx_workspace_take(&workspace, (size_t)sdx_tensor_count(&result) * sizeof(float));
    for (int i = 0; i < in.n; i++)
        value[i] = i < in.form->plain
                       ? run->in[in.from[i]]
                       : dequantize(run, in.from[i], value_scale(run, in.form, in.from[i]), &workspace);
    sdx_run own = *run;
    own.node = &in.node;
    own.state = ((const qlinear *)run->state)->own;
    own.n_in = in.n;
    own.in = value;
    own.out = &result;
    own.workspace = workspace;
    TRY(in.def->run(&own));
    quantize(run, &result, result_scale(run, &in), read_zero(run, in.form->y_scale + 1));
    return SDX_OK;
}

#define ROW(name, least, most)                                                                                 \
    {                                                                                                          \
        "com.microsoft", name, 1, 0, least, most, 1, 1, 0, infer_qlinear, prepare_qlinear, plan_qlinear,       \
            run_qlinear                                                                                        \
    }
static const sdx_op_def rows[] = {
    ROW("QLinearAdd", 2, 8),       ROW("QLinearMul", 2, 8),         ROW("QLinearSigmoid", 2, 5),
    ROW("QLinearLeakyRelu", 2, 5), ROW("QLinearSoftmax", 2, 5),     ROW("QLinearConcat", 2, -1),
    ROW("QLinearWhere", 3, 9),     ROW("QLinearAveragePool", 2, 5), ROW("QLinearGlobalAveragePool", 2, 5),
};

SDX_OP_TABLE(qlinear);
