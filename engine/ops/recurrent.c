/* recurrent.c: RNN, GRU and LSTM. The products of all inputs with W are one GEMM before the loop; a time step
 * is then the product of the state with R, added to the step's share of that GEMM, and the cell's elementwise
 * part. Everything is computed in float32; other float types are converted at the edges.
 *
 * T steps, B sequences, I inputs, H hidden, D directions, G gates: X [T,B,I] or, with layout 1, [B,T,I];
 * W [D,G*H,I]  R [D,G*H,H]  bias [D,2*G*H]  lens [B]  initial h and c [D,B,H]  peepholes [D,3*H].
 */
#include <math.h>
#include <string.h>
#include <strings.h>

#include "contents.h"
#include "linear.h"

enum { X, W, R, BIAS, LENS, INITIAL_H, INITIAL_C, PEEPHOLES };
enum { MAX_ACTIVATIONS = 3 };

/* ---- activations ------------------------------------------------------------------------------------- */

typedef struct function {
    const char *name;
    int kernel; /* sdx_unary, or -1 */
    float (*f)(float x, float alpha, float beta);
    float alpha, beta; /* defaults; NAN: it has none */
} function;

static float affine(float x, float a, float b)
{
    return a * x + b;
}
static float leaky(float x, float a, float b)
{
    return (void)b, x < 0 ? a * x : x;
}
static float thresholded(float x, float a, float b)
{
    return (void)b, x >= a ? x : 0;
}
static float scaled_tanh(float x, float a, float b)
{
    return a * tanhf(b * x);
}
static float hard_sigmoid(float x, float a, float b)
{
    return fminf(fmaxf(a * x + b, 0), 1);
}
static float elu(float x, float a, float b)
{
    return (void)b, x < 0 ? a * expm1f(x) : x;
}
static float softsign(float x, float a, float b)
{
    return (void)a, (void)b, x / (1 + fabsf(x));
}
static float softplus(float x, float a, float b)
{
    return (void)a, (void)b, fmaxf(x, 0) + log1pf(expf(-fabsf(x)));
}

static const function functions[] = {
    {"Sigmoid", SDX_UNARY_SIGMOID, NULL, NAN, NAN},
    {"Tanh", SDX_UNARY_TANH, NULL, NAN, NAN},
    {"Relu", SDX_UNARY_RELU, NULL, NAN, NAN},
    {"Affine", -1, affine, 1, 0},
    {"LeakyRelu", -1, leaky, 0.01f, NAN},
    {"ThresholdedRelu", -1, thresholded, 1, NAN},
    {"ScaledTanh", -1, scaled_tanh, 1, 1},
    {"HardSigmoid", -1, hard_sigmoid, 0.2f, 0.5f},
    {"Elu", -1, elu, 1, NAN},
    {"Softsign", -1, softsign, NAN, NAN},
    {"Softplus", -1, softplus, NAN, NAN},
};

typedef struct activation {
    const function *function;
    float alpha, beta;
} activation;

/* ---- cells ------------------------------------------------------------------------------------------- */

typedef struct step step;
typedef struct cell {
    const char *op;
    int gates, activations;
    const char *usual[MAX_ACTIVATIONS];
    void (*run)(const step *s);
} cell;

typedef struct recurrent {
    const cell *cell;
    int directions;
    bool reverse; /* the first direction runs backwards */
    bool batch_first, input_forget, linear_before_reset;
    float clip; /* INFINITY: none */
    activation activation[2][MAX_ACTIVATIONS];
} recurrent;

/* What a cell sees of one time step of one direction. gates: [B, G*H], the input's share when the cell begins.
 */
struct step {
    const sdx_run *run;
    const recurrent *state;
    const activation *activation;
    int64_t batch, hidden;
    const float *r, *r_last; /* packed R; GRU: of the first two gates, and of the third */
    const float *r_bias;     /* [H] GRU with linear_before_reset: bias of the third gate's recurrent part */
    const float *peephole;   /* [3*H] or NULL */
    float *gates, *h, *c, *extra; /* [B, G*H], [B, H] each */
};

