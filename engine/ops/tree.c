/* tree.c: TreeEnsemble of ai.onnx.ml. A tree is walked from its root by one comparison per node; which leaf is
 * reached says what is added to which target. Indices are checked once, in prepare; a walk that takes more
 * steps than there are nodes is in a cycle.
 */
#include <math.h>
#include <string.h>

#include "compute.h"
#include "contents.h"

enum { LEQ, LT, GTE, GT, EQ, NEQ, MEMBER, MODES };
enum { AVERAGE, SUM, MIN, MAX };
enum { PLAIN, SOFTMAX, LOGISTIC, SOFTMAX_ZERO, PROBIT };

typedef struct branch {
    double split;
    const double *members; /* of MEMBER: what it tests, [n_members] */
    int64_t n_members;
    int64_t feature, next[2]; /* 0: false, 1: true; a node, or a leaf where leaf[] says so */
    bool leaf[2], missing;    /* missing: a NaN goes the true way */
    int mode;
} branch;

typedef struct ensemble {
    branch *node;
    int64_t n_nodes, n_leaves, n_roots, n_targets, n_features;
    const int64_t *root, *target; /* [n_roots], [n_leaves] */
    double *weight;               /* [n_leaves] */
    int64_t aggregate, transform;
} ensemble;

/* ---- prepare ----------------------------------------------------------------------------------------- */

static sdx_status need_ints(const sdx_node *node, const char *name, int64_t count, const int64_t **out,
                            sdx_error *err)
{
    size_t n;
    *out = sdx_node_ints(node, name, &n);
    if (*out && (int64_t)n == count) return SDX_OK;
    return sdx_fail(err, SDX_ERR_FILE, "attribute %s must list %lld integers", name, (long long)count);
}

/* A tensor attribute's numbers. */
static sdx_status need_tensor(sdx_prepare *p, const char *name, int64_t count, double **out)
{
    const sdx_attr *a = sdx_node_attr(p->node, name);
    if (!a || !a->tensor || a->tensor->dtype == SDX_STRING ||
        (count >= 0 && sdx_tensor_count(a->tensor) != count))
        return sdx_fail(p->err, SDX_ERR_FILE, "attribute %s must be a tensor of %lld numbers", name,
                        (long long)count);
    size_t n = (size_t)sdx_tensor_count(a->tensor), bytes = sdx_tensor_bytes(a->tensor);
    sdx_tensor aligned = *a->tensor;
    aligned.data = sdx_arena_alloc(p->arena, bytes);
    if (!aligned.data) return sdx_fail_memory(p->err, bytes);
    if (bytes) memcpy(aligned.data, a->tensor->data, bytes);
    ARENA_NEW(p->arena, *out, n, p->err);
    for (size_t i = 0; i < n; i++) (*out)[i] = sdx_tensor_get_f64(&aligned, (int64_t)i);
    return SDX_OK;
}

/* Sets are listed one after the other, a NaN behind each, in the order of their nodes. */
static sdx_status share_members(sdx_prepare *p, ensemble *e)
{
    const sdx_attr *a = sdx_node_attr(p->node, "membership_values");
    double *members = NULL;
    int64_t n = 0, at = 0;
    if (a && a->tensor) {
        TRY(need_tensor(p, "membership_values", -1, &members));
        n = sdx_tensor_count(a->tensor);
    }
    for (int64_t i = 0; i < e->n_nodes; i++) {
        branch *b = &e->node[i];
        if (b->mode != MEMBER) continue;
        if (at >= n)
            return sdx_fail(p->err, SDX_ERR_FILE, "membership_values has fewer sets than there are nodes");
        b->members = members + at;
        while (at < n && !isnan(members[at])) at++;
        b->n_members = members + at - b->members;
        at++;
    }
    return SDX_OK;
}

static sdx_status check_branch(const ensemble *e, int64_t i, sdx_error *err)
{
    const branch *b = &e->node[i];
    bool fine = b->feature >= 0 && b->mode >= 0 && b->mode < MODES;
    for (int k = 0; k < 2; k++) fine &= b->next[k] >= 0 && b->next[k] < (b->leaf[k] ? e->n_leaves : e->n_nodes);
    return fine ? SDX_OK : sdx_fail(err, SDX_ERR_FILE, "node %lld of the trees makes no sense", (long long)i);
}

