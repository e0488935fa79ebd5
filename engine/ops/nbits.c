/* nbits.c: com.microsoft MatMulNBits, MatMulBnb4 and GatherBlockQuantized: weights of 2, 4 or 8 bits in blocks that
 * share a scale and a zero point,
 *
 *     w = (q - zero) * scale
 * or, in MatMulBnb4, a scale and one of 16 numbers for each q. MatMulNBits keeps the weight as [N][blocks of K][bits],
 * low bits first, zero points in the same packing or as numbers. A constant weight becomes panels of float32 once, when
 * the program is made: exact in the operator's own terms, fast, and 32 bits per weight in memory.
 *
 * Workspace of MatMulNBits: A, bias and result as float32 where they are half precision, and for a weight that
 * is not constant [weight as float32, N x K] [panels].
 */
#include <stdlib.h>
#include <string.h>

#include "bits.h"
#include "contents.h"
#include "linear.h"

static bool knows_bits(int64_t bits)
{
    return bits == 2 || bits == 4 || bits == 8;
}

static bool is_block_size(int64_t size)
{
    return size >= 16 && size <= INT32_MAX && (size & (size - 1)) == 0;
}

/* ---- MatMulNBits ----------------------------------------------------------------------------------------- */

enum { A, WEIGHT, SCALES, ZEROS, GROUPS, BIAS };

typedef struct matmul_nbits {
    int64_t k, n, block, blocks; /* blocks of a column */
    int bits;
    const float *code;   /* MatMulBnb4: [16], what q stands for before its scale; else NULL */
    const float *packed; /* constant weights */
} matmul_nbits;

static matmul_nbits read_attributes(const sdx_node *node)
{
    matmul_nbits m = {.k = sdx_node_int(node, "K", 0),
                      .n = sdx_node_int(node, "N", 0),
                      .block = sdx_node_int(node, "block_size", 0),
                      .bits = (int)sdx_node_int(node, "bits", 4)};
    if (m.block > 0 && m.k > 0) m.blocks = (m.k - 1) / m.block + 1;
    return m;
}

static sdx_status want_count(const sdx_infer *infer, int i, const char *name, int64_t count)
{
    const sdx_shape *s = &sdx_infer_in(infer, i)->shape;
    int64_t have = sdx_shape_count(s);
    if (!sdx_infer_has(infer, i) || have < 0 || have == count) return SDX_OK;
    char text[SDX_SHAPE_TEXT];
    return sdx_fail(infer->err, SDX_ERR_USAGE, "%s has shape %s, but must have %lld elements", name,
                    sdx_shape_format(s, text, sizeof text), (long long)count);
}

static sdx_status check_weight(const sdx_infer *infer, const matmul_nbits *m)
{
    int64_t column = m->blocks * m->block / 8 * m->bits;
    TRY(sdx_want_dtype(infer, WEIGHT, "the weight", SDX_SET(SDX_U8)));
    TRY(want_count(infer, WEIGHT, "the weight", m->n * column));
    TRY(sdx_want_same_dtype(infer, SCALES, "scales", A, "A"));
    TRY(want_count(infer, SCALES, "scales", m->n * m->blocks));
    TRY(sdx_want_dtype(infer, GROUPS, "g_idx", SDX_SET(SDX_I32)));
    if (sdx_infer_has(infer, GROUPS) && sdx_shape_count(&infer->in[GROUPS].shape) != m->blocks * m->block)
        TRY(want_count(infer, GROUPS, "g_idx", m->k));
    TRY(sdx_want_same_dtype(infer, BIAS, "the bias", A, "A"));
    TRY(want_count(infer, BIAS, "the bias", m->n));
    if (!sdx_infer_has(infer, ZEROS)) return SDX_OK;
    if (infer->in[ZEROS].dtype == SDX_U8)
        return want_count(infer, ZEROS, "zero_points", m->n * ((m->blocks * m->bits + 7) / 8));
    TRY(sdx_want_same_dtype(infer, ZEROS, "zero_points", A, "A"));
    return want_count(infer, ZEROS, "zero_points", m->n * m->blocks);
}

static sdx_status check_sizes(const sdx_infer *infer, const matmul_nbits *m)
{
    const int64_t most = INT32_MAX;
    if (m->k <= 0 || m->n <= 0 || m->k > most || m->n > most || !is_block_size(m->block))
        return sdx_fail(infer->err, SDX_ERR_FILE, "K %lld, N %lld and block_size %lld make no sense",
                        (long long)m->k, (long long)m->n, (long long)m->block);
    TRY(sdx_want_dtype(infer, A, "A", SDX_SET(SDX_F32) | SDX_SET(SDX_F16) | SDX_SET(SDX_BF16)));
    TRY(sdx_want_rank(infer, A, "A", 1, SDX_MAX_RANK));
    return sdx_want_dim(infer, A, "A", -1, m->k);
}

