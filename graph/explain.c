/* explain.c: the other half of the fusions. What a pass fused is there to be seen; what it left is found again
 * by its core, which no exporter spells in another way: a Softmax whose result goes into a MatMul, a Sqrt of a
 * mean, an Erf, a norm over a sum that has a look-up in it. From there the pass's own matcher, or a walk along
 * the expected chain, says where matching stopped; a table says what was expected there and what would help. */
#include <stdlib.h>
#include <string.h>

#include "../base/memory.h"
#include "explain_report.h"
#include "passes/attention.h"
#include "passes/passes.h"

static sdx_status add(sdx_report *r, sdx_finding f)
{
    if (r->count == r->capacity) {
        size_t capacity = r->capacity ? r->capacity * 2 : 64;
        sdx_finding *grown = sdx_realloc(r->list, capacity * sizeof *grown);
        if (!grown) return sdx_fail_memory(r->err, capacity * sizeof *grown);
        r->list = grown;
        r->capacity = capacity;
    }
    f.g = r->g;
    r->list[r->count++] = f;
    return SDX_OK;
}

/* ---- what would help ------------------------------------------------------------------------------------- */

static const struct advice {
    const char *reason; /* the beginning of it */
    const char *expected, *fix;
    bool hopeless; /* no operator does this: not a fault of the graph */
} advices[] = {
    {"the scores are not a product",
     "between MatMul and Softmax: Mul or Div by a number, then Add or Where of masks and biases",
     "remove the operator, or move it before the MatMul or behind the Softmax", false},
    {"weights and values meet in an Einsum", "MatMul of [b,n,t,T] and [b,n,T,h]",
     "write each Einsum as MatMul of tensors [b,n,..] and scale before anything is added; XLNet's shifted positions "
     "are then a bias", false},
    {"the attention weights are rearranged", "weights [b,n,t,T] that go to the values' MatMul as they are",
     "nothing: attention within a band has no operator in these runtimes", true},
    {"the attention weights are an output", "weights that only the values' MatMul reads",
     "export without output_attentions", true},
    {"the queries do not arrive", "Reshape to [b,t,n,h], then Transpose 0,2,1,3", "correct the Transpose",
     false},
    {"the keys do not arrive", "Reshape to [b,T,n,h], then Transpose 0,2,3,1", "correct the Transpose", false},
    {"the values do not arrive", "Reshape to [b,T,n,h], then Transpose 0,2,1,3", "correct the Transpose",
     false},
    {"the heads are not joined", "Transpose 0,2,1,3 and Reshape to [b,t,n*h]",
     "correct the Transpose or the Reshape", false},
    {"the values are scaled", "values that go into the MatMul as they are",
     "move the factor behind the attention or into the projection's weight", false},
    {"scores are replaced by a number", "a fill value below -1000", "fill with the least float", false},
    {"what is added to the scores", "a float32 tensor that broadcasts to [b,n,t,T]", "reshape it, or cast it",
     false},
    {"no Reshape splits the heads", "Reshape of [b,t,n*h] to [b,t,n,h]", "give the number of heads as a number",
     false},
    {"heads differ", "queries, keys and values of one batch, n heads and head size h",
     "grouped or uneven heads have no operator in these runtimes", true},
    {"the Softmax is not over the keys", "Softmax over the last axis", "set axis to -1", false},
    {"the coefficients", "erf(x / sqrt 2), tanh(sqrt(2/pi)(x + 0.044715 x^3)) or sigmoid(1.702 x)",
     "correct the number, if a GELU is meant", false},
    {"the constant factor differs", "a factor 0.5 in all", "correct the factor", false},
    {"", "x times a gate of x", "write it as one product", false},
};

static void advise(sdx_finding *f)
{
    for (size_t i = 0; i < sizeof advices / sizeof *advices; i++) {
        if (strncmp(f->reason, advices[i].reason, strlen(advices[i].reason))) continue;
        f->expected = advices[i].expected;
        f->fix = advices[i].fix;
        f->should = !advices[i].hopeless;
        return;
    }
}

/* ---- walking down ---------------------------------------------------------------------------------------- */

enum { MOST_STEPS = 400 }; /* of a search */

