/* search.c: com.microsoft BeamSearch and GreedySearch: a language model, as a subgraph, asked for one token after the
 * other (search_beams.c chooses) with its keys and values handed back to it, reordered as the beams are.
 *
 *     model_type 0   decoder(input_ids, position_ids, attention_mask, past...) -> logits, present...; the prompt may
 *                    have an init_decoder of its own
 *     model_type 1   encoder(ids, mask, decoder ids) -> logits, states, present..., or cross-attention's alone;
 *                    decoder(input_ids, [encoder ids], mask, [states], past...) -> logits, present...
 * The decoder's inputs are known by their names, as ONNX Runtime's converter writes them. Limits are its own: 4096
 * tokens, 128 beams.
 */
#include <stdlib.h>
#include <string.h>

#include "compute.h"
#include "control_flow.h"
#include "search.h"

enum { MOST_TOKENS = 4096, MOST_BEAMS = 128 };

/* Numbers of the inputs, -1 where GreedySearch lacks one. */
typedef struct places {
    int beams, returned, length_penalty, repetition_penalty, vocab_mask, prefix_mask, mask;
} places;
enum { IDS, MAX_LENGTH, MIN_LENGTH };
static const places places_beam = {3, 4, 5, 6, 7, 8, 9}, places_greedy = {-1, -1, -1, 3, 4, 5, 6};

typedef enum role { ROLE_IDS, ROLE_POSITIONS, ROLE_MASK, ROLE_ENCODER_IDS, ROLE_STATES, ROLE_PAST } role;

static const struct {
    const char *name;
    role role;
} known_roles[] = {{"input_ids", ROLE_IDS},
                   {"position_ids", ROLE_POSITIONS},
                   {"attention_mask", ROLE_MASK},
                   {"encoder_attention_mask", ROLE_MASK},
                   {"encoder_input_ids", ROLE_ENCODER_IDS},
                   {"encoder_hidden_states", ROLE_STATES}};

typedef struct generation {
    const places *at;
    sdx_graph *decoder, *encoder, *first; /* first: of the prompt; encoder NULL: there is none */
    role *role;                           /* [decoder->n_input] */
    int n_past, n_self;                   /* of the pasts the first n_self grow */
    bool whole;                           /* the decoder is given all tokens each time */
} generation;

/* What a run keeps between its steps. */
typedef struct loop {
    sdx_run *run;
    const generation *g;
    sdx_search search;
    const int32_t *prompt; /* [batch, prompt] of the texts, or of the encoder */
    int64_t batch, width;  /* of prompt */
    int32_t *ids, *positions, *mask, *encoder_ids; /* [rows, tokens] */
    int64_t *origin;       /* [rows]: the text of a row */
    sdx_tensor *past;      /* [n_past], data owned */
    sdx_tensor states;     /* data owned */
    sdx_tensor *in, *out;
    float *logits;         /* [rows, vocab] */
    float *history;        /* output 2, or NULL */
} loop;

/* ---- infer and prepare ----------------------------------------------------------------------------------- */

static sdx_status infer_bodies(sdx_infer *x)
{
    static const char *const names[] = {"encoder", "init_decoder", "decoder"};
    for (int b = 0; b < 3; b++) {
        sdx_graph *g = sdx_node_body(x->node, names[b]);
        sdx_type *in, *out;
        if (!g || !x->body) continue;
        ARENA_NEW(x->arena, in, (size_t)g->n_input, x->err);
        ARENA_NEW(x->arena, out, (size_t)g->n_output, x->err);
        for (int i = 0; i < g->n_input; i++) {
            const sdx_declared *d = g->value[g->input[i]].declared;
            in[i] = (sdx_type){.dtype = d ? d->dtype : SDX_UNDEFINED, .shape = SDX_SHAPE_UNKNOWN};
        }
        TRY(x->body(x, g, in, out));
    }
    return SDX_OK;
}

