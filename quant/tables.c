/* tables.c: look-ups. Rows are fetched, never multiplied, so a table can have scales that a product could not:
 *
 *   row scales   Gather(Wq int8, i) -> Cast -> Mul(Gather(scale[rows, 1], i))
 *   ORT's form   Gather(Wq uint8, i) -> DequantizeLinear, one scale for the table
 *
 * EmbedLayerNormalization becomes its look-ups, a sum and a SkipLayerNormalization in float, because the 8-bit gamma
 * and beta of QEmbedLayerNormalization lose more than all the tables; ORT's form is QEmbedLayerNormalization. */
#include "quantizer.h"

enum { SMALL = 16 }; /* rows of a table, segments say, that stays in float: nothing to gain */

static const sdx_quant_format table_format = {false, false, false}, row_format = {true, true, false};

/* float32 rows of a table quantized by row, given its codes and scales. */
static sdx_status emit_rows(sdx_quantizer *z, const char *name, sdx_id codes, sdx_id scales, sdx_id result)
{
    sdx_id cast;
    TRY(sdx_quantizer_emit(z, "", "Cast", name, "_cast", 1, &codes, &cast));
    TRY(sdx_node_set_int(z->graph, z->graph->n_node - 1, "to", SDX_F32, z->err));
    return sdx_quantizer_emit_to(z, "", "Mul", name, "_scaled", 2, (sdx_id[]){cast, scales}, result, NULL);
}

static sdx_status emit_row_gather(sdx_quantizer *z, const char *name, sdx_id table, sdx_id index, sdx_id result)
{
    sdx_quantized t;
    sdx_id codes, scales;
    TRY(sdx_quantizer_weight(z, table, row_format, SDX_QUANT_ROW, NULL, &t));
    TRY(sdx_quantizer_emit(z, "", "Gather", name, "_quant", 2, (sdx_id[]){t.q, index}, &codes));
    TRY(sdx_quantizer_emit(z, "", "Gather", name, "_quant_scale", 2, (sdx_id[]){t.scale, index}, &scales));
    return emit_rows(z, name, codes, scales, result);
}

static sdx_status emit_plain_gather(sdx_quantizer *z, const char *name, const sdx_node *n)
{
    sdx_quantized table;
    sdx_id rows;
    TRY(sdx_quantizer_weight(z, n->in[0], table_format, SDX_QUANT_TENSOR, NULL, &table));
    TRY(sdx_quantizer_emit(z, "", "Gather", name, "_quant", 2, (sdx_id[]){table.q, n->in[1]}, &rows));
    TRY(sdx_node_set_int(z->graph, z->graph->n_node - 1, "axis", sdx_node_int(n, "axis", 0), z->err));
    return sdx_quantizer_emit_to(z, "", "DequantizeLinear", name, "_DequantizeLinear", 3,
                                 (sdx_id[]){rows, table.scale, table.zero}, n->out[0], NULL);
}

sdx_status sdx_quant_gather(sdx_quantizer *z, sdx_id node, bool *done)
{
    sdx_node n = z->graph->node[node];
    if (!sdx_quantizer_is_weight(z, n.in[0], 2) || sdx_graph_constant(z->graph, n.in[1])) return SDX_OK;
    const sdx_tensor *t = sdx_graph_constant(z->graph, n.in[0]);
    if (z->recipe.row_scales && t->dim[0] <= SMALL) return SDX_OK;
    z->graph->node[node].dead = *done = true;
    const char *name = sdx_quantizer_node_name(z, &n);
    bool rows = t->rank == 2 && sdx_node_int(&n, "axis", 0) == 0;
    if (z->recipe.row_scales && rows) return emit_row_gather(z, name, n.in[0], n.in[1], n.out[0]);
    return emit_plain_gather(z, name, &n);
}

/* ---- EmbedLayerNormalization ----------------------------------------------------------------------------- */

enum { IDS, SEGMENT_IDS, WORD, POSITION, SEGMENT, GAMMA, BETA, MASK, POSITION_IDS };

static bool is_taken(const sdx_quantizer *z, const sdx_node *n)
{
    for (int i = WORD; i <= BETA; i++) {
        bool absent = i == SEGMENT && sdx_node_in(n, i) == SDX_NONE;
        if (!absent && !sdx_quantizer_is_weight(z, sdx_node_in(n, i), 1)) return false;
    }
    return sdx_node_out(n, 2) == SDX_NONE;
}

/* Rows 0 .. tokens-1 of the position table, [tokens, width]. */
static sdx_status emit_positions(sdx_quantizer *z, const char *name, const sdx_node *n, sdx_id *out)
{
    sdx_quantized t;
    sdx_id shape, zero, one, two, tokens, codes, scales;
    TRY(sdx_quantizer_weight(z, n->in[POSITION], row_format, SDX_QUANT_ROW, NULL, &t));
    TRY(sdx_quantizer_emit(z, "", "Shape", name, "_shape", 1, &n->in[IDS], &shape));
    TRY(sdx_graph_add_ints(z->graph, "zero", 1, (int64_t[]){0}, &zero, z->err));
    TRY(sdx_graph_add_ints(z->graph, "one", 1, (int64_t[]){1}, &one, z->err));
    TRY(sdx_graph_add_ints(z->graph, "two", 1, (int64_t[]){2}, &two, z->err));
    TRY(sdx_quantizer_emit(z, "", "Slice", name, "_tokens", 3, (sdx_id[]){shape, one, two}, &tokens));
    TRY(sdx_quantizer_emit(z, "", "Slice", name, "_position_codes", 4, (sdx_id[]){t.q, zero, tokens, zero}, &codes));
    TRY(sdx_quantizer_emit(z, "", "Slice", name, "_position_scales", 4, (sdx_id[]){t.scale, zero, tokens, zero},
                           &scales));
    TRY(sdx_graph_add_value(z->graph, sdx_quantizer_suffixed(z, name, "_positions"), out, z->err));
    return emit_rows(z, sdx_quantizer_name(z, *out), codes, scales, *out);
}

