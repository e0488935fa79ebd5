/* fuse_embed_layer_norm.c: the embeddings of BERT (Devlin et al., 2018) and their normalization.
 *
 *     Gather(words[v,h], input_ids[b,s]) -----------+
 *     Gather(segments[2,h], token_type_ids[b,s]) -- Add --+
 *     Gather(positions[p,h], row 0, 1, 2, ...) ---------- Add -- LayerNormalization
 *
 * becomes com.microsoft EmbedLayerNormalization with int32 ids. The operator counts positions by itself; they
 * are given as position_ids only where the model computes them otherwise (RoBERTa skips padding). Segments are
 * optional. A sum of look-ups does not depend on the roles of its tables, so any two or three with full ids
 * will do. A look-up of the same row everywhere (token_type_ids that default to 0) is added to the table of
 * positions beforehand. Positions that were looked up beforehand, a constant [b,s,h], are a table of their own; so are
 * segments of which each row is the same. */
#include <string.h>

#include "passes.h"

typedef struct lookup {
    sdx_id table, ids;
    int64_t rows;
    bool counts;      /* the ids are 0, 1, 2, ... in every row */
    bool uniform;     /* and the rows of the table are all alike */
    bool is_constant; /* the ids are all `row` */
    int64_t row;
} lookup;

typedef struct embedding {
    lookup word, segment, position, constant; /* table SDX_NONE: absent */
    sdx_id gamma, beta, sum;
    float epsilon;
} embedding;

/* ---- positions ------------------------------------------------------------------------------------------ */

/* Elements first, first + step, first + 2 step, ... of a constant at any alignment. */
static bool is_progression(const sdx_tensor *t, int64_t first, int64_t step)
{
    if (t->dtype != SDX_I64 && t->dtype != SDX_I32) return false;
    size_t each = sdx_dtype_size(t->dtype);
    int64_t n = sdx_tensor_count(t);
    for (int64_t i = 0; i < n; i++) {
        int64_t wide = 0;
        int32_t narrow = 0;
        memcpy(each == 8 ? (void *)&wide : (void *)&narrow, (const char *)t->data + (size_t)i * each, each);
        if ((each == 8 ? wide : narrow) != first + step * i) return false;
    }
    return true;
}

static bool counts_up(const sdx_tensor *t)
{
    return is_progression(t, 0, 1);
}

static bool is_one_int(const sdx_graph *g, sdx_id v, int64_t wanted)
{
    int64_t number;
    int count = 0;
    return v != SDX_NONE && sdx_type_ints(sdx_match_type(g, v), 1, &number, &count) && count == 1 &&
           number == wanted;
}

/* The single element of a small tensor is the size `length`. */
static bool is_size(const sdx_graph *g, sdx_id v, sdx_dim length)
{
    int count = 0;
    const sdx_element *e = sdx_type_contents(sdx_match_type(g, v), &count);
    return e && count == 1 && sdx_dim_same(sdx_element_to_dim(e[0]), length);
}

/* Slice of a constant row [1, p], keeping columns 0 to length. */
static bool is_counted_slice(const sdx_graph *g, const sdx_node *slice, sdx_dim length)
{
    const sdx_tensor *row = sdx_graph_constant(g, slice->in[0]);
    if (!row || slice->n_in < 3 || row->rank < 1 || sdx_tensor_count(row) != row->dim[row->rank - 1])
        return false;
    sdx_id axes = sdx_node_in(slice, 3), steps = sdx_node_in(slice, 4);
    bool last =
        axes == SDX_NONE ? row->rank == 1 : is_one_int(g, axes, row->rank - 1) || is_one_int(g, axes, -1);
    return last && is_one_int(g, slice->in[1], 0) && is_size(g, slice->in[2], length) &&
           (steps == SDX_NONE || is_one_int(g, steps, 1)) && counts_up(row);
}

static bool is_counted_range(const sdx_graph *g, const sdx_node *range, sdx_dim length)
{
    return is_one_int(g, range->in[0], 0) && is_size(g, range->in[1], length) && is_one_int(g, range->in[2], 1);
}

/* ids is the row 0, 1, ... length-1, perhaps repeated for every text. */
static bool counts(const sdx_graph *g, sdx_id ids, sdx_dim length)
{
    for (const sdx_node *n; (n = sdx_match_op(g, ids, "Expand")) || (n = sdx_match_op(g, ids, "Unsqueeze"));)
        ids = n->in[0];
    ids = sdx_match_through(g, ids);
    const sdx_node *slice = sdx_match_op(g, ids, "Slice"), *range = sdx_match_op(g, ids, "Range");
    const sdx_tensor *row = sdx_graph_constant(g, ids);
    if (slice) return is_counted_slice(g, slice, length);
    if (range) return is_counted_range(g, range, length);
    return row && row->rank >= 1 && row->dim[row->rank - 1] == length && sdx_tensor_count(row) == length &&
           counts_up(row);
}

