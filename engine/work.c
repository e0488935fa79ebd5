/* work.c: the arithmetic of a step, told by the shapes it ran on: matrix products, convolutions and attention, which
 * are nearly all of a transformer's. Norms, activations and lookups are not counted; nor is what a causal
 * mask saves. */
#include <string.h>

#include "engine.h"

/* WEIGHTS: bfloat16 or float16 if they are constant and the program's precision says so, else float32. */
typedef enum arithmetic { F32, WEIGHTS, INT8 } arithmetic;

struct sdx_work_rule {
    const char *domain, *name;
    arithmetic arithmetic;
    double (*count)(const sdx_work_rule *rule, const sdx_node *node, const sdx_tensor *in, const sdx_tensor *out);
    int weight;            /* number of the input */
    int keys, past, spans; /* of attention; -1: has none */
};

static double elements(const sdx_tensor *t)
{
    double n = 1;
    for (int i = 0; i < t->rank; i++) n *= (double)t->dim[i];
    return n;
}

/* From the end: 1 is the last. */
static double dim_from_end(const sdx_tensor *t, int i) { return t->rank >= i ? (double)t->dim[t->rank - i] : 1; }

static const sdx_tensor *input(const sdx_node *node, const sdx_tensor *in, int i)
{
    return i >= 0 && i < node->n_in && in[i].dtype != SDX_UNDEFINED ? &in[i] : NULL;
}

/* ---- multiply-adds of a step ----------------------------------------------------------------------------- */

static double count_product(const sdx_work_rule *rule, const sdx_node *node, const sdx_tensor *in,
                            const sdx_tensor *out)
{
    (void)rule;
    return elements(out) * dim_from_end(in, sdx_node_int(node, "transA", 0) ? 2 : 1);
}

/* A product of which the largest of each column is all that is left. */
static double count_linear_max(const sdx_work_rule *rule, const sdx_node *node, const sdx_tensor *in,
                               const sdx_tensor *out)
{
    (void)rule, (void)node;
    return elements(in) * dim_from_end(out, 1);
}

/* Each output is a sum over the weights of its filter. */
static double count_conv(const sdx_work_rule *rule, const sdx_node *node, const sdx_tensor *in, const sdx_tensor *out)
{
    const sdx_tensor *w = input(node, in, rule->weight);
    return w && w->rank && w->dim[0] ? elements(out) * elements(w) / (double)w->dim[0] : 0;
}

/* Each input is added to as many outputs as its filters have weights. */
static double count_conv_transpose(const sdx_work_rule *rule, const sdx_node *node, const sdx_tensor *in,
                                   const sdx_tensor *out)
{
    (void)out;
    const sdx_tensor *w = input(node, in, rule->weight);
    return w && w->rank && w->dim[0] ? elements(in) * elements(w) / (double)w->dim[0] : 0;
}

/* Keys that a query meets: those given, [B,T,N*H] or [B,N,T,H], and the past [...,T,H]. */
static double count_keys(const sdx_work_rule *rule, const sdx_node *node, const sdx_tensor *in)
{
    const sdx_tensor *keys = input(node, in, rule->keys), *past = input(node, in, rule->past);
    double n = past ? dim_from_end(past, 2) : 0;
    if (keys) n += keys->rank == 3 ? (double)keys->dim[1] : dim_from_end(keys, 2);
    return n;
}

/* Scores and their product with the values; spans [texts, 2] are where the texts of one long row begin and end. */
static double count_attention(const sdx_work_rule *rule, const sdx_node *node, const sdx_tensor *in,
                              const sdx_tensor *out)
{
    const sdx_tensor *spans = input(node, in, rule->spans);
    if (!spans) return 2 * elements(out) * count_keys(rule, node, in);
    double pairs = 0;
    for (int64_t i = 0; i + 1 < sdx_tensor_count(spans); i += 2) {
        const int64_t *span = (const int64_t *)spans->data + i;
        pairs += (double)(span[1] - span[0]) * (double)(span[1] - span[0]);
    }
    return 2 * pairs * dim_from_end(out, 1);
}

/* Of attention that projects its own input, [B,S,k] by [k,columns]: that product. */
static double count_projection(const sdx_work_rule *rule, const sdx_node *node, const sdx_tensor *in)
{
    const sdx_tensor *w = input(node, in, rule->weight);
    return w ? elements(in) * dim_from_end(w, 1) : 0;
}

