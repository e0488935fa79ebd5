/* linalg.c: Det and com.microsoft Inverse of square matrices [..., M, M], by elimination with partial pivoting
 * in double. */
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

/* The row from k on with the largest number in column k of a [n, ld]. */
static int64_t find_pivot(int64_t n, int64_t ld, const double *a, int64_t k)
{
    int64_t pivot = k;
    for (int64_t i = k + 1; i < n; i++)
        if (fabs(a[i * ld + k]) > fabs(a[pivot * ld + k])) pivot = i;
    return pivot;
}

static void swap_rows(double *a, int64_t ld, int64_t k, int64_t pivot)
{
    for (int64_t j = 0; pivot != k && j < ld; j++) {
        double swap = a[k * ld + j];
        a[k * ld + j] = a[pivot * ld + j];
        a[pivot * ld + j] = swap;
    }
}

/* Destroys a [n, n]. */
static double determinant(int64_t n, double *a)
{
    double det = 1;
    for (int64_t k = 0; k < n; k++) {
        int64_t pivot = find_pivot(n, n, a, k);
        swap_rows(a, n, k, pivot);
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

/* ---- Inverse --------------------------------------------------------------------------------------------- */

static sdx_status infer_inverse(sdx_infer *x)
{
    TRY(sdx_want_dtype(x, 0, "the input", SDX_SET_FLOAT));
    TRY(sdx_want_rank(x, 0, "the input", 2, SDX_MAX_RANK));
    if (x->in[0].shape.rank >= 2) TRY(sdx_want_dim(x, 0, "the input", -1, sdx_type_dim(&x->in[0], -2)));
    return sdx_infer_same(x);
}

/* The matrix beside the identity, [n, 2n]. */
static sdx_status plan_inverse(sdx_plan_step *p)
{
    const sdx_shape *s = &p->in[0].shape;
    size_t n = (size_t)s->dim[s->rank - 1], elements;
    bool fits = sdx_mul_size(n, 2 * n, &elements) && sdx_workspace_add(&p->workspace, elements, sizeof(double));
    return fits ? SDX_OK : sdx_workspace_fail(p->err);
}

/* Turns a [n, 2n] = [A I] into [I A^-1]; false when A is singular. */
static bool invert(int64_t n, double *a)
{
    int64_t ld = 2 * n;
    for (int64_t k = 0; k < n; k++) {
        swap_rows(a, ld, k, find_pivot(n, ld, a, k));
        double by = a[k * ld + k];
        if (by == 0) return false;
        for (int64_t j = k; j < ld; j++) a[k * ld + j] /= by;
        for (int64_t i = 0; i < n; i++) {
            double f = a[i * ld + k];
            for (int64_t j = k; j < ld && i != k; j++) a[i * ld + j] -= f * a[k * ld + j];
        }
    }
    return true;
}

static sdx_status run_inverse(sdx_run *r)
{
    const sdx_tensor *x = &r->in[0];
    int64_t n = x->dim[x->rank - 1], count = n ? sdx_tensor_count(x) / (n * n) : 0;
    double *a = r->workspace;
    for (int64_t m = 0; m < count; m++) {
        for (int64_t i = 0; i < n; i++) {
            sdx_doubles_load(x->dtype, x->data, (m * n + i) * n, n, a + 2 * i * n);
            for (int64_t j = 0; j < n; j++) a[(2 * i + 1) * n + j] = i == j;
        }
        if (!invert(n, a)) return sdx_fail(r->err, SDX_ERR_USAGE, "matrix %lld is singular", (long long)m);
        for (int64_t i = 0; i < n; i++)
            sdx_doubles_store(r->out[0].dtype, a + (2 * i + 1) * n, n, r->out[0].data, (m * n + i) * n);
    }
    return SDX_OK;
}

static const sdx_op_def rows[] = {
    {"com.microsoft", "Inverse", 1, 0, 1, 1, 1, 1, 0, infer_inverse, NULL, plan_inverse, run_inverse},
    {"", "Det", 11, 0, 1, 1, 1, 1, 0, infer_det, NULL, plan_det, run_det},
};

SDX_OP_TABLE(linalg);