static sdx_status infer_common(sdx_infer *x, const places *at)
{
    const int small[] = {IDS,          MAX_LENGTH,     MIN_LENGTH,      at->beams,
                         at->returned, at->vocab_mask, at->prefix_mask, at->mask};
    for (size_t i = 0; i < sizeof small / sizeof *small; i++)
        if (small[i] >= 0) TRY(sdx_want_dtype(x, small[i], "an integer input", SDX_SET(SDX_I32)));
    TRY(sdx_want_rank(x, IDS, "input_ids", 2, 2));
    return infer_bodies(x);
}

static sdx_status infer_beam(sdx_infer *x)
{
    TRY(infer_common(x, &places_beam));
    sdx_dim batch = sdx_type_dim(&x->in[IDS], 0);
    sdx_shape sequences = {.rank = 3, .dim = {batch, SDX_DIM_UNKNOWN, SDX_DIM_UNKNOWN}};
    sdx_shape scores = {.rank = 2, .dim = {batch, SDX_DIM_UNKNOWN}};
    sdx_shape history = {.rank = 4, .dim = {SDX_DIM_UNKNOWN, batch, SDX_DIM_UNKNOWN, SDX_DIM_UNKNOWN}};
    sdx_infer_set(x, 0, SDX_I32, &sequences);
    sdx_infer_set(x, 1, SDX_F32, &scores);
    sdx_infer_set(x, 2, SDX_F32, &history);
    return SDX_OK;
}

static sdx_status infer_greedy(sdx_infer *x)
{
    TRY(infer_common(x, &places_greedy));
    sdx_shape sequences = {.rank = 2, .dim = {sdx_type_dim(&x->in[IDS], 0), SDX_DIM_UNKNOWN}};
    sdx_infer_set(x, 0, SDX_I32, &sequences);
    return SDX_OK;
}

static role role_of(const char *name)
{
    for (size_t i = 0; i < sizeof known_roles / sizeof *known_roles; i++)
        if (!strcmp(name, known_roles[i].name)) return known_roles[i].role;
    return ROLE_PAST;
}

static sdx_status read_roles(sdx_prepare *p, generation *g)
{
    const sdx_graph *d = g->decoder;
    ARENA_NEW(p->arena, g->role, (size_t)d->n_input, p->err);
    for (int i = 0; i < d->n_input; i++) {
        const sdx_value *v = &d->value[d->input[i]];
        g->role[i] = role_of(v->name);
        if (!strcmp(v->name, "past_sequence_length") || !strcmp(v->name, "cache_indirection"))
            return sdx_fail(p->err, SDX_ERR_UNSUPPORTED, "a decoder that shares past and present is not supported");
        g->n_past += g->role[i] == ROLE_PAST;
        if (g->role[i] != ROLE_PAST && g->n_past)
            return sdx_fail(p->err, SDX_ERR_FILE, "the decoder's input \"%s\" comes after its past", v->name);
        if (g->role[i] == ROLE_IDS && g->encoder)
            g->whole = !v->declared || v->declared->shape.rank != 2 || v->declared->shape.dim[1] != 1;
    }
    g->n_self = d->n_output - 1;
    if (g->n_self >= 1 && g->n_past == (g->encoder ? 2 : 1) * g->n_self) return SDX_OK;
    return sdx_fail(p->err, SDX_ERR_FILE, "the decoder takes %d tensors of the past and gives %d", g->n_past,
                    g->n_self);
}

static sdx_status check_encoder(sdx_prepare *p, const generation *g)
{
    const sdx_graph *e = g->encoder;
    bool old = e->n_output == 2 + g->n_past && e->n_input == 3, lean = e->n_output == g->n_self && e->n_input == 2;
    if (old || lean) return SDX_OK;
    return sdx_fail(p->err, SDX_ERR_FILE, "the encoder has %d inputs and %d outputs for a decoder with %d of the past",
                    e->n_input, e->n_output, g->n_past);
}

