/* weight.c: see weight.h */
#include "weight.h"

#include "../../base/file.h"
#include "linear.h"

/* Smaller ones are not worth their place in the list. */
enum { LARGE = 64 * 1024 };

static sdx_weight view_matrix(const sdx_gemm_f32_kernels *gemm, const sdx_tensor *t, bool transposed)
{
    int64_t columns = t->dim[1];
    return (sdx_weight){.gemm = gemm,
                        .k = t->dim[transposed],
                        .n = t->dim[!transposed],
                        .data = t->data,
                        .row_stride = transposed ? 1 : columns,
                        .col_stride = transposed ? columns : 1};
}

static bool pack(sdx_weight *w, sdx_arena *arena, int threads)
{
    float *packed = sdx_arena_alloc_raw(arena, w->gemm->packed_bytes(w->k, w->n));
    if (!packed) return false;
    sdx_gemm_f32_pack(w->gemm, threads, w->k, w->n, w->data, w->row_stride, w->col_stride, 1.0f, packed);
    atomic_store_explicit(&w->packed, packed, memory_order_release);
    return true;
}

sdx_status sdx_weight_prepare(sdx_prepare *p, int i, bool transposed, sdx_weight **out)
{
    const sdx_tensor *t = p->in[i].constant;
    sdx_weight *w;
    ARENA_NEW(p->arena, w, 1, p->err);
    *w = view_matrix(&p->kernels->linear, t, transposed);
    if (p->late && sdx_tensor_bytes(t) >= LARGE && sdx_model_is_mapped(p->model, t->data)) {
        w->next = p->late->first;
        p->late->first = w;
    } else if (!pack(w, p->arena, p->threads)) {
        return sdx_fail_memory(p->err, w->gemm->packed_bytes(w->k, w->n));
    }
    p->packed |= 1u << i;
    *out = w;
    return SDX_OK;
}

void sdx_late_weights_pack(sdx_late_weights *late, int threads)
{
    for (sdx_weight *w = late->first; w; w = w->next)
        if (pack(w, &late->arena, threads)) sdx_pages_release(w->data, (size_t)(w->k * w->n) * sizeof(float));
    atomic_store(&late->packed, true);
}

const float *sdx_weight_packed(const sdx_weight *w)
{
    return atomic_load_explicit(&w->packed, memory_order_acquire);
}

const float *sdx_weight_panels(const sdx_weight *w, int64_t begin, int64_t end, float *scratch)
{
    const float *all = sdx_weight_packed(w);
    int64_t first = begin * w->gemm->nr;
    if (all) return all + w->gemm->packed_bytes(w->k, first) / sizeof *all;
    const char *data = (const char *)w->data + first * w->col_stride * (int64_t)sizeof(float);
    w->gemm->pack_b(w->k, w->n - first, data, w->row_stride, w->col_stride, 0, end - begin, scratch);
    return scratch;
}

size_t sdx_weight_scratch(const sdx_weight *w, int64_t panels)
{
    return sdx_weight_packed(w) ? 0 : sdx_align_up(w->gemm->packed_bytes(w->k, panels * w->gemm->nr));
}
