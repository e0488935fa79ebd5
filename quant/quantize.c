/* quantize.c: dynamic quantization as a graph rewrite, in the form that ONNX Runtime's quantize_dynamic writes, so
 * that its engine runs the file too:
 *
 *   MatMul(x, W)   x -> DynamicQuantizeLinear -> MatMulInteger(xq, Wq, x_zero, W_zero) -> Cast -> Mul(x_scale * W_scale)
 *   Gemm(x, W, c)  as MatMul, then Add(c)
 *   Gather(W, i)   Gather(Wq, i) -> DequantizeLinear
 *   Attention      QAttention: the projection in int8, scores and softmax in float
 *   EmbedLayerNormalization   QEmbedLayerNormalization: tables, gamma and beta in uint8
 *
 * A table at the end says which operator is rewritten by what. Activations are uint8 per tensor, quantized once for
 * all their readers. Tables are uint8 with a zero point: rows are looked up, never multiplied. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "../base/memory.h"
#include "../graph/graph.h"
#include "format.h"

/* A value in integer form: three values of the graph. */
typedef struct quantized {
    sdx_id q, scale, zero;
} quantized;

typedef struct quantizer {
    const sdx_quantize_options *options;
    sdx_model *model;
    sdx_graph *graph;
    quantized *done; /* [n_done], by value id: what was quantized already; q is SDX_NONE where nothing was. Owned. */
    sdx_id n_done;
    sdx_quantize_report report;
    sdx_error *err;
} quantizer;

/* ---- small things -------------------------------------------------------------------------------------------- */

static const char *value_name(const quantizer *z, sdx_id v) { return z->graph->value[v].name; }

/* "<name><suffix>" in the arena; NULL when out of memory. */
static const char *suffixed(quantizer *z, const char *name, const char *suffix)
{
    return sdx_arena_printf(&z->model->arena, "%s%s", name, suffix);
}

/* One node with one result, both named <name><suffix>. */
static sdx_status emit(quantizer *z, const char *domain, const char *op, const char *name, const char *suffix, int n_in,
                       const sdx_id *in, sdx_id *result)
{
    const char *full = suffixed(z, name, suffix);
    if (!full) return sdx_fail_memory(z->err, strlen(name));
    return sdx_graph_emit(z->graph, domain, op, full, n_in, in, result, z->err);
}

static sdx_status add_constant(quantizer *z, const char *name, const char *suffix, const sdx_tensor *t, sdx_id *out)
{
    const char *full = suffixed(z, name, suffix);
    if (!full) return sdx_fail_memory(z->err, strlen(name));
    return sdx_graph_add_constant(z->graph, full, t, out, z->err);
}

/* What was made of a value before. */
static quantized *cached(quantizer *z, sdx_id v)
{
    if (v >= z->n_done) {
        sdx_id n = z->graph->n_value + 64;
        quantized *grown = sdx_realloc(z->done, (size_t)n * sizeof *grown);
        if (!grown) return NULL;
        for (sdx_id i = z->n_done; i < n; i++) grown[i] = (quantized){SDX_NONE, SDX_NONE, SDX_NONE};
        z->done = grown;
        z->n_done = n;
    }
    return &z->done[v];
}

/* ---- weights --------------------------------------------------------------------------------------------------- */

/* Scales and zero points: a scalar, or one per column. */
static sdx_status add_params(quantizer *z, const char *name, sdx_quant_format f, int64_t n, bool per_channel,
                             const float *scales, const uint8_t *zeros, quantized *out)
{
    sdx_tensor scale = {.dtype = SDX_F32, .rank = per_channel, .dim = {n}, .data = (void *)scales};
    sdx_tensor zero = {.dtype = f.is_signed ? SDX_I8 : SDX_U8, .rank = per_channel, .dim = {n}, .data = (void *)zeros};
    TRY(add_constant(z, name, "_scale", &scale, &out->scale));
    return add_constant(z, name, "_zero_point", &zero, &out->zero);
}

