/* transpose.c: Transpose is a strided copy: reading dim perm[i] where the result has dim i. Dims that stay
 * together are joined first, so [B,T,H,D] -> [B,H,T,D] moves runs of D; a true transposition of the last two
 * goes by tiles. */
#include "contents.h"
#include "copy.h"

#include <string.h>

/* perm[rank]; the default reverses. */
static sdx_status read_perm(const sdx_node *node, int rank, int perm[SDX_MAX_RANK], sdx_error *err)
{
    size_t count;
    const int64_t *given = sdx_node_ints(node, "perm", &count);
    if (given && count != (size_t)rank)
        return sdx_fail(err, SDX_ERR_USAGE, "perm has %zu entries for an input of rank %d", count, rank);
    unsigned seen = 0;
    for (int i = 0; i < rank; i++) {
        perm[i] = rank - 1 - i;
        if (given) TRY(sdx_axis_normalize(given[i], rank, &perm[i], err));
        if (seen & 1u << perm[i]) return sdx_fail(err, SDX_ERR_USAGE, "perm names axis %d twice", perm[i]);
        seen |= 1u << perm[i];
    }
    return SDX_OK;
}

static sdx_status infer_transpose(sdx_infer *x)
{
    const sdx_shape *in = &x->in[0].shape;
    if (in->rank >= 0 && in->rank <= 1) TRY(sdx_infer_identity(x)); /* contents pass */
    sdx_shape out = {.rank = in->rank};
    if (in->rank < 0) {
        size_t count;
        if (sdx_node_ints(x->node, "perm", &count) && count <= SDX_MAX_RANK) out.rank = (int)count;
        for (int i = 0; i < out.rank; i++) out.dim[i] = SDX_DIM_UNKNOWN;
    } else {
        int perm[SDX_MAX_RANK];
        TRY(read_perm(x->node, in->rank, perm, x->err));
        for (int i = 0; i < in->rank; i++) out.dim[i] = in->dim[perm[i]];
    }
    sdx_infer_set(x, 0, x->in[0].dtype, &out);
    return SDX_OK;
}

static sdx_status run_transpose(sdx_run *r)
{
    sdx_shape in = sdx_run_shape(r, 0), out = sdx_tensor_shape(&r->out[0]);
    int perm[SDX_MAX_RANK];
    TRY(read_perm(r->node, in.rank, perm, r->err));
    int64_t stride[SDX_MAX_RANK];
    sdx_shape_strides(&in, stride);
    sdx_copy c = {.rank = in.rank, .src = r->in[0].data, .dst = r->out[0].data,
                  .size = sdx_element_size(r->in[0].dtype)};
    memcpy(c.dim, out.dim, sizeof out.dim);
    sdx_shape_strides(&out, c.dst_stride);
    for (int i = 0; i < in.rank; i++) c.src_stride[i] = stride[perm[i]];
    sdx_copy_strided(&c, r->threads);
    return SDX_OK;
}

static const sdx_op_def rows[] = {
    {"", "Transpose", 1, 0, 1, 1, 1, 1, SDX_OP_ANY_ALIGNMENT, infer_transpose, NULL, NULL, run_transpose},
};

SDX_OP_TABLE(transpose);
