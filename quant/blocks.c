/* blocks.c: weights alone in 4 or 8 bits, com.microsoft MatMulNBits: for models that spend their time on fetching
 * weights, as decoders do that make one token at a time. A column is cut into blocks of block_size weights; each has a
 * float32 scale and a zero point, so one large weight spoils its block only:
 *
 *     w = (q - zero) * scale          B [N][blocks][block_size * bits / 8], low bits first; the last block padded */
#include <math.h>
#include <string.h>

#include "../base/memory.h"
#include "../base/parallel.h"
#include "quantizer.h"

enum { DEFAULT_BLOCK = 32 };

typedef struct block_job {
    const char *x; /* [k, n] floats, any alignment */
    int64_t k, n, block, blocks;
    int bits;
    uint8_t *q;     /* [n][blocks][block * bits / 8] */
    float *scale;   /* [n][blocks] */
    uint8_t *zero;  /* [n][bytes of blocks * bits] */
    bool *finite;   /* [n] */
} block_job;

static int64_t zero_bytes(const block_job *j) { return (j->blocks * j->bits + 7) / 8; }

static float load(const block_job *j, int64_t k, int64_t column)
{
    float f;
    memcpy(&f, j->x + (k * j->n + column) * (int64_t)sizeof f, sizeof f);
    return f;
}

static void put_bits(uint8_t *stream, int64_t i, int bits, int code)
{
    int64_t per_byte = 8 / bits;
    stream[i / per_byte] |= (uint8_t)(code << (int)(i % per_byte) * bits);
}

/* Block b of a column; false when it holds NaN or infinity. */
static bool quantize_block(const block_job *j, int64_t column, int64_t b)
{
    int64_t begin = b * j->block, end = begin + j->block < j->k ? begin + j->block : j->k,
            place = column * j->blocks + b;
    int highest = (1 << j->bits) - 1;
    float low = 0, high = 0;
    for (int64_t k = begin; k < end; k++) {
        float f = load(j, k, column);
        if (!isfinite(f)) return false;
        low = f < low ? f : low;
        high = f > high ? f : high;
    }
    float scale = (high - low) / (float)highest;
    if (!isnormal(scale)) scale = 1;
    int zero = (int)nearbyintf(-low / scale);
    uint8_t *q = j->q + place * (j->block * j->bits / 8);
    for (int64_t k = begin; k < begin + j->block; k++) {
        int code = k < end ? (int)nearbyintf(load(j, k, column) / scale) + zero : zero;
        put_bits(q, k - begin, j->bits, code < 0 ? 0 : code > highest ? highest : code);
    }
    j->scale[place] = scale;
    put_bits(j->zero + column * zero_bytes(j), b, j->bits, zero);
    return true;
}

static void quantize_columns(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const block_job *j = context;
    for (int64_t c = begin; c < end; c++) {
        j->finite[c] = true;
        for (int64_t b = 0; b < j->blocks; b++) j->finite[c] &= quantize_block(j, c, b);
    }
}

static sdx_status make_blocks(sdx_quantizer *z, const char *name, const sdx_tensor *w, block_job *j)
{
    int64_t block = z->options->block_size ? z->options->block_size : DEFAULT_BLOCK, k = w->dim[0], n = w->dim[1];
    *j = (block_job){
        .x = w->data, .k = k, .n = n, .block = block, .blocks = (k - 1) / block + 1, .bits = z->options->weight_bits};
    sdx_arena *a = &z->model->arena;
    ARENA_NEW(a, j->q, (size_t)(n * j->blocks * (block * j->bits / 8)), z->err);
    ARENA_NEW(a, j->scale, (size_t)(n * j->blocks), z->err);
    ARENA_NEW(a, j->zero, (size_t)(n * zero_bytes(j)), z->err);
    ARENA_NEW(a, j->finite, (size_t)n, z->err);
    sdx_parallel_for(z->threads, n, 1 + 65536 / k, quantize_columns, j);
    for (int64_t c = 0; c < n; c++)
        if (!j->finite[c])
            return sdx_fail(z->err, SDX_ERR_FILE, "%s: weight \"%s\" holds NaN or infinity and cannot be quantized",
                            z->model->path, name);
    return SDX_OK;
}