/* Constant v in format f; per_channel: one scale per element of the last axis. */
static sdx_status quantize_weight(quantizer *z, sdx_id v, sdx_quant_format f, bool per_channel, quantized *out)
{
    quantized *before = cached(z, v);
    if (!before) return sdx_fail_memory(z->err, sizeof *before);
    if (before->q != SDX_NONE) {
        *out = *before;
        return SDX_OK;
    }
    const sdx_tensor *w = sdx_graph_constant(z->graph, v);
    int64_t count = sdx_tensor_count(w), n = per_channel ? w->dim[w->rank - 1] : 1;
    float *scales;
    uint8_t *zeros, *q;
    ARENA_NEW(&z->model->arena, scales, (size_t)n, z->err);
    ARENA_NEW(&z->model->arena, zeros, (size_t)n, z->err);
    ARENA_NEW(&z->model->arena, q, (size_t)count, z->err);
    for (int64_t j = 0; j < n; j++) {
        const char *column = (const char *)w->data + j * (int64_t)sizeof(float);
        float min, max;
        if (!sdx_quant_range(column, count / n, n, &min, &max))
            return sdx_fail(z->err, SDX_ERR_FILE, "%s: weight \"%s\" holds NaN or infinity and cannot be quantized",
                            z->model->path, value_name(z, v));
        sdx_quant_params p = sdx_quant_params_of(f, min, max);
        scales[j] = p.scale;
        zeros[j] = (uint8_t)p.zero_point;
        sdx_quant_apply(f, p, column, count / n, n, q + j);
    }
    sdx_tensor tensor = *w;
    tensor.dtype = f.is_signed ? SDX_I8 : SDX_U8;
    tensor.data = q;
    const char *name = value_name(z, v);
    TRY(add_constant(z, name, "_quantized", &tensor, &out->q));
    TRY(add_params(z, name, f, n, per_channel, scales, zeros, out));
    before = cached(z, v);
    if (before) *before = *out;
    return SDX_OK;
}

static sdx_quant_format weight_format(const quantizer *z)
{
    bool is_signed = !z->options->unsigned_weights;
    return (sdx_quant_format){is_signed, is_signed, z->options->reduce_range};
}

static const sdx_quant_format table_format = {false, false, false};

static sdx_status quantize_activation(quantizer *z, sdx_id v, quantized *out)
{
    quantized *before = cached(z, v);
    if (!before) return sdx_fail_memory(z->err, sizeof *before);
    if (before->q == SDX_NONE) {
        const char *name = value_name(z, v);
        static const char *const suffix[] = {"_quantized", "_scale", "_zero_point"};
        sdx_id made[3];
        for (int i = 0; i < 3; i++) {
            const char *full = suffixed(z, name, suffix[i]);
            if (!full) return sdx_fail_memory(z->err, strlen(name));
            TRY(sdx_graph_add_value(z->graph, full, &made[i], z->err));
        }
        const char *node = suffixed(z, name, "_QuantizeLinear");
        if (!node) return sdx_fail_memory(z->err, strlen(name));
        TRY(sdx_graph_add_node(z->graph, "", "DynamicQuantizeLinear", node, 1, &v, 3, made, NULL, z->err));
        if (!(before = cached(z, v))) return sdx_fail_memory(z->err, sizeof *before);
        *before = (quantized){made[0], made[1], made[2]};
    }
    *out = *before;
    return SDX_OK;
}

/* A float32 constant with a matrix in it. */
static bool is_weight(const quantizer *z, sdx_id v, int min_rank)
{
    const sdx_tensor *t = sdx_graph_constant(z->graph, v);
    return t && t->dtype == SDX_F32 && t->rank >= min_rank && sdx_tensor_count(t) > 0;
}

/* ---- rewrites: each returns with *done false when the node is not one it takes -------------------------------------- */

typedef sdx_status (*rewrite_fn)(quantizer *z, sdx_id node, bool *done);

