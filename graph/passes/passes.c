/* passes.c: the ordered table, its driver, and the few ways in which passes rewrite.
 *
 * Order matters as little as possible: each pass reads the graph by what its nodes mean. Still, shapes fold
 * before fusions look at sizes, LayerNormalization exists before what contains it, embeddings take their
 * LayerNormalization before skip connections do, and biases are absorbed last. */
#include "passes.h"

#include <stdio.h>
#include <string.h>

#include "../../base/memory.h"

const sdx_pass sdx_passes[] = {
    {"fold_constants", "compute what depends on constants and known sizes only", sdx_pass_fold_constants},
    {"inline_branches", "take the branch of an If whose condition is known", sdx_pass_inline_branches},
    {"join_transposed", "cached keys joined before they are transposed", sdx_pass_join_transposed},
    {"eliminate", "drop nodes that change nothing", sdx_pass_eliminate},
    {"widen_f16", "compute float16 in float32; only inside the engine", sdx_pass_widen_f16},
    {"fold_shapes", "spell Reshape targets as constants", sdx_pass_fold_shapes},
    {"merge_duplicates", "compute equal things once", sdx_pass_merge_duplicates},
    {"fuse_index", "look-ups at the coordinates that NonZero found", sdx_pass_fuse_index},
    {"fuse_layer_norm", "LayerNormalization from its arithmetic", sdx_pass_fuse_layer_norm},
    {"fuse_rms_norm", "SimplifiedLayerNormalization from its arithmetic", sdx_pass_fuse_rms_norm},
    {"fuse_gelu", "Gelu, FastGelu and QuickGelu from their arithmetic", sdx_pass_fuse_gelu},
    {"fuse_attention", "attention, with its projections where they are of one input", sdx_pass_fuse_attention},
    {"fuse_embed_layer_norm", "embedding look-ups, their sum and its normalization",
     sdx_pass_fuse_embed_layer_norm},
    {"fuse_skip_layer_norm", "residual Add (and bias) into the normalization after it",
     sdx_pass_fuse_skip_layer_norm},
    {"fuse_bias_gelu", "bias Add into the Gelu after it", sdx_pass_fuse_bias_gelu},
    {"fuse_dynamic_linear", "dynamically quantized layers in one step; only inside the engine",
     sdx_pass_fuse_dynamic_linear},
    {"fuse_scaled_rows", "look-ups in tables of bytes; only inside the engine", sdx_pass_fuse_scaled_rows},
    {"fuse_transpose", "products that read their operands the other way round", sdx_pass_fuse_transpose},
    {"pack_tokens", "run encoders on real tokens only, without padding; only inside the engine",
     sdx_pass_pack_tokens},
};
const size_t sdx_pass_count = sizeof sdx_passes / sizeof *sdx_passes;

/* ---- driver --------------------------------------------------------------------------------------------- */

static bool list_has(const char *list, const char *name)
{
    size_t length = strlen(name);
    for (const char *p = list; p; p = strchr(p, ',')) {
        p += *p == ',';
        if (strncmp(p, name, length) == 0 && (p[length] == ',' || p[length] == '\0')) return true;
    }
    return false;
}

static bool is_pass(const char *name, size_t length)
{
    for (size_t i = 0; i < sdx_pass_count; i++)
        if (strlen(sdx_passes[i].name) == length && memcmp(sdx_passes[i].name, name, length) == 0) return true;
    return false;
}

static sdx_status check_names(const char *only, sdx_error *err)
{
    for (const char *p = only; p && *p;) {
        size_t length = strcspn(p, ",");
        if (!is_pass(p, length)) {
            char known[512] = "";
            for (size_t i = 0, n = 0; i < sdx_pass_count && n < sizeof known; i++)
                n += (size_t)snprintf(known + n, sizeof known - n, "%s%s", i ? ", " : "", sdx_passes[i].name);
            return sdx_fail(err, SDX_ERR_USAGE, "there is no pass \"%.*s\"; the passes are %s", (int)length, p,
                            known);
        }
        p += length + (p[length] == ',');
    }
    return SDX_OK;
}

/* The graph and every subgraph below it: inner ones first, so that what they stop capturing can go. */
static sdx_status run_everywhere(const sdx_pass *pass, sdx_pass_context *context, sdx_graph *graph)
{
    for (sdx_id i = 0; i < graph->n_node; i++) {
        for (int a = 0; a < graph->node[i].n_attr; a++) {
            const sdx_attr *attr = &graph->node[i].attr[a];
            if (attr->graph) TRY(run_everywhere(pass, context, attr->graph));
            for (size_t k = 0; attr->type == SDX_ATTR_GRAPHS && k < attr->count; k++)
                TRY(run_everywhere(pass, context, attr->graphs[k]));
        }
    }
    TRY(sdx_graph_index(graph, context->err));
    return pass->run(context, graph);
}