/* Activation number `which` of H elements. */
static void activate(const step *s, int which, float *x)
{
    const activation *a = &s->activation[which];
    if (a->function->kernel >= 0)
        s->run->kernels->element.unary_f32[a->function->kernel](s->hidden, x, x);
    else
        for (int64_t i = 0; i < s->hidden; i++) x[i] = a->function->f(x[i], a->alpha, a->beta);
}

/* The same of a gate's sum, clipped first. */
static void open_gate(const step *s, int which, float *x)
{
    const sdx_element_kernels *k = &s->run->kernels->element;
    float high = s->state->clip, low = -high;
    if (high < INFINITY) {
        k->binary_f32[SDX_BINARY_MAX](s->hidden, x, 1, &low, 0, x);
        k->binary_f32[SDX_BINARY_MIN](s->hidden, x, 1, &high, 0, x);
    }
    activate(s, which, x);
}

/* c[B, n] (rows ldc apart) = a[B, H] * packed R + c or bias. */
static void multiply(const step *s, const float *a, const float *packed, int64_t n, const float *bias, float *c,
                     int64_t ldc)
{
    sdx_gemm_f32_job job = {.gemm = &s->run->kernels->gemm_f32,
                            .threads = s->run->threads,
                            .m = s->batch,
                            .n = n,
                            .k = s->hidden,
                            .a = a,
                            .lda = s->hidden,
                            .packed = packed,
                            .bias = bias,
                            .activation = SDX_ACT_NONE,
                            .residual = bias ? NULL : c,
                            .ldr = ldc,
                            .c = c,
                            .ldc = ldc};
    sdx_gemm_f32_run(&job);
}

static void run_rnn(const step *s)
{
    multiply(s, s->h, s->r, s->hidden, NULL, s->gates, s->hidden);
    for (int64_t b = 0; b < s->batch; b++) open_gate(s, 0, s->gates + b * s->hidden);
    memcpy(s->h, s->gates, (size_t)(s->batch * s->hidden) * sizeof(float));
}

/* Gates z r h. */
static void run_gru(const step *s)
{
    int64_t n = s->hidden, row = 3 * n;
    multiply(s, s->h, s->r, 2 * n, NULL, s->gates, row);
    for (int64_t b = 0; b < s->batch; b++) {
        float *g = s->gates + b * row;
        open_gate(s, 0, g);
        open_gate(s, 0, g + n);
        for (int64_t i = 0; i < n; i++) s->extra[b * n + i] = g[n + i] * s->h[b * n + i];
    }
    if (s->state->linear_before_reset)
        multiply(s, s->h, s->r_last, n, s->r_bias, s->extra, n);
    else
        multiply(s, s->extra, s->r_last, n, NULL, s->gates + 2 * n, row);
    for (int64_t b = 0; b < s->batch; b++) {
        float *z = s->gates + b * row, *r = z + n, *g = r + n, *h = s->h + b * n;
        for (int64_t i = 0; s->state->linear_before_reset && i < n; i++) g[i] += r[i] * s->extra[b * n + i];
        open_gate(s, 1, g);
        for (int64_t i = 0; i < n; i++) h[i] = (1 - z[i]) * g[i] + z[i] * h[i];
    }
}

static void look(const step *s, int which, const float *c, float *gate)
{
    const float *p = s->peephole ? s->peephole + which * s->hidden : NULL;
    for (int64_t i = 0; p && i < s->hidden; i++) gate[i] += p[i] * c[i];
}

