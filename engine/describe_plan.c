/* describe_plan.c: a plan for people and programs: the steps in order, and where each leaves its outputs. One JSON tree
 * is made; the text is printed from it. */
#include <stdlib.h>
#include <string.h>

#include "../base/buffer.h"
#include "../base/json.h"
#include "../base/memory.h"
#include "engine.h"

/* ---- the tree --------------------------------------------------------------------------------------------
 * jansson's *_new functions release what they cannot add; `lost` counts that, so that it is checked once. */

typedef struct writer {
    const sdx_plan *plan;
    int lost;
} writer;

static void set(writer *w, json_t *object, const char *key, json_t *value)
{
    w->lost += json_object_set_new(object, key, value) != 0;
}

static void append(writer *w, json_t *array, json_t *value)
{
    w->lost += json_array_append_new(array, value) != 0;
}

static json_t *type_text(const sdx_type *t)
{
    char text[SDX_TENSOR_TEXT];
    return json_string(sdx_tensor_format(t->dtype, &t->shape, text, sizeof text));
}

static const char *place_name(const sdx_plan *p, const sdx_step *s, sdx_id v)
{
    if (p->root[v] != v) return p->home[p->root[v]] == SDX_HOME_KEPT ? "kept" : s->shares ? "view" : "in place";
    return p->home[v] == SDX_HOME_BUFFER ? "buffer" : "allocated";
}

static json_t *describe_output(writer *w, const sdx_step *s, sdx_id v)
{
    const sdx_plan *p = w->plan;
    const sdx_type *t = &p->type[v];
    json_t *out = json_object();
    size_t bytes;
    set(w, out, "name", sdx_json_text(p->body->graph->value[v].name));
    set(w, out, "type", type_text(t));
    set(w, out, "place", json_string(place_name(p, s, v)));
    if (p->root[v] != v || p->home[v] != SDX_HOME_BUFFER) return out;
    set(w, out, "offset", json_integer((json_int_t)p->offset[v]));
    if (sdx_tensor_size(t->dtype, &t->shape, &bytes)) set(w, out, "bytes", json_integer((json_int_t)bytes));
    return out;
}

static json_t *describe_step(writer *w, const sdx_step *s)
{
    const sdx_node *n = sdx_step_node(w->plan, s);
    json_t *step = json_object(), *outputs = json_array();
    for (int o = 0; o < n->n_out; o++)
        if (n->out[o] != SDX_NONE && s->wanted[o]) append(w, outputs, describe_output(w, s, n->out[o]));
    set(w, step, "operator", sdx_json_text(n->op_type));
    set(w, step, "node", sdx_json_text(n->name));
    set(w, step, "shapes_in_run", json_boolean(s->dynamic));
    set(w, step, "graphs_inside", json_boolean(sdx_node_graph(n, 0) != NULL));
    set(w, step, "workspace", json_integer((json_int_t)s->workspace));
    set(w, step, "outputs", outputs);
    return step;
}

static json_t *describe_input(writer *w, int i)
{
    const sdx_tensor *key = &w->plan->key[i];
    const sdx_body *body = w->plan->body;
    json_t *input = json_object();
    set(w, input, "name", sdx_json_text(body->graph->value[body->feed[i]].name));
    set(w, input, "type", type_text(&(sdx_type){.dtype = key->dtype, .shape = sdx_tensor_shape(key)}));
    return input;
}

static json_t *describe(writer *w)
{
    const sdx_plan *p = w->plan;
    json_t *root = json_object(), *inputs = json_array(), *steps = json_array();
    for (int i = 0; i < p->body->n_feed; i++)
        if (p->key[i].dtype != SDX_UNDEFINED) append(w, inputs, describe_input(w, i));
    for (int i = 0; i < p->n_step; i++) append(w, steps, describe_step(w, &p->step[i]));
    set(w, root, "path", sdx_json_text(p->body->program->model->path));
    set(w, root, "inputs", inputs);
    set(w, root, "buffer_bytes", json_integer((json_int_t)p->bytes));
    set(w, root, "steps", steps);
    return root;
}

/* ---- as text --------------------------------------------------------------------------------------------- */