static sdx_status prepare(sdx_prepare *p, const places *at)
{
    generation *g;
    PREPARE_STATE(p, g);
    g->at = at;
    int64_t type = sdx_node_int(p->node, "model_type", 0);
    if (type != 0 && type != 1)
        return sdx_fail(p->err, SDX_ERR_UNSUPPORTED, "model_type %lld is not supported", (long long)type);
    g->decoder = sdx_node_body(p->node, "decoder");
    g->encoder = type == 1 ? sdx_node_body(p->node, "encoder") : NULL;
    g->first = sdx_node_body(p->node, "init_decoder");
    if (!g->decoder || (type == 1 && !g->encoder))
        return sdx_fail(p->err, SDX_ERR_FILE, "it lacks the subgraph \"%s\"", g->decoder ? "encoder" : "decoder");
    if (!g->first) g->first = g->decoder;
    if (g->first->n_input != g->decoder->n_input || g->first->n_output != g->decoder->n_output)
        return sdx_fail(p->err, SDX_ERR_FILE, "init_decoder and decoder have different inputs or outputs");
    TRY(read_roles(p, g));
    p->state = g;
    return g->encoder ? check_encoder(p, g) : SDX_OK;
}

static sdx_status prepare_beam(sdx_prepare *p) { return prepare(p, &places_beam); }
static sdx_status prepare_greedy(sdx_prepare *p) { return prepare(p, &places_greedy); }

/* ---- settings -------------------------------------------------------------------------------------------- */

static sdx_status read_number(const sdx_run *run, int input, const char *name, int64_t least, int64_t most,
                              int64_t *number)
{
    if (input < 0 || !sdx_run_has_in(run, input)) return SDX_OK;
    if (sdx_tensor_count(&run->in[input]) == 1) *number = sdx_tensor_get_i64(&run->in[input], 0);
    if (sdx_tensor_count(&run->in[input]) == 1 && *number >= least && *number <= most) return SDX_OK;
    return sdx_fail(run->err, SDX_ERR_USAGE, "%s must be one number from %lld to %lld", name, (long long)least,
                    (long long)most);
}

static sdx_status read_float(const sdx_run *run, int input, const char *name, float *number)
{
    if (input < 0 || !sdx_run_has_in(run, input)) return SDX_OK;
    if (sdx_tensor_count(&run->in[input]) != 1)
        return sdx_fail(run->err, SDX_ERR_USAGE, "%s must be one number", name);
    *number = (float)sdx_tensor_get_f64(&run->in[input], 0);
    return SDX_OK;
}

static sdx_status read_mask(const sdx_run *run, int input, const char *name, int64_t count, const int32_t **mask)
{
    if (input < 0 || !sdx_run_has_in(run, input)) return SDX_OK;
    *mask = run->in[input].data;
    if (sdx_tensor_count(&run->in[input]) == count) return SDX_OK;
    return sdx_fail(run->err, SDX_ERR_USAGE, "%s must have %lld elements", name, (long long)count);
}

/* All but the masks over the vocabulary, whose size the first logits tell. */
static sdx_status read_rules(const loop *l, sdx_search_rules *r, int64_t *returned)
{
    const sdx_run *run = l->run;
    const places *at = l->g->at;
    const sdx_node *n = run->node;
    *r = (sdx_search_rules){.batch = l->batch,
                            .beams = 1,
                            .vocab = sdx_node_int(n, "vocab_size", -1),
                            .prompt = l->g->encoder ? 1 : l->width,
                            .max_length = MOST_TOKENS,
                            .ngram = sdx_node_int(n, "no_repeat_ngram_size", 0),
                            .eos = sdx_node_int(n, "eos_token_id", -1),
                            .pad = sdx_node_int(n, "pad_token_id", -1),
                            .length_penalty = 1,
                            .repetition_penalty = 1,
                            .greedy = at == &places_greedy,
                            .early = sdx_node_int(n, "early_stopping", 0) == 1};
    *returned = 1;
    if (r->prompt < 1 || r->prompt >= MOST_TOKENS)
        return sdx_fail(run->err, SDX_ERR_USAGE, "a prompt of %lld tokens; 1 to %d are possible", (long long)r->prompt,
                        MOST_TOKENS - 1);
    TRY(read_number(run, MAX_LENGTH, "max_length", r->prompt + 1, MOST_TOKENS, &r->max_length));
    TRY(read_number(run, MIN_LENGTH, "min_length", 0, r->max_length - 1, &r->min_length));
    TRY(read_number(run, at->beams, "num_beams", 1, MOST_BEAMS, &r->beams));
    TRY(read_number(run, at->returned, "num_return_sequences", 1, r->beams, returned));
    TRY(read_float(run, at->length_penalty, "length_penalty", &r->length_penalty));
    TRY(read_float(run, at->repetition_penalty, "repetition_penalty", &r->repetition_penalty));
    if (r->eos < 0 || r->pad < 0 || r->pad > INT32_MAX || r->ngram < 0 || !(r->repetition_penalty > 0))
        return sdx_fail(run->err, SDX_ERR_FILE,
                        "eos_token_id %lld, pad_token_id %lld, no_repeat_ngram_size %lld, repetition_penalty %g: "
                        "one of them makes no sense",
                        (long long)r->eos, (long long)r->pad, (long long)r->ngram, (double)r->repetition_penalty);
    return SDX_OK;
}