static const sdx_node *node_at(const sdx_graph *g, sdx_id id)
{
    return id == SDX_NONE ? NULL : &g->node[id];
}

static int reader_count(const sdx_graph *g, sdx_id v)
{
    return (int)(g->use_begin[v + 1] - g->use_begin[v]);
}
static const sdx_node *reader(const sdx_graph *g, sdx_id v, int i)
{
    return &g->node[g->use_node[g->use_begin[v] + i]];
}

/* The first reader of v, or of its readers, and so on, that is this operator. */
static const sdx_node *find_below(const sdx_graph *g, sdx_id v, const char *op_type, int depth)
{
    for (int i = 0; v != SDX_NONE && i < reader_count(g, v); i++)
        if (sdx_node_is(reader(g, v, i), op_type)) return reader(g, v, i);
    for (int i = 0; v != SDX_NONE && depth > 1 && i < reader_count(g, v); i++) {
        const sdx_node *found = find_below(g, sdx_node_out(reader(g, v, i), 0), op_type, depth - 1);
        if (found) return found;
    }
    return NULL;
}

/* ---- attention ------------------------------------------------------------------------------------------- */

/* Every Reshape a little below is tried as the end; the match that got furthest tells. */
static void best_match(const sdx_graph *g, sdx_id v, int depth, sdx_finding *f)
{
    for (int i = 0; i < reader_count(g, v) && depth > 0; i++) {
        const sdx_node *n = reader(g, v, i);
        sdx_attention m;
        const char *reason = sdx_match_is(n, "Reshape") ? sdx_match_attention(g, n, &m) : NULL;
        if (reason && m.steps > f->steps) {
            f->steps = m.steps;
            f->reason = reason;
            f->place = n->name;
            f->at = n;
            f->stopped = node_at(g, m.stopped);
        }
        if (sdx_node_out(n, 0) != SDX_NONE) best_match(g, n->out[0], depth - 1, f);
    }
}

static bool is_product(const sdx_node *n)
{
    return sdx_node_is(n, "MatMul") || sdx_node_is_in(n, SDX_MS, "FusedMatMul") || sdx_node_is(n, "Einsum");
}

/* The nearest product below v whose operands are both computed; not beyond other products, nor by way of a shape. */
static const sdx_node *find_product(const sdx_graph *g, sdx_id v, int depth, int *steps)
{
    for (int i = 0; v != SDX_NONE && i < reader_count(g, v); i++) {
        const sdx_node *n = reader(g, v, i);
        sdx_id second = is_product(n) ? sdx_node_in(n, 1) : SDX_NONE;
        if (second != SDX_NONE && n->in[0] != SDX_NONE && !sdx_graph_constant(g, second)) return n;
    }
    for (int i = 0; v != SDX_NONE && depth > 1 && i < reader_count(g, v) && --*steps > 0; i++) {
        const sdx_node *n = reader(g, v, i);
        if (is_product(n) || sdx_node_is(n, "Shape")) continue;
        const sdx_node *found = find_product(g, sdx_node_out(n, 0), depth - 1, steps);
        if (found) return found;
    }
    return NULL;
}

enum { NEAR = 3, FAR = 16 }; /* nodes from a Softmax to a product, as a rule and at most */

/* Longformer: the weights of a band are laid out anew before they meet the values. */
static sdx_status explain_far(sdx_report *r, const sdx_node *softmax)
{
    int steps = MOST_STEPS;
    const sdx_node *product = find_product(r->g, softmax->out[0], FAR, &steps);
    if (!product) return SDX_OK;
    sdx_finding f = {.kind = "attention", .place = product->name, .at = product, .of = SDX_ATTENTION_STEPS,
                     .stopped = softmax, .reason = "the attention weights are rearranged"};
    advise(&f);
    return add(r, f);
}

