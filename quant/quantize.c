/* quantize.c: dynamic quantization as a graph rewrite, in the forms that ONNX Runtime's quantize_dynamic writes, so
 * that its engine runs the file too:
 *
 *   MatMul(x, W)   x -> DynamicQuantizeLinear -> MatMulInteger(xq, Wq, x_zero, W_zero) -> Cast -> Mul(x_scale*W_scale)
 *   Gemm(x, W, c)  as MatMul, then Add(c)
 *   Attention      QAttention: the projection in int8, scores and softmax in float
 *   Gather, EmbedLayerNormalization   see tables.c
 *
 * Activations are uint8 per tensor for the standard. The default recipe marks the file with
 * sardonyx.activation_scale=row: each row by its own range would do as well, and better; this engine does that. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "../base/memory.h"
#include "quantizer.h"

/* ---- recipes --------------------------------------------------------------------------------------------- */

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
    bool asks_for_form = o->per_channel || o->unsigned_weights || o->reduce_range;
    *r = asks_for_form ? (sdx_quant_recipe){.name = ""} : recipes[0];
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

static sdx_status check_options(const sdx_quantize_options *o, sdx_error *err)
{
    int64_t block = o->block_size;
    if (o->weight_bits && o->weight_bits != 4 && o->weight_bits != 8)
        return sdx_fail(err, SDX_ERR_USAGE, "weights alone take 4 or 8 bits, not %d", o->weight_bits);
    if (block && (block < 16 || block & (block - 1)))
        return sdx_fail(err, SDX_ERR_USAGE, "a block of weights has a power of two of them, 16 or more; not %d",
                        o->block_size);
    if (o->percentile < 0 || o->percentile > 100)
        return sdx_fail(err, SDX_ERR_USAGE, "a percentile is between 0 and 100, not %g", o->percentile);
    if (o->format == SDX_QUANTIZE_QDQ && !o->is_static)
        return sdx_fail(err, SDX_ERR_USAGE, "the QDQ form is static: it needs calibration cases");
    if (o->weight_bits && o->is_static)
        return sdx_fail(err, SDX_ERR_USAGE,
                        "with %d-bit weights alone no activation is quantized, and none needs calibration",
                        o->weight_bits);
    return SDX_OK;
}

/* ---- nodes ----------------------------------------------------------------------------------------------- */

static const struct {
    const char *domain, *op_type;
    sdx_quant_rewrite rewrite, weights_only; /* NULL: stays in float; a Gemm that can be a MatMul is one by now */
    bool by_choice;                          /* only if op_types names it */
} rewrites[] = {
    {"", "MatMul", sdx_quant_matmul, sdx_quant_blocks, false},
    {"", "Gemm", NULL, NULL, false},
    {"", "Gather", sdx_quant_gather, sdx_quant_gather, false},
    {"", "Conv", sdx_quant_conv, NULL, true},
    {"com.microsoft", "Attention", sdx_quant_attention, NULL, false},
    {"com.microsoft", "EmbedLayerNormalization", sdx_quant_embed, sdx_quant_embed, false},
};
enum { N_REWRITES = sizeof rewrites / sizeof *rewrites };

static bool list_has(const char *list, const char *name)
{
    size_t length = strlen(name);
    for (const char *p = list; p; p = strchr(p, ',')) {
        p += *p == ',';
        if (!strncmp(p, name, length) && (p[length] == ',' || !p[length])) return true;
    }
    return false;
}

/* The row of the table for a node; -1: not one of the operators that the options name. */
static int find_rewrite(const sdx_quantize_options *o, const sdx_node *n)
{
    for (int i = 0; i < N_REWRITES; i++)
        if (sdx_node_is_in(n, rewrites[i].domain, rewrites[i].op_type))
            return (o->op_types ? list_has(o->op_types, n->op_type) : !rewrites[i].by_choice) ? i : -1;
    return -1;
}

