/* moe.c: com.microsoft MoE and QMoE: a mixture of experts (Shazeer et al., arXiv:1701.06538), for every token
 *
 *     y = sum over the k experts e of largest router logit of  p_e * (W2_e act(W1_e x + b1_e) + b2_e)
 * with p the softmax of the logits, in QMoE and where normalize_routing_weights says so over those k alone. Of equal
 * logits ONNX Runtime takes the later expert. A third matrix is the gate's partner: act(W1 x) * W3 x. QMoE's weights
 * are integers, (q - zero) * scale by row or by block of a row; router_weights, where given, are p.
 *
 * Tokens are gathered by expert, so that a row of weights is read, and in QMoE widened, once for all that want it.
 *
 * Workspace: the choice [tokens,k] with its weights, the pairs of token and choice in the order of experts, what each
 * pair has after W1, W3, the activation and W2, and a row of weights per worker.
 */
#include <math.h>
#include <string.h>

#include "bits.h"
#include "compute.h"
#include "contents.h"

enum { X, ROUTER };
enum { FC1, FC2, FC3, LAYERS };

typedef struct places { /* input numbers, -1: the operator has none */
    int weight[LAYERS], scale[LAYERS], bias[LAYERS], zero[LAYERS], mix, refused;
} places;

static const places places_moe = {{2, 4, 6}, {-1, -1, -1}, {3, 5, 7}, {-1, -1, -1}, -1, 8};
static const places places_qmoe = {{2, 5, 8}, {3, 6, 9}, {4, 7, 10}, {11, 12, 13}, 14, 15};

typedef enum activation { RELU, GELU, SILU, SWIGLU, IDENTITY } activation;
static const char *const activation_name[] = {"relu", "gelu", "silu", "swiglu", "identity"};

typedef struct moe {
    const places *at;
    activation activation;
    int64_t k, block, fusion; /* block 0: a scale for each row */
    int bits[LAYERS];         /* QMoE; else 0 */
    bool normalize;
    float alpha, beta, limit;
} moe;

/* ---- infer ----------------------------------------------------------------------------------------------- */

static sdx_status read_activation(const sdx_node *n, moe *m, sdx_error *err)
{
    const char *name = sdx_node_string(n, "activation_type", "relu");
    for (m->activation = RELU; m->activation <= IDENTITY; m->activation++)
        if (!strcmp(name, activation_name[m->activation])) return SDX_OK;
    return sdx_fail(err, SDX_ERR_FILE, "activation_type \"%.40s\" is not known; known are relu, gelu, silu, swiglu and "
                    "identity", name);
}

static sdx_status read_format(const sdx_node *n, moe *m, sdx_error *err)
{
    static const char *const name[] = {"fc1_expert_weight_bits", "fc2_expert_weight_bits", "fc3_expert_weight_bits"};
    const char *type = sdx_node_string(n, "quant_type", "int");
    if (strcmp(type, "int"))
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "quant_type \"%.40s\" is not supported, only int", type);
    if (sdx_node_int(n, "weights_prepacked", -1) > 0)
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "weights packed for a GPU are not supported");
    m->block = sdx_node_int(n, "block_size", 0) > 0 ? sdx_node_int(n, "block_size", 0) : 0;
    for (int i = 0; i < LAYERS; i++) {
        int64_t bits = sdx_node_int(n, name[i], 0) ? sdx_node_int(n, name[i], 0) : sdx_node_int(n, "expert_weight_bits", 4);
        if (bits != 2 && bits != 4 && bits != 8)
            return sdx_fail(err, SDX_ERR_UNSUPPORTED, "weights of %lld bits are not known; known are 2, 4 and 8",
                            (long long)bits);
        m->bits[i] = (int)bits;
    }
    return SDX_OK;
}

static sdx_status read_attributes(const sdx_node *n, const places *at, moe *m, sdx_error *err)
{
    *m = (moe){.at = at,
               .k = sdx_node_int(n, "k", 1),
               .fusion = sdx_node_int(n, "swiglu_fusion", 0),
               .normalize = sdx_node_int(n, "normalize_routing_weights", 0) != 0,
               .alpha = sdx_node_float(n, "activation_alpha", 1.0f),
               .beta = sdx_node_float(n, "activation_beta", 0.0f),
               .limit = sdx_node_float(n, "swiglu_limit", INFINITY)};
    TRY(read_activation(n, m, err));
    if (m->activation != SWIGLU) m->fusion = 0;
    if (m->k < 1 || m->fusion < 0 || m->fusion > 2)
        return sdx_fail(err, SDX_ERR_FILE, "k %lld and swiglu_fusion %lld make no sense", (long long)m->k,
                        (long long)m->fusion);
    return at == &places_qmoe ? read_format(n, m, err) : SDX_OK;
}

