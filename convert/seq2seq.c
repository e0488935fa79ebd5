/* seq2seq.c: see seq2seq.h */
#include "seq2seq.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "../base/memory.h"

static const char *const cached[SDX_CACHED] = {"decoder.key", "decoder.value", "encoder.key", "encoder.value"};

sdx_text_inputs sdx_build_encoder_inputs(sdx_builder *b)
{
    const int64_t dim[] = {SDX_BATCH, SDX_ENCODER_SEQUENCE};
    sdx_text_inputs in = {.types = SDX_NONE};
    in.ids = sdx_build_input(b, "input_ids", SDX_I64, 2, dim);
    in.mask = sdx_build_input(b, "attention_mask", SDX_I64, 2, dim);
    return in;
}

static void add_past_inputs(sdx_builder *b, sdx_decoder_graph *d)
{
    char name[64];
    for (int64_t i = 0; i < d->layers * SDX_CACHED; i++) {
        int64_t length = i % SDX_CACHED < 2 ? SDX_PAST : SDX_ENCODER_SEQUENCE;
        snprintf(name, sizeof name, "past_key_values.%" PRId64 ".%s", i / SDX_CACHED, cached[i % SDX_CACHED]);
        d->past[i] = sdx_build_input(b, name, SDX_F32, 4, (int64_t[]){SDX_BATCH, d->heads, length, d->size});
    }
}

/* Queries stand behind `past` tokens, keys begin at the first. */
static void add_positions(sdx_builder *b, sdx_decoder_graph *d)
{
    const char *name = "positions";
    d->queries = d->keys = sdx_build_range(b, name, d->ids);
    if (!d->with_past) return;
    sdx_id shape = sdx_build_op1(b, "Shape", "positions/Shape_past", d->past[0]);
    sdx_id past = sdx_build_op2(b, "Gather", "positions/Gather_past", shape, sdx_build_int(b, 2));
    d->queries = sdx_build_module_op2(b, name, "Add", d->queries, past);
    shape = sdx_build_op1(b, "Shape", "positions/Shape_new", d->ids);
    sdx_id length = sdx_build_op2(b, "Gather", "positions/Gather_new", shape, sdx_build_int(b, 1));
    length = sdx_build_op2(b, "Add", "positions/Add_length", past, length);
    sdx_id in[] = {sdx_build_int(b, 0), length, sdx_build_int(b, 1)};
    d->keys = sdx_build_op(b, "Range", "positions/Range_keys", 3, in);
}

static void take_caches(sdx_builder *b, sdx_decoder_graph *d)
{
    size_t count = (size_t)d->layers * SDX_CACHED;
    d->past = sdx_malloc(count * sizeof *d->past);
    d->present = sdx_malloc(count * sizeof *d->present);
    if (!d->past || !d->present) sdx_build_fail(b, SDX_ERR_MEMORY, "out of memory");
    for (size_t i = 0; b->status == SDX_OK && i < count; i++) d->past[i] = d->present[i] = SDX_NONE;
}

void sdx_build_decoder_drop(sdx_decoder_graph *d)
{
    free(d->past);
    free(d->present);
}

void sdx_build_decoder_inside(sdx_builder *b, sdx_decoder_graph *d, sdx_id ids, sdx_id mask, sdx_id encoded)
{
    d->ids = ids;
    d->encoded = encoded;
    take_caches(b, d);
    sdx_build_scope(b, "decoder.");
    add_positions(b, d);
    d->encoder_bias = sdx_build_attention_bias(b, mask);
}

void sdx_build_decoder_begin(sdx_builder *b, sdx_decoder_graph *d, int64_t hidden)
{
    sdx_id mask =
        sdx_build_input(b, "encoder_attention_mask", SDX_I64, 2, (int64_t[]){SDX_BATCH, SDX_ENCODER_SEQUENCE});
    d->ids = sdx_build_input(b, "input_ids", SDX_I64, 2, (int64_t[]){SDX_BATCH, SDX_DECODER_SEQUENCE});
    d->encoded = SDX_NONE;
    take_caches(b, d);
    if (b->status != SDX_OK) return;
    if (d->with_past)
        add_past_inputs(b, d);
    else
        d->encoded = sdx_build_input(b, "encoder_hidden_states", SDX_F32, 3,
                                     (int64_t[]){SDX_BATCH, SDX_ENCODER_SEQUENCE, hidden});
    sdx_build_scope(b, "decoder.");
    add_positions(b, d);
    d->encoder_bias = sdx_build_attention_bias(b, mask);
}