/* x * W in integers, back in float; the last node writes `result`, an existing value. */
static sdx_status emit_product(quantizer *z, const char *name, sdx_id x, sdx_id weight, sdx_id result)
{
    quantized a, w;
    const sdx_tensor *t = sdx_graph_constant(z->graph, weight);
    TRY(quantize_activation(z, x, &a));
    TRY(quantize_weight(z, weight, weight_format(z), z->options->per_channel && t->rank == 2, &w));
    sdx_id product, cast, scale;
    TRY(emit(z, "", "MatMulInteger", name, "_quant", 4, (sdx_id[]){a.q, w.q, a.zero, w.zero}, &product));
    TRY(emit(z, "", "Cast", name, "_quant_cast", 1, &product, &cast));
    TRY(sdx_node_set_int(z->graph, z->graph->n_node - 1, "to", SDX_F32, z->err));
    TRY(emit(z, "", "Mul", name, "_quant_scales_mul", 2, (sdx_id[]){a.scale, w.scale}, &scale));
    const char *last = suffixed(z, name, "_quant_output_scale_mul");
    if (!last) return sdx_fail_memory(z->err, strlen(name));
    return sdx_graph_add_node(z->graph, "", "Mul", last, 2, (sdx_id[]){cast, scale}, 1, &result, NULL, z->err);
}

/* Nodes without a name are called after what they make. */
static const char *node_name(const quantizer *z, const sdx_node *n)
{
    return *n->name ? n->name : value_name(z, n->out[0]);
}

static sdx_status rewrite_matmul(quantizer *z, sdx_id node, bool *done)
{
    sdx_node n = z->graph->node[node];
    if (!is_weight(z, n.in[1], 2) || sdx_graph_constant(z->graph, n.in[0])) return SDX_OK;
    z->graph->node[node].dead = *done = true;
    return emit_product(z, node_name(z, &n), n.in[0], n.in[1], n.out[0]);
}

/* [n, k] to [k, n] as a constant of its own. */
static sdx_status transposed(quantizer *z, sdx_id v, sdx_id *out)
{
    const sdx_tensor *t = sdx_graph_constant(z->graph, v);
    int64_t rows = t->dim[0], columns = t->dim[1];
    float *data;
    ARENA_NEW(&z->model->arena, data, (size_t)(rows * columns), z->err);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++)
            memcpy(&data[j * rows + i], (const char *)t->data + (i * columns + j) * 4, sizeof(float));
    sdx_tensor turned = {.dtype = SDX_F32, .rank = 2, .dim = {columns, rows}, .data = data};
    return add_constant(z, value_name(z, v), "_transposed", &turned, out);
}

static sdx_status rewrite_gemm(quantizer *z, sdx_id node, bool *done)
{
    sdx_node n = z->graph->node[node];
    bool plain = sdx_node_float(&n, "alpha", 1) == 1 && sdx_node_float(&n, "beta", 1) == 1 && !sdx_node_int(&n, "transA", 0);
    if (!plain || !is_weight(z, n.in[1], 2) || sdx_graph_constant(z->graph, n.in[0])) return SDX_OK;
    z->graph->node[node].dead = *done = true;
    sdx_id weight = n.in[1], product = n.out[0], bias = sdx_node_in(&n, 2);
    const char *name = node_name(z, &n);
    if (sdx_node_int(&n, "transB", 0)) TRY(transposed(z, weight, &weight));
    if (bias != SDX_NONE) {
        const char *full = suffixed(z, name, "_MatMul");
        if (!full) return sdx_fail_memory(z->err, strlen(name));
        TRY(sdx_graph_add_value(z->graph, full, &product, z->err));
    }
    TRY(emit_product(z, name, n.in[0], weight, product));
    if (bias == SDX_NONE) return SDX_OK;
    const char *add = suffixed(z, name, "_Add");
    if (!add) return sdx_fail_memory(z->err, strlen(name));
    return sdx_graph_add_node(z->graph, "", "Add", add, 2, (sdx_id[]){product, bias}, 1, n.out, NULL, z->err);
}

static sdx_status rewrite_gather(quantizer *z, sdx_id node, bool *done)
{
    sdx_node n = z->graph->node[node];
    if (!is_weight(z, n.in[0], 2) || sdx_graph_constant(z->graph, n.in[1])) return SDX_OK;
    z->graph->node[node].dead = *done = true;
    const char *name = node_name(z, &n);
    quantized table;
    TRY(quantize_weight(z, n.in[0], table_format, false, &table));
    sdx_id rows;
    TRY(emit(z, "", "Gather", name, "_quant", 2, (sdx_id[]){table.q, n.in[1]}, &rows));
    TRY(sdx_node_set_int(z->graph, z->graph->n_node - 1, "axis", sdx_node_int(&n, "axis", 0), z->err));
    const char *last = suffixed(z, name, "_DequantizeLinear");
    if (!last) return sdx_fail_memory(z->err, strlen(name));
    return sdx_graph_add_node(z->graph, "", "DequantizeLinear", last, 3, (sdx_id[]){rows, table.scale, table.zero}, 1,
                              n.out, NULL, z->err);
}