/* Gates i o f c; peepholes i o f, of which o looks at the new cell. */
static void run_lstm(const step *s)
{
    int64_t n = s->hidden;
    multiply(s, s->h, s->r, 4 * n, NULL, s->gates, 4 * n);
    for (int64_t b = 0; b < s->batch; b++) {
        float *in = s->gates + b * 4 * n, *out = in + n, *forget = out + n, *g = forget + n;
        float *c = s->c + b * n, *h = s->h + b * n;
        look(s, 0, c, in);
        look(s, 2, c, forget);
        open_gate(s, 0, in);
        open_gate(s, 0, forget);
        open_gate(s, 1, g);
        for (int64_t i = 0; s->state->input_forget && i < n; i++) forget[i] = 1 - in[i];
        for (int64_t i = 0; i < n; i++) c[i] = forget[i] * c[i] + in[i] * g[i];
        look(s, 1, c, out);
        open_gate(s, 0, out);
        memcpy(g, c, (size_t)n * sizeof *c);
        activate(s, 2, g); /* not clipped: this is the cell, not a sum of products */
        for (int64_t i = 0; i < n; i++) h[i] = out[i] * g[i];
    }
}

static const cell cells[] = {
    {"RNN", 1, 1, {"Tanh"}, run_rnn},
    {"GRU", 3, 2, {"Sigmoid", "Tanh"}, run_gru},
    {"LSTM", 4, 3, {"Sigmoid", "Tanh", "Tanh"}, run_lstm},
};

static const cell *find_cell(const sdx_node *node)
{
    const cell *c = cells;
    while (strcmp(c->op, node->op_type)) c++; /* the rows below name no other */
    return c;
}

/* ---- infer ------------------------------------------------------------------------------------------- */

static sdx_status read_direction(const sdx_node *node, recurrent *out, sdx_error *err)
{
    const char *d = sdx_node_string(node, "direction", "forward");
    out->reverse = !strcmp(d, "reverse");
    out->directions = !strcmp(d, "bidirectional") ? 2 : 1;
    if (out->reverse || out->directions == 2 || !strcmp(d, "forward")) return SDX_OK;
    return sdx_fail(err, SDX_ERR_FILE, "direction is \"%.40s\", but must be forward, reverse or bidirectional",
                    d);
}

static sdx_status want_shape(const sdx_infer *x, int i, const char *name, int rank, const sdx_dim *dim)
{
    TRY(sdx_want_rank(x, i, name, rank, rank));
    for (int d = 0; d < rank; d++) TRY(sdx_want_dim(x, i, name, d, dim[d]));
    return SDX_OK;
}

static sdx_status want_types(const sdx_infer *x)
{
    static const char *const name[] = {"X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"};
    TRY(sdx_want_dtype(x, X, "X", SDX_SET_FLOAT));
    for (int i = W; i < x->n_in; i++) {
        if (i == LENS)
            TRY(sdx_want_dtype(x, i, name[i], SDX_SET(SDX_I32)));
        else
            TRY(sdx_want_same_dtype(x, i, name[i], X, "X"));
    }
    return SDX_OK;
}

static sdx_status want_shapes(const sdx_infer *x, const cell *c, sdx_dim directions, sdx_dim batch,
                              sdx_dim hidden, bool batch_first)
{
    sdx_dim input = sdx_type_dim(&x->in[X], 2), known = sdx_dim_is_known(hidden), n = c->gates * hidden;
    sdx_dim gates = known ? n : SDX_DIM_UNKNOWN, biases = known ? 2 * n : SDX_DIM_UNKNOWN;
    TRY(want_shape(x, W, "W", 3, (sdx_dim[]){directions, gates, input}));
    TRY(want_shape(x, R, "R", 3, (sdx_dim[]){directions, gates, hidden}));
    TRY(want_shape(x, BIAS, "B", 2, (sdx_dim[]){directions, biases}));
    TRY(want_shape(x, LENS, "sequence_lens", 1, &batch));
    for (int i = INITIAL_H; i <= INITIAL_C; i++)
        TRY(want_shape(
            x, i, i == INITIAL_H ? "initial_h" : "initial_c", 3,
            (sdx_dim[]){batch_first ? batch : directions, batch_first ? directions : batch, hidden}));
    TRY(want_shape(x, PEEPHOLES, "P", 2, (sdx_dim[]){directions, known ? 3 * hidden : SDX_DIM_UNKNOWN}));
    if (hidden == 0 || input == 0)
        return sdx_fail(x->err, SDX_ERR_USAGE, "input and hidden size must not be 0");
    return SDX_OK;
}

