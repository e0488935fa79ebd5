/* explain_report.c: the findings of explain.c as text, as JSON, or as inspect's page with their regions marked. */
#include "explain_report.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/buffer.h"
#include "passes/match.h"

static const char *describe(const sdx_graph *g, const sdx_node *n, char *buf, size_t size)
{
    char node[SDX_NODE_TEXT], shape[SDX_TENSOR_TEXT] = "";
    if (!n) return "nothing";
    const sdx_type *type = n->n_out && n->out[0] != SDX_NONE ? &g->value[n->out[0]].type : NULL;
    if (type && type->dtype != SDX_UNDEFINED) sdx_tensor_format(type->dtype, &type->shape, shape, sizeof shape);
    snprintf(buf, size, "%s%s%s", sdx_node_format(n, node, sizeof node), *shape ? " -> " : "", shape);
    return buf;
}

static void write_text(const sdx_report *r, sdx_buffer *out)
{
    char found[SDX_NODE_TEXT + SDX_TENSOR_TEXT + 8];
    for (size_t i = 0; i < r->count; i++) {
        const sdx_finding *f = &r->list[i];
        if (f->became) {
            sdx_buffer_printf(out, "%-10s %s: became %s\n", f->kind, f->place, f->became);
            continue;
        }
        sdx_buffer_printf(out, "%-10s %s: not fused, %d of %d steps matched\n", f->kind, f->place, f->steps,
                          f->of);
        sdx_buffer_printf(out, "    stopped at  %s\n", describe(f->g, f->stopped, found, sizeof found));
        sdx_buffer_printf(out, "    because     %s\n    expected    %s\n    would help  %s\n", f->reason,
                          f->expected, f->fix);
    }
}

/* ---- regions: what belongs to a place, for the page ----------------------------------------------------- */

enum { MOST_NODES = 48 };

/* Where the region of a miss ends: projections and norms are not of it. */
static bool is_border(const sdx_graph *g, const sdx_node *n)
{
    bool product = sdx_match_is(n, "MatMul") || sdx_match_is(n, "Gemm");
    return (product && n->n_in > 1 && sdx_graph_constant(g, n->in[1])) || strstr(n->op_type, "Normalization");
}

/* The place and the nodes above it, breadth first; a fused place is one node. */
static int find_region(const sdx_finding *f, const sdx_node *list[MOST_NODES + 1])
{
    int count = 1;
    list[0] = f->at;
    for (int at = 0; at < count && !f->became; at++) {
        for (int i = 0; i < list[at]->n_in; i++) {
            const sdx_node *above = list[at]->in[i] == SDX_NONE ? NULL : sdx_graph_producer(f->g, list[at]->in[i]);
            bool seen = !above || is_border(f->g, above) || count == MOST_NODES;
            for (int k = 0; k < count && !seen; k++) seen = list[k] == above;
            if (!seen) list[count++] = above;
        }
    }
    return count;
}

/* As the page counts nodes: dead ones are left out. */
static json_t *place_of(const sdx_graph *g, const sdx_node *n)
{
    int place = 0;
    for (const sdx_node *p = g->node; p < n; p++) place += !p->dead;
    return json_pack("[i, i]", g->index, place);
}

static json_t *region_of(const sdx_finding *f)
{
    const sdx_node *list[MOST_NODES + 1];
    int count = find_region(f, list);
    if (f->stopped) list[count++] = f->stopped;
    json_t *region = json_array();
    for (int i = 0; i < count; i++) json_array_append_new(region, place_of(f->g, list[i]));
    return region;
}

static sdx_status write_json(const sdx_report *r, bool regions, sdx_buffer *out)
{
    char found[SDX_NODE_TEXT + SDX_TENSOR_TEXT + 8];
    json_t *list = json_array();
    for (size_t i = 0; list && i < r->count; i++) {
        const sdx_finding *f = &r->list[i];
        json_t *o = f->became
                        ? json_pack("{s:s, s:s, s:s}", "kind", f->kind, "node", f->place, "became", f->became)
                        : json_pack("{s:s, s:s, s:n, s:b, s:i, s:i, s:s, s:s, s:s, s:s, s:s}", "kind", f->kind,
                                    "node", f->place, "became", "fusible", f->should, "steps_matched", f->steps,
                                    "steps", f->of, "stopped_at", f->stopped ? f->stopped->name : "", "found",
                                    describe(f->g, f->stopped, found, sizeof found), "reason", f->reason,
                                    "expected", f->expected, "fix", f->fix);
        if (o && regions) json_object_set_new(o, "region", region_of(f));
        if (!o || json_array_append_new(list, o)) break;
    }
    char *text = list && json_array_size(list) == r->count
                     ? json_dumps(list, regions ? JSON_ENSURE_ASCII : JSON_INDENT(2))
                     : NULL;
    json_decref(list);
    if (!text) return sdx_fail_memory(r->err, r->count * 256);
    sdx_buffer_puts(out, text);
    sdx_buffer_putc(out, '\n');
    free(text);
    return SDX_OK;
}

static sdx_status write_page(const sdx_report *r, const sdx_model *model, char **html)
{
    sdx_buffer json = {0};
    char *findings;
    sdx_status status = write_json(r, true, &json);
    if (status != SDX_OK) return sdx_buffer_fini(&json), status;
    TRY(sdx_buffer_take(&json, &findings, r->err));
    status = sdx_model_page(model, NULL, findings, html, r->err);
    free(findings);
    return status;
}

sdx_status sdx_report_write(const sdx_report *r, const sdx_model *model, sdx_explain_form form, char **text)
{
    sdx_buffer out = {0};
    if (form == SDX_EXPLAIN_HTML) return write_page(r, model, text);
    if (form == SDX_EXPLAIN_JSON) {
        sdx_status status = write_json(r, false, &out);
        if (status != SDX_OK) return sdx_buffer_fini(&out), status;
    } else {
        write_text(r, &out);
    }
    return sdx_buffer_take(&out, text, r->err);
}