static sdx_status explain_softmax(sdx_report *r, const sdx_node *softmax)
{
    const sdx_graph *g = r->g;
    int steps = MOST_STEPS;
    const sdx_node *product = find_product(g, softmax->out[0], NEAR, &steps);
    if (!product) return explain_far(r, softmax);
    sdx_finding f = {
        .kind = "attention", .place = product->name, .at = product, .of = SDX_ATTENTION_STEPS, .stopped = product};
    best_match(g, product->out[0], 4, &f);
    if (!f.reason && !sdx_match_axis_is_last(g, softmax, -1, softmax->in[0])) {
        f.reason = "the Softmax is not over the keys";
        f.stopped = softmax;
    } else if (!f.reason && sdx_node_is(product, "Einsum")) {
        f.reason = "weights and values meet in an Einsum";
    } else if (!f.reason) {
        f.reason = "the heads are not joined again";
    }
    advise(&f);
    return add(r, f);
}

/* ---- norms ----------------------------------------------------------------------------------------------- */

static bool is_square(const sdx_graph *g, const sdx_node *n)
{
    double two;
    if (sdx_match_is(n, "Pow")) return sdx_graph_scalar(g, n->in[1], &two) && two == 2;
    return sdx_match_is(n, "Mul") && n->in[0] == n->in[1];
}

static bool is_mean(const sdx_graph *g, const sdx_node *n)
{
    return sdx_match_is(n, "ReduceMean") && sdx_match_reduces_last(g, n) && sdx_node_int(n, "keepdims", 1) == 1;
}

static bool adds_number(const sdx_graph *g, const sdx_node *n)
{
    sdx_id x;
    double e;
    return sdx_match_is(n, "Add") && sdx_match_scalar_operand(g, n, &x, &e);
}

static const struct link { /* from the Sqrt upwards */
    bool (*is)(const sdx_graph *g, const sdx_node *n);
    const char *reason, *expected;
} chain[] = {
    {adds_number, "under the root there is no mean plus a number", "Add of a constant epsilon"},
    {is_mean, "what epsilon is added to is no mean over the last axis",
     "ReduceMean over the last axis, keepdims 1"},
    {is_square, "the mean is not of squares", "Pow 2, or Mul of a value with itself"},
};
enum { CHAIN = sizeof chain / sizeof *chain };

static sdx_id computed(const sdx_graph *g, const sdx_node *n)
{
    for (int i = 0; i < n->n_in; i++)
        if (n->in[i] != SDX_NONE && !sdx_graph_constant(g, n->in[i])) return n->in[i];
    return SDX_NONE;
}

static bool has_mean(const sdx_graph *g, sdx_id v, int depth)
{
    for (const sdx_node *n; depth-- > 0 && v != SDX_NONE && (n = sdx_graph_producer(g, v)); v = computed(g, n))
        if (sdx_match_is(n, "ReduceMean")) return true;
    return false;
}

/* After the chain: d / root, times gamma. */
static void explain_quotient(const sdx_graph *g, const sdx_node *sqrt, sdx_finding *f)
{
    const sdx_node *div = find_below(g, sqrt->out[0], "Div", 2),
                   *mul = div ? find_below(g, div->out[0], "Mul", 2) : NULL;
    f->stopped = div ? div : sqrt;
    f->reason = "nothing is divided by the root";
    f->expected = "x, or x - mean(x), divided by the root, times a constant gamma[last axis]";
    if (!mul) return;
    f->steps++;
    f->stopped = mul;
    bool gamma = sdx_graph_constant(g, mul->in[0]) || sdx_graph_constant(g, mul->in[1]);
    f->reason = gamma
                    ? "what is divided is not what the root was taken of, or gamma does not span the last axis"
                    : "gamma is not a constant";
}

static sdx_status explain_root(sdx_report *r, const sdx_node *sqrt)
{
    const sdx_graph *g = r->g;
    if (!has_mean(g, sqrt->in[0], 4)) return SDX_OK;
    sdx_finding f = {.kind = "norm",
                 .place = sqrt->name, .at = sqrt,
                 .should = true,
                 .of = CHAIN + 2,
                 .fix = "spell it as the exporters do, or insert LayerNormalization in the source"};
    const sdx_node *n = sqrt;
    for (f.steps = 0; f.steps < CHAIN; f.steps++) {
        sdx_id v = computed(g, n);
        const sdx_node *above = v == SDX_NONE ? NULL : sdx_graph_producer(g, sdx_match_through(g, v));
        if (above && chain[f.steps].is(g, above)) {
            n = above;
            continue;
        }
        f.stopped = above ? above : n;
        f.reason = chain[f.steps].reason;
        f.expected = chain[f.steps].expected;
        return add(r, f);
    }
    explain_quotient(g, sqrt, &f);
    return add(r, f);
}