static sdx_status set_product(sdx_infer *infer, const matmul_nbits *m)
{
    sdx_shape shape = infer->in[A].shape;
    if (shape.rank > 0) shape.dim[shape.rank - 1] = m->n;
    sdx_infer_set(infer, 0, infer->in[A].dtype, &shape);
    return SDX_OK;
}

static sdx_status infer_matmul(sdx_infer *infer)
{
    int64_t bits = sdx_node_int(infer->node, "bits", 4);
    matmul_nbits m = read_attributes(infer->node);
    if (!knows_bits(bits))
        return sdx_fail(infer->err, SDX_ERR_UNSUPPORTED,
                        "weights of %lld bits are not known; known are 2, 4 and 8", (long long)bits);
    if (sdx_node_int(infer->node, "weight_prepacked", 0))
        return sdx_fail(infer->err, SDX_ERR_UNSUPPORTED, "a weight packed for a GPU is not supported");
    TRY(check_sizes(infer, &m));
    TRY(check_weight(infer, &m));
    return set_product(infer, &m);
}

/* What bitsandbytes' FP4 (a sign, two bits of exponent, one of mantissa, over 12) and NF4 (quantiles of the normal
 * distribution; Dettmers et al., QLoRA, 2023, appendix E) stand for. */
static const float bnb4_codes[2][16] = {
    {0, 1 / 192.0f, 2 / 3.0f, 1, 1 / 3.0f, 1 / 2.0f, 1 / 6.0f, 1 / 4.0f,
     -0.0f, -1 / 192.0f, -2 / 3.0f, -1, -1 / 3.0f, -1 / 2.0f, -1 / 6.0f, -1 / 4.0f},
    {-1, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f, -0.28444138169288635f,
     -0.18477343022823334f, -0.09105003625154495f, 0, 0.07958029955625534f, 0.16093020141124725f,
     0.24611230194568634f, 0.33791524171829224f, 0.44070982933044434f, 0.5626170039176941f, 0.7229568362236023f, 1},
};

static sdx_status infer_bnb4(sdx_infer *infer)
{
    matmul_nbits m = read_attributes(infer->node);
    int64_t type = sdx_node_int(infer->node, "quant_type", 0);
    if (type < 0 || type > 1 || !sdx_node_int(infer->node, "transB", 1))
        return sdx_fail(infer->err, SDX_ERR_UNSUPPORTED,
                        "quant_type is %lld, known are 0 (FP4) and 1 (NF4), with transB 1", (long long)type);
    TRY(check_sizes(infer, &m));
    TRY(sdx_want_dtype(infer, WEIGHT, "the weight", SDX_SET(SDX_U8)));
    TRY(want_count(infer, WEIGHT, "the weight", (m.n * m.k + 1) / 2));
    TRY(sdx_want_same_dtype(infer, SCALES, "absmax", A, "A"));
    TRY(want_count(infer, SCALES, "absmax", (m.n * m.k + m.block - 1) / m.block));
    return set_product(infer, &m);
}

/* The weight as numbers, [N, K]; in[] has WEIGHT .. GROUPS, absent ones without data. */
static sdx_status spread(const matmul_nbits *m, const sdx_tensor *in, float *w, sdx_error *err)
{
    const uint8_t *q = in[WEIGHT].data;
    int64_t column = m->blocks * m->block / 8 * m->bits, zero_column = (m->blocks * m->bits + 7) / 8;
    for (int64_t j = 0; j < m->n; j++)
        for (int64_t i = 0; i < m->k; i++) {
            int64_t block = in[GROUPS].data ? sdx_tensor_get_i64(&in[GROUPS], i) : i / m->block;
            if (block < 0 || block >= m->blocks)
                return sdx_fail(err, SDX_ERR_FILE, "g_idx has %lld, but there are %lld blocks",
                                (long long)block, (long long)m->blocks);
            float zero = (float)(1 << (m->bits - 1));
            if (in[ZEROS].data && in[ZEROS].dtype == SDX_U8)
                zero = (float)sdx_bits_read((const uint8_t *)in[ZEROS].data + j * zero_column, block, m->bits);
            else if (in[ZEROS].data)
                zero = (float)sdx_tensor_get_f64(&in[ZEROS], j * m->blocks + block);
            float scale = (float)sdx_tensor_get_f64(&in[SCALES], j * m->blocks + block);
            w[j * m->k + i] = ((float)sdx_bits_read(q + j * column, i, m->bits) - zero) * scale;
        }
    return SDX_OK;
}

