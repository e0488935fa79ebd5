/* steps.c: heads as lists of steps (encoder.h), carried out as a graph and, separately, as plain arithmetic. */
#include <stdio.h>
#include <string.h>

#include "encoder.h"

/* ---- lists many families share --------------------------------------------------------------------------- */

const sdx_step sdx_steps_hidden[] = {{SDX_STEP_OUTPUT, .name = "last_hidden_state"}, {.kind = SDX_STEP_END}};
const sdx_step sdx_steps_pooled[] = SDX_MODEL_STEPS("pooler.dense");
const sdx_step sdx_steps_tokens[] = {
    {SDX_STEP_LINEAR, .name = "classifier"},
    {SDX_STEP_OUTPUT, .name = "logits"},
    {.kind = SDX_STEP_END},
};
const sdx_step sdx_steps_spans[] = {
    {SDX_STEP_LINEAR, .name = "qa_outputs"},
    {.kind = SDX_STEP_SPANS},
    {.kind = SDX_STEP_END},
};
const sdx_step sdx_steps_roberta_lm[] =
    SDX_LM_STEPS("lm_head.dense", SDX_STEP_GELU, "lm_head.layer_norm", "lm_head.bias", "lm_head.decoder.weight");
const sdx_step sdx_steps_roberta_classifier[] =
    SDX_CLASSIFIER_STEPS("classifier.dense", SDX_STEP_TANH, "classifier.out_proj");
const sdx_step sdx_steps_choice[] = SDX_CHOICE_STEPS("pooler.dense", SDX_STEP_TANH);

/* ---- as a graph ------------------------------------------------------------------------------------------ */

/* A value on its way through the steps: [B, S, width], [B, width] once pooled, or [B, S] once squeezed. */
typedef struct flow {
    sdx_id x;
    int rank;
    int64_t width;
} flow;

static bool is_choice(const sdx_head *head)
{
    const sdx_step *step = head->step;
    while (step->kind != SDX_STEP_END && step->kind != SDX_STEP_CHOICES) step++;
    return step->kind == SDX_STEP_CHOICES;
}

/* int64 [B, S]; of choices [B, C, S], whose texts become rows */
static sdx_id add_input(sdx_builder *b, const char *name)
{
    if (!is_choice(b->head)) return sdx_build_token_input(b, name);
    const int64_t dim[] = {SDX_BATCH, SDX_CHOICES, SDX_SEQUENCE};
    sdx_id rows = sdx_build_module_op1(b, name, "Flatten", sdx_build_input(b, name, SDX_I64, 3, dim));
    sdx_build_attr_int(b, "axis", 2);
    return rows;
}

/* input_ids and attention_mask; token_type_ids if the model has them or the graph is a sparse retriever's,
 * whose callers always bring them. */
static sdx_text_inputs add_inputs(sdx_builder *b, const sdx_settings *s)
{
    sdx_text_inputs in = {.types = SDX_NONE};
    in.ids = add_input(b, "input_ids");
    in.mask = add_input(b, "attention_mask");
    if (s->type_input || b->splade) in.types = add_input(b, "token_type_ids");
    return in;
}

static void put_output(sdx_builder *b, const flow *v, const char *name)
{
    int64_t dim[] = {SDX_BATCH, v->rank == 3 || !v->width ? SDX_SEQUENCE : v->width, v->width};
    sdx_build_output(b, v->x, name, SDX_F32, v->rank, dim);
}

static void put_logits_or_splade(sdx_builder *b, const sdx_settings *s, const sdx_text_inputs *in,
                                 const flow *v)
{
    if (!b->splade) {
        put_output(b, v, "logits");
        return;
    }
    sdx_id mask = in->mask;
    if (!s->type_input) { /* an input that no node reads would be dropped by the first tool that cleans up */
        sdx_build_scope(b, "%s", "");
        sdx_id nothing = sdx_build_module_op2(b, "token_type_ids", "Mul", in->types, sdx_build_int(b, 0));
        mask = sdx_build_module_op2(b, "token_type_ids", "Add", mask, nothing);
    }
    sdx_build_splade(b, v->x, mask);
}

