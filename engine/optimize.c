/* optimize.c: a file in, passes, a file out. The new file is written beside its name while the original runs, and gets
 * its name when the rewritten graph has answered the same. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/memory.h"
#include "../base/parallel.h"
#include "../graph/explain.h"
#include "../graph/narrow.h"
#include "engine.h"
#include "ops/ops.h"

/* ---- counts ---------------------------------------------------------------------------------------------- */

/* Standard operators that stand for a whole pattern: fused when there are more of them than before. */
static const char *const composite[] = {"LayerNormalization", "SimplifiedLayerNormalization",
                                        "RMSNormalization",   "Gelu",
                                        "Attention",          "RotaryEmbedding"};
enum { COMPOSITES = sizeof composite / sizeof *composite };

static void tally_add(sdx_graph_stats *s, const char *name, size_t count)
{
    enum { MOST = sizeof s->fused / sizeof *s->fused };
    size_t i = 0;
    while (i < s->n_fused && strcmp(s->fused[i].name, name)) i++;
    if (i == MOST || !count) return;
    if (i == s->n_fused) snprintf(s->fused[s->n_fused++].name, sizeof s->fused->name, "%s", name);
    s->fused[i].count += count;
}

static int by_count(const void *a, const void *b)
{
    const sdx_op_tally *x = a, *y = b;
    if (x->count != y->count) return x->count < y->count ? 1 : -1;
    return strcmp(x->name, y->name);
}

static void count_composites(const sdx_graph *g, size_t count[COMPOSITES])
{
    for (int c = 0; c < COMPOSITES; c++) {
        count[c] = 0;
        for (sdx_id i = 0; i < g->n_node; i++) count[c] += sdx_node_is(&g->node[i], composite[c]);
    }
}

/* native: composites of the original file, which nobody fused. */
static void count_graph(const sdx_graph *g, const size_t native[COMPOSITES], sdx_graph_stats *s)
{
    *s = (sdx_graph_stats){.inputs = (size_t)g->n_input,
                           .outputs = (size_t)g->n_output,
                           .initializers = sdx_graph_initializer_count(g)};
    for (sdx_id i = 0; i < g->n_node; i++) {
        const sdx_node *n = &g->node[i];
        if (n->dead) continue;
        s->nodes++;
        if (!strcmp(n->domain, "com.microsoft")) tally_add(s, n->op_type, 1);
    }
    size_t count[COMPOSITES];
    count_composites(g, count);
    for (int c = 0; c < COMPOSITES; c++)
        tally_add(s, composite[c], count[c] > native[c] ? count[c] - native[c] : 0);
    qsort(s->fused, s->n_fused, sizeof *s->fused, by_count);
}

/* ---- what the caller claims ------------------------------------------------------------------------------ */

/* ONNX Runtime's names, and the families of checkpoints that its tutorials pass under their own. */
static const char *const model_types[] = {
    "auto",    "albert",    "bart",    "bert",       "bert_keras", "bert_tf", "camembert",
    "clip",    "conformer", "deberta", "deberta-v2", "distilbert", "electra", "gpt2",
    "gpt2_tf", "gpt_neox",  "mpnet",   "phi",        "roberta",    "swin",    "t5",
    "tnlr",    "unet",      "vae",     "vit",        "wav2vec2",   "whisper", "xlm-roberta"};

static sdx_status check_model_type(const sdx_model *model, const char *type, sdx_error *err)
{
    const char *own = sdx_model_metadata(model, "model_type");
    if (!type || (own && !strcmp(own, type))) return SDX_OK;
    for (size_t i = 0; i < sizeof model_types / sizeof *model_types; i++)
        if (!strcmp(model_types[i], type)) return SDX_OK;
    return sdx_fail(err, SDX_ERR_USAGE,
                    "%s: there is no model type \"%.60s\"; leave it out, the graph itself is read", model->path,
                    type);
}