/* The same of MatMulBnb4: a stream of all N x K numbers, high bits first, in blocks that heed no column. */
static void spread_code(const matmul_nbits *m, const sdx_tensor *in, float *w)
{
    const uint8_t *q = in[WEIGHT].data;
    for (int64_t i = 0; i < m->n * m->k; i++)
        w[i] = m->code[q[i / 2] >> (i % 2 ? 0 : 4) & 15] * (float)sdx_tensor_get_f64(&in[SCALES], i / m->block);
}

static sdx_status pack(const sdx_kernels *kernels, int threads, const matmul_nbits *m, const sdx_tensor *in,
                       float *w, float *packed, sdx_error *err)
{
    if (m->code) spread_code(m, in, w);
    else TRY(spread(m, in, w, err));
    sdx_gemm_f32_pack(&kernels->gemm_f32, threads, m->k, m->n, w, 1, m->k, 1.0f, packed);
    return SDX_OK;
}

static sdx_status pack_constants(sdx_prepare *p, matmul_nbits *state)
{
    sdx_tensor in[BIAS] = {{0}};
    for (int i = WEIGHT; i < BIAS && i < p->n_in; i++) {
        if (sdx_node_in(p->node, i) == SDX_NONE) continue;
        if (!p->in[i].constant) return SDX_OK;
        in[i] = *p->in[i].constant;
    }
    size_t bytes = p->kernels->gemm_f32.packed_bytes(state->k, state->n), wide;
    if (!sdx_mul_size((size_t)state->k * sizeof(float), (size_t)state->n, &wide))
        return sdx_workspace_fail(p->err);
    float *packed = sdx_arena_alloc(p->arena, bytes), *w = packed ? sdx_malloc(wide) : NULL;
    if (!w) return sdx_fail_memory(p->err, packed ? wide : bytes);
    sdx_status status = pack(p->kernels, p->threads, state, in, w, packed, p->err);
    free(w);
    state->packed = packed;
    p->packed |= 1u << WEIGHT;
    return status;
}

static sdx_status prepare_matmul(sdx_prepare *p)
{
    matmul_nbits *state;
    PREPARE_STATE(p, state);
    *state = read_attributes(p->node);
    return pack_constants(p, state);
}

static sdx_status prepare_bnb4(sdx_prepare *p)
{
    matmul_nbits *state;
    PREPARE_STATE(p, state);
    *state = read_attributes(p->node);
    state->code = bnb4_codes[sdx_node_int(p->node, "quant_type", 0)];
    return pack_constants(p, state);
}

static sdx_status plan_matmul(sdx_plan_step *step)
{
    const matmul_nbits *state = step->state;
    size_t *total = &step->workspace;
    bool ok = sdx_floats_plan(&step->in[A], total) && sdx_floats_plan(&step->out[0], total) &&
              (step->n_in <= BIAS || sdx_floats_plan(&step->in[BIAS], total));
    if (!state->packed)
        ok = ok && sdx_workspace_add(total, (size_t)state->n, (size_t)state->k * sizeof(float)) &&
             sdx_workspace_add(total, 1, step->kernels->gemm_f32.packed_bytes(state->k, state->n));
    return ok ? SDX_OK : sdx_workspace_fail(step->err);
}

static sdx_status run_matmul(sdx_run *run)
{
    const matmul_nbits *state = run->state;
    char *workspace = run->workspace;
    const float *packed = state->packed;
    if (!packed) {
        sdx_tensor in[BIAS] = {{0}};
        for (int i = WEIGHT; i < BIAS; i++)
            if (sdx_run_has_in(run, i)) in[i] = run->in[i];
        float *w = sdx_workspace_take(&workspace, (size_t)(state->n * state->k) * sizeof *w);
        float *panels = sdx_workspace_take(&workspace, run->kernels->gemm_f32.packed_bytes(state->k, state->n));
        TRY(pack(run->kernels, run->threads, state, in, w, panels, run->err));
        packed = panels;
    }
    int64_t m = sdx_tensor_count(&run->in[A]) / state->k;
    sdx_gemm_f32_job job = {.gemm = &run->kernels->gemm_f32,
                            .threads = run->threads,
                            .m = m,
                            .n = state->n,
                            .k = state->k,
                            .lda = state->k,
                            .packed = packed,
                            .ldc = state->n};
    job.a = sdx_floats_of(run->kernels, &run->in[A], &workspace);
    job.c = sdx_floats_for(&run->out[0], &workspace);
    if (sdx_run_has_in(run, BIAS)) job.bias = sdx_floats_of(run->kernels, &run->in[BIAS], &workspace);
    sdx_gemm_f32_run(&job);
    if (run->out[0].dtype != SDX_F32)
        sdx_floats_store(run->out[0].dtype, job.c, m * state->n, run->out[0].data, 0);
    return SDX_OK;
}

