/* fuse_gelu.c: the Gaussian error linear unit (Hendrycks, Gimpel: "Gaussian Error Linear Units", 2016) and its
 * approximations, from their arithmetic:
 *
 *     0.5 * x * (1 + erf(x / sqrt 2))                          -> Gelu
 *     0.5 * x * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3)))    -> FastGelu
 *     x * sigmoid(1.702 x)                                     -> QuickGelu(alpha)
 *
 * Exporters associate these products in many ways: 0.5 on x, on the bracket or at the end; x^3 by Pow or by
 * Muls; x(1 + 0.044715 x^2). So the outer product is taken apart into its factors, whatever the order, and the
 * argument of erf, tanh or sigmoid is read as a polynomial in x. A Gelu of opset 20 is left as it is. */
#include "passes.h"

#include <string.h>

/* ---- polynomials in x ----------------------------------------------------------------------------------- */

enum { DEGREE = 3, DEPTH = 8 };

typedef struct polynomial {
    double c[DEGREE + 1];
} polynomial;

static bool multiply(const polynomial *a, const polynomial *b, polynomial *out)
{
    *out = (polynomial){{0}};
    for (int i = 0; i <= DEGREE; i++) {
        for (int k = 0; k <= DEGREE; k++) {
            double product = a->c[i] * b->c[k];
            if (product == 0) continue;
            if (i + k > DEGREE) return false;
            out->c[i + k] += product;
        }
    }
    return true;
}

static bool power(const polynomial *base, double exponent, polynomial *out)
{
    polynomial square;
    if (exponent != 2 && exponent != 3) return false;
    if (!multiply(base, base, &square)) return false;
    *out = square;
    return exponent == 2 || multiply(&square, base, out);
}

static bool read_polynomial(const sdx_graph *g, sdx_id v, sdx_id x, int depth, polynomial *out)
{
    v = sdx_match_through(g, v);
    *out = (polynomial){{0}};
    if (v == x) return out->c[1] = 1, true;
    if (sdx_graph_scalar(g, v, &out->c[0])) return true;
    const sdx_node *n = sdx_graph_producer(g, v);
    polynomial a, b;
    if (!n || depth == 0 || n->n_in != 2) return false;
    if (!read_polynomial(g, n->in[0], x, depth - 1, &a) || !read_polynomial(g, n->in[1], x, depth - 1, &b))
        return false;
    if (sdx_match_is(n, "Mul")) return multiply(&a, &b, out);
    if (sdx_match_is(n, "Pow")) return power(&a, b.c[0], out);
    if (sdx_match_is(n, "Div") && b.c[0] != 0 && b.c[1] == 0 && b.c[2] == 0 && b.c[3] == 0) {
        for (int i = 0; i <= DEGREE; i++) out->c[i] = a.c[i] / b.c[0];
        return true;
    }
    if (!sdx_match_is(n, "Add")) return false;
    for (int i = 0; i <= DEGREE; i++) out->c[i] = a.c[i] + b.c[i];
    return true;
}

/* ---- the outer product ---------------------------------------------------------------------------------- */

typedef struct product {
    double scale;
    sdx_id factor[2]; /* what is not a number */
    int count;        /* 3: too many */
} product;

static void take_apart(const sdx_graph *g, sdx_id v, int depth, product *p)
{
    const sdx_node *n = depth > 0 ? sdx_match_op(g, v, "Mul") : NULL;
    double number;
    if (sdx_graph_scalar(g, v, &number)) {
        p->scale *= number;
    } else if (n) {
        take_apart(g, n->in[0], depth - 1, p);
        take_apart(g, n->in[1], depth - 1, p);
    } else if (p->count < 2) {
        p->factor[p->count++] = sdx_match_through(g, v);
    } else {
        p->count = 3;
    }
}

/* ---- matching ------------------------------------------------------------------------------------------- */

typedef struct gelu {
    const char *op_type;
    sdx_id x;
    double alpha; /* of QuickGelu, else 0 */
} gelu;

