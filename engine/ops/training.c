/* training.c: one step of the optimizers of ai.onnx.preview.training, element by element in double. Inputs:
 * learning rate R, update count T, then for n tensors all values X, all gradients G and all states (two each
 * for Adam); outputs: the new values, then the new states. */
#include <math.h>
#include <string.h>

#include "compute.h"
#include "contents.h"
#include "lanes.h"

enum { RATE, COUNT, FIRST, MOST_STATES = 2 };

typedef struct optimizer optimizer;

/* One element: state holds the old and takes the new; returns the new value. */
typedef double (*update_fn)(const optimizer *o, double x, double g, double state[MOST_STATES]);

struct optimizer {
    update_fn update;
    int states;
    bool nesterov;
    double rate, count, alpha, beta, epsilon, decay, norm, norm_after;
};

static double adagrad(const optimizer *o, double x, double g, double state[MOST_STATES])
{
    double regular = o->norm * x + g;
    state[0] += regular * regular;
    return x - o->rate / (1 + o->count * o->decay) * regular / (sqrt(state[0]) + o->epsilon);
}

static double adam(const optimizer *o, double x, double g, double state[MOST_STATES])
{
    double regular = o->norm * x + g, rate = o->rate;
    state[0] = o->alpha * state[0] + (1 - o->alpha) * regular;
    state[1] = o->beta * state[1] + (1 - o->beta) * regular * regular;
    if (o->count > 0) rate *= sqrt(1 - pow(o->beta, o->count)) / (1 - pow(o->alpha, o->count));
    return (1 - o->norm_after) * (x - rate * state[0] / (sqrt(state[1]) + o->epsilon));
}

static double momentum(const optimizer *o, double x, double g, double state[MOST_STATES])
{
    double regular = o->norm * x + g;
    state[0] = o->alpha * state[0] + (o->count > 0 ? o->beta : 1) * regular;
    return x - o->rate * (o->nesterov ? regular + o->alpha * state[0] : state[0]);
}

static int state_count(const sdx_node *node)
{
    return !strcmp(node->op_type, "Adam") ? 2 : 1;
}

static sdx_status infer_optimizer(sdx_infer *x)
{
    int each = 2 + state_count(x->node), tensors = (x->n_in - FIRST) / each;
    if (tensors * each != x->n_in - FIRST || x->n_out > tensors * (each - 1))
        return sdx_fail(x->err, SDX_ERR_FILE, "%d inputs and %d outputs do not make whole tensors", x->n_in,
                        x->n_out);
    unsigned floats = SDX_SET(SDX_F32) | SDX_SET(SDX_F64);
    TRY(sdx_want_dtype(x, RATE, "the rate", floats));
    TRY(sdx_want_dtype(x, COUNT, "the count", SDX_SET(SDX_I64)));
    for (int i = 0; i < x->n_in - FIRST; i++) {
        const sdx_type *first = &x->in[FIRST + i % tensors];
        TRY(sdx_want_dtype(x, FIRST + i, "a tensor", floats));
        TRY(sdx_want_same_dtype(x, FIRST + i, "a tensor", FIRST + i % tensors, "its value"));
        if (sdx_shape_is_known(&first->shape) && sdx_shape_is_known(&x->in[FIRST + i].shape) &&
            !sdx_shape_same(&first->shape, &x->in[FIRST + i].shape))
            return sdx_fail(x->err, SDX_ERR_USAGE, "value, gradient and state must have one shape");
    }
    for (int i = 0; i < x->n_out; i++) {
        const sdx_type *first = &x->in[FIRST + i % tensors];
        sdx_infer_set(x, i, first->dtype, &first->shape);
    }
    return SDX_OK;
}

static void update_tensor(const sdx_run *r, const optimizer *o, int k, int tensors)
{
    const sdx_tensor *x = &r->in[FIRST + k], *g = &r->in[FIRST + tensors + k];
    for (int64_t i = 0, n = sdx_tensor_count(x); i < n; i++) {
        double state[MOST_STATES], value;
        for (int s = 0; s < o->states; s++)
            state[s] = sdx_tensor_get_f64(&r->in[FIRST + (2 + s) * tensors + k], i);
        value = o->update(o, sdx_tensor_get_f64(x, i), sdx_tensor_get_f64(g, i), state);
        for (int s = -1; s < o->states; s++) {
            int out = (1 + s) * tensors + k;
            if (sdx_run_has_out(r, out))
                sdx_doubles_store(r->out[out].dtype, s < 0 ? &value : &state[s], 1, r->out[out].data, i);
        }
    }
}

static sdx_status run_optimizer(sdx_run *r, update_fn update)
{
    const sdx_node *n = r->node;
    optimizer o = {.update = update, .states = state_count(n)};
    if (sdx_tensor_count(&r->in[RATE]) != 1 || sdx_tensor_count(&r->in[COUNT]) != 1)
        return sdx_fail(r->err, SDX_ERR_USAGE, "rate and count must be scalars");
    o.rate = sdx_tensor_get_f64(&r->in[RATE], 0);
    o.count = sdx_tensor_get_f64(&r->in[COUNT], 0);
    o.alpha = (double)sdx_node_float(n, "alpha", 0.9f);
    o.beta = (double)sdx_node_float(n, "beta", 0.999f);
    o.epsilon = (double)sdx_node_float(n, "epsilon", 1e-6f);
    o.decay = (double)sdx_node_float(n, "decay_factor", 0);
    o.norm = (double)sdx_node_float(n, "norm_coefficient", 0);
    o.norm_after = (double)sdx_node_float(n, "norm_coefficient_post", 0);
    o.nesterov = !strcmp(sdx_node_string(n, "mode", "standard"), "nesterov");
    int tensors = (r->n_in - FIRST) / (2 + o.states);
    for (int k = 0; k < tensors; k++) update_tensor(r, &o, k, tensors);
    return SDX_OK;
}

static sdx_status run_adagrad(sdx_run *r)
{
    return run_optimizer(r, adagrad);
}
static sdx_status run_adam(sdx_run *r)
{
    return run_optimizer(r, adam);
}
static sdx_status run_momentum(sdx_run *r)
{
    return run_optimizer(r, momentum);
}

#define TRAINING "ai.onnx.preview.training"
static const sdx_op_def rows[] = {
    {TRAINING, "Adagrad", 1, 0, 3, -1, 1, -1, 0, infer_optimizer, NULL, NULL, run_adagrad},
    {TRAINING, "Adam", 1, 0, 3, -1, 1, -1, 0, infer_optimizer, NULL, NULL, run_adam},
    {TRAINING, "Momentum", 1, 0, 3, -1, 1, -1, 0, infer_optimizer, NULL, NULL, run_momentum},
};

SDX_OP_TABLE(training);
