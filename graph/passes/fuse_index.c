/* fuse_index.c: x[nonzero(y)] as exporters spell it for sparse outputs (SPLADE: token ids and weights).
 *
 *     NonZero(y)[2,n] -- Transpose --+-- column 0 (Split | Slice, Squeeze) = i
 *                                    +-- column 1                          = j
 *
 *     i, j                                               ->   Gather(NonZero(y), 0), Gather(NonZero(y), 1)
 *     Reshape(Gather(Flatten(x), i * width + j), [n])    ->   GatherND(x, Transpose(NonZero(y)))
 *     GatherND(x, Concat(Unsqueeze(i), Unsqueeze(j)))    ->   GatherND(x, Transpose(NonZero(y)))
 *
 * where x has two axes of which the last is `width` long. */
#include "passes.h"

/* ---- coordinates ---------------------------------------------------------------------------------------- */

static int rank_of(const sdx_graph *g, sdx_id v)
{
    return sdx_match_type(g, v)->shape.rank;
}

static bool one_int(const sdx_graph *g, sdx_id v, int64_t *number)
{
    int count = 0;
    return v != SDX_NONE && sdx_type_ints(sdx_match_type(g, v), 1, number, &count) && count == 1;
}

static bool swaps_two(const sdx_graph *g, const sdx_node *transpose)
{
    size_t count = 0;
    const int64_t *perm = sdx_node_ints(transpose, "perm", &count);
    return rank_of(g, transpose->in[0]) == 2 && (!perm || (count == 2 && perm[0] == 1));
}

/* v is column k, [n,1], of a matrix [n,m]. */
static bool match_column(const sdx_graph *g, sdx_id v, sdx_id *matrix, int64_t *k)
{
    const sdx_node *n = sdx_graph_producer(g, v);
    int64_t end, axis, step = 1;
    if (!n || rank_of(g, v) != 2) return false;
    *matrix = n->in[0];
    if (sdx_match_is(n, "Split")) {
        axis = sdx_node_int(n, "axis", 0);
        for (*k = 0; n->out[*k] != v;) ++*k;
        for (int i = 0; i < n->n_out; i++)
            if (n->out[i] == SDX_NONE || sdx_match_last_dim(g, n->out[i]) != 1) return false;
        return axis == 1 || axis == -1;
    }
    return sdx_match_is(n, "Slice") && n->n_in >= 4 && one_int(g, n->in[1], k) && one_int(g, n->in[2], &end) &&
           one_int(g, n->in[3], &axis) && (axis == 1 || axis == -1) && *k >= 0 && end == *k + 1 &&
           (n->n_in < 5 || n->in[4] == SDX_NONE || (one_int(g, n->in[4], &step) && step == 1));
}

/* v[n] is row k of matrix[m,n], by way of its transpose. */
static bool match_transposed_row(const sdx_graph *g, sdx_id v, sdx_id *matrix, int64_t *k)
{
    sdx_id transposed;
    const sdx_node *squeeze = sdx_match_op(g, v, "Squeeze");
    if (!squeeze || rank_of(g, v) != 1 || !match_column(g, squeeze->in[0], &transposed, k)) return false;
    const sdx_node *transpose = sdx_match_op(g, transposed, "Transpose");
    if (!transpose || !swaps_two(g, transpose)) return false;
    *matrix = transpose->in[0];
    return true;
}

/* The same after the first rewrite. */
static bool match_row(const sdx_graph *g, sdx_id v, sdx_id *matrix, int64_t *k)
{
    const sdx_node *n = sdx_match_op(g, v, "Gather");
    if (!n || sdx_node_int(n, "axis", 0) != 0 || !sdx_graph_producer(g, n->in[0])) return false;
    *matrix = n->in[0];
    return sdx_match_is(sdx_graph_producer(g, *matrix), "NonZero") && one_int(g, n->in[1], k);
}

/* ---- look-ups ------------------------------------------------------------------------------------------- */

/* i * width + j with i and j rows 0 and 1 of the coordinates. */
static bool match_flat_index(const sdx_graph *g, sdx_id v, sdx_dim width, sdx_id *coordinates)
{
    const sdx_node *add = sdx_match_op(g, v, "Add");
    for (int side = 0; add && side < 2; side++) {
        const sdx_node *mul = sdx_match_op(g, add->in[side], "Mul");
        sdx_id i, other;
        int64_t row_i, row_j;
        double factor;
        if (!mul || !sdx_match_scalar_operand(g, mul, &i, &factor) || factor != (double)width) continue;
        if (match_row(g, i, coordinates, &row_i) && match_row(g, add->in[1 - side], &other, &row_j))
            return other == *coordinates && row_i == 0 && row_j == 1;
    }
    return false;
}