static sdx_status check_layer(const sdx_infer *infer, const moe *m, int layer, sdx_dim experts, sdx_dim rows, sdx_dim k)
{
    static const char *const weight[] = {"fc1_experts_weights", "fc2_experts_weights", "fc3_experts_weights"},
                      *const scale[] = {"fc1_scales", "fc2_scales", "fc3_scales"},
                      *const bias[] = {"fc1_experts_bias", "fc2_experts_bias", "fc3_experts_bias"},
                      *const zero[] = {"fc1_zero_points", "fc2_zero_points", "fc3_zero_points"};
    const places *at = m->at;
    int w = at->weight[layer], s = at->scale[layer], b = at->bias[layer], z = at->zero[layer], bits = m->bits[layer];
    int64_t parts = bits ? 8 / bits : 1, blocks = m->block && k >= 0 ? k / m->block : 1;
    TRY(sdx_want_rank(infer, w, weight[layer], 3, 3));
    TRY(sdx_want_dim(infer, w, weight[layer], 0, experts));
    TRY(sdx_want_dim(infer, w, weight[layer], 1, rows));
    TRY(sdx_want_rank(infer, b, bias[layer], 2, 2));
    TRY(sdx_want_same_dtype(infer, b, bias[layer], X, "the input"));
    TRY(sdx_want_dim(infer, b, bias[layer], 0, experts));
    TRY(sdx_want_dim(infer, b, bias[layer], 1, rows));
    if (k < 0) return SDX_OK;
    if (k % parts || (m->block && k % m->block))
        return sdx_fail(infer->err, SDX_ERR_USAGE, "rows of %lld weights are not whole bytes and blocks", (long long)k);
    TRY(sdx_want_dim(infer, w, weight[layer], 2, k / parts));
    if (!bits) return sdx_want_same_dtype(infer, w, weight[layer], X, "the input");
    if (sdx_infer_has(infer, w)) TRY(sdx_want_present(infer, s, scale[layer]));
    TRY(sdx_want_dtype(infer, w, weight[layer], SDX_SET(SDX_U8)));
    TRY(sdx_want_same_dtype(infer, s, scale[layer], X, "the input"));
    TRY(sdx_want_dtype(infer, z, zero[layer], SDX_SET(SDX_U8)));
    for (int i = 0; i < 2; i++) {
        int input = i ? z : s, rank = m->block ? 3 : 2;
        const char *name = (i ? zero : scale)[layer];
        TRY(sdx_want_rank(infer, input, name, rank, rank));
        TRY(sdx_want_dim(infer, input, name, 0, experts));
        if (m->block || !i) TRY(sdx_want_dim(infer, input, name, 1, rows));
        if (!m->block && i && rows >= 0) TRY(sdx_want_dim(infer, input, name, 1, (rows + parts - 1) / parts));
        if (m->block) TRY(sdx_want_dim(infer, input, name, 2, i ? (blocks + parts - 1) / parts : blocks));
    }
    return SDX_OK;
}

static sdx_status check_gate(const sdx_infer *infer, const moe *m)
{
    bool third = sdx_infer_has(infer, m->at->weight[FC3]);
    if (m->activation == SWIGLU && third == (m->fusion != 0))
        return sdx_fail(infer->err, SDX_ERR_FILE, "swiglu takes either fc3_experts_weights or swiglu_fusion 1 or 2");
    for (int i = m->at->refused; i < infer->n_in; i++)
        if (sdx_infer_has(infer, i))
            return sdx_fail(infer->err, SDX_ERR_UNSUPPORTED, "scales of activations (input %d) are not supported", i);
    return SDX_OK;
}