static sdx_status load_nodes(sdx_prepare *p, ensemble *e)
{
    static const char *const name[] = {"nodes_falsenodeids", "nodes_truenodeids", "nodes_falseleafs",
                                       "nodes_trueleafs"};
    const int64_t *list[4], *feature, *missing = NULL;
    double *split, *mode;
    for (int k = 0; k < 4; k++) TRY(need_ints(p->node, name[k], e->n_nodes, &list[k], p->err));
    TRY(need_ints(p->node, "nodes_featureids", e->n_nodes, &feature, p->err));
    if (sdx_node_attr(p->node, "nodes_missing_value_tracks_true"))
        TRY(need_ints(p->node, "nodes_missing_value_tracks_true", e->n_nodes, &missing, p->err));
    TRY(need_tensor(p, "nodes_splits", e->n_nodes, &split));
    TRY(need_tensor(p, "nodes_modes", e->n_nodes, &mode));
    ARENA_NEW(p->arena, e->node, (size_t)e->n_nodes, p->err);
    for (int64_t i = 0; i < e->n_nodes; i++) {
        e->node[i] = (branch){.split = split[i],
                              .feature = feature[i],
                              .next = {list[0][i], list[1][i]},
                              .leaf = {list[2][i] != 0, list[3][i] != 0},
                              .missing = missing && missing[i],
                              .mode = mode[i] >= 0 && mode[i] < MODES ? (int)mode[i] : -1};
        TRY(check_branch(e, i, p->err));
        if (feature[i] >= e->n_features) e->n_features = feature[i] + 1;
    }
    return share_members(p, e);
}

static sdx_status load_leaves(sdx_prepare *p, ensemble *e)
{
    TRY(need_ints(p->node, "leaf_targetids", e->n_leaves, &e->target, p->err));
    TRY(need_tensor(p, "leaf_weights", e->n_leaves, &e->weight));
    for (int64_t i = 0; i < e->n_leaves; i++)
        if (e->target[i] < 0 || e->target[i] >= e->n_targets)
            return sdx_fail(p->err, SDX_ERR_FILE, "leaf %lld has target %lld of %lld", (long long)i,
                            (long long)e->target[i], (long long)e->n_targets);
    for (int64_t i = 0; i < e->n_roots; i++)
        if (e->root[i] < 0 || e->root[i] >= e->n_nodes)
            return sdx_fail(p->err, SDX_ERR_FILE, "tree %lld has no root", (long long)i);
    return SDX_OK;
}

static sdx_status prepare_trees(sdx_prepare *p)
{
    ensemble *e;
    size_t nodes, leaves, roots;
    PREPARE_STATE(p, e);
    sdx_node_ints(p->node, "nodes_featureids", &nodes);
    sdx_node_ints(p->node, "leaf_targetids", &leaves);
    e->root = sdx_node_ints(p->node, "tree_roots", &roots);
    e->n_nodes = (int64_t)nodes;
    e->n_leaves = (int64_t)leaves;
    e->n_roots = e->root ? (int64_t)roots : 0;
    e->n_targets = sdx_node_int(p->node, "n_targets", 1);
    e->aggregate = sdx_node_int(p->node, "aggregate_function", SUM);
    e->transform = sdx_node_int(p->node, "post_transform", PLAIN);
    if (e->aggregate < AVERAGE || e->aggregate > MAX || e->transform < PLAIN || e->transform > PROBIT)
        return sdx_fail(p->err, SDX_ERR_FILE, "aggregate_function or post_transform is unknown");
    TRY(load_nodes(p, e));
    return load_leaves(p, e);
}

static sdx_status infer_trees(sdx_infer *x)
{
    TRY(sdx_want_dtype(x, 0, "the input", SDX_SET_FLOAT));
    TRY(sdx_want_rank(x, 0, "the input", 2, 2));
    sdx_shape out = {.rank = 2, .dim = {sdx_type_dim(&x->in[0], 0), SDX_DIM_UNKNOWN}};
    TRY(sdx_infer_dim(x, sdx_element_number(sdx_node_int(x->node, "n_targets", 1)), &out.dim[1]));
    sdx_infer_set(x, 0, x->in[0].dtype, &out);
    return SDX_OK;
}

/* ---- run --------------------------------------------------------------------------------------------- */

static bool is_member(const branch *b, double x)
{
    for (int64_t i = 0; i < b->n_members; i++)
        if (b->members[i] == x) return true;
    return false;
}

static bool choose(const branch *b, double x)
{
    if (isnan(x)) return b->missing;
    switch (b->mode) {
    case LEQ: return x <= b->split;
    case LT: return x < b->split;
    case GTE: return x >= b->split;
    case GT: return x > b->split;
    case EQ: return x == b->split;
    case NEQ: return x != b->split;
    default: return is_member(b, x);
    }
}

