/* layers.c: the layers of builder.h. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "../base/memory.h"
#include "builder.h"

enum { MAX_NAME = 256 };

/* "module/tail": labels that differ from their operator's name. */
typedef struct label {
    char text[MAX_NAME];
} label;

static label in_module(const char *module, const char *tail)
{
    label l;
    snprintf(l.text, sizeof l.text, "%s/%s", module, tail);
    return l;
}

static label part_of(const char *module, const char *name)
{
    label l;
    snprintf(l.text, sizeof l.text, "%s.%s", module, name);
    return l;
}

static bool has_bias(const sdx_builder *b, const char *module)
{
    return sdx_build_has(b, part_of(module, "bias").text);
}

/* ---- per token ------------------------------------------------------------------------------------------- */

sdx_id sdx_build_linear(sdx_builder *b, const char *name, sdx_id x)
{
    x = sdx_build_module_op2(b, name, "MatMul", x, sdx_build_transposed(b, part_of(name, "weight").text));
    return has_bias(b, name) ? sdx_build_module_op2(b, name, "Add", x, sdx_build_module_weight(b, name, "bias"))
                             : x;
}

sdx_id sdx_build_linear_rows(sdx_builder *b, const char *name, sdx_id x)
{
    sdx_id in[] = {x, sdx_build_module_weight(b, name, "weight"), SDX_NONE};
    bool biased = has_bias(b, name);
    if (biased) in[2] = sdx_build_module_weight(b, name, "bias");
    x = sdx_build_module_op(b, name, "Gemm", biased ? 3 : 2, in);
    sdx_build_attr_int(b, "transB", 1);
    return x;
}

static sdx_id layer_norm_op(sdx_builder *b, const char *name, sdx_id x, double epsilon)
{
    sdx_id in[] = {x, sdx_build_module_weight(b, name, "weight"), SDX_NONE};
    bool biased = has_bias(b, name);
    if (biased) in[2] = sdx_build_module_weight(b, name, "bias");
    x = sdx_build_module_op(b, name, "LayerNormalization", biased ? 3 : 2, in);
    sdx_build_attr_int(b, "axis", -1);
    sdx_build_attr_float(b, "epsilon", epsilon);
    return x;
}

sdx_id sdx_build_layer_norm(sdx_builder *b, const char *name, sdx_id x, double epsilon)
{
    if (b->opset >= 17) return layer_norm_op(b, name, x, epsilon);
    sdx_id mean = sdx_build_reduce(b, "ReduceMean", in_module(name, "ReduceMean").text, x, -1, true);
    sdx_id centered = sdx_build_module_op2(b, name, "Sub", x, mean);
    sdx_id squared = sdx_build_module_op2(b, name, "Pow", centered, sdx_build_real(b, 2));
    sdx_id variance =
        sdx_build_reduce(b, "ReduceMean", in_module(name, "ReduceMean_variance").text, squared, -1, true);
    sdx_id shifted =
        sdx_build_op2(b, "Add", in_module(name, "Add_epsilon").text, variance, sdx_build_real(b, epsilon));
    sdx_id normal =
        sdx_build_module_op2(b, name, "Div", centered, sdx_build_module_op1(b, name, "Sqrt", shifted));
    x = sdx_build_module_op2(b, name, "Mul", normal, sdx_build_module_weight(b, name, "weight"));
    return has_bias(b, name) ? sdx_build_module_op2(b, name, "Add", x, sdx_build_module_weight(b, name, "bias"))
                             : x;
}

static sdx_id gelu_op(sdx_builder *b, const char *name, sdx_id x, const char *approximate)
{
    x = sdx_build_module_op1(b, name, "Gelu", x);
    if (approximate) sdx_build_attr_string(b, "approximate", approximate);
    return x;
}

/* x/2 * (1 + erf(x / sqrt 2)), multiplied in PyTorch's order */
static sdx_id gelu(sdx_builder *b, const char *name, sdx_id x)
{
    if (b->opset >= 20) return gelu_op(b, name, x, NULL);
    sdx_id t = sdx_build_module_op2(b, name, "Div", x, sdx_build_real(b, sqrt(2)));
    t = sdx_build_module_op2(b, name, "Add", sdx_build_module_op1(b, name, "Erf", t), sdx_build_real(b, 1));
    t = sdx_build_module_op2(b, name, "Mul", x, t);
    return sdx_build_op2(b, "Mul", in_module(name, "Mul_half").text, t, sdx_build_real(b, 0.5));
}

