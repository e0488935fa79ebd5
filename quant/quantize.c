/* quantize.c: dynamic quantization as a graph rewrite, in the forms that ONNX Runtime's quantize_dynamic writes, so
 * that its engine runs the file too:
 *
 *   MatMul(x, W)   x -> DynamicQuantizeLinear -> MatMulInteger(xq, Wq, x_zero, W_zero) -> Cast -> Mul(x_scale * W_scale)
 *   Gemm(x, W, c)  as MatMul, then Add(c)
 *   Attention      QAttention: the projection in int8, scores and softmax in float
 *   Gather, EmbedLayerNormalization   see tables.c
 *
 * Activations are uint8 per tensor for the standard. The default recipe marks the file with
 * sardonyx.activation_scale=row: each row by its own range would do as well, and better; this engine does that. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "../base/memory.h"
#include "quantizer.h"

/* ---- recipes ---------------------------------------------------------------------------------------------------- */

/* anserini is quantize_dynamic(weight_type=QInt8); the next three are the AutoQuantizationConfig of optimum. */
static const sdx_quant_recipe recipes[] = {
    {.name = "accurate", .per_channel = true, .row_scales = true},
    {.name = "anserini"},
    {.name = "avx512_vnni", .per_channel = true},
    {.name = "avx2", .per_channel = true, .unsigned_weights = true, .symmetric = true},
    {.name = "arm64", .per_channel = true},
};
enum { N_RECIPES = sizeof recipes / sizeof *recipes };

static sdx_status unknown_recipe(const char *name, sdx_error *err)
{
    char known[256] = "";
    size_t n = 0;
    for (int i = 0; i < N_RECIPES && n < sizeof known; i++)
        n += (size_t)snprintf(known + n, sizeof known - n, "%s%s", i ? ", " : "", recipes[i].name);
    return sdx_fail(err, SDX_ERR_USAGE, "there is no preset \"%s\"; the presets are %s", name, known);
}

static sdx_status choose_recipe(const sdx_quantize_options *o, sdx_quant_recipe *r, sdx_error *err)
{
    *r = (sdx_quant_recipe){.name = ""}; /* ONNX Runtime's form, with what the options say */
    if (o->preset) {
        int i = 0;
        while (i < N_RECIPES && strcmp(recipes[i].name, o->preset)) i++;
        if (i == N_RECIPES) return unknown_recipe(o->preset, err);
        *r = recipes[i];
    }
    r->per_channel |= o->per_channel;
    r->unsigned_weights |= o->unsigned_weights;
    r->reduce_range |= o->reduce_range;
    return SDX_OK;
}

/* ---- nodes ------------------------------------------------------------------------------------------------------- */

static const struct {
    const char *domain, *op_type;
    sdx_quant_rewrite rewrite;
} rewrites[] = {
    {"", "MatMul", sdx_quant_matmul},
    {"", "Gemm", sdx_quant_gemm},
    {"", "Gather", sdx_quant_gather},
    {"com.microsoft", "Attention", sdx_quant_attention},
    {"com.microsoft", "EmbedLayerNormalization", sdx_quant_embed},
};

static bool is_excluded(const sdx_quantizer *z, const sdx_node *n)
{
    for (size_t i = 0; i < z->options->n_exclude; i++)
        if (!strcmp(z->options->exclude[i], n->name)) return true;
    return false;
}

static void report_node(sdx_quantizer *z, const sdx_node *n, bool done, bool excluded)
{
    if (!z->options->report) return;
    if (!z->text.size) sdx_buffer_printf(&z->text, "%8s  %-24s %s\n", "SQNR dB", "operator", "node");
    if (done && z->noise > 0)
        sdx_buffer_printf(&z->text, "%8.1f", 10 * log10(z->signal / z->noise));
    else
        sdx_buffer_printf(&z->text, "%8s", done ? "shared" : excluded ? "excluded" : "float");
    sdx_buffer_printf(&z->text, "  %-24s %s\n", n->op_type, sdx_quantizer_node_name(z, n));
}

static sdx_status quantize_node(sdx_quantizer *z, sdx_id node)
{
    const sdx_node n = z->graph->node[node];
    for (size_t i = 0; i < sizeof rewrites / sizeof *rewrites; i++) {
        if (!sdx_node_is_in(&n, rewrites[i].domain, rewrites[i].op_type)) continue;
        bool done = false, excluded = is_excluded(z, &n);
        z->signal = z->noise = 0;
        if (!excluded) TRY(rewrites[i].rewrite(z, node, &done));
        if (done) z->report.quantized++;
        else z->report.skipped++;
        report_node(z, &n, done, excluded);
        return SDX_OK;
    }
    return SDX_OK;
}

/* An excluded name that no node has is a typing mistake. */
static sdx_status check_excluded(const sdx_quantizer *z)
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

/* ---- the driver ------------------------------------------------------------------------------------------------- */

static sdx_status quantize_graph(sdx_quantizer *z)
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
    if (z->recipe.row_scales) TRY(sdx_model_set_metadata(z->model, "sardonyx.activation_scale", "row", z->err));
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

static sdx_status quantize_file(sdx_quantizer *z)
{
    sdx_onnx_write_options write = {.external_data = z->options->external_data};
    TRY(choose_recipe(z->options, &z->recipe, z->err));
    TRY(sdx_model_open(z->options->input, &z->model, z->err));
    z->graph = z->model->graph;
    z->report.bytes_before = model_size(z->model);
    TRY(quantize_graph(z));
    TRY(sdx_onnx_write(z->model, z->options->output, &write, z->err));
    z->report.bytes_after = file_size(z->options->output);
    return z->options->report ? sdx_buffer_take(&z->text, &z->report.table, z->err) : SDX_OK;
}

bool sdx_quantize_wants_samples(const sdx_quantize_options *options)
{
    sdx_quant_recipe recipe;
    return choose_recipe(options, &recipe, NULL) == SDX_OK && recipe.row_scales;
}

sdx_status sdx_quantize_sampled(const sdx_quantize_options *options, const sdx_quant_sample *sample, size_t n_sample,
                                sdx_quantize_report *report, sdx_error *err)
{
    sdx_quantizer z = {.options = options, .sample = sample, .n_sample = n_sample, .err = err};
    sdx_status status = quantize_file(&z);
    if (status == SDX_OK && report) *report = z.report;
    else free(z.report.table);
    sdx_buffer_fini(&z.text);
    free(z.done);
    sdx_model_close(z.model);
    return status;
}
