/* weights.c: constants in integers, each made once. A tensor is read row by row as the file has it, also where its
 * scales belong to columns, on all threads; the pages of the file are given back as soon as they are codes, so that
 * quantizing a model takes the memory of the small one. */
#include <stdlib.h>
#include <string.h>

#include "../base/memory.h"
#include "../base/parallel.h"
#include "quantizer.h"

/* A tensor as a matrix, and what is made of it. */
typedef struct job {
    const char *x; /* [rows, columns] floats, any alignment */
    int64_t rows, columns;
    int rank; /* of the tensor */
    sdx_quant_axis axis;
    sdx_quant_format format;
    const float *factor; /* [rows], multiplied in; NULL: none */
    float *low, *high;   /* [scales] */
    float *scale, *zero; /* [scales] */
    bool *finite;        /* [scales] */
    uint8_t *q;          /* [rows, columns] */
} job;

enum { GRAIN = 1 << 16 }; /* elements that are worth a thread */

static int64_t scale_count(const job *j)
{
    return j->axis == SDX_QUANT_COLUMN ? j->columns : j->axis == SDX_QUANT_ROW ? j->rows : 1;
}

/* A matrix whose last dim is columns; per row, axis 0 is rows. */
static job make_job(const sdx_tensor *t, sdx_quant_format format, sdx_quant_axis axis, const float *factor)
{
    int64_t count = sdx_tensor_count(t), last = t->rank ? t->dim[t->rank - 1] : 1;
    int64_t columns = axis == SDX_QUANT_ROW ? count / t->dim[0] : last;
    return (job){.x = t->data,
                 .rows = count / columns,
                 .columns = columns,
                 .rank = t->rank,
                 .axis = axis,
                 .format = format,
                 .factor = factor};
}

static const char *row_of(const job *j, int64_t i, int64_t column)
{
    return j->x + (i * j->columns + column) * (int64_t)sizeof(float);
}

static float factor_of(const job *j, int64_t i) { return j->factor ? j->factor[i] : 1; }

/* Columns [begin, end), or rows of them. */
static void find_ranges(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const job *j = context;
    if (j->axis == SDX_QUANT_COLUMN) {
        for (int64_t i = 0; i < j->rows; i++)
            j->finite[begin] &= sdx_quant_range_columns(row_of(j, i, begin), end - begin, factor_of(j, i),
                                                        j->low + begin, j->high + begin);
        return;
    }
    for (int64_t i = begin; i < end; i++) {
        int64_t s = j->axis == SDX_QUANT_ROW ? i : 0;
        j->finite[s] &= sdx_quant_range(row_of(j, i, 0), j->columns, factor_of(j, i), &j->low[s], &j->high[s]);
    }
}

static void make_codes(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const job *j = context;
    bool is_signed = j->format.is_signed;
    if (j->axis == SDX_QUANT_COLUMN) {
        for (int64_t i = 0; i < j->rows; i++)
            sdx_quant_apply_columns(is_signed, j->scale + begin, j->zero + begin, row_of(j, i, begin), end - begin,
                                    factor_of(j, i), j->q + i * j->columns + begin);
        return;
    }
    for (int64_t i = begin; i < end; i++) {
        int64_t s = j->axis == SDX_QUANT_ROW ? i : 0;
        sdx_quant_apply(is_signed, j->scale[s], j->zero[s], row_of(j, i, 0), j->columns, factor_of(j, i),
                        j->q + i * j->columns);
    }
}

static void run_job(const job *j, sdx_parallel_fn fn, int threads)
{
    int64_t n = j->axis == SDX_QUANT_COLUMN ? j->columns : j->rows,
            other = j->axis == SDX_QUANT_COLUMN ? j->rows : j->columns;
    sdx_parallel_for(threads, n, 1 + GRAIN / (other + 1), fn, (void *)j);
}

static bool find_params(job *j, bool halves)
{
    for (int64_t i = 0; i < scale_count(j); i++) {
        if (!j->finite[i]) return false;
        sdx_quant_params p = sdx_quant_params_of(j->format, j->low[i], j->high[i]);
        j->scale[i] = halves ? sdx_quant_scale_half(p.scale) : p.scale;
        j->zero[i] = (float)p.zero_point;
    }
    return true;
}