/* x/2 * (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) */
static sdx_id gelu_tanh(sdx_builder *b, const char *name, sdx_id x)
{
    const double pi = 3.14159265358979323846;
    if (b->opset >= 20) return gelu_op(b, name, x, "tanh");
    sdx_id t = sdx_build_module_op2(b, name, "Pow", x, sdx_build_real(b, 3));
    t = sdx_build_op2(b, "Mul", in_module(name, "Mul_cube").text, t, sdx_build_real(b, 0.044715));
    t = sdx_build_op2(b, "Add", in_module(name, "Add_cube").text, x, t);
    t = sdx_build_op2(b, "Mul", in_module(name, "Mul_scale").text, t, sdx_build_real(b, sqrt(2 / pi)));
    t = sdx_build_module_op2(b, name, "Add", sdx_build_module_op1(b, name, "Tanh", t), sdx_build_real(b, 1));
    x = sdx_build_op2(b, "Mul", in_module(name, "Mul_half").text, x, sdx_build_real(b, 0.5));
    return sdx_build_module_op2(b, name, "Mul", x, t);
}

static sdx_id times_sigmoid(sdx_builder *b, const char *name, sdx_id x, double factor)
{
    sdx_id t =
        factor == 1 ? x : sdx_build_op2(b, "Mul", in_module(name, "Mul_factor").text, x, sdx_build_real(b, factor));
    return sdx_build_module_op2(b, name, "Mul", x, sdx_build_module_op1(b, name, "Sigmoid", t));
}

static sdx_id mish(sdx_builder *b, const char *name, sdx_id x)
{
    sdx_id t = sdx_build_module_op1(b, name, "Tanh", sdx_build_module_op1(b, name, "Softplus", x));
    return sdx_build_module_op2(b, name, "Mul", x, t);
}

static sdx_id leaky_relu(sdx_builder *b, const char *name, sdx_id x)
{
    x = sdx_build_module_op1(b, name, "LeakyRelu", x);
    sdx_build_attr_float(b, "alpha", 0.01);
    return x;
}

sdx_id sdx_build_activation(sdx_builder *b, const char *name, sdx_id x, sdx_activation kind)
{
    switch (kind) {
    case SDX_GELU: return gelu(b, name, x);
    case SDX_GELU_TANH: return gelu_tanh(b, name, x);
    case SDX_SILU: return times_sigmoid(b, name, x, 1);
    case SDX_QUICK_GELU: return times_sigmoid(b, name, x, 1.702);
    case SDX_TANH: return sdx_build_module_op1(b, name, "Tanh", x);
    case SDX_SIGMOID: return sdx_build_module_op1(b, name, "Sigmoid", x);
    case SDX_MISH: return mish(b, name, x);
    case SDX_RELU6:
        return sdx_build_module_op(b, name, "Clip", 3, (sdx_id[]){x, sdx_build_real(b, 0), sdx_build_real(b, 6)});
    case SDX_RELU_SQUARED:
        x = sdx_build_module_op1(b, name, "Relu", x);
        return sdx_build_module_op2(b, name, "Mul", x, x);
    case SDX_LEAKY_RELU: return leaky_relu(b, name, x);
    case SDX_IDENTITY: return x;
    case SDX_RELU: break;
    }
    return sdx_build_module_op1(b, name, "Relu", x);
}

sdx_id sdx_build_embedding(sdx_builder *b, const char *name, sdx_id ids)
{
    return sdx_build_module_op2(b, name, "Gather", sdx_build_module_weight(b, name, "weight"), ids);
}

/* ---- positions ------------------------------------------------------------------------------------------- */

/* ids [B, S] -> S */
static sdx_id length_of(sdx_builder *b, const char *name, sdx_id ids)
{
    return sdx_build_module_op2(b, name, "Gather", sdx_build_module_op1(b, name, "Shape", ids),
                                sdx_build_int(b, 1));
}