/* ids is row 0 or 1 whatever the input: a slice of a buffer of that number, perhaps repeated. */
static bool is_constant(const sdx_graph *g, sdx_id ids, int64_t *row)
{
    for (const sdx_node *n; (n = sdx_match_op(g, ids, "Expand")) || (n = sdx_match_op(g, ids, "Unsqueeze")) ||
                            (n = sdx_match_op(g, ids, "Slice"));)
        ids = n->in[0];
    const sdx_tensor *t = sdx_graph_constant(g, sdx_match_through(g, ids));
    for (*row = 0; t && *row < 2; ++*row)
        if (is_progression(t, *row, 0)) return true;
    return false;
}

/* ---- look-ups ------------------------------------------------------------------------------------------- */

/* All `count` parts of so many bytes are alike. */
static bool repeats(const void *data, int64_t count, size_t bytes)
{
    for (int64_t i = 1; i < count; i++)
        if (memcmp((const char *)data + (size_t)i * bytes, data, bytes)) return false;
    return count > 0;
}

/* A constant [s,h], or the same one for each of b texts. */
static bool match_looked_up(const sdx_tensor *t, sdx_id v, const sdx_shape *sum, lookup *out)
{
    if (t->dtype != SDX_F32 || t->rank < 2 || t->rank > 3) return false;
    int64_t rows = t->dim[t->rank - 2], width = t->dim[t->rank - 1], texts = t->rank == 3 ? t->dim[0] : 1;
    size_t row_bytes = (size_t)width * sizeof(float);
    if (rows != sum->dim[1] || width != sum->dim[2]) return false;
    if (!repeats(t->data, texts, (size_t)rows * row_bytes)) return false;
    *out = (lookup){.table = v, .ids = SDX_NONE, .rows = rows, .counts = true};
    out->uniform = repeats(t->data, rows, row_bytes);
    return true;
}

static bool match_lookup(const sdx_graph *g, sdx_id v, const sdx_shape *sum, lookup *out)
{
    const sdx_node *expand = sdx_match_op(g, v, "Expand"); /* one text's positions, for all */
    if (expand) v = expand->in[0];
    const sdx_node *gather = sdx_match_op(g, v, "Gather");
    const sdx_tensor *looked_up = sdx_graph_constant(g, v);
    if (looked_up) return match_looked_up(looked_up, v, sum, out);
    if (!gather || sdx_node_int(gather, "axis", 0) != 0) return false;
    const sdx_tensor *table = sdx_graph_constant(g, gather->in[0]);
    if (!table || table->dtype != SDX_F32 || table->rank != 2 || table->dim[1] != sum->dim[2]) return false;
    *out = (lookup){.table = gather->in[0], .ids = gather->in[1], .rows = table->dim[0]};
    out->is_constant = is_constant(g, out->ids, &out->row) && out->row < out->rows;
    out->counts = !out->is_constant && counts(g, out->ids, sum->dim[1]);
    const sdx_shape *ids = &sdx_match_type(g, out->ids)->shape;
    bool full =
        ids->rank == 2 && sdx_dim_same(ids->dim[0], sum->dim[0]) && sdx_dim_same(ids->dim[1], sum->dim[1]);
    return full || out->counts || out->is_constant;
}

/* The look-ups in a tree of Adds; more than three are counted but not kept. */
static bool read_sum(const sdx_graph *g, sdx_id v, int depth, const sdx_shape *sum, lookup list[3], int *count)
{
    lookup one;
    if (match_lookup(g, v, sum, &one)) {
        if (*count == 3) return false;
        list[(*count)++] = one;
        return true;
    }
    const sdx_node *add = sdx_match_op(g, v, "Add");
    return add && depth > 0 && read_sum(g, add->in[0], depth - 1, sum, list, count) &&
           read_sum(g, add->in[1], depth - 1, sum, list, count);
}

static lookup take(lookup *list, int *count, int i)
{
    lookup taken = list[i];
    list[i] = list[--*count];
    return taken;
}

static int largest(const lookup *list, int count)
{
    int best = 0;
    for (int i = 1; i < count; i++)
        if (list[i].rows > list[best].rows) best = i;
    return best;
}

/* Positions are the counted ones; else, as for words, the larger table that is left. */
static bool assign(lookup *list, int count, embedding *m)
{
    int counted = -1, counts = 0;
    m->segment.table = m->segment.ids = m->constant.table = SDX_NONE;
    for (int i = 0; i < count; i++) counts += list[i].counts;
    for (int i = count; i-- > 0;)
        if ((list[i].is_constant || (list[i].uniform && counts > 1)) && m->constant.table == SDX_NONE)
            m->constant = take(list, &count, i);
    for (int i = 0; i < count; i++)
        if (list[i].counts) counted = i;
    if (counted >= 0) m->position = take(list, &count, counted);
    if (count == 0) return false;
    m->word = take(list, &count, largest(list, count));
    if (counted < 0 && count == 0) return false;
    if (counted < 0) m->position = take(list, &count, largest(list, count));
    if (count > 0) m->segment = take(list, &count, 0);
    return !m->word.counts && !m->segment.counts && !m->word.is_constant && !m->segment.is_constant;
}

/* ---- the whole ------------------------------------------------------------------------------------------ */