static const char *text_of(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

static void print_outputs(sdx_buffer *b, const json_t *outputs)
{
    size_t i;
    const json_t *out;
    json_array_foreach(outputs, i, out)
    {
        const json_t *offset = json_object_get(out, "offset"), *bytes = json_object_get(out, "bytes");
        sdx_buffer_printf(b, "%s %-28s %s", i ? "," : "", text_of(out, "type"), text_of(out, "place"));
        if (offset) sdx_buffer_printf(b, " %lld", (long long)json_integer_value(offset));
        if (bytes) sdx_buffer_printf(b, " +%lld", (long long)json_integer_value(bytes));
    }
}

static void print(sdx_buffer *b, json_t *root)
{
    size_t i;
    json_t *entry, *steps = json_object_get(root, "steps");
    sdx_buffer_printf(b, "%s\n", text_of(root, "path"));
    json_array_foreach(json_object_get(root, "inputs"), i, entry)
        sdx_buffer_printf(b, "input %s %s\n", text_of(entry, "name"), text_of(entry, "type"));
    sdx_buffer_printf(b, "%zu steps in a buffer of %lld bytes\n\n step  operator                     output\n",
                      json_array_size(steps), (long long)json_integer_value(json_object_get(root, "buffer_bytes")));
    json_array_foreach(steps, i, entry)
    {
        long long workspace = json_integer_value(json_object_get(entry, "workspace"));
        sdx_buffer_printf(b, "%5zu  %-28s", i, text_of(entry, "operator"));
        print_outputs(b, json_object_get(entry, "outputs"));
        if (workspace) sdx_buffer_printf(b, "; workspace %lld", workspace);
        if (json_is_true(json_object_get(entry, "shapes_in_run"))) sdx_buffer_puts(b, "; shapes in the run");
        if (json_is_true(json_object_get(entry, "graphs_inside"))) sdx_buffer_puts(b, "; its graph is planned then");
        sdx_buffer_putc(b, '\n');
    }
}

/* ---- what is asked for ----------------------------------------------------------------------------------- */

static sdx_status fill_feed(const sdx_program *program, size_t n, const char *const *names, const sdx_tensor *inputs,
                            sdx_tensor *feed, sdx_error *err)
{
    const sdx_graph *g = program->model->graph;
    for (size_t i = 0; i < n; i++) {
        int k = 0;
        while (k < g->n_input && strcmp(g->value[g->input[k]].name, names[i])) k++;
        if (k == g->n_input)
            return sdx_fail(err, SDX_ERR_USAGE, "%s: there is no input \"%.200s\"", program->model->path, names[i]);
        feed[k] = inputs[i];
    }
    return SDX_OK;
}

static sdx_status write(const sdx_plan *plan, bool json, char **text, sdx_error *err)
{
    writer w = {.plan = plan};
    sdx_buffer b = {0};
    json_t *root = describe(&w);
    char *dump = json && !w.lost ? json_dumps(root, JSON_INDENT(2)) : NULL;
    if (!json && !w.lost) print(&b, root);
    json_decref(root);
    if (w.lost || (json && !dump)) return sdx_fail_memory(err, 4096);
    if (!json) return sdx_buffer_take(&b, text, err);
    *text = dump;
    return SDX_OK;
}

sdx_status sdx_program_describe_plan(const sdx_program *program, size_t n_inputs, const char *const *input_names,
                                     const sdx_tensor *inputs, bool json, char **text, sdx_error *err)
{
    const sdx_body *body = sdx_program_main(program);
    sdx_plan *plan = NULL;
    sdx_status status;
    sdx_tensor *feed = sdx_calloc((size_t)body->n_feed, sizeof *feed);
    if (!feed) return sdx_fail_memory(err, (size_t)body->n_feed * sizeof *feed);
    for (int i = 0; i < body->n_feed; i++) feed[i] = sdx_absent;
    TRY_GOTO(fill_feed(program, n_inputs, input_names, inputs, feed, err));
    TRY_GOTO(sdx_plan_create(body, feed, NULL, &plan, err));
    status = write(plan, json, text, err);
done:
    sdx_plan_free(plan);
    free(feed);
    return status;
}
