/* vit.c: the vision transformer (Dosovitskiy et al. 2020, arXiv:2010.11929) and DeiT (Touvron et al. 2021,
 * arXiv:2012.12877), as Hugging Face's modeling_{vit,deit}.py have them: an image is a row of patches with a learned
 * token in front of them, or two: DeiT's second learned from a teacher. */
#include <stdlib.h>
#include <string.h>

#include "../../base/memory.h"
#include "../encoder.h"

#define LAYER "encoder.layer.*."
enum {
    QUERY_BIAS = SDX_OWN_PART,
    DISTILLED = QUERY_BIAS << 1, /* the second token */
    TEACHER = QUERY_BIAS << 2,   /* classifiers of both tokens */
    PIXELS = QUERY_BIAS << 3,    /* patches back to pixels */
};
static const char *const tokens[] = {"embeddings.cls_token", "embeddings.distillation_token"};

static const sdx_tensor_row rows[] = {
    {"embeddings.cls_token", "UUH", SDX_FILL_BIAS, BODY},
    {"embeddings.distillation_token", "UUH", SDX_FILL_BIAS, BODY | DISTILLED},
    {"embeddings.position_embeddings", "UPH", SDX_FILL_WEIGHT, BODY},
    SDX_LINEAR_ROWS("embeddings.patch_embeddings.projection", "H", "FXX", BODY),
    SDX_WEIGHT_ROW(LAYER "attention.attention.query", "HH", BODY),
    SDX_BIAS_ROW(LAYER "attention.attention.query", "H", BODY | QUERY_BIAS),
    SDX_WEIGHT_ROW(LAYER "attention.attention.key", "HH", BODY),
    SDX_BIAS_ROW(LAYER "attention.attention.key", "H", BODY | QUERY_BIAS),
    SDX_WEIGHT_ROW(LAYER "attention.attention.value", "HH", BODY),
    SDX_BIAS_ROW(LAYER "attention.attention.value", "H", BODY | QUERY_BIAS),
    SDX_LINEAR_ROWS(LAYER "attention.output.dense", "H", "H", BODY),
    SDX_LINEAR_ROWS(LAYER "intermediate.dense", "I", "H", BODY),
    SDX_LINEAR_ROWS(LAYER "output.dense", "H", "I", BODY),
    SDX_NORM_ROWS(LAYER "layernorm_before", "H", BODY),
    SDX_NORM_ROWS(LAYER "layernorm_after", "H", BODY),
    SDX_NORM_ROWS("layernorm", "H", BODY),
    SDX_LINEAR_ROWS("pooler.dense", "E", "H", POOLER),
    SDX_LINEAR_ROWS("classifier", "L", "H", CLASSIFIER),
    SDX_LINEAR_ROWS("cls_classifier", "L", "H", TEACHER),
    SDX_LINEAR_ROWS("distillation_classifier", "L", "H", TEACHER),
    SDX_LINEAR_ROWS("decoder.0", "S", "HUU", PIXELS),
};

static const sdx_layer_names names = {
    .attention = "attention.attention",
    .query = "attention.attention.query",
    .key = "attention.attention.key",
    .value = "attention.attention.value",
    .attention_out = "attention.output.dense",
    .attention_norm = "layernorm_before",
    .inner = "intermediate.dense",
    .outer = "output.dense",
    .norm = "layernorm_after",
};

static const sdx_config_field fields[] = {
    SDX_SIZE_FIELDS(768, 12, 12, 3072),
    {"patch_size", SDX_FIELD(patch), 16, 1, 1 << 10},
    {"num_channels", SDX_FIELD(channels), 3, 1, 1 << 8},
    {"encoder_stride", SDX_FIELD(stride), 16, 1, 1 << 10},
};

static sdx_status read_settings(const sdx_config *config, sdx_settings *s, sdx_error *err)
{
    TRY(sdx_config_read_fields(config, fields, sizeof fields / sizeof *fields, s, err));
    TRY(sdx_config_check_heads(config, s, err));
    TRY(sdx_config_read_activation(config, "hidden_act", SDX_GELU, &s->activation, err));
    TRY(sdx_config_read_real(config, "layer_norm_eps", 1e-12, 1, &s->norm_epsilon, err));
    TRY(sdx_config_read_real(config, "initializer_range", 0.02, 1, &s->initializer_range, err));
    TRY(sdx_config_read_labels(config, &s->labels, err));
    const sdx_config_field pooled = {"pooler_output_size", SDX_FIELD(embedding), s->hidden, 1, 1 << 16};
    TRY(sdx_config_read_fields(config, &pooled, 1, s, err));
    TRY(sdx_config_read_activation(config, "pooler_act", SDX_TANH, &s->head_activation, err));
    TRY(sdx_config_read_pair(config, "image_size", 224, 1 << 13, s->image, err));
    if (s->patch > s->image[0] || s->patch > s->image[1])
        return sdx_fail(err, SDX_ERR_FILE, "%s: a patch of %lld pixels is larger than the image's %lld x %lld",
                        config->path, (long long)s->patch, (long long)s->image[0], (long long)s->image[1]);
    bool distilled = !strcmp(sdx_config_string(config, "model_type"), "deit");
    s->parts = (sdx_config_read_bool(config, "qkv_bias", true) ? QUERY_BIAS : 0) | (distilled ? DISTILLED : 0);
    s->offset = distilled ? 2 : 1;
    s->positions = s->longest = s->offset + (s->image[0] / s->patch) * (s->image[1] / s->patch);
    return SDX_OK;
}

