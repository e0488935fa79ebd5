/* compute.c: see compute.h */
#include "compute.h"

#include <string.h>

/* ---- infer ----------------------------------------------------------------------------------------------- */

const sdx_type *sdx_infer_in(const sdx_infer *infer, int i)
{
    static const sdx_type absent = {.dtype = SDX_UNDEFINED, .shape = {.rank = -1}};
    return i < infer->n_in ? &infer->in[i] : &absent;
}

/* "float32, float16 or int8" */
static void format_set(unsigned set, char *buf, size_t size)
{
    buf[0] = 0;
    for (unsigned t = 0; t < 32 && set; t++) {
        if (!(set & 1u << t)) continue;
        set &= ~(1u << t);
        const char *joint = !buf[0] ? "" : set ? ", " : " or ";
        strncat(buf, joint, size - strlen(buf) - 1);
        strncat(buf, sdx_dtype_name((sdx_dtype)t), size - strlen(buf) - 1);
    }
}

sdx_status sdx_want_dtype(const sdx_infer *infer, int i, const char *name, unsigned set)
{
    sdx_dtype t = sdx_infer_in(infer, i)->dtype;
    if (t == SDX_UNDEFINED || set & SDX_SET(t)) return SDX_OK;
    char known[320];
    format_set(set, known, sizeof known);
    return sdx_fail(infer->err, SDX_ERR_UNSUPPORTED, "%s is %s, but must be %s", name, sdx_dtype_name(t),
                    known);
}

sdx_status sdx_want_same_dtype(const sdx_infer *infer, int i, const char *name, int as, const char *as_name)
{
    sdx_dtype a = sdx_infer_in(infer, i)->dtype, b = sdx_infer_in(infer, as)->dtype;
    if (a == SDX_UNDEFINED || b == SDX_UNDEFINED || a == b) return SDX_OK;
    return sdx_fail(infer->err, SDX_ERR_FILE, "%s is %s, but %s is %s", name, sdx_dtype_name(a), as_name,
                    sdx_dtype_name(b));
}

sdx_status sdx_want_rank(const sdx_infer *infer, int i, const char *name, int least, int most)
{
    const sdx_shape *s = &sdx_infer_in(infer, i)->shape;
    if (s->rank < 0 || (s->rank >= least && s->rank <= most)) return SDX_OK;
    char text[SDX_SHAPE_TEXT];
    sdx_shape_format(s, text, sizeof text);
    if (least == most)
        return sdx_fail(infer->err, SDX_ERR_USAGE, "%s has shape %s, but must have %d dimensions", name, text,
                        least);
    return sdx_fail(infer->err, SDX_ERR_USAGE, "%s has shape %s, but must have %d to %d dimensions", name, text,
                    least, most);
}

sdx_dim sdx_type_dim(const sdx_type *type, int axis)
{
    int rank = type->shape.rank;
    if (axis < 0) axis += rank;
    return rank < 0 || axis < 0 || axis >= rank ? SDX_DIM_UNKNOWN : type->shape.dim[axis];
}

sdx_status sdx_want_dim(const sdx_infer *infer, int i, const char *name, int axis, sdx_dim dim)
{
    sdx_dim have = sdx_type_dim(sdx_infer_in(infer, i), axis);
    if (!sdx_dim_is_known(have) || !sdx_dim_is_known(dim) || have == dim) return SDX_OK;
    char text[SDX_SHAPE_TEXT];
    return sdx_fail(infer->err, SDX_ERR_USAGE, "%s has shape %s, but dimension %d must be %lld", name,
                    sdx_shape_format(&sdx_infer_in(infer, i)->shape, text, sizeof text), axis, (long long)dim);
}

sdx_status sdx_want_present(const sdx_infer *infer, int i, const char *name)
{
    if (sdx_infer_has(infer, i)) return SDX_OK;
    return sdx_fail(infer->err, SDX_ERR_FILE, "%s (input %d) is missing", name, i);
}

sdx_dim sdx_dim_merge(sdx_dim a, sdx_dim b)
{
    if (sdx_dim_is_known(a)) return a;
    if (sdx_dim_is_known(b)) return b;
    return a != SDX_DIM_UNKNOWN ? a : b;
}

/* ---- prepare --------------------------------------------------------------------------------------------- */

sdx_status sdx_prepare_keep(sdx_prepare *p, int i, const void **out)
{
    *out = NULL;
    if (p->brief || i >= p->n_in || !p->in[i].constant) return SDX_OK;
    size_t bytes = sdx_tensor_bytes(p->in[i].constant);
    void *copy = sdx_arena_alloc(p->arena, bytes);
    if (!copy) return sdx_fail_memory(p->err, bytes);
    if (bytes) memcpy(copy, p->in[i].constant->data, bytes);
    p->packed |= 1u << i;
    *out = copy;
    return SDX_OK;
}

