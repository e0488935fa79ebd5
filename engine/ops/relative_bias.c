/* relative_bias.c: the position biases of T5 and of WavLM, com.microsoft RelativePositionBias and
 * GatedRelativePositionBias.
 *
 * T5 (Raffel et al., arXiv:1910.10683): key j seen from query i falls into a bucket by its distance, one bucket
 * per distance while it is small, then logarithmically wider ones up to max_distance; a table holds one number
 * per bucket and head. The table's memory is heads-major although its shape says [buckets, heads]: ONNX
 * Runtime's convention.
 *
 * WavLM (arXiv:2110.13900): a gate of the query scales a given bias,
 *     u, r = sigmoid(sums of the halves of (query + query_bias) W + b),  out = (u (r eco_a - 1) + 2) * rel_pos.
 */
#include <math.h>

#include "compute.h"
#include "contents.h"

/* ---- RelativePositionBias -------------------------------------------------------------------------------- */

typedef struct buckets {
    bool bidirectional;
    int64_t max_distance;
} buckets;

static sdx_status read_length(sdx_infer *infer, int i, const char *name, sdx_dim *out)
{
    int count;
    TRY(sdx_want_dtype(infer, i, name, SDX_SET(SDX_I64)));
    const sdx_element *e = sdx_infer_contents(infer, i, &count);
    *out = SDX_DIM_UNKNOWN;
    return e && count == 1 ? sdx_infer_dim(infer, *e, out) : SDX_OK;
}

static sdx_status infer_buckets(sdx_infer *infer)
{
    sdx_dim queries, keys;
    TRY(sdx_want_dtype(infer, 0, "bias_table", SDX_SET(SDX_F32)));
    TRY(sdx_want_rank(infer, 0, "bias_table", 2, 2));
    TRY(read_length(infer, 1, "query_length", &queries));
    TRY(read_length(infer, 2, "key_length", &keys));
    if (queries >= 0 && keys >= 0 && queries != keys)
        return sdx_fail(infer->err, SDX_ERR_USAGE, "query_length %lld and key_length %lld must be equal",
                        (long long)queries, (long long)keys);
    sdx_dim count = sdx_type_dim(&infer->in[0], 0),
            least = sdx_node_int(infer->node, "is_bidirectional", 0) ? 4 : 2;
    if (count >= 0 && count < least)
        return sdx_fail(infer->err, SDX_ERR_USAGE, "%lld buckets are too few", (long long)count);
    if (sdx_node_int(infer->node, "max_distance", 0) <= 0)
        return sdx_fail(infer->err, SDX_ERR_FILE, "max_distance is missing or not positive");
    sdx_dim length = sdx_dim_merge(queries, keys);
    sdx_shape out = {.rank = 4, .dim = {1, sdx_type_dim(&infer->in[0], 1), length, length}};
    sdx_infer_set(infer, 0, SDX_F32, &out);
    return SDX_OK;
}

static sdx_status prepare_buckets(sdx_prepare *p)
{
    buckets *state;
    PREPARE_STATE(p, state);
    state->bidirectional = sdx_node_int(p->node, "is_bidirectional", 0) != 0;
    state->max_distance = sdx_node_int(p->node, "max_distance", 128);
    return SDX_OK;
}

/* In float32 throughout, as the models were trained. */
static int64_t find_bucket(const buckets *state, int64_t relative, int64_t count)
{
    int64_t first = 0, distance = relative < 0 ? -relative : 0;
    if (state->bidirectional) {
        count /= 2;
        first = relative > 0 ? count : 0;
        distance = relative < 0 ? -relative : relative;
    }
    int64_t exact = count / 2;
    if (distance < exact) return first + distance;
    float part = logf((float)distance / (float)exact) / logf((float)state->max_distance / (float)exact);
    float wide = part * (float)(count - exact);
    int64_t bucket = wide >= 0 && wide < (float)(count - exact) ? exact + (int64_t)wide : count - 1;
    return first + bucket;
}

typedef struct bucket_task {
    const buckets *state;
    const float *table;
    int64_t count, length;
    float *out;
} bucket_task;

static void bucket_rows(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const bucket_task *t = context;
    for (int64_t r = begin; r < end; r++) {
        int64_t h = r / t->length, i = r % t->length;
        for (int64_t j = 0; j < t->length; j++)
            t->out[r * t->length + j] = t->table[h * t->count + find_bucket(t->state, j - i, t->count)];
    }
}

static sdx_status run_buckets(sdx_run *run)
{
    bucket_task t = {run->state, run->in[0].data, run->in[0].dim[0], run->out[0].dim[2], run->out[0].data};
    sdx_parallel_for(run->threads, run->out[0].dim[1] * t.length, sdx_row_grain(t.length * 16), bucket_rows,
                     &t);
    return SDX_OK;
}

/* ---- GatedRelativePositionBias --------------------------------------------------------------------------- */

enum { QUERY, QUERY_BIAS, REL_POS, WEIGHT, BIAS, ECO_A, TOKEN_OFFSET };