/* ---- GatherBlockQuantized -------------------------------------------------------------------------------- */

enum { DATA, INDICES };

typedef struct gather {
    int64_t gather_axis, quantize_axis, block;
    int bits;
} gather;

static gather read_gather(const sdx_node *node)
{
    return (gather){sdx_node_int(node, "gather_axis", 0), sdx_node_int(node, "quantize_axis", 1),
                    sdx_node_int(node, "block_size", 128), (int)sdx_node_int(node, "bits", 4)};
}

/* The table as numbers: bytes hold 8 / bits of them along the last dim. */
static sdx_shape table_shape(const gather *g, const sdx_type *data)
{
    sdx_shape s = data->shape;
    if (data->dtype == SDX_U8 && s.rank > 0 && s.dim[s.rank - 1] >= 0) s.dim[s.rank - 1] *= 8 / g->bits;
    return s;
}

static sdx_status check_gather(const sdx_infer *infer, const gather *g, const sdx_shape *table,
                               int *gather_axis)
{
    int quantize_axis;
    if (!is_block_size(g->block))
        return sdx_fail(infer->err, SDX_ERR_FILE, "block_size %lld is not a power of two from 16 on",
                        (long long)g->block);
    TRY(sdx_axis_normalize(g->gather_axis, table->rank, gather_axis, infer->err));
    TRY(sdx_axis_normalize(g->quantize_axis, table->rank, &quantize_axis, infer->err));
    if (*gather_axis == quantize_axis || (infer->in[DATA].dtype == SDX_U8 && *gather_axis != 0))
        return sdx_fail(infer->err, SDX_ERR_FILE, "gather_axis %lld does not go with quantize_axis %lld",
                        (long long)g->gather_axis, (long long)g->quantize_axis);
    TRY(sdx_want_rank(infer, 2, "scales", table->rank, table->rank));
    for (int d = 0; d < table->rank; d++) {
        sdx_dim want = table->dim[d];
        if (d == quantize_axis && want >= 0) want = (want + g->block - 1) / g->block;
        TRY(sdx_want_dim(infer, 2, "scales", d, want));
    }
    return SDX_OK;
}

static sdx_status infer_gather(sdx_infer *infer)
{
    gather g = read_gather(infer->node);
    const sdx_type *data = &infer->in[DATA];
    TRY(sdx_want_dtype(infer, DATA, "data", SDX_SET(SDX_U8) | SDX_SET(SDX_U4) | SDX_SET(SDX_I4)));
    TRY(sdx_want_dtype(infer, INDICES, "indices", SDX_SET(SDX_I32) | SDX_SET(SDX_I64)));
    TRY(sdx_want_dtype(infer, 2, "scales", SDX_SET(SDX_F32) | SDX_SET(SDX_F16) | SDX_SET(SDX_BF16)));
    TRY(sdx_want_same_dtype(infer, 3, "zero_points", DATA, "data"));
    if (data->dtype == SDX_U8 && !knows_bits(g.bits))
        return sdx_fail(infer->err, SDX_ERR_UNSUPPORTED,
                        "weights of %d bits are not known; known are 2, 4 and 8", g.bits);
    if (data->shape.rank < 0 || infer->in[INDICES].shape.rank < 0) {
        sdx_infer_set(infer, 0, infer->in[2].dtype, &SDX_SHAPE_UNKNOWN);
        return SDX_OK;
    }
    int axis, rank = infer->in[INDICES].shape.rank;
    sdx_shape table = table_shape(&g, data), out = {.rank = rank + table.rank - 1};
    TRY(check_gather(infer, &g, &table, &axis));
    sdx_shape zeros = infer->in[2].shape;
    if (data->dtype == SDX_U8 && zeros.rank > 0 && zeros.dim[zeros.rank - 1] >= 0)
        zeros.dim[zeros.rank - 1] = (zeros.dim[zeros.rank - 1] * g.bits + 7) / 8;
    for (int d = 0; d < zeros.rank; d++) TRY(sdx_want_dim(infer, 3, "zero_points", d, zeros.dim[d]));
    if (sdx_infer_has(infer, 3)) TRY(sdx_want_rank(infer, 3, "zero_points", zeros.rank, zeros.rank));
    if (out.rank > SDX_MAX_RANK)
        return sdx_fail(infer->err, SDX_ERR_UNSUPPORTED, "the result would have %d dimensions", out.rank);
    memcpy(out.dim, table.dim, (size_t)axis * sizeof *out.dim);
    memcpy(out.dim + axis, infer->in[INDICES].shape.dim, (size_t)rank * sizeof *out.dim);
    memcpy(out.dim + axis + rank, table.dim + axis + 1, (size_t)(table.rank - axis - 1) * sizeof *out.dim);
    sdx_infer_set(infer, 0, infer->in[2].dtype, &out);
    return SDX_OK;
}