static const sdx_work_rule rules[] = {
    {"", "MatMul", WEIGHTS, count_product, 1, -1, -1, -1},
    {"", "Gemm", WEIGHTS, count_product, 1, -1, -1, -1},
    {"com.microsoft", "FusedMatMul", WEIGHTS, count_product, 1, -1, -1, -1},
    {"com.microsoft", "FusedGemm", WEIGHTS, count_product, 1, -1, -1, -1},
    {"com.microsoft", "MatMulNBits", F32, count_product, 1, -1, -1, -1},
    {"com.microsoft", "MatMulBnb4", F32, count_product, 1, -1, -1, -1},
    {"sardonyx", "LinearMax", WEIGHTS, count_linear_max, 1, -1, -1, -1},
    {"", "MatMulInteger", INT8, count_product, 1, -1, -1, -1},
    {"", "QLinearMatMul", INT8, count_product, 3, -1, -1, -1},
    {"com.microsoft", "MatMulIntegerToFloat", INT8, count_product, 1, -1, -1, -1},
    {"com.microsoft", "DynamicQuantizeMatMul", INT8, count_product, 1, -1, -1, -1},
    {"com.microsoft", "QGemm", INT8, count_product, 3, -1, -1, -1},
    {"sardonyx", "DynamicLinear", INT8, count_product, 1, -1, -1, -1},
    {"sardonyx", "DynamicLinearMax", INT8, count_linear_max, 1, -1, -1, -1},
    {"", "Conv", F32, count_conv, 1, -1, -1, -1},
    {"com.microsoft", "FusedConv", F32, count_conv, 1, -1, -1, -1},
    {"", "ConvInteger", INT8, count_conv, 1, -1, -1, -1},
    {"", "QLinearConv", INT8, count_conv, 3, -1, -1, -1},
    {"", "ConvTranspose", F32, count_conv_transpose, 1, -1, -1, -1},
    {"", "Attention", F32, count_attention, -1, 1, 4, -1},
    {"com.microsoft", "MultiHeadAttention", F32, count_attention, -1, 1, 6, -1},
    {"com.microsoft", "DecoderMaskedMultiHeadAttention", F32, count_attention, -1, 1, 5, -1},
    {"com.microsoft", "GroupQueryAttention", F32, count_attention, -1, 1, 3, -1},
    {"sardonyx", "PackedMultiHeadAttention", F32, count_attention, -1, 1, -1, 10},
    {"com.microsoft", "Attention", WEIGHTS, count_attention, 1, 0, 4, -1},
    {"sardonyx", "PackedAttention", WEIGHTS, count_attention, 1, 0, -1, 7},
    {"com.microsoft", "QAttention", INT8, count_attention, 1, 0, 8, -1},
    {"sardonyx", "DynamicAttention", INT8, count_attention, 1, 0, 8, -1},
    {"sardonyx", "PackedDynamicAttention", INT8, count_attention, 1, 0, -1, 9},
};

const sdx_work_rule *sdx_work_find(const sdx_node *node)
{
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (!strcmp(rules[i].name, node->op_type) && !strcmp(rules[i].domain, node->domain)) return &rules[i];
    return NULL;
}

static double *of_precision(const sdx_kernels *kernels, sdx_work *work)
{
    if (kernels->linear.run == kernels->gemm_f32.run) return &work->f32;
    return kernels->linear.run == kernels->gemm_f16.run ? &work->f16 : &work->bf16;
}

void sdx_work_add(const sdx_work_rule *rule, const sdx_program *program, const sdx_graph *graph, const sdx_node *node,
                  const sdx_tensor *in, const sdx_tensor *out, sdx_work *work)
{
    const sdx_id weight = rule->weight >= 0 ? sdx_node_in(node, rule->weight) : SDX_NONE;
    const bool constant = weight != SDX_NONE && graph->value[weight].type.constant;
    double *const by_weights = rule->arithmetic == INT8                  ? &work->int8
                               : rule->arithmetic == WEIGHTS && constant ? of_precision(program->kernels, work)
                                                                         : &work->f32;
    const double counted = 2 * rule->count(rule, node, in, out);
    if (rule->count != count_attention) {
        *by_weights += counted;
        return;
    }
    work->f32 += counted;
    *by_weights += 2 * count_projection(rule, node, in);
}