/* ---- rows of tensors ------------------------------------------------------------------------------------- */

/* Row r of `to` along the axis is row from[r] of x; `to` owns its data, and what it had is freed. */
static sdx_status gather_rows(const loop *l, const sdx_tensor *x, int axis, const int64_t *from, sdx_tensor *to)
{
    sdx_shape shape = sdx_tensor_shape(x);
    size_t bytes, inner = sdx_dtype_size(x->dtype), outer = 1;
    shape.dim[axis] = l->search.rows;
    if (!sdx_tensor_size(x->dtype, &shape, &bytes)) return sdx_fail_memory(l->run->err, SIZE_MAX);
    char *data = sdx_malloc_aligned(bytes);
    if (!data) return sdx_fail_memory(l->run->err, bytes);
    for (int d = 0; d < x->rank; d++) {
        if (d < axis) outer *= (size_t)x->dim[d];
        if (d > axis) inner *= (size_t)x->dim[d];
    }
    for (size_t o = 0; o < outer && inner; o++)
        for (int64_t r = 0; r < l->search.rows; r++)
            memcpy(data + (o * (size_t)l->search.rows + (size_t)r) * inner,
                   (const char *)x->data + (o * (size_t)x->dim[axis] + (size_t)from[r]) * inner, inner);
    free(to->data);
    *to = sdx_tensor_make(x->dtype, &shape, data);
    return SDX_OK;
}

/* What a subgraph gave, of `rows` rows, in the order of the rows that go on. */
static sdx_status keep(const loop *l, const sdx_tensor *x, int axis, int64_t rows, const int64_t *from, sdx_tensor *to)
{
    if (sdx_dtype_size(x->dtype) && x->rank > axis && x->dim[axis] == rows) return gather_rows(l, x, axis, from, to);
    return sdx_fail(l->run->err, SDX_ERR_FILE, "a subgraph gives a past without %lld rows", (long long)rows);
}

/* A past of no tokens, as the decoder has it: [2, rows, heads, 0, size], with an encoder [rows, heads, 0, size]. */
static sdx_status start_past(const loop *l, const sdx_graph *g, int i, sdx_tensor *past)
{
    const sdx_declared *d = g->value[g->input[g->n_input - l->g->n_past + i]].declared;
    int rank = l->g->encoder ? 4 : 5;
    if (!d || d->shape.rank != rank || d->shape.dim[rank - 3] < 0 || d->shape.dim[rank - 1] < 0)
        return sdx_fail(l->run->err, SDX_ERR_FILE, "the decoder does not declare the heads of its past");
    sdx_shape shape = d->shape;
    if (rank == 5) shape.dim[0] = 2;
    shape.dim[rank - 4] = l->search.rows;
    shape.dim[rank - 2] = 0;
    void *data = sdx_malloc_aligned(1);
    if (!data) return sdx_fail_memory(l->run->err, 1);
    *past = sdx_tensor_make(d->dtype, &shape, data);
    return SDX_OK;
}

/* ---- feeding the subgraphs ------------------------------------------------------------------------------- */

static sdx_tensor matrix(int32_t *data, int64_t rows, int64_t columns)
{
    return (sdx_tensor){.dtype = SDX_I32, .rank = 2, .dim = {rows, columns}, .data = data};
}

