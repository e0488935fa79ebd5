/* constants.c: nodes and constants for the rewrites, and activations in integers, each made once. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../base/dtype.h"
#include "../base/memory.h"
#include "quantizer.h"

const char *sdx_quantizer_name(const sdx_quantizer *z, sdx_id v) { return z->graph->value[v].name; }

const char *sdx_quantizer_suffixed(sdx_quantizer *z, const char *name, const char *suffix)
{
    const char *full = sdx_arena_printf(&z->model->arena, "%s%s", name, suffix);
    for (const sdx_graph *around = z->graph->parent; full && around; around = around->parent)
        while (full && sdx_graph_find_value(around, full) != SDX_NONE)
            full = sdx_arena_printf(&z->model->arena, "%s_", full);
    return full;
}

sdx_status sdx_quantizer_emit(sdx_quantizer *z, const char *domain, const char *op, const char *name,
                              const char *suffix,
                              int n_in, const sdx_id *in, sdx_id *result)
{
    const char *full = sdx_quantizer_suffixed(z, name, suffix);
    if (!full) return sdx_fail_memory(z->err, strlen(name));
    return sdx_graph_emit(z->graph, domain, op, full, n_in, in, result, z->err);
}

sdx_status sdx_quantizer_emit_to(sdx_quantizer *z, const char *domain, const char *op, const char *name,
                                 const char *suffix, int n_in, const sdx_id *in, sdx_id result, sdx_id *node)
{
    const char *full = sdx_quantizer_suffixed(z, name, suffix);
    if (!full) return sdx_fail_memory(z->err, strlen(name));
    return sdx_graph_add_node(z->graph, domain, op, full, n_in, in, 1, &result, node, z->err);
}

sdx_status sdx_quantizer_constant(sdx_quantizer *z, const char *name, const char *suffix, const sdx_tensor *t,
                                  sdx_id *out)
{
    const char *full = sdx_quantizer_suffixed(z, name, suffix);
    if (!full) return sdx_fail_memory(z->err, strlen(name));
    return sdx_graph_add_constant(z->graph, full, t, out, z->err);
}

sdx_status sdx_quantizer_reals(sdx_quantizer *z, const char *name, const char *suffix, const sdx_tensor *t,
                               sdx_id *out)
{
    enum { FEW = 64 };
    int64_t n = sdx_tensor_count(t);
    const float *x = t->data;
    bool halves = z->recipe.row_scales && n >= FEW;
    for (int64_t i = 0; i < n && halves; i++) halves = sdx_f16_to_f32(sdx_f32_to_f16(x[i])) == x[i];
    if (!halves) return sdx_quantizer_constant(z, name, suffix, t, out);
    sdx_tensor half = *t;
    uint16_t *h;
    sdx_id id;
    ARENA_NEW(&z->model->arena, h, (size_t)n, z->err);
    for (int64_t i = 0; i < n; i++) h[i] = sdx_f32_to_f16(x[i]);
    half.dtype = SDX_F16;
    half.data = h;
    const char *full = sdx_quantizer_suffixed(z, name, suffix);
    if (!full) return sdx_fail_memory(z->err, strlen(name));
    TRY(sdx_quantizer_constant(z, full, "_half", &half, &id));
    TRY(sdx_quantizer_emit(z, "", "Cast", full, "", 1, &id, out));
    return sdx_node_set_int(z->graph, z->graph->n_node - 1, "to", SDX_F32, z->err);
}

bool sdx_quantizer_is_weight(const sdx_quantizer *z, sdx_id v, int min_rank)
{
    const sdx_tensor *t = sdx_graph_constant(z->graph, v);
    return t && t->dtype == SDX_F32 && t->rank >= min_rank && sdx_tensor_count(t) > 0;
}

const char *sdx_quantizer_node_name(const sdx_quantizer *z, const sdx_node *n)
{
    return *n->name ? n->name : sdx_quantizer_name(z, n->out[0]);
}

sdx_status sdx_quantizer_copy_attributes(sdx_quantizer *z, const sdx_node *from, sdx_id to,
                                         const char *const *names)
{
    for (; *names; names++) {
        const sdx_attr *a = sdx_node_attr(from, *names);
        if (a && a->type == SDX_ATTR_INT) TRY(sdx_node_set_int(z->graph, to, *names, a->i, z->err));
        if (a && a->type == SDX_ATTR_FLOAT) TRY(sdx_node_set_float(z->graph, to, *names, a->f, z->err));
    }
    return SDX_OK;
}

sdx_quantized *sdx_quantizer_cached(sdx_quantizer *z, sdx_id v)
{
    sdx_quant_cache *c = &z->cache[z->graph->index];
    if (v >= c->n_done) {
        sdx_id n = z->graph->n_value + 64;
        sdx_quantized *grown = sdx_realloc(c->done, (size_t)n * sizeof *grown);
        if (!grown) return NULL;
        for (sdx_id i = c->n_done; i < n; i++) grown[i] = (sdx_quantized){.q = SDX_NONE};
        c->done = grown;
        c->n_done = n;
    }
    return &c->done[v];
}

sdx_status sdx_quantizer_remember(sdx_quantizer *z, sdx_id v, const sdx_quantized *made)
{
    sdx_quantized *place = sdx_quantizer_cached(z, v);
    if (!place) return sdx_fail_memory(z->err, sizeof *place);
    *place = *made;
    return SDX_OK;
}

/* ---- graphs inside --------------------------------------------------------------------------------------- */

