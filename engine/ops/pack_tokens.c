/* pack_tokens.c: a batch of texts without its padding. Made by the pass of that name only:
 *
 *     PackTokens(X [B,S,H], mask [B,S] or lengths [B]) { body(tokens [1,T,H], spans [N,2], visible [1,T]) }
 *
 * The body computes on token rows: what a layer does row by row costs what the T real tokens cost, and attention
 * goes text by text by the rows [spans[b,0], spans[b,1]) of text b. Outputs of the body are of two kinds: one row per
 * text [N, ...], and (`token_outputs` 1) one per token [1,T,...], which goes back to its place among zeros [B,S,...].
 *
 * Texts do not know of each other, so a batch runs in pieces of about CHUNK tokens: memory stays that of a piece
 * whatever the batch.
 *
 *     keep_first   token 0 of every text is read later, also where the mask hides it: such a text keeps all its tokens,
 *                  and the body sees by `visible` (1 or 0) which of them are keys
 *     binary       the mask is also a factor, 0 or 1, that the body leaves out
 */
#include <string.h>

#include "control_flow.h"
#include "compute.h"

enum { X, MASK };
enum { TOKENS, SPANS, VISIBLE, BODY_INPUTS };
enum { CHUNK = 2048 }; /* tokens: enough rows to be bound by arithmetic, few enough to stay near the cache */

typedef struct pack_tokens {
    sdx_graph *body;
    const int64_t *per_token; /* [outputs] */
    bool keep_first, binary;
} pack_tokens;

/* ---- infer and prepare ----------------------------------------------------------------------------------- */

static sdx_type typed(sdx_dtype dtype, int rank, sdx_dim d0, sdx_dim d1, sdx_dim d2)
{
    return (sdx_type){.dtype = dtype, .shape = {.rank = rank, .dim = {d0, d1, d2}}};
}

static sdx_status check_outputs(const sdx_infer *x, const sdx_graph *body)
{
    size_t count = 0;
    sdx_node_ints(x->node, "token_outputs", &count);
    if (body && body->n_input == BODY_INPUTS && body->n_output == x->n_out && count == (size_t)x->n_out) return SDX_OK;
    return sdx_fail(x->err, SDX_ERR_FILE, "the subgraph \"body\" and token_outputs must be of the node's outputs");
}

static sdx_status infer(sdx_infer *x)
{
    TRY(sdx_want_dtype(x, X, "X", SDX_SET(SDX_F32)));
    TRY(sdx_want_rank(x, X, "X", 3, 3));
    TRY(sdx_want_dtype(x, MASK, "the mask", SDX_SET(SDX_I32)));
    TRY(sdx_want_rank(x, MASK, "the mask", 1, 2));
    sdx_dim batch = sdx_type_dim(&x->in[X], 0), length = sdx_type_dim(&x->in[X], 1);
    TRY(sdx_want_dim(x, MASK, "the mask", 0, batch));
    if (x->in[MASK].shape.rank == 2) TRY(sdx_want_dim(x, MASK, "the mask", 1, length));
    sdx_graph *body = sdx_node_body(x->node, "body");
    TRY(check_outputs(x, body));
    if (!x->body) return SDX_OK;
    /* Tokens and texts of a piece: how many, the run will tell. */
    sdx_type in[BODY_INPUTS] = {
        typed(SDX_F32, 3, 1, SDX_DIM_UNKNOWN, sdx_type_dim(&x->in[X], 2)),
        typed(SDX_I64, 2, SDX_DIM_UNKNOWN, 2, 0),
        typed(SDX_I32, 2, 1, SDX_DIM_UNKNOWN, 0),
    };
    const int64_t *per_token = sdx_node_ints(x->node, "token_outputs", &(size_t){0});
    sdx_type *out;
    ARENA_NEW(x->arena, out, (size_t)x->n_out, x->err);
    TRY(x->body(x, body, in, out));
    for (int i = 0; i < x->n_out; i++) {
        x->out[i] = sdx_type_plain(&out[i]);
        if (out[i].shape.rank < 1 + (per_token[i] != 0)) continue;
        x->out[i].shape.dim[0] = batch;
        if (per_token[i]) x->out[i].shape.dim[1] = length;
    }
    return SDX_OK;
}

static sdx_status prepare(sdx_prepare *p)
{
    pack_tokens *state;
    PREPARE_STATE(p, state);
    size_t count;
    TRY(sdx_prepare_body(p, "body", BODY_INPUTS, p->node->n_out, &state->body));
    state->per_token = sdx_node_ints(p->node, "token_outputs", &count);
    state->keep_first = sdx_node_int(p->node, "keep_first", 0) != 0;
    state->binary = sdx_node_int(p->node, "binary", 0) != 0;
    return SDX_OK;
}

/* ---- which tokens ---------------------------------------------------------------------------------------- */