/* mask [batch, width] as given, or 1 where the prompt is not pad. */
static sdx_status read_prompt_mask(const loop *l, int64_t pad, int32_t *mask)
{
    const int32_t *given = NULL;
    TRY(read_mask(l->run, l->g->at->mask, "attention_mask", l->batch * l->width, &given));
    for (int64_t i = 0; i < l->batch * l->width; i++) mask[i] = given ? given[i] : l->prompt[i] != pad;
    return SDX_OK;
}

/* Prompt, mask and positions of every row; positions count what is not pad. Each has room for max_length tokens. */
static sdx_status place_prompt(loop *l)
{
    const sdx_search_rules *r = &l->search.rules;
    int64_t rows = l->search.rows, room = l->width > r->max_length ? l->width : r->max_length;
    int32_t *mask;
    sdx_arena *arena = l->run->scratch;
    ARENA_NEW(arena, mask, (size_t)(l->batch * l->width), l->run->err);
    ARENA_NEW(arena, l->ids, (size_t)(rows * room), l->run->err);
    ARENA_NEW(arena, l->positions, (size_t)(rows * room), l->run->err);
    ARENA_NEW(arena, l->mask, (size_t)(rows * room), l->run->err);
    ARENA_NEW(arena, l->encoder_ids, (size_t)(rows * room), l->run->err);
    ARENA_NEW(arena, l->origin, (size_t)rows, l->run->err);
    TRY(read_prompt_mask(l, r->pad, mask));
    for (int64_t row = 0; row < rows; row++) {
        int64_t from = (l->origin[row] = row / r->beams) * l->width, to = row * l->width;
        for (int64_t i = 0, position = 0; i < l->width; i++) {
            l->encoder_ids[to + i] = l->ids[to + i] = l->prompt[from + i];
            l->mask[to + i] = mask[from + i];
            l->positions[to + i] = l->prompt[from + i] == r->pad ? 0 : (int32_t)position++;
        }
    }
    return SDX_OK;
}

/* The tokens that the decoder is given next: the last ones, or all. */
static int64_t place_tokens(loop *l)
{
    int64_t length = l->search.length, room = l->search.rules.max_length, count = l->g->whole ? length : 1;
    for (int64_t row = 0; row < l->search.rows; row++)
        memcpy(l->ids + row * count, l->search.sequence + row * room + length - count, (size_t)count * sizeof *l->ids);
    return count;
}

/* One more token without an encoder: its position, and a mask that is one longer. Rows move apart from the last on. */
static void extend_mask(loop *l)
{
    int64_t length = l->search.length, rows = l->search.rows, before = length - 1;
    for (int64_t row = rows - 1; row >= 0; row--) {
        memmove(l->mask + row * length, l->mask + row * before, (size_t)before * sizeof *l->mask);
        l->mask[row * length + before] = 1;
    }
    for (int64_t row = 0; row < rows; row++) {
        int64_t text = l->origin[row], position = before - l->width;
        for (int64_t i = 0; i < l->width; i++) position += l->prompt[text * l->width + i] != l->search.rules.pad;
        l->positions[row] = (int32_t)position;
    }
}

static sdx_status run_decoder(loop *l, const sdx_graph *g, int64_t tokens)
{
    int64_t rows = l->search.rows, masked = l->g->encoder ? l->width : l->search.length;
    for (int i = 0, past = 0; i < g->n_input; i++) {
        switch (l->g->role[i]) {
        case ROLE_IDS: l->in[i] = matrix(l->ids, rows, tokens); break;
        case ROLE_POSITIONS: l->in[i] = matrix(l->positions, rows, tokens); break;
        case ROLE_MASK: l->in[i] = matrix(l->mask, rows, masked); break;
        case ROLE_ENCODER_IDS: l->in[i] = matrix(l->encoder_ids, rows, l->width); break;
        case ROLE_STATES: l->in[i] = l->states; break;
        case ROLE_PAST: l->in[i] = l->past[past++]; break;
        }
    }
    return l->run->run_body(l->run, g, 0, l->in, l->out);
}

/* ---- one token after the other --------------------------------------------------------------------------- */