sdx_graph *sdx_quantizer_enter_owner(sdx_quantizer *z, sdx_id *v)
{
    sdx_graph *inside = z->graph;
    for (; z->graph->value[*v].outer != SDX_NONE; z->graph = z->graph->parent) *v = z->graph->value[*v].outer;
    return inside;
}

/* *v, a value of owner, in a graph inside it. */
static sdx_status capture(sdx_graph *inside, const sdx_graph *owner, sdx_id *v, sdx_error *err)
{
    if (inside == owner || *v == SDX_NONE) return SDX_OK;
    TRY(capture(inside->parent, owner, v, err));
    sdx_value around = inside->parent->value[*v];
    sdx_id found = sdx_graph_find_value(inside, around.name), outer = *v;
    if (found != SDX_NONE && inside->value[found].outer == outer) {
        *v = found;
        return SDX_OK;
    }
    TRY(sdx_graph_add_value(inside, around.name, v, err));
    inside->value[*v].type = around.type;
    inside->value[*v].outer = outer;
    return SDX_OK;
}

sdx_status sdx_quantizer_leave_owner(sdx_quantizer *z, sdx_graph *inside, sdx_quantized *made)
{
    const sdx_graph *owner = z->graph;
    z->graph = inside;
    TRY(capture(inside, owner, &made->q, z->err));
    TRY(capture(inside, owner, &made->scale, z->err));
    TRY(capture(inside, owner, &made->zero, z->err));
    return capture(inside, owner, &made->real, z->err);
}

/* ---- activations ----------------------------------------------------------------------------------------- */

/* x / factor, as a product with a constant. */
static sdx_status divide(sdx_quantizer *z, sdx_id x, const float *factor, int64_t width, sdx_id *out)
{
    float *inverse;
    ARENA_NEW(&z->model->arena, inverse, (size_t)width, z->err);
    for (int64_t k = 0; k < width; k++) { /* smooth.c made it a float16 */
        float exact = 1 / factor[k], half = sdx_f16_to_f32(sdx_f32_to_f16(exact));
        inverse[k] = fabsf(half - exact) <= 1e-6f * exact ? half : exact;
    }
    sdx_tensor t = {.dtype = SDX_F32, .rank = 1, .dim = {width}, .data = inverse};
    sdx_id constant;
    TRY(sdx_quantizer_reals(z, sdx_quantizer_name(z, x), "_smooth", &t, &constant));
    return sdx_quantizer_emit(z, "", "Mul", sdx_quantizer_name(z, x), "_smoothed", 2, (sdx_id[]){x, constant}, out);
}