static bool is_odd(const polynomial *p)
{
    return p->c[0] == 0 && p->c[2] == 0;
}

static const char no_gate[] = "no gate 1 + erf(.), 1 + tanh(.) or sigmoid(.)";

/* f is 1 + erf(.), 1 + tanh(.) or sigmoid(.) of a polynomial in x. */
static const char *match_gate(const sdx_graph *g, sdx_id f, double scale, gelu *m)
{
    static const double sqrt_half = 0.70710678118654752, sqrt_2_over_pi = 0.79788456080286536;
    const sdx_node *plus = sdx_match_op(g, f, "Add"), *sigmoid = sdx_match_op(g, f, "Sigmoid");
    sdx_id inner = SDX_NONE;
    double one = 0;
    if (plus && (!sdx_match_scalar_operand(g, plus, &inner, &one) || one != 1))
        return no_gate;
    const sdx_node *erf = plus ? sdx_match_op(g, inner, "Erf") : NULL;
    const sdx_node *tanh = plus ? sdx_match_op(g, inner, "Tanh") : NULL;
    const sdx_node *gate = erf ? erf : tanh ? tanh : sigmoid;
    polynomial p;
    if (!gate) return no_gate;
    if (!read_polynomial(g, gate->in[0], m->x, DEPTH, &p) || !is_odd(&p))
        return "the gate's argument is not odd in x";
    if (scale != (gate == sigmoid ? 1 : 0.5)) return "the constant factor differs";
    m->op_type = erf ? "Gelu" : tanh ? "FastGelu" : "QuickGelu";
    m->alpha = gate == sigmoid ? p.c[1] : 0;
    bool as_meant =
        tanh  ? sdx_match_near(p.c[1], sqrt_2_over_pi) && sdx_match_near(p.c[3], sqrt_2_over_pi * 0.044715)
        : erf ? sdx_match_near(p.c[1], sqrt_half) && p.c[3] == 0
              : sdx_match_near(p.c[1], 1.702) && p.c[3] == 0;
    return as_meant ? NULL : "the coefficients of the gate's argument differ";
}

static const char *match_gelu(const sdx_graph *g, const sdx_node *last, gelu *m)
{
    product p = {.scale = 1};
    take_apart(g, last->out[0], 3, &p);
    if (p.count != 2) return "not a product of x and a gate";
    const char *reason = NULL;
    for (int i = 0; i < 2; i++) {
        m->x = p.factor[i];
        const char *why = match_gate(g, p.factor[1 - i], p.scale, m);
        if (why && (!reason || reason == no_gate)) reason = why; /* of the factor that is a gate */
        if (why) continue;
        return sdx_match_type(g, m->x)->dtype == SDX_F32 ? NULL : "not float32";
    }
    return reason;
}

const char *sdx_gelu_reason(const sdx_graph *g, const sdx_node *mul)
{
    gelu m;
    return match_gelu(g, mul, &m);
}

sdx_status sdx_pass_fuse_gelu(sdx_pass_context *context, sdx_graph *graph)
{
    gelu m;
    for (sdx_id i = graph->n_node; i-- > 0;) { /* from the end: the whole product before its parts */
        if (!sdx_match_is(&graph->node[i], "Mul") || match_gelu(graph, &graph->node[i], &m)) continue;
        if (context->standard && m.alpha != 0) continue;
        sdx_id out = graph->node[i].out[0], node;
        const char *domain = context->standard ? "" : SDX_MS, *op_type = context->standard ? "Gelu" : m.op_type;
        TRY(sdx_pass_replace(context, graph, i, domain, op_type, 1, &m.x, 1, &out, &node));
        if (context->standard && !strcmp(m.op_type, "FastGelu"))
            TRY(sdx_node_set_string(graph, node, "approximate", "tanh", context->err));
        if (m.alpha != 0) TRY(sdx_node_set_float(graph, node, "alpha", (float)m.alpha, context->err));
    }
    return sdx_pass_finish(context, graph);
}
