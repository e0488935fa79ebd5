/* encoder.c: see encoder.h */
#include "encoder.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

const sdx_layer_names sdx_bert_layer = {
    .attention = "attention.self",
    .query = "attention.self.query",
    .key = "attention.self.key",
    .value = "attention.self.value",
    .attention_out = "attention.output.dense",
    .attention_norm = "attention.output.LayerNorm",
    .inner = "intermediate.dense",
    .outer = "output.dense",
    .norm = "output.LayerNorm",
};

/* ---- settings -------------------------------------------------------------------------------------------- */

static const sdx_config_field fields[] = {
    SDX_SIZE_FIELDS(SDX_REQUIRED, SDX_REQUIRED, SDX_REQUIRED, SDX_REQUIRED),
    {"vocab_size", SDX_FIELD(vocab), SDX_REQUIRED, 1, 1 << 24},
    {"max_position_embeddings", SDX_FIELD(positions), 512, 1, 1 << 20},
    {"type_vocab_size", SDX_FIELD(types), 2, 0, 1 << 10},
};

sdx_status sdx_encoder_read_settings(const sdx_config *config, sdx_settings *s, sdx_error *err)
{
    TRY(sdx_config_read_fields(config, fields, sizeof fields / sizeof *fields, s, err));
    TRY(sdx_config_check_heads(config, s, err));
    TRY(sdx_config_read_activation(config, "hidden_act", SDX_GELU, &s->activation, err));
    TRY(sdx_config_read_real(config, "layer_norm_eps", 1e-12, 1, &s->norm_epsilon, err));
    TRY(sdx_config_read_real(config, "initializer_range", 0.02, 1, &s->initializer_range, err));
    TRY(sdx_config_read_labels(config, &s->labels, err));
    s->tied = sdx_config_read_bool(config, "tie_word_embeddings", true);
    s->embedding = s->hidden;
    s->longest = s->positions;
    s->type_input = true;
    s->groups = s->inner_groups = 1;
    return SDX_OK;
}

sdx_status sdx_bert_read_settings(const sdx_config *config, sdx_settings *s, sdx_error *err)
{
    const char *kind = sdx_config_string(config, "position_embedding_type");
    TRY(sdx_encoder_read_settings(config, s, err));
    s->relative_keys = kind && !strcmp(kind, "relative_key_query");
    s->relative = s->relative_keys || (kind && !strcmp(kind, "relative_key"));
    s->parts |= s->relative ? DISTANCES : 0;
    if (!kind || s->relative || !strcmp(kind, "absolute")) return SDX_OK;
    return sdx_fail(err, SDX_ERR_UNSUPPORTED,
                    "%s: \"position_embedding_type\" is \"%.60s\"; known are absolute, relative_key and "
                    "relative_key_query",
                    config->path, kind);
}

int64_t sdx_relative_bucket(int64_t distance, int64_t buckets, int64_t farthest)
{
    int64_t half = buckets / 2, exact = half / 2, n = distance < 0 ? -distance : distance;
    int64_t first = distance > 0 ? half : 0;
    if (n < exact) return first + n;
    float ratio = logf((float)n / (float)exact) / (float)log((double)farthest / (double)exact);
    int64_t bucket = exact + (int64_t)(ratio * (float)(half - exact));
    return first + (bucket < half ? bucket : half - 1);
}

/* ---- as a graph ------------------------------------------------------------------------------------------ */

sdx_id sdx_build_embeddings(sdx_builder *b, const sdx_settings *s, const sdx_text_inputs *in, sdx_id positions)
{
    sdx_build_scope(b, "embeddings.");
    sdx_id x = sdx_build_embedding(b, "word_embeddings", in->ids);
    if (s->types) {
        sdx_id types =
            sdx_build_embedding(b, "token_type_embeddings", s->type_input ? in->types : sdx_build_int(b, 0));
        x = sdx_build_op2(b, "Add", "Add_types", x, types);
    }
    if (positions != SDX_NONE)
        x = sdx_build_op2(b, "Add", "Add_positions", x, sdx_build_embedding(b, "position_embeddings", positions));
    return sdx_build_layer_norm(b, "LayerNorm", x, s->norm_epsilon);
}