sdx_status sdx_prepare_keep_all(sdx_prepare *p, const void **kept)
{
    for (int i = 0; i < p->n_in; i++)
        if (!(p->packed & 1u << i)) TRY(sdx_prepare_keep(p, i, &kept[i]));
    return SDX_OK;
}

sdx_status sdx_prepare_state(sdx_prepare *p, size_t bytes, void *state_pointer)
{
    p->state = sdx_arena_alloc(p->arena, bytes);
    if (!p->state) return sdx_fail_memory(p->err, bytes);
    memcpy(state_pointer, &p->state, sizeof p->state);
    return SDX_OK;
}

/* ---- plan and run ---------------------------------------------------------------------------------------- */

bool sdx_workspace_add(size_t *total, size_t count, size_t size)
{
    size_t bytes;
    if (!sdx_mul_size(count, size, &bytes) || bytes > SIZE_MAX / 2) return false;
    return sdx_add_size(*total, sdx_align_up(bytes), total);
}

sdx_status sdx_workspace_fail(sdx_error *err)
{
    return sdx_fail(err, SDX_ERR_USAGE, "the working memory for these shapes would exceed the address space");
}

sdx_status sdx_run_spend(sdx_run *run, double operations)
{
    double steps = operations / SDX_STEP_WORK;
    if (!run->steps_left) return SDX_OK;
    if (steps > (double)*run->steps_left)
        return sdx_fail(run->err, SDX_ERR_USAGE, "it takes %.3g operations, more than the run's limit of steps leaves",
                        operations);
    *run->steps_left -= (uint64_t)steps;
    return SDX_OK;
}

void *sdx_workspace_take(char **workspace, size_t bytes)
{
    void *part = *workspace;
    *workspace += sdx_align_up(bytes);
    return part;
}

void sdx_floats_load(const sdx_kernels *kernels, sdx_dtype dtype, const void *data, int64_t begin, int64_t n,
                     float *out)
{
    const char *from = (const char *)data + begin * (int64_t)sdx_dtype_size(dtype);
    if (n <= 0) return;
    if (dtype == SDX_F32)
        memcpy(out, from, (size_t)n * sizeof *out);
    else if (dtype == SDX_F16 && (uintptr_t)from % sizeof(uint16_t) == 0)
        kernels->element.f16_to_f32(n, (const uint16_t *)(const void *)from, out);
    else
        for (int64_t i = 0; i < n; i++) {
            uint16_t half;
            double wide;
            if (dtype == SDX_F64) {
                memcpy(&wide, from + i * 8, sizeof wide);
                out[i] = (float)wide;
            } else {
                memcpy(&half, from + i * 2, sizeof half);
                out[i] = dtype == SDX_F16 ? sdx_f16_to_f32(half) : sdx_bf16_to_f32(half);
            }
        }
}

void sdx_floats_store(sdx_dtype dtype, const float *x, int64_t n, void *data, int64_t begin)
{
    if (n <= 0) return;
    if (dtype == SDX_F32)
        memcpy((float *)data + begin, x, (size_t)n * sizeof *x);
    else if (dtype == SDX_F64)
        for (int64_t i = 0; i < n; i++) ((double *)data)[begin + i] = (double)x[i];
    else
        for (int64_t i = 0; i < n; i++)
            ((uint16_t *)data)[begin + i] = dtype == SDX_F16 ? sdx_f32_to_f16(x[i]) : sdx_f32_to_bf16(x[i]);
}

const float *sdx_floats_of(const sdx_kernels *kernels, const sdx_tensor *t, char **workspace)
{
    if (t->dtype == SDX_F32) return t->data;
    int64_t count = sdx_tensor_count(t);
    float *wide = sdx_workspace_take(workspace, (size_t)count * sizeof *wide);
    sdx_floats_load(kernels, t->dtype, t->data, 0, count, wide);
    return wide;
}

float *sdx_floats_for(const sdx_tensor *t, char **workspace)
{
    if (t->dtype == SDX_F32) return t->data;
    return sdx_workspace_take(workspace, (size_t)sdx_tensor_count(t) * sizeof(float));
}

bool sdx_floats_plan(const sdx_type *type, size_t *total)
{
    if (type->dtype == SDX_F32 || type->dtype == SDX_UNDEFINED) return true;
    return sdx_workspace_add(total, (size_t)sdx_shape_count(&type->shape), sizeof(float));
}

void sdx_doubles_load(sdx_dtype dtype, const void *data, int64_t begin, int64_t n, double *out)
{
    sdx_tensor t = {.dtype = dtype, .data = (void *)data};
    for (int64_t i = 0; i < n; i++) out[i] = sdx_tensor_get_f64(&t, begin + i);
}

void sdx_doubles_store(sdx_dtype dtype, const double *x, int64_t n, void *data, int64_t begin)
{
    if (dtype == SDX_F64) {
        if (n > 0) memcpy((double *)data + begin, x, (size_t)n * sizeof *x);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        float f = (float)x[i];
        sdx_floats_store(dtype, &f, 1, data, begin + i);
    }
}