static sdx_status infer_recurrent(sdx_infer *x)
{
    recurrent state;
    TRY(read_direction(x->node, &state, x->err));
    TRY(want_types(x));
    TRY(sdx_want_rank(x, X, "X", 3, 3));
    bool batch_first = sdx_node_int(x->node, "layout", 0) != 0;
    sdx_dim hidden = sdx_type_dim(&x->in[R], 2), d = state.directions;
    if (!sdx_dim_is_known(hidden))
        hidden = sdx_dim_merge(hidden, sdx_node_int(x->node, "hidden_size", SDX_DIM_UNKNOWN));
    if (hidden < 0) hidden = SDX_DIM_UNKNOWN;
    if (hidden > INT32_MAX)
        return sdx_fail(x->err, SDX_ERR_USAGE, "the hidden size %lld is absurd", (long long)hidden);
    sdx_dim steps = sdx_type_dim(&x->in[X], batch_first), batch = sdx_type_dim(&x->in[X], !batch_first);
    TRY(want_shapes(x, find_cell(x->node), d, batch, hidden, batch_first));
    sdx_shape y = {.rank = 4, .dim = {steps, d, batch, hidden}}, last = {.rank = 3, .dim = {d, batch, hidden}};
    if (batch_first) {
        y = (sdx_shape){.rank = 4, .dim = {batch, steps, d, hidden}};
        last = (sdx_shape){.rank = 3, .dim = {batch, d, hidden}};
    }
    sdx_infer_set(x, 0, x->in[X].dtype, &y);
    sdx_infer_set(x, 1, x->in[X].dtype, &last);
    sdx_infer_set(x, 2, x->in[X].dtype, &last);
    return SDX_OK;
}

/* ---- prepare ----------------------------------------------------------------------------------------- */

static sdx_status find_function(const char *name, const function **out, sdx_error *err)
{
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        if (!strcasecmp(functions[i].name, name)) {
            *out = &functions[i];
            return SDX_OK;
        }
    return sdx_fail(err, SDX_ERR_FILE, "\"%.40s\" is no activation of a recurrent cell", name);
}

/* The next number of the list when the function has this parameter. */
static float take(const sdx_attr *list, size_t *at, float missing)
{
    if (isnan(missing) || !list || *at >= list->count || !list->floats) return missing;
    return list->floats[(*at)++];
}

static sdx_status read_activations(const sdx_node *node, recurrent *s, sdx_error *err)
{
    const sdx_attr *names = sdx_node_attr(node, "activations");
    const sdx_attr *alpha = sdx_node_attr(node, "activation_alpha"),
                   *beta = sdx_node_attr(node, "activation_beta");
    size_t per = (size_t)s->cell->activations, alphas = 0, betas = 0;
    bool given = names && names->strings && names->count;
    /* RNN's schema lists two default names for its one or two directions. */
    if (given && names->count < per * (size_t)s->directions)
        return sdx_fail(err, SDX_ERR_FILE, "%zu activations are given; %zu are needed", names->count,
                        per * (size_t)s->directions);
    for (int d = 0; d < s->directions; d++)
        for (size_t i = 0; i < per; i++) {
            activation *a = &s->activation[d][i];
            TRY(find_function(given ? names->strings[(size_t)d * per + i] : s->cell->usual[i], &a->function,
                              err));
            a->alpha = take(alpha, &alphas, a->function->alpha);
            a->beta = take(beta, &betas, a->function->beta);
        }
    return SDX_OK;
}

static sdx_status prepare_recurrent(sdx_prepare *p)
{
    recurrent *s;
    PREPARE_STATE(p, s);
    s->cell = find_cell(p->node);
    s->batch_first = sdx_node_int(p->node, "layout", 0) != 0;
    s->input_forget = sdx_node_int(p->node, "input_forget", 0) != 0;
    s->linear_before_reset = sdx_node_int(p->node, "linear_before_reset", 0) != 0;
    const sdx_attr *clip = sdx_node_attr(p->node, "clip");
    s->clip = clip ? clip->f : INFINITY;
    if (!(s->clip >= 0)) return sdx_fail(p->err, SDX_ERR_FILE, "clip is %g, but must not be negative", s->clip);
    TRY(read_direction(p->node, s, p->err));
    return read_activations(p->node, s, p->err);
}