/* What is added to the words, of their full shape. */
static sdx_status emit_skip(sdx_quantizer *z, const char *name, const sdx_node *n, sdx_id words, sdx_id *out)
{
    sdx_id positions, other, shape, given = sdx_node_in(n, POSITION_IDS);
    if (given == SDX_NONE) {
        TRY(emit_positions(z, name, n, &positions));
    } else {
        TRY(sdx_graph_add_value(z->graph, sdx_quantizer_suffixed(z, name, "_positions"), &positions, z->err));
        TRY(emit_row_gather(z, sdx_quantizer_name(z, positions), n->in[POSITION], given, positions));
    }
    if (n->in[SEGMENT] == SDX_NONE) { /* SkipLayerNormalization wants two tensors of one shape */
        TRY(sdx_quantizer_emit(z, "", "Shape", name, "_words_shape", 1, &words, &shape));
        return sdx_quantizer_emit(z, "", "Expand", name, "_skip", 2, (sdx_id[]){positions, shape}, out);
    }
    TRY(sdx_quantizer_emit(z, "", "Gather", name, "_segments", 2, (sdx_id[]){n->in[SEGMENT], n->in[SEGMENT_IDS]},
                           &other));
    return sdx_quantizer_emit(z, "", "Add", name, "_skip", 2, (sdx_id[]){other, positions}, out);
}

static sdx_status emit_float_embed(sdx_quantizer *z, const sdx_node *n)
{
    static const char *const attributes[] = {"epsilon", NULL};
    const char *name = sdx_quantizer_suffixed(z, sdx_quantizer_node_name(z, n), "_rows");
    if (!name) return sdx_fail_memory(z->err, 1);
    sdx_id words, skip, node;
    TRY(sdx_graph_add_value(z->graph, sdx_quantizer_suffixed(z, name, "_words"), &words, z->err));
    TRY(emit_row_gather(z, sdx_quantizer_name(z, words), n->in[WORD], n->in[IDS], words));
    TRY(emit_skip(z, name, n, words, &skip));
    TRY(sdx_quantizer_emit_to(z, "com.microsoft", "SkipLayerNormalization", name, "", 4,
                              (sdx_id[]){words, skip, n->in[GAMMA], n->in[BETA]}, n->out[0], &node));
    return sdx_quantizer_copy_attributes(z, n, node, attributes);
}

static sdx_status emit_8bit_embed(sdx_quantizer *z, const sdx_node *n)
{
    static const char *const attributes[] = {"epsilon", NULL};
    sdx_quantized table[5] = {[SEGMENT - WORD] = {SDX_NONE, SDX_NONE, SDX_NONE, SDX_NONE, 0, NULL}}; /* word ... beta */
    for (int i = 0; i < 5; i++)
        if (n->in[WORD + i] != SDX_NONE)
            TRY(sdx_quantizer_weight(z, n->in[WORD + i], table_format, SDX_QUANT_TENSOR, NULL, &table[i]));
    sdx_id in[18] = {n->in[IDS], n->in[SEGMENT_IDS]}, made;
    for (int i = 0; i < 5; i++) {
        in[2 + i] = table[i].q;
        in[8 + i] = table[i].scale;
        in[13 + i] = table[i].zero;
    }
    in[7] = sdx_node_in(n, MASK);
    const char *name = sdx_quantizer_suffixed(z, sdx_quantizer_node_name(z, n), "_quant");
    if (!name) return sdx_fail_memory(z->err, 1);
    /* The schema wants both outputs; the second may go unread. */
    sdx_id out[2] = {n->out[0], sdx_node_out(n, 1)};
    if (out[1] == SDX_NONE)
        TRY(sdx_graph_add_value(z->graph, sdx_quantizer_suffixed(z, name, "_mask_index"), &out[1], z->err));
    TRY(sdx_graph_add_node(z->graph, "com.microsoft", "QEmbedLayerNormalization", name, 18, in, 2, out, &made, z->err));
    return sdx_quantizer_copy_attributes(z, n, made, attributes);
}

sdx_status sdx_quant_embed(sdx_quantizer *z, sdx_id node, bool *done)
{
    sdx_node n = z->graph->node[node];
    if (!is_taken(z, &n)) return SDX_OK;
    sdx_id index = sdx_node_out(&n, 1);
    bool reads_index = index != SDX_NONE && z->graph->value[index].uses > 0;
    bool in_float = z->recipe.row_scales && !reads_index;
    if (!in_float && sdx_node_in(&n, POSITION_IDS) != SDX_NONE) return SDX_OK;
    z->graph->node[node].dead = *done = true;
    return in_float ? emit_float_embed(z, &n) : emit_8bit_embed(z, &n);
}