static sdx_shape sample(const sdx_settings *s)
{
    return sdx_shape_make(4, (sdx_dim[]){1, s->channels, s->image[0], s->image[1]});
}

/* ---- as a graph ------------------------------------------------------------------------------------------ */

/* The learned tokens and the positions in one table [1, P, H]: the first rows are their sums, so that the graph puts
 * rows of zeros in front of the patches and adds the table, instead of spreading the tokens over the batch. */
static sdx_id build_table(sdx_builder *b, const sdx_settings *s)
{
    const int64_t H = s->hidden, dim[] = {1, s->positions, H}, count = s->positions * H;
    const sdx_tensor *position = sdx_checkpoint_find(b->checkpoint, "embeddings.position_embeddings");
    float *table = sdx_malloc((size_t)(count + H) * sizeof *table), *token = table + count;
    if (!table) sdx_build_fail(b, SDX_ERR_MEMORY, "out of memory");
    if (!table || b->status != SDX_OK) {
        free(table);
        return SDX_NONE;
    }
    sdx_weight_load(position, 0, count, table);
    for (int64_t i = 0; i < s->offset * H; i++) {
        if (i % H == 0) sdx_weight_load(sdx_checkpoint_find(b->checkpoint, tokens[i / H]), 0, H, token);
        table[i] += token[i % H];
    }
    sdx_id id = sdx_build_constant(b, "embeddings.tokens_and_positions", SDX_F32, 3, dim, table);
    free(table);
    return id;
}

/* pixels [B, F, rows, columns] -> [B, P, H] */
static sdx_id build_embeddings(sdx_builder *b, const sdx_settings *s, sdx_id pixels)
{
    const char *patches = "embeddings.patch_embeddings.projection";
    const int64_t side[] = {s->patch, s->patch};
    sdx_id in[] = {pixels, sdx_build_module_weight(b, patches, "weight"),
                   sdx_build_module_weight(b, patches, "bias")};
    sdx_id x = sdx_build_module_op(b, patches, "Conv", 3, in);
    sdx_build_attr_ints(b, "kernel_shape", 2, side);
    sdx_build_attr_ints(b, "strides", 2, side);
    x = sdx_build_module_op2(b, patches, "Reshape", x, sdx_build_ints(b, 3, (int64_t[]){0, s->hidden, -1}));
    x = sdx_build_transpose(b, "embeddings/Transpose", x, 3, (int64_t[]){0, 2, 1});
    x = sdx_build_module_op2(b, "embeddings", "Pad", x, sdx_build_ints(b, 6, (int64_t[]){0, s->offset, 0, 0, 0, 0}));
    return sdx_build_module_op2(b, "embeddings", "Add", x, build_table(b, s));
}

static sdx_id build_layer(sdx_builder *b, const sdx_settings *s, sdx_id x, sdx_id bias)
{
    return sdx_build_pre_norm_layer(b, s, &names, x, bias);
}

static sdx_id build_body(sdx_builder *b, const sdx_settings *s)
{
    const int64_t dim[] = {SDX_BATCH, s->channels, s->image[0], s->image[1]};
    sdx_id x = build_embeddings(b, s, sdx_build_input(b, "pixel_values", SDX_F32, 4, dim));
    x = sdx_build_layers(b, s, "encoder.layer.", build_layer, x, SDX_NONE);
    return sdx_build_layer_norm(b, "layernorm", x, s->norm_epsilon);
}

static void build_model(sdx_builder *b, const sdx_settings *s)
{
    sdx_id x = build_body(b, s);
    sdx_build_output(b, x, "last_hidden_state", SDX_F32, 3, (int64_t[]){SDX_BATCH, s->positions, s->hidden});
    if (!(b->parts & POOLER)) return;
    x = sdx_build_linear_rows(b, "pooler.dense", sdx_build_first_token(b, "pooler", x));
    x = sdx_build_activation(b, "pooler", x, s->head_activation);
    sdx_build_output(b, x, "pooler_output", SDX_F32, 2, (int64_t[]){SDX_BATCH, s->embedding});
}