/* x [B, S, H] -> [S, S, size]: what the table has for i - j; of all layers, the indices are made once */
static sdx_id build_distances(sdx_builder *b, const sdx_settings *s, const char *module, sdx_id x)
{
    char table[128], scope[sizeof b->scope];
    if (b->distances == SDX_NONE) {
        memcpy(scope, b->scope, sizeof scope);
        sdx_build_scope(b, "%s", "");
        b->distances = sdx_build_distances(b, "distances", sdx_build_range(b, "distances", x), s->positions - 1);
        sdx_build_scope(b, "%s", scope);
    }
    snprintf(table, sizeof table, "%s.distance_embedding", module);
    return sdx_build_embedding(b, table, b->distances);
}

/* scores + x . d for the distance's row d; x [B, N, S, size] queries, or keys with their last axes swapped */
static sdx_id add_relative(sdx_builder *b, const char *module, const char *suffix, const char *equation, sdx_id scores,
                           sdx_id x, sdx_id distances)
{
    char label[128];
    snprintf(label, sizeof label, "%s/Einsum_%s", module, suffix);
    x = sdx_build_op2(b, "Einsum", label, x, distances);
    sdx_build_attr_string(b, "equation", equation);
    snprintf(label, sizeof label, "%s/Add_%s", module, suffix);
    return sdx_build_op2(b, "Add", label, scores, x);
}

/* Shaw et al. 2018 (arXiv:1803.02155); with keys, method 4 of Huang et al. 2020 (arXiv:2009.13658): (q . k + q . d +
 * k . d) / divisor. q [B, N, S, size], k [B, N, size, S], distances [S, S, size] -> [B, N, S, S] */
static sdx_id build_relative_scores(sdx_builder *b, const sdx_settings *s, const char *module, sdx_id q, sdx_id k,
                                    sdx_id distances, double divisor)
{
    char label[128];
    snprintf(label, sizeof label, "%s/MatMul_qk", module);
    sdx_id scores = s->relative_whole ? sdx_build_scores(b, module, q, k, divisor)
                                      : sdx_build_op2(b, "MatMul", label, q, k);
    scores = add_relative(b, module, "q", "bhld,lrd->bhlr", scores, q, distances);
    if (s->relative_keys) scores = add_relative(b, module, "k", "bhdr,lrd->bhlr", scores, k, distances);
    return s->relative_whole ? scores : sdx_build_module_op2(b, module, "Div", scores, sdx_build_real(b, divisor));
}

sdx_id sdx_build_self_attention(sdx_builder *b, const sdx_settings *s, const sdx_layer_names *n, sdx_id x,
                                sdx_id bias)
{
    int64_t size = s->hidden / s->heads;
    sdx_id q = sdx_build_split_heads(b, n->attention, "q", sdx_build_linear(b, n->query, x), s->heads, size);
    q = sdx_build_heads_first(b, n->attention, "q", q, false);
    sdx_id k = sdx_build_split_heads(b, n->attention, "k", sdx_build_linear(b, n->key, x), s->heads, size);
    k = sdx_build_heads_first(b, n->attention, "k", k, true);
    sdx_id v = sdx_build_split_heads(b, n->attention, "v", sdx_build_linear(b, n->value, x), s->heads, size);
    v = sdx_build_heads_first(b, n->attention, "v", v, false);
    double divisor = sqrt((double)size);
    sdx_id scores = s->relative ? build_relative_scores(b, s, n->attention, q, k,
                                                        build_distances(b, s, n->attention, x), divisor)
                                : sdx_build_scores(b, n->attention, q, k, divisor);
    return sdx_build_attend(b, n->attention, scores, bias, v, s->hidden);
}

