/* packing.c: com.microsoft RemovePadding and RestorePadding: batches of sequences with the padding taken out.
 *
 * RemovePadding lays the valid tokens of [B,S,H] one after the other, [tokens,H]; token_offset [B,S] lists
 * where each came from, first those of the tokens, then those of the padding. RestorePadding goes back, with
 * zeros for the rest.
 */
#include <string.h>

#include "compute.h"
#include "contents.h"

enum { TOKENS, OFFSETS, STARTS, LONGEST };

/* ---- RemovePadding --------------------------------------------------------------------------------------- */

static sdx_status infer_remove(sdx_infer *infer)
{
    TRY(sdx_want_dtype(infer, 0, "the input", SDX_SET(SDX_F32) | SDX_SET(SDX_F16)));
    TRY(sdx_want_dtype(infer, 1, "sequence_token_count", SDX_SET(SDX_I32)));
    TRY(sdx_want_rank(infer, 0, "the input", 3, 3));
    TRY(sdx_want_rank(infer, 1, "sequence_token_count", 1, 1));
    sdx_dim batch = sdx_type_dim(&infer->in[0], 0), length = sdx_type_dim(&infer->in[0], 1);
    TRY(sdx_want_dim(infer, 1, "sequence_token_count", 0, batch));
    sdx_dim starts = batch >= 0 ? batch + 1 : SDX_DIM_UNKNOWN;
    sdx_shape shape[4] = {{.rank = 2, .dim = {SDX_DIM_UNKNOWN, sdx_type_dim(&infer->in[0], 2)}},
                          {.rank = 2, .dim = {batch, length}},
                          {.rank = 1, .dim = {starts}},
                          {.rank = 1, .dim = {1}}};
    for (int i = 0; i < 4; i++) sdx_infer_set(infer, i, i ? SDX_I32 : infer->in[0].dtype, &shape[i]);
    return SDX_OK;
}

static sdx_status count_tokens(const sdx_run *run, int64_t batch, int64_t length, int64_t *tokens)
{
    *tokens = 0;
    for (int64_t b = 0; b < batch; b++) {
        int64_t count = ((const int32_t *)run->in[1].data)[b];
        if (count < 0 || count > length)
            return sdx_fail(run->err, SDX_ERR_USAGE, "sequence %lld has %lld tokens of %lld", (long long)b,
                            (long long)count, (long long)length);
        *tokens += count;
    }
    if (batch * length > INT32_MAX)
        return sdx_fail(run->err, SDX_ERR_UNSUPPORTED, "more than 2^31 tokens are not supported");
    return SDX_OK;
}

/* What a caller does not want is left out. */
static void write_lists(const sdx_run *run, int64_t batch, int64_t length, int64_t tokens)
{
    int32_t *list[4] = {0};
    for (int i = OFFSETS; i <= LONGEST; i++)
        if (sdx_run_has_out(run, i)) list[i] = run->out[i].data;
    int32_t at = 0, padding = (int32_t)tokens, longest = 0;
    for (int64_t b = 0; b < batch; b++) {
        int32_t count = ((const int32_t *)run->in[1].data)[b];
        if (list[STARTS]) list[STARTS][b] = at;
        if (count > longest) longest = count;
        for (int32_t s = 0; s < length; s++) {
            int32_t to = s < count ? at++ : padding++;
            if (list[OFFSETS]) list[OFFSETS][to] = (int32_t)(b * length) + s;
        }
    }
    if (list[STARTS]) list[STARTS][batch] = at;
    if (list[LONGEST]) list[LONGEST][0] = longest;
}

static sdx_status run_remove(sdx_run *run)
{
    const sdx_tensor *x = &run->in[0];
    int64_t batch = x->dim[0], length = x->dim[1], tokens;
    TRY(count_tokens(run, batch, length, &tokens));
    sdx_shape shape[4] = {{.rank = 2, .dim = {tokens, x->dim[2]}},
                          {.rank = 2, .dim = {batch, length}},
                          {.rank = 1, .dim = {batch + 1}},
                          {.rank = 1, .dim = {1}}};
    for (int i = 0; i < 4 && i < run->n_out; i++) TRY(run->allocate(run, i, i ? SDX_I32 : x->dtype, &shape[i]));
    write_lists(run, batch, length, tokens);
    if (!sdx_run_has_out(run, TOKENS)) return SDX_OK;
    size_t row = (size_t)x->dim[2] * sdx_dtype_size(x->dtype);
    char *to = run->out[TOKENS].data;
    for (int64_t b = 0; b < batch; b++) {
        size_t bytes = (size_t)((const int32_t *)run->in[1].data)[b] * row;
        if (bytes) memcpy(to, (const char *)x->data + (size_t)(b * length) * row, bytes);
        to += bytes;
    }
    return SDX_OK;
}

/* ---- RestorePadding -------------------------------------------------------------------------------------- */

static sdx_status infer_restore(sdx_infer *infer)
{
    TRY(sdx_want_dtype(infer, 0, "the input", SDX_SET(SDX_F32) | SDX_SET(SDX_F16)));
    TRY(sdx_want_dtype(infer, 1, "token_offset", SDX_SET(SDX_I32)));
    TRY(sdx_want_rank(infer, 0, "the input", 2, 2));
    TRY(sdx_want_rank(infer, 1, "token_offset", 2, 2));
    sdx_dim tokens = sdx_type_dim(&infer->in[0], 0);
    int64_t all = sdx_shape_count(&infer->in[1].shape);
    if (tokens >= 0 && all >= 0 && tokens > all)
        return sdx_fail(infer->err, SDX_ERR_USAGE, "%lld tokens have only %lld places", (long long)tokens,
                        (long long)all);
    sdx_shape shape = {.rank = 3,
                       .dim = {sdx_type_dim(&infer->in[1], 0), sdx_type_dim(&infer->in[1], 1),
                               sdx_type_dim(&infer->in[0], 1)}};
    sdx_infer_set(infer, 0, infer->in[0].dtype, &shape);
    return SDX_OK;
}

static sdx_status run_restore(sdx_run *run)
{
    const sdx_tensor *x = &run->in[0], *offset = &run->in[1];
    int64_t places = sdx_tensor_count(offset);
    size_t row = (size_t)x->dim[1] * sdx_dtype_size(x->dtype);
    char *y = run->out[0].data;
    if (places && row) memset(y, 0, (size_t)places * row);
    for (int64_t i = 0; i < x->dim[0] && row; i++) {
        int64_t to = ((const int32_t *)offset->data)[i];
        if (to < 0 || to >= places)
            return sdx_fail(run->err, SDX_ERR_USAGE, "token_offset %lld is outside %lld places", (long long)to,
                            (long long)places);
        memcpy(y + (size_t)to * row, (const char *)x->data + (size_t)i * row, row);
    }
    return SDX_OK;
}

#define MS "com.microsoft"
static const sdx_op_def rows[] = {
    {MS, "RemovePadding", 1, 0, 2, 2, 1, 4, SDX_OP_DYNAMIC, infer_remove, NULL, NULL, run_remove},
    {MS, "RestorePadding", 1, 0, 2, 2, 1, 1, 0, infer_restore, NULL, NULL, run_restore},
};

SDX_OP_TABLE(packing);
