/* recurrent.c: RNN, GRU and LSTM. The products of all inputs with W are one GEMM before the loop; a time step
 * is then the product of the state with R, added to the step's share of that GEMM, and the cell's elementwise
 * part. Everything is computed in float32; other float types are converted at the edges.
 *
 * T steps, B sequences, I inputs, H hidden, D directions, G gates: X [T,B,I] or, with layout 1, [B,T,I];
 * W [D,G*H,I]  R [D,G*H,H]  bias [D,2*G*H]  lens [B]  initial h and c [D,B,H]  peepholes [D,3*H].
 *
 * DynamicQuantizeLSTM of ONNX Runtime has bytes W [D,I,G*H] and R [D,H,G*H], a scale and a zero point [D] or [D,G*H] of
 * each. X as a whole and the state of each step are rounded as DynamicQuantizeLinear does; the products of what is
 * rounded are then those of the same loop, in float32. */
#include <math.h>
#include <string.h>

#include "contents.h"
#include "recurrent.h"

enum { X, W, R, BIAS, LENS, INITIAL_H, INITIAL_C, PEEPHOLES, W_SCALE, W_ZERO, R_SCALE, R_ZERO };

/* ---- infer ------------------------------------------------------------------------------------------- */

static sdx_status read_direction(const sdx_node *node, sdx_recurrent *out, sdx_error *err)
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
    bool rounded = sdx_cell_find(x->node)->rounded;
    TRY(sdx_want_dtype(x, X, "X", rounded ? SDX_SET(SDX_F32) : SDX_SET_FLOAT));
    for (int i = W; i < x->n_in && i <= PEEPHOLES; i++) {
        if (i == LENS)
            TRY(sdx_want_dtype(x, i, name[i], SDX_SET(SDX_I32)));
        else if (rounded && i <= R)
            TRY(sdx_want_dtype(x, i, name[i], SDX_SET(SDX_I8) | SDX_SET(SDX_U8)));
        else
            TRY(sdx_want_same_dtype(x, i, name[i], X, "X"));
    }
    return SDX_OK;
}

/* A scale and a zero point of a matrix of bytes: [D] or [D, G*H] each. */
static sdx_status want_rounding(const sdx_infer *x, int scale, int matrix, sdx_dim directions, sdx_dim gates)
{
    const char *name = matrix == W ? "W_scale" : "R_scale", *zero = matrix == W ? "W_zero_point" : "R_zero_point";
    if (sdx_node_in(x->node, scale) == SDX_NONE || sdx_node_in(x->node, scale + 1) == SDX_NONE)
        return sdx_fail(x->err, SDX_ERR_FILE, "%s and %s must be given", name, zero);
    TRY(sdx_want_dtype(x, scale, name, SDX_SET(SDX_F32)));
    TRY(sdx_want_same_dtype(x, scale + 1, zero, matrix, matrix == W ? "W" : "R"));
    for (int i = scale; i <= scale + 1; i++) {
        TRY(sdx_want_rank(x, i, i == scale ? name : zero, 1, 2));
        TRY(want_shape(x, i, i == scale ? name : zero, x->in[i].shape.rank, (sdx_dim[]){directions, gates}));
    }
    return SDX_OK;
}

static sdx_status want_shapes(const sdx_infer *x, const sdx_cell *c, sdx_dim directions, sdx_dim batch,
                              sdx_dim hidden, bool batch_first)
{
    sdx_dim input = sdx_type_dim(&x->in[X], 2), known = sdx_dim_is_known(hidden), n = c->gates * hidden;
    sdx_dim gates = known ? n : SDX_DIM_UNKNOWN, biases = known ? 2 * n : SDX_DIM_UNKNOWN;
    TRY(want_shape(x, W, "W", 3, (sdx_dim[]){directions, c->rounded ? input : gates, c->rounded ? gates : input}));
    TRY(want_shape(x, R, "R", 3, (sdx_dim[]){directions, c->rounded ? hidden : gates, c->rounded ? gates : hidden}));
    if (c->rounded) {
        TRY(want_rounding(x, W_SCALE, W, directions, gates));
        TRY(want_rounding(x, R_SCALE, R, directions, gates));
    }
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
    sdx_recurrent state;
    TRY(read_direction(x->node, &state, x->err));
    TRY(want_types(x));
    TRY(sdx_want_rank(x, X, "X", 3, 3));
    bool batch_first = sdx_node_int(x->node, "layout", 0) != 0;
    sdx_dim hidden = sdx_type_dim(&x->in[R], sdx_cell_find(x->node)->rounded ? 1 : 2), d = state.directions;
    if (!sdx_dim_is_known(hidden))
        hidden = sdx_dim_merge(hidden, sdx_node_int(x->node, "hidden_size", SDX_DIM_UNKNOWN));
    if (hidden < 0) hidden = SDX_DIM_UNKNOWN;
    if (hidden > INT32_MAX)
        return sdx_fail(x->err, SDX_ERR_USAGE, "the hidden size %lld is absurd", (long long)hidden);
    sdx_dim steps = sdx_type_dim(&x->in[X], batch_first), batch = sdx_type_dim(&x->in[X], !batch_first);
    TRY(want_shapes(x, sdx_cell_find(x->node), d, batch, hidden, batch_first));
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

/* The next number of the list when the function has this parameter. */
static float take(const sdx_attr *list, size_t *at, float missing)
{
    if (isnan(missing) || !list || *at >= list->count || !list->floats) return missing;
    return list->floats[(*at)++];
}

static sdx_status read_activations(const sdx_node *node, sdx_recurrent *s, sdx_error *err)
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
            sdx_cell_activation *a = &s->activation[d][i];
            TRY(sdx_cell_find_function(given ? names->strings[(size_t)d * per + i] : s->cell->usual[i], &a->function,
                              err));
            a->alpha = take(alpha, &alphas, a->function->alpha);
            a->beta = take(beta, &betas, a->function->beta);
        }
    return SDX_OK;
}