sdx_id sdx_build_after_attention(sdx_builder *b, const sdx_settings *s, const sdx_layer_names *n, sdx_id x,
                                 sdx_id attended)
{
    sdx_id y = sdx_build_linear(b, n->attention_out, attended);
    y = sdx_build_op2(b, "Add", "attention/Add_residual", y, x);
    x = sdx_build_layer_norm(b, n->attention_norm, y, s->norm_epsilon);
    y = sdx_build_linear(b, n->inner, x);
    y = sdx_build_activation(b, "activation", y, s->activation);
    y = sdx_build_linear(b, n->outer, y);
    y = sdx_build_op2(b, "Add", "output/Add_residual", y, x);
    return sdx_build_layer_norm(b, n->norm, y, s->norm_epsilon);
}

sdx_id sdx_build_pre_norm_layer(sdx_builder *b, const sdx_settings *s, const sdx_layer_names *n, sdx_id x,
                                sdx_id bias)
{
    sdx_id y = sdx_build_layer_norm(b, n->attention_norm, x, s->norm_epsilon);
    y = sdx_build_linear(b, n->attention_out, sdx_build_self_attention(b, s, n, y, bias));
    x = sdx_build_op2(b, "Add", "attention/Add_residual", y, x);
    y = sdx_build_linear(b, n->inner, sdx_build_layer_norm(b, n->norm, x, s->norm_epsilon));
    y = sdx_build_linear(b, n->outer, sdx_build_activation(b, "activation", y, s->activation));
    return sdx_build_op2(b, "Add", "output/Add_residual", y, x);
}

sdx_id sdx_build_bert_layer(sdx_builder *b, const sdx_settings *s, sdx_id x, sdx_id bias)
{
    return sdx_build_after_attention(b, s, &sdx_bert_layer, x,
                                     sdx_build_self_attention(b, s, &sdx_bert_layer, x, bias));
}

sdx_id sdx_build_layers(sdx_builder *b, const sdx_settings *s, const char *scope, sdx_build_layer_fn layer,
                        sdx_id x, sdx_id bias)
{
    for (int64_t i = 0; i < s->layers; i++) {
        sdx_build_scope(b, "%s%d.", scope, (int)i);
        x = layer(b, s, x, bias);
    }
    sdx_build_scope(b, "%s", "");
    return x;
}

/* ---- as plain arithmetic --------------------------------------------------------------------------------- */

double *sdx_forward_embeddings(sdx_forward *f, const sdx_settings *s, const int64_t *positions)
{
    double *x = sdx_forward_alloc(f, f->count * s->embedding);
    sdx_forward_scope(f, "embeddings.");
    sdx_forward_add_embedding(f, "word_embeddings", f->ids, x);
    if (s->types) {
        int64_t *zeros = sdx_arena_array(f->arena, (size_t)f->count, sizeof *zeros);
        if (!zeros && f->status == SDX_OK)
            f->status = sdx_fail_memory(f->err, (size_t)f->count * sizeof *zeros);
        sdx_forward_add_embedding(f, "token_type_embeddings", s->type_input ? f->type_ids : zeros, x);
    }
    if (!s->relative) sdx_forward_add_embedding(f, "position_embeddings", positions, x);
    sdx_forward_layer_norm(f, "LayerNorm", x, f->count, s->norm_epsilon);
    return x;
}