static void put_spans(sdx_builder *b, flow *v)
{
    static const char *const names[] = {"start_logits", "end_logits"};
    if (v->width != 2) sdx_build_fail(b, SDX_ERR_FILE, "question answering takes two labels");
    for (int i = 0; i < 2; i++) {
        sdx_id x = sdx_build_module_op2(b, names[i], "Gather", v->x, sdx_build_int(b, i));
        sdx_build_attr_int(b, "axis", -1);
        put_output(b, &(flow){x, 2, 0}, names[i]);
    }
}

/* [B * C, 1] -> [B, C] */
static void put_choices(sdx_builder *b, sdx_id x)
{
    const char *name = "choices";
    const int64_t dim[] = {SDX_BATCH, SDX_CHOICES, SDX_SEQUENCE}, first = 0, last = 2;
    sdx_id shape = sdx_build_module_op1(b, name, "Shape", sdx_build_input(b, "input_ids", SDX_I64, 3, dim));
    sdx_id in[] = {shape, sdx_build_ints(b, 1, &first), sdx_build_ints(b, 1, &last)};
    shape = sdx_build_module_op(b, name, "Slice", 3, in);
    sdx_build_output(b, sdx_build_module_op2(b, name, "Reshape", x, shape), "logits", SDX_F32, 2, dim);
}

/* The row of the last token that counts: GPT-2's classifiers read it. */
static sdx_id pick_last(sdx_builder *b, const sdx_settings *s, sdx_step_kind kind, sdx_id ids, sdx_id x)
{
    const char *name = "pooler";
    if (kind == SDX_STEP_END_TOKEN)
        return sdx_build_last_token(b, name, x,
                                    sdx_build_module_op2(b, name, "Equal", ids, sdx_build_int(b, s->end)));
    if (s->pad >= 0) {
        sdx_id padding = sdx_build_module_op2(b, name, "Equal", ids, sdx_build_int(b, s->pad));
        return sdx_build_last_token(b, name, x, sdx_build_module_op1(b, name, "Not", padding));
    }
    x = sdx_build_module_op2(b, name, "Gather", x, sdx_build_int(b, -1));
    sdx_build_attr_int(b, "axis", 1);
    return x;
}

/* An output matrix of its own may have a bias of its own, beside the head's, which then counts for nothing. */
static const char *bias_of_words(const sdx_checkpoint *c, const sdx_settings *s, const sdx_step *step,
                                 bool untied, char *own, size_t size)
{
    if (!untied) return step->name;
    snprintf(own, size, "%.*sbias", (int)(strrchr(step->untied, '.') + 1 - step->untied), step->untied);
    const sdx_tensor *t = sdx_checkpoint_find(c, own);
    return t && t->rank == 1 && t->dim[0] == s->vocab && sdx_dtype_is_float(t->dtype) ? own : step->name;
}

static sdx_id score_words(sdx_builder *b, const sdx_settings *s, const sdx_step *step, sdx_id x)
{
    bool untied = b->parts & step->part;
    char own[256];
    const char *matrix = untied ? step->untied : b->family->words,
               *bias = bias_of_words(b->checkpoint, s, step, untied, own, sizeof own);
    x = sdx_build_op2(b, "MatMul", "words/MatMul", x, sdx_build_transposed(b, matrix));
    return sdx_build_has(b, bias) ? sdx_build_op2(b, "Add", "words/Add", x, sdx_build_weight(b, bias)) : x;
}

static int64_t rows_of(const sdx_builder *b, const char *module)
{
    char name[256];
    snprintf(name, sizeof name, "%s.weight", module);
    const sdx_tensor *t = sdx_checkpoint_find(b->checkpoint, name);
    return t ? t->dim[0] : 0;
}