/* ---- memory ------------------------------------------------------------------------------------------ */

typedef struct sizes {
    int64_t steps, batch, input, hidden, gates; /* gates: G*H */
} sizes;

static sizes find_sizes(const recurrent *s, const sdx_shape *x, const sdx_shape *r)
{
    return (sizes){x->dim[s->batch_first], x->dim[!s->batch_first], x->dim[2], r->dim[2],
                   s->cell->gates * r->dim[2]};
}

/* The parts of the workspace: of base NULL only the total is of use. Weights are packed once per direction and
 * run, which costs about as much as two of the steps. */
typedef struct memory {
    float *wide[PEEPHOLES + 1]; /* inputs as float32, where they are not */
    float *w, *r, *r_last, *product, *bias, *gates, *h, *c, *extra;
} memory;

static bool part(char *base, size_t *at, size_t count, size_t each, float **out)
{
    *out = base ? (float *)(void *)(base + *at) : NULL;
    return sdx_workspace_add(at, count, each);
}

static bool lay_out(const sdx_kernels *k, const sizes *z, sdx_dtype dtype, const int64_t *count, int n_in,
                    char *base, memory *m, size_t *total)
{
    size_t f = sizeof(float), rows, product, state = (size_t)z->batch * (size_t)z->hidden;
    size_t (*packed)(int64_t, int64_t) = k->gemm_f32.packed_bytes;
    bool fits = sdx_mul_size((size_t)z->steps, (size_t)z->batch, &rows) &&
                sdx_mul_size(rows, (size_t)z->gates, &product) &&
                sdx_mul_size((size_t)z->batch, (size_t)z->hidden, &state);
    *total = 0;
    for (int i = 0; fits && i < n_in && dtype != SDX_F32; i++)
        if (i != LENS) fits = part(base, total, (size_t)count[i], f, &m->wide[i]);
    return fits && part(base, total, packed(z->input, z->gates), 1, &m->w) &&
           part(base, total, packed(z->hidden, z->gates), 1, &m->r) &&
           part(base, total, packed(z->hidden, z->hidden), 1, &m->r_last) &&
           part(base, total, product, f, &m->product) && part(base, total, (size_t)z->gates, f, &m->bias) &&
           part(base, total, state * (size_t)(z->gates / z->hidden), f, &m->gates) &&
           part(base, total, state, f, &m->h) && part(base, total, state, f, &m->c) &&
           part(base, total, state, f, &m->extra);
}

static sdx_status plan_recurrent(sdx_plan_step *p)
{
    const recurrent *s = p->state;
    sizes z = find_sizes(s, &p->in[X].shape, &p->in[R].shape);
    int64_t count[PEEPHOLES + 1] = {0};
    memory m;
    for (int i = 0; i < p->n_in; i++)
        if (sdx_node_in(p->node, i) != SDX_NONE) count[i] = sdx_shape_count(&p->in[i].shape);
    if (!lay_out(p->kernels, &z, p->in[X].dtype, count, p->n_in, NULL, &m, &p->workspace))
        return sdx_workspace_fail(p->err);
    return SDX_OK;
}

/* ---- run --------------------------------------------------------------------------------------------- */

typedef struct call {
    const sdx_run *run;
    const recurrent *state;
    sizes z;
    memory m;
    const float *in[PEEPHOLES + 1]; /* NULL when absent */
} call;

static void load_inputs(call *c)
{
    const sdx_run *r = c->run;
    for (int i = 0; i < r->n_in; i++) {
        if (i == LENS || !sdx_run_has_in(r, i)) continue;
        c->in[i] = r->in[i].data;
        if (r->in[i].dtype == SDX_F32) continue;
        sdx_floats_load(r->kernels, r->in[i].dtype, r->in[i].data, 0, sdx_tensor_count(&r->in[i]),
                        c->m.wide[i]);
        c->in[i] = c->m.wide[i];
    }
}

