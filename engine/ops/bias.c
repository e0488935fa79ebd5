/* bias.c: com.microsoft's fusions around an added bias that diffusion models use:
 *
 *     BiasAdd        y = x + bias + skip
 *     BiasSplitGelu  y = a * gelu(b), where a and b are the halves of x + bias along the last dim
 *     BiasSoftmax    y = softmax(x + bias), where the bias repeats over part of the leading dims
 */
#include <math.h>

#include "compute.h"
#include "contents.h"

/* ---- BiasAdd and BiasSplitGelu --------------------------------------------------------------------------- */

static sdx_status check_bias_row(const sdx_infer *infer)
{
    TRY(sdx_want_dtype(infer, 0, "the input", SDX_SET(SDX_F32)));
    TRY(sdx_want_same_dtype(infer, 1, "the bias", 0, "the input"));
    TRY(sdx_want_rank(infer, 0, "the input", 3, 3));
    TRY(sdx_want_rank(infer, 1, "the bias", 1, 1));
    return sdx_want_dim(infer, 1, "the bias", 0, sdx_type_dim(&infer->in[0], 2));
}

static sdx_status infer_add(sdx_infer *infer)
{
    TRY(check_bias_row(infer));
    TRY(sdx_want_same_dtype(infer, 2, "skip", 0, "the input"));
    TRY(sdx_want_rank(infer, 2, "skip", 3, 3));
    for (int d = 0; d < 3; d++) TRY(sdx_want_dim(infer, 2, "skip", d, sdx_type_dim(&infer->in[0], d)));
    return sdx_infer_same(infer);
}

static sdx_status infer_split_gelu(sdx_infer *infer)
{
    TRY(check_bias_row(infer));
    sdx_shape shape = infer->in[0].shape;
    if (shape.rank == 3 && shape.dim[2] >= 0) {
        if (shape.dim[2] % 2)
            return sdx_fail(infer->err, SDX_ERR_USAGE, "%lld columns are not two halves",
                            (long long)shape.dim[2]);
        shape.dim[2] /= 2;
    } else if (shape.rank == 3) {
        shape.dim[2] = SDX_DIM_UNKNOWN;
    }
    sdx_infer_set(infer, 0, SDX_F32, &shape);
    return SDX_OK;
}

static void add_rows(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const sdx_run *run = context;
    int64_t n = run->in[0].dim[2];
    for (int64_t i = begin; i < end; i++) {
        const float *x = (const float *)run->in[0].data + i * n, *skip = (const float *)run->in[2].data + i * n;
        float *y = (float *)run->out[0].data + i * n;
        run->kernels->element.binary_f32[SDX_BINARY_ADD](n, x, 1, run->in[1].data, 1, y);
        run->kernels->element.binary_f32[SDX_BINARY_ADD](n, y, 1, skip, 1, y);
    }
}

static void split_gelu_rows(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const sdx_run *run = context;
    const sdx_element_kernels *k = &run->kernels->element;
    int64_t n = run->out[0].dim[2];
    const float *bias = run->in[1].data;
    for (int64_t i = begin; i < end; i++) {
        const float *x = (const float *)run->in[0].data + 2 * i * n;
        float *y = (float *)run->out[0].data + i * n;
        k->bias_act_f32(n, x + n, bias + n, SDX_ACT_GELU, y);
        for (int64_t j = 0; j < n; j++) y[j] *= x[j] + bias[j];
    }
}

static sdx_status run_rows(sdx_run *run, sdx_parallel_fn fn)
{
    const sdx_tensor *x = &run->in[0];
    sdx_parallel_for(run->threads, x->dim[0] * x->dim[1], sdx_row_grain(x->dim[2]), fn, run);
    return SDX_OK;
}

static sdx_status run_add(sdx_run *run)
{
    return run_rows(run, add_rows);
}
static sdx_status run_split_gelu(sdx_run *run)
{
    return run_rows(run, split_gelu_rows);
}