static sdx_activation activation_of(const sdx_settings *s, sdx_step_kind kind)
{
    switch (kind) {
    case SDX_STEP_ACT: return s->activation;
    case SDX_STEP_HEAD_ACT: return s->head_activation;
    case SDX_STEP_GELU: return SDX_GELU;
    case SDX_STEP_RELU: return SDX_RELU;
    default: return SDX_TANH;
    }
}

static void build_step(sdx_builder *b, const sdx_settings *s, const sdx_text_inputs *in, const sdx_step *step,
                       flow *v)
{
    switch (step->kind) {
    case SDX_STEP_END: break;
    case SDX_STEP_FIRST:
    case SDX_STEP_POOL:
        v->x = step->kind == SDX_STEP_POOL && s->mean_pooling
                   ? sdx_build_mean_token(b, "pooler", v->x, in->mask)
                   : sdx_build_first_token(b, "pooler", v->x);
        v->rank = 2;
        break;
    case SDX_STEP_LAST:
    case SDX_STEP_END_TOKEN:
        v->x = pick_last(b, s, step->kind, in->ids, v->x);
        v->rank = 2;
        break;
    case SDX_STEP_LINEAR:
        v->x =
            v->rank == 2 ? sdx_build_linear_rows(b, step->name, v->x) : sdx_build_linear(b, step->name, v->x);
        v->width = rows_of(b, step->name);
        break;
    case SDX_STEP_NORM: v->x = sdx_build_layer_norm(b, step->name, v->x, s->norm_epsilon); break;
    case SDX_STEP_ACT:
    case SDX_STEP_HEAD_ACT:
    case SDX_STEP_TANH:
    case SDX_STEP_GELU:
    case SDX_STEP_RELU:
        v->x = sdx_build_activation(b, "head.activation", v->x, activation_of(s, step->kind));
        break;
    case SDX_STEP_WORDS:
        v->x = score_words(b, s, step, v->x);
        v->width = s->vocab;
        break;
    case SDX_STEP_SQUEEZE:
        v->x = sdx_build_op2(b, "Squeeze", "head/Squeeze", v->x, sdx_build_ints(b, 1, (int64_t[]){-1}));
        *v = (flow){v->x, 2, 0};
        break;
    case SDX_STEP_OUTPUT: put_output(b, v, step->name); break;
    case SDX_STEP_SPLADE: put_logits_or_splade(b, s, in, v); break;
    case SDX_STEP_SPANS: put_spans(b, v); break;
    case SDX_STEP_CHOICES: put_choices(b, v->x); break;
    }
}

/* A part that only chooses the matrix of a step does not decide about the step. */
static bool is_wanted(const sdx_step *step, unsigned parts)
{
    return !step->part || step->kind == SDX_STEP_WORDS || (parts & step->part);
}

void sdx_build_steps(sdx_builder *b, const sdx_settings *s)
{
    sdx_text_inputs in = add_inputs(b, s);
    flow v = {b->family->build_body(b, s, &in), 3, s->hidden};
    sdx_build_scope(b, "%s", "");
    for (const sdx_step *step = b->head->step; step->kind != SDX_STEP_END; step++)
        if (is_wanted(step, b->parts)) build_step(b, s, &in, step, &v);
}

/* ---- as plain arithmetic: until the first output --------------------------------------------------------- */

typedef struct rows {
    double *x; /* [count, width] */
    int64_t count, width;
} rows;

static void take_mean(sdx_forward *f, rows *v)
{
    double *mean = sdx_forward_alloc(f, v->width);
    for (int64_t i = 0; f->status == SDX_OK && i < v->count * v->width; i++)
        mean[i % v->width] += v->x[i] / (double)v->count;
    *v = (rows){mean, 1, v->width};
}

static void take_last(sdx_forward *f, const sdx_settings *s, sdx_step_kind kind, rows *v)
{
    int64_t at = v->count - 1;
    while (at > 0 && (kind == SDX_STEP_LAST ? f->ids[at] == s->pad : f->ids[at] != s->end)) at--;
    if (kind == SDX_STEP_END_TOKEN && f->ids[at] != s->end) at = v->count - 1;
    v->x += at * v->width;
    v->count = 1;
}