static sdx_status check_number(const sdx_model *model, const char *what, int64_t given, int64_t found,
                               const char *where, sdx_error *err)
{
    if (!given || !found || given == found) return SDX_OK;
    return sdx_fail(err, SDX_ERR_USAGE, "%s: %s %lld was given, but %s says %lld", model->path, what,
                    (long long)given, where, (long long)found);
}

static sdx_status check_metadata(const sdx_model *model, const char *key, int64_t given, sdx_error *err)
{
    const char *text = sdx_model_metadata(model, key);
    return check_number(model, key, given, text ? strtoll(text, NULL, 10) : 0, "the model's metadata", err);
}

static sdx_status check_attention(const sdx_model *model, const sdx_node *n, const sdx_optimize_options *o,
                                  sdx_error *err)
{
    const sdx_shape *x = &model->graph->value[n->in[0]].type.shape;
    char where[SDX_NODE_TEXT];
    sdx_node_format(n, where, sizeof where);
    TRY(check_number(model, "num_heads", o->num_heads, sdx_node_int(n, "num_heads", 0), where, err));
    int64_t hidden = x->rank == 3 && sdx_dim_is_known(x->dim[2]) ? x->dim[2] : 0;
    return check_number(model, "hidden_size", o->hidden_size, hidden, where, err);
}

static sdx_status check_claims(const sdx_model *model, const sdx_optimize_options *o, sdx_error *err)
{
    TRY(check_model_type(model, o->model_type, err));
    TRY(check_metadata(model, "num_heads", o->num_heads, err));
    TRY(check_metadata(model, "hidden_size", o->hidden_size, err));
    for (sdx_id i = 0; i < model->graph->n_node; i++) {
        const sdx_node *n = &model->graph->node[i];
        bool attention = sdx_node_is_in(n, "com.microsoft", "Attention") ||
                         sdx_node_is_in(n, "com.microsoft", "MultiHeadAttention");
        if (attention && n->in[0] != SDX_NONE) TRY(check_attention(model, n, o, err));
    }
    return SDX_OK;
}

/* ---- the whole ------------------------------------------------------------------------------------------- */

static bool is_standard(const sdx_optimize_options *o)
{
    return o->target && !strcmp(o->target, "std");
}

static sdx_status check_target(const sdx_optimize_options *o, sdx_error *err)
{
    if (!o->target || is_standard(o) || !strcmp(o->target, "ort")) return SDX_OK;
    return sdx_fail(err, SDX_ERR_USAGE, "there is no target \"%.60s\"; it is ort or std", o->target);
}

/* Nodes inlined from functions may be of another opset than the model; a file has one for all. */
static sdx_status raise_opset(sdx_model *model, bool standard, sdx_error *err)
{
    enum { ATTENTION = 23, ITS_IR = 11 };
    int64_t to = sdx_model_newest_opset(model);
    if (standard && to < ATTENTION) to = ATTENTION;
    if (standard && model->ir_version < ITS_IR) model->ir_version = ITS_IR;
    sdx_status status = sdx_model_resolve(model, &sdx_operators, err);
    if (status != SDX_OK && status != SDX_ERR_UNSUPPORTED) return status;
    TRY(sdx_model_infer(model, err));
    return sdx_model_raise_opset(model, to, err);
}

/* What the file itself holds of other domains stays what it is. */
static sdx_status check_standard(const sdx_model *model, sdx_error *err)
{
    char where[SDX_NODE_TEXT];
    for (const sdx_graph *g = model->graphs; g; g = g->next)
        for (sdx_id i = 0; i < g->n_node; i++)
            if (*g->node[i].domain && !g->node[i].dead)
                return sdx_fail(err, SDX_ERR_UNSUPPORTED, "%s: %s is of domain %s; for --target std give the graph "
                                "as it was exported", model->path,
                                sdx_node_format(&g->node[i], where, sizeof where), g->node[i].domain);
    return SDX_OK;
}