static void build_classifier(sdx_builder *b, const sdx_settings *s)
{
    sdx_id x = sdx_build_first_token(b, "classifier", build_body(b, s));
    x = sdx_build_linear_rows(b, "classifier", x);
    sdx_build_output(b, x, "logits", SDX_F32, 2, (int64_t[]){SDX_BATCH, s->labels});
}

/* token 0 or 1 */
static sdx_id build_token_classifier(sdx_builder *b, const char *name, sdx_id x, int64_t token)
{
    x = sdx_build_module_op2(b, name, "Gather", x, sdx_build_int(b, token));
    sdx_build_attr_int(b, "axis", 1);
    return sdx_build_linear_rows(b, name, x);
}

/* The mean of both classifiers, and each of them. */
static void build_teacher(sdx_builder *b, const sdx_settings *s)
{
    const int64_t dim[] = {SDX_BATCH, s->labels};
    sdx_id x = build_body(b, s), own = build_token_classifier(b, "cls_classifier", x, 0),
           distilled = build_token_classifier(b, "distillation_classifier", x, 1);
    x = sdx_build_op2(b, "Add", "logits/Add", own, distilled);
    x = sdx_build_op2(b, "Mul", "logits/Mul", x, sdx_build_real(b, 0.5));
    sdx_build_output(b, x, "logits", SDX_F32, 2, dim);
    sdx_build_output(b, own, "cls_logits", SDX_F32, 2, dim);
    sdx_build_output(b, distilled, "distillation_logits", SDX_F32, 2, dim);
}

/* Each patch becomes a square of pixels. transformers lays the patches of any image in a square; what is no square is
 * refused. */
static void build_pixels(sdx_builder *b, const sdx_settings *s)
{
    const int64_t down = s->image[0] / s->patch, across = s->image[1] / s->patch, side[] = {1, 1};
    if (down != across)
        sdx_build_fail(b, SDX_ERR_UNSUPPORTED, "images are made from as many rows of patches as columns only");
    sdx_id x = sdx_build_transpose(b, "decoder/Transpose", build_body(b, s), 3, (int64_t[]){0, 2, 1});
    x = sdx_build_module_op2(b, "decoder", "Pad", x, sdx_build_ints(b, 6, (int64_t[]){0, 0, -s->offset, 0, 0, 0}));
    x = sdx_build_module_op2(b, "decoder", "Reshape", x,
                             sdx_build_ints(b, 4, (int64_t[]){0, s->hidden, down, across}));
    sdx_id in[] = {x, sdx_build_weight(b, "decoder.0.weight"), sdx_build_weight(b, "decoder.0.bias")};
    x = sdx_build_module_op(b, "decoder.0", "Conv", 3, in);
    sdx_build_attr_ints(b, "kernel_shape", 2, side);
    x = sdx_build_module_op1(b, "decoder.1", "DepthToSpace", x);
    sdx_build_attr_int(b, "blocksize", s->stride);
    sdx_build_attr_string(b, "mode", "CRD");
    sdx_build_output(b, x, "reconstruction", SDX_F32, 4,
                     (int64_t[]){SDX_BATCH, s->channels, down * s->stride, across * s->stride});
}

/* ---- as plain arithmetic --------------------------------------------------------------------------------- */

/* Patches as rows [P - offset, F * patch * patch] */
static double *cut_patches(sdx_forward *f, const sdx_settings *s)
{
    int64_t across = s->image[1] / s->patch, count = s->positions - s->offset, area = s->patch * s->patch,
            width = s->channels * area;
    double *x = sdx_forward_alloc(f, count * width);
    for (int64_t i = 0; f->status == SDX_OK && i < count * width; i++) {
        int64_t p = i / width, channel = i % width / area, row = i % area / s->patch, column = i % s->patch;
        row += p / across * s->patch;
        column += p % across * s->patch;
        x[i] = (double)f->values[(channel * s->image[0] + row) * s->image[1] + column];
    }
    return x;
}

/* y [rows, H] = x [rows, in] W^T + b, W [H, F, X, X] being a matrix [H, in] */
static void project_patches(sdx_forward *f, const sdx_settings *s, const double *x, double *y)
{
    int64_t in = s->channels * s->patch * s->patch, H = s->hidden;
    const double *w = sdx_forward_weight(f, "embeddings.patch_embeddings.projection.weight");
    const double *bias = sdx_forward_weight(f, "embeddings.patch_embeddings.projection.bias");
    for (int64_t i = 0; f->status == SDX_OK && i < (s->positions - s->offset) * H; i++) {
        y[i] += bias[i % H];
        for (int64_t j = 0; j < in; j++) y[i] += x[i / H * in + j] * w[i % H * in + j];
    }
}