/* The scratch of a job with n scales, in one block: *all is to be freed. */
static sdx_status quantize(sdx_quantizer *z, job *j, const char *name, float *scales, bool *finite)
{
    int64_t n = scale_count(j);
    j->low = scales;
    j->high = scales + n;
    j->zero = scales + 2 * n;
    j->finite = finite;
    memset(finite, true, (size_t)n * sizeof *finite);
    run_job(j, find_ranges, j->axis == SDX_QUANT_TENSOR ? 1 : z->threads);
    if (!find_params(j, z->recipe.row_scales))
        return sdx_fail(z->err, SDX_ERR_FILE, "%s: weight \"%s\" holds NaN or infinity and cannot be quantized",
                        z->model->path, name);
    run_job(j, make_codes, z->threads);
    return SDX_OK;
}

/* ---- in the graph ---------------------------------------------------------------------------------------- */

/* A zero point of 0 may go unsaid where an operator has it as an option; ONNX Runtime's forms say it. */
static sdx_status add_params(sdx_quantizer *z, const char *name, const job *j, sdx_quantized *out)
{
    int64_t n = scale_count(j);
    bool looked_up = j->axis == SDX_QUANT_ROW && j->rank == 2;
    int rank = j->axis == SDX_QUANT_TENSOR ? 0 : looked_up ? 2 : 1;
    sdx_tensor scale = {.dtype = SDX_F32, .rank = rank, .dim = {n, 1}, .data = j->scale};
    sdx_tensor zero = {.dtype = j->format.is_signed ? SDX_I8 : SDX_U8, .rank = rank, .dim = {n, 1}};
    uint8_t *zeros;
    TRY(sdx_quantizer_reals(z, name, "_scale", &scale, &out->scale));
    out->zero = SDX_NONE;
    if (z->recipe.row_scales && j->format.is_signed) return SDX_OK;
    ARENA_NEW(&z->model->arena, zeros, (size_t)n, z->err);
    for (int64_t i = 0; i < n; i++) zeros[i] = (uint8_t)(int)j->zero[i];
    zero.data = zeros;
    return sdx_quantizer_constant(z, name, "_zero_point", &zero, &out->zero);
}

static sdx_status make_weight(sdx_quantizer *z, sdx_id v, sdx_quant_format format, sdx_quant_axis axis,
                              const float *factor, sdx_quantized *out)
{
    sdx_quantized *before = sdx_quantizer_cached(z, v);
    if (!before) return sdx_fail_memory(z->err, sizeof *before);
    *out = *before;
    int kind = (int)axis * 2 + format.is_signed;
    if (before->q != SDX_NONE && before->kind == kind) return SDX_OK;
    *out = (sdx_quantized){.kind = kind, .real = SDX_NONE};
    sdx_tensor tensor = *sdx_graph_constant(z->graph, v);
    job j = make_job(&tensor, format, axis, factor);
    size_t n = (size_t)scale_count(&j), count = (size_t)sdx_tensor_count(&tensor);
    const char *name = sdx_quantizer_name(z, v);
    ARENA_NEW(&z->model->arena, j.scale, n, z->err);
    ARENA_NEW(&z->model->arena, j.q, count, z->err);
    float *scales = sdx_calloc(n, 3 * sizeof *scales + sizeof(bool));
    if (!scales) return sdx_fail_memory(z->err, n * sizeof *scales);
    sdx_status status = quantize(z, &j, name, scales, (bool *)(scales + 3 * n));
    if (sdx_model_is_mapped(z->model, tensor.data)) sdx_pages_release(tensor.data, count * sizeof(float));
    if (status == SDX_OK) status = add_params(z, name, &j, out);
    free(scales);
    TRY(status);
    tensor.dtype = format.is_signed ? SDX_I8 : SDX_U8;
    tensor.data = j.q;
    TRY(sdx_quantizer_constant(z, name, "_quantized", &tensor, &out->q));
    if (z->options->format == SDX_QUANTIZE_QDQ) TRY(sdx_quantizer_dequantize(z, name, axis, out));
    return sdx_quantizer_remember(z, v, out);
}

sdx_status sdx_quantizer_weight(sdx_quantizer *z, sdx_id v, sdx_quant_format format, sdx_quant_axis axis,
                                const float *factor, sdx_quantized *out)
{
    sdx_graph *inside = sdx_quantizer_enter_owner(z, &v);
    TRY(make_weight(z, v, format, axis, factor, out));
    return sdx_quantizer_leave_owner(z, inside, out);
}
