/* wide.c: operators that compute in float32 only (SDX_OP_WIDE), given float16 or bfloat16. Prepare, plan and run are
 * called through here: they see float32 tensors, which lie in the workspace, in front of the operator's own. The
 * pass widen_f16 saves the conversions where neighbours compute in float32 too; what it leaves still runs.
 */
#include <string.h>

#include "engine.h"
#include "ops/compute.h"

enum { MOST = 32 }; /* inputs or outputs of such an operator: fewer in every row of the table */

static bool has_half(const sdx_type *t, int n)
{
    for (int i = 0; i < n; i++)
        if (sdx_dtype_is_half(t[i].dtype)) return true;
    return false;
}

/* A copy in which half precision is float32 of unknown numbers. */
static const sdx_type *widen_types(const sdx_type *t, int n, sdx_type *wide)
{
    for (int i = 0; i < n; i++) {
        wide[i] = t[i];
        if (!sdx_dtype_is_half(t[i].dtype)) continue;
        wide[i].dtype = SDX_F32;
        wide[i].constant = NULL;
    }
    return wide;
}

sdx_status sdx_op_prepare(sdx_prepare *p)
{
    const sdx_op_def *def = p->node->def;
    if (!(def->flags & SDX_OP_WIDE) || !has_half(p->in, p->n_in)) return def->prepare(p);
    sdx_type wide[MOST];
    sdx_prepare own = *p;
    own.in = widen_types(p->in, p->n_in, wide);
    TRY(def->prepare(&own));
    p->state = own.state;
    p->packed = own.packed;
    return SDX_OK;
}

static bool add_floats(size_t *total, const sdx_type *t, int n)
{
    for (int i = 0; i < n; i++)
        if (sdx_dtype_is_half(t[i].dtype) && !sdx_floats_plan(&t[i], total)) return false;
    return true;
}

sdx_status sdx_op_plan(sdx_plan_step *step)
{
    const sdx_op_def *def = step->node->def;
    if (!(def->flags & SDX_OP_WIDE) || !has_half(step->in, step->n_in)) return def->plan ? def->plan(step) : SDX_OK;
    sdx_type in[MOST], out[MOST];
    sdx_plan_step own = *step;
    own.in = widen_types(step->in, step->n_in, in);
    own.out = widen_types(step->out, step->n_out, out);
    if (def->plan) TRY(def->plan(&own));
    step->workspace = own.workspace;
    bool fits = add_floats(&step->workspace, step->in, step->n_in) &&
                add_floats(&step->workspace, step->out, step->n_out);
    return fits ? SDX_OK : sdx_workspace_fail(step->err);
}

static bool runs_wide(const sdx_run *run)
{
    if (!(run->node->def->flags & SDX_OP_WIDE)) return false;
    for (int i = 0; i < run->n_in; i++)
        if (sdx_dtype_is_half(run->in[i].dtype)) return true;
    return false;
}

sdx_status sdx_op_run(sdx_run *run)
{
    if (!runs_wide(run)) return run->node->def->run(run);
    sdx_tensor in[MOST], out[MOST];
    char *workspace = run->workspace;
    for (int i = 0; i < run->n_in; i++) {
        in[i] = run->in[i];
        if (!sdx_dtype_is_half(in[i].dtype)) continue;
        in[i].data = (void *)sdx_floats_of(run->kernels, &run->in[i], &workspace);
        in[i].dtype = SDX_F32;
    }
    for (int i = 0; i < run->n_out; i++) {
        out[i] = run->out[i];
        if (!sdx_dtype_is_half(out[i].dtype)) continue;
        out[i].data = sdx_floats_for(&run->out[i], &workspace);
        out[i].dtype = SDX_F32;
    }
    sdx_run own = *run;
    own.in = in;
    own.out = out;
    own.workspace = workspace;
    TRY(run->node->def->run(&own));
    for (int i = 0; i < run->n_out; i++)
        if (sdx_dtype_is_half(run->out[i].dtype))
            sdx_floats_store(run->out[i].dtype, out[i].data, sdx_tensor_count(&out[i]), run->out[i].data, 0);
    return SDX_OK;
}