static sdx_status prepare_recurrent(sdx_prepare *p)
{
    sdx_recurrent *s;
    PREPARE_STATE(p, s);
    s->cell = sdx_cell_find(p->node);
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

static sizes find_sizes(const sdx_recurrent *s, const sdx_shape *x, const sdx_shape *r)
{
    int64_t hidden = r->dim[s->cell->rounded ? 1 : 2];
    return (sizes){x->dim[s->batch_first], x->dim[!s->batch_first], x->dim[2], hidden, s->cell->gates * hidden};
}

/* The parts of the workspace: of base NULL only the total is of use. Weights are packed once per direction and
 * run, which costs about as much as two of the steps. */
typedef struct memory {
    float *wide[PEEPHOLES + 1]; /* inputs as float32, where they are not */
    float *w, *r, *r_last, *product, *bias, *gates, *h, *c, *extra, *bytes; /* bytes: of X or of a state */
} memory;

static bool part(char *base, size_t *at, size_t count, size_t each, float **out)
{
    *out = base ? (float *)(void *)(base + *at) : NULL;
    return sdx_workspace_add(at, count, each);
}

/* Whether the loop sees a copy of input i. */
static bool is_widened(const sdx_cell *c, sdx_dtype dtype, int i)
{
    return i != LENS && (dtype != SDX_F32 || (c->rounded && i <= R));
}

static bool lay_out(const sdx_kernels *k, const sdx_cell *c, const sizes *z, sdx_dtype dtype, const int64_t *count,
                    int n_in, char *base, memory *m, size_t *total)
{
    size_t f = sizeof(float), rows, product, state = (size_t)z->batch * (size_t)z->hidden;
    size_t (*packed)(int64_t, int64_t) = k->gemm_f32.packed_bytes;
    bool fits = sdx_mul_size((size_t)z->steps, (size_t)z->batch, &rows) &&
                sdx_mul_size(rows, (size_t)z->gates, &product) &&
                sdx_mul_size((size_t)z->batch, (size_t)z->hidden, &state);
    *total = 0;
    for (int i = 0; fits && i < n_in && i <= PEEPHOLES; i++)
        if (is_widened(c, dtype, i)) fits = part(base, total, (size_t)count[i], f, &m->wide[i]);
    return fits && part(base, total, packed(z->input, z->gates), 1, &m->w) &&
           part(base, total, packed(z->hidden, z->gates), 1, &m->r) &&
           part(base, total, packed(z->hidden, z->hidden), 1, &m->r_last) &&
           part(base, total, product, f, &m->product) && part(base, total, (size_t)z->gates, f, &m->bias) &&
           part(base, total, state * (size_t)(z->gates / z->hidden), f, &m->gates) &&
           part(base, total, state, f, &m->h) && part(base, total, state, f, &m->c) &&
           part(base, total, state, f, &m->extra) &&
           (!c->rounded || part(base, total, (size_t)count[X] > state ? (size_t)count[X] : state, 1, &m->bytes));
}

static sdx_status plan_recurrent(sdx_plan_step *p)
{
    const sdx_recurrent *s = p->state;
    sizes z = find_sizes(s, &p->in[X].shape, &p->in[R].shape);
    int64_t count[PEEPHOLES + 1] = {0};
    memory m;
    for (int i = 0; i < p->n_in && i <= PEEPHOLES; i++)
        if (sdx_node_in(p->node, i) != SDX_NONE) count[i] = sdx_shape_count(&p->in[i].shape);
    if (!lay_out(p->kernels, s->cell, &z, p->in[X].dtype, count, p->n_in, NULL, &m, &p->workspace))
        return sdx_workspace_fail(p->err);
    return SDX_OK;
}

/* ---- run --------------------------------------------------------------------------------------------- */

typedef struct call {
    const sdx_run *run;
    const sdx_recurrent *state;
    sizes z;
    memory m;
    const float *in[PEEPHOLES + 1]; /* NULL when absent */
} call;

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

/* The bytes q [D, K, G*H] of input i to floats [D, G*H, K]. */
static void load_matrix(const call *c, int i, int scale, int64_t K)
{
    const sdx_tensor *q = &c->run->in[i], *zero = &c->run->in[scale + 1];
    const float *factor = c->run->in[scale].data;
    int64_t gates = c->z.gates, count = sdx_tensor_count(q);
    bool per_gate = c->run->in[scale].rank == 2, zero_per_gate = zero->rank == 2;
    for (int64_t at = 0; at < count; at++) { /* at: in the result */
        int64_t k = at % K, g = at / K % gates, d = at / (K * gates);
        int64_t code = sdx_tensor_get_i64(q, (d * K + k) * gates + g) -
                       sdx_tensor_get_i64(zero, zero_per_gate ? d * gates + g : d);
        c->m.wide[i][at] = (float)code * factor[per_gate ? d * gates + g : d];
    }
}

/* The range of X is that of the steps any sequence has. */
static void load_rounded(call *c)
{
    const sdx_run *r = c->run;
    int64_t count = sdx_tensor_count(&r->in[X]), longest = 0;
    for (int64_t b = 0; b < c->z.batch; b++) longest = length_of(c, b) > longest ? length_of(c, b) : longest;
    int64_t used = longest * c->z.batch * c->z.input;
    sdx_cell_round(r, used, r->in[X].data, (uint8_t *)c->m.bytes, c->m.wide[X]);
    memset(c->m.wide[X] + used, 0, (size_t)(count - used) * sizeof(float));
    load_matrix(c, W, W_SCALE, c->z.input);
    load_matrix(c, R, R_SCALE, c->z.hidden);
    for (int i = X; i <= R; i++) c->in[i] = c->m.wide[i];
}

static void load_inputs(call *c)
{
    const sdx_run *r = c->run;
    for (int i = 0; i < r->n_in && i <= PEEPHOLES; i++) {
        if (i == LENS || !sdx_run_has_in(r, i)) continue;
        c->in[i] = r->in[i].data;
        if (r->in[i].dtype == SDX_F32 || (c->state->cell->rounded && i <= R)) continue;
        sdx_floats_load(r->kernels, r->in[i].dtype, r->in[i].data, 0, sdx_tensor_count(&r->in[i]),
                        c->m.wide[i]);
        c->in[i] = c->m.wide[i];
    }
    if (c->state->cell->rounded) load_rounded(c);
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
static void begin_direction(const call *c, int d, sdx_cell_step *s)
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
    *s = (sdx_cell_step){.run = c->run,
                .state = c->state,
                .activation = c->state->activation[d],
                .batch = z->batch,
                .hidden = z->hidden,
                .r = c->m.r,
                .r_last = c->m.r_last,
                .gates = c->m.gates,
                .h = c->m.h,
                .c = c->m.c,
                .extra = c->m.extra,
                .bytes = c->state->cell->rounded ? (uint8_t *)c->m.bytes : NULL};
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
    sdx_cell_step s;
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
            /* As in ONNX Runtime, a sequence that has ended counts as 0 in the states' range, one step later. */
            if (s.bytes && i >= n) memset(s.h + b * c->z.hidden, 0, (size_t)c->z.hidden * sizeof(float));
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
    for (int i = 0; i < r->n_in && i <= PEEPHOLES; i++)
        if (sdx_run_has_in(r, i)) count[i] = sdx_tensor_count(&r->in[i]);
    if (!lay_out(r->kernels, c.state->cell, &c.z, r->in[X].dtype, count, r->n_in, r->workspace, &c.m, &total))
        return sdx_workspace_fail(r->err);
    TRY(check_lengths(&c));
    load_inputs(&c);
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
    {"com.microsoft", "DynamicQuantizeLSTM", 1, 0, 3, 12, 0, 3, 0, infer_recurrent, prepare_recurrent, plan_recurrent,
     run_recurrent},
};

SDX_OP_TABLE(recurrent);
