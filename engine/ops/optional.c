/* optional.c: values that may be absent. One that is there is the tensor or sequence itself, so these operators only
 * look whether there is something. */
#include "../../base/sequence.h"
#include "ops.h"

enum { FLAGS = SDX_OP_DYNAMIC | SDX_OP_ANY_VALUE };

static sdx_status infer_nothing(sdx_infer *infer)
{
    (void)infer;
    return SDX_OK;
}

static bool is_there(const sdx_run *run) { return sdx_run_has_in(run, 0) && run->in[0].dtype != SDX_NOTHING; }

static sdx_status run_optional(sdx_run *run)
{
    sdx_tensor nothing = {.dtype = SDX_NOTHING};
    return run->give(run, 0, is_there(run) ? &run->in[0] : &nothing);
}

static sdx_status infer_has(sdx_infer *x)
{
    sdx_infer_set(x, 0, SDX_BOOL, &(sdx_shape){.rank = 0});
    return SDX_OK;
}

static sdx_status run_has(sdx_run *run)
{
    TRY(run->allocate(run, 0, SDX_BOOL, &(sdx_shape){.rank = 0}));
    if (run->out[0].data) *(uint8_t *)run->out[0].data = is_there(run);
    return SDX_OK;
}

static sdx_status run_get(sdx_run *run)
{
    if (!is_there(run)) return sdx_fail(run->err, SDX_ERR_USAGE, "the optional holds nothing");
    return run->give(run, 0, &run->in[0]);
}

static const sdx_op_def rows[] = {
    {"", "Optional", 15, 0, 0, 1, 1, 1, FLAGS, infer_nothing, NULL, NULL, run_optional},
    {"", "OptionalHasElement", 15, 17, 1, 1, 1, 1, FLAGS, infer_has, NULL, NULL, run_has},
    {"", "OptionalHasElement", 18, 0, 0, 1, 1, 1, FLAGS, infer_has, NULL, NULL, run_has},
    {"", "OptionalGetElement", 15, 0, 1, 1, 1, 1, FLAGS, infer_nothing, NULL, NULL, run_get},
};
SDX_OP_TABLE(optional);