typedef struct batch {
    const pack_tokens *state;
    const sdx_tensor *x, *mask;
    int64_t texts, length;
    size_t row;       /* bytes of a token */
    int64_t *kept;    /* [texts]: tokens that run */
    float *tokens;    /* of one piece, as the next three */
    int64_t *spans, *place; /* place: where each token was, as text * length + position */
    int32_t *visible;
} batch;

/* What the mask says of token s of text b. */
static bool is_visible(const batch *p, int64_t b, int64_t s)
{
    const int32_t *m = p->mask->data;
    return p->mask->rank == 1 ? s < m[b] : m[b * p->length + s] > 0;
}

static bool keeps_all(const batch *p, int64_t b)
{
    return p->state->keep_first && p->length > 0 && !is_visible(p, b, 0);
}

static void count_tokens(batch *p)
{
    for (int64_t b = 0; b < p->texts; b++) {
        p->kept[b] = 0;
        for (int64_t s = 0; s < p->length; s++) p->kept[b] += keeps_all(p, b) || is_visible(p, b, s);
    }
}

static sdx_status check_binary(const sdx_run *run, const batch *p)
{
    if (!p->state->binary || p->mask->rank == 1) return SDX_OK;
    const int32_t *m = p->mask->data;
    for (int64_t i = 0; i < p->texts * p->length; i++)
        if (m[i] != 0 && m[i] != 1)
            return sdx_fail(run->err, SDX_ERR_USAGE, "the mask holds %d; expected 0 and 1", (int)m[i]);
    return SDX_OK;
}

/* ---- pieces ---------------------------------------------------------------------------------------------- */

typedef struct piece {
    int64_t begin, end; /* texts */
    int64_t tokens;
} piece;

/* From `begin` on, texts until `most` tokens are full; at least one. */
static piece next_piece(const batch *p, int64_t begin, int64_t most)
{
    piece c = {begin, begin, 0};
    while (c.end < p->texts && (c.end == begin || c.tokens + p->kept[c.end] <= most)) c.tokens += p->kept[c.end++];
    return c;
}

static void gather(batch *p, const piece *c)
{
    int64_t t = 0;
    for (int64_t b = c->begin; b < c->end; b++) {
        bool all = keeps_all(p, b);
        p->spans[2 * (b - c->begin)] = t;
        for (int64_t s = 0; s < p->length; s++) {
            bool visible = is_visible(p, b, s);
            if (!visible && !all) continue;
            p->visible[t] = visible;
            p->place[t] = b * p->length + s;
            if (p->row) memcpy((char *)p->tokens + (size_t)t * p->row,
                               (const char *)p->x->data + (size_t)p->place[t] * p->row, p->row);
            t++;
        }
        p->spans[2 * (b - c->begin) + 1] = t;
    }
}

/* Output i of the node, whose shape the first piece tells: [B, ...] or [B, S, ...] of zeros. */
static sdx_status make_output(sdx_run *run, const batch *p, int i, const sdx_tensor *part)
{
    bool per_token = p->state->per_token[i] != 0;
    sdx_shape shape = sdx_tensor_shape(part);
    if (shape.rank < 1 + per_token) return sdx_fail(run->err, SDX_ERR_FILE, "body output %d has no rows", i);
    shape.dim[0] = p->texts;
    if (per_token) shape.dim[1] = p->length;
    TRY(run->allocate(run, i, part->dtype, &shape));
    size_t bytes = sdx_run_has_out(run, i) ? sdx_tensor_bytes(&run->out[i]) : 0;
    if (bytes) memset(run->out[i].data, 0, bytes);
    return SDX_OK;
}

static sdx_status scatter(sdx_run *run, const batch *p, const piece *c, int i, const sdx_tensor *part)
{
    bool per_token = p->state->per_token[i] != 0;
    int64_t rows = per_token ? c->tokens : c->end - c->begin;
    if (c->begin == 0) TRY(make_output(run, p, i, part));
    if (!sdx_run_has_out(run, i)) return SDX_OK;
    int64_t whole = per_token ? p->texts * p->length : p->texts;
    size_t row = whole ? sdx_tensor_bytes(&run->out[i]) / (size_t)whole : 0;
    if (part->dtype != run->out[i].dtype || part->dim[per_token] != rows ||
        sdx_tensor_bytes(part) != (size_t)rows * row)
        return sdx_fail(run->err, SDX_ERR_FILE, "body output %d has not a row for each of %lld", i, (long long)rows);
    char *to = run->out[i].data;
    if (!row || !rows) return SDX_OK;
    if (!per_token) {
        memcpy(to + (size_t)c->begin * row, part->data, (size_t)rows * row);
        return SDX_OK;
    }
    for (int64_t t = 0; t < rows; t++)
        if (p->visible[t]) memcpy(to + (size_t)p->place[t] * row, (const char *)part->data + (size_t)t * row, row);
    return SDX_OK;
}