static void forward_linear(sdx_forward *f, const sdx_step *step, rows *v)
{
    char name[256];
    v->x = sdx_forward_linear(f, step->name, v->x, v->count);
    snprintf(name, sizeof name, "%s.weight", step->name);
    v->width = sdx_forward_rows(f, name);
}

static void forward_words(sdx_forward *f, const sdx_settings *s, const sdx_step *step, rows *v)
{
    bool untied = f->parts & step->part;
    char own[256];
    const char *matrix = untied ? step->untied : f->family->words,
               *bias = bias_of_words(f->checkpoint, s, step, untied, own, sizeof own);
    v->x = sdx_forward_product(f, matrix, sdx_forward_has(f, bias) ? bias : NULL, v->x, v->count);
    v->width = s->vocab;
}

static void forward_step(sdx_forward *f, const sdx_settings *s, const sdx_step *step, rows *v)
{
    switch (step->kind) {
    case SDX_STEP_FIRST: v->count = 1; break;
    case SDX_STEP_POOL:
        if (s->mean_pooling) take_mean(f, v);
        v->count = 1;
        break;
    case SDX_STEP_LAST:
    case SDX_STEP_END_TOKEN:
        if (f->status == SDX_OK) take_last(f, s, step->kind, v);
        break;
    case SDX_STEP_LINEAR: forward_linear(f, step, v); break;
    case SDX_STEP_NORM: sdx_forward_layer_norm(f, step->name, v->x, v->count, s->norm_epsilon); break;
    case SDX_STEP_WORDS: forward_words(f, s, step, v); break;
    case SDX_STEP_ACT:
    case SDX_STEP_HEAD_ACT:
    case SDX_STEP_TANH:
    case SDX_STEP_GELU:
    case SDX_STEP_RELU:
        sdx_forward_activation(f, v->x, v->count * v->width, activation_of(s, step->kind));
        break;
    default: break;
    }
}

static const double *set_result(sdx_forward *f, const double *x, int rank, int64_t first, int64_t second)
{
    f->rank = rank;
    f->dim[0] = first;
    f->dim[1] = second;
    return x;
}

/* [S, 2] -> [S]: the scores of the first token of an answer */
static const double *take_starts(sdx_forward *f, const rows *v)
{
    double *start = sdx_forward_alloc(f, v->count);
    for (int64_t i = 0; f->status == SDX_OK && i < v->count; i++) start[i] = v->x[i * v->width];
    return set_result(f, start, 1, v->count, 0);
}

static bool is_pooling(sdx_step_kind kind)
{
    return kind == SDX_STEP_FIRST || kind == SDX_STEP_POOL || kind == SDX_STEP_LAST || kind == SDX_STEP_END_TOKEN;
}

const double *sdx_forward_steps(sdx_forward *f, const sdx_settings *s)
{
    rows v = {f->family->forward_body(f, s), f->count, s->hidden};
    bool pooled = false, squeezed = false;
    sdx_forward_scope(f, "%s", "");
    for (const sdx_step *step = f->head->step; step->kind != SDX_STEP_END; step++) {
        if (!is_wanted(step, f->parts)) continue;
        pooled = pooled || is_pooling(step->kind);
        squeezed = squeezed || step->kind == SDX_STEP_SQUEEZE;
        if (step->kind == SDX_STEP_SPANS) return take_starts(f, &v);
        if (step->kind == SDX_STEP_SPLADE && f->splade)
            return set_result(f, sdx_forward_splade(f, v.x, v.width), 1, v.width, 0);
        if (step->kind == SDX_STEP_SPLADE || step->kind == SDX_STEP_OUTPUT || step->kind == SDX_STEP_CHOICES) break;
        forward_step(f, s, step, &v);
    }
    if (pooled) return set_result(f, v.x, 1, v.width, 0);
    return set_result(f, v.x, squeezed ? 1 : 2, v.count, v.width);
}
