/* products.c: MatMul, Gemm, Attention and Conv with a constant right operand, in integers or, in the QDQ form, in float
 * between codes. The activation is quantized once for all its readers. */
#include <string.h>

#include "../base/memory.h"
#include "quantizer.h"

static sdx_quant_format weight_format(const sdx_quantizer *z)
{
    const sdx_quant_recipe *r = &z->recipe;
    return (sdx_quant_format){!r->unsigned_weights, !r->unsigned_weights || r->symmetric, r->reduce_range};
}

static sdx_quant_axis weight_axis(const sdx_quantizer *z, sdx_id weight)
{
    bool matrix = sdx_graph_constant(z->graph, weight)->rank == 2;
    return z->recipe.per_channel && matrix ? SDX_QUANT_COLUMN : SDX_QUANT_TENSOR;
}

/* A weight's codes in the form and precision of the recipe. */
static sdx_status product_weight(sdx_quantizer *z, sdx_id weight, const float *factor, sdx_quantized *out)
{
    return sdx_quantizer_weight(z, weight, weight_format(z), weight_axis(z, weight), factor, out);
}

/* An activation that is none: a constant, or one that a static form knows nothing of. */
static bool is_refused(const sdx_quantizer *z, sdx_id x)
{
    return sdx_graph_constant(z->graph, x) || sdx_quantizer_is_unseen(z, x);
}

/* (float)acc * (x_scale * w_scale), which `result`, an existing value, becomes. */
static sdx_status emit_scaled(sdx_quantizer *z, const char *name, sdx_id acc, sdx_id x_scale, sdx_id w_scale,
                              sdx_id result)
{
    sdx_id cast, scale;
    TRY(sdx_quantizer_emit(z, "", "Cast", name, "_quant_cast", 1, &acc, &cast));
    TRY(sdx_node_set_int(z->graph, z->graph->n_node - 1, "to", SDX_F32, z->err));
    TRY(sdx_quantizer_emit(z, "", "Mul", name, "_quant_scales_mul", 2, (sdx_id[]){x_scale, w_scale}, &scale));
    return sdx_quantizer_emit_to(z, "", "Mul", name, "_quant_output_scale_mul", 2, (sdx_id[]){cast, scale}, result,
                                 NULL);
}

sdx_status sdx_quant_matmul(sdx_quantizer *z, sdx_id node, bool *done)
{
    sdx_node n = z->graph->node[node];
    if (!sdx_quantizer_is_weight(z, n.in[1], 2) || is_refused(z, n.in[0])) return SDX_OK;
    z->graph->node[node].dead = *done = true;
    const char *name = sdx_quantizer_node_name(z, &n);
    sdx_quantized x, w;
    sdx_id acc;
    TRY(sdx_quantizer_activation(z, n.in[0], &x));
    TRY(product_weight(z, n.in[1], x.factor, &w));
    if (x.real != SDX_NONE)
        return sdx_quantizer_emit_to(z, "", "MatMul", name, "", 2, (sdx_id[]){x.real, w.real}, n.out[0], NULL);
    int n_in = w.zero == SDX_NONE ? 3 : 4;
    TRY(sdx_quantizer_emit(z, "", "MatMulInteger", name, "_quant", n_in, (sdx_id[]){x.q, w.q, x.zero, w.zero}, &acc));
    return emit_scaled(z, name, acc, x.scale, w.scale, n.out[0]);
}

/* ---- Gemm ------------------------------------------------------------------------------------------------ */

/* [n, k] to [k, n] as a constant of its own. */
static sdx_status transposed(sdx_quantizer *z, sdx_id v, sdx_id *out)
{
    const sdx_tensor *t = sdx_graph_constant(z->graph, v);
    int64_t rows = t->dim[0], columns = t->dim[1];
    float *data;
    ARENA_NEW(&z->model->arena, data, (size_t)(rows * columns), z->err);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++)
            memcpy(&data[j * rows + i], (const char *)t->data + (i * columns + j) * 4, sizeof(float));
    sdx_tensor turned = {.dtype = SDX_F32, .rank = 2, .dim = {columns, rows}, .data = data};
    return sdx_quantizer_constant(z, sdx_quantizer_name(z, v), "_transposed", &turned, out);
}