/* ---- attention ------------------------------------------------------------------------------------------- */

/* x [B, S, H] -> [B, heads, S, size] */
static sdx_id project(sdx_builder *b, const sdx_decoder_graph *d, const char *label, const char *suffix,
                      const char *module, sdx_id x)
{
    x = sdx_build_split_heads(b, label, suffix, sdx_build_linear(b, module, x), d->heads, d->size);
    return sdx_build_heads_first(b, label, suffix, x, false);
}

static sdx_id attend(sdx_builder *b, const sdx_decoder_graph *d, const sdx_attention_names *n, sdx_id x,
                     sdx_id k, sdx_id v, sdx_id bias)
{
    char label[64];
    sdx_id q = project(b, d, n->attention, "q", n->query, x);
    snprintf(label, sizeof label, "%s/Transpose_keys", n->attention);
    k = sdx_build_transpose(b, label, k, 4, (int64_t[]){0, 1, 3, 2});
    snprintf(label, sizeof label, "%s/MatMul_qk", n->attention);
    sdx_id scores = sdx_build_op2(b, "MatMul", label, q, k);
    if (d->divisor != 1)
        scores = sdx_build_module_op2(b, n->attention, "Div", scores, sdx_build_real(b, d->divisor));
    return sdx_build_linear(b, n->out, sdx_build_attend(b, n->attention, scores, bias, v, d->heads * d->size));
}

static sdx_id join(sdx_builder *b, const char *module, const char *suffix, sdx_id past, sdx_id x)
{
    char label[64];
    snprintf(label, sizeof label, "%s/Concat_%s", module, suffix);
    x = sdx_build_op2(b, "Concat", label, past, x);
    sdx_build_attr_int(b, "axis", 2);
    return x;
}

sdx_id sdx_build_decoder_self_attention(sdx_builder *b, sdx_decoder_graph *d, const sdx_attention_names *n,
                                        sdx_id x, sdx_id bias)
{
    if (b->status != SDX_OK) return SDX_NONE;
    sdx_id k = project(b, d, n->attention, "k", n->key, x), v = project(b, d, n->attention, "v", n->value, x);
    const sdx_id *past = d->past + d->layer * SDX_CACHED;
    if (d->with_past) {
        k = join(b, n->attention, "k", past[0], k);
        v = join(b, n->attention, "v", past[1], v);
    }
    d->present[d->layer * SDX_CACHED] = k;
    d->present[d->layer * SDX_CACHED + 1] = v;
    return attend(b, d, n, x, k, v, bias);
}

sdx_id sdx_build_decoder_cross_attention(sdx_builder *b, sdx_decoder_graph *d, const sdx_attention_names *n,
                                         sdx_id x)
{
    if (b->status != SDX_OK) return SDX_NONE;
    const sdx_id *past = d->past + d->layer * SDX_CACHED;
    if (d->with_past) return attend(b, d, n, x, past[2], past[3], d->encoder_bias);
    sdx_id k = project(b, d, n->attention, "k", n->key, d->encoded);
    sdx_id v = project(b, d, n->attention, "v", n->value, d->encoded);
    d->present[d->layer * SDX_CACHED + 2] = k;
    d->present[d->layer * SDX_CACHED + 3] = v;
    return attend(b, d, n, x, k, v, d->encoder_bias);
}

double *sdx_forward_decoder_attention(sdx_forward *f, const sdx_decoder_graph *d, const sdx_attention_names *n,
                                      const double *x, const double *rows, int64_t keys, const double *bias)
{
    const double *q = sdx_forward_linear(f, n->query, x, f->count), *k = sdx_forward_linear(f, n->key, rows, keys),
                 *v = sdx_forward_linear(f, n->value, rows, keys);
    const double *y = sdx_forward_attention_to(f, q, k, v, keys, d->heads, d->size, d->divisor, bias);
    return sdx_forward_linear(f, n->out, y, f->count);
}

double *sdx_forward_causal_bias(sdx_forward *f, int64_t heads)
{
    int64_t S = f->count;
    double *bias = sdx_forward_alloc(f, heads * S * S);
    for (int64_t i = 0; f->status == SDX_OK && i < heads * S * S; i++)
        if (i % S > i / S % S) bias[i] = -INFINITY;
    return bias;
}

/* ---- the end --------------------------------------------------------------------------------------------- */