/* Attribute by attribute, those that the new operator has too. */
static sdx_status copy_attributes(quantizer *z, const sdx_node *from, sdx_id to, const char *const *names)
{
    for (; *names; names++) {
        const sdx_attr *a = sdx_node_attr(from, *names);
        if (a && a->type == SDX_ATTR_INT) TRY(sdx_node_set_int(z->graph, to, *names, a->i, z->err));
        if (a && a->type == SDX_ATTR_FLOAT) TRY(sdx_node_set_float(z->graph, to, *names, a->f, z->err));
    }
    return SDX_OK;
}

static sdx_status rewrite_attention(quantizer *z, sdx_id node, bool *done)
{
    static const char *const attributes[] = {"num_heads", "unidirectional", "mask_filter_value", "scale", NULL};
    sdx_node n = z->graph->node[node];
    bool beyond = sdx_node_attr(&n, "qkv_hidden_sizes") || sdx_node_in(&n, 5) != SDX_NONE || sdx_node_in(&n, 6) != SDX_NONE;
    if (beyond || sdx_node_in(&n, 2) == SDX_NONE || !is_weight(z, n.in[1], 2)) return SDX_OK;
    z->graph->node[node].dead = *done = true;
    quantized x, w;
    TRY(quantize_activation(z, n.in[0], &x));
    TRY(quantize_weight(z, n.in[1], weight_format(z), z->options->per_channel, &w));
    const char *name = suffixed(z, node_name(z, &n), "_quant");
    if (!name) return sdx_fail_memory(z->err, 1);
    sdx_id in[] = {x.q, w.q, n.in[2], x.scale, w.scale, sdx_node_in(&n, 3), x.zero, w.zero, sdx_node_in(&n, 4)}, made;
    int n_in = in[8] == SDX_NONE ? 8 : 9;
    TRY(sdx_graph_add_node(z->graph, "com.microsoft", "QAttention", name, n_in, in, n.n_out, n.out, &made, z->err));
    return copy_attributes(z, &n, made, attributes);
}

static sdx_status rewrite_embed(quantizer *z, sdx_id node, bool *done)
{
    static const char *const attributes[] = {"epsilon", NULL};
    sdx_node n = z->graph->node[node];
    bool third = n.n_out > 2 && n.out[2] != SDX_NONE, positions = sdx_node_in(&n, 8) != SDX_NONE;
    bool weights = !third && !positions;
    for (int i = 2; i <= 6 && weights; i++)
        weights = (i == 4 && sdx_node_in(&n, i) == SDX_NONE) || is_weight(z, sdx_node_in(&n, i), 1);
    if (!weights) return SDX_OK;
    z->graph->node[node].dead = *done = true;
    quantized table[5] = {[2] = {SDX_NONE, SDX_NONE, SDX_NONE}}; /* word, position, segment, gamma, beta */
    for (int i = 0; i < 5; i++)
        if (n.in[2 + i] != SDX_NONE) TRY(quantize_weight(z, n.in[2 + i], table_format, false, &table[i]));
    sdx_id in[18] = {n.in[0], n.in[1]}, made;
    for (int i = 0; i < 5; i++) {
        in[2 + i] = table[i].q;
        in[8 + i] = table[i].scale;
        in[13 + i] = table[i].zero;
    }
    in[7] = sdx_node_in(&n, 7);
    const char *name = suffixed(z, node_name(z, &n), "_quant");
    if (!name) return sdx_fail_memory(z->err, 1);
    /* The schema wants both outputs; the second may go unread. */
    sdx_id out[2] = {n.out[0], n.n_out > 1 ? n.out[1] : SDX_NONE};
    if (out[1] == SDX_NONE) {
        const char *unread = suffixed(z, name, "_mask_index");
        if (!unread) return sdx_fail_memory(z->err, 1);
        TRY(sdx_graph_add_value(z->graph, unread, &out[1], z->err));
    }
    TRY(sdx_graph_add_node(z->graph, "com.microsoft", "QEmbedLayerNormalization", name, 18, in, 2, out, &made, z->err));
    return copy_attributes(z, &n, made, attributes);
}