static sdx_status add_blocks(sdx_quantizer *z, const char *name, const block_job *j, sdx_quantized *out)
{
    int64_t bytes = j->block * j->bits / 8;
    sdx_tensor q = {.dtype = SDX_U8, .rank = 3, .dim = {j->n, j->blocks, bytes}, .data = j->q};
    sdx_tensor scale = {.dtype = SDX_F32, .rank = 1, .dim = {j->n * j->blocks}, .data = j->scale};
    sdx_tensor zero = {.dtype = SDX_U8, .rank = 1, .dim = {j->n * zero_bytes(j)}, .data = j->zero};
    TRY(sdx_quantizer_constant(z, name, "_blocks", &q, &out->q));
    TRY(sdx_quantizer_constant(z, name, "_scale", &scale, &out->scale));
    return sdx_quantizer_constant(z, name, "_zero_point", &zero, &out->zero);
}

static sdx_status make_weight(sdx_quantizer *z, sdx_id v, sdx_quantized *out)
{
    sdx_quantized *before = sdx_quantizer_cached(z, v);
    if (!before) return sdx_fail_memory(z->err, sizeof *before);
    *out = *before;
    if (before->q != SDX_NONE) return SDX_OK;
    *out = (sdx_quantized){.real = SDX_NONE};
    const sdx_tensor *w = sdx_graph_constant(z->graph, v);
    const char *name = sdx_quantizer_name(z, v);
    block_job j;
    TRY(make_blocks(z, name, w, &j));
    if (sdx_model_is_mapped(z->model, w->data)) sdx_pages_release(w->data, sdx_tensor_bytes(w));
    TRY(add_blocks(z, name, &j, out));
    return sdx_quantizer_remember(z, v, out);
}

/* The weight in blocks, made once. */
static sdx_status block_weight(sdx_quantizer *z, sdx_id v, sdx_quantized *out)
{
    sdx_graph *inside = sdx_quantizer_enter_owner(z, &v);
    TRY(make_weight(z, v, out));
    return sdx_quantizer_leave_owner(z, inside, out);
}

sdx_status sdx_quant_blocks(sdx_quantizer *z, sdx_id node, bool *done)
{
    sdx_node n = z->graph->node[node];
    const sdx_tensor *w = sdx_graph_constant(z->graph, n.in[1]);
    if (!sdx_quantizer_is_weight(z, n.in[1], 2) || w->rank != 2 || sdx_graph_constant(z->graph, n.in[0])) return SDX_OK;
    z->graph->node[node].dead = *done = true;
    int64_t block = z->options->block_size ? z->options->block_size : DEFAULT_BLOCK;
    sdx_quantized b;
    sdx_id made;
    TRY(block_weight(z, n.in[1], &b));
    if (!sdx_model_opset(z->model, "com.microsoft")) TRY(sdx_model_set_opset(z->model, "com.microsoft", 1, z->err));
    TRY(sdx_quantizer_emit_to(z, "com.microsoft", "MatMulNBits", sdx_quantizer_node_name(z, &n), "_blocks", 4,
                              (sdx_id[]){n.in[0], b.q, b.scale, b.zero}, n.out[0], &made));
    TRY(sdx_node_set_int(z->graph, made, "K", w->dim[0], z->err));
    TRY(sdx_node_set_int(z->graph, made, "N", w->dim[1], z->err));
    TRY(sdx_node_set_int(z->graph, made, "bits", z->options->weight_bits, z->err));
    return sdx_node_set_int(z->graph, made, "block_size", block, z->err);
}