sdx_status sdx_quant_split_gemm(sdx_quantizer *z, sdx_id node)
{
    sdx_node n = z->graph->node[node];
    bool plain =
        sdx_node_float(&n, "alpha", 1) == 1 && sdx_node_float(&n, "beta", 1) == 1 && !sdx_node_int(&n, "transA", 0);
    if (!plain || !sdx_quantizer_is_weight(z, n.in[1], 2)) return SDX_OK;
    z->graph->node[node].dead = true;
    sdx_id weight = n.in[1], product = n.out[0], bias = sdx_node_in(&n, 2);
    const char *name = sdx_quantizer_node_name(z, &n);
    if (sdx_node_int(&n, "transB", 0)) TRY(transposed(z, weight, &weight));
    if (bias != SDX_NONE)
        TRY(sdx_graph_add_value(z->graph, sdx_quantizer_suffixed(z, name, "_MatMul"), &product, z->err));
    TRY(sdx_quantizer_emit_to(z, "", "MatMul", name, "", 2, (sdx_id[]){n.in[0], weight}, product, NULL));
    if (bias == SDX_NONE) return SDX_OK;
    return sdx_quantizer_emit_to(z, "", "Add", name, "_Add", 2, (sdx_id[]){product, bias}, n.out[0], NULL);
}

/* ---- Attention ------------------------------------------------------------------------------------------- */

/* The float operator between pairs. */
static sdx_status emit_qdq_attention(sdx_quantizer *z, const sdx_node *n, const sdx_quantized *x,
                                     const sdx_quantized *w)
{
    static const char *const attributes[] = {"num_heads", "unidirectional", "mask_filter_value",
                                             "scale",     "do_rotary",      NULL};
    sdx_id in[5] = {x->real, w->real, n->in[2], sdx_node_in(n, 3), sdx_node_in(n, 4)}, made;
    TRY(sdx_graph_add_node(z->graph, "com.microsoft", "Attention", n->name, n->n_in < 5 ? n->n_in : 5, in, n->n_out,
                           n->out, &made, z->err));
    return sdx_quantizer_copy_attributes(z, n, made, attributes);
}

static sdx_status emit_qattention(sdx_quantizer *z, const sdx_node *n, const sdx_quantized *x,
                                  const sdx_quantized *w)
{
    static const char *const attributes[] = {"num_heads", "unidirectional", "mask_filter_value", "scale", NULL};
    const char *name = sdx_quantizer_suffixed(z, sdx_quantizer_node_name(z, n), "_quant");
    if (!name) return sdx_fail_memory(z->err, 1);
    sdx_id in[] = {x->q, w->q, n->in[2], x->scale, w->scale, sdx_node_in(n, 3), x->zero, w->zero, sdx_node_in(n, 4)},
           made;
    int n_in = 9;
    while (in[n_in - 1] == SDX_NONE) n_in--;
    TRY(sdx_graph_add_node(z->graph, "com.microsoft", "QAttention", name, n_in, in, n->n_out, n->out, &made, z->err));
    return sdx_quantizer_copy_attributes(z, n, made, attributes);
}

sdx_status sdx_quant_attention(sdx_quantizer *z, sdx_id node, bool *done)
{
    sdx_node n = z->graph->node[node];
    bool beyond =
        sdx_node_attr(&n, "qkv_hidden_sizes") || sdx_node_in(&n, 5) != SDX_NONE || sdx_node_in(&n, 6) != SDX_NONE;
    if (beyond || sdx_node_in(&n, 2) == SDX_NONE || !sdx_quantizer_is_weight(z, n.in[1], 2) || is_refused(z, n.in[0]))
        return SDX_OK;
    z->graph->node[node].dead = *done = true;
    sdx_quantized x, w;
    TRY(sdx_quantizer_activation(z, n.in[0], &x));
    TRY(product_weight(z, n.in[1], x.factor, &w));
    return x.real == SDX_NONE ? emit_qattention(z, &n, &x, &w) : emit_qdq_attention(z, &n, &x, &w);
}

/* ---- Conv ------------------------------------------------------------------------------------------------ */

/* A vector v [n] as [1, n, 1, ...] of the given rank, to meet channels. */
static sdx_status to_channels(sdx_quantizer *z, const char *name, int rank, sdx_id v, sdx_id *out)
{
    int64_t dims[SDX_MAX_RANK];
    sdx_id shape;
    for (int i = 0; i < rank; i++) dims[i] = i == 1 ? -1 : 1;
    TRY(sdx_graph_add_ints(z->graph, sdx_quantizer_suffixed(z, name, "_channels"), rank, dims, &shape, z->err));
    return sdx_quantizer_emit(z, "", "Reshape", name, "_by_channel", 2, (sdx_id[]){v, shape}, out);
}