static sdx_id position_row(sdx_builder *b, int64_t positions)
{
    int64_t *row = sdx_calloc((size_t)positions, sizeof *row);
    if (!row) sdx_build_fail(b, SDX_ERR_MEMORY, "out of memory");
    for (int64_t i = 0; row && i < positions; i++) row[i] = i;
    sdx_id id = sdx_build_constant(b, "position_ids", SDX_I64, 2, (int64_t[]){1, positions}, row);
    free(row);
    return id;
}

sdx_id sdx_build_positions(sdx_builder *b, const char *name, sdx_id ids, int64_t positions)
{
    const int64_t zero = 0, one = 1;
    sdx_id length = sdx_build_unsqueeze(b, name, length_of(b, name, ids), 0);
    sdx_id in[] = {position_row(b, positions), sdx_build_ints(b, 1, &zero), length, sdx_build_ints(b, 1, &one),
                   sdx_build_ints(b, 1, &one)};
    return sdx_build_module_op(b, name, "Slice", 5, in);
}

sdx_id sdx_build_positions_of_tokens(sdx_builder *b, const char *name, sdx_id ids, int64_t pad)
{
    sdx_id token = sdx_build_module_op2(b, name, "Equal", ids, sdx_build_int(b, pad));
    token = sdx_build_cast(b, name, sdx_build_module_op1(b, name, "Not", token), SDX_I64);
    sdx_id count = sdx_build_module_op2(b, name, "CumSum", token, sdx_build_int(b, 1));
    count = sdx_build_module_op2(b, name, "Mul", count, token);
    return sdx_build_module_op2(b, name, "Add", count, sdx_build_int(b, pad));
}

sdx_id sdx_build_range(sdx_builder *b, const char *name, sdx_id ids)
{
    sdx_id in[] = {sdx_build_int(b, 0), length_of(b, name, ids), sdx_build_int(b, 1)};
    return sdx_build_module_op(b, name, "Range", 3, in);
}

sdx_id sdx_build_distances(sdx_builder *b, const char *name, sdx_id range, int64_t limit)
{
    sdx_id distance = sdx_build_module_op2(b, name, "Sub", sdx_build_unsqueeze(b, name, range, 1), range);
    sdx_id in[] = {distance, sdx_build_int(b, -limit), sdx_build_int(b, limit)};
    return sdx_build_module_op2(b, name, "Add", sdx_build_module_op(b, name, "Clip", 3, in),
                                sdx_build_int(b, limit));
}

/* ---- attention ------------------------------------------------------------------------------------------- */

sdx_id sdx_build_mask_bias(sdx_builder *b, sdx_id mask)
{
    const char *name = "attention_bias";
    mask = sdx_build_cast(b, name, mask, SDX_F32);
    sdx_id padding = sdx_build_module_op2(b, name, "Sub", sdx_build_real(b, 1), mask);
    return sdx_build_module_op2(b, name, "Mul", padding, sdx_build_real(b, -FLT_MAX));
}

sdx_id sdx_build_attention_bias(sdx_builder *b, sdx_id mask)
{
    mask = sdx_build_unsqueeze(b, "attention_bias", mask, 1);
    return sdx_build_mask_bias(b, sdx_build_unsqueeze(b, "attention_bias", mask, 2));
}

sdx_id sdx_build_split_heads(sdx_builder *b, const char *name, const char *suffix, sdx_id x, int64_t heads,
                             int64_t size)
{
    label l;
    snprintf(l.text, sizeof l.text, "%s/Reshape_%s", name, suffix);
    return sdx_build_op2(b, "Reshape", l.text, x, sdx_build_ints(b, 4, (int64_t[]){0, 0, heads, size}));
}

sdx_id sdx_build_heads_first(sdx_builder *b, const char *name, const char *suffix, sdx_id x, bool keys)
{
    static const int64_t straight[] = {0, 2, 1, 3}, swapped[] = {0, 2, 3, 1};
    label l;
    snprintf(l.text, sizeof l.text, "%s/Transpose_%s", name, suffix);
    return sdx_build_transpose(b, l.text, x, 4, keys ? swapped : straight);
}

sdx_id sdx_build_scores(sdx_builder *b, const char *name, sdx_id q, sdx_id k, double divisor)
{
    sdx_id scores = sdx_build_op2(b, "MatMul", in_module(name, "MatMul_qk").text, q, k);
    return sdx_build_module_op2(b, name, "Div", scores, sdx_build_real(b, divisor));
}