static const char *match_flat_lookup(const sdx_graph *g, const sdx_node *last, sdx_id *x, sdx_id *coordinates)
{
    const sdx_node *gather = sdx_match_is(last, "Reshape") ? sdx_match_op(g, last->in[0], "Gather") : NULL;
    if (!gather || rank_of(g, last->out[0]) != 1) return "no list of look-ups";
    const sdx_node *flat = sdx_match_op(g, gather->in[0], "Flatten");
    if (!flat) flat = sdx_match_op(g, gather->in[0], "Reshape");
    if (!flat || sdx_node_int(gather, "axis", 0) != 0) return "not from a flattened tensor";
    const sdx_shape *shape = &sdx_match_type(g, flat->out[0])->shape;
    *x = flat->in[0];
    if (rank_of(g, *x) != 2 || (shape->rank != 1 && !(shape->rank == 2 && shape->dim[1] == 1)))
        return "not flat";
    sdx_dim width = sdx_match_last_dim(g, *x);
    if (!sdx_dim_is_known(width) || !match_flat_index(g, gather->in[1], width, coordinates))
        return "not i * width + j";
    return NULL;
}

/* GatherND at a list of coordinates put together from its own rows. */
static const char *match_stacked_lookup(const sdx_graph *g, const sdx_node *last, sdx_id *x,
                                        sdx_id *coordinates)
{
    const sdx_node *stack = sdx_match_is(last, "GatherND") ? sdx_match_op(g, last->in[1], "Concat") : NULL;
    if (!stack || stack->n_in != 2 || rank_of(g, stack->out[0]) != 2) return "no stacked coordinates";
    *x = last->in[0];
    for (int i = 0; i < 2; i++) {
        const sdx_node *column = sdx_match_op(g, stack->in[i], "Unsqueeze");
        sdx_id matrix;
        int64_t row;
        if (!column || sdx_match_last_dim(g, column->out[0]) != 1 ||
            !match_row(g, column->in[0], &matrix, &row))
            return "not a column of coordinates";
        if (row != i || (i == 1 && matrix != *coordinates)) return "coordinates out of order";
        *coordinates = matrix;
    }
    bool joined = sdx_match_axis_is_last(g, stack, 0, stack->out[0]);
    return joined && sdx_node_int(last, "batch_dims", 0) == 0 && rank_of(g, *x) == 2 ? NULL
                                                                                     : "not a plain look-up";
}

/* ---- rewriting ------------------------------------------------------------------------------------------ */

static sdx_status fuse_row(sdx_pass_context *context, sdx_graph *g, sdx_id id, sdx_id matrix, int64_t row)
{
    sdx_tensor t = {.dtype = SDX_I64, .data = sdx_arena_alloc(&g->model->arena, sizeof row)};
    if (!t.data) return sdx_fail_memory(context->err, sizeof row);
    *(int64_t *)t.data = row;
    sdx_id in[2] = {matrix, SDX_NONE}, out = g->node[id].out[0], node;
    TRY(sdx_graph_add_constant(g, "row", &t, &in[1], context->err));
    TRY(sdx_pass_replace(context, g, id, "", "Gather", 2, in, 1, &out, &node));
    return sdx_node_set_int(g, node, "axis", 0, context->err);
}

static sdx_status fuse_lookup(sdx_pass_context *context, sdx_graph *g, sdx_id id, sdx_id x, sdx_id coordinates)
{
    static const int64_t swapped[2] = {1, 0};
    sdx_id in[2] = {x, SDX_NONE}, out = g->node[id].out[0], node;
    TRY(sdx_graph_emit(g, "", "Transpose", "coordinates", 1, &coordinates, &in[1], context->err));
    TRY(sdx_node_set_ints(g, g->value[in[1]].producer, "perm", 2, swapped, context->err));
    return sdx_pass_replace(context, g, id, "", "GatherND", 2, in, 1, &out, &node);
}

sdx_status sdx_pass_fuse_index(sdx_pass_context *context, sdx_graph *graph)
{
    sdx_id x, matrix, count = graph->n_node;
    int64_t row;
    if (sdx_model_opset(graph->model, "") < 12) return SDX_OK; /* GatherND as it is today */
    for (sdx_id i = 0; i < count; i++) {
        const sdx_node *n = &graph->node[i];
        if (n->dead) continue;
        if (sdx_match_is(n, "Squeeze") && match_transposed_row(graph, n->out[0], &matrix, &row))
            TRY(fuse_row(context, graph, i, matrix, row));
        else if (!match_flat_lookup(graph, n, &x, &matrix) || !match_stacked_lookup(graph, n, &x, &matrix))
            TRY(fuse_lookup(context, graph, i, x, matrix));
    }
    return sdx_pass_finish(context, graph);
}