/* A file may hold operators that only another engine runs: rewriting goes on around them. */
static sdx_status resolve_and_infer(sdx_pass_context *context)
{
    sdx_status status = sdx_model_resolve(context->model, context->registry, context->err);
    if (status != SDX_OK && (status != SDX_ERR_UNSUPPORTED || context->for_run)) return status;
    if (status != SDX_OK && context->err) *context->err = (sdx_error){0};
    return sdx_model_infer(context->model, context->err);
}

static sdx_status run_all(sdx_pass_context *context, const char *only)
{
    TRY(resolve_and_infer(context));
    for (size_t i = 0; i < sdx_pass_count; i++) {
        if (only && *only && !list_has(only, sdx_passes[i].name)) continue;
        context->changes = 0;
        TRY(run_everywhere(&sdx_passes[i], context, context->model->graph));
        if (context->changes > 0) TRY(resolve_and_infer(context));
    }
    return SDX_OK;
}

/* What the file declares of its inputs and outputs is kept: sizes that inference named are not for the reader. */
typedef struct declared {
    sdx_shape *input, *output; /* [n_input], [n_output] */
} declared;

static sdx_shape shape_of_port(const sdx_value *v)
{
    return v->declared && !v->declared->sequence ? v->declared->shape : v->type.shape;
}

static sdx_status save_declared(sdx_graph *g, declared *d, sdx_error *err)
{
    ARENA_NEW(&g->model->arena, d->input, (size_t)g->n_input + 1, err);
    ARENA_NEW(&g->model->arena, d->output, (size_t)g->n_output + 1, err);
    for (int i = 0; i < g->n_input; i++) d->input[i] = shape_of_port(&g->value[g->input[i]]);
    for (int i = 0; i < g->n_output; i++) d->output[i] = shape_of_port(&g->value[g->output[i]]);
    return SDX_OK;
}

static void restore_declared(sdx_graph *g, const declared *d)
{
    for (int i = 0; i < g->n_input; i++) g->value[g->input[i]].type.shape = d->input[i];
    for (int i = 0; i < g->n_output; i++) g->value[g->output[i]].type.shape = d->output[i];
}

sdx_status sdx_passes_run(sdx_pass_context *context, const char *only)
{
    declared d;
    TRY(check_names(only, context->err));
    TRY(save_declared(context->model->graph, &d, context->err));
    TRY(run_all(context, only));
    restore_declared(context->model->graph, &d);
    return SDX_OK;
}

/* ---- rewriting ------------------------------------------------------------------------------------------ */

/* "/encoder/layer.0/output/LayerNorm/Add_1" and "SkipLayerNormalization" make
 * "/encoder/layer.0/output/LayerNorm/SkipLayerNormalization_812": the scope says where, the output's id makes
 * it unique. */
static const char *name_after(sdx_graph *graph, sdx_id anchor, const char *op_type, sdx_id out)
{
    const char *name = graph->node[anchor].name, *slash = strrchr(name, '/');
    int scope = slash ? (int)(slash - name) + 1 : 0;
    return sdx_arena_printf(&graph->model->arena, "%.*s%s_%d", scope, name, op_type, (int)out);
}

static sdx_status import_domain(sdx_model *model, const char *domain, sdx_error *err)
{
    if (*domain == '\0' || sdx_model_opset(model, domain) > 0) return SDX_OK;
    return sdx_model_set_opset(model, domain, 1, err);
}

sdx_status sdx_pass_replace(sdx_pass_context *context, sdx_graph *graph, sdx_id anchor, const char *domain,
                            const char *op_type, int n_in, const sdx_id *in, int n_out, const sdx_id *out,
                            sdx_id *node)
{
    TRY(import_domain(context->model, domain, context->err));
    const char *name = name_after(graph, anchor, op_type, out[0]);
    if (!name) return sdx_fail_memory(context->err, strlen(op_type));
    for (int i = 0; i < n_out; i++) {
        sdx_node *old = sdx_graph_producer(graph, out[i]);
        if (old) old->dead = true;
    }
    context->changes++;
    TRY(sdx_graph_add_node(graph, domain, op_type, name, n_in, in, n_out, out, node, context->err));
    int64_t version = sdx_model_opset(context->model, domain);
    graph->node[*node].def = sdx_op_find(context->registry, domain, op_type, version);
    return SDX_OK;
}

/* Only a value made by a node, and not an output itself, can take another name. */
static bool can_rename(const sdx_graph *graph, sdx_id v)
{
    return sdx_graph_producer(graph, v) && !graph->value[v].is_output;
}

