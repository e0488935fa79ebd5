/* compute.h: what the compute operators share: checks of types and sizes during inference, constants kept by
 * prepare, and rows of any float type seen as float32. */
#ifndef SDX_OPS_COMPUTE_H
#define SDX_OPS_COMPUTE_H

#include "ops.h"

/* ---- infer: all checks pass over what is unknown or absent ----------------------------------------------- */

#define SDX_SET(dtype) (1u << (dtype))
#define SDX_SET_FLOAT  (SDX_SET(SDX_F32) | SDX_SET(SDX_F64) | SDX_SET(SDX_F16) | SDX_SET(SDX_BF16))
#define SDX_SET_BYTE   (SDX_SET(SDX_U8) | SDX_SET(SDX_I8))

/* Input i, or an unknown type when it is absent. */
const sdx_type *sdx_infer_in(const sdx_infer *infer, int i);
sdx_status sdx_want_dtype(const sdx_infer *infer, int i, const char *name, unsigned set);
sdx_status sdx_want_same_dtype(const sdx_infer *infer, int i, const char *name, int as, const char *as_name);
sdx_status sdx_want_rank(const sdx_infer *infer, int i, const char *name, int least, int most);
/* axis may be negative; the rank must have been checked. */
sdx_status sdx_want_dim(const sdx_infer *infer, int i, const char *name, int axis, sdx_dim dim);
sdx_status sdx_want_present(const sdx_infer *infer, int i, const char *name);
/* dim[axis] (axis may be negative), unknown when the rank is. */
sdx_dim sdx_type_dim(const sdx_type *type, int axis);
/* The more certain of two spellings of one size. */
sdx_dim sdx_dim_merge(sdx_dim a, sdx_dim b);

/* ---- prepare --------------------------------------------------------------------------------------------- */

/* An aligned copy of constant input i in the program's arena, marked as packed; *out stays NULL when the input
 * is not constant. For operators whose constants come at any alignment. */
sdx_status sdx_prepare_keep(sdx_prepare *p, int i, const void **out);
/* The same for every constant input that is not packed yet; kept[n_in] as prepare leaves it, for sdx_kept_in.
 */
sdx_status sdx_prepare_keep_all(sdx_prepare *p, const void **kept);
/* Input i of a run, its data where prepare kept it. */
static inline sdx_tensor sdx_kept_in(const sdx_run *run, const void *const *kept, int i)
{
    sdx_tensor t = run->in[i];
    if (kept[i]) t.data = (void *)kept[i];
    return t;
}
sdx_status sdx_prepare_state(sdx_prepare *p, size_t bytes, void *state_pointer);
#define PREPARE_STATE(p, pointer) TRY(sdx_prepare_state((p), sizeof *(pointer), &(pointer)))

/* ---- plan and run ---------------------------------------------------------------------------------------- */

/* Sizes of workspace parts, each rounded up to SDX_ALIGN; false on overflow. */
bool sdx_workspace_add(size_t *total, size_t count, size_t size);
sdx_status sdx_workspace_fail(sdx_error *err);

/* Work that the sizes of inputs and outputs do not bound counts against the run's limit of steps, a step for every
 * SDX_STEP_WORK operations: a file may ask for centuries in one node. */
enum { SDX_STEP_WORK = 1 << 16 };
sdx_status sdx_run_spend(sdx_run *run, double operations);
static inline size_t sdx_align_up(size_t bytes)
{
    return (bytes + SDX_ALIGN - 1) & ~(size_t)(SDX_ALIGN - 1);
}
/* The next `bytes` of a workspace, and the pointer moved behind them. */
void *sdx_workspace_take(char **workspace, size_t bytes);

/* n elements of f32, f16, bf16 or f64 at any alignment as floats, and back. */
void sdx_floats_load(const sdx_kernels *kernels, sdx_dtype dtype, const void *data, int64_t begin, int64_t n,
                     float *out);
void sdx_floats_store(sdx_dtype dtype, const float *x, int64_t n, void *data, int64_t begin);
/* A tensor's numbers as floats: where they are, or widened into the workspace. */
const float *sdx_floats_of(const sdx_kernels *kernels, const sdx_tensor *t, char **workspace);
/* Where to write a tensor's numbers as floats: in place, or in the workspace for sdx_floats_store. */
float *sdx_floats_for(const sdx_tensor *t, char **workspace);
/* Adds what either of them takes of a workspace. */
bool sdx_floats_plan(const sdx_type *type, size_t *total);
/* Any numeric type through sdx_tensor_get_*: for the types that no model is hot in. */
void sdx_doubles_load(sdx_dtype dtype, const void *data, int64_t begin, int64_t n, double *out);
void sdx_doubles_store(sdx_dtype dtype, const double *x, int64_t n, void *data, int64_t begin);

/* Elements that make one thread worth waking, for work of about a nanosecond each. */
#define SDX_GRAIN 8192
/* The same as a number of rows of n elements. */
static inline int64_t sdx_row_grain(int64_t n)
{
    return n >= SDX_GRAIN ? 1 : SDX_GRAIN / (n > 0 ? n : 1) + 1;
}

#endif