sdx_id sdx_build_attend(sdx_builder *b, const char *name, sdx_id scores, sdx_id bias, sdx_id v, int64_t width)
{
    if (bias != SDX_NONE) scores = sdx_build_op2(b, "Add", in_module(name, "Add_bias").text, scores, bias);
    scores = sdx_build_module_op1(b, name, "Softmax", scores);
    sdx_build_attr_int(b, "axis", -1);
    sdx_id x = sdx_build_op2(b, "MatMul", in_module(name, "MatMul_v").text, scores, v);
    x = sdx_build_transpose(b, in_module(name, "Transpose").text, x, 4, (int64_t[]){0, 2, 1, 3});
    return sdx_build_module_op2(b, name, "Reshape", x, sdx_build_ints(b, 3, (int64_t[]){0, 0, width}));
}

/* ---- of a sequence --------------------------------------------------------------------------------------- */

sdx_id sdx_build_first_token(sdx_builder *b, const char *name, sdx_id x)
{
    x = sdx_build_module_op2(b, name, "Gather", x, sdx_build_int(b, 0));
    sdx_build_attr_int(b, "axis", 1);
    return x;
}

/* int64 [B, S] -> float [B, S, 1] */
static sdx_id token_weights(sdx_builder *b, const char *name, sdx_id mask)
{
    return sdx_build_cast(b, name, sdx_build_unsqueeze(b, name, mask, -1), SDX_F32);
}

sdx_id sdx_build_mean_token(sdx_builder *b, const char *name, sdx_id x, sdx_id mask)
{
    sdx_id weight = token_weights(b, name, mask);
    x = sdx_build_module_op2(b, name, "Mul", x, weight);
    x = sdx_build_reduce(b, "ReduceSum", in_module(name, "ReduceSum").text, x, 1, false);
    sdx_id count = sdx_build_reduce(b, "ReduceSum", in_module(name, "ReduceSum_count").text, weight, 1, false);
    return sdx_build_module_op2(b, name, "Div", x, count);
}

sdx_id sdx_build_last_token(sdx_builder *b, const char *name, sdx_id x, sdx_id found)
{
    sdx_id at = sdx_build_module_op1(b, name, "ArgMax", sdx_build_cast(b, name, found, SDX_I32));
    sdx_build_attr_int(b, "axis", 1);
    sdx_build_attr_int(b, "select_last_index", 1); /* keepdims: [B, 1] */
    x = sdx_build_module_op2(b, name, "GatherND", x, at);
    sdx_build_attr_int(b, "batch_dims", 1);
    return x;
}

/* log(1 + relu(x)) never decreases and is 0 at 0, so it may follow the maximum over tokens instead of preceding
 * it: three passes over [B, V] in place of [B, S, V]. Padding counts as 0, as Formal et al. 2021 (SPLADE v2)
 * have it. */
void sdx_build_splade(sdx_builder *b, sdx_id logits, sdx_id mask)
{
    const int64_t row_major[] = {1, 0}, any[] = {SDX_NONZERO};
    const char *name = "splade";
    sdx_build_scope(b, "%s", "");
    sdx_id x = sdx_build_module_op2(b, name, "Mul", logits, token_weights(b, name, mask));
    x = sdx_build_reduce(b, "ReduceMax", in_module(name, "ReduceMax").text, x, 1, false);
    x = sdx_build_module_op1(b, name, "Relu", x);
    x = sdx_build_module_op1(b, name, "Log", sdx_build_module_op2(b, name, "Add", x, sdx_build_real(b, 1)));
    sdx_id places = sdx_build_module_op1(b, name, "NonZero", x); /* [2, n]: batch rows, vocabulary indices */
    sdx_id index = sdx_build_module_op2(b, name, "Gather", places, sdx_build_int(b, 1));
    places = sdx_build_transpose(b, in_module(name, "Transpose").text, places, 2, row_major);
    sdx_id values = sdx_build_module_op2(b, name, "GatherND", x, places);
    sdx_build_output(b, index, "output_idx", SDX_I64, 1, any);
    sdx_build_output(b, values, "output_weights", SDX_F32, 1, any);
}
