/* kept.c: values that a session keeps from one run to the next: the keys and values of earlier tokens. A graph says
 * "present = past and new rows" and would copy the past in every run. Here past and present are one piece of memory,
 * [B,N,room,H] with room for more rows than there are, into which an attention operator writes the new rows behind
 * the old ones (sdx_plan_step.past); the room doubles when it is used up. The files stay as exporters write them.
 *
 * A plan in which something else reads the past or the present, such as a Concat that no pass could fuse, gets the
 * past without gaps, and what it computes is copied back. */
#include <stdlib.h>
#include <string.h>

#include "../base/memory.h"
#include "engine.h"

enum { LEAST_ROOM = 32 };

void sdx_keeper_fini(sdx_keeper *keeper)
{
    for (int k = 0; k < keeper->count; k++) free(keeper->kept[k].value.data);
    free(keeper->kept);
    free(keeper->scratch);
    *keeper = (sdx_keeper){0};
}

sdx_status sdx_keeper_add(sdx_keeper *keeper, const sdx_port *port, int input, int output, sdx_error *err)
{
    if (port->rank != 4 || !sdx_dtype_size(port->dtype) || port->dim[1] < 0 || port->dim[3] < 0)
        return sdx_fail(err, SDX_ERR_UNSUPPORTED,
                        "input \"%.200s\" cannot be kept: it is not [rows, heads, tokens, size] with known heads and size",
                        port->name);
    sdx_kept *grown = sdx_realloc(keeper->kept, (size_t)(keeper->count + 1) * sizeof *grown);
    if (!grown) return sdx_fail_memory(err, (size_t)(keeper->count + 1) * sizeof *grown);
    keeper->kept = grown;
    sdx_tensor empty = {port->dtype, 4, {0, port->dim[1], 0, port->dim[3]}, NULL};
    keeper->kept[keeper->count++] = (sdx_kept){.input = input, .output = output, .value = empty};
    return SDX_OK;
}

/* ---- memory ---------------------------------------------------------------------------------------------- */

static size_t token_bytes(const sdx_kept *k)
{
    return (size_t)k->value.dim[3] * sdx_dtype_size(k->value.dtype);
}

/* Bytes of so many rows of [N,room,H]. */
static bool size_of(const sdx_kept *k, int64_t rows, int64_t room, size_t *bytes)
{
    sdx_shape shape = {.rank = 4, .dim = {rows, k->value.dim[1], room, k->value.dim[3]}};
    return sdx_tensor_size(k->value.dtype, &shape, bytes);
}

/* The tokens of row `from` of one layout to row `to` of another. */
static void copy_row(const sdx_kept *k, const char *src, int64_t from, int64_t src_room, char *dst, int64_t to,
                     int64_t dst_room)
{
    size_t token = token_bytes(k), used = (size_t)k->value.dim[2] * token;
    int64_t heads = k->value.dim[1];
    for (int64_t h = 0; h < heads && used; h++)
        memcpy(dst + (size_t)((to * heads + h) * dst_room) * token,
               src + (size_t)((from * heads + h) * src_room) * token, used);
}

/* Another layout: row r is what row[r] was, NULL: r. */
static sdx_status lay_out(sdx_kept *k, const size_t *row, int64_t rows, int64_t room, sdx_error *err)
{
    size_t bytes;
    if (!size_of(k, rows, room, &bytes)) return sdx_fail_memory(err, SIZE_MAX);
    char *data = sdx_malloc_aligned(bytes);
    if (!data) return sdx_fail_memory(err, bytes);
    for (int64_t r = 0; r < rows; r++) copy_row(k, k->value.data, row ? (int64_t)row[r] : r, k->room, data, r, room);
    free(k->value.data);
    k->value.data = data;
    k->value.dim[0] = rows;
    k->room = room;
    k->bytes = bytes;
    return SDX_OK;
}