static sdx_status infer_gated(sdx_infer *infer)
{
    static const char *const name[] = {"query_layer", "query_bias", "rel_pos", "weight", "bias", "eco_a"};
    static const int rank[] = {3, 1, 4, 2, 1, 4};
    int64_t heads = sdx_node_int(infer->node, "num_heads", 0);
    if (heads <= 0) return sdx_fail(infer->err, SDX_ERR_FILE, "num_heads is missing or not positive");
    if (sdx_infer_has(infer, TOKEN_OFFSET))
        return sdx_fail(infer->err, SDX_ERR_UNSUPPORTED, "token_offset is not supported");
    for (int i = QUERY; i <= ECO_A; i++) {
        TRY(sdx_want_dtype(infer, i, name[i], SDX_SET(SDX_F32)));
        TRY(sdx_want_rank(infer, i, name[i], rank[i], rank[i]));
    }
    const sdx_type *in = infer->in;
    sdx_dim batch = sdx_type_dim(&in[QUERY], 0), length = sdx_type_dim(&in[QUERY], 1),
            hidden = sdx_type_dim(&in[QUERY], 2), columns = sdx_type_dim(&in[WEIGHT], 1);
    TRY(sdx_want_dim(infer, QUERY_BIAS, name[QUERY_BIAS], 0, hidden));
    const sdx_dim rel[4] = {1, heads, length, length}, eco[4] = {1, heads, 1, 1};
    for (int d = 0; d < 4; d++) {
        TRY(sdx_want_dim(infer, REL_POS, name[REL_POS], d, rel[d]));
        TRY(sdx_want_dim(infer, ECO_A, name[ECO_A], d, eco[d]));
    }
    if (hidden >= 0 && hidden % heads)
        return sdx_fail(infer->err, SDX_ERR_USAGE, "%lld heads do not divide %lld columns", (long long)heads,
                        (long long)hidden);
    if (hidden >= 0) TRY(sdx_want_dim(infer, WEIGHT, name[WEIGHT], 0, hidden / heads));
    TRY(sdx_want_dim(infer, BIAS, name[BIAS], 0, columns));
    if (columns >= 0 && columns % 2)
        return sdx_fail(infer->err, SDX_ERR_USAGE, "the weight's %lld columns are not two halves",
                        (long long)columns);
    sdx_shape out = {.rank = 4, .dim = {batch, heads, length, length}};
    sdx_infer_set(infer, 0, SDX_F32, &out);
    return SDX_OK;
}

/* The sum of columns [from, to) of (q + query_bias) W + b. */
static float gate(const sdx_run *run, const float *q, const float *query_bias, int64_t size, int64_t from,
                  int64_t to)
{
    const float *w = run->in[WEIGHT].data, *bias = run->in[BIAS].data;
    int64_t columns = run->in[WEIGHT].dim[1];
    float sum = 0;
    for (int64_t c = from; c < to; c++) {
        float dot = bias[c];
        for (int64_t k = 0; k < size; k++) dot += (q[k] + query_bias[k]) * w[k * columns + c];
        sum += dot;
    }
    return 1.0f / (1.0f + expf(-sum));
}

static void gated_rows(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const sdx_run *run = context;
    const sdx_tensor *out = &run->out[0];
    int64_t heads = out->dim[1], length = out->dim[2], hidden = run->in[QUERY].dim[2], size = hidden / heads;
    int64_t half = run->in[WEIGHT].dim[1] / 2;
    for (int64_t r = begin; r < end; r++) { /* (b, h, i) */
        int64_t i = r % length, h = r / length % heads, b = r / length / heads;
        const float *q = (const float *)run->in[QUERY].data + (b * length + i) * hidden + h * size;
        const float *query_bias = (const float *)run->in[QUERY_BIAS].data + h * size;
        float u = gate(run, q, query_bias, size, 0, half), v = gate(run, q, query_bias, size, half, 2 * half);
        float by = u * (v * ((const float *)run->in[ECO_A].data)[h] - 1.0f) + 2.0f;
        const float *rel = (const float *)run->in[REL_POS].data + (h * length + i) * length;
        run->kernels->element.binary_f32[SDX_BINARY_MUL](length, rel, 1, &by, 0,
                                                         (float *)out->data + r * length);
    }
}

static sdx_status run_gated(sdx_run *run)
{
    const sdx_tensor *out = &run->out[0];
    int64_t rows = out->dim[0] * out->dim[1] * out->dim[2];
    sdx_parallel_for(run->threads, rows, sdx_row_grain(run->in[QUERY].dim[2]), gated_rows, run);
    return SDX_OK;
}

#define MS "com.microsoft"
static const sdx_op_def rows[] = {
    {MS, "RelativePositionBias", 1, 0, 3, 3, 1, 1, SDX_OP_WIDE, infer_buckets, prepare_buckets, NULL, run_buckets},
    {MS, "GatedRelativePositionBias", 1, 0, 6, 7, 1, 1, SDX_OP_WIDE, infer_gated, NULL, NULL, run_gated},
};

SDX_OP_TABLE(relative_bias);