static sdx_status check_op_types(const sdx_quantize_options *o, sdx_error *err)
{
    for (const char *p = o->op_types; p; p = strchr(p, ',')) {
        p += *p == ',';
        bool known = false;
        for (int i = 0; i < N_REWRITES; i++)
            known |=
                strcspn(p, ",") == strlen(rewrites[i].op_type) && !strncmp(p, rewrites[i].op_type, strcspn(p, ","));
        if (!known)
            return sdx_fail(err, SDX_ERR_USAGE, "operators \"%s\": known are MatMul, Gemm, Gather, Conv, Attention and "
                            "EmbedLayerNormalization", o->op_types);
    }
    return SDX_OK;
}

/* Nodes go by their names or, for those that have none, by what they make. */
static bool has_name(const sdx_graph *g, const sdx_node *n, const char *name)
{
    return !strcmp(name, n->name) || (n->n_out && n->out[0] != SDX_NONE && !strcmp(name, g->value[n->out[0]].name));
}

static bool is_excluded(const sdx_quantizer *z, const sdx_node *n)
{
    for (size_t i = 0; i < z->options->n_exclude; i++)
        if (has_name(z->graph, n, z->options->exclude[i])) return true;
    return false;
}

static sdx_status quantize_node(sdx_quantizer *z, sdx_id node)
{
    const sdx_node n = z->graph->node[node];
    int i = n.dead ? -1 : find_rewrite(z->options, &n);
    if (i < 0) return SDX_OK;
    bool done = false;
    sdx_quant_rewrite rewrite = z->options->weight_bits ? rewrites[i].weights_only : rewrites[i].rewrite;
    if (rewrite && !is_excluded(z, &n)) TRY(rewrite(z, node, &done));
    if (done) z->report.quantized++;
    else z->report.skipped++;
    return SDX_OK;
}

static sdx_status split_gemms(sdx_quantizer *z)
{
    for (sdx_id i = 0, count = z->graph->n_node; i < count; i++) {
        const sdx_node *n = &z->graph->node[i];
        bool taken = sdx_node_is(n, "Gemm") && find_rewrite(z->options, n) >= 0;
        if (taken && !is_excluded(z, n)) TRY(sdx_quant_split_gemm(z, i));
    }
    return SDX_OK;
}

static bool is_somewhere(const sdx_model *m, const char *name)
{
    for (const sdx_graph *g = m->graphs; g; g = g->next)
        for (sdx_id k = 0; k < g->n_node; k++)
            if (has_name(g, &g->node[k], name)) return true;
    return false;
}

/* An excluded name that no node has is a typing mistake. */
static sdx_status check_excluded(const sdx_quantizer *z)
{
    for (size_t i = 0; i < z->options->n_exclude; i++) {
        if (!is_somewhere(z->model, z->options->exclude[i]))
            return sdx_fail(z->err, SDX_ERR_USAGE, "%s: there is no node \"%s\" to exclude", z->model->path,
                            z->options->exclude[i]);
    }
    return SDX_OK;
}

bool sdx_quantize_is_candidate(const sdx_quantize_options *options, const sdx_graph *g, const sdx_node *n)
{
    bool constant = false;
    for (int k = 0; k < n->n_in; k++) {
        const sdx_tensor *t = sdx_graph_constant(g, n->in[k]);
        constant |= t && t->dtype == SDX_F32 && t->rank >= 2;
    }
    return constant && find_rewrite(options, n) >= 0;
}

sdx_id sdx_quantize_activation(const sdx_quantize_options *options, const sdx_graph *g, const sdx_node *n)
{
    int i = find_rewrite(options, n);
    bool product = i >= 0 && rewrites[i].rewrite != sdx_quant_gather && rewrites[i].rewrite != sdx_quant_embed;
    const sdx_tensor *w = product && n->n_in > 1 ? sdx_graph_constant(g, n->in[1]) : NULL;
    return w && w->dtype == SDX_F32 && w->rank >= 2 && !sdx_graph_constant(g, n->in[0]) ? n->in[0] : SDX_NONE;
}

/* ---- the driver ------------------------------------------------------------------------------------------ */

/* Nodes from first on, and those called after their result, need no name: in a large model a tenth of a megabyte. */
static void drop_names(sdx_graph *g, sdx_id first)
{
    for (sdx_id i = 0; i < g->n_node; i++) {
        sdx_node *n = &g->node[i];
        bool repeats = n->n_out && n->out[0] != SDX_NONE && !strcmp(n->name, g->value[n->out[0]].name);
        if (i >= first || repeats) n->name = "";
    }
}