static sdx_status narrow(sdx_model *model, const sdx_optimize_options *o, sdx_error *err)
{
    if (!o->weights) return SDX_OK;
    bool brain = !strcmp(o->weights, "bf16");
    if (!brain && strcmp(o->weights, "fp16"))
        return sdx_fail(err, SDX_ERR_USAGE, "there are no weights \"%.60s\"; they are fp16 or bf16", o->weights);
    return sdx_model_narrow(model, brain ? SDX_BF16 : SDX_F16, err);
}

static sdx_status rewrite(sdx_model *model, const sdx_optimize_options *o, sdx_error *err)
{
    sdx_eval_context eval = {.threads = o->threads ? o->threads : sdx_default_threads(), .steps_left = SDX_FOLD_STEPS};
    TRY(check_target(o, err));
    TRY(sdx_kernels_choose(o->isa, &eval.kernels, err));
    TRY(raise_opset(model, is_standard(o), err));
    sdx_pass_context passes = {.model = model,
                               .registry = &sdx_operators,
                               .eval = sdx_eval_node,
                               .eval_context = &eval,
                               .standard = is_standard(o),
                               .err = err};
    TRY(sdx_passes_run(&passes, o->only));
    if (is_standard(o)) TRY(check_standard(model, err));
    return narrow(model, o, err);
}

static sdx_status open_rewritten(const sdx_optimize_options *o, sdx_model **out, sdx_graph_stats *before,
                                 sdx_graph_stats *after, sdx_error *err)
{
    size_t native[COMPOSITES];
    sdx_model *model;
    TRY(sdx_model_open(o->input, &model, err));
    count_composites(model->graph, native);
    sdx_status status = sdx_graph_index(model->graph, err);
    if (status == SDX_OK) {
        count_graph(model->graph, native, before);
        status = rewrite(model, o, err);
    }
    if (status == SDX_OK) status = check_claims(model, o, err);
    if (status == SDX_OK) count_graph(model->graph, native, after);
    if (status == SDX_OK)
        *out = model;
    else
        sdx_model_close(model);
    return status;
}

/* IR 10 (ONNX 1.16) brought 4-bit integers and metadata of nodes, which are not written. A file without the
 * former says IR 9, which runtimes from ONNX Runtime 1.17 on read. */
static void lower_ir(sdx_model *model)
{
    enum { PLAIN_IR = 9, PLAIN_OPSET = 20, LAST_PLAIN_DTYPE = 20 };
    if (model->ir_version <= PLAIN_IR || sdx_model_opset(model, "") > PLAIN_OPSET) return;
    for (const sdx_graph *g = model->graphs; g; g = g->next)
        for (sdx_id v = 0; v < g->n_value; v++)
            if ((int)g->value[v].type.dtype > LAST_PLAIN_DTYPE) return;
    model->ir_version = PLAIN_IR;
}

/* The message about a difference gets the place where it begins. */
static sdx_status add_place(const sdx_optimize_options *o, const sdx_run_options *how, sdx_status status,
                            sdx_error *err)
{
    char place[SDX_NODE_TEXT] = "", sentence[SDX_ERROR_MAX];
    sdx_graph_stats before, after;
    sdx_model *model;
    sdx_error ignored = {0};
    if (open_rewritten(o, &model, &before, &after, &ignored) == SDX_OK)
        sdx_find_divergence(o->input, model, how, place, sizeof place, &ignored);
    if (!*place) return status;
    memcpy(sentence, err->message, sizeof sentence);
    return sdx_fail(err, status, "%.700s; the first difference is in %s", sentence, place);
}

static sdx_status explain_form(const char *name, sdx_explain_form *form, sdx_error *err)
{
    static const char *const names[] = {
        [SDX_EXPLAIN_TEXT] = "text", [SDX_EXPLAIN_JSON] = "json", [SDX_EXPLAIN_HTML] = "html"};
    for (int i = 0; i < 3; i++)
        if (!strcmp(name ? name : "text", names[i])) return *form = (sdx_explain_form)i, SDX_OK;
    return sdx_fail(err, SDX_ERR_USAGE, "there is no form \"%.60s\" of an explanation; it is text, json or html", name);
}