static sdx_status run_piece(sdx_run *run, batch *p, const piece *c, sdx_tensor *out)
{
    gather(p, c);
    sdx_shape tokens = {.rank = 3, .dim = {1, c->tokens, p->x->dim[2]}},
              spans = {.rank = 2, .dim = {c->end - c->begin, 2}}, visible = {.rank = 2, .dim = {1, c->tokens}};
    sdx_tensor in[BODY_INPUTS] = {sdx_tensor_make(SDX_F32, &tokens, p->tokens),
                                  sdx_tensor_make(SDX_I64, &spans, p->spans),
                                  sdx_tensor_make(SDX_I32, &visible, p->visible)};
    TRY(run->run_body(run, p->state->body, 0, in, out));
    for (int i = 0; i < run->n_out; i++) TRY(scatter(run, p, c, i, &out[i]));
    return SDX_OK;
}

/* Pieces of one size rather than some full ones and a rest. */
static int64_t piece_size(int64_t tokens)
{
    int64_t pieces = (tokens + CHUNK - 1) / CHUNK;
    return pieces > 1 ? (tokens + pieces - 1) / pieces : CHUNK;
}

static sdx_status make_room(sdx_run *run, batch *p, int64_t most)
{
    int64_t tokens = 0, texts = 0;
    for (piece c = {0}; c.end < p->texts;) {
        c = next_piece(p, c.end, most);
        if (c.tokens > tokens) tokens = c.tokens;
        if (c.end - c.begin > texts) texts = c.end - c.begin;
    }
    p->tokens = sdx_arena_alloc(run->scratch, (size_t)tokens * p->row);
    if (!p->tokens) return sdx_fail_memory(run->err, (size_t)tokens * p->row);
    ARENA_NEW(run->scratch, p->spans, (size_t)texts * 2, run->err);
    ARENA_NEW(run->scratch, p->place, (size_t)tokens, run->err);
    ARENA_NEW(run->scratch, p->visible, (size_t)tokens, run->err);
    return SDX_OK;
}

static sdx_status run_packed(sdx_run *run)
{
    batch p = {.state = run->state, .x = &run->in[X], .mask = &run->in[MASK]};
    p.texts = p.x->dim[0];
    p.length = p.x->dim[1];
    p.row = (size_t)p.x->dim[2] * sizeof(float);
    TRY(check_binary(run, &p));
    ARENA_NEW(run->scratch, p.kept, (size_t)p.texts, run->err);
    count_tokens(&p);
    int64_t tokens = 0;
    for (int64_t b = 0; b < p.texts; b++) tokens += p.kept[b];
    int64_t most = piece_size(tokens);
    TRY(make_room(run, &p, most));
    sdx_tensor *out;
    ARENA_NEW(run->scratch, out, (size_t)p.state->body->n_output, run->err);
    piece c = {0};
    do {
        c = next_piece(&p, c.end, most);
        TRY(run_piece(run, &p, &c, out));
    } while (c.end < p.texts);
    return SDX_OK;
}

/* ---- FirstTokens(tokens [1,T,H], spans [N,2]) = [N,H]: the first of every text --------------------------- */

static sdx_status infer_first(sdx_infer *x)
{
    TRY(sdx_want_dtype(x, 0, "tokens", SDX_SET(SDX_F32)));
    TRY(sdx_want_rank(x, 0, "tokens", 3, 3));
    TRY(sdx_want_dtype(x, 1, "spans", SDX_SET(SDX_I64)));
    TRY(sdx_want_rank(x, 1, "spans", 2, 2));
    TRY(sdx_want_dim(x, 1, "spans", 1, 2));
    sdx_shape out = {.rank = 2, .dim = {sdx_type_dim(&x->in[1], 0), sdx_type_dim(&x->in[0], 2)}};
    sdx_infer_set(x, 0, SDX_F32, &out);
    return SDX_OK;
}

static sdx_status run_first(sdx_run *run)
{
    const sdx_tensor *x = &run->in[0], *spans = &run->in[1];
    size_t row = (size_t)x->dim[2] * sizeof(float);
    for (int64_t b = 0; b < spans->dim[0] && row; b++) {
        int64_t first = sdx_tensor_get_i64(spans, 2 * b);
        if (first < 0 || first >= x->dim[1])
            return sdx_fail(run->err, SDX_ERR_USAGE, "text %lld has no first token", (long long)b);
        memcpy((char *)run->out[0].data + (size_t)b * row, (const char *)x->data + (size_t)first * row, row);
    }
    return SDX_OK;
}

static const sdx_op_def rows[] = {
    {"sardonyx", "PackTokens", 1, 0, 2, 2, 1, -1, SDX_OP_DYNAMIC, infer, prepare, NULL, run_packed},
    {"sardonyx", "FirstTokens", 1, 0, 2, 2, 1, 1, 0, infer_first, NULL, NULL, run_first},
};

SDX_OP_TABLE(pack_tokens);