static void forward_layer(sdx_forward *f, const sdx_settings *s, double *x, const double *bias)
{
    sdx_forward_pre_norm_layer(f, s, &names, x, bias);
}

static double *forward_body(sdx_forward *f, const sdx_settings *s)
{
    const double *patches = cut_patches(f, s);
    f->count = s->positions;
    double *x = sdx_forward_alloc(f, f->count * s->hidden);
    for (int64_t i = 0; f->status == SDX_OK && i < s->offset; i++)
        sdx_forward_add(f, x + i * s->hidden, sdx_forward_weight(f, tokens[i]), s->hidden);
    sdx_forward_add(f, x, sdx_forward_weight(f, "embeddings.position_embeddings"), f->count * s->hidden);
    if (f->status == SDX_OK) project_patches(f, s, patches, x + s->offset * s->hidden);
    sdx_forward_layers(f, s, "encoder.layer.", forward_layer, x, NULL);
    sdx_forward_layer_norm(f, "layernorm", x, f->count, s->norm_epsilon);
    return x;
}

static const double *forward_model(sdx_forward *f, const sdx_settings *s)
{
    const double *x = forward_body(f, s);
    f->rank = 2;
    f->dim[0] = f->count;
    f->dim[1] = s->hidden;
    return x;
}

static const double *forward_classifier(sdx_forward *f, const sdx_settings *s)
{
    f->rank = 1;
    f->dim[0] = s->labels;
    return sdx_forward_linear(f, "classifier", forward_body(f, s), 1);
}

static const double *forward_teacher(sdx_forward *f, const sdx_settings *s)
{
    const double *x = forward_body(f, s), *own = sdx_forward_linear(f, "cls_classifier", x, 1);
    if (f->status != SDX_OK) return NULL;
    double *both = sdx_forward_linear(f, "distillation_classifier", x + s->hidden, 1);
    for (int64_t i = 0; f->status == SDX_OK && i < s->labels; i++) both[i] = (both[i] + own[i]) / 2;
    f->rank = 1;
    f->dim[0] = s->labels;
    return both;
}

/* -> [F, rows, columns] */
static const double *forward_pixels(sdx_forward *f, const sdx_settings *s)
{
    const int64_t S = s->stride, across = s->image[1] / s->patch, height = s->image[0] / s->patch * S,
                  width = across * S, count = s->channels * height * width;
    const double *x = forward_body(f, s);
    if (f->status != SDX_OK) return NULL;
    const double *squares = sdx_forward_linear(f, "decoder.0", x + s->offset * s->hidden, f->count - s->offset);
    double *image = sdx_forward_alloc(f, count);
    for (int64_t i = 0; f->status == SDX_OK && i < count; i++) {
        int64_t channel = i / (height * width), row = i / width % height, column = i % width,
                patch = row / S * across + column / S;
        image[i] = squares[((patch * s->channels + channel) * S + row % S) * S + column % S];
    }
    f->rank = 3;
    f->dim[0] = s->channels;
    f->dim[1] = height;
    f->dim[2] = width;
    return image;
}

/* ---- heads ----------------------------------------------------------------------------------------------- */

#define HEADS(title)                                                                                           \
    {title "ForImageClassification", "image-classification", BODY | CLASSIFIER, .build = build_classifier,     \
     .forward = forward_classifier},                                                                           \
        {title "Model", "feature-extraction", BODY, POOLER, .build = build_model, .forward = forward_model},   \
    {                                                                                                          \
        title "ForMaskedImageModeling", "masked-im", BODY | PIXELS, .build = build_pixels,                     \
            .forward = forward_pixels                                                                          \
    }

static const sdx_head heads_of_vit[] = {HEADS("ViT")};
static const sdx_head heads_of_deit[] = {
    HEADS("DeiT"),
    {"DeiTForImageClassificationWithTeacher", "image-classification", BODY | TEACHER, .build = build_teacher,
     .forward = forward_teacher},
};

#define FAMILY(name)                                                                                                   \
    const sdx_family sdx_family_##name = {                                                                             \
        SDX_FAMILY(#name, #name ".", BODY | POOLER | QUERY_BIAS | DISTILLED, heads_of_##name, read_settings),          \
        .sample = sample,                                                                                              \
    }

FAMILY(vit);
FAMILY(deit);