sdx_status sdx_kept_set(sdx_kept *k, const sdx_tensor *t, sdx_error *err)
{
    const int64_t *have = k->value.dim;
    if (t->dtype != k->value.dtype || t->rank != 4 || t->dim[1] != have[1] || t->dim[3] != have[3])
        return sdx_fail(err, SDX_ERR_USAGE, "what is to be kept is not %s[rows,%lld,tokens,%lld]",
                        sdx_dtype_name(k->value.dtype), (long long)have[1], (long long)have[3]);
    int64_t room = t->dim[2] > k->room ? t->dim[2] : k->room;
    size_t bytes;
    if (!size_of(k, t->dim[0], room, &bytes)) return sdx_fail_memory(err, SIZE_MAX);
    k->value.dim[2] = 0;
    if (bytes > k->bytes || !k->value.data) TRY(lay_out(k, NULL, t->dim[0], room, err));
    k->room = room;
    k->value.dim[0] = t->dim[0];
    k->value.dim[2] = t->dim[2];
    for (int64_t r = 0; r < t->dim[0]; r++) copy_row(k, t->data, r, t->dim[2], k->value.data, r, room);
    return SDX_OK;
}

/* ---- another order of rows ------------------------------------------------------------------------------- */

static sdx_status reserve_scratch(sdx_keeper *keeper, size_t bytes, sdx_error *err)
{
    if (keeper->scratch && bytes <= keeper->scratch_bytes) return SDX_OK;
    free(keeper->scratch);
    keeper->scratch_bytes = 0;
    keeper->scratch = sdx_malloc_aligned(2 * bytes);
    if (!keeper->scratch) return sdx_fail_memory(err, 2 * bytes);
    keeper->scratch_bytes = 2 * bytes;
    return SDX_OK;
}

/* Within its memory: the rows that come from elsewhere go through the scratch, the others stay. */
static sdx_status permute(sdx_keeper *keeper, sdx_kept *k, const size_t *row, size_t rows, sdx_error *err)
{
    size_t bytes;
    int64_t moved = 0, tokens = k->value.dim[2];
    for (size_t r = 0; r < rows; r++) moved += row[r] != r;
    if (!size_of(k, moved, tokens, &bytes)) return sdx_fail_memory(err, SIZE_MAX);
    if (moved) TRY(reserve_scratch(keeper, bytes, err));
    moved = 0;
    for (size_t r = 0; r < rows; r++)
        if (row[r] != r) copy_row(k, k->value.data, (int64_t)row[r], k->room, keeper->scratch, moved++, tokens);
    moved = 0;
    for (size_t r = 0; r < rows; r++)
        if (row[r] != r) copy_row(k, keeper->scratch, moved++, tokens, k->value.data, (int64_t)r, k->room);
    k->value.dim[0] = (int64_t)rows;
    return SDX_OK;
}

sdx_status sdx_keeper_reorder(sdx_keeper *keeper, const size_t *row, size_t rows, sdx_error *err)
{
    for (int i = 0; i < keeper->count; i++) {
        sdx_kept *k = &keeper->kept[i];
        size_t bytes;
        for (size_t r = 0; r < rows; r++)
            if (row[r] >= (size_t)k->value.dim[0])
                return sdx_fail(err, SDX_ERR_USAGE, "row %zu of %lld that are kept", row[r],
                                (long long)k->value.dim[0]);
        if (size_of(k, (int64_t)rows, k->room, &bytes) && bytes <= k->bytes)
            TRY(permute(keeper, k, row, rows, err));
        else
            TRY(lay_out(k, row, (int64_t)rows, k->room, err));
    }
    return SDX_OK;
}

/* ---- around a run ---------------------------------------------------------------------------------------- */

sdx_status sdx_keeper_prepare(sdx_keeper *keeper, sdx_plan *plan, sdx_error *err)
{
    for (int i = 0; i < keeper->count; i++) {
        sdx_kept *k = &keeper->kept[i];
        int64_t room = k->value.dim[2];
        if (plan->append[i] >= 0) {
            int64_t need = plan->type[plan->body->graph->output[k->output]].shape.dim[2];
            room = need <= k->room ? k->room : 2 * need < LEAST_ROOM ? LEAST_ROOM : 2 * need;
        }
        if (room != k->room || !k->value.data) TRY(lay_out(k, NULL, k->value.dim[0], room, err));
        if (plan->append[i] >= 0) plan->step[plan->append[i]].room = room;
    }
    return SDX_OK;
}

sdx_status sdx_keeper_take(sdx_keeper *keeper, const sdx_plan *plan, unsigned char *buffer, sdx_error *err)
{
    for (int i = 0; i < keeper->count; i++) {
        sdx_kept *k = &keeper->kept[i];
        sdx_tensor t = sdx_plan_output(plan, k->output, buffer);
        if (plan->append[i] >= 0)
            k->value.dim[2] = t.dim[2];
        else
            TRY(sdx_kept_set(k, &t, err));
    }
    return SDX_OK;
}