static const char *match(const sdx_graph *g, const sdx_node *norm, embedding *m)
{
    lookup list[3];
    int count = 0;
    if (!sdx_match_is(norm, "LayerNormalization") || !sdx_match_axis_is_last(g, norm, -1, norm->in[0]))
        return "not a LayerNormalization over the last axis";
    const sdx_node *add = sdx_match_op(g, norm->in[0], "Add");
    const sdx_shape *sum = &sdx_match_type(g, norm->in[0])->shape;
    if (!add || sum->rank != 3) return "no sum of rank 3 before it";
    if (!read_sum(g, add->out[0], 3, sum, list, &count)) return "not a sum of look-ups in constant tables";
    *m = (embedding){.gamma = norm->in[1], .beta = sdx_node_in(norm, 2)};
    if (count < 2 || !assign(list, count, m)) return "words and positions cannot be told apart";
    if (!sdx_match_vector(g, m->gamma, sum->dim[2]) || !sdx_match_vector(g, m->beta, sum->dim[2]))
        return "gamma or beta is not a constant of the last axis";
    m->epsilon = sdx_node_float(norm, "epsilon", 1e-5f);
    m->sum = g->value[add->out[0]].uses > 1 ? add->out[0] : SDX_NONE;
    return NULL;
}

const char *sdx_embedding_reason(const sdx_graph *g, const sdx_node *norm)
{
    embedding m;
    return match(g, norm, &m);
}

/* The matrix of the first text serves all. */
static sdx_status add_matrix(sdx_pass_context *context, sdx_graph *g, sdx_id *table)
{
    sdx_tensor t = *sdx_graph_constant(g, *table);
    if (t.rank == 2) return SDX_OK;
    const char *name = sdx_arena_printf(&g->model->arena, "%s_table", g->value[*table].name);
    if (!name) return sdx_fail_memory(context->err, 64);
    t = (sdx_tensor){.dtype = t.dtype, .rank = 2, .dim = {t.dim[1], t.dim[2]}, .data = t.data};
    return sdx_graph_add_constant(g, name, &t, table, context->err);
}

/* positions + the constant row, as a new table */
static sdx_status add_constant_row(sdx_pass_context *context, sdx_graph *g, const lookup *constant,
                                   sdx_id *table)
{
    sdx_tensor t = *sdx_graph_constant(g, *table);
    int64_t width = t.dim[1];
    size_t row_bytes = (size_t)width * sizeof(float), bytes = sdx_tensor_bytes(&t);
    const char *row =
        (const char *)sdx_graph_constant(g, constant->table)->data + (size_t)constant->row * row_bytes;
    float *sum = sdx_arena_alloc(&g->model->arena, bytes);
    if (!sum) return sdx_fail_memory(context->err, bytes);
    memcpy(sum, t.data, bytes);
    for (int64_t k = 0; k < width; k++) {
        float addend;
        memcpy(&addend, row + (size_t)k * sizeof addend, sizeof addend);
        for (int64_t i = 0; i < t.dim[0]; i++) sum[i * width + k] += addend;
    }
    const char *name = sdx_arena_printf(&g->model->arena, "%s_and_segment", g->value[*table].name);
    if (!name) return sdx_fail_memory(context->err, 64);
    t.data = sum;
    return sdx_graph_add_constant(g, name, &t, table, context->err);
}

static sdx_status fuse(sdx_pass_context *context, sdx_graph *g, sdx_id norm, const embedding *m)
{
    sdx_id in[9] = {SDX_NONE, SDX_NONE, m->word.table, m->position.table, m->segment.table,
                    m->gamma, m->beta,  SDX_NONE,      SDX_NONE};
    sdx_id out[3] = {g->node[norm].out[0], SDX_NONE, m->sum}, node;
    TRY(sdx_graph_add_value(g, "mask_index", &out[1],
                            context->err)); /* ONNX Runtime insists that it has a name */
    TRY(add_matrix(context, g, &in[3]));
    if (m->constant.table != SDX_NONE) TRY(add_constant_row(context, g, &m->constant, &in[3]));
    TRY(sdx_pass_int32(context, g, m->word.ids, &in[0]));
    if (m->segment.ids != SDX_NONE) TRY(sdx_pass_int32(context, g, m->segment.ids, &in[1]));
    if (!m->position.counts) TRY(sdx_pass_int32(context, g, m->position.ids, &in[8]));
    int n_in = m->position.counts ? 7 : 9, n_out = m->sum == SDX_NONE ? 2 : 3;
    TRY(sdx_pass_replace(context, g, norm, SDX_MS, "EmbedLayerNormalization", n_in, in, n_out, out, &node));
    return sdx_node_set_float(g, node, "epsilon", m->epsilon, context->err);
}

sdx_status sdx_pass_fuse_embed_layer_norm(sdx_pass_context *context, sdx_graph *graph)
{
    if (context->standard) return SDX_OK;
    embedding m;
    sdx_id count = graph->n_node;
    for (sdx_id i = 0; i < count; i++)
        if (!match(graph, &graph->node[i], &m)) TRY(fuse(context, graph, i, &m));
    return sdx_pass_finish(context, graph);
}