/* What the merged graph gives of the encoder after the first step: nothing, in a shape as Optimum's. */
static sdx_id build_nothing(sdx_builder *b, const sdx_decoder_graph *d)
{
    static const float none[1];
    const sdx_tensor t = {.dtype = SDX_F32, .rank = 4, .dim = {0, d->heads, 1, d->size}, .data = (void *)none};
    sdx_id id = sdx_build_op(b, "Constant", "nothing", 0, NULL);
    sdx_build_attr_tensor(b, "value", &t);
    return id;
}

static void add_outputs(sdx_builder *b, const sdx_decoder_graph *d, sdx_id logits)
{
    char name[64];
    sdx_build_output(b, logits, "logits", SDX_F32, 3, (int64_t[]){SDX_BATCH, SDX_DECODER_SEQUENCE, d->vocab});
    for (int64_t i = 0; b->status == SDX_OK && i < d->layers * SDX_CACHED; i++) {
        int64_t own = d->with_past ? SDX_PRESENT : SDX_DECODER_SEQUENCE;
        int64_t length = i % SDX_CACHED < 2 ? own : SDX_ENCODER_SEQUENCE;
        int64_t dim[] = {SDX_BATCH, d->heads, length, d->size};
        if (d->present[i] == SDX_NONE) continue;
        snprintf(name, sizeof name, "present.%" PRId64 ".%s", i / SDX_CACHED, cached[i % SDX_CACHED]);
        sdx_build_output(b, d->present[i], name, SDX_F32, 4, dim);
    }
}

void sdx_build_decoder_end(sdx_builder *b, sdx_decoder_graph *d, sdx_id logits)
{
    sdx_build_scope(b, "%s", "");
    for (int64_t i = 0; b->outside && b->status == SDX_OK && i < d->layers * SDX_CACHED; i++)
        if (d->present[i] == SDX_NONE) d->present[i] = build_nothing(b, d);
    add_outputs(b, d, logits);
    sdx_build_decoder_drop(d);
}

/* ---- both decoders in one -------------------------------------------------------------------------------- */

static sdx_graph *build_branch(sdx_builder *b, const sdx_settings *s, const char *name, sdx_build_decoder_fn build)
{
    sdx_builder branch = *b;
    if (branch.status == SDX_OK)
        branch.status = sdx_graph_create(b->graph->model, b->graph, &branch.graph, b->err);
    if (branch.status == SDX_OK) {
        branch.graph->name = name;
        branch.outside = b->graph;
        build(&branch, s);
    }
    if (branch.status == SDX_OK) branch.status = sdx_graph_index(branch.graph, b->err);
    b->status = branch.status;
    return branch.graph;
}

/* If, its outputs in out [n_out]. */
static sdx_status add_if(sdx_graph *g, sdx_id condition, sdx_graph *then_branch, sdx_graph *else_branch, int n_out,
                         sdx_id *out, sdx_error *err)
{
    sdx_id node;
    for (int i = 0; i < n_out; i++)
        TRY(sdx_graph_add_value(g, then_branch->value[then_branch->output[i]].name, &out[i], err));
    TRY(sdx_graph_add_node(g, "", "If", "optimum::if", 1, &condition, n_out, out, &node, err));
    TRY(sdx_node_set_graph(g, node, "else_branch", else_branch, err));
    return sdx_node_set_graph(g, node, "then_branch", then_branch, err);
}

void sdx_build_merged_decoder(sdx_builder *b, const sdx_settings *s, const sdx_decoder_graph *d,
                              sdx_build_decoder_fn first, sdx_build_decoder_fn later)
{
    int count = 1 + (int)d->layers * SDX_CACHED;
    sdx_id *out = sdx_malloc((size_t)count * sizeof *out);
    if (!out) sdx_build_fail(b, SDX_ERR_MEMORY, "out of memory");
    sdx_graph *no_past = build_branch(b, s, "no_past", first), *with_past = build_branch(b, s, "with_past", later);
    sdx_id condition = sdx_build_input(b, "use_cache_branch", SDX_BOOL, 1, (int64_t[]){1});
    if (b->status == SDX_OK) b->status = add_if(b->graph, condition, with_past, no_past, count, out, b->err);
    if (b->status == SDX_OK) {
        sdx_decoder_graph merged = *d;
        merged.with_past = true;
        merged.present = out + 1;
        add_outputs(b, &merged, out[0]);
        b->graph->name = "merged";
    }
    free(out);
}
