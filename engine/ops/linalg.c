/* linalg.c: Det, the determinants of square matrices [..., M, M], by elimination with partial pivoting in
 * double. */
#include <math.h>

#include "compute.h"
#include "contents.h"

static sdx_status infer_det(sdx_infer *x)
{
    TRY(sdx_want_dtype(x, 0, "the input", SDX_SET_FLOAT));
    TRY(sdx_want_rank(x, 0, "the input", 2, SDX_MAX_RANK));
    sdx_shape s = x->in[0].shape;
    if (s.rank >= 2) {
        TRY(sdx_want_dim(x, 0, "the input", -1, s.dim[s.rank - 2]));
        s.rank -= 2;
    }
    sdx_infer_set(x, 0, x->in[0].dtype, &s);
    return SDX_OK;
}

static sdx_status plan_det(sdx_plan_step *p)
{
    const sdx_shape *s = &p->in[0].shape;
    size_t n = (size_t)s->dim[s->rank - 1], own = 0, elements;
    bool fits = sdx_mul_size(n, n, &elements) && sdx_workspace_add(&own, elements, sizeof(double)) &&
                sdx_workspace_add(&p->workspace, (size_t)p->threads, own);
    return fits ? SDX_OK : sdx_workspace_fail(p->err);
}

/* Destroys a [n, n]. */
static double determinant(int64_t n, double *a)
{
    double det = 1;
    for (int64_t k = 0; k < n; k++) {
        int64_t pivot = k;
        for (int64_t i = k + 1; i < n; i++)
            if (fabs(a[i * n + k]) > fabs(a[pivot * n + k])) pivot = i;
        for (int64_t j = k; pivot != k && j < n; j++) {
            double swap = a[k * n + j];
            a[k * n + j] = a[pivot * n + j];
            a[pivot * n + j] = swap;
        }
        det *= pivot != k ? -a[k * n + k] : a[k * n + k];
        if (a[k * n + k] == 0) return 0;
        for (int64_t i = k + 1; i < n; i++) {
            double f = a[i * n + k] / a[k * n + k];
            for (int64_t j = k + 1; j < n; j++) a[i * n + j] -= f * a[k * n + j];
        }
    }
    return det;
}

static void det_range(void *context, int64_t begin, int64_t end, int worker)
{
    const sdx_run *r = context;
    const sdx_tensor *x = &r->in[0];
    int64_t n = x->dim[x->rank - 1];
    double *a =
        (double *)r->workspace + (size_t)worker * (sdx_align_up((size_t)(n * n) * sizeof *a) / sizeof *a);
    for (int64_t i = begin; i < end; i++) {
        sdx_doubles_load(x->dtype, x->data, i * n * n, n * n, a);
        double det = determinant(n, a);
        sdx_doubles_store(r->out[0].dtype, &det, 1, r->out[0].data, i);
    }
}

static sdx_status run_det(sdx_run *r)
{
    int64_t n = r->in[0].dim[r->in[0].rank - 1];
    sdx_parallel_for(r->threads, sdx_tensor_count(&r->out[0]), sdx_row_grain(n * n), det_range, r);
    return SDX_OK;
}

static const sdx_op_def rows[] = {
    {"", "Det", 11, 0, 1, 1, 1, 1, 0, infer_det, NULL, plan_det, run_det},
};

SDX_OP_TABLE(linalg);