static sdx_status explain(const sdx_optimize_options *o, const sdx_model *model, sdx_error *err)
{
    char *text;
    size_t missed;
    sdx_explain_form form = SDX_EXPLAIN_TEXT;
    if (!o->explanation) return SDX_OK;
    TRY(explain_form(o->explain_form, &form, err));
    TRY(sdx_model_explain(model, form, &text, &missed, err));
    *o->explanation = text;
    if (o->missed) *o->missed = missed;
    return SDX_OK;
}

/* Two jobs that wait for different things: one thread copies weights into a file, the other computes. */
typedef struct jobs {
    const sdx_optimize_options *options;
    const sdx_run_options *how;
    const sdx_model *model;
    sdx_onnx_staged file;
    sdx_answers *answers; /* NULL: the original does not run */
    sdx_error refused, error[2];
    sdx_status status[2];
} jobs;

static void stage_file(jobs *j)
{
    const sdx_onnx_write_options write = {.external_data = j->options->external_data};
    j->status[0] = sdx_onnx_stage(j->model, j->options->output, &write, &j->file, &j->error[0]);
}

static void run_original(jobs *j)
{
    j->status[1] = sdx_answers_create(j->options->input, j->how, &j->answers, &j->refused, &j->error[1]);
}

static void run_jobs(void *context, int64_t begin, int64_t end, int worker)
{
    static void (*const job[])(jobs *) = {stage_file, run_original};
    (void)worker;
    for (int64_t i = begin; i < end; i++) job[i](context);
}

/* Takes the model over. */
static sdx_status compare(jobs *j, sdx_model *model, sdx_error *err)
{
    sdx_status status = SDX_OK;
    if (j->options->unchecked) *j->options->unchecked = j->refused;
    if (j->answers)
        status = sdx_answers_compare(j->answers, model, j->how, err);
    else
        sdx_model_close(model);
    return status == SDX_ERR_INTERNAL ? add_place(j->options, j->how, status, err) : status;
}

/* Takes the model over. */
static sdx_status write_checked(const sdx_optimize_options *o, sdx_model *model, sdx_error *err)
{
    const sdx_run_options how = {.threads = o->threads, .isa = o->isa, .no_optimize = true, .brief = true};
    jobs j = {.options = o, .how = &how, .model = model};
    sdx_parallel_for(o->threads ? o->threads : sdx_default_threads(), 2, 1, run_jobs, &j);
    sdx_status status = j.status[0] != SDX_OK ? j.status[0] : j.status[1];
    if (status == SDX_OK) {
        status = compare(&j, model, err);
    } else {
        *err = j.error[j.status[0] == SDX_OK];
        sdx_model_close(model);
    }
    sdx_answers_free(j.answers);
    if (status == SDX_OK) return sdx_onnx_commit(&j.file, err);
    sdx_onnx_abort(&j.file);
    return status;
}

static sdx_status optimize(const sdx_optimize_options *o, sdx_graph_stats *before, sdx_graph_stats *after,
                           sdx_error *err)
{
    sdx_model *model;
    TRY(open_rewritten(o, &model, before, after, err));
    sdx_status status = explain(o, model, err);
    lower_ir(model);
    if (status == SDX_OK) return write_checked(o, model, err);
    sdx_model_close(model);
    return status;
}

sdx_status sdx_optimize(const sdx_optimize_options *options, sdx_graph_stats *before, sdx_graph_stats *after,
                        sdx_error *err)
{
    sdx_graph_stats b, a;
    sdx_error local;
    TRY(optimize(options, &b, &a, err ? err : &local));
    if (before) *before = b;
    if (after) *after = a;
    return SDX_OK;
}