/* What relative positions add to the scores once those are divided: [heads, S, S] */
static const double *forward_distances(sdx_forward *f, const sdx_settings *s, const char *module, const double *q,
                                       const double *k)
{
    char name[128];
    int64_t S = f->count, H = s->hidden, size = H / s->heads;
    snprintf(name, sizeof name, "%s.distance_embedding.weight", module);
    const double *table = sdx_forward_weight(f, name);
    double *bias = sdx_forward_alloc(f, s->heads * S * S), divisor = s->relative_whole ? 1 : sqrt((double)size);
    for (int64_t i = 0; f->status == SDX_OK && i < s->heads * S * S; i++) {
        int64_t h = i / (S * S), query = i / S % S, key = i % S;
        const double *row = table + (query - key + s->positions - 1) * size;
        for (int64_t j = 0; j < size; j++) {
            double with = q[query * H + h * size + j] + (s->relative_keys ? k[key * H + h * size + j] : 0);
            bias[i] += with * row[j] / divisor;
        }
    }
    return bias;
}

double *sdx_forward_self_attention(sdx_forward *f, const sdx_settings *s, const sdx_layer_names *n,
                                   const double *x, const double *bias)
{
    int64_t size = s->hidden / s->heads;
    const double *q = sdx_forward_linear(f, n->query, x, f->count);
    const double *k = sdx_forward_linear(f, n->key, x, f->count);
    const double *v = sdx_forward_linear(f, n->value, x, f->count);
    if (s->relative) bias = forward_distances(f, s, n->attention, q, k);
    return sdx_forward_attention(f, q, k, v, s->heads, size, sqrt((double)size), bias);
}

void sdx_forward_after_attention(sdx_forward *f, const sdx_settings *s, const sdx_layer_names *n, double *x,
                                 const double *attended)
{
    double *y = sdx_forward_linear(f, n->attention_out, attended, f->count);
    sdx_forward_add(f, x, y, f->count * s->hidden);
    sdx_forward_layer_norm(f, n->attention_norm, x, f->count, s->norm_epsilon);
    y = sdx_forward_linear(f, n->inner, x, f->count);
    sdx_forward_activation(f, y, f->count * s->inner, s->activation);
    y = sdx_forward_linear(f, n->outer, y, f->count);
    sdx_forward_add(f, x, y, f->count * s->hidden);
    sdx_forward_layer_norm(f, n->norm, x, f->count, s->norm_epsilon);
}

double *sdx_forward_normalized(sdx_forward *f, const sdx_settings *s, const char *name, const double *x)
{
    double *y = sdx_forward_alloc(f, f->count * s->hidden);
    sdx_forward_add(f, y, x, f->count * s->hidden);
    sdx_forward_layer_norm(f, name, y, f->count, s->norm_epsilon);
    return y;
}

void sdx_forward_pre_norm_layer(sdx_forward *f, const sdx_settings *s, const sdx_layer_names *n, double *x,
                                const double *bias)
{
    int64_t count = f->count * s->hidden;
    double *y = sdx_forward_normalized(f, s, n->attention_norm, x);
    y = sdx_forward_linear(f, n->attention_out, sdx_forward_self_attention(f, s, n, y, bias), f->count);
    sdx_forward_add(f, x, y, count);
    y = sdx_forward_linear(f, n->inner, sdx_forward_normalized(f, s, n->norm, x), f->count);
    sdx_forward_activation(f, y, f->count * s->inner, s->activation);
    sdx_forward_add(f, x, sdx_forward_linear(f, n->outer, y, f->count), count);
}

void sdx_forward_bert_layer(sdx_forward *f, const sdx_settings *s, double *x, const double *bias)
{
    const double *attended = sdx_forward_self_attention(f, s, &sdx_bert_layer, x, bias);
    sdx_forward_after_attention(f, s, &sdx_bert_layer, x, attended);
}

void sdx_forward_layers(sdx_forward *f, const sdx_settings *s, const char *scope, sdx_forward_layer_fn layer,
                        double *x, const double *bias)
{
    for (int64_t i = 0; i < s->layers; i++) {
        sdx_arena_mark mark = sdx_arena_get_mark(f->arena);
        sdx_forward_scope(f, "%s%d.", scope, (int)i);
        layer(f, s, x, bias);
        sdx_arena_reset(f->arena, mark);
    }
    sdx_forward_scope(f, "%s", "");
}