static sdx_status quantize_graph(sdx_quantizer *z, sdx_graph *g);

/* The graphs inside the first n_node nodes, say the branches of a merged decoder. What calibration saw of the main
 * graph does not reach them: their activations are not smoothed, and stay in float in a static form. */
static sdx_status quantize_bodies(sdx_quantizer *z, const sdx_graph *g, sdx_id n_node)
{
    sdx_graph *body;
    for (sdx_id i = 0; i < n_node; i++) {
        for (int k = 0; (body = sdx_node_graph(&g->node[i], k)); k++) {
            for (sdx_id v = 0; v < body->n_value; v++) /* captured weights are constants here too */
                if (body->value[v].outer != SDX_NONE) body->value[v].type = g->value[body->value[v].outer].type;
            TRY(quantize_graph(z, body));
        }
    }
    return SDX_OK;
}

static sdx_status quantize_graph(sdx_quantizer *z, sdx_graph *g)
{
    z->graph = g;
    TRY(split_gemms(z));
    sdx_id before = g->n_node;
    for (sdx_id i = 0; i < before; i++) TRY(quantize_node(z, i));
    TRY(quantize_bodies(z, g, before));
    if (z->recipe.row_scales) drop_names(g, before);
    TRY(sdx_graph_sort(g, z->err));
    return sdx_graph_clean(g, z->err);
}

static sdx_status quantize_all(sdx_quantizer *z)
{
    int64_t opset = sdx_model_opset(z->model, "");
    if (opset < 11)
        return sdx_fail(z->err, SDX_ERR_UNSUPPORTED,
                        "%s: opset %lld has no DynamicQuantizeLinear; export with 11 or later", z->model->path,
                        (long long)opset);
    TRY(check_excluded(z));
    TRY(quantize_graph(z, z->model->graph));
    if (!z->report.quantized || !z->recipe.row_scales || z->options->is_static || z->options->weight_bits)
        return SDX_OK;
    return sdx_model_set_metadata(z->model, "sardonyx.activation_scale", "row", z->err);
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

bool sdx_quantize_wants_samples(const sdx_quantize_options *options)
{
    sdx_quant_recipe recipe;
    bool ours = choose_recipe(options, &recipe, NULL) == SDX_OK && recipe.row_scales;
    return options->is_static || (ours && !options->weight_bits);
}

static sdx_status make_model(sdx_quantizer *z)
{
    TRY(check_options(z->options, z->err));
    TRY(check_op_types(z->options, z->err));
    TRY(choose_recipe(z->options, &z->recipe, z->err));
    TRY(sdx_model_open(z->options->input, &z->model, z->err));
    z->n_cache = z->model->graphs->index + 1;
    z->cache = sdx_calloc((size_t)z->n_cache, sizeof *z->cache);
    if (!z->cache) return sdx_fail_memory(z->err, (size_t)z->n_cache * sizeof *z->cache);
    z->threads = sdx_default_threads();
    z->report.bytes_before = model_size(z->model);
    return quantize_all(z);
}

sdx_status sdx_quantize_model(const sdx_quantize_options *options, const sdx_quant_sample *sample,
                              size_t n_sample,
                              sdx_model **out, sdx_quantize_report *report, sdx_error *err)
{
    sdx_quantizer z = {.options = options, .sample = sample, .n_sample = n_sample, .err = err};
    sdx_status status = make_model(&z);
    for (int i = 0; i < z.n_cache && z.cache; i++) free(z.cache[i].done);
    free(z.cache);
    *report = z.report;
    *out = status == SDX_OK ? z.model : NULL;
    if (status != SDX_OK) sdx_model_close(z.model);
    return status;
}

sdx_status sdx_quantize_write(const sdx_quantize_options *options, const sdx_model *model,
                              sdx_quantize_report *report,
                              sdx_error *err)
{
    sdx_onnx_write_options write = {.external_data = options->external_data};
    TRY(sdx_onnx_write(model, options->output, &write, err));
    char data[4096];
    snprintf(data, sizeof data, "%s.data", options->output);
    report->bytes_after = file_size(options->output) + (options->external_data ? file_size(data) : 0);
    return SDX_OK;
}