/* ---- GELU ------------------------------------------------------------------------------------------------ */

static sdx_status explain_gate(sdx_report *r, const sdx_node *gate)
{
    const sdx_graph *g = r->g;
    const sdx_node *plus = find_below(g, gate->out[0], "Add", 1),
                   *mul = find_below(g, plus ? plus->out[0] : gate->out[0], "Mul", 2);
    bool erf = sdx_match_is(gate, "Erf");
    if (!erf && (!plus || !adds_number(g, plus) || !mul)) return SDX_OK; /* a mere Tanh */
    sdx_finding f = {.kind = "GELU",
                 .place = gate->name, .at = gate,
                 .of = 2,
                 .stopped = gate,
                 .reason = "no product of x and the gate"};
    for (int i = 0; mul && i < 3; i++) { /* the outermost product first fails last */
        const sdx_node *outer = find_below(g, mul->out[0], "Mul", 1);
        f.place = mul->name;
        f.at = mul;
        f.steps = 1;
        const char *reason = sdx_gelu_reason(g, mul);
        if (reason) f.reason = reason;
        if (!outer) break;
        mul = outer;
    }
    advise(&f);
    return add(r, f);
}

/* ---- embeddings ------------------------------------------------------------------------------------------ */

enum { SUMMANDS = 8, MOST_LOOKUPS = 3 }; /* Adds above each other that are looked through; look-ups of the operator */

static bool is_lookup(const sdx_graph *g, sdx_id v)
{
    const sdx_node *n = sdx_match_op(g, v, "Gather");
    const sdx_tensor *t = n ? sdx_graph_constant(g, n->in[0]) : NULL;
    return t && t->dtype == SDX_F32 && t->rank == 2 && sdx_node_int(n, "axis", 0) == 0;
}

typedef struct summands {
    int lookups, constants; /* [b,t,h] looked up beforehand */
    sdx_id other;           /* the first that is neither, but for biases; or SDX_NONE */
} summands;

static void count_summands(const sdx_graph *g, sdx_id v, int depth, summands *s)
{
    const sdx_node *add = depth > 0 ? sdx_match_op(g, v, "Add") : NULL;
    const sdx_tensor *constant = sdx_graph_constant(g, v);
    if (is_lookup(g, v)) {
        s->lookups++;
    } else if (constant) {
        s->constants += constant->rank > 1;
    } else if (add) {
        count_summands(g, add->in[0], depth - 1, s);
        count_summands(g, add->in[1], depth - 1, s);
    } else if (s->other == SDX_NONE) {
        s->other = v;
    }
}

/* v is the sum, or one of the sums that it is made of. */
static bool is_part(const sdx_graph *g, sdx_id sum, sdx_id v, int depth)
{
    const sdx_node *add = depth > 0 ? sdx_match_op(g, sum, "Add") : NULL;
    if (sum == v) return true;
    return add && (is_part(g, add->in[0], v, depth - 1) || is_part(g, add->in[1], v, depth - 1));
}

/* v is computed from what the norm adds it to: a residual, where embeddings have no norm of their own. */
static bool is_residual(const sdx_graph *g, const sdx_node *norm, sdx_id v, int *steps)
{
    const sdx_node *n = v == SDX_NONE ? NULL : sdx_graph_producer(g, v);
    if (n && sdx_node_is(n, "Shape")) return false;
    for (int i = 0; n && i < n->n_in && --*steps > 0; i++) {
        sdx_id from = n->in[i];
        if (from == SDX_NONE || sdx_graph_constant(g, from)) continue;
        if (is_part(g, norm->in[0], from, SUMMANDS) || from == norm->in[1]) return true;
        if (is_residual(g, norm, from, steps)) return true;
    }
    return false;
}

