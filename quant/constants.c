/* constants.c: nodes and constants for the rewrites: weights in integers, each made once, and activations that are
 * quantized when the graph runs. */
#include <stdlib.h>
#include <string.h>

#include "../base/memory.h"
#include "quantizer.h"

const char *sdx_quantizer_name(const sdx_quantizer *z, sdx_id v) { return z->graph->value[v].name; }

const char *sdx_quantizer_suffixed(sdx_quantizer *z, const char *name, const char *suffix)
{
    return sdx_arena_printf(&z->model->arena, "%s%s", name, suffix);
}

sdx_status sdx_quantizer_emit(sdx_quantizer *z, const char *domain, const char *op, const char *name, const char *suffix,
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

bool sdx_quantizer_is_weight(const sdx_quantizer *z, sdx_id v, int min_rank)
{
    const sdx_tensor *t = sdx_graph_constant(z->graph, v);
    return t && t->dtype == SDX_F32 && t->rank >= min_rank && sdx_tensor_count(t) > 0;
}

const char *sdx_quantizer_node_name(const sdx_quantizer *z, const sdx_node *n)
{
    return *n->name ? n->name : sdx_quantizer_name(z, n->out[0]);
}

sdx_status sdx_quantizer_copy_attributes(sdx_quantizer *z, const sdx_node *from, sdx_id to, const char *const *names)
{
    for (; *names; names++) {
        const sdx_attr *a = sdx_node_attr(from, *names);
        if (a && a->type == SDX_ATTR_INT) TRY(sdx_node_set_int(z->graph, to, *names, a->i, z->err));
        if (a && a->type == SDX_ATTR_FLOAT) TRY(sdx_node_set_float(z->graph, to, *names, a->f, z->err));
    }
    return SDX_OK;
}

/* What was made of a value before; NULL when out of memory. */
static sdx_quantized *cached(sdx_quantizer *z, sdx_id v)
{
    if (v >= z->n_done) {
        sdx_id n = z->graph->n_value + 64;
        sdx_quantized *grown = sdx_realloc(z->done, (size_t)n * sizeof *grown);
        if (!grown) return NULL;
        for (sdx_id i = z->n_done; i < n; i++) grown[i] = (sdx_quantized){SDX_NONE, SDX_NONE, SDX_NONE, 0, NULL};
        z->done = grown;
        z->n_done = n;
    }
    return &z->done[v];
}

static sdx_status remember(sdx_quantizer *z, sdx_id v, const sdx_quantized *made)
{
    sdx_quantized *place = cached(z, v);
    if (!place) return sdx_fail_memory(z->err, sizeof *place);
    *place = *made;
    return SDX_OK;
}

/* ---- weights --------------------------------------------------------------------------------------------------- */

/* How a tensor falls into blocks of one scale: block b is at x[b * step + i * stride], i < length. */
typedef struct layout {
    int64_t blocks, length, step, stride;
} layout;

static layout layout_of(const sdx_tensor *t, sdx_quant_axis axis)
{
    int64_t count = sdx_tensor_count(t), last = t->rank ? t->dim[t->rank - 1] : 1;
    if (axis == SDX_QUANT_COLUMN) return (layout){last, count / last, 1, last};
    if (axis == SDX_QUANT_ROW) return (layout){t->dim[0], count / t->dim[0], count / t->dim[0], 1};
    return (layout){1, count, 0, 1};
}

static void add_noise(sdx_quantizer *z, const sdx_quant_params *p, bool is_signed, const char *x, const uint8_t *q,
                      int64_t count, int64_t stride)
{
    for (int64_t i = 0; i < count; i++) {
        float f;
        memcpy(&f, x + i * stride * (int64_t)sizeof f, sizeof f);
        int code = is_signed ? (int8_t)q[i * stride] : q[i * stride];
        double error = (double)f - (double)(code - p->zero_point) * (double)p->scale;
        z->signal += (double)f * (double)f;
        z->noise += error * error;
    }
}

/* Block b times the factors; placed as in the tensor, so that strides stay. */
static const char *multiplied(const char *x, const layout *l, const float *factor, float *scratch)
{
    for (int64_t i = 0; i < l->length; i++) {
        float f;
        memcpy(&f, x + i * l->stride * (int64_t)sizeof f, sizeof f);
        scratch[i * l->stride] = f * factor[i];
    }
    return (const char *)scratch;
}

static sdx_status quantize_blocks(sdx_quantizer *z, sdx_id v, sdx_quant_format f, const layout *l, const float *factor,
                                  float *scratch, float *scales, uint8_t *zeros, uint8_t *q)
{
    const char *data = sdx_graph_constant(z->graph, v)->data;
    for (int64_t b = 0; b < l->blocks; b++) {
        const char *x = data + b * l->step * (int64_t)sizeof(float);
        float min, max;
        if (factor) x = multiplied(x, l, factor, scratch);
        if (!sdx_quant_range(x, l->length, l->stride, &min, &max))
            return sdx_fail(z->err, SDX_ERR_FILE, "%s: weight \"%s\" holds NaN or infinity and cannot be quantized",
                            z->model->path, sdx_quantizer_name(z, v));
        sdx_quant_params p = sdx_quant_params_of(f, min, max);
        scales[b] = p.scale;
        zeros[b] = (uint8_t)p.zero_point;
        sdx_quant_apply(f, p, x, l->length, l->stride, q + b * l->step);
        if (z->options->report) add_noise(z, &p, f.is_signed, x, q + b * l->step, l->length, l->stride);
    }
    return SDX_OK;
}

static sdx_status add_params(sdx_quantizer *z, const char *name, sdx_quant_format f, sdx_quant_axis axis, int64_t n,
                             float *scales, uint8_t *zeros, sdx_quantized *out)
{
    int rank = axis == SDX_QUANT_TENSOR ? 0 : axis == SDX_QUANT_COLUMN ? 1 : 2;
    sdx_tensor scale = {.dtype = SDX_F32, .rank = rank, .dim = {n, 1}, .data = scales};
    sdx_tensor zero = {.dtype = f.is_signed ? SDX_I8 : SDX_U8, .rank = rank, .dim = {n, 1}, .data = zeros};
    TRY(sdx_quantizer_constant(z, name, "_scale", &scale, &out->scale));
    return sdx_quantizer_constant(z, name, "_zero_point", &zero, &out->zero);
}

sdx_status sdx_quantizer_weight(sdx_quantizer *z, sdx_id v, sdx_quant_format format, sdx_quant_axis axis,
                                const float *factor, sdx_quantized *out)
{
    sdx_quantized *before = cached(z, v);
    if (!before) return sdx_fail_memory(z->err, sizeof *before);
    *out = *before;
    int kind = (int)axis * 2 + format.is_signed;
    if (before->q != SDX_NONE && before->kind == kind) return SDX_OK;
    out->kind = kind;
    sdx_tensor tensor = *sdx_graph_constant(z->graph, v);
    layout l = layout_of(&tensor, axis);
    float *scales;
    uint8_t *zeros, *q;
    ARENA_NEW(&z->model->arena, scales, (size_t)l.blocks, z->err);
    ARENA_NEW(&z->model->arena, zeros, (size_t)l.blocks, z->err);
    ARENA_NEW(&z->model->arena, q, (size_t)sdx_tensor_count(&tensor), z->err);
    float *scratch = factor ? sdx_malloc((size_t)(l.length * l.stride) * sizeof *scratch) : NULL;
    if (factor && !scratch) return sdx_fail_memory(z->err, (size_t)(l.length * l.stride) * sizeof *scratch);
    sdx_status status = quantize_blocks(z, v, format, &l, factor, scratch, scales, zeros, q);
    free(scratch);
    TRY(status);
    tensor.dtype = format.is_signed ? SDX_I8 : SDX_U8;
    tensor.data = q;
    const char *name = sdx_quantizer_name(z, v);
    TRY(sdx_quantizer_constant(z, name, "_quantized", &tensor, &out->q));
    TRY(add_params(z, name, format, axis, l.blocks, scales, zeros, out));
    return remember(z, v, out);
}

/* ---- activations ------------------------------------------------------------------------------------------------- */

/* x / factor, as a product with a constant. */
static sdx_status divide(sdx_quantizer *z, sdx_id x, const float *factor, int64_t width, sdx_id *out)
{
    float *inverse;
    ARENA_NEW(&z->model->arena, inverse, (size_t)width, z->err);
    for (int64_t k = 0; k < width; k++) inverse[k] = 1 / factor[k];
    sdx_tensor t = {.dtype = SDX_F32, .rank = 1, .dim = {width}, .data = inverse};
    sdx_id constant;
    TRY(sdx_quantizer_constant(z, sdx_quantizer_name(z, x), "_smooth", &t, &constant));
    return sdx_quantizer_emit(z, "", "Mul", sdx_quantizer_name(z, x), "_smoothed", 2, (sdx_id[]){x, constant}, out);
}

sdx_status sdx_quantizer_activation(sdx_quantizer *z, sdx_id v, sdx_quantized *out)
{
    static const char *const suffix[] = {"_quantized", "_scale", "_zero_point"};
    sdx_quantized *before = cached(z, v);
    if (!before) return sdx_fail_memory(z->err, sizeof *before);
    *out = *before;
    if (before->q != SDX_NONE) return SDX_OK;
    const char *name = sdx_quantizer_name(z, v), *node = sdx_quantizer_suffixed(z, name, "_QuantizeLinear");
    const float *factor;
    int64_t width;
    sdx_id made[3], x = v;
    TRY(sdx_quantizer_smooth(z, v, &factor, &width));
    if (factor) TRY(divide(z, v, factor, width, &x));
    for (int i = 0; i < 3; i++)
        TRY(sdx_graph_add_value(z->graph, sdx_quantizer_suffixed(z, name, suffix[i]), &made[i], z->err));
    if (!node) return sdx_fail_memory(z->err, strlen(name));
    TRY(sdx_graph_add_node(z->graph, "", "DynamicQuantizeLinear", node, 1, &x, 3, made, NULL, z->err));
    *out = (sdx_quantized){made[0], made[1], made[2], 0, factor};
    return remember(z, v, out);
}