/* ---- BiasSoftmax ----------------------------------------------------------------------------------------- */

/* x is rows [count, n]; the bias has count / repeat rows, each for `inner` neighbours, or all in turn. */
typedef struct biased {
    int64_t count, n, bias_rows, inner;
} biased;

static sdx_status find_rows(const sdx_node *node, const sdx_shape *x, const sdx_shape *bias, biased *out,
                            sdx_error *err)
{
    int axis;
    TRY(sdx_axis_normalize(sdx_node_int(node, "axis", 1), x->rank, &axis, err));
    *out = (biased){.count = sdx_shape_span(x, 0, axis), .n = sdx_shape_span(x, axis, x->rank), .inner = 1};
    int64_t elements = sdx_shape_count(bias);
    out->bias_rows = out->n ? elements / out->n : 0;
    char tx[SDX_SHAPE_TEXT], tb[SDX_SHAPE_TEXT];
    if (out->n && out->count && (elements % out->n || !out->bias_rows || out->count % out->bias_rows))
        return sdx_fail(err, SDX_ERR_USAGE, "a bias of %s does not repeat over an input of %s",
                        sdx_shape_format(bias, tb, sizeof tb), sdx_shape_format(x, tx, sizeof tx));
    if (!sdx_node_int(node, "is_inner_broadcast", 0) || !out->bias_rows) return SDX_OK;
    out->inner = out->count / out->bias_rows;
    return SDX_OK;
}

static sdx_status infer_softmax(sdx_infer *infer)
{
    const sdx_shape *x = &infer->in[0].shape, *bias = &infer->in[1].shape;
    biased rows;
    TRY(sdx_want_dtype(infer, 0, "the input", SDX_SET(SDX_F32)));
    TRY(sdx_want_same_dtype(infer, 1, "the bias", 0, "the input"));
    if (sdx_shape_is_known(x) && sdx_shape_is_known(bias))
        TRY(find_rows(infer->node, x, bias, &rows, infer->err));
    return sdx_infer_same(infer);
}

typedef struct softmax_task {
    const sdx_run *run;
    biased rows;
} softmax_task;

static void softmax_rows(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const softmax_task *t = context;
    int64_t n = t->rows.n;
    for (int64_t i = begin; i < end; i++) {
        float *y = (float *)t->run->out[0].data + i * n;
        const float *bias = (const float *)t->run->in[1].data + i / t->rows.inner % t->rows.bias_rows * n;
        t->run->kernels->element.binary_f32[SDX_BINARY_ADD](n, (const float *)t->run->in[0].data + i * n, 1,
                                                            bias, 1, y);
        t->run->kernels->row.softmax_f32(n, y, y);
    }
}

static sdx_status run_softmax(sdx_run *run)
{
    softmax_task t = {.run = run};
    sdx_shape x = sdx_run_shape(run, 0), bias = sdx_run_shape(run, 1);
    TRY(find_rows(run->node, &x, &bias, &t.rows, run->err));
    if (t.rows.n) sdx_parallel_for(run->threads, t.rows.count, sdx_row_grain(t.rows.n), softmax_rows, &t);
    return SDX_OK;
}

#define MS "com.microsoft"
static const sdx_op_def rows[] = {
    {MS, "BiasAdd", 1, 0, 3, 3, 1, 1, SDX_OP_INPLACE | SDX_OP_WIDE, infer_add, NULL, NULL, run_add},
    {MS, "BiasSplitGelu", 1, 0, 2, 2, 1, 1, SDX_OP_WIDE, infer_split_gelu, NULL, NULL, run_split_gelu},
    {MS, "BiasSoftmax", 1, 0, 2, 2, 1, 1, SDX_OP_INPLACE | SDX_OP_WIDE, infer_softmax, NULL, NULL, run_softmax},
};

SDX_OP_TABLE(bias);