/* Rows of the input, unknown where one of its sizes is. */
static sdx_status count_tokens(const sdx_infer *infer, sdx_dim *tokens)
{
    const sdx_shape *x = &infer->in[X].shape;
    *tokens = x->rank == 2 ? x->dim[0] : SDX_DIM_UNKNOWN;
    if (x->rank != 3 || x->dim[0] < 0 || x->dim[1] < 0) return SDX_OK;
    if (!__builtin_mul_overflow(x->dim[0], x->dim[1], tokens)) return SDX_OK;
    return sdx_fail(infer->err, SDX_ERR_USAGE, "the input has too many tokens");
}

static sdx_status infer_experts(sdx_infer *infer, const places *at)
{
    moe m;
    TRY(read_attributes(infer->node, at, &m, infer->err));
    TRY(sdx_want_present(infer, at->weight[FC2], "fc2_experts_weights"));
    TRY(check_gate(infer, &m));
    TRY(sdx_want_dtype(infer, X, "the input", SDX_SET(SDX_F32)));
    TRY(sdx_want_rank(infer, X, "the input", 2, 3));
    TRY(sdx_want_same_dtype(infer, ROUTER, "router_probs", X, "the input"));
    sdx_dim tokens;
    TRY(count_tokens(infer, &tokens));
    sdx_dim hidden = sdx_type_dim(&infer->in[X], -1), experts = sdx_type_dim(&infer->in[at->weight[FC1]], 0);
    sdx_dim rows = sdx_type_dim(&infer->in[at->weight[FC1]], 1);
    for (int i = 0; i < 2; i++) {
        int input = i ? at->mix : ROUTER;
        if (i && at->mix < 0) continue;
        const char *name = i ? "router_weights" : "router_probs";
        TRY(sdx_want_rank(infer, input, name, 2, 2));
        TRY(sdx_want_same_dtype(infer, input, name, X, "the input"));
        if (tokens >= 0) TRY(sdx_want_dim(infer, input, name, 0, tokens));
        TRY(sdx_want_dim(infer, input, name, 1, experts));
    }
    if (experts >= 0 && m.k > experts)
        return sdx_fail(infer->err, SDX_ERR_FILE, "k is %lld, of %lld experts", (long long)m.k, (long long)experts);
    if (m.fusion && rows >= 0 && rows % 2)
        return sdx_fail(infer->err, SDX_ERR_USAGE, "%lld rows of fc1 are not pairs", (long long)rows);
    sdx_dim inter = m.fusion && rows >= 0 ? rows / 2 : m.fusion ? SDX_DIM_UNKNOWN : rows;
    TRY(check_layer(infer, &m, FC1, experts, rows, hidden));
    TRY(check_layer(infer, &m, FC2, experts, hidden, inter));
    TRY(check_layer(infer, &m, FC3, experts, rows, hidden));
    return sdx_infer_same(infer);
}

static sdx_status infer_moe(sdx_infer *infer)
{
    return infer_experts(infer, &places_moe);
}
static sdx_status infer_qmoe(sdx_infer *infer)
{
    return infer_experts(infer, &places_qmoe);
}

static sdx_status prepare_moe(sdx_prepare *p)
{
    moe *state;
    PREPARE_STATE(p, state);
    return read_attributes(p->node, &places_moe, state, p->err);
}
static sdx_status prepare_qmoe(sdx_prepare *p)
{
    moe *state;
    PREPARE_STATE(p, state);
    return read_attributes(p->node, &places_qmoe, state, p->err);
}

/* ---- plan ------------------------------------------------------------------------------------------------ */

typedef struct sizes {
    int64_t tokens, pairs, experts, hidden, rows, inter; /* rows of W1; inter of them after the activation */
} sizes;