/* The leaf that row[n_features] reaches, or -1 in a cycle. */
static int64_t find_leaf(const ensemble *e, int64_t root, const double *row)
{
    const branch *b = &e->node[root];
    for (int64_t steps = 0; steps <= e->n_nodes; steps++) {
        int way = choose(b, row[b->feature]);
        if (b->leaf[way]) return b->next[way];
        b = &e->node[b->next[way]];
    }
    return -1;
}

/* The normal distribution's quantile of a probability, by Newton's method on its erf. */
static double probit(double p)
{
    double x = 0;
    for (int i = 0; i < 60; i++) {
        double step = (0.5 * erfc(-x / sqrt(2)) - p) / (exp(-x * x / 2) / sqrt(2 * 3.14159265358979323846));
        if (!isfinite(step)) break;
        x -= fmax(-1, fmin(1, step));
    }
    return x;
}

/* y[n]. SOFTMAX_ZERO leaves zeros out of the sum and at zero. */
static void transform(const ensemble *e, double *y)
{
    int64_t n = e->n_targets;
    double max = -INFINITY, sum = 0;
    if (e->transform == LOGISTIC || e->transform == PROBIT) {
        for (int64_t i = 0; i < n; i++) y[i] = e->transform == PROBIT ? probit(y[i]) : 1 / (1 + exp(-y[i]));
    } else if (e->transform != PLAIN) {
        for (int64_t i = 0; i < n; i++) max = fmax(max, y[i]);
        for (int64_t i = 0; i < n; i++)
            if (e->transform == SOFTMAX || y[i] != 0) sum += y[i] = exp(y[i] - max);
        for (int64_t i = 0; i < n; i++) y[i] /= sum != 0 ? sum : 1;
    }
}

static bool score_row(const ensemble *e, const double *row, double *y)
{
    for (int64_t i = 0; i < e->n_targets; i++)
        y[i] = e->aggregate == MIN ? INFINITY : e->aggregate == MAX ? -INFINITY : 0;
    for (int64_t i = 0; i < e->n_roots; i++) {
        int64_t leaf = find_leaf(e, e->root[i], row);
        if (leaf < 0) return false;
        double *to = &y[e->target[leaf]], w = e->weight[leaf];
        *to = e->aggregate == MIN ? fmin(*to, w) : e->aggregate == MAX ? fmax(*to, w) : *to + w;
    }
    for (int64_t i = 0; i < e->n_targets; i++) {
        if (isinf(y[i])) y[i] = 0; /* no tree speaks of it */
        if (e->aggregate == AVERAGE && e->n_roots) y[i] /= (double)e->n_roots;
    }
    transform(e, y);
    return true;
}

static sdx_status plan_trees(sdx_plan_step *p)
{
    const ensemble *e = p->state;
    bool fits = sdx_workspace_add(&p->workspace, (size_t)p->in[0].shape.dim[1], sizeof(double)) &&
                sdx_workspace_add(&p->workspace, (size_t)e->n_targets, sizeof(double));
    return fits ? SDX_OK : sdx_workspace_fail(p->err);
}

static sdx_status run_trees(sdx_run *r)
{
    const ensemble *e = r->state;
    const sdx_tensor *x = &r->in[0];
    int64_t features = x->dim[1];
    char *at = r->workspace;
    double *row = sdx_workspace_take(&at, (size_t)features * sizeof *row), *y = (double *)(void *)at;
    if (features < e->n_features)
        return sdx_fail(r->err, SDX_ERR_USAGE, "the trees look at feature %lld of %lld",
                        (long long)e->n_features - 1, (long long)features);
    for (int64_t i = 0; i < x->dim[0]; i++) {
        sdx_doubles_load(x->dtype, x->data, i * features, features, row);
        if (!score_row(e, row, y)) return sdx_fail(r->err, SDX_ERR_FILE, "the nodes of a tree form a cycle");
        sdx_doubles_store(r->out[0].dtype, y, e->n_targets, r->out[0].data, i * e->n_targets);
    }
    return SDX_OK;
}

static const sdx_op_def rows[] = {
    {"ai.onnx.ml", "TreeEnsemble", 5, 0, 1, 1, 1, 1, 0, infer_trees, prepare_trees, plan_trees, run_trees},
};

SDX_OP_TABLE(tree);
