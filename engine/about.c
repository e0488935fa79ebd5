/* about.c: what this build can do, and the cap on the instruction set. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"
#include "ops/ops.h"

#ifndef SDX_BUILD_FLAGS
#define SDX_BUILD_FLAGS "built by hand"
#endif

enum { NO_CAP = -1 };

/* The one setting of the process: written by sdx_set_isa before any program is made. */
static atomic_int isa_cap = NO_CAP;

static sdx_status parse_isa(const char *name, const char *whence, sdx_isa *out, sdx_error *err)
{
    if (sdx_isa_parse(name, out)) return SDX_OK;
    char known[160] = "";
    for (int i = 0; i < SDX_ISA_COUNT; i++) {
        strncat(known, i ? ", " : "", sizeof known - strlen(known) - 1);
        strncat(known, sdx_isa_name((sdx_isa)i), sizeof known - strlen(known) - 1);
    }
    return sdx_fail(err, SDX_ERR_USAGE, "%s: there is no instruction set \"%.60s\"; known are %s", whence, name,
                    known);
}

sdx_status sdx_set_isa(const char *name, sdx_error *err)
{
    sdx_isa isa;
    TRY(parse_isa(name, "isa", &isa, err));
    atomic_store(&isa_cap, (int)isa);
    return SDX_OK;
}

sdx_status sdx_kernels_choose(const char *option, const sdx_kernels **out, sdx_error *err)
{
    sdx_isa isa = sdx_isa_detect();
    int cap = atomic_load(&isa_cap);
    const char *env = getenv("SARDONYX_ISA");
    if (option)
        TRY(parse_isa(option, "isa", &isa, err));
    else if (cap != NO_CAP)
        isa = (sdx_isa)cap;
    else if (env && *env)
        TRY(parse_isa(env, "SARDONYX_ISA", &isa, err));
    *out = sdx_kernels_get(isa);
    return SDX_OK;
}

const char *sdx_cpu_isa(void)
{
    return sdx_isa_name(sdx_isa_detect());
}

const char *sdx_used_isa(void)
{
    const sdx_kernels *k;
    return sdx_kernels_choose(NULL, &k, NULL) == SDX_OK ? sdx_isa_name(k->isa) : sdx_cpu_isa();
}

const char *sdx_build_flags(void)
{
    return SDX_BUILD_FLAGS ", compiler " __VERSION__;
}

/* ---- operators ------------------------------------------------------------------------------------------- */

size_t sdx_operator_count(void)
{
    size_t n = 0;
    for (size_t t = 0; t < sdx_operators.count; t++) n += sdx_operators.table[t]->count;
    return n;
}

sdx_op_info sdx_operator_at(size_t i)
{
    for (size_t t = 0; t < sdx_operators.count; t++) {
        const sdx_op_table *table = sdx_operators.table[t];
        if (i < table->count) {
            const sdx_op_def *d = &table->row[i];
            return (sdx_op_info){.domain = *d->domain ? d->domain : "ai.onnx",
                                 .name = d->name,
                                 .since = d->since,
                                 .until = d->until,
                                 .min_inputs = d->min_in,
                                 .max_inputs = d->max_in,
                                 .min_outputs = d->min_out,
                                 .max_outputs = d->max_out,
                                 .family = table->family};
        }
        i -= table->count;
    }
    return (sdx_op_info){0};
}

bool sdx_model_is_random(const sdx_model *model)
{
    for (const sdx_graph *g = model->graphs; g; g = g->next)
        for (sdx_id i = 0; i < g->n_node; i++) {
            const sdx_op_def *def = g->node[i].dead ? NULL : g->node[i].def;
            if (def && def->flags & SDX_OP_NONDETERMINISTIC) return true;
        }
    return false;
}

/* One scale for a whole batch, as DynamicQuantizeLinear has it. */
static bool has_batch_scale(const sdx_node *n)
{
    if (sdx_node_is(n, "DynamicQuantizeLinear") || sdx_node_is_in(n, "com.microsoft", "DynamicQuantizeMatMul") ||
        sdx_node_is_in(n, "com.microsoft", "DynamicQuantizeLSTM"))
        return true;
    return sdx_node_is_in(n, "sardonyx", "DynamicLinear") && !sdx_node_int(n, "per_row", 0);
}

bool sdx_model_mixes_rows(const sdx_model *model)
{
    for (const sdx_graph *g = model->graphs; g; g = g->next)
        for (sdx_id i = 0; i < g->n_node; i++)
            if (has_batch_scale(&g->node[i])) return true;
    return false;
}