static sdx_status explain_sum(sdx_report *r, const sdx_node *norm)
{
    const sdx_graph *g = r->g;
    summands s = {.other = SDX_NONE};
    int steps = MOST_STEPS;
    count_summands(g, norm->in[0], SUMMANDS, &s);
    if (sdx_node_is_in(norm, SDX_MS, "SkipLayerNormalization")) count_summands(g, norm->in[1], SUMMANDS, &s);
    int lookups = s.lookups + s.constants;
    if (s.lookups == 0 || lookups + (s.other != SDX_NONE) < 2 || is_residual(g, norm, s.other, &steps)) return SDX_OK;
    sdx_finding f = {.kind = "embedding",
                 .place = norm->name, .at = norm,
                 .steps = 1,
                 .of = 3,
                 .should = s.other != SDX_NONE,
                 .expected = "words, positions 0, 1, 2, ... (or given as [b,t]) and segments, each looked up "
                             "in a constant table",
                 .fix = "nothing: positions that begin elsewhere have no operator"};
    f.reason = "positions do not count from 0 along the tokens";
    f.stopped = norm;
    if (!sdx_embedding_reason(g, norm)) {
        f.steps = f.of;
        f.should = false;
        f.reason = "no standard operator takes the look-ups, their sum and its norm together";
        f.fix = "--target ort, where com.microsoft has EmbedLayerNormalization";
    } else if (lookups > MOST_LOOKUPS) {
        f.should = false;
        f.reason = "more than three look-ups are added up";
        f.fix = "nothing: the operator takes words, positions and segments";
    } else if (s.other != SDX_NONE) {
        f.reason = "a summand is not a look-up in a constant table";
        f.stopped = sdx_graph_producer(g, s.other) ? sdx_graph_producer(g, s.other) : norm;
        f.fix = "move the operator behind the norm, or export without it";
    }
    return add(r, f);
}

/* ---- the whole ------------------------------------------------------------------------------------------- */

static const struct fused {
    const char *op_type, *kind;
} fused[] = {
    {"Attention", "attention"},
    {"MultiHeadAttention", "attention"},
    {"LayerNormalization", "norm"},
    {"SimplifiedLayerNormalization", "norm"},
    {"RMSNormalization", "norm"},
    {"SkipLayerNormalization", "norm"},
    {"SkipSimplifiedLayerNormalization", "norm"},
    {"EmbedLayerNormalization", "embedding"},
    {"Gelu", "GELU"},
    {"BiasGelu", "GELU"},
    {"FastGelu", "GELU"},
    {"QuickGelu", "GELU"},
};

static sdx_status explain_node(sdx_report *r, const sdx_node *n)
{
    bool contrib = !strcmp(n->domain, SDX_MS), standard = !*n->domain;
    for (size_t i = 0; i < sizeof fused / sizeof *fused && (contrib || standard); i++)
        if (!strcmp(n->op_type, fused[i].op_type))
            TRY(add(r, (sdx_finding){.kind = fused[i].kind, .place = n->name, .at = n, .became = fused[i].op_type}));
    if (sdx_match_is(n, "Softmax")) return explain_softmax(r, n);
    if (sdx_match_is(n, "Sqrt")) return explain_root(r, n);
    if (sdx_match_is(n, "Erf") || sdx_match_is(n, "Tanh")) return explain_gate(r, n);
    if (sdx_match_is(n, "LayerNormalization") || sdx_match_is_in(n, SDX_MS, "SkipLayerNormalization"))
        return explain_sum(r, n);
    return SDX_OK;
}

static sdx_status explain_all(sdx_report *r, const sdx_model *model, sdx_explain_form form, char **text, size_t *missed)
{
    *missed = 0;
    for (const sdx_graph *g = model->graphs; g; g = g->next) {
        r->g = g;
        for (sdx_id i = 0; i < g->n_node; i++)
            if (!g->node[i].dead) TRY(explain_node(r, &g->node[i]));
    }
    for (size_t i = 0; i < r->count; i++) *missed += !r->list[i].became && r->list[i].should;
    return sdx_report_write(r, model, form, text);
}

sdx_status sdx_model_explain(const sdx_model *model, sdx_explain_form form, char **text, size_t *missed,
                             sdx_error *err)
{
    sdx_report r = {.err = err};
    sdx_status status = explain_all(&r, model, form, text, missed);
    free(r.list);
    return status;
}