/* Codes and parameters of a value that runs of the float model have shown. */
static sdx_status emit_static(sdx_quantizer *z, sdx_id v, const char *name, sdx_quantized *out)
{
    const sdx_quant_sample *s = sdx_quantizer_sample(z, v);
    sdx_quant_params p = sdx_quant_params_of((sdx_quant_format){0}, s->low, s->high);
    float *scale;
    uint8_t *zero;
    ARENA_NEW(&z->model->arena, scale, 1, z->err);
    ARENA_NEW(&z->model->arena, zero, 1, z->err);
    *scale = p.scale;
    *zero = (uint8_t)p.zero_point;
    TRY(sdx_quantizer_constant(z, name, "_scale", &(sdx_tensor){.dtype = SDX_F32, .data = scale}, &out->scale));
    TRY(sdx_quantizer_constant(z, name, "_zero_point", &(sdx_tensor){.dtype = SDX_U8, .data = zero}, &out->zero));
    TRY(sdx_quantizer_emit(z, "", "QuantizeLinear", name, "_quantized", 3, (sdx_id[]){v, out->scale, out->zero},
                           &out->q));
    bool real = z->options->format == SDX_QUANTIZE_QDQ;
    return real ? sdx_quantizer_dequantize(z, name, SDX_QUANT_TENSOR, out) : SDX_OK;
}

static sdx_status emit_dynamic(sdx_quantizer *z, sdx_id v, const char *name, sdx_quantized *out)
{
    static const char *const suffix[] = {"_quantized", "_scale", "_zero_point"};
    const char *node = sdx_quantizer_suffixed(z, name, "_QuantizeLinear");
    const float *factor;
    int64_t width;
    sdx_id made[3], x = v;
    if (!node) return sdx_fail_memory(z->err, strlen(name));
    TRY(sdx_quantizer_smooth(z, v, &factor, &width));
    if (factor) TRY(divide(z, v, factor, width, &x));
    for (int i = 0; i < 3; i++)
        TRY(sdx_graph_add_value(z->graph, sdx_quantizer_suffixed(z, name, suffix[i]), &made[i], z->err));
    TRY(sdx_graph_add_node(z->graph, "", "DynamicQuantizeLinear", node, 1, &x, 3, made, NULL, z->err));
    *out = (sdx_quantized){.q = made[0], .scale = made[1], .zero = made[2], .real = SDX_NONE, .factor = factor};
    return SDX_OK;
}

sdx_status sdx_quantizer_activation(sdx_quantizer *z, sdx_id v, sdx_quantized *out)
{
    sdx_quantized *before = sdx_quantizer_cached(z, v);
    if (!before) return sdx_fail_memory(z->err, sizeof *before);
    *out = *before;
    if (before->q != SDX_NONE) return SDX_OK;
    *out = (sdx_quantized){.real = SDX_NONE};
    TRY((z->options->is_static ? emit_static : emit_dynamic)(z, v, sdx_quantizer_name(z, v), out));
    return sdx_quantizer_remember(z, v, out);
}

sdx_status sdx_quantizer_dequantize(sdx_quantizer *z, const char *name, sdx_quant_axis axis, sdx_quantized *x)
{
    sdx_id in[] = {x->q, x->scale, x->zero};
    TRY(sdx_quantizer_emit(z, "", "DequantizeLinear", name, "_dequantized", x->zero == SDX_NONE ? 2 : 3, in, &x->real));
    if (axis == SDX_QUANT_TENSOR) return SDX_OK;
    return sdx_node_set_int(z->graph, z->graph->n_node - 1, "axis", axis == SDX_QUANT_COLUMN ? 1 : 0, z->err);
}

const sdx_quant_sample *sdx_quantizer_sample(const sdx_quantizer *z, sdx_id v)
{
    for (size_t i = 0; i < z->n_sample; i++)
        if (!strcmp(z->sample[i].name, sdx_quantizer_name(z, v))) return &z->sample[i];
    return NULL;
}

bool sdx_quantizer_is_unseen(const sdx_quantizer *z, sdx_id v)
{
    const sdx_quant_sample *s = z->options->is_static ? sdx_quantizer_sample(z, v) : NULL;
    return z->options->is_static && (!s || s->low > s->high);
}