static sdx_status prepare_gather(sdx_prepare *p)
{
    gather *state;
    PREPARE_STATE(p, state);
    *state = read_gather(p->node);
    return SDX_OK;
}

typedef struct gather_task {
    const sdx_run *run;
    const gather *state;
    sdx_shape table;
    int64_t scale_stride[SDX_MAX_RANK], axis_size, inner, count; /* count: of indices */
    int quantize_axis;
} gather_task;

static float element(const gather_task *t, int64_t e)
{
    const sdx_tensor *data = &t->run->in[DATA], *scales = &t->run->in[2];
    bool is_packed = data->dtype == SDX_U8, has_zero = sdx_run_has_in(t->run, 3);
    int64_t rest = e, scale = 0;
    for (int d = t->table.rank - 1; d >= 0; d--) {
        int64_t at = rest % t->table.dim[d];
        rest /= t->table.dim[d];
        scale += (d == t->quantize_axis ? at / t->state->block : at) * t->scale_stride[d];
    }
    int64_t q, zero = is_packed ? 1 << (t->state->bits - 1) : 0;
    if (is_packed)
        q = sdx_bits_read(data->data, e, t->state->bits);
    else
        q = sdx_tensor_get_i64(data, e);
    if (has_zero && is_packed) { /* packed row by row of the last dim */
        int64_t row = scales->dim[scales->rank - 1], bytes = (row * t->state->bits + 7) / 8;
        zero =
            sdx_bits_read((const uint8_t *)t->run->in[3].data + scale / row * bytes, scale % row, t->state->bits);
    } else if (has_zero) {
        zero = sdx_tensor_get_i64(&t->run->in[3], scale);
    }
    return (float)(q - zero) * (float)sdx_tensor_get_f64(scales, scale);
}

/* One (outer, index): inner numbers, zeros for an index that is outside. */
static void gather_rows(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const gather_task *t = context;
    for (int64_t r = begin; r < end; r++) {
        int64_t outer = r / t->count, index = sdx_tensor_get_i64(&t->run->in[INDICES], r % t->count);
        if (index < 0) index += t->axis_size;
        bool inside = index >= 0 && index < t->axis_size;
        for (int64_t i = 0; i < t->inner; i++) {
            float x = inside ? element(t, (outer * t->axis_size + index) * t->inner + i) : 0.0f;
            sdx_floats_store(t->run->out[0].dtype, &x, 1, t->run->out[0].data, r * t->inner + i);
        }
    }
}

static sdx_status run_gather(sdx_run *run)
{
    const gather *state = run->state;
    sdx_type data = {.dtype = run->in[DATA].dtype, .shape = sdx_run_shape(run, DATA)};
    sdx_shape scales = sdx_run_shape(run, 2);
    gather_task t = {.run = run, .state = state, .table = table_shape(state, &data)};
    int axis, rank = t.table.rank;
    TRY(sdx_axis_normalize(state->gather_axis, rank, &axis, run->err));
    TRY(sdx_axis_normalize(state->quantize_axis, rank, &t.quantize_axis, run->err));
    sdx_shape_strides(&scales, t.scale_stride);
    t.axis_size = t.table.dim[axis];
    t.inner = sdx_shape_span(&t.table, axis + 1, rank);
    t.count = sdx_tensor_count(&run->in[INDICES]);
    sdx_parallel_for(run->threads, sdx_shape_span(&t.table, 0, axis) * t.count, sdx_row_grain(t.inner * 16),
                     gather_rows, &t);
    return SDX_OK;
}

#define MS "com.microsoft"
static const sdx_op_def rows[] = {
    {MS, "MatMulNBits", 1, 0, 3, 6, 1, 1, 0, infer_matmul, prepare_matmul, plan_matmul, run_matmul},
    {MS, "MatMulBnb4", 1, 0, 3, 3, 1, 1, 0, infer_bnb4, prepare_bnb4, plan_matmul, run_matmul},
    {MS, "GatherBlockQuantized", 1, 0, 3, 4, 1, 1, 0, infer_gather, prepare_gather, NULL, run_gather},
};

SDX_OP_TABLE(nbits);
