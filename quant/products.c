/* products.c: MatMul, Gemm and Attention with a constant right operand, in integers. The activation is quantized
 * once for all its readers. */
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

/* x * W in integers, back in float; the last node writes `result`, an existing value. */
static sdx_status emit_product(sdx_quantizer *z, const char *name, sdx_id x, sdx_id weight, sdx_id result)
{
    sdx_quantized a, w;
    sdx_id product, cast, scale;
    TRY(sdx_quantizer_activation(z, x, &a));
    TRY(sdx_quantizer_weight(z, weight, weight_format(z), weight_axis(z, weight), a.factor, &w));
    TRY(sdx_quantizer_emit(z, "", "MatMulInteger", name, "_quant", 4, (sdx_id[]){a.q, w.q, a.zero, w.zero}, &product));
    TRY(sdx_quantizer_emit(z, "", "Cast", name, "_quant_cast", 1, &product, &cast));
    TRY(sdx_node_set_int(z->graph, z->graph->n_node - 1, "to", SDX_F32, z->err));
    TRY(sdx_quantizer_emit(z, "", "Mul", name, "_quant_scales_mul", 2, (sdx_id[]){a.scale, w.scale}, &scale));
    return sdx_quantizer_emit_to(z, "", "Mul", name, "_quant_output_scale_mul", 2, (sdx_id[]){cast, scale}, result,
                                 NULL);
}

sdx_status sdx_quant_matmul(sdx_quantizer *z, sdx_id node, bool *done)
{
    sdx_node n = z->graph->node[node];
    if (!sdx_quantizer_is_weight(z, n.in[1], 2) || sdx_graph_constant(z->graph, n.in[0])) return SDX_OK;
    z->graph->node[node].dead = *done = true;
    return emit_product(z, sdx_quantizer_node_name(z, &n), n.in[0], n.in[1], n.out[0]);
}

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

sdx_status sdx_quant_gemm(sdx_quantizer *z, sdx_id node, bool *done)
{
    sdx_node n = z->graph->node[node];
    bool plain = sdx_node_float(&n, "alpha", 1) == 1 && sdx_node_float(&n, "beta", 1) == 1 && !sdx_node_int(&n, "transA", 0);
    if (!plain || !sdx_quantizer_is_weight(z, n.in[1], 2) || sdx_graph_constant(z->graph, n.in[0])) return SDX_OK;
    z->graph->node[node].dead = *done = true;
    sdx_id weight = n.in[1], product = n.out[0], bias = sdx_node_in(&n, 2);
    const char *name = sdx_quantizer_node_name(z, &n);
    if (sdx_node_int(&n, "transB", 0)) TRY(transposed(z, weight, &weight));
    if (bias != SDX_NONE)
        TRY(sdx_graph_add_value(z->graph, sdx_quantizer_suffixed(z, name, "_MatMul"), &product, z->err));
    TRY(emit_product(z, name, n.in[0], weight, product));
    if (bias == SDX_NONE) return SDX_OK;
    return sdx_quantizer_emit_to(z, "", "Add", name, "_Add", 2, (sdx_id[]){product, bias}, n.out[0], NULL);
}

sdx_status sdx_quant_attention(sdx_quantizer *z, sdx_id node, bool *done)
{
    static const char *const attributes[] = {"num_heads", "unidirectional", "mask_filter_value", "scale", NULL};
    sdx_node n = z->graph->node[node];
    bool beyond = sdx_node_attr(&n, "qkv_hidden_sizes") || sdx_node_in(&n, 5) != SDX_NONE || sdx_node_in(&n, 6) != SDX_NONE;
    if (beyond || sdx_node_in(&n, 2) == SDX_NONE || !sdx_quantizer_is_weight(z, n.in[1], 2)) return SDX_OK;
    z->graph->node[node].dead = *done = true;
    sdx_quantized x, w;
    TRY(sdx_quantizer_activation(z, n.in[0], &x));
    TRY(sdx_quantizer_weight(z, n.in[1], weight_format(z), weight_axis(z, n.in[1]), x.factor, &w));
    const char *name = sdx_quantizer_suffixed(z, sdx_quantizer_node_name(z, &n), "_quant");
    if (!name) return sdx_fail_memory(z->err, 1);
    sdx_id in[] = {x.q, w.q, n.in[2], x.scale, w.scale, sdx_node_in(&n, 3), x.zero, w.zero, sdx_node_in(&n, 4)}, made;
    int n_in = in[8] == SDX_NONE ? 8 : 9;
    TRY(sdx_graph_add_node(z->graph, "com.microsoft", "QAttention", name, n_in, in, n.n_out, n.out, &made, z->err));
    return sdx_quantizer_copy_attributes(z, &n, made, attributes);
}