static int64_t length_of(const call *c, int64_t b)
{
    return sdx_run_has_in(c->run, LENS) ? sdx_tensor_get_i64(&c->run->in[LENS], b) : c->z.steps;
}

static sdx_status check_lengths(const call *c)
{
    for (int64_t b = 0; b < c->z.batch; b++) {
        int64_t n = length_of(c, b);
        if (n < 0 || n > c->z.steps)
            return sdx_fail(c->run->err, SDX_ERR_USAGE, "sequence_lens[%lld] is %lld, outside [0, %lld]",
                            (long long)b, (long long)n, (long long)c->z.steps);
    }
    return SDX_OK;
}

/* Row of X and of the product for step t of sequence b. */
static int64_t row_of(const call *c, int64_t t, int64_t b)
{
    return c->state->batch_first ? b * c->z.steps + t : t * c->z.batch + b;
}

/* Element of the initial and last states for direction d and sequence b. */
static int64_t state_at(const call *c, int d, int64_t b)
{
    return (c->state->batch_first ? b * c->state->directions + d : d * c->z.batch + b) * c->z.hidden;
}

/* W's and R's bias are added together, but for the last gate of a GRU that resets after the product. */
static void add_biases(const call *c, int d)
{
    const float *b = c->in[BIAS] ? c->in[BIAS] + d * 2 * c->z.gates : NULL;
    bool apart = c->state->cell->gates == 3 && c->state->linear_before_reset;
    for (int64_t i = 0; i < c->z.gates; i++) {
        c->m.bias[i] = b ? b[i] : 0;
        if (b && !(apart && i >= 2 * c->z.hidden)) c->m.bias[i] += b[c->z.gates + i];
    }
}

static void pack(const call *c, const float *b, int64_t k, int64_t n, float *to)
{
    sdx_gemm_f32_pack(&c->run->kernels->gemm_f32, c->run->threads, k, n, b, 1, k, 1.0f, to);
}

/* Everything that does not wait for the state: packing, biases, X times W. */
static void begin_direction(const call *c, int d, step *s)
{
    const sizes *z = &c->z;
    bool gru = c->state->cell->gates == 3;
    const float *r = c->in[R] + d * z->gates * z->hidden;
    pack(c, c->in[W] + d * z->gates * z->input, z->input, z->gates, c->m.w);
    pack(c, r, z->hidden, gru ? 2 * z->hidden : z->gates, c->m.r);
    if (gru) pack(c, r + 2 * z->hidden * z->hidden, z->hidden, z->hidden, c->m.r_last);
    add_biases(c, d);
    sdx_gemm_f32_job job = {.gemm = &c->run->kernels->gemm_f32,
                            .threads = c->run->threads,
                            .m = z->steps * z->batch,
                            .n = z->gates,
                            .k = z->input,
                            .a = c->in[X],
                            .lda = z->input,
                            .packed = c->m.w,
                            .bias = c->m.bias,
                            .activation = SDX_ACT_NONE,
                            .c = c->m.product,
                            .ldc = z->gates};
    sdx_gemm_f32_run(&job);
    *s = (step){.run = c->run,
                .state = c->state,
                .activation = c->state->activation[d],
                .batch = z->batch,
                .hidden = z->hidden,
                .r = c->m.r,
                .r_last = c->m.r_last,
                .gates = c->m.gates,
                .h = c->m.h,
                .c = c->m.c,
                .extra = c->m.extra};
    if (c->in[BIAS] && gru)
        s->r_bias = c->in[BIAS] + d * 2 * z->gates + z->gates + 2 * z->hidden;
    else
        s->r_bias =
            memset(c->m.bias, 0, (size_t)z->hidden * sizeof(float)); /* the GEMM above is done with it */
    s->peephole = c->in[PEEPHOLES] ? c->in[PEEPHOLES] + d * 3 * z->hidden : NULL;
}