static sizes make_sizes(const moe *m, const sdx_shape *x, const sdx_shape *w1)
{
    sizes s = {.hidden = x->dim[x->rank - 1], .experts = w1->dim[0], .rows = w1->dim[1]};
    s.tokens = x->rank == 2 ? x->dim[0] : x->dim[0] * x->dim[1];
    s.pairs = s.tokens * m->k;
    s.inter = m->fusion ? s.rows / 2 : s.rows;
    return s;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Parts of the workspace, in this order: how many elements of which size. */
enum { EXPERT, SHARE, BEGIN, PAIR, GATE, PARTNER, MIDDLE, RESULT, ROWS, PARTS };

static void size_parts(const sizes *s, int threads, bool third, size_t count[PARTS], size_t size[PARTS])
{
    const size_t pairs = (size_t)s->pairs, row = sdx_align_up((size_t)larger(s->hidden, s->inter) * sizeof(float));
    const size_t counts[PARTS] = {pairs, pairs, (size_t)s->experts + 1, pairs, pairs, third ? pairs : 0, pairs, pairs,
                                  (size_t)threads};
    const size_t sizes_of[PARTS] = {sizeof(int64_t), sizeof(float), sizeof(int64_t), sizeof(int64_t),
                                    (size_t)s->rows * sizeof(float), (size_t)s->rows * sizeof(float),
                                    (size_t)s->inter * sizeof(float), (size_t)s->hidden * sizeof(float),
                                    larger((int64_t)row, (int64_t)sdx_align_up((size_t)s->experts * sizeof(float)))};
    memcpy(count, counts, sizeof counts);
    memcpy(size, sizes_of, sizeof sizes_of);
}

static sdx_status plan_experts(sdx_plan_step *step)
{
    const moe *m = step->state;
    int third = m->at->weight[FC3];
    sizes s = make_sizes(m, &step->in[X].shape, &step->in[m->at->weight[FC1]].shape);
    size_t count[PARTS], size[PARTS];
    size_parts(&s, step->threads, third < step->n_in && step->in[third].dtype != SDX_UNDEFINED, count, size);
    bool ok = true;
    for (int i = 0; i < PARTS && ok; i++) ok = sdx_workspace_add(&step->workspace, count[i], size[i]);
    return ok ? SDX_OK : sdx_workspace_fail(step->err);
}

/* ---- routing --------------------------------------------------------------------------------------------- */

typedef struct task {
    const sdx_run *run;
    const moe *m;
    sizes s;
    int64_t *expert; /* [tokens, k] */
    float *share;    /* [tokens, k]: p */
    int64_t *begin;  /* [experts + 1] in pair */
    int64_t *pair;   /* [pairs]: token * k + choice, those of expert 0 first */
    float *gate, *partner, *middle, *result; /* [pairs, rows], [pairs, rows], [pairs, inter], [pairs, hidden] */
    char *rows;
    size_t row; /* bytes of one */
} task;

static bool is_chosen(const int64_t *chosen, int64_t count, int64_t e)
{
    for (int64_t i = 0; i < count; i++)
        if (chosen[i] == e) return true;
    return false;
}

static int64_t choose(const float *logit, int64_t experts, const int64_t *chosen, int64_t count)
{
    int64_t best = -1;
    for (int64_t e = 0; e < experts; e++)
        if (!is_chosen(chosen, count, e) && (best < 0 || logit[e] >= logit[best] || isnan(logit[best]))) best = e;
    return best;
}

/* The experts of tokens [begin, end), and their shares. */
static void route(void *context, int64_t begin, int64_t end, int worker)
{
    const task *t = context;
    const moe *m = t->m;
    const bool given = m->at->mix >= 0 && sdx_run_has_in(t->run, m->at->mix);
    const bool normalize = m->normalize || (m->at == &places_qmoe && !given);
    for (int64_t i = begin; i < end; i++) {
        const float *logit = (const float *)t->run->in[ROUTER].data + i * t->s.experts;
        float *p = (float *)(void *)(t->rows + (size_t)worker * t->row), *share = t->share + i * m->k, sum = 0;
        int64_t *expert = t->expert + i * m->k;
        if (given)
            memcpy(p, (const float *)t->run->in[m->at->mix].data + i * t->s.experts, (size_t)t->s.experts * sizeof *p);
        else
            t->run->kernels->row.softmax_f32(t->s.experts, logit, p);
        for (int64_t c = 0; c < m->k; c++) {
            expert[c] = choose(logit, t->s.experts, expert, c);
            share[c] = p[expert[c]];
            sum += share[c];
        }
        for (int64_t c = 0; c < m->k && normalize; c++) share[c] = sum != 0 ? share[c] / sum : 0;
    }
}

/* Pairs by expert, by counting. */
static void gather_pairs(const task *t)
{
    memset(t->begin, 0, (size_t)(t->s.experts + 1) * sizeof *t->begin);
    for (int64_t p = 0; p < t->s.pairs; p++) t->begin[t->expert[p] + 1]++;
    for (int64_t e = 0; e < t->s.experts; e++) t->begin[e + 1] += t->begin[e];
    for (int64_t p = t->s.pairs - 1; p >= 0; p--) t->pair[--t->begin[t->expert[p] + 1]] = p;
    memmove(t->begin, t->begin + 1, (size_t)t->s.experts * sizeof *t->begin);
    t->begin[t->s.experts] = t->s.pairs;
}

/* ---- products -------------------------------------------------------------------------------------------- */

enum { LANES = 16 };

/* In a fixed order, whatever the compiler makes of it. */
static float dot(int64_t n, const float *a, const float *b)
{
    float sum[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int l = 0; l < LANES; l++) sum[l] += a[i + l] * b[i + l];
    for (int l = 0; i < n; i++, l++) sum[l] += a[i] * b[i];
    for (int half = LANES / 2; half; half /= 2)
        for (int l = 0; l < half; l++) sum[l] += sum[l + half];
    return sum[0];
}

typedef struct product {
    const task *t;
    int layer;
    int64_t n, k;      /* rows of an expert's weights, and their length */
    const float *from; /* of pair p: row p, or of layer 1 and 3 row p / choices */
    int64_t choices;
    float *to; /* [pairs, n] */
} product;

/* Row r of all experts' rows as floats. */
static const float *weight_row(const product *x, int64_t r, float *room)
{
    const moe *m = x->t->m;
    const sdx_run *run = x->t->run;
    int bits = m->bits[x->layer], zero = m->at->zero[x->layer];
    const void *data = run->in[m->at->weight[x->layer]].data;
    if (!bits) return (const float *)data + r * x->k;
    const float *scale = run->in[m->at->scale[x->layer]].data;
    const uint8_t *q = (const uint8_t *)data + r * (x->k / (8 / bits));
    const uint8_t *zeros = sdx_run_has_in(run, zero) ? run->in[zero].data : NULL;
    int64_t length = m->block ? m->block : x->k, blocks = m->block ? x->k / m->block : 1, parts = 8 / bits;
    /* Of zero points without blocks an expert's rows share bytes, with blocks each row has its own. */
    int64_t line = m->block ? r : r / x->n, at = m->block ? 0 : r % x->n;
    int64_t bytes = ((m->block ? blocks : x->n) + parts - 1) / parts;
    for (int64_t b = 0; b < blocks; b++) {
        int z = zeros ? sdx_bits_read(zeros + line * bytes, at + b, bits) : 1 << (bits - 1);
        float s = scale[r * blocks + b];
        for (int64_t i = b * length; i < (b + 1) * length; i++) room[i] = (float)(sdx_bits_read(q, i, bits) - z) * s;
    }
    return room;
}

/* Rows [begin, end) of all experts' rows, each times what is its expert's to do. */
static void multiply_rows(void *context, int64_t begin, int64_t end, int worker)
{
    const product *x = context;
    const task *t = x->t;
    int bias_input = t->m->at->bias[x->layer];
    const float *bias = sdx_run_has_in(t->run, bias_input) ? t->run->in[bias_input].data : NULL;
    for (int64_t r = begin; r < end; r++) {
        int64_t e = r / x->n;
        if (t->begin[e] == t->begin[e + 1]) continue;
        const float *w = weight_row(x, r, (float *)(void *)(t->rows + (size_t)worker * t->row));
        for (int64_t i = t->begin[e]; i < t->begin[e + 1]; i++) {
            int64_t p = t->pair[i];
            x->to[p * x->n + r % x->n] = dot(x->k, w, x->from + p / x->choices * x->k) + (bias ? bias[r] : 0.0f);
        }
    }
}

static void multiply(const task *t, product x)
{
    x.t = t;
    sdx_parallel_for(t->run->threads, t->s.experts * x.n, sdx_row_grain(x.k), multiply_rows, &x);
}

/* ---- activations ----------------------------------------------------------------------------------------- */

/* G * sigmoid(alpha G) * (L + beta), both clamped. step: between neighbours of gate. */
static void swiglu(const task *t, int64_t step, const float *gate, const float *linear, float *y)
{
    const moe *m = t->m;
    int64_t n = t->s.inter;
    for (int64_t i = 0; i < n; i++) y[i] = m->alpha * fminf(gate[i * step], m->limit);
    t->run->kernels->element.unary_f32[SDX_UNARY_SIGMOID](n, y, y);
    for (int64_t i = 0; i < n; i++) {
        float l = fmaxf(fminf(linear[i * step], m->limit), -m->limit);
        y[i] *= fminf(gate[i * step], m->limit) * (l + m->beta);
    }
}

static void activate_row(const task *t, const float *gate, const float *partner, float *y)
{
    /* ONNX Runtime's experts mean the tanh form by "gelu". */
    static const sdx_unary unary[] = {
        [RELU] = SDX_UNARY_RELU, [GELU] = SDX_UNARY_GELU_TANH, [SILU] = SDX_UNARY_SIGMOID};
    const moe *m = t->m;
    int64_t n = t->s.inter;
    if (m->activation == SWIGLU) {
        bool interleaved = m->fusion == 1;
        swiglu(t, interleaved ? 2 : 1, gate, partner ? partner : gate + (interleaved ? 1 : n), y);
        return;
    }
    if (m->activation == IDENTITY)
        memcpy(y, gate, (size_t)n * sizeof *y);
    else
        t->run->kernels->element.unary_f32[unary[m->activation]](n, gate, y);
    for (int64_t i = 0; i < n && m->activation == SILU; i++) y[i] *= gate[i];
    for (int64_t i = 0; i < n && partner; i++) y[i] *= partner[i];
}

static void activate(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const task *t = context;
    for (int64_t p = begin; p < end; p++)
        activate_row(t, t->gate + p * t->s.rows, t->partner ? t->partner + p * t->s.rows : NULL,
                     t->middle + p * t->s.inter);
}

static void mix(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const task *t = context;
    for (int64_t i = begin; i < end; i++) {
        float *y = (float *)t->run->out[0].data + i * t->s.hidden;
        memset(y, 0, (size_t)t->s.hidden * sizeof *y);
        for (int64_t p = i * t->m->k; p < (i + 1) * t->m->k; p++)
            for (int64_t d = 0; d < t->s.hidden; d++) y[d] += t->share[p] * t->result[p * t->s.hidden + d];
    }
}

/* ---- run ------------------------------------------------------------------------------------------------- */

static sdx_status run_experts(sdx_run *run)
{
    const moe *m = run->state;
    sdx_shape x = sdx_run_shape(run, X), w1 = sdx_run_shape(run, m->at->weight[FC1]);
    task t = {.run = run, .m = m, .s = make_sizes(m, &x, &w1)};
    const sizes *s = &t.s;
    bool third = sdx_run_has_in(run, m->at->weight[FC3]);
    if (!s->tokens || !s->hidden) return SDX_OK;
    size_t count[PARTS], size[PARTS];
    size_parts(s, run->threads, third, count, size);
    char *workspace = run->workspace;
    void *part[PARTS];
    for (int i = 0; i < PARTS; i++) part[i] = sdx_workspace_take(&workspace, count[i] * size[i]);
    t.expert = part[EXPERT], t.share = part[SHARE], t.begin = part[BEGIN], t.pair = part[PAIR];
    t.gate = part[GATE], t.partner = third ? part[PARTNER] : NULL, t.middle = part[MIDDLE], t.result = part[RESULT];
    t.rows = part[ROWS], t.row = size[ROWS];
    sdx_parallel_for(run->threads, s->tokens, sdx_row_grain(s->experts * m->k), route, &t);
    gather_pairs(&t);
    multiply(&t, (product){.layer = FC1, .n = s->rows, .k = s->hidden, .from = run->in[X].data, .choices = m->k,
                           .to = t.gate});
    if (third)
        multiply(&t, (product){.layer = FC3, .n = s->rows, .k = s->hidden, .from = run->in[X].data, .choices = m->k,
                               .to = t.partner});
    sdx_parallel_for(run->threads, s->pairs, sdx_row_grain(s->inter), activate, &t);
    multiply(&t,
             (product){.layer = FC2, .n = s->hidden, .k = s->inter, .from = t.middle, .choices = 1, .to = t.result});
    sdx_parallel_for(run->threads, s->tokens, sdx_row_grain(s->hidden * m->k), mix, &t);
    return SDX_OK;
}

#define MS "com.microsoft"
static const sdx_op_def rows[] = {
    {MS, "MoE", 1, 0, 3, 8, 1, 1, SDX_OP_WIDE, infer_moe, prepare_moe, plan_experts, run_experts},
    {MS, "QMoE", 1, 0, 3, 21, 1, 1, SDX_OP_WIDE, infer_qmoe, prepare_qmoe, plan_experts, run_experts},
};

SDX_OP_TABLE(moe);
