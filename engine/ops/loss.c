/* loss.c: NegativeLogLikelihoodLoss and SoftmaxCrossEntropyLoss, the first applied to log softmax. Input [N, C,
 * D...], labels [N, D...], weights [C]; the class of a sample is its label, and a sample whose label is
 * ignore_index counts nothing. Everything is summed in double, in order. */
#include <math.h>
#include <string.h>

#include "compute.h"
#include "contents.h"

enum { NONE, SUM, MEAN };

static sdx_status read_reduction(const sdx_node *node, int *out, sdx_error *err)
{
    static const char *const name[] = {"none", "sum", "mean"};
    const char *r = sdx_node_string(node, "reduction", "mean");
    for (*out = NONE; *out <= MEAN; ++*out)
        if (!strcmp(r, name[*out])) return SDX_OK;
    return sdx_fail(err, SDX_ERR_FILE, "reduction is \"%.40s\", but must be none, sum or mean", r);
}

static sdx_status infer_loss(sdx_infer *x)
{
    int reduction;
    TRY(read_reduction(x->node, &reduction, x->err));
    TRY(sdx_want_dtype(x, 0, "the input", SDX_SET_FLOAT));
    TRY(sdx_want_dtype(x, 1, "the labels", SDX_SET(SDX_I32) | SDX_SET(SDX_I64)));
    TRY(sdx_want_same_dtype(x, 2, "the weights", 0, "the input"));
    TRY(sdx_want_rank(x, 0, "the input", 2, SDX_MAX_RANK));
    TRY(sdx_want_rank(x, 2, "the weights", 1, 1));
    const sdx_shape *in = &x->in[0].shape;
    if (in->rank >= 0) TRY(sdx_want_rank(x, 1, "the labels", in->rank - 1, in->rank - 1));
    for (int d = 0; d < in->rank - 1; d++) TRY(sdx_want_dim(x, 1, "the labels", d, in->dim[d ? d + 1 : 0]));
    if (in->rank >= 2) TRY(sdx_want_dim(x, 2, "the weights", 0, in->dim[1]));
    sdx_shape scalar = {.rank = 0};
    sdx_infer_set(x, 0, x->in[0].dtype, reduction == NONE ? &x->in[1].shape : &scalar);
    sdx_infer_set(x, 1, x->in[0].dtype, in); /* log_prob */
    return SDX_OK;
}

typedef struct loss_call {
    const sdx_run *run;
    int64_t classes, inner; /* element (n, c, d) at (n*classes + c)*inner + d */
    bool softmax, ignores;
    int64_t ignored;
} loss_call;

static double at(const sdx_tensor *t, int64_t i)
{
    return sdx_tensor_get_f64(t, i);
}

/* What turns scores into log probabilities by being taken away: max + log sum exp(x - max). */
static double log_norm(const loss_call *c, int64_t first)
{
    const sdx_tensor *x = &c->run->in[0];
    double max = -INFINITY, sum = 0;
    for (int64_t k = 0; k < c->classes; k++) max = fmax(max, at(x, first + k * c->inner));
    for (int64_t k = 0; k < c->classes; k++) sum += exp(at(x, first + k * c->inner) - max);
    return max + log(sum);
}

/* Sample i: its loss, and its weight, which is what mean divides by. */
static sdx_status sample(const loss_call *c, int64_t i, double *loss, double *weight)
{
    const sdx_run *r = c->run;
    int64_t label = sdx_tensor_get_i64(&r->in[1], i),
            first = i / c->inner * c->classes * c->inner + i % c->inner;
    double norm = c->softmax ? log_norm(c, first) : 0;
    for (int64_t k = 0; sdx_run_has_out(r, 1) && k < c->classes; k++) {
        double log_prob = at(&r->in[0], first + k * c->inner) - norm;
        sdx_doubles_store(r->out[1].dtype, &log_prob, 1, r->out[1].data, first + k * c->inner);
    }
    *loss = *weight = 0;
    if (c->ignores && label == c->ignored) return SDX_OK;
    if (label < 0 || label >= c->classes)
        return sdx_fail(r->err, SDX_ERR_USAGE, "label %lld (element %lld) is outside [0, %lld)",
                        (long long)label, (long long)i, (long long)c->classes);
    *weight = sdx_run_has_in(r, 2) ? at(&r->in[2], label) : 1;
    *loss = -(at(&r->in[0], first + label * c->inner) - norm) * *weight;
    return SDX_OK;
}

static sdx_status run_loss(sdx_run *r)
{
    int reduction;
    TRY(read_reduction(r->node, &reduction, r->err));
    sdx_shape in = sdx_run_shape(r, 0);
    const sdx_attr *ignore = sdx_node_attr(r->node, "ignore_index");
    loss_call c = {r,
                   in.dim[1],
                   sdx_shape_span(&in, 2, in.rank),
                   r->node->op_type[0] == 'S',
                   ignore != NULL,
                   ignore ? ignore->i : 0};
    int64_t count = sdx_tensor_count(&r->in[1]);
    double sum = 0, weights = 0, loss, weight;
    for (int64_t i = 0; i < count; i++) {
        TRY(sample(&c, i, &loss, &weight));
        if (reduction == NONE) sdx_doubles_store(r->out[0].dtype, &loss, 1, r->out[0].data, i);
        sum += loss;
        weights += weight;
    }
    if (reduction == MEAN) sum /= weights;
    if (reduction != NONE) sdx_doubles_store(r->out[0].dtype, &sum, 1, r->out[0].data, 0);
    return SDX_OK;
}

static const sdx_op_def rows[] = {
    {"", "NegativeLogLikelihoodLoss", 12, 0, 2, 3, 1, 1, 0, infer_loss, NULL, NULL, run_loss},
    {"", "SoftmaxCrossEntropyLoss", 12, 0, 2, 3, 1, 2, 0, infer_loss, NULL, NULL, run_loss},
};

SDX_OP_TABLE(loss);