/* The size of the vocabulary, when the first logits come, and what depends on it. */
static sdx_status learn_vocab(loop *l, int64_t columns)
{
    sdx_search_rules *r = &l->search.rules;
    const places *at = l->g->at;
    sdx_run *run = l->run;
    if (r->vocab <= 0) r->vocab = columns;
    if (r->vocab > columns || r->vocab < 2 || r->vocab > INT32_MAX)
        return sdx_fail(run->err, SDX_ERR_FILE, "logits of %lld columns for a vocabulary of %lld", (long long)columns,
                        (long long)r->vocab);
    TRY(read_mask(run, at->vocab_mask, "vocab_mask", r->vocab, &r->vocab_mask));
    TRY(read_mask(run, at->prefix_mask, "prefix_vocab_mask", r->batch * r->vocab, &r->prefix_mask));
    ARENA_NEW(run->scratch, l->logits, (size_t)l->search.rows * (size_t)r->vocab, run->err);
    if (run->n_out < 3) return SDX_OK;
    sdx_shape shape = {.rank = 4, .dim = {r->max_length - r->prompt, r->batch, r->beams, r->vocab}};
    TRY(run->allocate(run, 2, SDX_F32, &shape));
    l->history = run->out[2].data; /* NULL when nobody wants it */
    if (l->history) memset(l->history, 0, sdx_tensor_bytes(&run->out[2]));
    return SDX_OK;
}

/* Chooses from logits [rows or batch, tokens, vocab], of which the last token's count. */
static sdx_status choose(loop *l, const sdx_tensor *logits)
{
    int64_t rows = l->search.rows, given = logits->rank == 3 ? logits->dim[0] : 0;
    if (!(SDX_SET(logits->dtype) & SDX_SET_FLOAT) || (given != rows && given != l->batch) || logits->dim[1] < 1)
        return sdx_fail(l->run->err, SDX_ERR_FILE, "the first output of the subgraph are not logits of %lld rows",
                        (long long)rows);
    if (!l->logits) TRY(learn_vocab(l, logits->dim[2]));
    int64_t vocab = l->search.rules.vocab;
    if (logits->dim[2] < vocab) return sdx_fail(l->run->err, SDX_ERR_FILE, "the size of the vocabulary changes");
    for (int64_t row = 0; row < rows; row++) {
        int64_t from = given == rows ? row : l->origin[row];
        sdx_floats_load(l->run->kernels, logits->dtype, logits->data,
                        ((from + 1) * logits->dim[1] - 1) * logits->dim[2], vocab, l->logits + row * vocab);
    }
    int64_t step = l->search.length - l->search.rules.prompt;
    sdx_search_step(&l->search, l->logits);
    if (l->history)
        memcpy(l->history + step * rows * vocab, l->logits, (size_t)(rows * vocab) * sizeof *l->logits);
    return SDX_OK;
}

static bool is_over(const loop *l) { return !l->search.open || l->search.length >= l->search.rules.max_length; }

/* The encoder's part: states and pasts of every row, and the first token where its form gives logits. */
static sdx_status encode(loop *l, int32_t start)
{
    const generation *g = l->g;
    bool lean = g->encoder->n_output == g->n_self;
    int32_t *mask, *begin;
    ARENA_NEW(l->run->scratch, mask, (size_t)(l->batch * l->width), l->run->err);
    ARENA_NEW(l->run->scratch, begin, (size_t)l->batch, l->run->err);
    for (int64_t i = 0; i < l->batch; i++) begin[i] = start;
    TRY(read_prompt_mask(l, l->search.rules.pad, mask));
    sdx_tensor in[3] = {matrix((int32_t *)l->prompt, l->batch, l->width), matrix(mask, l->batch, l->width),
                        matrix(begin, l->batch, 1)};
    TRY(l->run->run_body(l->run, g->encoder, 0, in, l->out));
    int first = lean ? g->n_self : 0, outputs = lean ? 0 : 2;
    for (int i = 0; i < first; i++) TRY(start_past(l, g->decoder, i, &l->past[i]));
    for (int i = first; i < g->n_past; i++)
        TRY(keep(l, &l->out[outputs + i - first], 0, l->batch, l->origin, &l->past[i]));
    if (lean) return SDX_OK;
    TRY(keep(l, &l->out[1], 0, l->batch, l->origin, &l->states));
    return choose(l, &l->out[0]);
}

