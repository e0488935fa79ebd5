/* shape.c: see shape.h */
#include "shape.h"

#include <stdio.h>
#include <string.h>

sdx_shape sdx_shape_make(int rank, const sdx_dim *dim)
{
    sdx_shape s = {.rank = rank};
    for (int i = 0; i < rank; i++) s.dim[i] = dim[i];
    return s;
}

bool sdx_shape_is_known(const sdx_shape *s)
{
    for (int i = 0; i < s->rank; i++)
        if (s->dim[i] < 0) return false;
    return s->rank >= 0;
}

bool sdx_shape_same(const sdx_shape *a, const sdx_shape *b)
{
    if (a->rank < 0 || a->rank != b->rank) return false;
    for (int i = 0; i < a->rank; i++)
        if (!sdx_dim_same(a->dim[i], b->dim[i])) return false;
    return true;
}

int64_t sdx_shape_count(const sdx_shape *s)
{
    if (!sdx_shape_is_known(s)) return -1;
    bool empty = false;
    for (int i = 0; i < s->rank; i++) empty |= s->dim[i] == 0;
    if (empty) return 0;
    int64_t n = 1;
    for (int i = 0; i < s->rank; i++)
        if (__builtin_mul_overflow(n, s->dim[i], &n)) return -1;
    return n;
}

int64_t sdx_shape_span(const sdx_shape *s, int from, int to)
{
    int64_t n = 1;
    for (int i = from; i < to; i++) n *= s->dim[i];
    return n;
}

void sdx_shape_strides(const sdx_shape *s, int64_t stride[SDX_MAX_RANK])
{
    int64_t n = 1;
    for (int i = s->rank - 1; i >= 0; i--) {
        stride[i] = n;
        n = (int64_t)((uint64_t)n * (uint64_t)s->dim[i]); /* too large for a tensor: wraps, and nobody walks it */
    }
}

static sdx_dim broadcast_dim(sdx_dim a, sdx_dim b, bool *ok)
{
    if (a == b) return a;
    if (a == 1) return b;
    if (b == 1) return a;
    if (a >= 0 && b >= 0) *ok = false;
    if (a >= 0) return a; /* the other must turn out 1 or the same */
    if (b >= 0) return b;
    return SDX_DIM_UNKNOWN;
}

sdx_status sdx_shape_broadcast(const sdx_shape *a, const sdx_shape *b, sdx_shape *out, sdx_error *err)
{
    if (a->rank < 0 || b->rank < 0) {
        *out = SDX_SHAPE_UNKNOWN;
        return SDX_OK;
    }
    sdx_shape r = {.rank = a->rank > b->rank ? a->rank : b->rank};
    bool ok = true;
    for (int i = 1; i <= r.rank; i++) {
        sdx_dim da = i <= a->rank ? a->dim[a->rank - i] : 1, db = i <= b->rank ? b->dim[b->rank - i] : 1;
        r.dim[r.rank - i] = broadcast_dim(da, db, &ok);
    }
    if (!ok) {
        char ta[SDX_SHAPE_TEXT], tb[SDX_SHAPE_TEXT];
        return sdx_fail(err, SDX_ERR_USAGE, "shapes %s and %s do not broadcast", sdx_shape_format(a, ta, sizeof ta),
                        sdx_shape_format(b, tb, sizeof tb));
    }
    *out = r;
    return SDX_OK;
}

void sdx_shape_broadcast_strides(const sdx_shape *from, const sdx_shape *to, int64_t stride[SDX_MAX_RANK])
{
    int64_t own[SDX_MAX_RANK];
    sdx_shape_strides(from, own);
    int lead = to->rank - from->rank;
    for (int i = 0; i < to->rank; i++) stride[i] = i < lead || from->dim[i - lead] == 1 ? 0 : own[i - lead];
}

sdx_status sdx_axis_normalize(int64_t axis, int rank, int *out, sdx_error *err)
{
    if (axis < -(int64_t)rank || axis >= rank)
        return sdx_fail(err, SDX_ERR_USAGE, "axis %lld is outside [%d, %d)", (long long)axis, -rank, rank);
    *out = (int)(axis < 0 ? axis + rank : axis);
    return SDX_OK;
}

char *sdx_shape_format(const sdx_shape *s, char *buf, size_t size)
{
    if (s->rank < 0) {
        snprintf(buf, size, "[...]");
        return buf;
    }
    size_t at = (size_t)snprintf(buf, size, "[");
    for (int i = 0; i < s->rank && at < size; i++) {
        const char *comma = i ? "," : "";
        int n = s->dim[i] >= 0 ? snprintf(buf + at, size - at, "%s%lld", comma, (long long)s->dim[i])
                               : snprintf(buf + at, size - at, "%s?", comma);
        at += (size_t)n;
    }
    if (at < size) snprintf(buf + at, size - at, "]");
    return buf;
}