static sdx_status copy_conv(sdx_quantizer *z, const sdx_node *n, sdx_id to)
{
    static const char *const lists[] = {"dilations", "kernel_shape", "pads", "strides"};
    TRY(sdx_quantizer_copy_attributes(z, n, to, (const char *const[]){"group", NULL}));
    const char *padding = sdx_node_string(n, "auto_pad", NULL);
    if (padding) TRY(sdx_node_set_string(z->graph, to, "auto_pad", padding, z->err));
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        size_t count;
        const int64_t *list = sdx_node_ints(n, lists[i], &count);
        if (list) TRY(sdx_node_set_ints(z->graph, to, lists[i], count, list, z->err));
    }
    return SDX_OK;
}

static sdx_status emit_qdq_conv(sdx_quantizer *z, const sdx_node *n, const sdx_quantized *x,
                                const sdx_quantized *w)
{
    sdx_id in[] = {x->real, w->real, sdx_node_in(n, 2)}, made;
    TRY(sdx_graph_add_node(z->graph, "", "Conv", n->name, n->n_in, in, 1, n->out, &made, z->err));
    return copy_conv(z, n, made);
}

/* ONNX Runtime 1.17 runs ConvInteger by uint8 weights only: int8 ones go around 128. */
static sdx_quant_format conv_format(const sdx_quantizer *z)
{
    sdx_quant_format format = weight_format(z);
    if (z->options->format != SDX_QUANTIZE_QDQ) format.is_signed = false;
    return format;
}

/* ConvInteger takes one zero point for the weight, which all channels of symmetric codes have in common. */
static sdx_status conv_zero(sdx_quantizer *z, const char *name, sdx_id *zero)
{
    sdx_tensor t = {.dtype = SDX_U8};
    uint8_t *middle;
    ARENA_NEW(&z->model->arena, middle, 1, z->err);
    *middle = (uint8_t)sdx_quant_params_of(conv_format(z), -1, 1).zero_point;
    t.data = middle;
    return sdx_quantizer_constant(z, name, "_weight_zero_point", &t, zero);
}

static sdx_status emit_conv_integer(sdx_quantizer *z, const sdx_node *n, int rank, const sdx_quantized *x,
                                    const sdx_quantized *w)
{
    const char *name = sdx_quantizer_node_name(z, n);
    sdx_id acc, scale = w->scale, zero = w->zero, bias = sdx_node_in(n, 2), y = n->out[0];
    bool channels = w->kind / 2 == SDX_QUANT_ROW;
    if (channels) TRY(conv_zero(z, name, &zero));
    TRY(sdx_quantizer_emit(z, "", "ConvInteger", name, "_quant", 4, (sdx_id[]){x->q, w->q, x->zero, zero}, &acc));
    TRY(copy_conv(z, n, z->graph->n_node - 1));
    if (channels) TRY(to_channels(z, sdx_quantizer_suffixed(z, name, "_scale"), rank, scale, &scale));
    if (bias != SDX_NONE) TRY(sdx_graph_add_value(z->graph, sdx_quantizer_suffixed(z, name, "_unbiased"), &y, z->err));
    TRY(emit_scaled(z, name, acc, x->scale, scale, y));
    if (bias == SDX_NONE) return SDX_OK;
    TRY(to_channels(z, sdx_quantizer_suffixed(z, name, "_bias"), rank, bias, &bias));
    return sdx_quantizer_emit_to(z, "", "Add", name, "_bias_add", 2, (sdx_id[]){y, bias}, n->out[0], NULL);
}

sdx_status sdx_quant_conv(sdx_quantizer *z, sdx_id node, bool *done)
{
    sdx_node n = z->graph->node[node];
    if (!sdx_quantizer_is_weight(z, n.in[1], 3) || is_refused(z, n.in[0])) return SDX_OK;
    z->graph->node[node].dead = *done = true;
    int rank = sdx_graph_constant(z->graph, n.in[1])->rank;
    sdx_quant_format format = conv_format(z);
    bool channels = z->recipe.per_channel && format.symmetric;
    sdx_quantized x, w;
    TRY(sdx_quantizer_activation(z, n.in[0], &x));
    TRY(sdx_quantizer_weight(z, n.in[1], format, channels ? SDX_QUANT_ROW : SDX_QUANT_TENSOR, NULL, &w));
    return x.real == SDX_NONE ? emit_conv_integer(z, &n, rank, &x, &w) : emit_qdq_conv(z, &n, &x, &w);
}