static const struct {
    const char *domain, *op_type;
    rewrite_fn rewrite;
} rewrites[] = {
    {"", "MatMul", rewrite_matmul},
    {"", "Gemm", rewrite_gemm},
    {"", "Gather", rewrite_gather},
    {"com.microsoft", "Attention", rewrite_attention},
    {"com.microsoft", "EmbedLayerNormalization", rewrite_embed},
};

/* ---- the driver ------------------------------------------------------------------------------------------------- */

static bool is_excluded(const quantizer *z, const sdx_node *n)
{
    for (size_t i = 0; i < z->options->n_exclude; i++)
        if (!strcmp(z->options->exclude[i], n->name)) return true;
    return false;
}

static sdx_status quantize_node(quantizer *z, sdx_id node)
{
    const sdx_node *n = &z->graph->node[node];
    for (size_t i = 0; i < sizeof rewrites / sizeof *rewrites; i++) {
        if (!sdx_node_is_in(n, rewrites[i].domain, rewrites[i].op_type)) continue;
        bool done = false;
        if (!is_excluded(z, n)) TRY(rewrites[i].rewrite(z, node, &done));
        if (done) z->report.quantized++;
        else z->report.skipped++;
        return SDX_OK;
    }
    return SDX_OK;
}

/* An excluded name that no node has is a typing mistake. */
static sdx_status check_excluded(const quantizer *z)
{
    for (size_t i = 0; i < z->options->n_exclude; i++) {
        bool found = false;
        for (sdx_id k = 0; k < z->graph->n_node && !found; k++)
            found = !strcmp(z->graph->node[k].name, z->options->exclude[i]);
        if (!found)
            return sdx_fail(z->err, SDX_ERR_USAGE, "%s: there is no node \"%s\" to exclude", z->model->path,
                            z->options->exclude[i]);
    }
    return SDX_OK;
}

static sdx_status quantize_graph(quantizer *z)
{
    int64_t opset = sdx_model_opset(z->model, "");
    if (opset < 11)
        return sdx_fail(z->err, SDX_ERR_UNSUPPORTED, "%s: opset %lld has no DynamicQuantizeLinear; export with 11 or later",
                        z->model->path, (long long)opset);
    TRY(check_excluded(z));
    sdx_id before = z->graph->n_node;
    for (sdx_id i = 0; i < before; i++) TRY(quantize_node(z, i));
    if (!z->report.quantized)
        return sdx_fail(z->err, SDX_ERR_USAGE, "%s: nothing to quantize: no MatMul, Gemm, Gather, Attention or "
                        "EmbedLayerNormalization with a constant float32 weight", z->model->path);
    TRY(sdx_graph_sort(z->graph, z->err));
    return sdx_graph_clean(z->graph, z->err);
}

static uint64_t file_size(const char *path)
{
    struct stat st;
    return stat(path, &st) ? 0 : (uint64_t)st.st_size;
}

/* With the weights that lie in a file of their own. */
static uint64_t model_size(const sdx_model *m)
{
    uint64_t bytes = m->file.size;
    for (int i = 0; i < m->n_external; i++) bytes += m->external[i].size;
    return bytes;
}

sdx_status sdx_quantize(const sdx_quantize_options *options, sdx_quantize_report *report, sdx_error *err)
{
    quantizer z = {.options = options, .err = err};
    TRY(sdx_model_open(options->input, &z.model, err));
    z.graph = z.model->graph;
    z.report.bytes_before = model_size(z.model);
    sdx_onnx_write_options write = {.external_data = options->external_data};
    sdx_status status = quantize_graph(&z);
    if (status == SDX_OK) status = sdx_onnx_write(z.model, options->output, &write, err);
    if (status == SDX_OK) {
        z.report.bytes_after = file_size(options->output);
        if (report) *report = z.report;
    }
    free(z.done);
    sdx_model_close(z.model);
    return status;
}