static void write_instead(sdx_graph *graph, sdx_id old, sdx_id new_value)
{
    sdx_node *producer = sdx_graph_producer(graph, old);
    for (int i = 0; i < producer->n_out; i++)
        if (producer->out[i] == old) producer->out[i] = new_value;
    graph->value[new_value].producer = graph->value[old].producer;
    graph->value[old].producer = SDX_NONE;
    sdx_graph_replace_uses(graph, old, new_value);
}

sdx_status sdx_pass_alias(sdx_pass_context *context, sdx_graph *graph, sdx_id original, sdx_id copy, bool *done)
{
    bool is_output = graph->value[copy].is_output;
    sdx_node *writer = sdx_graph_producer(graph, copy);
    *done = writer && (!is_output || can_rename(graph, original));
    if (!*done) return SDX_OK;
    writer->dead = true;
    if (is_output)
        write_instead(graph, original, copy);
    else
        sdx_graph_replace_uses(graph, copy, original);
    context->changes++;
    return SDX_OK;
}

sdx_status sdx_pass_emit(sdx_pass_context *context, sdx_graph *graph, const char *op_type, const char *name, int n_in,
                         const sdx_id *in, sdx_id *out)
{
    enum { MOST = 8 };
    sdx_type from[MOST], to = {.shape = {.rank = -1}};
    TRY(sdx_graph_emit(graph, "", op_type, name, n_in, in, out, context->err));
    sdx_node *n = &graph->node[graph->value[*out].producer];
    n->def = sdx_op_find(context->registry, "", op_type, sdx_model_opset(graph->model, ""));
    if (!n->def || n_in > MOST) return SDX_OK;
    for (int i = 0; i < n_in; i++) from[i] = graph->value[in[i]].type;
    sdx_infer infer = {.model = graph->model, .node = n, .n_in = n_in, .n_out = 1, .in = from, .out = &to,
                       .arena = &graph->model->arena, .err = context->err};
    TRY(sdx_op_infer(&infer));
    graph->value[*out].type = to;
    return SDX_OK;
}

sdx_status sdx_pass_ints(sdx_pass_context *context, sdx_graph *g, int rank, const int64_t *ints, sdx_id *out)
{
    char name[200] = "shape";
    for (int i = 0, at = 5; i < rank; i++)
        at += snprintf(name + at, sizeof name - (size_t)at, "_%lld", (long long)ints[i]);
    int64_t found[SDX_MAX_RANK];
    int count = 0;
    *out = sdx_graph_find_value(g, name);
    bool usable = *out != SDX_NONE && sdx_graph_constant(g, *out) &&
                  sdx_type_ints(sdx_match_type(g, *out), SDX_MAX_RANK, found, &count) && count == rank &&
                  memcmp(found, ints, (size_t)rank * sizeof *ints) == 0;
    return usable ? SDX_OK : sdx_graph_add_ints(g, name, rank, ints, out, context->err);
}

sdx_status sdx_pass_scalar(sdx_pass_context *context, sdx_graph *g, float number, sdx_id *out)
{
    char name[64];
    double found;
    snprintf(name, sizeof name, "number_%.9g", (double)number);
    *out = sdx_graph_find_value(g, name);
    bool usable = *out != SDX_NONE && sdx_match_type(g, *out)->shape.rank == 0 && sdx_graph_scalar(g, *out, &found) &&
                  (float)found == number && sdx_match_type(g, *out)->dtype == SDX_F32;
    return usable ? SDX_OK : sdx_graph_add_scalar_f32(g, name, number, out, context->err);
}

static sdx_id find_int32(const sdx_graph *graph, sdx_id value)
{
    for (sdx_id i = graph->n_node; i-- > 0;) {
        const sdx_node *n = &graph->node[i];
        if (sdx_node_is(n, "Cast") && sdx_node_in(n, 0) == value && sdx_node_int(n, "to", 0) == SDX_I32)
            return n->out[0];
    }
    return SDX_NONE;
}

sdx_status sdx_pass_int32(sdx_pass_context *context, sdx_graph *graph, sdx_id value, sdx_id *result)
{
    *result = sdx_match_type(graph, value)->dtype == SDX_I32 ? value : find_int32(graph, value);
    if (*result != SDX_NONE) return SDX_OK;
    char name[256];
    snprintf(name, sizeof name, "%s_int32", graph->value[value].name);
    TRY(sdx_graph_emit(graph, "", "Cast", name, 1, &value, result, context->err));
    return sdx_node_set_int(graph, graph->value[*result].producer, "to", SDX_I32, context->err);
}

sdx_status sdx_pass_finish(sdx_pass_context *context, sdx_graph *graph)
{
    return context->changes ? sdx_graph_clean(graph, context->err) : SDX_OK;
}