static sdx_status generate(loop *l)
{
    const generation *g = l->g;
    int axis = g->encoder ? 0 : 1;
    int64_t tokens = l->width;
    const sdx_graph *body = g->first;
    if (g->encoder) {
        body = g->decoder;
        TRY(encode(l, l->search.sequence[0]));
        tokens = place_tokens(l);
    } else {
        for (int i = 0; i < g->n_past; i++) TRY(start_past(l, g->first, i, &l->past[i]));
    }
    while (!is_over(l)) {
        TRY(run_decoder(l, body, tokens));
        TRY(choose(l, &l->out[0]));
        if (is_over(l)) return SDX_OK;
        for (int i = 0; i < g->n_self; i++)
            TRY(keep(l, &l->out[1 + i], axis, l->search.rows, l->search.parent, &l->past[i]));
        tokens = place_tokens(l);
        if (!g->encoder) extend_mask(l);
        body = g->decoder;
    }
    return SDX_OK;
}

static sdx_status give(loop *l, int64_t returned)
{
    sdx_run *run = l->run;
    const sdx_search_rules *r = &l->search.rules;
    sdx_shape sequences = {.rank = 3, .dim = {r->batch, returned, r->max_length}};
    sdx_shape scores = {.rank = 2, .dim = {r->batch, returned}};
    if (r->greedy) sequences = (sdx_shape){.rank = 2, .dim = {r->batch, r->max_length}};
    TRY(run->allocate(run, 0, SDX_I32, &sequences));
    if (run->n_out > 1) TRY(run->allocate(run, 1, SDX_F32, &scores));
    sdx_search_finish(&l->search, returned, run->out[0].data, run->n_out > 1 ? run->out[1].data : NULL);
    return SDX_OK;
}

static sdx_status start(loop *l, int64_t *returned)
{
    sdx_search_rules rules;
    const generation *g = l->g;
    sdx_run *run = l->run;
    int32_t *begin;
    TRY(read_rules(l, &rules, returned));
    ARENA_NEW(run->scratch, begin, (size_t)l->batch, run->err);
    for (int64_t i = 0; i < l->batch; i++) begin[i] = (int32_t)sdx_node_int(run->node, "decoder_start_token_id", -1);
    TRY(sdx_search_init(&l->search, &rules, g->encoder ? begin : l->prompt, run->scratch, run->err));
    int most_out = g->decoder->n_output, most_in = g->decoder->n_input;
    if (g->encoder && g->encoder->n_output > most_out) most_out = g->encoder->n_output;
    ARENA_NEW(run->scratch, l->in, (size_t)most_in, run->err);
    ARENA_NEW(run->scratch, l->out, (size_t)most_out, run->err);
    return place_prompt(l);
}

static sdx_status run_search(sdx_run *run)
{
    const sdx_tensor *ids = &run->in[IDS];
    loop l = {.run = run, .g = run->state, .prompt = ids->data, .batch = ids->dim[0], .width = ids->dim[1]};
    int64_t returned = 1;
    sdx_status status;
    ARENA_NEW(run->scratch, l.past, (size_t)l.g->n_past, run->err);
    TRY_GOTO(start(&l, &returned));
    TRY_GOTO(generate(&l));
    TRY_GOTO(give(&l, returned));
done:
    for (int i = 0; i < l.g->n_past; i++) free(l.past[i].data);
    free(l.states.data);
    return status;
}

#define MS    "com.microsoft"
#define FLAGS (SDX_OP_DYNAMIC | SDX_OP_NONDETERMINISTIC) /* a subgraph is never folded */
static const sdx_op_def rows[] = {
    {MS, "BeamSearch", 1, 0, 5, 12, 1, 3, FLAGS, infer_beam, prepare_beam, NULL, run_search},
    {MS, "GreedySearch", 1, 0, 2, 7, 1, 1, FLAGS, infer_greedy, prepare_greedy, NULL, run_search},
};
SDX_OP_TABLE(search);