static void load_states(const call *c, int d)
{
    size_t row = (size_t)c->z.hidden * sizeof(float);
    float *to[2] = {c->m.h, c->m.c};
    for (int64_t b = 0; b < c->z.batch; b++)
        for (int i = 0; i < 2; i++) {
            const float *from = c->in[INITIAL_H + i];
            if (from)
                memcpy(to[i] + b * c->z.hidden, from + state_at(c, d, b), row);
            else
                memset(to[i] + b * c->z.hidden, 0, row);
        }
}

/* A sequence that has ended keeps the state it ended with. */
static void store_last(const call *c, int d, int64_t b)
{
    const float *from[2] = {c->m.h, c->m.c};
    for (int i = 0; i < 2; i++)
        if (sdx_run_has_out(c->run, 1 + i))
            sdx_floats_store(c->run->out[1 + i].dtype, from[i] + b * c->z.hidden, c->z.hidden,
                             c->run->out[1 + i].data, state_at(c, d, b));
}

static void store_step(const call *c, int d, int64_t t, int64_t b, const float *h)
{
    if (!sdx_run_has_out(c->run, 0)) return;
    int64_t directions = c->state->directions;
    int64_t row =
        c->state->batch_first ? (b * c->z.steps + t) * directions + d : (t * directions + d) * c->z.batch + b;
    sdx_tensor *y = &c->run->out[0];
    size_t bytes = (size_t)c->z.hidden * sdx_dtype_size(y->dtype);
    if (h)
        sdx_floats_store(y->dtype, h, c->z.hidden, y->data, row * c->z.hidden);
    else
        memset((char *)y->data + (size_t)row * bytes, 0, bytes);
}

static void run_direction(const call *c, int d)
{
    step s;
    begin_direction(c, d, &s);
    load_states(c, d);
    bool backwards = c->state->reverse || d == 1;
    size_t row = (size_t)c->z.gates * sizeof(float);
    for (int64_t b = 0; b < c->z.batch; b++)
        if (length_of(c, b) == 0) store_last(c, d, b);
    for (int64_t i = 0; i < c->z.steps; i++) {
        for (int64_t b = 0; b < c->z.batch; b++) {
            int64_t n = length_of(c, b), t = i < n && backwards ? n - 1 - i : i;
            memcpy(s.gates + b * c->z.gates, c->m.product + row_of(c, t, b) * c->z.gates, row);
        }
        c->state->cell->run(&s);
        for (int64_t b = 0; b < c->z.batch; b++) {
            int64_t n = length_of(c, b), t = i < n && backwards ? n - 1 - i : i;
            store_step(c, d, t, b, i < n ? s.h + b * c->z.hidden : NULL);
            if (i == n - 1) store_last(c, d, b);
        }
    }
}

static sdx_status run_recurrent(sdx_run *r)
{
    call c = {.run = r, .state = r->state};
    sdx_shape x = sdx_run_shape(r, X), weights = sdx_run_shape(r, R);
    c.z = find_sizes(c.state, &x, &weights);
    int64_t count[PEEPHOLES + 1] = {0};
    size_t total;
    for (int i = 0; i < r->n_in; i++)
        if (sdx_run_has_in(r, i)) count[i] = sdx_tensor_count(&r->in[i]);
    if (!lay_out(r->kernels, &c.z, r->in[X].dtype, count, r->n_in, r->workspace, &c.m, &total))
        return sdx_workspace_fail(r->err);
    load_inputs(&c);
    TRY(check_lengths(&c));
    for (int d = 0; d < c.state->directions; d++) run_direction(&c, d);
    return SDX_OK;
}

#define CELL(name, most_in, most_out)                                                                          \
    {                                                                                                          \
        "", name, 7, 0, 3, most_in, 0, most_out, 0, infer_recurrent, prepare_recurrent, plan_recurrent,        \
            run_recurrent                                                                                      \
    }
static const sdx_op_def rows[] = {
    CELL("RNN", 6, 2),
    CELL("GRU", 6, 2),
    CELL("LSTM", 8, 3),
};

SDX_OP_TABLE(recurrent);
